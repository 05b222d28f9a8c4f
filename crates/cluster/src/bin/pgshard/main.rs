//! `pgshard`: sharded PostgreSQL clusters on one machine, for trying things out and for breaking them.
//!
//! The work is done by the library `cluster`; here are the words of the command line and what is printed.

/// The words of the command line, and the help that teaches them.
mod arguments;

/// What is printed: the only place that writes to standard output.
mod render;

use std::process::ExitCode;

use clap::Parser;
use cluster::{Artifacts, Cluster, ClusterError, ClusterSpec, NodeName, Severity, Step};

use arguments::{Arguments, Command, NodeArguments, StepsArguments, TopArguments, UpArguments};

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            render::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, ClusterError> {
    match command {
        Command::Doctor(arguments) => {
            let report = cluster::examine(&arguments.url)?;
            render::report(&report, arguments.json);
            let is_bad = report.findings.iter().any(|it| it.severity == Severity::Error);
            return Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        Command::Top(arguments) => top(&arguments)?,
        Command::Repair(arguments) => {
            carry_out(&arguments, &cluster::plan_repair(&arguments.cluster.url)?)?;
        }
        Command::Rebalance(arguments) => {
            let url = &arguments.steps.cluster.url;
            carry_out(&arguments.steps, &cluster::plan_rebalance(url, &arguments.by)?)?;
        }
        command => on_this_machine(command)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks at what is under way until it has looked often enough.
fn top(arguments: &TopArguments) -> Result<(), ClusterError> {
    let mut left = arguments.count;
    loop {
        render::activity(&cluster::activity(&arguments.cluster.url)?, arguments.cluster.json);
        left = left.map(|left| left.saturating_sub(1));
        if left == Some(0) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_secs(arguments.interval));
    }
}

/// Carries out steps and shows how far that is, or shows them.
fn carry_out(arguments: &StepsArguments, steps: &[Step]) -> Result<(), ClusterError> {
    if !arguments.plan {
        let progress = render::Progress::of(steps);
        cluster::carry_out(&arguments.cluster.url, steps, |step| progress.is_done(step))?;
    }
    render::steps(steps, arguments.plan, arguments.cluster.json);
    Ok(())
}

fn on_this_machine(command: Command) -> Result<(), ClusterError> {
    match command {
        Command::Doctor(_) | Command::Top(_) | Command::Repair(_) | Command::Rebalance(_) => Ok(()),
        Command::Up(arguments) => up(arguments),
        Command::Start(arguments) => on_node(&arguments, "up", Cluster::start),
        Command::Stop(arguments) => on_node(&arguments, "down", Cluster::stop),
        Command::Kill(arguments) => on_node(&arguments, "killed", Cluster::kill),
        Command::Pause(arguments) => on_node(&arguments, "paused", Cluster::pause),
        Command::Resume(arguments) => on_node(&arguments, "up", Cluster::resume),
        Command::Status(arguments) => {
            if let Some(url) = &arguments.url {
                render::overview(&cluster::overview(url)?, arguments.json);
            } else {
                let dir = arguments.dir.unwrap_or_default();
                render::status(&Cluster::open(&dir)?.status(), arguments.json);
            }
            Ok(())
        }
        Command::Down(arguments) => {
            Cluster::open(&arguments.dir)?.down()?;
            render::cluster_is_down(&arguments.dir);
            Ok(())
        }
    }
}

fn up(arguments: UpArguments) -> Result<(), ClusterError> {
    let artifacts = Artifacts::of_this_build()?;
    let artifacts = Artifacts {
        library: arguments.library.unwrap_or(artifacts.library),
        extension_dir: arguments.extension_dir.unwrap_or(artifacts.extension_dir),
    };
    let spec = ClusterSpec {
        dir: arguments.dir.dir,
        workers: arguments.workers,
        port: arguments.port,
        worker_host: arguments.worker_host,
        extension: !arguments.no_extension,
        settings: arguments.settings,
    };
    render::cluster_is_up(&Cluster::up_from(&spec, &artifacts)?);
    Ok(())
}

/// Does something to the node that was named, and says what it is now.
fn on_node(
    arguments: &NodeArguments,
    now: &str,
    operation: impl Fn(&Cluster, NodeName) -> Result<(), ClusterError>,
) -> Result<(), ClusterError> {
    let cluster = Cluster::open(&arguments.dir.dir)?;
    let node = cluster.node(&arguments.node)?;
    operation(&cluster, node)?;
    render::node_is_now(node, now);
    Ok(())
}
