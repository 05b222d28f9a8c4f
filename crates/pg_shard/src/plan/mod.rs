//! Planning: which way a statement takes.
//!
//! | statement | way |
//! |---|---|
//! | no distributed table | PostgreSQL's, untouched |
//! | everything in one shard group | [`route`]: the whole statement, as it stands |
//! | INSERT of rows for several shards, or from a query | [`insert`]: rows computed here, sent one by one |
//! | any other write | [`pulled`]: PostgreSQL plans it over scans of the shards, its changes are sent row by row |
//! | any other SELECT | PostgreSQL plans over scans of the shards |

/// Plans as executions use them.
pub(crate) mod compiled;

/// The private part of our plans.
pub(crate) mod data;

mod insert;

/// Writes whose rows are computed here.
pub(crate) mod modify;

mod route;

/// Plans kept for statements that differ in constants only.
mod fingerprints;

use crate::catalog::{self, DistributedTable};
use crate::ddl;
use crate::execute::common_nodes;
use crate::links;
use crate::settings;
use pg::hooks::Verdict;
use pg::path::modify::Unpullable;
use pg::path::plan::BoundParameters;
use pg::read::query::{Facts, InsertSource, Statement, Unshippable};
use pg::sys::plan::Command;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use std::rc::Rc;

/// The distributed tables of a statement.
fn distributed_tables(statement: Statement) -> Vec<Rc<DistributedTable>> {
    let found = statement.tables().into_iter().filter_map(catalog::find);
    found.filter(|table| !ddl::restoring::is_local(table)).collect()
}

/// Plans a statement; see the module.
pub(crate) fn plan(
    statement: Statement,
    parameters: BoundParameters,
    scroll: bool,
) -> Result<Verdict, PgError> {
    let shorter = statement.with_two_rows();
    let tables = distributed_tables(shorter.unwrap_or(statement));
    if tables.is_empty() {
        return Ok(Verdict::NotOurs);
    }
    if pg::catalog::table::is_parallel_worker() {
        return Err(PgError::unsupported(
            format!("cannot use distributed table \"{}\" in a parallel worker", tables[0].name),
            "ALTER the function that does so to PARALLEL RESTRICTED or UNSAFE, or SET max_parallel_workers_per_gather = 0.",
        )
        .detail("A function that is marked PARALLEL SAFE uses it. The sessions to the workers are the leading process's."));
    }
    check_tables(statement, shorter, &tables)?;
    if let Some(table) = tables.iter().find(|table| table.method != b'h') {
        return Err(PgError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("unsupported table partition type: {}", char::from(table.method)),
        ));
    }
    if let Some(table) = tables.iter().find(|table| table.map.is_empty()) {
        return Err(table.no_shards());
    }
    if let Some((table, index)) =
        tables.iter().find_map(|table| table.unplaced.map(|index| (table, index)))
    {
        return Err(no_placements(table.shard_id(index).0));
    }

    statement.flatten_conditions();
    let statement = statement.with_plain_inserts()?;
    if let Some(shorter) = shorter {
        let facts = shorter
            .prepare()
            .facts(Command::Insert, &|oid| catalog::find(oid).map(|table| table.key));
        check(&shorter, &facts)?;
        let target = facts.target.ok_or_else(|| PgError::internal("an INSERT has no target"))?;
        if inserts_rows(&facts) && !shorter.prepare_row_insert().reads_more {
            let source = statement.values_source().plan_without_us(parameters);
            if let Some(plan) = insert::plan(shorter, source, &facts, target)? {
                return Ok(Verdict::Planned(plan));
            }
        }
    }
    let positioned = statement.positioned(&|oid| catalog::find(oid).map(|table| table.key));
    let is_positioned = positioned.is_some();
    let must_find = positioned.is_some_and(|positioned| positioned.by_whole_row);
    let statement = positioned.map_or(statement, |positioned| positioned.statement);
    if !must_find && let Some(plan) = plan_by_shape(statement, scroll)? {
        return Ok(Verdict::Planned(plan));
    }
    let command = statement.command();
    let mut prepared = statement.prepare();
    let facts = prepared.facts(command, &|oid| catalog::find(oid).map(|table| table.key));
    check(&statement, &facts)?;
    if let Some(way) = route::decide(&facts, &prepared) {
        return route::plan(statement, &prepared, &facts, &way, scroll, must_find)
            .map(Verdict::Planned);
    }
    let is_distributed = |oid| catalog::find(oid).is_some();
    let inserts = matches!(command, Command::Insert | Command::Upsert);
    match (command, facts.target) {
        (Command::Insert | Command::Upsert, Some(target)) if inserts_rows(&facts) => {
            let source = statement.insert_source().plan_by_postgres(parameters);
            if let Some(plan) = insert::plan(statement, source, &facts, target)? {
                return Ok(Verdict::Planned(plan));
            }
        }
        _ if !facts.writes.is_empty()
            || statement.nested_local_write(&is_distributed).is_some() => {}
        (Command::Select, _) => return read_many(&statement),
        (Command::SelectForUpdate, _) => return lock_on_workers(&statement, &tables[0]),
        // An INSERT into a local table reads like a SELECT.
        _ if inserts => return Ok(catalog::planned_by_postgres()),
        _ => {}
    }
    if !is_positioned {
        refuse_ctid_of_replicated(&facts)?;
    }
    match modify::plan(statement, must_find)? {
        Ok(verdict) => Ok(verdict),
        Err(reason) => Err(unpullable(&facts, reason, &tables[0])),
    }
}

