//! Shards change their place while clients go on, and stay where they were if somebody dies on the way.

/// What goes along, what is refused, and what is left on the nodes.
mod whole;

/// Clients that read and write meanwhile.
mod clients;

/// Parts of shards.
mod split;

/// Whoever is killed at whichever step.
mod matrix;

/// The same for what changes placements otherwise.
mod deaths;

/// Tables that are distributed anew.
mod alter;

/// Local tables that are distributed beside their users.
mod online;

use testkit::{NodeName, TestCluster};

const WORKER_1: NodeName = NodeName::Worker(1);
const WORKER_2: NodeName = NodeName::Worker(2);
const WORKER_3: NodeName = NodeName::Worker(3);

/// A call of a function that takes a shard from one node to another.
fn call(cluster: &TestCluster, function: &str, shard: i64, from: NodeName, to: NodeName) -> String {
    format!(
        "SELECT pgs_catalog.{function}({shard}, 'localhost', {}, 'localhost', {})",
        cluster.port(from),
        cluster.port(to)
    )
}

/// The nodes with healthy placements of a shard, by number of the placement.
fn nodes_of(cluster: &TestCluster, table: &str, shard: i64) -> Vec<NodeName> {
    let placements = cluster.placements(table);
    let healthy = placements.iter().filter(|one| one.shard == shard && one.state == 1);
    healthy.map(|placement| placement.node).collect()
}

/// The first shard of a table on a node.
fn shard_on(cluster: &TestCluster, table: &str, node: NodeName) -> i64 {
    let placements = cluster.placements(table);
    let placement = placements.iter().find(|placement| placement.node == node);
    placement.unwrap_or_else(|| panic!("{node} has no shard of {table}")).shard
}
