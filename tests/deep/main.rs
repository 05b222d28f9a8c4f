//! Deep and wide statements: each is answered as for a local table, or refused with PostgreSQL's own error, and no server ends.
//!
//! The tables are in the schemas `plain` and `sharded`. Where a statement needs somewhat more of the stack than with a local
//! table (it is printed, sent, and parsed once more), "stack depth limit exceeded" is an answer as well, but not at the sizes
//! that must fit.

mod forms;
mod places;

use forms::{FORMS, Form, Yields};
use testkit::{Rows, Session, SqlError, TestCluster};

/// 54001, of the executor or the planner; 42601, of the parser: its stack has 10,000 places.
const TOO_DEEP: [&str; 2] = ["54001: stack depth limit exceeded", "42601: memory exhausted"];

const TABLES: &str = "CREATE TABLE t (k int PRIMARY KEY, v int, w int DEFAULT 1, txt text); \
     CREATE TABLE u (k int PRIMARY KEY, v int, w int, txt text)";

const ROWS: &str = "INSERT INTO t SELECT g, g * 10, 1, 'x' || g FROM generate_series(1, 9) AS g; \
     INSERT INTO u SELECT g, g * 10, 1, 'x' || g FROM generate_series(5, 14) AS g";

struct Servers {
    cluster: TestCluster,
    plain: Session,
    sharded: Session,
}

impl Servers {
    fn up() -> Self {
        // Machine code for thousands of operators takes longer than all the rest.
        let cluster = TestCluster::up_with(2, &[("jit", "off")]);
        for schema in ["plain", "sharded"] {
            cluster.sql(&format!(
                "CREATE SCHEMA {schema}; SET search_path = {schema}, public; {TABLES}"
            ));
        }
        cluster.sql("RESET search_path");
        for table in ["t", "u"] {
            cluster.distribute(&format!("sharded.{table}"), "k", 4, 1);
        }
        let [plain, sharded] = ["plain", "sharded"].map(|schema| {
            let mut session = cluster.new_session();
            session
                .sql(&format!("SET search_path = {schema}, public; SET statement_timeout = '60s'"));
            session.sql(ROWS);
            session
        });
        Self { cluster, plain, sharded }
    }

    /// Both tables' answers, of a transaction that is rolled back.
    fn ask(&mut self, statement: &str) -> [Result<Rows, SqlError>; 2] {
        [&mut self.plain, &mut self.sharded].map(|session| {
            session.sql("BEGIN");
            let answer = session.try_sql(statement).map(|mut rows| {
                rows.sort();
                rows
            });
            session.sql("ROLLBACK; DEALLOCATE ALL");
            answer
        })
    }

    /// The answers are equal; or, if this is too much for one of the servers, the error says so.
    #[track_caller]
    fn compare(&mut self, what: &str, statement: &str, must_fit: bool) {
        let [plain, sharded] = self.ask(statement);
        match (plain, sharded) {
            (Ok(plain), Ok(sharded)) => {
                assert!(plain == sharded, "{what}:\n{plain:?}\n{sharded:?}")
            }
            (plain, Err(error)) => {
                let same = plain.as_ref().is_err_and(|plain| plain.line() == error.line());
                let too_deep = TOO_DEEP.iter().any(|it| error.line().starts_with(it));
                let allowed = !must_fit || plain.is_err();
                assert!(
                    same || too_deep && allowed,
                    "{what}: {} instead of {plain:?}",
                    error.line()
                );
            }
            (Err(plain), Ok(_)) => {
                let too_deep = TOO_DEEP.iter().any(|it| plain.line().starts_with(it));
                assert!(too_deep, "{what}: done instead of {}", plain.line());
            }
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // Had a backend of a node ended by a signal, the node would have thrown out all sessions, these included.
            assert_eq!(self.sharded.text("SELECT count(*) FROM t"), "9");
            assert_eq!(self.plain.text("SELECT count(*) FROM t"), "9");
            self.cluster.assert_placements_equal("sharded.t");
        }
    }
}

/// Statements with a place `{c}` for a condition.
const WITH_CONDITION: [&str; 17] = [
    "SELECT k, v FROM t WHERE {c}",
    "SELECT k, v FROM t WHERE k = 3 AND ({c})",
    "SELECT count(*), sum(v) FROM t WHERE {c}",
    "SELECT k, {c} FROM t",
    "SELECT t.k, u.w FROM t JOIN u USING (k, v) WHERE {c}",
    "SELECT count(*) FROM (SELECT k, v FROM t UNION ALL SELECT k, v FROM u) x WHERE {c}",
    "SELECT v, count(*) FROM t GROUP BY v HAVING bool_or({c})",
    "UPDATE t SET w = 5 WHERE {c} RETURNING k, w",
    "UPDATE t SET w = 5 WHERE k = 4 AND ({c}) RETURNING k, w",
    "DELETE FROM t WHERE {c} RETURNING k",
    "INSERT INTO t SELECT k + 100, v FROM t WHERE {c} RETURNING k, v",
    "INSERT INTO t VALUES (3, 1) ON CONFLICT (k) DO UPDATE SET w = 7 WHERE {t} RETURNING t.k, t.w",
    "MERGE INTO t USING (SELECT k, v FROM u WHERE {c}) s ON t.k = s.k WHEN MATCHED THEN UPDATE SET w = 9 \
     WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v); SELECT k, v, w FROM t",
    "WITH x AS MATERIALIZED (SELECT k, v FROM t WHERE {c}) SELECT count(*) FROM x",
    "CREATE VIEW deep AS SELECT k, v FROM t WHERE {c}; SELECT count(*) FROM deep; SELECT v FROM deep WHERE k = 3",
    "DECLARE c CURSOR FOR SELECT k FROM t WHERE {c}; FETCH ALL FROM c",
    "SELECT count(*) FILTER (WHERE {c}) FROM t",
];

