//! Local tables that refer to distributed ones: rows that are referred to go and change as if both were local.

use crate::{compare, foreign_keys};
use std::fmt::Write as _;
use std::thread;
use testkit::{NodeName, Session, TestCluster, wait_until};

const TABLES: &str = "CREATE TABLE r (id int PRIMARY KEY, n text, u int UNIQUE, g int GENERATED ALWAYS AS (u * 10) STORED UNIQUE); \
    CREATE TABLE s (k int, id int, n text, PRIMARY KEY (k, id))";

/// Of each action one, and chains of local tables.
const REFERRERS: &str = "CREATE TABLE plain (id int REFERENCES r, n text); \
    CREATE TABLE strict (u int REFERENCES r (u) ON DELETE RESTRICT ON UPDATE RESTRICT); \
    CREATE TABLE cascade (id int PRIMARY KEY REFERENCES r ON DELETE CASCADE ON UPDATE CASCADE); \
    CREATE TABLE chain (id int REFERENCES cascade ON DELETE CASCADE ON UPDATE CASCADE); \
    CREATE TABLE nulls (id int, o int DEFAULT 1, FOREIGN KEY (id) REFERENCES r ON DELETE SET NULL ON UPDATE SET NULL); \
    CREATE TABLE defaults (id int DEFAULT 20 REFERENCES r ON DELETE SET DEFAULT ON UPDATE SET DEFAULT); \
    CREATE TABLE later (id int REFERENCES r DEFERRABLE INITIALLY DEFERRED); \
    CREATE TABLE made (g int REFERENCES r (g)); \
    CREATE TABLE pair (k int, id int, FOREIGN KEY (k, id) REFERENCES s ON DELETE CASCADE ON UPDATE CASCADE); \
    CREATE TABLE part (k int, id int, FOREIGN KEY (k, id) REFERENCES s ON DELETE SET NULL (id)) PARTITION BY LIST (k); \
    CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1, 2); CREATE TABLE part_2 PARTITION OF part DEFAULT";

const ROWS: &str = "INSERT INTO r SELECT i, 'n' || i, 100 + i FROM generate_series(1, 20) AS i; \
    INSERT INTO s SELECT i % 5, i, 'n' || i FROM generate_series(1, 40) AS i; \
    INSERT INTO plain VALUES (1, 'a'), (1, 'b'); INSERT INTO strict VALUES (102); INSERT INTO cascade VALUES (3), (4); \
    INSERT INTO chain VALUES (3), (3), (4); INSERT INTO nulls VALUES (3), (5); INSERT INTO defaults VALUES (5), (6); \
    INSERT INTO later VALUES (7), (8); INSERT INTO made VALUES (1090); INSERT INTO pair SELECT k, id FROM s WHERE id < 20; \
    INSERT INTO part SELECT k, id FROM s WHERE id > 30";

const NAMES: [&str; 12] = [
    "r", "s", "plain", "strict", "cascade", "chain", "nulls", "defaults", "later", "made", "pair",
    "part",
];

