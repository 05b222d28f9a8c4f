//! Sub-queries that are computed for each row of another: as fast as joins, whatever becomes of them.

use std::fmt::Write;

use testkit::{Session, TestCluster};

/// `orders` is cut like `customers`, and `parts` by something else.
const TABLES: &str = "
    CREATE TABLE customers (id int PRIMARY KEY, name text, region int, half numeric);
    CREATE TABLE orders (customer int8 NOT NULL, id int NOT NULL, amount int, note text, PRIMARY KEY (customer, id));
    CREATE TABLE parts (id int PRIMARY KEY, customer int, name text, amount int, half float8);
";

const ROWS: &str = "
    INSERT INTO customers SELECT i, CASE WHEN i % 9 > 0 THEN 'customer ' || i % 3000 END, i % 20, i * 0.5 FROM generate_series(1, 12000) AS i;
    INSERT INTO orders SELECT i * 79 % 13000, i, i % 1000, repeat('note ' || i % 70, 5) FROM generate_series(1, 30000) AS i;
    INSERT INTO parts SELECT i, nullif(i * 83 % 13000, 7), 'CUSTOMER ' || i % 4000, i % 90, i * 0.25 FROM generate_series(1, 30000) AS i;
    ANALYZE;
";

/// Each filters millions of rows if the rows of the sub-query are not found by value.
const STATEMENTS: [&str; 9] = [
    "SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer = c.id) FROM customers c",
    "SELECT c.id, (SELECT max(p.amount) FROM parts p WHERE c.id = p.customer AND p.amount <> 3) FROM customers c",
    "SELECT c.id, EXISTS (SELECT FROM orders o WHERE o.customer = c.id AND o.amount < 500) FROM customers c",
    "SELECT c.id FROM customers c WHERE c.region = 3 OR NOT EXISTS (SELECT FROM parts p WHERE p.customer = c.id)",
    "SELECT c.id, (SELECT o.amount FROM orders o WHERE o.customer = c.id ORDER BY o.id DESC LIMIT 1) FROM customers c",
    "SELECT c.id, (SELECT sum(p.amount) FROM parts p WHERE lower(p.name) = c.name) FROM customers c WHERE c.id < 300",
    "SELECT c.id, (SELECT count(*) FROM parts p WHERE p.name = upper(c.name)) FROM customers c",
    "SELECT c.id, (SELECT p.id FROM parts p WHERE p.half = c.half) FROM customers c",
    "SELECT c.id, s.id FROM customers c LEFT JOIN LATERAL (SELECT p.id FROM parts p WHERE p.customer = c.id + 1 ORDER BY p.id LIMIT 2) s ON true",
];

/// The same tables on the coordinator, in the schema `plain`, and cut into shards.
fn cluster_with_tables() -> TestCluster {
    let cluster = TestCluster::up_with(2, &[("autovacuum", "off")]);
    cluster.sql("CREATE SCHEMA plain");
    cluster.sql(&format!(
        "SET search_path = plain; {TABLES} CREATE INDEX ON parts (customer); CREATE INDEX ON parts (name); \
         CREATE INDEX ON parts (half); CREATE INDEX ON parts (lower(name)); {ROWS}"
    ));
    cluster.sql(&format!("RESET search_path; {TABLES}"));
    for (table, key) in [("customers", "id"), ("orders", "customer"), ("parts", "id")] {
        cluster.distribute(table, key, 4, 1);
    }
    cluster.sql(ROWS);
    cluster
}

fn answer(session: &mut Session, statement: &str) -> Vec<String> {
    let text = session.text(statement);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn sub_queries_for_each_row_of_another_yield_its_rows_and_come_to_an_end() {
    let cluster = cluster_with_tables();
    let mut plain = cluster.new_session();
    plain.sql("SET search_path = plain");
    let mut wrong = String::new();
    // Rows that do not fit the memory that they may have are found in a file.
    for settings in [
        "",
        "SET work_mem = '64kB'",
        "SET pg_shard.enable_pushdown = off",
        "SET work_mem = '64kB'; SET pg_shard.enable_pushdown = off",
    ] {
        let mut sharded = cluster.new_session();
        sharded.sql(&format!("SET statement_timeout = '30s'; {settings}"));
        for statement in STATEMENTS {
            if answer(&mut plain, statement) != answer(&mut sharded, statement) {
                writeln!(wrong, "{settings}: {statement}").expect("a string takes all text");
            }
        }
    }
    assert!(wrong.is_empty(), "other rows:\n{wrong}");
}

#[test]
fn rows_found_by_value_are_those_of_the_values_at_hand() {
    let cluster = cluster_with_tables();
    let mut session = cluster.new_session();
    session.sql("SET pg_shard.enable_pushdown = off");
    // What is asked of the nodes changes with the outer row, and with it the rows that are kept.
    let statement = |schema: &str| {
        format!(
            "SELECT g, (SELECT sum(n) FROM (SELECT (SELECT count(*) FROM {schema}.orders o WHERE o.customer = c.id AND o.id % 3 = g % 3) AS n \
             FROM {schema}.customers c WHERE c.region = g) x) FROM generate_series(1, 6) AS g"
        )
    };
    let expected = answer(&mut session, &statement("plain"));
    assert_eq!(answer(&mut session, &statement("public")), expected);
    // A cursor's rows are found in a file that belongs to the cursor.
    session.sql("BEGIN; SET LOCAL work_mem = '64kB'");
    session.sql("DECLARE it CURSOR FOR SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer = c.id) FROM customers c ORDER BY 1");
    session.sql("SAVEPOINT a");
    let first = session.text("FETCH 100 FROM it");
    session.sql("RELEASE a");
    let rest = session.text("FETCH ALL FROM it");
    session.sql("COMMIT");
    let all = session.text("SELECT c.id, (SELECT count(*) FROM plain.orders o WHERE o.customer = c.id) FROM plain.customers c ORDER BY 1");
    assert_eq!(format!("{first}\n{rest}"), all);
}

#[test]
fn sub_queries_that_are_joined_need_the_rights_that_they_needed() {
    let cluster = cluster_with_tables();
    cluster.on_all_nodes("CREATE ROLE clerk LOGIN");
    cluster.sql("GRANT USAGE ON SCHEMA plain TO clerk; GRANT SELECT ON plain.customers TO clerk");
    let mut session = cluster.new_session();
    session.sql("SET ROLE clerk");
    for value in [
        "(SELECT count(*) FROM orders o WHERE o.customer = c.id)",
        "EXISTS (SELECT FROM orders o WHERE o.customer = c.id)",
        "(SELECT o.note FROM orders o WHERE o.customer = c.id ORDER BY o.id LIMIT 1)",
        "(SELECT p.name FROM parts p WHERE p.id = c.id)",
    ] {
        let error = session.try_sql(&format!("SELECT c.id, {value} FROM plain.customers c"));
        assert_eq!(error.err().map(|error| error.sqlstate).as_deref(), Some("42501"), "{value}");
    }
    let lateral = "SELECT c.id, s.n FROM plain.customers c CROSS JOIN LATERAL (SELECT count(*) AS n FROM orders o WHERE o.customer = c.id) s";
    let error = session.try_sql(lateral).err().map(|error| error.line());
    assert_eq!(error.as_deref(), Some("42501: permission denied for table orders"));
}
