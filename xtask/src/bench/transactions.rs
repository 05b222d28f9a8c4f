//! `cargo xtask bench transactions`: what reads of one moment cost, and transactions over several nodes.
//!
//! Three pairs of sides: reads over all shards with `pg_shard.read_consistency = local` and `snapshot`, with transfers between
//! accounts beside them or not; statements by key with either setting; transfers inside one PostgreSQL and over nodes.
//! Runs alternate, and commits wait for the disk. The share of a case is the median over its rounds.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, NodeName};

use crate::bench::ground::{self, DIRECT_DATABASE, DIRECT_NODE};
use crate::bench::pgbench::{self, CLIENTS, Target};
use crate::bench::report::median;
use crate::process;
use crate::psql::{Psql, postgres_variables};
use crate::render;

/// How many accounts there are.
const ACCOUNTS: u32 = 10_000;

/// Over how many shards they are spread.
const SHARDS: u32 = 16;

/// Transfers in a second where their rate is given.
const RATE: u32 = 1000;

/// The longest one per cent of reads may take so much longer.
const SLOWER: f64 = 3.0;

const DISTRIBUTED: Target = Target { node: NodeName::Coordinator, database: "postgres" };
const DIRECT: Target = Target { node: DIRECT_NODE, database: DIRECT_DATABASE };

/// What is to be measured, and how.
#[derive(Debug)]
pub(crate) struct Options {
    /// How long a run lasts.
    pub(crate) seconds: u32,
    /// How many runs each side gets.
    pub(crate) rounds: u32,
    /// Only cases with this in their names.
    pub(crate) only: Option<String>,
}

/// What is done meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// Transfers of eight clients, so many in a second.
    Rate(u32),
    /// As many as they can.
    Transfers,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    script: Script,
    clients: u32,
    beside: Beside,
    /// The share that is to be reached.
    floor: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    Sum,
    Select,
    Update,
    Transfer,
}

const CASES: [Case; 7] = [
    Case {
        name: "read",
        script: Script::Sum,
        clients: CLIENTS,
        beside: Beside::Nothing,
        floor: Some(0.9),
    },
    Case {
        name: "read-beside-1000-transfers",
        script: Script::Sum,
        clients: CLIENTS,
        beside: Beside::Rate(RATE),
        floor: Some(0.7),
    },
    Case {
        name: "read-beside-transfers",
        script: Script::Sum,
        clients: CLIENTS,
        beside: Beside::Transfers,
        floor: None,
    },
    Case {
        name: "one-client's-read-beside-1000-transfers",
        script: Script::Sum,
        clients: 1,
        beside: Beside::Rate(RATE),
        floor: None,
    },
    Case {
        name: "select-by-key",
        script: Script::Select,
        clients: CLIENTS,
        beside: Beside::Nothing,
        floor: Some(0.97),
    },
    Case {
        name: "update-by-key",
        script: Script::Update,
        clients: CLIENTS,
        beside: Beside::Nothing,
        floor: Some(0.97),
    },
    Case {
        name: "transfer",
        script: Script::Transfer,
        clients: CLIENTS,
        beside: Beside::Nothing,
        floor: Some(0.35),
    },
];

impl Script {
    fn text(self) -> String {
        let account = |name: &str| format!("\\set {name} random(1, {ACCOUNTS})\n");
        match self {
            Self::Sum => "SELECT sum(balance), count(*) FROM bench_bank;\n".to_owned(),
            Self::Select => account("a") + "SELECT balance FROM bench_bank WHERE id = :a;\n",
            Self::Update => {
                account("a") + "UPDATE bench_bank SET balance = balance + 1 WHERE id = :a;\n"
            }
            // In one order, so that nobody waits for each other.
            Self::Transfer => {
                account("a")
                    + &account("b")
                    + "\\set low least(:a, :b)\n\\set high greatest(:a, :b)\n\
                       BEGIN;\n\
                       UPDATE bench_bank SET balance = balance - 1 WHERE id = :low;\n\
                       UPDATE bench_bank SET balance = balance + 1 WHERE id = :high;\n\
                       COMMIT;\n"
            }
        }
    }

    fn file(self, dir: &Path) -> PathBuf {
        dir.join(format!("{self:?}.sql"))
    }
}

/// A run of a side.
#[derive(Clone, Copy, Debug)]
struct Run {
    per_second: f64,
    /// Milliseconds within which 99 of 100 were done.
    p99: f64,
}

/// Brings up a cluster, measures, and takes it down.
pub(crate) fn run(options: &Options) -> Result<()> {
    let cases = ground::chosen(&CASES, options.only.as_deref(), |case| case.name.to_owned())?;
    let cluster = ground::bring_up(&[])?;
    let dir = ground::dir().join("scripts");
    fs::create_dir_all(&dir).context("cannot make a directory for the scripts of pgbench")?;
    for script in [Script::Sum, Script::Select, Script::Update, Script::Transfer] {
        fs::write(script.file(&dir), script.text()).context("cannot write a script for pgbench")?;
    }
    fill(&cluster)?;
    let mut table = Vec::new();
    for case in &cases {
        let mut runs = [Vec::new(), Vec::new()];
        for round in 1..=options.rounds {
            let what = format!("{}: round {round} of {}", case.name, options.rounds);
            render::while_busy(&what, || {
                for (side, runs) in runs.iter_mut().enumerate() {
                    runs.push(measure(&cluster, case, side, &dir, options.seconds)?);
                }
                anyhow::Ok(())
            })?;
        }
        table.push(line(case, &runs));
        render::say(&table[table.len() - 1].join("  "));
    }
    fs::remove_dir_all(&dir).context("cannot remove the scripts for pgbench")?;
    render::say(&format!(
        "\n{CLIENTS} clients, {ACCOUNTS} accounts, {SHARDS} shards on 4 workers, medians of {} runs. The sides are local and snapshot \
         reads; of transfers, one PostgreSQL and the cluster",
        options.rounds
    ));
    let header =
        ["case", "one\nside", "other", "share", "floor", "p99, ms", "p99, ms", "ratio", ""];
    render::table(&header, table);
    Ok(())
}

