//! COPY FROM a client or a file into a distributed table.
//!
//! PostgreSQL parses the rows here; each goes to its shard as a line of COPY's text format. The whole COPY is
//! one transaction on every node, so a bad line leaves nothing behind.

use crate::catalog;
use crate::execute::sink::Sink;
use pg::PgError;
use pg::copy::CopyInput;
use pg::utility::UtilityCall;
use pg::value::Hasher;
use pgrx::pg_sys::Oid;

/// Runs COPY FROM.
pub(crate) fn copy_from(call: &mut UtilityCall, oid: Oid) -> Result<(), PgError> {
    let mut input = CopyInput::open(call, oid)?;
    let table = catalog::get(oid)?;
    if table.map.is_empty() {
        return Err(table.no_shards());
    }
    let hasher = Hasher::find(table.key.family, table.key.type_oid, table.key.collation)
        .ok_or_else(|| {
            PgError::internal("the distribution column's type has lost its hash function")
        })?;
    let mut sink = Sink::new(table.clone(), Oid::INVALID, &input.column_names());
    let mut rows = 0;
    while input.read_row() {
        let hash = input
            .hash(table.key.column, &hasher)
            .ok_or_else(|| crate::plan::null_key(Some(oid)))?;
        sink.add(hash, |line| input.line(line))?;
        rows += 1;
    }
    sink.finish()?;
    input.close();
    call.complete_copy(rows);
    Ok(())
}
