//! Sub-queries turned into joins before PostgreSQL plans.

/// Correlated sub-queries as joins.
pub(crate) mod decorrelate;

/// How a sub-query depends on the query around it.
mod correlation;

/// Correlated sub-queries anywhere as LEFT JOINs.
pub(crate) mod sublink;

/// A correlated sub-query as a relation that is joined.
pub(crate) mod joined_subquery;

/// LATERAL sub-queries as joins.
pub(crate) mod lateral;
