//! What a distributed plan says, and how PostgreSQL keeps it: as a flat list of numbers and texts, so that it can be copied, cached
//! and printed like any plan.
//!
//! The types are those that the wall makes and the executors read. `O` is how objects of the server are known: the
//! server's OIDs in the extension, plain numbers in tests. [`code`] says once for each type what it consists of, for both
//! directions.

/// Values as numbers and texts.
pub mod code;

/// Scans over shards.
pub mod scan;

/// Scans that lock rows which their children have found.
pub mod claim;

/// How the rows of a scan are made of what nodes send.
pub mod row;

/// Whole statements, and writes whose rows are computed on the coordinator.
pub mod statement;

/// SQL with holes for the shards' names.
pub mod template;

pub use code::{Coded, Coder, Reference};
pub use scan::ShardScan;
pub use statement::{ComputedModify, InsertedRows, Routed};

/// A plan of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan<O> {
    /// A whole statement for one shard group.
    Routed(Routed<O>),
    /// A scan over shards, below a plan of PostgreSQL's.
    ShardScan(Box<ShardScan<O>>),
    /// Rows computed here for the shards of one table.
    InsertedRows(InsertedRows<O>),
    /// A write whose rows are computed by the plan below it.
    ComputedModify(ComputedModify<O>),
}

impl<O: Reference> Default for Plan<O> {
    fn default() -> Self {
        Self::ComputedModify(ComputedModify::default())
    }
}

impl<O> Plan<O> {
    /// Its distributed tables; of a write that is computed here the written one.
    pub fn tables(&self) -> &[O] {
        match self {
            Self::Routed(plan) => &plan.tables,
            Self::ShardScan(plan) => &plan.tables,
            Self::InsertedRows(plan) => std::slice::from_ref(&plan.table),
            Self::ComputedModify(plan) => std::slice::from_ref(&plan.table),
        }
    }

    /// What it sends runs nothing that users have made: of functions only those of the server go into a scan.
    pub fn is_plain(&self) -> bool {
        match self {
            Self::Routed(plan) => plan.is_plain,
            Self::ShardScan(plan) => plan.split.is_none() && plan.moves == 0,
            Self::InsertedRows(_) | Self::ComputedModify(_) => false,
        }
    }
}

impl<O: Reference> Coded for Plan<O> {
    fn code(&mut self, coder: &mut dyn Coder) {
        let mut kind = match self {
            Self::Routed(_) => 0,
            Self::ShardScan(_) => 1,
            Self::InsertedRows(_) => 2,
            Self::ComputedModify(_) => 3,
        };
        let known = kind;
        coder.number(&mut kind);
        if kind != known {
            *self = match kind {
                0 => Self::Routed(Routed::default()),
                1 => Self::ShardScan(Box::default()),
                2 => Self::InsertedRows(InsertedRows::default()),
                _ => Self::ComputedModify(ComputedModify::default()),
            };
        }
        match self {
            Self::Routed(plan) => plan.code(coder),
            Self::ShardScan(plan) => plan.code(coder),
            Self::InsertedRows(plan) => plan.code(coder),
            Self::ComputedModify(plan) => plan.code(coder),
        }
    }
}

#[cfg(test)]
mod tests;
