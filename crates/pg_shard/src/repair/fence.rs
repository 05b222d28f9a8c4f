//! What nodes may still execute for sessions that were given up.
//!
//! A session is given up when its node does not answer. The statement that it was sent may lie in the socket of a process that has stopped, or on
//! its way through a network that has. When that goes on, the node executes the statement, and commits it if that needs no further message.
//! Its placement is marked by then, which does no harm, or has been repaired: then the statement would be executed a second time, or on one of two placements.
//!
//! So whoever makes a placement healthy, or the source of another one, first ends the processes of such sessions on its node, and waits until they
//! are gone. Whoever writes holds the shard's lock to its end, so that there are no others. A statement that has begun holds locks of its
//! table, which a repair waits for.

use crate::functions::literal;
use crate::nodes::number;
use crate::session::pool;
use crate::session::{Failure, NoSession, Session};
use crate::transaction::NodeFailure;
use pg::catalog::table;
use pg::net::wait::{clock, pause};
use pg::server::given_up::{self, Process};
use pg::{PgError, SqlState};
use shardmap::NodeAddress;
use std::time::Duration;

/// How long a repair waits for processes to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks.
const TICK: Duration = Duration::from_millis(20);

/// Ends the node's processes that serve nobody any more.
///
/// # Errors
///
/// 55P03 if one of them has not ended after that time; what `failed` makes of a node that cannot be asked.
pub(crate) fn end_strays(
    node: &NodeAddress,
    patience: Duration,
    failed: &dyn Fn(NodeFailure) -> PgError,
) -> Result<(), PgError> {
    let strays = given_up::of(number(node));
    if strays.is_empty() {
        return Ok(());
    }
    let mut session = open(node).map_err(failed)?;
    let broken = |failure| match failure {
        Failure::Lost(error) => failed(NodeFailure::Unreachable(error)),
        Failure::Statement(error) => failed(NodeFailure::Error(error)),
    };
    // The number and the database are there for every role. A start that it may not see is not another process's: then ending it is refused.
    let is_stray: Vec<String> = strays
        .iter()
        .map(|Process { pid, started }| match started {
            0 => format!("pid = {pid}"),
            _ => format!(
                "pid = {pid} AND coalesce(pg_catalog.extract('epoch', backend_start) = {}.{:06}, true)",
                started / 1_000_000,
                started % 1_000_000
            ),
        })
        .collect();
    let there = format!(
        "FROM pg_catalog.pg_stat_activity WHERE datname = {} AND ({})",
        literal(&table::current_database()),
        is_stray.join(" OR ")
    );
    let end = format!("SELECT pg_catalog.pg_terminate_backend(pid) {there}");
    session.run(&end, None, &mut |_| Ok(())).map_err(broken)?;
    let until = clock() + patience;
    loop {
        let mut is_there = false;
        let look = format!("SELECT 1 {there} LIMIT 1");
        session
            .run(&look, None, &mut |_| {
                is_there = true;
                Ok(())
            })
            .map_err(broken)?;
        if !is_there {
            given_up::forget(number(node), &strays);
            return Ok(());
        }
        if clock() >= until {
            return Err(still_there(node));
        }
        pause(TICK);
    }
}

/// As the extension's owner, who may end everybody's processes, or else as whoever acts.
fn open(node: &NodeAddress) -> Result<Session, NodeFailure> {
    let owner = table::relation_oid("pgs_catalog", "decision").and_then(table::owner);
    let opened = owner.map(|owner| pool::logged_in_as(owner, || Session::open(node)));
    let opened = match opened {
        // It may have no session there; one that cannot be reached is not tried again.
        None | Some(Err(NoSession::Refused(_))) => Session::open(node),
        Some(opened) => opened,
    };
    opened.map_err(|reason| match reason {
        NoSession::Unreachable(error) => NodeFailure::Unreachable(error),
        NoSession::Refused(error) => NodeFailure::Error(error),
    })
}

fn still_there(node: &NodeAddress) -> PgError {
    PgError::new(
        SqlState::LOCK_NOT_AVAILABLE,
        format!("a process on node \"{node}\" may still execute what it was sent"),
    )
    .detail("It did not answer, and its session was given up. It has been told to end, and has not ended yet.")
    .hint("Try again when it has ended; pg_stat_activity on the node shows it.")
}
