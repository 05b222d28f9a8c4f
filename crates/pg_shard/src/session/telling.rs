//! What a node is told before a statement, because it has changed: role, settings, and who shares its processors.

use super::identity::{self, NOBODY};
use super::{Session, constraints, deadlock, pool};
use crate::settings;

impl Session {
    pub(super) fn queue_settings(&mut self) {
        self.queue_closing();
        self.queue_sharers();
        self.queue_holder();
        if let Some(sql) = self.standing.tell() {
            self.queue_command(&sql);
        }
    }

    /// Nodes tell by the session's name who serves whom ([`deadlock`]). A shared one has that of the backend whose transaction uses it;
    /// a statement by itself holds locks of this server only, for which only this server's backends wait. They know who has which
    /// session ([`pg::server::shared::users_of`]), so it needs only not to have another's name. One that was opened for
    /// all and could not be shared (TLS) gets its backend's.
    fn queue_holder(&mut self) {
        let myself = identity::myself();
        let holder = self.standing.holder;
        if holder == myself {
            return;
        }
        let needs_name = self.lease.is_none() || self.depth > 0 || pool::any_in_transaction();
        if holder == NOBODY && !needs_name {
            return;
        }
        let name = settings::application_name();
        let (name, holder) = match needs_name {
            true => (deadlock::identity().application(&name), myself),
            false => (name, NOBODY),
        };
        self.queue_command(&format!("SELECT {}", identity::set_config("application_name", &name)));
        self.standing.holder = holder;
        (self.standing.is_local, self.standing.is_holder_local) = (true, true);
    }

    /// Nodes of one host share its processors: each takes its part of the parallel workers that it may have.
    fn queue_sharers(&mut self) {
        let wanted = std::mem::replace(&mut self.sharers, 1);
        if self.known_sharers == Some(wanted) {
            return;
        }
        self.queue_command("RESET max_parallel_workers_per_gather");
        if wanted > 1 {
            let name = "max_parallel_workers_per_gather";
            self.queue_command(&format!(
                "SELECT pg_catalog.set_config('{name}', \
                 (pg_catalog.current_setting('{name}')::int4 / {wanted})::text, false)"
            ));
        }
        (self.known_sharers, self.standing.is_local) = (Some(wanted), true);
    }

    /// What the client's SET CONSTRAINTS have said, once for each remote transaction.
    pub(super) fn queue_constraints(&mut self) {
        if self.standing.knows_constraints || self.depth == 0 {
            return;
        }
        self.standing.knows_constraints = true;
        for sql in constraints::for_node(&self.node) {
            self.queue_command(&sql);
        }
    }

    /// Settings made in a transaction that was rolled back are gone.
    pub(crate) fn forget_settings(&mut self) {
        self.standing.forget();
        self.known_sharers = None;
    }
}
