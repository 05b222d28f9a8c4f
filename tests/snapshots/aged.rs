//! A server that is asked to read at a time: by the name of a portal, or by a snapshot to import. Transactions over several
//! nodes are made by hand.

use testkit::{NodeName, Session, TestCluster, wait_until};

fn server() -> TestCluster {
    let cluster = TestCluster::up(1);
    cluster.sql(
        "CREATE TABLE acc (id int PRIMARY KEY, bal int, note text DEFAULT ''); \
         INSERT INTO acc SELECT i, 100 FROM generate_series(1, 10) AS i",
    );
    read_once(&cluster);
    cluster
}

fn clock(session: &mut Session) -> i64 {
    session.text("SELECT pgs_catalog.clock()").parse().expect("a number")
}

/// From now on the server keeps what snapshots of the past see.
fn read_once(cluster: &TestCluster) {
    let mut session = cluster.new_session();
    let now = clock(&mut session);
    at(&mut session, now, "SELECT 1");
}

/// Begins a transaction that reads at that time.
fn begin_at(session: &mut Session, at: i64) {
    session.sql(&format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT 'pgs_at_{at}'"
    ));
}

/// What a transaction of that time sees.
fn at(session: &mut Session, at: i64, query: &str) -> String {
    begin_at(session, at);
    let text = session.text(query);
    session.sql("COMMIT");
    text
}

#[test]
fn a_snapshot_of_the_past_hides_what_was_committed_since() {
    let cluster = server();
    let (mut one, mut other) = (cluster.new_session(), cluster.new_session());
    let before = clock(&mut one);
    one.sql("UPDATE acc SET bal = 0 WHERE id = 1");
    one.sql("DELETE FROM acc WHERE id = 2");
    one.sql("INSERT INTO acc VALUES (11, 1000)");
    // With subtransactions, and more changes of a row than one.
    one.sql("BEGIN; UPDATE acc SET bal = 1 WHERE id = 1; SAVEPOINT a; UPDATE acc SET bal = 2 WHERE id = 1; INSERT INTO acc VALUES (12, 7); RELEASE a; COMMIT");
    let middle = clock(&mut one);
    one.sql("UPDATE acc SET bal = 3 WHERE id = 1");
    let query = "SELECT count(*), sum(bal), min(bal) FROM acc";
    assert_eq!(at(&mut other, before, query), "10|1000|100");
    assert_eq!(at(&mut other, middle, query), "11|1809|2");
    let now = clock(&mut one);
    assert_eq!(at(&mut other, now, query), other.text(query));
    // No row shows twice, whichever version of it is hidden.
    assert_eq!(at(&mut other, before, "SELECT count(*) FROM acc WHERE id = 1"), "1");
    assert_eq!(at(&mut other, middle, "SELECT count(*) FROM acc WHERE id = 1"), "1");
}

#[test]
fn a_conflicting_update_behind_a_snapshot_of_the_past_is_refused() {
    let cluster = server();
    let (mut one, mut other) = (cluster.new_session(), cluster.new_session());
    let before = clock(&mut one);
    one.sql("UPDATE acc SET bal = 0 WHERE id = 1");
    begin_at(&mut other, before);
    other.sql("UPDATE acc SET bal = bal + 1 WHERE id = 2");
    let error = other.error("UPDATE acc SET bal = bal + 1 WHERE id = 1");
    assert_eq!(error.line(), "40001: could not serialize access due to concurrent update");
    other.sql("ROLLBACK");
    assert_eq!(other.text("SELECT sum(bal) FROM acc"), "900");
}

#[test]
fn vacuum_and_pruning_leave_what_a_snapshot_of_the_past_sees() {
    let cluster = server();
    let (mut one, mut other) = (cluster.new_session(), cluster.new_session());
    let before = clock(&mut one);
    for turn in 1..=300 {
        one.sql(&format!("UPDATE acc SET bal = {turn} WHERE id = 1"));
    }
    one.sql("DELETE FROM acc WHERE id = 2; INSERT INTO acc VALUES (2, 5)");
    begin_at(&mut other, before);
    one.sql("VACUUM acc");
    assert_eq!(one.text("SELECT sum(bal) FROM acc"), "1105");
    assert_eq!(other.text("SELECT sum(bal), count(*) FROM acc"), "1000|10");
    one.sql("VACUUM (FREEZE) acc");
    assert_eq!(other.text("SELECT sum(bal), count(*) FROM acc"), "1000|10");
    other.sql("SET LOCAL enable_seqscan = off");
    assert_eq!(other.text("SELECT bal FROM acc WHERE id = 1"), "100");
    assert_eq!(other.text("SELECT count(id) FROM acc WHERE id > 0"), "10");
    other.sql("COMMIT");
}

