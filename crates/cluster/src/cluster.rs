//! The cluster as a whole: brought up, opened again, operated on, taken down.
//!
//! ```text
//! DIR/cluster.json          what the cluster consists of; written before the first server starts
//! DIR/.s.PGSQL.6000         the unix sockets, one a node
//! DIR/install/              the private copy of PostgreSQL, unless the cluster shares one
//! DIR/coordinator/data/     a node's data directory; in the coordinator's is pg_worker_list.conf
//! DIR/coordinator/server.log
//! DIR/worker1/ ...
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::net::ToSocketAddrs;
use std::ops::{Deref, DerefMut};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::account::ServerAccount;
use crate::configuration;
use crate::error::ClusterError;
use crate::installation::{Artifacts, Installation};
use crate::node_name::NodeName;
use crate::ports;
use crate::server::{NodeState, Server};
use crate::spec::ClusterSpec;
use crate::tree;

/// The file that makes a directory a cluster.
const DESCRIPTION: &str = "cluster.json";

/// Where a cluster that does not share an installation has its own.
const OWN_INSTALLATION: &str = "install";

/// The longest path of a unix socket: `sun_path` of unix(7), less its final zero.
const SOCKET_PATH_LIMIT: usize = 107;

/// A coordinator and its workers.
///
/// Dropping it leaves the servers running; see [`Cluster::down`] and [`Cluster::down_on_drop`].
#[derive(Clone, Debug)]
pub struct Cluster {
    dir: PathBuf,
    description: Description,
    account: ServerAccount,
}

/// The content of `cluster.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Description {
    port: u16,
    workers: u16,
    worker_host: String,
    extension: bool,
    /// In full: a cluster can be taken down when its installation has gone.
    installation: Installation,
    /// The nodes that were upgraded, by name, and what their servers are of since.
    #[serde(default)]
    upgraded: BTreeMap<String, Installation>,
}

impl Cluster {
    /// Brings up a cluster with an installation of its own, from [`Artifacts::of_this_build`].
    pub fn up(spec: &ClusterSpec) -> Result<Self, ClusterError> {
        if spec.extension {
            Self::up_from(spec, &Artifacts::of_this_build()?)
        } else {
            Self::up_plain(spec)
        }
    }

    /// Brings up a cluster with an installation of its own, from these artifacts; without the extension they are not
    /// looked at.
    pub fn up_from(spec: &ClusterSpec, artifacts: &Artifacts) -> Result<Self, ClusterError> {
        if !spec.extension {
            return Self::up_plain(spec);
        }
        Self::up_after(spec, |dir| Installation::prepare(&dir.join(OWN_INSTALLATION), artifacts))
    }

    /// Brings up a cluster from an installation that it shares with others.
    pub fn up_with(installation: &Installation, spec: &ClusterSpec) -> Result<Self, ClusterError> {
        Self::up_after(spec, |_| Ok(installation.clone()))
    }

    /// The cluster in `dir`, whoever brought it up.
    pub fn open(dir: &Path) -> Result<Self, ClusterError> {
        let path = dir.join(DESCRIPTION);
        let Ok(text) = fs::read_to_string(&path) else {
            return Err(ClusterError::NoCluster { dir: dir.to_owned() });
        };
        let description: Description = serde_json::from_str(&text)
            .map_err(|source| ClusterError::DamagedFile { path, source })?;
        Ok(Self {
            dir: fs::canonicalize(dir).map_err(ClusterError::file("find", dir))?,
            description,
            account: ServerAccount::choose()?,
        })
    }

    /// The directory that holds all of it, and the unix sockets.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All nodes, the coordinator first.
    pub fn nodes(&self) -> Vec<NodeName> {
        self.workers().into_iter().fold(vec![NodeName::Coordinator], |mut nodes, worker| {
            nodes.push(worker);
            nodes
        })
    }

    /// The workers, in order of their ports.
    pub fn workers(&self) -> Vec<NodeName> {
        (1..=self.description.workers).map(NodeName::Worker).collect()
    }

    /// The node of that name: "coordinator", "worker1" ...
    pub fn node(&self, name: &str) -> Result<NodeName, ClusterError> {
        let node = name.parse().ok().filter(|node| self.has(*node));
        node.ok_or_else(|| self.unknown(name.to_owned()))
    }

    /// The workers' host name, as the coordinator knows them.
    pub fn worker_host(&self) -> &str {
        &self.description.worker_host
    }

