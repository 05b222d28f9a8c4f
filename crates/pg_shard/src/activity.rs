//! What this backend has under way on nodes, told to other sessions: the view `pgs_catalog.activity`.
//!
//! Whatever asks shards for something holds a [`Work`] meanwhile; several belong together if they serve the same message of
//! the client. A `Work` is dropped with whoever holds it, also after an ERROR, so nothing is told of what is over. Rows are
//! counted by the sessions, bytes by their links; both may go on in a cursor's read when another statement has begun, and
//! then count for that one.

use pg::server::activity::{self, Counter, NodeNumber};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use std::cell::Cell;

/// What is done. Of a statement that does several the last in this order is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Rows are read.
    Read = 1,
    /// Statements change rows.
    Write,
    /// Rows are sent as COPY data.
    Copy,
    /// VACUUM or ANALYZE.
    Maintenance,
    /// Transactions are committed.
    Commit,
    /// A relocation makes tables.
    RelocationCreate,
    /// It has changes noted.
    RelocationCapture,
    /// It copies rows.
    RelocationFill,
    /// It builds indexes.
    RelocationIndex,
    /// It catches up with writers, and waits for the moment to switch.
    RelocationCatchUp,
}

const NAMES: [&str; 10] = [
    "read",
    "write",
    "copy",
    "maintenance",
    "commit",
    "relocation: create",
    "relocation: capture",
    "relocation: fill",
    "relocation: index",
    "relocation: catch up",
];

/// What belongs together.
#[derive(Clone, Copy, Debug)]
struct Statement {
    /// When the client's message came.
    since: i64,
    /// Distinguishes it from others of the backend.
    number: u64,
    kind: Kind,
    /// How many [`Work`]s there are.
    running: usize,
}

thread_local! {
    static STATEMENT: Cell<Statement> =
        const { Cell::new(Statement { since: 0, number: 0, kind: Kind::Read, running: 0 }) };
}

/// Something that asks shards.
#[derive(Debug)]
pub(crate) struct Work {
    statement: Cell<u64>,
    kind: Kind,
    left: Cell<u64>,
}

impl Work {
    /// Begins something that concerns so many shards.
    pub(crate) fn begin(kind: Kind, shards: usize) -> Self {
        let work = Self { statement: Cell::new(0), kind, left: Cell::new(0) };
        work.join();
        work.add_shards(shards);
        work
    }

    /// The next phase of the same, which comes later in the order of kinds.
    pub(crate) fn followed_by(self, kind: Kind) -> Self {
        let next = Self::begin(kind, 0);
        drop(self);
        next
    }

    /// Joins the current statement.
    fn join(&self) {
        let mut statement = STATEMENT.get();
        let since = activity::statement_start();
        let slot = activity::mine();
        if statement.since == since {
            if statement.running == 0 || self.kind > statement.kind {
                statement.kind = self.kind.max(statement.kind);
                if let Some(slot) = slot {
                    slot.set_kind(statement.kind as u32);
                }
            }
        } else {
            statement =
                Statement { since, number: statement.number + 1, kind: self.kind, running: 0 };
            if let Some(slot) = slot {
                slot.begin(self.kind as u32, since);
            }
        }
        statement.running += 1;
        STATEMENT.set(statement);
        self.statement.set(statement.number);
    }

    fn is_current(&self) -> bool {
        self.statement.get() == STATEMENT.get().number
    }

    /// It concerns so many shards more.
    pub(crate) fn add_shards(&self, shards: usize) {
        self.left.set(self.left.get() + shards as u64);
        if self.is_current() {
            activity::count(Counter::Shards, shards as u64);
        }
    }

    /// So many shards are done.
    pub(crate) fn done(&self, shards: usize) {
        let shards = self.left.get().min(shards as u64);
        self.left.set(self.left.get() - shards);
        if self.is_current() {
            activity::count(Counter::ShardsDone, shards);
        }
    }

