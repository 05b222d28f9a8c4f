//! Nodes that die while they write.
//!
//! A pair's leader commits before its follower is asked. Whatever of the two dies whenever, what a client was told
//! is there afterwards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use testkit::{NodeName, SqlError, TestCluster, wait_until};

use crate::{WORKER_1, WORKER_2, key_led_by};

/// Writers at once.
const WRITERS: i32 = 6;

/// Rows that each writer has written, and values of its counter.
#[derive(Debug, Default)]
struct Told {
    rows: Vec<i32>,
    /// Rows whose writer was told an error.
    unknown: Vec<i32>,
    counted: i32,
    count_unknown: i32,
    errors: Vec<SqlError>,
}

/// Writes row after row, and counts, until it is told to stop.
fn write(
    cluster: &TestCluster,
    writer: i32,
    mode: &str,
    counter: i32,
    stopped: &AtomicBool,
) -> Told {
    let mut session = cluster.new_session();
    let mut told = Told::default();
    let statements = [
        "INSERT INTO rows VALUES ($1, $2)",
        "UPDATE counters SET n = n + 1 WHERE k = $1 RETURNING n",
    ]
    .map(|sql| session.client().prepare(sql).expect("a statement by key"));
    for number in 0.. {
        if stopped.load(Ordering::Relaxed) {
            break;
        }
        let row = number * WRITERS + writer;
        let inserted = if mode == "simple" {
            session.try_sql(&format!("INSERT INTO rows VALUES ({row}, {writer})")).map(drop)
        } else {
            let client = session.client();
            client.execute(&statements[0], &[&row, &writer]).map(drop).map_err(|error| {
                SqlError::from(error.as_db_error().unwrap_or_else(|| panic!("{error}")))
            })
        };
        match inserted {
            Ok(()) => told.rows.push(row),
            Err(error) => {
                told.unknown.push(row);
                told.errors.push(error);
            }
        }
        let counted = if mode == "simple" {
            session
                .try_sql(&format!("UPDATE counters SET n = n + 1 WHERE k = {counter} RETURNING n"))
                .map(|rows| rows.len())
        } else {
            let client = session.client();
            client.query(&statements[1], &[&counter]).map(|rows| rows.len()).map_err(|error| {
                SqlError::from(error.as_db_error().unwrap_or_else(|| panic!("{error}")))
            })
        };
        match counted {
            Ok(rows) => {
                assert_eq!(rows, 1, "RETURNING yields the row once");
                told.counted += 1;
            }
            Err(error) => {
                told.count_unknown += 1;
                told.errors.push(error);
            }
        }
    }
    told
}

fn leaders_die_again_and_again(mode: &str) {
    let cluster = TestCluster::impatient(2);
    cluster.create_distributed(
        "CREATE TABLE rows (k int PRIMARY KEY, writer int)",
        "rows",
        "k",
        8,
        2,
    );
    cluster.create_distributed(
        "CREATE TABLE counters (k int PRIMARY KEY, n int DEFAULT 0)",
        "counters",
        "k",
        8,
        2,
    );
    cluster.sql("INSERT INTO counters SELECT i FROM generate_series(1, 100) AS i");
    // One counter led by each worker.
    let counters = [WORKER_1, WORKER_2].map(|node| key_led_by(&cluster, "counters", node));
    let stopped = AtomicBool::new(false);
    let written = || -> i64 {
        let counts = "SELECT sum(n) FROM counters";
        cluster.text(counts).parse().expect("a number")
    };
    let told: Vec<Told> = thread::scope(|scope| {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let (cluster, stopped) = (&cluster, &stopped);
        let stop = Stop(stopped);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let counter = counters[usize::try_from(writer % 2).expect("is 0 or 1")];
                scope.spawn(move || write(cluster, writer, mode, counter, stopped))
            })
            .collect();
        let progress = |more: i64| {
            let before = written();
            wait_until("writes go on", || written() >= before + more);
        };
        for turn in 0..6_u16 {
            let victim = NodeName::Worker(turn % 2 + 1);
            progress(30);
            cluster.kill(victim).expect("it is up");
            if turn % 3 == 0 {
                // Back before everybody has noticed.
                cluster.start(victim).expect("it is down");
                progress(30);
            } else {
                progress(30);
                cluster.start(victim).expect("it is down");
            }
            for table in ["rows", "counters"] {
                cluster.repair(table);
                assert_eq!(cluster.unhealthy(table), 0, "turn {turn}");
            }
        }
        drop(stop);
        writers.into_iter().map(|writer| writer.join().expect("a writer does not panic")).collect()
    });
    for table in ["rows", "counters"] {
        cluster.repair(table);
        cluster.assert_placements_equal(table);
    }
    let stored: std::collections::BTreeSet<i32> = cluster
        .sql("SELECT k FROM rows")
        .iter()
        .map(|row| row[0].parse().expect("a number"))
        .collect();
    let lost: Vec<&i32> =
        told.iter().flat_map(|told| &told.rows).filter(|row| !stored.contains(row)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let known: usize = told.iter().map(|told| told.rows.len() + told.unknown.len()).sum();
    assert!(stored.len() <= known, "{} rows of {known}", stored.len());
    for (index, counter) in counters.into_iter().enumerate() {
        let of_counter = || told.iter().skip(index).step_by(2);
        let least: i32 = of_counter().map(|told| told.counted).sum();
        let most = least + of_counter().map(|told| told.count_unknown).sum::<i32>();
        let n: i32 = cluster
            .text(&format!("SELECT n FROM counters WHERE k = {counter}"))
            .parse()
            .expect("a number");
        assert!((least..=most).contains(&n), "{n} is stored, {least} to {most} were told");
    }
    for error in told.iter().flat_map(|told| &told.errors) {
        let may_be_told = ["08007", "08006", "XX000"];
        assert!(may_be_told.contains(&error.sqlstate.as_str()), "{error}");
    }
    assert!(told.iter().all(|told| told.rows.len() > 20), "{told:?}");
}

#[test]
fn no_write_is_lost_when_leaders_die_again_and_again_in_simple_mode() {
    leaders_die_again_and_again("simple");
}

#[test]
fn no_write_is_lost_when_leaders_die_again_and_again_in_prepared_mode() {
    leaders_die_again_and_again("prepared");
}
