//! `cargo xtask bench queue`: 1, 4 and 16 consumers of a job queue, on one PostgreSQL and through the coordinator.
//!
//! Each transaction claims the first job of the order, with FOR UPDATE SKIP LOCKED and LIMIT in a sub-query of UPDATE. Runs
//! alternate, each with a fresh queue; the figure of a side is the median of its rounds.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, NodeName};

use crate::bench::ground::{self, DIRECT_DATABASE, DIRECT_NODE};
use crate::bench::pgbench::{self, Target};
use crate::bench::report::median;
use crate::process;
use crate::psql::{Psql, postgres_variables};
use crate::render;

/// How many consumers there are.
const CONSUMERS: [u32; 3] = [1, 4, 16];

/// Over how many shards the queue is spread.
const SHARDS: u32 = 16;

/// Jobs at the beginning of a run.
const JOBS: u32 = 100_000;

/// The speed relative to one PostgreSQL that is to be reached.
const FLOOR: f64 = 0.5;

const CREATE: &str = "CREATE TABLE bench_queue (id int PRIMARY KEY, state text, prio int); \
                      CREATE INDEX ON bench_queue (prio, id) WHERE state = 'new'";

const CLAIM: &str = "UPDATE bench_queue SET state = 'done' WHERE id IN \
                     (SELECT id FROM bench_queue WHERE state = 'new' ORDER BY prio, id LIMIT 1 FOR UPDATE SKIP LOCKED);\n";

/// What is to be measured, and how.
#[derive(Debug)]
pub(crate) struct Options {
    /// How long a run lasts.
    pub(crate) seconds: u32,
    /// How many runs each side gets.
    pub(crate) rounds: u32,
}

/// Brings up a cluster, measures, and takes it down.
pub(crate) fn run(options: &Options) -> Result<()> {
    let cluster = ground::bring_up(&[])?;
    let script = ground::dir().join("claim.sql");
    fs::write(&script, CLAIM).context("cannot write the script for pgbench")?;
    let worker = Psql::on(&cluster, DIRECT_NODE);
    worker.run(&[&format!("CREATE DATABASE {DIRECT_DATABASE}")])?;
    let direct = worker.in_database(DIRECT_DATABASE);
    direct.run(&[CREATE])?;
    let distributed = Psql::on(&cluster, NodeName::Coordinator);
    let distribute = format!("SELECT create_distributed_table('bench_queue', 'id', {SHARDS}, 1)");
    distributed.run(&[CREATE, &distribute])?;
    let sides = [
        (&direct, Target { node: DIRECT_NODE, database: DIRECT_DATABASE }),
        (&distributed, Target { node: NodeName::Coordinator, database: "postgres" }),
    ];
    let mut table = Vec::new();
    for consumers in CONSUMERS {
        let mut speeds = [Vec::new(), Vec::new()];
        render::while_busy(&format!("{consumers} consumers"), || {
            for _ in 0..options.rounds {
                for ((side, target), speeds) in sides.iter().zip(&mut speeds) {
                    side.run(&[
                        "TRUNCATE bench_queue",
                        &format!("INSERT INTO bench_queue SELECT g, 'new', g % 5 FROM generate_series(1, {JOBS}) AS g"),
                        "ANALYZE bench_queue",
                    ])?;
                    speeds.push(claims(&cluster, target, consumers, &script, options.seconds)?);
                }
            }
            anyhow::Ok(())
        })?;
        let [plain, ours] = speeds.map(median);
        let speed = ours / plain;
        let verdict = if speed >= FLOOR { "above floor" } else { "below floor" };
        table.push(vec![
            consumers.to_string(),
            format!("{plain:.0}"),
            format!("{ours:.0}"),
            format!("{speed:.2}"),
            format!("{FLOOR:.2}"),
            verdict.to_owned(),
        ]);
    }
    render::say(&format!(
        "\nJobs claimed per second, {JOBS} jobs, {SHARDS} shards on 4 workers, medians of {} runs; speed relative to one PostgreSQL",
        options.rounds
    ));
    let header = ["consumers", "one\nPostgreSQL", "distributed", "speed", "floor", ""];
    render::table(&header, table);
    Ok(())
}

/// How many jobs are claimed in a second.
fn claims(
    cluster: &Cluster,
    target: &Target,
    consumers: u32,
    script: &Path,
    seconds: u32,
) -> Result<f64> {
    let mut command = Command::new(cluster.bin("pgbench"));
    for name in postgres_variables() {
        command.env_remove(name);
    }
    command
        .args(["--no-vacuum", "--host=127.0.0.1", "--username=postgres"])
        .arg(format!("--port={}", cluster.port(target.node)))
        .arg(format!("--client={consumers}"))
        .arg(format!("--jobs={}", consumers.min(2)))
        .arg(format!("--time={seconds}"))
        .arg("--file")
        .arg(script)
        .arg(target.database);
    let report = process::output_of(&mut command)?;
    let outcome = pgbench::parse(&report)
        .with_context(|| format!("cannot understand the report of pgbench:\n{report}"))?;
    ensure!(outcome.transactions > 0, "pgbench got nothing done:\n{report}");
    Ok(outcome.tps)
}
