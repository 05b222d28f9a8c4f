//! Statements of ours for the nodes and the shards of a table, in the client's transaction.

use super::shard_definition::definition_error;
use crate::catalog::{self, DistributedTable};
use crate::links;
use crate::naming;
use crate::session::pool;
use crate::transaction::{self, NodeFailure};
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::shard_template::Template;
use shardmap::{NodeAddress, PlacementId, ShardId};
use std::rc::Rc;

/// Runs statements on a node inside the transaction.
pub(crate) fn run_on(
    node: &shardmap::NodeAddress,
    statements: &[String],
) -> Result<(), NodeFailure> {
    transaction::with_session(node, &mut |session| {
        let mut session = session.borrow_mut();
        session.execute_all(statements, Some(transaction::level_for_write()))?;
        session.wrote = true;
        Ok(())
    })
    .map(drop)
}

/// The table with the placements of now.
pub(super) fn catalog_entry(table: &Rc<DistributedTable>) -> Result<Rc<DistributedTable>, PgError> {
    catalog::forget(Some(table.oid));
    catalog::get(table.oid)
}

/// Runs statements for each shard, on all its healthy placements.
pub(crate) fn on_shards(table: &DistributedTable, statements: &[Template]) -> Result<(), PgError> {
    if statements.is_empty() {
        return Ok(());
    }
    for (node, parts) in nodes(table)? {
        for (index, placement) in &parts {
            let id = table.shard_id(*index).0;
            let filled: Result<Vec<String>, _> =
                statements.iter().map(|one| one.fill_beside(id, &peers(*index))).collect();
            let filled = filled.map_err(|error| definition_error(&error.into()))?;
            run_on(&node, &filled).map_err(|failure| failed(table, *index, &node, failure))?;
            transaction::note_written(table, *index, *placement, &node);
        }
    }
    Ok(())
}

/// The nodes, each with the shards that it has and their placements there.
pub(super) type PerNode = Vec<(NodeAddress, Vec<(usize, PlacementId)>)>;

pub(super) fn nodes(table: &DistributedTable) -> Result<PerNode, PgError> {
    let mut nodes: PerNode = Vec::new();
    for index in 0..table.map.len() {
        if table.healthy(index).next().is_none() {
            return Err(unplaced(table, table.shard_id(index)));
        }
        for placement in table.healthy(index) {
            let part = (index, placement.id);
            match nodes.iter_mut().find(|(node, _)| *node == placement.node) {
                Some((_, parts)) => parts.push(part),
                None => nodes.push((placement.node.clone(), vec![part])),
            }
        }
    }
    Ok(nodes)
}

pub(super) fn failed(
    table: &DistributedTable,
    index: usize,
    node: &NodeAddress,
    failure: NodeFailure,
) -> PgError {
    match failure {
        NodeFailure::Error(error) => naming::tell_as_table(error, &[(table, index)], node),
        NodeFailure::Unreachable(error) => pool::connection_failed(node, &error)
            .hint(format!(
                "All nodes with shards of table \"{}\" must take part when its definition changes. Start the node, or mark its \
                 placements with shard_state 3.",
                table.name
            )),
    }
}

fn unplaced(table: &DistributedTable, shard: ShardId) -> PgError {
    PgError::new(SqlState::INTERNAL_ERROR, "could not modify any active placements")
        .detail(format!(
            "No placement of shard {} of table \"{}\" is healthy.",
            shard.0, table.name
        ))
        .hint("Repair the placements with master_copy_shard_placement.")
}

/// The ids of shards that lie beside shard `index`.
pub(super) fn peers(index: usize) -> impl Fn(u32) -> i64 {
    move |table| links::shard_beside(Oid::from_u32(table), index).map_or(0, |shard| shard.0)
}
