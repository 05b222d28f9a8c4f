//! `cargo xtask bench`: one statement by key, straight to one PostgreSQL and through the coordinator.
//!
//! Both sides run on the same machine in the same minutes: a plain table on worker 1, in a database of its own, and the
//! same table in 16 shards on four workers. A third side is a forwarder that knows nothing, in front of such plain tables on
//! all workers: what a hop costs at the least. Runs alternate, and the figure of a side is the median of its rounds, so
//! what disturbs the machine disturbs all. Beside throughput we take the CPU time per statement of the backends that
//! did the work, which says where it goes.
//!
//! Settings are those of the cluster library with two exceptions: autovacuum is off, so that it does not fall into one
//! side's run, and on request commits do not wait for the disk.

/// The same tables plain and distributed.
mod both;

/// COPY, INSERT of many rows, INSERT ... SELECT.
pub(crate) mod bulk;

/// What is measured.
mod case;

/// CPU time of backends.
mod cpu;

/// What a hop costs at the least.
pub(crate) mod forwarder;

/// The cluster that is measured.
mod ground;

/// What is to be measured.
mod options;

/// Runs of pgbench.
mod pgbench;

/// Consumers of a job queue.
pub(crate) mod queue;

/// Reads over all shards.
pub(crate) mod reads;

/// Figures of all rounds, and what they come to.
mod report;

/// TPC-H.
pub(crate) mod tpch;

/// Transactions over several nodes, and reads beside them.
pub(crate) mod transactions;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cluster::{Cluster, NodeName};

use crate::bench::case::{ACCOUNTS, CASES, Case, OTHER_SHARDS, Placements, SHARDS, accounts_over};
use crate::bench::cpu::CpuMeter;
use crate::bench::forwarder::Forwarder;
use crate::bench::ground::{DIRECT_DATABASE, DIRECT_NODE};
pub(crate) use crate::bench::options::Options;
use crate::bench::pgbench::{Place, Target};
use crate::bench::report::{Measurement, Report, Round};
use crate::demo;
use crate::psql::Psql;
use crate::render;

/// Where statements go on either side.
const DIRECT: Target = Target { node: DIRECT_NODE, database: DIRECT_DATABASE };
const DISTRIBUTED: Target = Target { node: NodeName::Coordinator, database: "postgres" };

/// Builds, brings up a cluster, measures, and takes the cluster down.
pub(crate) fn run(options: &Options) -> Result<()> {
    let cases = ground::chosen(&CASES, options.only.as_deref(), ToString::to_string)?;
    let settings: &[(&str, &str)] =
        if options.synchronous_commit { &[] } else { &[("synchronous_commit", "off")] };
    let cluster = ground::bring_up(settings)?;
    let scripts = ground::dir().join("scripts");

    let forwarder = Forwarder::start(
        cluster.workers().into_iter().map(|worker| cluster.port(worker)).collect(),
    )?;

    let bench = Bench { cluster: &cluster, options, cases: &cases, scripts, forwarder };
    bench.prepare()?;
    let measurements =
        cases.iter().map(|case| bench.measure(*case)).collect::<Result<Vec<Measurement>>>();
    fs::remove_dir_all(&bench.scripts).context("cannot remove the scripts for pgbench")?;
    let report = Report::new(options, measurements?);
    render::say(&format!("\n{}", report.title()));
    render::table(&report::HEADER, report.rows());
    ground::write_json(options.json.as_deref(), &report)
}

/// A cluster that is being measured.
struct Bench<'a> {
    cluster: &'a Cluster,
    options: &'a Options,
    cases: &'a [Case],
    scripts: PathBuf,
    forwarder: Forwarder,
}

