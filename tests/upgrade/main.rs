//! A cluster is taken to a later version of PostgreSQL by `pg_upgrade`, one node after the other.
//!
//! The tests need servers and libraries of two versions; `cargo xtask core` has them. Where there is one version only they say so
//! and are done.

use testkit::{NodeName, TestCluster};

/// What one sees of the cluster: rows by key, of many shards, of a reference table, and the metadata.
const LOOKS: [&str; 7] = [
    "SELECT v FROM t WHERE k = 17",
    "SELECT count(*), sum(v), max(note) FROM t",
    "SELECT count(*), sum(t.v * r.factor) FROM t JOIN u USING (k) JOIN r ON r.id = t.v % 3",
    "SELECT region, count(*) FROM p GROUP BY region ORDER BY region",
    "SELECT relation_id::regclass, partition_method, key FROM pgs_distribution_metadata.partition ORDER BY 1",
    "SELECT id, relation_id::regclass, min_value, max_value FROM pgs_distribution_metadata.shard ORDER BY 1",
    "SELECT * FROM pgs_distribution_metadata.shard_placement ORDER BY 1",
];

/// A coordinator and two workers of the earlier version, with tables of each kind.
fn earlier_cluster() -> Option<TestCluster> {
    let settings = [("max_prepared_transactions", "10")];
    let Some(cluster) = TestCluster::up_of_earlier_version(2, &settings) else {
        eprintln!("skipped: there is no earlier version of PostgreSQL to upgrade from");
        return None;
    };
    cluster.create_distributed(
        "CREATE TABLE t (k int PRIMARY KEY, v int NOT NULL, note text DEFAULT 'n')",
        "t",
        "k",
        4,
        2,
    );
    cluster.create_distributed("CREATE TABLE u (k int PRIMARY KEY)", "u", "k", 4, 2);
    cluster.sql("CREATE TABLE r (id int PRIMARY KEY, factor int)");
    cluster.sql("SELECT create_reference_table('r')");
    cluster.sql(
        "CREATE TABLE p (k int, region text) PARTITION BY LIST (region); \
         CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a'); CREATE TABLE p_b PARTITION OF p DEFAULT",
    );
    cluster.distribute("p", "k", 3, 1);
    cluster.sql("INSERT INTO t SELECT i, i * 2, 'note ' || i FROM generate_series(1, 100) AS i");
    cluster.sql("INSERT INTO u SELECT i FROM generate_series(1, 50) AS i");
    cluster.sql("INSERT INTO r VALUES (0, 1), (1, 10), (2, 100)");
    cluster.sql(
        "INSERT INTO p SELECT i, CASE WHEN i % 2 = 0 THEN 'a' ELSE 'z' END FROM generate_series(1, 30) AS i",
    );
    Some(cluster)
}

fn looks(cluster: &TestCluster) -> Vec<String> {
    LOOKS.iter().map(|look| cluster.text(look)).collect()
}

#[test]
fn nodes_and_then_the_coordinator_are_upgraded_and_all_is_as_before() {
    let Some(mut cluster) = earlier_cluster() else { return };
    let before = looks(&cluster);
    let (first, second) = (NodeName::Worker(1), NodeName::Worker(2));

    // pg_upgrade refuses a server with prepared transactions, and leaves it as it was.
    let mut worker = cluster.session_on(first);
    worker.sql("BEGIN; CREATE TABLE of_somebody (); PREPARE TRANSACTION 'open'");
    drop(worker);
    let refused = cluster.upgrade(first).expect_err("there is a prepared transaction");
    assert!(refused.contains("prepared transactions"), "{refused}");
    cluster.session_on(first).sql("COMMIT PREPARED 'open'");
    assert_eq!(looks(&cluster), before);

    // A later worker beside an earlier one: the earlier coordinator uses both.
    cluster.upgrade(first).expect("nothing is in the way any more");
    assert_eq!(looks(&cluster), before);
    cluster.sql("UPDATE t SET v = v + 1; UPDATE t SET v = v - 1 WHERE k = 17");
    cluster.sql("BEGIN; INSERT INTO t VALUES (200, 1); DELETE FROM t WHERE v > 50; ROLLBACK");
    cluster
        .sql("UPDATE t SET v = v - 1 WHERE k <> 17; ALTER TABLE t ADD COLUMN more int DEFAULT 5");
    assert_eq!(looks(&cluster), before);
    assert_eq!(cluster.assert_placements_equal("t"), 100);

    cluster.upgrade(second).expect("nothing is in the way");
    assert_eq!(looks(&cluster), before);
    cluster.upgrade(NodeName::Coordinator).expect("nothing is in the way");
    assert_eq!(looks(&cluster), before);

    // It goes on as a cluster that was always of this version.
    cluster.sql(
        "UPDATE t SET v = v + 1, more = 6; ALTER TABLE t DROP COLUMN more; CREATE INDEX ON t (v)",
    );
    cluster.sql("INSERT INTO t VALUES (101, 7), (102, 8); DELETE FROM t WHERE k = 17");
    assert_eq!(cluster.text("SELECT count(*), sum(v) FROM t"), "101|10180");
    cluster.create_distributed("CREATE TABLE n (k int)", "n", "k", 4, 2);
    cluster.sql("INSERT INTO n SELECT generate_series(1, 20)");
    assert_eq!(cluster.text("SELECT count(*) FROM n JOIN t USING (k)"), "19");
    for (table, rows) in [("t", 101), ("u", 50), ("n", 20)] {
        assert_eq!(cluster.assert_placements_equal(table), rows, "{table}");
    }
}

#[test]
fn a_coordinator_that_was_upgraded_first_refuses_the_earlier_workers() {
    let Some(mut cluster) = earlier_cluster() else { return };
    let before = looks(&cluster);
    cluster.upgrade(NodeName::Coordinator).expect("nothing is in the way");
    for statement in [
        "SELECT v FROM t WHERE k = 17",
        "SELECT count(*) FROM t",
        "UPDATE t SET v = 0 WHERE k = 17",
        "INSERT INTO p VALUES (1, 'a')",
    ] {
        let error = cluster.error(statement);
        assert_eq!(error.sqlstate, "55000", "{statement}: {}", error.line());
        assert!(error.line().contains("which is earlier than PostgreSQL"), "{}", error.line());
    }
    // No placement was taken for one that missed a write.
    assert_eq!(cluster.unhealthy("t"), 0);
    cluster.upgrade(NodeName::Worker(1)).expect("nothing is in the way");
    cluster.upgrade(NodeName::Worker(2)).expect("nothing is in the way");
    assert_eq!(looks(&cluster), before);
}
