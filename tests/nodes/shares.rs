//! Nodes get their shares, and give them away.

use crate::list::{keep_in_list, line, write_list};
use testkit::{NodeName, Script, TestCluster, wait_until};

/// A cluster of so many workers, of which so many are in the list, with two co-located tables and a reference table.
fn cluster(workers: u16, listed: u16, replicas: u32) -> TestCluster {
    let cluster = TestCluster::up_with(workers, &[("pg_shard.health_interval", "200ms")]);
    keep_in_list(&cluster, listed);
    cluster.sql("CREATE TABLE kinds (id int PRIMARY KEY, name text); SELECT create_reference_table('kinds')");
    cluster.sql("INSERT INTO kinds SELECT i, 'kind ' || i FROM generate_series(1, 10) i");
    cluster.sql(&format!(
        "CREATE TABLE kv (k int PRIMARY KEY, v int, kind int); SELECT create_distributed_table('kv', 'k', 12, {replicas}); \
         CREATE TABLE notes (k int, note text); SELECT create_distributed_table('notes', 'k', colocate_with => 'kv')"
    ));
    cluster.sql("INSERT INTO kv SELECT i, 0, i % 10 + 1 FROM generate_series(1, 2000) i");
    cluster.sql("INSERT INTO notes SELECT i, 'note' FROM generate_series(1, 1000) i");
    cluster
}

fn add(cluster: &TestCluster, worker: u16) {
    let port = cluster.port(NodeName::Worker(worker));
    cluster.sql(&format!("SELECT pgs_catalog.add_node('127.0.0.1', {port})"));
}

/// How many placements of the distributed tables each worker holds.
fn held(cluster: &TestCluster) -> Vec<usize> {
    let tables = ["kv", "notes"];
    let placements: Vec<_> = tables.iter().flat_map(|table| cluster.placements(table)).collect();
    let of = |worker: &NodeName| placements.iter().filter(|it| it.node == *worker).count();
    cluster.workers().iter().map(of).collect()
}

fn check(cluster: &TestCluster) {
    assert_eq!(cluster.assert_placements_equal("kv"), 2000);
    assert_eq!(cluster.assert_placements_equal("notes"), 1000);
    let join =
        "SELECT count(*), count(note) FROM kv JOIN kinds ON kind = id LEFT JOIN notes USING (k)";
    assert_eq!(cluster.text(join), "2000|1000");
}

#[test]
fn a_node_that_joins_gets_its_share_and_no_more() {
    let cluster = cluster(4, 3, 1);
    assert_eq!(held(&cluster), [8, 8, 8, 0]);
    assert_eq!(cluster.sql("SELECT * FROM pgs_catalog.plan_rebalance('shards')").len(), 0);
    add(&cluster, 4);
    let plan = "SELECT action, table_name, target_port, bytes > 0, rows >= 0 FROM pgs_catalog.plan_rebalance('shards')";
    let port = cluster.port(NodeName::Worker(4));
    assert_eq!(cluster.text(plan), vec![format!("move|kv|{port}|t|t"); 3].join("\n"));
    assert_eq!(held(&cluster), [8, 8, 8, 0], "a plan changes nothing");
    cluster.sql("CALL pgs_catalog.rebalance('shards')");
    assert_eq!(held(&cluster), [6, 6, 6, 6]);
    check(&cluster);
    assert_eq!(cluster.sql("SELECT * FROM pgs_catalog.plan_rebalance('shards')").len(), 0);
    let error = cluster.error("SELECT * FROM pgs_catalog.plan_rebalance('luck')");
    assert_eq!(error.sqlstate, "22023");
}

