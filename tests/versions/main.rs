//! What versions of PostgreSQL later than 15 add to SQL: on distributed tables as on local ones, or refused.
//!
//! Statements and tests that a server is too old for are left out.

use testkit::{NodeName, Rows, Session, SqlError, TestCluster};

const STATEMENTS: &str = include_str!("statements.txt");

const TABLES: &str = "CREATE TABLE t (k int PRIMARY KEY, a int, b text, j jsonb); CREATE TABLE s (k int PRIMARY KEY, v int)";

const ROWS: &str = "INSERT INTO t SELECT i, i % 3, 'b' || i, jsonb_build_object('k', i, 'list', jsonb_build_array(i, i + 1)) \
      || CASE WHEN i % 2 = 0 THEN '{\"name\": \"even\"}' ELSE '{}' END::jsonb FROM generate_series(1, 12) AS i; \
    INSERT INTO s SELECT i * 2, i * 10 FROM generate_series(1, 8) AS i";

/// The statements that the server of this version has.
fn statements(cluster: &TestCluster) -> Vec<String> {
    let mut statements = Vec::new();
    let mut open = String::new();
    for line in STATEMENTS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        match line.strip_suffix('\\') {
            Some(start) => open.push_str(start),
            None => statements.push(std::mem::take(&mut open) + line),
        }
    }
    statements
        .into_iter()
        .filter_map(|line| {
            let (version, statement) = line.split_once(' ').expect("a version and a statement");
            let version = version.parse().expect("a version");
            (!cluster.is_older_than(version)).then(|| statement.to_owned())
        })
        .collect()
}

/// What the statement answers, and what is in the tables then; nothing of it stays.
fn outcome(session: &mut Session, statement: &str) -> Result<(Rows, Rows), SqlError> {
    session.sql("BEGIN");
    let answer = session.try_sql(statement).and_then(|rows| {
        let after =
            session.try_sql("SELECT t::text FROM t UNION ALL SELECT s::text FROM s ORDER BY 1")?;
        Ok((rows, after))
    });
    session.sql("ROLLBACK");
    answer
}

