//! What a node is told before a statement, because it has changed: role, settings, and who shares its processors.

use super::{Session, constraints};

impl Session {
    pub(super) fn queue_settings(&mut self) {
        self.queue_closing();
        self.queue_sharers();
        if let Some(sql) = self.standing.tell() {
            self.queue_command(&sql);
        }
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
