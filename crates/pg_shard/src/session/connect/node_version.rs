//! Major versions of PostgreSQL in one cluster.
//!
//! A server asks nodes of its own version, and of later ones while a cluster is upgraded: what it prints, and the functions
//! and types that it sends for, are there too. It does not ask nodes of an earlier version, which may not understand it. A node
//! tells its version at the log-in.

use pg::net::libpq::Connection;
use pg::{MAJOR_VERSION, PgError, SqlState};
use shardmap::NodeAddress;

/// An error if the node that has just let us in is of an earlier version.
pub(super) fn check(connection: &Connection, node: &NodeAddress) -> Result<(), PgError> {
    // A pool may keep it to itself.
    let Some(version) = connection.parameter(c"server_version") else { return Ok(()) };
    match major_of(&version) {
        Some(major) if major < MAJOR_VERSION => Err(refusal(node, &version)),
        _ => Ok(()),
    }
}

fn major_of(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn refusal(node: &NodeAddress, version: &str) -> PgError {
    PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "node \"{node}\" runs PostgreSQL {version}, which is earlier than PostgreSQL {MAJOR_VERSION} of this server"
        ),
    )
    .hint("Upgrade all workers before the coordinator.")
}
