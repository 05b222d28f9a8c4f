//! `cargo xtask bench reads`: four reads over all shards beside one PostgreSQL, and the time of planning over 1,024 shards.
//!
//! The floors and aims are those of the design: speed relative to one PostgreSQL on the same cores, one client.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::bench::both::{Both, Run, is_same_answer, median, shown};
use crate::bench::case::Goal;
use crate::render;

/// How many shards the tables have.
const SHARDS: u32 = 16;

/// How many shards the wide table has.
const MANY_SHARDS: u32 = 1024;

/// Milliseconds that planning over these may take.
const PLANNING_LIMIT: f64 = 10.0;

/// What is to be measured, and how.
#[derive(Debug)]
pub(crate) struct Options {
    /// How many runs each read gets on each side.
    pub(crate) rounds: u32,
    /// How many events there are.
    pub(crate) rows: u64,
    /// A running cluster that is used and stays, tables and all.
    pub(crate) dir: Option<PathBuf>,
}

/// A read and what is expected of it.
struct Read {
    name: &'static str,
    sql: &'static str,
    goal: Goal,
}

const READS: [Read; 4] = [
    Read {
        name: "count(*)",
        sql: "SELECT count(*) FROM bench_events",
        goal: Goal { floor: 0.85, aim: 0.95 },
    },
    Read {
        name: "GROUP BY with top 10",
        sql: "SELECT product, count(*), sum(amount) FROM bench_events GROUP BY product ORDER BY 3 DESC, 1 LIMIT 10",
        goal: Goal { floor: 0.85, aim: 0.95 },
    },
    Read {
        name: "co-located join",
        sql: "SELECT c.region, count(*), sum(e.amount) FROM bench_events AS e JOIN bench_customers AS c ON c.id = e.customer \
              GROUP BY c.region",
        goal: Goal { floor: 1.1, aim: 1.2 },
    },
    Read {
        name: "join off the key",
        sql: "SELECT p.category, count(*), sum(e.amount) FROM bench_events AS e JOIN bench_products AS p ON p.id = e.product \
              GROUP BY p.category",
        goal: Goal { floor: 0.5, aim: 0.7 },
    },
];

/// What is only planned, over many shards.
const PLANNED: [(&str, &str); 4] = [
    ("count(*)", "SELECT count(*) FROM bench_wide"),
    ("GROUP BY", "SELECT k % 10, count(*) FROM bench_wide GROUP BY 1"),
    ("co-located join", "SELECT count(*) FROM bench_wide AS a JOIN bench_wide AS b USING (k)"),
    ("join off the key", "SELECT count(*) FROM bench_wide AS a JOIN bench_wide AS b ON a.v = b.k"),
];

/// Loads, compares, measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    let both = Both::new(options.dir.as_deref())?;
    load(&both, options.rows)?;
    let (mut plain, mut distributed) = both.sides()?;
    let mut table = Vec::new();
    for read in &READS {
        let (expected, found) = (plain.run(read.sql)?, distributed.run(read.sql)?);
        ensure!(is_same_answer(&expected, &found), "another answer: {}", read.sql);
        let (mut left, mut right) = (Vec::new(), Vec::new());
        render::while_busy(read.name, || {
            for _ in 0..options.rounds {
                left.push(plain.run(read.sql)?);
                right.push(distributed.run(read.sql)?);
            }
            anyhow::Ok(())
        })?;
        let (left, right) = (median(&left), median(&right));
        let speed = left.zip(right).map(|(left, right)| left / right);
        let Goal { floor, aim } = read.goal;
        table.push(vec![
            read.name.to_owned(),
            shown(left),
            shown(right),
            speed.map_or_else(String::new, |speed| format!("{speed:.2}")),
            format!("{floor:.2}"),
            format!("{aim:.2}"),
            match speed {
                Some(speed) if speed >= aim => "aim reached",
                Some(speed) if speed >= floor => "above floor",
                _ => "below floor",
            }
            .to_owned(),
        ]);
    }
    render::say(&format!(
        "\nOne client, {} events, {SHARDS} shards on 4 workers, medians of {} runs; speed relative to one PostgreSQL",
        options.rows, options.rounds
    ));
    let header = ["read", "one\nPostgreSQL, ms", "distributed, ms", "speed", "floor", "aim", ""];
    render::table(&header, table);

    let mut planning = Vec::new();
    for (name, sql) in PLANNED {
        let mut times = Vec::new();
        for _ in 0..options.rounds {
            let explained = distributed.run(&format!("EXPLAIN (SUMMARY) {sql}"))?;
            let Run::Done(lines, _) = explained else { continue };
            let line = lines.iter().find_map(|line| line.strip_prefix("Planning Time: "));
            let time = line.and_then(|text| text.strip_suffix(" ms")?.parse::<f64>().ok());
            times.push(time.context("EXPLAIN (SUMMARY) tells the time of planning")?);
        }
        let time = super::report::median(times);
        let verdict = if time < PLANNING_LIMIT { "" } else { "over the limit" };
        planning.push(vec![name.to_owned(), format!("{time:.2}"), verdict.to_owned()]);
    }
    render::say(&format!(
        "Planning over {MANY_SHARDS} shards, without the first of a session; the limit is {PLANNING_LIMIT} ms"
    ));
    render::table(&["statement", "planning, ms", ""], planning);
    Ok(())
}

fn load(both: &Both, rows: u64) -> Result<()> {
    if both.has_both("bench_events")? {
        render::say("The tables are there already.");
        return Ok(());
    }
    let (plain, distributed) = (both.plain(), both.distributed());
    let tables = [
        (
            "bench_events",
            "customer int NOT NULL, id bigint NOT NULL, product int NOT NULL, amount int NOT NULL, note text, \
             PRIMARY KEY (customer, id)",
            "customer",
            format!(
                "SELECT i % 100000, i, (i::bigint * 7919 % 20000)::int, i % 1000, 'event number ' || i FROM generate_series(1, {rows}) AS i"
            ),
        ),
        (
            "bench_customers",
            "id int PRIMARY KEY, name text, region int NOT NULL",
            "id",
            "SELECT i, 'customer ' || i, i % 20 FROM generate_series(0, 99999) AS i".to_owned(),
        ),
        (
            "bench_products",
            "id int PRIMARY KEY, name text, category int NOT NULL",
            "id",
            "SELECT i, 'product ' || i, i % 50 FROM generate_series(0, 19999) AS i".to_owned(),
        ),
    ];
    render::while_busy("Filling the tables", || {
        for (name, definition, key, source) in tables {
            let create = format!("CREATE TABLE {name} ({definition})");
            plain.run(&[&create])?;
            distributed.run(&[
                &create,
                &format!("SELECT master_create_distributed_table('{name}', '{key}')"),
                &format!("SELECT master_create_worker_shards('{name}', {SHARDS}, 1)"),
            ])?;
            for side in [&plain, &distributed] {
                side.run(&[&format!("INSERT INTO {name} {source}")])?;
            }
        }
        distributed.run(&[
            "CREATE TABLE bench_wide (k int PRIMARY KEY, v int)",
            "SELECT master_create_distributed_table('bench_wide', 'k')",
            &format!("SELECT master_create_worker_shards('bench_wide', {MANY_SHARDS}, 1)"),
        ])?;
        both.analyze()
    })
}
