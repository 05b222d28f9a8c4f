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
use pg::net::link::Link;
use pg::net::wait::clock;
use pg::server::transaction::{self, Isolation};
use pg::server::{decision, resolver};
use pg::time::{self, Reading, Time};
use pg::{PgError, SqlState};
use std::cell::Cell;
use std::time::Duration;

thread_local! {
    /// When the client's transaction reads.
    static TRANSACTION: Cell<Option<Reading>> = const { Cell::new(None) };
    /// This backend has learned from nodes what may be later than all that was acknowledged.
    static MUST_BE_NOW: Cell<bool> = const { Cell::new(false) };
    /// When the resolver was last asked to look what is in doubt.
    static HAS_ASKED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// The client has been warned.
    static HAS_WARNED: Cell<bool> = const { Cell::new(false) };
}

/// How long the resolver has until it is asked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// The node says that it can be asked for what was committed at a time.
pub(super) fn is_kept(link: &mut Link) -> bool {
    link.connection().parameter(c"pg_shard.keeps_time").as_deref() == Some("on")
}

fn is_wanted() -> bool {
    settings::read_consistency() == ReadConsistency::Snapshot
}

/// A time for a statement that begins now, if statements have times of their own.
pub(crate) fn of_statement() -> Option<Reading> {
    let has_own = transaction::isolation_level() == Isolation::ReadCommitted;
    (has_own && is_wanted()).then(choose).flatten()
}

fn choose() -> Option<Reading> {
    let chosen = time::read_time(MUST_BE_NOW.replace(false), decision::identity());
    if chosen.is_some_and(|chosen| chosen.is_unclean) && HAS_ASKED.get() + PATIENCE < clock() {
        // Nodes wait for all that is in doubt, until somebody has looked.
        HAS_ASKED.set(clock());
        resolver::wake();
    }
    chosen
}

/// The time of the client's transaction, if it has one.
fn of_transaction() -> Option<Reading> {
    if transaction::isolation_level() != Isolation::RepeatableRead || !is_wanted() {
        return None;
    }
    let at = TRANSACTION.get().or_else(choose);
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
    pub(super) fn transaction_time(&self) -> Option<Reading> {
        of_transaction().filter(|_| self.can_read_at())
    }

    /// A node has answered: what it has reported, if it is committed everywhere, and what it has shown are seen by what is read
    /// next.
    pub(super) fn note_time(&mut self) {
        if let Some(time) = self.link.take_commit_time().and_then(Time::from_number) {
            if !self.is_deciding {
                time::acknowledge(time);
            }
            self.reported = Some(time);
        }
        if !std::mem::take(&mut self.is_at_time) {
            MUST_BE_NOW.set(true);
        }
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
