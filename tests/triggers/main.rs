//! Triggers of distributed tables do what those of a local table do: with one placement of each shard and with two, and whether the
//! audit table that they fill is local or distributed.

use std::fmt::Write as _;
use testkit::{Rows, Session, TestCluster};

const FUNCTIONS: &str = include_str!("functions.sql");
const SETUP: &str = include_str!("setup.sql");
const STATEMENTS: &str = include_str!("statements.sql");

/// Schemas, each with the table, and the placements of its shards.
const SCHEMAS: [(&str, Option<u32>); 3] = [("plain", None), ("one", Some(1)), ("two", Some(2))];

/// The table is distributed before it has triggers, or afterwards; the audit table is distributed, too, or stays local.
fn create(cluster: &TestCluster) {
    cluster.on_all_nodes("CREATE ROLE changer LOGIN");
    cluster.sql(FUNCTIONS);
    for (schema, placements) in SCHEMAS {
        cluster.sql(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}, public"));
        let (tables, triggers) =
            SETUP.split_at(SETUP.find("CREATE TRIGGER").expect("there are triggers"));
        cluster.sql(tables);
        if placements == Some(1) {
            cluster.distribute("one.t", "k", 4, 1);
            cluster.sql("SELECT create_distributed_table('one.audit', 'k', 4, 1, 'one.t')");
        }
        cluster.sql(triggers);
        if placements == Some(2) {
            cluster.distribute("two.t", "k", 4, 2);
        }
        cluster.sql(&format!(
            "GRANT USAGE ON SCHEMA {schema} TO changer; GRANT ALL ON t, audit TO changer; RESET search_path"
        ));
    }
    // The workers know the schema only now.
    cluster.on_workers("GRANT USAGE ON SCHEMA one, two TO changer");
}

/// What a line of statements yields, and what is there afterwards. Rows have no order among themselves.
fn run(session: &mut Session, line: &str) -> String {
    let mut text = String::new();
    for statement in line.split("; ") {
        match session.try_sql(statement) {
            Ok(mut rows) => {
                rows.sort();
                let _ = writeln!(text, "{rows:?}");
            }
            Err(error) => {
                let _ = writeln!(text, "{} {} {}", error.line(), error.detail, error.hint);
            }
        }
    }
    session.sql("ROLLBACK; RESET ROLE");
    let mut show = |sql: &str| {
        let rows: Rows = session.sql(sql);
        let _ = writeln!(
            text,
            "{}",
            rows.iter().map(|row| row.join(" ")).collect::<Vec<_>>().join("\n")
        );
    };
    show("SELECT to_jsonb(t) - 'volatile' FROM t ORDER BY k");
    show("SELECT what, o, w FROM audit ORDER BY what, o ->> 'k', w ->> 'k', o, w");
    session.sql("DELETE FROM audit");
    text
}

#[test]
fn triggers_of_a_distributed_table_do_what_those_of_a_local_table_do() {
    let cluster = TestCluster::up(2);
    create(&cluster);
    let mut sessions = SCHEMAS.map(|(schema, _)| {
        let mut session = cluster.new_session();
        session
            .sql(&format!("SET search_path = {schema}, public; SET client_min_messages = error"));
        session
    });
    let mut wrong = String::new();
    for line in STATEMENTS.lines() {
        let [plain, one, two] = sessions.each_mut().map(|session| run(session, line));
        for (placements, found) in [(1, one), (2, two)] {
            let differs = |text: &str, other: &str| {
                let lines = text.lines().filter(|line| !other.lines().any(|known| known == *line));
                lines.collect::<Vec<_>>().join("\n    ")
            };
            if found != plain {
                let (lacks, has) = (differs(&plain, &found), differs(&found, &plain));
                let _ = writeln!(
                    wrong,
                    "== {line}\nwith {placements} placements\n  lacks\n    {lacks}\n  has\n    {has}"
                );
            }
        }
        cluster.assert_placements_equal("two.t");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn rows_of_triggers_that_do_not_fit_into_memory_are_in_a_file() {
    let cluster = TestCluster::up(2);
    cluster.sql(
        "CREATE TABLE t (k int PRIMARY KEY, v text); SELECT create_distributed_table('t', 'k', 4, 1); \
         CREATE TABLE seen (k int, o text, w text); \
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN INSERT INTO seen VALUES (NEW.k, md5(OLD.v), md5(NEW.v)); RETURN NULL; END $$; \
         INSERT INTO t SELECT i, repeat(md5(i::text), 40) FROM generate_series(1, 20000) AS i; \
         CREATE TRIGGER see AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION see(); \
         CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION see()",
    );
    let mut session = cluster.new_session();
    session.sql("BEGIN; UPDATE t SET v = v || k; UPDATE t SET v = v || k WHERE k < 5000; COMMIT");
    let wrong = "SELECT count(*), count(*) FILTER (WHERE (o, w) NOT IN \
          ((md5(repeat(md5(k::text), 40)), md5(repeat(md5(k::text), 40) || k)), \
           (md5(repeat(md5(k::text), 40) || k), md5(repeat(md5(k::text), 40) || k || k)))) FROM seen";
    assert_eq!(session.text(wrong), "49998|0");
}

#[test]
fn triggers_survive_distributing_and_bringing_back() {
    let cluster = TestCluster::up(2);
    cluster.sql(
        "CREATE TABLE t (k int PRIMARY KEY, v int); \
         CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := NEW.v + 1; RETURN NEW; END $$; \
         INSERT INTO t SELECT i, i FROM generate_series(1, 10) AS i; \
         CREATE TRIGGER more BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION more(); \
         SELECT create_distributed_table('t', 'k', 4, 1)",
    );
    let sum = "SELECT sum(v) FROM t";
    assert_eq!(cluster.text(sum), "55");
    cluster.sql("UPDATE t SET v = v WHERE k = 1");
    assert_eq!(cluster.text(sum), "56");
    cluster.sql("CREATE OR REPLACE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := NEW.v + 10; RETURN NEW; END $$; \
                 UPDATE t SET v = v WHERE k = 1");
    assert_eq!(cluster.text(sum), "66");
    cluster.sql("SELECT undistribute_table('t')");
    assert_eq!(cluster.text(sum), "66");
    cluster.sql("UPDATE t SET v = v WHERE k = 1");
    assert_eq!(cluster.text(sum), "76");
}

#[test]
fn what_cannot_fire_is_refused() {
    let cluster = TestCluster::up(2);
    cluster.sql(
        "CREATE TABLE t (k int PRIMARY KEY, v text); CREATE TABLE u (k int PRIMARY KEY); \
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; \
         SELECT create_distributed_table('t', 'k', 4, 1); \
         CREATE TRIGGER b BEFORE TRUNCATE ON u FOR EACH STATEMENT EXECUTE FUNCTION nothing()",
    );
    let refused = [
        "CREATE TRIGGER b BEFORE TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION nothing()",
        "SELECT create_distributed_table('u', 'k', 4, 1)",
    ];
    for (statement, table) in refused.into_iter().zip(["t", "u"]) {
        let error = cluster.error(statement);
        let message =
            format!("distributed table \"{table}\" cannot have a BEFORE TRUNCATE trigger");
        assert_eq!(error.line(), format!("0A000: {message}"), "{statement}");
    }
}
