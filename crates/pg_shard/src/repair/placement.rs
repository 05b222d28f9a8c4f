//! Making a stale placement equal to a healthy one.
//!
//! If the target still has the shard, as it is defined now, only rows that differ travel ([`super::compare`]). Otherwise, or when
//! most rows differ, it is created anew and filled by COPY between the workers. Writers of the shard wait meanwhile, so
//! [`approach`] can be called before: it does nearly all of the work beside them, and leaves to the repair what they have changed
//! since.

use super::compare::{Pair, failed};
use super::fence;
use crate::catalog::{self, DistributedTable, Placement};
use crate::ddl;
use crate::ddl::foreign_keys;
use crate::functions::{self, change_metadata, check_owner, literal, same_server};
use crate::nodes;
use crate::owner;
use crate::plan;
use crate::session::Failure;
use crate::session::capabilities;
use crate::session::pool;
use crate::session::secrets;
use crate::transaction::{self, NodeFailure};
use pg::catalog::table::{self, RelationLock};
use pg::server::lock::{Mode, ShardLock, lock_shard};
use pg::server::settings;
use pg::server::transaction::Isolation;
use pg::server::utility::copied_columns;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::difference::Difference;
use shardmap::instruction::Purpose;
use shardmap::shard_template::Template;
use shardmap::{NodeAddress, PlacementState, ShardId};

/// How many rows travel, or are named, at a time.
const BATCH: usize = 5000;

/// How long a repair waits for transactions in doubt, in milliseconds. The resolver ends its own within two seconds.
const DOUBT: i32 = 5000;

/// What a repair has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// Rows that the placement lacked were sent, and others removed.
    Rows { sent: usize, removed: usize },
    /// The placement was created anew and filled.
    Whole,
}

/// Repairs a placement, and marks it healthy, in the current transaction.
///
/// # Errors
///
/// If the caller does not own the table, the placements are not what they have to be for that, or a node fails.
pub(crate) fn repair(
    shard: ShardId,
    source: &NodeAddress,
    target: &NodeAddress,
) -> Result<Done, PgError> {
    let oid = table_of(shard)?;
    if transaction::has_written(shard) {
        return Err(PgError::new(
            SqlState::ACTIVE_SQL_TRANSACTION,
            format!("cannot repair shard {} in the transaction that has written it", shard.0),
        )
        .hint("Commit first: the other node cannot see what is not committed."));
    }
    // Writers hold these to their end, so the source is complete and stays as it is until we commit.
    lock_shard(ShardLock::Data(shard), Mode::Exclusive);
    lock_shard(ShardLock::Metadata(shard), Mode::Exclusive);
    let stale = check(oid, shard, source, target)?;
    for node in [source, target] {
        fence::end_strays(node, fence::PATIENCE, &|failure| {
            failed("could not copy shard data", node, failure)
        })?;
    }
    complete(oid, shard, source, target)?;
    let done = match same_rows(oid, shard, source, target, Snapshots::OfStatements)? {
        Some(done) => done,
        None => {
            let indexes = recreate(oid, shard, target)?;
            fill(oid, shard, source, target)?;
            ddl::run_on(target, &indexes)
                .map_err(|failure| failed("could not recreate shard table", target, failure))?;
            link(oid, shard, target)?;
            Done::Whole
        }
    };
    change_metadata(&format!(
        "UPDATE pgs_distribution_metadata.shard_placement SET shard_state = 1 WHERE id = {}",
        stale.id.0
    ))?;
    Ok(done)
}

/// Waits until nothing at the source is in doubt: the target is to have it too.
fn complete(
    oid: Oid,
    shard: ShardId,
    source: &NodeAddress,
    target: &NodeAddress,
) -> Result<(), PgError> {
    let table = catalog::get(oid)?;
    let Some(index) = table.index_of(shard) else {
        return Ok(());
    };
    let problem = "could not copy shard data";
    let pair = Pair { table: &table, index, source, target, problem, isolation: None };
    wait_for_doubt(&pair, source)
}

/// Waits at a placement for the transactions in doubt that have written it. They keep their locks of the shard until somebody
/// decides, and till then nobody sees what they have written. Nobody writes the placement afterwards until this transaction ends.
///
/// # Errors
///
/// 55P03 after [`DOUBT`]: a client may have prepared one of them, and writers of the shard wait meanwhile.
pub(super) fn wait_for_doubt(pair: &Pair<'_>, node: &NodeAddress) -> Result<(), PgError> {
    let set = |timeout: i32| format!("SET LOCAL lock_timeout = {timeout}");
    let lock = format!("LOCK TABLE {} IN SHARE MODE", pair.table.shard_name(pair.index));
    ddl::run_on(node, &[set(DOUBT), lock, set(settings::lock_timeout())]).map_err(|failure| {
        match failure {
            NodeFailure::Error(error) if error.sqlstate() == SqlState::LOCK_NOT_AVAILABLE => {
                in_doubt(pair.table, node)
            }
            failure => failed(pair.problem, node, failure),
        }
    })
}

