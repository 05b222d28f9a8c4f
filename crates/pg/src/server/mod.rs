//! The server around a statement: transactions, locks, workers, shared memory, utility statements.

/// What the backend has been asked to end.
pub mod interrupts;

/// Room for prepared transactions.
pub mod prepared;

/// Indexes that are built, rebuilt and dropped.
pub mod maintenance;

/// Definitions: what the statement alone says.
pub mod alter;

/// Statements about objects that tables need.
mod object_statement;

/// Statements about roles.
pub mod role_statement;

/// What backends have under way, for others to see.
pub mod activity;

/// Work in a transaction of its own, on another process.
pub mod background;

/// Rounds through the databases, in the background.
pub mod rounds;

/// Who ends what is in doubt.
pub mod resolver;

/// Nodes that are down.
pub mod down;

/// Writes that two nodes are committing at once.
pub mod in_flight;

/// Sessions that were given up while a node was at work for them.
pub mod given_up;

/// Heavyweight locks on shards.
pub mod lock;

/// Who waits for whom.
pub mod waits;

/// The row by which a transaction shows that it has committed.
pub mod decision;

/// What lies between the nodes' commit and the local one.
pub mod commit;

/// Notifications of transactions whose nodes commit.
pub mod notifications;

/// Settings in which the nodes follow the client.
pub mod settings;

/// Parts of a transaction that may fail.
pub mod attempt;

/// Transaction events.
pub mod transaction;

/// In whose name the backend acts.
pub mod identity;

/// SET CONSTRAINTS.
pub mod constraints;

/// Utility statements.
pub mod utility;

/// Sessions that all backends share.
pub mod shared;

/// `pg_upgrade` has started this server: what it asks is about this server's own catalog, and no node is to be asked.
pub fn is_being_upgraded() -> bool {
    // SAFETY: a global that the postmaster sets before it preloads libraries.
    unsafe { pgrx::pg_sys::IsBinaryUpgrade }
}
