//! The functions of pg_shard 1.2: their errors in their order, and what they leave behind on the workers.

use std::fs;
use std::io::Write;
use testkit::{NodeName, TestCluster};

fn expect(cluster: &TestCluster, sql: &str, sqlstate: &str, message: &str) {
    let error = cluster.error(sql);
    assert_eq!((error.sqlstate.as_str(), error.message.as_str()), (sqlstate, message), "{sql}");
}

#[test]
fn errors_have_the_codes_and_texts_of_1_2() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TABLE t (k int, p point)");
    cluster.sql("CREATE VIEW v AS SELECT * FROM t");
    let distribute =
        |arguments: &str| format!("SELECT master_create_distributed_table({arguments})");
    let create = |arguments: &str| format!("SELECT master_create_worker_shards({arguments})");
    for (sql, code, text) in [
        (distribute("'nowhere', 'k'"), "42P01", "relation \"nowhere\" does not exist"),
        (distribute("'v', 'k'"), "42809", "cannot distribute relation: v"),
        (distribute("'t', 'x'"), "42703", "column \"x\" of relation \"t\" does not exist"),
        (
            distribute("'t', 'ctid'"),
            "42P10",
            "column \"ctid\" of relation \"t\" is a system column",
        ),
        (
            distribute("'t', 'p'"),
            "42704",
            "data type point has no default operator class for specified partition method",
        ),
        (distribute("'t', 'k', 'r'"), "0A000", "pg_shard only supports hash partitioning"),
        (distribute("'t', 'k', 'a'"), "22023", "unrecognized table partition type: a"),
        (create("'t', 4, 2"), "42704", "no partition column is defined for relation \"t\""),
    ] {
        expect(&cluster, &sql, code, text);
    }
    cluster.sql(&distribute("'t', 'k'"));
    for (sql, code, text) in [
        ("SELECT * FROM t".to_owned(), "55000", "could not find any shards for query"),
        (create("'t', 0, 2"), "22023", "shard_count must be positive"),
        (create("'t', 4, 0"), "22023", "replication_factor must be positive"),
        (create("'t', 4, 3"), "22023", "replication_factor (3) exceeds number of worker nodes (2)"),
    ] {
        expect(&cluster, &sql, code, text);
    }
    let list = cluster.data_dir(NodeName::Coordinator).join("pg_worker_list.conf");
    let workers = fs::read_to_string(&list).expect("the cluster wrote it");
    fs::write(&list, "localhost\n").expect("we may write it");
    expect(
        &cluster,
        &create("'t', 4, 2"),
        "F0000",
        "could not parse worker node line: localhost\n",
    );
    fs::write(&list, workers).expect("we may write it");
    cluster.sql(&create("'t', 4, 2"));
    expect(
        &cluster,
        &create("'t', 4, 2"),
        "55000",
        "table \"t\" has already had shards created for it",
    );
    expect(
        &cluster,
        "SELECT master_copy_shard_placement(1, 'a', 1, 'b', 2)",
        "42704",
        "shard with ID 1 does not exist",
    );
    expect(
        &cluster,
        "SELECT master_copy_shard_placement(10000, 'a', 1, 'b', 2)",
        "22000",
        "could not find placement matching \"a:1\"",
    );
    expect(
        &cluster,
        "DROP EXTENSION pg_shard",
        "2BP01",
        "cannot drop extension pg_shard because other objects depend on it",
    );
    expect(
        &cluster,
        "SELECT partition_column_to_node_string(NULL)",
        "22004",
        "table_oid must not be null",
    );
    let name =
        "SELECT column_to_column_name('t'::regclass, column_name_to_column('t'::regclass, 'p'))";
    assert_eq!(cluster.text(name), "p");
}

