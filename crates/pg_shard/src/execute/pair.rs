//! A statement that is the whole transaction, on the two placements of a shard.
//!
//! The leader executes it and holds it (`Session::send_held`: a transaction without BEGIN and COMMIT, which would cost the
//! leader as many instructions again as half the statement): its row locks order all writers, and whoever waits there,
//! fails or is cancelled has changed nothing anywhere. Then, in the same moment, the leader is told to commit and the
//! follower to execute and commit: two round trips, and one flush's time for both. That is allowed where the two cannot
//! come to different ends for reasons of order. The key's lock, held to the end of the statement, keeps every other
//! writer of the key away until both are done; and the table has no constraint between rows of different keys, so
//! that these need no order.
//!
//! What can still differ is a node's own failure, and the outcome is decided by this table, in which "marked" is a
//! placement that becomes inactive because it may differ from the other:
//!
//! | leader's COMMIT \ follower | done | refused | lost |
//! |---|---|---|---|
//! | done | done; if other rows were changed there, follower marked | done, follower marked | done, follower marked |
//! | refused | error, follower marked | error | error, follower marked |
//! | lost | done, leader marked | error, leader marked | 08007, leader marked: whatever the follower has counts |
//!
//! If this process dies between the two sends the follower misses the write. So it is noted before, where it outlives this server's processes
//! ([`pg::server::in_flight`]), and the follower is marked when the server starts anew.

use super::write::commit_unknown;
use crate::catalog::{DistributedTable, Placement};
use crate::fault;
use crate::health;
use crate::naming::tell_as_table;
use crate::nodes;
use crate::session::ending::{GRACE, OnInterrupt, PATIENCE};
use crate::session::pool::{self, SessionRef, Stale};
use crate::session::{Failure, NoSession, Request};
use pg::PgError;
use pg::SqlState;
use pg::net::wait::clock;
use pg::server::commit::should_stop;
use pg::server::in_flight::{self, Missed};
use pgrx::pg_sys::Oid;
use protocol::Row;
use shardmap::{PlacementId, ShardId};
use std::time::Duration;

/// A shard's two healthy placements with a session on each.
pub(super) struct Pair<'a> {
    table: &'a DistributedTable,
    index: usize,
    leader: &'a Placement,
    follower: &'a Placement,
    sessions: [SessionRef; 2],
}

/// Where a pair's rows go.
pub(super) trait Rows {
    /// Takes a row.
    fn take(&mut self, row: Row<'_>) -> Result<(), PgError>;
    /// The rows taken so far do not count: all of them come again.
    fn forget(&mut self);
}

impl<'a> Pair<'a> {
    /// Sessions to both, if both can be had; otherwise the statement has to take the way that tells a dead node from
    /// a living one before anything is decided.
    pub(super) fn open(
        table: &'a DistributedTable,
        index: usize,
        user: Oid,
        placements: &'a [Placement],
    ) -> Result<Option<Self>, PgError> {
        let [leader, follower] = placements else { return Ok(None) };
        // Edited by hand: one session cannot speak for both.
        if leader.node == follower.node {
            return Ok(None);
        }
        // The other way tries anew to connect before it decides anything.
        if pool::seems_silent(&leader.node) || pool::seems_silent(&follower.node) {
            return Ok(None);
        }
        let session = |placement: &Placement, stale: Stale| match pool::acting_as(user, || {
            pool::session(&placement.node, stale)
        }) {
            Ok(session) => Ok(Some(session)),
            Err(NoSession::Unreachable(_)) => Ok(None),
            Err(NoSession::Refused(error)) => Err(error),
        };
        // What the leader was told and did not commit was not done: if its connection is closed, it is told again.
        let (Some(first), Some(second)) =
            (session(leader, Stale::IsHarmless)?, session(follower, Stale::Matters)?)
        else {
            return Ok(None);
        };
        Ok(Some(Self { table, index, leader, follower, sessions: [first, second] }))
    }

