//! Statements that take too long are given up, on the workers too.

use std::thread;
use std::time::{Duration, Instant};

use testkit::postgres::NoTls;
use testkit::{NodeName, Session, TestCluster, wait_until};

const WORKER_1: NodeName = NodeName::Worker(1);

/// Long before a sleep of a minute, long after anything else.
const SOON: Duration = Duration::from_secs(20);

/// Keeps everybody away from the shards of a table until it is dropped or told to commit.
fn blocker(cluster: &TestCluster, worker: NodeName, table: &str) -> Session {
    let mut session = cluster.session_on(worker);
    let shards = cluster.tables_on(worker, &format!("{table}\\_%")).join(", ");
    session.sql(&format!("BEGIN; LOCK TABLE {shards} IN ACCESS EXCLUSIVE MODE"));
    session
}

/// How many statements wait on the workers.
fn waiting(cluster: &TestCluster) -> usize {
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND state = 'active'";
    cluster
        .workers()
        .iter()
        .map(|worker| cluster.session_on(*worker).text(waiting).parse::<usize>().expect("a number"))
        .sum()
}

#[test]
fn a_statement_that_is_cancelled_ends_on_the_workers_too() {
    let cluster = TestCluster::impatient(2);
    cluster.create_distributed(
        "CREATE TABLE slow (key int PRIMARY KEY, v text)",
        "slow",
        "key",
        4,
        2,
    );
    cluster.sql("INSERT INTO slow SELECT generate_series(1, 20)");
    let statements = [
        "SELECT v FROM slow WHERE key = 1",
        "SELECT count(*) FROM slow",
        "UPDATE slow SET v = 'x' WHERE key = 1",
        "INSERT INTO slow SELECT generate_series(100, 200)",
        "INSERT INTO slow SELECT generate_series(100, 200) RETURNING key",
        "BEGIN; SAVEPOINT s; DELETE FROM slow WHERE key = 2",
        "DO $$ DECLARE n int; BEGIN FOR i IN 1..3 LOOP SELECT count(*) INTO n FROM slow WHERE key = i; END LOOP; END $$",
    ];
    for statement in statements {
        let blockers: Vec<Session> =
            cluster.workers().iter().map(|worker| blocker(&cluster, *worker, "slow")).collect();
        let mut session = cluster.new_session();
        let start = Instant::now();
        session.sql("SET statement_timeout = '500ms'");
        let error = session.error(statement);
        assert_eq!(
            error.line(),
            "57014: canceling statement due to statement timeout",
            "{statement}"
        );
        assert!(start.elapsed() < SOON, "{statement}");
        session.sql("ROLLBACK");
        wait_until("the workers stop too", || waiting(&cluster) == 0);

        // The user presses Ctrl-C.
        session.sql("RESET statement_timeout");
        let token = session.client().cancel_token();
        let text = statement.to_owned();
        let cancelled = thread::spawn(move || (session.error(&text), session));
        wait_until("the statement reaches a worker", || waiting(&cluster) > 0);
        token.cancel_query(NoTls).expect("the coordinator is up");
        let (error, mut session) = cancelled.join().expect("the statement is cancelled");
        assert_eq!(error.line(), "57014: canceling statement due to user request", "{statement}");
        wait_until("the workers stop too", || waiting(&cluster) == 0);
        session.sql("ROLLBACK");
        session.notices();

        drop(blockers);
        assert_eq!(session.text("SELECT count(*), count(v) FROM slow"), "20|0", "{statement}");
        assert_eq!(session.count("UPDATE slow SET v = NULL WHERE key = 1"), 1, "{statement}");
        assert_eq!(session.warnings(), [], "{statement}");
        assert_eq!(cluster.unhealthy("slow"), 0, "{statement}");
    }
    // A session that is ended takes its statements along.
    let blockers: Vec<Session> =
        cluster.workers().iter().map(|worker| blocker(&cluster, *worker, "slow")).collect();
    let mut session = cluster.new_session();
    let pid = session.text("SELECT pg_backend_pid()");
    let ended = thread::spawn(move || {
        session.client().batch_execute("UPDATE slow SET v = 'x' WHERE key = 1").is_err()
    });
    wait_until("the statement reaches a worker", || waiting(&cluster) > 0);
    cluster.sql(&format!("SELECT pg_terminate_backend({pid})"));
    assert!(ended.join().expect("the thread does not panic"));
    wait_until("the worker stops too", || waiting(&cluster) == 0);
    drop(blockers);
    assert_eq!(cluster.unhealthy("slow"), 0);
    assert_eq!(cluster.text("SELECT count(v) FROM slow"), "0");
    assert_eq!(cluster.assert_placements_equal("slow"), 20);
}