    /// Whether the cluster was brought up with the extension.
    pub fn has_extension(&self) -> bool {
        self.description.extension
    }

    /// The port that `node` listens on, on loopback addresses.
    pub fn port(&self, node: NodeName) -> u16 {
        self.description.port + node.port_offset()
    }

    /// The server's log.
    pub fn log_path(&self, node: NodeName) -> PathBuf {
        self.node_dir(node).join("server.log")
    }

    /// The server's data directory.
    pub fn data_dir(&self, node: NodeName) -> PathBuf {
        self.node_dir(node).join("data")
    }

    /// A connection string for `node`, over TCP, as the superuser.
    pub fn conninfo(&self, node: NodeName) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port(node))
    }

    /// A program of the private copy: `bin("psql")`.
    pub fn bin(&self, program: &str) -> PathBuf {
        self.description.installation.bin(program)
    }

    /// A command line that opens a session on `node`.
    pub fn psql_line(&self, node: NodeName) -> String {
        format!(
            "{} -h 127.0.0.1 -p {} -U postgres postgres",
            self.bin("psql").display(),
            self.port(node)
        )
    }

    /// A session on `node`. A node that does not answer within ten seconds is an error.
    pub fn connect(&self, node: NodeName) -> Result<postgres::Client, ClusterError> {
        self.ensure_has(node)?;
        postgres::Config::new()
            .host("127.0.0.1")
            .port(self.port(node))
            .user("postgres")
            .dbname("postgres")
            .application_name("pgshard")
            .connect_timeout(Duration::from_secs(10))
            .connect(postgres::NoTls)
            .map_err(ClusterError::sql(node))
    }

    /// Whether `node` is up, down or paused.
    pub fn state(&self, node: NodeName) -> Result<NodeState, ClusterError> {
        Ok(self.server(node)?.state())
    }

    /// The number of the process that all others of the server descend from, if it is not down.
    pub fn postmaster_pid(&self, node: NodeName) -> Result<Option<i32>, ClusterError> {
        Ok(self.server(node)?.postmaster().map(|postmaster| postmaster.pid))
    }

    /// Starts `node` and waits until it accepts connections.
    pub fn start(&self, node: NodeName) -> Result<(), ClusterError> {
        self.server(node)?.start()
    }

    /// Shuts `node` down in good order; its sessions are ended. A paused node is resumed for that.
    pub fn stop(&self, node: NodeName) -> Result<(), ClusterError> {
        self.server(node)?.stop()
    }

    /// SIGKILL for all processes of `node`; returns when they are gone, so that it can be started at once.
    pub fn kill(&self, node: NodeName) -> Result<(), ClusterError> {
        self.server(node)?.kill()
    }

    /// SIGSTOP for all processes of `node`: it keeps its connections and answers none. No error if it is paused.
    pub fn pause(&self, node: NodeName) -> Result<(), ClusterError> {
        self.server(node)?.pause()
    }

    /// SIGCONT for all processes of `node`. No error if it is not paused.
    pub fn resume(&self, node: NodeName) -> Result<(), ClusterError> {
        self.server(node)?.resume()
    }

    /// Ends all servers and removes everything that [`Cluster::up`] made. Other files in the directory stay.
    pub fn down(&self) -> Result<(), ClusterError> {
        self.end_servers()?;
        for node in self.nodes() {
            tree::remove(&self.node_dir(node))?;
            let socket = format!(".s.PGSQL.{}", self.port(node));
            tree::remove(&self.dir.join(format!("{socket}.lock")))?;
            tree::remove(&self.dir.join(socket))?;
        }
        tree::remove(&self.dir.join(OWN_INSTALLATION))?;
        tree::remove(&self.dir.join(DESCRIPTION))?;
        if tree::is_empty(&self.dir)? {
            tree::remove(&self.dir)?;
        }
        Ok(())
    }

    /// A guard that takes the cluster down when it goes out of scope.
    ///
    /// While a panic unwinds, the servers are ended but the directory stays, for its logs.
    #[must_use]
    pub fn down_on_drop(self) -> DownOnDrop {
        DownOnDrop { cluster: self }
    }

    fn up_plain(spec: &ClusterSpec) -> Result<Self, ClusterError> {
        Self::up_after(spec, |dir| {
            Installation::prepare_without_extension(&dir.join(OWN_INSTALLATION))
        })
    }

    /// Checks what can be checked, gets the installation, and brings up the cluster; if that fails nothing of it stays.
    fn up_after(
        spec: &ClusterSpec,
        installation: impl FnOnce(&Path) -> Result<Installation, ClusterError>,
    ) -> Result<Self, ClusterError> {
        let account = ServerAccount::choose()?;
        let listen_addresses = check(spec)?;
        let was_absent = !spec.dir.exists();
        fs::create_dir_all(&spec.dir).map_err(ClusterError::file("create", &spec.dir))?;
        let dir = fs::canonicalize(&spec.dir).map_err(ClusterError::file("find", &spec.dir))?;
        let made = Self::make(&dir, spec, &account, listen_addresses, installation);
        if made.is_err() {
            // The error that brought us here is the one to report.
            let _ = tree::remove(&dir.join(OWN_INSTALLATION));
            if was_absent && tree::is_empty(&dir).unwrap_or(false) {
                let _ = tree::remove(&dir);
            }
        }
        made
    }

    fn make(
        dir: &Path,
        spec: &ClusterSpec,
        account: &ServerAccount,
        listen_addresses: &str,
        installation: impl FnOnce(&Path) -> Result<Installation, ClusterError>,
    ) -> Result<Self, ClusterError> {
        ensure_socket_path_fits(dir, spec)?;
        // The servers put their sockets here.
        account.own(dir)?;
        tree::set_mode(dir, 0o755)?;
        account.ensure_reaches(dir)?;
        let cluster = Self {
            dir: dir.to_owned(),
            description: Description {
                port: spec.port,
                workers: spec.workers,
                worker_host: spec.worker_host.clone(),
                extension: spec.extension,
                installation: installation(dir)?,
                upgraded: BTreeMap::new(),
            },
            account: account.clone(),
        };
        // First, so that `down` finds a cluster however far we get.
        cluster.describe()?;
        if let Err(error) = cluster.populate(spec, listen_addresses) {
            // The error that brought us here is the one to report.
            let _ = cluster.down();
            return Err(error);
        }
        Ok(cluster)
    }

    /// Makes and starts all nodes at once, then creates the extension.
    fn populate(&self, spec: &ClusterSpec, listen_addresses: &str) -> Result<(), ClusterError> {
        self.for_all_nodes(|node| {
            self.make_node(node, spec, listen_addresses)?;
            self.start(node)
        })?;
        if spec.extension {
            let mut client = self.connect(NodeName::Coordinator)?;
            client
                .batch_execute("CREATE EXTENSION pg_shard")
                .map_err(ClusterError::sql(NodeName::Coordinator))?;
        }
        Ok(())
    }

    fn make_node(
        &self,
        node: NodeName,
        spec: &ClusterSpec,
        listen_addresses: &str,
    ) -> Result<(), ClusterError> {
        self.account.create_dir(&self.node_dir(node), 0o755)?;
        let data_dir = self.data_dir(node);
        tree::copy(&self.description.installation.template(), &data_dir, self.account.owner())?;

        let path = data_dir.join("postgresql.conf");
        let sample = fs::read_to_string(&path).map_err(ClusterError::file("read", &path))?;
        let settings =
            configuration::server_settings(spec, self.port(node), &self.dir, listen_addresses);
        self.account.write(&path, &(sample + &settings))?;
        self.account.write(&data_dir.join("pg_hba.conf"), configuration::HBA)?;
        if node == NodeName::Coordinator {
            self.account
                .write(&data_dir.join("pg_worker_list.conf"), &configuration::worker_list(spec))?;
        }
        Ok(())
    }

    fn end_servers(&self) -> Result<(), ClusterError> {
        self.for_all_nodes(|node| self.server(node)?.end())
    }

    /// Does the same to all nodes at the same time; the first error, in the order of the nodes, is the result.
    fn for_all_nodes(
        &self,
        work: impl Fn(NodeName) -> Result<(), ClusterError> + Sync,
    ) -> Result<(), ClusterError> {
        thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> =
                self.nodes().into_iter().map(|node| scope.spawn(move || work(node))).collect();
            let results: Vec<_> = threads
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect();
            results.into_iter().collect()
        })
    }

    /// Writes down what the cluster consists of.
    fn describe(&self) -> Result<(), ClusterError> {
        let text =
            serde_json::to_string_pretty(&self.description).expect("paths that came from text");
        let path = self.dir.join(DESCRIPTION);
        fs::write(&path, text).map_err(ClusterError::file("write", &path))
    }

    /// What the server of `node` is of.
    pub(crate) fn installation(&self, node: NodeName) -> &Installation {
        let upgraded = self.description.upgraded.get(&node.to_string());
        upgraded.unwrap_or(&self.description.installation)
    }

    /// The server of `node` is of this from now on.
    pub(crate) fn set_installation(
        &mut self,
        node: NodeName,
        installation: &Installation,
    ) -> Result<(), ClusterError> {
        self.description.upgraded.insert(node.to_string(), installation.clone());
        self.describe()
    }

    /// The user that the servers run as.
    pub(crate) fn account(&self) -> &ServerAccount {
        &self.account
    }

    pub(crate) fn node_dir(&self, node: NodeName) -> PathBuf {
        self.dir.join(node.to_string())
    }

    fn server(&self, node: NodeName) -> Result<Server<'_>, ClusterError> {
        self.ensure_has(node)?;
        Ok(Server {
            node,
            port: self.port(node),
            data_dir: self.data_dir(node),
            log: self.log_path(node),
            socket_dir: self.dir.clone(),
            installation: self.installation(node),
            account: &self.account,
        })
    }

    fn has(&self, node: NodeName) -> bool {
        match node {
            NodeName::Coordinator => true,
            NodeName::Worker(number) => (1..=self.description.workers).contains(&number),
        }
    }

    fn ensure_has(&self, node: NodeName) -> Result<(), ClusterError> {
        if self.has(node) { Ok(()) } else { Err(self.unknown(node.to_string())) }
    }

    fn unknown(&self, name: String) -> ClusterError {
        let existing: Vec<String> = self.nodes().iter().map(NodeName::to_string).collect();
        ClusterError::UnknownNode { name, existing: existing.join(", ") }
    }
}

