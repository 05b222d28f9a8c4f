//! Every step of a commit, and at each of them every process that can die.
//!
//! A transaction writes the same number in several places. It is stopped at a step of its commit; then somebody is killed with
//! SIGKILL, and started again. When all are up the number stands everywhere or nowhere, as the client was told, nothing
//! is in doubt, and placements of a shard are equal.

use std::fs;
use std::thread;

use crate::{
    Answer, WORKER_1, WORKER_2, ask, cluster_with_accounts, key_on, wait_until_nothing_is_in_doubt,
};
use testkit::{NodeName, TestCluster, wait_until};

/// The steps: before the nodes prepare, before the decision, before the nodes commit what they have prepared, before the client
/// is told.
const POINTS: [&str; 4] = ["prepare", "decide", "finish", "end"];

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// The coordinator's process that commits, and with it all of the coordinator's sessions.
    Backend,
    /// These servers.
    Servers(&'static [NodeName]),
}

const VICTIMS: [Victim; 5] = [
    Victim::Backend,
    Victim::Servers(&[NodeName::Coordinator]),
    Victim::Servers(&[WORKER_1]),
    Victim::Servers(&[WORKER_2]),
    Victim::Servers(&[WORKER_1, WORKER_2]),
];

/// What a transaction writes.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// A row on each of two nodes: the second one decides.
    TwoNodes,
    /// The same, and a row of a local table: the coordinator decides.
    LocalToo,
    /// Two rows with two placements each: the coordinator decides, and a node may be lost.
    TwoPlacements,
}

/// Writes the number.
fn statements(shape: Shape, keys: [i32; 2], number: usize) -> Vec<String> {
    let table = if matches!(shape, Shape::TwoPlacements) { "double" } else { "single" };
    let mut all: Vec<String> =
        keys.iter().map(|key| format!("UPDATE {table} SET v = {number} WHERE k = {key}")).collect();
    if matches!(shape, Shape::LocalToo) {
        all.insert(0, format!("UPDATE local SET v = {number}"));
    }
    all
}

/// All numbers that it may have written.
fn found(cluster: &TestCluster, shape: Shape, keys: [i32; 2]) -> Vec<String> {
    let table = if matches!(shape, Shape::TwoPlacements) { "double" } else { "single" };
    let mut all: Vec<String> = keys
        .iter()
        .map(|key| cluster.text(&format!("SELECT v FROM {table} WHERE k = {key}")))
        .collect();
    if matches!(shape, Shape::LocalToo) {
        all.push(cluster.text("SELECT v FROM local"));
    }
    all
}

fn run(
    cluster: &TestCluster,
    point: &str,
    victim: Victim,
    shape: Shape,
    number: usize,
    keys: [i32; 2],
) {
    let case = format!("{shape:?}, {victim:?} at {point}");
    let mut session = cluster.new_session();
    let action = if victim == Victim::Backend { "kill" } else { "pause" };
    session.sql(&format!("SET pg_shard.fault_point = '{point}:{action}'"));
    session.sql("BEGIN");
    for statement in statements(shape, keys, number) {
        session.sql(&statement);
    }
    let told = thread::scope(|scope| {
        let told = scope.spawn(move || ask(&mut session, "COMMIT"));
        if let Victim::Servers(nodes) = victim {
            let paused = cluster.data_dir(NodeName::Coordinator).join("pg_shard_paused");
            wait_until("the commit comes to the point", || paused.exists());
            for node in nodes {
                cluster.kill(*node).expect("it runs");
            }
            fs::remove_file(paused).expect("it is there");
            for node in nodes {
                cluster.start(*node).expect("it is down");
            }
        }
        told.join().expect("it does not panic")
    });
    if victim == Victim::Backend {
        wait_until("the coordinator's other sessions are ended too", || {
            ask(&mut cluster.session(), "SELECT 1") != Answer::Done
        });
    }
    cluster.reconnect();
    wait_until_nothing_is_in_doubt(cluster);
    cluster.repair("double");
    let found = found(cluster, shape, keys);
    let is_all = found.iter().all(|value| *value == number.to_string());
    let is_none = found.iter().all(|value| *value != number.to_string());
    assert!(
        is_all || is_none,
        "{case}: half is stored, {found:?}, and the client was told {told:?}"
    );
    match told {
        Answer::Done => assert!(is_all, "{case}: the client was told that it is stored"),
        Answer::Failed(error) => assert!(is_none, "{case}: the client was told {error}"),
        Answer::Unknown => {}
    }
    cluster.assert_placements_equal("double");
}

fn run_all(shape: Shape) {
    let cluster = cluster_with_accounts();
    let keys = [key_on(&cluster, WORKER_1), key_on(&cluster, WORKER_2)];
    let mut number = 0;
    for point in POINTS {
        for victim in VICTIMS {
            number += 1;
            run(&cluster, point, victim, shape, number, keys);
        }
    }
}

#[test]
fn two_nodes_commit_whole_whoever_dies_at_whichever_step() {
    run_all(Shape::TwoNodes);
}

#[test]
fn a_local_table_takes_part_whoever_dies_at_whichever_step() {
    run_all(Shape::LocalToo);
}

#[test]
fn two_placements_commit_whole_whoever_dies_at_whichever_step() {
    run_all(Shape::TwoPlacements);
}
