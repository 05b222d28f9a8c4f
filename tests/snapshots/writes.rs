//! Statements that change or lock rows of several nodes find them as they were at one time.
//!
//! Each node had a snapshot of its own: of two rows that one transaction had inserted, `UPDATE ... WHERE state = 'new'` changed one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use testkit::{Session, TestCluster};

/// Tables whose rows come in pairs, the two of a pair on any nodes.
fn pairs() -> TestCluster {
    let cluster = TestCluster::up_with(3, &[("pg_shard.read_consistency", "snapshot")]);
    cluster.create_distributed(
        "CREATE TABLE pairs (k int PRIMARY KEY, pair int, batch int)",
        "pairs",
        "k",
        8,
        1,
    );
    cluster.create_distributed(
        "CREATE TABLE kinds (id int PRIMARY KEY, batch int)",
        "kinds",
        "id",
        4,
        1,
    );
    cluster.create_distributed(
        "CREATE TABLE copies (k int PRIMARY KEY, pair int)",
        "copies",
        "k",
        8,
        1,
    );
    cluster.sql("INSERT INTO kinds SELECT i, 0 FROM generate_series(1, 4) AS i");
    cluster.sql("CREATE TABLE local_kinds (batch int); INSERT INTO local_kinds VALUES (0)");
    cluster
}

/// Inserts pairs, each in one transaction, until `ends`.
fn insert(mut session: Session, ends: &AtomicBool, client: i32) {
    let mut pair = client * 1_000_000;
    while !ends.load(Ordering::Relaxed) {
        pair += 1;
        let (one, other) = (pair * 2, pair * 2 + 1);
        session.sql(&format!(
            "BEGIN; INSERT INTO pairs VALUES ({one}, {pair}, 0); \
             INSERT INTO pairs VALUES ({other}, {pair}, 0); COMMIT"
        ));
    }
}

/// Runs `body` beside transactions that insert pairs.
fn beside_inserts(cluster: &TestCluster, body: impl FnOnce()) {
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        for client in 1..=3 {
            let (session, ends) = (cluster.new_session(), &ends);
            scope.spawn(move || insert(session, ends, client));
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        ends.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

const HALVES: &str = "SELECT count(*) FROM (SELECT pair FROM pairs GROUP BY pair HAVING min(batch) <> max(batch)) AS half";

#[test]
fn a_write_of_several_nodes_finds_both_rows_of_a_transaction_or_none() {
    let cluster = pairs();
    let mut session = cluster.new_session();
    beside_inserts(&cluster, || {
        let until = Instant::now() + Duration::from_secs(3);
        let mut batch = 0;
        while Instant::now() < until {
            for write in [
                "UPDATE pairs SET batch = {} WHERE batch = 0",
                "UPDATE pairs SET batch = {} FROM local_kinds AS l WHERE pairs.batch = l.batch",
                "UPDATE pairs SET batch = {} FROM kinds WHERE pairs.batch = kinds.batch",
                "MERGE INTO pairs USING local_kinds AS l ON pairs.batch = l.batch \
                 WHEN MATCHED THEN UPDATE SET batch = {}",
                "WITH old AS (DELETE FROM copies WHERE k % 2 = 5) UPDATE pairs SET batch = {} WHERE batch = 0",
            ] {
                batch += 1;
                session.sql(&write.replace("{}", &batch.to_string()));
            }
        }
    });
    assert_eq!(session.text(HALVES), "0");
}

#[test]
fn rows_of_several_nodes_are_locked_deleted_and_copied_in_pairs() {
    let cluster = pairs();
    let mut session = cluster.new_session();
    let assert_pairs = |rows: Vec<Vec<String>>, what: &str| {
        let mut found: Vec<String> = rows.into_iter().flatten().collect();
        found.sort_unstable();
        let halves: Vec<_> = found.chunk_by(|a, b| a == b).filter(|it| it.len() % 2 == 1).collect();
        assert!(halves.is_empty(), "{what}: {halves:?}");
    };
    beside_inserts(&cluster, || {
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            for lock in [
                "SELECT pair FROM pairs FOR UPDATE",
                "SELECT pair FROM pairs JOIN kinds ON kinds.id = 1 FOR SHARE OF pairs",
            ] {
                session.sql("BEGIN");
                assert_pairs(session.sql(lock), lock);
                session.sql("COMMIT");
            }
            // On the nodes, and over the coordinator with rows of another table.
            session.sql("INSERT INTO copies SELECT k, pair FROM pairs");
            assert_pairs(session.sql("DELETE FROM copies RETURNING pair"), "INSERT ... SELECT");
            let joined = "INSERT INTO copies SELECT p.k, p.pair FROM pairs AS p \
                 JOIN pairs AS q ON q.pair = p.pair AND q.k <> p.k";
            session.sql(joined);
            assert_pairs(session.sql("DELETE FROM copies RETURNING pair"), joined);
            let delete = "DELETE FROM pairs WHERE batch = 0 RETURNING pair";
            assert_pairs(session.sql(delete), delete);
        }
    });
}

/// The node has waited for a row for longer than it keeps what was there at a time.
#[test]
fn a_write_of_several_shards_waits_for_rows_for_long() {
    let cluster = TestCluster::up_with(1, &[("pg_shard.read_consistency", "snapshot")]);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v int)", "t", "k", 4, 1);
    cluster.create_distributed("CREATE TABLE u (k int PRIMARY KEY, v int)", "u", "k", 3, 1);
    cluster.sql("INSERT INTO t SELECT i, 0 FROM generate_series(1, 40) AS i");
    cluster.sql("INSERT INTO u SELECT i, 0 FROM generate_series(1, 40) AS i");
    for write in [
        "UPDATE t SET v = v + 1 RETURNING k",
        "UPDATE t SET v = t.v + 1 FROM u WHERE u.k + 0 = t.k RETURNING t.k",
        "WITH x AS (UPDATE t SET v = v + 1 RETURNING k) SELECT k FROM x JOIN u USING (k)",
    ] {
        let (mut holder, mut writer) = (cluster.new_session(), cluster.new_session());
        holder.sql("BEGIN; SELECT * FROM t FOR UPDATE; INSERT INTO t VALUES (41, 0)");
        thread::scope(|scope| {
            let running = scope.spawn(|| writer.sql(write).len());
            // Longer than the three seconds for which a node keeps what was there.
            thread::sleep(Duration::from_secs(5));
            holder.sql("COMMIT");
            assert_eq!(running.join().expect("the write succeeds"), 40, "{write}");
        });
        cluster.sql("DELETE FROM t WHERE k = 41");
    }
}

