//! What is refused, and how it is said: never silently done to the empty local table.

use testkit::TestCluster;

#[test]
fn what_would_miss_the_shards_is_refused_and_names_the_table() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE DOMAIN grade AS text");
    cluster.create_distributed(
        "CREATE TABLE events (device text PRIMARY KEY, v int, at date, grade grade)",
        "events",
        "device",
        4,
        2,
    );
    cluster.sql("INSERT INTO events SELECT 'd' || i, i FROM generate_series(1, 20) AS i; CREATE TABLE plain (device text, v int); CREATE TABLE plain_key (k int PRIMARY KEY); CREATE SEQUENCE numbers");
    cluster.sql(
        "CREATE VIEW seen AS SELECT * FROM events; CREATE ROLE reader; CREATE SCHEMA elsewhere; CREATE PUBLICATION of_plain FOR TABLE plain",
    );
    // What concerns no distributed table is not ours.
    cluster.sql("GRANT SELECT ON ALL TABLES IN SCHEMA elsewhere TO reader; ALTER PUBLICATION of_plain DROP TABLE plain");
    let before = cluster.text("SELECT * FROM events ORDER BY 1");
    let refused = [
        "ALTER TABLE events DROP COLUMN device CASCADE",
        "ALTER TABLE events ADD FOREIGN KEY (v) REFERENCES plain_key NOT VALID",
        "ALTER TABLE events ADD COLUMN w int REFERENCES plain_key",
        "ALTER TABLE events INHERIT plain",
        "ALTER TABLE events SET TABLESPACE pg_default",
        "CREATE TRIGGER t BEFORE TRUNCATE ON events EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE RULE r AS ON DELETE TO events DO INSTEAD NOTHING",
        "CREATE PUBLICATION p FOR TABLE plain, events",
        "CREATE PUBLICATION p FOR ALL TABLES",
        "CREATE PUBLICATION p FOR TABLES IN SCHEMA elsewhere, CURRENT_SCHEMA",
        "ALTER PUBLICATION of_plain ADD TABLE events",
    ];
    let mut wrong = Vec::new();
    for statement in refused {
        let mut session = cluster.new_session();
        match session.try_sql(statement) {
            Ok(_) => wrong.push(format!("{statement}\n    is not refused")),
            Err(error) => {
                let whole = error.to_string();
                if error.sqlstate != "0A000"
                    || !whole.contains("\"events\"")
                    || error.hint.is_empty()
                {
                    wrong.push(format!("{statement}\n    {whole}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(cluster.text("SELECT * FROM events ORDER BY 1"), before);
    assert_eq!(
        cluster
            .text("SELECT relname, relkind FROM pg_class WHERE relname LIKE 'events%' ORDER BY 1"),
        "events|r\nevents_pkey|i"
    );
    assert_eq!(cluster.assert_placements_equal("events"), 20);

    // No shard holds it, so nothing is refused and nothing is done.
    let mut session = cluster.new_session();
    for nothing in [
        "UPDATE events SET v = 0 WHERE device = 'd1' AND device = 'd2'",
        "DELETE FROM events WHERE false",
        "UPDATE events SET v = 0 WHERE device = NULL",
    ] {
        assert_eq!(session.count(nothing), 0, "{nothing}");
    }
    assert_eq!(cluster.text("SELECT * FROM events ORDER BY 1"), before);

    // What takes table and type along is not refused.
    let together = "CREATE SCHEMA whole; CREATE DOMAIN whole.grade AS text; CREATE TYPE whole.pair AS (a int, b text)";
    cluster.on_all_nodes(together);
    let table = "CREATE TABLE whole.t (k int, a whole.grade, b whole.pair)";
    cluster.create_distributed(table, "whole.t", "k", 2, 1);
    cluster.sql("DROP SCHEMA whole CASCADE");
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_distribution_metadata.partition"), "1");
}

#[test]
fn rows_without_a_key_and_tables_without_shards_are_refused() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE keyed (a int, key int, v text)", "keyed", "key", 4, 1);
    for statement in [
        "INSERT INTO keyed VALUES (1, NULL, 'x')",
        "INSERT INTO keyed (a) VALUES (1)",
        "INSERT INTO keyed VALUES (1, nullif(5, 5), 'x')",
        "INSERT INTO keyed VALUES (1, 1), (2, NULL)",
        "INSERT INTO keyed SELECT 1, NULL",
        "COPY keyed (a) FROM PROGRAM 'echo 1'",
    ] {
        let error = cluster.error(statement);
        assert_eq!(
            error.line(),
            "22004: cannot plan INSERT using row with NULL value in partition column",
            "{statement}"
        );
    }
    assert_eq!(cluster.text("SELECT count(*) FROM keyed"), "0");
    cluster.create_distributed(
        "CREATE TABLE strict (a int, \"Key\" int NOT NULL, UNIQUE (\"Key\", a))",
        "strict",
        "Key",
        4,
        2,
    );
    cluster.sql("INSERT INTO strict SELECT i, i FROM generate_series(1, 9) AS i");
    // Where the column is NOT NULL, it is PostgreSQL's own error.
    for (statement, row) in [
        ("INSERT INTO strict VALUES (10, NULL)", "(10, null)"),
        ("INSERT INTO strict (a) VALUES (10) ON CONFLICT DO NOTHING RETURNING a", "(10, null)"),
        ("INSERT INTO strict VALUES (10, nullif(5, 5)), (11, 11)", "(10, null)"),
        ("INSERT INTO strict VALUES (10, 10), (11, NULL)", "(11, null)"),
        ("INSERT INTO strict (a) SELECT 10", "(10, null)"),
        ("COPY strict FROM PROGRAM 'echo 10,' WITH (FORMAT csv)", "(10, null)"),
        ("COPY strict (a) FROM PROGRAM 'echo 10'", "(10, null)"),
        ("UPDATE strict SET \"Key\" = NULL WHERE a = 3", "(3, null)"),
        (
            "MERGE INTO strict USING (VALUES (10)) AS s (x) ON a = x WHEN NOT MATCHED THEN INSERT VALUES (x, NULL)",
            "(10, null)",
        ),
    ] {
        let error = cluster.error(statement);
        assert_eq!(
            error.line(),
            "23502: null value in column \"Key\" of relation \"strict\" violates not-null constraint",
            "{statement}"
        );
        assert_eq!(error.detail, format!("Failing row contains {row}."), "{statement}");
    }
    cluster.sql("INSERT INTO strict (a) SELECT 1 WHERE false");
    assert_eq!(cluster.text("SELECT count(*), sum(\"Key\") FROM strict"), "9|45");
    cluster.assert_placements_equal("strict");
    for (statement, rows) in [
        ("SELECT * FROM keyed", ""),
        ("SELECT count(*), sum(a), max(v) FROM keyed", "0|NULL|NULL"),
        ("SELECT * FROM keyed WHERE key = 1", ""),
        ("SELECT count(*) FROM keyed WHERE key = 1", "0"),
        ("SELECT key, count(*) FROM keyed GROUP BY key", ""),
        (
            "SELECT k.key, n FROM generate_series(1, 2) AS n LEFT JOIN keyed AS k ON k.key = n ORDER BY n",
            "NULL|1\nNULL|2",
        ),
        ("SELECT EXISTS (SELECT FROM keyed), NOT EXISTS (SELECT FROM keyed WHERE key = 3)", "f|t"),
    ] {
        assert_eq!(cluster.text(statement), rows, "{statement}");
    }

    cluster.sql("CREATE TABLE bare (key int, v text); SELECT master_create_distributed_table('bare', 'key')");
    for statement in [
        "SELECT * FROM bare",
        "SELECT * FROM bare WHERE key = 1",
        "INSERT INTO bare VALUES (1)",
        "UPDATE bare SET v = 'x' WHERE key = 1",
    ] {
        let error = cluster.error(statement);
        assert_eq!(error.line(), "55000: could not find any shards for query", "{statement}");
        assert_eq!(error.detail, "No shards exist for distributed table \"bare\".");
        assert_eq!(error.hint, "Run master_create_worker_shards to create shards and try again.");
    }
}

#[test]
fn explain_shows_how_many_shards_and_what_is_sent() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE shown (key int PRIMARY KEY, v text)",
        "shown",
        "key",
        4,
        2,
    );
    let shard = cluster.shard_of("shown", "hashint4(3)");
    for (statement, parts) in [
        ("SELECT * FROM shown WHERE key = 3", ["Shards: 1 of 4", "Remote SQL: SELECT"]),
        ("INSERT INTO shown VALUES (3, 'x')", ["Shards: 1 of 4", "Remote SQL: INSERT INTO"]),
        ("UPDATE shown SET v = 'x' WHERE key = 3", ["Shards: 1 of 4", "Remote SQL: UPDATE"]),
        ("DELETE FROM shown WHERE key = 3", ["Shards: 1 of 4", "Remote SQL: DELETE FROM"]),
    ] {
        let plan = cluster.text(&format!("EXPLAIN (COSTS OFF) {statement}"));
        assert!(
            parts.iter().all(|part| plan.contains(part))
                && plan.contains(&format!("shown_{shard}")),
            "{plan}"
        );
    }
    let plan = cluster.text("EXPLAIN (COSTS OFF) SELECT count(*) FROM shown WHERE v = 'x'");
    assert!(plan.contains("Aggregate") && plan.contains("Shards: 4 of 4"), "{plan}");
    assert!(plan.contains("Remote SQL: SELECT") && plan.contains("v = 'x'::text"), "{plan}");
    let plan = cluster.text("EXPLAIN (COSTS OFF) INSERT INTO shown VALUES (1), (2), (3)");
    assert!(plan.contains("of 4"), "{plan}");
    // EXPLAIN does nothing, EXPLAIN ANALYZE does it.
    assert_eq!(cluster.text("SELECT count(*) FROM shown"), "0");
    let plan =
        cluster.text("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) INSERT INTO shown VALUES (3, 'x')");
    assert!(plan.contains("Shards: 1 of 4") && plan.contains("actual rows="), "{plan}");
    let plan =
        cluster.text("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, FORMAT JSON) SELECT * FROM shown");
    assert!(plan.contains("\"Actual Rows\": 1") && plan.contains("\"Remote SQL\""), "{plan}");
    assert_eq!(cluster.assert_placements_equal("shown"), 1);
}

#[test]
fn parallel_workers_leave_distributed_tables_to_the_leader() {
    // Whatever a parallel worker planned looked for distributed tables with a snapshot that it may not take, so also
    // functions over local tables failed (XX000). Now the look is allowed, and a distributed table is refused by name.
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE d (k int PRIMARY KEY, v int)", "d", "k", 4, 1);
    cluster.sql(
        "INSERT INTO d SELECT n, n FROM generate_series(1, 50) AS n;
         CREATE TABLE l AS SELECT n FROM generate_series(1, 20000) AS n; ANALYZE l;
         CREATE FUNCTION of_l(i int) RETURNS int LANGUAGE plpgsql STABLE PARALLEL SAFE AS
             $$ BEGIN RETURN (SELECT n FROM l WHERE n = i); END $$;
         CREATE FUNCTION of_d(i int) RETURNS int LANGUAGE plpgsql STABLE PARALLEL SAFE AS
             $$ BEGIN RETURN (SELECT v FROM d WHERE k = i); END $$",
    );
    let mut session = cluster.new_session();
    session.sql(
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
         SET parallel_leader_participation = off",
    );
    assert_eq!(session.text("SELECT sum(of_l(n)) FROM l WHERE n <= 10"), "55");
    let error = session.error("SELECT sum(of_d(n)) FROM l WHERE n <= 10");
    assert_eq!(error.line(), "0A000: cannot use distributed table \"d\" in a parallel worker");
    assert!(error.hint.contains("PARALLEL RESTRICTED"), "{error}");
    session.sql("ALTER FUNCTION of_d PARALLEL RESTRICTED");
    assert_eq!(session.text("SELECT sum(of_d(n)) FROM l WHERE n <= 10"), "55");
    assert_eq!(session.text("SELECT count(*) FROM l JOIN d ON k = n"), "50");
}

/// Nodes find nothing by `search_path`, so their messages give types their schemas.
#[test]
fn a_nodes_message_names_types_as_a_local_tables_does() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes(
        "CREATE SCHEMA app; CREATE DOMAIN app.pos AS int CHECK (value > 0);
         CREATE DOMAIN public.pos AS int CHECK (value > 0); CREATE TYPE app.mood AS ENUM ('well', 'bad')",
    );
    let mut session = cluster.new_session();
    session.sql(
        "SET search_path = app, public; CREATE TABLE l (k int PRIMARY KEY, p pos, o public.pos, m mood, s text);
         CREATE TABLE d (LIKE l INCLUDING ALL); SELECT create_distributed_table('d', 'k', 4)",
    );
    for table in ["l", "d"] {
        session.sql(&format!(
            "INSERT INTO {table} VALUES (1, 1, 1, 'well', 'ill'), (2, 2, 2, 'bad', 'public.pos')"
        ));
    }
    for statement in [
        "UPDATE {} SET p = p - 5 WHERE k = 1",
        "UPDATE {} SET p = p - 5",
        "UPDATE {} SET o = o - 5 WHERE k = 1",
        "UPDATE {} SET o = o - 5",
        "SELECT (0 - k)::pos FROM {} WHERE k = 1",
        "SELECT (0 - k)::public.pos FROM {} WHERE k = 1",
        "UPDATE {} SET m = s::mood WHERE k = 1",
        "SELECT s::mood FROM {} WHERE k = 2",
    ] {
        let expected = session.error(&statement.replace("{}", "l")).line();
        assert_eq!(session.error(&statement.replace("{}", "d")).line(), expected, "{statement}");
    }
}
