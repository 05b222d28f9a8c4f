//! Writes that no worker can do by itself: PostgreSQL plans them over our scans, and their rows are computed here.
//!
//! See `pg::path::modify` for what happens to the plan, and [`crate::execute::pulled`] for what happens to the rows.

use super::data;
use crate::catalog;
use pg::PgError;
use pg::hooks::Verdict;
use pg::path::modify::{ModifyTarget, Unpullable};
use pg::read::query::Statement;
use pg::sys::plan::PlanWriter;
use pg::sys::plan::{ComputedModify, Plan};

/// How PostgreSQL is to plan the statement.
///
/// `must_find` says that it is about one row, which must still be what it was.
pub(super) fn plan(
    statement: Statement,
    must_find: bool,
) -> Result<Result<Verdict, Unpullable>, PgError> {
    let metadata = catalog::metadata().ok_or_else(|| PgError::internal("the extension is gone"))?;
    let distribution = |oid| catalog::find(oid).map(|table| table.key);
    let hides_places = |oid| catalog::find(oid).is_some_and(|table| table.hides_places());
    let statement = statement.with_locks_on_workers(&|oid| distribution(oid).is_some());
    Ok(statement
        .pulled(&distribution, &hides_places)
        .map(|statement| Verdict::Pulled(statement, metadata.partition, must_find)))
}

/// The private part of a write that is taken over from PostgreSQL's plan.
pub(crate) fn private(target: &ModifyTarget) -> PlanWriter {
    let ModifyTarget { table, user, command, is_alone, has_subqueries, must_find } = *target;
    data::write(&Plan::ComputedModify(ComputedModify {
        table,
        user,
        command,
        is_alone,
        has_subqueries,
        must_find,
    }))
}
