//! Nodes come and go: the list of nodes, their addresses, their health, and what moves between them.

/// Adding, removing and renaming nodes.
mod list;

/// Nodes that fall silent and come back.
mod health;

/// Shards move to where nodes have room.
mod shares;

/// What is wrong with a cluster.
mod doctor;
