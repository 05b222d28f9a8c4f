//! Transactions of statements by key, and placements in pairs.

use std::thread;

use testkit::postgres::NoTls;
use testkit::{NodeName, Session, TestCluster, wait_until};

use crate::{WORKER_1, WORKER_2, create_kv, key_led_by, nodes_of, shard_of};

/// Keys of `kv` in the same shard as `key`, that one first.
fn keys_beside(cluster: &TestCluster, key: i32) -> Vec<i32> {
    let shard = shard_of(cluster, "kv", key);
    let others =
        (1..=100).filter(|other| *other != key && shard_of(cluster, "kv", *other) == shard);
    std::iter::once(key).chain(others).collect()
}

fn blocks_of_statements_by_key(replicas: u32) {
    let cluster = TestCluster::up(2);
    create_kv(&cluster, replicas);
    let keys = keys_beside(&cluster, 7);
    let (key, beside) = (keys[0], keys[1]);
    let far = key_led_by(
        &cluster,
        "kv",
        if nodes_of(&cluster, "kv", shard_of(&cluster, "kv", key))[0] == WORKER_1 {
            WORKER_2
        } else {
            WORKER_1
        },
    );
    let mut session = cluster.new_session();
    let mut other = cluster.new_session();
    session.sql("PREPARE raise(int, int) AS UPDATE kv SET v = v + $2 WHERE k = $1 RETURNING v; PREPARE get(int) AS SELECT v FROM kv WHERE k = $1");
    let read = |session: &mut Session, key: i32| {
        session.text(&format!("SELECT v FROM kv WHERE k = {key}"))
    };
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let before: Vec<String> = [key, beside, far].map(|key| read(&mut other, key)).into();
        let after = |raised: [i32; 3]| -> Vec<String> {
            before
                .iter()
                .zip(raised)
                .map(|(value, more)| (value.parse::<i32>().expect("a number") + more).to_string())
                .collect()
        };
        // One node.
        session.sql(&format!("BEGIN ISOLATION LEVEL {isolation}"));
        session.sql(&format!("UPDATE kv SET v = v + 1 WHERE k = {key}"));
        session.sql(&format!("EXECUTE raise({beside}, 2)"));
        assert_eq!(read(&mut session, beside), after([0, 2, 0])[1]);
        assert_eq!(session.text(&format!("EXECUTE get({key})")), after([1, 0, 0])[0]);
        assert_eq!(read(&mut other, key), before[0], "not visible before COMMIT");
        session.sql("COMMIT");
        assert_eq!([key, beside, far].map(|key| read(&mut other, key)).to_vec(), after([1, 2, 0]));

        // Savepoints, and errors behind them.
        session.sql(&format!(
            "BEGIN ISOLATION LEVEL {isolation}; EXECUTE raise({key}, 10); SAVEPOINT a"
        ));
        session.sql(&format!("EXECUTE raise({key}, 100); EXECUTE raise({far}, 5)"));
        assert_eq!(session.error(&format!("INSERT INTO kv VALUES ({beside})")).sqlstate, "23505");
        assert_eq!(session.error(&format!("SELECT v FROM kv WHERE k = {key}")).sqlstate, "25P02");
        session.sql("ROLLBACK TO a");
        assert_eq!(read(&mut session, key), after([11, 0, 0])[0]);
        session.sql(&format!("SAVEPOINT b; EXECUTE raise({far}, 7); RELEASE b; SAVEPOINT c; EXECUTE raise({beside}, 50); ROLLBACK TO c"));
        session.sql("COMMIT");
        assert_eq!([key, beside, far].map(|key| read(&mut other, key)).to_vec(), after([11, 2, 7]));

        // An error that nobody catches.
        session.sql(&format!("BEGIN ISOLATION LEVEL {isolation}; EXECUTE raise({key}, 1000)"));
        assert_eq!(
            session.error(&format!("EXECUTE raise({beside}, 2147483647)")).sqlstate,
            "22003"
        );
        session.sql("COMMIT");
        assert_eq!([key, beside, far].map(|key| read(&mut other, key)).to_vec(), after([11, 2, 7]));

        // COMMIT AND CHAIN, and read-only transactions.
        session.sql(&format!("BEGIN ISOLATION LEVEL {isolation}; EXECUTE raise({key}, 1); COMMIT AND CHAIN; EXECUTE raise({key}, 1); ROLLBACK AND CHAIN; EXECUTE raise({key}, 1); COMMIT"));
        assert_eq!(read(&mut other, key), after([13, 0, 0])[0]);
        session.sql(&format!(
            "BEGIN ISOLATION LEVEL {isolation} READ ONLY; SELECT v FROM kv WHERE k = {key}"
        ));
        assert_eq!(
            session.error(&format!("UPDATE kv SET v = 0 WHERE k = {key}")).sqlstate,
            "25006"
        );
        session.sql("ROLLBACK");
        assert_eq!(
            session.error("BEGIN READ ONLY; INSERT INTO kv VALUES (500); COMMIT").sqlstate,
            "25006"
        );
        session.sql("ROLLBACK");
        // Several statements in one message are one transaction.
        assert_eq!(
            session.error(&format!("UPDATE kv SET v = 0 WHERE k = {key}; SELECT 1 / 0")).sqlstate,
            "22012"
        );
        assert_eq!(read(&mut other, key), after([13, 0, 0])[0]);
    }
    assert_eq!((session.warnings(), other.warnings()), (Vec::new(), Vec::new()));
    assert_eq!(cluster.unhealthy("kv"), 0);
    assert_eq!(cluster.assert_placements_equal("kv"), 100);
}

