//! A statement as SQL for the nodes, and the check that it says what was meant.

/// Making a statement ready for the workers.
pub(crate) mod prepare;

/// What is computed here and sent as a parameter.
pub(crate) mod foldable;

/// Assignments as they are printed.
pub(crate) mod assigned;

/// What the rewriter leaves behind.
pub(crate) mod rewritten;

/// Where the rows of an INSERT come from.
pub(crate) mod insert_source;

/// A statement as SQL for any shard.
pub mod template;

/// One form for all query trees that mean the same.
pub(crate) mod canonical;

/// Whether what was printed is what was meant.
pub(crate) mod verify;

/// The same for what is printed of the planner's relations.
pub(crate) mod verify_scan;
