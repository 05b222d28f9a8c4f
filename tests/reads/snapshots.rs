//! A statement that reads a node more than once does so by one snapshot of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use testkit::{NodeName, Session, TestCluster, wait_until};

const WORKER: NodeName = NodeName::Worker(1);

/// Accounts of 100 persons with 1,000 altogether, all of them on one node.
fn accounts() -> TestCluster {
    let cluster = TestCluster::up(1);
    cluster.on_all_nodes("CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN");
    cluster.sql("CREATE TABLE account (k int, v int); GRANT SELECT ON account TO ann, bob");
    cluster.distribute("account", "k", 8, 1);
    cluster.create_distributed("CREATE TABLE seen (k int, what text)", "seen", "k", 4, 1);
    cluster.sql("INSERT INTO account SELECT i, 10 FROM generate_series(1, 100) AS i");
    cluster.sql("ANALYZE account");
    cluster
}

/// Money that goes from the lower half of the persons to the upper half, or back, all the time.
struct Transfers {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Transfers {
    fn begin(cluster: &TestCluster) -> Self {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&made));
        let mut session = cluster.new_session();
        let thread = thread::spawn(move || {
            while !told.load(Ordering::SeqCst) {
                let turn = counted.fetch_add(1, Ordering::SeqCst);
                let (low, high) = (turn % 50 + 1, turn * 7 % 50 + 51);
                let amount = if turn.is_multiple_of(2) { 5 } else { -5 };
                session.sql(&format!(
                    "BEGIN; UPDATE account SET v = v - {amount} WHERE k = {low}; \
                     UPDATE account SET v = v + {amount} WHERE k = {high}; COMMIT"
                ));
            }
        });
        Self { stop, made, thread: Some(thread) }
    }

    fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }
}

impl Drop for Transfers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("a transfer failed");
        }
    }
}

/// Asks until 60 transfers have been made meanwhile.
fn always_whole(session: &mut Session, transfers: &Transfers, statement: &str) {
    let until = transfers.made() + 60;
    while transfers.made() < until {
        assert_eq!(session.text(statement), "1000", "{statement}");
    }
}

fn no_transaction_is_open(cluster: &TestCluster) {
    let mut worker = cluster.session_on(WORKER);
    wait_until("the worker has no open transaction", || {
        worker.text(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^pg_shard( |$)' AND state <> 'idle'",
        ) == "0"
    });
}

#[test]
fn a_transfer_within_one_node_is_never_half_seen() {
    let cluster = accounts();
    cluster.sql(
        "CREATE FUNCTION upper_half() RETURNS bigint STABLE LANGUAGE plpgsql AS $$ \
           BEGIN RETURN (SELECT sum(v) FROM account WHERE k > 50); END $$;
         CREATE FUNCTION upper_person(int) RETURNS int STABLE LANGUAGE plpgsql AS $$ \
           BEGIN RETURN (SELECT v FROM account WHERE k = $1 + 50); END $$",
    );
    let transfers = Transfers::begin(&cluster);
    let mut session = cluster.new_session();
    for pushdown in ["on", "off"] {
        session.sql(&format!("SET pg_shard.enable_pushdown = {pushdown}"));
        for statement in [
            "SELECT (SELECT sum(v) FROM account WHERE k <= 50) + (SELECT sum(v) FROM account WHERE k > 50)",
            "SELECT sum(s) FROM (SELECT sum(v) AS s FROM account WHERE k <= 50 UNION ALL SELECT sum(v) FROM account WHERE k > 50) AS x",
            "SELECT sum(a.v + b.v) FROM account AS a JOIN account AS b ON a.k = b.k + 50",
            "WITH a AS MATERIALIZED (SELECT * FROM account WHERE k <= 50) SELECT sum(a.v) + (SELECT sum(v) FROM account WHERE k > 50) FROM a",
            "SELECT sum(v) + upper_half() FROM account WHERE k <= 50",
            "SELECT sum(v + upper_person(k)) FROM account WHERE k <= 50",
            "SELECT sum(v + (SELECT sum(v) FROM account AS b WHERE b.k = a.k + 50 OR b.k = a.k + 1000)) FROM account AS a WHERE k <= 50",
        ] {
            always_whole(&mut session, &transfers, statement);
        }
    }
    session.sql("BEGIN");
    always_whole(
        &mut session,
        &transfers,
        "SELECT (SELECT sum(v) FROM account WHERE k <= 50) + (SELECT sum(v) FROM account WHERE k > 50)",
    );
    session.sql("COMMIT");
    drop(transfers);
    no_transaction_is_open(&cluster);
}

