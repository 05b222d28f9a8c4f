//! What a cursor sees: what was there when it was opened.
//!
//! `DECLARE c CURSOR FOR SELECT count(*) FROM t; DELETE FROM t; FETCH ALL FROM c` counted 0: the nodes were asked at the first
//! FETCH. Now they are asked when the portal starts, and have taken their snapshots before anything else is done. Where a plan asks
//! once for each of its rows, all rows are computed by then.

use cluster::postgres::fallible_iterator::FallibleIterator;
use testkit::{NodeName, Session, TestCluster};

/// Queries whose scans ask before the first row is fetched: one shard and all, groups, orders, joins and sub-queries that are
/// computed by the nodes and by the coordinator.
const QUERIES: [&str; 14] = [
    "SELECT count(*) FROM t",
    "SELECT v FROM t WHERE k = 7",
    "SELECT * FROM t ORDER BY k",
    "SELECT x, count(*) FROM t GROUP BY x ORDER BY x",
    "SELECT a.k FROM t AS a JOIN t AS b ON a.k = b.k AND b.x < 5 ORDER BY 1",
    "SELECT count(*), sum(b.k) FROM t AS a JOIN t AS b ON a.x = b.x",
    "SELECT count(*) FROM t WHERE x > (SELECT avg(x) FROM t)",
    "SELECT k FROM t WHERE x NOT IN (SELECT x FROM t WHERE k > 20) ORDER BY k",
    "SELECT k FROM t UNION SELECT x FROM t ORDER BY 1",
    // What these ask for depends on the row at hand: all of their rows are computed when they are opened.
    "SELECT a.k, (SELECT count(*) FROM t AS b WHERE b.x < a.x) FROM t AS a WHERE a.k < 30 ORDER BY a.k",
    "SELECT g, (SELECT max(b.k) FROM t AS b WHERE b.x % 7 = g) FROM generate_series(1, 6) AS g ORDER BY g",
    "SELECT g, (SELECT v FROM t WHERE k = g) FROM generate_series(1, 20) AS g ORDER BY g",
    "SELECT g, b.v FROM generate_series(1, 9) AS g LEFT JOIN LATERAL \
     (SELECT v FROM t WHERE k <= g * 2 ORDER BY k DESC LIMIT 1) AS b ON true ORDER BY g",
    "SELECT a.k, b.k FROM t AS a, t AS b WHERE a.k < 5 AND b.k < a.k ORDER BY 1, 2",
];

/// What changes everything that the queries look at.
const CHANGES: [&str; 3] = [
    "DELETE FROM t",
    "UPDATE t SET v = 'changed', x = x + 100",
    "INSERT INTO t SELECT g, 'more', g % 20 FROM generate_series(1001, 1400) AS g",
];

fn cluster_with_rows() -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster.sql(
        "CREATE TABLE t (k int PRIMARY KEY, v text, x int); SELECT create_distributed_table('t', 'k', 8, 1); \
         INSERT INTO t SELECT g, 'v' || g, g % 20 FROM generate_series(1, 400) AS g; \
         CREATE FUNCTION change(text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; END'",
    );
    cluster
}

#[test]
fn a_cursor_does_not_see_what_its_transaction_changes_afterwards() {
    let cluster = cluster_with_rows();
    let mut session = cluster.new_session();
    for query in QUERIES {
        let wanted = session.sql(query);
        for change in CHANGES {
            for kind in ["CURSOR", "SCROLL CURSOR", "CURSOR WITH HOLD"] {
                session.sql(&format!("BEGIN; DECLARE c {kind} FOR {query}; {change}"));
                assert_eq!(session.sql("FETCH ALL FROM c"), wanted, "{query}; {change}");
                session.sql("ROLLBACK");
            }
        }
        // The transaction has written before, and writes by a function and in a savepoint after some rows have been fetched.
        session
            .sql(&format!("BEGIN; UPDATE t SET v = v WHERE k = 1; DECLARE c CURSOR FOR {query}"));
        let mut got = session.sql("FETCH 2 FROM c");
        session.sql("SAVEPOINT s; SELECT change('DELETE FROM t'); RELEASE s");
        got.extend(session.sql("FETCH ALL FROM c"));
        assert_eq!(got, wanted, "{query}");
        session.sql("ROLLBACK");
    }
}

