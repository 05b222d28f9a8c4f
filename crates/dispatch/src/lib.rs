//! What a scan or a write does when nodes answer, refuse or are lost: events in, commands out.
//!
//! These engines know neither sessions nor SQL. The extension tells them what has happened and does what they say, so
//! each row of the failure table is a unit test here.

/// Which node reads which shards.
pub mod assignment;

/// Reading from nodes, with retries and fail-over.
pub mod read;

#[cfg(test)]
mod failure_table;
