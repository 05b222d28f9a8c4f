//! Distributing tables and creating their shards.

use super::{change_metadata, check_owner, columns, literal, worker_list};
use crate::catalog::{self, DistributedTable, METADATA_SCHEMA};
use crate::ddl;
use crate::ddl::foreign_keys;
use crate::mark;
use crate::naming;
use crate::nodes;
use crate::session::pool;
use crate::transaction::{self, NodeFailure};
use pg::catalog::privileged;
use pg::catalog::table::{self, RelationLock};
use pg::exec::copy::local;
use pg::server::resolver;
use pg::sys::error::raise;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use shardmap::shard_template::Template;
use shardmap::{HashRange, NodeAddress, ShardId, choose_nodes};
use std::collections::HashMap;
use std::rc::Rc;

#[pg_extern]
fn master_create_distributed_table(table_name: &str, partition_column: &str, partition_method: i8) {
    let method = partition_method.cast_unsigned();
    raise(distribute(table_name, partition_column, method, Rows::None));
}

/// Whether a table that is to be distributed may hold rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    None,
    Any,
}

pub(super) fn distribute(name: &str, column: &str, method: u8, rows: Rows) -> Result<(), PgError> {
    check_is_preloaded()?;
    let oid = table::resolve(name, RelationLock::Exclusive);
    check_relation(oid, name, rows)?;
    register_by(oid, column, method)?;
    if rows == Rows::None {
        // Otherwise the shards follow at once, and whoever creates them knows how many there are.
        warn_of_loose_indexes(oid)?;
    }
    Ok(())
}

/// Refuses what is no table that can be distributed by itself.
pub(super) fn check_relation(oid: Oid, name: &str, rows: Rows) -> Result<(), PgError> {
    let relation =
        table::describe(oid).ok_or_else(|| PgError::internal("the table has vanished"))?;
    if !matches!(relation.kind, b'r' | b'f' | b'p') {
        return Err(PgError::new(
            SqlState::WRONG_OBJECT_TYPE,
            format!("cannot distribute relation: {name}"),
        )
        .detail("Distributed relations must be regular or foreign tables."));
    }
    check_owner(oid)?;
    if relation.persistence == b't' {
        return Err(PgError::new(
            SqlState::WRONG_OBJECT_TYPE,
            format!("cannot distribute relation: {name}"),
        )
        .detail("Temporary tables live in one session only."));
    }
    let is_root = relation.kind == b'p' && !relation.is_partition;
    if !is_root && (relation.is_partition || relation.has_children || table::inherits(oid)) {
        return Err(PgError::unsupported(
            format!("cannot distribute relation: {name}"),
            "Distribute the partitioned table at the root, or a table that neither inherits nor is inherited from.",
        )
        .detail("The table is part of an inheritance or partition tree."));
    }
    if rows == Rows::None && relation.kind == b'r' && local::has_rows(oid) {
        return Err(PgError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("cannot distribute table \"{}\": it holds rows", relation.name),
        )
        .detail("Rows of the local table are not visible once the table is distributed.")
        .hint("create_distributed_table takes the rows along."));
    }
    Ok(())
}

/// Warns of the unique indexes of a table that hold within each shard only.
pub(super) fn warn_of_loose_indexes(oid: Oid) -> Result<(), PgError> {
    catalog::forget(Some(oid));
    ddl::follow::warn_of_loose_indexes(&*catalog::get(oid)?, &[]);
    Ok(())
}

/// Makes a distributed table of a partition of one.
pub(super) fn register(oid: Oid, column: &str) -> Result<(), PgError> {
    let relation =
        table::describe(oid).ok_or_else(|| PgError::internal("the table has vanished"))?;
    if !matches!(relation.kind, b'r' | b'p') {
        return Err(PgError::unsupported(
            format!("cannot distribute relation: {}", relation.name),
            "Detach the partition, or leave the table local.",
        )
        .detail("Partitions of distributed tables must be regular or partitioned tables."));
    }
    check_owner(oid)?;
    register_by(oid, column, b'h')?;
    warn_of_loose_indexes(oid)
}

