//! On a worker: rows that moved here, fetched from the nodes that have split them.
//!
//! This node's own are read from their file. To each other node one session is opened, as the current role, and kept to
//! the end of the transaction: a statement that reads several shards fetches a part for each.

use crate::session::{Event, Failure, NoSession, Request, Session, Sql};
use pg::exec::partitions::{self, PartReader};
use pg::{PgError, SqlState};
use pgrx::prelude::*;
use protocol::Arguments;
use shardmap::NodeAddress;
use shardmap::repartition::{RepartitionSource, RepartitionedRows};
use std::cell::RefCell;

thread_local! {
    /// Sessions that have nothing to do, and whose they are.
    static IDLE: RefCell<Vec<(pg_sys::Oid, Session)>> = const { RefCell::new(Vec::new()) };
}

/// Whoever takes the rows: the source's number and a piece.
pub(crate) type Each<'a> = &'a mut dyn FnMut(usize, Vec<u8>) -> Result<(), PgError>;

/// Hands over all pieces of a part. All nodes are asked at once, and listened to one after the other.
pub(crate) fn fetch_part(
    moved: &RepartitionedRows,
    part: usize,
    each: Each<'_>,
) -> Result<(), PgError> {
    let mut asked = Vec::new();
    let mut own = Vec::new();
    for (number, source) in moved.sources.iter().enumerate() {
        match PartReader::open(&source.name, part)? {
            Some(reader) => own.push((number, reader)),
            None => asked.push((number, source, ask(source, part)?)),
        }
    }
    for (number, mut reader) in own {
        while let Some(piece) = reader.next_piece()? {
            each(number, piece)?;
        }
    }
    for (number, source, mut session) in asked {
        let mut places = Vec::new();
        loop {
            let failed = match session.poll() {
                Ok(Event::Row(message)) => {
                    let row = session.row(&message);
                    let piece = row
                        .columns(&mut places)
                        .ok()
                        .and_then(|()| places.first().cloned().flatten())
                        .map(|place| row.value(place).to_vec())
                        .ok_or_else(|| PgError::internal("another node sends no pieces"))?;
                    each(number, piece)?;
                    continue;
                }
                Ok(Event::Done(_)) => break,
                Ok(Event::Wait) => session.wait().err(),
                Err(failure) => Some(failure),
            };
            if let Some(Failure::Lost(error) | Failure::Statement(error)) = failed {
                return Err(not_fetched(&source.node, error));
            }
        }
        IDLE.with_borrow_mut(|idle| idle.push((pg::catalog::table::current_role(), session)));
    }
    Ok(())
}

/// Closes what was kept for this transaction.
pub(crate) fn forget_sessions() {
    // Dropped outside the borrow: closing speaks to the node.
    drop(IDLE.take());
}

fn ask(source: &RepartitionSource, part: usize) -> Result<Session, PgError> {
    let mut session = session_to(&source.node)?;
    let sql = format!("SELECT pgs_catalog.part_of_rows('{}', {part})", source.name);
    let mut arguments = Arguments::start(std::iter::empty());
    arguments.finish(&[true]);
    let request = Request::new(Sql::Once(&sql), &[], &arguments);
    session.send(&request, None).map_err(|failure| {
        let (Failure::Lost(error) | Failure::Statement(error)) = failure;
        not_fetched(&source.node, error)
    })?;
    Ok(session)
}

fn session_to(node: &NodeAddress) -> Result<Session, PgError> {
    let role = pg::catalog::table::current_role();
    let known = IDLE.with_borrow_mut(|idle| {
        let at = idle.iter().position(|(of, session)| *of == role && session.node == *node)?;
        Some(idle.swap_remove(at).1)
    });
    if let Some(session) = known
        && session.is_usable()
        && !session.is_stale()
    {
        return Ok(session);
    }
    Session::open(node).map_err(|reason| {
        let (NoSession::Unreachable(error) | NoSession::Refused(error)) = reason;
        not_fetched(node, error)
    })
}

/// The beginning of the message by which the coordinator knows that nodes do not get at each other's rows.
pub(crate) const NOT_FETCHED: &str = "could not fetch rows from node ";

fn not_fetched(node: &NodeAddress, error: PgError) -> PgError {
    PgError::new(SqlState::CONNECTION_FAILURE, format!("{NOT_FETCHED}\"{node}\""))
        .detail(format!("Remote message: {}", error.message()))
        .hint(
            "Workers connect to each other by the host names and ports of pg_worker_list.conf, as the role of the statement. \
             The session that saw this error joins on the coordinator for a while.",
        )
}

/// The rows of a part, piece by piece, for another node.
#[pg_extern]
fn part_of_rows(name: &str, part: i32) -> SetOfIterator<'static, Vec<u8>> {
    let part = usize::try_from(part).map_err(|_| {
        PgError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("no part of rows has the number {part}"),
        )
    });
    let reader =
        part.and_then(|part| partitions::PartReader::open(name, part)).and_then(|reader| {
            reader.ok_or_else(|| {
                PgError::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!("this server keeps no rows \"{name}\""),
                )
                .detail("The session that kept them has ended.")
            })
        });
    let mut reader = pg::sys::error::raise(reader);
    SetOfIterator::new(std::iter::from_fn(move || pg::sys::error::raise(reader.next_piece())))
}

/// Drops rows that this session keeps for others: of these names, or all.
#[pg_extern]
fn drop_rows(names: Vec<Option<String>>) {
    // Without any name all are meant, but not if there are names that are NULL.
    let names: Vec<String> = names.into_iter().map(Option::unwrap_or_default).collect();
    partitions::drop_kept(&names);
}
