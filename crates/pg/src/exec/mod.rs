//! Our nodes in PostgreSQL's executor: scans, rows, cursors, changes, COPY.

/// Our scan node in PostgreSQL's executor.
pub mod scan;

/// What a scan is, and what it may ask of the executor.
pub mod scan_io;

/// Rows that are sent along.
pub(crate) mod sent_rows;

/// Values that a statement is sent with.
pub mod arguments;

/// Rows of the child plan.
pub mod child_rows;

/// What a scan says of itself.
pub mod explain;

/// Remote rows: decoding and keeping.
pub mod rows;

/// Remote rows that are not decoded yet.
pub(crate) mod undecoded;

/// Kept rows that are found by value.
pub(crate) mod lookup;

/// A scan's rows, found so.
mod scan_lookup;

/// Rows that are kept here while they are sent along by number.
pub(crate) mod numbered;

/// A scan's numbered rows.
mod scan_numbered;

/// Sorted streams of remote rows.
pub mod merge;

/// WHERE CURRENT OF.
pub mod cursor;

/// Cursors that go backward though nobody said SCROLL.
pub(crate) mod scrolling;

/// Scans that ask before their first row is fetched.
pub(crate) mod early;

/// Executions of statements, and their ends.
pub mod execution;

/// The rows of such a write, as changes.
pub mod row_changes;

/// Triggers of distributed tables.
pub mod triggers;

/// Rows that AFTER triggers will ask for.
pub(crate) mod trigger_rows;

/// Rows that a node keeps for others, in parts.
pub mod partitions;

/// The worker's half of a user's aggregate in parts.
pub mod partial_state;

/// COPY: PostgreSQL's own parser of the input, row by row.
pub mod copy;
