//! INSERT of rows that are computed here: each goes to the shard of its key.

use super::explain::render_generic;
use super::render;
use super::sink::Sink;
use super::spread::{Send, write_shards};
use super::write::{MOST_KEYS, Order, Target, lock_always, lock_for, no_destination, refreshed};
use crate::activity;
use crate::catalog::{self, DistributedTable};
use crate::plan::compiled::Compiled;
use crate::session::{Failure, Request, Sql, StatementKey};
use pg::PgError;
use pg::exec::arguments::FixedArguments;
use pg::exec::child_rows::ChildRow;
use pg::exec::copy::escape_text;
use pg::exec::explain::Explain;
use pg::exec::rows::RowStore;
use pg::exec::scan_io::{Scan, ScanIo};
use pg::sys::plan::InsertedRows;
use pg::sys::value::{Encoder, Hasher};
use protocol::{Arguments, OwnedRow};
use shardmap::values_list::repeat_row;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
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

    fn hash(
        &self,
        row: &ChildRow,
        hasher: &Hasher,
        table: &DistributedTable,
    ) -> Result<i32, PgError> {
        let key = self.plan.key_position.and_then(|position| row.hash(position, hasher));
        key.map_or_else(|| table.hash_of_null(), Ok)
    }

    fn by_copy(&self, io: &mut ScanIo, hasher: &Hasher) -> Result<u64, PgError> {
        let table = catalog::get(self.plan.table)?;
        let mut sink =
            Sink::new(Rc::clone(&table), self.plan.user, &self.plan.columns, String::new());
        let encoders = io.child_text_encoders();
        let mut count = 0;
        while let Some(row) = io.child_row() {
            io.with_row_memory(|_| {
                let hash = self.hash(&row, hasher, &table)?;
                sink.add(hash, |batch| {
                    let line = &mut batch.data;
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
        let codecs = self.compiled.codecs(|| io.make_plain_codecs(self.plan.sent));
        let fixed = io.fixed_arguments();
        let row_types: Vec<u32> = encoders.iter().map(Encoder::argument_type).collect();
        let types = [&row_types[..], codecs.argument_types()].concat();
        let statement = Statement {
            insert: self,
            template: self.compiled.template_number(("", ""), &self.plan.template, &types)?,
            row_types,
            other_types: codecs.argument_types().to_vec(),
            row_formats: encoders.iter().map(Encoder::is_binary).collect(),
            other_formats: fixed.formats().collect(),
            others: fixed,
            binary_columns: codecs.binary_columns().to_vec(),
        };
        let most = statement.most_rows();
        let kept = io.rows();
        let (mut count, mut number) = (0, 0);
        let mut batch = Batch::default();
        while let Some(row) = io.child_row() {
            let is_full = io.with_row_memory(|_| {
                let hash = self.hash(&row, hasher, &table)?;
                let index = table.map.owner(hash).ok_or_else(no_destination)?;
                let rows = batch.shards.entry(index).or_default();
                rows.hashes.insert(hash);
                rows.numbers.push(number);
                let values = if rows.numbers.len() == 1 { &mut rows.first } else { &mut rows.rest };
                let before = values.len();
                for (column, encoder) in encoders.iter().enumerate() {
                    row.append(column, encoder, values);
                }
                batch.bytes += values.len() - before;
                Ok::<bool, PgError>(rows.numbers.len() >= most || batch.bytes >= BATCH_BYTES)
            })?;
            number += 1;
            if is_full {
                count += statement.run(std::mem::take(&mut batch), &kept)?;
            }
        }
        count += statement.run(batch, &kept)?;
        Ok(count)
    }
}

/// Values of rows that are collected before they are sent.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// The most parameters that a statement can have.
const MOST_PARAMETERS: usize = 65535;

/// Rows for several shards.
#[derive(Default)]
struct Batch {
    shards: BTreeMap<usize, ShardRows>,
    bytes: usize,
}

/// Rows for one shard.
struct ShardRows {
    /// The keys, by hash.
    hashes: BTreeSet<i32>,
    /// Which rows of the statement they are.
    numbers: Vec<usize>,
    first: Arguments,
    rest: Arguments,
}

impl Default for ShardRows {
    fn default() -> Self {
        Self {
            hashes: BTreeSet::new(),
            numbers: Vec::new(),
            first: Arguments::bare(),
            rest: Arguments::bare(),
        }
    }
}

/// An INSERT of rows into one shard, whatever their number.
struct Statement<'a> {
    insert: &'a InsertRows,
    template: u64,
    row_types: Vec<u32>,
    row_formats: Vec<bool>,
    /// Arguments that belong to no row.
    others: FixedArguments,
    other_types: Vec<u32>,
    other_formats: Vec<bool>,
    binary_columns: Vec<bool>,
}

impl Statement<'_> {
    /// How many rows one can have.
    fn most_rows(&self) -> usize {
        ((MOST_PARAMETERS - self.other_types.len()) / self.row_types.len().max(1)).max(1)
    }

    /// Runs it for each shard, all nodes at once; what is returned is kept in the order of the rows.
    fn run(&self, batch: Batch, kept: &Rc<RefCell<RowStore>>) -> Result<u64, PgError> {
        if batch.shards.is_empty() {
            return Ok(0);
        }
        let plan = &self.insert.plan;
        let tables = self.lock(&batch)?;
        let targets = batch
            .shards
            .keys()
            .map(|index| Target {
                tables: &tables,
                written: 1,
                index: *index,
                user: plan.user,
                counts: true,
            })
            .collect();
        let mut returned: BTreeMap<usize, Vec<OwnedRow>> = BTreeMap::new();
        let mut send = |index: usize, send: Send<'_>| {
            self.with_request(&tables[0], index, &batch.shards[&index], send)
        };
        let count = write_shards(targets, &|| None, &mut send, &mut |index, row| {
            if plan.returning {
                returned.entry(index).or_default().push(row.to_owned());
            }
            Ok(())
        })?;
        activity::sent_rows(batch.shards.values().map(|rows| rows.numbers.len()).sum());
        // A row that meets a conflict may return nothing: then those of its shard that do stand where the first do.
        let mut ordered: Vec<(usize, OwnedRow)> = returned
            .into_iter()
            .flat_map(|(index, rows)| batch.shards[&index].numbers.iter().copied().zip(rows))
            .collect();
        ordered.sort_by_key(|(number, _)| *number);
        for (_, mut row) in ordered {
            kept.borrow_mut().keep(row.as_row())?;
        }
        Ok(count)
    }

    /// Takes the locks of all shards; the table as it is behind them.
    ///
    /// Two statements over several shards that met on rows in another order on each node would wait for each other where
    /// nobody sees it; so those that may wait for rows, because of ON CONFLICT, wait here.
    fn lock(&self, batch: &Batch) -> Result<Vec<Rc<DistributedTable>>, PgError> {
        let plan = &self.insert.plan;
        let table = catalog::get(plan.table)?;
        let keys: usize = batch.shards.values().map(|rows| rows.hashes.len()).sum();
        let meets_rows = plan.on_conflict && batch.shards.len() > 1;
        let order = if meets_rows { Order::OfKeys } else { Order::of(plan.command) };
        let mut shards: Vec<_> = batch
            .shards
            .iter()
            .map(|(index, rows)| (table.shard_id(*index), *index, rows))
            .collect();
        shards.sort_by_key(|(shard, ..)| *shard);
        let mut tables = vec![Rc::clone(&table)];
        for (shard, index, rows) in shards {
            let hashes: Vec<i32> = rows.hashes.iter().copied().collect();
            let hashes = (keys <= MOST_KEYS).then_some(&hashes[..]);
            if meets_rows {
                lock_always(order, &table, index, hashes);
            } else {
                lock_for(order, &table, index, hashes);
            }
            tables = refreshed(&[plan.table], index, shard)?;
        }
        Ok(tables)
    }

    fn with_request(
        &self,
        table: &DistributedTable,
        index: usize,
        rows: &ShardRows,
        send: Send<'_>,
    ) -> Result<(), Failure> {
        let plan = &self.insert.plan;
        let (count, more) = (rows.numbers.len(), rows.numbers.len() - 1);
        let formats: Vec<bool> = self
            .row_formats
            .iter()
            .chain(&self.other_formats)
            .chain(self.row_formats.iter().cycle().take(more * self.row_formats.len()))
            .copied()
            .collect();
        let mut types = [&self.row_types[..], &self.other_types].concat();
        types.extend(self.row_types.iter().cycle().take(more * self.row_types.len()));
        let mut arguments = Arguments::start(formats.into_iter());
        arguments.values(&rows.first);
        self.others.append(&mut arguments);
        arguments.values(&rows.rest);
        arguments.finish(&self.binary_columns);
        let render = || render(&plan.template, index);
        if count == 1 {
            let key = StatementKey { template: self.template, part: table.shard_id(index).0 };
            let sql = Sql::Spooled(key, &render);
            return send(&[Request::new(sql, &types, &arguments)]);
        }
        let one = render().map_err(Failure::Statement)?;
        let (columns, others) = (self.row_types.len(), self.other_types.len());
        let sql = repeat_row(&one, columns, others, count).ok_or_else(|| {
            Failure::Statement(PgError::internal("an INSERT of a row has no VALUES"))
        })?;
        send(&[Request::new(Sql::Once(&sql), &types, &arguments)])
    }
}

impl Scan for InsertRows {
    fn next(&mut self, io: &mut ScanIo) -> Result<bool, PgError> {
        if !self.done {
            self.run(io)?;
            self.done = true;
        }
        if self.plan.returning { io.emit_kept() } else { Ok(false) }
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
            explain.text("Remote SQL", &render_generic(&self.plan.template)?);
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
