//! A repair copied all rows of a shard, however few the placement had missed. Now the nodes compare what they have, and a
//! placement that is whole but for some rows gets these alone.

use testkit::{NodeName, TestCluster};

const WORKER_2: NodeName = NodeName::Worker(2);

/// Runs `writes` while worker 2 is down.
pub(crate) fn miss(cluster: &TestCluster, writes: &[&str]) {
    cluster.kill(WORKER_2).expect("worker2 runs");
    for write in writes {
        cluster.sql(write);
    }
    cluster.start(WORKER_2).expect("worker2 is down");
}

/// Which tables the shards on worker 2 are, and where their rows lie: `(oid, ctid, xmin)` of all rows that `condition` selects.
fn rows_on_worker_2(cluster: &TestCluster, table: &str, condition: &str) -> Vec<Vec<String>> {
    let mut session = cluster.session_on(WORKER_2);
    let mut rows = Vec::new();
    for shard in cluster.tables_on(WORKER_2, &format!("{table}\\_1%")) {
        rows.extend(session.sql(&format!(
            "SELECT tableoid, ctid, xmin FROM {shard} WHERE {condition} ORDER BY ctid"
        )));
    }
    rows
}

#[test]
fn only_rows_that_differ_are_written_again() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b float8)",
        "t",
        "id",
        4,
        2,
    );
    cluster.sql(
        "INSERT INTO t SELECT i, repeat('x', i % 50), i / 7.0 FROM generate_series(1, 4000) i",
    );
    let untouched = "id BETWEEN 101 AND 3900";
    let before = rows_on_worker_2(&cluster, "t", untouched);
    assert_eq!(before.len(), 3800);
    miss(
        &cluster,
        &[
            "UPDATE t SET a = 'changed' WHERE id <= 50",
            "DELETE FROM t WHERE id BETWEEN 51 AND 100",
            "UPDATE t SET id = 3901, a = 'swapped' WHERE id = 3901",
            "INSERT INTO t SELECT i, NULL, NULL FROM generate_series(4001, 4100) i",
        ],
    );
    assert_eq!(cluster.repair("t"), 4);
    assert_eq!(cluster.assert_placements_equal("t"), 4050);
    assert_eq!(rows_on_worker_2(&cluster, "t", untouched), before);
}

#[test]
fn rows_without_a_key_are_counted() {
    // Equal rows are many rows, and a placement may lack some of them only.
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE t (id int, a text, j json, p point, double int GENERATED ALWAYS AS (id * 2) STORED)",
        "t",
        "id",
        2,
        2,
    );
    cluster.sql(
        "INSERT INTO t SELECT i % 5, CASE WHEN i % 3 = 0 THEN NULL ELSE 'a \\ \"b\"' END, '{\"k\": 1}', '(1,2)' \
         FROM generate_series(1, 300) i",
    );
    let first = rows_on_worker_2(&cluster, "t", "true");
    miss(
        &cluster,
        &[
            "INSERT INTO t SELECT 3, 'a \\ \"b\"', '{\"k\": 1}', '(1,2)' FROM generate_series(1, 7)",
            "DELETE FROM t WHERE id = 4 AND a IS NULL",
            "INSERT INTO t VALUES (1, repeat(md5('long'), 1000), NULL, NULL), (2, '', '[]', NULL)",
        ],
    );
    cluster.repair("t");
    cluster.assert_placements_equal("t");
    let after = rows_on_worker_2(&cluster, "t", "true");
    let stayed = first.iter().filter(|row| after.contains(row)).count();
    assert_eq!(stayed, 300 - 20, "all rows but those that were deleted are where they were");
}

#[test]
fn a_placement_of_another_definition_is_made_anew() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (id int PRIMARY KEY, a int)", "t", "id", 2, 2);
    cluster.sql("INSERT INTO t SELECT i, i FROM generate_series(1, 100) i");
    let before = rows_on_worker_2(&cluster, "t", "true");
    miss(
        &cluster,
        &[
            "INSERT INTO t VALUES (101, 0), (102, 0), (103, 0), (104, 0)",
            "CREATE INDEX t_a ON t (a)",
        ],
    );
    cluster.repair("t");
    cluster.assert_placements_equal("t");
    let after = rows_on_worker_2(&cluster, "t", "true");
    assert!(
        after.iter().all(|row| before.iter().all(|old| old[0] != row[0])),
        "the shards are new tables"
    );
    assert_eq!(
        cluster
            .session_on(WORKER_2)
            .text("SELECT count(*) FROM pg_indexes WHERE indexname LIKE 't\\_a\\_1%'"),
        "2"
    );
}

#[test]
fn a_placement_that_somebody_has_emptied_or_dropped_is_made_anew() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (id int PRIMARY KEY, a int)", "t", "id", 2, 2);
    cluster.sql("INSERT INTO t SELECT i, i FROM generate_series(1, 3000) i");
    let shards = cluster.tables_on(WORKER_2, "t\\_1%");
    let mut worker = cluster.session_on(WORKER_2);
    worker.sql(&format!("TRUNCATE {}", shards[0]));
    worker.sql(&format!("DROP TABLE {}", shards[1]));
    cluster.sql(&format!(
        "UPDATE pgs_distribution_metadata.shard_placement SET shard_state = 3 WHERE node_port = {}",
        cluster.port(WORKER_2)
    ));
    assert_eq!(cluster.repair("t"), 2);
    assert_eq!(cluster.assert_placements_equal("t"), 3000);
}