#[test]
fn a_frozen_worker_is_given_up_and_a_busy_one_is_not() {
    let cluster = TestCluster::impatient(2);
    cluster.create_distributed(
        "CREATE TABLE frozen (key int PRIMARY KEY, v text)",
        "frozen",
        "key",
        4,
        2,
    );
    cluster.create_distributed(
        "CREATE TABLE single (key int PRIMARY KEY, v text)",
        "single",
        "key",
        4,
        1,
    );
    cluster.sql("INSERT INTO frozen SELECT generate_series(1, 20); INSERT INTO single SELECT generate_series(1, 20)");

    // Longer than silence is borne: the node is asked, says that it lives, and is waited for.
    for statement in ["SELECT count(*) FROM frozen", "UPDATE frozen SET v = 'slow' WHERE key = 1"] {
        let mut blocker = blocker(&cluster, WORKER_1, "frozen");
        let mut session = cluster.new_session();
        let start = Instant::now();
        let releasing = thread::spawn(move || blocker.sql("SELECT pg_sleep(2.5); COMMIT"));
        session.sql(statement);
        assert!(start.elapsed() > Duration::from_secs(2), "{statement}");
        assert_eq!(session.warnings(), [], "{statement}");
        releasing.join().expect("the thread does not panic");
    }
    assert_eq!(cluster.unhealthy("frozen"), 0);

    // With patience for ever a frozen node is waited for, until the statement's own time is over.
    cluster.pause(WORKER_1).expect("worker 1 is up");
    let mut patient = cluster.new_session();
    patient.sql("SET pg_shard.silence_timeout = 0; SET pg_shard.connect_timeout = '60s'; SET statement_timeout = '1s'");
    let start = Instant::now();
    for statement in
        ["SELECT count(*) FROM frozen", "INSERT INTO single SELECT generate_series(100, 120)"]
    {
        assert_eq!(patient.error(statement).sqlstate, "57014", "{statement}");
    }
    assert!(start.elapsed() < SOON);
    assert_eq!(cluster.unhealthy("frozen"), 0);

    // Without, reads go elsewhere and writes mark what missed them.
    let mut session = cluster.new_session();
    assert_eq!(session.text("SELECT count(*) FROM frozen"), "20");
    assert_eq!(session.text("SELECT count(*) FROM frozen WHERE key = 1"), "1");
    assert_eq!(cluster.unhealthy("frozen"), 0);
    for key in 1..=20 {
        session.sql(&format!("UPDATE frozen SET v = 'while frozen' WHERE key = {key}"));
    }
    assert_eq!(cluster.unhealthy("frozen"), 4);
    assert_eq!(
        session.error("SELECT count(*) FROM single").line(),
        "XX000: could not receive query results"
    );
    assert_eq!(cluster.unhealthy("single"), 0);

    cluster.resume(WORKER_1).expect("worker 1 is paused");
    assert_eq!(cluster.new_session().text("SELECT count(*) FROM single"), "20");
    assert_eq!(session.text("SELECT count(*), min(v) FROM frozen"), "20|while frozen");
    assert_eq!(cluster.repair("frozen"), 4);
    assert_eq!(cluster.assert_placements_equal("frozen"), 20);
    assert_eq!(cluster.assert_placements_equal("single"), 20);
}
