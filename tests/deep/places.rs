//! Large expressions in places that PostgreSQL keeps, or reads in its own way: COPY, functions, prepared statements, policies,
//! constraints, columns; and statements that are large by themselves.

use crate::forms::{FORMS, Form, Yields};
use crate::{Servers, fill};

use std::io::Write;
use testkit::Rows;

/// Statements with a place `{c}` for a condition, each of which keeps it somewhere.
const KEEPING: [&str; 9] = [
    "CREATE FUNCTION deep() RETURNS SETOF int LANGUAGE plpgsql AS $f$ BEGIN RETURN QUERY SELECT k FROM t WHERE {c}; END $f$; \
     SELECT deep()",
    "CREATE FUNCTION deep(int) RETURNS SETOF int LANGUAGE sql AS $f$ SELECT k FROM t WHERE k <> $1 AND ({c}) $f$; SELECT deep(2)",
    "DO $d$ BEGIN UPDATE t SET w = 5 WHERE {c}; IF EXISTS (SELECT FROM t WHERE {c}) THEN DELETE FROM t WHERE k = 2; END IF; END $d$; \
     SELECT k, w FROM t",
    "SET LOCAL plan_cache_mode = force_generic_plan; PREPARE deep(int) AS SELECT k FROM t WHERE k <> $1 AND ({c}); \
     EXECUTE deep(2); EXECUTE deep(3)",
    "SET LOCAL plan_cache_mode = force_generic_plan; PREPARE deep(int) AS UPDATE t SET w = $1 WHERE k = $1 AND ({c}) RETURNING k, w; \
     EXECUTE deep(2); EXECUTE deep(3)",
    "CREATE POLICY deep ON t USING ({c}); ALTER TABLE t ENABLE ROW LEVEL SECURITY; SET LOCAL ROLE deep_reader; \
     SELECT k, v FROM t; UPDATE t SET w = 4 WHERE k < 5 RETURNING k",
    "ALTER TABLE t ADD CONSTRAINT deep CHECK (({c}) IN (true, false)); INSERT INTO t (k, v) VALUES (20, 7); \
     UPDATE t SET v = v + 1 WHERE k < 4; SELECT k, v FROM t",
    "CREATE INDEX deep ON t (v) WHERE {c}; UPDATE t SET v = v + 1 WHERE k < 4; SELECT k, v FROM t WHERE {c}",
    "CREATE UNIQUE INDEX deep ON t (k, ({c})); UPDATE t SET w = 2 WHERE {c}; SELECT k, w FROM t WHERE {c}",
];

/// The same for a number.
const KEEPING_NUMBER: [&str; 7] = [
    "CREATE FUNCTION deep() RETURNS SETOF int LANGUAGE plpgsql AS $f$ DECLARE k int; v int; BEGIN \
     FOR k, v IN SELECT t.k, t.v FROM t ORDER BY 1 LOOP RETURN NEXT {n}; END LOOP; END $f$; SELECT deep()",
    "SET LOCAL plan_cache_mode = force_generic_plan; PREPARE deep(int) AS SELECT k, {n} FROM t WHERE k <> $1; EXECUTE deep(2)",
    "SET LOCAL plan_cache_mode = force_generic_plan; PREPARE deep(int) AS INSERT INTO t SELECT k + $1, {n} FROM u RETURNING k, v; \
     EXECUTE deep(200)",
    "CREATE VIEW deep AS SELECT k, {n} AS n FROM t; SELECT sum(n) FROM deep; SELECT n FROM deep WHERE k = 3",
    "ALTER TABLE t ADD COLUMN deep bigint GENERATED ALWAYS AS ({n}) STORED; INSERT INTO t (k, v) VALUES (20, 7); \
     UPDATE t SET v = v + 1 WHERE k < 4; SELECT k, deep FROM t",
    "ALTER TABLE t ALTER COLUMN w SET DEFAULT {d}; INSERT INTO t (k, v) VALUES (20, 7), (21, 7); SELECT k, w FROM t",
    "ALTER TABLE t ADD COLUMN deep bigint DEFAULT {d}; INSERT INTO t (k, v) VALUES (20, 7); SELECT k, deep FROM t",
];

/// Half of what fits in a statement: a function's body is parsed where the stack is deeper already.
fn compare_kept(yields: Yields, statements: &[&str]) {
    let mut servers = Servers::up();
    servers.cluster.on_all_nodes("CREATE ROLE deep_reader LOGIN");
    servers.cluster.on_workers("GRANT USAGE ON SCHEMA sharded TO deep_reader");
    for schema in ["plain", "sharded"] {
        servers.cluster.sql(&format!(
            "GRANT USAGE ON SCHEMA {schema} TO deep_reader; GRANT ALL ON {schema}.t, {schema}.u TO deep_reader"
        ));
    }
    for (number, form) in FORMS.iter().filter(|form| form.yields == yields).enumerate() {
        let expression = (form.make)(form.fits / 2);
        // Each form in half of the statements.
        for statement in statements.iter().skip(number % 2).step_by(2) {
            servers.compare(
                &format!("{} of {}: {statement}", form.fits / 2, form.name),
                &fill(statement, &expression),
                true,
            );
        }
    }
}

#[test]
fn conditions_that_are_kept_are_those_of_a_local_table() {
    compare_kept(Yields::Condition, &KEEPING);
}

#[test]
fn numbers_that_are_kept_are_those_of_a_local_table() {
    compare_kept(Yields::Number, &KEEPING_NUMBER);
}

