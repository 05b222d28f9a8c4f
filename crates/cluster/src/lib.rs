//! Sharded PostgreSQL clusters on one machine: one coordinator and its workers, from a private copy of PostgreSQL.
//!
//! A [`Cluster`] lives in one directory: a copy of the installed PostgreSQL with our library in it, one data directory
//! a node, a unix socket, the servers' logs and `cluster.json`, which says what the cluster consists of. Nothing outside
//! that directory is written, so any number of clusters run side by side and next to the system's own PostgreSQL.
//!
//! Servers outlive the process that started them. Every operation reads the truth from the directory and from `/proc`,
//! so the command `pgshard` and a test may work on the same cluster by turns.
//!
//! A test suite prepares one [`Installation`] (a copy and one `initdb`) and brings up its clusters from it:
//!
//! ```no_run
//! use cluster::{Artifacts, Cluster, ClusterSpec, Installation, NodeName, free_ports};
//!
//! # fn main() -> Result<(), cluster::ClusterError> {
//! # let scratch = std::env::temp_dir().join("pgshard-example");
//! let installation = Installation::prepare(&scratch.join("installation"), &Artifacts::of_this_build()?)?;
//! let spec = ClusterSpec::new(scratch.join("cluster"), 4, free_ports(4)?).set("fsync", "off");
//! let cluster = Cluster::up_with(&installation, &spec)?.down_on_drop();
//!
//! cluster.kill(NodeName::Worker(2))?;
//! let mut client = cluster.connect(NodeName::Coordinator)?;
//! cluster.start(NodeName::Worker(2))?;
//! # Ok(())
//! # }
//! ```
//!
//! Linux only: what a server consists of and whether it is paused is read from `/proc`.

/// What can go wrong, as a person should hear it.
mod error;

/// `coordinator`, `worker1`, `worker2` ...
mod node_name;

/// What a cluster should be like.
mod spec;

/// Which ports are free, and who has those that are not.
mod ports;

/// The user that the servers run as.
mod account;

/// Directory trees: copied, and reached.
mod tree;

/// Open files that a server must not inherit.
mod descriptors;

/// The private copy of PostgreSQL, and the data directory that nodes are copied from.
mod installation;

/// `postgresql.conf`, `pg_hba.conf` and `pg_worker_list.conf` of a node.
mod configuration;

/// Processes, as `/proc` shows them.
mod process;

/// One node's server: started, stopped, killed, paused.
mod server;

/// Sessions to the servers of a URL.
mod reach;

/// The cluster as a whole.
mod cluster;

/// A node's data directory taken to a later version of PostgreSQL.
mod upgrade;

/// What the nodes do and where the shards are.
mod status;

/// What is wrong with a cluster that was made elsewhere.
mod doctor;

/// What operators do with a cluster that was made elsewhere.
mod operator;

pub use cluster::{Cluster, DownOnDrop};
pub use doctor::{Examined, Finding, Report, Severity, examine};
pub use error::ClusterError;
pub use installation::{Artifacts, Installation};
pub use node_name::{NodeName, NotANodeName};
pub use operator::{
    Doing, Overview, OverviewNode, OverviewTable, Step, activity, carry_out, overview,
    plan_rebalance, plan_repair,
};
pub use ports::free_ports;
pub use server::NodeState;
pub use spec::{ClusterSpec, DEFAULT_SETTINGS, parse_setting};
pub use status::{NodeStatus, PlacementCounts, ShardCounts, Shards, Status, TableStatus};

/// The client that [`Cluster::connect`] returns, for the types in its signatures.
pub use postgres;
