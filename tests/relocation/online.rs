//! A large local table becomes distributed while clients read and write it. `create_distributed_table` kept everybody away until all rows
//! had been copied.

use crate::matrix::{Victim, strike};
use crate::{WORKER_1, WORKER_2};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use testkit::{NodeName, Session, SqlError, TestCluster, wait_until};

/// Enough for the way beside writers.
const ROWS: i64 = 20_000;

/// A table of more than 8 MB, with what a table may have.
fn create(cluster: &TestCluster) {
    cluster.sql(
        "CREATE TABLE big (gone int, id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \"n N\" int NOT NULL DEFAULT 0, \
         twice int GENERATED ALWAYS AS (\"n N\" * 2) STORED, pad text, CHECK (\"n N\" >= 0)); \
         ALTER TABLE big DROP COLUMN gone; CREATE INDEX by_n ON big (\"n N\")",
    );
    cluster.sql(&format!(
        "INSERT INTO big (pad) SELECT repeat('x', 500) FROM generate_series(1, {ROWS})"
    ));
}

fn distribute(replicas: u32) -> String {
    format!("SELECT create_distributed_table('big', 'id', 4, {replicas})")
}

/// What only the distribution has needed is gone.
fn nothing_is_left(cluster: &TestCluster) {
    let left = "SELECT count(*) FROM (SELECT relname FROM pg_class UNION ALL SELECT proname FROM pg_proc UNION ALL SELECT tgname FROM pg_trigger) AS n \
                WHERE relname ~ '^pgs_(capture|changes|keys|staging)'";
    for node in [NodeName::Coordinator, WORKER_1, WORKER_2] {
        let mut session = cluster.wait_for(node);
        wait_until("nothing is left", || session.text(left) == "0");
    }
}

fn is_distributed(session: &mut Session) -> bool {
    session.text("SELECT count(*) FROM pgs_catalog.tables WHERE \"table\" = 'big'") == "1"
}

/// Adds to rows of its own, makes some and removes some, until it shall stop; how often it has added, and how many rows there are more.
fn write(mut session: Session, number: i64, stop: &AtomicBool) -> (i64, i64) {
    let (mut added, mut more) = (0, 0);
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = number + 4 * (turn % 1000 + 1);
        let change = format!("UPDATE big SET \"n N\" = \"n N\" + 1 WHERE id = {id}");
        added += i64::try_from(session.count(&change)).expect("few");
        if turn % 5 == 0 {
            session.sql("INSERT INTO big (pad) VALUES ('new')");
            more += 1;
        }
        if turn % 7 == 0 {
            let id = number + 4 * (turn / 7 + 1500);
            let gone = session.count(&format!("DELETE FROM big WHERE id = {id}"));
            more -= i64::try_from(gone).expect("one at most");
        }
    }
    (added, more)
}

fn under_load(replicas: u32) {
    let cluster = TestCluster::up(2);
    create(&cluster);
    let stop = AtomicBool::new(false);
    let paused = cluster.data_dir(NodeName::Coordinator).join("pg_shard_paused");
    let written: Vec<(i64, i64)> = thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|number| {
                let (session, stop) = (cluster.new_session(), &stop);
                scope.spawn(move || write(session, number, stop))
            })
            .collect();
        let mut session = cluster.new_session();
        session.sql("SET pg_shard.fault_point = 'online_filled:pause'");
        let distributed = scope.spawn(move || session.try_sql(&distribute(replicas)).map(drop));
        wait_until("the rows have been copied", || paused.exists());
        // Here all are kept waiting whom the copying locks out.
        let added = || cluster.text("SELECT sum(\"n N\") FROM big");
        let before = added();
        wait_until("clients go on meanwhile", || added() != before);
        assert_eq!(cluster.text("SELECT count(*) FROM pgs_catalog.tables"), "0");
        fs::remove_file(&paused).expect("it is there");
        distributed.join().expect("no panic").expect("it is distributed");
        let before = added();
        wait_until("clients go on afterwards", || added() != before);
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
    });
    let added: i64 = written.iter().map(|(added, _)| added).sum();
    let rows: i64 = ROWS + written.iter().map(|(_, more)| more).sum::<i64>();
    // Some of the rows that were changed may have gone with their changes: those of no writer do both.
    let sums = "SELECT count(*), sum(\"n N\"), sum(twice), count(DISTINCT id) FROM big";
    assert_eq!(cluster.text(sums), format!("{rows}|{added}|{}|{rows}", 2 * added));
    assert_eq!(cluster.assert_placements_equal("big"), rows.unsigned_abs() as usize);
    assert_eq!(cluster.unhealthy("big"), 0);
    nothing_is_left(&cluster);
    // It is a distributed table like any other.
    cluster.sql("ALTER TABLE big ADD COLUMN late int DEFAULT 7; DROP INDEX by_n");
    let shards = "SELECT string_agg(indexdef, ';') ~ 'by_n', count(*) FROM pg_indexes WHERE tablename ~ '^big_'";
    let shards = cluster.session_on(WORKER_1).text(shards);
    assert_eq!(shards, if replicas == 1 { "f|2" } else { "f|4" });
    assert_eq!(cluster.text("SELECT sum(late) FROM big"), (7 * rows).to_string());
}