#[test]
fn a_cursor_does_not_see_what_others_commit_afterwards() {
    let cluster = cluster_with_rows();
    let (mut session, mut other) = (cluster.new_session(), cluster.new_session());
    for query in QUERIES {
        let wanted = session.sql(query);
        session.sql(&format!("BEGIN; DECLARE c CURSOR FOR {query}"));
        other.sql("UPDATE t SET v = 'other', x = x + 1; INSERT INTO t VALUES (2000, 'n', 2000)");
        assert_eq!(session.sql("FETCH ALL FROM c"), wanted, "{query}");
        session.sql("COMMIT");
        other.sql("DELETE FROM t WHERE k = 2000; UPDATE t SET v = 'v' || k, x = x - 1");
    }
}

#[test]
fn loops_and_cursors_of_functions_see_what_was_there_when_they_began() {
    let cluster = cluster_with_rows();
    let mut session = cluster.new_session();
    session.sql(
        "CREATE FUNCTION walk() RETURNS text LANGUAGE plpgsql AS $$
         DECLARE r record; n int := 0; m int; rest int; c refcursor; BEGIN
           FOR r IN SELECT a.k, b.x FROM t AS a JOIN t AS b ON a.x = b.x LOOP
             IF n % 500 = 0 THEN DELETE FROM t WHERE k % 16 = n / 500; END IF;
             n := n + 1;
           END LOOP;
           OPEN c FOR SELECT count(*) FROM t;
           INSERT INTO t SELECT g, 'n', 1 FROM generate_series(1001, 1100) AS g;
           FETCH c INTO m;
           SELECT count(*) INTO rest FROM t;
           RETURN n || ' ' || (rest - m);
         END $$;
         CREATE FUNCTION rows_of() RETURNS SETOF t LANGUAGE sql VOLATILE AS 'SELECT * FROM t ORDER BY k'",
    );
    assert_eq!(session.text("BEGIN; SELECT walk()"), "8000 100");
    session.sql("ROLLBACK; BEGIN; DECLARE c CURSOR FOR SELECT (rows_of()).k");
    assert_eq!(session.sql("FETCH 1 FROM c").len(), 1);
    session.sql("DELETE FROM t");
    assert_eq!(session.sql("FETCH ALL FROM c").len(), 399);
    session.sql("ROLLBACK");
}

#[test]
fn a_portal_of_the_extended_protocol_is_fetched_from_as_it_was_bound() {
    let cluster = cluster_with_rows();
    let mut client = cluster.connect(NodeName::Coordinator).expect("the coordinator is there");
    for query in [
        "SELECT k FROM t WHERE x >= $1",
        "SELECT a.k FROM t AS a JOIN t AS b ON a.x = b.x AND a.x >= $1",
        "SELECT g FROM generate_series(1, 20) AS g WHERE g > (SELECT count(*) - 20 - $1::int FROM t WHERE x = g % 3)",
    ] {
        let wanted = client.query(query, &[&0_i32]).expect("it reads").len();
        let mut transaction = client.transaction().expect("it begins");
        let portal = transaction.bind(query, &[&0_i32]).expect("it binds");
        transaction.execute("DELETE FROM t WHERE k % 2 = 0", &[]).expect("it deletes");
        let first = transaction.query_portal(&portal, 3).expect("it fetches").len();
        transaction.execute("DELETE FROM t", &[]).expect("it deletes");
        let rest = transaction.query_portal_raw(&portal, 0).and_then(|rows| rows.count());
        assert_eq!(first + rest.expect("it fetches"), wanted, "{query}");
        transaction.rollback().expect("it rolls back");
    }
}

/// Queries that lock: one shard and all, orders, limits, filters that the coordinator computes, joins and sub-queries.
const LOCKING: [&str; 9] = [
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM t WHERE k = 7 FOR UPDATE",
    "SELECT * FROM t ORDER BY k FOR UPDATE",
    "SELECT * FROM t WHERE x < 5 FOR NO KEY UPDATE",
    "SELECT * FROM t ORDER BY k LIMIT 3 FOR UPDATE",
    "SELECT k, v FROM t WHERE v || random() > 'v1' ORDER BY k FOR UPDATE",
    "SELECT a.k, b.v FROM t AS a JOIN t AS b ON a.k = b.k WHERE a.x < 9 FOR UPDATE OF a",
    "SELECT * FROM t WHERE x = (SELECT min(x) FROM t) FOR SHARE",
    "SELECT a.k, b FROM t AS a, generate_series(1, 9) AS b WHERE a.k = b FOR UPDATE OF a",
];