    /// Runs the statement; returns how many rows it changed. None if the leader was lost before anything was decided:
    /// the statement may be run again.
    pub(super) fn execute(
        &self,
        request: &Request<'_>,
        rows: &mut dyn Rows,
    ) -> Result<Option<u64>, PgError> {
        let leader = &self.sessions[0];
        let since = clock();
        let executed = {
            let mut leader = leader.borrow_mut();
            leader.send_held(request).and_then(|()| leader.finish(&mut |row| rows.take(row)))
        };
        match executed {
            Ok(changed) => {
                // From here on it is stored, whatever comes: a cancel has come too late, and waits only bound how long the
                // follower may take.
                pg::server::commit::hold_interrupts_until_end();
                let outcome = self.commit(request, changed, clock() - since);
                pool::discard_broken();
                outcome.map(Some)
            }
            Err(failure) if failure.is_stale_statement() => {
                // Nothing was done; the way that repeats statements knows how.
                leader.borrow_mut().roll_back();
                rows.forget();
                Ok(None)
            }
            Err(Failure::Statement(error)) => Err(self.tell(error, self.leader)),
            Err(Failure::Lost(_)) => {
                pool::discard_broken();
                rows.forget();
                Ok(None)
            }
        }
    }

    /// The table in the header.
    fn commit(&self, request: &Request<'_>, changed: u64, took: Duration) -> Result<u64, PgError> {
        let [leader, follower] = &self.sessions;
        let mut leader = leader.borrow_mut();
        let mut follower = follower.borrow_mut();
        let _noted = in_flight::begin(Missed {
            shard: self.table.shard_id(self.index).0,
            placement: self.follower.id.0,
            node: nodes::number(&self.follower.node),
            process: follower.process(),
        });
        let told = leader.send_release();
        fault::point("pair");
        let asked = follower.queue(request, None);
        // The follower has more to do: when it is done the leader's answer is here too, most of the time.
        let wait = OnInterrupt::Finish(PATIENCE.max(took));
        let mut followed = asked.and_then(|()| follower.decide(wait, &mut |_| Ok(())));
        // Both have had their time together.
        let is_over = should_stop() && matches!(followed, Err(Failure::Lost(_)));
        let rest = if is_over { OnInterrupt::Finish(GRACE) } else { wait };
        let led = told.and_then(|()| leader.decide(rest, &mut |_| Ok(())));
        leader.left_transaction();
        if followed.as_ref().is_err_and(Failure::is_stale_statement) {
            followed =
                follower.queue(request, None).and_then(|()| follower.decide(wait, &mut |_| Ok(())));
        }
        match (led, followed) {
            (Ok(_), Ok(same)) if same == changed => Ok(changed),
            (Ok(_), Ok(other)) => {
                pg::sys::error::warning(super::write::other_count(other, changed, self.follower));
                self.mark(self.follower)?;
                Ok(changed)
            }
            (Ok(_), Err(Failure::Statement(error) | Failure::Lost(error))) => {
                pg::sys::error::warning(pool::connection_failed(&self.follower.node, &error));
                self.mark(self.follower)?;
                Ok(changed)
            }
            (Err(Failure::Statement(error)), followed) => {
                if !matches!(followed, Err(Failure::Statement(_))) {
                    self.mark(self.follower)?;
                }
                Err(self.tell(error, self.leader))
            }
            (Err(Failure::Lost(lost)), followed) => {
                pg::sys::error::warning(pool::connection_failed(&self.leader.node, &lost));
                self.mark(self.leader)?;
                match followed {
                    Ok(rows) => Ok(rows),
                    Err(Failure::Statement(error)) => Err(self.tell(error, self.follower)),
                    Err(Failure::Lost(error)) => {
                        Err(commit_unknown(self.table, self.follower, &error))
                    }
                }
            }
        }
    }

    fn mark(&self, placement: &Placement) -> Result<(), PgError> {
        let missed: [(ShardId, PlacementId); 1] = [(self.table.shard_id(self.index), placement.id)];
        health::mark_inactive(&missed).map_err(|error| {
            // Both placements have ended the statement already: "nothing was written" would not be true.
            PgError::new(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, error.message().to_owned())
                .detail(format!(
                    "The placements of shard {} of table \"{}\" may differ: the one on \"{}\" may have missed the statement.",
                    missed[0].0.0, self.table.name, placement.node
                ))
                .hint("Set its shard_state to 3 and repair it with master_copy_shard_placement.")
        })
    }

    fn tell(&self, error: PgError, placement: &Placement) -> PgError {
        tell_as_table(error, &[(self.table, self.index)], &placement.node)
    }
}
