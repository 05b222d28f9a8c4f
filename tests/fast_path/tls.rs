//! Encrypted sessions.

use std::io::{Read, Write};
use std::thread;

use testkit::postgres::NoTls;
use testkit::{TestCluster, wait_until};

use crate::{WORKER_1, create_kv, key_led_by};

/// A cluster whose coordinator insists on TLS for its sessions to the workers.
fn encrypted_cluster() -> Option<TestCluster> {
    let cluster = TestCluster::impatient(2);
    if !cluster.has_tls() {
        return None;
    }
    for worker in cluster.workers() {
        cluster.encrypt(worker);
    }
    // No certificates from the home of whoever runs the test.
    let conninfo = "sslmode=require sslcert=absent sslkey=absent sslrootcert=absent";
    cluster.sql(&format!("ALTER SYSTEM SET pg_shard.node_conninfo = '{conninfo}'"));
    cluster.sql("SELECT pg_reload_conf()");
    wait_until("the coordinator knows", || {
        cluster.new_session().text("SHOW pg_shard.node_conninfo") == conninfo
    });
    Some(cluster)
}

/// On every worker all sessions of coordinators that live are encrypted, and there are some.
fn assert_encrypted(cluster: &TestCluster) {
    for worker in cluster.workers() {
        let counts = cluster.session_on(worker).text(
            "SELECT count(*) FILTER (WHERE ssl) > 0, count(*) FILTER (WHERE NOT ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE application_name ~ '^pg_shard( |$)'",
        );
        assert_eq!(counts, "t|0", "{worker}");
    }
}

#[test]
fn rows_of_every_size_come_and_go_encrypted() {
    let Some(cluster) = encrypted_cluster() else { return };
    cluster.create_distributed(
        "CREATE TABLE docs (k int PRIMARY KEY, body text)",
        "docs",
        "k",
        4,
        2,
    );
    let mut session = cluster.new_session();
    // Sizes around those of TLS records and of buffers.
    let sizes =
        [0, 1, 1000, 8191, 16_383, 16_384, 16_385, 65_535, 65_536, 70_000, 300_000, 2_000_000];
    for (key, size) in (1_i32..).zip(sizes) {
        session.sql(&format!("INSERT INTO docs VALUES ({key}, repeat('x', {size}) || 'é')"));
    }
    let client = session.client();
    let insert = client.prepare("INSERT INTO docs VALUES ($1, $2)").expect("an INSERT");
    let select = client.prepare("SELECT body FROM docs WHERE k = $1").expect("a SELECT");
    for (key, size) in (101_i32..).zip(sizes) {
        let body = "y".repeat(size);
        assert_eq!(client.execute(&insert, &[&key, &body]).expect("an INSERT"), 1);
        assert_eq!(client.query_one(&select, &[&key]).expect("a row").get::<_, String>(0), body);
    }
    for (key, size) in (1_i32..).zip(sizes) {
        let found = client.query_one(&select, &[&key]).expect("a row").get::<_, String>(0);
        assert_eq!(found.len(), size + 2);
        assert!(found.starts_with(&"x".repeat(size)));
    }
    assert_encrypted(&cluster);
    let literal = "z".repeat(500_000);
    session.sql(&format!("UPDATE docs SET body = '{literal}' WHERE k = 1"));
    assert_eq!(session.text("SELECT body FROM docs WHERE k = 1"), literal);
    assert_eq!(
        session.text("SELECT sum(length(body)) FROM docs WHERE k > 100"),
        sizes.iter().sum::<usize>().to_string()
    );
    // Many rows from all shards, also through a cursor that others interrupt.
    session.sql("INSERT INTO docs SELECT i, repeat(md5(i::text), 10) FROM generate_series(1000, 20999) AS i");
    assert_eq!(session.sql("SELECT k, body FROM docs WHERE k >= 1000").len(), 20_000);
    session.sql("BEGIN; DECLARE c CURSOR FOR SELECT body FROM docs WHERE k >= 1000");
    assert_eq!(session.sql("FETCH 10 FROM c").len(), 10);
    assert_eq!(session.text("SELECT count(*) FROM docs"), "20024");
    session.sql("UPDATE docs SET body = '' WHERE k = 1");
    assert_eq!(session.sql("FETCH ALL FROM c").len(), 19_990);
    session.sql("COMMIT");
    assert_encrypted(&cluster);
    assert_eq!(session.warnings(), []);
    assert_eq!(cluster.unhealthy("docs"), 0);
    assert_eq!(cluster.assert_placements_equal("docs"), 20_024);
}

