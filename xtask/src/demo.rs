//! `cargo xtask demo`: a cluster on this machine, and a story to watch.
//!
//! It is the story that the first pg_shard was shown with: a table of reviews is cut into shards with two placements
//! each, a worker dies, reading and writing go on, and the placements that missed something are repaired. The demo
//! checks what it claims: if a count changes where it must not, it ends with an error. Then the cluster changes under load
//! ([`crate::under_load`]).
//!
//! The cluster stays when the story is over, to be played with; the next run takes it down first.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster::{Cluster, ClusterError, ClusterSpec, NodeName};

use crate::psql::Psql;
use crate::reviews::{self, Reviews};
use crate::under_load::{self, UnderLoad};
use crate::workspace::Workspace;
use crate::{extension, render, setup};

/// How many workers the demo has. The last one joins in the end.
const WORKERS: u16 = 5;

/// The first port that is tried.
const FIRST_PORT: u16 = 6400;

/// The seed of the reviews.
const SEED: u64 = 2016;

/// The worker that dies.
const VICTIM: NodeName = NodeName::Worker(2);

/// How many of the busiest customers are written to while the worker is dead.
const CUSTOMERS_TO_UPDATE: u32 = 6;

/// How many of the repaired shards are compared in the end, placement by placement.
const SHARDS_TO_COMPARE: usize = 4;

const COUNT: &str = "SELECT count(*) FROM customer_reviews";

/// The table of reviews, as the article has it.
pub(crate) const CREATE_TABLE: &str = "\
CREATE TABLE customer_reviews
(
    customer_id          TEXT NOT NULL,
    review_date          DATE,
    review_rating        INTEGER,
    review_votes         INTEGER,
    review_helpful_votes INTEGER,
    product_id           CHAR(10),
    product_title        TEXT,
    product_sales_rank   BIGINT,
    product_group        TEXT,
    product_category     TEXT,
    product_subcategory  TEXT,
    similar_product_ids  CHAR(10)[]
)";

const PLACEMENTS_PER_NODE: &str = "\
SELECT node_name, node_port, count(*) AS placements,
       count(*) FILTER (WHERE shard_state = 1) AS healthy,
       count(*) FILTER (WHERE shard_state = 3) AS inactive
FROM pgs_distribution_metadata.shard_placement
GROUP BY node_name, node_port
ORDER BY node_port";

const MONTHLY_RATINGS: &str = "\
SELECT date_trunc('month', review_date)::date AS month,
       round(avg(review_rating), 2) AS rating,
       count(*) AS reviews
FROM customer_reviews
WHERE product_group = 'Book' AND review_date >= '2005-01-01'
GROUP BY month
ORDER BY month";

const MOST_REVIEWED: &str = "\
SELECT product_id, product_title, product_group,
       count(*) AS reviews, round(avg(review_rating), 2) AS rating
FROM customer_reviews
GROUP BY product_id, product_title, product_group
ORDER BY reviews DESC, product_id
LIMIT 10";

const INACTIVE: &str = "\
SELECT id, shard_id, shard_state, node_name, node_port
FROM pgs_distribution_metadata.shard_placement
WHERE shard_state = 3
ORDER BY shard_id";

/// How long a repair may take.
const REPAIR_TIME: Duration = Duration::from_secs(60);

const INACTIVE_SHARDS: &str = "SELECT DISTINCT shard_id FROM pgs_distribution_metadata.shard_placement WHERE shard_state <> 1 ORDER BY 1";

/// What the demo should be like.
#[derive(Debug)]
pub(crate) struct Options {
    /// Where the cluster lives.
    pub(crate) dir: PathBuf,
    /// The coordinator's port; without it, the first of six free ones.
    pub(crate) port: Option<u16>,
    /// How many reviews are loaded.
    pub(crate) rows: u64,
}

