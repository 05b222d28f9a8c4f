//! PostgreSQL's structures as Rust sees them: errors, nodes and lists, values, tables of functions.

/// Errors as PostgreSQL knows them.
pub mod error;

/// What pgrx forgets of errors.
mod caught;

/// Where PostgreSQL calls us.
pub(crate) mod boundary;

/// Nodes, lists and walks over trees.
pub(crate) mod node;

/// Functions of the server that raise nothing.
pub(crate) mod unguarded;

/// Distributed plans, and lists of nodes that they are kept as.
pub mod plan;

/// Tables of functions for nodes of ours.
pub(crate) mod custom;

/// Values between datums and the wire.
pub mod value;

/// Values that a node sends.
pub(crate) mod decoder;

/// Stored values, read back.
pub(crate) mod stored;

/// Shared memory.
pub(crate) mod shared_memory;

/// Hooks of those who were there before us.
pub(crate) mod previous;

/// What differs between PostgreSQL's versions.
pub(crate) mod version;
