//! Transaction blocks and savepoints.

use std::sync::Barrier;
use std::thread;
use testkit::{TestCluster, wait_until};

#[test]
fn a_transaction_is_whole_or_not_at_all() {
    let cluster = TestCluster::up(3);
    cluster.create_distributed(
        "CREATE TABLE ledger (key int PRIMARY KEY, v int)",
        "ledger",
        "key",
        8,
        2,
    );
    let mut session = cluster.new_session();
    let mut other = cluster.new_session();
    session.sql("INSERT INTO ledger SELECT i, 0 FROM generate_series(1, 40) AS i");

    // Own changes are seen inside, by nobody outside, and by everybody afterwards.
    session.sql("BEGIN; UPDATE ledger SET v = 1 WHERE key = 1; UPDATE ledger SET v = 2 WHERE key = 2; INSERT INTO ledger VALUES (41, 41)");
    assert_eq!(session.text("SELECT key, v FROM ledger WHERE v > 0 ORDER BY 1"), "1|1\n2|2\n41|41");
    assert_eq!(session.text("SELECT v FROM ledger WHERE key = 1"), "1");
    assert_eq!(other.text("SELECT count(*) FROM ledger WHERE v > 0"), "0");
    session.sql("COMMIT");
    assert_eq!(other.text("SELECT sum(v) FROM ledger"), "44");
    session.sql("BEGIN; DELETE FROM ledger WHERE key = 1; INSERT INTO ledger SELECT i, 7 FROM generate_series(50, 90) AS i");
    assert_eq!(session.text("SELECT count(*) FROM ledger"), "81");
    session.sql("ROLLBACK");
    assert_eq!(session.text("SELECT count(*), sum(v) FROM ledger"), "41|44");

    // Savepoints, nested, rolled back to and released.
    session.sql(
        "BEGIN; UPDATE ledger SET v = 10 WHERE key = 10;
         SAVEPOINT a; UPDATE ledger SET v = 11 WHERE key = 11; UPDATE ledger SET v = 99 WHERE key = 10;
         SAVEPOINT b; INSERT INTO ledger SELECT i, 5 FROM generate_series(100, 120) AS i; RELEASE b;
         ROLLBACK TO a",
    );
    assert_eq!(
        session.text("SELECT key, v FROM ledger WHERE key IN (10, 11) OR key >= 100 ORDER BY 1"),
        "10|10\n11|0"
    );
    session.sql("UPDATE ledger SET v = 12 WHERE key = 12; SAVEPOINT c; UPDATE ledger SET v = 13 WHERE key = 13; RELEASE c; COMMIT");
    assert_eq!(
        session.text("SELECT key, v FROM ledger WHERE key BETWEEN 10 AND 13 ORDER BY 1"),
        "10|10\n11|0\n12|12\n13|13"
    );

    // An error ends the transaction, or only the savepoint.
    session.sql("BEGIN; UPDATE ledger SET v = 20 WHERE key = 20; SAVEPOINT a");
    assert_eq!(session.error("INSERT INTO ledger VALUES (1, 1)").sqlstate, "23505");
    assert_eq!(session.error("SELECT * FROM ledger").sqlstate, "25P02");
    session.sql("ROLLBACK TO a");
    assert_eq!(session.error("SELECT 1 / v FROM ledger WHERE key = 11").sqlstate, "22012");
    session.sql("ROLLBACK TO a; UPDATE ledger SET v = 21 WHERE key = 21; COMMIT");
    assert_eq!(
        session.text("SELECT key, v FROM ledger WHERE key IN (20, 21) ORDER BY 1"),
        "20|20\n21|21"
    );
    assert_eq!(session.error("BEGIN; UPDATE ledger SET v = 30 WHERE key = 30; INSERT INTO ledger VALUES (1, 1); COMMIT").sqlstate, "23505");
    session.sql("ROLLBACK");
    assert_eq!(session.text("SELECT v FROM ledger WHERE key = 30"), "0");
    // Several statements in one message are one transaction, as everywhere.
    assert_eq!(
        session.error("UPDATE ledger SET v = 31 WHERE key = 31; SELECT 1 / 0").sqlstate,
        "22012"
    );
    assert_eq!(session.text("SELECT v FROM ledger WHERE key = 31"), "0");

    // An error that a reader met and threw away changes nothing for the others.
    session.sql("BEGIN; UPDATE ledger SET v = 32 WHERE key = 32");
    session.sql("DECLARE c CURSOR FOR SELECT 1000 / (v - 32) FROM ledger; FETCH 1 FROM c; CLOSE c");
    session.sql("COMMIT");
    assert_eq!(session.text("SELECT v FROM ledger WHERE key = 32"), "32");
    assert_eq!(session.warnings(), []);

    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let mut fresh = cluster.new_session();
        fresh.sql(&format!("BEGIN ISOLATION LEVEL {level}"));
        assert_eq!(fresh.text("SELECT count(*) FROM ledger"), "41", "{level}");
        fresh.sql("UPDATE ledger SET v = v WHERE key = 1; SET DateStyle = 'German'; UPDATE ledger SET v = v WHERE key = 2; COMMIT");
    }
    let mut reader = cluster.new_session();
    reader.sql("BEGIN READ ONLY");
    assert_eq!(reader.text("SELECT count(*) FROM ledger"), "41");
    assert_eq!(reader.error("UPDATE ledger SET v = 0 WHERE key = 1").sqlstate, "25006");
    reader.sql("ROLLBACK");

    assert_eq!(cluster.unhealthy("ledger"), 0);
    assert_eq!(cluster.assert_placements_equal("ledger"), 41);
    for worker in cluster.workers() {
        let open = cluster.session_on(worker).text("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND backend_type = 'client backend'");
        assert_eq!(open, "0", "transactions stay open on {worker}");
    }
}

