//! Splitting a shard: parts of its hash range become shards of their own, on the nodes where it is. The shards beside it are split
//! alike.
//!
//! It is a relocation within each node, so rows do not travel. Each placement copies its rows into the parts, sees to those that
//! change meanwhile, and is dropped at the switch. Rows of a table without a key are copied at the switch.

use super::capture;
use super::create::{attach, definition, filled_as};
use super::group::{Group, Member};
use super::kind::Kind;
use super::leftovers::Leftovers;
use super::locks::{check_transaction, lock_out, locked_group, when_nobody_is_in_the_way};
use super::request::Relocation;
use super::rounds::{Round, take_keys};
use crate::activity::{Kind as Phase, Work};
use crate::catalog::{self, quote};
use crate::ddl::{definition_error, foreign_keys};
use crate::fault;
use crate::functions::{change_metadata, literal, next_shard_id};
use crate::links;
use crate::owner;
use crate::script;
use crate::session::gate;
use pg::catalog::extension;
use pg::catalog::privileged;
use pg::catalog::table;
use pg::server::utility::copied_columns;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::change_capture::has_key;
use shardmap::{HashRange, NodeAddress, ShardId};

/// A shard to come: a part of a member of the group.
struct Part {
    id: ShardId,
    range: HashRange,
}

/// What is done on a node with a part of a member.
type EachPart<'a> = &'a mut dyn FnMut(&Relocation, &Cut, &Member, &Part) -> Result<(), PgError>;

/// What becomes of a member.
struct Cut {
    /// The member's place in the group.
    member: usize,
    parts: Vec<Part>,
}

struct Split {
    /// One for each node that has the shards: source and target are the same.
    on_nodes: Vec<Relocation>,
    cuts: Vec<Cut>,
}

/// Splits a shard behind each of these hashes, and those beside it; tells the ids of its parts.
///
/// # Errors
///
/// As [`super::relocate`].
pub(crate) fn split(shard: ShardId, points: &[i32]) -> Result<Vec<ShardId>, PgError> {
    check_transaction(Kind::Split, shard)?;
    let group = locked_group(Kind::Split, shard, &[])?;
    let range = group.members[0].table.map.shards()[group.members[0].index].range;
    let ranges = range.split(points).ok_or_else(|| {
        PgError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("cannot split shard {} at these points", shard.0),
        )
        .detail(format!(
            "Each point is the last hash of a part, in ascending order, from {} to {}.",
            range.first(),
            i64::from(range.last()) - 1
        ))
    })?;
    group.members.iter().try_for_each(|member| check_hash(&member.table))?;
    let split = Split::plan(shard, &group, &ranges)?;
    let mut leftovers = Leftovers::default();
    let phase = Work::begin(Phase::RelocationCreate, 0);
    split.create_tables()?;
    fault::point("split_created");
    let phase = phase.followed_by(Phase::RelocationCapture);
    leftovers.are_there();
    split.on_nodes.iter().try_for_each(capture::begin)?;
    fault::point("split_captured");
    let phase = phase.followed_by(Phase::RelocationFill);
    split.fill(true)?;
    let phase = phase.followed_by(Phase::RelocationIndex);
    split.create_indexes()?;
    fault::point("split_filled");
    let _phase = phase.followed_by(Phase::RelocationCatchUp);
    split.on_nodes.iter().try_for_each(Relocation::look_keys_up)?;
    when_nobody_is_in_the_way(&group.tables(), &|| split.round(), &|| split.switch(&group))?;
    fault::point("split_switched");
    leftovers.are_gone();
    Ok(split.cuts[0].parts.iter().map(|part| part.id).collect())
}

/// Gives a key a shard of its own, unless it has one; tells its id. Other keys of the same hash come along.
pub(crate) fn isolate(oid: Oid, value: &str) -> Result<ShardId, PgError> {
    let table = catalog::get(oid)?;
    let (hash, index) = place_of(&table, value)?;
    let range = table.map.shards()[index].range;
    let mut points = Vec::new();
    points.extend((hash > range.first()).then(|| hash - 1));
    points.extend((hash < range.last()).then_some(hash));
    let shard = table.shard_id(index);
    if points.is_empty() {
        return Ok(shard);
    }
    let parts = split(shard, &points)?;
    Ok(parts[usize::from(hash > range.first())])
}