#[test]
fn shards_carry_the_whole_definition_and_go_with_the_table() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE ROLE owner LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE stranger LOGIN; GRANT CREATE ON DATABASE postgres TO owner");
    let mut owner = cluster.session_as("owner");
    owner.sql("CREATE SCHEMA \"App\"");
    owner.sql(
        "CREATE TABLE \"App\".\"Things\" (\"Key\" varchar(20) PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, \
         g int GENERATED ALWAYS AS (length(\"Key\")) STORED, c text COLLATE \"C\" CHECK (c <> 'bad'), \
         EXCLUDE USING btree (\"Key\" WITH =)) WITH (fillfactor = 70)",
    );
    owner.sql("CREATE INDEX \"Partial\" ON \"App\".\"Things\" (lower(c)) WHERE c IS NOT NULL");
    owner.sql("COMMENT ON TABLE \"App\".\"Things\" IS 'it''s ours'");
    owner.sql(
        "GRANT USAGE ON SCHEMA \"App\" TO reader; GRANT SELECT ON \"App\".\"Things\" TO reader",
    );
    owner.sql("SELECT master_create_distributed_table('\"App\".\"Things\"', 'Key')");
    owner.sql("SELECT master_create_worker_shards('\"App\".\"Things\"', 2, 2)");
    owner.sql("INSERT INTO \"App\".\"Things\" (\"Key\", c) VALUES ('abc', 'x'), ('de', 'y')");
    assert_eq!(owner.text("SELECT \"Key\", g FROM \"App\".\"Things\" ORDER BY 1"), "abc|3\nde|2");

    let shard = "'\"App\".\"Things_10000\"'::regclass";
    let mut worker = cluster.session_on(NodeName::Worker(1));
    for (what, expected) in [
        (format!("SELECT reloptions::text FROM pg_class WHERE oid = {shard}"), "{fillfactor=70}"),
        (format!("SELECT relowner::regrole FROM pg_class WHERE oid = {shard}"), "owner"),
        (format!("SELECT obj_description({shard}, 'pg_class')"), "it's ours"),
        (
            format!(
                "SELECT count(*) FROM pg_constraint WHERE contype <> 'n' AND conrelid = {shard}"
            ),
            "3",
        ),
        (
            format!(
                "SELECT pg_get_expr(indpred, indrelid) FROM pg_index WHERE indexrelid = '\"App\".\"Partial_10000\"'::regclass AND indrelid = {shard}"
            ),
            "(c IS NOT NULL)",
        ),
        (
            format!(
                "SELECT collname FROM pg_attribute a JOIN pg_collation c ON c.oid = attcollation WHERE attrelid = {shard} AND attname = 'c'"
            ),
            "C",
        ),
    ] {
        assert_eq!(worker.text(&what), expected, "{what}");
    }
    assert_eq!(cluster.session_as("reader").text("SELECT count(*) FROM \"App\".\"Things\""), "2");
    assert_eq!(
        cluster
            .session_as("reader")
            .error("DELETE FROM \"App\".\"Things\" WHERE \"Key\" = 'de'")
            .sqlstate,
        "42501"
    );
    assert_eq!(
        cluster
            .session_as("stranger")
            .error("SELECT * FROM \"App\".\"Things\" WHERE \"Key\" = 'de'")
            .sqlstate,
        "42501"
    );

    owner.sql("BEGIN; DROP SCHEMA \"App\" CASCADE; ROLLBACK");
    assert_eq!(owner.text("SELECT count(*) FROM \"App\".\"Things\""), "2");
    owner.sql("DROP TABLE \"App\".\"Things\"");
    assert!(cluster.tables_on(NodeName::Worker(1), "Things%").is_empty());
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_distribution_metadata.shard_placement"), "0");
}

