//! Whoever cancels a statement, or sets it a limit, ends it on the workers as well.

use crate::{Locked, cluster_with_a_table};
use std::io::Write;
use std::thread;
use testkit::{TestCluster, wait_until};

/// No worker is doing anything for the coordinator, but for the session of whoever asks.
#[track_caller]
fn workers_come_to_rest(cluster: &TestCluster) {
    cluster.wait_for_rest();
    for worker in cluster.workers() {
        let mut session = cluster.session_on(worker);
        assert_eq!(
            session
                .text("SELECT count(*) FROM pg_locks WHERE relation::regclass::text LIKE 't\\_%'"),
            "0"
        );
    }
}

/// Statements that would take for ever on both workers.
const ENDLESS: [&str; 5] = [
    // Rows that never come, of all shards.
    "SELECT count(*) FROM t WHERE (SELECT count(*) FROM generate_series(1, k + 2000000000)) > 0",
    // Rows that come for ever, and are put in order here.
    "SELECT k, i FROM t, generate_series(1, k + 2000000000) AS i ORDER BY v, i OFFSET 1000000000",
    // A write on the workers.
    "UPDATE t SET v = (SELECT count(*) FROM generate_series(1, k + 2000000000))",
    // A write whose rows are computed here.
    "UPDATE t SET v = other.v FROM t AS other WHERE other.v = t.v || (SELECT count(*) FROM generate_series(1, other.k + 2000000000))",
    // Rows that are moved from shard to shard.
    "INSERT INTO t SELECT k + 20000 FROM t, generate_series(1, k + 2000000000) AS i",
];

#[test]
fn a_cancel_from_another_session_ends_reads_and_writes_on_the_workers() {
    let cluster = cluster_with_a_table();
    for statement in ENDLESS {
        let session = cluster.new_session();
        let after = "SELECT count(*) FROM t WHERE k = 1";
        assert_eq!(cluster.cancel_in_the_middle(session, statement, after), "1");
        workers_come_to_rest(&cluster);
    }
    assert_eq!(cluster.text("SELECT count(*), count(DISTINCT v) FROM t"), "10000|10000");
}

#[test]
fn a_statement_timeout_ends_reads_and_writes_on_the_workers() {
    let cluster = cluster_with_a_table();
    let mut session = cluster.new_session();
    for statement in ENDLESS {
        session.sql("SET statement_timeout = '200ms'");
        assert_eq!(
            session.error(statement).line(),
            "57014: canceling statement due to statement timeout",
            "{statement}"
        );
        session.sql("SET statement_timeout = 0");
        workers_come_to_rest(&cluster);
    }
    assert_eq!(cluster.text("SELECT count(*), count(DISTINCT v) FROM t"), "10000|10000");
}

#[test]
fn a_copy_that_waits_for_a_worker_is_cancelled_there_too() {
    let cluster = cluster_with_a_table();
    let locked = Locked::shard_of(&cluster, 1);
    for by_timeout in [false, true] {
        let mut session = cluster.new_session();
        if by_timeout {
            session.sql("SET statement_timeout = '300ms'");
        }
        let pid = session.text("SELECT pg_backend_pid()");
        thread::scope(|scope| {
            let ended = scope.spawn(move || {
                let mut writer = session.client().copy_in("COPY t FROM STDIN").expect("it begins");
                let rows: String = (20_000..30_000).map(|k| format!("{k}\tx\n")).collect();
                let outcome = writer
                    .write_all(rows.as_bytes())
                    .map_err(|error| error.to_string())
                    .and_then(|()| writer.finish().map_err(|error| format!("{error:?}")));
                (outcome.expect_err("the shard is locked"), session.text("SELECT 1"))
            });
            if !by_timeout {
                wait_until("the COPY waits for the worker", || {
                    cluster.text(&format!(
                        "SELECT count(*) FROM pgs_catalog.activity WHERE pid = {pid} AND cardinality(waiting_for) = 1"
                    )) == "1"
                });
                cluster.sql(&format!("SELECT pg_cancel_backend({pid})"));
            }
            let (error, one) = ended.join().expect("it does not panic");
            assert!(error.contains("57014"), "{error}");
            assert_eq!(one, "1");
        });
    }
    locked.unlock();
    workers_come_to_rest(&cluster);
    assert_eq!(cluster.text("SELECT count(*) FROM t"), "10000");
}

/// A MERGE that changes nothing could not be cancelled, and the cancel met the statement after it, COMMIT included: the loop
/// over the rows never looked for interrupts. The row that meets the cancel is in the middle, or the last.
#[test]
fn a_cancel_ends_a_write_whose_rows_change_nothing_and_not_the_next_statement() {
    let cluster = cluster_with_a_table();
    cluster
        .sql("CREATE TABLE plain (k int PRIMARY KEY, v text); INSERT INTO plain SELECT * FROM t");
    let cancels = "pg_catalog.pg_cancel_backend(pg_catalog.pg_backend_pid())";
    for table in ["plain", "t"] {
        let mut session = cluster.new_session();
        for (row, rows) in [(3, 1000), (1000, 1000), (1, 1)] {
            for statement in [
                format!(
                    "MERGE INTO {table} USING generate_series(1, {rows}) AS g ON k = g - 20000 WHEN NOT MATCHED AND g = {row} AND NOT {cancels} THEN INSERT VALUES (g, '')"
                ),
                format!(
                    "MERGE INTO {table} USING generate_series(1, {rows}) AS g ON k = g WHEN MATCHED AND g = {row} AND NOT {cancels} THEN DELETE"
                ),
                format!(
                    "INSERT INTO {table} SELECT g, 'x' FROM generate_series(1, {rows}) AS g WHERE g = {row} AND NOT {cancels}"
                ),
                format!(
                    "INSERT INTO {table} SELECT g, 'x' FROM generate_series(1, {rows}) AS g WHERE g = {row} AND NOT {cancels} ON CONFLICT DO NOTHING"
                ),
            ] {
                session.sql(&format!("BEGIN; UPDATE {table} SET v = v || '.' WHERE k = 1"));
                assert_eq!(
                    session.error(&statement).line(),
                    "57014: canceling statement due to user request",
                    "{statement}"
                );
                session.sql("ROLLBACK");
                assert_eq!(session.text(&format!("SELECT v FROM {table} WHERE k = 1")), "row 1");
            }
        }
    }
}
