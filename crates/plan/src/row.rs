//! How the rows of a scan are made of what nodes send, and how rows are spread, sorted and found.

use crate::code::{Coded, Coder, Reference};
use shardmap::tid::TidLayout;

/// Where a column of the scan's row comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source<O> {
    /// Column of the remote result.
    Remote(usize),
    /// The table's own OID, as `tableoid` shows it.
    TableOid(O),
    /// A row of the table, made of these columns of the remote result (in the table's order, live columns only).
    Row(O, Vec<usize>),
    /// The `ctid` of a row of a table with several shards: the remote result's column from this one on are its `ctid` on the
    /// node and the shard's index.
    Tid(usize, TidLayout),
    /// The same of a row of the shard on which the statement is executed.
    ShardTid(usize, TidLayout),
    /// A serialised transition state, made of its parts: the remote result's columns from this one on.
    State(StateKind, usize),
    /// No node: it is put in here, or NULL.
    #[default]
    Here,
    /// Column of the remote result, a text, which the input function of this type reads.
    Input(O, usize),
}

impl<O: Reference> Coded for Source<O> {
    fn code(&mut self, coder: &mut dyn Coder) {
        let mut kind = match self {
            Self::Remote(_) => 0,
            Self::TableOid(_) => 1,
            Self::Row(..) => 2,
            Self::State(..) => 3,
            Self::Input(..) => 4,
            Self::Here => 5,
            Self::Tid(..) => 6,
            Self::ShardTid(..) => 7,
        };
        let known = kind;
        coder.number(&mut kind);
        if kind != known {
            *self = match kind {
                0 => Self::Remote(0),
                1 => Self::TableOid(O::default()),
                2 => Self::Row(O::default(), Vec::new()),
                3 => Self::State(StateKind::Sum, 0),
                4 => Self::Input(O::default(), 0),
                6 => Self::Tid(0, TidLayout::default()),
                7 => Self::ShardTid(0, TidLayout::default()),
                _ => Self::Here,
            };
        }
        match self {
            Self::Here => {}
            Self::Remote(column) => coder.count(column),
            Self::TableOid(table) => coder.reference(table),
            Self::Row(table, columns) => {
                coder.reference(table);
                coder.places(columns);
            }
            Self::State(kind, first) => {
                kind.code(coder);
                coder.count(first);
            }
            Self::Input(type_oid, column) => {
                coder.reference(type_oid);
                coder.count(column);
            }
            Self::Tid(first, layout) | Self::ShardTid(first, layout) => {
                coder.count(first);
                coder.layout(layout);
            }
        }
    }
}

/// What PostgreSQL's serial functions write of a sum of numbers (`src/backend/utils/adt/numeric.c`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateKind {
    /// Number and sum: `int8_avg_serialize`.
    #[default]
    Sum,
    /// The same of numerics, with their scale and what is not finite: `numeric_avg_serialize`.
    NumericSum,
    /// Number, sum and sum of squares: `numeric_poly_serialize`.
    Squares,
    /// The same of numerics: `numeric_serialize`.
    NumericSquares,
}

impl StateKind {
    const ALL: [Self; 4] = [Self::Sum, Self::NumericSum, Self::Squares, Self::NumericSquares];

    /// It has a sum of squares, which is one more part.
    pub fn has_squares(self) -> bool {
        matches!(self, Self::Squares | Self::NumericSquares)
    }
}

impl Coded for StateKind {
    fn code(&mut self, coder: &mut dyn Coder) {
        code_one_of(self, &Self::ALL, coder);
    }
}

/// One of several values, by its place among them.
pub(crate) fn code_one_of<T: Copy + PartialEq>(value: &mut T, all: &[T], coder: &mut dyn Coder) {
    let mut place = all.iter().position(|known| known == value).unwrap_or(0);
    coder.count(&mut place);
    if let Some(known) = all.get(place) {
        *value = *known;
    }
}

/// A column by which rows are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SortKey<O> {
    /// Its place in the scan's row.
    pub column: usize,
    /// The sort operator.
    pub operator: O,
    /// The collation to sort by.
    pub collation: O,
    /// NULLs come first.
    pub nulls_first: bool,
}

impl<O: Reference> Coded for SortKey<O> {
    fn code(&mut self, coder: &mut dyn Coder) {
        coder.count(&mut self.column);
        coder.reference(&mut self.operator);
        coder.reference(&mut self.collation);
        coder.flag(&mut self.nulls_first);
    }
}

/// Rows that are sent go where they match: by the hash of a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread<O> {
    /// The column.
    pub column: usize,
    /// The hash operator family of the distribution column.
    pub family: O,
    /// The type that the column is hashed as.
    pub type_oid: O,
    /// The distribution column's collation.
    pub collation: O,
}

impl<O: Reference> Coded for Spread<O> {
    fn code(&mut self, coder: &mut dyn Coder) {
        coder.count(&mut self.column);
        coder.reference(&mut self.family);
        coder.reference(&mut self.type_oid);
        coder.reference(&mut self.collation);
    }
}

/// A value for a distribution column: an expression of the prepared statement, and the type to hash it as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key<O> {
    /// Index into the prepared expressions.
    pub expression: usize,
    /// The type whose hash function applies.
    pub hash_type: O,
    /// The hash operator family.
    pub family: O,
    /// The collation to hash under.
    pub collation: O,
    /// The value is an array; any of its elements.
    pub is_array: bool,
}

impl<O: Reference> Key<O> {
    /// A `ctid`, which names its shard; of this type.
    pub fn of_tid(expression: usize, is_array: bool, tid: O) -> Self {
        Self { expression, hash_type: tid, is_array, ..Self::default() }
    }

    /// It is no value of the distribution column but a `ctid`.
    pub fn names_shards(&self) -> bool {
        self.family.into() == 0
    }
}

impl<O: Reference> Coded for Key<O> {
    fn code(&mut self, coder: &mut dyn Coder) {
        coder.count(&mut self.expression);
        coder.reference(&mut self.hash_type);
        coder.reference(&mut self.family);
        coder.reference(&mut self.collation);
        coder.flag(&mut self.is_array);
    }
}
