//! Transactions that wait for each other on several servers: found, and broken by one of them.
//!
//! Each node saw a part of the circle and nobody all of it: both transactions waited for ever.

use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::{NodeName, Session, SqlError, TestCluster, wait_until};

/// A cluster that looks soon, with a table of some rows.
fn cluster_with_rows(workers: u16, placements: u32) -> TestCluster {
    let settings = [("pg_shard.deadlock_timeout", "200ms"), ("max_prepared_transactions", "10")];
    let cluster = TestCluster::up_with(workers, &settings);
    cluster.on_all_nodes("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN");
    cluster.sql("CREATE TABLE t (k int PRIMARY KEY, v int); GRANT ALL ON t TO alice, bob");
    cluster.distribute("t", "k", 8, placements);
    cluster.sql("INSERT INTO t SELECT g, 0 FROM generate_series(1, 100) AS g");
    cluster
}

/// A key whose row lies on that worker.
fn key_on(cluster: &TestCluster, node: NodeName) -> i32 {
    let placements = cluster.placements("t");
    let lies_there = |key: &i32| {
        let shard = cluster.shard_of("t", &format!("hashint4({key})"));
        placements.iter().find(|it| it.shard == shard).is_some_and(|leader| leader.node == node)
    };
    (1..=100).find(lies_there).expect("100 keys reach the shards of every node")
}

fn update(key: i32) -> String {
    format!("UPDATE t SET v = v + 1 WHERE k = {key}")
}

/// Each session begins a transaction and executes its first statement, one after the other; then all execute their second ones at
/// once, and end. Tells what became of these.
fn circle(steps: Vec<(Session, String, String)>) -> Vec<Result<(), SqlError>> {
    let mut begun = Vec::new();
    for (mut session, first, second) in steps {
        // A bound against waiting for ever.
        session.sql("SET statement_timeout = '60s'");
        session.sql("BEGIN");
        session.sql(&first);
        begun.push((session, second));
    }
    std::thread::scope(|scope| {
        let running: Vec<_> = begun
            .iter_mut()
            .map(|(session, second)| {
                scope.spawn(move || {
                    let outcome = session.try_sql(second).map(drop);
                    session.sql(if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" });
                    outcome
                })
            })
            .collect();
        running.into_iter().map(|it| it.join().expect("no session panics")).collect()
    })
}

/// Exactly that one was broken off, as a deadlock.
#[track_caller]
fn assert_victim(outcomes: &[Result<(), SqlError>], victim: usize) -> SqlError {
    for (at, outcome) in outcomes.iter().enumerate() {
        let line = outcome.as_ref().err().map(SqlError::line);
        let expected = (at == victim).then(|| "40P01: deadlock detected".to_owned());
        assert_eq!(line, expected, "{at} of {outcomes:?}");
    }
    outcomes[victim].clone().expect_err("compared above")
}

#[test]
fn of_two_transactions_that_wait_on_two_nodes_the_younger_gives_way_and_is_told_of_whom() {
    let cluster = cluster_with_rows(2, 1);
    let keys: Vec<i32> = cluster.workers().into_iter().map(|it| key_on(&cluster, it)).collect();
    let outcomes = circle(vec![
        (cluster.new_session(), update(keys[0]), update(keys[1])),
        (cluster.new_session(), update(keys[1]), update(keys[0])),
    ]);
    let error = assert_victim(&outcomes, 1);
    for worker in cluster.workers() {
        let told =
            format!("on node \"localhost:{}\" for a lock of table \"t\"", cluster.port(worker));
        assert!(error.detail.contains(&told), "{told}: {error}");
    }
    for key in &keys {
        assert!(error.detail.contains(&update(*key)), "{error}");
    }
    assert_eq!(error.hint, "See server log for query details.");
    // The first has done what it wanted, the second nothing.
    assert_eq!(cluster.text("SELECT sum(v) FROM t"), "2");
}

#[test]
fn three_transactions_on_three_nodes_lose_one() {
    let cluster = cluster_with_rows(3, 1);
    let keys: Vec<i32> = cluster.workers().into_iter().map(|it| key_on(&cluster, it)).collect();
    let steps =
        (0..3).map(|at| (cluster.new_session(), update(keys[at]), update(keys[(at + 1) % 3])));
    assert_victim(&circle(steps.collect()), 2);
    assert_eq!(cluster.text("SELECT sum(v) FROM t"), "4");
}

#[test]
fn a_lock_of_the_coordinator_may_be_part_of_the_circle() {
    let cluster = cluster_with_rows(2, 1);
    let lock = "SELECT pg_advisory_xact_lock(7)".to_owned();
    let key = key_on(&cluster, cluster.workers()[0]);
    // Who waits for the node gives way, though it is the older.
    let outcomes = circle(vec![
        (cluster.new_session(), lock.clone(), update(key)),
        (cluster.new_session(), update(key), lock),
    ]);
    assert_victim(&outcomes, 0);
}

#[test]
fn a_statement_that_is_a_transaction_of_its_own_gives_way_too() {
    let cluster = cluster_with_rows(2, 1);
    let key = key_on(&cluster, cluster.workers()[0]);
    let mut holder = cluster.new_session();
    holder.sql("SET statement_timeout = '60s'");
    holder.sql("BEGIN");
    holder.sql(&update(key));
    let mut alone = cluster.new_session();
    alone.sql("SET statement_timeout = '60s'");
    let waits = || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        cluster.session_on(cluster.workers()[0]).text(waiting) == "1"
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| alone.try_sql(&update(key)));
        wait_until("the statement waits for the row", waits);
        // It holds a lock of the table on the coordinator.
        holder.sql("TRUNCATE t");
        let error = running.join().expect("no session panics").expect_err("it gives way");
        assert_eq!(error.line(), "40P01: deadlock detected");
    });
    holder.sql("ROLLBACK");
    assert_eq!(cluster.text("SELECT count(*), sum(v) FROM t"), "100|0");
}

