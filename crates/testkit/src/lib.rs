//! What the tests on real servers share: clusters with the extension, sessions that answer in text, and the
//! comparison of all placements of a table.
//!
//! Whatever fails here panics with the SQL that failed: these are helpers of tests, and a test has nobody else
//! to tell. Nothing here knows how pg_shard works; it sees what a user sees, and the workers' tables.

/// Clusters, and what their metadata say.
mod test_cluster;

/// Nodes that speak TLS.
mod certificates;

/// One session: SQL in, text out.
mod session;

/// pgbench and psql of the private installation.
mod programs;

/// Numbers for tests that choose.
mod random;

/// Waiting for something to become true.
mod wait;

pub use programs::{Pgbench, PgbenchReport, Script};
pub use random::{Random, seed};
pub use session::{Notice, Rows, Session, SqlError};
pub use test_cluster::{Placement, TestCluster};
pub use wait::wait_until;

pub use cluster::NodeName;
pub use cluster::postgres;
