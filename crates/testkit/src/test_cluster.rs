//! Clusters, and what their metadata say.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluster::postgres::{self, Config};
use cluster::{Artifacts, Cluster, ClusterSpec, DownOnDrop, Installation, NodeName, free_ports};

use crate::session::{Rows, Session, SqlError};
use crate::wait::wait_until;

/// A row of `shard_placement`, with its node's name here instead of its port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placement {
    /// The shard it is a copy of.
    pub shard: i64,
    /// Its own number.
    pub id: i64,
    /// 1 is healthy, 3 is inactive.
    pub state: i32,
    /// Where it is.
    pub node: NodeName,
}

/// A cluster with the extension, taken down when it goes out of scope.
pub struct TestCluster {
    // Before the cluster, so that it is closed before the servers are.
    session: Mutex<Session>,
    cluster: DownOnDrop,
}

impl Deref for TestCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl TestCluster {
    /// A coordinator and so many workers, from the build that this test belongs to.
    pub fn up(workers: u16) -> Self {
        Self::up_with(workers, &[])
    }

    /// The same, whose frozen nodes are noticed after a second.
    pub fn impatient(workers: u16) -> Self {
        Self::up_with(
            workers,
            &[("pg_shard.silence_timeout", "1s"), ("pg_shard.connect_timeout", "1s")],
        )
    }

    /// The same with settings for every node, which go before the ones that all tests share.
    pub fn up_with(workers: u16, settings: &[(&str, &str)]) -> Self {
        Self::up_of(&installation(), workers, settings)
    }

    /// The same of an earlier version of PostgreSQL, to be upgraded; none if the tests are not told of one.
    pub fn up_of_earlier_version(workers: u16, settings: &[(&str, &str)]) -> Option<Self> {
        Some(Self::up_of(&older_installation()?, workers, settings))
    }

    /// Has `pg_upgrade` take a node to the version of this build, and starts it; what it says if it refuses.
    pub fn upgrade(&mut self, node: NodeName) -> Result<(), String> {
        self.cluster.stop(node).expect("the node is up");
        let upgraded = self.cluster.upgrade(node, &installation());
        self.cluster.start(node).expect("the node starts again");
        let new = self.wait_for(node);
        if node == NodeName::Coordinator {
            *self.session() = new;
        }
        upgraded.map_err(|error| error.to_string())
    }

    fn up_of(installation: &Installation, workers: u16, settings: &[(&str, &str)]) -> Self {
        let ports = free_ports(workers).expect("a machine that runs tests has free ports");
        let spec = ClusterSpec::new(fresh_dir(), workers, ports)
            .set("fsync", "off")
            .set("shared_buffers", "32MB")
            // Plans change with statistics: a test says when they are brought.
            .set("pg_shard.autoanalyze_naptime", "0")
            .set("pg_shard.repair_naptime", "0")
            .set("pg_shard.health_interval", "0")
            // Whatever a test sends is parsed again and compared with what was meant.
            .set("pg_shard.verify_sql", "on");
        // Settings with which all tests are to run once more: `name=value`, separated by commas.
        let more = std::env::var("PG_SHARD_TEST_SETTINGS").unwrap_or_default();
        let more = more.split(',').filter_map(|setting| setting.split_once('='));
        let spec = more.fold(spec, |spec, (name, value)| spec.set(name.trim(), value.trim()));
        let spec = settings.iter().fold(spec, |spec, (name, value)| spec.set(*name, *value));
        let cluster = Cluster::up_with(installation, &spec)
            .unwrap_or_else(|error| panic!("no cluster: {error}"));
        let cluster = cluster.down_on_drop();
        let session = Mutex::new(Session::open(&config(&cluster, NodeName::Coordinator)));
        Self { session, cluster }
    }

    /// The servers are of an earlier major version of PostgreSQL.
    pub fn is_older_than(&self, version: u32) -> bool {
        let number = self.text("SHOW server_version_num");
        number.parse::<u32>().expect("a number") / 10_000 < version
    }

    /// The servers have that additional module; says so where a test is left out for want of it.
    pub fn has_module(&self, module: &str) -> bool {
        let has =
            format!("SELECT count(*) > 0 FROM pg_available_extensions WHERE name = '{module}'");
        let has = self.text(&has) == "t";
        if !has {
            eprintln!("left out: these servers have no {module}");
        }
        has
    }