/// Statements with a place `{n}` for a number.
const WITH_NUMBER: [&str; 14] = [
    "SELECT k, {n} FROM t",
    "SELECT {n} FROM t WHERE k = 3",
    "SELECT sum({n}), count(*) FROM t",
    "SELECT count(*) FROM t WHERE {n} > 30",
    "SELECT v, max({n}) FROM t GROUP BY v ORDER BY max({n}) LIMIT 3",
    "SELECT k FROM t ORDER BY {n}, k LIMIT 2",
    "UPDATE t SET w = {n} RETURNING k, w",
    "UPDATE t SET w = {n} WHERE k = 4 RETURNING k, w",
    "DELETE FROM t WHERE k = 3 RETURNING {n}",
    "INSERT INTO t SELECT k + 100, {n} FROM t; SELECT sum(k), sum(v) FROM t",
    "INSERT INTO t (k, v) SELECT 200, {n} FROM (VALUES (1, 2)) AS x(k, v) RETURNING k, v",
    "INSERT INTO t VALUES (3, 1) ON CONFLICT (k) DO UPDATE SET w = {tn} RETURNING t.k, t.w",
    "MERGE INTO t USING u ON t.k = u.k WHEN MATCHED THEN UPDATE SET w = {un} WHEN NOT MATCHED THEN INSERT (k, v) VALUES (u.k, {un}); \
     SELECT k, v, w FROM t",
    "SELECT (SELECT sum({n}) FROM t), 1 FROM u WHERE k = 5",
];

/// The expression of a row with k = 7 and v = 70: one that can be a default.
fn of_constants(expression: &str) -> String {
    let words = expression.split_inclusive(|c: char| !c.is_alphanumeric());
    let constant = |word: &str| match word.trim_end_matches(|c: char| !c.is_alphanumeric()) {
        "k" => word.replace('k', "7"),
        "v" => word.replace('v', "70"),
        _ => word.to_owned(),
    };
    words.map(constant).collect()
}

/// The statement with the expression in its place, the columns as those of the table that is meant there.
fn fill(statement: &str, expression: &str) -> String {
    let of = |table: &str| {
        let words = expression.split_inclusive(|c: char| !c.is_alphanumeric());
        let qualified =
            words.map(|word| match word.trim_end_matches(|c: char| !c.is_alphanumeric()) {
                "k" | "v" => format!("{table}.{word}"),
                _ => word.to_owned(),
            });
        qualified.collect::<String>()
    };
    let mut text = statement.replace("{c}", expression).replace("{n}", expression);
    if text.contains("{d}") {
        text = text.replace("{d}", &of_constants(expression));
    }
    for (place, table) in [("{t}", "t"), ("{tn}", "t"), ("{un}", "u")] {
        if text.contains(place) {
            text = text.replace(place, &of(table));
        }
    }
    text
}

/// So many levels of NOT PostgreSQL plans over UNION ALL in 20 ms; with each more it takes a quarter longer, and with 50 half a minute.
const PLANNED_IN_TIME: usize = 20;

/// Each form of this kind in every statement, or in each `step`th, with others for each form.
fn compare_all(yields: Yields, statements: &[&str], size: fn(&Form) -> usize, step: usize) {
    let mut servers = Servers::up();
    let must_fit = step == 1;
    for (number, form) in FORMS.iter().filter(|form| form.yields == yields).enumerate() {
        let expression = (form.make)(size(form));
        let of_few_levels = (form.make)(PLANNED_IN_TIME);
        for statement in statements.iter().skip(number % step).step_by(step) {
            let takes_ages = form.name == "NOT" && statement.contains("UNION ALL");
            let expression = if takes_ages { &of_few_levels } else { &expression };
            let what = format!("{} of {}: {statement}", size(form), form.name);
            servers.compare(&what, &fill(statement, expression), must_fit);
        }
    }
}

#[test]
fn conditions_of_some_depth_are_answered_as_by_a_local_table() {
    compare_all(Yields::Condition, &WITH_CONDITION, |form| form.fits, 1);
}

#[test]
fn numbers_of_some_depth_are_computed_as_by_a_local_table() {
    compare_all(Yields::Number, &WITH_NUMBER, |form| form.fits, 1);
}

#[test]
fn conditions_that_are_too_deep_are_refused_and_end_no_server() {
    compare_all(Yields::Condition, &WITH_CONDITION, |form| form.beyond, 4);
}

#[test]
fn numbers_that_are_too_deep_are_refused_and_end_no_server() {
    compare_all(Yields::Number, &WITH_NUMBER, |form| form.beyond, 4);
}

/// Of a list of rows the parser makes as many levels as there are rows. The planner flattens them early, and so do we.
#[test]
fn lists_of_five_thousand_rows_fit_as_they_do_in_a_local_table() {
    let mut servers = Servers::up();
    let condition = (FORMS[0].make)(5_000);
    for statement in [0, 1, 7, 8, 9, 13].map(|at| WITH_CONDITION[at]) {
        servers.compare(statement, &fill(statement, &condition), true);
    }
}
