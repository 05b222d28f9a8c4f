//! A statement's rows on their way in, and what happens when somebody else needs the session first.
//!
//! A session carries one statement at a time, but PostgreSQL's plans interleave scans, and cursors stay open
//! while other statements run. Whoever wants a session that still delivers rows has the rest of them spilled
//! into the reader's own store: memory stays bounded, nothing deadlocks, and every statement of a transaction
//! still runs in the node's one session. A reader whose query an error has ended, in a sub-transaction or a block of
//! PL/pgSQL, has no store any more: then the rest is thrown away.

use super::ending::{PATIENCE, run_all, stop_all};
use super::pool::SessionRef;
use super::{Event, Failure, Session};
use pg::exec::rows::RowStore;
use std::cell::{RefCell, RefMut};
use std::rc::Rc;

/// What a reader and its session share.
#[derive(Debug, Default)]
pub(crate) struct StreamState {
    /// No more rows will come over the session.
    pub(crate) done: bool,
    /// Rows were handed on or kept: another placement cannot take over any more.
    pub(crate) started: bool,
    /// Spilling failed; the reader is to raise this.
    pub(crate) failure: Option<Failure>,
    /// The reader is gone, and the store with it: an error has ended its query.
    pub(crate) unwanted: bool,
}

/// A statement's rows.
#[derive(Clone)]
pub(crate) struct Stream {
    /// Shared with the session.
    pub(crate) state: Rc<RefCell<StreamState>>,
    rows: Rc<RefCell<RowStore>>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.state.borrow().fmt(f)
    }
}

impl Stream {
    /// Makes the session's current statement a stream into `rows`.
    pub(crate) fn attach(session: &SessionRef, rows: Rc<RefCell<RowStore>>) -> Self {
        let stream = Self { state: Rc::default(), rows };
        session.borrow_mut().reader = Some(stream.clone());
        stream
    }
}

/// Frees a session: the rest of its reader's rows go into the reader's store.
///
/// # Errors
///
/// Only what makes the session unusable for anybody; the reader's own failure is kept for the reader.
pub(crate) fn claim(session: &SessionRef) -> Result<(), Failure> {
    let Some(reader) = session.borrow_mut().reader.take() else { return Ok(()) };
    if reader.state.borrow().done {
        return Ok(());
    }
    let mut session = session.borrow_mut();
    if reader.state.borrow().unwanted {
        return throw_away(&mut session);
    }
    loop {
        match session.poll() {
            Ok(Event::Row(row)) => {
                reader.state.borrow_mut().started = true;
                if let Err(error) = reader.rows.borrow_mut().keep(session.row(&row)) {
                    reader.state.borrow_mut().failure = Some(Failure::Statement(error));
                }
            }
            Ok(Event::Wait) => {
                if let Err(failure) = session.wait() {
                    let mut state = reader.state.borrow_mut();
                    state.done = true;
                    state.failure = Some(failure);
                    return Ok(());
                }
            }
            Ok(Event::Done(_)) => {
                reader.state.borrow_mut().done = true;
                return Ok(());
            }
            Err(failure) => {
                let mut state = reader.state.borrow_mut();
                state.done = true;
                state.failure = Some(failure);
                return Ok(());
            }
        }
    }
}

/// Nobody wants the rest any more.
fn throw_away(session: &mut Session) -> Result<(), Failure> {
    if session.depth > 0 {
        // A cancel would abort the remote transaction.
        return match session.finish(&mut |_| Ok(())) {
            Err(failure @ Failure::Lost(_)) => Err(failure),
            Ok(_) | Err(Failure::Statement(_)) => Ok(()),
        };
    }
    // If that fails the session is broken, which who has claimed it will find.
    session.stop(PATIENCE);
    Ok(())
}

/// Stops what is under way on all of them, which nobody wants any more.
pub(crate) fn stop_together(busy: &[SessionRef]) {
    if busy.is_empty() {
        return;
    }
    let mut open: Vec<RefMut<'_, Session>> =
        busy.iter().filter_map(|session| session.try_borrow_mut().ok()).collect();
    stop_all(&mut open, PATIENCE);
    // Whoever ends a snapshot ends its transaction too.
    open.retain(|session| session.is_usable() && session.depth > 0 && session.snapshot.is_none());
    run_all(&mut open, &["ROLLBACK".to_owned()]);
    for session in &mut open {
        session.depth = 0;
    }
}