#[test]
fn transactions_on_replicated_shards_lose_one() {
    let cluster = cluster_with_rows(2, 2);
    let keys: Vec<i32> = cluster.workers().into_iter().map(|it| key_on(&cluster, it)).collect();
    let outcomes = circle(vec![
        (cluster.new_session(), update(keys[0]), update(keys[1])),
        (cluster.new_session(), update(keys[1]), update(keys[0])),
    ]);
    let lost: Vec<&SqlError> = outcomes.iter().filter_map(|it| it.as_ref().err()).collect();
    assert_eq!(lost.len(), 1, "{outcomes:?}");
    assert_eq!(lost[0].line(), "40P01: deadlock detected");
    cluster.assert_placements_equal("t");
    assert_eq!(cluster.unhealthy("t"), 0);
}

#[test]
fn who_waits_for_somebody_who_is_only_slow_is_left_alone() {
    let cluster = cluster_with_rows(2, 1);
    let keys: Vec<i32> = cluster.workers().into_iter().map(|it| key_on(&cluster, it)).collect();
    let mut holder = cluster.new_session();
    holder.sql("BEGIN");
    holder.sql(&update(keys[0]));
    holder.sql(&update(keys[1]));
    let update_all = "UPDATE t SET v = v + 1".to_owned();
    let waits = |node: NodeName| {
        let long = "SELECT count(*) FROM pg_locks WHERE NOT granted AND waitstart < now() - interval '1 second'";
        cluster.session_on(node).text(long) != "0"
    };
    let mut waiters =
        [(cluster.new_session(), update(keys[0])), (cluster.new_session(), update_all)];
    std::thread::scope(|scope| {
        let running: Vec<_> = waiters
            .iter_mut()
            .map(|(session, statement)| {
                scope.spawn(|| {
                    session.sql("SET statement_timeout = '60s'");
                    session.sql(statement)
                })
            })
            .collect();
        wait_until("both have waited for long", || cluster.workers().into_iter().all(waits));
        holder.sql("COMMIT");
        for it in running {
            it.join().expect("nobody is broken off");
        }
    });
    assert_eq!(cluster.text("SELECT sum(v) FROM t"), "103");
}

#[test]
fn who_waits_for_a_prepared_transaction_is_left_alone() {
    let cluster = cluster_with_rows(2, 1);
    let node = cluster.workers()[0];
    let key = key_on(&cluster, node);
    let shard = cluster.shard_of("t", &format!("hashint4({key})"));
    let name = cluster.shard_name("t", shard);
    let mut holder = cluster.session_on(node);
    holder.sql("BEGIN");
    holder.sql(&format!("UPDATE {name} SET v = 5 WHERE k = {key}"));
    holder.sql("PREPARE TRANSACTION 'p'");
    let mut waiter = cluster.new_session();
    waiter.sql("SET statement_timeout = '60s'");
    std::thread::scope(|scope| {
        let running = scope.spawn(|| waiter.sql(&update(key)));
        wait_until("it has waited for long", || {
            let long = "SELECT count(*) FROM pg_locks WHERE NOT granted AND waitstart < now() - interval '1 second'";
            cluster.session_on(node).text(long) == "1"
        });
        holder.sql("COMMIT PREPARED 'p'");
        running.join().expect("nobody is broken off");
    });
    assert_eq!(cluster.text(&format!("SELECT v FROM t WHERE k = {key}")), "6");
}

