//! Every step of a move, and at each of them every process that can die.
//!
//! The move is stopped at a step; then somebody is killed with SIGKILL, and started again. When all are up the shards are where they
//! were or where they were to be, all of them with their rows, and nothing else is left on any node.

use crate::whole::left_on;
use crate::{WORKER_1, WORKER_2, call, nodes_of, shard_on};
use std::fs;
use std::thread;
use testkit::{NodeName, TestCluster, wait_until};

/// The steps of the relocation, and those of its commit.
const POINTS: [&str; 11] = [
    "relocation_created",
    "relocation_captured",
    "relocation_filled",
    "relocation_indexed",
    "relocation_round",
    "relocation_locked",
    "relocation_switched",
    "prepare",
    "decide",
    "finish",
    "end",
];

/// Who is killed: the coordinator's process that runs the statement, or a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Backend,
    Server(NodeName),
}

const TABLES: [&str; 2] = ["accounts", "history"];

fn run(cluster: &TestCluster, point: &str, victim: Victim, number: usize) {
    let case = format!("{victim:?} at {point}");
    let shards = TABLES.map(|table| cluster.placements(table)[0].shard);
    let from = nodes_of(cluster, TABLES[0], shards[0])[0];
    let to = if from == WORKER_1 { WORKER_2 } else { WORKER_1 };
    let victim = match victim {
        Victim::Server(WORKER_1) => Victim::Server(from),
        Victim::Server(WORKER_2) => Victim::Server(to),
        other => other,
    };
    strike(cluster, &call(cluster, "move_shard", shards[0], from, to), point, victim);
    let now = nodes_of(cluster, TABLES[0], shards[0])[0];
    let other = if now == WORKER_1 { WORKER_2 } else { WORKER_1 };
    for (table, shard) in TABLES.into_iter().zip(shards) {
        assert_eq!(nodes_of(cluster, table, shard), [now], "{case}: {table}");
        let name = format!("{table}\\_{shard}");
        assert!(cluster.tables_on(other, &name).is_empty(), "{case}: {table} is left on {other}");
        cluster.sql(&format!("UPDATE {table} SET v = {number}"));
        assert_eq!(cluster.assert_placements_equal(table), 300, "{case}");
    }
}

/// Runs a statement to a point where somebody is killed, and waits until all is over: nothing is in doubt, and nothing that only the statement
/// has needed is left on a node.
pub(crate) fn strike(cluster: &TestCluster, statement: &str, point: &str, victim: Victim) {
    let mut session = cluster.new_session();
    let action = if victim == Victim::Backend { "kill" } else { "pause" };
    session.sql(&format!("SET pg_shard.fault_point = '{point}:{action}'"));
    thread::scope(|scope| {
        let moved = scope.spawn(move || session.client().simple_query(statement).is_ok());
        if let Victim::Server(node) = victim {
            let paused = cluster.data_dir(NodeName::Coordinator).join("pg_shard_paused");
            wait_until("the move comes to the point", || paused.exists());
            cluster.kill(node).expect("it runs");
            fs::remove_file(paused).expect("it is there");
            cluster.start(node).expect("it is down");
        }
        moved.join().expect("it does not panic");
    });
    if victim == Victim::Backend {
        wait_until("the coordinator's other sessions are ended too", || {
            cluster.session().client().simple_query("SELECT 1").is_err()
        });
    }
    cluster.reconnect();
    for node in [WORKER_1, WORKER_2] {
        let mut session = cluster.wait_for(node);
        wait_until("nothing is in doubt", || {
            session.text("SELECT count(*) FROM pg_prepared_xacts") == "0"
        });
        wait_until("nothing of the move is left", || left_on(cluster, node).is_empty());
    }
}

/// Two tables that lie beside each other, with rows.
pub(crate) fn accounts_and_history() -> TestCluster {
    let cluster = TestCluster::up(2);
    for (table, key) in [("accounts", "PRIMARY KEY"), ("history", "")] {
        cluster.create_distributed(
            &format!("CREATE TABLE {table} (k int {key}, v int NOT NULL)"),
            table,
            "k",
            2,
            1,
        );
        cluster.sql(&format!("INSERT INTO {table} SELECT i, 0 FROM generate_series(1, 300) i"));
    }
    cluster
}

fn run_all(victim: Victim) {
    let cluster = accounts_and_history();
    assert_eq!(shard_on(&cluster, "accounts", WORKER_1), cluster.placements("accounts")[0].shard);
    cluster.reconnect();
    for (number, point) in POINTS.into_iter().enumerate() {
        run(&cluster, point, victim, number + 1);
    }
}

#[test]
fn a_move_is_done_or_undone_when_its_process_dies_at_any_step() {
    run_all(Victim::Backend);
}

#[test]
fn a_move_is_done_or_undone_when_the_coordinator_dies_at_any_step() {
    run_all(Victim::Server(NodeName::Coordinator));
}

#[test]
fn a_move_is_done_or_undone_when_the_source_dies_at_any_step() {
    run_all(Victim::Server(WORKER_1));
}

#[test]
fn a_move_is_done_or_undone_when_the_target_dies_at_any_step() {
    run_all(Victim::Server(WORKER_2));
}
