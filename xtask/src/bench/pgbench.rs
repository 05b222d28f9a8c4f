//! One run of pgbench, and what it reports.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, NodeName};

use crate::bench::case::{Case, Sessions};
use crate::process;
use crate::psql::postgres_variables;

/// How many sessions send statements, and with how many threads.
pub(crate) const CLIENTS: u32 = 8;
const THREADS: u32 = 2;

/// Where statements are sent.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) node: NodeName,
    pub(crate) database: &'static str,
}

/// Where a run connects to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) port: u16,
    pub(crate) database: &'static str,
}

impl Target {
    /// The node itself, without anything between.
    pub(crate) fn place(&self, cluster: &Cluster) -> Place {
        Place { port: cluster.port(self.node), database: self.database }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) transactions: u64,
    pub(crate) tps: f64,
}

/// Runs the script in `file` against `place` for `seconds`.
pub(crate) fn run(
    cluster: &Cluster,
    place: Place,
    case: Case,
    file: &Path,
    seconds: u32,
) -> Result<Outcome> {
    let program: PathBuf = cluster.bin("pgbench");
    let mut command = Command::new(program);
    for name in postgres_variables() {
        command.env_remove(name);
    }
    command
        .args(["--no-vacuum", "--host=127.0.0.1", "--username=postgres"])
        .arg(format!("--port={}", place.port))
        .arg(format!("--client={CLIENTS}"))
        .arg(format!("--jobs={THREADS}"))
        .arg(format!("--time={seconds}"))
        .arg(format!("--protocol={}", case.protocol.word()))
        .args((case.sessions == Sessions::Cold).then_some("--connect"))
        .arg("--file")
        .arg(file)
        .arg(place.database);
    let report = process::output_of(&mut command)?;
    let outcome = parse(&report)
        .with_context(|| format!("cannot understand the report of pgbench:\n{report}"))?;
    ensure!(outcome.transactions > 0, "pgbench got nothing done:\n{report}");
    Ok(outcome)
}

/// Reads the report of pgbench.
pub(crate) fn parse(report: &str) -> Option<Outcome> {
    let after =
        |label: &str| report.lines().find_map(|line| line.strip_prefix(label)).map(str::trim);
    Some(Outcome {
        transactions: after("number of transactions actually processed:")?
            .split('/')
            .next()?
            .parse()
            .ok()?,
        tps: after("tps = ")?.split_whitespace().next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_pgbench_is_read() {
        let report = "\
pgbench (15.20 (Debian 15.20-0+deb12u1))
transaction type: insert.sql
number of clients: 8
number of transactions actually processed: 41287
number of failed transactions: 0 (0.000%)
latency average = 0.968 ms
initial connection time = 21.334 ms
tps = 8262.513467 (without initial connection time)
";
        assert_eq!(parse(report), Some(Outcome { transactions: 41_287, tps: 8_262.513_467 }));
        assert_eq!(parse("pgbench: error: connection failed"), None);
    }
}
