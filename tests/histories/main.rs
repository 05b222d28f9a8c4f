//! Histories: clients append to lists and read them while servers die, and a checker (the crate `history`) says whether what they saw can
//! have happened at the level that was promised.
//!
//! `PGSHARD_HISTORY` says for how many seconds each level runs; `cargo xtask histories` for minutes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use history::{End, Level, Operation, Transaction, check};
use testkit::postgres::Error;
use testkit::{NodeName, Random, Session, TestCluster, wait_until};

const CLIENTS: u64 = 8;

/// How many lists are in use at a time, and how many transactions begin until they are replaced by others.
const LISTS: u64 = 12;
const TRANSACTIONS_WITH_THEM: u64 = 600;

/// What clients run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Transactions append, single statements read. READ COMMITTED.
    Statements,
    /// Transactions do both. REPEATABLE READ.
    Snapshots,
    /// They do both, over nodes and by key. SERIALIZABLE.
    Serial,
}

/// What all clients share.
struct Run<'a> {
    cluster: &'a TestCluster,
    mode: Mode,
    /// Each look is a moment of its own.
    clock: AtomicU64,
    begun: AtomicU64,
    stop: AtomicBool,
}

/// Why a statement did not do what it was to do.
enum Failed {
    /// The server says that nothing has happened.
    Refused,
    /// It does not, or is not there any more.
    Lost,
}

fn failed(error: &Error) -> Failed {
    match error.as_db_error() {
        Some(error) if !["08007", "57P01", "57P02", "57P03"].contains(&error.code().code()) => {
            Failed::Refused
        }
        _ => Failed::Lost,
    }
}

/// A list as text of an array.
fn list(text: &str) -> Vec<u64> {
    let values = text.trim_matches(['{', '}']).split(',').filter(|value| !value.is_empty());
    values.map(|value| value.parse().expect("values are numbers")).collect()
}

/// Reads several lists with one statement; a list that is not there is empty.
///
/// It goes to all nodes. One that a single node answers has no snapshot, and may miss for a moment what a transaction that is just
/// being committed has shown to others on another node.
fn read(session: &mut Session, table: &str, keys: &[u32]) -> Result<Vec<Operation>, Failed> {
    let wanted: Vec<String> = keys.iter().map(u32::to_string).collect();
    let sql = format!("SELECT k, v FROM {table} WHERE k + 0 IN ({})", wanted.join(", "));
    let messages = session.client().simple_query(&sql).map_err(|error| failed(&error))?;
    let rows: Vec<(u32, Vec<u64>)> = messages
        .iter()
        .filter_map(|message| match message {
            testkit::postgres::SimpleQueryMessage::Row(row) => {
                let key = row.get(0)?.parse().ok()?;
                Some((key, list(row.get(1)?)))
            }
            _ => None,
        })
        .collect();
    let found =
        |key: u32| rows.iter().find(|(known, _)| *known == key).map(|(_, list)| list.clone());
    Ok(keys
        .iter()
        .map(|key| Operation::Read { key: *key, list: found(*key).unwrap_or_default() })
        .collect())
}

/// The same of one list, which a single node answers.
fn read_by_key(session: &mut Session, table: &str, key: u32) -> Result<Vec<Operation>, Failed> {
    let sql = format!("SELECT v FROM {table} WHERE k = {key}");
    let messages = session.client().simple_query(&sql).map_err(|error| failed(&error))?;
    let found = messages.iter().find_map(|message| match message {
        testkit::postgres::SimpleQueryMessage::Row(row) => row.get(0).map(list),
        _ => None,
    });
    Ok(vec![Operation::Read { key, list: found.unwrap_or_default() }])
}

fn run(session: &mut Session, sql: &str) -> Result<(), Failed> {
    session.client().simple_query(sql).map(drop).map_err(|error| failed(&error))
}

fn append(session: &mut Session, table: &str, key: u32, value: u64) -> Result<(), Failed> {
    let insert = format!("INSERT INTO {table} AS l VALUES ({key}, '{{{value}}}')");
    run(session, &format!("{insert} ON CONFLICT (k) DO UPDATE SET v = l.v || excluded.v"))
}