#[test]
fn blocks_of_statements_by_key_are_all_or_nothing_on_one_placement() {
    blocks_of_statements_by_key(1);
}

#[test]
fn blocks_of_statements_by_key_are_all_or_nothing_on_two_placements() {
    blocks_of_statements_by_key(2);
}

#[test]
fn messages_before_a_sync_are_one_transaction() {
    // A statement is sent to commit by itself only if nothing follows. pgbench's pipelines send several before Sync.
    let cluster = TestCluster::up(2);
    create_kv(&cluster, 2);
    let script = testkit::Script {
        weight: 1,
        text: "\\set key random(1, 50)\n\\startpipeline\nUPDATE kv SET v = v + 1 WHERE k = :key;\nUPDATE kv SET v = v - 1 WHERE k = :key + 50;\nSELECT v FROM kv WHERE k = :key;\n\\endpipeline\n",
    };
    for mode in ["extended", "prepared"] {
        let report = cluster.pgbench(mode, &[script], &["-c", "1", "-t", "200"]).finish();
        assert!(report.succeeded && report.transactions == 200, "{report:#?}");
    }
    let failing = testkit::Script {
        weight: 1,
        text: "\\startpipeline\nUPDATE kv SET v = 7000 WHERE k = 1;\nUPDATE kv SET v = 1 / (v - v) WHERE k = 1;\n\\endpipeline\n",
    };
    let report = cluster.pgbench("extended", &[failing], &["-c", "1", "-t", "1"]).finish();
    assert_eq!(report.transactions, 0, "{report:#?}");
    assert_eq!(cluster.text("SELECT sum(v), count(*) FILTER (WHERE v = 7000) FROM kv"), "0|0");
    assert_eq!(cluster.unhealthy("kv"), 0);
    cluster.assert_placements_equal("kv");
}

#[test]
fn a_pair_returns_the_rows_of_its_leader_once() {
    let cluster = TestCluster::up(2);
    create_kv(&cluster, 2);
    let mut session = cluster.new_session();
    session.sql("PREPARE raise(int) AS UPDATE kv SET v = v + 1 WHERE k = $1 RETURNING k, v, s");
    for turn in 1..=8 {
        assert_eq!(session.text("EXECUTE raise(5)"), format!("5|{turn}|s5"));
        assert_eq!(session.text("EXECUTE raise(5000)"), "");
        assert_eq!(session.count("EXECUTE raise(6)"), 1);
        assert_eq!(
            session.text(&format!("UPDATE kv SET v = {turn} WHERE k = 7 RETURNING v * 2")),
            (turn * 2).to_string()
        );
        assert_eq!(
            session.text(&format!("INSERT INTO kv VALUES (200 + {turn}, 1) RETURNING *")),
            format!("{}|1|NULL", 200 + turn)
        );
        assert_eq!(
            session.text(&format!("DELETE FROM kv WHERE k = 200 + {turn} RETURNING k")),
            (200 + turn).to_string()
        );
        assert_eq!(session.text(&format!("INSERT INTO kv VALUES (9, {turn}) ON CONFLICT (k) DO UPDATE SET v = excluded.v WHERE kv.v < 4 RETURNING v")), if turn <= 4 { turn.to_string() } else { String::new() });
        assert_eq!(session.error("INSERT INTO kv VALUES (9)").constraint, "kv_pkey");
        assert_eq!(
            session.error("UPDATE kv SET v = NULL WHERE k = 9 RETURNING v").sqlstate,
            "23502"
        );
    }
    assert_eq!(session.warnings(), []);
    assert_eq!(cluster.unhealthy("kv"), 0);
    assert_eq!(cluster.assert_placements_equal("kv"), 100);
}

