//! Looking whether the healthy placements of a table are equal.
//!
//! They are, unless something went wrong that nobody has noticed: a disk that lost writes, a backup put in place, somebody who wrote to a shard
//! on its worker. Each shard is compared beside its writers; one that seems to differ is compared once more while they wait.

use super::compare::Pair;
use super::placement::{apply, wait_for_doubt};
use crate::catalog;
use crate::functions::check_owner;
use crate::owner;
use pg::PgError;
use pg::server::lock::{Mode, ShardLock, lock_shard};
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
    let mut found = Vec::new();
    for index in 0..table.map.len() {
        let healthy: Vec<NodeAddress> =
            table.healthy(index).map(|placement| placement.node.clone()).collect();
        let Some((leader, others)) = healthy.split_first() else { continue };
        for node in others {
            let problem = "could not compare placements";
            let pair = Pair {
                table: &table,
                index,
                source: leader,
                target: node,
                problem,
                isolation: None,
            };
            found.extend(one(&pair, repairs)?);
        }
    }
    Ok(found)
}

fn one(pair: &Pair<'_>, repairs: bool) -> Result<Option<Finding>, PgError> {
    if is_equal(compare(pair, false)?) {
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
    if pair.rows()?.is_some() {
        wait_for_doubt(pair, pair.source)?;
        wait_for_doubt(pair, pair.target)?;
    }
    let rows = compare(pair, repairs)?;
    Ok((!is_equal(rows)).then(|| Finding { shard, node: pair.target.clone(), rows }))
}

fn is_equal(rows: Option<(usize, usize)>) -> bool {
    rows == Some((0, 0))
}

/// How many rows the target lacks and has in surplus; none if that cannot be said.
fn compare(pair: &Pair<'_>, repairs: bool) -> Result<Option<(usize, usize)>, PgError> {
    let Some(rows) = pair.rows()? else { return Ok(None) };
    let found = owner::acting_on(pair.table, pair.index, &[pair.source, pair.target], || {
        let Some(difference) = pair.difference(rows)? else { return Ok(None) };
        let (missing, surplus) = (difference.missing.len(), difference.surplus.len());
        if repairs && pair.table.is_linked && missing + surplus > 0 {
            // Foreign keys would act on rows of other shards.
            return Ok(None);
        }
        if repairs {
            apply(pair, &difference)?;
        }
        Ok(Some((missing, surplus)))
    })?;
    Ok(found.flatten())
}
