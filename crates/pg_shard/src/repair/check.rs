//! Looking whether the healthy placements of a table are equal.
//!
//! They are, unless something went wrong that nobody has noticed: a disk that lost writes, a backup put in place, somebody who wrote to a shard
//! on its worker. Each shard is compared beside its writers; one that seems to differ is compared once more while they wait.

use super::compare::{Comparison, Pair};
use super::placement::{apply, failed, reader};
use crate::catalog;
use crate::functions::check_owner;
use crate::session::pool;
use pg::server::lock::{Mode, ShardLock, lock_shard};
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::{NodeAddress, PlacementState, ShardId};

/// A placement that differs from the first healthy one of its shard.
pub(crate) struct Finding {
    pub(crate) shard: ShardId,
    pub(crate) node: NodeAddress,
    /// How many rows it lacks, and how many it has that the first one does not have; none if it is not comparable.
    pub(crate) rows: Option<(usize, usize)>,
}

/// Compares the healthy placements of each shard with the first one; `repairs` makes those that differ equal to it.
pub(crate) fn check(oid: Oid, repairs: bool) -> Result<Vec<Finding>, PgError> {
    check_owner(oid)?;
    let table = catalog::get(oid)?;
    table.check()?;
    let owner = reader(oid)?.ok_or_else(|| {
        PgError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("cannot compare the placements of table \"{}\"", table.name),
        )
        .detail("Placements are compared as the table's owner, in a transaction of its own.")
        .hint("Call the function as the owner, or make the owner a role that can log in.")
    })?;
    let mut found = Vec::new();
    for index in 0..table.map.len() {
        let healthy: Vec<NodeAddress> =
            table.healthy(index).map(|placement| placement.node.clone()).collect();
        let Some((leader, others)) = healthy.split_first() else { continue };
        for node in others {
            let pair = Pair { table: &table, index, source: leader, target: node, isolation: None };
            found.extend(pool::as_role(owner, || one(&pair, repairs))?);
        }
    }
    Ok(found)
}

fn one(pair: &Pair<'_>, repairs: bool) -> Result<Option<Finding>, PgError> {
    let compare = || {
        let problem = "could not compare placements";
        pair.compare().map_err(|(side, failure)| failed(problem, pair.node(side), failure))
    };
    let is_equal = |comparison: &Comparison| matches!(comparison, Comparison::Rows(difference) if difference.is_empty());
    if is_equal(&compare()?) {
        return Ok(None);
    }
    let shard = pair.table.shard_id(pair.index);
    lock_shard(ShardLock::Data(shard), Mode::Exclusive);
    lock_shard(ShardLock::Metadata(shard), Mode::Exclusive);
    // One of them may have been marked since.
    let is_healthy = |node: &NodeAddress| {
        catalog::current_placements(shard)
            .iter()
            .any(|known| known.node == *node && known.state == PlacementState::Healthy)
    };
    if !is_healthy(pair.source) || !is_healthy(pair.target) {
        return Ok(None);
    }
    let comparison = compare()?;
    if is_equal(&comparison) {
        return Ok(None);
    }
    let rows = match &comparison {
        Comparison::Rows(difference) => {
            if repairs {
                apply(pair, difference)?;
            }
            Some((difference.missing.len(), difference.surplus.len()))
        }
        Comparison::Whole => None,
    };
    Ok(Some(Finding { shard, node: pair.target.clone(), rows }))
}
