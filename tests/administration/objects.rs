//! A library beside objects that another script made.

use testkit::{Session, TestCluster};

fn cluster_with_table() -> (TestCluster, Session) {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v int)", "t", "k", 4, 1);
    cluster.sql("INSERT INTO t SELECT i, i FROM generate_series(1, 100) AS i");
    let session = cluster.new_session();
    (cluster, session)
}

#[test]
fn objects_of_another_version_are_named_with_what_to_run() {
    // The tables of 1.2 have no mark of ours: the library took them for local ones, which are empty.
    let (cluster, mut owner) = cluster_with_table();
    let unmarked = "SET search_path = ''; DELETE FROM pgs_distribution_metadata.partition; \
                    INSERT INTO pgs_distribution_metadata.partition VALUES ('public.t'::regclass, 'h', 'k'); RESET search_path";
    let becomes = |version: &str| {
        format!("UPDATE pg_extension SET extversion = '{version}' WHERE extname = 'pg_shard'")
    };
    for (version, hint) in
        [("2.1", "ALTER EXTENSION pg_shard UPDATE"), ("1.2", "Objects of 1.2 cannot be updated")]
    {
        if version == "1.2" {
            owner.sql(unmarked);
        }
        owner.sql(&becomes(version));
        for statement in
            ["SELECT count(*) FROM t", "INSERT INTO t VALUES (101, 1)", "COPY t TO STDOUT"]
        {
            let error = cluster.new_session().error(statement);
            assert_eq!(error.sqlstate, "55000", "{statement}: {error:?}");
            assert!(error.message.contains(&format!("are of version {version}")), "{error:?}");
            assert!(error.hint.contains(hint), "{error:?}");
        }
        owner.sql(&becomes("2.0"));
    }
}

#[test]
fn a_function_that_an_earlier_script_lacks_is_named() {
    let (_cluster, mut session) = cluster_with_table();
    session.sql(
        "ALTER EXTENSION pg_shard DROP FUNCTION pgs_catalog.is_hashed_by_oid(oid); \
         ALTER FUNCTION pgs_catalog.is_hashed_by_oid(oid) RENAME TO kept",
    );
    let split = "SELECT pgs_catalog.split_shard(min(id), ARRAY[-2000000000]) FROM pgs_distribution_metadata.shard";
    let error = session.error(split);
    assert_eq!(error.sqlstate, "55000", "{error:?}");
    assert!(error.message.contains("pgs_catalog.is_hashed_by_oid is missing"), "{error:?}");
    session.sql(
        "ALTER FUNCTION pgs_catalog.kept(oid) RENAME TO is_hashed_by_oid; \
         ALTER EXTENSION pg_shard ADD FUNCTION pgs_catalog.is_hashed_by_oid(oid)",
    );
    session.sql(split);
    assert_eq!(session.text("SELECT count(*) FROM t"), "100");
}

#[test]
fn rows_of_the_metadata_that_were_kept_make_a_table_distributed_again() {
    // Shards and metadata of 1.2 have the form of ours, so that they can be taken over.
    let (_cluster, mut session) = cluster_with_table();
    let schema = "pgs_distribution_metadata";
    let tables = ["partition", "shard_placement", "shard"];
    for table in tables {
        session.sql(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {schema}.{table}; DELETE FROM {schema}.{table}"));
    }
    assert_eq!(session.text("SELECT count(*) FROM t"), "0");
    for table in ["shard", "shard_placement", "partition"] {
        session.sql(&format!("INSERT INTO {schema}.{table} SELECT * FROM kept_{table}"));
    }
    assert_eq!(session.text("SELECT count(*), sum(v) FROM t"), "100|5050");
    session.sql("UPDATE t SET v = 0 WHERE k = 7");
    assert_eq!(session.text("SELECT sum(v) FROM t"), "5043");
}