#[test]
fn copy_runs_encrypted_both_ways() {
    let Some(cluster) = encrypted_cluster() else { return };
    cluster.create_distributed("CREATE TABLE docs (k int, body text)", "docs", "k", 4, 2);
    let mut session = cluster.new_session();
    let client = session.client();
    let mut writer = client.copy_in("COPY docs FROM STDIN").expect("a COPY");
    for key in 0..20_000 {
        let size = if key % 1000 == 0 { 200_000 } else { 200 };
        writer
            .write_all(format!("{key}\t{}\n", "c".repeat(size)).as_bytes())
            .expect("it takes data");
    }
    assert_eq!(writer.finish().expect("a COPY"), 20_000);
    let mut copied = String::new();
    let mut reader = client.copy_out("COPY docs TO STDOUT").expect("a COPY");
    reader.read_to_string(&mut copied).expect("data");
    drop(reader);
    assert_eq!(copied.lines().count(), 20_000);
    assert_eq!(
        copied.len(),
        20_000 * 201
            + 20 * 199_800
            + (0..20_000).map(|key: i32| key.to_string().len() + 1).sum::<usize>()
    );
    // A bad line takes all back.
    let mut writer = client.copy_in("COPY docs FROM STDIN").expect("a COPY");
    for key in 0..5000 {
        writer
            .write_all(format!("{key}\t{}\n", "d".repeat(500)).as_bytes())
            .expect("it takes data");
    }
    writer.write_all(b"nonsense\tx\n").expect("it takes data");
    let error = writer.finish().expect_err("a bad line");
    assert_eq!(error.code().map(|code| code.code()), Some("22P02"));
    assert_encrypted(&cluster);
    assert_eq!(cluster.unhealthy("docs"), 0);
    assert_eq!(cluster.assert_placements_equal("docs"), 20_000);
}

#[test]
fn an_encrypted_statement_can_be_cancelled() {
    let Some(cluster) = encrypted_cluster() else { return };
    create_kv(&cluster, 2);
    let key = key_led_by(&cluster, "kv", WORKER_1);
    let mut session = cluster.new_session();
    session.sql(&format!("UPDATE kv SET v = 1 WHERE k = {key}"));
    session.sql("SET statement_timeout = '300ms'");
    let slow = format!(
        "SELECT s FROM kv WHERE k = {key} AND (SELECT count(*) FROM generate_series(1, 2000000000)) > 0"
    );
    assert_eq!(session.error(&slow).sqlstate, "57014");
    session.sql("SET statement_timeout = 0");
    // A row lock on the leader, which an autocommit write waits for.
    let mut locker = cluster.new_session();
    locker.sql(&format!("BEGIN; SELECT * FROM kv WHERE k = {key} FOR UPDATE"));
    for statement in [slow, format!("UPDATE kv SET v = 2 WHERE k = {key}")] {
        let token = session.client().cancel_token();
        let outcome = thread::scope(|scope| {
            let running = scope.spawn(|| session.try_sql(&statement));
            let mut worker = cluster.session_on(WORKER_1);
            wait_until("the worker executes it", || {
                worker.text("SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^pg_shard( |$)' AND state = 'active'") == "1"
            });
            token.cancel_query(NoTls).expect("the coordinator is there");
            running.join().expect("the session does not panic")
        });
        assert_eq!(outcome.expect_err("it was cancelled").sqlstate, "57014", "{statement}");
        wait_until("the worker has stopped", || {
            cluster.session_on(WORKER_1).text("SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^pg_shard( |$)' AND state = 'active'") == "0"
        });
    }
    locker.sql("COMMIT");
    assert_eq!(session.text(&format!("SELECT v FROM kv WHERE k = {key}")), "1");
    session.sql(&format!("UPDATE kv SET v = 3 WHERE k = {key}"));
    assert_encrypted(&cluster);
    assert_eq!(cluster.unhealthy("kv"), 0);
    assert_eq!(cluster.assert_placements_equal("kv"), 100);
}

