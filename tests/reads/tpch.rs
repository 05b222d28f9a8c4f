//! The 22 queries of TPC-H have the answers that one PostgreSQL gives.

use testkit::TestCluster;
use tpch::{TABLES, VIEW, query_text};

use crate::answer::{Answer, difference, is_same};

/// Ten megabytes.
const SCALE: f64 = 0.01;

/// A cluster with the tables in two schemas.
fn cluster_with_tables() -> TestCluster {
    let cluster = TestCluster::up(4);
    cluster.sql("CREATE SCHEMA plain");
    cluster.on_all_nodes("CREATE SCHEMA sharded");
    for table in TABLES {
        for schema in ["plain", "sharded"] {
            let name = format!("{schema}.{}", table.name);
            cluster.sql(&format!("CREATE TABLE {name} ({})", table.definition));
            for columns in table.indexes {
                cluster.sql(&format!("CREATE INDEX ON {name} ({columns})"));
            }
            if let (Some(key), "sharded") = (table.key, schema) {
                cluster.distribute(&name, key, 8, 1);
            }
        }
        let mut session = cluster.new_session();
        let mut rows = String::new();
        for row in table.rows(SCALE) {
            rows.push_str(&row);
            rows.push('\n');
        }
        let copy = format!("COPY plain.{} FROM STDIN", table.name);
        let mut writer = session.client().copy_in(&copy).expect("the table is there");
        std::io::Write::write_all(&mut writer, rows.as_bytes()).expect("the server takes rows");
        writer.finish().expect("the rows are good");
        cluster.sql(&format!("INSERT INTO sharded.{0} SELECT * FROM plain.{0}", table.name));
    }
    for schema in ["plain", "sharded"] {
        cluster.sql(&format!("SET search_path = {schema}; {VIEW}; RESET search_path"));
    }
    cluster.sql("ANALYZE");
    cluster
}

#[test]
fn the_22_queries_of_tpc_h_have_the_answers_of_one_postgresql() {
    let cluster = cluster_with_tables();
    let mut wrong = Vec::new();
    for number in 1..=22 {
        let query = query_text(number, SCALE);
        let [expected, found] = ["plain", "sharded"].map(|schema| {
            let mut session = cluster.new_session();
            session.sql(&format!("SET search_path = {schema}; SET statement_timeout = '60s'"));
            match session.try_sql(&query) {
                Ok(rows) => Answer::Rows(rows),
                Err(error) => Answer::Error(error),
            }
        });
        if matches!(expected, Answer::Error(_)) || !is_same(&expected, &found, false) {
            wrong.push(format!("query {number}: {}", difference(&expected, &found, false)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