    /// It is going to wait for nodes: if the client's messages have moved on since it began (a cursor), it belongs to the
    /// last of them now.
    /// Then it is true: what nodes are asked is to be told once more.
    pub(crate) fn goes_on(&self) -> bool {
        let is_new = !self.is_current() || STATEMENT.get().since != activity::statement_start();
        if is_new {
            self.leave();
            self.join();
            activity::count(Counter::Shards, self.left.get());
        }
        is_new
    }

    fn leave(&self) {
        if !self.is_current() {
            return;
        }
        let mut statement = STATEMENT.get();
        statement.running = statement.running.saturating_sub(1);
        STATEMENT.set(statement);
        if statement.running == 0
            && let Some(slot) = activity::mine()
        {
            slot.set_kind(0);
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.leave();
        if matches!(self.kind, Kind::Write | Kind::Copy) {
            activity::note_change();
        }
    }
}

/// The transaction has ended: nothing is under way, whatever was forgotten.
pub(crate) fn forget() {
    let mut statement = STATEMENT.get();
    if statement.running > 0 {
        // What comes yet of the old ones does not count.
        statement.number += 1;
        statement.running = 0;
        statement.since = 0;
        STATEMENT.set(statement);
        if let Some(slot) = activity::mine() {
            slot.set_kind(0);
        }
    }
}

/// A session's part: which node it is, and what it has received.
#[derive(Debug)]
pub(crate) struct Told {
    node: Option<NodeNumber>,
    rows: u64,
}

impl Told {
    /// Of a session to this node.
    pub(crate) fn new(node: &shardmap::NodeAddress) -> Self {
        Self { node: activity::node_number(&node.to_string()), rows: 0 }
    }

    /// The node has been asked for something.
    pub(crate) fn asks(&self) {
        if let (Some(slot), Some(node)) = (activity::mine(), self.node) {
            slot.asks(node);
        }
    }

    /// It has answered to the end, or never will.
    pub(crate) fn has_answered(&mut self) {
        self.tell_rows();
        if let (Some(slot), Some(node)) = (activity::mine(), self.node) {
            slot.has_answered(node);
        }
    }

    /// A row has come.
    pub(crate) fn row(&mut self) {
        self.rows += 1;
    }

    /// Tells the rows that have come.
    pub(crate) fn tell_rows(&mut self) {
        if self.rows > 0 {
            activity::count(Counter::RowsReceived, std::mem::take(&mut self.rows));
        }
    }
}

/// Rows were sent to be stored.
pub(crate) fn sent_rows(rows: usize) {
    activity::count(Counter::RowsSent, rows as u64);
}

/// What the view `pgs_catalog.activity` is made of.
#[allow(clippy::type_complexity, reason = "the columns stand where SQL's function has them")]
#[pg_extern]
fn activity_of_backends() -> TableIterator<
    'static,
    (
        name!(pid, i32),
        name!(backend_start, Option<TimestampWithTimeZone>),
        name!(kind, &'static str),
        name!(shards_done, Option<i64>),
        name!(shards, Option<i64>),
        name!(nodes, Vec<String>),
        name!(waiting_for, Vec<String>),
        name!(rows_received, i64),
        name!(bytes_received, i64),
        name!(rows_sent, i64),
        name!(bytes_sent, i64),
        name!(since, Option<TimestampWithTimeZone>),
    ),
> {
    let rows = activity::all().into_iter().map(|seen| {
        let count = |counter| i64::try_from(seen.count(counter)).unwrap_or(i64::MAX);
        // COPY does not know how many shards it will send rows to.
        let shards = |counter| Some(count(counter)).filter(|_| seen.count(Counter::Shards) > 0);
        let moment = |moment| TimestampWithTimeZone::try_from(moment).ok();
        (
            seen.pid,
            moment(seen.backend_start),
            NAMES.get(seen.kind as usize - 1).copied().unwrap_or(""),
            shards(Counter::ShardsDone),
            shards(Counter::Shards),
            seen.nodes.clone(),
            seen.waiting.clone(),
            count(Counter::RowsReceived),
            count(Counter::BytesReceived),
            count(Counter::RowsSent),
            count(Counter::BytesSent),
            moment(seen.since),
        )
    });
    TableIterator::new(rows.collect::<Vec<_>>())
}