impl Bench<'_> {
    /// Makes and fills the tables of both sides.
    fn prepare(&self) -> Result<()> {
        fs::create_dir_all(&self.scripts)
            .context("cannot make a directory for the scripts of pgbench")?;
        let mut plain = Vec::new();
        for worker in self.cluster.workers() {
            let worker = Psql::on(self.cluster, worker);
            worker.run(&[&format!("CREATE DATABASE {DIRECT_DATABASE}")])?;
            plain.push(worker.in_database(DIRECT_DATABASE));
        }
        let distributed = Psql::on(self.cluster, DISTRIBUTED.node);

        render::while_busy("Filling the tables", || {
            let fill = |table: &str, create: &str, column: &str, shards: u16, copies: u8| {
                for side in plain.iter().chain([&distributed]) {
                    side.run(&[create])?;
                }
                distributed.run(&[
                    &format!("SELECT master_create_distributed_table('{table}', '{column}')"),
                    &format!("SELECT master_create_worker_shards('{table}', {shards}, {copies})"),
                ])
            };
            let fill_accounts = |table: &str, shards: u16, copies: u8| {
                let create = format!(
                    "CREATE TABLE {table} (aid bigint PRIMARY KEY, bid int, abalance int, filler char(84))"
                );
                fill(table, &create, "aid", shards, copies)?;
                for side in plain.iter().chain([&distributed]) {
                    let rows = (1..=ACCOUNTS).map(|aid| format!("{aid}\t{}\t0\t", aid % 100));
                    side.copy(table, rows, |_| {})?;
                }
                anyhow::Ok(())
            };
            for placements in [Placements::One, Placements::Two] {
                let reviews = placements.reviews_table();
                let create = demo::CREATE_TABLE.replace("customer_reviews", reviews);
                fill(reviews, &create, "customer_id", SHARDS, placements.count())?;
                fill_accounts(placements.accounts_table(), SHARDS, placements.count())?;
            }
            for shards in OTHER_SHARDS {
                if self.cases.iter().any(|case| case.shards == shards) {
                    fill_accounts(&accounts_over(shards), shards, 1)?;
                }
            }
            self.cluster.workers().into_iter().try_for_each(|worker| {
                let all = Psql::on(self.cluster, worker);
                all.run(&["ANALYZE"])
            })?;
            plain.iter().try_for_each(|side| side.run(&["ANALYZE"]))
        })
    }

    /// All rounds of one case.
    fn measure(&self, case: Case) -> Result<Measurement> {
        let file = self.scripts.join(format!("{case}.sql"));
        fs::write(&file, case.script())
            .with_context(|| format!("cannot write {}", file.display()))?;
        let mut measurement = Measurement::new(case);
        for round in 1..=self.options.rounds {
            let what = format!("{case}: round {round} of {}", self.options.rounds);
            render::while_busy(&what, || {
                let (direct, distributed) =
                    (DIRECT.place(self.cluster), DISTRIBUTED.place(self.cluster));
                measurement.direct.push(self.round(case, direct, &file)?);
                if case.is_forwarded() {
                    let place = Place { port: self.forwarder.port(), ..direct };
                    measurement.forwarded.push(self.round(case, place, &file)?);
                }
                measurement.distributed.push(self.round(case, distributed, &file)?);
                anyhow::Ok(())
            })?;
        }
        render::say(&measurement.line());
        Ok(measurement)
    }

    /// One run of one side.
    fn round(&self, case: Case, place: Place, file: &Path) -> Result<Round> {
        let coordinator = CpuMeter::of(self.cluster, &[NodeName::Coordinator])?;
        let workers = CpuMeter::of(self.cluster, &self.cluster.workers())?;
        if case.statement.is_write() {
            // So that none falls into the run.
            for node in self.cluster.nodes() {
                Psql::on(self.cluster, node).run(&["CHECKPOINT"])?;
            }
        }
        let earlier = [coordinator.backends()?, workers.backends()?].concat();
        let before = (coordinator.read()?, workers.read()?);
        let outcome = pgbench::run(self.cluster, place, case, file, self.options.seconds)?;
        for meter in [&coordinator, &workers] {
            meter.wait_for_the_others_to_end(&earlier)?;
        }
        Ok(Round {
            tps: outcome.tps,
            statements: outcome.transactions,
            coordinator_cpu: coordinator.read()?.saturating_sub(before.0),
            worker_cpu: workers.read()?.saturating_sub(before.1),
        })
    }
}
