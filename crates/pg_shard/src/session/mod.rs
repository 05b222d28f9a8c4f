//! Sessions: one libpq connection per node and user, kept for the life of the backend.
//!
//! A session carries one statement at a time. Everything that a statement needs before it (settings that
//! changed, BEGIN, savepoints, the preparation) travels in the same flight, so that it costs one round trip.
//! Rows come one by one and are read when the executor wants them; if somebody else needs the session first,
//! the reader's rest is spilled ([`stream`]).
//!
//! Failures are of two kinds: the node said no ([`Failure::Statement`], the user's error), or the connection
//! broke ([`Failure::Lost`], and nobody knows what the node did).

/// Which sessions there are.
pub(crate) mod pool;

/// A statement's rows on their way in.
pub(crate) mod stream;

use crate::settings;
use pg::libpq::{Connection, CopyPiece, Opening, Parameter, ResultKind, ResultSet};
use pg::table::{self, OutputSettings};
use pg::transaction::Isolation;
use pg::wait::{Readiness, WaitSet, clock, wait_for};
use pg::{PgError, SqlState};
use shardmap::NodeAddress;
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::time::Duration;
use stream::Stream;

/// Why a session could not do what it was asked.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The connection broke; the outcome is unknown.
    Lost(PgError),
    /// The node answered with an error.
    Statement(PgError),
}

/// Why there is no session.
#[derive(Clone, Debug)]
pub(crate) enum NoSession {
    /// Nobody answers there, or the server is starting up or shutting down.
    Unreachable(PgError),
    /// A healthy server refused us: rights, database, connection limit.
    Refused(PgError),
}

/// A statement for a node.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The SQL.
    pub(crate) sql: String,
    /// Types of the parameters; 0 leaves one to the node.
    pub(crate) types: Vec<u32>,
    /// The parameters.
    pub(crate) parameters: Vec<Parameter>,
    /// Rows come in binary.
    pub(crate) binary: bool,
}

impl Request {
    /// SQL without parameters.
    pub(crate) fn plain(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), types: Vec::new(), parameters: Vec::new(), binary: false }
    }
}

/// What comes next from a session.
pub(crate) enum Event {
    /// One or several rows.
    Rows(ResultSet),
    /// Nothing yet.
    Wait,
    /// The statement is done and concerned that many rows.
    Done(u64),
}

/// What a flight's next results belong to.
#[derive(Debug)]
enum Expect {
    /// BEGIN, SAVEPOINT, settings.
    Preliminary,
    /// The preparation of the statement named.
    Prepare(Option<u64>),
    /// The statement itself.
    Statement,
    /// The end.
    Sync,
}

/// Where a COPY on a session stands.
#[derive(Debug)]
enum Copying {
    /// There is none.
    No,
    /// Data are being sent or received.
    Moving,
    /// All data are sent; the node is storing them.
    Storing,
    /// Somebody else needed the session and waited for the end; this is what the node said.
    Ended(Result<(), Failure>),
}

/// A connection to a node.
#[derive(Debug)]
pub(crate) struct Session {
    /// The node.
    pub(crate) node: NodeAddress,
    connection: Connection,
    wait: WaitSet,
    /// 0 outside a remote transaction, 1 inside, one more for each savepoint.
    pub(crate) depth: u32,
    /// The remote transaction has changed something or holds locks that matter.
    pub(crate) wrote: bool,
    /// Nothing has been asked yet, or an answer has come: a failure now is not a stale connection.
    pub(crate) proven: bool,
    broken: bool,
    /// Why it broke: whoever asks again is told the same.
    lost: Option<PgError>,
    settings: Option<OutputSettings>,
    statements: HashMap<String, u64>,
    next_statement: u64,
    expects: VecDeque<Expect>,
    error: Option<PgError>,
    affected: u64,
    one_by_one: bool,
    copy: Copying,
    /// Whoever reads rows right now.
    pub(crate) reader: Option<Stream>,
}

