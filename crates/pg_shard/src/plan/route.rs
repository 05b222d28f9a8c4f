//! Routing: the whole statement, as it stands, to the one shard group that holds everything it touches.
//!
//! The proof is `shardmap::route`'s: a key reaches the distribution column of every distributed table. The
//! key's value may be a parameter; then the shard is found at each execution and the plan serves them all.

use super::data;
use crate::catalog::{self, DistributedTable};
use crate::settings;
use pg::PgError;
use pg::catalog::{plain, table};
use pg::read::query::{Facts, InsertSource, Prepared, Statement, Unshippable, Write};
use pg::sys::plan::{Command, Key};
use pg::sys::plan::{Plan, Routed};
use pgrx::pg_sys::Oid;
use shardmap::tid::TidLayout;
use shardmap::{KeyValue, Prune};
use std::rc::Rc;

/// What decides the shard group.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    prune: Prune<Key>,
    /// The way was found without looking at the values of constants.
    pub(super) holds_for_all_values: bool,
}

/// The way, if there is one.
pub(crate) fn decide(facts: &Facts, prepared: &Prepared) -> Option<Way> {
    let tables: Vec<Rc<DistributedTable>> =
        facts.relations.iter().filter_map(|relation| catalog::find(relation.table)).collect();
    let replicated = facts
        .writes
        .iter()
        .filter_map(|write| catalog::find(write.table))
        .any(|table| table.is_replicated());
    let harmless = |unshippable: &Unshippable| match unshippable {
        // The worker can do it, or the statement cannot run anywhere else.
        Unshippable::UserFunction(_) => facts.is_write(),
        Unshippable::PlacementDependent => !replicated,
        Unshippable::NestedWrite => true,
        // The coordinator adds the shard to what the leader returns.
        Unshippable::ReturnedTid => facts.writes.len() == 1,
        _ => false,
    };
    if !facts.unshippable.iter().all(harmless) {
        return None;
    }
    if lends_rights_to_functions(facts) {
        return None;
    }
    // A join of tables that different roles may read: each is scanned with its own role's rights.
    let is_mixed = || facts.relations.iter().any(|other| is_other(other.user, user(facts)));
    if !facts.is_write() && is_mixed() {
        return None;
    }
    // A volatile function has a value of its own in each row.
    if prepared.computes_volatile() && !facts.writes.iter().all(|write| finds_one_row(facts, write))
    {
        return None;
    }
    let (first, others) = tables.split_first()?;
    if !others.iter().all(|other| other.oid == first.oid || are_colocated(first, other)) {
        return None;
    }
    let columns: Vec<_> = facts.relations.iter().map(|relation| relation.column).collect();
    if let Some(key) = facts.equalities.routes(&columns).into_iter().next() {
        return Some(Way { prune: Prune::Key(key), holds_for_all_values: true });
    }
    // With one shard there is no choice; but rows without a key are refused even then, so an INSERT needs one.
    let mut inserts = facts
        .writes
        .iter()
        .filter(|write| matches!(write.command, Command::Insert | Command::Upsert));
    if first.map.len() == 1
        && inserts.all(|write| !facts.equalities.keys_of(write.column).is_empty())
    {
        return Some(Way { prune: Prune::All, holds_for_all_values: true });
    }
    if facts.writes.iter().any(|write| write.is_nested) {
        return several_keys(facts, first, prepared);
    }
    // The execution decides which shards, and how many.
    if let ([write], Command::Update | Command::Delete) = (&facts.writes[..], facts.command)
        && facts.equalities.reaches_all(write.column, &columns)
        // A row's place in its shard says nothing about other shards.
        && !facts.unshippable.contains(&Unshippable::PlacementDependent)
    {
        return Some(Way { prune: facts.prune.clone(), holds_for_all_values: true });
    }
    if let ([write], true) = (&facts.writes[..], facts.keeps_key)
        && facts.equalities.reaches_all(write.column, &columns)
        && facts.unshippable.is_empty()
        && !replicated
        && !is_mixed()
        && others.iter().all(|other| lies_beside(first, other) && lies_beside(other, first))
    {
        return Some(Way { prune: Prune::All, holds_for_all_values: true });
    }
    match &facts.insert_source {
        InsertSource::Values(keys) if !keys.is_empty() && others.is_empty() => {
            return same_shard(keys, first, prepared);
        }
        InsertSource::Values(_) | InsertSource::Query => return None,
        InsertSource::OneRow => {}
    }
    if others.is_empty() {
        return one_table(facts, first, prepared);
    }
    several_keys(facts, first, prepared)
}

/// The role whose rights on the workers count: that of the written table, or of the first.
fn user(facts: &Facts) -> Oid {
    match facts.writes.last() {
        Some(write) => facts.writer(write),
        None => facts.relations.first().map_or(Oid::INVALID, |relation| relation.user),
    }
}

/// What users have made would run on the workers with the rights of a view's owner.
pub(super) fn lends_rights_to_functions(facts: &Facts) -> bool {
    let user = user(facts);
    user != Oid::INVALID && !facts.can_be_lent_by(user)
}

/// It changes one row at most, as can be seen from the filter; or it brings rows.
fn finds_one_row(facts: &Facts, write: &Write) -> bool {
    match write.command {
        Command::Update | Command::Delete => {
            facts.relations.len() == 1
                && table::row_identities(write.table)
                    .iter()
                    .any(|key| key.iter().all(|column| facts.fixes(write, *column)))
        }
        _ => true,
    }
}

