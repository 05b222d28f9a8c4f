//! The anomalies that a snapshot excludes, and those that it does not, over several nodes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use testkit::{NodeName, Session, TestCluster, wait_until};

/// Rows 1 to 24 with 100 each, on two workers.
fn accounts() -> TestCluster {
    let cluster = TestCluster::up_with(2, &[("pg_shard.read_consistency", "snapshot")]);
    let table = "CREATE TABLE acc (id int PRIMARY KEY, bal int)";
    cluster.create_distributed(table, "acc", "id", 8, 1);
    cluster.sql("INSERT INTO acc SELECT i, 100 FROM generate_series(1, 24) AS i");
    cluster
}

/// Two rows on different nodes.
fn apart(cluster: &TestCluster) -> (i32, i32) {
    let node = |id: i32| {
        cluster.text(&format!(
        "SELECT p.node_port FROM pgs_distribution_metadata.shard_placement AS p JOIN pgs_distribution_metadata.shard AS s \
         ON s.id = p.shard_id WHERE s.relation_id = 'acc'::regclass \
         AND hashint4({id}) BETWEEN s.min_value::int AND s.max_value::int"
    ))
    };
    let first = node(1);
    let other = (2..=24).find(|id| node(*id) != first).expect("there are two nodes");
    (1, other)
}

fn begin(session: &mut Session) {
    session.sql("BEGIN ISOLATION LEVEL REPEATABLE READ");
}

#[test]
fn no_update_is_lost_between_two_repeatable_read_transactions() {
    let cluster = accounts();
    let (mut one, mut other) = (cluster.new_session(), cluster.new_session());
    begin(&mut one);
    begin(&mut other);
    let sum = "SELECT sum(bal) FROM acc";
    assert_eq!((one.text(sum), other.text(sum)), ("2400".into(), "2400".into()));
    one.sql("UPDATE acc SET bal = bal + 1 WHERE id = 7; COMMIT");
    let refused = other.error("UPDATE acc SET bal = bal + 10 WHERE id = 7");
    assert_eq!(refused.sqlstate, "40001");
    other.sql("ROLLBACK");
    assert_eq!(one.text("SELECT bal FROM acc WHERE id = 7"), "101");
}

#[test]
fn repeatable_read_allows_write_skew_as_on_one_server() {
    let cluster = accounts();
    let (a, b) = (1, 2);
    let (mut one, mut other) = (cluster.new_session(), cluster.new_session());
    begin(&mut one);
    begin(&mut other);
    let both = format!("SELECT sum(bal) FROM acc WHERE id IN ({a}, {b})");
    assert_eq!((one.text(&both), other.text(&both)), ("200".into(), "200".into()));
    one.sql(&format!("UPDATE acc SET bal = -50 WHERE id = {a}; COMMIT"));
    other.sql(&format!("UPDATE acc SET bal = -50 WHERE id = {b}; COMMIT"));
    assert_eq!(one.text(&both), "-100");
}

/// Two writers of one row each, on two nodes; two readers of both. If one reader sees the first write without the second, no other sees
/// the second without the first.
#[test]
fn two_readers_see_two_writes_in_one_order() {
    let cluster = accounts();
    let (a, b) = apart(&cluster);
    for level in ["READ COMMITTED", "REPEATABLE READ"] {
        let mut seen: Vec<(i64, i64)> = Vec::new();
        let ends = AtomicBool::new(false);
        thread::scope(|scope| {
            for id in [a, b] {
                let (mut session, ends) = (cluster.new_session(), &ends);
                scope.spawn(move || {
                    while !ends.load(Ordering::Relaxed) {
                        session.sql(&format!("UPDATE acc SET bal = bal + 1 WHERE id = {id}"));
                    }
                });
            }
            let until = Instant::now() + Duration::from_secs(2);
            let readers: Vec<_> = (0..3)
                .map(|_| {
                    let mut session = cluster.new_session();
                    scope.spawn(move || {
                        let mut seen = Vec::new();
                        while Instant::now() < until {
                            let query = format!(
                                "SELECT string_agg(bal::text, ' ' ORDER BY id) FROM acc WHERE id IN ({a}, {b})"
                            );
                            session.sql(&format!("BEGIN ISOLATION LEVEL {level}"));
                            let text = session.text(&query);
                            session.sql("COMMIT");
                            let (one, other) = text.split_once(' ').expect("two numbers");
                            seen.push((one.parse().expect("one"), other.parse().expect("one")));
                        }
                        seen
                    })
                })
                .collect();
            for reader in readers {
                seen.extend(reader.join().expect("the reader reads"));
            }
            ends.store(true, Ordering::Relaxed);
        });
        seen.sort_unstable();
        let forks = seen.windows(2).filter(|two| two[0].1 > two[1].1).count();
        assert!(seen.len() > 20 && forks == 0, "{level}: {forks} of {}", seen.len());
    }
}

