//! What is seen of transactions over several nodes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use testkit::{NodeName, Session, TestCluster};

const ACCOUNTS: u32 = 24;

/// Accounts on two nodes, each with 100.
fn bank(workers: u16, replicas: u32) -> TestCluster {
    let settings = [("pg_shard.read_consistency", "snapshot")];
    let cluster = TestCluster::up_with(workers, &settings);
    cluster.create_distributed(
        "CREATE TABLE acc (id int PRIMARY KEY, bal int)",
        "acc",
        "id",
        8,
        replicas,
    );
    cluster.sql(&format!("INSERT INTO acc SELECT i, 100 FROM generate_series(1, {ACCOUNTS}) AS i"));
    cluster
}

fn snapshot(session: &mut Session) {
    session.sql("SET pg_shard.read_consistency = snapshot");
}

#[test]
fn a_write_that_was_acknowledged_is_seen_by_others_at_once() {
    let cluster = bank(3, 1);
    let (mut writer, mut reader) = (cluster.new_session(), cluster.new_session());
    snapshot(&mut reader);
    for turn in 1..=60 {
        let id = turn % ACCOUNTS + 1;
        match turn % 3 {
            0 => writer.sql(&format!("UPDATE acc SET bal = bal + 1 WHERE id = {id}")),
            1 => {
                writer.sql(&format!("BEGIN; UPDATE acc SET bal = bal + 1 WHERE id = {id}; COMMIT"))
            }
            _ => writer.sql(&format!("UPDATE acc SET bal = bal + 1 WHERE id IN ({id}, 0)")),
        };
        let wanted = (ACCOUNTS * 100 + turn).to_string();
        assert_eq!(reader.text("SELECT sum(bal) FROM acc"), wanted);
        assert_eq!(
            reader.text(
                "SELECT sum(a.bal) FROM acc AS a JOIN acc AS b ON a.bal IS NOT NULL AND b.id = a.id"
            ),
            wanted
        );
    }
}

#[test]
fn clocks_that_differ_keep_no_acknowledged_write_from_being_seen() {
    let cluster = bank(2, 1);
    let shift = |node: NodeName, offset: &str| {
        let mut session = cluster.session_on(node);
        session.sql(&format!("ALTER SYSTEM SET pg_shard.clock_offset = '{offset}'"));
        session.sql("SELECT pg_reload_conf()");
    };
    shift(NodeName::Worker(1), "400ms");
    shift(NodeName::Worker(2), "-300ms");
    let (mut writer, mut reader) = (cluster.new_session(), cluster.new_session());
    snapshot(&mut reader);
    for turn in 1..=40 {
        let id = turn % ACCOUNTS + 1;
        writer.sql(&format!("UPDATE acc SET bal = bal + 1 WHERE id = {id}"));
        let wanted = (ACCOUNTS * 100 + turn).to_string();
        assert_eq!(reader.text("SELECT sum(bal) FROM acc"), wanted);
    }
}

#[test]
fn what_was_written_after_something_is_not_seen_without_it() {
    let cluster = bank(2, 1);
    cluster.sql("CREATE TABLE steps (id int PRIMARY KEY, n int)");
    cluster.distribute("steps", "id", 8, 1);
    cluster.sql("INSERT INTO steps SELECT i, 0 FROM generate_series(1, 16) AS i");
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut writer = cluster.new_session();
        let ends = &ends;
        // Round by round: no step is further than one ahead of those behind it.
        scope.spawn(move || {
            for round in 1.. {
                for id in 1..=16 {
                    writer.sql(&format!("UPDATE steps SET n = {round} WHERE id = {id}"));
                }
                if ends.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let mut reader = cluster.new_session();
        snapshot(&mut reader);
        let until = Instant::now() + Duration::from_secs(3);
        let mut torn = None;
        while Instant::now() < until && torn.is_none() {
            let seen = reader.text("SELECT string_agg(n::text, ' ' ORDER BY id) FROM steps");
            let steps: Vec<u32> = seen.split(' ').map(|n| n.parse().expect("a number")).collect();
            let falls = steps.windows(2).filter(|two| two[0] != two[1]).count();
            if falls > 1 || steps[0] > steps[15] + 1 || steps[0] < steps[15] {
                torn = Some(seen);
            }
        }
        ends.store(true, Ordering::Relaxed);
        assert_eq!(torn, None);
    });
}

#[test]
fn a_repeatable_read_transaction_reads_all_nodes_of_one_moment() {
    let cluster = bank(3, 1);
    let (mut writer, mut reader) = (cluster.new_session(), cluster.new_session());
    snapshot(&mut reader);
    reader.sql("BEGIN ISOLATION LEVEL REPEATABLE READ");
    // One node is asked now, the others later.
    assert_eq!(reader.text("SELECT bal FROM acc WHERE id = 1"), "100");
    writer.sql("UPDATE acc SET bal = 0 WHERE id <> 1");
    assert_eq!(reader.text("SELECT sum(bal), count(*) FROM acc"), "2400|24");
    assert_eq!(reader.text("SELECT bal FROM acc WHERE id = 2"), "100");
    let refused = reader.error("UPDATE acc SET bal = bal + 1 WHERE id = 2");
    assert_eq!(refused.sqlstate, "40001");
    reader.sql("ROLLBACK");
    assert_eq!(reader.text("SELECT sum(bal) FROM acc"), "100");
}

#[test]
fn a_statement_in_a_transaction_that_has_written_sees_its_own_writes_and_whole_others() {
    let cluster = bank(3, 1);
    let (mut writer, mut reader) = (cluster.new_session(), cluster.new_session());
    snapshot(&mut reader);
    reader.sql("BEGIN; UPDATE acc SET bal = bal + 1 WHERE id <= 6");
    assert_eq!(reader.text("SELECT sum(bal) FROM acc"), "2406");
    writer.sql("UPDATE acc SET bal = bal + 10 WHERE id = 20");
    assert_eq!(reader.text("SELECT sum(bal) FROM acc"), "2416");
    reader.sql("SAVEPOINT a; UPDATE acc SET bal = bal + 100 WHERE id > 20");
    assert_eq!(reader.text("SELECT sum(bal) FROM acc"), "2816");
    reader.sql("ROLLBACK TO a; DECLARE c CURSOR FOR SELECT bal FROM acc ORDER BY id");
    writer.sql("UPDATE acc SET bal = bal + 10 WHERE id = 21");
    assert_eq!(reader.text("SELECT sum(bal) FROM acc"), "2426");
    assert_eq!(reader.text("MOVE ALL FROM c; SELECT sum(bal) FROM acc WHERE id = 21"), "110");
    reader.sql("COMMIT");
    assert_eq!(reader.text("SELECT sum(bal) FROM acc"), "2426");
}

#[test]
fn a_node_that_does_not_preload_the_library_is_read_as_it_is_with_one_warning() {
    let cluster = bank(2, 1);
    let worker = NodeName::Worker(2);
    cluster.stop(worker).expect("it is up");
    let path = cluster.data_dir(worker).join("postgresql.auto.conf");
    std::fs::write(path, "shared_preload_libraries = ''\n").expect("it can be written");
    cluster.start(worker).expect("it starts again");
    let mut session = cluster.new_session();
    snapshot(&mut session);
    assert_eq!(session.text("SELECT sum(bal) FROM acc"), "2400");
    let warnings: Vec<String> = session.warnings().iter().map(|it| it.message.clone()).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].ends_with("cannot take part in reads of one moment"), "{warnings:?}");
    assert_eq!(session.text("SELECT count(*) FROM acc"), "24");
    assert!(session.warnings().is_empty());
}
