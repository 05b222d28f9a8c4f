//! Transactions over several nodes: all or nothing, whoever is killed at whichever moment, and a true answer.

/// Whoever is killed at whichever step of a commit.
mod matrix;

/// Clients that move money while servers die.
mod bank;

/// Transactions that the client prepares.
mod prepared;

/// Numbers of transactions that are given twice.
mod number;

/// A write of which one placement has heard.
mod half;

/// A mark that could not be stored at once.
mod unmarked;

/// What is prepared, for whoever looks.
mod in_doubt;

/// What a client is told, and what it sees.
mod answers;

use std::sync::atomic::{AtomicBool, Ordering};
use testkit::postgres::Error;
use testkit::{NodeName, Session, TestCluster, wait_until};

const WORKER_1: NodeName = NodeName::Worker(1);
const WORKER_2: NodeName = NodeName::Worker(2);

/// Two workers with accounts, one table with one placement of each shard and one with two.
fn cluster_with_accounts() -> TestCluster {
    let cluster = TestCluster::up(2);
    for (table, replicas) in [("single", 1), ("double", 2)] {
        cluster.create_distributed(
            &format!("CREATE TABLE {table} (k int PRIMARY KEY, v int NOT NULL)"),
            table,
            "k",
            4,
            replicas,
        );
        cluster.sql(&format!("INSERT INTO {table} SELECT i, 0 FROM generate_series(1, 20) AS i"));
    }
    cluster.sql("CREATE TABLE local (v int NOT NULL)");
    cluster.sql("INSERT INTO local VALUES (0)");
    // Sessions that were opened before the workers had the extension know of none.
    cluster.reconnect();
    cluster
}

/// A key of `single` that is stored on this node.
fn key_on(cluster: &TestCluster, node: NodeName) -> i32 {
    let placements = cluster.placements("single");
    let shards = placements.iter().filter(|placement| placement.node == node);
    for shard in shards {
        let name = cluster.shard_name("single", shard.shard);
        let key = cluster.session_on(node).text(&format!("SELECT min(k) FROM {name}"));
        if let Ok(key) = key.parse() {
            return key;
        }
    }
    panic!("{node} has no row of single")
}

/// Waits until nothing is prepared on any worker.
fn wait_until_nothing_is_in_doubt(cluster: &TestCluster) {
    for worker in cluster.workers() {
        let mut session = cluster.wait_for(worker);
        wait_until("nothing is in doubt", || {
            session.text("SELECT count(*) FROM pg_prepared_xacts") == "0"
        });
    }
}

/// Stops clients, also when a test fails: it would wait for them for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// It is done.
    Done,
    /// It is not, for this reason.
    Failed(String),
    /// Nobody knows: the server says so, or has gone.
    Unknown,
}

/// Runs a statement in a session that may be lost.
fn ask(session: &mut Session, text: &str) -> Answer {
    match session.client().simple_query(text) {
        Ok(_) => Answer::Done,
        Err(error) => answer(&error),
    }
}

fn answer(error: &Error) -> Answer {
    let Some(error) = error.as_db_error() else { return Answer::Unknown };
    match error.code().code() {
        "08007" | "57P01" | "57P02" => Answer::Unknown,
        code => Answer::Failed(format!("{code}: {}", error.message())),
    }
}
