//! Repair: a stale placement is created anew and filled from a healthy one, by COPY between the workers.

use super::{change_metadata, check_owner, worker_list};
use crate::catalog::{self, Placement};
use crate::ddl;
use crate::plan;
use crate::session::capabilities;
use crate::session::pool;
use crate::session::secrets;
use crate::session::{Failure, NoSession, Session};
use crate::transaction::{self, NodeFailure};
use pg::catalog::privileged;
use pg::catalog::table::{self, RelationLock};
use pg::exec::copy::{self, CopySource};
use pg::server::lock::{Mode, ShardLock, lock_shard};
use pg::server::utility::copied_columns;
use pg::sys::error::raise;
use pg::{PgError, SqlState};
use pgrx::prelude::*;
use shardmap::instruction::Purpose;
use shardmap::{NodeAddress, PlacementState, ShardId};

const CONSULT_LOGS: &str = "Consult recent messages in the server logs for details.";

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
    raise(repair(ShardId(shard_id), &source, &target));
}

fn repair(shard: ShardId, source: &NodeAddress, target: &NodeAddress) -> Result<(), PgError> {
    let oid = catalog::table_of_shard(shard).ok_or_else(|| {
        PgError::new(
            SqlState::UNDEFINED_OBJECT,
            format!("shard with ID {} does not exist", shard.0),
        )
    })?;
    check_owner(oid)?;
    if transaction::has_written(shard) {
        return Err(PgError::new(
            SqlState(*b"25001"),
            format!("cannot repair shard {} in the transaction that has written it", shard.0),
        )
        .hint("Commit first: the other node cannot see what is not committed."));
    }
    // Writers hold these to their end, so the source is complete and stays as it is until we commit.
    lock_shard(ShardLock::Data(shard), Mode::Exclusive);
    lock_shard(ShardLock::Metadata(shard), Mode::Exclusive);
    table::lock_relation(oid, RelationLock::AccessShare);

    let placements = catalog::current_placements(shard);
    if placements.is_empty() {
        return Err(plan::no_placements(shard.0));
    }
    let from = find(&placements, source)?;
    if from.state != PlacementState::Healthy {
        return Err(PgError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "source placement must be in finalized state",
        ));
    }
    let to = find(&placements, target)?;
    if to.state != PlacementState::Unusable(3) {
        return Err(PgError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "target placement must be in inactive state",
        ));
    }
    match table::describe(oid).map(|relation| relation.kind) {
        Some(b'r') => {}
        Some(b'f') => {
            return Err(PgError::new(SqlState::FEATURE_NOT_SUPPORTED, "cannot repair shard")
                .detail("Repairing shards backed by foreign tables is not supported."));
        }
        _ => {
            return Err(PgError::new(
                SqlState(*b"42809"),
                "repair target is not a regular or foreign table",
            ));
        }
    }
    // On one server of two names the target's session would wait for the source's.
    if let Some(servers) =
        capabilities::of_nodes(&[source.clone(), target.clone()], super::distribute::SERVER)
        && servers[0] == servers[1]
    {
        return Err(worker_list::same_server(source, target));
    }
    recreate(oid, shard, target)?;
    fill(oid, shard, source, target)?;
    change_metadata(&format!(
        "UPDATE pgs_distribution_metadata.shard_placement SET shard_state = 1 WHERE id = {}",
        to.id.0
    ))
}

fn find<'a>(placements: &'a [Placement], node: &NodeAddress) -> Result<&'a Placement, PgError> {
    placements.iter().find(|placement| placement.node == *node).ok_or_else(|| {
        PgError::new(SqlState(*b"22000"), format!("could not find placement matching \"{node}\""))
            .hint("Confirm the placement still exists and try again.")
    })
}

/// Drops what is there and creates the shard as the table is defined now.
fn recreate(oid: pgrx::pg_sys::Oid, shard: ShardId, target: &NodeAddress) -> Result<(), PgError> {
    let definition = ddl::definition(oid)?;
    let mut statements =
        vec![definition.drop_statement(shard.0).map_err(|error| ddl::definition_error(&error))?];
    statements.extend(definition.prerequisites.iter().cloned());
    statements
        .extend(definition.statements(shard.0).map_err(|error| ddl::definition_error(&error))?);
    ddl::run_on(target, &statements)
        .map_err(|failure| failed("could not recreate shard table", target, failure))
}