/// Cancels `statement` while a row lock that `lock` takes blocks it; nothing may have changed.
fn is_cancelled_while_blocked(
    cluster: &TestCluster,
    lock: &mut Session,
    locking: &str,
    blocked: &str,
    is_blocked: impl Fn() -> bool,
) {
    let mut session = cluster.new_session();
    session.sql("SELECT count(*) FROM kv");
    lock.sql(locking);
    let token = session.client().cancel_token();
    let outcome = thread::scope(|scope| {
        let running = scope.spawn(|| session.try_sql(blocked));
        wait_until("the write waits for the lock", &is_blocked);
        token.cancel_query(NoTls).expect("the coordinator is there");
        running.join().expect("the session does not panic")
    });
    let error = outcome.expect_err("it was cancelled");
    assert_eq!(error.line(), "57014: canceling statement due to user request", "{blocked}");
    session.sql("SET statement_timeout = '300ms'");
    let error = session.error(blocked);
    assert_eq!(error.line(), "57014: canceling statement due to statement timeout", "{blocked}");
    session.sql("SET statement_timeout = 0");
    assert_eq!(session.warnings(), [], "{blocked}");
    assert_eq!(cluster.unhealthy("kv"), 0, "{blocked}");
    lock.sql("ROLLBACK");
    // The session is as good as before.
    assert_eq!(session.text("SELECT sum(v), count(*) FROM kv"), "0|100", "{blocked}");
    cluster.assert_placements_equal("kv");
}

#[test]
fn a_pair_that_is_cancelled_while_a_row_lock_blocks_it_has_changed_nothing() {
    let cluster = TestCluster::up(2);
    create_kv(&cluster, 2);
    let key = key_led_by(&cluster, "kv", WORKER_1);
    let waits_on = |node: NodeName| {
        cluster.session_on(node).text("SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^pg_shard( |$)' AND wait_event_type = 'Lock'") == "1"
    };
    let writes = [
        format!("UPDATE kv SET v = 9 WHERE k = {key}"),
        format!("UPDATE kv SET v = 9 WHERE k = {key} RETURNING v"),
        format!("DELETE FROM kv WHERE k = {key} RETURNING k"),
        format!("INSERT INTO kv VALUES ({key}) ON CONFLICT (k) DO UPDATE SET v = 9 RETURNING v"),
    ];
    for write in &writes {
        // By a client of the coordinator, and by somebody on the worker.
        let mut lock = cluster.new_session();
        let locking = format!("BEGIN; SELECT * FROM kv WHERE k = {key} FOR UPDATE");
        is_cancelled_while_blocked(&cluster, &mut lock, &locking, write, || waits_on(WORKER_1));
        let name = cluster.shard_name("kv", shard_of(&cluster, "kv", key));
        let mut lock = cluster.session_on(WORKER_1);
        let locking = format!("BEGIN; SELECT * FROM {name} WHERE k = {key} FOR UPDATE");
        is_cancelled_while_blocked(&cluster, &mut lock, &locking, write, || waits_on(WORKER_1));
    }
}

