//! A storm of cancels, time-outs and terminations over every kind of write: what was acknowledged is stored, what was
//! refused is not, whatever the moment at which it was struck.
//!
//! Beside the writers, placements are marked and repaired, and transactions with one snapshot read and write the
//! repaired table. The storm lasts for `PGSHARD_STORM` seconds, forty if nothing is said.

/// What clients do, and what they were told.
mod client;

use client::{Account, Client, Told};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use testkit::{Session, TestCluster, wait_until};

/// Clients that write.
const WRITERS: usize = 6;

/// Rows of the table that is repaired all the time.
const STEADY_ROWS: usize = 200;

/// Numbers that look random and are the same in each run.
pub(crate) struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// One of the first `n` numbers.
    pub(crate) fn roll(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

fn create_tables(cluster: &TestCluster) {
    for (table, replicas) in [("single", 1), ("pair", 2), ("steady", 2)] {
        cluster.create_distributed(
            &format!("CREATE TABLE {table} (id bigint PRIMARY KEY, v bigint NOT NULL DEFAULT 0)"),
            table,
            "id",
            6,
            replicas,
        );
    }
    cluster
        .sql(&format!("INSERT INTO steady SELECT i FROM generate_series(1, {STEADY_ROWS}) AS i"));
    cluster.sql(
        "CREATE PROCEDURE two_steps(a bigint, b bigint) LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO pair VALUES (a); COMMIT; INSERT INTO single VALUES (b); END $$",
    );
    cluster.sql(
        "CREATE FUNCTION one_of_two(a bigint, b bigint) RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
         BEGIN INSERT INTO single VALUES (a); RAISE 'no'; EXCEPTION WHEN raise_exception THEN NULL; END; \
         INSERT INTO pair VALUES (b); END $$",
    );
}

/// Strikes at the backends of the clients until the storm is over.
fn strike(cluster: &TestCluster, pids: &[AtomicI32], is_over: &AtomicBool) {
    let (mut session, mut dice) = (cluster.new_session(), Dice::new(77));
    while !is_over.load(Ordering::Relaxed) {
        let pid = pids[dice.roll(pids.len() as u64) as usize].load(Ordering::Relaxed);
        let function =
            if dice.roll(12) == 0 { "pg_terminate_backend" } else { "pg_cancel_backend" };
        if pid != 0 {
            session.sql(&format!("SELECT {function}({pid})"));
        }
        thread::sleep(Duration::from_micros(500 + dice.roll(8000)));
    }
}

/// Marks placements and repairs them until the storm is over; tells how many.
fn mark_and_repair(cluster: &TestCluster, reading: &RwLock<()>, is_over: &AtomicBool) -> usize {
    let (mut session, mut dice) = (cluster.new_session(), Dice::new(5));
    let mut repaired = 0;
    while !is_over.load(Ordering::Relaxed) {
        let table = ["steady", "steady", "pair"][dice.roll(3) as usize];
        // A read that is under way may not know yet that the placement is not to be used.
        let alone = reading.write().expect("nobody has failed");
        session.sql(&format!(
            "UPDATE pgs_distribution_metadata.shard_placement AS p SET shard_state = 3 WHERE p.id = ( \
               SELECT p.id FROM pgs_distribution_metadata.shard_placement AS p \
               JOIN pgs_distribution_metadata.shard AS s ON s.id = p.shard_id \
               WHERE s.relation_id = '{table}'::regclass AND p.shard_state = 1 \
               AND 2 = (SELECT count(*) FROM pgs_distribution_metadata.shard_placement AS o \
                        WHERE o.shard_id = p.shard_id AND o.shard_state = 1) \
               ORDER BY p.id OFFSET {} LIMIT 1)",
            dice.roll(12)
        ));
        drop(alone);
        repaired += repair(&mut session, table);
        thread::sleep(Duration::from_millis(dice.roll(60)));
    }
    repaired
}

/// Repairs what is inactive; what is locked or busy is left for the next time, and so is what a transaction and the repair would
/// wait for in each other's hands.
fn repair(session: &mut Session, table: &str) -> usize {
    let repaired = session.try_sql(&format!(
        "SELECT master_copy_shard_placement(bad.shard_id, good.node_name, good.node_port, bad.node_name, bad.node_port) \
         FROM pgs_distribution_metadata.shard_placement AS bad \
         JOIN pgs_distribution_metadata.shard AS s ON s.id = bad.shard_id \
         JOIN LATERAL (SELECT * FROM pgs_distribution_metadata.shard_placement AS p \
                       WHERE p.shard_id = bad.shard_id AND p.shard_state = 1 ORDER BY p.id LIMIT 1) AS good ON true \
         WHERE s.relation_id = '{table}'::regclass AND bad.shard_state = 3 LIMIT 1"
    ));
    match repaired {
        Ok(rows) => rows.len(),
        Err(error) => {
            assert_eq!(error.sqlstate, "40P01", "{error}");
            0
        }
    }
}

/// Transactions with one snapshot on the table that is repaired: they see all of it, or are told why not. Returns how many
/// updates were acknowledged.
fn read_by_one_snapshot(
    cluster: &TestCluster,
    seed: u64,
    reading: &RwLock<()>,
    is_over: &AtomicBool,
) -> u64 {
    let (mut session, mut dice) = (cluster.new_session(), Dice::new(seed));
    // A repair waits on the node for whoever has read the placement before it was marked, and who then writes the shard waits here
    // for the repair: a deadlock, which ends one of them.
    session.sql("SET statement_timeout = '2s'");
    let mut updates = 0;
    while !is_over.load(Ordering::Relaxed) {
        let key = 1 + dice.roll(STEADY_ROWS as u64);
        session.sql("BEGIN ISOLATION LEVEL REPEATABLE READ");
        let (mut changed, mut done) = (false, Vec::new());
        for _ in 0..2 + dice.roll(6) {
            let statement = if dice.roll(3) == 0 && !changed {
                changed = true;
                format!("UPDATE steady SET v = v + 1 WHERE id = {key} RETURNING {STEADY_ROWS}")
            } else {
                "SELECT count(*) FROM steady".to_owned()
            };
            let outcome = {
                let _reading = reading.read().expect("nobody has failed");
                session.try_sql(&statement)
            };
            match outcome {
                Ok(rows) => {
                    let warnings = session.warnings();
                    assert_eq!(
                        rows,
                        [[STEADY_ROWS.to_string()]],
                        "{statement}: {warnings:?} {done:?}"
                    );
                    done.push(statement);
                }
                Err(error) => {
                    assert!(
                        ["40001", "40P01", "55000", "57014"].contains(&&*error.sqlstate),
                        "{error}: {statement}"
                    );
                    changed = false;
                    break;
                }
            }
            thread::sleep(Duration::from_millis(dice.roll(30)));
        }
        let committed = session.try_sql("COMMIT");
        if let Err(error) = &committed {
            assert!(["40001", "55000"].contains(&&*error.sqlstate), "{error}");
        }
        updates += u64::from(changed && committed.is_ok());
    }
    updates
}

/// What is stored, as numbers by id.
fn stored(cluster: &TestCluster, table: &str) -> BTreeMap<i64, i64> {
    let number = |text: &String| text.parse::<i64>().expect("a number");
    let rows = cluster.sql(&format!("SELECT id, v FROM {table}"));
    rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect()
}

/// Compares what the clients were told with what is there.
fn compare(accounts: &[Account], table: &str, stored: &BTreeMap<i64, i64>) -> [usize; 3] {
    let mut counts = [0; 3];
    let mut wrong = Vec::new();
    let all = accounts.iter().flat_map(|it| it.said.iter().map(move |said| (said, &it.history)));
    for (said, history) in all.filter(|(said, _)| said.table == table) {
        let is_right = match (&said.told, stored.get(&said.id)) {
            (Told::Stored, Some(value)) => said.values.contains(value),
            (Told::Refused(_), found) => found.is_none(),
            (Told::Unknown(_), found) => found.is_none_or(|value| said.values.contains(value)),
            (Told::Deleted, found) => found.is_none(),
            (Told::Stored, None) => false,
        };
        counts[match said.told {
            Told::Stored | Told::Deleted => 0,
            Told::Refused(_) => 1,
            Told::Unknown(_) => 2,
        }] += 1;
        if !is_right {
            let around = said.statements.saturating_sub(12)..history.len().min(said.statements + 3);
            wrong.push(format!(
                "{said:?}, but there is {:?}; the client ran\n{}",
                stored.get(&said.id),
                history[around].join("\n")
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {table} are wrong: {}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n\n")
    );
    counts
}

#[test]
fn what_is_acknowledged_is_stored_and_what_is_refused_is_not_in_a_storm() {
    let seconds = std::env::var("PGSHARD_STORM").ok().and_then(|text| text.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(40));
    // If it fails, the servers' directories stay, and their logs tell what became of each statement.
    let cluster = TestCluster::up_with(
        3,
        &[
            // Not how long they take: behind a commit, where that is logged, PostgreSQL looks for interrupts once more.
            ("log_statement", "all"),
            ("log_line_prefix", "%m [%p] %v %x %e "),
        ],
    );
    create_tables(&cluster);
    let (is_over, reading) = (AtomicBool::new(false), RwLock::new(()));
    let pids: Vec<AtomicI32> = (0..WRITERS).map(|_| AtomicI32::new(0)).collect();
    let (accounts, updates, repaired) = thread::scope(|scope| {
        let (cluster, is_over, pids, reading) = (&cluster, &is_over, &pids, &reading);
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| scope.spawn(move || Client::new(cluster, n, &pids[n]).write_until(is_over)))
            .collect();
        let readers: Vec<_> = (0..2)
            .map(|n| scope.spawn(move || read_by_one_snapshot(cluster, 100 + n, reading, is_over)))
            .collect();
        let striker = scope.spawn(move || strike(cluster, pids, is_over));
        let repairer = scope.spawn(move || mark_and_repair(cluster, reading, is_over));
        let begun = Instant::now();
        let is_alive = || {
            !writers.iter().any(|it| it.is_finished())
                && !readers.iter().any(|it| it.is_finished())
                && !striker.is_finished()
                && !repairer.is_finished()
        };
        while begun.elapsed() < length && is_alive() {
            thread::sleep(Duration::from_millis(50));
        }
        is_over.store(true, Ordering::Relaxed);
        striker.join().expect("the striker does not fail");
        let repaired = repairer.join().expect("repairs do not fail");
        let updates: u64 = readers
            .into_iter()
            .map(|it| it.join().expect("readers see all or are told why not"))
            .sum();
        let accounts: Vec<Account> =
            writers.into_iter().map(|it| it.join().expect("writers do not fail")).collect();
        (accounts, updates, repaired)
    });
    assert!(repaired > 0, "something was repaired");
    cluster.wait_for_rest();
    wait_until("nobody holds a lock", || {
        cluster.text(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' OR mode = 'AccessExclusiveLock'",
        ) == "0"
    });
    for table in ["single", "pair", "steady"] {
        while cluster.repair(table) > 0 {}
        cluster.assert_placements_equal(table);
    }
    for table in ["single", "pair"] {
        let counts = compare(&accounts, table, &stored(&cluster, table));
        let [done, refused, unknown] = counts;
        println!("{table}: {done} acknowledged, {refused} refused, {unknown} unknown");
        assert!(done > 0 && refused > 0, "the storm has struck");
        let known: BTreeSet<i64> = accounts
            .iter()
            .flat_map(|it| &it.said)
            .filter(|said| said.table == table)
            .map(|said| said.id)
            .collect();
        assert!(stored(&cluster, table).keys().all(|id| known.contains(id)));
    }
    assert_eq!(
        cluster.text("SELECT count(*), sum(v) FROM steady"),
        format!("{STEADY_ROWS}|{updates}")
    );
    println!("{updates} updates by one snapshot, {repaired} repairs");
}
