//! The life of a cluster in one story: under load a node dies, another one joins, shards move and are split, the dead node comes
//! back, and another one is replaced. Clients notice nothing but that shards without a second placement are away with their node.

use crate::clients::{self, ACCOUNTS, ALONE, MONEY, Signals, Told};
use crate::list::keep_in_list;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::thread;
use testkit::{NodeName, TestCluster, wait_until};

const CLIENTS: u64 = 8;

/// Has one placement of each shard; those on the node that dies come back with it.
const WORKER_2: NodeName = NodeName::Worker(2);
/// Is replaced, and comes back later.
const WORKER_3: NodeName = NodeName::Worker(3);

fn cluster() -> TestCluster {
    let cluster = TestCluster::up_with(
        6,
        &[
            ("pg_shard.health_interval", "200ms"),
            ("pg_shard.repair_naptime", "1s"),
            ("pg_shard.silence_timeout", "1s"),
            ("pg_shard.connect_timeout", "1s"),
        ],
    );
    keep_in_list(&cluster, 4);
    cluster.sql(&format!(
        "CREATE TABLE kinds (id int PRIMARY KEY, name text); SELECT create_reference_table('kinds'); \
         INSERT INTO kinds SELECT i, 'kind ' || i FROM generate_series(0, 9) i; \
         CREATE TABLE accounts (id int PRIMARY KEY, money bigint NOT NULL, kind int NOT NULL); \
         SELECT create_distributed_table('accounts', 'id', 8, 2); \
         CREATE TABLE history (id int, other int); \
         SELECT create_distributed_table('history', 'id', colocate_with => 'accounts'); \
         CREATE TABLE alone (id int PRIMARY KEY, n bigint NOT NULL); \
         SELECT create_distributed_table('alone', 'id', 4, 1); \
         INSERT INTO accounts SELECT i, {MONEY}, i % 10 FROM generate_series(1, {ACCOUNTS}) i; \
         INSERT INTO alone SELECT i, 0 FROM generate_series(1, {ALONE}) i"
    ));
    cluster
}

/// The keys of `alone` on a node.
fn keys_on(cluster: &TestCluster, node: NodeName) -> BTreeSet<i32> {
    let mut keys = BTreeSet::new();
    for placement in cluster.placements("alone").iter().filter(|it| it.node == node) {
        let sql = format!("SELECT id FROM alone_{}", placement.shard);
        let rows = cluster.session_on(node).sql(&sql);
        keys.extend(rows.concat().iter().map(|id| id.parse::<i32>().expect("a number")));
    }
    keys
}

struct Story<'a> {
    cluster: &'a TestCluster,
    signals: &'a Signals,
}

