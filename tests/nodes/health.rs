//! The watcher notices nodes that die or freeze, and their return.

use testkit::{NodeName, TestCluster, wait_until};

const WORKER_2: NodeName = NodeName::Worker(2);

/// A watched cluster, whose statements would wait long for a frozen node.
fn cluster() -> TestCluster {
    let cluster = TestCluster::up_with(3, &[("pg_shard.health_interval", "200ms")]);
    cluster.create_distributed("CREATE TABLE kv (k int PRIMARY KEY, v int)", "kv", "k", 6, 2);
    cluster.sql("INSERT INTO kv SELECT i, i FROM generate_series(1, 1000) i");
    wait_until("the watcher has written down the nodes", || {
        cluster.text("SELECT count(*) FROM pgs_catalog.node") == "3"
    });
    cluster
}

fn wait_for_state(cluster: &TestCluster, state: &str) {
    let port = cluster.port(WORKER_2);
    let of_worker = format!("SELECT state FROM pgs_catalog.nodes WHERE port = {port}");
    wait_until(&format!("worker2 is {state}"), || cluster.text(&of_worker) == state);
}

#[test]
fn a_node_that_dies_is_down_and_one_that_comes_back_is_up() {
    let cluster = cluster();
    cluster.kill(WORKER_2).expect("worker2 runs");
    wait_for_state(&cluster, "down");
    let error = "SELECT last_error LIKE '%refused%' FROM pgs_catalog.nodes WHERE state = 'down'";
    assert_eq!(cluster.text(error), "t");
    cluster.start(WORKER_2).expect("worker2 is down");
    wait_for_state(&cluster, "up");
}

/// Each session found out by itself that a node was frozen, and waited for 15 seconds.
#[test]
fn no_read_waits_for_a_frozen_node_that_is_known_to_be_down() {
    let cluster = cluster();
    cluster.pause(WORKER_2).expect("worker2 runs");
    wait_for_state(&cluster, "down");
    for statement in
        ["SELECT count(*) FROM kv", "SELECT count(*) FROM kv WHERE k = ANY ('{1,2,3,4,5,6,7,8}')"]
    {
        let mut session = cluster.new_session();
        session.sql(statement);
        // A session that tries a node in vain says so.
        let warnings = session.warnings();
        assert!(warnings.is_empty(), "{statement}: {warnings:?}");
    }
    for key in 1..=20 {
        let mut session = cluster.new_session();
        assert_eq!(session.text(&format!("SELECT v FROM kv WHERE k = {key}")), key.to_string());
        let warnings = session.warnings();
        assert!(warnings.is_empty(), "{key}: {warnings:?}");
    }
    assert_eq!(cluster.unhealthy("kv"), 0, "reads mark nothing");
    cluster.resume(WORKER_2).expect("worker2 is paused");
    wait_for_state(&cluster, "up");
}

#[test]
fn what_the_watcher_knows_outlives_a_restart_of_the_coordinator() {
    let cluster = cluster();
    cluster.pause(WORKER_2).expect("worker2 runs");
    wait_for_state(&cluster, "down");
    cluster.kill(NodeName::Coordinator).expect("the coordinator runs");
    cluster.start(NodeName::Coordinator).expect("the coordinator is down");
    cluster.reconnect();
    wait_for_state(&cluster, "down");
    cluster.resume(WORKER_2).expect("worker2 is paused");
    wait_for_state(&cluster, "up");
}
