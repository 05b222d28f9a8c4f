//! What the client is told is true, every wait ends, and a placement is marked only after a try.

use crate::WORKER_1;
use testkit::postgres::fallible_iterator::FallibleIterator;
use testkit::{NodeName, Session, TestCluster, wait_until};

fn create(cluster: &TestCluster, table: &str, replicas: u32) {
    let ddl = format!("CREATE TABLE {table} (id bigint PRIMARY KEY, v text)");
    cluster.create_distributed(&ddl, table, "id", 4, replicas);
}

/// A time-out struck INSERTs that the node had committed already, and the client was told that they were cancelled: the commit
/// here looked for interrupts. They are held now from the node's commit to the local one.
#[test]
fn a_statement_that_was_timed_out_is_not_stored() {
    let cluster = TestCluster::up(2);
    for (table, replicas) in [("alone", 1), ("pair", 2)] {
        create(&cluster, table, replicas);
        let mut session = cluster.new_session();
        for id in 0..400 {
            let limit = 1 + id % 4;
            let insert = format!("INSERT INTO {table} VALUES ({id})");
            session.sql(&format!("SET statement_timeout = {limit}"));
            let outcome = session.try_sql(&insert);
            // On a busy machine this takes longer than it may, too.
            while session.try_sql("SET statement_timeout = 0").is_err() {}
            let stored = session.text(&format!("SELECT count(*) FROM {table} WHERE id = {id}"));
            match outcome {
                Ok(_) => assert_eq!(stored, "1", "{insert}"),
                Err(error) => {
                    assert_eq!(error.sqlstate, "57014", "{error}");
                    assert_eq!(stored, "0", "{insert}");
                }
            }
        }
        cluster.assert_placements_equal(table);
        assert_eq!(cluster.unhealthy(table), 0);
    }
}

/// A time-out struck while the node committed, too late to stop it, and left its mark in the backend. The next cancel request met an
/// idle session and raised an error there that no statement had asked for. The client took it for the answer to the statement
/// that it sent next, and from then on each answer for that of the statement before: it was told that rows were stored
/// whose INSERT had been refused.
#[test]
fn a_cancel_request_says_nothing_to_an_idle_session() {
    let cluster = TestCluster::up(2);
    cluster.on_workers(
        "CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         PERFORM pg_sleep(0.3); RETURN NULL; EXCEPTION WHEN query_canceled THEN RETURN NULL; END $$",
    );
    for (table, replicas) in [("alone", 1), ("pair", 2)] {
        create(&cluster, table, replicas);
        // Of a pair only the follower, which comes to it when the leader is about to commit.
        for shard in cluster.placements(table).chunks(replicas as usize) {
            let (last, name) = (&shard[shard.len() - 1], cluster.shard_name(table, shard[0].shard));
            cluster.session_on(last.node).sql(&format!(
                "CREATE TRIGGER takes_long AFTER INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION take_long()"
            ));
        }
        let mut session = cluster.new_session();
        let pid = session.text("SELECT pg_backend_pid()");
        session.sql("SET statement_timeout = '100ms'");
        session.sql(&format!("INSERT INTO {table} VALUES (1)"));
        cluster.sql(&format!("SELECT pg_cancel_backend({pid})"));
        for n in 1..=3 {
            assert_eq!(session.text(&format!("SELECT {n}")), n.to_string(), "{table}");
        }
        assert_eq!(session.text(&format!("SELECT count(*) FROM {table}")), "1");
    }
}

/// A worker that logs how long statements take looks for interrupts once more when it has committed. What it said of a cancel there
/// was taken for a refusal of the commit, and the client was told that a stored row was not.
#[test]
fn a_cancel_that_strikes_a_node_behind_its_commit_refuses_nothing() {
    // A worker commits for a tenth of a second, while the coordinator's time is over and it asks for a cancel.
    let slow = [("fsync", "on"), ("commit_delay", "100000"), ("commit_siblings", "0")];
    let cluster = TestCluster::up_with(2, &slow);
    create(&cluster, "alone", 1);
    cluster.on_workers("ALTER ROLE postgres SET log_duration = on");
    cluster.on_workers(
        "CREATE FUNCTION nap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         PERFORM pg_sleep(0.06); RETURN NULL; END $$",
    );
    for shard in cluster.placements("alone") {
        let name = cluster.shard_name("alone", shard.shard);
        cluster.session_on(shard.node).sql(&format!(
            "CREATE CONSTRAINT TRIGGER naps AFTER INSERT ON {name} DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION nap()"
        ));
    }
    let mut session = cluster.new_session();
    for id in 1..=8 {
        session.sql(&format!("BEGIN; INSERT INTO alone VALUES ({id})"));
        session.sql("SET LOCAL statement_timeout = '20ms'");
        let outcome = session.try_sql("COMMIT");
        let stored = session.text(&format!("SELECT count(*) FROM alone WHERE id = {id}"));
        assert_eq!(stored, if outcome.is_ok() { "1" } else { "0" }, "{outcome:?}");
    }
}