/// The tables can be used, and those that are partitioned are planned as one.
fn check_tables(
    statement: Statement,
    shorter: Option<Statement>,
    tables: &[Rc<DistributedTable>],
) -> Result<(), PgError> {
    tables.iter().try_for_each(|table| table.check())?;
    if let Some(table) = tables.iter().find(|table| table.is_partitioned) {
        let is_ours = |oid| catalog::find(oid).is_some_and(|table| table.is_partitioned);
        statement.take_as_one_relation(&is_ours);
        shorter.iter().for_each(|shorter| shorter.take_as_one_relation(&is_ours));
        if shorter.unwrap_or(statement).names_places() {
            return Err(partition_unknown(table));
        }
    }
    Ok(())
}

/// Only the nodes know in which partition a row lies.
fn partition_unknown(table: &DistributedTable) -> PgError {
    PgError::unsupported(
        format!(
            "cannot use ctid or tableoid in a statement with partitioned distributed table \"{}\"",
            table.name
        ),
        "Name rows by a key, and partitions by the columns that decide them.",
    )
    .detail("Rows of its partitions lie in tables of the nodes.")
}

/// A write of rows that have several placements cannot go by a `ctid` that the client has: nobody knows on which placement it has
/// been read. Those of one statement are the leaders' (see `Read::reads_ctids`).
fn refuse_ctid_of_replicated(facts: &Facts) -> Result<(), PgError> {
    if !facts.shows_ctid {
        return Ok(());
    }
    let replicated = |oid: Oid| catalog::find(oid).filter(|table| table.is_replicated());
    if !facts.writes.iter().any(|write| replicated(write.table).is_some()) {
        return Ok(());
    }
    facts.ctids.iter().copied().find_map(replicated).map_or(Ok(()), |table| {
        Err(PgError::unsupported(
            format!("cannot modify rows of replicated table \"{}\" by their ctid", table.name),
            "Name the rows by a key.",
        )
        .detail("Each placement of a shard has its rows at places of its own."))
    })
}

/// Nothing but rows for one table, which stay where they are and which no view, policy or trigger has to look at.
fn inserts_rows(facts: &Facts) -> bool {
    let stands_between = |unshippable: &Unshippable| {
        matches!(
            unshippable,
            Unshippable::RowSecurity
                | Unshippable::CheckedView
                | Unshippable::KeyChange
                | Unshippable::ShownTid
                | Unshippable::ReturnedTid
                | Unshippable::Triggers
        )
    };
    facts.writes.len() == 1
        && !facts.unshippable.iter().any(stands_between)
        && !route::lends_rights_to_functions(facts)
}

/// Why a write cannot be computed here.
fn unpullable(facts: &Facts, reason: Unpullable, table: &DistributedTable) -> PgError {
    let (detail, hint) = match reason {
        Unpullable::Conflict => (
            "INSERT ... ON CONFLICT whose rows are computed on the coordinator needs a table that the statement names \
             nowhere else.",
            "Use a statement of its own, or MERGE.",
        ),
        Unpullable::SystemColumn => (
            "The statement uses a system column of a row that lies on another node.",
            "Name the row by its key.",
        ),
        Unpullable::Cursor => (
            "The extension's function pgs_catalog.current_of is missing.",
            "Name the row by its key.",
        ),
    };
    let written = facts.writes.last().and_then(|write| catalog::find(write.table));
    let name = written.map_or_else(|| table.name.clone(), |table| table.name.clone());
    PgError::unsupported(format!("cannot modify distributed table \"{name}\" this way"), hint)
        .detail(detail)
}

