//! Nodes come and go: the list of nodes, their addresses, their health, and what moves between them.

/// Adding, removing and renaming nodes.
mod list;

/// Nodes that fall silent and come back.
mod health;

/// Shards move to where nodes have room.
mod shares;

/// Nodes that stay away.
mod lost;

/// What operators do with a cluster that was made elsewhere.
mod operator;

/// What is wrong with a cluster.
mod doctor;

/// What happens in the life of a cluster, in one story.
mod story;

/// The clients of the story.
mod clients;
