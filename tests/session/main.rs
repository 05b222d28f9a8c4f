//! The session of a well-known article on pg_shard 1.2.2, from beginning to end: one coordinator, four workers,
//! table `customer_reviews` in 16 shards of two placements; a worker dies, comes back and is repaired.
//!
//! Rows of the metadata are the article's; only its oid and its ports 1922 to 1925 stand as names here.

/// The book's tutorials.
mod tutorial;

use std::fmt::Write;

use testkit::{NodeName, Script, TestCluster};

const WORKER_1: NodeName = NodeName::Worker(1);

const CUSTOMER_REVIEWS: &str = "CREATE TABLE customer_reviews
(
    customer_id TEXT NOT NULL,
    review_date DATE,
    review_rating INTEGER,
    review_votes INTEGER,
    review_helpful_votes INTEGER,
    product_id CHAR(10),
    product_title TEXT,
    product_sales_rank BIGINT,
    product_group TEXT,
    product_category TEXT,
    product_subcategory TEXT,
    similar_product_ids CHAR(10)[]
)";

const SHARDS: &str = "\
10000|customer_reviews|t|-2147483648|-1879048194
10001|customer_reviews|t|-1879048193|-1610612739
10002|customer_reviews|t|-1610612738|-1342177284
10003|customer_reviews|t|-1342177283|-1073741829
10004|customer_reviews|t|-1073741828|-805306374
10005|customer_reviews|t|-805306373|-536870919
10006|customer_reviews|t|-536870918|-268435464
10007|customer_reviews|t|-268435463|-9
10008|customer_reviews|t|-8|268435446
10009|customer_reviews|t|268435447|536870901
10010|customer_reviews|t|536870902|805306356
10011|customer_reviews|t|805306357|1073741811
10012|customer_reviews|t|1073741812|1342177266
10013|customer_reviews|t|1342177267|1610612721
10014|customer_reviews|t|1610612722|1879048176
10015|customer_reviews|t|1879048177|2147483647";

/// The pair of tables of which one is stale, as the article joins them.
const STALE_PAIRS: &str = "from pgs_distribution_metadata.shard_placement t1 , pgs_distribution_metadata.shard_placement t2 \
    where t1.shard_id=t2.shard_id and (t1.node_name||t1.node_port) <> (t2.node_name||t2.node_port) and t1.shard_state=3";

/// The statement that the article gives to pgbench.
const ARTICLE_INSERT: &str =
    "\\set id random(1, 1000000)\ninsert into customer_reviews values (:id);\n";

/// The article's 32 rows of `shard_placement`: shard i has its placements on workers i and i + 1, round about.
fn placements_of_the_article(state_on_worker_1: i32) -> String {
    let mut text = String::new();
    for placement in 0..32 {
        let shard = placement / 2;
        let worker = (shard + placement % 2) % 4 + 1;
        let state = if worker == 1 { state_on_worker_1 } else { 1 };
        writeln!(text, "{}|{}|{state}|localhost|worker{worker}", placement + 1, 10000 + shard)
            .expect("a string takes all text");
    }
    text.trim_end().to_owned()
}

