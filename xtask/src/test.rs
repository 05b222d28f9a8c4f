//! `cargo xtask test`: everything that has to hold before a change is taken.
//!
//! The steps stop at the first that fails. All of them work in the release profile: so the build scripts run, and the
//! bindings to PostgreSQL are generated, once for all, and the clusters of the tests load the very library that users
//! get. The tests come last, with all that they say on standard output, and nothing is printed after them.

use std::io;
use std::os::fd::AsFd;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::core::Network;
use crate::setup::{self, DEFAULT_RELEASE, Postgres};
use crate::workspace::Workspace;
use crate::{core, extension, process, render, tidy};

/// How many steps there are.
const STEPS: usize = 7;

/// Runs all steps; the exit code is that of the tests.
pub(crate) fn run(network: Network) -> Result<ExitCode> {
    let mut started = Instant::now();
    render::step(1, STEPS, "PostgreSQL, the tools to build against it, and clients", None);
    let postgres = setup::ensure_for_tests()?;
    let workspace = Workspace::find()?;
    ensure_component(&workspace, &postgres, "fmt", "rustfmt")?;
    ensure_component(&workspace, &postgres, "clippy", "clippy")?;

    render::step(2, STEPS, "cargo xtask tidy", Some(started.elapsed()));
    started = Instant::now();
    tidy::run(workspace.root(), false)?;

    let checks = [
        workspace.cargo(&postgres, &["fmt", "--all", "--check"]),
        workspace.cargo_with_extension(
            &postgres,
            &["clippy", "--release", "--workspace", "--all-targets"],
            &["--", "--deny", "warnings"],
        ),
        extension::build_command(&workspace, &postgres, extension::Profile::Release),
    ];
    for (number, mut check) in (3..).zip(checks) {
        render::step(number, STEPS, &process::line_of(&check), Some(started.elapsed()));
        started = Instant::now();
        process::run(&mut check)?;
    }

    render::step(STEPS - 1, STEPS, "cargo xtask core", Some(started.elapsed()));
    started = Instant::now();
    if postgres.release() == DEFAULT_RELEASE {
        core::run(&workspace, &postgres, None, network)?;
    }

    let mut tests = core::test_command(&workspace, &postgres);
    render::step(STEPS, STEPS, &process::line_of(&tests), Some(started.elapsed()));
    run_to_the_last_line(&mut tests)
}

/// The test of the bank, for so many seconds.
pub(crate) fn bank(seconds: u32) -> Result<()> {
    let postgres = setup::ensure_for_tests()?;
    let workspace = Workspace::find()?;
    let test = ["test", "--release", "-p", "testkit", "--test", "commit", "bank"];
    process::run(workspace.cargo(&postgres, &test).env("PGSHARD_BANK", seconds.to_string()))
}

/// The test of histories, for so many seconds a level.
pub(crate) fn histories(seconds: u32) -> Result<()> {
    let postgres = setup::ensure_for_tests()?;
    let workspace = Workspace::find()?;
    let test = ["test", "--release", "-p", "testkit", "--test", "histories"];
    let last = ["--", "--test-threads", "1", "--nocapture"];
    let mut command = workspace.cargo(&postgres, &[&test[..], &last[..]].concat());
    process::run(command.env("PGSHARD_HISTORY", seconds.to_string()))
}

/// Runs `command` with its standard error on our standard output, so that both end with its closing lines.
fn run_to_the_last_line(command: &mut Command) -> Result<ExitCode> {
    let stdout =
        io::stdout().as_fd().try_clone_to_owned().context("cannot share the standard output")?;
    let status = command
        .stderr(Stdio::from(stdout))
        .status()
        .with_context(|| format!("cannot run {}", process::line_of(command)))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Refuses a toolchain without one of cargo's own tools.
fn ensure_component(
    workspace: &Workspace,
    postgres: &Postgres,
    tool: &str,
    component: &str,
) -> Result<()> {
    if process::output_of(&mut workspace.cargo(postgres, &[tool, "--version"])).is_err() {
        bail!("cargo {tool} is not installed; add it with: rustup component add {component}");
    }
    Ok(())
}
