//! Under the load of pgbench, whatever happens to workers: no acknowledged write is lost.
//!
//! Eight clients insert rows, raise counters and read. pgbench tells how many transactions of each script were
//! acknowledged; afterwards there must be at least as many rows, at most one more for each client that gave up
//! over an error (its last statement may be stored or not), and all placements must be equal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use testkit::{NodeName, PgbenchReport, Script, TestCluster, wait_until};

const WORKER_1: NodeName = NodeName::Worker(1);
const WORKER_2: NodeName = NodeName::Worker(2);
const WORKER_3: NodeName = NodeName::Worker(3);
const WORKER_4: NodeName = NodeName::Worker(4);

const SCRIPTS: [Script<'_>; 4] = [
    Script {
        weight: 3,
        text: "\\set key random(1, 100000)\nINSERT INTO written (key, client) VALUES (:key, :client_id);\n",
    },
    Script {
        weight: 2,
        text: "\\set key random(1, 200)\nUPDATE counters SET n = n + 1 WHERE key = :key;\n",
    },
    Script {
        weight: 2,
        text: "\\set key random(1, 200)\nSELECT n FROM counters WHERE key = :key;\n",
    },
    Script {
        weight: 1,
        text: "\\set key random(1, 200)\nBEGIN;\nUPDATE pairs SET n = n + 1 WHERE key = :key;\nINSERT INTO moves (key, client) VALUES (:key, :client_id);\nEND;\n",
    },
];

/// Changes whose rows are computed on the coordinator, beside some by key.
const JOINED: [Script<'_>; 4] = [
    SCRIPTS[0],
    SCRIPTS[1],
    Script {
        weight: 1,
        text: "\\set key random(1, 200)\nUPDATE joined SET n = n + step FROM steps WHERE joined.key = steps.key AND place = :key;\n",
    },
    SCRIPTS[2],
];

/// What all runs of pgbench reported together.
#[derive(Debug, Default)]
struct Load {
    acknowledged: [u64; 4],
    gave_up: u64,
    errors: String,
}

impl Load {
    fn add(&mut self, report: &PgbenchReport) {
        assert_eq!(report.of_script.len(), self.acknowledged.len(), "{report:#?}");
        assert_eq!(report.of_script.iter().sum::<u64>(), report.transactions, "{report:#?}");
        for (sum, count) in self.acknowledged.iter_mut().zip(&report.of_script) {
            *sum += count;
        }
        let gave_up = report.errors.lines().filter(|line| line.contains("pgbench: error: client"));
        for line in gave_up {
            self.gave_up += 1;
            self.errors.push_str(line);
            self.errors.push('\n');
        }
    }
}

/// Runs pgbench again and again while `faults` happen.
fn load_while(
    cluster: &TestCluster,
    mode: &str,
    scripts: &[Script<'_>],
    faults: impl FnOnce(),
) -> Load {
    /// Ends the load even if the faults panic.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        let running = scope.spawn(|| {
            let mut load = Load::default();
            while !stopped.load(Ordering::Relaxed) {
                // One thread: several would count the transactions of a script without a lock among them.
                load.add(
                    &cluster.pgbench(mode, scripts, &["-c", "8", "-j", "1", "-T", "2"]).finish(),
                );
            }
            load
        });
        let stop = Stop(&stopped);
        faults();
        drop(stop);
        running.join().expect("the load does not panic")
    })
}

fn create_tables(cluster: &TestCluster) {
    cluster.create_distributed(
        "CREATE TABLE written (key int, client int, id bigserial, at timestamptz DEFAULT now())",
        "written",
        "key",
        8,
        2,
    );
    cluster.create_distributed(
        "CREATE TABLE counters (key int PRIMARY KEY, n bigint DEFAULT 0)",
        "counters",
        "key",
        8,
        2,
    );
    cluster.create_distributed(
        "CREATE TABLE pairs (key int PRIMARY KEY, n bigint DEFAULT 0)",
        "pairs",
        "key",
        8,
        2,
    );
    cluster.create_distributed("CREATE TABLE moves (key int, client int)", "moves", "key", 8, 2);
    cluster.create_distributed(
        "CREATE TABLE joined (key int PRIMARY KEY, n bigint DEFAULT 0)",
        "joined",
        "key",
        8,
        2,
    );
    cluster.sql("CREATE TABLE steps (place int PRIMARY KEY, key int, step int)");
    cluster.sql("INSERT INTO steps SELECT i, i, 1 FROM generate_series(1, 200) AS i");
    for table in ["counters", "pairs", "joined"] {
        cluster.sql(&format!("INSERT INTO {table} SELECT i FROM generate_series(1, 200) AS i"));
    }
}

