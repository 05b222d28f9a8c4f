//! A flight whose statements a node executes with the rights of another role: what goes before them and behind them.

use super::copy::{COPY_PIECE, EXACT_FLOATS};
use super::flight::Named;
use super::request::{BEGIN_ACTING, END_ACTING};
use super::{Expect, Failure, Session, StatementName};
use protocol::Arguments;
use std::ffi::CStr;

/// PostgreSQL's type text.
const TEXT: u32 = 25;

impl Session {
    /// Has the node act as the role whose rights are lent, if there is one, while it executes what follows.
    pub(super) fn queue_lending(&mut self, statements: &[Named]) {
        let numbers = statements.iter().filter_map(|statement| match statement.name {
            StatementName::Numbered(number) => Some(number),
            StatementName::Unnamed => None,
        });
        let Some(instruction) = self.standing.instruction(numbers) else { return };
        self.queue_own(BEGIN_ACTING, &[TEXT], &one(&instruction));
    }

    /// Ends it.
    pub(super) fn queue_giving_back(&mut self) {
        if self.standing.is_lent() {
            self.queue_own(END_ACTING, &[], &Arguments::none());
        }
    }

    /// Queues a command that no function in the session can have replaced: the node does not keep it prepared.
    fn queue_own(&mut self, command: &CStr, types: &[u32], arguments: &Arguments) {
        self.link.flight().parse(StatementName::Unnamed, &command.to_string_lossy(), types);
        self.link.flight().execute(StatementName::Unnamed, arguments);
        self.expects.push_back(Expect::Preliminary);
    }

    /// Queues a text, and before and behind it what has the node act as the role whose rights are lent; `data` belong to the
    /// text. False if none are lent.
    pub(super) fn queue_lent_copy(&mut self, sql: &str, data: Option<&[u8]>) -> bool {
        let Some(instruction) = self.standing.instruction(std::iter::empty()) else { return false };
        let flight = self.link.flight();
        flight.parse(StatementName::Unnamed, &BEGIN_ACTING.to_string_lossy(), &[TEXT]);
        flight.execute(StatementName::Unnamed, &one(&instruction));
        if data.is_none() {
            flight.parse(StatementName::Unnamed, EXACT_FLOATS, &[]);
            flight.execute(StatementName::Unnamed, &Arguments::none());
        }
        flight.parse(StatementName::Unnamed, sql, &[]);
        flight.execute(StatementName::Unnamed, &Arguments::none());
        if let Some(data) = data {
            for piece in data.chunks(COPY_PIECE) {
                flight.copy_data(piece);
            }
            flight.copy_done();
        }
        flight.parse(StatementName::Unnamed, &END_ACTING.to_string_lossy(), &[]);
        flight.execute(StatementName::Unnamed, &Arguments::none());
        flight.sync();
        true
    }

    /// Finds out whether the node can be lent rights in this session: it is asked once.
    pub(super) fn can_be_lent(&mut self) -> Result<bool, Failure> {
        if let Some(can) = self.standing.can_be_lent() {
            return Ok(can);
        }
        let mut has_functions = false;
        let question = "SELECT pg_catalog.to_regprocedure('pgs_catalog.begin_acting(pg_catalog.text)') IS NOT NULL";
        self.run(question, None, &mut |row| {
            has_functions = row.first_text().as_deref() == Some("t");
            Ok(())
        })?;
        let mut number = None;
        if has_functions {
            self.run("SELECT pgs_catalog.lending_session()", None, &mut |row| {
                number = row.first_text().and_then(|text| text.parse().ok());
                Ok(())
            })?;
        }
        self.standing.note_session(number);
        Ok(number.is_some())
    }
}

fn one(text: &str) -> Arguments {
    let mut arguments = Arguments::start(std::iter::once(false));
    arguments.value(text.as_bytes());
    arguments.finish(&[]);
    arguments
}
