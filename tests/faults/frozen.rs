//! Nodes that are frozen: whoever waits for them can be stopped, and several cost no more time than one.

use crate::WORKER_1;
use std::ops::Range;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use testkit::{NodeName, Session, TestCluster, wait_until};

/// Long after everything that ends at all.
const SOON: Duration = Duration::from_secs(30);

fn cluster_with_table(settings: &[(&str, &str)]) -> TestCluster {
    let cluster = TestCluster::up_with(4, settings);
    cluster.create_distributed("CREATE TABLE t (id bigint PRIMARY KEY, v text)", "t", "id", 8, 1);
    cluster.sql("INSERT INTO t SELECT i, 'old' FROM generate_series(1, 100) AS i");
    cluster
}

/// A key of which no row is stored yet, on worker 1.
fn key_on_worker_1(cluster: &TestCluster, among: Range<i64>) -> i64 {
    let placements = cluster.placements("t");
    let is_there = |key: &i64| {
        let shard = cluster.shard_of("t", &format!("hashint8({key})"));
        placements.iter().any(|it| it.shard == shard && it.node == WORKER_1)
    };
    among.into_iter().find(is_there).expect("100 keys reach all shards")
}

/// What a session does before the nodes freeze, what it is stopped in, and the rows that it writes.
struct Case {
    before: String,
    statement: String,
    rows: Range<i64>,
}

/// One of each kind, with keys of its own.
fn cases(cluster: &TestCluster, first: i64) -> Vec<Case> {
    let touch = "SELECT count(*) FROM t";
    // Another text than that of any statement to be stopped, which is recognised by its text.
    let touched = "SELECT max(id) FROM t";
    let wide = "SELECT repeat(v, 1000) FROM t, generate_series(1, 10000)";
    let insert = |from: i64| {
        format!("INSERT INTO t SELECT i, 'new' FROM generate_series({from}, {}) AS i", from + 99)
    };
    let case = |before: &str, statement: &str, rows: Range<i64>| Case {
        before: before.to_owned(),
        statement: statement.to_owned(),
        rows,
    };
    let key = key_on_worker_1(cluster, first..first + 100);
    let by_key = format!("INSERT INTO t VALUES ({key}, 'new')");
    let at = |n: i64| first + n * 100..first + n * 100 + 100;
    let copy = |from: i64| format!("COPY t (id) FROM PROGRAM 'seq {from} {}'", from + 99);
    vec![
        case("SELECT", touch, 0..0),
        case(touched, touch, 0..0),
        case(touched, &by_key, key..key + 1),
        case("SELECT", &insert(at(1).start), at(1)),
        case(touched, &insert(at(2).start), at(2)),
        case("SELECT", &copy(at(3).start), at(3)),
        case(touched, &copy(at(4).start), at(4)),
        case(&format!("BEGIN; {}", insert(at(5).start)), "COMMIT", at(5)),
        case(&format!("BEGIN; SAVEPOINT s; {}", insert(at(6).start)), "RELEASE s", at(6)),
        case(&format!("BEGIN; {touched}"), &insert(at(7).start), at(7)),
        case(&format!("BEGIN; {}", insert(at(8).start)), "ROLLBACK", at(8)),
        case(&format!("BEGIN; DECLARE c CURSOR FOR {wide}; FETCH 1 FROM c"), "CLOSE c", 0..0),
    ]
}

/// How a statement is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    TimeOut,
    Cancel,
    Terminate,
}

/// A statement under way in a session of its own.
struct Running {
    case: Case,
    stop: Stop,
    pid: String,
    /// The SQLSTATE that it ended with; none if the connection was lost.
    ended: Receiver<Option<String>>,
}

fn run(mut session: Session, pid: String, case: Case, stop: Stop) -> Running {
    let (tell, ended) = channel();
    let statement = case.statement.clone();
    thread::spawn(move || {
        let outcome = session.client().simple_query(&statement);
        let code = match &outcome {
            Ok(_) => Some("00000".to_owned()),
            Err(error) => error.code().map(|code| code.code().to_owned()),
        };
        // Nobody listens any more if another statement has hung.
        let _ = tell.send(code);
    });
    Running { case, stop, pid, ended }
}

