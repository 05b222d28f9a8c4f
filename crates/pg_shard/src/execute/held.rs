//! Cursors that lock rows: PostgreSQL finds the rows by the snapshot of DECLARE, and locks each when it is fetched, as it has become by
//! then.
//!
//! The nodes do the same if the statement is bound to a portal when the cursor is opened, and the portal is executed when the first
//! row is wanted. The portal belongs to the remote transaction and to its savepoint, as the cursor does to the local one. Other
//! statements may use the session meanwhile. What the node has not executed by the end is closed with the session's next flight,
//! because an open portal would be in the way of changes of the table's definition.

use super::node_read::{NodeRead, lost_in_the_middle};
use super::read::{Read, State};
use crate::session::Failure;
use crate::session::pool::{self, Stale};
use crate::session::stream::Stream;
use crate::transaction;
use pg::PgError;
use pg::exec::scan_io::ScanIo;
use pg::sys::plan::Plan;
use std::rc::Rc;

impl Read {
    /// The statement locks rows for a cursor that was opened and not fetched from.
    pub(super) fn is_held(&self) -> bool {
        self.is_early && self.locks()
    }

    /// The rows are locked for a write of the same statement.
    pub(super) fn is_for_a_write(&self) -> bool {
        matches!(&self.compiled.plan, Plan::ShardScan(plan) if plan.is_target)
    }

    /// The nodes have bound the statement, with the same arguments as it would have now.
    pub(super) fn is_held_still(&self, changed: bool) -> bool {
        matches!(self.state, State::Held(_)) && !changed
    }

    /// Has the nodes execute what they have bound.
    pub(super) fn run_held(&mut self, io: &mut ScanIo) -> Result<(), PgError> {
        if !matches!(self.state, State::Held(_)) {
            return Ok(());
        }
        let State::Held(mut reads) = std::mem::replace(&mut self.state, State::Finished) else {
            return Ok(());
        };
        for read in &mut reads {
            self.run_portal(io, read)?;
        }
        self.state = self.reading(io, reads);
        Ok(())
    }

    fn run_portal(&self, io: &ScanIo, read: &mut NodeRead) -> Result<(), PgError> {
        let Some(portal) = read.portal.take() else { return Ok(()) };
        let found =
            pool::acting_as(self.user(), || pool::session_of(&read.node, Stale::IsHarmless, None));
        // The session's successor knows nothing of the portal.
        let session = found
            .ok()
            .filter(|found| Rc::ptr_eq(found, &read.session))
            .ok_or_else(|| lost_in_the_middle(&read.node, None))?;
        let sent = session.borrow_mut().run_portal(portal, Some(transaction::level_for_write()));
        match sent {
            Ok(()) => {}
            Err(Failure::Lost(error)) => return Err(lost_in_the_middle(&read.node, Some(&error))),
            Err(Failure::Statement(error)) => return Err(error),
        }
        let rows = read.head.as_ref().map_or_else(|| io.rows(), |it| Rc::clone(it.store()));
        read.stream = Stream::attach(&session, rows);
        Ok(())
    }
}

impl NodeRead {
    /// The node's portal is not going to be executed.
    pub(super) fn close_portal(&self) {
        if let (Some(portal), Ok(mut session)) = (self.portal, self.session.try_borrow_mut()) {
            session.close_portal_soon(portal);
        }
    }
}
