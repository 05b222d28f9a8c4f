//! Roles and what they may.

use testkit::TestCluster;

#[test]
fn rights_on_the_table_are_asked_before_anything_is_sent() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE ROLE reader LOGIN; CREATE ROLE writer LOGIN; CREATE ROLE stranger LOGIN; CREATE ROLE owner LOGIN; GRANT CREATE ON SCHEMA public TO owner");
    cluster.sql(
        "CREATE TABLE salaries (name text PRIMARY KEY, amount int, note text);
         GRANT SELECT ON salaries TO reader; GRANT SELECT (name), INSERT, UPDATE (note) ON salaries TO writer",
    );
    cluster.distribute("salaries", "name", 4, 2);
    cluster.sql("INSERT INTO salaries VALUES ('a', 1), ('b', 2), ('c', 3)");

    let denied = "42501: permission denied for table salaries";
    let mut stranger = cluster.session_as("stranger");
    for statement in [
        "SELECT * FROM salaries",
        "SELECT count(*) FROM salaries",
        "SELECT * FROM salaries WHERE name = 'a'",
        "SELECT 1 FROM salaries WHERE name = 'a'",
        "INSERT INTO salaries VALUES ('x')",
        "INSERT INTO salaries VALUES ('x'), ('y')",
        "UPDATE salaries SET amount = 0 WHERE name = 'a'",
        "DELETE FROM salaries WHERE name = 'a'",
        "COPY salaries TO STDOUT",
        "COPY salaries FROM STDIN",
        "EXPLAIN ANALYZE DELETE FROM salaries WHERE name = 'a'",
    ] {
        assert_eq!(stranger.error(statement).line(), denied, "{statement}");
    }
    for (statement, sqlstate) in [
        ("DROP TABLE salaries", "42501"),
        ("SELECT master_create_worker_shards('salaries', 4, 1)", "42501"),
        ("SELECT master_copy_shard_placement(10000, 'localhost', 1, 'localhost', 2)", "42501"),
        ("SELECT * FROM pgs_distribution_metadata.shard", "42501"),
    ] {
        assert_eq!(stranger.error(statement).sqlstate, sqlstate, "{statement}");
    }
    // Whoever has nothing to do with distributed tables is not hindered.
    assert_eq!(stranger.text("SELECT 1; CREATE TEMP TABLE mine (x int); INSERT INTO mine VALUES (2); SELECT * FROM mine"), "1\n2");

    let mut reader = cluster.session_as("reader");
    assert_eq!(reader.text("SELECT * FROM salaries ORDER BY 1"), "a|1|NULL\nb|2|NULL\nc|3|NULL");
    assert_eq!(reader.text("SELECT amount FROM salaries WHERE name = 'b'"), "2");
    assert_eq!(
        reader.text("SELECT current_user, count(*) FROM salaries WHERE name = 'b'"),
        "reader|1"
    );
    assert_eq!(reader.error("INSERT INTO salaries VALUES ('x')").line(), denied);
    assert_eq!(reader.error("UPDATE salaries SET amount = 9 WHERE name = 'a'").line(), denied);
    assert_eq!(reader.error("SELECT * FROM salaries WHERE name = 'a' FOR UPDATE").line(), denied);

    let mut writer = cluster.session_as("writer");
    writer.sql(
        "INSERT INTO salaries VALUES ('d', 4), ('e', 5); INSERT INTO salaries VALUES ('f', 6)",
    );
    writer.sql("UPDATE salaries SET note = 'n' WHERE name = 'a'");
    assert_eq!(writer.text("SELECT name FROM salaries ORDER BY 1").lines().count(), 6);
    assert_eq!(writer.error("SELECT amount FROM salaries").line(), denied);
    assert_eq!(writer.error("UPDATE salaries SET amount = 9 WHERE name = 'a'").line(), denied);
    assert_eq!(
        writer.error("UPDATE salaries SET note = amount::text WHERE name = 'a'").line(),
        denied
    );
    assert_eq!(writer.error("DELETE FROM salaries WHERE name = 'a'").line(), denied);

    // A table of somebody who is no superuser, from beginning to end; functions lend their owner's rights.
    let mut owner = cluster.session_as("owner");
    owner.sql("CREATE TABLE own (key int, v text); SELECT master_create_distributed_table('own', 'key'); SELECT master_create_worker_shards('own', 4, 2)");
    owner.sql("INSERT INTO own SELECT i, 'v' || i FROM generate_series(1, 10) AS i; UPDATE own SET v = 'x' WHERE key = 1");
    assert_eq!(owner.text("SELECT count(*) FROM own"), "10");
    for worker in cluster.workers() {
        let owners = cluster
            .session_on(worker)
            .text("SELECT DISTINCT tableowner FROM pg_tables WHERE tablename LIKE 'own\\_%'");
        assert_eq!(owners, "owner");
    }
    cluster.sql(
        "CREATE FUNCTION sum_of() RETURNS bigint SECURITY DEFINER LANGUAGE sql AS 'SELECT sum(amount) FROM salaries'",
    );
    assert_eq!(stranger.text("SELECT sum_of()"), "21");
    assert_eq!(stranger.error("SELECT * FROM own").sqlstate, "42501");
    owner.sql("DROP TABLE own");
    for worker in cluster.workers() {
        assert_eq!(cluster.tables_on(worker, "own\\_%"), Vec::<String>::new());
    }
    // SET ROLE in one session asks for the role of the moment.
    let mut session = cluster.new_session();
    session.sql("SET ROLE stranger");
    assert_eq!(session.error("SELECT * FROM salaries").line(), denied);
    session.sql("RESET ROLE");
    assert_eq!(session.text("SELECT count(*) FROM salaries"), "6");
    assert_eq!(cluster.unhealthy("salaries"), 0);
    assert_eq!(cluster.assert_placements_equal("salaries"), 6);
}

