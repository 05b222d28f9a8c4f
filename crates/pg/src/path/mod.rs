//! Distributed tables in PostgreSQL's planner: relations, paths and plans that run on the nodes.

/// Distributed tables in PostgreSQL's own planner.
pub mod base;

/// Relations of the planner that the workers can compute, and their SQL.
pub(crate) mod remote;

/// The SQL of it.
pub(crate) mod printer;

/// Expressions made ready for ruleutils.
pub(crate) mod printable;

/// Sub-queries in FROM that the workers can compute.
pub(crate) mod subselect;

/// Joins on the workers.
pub(crate) mod join;

/// FOR UPDATE with LIMIT.
pub mod claim;

/// Joins of a table whose rows are locked.
pub(crate) mod lock_join;

/// Joins of rows that are read here with what the workers find for them.
pub mod lookup_join;

/// Joins of rows that move from worker to worker.
pub(crate) mod repartition;

/// Aggregates in parts.
pub(crate) mod aggregate;

/// Grouping, windows, DISTINCT, ORDER BY and LIMIT on the workers: the hook.
pub(crate) mod upper;

/// Grouping and aggregates on the workers.
mod group;

/// DISTINCT on the workers.
mod distinct;

/// ORDER BY with LIMIT, and LIMIT, on the workers.
mod ordered;

/// Paths and orders that these stages have in common.
pub(crate) mod upper_path;

/// Sorted streams as inputs of what runs here.
pub(crate) mod sorted;

/// Window functions on the workers.
pub(crate) mod window;

/// What a path of ours sends, and its plan.
pub(crate) mod pushed;

/// Plans as PostgreSQL keeps them.
pub mod plan;

/// Writes whose rows are computed here.
pub mod modify;