/// Refuses a table that cannot be distributed by the column.
pub(super) fn check_new(oid: Oid, column: &str, method: u8) -> Result<(), PgError> {
    let name = table::describe(oid).map_or_else(String::new, |relation| relation.name);
    detach_from_dump(oid, &name)?;
    check_objects(oid, &name)?;
    let number = columns::find_column(oid, column)?;
    check_method(oid, number, method)?;
    // The names of the shards to come must not be too long; indexes that are created later are looked at then.
    ddl::definition(oid)?
        .statements(last_shard_id()?)
        .map_err(|error| ddl::definition_error(&error))?;
    Ok(())
}

/// Makes a distributed table, without shards yet, of one that [`check_relation`] has found good.
pub(super) fn register_by(oid: Oid, column: &str, method: u8) -> Result<(), PgError> {
    check_new(oid, column, method)?;
    register_unchecked(oid, column, method)
}

/// The same of a table that is known to be good.
pub(super) fn register_unchecked(oid: Oid, column: &str, method: u8) -> Result<(), PgError> {
    change_metadata(&format!(
        "INSERT INTO pgs_distribution_metadata.partition (relation_id, partition_method, key) VALUES ({}, {}, {})",
        oid.to_u32(),
        literal(&char::from(method).to_string()),
        literal(column),
    ))?;
    mark::put(oid)
}

/// Without our hooks in every session, rows would go to the coordinator's own tables.
pub(super) fn check_is_preloaded() -> Result<(), PgError> {
    if pg::catalog::mark::is_preloaded() {
        return Ok(());
    }
    Err(pg::catalog::mark::not_preloaded("cannot distribute tables: pg_shard is not preloaded"))
}

/// A table that came with a dump is distributed anew like a local one. Metadata under its OID are another table's: one that
/// is gone, or that waits for `after_restore`.
fn detach_from_dump(oid: Oid, name: &str) -> Result<(), PgError> {
    match catalog::find(oid) {
        Some(table) if !table.is_detached() => return Ok(()),
        Some(_) => {
            mark::remove(oid)?;
            catalog::forget(Some(oid));
        }
        None => {}
    }
    if !catalog::has_metadata_under(oid) {
        return Ok(());
    }
    Err(PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("cannot distribute table \"{name}\": its OID is that of another table's metadata"),
    )
    .detail(format!("Rows of pgs_distribution_metadata with relation_id {} are of another table.", oid.to_u32()))
    .hint("After a restore run SELECT pgs_catalog.after_restore(). If the other table is gone, delete its metadata."))
}

/// A check constraint or a generated column looks at `tableoid`, the only system column that it may name.
fn names_tableoid(oid: Oid) -> Result<bool, PgError> {
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM pg_constraint WHERE conrelid = '{0}'::oid AND contype = 'c' AND -6 = ANY (conkey)) \
             OR EXISTS (SELECT 1 FROM pg_attrdef WHERE adrelid = '{0}'::oid AND adbin::text LIKE '%:varattno -6 %')",
        oid.to_u32()
    );
    let found = privileged::read_catalogs(|client| {
        client.select(&sql, Some(1), &[])?.first().get_one::<bool>()
    });
    found.map(|found| found == Some(true)).map_err(|error| PgError::internal(error.to_string()))
}

fn check_method(oid: Oid, column: i16, method: u8) -> Result<(), PgError> {
    match method {
        b'h' => {
            let (type_oid, ..) = table::column_type(oid, column);
            let type_name = table::type_name(type_oid);
            let (family, input) = table::hash_family(type_oid).ok_or_else(|| {
                PgError::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!("data type {type_name} has no default operator class for specified partition method"),
                )
                .detail("Partition column types must have a default operator class defined.")
            })?;
            match pg::sys::value::Hasher::find(family, input, Oid::INVALID) {
                Some(_) if pg::sys::value::Hasher::covers(type_oid) => Ok(()),
                _ => Err(PgError::new(
                    SqlState::UNDEFINED_FUNCTION,
                    format!("could not identify a hash function for type {type_name}"),
                )
                .detail("Partition column types must have a hash function defined to use hash partitioning.")),
            }
        }
        b'r' => Err(PgError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "pg_shard only supports hash partitioning",
        )),
        other => Err(PgError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("unrecognized table partition type: {}", char::from(other)),
        )),
    }
}