/// Two roles, of which zero is the current one, differ.
fn is_other(left: Oid, right: Oid) -> bool {
    let role = |oid| if oid == Oid::INVALID { table::current_role() } else { oid };
    left != right && role(left) != role(right)
}

/// Equal keys hash into shards of one number.
pub(super) fn are_cut_alike(left: &DistributedTable, right: &DistributedTable) -> bool {
    left.key.family == right.key.family
        && left.key.collation == right.key.collation
        && left.map.is_cut_like(&right.map)
}

/// Shards of one range lie on the same nodes.
fn are_colocated(left: &DistributedTable, right: &DistributedTable) -> bool {
    are_cut_alike(left, right)
        && (0..left.map.len()).all(|index| {
            left.healthy(index)
                .any(|ours| right.healthy(index).any(|theirs| theirs.node == ours.node))
        })
}

/// Wherever a shard of the first table is healthy, that of the other one is too.
fn lies_beside(table: &DistributedTable, other: &DistributedTable) -> bool {
    (0..table.map.len()).all(|index| {
        table.healthy(index).all(|ours| other.healthy(index).any(|theirs| theirs.node == ours.node))
    })
}

/// All VALUES rows belong to one shard, and that can be known now. Each key is kept, since each is locked.
fn same_shard(keys: &[Key], table: &DistributedTable, prepared: &Prepared) -> Option<Way> {
    let owner = |key: &Key| prepared.hash_now(key).flatten().and_then(|hash| table.map.owner(hash));
    let first = owner(&keys[0])?;
    keys.iter().all(|key| owner(key) == Some(first)).then(|| Way {
        prune: Prune::Or(keys.iter().copied().map(Prune::Key).collect()),
        holds_for_all_values: false,
    })
}

/// One table and a filter that leaves one shard, as is known now.
fn one_table(facts: &Facts, table: &DistributedTable, prepared: &Prepared) -> Option<Way> {
    if facts.prune.is_all() {
        return None;
    }
    let way = Way { prune: facts.prune.clone(), holds_for_all_values: false };
    let mut unknown = false;
    let shards = facts.prune.shards(&table.map, &mut |key| match prepared.hash_now(key) {
        Some(Some(hash)) => KeyValue::Hashes(vec![hash]),
        Some(None) => KeyValue::Null,
        None => {
            unknown = true;
            KeyValue::Null
        }
    });
    (!unknown && shards.len() == 1).then_some(way)
}

/// Several tables, each with constants of its own that happen to fall in one shard group.
fn several_keys(facts: &Facts, table: &DistributedTable, prepared: &Prepared) -> Option<Way> {
    let mut chosen = Vec::new();
    let mut shard = None;
    for relation in &facts.relations {
        let keys = facts.equalities.keys_of(relation.column);
        let (key, owner) =
            keys.iter().find_map(|key| Some((*key, table.map.owner(prepared.hash_now(key)??)?)))?;
        if shard.is_some_and(|known| known != owner) {
            return None;
        }
        shard = Some(owner);
        chosen.push(Prune::Key(key));
    }
    Some(Way { prune: Prune::Or(chosen), holds_for_all_values: false })
}

/// The plan of a routed statement.
pub(crate) fn plan(
    statement: Statement,
    prepared: &Prepared,
    facts: &Facts,
    way: &Way,
    scroll: bool,
    must_find: bool,
) -> Result<pg::path::plan::Plan, PgError> {
    let template = prepared.template(&|oid| catalog::find(oid).is_some())?;
    if settings::verify_sql() {
        prepared.verify(&template)?;
    }
    let metadata = catalog::metadata().ok_or_else(|| PgError::internal("the extension is gone"))?;
    let (mut tables, mut writes) = (Vec::new(), Vec::new());
    // The written tables first, and of them the statement's own target: its placements lead.
    for write in facts.writes.iter().rev() {
        match tables.iter().position(|table| *table == write.table) {
            // Written twice: the lock must do for whichever excludes more.
            Some(position) if writes[position] == Command::Insert => {
                writes[position] = write.command;
            }
            Some(_) => {}
            None => {
                tables.push(write.table);
                writes.push(write.command);
            }
        }
    }
    for relation in &facts.relations {
        if !tables.contains(&relation.table) {
            tables.push(relation.table);
        }
    }
    let shards = match tables.first() {
        Some(table) => catalog::get(*table)?.map.len(),
        None => 1,
    };
    let routed = Routed {
        command: facts.command,
        tables,
        user: user(facts),
        writes,
        brings_row: facts.writes.iter().any(|write| write.brings_row),
        spreads: facts.keeps_key
            || matches!(facts.command, Command::Update | Command::Delete)
                && !prepared.computes_volatile(),
        must_find,
        is_plain: !facts.calls_users
            && facts.writes.iter().all(|write| plain::runs_only_servers_own(write.table)),
        prune: way.prune.clone(),
        template,
        sent: prepared.sent,
        returning: facts.has_returning || !facts.command.is_write(),
        returned_tids: facts.returned_tids.clone(),
        layout: TidLayout::for_shards(shards),
    };
    let plan = Plan::Routed(routed);
    Ok(statement.plan_whole(prepared, &data::write(&plan), metadata.partition, scroll))
}