/// A cancel, a time-out and the end of the session waited for frozen nodes: for each of them in turn, for each connection that was
/// to be opened in turn, and in some waits for ever.
#[test]
fn whatever_waits_for_frozen_nodes_can_be_stopped() {
    // Nothing but the stop ends it.
    let settings = [("pg_shard.silence_timeout", "0"), ("pg_shard.connect_timeout", "60s")];
    let cluster = cluster_with_table(&settings);
    let mut first = 1000;
    for frozen in [vec![WORKER_1], cluster.workers()] {
        let mut sessions = Vec::new();
        for stop in [Stop::TimeOut, Stop::Cancel, Stop::Terminate] {
            for case in cases(&cluster, first) {
                let mut session = cluster.new_session();
                let pid = session.text("SELECT pg_backend_pid()");
                session.sql(&case.before);
                if stop == Stop::TimeOut {
                    session.sql("SET statement_timeout = '500ms'");
                }
                sessions.push((session, pid, case, stop));
            }
            first += 1000;
        }
        frozen.iter().for_each(|node| cluster.pause(*node).expect("it runs"));
        let begun = Instant::now();
        let running: Vec<Running> = sessions
            .into_iter()
            .map(|(session, pid, case, stop)| run(session, pid, case, stop))
            .collect();
        stop_all(&cluster, &running);
        let outcomes: Vec<_> = running
            .iter()
            .map(|it| it.ended.recv_timeout(SOON.saturating_sub(begun.elapsed())))
            .collect();
        frozen.iter().for_each(|node| cluster.resume(*node).expect("it is paused"));
        cluster.wait_for_rest();
        for (Running { case, stop, .. }, outcome) in running.iter().zip(outcomes) {
            let what = format!("{stop:?} of {} with {} frozen", case.statement, frozen.len());
            let code = outcome.unwrap_or_else(|_| panic!("{what}: does not end"));
            check(&cluster, case, code.as_deref(), *stop, &what);
        }
    }
    assert_eq!(cluster.unhealthy("t"), 0);
}

/// Strikes each that waits to be struck, once it waits.
fn stop_all(cluster: &TestCluster, running: &[Running]) {
    for Running { case, stop, pid, .. } in running {
        let function = match stop {
            Stop::TimeOut => continue,
            Stop::Cancel => "pg_cancel_backend",
            Stop::Terminate => "pg_terminate_backend",
        };
        wait_until("the statement runs, or has ended", || {
            let statement = &case.statement.replace('\'', "''");
            cluster.text(&format!(
                "SELECT coalesce(bool_or(query = '{statement}'), true) FROM pg_stat_activity WHERE pid = {pid}"
            )) == "t"
        });
        cluster.sql(&format!("SELECT {function}({pid})"));
    }
}

/// What was told is true.
fn check(cluster: &TestCluster, case: &Case, code: Option<&str>, stop: Stop, what: &str) {
    let Range { start, end } = &case.rows;
    let stored = cluster.text(&format!(
        "SELECT count(*) FROM t WHERE id >= {start} AND id < {end} AND v IS DISTINCT FROM 'old'"
    ));
    match code {
        // Rows that are not wanted any more, or not to stay, are nobody's concern.
        Some("00000") if ["ROLLBACK", "CLOSE c"].contains(&&*case.statement) => {
            assert_eq!(stored, "0", "{what}");
        }
        Some("57014") => assert_eq!(stored, "0", "{what}"),
        // The signal reaches the whole process group: it may end the program before PostgreSQL looks at its interrupts.
        Some("38000") if case.statement.contains(" FROM PROGRAM ") => {
            assert_eq!(stored, "0", "{what}");
        }
        Some("57P01") | None => assert_eq!(stop, Stop::Terminate, "{what}"),
        // Nobody knows what a frozen node makes of a commit, or of a statement that it commits by itself.
        Some("08007") => assert!(end > start, "{what}"),
        Some(other) => panic!("{what}: {other}"),
    }
}

/// Sessions to frozen nodes were opened one after the other, each attempt for as long as `connect_timeout`.
#[test]
fn connections_to_frozen_nodes_are_opened_together() {
    let settings = [("pg_shard.silence_timeout", "2s"), ("pg_shard.connect_timeout", "2s")];
    let cluster = cluster_with_table(&settings);
    let frozen: Vec<NodeName> = cluster.workers();
    frozen.iter().for_each(|node| cluster.pause(*node).expect("it runs"));
    for statement in [
        "SELECT count(*) FROM t",
        "UPDATE t SET v = 'new'",
        "INSERT INTO t SELECT i FROM generate_series(200, 300) AS i",
        "COPY t (id) FROM PROGRAM 'seq 400 500'",
    ] {
        let mut session = cluster.new_session();
        let begun = Instant::now();
        session.error(statement);
        // Two attempts of two seconds; one after the other they would be sixteen.
        assert!(begun.elapsed() < Duration::from_secs(12), "{statement}: {:?}", begun.elapsed());
    }
    frozen.iter().for_each(|node| cluster.resume(*node).expect("it is paused"));
    assert_eq!(cluster.new_session().text("SELECT count(*) FROM t WHERE v = 'old'"), "100");
    assert_eq!(cluster.unhealthy("t"), 0);
}
