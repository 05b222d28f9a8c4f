//! Sizes and counters of distributed tables, and maintenance commands that leave them out.

use std::time::Instant;

use testkit::{NodeName, TestCluster};

/// A table with an index and TOAST on two workers, four shards with one placement or two.
fn cluster_with_table(replicas: u32) -> TestCluster {
    let cluster = TestCluster::impatient(2);
    let table =
        "CREATE TABLE t (k int PRIMARY KEY, v text); ALTER TABLE t ALTER v SET STORAGE EXTERNAL";
    cluster.create_distributed(table, "t", "k", 4, replicas);
    cluster.sql("INSERT INTO t SELECT i, repeat('x', 5000) FROM generate_series(1, 500) AS i");
    cluster.sql("VACUUM ANALYZE t");
    cluster
}

/// The sum of PostgreSQL's function over all placements.
fn sum_on_nodes(cluster: &TestCluster, function: &str) -> i64 {
    let sum = format!(
        "SELECT sum({function}(oid)) FROM pg_class WHERE relname ~ '^t_[0-9]+$' AND relkind = 'r'"
    );
    let sums = cluster.workers().into_iter().map(|worker| cluster.session_on(worker).text(&sum));
    sums.map(|sum| sum.parse::<i64>().expect("a number")).sum()
}

#[test]
fn the_size_of_a_table_is_the_sum_over_its_shards_and_anyone_may_see_it() {
    // pg_total_relation_size and \dt+ show the coordinator's empty table: 24 kB whatever is in the shards.
    let cluster = cluster_with_table(2);
    cluster.on_all_nodes("CREATE ROLE watcher LOGIN");
    let all = sum_on_nodes(&cluster, "pg_total_relation_size");
    let heap = sum_on_nodes(&cluster, "pg_table_size");
    assert!(all > 2 * 500 * 5000, "{all}");
    let mut session = cluster.session_as("watcher");
    assert_eq!(session.text("SELECT pgs_catalog.table_size('t')"), (all / 2).to_string());
    assert_eq!(
        session.text("SELECT * FROM pgs_catalog.tables"),
        format!("public|t|k|4|8|500|{}|{}|{all}|distributed|10000", all / 2, (all - heap) / 2)
    );
    session.sql("CREATE TEMP TABLE here (x int)");
    assert_eq!(session.text("SELECT pgs_catalog.table_size('here') IS NULL"), "t");
    // In a transaction that has written, and while rows of the table are still being read.
    let mut writer = cluster.new_session();
    writer.sql("BEGIN; DELETE FROM t WHERE k = 1");
    let sizes = "SELECT count(*), min(pgs_catalog.table_size('t')) >= $1, max(k) FROM t";
    let sizes = sizes.replace("$1", &(all / 2).to_string());
    assert_eq!(writer.text(&sizes), "499|t|500");
    writer.sql("ROLLBACK");
    assert_eq!(session.warnings(), []);
}

#[test]
fn the_view_of_tables_shows_their_kinds_and_which_are_co_located() {
    let cluster = TestCluster::up(3);
    let mut session = cluster.new_session();
    session.sql(
        "CREATE TABLE a (k bigint PRIMARY KEY); CREATE TABLE b (k int, n int); CREATE TABLE other (k text); \
         CREATE TABLE r (k int PRIMARY KEY); CREATE TABLE p (k int, d int) PARTITION BY RANGE (d); \
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
    );
    session.sql("SELECT create_distributed_table('a', 'k', 4)");
    session.sql("SELECT create_distributed_table('b', 'k', colocate_with => 'a')");
    session.sql("SELECT create_distributed_table('other', 'k', 4, colocate_with => 'none')");
    session.sql("SELECT create_distributed_table('p', 'k', 4, colocate_with => 'none')");
    session.sql("SELECT create_reference_table('r')");
    session.sql("CREATE ROLE anyone; SET ROLE anyone");
    let rows = session.text(
        "SELECT string_agg(\"table\" || ' ' || kind, ', ' ORDER BY \"table\") FROM pgs_catalog.tables",
    );
    assert_eq!(
        rows,
        "a distributed, b distributed, other distributed, p partitioned, p1 partition, r reference"
    );
    let groups = session.text(
        "SELECT string_agg(tables, '; ' ORDER BY tables) \
           FROM (SELECT string_agg(\"table\", ' ' ORDER BY \"table\") FROM pgs_catalog.tables GROUP BY colocation_group) AS g(tables)",
    );
    assert_eq!(groups, "a b p p1; other; r");
}