    /// The servers were built with ICU; those that `cargo xtask setup` fetches were not.
    pub fn has_icu(&self) -> bool {
        // Two are in the catalog of any build since PostgreSQL 16; initdb adds those that the library knows.
        let icu = "SELECT count(*) > 0 FROM pg_collation WHERE collname = 'und-x-icu'";
        self.text(icu) == "t"
    }

    /// The servers were built with TLS; those that `cargo xtask setup` fetches were not.
    pub fn has_tls(&self) -> bool {
        !self.text("SHOW ssl_library").is_empty()
    }

    /// Waits until the coordinator accepts connections, after a crash, and makes a new session for `sql` and `error`.
    pub fn reconnect(&self) {
        let new = self.wait_for(NodeName::Coordinator);
        *self.session() = new;
    }

    /// Waits until a node accepts connections; a session on it.
    pub fn wait_for(&self, node: NodeName) -> Session {
        let mut session = None;
        wait_until("the node accepts connections", || {
            session = Session::try_open(&config(&self.cluster, node)).ok();
            session.is_some()
        });
        session.unwrap_or_else(|| unreachable!("it was waited for"))
    }

    /// The coordinator's session that this cluster's own `sql` and `error` use.
    pub fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session of its own on the coordinator.
    pub fn new_session(&self) -> Session {
        self.session_on(NodeName::Coordinator)
    }

    /// A session of its own on any node.
    pub fn session_on(&self, node: NodeName) -> Session {
        Session::open(&config(&self.cluster, node))
    }

    /// A session of its own on the coordinator as another role.
    pub fn session_as(&self, role: &str) -> Session {
        Session::open(config(&self.cluster, NodeName::Coordinator).user(role))
    }

    /// The rows of a statement on the coordinator.
    #[track_caller]
    pub fn sql(&self, text: &str) -> Rows {
        self.session().sql(text)
    }

    /// The rows of a statement on the coordinator as one text; see [`Session::text`].
    #[track_caller]
    pub fn text(&self, text: &str) -> String {
        self.session().text(text)
    }

    /// The error of a statement on the coordinator.
    #[track_caller]
    pub fn error(&self, text: &str) -> SqlError {
        self.session().error(text)
    }

    /// Runs the same on every node, the coordinator last: it takes over roles that the workers have.
    #[track_caller]
    pub fn on_all_nodes(&self, text: &str) {
        self.on_workers(text);
        // A session of its own, as theirs: the text may set a role.
        self.new_session().sql(text);
    }

    /// Runs the same on every worker.
    #[track_caller]
    pub fn on_workers(&self, text: &str) {
        for node in self.workers() {
            self.session_on(node).sql(text);
        }
    }

    /// Creates a table by `ddl` and distributes it.
    #[track_caller]
    pub fn create_distributed(
        &self,
        ddl: &str,
        table: &str,
        key: &str,
        shards: u32,
        replicas: u32,
    ) {
        self.sql(ddl);
        self.distribute(table, key, shards, replicas);
    }

    /// Distributes a table that exists.
    #[track_caller]
    pub fn distribute(&self, table: &str, key: &str, shards: u32, replicas: u32) {
        self.sql(&format!("SELECT master_create_distributed_table('{table}', '{key}')"));
        self.sql(&format!("SELECT master_create_worker_shards('{table}', {shards}, {replicas})"));
    }