/// Prepared statements that a session keeps before it starts over.
const MOST_STATEMENTS: usize = 1000;

impl Session {
    /// Opens a session; two attempts, as pg_shard 1.2 makes.
    pub(crate) fn open(node: &NodeAddress) -> Result<Self, NoSession> {
        match Self::open_once(node) {
            Err(NoSession::Unreachable(_)) => Self::open_once(node),
            outcome => outcome,
        }
    }

    fn open_once(node: &NodeAddress) -> Result<Self, NoSession> {
        let connection = connect(node)?;
        let wait = WaitSet::new(&[(connection.socket(), Readiness::Readable)]);
        let mut session = Self {
            node: node.clone(),
            connection,
            wait,
            depth: 0,
            wrote: false,
            proven: true,
            broken: false,
            lost: None,
            settings: None,
            statements: HashMap::new(),
            next_statement: 0,
            expects: VecDeque::new(),
            error: None,
            affected: 0,
            one_by_one: false,
            copy: Copying::No,
            reader: None,
        };
        session.introduce().map_err(|failure| match failure {
            Failure::Lost(error) => NoSession::Unreachable(error),
            Failure::Statement(error) => NoSession::Refused(error),
        })?;
        Ok(session)
    }

    /// Settings that never change, then pipeline mode for good.
    fn introduce(&mut self) -> Result<(), Failure> {
        self.run_simple(
            "SET search_path = pg_catalog; SET extra_float_digits = 3; SET standard_conforming_strings = on; \
             SET client_connection_check_interval = '2s'; SET statement_timeout = 0; SET lock_timeout = 0; \
             SET idle_in_transaction_session_timeout = 0",
        )?;
        self.connection.set_pipeline(true).map_err(Failure::Lost)
    }

    /// Nothing is under way and the connection is good, as far as can be known without asking.
    pub(crate) fn is_usable(&self) -> bool {
        !self.broken && !self.connection.is_bad()
    }

    /// Idle, and the server has hung up.
    pub(crate) fn is_stale(&self) -> bool {
        !self.is_busy() && self.depth == 0 && self.connection.is_stale()
    }

    /// Nothing is under way, in a transaction or not, and the server has hung up.
    pub(crate) fn has_hung_up(&self) -> bool {
        !self.is_usable() || !self.is_busy() && self.connection.is_stale()
    }

    /// The remote transaction has failed: the node will only roll it back.
    pub(crate) fn transaction_failed(&self) -> bool {
        self.connection.transaction_failed() == Some(true)
    }

    /// Gives the session up.
    pub(crate) fn give_up(&mut self, error: PgError) {
        // Whoever asks is told by `poll`.
        let _ = self.lose(error);
    }

    /// A statement or a COPY is under way.
    pub(crate) fn is_busy(&self) -> bool {
        !self.expects.is_empty() || !matches!(self.copy, Copying::No)
    }

    /// The connection's socket.
    pub(crate) fn socket(&self) -> i32 {
        self.connection.socket()
    }

    fn lose(&mut self, error: PgError) -> Failure {
        self.broken = true;
        self.expects.clear();
        self.depth = 0;
        self.lost.get_or_insert_with(|| error.clone());
        Failure::Lost(error)
    }

    /// Sends a statement; `level` asks for a remote transaction that deep.
    pub(crate) fn send(
        &mut self,
        request: &Request,
        level: Option<(u32, Isolation)>,
    ) -> Result<(), Failure> {
        debug_assert!(self.expects.is_empty(), "one statement at a time");
        self.error = None;
        self.affected = 0;
        self.one_by_one = false;
        self.queue(request, level).map_err(|error| self.lose(error))?;
        self.flush_all()
    }

    /// Sends several statements without parameters in one flight and reads it to its end.
    pub(crate) fn execute_all(
        &mut self,
        statements: &[String],
        level: Option<(u32, Isolation)>,
    ) -> Result<(), Failure> {
        self.error = None;
        let queued = self.queue_all(statements, level);
        queued.map_err(|error| self.lose(error))?;
        self.flush_all()?;
        self.finish(&mut |_| Ok(())).map(drop)
    }