#[test]
fn a_locked_row_makes_others_wait_until_the_transaction_ends() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE seats (key int PRIMARY KEY, holder text)",
        "seats",
        "key",
        4,
        2,
    );
    cluster.sql("INSERT INTO seats SELECT generate_series(1, 10)");
    for lock in [
        "SELECT * FROM seats WHERE key = 3 FOR UPDATE",
        "UPDATE seats SET holder = 'first' WHERE key = 3",
    ] {
        let mut first = cluster.new_session();
        let mut second = cluster.new_session();
        first.sql(&format!("BEGIN; {lock}"));
        second.sql("SET statement_timeout = '300ms'");
        assert_eq!(
            second.error("UPDATE seats SET holder = 'second' WHERE key = 3").sqlstate,
            "57014",
            "{lock}"
        );
        assert_eq!(second.text("SELECT key FROM seats WHERE key = 3"), "3");
        second.sql("RESET statement_timeout");
        let waiting = std::thread::spawn(move || {
            second.count("UPDATE seats SET holder = 'second' WHERE key = 3 AND holder IS DISTINCT FROM 'nobody'")
        });
        let blocked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%second%' AND wait_event_type IN ('Lock', 'Extension', 'Client', 'IPC') AND pid <> pg_backend_pid() AND state = 'active'";
        wait_until("the second session sends its UPDATE", || cluster.text(blocked) == "1");
        first.sql("COMMIT");
        assert_eq!(waiting.join().expect("the second session does not fail"), 1);
        assert_eq!(cluster.text("SELECT holder FROM seats WHERE key = 3"), "second");
    }
    assert_eq!(cluster.unhealthy("seats"), 0);
    assert_eq!(cluster.assert_placements_equal("seats"), 10);
}

#[test]
fn lock_table_keeps_out_and_waits_for_every_statement_of_other_sessions() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v int)", "t", "k", 4, 1);
    cluster.sql("INSERT INTO t SELECT i, 0 FROM generate_series(1, 100) AS i");
    let mut locking = cluster.new_session();
    let mut other = cluster.new_session();
    other.sql("SET lock_timeout = '50ms'; SET plan_cache_mode = force_generic_plan");
    other.sql("PREPARE change (int) AS UPDATE t SET v = v + 1 WHERE k = $1; EXECUTE change (1)");
    other.sql("PREPARE look (int) AS SELECT v FROM t WHERE k = $1; EXECUTE look (1)");
    let reads = ["SELECT v FROM t WHERE k = 1", "SELECT count(*) FROM t", "EXECUTE look (1)"];
    let writes = [
        "UPDATE t SET v = v + 1 WHERE k = 1",
        "UPDATE t SET v = v + 1",
        "EXECUTE change (1)",
        "INSERT INTO t VALUES (101, 0)",
        "INSERT INTO t SELECT k + 1000, v FROM t",
        "UPDATE t SET v = o.v FROM t AS o WHERE o.k = t.v",
        "TRUNCATE t",
    ];
    locking.sql("BEGIN; LOCK TABLE t IN SHARE MODE");
    for read in reads {
        other.sql(read);
    }
    for write in writes {
        assert_eq!(other.error(write).sqlstate, "55P03", "{write}");
    }
    locking.sql("LOCK TABLE t");
    for statement in reads {
        assert_eq!(other.error(statement).sqlstate, "55P03", "{statement}");
    }
    // Who has the lock is kept out of nothing.
    locking.sql("UPDATE t SET v = 7; COMMIT");
    assert_eq!(other.text("SELECT min(v), max(v), count(*) FROM t"), "7|7|100");

    other.sql("BEGIN; UPDATE t SET v = v + 1 WHERE k = 1");
    let error = locking.error("BEGIN; LOCK TABLE t IN SHARE MODE NOWAIT");
    assert_eq!(error.line(), "55P03: could not obtain lock on relation \"t\"");
}

