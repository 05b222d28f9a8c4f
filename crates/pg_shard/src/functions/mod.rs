//! The functions that users call, as pg_shard 1.2 named them.
//!
//! Each understands its arguments, decides and acts; errors have 1.2's messages and SQLSTATEs where the
//! situation still exists. What 1.2 never asked: the caller must own the table.

/// Distributing tables and creating their shards.
mod distribute;

/// A session acts as another role.
mod lending;

/// Partitions of distributed tables.
pub(crate) mod partitions;

/// Rows of a local table on their way.
mod store;

/// Tables that become distributed with their rows, and local again.
mod convert;

/// Large tables that become distributed beside their users.
pub(crate) mod online;

/// Changing how a table is distributed.
mod alter;

/// Commands on many nodes, shards or placements.
mod commands;

/// Columns as node-tree texts.
mod columns;

/// Calls that repair placements.
mod repair;

/// Placements that are moved, copied and removed.
mod relocation;

/// Rows that moved here.
pub(crate) mod repartition;

/// Transactions that are prepared on nodes.
mod in_doubt;

/// Sessions that all backends share.
mod shared_sessions;

/// Sizes and counters of the shards.
mod sizes;

/// The clock and commit times.
mod time;

/// Nodes come and go.
mod nodes;

/// Plans for moving shards between nodes.
mod shares;

/// `pg_worker_list.conf`.
mod worker_list;

pub(crate) use distribute::{SERVER, create_extension, equip, next_shard_id};
use pg::catalog::privileged;
use pg::catalog::table;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
pub(crate) use worker_list::{read as listed_nodes, same_server};

/// The caller owns the table.
pub(crate) fn check_owner(oid: Oid) -> Result<(), PgError> {
    if table::is_owned_by_user(oid) {
        return Ok(());
    }
    let name = table::describe(oid).map_or_else(String::new, |relation| relation.name);
    Err(PgError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("must be owner of table {name}")))
}

/// An argument that must not be NULL, of a function that PostgreSQL calls with NULLs.
fn given<T>(argument: Option<T>, name: &str) -> Result<T, PgError> {
    argument.ok_or_else(|| {
        PgError::new(SqlState::NULL_VALUE_NOT_ALLOWED, format!("{name} must not be null"))
    })
}

/// Runs SQL on the metadata with the extension's rights.
pub(crate) fn change_metadata(sql: &str) -> Result<(), PgError> {
    privileged::run(sql)
}

/// A text as an SQL literal.
pub(crate) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
