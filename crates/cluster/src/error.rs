//! What can go wrong, as a person should hear it: what happened, and what to do about it.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::node_name::NodeName;

/// Why something could not be done to a cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No program of a PostgreSQL that fits was found.
    #[error(
        "no PostgreSQL that fits is installed (looked for {looked_for}); on Debian or Ubuntu: \
         apt-get install postgresql-15 postgresql-server-dev-15"
    )]
    PostgresMissing {
        /// The `pg_config` programs that were tried.
        looked_for: String,
    },

    /// The coordinator of a cluster cannot be asked.
    #[error("the coordinator cannot be asked: {reason}")]
    NoCoordinator {
        /// What it, or the network, has said.
        reason: String,
    },

    /// A repair or a move failed on the coordinator.
    #[error("shard {shard} of table {table}: {reason}")]
    Step {
        /// The shard.
        shard: i64,
        /// Its table.
        table: String,
        /// What the coordinator has said.
        reason: String,
    },

    /// We are root, which PostgreSQL refuses to run as, and there is no user to run as instead.
    #[error(
        "PostgreSQL does not run as root and there is no user \"{user}\" to run it as; \
         create one (useradd --system {user}) or run this as another user"
    )]
    NoServerUser {
        /// The user we wanted.
        user: String,
    },

    /// A file of ours that belongs into the installation is not there.
    #[error(
        "{what} is not at {path}; build it (cargo build -p pg_shard) or say where it is ({option})"
    )]
    ArtifactMissing {
        /// The library, the control file or the script.
        what: &'static str,
        /// Where it was expected.
        path: PathBuf,
        /// The option of `pgshard up` that says where it is.
        option: &'static str,
    },

    /// A directory that should become a cluster has something in it.
    #[error(
        "directory {dir} exists and is not empty; choose another one, or, if it holds a cluster, remove that first (pgshard down --dir {dir})"
    )]
    DirectoryTaken {
        /// The directory.
        dir: PathBuf,
    },

    /// The user that runs the servers cannot get to a directory.
    #[error(
        "user \"{user}\", which runs the servers, cannot reach {dir}; \
         choose a directory whose parents are open to everyone, such as one in /tmp"
    )]
    DirectoryUnreachable {
        /// The directory.
        dir: PathBuf,
        /// The user.
        user: String,
    },

    /// The path of a unix socket would be longer than the system allows.
    #[error(
        "the path {dir} is too long for a unix socket: {length} bytes, at most {limit} fit; choose a shorter one"
    )]
    SocketPathTooLong {
        /// The directory for the socket.
        dir: PathBuf,
        /// Its length in bytes.
        length: usize,
        /// The most that would do.
        limit: usize,
    },

    /// A directory without `cluster.json`.
    #[error("there is no cluster in {dir}; bring one up with: pgshard up --dir {dir}")]
    NoCluster {
        /// The directory.
        dir: PathBuf,
    },

    /// A directory without a complete copy of PostgreSQL.
    #[error("there is no complete copy of PostgreSQL in {dir}")]
    NoInstallation {
        /// The directory.
        dir: PathBuf,
    },

    /// A file of ours that does not say what it should.
    #[error("cannot understand {path}: {source}")]
    DamagedFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },

    /// A node that this cluster does not have.
    #[error("there is no node \"{name}\" in this cluster; it has {existing}")]
    UnknownNode {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        existing: String,
    },

    /// The node's server runs, and should not.
    #[error("{node} is up already")]
    NodeIsUp {
        /// The node.
        node: NodeName,
    },

    /// The node's server does not run, and should.
    #[error("{node} is down; start it first")]
    NodeIsDown {
        /// The node.
        node: NodeName,
    },

    /// The node's server is paused, and should not be.
    #[error("{node} is paused; resume it first")]
    NodeIsPaused {
        /// The node.
        node: NodeName,
    },

    /// Another program listens where a node should.
    #[error(
        "port {port}, needed for {node}, is taken by {holder}; stop that or choose another port"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// The node that was to listen there.
        node: NodeName,
        /// Who listens there, as far as one can see.
        holder: String,
    },

    /// The system does not let us listen on a port, though nobody else does.
    #[error("cannot listen on port {port}, needed for {node}: {source}; choose another port")]
    PortUnusable {
        /// The port.
        port: u16,
        /// The node that was to listen there.
        node: NodeName,
        /// What the system said.
        source: io::Error,
    },

    /// There are no ports with the numbers that the workers would need.
    #[error("{workers} workers do not fit above port {port}: ports are numbered 1 to 65535")]
    PortsOutOfRange {
        /// The coordinator's port.
        port: u16,
        /// How many workers were to follow.
        workers: u16,
    },

    /// The extension has nowhere to put a shard.
    #[error(
        "a cluster with the extension needs a worker: --workers 1 or more, or --no-extension for one plain server"
    )]
    NoWorkers,

    /// No run of free ports was found.
    #[error("there are no {count} free ports in a row")]
    NoFreePorts {
        /// How many were wanted.
        count: u32,
    },

    /// The host name for workers does not lead to this machine.
    #[error(
        "the host name \"{host}\" for the workers does not resolve: {source}; use 127.0.0.1 (--worker-host 127.0.0.1)"
    )]
    HostUnknown {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },

    /// A setting that is not `name=value`.
    #[error("\"{text}\" is not a setting; write it as name=value, for example --set work_mem=64MB")]
    NotASetting {
        /// What was written.
        text: String,
    },

    /// A setting that would take the cluster apart.
    #[error("setting \"{name}\" cannot be set: it follows from the cluster's directory and ports")]
    ReservedSetting {
        /// The setting.
        name: String,
    },

    /// A program of PostgreSQL failed.
    #[error("{program} failed ({status}):\n{output}")]
    ProgramFailed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },

    /// A server did not come up.
    #[error("{node} did not start; the end of its log {log}:\n{tail}")]
    StartFailed {
        /// The node.
        node: NodeName,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },

    /// Processes are still there after they should have gone.
    #[error("processes of {node} do not end: {pids:?}")]
    StillRunning {
        /// The node.
        node: NodeName,
        /// The processes.
        pids: Vec<i32>,
    },

    /// A process could not be signalled.
    #[error("cannot signal process {pid} of {node}: {source}")]
    Signal {
        /// The node.
        node: NodeName,
        /// The process.
        pid: i32,
        /// What the system said.
        source: io::Error,
    },

    /// A server refused a connection or a statement.
    #[error("{node} said: {}", message_of(source))]
    Sql {
        /// The node.
        node: NodeName,
        /// What it answered.
        source: postgres::Error,
    },

    /// The system refused an operation on a file.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was to be done, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ClusterError {
    /// Names the file and what was to be done to it, for `map_err`.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }

    /// Names the node, for `map_err`.
    pub(crate) fn sql(node: NodeName) -> impl FnOnce(postgres::Error) -> Self {
        move |source| Self::Sql { node, source }
    }
}

/// What the server said, or why it could not be asked; the client's own message is only "db error".
pub(crate) fn message_of(error: &postgres::Error) -> String {
    if let Some(db_error) = error.as_db_error() {
        return db_error.message().to_owned();
    }
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}
