//! Columns as PostgreSQL's node-tree texts: what CitusDB's catalogs hold, and 1.2's helpers to read and write it.

use super::given;
use crate::catalog;
use pg::catalog::table;
use pg::sys::error::raise;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

/// The number of a user's column by its exact name, with 1.2's errors.
pub(super) fn find_column(oid: Oid, name: &str) -> Result<i16, PgError> {
    if name.len() >= 64 {
        return Err(PgError::new(SqlState::NAME_TOO_LONG, "column name too long")
            .detail("Column name must be less than 64 characters."));
    }
    let relation = table::describe(oid).map_or_else(String::new, |relation| relation.name);
    match table::column_number(oid, name) {
        None => Err(PgError::new(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{name}\" of relation \"{relation}\" does not exist"),
        )),
        Some(number) if number < 0 => Err(PgError::new(
            SqlState::INVALID_COLUMN_REFERENCE,
            format!("column \"{name}\" of relation \"{relation}\" is a system column"),
        )),
        Some(number) => Ok(number),
    }
}

#[pg_extern]
fn column_name_to_column(table_oid: Oid, column_name: &str) -> String {
    raise(
        find_column(table_oid, column_name)
            .map(|column| table::column_node_text(table_oid, column)),
    )
}

#[pg_extern]
fn column_to_column_name(table_oid: Oid, column_var: &str) -> String {
    raise(name_of(table_oid, column_var))
}

fn name_of(oid: Oid, text: &str) -> Result<String, PgError> {
    let relation = table::describe(oid).map_or_else(String::new, |relation| relation.name);
    let number = table::column_of_node_text(text).ok_or_else(|| {
        PgError::new(SqlState::INVALID_PARAMETER_VALUE, "the text is not a reference to a column")
            .hint("Use a text that column_name_to_column returned.")
    })?;
    if number <= 0 {
        return Err(PgError::new(
            SqlState::INVALID_COLUMN_REFERENCE,
            format!("attribute {number} of relation \"{relation}\" is a system column"),
        ));
    }
    table::column_name(oid, number).ok_or_else(|| {
        PgError::new(
            SqlState::UNDEFINED_COLUMN,
            format!("attribute {number} of relation \"{relation}\" does not exist"),
        )
    })
}

#[pg_extern]
fn partition_column_to_node_string(table_oid: Option<Oid>) -> String {
    raise(node_string(table_oid))
}

fn node_string(oid: Option<Oid>) -> Result<String, PgError> {
    let oid = given(oid, "table_oid")?;
    let table = catalog::get(oid)?;
    Ok(table::column_node_text(oid, table.key.column))
}
