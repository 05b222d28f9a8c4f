//! What a table needs besides itself is created on the nodes with its shards, and follows when it changes.

use testkit::{NodeName, TestCluster};

const OBJECTS: &str = "CREATE SCHEMA app; CREATE TYPE app.\"Mood's\" AS ENUM ('sad', 'it''s ok'); \
    CREATE FUNCTION app.is_even(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT i % 2 = 0'; \
    CREATE FUNCTION app.half(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN i / 2; END $$; \
    CREATE DOMAIN app.even AS int DEFAULT 2 CONSTRAINT \"even one\" CHECK (app.is_even(VALUE)); \
    CREATE TYPE app.point AS (x app.even, \"M\" app.\"Mood's\"); \
    CREATE TYPE app.span AS RANGE (subtype = float8, subtype_diff = float8mi); \
    CREATE EXTENSION hstore; CREATE EXTENSION pg_trgm";

const TABLE: &str = "CREATE TABLE app.t (id bigserial PRIMARY KEY, m app.\"Mood's\", e app.even, p app.point[], s app.span, \
    h hstore, b text, g bool GENERATED ALWAYS AS (app.is_even(id::int)) STORED, CHECK (app.half(e) < 100)); \
    CREATE INDEX ON app.t USING gin (b gin_trgm_ops)";

fn cluster_with_table() -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster.sql(OBJECTS);
    cluster.sql(TABLE);
    cluster.distribute("app.t", "id", 4, 1);
    cluster.sql(
        "INSERT INTO app.t (m, e, p, s, h, b) SELECT 'sad', 4, ARRAY[(2, 'it''s ok')::app.point], '[1,2]', 'a=>1', 'abc' \
         FROM generate_series(1, 10)",
    );
    cluster
}

#[test]
fn types_functions_and_extensions_are_created_with_the_shards() {
    let cluster = cluster_with_table();
    assert_eq!(
        cluster.text("SELECT m, e, p, s, h, count(*) FROM app.t GROUP BY 1, 2, 3, 4, 5"),
        "sad|4|{\"(2,\\\"it's ok\\\")\"}|[1,2]|\"a\"=>\"1\"|10"
    );
    let error = cluster.error("INSERT INTO app.t (e) VALUES (3)");
    assert!(error.message.contains("even one"), "{error}");
    assert_eq!(cluster.error("INSERT INTO app.t (e) VALUES (200)").constraint, "t_e_check");
}

#[test]
fn the_labels_of_an_enumerated_type_follow() {
    let cluster = cluster_with_table();
    cluster.sql("ALTER TYPE app.\"Mood's\" ADD VALUE 'great'");
    cluster.sql("ALTER TYPE app.\"Mood's\" ADD VALUE 'meh' BEFORE 'it''s ok'");
    cluster.sql("ALTER TYPE app.\"Mood's\" ADD VALUE IF NOT EXISTS 'first' BEFORE 'sad'");
    cluster.sql("ALTER TYPE app.\"Mood's\" RENAME VALUE 'sad' TO 'bad'");
    cluster.sql("UPDATE app.t SET m = 'great' WHERE id < 4");
    assert_eq!(cluster.text("SELECT string_agg(m || ' ' || n, ', ' ORDER BY m) FROM (SELECT m, count(*) AS n FROM app.t GROUP BY m) AS c"), "bad 7, great 3");
    let labels = "SELECT enum_range(NULL::app.\"Mood's\")";
    assert_eq!(cluster.session_on(NodeName::Worker(1)).text(labels), cluster.text(labels));
}

#[test]
fn a_new_column_takes_its_type_along() {
    let cluster = cluster_with_table();
    cluster.sql("CREATE TYPE app.colour AS ENUM ('red', 'green'); ALTER TABLE app.t ADD COLUMN c app.colour DEFAULT 'red'");
    assert_eq!(cluster.text("SELECT c, count(*) FROM app.t GROUP BY c"), "red|10");
}

