//! Metadata edited by hand: what is legal works, what makes no sense is an error that names the row, and nothing is answered
//! from it.

use testkit::{NodeName, TestCluster};

const METADATA: &str = "pgs_distribution_metadata";

fn cluster_with_table() -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v int)", "t", "k", 4, 2);
    cluster.sql("INSERT INTO t SELECT i, 0 FROM generate_series(1, 100) AS i");
    cluster
}

#[test]
fn nonsense_in_the_metadata_is_an_error_that_names_the_row() {
    // An owner widened a range: SELECT found one row, UPDATE changed two. A bound that was no number left the shard out
    // without a word. Rows of the metadata are now checked as a whole before a table is used.
    let cluster = cluster_with_table();
    let mut session = cluster.new_session();
    let shard = format!("{METADATA}.shard");
    let placement = format!("{METADATA}.shard_placement");
    let of_shard = "Correct the row with id 10001 in pgs_distribution_metadata.shard.";
    let of_placement = "Correct the row with id 3 in pgs_distribution_metadata.shard_placement.";
    for (edit, detail, hint) in [
        (
            format!("UPDATE {shard} SET min_value = (min_value::int - 1)::text WHERE id = 10001"),
            "The hash ranges of shards 10000 and 10001 overlap.",
            of_shard,
        ),
        (
            format!("UPDATE {shard} SET min_value = 'five' WHERE id = 10001"),
            "Column min_value of shard 10001 is \"five\", which is not an integer.",
            of_shard,
        ),
        (
            format!(
                "ALTER TABLE {shard} ALTER max_value DROP NOT NULL; UPDATE {shard} SET max_value = NULL WHERE id = 10001"
            ),
            "Column max_value of shard 10001 is \"\", which is not an integer.",
            of_shard,
        ),
        (
            format!(
                "UPDATE {shard} SET max_value = min_value, min_value = max_value WHERE id = 10001"
            ),
            "The hash range of shard 10001 begins at -3 and ends at -1073741825.",
            of_shard,
        ),
        (
            format!("UPDATE {shard} SET storage = 'q' WHERE id = 10001"),
            "The storage of shard 10001 is \"q\".",
            of_shard,
        ),
        (
            format!("UPDATE {placement} SET shard_state = 0 WHERE id = 3"),
            "The state of placement 3 of shard 10001 is 0.",
            of_placement,
        ),
        (
            format!("UPDATE {placement} SET node_port = 65536 WHERE id = 3"),
            "The port of placement 3 of shard 10001 is 65536.",
            of_placement,
        ),
        (
            format!("UPDATE {placement} SET node_name = '' WHERE id = 3"),
            "The node name of placement 3 of shard 10001 is empty, or has a comma or a control character.",
            of_placement,
        ),
        (
            format!("UPDATE {placement} SET node_name = E'local\\nhost' WHERE id = 3"),
            "The node name of placement 3 of shard 10001 is empty, or has a comma or a control character.",
            of_placement,
        ),
        (
            format!(
                "UPDATE {placement} AS p SET node_port = o.node_port FROM {placement} AS o WHERE p.id = 3 AND o.id = 4"
            ),
            "Placements 3 and 4 of shard 10001 are on the same node.",
            "Correct the row with id 4 in pgs_distribution_metadata.shard_placement.",
        ),
        (
            format!("UPDATE {METADATA}.partition SET key = 'gone'"),
            "The key \"gone\" is not a column of the table that can be hashed.",
            "Correct the table's row in pgs_distribution_metadata.partition.",
        ),
    ] {
        for use_of_table in [
            "SELECT count(*) FROM t",
            "SELECT v FROM t WHERE k = 1",
            "UPDATE t SET v = v + 1",
            "UPDATE t SET v = v + 1 WHERE k = 1",
            "INSERT INTO t VALUES (1000, 1)",
            "DELETE FROM t WHERE k = 1",
            "TRUNCATE t",
            "COPY t TO STDOUT",
            "ANALYZE t",
            "SELECT undistribute_table('t')",
        ] {
            session.sql(&format!("BEGIN; {edit}"));
            let error = session.error(use_of_table);
            let line = "55000: metadata of distributed table \"t\" are not valid";
            assert_eq!(error.line(), line, "{edit}; {use_of_table}");
            assert_eq!((&*error.detail, &*error.hint), (detail, hint), "{edit}; {use_of_table}");
            session.sql("ROLLBACK");
        }
        session.sql(&format!("BEGIN; {edit}; DROP TABLE t; ROLLBACK"));
        assert_eq!(session.text("SELECT count(*), sum(v) FROM t"), "100|0");
    }
    let mut edited = cluster.new_session();
    edited.sql("PREPARE read AS SELECT v FROM t WHERE k = 1; EXECUTE read");
    cluster.sql(&format!("UPDATE {shard} SET min_value = 'x' WHERE id = 10002"));
    assert_eq!(edited.error("EXECUTE read").sqlstate, "55000");
    cluster.sql("DROP TABLE t");
    assert!(cluster.tables_on(NodeName::Worker(1), "t\\_1%").is_empty());
}

#[test]
fn a_gap_holds_no_rows_for_reads_and_takes_none() {
    let cluster = cluster_with_table();
    let inside = cluster.text(&format!(
        "SELECT min(k) FROM generate_series(1000, 2000) AS k, {METADATA}.shard \
         WHERE id = 10001 AND hashint4(k) BETWEEN min_value::int + 1 AND max_value::int"
    ));
    cluster.sql(&format!("UPDATE {METADATA}.shard SET max_value = min_value WHERE id = 10001"));
    let error = cluster.error(&format!("INSERT INTO t VALUES ({inside}, 1)"));
    assert_eq!(error.line(), "55000: could not find destination shard for new row");
    assert_eq!(cluster.text(&format!("SELECT count(*) FROM t WHERE k = {inside}")), "0");
    assert_eq!(cluster.text("SELECT count(*) FROM t"), "100");
}

#[test]
fn a_node_that_lacks_a_shard_is_told_with_the_tables_own_name() {
    let cluster = cluster_with_table();
    cluster.session_on(NodeName::Worker(1)).sql("DROP TABLE t_10000");
    let error = cluster.error("SELECT count(*) FROM t");
    assert_eq!(error.line(), "42P01: relation \"public.t\" does not exist");
    assert!(error.hint.contains("lacks a shard"), "{error}");
    assert!(error.context.contains(&cluster.port(NodeName::Worker(1)).to_string()), "{error}");
}
