//! The optional file with the names under which tools of Citus ask.

use testkit::{NodeName, TestCluster};

const NAMES: &str = include_str!("../../sql/citus_names.sql");

fn install(cluster: &TestCluster) {
    let arguments = ["-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"];
    let output = cluster.psql(NodeName::Coordinator, &arguments, NAMES);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn tools_of_citus_find_their_names() {
    let cluster = TestCluster::up(2);
    install(&cluster);
    install(&cluster);
    cluster.sql(
        "CREATE TABLE r (id int PRIMARY KEY); CREATE TABLE a (k int PRIMARY KEY); CREATE TABLE b (k int, n int); CREATE TABLE c (k text)",
    );
    // As tools call it: two arguments, named ones, and the type of distribution.
    cluster.sql("SELECT create_reference_table('r'); SELECT create_distributed_table('a', 'k')");
    cluster.sql("SELECT create_distributed_table('b', 'k', 'hash', colocate_with => 'a')");
    cluster.sql(
        "SELECT create_distributed_table('c', 'k', shard_count => 4, colocate_with => 'none')",
    );
    assert_eq!(
        cluster.error("SELECT create_distributed_table('c', 'k', 'range')").sqlstate,
        "0A000"
    );
    cluster.sql("INSERT INTO a SELECT generate_series(1, 10); INSERT INTO b SELECT k, 1 FROM a");
    let tables = "SELECT table_name, citus_table_type, distribution_column, shard_count FROM citus_tables ORDER BY table_name::text";
    assert_eq!(
        cluster.text(tables),
        "a|distributed|k|16\nb|distributed|k|16\nc|distributed|k|4\nr|reference|<none>|1"
    );
    let alike = "SELECT count(DISTINCT colocationid) FROM pg_dist_partition WHERE logicalrelid IN ('a'::regclass, 'b'::regclass)";
    assert_eq!(cluster.text(alike), "1");
    let key = "SELECT column_to_column_name(logicalrelid, partkey) FROM pg_dist_partition WHERE logicalrelid = 'b'::regclass";
    assert_eq!(cluster.text(key), "k");
    assert_eq!(cluster.text("SELECT count(*) FROM citus_shards"), "38");
    assert_eq!(cluster.text("SELECT count(*) FROM pg_dist_node WHERE isactive"), "2");
    assert_eq!(cluster.text("SELECT count(*) FROM master_get_active_worker_nodes()"), "2");
    let answers =
        "SELECT bool_and(success), string_agg(result, ',') FROM run_command_on_workers('SELECT 7')";
    assert_eq!(cluster.text(answers), "t|7,7");
    let answers = "SELECT bool_and(success), count(*) FROM run_command_on_all_nodes('SELECT 7')";
    assert_eq!(cluster.text(answers), "t|3");
    let rows = "SELECT sum(result::int) FROM run_command_on_shards('a', 'SELECT count(*) FROM %s')";
    assert_eq!(cluster.text(rows), "10");
    assert_eq!(
        cluster.text("SELECT citus_total_relation_size('a') > 0, citus_table_size('a') > 0"),
        "t|t"
    );
    // One shard goes to the other node.
    let moved = "SELECT citus_move_shard_placement(shardid, nodename, nodeport, o.node_name, o.node_port::int, 'block_writes') \
        FROM citus_shards JOIN citus_get_active_worker_nodes() AS o ON o.node_port <> nodeport \
        WHERE shardid = get_shard_id_for_distribution_column('c', 'x'::text)";
    cluster.sql(moved);
    cluster.sql("INSERT INTO c VALUES ('x'); SELECT undistribute_table('c', false)");
    assert_eq!(cluster.text("SELECT k FROM c"), "x");
}