#[test]
fn what_later_versions_add_does_on_distributed_tables_what_it_does_on_local_ones() {
    let cluster = TestCluster::up(2);
    cluster.sql(&format!("CREATE SCHEMA l; SET search_path = l; {TABLES}; {ROWS}; CREATE SCHEMA d; SET search_path = d, public; {TABLES}"));
    cluster.distribute("d.t", "k", 4, 2);
    cluster.distribute("d.s", "k", 3, 1);
    cluster.sql(ROWS);
    let mut local = cluster.new_session();
    local.sql("SET search_path = l, public");
    let mut distributed = cluster.new_session();
    distributed.sql("SET search_path = d, public");
    let mut failures = String::new();
    for statement in statements(&cluster) {
        let (expected, was) =
            (outcome(&mut local, &statement), outcome(&mut distributed, &statement));
        let is_same = match (&expected, &was) {
            (Ok(expected), Ok(was)) => expected == was,
            (Err(expected), Err(was)) => expected.sqlstate == was.sqlstate,
            _ => false,
        };
        if !is_same {
            failures += &format!("{statement}\n  expected {expected:?}\n  was      {was:?}\n");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn copy_leaves_out_rows_that_do_not_fit_if_it_is_told_to() {
    let cluster = TestCluster::up(2);
    if cluster.is_older_than(17) {
        return;
    }
    cluster.create_distributed("CREATE TABLE t (k int, d date)", "t", "k", 4, 2);
    let copy = |options: &str| {
        let input = format!(
            "COPY t FROM STDIN ({options});\n1\t2024-01-01\nx\t2024-01-01\n2\tnever\n3\t\\N\n\\.\n"
        );
        let output = cluster.psql(NodeName::Coordinator, &["-qAtX"], &input);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = copy("ON_ERROR ignore");
    assert!(said.contains("2 rows were skipped due to data type incompatibility"), "{said}");
    assert_eq!(cluster.text("SELECT k, d FROM t ORDER BY k"), "1|2024-01-01\n3|NULL");
    assert_eq!(cluster.assert_placements_equal("t"), 2);
    if cluster.is_older_than(18) {
        return;
    }
    let said = copy("ON_ERROR ignore, REJECT_LIMIT 1");
    assert!(said.contains("skipped more than REJECT_LIMIT (1) rows"), "{said}");
    assert_eq!(cluster.assert_placements_equal("t"), 2);
}

#[test]
fn virtual_columns_are_computed_where_rows_are_read() {
    // On shards such a column was an ordinary one, and empty.
    let cluster = TestCluster::up(2);
    if cluster.is_older_than(18) {
        return;
    }
    cluster.create_distributed(
        "CREATE TABLE t (k int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL)",
        "t",
        "k",
        4,
        2,
    );
    cluster.sql("INSERT INTO t (k, a) SELECT i, i FROM generate_series(1, 10) AS i");
    assert_eq!(cluster.text("SELECT twice FROM t WHERE k = 4"), "8");
    assert_eq!(cluster.text("SELECT sum(twice), count(*) FROM t WHERE twice > 10"), "80|5");
    assert_eq!(cluster.text("UPDATE t SET a = 7 WHERE k = 4 RETURNING twice"), "14");
    assert_eq!(cluster.text("WITH u AS (UPDATE t SET a = (SELECT min(k) FROM t) WHERE k < 3 RETURNING twice) SELECT sum(twice) FROM u"), "4");
    cluster.sql("ALTER TABLE t ADD COLUMN thrice int GENERATED ALWAYS AS (a * 3) VIRTUAL");
    assert_eq!(cluster.text("SELECT thrice FROM t WHERE k = 4"), "21");
    cluster.sql("ANALYZE t; ALTER TABLE t ALTER COLUMN twice SET EXPRESSION AS (a * 4)");
    assert_eq!(cluster.text("SELECT twice FROM t WHERE k = 4"), "28");
    assert_eq!(cluster.text("SELECT sum(twice) FROM t WHERE thrice > 15"), "188");
    assert_eq!(cluster.assert_placements_equal("t"), 10);
}

#[test]
fn columns_are_generated_anew_by_another_expression() {
    let cluster = TestCluster::up(2);
    if cluster.is_older_than(17) {
        return;
    }
    let columns = "k int, a int, g int GENERATED ALWAYS AS (a * 2) STORED";
    cluster.create_distributed(&format!("CREATE TABLE t ({columns})"), "t", "k", 4, 2);
    cluster
        .sql("INSERT INTO t SELECT i, i FROM generate_series(1, 10) AS i; CREATE INDEX ON t (g)");
    cluster.sql("BEGIN; ALTER TABLE t ALTER COLUMN g SET EXPRESSION AS (a * 5); ROLLBACK");
    assert_eq!(cluster.text("SELECT sum(g) FROM t"), "110");
    cluster.sql("ALTER TABLE t ALTER COLUMN g SET EXPRESSION AS (a * 3)");
    assert_eq!(cluster.text("SELECT sum(g), count(*) FILTER (WHERE g = 12) FROM t"), "165|1");
    cluster.sql("ALTER TABLE t RENAME COLUMN a TO b; INSERT INTO t VALUES (11, 11)");
    assert_eq!(cluster.text("SELECT g FROM t WHERE k IN (4, 11) ORDER BY g"), "12\n33");
    assert_eq!(cluster.assert_placements_equal("t"), 11);

    let parts = "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (5); \
                 CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (5) TO (100)";
    cluster.sql(&format!("CREATE TABLE p ({columns}) PARTITION BY RANGE (a); {parts}"));
    cluster.distribute("p", "k", 4, 1);
    cluster.sql("INSERT INTO p SELECT i, i FROM generate_series(1, 10) AS i");
    cluster.sql("ALTER TABLE p ALTER COLUMN g SET EXPRESSION AS (a + 100)");
    assert_eq!(cluster.text("SELECT sum(g), min(g), max(g) FROM p"), "1055|101|110");
    cluster.sql("ALTER TABLE p2 ALTER COLUMN g SET EXPRESSION AS (a + 200)");
    assert_eq!(cluster.text("SELECT sum(g), min(g), max(g) FROM p"), "1655|101|210");
}

#[test]
fn keys_may_be_made_by_uuidv7() {
    let cluster = TestCluster::up(2);
    if cluster.is_older_than(18) {
        return;
    }
    cluster.create_distributed(
        "CREATE TABLE t (k uuid PRIMARY KEY DEFAULT uuidv7(), a int)",
        "t",
        "k",
        4,
        1,
    );
    cluster.sql("INSERT INTO t (a) VALUES (1)");
    cluster.sql("INSERT INTO t (a) SELECT i FROM generate_series(2, 20) AS i");
    assert_eq!(cluster.text("SELECT count(*), count(DISTINCT k), sum(a) FROM t"), "20|20|210");
    assert_eq!(cluster.text("SELECT a FROM t WHERE k = (SELECT k FROM t WHERE a = 7)"), "7");
    assert_eq!(cluster.assert_placements_equal("t"), 20);
}

#[test]
fn periods_that_the_shards_cannot_keep_apart_are_warned_of() {
    // A table distributed by the period itself was taken for one whose shards keep the periods apart.
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TABLE t (id int, during daterange, EXCLUDE USING gist (during WITH &&))");
    let warned = |table: &str, key: &str| {
        let mut session = cluster.session();
        session
            .sql(&format!("SELECT create_distributed_table('{table}', '{key}', shard_count => 4)"));
        session.warnings().iter().any(|it| it.message.contains("will hold within each shard only"))
    };
    assert!(warned("t", "during"));
    if cluster.is_older_than(18) {
        return;
    }
    cluster.sql(
        "CREATE EXTENSION btree_gist; \
         CREATE TABLE by_id (id int, during daterange, PRIMARY KEY (id, during WITHOUT OVERLAPS)); \
         CREATE TABLE by_period (LIKE by_id INCLUDING ALL)",
    );
    assert!(!warned("by_id", "id"));
    assert!(warned("by_period", "during"));
    cluster.sql(
        "INSERT INTO by_id VALUES (1, '[2024-01-01, 2024-02-01)'), (2, '[2024-01-01, 2024-02-01)')",
    );
    let error = cluster.error("INSERT INTO by_id VALUES (1, '[2024-01-15, 2024-03-01)')");
    assert_eq!(error.sqlstate, "23P01", "{}", error.line());
}
