//! One snapshot of each node for a statement that reads there more than once.
//!
//! PostgreSQL computes a statement from one snapshot. A read whose plan sends a node several statements (joins made here,
//! sub-queries, scans that are done again) therefore has them executed in one remote transaction, REPEATABLE READ and READ
//! ONLY, which begins in the flight of the first. Sessions of other roles to the same node import its snapshot; so they do in
//! a client's transaction at these levels ([`share`]).
//!
//! The rule:
//!
//! * A snapshot is taken only on a session without a remote transaction: one that the client's transaction needs for its
//!   writes, or for its isolation level, is used as it is.
//! * It belongs to a snapshot of the coordinator ([`ScanIo::snapshot_place`]), and so to a statement and the STABLE functions that it
//!   calls. Whoever asks the pool for the session on other behalf (a write, a lock, another statement, also of a function
//!   that this one calls) ends it first: the reader's rows are spilled, and the remote transaction is over. If the
//!   statement then reads once more, what it reads is of another moment. So nothing is ever written in such a
//!   transaction, and no later statement sees an earlier one's snapshot, whatever cursors are open.
//! * It ends with the execution that took it. COMMIT is sent then, and its answer read when the session is used next:
//!   nobody waits for it, and the node keeps no old rows for us.
//! * A snapshot that is lost with its connection after it has answered is not replaced: the statement fails.

use super::moment;
use super::pool::{self, SessionRef, Stale};
use super::{Expect, Failure, Session, stream};
use pg::exec::execution::Execution;
use pg::exec::scan_io::ScanIo;
use pg::server::transaction::{self, Isolation};
use pg::time::Reading as ReadingTime;
use pg::{PgError, SqlState};
use shardmap::NodeAddress;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

thread_local! {
    static LAST: Cell<u64> = const { Cell::new(0) };
    /// Statements that read by snapshots now: more than one if functions are called.
    static READING: RefCell<Vec<Reading>> = const { RefCell::new(Vec::new()) };
}

/// A statement that reads by snapshots.
struct Reading {
    number: u64,
    /// The coordinator's snapshot.
    snapshot: usize,
    /// The execution that began it.
    execution: Execution,
    /// How many scans read by it.
    scans: usize,
    /// A node's snapshot was lost after it had answered.
    is_torn: bool,
    /// When it reads, on all nodes.
    at: Option<ReadingTime>,
}

/// A scan's part in its statement's snapshots.
#[derive(Debug)]
pub(crate) struct Shared {
    number: u64,
    /// The scan is one of the execution's that began it, not of a function that it calls.
    pub(crate) is_own: bool,
}

impl Shared {
    /// Joins in, if others of the statement read by snapshots already, or if the statement is to.
    pub(crate) fn join(io: &ScanIo, reads_again: impl FnOnce() -> bool) -> Option<Self> {
        READING.with_borrow_mut(|reading| {
            let (snapshot, execution) = (io.snapshot_place(), io.execution());
            if let Some(known) = reading.iter_mut().find(|known| known.snapshot == snapshot) {
                known.scans += 1;
                return Some(Self { number: known.number, is_own: known.execution == execution });
            }
            if transaction::isolation_level() != Isolation::ReadCommitted || !reads_again() {
                return None;
            }
            let number = LAST.get() + 1;
            LAST.set(number);
            reading.push(Reading {
                number,
                snapshot,
                execution,
                scans: 1,
                is_torn: false,
                at: moment::of_statement(),
            });
            Some(Self { number, is_own: true })
        })
    }

    /// The statement's number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// When the statement reads, on all nodes.
    pub(crate) fn time(&self) -> Option<ReadingTime> {
        READING.with_borrow(|reading| {
            reading.iter().find(|known| known.number == self.number).and_then(|known| known.at)
        })
    }

    /// What has been read of a node cannot be read again as it was.
    pub(crate) fn is_torn(&self) -> bool {
        READING.with_borrow(|reading| {
            reading.iter().any(|known| known.number == self.number && known.is_torn)
        })
    }