#[test]
fn parallel_workers_see_the_same_moment() {
    let cluster = TestCluster::up(1);
    read_once(&cluster);
    let (mut one, mut other) = (cluster.new_session(), cluster.new_session());
    one.sql(
        "CREATE TABLE big AS SELECT i, 1 AS v FROM generate_series(1, 20000) AS i; ANALYZE big",
    );
    let before = clock(&mut one);
    one.sql("UPDATE big SET v = 2 WHERE i <= 10");
    one.sql(
        "BEGIN; SAVEPOINT a; UPDATE big SET v = 3 WHERE i BETWEEN 11 AND 20; RELEASE a; COMMIT",
    );
    begin_at(&mut other, before);
    other.sql(
        "SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0; \
         SET LOCAL min_parallel_table_scan_size = 0",
    );
    // The latter is its name since PostgreSQL 16.
    other.sql(
        "SELECT set_config(name, 'on', true) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')",
    );
    let plan = other.text("EXPLAIN SELECT sum(v) FROM big");
    assert!(plan.contains("Workers Planned"), "{plan}");
    assert_eq!(other.text("SELECT sum(v), count(*) FROM big"), "20000|20000");
    other.sql("COMMIT");
    assert_eq!(other.text("SELECT sum(v), count(*) FROM big"), "20030|20000");
}

#[test]
fn a_prepared_transaction_shows_at_the_time_that_was_agreed() {
    let cluster = server();
    let (mut one, mut other) = (cluster.new_session(), cluster.new_session());
    one.sql("BEGIN; UPDATE acc SET bal = 0 WHERE id = 1; PREPARE TRANSACTION 'pg_shard:test'");
    let agreed = clock(&mut one) + 1;
    let mut reader = cluster.new_session();
    // Whoever reads before the prepare does not wait.
    let pid = reader.text("SELECT pg_backend_pid()");
    let waiting = std::thread::spawn(move || {
        let early = at(&mut reader, agreed - 1, "SELECT sum(bal) FROM acc");
        (early, at(&mut reader, agreed, "SELECT sum(bal) FROM acc"))
    });
    wait_until("the reader waits for the prepared transaction", || {
        let query = format!(
            "SELECT wait_event FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'"
        );
        other.text(&query) == "transactionid"
    });
    one.sql(&format!("SELECT pgs_catalog.commit_prepared_at({agreed})"));
    one.sql("COMMIT PREPARED 'pg_shard:test'");
    assert_eq!(waiting.join().expect("no panic"), ("1000".to_owned(), "900".to_owned()));
    let last: i64 = one.text("SELECT pgs_catalog.commit_time()").parse().expect("a number");
    assert!(last >= agreed, "{last} {agreed}");
}

#[test]
fn a_prepared_transaction_of_a_client_keeps_no_reader_waiting() {
    let cluster = server();
    let (mut one, mut other) = (cluster.new_session(), cluster.new_session());
    one.sql("BEGIN; UPDATE acc SET bal = 0 WHERE id = 1; PREPARE TRANSACTION 'xa'");
    let now = clock(&mut one);
    assert_eq!(at(&mut other, now, "SELECT sum(bal) FROM acc"), "1000");
    one.sql("COMMIT PREPARED 'xa'");
    assert_eq!(at(&mut other, now, "SELECT sum(bal) FROM acc"), "1000");
    let now = clock(&mut one);
    assert_eq!(at(&mut other, now, "SELECT sum(bal) FROM acc"), "900");
    one.sql("BEGIN; UPDATE acc SET bal = 0 WHERE id = 2; PREPARE TRANSACTION 'xb'");
    one.sql("ROLLBACK PREPARED 'xb'");
    let now = clock(&mut one);
    assert_eq!(at(&mut other, now, "SELECT sum(bal) FROM acc"), "900");
}