    fn queue_all(
        &mut self,
        statements: &[String],
        level: Option<(u32, Isolation)>,
    ) -> Result<(), PgError> {
        // BEGIN first: an isolation level must be set before any query.
        if let Some((level, isolation)) = level {
            self.queue_transaction(level, isolation)?;
        }
        self.queue_settings()?;
        for sql in statements {
            self.connection.send_command(&CString::new(sql.as_str())?)?;
            self.expects.push_back(Expect::Preliminary);
        }
        self.connection.send_sync()?;
        self.expects.push_back(Expect::Sync);
        Ok(())
    }

    fn queue(&mut self, request: &Request, level: Option<(u32, Isolation)>) -> Result<(), PgError> {
        // BEGIN first: an isolation level must be set before any query.
        if let Some((level, isolation)) = level {
            self.queue_transaction(level, isolation)?;
        }
        self.queue_settings()?;
        let sql = CString::new(request.sql.as_str())?;
        let name = if request.parameters.is_empty() {
            self.connection.send_prepare(c"", &sql, &request.types)?;
            self.expects.push_back(Expect::Prepare(None));
            CString::default()
        } else {
            self.queue_prepare(&request.sql, &sql, &request.types)?
        };
        self.connection.send_prepared(&name, &request.parameters, request.binary)?;
        self.expects.push_back(Expect::Statement);
        self.connection.send_sync()?;
        self.expects.push_back(Expect::Sync);
        if settings::log_distributed_statements() {
            pg::error::log(PgError::new(
                SqlState(*b"00000"),
                format!("distributed statement: {}", request.sql),
            ));
        }
        Ok(())
    }

    fn queue_prepare(&mut self, sql: &str, text: &CStr, types: &[u32]) -> Result<CString, PgError> {
        let name = |number: u64| CString::new(format!("pg_shard_{number}")).unwrap_or_default();
        if let Some(number) = self.statements.get(sql) {
            return Ok(name(*number));
        }
        if self.statements.len() >= MOST_STATEMENTS {
            self.statements.clear();
            self.connection.send_command(c"DEALLOCATE ALL")?;
            self.expects.push_back(Expect::Preliminary);
        }
        let number = self.next_statement;
        self.next_statement += 1;
        self.connection.send_prepare(&name(number), text, types)?;
        self.expects.push_back(Expect::Prepare(Some(number)));
        self.statements.insert(sql.to_owned(), number);
        Ok(name(number))
    }

    fn queue_settings(&mut self) -> Result<(), PgError> {
        let now = table::output_settings();
        if self.settings == Some(now) {
            return Ok(());
        }
        let calls: Vec<String> =
            [c"DateStyle", c"IntervalStyle", c"TimeZone", c"bytea_output", c"xmloption"]
                .into_iter()
                .map(|name| {
                    format!(
                        "pg_catalog.set_config('{}', '{}', false)",
                        name.to_string_lossy(),
                        table::setting(name).replace('\'', "''")
                    )
                })
                .collect();
        self.connection.send_command(&CString::new(format!("SELECT {}", calls.join(", ")))?)?;
        self.expects.push_back(Expect::Preliminary);
        self.settings = Some(now);
        Ok(())
    }

    fn queue_transaction(&mut self, level: u32, isolation: Isolation) -> Result<(), PgError> {
        if self.depth == 0 && level > 0 {
            self.connection.send_command(match isolation {
                Isolation::ReadCommitted => c"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
                Isolation::RepeatableRead => c"BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE",
                Isolation::Serializable => c"BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE",
            })?;
            self.expects.push_back(Expect::Preliminary);
            self.depth = 1;
        }
        while self.depth < level {
            self.depth += 1;
            self.connection
                .send_command(&CString::new(format!("SAVEPOINT pg_shard_{}", self.depth))?)?;
            self.expects.push_back(Expect::Preliminary);
        }
        Ok(())
    }

