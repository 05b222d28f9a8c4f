//! `cargo xtask bench copy`: many rows at once, into one plain table and into shards.
//!
//! One client, psql, on both sides; the rows are those of the demo, with an index on the distribution column. Sides
//! alternate, tables are emptied and servers make a checkpoint before each run. What counts is the ratio of the rows per
//! second, and how much of the servers' CPU time the coordinator takes.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cluster::{Cluster, NodeName};
use serde::Serialize;

use crate::bench::cpu::CpuMeter;
use crate::bench::ground::{self, DIRECT_DATABASE, DIRECT_NODE};
use crate::bench::report::median;
use crate::demo;
use crate::psql::Psql;
use crate::render;
use crate::reviews::Reviews;

/// How many shards.
const SHARDS: u16 = 16;

/// Rows of one INSERT.
const ROWS_OF_INSERT: usize = 1000;

/// How many such INSERTs a run has.
const INSERTS: usize = 100;

/// Where the reviews start.
const SEED: u64 = 42;

/// What is to be measured, and how.
#[derive(Debug)]
pub(crate) struct Options {
    /// How many rows a COPY has.
    pub(crate) rows: u64,
    /// How many runs each side of a case gets.
    pub(crate) rounds: u32,
    /// Only cases with this in their names.
    pub(crate) only: Option<String>,
    /// Where the figures go, for programs to read.
    pub(crate) json: Option<PathBuf>,
}

/// How the rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// COPY FROM STDIN.
    Copy,
    /// INSERT with a thousand rows in its VALUES.
    Insert,
    /// INSERT ... SELECT from a table that lies together with the target.
    InsertSelect,
}

/// One line of the result.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    way: Way,
    placements: u8,
    floor: f64,
    aim: f64,
}

const CASES: [Case; 4] = [
    Case { name: "copy", way: Way::Copy, placements: 1, floor: 1.1, aim: 1.2 },
    Case { name: "copy-2-placements", way: Way::Copy, placements: 2, floor: 0.6, aim: 0.6 },
    Case { name: "insert-1000-rows", way: Way::Insert, placements: 1, floor: 0.6, aim: 0.8 },
    Case { name: "insert-select", way: Way::InsertSelect, placements: 1, floor: 2.0, aim: 2.6 },
];

/// One run of one side.
#[derive(Clone, Copy, Debug)]
struct Round {
    rows_per_second: f64,
    coordinator_cpu: Duration,
    worker_cpu: Duration,
}

/// What the runs of a case come to.
#[derive(Debug, Serialize)]
struct Summary {
    name: &'static str,
    direct_rows_per_second: f64,
    sharded_rows_per_second: f64,
    ratio: f64,
    floor: f64,
    aim: f64,
    direct_cpu_seconds: f64,
    coordinator_cpu_seconds: f64,
    worker_cpu_seconds: f64,
    coordinator_share: f64,
}

/// Builds, brings up a cluster, measures, and takes the cluster down.
pub(crate) fn run(options: &Options) -> Result<()> {
    let cases = ground::chosen(&CASES, options.only.as_deref(), |case| case.name.to_owned())?;
    let cluster = ground::bring_up(&[("max_wal_size", "8GB")])?;

    let bench = Bulk::prepare(&cluster, options, &ground::dir())?;
    let summaries = cases.iter().map(|case| bench.measure(*case)).collect::<Result<Vec<_>>>();
    fs::remove_file(&bench.reviews).context("cannot remove the reviews")?;
    fs::remove_file(&bench.inserts).context("cannot remove the INSERTs")?;
    let summaries = summaries?;
    render::say(&format!(
        "\n{} rows a COPY, {INSERTS} INSERTs of {ROWS_OF_INSERT} rows, median of {} rounds; CPU of the client backends",
        options.rows, options.rounds
    ));
    render::table(&HEADER, summaries.iter().map(Summary::row).collect());
    ground::write_json(options.json.as_deref(), &summaries)
}

/// A cluster that is being measured.
struct Bulk<'a> {
    cluster: &'a Cluster,
    options: &'a Options,
    direct: Psql,
    sharded: Psql,
    /// The rows, as COPY wants them.
    reviews: PathBuf,
    /// The INSERTs.
    inserts: PathBuf,
}

impl<'a> Bulk<'a> {
    /// Makes the tables of both sides, and the files.
    fn prepare(cluster: &'a Cluster, options: &'a Options, dir: &Path) -> Result<Self> {
        let worker = Psql::on(cluster, DIRECT_NODE);
        worker.run(&[&format!("CREATE DATABASE {DIRECT_DATABASE}")])?;
        let bench = Self {
            cluster,
            options,
            direct: worker.in_database(DIRECT_DATABASE),
            sharded: Psql::on(cluster, NodeName::Coordinator),
            reviews: dir.join("reviews.copy"),
            inserts: dir.join("inserts.sql"),
        };
        render::while_busy("Making tables and rows", || {
            for (table, placements) in [("reviews", 1), ("reviews_twice", 2), ("target", 1)] {
                let create = demo::CREATE_TABLE.replace("customer_reviews", table);
                let index = format!("CREATE INDEX ON {table} (customer_id)");
                bench.direct.run(&[&create, &index])?;
                bench.sharded.run(&[
                    &create,
                    &index,
                    &format!("SELECT master_create_distributed_table('{table}', 'customer_id')"),
                    &format!(
                        "SELECT master_create_worker_shards('{table}', {SHARDS}, {placements})"
                    ),
                ])?;
            }
            bench.write_reviews().context("cannot write the reviews")?;
            bench.write_inserts().context("cannot write the INSERTs")
        })?;
        Ok(bench)
    }