#[test]
fn times_that_cannot_be_read_are_refused() {
    let cluster = server();
    let (mut one, mut other) = (cluster.new_session(), cluster.new_session());
    let now = clock(&mut one);
    one.sql("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let refused = |session: &mut Session, at: i64| {
        let error = session.error(&format!("SET TRANSACTION SNAPSHOT 'pgs_at_{at}'"));
        session.sql("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ");
        (error.sqlstate.clone(), error.detail.clone())
    };
    assert_eq!(refused(&mut one, 1).0, "72000");
    let far = now + 256 * 3_600_000_000;
    assert_eq!(refused(&mut one, far).0, "72000");
    assert_eq!(refused(&mut one, i64::MAX).0, "72000");
    assert!(clock(&mut other) < far);
    // Not in the middle of a transaction, nor where each statement sees its own snapshot, nor where serializable is promised.
    let text = format!("SET TRANSACTION SNAPSHOT 'pgs_at_{now}'");
    one.sql("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    assert_eq!(one.error(&text).sqlstate, "25001");
    one.sql("ROLLBACK; BEGIN ISOLATION LEVEL SERIALIZABLE");
    assert_eq!(one.error(&text).sqlstate, "0A000");
    one.sql("ROLLBACK; BEGIN");
    assert_eq!(one.error(&text).sqlstate, "0A000");
    one.sql("ROLLBACK");
    assert_eq!(one.error(&format!("SELECT pgs_catalog.commit_at({far})")).sqlstate, "72000");
    assert_eq!(one.error("SELECT pgs_catalog.commit_at(-1)").sqlstate, "22023");
}

#[test]
fn rows_that_may_have_been_removed_are_not_read() {
    let cluster = server();
    let (mut one, mut other) = (cluster.new_session(), cluster.new_session());
    let before = clock(&mut one);
    one.sql("UPDATE acc SET bal = 0 WHERE id = 1");
    wait_until("the horizon has passed", || {
        other.sql("BEGIN ISOLATION LEVEL REPEATABLE READ");
        let outcome = other.try_sql(&format!("SET TRANSACTION SNAPSHOT 'pgs_at_{before}'"));
        other.sql("ROLLBACK");
        outcome.is_err_and(|error| error.sqlstate == "72000")
    });
    // A time since which nothing was committed is as good as now.
    let now = clock(&mut one);
    one.sql("SELECT pg_sleep(1.5)");
    assert_eq!(at(&mut other, now, "SELECT sum(bal) FROM acc"), "900");
}

#[test]
fn after_a_restart_what_is_in_doubt_is_waited_for_and_older_times_are_refused() {
    let cluster = server();
    let mut one = cluster.new_session();
    let before = clock(&mut one);
    one.sql("BEGIN; UPDATE acc SET bal = 0 WHERE id = 1; PREPARE TRANSACTION 'pg_shard:test'");
    cluster.stop(NodeName::Coordinator).expect("it is up");
    cluster.start(NodeName::Coordinator).expect("it starts again");
    let (mut one, mut other) = (cluster.new_session(), cluster.new_session());
    other.sql("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let refused = other.error(&format!("SET TRANSACTION SNAPSHOT 'pgs_at_{before}'"));
    assert_eq!(refused.sqlstate, "72000");
    other.sql(
        "ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL statement_timeout = '200ms'",
    );
    let now = clock(&mut one);
    let waited = other.error(&format!("SET TRANSACTION SNAPSHOT 'pgs_at_{now}'"));
    assert_eq!(waited.sqlstate, "57014");
    other.sql("ROLLBACK");
    let agreed = now + 1;
    one.sql(&format!("SELECT pgs_catalog.commit_prepared_at({agreed})"));
    one.sql("COMMIT PREPARED 'pg_shard:test'");
    assert_eq!(at(&mut other, now, "SELECT sum(bal) FROM acc"), "1000");
    assert_eq!(at(&mut other, agreed, "SELECT sum(bal) FROM acc"), "900");
}
