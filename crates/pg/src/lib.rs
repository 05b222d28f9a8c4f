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
//!   [`boundary`](sys::boundary), or carries them past PostgreSQL's frames as `node.rs` does for visitors of trees.
//! * What recurses by the depth of a statement checks the stack, and holds no guard at each level.
//!
//! A backend is one thread; nothing here may be called from another.
#![allow(unsafe_code, reason = "this crate is the one place for it")]
#![deny(clippy::undocumented_unsafe_blocks)]

/// How PostgreSQL calls us.
pub mod hooks;

/// What this crate asks the extension.
pub mod extension;

/// PostgreSQL's structures as Rust sees them: errors, nodes and lists, values, tables of functions.
pub mod sys;

/// From a query tree to facts: what a statement touches, asks for, and may run where.
pub mod read;

/// Sub-queries turned into joins before PostgreSQL plans.
mod rewrite;

/// A statement as SQL for the nodes, and the check that it says what was meant.
pub mod print;

/// Distributed tables in PostgreSQL's planner: relations, paths and plans that run on the nodes.
pub mod path;

/// Our nodes in PostgreSQL's executor: scans, rows, cursors, changes, COPY.
pub mod exec;

/// Connections to the nodes: opening, talking, waiting.
pub mod net;

/// Catalogs, tables, statistics, and SQL of our own.
pub mod catalog;

/// The server around a statement: transactions, locks, workers, shared memory, utility statements.
pub mod server;

/// When transactions commit, and statements that read at a given time.
pub mod time;

pub use sys::error::{PgError, SqlState};
pub use sys::version::MAJOR_VERSION;
