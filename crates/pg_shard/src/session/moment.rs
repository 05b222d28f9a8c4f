//! The moment at which a statement, or a transaction, reads on all nodes.
//!
//! Under `pg_shard.read_consistency = snapshot` a read over several nodes asks all of them for what was committed at one time,
//! which is not before anything that this server has acknowledged. Nodes agree on commit times, so that a transaction on
//! several of them is seen whole or not at all.
//!
//! * Under READ COMMITTED each statement has its own time, if it asks several nodes, or nodes more than once. It travels as the name of the
//!   portal, which costs no message; where the statement has remote transactions for its snapshots ([`super::snapshot`]), as the
//!   snapshot that these import.
//! * Under REPEATABLE READ the transaction has one, chosen when it first begins on a node; whatever node is asked later is asked for the
//!   same time.
//! * Under SERIALIZABLE there is none: nodes find conflicts by snapshots of their own.
//!
//! A node that does not keep the time is read as it is, with a WARNING once a session.

use super::Session;
use crate::settings::{self, ReadConsistency};
use pg::server::transaction::{self, Isolation};
use pg::time::{self, Time};
use pg::{PgError, SqlState};
use std::cell::Cell;

thread_local! {
    /// When the client's transaction reads.
    static TRANSACTION: Cell<Option<Time>> = const { Cell::new(None) };
    /// The client has been warned.
    static HAS_WARNED: Cell<bool> = const { Cell::new(false) };
}

fn is_wanted() -> bool {
    settings::read_consistency() == ReadConsistency::Snapshot
}

/// A time for a statement that begins now, if statements have times of their own.
pub(crate) fn of_statement() -> Option<Time> {
    let has_own = transaction::isolation_level() == Isolation::ReadCommitted;
    (has_own && is_wanted()).then(time::read_time).flatten()
}

/// The time of the client's transaction, if it has one.
fn of_transaction() -> Option<Time> {
    if transaction::isolation_level() != Isolation::RepeatableRead || !is_wanted() {
        return None;
    }
    let at = TRANSACTION.get().or_else(time::read_time);
    TRANSACTION.set(at);
    at
}

/// The client's transaction is over.
pub(crate) fn forget() {
    TRANSACTION.set(None);
}

/// A node cannot read at the time that was wanted; a later one may do.
pub(crate) fn is_refusal(error: &PgError) -> bool {
    error.sqlstate() == SqlState(*b"72000")
}

/// The error as the client gets it.
pub(crate) fn explain(error: PgError) -> PgError {
    if !is_refusal(&error) {
        return error;
    }
    let text = "could not serialize access: a node cannot read at the snapshot's time";
    PgError::new(SqlState(*b"40001"), text)
        .detail(error.detail_text().unwrap_or_default())
        .hint("Run the transaction again.")
}

impl Session {
    /// The time of the client's transaction, if the remote one that is about to begin can have it.
    pub(super) fn transaction_time(&self) -> Option<Time> {
        of_transaction().filter(|_| self.can_read_at())
    }

    /// The node can be asked for a time. If not, the client is warned once.
    pub(crate) fn can_read_at(&self) -> bool {
        if !self.keeps_time && !HAS_WARNED.replace(true) {
            let node = &self.node;
            pg::sys::error::warning(
                PgError::new(
                    SqlState(*b"01000"),
                    format!("node \"{node}\" cannot take part in reads of one moment"),
                )
                .detail("A transaction over several nodes may be seen on some of them only.")
                .hint("Add pg_shard to shared_preload_libraries on the node and restart it, or set pg_shard.read_consistency to local."),
            );
        }
        self.keeps_time
    }
}

/// The comment that tells a node a time behind a command that ends a transaction.
pub(crate) fn comment(at: Option<Time>) -> String {
    at.map(|at| format!(" /* {} */", name_of(at))).unwrap_or_default()
}

/// How a portal, or a snapshot to import, is called that reads at a time.
pub(super) fn name_of(at: Time) -> String {
    format!("pgs_at_{}", at.number())
}