impl Run<'_> {
    fn moment(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn table(&self) -> String {
        format!("lists_{:?}", self.mode).to_lowercase()
    }

    /// Runs transactions until it is told to stop; what they were.
    fn client(&self, number: u64) -> Vec<Transaction> {
        let mut random = Random(number + 1);
        let mut history = Vec::new();
        let mut session = None;
        while !self.stop.load(Ordering::Relaxed) {
            let open = session.get_or_insert_with(|| {
                let mut session = self.cluster.wait_for(NodeName::Coordinator);
                let _ = session.try_sql("SET pg_shard.read_consistency = snapshot");
                session
            });
            let (transaction, is_lost) = self.transaction(open, &mut random);
            if is_lost {
                session = None;
            }
            history.extend(transaction);
        }
        history
    }

    /// Runs one; and whether the session is lost.
    fn transaction(
        &self,
        session: &mut Session,
        random: &mut Random,
    ) -> (Option<Transaction>, bool) {
        let begun = self.begun.fetch_add(1, Ordering::SeqCst);
        let first = begun / TRANSACTIONS_WITH_THEM * LISTS;
        // In the order of their numbers, so that few wait for each other in a circle.
        let mut keys: Vec<u32> = (0..1 + random.below(3))
            .map(|_| u32::try_from(first + random.below(LISTS)).expect("there are few lists"))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        if self.mode == Mode::Serial && random.below(2) == 0 {
            // On one node.
            keys.truncate(1);
        }
        let reads = random.below(2) == 0;
        let began = self.moment();
        let (operations, outcome) = match (self.mode, reads) {
            (Mode::Statements, true) => match read(session, &self.table(), &keys) {
                Ok(operations) => (operations, Ok(())),
                Err(failed) => (Vec::new(), Err((failed, false))),
            },
            _ => self.block(session, &keys, begun, random),
        };
        let (end, is_lost) = match outcome {
            Ok(()) => (End::Committed, false),
            Err((Failed::Refused, _)) => (End::Aborted, run(session, "ROLLBACK").is_err()),
            // Without COMMIT nothing is stored.
            Err((Failed::Lost, commits)) => {
                (if commits { End::Unknown } else { End::Aborted }, true)
            }
        };
        let transaction = Transaction { began, ended: self.moment(), end, operations };
        ((!transaction.operations.is_empty()).then_some(transaction), is_lost)
    }

    /// A transaction of several statements; with its failure, whether COMMIT had been sent.
    fn block(
        &self,
        session: &mut Session,
        keys: &[u32],
        number: u64,
        random: &mut Random,
    ) -> (Vec<Operation>, Result<(), (Failed, bool)>) {
        let mut operations = Vec::new();
        let level = match self.mode {
            Mode::Statements => "READ COMMITTED",
            Mode::Snapshots => "REPEATABLE READ",
            Mode::Serial => "SERIALIZABLE",
        };
        let table = self.table();
        let mut steps = || {
            run(session, &format!("BEGIN ISOLATION LEVEL {level}"))?;
            for (value, key) in (number * 10..).zip(keys) {
                if self.mode == Mode::Snapshots && random.below(2) == 0 {
                    operations.extend(read(session, &table, &[*key, keys[0]])?);
                }
                if self.mode == Mode::Serial {
                    match random.below(8) {
                        0 => operations.extend(read(session, &table, &[*key, keys[0]])?),
                        1..4 => operations.extend(read_by_key(session, &table, *key)?),
                        _ => {}
                    }
                }
                if random.below(4) > 0 {
                    append(session, &table, *key, value)?;
                    operations.push(Operation::Append { key: *key, value });
                }
            }
            Ok(())
        };
        match steps() {
            Err(failed) => (operations, Err((failed, false))),
            Ok(()) => {
                let end = run(session, "COMMIT");
                (operations, end.map_err(|failed| (failed, true)))
            }
        }
    }

    /// Reads all lists at the end, one by one.
    fn last_reads(&self) -> Vec<Transaction> {
        let rows = self.cluster.sql(&format!("SELECT k, v FROM {}", self.table()));
        let reads = rows.iter().map(|row| {
            let key = row[0].parse().expect("keys are numbers");
            let operations = vec![Operation::Read { key, list: list(&row[1]) }];
            Transaction {
                began: self.moment(),
                ended: self.moment(),
                end: End::Committed,
                operations,
            }
        });
        reads.collect()
    }
}