/// What would act on the coordinator's empty table only (rules, some triggers), and foreign keys that nobody could check.
fn check_objects(oid: Oid, name: &str) -> Result<(), PgError> {
    if names_tableoid(oid)? {
        return Err(PgError::unsupported(
            format!(
                "cannot distribute table \"{name}\": an expression of its definition names tableoid"
            ),
            "Leave tableoid out of check constraints and generated columns.",
        )
        .detail("It would be the shard's, which is another table on the worker."));
    }
    if table::has_rules(oid) {
        return Err(PgError::unsupported(
            format!("cannot distribute table \"{name}\": it has rules"),
            "Drop the rules first.",
        )
        .detail("They would not act on the rows of the shards."));
    }
    ddl::triggers::check(oid)?;
    foreign_keys::check_before_distribution(oid)
}

/// Has the nodes check the foreign keys of a table, whose rows are all there.
pub(super) fn create_foreign_keys(oid: Oid) -> Result<(), PgError> {
    catalog::forget(Some(oid));
    foreign_keys::create(&*catalog::get(oid)?)
}

/// Nobody wants more, and there is memory for so many.
const MOST_SHARDS: u32 = 100_000;

/// How a table is cut, and where its shards go.
#[derive(Clone)]
pub(super) enum Layout {
    /// In equal parts, over all workers in turn.
    Spread {
        /// How many parts.
        shard_count: i32,
        /// How many placements each has.
        replication_factor: i32,
    },
    /// As another table, on the same nodes.
    Beside(Rc<DistributedTable>),
}

/// Refuses to lay a table, of which the user knows this name, beside one whose rows are hashed otherwise.
pub(super) fn check_colocation(
    table: &DistributedTable,
    name: &str,
    other: &DistributedTable,
) -> Result<(), PgError> {
    if table.key.family == other.key.family && table.key.collation == other.key.collation {
        return Ok(());
    }
    Err(PgError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("cannot colocate table \"{name}\" with table \"{}\"", other.name),
    )
    .detail("Their distribution columns have types or collations that hash differently."))
}

pub(super) fn create_shards(name: &str, layout: &Layout) -> Result<(), PgError> {
    check_is_preloaded()?;
    let oid = table::resolve(name, RelationLock::None);
    let table = catalog::get(oid)?;
    if table.method != b'h' {
        return Err(PgError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("unsupported table partition type: {}", char::from(table.method)),
        ));
    }
    check_owner(oid)?;
    table::lock_relation(oid, RelationLock::Exclusive);
    catalog::forget(Some(oid));
    let table = catalog::get(oid)?;
    if table.map.is_empty() {
        check_objects(oid, &table.name)?;
    } else {
        return Err(PgError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table \"{name}\" has already had shards created for it"),
        ));
    }
    create_shards_as(oid, oid, layout)
}

