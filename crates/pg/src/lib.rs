//! The wall between PostgreSQL's C and pg_shard: every `unsafe` block and every version difference is here.
//!
//! The law of the border: pointers that PostgreSQL hands us are wrapped in small handle types that live for the
//! call in which they were given; what the extension thinks about are owned Rust values, copied out once.
//!
//! PostgreSQL reports errors by `longjmp`. Four rules keep destructors and jumps apart:
//! * A call through `pgrx::pg_sys` is guarded: it turns an ERROR into a panic, which unwinds and runs destructors.
//! * A call of what is declared in a `mod raw` is not. Either the function raises nothing, or the caller's frame and those
//!   above it, up to the next guard or to PostgreSQL, hold nothing to drop.
//! * No panic passes a guard: its frame may not unwind, and the process would abort. So a function of ours that PostgreSQL
//!   calls is plain and calls `mod raw` only, or keeps panics in: it turns them, and our own [`error::PgError`]s, back at
//!   [`error::boundary`], or carries them past PostgreSQL's frames as `node.rs` does for visitors of trees.
//! * What recurses by the depth of a statement checks the stack, and holds no guard at each level.
//!
//! A backend is one thread; nothing here may be called from another.
#![allow(unsafe_code, reason = "this crate is the one place for it")]
#![deny(clippy::undocumented_unsafe_blocks)]

/// What backends have under way, for others to see.
pub mod activity;

/// Work in a transaction of its own, on another process.
pub mod background;

/// Rounds through the databases, in the background.
pub mod rounds;

/// What lies between the nodes' commit and the local one.
pub mod commit;

/// COPY: PostgreSQL's own parser of the input, row by row.
pub mod copy;

/// Errors as PostgreSQL knows them.
pub mod error;

/// How PostgreSQL calls us.
pub mod hooks;

/// libpq: opening connections.
pub mod libpq;

/// What is said on an open connection.
pub mod link;

/// What PostgreSQL keeps with a distributed table.
pub mod mark;

/// Heavyweight locks on shards.
pub mod lock;

/// WHERE CURRENT OF.
pub mod cursor;

/// Cursors that go backward though nobody said SCROLL.
mod scrolling;

mod node;

/// Distributed tables in PostgreSQL's own planner.
pub mod path;

/// Relations of the planner that the workers can compute, and their SQL.
mod remote;

/// Sub-queries in FROM that the workers can compute.
mod subselect;

/// Whether a statement reads more than once.
mod repeated;

/// Joins on the workers.
mod join;

/// FOR UPDATE with LIMIT.
pub mod claim;

/// Joins of a table whose rows are locked.
mod lock_join;

/// Joins of rows that are read here with what the workers find for them.
pub mod matched;

/// Rows that are kept here while they are sent along by number.
mod numbered;

/// Joins of rows that move from worker to worker.
mod moved;

/// Rows that a node keeps for others, in parts.
pub mod parts;

/// Aggregates in parts.
mod aggregate;

/// What a user's aggregate is made of.
pub mod definition;

/// The worker's half of a user's aggregate in parts.
pub mod partial_state;

/// `ctid` over several shards.
mod tid;

/// Grouping, DISTINCT, ORDER BY and LIMIT on the workers.
mod upper;

/// Sorted streams as inputs of what runs here.
mod sorted;

/// Window functions on the workers.
mod window;

/// What a path of ours sends, and its plan.
mod pushed;

/// What the planner knows of a table's rows.
pub mod statistics;

/// Plans as PostgreSQL keeps them.
pub mod plan;

/// Scans that ask before their first row is fetched.
mod early;

/// Writes whose rows are computed here.
pub mod pulled;

/// The rows of such a write, as changes.
pub mod changes;

/// What an analysed query is and says.
pub mod query;

/// Nested conditions as one.
mod flat;

/// Where the rows of an INSERT come from.
mod insert_source;

/// Making a statement ready for the workers.
mod prepare;

/// Assignments as they are printed.
mod assigned;

/// What the rewriter leaves behind.
mod rewritten;

/// Whether what was printed is what was meant.
mod verify;

/// Reading what a statement touches and says.
mod facts;

/// Correlated sub-queries as joins.
mod decorrelate;

/// Correlated sub-queries anywhere as LEFT JOINs.
mod sublink;

/// LATERAL sub-queries as joins.
mod lateral;

/// Expressions that raise nothing.
mod infallible;

/// What may run where.
mod shippable;

/// Stored values, read back.
mod stored;

/// What may run with rights that are lent.
mod lent;

/// Tables of functions for nodes of ours.
mod custom;

/// Our scan node in PostgreSQL's executor.
pub mod scan;

/// Remote rows: decoding and keeping.
pub mod rows;

/// Remote rows that are not decoded yet.
mod undecoded;

/// Kept rows that are found by value.
mod lookup;

/// Sorted streams of remote rows.
pub mod merge;

/// SQL of our own, and other roles' rights.
pub mod privileged;

/// Tables, catalogs and settings.
pub mod table;

/// Statements that differ in constants only.
pub mod shape;

/// A statement as SQL for any shard.
pub mod template;

/// Transaction events.
pub mod transaction;

/// Functions of the server that raise nothing.
mod unguarded;

/// Utility statements.
pub mod utility;

/// Values between datums and the wire.
pub mod value;

/// Waiting for nodes.
pub mod wait;

pub use error::{PgError, SqlState};