/// Has the target fetch the rows from the source.
fn fill(
    oid: pgrx::pg_sys::Oid,
    shard: ShardId,
    source: &NodeAddress,
    target: &NodeAddress,
) -> Result<(), PgError> {
    let problem = "could not copy shard data";
    let schema = extension_schema(target).map_err(|failure| failed(problem, target, failure))?;
    let distributed = catalog::get(oid)?;
    let name = format!(
        "{}.{}",
        catalog::quote(&distributed.schema),
        catalog::quote(&format!("{}_{}", distributed.name, shard.0))
    );
    let call = if table::is_superuser() {
        format!(
            "SELECT {}.worker_copy_shard_placement({}, {}, {})",
            catalog::quote(&schema),
            super::literal(&name),
            super::literal(&source.host),
            source.port
        )
    } else {
        let text = Instruction { table: &name, source: source.clone() }.to_text();
        let sealed = secrets::seal(target, Purpose::Copy, &pool::user(), &text);
        format!("SELECT pgs_catalog.copy_shard_placement({})", super::literal(&sealed))
    };
    ddl::run_on(target, &[call]).map_err(|failure| {
        if let NodeFailure::Error(error) = &failure
            && secrets::is_not_proven(error)
        {
            secrets::forget();
        }
        failed(problem, target, failure)
    })
}

/// To a node: to copy a table's rows from another.
struct Instruction<'a> {
    table: &'a str,
    source: NodeAddress,
}

impl<'a> Instruction<'a> {
    /// Port and host on the first line, the table behind it.
    fn to_text(&self) -> String {
        format!("{} {}\n{}", self.source.port, self.source.host, self.table)
    }

    fn parse(text: &'a str) -> Option<Self> {
        let (source, table) = text.split_once('\n')?;
        let (port, host) = source.split_once(' ')?;
        let source = NodeAddress { host: host.into(), port: port.parse().ok()? };
        Some(Self { table, source })
    }
}

/// Where the extension is on a node; it is created if it is not there.
fn extension_schema(node: &NodeAddress) -> Result<String, NodeFailure> {
    let find = "SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n \
                ON n.oid = e.extnamespace WHERE e.extname = 'pg_shard'";
    let ask = || {
        let mut schema = None;
        transaction::with_session(node, &mut |session| {
            let level = Some(transaction::level_for_write());
            session.borrow_mut().run(find, level, &mut |row| {
                schema = row.first_text();
                Ok(())
            })
        })?;
        Ok(schema)
    };
    if let Some(schema) = ask()? {
        return Ok(schema);
    }
    // A worker needs no more than the functions.
    let as_worker = "SELECT pg_catalog.set_config('pg_shard.is_worker', 'on', true)".to_owned();
    let create = "CREATE EXTENSION IF NOT EXISTS pg_shard SCHEMA public".to_owned();
    ddl::run_on(node, &[as_worker, create])?;
    Ok(ask()?.unwrap_or_else(|| "public".to_owned()))
}

fn failed(what: &str, node: &NodeAddress, failure: NodeFailure) -> PgError {
    let error = match failure {
        NodeFailure::Unreachable(error) => {
            pg::sys::error::warning(pool::connection_failed(node, &error));
            error
        }
        NodeFailure::Error(error) => error,
    };
    PgError::new(SqlState::INTERNAL_ERROR, what)
        .detail(format!("Node \"{node}\" said: {}", error.message()))
        .hint(CONSULT_LOGS)
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
            SqlState(*b"42501"),
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
    let sql = format!(
        // Of a table only: where somebody has put a view in its place, its functions must not run in our name.
        "COPY {} ({}) TO STDOUT",
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
    privileged::as_restricted(owner, || copy::receive(oid, &columns, remote)).map(drop)
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
