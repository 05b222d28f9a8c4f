//! Distributed partitioned tables: statements on the root, on its partitions and on their definition do what they do locally.

use std::fmt::Write as _;
use testkit::{Session, TestCluster};

const SETUP: &str = include_str!("setup.sql");
const STATEMENTS: &str = include_str!("statements.sql");

/// What a line of statements yields, and what each table of the schema holds afterwards.
fn run(session: &mut Session, schema: &str, line: &str) -> String {
    let mut text = String::new();
    for statement in line.split("; ") {
        match session.try_sql(statement) {
            Ok(mut rows) => {
                rows.sort();
                let _ = writeln!(text, "{rows:?}");
            }
            Err(error) => {
                let _ = writeln!(text, "{} {}", error.line(), error.detail);
            }
        }
    }
    session.sql("ROLLBACK");
    let tables = session.sql(&format!(
        "SELECT relname FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1"
    ));
    for table in tables {
        let rows = format!(
            "SELECT count(*), md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM {schema}.{} t",
            table[0]
        );
        let _ = writeln!(
            text,
            "{} {:?}",
            table[0],
            session.try_sql(&rows).map_err(|error| error.line())
        );
    }
    text.replace("\"d.", "\"l.")
}

#[test]
fn a_distributed_partitioned_table_does_what_a_local_one_does() {
    let cluster = TestCluster::up(2);
    let mut sessions = ["l", "d"].map(|schema| {
        let mut session = cluster.new_session();
        session.sql(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}, public; SET client_min_messages = error"));
        session.sql(SETUP);
        session
    });
    sessions[1].sql("SELECT create_distributed_table('m', 'id', 4, 1)");
    let mut wrong = String::new();
    for line in STATEMENTS.lines() {
        let [local, distributed] =
            [("l", 0), ("d", 1)].map(|(schema, at)| run(&mut sessions[at], schema, line));
        if local != distributed {
            let _ = writeln!(wrong, "== {line}\nlocal:\n{local}\ndistributed:\n{distributed}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    for worker in ["worker1", "worker2"] {
        let node = worker.parse().expect("a node's name");
        assert_eq!(cluster.tables_on(node, "m%"), Vec::<String>::new(), "{worker}");
    }
}

/// The shards of a partition have its indexes and constraints under its names, and are partitions of the root's shards.
#[test]
fn shards_of_partitions_are_what_the_partitions_are() {
    let cluster = TestCluster::up(1);
    cluster.sql(SETUP);
    cluster.sql(
        "SELECT create_distributed_table('m', 'id', 2, 1); CREATE TABLE m_2026 PARTITION OF m FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
    );
    let describe = "SELECT regexp_replace(concat_ws(' ', c.relname, c.relkind, pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid), \
         (SELECT inhparent::regclass FROM pg_inherits WHERE inhrelid = c.oid), \
         (SELECT string_agg(pg_get_indexdef(indexrelid), ' ' ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid = c.oid), \
         (SELECT string_agg(conname || pg_get_constraintdef(k.oid), ' ' ORDER BY conname) FROM pg_constraint k WHERE conrelid = c.oid AND contype <> 'n')), \
         '_1\\d{4}', '', 'g') \
         FROM pg_class c WHERE c.relname LIKE 'm%' AND c.relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace ORDER BY 1";
    let expected = cluster.sql(describe);
    let mut found = cluster.session_on("worker1".parse().expect("a node's name")).sql(describe);
    assert_eq!(found.len(), 2 * expected.len());
    found.dedup();
    assert_eq!(found, expected);
}

#[test]
fn what_partitions_cannot_have_is_refused() {
    let cluster = TestCluster::up(2);
    cluster.sql(SETUP);
    cluster.sql(
        "CREATE TABLE other (LIKE m INCLUDING ALL); CREATE TABLE parent (id int); CREATE TABLE child () INHERITS (parent); \
         CREATE TABLE r (id int, k int) PARTITION BY RANGE (id); \
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
    );
    let replicated = cluster.error("SELECT create_distributed_table('m', 'id', 4, 2)");
    assert_eq!(replicated.line(), "0A000: cannot replicate shards of partitioned table \"m\"");
    cluster.sql(
        "SELECT create_distributed_table('m', 'id', 4, 1); SELECT create_distributed_table('other', 'id', 8, 1); \
         SELECT create_distributed_table('r', 'k', 4, 1); CREATE TABLE r_1 PARTITION OF r FOR VALUES FROM (0) TO (10); \
         INSERT INTO r VALUES (1, 1), (2, 1)",
    );
    for (statement, message) in [
        (
            "SELECT create_distributed_table('parent', 'id', 4, 1)",
            "cannot distribute relation: public.parent",
        ),
        (
            "SELECT tableoid::regclass FROM m",
            "cannot use ctid or tableoid in a statement with partitioned distributed table \"m\"",
        ),
        (
            "DELETE FROM m WHERE ctid = '(0,1)'",
            "cannot use ctid or tableoid in a statement with partitioned distributed table \"m\"",
        ),
        (
            "ALTER TABLE m DETACH PARTITION m_2024 CONCURRENTLY",
            "cannot execute ALTER TABLE ... DETACH PARTITION on distributed table \"m\"",
        ),
        (
            "ALTER TABLE m ATTACH PARTITION other DEFAULT",
            "cannot attach distributed table \"other\" to distributed table \"m\"",
        ),
        (
            "CREATE TRIGGER t AFTER INSERT ON m FOR EACH ROW EXECUTE FUNCTION nothing()",
            "distributed table \"m\" cannot have triggers of rows",
        ),
        (
            "CREATE TRIGGER t AFTER INSERT ON m_2024 FOR EACH ROW EXECUTE FUNCTION nothing()",
            "distributed table \"m_2024\" cannot have triggers of rows",
        ),
        ("SELECT undistribute_table('m_2024')", "cannot undistribute table \"m_2024\""),
        (
            "CREATE TABLE x () INHERITS (m_2024)",
            "cannot execute CREATE TABLE ... INHERITS on distributed table \"m_2024\"",
        ),
        (
            "UPDATE r SET k = k + 1",
            "cannot modify rows of partitioned distributed table \"r\" one by one",
        ),
    ] {
        let error = cluster.error(statement);
        assert!(error.line().ends_with(message), "{statement}: {error}");
    }
    // What the nodes can do by themselves needs no key.
    cluster.sql("UPDATE r SET id = id + 2; DELETE FROM r WHERE id = 3");
    assert_eq!(cluster.text("SELECT * FROM r"), "4|1");
}

#[test]
fn triggers_of_statements_see_the_rows_of_all_partitions() {
    let cluster = TestCluster::up(2);
    cluster.sql(SETUP);
    cluster.sql(
        "SELECT create_distributed_table('m', 'id', 4, 1); CREATE TABLE seen (what text, o bigint, n bigint); \
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           IF TG_OP = 'UPDATE' THEN INSERT INTO seen SELECT 'update', (SELECT sum(n) FROM o), sum(n) FROM w; \
           ELSIF TG_OP = 'DELETE' THEN INSERT INTO seen SELECT 'delete', count(*), NULL FROM o; \
           ELSE INSERT INTO seen SELECT 'insert', NULL, count(*) FROM w; END IF; RETURN NULL; END $$; \
         CREATE TRIGGER i AFTER INSERT ON m REFERENCING NEW TABLE AS w FOR EACH STATEMENT EXECUTE FUNCTION see(); \
         CREATE TRIGGER u AFTER UPDATE ON m REFERENCING OLD TABLE AS o NEW TABLE AS w FOR EACH STATEMENT EXECUTE FUNCTION see(); \
         CREATE TRIGGER d AFTER DELETE ON m REFERENCING OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION see(); \
         INSERT INTO m VALUES (100, '2024-05-05', 'x'), (101, '2025-05-05', 'x'); UPDATE m SET n = n + 2; DELETE FROM m WHERE v = 'a'",
    );
    assert_eq!(cluster.text("SELECT * FROM seen"), "insert|NULL|2\nupdate|0|64\ndelete|10|NULL");
}

/// It was refused: each partition had to be detached, brought back and attached again.
#[test]
fn a_partitioned_table_becomes_local_again_with_its_rows() {
    let cluster = TestCluster::up(2);
    cluster.sql(
        "CREATE TABLE m (id int, at date, n int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at); \
         CREATE TABLE m_1 PARTITION OF m FOR VALUES FROM ('2026-01-01') TO ('2026-02-01'); \
         CREATE TABLE m_2 PARTITION OF m FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY LIST (id); \
         CREATE TABLE m_2_rest PARTITION OF m_2 DEFAULT; \
         SELECT create_distributed_table('m', 'id', 4, 1); \
         INSERT INTO m SELECT i, date '2026-01-01' + i % 50, i FROM generate_series(1, 100) AS i",
    );
    let rows =
        "SELECT (SELECT sum(n) FROM m_1), (SELECT sum(n) FROM m_2_rest), count(*), sum(n) FROM m";
    let before = cluster.text(rows);
    cluster.sql("BEGIN; SELECT undistribute_table('m'); ROLLBACK");
    assert_eq!(cluster.text(rows), before);
    cluster.sql("SELECT undistribute_table('m')");
    assert_eq!(cluster.text(rows), before);
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_distribution_metadata.partition"), "0");
    for worker in cluster.workers() {
        assert_eq!(cluster.tables_on(worker, "m%"), Vec::<String>::new());
    }
    cluster.sql("CREATE TABLE m_3 PARTITION OF m FOR VALUES FROM ('2026-03-01') TO ('2026-04-01'); INSERT INTO m VALUES (1, '2026-03-01', 0)");
    cluster.sql("SELECT create_distributed_table('m', 'id', 2, 1)");
    assert_eq!(cluster.text("SELECT count(*), sum(n) FROM m"), "101|5050");
}
