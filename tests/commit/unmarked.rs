//! One of two placements has missed a write, and the mark that says so could not be stored. The note of the write was erased all the same, so the
//! placement stayed healthy for good, and whoever then lost the other one read what had been overwritten.

use crate::{Answer, ask};
use std::process::Command;
use testkit::{NodeName, Session, TestCluster, wait_until};

const CHANGE: &str = "UPDATE t SET n = n + 1 WHERE id = 1";

/// Two placements; the sessions know both.
fn cluster() -> (TestCluster, [NodeName; 2]) {
    let cluster = TestCluster::impatient(2);
    cluster.create_distributed("CREATE TABLE t (id int PRIMARY KEY, n int)", "t", "id", 1, 2);
    cluster.sql("INSERT INTO t VALUES (1, 0)");
    let nodes = [0, 1].map(|at| cluster.placements("t")[at].node);
    (cluster, nodes)
}

/// Stops the process of a node that serves the session's writes; its number.
fn stop(cluster: &TestCluster, session: &mut Session, node: NodeName) -> String {
    session.sql(CHANGE);
    let pid = cluster.session_on(node).text(
        // Those of a coordinator that was killed may not have gone yet.
        "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^pg_shard( |$)' AND query ~ 'UPDATE' ORDER BY backend_start DESC LIMIT 1",
    );
    signal("-STOP", &pid);
    pid
}

fn signal(signal: &str, pid: &str) {
    let status = Command::new("kill").args([signal, pid]).status().expect("there is kill");
    assert!(status.success(), "kill {signal} {pid}");
}

/// Repairs the marked placement; both are equal then.
fn mend(cluster: &TestCluster) {
    wait_until("the placement is repaired", || {
        cluster.unhealthy("t") == 0 || cluster.session().try_sql(&repair()).is_ok()
    });
    assert_eq!(cluster.unhealthy("t"), 0);
    cluster.assert_placements_equal("t");
}

fn repair() -> String {
    "SELECT master_copy_shard_placement(s.shard_id, s.node_name, s.node_port, t.node_name, t.node_port) \
     FROM pgs_distribution_metadata.shard_placement AS s, pgs_distribution_metadata.shard_placement AS t \
     WHERE s.shard_state = 1 AND t.shard_state = 3"
        .to_owned()
}

#[test]
fn a_placement_that_could_not_be_marked_is_not_read_and_is_marked_later() {
    let (cluster, [leader, follower]) = cluster();
    let mut reader = cluster.new_session();
    let read = "SELECT n FROM t WHERE id = 1";
    assert_eq!(reader.text(read), "0");
    let mut session = cluster.new_session();
    let pid = stop(&cluster, &mut session, follower);
    // Nobody can write the metadata.
    let mut holder = cluster.new_session();
    holder.sql("BEGIN");
    holder.sql("LOCK TABLE pgs_distribution_metadata.shard_placement IN EXCLUSIVE MODE");
    let error = session.error(CHANGE);
    assert_eq!(error.sqlstate, "08007", "{error}");
    drop(session);
    signal("-KILL", &pid);
    cluster.wait_for(follower);
    // Who has read before knows both placements; it must not be told the old value by the one that is left.
    cluster.kill(leader).expect("it runs");
    let error = reader.error(read);
    assert!(!error.message.is_empty(), "the old value");
    cluster.start(leader).expect("it is down");
    holder.sql("COMMIT");
    wait_until("the placement is marked", || {
        cluster.unhealthy("t") == 1 || cluster.text(read) == "2" && is_equal(&cluster)
    });
    mend(&cluster);
    assert_eq!(cluster.new_session().text(read), "2");
}

/// Somebody has marked and repaired it already.
fn is_equal(cluster: &TestCluster) -> bool {
    let placements = cluster.placements("t");
    let read = |at: usize| {
        let name = cluster.shard_name("t", placements[at].shard);
        cluster.session_on(placements[at].node).text(&format!("SELECT sum(n) FROM {name}"))
    };
    read(0) == read(1)
}

#[test]
fn a_placement_is_marked_although_the_coordinator_dies_at_its_mark() {
    let (cluster, [_, follower]) = cluster();
    // Leftovers find no room but at the places of the backends: none is lost.
    for room in ["RESET pg_shard.fault_point", "SET pg_shard.fault_point = 'leftovers:none'"] {
        cluster.sql(&format!("ALTER SYSTEM {room}"));
        cluster.kill(NodeName::Coordinator).expect("it runs");
        cluster.start(NodeName::Coordinator).expect("it is down");
        cluster.reconnect();
        let before: i64 = cluster.text("SELECT n FROM t WHERE id = 1").parse().expect("a number");
        let mut session = cluster.new_session();
        session.sql("SET pg_shard.fault_point = 'pair_mark:kill'");
        let pid = stop(&cluster, &mut session, follower);
        assert_eq!(ask(&mut session, CHANGE), Answer::Unknown);
        signal("-KILL", &pid);
        cluster.wait_for(follower);
        wait_until("the coordinator's other sessions are ended too", || {
            ask(&mut cluster.session(), "SELECT 1") != Answer::Done
        });
        cluster.reconnect();
        wait_until("the placement is marked", || cluster.unhealthy("t") == 1 || is_equal(&cluster));
        mend(&cluster);
        let after = cluster.new_session().text("SELECT n FROM t WHERE id = 1");
        assert_eq!(after, (before + 2).to_string());
        // The places are free again: a write needs no other way, and nothing is marked.
        cluster.new_session().sql(CHANGE);
        assert_eq!(cluster.unhealthy("t"), 0);
        cluster.assert_placements_equal("t");
    }
}
