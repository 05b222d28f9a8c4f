//! A write over several shards: the statement once for each shard group, all nodes at once.
//!
//! Every node works through its own list of shards in one transaction. First each shard's leader executes, then its
//! followers, so that the leaders' row locks order all writers. A node that is lost before it has written is
//! replaced as leader by the next placement and its placements are marked; after that what it wrote is gone, and
//! with it the transaction.

use super::write::{Target, other_count};
use crate::activity::{Kind, Work};
use crate::catalog::Placement;
use crate::health;
use crate::naming::tell_as_table;
use crate::session::age;
use crate::session::pool::{self, SessionRef, Stale};
use crate::session::statement_time::StatementTime;
use crate::session::{Event, Failure, NoSession, Request, Session, wait_for_any};
use crate::transaction;
use pg::{PgError, SqlState};
use protocol::Row;
use shardmap::{NodeAddress, PlacementId, ShardId};
use std::collections::VecDeque;
use std::rc::Rc;

/// What remains to be done for a shard: its placements, of which the first not tried yet is next.
struct Part<'a> {
    target: Target<'a>,
    placements: VecDeque<Placement>,
    /// Rows that the leader changed; none until some placement has taken the write.
    affected: Option<u64>,
}

impl Part<'_> {
    /// After a node was lost: somebody else can still take the write. If nobody can, all of the statement fails, and no other node
    /// need be waited for.
    fn check(&self) -> Result<(), PgError> {
        if self.affected.is_none() && self.placements.is_empty() {
            return Err(self.target.nobody());
        }
        Ok(())
    }
}

/// Hands the statement for a shard, given by its index, to whoever sends it.
pub(super) type WithRequest<'a> = dyn FnMut(usize, Send<'_>) -> Result<(), Failure> + 'a;

