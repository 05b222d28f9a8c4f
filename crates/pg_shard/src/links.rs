//! Tables that foreign keys link. A shard of one and the shards of the others that lie on the same node check each other, so what
//! concerns one of these placements concerns all of them: a write that one has missed, and the names in an error.

use crate::catalog::{self, DistributedTable};
use pg::catalog::foreign_keys::{ForeignKey, links, read};
use pg::catalog::table;
use pg::read::changes::RowsChanged;
use pg::read::query::Statement;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::{NodeAddress, PlacementId, ShardId};
use std::collections::HashSet;
use std::rc::Rc;

/// A shard of a table, by its place in the map.
type Part = (Rc<DistributedTable>, usize);

/// The shards that foreign keys link with shard `index` of a table, directly or over others, on whichever node; itself first. A
/// table of one shard lies beside all shards of others.
fn linked_shards(table: &Rc<DistributedTable>, index: usize) -> Vec<Part> {
    let mut parts: Vec<Part> = vec![(Rc::clone(table), index)];
    let mut seen = HashSet::from([(table.oid, index)]);
    let mut at = 0;
    while at < parts.len() {
        let (one, index) = (Rc::clone(&parts[at].0), parts[at].1);
        at += 1;
        for link in links(one.oid) {
            let Some(other) = catalog::find(link.other) else { continue };
            let shards = match (other.map.len(), one.map.len()) {
                (0, _) => 0..0,
                (1, _) => 0..1,
                (all, 1) => 0..all,
                (all, _) => index.min(all)..(index + 1).min(all),
            };
            for shard in shards.filter(|shard| seen.insert((other.oid, *shard))) {
                parts.push((Rc::clone(&other), shard));
            }
        }
    }
    parts
}

/// The tables that an error about a shard may name besides: each with the ids of the shards in question.
pub(crate) fn names_beside(
    table: &DistributedTable,
    index: usize,
) -> Vec<(Rc<DistributedTable>, Vec<ShardId>)> {
    let mut named: Vec<(Rc<DistributedTable>, Vec<ShardId>)> = Vec::new();
    let Some(table) = catalog::find(table.oid) else { return named };
    for (other, shard) in linked_shards(&table, index).into_iter().skip(1) {
        let id = other.shard_id(shard);
        match named.iter_mut().find(|(known, _)| known.oid == other.oid) {
            Some((_, ids)) => ids.push(id),
            None => named.push((other, vec![id])),
        }
    }
    named
}

/// The id of the shard of a distributed table that lies beside shard `index` of another.
pub(crate) fn shard_beside(other: Oid, index: usize) -> Option<ShardId> {
    let other = catalog::find(other).filter(|other| !other.map.is_empty())?;
    let index = other.beside(index);
    (index < other.map.len()).then(|| other.shard_id(index))
}

/// Placements that have missed a write, and those on the same nodes that foreign keys link with them: they would check each
/// other's rows, and those are no longer of one time.
///
/// # Errors
///
/// If one of these is the only healthy placement of its shard.
pub(crate) fn with_linked(
    missed: &[(ShardId, PlacementId)],
) -> Result<Vec<(ShardId, PlacementId)>, PgError> {
    let mut all = missed.to_vec();
    for (shard, placement) in missed {
        let Some(table) = catalog::table_of_shard(*shard).and_then(catalog::find) else { continue };
        let index = (0..table.map.len()).find(|index| table.shard_id(*index) == *shard);
        let Some(index) = index else { continue };
        let own = table.placements[index].iter().find(|known| known.id == *placement);
        let Some(node) = own.map(|own| own.node.clone()) else { continue };
        if !table.is_linked {
            continue;
        }
        for (other, beside) in linked_shards(&table, index).into_iter().skip(1) {
            let Some(linked) = other.healthy(beside).find(|known| known.node == node) else {
                continue;
            };
            if other.healthy(beside).count() == 1 {
                return Err(needed(&table, &other, other.shard_id(beside), &node));
            }
            let linked = (other.shard_id(beside), linked.id);
            if !all.contains(&linked) {
                all.push(linked);
            }
        }
    }
    Ok(all)
}

fn needed(
    table: &DistributedTable,
    other: &DistributedTable,
    shard: ShardId,
    node: &NodeAddress,
) -> PgError {
    PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("cannot write table \"{}\" without node \"{node}\"", table.name),
    )
    .detail(format!(
        "Foreign keys link it with table \"{}\", whose shard {} has no other healthy placement.",
        other.name, shard.0
    ))
    .hint("Start the node again.")
}

/// The table's name for a message, whether it is distributed or not.
pub(crate) fn name_of(oid: Oid) -> String {
    table::describe(oid).map_or_else(|| oid.to_u32().to_string(), |relation| relation.name)
}

/// Other tables' foreign keys that refer to a table.
pub(crate) fn keys_to(table: Oid) -> Vec<ForeignKey> {
    all_keys_to(table).into_iter().filter(|key| key.table != table).collect()
}

/// All foreign keys that refer to a table, its own included.
fn all_keys_to(table: Oid) -> Vec<ForeignKey> {
    let incoming = links(table).into_iter().filter(|link| link.is_incoming);
    read(&incoming.map(|link| link.constraint).collect::<Vec<_>>())
}