const TABLES: [&str; 5] = ["written", "counters", "pairs", "moves", "joined"];

/// Waits until many more writes were done.
fn wait_for_progress(cluster: &TestCluster) {
    let mut session = cluster.new_session();
    let written = "SELECT last_value FROM written_id_seq";
    let number = |text: String| text.parse::<i64>().expect("a sequence");
    let before = number(session.text(written));
    wait_until("200 more rows are written", || number(session.text(written)) > before + 200);
}

fn repair_all(cluster: &TestCluster) -> usize {
    TABLES.iter().map(|table| cluster.repair(table)).sum()
}

fn marked(cluster: &TestCluster) -> usize {
    TABLES.iter().map(|table| cluster.unhealthy(table)).sum()
}

fn no_acknowledged_write_is_lost(mode: &str) {
    let cluster = TestCluster::impatient(4);
    create_tables(&cluster);
    let load = load_while(&cluster, mode, &SCRIPTS, || {
        wait_for_progress(&cluster);
        assert_eq!(marked(&cluster), 0, "marked though nothing happened");

        // Killed, and back; repaired while all goes on.
        cluster.kill(WORKER_1).expect("worker 1 is up");
        wait_for_progress(&cluster);
        wait_until("missed writes are marked", || marked(&cluster) >= 8);
        cluster.start(WORKER_1).expect("worker 1 is down");
        wait_for_progress(&cluster);
        assert!(repair_all(&cluster) >= 8);
        wait_for_progress(&cluster);

        // Restarted in good order, at once.
        cluster.stop(WORKER_2).expect("worker 2 is up");
        cluster.start(WORKER_2).expect("worker 2 is down");
        wait_for_progress(&cluster);
        repair_all(&cluster);

        // Frozen, given up, and awake again with whatever it was doing.
        cluster.pause(WORKER_3).expect("worker 3 is up");
        wait_for_progress(&cluster);
        cluster.resume(WORKER_3).expect("worker 3 is paused");
        wait_for_progress(&cluster);
        repair_all(&cluster);

        // Killed and back at once.
        cluster.kill(WORKER_4).expect("worker 4 is up");
        cluster.start(WORKER_4).expect("worker 4 is down");
        wait_for_progress(&cluster);
    });
    repair_all(&cluster);
    assert_eq!(marked(&cluster), 0);
    for table in TABLES {
        cluster.assert_placements_equal(table);
    }
    let twice = "SELECT id, count(*) FROM written GROUP BY id HAVING count(*) > 1";
    assert_eq!(cluster.text(twice), "", "rows are stored twice");
    let stored: Vec<u64> = [
        "SELECT count(*) FROM written",
        "SELECT sum(n) FROM counters",
        "SELECT count(*) FROM moves",
    ]
    .iter()
    .map(|query| cluster.text(query).parse().expect("a number"))
    .collect();
    let [inserted, counted, _, moved] = load.acknowledged;
    for (stored, acknowledged) in stored.iter().zip([inserted, counted, moved]) {
        let possible = acknowledged..=acknowledged + load.gave_up;
        assert!(
            possible.contains(stored),
            "{stored} are stored, {possible:?} were acknowledged or may be\n{load:?}"
        );
    }
    assert!(load.acknowledged.iter().all(|count| *count > 100), "{load:?}");
    // The counters of a pair and its moves lie in one shard each on the same nodes: they are committed together.
    let torn = cluster.text(
        "SELECT p.key, p.n, m.n FROM pairs p LEFT JOIN (SELECT key, count(*) AS n FROM moves GROUP BY key) m USING (key) \
         WHERE p.n <> coalesce(m.n, 0)",
    );
    assert_eq!(torn, "", "{load:?}");
    // With two placements, losing one node is nobody's error but of those whose answer was lost.
    for line in load.errors.lines() {
        let excused = ["lost", "may be stored or not", "connection"];
        assert!(excused.iter().any(|word| line.contains(word)), "{line}");
    }
}

