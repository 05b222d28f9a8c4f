//! What other sessions see of a statement while it runs, and that nothing of it is left when it is cancelled.

mod cancel;

use std::io::Write;
use std::thread;
use testkit::{NodeName, Session, TestCluster, wait_until};

/// Ten thousand rows in four shards on two workers.
fn cluster_with_a_table() -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v text)", "t", "k", 4, 1);
    cluster.sql("INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 10000) AS i");
    cluster
}

/// A worker and its session in which a shard of the table is locked, so that statements on it wait; and how many shards
/// the worker has not.
struct Locked {
    worker: NodeName,
    session: Session,
    elsewhere: usize,
}

impl Locked {
    fn shard_of(cluster: &TestCluster, key: i32) -> Self {
        let shard = cluster.shard_of("t", &format!("hashint4({key})"));
        let placements = cluster.placements("t");
        let worker = placements.iter().find(|it| it.shard == shard).expect("it is placed").node;
        let elsewhere = placements.iter().filter(|it| it.node != worker).count();
        let mut session = cluster.session_on(worker);
        let name = cluster.shard_name("t", shard);
        session.sql(&format!("BEGIN; LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"));
        Self { worker, session, elsewhere }
    }

    fn unlock(mut self) {
        self.session.sql("ROLLBACK");
    }
}

/// What the view says of statements that begin like this, these columns of it.
fn seen(cluster: &TestCluster, columns: &str, like: &str) -> String {
    cluster.text(&format!(
        "SELECT {columns} FROM pgs_catalog.activity WHERE statement LIKE '{like}%' AND pid <> pg_backend_pid()"
    ))
}

#[track_caller]
fn see(cluster: &TestCluster, columns: &str, like: &str, expected: &str) {
    let mut last = String::new();
    wait_until(&format!("{columns} of {like} are {expected}"), || {
        let now = seen(cluster, columns, like);
        if now != last && !now.is_empty() {
            println!("{now}");
            last.clone_from(&now);
        }
        now == expected
    });
}

#[test]
fn a_long_read_shows_how_far_it_is_and_for_which_node_it_waits_and_leaves_nothing() {
    let cluster = cluster_with_a_table();
    let locked = Locked::shard_of(&cluster, 1);
    let waits_for = format!("{{localhost:{}}}", cluster.port(locked.worker));
    let elsewhere = locked.elsewhere;
    assert!(elsewhere > 0 && elsewhere < 4);
    let mut session = cluster.new_session();
    thread::scope(|scope| {
        let reader = scope
            .spawn(move || session.text("SELECT count(v || 'x') FROM t a, generate_series(1, 2)"));
        see(
            &cluster,
            "kind, shards_done, shards, waiting_for, cardinality(nodes), rows_received > 0, bytes_received > 0, \
             database, \"user\", since < now(), statement LIKE '%generate_series(1, 2)'",
            "SELECT count(v",
            &format!("read|{elsewhere}|4|{waits_for}|2|t|t|postgres|postgres|t|t"),
        );
        locked.unlock();
        assert_eq!(reader.join().expect("the reader does not panic"), "20000");
    });
    see(&cluster, "count(*)", "", "0");
}

#[test]
fn rows_and_shards_go_up_while_a_cursor_is_read_and_stand_for_the_statement_that_reads() {
    let cluster = cluster_with_a_table();
    let mut session = cluster.new_session();
    session.sql("BEGIN; DECLARE c CURSOR FOR SELECT k, repeat(v, 200) FROM t");
    session.sql("FETCH 10 FROM c");
    let progress = |what: &str| seen(&cluster, what, "").parse::<i64>().expect("a count");
    let first = progress("bytes_received");
    assert!(first > 0);
    session.sql("FETCH 5000 FROM c");
    let later = progress("bytes_received");
    assert!(later > first, "{first} bytes, then {later}");
    session.sql("SELECT v FROM t WHERE k = 1");
    session.sql("FETCH ALL FROM c");
    session.sql("CLOSE c");
    see(&cluster, "count(*)", "", "0");
    assert_eq!(session.text("COMMIT; SELECT 1"), "1");
}

