//! What a flight consists of: how the node knows its statements, and what goes before them.

use super::{Failure, Request, Session, Sql, StatementKey};
use crate::settings;
use pg::server::transaction::Isolation;
use pg::{PgError, SqlState};
use protocol::StatementName;

/// How the node knows a statement of a flight.
pub(super) struct Named {
    pub(super) name: StatementName,
    /// The text, if the node has to prepare it.
    pub(super) parse: Option<String>,
    /// The key of a statement that is kept from now on.
    pub(super) key: Option<StatementKey>,
}

impl Session {
    /// Finds out how the node knows a flight's statements, and makes the texts of those that it has to prepare.
    ///
    /// All of that happens before anything is queued: no statement of the flight is closed to make room for another.
    pub(super) fn name_statements(
        &mut self,
        requests: &[Request<'_>],
    ) -> Result<Vec<Named>, Failure> {
        debug_assert!(self.expects.is_empty(), "one statement at a time");
        if let Some(failure) = self.broken() {
            return Err(failure);
        }
        self.statements.begin_flight();
        self.is_private |=
            !requests.iter().all(|request| request.is_plain) || self.standing.is_lent();
        let mut named: Vec<Named> = Vec::with_capacity(requests.len());
        for request in requests {
            match self.name_statement(request) {
                Ok(statement) => named.push(statement),
                Err(error) => {
                    // Nothing is sent: what was to be prepared is not.
                    let new = named.iter().filter_map(|statement| statement.key);
                    new.for_each(|key| self.statements.forget(key));
                    return Err(Failure::Statement(error));
                }
            }
        }
        self.statements.trim(settings::max_prepared_statements(), requests.len());
        Ok(named)
    }

    fn name_statement(&mut self, request: &Request<'_>) -> Result<Named, PgError> {
        let is_logged = settings::log_distributed_statements();
        let (name, text, key) = match &request.sql {
            Sql::Once(sql) => (StatementName::Unnamed, Some((*sql).to_owned()), None),
            Sql::Again => (StatementName::Unnamed, None, None),
            Sql::Spooled(key, render) => {
                let (found, text) = self.statements.find(*key, request.types, is_logged, render)?;
                (StatementName::Numbered(found.number), text, found.is_new.then_some(*key))
            }
        };
        if is_logged && let Some(sql) = &text {
            pg::sys::error::log(PgError::new(
                SqlState::SUCCESSFUL_COMPLETION,
                format!("distributed statement: {sql}"),
            ));
        }
        let is_prepared = key.is_none() && !matches!(request.sql, Sql::Once(_));
        Ok(Named { name, parse: text.filter(|_| !is_prepared), key })
    }

    /// Queues what goes before a flight's statements.
    pub(super) fn open_flight(&mut self, level: Option<(u32, Isolation)>) {
        self.error = None;
        self.affected = 0;
        // First of all, where no error can skip it.
        for number in self.statements.take_forgotten() {
            self.link.flight().close(StatementName::Numbered(number));
        }
        if let Some((level, isolation)) = level {
            // BEGIN first: an isolation level must be set before any query.
            self.queue_transaction(level, isolation);
        }
        self.queue_settings();
    }

    /// The error for a statement that is stored and whose rows cannot be had.
    pub(super) fn not_returned(cause: &PgError) -> PgError {
        PgError::new(cause.sqlstate(), cause.message().to_owned())
            .detail("The statement is stored; the rows that it returns could not be kept here.")
    }
}
