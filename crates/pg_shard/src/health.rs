//! Marking placements that missed a write, so that nobody reads them until they are repaired.
//!
//! The mark must survive the rollback of the transaction in which the failure was noticed, and two sessions
//! must never mark both placements of a shard. So a background worker writes it, one at a time, and only while
//! another healthy placement remains; then we look whether it was written.

use crate::catalog;
use crate::links;
use pg::catalog::privileged;
use pg::server::background;
use pg::server::given_up;
use pg::server::in_flight::{self, Leftover};
use pg::server::lock::{self, Mode, ShardLock};
use pg::server::resolver;
use pg::server::rounds::Visit;
use pg::server::transaction::{self, Isolation};
use pg::{PgError, SqlState};
use pgrx::prelude::*;
use shardmap::{PlacementId, PlacementState, ShardId};

/// The lock that lets one session mark at a time: the metadata lock of a shard that cannot exist.
const MARKING: ShardLock = ShardLock::Metadata(ShardId(0));

/// Ids in one worker's argument.
const BATCH: usize = 5;

/// Marks placements inactive (state 3), in a transaction of its own, and with them those that foreign keys link with them.
///
/// # Errors
///
/// If one of them is the last healthy placement of its shard by now: somebody else marked the others, so what
/// this statement wrote elsewhere is not what the shard will hold.
pub(crate) fn mark_inactive(placements: &[(ShardId, PlacementId)]) -> Result<(), PgError> {
    if transaction::isolation_level() == Isolation::Serializable {
        return Err(missed_in_serializable());
    }
    let placements = links::with_linked(placements)?;
    for batch in placements.chunks(BATCH) {
        let ids: Vec<String> = batch.iter().map(|(_, placement)| placement.0.to_string()).collect();
        background::run("pg_shard placement marker", &ids.join(","))?;
    }
    resolver::note_stale();
    transaction::accept_invalidations();
    catalog::forget(None);
    for (shard, placement) in &placements {
        let still_healthy = catalog::current_placements(*shard)
            .iter()
            .any(|known| known.id == *placement && known.state == PlacementState::Healthy);
        if still_healthy {
            return Err(PgError::new(
                SqlState::INTERNAL_ERROR,
                format!("could not mark placement {} of shard {} inactive", placement.0, shard.0),
            )
            .detail("It missed a write of this statement, but it is the last healthy placement of its shard, or its metadata are locked.")
            .hint("Nothing was written. Try again."));
        }
    }
    Ok(())
}

/// Keeps everybody from marking placements to the end of the transaction.
pub(crate) fn lock_marks() {
    lock::lock_shard(MARKING, Mode::Exclusive);
}

/// Where conflicts are found by the nodes, all placements must take part: who has read the lost one would be missed.
fn missed_in_serializable() -> PgError {
    PgError::new(
        SqlState::CONNECTION_FAILURE,
        "a placement cannot be reached, and a SERIALIZABLE transaction has to write it",
    )
    .hint("Nothing was written. Run the transaction again when the node is back, or use REPEATABLE READ.")
}

/// Placements of notes have become leftovers, or are none any more: all backends load the metadata anew, and somebody comes and marks what is left.
pub(crate) fn announce_leftovers() {
    if let Some(metadata) = catalog::metadata() {
        transaction::invalidate_now(metadata.partition);
    }
    resolver::wake();
}

/// Marks placements that may have missed a write which two nodes were committing when a process of this server died or could not mark them.
/// Until then whoever loads the metadata passes over them.
pub(crate) fn mark_leftovers(visit: &Visit) -> Result<(), PgError> {
    let leftovers = in_flight::leftovers();
    if leftovers.is_empty() {
        return Ok(());
    }
    // Before the mark: who repairs what is marked ends these processes.
    for Leftover { missed, .. } in &leftovers {
        given_up::note(missed.node, missed.process);
    }
    visit.in_transaction(|| {
        if catalog::metadata().is_some() {
            let ids: Vec<String> =
                leftovers.iter().map(|left| left.missed.placement.to_string()).collect();
            privileged::set_for_transaction(c"lock_timeout", c"5s");
            lock::lock_shard(MARKING, Mode::Exclusive);
            privileged::run(&marking(&ids.join(",")))?;
        }
        Ok(())
    })?;
    in_flight::forget(&leftovers);
    // A placement that was passed over and not marked, because it is the last healthy one by now, counts again.
    visit.in_transaction(|| {
        if let Some(metadata) = catalog::metadata() {
            transaction::invalidate_now(metadata.partition);
        }
        Ok(())
    })?;
    resolver::note_stale();
    Ok(())
}

/// The background worker's part.
pub(crate) fn mark_in_background(ids: &str) {
    let ids: String = ids.chars().filter(|c| c.is_ascii_digit() || *c == ',').collect();
    privileged::set_for_transaction(c"lock_timeout", c"5s");
    lock::lock_shard(MARKING, Mode::Exclusive);
    if let Err(error) = privileged::run(&marking(&ids)) {
        warning!("could not mark placements inactive: {}", error.message());
    }
}

/// Marks placements, unless they are the last healthy ones of their shards.
fn marking(ids: &str) -> String {
    format!(
        "UPDATE pgs_distribution_metadata.shard_placement AS p SET shard_state = 3 \
         WHERE p.id IN ({ids}) AND p.shard_state = 1 AND EXISTS ( \
           SELECT 1 FROM pgs_distribution_metadata.shard_placement AS o \
           WHERE o.shard_id = p.shard_id AND o.shard_state = 1 AND o.id NOT IN ({ids}))"
    )
}
