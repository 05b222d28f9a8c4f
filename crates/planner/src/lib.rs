//! What the workers compute of a query, at what cost, and in which SQL: the decisions of `crates/pg/src/path/`, as pure logic.
//!
//! This crate knows nothing about PostgreSQL: no pointers, no trees, no catalogs. The wall copies facts out of the
//! planner, asks here, and makes paths and plans of the answer. Expressions come as text, printed by ruleutils.

/// What paths cost.
pub mod cost;

/// Where the rows of a query's relation lie, and which joins can be made there.
pub mod locus;

/// What a worker is asked for instead of an aggregate.
pub mod partial_aggregate;

/// What stands around the union of a node's shards.
pub mod enclosing;

/// Lookup joins as SQL.
pub mod lookup_join;

/// Window functions as SQL.
pub mod window;

/// Sorting, as SQL.
pub mod ordering;