/// Creates the shards of a table that has none, as those of a table that is defined alike, with names of its own.
pub(super) fn create_shards_as(oid: Oid, defined_as: Oid, layout: &Layout) -> Result<(), PgError> {
    let table = catalog::get(oid)?;
    let definition = ddl::definition(defined_as)?;
    let other = table::describe(defined_as).filter(|_| defined_as != oid);
    let rename = other.map(|other| renamed(&other.schema, &other.name, &table.name));
    let (ranges, workers, replication) = cut(layout)?;
    refuse_replicated(&table, layout, replication)?;
    let storage = storage_of(oid);

    let mut nodes = Nodes::default();
    let mut shards = Vec::new();
    let mut placements = Vec::new();
    for (index, range) in ranges.into_iter().enumerate() {
        let shard = ShardId(next_shard_id()?);
        let mut statements =
            definition.statements(shard.0).map_err(|error| ddl::definition_error(&error))?;
        if let Some(rename) = &rename {
            statements
                .push(rename.fill(shard.0).map_err(|error| ddl::definition_error(&error.into()))?);
        }
        let mut failed = None;
        let mut create = |node: &NodeAddress| {
            nodes.create(node, &definition.prerequisites, &statements).unwrap_or_else(|error| {
                failed.get_or_insert(error);
                false
            })
        };
        let (chosen, replication): (Vec<NodeAddress>, usize) = match layout {
            Layout::Spread { .. } => {
                let chosen =
                    choose_nodes(index, workers.len(), replication, |at| create(&workers[at]));
                (chosen.into_iter().map(|at| workers[at].clone()).collect(), replication)
            }
            Layout::Beside(other) => {
                let beside: Vec<NodeAddress> =
                    other.healthy(index).map(|placement| placement.node.clone()).collect();
                let wanted = beside.len();
                (beside.into_iter().filter(|node| create(node)).collect(), wanted)
            }
        };
        if let Some(error) = failed {
            return Err(error);
        }
        if chosen.len() < replication {
            return Err(PgError::new(
                SqlState::INTERNAL_ERROR,
                "could not satisfy specified replication factor",
            )
            .detail(format!(
                "Created {} shard replicas, less than the requested replication factor of {replication}.",
                chosen.len()
            )));
        }
        shards.push(format!(
            "({}, {}, '{storage}', '{}', '{}')",
            shard.0,
            oid.to_u32(),
            range.first(),
            range.last()
        ));
        for NodeAddress { host, port } in &chosen {
            placements.push(format!("({}, 1, {}, {port})", shard.0, literal(host)));
        }
    }
    change_metadata(&format!(
        "INSERT INTO pgs_distribution_metadata.shard (id, relation_id, storage, min_value, max_value) VALUES {}",
        shards.join(", ")
    ))?;
    change_metadata(&format!(
        "INSERT INTO pgs_distribution_metadata.shard_placement (shard_id, shard_state, node_name, node_port) VALUES {}",
        placements.join(", ")
    ))
}

/// The ranges of the shards, and over which nodes they are spread in how many placements each.
fn cut(layout: &Layout) -> Result<(Vec<HashRange>, Vec<NodeAddress>, usize), PgError> {
    let positive = |value: i32, what: &str| {
        u32::try_from(value).ok().filter(|value| *value > 0).ok_or_else(|| {
            PgError::new(SqlState::INVALID_PARAMETER_VALUE, format!("{what} must be positive"))
        })
    };
    match layout {
        Layout::Spread { shard_count, replication_factor } => {
            let shard_count = positive(*shard_count, "shard_count")?;
            if shard_count > MOST_SHARDS {
                return Err(PgError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("shard_count ({shard_count}) exceeds {MOST_SHARDS}"),
                ));
            }
            let replication = positive(*replication_factor, "replication_factor")? as usize;
            let workers = nodes::for_new_shards()?;
            if replication > workers.len() {
                return Err(PgError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!(
                        "replication_factor ({replication}) exceeds number of worker nodes ({})",
                        workers.len()
                    ),
                )
                .hint("Add more worker nodes or try again with a lower replication factor."));
            }
            Ok((HashRange::cut(shard_count), workers, replication))
        }
        Layout::Beside(other) => {
            Ok((other.map.shards().iter().map(|shard| shard.range).collect(), Vec::new(), 0))
        }
    }
}

/// The statement that gives a shard of one table the name that it has as another table's.
pub(super) fn renamed(schema: &str, from: &str, to: &str) -> Template {
    let schema = catalog::quote(schema);
    Template::new(format!("ALTER TABLE {schema}.")).name(from).text(" RENAME TO ").name(to)
}

