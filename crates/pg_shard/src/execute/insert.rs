//! INSERT of rows that are computed here: each goes to the shard of its key.

use super::render;
use super::sink::Sink;
use super::write::{Order, Target, lock_for, no_destination, refreshed, write_shard};
use crate::catalog;
use crate::plan::compiled::Compiled;
use crate::plan::data::InsertedRows;
use crate::session::{Request, Sql, StatementKey};
use pg::PgError;
use pg::copy::escape_text;
use pg::scan::{ChildRow, Explain, Scan, ScanIo};
use pg::value::{Encoder, Hasher};
use protocol::Arguments;
use std::rc::Rc;

/// A scan that inserts the rows of the plan below it.
pub(crate) struct InsertRows {
    plan: InsertedRows,
    compiled: Rc<Compiled>,
    done: bool,
}

impl InsertRows {
    /// The scan of a plan.
    pub(crate) fn new(plan: InsertedRows, compiled: Rc<Compiled>) -> Self {
        Self { plan, compiled, done: false }
    }

    fn run(&mut self, io: &mut ScanIo) -> Result<(), PgError> {
        let table = catalog::get(self.plan.table)?;
        let hasher = Hasher::find(table.key.family, table.key.type_oid, table.key.collation)
            .ok_or_else(|| {
                PgError::internal("the distribution column's type has lost its hash function")
            })?;
        if self.plan.buffered {
            io.buffer_child();
        }
        let rows = if self.plan.by_statement {
            self.by_statement(io, &hasher)?
        } else {
            self.by_copy(io, &hasher)?
        };
        io.add_processed(rows);
        Ok(())
    }

    fn hash(&self, row: &ChildRow, hasher: &Hasher) -> Result<i32, PgError> {
        row.hash(self.plan.key_position, hasher)
            .ok_or_else(|| crate::plan::null_key(Some(self.plan.table)))
    }

    fn by_copy(&self, io: &mut ScanIo, hasher: &Hasher) -> Result<u64, PgError> {
        let table = catalog::get(self.plan.table)?;
        let mut sink =
            Sink::new(Rc::clone(&table), self.plan.user, &self.plan.columns, String::new());
        let encoders = io.child_text_encoders();
        let mut count = 0;
        while let Some(row) = io.child_row() {
            io.with_row_memory(|_| {
                let hash = self.hash(&row, hasher)?;
                sink.add(hash, |lot| {
                    let line = &mut lot.data;
                    for (column, encoder) in
                        encoders.iter().take(self.plan.columns.len()).enumerate()
                    {
                        if column > 0 {
                            line.push(b'\t');
                        }
                        let text = row.with_bytes(column, encoder, |text| escape_text(text, line));
                        if text.is_none() {
                            line.extend_from_slice(b"\\N");
                        }
                    }
                    line.push(b'\n');
                    Ok(())
                })
            })?;
            count += 1;
        }
        sink.finish()?;
        Ok(count)
    }

    fn by_statement(&self, io: &mut ScanIo, hasher: &Hasher) -> Result<u64, PgError> {
        let table = catalog::get(self.plan.table)?;
        let mut encoders: Vec<Encoder> = io.child_encoders();
        encoders.truncate(self.plan.columns.len());
        let mut types: Vec<u32> = encoders.iter().map(Encoder::argument_type).collect();
        let codecs = self.compiled.codecs(|| io.make_plain_codecs(self.plan.sent));
        types.extend(codecs.argument_types());
        let user = self.plan.user;
        let fixed = io.fixed_arguments();
        let formats: Vec<bool> =
            encoders.iter().map(Encoder::is_binary).chain(fixed.formats()).collect();
        let template = self.compiled.template_number(("", ""), &self.plan.template, &types)?;
        let kept = io.rows();
        let mut count = 0;
        while let Some(row) = io.child_row() {
            count += io.with_row_memory(|_| {
                let hash = self.hash(&row, hasher)?;
                let index = table.map.owner(hash).ok_or_else(no_destination)?;
                let shard = table.shard_id(index);
                lock_for(Order::of(self.plan.command), &table, index, Some(&[hash]));
                let tables = refreshed(&[self.plan.table], index, shard)?;
                let mut arguments = Arguments::start(formats.iter().copied());
                for (column, encoder) in encoders.iter().enumerate() {
                    row.append(column, encoder, &mut arguments);
                }
                fixed.append(&mut arguments);
                arguments.finish(codecs.binary_columns());
                let key = StatementKey { template, part: shard.0 };
                let render = || render(&self.plan.template, index);
                let request =
                    Request { sql: Sql::Kept(key, &render), types: &types, arguments: &arguments };
                let target = Target { tables: &tables, written: 1, index, user, counts: true };
                write_shard(&target, &request, false, &mut |row| {
                    if self.plan.returning { kept.borrow_mut().keep(row) } else { Ok(()) }
                })
            })?;
        }
        Ok(count)
    }
}

impl Scan for InsertRows {
    fn next(&mut self, io: &mut ScanIo) -> Result<bool, PgError> {
        if !self.done {
            self.run(io)?;
            self.done = true;
        }
        Ok(self.plan.returning && io.emit_kept())
    }

    fn rescan(&mut self, io: &mut ScanIo, _changed: bool) -> Result<(), PgError> {
        io.rows().borrow_mut().rewind();
        Ok(())
    }

    fn end(&mut self, _io: &mut ScanIo) {}

    fn explain(&mut self, _io: &mut ScanIo, explain: &mut Explain) -> Result<(), PgError> {
        let table = catalog::get(self.plan.table)?;
        explain.text("Shards", &format!("decided row by row, of {}", table.map.len()));
        if self.plan.by_statement {
            explain.text("Remote SQL", &super::read::render_generic(&self.plan.template)?);
        } else {
            let columns: Vec<String> =
                self.plan.columns.iter().map(|name| catalog::quote(name)).collect();
            explain.text(
                "Remote SQL",
                &format!("COPY {} ({}) FROM STDIN", table.name, columns.join(", ")),
            );
        }
        Ok(())
    }
}