#[test]
fn the_sessions_of_several_roles_share_a_snapshot() {
    let cluster = accounts();
    cluster.sql(
        "CREATE VIEW lower_half AS SELECT * FROM account WHERE k <= 50; ALTER VIEW lower_half OWNER TO ann; \
         CREATE VIEW upper_half AS SELECT * FROM account WHERE k > 50; ALTER VIEW upper_half OWNER TO bob; \
         GRANT SELECT ON lower_half, upper_half TO PUBLIC",
    );
    let transfers = Transfers::begin(&cluster);
    let mut session = cluster.session_as("ann");
    for statement in [
        "SELECT (SELECT sum(v) FROM lower_half) + (SELECT sum(v) FROM upper_half)",
        "SELECT sum(a.v + b.v) FROM lower_half AS a JOIN upper_half AS b ON b.k = a.k + 50",
        "SELECT sum(v) FROM (SELECT * FROM upper_half UNION ALL SELECT * FROM lower_half) AS x",
    ] {
        always_whole(&mut session, &transfers, statement);
        for level in ["REPEATABLE READ", "SERIALIZABLE"] {
            session.sql(&format!("BEGIN ISOLATION LEVEL {level}"));
            for _ in 0..20 {
                let read = session.text("SELECT v FROM lower_half WHERE k = 7");
                assert_eq!(session.text(statement), "1000");
                assert_eq!(session.text("SELECT v FROM lower_half WHERE k = 7"), read);
            }
            session.sql("COMMIT");
        }
    }
    drop(transfers);
    no_transaction_is_open(&cluster);
}

#[test]
fn nothing_is_written_and_nothing_else_is_read_by_a_statements_snapshot() {
    let cluster = accounts();
    cluster.sql(
        "CREATE FUNCTION note(int) RETURNS int VOLATILE LANGUAGE plpgsql AS $$ BEGIN \
           INSERT INTO seen VALUES ($1, 'noted'); UPDATE account SET v = v + 1 WHERE k = $1; \
           RETURN (SELECT count(*) FROM seen); END $$;
         CREATE FUNCTION failing(int) RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN \
           RETURN (SELECT sum(1 / (v - v)) FROM account WHERE k = $1); \
           EXCEPTION WHEN division_by_zero THEN RETURN 0; END $$;
         CREATE FUNCTION looped() RETURNS text LANGUAGE plpgsql AS $$ DECLARE r record; n int := 0; BEGIN \
           FOR r IN SELECT a.k, (SELECT count(*) FROM account AS b WHERE b.v >= a.v) AS c FROM account AS a LOOP \
             n := n + 1; INSERT INTO seen VALUES (r.k, 'looped'); \
             IF (SELECT count(*) FROM seen WHERE what = 'looped') <> n THEN RETURN 'not seen'; END IF; \
           END LOOP; RETURN n; END $$",
    );
    let mut session = cluster.new_session();
    let mut other = cluster.new_session();
    // Writes in the middle of a read of several scans, on the very node.
    assert_eq!(
        session.text(
            "SELECT count(*), max(note(a.k)) FROM account AS a JOIN account AS b ON b.k = a.k + 50"
        ),
        "50|50"
    );
    assert_eq!(session.text("SELECT sum(v) FROM account"), "1050");
    assert_eq!(session.text("SELECT looped()"), "100");
    // An error on the node that is caught: what is left of the statement reads on.
    assert_eq!(
        session.text(
            "SELECT sum(failing(a.k) + b.v) FROM account AS a JOIN account AS b ON b.k = a.k + 50"
        ),
        "500"
    );
    // A cursor keeps what it sees to itself.
    session.sql("BEGIN");
    session.sql("DECLARE c CURSOR FOR SELECT a.k, b.v FROM account AS a JOIN account AS b ON b.k = a.k + 50 ORDER BY a.k");
    assert_eq!(session.text("FETCH 1 FROM c"), "1|10");
    other.sql("UPDATE account SET v = 77 WHERE k IN (52, 53)");
    assert_eq!(session.text("SELECT count(*) FROM account WHERE v = 77"), "2");
    assert_eq!(session.text("SELECT v FROM account WHERE k = 52"), "77");
    session.sql("UPDATE account SET v = 78 WHERE k = 53");
    assert_eq!(session.text("SELECT (SELECT count(*) FROM account WHERE v = 77) + (SELECT count(*) FROM account WHERE v = 78)"), "2");
    assert_eq!(session.text("FETCH 2 FROM c"), "2|10\n3|10");
    session.sql("COMMIT");
    session.sql("BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT a.k, b.v FROM account AS a JOIN account AS b ON b.k = a.k + 50 ORDER BY a.k");
    session.sql("COMMIT");
    no_transaction_is_open(&cluster);
    other.sql("UPDATE account SET v = 10 WHERE k IN (52, 53)");
    assert_eq!(session.text("FETCH 3 FROM h"), "1|10\n2|77\n3|78");
    // Savepoints that end, one way or the other, while a cursor is open.
    session.sql("BEGIN; SAVEPOINT a");
    session.sql("DECLARE d CURSOR FOR SELECT a.k FROM account AS a JOIN account AS b ON b.k = a.k + 50 ORDER BY a.k");
    assert_eq!(session.text("FETCH 1 FROM d"), "1");
    session.sql("RELEASE a; SAVEPOINT b");
    assert_eq!(session.error("SELECT sum(1 / (v - v)) FROM account").sqlstate, "22012");
    session.sql("ROLLBACK TO b");
    assert_eq!(session.text("FETCH 1 FROM d"), "2");
    session.sql("INSERT INTO seen VALUES (1, 'last'); COMMIT");
    assert_eq!(other.text("SELECT count(*) FROM seen WHERE what = 'last'"), "1");
    assert_eq!(session.warnings(), []);
    no_transaction_is_open(&cluster);
}

