//! Types, functions, schemas and the like that tables need: when they change, they change on all nodes or on none.

use std::fmt::Write as _;
use testkit::{NodeName, TestCluster};

const STATEMENTS: &str = include_str!("objects.txt");
const DESCRIBE: &str = include_str!("objects.sql");

const OBJECTS: &str = "CREATE SCHEMA app; CREATE SCHEMA other; CREATE EXTENSION hstore SCHEMA other; \
    CREATE TYPE app.mood AS ENUM ('sad', 'ok'); CREATE COLLATION app.german (provider = icu, locale = 'de'); \
    CREATE FUNCTION app.is_even(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT i % 2 = 0'; \
    CREATE FUNCTION app.half(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN i / 2; END $$; \
    CREATE FUNCTION app.late(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT i IS DISTINCT FROM 5000'; \
    CREATE FUNCTION app.word() RETURNS text LANGUAGE sql AS $$ SELECT 'd'::text $$; \
    CREATE DOMAIN app.even AS int DEFAULT 2 CONSTRAINT even CHECK (app.is_even(VALUE)); \
    CREATE TYPE app.colour AS ENUM ('red'); CREATE TYPE app.point AS (x int, y app.mood[], c app.colour); CREATE TYPE app.span AS RANGE (subtype = float8)";

const TABLE: &str = "CREATE TABLE app.t (id bigint PRIMARY KEY, m app.mood, e app.even, p app.point, s app.span, n int, \
    b text COLLATE app.german DEFAULT app.word(), h other.hstore, g bool GENERATED ALWAYS AS (app.is_even(n)) STORED, \
    CHECK (app.half(n) < 100), CHECK (app.late(n)))";

fn cluster_with_table() -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes(
        "CREATE ROLE first_owner; CREATE ROLE other_owner; CREATE ROLE reader; CREATE SCHEMA IF NOT EXISTS other",
    );
    cluster.sql("DROP SCHEMA other");
    cluster.sql(OBJECTS);
    cluster.sql(TABLE);
    cluster.distribute("app.t", "id", 4, 1);
    cluster.sql(
        "INSERT INTO app.t (id, m, e, p, s, n) SELECT i, 'sad', 4, (2, '{ok}', 'red')::app.point, '[1,2]', i FROM generate_series(1, 10) AS i",
    );
    cluster
}

fn statements() -> impl Iterator<Item = &'static str> {
    STATEMENTS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// CREATE OR REPLACE FUNCTION, ALTER DOMAIN, ALTER TYPE and the like changed the coordinator only: shards went on with the former
/// function, domain or type, and nothing told of it.
#[test]
fn what_tables_need_changes_on_all_nodes_or_on_none() {
    let cluster = cluster_with_table();
    let describe = |node: NodeName| cluster.session_on(node).text(DESCRIBE);
    let mut wrong = String::new();
    let mut session = cluster.new_session();
    for statement in statements() {
        let before = describe(NodeName::Coordinator);
        session.sql("BEGIN");
        session.sql(statement);
        session.sql("ROLLBACK");
        session.sql(statement);
        let after = describe(NodeName::Coordinator);
        if before == after {
            let _ = writeln!(wrong, "{statement}\n    changes nothing");
        }
        for node in [NodeName::Worker(1), NodeName::Worker(2)] {
            let there = describe(node);
            if there != after {
                let missing = after.lines().filter(|line| !there.lines().any(|it| it == *line));
                let extra = there.lines().filter(|line| !after.lines().any(|it| it == *line));
                let _ = writeln!(
                    wrong,
                    "{statement}\n    {node:?} lacks {:?} and has {:?}",
                    missing.collect::<Vec<_>>(),
                    extra.collect::<Vec<_>>()
                );
            }
        }
        let table = session
            .text("SELECT oid::regclass FROM pg_class WHERE relname = 't' AND relkind = 'r'");
        let count =
            session.text(&format!("SELECT count(*), count(*) FILTER (WHERE n > 0) FROM {table}"));
        if count != "10|10" {
            let _ = writeln!(wrong, "{statement}\n    rows: {count}");
        }
        session.sql(&format!("UPDATE {table} SET n = n WHERE id = 3"));
    }
    assert_eq!(wrong, "");
}

/// ROLLBACK, and a savepoint, undo it on the nodes.
#[test]
fn what_tables_need_is_as_it_was_after_rollback() {
    let cluster = cluster_with_table();
    let before = cluster.session_on(NodeName::Worker(1)).text(DESCRIBE);
    let mut session = cluster.new_session();
    session.sql("BEGIN; SAVEPOINT s");
    session.sql("ALTER SCHEMA app RENAME TO other2; ALTER TYPE other2.mood RENAME TO feeling");
    session.sql("INSERT INTO other2.t (id, m, n) VALUES (20, 'ok', 3); ROLLBACK TO s");
    session.sql("INSERT INTO app.t (id, m, n) VALUES (21, 'ok', 3)");
    session.sql(
        "ALTER DOMAIN app.even DROP CONSTRAINT even; INSERT INTO app.t (id, e) VALUES (22, 3)",
    );
    assert_eq!(session.text("SELECT count(*) FROM app.t"), "12");
    session.sql("ROLLBACK");
    assert_eq!(cluster.session_on(NodeName::Worker(1)).text(DESCRIBE), before);
    assert_eq!(cluster.text("SELECT count(*) FROM app.t"), "10");
}