#[test]
fn a_missing_right_is_told_before_row_security() {
    let cluster = TestCluster::up(1);
    cluster.on_all_nodes("CREATE ROLE nobody LOGIN; CREATE ROLE somebody LOGIN");
    cluster.sql("CREATE TABLE l (k int PRIMARY KEY); CREATE TABLE d (k int PRIMARY KEY)");
    for table in ["l", "d"] {
        cluster.sql(&format!(
            "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; GRANT SELECT ON {table} TO somebody"
        ));
    }
    cluster.distribute("d", "k", 2, 1);
    for role in ["nobody", "somebody"] {
        let mut session = cluster.session_as(role);
        session.sql("SET row_security = off");
        for statement in ["COPY {} TO STDOUT", "COPY {} (k) TO STDOUT", "SELECT * FROM {}"] {
            let local = session.error(&statement.replace("{}", "l")).line();
            let found = session.error(&statement.replace("{}", "d")).line();
            let expected = local.replace("table l", "table d").replace("\"l\"", "\"d\"");
            assert_eq!(found, expected, "{role}: {statement}");
        }
    }
}

/// A write that the coordinator computes read `ctid` or whole rows of its other tables too, as PostgreSQL notes them to look at
/// changed rows again: whoever had rights on some columns of these was refused.
#[test]
fn other_tables_of_a_write_are_read_by_the_columns_that_it_names() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE ROLE buyer LOGIN");
    for schema in ["plain", "sharded"] {
        cluster.sql(&format!(
            "CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO buyer; \
             CREATE TABLE {schema}.target (id int PRIMARY KEY, v int); CREATE TABLE {schema}.source (id int PRIMARY KEY, delta int, secret int); \
             GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.target TO buyer; GRANT SELECT (id, delta) ON {schema}.source TO buyer"
        ));
    }
    for table in ["target", "source"] {
        cluster.distribute(&format!("sharded.{table}"), "id", 4, 1);
    }
    cluster.on_workers("GRANT USAGE ON SCHEMA sharded TO buyer");
    for schema in ["plain", "sharded"] {
        cluster.sql(&format!(
            "INSERT INTO {schema}.target SELECT g, g + 1 FROM generate_series(1, 20) AS g; \
             INSERT INTO {schema}.source SELECT g, g * 2, g FROM generate_series(1, 15) AS g"
        ));
    }
    let mut sessions = ["plain", "sharded"].map(|schema| {
        let mut session = cluster.session_as("buyer");
        session.sql(&format!("SET search_path = {schema}"));
        session
    });
    for statement in [
        "MERGE INTO target AS t USING source AS s ON t.v = s.id WHEN MATCHED THEN UPDATE SET v = s.delta WHEN NOT MATCHED THEN INSERT VALUES (s.id + 100, s.delta)",
        "MERGE INTO target AS t USING source AS s ON t.id = s.id WHEN MATCHED AND s.delta > 8 THEN UPDATE SET v = t.v + s.delta WHEN MATCHED THEN DELETE",
        "UPDATE target SET v = s.delta FROM source AS s WHERE s.id = target.v",
        "UPDATE target SET v = s.delta FROM source AS s WHERE s.id + 0 = target.id + 0",
        "UPDATE target SET v = s.delta + d.delta FROM source AS s LEFT JOIN source AS d ON d.id = s.delta WHERE s.id = target.id",
        "DELETE FROM target USING source AS s WHERE s.delta = target.v AND s.id > 3",
        "DELETE FROM target WHERE v IN (SELECT delta FROM source WHERE delta < target.id)",
        "WITH w AS (DELETE FROM target USING source AS s WHERE s.delta = target.v RETURNING target.*) INSERT INTO target SELECT id + 1000, v FROM w",
        "UPDATE target SET v = s.secret FROM source AS s WHERE s.id = target.v",
        "MERGE INTO target AS t USING source AS s ON t.v = s.id WHEN MATCHED THEN UPDATE SET v = s.secret",
        "UPDATE target SET v = 1 FROM source AS s WHERE s.id = target.v RETURNING s",
    ] {
        let [plain, sharded] = sessions.each_mut().map(|session| {
            session.sql("BEGIN");
            let outcome = session.try_sql(statement).map_err(|error| error.line());
            let outcome = outcome.map(|_| session.text("SELECT * FROM target ORDER BY id, v"));
            session.sql("ROLLBACK");
            outcome
        });
        assert_eq!(plain, sharded, "{statement}");
    }
}

