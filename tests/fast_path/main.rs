//! Statements by key, whose plans, templates and prepared statements are kept: kept things must never be wrong.

/// Constants of simple statements that stand for any other.
mod constants;

/// Many clients at once, and workers without a place for one more.
mod crowd;

/// Nodes that die while they write.
mod killed;

/// What sessions keep, and how much of it.
mod kept;

/// Placements that are moved while statements are prepared.
mod moved;

/// Prepared statements that a worker has lost or cannot use any more.
mod stale;

/// Encrypted sessions.
mod tls;

/// Transactions of statements by key, and placements in pairs.
mod transactions;

/// How often the coordinator and its workers speak to each other.
mod trips;

use testkit::{NodeName, TestCluster};

const WORKER_1: NodeName = NodeName::Worker(1);
const WORKER_2: NodeName = NodeName::Worker(2);

/// A table `kv` with keys 1 to 100, in 8 shards.
fn create_kv(cluster: &TestCluster, replicas: u32) {
    cluster.create_distributed(
        "CREATE TABLE kv (k int PRIMARY KEY, v int NOT NULL DEFAULT 0, s varchar(20))",
        "kv",
        "k",
        8,
        replicas,
    );
    cluster.sql("INSERT INTO kv SELECT i, 0, 's' || i FROM generate_series(1, 100) AS i");
}

/// The shard of `table` that holds a key of type int.
fn shard_of(cluster: &TestCluster, table: &str, key: i32) -> i64 {
    cluster.shard_of(table, &format!("hashint4({key})"))
}

/// Where a shard is, the leader first.
fn nodes_of(cluster: &TestCluster, table: &str, shard: i64) -> Vec<NodeName> {
    let placements = cluster.placements(table).into_iter();
    placements
        .filter(|placement| placement.shard == shard)
        .map(|placement| placement.node)
        .collect()
}

/// A key of `table`, up to 100, whose shard is led by `node`.
fn key_led_by(cluster: &TestCluster, table: &str, node: NodeName) -> i32 {
    let leads = |key: &i32| nodes_of(cluster, table, shard_of(cluster, table, *key))[0] == node;
    (1..=100).find(leads).expect("100 keys reach the shards of every node")
}