/// Takes a cluster down when it goes out of scope; see [`Cluster::down_on_drop`].
#[derive(Debug)]
pub struct DownOnDrop {
    cluster: Cluster,
}

impl Deref for DownOnDrop {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl DerefMut for DownOnDrop {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}

impl Drop for DownOnDrop {
    fn drop(&mut self) {
        // There is nobody to hand an error to, and a test that called `down` itself has nothing left here.
        let _ = if thread::panicking() { self.cluster.end_servers() } else { self.cluster.down() };
    }
}

/// Refuses a spec that cannot work here; yields the addresses that the servers will listen on.
fn check(spec: &ClusterSpec) -> Result<&'static str, ClusterError> {
    spec.validate()?;
    if !tree::is_empty(&spec.dir)? {
        return Err(ClusterError::DirectoryTaken { dir: spec.dir.clone() });
    }
    (spec.worker_host.as_str(), spec.port)
        .to_socket_addrs()
        .map_err(|source| ClusterError::HostUnknown { host: spec.worker_host.clone(), source })?;
    let both_families = ports::ipv6_loopback_works();
    for node in spec.nodes() {
        ports::ensure_free(spec.port + node.port_offset(), node, both_families)?;
    }
    Ok(if both_families { "127.0.0.1,::1" } else { "127.0.0.1" })
}