#[test]
fn clients_go_on_while_a_large_table_becomes_distributed() {
    under_load(1);
}

#[test]
fn clients_go_on_while_a_large_table_gets_two_placements() {
    under_load(2);
}

#[test]
fn a_cancelled_distribution_leaves_a_local_table() {
    let cluster = TestCluster::up(2);
    create(&cluster);
    let paused = cluster.data_dir(NodeName::Coordinator).join("pg_shard_paused");
    let mut session = cluster.new_session();
    session.sql("SET pg_shard.fault_point = 'online_captured:pause'");
    let pid = session.text("SELECT pg_backend_pid()");
    thread::scope(|scope| {
        let distributed = scope.spawn(|| session.try_sql(&distribute(1)).map(drop));
        wait_until("changes are noted", || paused.exists());
        cluster.sql(&format!("SELECT pg_cancel_backend({pid})"));
        fs::remove_file(&paused).expect("it is there");
        let error = distributed.join().expect("no panic").expect_err("it was cancelled");
        assert_eq!(error.sqlstate, "57014", "{error}");
    });
    nothing_is_left(&cluster);
    assert_eq!(cluster.text("SELECT count(*) FROM big"), ROWS.to_string());
    assert!(!is_distributed(&mut cluster.new_session()));
    // Waiting for a writer that does not end can be cancelled too.
    let mut writer = cluster.new_session();
    writer.sql("BEGIN; UPDATE big SET \"n N\" = 1 WHERE id = 1");
    session.sql("RESET pg_shard.fault_point; SET statement_timeout = '1s'");
    assert_eq!(session.error(&distribute(1)).sqlstate, "57014");
    writer.sql("COMMIT");
    nothing_is_left(&cluster);
}

#[test]
fn a_row_without_a_key_is_an_error_that_names_the_table() {
    let cluster = TestCluster::up(2);
    create(&cluster);
    cluster.sql("ALTER TABLE big ADD COLUMN k int DEFAULT 3");
    cluster.sql("UPDATE big SET k = NULL WHERE id = 5");
    let error = cluster.error("SELECT create_distributed_table('big', 'k', 4)");
    assert_eq!(error.sqlstate, "22004", "{error}");
    assert!(!error.to_string().contains("pgs_staging"), "{error}");
    assert!(error.to_string().contains("\"big\""), "{error}");
    nothing_is_left(&cluster);
    // What is done in a larger transaction, or to a table with foreign keys, keeps others away as before.
    cluster.sql("UPDATE big SET k = 4 WHERE id = 5");
    let mut session = cluster.new_session();
    session.sql("BEGIN; INSERT INTO big (pad, k) VALUES ('own', 1)");
    session.sql("SELECT create_distributed_table('big', 'k', 4)");
    session.sql("COMMIT");
    assert_eq!(cluster.text("SELECT count(*) FROM big"), (ROWS + 1).to_string());
    assert!(is_distributed(&mut session));
}

/// The steps of it, and those of its commit.
const POINTS: [&str; 8] = [
    "online_captured",
    "online_filled",
    "online_round",
    "online_switched",
    "prepare",
    "decide",
    "finish",
    "end",
];

fn dies(victim: Victim) {
    let cluster = TestCluster::up(2);
    create(&cluster);
    for (number, point) in (1..).zip(POINTS) {
        let case = format!("{victim:?} at {point}");
        strike(&cluster, &distribute(1), point, victim);
        nothing_is_left(&cluster);
        let mut session = cluster.new_session();
        if is_distributed(&mut session) {
            assert_eq!(cluster.assert_placements_equal("big"), ROWS as usize, "{case}");
            session.sql("SELECT undistribute_table('big')");
        }
        for node in [WORKER_1, WORKER_2] {
            assert!(cluster.tables_on(node, "big%").is_empty(), "{case}: shards on {node}");
        }
        let changed = session.count(&format!("UPDATE big SET \"n N\" = {number}"));
        assert_eq!(changed, ROWS as u64, "{case}");
    }
    cluster.sql(&distribute(1));
    assert_eq!(cluster.assert_placements_equal("big"), ROWS as usize);
}