/// A cursor that locks read its rows at the first FETCH, and so saw what had come after DECLARE. PostgreSQL finds them by the
/// snapshot of DECLARE, passes over those that the transaction itself has changed since, and locks the others when they are fetched.
#[test]
fn a_cursor_that_locks_finds_the_rows_that_were_there_when_it_was_opened() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE SCHEMA plain; CREATE SCHEMA once; CREATE SCHEMA twice");
    let mut sessions: Vec<Session> = ["plain", "once", "twice"]
        .map(|schema| {
            let mut session = cluster.new_session();
            session.sql(&format!(
                "SET search_path = {schema}, public; CREATE TABLE t (k int PRIMARY KEY, v text, x int)"
            ));
            session
        })
        .into();
    sessions[1].sql("SELECT create_distributed_table('t', 'k', 8, 1)");
    sessions[2].sql("SELECT create_distributed_table('t', 'k', 4, 2)");
    for session in &mut sessions {
        session.sql("INSERT INTO t SELECT g, 'v' || g, g % 20 FROM generate_series(1, 40) AS g");
    }
    let changes = [
        "DELETE FROM t WHERE k IN (1, 7)",
        "UPDATE t SET v = 'c', x = x + 1 WHERE k % 3 = 1",
        "INSERT INTO t SELECT g, 'n', 1 FROM generate_series(100, 120) AS g",
        "SAVEPOINT a; DELETE FROM t WHERE k = 7; ROLLBACK TO a; SAVEPOINT b",
    ];
    for query in LOCKING {
        for change in changes {
            let mut answers = sessions.iter_mut().map(|session| {
                session.sql(&format!("BEGIN; DECLARE c CURSOR FOR {query}; {change}"));
                let mut rows = session.sql("FETCH ALL FROM c");
                session.sql("ROLLBACK");
                rows.sort();
                rows
            });
            let wanted = answers.next().expect("the local table's comes first");
            for got in answers {
                assert_eq!(got, wanted, "{query}; {change}");
            }
        }
    }
}

#[test]
fn a_cursor_that_locks_locks_what_has_become_of_its_rows_when_it_is_fetched() {
    let cluster = cluster_with_rows();
    let (mut session, mut other) = (cluster.new_session(), cluster.new_session());
    session.sql("BEGIN; DECLARE c CURSOR FOR SELECT k, v FROM t WHERE x < 10 AND k < 5 FOR UPDATE");
    // Nothing is locked yet: this would wait.
    other.sql("SET lock_timeout = '30s'; UPDATE t SET v = 'other' WHERE k = 1; UPDATE t SET x = 15 WHERE k = 2");
    other.sql("DELETE FROM t WHERE k = 3");
    let mut rows = session.sql("FETCH ALL FROM c");
    rows.sort();
    assert_eq!(rows, [["1", "other"], ["4", "v4"]]);
    other.sql("SET lock_timeout = '100ms'");
    let error = other.error("UPDATE t SET v = 'late' WHERE k = 4");
    assert_eq!(error.sqlstate, "55P03");
    session.sql("COMMIT");
    // One that nobody fetches from is in nobody's way once it is closed.
    session.sql("BEGIN; DECLARE c CURSOR FOR SELECT * FROM t FOR UPDATE; CLOSE c");
    session.sql("ALTER TABLE t ADD COLUMN more int; COMMIT");
    // A savepoint takes its cursors along, and leaves others.
    session.sql("BEGIN; DECLARE a CURSOR FOR SELECT k FROM t ORDER BY k FOR UPDATE; SAVEPOINT s");
    session.sql("DECLARE b CURSOR FOR SELECT k FROM t FOR UPDATE; ROLLBACK TO s");
    assert_eq!(session.sql("FETCH 2 FROM a"), [["1"], ["2"]]);
    session.sql("UPDATE t SET v = 'here' WHERE CURRENT OF a; COMMIT");
    assert_eq!(session.text("SELECT v FROM t WHERE k = 2"), "here");
}
