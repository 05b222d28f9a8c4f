//! What a client is told, and what it sees.

use crate::{WORKER_1, WORKER_2, cluster_with_accounts, key_on};
use testkit::TestCluster;

/// A deferred constraint is checked when its node prepares. Before, the first node had committed by the time the second one
/// refused.
#[test]
fn a_node_that_refuses_keeps_all_others_from_committing() {
    let cluster = cluster_with_accounts();
    let keys = [key_on(&cluster, WORKER_1), key_on(&cluster, WORKER_2)];
    for worker in cluster.workers() {
        let mut session = cluster.session_on(worker);
        session.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN IF NEW.v < 0 THEN RAISE EXCEPTION ''too little''; END IF; RETURN NULL; END'",
        );
        for table in cluster.tables_on(worker, "single\\_%") {
            session.sql(&format!(
                "CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON {table} DEFERRABLE INITIALLY DEFERRED \
                 FOR EACH ROW EXECUTE FUNCTION refuse()"
            ));
        }
    }
    let mut session = cluster.new_session();
    for local in [false, true] {
        for refusing in 0..2 {
            session.sql("BEGIN");
            if local {
                session.sql("UPDATE local SET v = 1");
            }
            for (at, key) in keys.iter().enumerate() {
                let value = if at == refusing { -1 } else { 1 };
                session.sql(&format!("UPDATE single SET v = {value} WHERE k = {key}"));
            }
            assert_eq!(session.error("COMMIT").message, "too little");
            assert_eq!(session.text("SELECT sum(abs(v)) FROM single"), "0");
            assert_eq!(session.text("SELECT v FROM local"), "0");
        }
    }
    session.sql(&format!(
        "BEGIN; UPDATE single SET v = 1 WHERE k IN ({}, {}); COMMIT",
        keys[0], keys[1]
    ));
    assert_eq!(session.text("SELECT sum(v) FROM single"), "2");
    assert_eq!(session.warnings(), []);
}

/// The savepoint in which the second node wrote first is gone, and what showed its commit with it.
#[test]
fn savepoints_that_are_rolled_back_leave_a_transaction_that_commits_whole() {
    let cluster = cluster_with_accounts();
    let keys = [key_on(&cluster, WORKER_1), key_on(&cluster, WORKER_2)];
    let mut session = cluster.new_session();
    for end in ["ROLLBACK TO a", "RELEASE a", "ROLLBACK TO a; RELEASE a"] {
        session.sql("UPDATE single SET v = 0");
        session.sql("BEGIN");
        session.sql(&format!("UPDATE single SET v = 1 WHERE k = {}", keys[0]));
        session.sql("SAVEPOINT a");
        session.sql(&format!("UPDATE single SET v = 1 WHERE k = {}", keys[1]));
        session.sql(end);
        session.sql(&format!("UPDATE single SET v = 1 WHERE k = {}", keys[1]));
        session.sql("COMMIT");
        assert_eq!(session.text("SELECT sum(v) FROM single"), "2", "{end}");
    }
    assert_eq!(session.warnings(), []);
}

#[test]
fn a_server_that_preloads_the_library_has_room_for_prepared_transactions() {
    let cluster = TestCluster::up_with(1, &[("max_connections", "37")]);
    for node in cluster.nodes() {
        let mut session = cluster.session_on(node);
        assert_eq!(session.text("SHOW max_prepared_transactions"), "37");
        session.sql("SELECT pg_reload_conf()");
        assert_eq!(session.text("SHOW max_prepared_transactions"), "37");
    }
}

#[test]
fn a_node_without_prepared_transactions_is_named_before_a_second_node_is_written() {
    let cluster = TestCluster::up_with(2, &[("max_prepared_transactions", "0")]);
    cluster.sql("CREATE TABLE single (k int PRIMARY KEY, v int)");
    cluster.sql("SELECT master_create_distributed_table('single', 'k')");
    let error = cluster.error("SELECT master_create_worker_shards('single', 4, 1)");
    assert_eq!(error.sqlstate, "55000");
    assert!(
        error.message.starts_with("node \"")
            && error.message.ends_with("\" cannot take part in a transaction over several nodes"),
        "{error}"
    );
    assert_eq!(error.detail, "The setting max_prepared_transactions is 0 there.");
    for worker in cluster.workers() {
        assert_eq!(cluster.tables_on(worker, "single%"), Vec::<String>::new());
    }
}
