//! SERIALIZABLE over several nodes: each node has a gate, through which such transactions go.
//!
//! A node finds the conflicts between the SERIALIZABLE transactions that it knows, but two nodes may order the same two transactions
//! differently, and neither sees a circle that closes over both. So a transaction on one node shares the node's gate with others
//! of its kind, which the node keeps serializable. One on several nodes needs each of their gates alone at some moment
//! before it commits, and keeps them to its end: on every node it comes before or after any other transaction on several nodes, and the
//! order of these moments is the same everywhere. The proof is in decision 105.
//!
//! The gate is a table, and who goes through it locks it: ROW SHARE, or EXCLUSIVE. LOCK TABLE takes no snapshot, so that the transaction's
//! own is taken behind the gate, and PREPARE TRANSACTION keeps the lock. Coordinators need not know of each other.
//!
//! Of one coordinator's transactions, one at a time uses several nodes ([`ShardLock::Several`]). Who has gone through a gate already does
//! not wait for its turn, since two of them would wait for each other: it fails with 40001.

use crate::catalog;
use pg::catalog::table;
use pg::server::lock::{self, Mode, ShardLock};
use pg::server::transaction::{self, Isolation};
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::NodeAddress;
use std::cell::Cell;

/// Has a node's gate alone, to the end of the transaction.
pub(crate) const ALONE: &str = "LOCK TABLE pgs_catalog.serializable_gate IN EXCLUSIVE MODE";

thread_local! {
    /// The client's transaction uses several nodes, or is about to.
    static USES_SEVERAL: Cell<bool> = const { Cell::new(false) };
}

/// How the remote transaction has gone through its node's gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Gate {
    /// It is not SERIALIZABLE, or has not begun.
    #[default]
    None,
    /// With others.
    Shared,
    /// Alone, since it was so deep.
    Alone(u32),
}

/// The client's transaction uses SERIALIZABLE.
pub(super) fn is_wanted() -> bool {
    transaction::isolation_level() == Isolation::Serializable
}

/// It uses several nodes, or is about to.
pub(super) fn uses_several() -> bool {
    USES_SEVERAL.get()
}

/// Notes that it does.
pub(super) fn note_several() {
    USES_SEVERAL.set(true);
}

/// Waits until no other transaction of this server uses several nodes, unless this one has gone through a gate already.
pub(super) fn take_turn(is_inside: bool) -> Result<(), PgError> {
    if !is_inside {
        lock::lock_shard(ShardLock::Several, Mode::Exclusive);
        return Ok(());
    }
    if lock::try_lock_shard(ShardLock::Several, Mode::Exclusive) {
        return Ok(());
    }
    let text = "could not serialize access: another SERIALIZABLE transaction uses several nodes";
    Err(PgError::new(SqlState::SERIALIZATION_FAILURE, text)
        .detail("Of those that use several nodes one runs at a time.")
        .hint("Run the transaction again."))
}

/// The transaction has gone through a gate: it must not have used what has none.
///
/// # Errors
///
/// If it has used a local table.
pub(super) fn check_local_tables() -> Result<(), PgError> {
    let Some(table) = local_table() else { return Ok(()) };
    Err(PgError::unsupported(
        format!(
            "cannot use local table \"{}\" in a SERIALIZABLE transaction with distributed tables",
            table::relation_name(table)
        ),
        "Use REPEATABLE READ, or create_reference_table().",
    ))
}

/// An ordinary table of this server's that the transaction has used: this server's gate would be passed by transactions that we do
/// not see.
fn local_table() -> Option<Oid> {
    let is_local = |oid: Oid| {
        // Below are the system catalogs.
        oid.to_u32() >= 16384
            && table::describe(oid).is_some_and(|relation| {
                let is_ours = ["pgs_catalog", "pgs_distribution_metadata"];
                b"rpm".contains(&relation.kind)
                    && relation.persistence != b't'
                    && !is_ours.contains(&&*relation.schema)
                    && catalog::find(oid).is_none()
            })
    };
    lock::relations_in_use().into_iter().find(|oid| is_local(*oid))
}

/// The client's transaction is over.
pub(crate) fn forget() {
    USES_SEVERAL.set(false);
}

/// The error for a second session on one node: the node takes them for two transactions.
pub(super) fn two_on_one_node(node: &NodeAddress) -> PgError {
    PgError::unsupported(
        format!("cannot use node \"{node}\" as two roles in a SERIALIZABLE transaction"),
        "Use REPEATABLE READ, or run what the two roles do in transactions of their own.",
    )
}

/// The error for a node without a gate.
pub(super) fn no_gate(node: &NodeAddress) -> PgError {
    PgError::unsupported(
        format!("cannot use node \"{node}\" in a SERIALIZABLE transaction: it lacks the extension"),
        "CREATE EXTENSION pg_shard on the node, or use REPEATABLE READ.",
    )
}