/// Refuses to delete or change rows by foreign keys of distributed tables if a local table refers to them: that happens on the nodes,
/// and nobody would look here. What the statement itself deletes or changes is looked after by PostgreSQL's own triggers
/// (`pg::exec::triggers`), except in partitioned tables.
pub(crate) fn check_write(statement: &Statement, written: &[Oid]) -> Result<(), PgError> {
    let is_linked = |oid: &Oid| catalog::find(*oid).is_some_and(|table| table.is_linked);
    if !written.iter().any(is_linked) {
        return Ok(());
    }
    let fires = |change: RowsChanged| {
        let fires = !has_partitions(change.table);
        (change, fires)
    };
    let mut open: Vec<(RowsChanged, bool)> = statement.changes().into_iter().map(fires).collect();
    let mut known: Vec<(RowsChanged, bool)> = Vec::new();
    while let Some((change, fires)) = open.pop() {
        if known.contains(&(change.clone(), fires)) || !is_linked(&change.table) {
            continue;
        }
        for key in all_keys_to(change.table) {
            let changes_key = key.is_changed(&change.columns);
            if !change.deletes && !changes_key {
                continue;
            }
            if catalog::find(key.table).is_some() {
                open.push((followed(&change, &key, changes_key), false));
            } else if !fires {
                return Err(refused_write(change.table, &key));
            }
        }
        known.push((change, fires));
    }
    Ok(())
}

/// The table has partitions, or is one.
pub(crate) fn has_partitions(table: Oid) -> bool {
    table::describe(table).is_some_and(|relation| relation.is_partition || relation.kind == b'p')
}

/// What a foreign key does to the rows that refer to those that change.
fn followed(change: &RowsChanged, key: &ForeignKey, changes_key: bool) -> RowsChanged {
    let own: Vec<i16> = key.columns.iter().map(|(from, _)| *from).collect();
    let mut followed = RowsChanged { table: key.table, deletes: false, columns: Vec::new() };
    match key.on_delete {
        _ if !change.deletes => {}
        b'c' => followed.deletes = true,
        b'n' | b'd' => followed.columns.clone_from(&own),
        _ => {}
    }
    if changes_key && matches!(key.on_update, b'c' | b'n' | b'd') {
        followed.columns = own;
    }
    followed
}

/// Rows of the table go with others of it, and nothing else happens to them when those go.
pub(crate) fn deletes_itself(table: &DistributedTable) -> bool {
    let ids: Vec<Oid> = links(table.oid)
        .into_iter()
        .filter(|link| link.is_incoming && link.other == table.oid)
        .map(|link| link.constraint)
        .collect();
    let keys = read(&ids);
    keys.iter().any(|key| key.on_delete == b'c')
        && !keys.iter().any(|key| matches!(key.on_delete, b'n' | b'd'))
}

fn refused_write(table: Oid, key: &ForeignKey) -> PgError {
    let local = name_of(key.table);
    PgError::unsupported(
        format!(
            "cannot delete rows of distributed table \"{}\" or change their keys: foreign key \"{}\" of local table \"{local}\" \
             refers to it",
            name_of(table),
            key.name
        ),
        format!(
            "Distribute table \"{local}\" beside it with create_distributed_table, or make it a reference table with \
             create_reference_table."
        ),
    )
    .detail("They go or change on the nodes, where nobody looks for rows of the local table that refer to them.")
}

/// Refuses to move a row to another shard if foreign keys would act on the rows that refer to it as if it were deleted.
pub(crate) fn check_move(table: &DistributedTable) -> Result<(), PgError> {
    if !table.is_linked {
        return Ok(());
    }
    let acts = |action: u8| matches!(action, b'c' | b'n' | b'd');
    let keys = all_keys_to(table.oid);
    let Some(key) = keys.iter().find(|key| acts(key.on_delete) || acts(key.on_update)) else {
        return Ok(());
    };
    Err(PgError::unsupported(
        format!("cannot move a row of distributed table \"{}\" to another shard", table.name),
        "Insert the row under its new key, change the rows that refer to it, and delete the old one.",
    )
    .detail(format!(
        "Rows that refer to it by foreign key \"{}\" of table \"{}\" would not move with it.",
        key.name,
        name_of(key.table)
    )))
}

/// The foreign keys that a table has.
pub(crate) fn keys_of(table: Oid) -> Vec<ForeignKey> {
    let ids: Vec<Oid> = links(table)
        .into_iter()
        .filter(|link| !link.is_incoming)
        .map(|link| link.constraint)
        .collect();
    read(&ids)
}

/// A foreign key of the table that deletes or changes rows of it, if triggers of these types (`pg_trigger.tgtype`) would have to
/// fire then.
pub(crate) fn key_past_triggers(table: Oid, types: &[i16]) -> Option<ForeignKey> {
    let (deletes, updates) = (1 << 3, 1 << 4);
    let has = |event: i16| types.iter().any(|kind| kind & event != 0);
    let sets = |action: u8| matches!(action, b'n' | b'd');
    keys_of(table).into_iter().find(|key| {
        key.on_delete == b'c' && has(deletes)
            || (sets(key.on_delete) || sets(key.on_update) || key.on_update == b'c') && has(updates)
    })
}
