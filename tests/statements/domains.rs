//! Domains whose checks run statements of their own.

use testkit::{Rows, SqlError, TestCluster};

/// The check begins a subtransaction, and reads a distributed table.
const CHECK: &str = "CREATE FUNCTION is_fine(value text) RETURNS boolean LANGUAGE plpgsql AS $$ \
     BEGIN \
       PERFORM count(*) FROM public.other; \
       BEGIN PERFORM 1 / length(value); RETURN true; EXCEPTION WHEN division_by_zero THEN RETURN true; END; \
     END $$; \
     ALTER DOMAIN checked ADD CHECK (is_fine(value)) NOT VALID; CREATE TYPE pair AS (a int, b checked)";

const STATEMENTS: [&str; 17] = [
    "SELECT * FROM t",
    "SELECT * FROM t WHERE k = 1",
    "SELECT d FROM t ORDER BY v, k",
    "SELECT d FROM t ORDER BY v LIMIT 3",
    "SELECT max(d), count(*) FROM t GROUP BY v",
    "INSERT INTO t VALUES (100, '', 1) RETURNING *",
    "INSERT INTO t VALUES (101, '', 1), (102, 'z', 2), (103, '', 2) RETURNING *",
    "INSERT INTO t SELECT k + 200, d, v FROM t RETURNING d",
    "UPDATE t SET v = v + 1 WHERE k < 4 RETURNING *",
    "UPDATE t SET v = v + 1, d = d || 'y' WHERE k = 4 RETURNING *",
    "INSERT INTO t SELECT k, d, v FROM t WHERE k < 3 ON CONFLICT (k) DO UPDATE SET d = t.d || excluded.d RETURNING *",
    "DELETE FROM t WHERE k = 5 RETURNING d",
    "DELETE FROM t WHERE k > 40 RETURNING d",
    "MERGE INTO t USING (SELECT k, d FROM t WHERE k < 6) s ON s.k = t.k WHEN MATCHED THEN UPDATE SET v = 0, d = s.d || 'm'",
    "DECLARE c CURSOR FOR SELECT d, k FROM t ORDER BY k; FETCH 2 FROM c; SELECT count(*) FROM other; FETCH 2 FROM c; \
     SAVEPOINT s; FETCH 1 FROM c; ROLLBACK TO s; FETCH 1 FROM c",
    "SELECT a.k, x.d FROM t a, LATERAL (SELECT d FROM t b WHERE b.v = a.v + 1 AND b.k < 40 LIMIT 1) x WHERE a.k < 9",
    "SELECT k, (SELECT d FROM t b WHERE b.k = a.k + 1) FROM t a",
];

/// `RefCell already mutably borrowed`: rows were decoded while their session was in our hands, and what the check of a domain
/// did then, a subtransaction or a statement for the same node, wanted the session as well. Such rows are kept as they came now
/// and decoded when the session is free.
#[test]
fn checks_of_domains_may_begin_subtransactions_and_read_distributed_tables() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE DOMAIN checked AS text");
    // The nodes check values that they store, and find a table of that name.
    cluster.on_workers("CREATE TABLE other (k int)");
    cluster.create_distributed("CREATE TABLE other (k int PRIMARY KEY)", "other", "k", 4, 2);
    cluster.sql("CREATE SCHEMA plain; CREATE SCHEMA sharded");
    for schema in ["plain", "sharded"] {
        cluster.sql(&format!("CREATE TABLE {schema}.t (k int PRIMARY KEY, d checked, v int)"));
    }
    cluster.distribute("sharded.t", "k", 4, 2);
    for schema in ["plain", "sharded"] {
        cluster.sql(&format!(
            "INSERT INTO {schema}.t SELECT g, 'x' || g, g FROM generate_series(1, 50) AS g"
        ));
    }
    cluster.sql(CHECK);
    let mut sessions = ["plain", "sharded"].map(|schema| {
        let mut session = cluster.new_session();
        session.sql(&format!("SET search_path = {schema}, public; SET statement_timeout = '60s'"));
        session
    });
    for statement in STATEMENTS {
        for block in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
            let [plain, sharded] = sessions.each_mut().map(|session| {
                session.sql(block);
                let answer = session.try_sql(statement).map(sorted);
                session.sql("ROLLBACK");
                answer.map_err(|error: SqlError| error.line())
            });
            assert_eq!(plain, sharded, "{block}; {statement}");
        }
        let answers = sessions.each_mut().map(|session| session.try_sql(statement).map(sorted));
        assert_eq!(answers[0].is_ok(), answers[1].is_ok(), "{statement}: {answers:?}");
    }
    let contents = sessions.each_mut().map(|session| session.text("SELECT * FROM t ORDER BY k"));
    assert_eq!(contents[0], contents[1]);
    cluster.assert_placements_equal("sharded.t");
}

fn sorted(mut rows: Rows) -> Rows {
    rows.sort();
    rows
}

