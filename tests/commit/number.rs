//! A crash of the node that decides loses a transaction of which nothing was flushed, and PostgreSQL gives its number once more. While
//! that later transaction was under way, what the lost one had left prepared was taken for undecided; and where the later one
//! waited for one of its rows, both stayed for ever.

use crate::{WORKER_1, WORKER_2, ask, cluster_with_accounts, key_on};
use std::fs;
use std::thread;
use testkit::{NodeName, wait_until};

#[test]
fn a_later_transaction_of_the_same_number_does_not_keep_a_lost_one_in_doubt() {
    let cluster = cluster_with_accounts();
    let keys = [key_on(&cluster, WORKER_1), key_on(&cluster, WORKER_2)];
    let mut session = cluster.new_session();
    session.sql("SET pg_shard.fault_point = 'decide:pause'");
    session.sql("BEGIN");
    for key in keys {
        session.sql(&format!("UPDATE single SET v = 1 WHERE k = {key}"));
    }
    let mut first = cluster.session_on(WORKER_1);
    thread::scope(|scope| {
        let told = scope.spawn(move || ask(&mut session, "COMMIT"));
        let paused = cluster.data_dir(NodeName::Coordinator).join("pg_shard_paused");
        wait_until("the commit comes to the point", || paused.exists());
        // The second one decides.
        let gid = first.text("SELECT gid FROM pg_prepared_xacts");
        let number: u64 = gid.split(':').nth(3).and_then(|it| it.parse().ok()).expect("a number");
        cluster.kill(WORKER_2).expect("it runs");
        cluster.start(WORKER_2).expect("it is down");
        let mut other = cluster.session_on(WORKER_2);
        loop {
            other.sql("BEGIN");
            let own = other.text("SELECT pg_current_xact_id()").parse::<u64>();
            if own.expect("a number") >= number {
                break;
            }
            other.sql("COMMIT");
        }
        fs::remove_file(paused).expect("it is there");
        wait_until("nothing is in doubt", || {
            first.text("SELECT count(*) FROM pg_prepared_xacts") == "0"
        });
        told.join().expect("it does not panic");
        other.sql("COMMIT");
    });
    cluster.reconnect();
    let both = format!("SELECT sum(v) FROM single WHERE k IN ({}, {})", keys[0], keys[1]);
    assert_eq!(cluster.text(&both), "0");
}