/// Shards of a partitioned table have one placement.
fn refuse_replicated(
    table: &DistributedTable,
    layout: &Layout,
    replication: usize,
) -> Result<(), PgError> {
    let is_replicated = match layout {
        Layout::Spread { .. } => replication > 1,
        Layout::Beside(other) => other.is_replicated(),
    };
    if !table.is_partitioned || !is_replicated {
        return Ok(());
    }
    Err(PgError::unsupported(
        format!("cannot replicate shards of partitioned table \"{}\"", table.name),
        "Create shards with replication_factor 1, and make the nodes safe by streaming replication.",
    )
    .detail("A placement and its partitions could not be marked together."))
}

/// What the metadata say of a shard's kind.
fn storage_of(table: Oid) -> char {
    let is_foreign = table::describe(table).is_some_and(|relation| relation.kind == b'f');
    if is_foreign { 'f' } else { 't' }
}

/// The number of the next shard.
pub(crate) fn next_shard_id() -> Result<i64, PgError> {
    shard_id_sequence().map(table::next_value)
}

/// The highest number that a shard has had.
fn last_shard_id() -> Result<i64, PgError> {
    shard_id_sequence().map(table::last_value)
}

fn shard_id_sequence() -> Result<Oid, PgError> {
    table::relation_oid(METADATA_SCHEMA, "shard_id_sequence")
        .ok_or_else(|| PgError::internal("the sequence of shard numbers is gone"))
}

/// Which nodes failed, so that each is waited for once.
#[derive(Default)]
struct Nodes {
    dead: HashMap<NodeAddress, PgError>,
    begun: Vec<NodeAddress>,
    /// Which server each node is that shards are created on.
    servers: Vec<(NodeAddress, String)>,
}

/// Answered by a server with what no other one answers, whatever names and ports lead to it. Copies of a data directory
/// have one system identifier; they listen on ports of their own, or run on other machines since another microsecond.
pub(crate) const SERVER: &str = "SELECT pg_catalog.concat_ws(' ', s.system_identifier, \
     EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()), pg_catalog.current_setting('port')) \
     FROM pg_catalog.pg_control_system() s";

impl Nodes {
    /// Creates a shard on a node; false if the node cannot be reached, after the warnings of pg_shard 1.2.
    fn create(
        &mut self,
        node: &NodeAddress,
        prerequisites: &[String],
        statements: &[String],
    ) -> Result<bool, PgError> {
        if let Some(error) = self.dead.get(node) {
            warn(node, error);
            return Ok(false);
        }
        let is_first = !self.begun.contains(node);
        let created = if is_first { self.meet(node)?.and_then(|()| equip(node)) } else { Ok(()) };
        let created = created.and_then(|()| {
            if is_first && !prerequisites.is_empty() {
                ddl::run_on(node, prerequisites)
            } else {
                Ok(())
            }
        });
        match created.and_then(|()| ddl::run_on(node, statements)) {
            Ok(()) => {
                self.begun.push(node.clone());
                Ok(true)
            }
            Err(NodeFailure::Error(error)) => Err(naming::explain_missing_object(error, node)
                .context(format!("while creating a shard on node \"{node}\""))),
            Err(NodeFailure::Unreachable(error)) if self.begun.contains(node) => {
                // Shards created there earlier are gone with the node's transaction.
                Err(pool::connection_failed(node, &error).hint("Nothing was created. Try again."))
            }
            Err(NodeFailure::Unreachable(error)) => {
                transaction::lose_node(node, &error)?;
                warn(node, &error);
                self.dead.insert(node.clone(), error);
                Ok(false)
            }
        }
    }
}

/// Answered with true by a server that answers [`SERVER`]: an administrator may have taken the right from roles.
const TELLS_SERVER: &str =
    "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')";