    /// The worker that listens on this port.
    pub fn worker_on(&self, port: &str) -> NodeName {
        let is_it = |worker: &NodeName| self.port(*worker).to_string() == port;
        self.workers()
            .into_iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("no worker listens on {port}"))
    }

    /// All placements of a table, by shard and number.
    #[track_caller]
    pub fn placements(&self, table: &str) -> Vec<Placement> {
        let rows = self.sql(&format!(
            "SELECT p.shard_id, p.id, p.shard_state, p.node_port FROM pgs_distribution_metadata.shard_placement AS p \
             JOIN pgs_distribution_metadata.shard AS s ON s.id = p.shard_id \
             WHERE s.relation_id = '{table}'::regclass ORDER BY p.shard_id, p.id"
        ));
        let number = |text: &str| text.parse::<i64>().expect("a number column");
        rows.iter()
            .map(|row| Placement {
                shard: number(&row[0]),
                id: number(&row[1]),
                state: i32::try_from(number(&row[2])).expect("an integer column"),
                node: self.worker_on(&row[3]),
            })
            .collect()
    }

    /// How many placements of a table are in another state than 1.
    #[track_caller]
    pub fn unhealthy(&self, table: &str) -> usize {
        self.placements(table).iter().filter(|placement| placement.state != 1).count()
    }

    /// The shard that holds the rows with this key, an SQL expression of the key's own type.
    #[track_caller]
    pub fn shard_of(&self, table: &str, hash_of_key: &str) -> i64 {
        let shard = self.text(&format!(
            "SELECT id FROM pgs_distribution_metadata.shard WHERE relation_id = '{table}'::regclass \
             AND {hash_of_key} BETWEEN min_value::int AND max_value::int"
        ));
        shard.parse().expect("each hash is in one shard")
    }

    /// The name of a shard, quoted and with its schema.
    pub fn shard_name(&self, table: &str, shard: i64) -> String {
        self.text(&format!(
            "SELECT format('%I.%I', nspname, relname || '_{shard}') FROM pg_class JOIN pg_namespace n \
             ON n.oid = relnamespace WHERE pg_class.oid = '{table}'::regclass"
        ))
    }

    /// Compares all healthy placements of every shard, row by row, as the workers have them; tells the number of rows.
    ///
    /// Panics if two differ, if a shard has no healthy placement, and if the coordinator counts other rows.
    #[track_caller]
    pub fn assert_placements_equal(&self, table: &str) -> usize {
        let mut sessions: BTreeMap<NodeName, Session> = BTreeMap::new();
        let placements = self.placements(table);
        let mut first: BTreeMap<i64, (NodeName, Rows)> = BTreeMap::new();
        for placement in placements.iter().filter(|placement| placement.state == 1) {
            let name = self.shard_name(table, placement.shard);
            let session =
                sessions.entry(placement.node).or_insert_with(|| self.session_on(placement.node));
            let rows = session
                .sql(&format!("SELECT shard::text FROM {name} AS shard ORDER BY shard::text"));
            match first.get(&placement.shard) {
                None => {
                    first.insert(placement.shard, (placement.node, rows));
                }
                Some((leader, expected)) if *expected != rows => {
                    panic!(
                        "{name} differs: {}",
                        difference(*leader, expected, placement.node, &rows)
                    );
                }
                Some(_) => {}
            }
        }
        let shards: BTreeSet<i64> = placements.iter().map(|placement| placement.shard).collect();
        let unreadable: Vec<&i64> =
            shards.iter().filter(|shard| !first.contains_key(shard)).collect();
        assert!(
            unreadable.is_empty(),
            "shards of {table} without a healthy placement: {unreadable:?}"
        );
        let total: usize = first.values().map(|(_, rows)| rows.len()).sum();
        assert_eq!(
            self.text(&format!("SELECT count(*) FROM {table}")),
            total.to_string(),
            "rows of {table}"
        );
        total
    }

    /// Runs a statement that never ends and cancels it from another session once it is at work on the nodes; then `after`.
    ///
    /// # Panics
    ///
    /// If the statement ends otherwise than by the cancel, or the session is not good for `after`.
    pub fn cancel_in_the_middle(
        &self,
        mut session: Session,
        statement: &str,
        after: &str,
    ) -> String {
        let pid = session.text("SELECT pg_backend_pid()");
        std::thread::scope(|scope| {
            let ended = scope.spawn(move || (session.error(statement).line(), session.text(after)));
            wait_until("the statement runs on the workers", || {
                self.text(&format!(
                    "SELECT count(*) FROM pgs_catalog.activity WHERE pid = {pid} AND waiting_for <> '{{}}'"
                )) == "1"
            });
            self.sql(&format!("SELECT pg_cancel_backend({pid})"));
            let (error, answer) = ended.join().expect("it does not panic");
            assert_eq!(error, "57014: canceling statement due to user request", "{statement}");
            answer
        })
    }

    /// Waits until no session on a worker is at work or in a transaction.
    pub fn wait_for_rest(&self) {
        for worker in self.workers() {
            let mut session = self.session_on(worker);
            wait_until("the worker has nothing left of the statement", || {
                session.text(
                    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state <> 'idle' \
                     AND pid <> pg_backend_pid()",
                ) == "0"
            });
        }
    }

    /// Repairs every inactive placement of a table from a healthy one; tells how many there were.
    #[track_caller]
    pub fn repair(&self, table: &str) -> usize {
        self.sql(&format!(
            "SELECT master_copy_shard_placement(bad.shard_id, good.node_name, good.node_port, bad.node_name, bad.node_port) \
             FROM pgs_distribution_metadata.shard_placement AS bad \
             JOIN pgs_distribution_metadata.shard AS s ON s.id = bad.shard_id \
             JOIN LATERAL (SELECT * FROM pgs_distribution_metadata.shard_placement AS p \
                           WHERE p.shard_id = bad.shard_id AND p.shard_state = 1 ORDER BY p.id LIMIT 1) AS good ON true \
             WHERE s.relation_id = '{table}'::regclass AND bad.shard_state = 3"
        ))
        .len()
    }

    /// Names of the tables on a worker that match a pattern of LIKE, with their schemas.
    pub fn tables_on(&self, node: NodeName, pattern: &str) -> Vec<String> {
        let rows = self.session_on(node).sql(&format!(
            "SELECT oid::regclass FROM pg_class WHERE relkind IN ('r', 'f') AND relname LIKE '{pattern}' ORDER BY 1"
        ));
        rows.into_iter().flatten().collect()
    }
}

