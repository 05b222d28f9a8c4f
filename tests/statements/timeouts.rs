//! Time-outs of the client and of the nodes.

use testkit::{TestCluster, wait_until};

/// Statements waited for ever on the nodes, whatever `lock_timeout` said.
#[test]
fn a_lock_timeout_holds_on_the_nodes_for_all_that_waits_there() {
    let cluster = TestCluster::up(2);
    let (mut holder, mut session) = (cluster.new_session(), cluster.new_session());
    for (table, replicas) in [("alone", 1), ("pair", 2)] {
        let create = format!("CREATE TABLE {table} (k int PRIMARY KEY, v int)");
        cluster.create_distributed(&create, table, "k", 4, replicas);
        cluster.sql(&format!("INSERT INTO {table} SELECT i, 0 FROM generate_series(1, 40) AS i"));
        // Locks of rows alone, which no lock of the coordinator's own stands for.
        let mut shards = Vec::new();
        for placement in cluster.placements(table) {
            let leads = !shards.contains(&placement.shard);
            shards.push(placement.shard);
            let shard = cluster.shard_name(table, placement.shard);
            let mut node = cluster.session_on(placement.node);
            node.sql(&format!("BEGIN; SELECT * FROM {shard} FOR UPDATE"));
            let keys = node.text(&format!("SELECT min(k) FROM {shard}"));
            for level in ["READ COMMITTED", "SERIALIZABLE"] {
                for statement in [
                    format!("UPDATE {table} SET v = 1 WHERE k = {keys}"),
                    format!("UPDATE {table} SET v = 1"),
                    format!("DELETE FROM {table} WHERE k = {keys}"),
                    format!(
                        "UPDATE {table} SET v = o.v FROM {table} AS o WHERE o.k = {table}.v + 1"
                    ),
                ] {
                    for block in ["", "BEGIN; "] {
                        session.sql(&format!("SET lock_timeout = '50ms'; SET default_transaction_isolation = '{level}'"));
                        let error = session.error(&format!("{block}{statement}"));
                        assert_eq!(error.sqlstate, "55P03", "{statement}: {error}");
                        session.sql("ROLLBACK");
                    }
                }
                // The leader's rows are locked.
                if leads {
                    let lock = format!("SELECT * FROM {table} WHERE k = {keys} FOR UPDATE");
                    assert_eq!(session.error(&lock).sqlstate, "55P03", "{lock}");
                }
            }
            node.sql("ROLLBACK");
        }
        session.sql("RESET ALL");
        assert_eq!(cluster.unhealthy(table), 0);
        cluster.assert_placements_equal(table);
    }
    // The setting goes as it has come.
    session
        .sql("BEGIN; SET LOCAL lock_timeout = '50ms'; UPDATE alone SET v = 2 WHERE k = 1; COMMIT");
    session.sql("SET statement_timeout = '400ms'");
    holder.sql("BEGIN; UPDATE alone SET v = 3 WHERE k = 1");
    assert_eq!(session.error("UPDATE alone SET v = 4 WHERE k = 1").sqlstate, "57014");
    // Nor is a gate waited for any longer.
    holder.sql("ROLLBACK; BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT v FROM alone WHERE k = 1");
    session.sql("RESET statement_timeout; SET lock_timeout = '50ms'");
    session.sql("BEGIN ISOLATION LEVEL SERIALIZABLE");
    assert_eq!(session.error("SELECT sum(v) FROM alone").sqlstate, "55P03");
}

#[test]
fn a_client_that_is_idle_for_too_long_keeps_no_locks_on_nodes() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v int)", "t", "k", 4, 1);
    cluster.sql("INSERT INTO t SELECT i, 0 FROM generate_series(1, 40) AS i");
    let mut idle = cluster.new_session();
    idle.sql("SET idle_in_transaction_session_timeout = '100ms'; BEGIN; UPDATE t SET v = 1");
    // Waits until the other's session has ended.
    cluster.sql("UPDATE t SET v = v + 2");
    assert_eq!(cluster.text("SELECT min(v), max(v) FROM t"), "2|2");
    assert!(idle.try_sql("COMMIT").is_err());
}

/// A node's own time-outs struck the sessions of a coordinator's transaction that was at work elsewhere.
#[test]
fn time_outs_of_a_node_do_not_end_a_transaction_of_the_coordinator() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v int)", "t", "k", 4, 1);
    cluster.sql("INSERT INTO t SELECT i, 0 FROM generate_series(1, 40) AS i");
    let mut settings = vec![
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "statement_timeout",
        "lock_timeout",
    ];
    if !cluster.is_older_than(17) {
        settings.push("transaction_timeout");
    }
    for worker in cluster.workers() {
        let mut node = cluster.session_on(worker);
        for setting in &settings {
            node.sql(&format!("ALTER SYSTEM SET {setting} = '100ms'"));
        }
        node.sql("SELECT pg_reload_conf()");
        wait_until("the settings are there", || {
            cluster.session_on(worker).text("SHOW idle_session_timeout") == "100ms"
        });
    }
    let mut session = cluster.new_session();
    session.sql("BEGIN; UPDATE t SET v = 1 WHERE k <= 20; SELECT pg_sleep(0.4)");
    session.sql("UPDATE t SET v = v + 1; SELECT pg_sleep(0.4)");
    assert_eq!(session.text("SELECT sum(v) FROM t"), "60");
    session.sql("COMMIT");
    assert_eq!(session.text("SELECT sum(v) FROM t"), "60");
}
