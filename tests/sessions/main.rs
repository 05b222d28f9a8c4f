//! Sessions that all backends of a server share: nobody finds anything of another in them, and nothing of them is left behind.

/// How many there are, and who waits.
mod limits;

/// Many clients at once.
mod mixing;

/// A pool in front.
mod pgbouncer;

/// What one client has done, and another must not find.
mod traces;

use testkit::{NodeName, Session, TestCluster, wait_until};

/// A cluster of one worker whose sessions are shared, with a table of 100 rows in 4 shards.
fn cluster(settings: &[(&str, &str)]) -> TestCluster {
    let settings = [&[("pg_shard.shared_sessions", "on")], settings].concat();
    let cluster = TestCluster::up_with(1, &settings);
    cluster.on_all_nodes("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN");
    cluster.sql("CREATE TABLE t (k int PRIMARY KEY, v int); GRANT ALL ON t TO alice, bob");
    cluster.distribute("t", "k", 4, 1);
    cluster.sql("INSERT INTO t SELECT g, g FROM generate_series(1, 100) AS g");
    cluster
}

/// The number that a query yields.
fn number(session: &mut Session, query: &str) -> u64 {
    session.text(query).parse().expect("a number")
}

/// The processes that serve a role's sessions on the worker.
fn backends(worker: &mut Session, role: &str) -> Vec<String> {
    let rows = worker.sql(&format!(
        "SELECT pid FROM pg_stat_activity WHERE usename = '{role}' AND application_name LIKE 'pg_shard%' ORDER BY pid"
    ));
    rows.into_iter().map(|row| row.join(" ")).collect()
}

#[test]
fn clients_of_one_role_use_one_session_in_turn() {
    let cluster = cluster(&[]);
    let mut worker = cluster.session_on(NodeName::Worker(1));
    let (mut one, mut other) = (cluster.session_as("alice"), cluster.session_as("alice"));
    for _ in 0..3 {
        for client in [&mut one, &mut other] {
            assert_eq!(client.text("SELECT v FROM t WHERE k = 7"), "7");
            assert_eq!(client.text("SELECT count(*) FROM t"), "100");
        }
    }
    let first = backends(&mut worker, "alice");
    assert_eq!(first.len(), 1, "{first:?}");
    // The one that has opened it leaves.
    drop(one);
    assert_eq!(other.text("SELECT v FROM t WHERE k = 8"), "8");
    drop(other);
    let mut third = cluster.session_as("alice");
    assert_eq!(third.text("SELECT v FROM t WHERE k = 9"), "9");
    assert_eq!(backends(&mut worker, "alice"), first);
}

#[test]
fn writes_by_key_share_sessions_too() {
    let cluster = cluster(&[]);
    cluster.sql(
        "CREATE FUNCTION positive(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 > 0'; \
         CREATE TABLE checked (k int, v int CHECK (positive(v))); GRANT ALL ON checked TO alice",
    );
    cluster.distribute("checked", "k", 1, 1);
    let state = "SELECT string_agg(state, ',') FROM pgs_catalog.sessions WHERE \"user\" = 'alice'";
    let mut client = cluster.session_as("alice");
    client.sql("INSERT INTO t VALUES (500, 1)");
    client.sql("UPDATE t SET v = 2 WHERE k = 500");
    client.sql("BEGIN; DELETE FROM t WHERE k = 500; COMMIT");
    assert_eq!(cluster.text(state), "free");
    // What a function of users leaves in a session nobody knows.
    client.sql("INSERT INTO checked VALUES (1, 1)");
    assert_eq!(cluster.text(state), "kept");
}

