//! The words of the command line, and the help that teaches them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Sharded PostgreSQL clusters on one machine.
///
/// Brings up a coordinator and its workers from a private copy of the installed PostgreSQL 15, with the extension
/// pg_shard in it. A cluster lives in one directory; the system's own PostgreSQL is not touched, and several clusters
/// run side by side.
#[derive(Debug, Parser)]
#[command(name = "pgshard", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
A first cluster, one coordinator and four workers:
  pgshard up --dir /tmp/shop --workers 4 --port 6000
  psql -h 127.0.0.1 -p 6000 -U postgres

Take a worker away, see what that does, and bring it back:
  pgshard kill worker2 --dir /tmp/shop
  pgshard status --dir /tmp/shop
  pgshard start worker2 --dir /tmp/shop

A server that is there but does not answer, as behind a broken network:
  pgshard pause worker1 --dir /tmp/shop
  pgshard resume worker1 --dir /tmp/shop

Remove all of it:
  pgshard down --dir /tmp/shop";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a cluster and start it: a coordinator on PORT, worker i on PORT + i
    ///
    /// The superuser is postgres, the database is postgres, and everyone on this machine is trusted; the servers listen
    /// on loopback addresses only, and on a unix socket in DIR. When run as root, the servers run as user postgres.
    /// Servers keep running after this command ends; "pgshard down" removes them.
    Up(UpArguments),

    /// Start a node that is down, and wait until it accepts connections
    Start(NodeArguments),

    /// Shut a node down in good order; its sessions are ended
    Stop(NodeArguments),

    /// kill -9 all processes of a node, as a power cut would
    Kill(NodeArguments),

    /// Stop all processes of a node (SIGSTOP): it keeps its connections and answers none
    Pause(NodeArguments),

    /// Let a paused node continue (SIGCONT)
    Resume(NodeArguments),

    /// Show the nodes, up, down or paused, and the shards and placements by state
    ///
    /// Works whatever is down. The shards are read from the coordinator's catalog, so they are shown only while the
    /// coordinator answers. With --url, a cluster that was set up by hand is shown as its coordinator sees it.
    Status(StatusArguments),

    /// Show what sessions of a coordinator have under way on nodes, again and again until it is interrupted
    Top(TopArguments),

    /// Repair all inactive placements of which another placement is healthy
    ///
    /// What the coordinator does by itself after a while is done now, one placement after another.
    Repair(StepsArguments),

    /// Move shards until all nodes hold about as much
    ///
    /// Each shard is moved in a transaction of its own, while clients go on writing. What is done stays done if a later move fails
    /// or the command is interrupted.
    Rebalance(RebalanceArguments),

    /// Look over a running cluster that was set up by hand, and say what is wrong and what mends it
    ///
    /// Asks the coordinator, and each of its nodes as the same user: versions, settings, clocks, inactive placements, transactions in
    /// doubt, age and size. Ends with status 1 if something does not work.
    Doctor(UrlArguments),

    /// End all servers and remove the cluster, data included
    Down(DirArgument),
}

/// Which cluster.
#[derive(Debug, Args)]
pub(crate) struct DirArgument {
    /// The cluster's directory
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// Which node of which cluster.
#[derive(Debug, Args)]
pub(crate) struct NodeArguments {
    /// coordinator, worker1, worker2 ...
    #[arg(value_name = "NODE")]
    pub(crate) node: String,

    #[command(flatten)]
    pub(crate) dir: DirArgument,
}

/// How to show which cluster.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// The cluster's directory
    #[arg(long, value_name = "DIR", required_unless_present = "url", conflicts_with = "url")]
    pub(crate) dir: Option<PathBuf>,

    /// The coordinator, such as postgres://postgres@db1.example.com:5432/shop
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,

    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which cluster that was set up by hand.
#[derive(Debug, Args)]
pub(crate) struct UrlArguments {
    /// The coordinator, such as postgres://postgres@db1.example.com:5432/shop
    #[arg(long, value_name = "URL")]
    pub(crate) url: String,

    /// Print JSON instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to watch.
#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    #[command(flatten)]
    pub(crate) cluster: UrlArguments,

    /// Seconds from one look to the next
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) interval: u64,

    /// How often to look [default: until interrupted]
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
}

/// What to carry out, or only to plan.
#[derive(Debug, Args)]
pub(crate) struct StepsArguments {
    #[command(flatten)]
    pub(crate) cluster: UrlArguments,

    /// Show what would be done, and do nothing
    #[arg(long)]
    pub(crate) plan: bool,
}

/// How to rebalance which cluster.
#[derive(Debug, Args)]
pub(crate) struct RebalanceArguments {
    #[command(flatten)]
    pub(crate) steps: StepsArguments,

    /// What is to be even
    #[arg(long, value_parser = ["bytes", "rows", "shards"], default_value = "bytes")]
    pub(crate) by: String,
}

/// What the new cluster is like.
#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// The directory to make the cluster in: absent or empty
    #[command(flatten)]
    pub(crate) dir: DirArgument,

    /// How many workers
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) workers: u16,

    /// The coordinator's port; worker i listens on the i-th port after it
    #[arg(long, value_name = "P", default_value_t = 6000)]
    pub(crate) port: u16,

    /// A setting of PostgreSQL for every node; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = cluster::parse_setting)]
    pub(crate) settings: Vec<(String, String)>,

    /// The workers' host name in the coordinator's pg_worker_list.conf
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    pub(crate) worker_host: String,

    /// The extension's library [default: libpg_shard.so beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) library: Option<PathBuf>,

    /// The directory with pg_shard.control and the SQL scripts [default: sql/ of the source tree]
    #[arg(long, value_name = "DIR")]
    pub(crate) extension_dir: Option<PathBuf>,

    /// Plain PostgreSQL servers, without the extension
    #[arg(long)]
    pub(crate) no_extension: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn settings_are_read_as_name_and_value() {
        let arguments = Arguments::parse_from([
            "pgshard",
            "up",
            "--dir",
            "/tmp/c",
            "--set",
            "fsync=off",
            "--set",
            "pg_shard.fault_points=a=b",
        ]);
        let Command::Up(up) = arguments.command else { panic!("not up") };
        let settings: Vec<(&str, &str)> =
            up.settings.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(settings, [("fsync", "off"), ("pg_shard.fault_points", "a=b")]);
    }
}
