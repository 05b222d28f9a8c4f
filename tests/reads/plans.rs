//! EXPLAIN of typical reads, as `plans/*.txt` has it: the query, an empty line, the plan.
//!
//! Later versions of PostgreSQL choose and print other plans, so those of 15 are compared; with others EXPLAIN just has to work.
//!
//! A plan that changes on purpose is written anew by
//! `PGSHARD_UPDATE_PLANS=1 cargo test --release -p testkit --test reads typical`. The tables are smaller than ANALYZE's sample,
//! so that statistics, and with them plans, are the same in every run.

use std::fs;
use std::path::PathBuf;

use testkit::TestCluster;

const TABLES: &str = "
    CREATE TABLE customers (id int PRIMARY KEY, name text, region int NOT NULL);
    CREATE TABLE events (customer int NOT NULL, id int NOT NULL, product int NOT NULL, amount int, note text, PRIMARY KEY (customer, id));
    CREATE TABLE products (id int PRIMARY KEY, name text, category int NOT NULL);
    CREATE TABLE returns (id int PRIMARY KEY, product int NOT NULL, amount int);
";

const ROWS: &str = "
    INSERT INTO customers SELECT i, 'customer ' || i, i % 20 FROM generate_series(1, 4000) AS i;
    INSERT INTO events SELECT i % 4000 + 1, i, i * 79 % 500, i % 1000, 'note ' || i % 70 FROM generate_series(1, 24000) AS i;
    INSERT INTO products SELECT i, 'product ' || i, i % 10 FROM generate_series(0, 499) AS i;
    INSERT INTO returns SELECT i, i * 83 % 500, i % 90 FROM generate_series(1, 20000) AS i;
    ANALYZE;
";

fn cluster_with_tables() -> TestCluster {
    let cluster = TestCluster::up_with(2, &[("autovacuum", "off")]);
    cluster.sql(TABLES);
    for (table, key) in
        [("customers", "id"), ("events", "customer"), ("products", "id"), ("returns", "id")]
    {
        cluster.distribute(table, key, 4, 1);
    }
    cluster.sql(ROWS);
    cluster
}

/// The plan, with the nodes' names for their ports.
fn plan(cluster: &TestCluster, query: &str) -> String {
    let mut session = cluster.new_session();
    let mut text = session.text(&format!("EXPLAIN (COSTS OFF) {query}"));
    for worker in cluster.workers() {
        let address = format!("localhost:{}", cluster.port(worker));
        text = text.replace(&address, &worker.to_string());
    }
    text
}

#[test]
fn typical_reads_have_the_plans_that_are_written_down() {
    let cluster = cluster_with_tables();
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/reads/plans"));
    let writes = std::env::var_os("PGSHARD_UPDATE_PLANS").is_some();
    let entries = fs::read_dir(&dir).expect("the plans are in the repository");
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    files.sort();
    assert!(files.len() >= 10, "plans got lost");
    let is_later = !cluster.is_older_than(16);
    let mut changed = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a plan is text");
        let (query, expected) = text.split_once("\n\n").unwrap_or((text.trim_end(), ""));
        if is_later {
            cluster.sql(&format!("EXPLAIN (COSTS OFF, VERBOSE) {query}"));
        }
        let found = plan(&cluster, query);
        if is_later || expected.trim_end() == found {
            continue;
        }
        if writes {
            fs::write(&file, format!("{query}\n\n{found}\n")).expect("the plan can be written");
        } else {
            changed.push(format!("{}\n{found}\n--- was\n{expected}", file.display()));
        }
    }
    assert!(changed.is_empty(), "other plans:\n{}", changed.join("\n"));
}
