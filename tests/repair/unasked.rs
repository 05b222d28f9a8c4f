//! A worker that came back had to be repaired by hand. Now a background worker does it.

use testkit::{NodeName, Script, TestCluster, wait_until};

const WORKER_2: NodeName = NodeName::Worker(2);

fn cluster() -> TestCluster {
    let cluster = TestCluster::up_with(
        3,
        &[
            ("pg_shard.repair_naptime", "1s"),
            ("pg_shard.silence_timeout", "1s"),
            ("pg_shard.connect_timeout", "1s"),
        ],
    );
    cluster.create_distributed("CREATE TABLE kv (k int PRIMARY KEY, v int)", "kv", "k", 6, 2);
    cluster.sql("INSERT INTO kv SELECT i, 0 FROM generate_series(1, 2000) i");
    cluster
}

fn wait_until_repaired(cluster: &TestCluster, table: &str) {
    wait_until("the placements are repaired", || cluster.unhealthy(table) == 0);
}

#[test]
fn a_node_that_comes_back_is_repaired_under_load_without_anyone_asking() {
    let cluster = cluster();
    let script = Script {
        weight: 1,
        text: "\\set k random(1, 2000)\nUPDATE kv SET v = v + 1 WHERE k = :k;\nSELECT v FROM kv WHERE k = :k;\n",
    };
    let load = cluster.pgbench("prepared", &[script], &["-c", "4", "-j", "2", "-T", "12"]);
    wait_until("the load runs", || cluster.text("SELECT sum(v) > 100 FROM kv") == "t");
    cluster.kill(WORKER_2).expect("worker2 runs");
    wait_until("a write has missed worker2", || cluster.unhealthy("kv") > 0);
    cluster.start(WORKER_2).expect("worker2 is down");
    wait_until_repaired(&cluster, "kv");
    let report = load.finish();
    assert!(report.succeeded, "{}", report.errors);
    wait_until_repaired(&cluster, "kv");
    cluster.assert_placements_equal("kv");
    assert_eq!(cluster.text("SELECT sum(v) FROM kv"), report.transactions.to_string());
}

#[test]
fn a_frozen_node_is_repaired_after_it_thaws() {
    let cluster = cluster();
    cluster.pause(WORKER_2).expect("worker2 runs");
    cluster.sql("UPDATE kv SET v = 1");
    assert!(cluster.unhealthy("kv") > 0);
    cluster.resume(WORKER_2).expect("worker2 is paused");
    wait_until_repaired(&cluster, "kv");
    assert_eq!(cluster.assert_placements_equal("kv"), 2000);
}

#[test]
fn placements_that_were_inactive_when_the_coordinator_started_are_repaired() {
    let cluster = cluster();
    cluster.kill(WORKER_2).expect("worker2 runs");
    cluster.sql("UPDATE kv SET v = 1");
    cluster.kill(NodeName::Coordinator).expect("the coordinator runs");
    cluster.start(WORKER_2).expect("worker2 is down");
    cluster.start(NodeName::Coordinator).expect("the coordinator is down");
    cluster.reconnect();
    wait_until_repaired(&cluster, "kv");
    cluster.assert_placements_equal("kv");
}

#[test]
fn a_table_is_repaired_whose_owner_may_not_log_in() {
    let cluster = cluster();
    cluster.on_all_nodes("CREATE ROLE keeper NOLOGIN");
    cluster.sql("ALTER TABLE kv OWNER TO keeper");
    cluster.kill(WORKER_2).expect("worker2 runs");
    cluster.sql("UPDATE kv SET v = 1");
    cluster.start(WORKER_2).expect("worker2 is down");
    wait_until_repaired(&cluster, "kv");
    cluster.assert_placements_equal("kv");
}

#[test]
fn a_dropped_table_does_not_keep_the_others_from_being_repaired() {
    let cluster = cluster();
    cluster.create_distributed("CREATE TABLE gone (k int PRIMARY KEY)", "gone", "k", 4, 2);
    cluster.sql("INSERT INTO gone SELECT generate_series(1, 100)");
    cluster.kill(WORKER_2).expect("worker2 runs");
    cluster.sql("UPDATE kv SET v = 1");
    cluster.sql("DELETE FROM gone");
    cluster.sql("DROP TABLE gone");
    cluster.start(WORKER_2).expect("worker2 is down");
    wait_until_repaired(&cluster, "kv");
    cluster.assert_placements_equal("kv");
}