    fn write_reviews(&self) -> Result<()> {
        let mut file = BufWriter::new(File::create(&self.reviews)?);
        for review in Reviews::new(SEED).take(usize::try_from(self.options.rows)?) {
            writeln!(file, "{review}")?;
        }
        Ok(file.flush()?)
    }

    fn write_inserts(&self) -> Result<()> {
        let mut file = BufWriter::new(File::create(&self.inserts)?);
        let mut reviews = Reviews::new(SEED);
        for _ in 0..INSERTS {
            let rows: Vec<String> = reviews
                .by_ref()
                .take(ROWS_OF_INSERT)
                .map(|review| {
                    let line = review.to_string().replace('\'', "''");
                    format!("('{}')", line.replace('\t', "','"))
                })
                .collect();
            writeln!(file, "INSERT INTO reviews VALUES {};", rows.join(","))?;
        }
        Ok(file.flush()?)
    }

    /// All rounds of one case.
    fn measure(&self, case: Case) -> Result<Summary> {
        if case.way == Way::InsertSelect {
            for side in [&self.direct, &self.sharded] {
                side.run(&["TRUNCATE reviews"])?;
                side.copy_file("reviews", &self.reviews)?;
            }
        }
        let (mut direct, mut sharded) = (Vec::new(), Vec::new());
        for round in 1..=self.options.rounds {
            let what = format!("{}: round {round} of {}", case.name, self.options.rounds);
            render::while_busy(&what, || {
                direct.push(self.round(case, &self.direct)?);
                sharded.push(self.round(case, &self.sharded)?);
                anyhow::Ok(())
            })?;
        }
        let summary = Summary::new(case, &direct, &sharded);
        render::say(&format!("{}: ratio {:.2}", summary.name, summary.ratio));
        Ok(summary)
    }

    /// One run of one side.
    fn round(&self, case: Case, side: &Psql) -> Result<Round> {
        let table = match (case.way, case.placements) {
            (Way::InsertSelect, _) => "target",
            (_, 1) => "reviews",
            _ => "reviews_twice",
        };
        side.run(&[&format!("TRUNCATE {table}")])?;
        for node in self.cluster.nodes() {
            Psql::on(self.cluster, node).run(&["CHECKPOINT"])?;
        }
        let coordinator = CpuMeter::of(self.cluster, &[NodeName::Coordinator])?;
        let workers = CpuMeter::of(self.cluster, &self.cluster.workers())?;
        let earlier = [coordinator.backends()?, workers.backends()?].concat();
        let before = (coordinator.read()?, workers.read()?);
        let started = Instant::now();
        match case.way {
            Way::Copy => side.copy_file(table, &self.reviews)?,
            Way::Insert => side.run_script(&self.inserts)?,
            Way::InsertSelect => side.run(&["INSERT INTO target SELECT * FROM reviews"])?,
        }
        let took = started.elapsed();
        for meter in [&coordinator, &workers] {
            meter.wait_for_the_others_to_end(&earlier)?;
        }
        let cpu = (coordinator.read()?, workers.read()?);
        let rows: f64 = side.value(&format!("SELECT count(*) FROM {table}"))?.parse()?;
        Ok(Round {
            rows_per_second: rows / took.as_secs_f64(),
            coordinator_cpu: cpu.0.saturating_sub(before.0),
            worker_cpu: cpu.1.saturating_sub(before.1),
        })
    }
}

/// The columns of the table.
const HEADER: [&str; 9] = [
    "case",
    "direct\nrows/s",
    "sharded\nrows/s",
    "ratio",
    "floor",
    "aim",
    "CPU s\ndirect",
    "CPU s\nsharded",
    "coordinator's\nshare",
];

impl Summary {
    fn new(case: Case, direct: &[Round], sharded: &[Round]) -> Self {
        let of = |rounds: &[Round], figure: fn(&Round) -> f64| {
            median(rounds.iter().map(figure).collect())
        };
        let coordinator = of(sharded, |round| round.coordinator_cpu.as_secs_f64());
        let workers = of(sharded, |round| round.worker_cpu.as_secs_f64());
        let direct_speed = of(direct, |round| round.rows_per_second);
        let sharded_speed = of(sharded, |round| round.rows_per_second);
        Self {
            name: case.name,
            direct_rows_per_second: direct_speed,
            sharded_rows_per_second: sharded_speed,
            ratio: sharded_speed / direct_speed,
            floor: case.floor,
            aim: case.aim,
            direct_cpu_seconds: of(direct, |round| round.worker_cpu.as_secs_f64()),
            coordinator_cpu_seconds: coordinator,
            worker_cpu_seconds: workers,
            coordinator_share: coordinator / (coordinator + workers),
        }
    }

    fn row(&self) -> Vec<String> {
        let verdict = match self.ratio {
            ratio if ratio >= self.aim => "(aim reached)",
            ratio if ratio >= self.floor => "(above floor)",
            _ => "(below floor)",
        };
        vec![
            self.name.to_owned(),
            format!("{:.0}", self.direct_rows_per_second),
            format!("{:.0}", self.sharded_rows_per_second),
            format!("{:.2} {verdict}", self.ratio),
            format!("{:.1}", self.floor),
            format!("{:.1}", self.aim),
            format!("{:.1}", self.direct_cpu_seconds),
            format!("{:.1}", self.coordinator_cpu_seconds + self.worker_cpu_seconds),
            format!("{:.0} %", self.coordinator_share * 100.0),
        ]
    }
}
