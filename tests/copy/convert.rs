//! Tables that become distributed with their rows, and local again.

use testkit::TestCluster;

const COLUMNS: &str = "(k int PRIMARY KEY, t timestamptz DEFAULT now(), s text, a int[], \
                       twice int GENERATED ALWAYS AS (k * 2) STORED, id int GENERATED ALWAYS AS IDENTITY)";

fn rows(cluster: &TestCluster) -> String {
    cluster.text("SELECT md5(string_agg(t::text, '|' ORDER BY k)), count(*) FROM t")
}

#[test]
fn a_table_takes_its_rows_along_and_brings_them_back() {
    let cluster = TestCluster::up(3);
    cluster.sql(&format!("CREATE TABLE t {COLUMNS}; CREATE INDEX ON t (s); ALTER TABLE t DROP COLUMN a; ALTER TABLE t ADD COLUMN b numeric DEFAULT 1.50"));
    cluster.sql("SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Tokyo'");
    cluster.sql(
        "INSERT INTO t (k, t, s) SELECT i, '2020-02-01 10:00+00'::timestamptz + i * interval '1 hour', \
         CASE WHEN i % 5 = 0 THEN NULL ELSE E'line\\n\\t\\\\' || repeat('x', i) END FROM generate_series(1, 3000) AS i",
    );
    let before = rows(&cluster);
    cluster.sql(
        "SELECT create_distributed_table('t', 'k', shard_count => 6, replication_factor => 2)",
    );
    assert_eq!(rows(&cluster), before);
    assert_eq!(cluster.assert_placements_equal("t"), 3000);
    assert_eq!(cluster.text("SELECT pg_relation_size('t')"), "0");
    cluster.sql("INSERT INTO t (k, s) VALUES (4000, 'new'); DELETE FROM t WHERE k = 4000");

    // Rolled back it is as it was, there and back.
    cluster.sql("BEGIN; SELECT undistribute_table('t')");
    assert_eq!(rows(&cluster), before);
    cluster.sql("ROLLBACK");
    assert_eq!(cluster.assert_placements_equal("t"), 3000);
    // What the same transaction has written comes along.
    cluster.sql(
        "BEGIN; UPDATE t SET s = 'changed' WHERE k = 7; SELECT undistribute_table('t'); COMMIT",
    );
    assert_eq!(cluster.text("SELECT s, count(*) OVER () FROM t WHERE k = 7"), "changed|1");
    assert_eq!(cluster.text("SELECT count(*) FROM t"), "3000");
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_distribution_metadata.shard"), "0");
    for worker in cluster.workers() {
        assert!(cluster.tables_on(worker, "t_1%").is_empty());
    }
    let plan = cluster.text("EXPLAIN SELECT * FROM t WHERE k = 7");
    assert!(!plan.contains("pg_shard"), "{plan}");
    cluster.sql("BEGIN; SELECT create_distributed_table('t', 'k'); ROLLBACK");
    assert_eq!(cluster.text("SELECT count(*) FROM t"), "3000");
    cluster.sql("SELECT create_distributed_table('t', 'k'); INSERT INTO t (k) VALUES (9999)");
    assert_eq!(cluster.text("SELECT count(*), max(twice), max(id) FROM t"), "3001|19998|3002");
}

#[test]
fn a_table_can_be_put_beside_another() {
    let cluster = TestCluster::up(3);
    cluster.sql(
        "CREATE TABLE o (k int, v int); CREATE TABLE l (k int, v int); CREATE TABLE w (k text); \
         INSERT INTO o SELECT i, i FROM generate_series(1, 200) AS i; INSERT INTO l SELECT k, v FROM o",
    );
    cluster.sql("SELECT create_distributed_table('o', 'k', 7, 2)");
    cluster.sql("SELECT create_distributed_table('l', 'k', colocate_with => 'o')");
    let places = |table: &str| {
        cluster.placements(table).iter().map(|placement| placement.node).collect::<Vec<_>>()
    };
    assert_eq!(places("o"), places("l"));
    assert_eq!(
        cluster.text(
            "UPDATE l SET v = l.v + o.v FROM o WHERE o.k = l.k; SELECT sum(v), count(*) FROM l"
        ),
        "40200|200"
    );
    let error = cluster.error("SELECT create_distributed_table('w', 'k', colocate_with => 'o')");
    assert_eq!(error.line(), "22023: cannot colocate table \"w\" with table \"o\"");
    let error = cluster.error("SELECT create_distributed_table('o', 'k')");
    assert_eq!(error.line(), "55000: table \"o\" is distributed already");
}

#[test]
fn rows_without_a_key_are_refused_and_writers_wait_for_the_lock() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TABLE t (k int, v int); INSERT INTO t VALUES (1, 1), (NULL, 2)");
    let error = cluster.error("SELECT create_distributed_table('t', 'k')");
    assert_eq!(
        error.line(),
        "22004: cannot distribute table \"t\": a row has NULL in column \"k\""
    );
    assert_eq!(cluster.text("SELECT count(*) FROM t"), "2");
    cluster.sql("DELETE FROM t WHERE k IS NULL");

    // A writer that has not committed when the function begins: its row comes along. One that comes later finds the
    // shards.
    let mut early = cluster.new_session();
    early.sql("BEGIN; INSERT INTO t VALUES (2, 2)");
    std::thread::scope(|scope| {
        let mut converting = cluster.new_session();
        scope.spawn(move || converting.sql("SELECT create_distributed_table('t', 'k', 4)"));
        let is_waiting = || {
            cluster.text(
                "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND NOT granted",
            ) == "1"
        };
        testkit::wait_until("the function waits for the writer", is_waiting);
        let mut late = cluster.new_session();
        scope.spawn(move || late.sql("INSERT INTO t VALUES (3, 3)"));
        testkit::wait_until("the late writer waits too", || {
            cluster.text(
                "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND NOT granted",
            ) == "2"
        });
        early.sql("COMMIT");
    });
    assert_eq!(cluster.text("SELECT k, v FROM t ORDER BY k"), "1|1\n2|2\n3|3");
    assert_eq!(cluster.assert_placements_equal("t"), 3);
}
