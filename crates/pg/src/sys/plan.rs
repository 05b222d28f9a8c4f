//! Distributed plans with the server's OIDs in them, and lists of nodes as the crate `plan` writes and reads them.

use crate::sys::node;
use ::plan::{claim, row, scan, statement, template};
use pgrx::pg_sys::{self, NodeTag, Oid};

pub use ::plan::row::StateKind;
pub use ::plan::scan::{LookupJoin, LookupKind};
pub use ::plan::statement::Command;
pub(crate) use ::plan::template::SHARD_INDEX;
pub use ::plan::{Coded, Coder};

/// A plan of ours.
pub type Plan = ::plan::Plan<Oid>;

/// A scan over shards.
pub type ShardScan = scan::ShardScan<Oid>;

/// Rows are partitioned on the nodes that have them.
pub type Split = scan::Split<Oid>;

/// A scan that locks rows which its children have found.
pub type Claim = claim::Claim<Oid>;

/// A statement that locks the first rows of a node that nobody holds.
pub type FirstFree = claim::FirstFree<Oid>;

/// Where a column of a scan's row comes from.
pub type Source = row::Source<Oid>;

/// A column by which rows are sorted.
pub type SortKey = row::SortKey<Oid>;

/// By what hash rows are spread.
pub type Spread = row::Spread<Oid>;

/// A value for a distribution column.
pub type Key = row::Key<Oid>;

/// A whole statement for one shard group.
pub type Routed = statement::Routed<Oid>;

/// Rows computed here for the shards of one table.
pub type InsertedRows = statement::InsertedRows<Oid>;

/// A write whose rows are computed by the plan below it.
pub type ComputedModify = statement::ComputedModify<Oid>;

/// A piece of a template.
pub type Piece = template::Piece<Oid>;

/// SQL with holes, as it grows.
pub(crate) type Pieces = template::Pieces<Oid>;

/// Writes the private part of a plan.
#[derive(Debug, Default)]
pub struct PlanWriter {
    items: Vec<*mut pg_sys::Node>,
}

impl PlanWriter {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn list(&self) -> *mut pg_sys::List {
        node::list_of(&self.items)
    }
}

impl Coder for PlanWriter {
    fn number(&mut self, value: &mut i32) {
        // SAFETY: makes a node.
        self.items.push(unsafe { pg_sys::makeInteger(*value) }.cast());
    }

    fn text(&mut self, value: &mut String) {
        self.items.push(node::string_node(value));
    }
}

/// Reads the private part of a plan in the order in which it was written.
#[derive(Clone, Debug)]
pub struct PlanReader {
    list: *mut pg_sys::List,
    next: usize,
}

impl PlanReader {
    pub(crate) fn new(list: *mut pg_sys::List) -> Self {
        Self { list, next: 0 }
    }

    fn advance<T>(&mut self) -> *mut T {
        let index = self.next;
        self.next += 1;
        // SAFETY: the list is the private part of a live plan, which PlanWriter made.
        unsafe {
            assert!(
                index < node::length(self.list),
                "a plan's private part is shorter than it was written"
            );
            node::nth(self.list, index)
        }
    }
}

impl Coder for PlanReader {
    fn number(&mut self, value: &mut i32) {
        let n: *mut pg_sys::Integer = self.advance();
        // SAFETY: a node of the list, of the tag that is asserted.
        *value = unsafe {
            assert_eq!(node::tag(n), NodeTag::T_Integer, "a number stands here in the plan");
            (*n).ival
        };
    }

    fn text(&mut self, value: &mut String) {
        let n: *mut pg_sys::String = self.advance();
        // SAFETY: a node of the list, of the tag that is asserted.
        *value = unsafe {
            assert_eq!(node::tag(n), NodeTag::T_String, "a text stands here in the plan");
            node::text_of((*n).sval)
        };
    }
}
