//! The project's chores, as `cargo xtask COMMAND`.
//!
//! This program is what a fresh machine runs first, so it builds with nothing but Rust: no PostgreSQL header, no libpq.
//! It installs what the others need, and then drives cargo, the cluster library and PostgreSQL's own programs.

/// Servers that the distribution does not have.
mod servers;
/// What the machine must have.
mod setup;

/// Directories of the workspace, and cargo.
mod workspace;

/// The extension's files, and how they are built.
mod extension;

/// Everything that has to hold.
mod test;

/// A part of it on other versions of PostgreSQL.
mod core;

/// The structure of the code, and the documents.
mod tidy;

/// A cluster on this machine, and a story to watch.
mod demo;

/// The chapter of the story in which the cluster changes under load.
mod under_load;

/// One statement by key, straight to one PostgreSQL and through the coordinator.
mod bench;

/// PostgreSQL's own tests over distributed tables.
mod regress;

/// Product reviews, made up for the demo.
mod reviews;

/// SQL through psql.
mod psql;

/// The extension's files into a PostgreSQL installation.
mod install;

/// Functions that are called without a guard.
#[cfg(test)]
mod guards;

/// Other programs.
mod process;

/// Everything that is printed.
mod render;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::core::Network;
use crate::workspace::Workspace;