#[test]
fn a_snapshot_ends_with_its_statement_whatever_the_end() {
    let cluster = accounts();
    let mut session = cluster.new_session();
    let pairs = "account AS a JOIN account AS b ON b.k <> a.k";
    session.sql("SET pg_shard.enable_pushdown = off");
    // Rows that are not wanted any more, an error here, a time-out.
    assert_eq!(session.text(&format!("SELECT 1 FROM {pairs} LIMIT 1")), "1");
    no_transaction_is_open(&cluster);
    assert_eq!(
        session
            .error(&format!("SELECT 1 / (a.v - a.v + (random() * 0)::int) FROM {pairs}"))
            .sqlstate,
        "22012"
    );
    no_transaction_is_open(&cluster);
    session.sql("SET statement_timeout = '100ms'");
    assert_eq!(
        session.error(&format!("SELECT count(pg_sleep(0.01)) FROM {pairs}")).sqlstate,
        "57014"
    );
    session.sql("RESET statement_timeout");
    no_transaction_is_open(&cluster);
    session.sql("BEGIN; SAVEPOINT a");
    assert_eq!(
        session
            .error(&format!("SELECT 1 / (a.v - a.v + (random() * 0)::int) FROM {pairs}"))
            .sqlstate,
        "22012"
    );
    session.sql("ROLLBACK TO a");
    no_transaction_is_open(&cluster);
    assert_eq!(session.text(&format!("SELECT count(*) FROM {pairs}")), "9900");
    no_transaction_is_open(&cluster);
    session.sql("UPDATE account SET v = 3 WHERE k = 3; COMMIT");
    assert_eq!(session.text("SELECT v FROM account WHERE k = 3"), "3");
    // Also with a driver that asks step by step.
    let statement =
        session.client().prepare(&format!("SELECT count(*) FROM {pairs}")).expect("SQL");
    for _ in 0..3 {
        let row = session.client().query_one(&statement, &[]).expect("it runs");
        assert_eq!(row.get::<_, i64>(0), 9900);
        no_transaction_is_open(&cluster);
    }
}

#[test]
fn a_snapshot_that_is_lost_before_it_was_used_is_replaced_and_afterwards_it_is_not() {
    let cluster = TestCluster::impatient(2);
    cluster.create_distributed("CREATE TABLE account (k int, v int)", "account", "k", 4, 2);
    cluster.sql("INSERT INTO account SELECT i, 10 FROM generate_series(1, 100) AS i");
    let halves = "SELECT (SELECT sum(v) FROM account WHERE k <= 50) + (SELECT sum(v) FROM account WHERE k > 50)";
    let backends = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name ~ '^pg_shard( |$)'";
    let mut session = cluster.new_session();
    assert_eq!(session.text(halves), "1000");
    // Between statements: nobody notices.
    cluster.session_on(WORKER).sql(backends);
    assert_eq!(session.text(halves), "1000");
    // Between a statement's reads, after the first has been answered.
    if !cluster.has_module("dblink") {
        return;
    }
    cluster.sql("CREATE EXTENSION dblink");
    let port = cluster.port(WORKER);
    session.sql(&format!(
        "CREATE FUNCTION kill(bigint) RETURNS bigint VOLATILE LANGUAGE plpgsql AS $$ BEGIN \
           PERFORM n FROM dblink('host=127.0.0.1 port={port} user=postgres dbname=postgres', \
             $q${backends}$q$) AS x(n int); RETURN $1; END $$"
    ));
    let torn = "WITH a AS MATERIALIZED (SELECT kill(sum(v)) AS s FROM account WHERE k <= 50) \
                SELECT s + (SELECT sum(v) FROM account WHERE k > 50 AND s IS NOT NULL) FROM a";
    let error = session.error(torn);
    assert_eq!(error.sqlstate, "08006", "{error:?}");
    assert!(error.message.contains("in the middle of a read"), "{error:?}");
    assert_eq!(session.text(halves), "1000");
    assert_eq!(cluster.unhealthy("account"), 0);
}