/// The plan of a statement whose way does not depend on its constants, from the plans kept or newly made and kept.
///
/// None says that the statement has to be planned with the constants that it has.
fn plan_by_shape(
    statement: Statement,
    scroll: bool,
) -> Result<Option<pg::path::plan::Plan>, PgError> {
    let Some(shape) = statement.shape() else { return Ok(None) };
    match fingerprints::find(statement, &shape, scroll) {
        fingerprints::Known::Plan(plan) => return Ok(Some(plan)),
        fingerprints::Known::Hopeless => return Ok(None),
        fingerprints::Known::Nothing => {}
    }
    let Some(lifted) = statement.lifted() else { return Ok(None) };
    let mut prepared = lifted.prepare();
    let distribution = |oid| catalog::find(oid).map(|table| table.key);
    let facts = prepared.facts(lifted.command(), &distribution);
    check(&lifted, &facts)?;
    let plan = match route::decide(&facts, &prepared) {
        Some(way) if way.holds_for_all_values => {
            Some(route::plan(statement, &prepared, &facts, &way, scroll, false)?)
        }
        _ => None,
    };
    Ok(fingerprints::keep(statement, &shape, scroll, plan))
}

/// The tables can be joined shard by shard; see `Extension::lie_together`.
pub(crate) fn lie_together(tables: &[Rc<DistributedTable>]) -> bool {
    let mut sharded = tables.iter().filter(|table| table.map.len() > 1);
    let Some(first) = sharded.next().or(tables.first()) else { return false };
    sharded.all(|other| other.oid == first.oid || route::are_cut_alike(first, other))
        && (0..first.map.len()).all(|index| !common_nodes(tables, index).is_empty())
}

/// pg_shard 1.2's error for a shard that nobody placed.
pub(crate) fn no_placements(shard: i64) -> PgError {
    PgError::new(SqlState::NO_DATA, format!("no placements exist for shard with ID {shard}"))
}

/// Errors that no way of planning can avoid.
fn check(statement: &Statement, facts: &Facts) -> Result<(), PgError> {
    let written: Vec<Oid> = facts.writes.iter().map(|write| write.table).collect();
    links::check_write(statement, &written)?;
    if facts.null_key
        && facts.insert_source == InsertSource::OneRow
        && let Some(table) = facts.target.and_then(catalog::find)
    {
        table.hash_of_null()?;
    }
    Ok(())
}

/// A SELECT over several shards: PostgreSQL plans it, with sub-queries that it would compute row by row as joins.
fn read_many(statement: &Statement) -> Result<Verdict, PgError> {
    let metadata = catalog::metadata().ok_or_else(|| PgError::internal("the extension is gone"))?;
    let joined = settings::enable_pushdown()
        .then(|| statement.decorrelated(&|oid| catalog::find(oid).is_some()))
        .flatten();
    Ok(match joined {
        Some(joined) => Verdict::RewrittenForPostgres(joined, metadata.partition),
        None => catalog::planned_by_postgres(),
    })
}

/// FOR UPDATE over several shards: the scans lock on the workers, and PostgreSQL what is here.
fn lock_on_workers(statement: &Statement, table: &DistributedTable) -> Result<Verdict, PgError> {
    let metadata = catalog::metadata().ok_or_else(|| PgError::internal("the extension is gone"))?;
    let distribution = |oid| catalog::find(oid).map(|table| table.key);
    let rewritten = statement
        .with_locks_on_workers(&|oid| catalog::find(oid).is_some())
        .with_copied_rows(&distribution)
        .map_err(|_| {
            PgError::unsupported(
                format!(
                    "cannot lock rows of local tables while reading system columns of distributed table \"{}\"",
                    table.name
                ),
                "Lock the local rows in a statement of its own.",
            )
        })?;
    Ok(Verdict::RewrittenForPostgres(rewritten, metadata.partition))
}
