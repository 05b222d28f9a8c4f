//! What PostgreSQL checks on a table's own rows and definition holds for distributed tables too, or is refused.

use testkit::TestCluster;

#[test]
fn variances_of_huge_and_tiny_numerics_are_those_of_a_local_table() {
    // The sum of squares travelled as a numeric, which has fewer digits than PostgreSQL's own states: `9e131071` overflowed
    // (22003), and a scale of 16383 lost digits.
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TABLE local (k int, huge numeric, tiny numeric, money numeric(12, 2))");
    cluster.create_distributed(
        "CREATE TABLE t (k int, huge numeric, tiny numeric, money numeric(12, 2))",
        "t",
        "k",
        4,
        1,
    );
    for table in ["local", "t"] {
        cluster.sql(&format!(
            "INSERT INTO {table} SELECT i, '9e131071'::numeric + i, ('1e-16383'::numeric) * i, i / 7.0 FROM generate_series(1, 9) AS i"
        ));
    }
    for aggregate in ["var_samp", "var_pop", "stddev", "stddev_pop"] {
        for column in ["huge", "tiny", "huge + tiny", "money", "money * 2"] {
            let ask = |table| {
                let sql = format!(
                    "SELECT md5({aggregate}({column})::text), md5({aggregate}({column} - 1) FILTER (WHERE k > 3)::text) FROM {table}"
                );
                cluster
                    .new_session()
                    .try_sql(&sql)
                    .map(|_| cluster.text(&sql))
                    .map_err(|e| e.sqlstate.clone())
            };
            assert_eq!(ask("t"), ask("local"), "{aggregate}({column})");
        }
    }
    // Columns of a given precision are still added up on the workers.
    let plan = cluster.text("EXPLAIN (COSTS off) SELECT stddev(money) FROM t");
    assert!(plan.contains("sum("), "{plan}");
}

#[test]
fn a_definition_that_names_tableoid_is_not_distributed() {
    // The shard's own `tableoid` was seen: a check that holds every row off the table held none.
    let cluster = TestCluster::up(2);
    cluster.sql(
        "CREATE TABLE checked (k int NOT NULL, CHECK (tableoid::regclass::text <> 'checked')); \
         CREATE TABLE generated (k int NOT NULL, o oid GENERATED ALWAYS AS (tableoid) STORED); \
         CREATE TABLE harmless (k int NOT NULL, o int GENERATED ALWAYS AS (k - 6) STORED, CHECK (k <> -6))",
    );
    for table in ["checked", "generated"] {
        for distribute in [
            format!("SELECT create_distributed_table('{table}', 'k')"),
            format!("SELECT create_reference_table('{table}')"),
            format!("SELECT master_create_distributed_table('{table}', 'k')"),
        ] {
            let error = cluster.new_session().try_sql(&distribute).unwrap_err();
            assert_eq!(error.sqlstate, "0A000", "{distribute}: {error}");
            assert!(error.to_string().contains("tableoid"), "{error}");
        }
    }
    cluster
        .sql("SELECT create_distributed_table('harmless', 'k'); INSERT INTO harmless VALUES (1)");
}

#[test]
fn copy_freeze_is_allowed_where_postgresql_allows_it() {
    // FREEZE was taken for a table of an earlier transaction, where PostgreSQL raises 55000, and after a cursor (25000).
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TABLE local (k int, v int)");
    cluster.create_distributed("CREATE TABLE t (k int, v int)", "t", "k", 2, 1);
    let outcome = |statements: &[&str], table: &str| {
        let mut session = cluster.new_session();
        for statement in statements {
            if let Err(error) = session.try_sql(&statement.replace("{}", table)) {
                return format!("{}: {}", error.sqlstate, statement);
            }
        }
        "done".to_owned()
    };
    let copy = "COPY {} FROM PROGRAM 'printf \"1\\t2\\n\"' (FREEZE)";
    let stories: [&[&str]; 4] = [
        &[copy],
        &["BEGIN", "TRUNCATE {}", copy, "COMMIT"],
        &["BEGIN", "TRUNCATE {}", "SAVEPOINT s", copy],
        &["BEGIN", "TRUNCATE {}", "DECLARE c CURSOR FOR SELECT 1", "FETCH c", copy],
    ];
    for story in stories {
        assert_eq!(outcome(story, "t"), outcome(story, "local"), "{story:?}");
    }
    assert_eq!(outcome(&[copy], "t").get(..5), Some("55000"));
    let made = [
        "BEGIN",
        "CREATE TABLE fresh (k int, v int)",
        "SELECT create_distributed_table('fresh', 'k')",
        "COPY fresh FROM PROGRAM 'printf \"1\\t2\\n\"' (FREEZE)",
        "COMMIT",
    ];
    assert_eq!(outcome(&made, ""), "done");
    assert_eq!(cluster.text("SELECT * FROM fresh"), "1|2");
}

#[test]
fn a_key_with_a_field_that_cannot_be_hashed_is_refused_when_it_is_chosen() {
    // The table was distributed, and each INSERT then failed (42883).
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes(
        "CREATE TYPE bad AS (a int, b point); CREATE TYPE good AS (a int, b text); CREATE DOMAIN over AS bad",
    );
    cluster.sql(
        "CREATE TABLE composite (k bad NOT NULL); CREATE TABLE domain (k over NOT NULL); CREATE TABLE elements (k bad[] NOT NULL); \
         CREATE TABLE bits (k bit(3)[] NOT NULL); CREATE TABLE fits (k good NOT NULL); CREATE TABLE names (k varchar(9) NOT NULL)",
    );
    for table in ["composite", "domain", "elements", "bits"] {
        let distribute = format!("SELECT create_distributed_table('{table}', 'k')");
        let error = cluster.new_session().try_sql(&distribute).unwrap_err();
        assert_eq!(error.sqlstate, "42883", "{table}: {error}");
    }
    cluster.sql(
        "SELECT create_distributed_table('fits', 'k'); INSERT INTO fits VALUES ('(1,x)'); \
         SELECT create_distributed_table('names', 'k'); INSERT INTO names VALUES ('x')",
    );
}
