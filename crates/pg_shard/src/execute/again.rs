//! A write over several shards that is executed anew, because it was the victim of a deadlock or a node refused its time.
//!
//! PostgreSQL leaves that to the client. But a statement over all shards holds rows on all nodes before it waits, and meets
//! transactions by key all the time. While nothing of its transaction existed on any node before, no other scan has rows to come, and no row was
//! sent to the client, all that the statement has done can be undone and nobody has seen it. Its parameters keep their values, those of volatile functions too.

use crate::session::moment;
use crate::session::statement_time::StatementTime;
use crate::transaction;
use pg::exec::scan_io::ScanIo;
use pg::net::wait::pause;
use pg::sys::error::catch_deadlock;
use pg::{PgError, SqlState};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// How often a statement is executed anew.
const TRIES: u32 = 10;

/// How long those whom the statement kept waiting may go on before it comes back, for the first time; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// How a statement is executed.
#[derive(Debug, Default)]
pub(super) struct Again {
    failures: Cell<u32>,
    is_refused: Cell<bool>,
    /// When it finds its rows, on all nodes. Other parts of the statement have the same time.
    time: RefCell<Option<Rc<StatementTime>>>,
}

impl Again {
    /// Executes it. None if it has to be executed anew: nothing of it is left on the nodes.
    pub(super) fn attempt<T>(
        &self,
        body: impl FnOnce() -> Result<T, PgError>,
    ) -> Result<Option<T>, PgError> {
        let may_try_again = self.failures.get() < TRIES
            && transaction::has_plain_isolation()
            && transaction::can_begin_anew();
        if !may_try_again {
            return body().map(Some).map_err(moment::explain);
        }
        match catch_deadlock(body) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                self.is_refused.set(moment::is_refusal(&error));
                if !self.is_refused.get() && error.sqlstate() != SqlState::DEADLOCK_DETECTED {
                    return Err(error);
                }
                self.failures.set(self.failures.get() + 1);
                transaction::begin_anew();
                Ok(None)
            }
        }
    }

    /// The time for the next attempt, if it is to have one. The sessions to the nodes are open.
    pub(super) fn choose_time(&self, io: &ScanIo) -> Option<Rc<StatementTime>> {
        // One that was refused is not taken again.
        self.time.take();
        let time = moment::is_wanted().then(|| StatementTime::of(io));
        self.time.replace(time.clone());
        time
    }

    /// Lets others go on first.
    pub(super) fn prepare(&self) {
        if self.is_refused.get() {
            moment::read_later(self.failures.get());
        } else {
            pause(FIRST_PAUSE * (1 << self.failures.get().min(6)));
        }
    }
}