/// Where the demo lives unless it is told.
pub(crate) fn default_dir() -> PathBuf {
    std::env::temp_dir().join("pg_shard-demo")
}

/// Takes the demo's cluster down.
pub(crate) fn down(dir: &Path) -> Result<()> {
    Cluster::open(dir)?.down()?;
    render::say(&format!("The cluster in {} is down and its directory removed.", dir.display()));
    Ok(())
}

/// Builds, brings up the cluster, and tells the story.
pub(crate) fn run(options: &Options) -> Result<()> {
    let postgres = setup::ensure()?;
    let workspace = Workspace::find()?;
    render::say("Building the extension (a few minutes the first time).");
    let files = extension::build(&workspace, &postgres, extension::Profile::Release)?;

    match Cluster::open(&options.dir) {
        Ok(earlier) => {
            let dir = options.dir.display();
            render::say(&format!("Taking down the cluster of an earlier demo in {dir}."));
            earlier.down()?;
        }
        Err(ClusterError::NoCluster { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let port = match options.port {
        Some(port) => port,
        None => free_ports()?,
    };
    let spec = ClusterSpec::new(&options.dir, WORKERS, port);
    let cluster = render::while_busy("Starting a coordinator and five workers", || {
        Cluster::up_from(&spec, &files.artifacts())
    })?;
    shorten_list(&cluster)?;

    let story = Story {
        coordinator: Psql::on(&cluster, NodeName::Coordinator),
        cluster,
        rows: options.rows,
    };
    story.tell()?;
    render::demo_is_over(
        &story.cluster.psql_line(NodeName::Coordinator),
        &workspace.release_dir(&postgres).join("pgshard"),
        story.cluster.dir(),
        options.dir == default_dir(),
    );
    Ok(())
}

/// Leaves the worker that joins later out of the worker list.
fn shorten_list(cluster: &Cluster) -> Result<()> {
    let list = cluster.data_dir(NodeName::Coordinator).join("pg_worker_list.conf");
    let joining = cluster.port(under_load::JOINING).to_string();
    let lines = std::fs::read_to_string(&list)?;
    let others = lines.lines().filter(|line| !line.contains(&joining));
    let text: String = others.map(|line| format!("{line}\n")).collect();
    std::fs::write(&list, text).context("cannot write the worker list")
}

/// The first of as many free ports in a row as the demo has nodes.
fn free_ports() -> Result<u16> {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (FIRST_PORT..FIRST_PORT + 1000)
        .step_by(10)
        .find(|first| (*first..=first + WORKERS).all(is_free))
        .context("no six free ports in a row between 6400 and 7400; choose others with --port")
}

/// The story and what it is told with.
struct Story {
    cluster: Cluster,
    coordinator: Psql,
    rows: u64,
}

impl Story {
    fn tell(&self) -> Result<()> {
        self.introduce()?;
        self.distribute()?;
        self.load()?;
        self.question()?;
        let before = self.count()?;
        ensure!(before == self.rows, "{} reviews were loaded, but there are {before}", self.rows);
        self.kill_a_worker()?;
        let missed = self.go_on_without_it(before)?;
        self.repair(&missed)?;
        let after = self.count()?;
        ensure!(
            after == before + 1,
            "there were {before} reviews, one was added, and now there are {after}"
        );
        self.compare_placements(&missed)?;
        let show = |statement: &str| self.show(statement);
        UnderLoad { cluster: &self.cluster, coordinator: &self.coordinator, show: &show }.tell()
    }

    fn introduce(&self) -> Result<()> {
        render::say("");
        render::chapter("The cluster");
        render::tell(&format!(
            "Six PostgreSQL servers on this machine, from a private copy in {}: a coordinator, four workers, and one more \
             for later. Nothing of the system's own PostgreSQL is touched. The extension is there already: CREATE EXTENSION pg_shard was run on the coordinator.",
            self.cluster.dir().display()
        ));
        let rows = self.cluster.nodes().into_iter().map(|node| {
            let pid =
                self.cluster.postmaster_pid(node)?.map_or_else(String::new, |pid| pid.to_string());
            Ok(vec![node.to_string(), self.cluster.port(node).to_string(), pid])
        });
        render::table(&["node", "port", "process"], rows.collect::<Result<_>>()?);
        Ok(())
    }

    fn distribute(&self) -> Result<()> {
        render::chapter("A distributed table");
        render::tell("An ordinary table and an index, on the coordinator.");
        self.show(CREATE_TABLE)?;
        self.show("CREATE INDEX ON customer_reviews (customer_id)")?;
        render::tell(
            "It is to be cut by the hash of the customer: into 16 shards, each of them on two of the four workers.",
        );
        self.show("SELECT master_create_distributed_table('customer_reviews', 'customer_id')")?;
        self.show("SELECT master_create_worker_shards('customer_reviews', 16, 2)")?;
        self.show(PLACEMENTS_PER_NODE)
    }

    fn load(&self) -> Result<()> {
        render::chapter("Reviews");
        render::statement(NodeName::Coordinator, "COPY customer_reviews FROM STDIN");
        let reviews = Reviews::new(SEED).take(usize::try_from(self.rows)?);
        let progress = render::Progress::new(self.rows);
        let took =
            self.coordinator.copy("customer_reviews", reviews, |sent| progress.reached(sent))?;
        progress.done();
        render::loaded(self.rows, took);
        Ok(())
    }

    fn question(&self) -> Result<()> {
        render::chapter("Three questions");
        let customer = reviews::BUSIEST_CUSTOMER;
        render::tell(
            "How does one customer rate? Only the one shard that can have the answer is asked.",
        );
        self.show(&format!(
            "SELECT count(*) AS reviews, round(avg(review_rating), 2) AS rating, max(review_date) AS latest\n\
             FROM customer_reviews\nWHERE customer_id = '{customer}'"
        ))?;
        render::tell("How were books rated, month by month? All shards are asked at once.");
        self.show(MONTHLY_RATINGS)?;
        render::tell("Which products are reviewed most?");
        self.show(MOST_REVIEWED)
    }

    fn kill_a_worker(&self) -> Result<()> {
        render::chapter("A worker dies");
        self.show(COUNT)?;
        let pid =
            self.cluster.postmaster_pid(VICTIM)?.context("the worker to be killed does not run")?;
        self.cluster.kill(VICTIM)?;
        render::event(&format!(
            "kill -9 {pid}: {VICTIM} (port {}) is gone, all its processes with it.",
            self.cluster.port(VICTIM)
        ));
        render::tell(
            "Every shard that it had is on another worker too. So reading goes on, and nothing is missing:",
        );
        self.show(COUNT)
    }

    /// Reads and writes without the worker; the result is the shards of which it missed something.
    fn go_on_without_it(&self, before: u64) -> Result<Vec<String>> {
        ensure!(self.count()? == before, "the count changed when {VICTIM} died");
        render::tell(
            "Writing goes on as well. A placement that cannot take a write is marked inactive (state 3), so that \
             nobody reads there what is out of date.",
        );
        let customer = reviews::BUSIEST_CUSTOMER;
        self.show(&format!(
            "INSERT INTO customer_reviews (customer_id, review_date, review_rating, product_title)\n\
             VALUES ('{customer}', now(), 5, 'The Hidden Lighthouse')"
        ))?;
        for number in 0..CUSTOMERS_TO_UPDATE {
            self.show(&format!(
                "UPDATE customer_reviews SET review_votes = review_votes + 1 WHERE customer_id = '{}'",
                reviews::customer_id(number)
            ))?;
        }
        self.show(COUNT)?;
        render::tell(&format!("These placements missed something, all of them on {VICTIM}:"));
        self.show(INACTIVE)?;
        let missed = self.inactive_shards()?;
        ensure!(!missed.is_empty(), "{VICTIM} missed writes, but no placement is marked");
        Ok(missed)
    }

    fn repair(&self, missed: &[String]) -> Result<()> {
        render::chapter("The worker comes back");
        render::while_busy("Starting it", || self.cluster.start(VICTIM))?;
        render::event(&format!("{VICTIM} runs again, with the data it had when it was killed."));
        render::tell(
            "A background worker notices that and sends it the rows that it has missed. Nobody has to ask:",
        );
        let is_repaired = || -> Result<()> {
            let deadline = Instant::now() + REPAIR_TIME;
            loop {
                let inactive = self.inactive_shards()?;
                if inactive.is_empty() {
                    return Ok(());
                }
                ensure!(
                    Instant::now() < deadline,
                    "placements of {} of {} shards are still inactive",
                    inactive.len(),
                    missed.len()
                );
                thread::sleep(Duration::from_millis(100));
            }
        };
        render::while_busy("Waiting for the repair", is_repaired)?;
        self.show(PLACEMENTS_PER_NODE)?;
        self.show(COUNT)
    }

    /// Looks at some repaired shards on the workers themselves.
    fn compare_placements(&self, shards: &[String]) -> Result<()> {
        render::tell(
            "All placements are healthy again. To see that they are equal we go to the workers and look at some of \
             the repaired shards there, with a checksum over all columns:",
        );
        let mut rows = Vec::new();
        let mut differing = None;
        for shard in shards.iter().take(SHARDS_TO_COMPARE) {
            let mut contents = Vec::new();
            for node in self.nodes_with(shard)? {
                let content = self.content(node, shard)?;
                let place = vec![format!("customer_reviews_{shard}"), node.to_string()];
                rows.push([place, content.clone()].concat());
                contents.push(content);
            }
            if contents.windows(2).any(|pair| pair[0] != pair[1]) {
                differing = Some(shard);
            }
        }
        render::table(&["shard", "on", "rows", "checksum"], rows);
        match differing {
            Some(shard) => bail!("the placements of shard {shard} differ"),
            None => Ok(()),
        }
    }

    /// The nodes that have a placement of `shard`.
    fn nodes_with(&self, shard: &str) -> Result<Vec<NodeName>> {
        let ports = self.coordinator.rows(&format!(
            "SELECT node_port FROM pgs_distribution_metadata.shard_placement WHERE shard_id = {shard} ORDER BY 1"
        ))?;
        ports.concat().iter().map(|port| self.node_at(port)).collect()
    }

    /// How many rows a placement has, and their checksum, which does not depend on their order.
    fn content(&self, node: NodeName, shard: &str) -> Result<Vec<String>> {
        let query = format!(
            "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM customer_reviews_{shard} t"
        );
        Ok(Psql::on(&self.cluster, node).rows(&query)?.concat())
    }

    /// The node that listens on `port`.
    fn node_at(&self, port: &str) -> Result<NodeName> {
        let node = self
            .cluster
            .nodes()
            .into_iter()
            .find(|node| self.cluster.port(*node).to_string() == port);
        node.with_context(|| format!("no node of this cluster listens on port {port}"))
    }

    /// Shows a statement and what it answers; an error if it fails.
    fn show(&self, statement: &str) -> Result<()> {
        render::statement(self.coordinator.node(), statement);
        let answer = self.coordinator.ask(statement)?;
        render::answer(&answer);
        ensure!(answer.success, "the statement above failed; the cluster is left as it is");
        Ok(())
    }

    fn count(&self) -> Result<u64> {
        self.coordinator.value(COUNT)?.parse().context("count(*) did not yield a number")
    }

    /// The shards that have an inactive placement.
    fn inactive_shards(&self) -> Result<Vec<String>> {
        self.coordinator.rows(INACTIVE_SHARDS).map(|rows| rows.concat())
    }
}
