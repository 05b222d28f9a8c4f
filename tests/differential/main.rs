//! The same SELECT on distributed tables and on local ones of the same content: the same rows.
//!
//! The tables are in `tables.sql`, the statements in `rows.sql` (compared as sets) and `order.sql` (compared in
//! order). Each statement runs as it stands, as a prepared statement with a generic plan, through a cursor, and
//! under settings that change how values look as text.

use std::fmt::Write;

use testkit::{Rows, Session, SqlError, TestCluster};

const TABLES: &str = include_str!("tables.sql");
const ROWS: &str = include_str!("rows.sql");
const ORDER: &str = include_str!("order.sql");

/// Views over the tables of the schema that stands first in the search path, and a function that reads them.
const VIEWS: &str = "
    CREATE VIEW regional AS SELECT region, count(*) AS many, max(score) AS best FROM customers GROUP BY region;
    CREATE VIEW of_customer AS SELECT c.id, c.name, o.total FROM customers c JOIN orders o ON o.customer_id = c.id;
";

/// What nodes must have before tables can be created on them.
const TYPES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE TYPE address AS (street text, number int);
    CREATE SCHEMA sharded;
    CREATE FUNCTION double_it(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
";

/// What only the coordinator has.
const LOCAL: &str = "
    CREATE SCHEMA plain;
    CREATE SCHEMA shared;
    CREATE TABLE shared.countries (region text, currency text);
    INSERT INTO shared.countries VALUES ('north', 'NOK'), ('south', 'ITL'), ('nowhere', 'XXX'), (NULL, 'YYY');
    CREATE TABLE shared.numbers AS SELECT n FROM generate_series(0, 170, 5) AS n;
    SET check_function_bodies = off;
    CREATE FUNCTION name_of(int) RETURNS text LANGUAGE plpgsql STABLE AS
        $$ DECLARE found_name text; BEGIN SELECT name INTO found_name FROM customers WHERE id = $1; RETURN found_name; END $$;
    CREATE FUNCTION placed_before(date) RETURNS bool LANGUAGE sql STABLE AS
        'SELECT exists(SELECT FROM orders WHERE placed::date > $1)';
";

const OTHER_SETTINGS: &str = "
    SET datestyle = 'German, DMY'; SET intervalstyle = 'iso_8601'; SET timezone = 'Asia/Kolkata';
    SET bytea_output = 'escape'; SET extra_float_digits = -2; SET xmloption = 'document';
";

/// How a statement is run.
#[derive(Clone, Copy, Debug)]
enum Way {
    AsItStands,
    Prepared,
    Cursor,
    OtherSettings,
}

impl Way {
    const ALL: [Way; 4] = [Way::AsItStands, Way::Prepared, Way::Cursor, Way::OtherSettings];

    /// What a session needs first.
    fn settings(self) -> &'static str {
        match self {
            Way::AsItStands | Way::Cursor => "",
            Way::Prepared => "SET plan_cache_mode = force_generic_plan",
            Way::OtherSettings => OTHER_SETTINGS,
        }
    }

    fn run(self, session: &mut Session, statement: &str) -> Result<Rows, SqlError> {
        match self {
            Way::AsItStands | Way::OtherSettings => session.try_sql(statement),
            Way::Prepared => {
                session.try_sql(&format!("PREPARE it AS {statement}"))?;
                let rows =
                    session.try_sql("EXECUTE it").and_then(|_| session.try_sql("EXECUTE it"));
                session.sql("DEALLOCATE it");
                rows
            }
            Way::Cursor => {
                session.sql("BEGIN");
                let rows = cursor(session, statement);
                session.sql("ROLLBACK");
                rows
            }
        }
    }
}

/// The rows of `statement`, fetched in small lots.
fn cursor(session: &mut Session, statement: &str) -> Result<Rows, SqlError> {
    session.try_sql(&format!("DECLARE it NO SCROLL CURSOR FOR {statement}"))?;
    let mut rows = session.try_sql("FETCH 3 FROM it")?;
    rows.extend(session.try_sql("FETCH 7 FROM it")?);
    rows.extend(session.try_sql("FETCH ALL FROM it")?);
    Ok(rows)
}

/// The statements of a file, without its remarks.
fn statements(file: &str) -> Vec<String> {
    let lines: Vec<&str> = file.lines().filter(|line| !line.starts_with("--")).collect();
    let text = lines.join("\n");
    text.split(";\n").map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

/// A cluster with the tables of `tables.sql` in both schemas.
fn cluster_with_tables() -> TestCluster {
    let cluster = TestCluster::up(3);
    cluster.on_all_nodes(TYPES);
    cluster.sql(LOCAL);
    cluster.sql(&format!("SET search_path = plain, shared, public; {TABLES}{VIEWS}"));
    let (definitions, _) = TABLES.split_once("INSERT INTO").expect("tables come before their rows");
    cluster.sql(&format!("SET search_path = sharded, shared, public; {definitions}{VIEWS}"));
    for (table, key, shards, replicas) in [
        ("customers", "id", 6, 2),
        ("orders", "customer_id", 6, 2),
        ("products", "sku", 4, 1),
        ("empty_shelf", "k", 5, 1),
    ] {
        cluster.distribute(&format!("sharded.{table}"), key, shards, replicas);
        cluster.sql(&format!("INSERT INTO sharded.{table} SELECT * FROM plain.{table}"));
    }
    cluster
}

/// What one statement yields on both sides, if that differs.
fn mismatch(
    way: Way,
    statement: &str,
    ordered: bool,
    plain: &mut Session,
    sharded: &mut Session,
) -> Option<String> {
    let (mut expected, mut rows) = match (way.run(plain, statement), way.run(sharded, statement)) {
        (Ok(expected), Ok(rows)) => (expected, rows),
        (Err(error), _) => {
            return Some(format!("{way:?}: {statement}\n    is no valid test: {error}\n"));
        }
        (Ok(_), Err(error)) => {
            return Some(format!("{way:?}: {statement}\n    fails with {error}\n"));
        }
    };
    if !ordered {
        expected.sort();
        rows.sort();
    }
    if rows == expected {
        return None;
    }
    let first = (0..).find(|row| rows.get(*row) != expected.get(*row)).unwrap_or_default();
    Some(format!(
        "{way:?}: {statement}\n    {} rows for {}; row {first} is {:?}, should be {:?}\n",
        rows.len(),
        expected.len(),
        rows.get(first),
        expected.get(first)
    ))
}

#[test]
fn every_select_yields_the_rows_that_it_yields_on_local_tables() {
    let cluster = cluster_with_tables();
    let unordered = statements(ROWS);
    let ordered = statements(ORDER);
    assert!(unordered.len() + ordered.len() >= 150, "statements got lost");
    let mut mismatches = String::new();
    for way in Way::ALL {
        let mut plain = cluster.new_session();
        let mut sharded = cluster.new_session();
        plain.sql(&format!("SET search_path = plain, shared, public; {}", way.settings()));
        sharded.sql(&format!("SET search_path = sharded, shared, public; {}", way.settings()));
        for (statements, ordered) in [(&unordered, false), (&ordered, true)] {
            for statement in statements {
                if let Some(text) = mismatch(way, statement, ordered, &mut plain, &mut sharded) {
                    mismatches.write_str(&text).expect("a string takes all text");
                }
            }
        }
    }
    assert!(mismatches.is_empty(), "different results:\n{mismatches}");
    assert_eq!(cluster.unhealthy("sharded.customers"), 0);
}