#[test]
fn a_killed_worker_is_noticed_through_tls_and_comes_back() {
    let Some(cluster) = encrypted_cluster() else { return };
    create_kv(&cluster, 2);
    let key = key_led_by(&cluster, "kv", WORKER_1);
    let mut session = cluster.new_session();
    session.sql("SELECT count(*) FROM kv");
    // Between statements, and back at once: nobody notices.
    for stops in [true, false] {
        if stops { cluster.stop(WORKER_1) } else { cluster.kill(WORKER_1) }
            .expect("worker 1 is up");
        cluster.start(WORKER_1).expect("worker 1 is down");
        assert_eq!(session.text(&format!("SELECT s FROM kv WHERE k = {key}")), format!("s{key}"));
        session.sql(&format!("UPDATE kv SET v = v + 1 WHERE k = {key}"));
        assert_eq!(session.warnings(), []);
    }
    // In the middle of a statement.
    let slow = format!(
        "SELECT s FROM kv WHERE k = {key} AND (SELECT count(*) FROM generate_series(1, 3000000)) > 0"
    );
    let rows = thread::scope(|scope| {
        let running = scope.spawn(|| session.try_sql(&slow));
        let mut worker = cluster.session_on(WORKER_1);
        wait_until("the worker executes it", || {
            worker.text("SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^pg_shard( |$)' AND state = 'active'") == "1"
        });
        cluster.kill(WORKER_1).expect("worker 1 is up");
        running.join().expect("the session does not panic")
    });
    assert_eq!(rows.expect("the other placement answers"), [[format!("s{key}")]]);
    assert_eq!(session.warnings().len(), 1);
    session.sql(&format!("UPDATE kv SET v = v + 1 WHERE k = {key}"));
    assert_eq!(cluster.unhealthy("kv"), 1);
    cluster.start(WORKER_1).expect("worker 1 is down");
    assert_eq!(cluster.repair("kv"), 1);
    // Frozen: found out by a second connection, which would be encrypted too.
    cluster.pause(WORKER_1).expect("worker 1 is up");
    session.sql(&format!("UPDATE kv SET v = v + 1 WHERE k = {key}"));
    cluster.resume(WORKER_1).expect("worker 1 is paused");
    assert_eq!(cluster.unhealthy("kv"), 1);
    wait_until("the repair succeeds", || cluster.repair("kv") == 1);
    assert_eq!(session.text(&format!("SELECT v FROM kv WHERE k = {key}")), "4");
    assert_eq!(cluster.assert_placements_equal("kv"), 100);
}

#[test]
fn a_worker_without_tls_is_refused_if_tls_is_required() {
    let Some(cluster) = encrypted_cluster() else { return };
    create_kv(&cluster, 2);
    cluster.session_on(WORKER_1).sql("ALTER SYSTEM SET ssl = off");
    cluster.session_on(WORKER_1).sql("SELECT pg_reload_conf()");
    wait_until("the worker has no TLS", || cluster.session_on(WORKER_1).text("SHOW ssl") == "off");
    let key = key_led_by(&cluster, "kv", WORKER_1);
    let mut session = cluster.new_session();
    // A read finds the other placement; nothing goes over the wire in clear.
    let read = session.try_sql(&format!("SELECT s FROM kv WHERE k = {key}"));
    let in_clear = cluster.session_on(WORKER_1).text(
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name ~ '^pg_shard( |$)' AND NOT ssl",
    );
    assert_eq!(in_clear, "0");
    assert_eq!(read.expect("the other placement answers"), [[format!("s{key}")]]);
}
