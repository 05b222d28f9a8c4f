//! Prepared statements that a worker has lost or cannot use any more.

use testkit::{Session, TestCluster};

use crate::{create_kv, key_led_by, nodes_of, shard_of};

/// A function that is nothing on the coordinator; on the workers, where an UPDATE runs it, the session forgets all
/// its prepared statements.
fn create_forgetting(cluster: &TestCluster) {
    let create = |body: &str| {
        format!(
            "CREATE FUNCTION forgetting(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN {body} RETURN $1; END $$"
        )
    };
    // DEALLOCATE is for volatile functions only.
    cluster.on_workers(
        "CREATE FUNCTION forget() RETURNS void LANGUAGE plpgsql AS 'BEGIN DEALLOCATE ALL; END'",
    );
    cluster.on_workers(&create("PERFORM public.forget();"));
    cluster.sql(&create(""));
}

/// Changes the type of a column of a shard on its workers, to one that looks the same on the wire.
fn change_column(cluster: &TestCluster, key: i32, to: &str) {
    let shard = shard_of(cluster, "kv", key);
    let name = cluster.shard_name("kv", shard);
    for node in nodes_of(cluster, "kv", shard) {
        cluster.session_on(node).sql(&format!("ALTER TABLE {name} ALTER COLUMN s TYPE {to}"));
    }
}

/// Statements about one key, with what they yield.
fn statements(key: i32) -> Vec<(String, String)> {
    let s = format!("s{key}");
    vec![
        (format!("SELECT * FROM kv WHERE k = {key}"), format!("{key}|0|{s}")),
        (format!("UPDATE kv SET v = v WHERE k = {key} RETURNING s"), s.clone()),
        (
            format!(
                "INSERT INTO kv VALUES ({key}, 0, 'x') ON CONFLICT (k) DO UPDATE SET v = 0 RETURNING s, k"
            ),
            format!("{s}|{key}"),
        ),
        (format!("EXECUTE get({key})"), format!("{s}|0")),
        (format!("EXECUTE put({key})"), format!("{s}|0")),
        (format!("SELECT in_function({key})"), s),
    ]
}

const PREPARED: &str = "
    PREPARE get(int) AS SELECT s, v FROM kv WHERE k = $1;
    PREPARE put(int) AS UPDATE kv SET v = v WHERE k = $1 RETURNING s, v;
    CREATE OR REPLACE FUNCTION in_function(key int) RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE r text; BEGIN UPDATE kv SET v = v WHERE k = key RETURNING s INTO r; RETURN r; END $$";

#[track_caller]
fn run_all(session: &mut Session, key: i32, times: usize) {
    for _ in 0..times {
        for (statement, rows) in statements(key) {
            assert_eq!(session.text(&statement), rows, "{statement}");
        }
    }
}

fn a_column_of_another_type_is_not_noticed(replicas: u32) {
    let cluster = TestCluster::up(2);
    create_kv(&cluster, replicas);
    let key = 42;
    let mut session = cluster.new_session();
    session.sql(PREPARED);
    run_all(&mut session, key, 7);
    for (turn, (statement, rows)) in statements(key).into_iter().enumerate() {
        change_column(&cluster, key, if turn % 2 == 0 { "text" } else { "varchar(20)" });
        assert_eq!(session.text(&statement), rows, "{statement}");
        assert_eq!(session.warnings(), [], "{statement}");
    }
    run_all(&mut session, key, 1);

    // Inside a block it is an ordinary error, after which the session is as good as before.
    for (turn, (statement, rows)) in statements(key).into_iter().enumerate() {
        session.sql(&format!("BEGIN; UPDATE kv SET v = 99 WHERE k = {key}"));
        let shard = cluster.shard_name("kv", shard_of(&cluster, "kv", key));
        // The row's writer holds a lock that the definition would wait for.
        session.sql("ROLLBACK; BEGIN; SELECT 1");
        change_column(&cluster, key, if turn % 2 == 0 { "text" } else { "varchar(20)" });
        session.sql(&format!("UPDATE kv SET v = 99 WHERE k = {key}"));
        match session.try_sql(&statement) {
            Ok(found) => assert_eq!(found.len(), 1, "{statement}"),
            Err(error) => {
                assert_eq!(error.message, "cached plan must not change result type", "{statement}")
            }
        }
        session.sql("ROLLBACK");
        assert_eq!(session.text(&statement), rows, "{statement} on {shard}");
    }
    assert_eq!(cluster.unhealthy("kv"), 0);
    assert_eq!(cluster.assert_placements_equal("kv"), 100);
    assert_eq!(cluster.text("SELECT sum(v) FROM kv"), "0");
}

#[test]
fn a_column_of_another_type_on_the_only_placement_is_not_noticed() {
    a_column_of_another_type_is_not_noticed(1);
}

