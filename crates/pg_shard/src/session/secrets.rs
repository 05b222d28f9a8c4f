//! The secrets by which nodes know that a coordinator instructs them: this node's own, and those of the nodes that this
//! coordinator instructs. What a proof covers is in `shardmap/src/instruction.rs`.
//!
//! CREATE EXTENSION makes a secret for each node, in a table that ordinary roles cannot read. A coordinator reads it
//! over a connection of its own as the owner of its own such table, a superuser, when a plan first needs it, and keeps it in
//! the backend's memory. Where that role cannot log in or read it, plans that need a proof are not made.

use super::{known_secrets, pool};
use pg::PgError;
use pg::catalog::table::{self, Search};
use shardmap::NodeAddress;
use shardmap::instruction::{Purpose, Secret};

pub(crate) use super::known_secrets::{forget, is_not_proven, not_proven};

/// The secret of a node, if it tells it.
pub(crate) fn of(node: &NodeAddress) -> Option<Secret> {
    pool::secret_of(node)
}

/// An instruction to a node for a session of `role`, with its proof; without one if the node's secret is not known, which
/// the node then refuses.
pub(crate) fn seal(node: &NodeAddress, purpose: Purpose, role: &str, text: &str) -> String {
    match of(node) {
        Some(secret) => secret.seal(purpose, role, text, known_secrets::seconds()),
        None => format!("\n{text}"),
    }
}

/// On a node: what a sealed text says, if a coordinator has given it for the current role.
pub(crate) fn open(purpose: Purpose, sealed: &str) -> Result<&str, PgError> {
    open_for(&table::role_name(table::current_role()), purpose, sealed)
}

/// The same for that role.
pub(crate) fn open_for<'a>(
    role: &str,
    purpose: Purpose,
    sealed: &'a str,
) -> Result<&'a str, PgError> {
    let mut own = None;
    if let Some(table) = pool::table_of_secret() {
        table::scan(table, None, 1, Search::All, &mut |row| own = Secret::from_hex(&row.text(1)));
    }
    own.and_then(|secret| secret.open(purpose, role, sealed, known_secrets::seconds()))
        .ok_or_else(not_proven)
}
