//! How often the coordinator and its workers speak to each other.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use testkit::{NodeName, TestCluster};

use crate::create_kv;

/// Stands between the coordinator and a worker and counts how often the coordinator speaks after the worker has spoken.
struct Interpreter {
    port: u16,
    trips: Arc<AtomicUsize>,
}

impl Interpreter {
    fn before(cluster: &TestCluster, worker: NodeName) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let worker = cluster.port(worker);
        let trips = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&trips);
        // It ends with the test's process.
        thread::spawn(move || {
            for coordinator in listener.incoming().flatten() {
                let Ok(worker) = TcpStream::connect(("127.0.0.1", worker)) else { continue };
                let worker_spoke = Arc::new(AtomicBool::new(true));
                let (counted, told) = (Arc::clone(&counted), Arc::clone(&worker_spoke));
                let copies = (coordinator.try_clone(), worker.try_clone());
                let (Ok(from_coordinator), Ok(to_worker)) = copies else { continue };
                thread::spawn(move || {
                    hand_on(from_coordinator, to_worker, || {
                        if told.swap(false, Ordering::SeqCst) {
                            counted.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                });
                thread::spawn(move || {
                    hand_on(worker, coordinator, || worker_spoke.store(true, Ordering::SeqCst));
                });
            }
        });
        Self { port, trips }
    }
}

/// Hands on what comes, telling of it before.
fn hand_on(mut from: TcpStream, mut to: TcpStream, mut tell: impl FnMut()) {
    let _ = to.set_nodelay(true);
    let mut bytes = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        tell();
        if to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn a_statement_by_key_is_one_round_trip_with_all_that_goes_before_it() {
    let cluster = TestCluster::up(2);
    create_kv(&cluster, 1);
    cluster.create_distributed(
        "CREATE TABLE twice (k int PRIMARY KEY, v int NOT NULL DEFAULT 0)",
        "twice",
        "k",
        8,
        2,
    );
    cluster.sql("INSERT INTO twice SELECT i FROM generate_series(1, 100) AS i");
    let between: Vec<Interpreter> = cluster
        .workers()
        .into_iter()
        .map(|worker| {
            let interpreter = Interpreter::before(&cluster, worker);
            cluster.sql(&format!(
                "UPDATE pgs_distribution_metadata.shard_placement SET node_port = {} WHERE node_port = {}",
                interpreter.port,
                cluster.port(worker)
            ));
            interpreter
        })
        .collect();
    let trips = || between.iter().map(|worker| worker.trips.load(Ordering::SeqCst)).sum::<usize>();
    let mut session = cluster.new_session();
    session.sql(
        "PREPARE get(int) AS SELECT v FROM kv WHERE k = $1; PREPARE put(int) AS UPDATE kv SET v = v + 1 WHERE k = $1",
    );
    // Opens the sessions.
    session.sql("SELECT count(*) FROM kv; SELECT count(*) FROM twice");
    // On one node, for the first time (the statement has to be prepared) and again.
    let cases = [
        ("SELECT v FROM kv WHERE k = 7", 1),
        ("EXECUTE get(7)", 1),
        ("UPDATE kv SET v = v + 1 WHERE k = 7", 1),
        // PostgreSQL runs it inside another statement, where it is not sent to commit by itself.
        ("EXECUTE put(7)", 2),
        ("INSERT INTO kv VALUES (7) ON CONFLICT (k) DO UPDATE SET v = 1 RETURNING v", 1),
        ("SET DateStyle = 'German'", 0),
        ("DELETE FROM kv WHERE k = 7007", 1),
        ("SET DateStyle = 'ISO'", 0),
        // A block: BEGIN goes along, COMMIT is one more.
        ("BEGIN", 0),
        ("SELECT s FROM kv WHERE k = 7", 1),
        ("UPDATE kv SET v = v + 2 WHERE k = 7", 1),
        ("SELECT v FROM kv WHERE k = 7", 1),
        ("COMMIT", 1),
        // One snapshot of all nodes: it is taken on both.
        ("BEGIN ISOLATION LEVEL REPEATABLE READ", 0),
        ("SELECT s FROM kv WHERE k = 7", 2),
        ("UPDATE kv SET v = v + 2 WHERE k = 7", 1),
        ("SAVEPOINT a", 0),
        ("UPDATE kv SET v = v + 3 WHERE k = 7", 1),
        ("RELEASE a", 1),
        ("ROLLBACK", 2),
        // Two placements: the leader executes; then it commits, and the follower does both, in the same moment.
        ("UPDATE twice SET v = v + 1 WHERE k = 7", 3),
        ("DELETE FROM twice WHERE k = 7 RETURNING v", 3),
        ("INSERT INTO twice VALUES (7)", 3),
        ("SELECT v FROM twice WHERE k = 7", 1),
        ("BEGIN", 0),
        ("UPDATE twice SET v = v + 1 WHERE k = 7", 2),
        ("UPDATE twice SET v = v + 1 WHERE k = 7", 2),
        // Both prepare, and both commit that.
        ("COMMIT", 4),
    ];
    for round in ["first", "second"] {
        for (statement, expected) in cases {
            let before = trips();
            session.sql(statement);
            assert_eq!(trips() - before, expected, "{statement}, {round} time");
        }
    }
    let client = session.client();
    for (text, expected) in [
        ("SELECT v FROM kv WHERE k = $1", 1),
        ("UPDATE kv SET v = v - 1 WHERE k = $1", 1),
        ("UPDATE twice SET v = v - 1 WHERE k = $1", 3),
    ] {
        let statement = client.prepare(text).expect("a statement by key");
        for _ in 0..8 {
            let before = trips();
            client.execute(&statement, &[&7]).expect("it runs");
            assert_eq!(trips() - before, expected, "{text}");
        }
    }
    assert_eq!(session.warnings(), []);
}
