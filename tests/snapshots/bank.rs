//! A bank: money moves between accounts on several nodes, while others count it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use testkit::{Session, TestCluster};

const ACCOUNTS: u32 = 24;

/// How long each test's readers read.
const WHILE: Duration = Duration::from_secs(4);

/// Accounts on several nodes, each with 100.
fn bank(workers: u16, replicas: u32) -> TestCluster {
    let settings = [("pg_shard.read_consistency", "snapshot")];
    let cluster = TestCluster::up_with(workers, &settings);
    let table = "CREATE TABLE acc (id int PRIMARY KEY, bal int)";
    cluster.create_distributed(table, "acc", "id", 8, replicas);
    cluster.sql(&format!("INSERT INTO acc SELECT i, 100 FROM generate_series(1, {ACCOUNTS}) AS i"));
    cluster
}

/// Moves money between accounts until `ends`.
fn transfer(mut session: Session, ends: &AtomicBool, seed: u32, done: &AtomicUsize) {
    let mut number = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = |limit: u32| {
        number ^= number << 13;
        number ^= number >> 17;
        number ^= number << 5;
        number % limit
    };
    while !ends.load(Ordering::Relaxed) {
        let (one, other) = (next(ACCOUNTS) + 1, next(ACCOUNTS) + 1);
        let amount = next(20);
        // In one order, so that nobody waits for each other.
        let (first, second, amount) = match one < other {
            true => (one, other, amount as i32),
            false => (other, one, -(amount as i32)),
        };
        let outcome = session.try_sql(&format!(
            "BEGIN; UPDATE acc SET bal = bal - {amount} WHERE id = {first}; \
             UPDATE acc SET bal = bal + {amount} WHERE id = {second}; COMMIT"
        ));
        match outcome {
            Ok(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
            Err(_) => drop(session.try_sql("ROLLBACK")),
        }
    }
}

/// Runs transfers beside a reader for a while; tells how many there were.
fn beside_transfers(
    cluster: &TestCluster,
    clients: u32,
    duration: Duration,
    read: &(dyn Fn(&mut Session) + Sync),
) -> usize {
    let (ends, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for seed in 1..=clients {
            let session = cluster.new_session();
            let (ends, done) = (&ends, &done);
            scope.spawn(move || transfer(session, ends, seed, done));
        }
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let mut session = cluster.new_session();
                session.sql("SET pg_shard.read_consistency = snapshot");
                scope.spawn(move || {
                    let until = Instant::now() + duration;
                    let mut reads = 0;
                    while Instant::now() < until {
                        read(&mut session);
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        let outcomes: Vec<_> = readers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        ends.store(true, Ordering::Relaxed);
        for reads in outcomes {
            assert!(reads.expect("the reader has seen nothing wrong") > 10);
        }
    });
    done.into_inner()
}

const TOTAL: &str = "2400|24";

#[test]
fn no_statement_sees_half_a_transfer() {
    let cluster = bank(3, 1);
    let done = beside_transfers(&cluster, 4, WHILE, &|session| {
        assert_eq!(session.text("SELECT sum(bal), count(*) FROM acc"), TOTAL);
        // Nodes are asked more than once.
        let joined = "SELECT sum(a.bal), count(*) FROM acc AS a \
            JOIN (SELECT id, bal FROM acc ORDER BY bal LIMIT 100) AS b ON b.bal = a.bal AND b.id = a.id";
        assert_eq!(session.text(joined), TOTAL);
    });
    assert!(done > 20, "{done} transfers");
}

#[test]
fn no_repeatable_read_transaction_sees_half_a_transfer() {
    let cluster = bank(3, 1);
    let done = beside_transfers(&cluster, 4, WHILE, &|session| {
        session.sql("BEGIN ISOLATION LEVEL REPEATABLE READ");
        // A statement that is refused because a node would have to look too far back is run again.
        let mut sums = Vec::new();
        for query in [
            "SELECT sum(bal), count(*) FROM acc WHERE id <= 3",
            "SELECT sum(bal), count(*) FROM acc",
        ] {
            match session.try_sql(query) {
                Ok(rows) => sums.push(rows[0].join("|")),
                Err(error) => assert_eq!(error.sqlstate, "40001", "{error}"),
            }
        }
        if sums.len() == 2 {
            assert_eq!(sums[1], TOTAL);
            let again = session.text("SELECT sum(bal), count(*) FROM acc WHERE id <= 3");
            assert_eq!(again, sums[0]);
        }
        session.sql("ROLLBACK");
    });
    assert!(done > 20, "{done} transfers");
}

#[test]
fn placements_on_two_nodes_show_whole_transfers_too() {
    let cluster = bank(2, 2);
    let done = beside_transfers(&cluster, 3, WHILE, &|session| {
        assert_eq!(session.text("SELECT sum(bal), count(*) FROM acc"), TOTAL);
    });
    assert!(done > 10, "{done} transfers");
}
