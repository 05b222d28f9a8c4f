//! Rows of a local table on their way to its shards.

use crate::catalog::{self, DistributedTable};
use crate::execute::sink::Sink;
use crate::owner::{self, Purpose};
use pg::exec::copy::local;
use pg::server::utility::copied_columns;
use pg::sys::value::Hasher;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use std::rc::Rc;

/// Moves the rows of a local table to the shards that it has got.
pub(super) fn store_rows(oid: Oid) -> Result<(), PgError> {
    catalog::forget(Some(oid));
    let table = catalog::get(oid)?;
    if owner::is_needed(&table)? {
        owner::acting(&table, Purpose::Store, || send_rows(&table))?;
    } else {
        send_rows(&table)?;
    }
    local::empty(oid);
    Ok(())
}

/// Sends the local table's rows to its shards.
fn send_rows(table: &Rc<DistributedTable>) -> Result<(), PgError> {
    let hasher = Hasher::find(table.key.family, table.key.type_oid, table.key.collation)
        .ok_or_else(|| {
            PgError::internal("the distribution column's type has lost its hash function")
        })?;
    let columns: Vec<String> =
        copied_columns(table.oid).into_iter().map(|(_, name)| name).collect();
    let mut sink = Sink::new(Rc::clone(table), Oid::INVALID, &columns, String::new());
    local::for_each_row(table.oid, table.key.column, &mut |row| {
        let hash = row.hash(&hasher).ok_or_else(|| {
            PgError::new(
                SqlState::NULL_VALUE_NOT_ALLOWED,
                format!(
                    "cannot distribute table \"{}\": a row has NULL in column \"{}\"",
                    table.name, table.key_name
                ),
            )
            .detail("The distribution column decides where a row is stored.")
        })?;
        sink.add(hash, |batch| {
            row.append(&mut batch.data);
            Ok(())
        })
    })?;
    sink.finish()
}
