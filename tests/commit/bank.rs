//! A bank whose servers die: clients move money between accounts of different nodes, and write down each transfer, while nodes and the
//! coordinator are killed and started again. At the end every account has what the transfers that are written down say, every
//! transfer that was acknowledged is written down, and none that was refused.
//!
//! `PGSHARD_BANK` says for how many seconds; `cargo xtask bank` for five minutes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Answer, StopOnDrop, WORKER_1, WORKER_2, ask, wait_until_nothing_is_in_doubt};
use testkit::{NodeName, Random, Session, TestCluster, wait_until};

const CLIENTS: u64 = 8;
const ACCOUNTS: u64 = 40;

/// A transfer and what became of it.
struct Transfer {
    id: u64,
    answer: Answer,
}

fn duration() -> Duration {
    let seconds = std::env::var("PGSHARD_BANK").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

/// Moves money until it is told to stop.
fn client(cluster: &TestCluster, number: u64, ids: &AtomicU64, stop: &AtomicBool) -> Vec<Transfer> {
    let mut random = Random(number + 1);
    let mut transfers = Vec::new();
    let mut session: Option<Session> = None;
    while !stop.load(Ordering::Relaxed) {
        let open = session.get_or_insert_with(|| {
            let mut session = cluster.wait_for(NodeName::Coordinator);
            // A row that is stuck fails the test before.
            let _ = session.try_sql("SET statement_timeout = '90s'");
            session
        });
        let id = ids.fetch_add(1, Ordering::Relaxed);
        let from = random.below(ACCOUNTS);
        let to = (from + 1 + random.below(ACCOUNTS - 1)) % ACCOUNTS;
        let amount = 1 + random.below(9);
        // In the order of their numbers, so that nobody waits for another in a circle.
        let (first, second) = (from.min(to), from.max(to));
        let change =
            |account| if account == from { format!("- {amount}") } else { format!("+ {amount}") };
        let statements = [
            "BEGIN".to_owned(),
            format!("UPDATE account SET balance = balance {} WHERE k = {first}", change(first)),
            format!("UPDATE account SET balance = balance {} WHERE k = {second}", change(second)),
            format!("INSERT INTO transfer VALUES ({id}, {from}, {to}, {amount})"),
        ];
        let begun = statements.iter().find_map(|sql| match ask(open, sql) {
            Answer::Done => None,
            other => Some(other),
        });
        let answer = match begun {
            None => ask(open, "COMMIT"),
            // It was not asked to commit: nothing may be stored.
            Some(_) => Answer::Failed("before COMMIT".to_owned()),
        };
        if answer != Answer::Done {
            session = None;
        }
        transfers.push(Transfer { id, answer });
    }
    transfers
}

#[test]
fn a_bank_whose_servers_die_loses_and_makes_no_money() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE account (k int PRIMARY KEY, balance bigint NOT NULL)",
        "account",
        "k",
        8,
        1,
    );
    cluster.create_distributed(
        "CREATE TABLE transfer (id bigint PRIMARY KEY, source int, target int, amount bigint)",
        "transfer",
        "id",
        8,
        1,
    );
    cluster.sql(&format!(
        "INSERT INTO account SELECT i, 0 FROM generate_series(0, {}) AS i",
        ACCOUNTS - 1
    ));
    let (ids, stop) = (AtomicU64::new(1), AtomicBool::new(false));
    let transfers: Vec<Transfer> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (cluster, ids, stop) = (&cluster, &ids, &stop);
                scope.spawn(move || client(cluster, number, ids, stop))
            })
            .collect();
        let stopping = StopOnDrop(&stop);
        let mut random = Random(99);
        let since = Instant::now();
        while since.elapsed() < duration() {
            let before = ids.load(Ordering::Relaxed);
            wait_until("the clients go on", || ids.load(Ordering::Relaxed) > before + 100);
            let victim = [WORKER_1, WORKER_2, NodeName::Coordinator][random.below(3) as usize];
            cluster.kill(victim).expect("it runs");
            cluster.start(victim).expect("it is down");
        }
        drop(stopping);
        clients.into_iter().flat_map(|client| client.join().expect("it does not panic")).collect()
    });
    cluster.reconnect();
    wait_until_nothing_is_in_doubt(&cluster);
    let stored = cluster.sql("SELECT id FROM transfer");
    let stored: std::collections::HashSet<u64> =
        stored.iter().map(|row| row[0].parse().expect("a number")).collect();
    let done = transfers.iter().filter(|transfer| transfer.answer == Answer::Done).count();
    assert!(done > 100, "{done} transfers were done");
    for Transfer { id, answer } in &transfers {
        match answer {
            Answer::Done => {
                assert!(stored.contains(id), "transfer {id} was acknowledged and is lost")
            }
            Answer::Failed(error) => {
                assert!(!stored.contains(id), "transfer {id} was refused ({error}) and is stored");
            }
            Answer::Unknown => {}
        }
    }
    let wrong = cluster.text(
        "SELECT k, balance, sum FROM (SELECT k, min(balance) AS balance, coalesce(sum(amount), 0) AS sum FROM account \
         LEFT JOIN (SELECT source AS of, -amount AS amount FROM transfer UNION ALL SELECT target, amount FROM transfer) AS t \
         ON of = k GROUP BY k) AS all_accounts WHERE balance <> sum",
    );
    assert_eq!(wrong, "", "accounts that do not have what was moved");
    assert_eq!(cluster.text("SELECT sum(balance) FROM account"), "0");
    // No row is held by what has been forgotten.
    cluster.sql("SET statement_timeout = '10s'");
    cluster.sql("UPDATE account SET balance = balance");
}
