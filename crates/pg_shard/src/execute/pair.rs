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
//! ([`pg::server::in_flight`]), and the follower is marked when the server starts anew. The note is erased when the table's mark is stored; if
//! that fails, the note stays, and the resolver's visitor stores the mark. Without a place for a note the statement takes the other way.

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
use pg::server::in_flight::{self, Found, Missed, Place};
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
    place: Place,
}

/// A placement that has to be marked.
#[derive(Clone, Copy, Debug)]
enum Behind {
    Leader,
    Follower,
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
        let place = match in_flight::place() {
            Found::Free(place) => place,
            Found::Taken => return Ok(None),
            Found::Left => {
                health::announce_leftovers();
                return Ok(None);
            }
        };
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
        Ok(Some(Self { table, index, leader, follower, sessions: [first, second], place }))
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

    /// The table in the header; a placement that cannot be marked now will be.
    fn commit(&self, request: &Request<'_>, changed: u64, took: Duration) -> Result<u64, PgError> {
        // Before a session is lost, and with it what it knows of the node's process.
        let missed = [self.leader, self.follower].map(|placement| self.missed(placement));
        let noted = self.place.note(missed[Behind::Follower as usize]);
        let (behind, outcome) = self.decide(request, changed, took);
        if let Some(behind) = behind {
            fault::point("pair_mark");
            let placement = match behind {
                Behind::Leader => self.leader,
                Behind::Follower => self.follower,
            };
            if let Err(error) = self.mark(placement) {
                noted.leave(missed[behind as usize]);
                health::announce_leftovers();
                return Err(error);
            }
        }
        noted.settle();
        outcome
    }

    fn missed(&self, placement: &Placement) -> Missed {
        let session = &self.sessions[usize::from(placement.id != self.leader.id)];
        Missed {
            shard: self.table.shard_id(self.index).0,
            placement: placement.id.0,
            node: nodes::number(&placement.node),
            process: session.borrow_mut().process(),
        }
    }

    /// The table in the header, but for the mark: which placement is to be marked, and what comes of the statement then.
    fn decide(
        &self,
        request: &Request<'_>,
        changed: u64,
        took: Duration,
    ) -> (Option<Behind>, Result<u64, PgError>) {
        let [leader, follower] = &self.sessions;
        let mut leader = leader.borrow_mut();
        let mut follower = follower.borrow_mut();
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
        drop((leader, follower));
        self.outcome(led, followed, changed)
    }

    fn outcome(
        &self,
        led: Result<u64, Failure>,
        followed: Result<u64, Failure>,
        changed: u64,
    ) -> (Option<Behind>, Result<u64, PgError>) {
        match (led, followed) {
            (Ok(_), Ok(same)) if same == changed => (None, Ok(changed)),
            (Ok(_), Ok(other)) => {
                pg::sys::error::warning(super::write::other_count(other, changed, self.follower));
                (Some(Behind::Follower), Ok(changed))
            }
            (Ok(_), Err(Failure::Statement(error) | Failure::Lost(error))) => {
                pg::sys::error::warning(pool::connection_failed(&self.follower.node, &error));
                (Some(Behind::Follower), Ok(changed))
            }
            (Err(Failure::Statement(error)), followed) => {
                let is_equal = matches!(followed, Err(Failure::Statement(_)));
                let behind = if is_equal { None } else { Some(Behind::Follower) };
                (behind, Err(self.tell(error, self.leader)))
            }
            (Err(Failure::Lost(lost)), followed) => {
                pg::sys::error::warning(pool::connection_failed(&self.leader.node, &lost));
                let outcome = followed.map_err(|failure| match failure {
                    Failure::Statement(error) => self.tell(error, self.follower),
                    Failure::Lost(error) => commit_unknown(self.table, self.follower, &error),
                });
                (Some(Behind::Leader), outcome)
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
                .hint("It is not read, and is marked as soon as the metadata can be written. Look what the row holds before you write it again.")
        })
    }

    fn tell(&self, error: PgError, placement: &Placement) -> PgError {
        tell_as_table(error, &[(self.table, self.index)], &placement.node)
    }
}