#[test]
fn a_node_is_drained_under_load_and_removed() {
    let cluster = cluster(3, 3, 1);
    let script = Script {
        weight: 1,
        text: "\\set k random(1, 2000)\nUPDATE kv SET v = v + 1 WHERE k = :k;\nSELECT v FROM kv WHERE k = :k;\n",
    };
    let load = cluster.pgbench("prepared", &[script], &["-c", "4", "-j", "2", "-T", "15"]);
    wait_until("the load runs", || cluster.text("SELECT sum(v) > 100 FROM kv") == "t");
    let port = cluster.port(NodeName::Worker(2));
    let planned = format!(
        "SELECT count(*) > 0 AND bool_and(source_port = {port} AND target_port <> {port}) \
         FROM pgs_catalog.plan_leave('127.0.0.1', {port})"
    );
    assert_eq!(cluster.text(&planned), "t");
    // To plan changes nothing.
    assert_eq!(held(&cluster)[1], 8);
    cluster.sql(&format!("CALL pgs_catalog.drain_node('127.0.0.1', {port})"));
    let report = load.finish();
    assert!(report.succeeded, "{}", report.errors);
    assert_eq!(cluster.text("SELECT sum(v) FROM kv"), report.transactions.to_string());
    let held = held(&cluster);
    assert_eq!((held[0] + held[2], held[1]), (24, 0));
    check(&cluster);
    let state = format!(
        "SELECT state, takes_shards, placements FROM pgs_catalog.nodes WHERE port = {port}"
    );
    assert_eq!(cluster.text(&state), "draining|f|0");
    write_list(&cluster, &[line(&cluster, 1), line(&cluster, 3)].concat());
    cluster.sql(&format!("SELECT pgs_catalog.remove_node('127.0.0.1', {port})"));
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_catalog.nodes"), "2");
}

#[test]
fn a_lost_node_is_replaced_by_another_one() {
    let cluster = cluster(4, 3, 2);
    add(&cluster, 4);
    let (lost, new) = (NodeName::Worker(2), NodeName::Worker(4));
    let (lost_port, new_port) = (cluster.port(lost), cluster.port(new));
    cluster.kill(lost).expect("worker2 runs");
    cluster.sql("UPDATE kv SET v = 1 WHERE k <= 100");
    let is_down = format!("SELECT state FROM pgs_catalog.nodes WHERE port = {lost_port}");
    wait_until("the watcher has noticed", || cluster.text(&is_down) == "down");
    let replace =
        format!("CALL pgs_catalog.replace_node('127.0.0.1', {lost_port}, '127.0.0.1', {new_port})");
    cluster.sql(&replace);
    assert_eq!(held(&cluster), [16, 0, 16, 16]);
    assert_eq!(cluster.unhealthy("kv") + cluster.unhealthy("notes"), 0);
    check(&cluster);
    assert_eq!(cluster.text("SELECT sum(v) FROM kv"), "100");
}

#[test]
fn a_node_whose_placements_have_no_room_elsewhere_keeps_them_and_says_so() {
    let cluster = cluster(2, 2, 2);
    let port = cluster.port(NodeName::Worker(1));
    let mut session = cluster.new_session();
    session.sql(&format!("CALL pgs_catalog.drain_node('127.0.0.1', {port})"));
    let warnings = session.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(held(&cluster), [24, 24]);
    // New shards go elsewhere; until that is taken back.
    cluster.sql("CREATE TABLE more (k int); SELECT create_distributed_table('more', 'k', 2)");
    assert!(cluster.placements("more").iter().all(|it| it.node == NodeName::Worker(2)));
    cluster.sql(&format!("SELECT pgs_catalog.set_node_draining('127.0.0.1', {port}, false)"));
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_catalog.nodes WHERE takes_shards"), "2");
}

#[test]
fn placements_of_a_shard_go_to_different_racks() {
    let cluster = cluster(3, 2, 2);
    for (worker, rack) in [(1, "a"), (2, "a")] {
        let port = cluster.port(NodeName::Worker(worker));
        cluster.sql(&format!("SELECT pgs_catalog.set_node_rack('127.0.0.1', {port}, '{rack}')"));
    }
    let port = cluster.port(NodeName::Worker(3));
    cluster.sql(&format!("SELECT pgs_catalog.add_node('127.0.0.1', {port}, rack => 'b')"));
    cluster.sql("CALL pgs_catalog.rebalance()");
    assert_eq!(held(&cluster)[2], 24, "each shard has a placement in the other rack");
    check(&cluster);
}
