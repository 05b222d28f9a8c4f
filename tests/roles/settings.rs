//! Settings that change what a statement means hold on the nodes, and are undone there when they are here.

use crate::same_on_both;
use testkit::TestCluster;

/// Two tables of the same rows, with values whose texts depend on settings; and functions of users that run on the nodes in writes.
fn with_values() -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes(
        "CREATE FUNCTION own() RETURNS text LANGUAGE plpgsql VOLATILE AS $$
         BEGIN RETURN coalesce(current_setting('app.tenant', true), '-') || ' ' || coalesce(current_setting('app.\"it''s\"', true), '-'); END $$;
         CREATE FUNCTION styles() RETURNS text LANGUAGE plpgsql VOLATILE AS $$
         BEGIN RETURN current_setting('TimeZone') || ' ' || current_setting('DateStyle') || ' ' || timestamptz '2026-01-02 03:04+00' || ' ' || 0.1::float8 / 3; END $$;
         CREATE FUNCTION fixed() RETURNS text LANGUAGE plpgsql VOLATILE SET TimeZone = 'UTC' SET search_path = pg_catalog AS $$
         BEGIN RETURN current_setting('search_path') || ' ' || timestamptz '2026-01-02 03:04+00'; END $$",
    );
    cluster.on_all_nodes("CREATE TYPE pair AS (f float8, at timestamptz)");
    for table in ["plain", "sharded"] {
        cluster.sql(&format!(
            "CREATE TABLE {table} (k int PRIMARY KEY, at timestamptz, span interval, f float8, b bytea, p pair, t text, u text)"
        ));
    }
    cluster.distribute("sharded", "k", 4, 1);
    cluster
}

/// `extra_float_digits` below 1 cut floats off on their way to the nodes, and made no difference there.
#[test]
fn floats_are_stored_as_they_are_and_shown_as_the_client_wants() {
    let cluster = with_values();
    let mut statements = Vec::new();
    for digits in [-5, 0, 1, 3] {
        let set = format!("SET extra_float_digits = {digits}");
        for statement in [
            "DELETE FROM {t}",
            &set,
            "INSERT INTO {t} (k, f, p) VALUES (1, 0.1::float8 + 0.2, ROW(0.1::float8 / 3, NULL))",
            "INSERT INTO {t} (k, f, p) SELECT i, 1.0 / i, ROW(1.0 / i, NULL)::pair FROM generate_series(2, 9) AS i",
            "UPDATE {t} SET f = x FROM (SELECT 0.1::float8 / 7 AS x OFFSET 0) AS s WHERE k = 4",
            "SELECT f, f::text, p, (p).f / 3 FROM {t} WHERE k = 3",
            "SELECT f, f::text, concat(f / 3) FROM {t} ORDER BY k",
            "SELECT string_agg(f::text, ' ' ORDER BY k), min((f / 3)::text) FROM {t}",
            "UPDATE {t} SET t = (f / 3)::text, u = styles() WHERE k = 3 RETURNING t, u",
            "UPDATE {t} SET t = (f / 3)::text",
            "RESET extra_float_digits",
            "SELECT k, f, f::text, p, t FROM {t} ORDER BY k",
            "SELECT f::text, p FROM {t} WHERE k = 3",
            "SET client_encoding = 'LATIN1'",
            &set,
            "SELECT k, f * 1e15, (p).f * 1e15 FROM {t} WHERE f::text <> '' AND random() < 2 ORDER BY k",
            "RESET ALL",
        ] {
            statements.push(statement.to_owned());
        }
    }
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    same_on_both(&cluster, "postgres", &statements);
    // Rows that come back to the coordinator too.
    cluster.sql("UPDATE sharded SET f = 0.1::float8 / 3, p = ROW(0.1::float8 / 3, NULL)");
    cluster.sql("SET extra_float_digits = -10; SELECT undistribute_table('sharded'); RESET extra_float_digits");
    assert_eq!(
        cluster.text(
            "SELECT count(*) FROM sharded WHERE f = 0.1::float8 / 3 AND (p).f = 0.1::float8 / 3"
        ),
        "9"
    );
}

