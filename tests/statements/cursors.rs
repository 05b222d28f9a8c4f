//! UPDATE and DELETE of the row that a cursor stands on.

use testkit::{Session, TestCluster};

const STATEMENTS: &str = include_str!("cursors.sql");

const TABLES: &str = r#"
    CREATE TABLE t (k int NOT NULL, id int NOT NULL, v text, PRIMARY KEY (k, id));
    CREATE TABLE u (k varchar(9), v text, f float4, d timestamptz, z char(4));
    CREATE TABLE "O'x""q" ("K" text NOT NULL, "V" int, PRIMARY KEY ("K"));
    CREATE TABLE loc (a int PRIMARY KEY, b text);
"#;

/// What each statement yields, and how many rows it touches.
fn run(session: &mut Session) -> Vec<String> {
    let statements = STATEMENTS.lines().filter(|line| !line.starts_with("--") && !line.is_empty());
    statements
        .map(|statement| match session.try_sql(statement) {
            Ok(rows) => format!("{statement}\n  {rows:?}"),
            Err(error) => format!("{statement}\n  {}", error.line()),
        })
        .collect()
}

fn in_schema(cluster: &TestCluster, schema: &str, placements: usize) -> Session {
    let mut session = cluster.new_session();
    session.sql(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}, public; {TABLES}"));
    if placements > 0 {
        for (table, column) in [("t", "k"), ("u", "k"), ("\"O''x\"\"q\"", "K")] {
            session.sql(&format!(
                "SELECT public.create_distributed_table('{table}', '{column}', 6, {placements})"
            ));
        }
    }
    session
}

#[test]
fn where_current_of_does_on_shards_what_it_does_on_a_local_table() {
    let cluster = TestCluster::up(3);
    let wanted = run(&mut in_schema(&cluster, "plain", 0));
    let errors = wanted.iter().filter(|line| line.contains("\n  24000") || line.contains("34000"));
    assert!(errors.count() >= 10, "misuse is among them");
    for (schema, placements) in [("once", 1), ("twice", 2)] {
        let got = run(&mut in_schema(&cluster, schema, placements));
        for (wanted, got) in wanted.iter().zip(&got) {
            assert_eq!(got, wanted, "in schema {schema}");
        }
    }
    for table in ["twice.t", "twice.u"] {
        cluster.assert_placements_equal(table);
    }
}

#[test]
fn a_row_without_a_key_under_a_cursor_is_not_mistaken_once_it_has_changed() {
    let cluster = TestCluster::up(2);
    for placements in [1, 2] {
        let mut session = in_schema(&cluster, &format!("s{placements}"), placements);
        session.sql("INSERT INTO u SELECT 'a', 'v' || i FROM generate_series(1, 3) AS i");
        session.sql("BEGIN");
        session.sql("DECLARE c CURSOR FOR SELECT v FROM u WHERE k = 'a' ORDER BY v FOR UPDATE");
        assert_eq!(session.text("FETCH c"), "v1");
        assert_eq!(session.count("UPDATE u SET v = 'v2' WHERE CURRENT OF c"), 1);
        session.sql("SAVEPOINT s");
        let error = session.error("UPDATE u SET v = 'w' WHERE CURRENT OF c");
        assert_eq!(
            error.line(),
            "24000: the row of table \"u\" under the cursor has changed since it was fetched"
        );
        session.sql("ROLLBACK TO s");
        assert_eq!(session.text("FETCH c"), "v2");
        assert_eq!(session.count("DELETE FROM u WHERE CURRENT OF c"), 1);
        session.sql("COMMIT");
        assert_eq!(session.text("SELECT v FROM u ORDER BY v"), "v2\nv3");
    }
}

#[test]
fn a_row_under_a_cursor_that_another_session_has_changed_is_changed_again() {
    let cluster = TestCluster::up(2);
    let mut session = in_schema(&cluster, "shared", 2);
    session.sql("INSERT INTO t VALUES (1, 1, 'a'), (1, 2, 'b')");
    session.sql("BEGIN");
    session.sql("DECLARE c CURSOR FOR SELECT v FROM t WHERE k = 1 ORDER BY id");
    assert_eq!(session.text("FETCH c"), "a");
    let mut other = cluster.new_session();
    other.sql("UPDATE shared.t SET v = 'other' WHERE id = 1; DELETE FROM shared.t WHERE id = 2");
    assert_eq!(session.text("UPDATE t SET v = v || '+' WHERE CURRENT OF c RETURNING v"), "other+");
    session.sql("FETCH c");
    assert_eq!(session.count("UPDATE t SET v = 'gone' WHERE CURRENT OF c"), 0);
    session.sql("COMMIT");
    cluster.assert_placements_equal("shared.t");
}