fn in_doubt(table: &DistributedTable, node: &NodeAddress) -> PgError {
    PgError::new(
        SqlState::LOCK_NOT_AVAILABLE,
        format!("table \"{}\" is still locked on node \"{node}\"", table.name),
    )
    .detail("A transaction that was prepared there has not been ended.")
    .hint("pgs_catalog.in_doubt and the node's pg_prepared_xacts show it, with the command that ends it.")
}

/// Makes a stale placement nearly equal to a healthy one, beside writers of the shard. It stays stale. Nothing is done if it would
/// have to be created anew.
///
/// The lock keeps others from repairing it, and definitions from changing.
pub(super) fn approach(
    shard: ShardId,
    source: &NodeAddress,
    target: &NodeAddress,
) -> Result<Option<Done>, PgError> {
    let oid = table_of(shard)?;
    lock_shard(ShardLock::Metadata(shard), Mode::Exclusive);
    check(oid, shard, source, target)?;
    same_rows(oid, shard, source, target, Snapshots::OfTransaction)
}

/// The table of a shard, which the caller owns.
pub(crate) fn table_of(shard: ShardId) -> Result<Oid, PgError> {
    let oid = catalog::table_of_shard(shard).ok_or_else(|| {
        PgError::new(
            SqlState::UNDEFINED_OBJECT,
            format!("shard with ID {} does not exist", shard.0),
        )
    })?;
    check_owner(oid)?;
    Ok(oid)
}

/// The stale placement, if it can be repaired from the other; the shard's metadata are locked.
fn check(
    oid: Oid,
    shard: ShardId,
    source: &NodeAddress,
    target: &NodeAddress,
) -> Result<Placement, PgError> {
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
                SqlState::WRONG_OBJECT_TYPE,
                "repair target is not a regular or foreign table",
            ));
        }
    }
    // On one server of two names the target's session would wait for the source's.
    if let Some(servers) =
        capabilities::of_nodes(&[source.clone(), target.clone()], functions::SERVER)
        && servers[0] == servers[1]
    {
        return Err(same_server(source, target));
    }
    Ok(to.clone())
}

fn find<'a>(placements: &'a [Placement], node: &NodeAddress) -> Result<&'a Placement, PgError> {
    placements.iter().find(|placement| placement.node == *node).ok_or_else(|| {
        PgError::new(
            SqlState::DATA_EXCEPTION,
            format!("could not find placement matching \"{node}\""),
        )
        .hint("Confirm the placement still exists and try again.")
    })
}

/// By which snapshots placements are read that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Snapshots {
    /// Each statement's own: nobody writes the shard.
    OfStatements,
    /// One for all statements of a node: a row that was named is still there when it is asked for.
    OfTransaction,
}

/// Sends and removes rows until the target has those of the source; none if they cannot be compared, or too many differ.
fn same_rows(
    oid: Oid,
    shard: ShardId,
    source: &NodeAddress,
    target: &NodeAddress,
    snapshots: Snapshots,
) -> Result<Option<Done>, PgError> {
    let table = catalog::get(oid)?;
    // The foreign keys of the target would act on rows of other shards.
    if table.is_linked {
        return Ok(None);
    }
    let Some(index) = table.index_of(shard) else {
        return Ok(None);
    };
    let isolation = match snapshots {
        Snapshots::OfStatements => None,
        Snapshots::OfTransaction => {
            Some((transaction::level_for_write().0, Isolation::RepeatableRead))
        }
    };
    let problem = "could not copy shard data";
    let pair = Pair { table: &table, index, source, target, problem, isolation };
    let Some(rows) = pair.rows()? else { return Ok(None) };
    if snapshots == Snapshots::OfStatements {
        wait_for_doubt(&pair, target)?;
    }
    let done = owner::acting_on(&table, index, &[source, target], || {
        let Some(difference) = pair.difference(rows)? else { return Ok(None) };
        apply(&pair, &difference)?;
        let (sent, removed) = (difference.missing.len(), difference.surplus.len());
        Ok(Some(Done::Rows { sent, removed }))
    })?;
    Ok(done.flatten())
}

