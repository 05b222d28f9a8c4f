//! The same tables twice: plain in a database of worker 1, and distributed; and the time of a statement on either side.
//!
//! Runs alternate, so what disturbs the machine disturbs both; figures are medians.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cluster::postgres::error::SqlState;
use cluster::postgres::{Client, Config, NoTls, SimpleQueryMessage};
use cluster::{Cluster, DownOnDrop, NodeName};

use crate::bench::ground::{self, DIRECT_DATABASE, DIRECT_NODE};
use crate::psql::Psql;

/// How long a statement may take before it counts as endless.
const PATIENCE: &str = "120s";

/// A cluster with the two sides.
pub(crate) struct Both {
    cluster: Spooled,
}

/// Ours for this run, or one that somebody keeps.
enum Spooled {
    Ours(DownOnDrop),
    Theirs(Cluster),
}

/// A session on one side.
pub(crate) struct Side {
    client: Client,
}

/// What a statement came to.
#[derive(Clone, Debug)]
pub(crate) enum Run {
    /// Its rows, and how long it took.
    Done(Vec<String>, Duration),
    /// It took longer than anybody waits.
    Endless,
}

impl Both {
    /// A new cluster of this build, or the one in `kept`, which stays.
    pub(crate) fn new(kept: Option<&Path>) -> Result<Self> {
        if let Some(dir) = kept {
            let cluster = Cluster::open(dir)?;
            return Ok(Self { cluster: Spooled::Theirs(cluster) });
        }
        let cluster = ground::bring_up(&[
            ("fsync", "off"),
            ("shared_buffers", "512MB"),
            ("work_mem", "32MB"),
            ("max_wal_size", "8GB"),
        ])?;
        Ok(Self { cluster: Spooled::Ours(cluster) })
    }

    fn cluster(&self) -> &Cluster {
        match &self.cluster {
            Spooled::Ours(cluster) => cluster,
            Spooled::Theirs(cluster) => cluster,
        }
    }

    /// psql for the plain tables.
    pub(crate) fn plain(&self) -> Psql {
        Psql::on(self.cluster(), DIRECT_NODE).in_database(DIRECT_DATABASE)
    }

    /// psql for the distributed ones.
    pub(crate) fn distributed(&self) -> Psql {
        Psql::on(self.cluster(), NodeName::Coordinator)
    }

    /// Makes the database of the plain tables, unless it is there with this table; tells whether it was.
    pub(crate) fn has_both(&self, table: &str) -> Result<bool> {
        let worker = Psql::on(self.cluster(), DIRECT_NODE);
        let is_there = worker.value(&format!(
            "SELECT count(*) FROM pg_database WHERE datname = '{DIRECT_DATABASE}'"
        ))?;
        if is_there == "0" {
            worker.run(&[&format!("CREATE DATABASE {DIRECT_DATABASE}")])?;
        }
        let found = format!("SELECT to_regclass('{table}') IS NOT NULL");
        Ok(self.plain().value(&found)? == "t" && self.distributed().value(&found)? == "t")
    }

    /// Collects statistics on all sides.
    pub(crate) fn analyze(&self) -> Result<()> {
        for worker in self.cluster().workers() {
            Psql::on(self.cluster(), worker).run(&["VACUUM ANALYZE"])?;
        }
        self.plain().run(&["VACUUM ANALYZE"])?;
        self.distributed().run(&["VACUUM ANALYZE"])
    }

    /// A session on the plain tables and one on the distributed ones.
    pub(crate) fn sides(&self) -> Result<(Side, Side)> {
        let side = |node: NodeName, database: &str| {
            let mut config = Config::new();
            config
                .host("127.0.0.1")
                .port(self.cluster().port(node))
                .user("postgres")
                .dbname(database);
            let mut client = config.connect(NoTls).context("cannot connect")?;
            client.batch_execute(&format!("SET statement_timeout = '{PATIENCE}'"))?;
            anyhow::Ok(Side { client })
        };
        Ok((side(DIRECT_NODE, DIRECT_DATABASE)?, side(NodeName::Coordinator, "postgres")?))
    }
}

impl Side {
    /// Runs a statement.
    pub(crate) fn run(&mut self, sql: &str) -> Result<Run> {
        let started = Instant::now();
        match self.client.simple_query(sql) {
            Ok(messages) => {
                let took = started.elapsed();
                let rows = messages.iter().filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some(
                        (0..row.len())
                            .map(|at| row.get(at).unwrap_or("NULL"))
                            .collect::<Vec<_>>()
                            .join("|"),
                    ),
                    _ => None,
                });
                Ok(Run::Done(rows.collect(), took))
            }
            Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => Ok(Run::Endless),
            Err(error) => match error.as_db_error() {
                Some(told) => bail!("{told}\n{sql}"),
                None => Err(error).with_context(|| sql.to_owned()),
            },
        }
    }

    /// The value of a setting, if there is such a setting.
    pub(crate) fn setting(&mut self, name: &str) -> Result<Option<String>> {
        let row = self.client.query_one("SELECT current_setting($1, true)", &[&name])?;
        Ok(row.get(0))
    }
}

impl Run {
    /// Milliseconds, if it came to an end.
    pub(crate) fn millis(&self) -> Option<f64> {
        match self {
            Run::Done(_, took) => Some(took.as_secs_f64() * 1e3),
            Run::Endless => None,
        }
    }
}

/// The median of the runs that came to an end, in milliseconds; none if one did not.
pub(crate) fn median(runs: &[Run]) -> Option<f64> {
    let times: Option<Vec<f64>> = runs.iter().map(Run::millis).collect();
    times.filter(|times| !times.is_empty()).map(super::report::median)
}

/// Whether two answers have the same rows, in any order; fractions may differ by what another order of additions changes.
pub(crate) fn is_same_answer(left: &Run, right: &Run) -> bool {
    let (Run::Done(left, _), Run::Done(right, _)) = (left, right) else { return true };
    let sorted = |rows: &[String]| {
        let mut rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.split('|').map(str::to_owned).collect()).collect();
        rows.sort();
        rows
    };
    let is_same_value = |left: &String, right: &String| {
        left == right
            || match (left.parse::<f64>(), right.parse::<f64>()) {
                (Ok(left), Ok(right)) => (left - right).abs() <= 1e-9 * left.abs(),
                _ => false,
            }
    };
    let (left, right) = (sorted(left), sorted(right));
    left.len() == right.len()
        && left.iter().zip(&right).all(|(left, right)| {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| is_same_value(left, right))
        })
}

/// Milliseconds for a person.
pub(crate) fn shown(millis: Option<f64>) -> String {
    match millis {
        None => format!("over {PATIENCE}"),
        Some(millis) if millis < 100.0 => format!("{millis:.1}"),
        Some(millis) => format!("{millis:.0}"),
    }
}