/// What happens to a few keys at once, in every way.
const SAME_KEYS: [&str; 8] = [
    "INSERT INTO few (key, n) VALUES (:key, 1) ON CONFLICT (key) DO UPDATE SET n = few.n + 1",
    "DELETE FROM few WHERE key = :key",
    "UPDATE few SET n = n + 1, luck = random() WHERE key = :key",
    "WITH gone AS (DELETE FROM many WHERE key = :key RETURNING *) INSERT INTO many SELECT key, n + 1 FROM gone WHERE n < 3",
    "WITH changed AS (UPDATE few SET n = n + 1 WHERE key = :key RETURNING key, n) INSERT INTO many SELECT key, 0 FROM changed",
    "INSERT INTO many VALUES (:key, 1), (:key + 1, 2), (:key + 2, 3)",
    "INSERT INTO many SELECT i % 20, i FROM generate_series(:key, :key + 3) AS i",
    "DELETE FROM many WHERE key = :key AND n > 0",
];

#[test]
fn writers_of_the_same_keys_leave_the_placements_equal_and_mark_nothing() {
    // An INSERT of rows for several shards took no lock on its keys. A DELETE by key could then come before it on one
    // placement and after it on the other, found another number of rows there, and a placement was marked.
    let cluster = TestCluster::up(3);
    cluster.create_distributed(
        "CREATE TABLE few (key int PRIMARY KEY, n int, luck float8 DEFAULT random())",
        "few",
        "key",
        4,
        2,
    );
    cluster.create_distributed("CREATE TABLE many (key int, n int)", "many", "key", 4, 2);
    let texts = SAME_KEYS.map(|statement| format!("\\set key random(1, 20)\n{statement};\n"));
    let scripts: Vec<Script<'_>> =
        texts.iter().map(|text| Script { weight: 1, text: text.as_str() }).collect();
    for mode in ["simple", "prepared"] {
        let report = cluster.pgbench(mode, &scripts, &["-c", "8", "-j", "1", "-T", "6"]).finish();
        assert!(report.succeeded && report.transactions > 500, "{mode}: {report:#?}");
        assert_eq!(report.errors.lines().find(|line| line.contains("WARNING")), None, "{mode}");
    }
    for table in ["few", "many"] {
        assert_eq!(cluster.unhealthy(table), 0);
        cluster.assert_placements_equal(table);
    }
}

#[test]
fn changes_that_are_computed_here_are_neither_lost_nor_made_twice_while_a_worker_is_killed_and_repaired()
 {
    let cluster = TestCluster::impatient(4);
    create_tables(&cluster);
    let load = load_while(&cluster, "simple", &JOINED, || {
        for worker in [WORKER_1, WORKER_3] {
            wait_for_progress(&cluster);
            cluster.kill(worker).expect("the worker is up");
            wait_for_progress(&cluster);
            cluster.start(worker).expect("the worker is down");
            wait_for_progress(&cluster);
            repair_all(&cluster);
        }
        wait_for_progress(&cluster);
    });
    repair_all(&cluster);
    assert_eq!(marked(&cluster), 0);
    for table in TABLES {
        cluster.assert_placements_equal(table);
    }
    let [_, _, joined, _] = load.acknowledged;
    assert!(joined > 20, "{load:?}");
    let stored: u64 = cluster.text("SELECT sum(n) FROM joined").parse().expect("a number");
    let possible = joined..=joined + load.gave_up;
    assert!(possible.contains(&stored), "{stored} are stored, not {possible:?}: {load:?}");
}

#[test]
fn no_acknowledged_write_is_lost_in_simple_mode() {
    no_acknowledged_write_is_lost("simple");
}

#[test]
fn no_acknowledged_write_is_lost_in_extended_mode() {
    no_acknowledged_write_is_lost("extended");
}

#[test]
fn no_acknowledged_write_is_lost_in_prepared_mode() {
    no_acknowledged_write_is_lost("prepared");
}
