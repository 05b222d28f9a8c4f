//! `cargo xtask core`: a core of the tests on versions of PostgreSQL that the whole does not run on.
//!
//! What it prints is kept in a file and shown if it fails. A server that is not here and cannot be fetched is no failure: the run
//! says so and goes on.

use std::fs::{self, File};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Postgres};
use crate::workspace::Workspace;
use crate::{extension, process, render};

/// The versions, the most important one first. On 16 and 17 nobody has tried the tests.
const VERSIONS: [u32; 1] = [18];

/// The test programs: what versions add, and how statements are printed.
const PROGRAMS: [&str; 2] = ["versions", "printed"];

/// Runs it on each of the versions.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    for release in VERSIONS {
        match setup::find_or_fetch(release) {
            Ok(postgres) => run_on(workspace, &postgres)?,
            Err(error) => render::warn(&format!(
                "PostgreSQL {release} cannot be had here, so nothing is tested on it: {error:#}"
            )),
        }
    }
    Ok(())
}

/// Builds for one version and runs the test programs.
fn run_on(workspace: &Workspace, postgres: &Postgres) -> Result<()> {
    let started = Instant::now();
    let mut tests = workspace.cargo(postgres, &["test", "--release", "--package", "testkit"]);
    if process::find("cargo-nextest").is_some() {
        let run = ["nextest", "run", "--release", "--package", "testkit", "--retries", "1"];
        tests = workspace.cargo(postgres, &run);
    }
    for program in PROGRAMS {
        tests.args(["--test", program]);
    }
    let log = workspace.release_dir(postgres).with_file_name("core.log");
    quietly(
        &mut [extension::build_command(workspace, postgres, extension::Profile::Release), tests],
        &log,
    )
    .with_context(|| format!("the core of the tests fails on PostgreSQL {}", postgres.release()))?;
    render::say(&format!(
        "PostgreSQL {}: the tests {} passed; {} with the build.",
        postgres.release(),
        PROGRAMS.join(", "),
        render::rounded(started.elapsed())
    ));
    Ok(())
}

/// Runs these with what they print in a file, which is shown if one fails.
fn quietly(commands: &mut [Command], log: &std::path::Path) -> Result<()> {
    let cannot = || format!("cannot write {}", log.display());
    let dir = log.parent().context("a file has a directory")?;
    fs::create_dir_all(dir).with_context(cannot)?;
    let file = File::create(log).with_context(cannot)?;
    for command in commands {
        let (stdout, stderr) = (file.try_clone()?, file.try_clone()?);
        let status = command
            .stdout(stdout)
            .stderr(stderr)
            .status()
            .with_context(|| format!("cannot run {}", process::line_of(command)))?;
        if !status.success() {
            println!("{}", fs::read_to_string(log).unwrap_or_default());
            bail!("{} failed ({status})", process::line_of(command));
        }
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
        assert!(quietly(&mut [shell("echo one; echo two >&2")], &log).is_ok());
        assert_eq!(fs::read_to_string(&log).expect("it was written"), "one\ntwo\n");
        let failed = quietly(&mut [shell("exit 3"), shell("echo never")], &log);
        assert!(failed.is_err_and(|error| error.to_string().contains("exit status: 3")));
        assert_eq!(fs::read_to_string(&log).expect("it was written"), "");
        drop(fs::remove_file(&log));
    }
}
