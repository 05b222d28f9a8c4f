//! A node's process that had stopped was given up, and its placement marked and repaired. Then it went on, and executed what it had
//! been sent: the placement had the change twice, without a mark.

use std::process::Command;
use std::thread;
use testkit::{NodeName, TestCluster, wait_until};

fn signal(signal: &str, pid: &str) {
    let status = Command::new("kill").args([signal, pid]).status().expect("there is kill");
    assert!(status.success(), "kill {signal} {pid}");
}

#[test]
fn a_repair_waits_until_a_process_that_was_given_up_has_ended() {
    let cluster = TestCluster::impatient(2);
    cluster.create_distributed("CREATE TABLE t (id int PRIMARY KEY, n int)", "t", "id", 1, 2);
    cluster.sql("INSERT INTO t VALUES (1, 0)");
    let follower = cluster.placements("t")[1].node;
    let mut session = cluster.new_session();
    let change = "UPDATE t SET n = n + 1 WHERE id = 1";
    session.sql(change);
    let mut node = cluster.session_on(follower);
    let pid = node.text(
        "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^pg_shard( |$)' AND query ~ 'UPDATE'",
    );
    signal("-STOP", &pid);
    session.sql(change);
    assert_eq!(cluster.unhealthy("t"), 1);
    let repair = "SELECT master_copy_shard_placement(s.shard_id, s.node_name, s.node_port, t.node_name, t.node_port) \
                  FROM pgs_distribution_metadata.shard_placement AS s, pgs_distribution_metadata.shard_placement AS t \
                  WHERE s.shard_state = 1 AND t.shard_state = 3";
    let error = cluster.error(repair);
    assert_eq!(error.sqlstate, "55P03", "{error}");
    signal("-CONT", &pid);
    wait_until("the process is gone", || {
        node.text(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")) == "0"
    });
    cluster.sql(repair);
    assert_eq!(cluster.assert_placements_equal("t"), 1);
    assert_eq!(session.text("SELECT n FROM t WHERE id = 1"), "2");
}

#[test]
fn a_copy_of_a_placement_waits_until_a_process_that_was_given_up_has_ended() {
    let cluster = TestCluster::impatient(2);
    cluster.create_distributed("CREATE TABLE t (id int PRIMARY KEY, n int)", "t", "id", 1, 1);
    cluster.sql("INSERT INTO t VALUES (1, 0)");
    let mut session = cluster.new_session();
    let change = "UPDATE t SET n = n + 1 WHERE id = 1";
    session.sql(change);
    let source = cluster.placements("t")[0].node;
    let target =
        if source == NodeName::Worker(1) { NodeName::Worker(2) } else { NodeName::Worker(1) };
    let mut node = cluster.session_on(source);
    let pid = node.text(
        "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^pg_shard( |$)' AND query ~ 'UPDATE'",
    );
    signal("-STOP", &pid);
    assert_eq!(session.error(change).sqlstate, "08007");
    let [from, to] = [source, target].map(|name| cluster.port(name));
    let copy = format!(
        "SELECT pgs_catalog.copy_shard(shard_id, node_name, {from}, node_name, {to}) FROM pgs_distribution_metadata.shard_placement"
    );
    thread::scope(|scope| {
        let copied = scope.spawn(|| cluster.new_session().sql(&copy));
        let looks = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT 1 FROM pg_catalog.pg_stat_activity WHERE datname =%'";
        wait_until("the copy waits for the process, or has been made", || {
            node.text(looks) != "0" || copied.is_finished()
        });
        assert!(!copied.is_finished(), "nobody has waited for the process");
        signal("-CONT", &pid);
        copied.join().expect("the copy is made");
    });
    assert_eq!(cluster.assert_placements_equal("t"), 1);
}

/// The last healthy placement is not marked when its node's process is given up. A repair from it waited for nothing, and what the process executed later was
/// on one of two healthy placements.
#[test]
fn a_repair_waits_for_processes_of_its_source_too() {
    let cluster = TestCluster::impatient(2);
    cluster.create_distributed("CREATE TABLE t (id int PRIMARY KEY, n int)", "t", "id", 1, 2);
    cluster.sql("INSERT INTO t VALUES (1, 0)");
    let [source, target] = [0, 1].map(|at| cluster.placements("t")[at].node);
    let to = cluster.port(target);
    cluster.sql(&format!(
        "UPDATE pgs_distribution_metadata.shard_placement SET shard_state = 3 WHERE node_port = {to}"
    ));
    let mut session = cluster.new_session();
    let change = "UPDATE t SET n = n + 1 WHERE id = 1";
    session.sql(change);
    let mut node = cluster.session_on(source);
    let pid = node.text(
        "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^pg_shard( |$)' AND query ~ 'UPDATE'",
    );
    signal("-STOP", &pid);
    assert_eq!(session.error(change).sqlstate, "08007");
    let from = cluster.port(source);
    let repair = format!(
        "SELECT master_copy_shard_placement(shard_id, 'localhost', {from}, 'localhost', {to}) \
         FROM pgs_distribution_metadata.shard_placement WHERE shard_state = 3"
    );
    let error = cluster.error(&repair);
    assert_eq!(error.sqlstate, "55P03", "{error}");
    signal("-CONT", &pid);
    wait_until("the process is gone", || {
        node.text(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")) == "0"
    });
    cluster.sql(&repair);
    assert_eq!(cluster.assert_placements_equal("t"), 1);
    assert_eq!(cluster.unhealthy("t"), 0);
}
