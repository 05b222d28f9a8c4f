//! INSERT into distributed tables as the action of rules: the same rows as in local tables.

use testkit::{Session, SqlError, TestCluster};

const STATEMENTS: &str = include_str!("rules.sql");

const TABLES: &str = "CREATE TABLE src (f1 int, f2 int); CREATE TABLE lg (f1 int, f2 int, id serial); \
     CREATE TABLE one (id int PRIMARY KEY, f1 int, f2 int); \
     CREATE TABLE gone (x int, f1 int DEFAULT 7, y int, f2 int DEFAULT 5, z text, id serial, g int GENERATED ALWAYS AS (f1 * 2) STORED); \
     ALTER TABLE gone DROP COLUMN x, DROP COLUMN y";

/// A backend ended with signal 11: an INSERT with several VALUES lists, the rule's and the one that fires it, was taken for an
/// INSERT of the first of them. The action's WHERE was lost where the statement was sent as it is. Whatever is no INSERT of
/// expressions, of one VALUES list or of one sub-query is made an INSERT of a sub-query now.
#[test]
fn inserts_by_rules_store_the_same_rows_as_in_local_tables() {
    let cluster = TestCluster::up(2);
    for schema in ["plain", "several", "single"] {
        cluster
            .sql(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}, public; {TABLES}"));
    }
    cluster.sql("RESET search_path");
    for table in ["lg", "one", "gone"] {
        cluster.distribute(&format!("several.{table}"), "id", 6, 2);
        cluster.distribute(&format!("single.{table}"), "id", 1, 1);
    }
    let mut sessions = ["plain", "several", "single"].map(|schema| {
        let mut session = cluster.new_session();
        session.sql(&format!("SET search_path = {schema}, public; SET statement_timeout = '60s'"));
        session
    });
    for statement in STATEMENTS.split(";\n").filter(|one| !one.trim().is_empty()) {
        let [plain, several, single] =
            sessions.each_mut().map(|session| answer(session, statement));
        assert_eq!(plain, several, "over several shards: {statement}");
        assert_eq!(plain, single, "in one shard: {statement}");
    }
    for table in ["lg", "one", "gone"] {
        cluster.assert_placements_equal(&format!("several.{table}"));
    }
}

/// The rows in some order, or the error's code and message.
fn answer(session: &mut Session, statement: &str) -> Result<Vec<Vec<String>>, String> {
    let mut rows = session.try_sql(statement).map_err(|error: SqlError| error.line())?;
    rows.sort();
    Ok(rows)
}