/// The row was stored by the node's own commit when it turned out that the client's encoding cannot show it.
#[test]
fn a_row_that_cannot_be_returned_to_the_client_is_not_stored() {
    let cluster = TestCluster::up(2);
    create(&cluster, "alone", 1);
    let mut session = cluster.new_session();
    session.sql("SET client_encoding = 'LATIN1'");
    let error = session.error("INSERT INTO alone VALUES (1, chr(8364)) RETURNING v");
    assert_eq!(error.sqlstate, "22P05", "{error}");
    assert_eq!(cluster.text("SELECT count(*) FROM alone"), "0");
}

/// A returned value that this server cannot read was an error too, after the node had committed by itself.
#[test]
fn a_row_whose_values_are_not_known_here_is_not_stored() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE TYPE mood AS ENUM ('good')");
    let ddl = "CREATE TABLE t (id bigint PRIMARY KEY, n int, mood mood)";
    cluster.create_distributed(ddl, "t", "id", 4, 1);
    cluster.sql("INSERT INTO t SELECT i, 0, 'good' FROM generate_series(1, 8) AS i");
    cluster.on_workers("ALTER TYPE mood ADD VALUE 'unheard'");
    for shard in cluster.placements("t") {
        let name = cluster.shard_name("t", shard.shard);
        cluster.session_on(shard.node).sql(&format!("UPDATE {name} SET mood = 'unheard'"));
    }
    for id in 1..=8 {
        let error = cluster.error(&format!("UPDATE t SET n = 1 WHERE id = {id} RETURNING mood"));
        assert_eq!(error.sqlstate, "22P02", "{error}");
    }
    assert_eq!(cluster.text("SELECT count(*) FROM t WHERE n = 0"), "8");
}

/// The node had committed when there was no room here for the rows that the statement returns: it was told to have failed.
#[test]
fn a_statement_that_is_stored_says_so_where_its_rows_cannot_be_had() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (id int, n int, v text)", "t", "id", 4, 1);
    cluster
        .sql("INSERT INTO t SELECT 1, 0, repeat(i::text, 4000) FROM generate_series(1, 100) AS i");
    let mut session = cluster.new_session();
    session.sql("SET work_mem = '64kB'");
    session.sql("SET temp_file_limit = '64kB'");
    let error = session.error("UPDATE t SET n = 1 WHERE id = 1 RETURNING v || repeat('x', 9000)");
    assert_eq!(error.sqlstate, "53400", "{error}");
    assert!(error.detail.starts_with("The statement is stored"), "{error}");
    assert_eq!(session.text("SELECT count(*), sum(n) FROM t WHERE id = 1"), "100|100");
}

/// Notifications reach whoever listens, of transactions whose nodes commit and of a statement by key that would be committed by its
/// node alone.
#[test]
fn notifications_come_with_the_rows_that_they_are_about() {
    let cluster = TestCluster::up(2);
    create(&cluster, "alone", 1);
    cluster.sql(
        "CREATE FUNCTION told(id bigint) RETURNS text LANGUAGE plpgsql AS $$ BEGIN \
         PERFORM pg_notify('rows', id::text); RETURN 'told'; END $$",
    );
    let mut listener = cluster.new_session();
    listener.sql("LISTEN rows");
    let mut session = cluster.new_session();
    session.sql(
        "BEGIN; INSERT INTO alone SELECT i FROM generate_series(1, 9) AS i; NOTIFY rows, 'many'",
    );
    session.sql("COMMIT");
    session.sql("INSERT INTO alone VALUES (10, told(10))");
    session.sql("BEGIN; INSERT INTO alone VALUES (11, told(11))");
    session.sql("ROLLBACK");
    session.sql("INSERT INTO alone VALUES (12); NOTIFY rows, '12'");
    let mut payloads = Vec::new();
    wait_until("the notifications have come", || {
        listener.sql("SELECT");
        let mut notifications = listener.client().notifications();
        while let Ok(Some(it)) = notifications.iter().next() {
            payloads.push(it.payload().to_owned());
        }
        payloads.len() >= 3
    });
    assert_eq!(payloads, ["many", "10", "12"]);
    assert_eq!(cluster.text("SELECT count(*) FROM alone"), "11");
}

