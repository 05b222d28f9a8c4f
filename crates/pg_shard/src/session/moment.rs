//! The moment at which a statement, or a transaction, reads on all nodes.
//!
//! Under `pg_shard.read_consistency = snapshot` a read over several nodes asks all of them for what was committed at one time,
//! which is not before anything that this server has acknowledged. Nodes agree on commit times, so that a transaction on
//! several of them is seen whole or not at all.
//!
//! * Under READ COMMITTED each statement has its own time, if it asks several nodes, or nodes more than once. It travels as the name of the
//!   portal, which costs no message; where the statement has remote transactions for its snapshots ([`super::snapshot`]), as the
//!   snapshot that these import. A statement that changes or locks rows finds them so ([`super::statement_time`]); the node then takes
//!   each row's newest version, if that still qualifies, as PostgreSQL does.
//! * Under REPEATABLE READ the transaction has one, chosen when it first begins on a node; then it begins on all others too, so
//!   that they keep what was there at that time until they are asked.
//! * Under SERIALIZABLE there is none: nodes find conflicts by snapshots of their own ([`super::gate`]).
//!
//! A node that does not keep the time is read as it is, with a WARNING once a session.

use super::Session;
use super::chosen_time;
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
    /// It has been begun on all nodes.
    static IS_EVERYWHERE: Cell<bool> = const { Cell::new(false) };
    /// This backend has learned from nodes what may be later than all that was acknowledged.
    static MUST_BE_NOW: Cell<bool> = const { Cell::new(false) };
    /// When the resolver was last asked to look what is in doubt.
    static HAS_ASKED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// The client has been warned.
    static HAS_WARNED: Cell<bool> = const { Cell::new(false) };
}

/// How long the resolver has until it is asked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Half of how long to wait when a time is refused; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_micros(500);

/// Whether a node can be asked for what was committed at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// Yes.
    Time,
    /// It does not preload the library.
    Nothing,
    /// Its clock is too far from ours.
    FarTime,
}

impl Keeping {
    /// As a number, for other backends.
    pub(super) fn code(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Time => 1,
            Self::FarTime => 2,
        }
    }

    /// Back from it.
    pub(super) fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Time,
            2 => Self::FarTime,
            _ => Self::Nothing,
        }
    }
}

/// What the node says of that.
pub(super) fn keeping(link: &mut Link) -> Keeping {
    match link.connection().parameter(c"pg_shard.keeps_time").as_deref() {
        Some("on") => Keeping::Time,
        _ => Keeping::Nothing,
    }
}

/// A node whose clock differs by more does not take part.
const FARTHEST: Duration = Duration::from_secs(20);

/// Reads over several nodes are to be of one moment.
pub(crate) fn is_wanted() -> bool {
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
    if TRANSACTION.get().is_none() {
        chosen_time::note();
        TRANSACTION.set(choose());
    }
    TRANSACTION.get()
}

/// The client's transaction is about to begin on a node, and is to be begun on all; once. A statement by itself asks all
/// nodes at once.
pub(super) fn is_of_all_nodes() -> bool {
    transaction::isolation_level() == Isolation::RepeatableRead
        && is_wanted()
        && time::is_kept()
        && transaction::is_in_block()
        && !IS_EVERYWHERE.replace(true)
}

/// The client's transaction is over.
pub(crate) fn forget() {
    TRANSACTION.set(None);
    chosen_time::forget();
    IS_EVERYWHERE.set(false);
}

/// A node cannot read at the time that was wanted; a later one may do.
pub(crate) fn is_refusal(error: &PgError) -> bool {
    error.sqlstate() == SqlState::SNAPSHOT_TOO_OLD
}

/// A read of a later time would not fail so.
pub(crate) fn is_avoidable(error: &PgError, at: Option<Reading>) -> bool {
    is_refusal(error) || need_not_wait(error, at)
}

/// A node has waited in vain for what was in doubt, and who reads now need not wait for it: it is known meanwhile that a client has
/// prepared it, and not a crash left it.
fn need_not_wait(error: &PgError, at: Option<Reading>) -> bool {
    let has_waited = error.sqlstate() == SqlState::LOCK_NOT_AVAILABLE
        && error.message().starts_with("prepared transaction ")
        && at.is_some_and(|at| at.but.is_none());
    has_waited && time::read_time(true, decision::identity()).is_some_and(|now| now.but.is_some())
}

/// A time has been refused, for so many times: what is read next is read at the present time, a little later. Nodes' clocks differ by some
/// milliseconds.
pub(crate) fn read_later(refusals: u32) {
    MUST_BE_NOW.set(true);
    pg::net::wait::pause(FIRST_PAUSE * (1 << refusals.min(6)));
}

/// The error as the client gets it.
pub(crate) fn explain(error: PgError) -> PgError {
    if !is_refusal(&error) {
        return error;
    }
    let text = "could not serialize access: a node cannot read at the snapshot's time";
    PgError::new(SqlState::SERIALIZATION_FAILURE, text)
        .detail(error.detail_text().unwrap_or_default())
        .hint("Run the transaction again.")
}

/// When statements of a session read.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// The next one reads at this time.
    pub(crate) next: Option<Reading>,
    /// What is under way is read at a time.
    is_under_way: bool,
    /// The node keeps the snapshot of that time until its transaction ends or reads at another.
    pub(super) kept: Option<Time>,
}

impl Session {
    /// What is about to be sent reads at that time, if at any.
    pub(super) fn note_reading_at(&mut self, at: Option<Reading>) {
        let is_in_snapshot = self.snapshot.as_ref().is_some_and(|it| it.at.is_some());
        self.times.is_under_way = at.is_some() || is_in_snapshot;
        if let Some(at) = at.filter(|_| self.depth > 0) {
            self.times.kept = Some(at.at);
        }
    }

    /// The time of the client's transaction, if the remote one that is about to begin can have it.
    pub(super) fn transaction_time(&self) -> Option<Reading> {
        of_transaction().filter(|_| self.can_read_at())
    }

    /// The session is open, and the node has told its clock.
    pub(super) fn compare_clocks(&mut self) {
        let clocks = self.reported.take().zip(time::now());
        let is_far =
            clocks.is_some_and(|(node, here)| node.since(here).max(here.since(node)) > FARTHEST);
        if is_far && self.keeping == Keeping::Time {
            self.keeping = Keeping::FarTime;
        }
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
        // An earlier time would be refused again.
        let is_refused = self.error.as_ref().is_some_and(is_refusal);
        if !std::mem::take(&mut self.times.is_under_way) || is_refused {
            MUST_BE_NOW.set(true);
        }
    }

    /// The node's clock is there, and near ours.
    pub(crate) fn keeps_time(&self) -> bool {
        self.keeping == Keeping::Time
    }

    /// The node can be asked for a time. If not, the client is warned once.
    pub(crate) fn can_read_at(&self) -> bool {
        let can = self.keeps_time();
        if !can && !HAS_WARNED.replace(true) {
            let node = &self.node;
            let hint = match self.keeping == Keeping::FarTime {
                true => "Set the node's clock right, or set pg_shard.read_consistency to local.",
                false => {
                    "Add pg_shard to shared_preload_libraries on the node and restart it, or set pg_shard.read_consistency to local."
                }
            };
            pg::sys::error::warning(
                PgError::new(
                    SqlState::WARNING,
                    format!("node \"{node}\" cannot take part in reads of one moment"),
                )
                .detail("A transaction over several nodes may be seen on some of them only.")
                .hint(hint),
            );
        }
        can
    }
}
