//! How rows are spread over shards by a column of theirs.

use pgrx::pg_sys::Oid;

/// Rows that are sent go where they match: by the hash of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// The column.
    pub column: usize,
    /// The hash operator family of the distribution column.
    pub family: Oid,
    /// The type that the column is hashed as.
    pub type_oid: Oid,
    /// The distribution column's collation.
    pub collation: Oid,
}