/// A transaction with one snapshot read a placement that was repaired after it had begun as empty, found no row to update there, and
/// the good placement was marked for having one.
#[test]
fn a_snapshot_that_is_older_than_a_repair_is_refused_and_marks_nothing() {
    let cluster = TestCluster::up(2);
    create(&cluster, "t", 2);
    cluster.sql("INSERT INTO t SELECT i, 'old' FROM generate_series(1, 100) AS i");
    let placements = cluster.placements("t");
    let (bad, good) = (&placements[0], &placements[1]);
    let key = (1..=100)
        .find(|key| cluster.shard_of("t", &format!("hashint8({key})")) == bad.shard)
        .expect("100 keys reach all shards");
    let address = |node: NodeName| format!("'localhost', {}", cluster.port(node));
    let repair = format!(
        "SELECT master_copy_shard_placement({}, {}, {})",
        bad.shard,
        address(good.node),
        address(bad.node)
    );
    for statement in [
        "SELECT count(*) FROM t".to_owned(),
        format!("SELECT v FROM t WHERE id = {key}"),
        format!("UPDATE t SET v = 'new' WHERE id = {key}"),
        "UPDATE t SET v = 'new'".to_owned(),
        "DELETE FROM t USING generate_series(1, 100) AS i WHERE id = i".to_owned(),
    ] {
        cluster.sql(&format!(
            "UPDATE pgs_distribution_metadata.shard_placement SET shard_state = 3 WHERE id = {}",
            bad.id
        ));
        let (mut reader, mut repairer) = (cluster.new_session(), cluster.new_session());
        repairer.sql(&format!("BEGIN; {repair}"));
        reader.sql("BEGIN ISOLATION LEVEL REPEATABLE READ");
        assert_eq!(reader.text("SELECT count(*) FROM t"), "100");
        repairer.sql("COMMIT");
        let error = reader.error(&statement);
        assert_eq!(
            error.line(),
            "40001: could not serialize access to table \"t\" due to repair or move of a shard",
            "{statement}"
        );
        reader.sql("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ");
        assert_eq!(reader.text("SELECT count(*) FROM t"), "100");
        reader.sql("ROLLBACK");
        assert_eq!(cluster.unhealthy("t"), 0, "{statement}");
    }
    assert_eq!(cluster.assert_placements_equal("t"), 100);
}

/// A placement was marked without a try because a read had met its node while it hung; and what libpq refuses by itself counted as
/// a dead node.
#[test]
fn a_placement_is_marked_only_after_a_try_and_never_for_what_is_wrong_here() {
    let cluster = TestCluster::impatient(2);
    create(&cluster, "t", 2);
    cluster.sql("INSERT INTO t SELECT i, 'old' FROM generate_series(1, 50) AS i");
    let mut session = cluster.new_session();
    session.sql("SELECT count(*) FROM t");
    cluster.pause(WORKER_1).expect("worker 1 runs");
    assert_eq!(session.text("SELECT count(*) FROM t"), "50");
    cluster.resume(WORKER_1).expect("worker 1 is paused");
    assert_eq!(session.count("UPDATE t SET v = 'new'"), 50);
    for key in 1..=50 {
        assert_eq!(session.count(&format!("UPDATE t SET v = 'newer' WHERE id = {key}")), 1);
    }
    assert_eq!(cluster.unhealthy("t"), 0);

    for conninfo in ["sslmode=verify-full sslrootcert=/nowhere", "sslmode=require"] {
        cluster.sql(&format!("ALTER SYSTEM SET pg_shard.node_conninfo = '{conninfo}'"));
        cluster.sql("SELECT pg_reload_conf()");
        wait_until("the setting is there", || {
            cluster.new_session().text("SHOW pg_shard.node_conninfo") == conninfo
        });
        let mut session = cluster.new_session();
        for statement in
            ["UPDATE t SET v = 'x' WHERE id = 1", "UPDATE t SET v = 'x'", "SELECT count(*) FROM t"]
        {
            let error = session.error(statement);
            assert!(error.message.contains("localhost:"), "{conninfo}: {error}");
            assert!(!error.detail.is_empty(), "{conninfo}: {error}");
        }
        assert_eq!(cluster.unhealthy("t"), 0, "{conninfo}");
    }
    cluster.sql("ALTER SYSTEM RESET pg_shard.node_conninfo");
    cluster.sql("SELECT pg_reload_conf()");
    assert_eq!(cluster.assert_placements_equal("t"), 50);
}

