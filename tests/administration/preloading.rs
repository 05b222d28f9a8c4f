//! Servers that have not loaded the library when they started.

use std::fs::OpenOptions;
use std::io::Write;

use testkit::{NodeName, TestCluster};

const COORDINATOR: NodeName = NodeName::Coordinator;

fn restart_preloading(cluster: &TestCluster, node: NodeName, libraries: &str) {
    cluster.stop(node).expect("the node is up");
    let path = cluster.data_dir(node).join("postgresql.auto.conf");
    let mut file = OpenOptions::new().append(true).open(path).expect("the node has the file");
    writeln!(file, "shared_preload_libraries = '{libraries}'").expect("there is room");
    cluster.start(node).expect("the node is down");
}

#[test]
fn a_coordinator_that_does_not_preload_refuses_to_use_its_distributed_tables() {
    // After a restart without the setting, sessions read 0 rows and wrote into the coordinator's own table. Whoever opens a
    // distributed table now calls its access method, which is ours.
    let cluster = TestCluster::up(1);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v int)", "t", "k", 2, 1);
    cluster.sql(
        "INSERT INTO t SELECT i, i FROM generate_series(1, 10) AS i; CREATE TABLE here (x int)",
    );
    cluster.sql("CREATE VIEW w AS SELECT count(*) FROM t");
    restart_preloading(&cluster, COORDINATOR, "");
    for statement in [
        "SELECT count(*) FROM t",
        "SELECT * FROM w",
        "INSERT INTO t VALUES (11, 11)",
        "UPDATE t SET v = 0",
        "DELETE FROM t WHERE k = 1",
        "COPY t FROM '/dev/null'",
        "COPY t TO '/dev/null'",
        "TRUNCATE t",
        "ALTER TABLE t ADD c int",
        "DROP TABLE t CASCADE",
    ] {
        // Each is the first statement of its session, and the second.
        let mut session = cluster.new_session();
        for _ in 0..2 {
            let error = session.error(statement);
            assert_eq!(
                error.line(),
                "55000: cannot use distributed tables: pg_shard is not preloaded",
                "{statement}"
            );
            assert!(error.hint.contains("shared_preload_libraries"), "{error}");
        }
    }
    let mut session = cluster.new_session();
    session.sql("INSERT INTO here VALUES (1)");
    let error = session.error("SELECT create_distributed_table('here', 'x')");
    assert_eq!(error.line(), "55000: cannot distribute tables: pg_shard is not preloaded");
    restart_preloading(&cluster, COORDINATOR, "pg_shard");
    assert_eq!(cluster.new_session().text("SELECT count(*), sum(v) FROM t"), "10|55");
}

#[test]
fn the_extension_is_created_without_preloading_on_workers_only() {
    let cluster = TestCluster::up_with(2, &[("max_prepared_transactions", "100")]);
    for worker in cluster.workers() {
        restart_preloading(&cluster, worker, "");
    }
    let mut worker = cluster.session_on(NodeName::Worker(1));
    let error = worker.error("CREATE EXTENSION pg_shard");
    assert_eq!(
        error.line(),
        "55000: cannot create extension pg_shard: the library is not preloaded"
    );
    assert!(error.hint.contains("SET pg_shard.is_worker = on"), "{error}");
    // Workers need the functions only.
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v int)", "t", "k", 2, 2);
    let created = "SELECT count(*) FROM pg_extension WHERE extname = 'pg_shard'";
    assert_eq!(worker.text(created), "1");
    worker.sql("DROP EXTENSION pg_shard; SET pg_shard.is_worker = on; CREATE EXTENSION pg_shard; DROP EXTENSION pg_shard");
    cluster.sql("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)");
    cluster.sql(&format!(
        "UPDATE pgs_distribution_metadata.shard_placement SET shard_state = 3 WHERE node_port = {}",
        cluster.port(NodeName::Worker(1))
    ));
    // Repairing creates it.
    assert_eq!(cluster.repair("t"), 2);
    assert_eq!(cluster.assert_placements_equal("t"), 3);
}
