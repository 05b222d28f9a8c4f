//! Rows that are named by their `ctid`.
//!
//! `ctid IN (SELECT ctid ... LIMIT 5)` over several shards deleted 16 rows, some of them not asked for: a row of each shard has
//! the `ctid` (0,1), and nothing said which was meant. The `ctid` of a table with several shards now carries the shard, and
//! whatever is computed of it is computed on the coordinator.

use cluster::NodeName;
use testkit::{Session, TestCluster};

const ROWS: usize = 600;

/// A table of 12 shards, or a local one, of which each third row is old, and each row has 29 others with the same x.
fn table(session: &mut Session, name: &str, placements: usize) {
    session.sql(&format!("CREATE TABLE {name} (k int, v text, x int, PRIMARY KEY (k))"));
    if placements > 0 {
        session.sql(&format!("SELECT create_distributed_table('{name}', 'k', 12, {placements})"));
    }
    session.sql(&format!(
        "INSERT INTO {name} SELECT g, CASE WHEN g % 3 = 0 THEN 'old' ELSE 'new' END, g % 20 FROM generate_series(1, {ROWS}) AS g"
    ));
}

/// The common ways to name rows by `ctid`, with `t` for the table.
const IDIOMS: [&str; 20] = [
    "SELECT count(*), count(DISTINCT ctid), count(DISTINCT tableoid) FROM t",
    "SELECT count(*) FROM t AS a JOIN t AS b ON a.ctid = b.ctid",
    "SELECT count(*) FROM (SELECT ctid FROM t GROUP BY ctid HAVING count(*) = 1) AS s",
    "SELECT count(*) FROM t WHERE ctid IN (SELECT min(ctid) FROM t GROUP BY x)",
    "SELECT count(*) FROM t WHERE ctid = (SELECT max(ctid) FROM t)",
    "SELECT a.k = b.k FROM t AS a JOIN (SELECT k, ctid FROM t ORDER BY k LIMIT 3) AS b ON a.ctid = b.ctid",
    "SELECT count(*) FROM t WHERE ctid = ANY (ARRAY(SELECT ctid FROM t WHERE v = 'old'))",
    "SELECT k FROM t WHERE k = 8 AND ctid IN (SELECT ctid FROM t WHERE k = 8)",
    "DELETE FROM t WHERE ctid IN (SELECT ctid FROM t WHERE v = 'old' LIMIT 5) RETURNING v",
    "DELETE FROM t WHERE ctid = ANY (ARRAY(SELECT ctid FROM t WHERE v = 'old' LIMIT 5)) RETURNING v",
    "DELETE FROM t WHERE ctid IN (SELECT ctid FROM t WHERE v = 'old' LIMIT 5 FOR UPDATE SKIP LOCKED) RETURNING v",
    "DELETE FROM t USING (SELECT ctid FROM t WHERE v = 'old' LIMIT 5) AS d WHERE t.ctid = d.ctid RETURNING v",
    "WITH d AS (SELECT ctid FROM t WHERE v = 'old' LIMIT 5) DELETE FROM t USING d WHERE t.ctid = d.ctid RETURNING v",
    "UPDATE t SET v = 'claimed' WHERE ctid = (SELECT ctid FROM t WHERE v = 'old' LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING v",
    "UPDATE t SET v = 'claimed' WHERE ctid IN (SELECT ctid FROM t WHERE v = 'old' ORDER BY k DESC LIMIT 3) RETURNING v",
    "UPDATE t SET v = 'first' FROM (SELECT min(ctid) AS id FROM t WHERE v = 'new') AS s WHERE t.ctid = s.id RETURNING v",
    "DELETE FROM t WHERE k = 20 AND ctid = (SELECT ctid FROM t WHERE k = 20 LIMIT 1) RETURNING k",
    "DELETE FROM t WHERE x = 1 AND ctid NOT IN (SELECT min(ctid) FROM t GROUP BY x)",
    "DELETE FROM t AS a USING t AS b WHERE a.ctid < b.ctid AND a.x = b.x",
    "SELECT count(*), count(DISTINCT x) FROM t",
];

