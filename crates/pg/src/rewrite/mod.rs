//! Sub-queries turned into joins before PostgreSQL plans.

/// Correlated sub-queries as joins.
pub(crate) mod decorrelate;

/// Correlated sub-queries anywhere as LEFT JOINs.
pub(crate) mod sublink;

/// LATERAL sub-queries as joins.
pub(crate) mod lateral;