/// The shard of a key.
pub(crate) fn shard_of(oid: Oid, value: &str) -> Result<ShardId, PgError> {
    let table = catalog::get(oid)?;
    table.check()?;
    let (_, index) = place_of(&table, value)?;
    Ok(table.shard_id(index))
}

/// The hash of a key, and the index of its shard.
fn place_of(table: &catalog::DistributedTable, value: &str) -> Result<(i32, usize), PgError> {
    let hash = hash_of(table, value)?;
    let index = table.map.owner(hash).ok_or_else(|| {
        PgError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("no shard of table \"{}\" holds the key", table.name),
        )
    })?;
    Ok((hash, index))
}

fn hash_of(table: &catalog::DistributedTable, value: &str) -> Result<i32, PgError> {
    let (type_oid, typmod, _) = table::column_type(table.oid, table.key.column);
    let type_name = one_text(&format!("SELECT format_type({}, {typmod})", type_oid.to_u32()))?;
    let cast = format!("CAST({} AS {type_name}){}", literal(value), collation(table)?);
    let sql = format!(
        "SELECT k.hash FROM (SELECT {cast}) AS v(key), {} AS k(hash) WHERE v.key IS NOT NULL",
        hash_sql("v.key")
    );
    let hash = privileged::read_catalogs(|client| {
        client.select(&sql, Some(1), &[])?.first().get_one::<i32>()
    });
    hash.map_err(|error| PgError::internal(error.to_string()))?
        .ok_or_else(|| PgError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "the key must not be null"))
}

fn one_text(sql: &str) -> Result<String, PgError> {
    let text = privileged::read_catalogs(|client| {
        client.select(sql, Some(1), &[])?.first().get_one::<String>()
    });
    text.map_err(|error| PgError::internal(error.to_string()))?
        .ok_or_else(|| PgError::internal("the catalogs do not say it"))
}

fn collation(table: &catalog::DistributedTable) -> Result<String, PgError> {
    let collation = table.key.collation;
    if collation == Oid::INVALID {
        return Ok(String::new());
    }
    one_text(&format!(
        "SELECT format(' COLLATE %I.%I', n.nspname, c.collname) FROM pg_collation c \
         JOIN pg_namespace n ON n.oid = c.collnamespace WHERE c.oid = {}",
        collation.to_u32()
    ))
}

/// The nodes hash as this server does. The hash of an enum's value is that of its number in the catalogs, which is another one on each
/// server; objects of the catalogs (regclass) are numbers too, and rows may have either in them.
fn check_hash(table: &catalog::DistributedTable) -> Result<(), PgError> {
    script::need("is_hashed_by_oid", &[extension::OID])?;
    let depends = one_text(&format!(
        "SELECT pgs_catalog.is_hashed_by_oid({})::text",
        table::column_type(table.oid, table.key.column).0.to_u32()
    ))?;
    if depends == "false" {
        return Ok(());
    }
    Err(PgError::unsupported(
        format!("cannot split shards of table \"{}\" by column \"{}\"", table.name, table.key_name),
        "Distribute the table by another column, or anew in more shards with alter_distributed_table.",
    )
    .detail("Values of the column's type have other hashes on other servers."))
}

/// SQL for the hash of a value, by the default class of its type. The class' own function may take another type that SQL does not
/// cast to, as hashint4 does for date. The hash of a row of one column is that of the column (`hash_record`, `rowtypes.c`).
fn hash_sql(value: &str) -> String {
    format!("pg_catalog.hash_record(ROW({value}))")
}

impl Part {
    fn name(&self, member: &Member) -> String {
        let table = &member.table;
        format!("{}.{}", quote(&table.schema), quote(&format!("{}_{}", table.name, self.id.0)))
    }
}

impl Cut {
    /// The rows of a part have this.
    fn condition(&self, member: &Member, part: &Part) -> String {
        format!(
            "{} BETWEEN {} AND {}",
            hash_sql(&format!("pgs_row.{}", quote(&member.table.key_name))),
            part.range.first(),
            part.range.last()
        )
    }
}

impl Split {
    fn plan(shard: ShardId, group: &Group, ranges: &[HashRange]) -> Result<Self, PgError> {
        let nodes = group.nodes()?;
        let mut cuts = Vec::new();
        for number in 0..group.members.len() {
            let mut parts = Vec::new();
            for range in ranges {
                parts.push(Part { id: ShardId(next_shard_id()?), range: *range });
            }
            cuts.push(Cut { member: number, parts });
        }
        let on_nodes = nodes.into_iter().map(|node| Relocation {
            kind: Kind::Split,
            shard,
            source: node.clone(),
            target: node,
            lost: None,
            group: group.clone(),
        });
        Ok(Self { on_nodes: on_nodes.collect(), cuts })
    }

