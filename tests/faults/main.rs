//! Real servers die under load: nothing that was acknowledged is lost, and repaired placements are equal.

/// Under the load of pgbench, whatever happens to workers: no acknowledged write is lost.
mod under_load;

/// One fault at a time, in one session.
mod in_a_session;

/// Whoever waits for frozen nodes can be stopped.
mod frozen;

/// What is wrong on the coordinator's own side marks no placement.
mod own_side;

/// Statements that take too long are given up, on the workers too.
mod time;

/// What the client is told is true, and every wait ends.
mod told;

use testkit::{NodeName, Script, TestCluster, wait_until};

const WORKER_1: NodeName = NodeName::Worker(1);
const WORKER_2: NodeName = NodeName::Worker(2);

const WRITES: &str = "\\set k random(1, 500)\n\
    UPDATE kv SET v = v + 1 WHERE k = :k;\n\
    INSERT INTO log (id, v) VALUES (gen_random_uuid(), :client_id);\n\
    SELECT v FROM kv WHERE k = :k;\n";

fn cluster_with_tables() -> TestCluster {
    let cluster = TestCluster::up(3);
    cluster.create_distributed("CREATE TABLE kv (k bigint PRIMARY KEY, v int)", "kv", "k", 8, 2);
    cluster.create_distributed("CREATE TABLE log (id uuid PRIMARY KEY, v int)", "log", "id", 8, 2);
    cluster.sql("INSERT INTO kv SELECT i, 0 FROM generate_series(1, 500) AS i");
    cluster
}

/// The number that a query yields.
fn number(cluster: &TestCluster, query: &str) -> u64 {
    cluster.text(query).parse().expect("the query yields one number")
}

/// Runs the load in one mode while `disturb` does its worst; every acknowledged write must be there afterwards.
fn survives(cluster: &TestCluster, mode: &str, disturb: impl FnOnce()) {
    let updates = number(cluster, "SELECT coalesce(sum(v), 0) FROM kv");
    let inserts = number(cluster, "SELECT count(*) FROM log");
    let script = [Script { weight: 1, text: WRITES }];
    let load = cluster.pgbench(mode, &script, &["-c", "8", "-j", "2", "-T", "6"]);
    wait_until("the load runs", || number(cluster, "SELECT count(*) FROM log") > inserts + 50);
    disturb();
    let report = load.finish();
    assert!(report.succeeded, "pgbench in mode {mode}: {}", report.errors);

    cluster.repair("kv");
    cluster.repair("log");
    assert_eq!(cluster.unhealthy("kv") + cluster.unhealthy("log"), 0, "mode {mode}");
    cluster.assert_placements_equal("kv");
    cluster.assert_placements_equal("log");
    let updated = number(cluster, "SELECT sum(v) FROM kv") - updates;
    let inserted = number(cluster, "SELECT count(*) FROM log") - inserts;
    assert_eq!(updated, report.transactions, "updates in mode {mode}");
    assert_eq!(inserted, report.transactions, "inserts in mode {mode}");
}

#[test]
fn a_killed_and_restarted_worker_costs_no_acknowledged_write() {
    let cluster = cluster_with_tables();
    for mode in ["simple", "extended", "prepared"] {
        survives(&cluster, mode, || {
            cluster.kill(WORKER_2).expect("worker2 runs");
            wait_until("a write has missed worker2", || cluster.unhealthy("kv") > 0);
            cluster.start(WORKER_2).expect("worker2 is down");
        });
    }
}

#[test]
fn a_frozen_worker_is_found_out_and_repaired_after_it_thaws() {
    let cluster = cluster_with_tables();
    cluster.sql("ALTER SYSTEM SET pg_shard.silence_timeout = '500ms'");
    cluster.sql("ALTER SYSTEM SET pg_shard.connect_timeout = '500ms'");
    cluster.sql("SELECT pg_reload_conf()");
    survives(&cluster, "prepared", || {
        cluster.pause(WORKER_1).expect("worker1 runs");
        wait_until("a write has missed worker1", || cluster.unhealthy("kv") > 0);
        cluster.resume(WORKER_1).expect("worker1 is paused");
    });
}

#[test]
fn a_restart_that_nobody_noticed_marks_nothing_and_costs_no_error() {
    let cluster = cluster_with_tables();
    cluster.sql("UPDATE kv SET v = 1 WHERE k = 1");
    for worker in cluster.workers() {
        cluster.stop(worker).expect("it runs");
        cluster.start(worker).expect("it is down");
    }
    for key in 1..=20 {
        cluster.sql(&format!("UPDATE kv SET v = 2 WHERE k = {key}"));
    }
    assert_eq!(cluster.text("SELECT count(*) FROM kv"), "500");
    assert_eq!(cluster.unhealthy("kv"), 0);
}

#[test]
fn with_all_nodes_of_a_shard_dead_the_error_is_clear_and_nothing_is_marked() {
    let cluster = cluster_with_tables();
    for worker in cluster.workers() {
        cluster.kill(worker).expect("it runs");
    }
    assert_eq!(
        cluster.error("UPDATE kv SET v = 1 WHERE k = 1").message,
        "could not modify any active placements"
    );
    assert_eq!(
        cluster.error("SELECT * FROM kv WHERE k = 1").message,
        "could not receive query results"
    );
    assert_eq!(cluster.unhealthy("kv"), 0);
}

#[test]
fn a_transaction_that_loses_what_it_wrote_fails_and_the_mark_survives_a_rollback() {
    let cluster = cluster_with_tables();
    cluster.create_distributed(
        "CREATE TABLE single (k int PRIMARY KEY, v int)",
        "single",
        "k",
        3,
        1,
    );
    cluster.sql("INSERT INTO single SELECT i, 0 FROM generate_series(1, 50) AS i");
    let mut session = cluster.new_session();
    session.sql("BEGIN");
    session.sql("UPDATE single SET v = 1 WHERE k BETWEEN 7 AND 7 AND k = 7");
    for worker in cluster.workers() {
        cluster.kill(worker).expect("it runs");
        cluster.start(worker).expect("it is down");
    }
    assert_eq!(session.error("COMMIT").sqlstate, "08006");
    assert_eq!(cluster.text("SELECT v FROM single WHERE k = 7"), "0");

    cluster.kill(WORKER_1).expect("worker1 runs");
    let mut session = cluster.new_session();
    session.sql("BEGIN");
    for key in 1..=30 {
        session.sql(&format!("UPDATE kv SET v = v + 1 WHERE k = {key}"));
    }
    session.sql("ROLLBACK");
    assert!(cluster.unhealthy("kv") > 0);
    assert_eq!(cluster.text("SELECT sum(v) FROM kv"), "0");
}

#[test]
fn a_statement_timeout_ends_a_statement_on_a_worker_too() {
    let cluster = cluster_with_tables();
    let mut session = cluster.new_session();
    session.sql("SET statement_timeout = '300ms'");
    let slow = "SELECT count(*) FROM kv a, kv b, kv c, kv d WHERE a.k = 1 AND b.k = 1 AND c.k = 1 AND d.k = 1 \
                AND (SELECT count(*) FROM generate_series(1, 2000000000)) > 0";
    assert_eq!(session.error(slow).sqlstate, "57014");
    session.sql("SET statement_timeout = 0");
    assert_eq!(session.text("SELECT count(*) FROM kv"), "500");
}
