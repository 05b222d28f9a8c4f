//! `pgshard doctor` looks over clusters that somebody else has made.

use cluster::{Report, Severity, examine};
use testkit::{NodeName, TestCluster, wait_until};

fn report(cluster: &TestCluster) -> Report {
    let port = cluster.port(NodeName::Coordinator);
    examine(&format!("postgres://postgres@127.0.0.1:{port}/postgres"))
        .expect("the coordinator can be asked")
}

#[test]
fn the_doctor_names_what_is_wrong_and_what_mends_it() {
    let cluster = TestCluster::up_with(2, &[("pg_shard.health_interval", "200ms")]);
    cluster.create_distributed("CREATE TABLE kv (k int PRIMARY KEY, v int)", "kv", "k", 2, 2);
    let healthy = report(&cluster);
    assert_eq!(healthy.findings, []);
    assert_eq!(healthy.nodes.len(), 3);
    assert!(healthy.nodes[1..].iter().all(|node| node.placements == 2 && node.inactive == 0));

    let worker = NodeName::Worker(2);
    cluster.kill(worker).expect("worker2 runs");
    cluster.sql("INSERT INTO kv SELECT i, i FROM generate_series(1, 100) i");
    let is_down = "SELECT count(*) FROM pgs_catalog.nodes WHERE state = 'down'";
    wait_until("the watcher has noticed", || cluster.text(is_down) == "1");
    let node = format!("localhost:{}", cluster.port(worker));
    let found = report(&cluster);
    assert!(found.findings.iter().all(|finding| finding.node == node), "{:?}", found.findings);
    assert_eq!(found.findings[0].severity, Severity::Error);
    assert!(found.findings[0].mend.contains("drain_node"), "{:?}", found.findings);

    cluster.start(worker).expect("worker2 is down");
    wait_until("the watcher has noticed", || cluster.text(is_down) == "0");
    let found = report(&cluster);
    assert_eq!(found.findings.len(), 2, "{:?}", found.findings);
    for finding in found.findings {
        cluster.sql(&finding.mend);
    }
    assert_eq!(report(&cluster).findings, []);
    assert_eq!(cluster.assert_placements_equal("kv"), 100);
}
