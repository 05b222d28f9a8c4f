//! Which node reads which shards, by the placements that the metadata have.

use crate::catalog::DistributedTable;
use dispatch::assignment::{self, Parts};
use pg::{PgError, SqlState};
use shardmap::NodeAddress;
use std::rc::Rc;

/// Which node reads which shards: the first healthy placement of each that is not to be avoided.
pub(super) fn assign(
    tables: &[Rc<DistributedTable>],
    shards: &[usize],
    avoid: &[NodeAddress],
    silent: &[NodeAddress],
) -> Result<Parts<NodeAddress>, PgError> {
    if let ([index], [table], [], []) = (shards, tables, avoid, silent) {
        let leader = table.healthy(*index).next().ok_or_else(|| unreadable(table, *index))?;
        return Ok(vec![(leader.node.clone(), vec![*index])]);
    }
    let nodes = |index| common_nodes(tables, index);
    assignment::assign(shards, nodes, avoid, silent).map_err(|it| unreadable(&tables[0], it.shard))
}

/// On how many nodes of this one's host a statement runs.
pub(super) fn sharers(parts: &[(NodeAddress, Vec<usize>)], node: &NodeAddress) -> u16 {
    let there = parts.iter().filter(|(other, _)| other.host == node.host).count();
    u16::try_from(there).unwrap_or(u16::MAX)
}

/// The nodes that hold healthy placements of one shard of every table, the first table's leader first.
pub(crate) fn common_nodes(tables: &[Rc<DistributedTable>], index: usize) -> Vec<NodeAddress> {
    let Some((first, others)) = tables.split_first() else { return Vec::new() };
    first
        .healthy(index)
        .map(|placement| &placement.node)
        .filter(|node| {
            others.iter().all(|other| {
                let index = other.beside(index);
                index < other.map.len()
                    && other.healthy(index).any(|placement| placement.node == **node)
            })
        })
        .cloned()
        .collect()
}

/// Nobody but the leaders is asked.
pub(super) fn check_leaders(
    table: &DistributedTable,
    parts: &[(NodeAddress, Vec<usize>)],
) -> Result<(), PgError> {
    for (node, shards) in parts {
        for index in shards {
            let leader = table.healthy(*index).next();
            if let Some(leader) = leader.filter(|leader| leader.node != *node) {
                return Err(PgError::new(
                    SqlState::CONNECTION_FAILURE,
                    format!(
                        "cannot read the ctid of rows of table \"{}\" from another placement",
                        table.name
                    ),
                )
                .detail(format!("Node \"{}\" cannot be reached.", leader.node))
                .hint("Leave ctid out of the statement, or start the node again."));
            }
        }
    }
    Ok(())
}

/// The error for a shard of which no placement answers.
fn unreadable(table: &DistributedTable, index: usize) -> PgError {
    let all: Vec<String> = table.placements[index].iter().map(|p| p.node.to_string()).collect();
    PgError::new(SqlState::INTERNAL_ERROR, "could not receive query results")
        .detail(format!(
            "No placement of shard {} of table \"{}\" can be read; it is placed on {}.",
            table.shard_id(index).0,
            table.name,
            all.join(", ")
        ))
        .hint("Start the nodes again, or repair the placements with master_copy_shard_placement.")
}

/// The shards of a group, each with its table.
pub(super) fn named<'a>(
    tables: &'a [Rc<DistributedTable>],
    shards: &[usize],
) -> Vec<(&'a DistributedTable, usize)> {
    let of_table = |table: &'a Rc<DistributedTable>| shards.iter().map(|index| (&**table, *index));
    tables.iter().flat_map(of_table).collect()
}
