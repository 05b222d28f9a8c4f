//! `pgshard status`, `repair`, `rebalance` and `top` work on clusters that somebody else has made.

use cluster::{activity, carry_out, examine, overview, plan_rebalance, plan_repair};
use std::fs;
use testkit::{NodeName, TestCluster, wait_until};

#[test]
fn an_operator_repairs_and_rebalances_a_cluster_by_its_url() {
    let cluster = TestCluster::up_with(3, &[("pg_shard.health_interval", "200ms")]);
    let url =
        format!("postgres://postgres@127.0.0.1:{}/postgres", cluster.port(NodeName::Coordinator));
    let third = cluster.port(NodeName::Worker(3));
    let drain = |is_draining: bool| {
        cluster.sql(&format!(
            "SELECT pgs_catalog.set_node_draining('localhost', {third}, {is_draining})"
        ))
    };
    drain(true);
    cluster.create_distributed("CREATE TABLE kv (k int PRIMARY KEY, v int)", "kv", "k", 6, 2);
    cluster.sql("INSERT INTO kv SELECT i, i FROM generate_series(1, 600) i");

    // A placement that has missed something is repaired.
    let second = NodeName::Worker(2);
    cluster.kill(second).expect("worker2 runs");
    cluster.sql("UPDATE kv SET v = v + 1 WHERE k <= 10");
    cluster.start(second).expect("worker2 is down");
    let is_up = "SELECT count(*) FROM pgs_catalog.nodes WHERE health = 'up'";
    wait_until("all nodes are up", || cluster.text(is_up) == "3");
    let status = overview(&url).expect("the coordinator says how it is");
    assert_eq!((status.nodes.len(), status.in_doubt, status.relocations.len()), (3, 0, 0));
    assert_eq!(status.nodes.iter().map(|node| node.placements).sum::<i64>(), 12);
    assert_eq!((&*status.tables[0].table, status.tables[0].placements), ("public.kv", 12));
    let steps = plan_repair(&url).expect("repairs are planned");
    assert!(!steps.is_empty());
    assert_eq!(status.nodes.iter().map(|node| node.inactive).sum::<i64>(), steps.len() as i64);
    let mut done = 0;
    carry_out(&url, &steps, |_| done += 1).expect("placements are repaired");
    assert_eq!(done, steps.len());
    assert_eq!(plan_repair(&url).expect("repairs are planned"), []);
    assert_eq!(cluster.assert_placements_equal("kv"), 600);

    // A node that has nothing gets its share.
    drain(false);
    let steps = plan_rebalance(&url, "bytes").expect("moves are planned");
    assert_eq!(steps.len(), 4, "{steps:?}");
    assert!(steps.iter().all(|step| step.target == format!("localhost:{third}")), "{steps:?}");
    carry_out(&url, &steps, |_| ()).expect("shards move");
    assert_eq!(plan_rebalance(&url, "bytes").expect("moves are planned"), []);
    assert_eq!(cluster.assert_placements_equal("kv"), 600);
    assert_eq!(activity(&url).expect("the coordinator says what it does"), []);

    // A step that fails names the shard; what was done before stays.
    let error = carry_out(&url, &steps[..1], |_| ()).expect_err("the shard has left");
    assert!(error.to_string().contains("of table kv"), "{error}");
}

/// Only sessions without encryption were known: a server that insists on it could not be looked over.
#[test]
fn an_operator_reaches_servers_that_insist_on_encryption_and_verifies_them_if_asked() {
    let cluster = TestCluster::up(1);
    if !cluster.has_tls() {
        return;
    }
    cluster.on_all_nodes("CREATE ROLE operator SUPERUSER LOGIN");
    for node in cluster.nodes() {
        encrypt(&cluster, node);
    }
    let root = cluster.data_dir(NodeName::Coordinator).join("server.crt");
    let port = cluster.port(NodeName::Coordinator);
    let url = |host: &str, settings: &str| {
        format!("postgres://operator@{host}:{port}/postgres?{settings}")
    };
    let root = root.display().to_string();
    let settings = |mode: &str| format!("sslmode={mode}&sslrootcert={root}");
    for url in [
        url("127.0.0.1", "connect_timeout=5"),
        url("127.0.0.1", "sslmode=require"),
        url("127.0.0.1", &settings("verify-ca")),
        url("localhost", &settings("verify-full")),
        format!(
            "host=localhost port={port} user=operator dbname=postgres sslmode=verify-full sslrootcert={root}"
        ),
    ] {
        let status = overview(&url).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(status.nodes.len(), 1, "{url}");
        let report = examine(&url).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(report.nodes.len(), 2, "{url}");
    }
    let others = cluster.data_dir(NodeName::Worker(1)).join("server.crt");
    let wrong = format!("sslmode=verify-ca&sslrootcert={}", others.display());
    for (url, reason) in [
        (url("127.0.0.1", "sslmode=disable"), "rejects connection"),
        (url("127.0.0.1", &settings("verify-full")), "not valid for name"),
        (url("localhost", &wrong), "invalid peer certificate"),
        (url("localhost", "sslmode=verify-full&sslrootcert=/absent.crt"), "/absent.crt"),
    ] {
        let error = overview(&url).expect_err(&url).to_string();
        assert!(error.contains(reason), "{url}: {error}");
    }
}

/// From now on a node takes encrypted sessions of the operator only.
fn encrypt(cluster: &TestCluster, node: NodeName) {
    let rules = cluster.data_dir(node).join("pg_hba.conf");
    let known = fs::read_to_string(&rules).expect("the node has rules");
    let rules_now = format!("hostnossl all operator all reject\n{known}");
    fs::write(&rules, rules_now).expect("the file is ours");
    cluster.encrypt(node);
}
