//! `cargo xtask core`: a core of the tests on versions of PostgreSQL that the whole does not run on.
//!
//! Only the library is built for each version, in a build directory that the versions share, and with less optimization; the test
//! programs are those of the whole, told of the servers and of the library by variables. What is printed is kept in a file and
//! shown if it fails. A server that is not here and cannot be fetched is no failure: the run says so and goes on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Postgres};
use crate::workspace::Workspace;
use crate::{process, render};

/// The versions, and the test programs that run on each. A cluster of the version before is upgraded.
///
/// Of 15 none is: late minor releases keep `pg_attver` among the options of a column, which pg_upgrade of the servers that are fetched does not
/// know.
const CORES: [(u32, &[&str]); 3] =
    [(16, &["versions"]), (17, &["versions"]), (18, &["versions", "printed", "upgrade"])];

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
pub(crate) fn run(workspace: &Workspace, own: &Postgres, only: Option<u32>) -> Result<()> {
    let mut older = None;
    for (release, programs) in CORES {
        if release == own.release() || only.is_some_and(|only| only != release) {
            continue;
        }
        match setup::find_or_fetch(release) {
            Ok(postgres) => {
                let artifacts = run_on(workspace, own, &postgres, programs, older.as_ref())?;
                older = Some((postgres, artifacts));
            }
            Err(error) => render::warn(&format!(
                "PostgreSQL {release} cannot be had here, so nothing is tested on it: {error:#}"
            )),
        }
    }
    Ok(())
}

/// Builds for one version and runs the test programs.
fn run_on(
    workspace: &Workspace,
    own: &Postgres,
    postgres: &Postgres,
    programs: &[&str],
    older: Option<&Built>,
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

    let mut tests = test_command(workspace, own);
    if process::find("cargo-nextest").is_some() {
        tests.args(["--retries", "1"]);
    }
    // Without an earlier version there is nothing to upgrade.
    let is_possible = |program: &&&str| **program != "upgrade" || older.is_some();
    let programs: Vec<&str> = programs.iter().filter(is_possible).copied().collect();
    for program in &programs {
        tests.args(["--test", program]);
    }
    tests
        .env("PGSHARD_TEST_ARTIFACTS", &artifacts)
        .env("PGSHARD_TEST_PG_CONFIG", postgres.pg_config());
    if let Some((server, artifacts)) = older {
        tests
            .env("PGSHARD_TEST_OLDER_ARTIFACTS", artifacts)
            .env("PGSHARD_TEST_OLDER_PG_CONFIG", server.pg_config());
    }
    quietly(&mut tests, &log).with_context(fails)?;
    render::say(&format!(
        "PostgreSQL {}: the tests {} passed; {} of which the build took {}.",
        postgres.release(),
        programs.join(", "),
        render::rounded(started.elapsed()),
        render::rounded(built)
    ));
    Ok(artifacts)
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