/// `SELECT * FROM shard_placement` with the workers' names for their ports.
fn placements(cluster: &TestCluster) -> String {
    let rows = cluster.sql("SELECT * FROM pgs_distribution_metadata.shard_placement ORDER BY id");
    let line = |mut row: Vec<String>| {
        row[4] = cluster.worker_on(&row[4]).to_string();
        row.join("|")
    };
    rows.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A customer whose shard has one of its placements on worker 1.
fn key_with_a_placement_on_worker_1(cluster: &TestCluster) -> String {
    let is_on_worker_1 = |key: &String| {
        let shard =
            cluster.shard_of("customer_reviews", &format!("hashtext('{key}' COLLATE \"default\")"));
        matches!(shard % 4, 0 | 3)
    };
    (1..)
        .map(|number| format!("customer {number}"))
        .find(is_on_worker_1)
        .expect("half of the shards are")
}

#[test]
fn the_session_of_2016_runs_from_end_to_end() {
    let cluster = TestCluster::up(4);
    let count = || cluster.text("select count(*) from customer_reviews");

    // The table, its shards, and what the metadata say.
    cluster.sql(CUSTOMER_REVIEWS);
    cluster.sql("SELECT master_create_distributed_table('customer_reviews', 'customer_id')");
    cluster.sql("SELECT master_create_worker_shards('customer_reviews', 16, 2)");
    assert_eq!(
        cluster.text(
            "SELECT nspname, relname, relkind, pg_get_userbyid(relowner) FROM pg_class c JOIN pg_namespace n \
             ON n.oid = relnamespace WHERE nspname = 'pgs_distribution_metadata' AND relkind = 'r' ORDER BY relname"
        ),
        "pgs_distribution_metadata|partition|r|postgres\n\
         pgs_distribution_metadata|shard|r|postgres\n\
         pgs_distribution_metadata|shard_placement|r|postgres"
    );
    assert_eq!(
        cluster.sql("select * from pgs_distribution_metadata.partition"),
        [["oid", "h", "customer_id"].map(|field| match field {
            "oid" => cluster.text("SELECT 'customer_reviews'::regclass::oid"),
            other => other.to_owned(),
        })]
    );
    let oid = cluster.text("SELECT 'customer_reviews'::regclass::oid");
    assert_eq!(
        cluster
            .text("select * from pgs_distribution_metadata.shard ORDER BY id")
            .replace(&oid, "customer_reviews"),
        SHARDS
    );
    assert_eq!(placements(&cluster), placements_of_the_article(1));
    for worker in cluster.workers() {
        assert_eq!(cluster.tables_on(worker, "customer\\_reviews%").len(), 8, "shards on {worker}");
    }

    // The three statements that fail in the article, and the pgbench run whose clients were aborted.
    cluster.sql("insert into customer_reviews values ('a',now())");
    cluster.sql("insert into customer_reviews select generate_series(1,100)");
    cluster.sql("prepare a (text) as insert into customer_reviews values ($1)");
    for key in 0..10 {
        cluster.sql(&format!("execute a ('key {key}')"));
    }
    assert_eq!(count(), "111");
    assert_eq!(
        cluster.text(
            "select review_date = current_date from customer_reviews where customer_id = 'a'"
        ),
        "t"
    );
    let mut expected = 111;
    for mode in ["extended", "prepared", "simple"] {
        let script = Script { weight: 1, text: ARTICLE_INSERT };
        let report = cluster.pgbench(mode, &[script], &["-c", "8", "-j", "2", "-t", "25"]).finish();
        assert!(report.succeeded, "{report:#?}");
        assert_eq!(report.transactions, 200);
        expected += 200;
        assert_eq!(count(), expected.to_string());
    }
    assert_eq!(cluster.assert_placements_equal("customer_reviews"), expected);

    // A worker dies. Reads go on, on the other placements, and mark nothing.
    cluster.kill(WORKER_1).expect("worker 1 is up");
    assert_eq!(count(), expected.to_string());
    assert_eq!(
        cluster.new_session().text("select count(*) from customer_reviews"),
        expected.to_string()
    );
    assert_eq!(cluster.text("select count(*) from customer_reviews where customer_id = 'a'"), "1");
    assert_eq!(placements(&cluster), placements_of_the_article(1));

    // Writes go on too, and say once what they miss.
    let key = key_with_a_placement_on_worker_1(&cluster);
    let insert = format!("insert into customer_reviews values ('{key}', now())");
    let mut session = cluster.new_session();
    session.sql(&insert);
    let warnings = session.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(
        warnings[0].message,
        format!("Connection failed to localhost:{}", cluster.port(WORKER_1))
    );
    assert!(warnings[0].detail.starts_with("Remote message: "), "{}", warnings[0].detail);
    assert!(warnings[0].detail.contains("Connection refused"), "{}", warnings[0].detail);
    session.sql(&insert);
    assert_eq!(session.warnings(), []);
    assert_eq!(cluster.unhealthy("customer_reviews"), 1);
    let script = Script { weight: 1, text: ARTICLE_INSERT };
    let report = cluster.pgbench("simple", &[script], &["-c", "8", "-j", "2", "-t", "50"]).finish();
    assert!(report.succeeded, "{report:#?}");
    expected += 402;
    assert_eq!(count(), expected.to_string());
    assert_eq!(placements(&cluster), placements_of_the_article(3));

    // It comes back. Its stale placements are not read.
    cluster.start(WORKER_1).expect("worker 1 is down");
    assert_eq!(count(), expected.to_string());
    assert_eq!(cluster.sql(&format!("select t1.shard_id,t1.node_name,t1.node_port,t2.node_name,t2.node_port {STALE_PAIRS}")).len(), 8);

    // Arguments in the wrong order are refused, in the right order every shard is repaired.
    let error = cluster.error(&format!(
        "select master_copy_shard_placement(t1.shard_id,t1.node_name,t1.node_port,t2.node_name,t2.node_port) {STALE_PAIRS}"
    ));
    assert_eq!(error.line(), "22023: source placement must be in finalized state");
    assert_eq!(placements(&cluster), placements_of_the_article(3));
    let repaired = cluster.sql(&format!(
        "select master_copy_shard_placement(t1.shard_id,t2.node_name,t2.node_port,t1.node_name,t1.node_port) {STALE_PAIRS}"
    ));
    assert_eq!(repaired.len(), 8);
    assert_eq!(placements(&cluster), placements_of_the_article(1));
    assert_eq!(count(), expected.to_string());
    assert_eq!(cluster.assert_placements_equal("customer_reviews"), expected);
    let written_meanwhile =
        format!("select count(*) from customer_reviews where customer_id = '{key}'");
    assert_eq!(cluster.text(&written_meanwhile), "2");
}