#[test]
fn a_node_that_is_asked_late_shows_what_was_there_when_the_transaction_began() {
    let cluster = accounts();
    let (a, b) = apart(&cluster);
    let (mut writer, mut reader) = (cluster.new_session(), cluster.new_session());
    begin(&mut reader);
    assert_eq!(reader.text(&format!("SELECT bal FROM acc WHERE id = {a}")), "100");
    writer.sql("UPDATE acc SET bal = 0");
    // Longer than nodes keep what was replaced for readers of earlier times.
    for _ in 0..3 {
        writer.sql("SELECT pg_sleep(1)");
        writer.sql("UPDATE acc SET bal = bal - 1");
    }
    assert_eq!(reader.text(&format!("SELECT bal FROM acc WHERE id = {b}")), "100");
    assert_eq!(reader.text("SELECT sum(bal), count(*) FROM acc"), "2400|24");
    reader.sql("COMMIT");
    assert_eq!(reader.text("SELECT sum(bal) FROM acc"), "-72");
}

#[test]
fn a_transaction_that_the_client_has_prepared_keeps_no_reader_waiting() {
    let cluster = accounts();
    let (mut writer, mut reader) = (cluster.new_session(), cluster.new_session());
    let sum = "SELECT sum(bal) FROM acc";
    // Until the server knows that nothing is in doubt since its start, readers wait for what is prepared.
    wait_until("readers wait for nobody", || {
        writer.sql("BEGIN; UPDATE acc SET bal = bal + 1; PREPARE TRANSACTION 'xa'");
        reader.sql("SET statement_timeout = '1s'");
        let read = reader.try_sql(sum).is_ok();
        reader.sql("RESET statement_timeout");
        writer.sql("ROLLBACK PREPARED 'xa'");
        read
    });
    writer.sql("BEGIN; UPDATE acc SET bal = bal + 1; PREPARE TRANSACTION 'xa'");
    assert_eq!(reader.text(sum), "2400");
    begin(&mut reader);
    assert_eq!(reader.text(sum), "2400");
    writer.sql("COMMIT PREPARED 'xa'");
    assert_eq!(writer.text(sum), "2424");
    assert_eq!(reader.text(sum), "2400");
    reader.sql("COMMIT");
    assert_eq!(reader.text(sum), "2424");
    // One that does not exist changes nothing.
    assert_eq!(writer.error("COMMIT PREPARED 'xb'").sqlstate, "42704");
    assert_eq!(reader.text(sum), "2424");
}

#[test]
fn a_reader_does_not_wait_for_ever_for_what_nobody_ends() {
    let cluster = accounts();
    let mut worker = cluster.session_on(NodeName::Worker(2));
    worker.sql(
        "CREATE TABLE other (i int); BEGIN; INSERT INTO other VALUES (1); PREPARE TRANSACTION 'pg_shard:nobody'",
    );
    let mut reader = cluster.new_session();
    let since = Instant::now();
    let error = reader.error("SELECT sum(bal) FROM acc");
    assert_eq!(error.sqlstate, "55P03");
    assert!(error.message.contains("pg_shard:nobody"), "{error:?}");
    let port = cluster.port(NodeName::Worker(2)).to_string();
    assert!(format!("{error:?}").contains(&port), "{error:?}");
    assert!(since.elapsed() < Duration::from_secs(40));
    worker.sql("ROLLBACK PREPARED 'pg_shard:nobody'");
    assert_eq!(reader.text("SELECT sum(bal) FROM acc"), "2400");
}
