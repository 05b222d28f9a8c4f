//! TRUNCATE of a distributed table: of its shards, on all their healthy placements, in the transaction.
//!
//! PostgreSQL's own TRUNCATE of the coordinator's table follows; it restarts sequences and truncates what is named
//! beside it. The table is locked first as PostgreSQL locks it, so no writer of this coordinator is under way.

use crate::catalog::DistributedTable;
use crate::health;
use crate::session::pool;
use crate::transaction::{self, NodeFailure};
use pg::catalog::table;
use pg::server::lock::{Mode, ShardLock, lock_shard};
use pg::{PgError, SqlState};
use shardmap::{NodeAddress, PlacementId, ShardId};

/// Empties the shards of a table, which the current user must be allowed to do.
pub(super) fn truncate(table: &DistributedTable) -> Result<(), PgError> {
    if !table::may_truncate(table.oid) {
        return Err(PgError::new(
            SqlState(*b"42501"),
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
    let table = crate::catalog::get(table.oid)?;

    let mut nodes: Vec<(NodeAddress, Vec<(usize, PlacementId)>)> = Vec::new();
    for index in 0..table.map.len() {
        if table.healthy(index).next().is_none() {
            return Err(unwritable(&table, table.shard_id(index)));
        }
        for placement in table.healthy(index) {
            let part = (index, placement.id);
            match nodes.iter_mut().find(|(node, _)| *node == placement.node) {
                Some((_, parts)) => parts.push(part),
                None => nodes.push((placement.node.clone(), vec![part])),
            }
        }
    }
    let mut taken = vec![false; table.map.len()];
    let mut missed: Vec<(ShardId, PlacementId)> = Vec::new();
    for (node, parts) in nodes {
        let names: Vec<String> = parts.iter().map(|(index, _)| table.shard_name(*index)).collect();
        match super::run_on(&node, &[format!("TRUNCATE TABLE {}", names.join(", "))]) {
            Ok(()) => {
                for (index, placement) in parts {
                    transaction::note_written(&table, index, placement, &node);
                    taken[index] = true;
                }
            }
            Err(NodeFailure::Error(error)) => {
                return Err(error.context(format!("while executing on node \"{node}\"")));
            }
            Err(NodeFailure::Unreachable(error)) => {
                pg::sys::error::warning(pool::connection_failed(&node, &error));
                transaction::lose_node(&node, &error)?;
                missed.extend(parts.iter().map(|(index, id)| (table.shard_id(*index), *id)));
            }
        }
    }
    if let Some(index) = taken.iter().position(|taken| !taken) {
        return Err(unwritable(&table, table.shard_id(index)));
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
