//! `cargo xtask core`: a core of the tests on versions of PostgreSQL that the whole does not run on.
//!
//! Only the library is built for each version, in a build directory that the versions share, and with less optimization; the test
//! programs are those of the whole; variables name the servers and the library. What is printed is kept in a file and
//! shown if it fails. A server that is not here and cannot be fetched is an error, unless the caller allows its absence.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Postgres};
use crate::workspace::Workspace;
use crate::{process, render};

/// What runs on a version.
struct Core {
    release: u32,
    /// Test programs.
    programs: &'static [&'static str],
}

/// The versions. A cluster of the version before is upgraded.
///
/// Of 15 none is: late minor releases keep `pg_attver` among the options of a column, which pg_upgrade of the servers that are fetched does not
/// know.
const CORES: [Core; 3] = [
    Core { release: 16, programs: &["versions"] },
    Core { release: 17, programs: &["versions"] },
    Core { release: 18, programs: &["versions", "printed", "upgrade"] },
];

/// What happens when a server cannot be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// It is an error.
    Needed,
    /// The version is left out, with a warning.
    Optional,
}

impl Network {
    /// What the flag `--offline` says.
    pub(crate) fn of(offline: bool) -> Self {
        if offline { Self::Optional } else { Self::Needed }
    }
}

/// A server, and the directory with what an installation needs of the library for it.
type Built = (Postgres, PathBuf);

/// The library is built for the tests alone.
const BUILD_SETTINGS: [(&str, &str); 2] =
    [("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"), ("CARGO_PROFILE_RELEASE_DEBUG", "false")];

/// The workspace's tests, with nextest if it is there.
pub(crate) fn test_command(workspace: &Workspace, postgres: &Postgres) -> Command {
    match process::find("cargo-nextest") {
        Some(_) => {
            let run = ["nextest", "run", "--release", "--workspace"];
            workspace.cargo_with_extension(postgres, &run, &[])
        }
        None => {
            workspace.cargo_with_extension(postgres, &["test", "--release", "--workspace"], &[])
        }
    }
}

/// Runs it on one version, or on each; `own` is the version that the test programs were built for.
pub(crate) fn run(
    workspace: &Workspace,
    own: &Postgres,
    only: Option<u32>,
    network: Network,
) -> Result<()> {
    let mut older = None;
    let mut flaky = Vec::new();
    for core in &CORES {
        if core.release == own.release() || only.is_some_and(|only| only != core.release) {
            continue;
        }
        let cannot = format!("PostgreSQL {} cannot be had here", core.release);
        match setup::find_or_fetch(core.release) {
            Ok(postgres) => {
                let artifacts =
                    run_on(workspace, own, &postgres, core, older.as_ref(), &mut flaky)?;
                older = Some((postgres, artifacts));
            }
            Err(error) if network == Network::Optional => {
                render::warn(&format!("{cannot}, so nothing is tested on it: {error:#}"));
            }
            Err(error) => {
                return Err(error.context(format!("{cannot}; --offline leaves it out")));
            }
        }
    }
    for line in &flaky {
        render::warn(&format!("passed at its second try only, which is a fault: {line}"));
    }
    Ok(())
}

/// The tests that passed at their second try, as nextest lists them at the end.
fn flaky_of(printed: &str) -> impl Iterator<Item = &str> {
    let behind_summary = printed.rsplit_once("Summary [").map_or("", |(_, end)| end);
    behind_summary.lines().map(str::trim).filter(|line| line.starts_with("FLAKY"))
}