/// A write that the coordinator computes, and any statement that locks rows of many shards, took the right to SELECT the whole
/// target: MERGE read all of the old row, and each of them reads on the nodes where the rows lie.
#[test]
fn a_target_is_read_by_the_columns_that_the_statement_names() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE ROLE clerk LOGIN");
    for schema in ["plain", "sharded"] {
        cluster.sql(&format!(
            "CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO clerk; \
             CREATE TABLE {schema}.t (id int PRIMARY KEY, v int, w int, hidden int); \
             CREATE TABLE {schema}.s (id int PRIMARY KEY, x int); GRANT SELECT ON {schema}.s TO clerk; \
             GRANT SELECT (id, v) ON {schema}.t TO clerk"
        ));
    }
    for table in ["t", "s"] {
        cluster.distribute(&format!("sharded.{table}"), "id", 4, 1);
    }
    cluster.on_workers("GRANT USAGE ON SCHEMA sharded TO clerk");
    for schema in ["plain", "sharded"] {
        cluster.sql(&format!(
            "GRANT UPDATE (w), INSERT, DELETE ON {schema}.t TO clerk; \
             INSERT INTO {schema}.t SELECT g, g, g, g FROM generate_series(1, 20) AS g; \
             INSERT INTO {schema}.s SELECT g, g * 2 FROM generate_series(1, 25) AS g"
        ));
    }
    let mut sessions = ["plain", "sharded"].map(|schema| {
        let mut session = cluster.session_as("clerk");
        session.sql(&format!("SET search_path = {schema}"));
        session
    });
    for statement in [
        "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET w = s.x",
        "MERGE INTO t USING s ON t.v = s.x WHEN MATCHED AND t.v > 7 THEN UPDATE SET w = t.v + 100 WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (s.id + 100, s.x, 0, 0)",
        "MERGE INTO t USING (SELECT id, max(x) AS x FROM s GROUP BY id) AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET w = s.x",
        "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED AND t.hidden > 7 THEN UPDATE SET w = 1",
        "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED AND t IS NOT NULL THEN UPDATE SET w = 1",
        "MERGE INTO t USING s ON t.hidden = s.id WHEN MATCHED THEN DELETE",
        "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = 1",
        "UPDATE t SET w = s.x FROM s WHERE s.id = t.id",
        "UPDATE t SET w = s.x FROM s WHERE s.x = t.v RETURNING t.v, s.x",
        "UPDATE t SET w = s.x FROM s WHERE s.x = t.v RETURNING t.w",
        "UPDATE t SET w = s.x FROM s WHERE s.x = t.v RETURNING t",
        "DELETE FROM t USING s WHERE t.v = s.x AND s.id > 3",
        "DELETE FROM t USING s WHERE t.v = s.x AND s.id > 3 RETURNING t.id",
        "SELECT id FROM t ORDER BY v LIMIT 3 FOR UPDATE",
        "SELECT id FROM t ORDER BY v LIMIT 3 FOR UPDATE SKIP LOCKED",
        "SELECT t.id FROM t JOIN s ON t.v = s.x FOR UPDATE OF t",
        "SELECT ctid FROM t",
        "SELECT xmin FROM t WHERE id = 3",
        "DELETE FROM t WHERE ctid IN (SELECT ctid FROM t LIMIT 1)",
        "UPDATE t SET w = 1 WHERE id IN (SELECT id FROM t WHERE v > 3 ORDER BY id LIMIT 2 FOR UPDATE SKIP LOCKED)",
    ] {
        let [plain, sharded] = sessions.each_mut().map(|session| {
            session.sql("BEGIN");
            let outcome = session.try_sql(statement).map_err(|error| error.line());
            let outcome = outcome.map(|mut rows| {
                rows.sort();
                (rows, session.text("SELECT id, v FROM t ORDER BY id, v"))
            });
            session.sql("ROLLBACK");
            outcome
        });
        assert_eq!(plain, sharded, "{statement}");
    }
    cluster.sql("REVOKE ALL ON sharded.t FROM clerk");
    for worker in cluster.workers() {
        let rights = "SELECT count(*) FROM pg_attribute AS a, aclexplode(a.attacl) AS x WHERE x.grantee = 'clerk'::regrole";
        assert_eq!(
            cluster.session_on(worker).text(rights),
            "0",
            "what was given with a column goes with it"
        );
    }
}