/// A function that a superuser's statement creates on the nodes must not run with the superuser's rights there.
#[test]
fn a_function_belongs_to_the_same_owner_on_the_nodes() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes(
        "CREATE ROLE eve LOGIN; CREATE ROLE other; CREATE SCHEMA e AUTHORIZATION eve",
    );
    let mut eve = cluster.session_as("eve");
    eve.sql(
        "CREATE FUNCTION e.f(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER AS $$ BEGIN RETURN i; END $$; \
         REVOKE ALL ON FUNCTION e.f FROM PUBLIC; GRANT EXECUTE ON FUNCTION e.f TO other; \
         CREATE TABLE e.t (id int PRIMARY KEY, CHECK (e.f(id) > 0))",
    );
    cluster.distribute("e.t", "id", 2, 1);
    let owner =
        "SELECT proowner::regrole, proacl FROM pg_proc WHERE oid = 'e.f(int)'::regprocedure";
    for node in cluster.nodes() {
        assert_eq!(cluster.session_on(node).text(owner), "eve|{eve=X/eve,other=X/eve}");
    }
}

/// NULLIF, IS DISTINCT FROM, CASE x WHEN y and comparisons of rows have no place for an operator's schema: a shard took the operator of
/// another type for them, so that it stored other generated values and checked other constraints than the table has.
#[test]
fn operators_that_a_definition_cannot_name_are_those_of_the_type_on_shards_too() {
    let cluster = TestCluster::up(2);
    cluster.sql(
        "CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE SCHEMA app; SET search_path = app, ext; \
         CREATE DOMAIN app.word AS ext.citext CHECK (value IS DISTINCT FROM 'bad'::ext.citext)",
    );
    for table in ["plain", "sharded"] {
        cluster.sql(&format!(
            "SET search_path = app, ext; \
             CREATE TABLE {table} (id int PRIMARY KEY, a citext, b citext, w word, same bool GENERATED ALWAYS AS (CASE a WHEN b THEN true ELSE false END) STORED, \
             n citext GENERATED ALWAYS AS (NULLIF(a, b)) STORED, d bool GENERATED ALWAYS AS (a IS DISTINCT FROM b) STORED, \
             CHECK (a IS DISTINCT FROM 'no'), CHECK ((a, b) < ('zz'::citext, 'y'::citext))); \
             RESET search_path"
        ));
    }
    cluster.distribute("app.sharded", "id", 4, 1);
    for table in ["plain", "sharded"] {
        cluster.sql(&format!(
            "ALTER TABLE app.{table} ADD CONSTRAINT late CHECK (NULLIF(b, 'never'::ext.citext) IS NOT NULL)"
        ));
    }
    let mut session = cluster.new_session();
    session.sql("SET search_path = app, ext");
    for values in [
        "(1, 'A', 'a', 'x')",
        "(2, 'a', 'B', 'y')",
        "(3, 'NO', 'a', 'x')",
        "(4, 'ZZ', 'Y', 'x')",
        "(5, 'a', 'NEVER', 'x')",
        "(6, 'a', 'b', 'BAD')",
        "(7, 'a', 'b', NULL), (8, 'B', 'b', 'z')",
    ] {
        let [plain, sharded] = ["plain", "sharded"].map(|table| {
            let insert = format!("INSERT INTO {table} (id, a, b, w) VALUES {values}");
            session.try_sql(&insert).map(drop).map_err(|error| error.sqlstate)
        });
        assert_eq!(sharded, plain, "{values}");
    }
    assert_eq!(
        session.text("SELECT * FROM sharded ORDER BY id"),
        session.text("SELECT * FROM plain ORDER BY id")
    );
    let path = session.text("SELECT count(*) FROM sharded WHERE a = 'A'");
    assert_eq!(path, session.text("SELECT count(*) FROM plain WHERE a = 'A'"));
}
