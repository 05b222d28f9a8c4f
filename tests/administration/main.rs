//! What operators do to a cluster: metadata edited by hand, servers without the library preloaded, dumps and restores, sizes, and
//! settings of roles on the workers.

/// Metadata that make no sense.
mod edited;

/// Names of Citus.
mod citus_names;

/// Commands on nodes, shards and placements.
mod commands;

/// Dumps and restores of the coordinator.
mod dumps;

/// A library beside objects that another script made.
mod objects;

/// Servers that have not preloaded the library.
mod preloading;

/// Settings of roles on the workers.
mod role_settings;

/// Sizes, counters, and maintenance of many tables.
mod sizes;

/// What PostgreSQL checks on a table's own rows and definition.
mod like_local;