#[test]
fn a_transaction_keeps_its_session_to_its_end() {
    let cluster = cluster(&[]);
    let (mut one, mut other) = (cluster.session_as("alice"), cluster.session_as("alice"));
    one.sql("BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(one.text("SELECT v FROM t WHERE k = 1"), "1");
    other.sql("UPDATE t SET v = 50 WHERE k = 1");
    assert_eq!(other.text("SELECT v FROM t WHERE k = 1"), "50");
    assert_eq!(one.text("SELECT v FROM t WHERE k = 1"), "1");
    one.sql("COMMIT");
    assert_eq!(one.text("SELECT v FROM t WHERE k = 1"), "50");
}

#[test]
fn what_one_client_has_prepared_serves_another() {
    let cluster = cluster(&[]);
    let (mut one, mut other) = (cluster.session_as("alice"), cluster.session_as("alice"));
    let prepare = "PREPARE p (int) AS SELECT v FROM t WHERE k = $1";
    for client in [&mut one, &mut other] {
        client.sql(prepare);
        assert_eq!(client.text("EXECUTE p (3)"), "3");
    }
    // The definition changes under the plan that the worker keeps.
    cluster.sql("ALTER TABLE t ALTER COLUMN v TYPE bigint");
    for client in [&mut one, &mut other] {
        client.sql("DEALLOCATE p");
        client.sql(prepare);
        assert_eq!(client.text("EXECUTE p (3)"), "3");
        assert_eq!(client.text("SELECT pg_typeof(v) FROM t WHERE k = 3"), "bigint");
    }
}

#[test]
fn the_sessions_of_a_client_that_is_killed_are_closed() {
    let cluster = cluster(&[]);
    let mut worker = cluster.session_on(NodeName::Worker(1));
    let mut victim = cluster.session_as("alice");
    let pid = victim.text("SELECT pg_backend_pid()");
    victim.sql("BEGIN");
    victim.sql("UPDATE t SET v = 0 WHERE k = 1");
    assert_eq!(backends(&mut worker, "alice").len(), 1);
    assert_eq!(cluster.text(&format!("SELECT pg_terminate_backend({pid})")), "t");
    wait_until("nothing of it is open on the worker", || {
        worker.text(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'alice' AND state <> 'idle'",
        ) == "0"
    });
    assert_eq!(cluster.text("SELECT v FROM t WHERE k = 1"), "1");
    let mut next = cluster.session_as("alice");
    assert_eq!(next.text("SELECT v FROM t WHERE k = 1"), "1");
}

#[test]
fn a_server_that_crashes_closes_all_sessions() {
    let cluster = cluster(&[]);
    let mut worker = cluster.session_on(NodeName::Worker(1));
    let mut victim = cluster.session_as("alice");
    assert_eq!(victim.text("SELECT v FROM t WHERE k = 1"), "1");
    let before = backends(&mut worker, "alice");
    let pid = victim.text("SELECT pg_backend_pid()");
    victim.sql("BEGIN");
    victim.sql("UPDATE t SET v = 0 WHERE k = 1");
    let killed = std::process::Command::new("kill").args(["-KILL", &pid]).status();
    assert!(killed.expect("kill runs").success());
    wait_until("the server has ended all sessions", || {
        cluster.session().client().simple_query("SELECT 1").is_err()
    });
    cluster.reconnect();
    wait_until("the worker has ended the sessions", || {
        backends(&mut worker, "alice").iter().all(|pid| !before.contains(pid))
    });
    let mut next = cluster.session_as("alice");
    assert_eq!(next.text("SELECT v FROM t WHERE k = 1"), "1");
}

#[test]
fn a_keeper_that_ends_comes_back_and_clients_go_on() {
    let cluster = cluster(&[]);
    let mut worker = cluster.session_on(NodeName::Worker(1));
    let (mut one, mut other) = (cluster.session_as("alice"), cluster.session_as("alice"));
    for client in [&mut one, &mut other] {
        assert_eq!(client.text("SELECT v FROM t WHERE k = 1"), "1");
    }
    let before = backends(&mut worker, "alice");
    let keeper = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_shard keeper'";
    let pid = cluster.text(keeper);
    assert_eq!(cluster.text(&format!("SELECT pg_terminate_backend({pid})")), "t");
    wait_until("the worker has ended the sessions of the first keeper", || {
        // A client that does nothing lets go of its sockets when it next does something.
        for client in [&mut one, &mut other] {
            assert_eq!(client.text("SELECT v FROM t WHERE k = 2"), "2");
        }
        backends(&mut worker, "alice").iter().all(|pid| !before.contains(pid))
    });
    wait_until("another keeper is there", || {
        let now = cluster.sql(keeper);
        now.len() == 1 && now[0].join("") != pid
    });
    wait_until("sessions are shared again", || {
        let mut client = cluster.session_as("alice");
        assert_eq!(client.text("SELECT v FROM t WHERE k = 3"), "3");
        let after = backends(&mut worker, "alice");
        drop(client);
        let mut client = cluster.session_as("alice");
        assert_eq!(client.text("SELECT v FROM t WHERE k = 3"), "3");
        !after.is_empty() && backends(&mut worker, "alice") == after
    });
}

#[test]
fn idle_sessions_do_not_survive_a_restart_of_their_node() {
    let cluster = cluster(&[]);
    let (mut one, mut other) = (cluster.session_as("alice"), cluster.session_as("alice"));
    for client in [&mut one, &mut other] {
        assert_eq!(client.text("SELECT v FROM t WHERE k = 1"), "1");
    }
    cluster.stop(NodeName::Worker(1)).expect("the worker stops");
    cluster.start(NodeName::Worker(1)).expect("the worker starts");
    drop(cluster.wait_for(NodeName::Worker(1)));
    for client in [&mut one, &mut other] {
        assert_eq!(client.text("SELECT v FROM t WHERE k = 1"), "1");
        client.sql("UPDATE t SET v = v WHERE k = 2");
    }
}

/// A statement by itself leaves the name of a shared session alone, by which nodes tell whom a session serves. It holds locks of the
/// coordinator nevertheless: its circle was never found.
#[test]
fn a_statement_by_itself_gives_way_in_a_circle_over_a_lock_of_the_coordinator() {
    let cluster = cluster(&[]);
    let (mut holder, mut alone) = (cluster.new_session(), cluster.new_session());
    for client in [&mut holder, &mut alone] {
        client.sql("SET statement_timeout = '60s'");
    }
    holder.sql("BEGIN; UPDATE t SET v = 0 WHERE k = 7");
    let mut worker = cluster.session_on(NodeName::Worker(1));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| alone.try_sql("UPDATE t SET v = 1 WHERE k = 7"));
        wait_until("the statement waits for the row", || {
            number(&mut worker, "SELECT count(*) FROM pg_locks WHERE NOT granted") == 1
        });
        holder.sql("TRUNCATE t");
        let error = running.join().expect("no session panics").expect_err("it gives way");
        assert_eq!(error.line(), "40P01: deadlock detected");
    });
    holder.sql("ROLLBACK");
    assert_eq!(cluster.text("SELECT v FROM t WHERE k = 7"), "7");
}
