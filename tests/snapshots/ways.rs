//! Every way of reading over several nodes shows transactions whole.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use testkit::{NodeName, Session, TestCluster};

const TOTAL: &str = "2400";

fn bank() -> TestCluster {
    let cluster = TestCluster::up_with(3, &[("pg_shard.read_consistency", "snapshot")]);
    let table = "CREATE TABLE acc (id int PRIMARY KEY, bal int)";
    cluster.create_distributed(table, "acc", "id", 8, 1);
    cluster.on_all_nodes("CREATE ROLE teller LOGIN");
    cluster.sql(
        "INSERT INTO acc SELECT i, 100 FROM generate_series(1, 24) AS i; \
         GRANT SELECT ON acc TO teller; \
         CREATE VIEW total AS SELECT sum(bal) AS total FROM acc; GRANT SELECT ON total TO teller; \
         CREATE FUNCTION counted() RETURNS bigint LANGUAGE plpgsql AS \
         $$ BEGIN RETURN (SELECT sum(bal) FROM acc); END $$",
    );
    cluster
}

/// Moves money to and fro on `cluster` while `reads` reads; nodes may fail meanwhile.
fn beside_transfers(cluster: &TestCluster, reads: impl FnOnce()) {
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..3_u32 {
            let (mut session, ends) = (cluster.new_session(), &ends);
            scope.spawn(move || {
                for turn in seed.. {
                    if ends.load(Ordering::Relaxed) {
                        break;
                    }
                    let (low, high) = (turn % 12 + 1, turn * 7 % 12 + 13);
                    let moved = session.try_sql(&format!(
                        "BEGIN; UPDATE acc SET bal = bal - 3 WHERE id = {low}; \
                         UPDATE acc SET bal = bal + 3 WHERE id = {high}; COMMIT"
                    ));
                    if moved.is_err() {
                        drop(session.try_sql("ROLLBACK"));
                    }
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(reads));
        ends.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

fn for_a_while(duration: Duration, mut read: impl FnMut()) {
    let until = Instant::now() + duration;
    while Instant::now() < until {
        read();
    }
}

fn copied(session: &mut Session, copy: &str) -> String {
    let mut text = String::new();
    let mut rows = session.client().copy_out(copy).expect("a COPY");
    rows.read_to_string(&mut text).expect("its rows");
    text
}

fn sum_of_lines(text: &str) -> String {
    text.lines().map(|line| line.trim().parse::<i64>().expect("a number")).sum::<i64>().to_string()
}

#[test]
fn copies_cursors_views_functions_and_joins_show_whole_transfers() {
    let cluster = bank();
    let mut session = cluster.new_session();
    let mut teller = cluster.session_as("teller");
    beside_transfers(&cluster, || {
        for_a_while(Duration::from_secs(5), || {
            assert_eq!(
                sum_of_lines(&copied(&mut session, "COPY (SELECT bal FROM acc) TO STDOUT")),
                TOTAL
            );
            assert_eq!(sum_of_lines(&copied(&mut session, "COPY acc (bal) TO STDOUT")), TOTAL);
            assert_eq!(session.text("SELECT counted()"), TOTAL);
            // A view of another owner.
            assert_eq!(teller.text("SELECT total FROM total"), TOTAL);
            assert_eq!(teller.text("SELECT sum(bal) FROM acc"), TOTAL);
            // Rows come together by another column than the key, and a sub-query reads the table once more.
            let moved = "SELECT sum(a.bal) FROM acc AS a JOIN acc AS b ON b.id = 25 - a.id";
            assert_eq!(session.text(moved), TOTAL);
            let twice =
                "SELECT (SELECT sum(bal) FROM acc) - (SELECT sum(bal) FROM acc WHERE id > 0)";
            assert_eq!(session.text(twice), "0");
            session.sql("BEGIN; DECLARE c CURSOR FOR SELECT bal FROM acc");
            assert_eq!(sum_of_lines(&session.text("FETCH ALL FROM c")), TOTAL);
            session.sql("COMMIT");
        });
    });
}

#[test]
fn a_node_that_restarts_shows_no_half_of_a_transfer() {
    let cluster = bank();
    let mut session = cluster.new_session();
    beside_transfers(&cluster, || {
        for turn in 0..4_u16 {
            let worker = NodeName::Worker(turn % 3 + 1);
            if turn % 2 == 0 {
                cluster.kill(worker).expect("it is up");
            } else {
                cluster.stop(worker).expect("it is up");
            }
            for_a_while(Duration::from_millis(300), || check(&mut session));
            cluster.start(worker).expect("it starts again");
            for_a_while(Duration::from_secs(2), || check(&mut session));
        }
    });
    testkit::wait_until("nothing is in doubt", || {
        session.try_sql("SELECT sum(bal) FROM acc").is_ok()
    });
    assert_eq!(session.text("SELECT sum(bal) FROM acc"), TOTAL);
}

fn check(session: &mut Session) {
    if let Ok(rows) = session.try_sql("SELECT sum(bal) FROM acc") {
        assert_eq!(rows, [[TOTAL]]);
    }
}
