//! Planning: which way a statement takes.
//!
//! | statement | way |
//! |---|---|
//! | no distributed table | PostgreSQL's, untouched |
//! | everything in one shard group | [`route`]: the whole statement, as it stands |
//! | INSERT of rows for several shards, or from a query | [`insert`]: rows computed here, sent one by one |
//! | another write over several shards | refused, naming the table |
//! | any other SELECT | PostgreSQL plans over scans of the shards |

/// Plans as executions use them.
pub(crate) mod compiled;

/// The private part of our plans.
pub(crate) mod data;

mod insert;

mod route;

/// Plans kept for statements that differ in constants only.
mod shapes;

use crate::catalog::{self, DistributedTable};
use crate::execute::common_nodes;
use crate::settings;
use pg::hooks::Verdict;
use pg::plan::BoundParameters;
use pg::query::{Command, Facts, InsertSource, Obstacle, Statement};
use pg::table;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use std::rc::Rc;

/// Plans a statement; see the module.
pub(crate) fn plan(
    statement: Statement,
    parameters: BoundParameters,
    scroll: bool,
) -> Result<Verdict, PgError> {
    let shorter = statement.with_two_rows();
    let tables: Vec<Rc<DistributedTable>> =
        shorter.unwrap_or(statement).tables().into_iter().filter_map(catalog::find).collect();
    if tables.is_empty() {
        return Ok(Verdict::NotOurs);
    }
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

    if let Some(shorter) = shorter {
        let facts = shorter
            .prepare()
            .facts(Command::Insert, &|oid| catalog::find(oid).map(|table| table.key));
        check(&facts, &tables)?;
        let target = facts.target.ok_or_else(|| PgError::internal("an INSERT has no target"))?;
        let source = statement.values_source().plan_without_us(parameters);
        return insert::plan(shorter, source, &facts, target).map(Verdict::Planned);
    }
    if let Some(plan) = plan_by_shape(statement, &tables, scroll)? {
        return Ok(Verdict::Planned(plan));
    }
    let command = statement.command();
    let mut prepared = statement.prepare();
    let facts = prepared.facts(command, &|oid| catalog::find(oid).map(|table| table.key));
    check(&facts, &tables)?;
    if let Some(way) = route::decide(&facts, &prepared) {
        return route::plan(statement, &prepared, &facts, &way, scroll).map(Verdict::Planned);
    }
    if let Some(write) = facts.writes.iter().find(|write| write.is_nested) {
        return Err(nested_write(&facts, &*catalog::get(write.table)?));
    }
    if let Some(local) = statement.nested_local_write(&|oid| catalog::find(oid).is_some()) {
        return Err(local_write(local, &tables[0]));
    }
    match (command, facts.target) {
        (Command::Insert | Command::Upsert, Some(target)) => {
            let source = statement.insert_source().plan_by_postgres(parameters);
            insert::plan(statement, source, &facts, target).map(Verdict::Planned)
        }
        (Command::Select, _) => read_many(&statement),
        (Command::SelectForUpdate, _) => lock_on_workers(&statement, &tables[0]),
        (_, Some(target)) => Err(refuse_write(&facts, &*catalog::get(target)?)),
        // An INSERT into a local table reads like a SELECT; other writes would need to re-read distributed rows.
        (Command::Insert | Command::Upsert, None) => Ok(catalog::planned_by_postgres()),
        (_, None) => {
            let local = statement.written_tables().first().copied().unwrap_or(Oid::INVALID);
            Err(local_write(local, &tables[0]))
        }
    }
}

/// The plan of a statement whose way does not depend on its constants, from the plans kept or newly made and kept.
///
/// None says that the statement has to be planned with the constants that it has.
fn plan_by_shape(
    statement: Statement,
    tables: &[Rc<DistributedTable>],
    scroll: bool,
) -> Result<Option<pg::plan::Plan>, PgError> {
    let Some(shape) = statement.shape() else { return Ok(None) };
    match shapes::find(statement, &shape, scroll) {
        shapes::Known::Plan(plan) => return Ok(Some(plan)),
        shapes::Known::Hopeless => return Ok(None),
        shapes::Known::Nothing => {}
    }
    let Some(lifted) = statement.lifted() else { return Ok(None) };
    let mut prepared = lifted.prepare();
    let distribution = |oid| catalog::find(oid).map(|table| table.key);
    let facts = prepared.facts(lifted.command(), &distribution);
    check(&facts, tables)?;
    let plan = match route::decide(&facts, &prepared) {
        Some(way) if way.holds_for_all_values => {
            Some(route::plan(statement, &prepared, &facts, &way, scroll)?)
        }
        _ => None,
    };
    Ok(shapes::keep(statement, &shape, scroll, plan))
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
fn check(facts: &Facts, tables: &[Rc<DistributedTable>]) -> Result<(), PgError> {
    if facts.obstacles.contains(&Obstacle::KeyChange) {
        let name = facts
            .writes
            .iter()
            .find_map(|write| catalog::find(write.table))
            .map_or_else(String::new, |table| table.name.clone());
        if facts.command == Command::Merge {
            return Err(PgError::unsupported(
                format!("cannot modify distributed table \"{name}\" this way"),
                "Use INSERT ... ON CONFLICT, or one statement for each action.",
            )
            .detail("MERGE inserts rows, or assigns the distribution column, whose shard is not known to be that of the rows it matches."));
        }
        return Err(PgError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "modifying the partition value of rows is not allowed",
        )
        .detail(format!("The statement assigns the distribution column of table \"{name}\"."))
        .hint("Delete the row and insert it with its new value, in one transaction."));
    }
    if facts.is_write() && facts.obstacles.contains(&Obstacle::CheckedView) {
        return Err(PgError::unsupported(
            format!("cannot write distributed table \"{}\" through this view", tables[0].name),
            "Write the table itself.",
        )
        .detail(
            "The view has conditions that are checked row by row: WITH CHECK OPTION, security_barrier, or its WHERE \
             clause with ON CONFLICT DO UPDATE.",
        ));
    }
    let user_function = facts.obstacles.iter().find_map(|obstacle| match obstacle {
        Obstacle::UserFunction(function) => Some(*function),
        _ => None,
    });
    let lends_rights = facts.writes.iter().any(|write| facts.writer(write) != Oid::INVALID);
    if let (Some(function), true) = (user_function, lends_rights) {
        return Err(PgError::unsupported(
            format!("cannot write distributed table \"{}\" through this view", tables[0].name),
            "Compute the value first and pass it as a parameter.",
        )
        .detail(format!(
            "Function {} would run on the workers with the rights of the view's owner.",
            table::function_name(function)
        )));
    }
    if facts.is_write() && facts.obstacles.contains(&Obstacle::RowSecurity) {
        return Err(PgError::unsupported(
            format!(
                "cannot write distributed table \"{}\" under row-level security",
                tables[0].name
            ),
            "Write as the table's owner or as a role with BYPASSRLS.",
        ));
    }
    if facts.null_key && facts.target.is_some() && facts.insert_source == InsertSource::OneRow {
        return Err(null_key(facts.target));
    }
    Ok(())
}