#[test]
fn a_pair_whose_follower_is_blocked_ends_with_both_or_says_what_differs() {
    let cluster = TestCluster::up(2);
    create_kv(&cluster, 2);
    let key = key_led_by(&cluster, "kv", WORKER_1);
    let name = cluster.shard_name("kv", shard_of(&cluster, "kv", key));
    let mut lock = cluster.session_on(WORKER_2);
    lock.sql(&format!("BEGIN; SELECT * FROM {name} WHERE k = {key} FOR UPDATE"));
    let mut session = cluster.new_session();
    session.sql("SELECT count(*) FROM kv");
    let token = session.client().cancel_token();
    let write = format!("UPDATE kv SET v = v + 1 WHERE k = {key} RETURNING v");
    let outcome = thread::scope(|scope| {
        let running = scope.spawn(|| session.try_sql(&write));
        wait_until("the follower waits", || {
            cluster.session_on(WORKER_2).text("SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^pg_shard( |$)' AND wait_event_type = 'Lock'") == "1"
        });
        token.cancel_query(NoTls).expect("the coordinator is there");
        running.join().expect("the session does not panic")
    });
    lock.sql("COMMIT");
    // The leader has committed: the write counts, whoever is told what. A follower that gave up is marked.
    assert!(
        outcome.is_ok() || outcome.as_ref().is_err_and(|error| error.sqlstate == "57014"),
        "{outcome:?}"
    );
    assert_eq!(cluster.unhealthy("kv"), session.warnings().len());
    cluster.repair("kv");
    assert_eq!(cluster.text(&format!("SELECT v FROM kv WHERE k = {key}")), "1");
    assert_eq!(cluster.assert_placements_equal("kv"), 100);
}

#[test]
fn a_statement_by_itself_has_the_isolation_level_of_its_session() {
    // Sent to commit by itself it ran at the worker's own level: a serializable UPDATE conflicted with nobody.
    let cluster = TestCluster::up(2);
    create_kv(&cluster, 1);
    cluster.create_distributed("CREATE TABLE twice (k int PRIMARY KEY, v int)", "twice", "k", 8, 2);
    cluster.sql("INSERT INTO twice VALUES (7, 0)");
    let create = |body: &str| {
        format!(
            "CREATE FUNCTION level(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN {body}; END $$"
        )
    };
    cluster.on_workers(&create(
        "array_position('{read committed,repeatable read,serializable}', current_setting('transaction_isolation'))",
    ));
    cluster.sql(&create("-1"));
    // Whatever a worker's own setting.
    for of_workers in ["read committed", "repeatable read", "serializable"] {
        for worker in cluster.workers() {
            let mut session = cluster.session_on(worker);
            session.sql(&format!(
                "ALTER ROLE postgres SET default_transaction_isolation = '{of_workers}'"
            ));
        }
        let mut session = cluster.new_session();
        for (level, name) in (1..).zip(["read committed", "repeatable read", "serializable"]) {
            session.sql(&format!("SET default_transaction_isolation = '{name}'"));
            for table in ["kv", "twice"] {
                let set = format!("UPDATE {table} SET v = level(k) WHERE k = 7 RETURNING v");
                assert_eq!(
                    session.text(&set),
                    level.to_string(),
                    "{table}, {name} over {of_workers}"
                );
                cluster.assert_placements_equal(table);
            }
        }
        assert_eq!(session.warnings(), []);
    }
}

#[test]
fn a_pair_whose_answer_cannot_be_read_has_changed_nothing() {
    // The leader has executed the statement when its row turns out to be none that this server understands.
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE TYPE mood AS ENUM ('fine')");
    cluster.create_distributed(
        "CREATE TABLE feelings (k int PRIMARY KEY, v int, m mood)",
        "feelings",
        "k",
        4,
        2,
    );
    cluster.sql("INSERT INTO feelings VALUES (1, 0, 'fine'), (2, 0, 'fine')");
    cluster.on_workers("ALTER TYPE mood ADD VALUE 'odd'");
    let name = cluster.shard_name("feelings", shard_of(&cluster, "feelings", 1));
    for worker in cluster.workers() {
        cluster.session_on(worker).sql(&format!("UPDATE {name} SET m = 'odd' WHERE k = 1"));
    }
    let mut session = cluster.new_session();
    for _ in 0..3 {
        let error = session.error("UPDATE feelings SET v = v + 1 WHERE k = 1 RETURNING m");
        assert_eq!(error.line(), "22P02: invalid input value for enum mood: \"odd\"");
        // The session goes on, and nobody waits for locks that were left behind.
        assert_eq!(session.text("UPDATE feelings SET v = v + 1 WHERE k = 2 RETURNING m"), "fine");
        assert_eq!(cluster.new_session().count("UPDATE feelings SET v = v WHERE k = 1"), 1);
    }
    assert_eq!(session.text("SELECT k, v FROM feelings ORDER BY k"), "1|0\n2|3");
    assert_eq!(session.warnings(), []);
    assert_eq!(cluster.unhealthy("feelings"), 0);
}
