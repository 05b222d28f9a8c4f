//! The secrets by which nodes know that a coordinator instructs them: this node's own, and those of the nodes that this
//! coordinator instructs. What a proof covers is in `shardmap/src/instruction.rs`.
//!
//! CREATE EXTENSION makes a secret for each node, in a table that ordinary roles cannot read. A coordinator reads it
//! over a connection of its own as the owner of its own such table, a superuser, when a plan first needs it, and keeps it in
//! the backend's memory. Where that role cannot log in or read it, plans that need a proof are not made.

use super::{Session, pool};
use pg::catalog::table::{self, Search};
use pg::net::wait::clock;
use pg::{PgError, SqlState};
use shardmap::NodeAddress;
use shardmap::instruction::{Purpose, Secret};
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

/// The secret of a node, if it tells it.
pub(crate) fn of(node: &NodeAddress) -> Option<Secret> {
    let kept = KNOWN.with_borrow(|known| {
        let known = known.get(node)?;
        (known.secret.is_some() || known.until > clock()).then(|| known.secret.clone())
    });
    kept.unwrap_or_else(|| {
        let secret = ask(node);
        let known = Known { secret: secret.clone(), until: clock() + SILENT };
        KNOWN.with_borrow_mut(|all| all.insert(node.clone(), known));
        secret
    })
}

/// A node has not believed an instruction: its secret is another one now.
pub(crate) fn forget() {
    KNOWN.with_borrow_mut(HashMap::clear);
}

/// An instruction to a node for a session of `role`, with its proof; without one if the node's secret is not known, which
/// the node then refuses.
pub(crate) fn seal(node: &NodeAddress, purpose: Purpose, role: &str, text: &str) -> String {
    match of(node) {
        Some(secret) => secret.seal(purpose, role, text, seconds()),
        None => format!("\n{text}"),
    }
}

fn ask(node: &NodeAddress) -> Option<Secret> {
    if pool::seems_silent(node) {
        return None;
    }
    let owner = table::owner(table_of_secret()?)?;
    let mut session = pool::logged_in_as(owner, || Session::open(node)).ok()?;
    let mut secret = None;
    let read = session.run("SELECT secret FROM pgs_catalog.secret", None, &mut |row| {
        secret = row.first_text().as_deref().and_then(Secret::from_hex);
        Ok(())
    });
    read.ok().and(secret)
}

fn table_of_secret() -> Option<pgrx::pg_sys::Oid> {
    table::relation_oid("pgs_catalog", "secret")
}

/// The time, in seconds since PostgreSQL's epoch.
fn seconds() -> u64 {
    u64::try_from(pg::server::activity::now() / 1_000_000).unwrap_or(0)
}

/// The beginning of the message of a node that does not believe an instruction.
const NOT_PROVEN: &str = "permission denied for an instruction that no coordinator has given";

/// A node has not believed an instruction.
pub(crate) fn is_not_proven(error: &PgError) -> bool {
    error.sqlstate() == SqlState(*b"42501") && error.message() == NOT_PROVEN
}

/// On a node: what a sealed text says, if a coordinator has given it for the current role.
pub(crate) fn open(purpose: Purpose, sealed: &str) -> Result<&str, PgError> {
    let mut own = None;
    if let Some(table) = table_of_secret() {
        table::scan(table, None, 1, Search::All, &mut |row| own = Secret::from_hex(&row.text(1)));
    }
    let role = table::role_name(table::current_role());
    own.and_then(|secret| secret.open(purpose, &role, sealed, seconds())).ok_or_else(|| {
        PgError::new(SqlState(*b"42501"), NOT_PROVEN)
            .hint("Statements over distributed tables call such functions, with proof that a coordinator has planned them.")
    })
}