    /// Lets a session take its node's snapshot with the next statement, if it is free to do so.
    pub(crate) fn prepare(&self, session: &SessionRef) -> Result<(), Failure> {
        {
            let session = session.borrow();
            if session.depth > 0 || transaction::isolation_level() != Isolation::ReadCommitted {
                return Ok(());
            }
        }
        let at = self.time();
        if at.is_none() || !session.borrow().can_read_at() {
            import(session, &|sibling| sibling.snapshot_of() == Some(self.number))?;
        }
        session.borrow_mut().snapshot = Some(Snapshot {
            statement: self.number,
            level: transaction::nest_level(),
            has_answered: false,
            at,
        });
        Ok(())
    }
}

/// Tells the nodes with placements of shards.
type AllNodes = fn() -> Rc<[NodeAddress]>;

/// Lets a session see what those of other roles see of its node, if the client's transaction has one snapshot and is about
/// to begin there. One in a savepoint cannot export.
pub(crate) fn share(session: &SessionRef, all_nodes: AllNodes) -> Result<(), Failure> {
    if transaction::isolation_level() == Isolation::ReadCommitted || session.borrow().depth > 0 {
        return Ok(());
    }
    if moment::is_of_all_nodes() {
        begin_elsewhere(session, all_nodes);
    }
    if session.borrow().transaction_time().is_some() {
        return Ok(());
    }
    import(session, &|sibling| sibling.depth == 1 && !sibling.transaction_failed())
}

/// Begins the client's transaction on all other nodes too, as of the same time: a node does not keep what is needed for that until it
/// is asked first. One that cannot begin now may still do so when it is asked.
fn begin_elsewhere(session: &SessionRef, all_nodes: AllNodes) {
    let here = session.borrow().node.clone();
    let nodes = all_nodes();
    let is_wanted = |node: &&NodeAddress| **node != here && !pool::seems_silent(node);
    pool::open_each_missing(nodes.iter().filter(is_wanted));
    let mut begun = Vec::new();
    for node in nodes.iter().filter(is_wanted) {
        let Ok(other) = pool::session(node, Stale::IsHarmless) else { continue };
        let is_sent = {
            let mut other = other.borrow_mut();
            other.depth == 0 && other.can_read_at() && other.send_begin().is_ok()
        };
        if is_sent {
            begun.push(other);
        }
    }
    for other in begun {
        let mut other = other.borrow_mut();
        if other.finish(&mut |_| Ok(())).is_err() {
            other.roll_back_soon();
        }
    }
}

/// Has a sibling, a session of another role to the same node, export its snapshot for the next transaction of `session`.
fn import(session: &SessionRef, is_wanted: &dyn Fn(&Session) -> bool) -> Result<(), Failure> {
    let node = session.borrow().node.clone();
    let sibling = pool::all().into_iter().find(|other| {
        !Rc::ptr_eq(other, session) && {
            let other = other.borrow();
            other.node == node && other.depth > 0 && is_wanted(&other)
        }
    });
    let Some(sibling) = sibling else { return Ok(()) };
    stream::claim(&sibling)?;
    let mut name = None;
    sibling.borrow_mut().run("SELECT pg_catalog.pg_export_snapshot()", None, &mut |row| {
        name = row.first_text();
        Ok(())
    })?;
    let begun = sibling.borrow().age.begun;
    let mut session = session.borrow_mut();
    (session.imported, session.imported_age) = (name, Some(begun));
    Ok(())
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Also when an error has ended the query. Then whoever ends the (sub)transaction has ended the remote one too.
        READING.with_borrow_mut(|reading| {
            if let Some(at) = reading.iter().position(|known| known.number == self.number) {
                reading[at].scans -= 1;
                if reading[at].scans == 0 {
                    reading.swap_remove(at);
                }
            }
        });
    }
}

