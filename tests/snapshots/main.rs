//! Reads of one moment: what a server shows of a given time, and what is seen of transactions over several nodes.

/// A server that is asked to read at a time.
mod aged;

/// What is seen of transactions over several nodes.
mod nodes;

/// A bank, and who counts its money.
mod bank;

/// The anomalies that a snapshot excludes, and those that it does not.
mod anomalies;

/// Statements that change or lock rows.
mod writes;

/// Every way of reading.
mod ways;

/// SERIALIZABLE transactions on one node and on several.
mod serializable;
