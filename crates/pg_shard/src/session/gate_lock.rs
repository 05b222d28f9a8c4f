//! How a session goes through its node's gate ([`super::gate`]).

use super::gate::{self, Gate};
use super::{Command, Expect, Failure, Session};
use pg::server::settings;
use pg::server::transaction::Isolation;
use protocol::{Arguments, StatementName};

impl Session {
    /// The node has a gate. What it has it keeps, so that only a no is asked for again.
    pub(super) fn has_gate(&mut self) -> Result<bool, Failure> {
        if !self.knows_gate {
            let mut found = false;
            let question = "SELECT 1 WHERE pg_catalog.to_regclass('pgs_catalog.serializable_gate') IS NOT NULL";
            self.run(question, None, &mut |_| {
                found = true;
                Ok(())
            })?;
            self.knows_gate = found;
        }
        Ok(self.knows_gate)
    }

    /// Behind BEGIN.
    pub(super) fn queue_gate(&mut self, isolation: Isolation) {
        if isolation != Isolation::Serializable {
            self.gate = Gate::None;
            return;
        }
        // Other settings are told behind it, since a query would take the snapshot.
        let patience = settings::lock_timeout();
        if patience > 0 {
            self.queue_command(&format!("SET LOCAL lock_timeout = {patience}"));
        }
        let is_alone = gate::uses_several();
        self.gate = if is_alone { Gate::Alone(1) } else { Gate::Shared };
        let command = Command::Gate { is_alone };
        let found = self.statements.find_command(command);
        let name = StatementName::Numbered(found.number);
        if found.is_new {
            self.link.flight().parse(name, &command.sql(), &[]);
            self.expects.push_back(Expect::Prepare(command.key()));
        }
        self.link.flight().execute(name, &Arguments::none());
        self.expects.push_back(Expect::Preliminary);
    }

    /// The remote transaction has gone through the gate.
    pub(super) fn is_inside(&self) -> bool {
        self.depth > 0 && self.gate != Gate::None
    }

    /// Waits until the transaction has the gate alone.
    pub(super) fn have_gate_alone(&mut self) -> Result<(), Failure> {
        if self.gate == Gate::Shared {
            self.run(&Command::Gate { is_alone: true }.sql(), None, &mut |_| Ok(()))?;
            self.gate = Gate::Alone(self.depth);
        }
        Ok(())
    }

    /// The savepoint of this depth has been rolled back, and with it the locks that were taken since.
    pub(crate) fn forget_gate_of(&mut self, depth: u32) {
        if matches!(self.gate, Gate::Alone(since) if since >= depth) {
            self.gate = Gate::Shared;
        }
    }

    /// The savepoint of this depth has been released.
    pub(crate) fn keep_gate_of(&mut self, depth: u32) {
        if let Gate::Alone(since) = &mut self.gate {
            *since = (*since).min(depth - 1);
        }
    }
}
