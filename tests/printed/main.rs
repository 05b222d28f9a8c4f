//! What is sent is what was meant: shapes of statements that PostgreSQL's ruleutils is known to print otherwise than
//! they were analysed, or not at all.
//!
//! Each statement of `writes.sql` and `reads.sql` runs on local tables and on distributed ones of the same content, with
//! one and with two placements a shard, as it stands and as a prepared statement with a generic plan: the same rows come,
//! and the tables hold the same afterwards.

use testkit::{Rows, Session, SqlError, TestCluster};

const TABLES: &str = include_str!("tables.sql");
const ROWS: &str = include_str!("rows.sql");
const OBJECTS: &str = include_str!("objects.sql");
const WRITES: &str = include_str!("writes.sql");
const READS: &str = include_str!("reads.sql");

/// Schemas of the distributed tables, and how many placements each shard has there.
const SHARDED: [(&str, u32); 2] = [("one", 1), ("two", 2)];

/// What nodes must have before tables can be created on them.
const TYPES: &str = "
    CREATE TYPE pair AS (i int, j text);
    CREATE TYPE deep AS (p pair, n int[], o pair);
    CREATE DOMAIN ints AS int[] CHECK (value[1] > 0);
    CREATE SCHEMA one; CREATE SCHEMA two;
    CREATE EXTENSION btree_gist; CREATE EXTENSION citext;
";

/// What each session needs.
const SESSION: &str = "SET plan_cache_mode = force_generic_plan;
    CREATE FUNCTION pg_temp.twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
    CREATE FUNCTION pg_temp.next(int) RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN $1 + 1; END'";

/// The tables that writes may change, each with its distribution column and number of shards.
const CHANGED: [(&str, &str, u32); 5] =
    [("t", "k", 4), ("u", "k", 4), ("e", "k", 4), ("o", "k", 1), ("c", "k", 4)];

/// A cluster with the same tables in three schemas.
fn cluster_with_tables() -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes(TYPES);
    cluster.sql("CREATE SCHEMA plain");
    cluster.sql(&format!("SET search_path = plain, public; {TABLES}{ROWS}{OBJECTS}"));
    for (schema, placements) in SHARDED {
        cluster.sql(&format!("SET search_path = {schema}, public; {TABLES}"));
        for (table, key, shards) in CHANGED {
            cluster.distribute(&format!("{schema}.{table}"), key, shards, placements);
        }
        cluster.sql(&format!("SET search_path = {schema}, public; {ROWS}{OBJECTS}"));
    }
    cluster
}

/// The statements of a file, without its remarks.
fn statements(file: &str) -> Vec<String> {
    let lines: Vec<&str> = file.lines().filter(|line| !line.starts_with("--")).collect();
    let text = lines.join("\n");
    text.split(";\n").map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

/// What a statement yields and leaves in the tables; nothing of it stays.
fn outcome(session: &mut Session, statement: &str, prepared: bool) -> Result<Vec<Rows>, SqlError> {
    session.sql("BEGIN");
    let result = (|| {
        let mut answers = Vec::new();
        if prepared {
            session.try_sql(&format!("PREPARE it AS {statement}"))?;
            session.sql("SAVEPOINT before");
            answers.push(sorted(session.try_sql("EXECUTE it")?));
            session.sql("ROLLBACK TO before");
            answers.push(sorted(session.try_sql("EXECUTE it")?));
        } else {
            answers.push(sorted(session.try_sql(statement)?));
        }
        for (table, ..) in CHANGED {
            answers
                .push(session.try_sql(&format!("SELECT * FROM {table} ORDER BY {table}::text"))?);
        }
        Ok(answers)
    })();
    session.sql("ROLLBACK");
    session.sql("DEALLOCATE ALL");
    result
}

fn sorted(mut rows: Rows) -> Rows {
    rows.sort();
    rows
}

/// Compares each statement of a file with the same on local tables.
fn assert_same(file: &str) {
    let cluster = cluster_with_tables();
    let mut plain = cluster.new_session();
    plain.sql(&format!("SET search_path = plain, public; {SESSION}"));
    let mut failures = Vec::new();
    for (schema, _) in SHARDED {
        let mut sharded = cluster.new_session();
        sharded.sql(&format!("SET search_path = {schema}, public; {SESSION}"));
        for statement in statements(file) {
            for prepared in [false, true] {
                let expected = outcome(&mut plain, &statement, prepared);
                let rows = outcome(&mut sharded, &statement, prepared);
                match (expected, rows) {
                    (Ok(expected), Ok(rows)) if expected == rows => {}
                    // A domain's constraint, or a value that is too long; anything else is no valid test.
                    (Err(expected), Err(error))
                        if expected.sqlstate == error.sqlstate
                            && ["23514", "22001"].contains(&error.sqlstate.as_str()) => {}
                    (Err(expected), Err(error))
                        if expected.message == error.message && is_of_the_build(&error) => {}
                    (expected, rows) => failures.push(format!(
                        "{schema}, prepared: {prepared}: {statement}\n  expected {}\n  was      {}\n",
                        said(expected),
                        said(rows)
                    )),
                }
            }
        }
        for (table, ..) in CHANGED {
            cluster.assert_placements_equal(&format!("{schema}.{table}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.concat());
}

/// The server was built without libxml or without ICU.
fn is_of_the_build(error: &SqlError) -> bool {
    error.message == "unsupported XML feature"
        || error.message.starts_with("collation \"und-x-icu\" for encoding")
}

fn said(answer: Result<Vec<Rows>, SqlError>) -> String {
    match answer {
        Ok(rows) => format!("{rows:?}"),
        Err(error) => format!("{error}").replace('\n', " "),
    }
}

#[test]
fn writes_of_every_shape_do_what_they_do_on_a_local_table() {
    // Columns assigned together were swapped, and of two assignments to parts of one column one was lost.
    assert_same(WRITES);
}

#[test]
fn reads_of_every_shape_yield_what_a_local_table_yields() {
    assert_same(READS);
}

/// What the statement around the planner's expressions reads is our own text, with no tree that it could be compared with:
/// columns that a sub-query has been given names for. There must not be more of it without somebody noticing.
#[test]
fn columns_of_scans_that_are_compared_with_nothing_are_few() {
    const MOST: usize = 130;
    let cluster = cluster_with_tables();
    let mut session = cluster.new_session();
    session.sql(&format!(
        "SET search_path = one, public; {SESSION}; SET client_min_messages = debug1"
    ));
    let (mut all, mut compared) = (0, 0);
    for statement in statements(READS) {
        session.notices();
        match outcome(&mut session, &statement, false) {
            Err(error) if is_of_the_build(&error) => continue,
            outcome => drop(outcome.expect("the other tests have read it")),
        }
        for notice in session.notices() {
            let message = notice.content.message;
            let Some(counts) = message.strip_prefix("compared ") else { continue };
            let mut counts = counts.split(' ').filter_map(|word| word.parse::<usize>().ok());
            compared += counts.next().expect("what was compared");
            all += counts.next().expect("of how many");
        }
    }
    assert!(all > 100, "{all} columns");
    assert!(
        all - compared <= MOST,
        "{} of {all} columns are compared with nothing",
        all - compared
    );
}
