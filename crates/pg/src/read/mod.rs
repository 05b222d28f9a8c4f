//! From a query tree to facts: what a statement touches, asks for, and may run where.

/// The functions that a node calls.
pub(crate) mod called;

/// Expressions that raise nothing.
pub(crate) mod infallible;

/// What an analysed query is and says.
pub mod query;

/// Which rows a statement changes.
pub mod changes;

/// Reading what a statement touches and says.
pub(crate) mod facts;

/// `ctid` over several shards.
pub(crate) mod tid;

/// Conditions from which shards can be left out.
pub(crate) mod prune_facts;

/// What a statement that writes says of its target.
mod write_facts;

/// What expressions need.
mod expression_facts;

/// Operators that SQL has no place to name.
pub(crate) mod implied;

/// What may run where.
pub(crate) mod shippable;

/// What may run with rights that are lent.
pub(crate) mod lent;

/// Nested conditions as one.
pub(crate) mod flat;

/// Statements that differ in constants only.
pub mod fingerprint;

/// Whether a statement reads more than once.
pub(crate) mod repeated;

/// Partitioned tables as one relation.
pub(crate) mod partitioned;