#[test]
fn ordinary_roles_are_told_of_processes_but_not_of_others_statements() {
    let cluster = cluster_with_rows(2, 1);
    let keys: Vec<i32> = cluster.workers().into_iter().map(|it| key_on(&cluster, it)).collect();
    let steps = |roles: [&str; 2]| {
        vec![
            (cluster.session_as(roles[0]), update(keys[0]), update(keys[1])),
            (cluster.session_as(roles[1]), update(keys[1]), update(keys[0])),
        ]
    };
    let error = assert_victim(&circle(steps(["alice", "bob"])), 1);
    assert!(error.detail.contains(&update(keys[0])), "{error}");
    assert!(!error.detail.contains(&update(keys[1])), "{error}");
    assert!(error.detail.contains("on node \"localhost:"), "{error}");
    let error = assert_victim(&circle(steps(["alice", "alice"])), 1);
    assert!(error.detail.contains(&update(keys[0])), "{error}");
    assert!(error.detail.contains(&update(keys[1])), "{error}");
}

/// A write of all shards holds rows of each node and waits for others; transactions by key that hold these and come for more give way,
/// those that come later wait.
#[test]
fn a_write_of_all_shards_beside_transactions_by_key_ends_without_many_deadlocks() {
    let cluster = cluster_with_rows(2, 1);
    let (transfers, deadlocks) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let left = AtomicUsize::new(4);
    let count = |outcome: &Result<(), SqlError>| {
        if let Err(error) = outcome {
            assert_eq!(error.sqlstate, "40P01", "{error}");
            deadlocks.fetch_add(1, Ordering::Relaxed);
        }
        outcome.is_ok()
    };
    std::thread::scope(|scope| {
        for client in 0..6 {
            let mut session = cluster.new_session();
            let (count, left, transfers) = (&count, &left, &transfers);
            scope.spawn(move || {
                session.sql("SET statement_timeout = '60s'");
                let mut key = client * 13;
                while left.load(Ordering::Relaxed) > 0 {
                    key = (key * 7 + 11) % 90;
                    let two = [key + 1, key + 1 + client % 5 + 1];
                    session.sql("BEGIN");
                    let outcome =
                        two.iter().try_for_each(|key| session.try_sql(&update(*key)).map(drop));
                    if count(&outcome) {
                        transfers.fetch_add(1, Ordering::Relaxed);
                    }
                    session.sql(if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" });
                }
            });
        }
        let mut session = cluster.new_session();
        session.sql("SET statement_timeout = '60s'");
        while left.load(Ordering::Relaxed) > 0 {
            // If it is the one that gives way it is executed anew.
            session.sql("UPDATE t SET v = v + 1");
            left.fetch_sub(1, Ordering::Relaxed);
        }
    });
    let (transfers, deadlocks) = (transfers.into_inner(), deadlocks.into_inner());
    // The transfers meet the writes of all shards all the time, and most of them go through nevertheless.
    assert!(deadlocks * 2 < transfers, "{deadlocks} deadlocks beside {transfers} transfers");
    let sum: usize = cluster.text("SELECT sum(v) FROM t").parse().expect("a number");
    assert_eq!(sum, 4 * 100 + 2 * transfers);
}

/// A multi-shard write that is a deadlock's victim was executed anew also beside an open cursor, whose unread rows were thrown away: it ended
/// early, without an error.
#[test]
fn a_deadlocks_victim_leaves_an_open_cursor_its_rows() {
    let cluster = cluster_with_rows(3, 1);
    cluster.sql("CREATE TABLE wide (k int PRIMARY KEY, filler text)");
    cluster.distribute("wide", "k", 6, 1);
    cluster.sql("INSERT INTO wide SELECT g, repeat('x', 300) FROM generate_series(1, 60000) AS g");
    let workers = cluster.workers();
    let keys: Vec<i32> = workers.iter().map(|worker| key_on(&cluster, *worker)).collect();
    let (mut elder, mut younger) = (cluster.new_session(), cluster.new_session());
    elder.sql("SET statement_timeout = '60s'; BEGIN");
    elder.sql(&update(keys[1]));
    younger.sql(
        "SET statement_timeout = '60s'; BEGIN; DECLARE c CURSOR FOR SELECT k, filler FROM wide",
    );
    assert_eq!(younger.count("FETCH 10 FROM c"), 10);
    younger.sql("SAVEPOINT s");
    let both = format!("UPDATE t SET v = v + 1 WHERE k IN ({}, {})", keys[0], keys[1]);
    let outcome = std::thread::scope(|scope| {
        let running = scope.spawn(|| younger.try_sql(&both).map(drop));
        let mut worker = cluster.session_on(workers[1]);
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        wait_until("the younger one waits for a row", || worker.text(waits) == "1");
        elder.sql(&update(keys[0]));
        elder.sql("COMMIT");
        running.join().expect("no session panics")
    });
    if let Err(error) = outcome {
        assert_eq!(error.sqlstate, "40P01", "{error}");
        younger.sql("ROLLBACK TO s");
    }
    assert_eq!(younger.count("FETCH ALL FROM c"), 59_990);
}
