//! Transactions that are prepared on nodes, for whoever looks.

use crate::resolver;
use ::commit::Verdict;
use pg::sys::error::raise;
use pgrx::prelude::*;

/// What the view `pgs_catalog.in_doubt` is made of: node, gid, when it was prepared (as text), and what has been decided.
#[pg_extern]
fn in_doubt_transactions() -> TableIterator<
    'static,
    (
        name!(node_name, String),
        name!(node_port, i32),
        name!(gid, String),
        name!(prepared, String),
        name!(decision, &'static str),
    ),
> {
    let rows = raise(resolver::in_doubt()).into_iter().map(|found| {
        let decision = match found.verdict {
            Some(Verdict::Commit) => "commit",
            Some(Verdict::RollBack) => "rollback",
            Some(Verdict::Wait) => "undecided",
            None => "unknown",
        };
        (found.node.host.to_string(), found.node.port, found.gid, found.since, decision)
    });
    TableIterator::new(rows.collect::<Vec<_>>())
}