    /// Calls `each` for every node, member and part.
    fn each_part(&self, each: EachPart<'_>) -> Result<(), PgError> {
        for relocation in &self.on_nodes {
            for cut in &self.cuts {
                let member = &relocation.group.members[cut.member];
                for part in &cut.parts {
                    each(relocation, cut, member, part)?;
                }
            }
        }
        Ok(())
    }

    fn create_tables(&self) -> Result<(), PgError> {
        self.each_part(&mut |relocation, _, member, part| {
            let definition = definition(member)?;
            let create = definition.create_around_rows().0;
            relocation.on_target(&filled_as(part.id, &create)?)
        })
    }

    fn create_indexes(&self) -> Result<(), PgError> {
        self.each_part(&mut |relocation, _, member, part| {
            let then = definition(member)?.create_around_rows().1;
            relocation.on_target(&filled_as(part.id, &then)?)
        })?;
        for relocation in &self.on_nodes {
            for number in 0..self.cuts[0].parts.len() {
                let name = |member: usize| {
                    self.cuts[member].parts[number].name(&relocation.group.members[member])
                };
                attach(relocation, &name)?;
            }
        }
        self.each_part(&mut |relocation, _, member, part| {
            if !member.has_rows() {
                return Ok(());
            }
            let analyze = [format!("ANALYZE {}", part.name(member))];
            owner::acting_on(&member.table, member.index, &[&relocation.target], || {
                relocation.on_target(&analyze)
            })
            .map(drop)
        })
    }

    /// Copies the rows of tables with a key, or of the others.
    fn fill(&self, have_keys: bool) -> Result<(), PgError> {
        self.each_part(&mut |relocation, cut, member, part| {
            if !member.has_rows() || capture::key(member).is_some() != have_keys {
                return Ok(());
            }
            let columns = columns(member);
            let copy = format!(
                "INSERT INTO {} ({}) SELECT {} FROM ONLY {} AS pgs_row WHERE {}",
                part.name(member),
                columns.join(", "),
                qualified(&columns),
                member.name(),
                cut.condition(member, part)
            );
            owner::acting_on(&member.table, member.index, &[&relocation.source], || {
                relocation.on_source(&[copy])
            })
            .map(drop)
        })
    }

    fn round(&self) -> Result<Round, PgError> {
        let mut round = Round::default();
        for relocation in &self.on_nodes {
            for cut in &self.cuts {
                let member = &relocation.group.members[cut.member];
                let Some(key) = capture::key(member).filter(|_| member.has_rows()) else {
                    continue;
                };
                let done =
                    owner::acting_on(&member.table, member.index, &[&relocation.source], || {
                        self.catch_up(relocation, cut, member, &key)
                    })?;
                round.rows += done.unwrap_or_default();
            }
        }
        Ok(round)
    }

    fn catch_up(
        &self,
        relocation: &Relocation,
        cut: &Cut,
        member: &Member,
        key: &[String],
    ) -> Result<u64, PgError> {
        let count = take_keys(relocation, member, key)?;
        if count == 0 {
            return Ok(0);
        }
        let (keys, columns) = (member.capture().keys, columns(member));
        let matches = has_key(key, "pgs_row");
        let mut statements = Vec::new();
        for part in &cut.parts {
            statements.push(format!(
                "DELETE FROM ONLY {} AS pgs_row USING {keys} AS pgs_key WHERE {matches}",
                part.name(member)
            ));
        }
        for part in &cut.parts {
            statements.push(format!(
                "INSERT INTO {} ({}) SELECT {} FROM {keys} AS pgs_key JOIN ONLY {} AS pgs_row ON {matches} WHERE {}",
                part.name(member),
                columns.join(", "),
                qualified(&columns),
                member.name(),
                cut.condition(member, part)
            ));
        }
        relocation.on_source(&statements)?;
        Ok(count)
    }

