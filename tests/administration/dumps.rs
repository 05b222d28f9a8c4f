//! Dumps of the coordinator: a restored table is distributed again, or says what to do.

use std::process::Output;

use testkit::{NodeName, TestCluster};

const COORDINATOR: NodeName = NodeName::Coordinator;

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn dump(cluster: &TestCluster, arguments: &[&str]) -> String {
    let output = cluster.program("pg_dump", COORDINATOR, arguments, "");
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8(output.stdout).expect("a dump is text")
}

/// Restores into a database, and tells what went wrong.
fn restore(cluster: &TestCluster, database: &str, dump: &str) -> String {
    told(&cluster.psql(COORDINATOR, &["-q", "-v", "ON_ERROR_STOP=0", "-d", database], dump))
}

/// Runs a script in a database, errors included; what it answers, without noise.
fn ask(cluster: &TestCluster, database: &str, script: &str) -> String {
    let arguments = ["-q", "-A", "-t", "-v", "ON_ERROR_STOP=0", "-d", database];
    let output = cluster.psql(COORDINATOR, &arguments, script);
    let answers = String::from_utf8_lossy(&output.stdout).into_owned();
    format!("{}{}", answers, told(&output)).trim_end().to_owned()
}

/// Two distributed tables, a reference table and a local one, and a database on all nodes whose shards are the same.
fn cluster_with_copy() -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster
        .sql("CREATE TABLE a (k int PRIMARY KEY, v text); CREATE TABLE b (k text NOT NULL, n int)");
    cluster.sql("CREATE TABLE r (id int PRIMARY KEY); CREATE TABLE here (x int)");
    cluster.sql("INSERT INTO a SELECT i, 'a' || i FROM generate_series(1, 20) AS i");
    cluster.sql("INSERT INTO b SELECT 'b' || i, i FROM generate_series(1, 30) AS i");
    cluster.sql("INSERT INTO r VALUES (1); INSERT INTO here VALUES (7)");
    cluster.sql("SELECT create_distributed_table('a', 'k', 4, 2)");
    cluster.sql("SELECT create_distributed_table('b', 'k', 3)");
    cluster.sql("SELECT create_reference_table('r')");
    for worker in cluster.workers() {
        cluster.session_on(worker).sql("CREATE DATABASE copy TEMPLATE template0");
        let shards = cluster.program("pg_dump", worker, &[], "");
        let shards = String::from_utf8(shards.stdout).expect("a dump is text");
        // The worker's own extension is left out.
        cluster.psql(worker, &["-q", "-v", "ON_ERROR_STOP=0", "-d", "copy"], &shards);
    }
    cluster.sql("CREATE DATABASE copy TEMPLATE template0");
    cluster
}

const COUNTS: &str = "SELECT count(*), min(v) FROM a; SELECT count(*), sum(n) FROM b; SELECT count(*) FROM r; SELECT x FROM here";

#[test]
fn a_restored_table_refuses_to_be_used_until_it_has_its_shards_back() {
    // Metadata knew tables by OIDs, which a restore changes: restored tables were local and empty, or got the shards of
    // another. Tables now carry a label that is dumped by their names.
    let cluster = cluster_with_copy();
    let errors = restore(&cluster, "copy", &dump(&cluster, &[]));
    assert!(errors.contains("distributed table \"a\" has no metadata under its OID"), "{errors}");
    assert!(errors.contains("pgs_catalog.after_restore()"), "{errors}");
    for statement in
        ["SELECT * FROM a", "INSERT INTO b VALUES ('x', 1)", "DELETE FROM r", "TRUNCATE a"]
    {
        let answer = ask(&cluster, "copy", statement);
        assert!(answer.contains("has no metadata under its OID"), "{statement}: {answer}");
    }
    let after = "SELECT t FROM pgs_catalog.after_restore() AS t ORDER BY t::text";
    assert_eq!(ask(&cluster, "copy", after), "a\nb\nr");
    assert_eq!(ask(&cluster, "copy", COUNTS), "20|a1\n30|465\n1\n7");
    assert_eq!(ask(&cluster, "copy", after), "");
    assert_eq!(
        ask(&cluster, "copy", "INSERT INTO a VALUES (21, 'z'); SELECT v FROM a WHERE k = 21"),
        "z"
    );
    // The number of the next shard came along.
    let next = "CREATE TABLE c (k int); SELECT create_distributed_table('c', 'k', 1); \
                SELECT max(id) FROM pgs_distribution_metadata.shard";
    assert_eq!(ask(&cluster, "copy", next).trim(), "10008");
    assert_eq!(cluster.text("SELECT count(*) FROM a"), "20");

    // A second restore harms nothing.
    let errors = restore(&cluster, "copy", &dump(&cluster, &["--schema-only"]));
    assert!(errors.contains("table \"a\" is distributed already"), "{errors}");
    assert_eq!(ask(&cluster, "copy", "SELECT count(*) FROM a; SELECT count(*) FROM b"), "21\n30");
}

