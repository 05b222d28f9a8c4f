//! COPY FROM a client or a file into a distributed table.
//!
//! Each record goes to its shard as the client wrote it, if the workers read it as this server would; otherwise
//! PostgreSQL parses the rows here, triggers fire, and they travel in COPY's text format. The whole COPY is one transaction on every
//! node, so a bad line leaves nothing behind.

use crate::catalog::{self, DistributedTable};
use crate::execute::pending;
use crate::execute::sink::Sink;
use pg::PgError;
use pg::exec::copy::{CopyInput, Lines};
use pg::server::utility::UtilityCall;
use pg::sys::value::Hasher;
use pgrx::pg_sys::Oid;
use std::rc::Rc;

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
    let lines = if input.fires_triggers() { None } else { input.lines(table.key.column)? };
    let rows = match lines {
        Some(mut lines) => hand_on(&mut input, &mut lines, &table, &hasher)?,
        None => parse(&mut input, &table, &hasher)?,
    };
    input.close();
    call.complete_copy(rows);
    Ok(())
}

/// Records travel as they are.
fn hand_on(
    input: &mut CopyInput,
    lines: &mut Lines,
    table: &Rc<DistributedTable>,
    hasher: &Hasher,
) -> Result<u64, PgError> {
    let (columns, options) = input.columns_and_options();
    let mut sink = Sink::new(Rc::clone(table), Oid::INVALID, &columns, options);
    while lines.next(input)? {
        let hash = lines.hash(input, hasher)?.map_or_else(|| table.hash_of_null(), Ok)?;
        let mut refused = None;
        let added = sink.add(hash, |batch| {
            batch.note_line(lines.height(batch.is_empty()), lines.line());
            lines.append(input, &mut batch.data).inspect_err(|error| refused = Some(error.clone()))
        });
        if refused.is_none() && added.is_err() {
            input.forget_line();
        }
        added?;
    }
    input.forget_line();
    sink.finish()?;
    Ok(lines.rows())
}

/// Rows are parsed here.
fn parse(
    input: &mut CopyInput,
    table: &Rc<DistributedTable>,
    hasher: &Hasher,
) -> Result<u64, PgError> {
    let sink = Sink::new(Rc::clone(table), Oid::INVALID, &input.column_names(), String::new());
    let sink = pending::share(sink);
    let mut rows = 0;
    input.begin_statement();
    while input.read_row()? {
        if !input.before_row() {
            continue;
        }
        let hash = input.hash(table.key.column, hasher).map_or_else(|| table.hash_of_null(), Ok)?;
        let added = sink.borrow_mut().add(hash, |batch| {
            batch.note_line(1, input.line_number());
            input.line(&mut batch.data);
            Ok(())
        });
        added.inspect_err(|_| input.forget_line())?;
        input.after_row()?;
        rows += 1;
    }
    input.forget_line();
    sink.borrow_mut().finish()?;
    input.end_statement();
    Ok(rows)
}
