//! What a session says and is told when several nodes commit: which part its node can take, what shows that its transaction
//! has committed, and the commands that end it.

use super::{Command, Expect, Failure, Session, StatementName};
use ::commit::{Evidence, State};
use pg::time::When;
use pg::{PgError, SqlState};
use protocol::{Arguments, Ending};

impl Session {
    /// Has the remote transaction write evidence in the flight that goes out next; false if the node cannot.
    pub(crate) fn want_evidence(&mut self) -> bool {
        self.wants_evidence = self.about.can_anchor;
        self.about.can_anchor
    }

    pub(super) fn queue_evidence(&mut self) {
        if !std::mem::take(&mut self.wants_evidence) {
            return;
        }
        let command = Command::Evidence;
        let found = self.statements.find_command(command);
        let name = StatementName::Numbered(found.number);
        if found.is_new {
            self.link.flight().parse(name, &command.sql(), &[]);
            self.expects.push_back(Expect::Prepare(command.key()));
        }
        self.link.flight().execute(name, &Arguments::none());
        self.expects.push_back(Expect::Evidence);
    }

    pub(super) fn note_evidence(&mut self, row: &str) {
        let mut fields = row.split(' ');
        let mut evidence = || {
            Some(Evidence {
                node: fields.next()?.parse().ok()?,
                transaction: fields.next()?.parse().ok()?,
                nonce: fields.next()?.parse().ok()?,
            })
        };
        self.evidence = evidence().map(|evidence| (evidence, self.depth));
    }

    /// What the remote transaction has written to show that it has committed.
    pub(crate) fn evidence(&self) -> Option<Evidence> {
        self.evidence.map(|(evidence, _)| evidence)
    }

    /// The savepoint of this depth has been rolled back, and with it what was written since.
    pub(crate) fn forget_evidence_of(&mut self, depth: u32) {
        self.evidence = self.evidence.filter(|(_, written)| *written < depth);
    }

    /// The savepoint of this depth has been released.
    pub(crate) fn keep_evidence_of(&mut self, depth: u32) {
        if let Some((_, written)) = &mut self.evidence {
            *written = (*written).min(depth - 1);
        }
    }

    /// COMMIT is complete: the transaction has failed before, without anybody having noticed, or the answer is not COMMIT's at all.
    pub(super) fn check_ending(&mut self, ending: Ending) -> Result<(), Failure> {
        match ending {
            Ending::Committed => Ok(()),
            Ending::RolledBack => {
                self.error.get_or_insert_with(|| {
                    PgError::new(
                        SqlState::IN_FAILED_SQL_TRANSACTION,
                        format!("the transaction on node \"{}\" has failed", self.node),
                    )
                    .hint("Nothing was committed. Run the transaction again.")
                });
                Ok(())
            }
            Ending::OfAnother => {
                let text =
                    format!("node \"{}\" has answered another statement than COMMIT", self.node);
                Err(self.lose(PgError::internal(text)))
            }
        }
    }

    /// Asks the node, which is the anchor's, about its transaction: first whether it is under way, then for its row.
    /// A transaction that has committed comes with when it has.
    pub(crate) fn state_of(
        &mut self,
        evidence: &Evidence,
    ) -> Result<(State, Option<When>), Failure> {
        let Evidence { transaction, nonce, .. } = evidence;
        let mut is_under_way = false;
        let status = format!("SELECT pg_catalog.pg_xact_status('{transaction}')");
        let asked = self.run(&status, None, &mut |row| {
            is_under_way = row.first_text().as_deref() == Some("in progress");
            Ok(())
        });
        match asked {
            // "is in the future": a crash has lost it.
            Err(Failure::Statement(error))
                if error.sqlstate() == SqlState::INVALID_PARAMETER_VALUE => {}
            asked => drop(asked?),
        }
        if is_under_way && self.has_begun_decision(evidence)? {
            return Ok((State::UnderWay, None));
        }
        let (mut has_row, mut when) = (false, None);
        let row = format!(
            "SELECT pgs_catalog.committed_at('{transaction}') FROM pgs_catalog.decision \
             WHERE transaction = '{transaction}' AND nonce = '{nonce}'"
        );
        self.run(&row, None, &mut |row| {
            has_row = true;
            when = row.first_text().as_deref().and_then(When::from_text);
            Ok(())
        })?;
        if let Some(when) = when {
            pg::time::acknowledge(when.time);
        }
        Ok((State::Ended { has_row }, when))
    }
}

impl Session {
    /// What is under way at the anchor is the transaction itself. A crash may have lost that; then its number is given once more, and whoever has it now
    /// may be waiting for what the lost one has left prepared.
    fn has_begun_decision(&mut self, evidence: &Evidence) -> Result<bool, Failure> {
        let Evidence { transaction, nonce, .. } = evidence;
        let mut has_begun = true;
        let question = format!("SELECT pgs_catalog.has_begun_decision('{transaction}', '{nonce}')");
        let asked = self.run(&question, None, &mut |row| {
            has_begun = row.first_text().as_deref() != Some("f");
            Ok(())
        });
        match asked {
            // The node has an older version of the extension.
            Err(Failure::Statement(error)) if error.sqlstate() == SqlState::UNDEFINED_FUNCTION => {
                Ok(true)
            }
            asked => asked.map(|_| has_begun),
        }
    }
}

/// Somebody else has ended the prepared transaction.
pub(crate) fn is_ended(error: &PgError) -> bool {
    error.sqlstate() == SqlState::UNDEFINED_OBJECT
}

/// Somebody else is ending it right now.
pub(crate) fn is_busy(error: &PgError) -> bool {
    error.sqlstate() == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
        && error.message().ends_with("is busy")
}