const FORMS: [&str; 52] = [
    "DELETE FROM r WHERE id = 1",
    "DELETE FROM r WHERE id = 2",
    "DELETE FROM r WHERE id = 3",
    "DELETE FROM r WHERE id = 5",
    "DELETE FROM r WHERE id = 6",
    "DELETE FROM r WHERE id = 7",
    "DELETE FROM r WHERE id = 9",
    "DELETE FROM r WHERE id = 15",
    "DELETE FROM r WHERE id IN (3, 4, 5, 6) RETURNING id, n",
    "DELETE FROM r USING cascade WHERE cascade.id = r.id",
    "DELETE FROM r WHERE id = 20",
    "DELETE FROM r WHERE id = 20; DELETE FROM r WHERE id = 6",
    "WITH gone AS (DELETE FROM r WHERE id = 3 RETURNING id) SELECT id, (SELECT count(*) FROM cascade) FROM gone",
    "WITH gone AS (DELETE FROM r WHERE id = 3 RETURNING id) INSERT INTO plain SELECT id + 10, 'z' FROM gone",
    "PREPARE gone AS DELETE FROM r WHERE id = $1; EXECUTE gone (3); EXECUTE gone (4); EXECUTE gone (1); DEALLOCATE gone",
    "UPDATE r SET id = 50 WHERE id = 1",
    "UPDATE r SET id = 50 WHERE id = 3",
    "UPDATE r SET id = 50 WHERE id = 5",
    "UPDATE r SET id = 50 WHERE id = 6",
    "UPDATE r SET id = id + 50 WHERE id BETWEEN 3 AND 6",
    "UPDATE r SET id = id WHERE id = 1",
    "UPDATE r SET id = 1, n = 'same' WHERE id = 1",
    "UPDATE r SET u = 500 WHERE id = 2",
    "UPDATE r SET u = 500 WHERE id = 9",
    "UPDATE r SET u = 500 WHERE id = 10",
    "UPDATE r SET n = 'other'",
    "UPDATE r SET n = 'other' WHERE id = 1 RETURNING *",
    "UPDATE r SET id = 60 FROM cascade WHERE cascade.id = r.id AND r.id = 4",
    "INSERT INTO r VALUES (3, 'x', 900) ON CONFLICT (id) DO UPDATE SET id = 70",
    "INSERT INTO r VALUES (1, 'x', 900) ON CONFLICT (id) DO UPDATE SET id = 70",
    "INSERT INTO r VALUES (2, 'x', 900) ON CONFLICT (id) DO UPDATE SET u = excluded.u",
    "INSERT INTO r VALUES (2, 'x', 900) ON CONFLICT (id) DO UPDATE SET n = excluded.n",
    "MERGE INTO r USING (VALUES (3), (4)) AS v (id) ON v.id = r.id WHEN MATCHED THEN DELETE",
    "MERGE INTO r USING (VALUES (1)) AS v (id) ON v.id = r.id WHEN MATCHED THEN UPDATE SET id = 80",
    "MERGE INTO r USING (VALUES (1), (90)) AS v (id) ON v.id = r.id WHEN MATCHED THEN UPDATE SET n = 'm' WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'm', 901)",
    "BEGIN; DELETE FROM r WHERE id = 7; SELECT count(*) FROM later; COMMIT",
    "BEGIN; DELETE FROM r WHERE id = 7; INSERT INTO r VALUES (7, 'again', 107); COMMIT",
    "BEGIN; DELETE FROM r WHERE id = 7; DELETE FROM later WHERE id = 7; COMMIT",
    "BEGIN; DELETE FROM r WHERE id = 7; SET CONSTRAINTS ALL IMMEDIATE; COMMIT",
    "BEGIN; SAVEPOINT a; DELETE FROM r WHERE id = 3; ROLLBACK TO a; DELETE FROM r WHERE id = 4; COMMIT",
    "BEGIN; DELETE FROM r WHERE id IN (3, 4); ROLLBACK",
    "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM cascade; DELETE FROM r WHERE id = 3; COMMIT",
    "DELETE FROM s WHERE k = 1",
    "DELETE FROM s WHERE k = 1 AND id = 36",
    "DELETE FROM s",
    "UPDATE s SET id = id + 100 WHERE k = 2 AND id < 20",
    "UPDATE s SET id = id + 100 WHERE k = 2",
    "ALTER TABLE plain DROP CONSTRAINT plain_id_fkey; DELETE FROM r WHERE id = 1",
    "ALTER TABLE r DISABLE TRIGGER ALL; DELETE FROM r WHERE id = 1; ALTER TABLE r ENABLE TRIGGER ALL",
    "TRUNCATE r",
    "TRUNCATE r CASCADE",
    "TRUNCATE s, pair, part",
];

/// Makes the tables in both schemas; in `d` with so many placements of each shard.
fn create(session: &mut Session, replicas: u32) {
    session.sql("DROP SCHEMA IF EXISTS l, d CASCADE; CREATE SCHEMA l; CREATE SCHEMA d");
    session.sql(&format!("SET search_path = l; {TABLES}; {REFERRERS}; {ROWS}"));
    session.sql(&format!("SET search_path = d, public; {TABLES}"));
    session.sql(&format!(
        "SELECT create_reference_table('r'); SELECT create_distributed_table('s', 'k', 4, {replicas})"
    ));
    session.sql(&format!("{REFERRERS}; {ROWS}"));
}

fn run(session: &mut Session, schema: &str, form: &str) -> Vec<String> {
    let mut answers = foreign_keys::run(session, schema, form);
    for name in NAMES {
        let rows = session.try_sql(&format!("SELECT {name}::text FROM {name} ORDER BY {name}"));
        answers.push(format!("{name} {rows:?}"));
    }
    answers
}

