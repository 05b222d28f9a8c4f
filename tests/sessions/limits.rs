//! How many sessions there are, who waits for one, and who has one to itself.

use super::{cluster, number};
use testkit::{NodeName, Session, TestCluster, wait_until};

const STATES: &str = "SELECT string_agg(state, ',' ORDER BY state) FROM pgs_catalog.sessions WHERE \"user\" = 'alice'";

/// Sessions of clients on the worker.
fn served(worker: &mut Session) -> u64 {
    number(
        worker,
        "SELECT count(*) FROM pg_stat_activity WHERE usename IN ('alice', 'bob') AND application_name LIKE 'pg_shard%'",
    )
}

#[test]
fn sixty_clients_at_once_have_no_more_sessions_than_the_limit() {
    const CLIENTS: usize = 60;
    let cluster = cluster(&[
        ("pg_shard.max_sessions_per_node", "4"),
        ("pg_shard.session_wait_timeout", "5min"),
    ]);
    let mut most = 0;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let role = if number % 3 == 0 { "bob" } else { "alice" };
                let mut client = cluster.session_as(role);
                scope.spawn(move || {
                    for turn in 0..8 {
                        let key = (number * 7 + turn) % 100 + 1;
                        let seen = client.text(&format!("SELECT k FROM t WHERE k = {key}"));
                        assert_eq!(seen, key.to_string());
                        if turn % 4 == 3 {
                            client.sql(&format!(
                                "BEGIN; UPDATE t SET v = v + 1 WHERE k = {key}; COMMIT"
                            ));
                        }
                    }
                })
            })
            .collect();
        let mut client = cluster.new_session();
        while clients.iter().any(|client| !client.is_finished()) {
            let now = number(
                &mut client,
                "SELECT count(*) FROM pgs_catalog.sessions WHERE \"user\" IN ('alice', 'bob')",
            );
            most = now.max(most);
        }
    });
    assert!((1..=4).contains(&most), "{most} sessions");
    let changed = cluster.text("SELECT sum(v - k) FROM t");
    assert_eq!(changed, (CLIENTS * 2).to_string());
}

/// A client of the role in a transaction that holds a session.
fn holder(cluster: &TestCluster, role: &str) -> Session {
    let mut client = cluster.session_as(role);
    client.sql("BEGIN");
    assert_eq!(client.text("SELECT k FROM t WHERE k = 1"), "1");
    client
}

#[test]
fn who_waits_too_long_is_told_who_holds_the_sessions() {
    let cluster = cluster(&[("pg_shard.max_sessions_per_node", "1")]);
    let mut first = holder(&cluster, "alice");
    let pid = first.text("SELECT pg_backend_pid()");
    let mut second = cluster.session_as("bob");
    second.sql("SET pg_shard.session_wait_timeout = '100ms'");
    let error = second.error("SELECT v FROM t WHERE k = 1");
    assert_eq!(error.sqlstate, "53300");
    assert!(
        error.message.ends_with("is free, and pg_shard.max_sessions_per_node is 1"),
        "{error:?}"
    );
    assert!(error.detail.contains(&pid), "{error:?}");
    first.sql("COMMIT");
    second.sql("SET pg_shard.session_wait_timeout = 0");
    assert_eq!(second.text("SELECT v FROM t WHERE k = 1"), "1");
}

#[test]
fn a_client_that_waits_can_be_cancelled_and_leaves_no_gap() {
    let cluster =
        cluster(&[("pg_shard.max_sessions_per_node", "1"), ("pg_shard.session_wait_timeout", "0")]);
    let mut first = holder(&cluster, "alice");
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'bob' AND state = 'active' AND wait_event = 'Extension'";
    let mut waiters: Vec<Session> = (0..3).map(|_| cluster.session_as("bob")).collect();
    let pid = waiters[1].text("SELECT pg_backend_pid()");
    std::thread::scope(|scope| {
        let waits: Vec<_> = waiters
            .iter_mut()
            .map(|client| {
                scope.spawn(|| {
                    client.try_sql("SELECT v FROM t WHERE k = 2").map_err(|it| it.sqlstate)
                })
            })
            .collect();
        wait_until("all wait", || cluster.text(waiting) == "3");
        cluster.sql(&format!("SELECT pg_cancel_backend({pid})"));
        wait_until("one has given up", || cluster.text(waiting) == "2");
        first.sql("COMMIT");
        let outcomes: Vec<_> = waits.into_iter().map(|it| it.join().expect("no panic")).collect();
        assert_eq!(outcomes[1], Err("57014".to_owned()));
        assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    });
}

#[test]
fn a_session_in_which_something_may_be_left_serves_nobody_else() {
    let cluster = cluster(&[("pg_shard.max_sessions_per_node", "1")]);
    let mut worker = cluster.session_on(NodeName::Worker(1));
    let mut one = cluster.session_as("alice");
    one.client().batch_execute("SET client_min_messages = warning").expect("a setting");
    // COPY may run what users have made, in constraints say.
    one.sql("INSERT INTO t SELECT g, g FROM generate_series(200, 240) AS g");
    assert_eq!(cluster.text(STATES), "kept");
    assert_eq!(one.text("SELECT v FROM t WHERE k = 200"), "200");
    assert_eq!(cluster.text(STATES), "kept");
    let first = worker.text("SELECT pid FROM pg_stat_activity WHERE usename = 'alice'");
    // Another needs the room.
    let mut other = cluster.session_as("alice");
    assert_eq!(other.text("SELECT v FROM t WHERE k = 201"), "201");
    wait_until("the first session is gone", || {
        worker.text(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {first}")) == "0"
    });
    assert_eq!(served(&mut worker), 1);
    assert_eq!(cluster.text(STATES), "free");
    assert_eq!(one.text("SELECT v FROM t WHERE k = 202"), "202");
}

#[test]
fn sessions_of_a_role_that_is_changed_are_closed() {
    let cluster = cluster(&[]);
    let mut worker = cluster.session_on(NodeName::Worker(1));
    let mut one = cluster.session_as("alice");
    assert_eq!(one.text("SELECT v FROM t WHERE k = 1"), "1");
    assert_eq!(served(&mut worker), 1);
    cluster.sql("ALTER ROLE alice NOLOGIN");
    wait_until("the idle session is closed", || served(&mut worker) == 0);
    cluster.sql("ALTER ROLE alice LOGIN");
    wait_until("another is opened", || one.try_sql("SELECT v FROM t WHERE k = 1").is_ok());
    // Other options of the connection: idle sessions that have the old ones are closed too.
    cluster.sql("ALTER SYSTEM SET pg_shard.node_conninfo = 'application_name=renamed'");
    cluster.sql("SELECT pg_reload_conf()");
    let old = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'alice' AND application_name LIKE 'pg_shard%'";
    wait_until("the idle session is closed", || worker.text(old) == "0");
    let new = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'alice' AND application_name LIKE 'renamed%'";
    // The keeper and the client do not hear of the options in the same moment.
    wait_until("a session with the new options is kept", || {
        assert_eq!(one.text("SELECT v FROM t WHERE k = 1"), "1");
        worker.text(new) == "1"
    });
    wait_until("and none with the old ones", || worker.text(old) == "0");
}