/// How to reach a node of a cluster.
fn config(cluster: &Cluster, node: NodeName) -> Config {
    let mut config = postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(cluster.port(node))
        .user("postgres")
        .dbname("postgres")
        .connect_timeout(Duration::from_secs(10));
    config
}

/// Where two lists of rows part.
fn difference(left: NodeName, of_left: &Rows, right: NodeName, of_right: &Rows) -> String {
    let missing = |here: &Rows, there: &Rows| {
        let there: BTreeSet<&Vec<String>> = there.iter().collect();
        let only_here = here.iter().filter(|row| !there.contains(row)).take(10);
        only_here.map(|row| row.join("|")).collect::<Vec<_>>()
    };
    format!(
        "{} rows on {left}, {} on {right}\nonly on {left}: {:#?}\nonly on {right}: {:#?}",
        of_left.len(),
        of_right.len(),
        missing(of_left, of_right),
        missing(of_right, of_left)
    )
}

/// The variable that names a directory with the library, the control file and the scripts of another build: whether a test
/// fails on it is a test of the test.
const OTHER_BUILD: &str = "PGSHARD_TEST_ARTIFACTS";

/// The variable that names the `pg_config` of the servers that the other build is for.
const OTHER_SERVER: &str = "PGSHARD_TEST_PG_CONFIG";

/// The same two of an earlier version of PostgreSQL, for the tests that upgrade a cluster.
const OLDER_BUILD: &str = "PGSHARD_TEST_OLDER_ARTIFACTS";
const OLDER_SERVER: &str = "PGSHARD_TEST_OLDER_PG_CONFIG";

/// What a variable says that names a file or a directory.
fn path_in(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

/// One copy of PostgreSQL with the library of this build, or of another one, for all tests, kept from run to run.
pub(crate) fn installation() -> Installation {
    let artifacts = match path_in(OTHER_BUILD) {
        Some(dir) => Artifacts { library: dir.join("libpg_shard.so"), extension_dir: dir },
        None => Artifacts::of_this_build().expect("a test knows its own program"),
    };
    installation_of(&artifacts, path_in(OTHER_SERVER))
}

/// The same of an earlier version, if the tests are told of one.
fn older_installation() -> Option<Installation> {
    let (dir, server) = (path_in(OLDER_BUILD)?, path_in(OLDER_SERVER)?);
    let artifacts = Artifacts { library: dir.join("libpg_shard.so"), extension_dir: dir };
    Some(installation_of(&artifacts, Some(server)))
}

fn installation_of(artifacts: &Artifacts, pg_config: Option<PathBuf>) -> Installation {
    let mut hasher = DefaultHasher::new();
    artifacts.library.hash(&mut hasher);
    let dir = std::env::temp_dir().join(format!("pgshard-testkit-{:016x}", hasher.finish()));
    let prepared = match pg_config {
        Some(pg_config) => Installation::prepare_of(&dir, &pg_config, artifacts),
        None => Installation::prepare(&dir, artifacts),
    };
    prepared.unwrap_or_else(|error| panic!("no installation: {error}"))
}

/// A path in the temporary directory that nobody else uses.
fn fresh_dir() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let moment = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.subsec_micros());
    // A killed test leaves its directory, and process numbers come again.
    std::env::temp_dir().join(format!("pgshard-testkit-{}-{number}-{moment:x}", std::process::id()))
}
