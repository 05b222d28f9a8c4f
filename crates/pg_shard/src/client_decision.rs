//! The decision about a transaction that the client had prepared: COMMIT PREPARED or ROLLBACK PREPARED by the client.
//!
//! What nodes have prepared of it then commits at one time, which is after those of all readers who were told that it is not decided.

use pg::time::{self, Time};
use std::cell::Cell;

thread_local! {
    /// Before which time the transaction does not commit that is being ended.
    static DECISION: Cell<Option<Time>> = const { Cell::new(None) };
}

/// The client is about to decide.
pub(crate) fn begin() {
    DECISION.set(time::begin_decision(time::now().unwrap_or_default()));
}

/// When the transaction commits that the client has just ended.
pub(crate) fn time() -> Option<Time> {
    DECISION.get()
}

/// What it has prepared is ended on all nodes, or something may be left.
pub(crate) fn end(is_done: bool) {
    if DECISION.take().is_some() {
        time::end_decision(is_done);
    }
}