    fn flush_all(&mut self) -> Result<(), Failure> {
        loop {
            match self.connection.flush() {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    wait_for(self.socket(), Readiness::Writable, None);
                    if let Err(error) = self.connection.consume() {
                        return Err(self.lose(error));
                    }
                }
                Err(error) => return Err(self.lose(error)),
            }
        }
    }

    /// What has come; does not wait.
    pub(crate) fn poll(&mut self) -> Result<Event, Failure> {
        if self.broken {
            let error = self.lost.clone();
            return Err(Failure::Lost(error.unwrap_or_else(|| {
                PgError::new(SqlState::CONNECTION_FAILURE, "the connection was given up")
            })));
        }
        loop {
            let Some(expect) = self.expects.front() else { return self.finished() };
            if matches!(expect, Expect::Statement) && !self.one_by_one {
                self.one_by_one = true;
                self.connection.rows_one_by_one();
            }
            if self.connection.is_busy() {
                return Ok(Event::Wait);
            }
            let Some(result) = self.connection.result() else {
                // The end of one command of the flight. The end of the flight itself has no such end.
                if !matches!(self.expects.front(), Some(Expect::Sync)) {
                    self.expects.pop_front();
                }
                continue;
            };
            self.proven = true;
            match result.kind() {
                ResultKind::Sync => {
                    self.expects.pop_front();
                }
                ResultKind::Error => {
                    let prepared = match self.expects.front() {
                        Some(Expect::Prepare(Some(number))) => Some(*number),
                        _ => None,
                    };
                    if let Some(number) = prepared {
                        self.statements.retain(|_, known| *known != number);
                    }
                    match result.error() {
                        Ok(error) => {
                            self.error.get_or_insert(error);
                        }
                        Err(lost) => return Err(self.lose(lost)),
                    }
                }
                ResultKind::Skipped => {
                    if let Some(Expect::Prepare(Some(number))) = self.expects.front() {
                        let number = *number;
                        self.statements.retain(|_, known| *known != number);
                    }
                }
                ResultKind::SingleRow => {
                    if matches!(self.expects.front(), Some(Expect::Statement)) {
                        return Ok(Event::Rows(result));
                    }
                }
                ResultKind::Rows | ResultKind::Command => {
                    if matches!(self.expects.front(), Some(Expect::Statement)) {
                        self.affected = result.affected();
                        if result.rows() > 0 {
                            return Ok(Event::Rows(result));
                        }
                    }
                }
                ResultKind::CopyIn | ResultKind::CopyOut | ResultKind::Other => {}
            }
            if self.connection.is_bad() {
                let error = self.connection.lost();
                return Err(self.lose(error));
            }
        }
    }

    fn finished(&mut self) -> Result<Event, Failure> {
        match self.error.take() {
            None => Ok(Event::Done(self.affected)),
            Some(error) => {
                // A failed statement outside a transaction leaves nothing; inside, the local abort rolls back.
                self.settings = None;
                if error.sqlstate().class() == *b"57"
                    && error.sqlstate() != SqlState::QUERY_CANCELED
                {
                    return Err(self.lose(error));
                }
                if error.sqlstate() == SqlState(*b"26000")
                    || error.message().starts_with("cached plan must not")
                {
                    self.statements.clear();
                }
                Err(Failure::Statement(error))
            }
        }
    }

    /// Reads what the socket has.
    pub(crate) fn consume(&mut self) -> Result<(), Failure> {
        match self.connection.consume() {
            Ok(()) => Ok(()),
            // What the server said before it hung up is still to be read, its reason above all.
            Err(error) if self.connection.is_busy() => Err(self.lose(error)),
            Err(_) => Ok(()),
        }
    }

    /// Waits for something to come.
    ///
    /// After `pg_shard.silence_timeout` without a word the node is asked whether it is alive, by a connection
    /// of its own: a busy server accepts it, a frozen one does not and is as good as dead.
    pub(crate) fn wait(&mut self) -> Result<(), Failure> {
        let Some(limit) = settings::silence_timeout() else {
            self.wait.wait(None);
            return self.consume();
        };
        let since = clock();
        while self.wait.wait(Some(limit)).is_none() {
            if clock() - since >= limit {
                self.check_alive()?;
                break;
            }
        }
        self.consume()
    }

    /// The node still accepts connections (or at least refuses them in words).
    pub(crate) fn check_alive(&mut self) -> Result<(), Failure> {
        match connect(&self.node) {
            Err(NoSession::Unreachable(error)) => {
                pool::avoid(&self.node);
                Err(self.lose(error))
            }
            Ok(_) | Err(NoSession::Refused(_)) => Ok(()),
        }
    }

    /// Reads to the end of the statement; `each` gets its rows.
    pub(crate) fn finish(
        &mut self,
        each: &mut dyn FnMut(&ResultSet) -> Result<(), PgError>,
    ) -> Result<u64, Failure> {
        loop {
            match self.poll()? {
                Event::Rows(rows) => each(&rows).map_err(Failure::Statement)?,
                Event::Wait => self.wait()?,
                Event::Done(affected) => return Ok(affected),
            }
        }
    }

    /// Sends a statement and reads it to its end.
    pub(crate) fn execute(
        &mut self,
        request: &Request,
        level: Option<(u32, Isolation)>,
        each: &mut dyn FnMut(&ResultSet) -> Result<(), PgError>,
    ) -> Result<u64, Failure> {
        self.send(request, level)?;
        self.finish(each)
    }

    /// Runs commands without parameters in one text; outside pipeline mode.
    fn run_simple(&mut self, sql: &str) -> Result<(), Failure> {
        self.connection.send_query(sql).map_err(|error| self.lose(error))?;
        self.flush_all()?;
        self.finish_simple()
    }

    fn next_simple(&mut self) -> Result<Option<ResultSet>, Failure> {
        while self.connection.is_busy() {
            self.wait()?;
        }
        Ok(self.connection.result())
    }

    fn finish_simple(&mut self) -> Result<(), Failure> {
        let mut failed = None;
        while let Some(result) = self.next_simple()? {
            if result.kind() == ResultKind::Error {
                match result.error() {
                    Ok(error) => failed = Some(error),
                    Err(lost) => return Err(self.lose(lost)),
                }
            }
        }
        self.proven = true;
        failed.map_or(Ok(()), |error| Err(Failure::Statement(error)))
    }

    /// Begins the remote transaction (or savepoints) if need be, waiting for it.
    pub(crate) fn begin(&mut self, level: u32, isolation: Isolation) -> Result<(), Failure> {
        if self.depth >= level {
            return Ok(());
        }
        self.execute(&Request::plain("SELECT"), Some((level, isolation)), &mut |_| Ok(())).map(drop)
    }

    /// Starts `COPY ... FROM STDIN`; data follow by [`Self::put_copy`].
    pub(crate) fn start_copy_in(&mut self, sql: &str) -> Result<(), Failure> {
        self.connection.set_pipeline(false).map_err(|error| self.lose(error))?;
        self.connection.send_query(sql).map_err(|error| self.lose(error))?;
        self.flush_all()?;
        match self.next_simple()? {
            Some(result) if result.kind() == ResultKind::CopyIn => {
                self.copy = Copying::Moving;
                Ok(())
            }
            Some(result) => {
                let error = result.error();
                self.finish_simple()?;
                self.connection.set_pipeline(true).map_err(|error| self.lose(error))?;
                Err(match error {
                    Ok(error) => Failure::Statement(error),
                    Err(lost) => self.lose(lost),
                })
            }
            None => Err(self.lose(PgError::internal("a node did not start COPY"))),
        }
    }

    /// Sends COPY data.
    pub(crate) fn put_copy(&mut self, data: &[u8]) -> Result<(), Failure> {
        for piece in data.chunks(64 * 1024) {
            while !self.connection.put_copy(piece).map_err(|error| self.lose(error))? {
                wait_for(self.socket(), Readiness::Writable, None);
                self.connection.consume().map_err(|error| self.lose(error))?;
            }
        }
        self.flush_all()
    }

    /// Ends the data without waiting for the node to have stored them.
    pub(crate) fn end_copy(&mut self) -> Result<(), Failure> {
        while !self.connection.end_copy().map_err(|error| self.lose(error))? {
            wait_for(self.socket(), Readiness::Writable, None);
        }
        self.copy = Copying::Storing;
        self.flush_all()
    }

    /// Waits for the end of a COPY that the node is still storing, so that the session can be used.
    pub(crate) fn settle_copy(&mut self) {
        if matches!(self.copy, Copying::Storing) {
            let outcome = self.finish_copy();
            self.copy = Copying::Ended(outcome);
        }
    }

    /// Waits for the node to have stored the data.
    pub(crate) fn finish_copy(&mut self) -> Result<(), Failure> {
        if let Copying::Ended(outcome) = std::mem::replace(&mut self.copy, Copying::Moving) {
            self.copy = Copying::No;
            return outcome;
        }
        let outcome = self.finish_simple();
        self.copy = Copying::No;
        if self.is_usable() {
            self.connection.set_pipeline(true).map_err(|error| self.lose(error))?;
        }
        outcome
    }

    /// Starts `COPY ... TO STDOUT`; data follow by [`Self::get_copy`].
    pub(crate) fn start_copy_out(&mut self, sql: &str) -> Result<(), Failure> {
        self.connection.set_pipeline(false).map_err(|error| self.lose(error))?;
        self.connection.send_query(sql).map_err(|error| self.lose(error))?;
        self.flush_all()?;
        match self.next_simple()? {
            Some(result) if result.kind() == ResultKind::CopyOut => {
                self.copy = Copying::Moving;
                Ok(())
            }
            Some(result) => Err(match result.error() {
                Ok(error) => Failure::Statement(error),
                Err(lost) => self.lose(lost),
            }),
            None => Err(self.lose(PgError::internal("a node did not start COPY"))),
        }
    }

    /// The next COPY data; empty at the end.
    pub(crate) fn get_copy(&mut self) -> Result<Vec<u8>, Failure> {
        loop {
            match self.connection.get_copy().map_err(|error| self.lose(error))? {
                CopyPiece::Data(bytes) => return Ok(bytes),
                CopyPiece::Wait => self.wait()?,
                CopyPiece::End => {
                    self.finish_copy()?;
                    return Ok(Vec::new());
                }
            }
        }
    }

    /// Stops what is under way and throws its results away; true if the session is good afterwards.
    ///
    /// For use while a transaction aborts: raises nothing, serves no interrupts, and takes no longer than
    /// `limit` for the cancel request and as long again for the node to obey.
    pub(crate) fn stop(&mut self, limit: Duration) -> bool {
        if matches!(self.copy, Copying::Moving | Copying::Storing) {
            // A COPY cannot be resumed; without the connection the node rolls it back.
            self.broken = true;
        }
        self.copy = Copying::No;
        if self.broken {
            return false;
        }
        if self.expects.is_empty() {
            return true;
        }
        self.connection.cancel(limit);
        let deadline = clock() + limit;
        loop {
            match self.poll() {
                Ok(Event::Done(_)) | Err(Failure::Statement(_)) => return self.is_usable(),
                Err(Failure::Lost(_)) => return false,
                Ok(Event::Rows(_)) => {}
                Ok(Event::Wait) => {
                    let left = deadline.saturating_sub(clock());
                    if left.is_zero() {
                        self.broken = true;
                        return false;
                    }
                    self.wait.wait_uninterrupted(Some(left));
                    if self.consume().is_err() {
                        return false;
                    }
                }
            }
        }
    }

    /// Runs a command without serving interrupts, within `limit`; true if it succeeded.
    pub(crate) fn run_quietly(&mut self, sql: &str, limit: Duration) -> bool {
        let Ok(text) = CString::new(sql) else { return false };
        self.error = None;
        let queued = self.connection.send_command(&text).and_then(|()| self.connection.send_sync());
        if queued.is_err() {
            self.broken = true;
            return false;
        }
        self.expects.extend([Expect::Preliminary, Expect::Sync]);
        let deadline = clock() + limit;
        loop {
            if self.connection.flush().is_err() {
                self.broken = true;
                return false;
            }
            match self.poll() {
                Ok(Event::Done(_)) => return true,
                Ok(Event::Rows(_)) => {}
                Err(_) => return false,
                Ok(Event::Wait) => {
                    let left = deadline.saturating_sub(clock());
                    if left.is_zero() {
                        self.broken = true;
                        return false;
                    }
                    self.wait.wait_uninterrupted(Some(left));
                    if self.consume().is_err() {
                        return false;
                    }
                }
            }
        }
    }

    /// Settings made in a transaction that was rolled back are gone.
    pub(crate) fn forget_settings(&mut self) {
        self.settings = None;
    }
}