/// Refuses a directory in which the sockets' paths would be too long.
fn ensure_socket_path_fits(dir: &Path, spec: &ClusterSpec) -> Result<(), ClusterError> {
    let longest_name = format!("/.s.PGSQL.{}", spec.port + spec.workers);
    let limit = SOCKET_PATH_LIMIT - longest_name.len();
    let length = dir.as_os_str().as_bytes().len();
    if length > limit {
        return Err(ClusterError::SocketPathTooLong { dir: dir.to_owned(), length, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_too_deep_for_a_socket_is_refused_with_the_numbers() {
        let spec = ClusterSpec::new("/unused", 4, 6000);
        let dir = PathBuf::from(format!("/{}", "d".repeat(92)));
        assert!(ensure_socket_path_fits(&dir, &spec).is_ok());
        let dir = PathBuf::from(format!("/{}", "d".repeat(93)));
        let message = ensure_socket_path_fits(&dir, &spec).unwrap_err().to_string();
        assert!(message.contains("94 bytes, at most 93"), "{message}");
    }

    #[test]
    fn a_directory_without_a_cluster_is_said_to_have_none() {
        let error = Cluster::open(Path::new("/nowhere")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no cluster in /nowhere; bring one up with: pgshard up --dir /nowhere"
        );
    }
}
