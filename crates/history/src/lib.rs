//! Whether what clients saw can have happened: a checker of histories of transactions that append to lists and read them.
//!
//! A list that is only appended to tells in which order its values came, so that what depends on what follows from the reads alone.
//! The rules are those of Adya (*Weak Consistency*, 1999), and the idea of lists is that of Elle (Kingsbury and Alvaro, *Elle: Inferring
//! Isolation Anomalies from Experimental Observations*, 2020). Nothing here knows PostgreSQL or pg_shard.
//!
//! [`check`] returns what a level of isolation forbids and the history shows. All levels are *strict*: what was acknowledged before a
//! transaction began is there for it.

/// What clients saw, and what must not be.
mod transaction;

/// The order of each list, and what single reads show.
mod order;

/// Cycles of what comes before what.
mod graph;

use graph::Graph;
use order::Orders;
pub use transaction::{Anomaly, Edge, End, Level, Operation, Transaction};

/// What the history shows and the level forbids. Empty if nothing.
pub fn check(history: &[Transaction], level: Level) -> Vec<Anomaly> {
    let (orders, mut found) = Orders::of(history);
    found.extend(orders.missed(history));
    if level != Level::Statements {
        found.extend(order::changed_under_reader(history));
    }
    // A cycle of what is wrong already says nothing more.
    if found.is_empty() {
        found.extend(Graph::of(history, &orders, level).cycle().map(Anomaly::Cycle));
    }
    found
}

#[cfg(test)]
mod tests;
