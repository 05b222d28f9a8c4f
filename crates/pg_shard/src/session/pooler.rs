//! Connection pools between coordinator and node.
//!
//! A pool that gives each client a server connection of its own (PgBouncer's session mode) is as good as the server. One that
//! hands a server connection to whichever client has a transaction to run is not: settings and prepared statements of one
//! session would be another's. It is found when a session is opened. A server tells the client its process number when it logs
//! in, and again in SQL; a pool makes the former up. Where they differ, a second connection is opened while the first is idle:
//! if it meets the process that the first one has met, they share it.

use super::NoSession;
use super::connect::connect;
use pg::net::link::Link;
use pg::{PgError, SqlState};
use protocol::Kind;
use shardmap::NodeAddress;
use std::cell::RefCell;
use std::time::Duration;

/// A pool that has no server connection left for the second client gives each its own.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many second connections are opened to see whether they meet the first one's process.
const ATTEMPTS: usize = 3;

thread_local! {
    /// Nodes behind a pool that gives each client its own server connection.
    static GOOD: RefCell<Vec<NodeAddress>> = const { RefCell::new(Vec::new()) };
}

/// An error if the server connection that this idle session has met is shared with others. `told` is the process number of the
/// log-in, `met` that of SQL.
pub(super) fn check(node: &NodeAddress, told: i32, met: &str) -> Result<(), NoSession> {
    if met.parse() == Ok(told) || GOOD.with_borrow(|good| good.contains(node)) {
        return Ok(());
    }
    // Others may have taken the server connection meanwhile; they do not each time.
    for _ in 0..ATTEMPTS {
        match second(node) {
            Some(second) if second == met => return Err(NoSession::Refused(shared(node))),
            Some(_) => {}
            None => break,
        }
    }
    GOOD.with_borrow_mut(|good| good.push(node.clone()));
    Ok(())
}

/// The number of the process that a second connection meets, if it meets one soon.
fn second(node: &NodeAddress) -> Option<String> {
    let mut link = Link::new(connect(node).ok()?).ok()?;
    link.flight().query("SELECT pg_catalog.pg_backend_pid()");
    while !link.send_some().ok()? {
        if !link.wait_for_room(Some(PATIENCE)).ok()? {
            return None;
        }
    }
    loop {
        while let Some(message) = link.message().ok()? {
            match message.kind {
                Kind::Row => return link.row(&message).first_text(),
                Kind::Error | Kind::Ready(_) => return None,
                _ => {}
            }
        }
        if !link.wait(Some(PATIENCE)).ok()? {
            return None;
        }
    }
}

/// The node has a statement of our session's name that is another session's: then the server connection is.
pub(super) fn explain(error: PgError, node: &NodeAddress) -> PgError {
    let is_ours = error.sqlstate() == SqlState::DUPLICATE_PREPARED_STATEMENT
        && error.message().starts_with("prepared statement \"s");
    if is_ours {
        shared(node).detail(format!("Remote message: {}", error.message()))
    } else {
        error
    }
}

fn shared(node: &NodeAddress) -> PgError {
    PgError::unsupported(
        format!("cannot use a connection pool that shares server connections for node \"{node}\""),
        "Set pool_mode = session for the coordinator's connections, or name the server itself in the worker list and in \
         pgs_distribution_metadata.shard_placement.",
    )
}
