//! Whether healthy placements were equal could only be found out by hand, on the workers.

use testkit::TestCluster;

fn damaged() -> (TestCluster, String) {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (id int PRIMARY KEY, a text)", "t", "id", 2, 2);
    cluster.sql("INSERT INTO t SELECT i, 'a' FROM generate_series(1, 2000) i");
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_catalog.check_placements('t')"), "0");
    let placements = cluster.sql(
        "SELECT shard_id, node_port FROM pgs_distribution_metadata.shard_placement ORDER BY shard_id, id",
    );
    // The second placement of the first shard.
    let (shard, port) = (&placements[1][0], &placements[1][1]);
    let mut worker = cluster.session_on(cluster.worker_on(port));
    let of_it = |condition: &str| {
        format!("(SELECT id FROM t_{shard} WHERE a = 'a' ORDER BY id {condition})")
    };
    worker.sql(&format!("UPDATE t_{shard} SET a = 'b' WHERE id IN {}", of_it("LIMIT 3")));
    worker.sql(&format!("DELETE FROM t_{shard} WHERE id IN {}", of_it("LIMIT 2")));
    (cluster, format!("{shard} {port}"))
}

#[test]
fn rows_that_differ_are_counted_and_repaired_if_asked() {
    let (cluster, place) = damaged();
    let found = "SELECT shard_id, node_port, rows_missing, rows_surplus FROM pgs_catalog.check_placements('t'";
    let lines = |sql: &str| cluster.sql(sql).iter().map(|row| row.join(" ")).collect::<Vec<_>>();
    assert_eq!(lines(&format!("{found})")), [format!("{place} 5 3")]);
    assert_eq!(lines(&format!("{found}, repair => true)")), [format!("{place} 5 3")]);
    assert!(lines(&format!("{found})")).is_empty());
    assert_eq!(cluster.assert_placements_equal("t"), 2000);
    assert_eq!(cluster.text("SELECT count(*) FROM t WHERE a = 'b'"), "0");
}

#[test]
fn a_placement_of_another_definition_is_named_without_counts() {
    let (cluster, place) = damaged();
    let (shard, port) = place.split_once(' ').expect("shard and port");
    cluster
        .session_on(cluster.worker_on(port))
        .sql(&format!("ALTER TABLE t_{shard} ADD COLUMN b int"));
    assert_eq!(
        cluster.text("SELECT rows_missing IS NULL AND shard_id IS NOT NULL FROM pgs_catalog.check_placements('t')"),
        "t"
    );
}

#[test]
fn only_the_owner_compares_placements() {
    let (cluster, _) = damaged();
    cluster.on_all_nodes("CREATE ROLE curious LOGIN");
    let mut curious = cluster.session_as("curious");
    let error = curious.error("SELECT * FROM pgs_catalog.check_placements('t')");
    assert_eq!(error.line(), "42501: must be owner of table t");
    let error = curious.error("SELECT * FROM pgs_catalog.in_doubt");
    assert_eq!(error.sqlstate, "42501");
}

#[test]
fn writers_go_on_beside_a_comparison_of_equal_placements() {
    let (cluster, _) = damaged();
    cluster.sql("SELECT * FROM pgs_catalog.check_placements('t', true)");
    let mut writer = cluster.new_session();
    writer.sql("BEGIN");
    writer.sql("UPDATE t SET a = 'c' WHERE id = 1");
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_catalog.check_placements('t')"), "0");
    writer.sql("COMMIT");
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_catalog.check_placements('t')"), "0");
}