/// Sending a large statement to a frozen worker waited for room for ever.
#[test]
fn a_large_statement_to_a_frozen_worker_comes_to_an_end() {
    let cluster = TestCluster::impatient(2);
    create(&cluster, "alone", 1);
    cluster.sql("INSERT INTO alone SELECT i, '' FROM generate_series(1, 20) AS i");
    for (limit, expected) in [("0", "08006|08007|XX000"), ("300ms", "57014")] {
        let mut session = cluster.new_session();
        session.sql("SELECT count(*) FROM alone");
        session.sql(&format!("SET statement_timeout = '{limit}'"));
        for worker in cluster.workers() {
            cluster.pause(worker).expect("it runs");
        }
        let error = session
            .error("BEGIN; UPDATE alone SET v = repeat('x', 30000000 + id::int) WHERE id = 1");
        assert!(expected.contains(&*error.sqlstate), "{error}");
        for worker in cluster.workers() {
            cluster.resume(worker).expect("it is paused");
        }
        session.sql("ROLLBACK; SET statement_timeout = 0");
        assert_eq!(session.text("SELECT count(*) FROM alone WHERE v = ''"), "20");
    }
}

fn signal(name: &str, pid: &str) {
    let done = std::process::Command::new("kill").args([name, pid]).status();
    assert!(done.expect("kill runs").success());
}

/// The process on worker 1 that serves the session's open transaction.
fn process_on_worker_1(cluster: &TestCluster) -> (String, Session) {
    let mut node = cluster.session_on(WORKER_1);
    let query = "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^pg_shard( |$)' \
                 AND state = 'idle in transaction'";
    wait_until("one process is in the transaction", || node.sql(query).len() == 1);
    (node.text(query), node)
}

/// A stopped process of a server that accepts connections kept COMMIT waiting for ever, whatever was done.
#[test]
fn a_commit_on_a_stopped_process_comes_to_an_end() {
    let cluster = TestCluster::impatient(2);
    create(&cluster, "alone", 1);
    create(&cluster, "pair", 2);
    let on_worker_1 = |table: &str| {
        let placements = cluster.placements(table);
        (1..=100)
            .find(|key| {
                let shard = cluster.shard_of(table, &format!("hashint8({key})"));
                placements.iter().any(|it| it.shard == shard && it.node == WORKER_1)
            })
            .expect("100 keys reach all shards")
    };
    for (table, setting, expected) in [
        ("alone", "SET pg_shard.silence_timeout = '500ms'", Some("08007")),
        (
            "alone",
            "SET pg_shard.silence_timeout = 0; SET statement_timeout = '500ms'",
            Some("08007"),
        ),
        ("pair", "SET pg_shard.silence_timeout = '500ms'", None),
    ] {
        let mut session = cluster.new_session();
        let key = on_worker_1(table);
        session.sql(&format!("BEGIN; INSERT INTO {table} VALUES ({key}, 'unknown')"));
        let (pid, mut node) = process_on_worker_1(&cluster);
        session.sql(setting);
        signal("-STOP", &pid);
        let outcome = session.try_sql("COMMIT");
        signal("-CONT", &pid);
        match expected {
            Some(code) => assert_eq!(outcome.expect_err("nobody knows").sqlstate, code),
            None => assert!(outcome.is_ok(), "the other placement has it"),
        }
        wait_until("the process is gone", || {
            node.text(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")) == "0"
        });
        cluster.sql(&format!("DELETE FROM {table} WHERE id = {key}"));
    }
    assert_eq!(cluster.text("SELECT count(*) FROM pair"), "0");
    assert!(cluster.unhealthy("pair") > 0, "what did not confirm is marked");
    cluster.repair("pair");
    cluster.assert_placements_equal("pair");
}
