//! The coordinator dies when one of two placements has been told to commit a statement, and the other one has not been told to execute it.
//! The placements were different, both healthy, and who then lost the first one read what had been overwritten.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::{Answer, StopOnDrop, ask};
use testkit::{NodeName, Placement, Session, TestCluster, wait_until};

#[test]
fn a_placement_that_missed_a_write_by_a_crash_of_the_coordinator_is_marked_before_it_is_read() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (id int PRIMARY KEY, n int)", "t", "id", 4, 2);
    cluster.sql("INSERT INTO t SELECT i, 0 FROM generate_series(1, 20) AS i");
    for round in 1..=3 {
        let mut session = cluster.new_session();
        session.sql("SET pg_shard.fault_point = 'pair:kill'");
        let change = format!("UPDATE t SET n = {round} WHERE id = 1");
        assert_eq!(ask(&mut session, &change), Answer::Unknown);
        wait_until("the coordinator's other sessions are ended too", || {
            ask(&mut cluster.session(), "SELECT 1") != Answer::Done
        });
        cluster.reconnect();
        let shard = cluster.shard_of("t", "hashint4(1)");
        let leader = cluster.placements("t").into_iter().find(|known| known.shard == shard);
        let leader = leader.expect("the shard has placements").node;
        if round == 2 {
            // Whoever can only ask the other one must not be told the old value.
            cluster.kill(leader).expect("it runs");
            let mut session = cluster.new_session();
            let error = session.error("SELECT n FROM t WHERE id = 1");
            assert_eq!(error.sqlstate, "XX000", "{error}");
            cluster.start(leader).expect("it is down");
        }
        wait_until("the placement is marked", || cluster.unhealthy("t") == 1);
        assert_eq!(cluster.new_session().text("SELECT n FROM t WHERE id = 1"), round.to_string());
        assert_eq!(cluster.repair("t"), 1);
        cluster.assert_placements_equal("t");
    }
    // Who has died in between other statements has left nothing.
    cluster.kill(NodeName::Coordinator).expect("it runs");
    cluster.start(NodeName::Coordinator).expect("it is down");
    cluster.reconnect();
    assert_eq!(cluster.text("SELECT sum(n) FROM t"), "3");
    assert_eq!(cluster.unhealthy("t"), 0);
}

const CLIENTS: i32 = 4;
const KILLS: usize = 6;

/// Adds to its own row until the coordinator is gone for good; how often that was acknowledged.
fn add(cluster: &TestCluster, key: i32, begun: &AtomicU64, stop: &AtomicBool) -> u64 {
    let mut acknowledged = 0;
    let mut session: Option<Session> = None;
    while !stop.load(Ordering::Relaxed) {
        let open = session.get_or_insert_with(|| cluster.wait_for(NodeName::Coordinator));
        begun.fetch_add(1, Ordering::Relaxed);
        match ask(open, &format!("UPDATE t SET n = n + 1 WHERE id = {key}")) {
            Answer::Done => acknowledged += 1,
            _ => session = None,
        }
    }
    acknowledged
}

/// Sums of the rows of each shard's healthy placements, and whether they are the same.
fn are_equal(cluster: &TestCluster) -> bool {
    let placements = cluster.placements("t");
    let sum = |placement: &Placement| {
        let name = cluster.shard_name("t", placement.shard);
        cluster.session_on(placement.node).text(&format!("SELECT sum(n) FROM {name}"))
    };
    let healthy = || placements.iter().filter(|known| known.state == 1);
    healthy().all(|one| {
        healthy().filter(|other| other.shard == one.shard).all(|other| sum(one) == sum(other))
    })
}

#[test]
fn placements_are_equal_after_the_coordinator_was_killed_under_load() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (id int PRIMARY KEY, n int)", "t", "id", 4, 2);
    cluster.sql(&format!("INSERT INTO t SELECT i, 0 FROM generate_series(1, {CLIENTS}) AS i"));
    let (begun, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let acknowledged: Vec<u64> = thread::scope(|scope| {
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|key| {
                let (cluster, begun, stop) = (&cluster, &begun, &stop);
                scope.spawn(move || add(cluster, key, begun, stop))
            })
            .collect();
        let stopping = StopOnDrop(&stop);
        for _ in 0..KILLS {
            let before = begun.load(Ordering::Relaxed);
            wait_until("the clients go on", || begun.load(Ordering::Relaxed) > before + 100);
            cluster.kill(NodeName::Coordinator).expect("it runs");
            cluster.start(NodeName::Coordinator).expect("it is down");
        }
        drop(stopping);
        clients.into_iter().map(|client| client.join().expect("it does not panic")).collect()
    });
    cluster.reconnect();
    wait_until("what differs is marked", || are_equal(&cluster));
    cluster.repair("t");
    cluster.assert_placements_equal("t");
    for (key, acknowledged) in (1..).zip(acknowledged) {
        let stored = cluster.text(&format!("SELECT n FROM t WHERE id = {key}"));
        let stored: u64 = stored.parse().expect("a number");
        // Of each kill one may be stored that was not acknowledged.
        let most = acknowledged + KILLS as u64;
        assert!((acknowledged..=most).contains(&stored), "{stored} of {acknowledged} are stored");
    }
}