/// As PostgreSQL does: what another transaction has changed since is looked at once more.
#[test]
fn rows_that_have_changed_meanwhile_are_looked_at_again() {
    let cluster = pairs();
    cluster.sql("INSERT INTO pairs SELECT i, i, 0 FROM generate_series(1, 20) AS i");
    let (mut holder, mut writer) = (cluster.new_session(), cluster.new_session());
    holder.sql("BEGIN; UPDATE pairs SET batch = 7 WHERE k <= 10");
    thread::scope(|scope| {
        let running = scope.spawn(|| writer.text("WITH w AS (UPDATE pairs SET batch = batch + 1 WHERE batch = 0 RETURNING k) SELECT count(*) FROM w"));
        testkit::wait_until("the write waits for a row", || {
            cluster.workers().into_iter().any(|worker| {
                cluster.session_on(worker).count("SELECT count(*) FROM pg_locks WHERE NOT granted")
                    > 0
            })
        });
        holder.sql("COMMIT");
        assert_eq!(running.join().expect("the write succeeds"), "10");
    });
    assert_eq!(cluster.text("SELECT count(*) FROM pairs WHERE batch = 7"), "10");
    // No update is lost, whoever comes first.
    holder.sql("BEGIN; UPDATE pairs SET batch = batch + 100 WHERE k <= 10");
    thread::scope(|scope| {
        let running = scope.spawn(|| writer.sql("UPDATE pairs SET batch = batch + 1000"));
        testkit::wait_until("the write waits for a row", || {
            cluster.workers().into_iter().any(|worker| {
                cluster.session_on(worker).count("SELECT count(*) FROM pg_locks WHERE NOT granted")
                    > 0
            })
        });
        holder.sql("COMMIT");
        running.join().expect("the write succeeds");
    });
    assert_eq!(cluster.text("SELECT sum(batch) FROM pairs"), (10 * 1107 + 10 * 1001).to_string());
}

/// One that has been changed since the transaction's time is not changed, on whichever node it is.
#[test]
fn a_repeatable_read_write_of_several_nodes_fails_where_a_row_has_changed() {
    let cluster = pairs();
    cluster.sql("INSERT INTO pairs SELECT i, i, 0 FROM generate_series(1, 20) AS i");
    let (mut one, mut other) = (cluster.new_session(), cluster.new_session());
    for key in 1..=6 {
        for write in [
            "UPDATE pairs SET batch = batch + 1",
            "UPDATE pairs SET batch = pairs.batch + 1 FROM local_kinds",
            "DELETE FROM pairs",
            "MERGE INTO pairs USING local_kinds ON true WHEN MATCHED THEN DELETE",
            "SELECT * FROM pairs FOR UPDATE",
        ] {
            one.sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pairs");
            other.sql(&format!("UPDATE pairs SET pair = pair + 1 WHERE k = {key}"));
            assert_eq!(one.error(write).sqlstate, "40001", "{write} after a change of {key}");
            one.sql("ROLLBACK");
        }
    }
    assert_eq!(cluster.text("SELECT count(*), sum(batch) FROM pairs"), "20|0");
}