/// Removes and sends the rows.
pub(crate) fn apply(pair: &Pair<'_>, difference: &Difference) -> Result<(), PgError> {
    let shard = pair.table.shard_name(pair.index);
    let of_target = |failure| failed(pair.problem, pair.target, failure);
    for places in difference.surplus.chunks(BATCH) {
        let delete = format!("DELETE FROM ONLY {shard} WHERE ctid = ANY ({})", array(places));
        ddl::run_on(pair.target, &[delete]).map_err(of_target)?;
    }
    let columns: Vec<String> =
        copied_columns(pair.table.oid).iter().map(|(_, name)| catalog::quote(name)).collect();
    let columns = columns.join(", ");
    for places in difference.missing.chunks(BATCH) {
        let fetch = format!(
            "COPY (SELECT {columns} FROM ONLY {shard} WHERE ctid = ANY ({})) TO STDOUT",
            array(places)
        );
        let rows =
            pair.copy_out(&fetch).map_err(|failure| failed(pair.problem, pair.source, failure))?;
        let store = format!("COPY {shard} ({columns}) FROM STDIN");
        copy_in(pair.target, &store, &rows).map_err(of_target)?;
    }
    Ok(())
}

/// Places as an array's literal.
fn array(places: &[String]) -> String {
    let quoted: Vec<String> = places.iter().map(|place| format!("\"{place}\"")).collect();
    format!("'{{{}}}'::tid[]", quoted.join(","))
}

/// Stores rows, inside the transaction.
pub(crate) fn copy_in(node: &NodeAddress, sql: &str, rows: &[u8]) -> Result<(), NodeFailure> {
    transaction::with_session(node, &mut |session| {
        let mut session = session.borrow_mut();
        // COPY is sent as it stands, so the transaction has to be there.
        session.run("SELECT", Some(transaction::level_for_write()), &mut |_| Ok(()))?;
        session.wrote = true;
        let number = session.queue_copy(sql, rows)?;
        session.settle_copies();
        session.stored(number).unwrap_or_else(|| {
            Err(Failure::Lost(PgError::internal("the connection was lost while rows were sent")))
        })
    })
    .map(drop)
}

/// Drops what is there and creates the shard as the table is defined now; the statements for its indexes are for later, when its rows are
/// there.
fn recreate(oid: Oid, shard: ShardId, target: &NodeAddress) -> Result<Vec<String>, PgError> {
    let definition =
        ddl::shard_definition::read(oid).map_err(|error| ddl::definition_error(&error))?;
    let (create, then) = definition.create_around_rows();
    let fill = |templates: &[Template]| {
        let filled: Result<Vec<String>, _> =
            templates.iter().map(|template| template.fill(shard.0)).collect();
        filled.map_err(|error| ddl::definition_error(&error.into()))
    };
    let table = catalog::get(oid)?;
    let name = format!(
        "{}.{}",
        catalog::quote(&table.schema),
        catalog::quote(&format!("{}_{}", table.name, shard.0))
    );
    let mut statements = vec![foreign_keys::drop_referring(&[name])];
    statements.extend(fill(&[definition.drop()])?);
    statements.extend(ddl::roles::for_node()?);
    statements.extend(definition.prerequisites.iter().cloned());
    statements.extend(fill(&create)?);
    ddl::run_on(target, &statements)
        .map_err(|failure| failed("could not recreate shard table", target, failure))?;
    fill(&then)
}

/// Has the target check foreign keys again, those that refer to the shard too. The other table's placement there may be inactive: the
/// repair of that one brings them. A shard with foreign keys is always created anew.
fn link(oid: Oid, shard: ShardId, target: &NodeAddress) -> Result<(), PgError> {
    let table = catalog::get(oid)?;
    if !table.is_linked {
        return Ok(());
    }
    let Some(index) = table.index_of(shard) else { return Ok(()) };
    let statements = foreign_keys::after_repair(&table, index, &|other, index| {
        other.healthy(index).any(|placement| placement.node == *target)
    })?;
    ddl::run_on(target, &statements)
        .map_err(|failure| failed("could not create foreign keys", target, failure))
}

/// Has the target fetch the rows from the source.
pub(crate) fn fill(
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
    let reach = nodes::reach(source);
    let call = if table::is_superuser() {
        format!(
            "SELECT {}.worker_copy_shard_placement({}, {}, {})",
            catalog::quote(&schema),
            literal(&name),
            literal(&reach.host),
            reach.port
        )
    } else {
        let source = NodeAddress { host: reach.host.into(), port: reach.port };
        let text = Instruction { table: &name, source }.to_text();
        let sealed = secrets::seal(target, Purpose::Copy, &pool::user(), &text);
        format!("SELECT pgs_catalog.copy_shard_placement({})", literal(&sealed))
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
pub(crate) struct Instruction<'a> {
    pub(crate) table: &'a str,
    pub(crate) source: NodeAddress,
}

impl<'a> Instruction<'a> {
    /// Port and host on the first line, the table behind it.
    fn to_text(&self) -> String {
        format!("{} {}\n{}", self.source.port, self.source.host, self.table)
    }

    pub(crate) fn parse(text: &'a str) -> Option<Self> {
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
