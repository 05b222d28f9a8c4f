//! The time at which a statement of a READ COMMITTED transaction reads that writes or locks rows, or whose scans have no snapshots of
//! their own for another reason.
//!
//! All parts of the statement have one time. Nodes keep what was there at a time for some seconds only, and a part may wait for rows for
//! longer than that. In a remote transaction a node goes on with the snapshot that it has made once. So a statement with several
//! scans has all nodes make theirs first.

use super::moment::{self, is_refusal};
use super::pool::{self, SessionRef, Stale};
use super::{Failure, Session};
use crate::catalog;
use crate::transaction;
use pg::PgError;
use pg::exec::execution::Execution;
use pg::exec::scan_io::ScanIo;
use pg::net::wait::clock;
use pg::server::transaction::Isolation;
use pg::time::Reading;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Nodes that have not been asked yet can still read at a time that is no older. They keep what was there for three seconds.
const FRESH: Duration = Duration::from_secs(1);

/// How often another time is tried if a node refuses one.
const TRIES: u32 = 7;

/// The time of one execution of a statement.
#[derive(Debug)]
pub(crate) struct StatementTime {
    execution: Execution,
    at: Cell<Option<Reading>>,
    since: Cell<Duration>,
    /// All nodes have been asked to keep it.
    is_kept: Cell<bool>,
}

thread_local! {
    static KNOWN: RefCell<Vec<Weak<StatementTime>>> = const { RefCell::new(Vec::new()) };
}

impl StatementTime {
    /// That of the execution to which a scan belongs. The sessions to the nodes are open: a node tells its clock then.
    pub(crate) fn of(io: &ScanIo) -> Rc<Self> {
        let execution = io.execution();
        KNOWN.with_borrow_mut(|known| {
            known.retain(|time| time.strong_count() > 0);
            let found = known.iter().filter_map(Weak::upgrade);
            if let Some(time) = found.into_iter().find(|time| time.execution == execution) {
                return time;
            }
            let time = Rc::new(Self {
                execution,
                at: Cell::new(moment::of_statement()),
                since: Cell::new(clock()),
                is_kept: Cell::new(false),
            });
            known.push(Rc::downgrade(&time));
            time
        })
    }

    /// The time itself; none if statements have none.
    pub(crate) fn reading(&self) -> Option<Reading> {
        self.at.get()
    }

    /// All nodes have been asked to keep it: parts of the statement read at it that do not know of each other.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept.get()
    }

    /// Nothing has been read at it that another time would contradict: the next part reads at a later one.
    pub(crate) fn choose_again(&self, refusals: u32) {
        moment::read_later(refusals);
        self.at.set(moment::of_statement());
        self.since.set(clock());
    }

    /// Has the session's next statement read at the time, if the node keeps times.
    pub(crate) fn prepare(&self, session: &mut Session) {
        session.times.next = self.at.get().filter(|_| session.can_read_at());
    }

    /// The same for a placement that follows another one, whose rows are locked by now: nobody changes them. It reads as it is if the
    /// time is long ago.
    pub(crate) fn prepare_follower(&self, session: &mut Session) {
        let at = self.at.get().map(|at| at.at);
        if clock().saturating_sub(self.since.get()) < FRESH || session.times.kept == at {
            self.prepare(session);
        }
    }

    /// Has all nodes with shards make their snapshots of the time, in the remote transactions of the statement.
    pub(crate) fn keep_everywhere(&self) -> Result<(), PgError> {
        if self.at.get().is_none() || self.is_kept.replace(true) {
            return Ok(());
        }
        let nodes = catalog::nodes();
        let is_wanted = |node: &&shardmap::NodeAddress| !pool::seems_silent(node);
        pool::open_each_missing(nodes.iter().filter(is_wanted));
        for refusals in 1.. {
            let can_begin_anew = transaction::can_begin_anew();
            let outcome = nodes.iter().filter(is_wanted).try_for_each(|node| {
                match pool::session(node, Stale::IsHarmless) {
                    Ok(session) => self.send(&session),
                    // Whoever needs the node says so.
                    Err(_) => Ok(()),
                }
            });
            let outcome = outcome.and_then(|()| self.receive());
            match outcome {
                Err(error) if is_refusal(&error) && can_begin_anew && refusals < TRIES => {
                    transaction::begin_anew();
                    self.choose_again(refusals);
                }
                outcome => return outcome,
            }
        }
        Ok(())
    }

    fn send(&self, session: &SessionRef) -> Result<(), PgError> {
        super::stream::claim(session).map_err(transaction::fail)?;
        let mut session = session.borrow_mut();
        self.prepare(&mut session);
        if session.times.next.is_none() {
            return Ok(());
        }
        let sent = session.ask_for_snapshot();
        match sent {
            Err(Failure::Statement(error)) => Err(error),
            Ok(()) | Err(Failure::Lost(_)) => Ok(()),
        }
    }

    fn receive(&self) -> Result<(), PgError> {
        let at = self.at.get().map(|at| at.at);
        for session in pool::all() {
            let mut session = session.borrow_mut();
            if session.times.kept != at || !session.is_busy() {
                continue;
            }
            // A session that is lost is found to be so by whoever needs it.
            if let Err(Failure::Statement(error)) = session.finish(&mut |_| Ok(())) {
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Session {
    /// Has the node make a snapshot for the remote transaction, which begins if need be.
    fn ask_for_snapshot(&mut self) -> Result<(), Failure> {
        let arguments = protocol::Arguments::none();
        let sql = super::Sql::Once("SELECT");
        let request = super::Request { sql, types: &[], arguments: &arguments, is_plain: false };
        let level = (pg::server::transaction::nest_level(), Isolation::ReadCommitted);
        self.send(&request, Some(level))
    }
}
