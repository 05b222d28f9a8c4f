//! When a scan reads, if its statement has no snapshots of the nodes, and what is done if a node cannot read at that time.

use super::assignment::assign;
use super::read::{Read, State};
use crate::catalog::DistributedTable;
use crate::session::moment;
use crate::session::pool::{self, SessionRef};
use crate::session::snapshot::Shared;
use crate::session::statement_time::StatementTime;
use crate::transaction;
use dispatch::read::AtOneTime;
use pg::PgError;
use pg::exec::scan_io::ScanIo;
use pg::server::transaction::Isolation;
use pg::sys::plan::Plan;
use pg::time::Reading;
use std::rc::Rc;

/// The time of a scan, if it has one.
pub(super) type ReadTime = Option<Rc<StatementTime>>;

/// The error as the client gets it.
pub(super) fn explained(error: PgError) -> PgError {
    moment::explain(error)
}

impl Read {
    /// Chooses the time of a scan that asks several nodes, or takes the one that its statement has. A node tells its clock to a new
    /// session.
    pub(super) fn choose_time(
        &mut self,
        io: &mut ScanIo,
        tables: &[Rc<DistributedTable>],
        shards: &[usize],
    ) -> Result<(), PgError> {
        self.time = None;
        if self.locks() {
            // Sub-queries that it is computed with may write: before it begins, since what it does is undone if it is begun anew.
            drop(io.arguments(shards));
        }
        let has_none = self.shared().is_some() || self.is_read_anew();
        if has_none || shards.is_empty() || !moment::is_wanted() {
            return Ok(());
        }
        let is_one_of_several =
            matches!(self.compiled.plan, Plan::ShardScan(_)) && io.has_several_scans();
        if !is_one_of_several && !tables[0].spreads(shards) {
            return Ok(());
        }
        self.is_first = transaction::can_begin_anew();
        pool::acting_as(self.user(), || {
            if let Ok(parts) = assign(tables, shards, &[], &pool::avoided()) {
                pool::open_each_missing(parts.iter().map(|it| &it.0));
            }
            let time = StatementTime::of(io);
            if is_one_of_several {
                time.keep_everywhere()?;
            }
            self.time = Some(time);
            Ok(())
        })
    }

    /// The time that was chosen.
    pub(super) fn own_time(&self) -> Option<Reading> {
        self.time.as_ref().and_then(|time| time.reading())
    }

    /// Has the session's next statement read at the time that holds for all nodes, unless its remote transaction does so.
    pub(super) fn read_at_time(&self, session: &SessionRef) {
        let mut session = session.borrow_mut();
        session.times.next = None;
        if session.snapshot.is_some()
            || pg::server::transaction::isolation_level() != Isolation::ReadCommitted
        {
            return;
        }
        match (self.shared(), &self.time) {
            (Some(shared), _) => {
                session.times.next = Shared::time(shared).filter(|_| session.can_read_at());
            }
            (None, Some(time)) => time.prepare(&mut session),
            (None, None) => {}
        }
    }

    /// The error says that a node cannot read at the time, and nothing has been read yet that another time would contradict.
    pub(super) fn may_begin_anew(&mut self, error: &PgError) -> bool {
        let at = self.own_time();
        if !moment::is_avoidable(error, at) {
            return false;
        }
        let read = AtOneTime {
            has_time: at.is_some(),
            is_kept: self.time.as_ref().is_some_and(|time| time.is_kept()),
            has_yielded: self.has_yielded,
            is_settled: self.is_settled(),
            can_be_undone: self.is_first && self.locks(),
        };
        self.times.on_refused(read, transaction::is_untouched)
    }

    /// Lets the next row come from a read of a later time.
    pub(super) fn begin_anew(&mut self, io: &mut ScanIo) {
        self.stop(true);
        if self.locks() {
            transaction::begin_anew();
        }
        io.rows().borrow_mut().clear();
        self.state = State::Ready;
        if let Some(time) = &self.time {
            time.choose_again(self.times.refused());
        }
    }
}