impl Story<'_> {
    fn wait_for_progress(&self) {
        let before = self.signals.done.load(Ordering::Relaxed);
        wait_until("clients go on", || self.signals.done.load(Ordering::Relaxed) > before + 200);
    }

    fn wait_for_state(&self, worker: NodeName, state: &str) {
        let port = self.cluster.port(worker);
        let sql = format!("SELECT state FROM pgs_catalog.nodes WHERE port = {port}");
        wait_until(&format!("{worker} is {state}"), || self.cluster.text(&sql) == state);
    }

    fn wait_for_repair(&self) {
        wait_until("redundancy is back", || {
            ["kinds", "accounts", "history"].iter().all(|it| self.cluster.unhealthy(it) == 0)
        });
    }

    fn add(&self, number: u16) {
        let port = self.cluster.port(NodeName::Worker(number));
        self.cluster.sql(&format!("SELECT pgs_catalog.add_node('127.0.0.1', {port})"));
    }

    /// What happens to the cluster.
    fn happens(&self) {
        let cluster = self.cluster;
        self.wait_for_progress();
        cluster.kill(WORKER_2).expect("it runs");
        self.wait_for_state(WORKER_2, "down");
        self.wait_for_progress();
        assert!(cluster.unhealthy("accounts") > 0, "writes have missed the node");
        self.add(5);
        cluster.sql("CALL pgs_catalog.rebalance('shards')");
        self.wait_for_progress();
        cluster.start(WORKER_2).expect("it is down");
        self.wait_for_repair();
        let shard = cluster.placements("accounts")[0].shard;
        let parts = cluster.text(&format!(
            "SELECT pgs_catalog.split_shard(id, ARRAY[((min_value::bigint + max_value::bigint) / 2)::int]) \
             FROM pgs_distribution_metadata.shard WHERE id = {shard}"
        ));
        assert_eq!(parts.split(',').count(), 2, "{parts}");
        self.wait_for_progress();
        cluster.sql("CALL pgs_catalog.rebalance('shards')");
        self.wait_for_progress();
    }

    /// A node is lost, its placements are made anew, and it is back later.
    fn is_replaced(&self) {
        let cluster = self.cluster;
        cluster.sql("ALTER SYSTEM SET pg_shard.replace_after = 1");
        cluster.sql("SELECT pg_reload_conf()");
        cluster.kill(WORKER_3).expect("it runs");
        self.add(6);
        self.wait_for_state(WORKER_3, "down");
        let holds = |table: &&str| cluster.placements(table).iter().any(|it| it.node == WORKER_3);
        wait_until("the placements are made anew", || !["accounts", "history"].iter().any(holds));
        assert_eq!(cluster.unhealthy("accounts") + cluster.unhealthy("history"), 0);
        self.wait_for_progress();
        cluster.start(WORKER_3).expect("it is down");
        wait_until("what it had is dropped", || {
            cluster.tables_on(WORKER_3, "accounts\\_%").is_empty()
        });
        self.wait_for_repair();
        self.wait_for_progress();
    }
}

fn check(cluster: &TestCluster, told: &[Told], may_fail: &BTreeSet<i32>) {
    for (key, error) in told.iter().flat_map(|it| &it.errors) {
        assert!(key.is_some_and(|key| may_fail.contains(&key)), "{key:?}: {error}");
    }
    cluster.wait_for_rest();
    for key in 1..=ALONE {
        let raised: u64 = told.iter().map(|it| it.raised[key as usize]).sum();
        let errors = told.iter().flat_map(|it| &it.errors).filter(|it| it.0 == Some(key)).count();
        let stored = cluster.text(&format!("SELECT n FROM alone WHERE id = {key}"));
        let stored: u64 = stored.parse().expect("a number");
        // The connection may have been lost behind the COMMIT.
        assert!((raised..=raised + errors as u64).contains(&stored), "{key}: {raised} {stored}");
    }
    let transfers: u64 = told.iter().map(|it| it.transfers).sum();
    assert_eq!(cluster.text("SELECT count(*) FROM history"), transfers.to_string());
    let total = format!("{ACCOUNTS}|{}", i64::from(ACCOUNTS) * MONEY);
    assert_eq!(cluster.text("SELECT count(*), sum(money) FROM accounts"), total);
    for table in ["kinds", "accounts", "history", "alone"] {
        cluster.assert_placements_equal(table);
    }
}

#[test]
fn clients_notice_nothing_while_nodes_die_join_and_return() {
    let cluster = cluster();
    let signals = Signals::default();
    let mut may_fail = keys_on(&cluster, WORKER_2);
    let story = Story { cluster: &cluster, signals: &signals };
    let told: Vec<Told> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || clients::run(story.cluster, number, story.signals)))
            .collect();
        let ended = Ended(&signals);
        story.happens();
        may_fail.extend(keys_on(&cluster, WORKER_3));
        story.is_replaced();
        drop(ended);
        clients.into_iter().map(|it| it.join().expect("no client has seen what is wrong")).collect()
    });
    check(&cluster, &told, &may_fail);
}

/// Ends the clients, also if the story does not come to its end.
struct Ended<'a>(&'a Signals);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}