#[test]
fn rows_are_named_by_ctid_over_shards_as_in_a_local_table() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    for (schema, placements) in [("plain", 0), ("cut", 1)] {
        session.sql(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}, public"));
        table(&mut session, "t", placements);
    }
    for idiom in IDIOMS {
        let mut in_schema = |schema: &str| {
            session.sql(&format!("SET search_path = {schema}, public"));
            session.sql(idiom)
        };
        let (wanted, got) = (in_schema("plain"), in_schema("cut"));
        assert_eq!(got, wanted, "{idiom}");
    }
}

#[test]
fn a_ctid_that_the_client_has_kept_names_the_same_row_and_no_other() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    table(&mut session, "t", 1);
    // By key and over all shards a row has the same ctid.
    for k in [1, 77, 600] {
        let by_key = session.text(&format!("SELECT ctid FROM t WHERE k = {k}"));
        let over_all = session.text(&format!("SELECT ctid FROM t WHERE k + 0 = {k}"));
        assert_eq!(by_key, over_all);
        let found = session.text(&format!("SELECT k FROM t WHERE ctid = '{by_key}'"));
        assert_eq!(found, k.to_string());
        session
            .sql(&format!("PREPARE p{k}(tid) AS UPDATE t SET v = 'p' WHERE ctid = $1 RETURNING k"));
        assert_eq!(session.text(&format!("EXECUTE p{k}('{by_key}')")), k.to_string());
        let moved = session.text(&format!("SELECT ctid FROM t WHERE k = {k}"));
        assert_ne!(moved, by_key, "the row has a new version");
        let both = format!("DELETE FROM t WHERE k = {k} AND ctid = '{moved}' RETURNING k");
        assert_eq!(session.text(&both), k.to_string());
    }
    assert_eq!(session.text("SELECT count(*) FROM t WHERE v = 'p'"), "0");
    let many = "SELECT array_agg(ctid) FROM t WHERE x = 3";
    let kept = session.text(many);
    let deleted = session.sql(&format!("DELETE FROM t WHERE ctid = ANY ('{kept}') RETURNING x"));
    assert_eq!(deleted.len(), ROWS / 20);
    assert!(deleted.iter().all(|row| row[0] == "3"));
}

#[test]
fn what_only_a_node_knows_of_a_ctid_is_refused() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    table(&mut session, "t", 1);
    for statement in [
        "INSERT INTO t VALUES (1000, 'a', 1), (1001, 'a', 1) RETURNING ctid",
        "UPDATE t SET v = 'a' WHERE k = 4 RETURNING ctid::text",
        "UPDATE t SET v = 'a' WHERE x = 4 RETURNING ctid",
    ] {
        let error = session.error(statement);
        assert_eq!(error.sqlstate, "0A000", "{statement}");
    }
    assert_eq!(session.text("SELECT count(*) FROM t WHERE v = 'a'"), "0");
    // Each placement has its rows at places of its own; a client does not know which of them it has seen.
    table(&mut session, "r", 2);
    for statement in [
        "DELETE FROM r WHERE k = 1 AND ctid = '(0,1)'",
        "UPDATE r SET v = 'a' WHERE ctid = ANY (ARRAY['(0,1)'::tid])",
    ] {
        let error = session.error(statement);
        assert_eq!(
            error.line(),
            "0A000: cannot modify rows of replicated table \"r\" by their ctid",
            "{statement}"
        );
    }
}

