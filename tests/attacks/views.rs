//! Views of another owner: his rights are lent to the view's tables, and to nothing that the reader, or anybody, has made.

use crate::Spy;
use testkit::Session;

/// Everything that PostgreSQL can be made to call from an expression over column `b`, a text, of the view.
const EXPRESSIONS: &[&str] = &[
    "b::m.dom",
    "(b || 'x')::m.dom",
    "ARRAY[b]::m.dom[]",
    "ROW(k, b)::m.comp",
    "(ROW(k, b)::m.comp).d",
    "('(' || k || ',' || b || ')')::m.comp",
    "('{' || b || '}')::m.dom[]",
    "json_populate_record(NULL::m.comp, json_build_object('d', b))",
    "(json_populate_record(NULL::m.comp, json_build_object('d', b))).d",
    "jsonb_populate_record(NULL::m.comp, jsonb_build_object('d', b))",
    "CASE WHEN b::m.dom = 'x' THEN 1 ELSE 2 END",
    "domain_in(textout(b), 'm.dom'::regtype::oid, -1) IS NULL",
    "array_in(textout(b), 'm.dom'::regtype::oid, -1) IS NULL",
    "m.spy(b)",
    "b OPERATOR(m.<|>) b",
    "b = ANY (ARRAY[b::m.dom::text])",
    "b::m.dom IN ('x', 'y')",
    "nullif(b::m.dom, 'x')",
    "coalesce(b::m.dom, 'x')",
    "greatest(b::m.dom, 'x')",
    "xmlelement(name x, b::m.dom)",
    "to_json(ROW(k, b)::m.comp)",
    "CAST(m.of(k) AS text)",
    "m.inlined(b)",
    "m.rangy(b, b)",
    "upper(m.rangy(b, b))",
    "concat(b::m.dom, 'x')",
];

/// Statements with more than one expression.
const STATEMENTS: &[&str] = &[
    "SELECT x.d FROM {v}, XMLTABLE('/r' PASSING xmlelement(name r, b) COLUMNS d m.dom PATH '.') AS x WHERE k = 3",
    "SELECT x.d FROM {v}, XMLTABLE('/r' PASSING xmlelement(name r, b) COLUMNS d m.dom PATH '.') AS x",
    "SELECT x.d FROM {v}, json_to_record(json_build_object('d', b)) AS x(d m.dom) WHERE k = 3",
    "SELECT x.d FROM {v}, json_populate_record(NULL::m.comp, json_build_object('d', b)) AS x",
    "SELECT x.d FROM {v} AS v, json_populate_recordset(NULL::m.comp, json_build_array(json_build_object('d', b))) AS x WHERE v.k = 4",
    "SELECT m.all_of(b) FROM {v} WHERE k = 3",
    "SELECT length(m.all_of(b)) FROM {v}",
    "SELECT n, length(m.all_of(b)) FROM {v} GROUP BY n",
    "SELECT v.k FROM {v} AS v JOIN (VALUES ('b1'::m.dom), ('b2')) AS j(d) ON j.d = b",
    "SELECT v.k FROM {v} AS v LEFT JOIN (VALUES ('b1'::m.dom), ('b2')) AS j(d) ON j.d = b",
    "SELECT k FROM {v} WHERE b = 'b3'::m.dom",
    "SELECT k FROM {v} WHERE k = 3 AND b = 'b3'::m.dom",
    "SELECT k FROM {v} WHERE k = length('abc'::m.dom)",
    "SELECT k FROM {v} WHERE (SELECT m.spy(b)) = 'b3'",
    "SELECT k FROM {v} TABLESAMPLE system (100) WHERE b::m.dom <> ''",
    "UPDATE {v} SET b = b::m.dom WHERE k = 3",
    "UPDATE {v} SET b = b OPERATOR(m.<|>) '' WHERE k = 3 RETURNING b::m.dom",
    "UPDATE {v} SET b = b::m.dom",
    "UPDATE {v} SET b = m.inlined(b) RETURNING m.inlined(b)",
    "INSERT INTO {v} VALUES (21, 'b21'::m.dom, 0) RETURNING b::m.dom",
    "INSERT INTO {v} VALUES (22, 'b21', 0), (23, 'b23', 0) RETURNING b::m.dom",
    "INSERT INTO {v} SELECT k + 100, b::m.dom, n FROM {v} WHERE k < 4 RETURNING m.spy(k)",
    "DELETE FROM {v} WHERE k = 21 AND b::m.dom = 'b21' RETURNING ROW(k, b)::m.comp",
    "DELETE FROM {v} WHERE b::m.dom = 'b101'",
    "DELETE FROM {v} WHERE k = 101 AND json_populate_record(NULL::m.comp, json_build_object('d', b)) IS NOT NULL",
    "WITH d AS (DELETE FROM {v} WHERE k = 22 RETURNING b) SELECT b::m.dom FROM d",
    "MERGE INTO {v} USING (VALUES (1, 'y'::m.dom)) AS s(k, b) ON {v}.k = s.k WHEN MATCHED THEN UPDATE SET b = s.b",
];