/// The chores of pg_shard.
///
/// On a fresh Debian or Ubuntu machine with Rust, start with `cargo xtask demo` to see what pg_shard does, or with
/// `cargo xtask test` to check that it does it. Both first install what is missing (as root) or say how to.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    /// The release of PostgreSQL, 15 to 18 [default: that of the configured pg_config, else 15].
    ///
    /// A server that neither this machine nor its package sources have is fetched into the build directory, where each
    /// release has a directory of its own.
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(15..=18))]
    pg: Option<u32>,

    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Install what is missing to build and test: PostgreSQL with its headers, libpq, libclang, clients.
    ///
    /// As root on Debian and Ubuntu the packages are installed with apt; as another user the one command to type is
    /// printed. No database cluster is created, and nothing else of the system is touched. When all is there already,
    /// this takes some ten milliseconds.
    Setup,

    /// Build the extension and the tool `pgshard`, in release mode.
    Build,

    /// Start a coordinator and four workers on this machine, and tell a story with them.
    ///
    /// A table of product reviews is distributed, loaded and queried; a worker is killed, reading and writing go on, and
    /// the worker is repaired when it is back. Every statement is shown with its result. The cluster stays: the last
    /// lines say how to reach it and how to take it down. A second run takes down the first one's cluster.
    Demo {
        /// Where the cluster lives [default: pg_shard-demo in the system's directory for temporary files].
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,

        /// The coordinator's port; the workers get the four that follow [default: the first free ones from 6400].
        #[arg(long, value_name = "PORT", conflicts_with = "down")]
        port: Option<u16>,

        /// How many reviews are loaded.
        #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1000..), conflicts_with = "down")]
        rows: u64,

        /// Take the demo's cluster down, with all that is in it.
        #[arg(long)]
        down: bool,
    },

    /// Check structure, documents, format and lints, build, and run all tests, also those on real clusters.
    ///
    /// Stops at the first step that fails. The last lines are those of the tests.
    Test {
        /// Leave out versions of PostgreSQL whose servers are not here and cannot be fetched.
        #[arg(long)]
        offline: bool,
    },

    /// Build for PostgreSQL 18, 17 and 16, and run a core of the tests on each.
    ///
    /// A server that cannot be had is an error.
    Core {
        /// On this release alone.
        #[arg(long, value_name = "N")]
        on: Option<u32>,

        /// Leave out versions whose servers are not here and cannot be fetched.
        #[arg(long)]
        offline: bool,
    },

    /// Clients move money between accounts of different nodes while servers are killed, for five minutes.
    ///
    /// At the end every account has what the transfers say that are written down, and every acknowledged one is. The
    /// library must be built.
    Bank {
        /// For how many seconds.
        #[arg(long, default_value_t = 300)]
        seconds: u32,
    },

    /// Clients append to lists and read them while servers are killed, and a checker says whether what they saw can have happened.
    ///
    /// The library must be built.
    Histories {
        /// For how many seconds each level of isolation runs.
        #[arg(long, default_value_t = 120)]
        seconds: u32,
    },

    /// Check the structure of the code and the documents; a second, without PostgreSQL.
    ///
    /// Arrows between crates, circles of files, headers, lengths of files and functions, pointers outside of the wall,
    /// SQLSTATEs without names; pages, links and names in the documents. What is over a limit stands in xtask/tidy.txt
    /// with a reason and a figure that may not grow.
    Tidy {
        /// Write smaller figures to xtask/tidy.txt, and drop lines that are no longer needed.
        #[arg(long)]
        tighten: bool,
    },

    /// Measure statements by key: straight to one PostgreSQL, and through the coordinator.
    ///
    /// A fresh cluster of five servers is brought up for it and taken down again. A forwarder of bytes, with a process and a
    /// session for each client, shows what a hop costs at the least. All sides run alternately, so what
    /// disturbs the machine disturbs all; what counts are the ratios. Keep the machine quiet otherwise.
    #[command(args_conflicts_with_subcommands = true)]
    Bench {
        /// Something else than statements by key.
        #[command(subcommand)]
        what: Option<OtherBench>,

        /// How long a run lasts.
        #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,

        /// How many runs each side of a case gets; the figures are medians.
        #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,

        /// Only the cases with this in their names: `select`, `insert-prepared`, `2-placements` ...
        #[arg(long, value_name = "NAME")]
        only: Option<String>,

        /// Do not wait for the disk at commits (synchronous_commit = off on all nodes).
        #[arg(long)]
        sync_off: bool,

        /// Write the figures to this file too.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },

    /// Forward the client on standard input to the server on this port of loopback: a process of `bench`'s forwarder.
    #[command(hide = true)]
    Forward {
        /// The server's port.
        server: u16,
    },

    /// Play PostgreSQL's own regression tests over distributed tables.
    ///
    /// Each file runs twice on the coordinator of a cluster: on local tables, and with every table distributed as soon as
    /// rows are asked of it. The answers are compared, statement by statement: rows as psql prints them (sorted, where
    /// the statement has no ORDER BY), and SQLSTATE and message of errors. Differences are shown and do not make this
    /// fail. Isolation tests run likewise, by PostgreSQL's own isolationtester; there a unit is a permutation. The tests
    /// come from Debian's source package of PostgreSQL, which apt fetches.
    Regress {
        /// Regression and isolation tests by name, as `join` or `skip-locked` [default: ten of the former, 14 of the
        /// latter].
        #[arg(value_name = "FILE")]
        files: Vec<String>,

        /// PostgreSQL 15's source, unpacked, where the servers' user can read it; nothing is fetched then.
        #[arg(long, value_name = "DIR")]
        source: Option<PathBuf>,

        /// Where all differences are written [default: pg_shard-regress.txt in the system's directory for temporary
        /// files].
        #[arg(long, value_name = "FILE")]
        details: Option<PathBuf>,
    },

    /// Write the extension's library, control file, SQL scripts and loading program into a PostgreSQL installation.
    Install {
        /// The installation, by its pg_config; without this the one that the extension is built against.
        #[arg(long, value_name = "FILE")]
        pg_config: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum OtherBench {
    /// The 22 queries of TPC-H: answers and times beside those of one PostgreSQL.
    ///
    /// Lineitem and orders are cut by the order's key, the others by their own. Fails if an answer differs.
    Tpch {
        /// The scale factor; 1 is a gigabyte.
        #[arg(long, value_name = "SF", default_value_t = 0.1)]
        scale: f64,

        /// How many runs each query gets on each side, beside one that warms up.
        #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,

        /// Only these queries, by number.
        #[arg(long, value_name = "N", value_delimiter = ',')]
        only: Vec<usize>,

        /// Use the running cluster of this directory, load it if it has no tables yet, and leave it there.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,

        /// Do not measure the plans that fetch all rows.
        #[arg(long)]
        no_pulling: bool,
    },

    /// Counting, grouping, joining a million rows, and planning over 1,024 shards.
    Reads {
        /// How many runs each read gets on each side, beside one that warms up.
        #[arg(long, value_name = "R", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,

        /// How many rows the large table has.
        #[arg(long, value_name = "N", default_value_t = 1_000_000)]
        rows: u64,

        /// Use the running cluster of this directory, load it if it has no tables yet, and leave it there.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },

    /// Consumers of a job queue, who claim jobs with FOR UPDATE SKIP LOCKED.
    Queue {
        /// How long a run lasts.
        #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,

        /// How many runs each side gets; the figures are medians.
        #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },

    /// Reads of one moment beside transfers, and transfers beside those of one PostgreSQL.
    Transactions {
        /// How long a run lasts.
        #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,

        /// How many runs each side gets; the figures are medians.
        #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,

        /// Only the cases with this in their names: `read`, `by-key`, `transfer` ...
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
    },

    /// Measure COPY, INSERT of many rows and INSERT ... SELECT: rows per second of one client.
    Copy {
        /// How many reviews are loaded in a run.
        #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
        rows: u64,

        /// How many runs each side of a case gets; the figures are medians.
        #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,

        /// Only the cases with this in their names: `copy`, `insert` ...
        #[arg(long, value_name = "NAME")]
        only: Option<String>,

        /// Write the figures to this file too.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    run(&Arguments::parse()).unwrap_or_else(|error| {
        render::error(&error);
        ExitCode::FAILURE
    })
}

/// Does the chore.
fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(release) = arguments.pg {
        setup::choose(release);
    }
    match &arguments.chore {
        Chore::Setup => {
            let postgres = setup::ensure_for_tests()?;
            render::say(&format!("All there: {}.", postgres.pg_config().display()));
        }
        Chore::Build => {
            let postgres = setup::ensure()?;
            let files =
                extension::build(&Workspace::find()?, &postgres, extension::Profile::Release)?;
            render::say(&format!("Built {}.", files.library.display()));
        }
        Chore::Demo { dir, down: true, .. } => {
            demo::down(&dir.clone().unwrap_or_else(demo::default_dir))?;
        }
        Chore::Demo { dir, port, rows, down: false } => demo::run(&demo::Options {
            dir: dir.clone().unwrap_or_else(demo::default_dir),
            port: *port,
            rows: *rows,
        })?,
        Chore::Test { offline } => return test::run(Network::of(*offline)),
        Chore::Core { on, offline } => {
            let postgres = setup::ensure()?;
            let workspace = Workspace::find()?;
            extension::build(&workspace, &postgres, extension::Profile::Release)?;
            core::run(&workspace, &postgres, *on, Network::of(*offline))?;
        }
        Chore::Bank { seconds } => test::bank(*seconds)?,
        Chore::Histories { seconds } => test::histories(*seconds)?,
        Chore::Tidy { tighten } => tidy::run(Workspace::find()?.root(), *tighten)?,
        Chore::Bench { what: Some(other), .. } => run_other_bench(other)?,
        Chore::Bench { what: None, seconds, rounds, only, sync_off, json } => {
            bench::run(&bench::Options {
                seconds: *seconds,
                rounds: *rounds,
                only: only.clone(),
                synchronous_commit: !sync_off,
                json: json.clone(),
            })?
        }
        Chore::Forward { server } => bench::forwarder::serve(*server)?,
        Chore::Regress { files, source, details } => regress::run(&regress::Options {
            files: files.clone(),
            source: source.clone(),
            details: details.clone(),
        })?,
        Chore::Install { pg_config } => install::run(pg_config.as_deref())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures something else than statements by key.
fn run_other_bench(what: &OtherBench) -> Result<()> {
    match what {
        OtherBench::Tpch { scale, rounds, only, dir, no_pulling } => {
            bench::tpch::run(&bench::tpch::Options {
                scale: *scale,
                rounds: *rounds,
                only: only.clone(),
                dir: dir.clone(),
                without_pushdown: !no_pulling,
            })
        }
        OtherBench::Reads { rounds, rows, dir } => bench::reads::run(&bench::reads::Options {
            rounds: *rounds,
            rows: *rows,
            dir: dir.clone(),
        }),
        OtherBench::Queue { seconds, rounds } => {
            bench::queue::run(&bench::queue::Options { seconds: *seconds, rounds: *rounds })
        }
        OtherBench::Transactions { seconds, rounds, only } => {
            bench::transactions::run(&bench::transactions::Options {
                seconds: *seconds,
                rounds: *rounds,
                only: only.clone(),
            })
        }
        OtherBench::Copy { rows, rounds, only, json } => bench::bulk::run(&bench::bulk::Options {
            rows: *rows,
            rounds: *rounds,
            only: only.clone(),
            json: json.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Arguments::command().debug_assert();
    }
}