/// RETURNING of a statement by key lists the `ctid` that a SELECT shows, and one that names a row leads to its shard alone.
#[test]
fn a_statement_by_key_returns_ctids_and_a_ctid_leads_to_one_shard() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE DOMAIN d AS text CHECK (value <> '')");
    let mut session = cluster.new_session();
    session.sql(
        "CREATE TABLE t (k int PRIMARY KEY, v d); SELECT create_distributed_table('t', 'k', 12, 1); \
         INSERT INTO t SELECT g, 'v' FROM generate_series(1, 50) AS g; \
         PREPARE p(int) AS UPDATE t SET v = v || 'p' WHERE k = $1 RETURNING v, ctid",
    );
    for statement in [
        "INSERT INTO t VALUES ({k}, 'new') RETURNING v, ctid",
        "UPDATE t SET v = 'a' WHERE k = {k} RETURNING v, ctid",
        "UPDATE t AS u SET v = 'b' WHERE u.k = {k} AND u.ctid <> '(9,9)' RETURNING u.v, u.ctid",
        "INSERT INTO t VALUES ({k}, 'c') ON CONFLICT (k) DO UPDATE SET v = excluded.v || 'c' RETURNING v, ctid",
        "EXECUTE p({k})",
        "BEGIN; UPDATE t SET v = 'd' WHERE k = {k} RETURNING v, ctid; COMMIT",
        "UPDATE t SET v = 'e' WHERE k = {k} RETURNING v, ctid",
    ] {
        for k in [101, 102, 103] {
            let statement = statement.replace("{k}", &k.to_string());
            if statement.contains("'(9,9)'") {
                // One that the client brings along is compared here.
                assert_eq!(session.error(&statement).sqlstate, "0A000");
                continue;
            }
            let returned = session.text(&statement);
            let stored = session.text(&format!("SELECT v, ctid FROM t WHERE k = {k}"));
            assert_eq!(returned, stored, "{statement}");
            let ctid = returned.split_once('|').expect("two columns").1;
            assert_eq!(
                session.text(&format!("SELECT k FROM t WHERE ctid = '{ctid}'")),
                k.to_string()
            );
            let plan = session.text(&format!("EXPLAIN SELECT k FROM t WHERE ctid = '{ctid}'"));
            assert!(plan.contains("Shards: 1 of 12"), "{plan}");
            let deleted = format!("BEGIN; DELETE FROM t WHERE k = {k} RETURNING v, ctid; ROLLBACK");
            assert_eq!(session.text(&deleted), stored);
        }
    }
    let some = session.text("SELECT array_agg(ctid) FROM t WHERE k IN (101, 102)");
    let plan = session.text(&format!("EXPLAIN SELECT k FROM t WHERE ctid = ANY ('{some}')"));
    assert!(plan.contains("Shards: 2 of 12") || plan.contains("Shards: 1 of 12"), "{plan}");
    assert_eq!(session.text(&format!("SELECT count(*) FROM t WHERE ctid = ANY ('{some}')")), "2");
    assert_eq!(
        session.text("SELECT count(*) FROM t WHERE ctid = NULL OR ctid = '(77,65535)'"),
        "0"
    );
    assert_eq!(session.text("SELECT count(*) FROM t WHERE ctid = '(0,65535)'"), "0");
}

#[test]
fn replicated_rows_are_named_by_the_ctids_that_their_leaders_have() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    table(&mut session, "r", 2);
    let old = "SELECT count(*) FROM r WHERE v = 'old'";
    for statement in [
        "DELETE FROM r WHERE ctid IN (SELECT ctid FROM r WHERE v = 'old' LIMIT 5)",
        "UPDATE r SET v = 'a' WHERE ctid IN (SELECT ctid FROM r WHERE v = 'old' LIMIT 5 FOR UPDATE SKIP LOCKED)",
    ] {
        let before: usize = session.text(old).parse().unwrap();
        assert_eq!(session.count(statement), 5);
        assert_eq!(session.text(old), (before - 5).to_string());
    }
    session.sql("DELETE FROM r AS a USING r AS b WHERE a.ctid < b.ctid AND a.x = b.x");
    assert_eq!(
        session.text("SELECT count(*), count(DISTINCT x), count(DISTINCT ctid) FROM r"),
        "20|20|20"
    );
    cluster.assert_placements_equal("r");
}

#[test]
fn postgres_fdw_writes_rows_over_the_coordinator_by_ctid() {
    let cluster = TestCluster::up(2);
    if !cluster.has_module("postgres_fdw") {
        return;
    }
    let mut session = cluster.new_session();
    table(&mut session, "t", 1);
    let mut client = cluster.session_on(NodeName::Worker(1));
    let port = cluster.port(NodeName::Coordinator);
    client.sql(&format!(
        "CREATE EXTENSION postgres_fdw; \
         CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{port}', dbname 'postgres'); \
         CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (user 'postgres'); \
         CREATE FOREIGN TABLE f (k int, v text, x int) SERVER s OPTIONS (table_name 't')"
    ));
    // A volatile function keeps postgres_fdw from sending the statements whole.
    client.sql("UPDATE f SET v = 'far' WHERE x = 7 AND random() < 2");
    client.sql("DELETE FROM f WHERE x = 8 AND random() < 2");
    assert_eq!(
        session.sql("SELECT DISTINCT v, x FROM t WHERE x IN (7, 8) OR v = 'far'"),
        [["far", "7"]]
    );
    assert_eq!(session.text("SELECT count(*) FROM t"), (ROWS - ROWS / 20).to_string());
}
