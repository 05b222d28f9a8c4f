//! ANALYZE and VACUUM reach the shards, and what ANALYZE finds there is what the coordinator plans with.

use testkit::{NodeName, TestCluster, wait_until};

/// A table of 3,000 rows in four shards, two placements each.
fn cluster_with_a_table() -> TestCluster {
    let cluster = TestCluster::up_with(3, &[("autovacuum", "off")]);
    cluster.create_distributed(
        "CREATE TABLE t (k int PRIMARY KEY, word text, fifth int)",
        "t",
        "k",
        4,
        2,
    );
    cluster.sql(
        "INSERT INTO t SELECT i, 'word ' || i % 7, CASE WHEN i % 5 = 0 THEN i END FROM generate_series(1, 3000) AS i",
    );
    cluster
}

/// What the coordinator believes: rows, and of each column the share of NULLs and the number of different values.
fn known(cluster: &TestCluster) -> String {
    cluster.text(
        "SELECT reltuples, (SELECT string_agg(format('%s %s %s', attname, round(null_frac::numeric, 1), round(n_distinct::numeric, 2)), ', ' \
         ORDER BY attname) FROM pg_stats WHERE tablename = 't') FROM pg_class WHERE oid = 't'::regclass",
    )
}

/// The row count in the first line of a plan.
fn planned_rows(cluster: &TestCluster, query: &str) -> f64 {
    let plan = cluster.new_session().text(&format!("EXPLAIN {query}"));
    let (_, rest) = plan.split_once("rows=").expect("a plan tells rows");
    rest.split(' ').next().and_then(|number| number.parse().ok()).expect("rows are a number")
}

#[test]
fn analyze_brings_the_shards_row_count_and_column_statistics_to_every_session() {
    let cluster = cluster_with_a_table();
    let before = planned_rows(&cluster, "SELECT * FROM t");
    assert_eq!(before, 4000.0, "a guess of 1,000 rows a shard");
    cluster.sql("ANALYZE t");
    assert_eq!(known(&cluster), "3000|fifth 0.8 -0.20, k 0.0 -1.00, word 0.0 7.00");
    assert_eq!(planned_rows(&cluster, "SELECT * FROM t"), 3000.0);
    let of_a_word = planned_rows(&cluster, "SELECT * FROM t WHERE word = 'word 3'");
    assert!((400.0..460.0).contains(&of_a_word), "{of_a_word} rows");

    cluster.sql("INSERT INTO t SELECT i FROM generate_series(3001, 4000) AS i; ANALYZE");
    assert!(known(&cluster).starts_with("4000|"), "ANALYZE of the whole database counts too");
    let on_workers: f64 = cluster
        .workers()
        .into_iter()
        .map(|worker| {
            let sum =
                "SELECT sum(reltuples) FROM pg_class WHERE relname LIKE 't\\_1%' AND relkind = 'r'";
            cluster.session_on(worker).text(sum).parse::<f64>().expect("a sum")
        })
        .sum();
    assert_eq!(on_workers, 8000.0, "both placements of each shard have been analyzed");
}

#[test]
fn analyze_of_some_columns_leaves_the_others_as_they_were() {
    let cluster = cluster_with_a_table();
    cluster.sql("ANALYZE t (word)");
    assert_eq!(known(&cluster), "3000|word 0.0 7.00");
    assert_eq!(cluster.error("ANALYZE t (nothing)").sqlstate, "42703");
}

#[test]
fn analyze_in_a_transaction_counts_what_it_has_written_and_vacuum_is_refused_there() {
    let cluster = cluster_with_a_table();
    let mut session = cluster.new_session();
    session.sql("BEGIN; DELETE FROM t WHERE k > 1000; ANALYZE t");
    let rows = session.text("SELECT reltuples FROM pg_class WHERE oid = 't'::regclass");
    assert_eq!(rows, "1000");
    assert_eq!(session.error("VACUUM t").sqlstate, "25001");
    session.sql("ROLLBACK");
    assert_eq!(session.text("SELECT count(*) FROM t"), "3000");
}

#[test]
fn vacuum_full_shrinks_the_shards_and_vacuum_analyze_counts_them() {
    let cluster = cluster_with_a_table();
    cluster.sql("DELETE FROM t");
    let size = |cluster: &TestCluster| {
        let sum = "SELECT coalesce(sum(pg_relation_size(oid)), 0) FROM pg_class WHERE relname LIKE 't\\_1%' AND relkind = 'r'";
        let of = |worker| cluster.session_on(worker).text(sum).parse::<u64>().expect("a sum");
        cluster.workers().into_iter().map(of).sum::<u64>()
    };
    assert!(size(&cluster) > 0);
    // Settings that are new to the workers do not get in the way.
    let mut session = cluster.new_session();
    session.sql("SET timezone = 'Asia/Tokyo'");
    // Rows that were deleted just now are kept for reads of a time before that.
    wait_until("the rows may go", || {
        session.sql("VACUUM (FULL, ANALYZE) t");
        size(&cluster) == 0
    });
    cluster.sql("INSERT INTO t SELECT i, 'w' FROM generate_series(1, 50) AS i");
    cluster.sql("VACUUM ANALYZE t");
    assert!(known(&cluster).starts_with("50|"));
}

#[test]
fn who_may_not_analyze_a_table_is_warned_and_changes_nothing() {
    let cluster = cluster_with_a_table();
    cluster.on_all_nodes("CREATE ROLE visitor LOGIN");
    let mut session = cluster.session_as("visitor");
    session.sql("ANALYZE t");
    let warnings = session.warnings();
    // Since PostgreSQL 16 the message begins with the reason.
    let is_skipped = |message: &str| message.contains("\"t\"") && message.contains("skipping");
    assert!(warnings.iter().any(|warning| is_skipped(&warning.message)), "{warnings:?}");
    assert_eq!(known(&cluster), "-1|NULL");
}

#[test]
fn without_one_worker_analyze_counts_the_other_placements() {
    let cluster = cluster_with_a_table();
    cluster.stop(NodeName::Worker(2)).expect("the worker stops");
    let mut session = cluster.new_session();
    session.sql("ANALYZE t");
    assert!(!session.warnings().is_empty(), "the node that is away is told");
    assert_eq!(known(&cluster), "3000|fifth 0.8 -0.20, k 0.0 -1.00, word 0.0 7.00");
    assert_eq!(cluster.unhealthy("t"), 0, "statistics mark no placement");
}