/// A row without a distribution column's value has no shard.
pub(crate) fn null_key(target: Option<Oid>) -> PgError {
    let error = PgError::new(
        SqlState::NULL_VALUE_NOT_ALLOWED,
        "cannot plan INSERT using row with NULL value in partition column",
    );
    match target.and_then(catalog::find) {
        Some(table) => error.detail(format!(
            "Column \"{}\" of table \"{}\" decides where a row is stored.",
            table.key_name, table.name
        )),
        None => error,
    }
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

/// FOR UPDATE over several shards: the scans lock on the workers.
fn lock_on_workers(statement: &Statement, table: &DistributedTable) -> Result<Verdict, PgError> {
    let locked = statement.locked_tables();
    if let Some(local) = locked.iter().find(|oid| catalog::find(**oid).is_none()) {
        let local = table::describe(*local).map_or_else(String::new, |relation| relation.name);
        return Err(PgError::unsupported(
            format!(
                "cannot lock rows of local table \"{local}\" while reading distributed table \"{}\"",
                table.name
            ),
            "Lock the local rows in a statement of its own.",
        ));
    }
    let metadata = catalog::metadata().ok_or_else(|| PgError::internal("the extension is gone"))?;
    let rewritten = statement.with_locks_on_workers(&|oid| catalog::find(oid).is_some());
    Ok(Verdict::RewrittenForPostgres(rewritten, metadata.partition))
}

/// Why a WITH clause cannot write.
fn nested_write(facts: &Facts, table: &DistributedTable) -> PgError {
    let reason = facts.obstacles.iter().find_map(why_not);
    let (detail, _) = reason.unwrap_or_else(|| {
        (
            "No one value of the distribution column leads to all distributed tables of the statement."
                .to_owned(),
            "",
        )
    });
    PgError::unsupported(
        format!("cannot write distributed table \"{}\" in a WITH clause", table.name),
        "Write it in a statement of its own, in the same transaction.",
    )
    .detail(detail)
}

fn local_write(target: Oid, table: &DistributedTable) -> PgError {
    let target = table::describe(target).map_or_else(String::new, |relation| relation.name);
    PgError::unsupported(
        format!(
            "cannot update, delete or merge into local table \"{target}\" while reading distributed table \"{}\"",
            table.name
        ),
        "Read the distributed rows into a temporary table first.",
    )
}

/// What an obstacle is to the user, and the way round; nothing for those that are no reason by themselves.
fn why_not(obstacle: &Obstacle) -> Option<(String, &'static str)> {
    let (detail, hint) = match obstacle {
        Obstacle::LocalTable(oid) => (
            format!(
                "The statement also uses table \"{}\", which is on this server only.",
                table::describe(*oid).map_or_else(String::new, |relation| relation.name)
            ),
            "Read what you need from it first and pass it as values.",
        ),
        Obstacle::VolatileFunction(oid) => (
            format!(
                "Function {} is volatile and would run on the workers.",
                table::function_name(*oid)
            ),
            "Compute the value first and pass it as a parameter.",
        ),
        Obstacle::WholeRow | Obstacle::LocalState => (
            "The statement uses a whole row, a cursor's position or something else that only this server knows."
                .to_owned(),
            "Name the columns, and the row by its key.",
        ),
        Obstacle::PlacementDependent => (
            "Which rows it concerns depends on where they lie (ctid, LIMIT, DISTINCT ON, window functions), \
             which differs between the placements of a shard."
                .to_owned(),
            "Find the rows' keys with a SELECT first.",
        ),
        Obstacle::UserFunction(_)
        | Obstacle::NestedWrite
        | Obstacle::CheckedView
        | Obstacle::RowSecurity
        | Obstacle::KeyChange => return None,
    };
    Some((detail, hint))
}

/// Why an UPDATE, DELETE or MERGE cannot run.
fn refuse_write(facts: &Facts, table: &DistributedTable) -> PgError {
    if let Some((detail, hint)) = facts.obstacles.iter().find_map(why_not) {
        return PgError::unsupported(
            format!("cannot modify distributed table \"{}\" this way", table.name),
            hint,
        )
        .detail(detail);
    }
    PgError::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        "cannot modify multiple shards during a single query",
    )
    .detail(format!("The statement concerns more than one shard of table \"{}\".", table.name))
    .hint(format!("Add an equality on the distribution column \"{}\".", table.key_name))
}