/// Opens a connection and waits for it, at most `pg_shard.connect_timeout`.
fn connect(node: &NodeAddress) -> Result<Connection, NoSession> {
    if node.host.len() > 255 {
        return Err(NoSession::Refused(PgError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "hostname exceeds the maximum length of 255",
        )));
    }
    let mut options: Vec<(String, String)> = settings::node_options();
    options.retain(|(keyword, _)| !["host", "port", "dbname", "user"].contains(&keyword.as_str()));
    options.extend([
        ("host".to_owned(), node.host.clone()),
        ("port".to_owned(), node.port.to_string()),
        ("dbname".to_owned(), table::current_database()),
        ("user".to_owned(), pool::user()),
        ("client_encoding".to_owned(), table::encoding()),
        ("fallback_application_name".to_owned(), "pg_shard".to_owned()),
    ]);
    let options: Vec<(&str, String)> =
        options.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    let mut connection = Connection::start(&options).map_err(NoSession::Refused)?;
    let deadline = clock() + settings::connect_timeout();
    let mut wanted = Readiness::Writable;
    loop {
        let left = deadline.saturating_sub(clock());
        if left.is_zero() {
            let limit = settings::connect_timeout().as_secs_f32();
            return Err(NoSession::Unreachable(PgError::new(
                SqlState::CONNECTION_FAILURE,
                format!("no answer within {limit} s"),
            )));
        }
        if connection.socket() >= 0 && !wait_for(connection.socket(), wanted, Some(left)) {
            continue;
        }
        match connection.poll_opening() {
            Opening::WaitReadable => wanted = Readiness::Readable,
            Opening::WaitWritable => wanted = Readiness::Writable,
            Opening::Open => return Ok(connection),
            Opening::Failed => return Err(classify(&connection, node)),
        }
    }
}

fn classify(connection: &Connection, node: &NodeAddress) -> NoSession {
    let (code, message) = connection.opening_error();
    match code {
        None => NoSession::Unreachable(PgError::new(SqlState::CONNECTION_FAILURE, message)),
        Some(code) if matches!(&code.class(), b"57" | b"08") => {
            NoSession::Unreachable(PgError::new(SqlState::CONNECTION_FAILURE, message))
        }
        Some(SqlState::TOO_MANY_CONNECTIONS) => NoSession::Refused(
            PgError::new(SqlState::TOO_MANY_CONNECTIONS, format!("worker \"{node}\" has no connection slot left"))
                .detail(message)
                .hint("Raise max_connections on the worker, or put a connection pool before the coordinator."),
        ),
        Some(code) => NoSession::Refused(
            PgError::new(code, format!("could not connect to worker \"{node}\"")).detail(message).hint(format!(
                "Role \"{}\" and database \"{}\" must exist on the worker and be reachable with the server's own credentials.",
                pool::user(),
                table::current_database()
            )),
        ),
    }
}