fn fill(cluster: &Cluster) -> Result<()> {
    let worker = Psql::on(cluster, DIRECT_NODE);
    worker.run(&[&format!("CREATE DATABASE {DIRECT_DATABASE}")])?;
    let create =
        "CREATE TABLE bench_bank (id int PRIMARY KEY, balance int NOT NULL) WITH (fillfactor = 50)";
    let distribute = format!("SELECT create_distributed_table('bench_bank', 'id', {SHARDS}, 1)");
    let insert =
        format!("INSERT INTO bench_bank SELECT i, 1000 FROM generate_series(1, {ACCOUNTS}) AS i");
    worker.in_database(DIRECT_DATABASE).run(&[create, &insert])?;
    Psql::on(cluster, DISTRIBUTED.node).run(&[create, &distribute, &insert])?;
    for node in cluster.nodes() {
        Psql::on(cluster, node).run(&["VACUUM ANALYZE"])?;
    }
    Ok(())
}

fn measure(cluster: &Cluster, case: &Case, side: usize, dir: &Path, seconds: u32) -> Result<Run> {
    for node in cluster.nodes() {
        // So that none falls into the run.
        Psql::on(cluster, node).run(&["CHECKPOINT"])?;
    }
    let (target, consistency) = match (case.script, side) {
        (Script::Transfer, 0) => (DIRECT, "local"),
        (Script::Transfer, _) | (_, 1) => (DISTRIBUTED, "snapshot"),
        (..) => (DISTRIBUTED, "local"),
    };
    let transfers = match case.beside {
        Beside::Nothing => None,
        beside => Some(begin_transfers(cluster, beside, dir, seconds + 2)?),
    };
    if transfers.is_some() {
        // Until their sessions are open.
        thread::sleep(std::time::Duration::from_secs(1));
    }
    let log = dir.join("latencies");
    let mut command = pgbench_on(cluster, &target, case.clients, &case.script.file(dir), seconds);
    command
        .arg("--log")
        .arg(format!("--log-prefix={}", log.display()))
        .env("PGOPTIONS", format!("-c pg_shard.read_consistency={consistency}"));
    let report = process::output_of(&mut command)?;
    if let Some(mut transfers) = transfers {
        transfers.wait().context("cannot wait for pgbench")?;
    }
    let outcome = pgbench::parse(&report)
        .with_context(|| format!("cannot understand the report of pgbench:\n{report}"))?;
    ensure!(outcome.transactions > 0, "pgbench got nothing done:\n{report}");
    Ok(Run { per_second: outcome.tps, p99: p99(dir)? })
}

fn pgbench_on(
    cluster: &Cluster,
    target: &Target,
    clients: u32,
    file: &Path,
    seconds: u32,
) -> Command {
    let mut command = Command::new(cluster.bin("pgbench"));
    for name in postgres_variables() {
        command.env_remove(name);
    }
    command
        .args(["--no-vacuum", "--host=127.0.0.1", "--username=postgres", "--protocol=prepared"])
        .arg(format!("--port={}", cluster.port(target.node)))
        .arg(format!("--client={clients}"))
        .arg(format!("--jobs={}", clients.min(2)))
        .arg(format!("--time={seconds}"))
        .arg("--file")
        .arg(file)
        .arg(target.database);
    command
}

fn begin_transfers(cluster: &Cluster, beside: Beside, dir: &Path, seconds: u32) -> Result<Child> {
    let mut command =
        pgbench_on(cluster, &DISTRIBUTED, CLIENTS, &Script::Transfer.file(dir), seconds);
    if let Beside::Rate(rate) = beside {
        command.arg(format!("--rate={rate}"));
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot run pgbench")
}

/// Reads pgbench's logs, whose third column is microseconds, and removes them.
fn p99(dir: &Path) -> Result<f64> {
    let mut latencies: Vec<f64> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("latencies") {
            let text = fs::read_to_string(&path)?;
            latencies.extend(
                text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok()),
            );
            fs::remove_file(&path)?;
        }
    }
    ensure!(!latencies.is_empty(), "pgbench has logged nothing");
    latencies.sort_by(f64::total_cmp);
    Ok(latencies[(latencies.len() - 1) * 99 / 100] / 1000.0)
}

fn line(case: &Case, [one, other]: &[Vec<Run>; 2]) -> Vec<String> {
    let speed = |runs: &[Run]| median(runs.iter().map(|run| run.per_second).collect());
    let late = |runs: &[Run]| median(runs.iter().map(|run| run.p99).collect());
    let share = speed(other) / speed(one);
    let slower = late(other) / late(one);
    let is_read = case.script == Script::Sum;
    let verdict = match case.floor {
        None => "",
        Some(floor) if share < floor => "below floor",
        Some(_) if is_read && slower > SLOWER => "p99 too late",
        Some(_) => "above floor",
    };
    vec![
        case.name.to_owned(),
        format!("{:.0}", speed(one)),
        format!("{:.0}", speed(other)),
        format!("{share:.2}"),
        case.floor.map_or_else(String::new, |floor| format!("{floor:.2}")),
        format!("{:.1}", late(one)),
        format!("{:.1}", late(other)),
        format!("{slower:.1}"),
        verdict.to_owned(),
    ]
}