fn duration() -> Duration {
    let seconds = std::env::var("PGSHARD_HISTORY").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(8))
}

/// Kills one server after another, if it is to, until the time is over.
fn disturb(run: &Run<'_>, kills: bool) {
    let mut random = Random(99);
    let since = Instant::now();
    while since.elapsed() < duration() {
        let before = run.begun.load(Ordering::Relaxed);
        wait_until("the clients go on", || run.begun.load(Ordering::Relaxed) > before + 150);
        if kills {
            let nodes = [NodeName::Worker(1), NodeName::Worker(2), NodeName::Coordinator];
            let victim = nodes[random.below(3) as usize];
            run.cluster.kill(victim).expect("it runs");
            run.cluster.start(victim).expect("it is down");
        }
    }
    run.stop.store(true, Ordering::Relaxed);
}

/// Runs clients and checks what they saw.
fn holds(mode: Mode, level: Level, kills: bool) {
    let cluster = TestCluster::up(2);
    let run = Run {
        cluster: &cluster,
        mode,
        clock: AtomicU64::new(0),
        begun: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let table = run.table();
    let create = format!("CREATE TABLE {table} (k int PRIMARY KEY, v bigint[] NOT NULL)");
    cluster.create_distributed(&create, &table, "k", 8, 1);
    let mut history: Vec<Transaction> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let run = &run;
                    move || run.client(number)
                })
            })
            .collect();
        disturb(&run, kills);
        clients.into_iter().flat_map(|client| client.join().expect("it does not panic")).collect()
    });
    cluster.reconnect();
    for worker in cluster.workers() {
        let mut session = cluster.wait_for(worker);
        wait_until("nothing is in doubt", || {
            session.text("SELECT count(*) FROM pg_prepared_xacts") == "0"
        });
    }
    let last = run.last_reads();
    if mode == Mode::Serial {
        let timed: Vec<Transaction> = history.iter().chain(&last).cloned().collect();
        assert_eq!(check(&timed, Level::Statements), []);
        forget_times(&mut history);
    }
    history.extend(last);
    let ended = |end| history.iter().filter(|transaction| transaction.end == end).count();
    let (committed, aborted, unknown) =
        (ended(End::Committed), ended(End::Aborted), ended(End::Unknown));
    println!("{mode:?}: {committed} committed, {aborted} aborted, {unknown} unknown");
    // SERIALIZABLE transactions over several nodes come one after the other.
    let least = if mode == Mode::Serial { 100 } else { 500 };
    assert!(committed > least, "{committed} transactions have committed");
    let found = check(&history, level);
    let shown: Vec<String> =
        found.iter().take(5).map(|anomaly| describe(anomaly, &history)).collect();
    assert!(found.is_empty(), "{} anomalies: {}", found.len(), shown.join("\n"));
}

/// SERIALIZABLE transactions have an order, which need not be that of real time, on one PostgreSQL either: one that has read what
/// another wrote since comes before it. The reads at the end come last all the same.
fn forget_times(history: &mut [Transaction]) {
    let last = history.iter().map(|transaction| transaction.ended).max().unwrap_or(0);
    for transaction in history {
        (transaction.began, transaction.ended) = (0, last);
    }
}

/// An anomaly with the transactions that it is about.
fn describe(anomaly: &history::Anomaly, history: &[Transaction]) -> String {
    let mut text = anomaly.to_string();
    if let history::Anomaly::Cycle(cycle) = anomaly {
        for (number, _) in cycle {
            text.push_str(&format!("\n  {number}: {:?}", history[*number]));
        }
    }
    text
}

#[test]
fn statements_see_whole_transactions_while_servers_die() {
    holds(Mode::Statements, Level::Statements, true);
}

#[test]
fn repeatable_read_transactions_have_one_snapshot() {
    holds(Mode::Snapshots, Level::Snapshot, false);
}

#[test]
fn repeatable_read_transactions_have_one_snapshot_while_servers_die() {
    holds(Mode::Snapshots, Level::Snapshot, true);
}

#[test]
fn serializable_transactions_on_one_node_and_over_two_have_an_order() {
    holds(Mode::Serial, Level::Serializable, false);
}

#[test]
fn serializable_transactions_have_an_order_while_servers_die() {
    holds(Mode::Serial, Level::Serializable, true);
}
