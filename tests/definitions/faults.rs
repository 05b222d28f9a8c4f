//! Changes beside running statements, on nodes that are away, and by roles that may not.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use testkit::{NodeName, Session, TestCluster, wait_until};

fn cluster_with_table(replicas: u32) -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE t (id int PRIMARY KEY, a int)",
        "t",
        "id",
        4,
        replicas,
    );
    cluster.sql("INSERT INTO t SELECT i, i FROM generate_series(1, 100) AS i");
    cluster
}

/// Columns of the shards on a node, and whether all shards have the same.
fn columns_on(cluster: &TestCluster, node: NodeName) -> String {
    cluster.session_on(node).text(
        "SELECT string_agg(DISTINCT columns, ' or ') FROM ( \
           SELECT string_agg(attname, ' ' ORDER BY attnum) AS columns FROM pg_attribute \
           WHERE attrelid IN (SELECT oid FROM pg_class WHERE relname ~ '^t_[0-9]+$') AND attnum > 0 AND NOT attisdropped \
           GROUP BY attrelid) AS shards",
    )
}

#[test]
fn a_node_that_is_down_makes_a_change_fail_before_anything_has_changed() {
    let cluster = cluster_with_table(1);
    cluster.kill(NodeName::Worker(2)).expect("the worker runs");
    let error = cluster.error("ALTER TABLE t ADD COLUMN b int");
    assert!(error.message.contains(&cluster.port(NodeName::Worker(2)).to_string()), "{error}");
    assert!(error.hint.contains("All nodes with shards of table \"t\""), "{error}");
    assert_eq!(columns_on(&cluster, NodeName::Worker(1)), "id a");
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 't'";
    assert_eq!(cluster.text(columns), "2");
    cluster.start(NodeName::Worker(2)).expect("the worker comes back");
    cluster.sql("ALTER TABLE t ADD COLUMN b int");
    assert_eq!(cluster.text("SELECT count(*) FROM t WHERE b IS NULL"), "100");
}

#[test]
fn an_inactive_placement_gets_the_new_definition_when_it_is_repaired() {
    let cluster = cluster_with_table(2);
    cluster.kill(NodeName::Worker(2)).expect("the worker runs");
    cluster.sql("UPDATE t SET a = a + 1");
    cluster.sql("ALTER TABLE t ADD COLUMN b text DEFAULT 'new', DROP COLUMN a");
    cluster.start(NodeName::Worker(2)).expect("the worker comes back");
    assert_eq!(columns_on(&cluster, NodeName::Worker(2)), "id a");
    assert_eq!(cluster.repair("t"), 4);
    assert_eq!(columns_on(&cluster, NodeName::Worker(2)), "id b");
    cluster.assert_placements_equal("t");
}

