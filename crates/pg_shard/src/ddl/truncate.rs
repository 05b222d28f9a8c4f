//! TRUNCATE of distributed tables: of their shards, on all their healthy placements, in the transaction.
//!
//! PostgreSQL's own TRUNCATE of the coordinator's tables follows; it restarts sequences and truncates what is named
//! beside them. The tables are locked first as PostgreSQL locks them, so no writer of this coordinator is under way. A node gets one
//! statement: it refuses to empty a table to which another refers unless both are emptied together.

use crate::catalog::{self, DistributedTable};
use crate::health;
use crate::naming;
use crate::session::pool;
use crate::transaction::{self, NodeFailure};
use pg::catalog::foreign_keys::links;
use pg::catalog::table;
use pg::server::lock::{Mode, ShardLock, lock_shard};
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::{NodeAddress, PlacementId, ShardId};
use std::rc::Rc;

/// Empties the shards of tables, which the current user must be allowed to do.
pub(super) fn truncate(named: &[Oid], cascades: bool) -> Result<(), PgError> {
    let Some(meant) = meant(named, cascades) else { return Ok(()) };
    let mut tables = Vec::new();
    for table in meant.into_iter().filter_map(catalog::find) {
        table.check()?;
        if table.map.is_empty() {
            return Err(table.no_shards());
        }
        tables.push(locked(&table)?);
    }
    if tables.is_empty() { Ok(()) } else { empty(&tables) }
}

/// The tables that TRUNCATE empties; none if PostgreSQL will refuse it, since others refer to them.
fn meant(named: &[Oid], cascades: bool) -> Option<Vec<Oid>> {
    let mut meant: Vec<Oid> = Vec::new();
    for oid in named {
        if !meant.contains(oid) {
            meant.push(*oid);
        }
    }
    let mut at = 0;
    while at < meant.len() {
        for link in links(meant[at]).into_iter().filter(|link| link.is_incoming) {
            if meant.contains(&link.other) || named.contains(&link.other) {
                continue;
            }
            if !cascades {
                return None;
            }
            meant.push(link.other);
        }
        at += 1;
    }
    Some(meant)
}

/// The table as it is behind the locks that keep writers away.
fn locked(table: &DistributedTable) -> Result<Rc<DistributedTable>, PgError> {
    if !table::may_truncate(table.oid) {
        return Err(PgError::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("permission denied for table {}", table.name),
        ));
    }
    table::lock_for_truncate(table.oid);
    // Behind the locks the metadata are looked at once more: a repair may have ended.
    for index in 0..table.map.len() {
        if table.placements[index].len() > 1 {
            lock_shard(ShardLock::Data(table.shard_id(index)), Mode::Exclusive);
        }
    }
    catalog::get(table.oid)
}

/// A placement: the table's place in the list, the shard's in the map, and its id.
type Part = (usize, usize, PlacementId);

fn empty(tables: &[Rc<DistributedTable>]) -> Result<(), PgError> {
    let mut nodes: Vec<(NodeAddress, Vec<Part>)> = Vec::new();
    for (number, table) in tables.iter().enumerate() {
        for index in 0..table.map.len() {
            if table.healthy(index).next().is_none() {
                return Err(unwritable(table, table.shard_id(index)));
            }
            for placement in table.healthy(index) {
                let part = (number, index, placement.id);
                match nodes.iter_mut().find(|(node, _)| *node == placement.node) {
                    Some((_, parts)) => parts.push(part),
                    None => nodes.push((placement.node.clone(), vec![part])),
                }
            }
        }
    }
    let mut taken: Vec<Vec<bool>> = tables.iter().map(|one| vec![false; one.map.len()]).collect();
    let mut missed: Vec<(ShardId, PlacementId)> = Vec::new();
    for (node, parts) in nodes {
        let names: Vec<String> =
            parts.iter().map(|(number, index, _)| tables[*number].shard_name(*index)).collect();
        match super::run_on(&node, &[format!("TRUNCATE TABLE {}", names.join(", "))]) {
            Ok(()) => {
                for (number, index, placement) in parts {
                    transaction::note_written(&tables[number], index, placement, &node);
                    taken[number][index] = true;
                }
            }
            Err(NodeFailure::Error(error)) => {
                let named: Vec<(&DistributedTable, usize)> =
                    parts.iter().map(|(number, index, _)| (&*tables[*number], *index)).collect();
                return Err(naming::tell_as_table(error, &named, &node));
            }
            Err(NodeFailure::Unreachable(error)) => {
                pg::sys::error::warning(pool::connection_failed(&node, &error));
                transaction::lose_node(&node, &error)?;
                missed.extend(
                    parts.iter().map(|(number, index, id)| (tables[*number].shard_id(*index), *id)),
                );
            }
        }
    }
    for (table, taken) in tables.iter().zip(taken) {
        if let Some(index) = taken.iter().position(|taken| !taken) {
            return Err(unwritable(table, table.shard_id(index)));
        }
    }
    if missed.is_empty() { Ok(()) } else { health::mark_inactive(&missed) }
}

fn unwritable(table: &DistributedTable, shard: ShardId) -> PgError {
    PgError::new(SqlState::INTERNAL_ERROR, "could not modify any active placements")
        .detail(format!(
            "No placement of shard {} of table \"{}\" can be written.",
            shard.0, table.name
        ))
        .hint("Start the nodes again, or repair the placements with master_copy_shard_placement.")
}
