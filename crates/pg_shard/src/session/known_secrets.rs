//! Secrets of nodes that this backend has been told, and how a node says that it does not believe an instruction.

use pg::net::wait::clock;
use pg::{PgError, SqlState};
use shardmap::NodeAddress;
use shardmap::instruction::Secret;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

/// How long a node is not asked again that has not told its secret.
const SILENT: Duration = Duration::from_secs(60);

struct Known {
    secret: Option<Secret>,
    until: Duration,
}

thread_local!(static KNOWN: RefCell<HashMap<NodeAddress, Known>> = RefCell::default());

/// The secret of a node, if it tells it; `ask` asks for it, at most once in a while.
pub(super) fn of(node: &NodeAddress, ask: impl FnOnce() -> Option<Secret>) -> Option<Secret> {
    let kept = KNOWN.with_borrow(|known| {
        let known = known.get(node)?;
        (known.secret.is_some() || known.until > clock()).then(|| known.secret.clone())
    });
    kept.unwrap_or_else(|| {
        let secret = ask();
        let known = Known { secret: secret.clone(), until: clock() + SILENT };
        KNOWN.with_borrow_mut(|all| all.insert(node.clone(), known));
        secret
    })
}

/// A node has not believed an instruction: its secret is another one now.
pub(crate) fn forget() {
    KNOWN.with_borrow_mut(HashMap::clear);
}

/// The time, in seconds since PostgreSQL's epoch.
pub(super) fn seconds() -> u64 {
    u64::try_from(pg::server::activity::now() / 1_000_000).unwrap_or(0)
}

/// The beginning of the message of a node that does not believe an instruction.
const NOT_PROVEN: &str = "permission denied for an instruction that no coordinator has given";

/// A node has not believed an instruction.
pub(crate) fn is_not_proven(error: &PgError) -> bool {
    error.sqlstate() == SqlState::INSUFFICIENT_PRIVILEGE && error.message() == NOT_PROVEN
}

/// The error of a node that does not believe an instruction.
pub(crate) fn not_proven() -> PgError {
    PgError::new(SqlState::INSUFFICIENT_PRIVILEGE, NOT_PROVEN).hint(
        "Statements over distributed tables call such functions, with proof that a coordinator has planned them.",
    )
}