/// A domain's check looks at the rows of the shards, and its error names the table.
#[test]
fn a_domain_is_checked_over_the_rows_of_shards() {
    let cluster = cluster_with_table();
    cluster.sql("INSERT INTO app.t (id, e) VALUES (20, NULL)");
    for (statement, message) in [
        (
            "ALTER DOMAIN app.even ADD CONSTRAINT small CHECK (VALUE < 4)",
            "23514: column \"e\" of table \"t\" contains values that violate the new constraint",
        ),
        (
            "ALTER DOMAIN app.even SET NOT NULL",
            "23502: column \"e\" of table \"t\" contains null values",
        ),
    ] {
        assert_eq!(cluster.error(statement).line(), message);
    }
    cluster.sql("ALTER DOMAIN app.even ADD CONSTRAINT small CHECK (VALUE < 4) NOT VALID");
    let error = cluster.error("ALTER DOMAIN app.even VALIDATE CONSTRAINT small");
    assert_eq!(
        error.line(),
        "23514: column \"e\" of table \"t\" contains values that violate the new constraint"
    );
    assert_eq!(cluster.error("INSERT INTO app.t (id, e) VALUES (21, 6)").constraint, "small");
    cluster.sql("UPDATE app.t SET e = 2; ALTER DOMAIN app.even VALIDATE CONSTRAINT small");
}

#[test]
fn a_node_that_is_down_keeps_what_tables_need_from_changing() {
    let cluster = cluster_with_table();
    let before = cluster.text(DESCRIBE);
    cluster.kill(NodeName::Worker(2)).expect("the worker runs");
    for statement in [
        "CREATE OR REPLACE FUNCTION app.is_even(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true'",
        "ALTER TYPE app.mood ADD VALUE 'great'",
        "ALTER SCHEMA app RENAME TO app2",
    ] {
        let error = cluster.error(statement);
        assert!(error.message.contains(&cluster.port(NodeName::Worker(2)).to_string()), "{error}");
        assert!(
            error.hint.contains("All nodes with shards of tables that need the object"),
            "{error}"
        );
        assert_eq!(cluster.text(DESCRIBE), before);
        assert_eq!(cluster.session_on(NodeName::Worker(1)).text(DESCRIBE), before);
    }
}

/// Sessions with prepared statements go on under the new names.
#[test]
fn sessions_go_on_when_schemas_and_types_are_renamed() {
    let cluster = cluster_with_table();
    let mut session = cluster.new_session();
    session.sql("SET search_path = app, app2, public");
    session.sql("PREPARE get AS SELECT m, p FROM t WHERE id = $1; PREPARE put AS INSERT INTO t (id, m, n) VALUES ($1, $2, 1)");
    let mut id = 20;
    let mut both = |session: &mut testkit::Session| {
        for _ in 0..8 {
            id += 1;
            session.sql(&format!("EXECUTE put ({id}, 'ok')"));
            assert_eq!(session.text(&format!("EXECUTE get ({id})")), "ok|NULL");
            session.sql(&format!("UPDATE t SET m = 'sad' WHERE id = {id}"));
        }
    };
    both(&mut session);
    for statement in [
        "ALTER TYPE app.mood RENAME TO feeling",
        "ALTER SCHEMA app RENAME TO app2",
        "ALTER FUNCTION app2.is_even RENAME TO even_one",
        "ALTER TYPE app2.feeling SET SCHEMA other",
    ] {
        cluster.sql(statement);
        both(&mut session);
    }
}

/// A function that a node has under the name was left there, whatever it did: rows were checked by another one than here.
#[test]
fn a_function_of_a_node_becomes_the_one_of_the_coordinator() {
    let cluster = TestCluster::up(2);
    cluster.on_workers("CREATE FUNCTION f(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true'; CREATE DOMAIN d AS int");
    cluster.sql(
        "CREATE FUNCTION f(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT i > 0'; CREATE DOMAIN d AS int DEFAULT 7 CHECK (VALUE < 10); \
         CREATE TABLE t (id int PRIMARY KEY CHECK (f(id)), d d)",
    );
    cluster.distribute("t", "id", 4, 1);
    assert_eq!(cluster.error("INSERT INTO t VALUES (-1)").sqlstate, "23514");
    assert_eq!(cluster.error("INSERT INTO t VALUES (1, 11)").sqlstate, "23514");
    cluster.sql("INSERT INTO t VALUES (1)");
    assert_eq!(cluster.text("SELECT d FROM t"), "7");
}

/// Whoever may not change it here changes nothing on the nodes.
#[test]
fn who_does_not_own_an_object_cannot_change_it_on_nodes() {
    let cluster = cluster_with_table();
    cluster.on_all_nodes("CREATE ROLE stranger LOGIN");
    // A right to a role that a node lacks is none there.
    cluster.sql("CREATE ROLE unknown; GRANT USAGE, CREATE ON SCHEMA app TO stranger, unknown");
    let mut stranger = cluster.session_as("stranger");
    let before = cluster.session_on(NodeName::Worker(1)).text(DESCRIBE);
    for statement in [
        "CREATE OR REPLACE FUNCTION app.is_even(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true'",
        "ALTER TYPE app.mood ADD VALUE 'great'",
        "ALTER DOMAIN app.even SET NOT NULL",
        "ALTER SCHEMA app RENAME TO app2",
        "DROP FUNCTION app.is_even CASCADE",
    ] {
        assert_eq!(stranger.error(statement).sqlstate, "42501", "{statement}");
    }
    assert_eq!(cluster.session_on(NodeName::Worker(1)).text(DESCRIBE), before);
}