#[test]
fn failed_creation_leaves_no_shard_and_hand_edited_metadata_reach_other_sessions() {
    let cluster = TestCluster::up(2);
    // Configurations of text search do not follow.
    cluster.sql("CREATE TEXT SEARCH CONFIGURATION own (COPY = simple)");
    cluster.sql(
        "CREATE TABLE t (k int, m text, v tsvector GENERATED ALWAYS AS (to_tsvector('own', m)) STORED)",
    );
    cluster.sql("SELECT master_create_distributed_table('t', 'k')");
    cluster.error("SELECT master_create_worker_shards('t', 4, 2)");
    assert!(cluster.tables_on(NodeName::Worker(1), "t\\_1%").is_empty());

    cluster.create_distributed("CREATE TABLE u (k int, v int)", "u", "k", 1, 2);
    cluster.sql("INSERT INTO u VALUES (1, 1)");
    let mut other = cluster.new_session();
    other.sql("PREPARE read(int) AS SELECT v FROM u WHERE k = $1");
    for _ in 0..7 {
        assert_eq!(other.text("EXECUTE read(1)"), "1");
    }
    let placements = cluster.placements("u");
    cluster
        .session_on(placements[1].node)
        .sql(&format!("UPDATE {} SET v = 2", cluster.shard_name("u", placements[1].shard)));
    cluster.sql(&format!(
        "UPDATE pgs_distribution_metadata.shard_placement SET shard_state = 3 WHERE id = {}",
        placements[0].id
    ));
    assert_eq!(other.text("EXECUTE read(1)"), "2");
}

#[test]
fn an_insert_proxy_sends_rows_to_the_shards() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int, s text DEFAULT 'd')", "t", "k", 4, 2);
    let mut session = cluster.new_session();
    assert_eq!(session.text("SELECT create_insert_proxy_for_table('t')"), "t_insert_proxy");
    session.sql("INSERT INTO t_insert_proxy (k) SELECT generate_series(1, 10)");
    assert_eq!(session.text("SELECT count(*), min(s) FROM t"), "10|d");
    // The trigger function's name is taken for this session, as it was in 1.2.
    let error = session.error("SELECT create_insert_proxy_for_table('t')");
    assert_eq!(error.sqlstate, "42P07");
    session.sql("CREATE TABLE u (k int)");
    let error = session.error("SELECT create_insert_proxy_for_table('u')");
    assert_eq!(error.sqlstate, "42723");
}

#[test]
fn an_insert_proxy_takes_odd_names_copy_and_a_counter_and_a_bad_row_undoes_all() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE SCHEMA \"Some where\"");
    let table = "\"Some where\".\"A \"\"table\"\"'\"";
    cluster.sql(&format!(
        "CREATE TABLE {table} (\"the 'key'\" int NOT NULL, \"$1\" text DEFAULT 'd', \
         \"Twice\" int GENERATED ALWAYS AS (\"the 'key'\" * 2) STORED)"
    ));
    let quoted = table.replace('\'', "''");
    cluster.distribute(&quoted, "the ''key''", 4, 2);
    let mut session = cluster.new_session();
    session.sql("CREATE TEMPORARY SEQUENCE counter MINVALUE 0 START 0");
    assert_eq!(session.text("SELECT nextval('counter')"), "0");
    let proxy = session
        .text(&format!("SELECT create_insert_proxy_for_table('{quoted}', sequence => 'counter')"));
    assert_eq!(proxy, "A \"table\"'_insert_proxy");
    let copy = "COPY pg_temp.\"A \"\"table\"\"'_insert_proxy\" (\"the 'key'\") FROM STDIN";
    let mut send = |rows: &str| {
        let mut writer = session.client().copy_in(copy).expect("COPY begins");
        writer.write_all(rows.as_bytes()).expect("the coordinator takes rows");
        let outcome = writer.finish();
        (outcome.is_ok(), session.text("SELECT currval('counter')"))
    };
    assert_eq!(send("1\n2\n3\n"), (true, "3".to_owned()));
    assert_eq!(cluster.text(&format!("SELECT * FROM {table} ORDER BY 1")), "1|d|2\n2|d|4\n3|d|6");
    // In 1.2 row 4 stayed.
    assert_eq!(send("4\nfive\n"), (false, "4".to_owned()));
    assert_eq!(cluster.text(&format!("SELECT count(*) FROM {table}")), "3");
}

#[test]
fn a_missing_argument_is_named() {
    let cluster = TestCluster::up(1);
    cluster.sql("CREATE TABLE t (k int PRIMARY KEY)");
    for (call, name) in [
        ("create_distributed_table(NULL, 'k')", "table_name"),
        ("create_distributed_table('t', NULL)", "distribution_column"),
        ("create_distributed_table('t', 'k', NULL)", "shard_count"),
        ("create_distributed_table('t', 'k', 4, NULL)", "replication_factor"),
        ("create_reference_table(NULL)", "table_name"),
        ("undistribute_table(NULL)", "table_name"),
        ("partition_column_to_node_string(NULL)", "table_oid"),
    ] {
        expect(&cluster, &format!("SELECT {call}"), "22004", &format!("{name} must not be null"));
    }
}