#[test]
fn an_oid_that_is_one_tables_in_the_dump_and_another_ones_here_is_moved_once() {
    // One UPDATE after another moved such an OID twice, and all shards belonged to one table.
    let cluster = cluster_with_copy();
    restore(
        &cluster,
        "copy",
        &dump(&cluster, &["--exclude-table-data=a", "--exclude-table-data=b"]),
    );
    // As if the dump had known a, b and r under the OIDs that b, r and a have here.
    let exchange = "CREATE TEMP TABLE moves AS SELECT substring(label FROM '[0-9]+')::oid AS told, \
            CASE objoid::regclass::text WHEN 'a' THEN 'b'::regclass WHEN 'b' THEN 'r'::regclass ELSE 'a'::regclass END::oid AS now, objoid \
          FROM pg_seclabel WHERE provider = 'pg_shard';
        SET search_path = '';
        UPDATE pgs_distribution_metadata.shard SET relation_id = now FROM pg_temp.moves WHERE relation_id = told;
        UPDATE pgs_distribution_metadata.partition SET relation_id = now FROM pg_temp.moves WHERE relation_id = told;
        UPDATE pg_catalog.pg_seclabel AS l SET label = 'distributed table ' || now FROM pg_temp.moves AS m \
         WHERE m.objoid = l.objoid AND provider = 'pg_shard';";
    assert_eq!(ask(&cluster, "copy", exchange), "");
    let answer = ask(&cluster, "copy", "SELECT count(*) FROM a");
    assert!(answer.contains("has no metadata under its OID"), "{answer}");
    assert_eq!(ask(&cluster, "copy", "SELECT count(*) FROM pgs_catalog.after_restore()"), "3");
    assert_eq!(ask(&cluster, "copy", COUNTS), "20|a1\n30|465\n1\n7");
}

#[test]
fn rows_and_schema_are_restored_into_tables_that_are_distributed_anew() {
    let cluster = cluster_with_copy();
    for worker in cluster.workers() {
        let empty = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";
        cluster.psql(worker, &["-q", "-d", "copy"], empty);
    }
    let metadata = "--exclude-table-data=pgs_distribution_metadata.*";
    for section in ["--section=pre-data", "--section=post-data"] {
        assert_eq!(restore(&cluster, "copy", &dump(&cluster, &[metadata, section])), "");
    }
    let distribute = "SELECT create_distributed_table('a', 'k', 2); SELECT create_distributed_table('b', 'k', 3);
                      SELECT undistribute_table('r'); SELECT create_reference_table('r')";
    assert_eq!(ask(&cluster, "copy", distribute).trim(), "");
    assert_eq!(restore(&cluster, "copy", &dump(&cluster, &[metadata, "--section=data"])), "");
    assert_eq!(ask(&cluster, "copy", COUNTS), "20|a1\n30|465\n1\n7");
}

#[test]
fn a_single_table_of_a_dump_does_not_take_anothers_shards() {
    let cluster = cluster_with_copy();
    let of_a = dump(&cluster, &["-t", "a"]);
    let of_a = of_a.replace("public.a ", "public.second ").replace("a_pkey", "second_pkey");
    let errors = restore(&cluster, "postgres", &of_a);
    assert!(errors.contains("distributed table \"second\" has no metadata"), "{errors}");
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_catalog.after_restore()"), "0");
    assert_eq!(cluster.error("SELECT * FROM second").sqlstate, "55000");
    assert_eq!(cluster.text("SELECT count(*) FROM a"), "20");
    cluster.sql("SELECT undistribute_table('second')");
    cluster.sql("INSERT INTO second VALUES (1, 'local')");
    assert_eq!(cluster.text("SELECT v FROM second"), "local");
    cluster.sql("DROP TABLE second");
    assert_eq!(cluster.text("SELECT count(*) FROM a"), "20");
}

#[test]
fn metadata_that_are_left_never_become_those_of_the_next_table_with_the_oid() {
    let cluster = TestCluster::up(1);
    cluster.sql("CREATE TABLE t (k int); INSERT INTO t VALUES (1)");
    // Metadata of a table that is gone, as a restore leaves them.
    cluster.sql(
        "SET search_path = ''; INSERT INTO pgs_distribution_metadata.partition VALUES ('public.t'::regclass, 'h', 'k'); \
         INSERT INTO pgs_distribution_metadata.shard VALUES (99, 'public.t'::regclass, 't', '-2147483648', '2147483647'); \
         RESET search_path",
    );
    assert_eq!(cluster.text("SELECT count(*) FROM t"), "1");
    let error = cluster.error("SELECT create_distributed_table('t', 'k')");
    assert_eq!(
        error.line(),
        "55000: cannot distribute table \"t\": its OID is that of another table's metadata"
    );
    cluster.sql("DROP TABLE t");
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_distribution_metadata.partition"), "1");
}

#[test]
fn an_extension_that_goes_leaves_local_tables_that_work() {
    let cluster = TestCluster::up(1);
    cluster.sql("CREATE TABLE t (k int, v text); SELECT create_distributed_table('t', 'k', 2)");
    cluster.sql("DROP EXTENSION pg_shard CASCADE");
    let mut session = cluster.new_session();
    session.sql("INSERT INTO t VALUES (1, repeat('x', 100000))");
    session.sql("VACUUM FULL t");
    assert_eq!(session.text("SELECT length(v) FROM t"), "100000");
    session.sql("CREATE EXTENSION pg_shard");
    assert_eq!(session.text("SELECT count(*) FROM t"), "1");
}
