//! Statistics are brought to the coordinator without anybody's ANALYZE, and whoever does that is in nobody's way.

use std::fs;
use testkit::{NodeName, TestCluster, wait_until};

/// Looks every second; the workers analyze nothing by themselves.
fn restless_cluster(workers: u16) -> TestCluster {
    let cluster = TestCluster::up_with(workers, &[("pg_shard.autoanalyze_naptime", "1s")]);
    for worker in cluster.workers() {
        cluster.session_on(worker).sql("ALTER SYSTEM SET autovacuum = off");
        cluster.session_on(worker).sql("SELECT pg_reload_conf()");
    }
    cluster
}

/// What the coordinator believes: rows, and of how many columns it has statistics.
fn known(cluster: &TestCluster, table: &str) -> String {
    cluster.text(&format!(
        "SELECT reltuples, (SELECT count(*) FROM pg_stats WHERE tablename = '{table}') FROM pg_class \
         WHERE oid = '{table}'::regclass"
    ))
}

#[track_caller]
fn wait_for(cluster: &TestCluster, table: &str, expected: &str) {
    let what = format!("rows and columns known of {table} are {expected}");
    wait_until(&what, || known(cluster, table) == expected);
}

fn table(cluster: &TestCluster, name: &str, options: &str, placements: u32) {
    let ddl = format!("CREATE TABLE {name} (k int PRIMARY KEY, word text) {options}");
    cluster.create_distributed(&ddl, name, "k", 4, placements);
}

fn fill(cluster: &TestCluster, table: &str, rows: u32) {
    cluster.sql(&format!(
        "INSERT INTO {table} SELECT i, 'word ' || i % 7 FROM generate_series(1, {rows}) AS i"
    ));
}

#[test]
fn rows_that_were_loaded_or_changed_are_known_after_a_while_unless_the_table_says_no() {
    let cluster = restless_cluster(2);
    table(&cluster, "t", "", 2);
    table(&cluster, "quiet", "WITH (autovacuum_enabled = off)", 1);
    table(&cluster, "lazy", "WITH (autovacuum_analyze_threshold = 100000)", 1);
    table(&cluster, "few", "", 1);
    fill(&cluster, "quiet", 3000);
    fill(&cluster, "lazy", 3000);
    fill(&cluster, "few", 20);
    fill(&cluster, "t", 3000);
    wait_for(&cluster, "t", "3000|2");
    let plan = cluster.new_session().text("EXPLAIN SELECT * FROM t");
    assert!(plan.contains("rows=3000 "), "{plan}");

    cluster.sql("DELETE FROM t WHERE k > 1000");
    wait_for(&cluster, "t", "1000|2");

    // As many rows as before, but other ones; and half of them are new in each shard.
    let common = || {
        cluster.text(
            "SELECT most_common_vals FROM pg_stats WHERE tablename = 't' AND attname = 'word'",
        )
    };
    assert!(common().contains("word 3"));
    cluster.sql("UPDATE t SET word = 'same'");
    wait_until("the new words are known", || common() == "{same}");

    cluster.sql("TRUNCATE t");
    fill(&cluster, "t", 500);
    wait_for(&cluster, "t", "500|2");

    for table in ["quiet", "lazy", "few"] {
        assert_eq!(known(&cluster, table), "-1|0", "{table}");
    }
    cluster.sql("ANALYZE few");
    assert_eq!(known(&cluster, "few"), "20|2");
}

#[test]
fn tables_of_roles_that_can_and_cannot_log_in_are_looked_after() {
    let cluster = restless_cluster(2);
    cluster.on_all_nodes("CREATE ROLE alice LOGIN; CREATE ROLE crew");
    for (name, owner) in [("hers", "alice"), ("theirs", "crew")] {
        cluster.sql(&format!("CREATE TABLE {name} (k int PRIMARY KEY, word text)"));
        cluster.sql(&format!("ALTER TABLE {name} OWNER TO {owner}"));
        cluster.distribute(name, "k", 4, 1);
        fill(&cluster, name, 2000);
    }
    wait_for(&cluster, "hers", "2000|2");
    wait_for(&cluster, "theirs", "2000|2");
}

