//! Statements in a flight, bound to portals: executed at once, or in another flight of the remote transaction.

use super::flight::Named;
use super::portal_names::name;
use super::{Expect, Failure, Request, Session};
use pg::server::transaction::Isolation;
use pg::time::Reading;

impl Session {
    /// The next statement is bound, and executed by [`Self::run_portal`].
    pub(crate) fn hold_next(&mut self) -> u64 {
        self.portals.hold_next()
    }

    /// Queues the statement without its execution.
    pub(super) fn queue_holding(&mut self, request: &Request<'_>, statement: &Named, portal: u64) {
        self.queue_preparation(request, statement);
        self.link.flight().bind_in(&name(portal), statement.name, request.arguments);
    }

    /// Queues the statement with its execution.
    pub(super) fn queue_execution(
        &mut self,
        request: &Request<'_>,
        statement: &Named,
        announces: bool,
        at: Option<Reading>,
    ) {
        self.queue_preparation(request, statement);
        let portal = at.map(|at| at.name()).unwrap_or_default();
        let flight = self.link.flight();
        flight.bind_in(&portal, statement.name, request.arguments);
        if announces {
            flight.flush();
        }
        flight.run_in(&portal);
        if at.is_some() && self.depth > 0 {
            // Outside a transaction block it ends with the statement.
            flight.close_portal(&portal);
        }
    }

    /// Has the node prepare the statement, if it does not know it.
    pub(super) fn queue_preparation(&mut self, request: &Request<'_>, statement: &Named) {
        if let Some(text) = &statement.parse {
            self.link.flight().parse(statement.name, text, request.types);
            self.expects.extend(statement.key.map(Expect::Prepare));
        }
    }

    /// Waits until the node has bound the statement that was sent last.
    pub(crate) fn wait_until_bound(&mut self) -> Result<(), Failure> {
        let outcome = self.finish(&mut |_| Ok(())).map(drop);
        self.reader = None;
        outcome
    }

    /// Has the node execute a portal to its end, and close it.
    pub(crate) fn run_portal(
        &mut self,
        portal: u64,
        level: Option<(u32, Isolation)>,
    ) -> Result<(), Failure> {
        debug_assert!(self.expects.is_empty(), "one statement at a time");
        if let Some(failure) = self.broken() {
            return Err(failure);
        }
        self.open_flight(level);
        self.queue_lending(&[]);
        let flight = self.link.flight();
        flight.run_in(&name(portal));
        flight.close_portal(&name(portal));
        self.expects.push_back(Expect::Statement);
        self.queue_giving_back();
        self.queue_sync();
        self.flush()
    }

    /// The portal is not wanted any more.
    pub(crate) fn close_portal_soon(&mut self, portal: u64) {
        if self.depth > 0 {
            self.portals.close(portal);
        }
    }

    /// Queues the end of portals that nobody wants.
    pub(super) fn queue_closing(&mut self) {
        for portal in self.portals.take_unwanted() {
            self.link.flight().close_portal(&name(portal));
        }
    }
}