/// The check of a domain ran on the nodes in a session of the view's owner, a superuser: `CoerceToDomain` is no function.
#[test]
fn nothing_of_users_is_computed_with_the_rights_of_a_views_owner() {
    let spy = Spy::up(2);
    let cluster = &spy.cluster;
    spy.on_all_nodes_as_mallory(
        "CREATE DOMAIN m.dom AS text CHECK (m.spy(value) IS NOT NULL);
         CREATE TYPE m.comp AS (k int, d m.dom);
         CREATE FUNCTION m.of(int) RETURNS m.dom LANGUAGE sql AS 'SELECT $1::text::m.dom';
         CREATE FUNCTION m.inlined(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1::m.dom::text';
         CREATE FUNCTION m.glue(text, text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
             'BEGIN PERFORM m.note(); RETURN $1 || $2; END';
         CREATE OPERATOR m.<|> (leftarg = text, rightarg = text, function = m.glue);
         CREATE TYPE m.rangy AS RANGE (subtype = m.dom);
         CREATE AGGREGATE m.all_of(text) (sfunc = m.glue, stype = text, initcond = '')",
    );
    cluster.sql("CREATE TABLE secret (k int PRIMARY KEY, b text, n int)");
    cluster.distribute("secret", "k", 4, 1);
    cluster.sql("INSERT INTO secret SELECT i, 'b' || i, i % 3 FROM generate_series(1, 12) AS i");
    cluster.sql("CREATE TABLE plain AS SELECT * FROM secret");
    for table in ["secret", "plain"] {
        cluster.sql(&format!(
            "CREATE VIEW {table}_view AS SELECT * FROM {table}; GRANT ALL ON {table}_view TO mallory"
        ));
    }
    let mut session = cluster.session_as("mallory");
    for expression in EXPRESSIONS {
        for shape in [
            "SELECT {e} FROM {v} ORDER BY k",
            "SELECT {e} FROM {v} WHERE k = 3",
            "SELECT k FROM {v} WHERE ({e})::text IS NOT NULL ORDER BY k",
            "SELECT count(*) FROM {v} WHERE k = 3 AND ({e})::text <> ''",
            "SELECT max(({e})::text) FROM {v}",
            "SELECT max(({e})::text) FROM {v} GROUP BY n ORDER BY 1",
            "SELECT k FROM {v} ORDER BY ({e})::text, k LIMIT 3",
            "SELECT row_number() OVER (PARTITION BY k ORDER BY ({e})::text) FROM {v}",
            "SELECT x.k FROM {v} AS x JOIN (SELECT k, {e} AS e FROM {v}) AS y ON x.k = y.k AND y.e::text <> '' ORDER BY 1",
            "WITH c AS MATERIALIZED (SELECT k, {e} FROM {v} WHERE k = 2) SELECT k FROM c",
        ] {
            same_as_local(&mut session, &shape.replace("{e}", expression));
        }
        spy.assert_only(&["mallory"], expression);
    }
    for sql in STATEMENTS {
        same_as_local(&mut session, sql);
        spy.assert_only(&["mallory"], sql);
    }
    let rows = "ORDER BY k";
    assert_eq!(
        cluster.text(&format!("SELECT * FROM secret {rows}")),
        cluster.text(&format!("SELECT * FROM plain {rows}"))
    );
    spy.assert_only(&["mallory"], "all of them");
}

/// Runs a statement on the local view and on the distributed one, and compares rows or error.
fn same_as_local(session: &mut Session, sql: &str) {
    let mut on = |view: &str| {
        session.try_sql(&sql.replace("{v}", view)).map_err(|error| error.sqlstate).map(
            |mut rows| {
                rows.sort();
                rows
            },
        )
    };
    let local = on("plain_view");
    assert_eq!(on("secret_view"), local, "{sql}");
}

/// What PostgreSQL maps to XML it reads with the rights of the session, which are the owner's there.
#[test]
fn mappings_to_xml_read_nothing_with_the_rights_of_a_views_owner() {
    let spy = Spy::up(1);
    let cluster = &spy.cluster;
    cluster.sql("CREATE TABLE secret (k int PRIMARY KEY, b text); CREATE SCHEMA vault");
    cluster.distribute("secret", "k", 2, 1);
    cluster.sql("INSERT INTO secret VALUES (1, 'vault'), (2, 'vault')");
    cluster.sql(
        "CREATE VIEW secret_view AS SELECT * FROM secret; GRANT ALL ON secret_view TO mallory",
    );
    cluster.on_workers("CREATE SCHEMA vault; CREATE TABLE vault.t AS SELECT 'gold' AS what");
    let mut session = cluster.session_as("mallory");
    for sql in [
        "SELECT schema_to_xml(b, true, false, '')::text FROM secret_view",
        "SELECT schema_to_xml(b, true, false, '')::text FROM secret_view WHERE k = 1",
        "SELECT database_to_xml(k > 0, false, '')::text FROM secret_view",
        "SELECT max(table_to_xml((b || '.t')::regclass, true, false, '')::text) FROM secret_view",
        "SELECT query_to_xml('TABLE ' || b || '.t', true, false, '')::text FROM secret_view WHERE k = 1",
        "UPDATE secret_view SET b = b WHERE k = 1 RETURNING schema_to_xml(b, true, false, '')::text",
    ] {
        let answer = format!("{:?}", session.try_sql(sql));
        assert!(!answer.contains("gold"), "{sql}: {answer}");
    }
}

/// A record has no type that names its fields' types: the cast to json of a field's type ran as the view's owner.
#[test]
fn casts_to_json_of_a_records_fields_do_not_run_with_the_rights_of_a_views_owner() {
    let spy = Spy::up(2);
    let cluster = &spy.cluster;
    spy.on_all_nodes_as_mallory(
        "CREATE TYPE m.mood AS ENUM ('sad', 'happy');
         CREATE FUNCTION m.to_json(m.mood) RETURNS json LANGUAGE plpgsql IMMUTABLE AS
             $$BEGIN PERFORM m.note(); RETURN to_json($1::text); END$$;
         CREATE CAST (m.mood AS json) WITH FUNCTION m.to_json(m.mood)",
    );
    for table in ["secret", "plain"] {
        cluster.sql(&format!("CREATE TABLE {table} (k int PRIMARY KEY, p m.mood)"));
    }
    cluster.distribute("secret", "k", 4, 1);
    for table in ["secret", "plain"] {
        cluster.sql(&format!(
            "INSERT INTO {table} SELECT i, 'sad' FROM generate_series(1, 12) AS i;
             CREATE VIEW {table}_view AS SELECT * FROM {table}; GRANT ALL ON {table}_view TO mallory"
        ));
    }
    let mut session = cluster.session_as("mallory");
    for sql in [
        "SELECT to_json(ROW(k, p)) FROM {v}",
        "SELECT to_json(ROW(k, p)) FROM {v} WHERE k = 3",
        "SELECT to_jsonb(ROW(k, ROW(1, p))) FROM {v} WHERE k = 3",
        "SELECT json_agg(ROW(k, p) ORDER BY k) FROM {v}",
        "SELECT jsonb_build_array(ROW(p)) FROM {v} WHERE k = 3",
        "SELECT to_json(ARRAY[ROW(k, p)]) FROM {v} WHERE k = 3",
        "SELECT row_to_json(x) FROM (SELECT k, p FROM {v}) AS x",
        "SELECT row_to_json(x) FROM (SELECT k, p FROM {v} WHERE k = 3) AS x",
        "SELECT k FROM {v} WHERE to_json(ROW(k, p))::text <> ''",
        "UPDATE {v} SET k = k WHERE k = 3 RETURNING to_json(ROW(k, p))",
        "UPDATE {v} SET p = p RETURNING to_json(ROW(k, p))",
    ] {
        same_as_local(&mut session, sql);
        spy.assert_only(&["mallory"], sql);
    }
}

/// Legal uses stay fast and right: enums of the owner, domains of his tables, functions of the caller.
#[test]
fn enums_and_domains_of_the_owner_work_through_his_views() {
    let spy = Spy::up(2);
    let cluster = &spy.cluster;
    cluster.on_all_nodes(
        "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); CREATE DOMAIN positive AS int CHECK (value > 0)",
    );
    cluster.sql("CREATE TABLE people (k int PRIMARY KEY, m mood, p positive, t text)");
    cluster.distribute("people", "k", 4, 1);
    cluster.sql(
        "CREATE VIEW people_view AS SELECT * FROM people; GRANT ALL ON people_view TO mallory",
    );
    let mut session = cluster.session_as("mallory");
    session.sql("INSERT INTO people_view VALUES (1, 'sad', 1, 'a'), (2, 'ok', 2, 'b'), (3, 'happy', 3, 'c')");
    session.sql("INSERT INTO people_view VALUES (4, 'ok', 4, 'd')");
    session.sql("INSERT INTO people_view VALUES (4, 'sad', 5, 'd') ON CONFLICT (k) DO UPDATE SET m = excluded.m, p = excluded.p");
    assert_eq!(session.text("SELECT k, p FROM people_view WHERE m = 'sad' ORDER BY 1"), "1|1\n4|5");
    assert_eq!(session.text("SELECT m FROM people_view WHERE k = 2 AND m = 'ok'"), "ok");
    assert_eq!(
        session.text("SELECT m, count(*) FROM people_view GROUP BY m ORDER BY m"),
        "sad|2\nok|1\nhappy|1"
    );
    session.sql("UPDATE people_view SET p = p + 1, m = 'happy' WHERE k = 1");
    assert_eq!(session.text("SELECT sum(p) FROM people_view WHERE m = 'happy'"), "5");
    assert_eq!(session.error("UPDATE people_view SET p = -1 WHERE k = 1").sqlstate, "23514");
    let plan =
        session.text("EXPLAIN (VERBOSE, COSTS off) SELECT k FROM people_view WHERE m = 'sad'");
    assert!(plan.contains("'sad'"), "the nodes filter: {plan}");
    assert_eq!(session.text("SELECT k, m.spy(t) FROM people_view WHERE k = 2"), "2|b");
    spy.assert_only(&["mallory"], "a function of the caller");
}