/// Writes of referenced rows were refused while a local table referred to them.
#[test]
fn local_tables_see_what_they_refer_to_go_and_change() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    let mut wrong = String::new();
    for (number, form) in FORMS.iter().enumerate() {
        // Every other one with two placements of each shard.
        let replicas = 1 + u32::from(number % 2 == 1);
        create(&mut session, replicas);
        let expected = run(&mut session, "l", form);
        let found = run(&mut session, "d", form);
        let mut differences = String::new();
        compare(&mut differences, "the distributed one", &expected, &found);
        cluster.assert_placements_equal("d.r");
        if replicas > 1 {
            cluster.assert_placements_equal("d.s");
        }
        if !differences.is_empty() {
            let _ = writeln!(wrong, "==== {form}\n{differences}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Whichever comes first, a row that refers and the DELETE of what it refers to, the other one finds it.
#[test]
fn a_referring_row_and_a_delete_at_the_same_time_see_each_other() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    create(&mut session, 1);
    let waits = |session: &mut Session| {
        session.text("SELECT count(*) FROM pg_locks WHERE NOT granted") != "0"
    };
    for (first, second, state) in [
        ("INSERT INTO d.plain VALUES (12)", "DELETE FROM d.r WHERE id = 12", "23503"),
        ("DELETE FROM d.r WHERE id = 13", "INSERT INTO d.plain VALUES (13)", "23503"),
        ("INSERT INTO d.cascade VALUES (14)", "DELETE FROM d.r WHERE id = 14", ""),
    ] {
        session.sql(&format!("BEGIN; {first}"));
        let answer = thread::scope(|scope| {
            let other = scope.spawn(|| cluster.new_session().try_sql(second));
            let mut watchers: Vec<Session> = [NodeName::Worker(1), NodeName::Worker(2)]
                .map(|node| cluster.session_on(node))
                .into();
            wait_until("the second to wait", || watchers.iter_mut().any(waits));
            session.sql("COMMIT");
            other.join().expect("no panic")
        });
        let found = answer.err().map_or_else(String::new, |error| error.sqlstate);
        assert_eq!(found, state, "{second}");
    }
    assert_eq!(session.text("SELECT count(*) FROM d.cascade WHERE id = 14"), "0");
    assert_eq!(session.text("SELECT count(*) FROM d.r WHERE id IN (12, 13)"), "1");
}

/// An UPDATE that leaves the key alone is still one statement for the nodes.
#[test]
fn only_what_changes_a_key_is_computed_here() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    create(&mut session, 1);
    // A generated column changes with any other.
    session.sql("DROP TABLE d.made");
    let mut plan = |sql: &str| -> String {
        let rows = session.sql(&format!("EXPLAIN (COSTS OFF) {sql}"));
        rows.into_iter().map(|row| row.join("") + "\n").collect()
    };
    let routed = plan("UPDATE d.r SET n = 'x' WHERE id = 1");
    assert!(routed.contains("Remote SQL: UPDATE"), "{routed}");
    for sql in ["UPDATE d.r SET id = 5 WHERE id = 1", "UPDATE d.r SET u = 5", "DELETE FROM d.r"] {
        let computed = plan(sql);
        assert!(computed.contains("decided row by row"), "{sql}: {computed}");
    }
    assert_eq!(plan("DELETE FROM d.s WHERE k = 1").matches("decided row by row").count(), 1);
}

/// A WARNING said that unique constraints of a reference table would hold within each shard only: it has but one.
#[test]
fn unique_constraints_of_one_shard_hold_without_a_warning() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    session.sql("CREATE TABLE r (id int PRIMARY KEY, u int UNIQUE); CREATE TABLE s (id int PRIMARY KEY, u int UNIQUE)");
    session.sql(
        "SELECT create_reference_table('r'); ALTER TABLE r ADD UNIQUE (u, id), ADD v int UNIQUE",
    );
    let warnings: Vec<String> = session.warnings().into_iter().map(|it| it.message).collect();
    assert!(warnings.is_empty(), "{warnings:?}");
    session.sql("SELECT create_distributed_table('s', 'id', 4)");
    let warnings: Vec<String> = session.warnings().into_iter().map(|it| it.message).collect();
    assert_eq!(warnings, ["unique constraint \"s_u_key\" will hold within each shard only"]);
}
