//! Job queues: many consumers claim rows with FOR UPDATE SKIP LOCKED.
//!
//! Two consumers waited for each other for ever: the scan of the table that was updated locked all of its rows, and so waited for
//! what the other one held, which waited for a lock of the coordinator. And LIMIT locked every row that matched, so that
//! the second consumer got nothing though hundreds were free. Now the rows of the other side of a join are sent along before
//! anything is locked, and LIMIT locks as many rows as it lets through.

use std::collections::BTreeSet;
use std::sync::{Barrier, Mutex};
use testkit::{Session, TestCluster};

const JOBS: usize = 240;

/// The ways to claim three jobs, or one.
const FORMS: [&str; 6] = [
    "WITH sel AS MATERIALIZED (SELECT id FROM q WHERE state = 'new' ORDER BY prio, id FOR UPDATE SKIP LOCKED LIMIT 3) \
     UPDATE q SET state = 'done' FROM sel WHERE q.id = sel.id RETURNING q.id",
    "UPDATE q SET state = 'done' WHERE id IN \
     (SELECT id FROM q WHERE state = 'new' ORDER BY prio, id FOR UPDATE SKIP LOCKED LIMIT 3) RETURNING id",
    "UPDATE q SET state = 'done' WHERE id = \
     (SELECT id FROM q WHERE state = 'new' FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id",
    "DELETE FROM q WHERE id IN (SELECT id FROM q WHERE state = 'new' FOR UPDATE SKIP LOCKED LIMIT 3) RETURNING id",
    "DELETE FROM q USING (SELECT id FROM q WHERE state = 'new' ORDER BY prio FOR UPDATE SKIP LOCKED LIMIT 3) AS s \
     WHERE q.id = s.id RETURNING q.id",
    "UPDATE q SET state = 'done' WHERE ctid = ANY (ARRAY \
     (SELECT ctid FROM q WHERE state = 'new' LIMIT 3 FOR UPDATE SKIP LOCKED)) RETURNING id",
];

fn fill(session: &mut Session) {
    session.sql(&format!(
        "TRUNCATE q; INSERT INTO q SELECT g, 'new', g % 7 FROM generate_series(1, {JOBS}) AS g"
    ));
}

fn cluster_with_queue(placements: usize) -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster.sql(&format!(
        "CREATE TABLE q (id int PRIMARY KEY, state text, prio int); \
         SELECT create_distributed_table('q', 'id', 8, {placements})"
    ));
    cluster
}

/// Has so many consumers claim until there is nothing left, and tells the jobs in the order in which they were claimed.
fn consume(cluster: &TestCluster, consumers: usize, claim: &str, in_block: bool) -> Vec<usize> {
    let claimed = Mutex::new(Vec::new());
    let start = Barrier::new(consumers);
    std::thread::scope(|scope| {
        for _ in 0..consumers {
            scope.spawn(|| {
                let mut session = cluster.new_session();
                // A bound against waiting for ever.
                session.sql("SET statement_timeout = '60s'");
                start.wait();
                loop {
                    if in_block {
                        session.sql("BEGIN");
                    }
                    let rows = session.sql(claim);
                    if in_block {
                        session.sql("COMMIT");
                    }
                    let mut claimed = claimed.lock().expect("no consumer has failed");
                    claimed.extend(rows.iter().map(|row| row[0].parse::<usize>().expect("an id")));
                    if rows.is_empty() && claimed.len() >= JOBS {
                        break;
                    }
                }
            });
        }
    });
    claimed.into_inner().expect("no consumer has failed")
}

#[test]
fn consumers_claim_every_job_once_and_nobody_waits_for_ever() {
    let cluster = cluster_with_queue(1);
    let mut session = cluster.new_session();
    for claim in FORMS {
        for (consumers, in_block) in [(1, false), (4, true), (16, false)] {
            fill(&mut session);
            let claimed = consume(&cluster, consumers, claim, in_block);
            let distinct: BTreeSet<usize> = claimed.iter().copied().collect();
            assert_eq!((claimed.len(), distinct.len()), (JOBS, JOBS), "{consumers}: {claim}");
        }
    }
}

#[test]
fn consumers_of_a_replicated_queue_claim_every_job_once() {
    let cluster = cluster_with_queue(2);
    let mut session = cluster.new_session();
    for claim in &FORMS[..5] {
        fill(&mut session);
        let claimed = consume(&cluster, 4, claim, true);
        let distinct: BTreeSet<usize> = claimed.iter().copied().collect();
        assert_eq!((claimed.len(), distinct.len()), (JOBS, JOBS), "{claim}");
    }
    cluster.assert_placements_equal("q");
}

