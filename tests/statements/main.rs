//! Statements of one shard group in every way that a client can send them, and what is refused.

/// Rows that are named by their `ctid`.
mod ctid;

/// What a cursor sees.
mod cursor_snapshots;

/// WHERE CURRENT OF.
mod cursors;

/// Domains whose checks run statements.
mod domains;

/// Keys of every type, in names and schemas of every kind.
mod keys;

/// FOR UPDATE with filters of the coordinator.
mod locks;

/// Functions that write what the statement is about.
mod nested;

/// The placements of a shard hold the same rows.
mod placements;

/// Simple and extended protocol, PREPARE, PL/pgSQL, cursors.
mod protocols;

/// Job queues.
mod queues;

/// What is refused, and how it is said.
mod refusals;

/// Roles and what they may.
mod rights;

/// INSERT as the action of rules.
mod rules;

/// Time-outs of the client and of the nodes.
mod timeouts;

/// Transaction blocks and savepoints.
mod transactions;

/// Reading and writing through views.
mod views;

/// Writes in WITH clauses.
mod with_clauses;

/// INSERT, UPDATE, DELETE and their clauses; values that are computed once.
mod writes;

use testkit::TestCluster;

fn cluster_with_tables() -> TestCluster {
    let cluster = TestCluster::up(3);
    cluster.create_distributed(
        "CREATE TABLE t (k int PRIMARY KEY, v int, s text DEFAULT 'd', at timestamptz DEFAULT now(), n serial)",
        "t",
        "k",
        6,
        2,
    );
    cluster.create_distributed("CREATE TABLE u (k bigint, w int)", "u", "k", 6, 2);
    cluster.sql("INSERT INTO t (k, v) SELECT i, i % 7 FROM generate_series(1, 100) AS i");
    cluster.sql("INSERT INTO u SELECT i % 50, i FROM generate_series(1, 200) AS i");
    cluster
}

#[test]
fn every_protocol_reads_and_writes_by_key() {
    let cluster = cluster_with_tables();
    let mut session = cluster.new_session();
    session.sql("PREPARE add(int, int) AS INSERT INTO t (k, v) VALUES ($1, $2) ON CONFLICT ON CONSTRAINT t_pkey DO UPDATE SET v = t.v + excluded.v RETURNING v");
    for turn in 1..=8 {
        assert_eq!(session.text("EXECUTE add(1000, 2)"), (turn * 2).to_string());
    }
    let client = session.client();
    let update = client
        .prepare("UPDATE t SET v = v + $2 WHERE k = $1 RETURNING v")
        .expect("it can be prepared");
    let select =
        client.prepare("SELECT v, s FROM t WHERE k = ANY ($1)").expect("it can be prepared");
    for turn in 1..=8 {
        let row = client.query_one(&update, &[&1000, &1]).expect("it runs");
        assert_eq!(row.get::<_, i32>(0), 16 + turn);
        assert_eq!(client.query(&select, &[&vec![1000, 1, 2]]).expect("it runs").len(), 3);
    }
    session.sql(
        "CREATE FUNCTION bump(key int) RETURNS int LANGUAGE plpgsql AS $$ \
         DECLARE total int := 0; r record; BEGIN \
           UPDATE t SET v = v + 1 WHERE k = key; \
           FOR r IN SELECT * FROM t WHERE v IS NOT NULL LOOP \
             BEGIN INSERT INTO t (k) VALUES (r.k); EXCEPTION WHEN unique_violation THEN total := total + 1; END; \
           END LOOP; RETURN total; END $$",
    );
    assert_eq!(session.text("SELECT bump(1000)"), "101");
    assert_eq!(session.text("SELECT v FROM t WHERE k = 1000"), "25");
    assert_eq!(cluster.unhealthy("t"), 0);
    cluster.assert_placements_equal("t");
}

#[test]
fn cursors_and_savepoints_see_what_they_should() {
    let cluster = cluster_with_tables();
    let mut session = cluster.new_session();
    session.sql("BEGIN");
    session.sql("DECLARE c SCROLL CURSOR FOR SELECT k FROM t ORDER BY k");
    session.sql("DECLARE h CURSOR WITH HOLD FOR SELECT k FROM t ORDER BY k DESC");
    assert_eq!(session.text("FETCH 2 FROM c"), "1\n2");
    session.sql("UPDATE t SET v = 99 WHERE k = 1");
    session.sql("SAVEPOINT a");
    session.sql("UPDATE t SET v = 100 WHERE k = 1");
    assert_eq!(session.error("INSERT INTO t (k) VALUES (1)").constraint, "t_pkey");
    session.sql("ROLLBACK TO a");
    assert_eq!(session.text("FETCH BACKWARD 1 FROM c"), "1");
    assert_eq!(session.text("SELECT v FROM t WHERE k = 1"), "99");
    session.sql("COMMIT");
    assert_eq!(session.text("FETCH 2 FROM h"), "100\n99");
    session.sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t; DELETE FROM t WHERE k = 1; ROLLBACK");
    assert_eq!(session.text("SELECT v FROM t WHERE k = 1"), "99");
    // A cursor that wants no more rows must not hide that the worker's transaction failed.
    session.sql("BEGIN; UPDATE t SET v = 1 WHERE k = 1");
    session.sql("SELECT 1 FROM u WHERE w > 0 LIMIT 1");
    session.sql("COMMIT");
    assert_eq!(cluster.unhealthy("t"), 0);
}