/// A scan needs its statement's snapshots no more; the last one ends them.
pub(crate) fn leave(shared: Shared) {
    let number = shared.number;
    drop(shared);
    if READING.with_borrow(|reading| reading.iter().any(|known| known.number == number)) {
        return;
    }
    for session in pool::all() {
        let Ok(mut session) = session.try_borrow_mut() else { continue };
        if session.snapshot_of() == Some(number) && !session.is_busy() {
            session.end_snapshot();
        }
    }
}

/// The remote transaction of a session is there for a snapshot.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Whose, by its number.
    statement: u64,
    /// The level of the local (sub)transaction in which it was taken.
    pub(crate) level: u32,
    /// Something has been read by it.
    pub(crate) has_answered: bool,
    /// When it is to be of.
    pub(super) at: Option<ReadingTime>,
}

impl Snapshot {
    /// It went with its connection.
    pub(super) fn lose(self) {
        if self.has_answered {
            READING.with_borrow_mut(|reading| {
                if let Some(known) = reading.iter_mut().find(|it| it.number == self.statement) {
                    known.is_torn = true;
                }
            });
        }
    }
}

impl Session {
    /// The statement by whose snapshot the session reads.
    pub(crate) fn snapshot_of(&self) -> Option<u64> {
        self.snapshot.as_ref().map(|known| known.statement)
    }

    /// Begins the client's transaction here, without a statement.
    fn send_begin(&mut self) -> Result<(), Failure> {
        if let Some(failure) = self.broken() {
            return Err(failure);
        }
        self.error = None;
        self.queue_transaction(transaction::nest_level(), transaction::isolation_level());
        self.queue_sync();
        self.flush()
    }

    /// Something of the statement that is under way has come.
    pub(super) fn note_answer(&mut self) {
        self.has_answered |= self.depth > 0;
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.has_answered = true;
        }
    }

    /// Ends the remote transaction of a snapshot without waiting for the answer.
    pub(crate) fn end_snapshot(&mut self) {
        let began = self.depth > 0;
        self.left_transaction();
        if !began || !self.is_usable() {
            return;
        }
        let has_failed = self.transaction_failed();
        if has_failed {
            self.forget_settings();
        }
        self.end_soon(if has_failed { "ROLLBACK" } else { "COMMIT" });
        // A session that breaks here is replaced when it is needed next.
        let _ = self.flush();
    }

    /// Rolls the remote transaction back without waiting for the answer.
    pub(crate) fn roll_back_soon(&mut self) {
        let began = self.depth > 0;
        self.left_transaction();
        if began && self.is_usable() {
            self.end_soon("ROLLBACK");
            if self.standing.is_local {
                // Outside a transaction, so that the next one that is rolled back leaves them as they are.
                self.forget_settings();
                self.queue_settings();
                self.queue_sync();
            }
            // A session that breaks here is replaced when it is needed next.
            let _ = self.flush();
        }
    }

    fn end_soon(&mut self, command: &str) {
        self.error = None;
        self.link.flight().query(command);
        self.expects.extend([Expect::Statement, Expect::Sync]);
        self.is_ending = true;
    }

    /// Reads the answer to [`Self::end_snapshot`] or [`Self::roll_back_soon`].
    pub(crate) fn settle_end(&mut self) {
        if !self.is_ending {
            return;
        }
        let outcome = self.finish(&mut |_| Ok(()));
        self.is_ending = false;
        if outcome.is_err() && self.is_usable() {
            self.give_up(PgError::new(
                SqlState::CONNECTION_FAILURE,
                "the node did not end a transaction",
            ));
        }
    }

    /// Makes the session free for whoever reads by the snapshots of `statement`, if it is not so already.
    pub(super) fn leave_other_snapshot(&mut self, statement: Option<u64>) {
        (self.imported, self.imported_age) = (None, None);
        if self.snapshot.is_some()
            && (self.snapshot_of() != statement || self.depth == 0 || self.transaction_failed())
        {
            self.end_snapshot();
            self.settle_end();
        }
    }
}
