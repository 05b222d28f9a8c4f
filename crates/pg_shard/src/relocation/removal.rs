//! Removing a placement of a shard that has another healthy one, with the placements beside it.

use super::group::{Group, Member};
use super::locks::{lock_out, when_nobody_is_in_the_way};
use super::orphans;
use super::placements::{drop_shards, on_node};
use super::rounds::Round;
use crate::catalog;
use crate::ddl;
use crate::fault;
use crate::functions::change_metadata;
use crate::session::{gate, pool};
use crate::transaction::NodeFailure;
use pg::server::lock::{Mode, ShardLock, lock_shard};
use pg::{PgError, SqlState};
use shardmap::{NodeAddress, ShardId};

/// Removes the placements of a shard, and of those beside it, from a node, which may be lost.
pub(crate) fn remove(shard: ShardId, node: &NodeAddress) -> Result<(), PgError> {
    let group = Group::find("drop a placement of", shard, &[node])?;
    for member in group.in_order() {
        lock_shard(ShardLock::Metadata(member.shard()), Mode::Exclusive);
    }
    // Whoever uses the tables for long puts it off, as with a move.
    when_nobody_is_in_the_way(&group.tables(), &|| Ok(Round::default()), &|| {
        lock_out(&group);
        remove_locked(shard, node)
    })
}

/// The same when everybody else is kept away.
fn remove_locked(shard: ShardId, node: &NodeAddress) -> Result<(), PgError> {
    catalog::forget(None);
    let group = Group::find("drop a placement of", shard, &[node])?;
    let there: Vec<&Member> = group
        .members
        .iter()
        .filter(|member| {
            member.table.placements[member.index].iter().any(|placement| placement.node == *node)
        })
        .collect();
    if there.is_empty() {
        return Err(PgError::new(
            SqlState::DATA_EXCEPTION,
            format!("could not find placement matching \"{node}\""),
        )
        .hint("Confirm the placement still exists and try again."));
    }
    for member in &there {
        if !member.table.healthy(member.index).any(|placement| placement.node != *node) {
            return Err(PgError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "cannot drop the placement of shard {} of table \"{}\" on node \"{node}\"",
                    member.shard().0,
                    member.table.name
                ),
            )
            .detail("The shard has no other healthy placement.")
            .hint("Move it with pgs_catalog.move_shard, or copy it first with pgs_catalog.copy_shard."));
        }
        check_needed(member, &group, node)?;
    }
    let ids: Vec<String> = there.iter().map(|member| member.shard().0.to_string()).collect();
    change_metadata(&format!(
        "DELETE FROM pgs_distribution_metadata.shard_placement WHERE shard_id IN ({}) AND {}",
        ids.join(", "),
        on_node(node)
    ))?;
    let names: Vec<String> = there.iter().map(|member| member.name()).collect();
    // Of SERIALIZABLE transactions that have used the node none is under way.
    let mut statements = vec![gate::ALONE.to_owned()];
    statements.extend(drop_shards(&names));
    match ddl::run_on(node, &statements) {
        Ok(()) => {
            fault::point("removal_dropped");
            Ok(())
        }
        Err(NodeFailure::Unreachable(error)) => {
            pg::sys::error::warning(
                pool::connection_failed(node, &error)
                    .hint("What it still has is dropped when it is back."),
            );
            orphans::note(&there, node)
        }
        Err(NodeFailure::Error(error)) => {
            Err(error.context(format!("while executing on node \"{node}\"")))
        }
    }
}

/// A reference table stays where rows are checked against it.
fn check_needed(member: &Member, group: &Group, node: &NodeAddress) -> Result<(), PgError> {
    if member.table.map.len() > 1 {
        return Ok(());
    }
    let needs = |other: &catalog::DistributedTable| {
        other.placements.iter().flatten().any(|placement| placement.node == *node)
    };
    let Some(other) = group.linked.iter().find(|other| needs(other)) else { return Ok(()) };
    Err(PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("cannot drop the placement of table \"{}\" on node \"{node}\"", member.table.name),
    )
    .detail(format!("Foreign keys link it with shards of table \"{}\" there.", other.name))
    .hint("Move these first."))
}
