//! Catalogs, tables, statistics, and SQL of our own.

/// Tables, catalogs and settings.
pub mod table;

/// Extensions and their functions.
pub mod extension;

/// Which indexes keep rows apart over shards.
pub mod uniqueness;

/// What roles may do.
pub mod role;

/// The triggers of a table.
pub mod trigger;

/// Which tables are linked by foreign keys.
pub mod foreign_keys;

/// What types are made of.
pub mod type_parts;

/// What a user's aggregate is made of.
pub mod definition;

/// What PostgreSQL keeps with a distributed table.
pub mod mark;

/// What the planner knows of a table's rows.
pub mod statistics;

/// SQL of our own, and other roles' rights.
pub mod privileged;

/// Rights that a coordinator lends to a session of this node.
pub mod lent;

/// Tables whose rows are written without anything that users have made.
pub mod plain;