#[test]
fn what_lies_in_one_shard_group_goes_there_whole() {
    let cluster = cluster_with_tables();
    for (sql, rows) in [
        ("SELECT count(*), sum(w) FROM t JOIN u USING (k) WHERE k = 7", "4|328"),
        (
            "WITH x AS (SELECT * FROM u WHERE k = 7) SELECT t.v, (SELECT max(w) FROM x) FROM t WHERE t.k = 7",
            "0|157",
        ),
        ("SELECT w, rank() OVER (ORDER BY w) FROM u WHERE k = 7 ORDER BY w LIMIT 1", "7|1"),
        (
            "SELECT v FROM t WHERE k = 7 UNION ALL SELECT w FROM u WHERE k = 7 AND w < 10 ORDER BY 1",
            "0\n7",
        ),
        ("SELECT v FROM t WHERE k = 7 FOR UPDATE", "0"),
        ("SELECT v FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k) AND k = 7", "0"),
    ] {
        assert!(
            cluster.text(&format!("EXPLAIN {sql}")).starts_with("Custom Scan (pg_shard)"),
            "{sql}"
        );
        assert_eq!(cluster.text(sql), rows, "{sql}");
    }
    let plan = cluster.text("EXPLAIN SELECT count(*) FROM t WHERE v = 3");
    assert!(plan.contains("Shards: 6 of 6") && plan.contains("Remote SQL: SELECT"), "{plan}");
    cluster.sql(
        "BEGIN; SELECT * FROM t WHERE v = 3 ORDER BY k LIMIT 2 FOR UPDATE SKIP LOCKED; COMMIT",
    );
}

#[test]
fn values_of_this_moment_are_the_same_on_all_placements() {
    let cluster = cluster_with_tables();
    cluster.create_distributed(
        "CREATE TABLE r (k int PRIMARY KEY, x float8 DEFAULT random(), i uuid DEFAULT gen_random_uuid(), at timestamptz DEFAULT clock_timestamp())",
        "r",
        "k",
        4,
        2,
    );
    cluster.sql("INSERT INTO r SELECT generate_series(1, 20)");
    cluster.sql("INSERT INTO r VALUES (21), (22)");
    cluster.sql("UPDATE r SET x = random(), at = now() WHERE k = 3");
    cluster.assert_placements_equal("r");
    assert_eq!(cluster.text("SELECT count(DISTINCT i), count(DISTINCT x) FROM r"), "22|22");
}

#[test]
fn keys_of_many_types_find_their_shard() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); CREATE DOMAIN posint AS int CHECK (value > 0); CREATE TYPE pair AS (a int, b text)");
    for (number, (key_type, value)) in [
        ("varchar(10)", "'abc'"),
        ("char(5)", "'ab'"),
        ("posint", "7"),
        ("mood", "'ok'"),
        ("pair", "ROW(1, 'x')::pair"),
        ("numeric", "1.50"),
        ("uuid", "'00000000-0000-0000-0000-000000000001'"),
        ("date", "'2020-02-02'"),
        ("bytea", "'\\x0102'"),
        ("int[]", "'{1,2}'"),
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("k{number}");
        cluster.create_distributed(
            &format!("CREATE TABLE {table} (k {key_type}, v int)"),
            &table,
            "k",
            4,
            2,
        );
        cluster.sql(&format!("INSERT INTO {table} VALUES ({value}, 1)"));
        cluster.sql(&format!("UPDATE {table} SET v = v + 1 WHERE k = {value}"));
        assert_eq!(
            cluster.text(&format!("SELECT v FROM {table} WHERE k = {value}")),
            "2",
            "{key_type}"
        );
        assert_eq!(cluster.text(&format!("SELECT count(*) FROM {table}")), "1", "{key_type}");
    }
}

#[test]
fn what_cannot_run_says_so_with_the_tables_name() {
    let cluster = cluster_with_tables();
    cluster.sql("CREATE TABLE l (k int PRIMARY KEY, v int)");
    for statement in [
        "ALTER TABLE t DROP COLUMN k",
        "CREATE TABLE child () INHERITS (t)",
        "INSERT INTO t (k, v) VALUES (1, 1), (2, 2) ON CONFLICT (k) DO UPDATE SET v = (SELECT max(o.v) FROM t AS o)",
    ] {
        let error = cluster.error(statement);
        assert_eq!(error.sqlstate, "0A000", "{statement}: {}", error.message);
        let told = format!("{} {}", error.message, error.detail);
        assert!(told.contains("\"t\""), "{statement}: {told}");
        assert!(!error.hint.is_empty(), "{statement}");
    }
    assert_eq!(cluster.error("INSERT INTO t (v) VALUES (1)").sqlstate, "23502");
    assert_eq!(cluster.text("SELECT count(*), sum(v) FROM t"), "100|297");
}