#[test]
fn a_consumer_that_holds_its_jobs_keeps_no_others_from_anybody() {
    let cluster = cluster_with_queue(1);
    let (mut first, mut second) = (cluster.new_session(), cluster.new_session());
    fill(&mut first);
    for order in ["", " ORDER BY id", " ORDER BY prio DESC, id"] {
        for limit in ["LIMIT 5", "LIMIT (SELECT 5)", "OFFSET 2 LIMIT 3"] {
            let claim = format!(
                "SELECT id FROM q WHERE state = 'new'{order} FOR UPDATE SKIP LOCKED {limit}"
            );
            first.sql("BEGIN");
            let held = first.sql(&claim);
            second.sql("BEGIN");
            let free = second.sql("SELECT id FROM q FOR UPDATE SKIP LOCKED");
            assert_eq!(free.len(), JOBS - 5, "{claim}");
            assert!(held.iter().all(|row| !free.contains(row)), "{claim}");
            second.sql("ROLLBACK");
            first.sql("ROLLBACK");
        }
    }
    // In their order, each consumer gets what comes first of what is left.
    let claim = "SELECT id FROM q ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 3";
    first.sql("BEGIN");
    assert_eq!(first.sql(claim), [["1"], ["2"], ["3"]]);
    second.sql("BEGIN");
    assert_eq!(second.sql(claim), [["4"], ["5"], ["6"]]);
    let error = second.error("SELECT id FROM q ORDER BY id FOR UPDATE NOWAIT LIMIT 1");
    assert_eq!(error.sqlstate, "55P03");
    second.sql("ROLLBACK; BEGIN");
    // What one holds, another updates by the same statement: in a block, without waiting.
    assert_eq!(first.sql("UPDATE q SET state = 'done' WHERE id IN (SELECT id FROM q WHERE state = 'new' ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 3) RETURNING id").len(), 3);
    assert_eq!(second.sql("DELETE FROM q WHERE id IN (SELECT id FROM q WHERE state = 'new' ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 3) RETURNING id").len(), 3);
    first.sql("COMMIT");
    second.sql("COMMIT");
    // Prepared, with a plan for all limits.
    first.sql("SET plan_cache_mode = force_generic_plan; PREPARE p(int) AS SELECT id FROM q WHERE state = 'new' ORDER BY id FOR UPDATE SKIP LOCKED LIMIT $1");
    for limit in [1, 4, 0] {
        assert_eq!(first.sql(&format!("EXECUTE p({limit})")).len(), limit);
    }
    assert_eq!(first.sql("EXECUTE p(NULL)").len(), JOBS - 6);
}

#[test]
fn a_locked_row_that_has_changed_meanwhile_is_found_again() {
    let cluster = cluster_with_queue(1);
    let (mut first, mut second) = (cluster.new_session(), cluster.new_session());
    fill(&mut first);
    // The row is changed again and again while another session wants it.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..200 {
                second.sql(&format!("UPDATE q SET prio = {n} WHERE id = 7"));
            }
        });
        for _ in 0..100 {
            let found = first.sql("SELECT id FROM q WHERE id % 1000 = 7 FOR UPDATE LIMIT 1");
            assert_eq!(found, [["7"]]);
        }
    });
}

/// Each node locks the first row that is free there, and all but one release it: also where a transaction has done something on
/// the node before, and the row is released with a savepoint.
#[test]
fn one_job_of_many_nodes_is_locked_and_no_other() {
    let cluster = cluster_with_queue(1);
    let (mut first, mut second) = (cluster.new_session(), cluster.new_session());
    fill(&mut first);
    let free = |second: &mut Session| {
        second.sql("BEGIN");
        let free = second.sql("SELECT id FROM q FOR UPDATE SKIP LOCKED").len();
        second.sql("ROLLBACK");
        free
    };
    let claim =
        "SELECT id FROM q WHERE state = 'new' ORDER BY id DESC FOR UPDATE SKIP LOCKED LIMIT 1";
    first.sql("BEGIN");
    for held in 1..=4 {
        assert_eq!(first.sql(claim), [[(JOBS + 1 - held).to_string()]]);
        // Held once more by the same transaction, which skips nothing of its own.
        first.sql(&format!("UPDATE q SET state = 'mine' WHERE id = {}", JOBS + 1 - held));
        assert_eq!(free(&mut second), JOBS - held);
    }
    first.sql("SAVEPOINT s");
    assert_eq!(first.sql(claim), [[(JOBS - 4).to_string()]]);
    assert_eq!(free(&mut second), JOBS - 5);
    first.sql("ROLLBACK TO s");
    assert_eq!(free(&mut second), JOBS - 4);
    assert_eq!(second.sql(claim), [[(JOBS - 4).to_string()]]);
    first.sql("COMMIT");
    assert_eq!(second.sql("SELECT count(*) FROM q WHERE state = 'mine'"), [["4"]]);
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        first.sql(&format!("BEGIN ISOLATION LEVEL {isolation}"));
        assert_eq!(first.sql(claim), [[(JOBS - 4).to_string()]]);
        assert_eq!(free(&mut second), JOBS - 1);
        first.sql("ROLLBACK");
    }
    // More than the candidates that a node looks at first are held.
    first.sql("INSERT INTO q SELECT g, 'new', 0 FROM generate_series(1000, 2200) AS g");
    first.sql("BEGIN");
    first.sql("SELECT id FROM q WHERE id > 1050 FOR UPDATE");
    assert_eq!(second.sql(claim), [["1050"]]);
    first.sql("ROLLBACK");
    first.sql(&format!("EXPLAIN VERBOSE {claim}"));
    first.sql("PREPARE p(int, text) AS SELECT id FROM q WHERE state = $2 AND id < $1 ORDER BY prio, id FOR UPDATE SKIP LOCKED LIMIT 1");
    for limit in [8, 3, 1] {
        let expected: &[&str] = if limit == 8 {
            &["7"]
        } else if limit == 3 {
            &["1"]
        } else {
            &[]
        };
        let got: Vec<String> = first
            .sql(&format!("EXECUTE p({limit}, 'new')"))
            .into_iter()
            .map(|row| row[0].clone())
            .collect();
        assert_eq!(got, expected);
    }
}

