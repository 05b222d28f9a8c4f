//! The demo's last chapter: eight clients move money while a worker dies, another one joins, and shards move and are split.
//!
//! The clients are pgbench's. One that meets an error or a wrong total gives up, and then the demo ends with an error.

use std::path::PathBuf;
use std::process::{self, Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, NodeName};

use crate::psql::{Psql, postgres_variables};
use crate::render;

/// What is in all accounts together.
const TOTAL: &str = "100000";

/// The worker that is not in the list: it joins.
pub(crate) const JOINING: NodeName = NodeName::Worker(5);

/// The worker that dies.
const VICTIM: NodeName = NodeName::Worker(3);

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

const TABLES: [&str; 4] = [
    "CREATE TABLE accounts (id int PRIMARY KEY, money bigint NOT NULL)",
    "SELECT create_distributed_table('accounts', 'id', 8, 2)",
    "CREATE TABLE transfers (id int, other int)",
    "SELECT create_distributed_table('transfers', 'id', colocate_with => 'accounts')",
];

/// Scripts of pgbench, each with its weight. A total that is wrong divides by zero.
const SCRIPTS: [(u32, &str); 3] = [
    (4, "\\set id random(1, 1000)\nSELECT money FROM accounts WHERE id = :id;\n"),
    (
        4,
        "\\set a random(1, 1000)\n\\set b random(1, 1000)\n\\set low least(:a, :b)\n\\set high greatest(:a, :b)\nBEGIN;\n\
         UPDATE accounts SET money = money - 1 WHERE id = :low;\n\
         INSERT INTO transfers VALUES (:a, :b);\n\
         UPDATE accounts SET money = money + 1 WHERE id = :high;\nEND;\n",
    ),
    (1, "SELECT 1 / (sum(money) = 100000)::int FROM accounts;\n"),
];

const PER_NODE: &str = "\
SELECT node_port, count(*) AS placements, count(*) FILTER (WHERE shard_state <> 1) AS inactive
FROM pgs_catalog.placements AS p JOIN pgs_distribution_metadata.shard_placement USING (shard_id, node_name, node_port)
WHERE \"table\" IN ('accounts', 'transfers') GROUP BY 1 ORDER BY 1";

/// The chapter and what it is told with.
pub(crate) struct UnderLoad<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) coordinator: &'a Psql,
    /// Shows a statement and what it answers.
    pub(crate) show: &'a dyn Fn(&str) -> Result<()>,
}