#[test]
fn a_repair_is_undone_with_its_transaction() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (id int PRIMARY KEY, a int)", "t", "id", 2, 2);
    cluster.sql("INSERT INTO t SELECT i, i FROM generate_series(1, 100) i");
    miss(&cluster, &["UPDATE t SET a = 0"]);
    let before = rows_on_worker_2(&cluster, "t", "true");
    cluster.sql("BEGIN");
    assert_eq!(cluster.repair("t"), 2);
    cluster.sql("ROLLBACK");
    assert_eq!(rows_on_worker_2(&cluster, "t", "true"), before);
    assert_eq!(cluster.unhealthy("t"), 2);
}

#[test]
fn values_that_are_equal_and_look_different_differ() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE t (id int PRIMARY KEY, n numeric, f float8, b bpchar, v varchar(20), d date, \"odd \"\" name\" text)",
        "t",
        "id",
        2,
        2,
    );
    cluster.sql("INSERT INTO t SELECT i, 1.0, 0, 'a', 'a', '2026-01-01', 'a' FROM generate_series(1, 600) i");
    miss(
        &cluster,
        &[
            "UPDATE t SET n = 1.00 WHERE id <= 10",
            "UPDATE t SET f = '-0' WHERE id BETWEEN 11 AND 20",
            "UPDATE t SET b = 'a ' WHERE id BETWEEN 21 AND 30",
            "UPDATE t SET v = 'a ' WHERE id BETWEEN 31 AND 40",
            "UPDATE t SET \"odd \"\" name\" = NULL WHERE id BETWEEN 41 AND 50",
        ],
    );
    cluster.repair("t");
    cluster.assert_placements_equal("t");
    assert_eq!(rows_on_worker_2(&cluster, "t", "f::text = '-0'").len(), 10);
    assert_eq!(rows_on_worker_2(&cluster, "t", "n::text = '1.00'").len(), 10);
}

#[test]
fn each_column_of_a_row_counts_whatever_function_hashes_it() {
    // Columns that are never NULL are hashed by functions of their types, others as a record or as text.
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE t (id int8, part text, u uuid, i2 int2 NOT NULL, i4 int NOT NULL, v varchar NOT NULL, o oid NOT NULL, \
         n name NOT NULL, ts timestamp NOT NULL, tz timestamptz NOT NULL, free int, d numeric NOT NULL, j json NOT NULL, \
         big int8 NOT NULL, maybe int8, tm time NOT NULL, \
         PRIMARY KEY (part, id, u))",
        "t",
        "id",
        1,
        2,
    );
    cluster.sql(
        "INSERT INTO t SELECT i, 'p' || i % 7, md5(i::text)::uuid, 1, 1, 'v', 1, 'n', '2026-01-01', '2026-01-01', \
         CASE WHEN i % 2 = 0 THEN i END, 1.0, '{}', 1, -1, '00:00' FROM generate_series(1, 1800) i",
    );
    let changes = [
        "i2 = 2",
        "i4 = 2",
        "v = 'v '",
        "o = 2",
        "n = 'm'",
        "ts = '2026-01-02'",
        "tz = '2026-01-02'",
        "free = NULL",
        "free = -id",
        "d = 1.00",
        "j = '{ }'",
        // The types' own hashes are those of the values before.
        "d = -1.0",
        "big = 4294967296",
        "maybe = 4294967295",
        "tm = '01:11:34.967297'",
    ];
    let missed: Vec<String> = (1_usize..)
        .zip(changes)
        .map(|(number, change)| format!("UPDATE t SET {change} WHERE id = {}", number * 100))
        .collect();
    let untouched = "id % 100 <> 0";
    let before = rows_on_worker_2(&cluster, "t", untouched);
    miss(&cluster, &missed.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(cluster.repair("t"), 1);
    assert_eq!(cluster.assert_placements_equal("t"), 1800);
    assert_eq!(rows_on_worker_2(&cluster, "t", untouched), before);
}

#[test]
fn rows_with_a_null_where_the_table_allows_none_are_compared() {
    // A constraint that was never validated, or was dropped on a node: functions of types return NULL then.
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE t (id int PRIMARY KEY, a text NOT NULL, b int)",
        "t",
        "id",
        1,
        2,
    );
    cluster.sql("INSERT INTO t SELECT i, 'a', i FROM generate_series(1, 200) i");
    for worker in [NodeName::Worker(1), WORKER_2] {
        let shard = &cluster.tables_on(worker, "t\\_1%")[0];
        let mut session = cluster.session_on(worker);
        session.sql(&format!("ALTER TABLE {shard} ALTER a DROP NOT NULL"));
        session.sql(&format!("UPDATE {shard} SET a = NULL WHERE id <= 20"));
        if worker == WORKER_2 {
            session.sql(&format!("UPDATE {shard} SET b = -1 WHERE id <= 5"));
        }
    }
    let found =
        cluster.sql("SELECT rows_missing, rows_surplus FROM pgs_catalog.check_placements('t')");
    assert_eq!(found, [["5", "5"]]);
}
