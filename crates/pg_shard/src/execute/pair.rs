//! A statement that is the whole transaction, on the two placements of a shard at once.
//!
//! Both nodes get the statement in the same moment, each commits it by itself, and then both are heard: as many
//! round trips and flushes one after the other as with one placement. That is allowed where the two cannot
//! come to different ends for reasons of order: the key's lock, held to the end of the statement, keeps every
//! other writer of the key away from both, and the table has no constraint between rows of different keys.
//!
//! What can still differ is a node's own failure. Once both have been asked, the outcome is decided by this table,
//! in which "marked" is a placement that becomes inactive because it may differ from the other:
//!
//! | leader \ follower | done | refused | lost |
//! |---|---|---|---|
//! | done | done; other row counts: follower marked | done, follower marked | done, follower marked |
//! | refused | error, follower marked if it changed rows | error | error, follower marked |
//! | lost | done, leader marked | error, leader marked | 08007, follower marked |
//!
//! If this process dies after the first of the two sends, a follower can miss the write without being marked; the
//! two sends follow each other without anything between.

use super::write::commit_unknown;
use crate::catalog::{DistributedTable, Placement};
use crate::health;
use crate::naming::tell_as_table;
use crate::session::pool::{self, SessionRef, Stale};
use crate::session::{Failure, NoSession, Request};
use crate::transaction;
use pg::PgError;
use pg::SqlState;
use protocol::Row;
use shardmap::{PlacementId, ShardId};

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
        placements: &'a [Placement],
    ) -> Result<Option<Self>, PgError> {
        let [leader, follower] = placements else { return Ok(None) };
        let session = |placement: &Placement| match pool::session(&placement.node, Stale::Matters) {
            Ok(session) => Ok(Some(session)),
            Err(NoSession::Unreachable(_)) => Ok(None),
            Err(NoSession::Refused(error)) => Err(error),
        };
        let (Some(first), Some(second)) = (session(leader)?, session(follower)?) else {
            return Ok(None);
        };
        Ok(Some(Self { table, index, leader, follower, sessions: [first, second] }))
    }

    /// Runs the statement; returns how many rows it changed.
    pub(super) fn execute(
        &self,
        request: &Request<'_>,
        rows: &mut dyn Rows,
    ) -> Result<u64, PgError> {
        // Whoever has asked must hear: a cancel is passed on to the nodes, and their answers decide.
        transaction::uninterrupted(|| {
            let [leader, follower] = &self.sessions;
            let asked = [
                leader.borrow_mut().send(request, None),
                follower.borrow_mut().send(request, None),
            ];
            let [asked_leader, asked_follower] = asked;
            let led = asked_leader.and_then(|()| hear(leader, request, &mut |row| rows.take(row)));
            let followed = if matches!(led, Err(Failure::Lost(_))) {
                rows.forget();
                asked_follower.and_then(|()| hear(follower, request, &mut |row| rows.take(row)))
            } else {
                asked_follower.and_then(|()| hear(follower, request, &mut |_| Ok(())))
            };
            pool::discard_broken();
            self.decide(led, followed)
        })
    }

    /// The table in the header.
    fn decide(
        &self,
        led: Result<u64, Failure>,
        followed: Result<u64, Failure>,
    ) -> Result<u64, PgError> {
        match (led, followed) {
            (Ok(rows), Ok(same)) if rows == same => Ok(rows),
            (Ok(rows), Ok(other)) => {
                pg::error::warning(super::write::other_count(other, rows, self.follower));
                self.mark(self.follower)?;
                Ok(rows)
            }
            (Ok(rows), Err(Failure::Statement(error) | Failure::Lost(error))) => {
                pg::error::warning(pool::connection_failed(&self.follower.node, &error));
                self.mark(self.follower)?;
                Ok(rows)
            }
            (Err(Failure::Statement(error)), followed) => {
                if !matches!(followed, Ok(0) | Err(Failure::Statement(_))) {
                    self.mark(self.follower)?;
                }
                Err(self.tell(error, self.leader))
            }
            (Err(Failure::Lost(lost)), Ok(rows)) => {
                pg::error::warning(pool::connection_failed(&self.leader.node, &lost));
                self.mark(self.leader)?;
                Ok(rows)
            }
            (Err(Failure::Lost(lost)), Err(Failure::Statement(error))) => {
                pg::error::warning(pool::connection_failed(&self.leader.node, &lost));
                self.mark(self.leader)?;
                Err(self.tell(error, self.follower))
            }
            (Err(Failure::Lost(lost)), Err(Failure::Lost(_))) => {
                self.mark(self.follower)?;
                Err(commit_unknown(self.table, self.leader, &lost))
            }
        }
    }

    fn mark(&self, placement: &Placement) -> Result<(), PgError> {
        let missed: [(ShardId, PlacementId); 1] = [(self.table.shard_id(self.index), placement.id)];
        health::mark_inactive(&missed).map_err(|error| {
            // Both placements have ended the statement already: "nothing was written" would not be true.
            PgError::new(SqlState(*b"08007"), error.message().to_owned())
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

/// What the node says in the end. A statement that it has lost is sent once more.
fn hear(
    session: &SessionRef,
    request: &Request<'_>,
    each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
) -> Result<u64, Failure> {
    let mut session = session.borrow_mut();
    let outcome = session.finish_uninterrupted(each);
    if outcome.as_ref().is_err_and(Failure::is_stale_statement) {
        session.send(request, None)?;
        return session.finish_uninterrupted(each);
    }
    outcome
}
