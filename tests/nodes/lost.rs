//! The placements of a node that stayed away were made anew only if somebody asked. Now they are after a while.

use testkit::{NodeName, TestCluster, wait_until};

const WORKER_2: NodeName = NodeName::Worker(2);

fn cluster(workers: u16) -> TestCluster {
    let cluster = TestCluster::up_with(
        workers,
        &[
            ("pg_shard.health_interval", "200ms"),
            ("pg_shard.repair_naptime", "1s"),
            ("pg_shard.replace_after", "1s"),
        ],
    );
    cluster.sql("CREATE TABLE kinds (id int PRIMARY KEY, name text); SELECT create_reference_table('kinds')");
    cluster.sql("INSERT INTO kinds VALUES (1, 'one')");
    cluster.create_distributed("CREATE TABLE kv (k int PRIMARY KEY, v int)", "kv", "k", 4, 2);
    cluster.sql("CREATE TABLE notes (k int, note text); SELECT create_distributed_table('notes', 'k', colocate_with => 'kv')");
    cluster.sql("INSERT INTO kv SELECT i, 0 FROM generate_series(1, 500) i");
    cluster.sql("INSERT INTO notes SELECT i, 'note' FROM generate_series(1, 300) i");
    cluster
}

fn held(cluster: &TestCluster, table: &str) -> usize {
    cluster.placements(table).iter().filter(|it| it.node == WORKER_2).count()
}

fn orphans(cluster: &TestCluster) -> String {
    cluster.text("SELECT count(*) FROM pgs_catalog.orphaned_shard")
}

#[test]
fn a_node_that_stays_away_is_replaced_and_what_it_has_is_dropped_when_it_is_back() {
    let cluster = cluster(3);
    let before = held(&cluster, "kv") + held(&cluster, "notes");
    cluster.kill(WORKER_2).expect("it runs");
    // Some of its placements have missed a write, others have not; all of them go.
    cluster.sql("UPDATE kv SET v = 1 WHERE k = 1");
    wait_until("its placements are elsewhere", || {
        held(&cluster, "kv") + held(&cluster, "notes") == 0
    });
    assert_eq!(cluster.unhealthy("kv") + cluster.unhealthy("notes"), 0);
    assert_eq!(orphans(&cluster), before.to_string());
    assert_eq!(cluster.placements("kv").len(), 8);
    // The reference table stays, and misses this.
    cluster
        .sql("UPDATE kinds SET name = 'two'; UPDATE kv SET v = 2; DELETE FROM notes WHERE k > 100");
    assert_eq!(held(&cluster, "kinds"), 1);
    cluster.start(WORKER_2).expect("it is down");
    wait_until("nothing is left to be dropped", || orphans(&cluster) == "0");
    wait_until("the reference table is repaired", || cluster.unhealthy("kinds") == 0);
    assert!(cluster.tables_on(WORKER_2, "kv\\_%").is_empty());
    assert!(cluster.tables_on(WORKER_2, "notes\\_%").is_empty());
    cluster.sql("CALL pgs_catalog.rebalance('shards')");
    assert!(held(&cluster, "kv") > 0);
    for (table, rows) in [("kinds", 1), ("kv", 500), ("notes", 100)] {
        assert_eq!(cluster.assert_placements_equal(table), rows);
    }
    assert_eq!(cluster.text("SELECT sum(v) FROM kv"), "1000");
}

#[test]
fn a_placement_that_came_back_to_a_node_is_not_dropped_there() {
    // What is noted of the lost placement says nothing about a later one on the same node.
    let cluster = cluster(3);
    cluster.kill(WORKER_2).expect("it runs");
    wait_until("its placements are elsewhere", || {
        held(&cluster, "kv") + held(&cluster, "notes") == 0
    });
    cluster.sql("ALTER SYSTEM SET pg_shard.repair_naptime = 0");
    cluster.sql("SELECT pg_reload_conf()");
    cluster.start(WORKER_2).expect("it is down");
    let state =
        format!("SELECT state FROM pgs_catalog.nodes WHERE port = {}", cluster.port(WORKER_2));
    wait_until("it is up", || cluster.text(&state) == "up");
    cluster.sql("CALL pgs_catalog.rebalance('shards')");
    let before = held(&cluster, "kv");
    assert!(before > 0);
    cluster.sql("ALTER SYSTEM RESET pg_shard.repair_naptime");
    cluster.sql("SELECT pg_reload_conf()");
    wait_until("nothing is left to be dropped", || orphans(&cluster) == "0");
    assert_eq!(held(&cluster, "kv"), before);
    assert_eq!(cluster.tables_on(WORKER_2, "kv\\_%").len(), before);
    assert_eq!(cluster.assert_placements_equal("kv"), 500);
    assert_eq!(cluster.assert_placements_equal("notes"), 300);
}

#[test]
fn what_has_no_room_elsewhere_waits_for_its_node() {
    let cluster = cluster(2);
    let state =
        format!("SELECT state FROM pgs_catalog.nodes WHERE port = {}", cluster.port(WORKER_2));
    cluster.kill(WORKER_2).expect("it runs");
    cluster.sql("UPDATE kv SET v = 1");
    wait_until("it is down for long enough", || {
        cluster.text("SELECT count(*) FROM pgs_catalog.node WHERE health = 'down' AND since < now() - interval '1s'") == "1"
    });
    cluster.start(WORKER_2).expect("it is down");
    wait_until("it is up", || cluster.text(&state) == "up");
    wait_until("it is repaired", || cluster.unhealthy("kv") + cluster.unhealthy("notes") == 0);
    assert_eq!(held(&cluster, "kv"), 4);
    assert_eq!(orphans(&cluster), "0");
    assert_eq!(cluster.assert_placements_equal("kv"), 500);
}
