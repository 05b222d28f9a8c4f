//! `cargo xtask regress`: PostgreSQL's own regression tests over distributed tables.
//!
//! Each file is played twice on the coordinator of a cluster, once on local tables and once with every table distributed
//! as soon as rows are asked of it, and the answers are compared. PostgreSQL itself says what is right: its expected
//! outputs are not looked at.

/// Comparing answers.
mod compare;

/// Isolation tests.
mod isolation;

/// What a statement asks of the runner.
mod kind;

/// Playing a file.
mod play;

/// What has been found.
mod report;

/// Cutting a file into units.
mod script;

/// PostgreSQL's source.
mod source;

/// The database.
mod stage;

/// psql.
mod terminal;

use std::path::PathBuf;
use std::{env, fs, process};

use anyhow::{Context, Result};
use cluster::{Cluster, ClusterSpec, free_ports};

use crate::workspace::Workspace;
use crate::{extension, render, setup};
use play::{Nullable, Player};
use report::Played;
use script::{Unit, units};
use source::Source;
use stage::Tables;

/// What is played unless something else is named: regression tests, then isolation tests.
const FILES: [&str; 24] = [
    "rules",
    "with",
    "join",
    "updatable_views",
    "generated",
    "insert_conflict",
    "update",
    "arrays",
    "portals",
    "limit",
    "nowait",
    "nowait-2",
    "skip-locked",
    "skip-locked-2",
    "skip-locked-3",
    "insert-conflict-do-nothing",
    "insert-conflict-do-update",
    "lock-update-delete",
    "lock-update-traversal",
    "merge-update",
    "merge-match-recheck",
    "update-locked-tuple",
    "simple-write-skew",
    "read-only-anomaly",
];

/// How many workers there are.
const WORKERS: u16 = 2;

/// What is to be played.
#[derive(Debug)]
pub(crate) struct Options {
    /// Files by name; none means [`FILES`].
    pub(crate) files: Vec<String>,
    /// PostgreSQL's source, if it need not be fetched.
    pub(crate) source: Option<PathBuf>,
    /// Where the differences go.
    pub(crate) details: Option<PathBuf>,
}

/// Plays, compares, reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    let source = Source::find(options.source.as_deref())?;
    let files: Vec<String> = match options.files.as_slice() {
        [] => FILES.iter().map(|name| (*name).to_owned()).collect(),
        files => files.to_vec(),
    };
    let setup_units = read(&source, "test_setup")?;
    let tests: Vec<Test> =
        files.iter().map(|name| Test::find(&source, name)).collect::<Result<_>>()?;

    let postgres = setup::ensure()?;
    let artifacts =
        extension::build(&Workspace::find()?, &postgres, extension::Profile::Release)?.artifacts();
    let dir = env::temp_dir().join(format!("pg_shard-regress-{}", process::id()));
    let spec = ClusterSpec::new(&dir, WORKERS, free_ports(WORKERS)?)
        .set("fsync", "off")
        .set("pg_shard.autoanalyze_naptime", "0");
    let cluster = render::while_busy("Starting a coordinator and two workers", || {
        Cluster::up_from(&spec, &artifacts)
    })?
    .down_on_drop();

    let tester = postgres.isolation_tester()?;
    let mut all = Vec::new();
    for (name, test) in files.iter().zip(&tests) {
        let played = render::while_busy(name, || match test {
            Test::Regression(script) => play(&cluster, &source, name, &setup_units, script),
            Test::Isolation => isolation::play(&cluster, &source, &tester, name),
        })?;
        all.push(played);
    }
    report(options, &all)
}

/// A test of PostgreSQL.
enum Test {
    /// A file of SQL, as units.
    Regression(Vec<Unit>),
    /// A specification for `isolationtester`.
    Isolation,
}

impl Test {
    /// The test of that name.
    fn find(source: &Source, name: &str) -> Result<Self> {
        if source.specification(name).exists() && !source.script(name).exists() {
            Ok(Self::Isolation)
        } else {
            read(source, name).map(Self::Regression)
        }
    }
}

/// The units of a file.
fn read(source: &Source, name: &str) -> Result<Vec<Unit>> {
    let path = source.script(name);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(units(&String::from_utf8_lossy(&text)))
}

/// Plays a file on both sides.
fn play(
    cluster: &Cluster,
    source: &Source,
    name: &str,
    setup_units: &[Unit],
    script: &[Unit],
) -> Result<Played> {
    let mut local = Player::new(cluster, source, Tables::Local, Nullable::new())?;
    local.play(setup_units)?;
    let expected = local.play(script)?;
    let nullable = std::mem::take(&mut local.nullable);
    drop(local);
    let mut distributed = Player::new(cluster, source, Tables::Distributed, nullable)?;
    distributed.play(setup_units)?;
    let found = distributed.play(script)?;
    let units = script.iter().zip(expected).zip(found).map(|((unit, expected), found)| {
        let verdict = compare::compare(unit, &expected, &found);
        (unit.clone(), expected, found, verdict)
    });
    Ok(Played {
        name: name.to_owned(),
        units: units.collect(),
        left_local: distributed.left_local()?,
    })
}

/// Prints the summary and writes the differences.
fn report(options: &Options, all: &[Played]) -> Result<()> {
    let details =
        options.details.clone().unwrap_or_else(|| env::temp_dir().join("pg_shard-regress.txt"));
    let text: String = all.iter().map(Played::details).collect();
    fs::write(&details, text).with_context(|| format!("cannot write {}", details.display()))?;
    let header = ["file", "units", "equal", "other order", "plans", "differ", "refused"];
    render::table(&header, all.iter().map(Played::summary).collect());
    let reasons = all.iter().flat_map(|played| {
        let row =
            |(count, reason): (usize, String)| vec![played.name.clone(), count.to_string(), reason];
        played.reasons().into_iter().map(row)
    });
    render::table(&["file", "units", "why they differ"], reasons.collect());
    render::say(&format!("All differences: {}", details.display()));
    Ok(())
}