    fn switch(&self, group: &Group) -> Result<(), PgError> {
        lock_out(group);
        catalog::forget(None);
        group.check_healthy(Kind::Split, self.on_nodes.iter().map(|one| &one.source))?;
        let names: Vec<String> = group.members.iter().map(Member::name).collect();
        // Of SERIALIZABLE transactions that have used the nodes none is under way.
        let lock = [
            gate::ALONE.to_owned(),
            format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", names.join(", ")),
        ];
        for relocation in &self.on_nodes {
            relocation.on_source(&lock)?;
        }
        fault::point("split_locked");
        self.fill(false)?;
        self.round()?;
        self.create_keys()?;
        for relocation in &self.on_nodes {
            let mut statements = capture::drop_all(group);
            statements.push(foreign_keys::drop_referring(&names));
            statements.push(format!("DROP TABLE IF EXISTS {}", names.join(", ")));
            relocation.on_source(&statements)?;
        }
        self.change_metadata(group)
    }

    fn create_keys(&self) -> Result<(), PgError> {
        for relocation in &self.on_nodes {
            let group = &relocation.group;
            for cut in &self.cuts {
                let member = &group.members[cut.member];
                let templates = definition(member)?.restore_foreign_keys(&|_| true);
                for (number, part) in cut.parts.iter().enumerate() {
                    let peer = |other: u32| {
                        let other = Oid::from_u32(other);
                        let beside = group.members.iter().position(|one| one.table.oid == other);
                        match beside {
                            Some(at) => self.cuts[at].parts[number].id.0,
                            None => links::shard_beside(other, member.index).map_or(0, |it| it.0),
                        }
                    };
                    let filled: Result<Vec<String>, _> =
                        templates.iter().map(|one| one.fill_beside(part.id.0, &peer)).collect();
                    let filled = filled.map_err(|error| definition_error(&error.into()))?;
                    relocation.on_target(&filled)?;
                }
            }
        }
        Ok(())
    }

    fn change_metadata(&self, group: &Group) -> Result<(), PgError> {
        for cut in &self.cuts {
            let member = &group.members[cut.member];
            let old = member.shard().0;
            for part in &cut.parts {
                change_metadata(&format!(
                    "INSERT INTO pgs_distribution_metadata.shard (id, relation_id, storage, min_value, max_value) \
                     SELECT {0}, relation_id, storage, '{1}', '{2}' FROM pgs_distribution_metadata.shard WHERE id = {old}; \
                     INSERT INTO pgs_distribution_metadata.shard_placement (shard_id, shard_state, node_name, node_port) \
                     SELECT {0}, shard_state, node_name, node_port FROM pgs_distribution_metadata.shard_placement \
                      WHERE shard_id = {old} ORDER BY id",
                    part.id.0,
                    part.range.first(),
                    part.range.last()
                ))?;
            }
            change_metadata(&format!(
                "DELETE FROM pgs_distribution_metadata.shard_placement WHERE shard_id = {old}; \
                 DELETE FROM pgs_distribution_metadata.shard WHERE id = {old}"
            ))?;
        }
        Ok(())
    }
}

fn columns(member: &Member) -> Vec<String> {
    copied_columns(member.table.oid).iter().map(|(_, name)| quote(name)).collect()
}

fn qualified(columns: &[String]) -> String {
    let all: Vec<String> = columns.iter().map(|name| format!("pgs_row.{name}")).collect();
    all.join(", ")
}

/// The nodes on which all members have healthy placements, and nothing else.
impl Group {
    fn nodes(&self) -> Result<Vec<NodeAddress>, PgError> {
        let healthy = |member: &Member| -> Vec<NodeAddress> {
            member.table.healthy(member.index).map(|placement| placement.node.clone()).collect()
        };
        let first = &self.members[0];
        let nodes = healthy(first);
        if first.table.map.len() == 1 && (nodes.len() > 1 || !self.linked.is_empty()) {
            return Err(PgError::unsupported(
                format!("cannot split the shard of table \"{}\"", first.table.name),
                "Distribute the table anew with create_distributed_table.",
            )
            .detail("It is a reference table, which is whole on each node."));
        }
        for member in &self.members {
            let own = healthy(member);
            let all = &member.table.placements[member.index];
            let is_alike = own.len() == nodes.len() && own.iter().all(|node| nodes.contains(node));
            if !is_alike || own.len() != all.len() {
                return Err(PgError::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!(
                        "cannot split shard {} of table \"{}\"",
                        member.shard().0,
                        member.table.name
                    ),
                )
                .detail("It has an inactive placement, or the shards beside it are not on the same nodes.")
                .hint("Repair or drop the placement first."));
            }
        }
        Ok(nodes)
    }
}