/// An error that is raised while this server forms a row lost its schema, type, column and constraint, and the CONTEXT: the guard
/// around PostgreSQL's functions does not carry them, and the border that reports the error again does now.
#[test]
fn refused_values_name_their_schema_type_and_constraint() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes(
        "CREATE SCHEMA s; CREATE DOMAIN s.pos AS int CHECK (value > 0); CREATE DOMAIN s.nn AS int NOT NULL",
    );
    cluster.sql("CREATE SCHEMA plain; CREATE SCHEMA sharded");
    for schema in ["plain", "sharded"] {
        cluster.sql(&format!(
            "CREATE TABLE {schema}.t (k int PRIMARY KEY, v s.pos, n s.nn DEFAULT 1); \
             CREATE FUNCTION {schema}.fails(n int) RETURNS int LANGUAGE plpgsql AS \
             $$ BEGIN RAISE 'no' USING ERRCODE = 'P1234', CONSTRAINT = 'c', COLUMN = 'l', DATATYPE = 'd', TABLE = 't', SCHEMA = 's'; END $$"
        ));
    }
    cluster.distribute("sharded.t", "k", 4, 1);
    let mut sessions = ["plain", "sharded"].map(|schema| {
        let mut session = cluster.new_session();
        session.sql(&format!(
            "SET search_path = {schema}, public; INSERT INTO t VALUES (1, 1), (2, 2); PREPARE p(int, int) AS INSERT INTO t VALUES ($1, $2)"
        ));
        session
    });
    for statement in [
        "INSERT INTO t VALUES (11, -1)",
        "INSERT INTO t VALUES (11, 1), (12, -1)",
        "INSERT INTO t VALUES (11, 1, NULL)",
        "INSERT INTO t VALUES (11, 1, NULL), (12, 2, 2)",
        "EXECUTE p(11, -1)",
        "INSERT INTO t SELECT g, -g FROM generate_series(1, 2) AS g",
        "INSERT INTO t SELECT k + 10, -v FROM t",
        "UPDATE t SET v = -v",
        "UPDATE t SET v = -1 WHERE k = 1",
        "UPDATE t SET v = -1 - random()",
        "UPDATE t SET n = (SELECT NULL::int FROM t AS o WHERE o.v <> t.v)",
        "INSERT INTO t VALUES (1, 1), (2, 2) ON CONFLICT (k) DO UPDATE SET v = -t.v",
        "INSERT INTO t VALUES (1, 1) ON CONFLICT (k) DO UPDATE SET v = -1",
        "MERGE INTO t USING (VALUES (1, 1)) AS s(a, b) ON k = a WHEN MATCHED THEN UPDATE SET v = -b",
        "SELECT (-v)::s.pos FROM t",
        "SELECT ROW(k, -v, 1)::t FROM t",
        "DELETE FROM t RETURNING (-v)::s.pos",
        "INSERT INTO t VALUES (fails(1), 1), (fails(2), 1)",
        "UPDATE t SET v = fails(v)",
        "DELETE FROM t WHERE fails(v) = random()",
    ] {
        let [plain, sharded] = sessions.each_mut().map(|session| {
            let error = session.error(statement);
            // A node adds a line of its own.
            let context = error.context.lines().filter(|line| !line.contains("executing on node"));
            let context = context.collect::<Vec<_>>().join("\n").replace("sharded.", "plain.");
            let named = (error.schema.clone(), error.table.clone(), error.column.clone());
            (error.line(), named, error.datatype.clone(), error.constraint.clone(), context)
        });
        assert_eq!(plain, sharded, "{statement}");
        assert!(
            plain.0.starts_with("23") && !plain.2.is_empty() || plain.0.starts_with("P1234"),
            "{statement}"
        );
    }
}

/// ALTER DOMAIN had PostgreSQL check the coordinator's empty tables: rows in shards that violated a new constraint were not seen.
#[test]
fn a_domain_is_checked_over_the_rows_of_shards() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes(
        "CREATE DOMAIN d AS int; CREATE DOMAIN over AS d; CREATE TYPE pair AS (a text, b d[]); CREATE TYPE span AS RANGE (subtype = d)",
    );
    cluster.on_all_nodes("CREATE ROLE stranger LOGIN");
    let mut session = cluster.new_session();
    session.sql("ALTER DOMAIN d ADD CONSTRAINT late CHECK (value <> 0) NOT VALID");
    for table in ["local", "sharded"] {
        session.sql(&format!("CREATE TABLE {table} (k int PRIMARY KEY)"));
    }
    session.sql("SELECT create_distributed_table('sharded', 'k', 2, 1)");
    for (column, value) in [
        ("d", "-1"),
        ("d[]", "'{1, -1}'"),
        ("over", "-1"),
        ("pair", "'(x, {-1})'"),
        ("pair[]", "NULL"),
        ("span", "'[-1, 3)'"),
        ("span_multirange", "NULL"),
    ] {
        let mut outcome = |table: &str| {
            let (kept, other) = (table, if table == "local" { "sharded" } else { "local" });
            session.sql(&format!(
                "ALTER TABLE {other} DROP COLUMN IF EXISTS v; ALTER TABLE {kept} DROP COLUMN IF EXISTS v; TRUNCATE {kept}; \
                 ALTER TABLE {kept} ADD COLUMN v {column}; INSERT INTO {kept} VALUES (1, {value}), (2, NULL)"
            ));
            [
                "ALTER DOMAIN d SET NOT NULL",
                "ALTER DOMAIN d ADD CONSTRAINT c CHECK (value > 0)",
                "ALTER DOMAIN d VALIDATE CONSTRAINT late",
                "ALTER DOMAIN d ADD CONSTRAINT later CHECK (value <> 1) NOT VALID",
                "ALTER DOMAIN d DROP CONSTRAINT later",
            ]
            .map(|statement| {
                session.sql("BEGIN");
                let outcome = session.try_sql(statement).map(drop);
                session.sql("ROLLBACK");
                outcome.map_err(|error| error.line().replace(kept, "t"))
            })
        };
        let local = outcome("local");
        assert_eq!(outcome("sharded"), local, "{column}");
    }
    // Rights come first.
    let mut stranger = cluster.session_as("stranger");
    assert_eq!(
        stranger.error("ALTER DOMAIN d SET NOT NULL").line(),
        "42501: must be owner of type d"
    );
}
