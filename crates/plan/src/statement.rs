//! Whole statements, and writes whose rows are computed on the coordinator.

use crate::code::{Coded, Coder, Reference};
use crate::row::{Key, code_one_of};
use crate::template::{self, Piece};
use shardmap::Prune;
use shardmap::tid::TidLayout;

/// What kind of statement it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Command {
    /// SELECT without locks.
    #[default]
    Select,
    /// SELECT ... FOR UPDATE or FOR SHARE.
    SelectForUpdate,
    /// INSERT.
    Insert,
    /// INSERT ... ON CONFLICT DO UPDATE.
    Upsert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// MERGE.
    Merge,
}

impl Command {
    const ALL: [Self; 7] = [
        Self::Select,
        Self::SelectForUpdate,
        Self::Insert,
        Self::Upsert,
        Self::Update,
        Self::Delete,
        Self::Merge,
    ];

    /// It changes rows.
    pub fn is_write(self) -> bool {
        !matches!(self, Self::Select | Self::SelectForUpdate)
    }
}

impl Coded for Command {
    fn code(&mut self, coder: &mut dyn Coder) {
        code_one_of(self, &Self::ALL, coder);
    }
}

/// A whole statement for one shard group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routed<O> {
    /// Its kind.
    pub command: Command,
    /// Its distributed tables, the written ones first.
    pub tables: Vec<O>,
    /// The role whose rights on them count: a view's owner, or (zero) the current user.
    pub user: O,
    /// How the first of them are written; those after them are only read.
    pub writes: Vec<Command>,
    /// It brings a row, for which there must be a shard.
    pub brings_row: bool,
    /// It may run once for each of several shards.
    pub spreads: bool,
    /// It is about one row, which must still be what it was.
    pub must_find: bool,
    /// It runs nothing that users have made.
    pub is_plain: bool,
    /// What decides the shard.
    pub prune: Prune<Key<O>>,
    /// The SQL.
    pub template: Vec<Piece<O>>,
    /// How many of the expressions are parameters.
    pub sent: usize,
    /// It returns rows although it writes.
    pub returning: bool,
    /// Which of their columns are `ctid`s.
    pub returned_tids: Vec<usize>,
    /// How these are made.
    pub layout: TidLayout,
}

impl<O> Routed<O> {
    /// It changes rows, at the top or in a WITH clause.
    pub fn is_write(&self) -> bool {
        !self.writes.is_empty()
    }
}

impl<O: Reference> Coded for Routed<O> {
    fn code(&mut self, coder: &mut dyn Coder) {
        self.command.code(coder);
        coder.references(&mut self.tables);
        coder.reference(&mut self.user);
        coder.list(&mut self.writes, |command, coder| command.code(coder));
        coder.flag(&mut self.brings_row);
        coder.flag(&mut self.spreads);
        coder.flag(&mut self.must_find);
        coder.flag(&mut self.is_plain);
        self.prune.code(coder);
        template::code(&mut self.template, coder);
        coder.count(&mut self.sent);
        coder.flag(&mut self.returning);
        coder.places(&mut self.returned_tids);
        coder.layout(&mut self.layout);
    }
}

/// Rows computed here for the shards of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InsertedRows<O> {
    /// INSERT or upsert.
    pub command: Command,
    /// The table.
    pub table: O,
    /// The role whose rights on it count: a view's owner, or (zero) the current user.
    pub user: O,
    /// The columns of a row.
    pub columns: Vec<String>,
    /// Which of them is the distribution column; none if it is not among them, so that it is NULL.
    pub key_position: Option<usize>,
    /// The SQL of one row, its columns first among the parameters.
    pub template: Vec<Piece<O>>,
    /// How many expressions follow as parameters.
    pub sent: usize,
    /// As statements of many rows, because of ON CONFLICT or RETURNING; otherwise as COPY data.
    pub by_statement: bool,
    /// It returns rows.
    pub returning: bool,
    /// It has ON CONFLICT.
    pub on_conflict: bool,
    /// The rows are computed from distributed tables: all of them before the first is stored.
    pub buffered: bool,
}

impl<O: Reference> Coded for InsertedRows<O> {
    fn code(&mut self, coder: &mut dyn Coder) {
        self.command.code(coder);
        coder.reference(&mut self.table);
        coder.reference(&mut self.user);
        coder.list(&mut self.columns, |column, coder| coder.text(column));
        coder.option(&mut self.key_position, |place, coder| coder.count(place));
        template::code(&mut self.template, coder);
        coder.count(&mut self.sent);
        coder.flag(&mut self.by_statement);
        coder.flag(&mut self.returning);
        coder.flag(&mut self.on_conflict);
        coder.flag(&mut self.buffered);
    }
}

/// A write whose rows are computed by the plan below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ComputedModify<O> {
    /// The table.
    pub table: O,
    /// The role whose rights on it count: a view's owner, or (zero) the current user.
    pub user: O,
    /// How it is written.
    pub command: Command,
    /// No other part of the statement writes.
    pub is_alone: bool,
    /// Sub-queries are evaluated while rows are taken, which must not see what the statement changes.
    pub has_subqueries: bool,
    /// It is about one row, which must still be what it was.
    pub must_find: bool,
}

impl<O: Reference> Coded for ComputedModify<O> {
    fn code(&mut self, coder: &mut dyn Coder) {
        coder.reference(&mut self.table);
        coder.reference(&mut self.user);
        self.command.code(coder);
        coder.flag(&mut self.is_alone);
        coder.flag(&mut self.has_subqueries);
        coder.flag(&mut self.must_find);
    }
}