/// What is in the table after lines for the keys 21 to 29 have come in by COPY ... WHERE.
fn copied(servers: &mut Servers, condition: &str) -> [Result<Rows, String>; 2] {
    [&mut servers.plain, &mut servers.sharded].map(|session| {
        session.sql("BEGIN");
        let copy = format!("COPY t (k, v) FROM STDIN WHERE {condition}");
        let lines: String = (21..30).map(|k| format!("{k}\t{}\n", k * 4)).collect();
        let answer = (|| {
            let mut writer = session.client().copy_in(&copy)?;
            writer.write_all(lines.as_bytes()).expect("the server reads to the end");
            writer.finish()
        })();
        let answer = match answer {
            Ok(_) => Ok(session.sql("SELECT k, v FROM t ORDER BY k")),
            Err(error) => Err(error.to_string()),
        };
        session.sql("ROLLBACK");
        answer
    })
}

#[test]
fn conditions_of_copy_take_the_rows_that_they_take_for_a_local_table() {
    let mut servers = Servers::up();
    let is_condition = |form: &&Form| form.yields == Yields::Condition;
    for form in FORMS.iter().filter(is_condition) {
        let [plain, sharded] = copied(&mut servers, &(form.make)(form.fits));
        assert!(plain.is_ok(), "{}: {plain:?}", form.name);
        assert_eq!(plain, sharded, "{}", form.name);
    }
}

fn joined(size: usize, separator: &str, each: impl Fn(usize) -> String) -> String {
    (1..=size).map(each).collect::<Vec<_>>().join(separator)
}

/// Statements that are large by the number of their parts.
fn large_statements() -> Vec<(&'static str, String)> {
    let nested = |size: usize, open: &str, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(size), close.repeat(size))
    };
    vec![
        (
            "sub-queries in FROM",
            nested(500, "SELECT k, v + 1 AS v FROM (", "SELECT k, v FROM t", ") x"),
        ),
        (
            "sub-queries in FROM, by key",
            format!(
                "SELECT v FROM ({}) x WHERE k = 3",
                nested(500, "SELECT k, v + 1 AS v FROM (", "SELECT k, v FROM t", ") x")
            ),
        ),
        (
            "sub-queries with LIMIT",
            nested(200, "SELECT k, v FROM (", "SELECT k, v FROM t ORDER BY k", " LIMIT 8) x"),
        ),
        ("scalar sub-queries", format!("SELECT {} FROM t", nested(500, "(SELECT ", "v", ")"))),
        (
            "sub-queries of IN",
            format!(
                "SELECT k FROM t WHERE {}",
                nested(30, "k IN (SELECT k FROM u WHERE ", "v > 10", ")")
            ),
        ),
        (
            "sub-queries of EXISTS",
            format!(
                "DELETE FROM t WHERE {} RETURNING k",
                nested(40, "EXISTS (SELECT FROM u WHERE u.k = t.k AND ", "u.v > 10", ")")
            ),
        ),
        (
            "branches of UNION ALL",
            joined(400, " UNION ALL ", |i| format!("SELECT k, v + {i} FROM t")),
        ),
        (
            "branches of UNION ALL of one key",
            joined(400, " UNION ALL ", |i| format!("SELECT k, v + {i} FROM t WHERE k = 3")),
        ),
        ("branches of UNION", joined(150, " UNION ", |i| format!("SELECT k + {} FROM t", i % 3))),
        (
            "tables that are joined",
            format!(
                "SELECT count(*), sum(t.v) FROM t {}",
                joined(25, " ", |i| format!("JOIN u AS u{i} ON u{i}.k = t.k"))
            ),
        ),
        (
            "tables that are joined by key",
            format!(
                "SELECT count(*), sum(t.v) FROM t {} WHERE t.k = 6",
                joined(100, " ", |i| format!("LEFT JOIN u AS u{i} ON u{i}.k = t.k"))
            ),
        ),
        (
            "CTEs",
            format!(
                "WITH c0 AS (SELECT k, v FROM t), {} SELECT * FROM c120",
                joined(120, ", ", |i| format!("c{i} AS (SELECT k, v + 1 AS v FROM c{})", i - 1))
            ),
        ),
        (
            "materialized CTEs",
            format!(
                "WITH c0 AS MATERIALIZED (SELECT k, v FROM t), {} SELECT * FROM c60",
                joined(60, ", ", |i| format!(
                    "c{i} AS MATERIALIZED (SELECT k, v + 1 AS v FROM c{})",
                    i - 1
                ))
            ),
        ),
        (
            "columns of aggregates",
            format!("SELECT {} FROM t", joined(1_600, ", ", |i| format!("sum(v + {i})"))),
        ),
        (
            "columns of aggregates of groups",
            format!(
                "SELECT w, {} FROM t GROUP BY w",
                joined(800, ", ", |i| format!("max(v % {i}), count(v + {i})"))
            ),
        ),
        ("columns", format!("SELECT {} FROM t", joined(1_600, ", ", |i| format!("v + {i}")))),
        (
            "columns of one key",
            format!("SELECT {} FROM t WHERE k = 3", joined(1_600, ", ", |i| format!("v + {i}"))),
        ),
        (
            "keys of ORDER BY",
            format!(
                "SELECT k FROM t ORDER BY {} LIMIT 4",
                joined(500, ", ", |i| format!("v % {i}"))
            ),
        ),
        (
            "windows",
            format!(
                "SELECT k, {} FROM t",
                joined(100, ", ", |i| format!("sum(v) OVER (PARTITION BY k ORDER BY v % {i})"))
            ),
        ),
        (
            "rows",
            format!(
                "INSERT INTO t VALUES {}; SELECT sum(k), sum(v) FROM t",
                joined(5_000, ", ", |i| format!("({}, {i})", i + 100))
            ),
        ),
    ]
}

#[test]
fn statements_of_many_parts_are_answered_as_for_a_local_table() {
    let mut servers = Servers::up();
    for (what, statement) in large_statements() {
        servers.compare(what, &statement, true);
    }
}