#[test]
fn colocate_with_none_and_default_name_no_table() {
    let cluster = TestCluster::up(1);
    cluster.sql("CREATE TABLE a (k int PRIMARY KEY); CREATE TABLE b (k int PRIMARY KEY)");
    cluster.sql("CREATE TABLE \"none\" (k int PRIMARY KEY); CREATE TABLE c (k int PRIMARY KEY)");
    cluster.sql("SELECT create_distributed_table('a', 'k', 3, colocate_with => 'none')");
    cluster.sql("SELECT create_distributed_table('b', 'k', 3, colocate_with => 'default')");
    cluster.sql("SELECT create_distributed_table('\"none\"', 'k', 5)");
    cluster.sql("SELECT create_distributed_table('c', 'k', colocate_with => 'public.none')");
    assert_eq!(cluster.placements("c").len(), 5);
}

#[test]
fn a_table_that_is_distributed_is_refused_for_what_it_is() {
    let cluster = TestCluster::up(1);
    cluster.sql("CREATE TABLE t (k int)");
    cluster.sql("SELECT create_distributed_table('t', 'k')");
    for call in ["create_reference_table('t')", "create_distributed_table('t', 'k')"] {
        expect(&cluster, &format!("SELECT {call}"), "55000", "table \"t\" is distributed already");
    }
}

#[test]
fn a_third_field_in_the_worker_list_is_reported_and_a_remark_is_not() {
    let cluster = TestCluster::up(1);
    let port = cluster.port(NodeName::Worker(1));
    let list = cluster.data_dir(NodeName::Coordinator).join("pg_worker_list.conf");
    let create = |table: &str| {
        cluster.sql(&format!("CREATE TABLE {table} (k int PRIMARY KEY)"));
        let mut session = cluster.new_session();
        session.sql(&format!("SELECT create_distributed_table('{table}', 'k', 1)"));
        session.warnings().into_iter().map(|warning| warning.message).collect::<Vec<_>>()
    };
    fs::write(&list, format!("127.0.0.1 {port} # the only one\n")).unwrap();
    assert_eq!(create("a"), Vec::<String>::new());
    fs::write(&list, format!("# host port\n127.0.0.1 {port} shop\n")).unwrap();
    assert_eq!(create("b"), ["ignoring \"shop\" in line 2 of the worker list file"]);
    fs::write(&list, "127.0.0.1 99999\n").unwrap();
    cluster.sql("CREATE TABLE c (k int PRIMARY KEY)");
    let error = cluster.error("SELECT create_distributed_table('c', 'k', 1)");
    assert_eq!(error.message, "could not parse worker node line: 127.0.0.1 99999\n");
}

#[test]
fn an_object_that_a_node_lacks_is_asked_for_by_a_hint_that_names_the_node() {
    let cluster = TestCluster::up(1);
    let node = format!("localhost:{}", cluster.port(NodeName::Worker(1)));
    cluster.sql(
        "CREATE TEXT SEARCH CONFIGURATION own (COPY = simple); \
         CREATE TABLE t (k int PRIMARY KEY, m text, v tsvector GENERATED ALWAYS AS (to_tsvector('own', m)) STORED)",
    );
    cluster.sql("CREATE TABLE u (k int PRIMARY KEY, v int)");
    cluster.sql("CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 2 * $1; END'");
    cluster.sql("SELECT create_distributed_table('u', 'k', 1)");
    for (sql, code) in [
        ("SELECT create_distributed_table('t', 'k', 1)", "42704"),
        ("UPDATE u SET v = twice(v) WHERE k = 1", "42883"),
    ] {
        let error = cluster.error(sql);
        assert_eq!(error.sqlstate, code, "{sql}: {}", error.message);
        assert!(
            error.hint.ends_with(&format!("Create it on node \"{node}\" too.")),
            "{}",
            error.hint
        );
    }
}

