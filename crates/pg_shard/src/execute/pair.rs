//! A statement that is the whole transaction, on the two placements of a shard.
//!
//! The leader executes and commits it by itself, then the follower: two round trips, where a transaction on both
//! takes four. That is allowed where the two cannot come to different ends for reasons of order. The leader's row
//! locks come first: who waits for another writer, or is cancelled while waiting, has changed nothing anywhere. Then
//! the key's lock, held to the end of the statement, keeps every other writer of the key away until the follower is
//! done; and the table has no constraint between rows of different keys, so that these need no order.
//!
//! What can still differ is a node's own failure, and the outcome is decided by this table, in which "marked" is a
//! placement that becomes inactive because it may differ from the other:
//!
//! | leader | follower | outcome |
//! |---|---|---|
//! | refused | not asked | error |
//! | done | done | done; if other rows were changed there, follower marked |
//! | done | refused or lost | done, follower marked |
//! | lost | done | done, leader marked |
//! | lost | refused | error, leader marked |
//! | lost | lost | 08007, leader marked: whatever the follower has counts |
//!
//! If this process dies between the two, the follower misses the write without being marked: the same gap as at the
//! commit of a transaction.

use super::write::commit_unknown;
use crate::catalog::{DistributedTable, Placement};
use crate::health;
use crate::naming::tell_as_table;
use crate::session::pool::{self, SessionRef, Stale};
use crate::session::{Failure, NoSession, Request};
use crate::transaction;
use pg::PgError;
use pg::SqlState;
use pgrx::pg_sys::Oid;
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
        user: Oid,
        placements: &'a [Placement],
    ) -> Result<Option<Self>, PgError> {
        let [leader, follower] = placements else { return Ok(None) };
        let find = |placement: &Placement| {
            pool::acting_as(user, || pool::session(&placement.node, Stale::Matters))
        };
        let session = |placement: &Placement| match find(placement) {
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
        // Whoever has asked must hear: a cancel is passed on to the leader, and its answer decides.
        let outcome = transaction::uninterrupted(|| self.execute_on_both(request, rows));
        pool::discard_broken();
        if outcome.as_ref().is_err_and(|error| error.sqlstate() == SqlState::QUERY_CANCELED) {
            // The reason is known here: the user, or a time-out.
            pg::transaction::serve_interrupts();
        }
        outcome
    }

    /// The table in the header.
    fn execute_on_both(&self, request: &Request<'_>, rows: &mut dyn Rows) -> Result<u64, PgError> {
        let [leader, follower] = &self.sessions;
        match hear(leader, request, &mut |row| rows.take(row)) {
            Ok(changed) => {
                match hear(follower, request, &mut |_| Ok(())) {
                    Ok(same) if same == changed => return Ok(changed),
                    Ok(other) => {
                        pg::error::warning(super::write::other_count(
                            other,
                            changed,
                            self.follower,
                        ));
                    }
                    Err(Failure::Statement(error) | Failure::Lost(error)) => {
                        pg::error::warning(pool::connection_failed(&self.follower.node, &error));
                    }
                }
                self.mark(self.follower)?;
                Ok(changed)
            }
            Err(Failure::Statement(error)) => Err(self.tell(error, self.leader)),
            Err(Failure::Lost(lost)) => {
                pg::error::warning(pool::connection_failed(&self.leader.node, &lost));
                rows.forget();
                let outcome = hear(follower, request, &mut |row| rows.take(row));
                self.mark(self.leader)?;
                outcome.map_err(|failure| match failure {
                    Failure::Statement(error) => self.tell(error, self.follower),
                    Failure::Lost(error) => commit_unknown(self.table, self.follower, &error),
                })
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

/// Sends the statement and hears what the node says in the end. A statement that it has lost is sent once more.
fn hear(
    session: &SessionRef,
    request: &Request<'_>,
    each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
) -> Result<u64, Failure> {
    let mut session = session.borrow_mut();
    session.send(request, None)?;
    let outcome = session.finish_uninterrupted(each);
    if outcome.as_ref().is_err_and(Failure::is_stale_statement) {
        session.send(request, None)?;
        return session.finish_uninterrupted(each);
    }
    outcome
}
