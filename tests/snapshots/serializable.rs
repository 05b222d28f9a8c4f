//! SERIALIZABLE transactions on one node and on several, beside each other.

use std::sync::Barrier;
use std::thread;
use testkit::{NodeName, Random, Session, TestCluster, wait_until};

/// Rows 1 to 40 with 100 each, on two workers.
fn accounts() -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE acc (id int PRIMARY KEY, bal int)", "acc", "id", 8, 1);
    cluster.sql("INSERT INTO acc SELECT i, 100 FROM generate_series(1, 40) AS i");
    cluster
}

/// Rows on the one and on the other worker.
fn by_node(cluster: &TestCluster) -> [Vec<i32>; 2] {
    let mut nodes: [Vec<i32>; 2] = [Vec::new(), Vec::new()];
    let placements = cluster.placements("acc");
    for id in 1..=40 {
        let shard = cluster.shard_of("acc", &format!("hashint4({id})"));
        let placement = placements.iter().find(|it| it.shard == shard).expect("it has one");
        nodes[usize::from(placement.node != placements[0].node)].push(id);
    }
    nodes
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";

/// Runs it until it does not fail for a conflict; the last statement's value.
fn until_done(session: &mut Session, statements: &[String]) -> String {
    loop {
        let mut last = String::new();
        let mut run = || -> Result<(), testkit::SqlError> {
            session.try_sql(BEGIN)?;
            for statement in statements {
                if let Some(row) = session.try_sql(statement)?.first() {
                    last = row.join("|");
                }
            }
            session.try_sql("COMMIT").map(drop)
        };
        match run() {
            Ok(()) => return last,
            Err(error) => {
                let is_conflict = ["40001", "40P01"].contains(&&*error.sqlstate);
                assert!(is_conflict, "{}", error.line());
                session.sql("ROLLBACK");
            }
        }
    }
}

/// Each withdraws what is left on two accounts together, from one of them; the accounts are on two nodes. Both went through: no node saw
/// that each had read what the other changed.
#[test]
fn two_transactions_do_not_both_withdraw_what_two_nodes_hold_together() {
    let cluster = accounts();
    let [here, there] = by_node(&cluster);
    for (round, (a, b)) in here.iter().zip(&there).take(4).enumerate() {
        let start = Barrier::new(2);
        // Whole at once, or by key, one node after the other.
        let read = match round % 2 {
            0 => vec![format!("SELECT sum(bal) FROM acc WHERE id IN ({a}, {b})")],
            _ => vec![
                format!("SELECT bal FROM acc WHERE id = {a}"),
                format!("SELECT bal FROM acc WHERE id = {b}"),
            ],
        };
        thread::scope(|scope| {
            for (from, other) in [(a, b), (b, a)] {
                let (mut session, start, mut statements) =
                    (cluster.new_session(), &start, read.clone());
                statements.push(format!(
                    "UPDATE acc SET bal = bal - 200 WHERE id = {from} \
                     AND bal + (SELECT bal FROM acc WHERE id = {other}) >= 200"
                ));
                scope.spawn(move || {
                    start.wait();
                    until_done(&mut session, &statements);
                });
            }
        });
        let left = cluster.text(&format!("SELECT sum(bal) FROM acc WHERE id IN ({a}, {b})"));
        assert_eq!(left, "0", "accounts {a} and {b}");
    }
}

/// Transactions over two nodes raise a number on both; others read by key on one node. Two readers who saw two such
/// transactions in opposite orders would have no place in any order.
#[test]
fn readers_of_single_nodes_see_transactions_over_both_in_one_order() {
    let cluster = accounts();
    let [here, there] = by_node(&cluster);
    let (writers, rounds) = (3, 5);
    let seen = thread::scope(|scope| {
        for writer in 0..writers {
            let (mut session, a, b) = (cluster.new_session(), here[writer], there[writer]);
            scope.spawn(move || {
                for _ in 0..rounds {
                    let raise = |id| format!("UPDATE acc SET bal = bal + 1 WHERE id = {id}");
                    until_done(&mut session, &[raise(a), raise(b)]);
                }
            });
        }
        let readers: Vec<_> = [&here, &there]
            .into_iter()
            .map(|ids| {
                let mut session = cluster.new_session();
                let reads: Vec<String> = (0..writers)
                    .map(|writer| format!("SELECT bal FROM acc WHERE id = {}", ids[writer]))
                    .collect();
                scope.spawn(move || {
                    let mut seen = Vec::new();
                    for _ in 0..rounds * 4 {
                        seen.push(counts(&mut session, &reads));
                    }
                    seen
                })
            })
            .collect();
        let seen = readers.into_iter().flat_map(|reader| reader.join().expect("it reads"));
        seen.collect::<Vec<_>>()
    });
    for one in &seen {
        for other in &seen {
            let is_before = |a: &[i32], b: &[i32]| a.iter().zip(b).all(|(a, b)| a <= b);
            assert!(is_before(one, other) || is_before(other, one), "{one:?} and {other:?}");
        }
    }
}

/// What one SERIALIZABLE transaction reads with these statements.
fn counts(session: &mut Session, reads: &[String]) -> Vec<i32> {
    loop {
        let mut run = || -> Result<Vec<i32>, testkit::SqlError> {
            session.try_sql(BEGIN)?;
            let mut read = Vec::new();
            for sql in reads {
                read.push(session.try_sql(sql)?[0][0].parse().expect("a number"));
            }
            session.try_sql("COMMIT")?;
            Ok(read)
        };
        match run() {
            Ok(read) => return read,
            Err(_) => drop(session.sql("ROLLBACK")),
        }
    }
}

#[test]
fn a_transaction_over_several_nodes_waits_for_one_on_a_single_node_and_sees_it() {
    let cluster = accounts();
    let id = by_node(&cluster)[0][0];
    let mut writer = cluster.new_session();
    writer.sql(&format!("{BEGIN}; UPDATE acc SET bal = 0 WHERE id = {id}"));
    thread::scope(|scope| {
        let mut reader = cluster.new_session();
        let pid = reader.text("SELECT pg_backend_pid()");
        let read =
            scope.spawn(move || until_done(&mut reader, &["SELECT sum(bal) FROM acc".into()]));
        wait_until("the reader waits for a node", || {
            cluster.text(&format!("SELECT count(*) FROM pgs_catalog.activity WHERE pid = {pid}"))
                == "1"
        });
        // READ COMMITTED waits for nobody.
        assert_eq!(cluster.text("SELECT sum(bal) FROM acc"), "4000");
        writer.sql("COMMIT");
        assert_eq!(read.join().expect("it reads"), "3900");
    });
}

#[test]
fn savepoints_do_not_open_a_gate() {
    let cluster = accounts();
    let [here, there] = by_node(&cluster);
    let (a, b) = (here[0], there[0]);
    let mut one = cluster.new_session();
    one.sql(&format!("{BEGIN}; SELECT bal FROM acc WHERE id = {a}"));
    one.sql(&format!("SAVEPOINT s; SELECT bal FROM acc WHERE id = {b}; ROLLBACK TO s"));
    one.sql(&format!("UPDATE acc SET bal = bal + 1 WHERE id = {a}"));
    one.sql(&format!("UPDATE acc SET bal = bal - 1 WHERE id = {b}"));
    one.sql("COMMIT");
    assert_eq!(one.text(&format!("SELECT bal FROM acc WHERE id = {a}")), "101");
    assert_eq!(one.text("SELECT sum(bal) FROM acc"), "4000");
    // What the client prepares keeps its gates.
    one.sql(&format!("{BEGIN}; UPDATE acc SET bal = bal + 1 WHERE id IN ({a}, {b})"));
    one.sql("PREPARE TRANSACTION 'gates'");
    let mut worker = cluster.session_on(NodeName::Worker(1));
    let gates = "SELECT count(*) FROM pg_locks WHERE relation = 'pgs_catalog.serializable_gate'::regclass AND mode = 'ExclusiveLock'";
    assert_eq!(worker.text(gates), "1");
    one.sql("COMMIT PREPARED 'gates'");
    assert_eq!(worker.text(gates), "0");
    assert_eq!(one.text("SELECT sum(bal) FROM acc"), "4002");
}

#[test]
fn local_tables_and_distributed_ones_are_not_used_in_one_serializable_transaction() {
    let cluster = accounts();
    cluster.sql("CREATE TABLE own (v int)");
    for statement in ["SELECT count(*) FROM own", "INSERT INTO own VALUES (1)"] {
        let mut session = cluster.new_session();
        session.sql(&format!("{BEGIN}; SELECT bal FROM acc WHERE id = 1; {statement}"));
        let error = session.error("COMMIT");
        assert_eq!(
            error.line(),
            "0A000: cannot use local table \"own\" in a SERIALIZABLE transaction with distributed tables"
        );
    }
    assert_eq!(cluster.text("SELECT count(*) FROM own"), "0");
    let mut session = cluster.new_session();
    session.sql(&format!("{BEGIN}; INSERT INTO own VALUES (1); COMMIT"));
    session.sql(&format!(
        "{BEGIN}; CREATE TEMP TABLE t AS SELECT * FROM acc; SELECT * FROM t; COMMIT"
    ));
    session.sql("SET default_transaction_isolation = serializable");
    session.sql("CREATE TABLE more (id int PRIMARY KEY, v int)");
    session.sql("SELECT create_distributed_table('more', 'id')");
    session.sql("INSERT INTO more SELECT i, i FROM generate_series(1, 20) AS i");
    session.sql("ALTER TABLE more ADD COLUMN w int");
    assert_eq!(session.text("SELECT count(*), sum(v), count(w) FROM more"), "20|210|0");
}

/// Money moves within a node and between nodes, and readers count it; all are SERIALIZABLE, and so many that all kinds of conflicts happen.
#[test]
fn transfers_on_one_node_and_over_two_end_and_keep_the_total() {
    let cluster = accounts();
    let moves = 5;
    thread::scope(|scope| {
        for client in 0..4 {
            let mut session = cluster.new_session();
            scope.spawn(move || {
                let mut random = Random(client + 7);
                for _ in 0..moves {
                    let (a, b) = (1 + random.below(40), 1 + random.below(40));
                    let step = |id, by| format!("UPDATE acc SET bal = bal + {by} WHERE id = {id}");
                    until_done(&mut session, &[step(a, 5), step(b, -5)]);
                }
            });
        }
        let mut session = cluster.new_session();
        scope.spawn(move || {
            for _ in 0..moves {
                let sum = until_done(&mut session, &["SELECT sum(bal) FROM acc".into()]);
                assert_eq!(sum, "4000");
            }
        });
    });
}

/// A SERIALIZABLE transaction writes all placements or none: a reader of the one that is lost would not be met on the others.
#[test]
fn a_serializable_write_marks_no_placement() {
    let cluster = TestCluster::impatient(2);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v int)", "t", "k", 2, 2);
    cluster.sql("INSERT INTO t SELECT i, 0 FROM generate_series(1, 16) AS i");
    cluster.kill(NodeName::Worker(2)).expect("it runs");
    let mut session = cluster.new_session();
    session.sql("SET default_transaction_isolation = serializable");
    let error = session.error("UPDATE t SET v = 1 WHERE k = 1");
    assert_eq!(error.sqlstate, "08006", "{}", error.line());
    assert_eq!(cluster.unhealthy("t"), 0);
    cluster.start(NodeName::Worker(2)).expect("it is down");
    drop(cluster.wait_for(NodeName::Worker(2)));
    session.sql("UPDATE t SET v = 1 WHERE k = 1");
    cluster.assert_placements_equal("t");
    cluster.kill(NodeName::Worker(2)).expect("it runs");
    cluster.sql("UPDATE t SET v = 2 WHERE k = 1");
    let error = session.error("UPDATE t SET v = 3 WHERE k = 1");
    assert_eq!(
        error.line(),
        "0A000: cannot write table \"t\" in a SERIALIZABLE transaction while a placement is inactive"
    );
    assert_eq!(session.text("SELECT v FROM t WHERE k = 1"), "2");
}
