//! What a session is asked: a statement's text or the key under which a node keeps it, and its arguments.

use super::gate;
use pg::PgError;
use pg::server::transaction::Isolation;
use protocol::Arguments;
use std::borrow::Cow;
use std::cell::Cell;
use std::ffi::CStr;

/// A statement that a node keeps prepared: the template it is made from, and for which shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StatementKey {
    /// From [`next_template`]; 0 are our own commands.
    pub(crate) template: u64,
    /// The id of the (first table's) shard, or the command.
    pub(crate) part: i64,
}

thread_local!(static LAST_TEMPLATE: Cell<u64> = const { Cell::new(0) });

/// A number for a template, which no other has had in this backend.
pub(crate) fn next_template() -> u64 {
    LAST_TEMPLATE.set(LAST_TEMPLATE.get() + 1);
    LAST_TEMPLATE.get()
}

/// A statement's text.
pub(crate) enum Sql<'a> {
    /// It is prepared for this once.
    Once(&'a str),
    /// The text of the request before it in the same flight.
    Again,
    /// The node keeps it prepared under this key; the text is made if it has to be prepared.
    Spooled(StatementKey, &'a dyn Fn() -> Result<String, PgError>),
}

/// A statement for a node.
pub(crate) struct Request<'a> {
    /// Its text.
    pub(crate) sql: Sql<'a>,
    /// Types of the arguments; 0 leaves one to the node.
    pub(crate) types: &'a [u32],
    /// The arguments, and in which format rows are to come.
    pub(crate) arguments: &'a Arguments,
    /// It runs nothing that users have made: nothing of it stays in the session when its transaction has ended.
    pub(crate) is_plain: bool,
}

impl<'a> Request<'a> {
    /// One that may leave something in the session.
    pub(crate) fn new(sql: Sql<'a>, types: &'a [u32], arguments: &'a Arguments) -> Self {
        Self { sql, types, arguments, is_plain: false }
    }

    /// The same, which leaves nothing if `is_plain`.
    pub(crate) fn plain_if(self, is_plain: bool) -> Self {
        Self { is_plain, ..self }
    }
}

/// A command that every session keeps prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// BEGIN at this isolation level.
    Begin(Isolation),
    /// BEGIN for one snapshot.
    BeginSnapshot,
    /// The transaction is to show that it has committed.
    Evidence,
    /// A SERIALIZABLE transaction goes through the node's gate.
    Gate {
        /// No other does so.
        is_alone: bool,
    },
}

/// The command by which a node begins to act as another role: its whole text, by which the node knows that no function calls.
pub(crate) const BEGIN_ACTING: &CStr = c"SELECT pgs_catalog.begin_acting($1)";

/// The command that ends it.
pub(crate) const END_ACTING: &CStr = c"SELECT pgs_catalog.end_acting()";

impl Command {
    /// Its text.
    pub(crate) fn sql(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Begin(Isolation::ReadCommitted) => {
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
            }
            Self::Begin(Isolation::RepeatableRead) => {
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE"
            }
            Self::Begin(Isolation::Serializable) => "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE",
            Self::Gate { is_alone: false } => {
                "LOCK TABLE pgs_catalog.serializable_gate IN ROW SHARE MODE"
            }
            Self::Gate { is_alone: true } => gate::ALONE,
            Self::BeginSnapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Self::Evidence => {
                let coordinator = pg::server::decision::identity().cast_signed();
                return Cow::Owned(format!("SELECT pgs_catalog.begin_decision('{coordinator}')"));
            }
        })
    }

    /// Its key.
    pub(crate) fn key(self) -> StatementKey {
        let part = match self {
            Self::Begin(Isolation::ReadCommitted) => 0,
            Self::Begin(Isolation::RepeatableRead) => 1,
            Self::Begin(Isolation::Serializable) => 2,
            Self::BeginSnapshot => 3,
            Self::Evidence => 4,
            Self::Gate { is_alone } => 5 + i64::from(is_alone),
        };
        StatementKey { template: 0, part }
    }
}