/// PostgreSQL lets a cursor go backward that was declared with neither SCROLL nor NO SCROLL, if its plan can. Those over
/// distributed tables never could, since nodes' rows come once; now a Material node keeps them, if they are few.
#[test]
fn a_cursor_without_scroll_goes_backward_as_over_a_local_table() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TABLE l (k int PRIMARY KEY, v int); CREATE TABLE d (LIKE l INCLUDING ALL)");
    cluster.distribute("d", "k", 4, 1);
    let mut session = cluster.new_session();
    session.sql("INSERT INTO l SELECT i, i FROM generate_series(1, 9) AS i; INSERT INTO d TABLE l");
    for cursor in [
        "CURSOR FOR SELECT k FROM {} ORDER BY k",
        "CURSOR FOR SELECT v FROM {} WHERE k = 2",
        "CURSOR FOR SELECT k FROM {} ORDER BY v DESC LIMIT 3 OFFSET 1",
        "SCROLL CURSOR FOR SELECT k FROM {} ORDER BY k",
        "NO SCROLL CURSOR FOR SELECT k FROM {} ORDER BY k",
        "CURSOR FOR SELECT k FROM {} WHERE k = 2 FOR UPDATE",
    ] {
        for step in ["FETCH BACKWARD 2 FROM c", "MOVE BACKWARD ALL IN c; FETCH ALL FROM c"] {
            let mut answers = ["l", "d"].map(|table| {
                let cursor = cursor.replace("{}", table);
                session.sql(&format!("BEGIN; DECLARE c {cursor}; FETCH ALL FROM c"));
                let answer = session.try_sql(step).map_err(|error| error.line());
                session.sql("ROLLBACK");
                answer
            });
            let [expected, found] = &mut answers;
            assert_eq!(found, expected, "{cursor}: {step}");
        }
    }
}

#[test]
fn a_cursor_over_more_rows_than_work_mem_holds_goes_forward_only() {
    let cluster = TestCluster::up(1);
    cluster.create_distributed("CREATE TABLE d (k int PRIMARY KEY, v text)", "d", "k", 4, 1);
    cluster.sql(
        "INSERT INTO d SELECT i, repeat('x', 100) FROM generate_series(1, 5000) AS i; ANALYZE d",
    );
    let mut session = cluster.new_session();
    session
        .sql("SET work_mem = '64kB'; BEGIN; DECLARE c CURSOR FOR SELECT * FROM d; FETCH 2 FROM c");
    assert_eq!(
        session.error("FETCH BACKWARD 1 FROM c").line(),
        "55000: cursor can only scan forward"
    );
}

/// The nodes lock, so the plan had no row marks: PostgreSQL took it for one that can go backward, and for a cursor that locks nothing.
#[test]
fn a_cursor_that_locks_goes_forward_only_and_says_that_it_locks() {
    let cluster = TestCluster::up(2);
    for schema in ["plain", "sharded"] {
        cluster.sql(&format!(
            "CREATE SCHEMA {schema}; CREATE TABLE {schema}.t (k int PRIMARY KEY, v int); CREATE TABLE {schema}.o (k int PRIMARY KEY, v int)"
        ));
    }
    cluster.distribute("sharded.t", "k", 4, 1);
    cluster.distribute("sharded.o", "k", 4, 1);
    let mut sessions = ["plain", "sharded"].map(|schema| {
        let mut session = cluster.new_session();
        session.sql(&format!(
            "SET search_path = {schema}, public; INSERT INTO t SELECT g, g FROM generate_series(1, 9) AS g; INSERT INTO o SELECT * FROM t"
        ));
        session
    });
    for query in [
        "SELECT k FROM t ORDER BY k FOR UPDATE",
        "SELECT k FROM t WHERE v < 5 ORDER BY k FOR KEY SHARE",
        "SELECT k FROM t WHERE k = 3 FOR SHARE",
        "SELECT k FROM t ORDER BY k LIMIT 5 FOR NO KEY UPDATE",
        "SELECT t.k FROM t JOIN o ON o.v = t.v ORDER BY t.k FOR UPDATE OF t",
    ] {
        for then in [
            "FETCH BACKWARD 1 FROM c",
            "DELETE FROM o WHERE CURRENT OF c",
            "FETCH 1 FROM c",
            "UPDATE t SET v = -1 WHERE CURRENT OF c; SELECT * FROM t ORDER BY k",
        ] {
            let [plain, sharded] = sessions.each_mut().map(|session| {
                session.sql(&format!("BEGIN; DECLARE c CURSOR FOR {query}; FETCH 1 FROM c"));
                let outcome = session.try_sql(then).map_err(|error| error.line());
                session.sql("ROLLBACK");
                outcome
            });
            assert_eq!(plain, sharded, "{query}; {then}");
        }
    }
}
