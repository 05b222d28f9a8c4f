//! INSERT of rows for several shards: PostgreSQL computes the rows here, we send each to its shard.
//!
//! Without ON CONFLICT and RETURNING the rows travel as COPY data, in batches per shard; otherwise as one statement
//! for each shard.

use super::data;
use crate::catalog;
use crate::settings;
use pg::PgError;
use pg::read::query::{Facts, Statement};
use pg::sys::plan::{InsertedRows, Plan};
use pgrx::pg_sys::Oid;

/// The plan of an INSERT whose rows are computed here, by `source`; none if its RETURNING or ON CONFLICT reads more than
/// the row.
pub(crate) fn plan(
    statement: Statement,
    source: pg::path::plan::Plan,
    facts: &Facts,
    target: Oid,
) -> Result<Option<pg::path::plan::Plan>, PgError> {
    let table = catalog::get(target)?;
    let metadata = catalog::metadata().ok_or_else(|| PgError::internal("the extension is gone"))?;
    let row = statement.prepare_row_insert();
    if row.reads_more {
        return Ok(None);
    }
    let key_position = row.columns.iter().position(|column| column.number == table.key.column);
    let template = row.prepared.template(&|oid| oid == target)?;
    if settings::verify_sql() {
        row.prepared.verify(&template)?;
    }
    let plan = Plan::InsertedRows(InsertedRows {
        command: facts.command,
        table: target,
        user: facts
            .writes
            .iter()
            .find(|write| !write.is_nested)
            .map_or(Oid::INVALID, |write| facts.writer(write)),
        columns: row.columns.iter().map(|column| column.name.clone()).collect(),
        key_position,
        template,
        sent: row.prepared.sent,
        by_statement: facts.has_returning || facts.has_on_conflict,
        returning: facts.has_returning,
        on_conflict: facts.has_on_conflict,
        buffered: facts.relations.len() > 1,
    });
    Ok(Some(statement.plan_over_source(
        source,
        &row.prepared,
        &data::write(&plan),
        metadata.partition,
    )))
}