#[test]
fn what_the_workers_have_analyzed_by_themselves_is_only_brought() {
    let cluster = restless_cluster(2);
    table(&cluster, "t", "", 1);
    let mut before = Vec::new();
    let analyzed = |node: NodeName| {
        cluster.session_on(node).text(
            "SELECT coalesce(sum(analyze_count), 0) FROM pg_stat_user_tables WHERE relname LIKE 't\\_1%'",
        )
    };
    // Nobody looks until the workers have analyzed their shards.
    cluster.sql("ALTER SYSTEM SET pg_shard.autoanalyze_naptime = 0");
    cluster.sql("SELECT pg_reload_conf()");
    fill(&cluster, "t", 2000);
    for worker in cluster.workers() {
        cluster.session_on(worker).sql("ANALYZE");
        wait_until("the worker has counted its ANALYZE", || analyzed(worker) != "0");
        before.push(analyzed(worker));
    }
    assert_eq!(known(&cluster, "t"), "-1|0");
    cluster.sql("ALTER SYSTEM RESET pg_shard.autoanalyze_naptime");
    cluster.sql("SELECT pg_reload_conf()");
    wait_for(&cluster, "t", "2000|2");
    let after: Vec<String> = cluster.workers().into_iter().map(analyzed).collect();
    assert_eq!(before, after);
}

#[test]
fn a_dead_worker_is_told_once_and_its_tables_are_looked_after_when_it_is_back() {
    let cluster = restless_cluster(2);
    table(&cluster, "t", "", 1);
    table(&cluster, "here", "", 1);
    cluster.sql("ALTER SYSTEM SET autovacuum = off");
    cluster.sql("SELECT pg_reload_conf()");
    fill(&cluster, "t", 2000);
    // Everything of this table is on the worker that stays.
    cluster.sql("UPDATE pgs_distribution_metadata.shard_placement AS p SET node_port = (SELECT min(node_port) FROM pgs_distribution_metadata.shard_placement) \
                 FROM pgs_distribution_metadata.shard AS s WHERE s.id = p.shard_id AND s.relation_id = 'here'::regclass");
    let mut worker = cluster.session_on(NodeName::Worker(1));
    for placement in cluster.placements("here") {
        let name = cluster.shard_name("here", placement.shard);
        worker.sql(&format!("CREATE TABLE IF NOT EXISTS {name} (k int PRIMARY KEY, word text)"));
    }
    fill(&cluster, "here", 2000);
    cluster.kill(NodeName::Worker(2)).expect("the worker dies");
    cluster.sql("ALTER SYSTEM RESET autovacuum");
    cluster.sql("SELECT pg_reload_conf()");
    wait_for(&cluster, "here", "2000|2");

    let told = || {
        let log =
            fs::read_to_string(cluster.log_path(NodeName::Coordinator)).expect("there is a log");
        log.matches("could not keep the statistics of table \"t\" fresh").count()
    };
    wait_until("it is told", || told() == 1);
    let visits = || {
        cluster.text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_shard statistics keeper'")
    };
    for _ in 0..3 {
        wait_until("a visit begins", || visits() == "1");
        wait_until("it ends", || visits() == "0");
    }
    assert_eq!(told(), 1);
    assert_eq!(known(&cluster, "t"), "-1|0");
    cluster.start(NodeName::Worker(2)).expect("the worker starts");
    // What a worker has counted is gone with its death, but not what it has stored.
    cluster.sql("UPDATE t SET word = 'new'");
    wait_for(&cluster, "t", "2000|2");
    assert_eq!(cluster.unhealthy("t"), 0);
}

#[test]
fn databases_and_the_extension_can_be_dropped_and_created_at_any_time() {
    let cluster = restless_cluster(2);
    cluster.on_all_nodes("CREATE DATABASE other");
    let other = |text: &str| {
        let output = cluster.program(
            "psql",
            NodeName::Coordinator,
            &["-X", "-v", "ON_ERROR_STOP=1", "-d", "other", "-c", text],
            "",
        );
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    other("CREATE EXTENSION pg_shard");
    other("CREATE TABLE t (k int, word text)");
    other("SELECT create_distributed_table('t', 'k', 4)");
    other("INSERT INTO t SELECT generate_series(1, 100000)");
    // Whether it is being visited now or not.
    cluster.sql("DROP DATABASE other");

    table(&cluster, "t", "", 1);
    fill(&cluster, "t", 500);
    cluster.sql("DROP TABLE t; DROP EXTENSION pg_shard");
    cluster.sql("CREATE EXTENSION pg_shard");
    table(&cluster, "t", "", 1);
    fill(&cluster, "t", 3000);
    wait_for(&cluster, "t", "3000|2");
    let launcher =
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_shard statistics launcher'";
    assert_ne!(cluster.text(launcher), "");
}

#[test]
fn whoever_locks_a_table_waits_for_no_statistics() {
    let cluster = restless_cluster(2);
    table(&cluster, "t", "", 1);
    table(&cluster, "u", "", 1);
    let mut session = cluster.new_session();
    session.sql("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE");
    session.sql("SAVEPOINT s");
    fill(&cluster, "u", 2000);
    session.sql("INSERT INTO t SELECT generate_series(1, 2000)");
    // The visits go on, past the table that is locked.
    wait_for(&cluster, "u", "2000|2");
    session.sql("COMMIT");
    wait_for(&cluster, "t", "2000|2");
}