#[test]
fn a_column_of_another_type_on_both_placements_is_not_noticed() {
    a_column_of_another_type_is_not_noticed(2);
}

#[test]
fn a_column_more_on_a_shard_changes_nothing() {
    let cluster = TestCluster::up(2);
    create_kv(&cluster, 2);
    let mut session = cluster.new_session();
    session.sql(PREPARED);
    run_all(&mut session, 3, 6);
    let shard = shard_of(&cluster, "kv", 3);
    let name = cluster.shard_name("kv", shard);
    for node in nodes_of(&cluster, "kv", shard) {
        cluster.session_on(node).sql(&format!("ALTER TABLE {name} ADD COLUMN more int DEFAULT 5"));
    }
    run_all(&mut session, 3, 2);
    assert_eq!(session.warnings(), []);
    assert_eq!(cluster.unhealthy("kv"), 0);
}

fn statements_that_a_worker_has_lost_are_prepared_anew(replicas: u32) {
    let cluster = TestCluster::up(2);
    create_kv(&cluster, replicas);
    create_forgetting(&cluster);
    let key = 42;
    let mut session = cluster.new_session();
    session.sql(PREPARED);
    // With one placement, so that the statement itself is all that its transaction needs.
    cluster.create_distributed("CREATE TABLE tool (k int, v int)", "tool", "k", 4, 1);
    cluster.sql("INSERT INTO tool SELECT i FROM generate_series(1, 100) AS i");
    let tools = cluster.workers().into_iter().map(|node| key_led_by(&cluster, "tool", node));
    let tools: Vec<i32> = tools.collect();
    let forget = |session: &mut Session| {
        for tool in &tools {
            session.sql(&format!("UPDATE tool SET v = forgetting(v) WHERE k = {tool}"));
        }
    };
    run_all(&mut session, key, 7);
    for (statement, rows) in statements(key) {
        forget(&mut session);
        assert_eq!(session.text(&statement), rows, "{statement}");
        assert_eq!(session.warnings(), [], "{statement}");
    }
    // BEGIN and COMMIT are kept too. Whatever such a transaction comes to, what it says is true, and the next works.
    for (statement, rows) in statements(key) {
        run_all(&mut session, key, 1);
        forget(&mut session);
        let outcome = session
            .try_sql("BEGIN")
            .and_then(|_| session.try_sql(&format!("UPDATE kv SET v = v + 1 WHERE k = {key}")))
            .and_then(|_| session.try_sql("COMMIT"));
        if outcome.is_err() {
            session.sql("ROLLBACK");
        }
        let stored = u32::from(outcome.is_ok());
        assert_eq!(session.text(&format!("SELECT v FROM kv WHERE k = {key}")), stored.to_string());
        session.sql(&format!("UPDATE kv SET v = 0 WHERE k = {key}"));
        assert_eq!(session.text(&statement), rows, "{statement}");
    }
    // COMMIT is never lost.
    session.sql("BEGIN");
    session.sql(&format!("UPDATE tool SET v = forgetting(k) WHERE k = {}", tools[0]));
    session.sql("COMMIT");
    let stored = session.text(&format!("SELECT v FROM tool WHERE k = {}", tools[0]));
    assert_eq!(stored, tools[0].to_string());
    run_all(&mut session, key, 1);
    assert_eq!(session.warnings(), []);
    assert_eq!(cluster.unhealthy("kv"), 0);
    assert_eq!(cluster.assert_placements_equal("kv"), 100);
}

#[test]
fn statements_that_the_only_placement_has_lost_are_prepared_anew() {
    statements_that_a_worker_has_lost_are_prepared_anew(1);
}

#[test]
fn statements_that_both_placements_have_lost_are_prepared_anew() {
    statements_that_a_worker_has_lost_are_prepared_anew(2);
}

#[test]
fn writes_that_take_their_transaction_to_both_placements_are_sent_again_too() {
    // With a unique constraint that leaves the key out, writers of different keys need an order: no pair.
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE coded (k int PRIMARY KEY, code varchar(20) UNIQUE)",
        "coded",
        "k",
        4,
        2,
    );
    cluster.sql("INSERT INTO coded SELECT i, 'c' || i FROM generate_series(1, 20) AS i");
    let mut session = cluster.new_session();
    let write = "UPDATE coded SET code = code WHERE k = 9 RETURNING code";
    assert_eq!(session.text(write), "c9");
    let shard = shard_of(&cluster, "coded", 9);
    let name = cluster.shard_name("coded", shard);
    for to in ["text", "varchar(20)"] {
        for node in nodes_of(&cluster, "coded", shard) {
            cluster
                .session_on(node)
                .sql(&format!("ALTER TABLE {name} ALTER COLUMN code TYPE {to}"));
        }
        assert_eq!(session.text(write), "c9");
        assert_eq!(session.warnings(), []);
    }
    assert_eq!(cluster.unhealthy("coded"), 0);
}