#[test]
fn styles_of_texts_hold_on_the_nodes_and_end_with_the_savepoint() {
    let cluster = with_values();
    same_on_both(
        &cluster,
        "postgres",
        &[
            "SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German, DMY'; SET IntervalStyle = 'iso_8601'; SET bytea_output = 'escape'; SET xmlbinary = hex",
            r"INSERT INTO {t} VALUES (1, '02.03.2026 10:00', 'P1DT2H', 1, 'a\\001', ROW(1, '02.03.2026 10:00'), 'x')",
            r"INSERT INTO {t} SELECT i, '02.03.2026 10:00'::timestamptz + i * interval 'PT1H', 'P1DT2H', i, 'a\\001', ROW(i, '02.03.2026 10:00'), 'x' FROM generate_series(2, 9) AS i",
            "SELECT *, at::text, span::text, b::text, xmlelement(name x, b)::text FROM {t} WHERE k = 1",
            "SELECT *, at::text, span::text, b::text, xmlelement(name x, b)::text FROM {t} ORDER BY k",
            "SELECT at::date, count(*), min(at::text) FROM {t} GROUP BY 1 ORDER BY 1",
            "UPDATE {t} SET t = styles(), u = fixed() WHERE k = 1 RETURNING t, u",
            "BEGIN",
            "SET LOCAL TimeZone = 'UTC'",
            "SELECT at::text FROM {t} WHERE k = 1",
            "SELECT min(at::text) FROM {t}",
            "SAVEPOINT s",
            "SET TimeZone = 'America/New_York'",
            "UPDATE {t} SET t = styles(), u = fixed() WHERE k = 1 RETURNING t, u, at::text",
            "ROLLBACK TO s",
            "UPDATE {t} SET t = styles(), u = fixed() WHERE k = 1 RETURNING t, u, at::text",
            "SELECT set_config('TimeZone', 'Europe/Rome', true)",
            "SELECT at::text, (SELECT max(at::text) FROM {t}) FROM {t} WHERE k = 1",
            "COMMIT",
            "UPDATE {t} SET t = styles(), u = fixed() WHERE k = 1 RETURNING t, u, at::text",
            "RESET ALL",
            "SELECT at::text, b::text, span::text FROM {t} WHERE k = 1",
            "SET default_text_search_config = simple",
            "UPDATE {t} SET t = 'the running dogs'",
            "SELECT count(*) FROM {t} WHERE t @@ 'the'",
            "SELECT t @@ 'dog', to_tsvector(t), jsonb_to_tsvector(to_jsonb(t), '\"all\"') FROM {t} WHERE k = 1",
            "SET default_text_search_config = english",
            "SELECT count(*) FROM {t} WHERE t @@ 'the'",
            "SELECT t @@ 'dog', to_tsvector(t), jsonb_to_tsvector(to_jsonb(t), '\"all\"') FROM {t} WHERE k = 1",
        ],
    );
}

/// What the client has set for itself (`app.tenant`) reached policies, which the coordinator computes, and not the functions that run
/// on the nodes. The next user of a pooled connection must not be taken for the one before.
#[test]
fn the_clients_own_settings_hold_on_the_nodes_and_do_not_stay_there() {
    let cluster = with_values();
    let note = "UPDATE {t} SET u = own() WHERE k = 1 RETURNING u";
    let note_all = "UPDATE {t} SET u = own() WHERE k > 0";
    same_on_both(
        &cluster,
        "postgres",
        &[
            "INSERT INTO {t} (k) VALUES (1), (2)",
            note,
            "SET app.tenant = 'a'",
            note,
            "SELECT k FROM {t} WHERE k = 1 AND u = own()",
            "BEGIN",
            "SET LOCAL app.tenant = 'b'",
            note,
            "SAVEPOINT s",
            "SELECT set_config('app.tenant', 'c ''d\\', true)",
            note,
            "ROLLBACK TO s",
            note,
            "COMMIT",
            note,
            "BEGIN",
            "SET app.tenant = 'e'",
            note,
            "ROLLBACK",
            note,
            "DO $$ BEGIN PERFORM set_config('app.tenant', 'f', true); UPDATE {t} SET u = own() WHERE k = 1; \
                 BEGIN PERFORM set_config('app.tenant', 'g', true); UPDATE {t} SET u = own() WHERE k = 2; RAISE EXCEPTION 'x'; \
                 EXCEPTION WHEN raise_exception THEN UPDATE {t} SET u = coalesce(u, '') || own() WHERE k = 2; END; END $$",
            "SELECT k, u FROM {t} ORDER BY k",
            note,
            "CREATE FUNCTION {t}_note() RETURNS text LANGUAGE sql SET app.tenant = 'h' AS 'UPDATE {t} SET u = own() WHERE k = 1 RETURNING u'",
            "SELECT {t}_note()",
            note,
            "RESET app.tenant",
            note,
            note_all,
            "SELECT k, u FROM {t} ORDER BY k",
            "SET app.tenant = 'i'",
            note,
            "DISCARD ALL",
            note,
            "SET plpgsql.nothing = 1",
            note,
        ],
    );
}
