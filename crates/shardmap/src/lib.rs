//! Where rows live, as pure logic: ids, hash ranges, pruning, placement policy, route inference, the names of shards.
//!
//! This crate knows nothing about PostgreSQL: no OIDs, no trees, no connections. The extension copies facts
//! out of the server, asks here, and acts on the answer.

/// Which placements to move so that nodes carry equal shares.
pub mod balance;

/// Types that mean the same everywhere in binary form.
pub mod binary_types;

/// When to stop catching up with writers.
pub mod catching_up;

/// How the keys of changed rows are noted.
pub mod change_capture;

/// What tables and their shards are made of.
pub mod definition;

/// How two placements of a shard differ.
pub mod difference;

/// Ids and addresses as types.
pub mod ids;

/// Instructions to nodes, and their proofs.
pub mod instruction;

/// What is thought of a node.
pub mod health;

/// Hash ranges and the shards of one table.
pub mod map;

/// Rows of the metadata, checked.
pub mod metadata;

/// Rows that move from worker to worker.
pub mod repartition;

/// Rights that a coordinator lends to a session of a node.
pub mod lending;

/// Names in the texts of messages.
pub mod naming;

/// Which nodes get the placements of a new shard.
pub mod placement;

/// Cutting the list of shards by what a filter says of the distribution column.
pub mod prune;

/// Proving that everything a statement touches lies in one shard group.
pub mod route;

/// SQL in which the shard's id is left open.
pub mod shard_template;

/// Where a row lies, as a `ctid`.
pub mod tid;

/// INSERT of several rows from an INSERT of one.
pub mod values_list;

pub use ids::{NodeAddress, PlacementId, PlacementState, ShardId};
pub use map::{HashRange, Shard, ShardMap};
pub use placement::choose_nodes;
pub use prune::{KeyValue, Prune};