/// A claim locked the whole of a replicated queue, and a second consumer found it empty.
#[test]
fn a_consumer_of_a_replicated_queue_leaves_the_others_theirs() {
    let cluster = cluster_with_queue(2);
    let (mut first, mut second) = (cluster.new_session(), cluster.new_session());
    fill(&mut first);
    let claim = "SELECT id FROM q WHERE state = 'new' ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1";
    let any = "SELECT id FROM q WHERE id > 2 FOR UPDATE SKIP LOCKED LIMIT 3";
    first.sql("BEGIN");
    second.sql("BEGIN");
    assert_eq!(first.sql(claim), [["1"]]);
    assert_eq!(second.sql(claim), [["2"]]);
    assert_eq!(first.sql("UPDATE q SET state = 'done' WHERE id = 1 RETURNING id"), [["1"]]);
    let mut held = second.sql(any);
    assert_eq!(held.len(), 3);
    held.extend(first.sql("SELECT id FROM q WHERE state = 'new' FOR UPDATE SKIP LOCKED"));
    let distinct: BTreeSet<&String> = held.iter().map(|row| &row[0]).collect();
    assert_eq!((held.len(), distinct.len()), (JOBS - 2, JOBS - 2));
    first.sql("COMMIT");
    second.sql("DELETE FROM q WHERE id = 2");
    second.sql("COMMIT");
    assert_eq!(
        first.text("SELECT count(*), count(*) FILTER (WHERE state = 'done') FROM q"),
        format!("{}|1", JOBS - 1)
    );
    // More are held than a node looks at first.
    fill(&mut first);
    first.sql("INSERT INTO q SELECT g, 'new', 0 FROM generate_series(1000, 2200) AS g");
    first.sql("BEGIN");
    first.sql("SELECT id FROM q WHERE id > 1050 FOR UPDATE");
    let last = claim.replace("ORDER BY id", "ORDER BY id DESC");
    assert_eq!(second.sql(&last), [["1050"]]);
    first.sql("ROLLBACK");
    cluster.assert_placements_equal("q");
}

/// What a node was told of the client's settings was rolled back with the row that it released, and so it was told all of them
/// again with every claim.
#[test]
fn a_node_that_releases_its_row_keeps_the_clients_settings() {
    let cluster = cluster_with_queue(1);
    fill(&mut cluster.session());
    cluster.on_workers("ALTER ROLE postgres SET log_statement = 'all'");
    let claim = "UPDATE q SET state = 'done' WHERE id = (SELECT id FROM q WHERE state = 'new' \
                 ORDER BY prio, id LIMIT 1 FOR UPDATE SKIP LOCKED)";
    let mut session = cluster.new_session();
    session.sql("SET TimeZone = 'Asia/Tokyo'");
    let is_logged = |line: &&str| line.contains("'Asia/Tokyo'");
    for _ in 0..12 {
        session.sql(claim);
    }
    for worker in cluster.workers() {
        let log = std::fs::read_to_string(cluster.log_path(worker)).expect("the node has a log");
        let times = log.lines().filter(is_logged).count();
        // In the first transaction, and once more when that is rolled back.
        assert!((1..=2).contains(&times), "{worker} is told {times} times");
    }
    assert_eq!(session.text("SELECT count(*) FROM q WHERE state = 'done'"), "12");
}

/// A claim reads what is there now, so no node needs the snapshot of its statement: each made one, in a round trip before all others, and nodes that
/// only released their row executed three transactions.
#[test]
fn a_claim_has_no_node_make_the_snapshot_of_its_statement() {
    let cluster = cluster_with_queue(1);
    let mut session = cluster.new_session();
    fill(&mut session);
    cluster.on_workers("ALTER ROLE postgres SET log_statement = 'all'");
    let mut consumer = cluster.new_session();
    for claim in &FORMS[..5] {
        assert!(!consumer.sql(claim).is_empty(), "{claim}");
    }
    for worker in cluster.workers() {
        let log = std::fs::read_to_string(cluster.log_path(worker)).expect("the node has a log");
        let claims = log.lines().filter(|line| line.contains("SKIP LOCKED")).count();
        assert!(claims > 0, "{worker} has executed claims");
        let is_snapshot = |line: &&str| line.contains("pgs_at_") && line.ends_with(": SELECT");
        let snapshots: Vec<&str> = log.lines().filter(is_snapshot).collect();
        assert!(snapshots.is_empty(), "{worker}: {snapshots:?}");
    }
}