impl UnderLoad<'_> {
    pub(crate) fn tell(&self) -> Result<()> {
        render::chapter("A cluster that changes under load");
        render::tell(
            "Two tables, cut alike, and eight clients that read, move money and add it up, by prepared statements:",
        );
        for statement in TABLES {
            (self.show)(statement)?;
        }
        self.coordinator
            .run(&["INSERT INTO accounts SELECT i, 100 FROM generate_series(1, 1000) i"])?;
        let mut load = Load::start(self.cluster)?;
        self.wait_for_progress(&mut load)?;
        self.lose_a_worker(&mut load)?;
        self.grow(&mut load)?;
        self.get_it_back(&mut load)?;
        load.stop()?;
        render::tell(&format!(
            "No client has met an error or a wrong total. {} transfers were made, and all placements are equal:",
            self.coordinator.value("SELECT count(*) FROM transfers")?
        ));
        (self.show)("SELECT sum(money) FROM accounts")?;
        (self.show)("SELECT * FROM pgs_catalog.check_placements('accounts')")?;
        let total = self.coordinator.value("SELECT sum(money) FROM accounts")?;
        ensure!(total == TOTAL, "the accounts hold {total} instead of {TOTAL}");
        for table in ["accounts", "transfers"] {
            let sql = format!("SELECT count(*) FROM pgs_catalog.check_placements('{table}')");
            ensure!(self.coordinator.value(&sql)? == "0", "placements of {table} differ");
        }
        Ok(())
    }

    fn lose_a_worker(&self, load: &mut Load) -> Result<()> {
        self.cluster.kill(VICTIM)?;
        render::event(&format!("kill -9: {VICTIM} (port {}) is gone.", self.cluster.port(VICTIM)));
        let port = self.cluster.port(VICTIM);
        self.wait_for(load, "it is known to be down", &|psql| {
            let sql = format!("SELECT state FROM pgs_catalog.nodes WHERE port = {port}");
            Ok(psql.value(&sql)? == "down")
        })?;
        self.wait_for_progress(load)
    }

    fn grow(&self, load: &mut Load) -> Result<()> {
        render::tell(
            "A fifth worker joins and gets its share, and a shard becomes two, while the third is still away:",
        );
        let port = self.cluster.port(JOINING);
        (self.show)(&format!("SELECT pgs_catalog.add_node('127.0.0.1', {port})"))?;
        (self.show)("CALL pgs_catalog.rebalance('shards')")?;
        (self.show)(PER_NODE)?;
        let shard = self.coordinator.value(&format!(
            "SELECT min(shard_id) FROM pgs_catalog.placements AS p WHERE \"table\" = 'accounts' AND NOT EXISTS \
             (SELECT FROM pgs_catalog.placements AS o WHERE o.shard_id = p.shard_id AND (NOT o.is_healthy OR o.node_port = {}))",
            self.cluster.port(VICTIM)
        ))?;
        (self.show)(&format!(
            "SELECT pgs_catalog.split_shard({shard}, ARRAY[((first_hash::bigint + last_hash) / 2)::int])\n\
             FROM pgs_catalog.shards WHERE shard_id = {shard}"
        ))?;
        self.wait_for_progress(load)
    }

    fn get_it_back(&self, load: &mut Load) -> Result<()> {
        self.cluster.start(VICTIM)?;
        render::event(&format!(
            "{VICTIM} is back. What it has missed is repaired under the same load."
        ));
        self.wait_for(load, "redundancy is back", &|psql| {
            let sql = "SELECT count(*) FROM pgs_distribution_metadata.shard_placement WHERE shard_state <> 1";
            Ok(psql.value(sql)? == "0")
        })?;
        (self.show)(PER_NODE)?;
        self.wait_for_progress(load)
    }

    fn wait_for_progress(&self, load: &mut Load) -> Result<()> {
        let transfers = || -> Result<u64> {
            let text = self.coordinator.value("SELECT count(*) FROM transfers")?;
            text.parse().context("count(*) did not yield a number")
        };
        let before = transfers()?;
        self.wait_for(load, "clients go on", &|_| Ok(transfers()? > before + 100))
    }

    fn wait_for(
        &self,
        load: &mut Load,
        what: &str,
        is_so: &dyn Fn(&Psql) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self.coordinator)? {
            load.check()?;
            ensure!(Instant::now() < deadline, "waited a minute for this: {what}");
            thread::sleep(Duration::from_millis(100));
        }
        load.check()
    }
}

/// pgbench, at work.
struct Load {
    child: Child,
    /// What it reads and writes, besides the database.
    dir: PathBuf,
    errors: PathBuf,
}

impl Load {
    fn start(cluster: &Cluster) -> Result<Self> {
        // Not in the cluster's directory: what a cluster did not make it does not remove, and the next one would find the directory in use.
        let dir = env::temp_dir().join(format!("pg_shard-demo-load-{}", process::id()));
        fs::create_dir_all(&dir)?;
        let mut command = Command::new(cluster.bin("pgbench"));
        for name in postgres_variables() {
            command.env_remove(name);
        }
        command.args([
            "-n",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-M",
            "prepared",
            "-c",
            "8",
            "-j",
            "2",
        ]);
        command.args(["-T", "3600", "-p", &cluster.port(NodeName::Coordinator).to_string()]);
        for (number, (weight, text)) in SCRIPTS.iter().enumerate() {
            let file = dir.join(format!("{number}.sql"));
            fs::write(&file, text)?;
            command.arg("-f").arg(format!("{}@{weight}", file.display()));
        }
        let errors = dir.join("errors");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&errors)?);
        let child = command.arg("postgres").spawn().context("cannot run pgbench")?;
        Ok(Self { child, dir, errors })
    }

    /// No client has given up.
    fn check(&mut self) -> Result<()> {
        let said = fs::read_to_string(&self.errors).unwrap_or_default();
        let error = said.lines().find(|line| line.contains("error:"));
        ensure!(error.is_none(), "a client gave up: {}", error.unwrap_or_default());
        ensure!(self.child.try_wait()?.is_none(), "pgbench has ended:\n{said}");
        Ok(())
    }

    fn stop(mut self) -> Result<()> {
        self.check()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.dir));
    }
}
