//! FOR UPDATE and its siblings with filters that only the coordinator can compute.
//!
//! The nodes locked every row that their own filters let through, and only then the coordinator applied the others: rows were
//! locked that nobody had asked for, and a function that waited in such a filter let others change rows whose old contents were
//! then returned. Now the filters come first, and a row that has changed while its lock was waited for is looked at again.

use testkit::{Session, TestCluster, wait_until};

const STRENGTHS: [&str; 4] = ["FOR UPDATE", "FOR NO KEY UPDATE", "FOR SHARE", "FOR KEY SHARE"];

fn cluster_with_rows() -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v int); \
         SELECT create_distributed_table('t', 'id', 8, 1); \
         INSERT INTO t SELECT g, g FROM generate_series(1, 40) AS g; \
         CREATE FUNCTION is_small(n int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN n <= 3; END $$",
    );
    cluster
}

#[test]
fn rows_that_a_filter_of_the_coordinator_rejects_are_not_locked() {
    let cluster = cluster_with_rows();
    let (mut first, mut second) = (cluster.new_session(), cluster.new_session());
    let free = "SELECT id FROM t FOR UPDATE SKIP LOCKED";
    for strength in STRENGTHS {
        for (condition, locked) in [
            ("is_small(v)", 3),
            ("is_small(v) AND id = 2", 1),
            ("is_small(v) AND v > 1 LIMIT 1", 1),
        ] {
            first.sql("BEGIN");
            let (filter, limit) = condition.split_once(" LIMIT").unwrap_or((condition, ""));
            let limit = if limit.is_empty() { String::new() } else { format!(" LIMIT{limit}") };
            let found = first.sql(&format!("SELECT id FROM t WHERE {filter} {strength}{limit}"));
            assert_eq!(found.len(), locked, "{strength} {condition}");
            assert_eq!(second.sql(free).len(), 40 - locked, "{strength} {condition}");
            let error = second.error(&format!("SELECT id FROM t WHERE {filter} FOR UPDATE NOWAIT"));
            assert_eq!(error.line(), "55P03: could not obtain lock on row in relation \"t\"");
            first.sql("COMMIT");
            assert_eq!(second.sql(free).len(), 40, "{strength} {condition}");
        }
    }
    let plan =
        first.text("EXPLAIN (VERBOSE, COSTS OFF) SELECT id FROM t WHERE is_small(v) FOR UPDATE");
    assert!(plan.contains("Filter: is_small(t.v)") && plan.contains("LockRows"), "{plan}");
}

/// A row that the filter has seen is changed before it is locked.
#[test]
fn a_row_that_changed_while_its_lock_was_waited_for_is_looked_at_again() {
    let cluster = cluster_with_rows();
    let (mut writer, mut reader) = (cluster.new_session(), cluster.new_session());
    let filter = "pg_advisory_xact_lock(7) IS NOT NULL AND v = 1";
    let cases = [
        ("DELETE FROM t WHERE id = 1", "COMMIT", ""),
        ("DELETE FROM t WHERE id = 1", "ROLLBACK", "1|1"),
        ("UPDATE t SET v = 5 WHERE id = 1", "ROLLBACK", "1|1"),
    ];
    for strength in STRENGTHS {
        // A weaker lock does not wait for an UPDATE that leaves the key alone.
        let waits = |change: &str| change.starts_with("DELETE") || strength != "FOR KEY SHARE";
        for key in ["", " AND id = 1"] {
            for (change, end, expected) in cases.iter().filter(|(change, ..)| waits(change)) {
                for block in [("", ""), ("BEGIN;", "; COMMIT")] {
                    let select = format!(
                        "{}SELECT * FROM t WHERE {filter}{key} {strength}{}",
                        block.0, block.1
                    );
                    let found = meanwhile(&cluster, &mut writer, &mut reader, &select, change, end);
                    assert_eq!(found, *expected, "{select}, {change}, {end}");
                    writer.sql("INSERT INTO t VALUES (1, 1) ON CONFLICT DO NOTHING");
                }
            }
        }
    }
    // What it has become passes the filter, or does not.
    for (filter, expected) in [("v < 7", "1|5"), ("v < 3", "")] {
        writer.sql("UPDATE t SET v = 1 WHERE id = 1");
        let select = format!(
            "SELECT * FROM t WHERE pg_advisory_xact_lock(7) IS NOT NULL AND id = 1 AND (v + 0 * pg_backend_pid()) {} FOR UPDATE",
            &filter[1..]
        );
        let change = "UPDATE t SET v = 5 WHERE id = 1";
        let found = meanwhile(&cluster, &mut writer, &mut reader, &select, change, "COMMIT");
        assert_eq!(found, expected, "{select}");
    }
}

/// The rows of `select`, whose filter waits until `change` has been executed, and which then waits for the `end` of that transaction.
fn meanwhile(
    cluster: &TestCluster,
    writer: &mut Session,
    reader: &mut Session,
    select: &str,
    change: &str,
    end: &str,
) -> String {
    writer.sql("SELECT pg_advisory_lock(7)");
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| reader.text(select));
        let waits_here = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        wait_until("the filter waits", || !cluster.sql(waits_here).is_empty());
        writer.sql(&format!("BEGIN; {change}; SELECT pg_advisory_unlock(7)"));
        let mut workers: Vec<Session> =
            cluster.workers().into_iter().map(|node| cluster.session_on(node)).collect();
        let waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        wait_until("the lock is waited for", || {
            workers.iter_mut().any(|worker| !worker.sql(waits).is_empty())
        });
        assert!(!reading.is_finished());
        writer.sql(end);
        reading.join().expect("the reader has its rows")
    })
}

/// A row that was changed while another one had gone was claimed twice: once as what it had become, once more as a new candidate.
#[test]
fn a_row_is_claimed_once_whatever_has_become_of_it() {
    let cluster = cluster_with_rows();
    let (mut writer, mut reader) = (cluster.new_session(), cluster.new_session());
    let select = "SELECT * FROM t WHERE pg_advisory_xact_lock(7) IS NOT NULL AND v < 3 FOR UPDATE";
    let change = "UPDATE t SET v = 0 WHERE id = 1; DELETE FROM t WHERE id = 2";
    let found = meanwhile(&cluster, &mut writer, &mut reader, select, change, "COMMIT");
    assert_eq!(found, "1|0");
}