/// The refusals said that the table had to be created anew; the way that they name now is the one of the next test.
#[test]
fn refused_changes_of_a_definition_hint_at_a_moment_as_a_local_table() {
    let cluster = TestCluster::up(1);
    cluster.create_distributed("CREATE TABLE t (k int, v int)", "t", "k", 2, 1);
    for change in [
        "ALTER TABLE t DROP COLUMN k",
        "ALTER TABLE t ALTER COLUMN k TYPE text",
        "ALTER TABLE t SET ACCESS METHOD heap",
    ] {
        let error = cluster.error(change);
        assert_eq!(error.sqlstate, "0A000", "{change}: {error}");
        assert_eq!(
            error.hint,
            "Make it a local table with undistribute_table, change it, and distribute it again with \
             create_distributed_table, all in one transaction.",
            "{change}"
        );
    }
}

/// What was said of a foreign key named the table that is distributed as the one that it refers to.
#[test]
fn a_refused_foreign_key_names_both_of_its_tables() {
    let cluster = TestCluster::up(1);
    cluster.sql("CREATE TABLE meant (k int PRIMARY KEY)");
    cluster.sql("CREATE TABLE t (k int PRIMARY KEY, m int CONSTRAINT m REFERENCES meant)");
    let error = cluster.error("SELECT create_distributed_table('t', 'k')");
    let message =
        "cannot distribute table \"t\": foreign key \"m\" refers to local table \"meant\"";
    assert_eq!(error.message, message);
    assert!(error.hint.starts_with("Distribute table \"meant\" first"), "{}", error.hint);
}

/// The library looks for its functions where the script has put them.
#[test]
fn the_extension_says_that_it_cannot_be_relocated() {
    let cluster = TestCluster::up(1);
    let relocatable = "SELECT extrelocatable FROM pg_extension WHERE extname = 'pg_shard'";
    assert_eq!(cluster.text(relocatable), "f");
    cluster.sql("CREATE SCHEMA elsewhere");
    assert_eq!(cluster.error("ALTER EXTENSION pg_shard SET SCHEMA elsewhere").sqlstate, "0A000");
}

#[test]
fn a_definition_changes_while_the_table_is_local_for_a_moment() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TABLE t (k int PRIMARY KEY, v int)");
    cluster.sql("SELECT create_distributed_table('t', 'k', 4)");
    cluster.sql("INSERT INTO t SELECT i, i FROM generate_series(1, 50) AS i");
    let change = [
        "BEGIN",
        "SELECT undistribute_table('t')",
        "ALTER TABLE t ADD COLUMN s text DEFAULT 'd'",
        "CREATE INDEX ON t (v)",
        "SELECT create_distributed_table('t', 'k', 4)",
        "COMMIT",
    ];
    for statement in change {
        cluster.sql(statement);
    }
    assert_eq!(cluster.text("SELECT count(*), sum(v), min(s) FROM t"), "50|1275|d");
    assert_eq!(cluster.placements("t").len(), 4);
}

/// Whether a worker can have the extension was asked of `pg_available_extensions`, which raises an error if the file of any other
/// extension cannot be read. Now it is tried.
#[test]
fn an_unreadable_control_file_of_another_extension_is_in_nobodys_way() {
    let cluster = TestCluster::up(1);
    let shared = cluster.text("SELECT setting FROM pg_config WHERE name = 'SHAREDIR'");
    let broken = std::path::Path::new(&shared)
        .join("extension")
        .join(format!("zz_{}.control", std::process::id()));
    std::os::unix::fs::symlink("/nowhere", &broken).expect("the installation is ours");
    cluster.sql("CREATE TABLE t (k int)");
    let distributed = cluster.session().try_sql("SELECT create_distributed_table('t', 'k', 1)");
    let worker = cluster.workers()[0];
    let created = cluster
        .session_on(worker)
        .text("SELECT count(*) FROM pg_extension WHERE extname = 'pg_shard'");
    fs::remove_file(&broken).expect("it is there");
    assert!(distributed.is_ok(), "{distributed:?}");
    assert_eq!(created, "1");
}