#[test]
fn a_serializable_conflict_fails_the_transaction_and_marks_no_placement() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v int)", "t", "k", 1, 2);
    cluster.sql("INSERT INTO t SELECT i, 0 FROM generate_series(1, 16) AS i");
    let have_read = Barrier::new(2);
    let ended: Vec<String> = thread::scope(|scope| {
        let clients: Vec<_> = [1, 2]
            .map(|key| {
                let (mut session, have_read) = (cluster.new_session(), &have_read);
                scope.spawn(move || {
                    session.sql("BEGIN ISOLATION LEVEL SERIALIZABLE");
                    session.sql("SELECT sum(v) FROM t WHERE k = 1 OR k = 2");
                    have_read.wait();
                    let update = format!("UPDATE t SET v = v + 1 WHERE k = {key}");
                    let outcome = session.try_sql(&update).and_then(|_| session.try_sql("COMMIT"));
                    // The other waits until this one has ended.
                    drop(session);
                    outcome.map_or_else(|error| error.sqlstate, |_| String::new())
                })
            })
            .into_iter()
            .collect();
        clients.into_iter().map(|client| client.join().expect("it ends")).collect()
    });
    assert!(ended.contains(&String::new()) && ended.contains(&"40001".into()), "{ended:?}");
    assert_eq!(cluster.text("SELECT sum(v) FROM t"), "1");
    assert_eq!(cluster.unhealthy("t"), 0);
    assert_eq!(cluster.assert_placements_equal("t"), 16);
}

#[test]
fn placements_agree_although_another_node_refuses_to_commit_in_between() {
    let cluster = TestCluster::up(3);
    // Of `unlike` all is on the first worker; the middle shard of `twice` is on the second, which leads, and the third.
    cluster.create_distributed(
        "CREATE TABLE unlike (k int NOT NULL, v int, UNIQUE (k, v) DEFERRABLE INITIALLY DEFERRED)",
        "unlike",
        "k",
        1,
        1,
    );
    cluster.create_distributed("CREATE TABLE twice (k int PRIMARY KEY, v int)", "twice", "k", 3, 2);
    let first = cluster.placements("unlike")[0].node;
    let middle = cluster
        .placements("twice")
        .iter()
        .map(|placement| placement.shard)
        .find(|shard| {
            cluster.placements("twice").iter().all(|p| p.shard != *shard || p.node != first)
        })
        .expect("one of three shards is not on the first of three workers");
    let key = (1..1000)
        .find(|key| cluster.shard_of("twice", &format!("hashint4({key})")) == middle)
        .expect("a thousand keys lie in all of three shards");
    cluster.sql("INSERT INTO unlike VALUES (1, 1)");
    let mut session = cluster.new_session();
    session.sql("BEGIN; INSERT INTO unlike VALUES (1, 1)");
    session.sql(&format!("INSERT INTO twice VALUES ({key}, 1)"));
    let error = session.error("COMMIT");
    assert_eq!(error.sqlstate, "23505");
    assert!(error.message.contains("\"unlike_k_v_key\""), "{}", error.line());
    assert_eq!(cluster.unhealthy("twice"), 0);
    cluster.assert_placements_equal("twice");
    assert_eq!(cluster.text("SELECT count(*) FROM unlike"), "1");
}

#[test]
fn rows_of_a_statement_that_failed_in_a_savepoint_are_in_nobodys_way() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE wide (k int, v int, pad text)", "wide", "k", 8, 1);
    cluster
        .sql("INSERT INTO wide SELECT i, i, repeat('x', 200) FROM generate_series(1, 40000) AS i");
    let mut session = cluster.new_session();
    // The error is raised here, while the nodes still send: the statement's memory is gone when others need their sessions.
    let failing = "SELECT max(1 / (v - (random() * 0)::int - 50)) FROM (SELECT v, pad FROM wide OFFSET 0) AS x";
    session.sql("BEGIN");
    for _ in 0..3 {
        session.sql("SAVEPOINT a");
        assert_eq!(session.error(failing).sqlstate, "22012");
        session.sql("ROLLBACK TO a");
        assert_eq!(session.text("SELECT count(*), sum(length(pad)) FROM wide"), "40000|8000000");
    }
    session.sql("UPDATE wide SET v = 0 WHERE k = 1");
    session.sql("SAVEPOINT a");
    assert_eq!(session.error(failing).sqlstate, "22012");
    session.sql("ROLLBACK TO a");
    assert_eq!(session.text("SELECT v FROM wide WHERE k = 1"), "0");
    session.sql("COMMIT");
    session.sql(&format!(
        "DO $$ BEGIN BEGIN PERFORM * FROM ({failing}) AS y; EXCEPTION WHEN division_by_zero THEN NULL; END; \
         INSERT INTO wide SELECT k, 1, pad FROM wide WHERE k <= 10; END $$"
    ));
    assert_eq!(session.text("SELECT count(*) FROM wide"), "40010");
}