#[test]
fn a_table_is_local_or_distributed_when_the_process_dies_at_any_step() {
    dies(Victim::Backend);
}

#[test]
fn a_table_is_local_or_distributed_when_the_coordinator_dies_at_any_step() {
    dies(Victim::Server(NodeName::Coordinator));
}

#[test]
fn a_table_is_local_or_distributed_when_a_worker_dies_at_any_step() {
    dies(Victim::Server(WORKER_1));
}

/// Whoever may create tables beside the victim's, and triggers of it, tries to pass for the capture: changes would be lost.
#[test]
fn what_another_role_puts_in_the_place_of_the_capture_is_not_relied_upon() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE ROLE mallory LOGIN");
    create(&cluster);
    let oid = cluster.text("SELECT 'big'::regclass::oid");
    cluster.sql("GRANT CREATE ON SCHEMA public TO mallory; GRANT TRIGGER ON big TO mallory");
    let mut mallory = cluster.session_as("mallory");
    mallory.sql(&format!(
        "CREATE TABLE pgs_changes_of_{oid} (id bigint); CREATE TABLE pgs_keys_of_{oid} (id bigint); \
         CREATE VIEW held AS SELECT * FROM pgs_changes_of_{oid}; CREATE TABLE pgs_staging_of_{oid} (id bigint); \
         CREATE FUNCTION pgs_capture_of_{oid}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
         CREATE TRIGGER pgs_capture AFTER UPDATE ON big FOR EACH ROW EXECUTE FUNCTION pgs_capture_of_{oid}()"
    ));
    let mut session = cluster.new_session();
    session.sql("SET pg_shard.fault_point = 'online_captured:kill'");
    // It takes the way that keeps others away, and comes to no such point.
    session.sql(&distribute(1));
    assert_eq!(cluster.text("SELECT count(*) FROM big"), ROWS.to_string());
    assert_eq!(cluster.assert_placements_equal("big"), ROWS as usize);
}

/// A function in an expression is the owner's, and must not run as anybody else: not as the worker that makes the trigger either.
#[test]
fn functions_of_the_owner_run_as_the_owner_alone() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE ROLE owner LOGIN; GRANT CREATE ON SCHEMA public TO owner");
    let mut owner = cluster.session_as("owner");
    owner.sql(
        "CREATE FUNCTION spy(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS \
           'BEGIN IF current_user <> ''owner'' THEN RAISE EXCEPTION ''as %'', current_user; END IF; RETURN n; END'; \
         CREATE TABLE big (id int PRIMARY KEY, pad text, g int GENERATED ALWAYS AS (spy(id % 7) + spy(1)) STORED)",
    );
    owner.sql(
        "CREATE INDEX by_spy ON big ((spy(id % 5) + spy(2))); CREATE STATISTICS of_spy ON (spy(3) + id), g FROM big",
    );
    owner.sql(&format!(
        "INSERT INTO big SELECT i, repeat('x', 500) FROM generate_series(1, {ROWS}) AS i"
    ));
    let mut writer = cluster.session_as("owner");
    writer.sql("BEGIN; UPDATE big SET pad = 'y' WHERE id = 1");
    thread::scope(|scope| {
        let distributed =
            scope.spawn(|| owner.sql("SELECT create_distributed_table('big', 'id', 4)"));
        wait_until("a worker waits for the writer", || {
            cluster.text(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_shard capture'",
            ) == "1"
        });
        writer.sql("COMMIT");
        distributed.join().expect("no panic");
    });
    assert_eq!(owner.text("SELECT count(*) FROM big"), ROWS.to_string());
    let log = std::fs::read_to_string(cluster.dir().join("coordinator/server.log")).expect("a log");
    assert!(!log.contains("as postgres"), "{log}");
    nothing_is_left(&cluster);
}

