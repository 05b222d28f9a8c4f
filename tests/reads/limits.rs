//! Reads at their limits: rows that are too many to be sent along, and samples.

use testkit::{Session, TestCluster};

/// Ten thousand rows in eight shards, and a session.
fn cluster_with_a_table() -> (TestCluster, Session) {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v int)", "t", "k", 8, 1);
    cluster.sql("INSERT INTO t SELECT i, i FROM generate_series(1, 10000) AS i; ANALYZE t");
    let session = cluster.new_session();
    (cluster, session)
}

#[test]
fn a_join_that_would_send_more_than_a_node_takes_fails_with_a_hint_that_works() {
    let (_cluster, mut session) = cluster_with_a_table();
    session.sql("CREATE TABLE wide (id int, filling text)");
    session
        .sql("INSERT INTO wide SELECT i, repeat('x', 100000000) FROM generate_series(1, 9) AS i");
    let query = "SELECT sum(length(filling)) FROM wide JOIN t ON v = id";
    let error = session.error(query);
    assert_eq!(error.sqlstate, "54000");
    assert!(error.hint.contains("pg_shard.enable_pushdown"), "{error:?}");
    session.sql("SET pg_shard.enable_pushdown = off");
    assert_eq!(session.text(query), "900000000");
}

#[test]
fn samples_take_what_is_known_when_the_statement_starts() {
    let (_cluster, mut session) = cluster_with_a_table();
    session.sql("SET plan_cache_mode = force_generic_plan");
    session.sql(
        "PREPARE sampled (float4, float8) AS
            SELECT count(*) FROM t TABLESAMPLE BERNOULLI ($1) REPEATABLE ($2)",
    );
    assert_eq!(session.text("EXECUTE sampled (100, 1)"), "10000");
    let half = session.text("EXECUTE sampled (50, 1)");
    assert!((4000..6000).contains(&half.parse().expect("a count")), "{half} of 10,000");
    assert_eq!(session.text("EXECUTE sampled (50, 1)"), half, "the same seed, the same rows");
    assert_ne!(session.text("EXECUTE sampled (50, 2)"), half);
    assert_eq!(session.text("SELECT count(*) FROM t TABLESAMPLE SYSTEM ((SELECT 100))"), "10000");
    let volatile = "SELECT count(*) FROM t TABLESAMPLE BERNOULLI (random() * 0 + 100)";
    assert_eq!(session.text(volatile), "10000");
    assert_eq!(session.error("EXECUTE sampled (101, 1)").sqlstate, "2202H");
    assert_eq!(session.error("EXECUTE sampled (NULL, 1)").sqlstate, "2202H");
}

#[test]
fn samples_that_no_worker_can_take_are_refused() {
    let (cluster, mut session) = cluster_with_a_table();
    let by_row = "SELECT * FROM generate_series(1, 100) AS n, LATERAL (SELECT * FROM t TABLESAMPLE BERNOULLI (n)) AS s";
    let error = session.error(by_row);
    assert_eq!(error.sqlstate, "0A000");
    // Ten rows of each shard are not ten rows.
    if !cluster.has_module("tsm_system_rows") {
        return;
    }
    session.sql("CREATE EXTENSION tsm_system_rows");
    let error = session.error("SELECT * FROM t TABLESAMPLE system_rows (10)");
    assert_eq!(error.sqlstate, "0A000");
    assert!(error.message.contains("\"system_rows\""), "{error:?}");
}