#[test]
fn the_counters_of_a_table_are_those_of_its_shards() {
    let cluster = cluster_with_table(1);
    let counters = "SELECT schema, \"table\", n_tup_ins, n_live_tup FROM pgs_catalog.stat_tables";
    testkit::wait_until("the nodes have counted the rows", || {
        let live = sum_on_nodes(&cluster, "pg_stat_get_live_tuples");
        cluster.text(counters) == format!("public|t|500|{live}")
    });
}

#[test]
fn the_size_of_a_table_is_null_with_a_warning_while_a_node_is_away() {
    let cluster = cluster_with_table(1);
    let mut session = cluster.new_session();
    cluster.kill(NodeName::Worker(2)).expect("the worker was running");
    let before = Instant::now();
    assert_eq!(session.text("SELECT pgs_catalog.table_size('t') IS NULL"), "t");
    assert_eq!(session.text("SELECT shards, bytes IS NULL FROM pgs_catalog.tables"), "4|t");
    assert!(before.elapsed().as_secs() < 60, "asking must not hang");
    let warnings = session.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].message.starts_with("Connection failed to"), "{warnings:?}");
    cluster.start(NodeName::Worker(2)).expect("the worker starts again");
    assert_eq!(session.text("SELECT pgs_catalog.table_size('t') > 500 * 5000"), "t");
}

#[test]
fn a_placement_that_is_missing_on_its_node_makes_the_size_null_with_a_warning() {
    let cluster = cluster_with_table(1);
    let shard = cluster.tables_on(NodeName::Worker(1), "t_%").remove(0);
    cluster.session_on(NodeName::Worker(1)).sql(&format!("DROP TABLE {shard}"));
    let mut session = cluster.new_session();
    assert_eq!(session.text("SELECT pgs_catalog.table_size('t') IS NULL"), "t");
    let warnings = session.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].message, "placements of table \"t\" are missing on their nodes");
}

/// Tools and users without rights to the metadata ask views, which show what the user may read.
#[test]
fn shards_and_placements_of_tables_that_the_user_may_read_are_shown() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE ROLE reader LOGIN");
    for table in ["Open", "closed"] {
        cluster.sql(&format!("CREATE TABLE \"{table}\" (k int PRIMARY KEY)"));
        cluster.sql(&format!("SELECT create_distributed_table('\"{table}\"', 'k', 4, 2)"));
    }
    cluster.sql("GRANT SELECT (k) ON \"Open\" TO reader");
    let shards = "SELECT \"table\", count(*), sum(placements), bool_and(first_hash < last_hash), \
                  bool_and(name = format('%I.%I', schema, \"table\" || '_' || shard_id)) FROM pgs_catalog.shards GROUP BY 1 ORDER BY 1";
    let placements = "SELECT \"table\", count(*), count(DISTINCT (node_name, node_port)), bool_and(is_healthy) \
                      FROM pgs_catalog.placements GROUP BY 1 ORDER BY 1";
    assert_eq!(cluster.text(shards), "Open|4|8|t|t\nclosed|4|8|t|t");
    assert_eq!(cluster.text(placements), "Open|8|2|t\nclosed|8|2|t");
    let mut reader = cluster.session_as("reader");
    assert_eq!(reader.text(shards), "Open|4|8|t|t");
    assert_eq!(reader.text(placements), "Open|8|2|t");
    assert_eq!(reader.error("SELECT * FROM pgs_distribution_metadata.shard").sqlstate, "42501");
}