/// Distributes a table to the point where its rows have been copied, does `meanwhile`, and goes on.
fn meanwhile(cluster: &TestCluster, call: &str, meanwhile: impl FnOnce()) -> Result<(), SqlError> {
    let paused = cluster.data_dir(NodeName::Coordinator).join("pg_shard_paused");
    let mut session = cluster.new_session();
    session.sql("SET pg_shard.fault_point = 'online_filled:pause'");
    thread::scope(|scope| {
        let distributed = scope.spawn(move || session.try_sql(call).map(drop));
        wait_until("the rows have been copied", || paused.exists());
        meanwhile();
        fs::remove_file(&paused).expect("it is there");
        distributed.join().expect("no panic")
    })
}

/// GRANT locks no table, and types change beside it: the shards would not have what the table has.
#[test]
fn a_definition_that_changes_during_the_copy_is_an_error() {
    let cluster = TestCluster::up(2);
    create(&cluster);
    cluster.on_all_nodes("CREATE ROLE reader");
    let changed = meanwhile(&cluster, &distribute(1), || {
        cluster.sql("GRANT SELECT ON big TO reader");
    });
    let error = changed.expect_err("the shards have been made without the right");
    assert_eq!(error.sqlstate, "55000", "{error}");
    assert!(error.message.contains("\"big\" has changed meanwhile"), "{error}");
    nothing_is_left(&cluster);
    cluster.sql(&distribute(1));
    cluster.sql("SET ROLE reader");
    assert_eq!(cluster.text("SELECT count(*) FROM big"), ROWS.to_string());
}

#[test]
fn clients_go_on_while_a_table_joins_another_or_becomes_a_reference_table() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE other (k bigint PRIMARY KEY)", "other", "k", 4, 1);
    let pad = |table: &str| {
        format!(
            "INSERT INTO {table} SELECT i, repeat('x', 500) FROM generate_series(1, {ROWS}) AS i"
        )
    };
    for (table, call) in [
        ("beside", "SELECT create_distributed_table('beside', 'k', colocate_with => 'other')"),
        ("everywhere", "SELECT create_reference_table('everywhere')"),
    ] {
        cluster.sql(&format!("CREATE TABLE {table} (k bigint PRIMARY KEY, pad text)"));
        cluster.sql(&pad(table));
        let done = meanwhile(&cluster, call, || {
            cluster.sql(&format!("UPDATE {table} SET pad = 'new' WHERE k = 7"));
        });
        done.unwrap_or_else(|error| panic!("{table}: {error}"));
        assert_eq!(cluster.text(&format!("SELECT pad FROM {table} WHERE k = 7")), "new");
    }
    let kinds = "SELECT string_agg(kind, ' ' ORDER BY \"table\"), count(DISTINCT colocation_group) FROM pgs_catalog.tables";
    assert_eq!(cluster.text(kinds), "distributed reference distributed|2");
    assert_eq!(cluster.assert_placements_equal("beside"), ROWS as usize);
    assert_eq!(cluster.assert_placements_equal("everywhere"), ROWS as usize);
    nothing_is_left(&cluster);
}

/// A superuser who distributes the table of another role runs nothing of that role's.
#[test]
fn statistics_of_the_owner_are_not_evaluated_by_whoever_distributes_the_table() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE ROLE owner LOGIN; GRANT CREATE ON SCHEMA public TO owner");
    create(&cluster);
    cluster.sql("ALTER TABLE big OWNER TO owner");
    let mut owner = cluster.session_as("owner");
    owner.sql(
        "CREATE FUNCTION spy(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS \
           'BEGIN IF current_user <> ''owner'' THEN RAISE EXCEPTION ''as %'', current_user; END IF; RETURN n; END'; \
         CREATE STATISTICS of_spy ON (spy(3) + \"n N\"), pad FROM big",
    );
    cluster.sql(&distribute(1));
    assert_eq!(owner.text("SELECT count(*) FROM big"), ROWS.to_string());
    nothing_is_left(&cluster);
}

#[test]
fn what_a_table_that_was_copied_has_brought_to_the_nodes_goes_with_it() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TYPE mood AS ENUM ('sad', 'happy')");
    create(&cluster);
    cluster.sql("ALTER TABLE big ADD COLUMN m mood DEFAULT 'happy'");
    meanwhile(&cluster, &distribute(1), || ()).expect("it is distributed");
    let types = "SELECT count(*) FROM pg_type WHERE typname = 'mood'";
    assert_eq!(cluster.session_on(WORKER_1).text(types), "1");
    cluster.sql("DROP TABLE big; DROP TYPE mood");
    assert_eq!(cluster.session_on(WORKER_1).text(types), "0");
}
