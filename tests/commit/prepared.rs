//! PREPARE TRANSACTION by the client, as transaction managers use it: XA of JDBC, `tpc_*` of psycopg.

use crate::{WORKER_1, WORKER_2, cluster_with_accounts, key_on, wait_until_nothing_is_in_doubt};
use std::thread;
use testkit::{NodeName, TestCluster, wait_until};

fn prepare(cluster: &TestCluster, gid: &str, value: i32) {
    let keys = [key_on(cluster, WORKER_1), key_on(cluster, WORKER_2)];
    let mut session = cluster.new_session();
    session.sql("BEGIN");
    session.sql(&format!("UPDATE local SET v = {value}"));
    for key in keys {
        session.sql(&format!("UPDATE single SET v = {value} WHERE k = {key}"));
    }
    session.sql(&format!("PREPARE TRANSACTION '{gid}'"));
    // The session is free for others.
    assert_eq!(session.text("SELECT count(*) FROM single"), "20");
    assert_eq!(session.warnings(), []);
}

fn sums(cluster: &TestCluster) -> String {
    cluster.text("SELECT (SELECT sum(v) FROM single), (SELECT v FROM local)")
}

#[test]
fn a_transaction_that_the_client_prepares_ends_on_all_nodes_as_the_client_says() {
    let cluster = cluster_with_accounts();
    prepare(&cluster, "a", 1);
    assert_eq!(sums(&cluster), "0|0");
    cluster.sql("COMMIT PREPARED 'a'");
    assert_eq!(sums(&cluster), "2|1");
    prepare(&cluster, "b", 5);
    cluster.sql("ROLLBACK PREPARED 'b'");
    assert_eq!(sums(&cluster), "2|1");
    wait_until_nothing_is_in_doubt(&cluster);
}

#[test]
fn what_the_client_has_prepared_waits_for_him_through_crashes_of_all_nodes() {
    let cluster = cluster_with_accounts();
    prepare(&cluster, "a", 1);
    for node in [NodeName::Coordinator, WORKER_1, WORKER_2] {
        cluster.kill(node).expect("it runs");
        cluster.start(node).expect("it is down");
    }
    cluster.reconnect();
    assert_eq!(sums(&cluster), "0|0");
    cluster.sql("COMMIT PREPARED 'a'");
    assert_eq!(sums(&cluster), "2|1");
    wait_until_nothing_is_in_doubt(&cluster);
}

#[test]
fn a_role_without_rights_on_the_metadata_ends_what_it_has_prepared() {
    let cluster = cluster_with_accounts();
    cluster.on_all_nodes("CREATE ROLE teller LOGIN");
    cluster.sql("GRANT ALL ON single TO teller");
    let keys = [key_on(&cluster, WORKER_1), key_on(&cluster, WORKER_2)];
    let mut session = cluster.session_as("teller");
    session.sql("BEGIN");
    for key in keys {
        session.sql(&format!("UPDATE single SET v = 3 WHERE k = {key}"));
    }
    session.sql("PREPARE TRANSACTION 'by teller'");
    session.sql("COMMIT PREPARED 'by teller'");
    assert_eq!(session.text("SELECT sum(v) FROM single"), "6");
    wait_until_nothing_is_in_doubt(&cluster);
}

/// After a crash of the coordinator readers wait for what is prepared until the resolver has seen whose it is. Who had begun to wait by then
/// failed with 55P03 after ten seconds, though only the client was to end what he waited for.
#[test]
fn a_reader_that_waits_for_what_the_client_has_prepared_goes_on_when_that_is_known() {
    let cluster = TestCluster::up(3);
    let create = "CREATE TABLE single (k int PRIMARY KEY, v int NOT NULL)";
    cluster.create_distributed(create, "single", "k", 6, 1);
    cluster.sql("INSERT INTO single SELECT i, 0 FROM generate_series(1, 40) AS i");
    cluster.reconnect();
    let keys = format!("k IN ({}, {})", key_on(&cluster, WORKER_1), key_on(&cluster, WORKER_2));
    cluster
        .sql(&format!("BEGIN; UPDATE single SET v = 1 WHERE {keys}; PREPARE TRANSACTION 'kept'"));
    // Without the third worker the resolver knows nothing for certain.
    let third = NodeName::Worker(3);
    cluster.kill(third).expect("it runs");
    cluster.kill(NodeName::Coordinator).expect("it runs");
    cluster.start(NodeName::Coordinator).expect("it is down");
    cluster.reconnect();
    let sum = format!("SELECT sum(v) FROM single WHERE {keys}");
    thread::scope(|scope| {
        let (mut reader, sum) = (cluster.new_session(), &sum);
        let read = scope.spawn(move || (reader.text(sum), reader));
        let mut node = cluster.session_on(WORKER_1);
        wait_until("the reader waits", || {
            node.text("SELECT count(*) FROM pg_locks WHERE NOT granted") != "0"
        });
        cluster.start(third).expect("it is down");
        let (seen, mut reader) = read.join().expect("it reads");
        assert_eq!(seen, "0");
        reader.sql("COMMIT PREPARED 'kept'");
        assert_eq!(reader.text(sum), "2");
    });
    wait_until_nothing_is_in_doubt(&cluster);
}