impl Nodes {
    /// Notes which server a node is. It is not one that we work on under another name: there our sessions would wait for each
    /// other, where nobody sees it. The inner error is the node's.
    fn meet(&mut self, node: &NodeAddress) -> Result<Result<(), NodeFailure>, PgError> {
        let mut server = String::new();
        let asked = transaction::with_session(node, &mut |session| {
            let level = Some(transaction::level_for_write());
            let mut ask = |question: &str| {
                session.borrow_mut().run(question, level, &mut |row| {
                    server = row.first_text().unwrap_or_default();
                    Ok(())
                })?;
                Ok(server == "t")
            };
            let tells = ask(TELLS_SERVER)?;
            if tells { ask(SERVER).map(drop) } else { Ok(()) }
        });
        if asked.is_ok() && server != "f" {
            if let Some((other, _)) = self.servers.iter().find(|(_, known)| *known == server) {
                return Err(worker_list::same_server_in_list(other, node));
            }
            self.servers.push((node.clone(), server));
            resolver::note_watched();
        }
        Ok(asked.map(drop))
    }
}

/// A server that becomes a node beside others.
pub(super) struct Joining(Nodes);

impl Joining {
    /// Asks the others which servers they are, as far as they can be reached.
    pub(super) fn new(others: Vec<NodeAddress>) -> Result<Self, PgError> {
        let mut nodes = Nodes::default();
        for other in others {
            // One that is away cannot be told from the newcomer; nor can it do harm before it is back.
            drop(nodes.meet(&other)?);
        }
        Ok(Self(nodes))
    }

    /// Connects to the newcomer and gives it the extension, if that can be had there.
    pub(super) fn meet(&mut self, node: &NodeAddress) -> Result<(), PgError> {
        let met = self.0.meet(node)?.and_then(|()| equip(node));
        met.map_err(|failure| match failure {
            NodeFailure::Error(error) => {
                error.context(format!("while connecting to node \"{node}\""))
            }
            NodeFailure::Unreachable(error) => pool::connection_failed(node, &error),
        })
    }
}

/// Answered with a row by a node that lacks the extension, where the session may create it. Whether the files are there is
/// found by trying: the list of what is available cannot be had where any other extension's file is unreadable.
const MAY_CREATE_EXTENSION: &str = "SELECT 1 FROM pg_catalog.pg_roles r, \
     pg_catalog.pg_namespace n, pg_catalog.pg_language l \
     WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_extension e WHERE e.extname = 'pg_shard') \
     AND r.rolname = current_user AND r.rolsuper AND n.nspname = 'public' AND l.lanname = 'plpgsql'";

/// Creates it; if that fails, nothing has happened.
const CREATE_EXTENSION: &str = "DO 'BEGIN PERFORM pg_catalog.set_config(''pg_shard.is_worker'', ''on'', true); CREATE EXTENSION IF NOT EXISTS pg_shard SCHEMA public; \
     EXCEPTION WHEN OTHERS THEN NULL; END'";

/// Creates the extension on a node if it can be had there: rows move between workers that have it. Without it they go by
/// the coordinator, so nobody is told if there is none.
pub(crate) fn create_extension(node: &NodeAddress) -> Result<(), NodeFailure> {
    let mut may_create = false;
    transaction::with_session(node, &mut |session| {
        let level = Some(transaction::level_for_write());
        session.borrow_mut().run(MAY_CREATE_EXTENSION, level, &mut |_| {
            may_create = true;
            Ok(())
        })
    })?;
    if may_create { ddl::run_on(node, &[CREATE_EXTENSION.to_owned()]) } else { Ok(()) }
}

/// Gives a node what it may lack before it has shards: the extension and roles.
pub(crate) fn equip(node: &NodeAddress) -> Result<(), NodeFailure> {
    create_extension(node)?;
    let roles = ddl::roles::for_node().map_err(NodeFailure::Error)?;
    if roles.is_empty() { Ok(()) } else { ddl::run_on(node, &roles) }
}

fn warn(node: &NodeAddress, error: &PgError) {
    pg::sys::error::warning(pool::connection_failed(node, error));
    pg::sys::error::warning(PgError::new(
        SqlState::WARNING,
        format!("could not create shard on \"{node}\""),
    ));
}

/// Tells all sessions that the metadata have changed; called by triggers on the metadata tables.
#[pg_extern]
fn metadata_changed() {
    if let Some(metadata) = catalog::metadata() {
        pg::server::transaction::invalidate(metadata.partition);
    }
}