/// Sends statements in one flight.
pub(super) type Send<'a> = &'a mut dyn FnMut(&[Request<'_>]) -> Result<(), Failure>;

/// Runs the statement on all placements of the targets' shards; `each` gets the leaders' rows, with the shard's index.
/// Rows are found as they were at the time that `choose_time` yields when the sessions are open. Returns how many rows the leaders changed.
pub(super) fn write_shards(
    targets: Vec<Target<'_>>,
    choose_time: &dyn Fn() -> Option<Rc<StatementTime>>,
    request: &mut WithRequest<'_>,
    each: &mut dyn FnMut(usize, Row<'_>) -> Result<(), PgError>,
) -> Result<u64, PgError> {
    let told = Work::begin(Kind::Write, targets.len());
    let mut parts = Vec::with_capacity(targets.len());
    for target in targets {
        let placements = target.placements()?.into();
        parts.push(Part { target, placements, affected: None });
    }
    open_sessions(&parts);
    let time = choose_time();
    let mut missed: Vec<(ShardId, PlacementId)> = Vec::new();
    let mut asked: Vec<Asked> = Vec::new();
    loop {
        for (part, placement) in next_for_free_nodes(&mut parts, &asked) {
            let target = &parts[part].target;
            let leads = parts[part].affected.is_none();
            let prepare = |session: &mut Session| match &time {
                Some(time) if leads => time.prepare(session),
                Some(time) => time.prepare_follower(session),
                None => {}
            };
            match ask(target, &placement, &prepare, request)? {
                Ok(session) => asked.push(Asked { part, placement, session }),
                Err(error) => {
                    missed.extend(lose(target, &placement.node, &error)?);
                    parts[part].check()?;
                }
            }
        }
        let is_at_end = |part: &Part<'_>| part.placements.is_empty();
        if asked.is_empty() {
            if parts.iter().all(is_at_end) {
                break;
            }
            // A node was lost before it did anything: somebody else may lead its shards now.
            continue;
        }
        let (at, outcome) = next_answer(&asked, &mut |at, row| {
            let Part { target, affected, .. } = &parts[asked[at].part];
            if affected.is_none() { each(target.index, row) } else { Ok(()) }
        });
        let Asked { part, placement, session } = asked.swap_remove(at);
        let Part { target, affected, placements } = &mut parts[part];
        match outcome {
            Ok(rows) => {
                session.borrow_mut().wrote = true;
                if placements.is_empty() {
                    told.done(1);
                }
                for (table, id) in target.on_node(&placement.node) {
                    transaction::note_written(table, target.index, id, &placement.node);
                }
                let expected = *affected.get_or_insert(rows);
                if rows != expected {
                    pg::sys::error::warning(other_count(rows, expected, &placement));
                    missed.extend(target.missed_by(&placement.node));
                }
            }
            Err(Failure::Statement(error)) => {
                return Err(tell_as_table(error, &target.named(), &placement.node));
            }
            Err(Failure::Lost(error)) => {
                missed.extend(lose(target, &placement.node, &error)?);
                parts[part].check()?;
            }
        }
    }
    missed.sort_unstable();
    missed.dedup();
    if !missed.is_empty() {
        health::mark_inactive(&missed)?;
    }
    Ok(parts.iter().filter_map(|part| part.affected).sum())
}

/// Opens the sessions that are missing, all at once.
fn open_sessions(parts: &[Part<'_>]) {
    let Some(Part { target, .. }) = parts.first() else { return };
    let placements = parts.iter().flat_map(|part| &part.placements);
    let nodes = placements.map(|placement| &placement.node);
    let nodes = nodes.filter(|node| pool::missed(node).is_none());
    pool::acting_as(target.user, || pool::open_missing(nodes));
}

/// A statement under way on a node.
struct Asked {
    part: usize,
    placement: Placement,
    session: SessionRef,
}

/// For each node that has nothing to do one shard that it can do next: leaders first, and no follower before all
/// leaders are done.
fn next_for_free_nodes(parts: &mut [Part<'_>], asked: &[Asked]) -> Vec<(usize, Placement)> {
    let mut next: Vec<(usize, Placement)> = Vec::new();
    let is_asked = |number: usize| asked.iter().any(|asked| asked.part == number);
    let leaders_left = parts.iter().enumerate().any(|(number, part)| {
        part.affected.is_none() && (!part.placements.is_empty() || is_asked(number))
    });
    for (number, part) in parts.iter_mut().enumerate() {
        if is_asked(number) || leaders_left && part.affected.is_some() {
            continue;
        }
        let is_free = |node: &NodeAddress| {
            asked.iter().all(|asked| asked.placement.node != *node)
                && next.iter().all(|(_, placement)| placement.node != *node)
        };
        if part.placements.front().is_some_and(|placement| is_free(&placement.node))
            && let Some(placement) = part.placements.pop_front()
        {
            next.push((number, placement));
        }
    }
    next
}

/// Waits until one of the statements is done, or its node lost; `each` gets the rows of all.
fn next_answer(
    asked: &[Asked],
    each: &mut dyn FnMut(usize, Row<'_>) -> Result<(), PgError>,
) -> (usize, Result<u64, Failure>) {
    loop {
        for (at, asked) in asked.iter().enumerate() {
            let mut session = asked.session.borrow_mut();
            loop {
                match session.poll() {
                    Ok(Event::Wait) => break,
                    Ok(Event::Done(affected)) => return (at, Ok(affected)),
                    Err(failure) => return (at, Err(failure)),
                    Ok(Event::Row(message)) => {
                        if let Err(error) = each(at, session.row(&message)) {
                            return (at, Err(Failure::Statement(error)));
                        }
                    }
                }
            }
        }
        let sessions: Vec<&SessionRef> = asked.iter().map(|asked| &asked.session).collect();
        if let Err((at, failure)) = wait_for_any(&sessions) {
            return (at, Err(failure));
        }
    }
}

/// Sends the statement. The inner error says that the node cannot be reached.
fn ask(
    target: &Target<'_>,
    placement: &Placement,
    prepare: &dyn Fn(&mut Session),
    request: &mut WithRequest<'_>,
) -> Result<Result<SessionRef, PgError>, PgError> {
    if target.has_other_placements(&placement.node)
        && let Some(error) = pool::missed(&placement.node)
    {
        return Ok(Err(error));
    }
    for attempt in 0..2 {
        let found = pool::acting_as(target.user, || pool::session(&placement.node, Stale::Matters));
        let session = match found {
            Ok(session) => session,
            Err(NoSession::Unreachable(error)) => return Ok(Err(error)),
            Err(NoSession::Refused(error)) => return Err(error),
        };
        let had_transaction = session.borrow().depth > 0;
        transaction::announce_write(&session)?;
        let shown = age::must_show(&session, target.tables, &[target.index]);
        let sent = shown.and_then(|()| {
            prepare(&mut session.borrow_mut());
            request(target.index, &mut |requests| {
                session.borrow_mut().send_all(requests, Some(transaction::level_for_write()))
            })
        });
        match sent {
            Ok(()) => return Ok(Ok(session)),
            Err(Failure::Statement(error)) => return Err(error),
            Err(Failure::Lost(error)) => {
                pool::discard_broken();
                if had_transaction || attempt > 0 {
                    return Ok(Err(error));
                }
            }
        }
    }
    Ok(Err(PgError::new(SqlState::CONNECTION_FAILURE, "the connection breaks again and again")))
}

/// The node has missed its part.
fn lose(
    target: &Target<'_>,
    node: &NodeAddress,
    error: &PgError,
) -> Result<Vec<(ShardId, PlacementId)>, PgError> {
    pool::note_missed(node, error);
    pg::sys::error::warning(pool::connection_failed(node, error));
    transaction::lose_node(node, error)?;
    Ok(target.missed_by(node))
}
