//! Repair: what users call on the coordinator, and what a coordinator calls on a node.

use super::check_owner;
use crate::catalog;
use crate::repair::{self, CONSULT_LOGS, Instruction};
use crate::session::pool;
use crate::session::secrets;
use crate::session::{Failure, NoSession, Session};
use pg::catalog::privileged;
use pg::catalog::table::{self, RelationLock};
use pg::exec::copy::{self, CopySource, ForeignKeys, RowFormat};
use pg::server::utility::copied_columns;
use pg::sys::error::raise;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use shardmap::binary_types::are_portable;
use shardmap::instruction::Purpose;
use shardmap::{NodeAddress, ShardId};

#[pg_extern]
fn master_copy_shard_placement(
    shard_id: i64,
    source_node_name: &str,
    source_node_port: i32,
    target_node_name: &str,
    target_node_port: i32,
) {
    let source = NodeAddress { host: source_node_name.into(), port: source_node_port };
    let target = NodeAddress { host: target_node_name.into(), port: target_node_port };
    raise(repair::repair(ShardId(shard_id), &source, &target).map(drop));
}

/// Placements that differ from the first healthy one of their shard: shard, node, and how many rows they lack and have in surplus; NULL
/// where the two are defined differently, or too many rows differ.
#[allow(clippy::type_complexity, reason = "the columns stand where SQL's function has them")]
#[pg_extern]
fn check_placements(
    table_name: Oid,
    repairs: bool,
) -> TableIterator<
    'static,
    (
        name!(shard_id, i64),
        name!(node_name, String),
        name!(node_port, i32),
        name!(rows_missing, Option<i64>),
        name!(rows_surplus, Option<i64>),
    ),
> {
    let count = |rows: usize| i64::try_from(rows).unwrap_or(i64::MAX);
    let rows = raise(repair::check(table_name, repairs)).into_iter().map(|found| {
        let (missing, surplus) = found.rows.unzip();
        let node = found.node;
        (found.shard.0, node.host.to_string(), node.port, missing.map(count), surplus.map(count))
    });
    TableIterator::new(rows.collect::<Vec<_>>())
}

#[pg_extern]
fn worker_copy_shard_placement(table_name: &str, source_node_name: &str, source_node_port: i32) {
    let source = NodeAddress { host: source_node_name.into(), port: source_node_port };
    let allowed = || {
        // It connects to any host, with the server's own credentials.
        if table::is_superuser() {
            return Ok(());
        }
        Err(PgError::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            "must be superuser to call worker_copy_shard_placement",
        )
        .hint("A table's owner repairs a placement with master_copy_shard_placement on the coordinator."))
    };
    raise(allowed().and_then(|()| copy_from_node(table_name, &source)));
}

/// The same for a table's owner, on a coordinator's word.
#[pg_extern]
fn copy_shard_placement(instruction: &str) {
    let copy = || {
        let text = secrets::open(Purpose::Copy, instruction)?;
        let instruction = Instruction::parse(text).ok_or_else(|| {
            PgError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "no such instruction to copy a placement",
            )
        })?;
        copy_from_node(instruction.table, &instruction.source)
    };
    raise(copy());
}

/// Appends the rows of the table of the same name on another node to the local one.
fn copy_from_node(name: &str, source: &NodeAddress) -> Result<(), PgError> {
    let oid = table::resolve(name, RelationLock::RowExclusive);
    check_owner(oid)?;
    let columns: Vec<String> = copied_columns(oid).into_iter().map(|(_, name)| name).collect();
    let quoted: Vec<String> = columns.iter().map(|name| catalog::quote(name)).collect();
    let mut session = Session::open(source).map_err(|reason| {
        let (NoSession::Unreachable(error) | NoSession::Refused(error)) = reason;
        not_stored(source, &error)
    })?;
    let types =
        table::columns(oid).into_iter().map(|it| table::column_type(oid, it.number).0.to_u32());
    let (format, option) = match are_portable(types) {
        true => (RowFormat::Binary, " (FORMAT binary)"),
        false => (RowFormat::Text, ""),
    };
    let sql = format!(
        // Of a table only: where somebody has put a view in its place, its functions must not run in our name.
        "COPY {} ({}) TO STDOUT{option}",
        pg::print::template::qualified_name(oid),
        quoted.join(", ")
    );
    session.start_copy_out(&sql).map_err(|failure| {
        let (Failure::Lost(error) | Failure::Statement(error)) = failure;
        not_stored(source, &error)
    })?;
    // Functions of the owner look at the rows: constraints, domains, indexes, generated columns.
    let owner = table::owner_of(oid)?;
    let remote = Box::new(Remote { session, source: source.clone() });
    privileged::as_restricted(owner, || {
        copy::receive(oid, &columns, format, remote, ForeignKeys::Checked)
    })
    .map(drop)
}

fn not_stored(source: &NodeAddress, error: &PgError) -> PgError {
    pg::sys::error::warning(pool::connection_failed(source, error));
    PgError::new(SqlState::INTERNAL_ERROR, "could not store shard rows from healthy placement")
        .detail(format!("Node \"{source}\" said: {}", error.message()))
        .hint(CONSULT_LOGS)
}

/// Rows of another node.
struct Remote {
    session: Session,
    source: NodeAddress,
}

impl CopySource for Remote {
    fn read(&mut self) -> Result<Vec<u8>, PgError> {
        self.session.get_copy().map_err(|failure| {
            let (Failure::Lost(error) | Failure::Statement(error)) = failure;
            not_stored(&self.source, &error)
        })
    }
}
