//! One session: SQL in, text out.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cluster::postgres::error::DbError;
use cluster::postgres::{self, Client, SimpleQueryMessage};

/// Rows as text, NULL as `NULL`.
pub type Rows = Vec<Vec<String>>;

/// What PostgreSQL says when it refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// Five letters.
    pub sqlstate: String,
    /// The primary message.
    pub message: String,
    /// DETAIL, or nothing.
    pub detail: String,
    /// HINT, or nothing.
    pub hint: String,
    /// The schema's name, or nothing.
    pub schema: String,
    /// The column's name, or nothing.
    pub column: String,
    /// The data type's name, or nothing.
    pub datatype: String,
    /// The constraint's name, or nothing.
    pub constraint: String,
    /// The table's name, or nothing.
    pub table: String,
    /// CONTEXT, or nothing.
    pub context: String,
}

impl SqlError {
    /// SQLSTATE and message on one line, as most tests compare them.
    pub fn line(&self) -> String {
        format!("{}: {}", self.sqlstate, self.message)
    }
}

impl From<&DbError> for SqlError {
    fn from(error: &DbError) -> Self {
        let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
        Self {
            sqlstate: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: text(error.detail()),
            hint: text(error.hint()),
            schema: text(error.schema()),
            column: text(error.column()),
            datatype: text(error.datatype()),
            constraint: text(error.constraint()),
            table: text(error.table()),
            context: text(error.where_()),
        }
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.line())?;
        for (label, part) in
            [("DETAIL", &self.detail), ("HINT", &self.hint), ("CONTEXT", &self.context)]
        {
            if !part.is_empty() {
                write!(f, "\n{label}: {part}")?;
            }
        }
        Ok(())
    }
}

/// A notice or warning that the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `WARNING`, `NOTICE` ...
    pub severity: String,
    /// The rest of it.
    pub content: SqlError,
}

/// A session on one node that keeps what the server noticed.
pub struct Session {
    client: Client,
    notices: Arc<Mutex<Vec<Notice>>>,
}

impl Session {
    /// A session as `config` describes it.
    pub fn open(config: &postgres::Config) -> Self {
        Self::try_open(config)
            .unwrap_or_else(|error| panic!("could not connect with {config:?}: {error}"))
    }

    /// The same for a node that may be away.
    pub fn try_open(config: &postgres::Config) -> Result<Self, postgres::Error> {
        let notices = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&notices);
        let mut config = config.clone();
        config.notice_callback(move |notice| {
            let notice =
                Notice { severity: notice.severity().to_owned(), content: SqlError::from(&notice) };
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
        });
        Ok(Self { client: config.connect(postgres::NoTls)?, notices })
    }

    /// The rows of all statements of `text`, sent in one message of the simple protocol.
    #[track_caller]
    pub fn sql(&mut self, text: &str) -> Rows {
        match self.try_sql(text) {
            Ok(rows) => rows,
            Err(error) => panic!("{error}\nSQL: {text}"),
        }
    }

    /// The same for statements that may fail.
    pub fn try_sql(&mut self, text: &str) -> Result<Rows, SqlError> {
        match self.client.simple_query(text) {
            Ok(messages) => Ok(messages.iter().filter_map(row).collect()),
            Err(error) => Err(sql_error(&error, text)),
        }
    }

    /// The rows of `text` with `|` between the fields and a line for each: what tests write down.
    #[track_caller]
    pub fn text(&mut self, text: &str) -> String {
        let lines: Vec<String> = self.sql(text).iter().map(|row| row.join("|")).collect();
        lines.join("\n")
    }

    /// How many rows the last statement of `text` changed or yielded.
    #[track_caller]
    pub fn count(&mut self, text: &str) -> u64 {
        let messages = self.client.simple_query(text);
        let messages =
            messages.unwrap_or_else(|error| panic!("{}\nSQL: {text}", sql_error(&error, text)));
        let counts = messages.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::CommandComplete(count) => Some(*count),
            _ => None,
        });
        counts.unwrap_or_else(|| panic!("no statement was completed\nSQL: {text}"))
    }

    /// The error of `text`; panics if there is none.
    #[track_caller]
    pub fn error(&mut self, text: &str) -> SqlError {
        match self.try_sql(text) {
            Ok(rows) => panic!("this should have failed, but yielded {rows:?}\nSQL: {text}"),
            Err(error) => error,
        }
    }

    /// What the server noticed since the last call, of severity WARNING.
    pub fn warnings(&mut self) -> Vec<SqlError> {
        let noticed = self.notices().into_iter();
        noticed.filter(|notice| notice.severity == "WARNING").map(|notice| notice.content).collect()
    }

    /// What the server noticed since the last call.
    pub fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The client itself, for the extended protocol and for COPY.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// The error as PostgreSQL told it; panics if it is one of the connection.
pub(crate) fn sql_error(error: &postgres::Error, text: &str) -> SqlError {
    error.as_db_error().map(SqlError::from).unwrap_or_else(|| panic!("{error:?}\nSQL: {text}"))
}

/// The fields of a message that is a row.
fn row(message: &SimpleQueryMessage) -> Option<Vec<String>> {
    match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|field| row.get(field).unwrap_or("NULL").to_owned()).collect())
        }
        _ => None,
    }
}