#[test]
fn a_statement_by_key_a_copy_and_an_analyze_are_seen_and_gone_after_errors_and_deaths() {
    let cluster = cluster_with_a_table();
    let locked = Locked::shard_of(&cluster, 1);
    let waits_for = format!("{{localhost:{}}}", cluster.port(locked.worker));

    for (end, kind, statement) in [
        ("cancel", "write", "UPDATE t SET v = v WHERE k = 1"),
        ("terminate", "write", "UPDATE t SET v = v WHERE k = 1"),
        ("cancel", "write", "UPDATE t SET v = v"),
        ("cancel", "read", "SELECT v FROM t WHERE k = 1"),
        ("terminate", "read", "SELECT v FROM t"),
        ("cancel", "maintenance", "ANALYZE t"),
        ("cancel", "copy", "INSERT INTO t SELECT i FROM generate_series(20001, 20100) AS i"),
    ] {
        let mut session = cluster.new_session();
        let pid = session.text("SELECT pg_backend_pid()");
        thread::scope(|scope| {
            let ended = scope.spawn(move || session.client().simple_query(statement).is_err());
            let start: String = statement.chars().take(12).collect();
            see(
                &cluster,
                &format!("kind, waiting_for @> '{waits_for}', pid"),
                &start,
                &format!("{kind}|t|{pid}"),
            );
            cluster.sql(&format!("SELECT pg_{end}_backend({pid})"));
            assert!(ended.join().expect("it does not panic"), "{statement} was ended");
        });
        see(&cluster, "count(*)", "", "0");
    }
    locked.unlock();

    let mut session = cluster.new_session();
    let mut writer = session.client().copy_in("COPY t FROM STDIN").expect("COPY begins");
    let lines = |from: u32| -> String {
        (from..from + 100_000).map(|k| format!("{k}\t{}\n", "x".repeat(30))).collect()
    };
    // In small pieces: a client that is not waiting for anything sends no more than its socket takes.
    for piece in lines(100_000).as_bytes().chunks(4096) {
        writer.write_all(piece).expect("the coordinator takes rows");
    }
    writer.flush().expect("the coordinator takes rows");
    see(
        &cluster,
        "kind, shards, rows_sent > 10000 AND rows_sent <= 100000, bytes_sent > 300000, cardinality(nodes)",
        "COPY t",
        "copy|NULL|t|t|2",
    );
    writer.finish().expect("the rows are good");
    see(&cluster, "count(*)", "", "0");
    assert_eq!(cluster.text("SELECT count(*) FROM t"), "110000");
    assert!(session.try_sql("SELECT 1 / (k - k) FROM t").is_err());
    see(&cluster, "count(*)", "", "0");
}

#[test]
fn others_statements_are_shown_to_whom_pg_stat_activity_shows_them() {
    let cluster = cluster_with_a_table();
    cluster.on_all_nodes("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; GRANT pg_monitor TO bob");
    let mut owner = cluster.new_session();
    owner.sql("BEGIN; DECLARE c CURSOR FOR SELECT * FROM t; FETCH 1 FROM c");
    let all = "SELECT count(*) FROM pgs_catalog.activity";
    assert_eq!(cluster.session_as("alice").text(all), "0");
    assert_eq!(
        cluster.session_as("alice").text("SELECT count(*) FROM pgs_catalog.activity_of_backends()"),
        "0"
    );
    assert_eq!(cluster.session_as("bob").text(all), "1");
    assert_eq!(cluster.text(all), "1");
    let error = cluster.session_as("alice").error("SELECT pgs_catalog.metadata_changed()");
    assert_eq!(error.sqlstate, "42501");
}
