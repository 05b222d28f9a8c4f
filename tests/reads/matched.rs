//! Joins of a small side with what the workers find for its rows.

use std::fmt::Write;

use testkit::TestCluster;

use crate::{same_rows_on, statements};

const STATEMENTS: &str = include_str!("matched.sql");

const TABLES: &str = "
    CREATE TABLE big (k int, id int, ref int, num numeric(8,2), txt text, d date, flag bool, PRIMARY KEY (k, id));
    CREATE INDEX ON big (ref);
    CREATE TABLE other (k int PRIMARY KEY, n int);
    CREATE TABLE part (id int PRIMARY KEY, ref int, txt text, d date);
    CREATE TABLE few (id int, ref int, wide int8, num numeric(8,2), txt text, d date);
    CREATE TABLE nobody (id int, ref int);
";

const ROWS: &str = "
    INSERT INTO big SELECT i % 300, i, CASE WHEN i % 17 = 0 THEN NULL ELSE i * 7 % 2000 END, i % 9000 / 100.0,
           CASE WHEN i % 11 = 0 THEN NULL ELSE 'b' || i % 900 END, date '2020-01-01' + i % 90, CASE i % 3 WHEN 0 THEN true WHEN 1 THEN false END
      FROM generate_series(1, 36000) AS i;
    INSERT INTO other SELECT i, i % 5 FROM generate_series(1, 250) AS i;
    INSERT INTO part SELECT i, CASE WHEN i % 9 = 0 THEN NULL ELSE i * 13 END, 'b' || i * 5, date '2020-02-01' + i % 30 FROM generate_series(1, 200) AS i;
    INSERT INTO few SELECT i, CASE WHEN i % 5 = 0 THEN NULL ELSE i / 2 * 53 END, i * 31, (i * 37 % 90) + 0.5, CASE WHEN i % 7 = 0 THEN NULL ELSE 'b' || i * 29 % 1100 END,
           date '2020-03-01' - i FROM generate_series(1, 60) AS i;
    INSERT INTO few SELECT * FROM few WHERE id % 4 = 0;
";

/// A cluster with the tables in the schemas `plain` and `sharded`. `many` rows are in `few` beside the usual ones.
fn cluster_with_tables(many: u32) -> TestCluster {
    let cluster = TestCluster::up(4);
    cluster.sql("CREATE SCHEMA plain; CREATE SCHEMA sharded");
    cluster.sql(&format!("SET search_path = plain, public; {TABLES}"));
    cluster.sql(&format!("SET search_path = sharded, public; {TABLES}"));
    for (table, key, shards) in [("big", "k", 8), ("other", "k", 8), ("part", "id", 4)] {
        cluster.distribute(&format!("sharded.{table}"), key, shards, 1);
    }
    for schema in ["plain", "sharded"] {
        cluster.sql(&format!(
            "SET search_path = {schema}, public; {ROWS}
             INSERT INTO few SELECT i, i * 3, i, 3, 'b' || i, date '2020-01-05' FROM generate_series(1000, 999 + {many}) AS i"
        ));
    }
    cluster.sql("ANALYZE");
    cluster
}

#[test]
fn a_small_side_joined_with_what_the_workers_find_yields_the_rows_of_local_tables() {
    let cluster = cluster_with_tables(0);
    same_rows_on(&cluster, STATEMENTS);
    let mut session = cluster.new_session();
    session.sql("SET search_path = sharded");
    let mut others = String::new();
    for statement in statements(STATEMENTS).iter().filter(|it| it.parameters.is_empty()) {
        let plan = session.text(&format!("EXPLAIN (COSTS OFF) {}", statement.sql));
        if !plan.contains(", by position") {
            writeln!(others, "{}", statement.sql).expect("a string takes all text");
        }
    }
    // Where hardly anything is found in the large table, its rows come here; so they do for clauses over rows as a whole, and
    // where the small side changes with each row of a query around: the nodes are not asked again for each.
    assert!(others.lines().count() <= 15, "planned otherwise:\n{others}");
}

#[test]
fn rows_that_are_too_many_to_be_looked_up_one_by_one_are_joined_as_well() {
    same_rows_on(&cluster_with_tables(400), STATEMENTS);
}