/// Builds for one version and runs the test programs.
fn run_on(
    workspace: &Workspace,
    own: &Postgres,
    postgres: &Postgres,
    core: &Core,
    older: Option<&Built>,
    flaky: &mut Vec<String>,
) -> Result<PathBuf> {
    let started = Instant::now();
    let dir = workspace.core_dir();
    let log = dir.join(format!("{}.log", postgres.release()));
    let fails = || format!("the core of the tests fails on PostgreSQL {}", postgres.release());

    let build = ["build", "--release", "--package", "pg_shard"];
    let mut build = workspace.cargo_with_extension(postgres, &build, &[]);
    build.env("CARGO_TARGET_DIR", &dir).envs(BUILD_SETTINGS);
    quietly(&mut build, &log).with_context(fails)?;
    let built = started.elapsed();
    let artifacts = gather(workspace, &dir.join("release"), postgres.release())?;

    // Without an earlier version there is nothing to upgrade.
    let is_possible = |program: &&&str| **program != "upgrade" || older.is_some();
    let programs: Vec<&str> = core.programs.iter().filter(is_possible).copied().collect();
    let mut tests = tests_of(workspace, own, &programs);
    tests
        .env("PGSHARD_TEST_ARTIFACTS", &artifacts)
        .env("PGSHARD_TEST_PG_CONFIG", postgres.pg_config());
    if let Some((server, artifacts)) = older {
        tests
            .env("PGSHARD_TEST_OLDER_ARTIFACTS", artifacts)
            .env("PGSHARD_TEST_OLDER_PG_CONFIG", server.pg_config());
    }
    quietly(&mut tests, &log).with_context(fails)?;
    let printed = fs::read_to_string(&log).unwrap_or_default();
    flaky.extend(flaky_of(&printed).map(|line| format!("PostgreSQL {}: {line}", core.release)));
    render::say(&format!(
        "PostgreSQL {}: the tests {} passed; {} of which the build took {}.",
        postgres.release(),
        programs.join(", "),
        render::rounded(started.elapsed()),
        render::rounded(built)
    ));
    Ok(artifacts)
}

/// Runs whole test programs.
fn tests_of(workspace: &Workspace, own: &Postgres, programs: &[&str]) -> Command {
    let mut command = test_command(workspace, own);
    if process::find("cargo-nextest").is_some() {
        command.args(["--retries", "1"]);
    }
    for program in programs {
        command.args(["--test", program]);
    }
    command
}

/// A directory with what an installation needs of the library that lies in `built`.
fn gather(workspace: &Workspace, built: &Path, release: u32) -> Result<PathBuf> {
    let dir = workspace.core_dir().join(format!("for{release}"));
    let cannot = || format!("cannot fill {}", dir.display());
    fs::create_dir_all(&dir).with_context(cannot)?;
    fs::copy(built.join("libpg_shard.so"), dir.join("libpg_shard.so")).with_context(cannot)?;
    for file in fs::read_dir(workspace.root().join("sql")).with_context(cannot)?.flatten() {
        fs::copy(file.path(), dir.join(file.file_name())).with_context(cannot)?;
    }
    Ok(dir)
}

/// Runs it with what it prints in a file, which is shown if it fails.
fn quietly(command: &mut Command, log: &Path) -> Result<()> {
    let cannot = || format!("cannot write {}", log.display());
    let dir = log.parent().context("a file has a directory")?;
    fs::create_dir_all(dir).with_context(cannot)?;
    let file = File::create(log).with_context(cannot)?;
    let (stdout, stderr) = (file.try_clone()?, file);
    let status = command
        .stdout(stdout)
        .stderr(stderr)
        .status()
        .with_context(|| format!("cannot run {}", process::line_of(command)))?;
    if !status.success() {
        println!("{}", fs::read_to_string(log).unwrap_or_default());
        bail!("{} failed ({status})", process::line_of(command));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_passed_at_their_second_try_are_named() {
        let printed = "  TRY 1 FAIL [ 1s] a\n  FLAKY 2/2 [ 1s] (1/2) a\n Summary [ 9s] 2 tests run\n  FLAKY 2/2 [ 1s] (1/2) a\n";
        let found: Vec<&str> = flaky_of(printed).collect();
        assert_eq!(found, ["FLAKY 2/2 [ 1s] (1/2) a"]);
        assert_eq!(flaky_of("no summary, FLAKY").count(), 0);
    }

    #[test]
    fn what_fails_is_told_and_what_it_printed_is_kept() {
        let log = std::env::temp_dir().join(format!("pg_shard-core-{}.log", std::process::id()));
        let shell = |line: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", line]);
            command
        };
        assert!(quietly(&mut shell("echo one; echo two >&2"), &log).is_ok());
        assert_eq!(fs::read_to_string(&log).expect("it was written"), "one\ntwo\n");
        let failed = quietly(&mut shell("exit 3"), &log);
        assert!(failed.is_err_and(|error| error.to_string().contains("exit status: 3")));
        assert_eq!(fs::read_to_string(&log).expect("it was written"), "");
        drop(fs::remove_file(&log));
    }
}