#[test]
fn clients_go_on_while_a_definition_changes() {
    let cluster = cluster_with_table(1);
    let (is_over, statements) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..4 {
            let (cluster, is_over, statements) = (&cluster, &is_over, &statements);
            scope.spawn(move || {
                let mut session = cluster.new_session();
                session.sql("PREPARE read (int) AS SELECT id FROM t WHERE id = $1");
                session.sql("PREPARE write (int) AS UPDATE t SET a = a + 1 WHERE id = $1");
                while !is_over.load(Ordering::Relaxed) {
                    let id = 1 + (statements.fetch_add(1, Ordering::Relaxed) + number) % 100;
                    session.sql(&format!("EXECUTE read ({id})"));
                    session.sql(&format!("EXECUTE write ({id})"));
                    session.sql("SELECT count(*), sum(a) FROM t");
                    session.sql(&format!("SELECT * FROM t WHERE id = {id}"));
                }
            });
        }
        let mut session = cluster.new_session();
        for round in 0..6 {
            session.sql(&format!("ALTER TABLE t ADD COLUMN c{round} int DEFAULT {round}"));
            session.sql(&format!("CREATE INDEX i{round} ON t (c{round})"));
            session.sql("ALTER TABLE t ALTER a TYPE bigint");
            session.sql(&format!("ALTER TABLE t RENAME c{round} TO d{round}"));
            session.sql("ALTER TABLE t ALTER a TYPE int");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(statements.load(Ordering::Relaxed) > 20, "the clients have hardly run");
    assert_eq!(cluster.text("SELECT count(*), min(d5), max(d0) FROM t"), "100|5|0");
}

#[test]
fn what_a_transaction_has_changed_goes_with_it_on_all_nodes() {
    let cluster = cluster_with_table(2);
    let mut session = cluster.new_session();
    session.sql("BEGIN; ALTER TABLE t ADD COLUMN b int; INSERT INTO t VALUES (101, 1, 1)");
    assert_eq!(session.text("SELECT count(b) FROM t"), "1");
    session.sql("SAVEPOINT s; ALTER TABLE t DROP COLUMN a; ROLLBACK TO s");
    assert_eq!(session.text("SELECT count(a) FROM t"), "101");
    session.sql("ROLLBACK");
    for node in cluster.workers() {
        assert_eq!(columns_on(&cluster, node), "id a");
    }
    assert_eq!(session.text("SELECT count(*) FROM t"), "100");
}

/// The first table stands among the others once more, and its change went to the shards twice.
#[test]
fn a_statement_may_name_a_table_more_than_once() {
    let cluster = cluster_with_table(1);
    cluster.create_distributed("CREATE TABLE u (id int PRIMARY KEY, a int)", "u", "id", 4, 1);
    cluster.sql("CREATE INDEX t_1 ON t (a); CREATE INDEX t_2 ON t (a); CREATE INDEX u_1 ON u (a)");
    cluster.sql("DROP INDEX t_1, u_1, t_2");
    for node in cluster.workers() {
        let left = "SELECT count(*) FROM pg_class WHERE relname ~ '^[tu]_[12]_'";
        assert_eq!(cluster.session_on(node).text(left), "0");
    }
}

#[test]
fn only_the_owner_changes_a_table() {
    let cluster = cluster_with_table(1);
    cluster.on_all_nodes("CREATE ROLE eve LOGIN");
    cluster.sql("GRANT SELECT ON t TO eve WITH GRANT OPTION");
    let mut eve = cluster.session_as("eve");
    for (statement, sqlstate) in [
        ("ALTER TABLE t ADD COLUMN b int", "42501"),
        ("CREATE INDEX ON t (a)", "42501"),
        ("COMMENT ON TABLE t IS 'mine'", "42501"),
        // PostgreSQL would let her; on the shards only the owner can do it.
        ("GRANT SELECT ON t TO PUBLIC", "0A000"),
    ] {
        assert_eq!(eve.error(statement).sqlstate, sqlstate, "{statement}");
    }
    assert_eq!(eve.text("SELECT count(*) FROM t"), "100");
}

#[test]
fn a_name_that_leaves_no_room_for_the_shards_number_changes_nothing() {
    let cluster = cluster_with_table(1);
    let long = "n".repeat(60);
    assert_eq!(cluster.error(&format!("CREATE INDEX {long} ON t (a)")).sqlstate, "42622");
    assert_eq!(cluster.error(&format!("ALTER TABLE t RENAME TO {long}")).sqlstate, "42622");
    assert_eq!(cluster.text("SELECT count(*) FROM t"), "100");
    assert_eq!(cluster.text("SELECT count(*) FROM pg_indexes WHERE tablename = 't'"), "1");
}

/// A reader of a shard on the last node, for whom a change has to wait there when the other nodes have made it.
fn reader_in_the_way(cluster: &TestCluster) -> Session {
    let shard = cluster.tables_on(NodeName::Worker(2), "t_%").pop().expect("it has shards");
    let mut reader = cluster.session_on(NodeName::Worker(2));
    reader.sql(&format!("BEGIN; LOCK TABLE {shard} IN ACCESS SHARE MODE"));
    reader
}

#[test]
fn a_lock_timeout_holds_on_the_nodes_and_leaves_nothing() {
    let cluster = cluster_with_table(1);
    let mut reader = reader_in_the_way(&cluster);
    let mut session = cluster.new_session();
    session.sql("SET lock_timeout = '300ms'");
    for statement in ["ALTER TABLE t ADD COLUMN b int", "TRUNCATE t", "DROP TABLE t"] {
        let error = session.error(statement);
        assert_eq!(error.sqlstate, "55P03", "{statement}: {error}");
    }
    reader.sql("ROLLBACK");
    for node in cluster.workers() {
        assert_eq!(columns_on(&cluster, node), "id a");
    }
    assert_eq!(session.text("SELECT count(*) FROM t"), "100");
    session.sql("ALTER TABLE t ADD COLUMN b int");
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_change_leaves_it_nowhere() {
    let cluster = cluster_with_table(1);
    for victim in [NodeName::Worker(2), NodeName::Worker(1), NodeName::Coordinator] {
        let mut reader = reader_in_the_way(&cluster);
        let outcome = thread::scope(|scope| {
            let change =
                scope.spawn(|| cluster.new_session().try_sql("ALTER TABLE t ADD COLUMN b int"));
            let mut watcher = cluster.session_on(NodeName::Worker(2));
            wait_until("the change to wait on the last node", || {
                watcher.text("SELECT count(*) FROM pg_locks WHERE NOT granted") != "0"
            });
            cluster.kill(victim).expect("the server runs");
            if victim != NodeName::Worker(2) {
                reader.sql("ROLLBACK");
            }
            change.join()
        });
        assert!(outcome.map_or(true, |answer| answer.is_err()), "{victim}");
        cluster.start(victim).expect("the server comes back");
        cluster.wait_for(victim);
        if victim == NodeName::Coordinator {
            cluster.reconnect();
        }
        for node in cluster.workers() {
            wait_until("what was begun to end", || columns_on(&cluster, node) == "id a");
        }
        assert_eq!(cluster.text("SELECT count(*) FROM t"), "100", "{victim}");
        assert_eq!(cluster.error("SELECT b FROM t").sqlstate, "42703", "{victim}");
    }
    cluster.sql("ALTER TABLE t ADD COLUMN b int");
}
