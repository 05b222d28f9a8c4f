//! One fault at a time, in one session.

use testkit::{NodeName, Session, TestCluster, wait_until};

const WORKER_1: NodeName = NodeName::Worker(1);
const WORKER_2: NodeName = NodeName::Worker(2);

/// A table in 8 shards with 100 rows.
fn create_items(cluster: &TestCluster, replicas: u32) {
    cluster.create_distributed(
        "CREATE TABLE items (key int PRIMARY KEY, v text)",
        "items",
        "key",
        8,
        replicas,
    );
    cluster.sql("INSERT INTO items SELECT i, 'v' || i FROM generate_series(1, 100) AS i");
}

/// A key of `items` whose shard has its first placement on `node`.
fn key_led_by(cluster: &TestCluster, node: NodeName) -> i32 {
    let placements = cluster.placements("items");
    let leader = |key: &i32| {
        let shard = cluster.shard_of("items", &format!("hashint4({key})"));
        placements
            .iter()
            .find(|placement| placement.shard == shard)
            .is_some_and(|placement| placement.node == node)
    };
    (1..=100).find(leader).expect("100 keys reach all shards")
}

#[test]
fn a_session_that_was_idle_for_too_long_is_closed_by_the_worker_and_opened_again() {
    let cluster = TestCluster::impatient(2);
    create_items(&cluster, 2);
    let key = key_led_by(&cluster, WORKER_1);
    let sessions =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^pg_shard( |$)'";
    let open = || {
        cluster
            .workers()
            .iter()
            .map(|worker| {
                cluster.session_on(*worker).text(sessions).parse::<u32>().expect("a number")
            })
            .sum::<u32>()
    };
    let before = open();
    let mut session = cluster.new_session();
    session.sql("SET pg_shard.idle_session_timeout = '100ms'");
    for (statement, answer) in [
        (format!("SELECT v FROM items WHERE key = {key}"), format!("v{key}")),
        ("SELECT count(*) FROM items".to_owned(), "100".to_owned()),
        (
            format!("UPDATE items SET v = 'changed' WHERE key = {key} RETURNING v"),
            "changed".to_owned(),
        ),
        (
            format!("BEGIN; UPDATE items SET v = 'again' WHERE key = {key} RETURNING v"),
            "again".to_owned(),
        ),
    ] {
        assert_eq!(session.text(&statement), answer);
        session.sql("COMMIT");
        wait_until("the workers have closed the session's connections", || open() == before);
    }
    assert_eq!(session.text(&format!("SELECT v FROM items WHERE key = {key}")), "again");
    let connection_failures =
        session.warnings().into_iter().filter(|warning| warning.message.contains("Connection"));
    assert_eq!(connection_failures.count(), 0);
    assert_eq!(cluster.unhealthy("items"), 0);
    cluster.assert_placements_equal("items");
}

#[test]
fn changes_computed_here_reach_what_is_left_of_each_shard() {
    let cluster = TestCluster::impatient(3);
    create_items(&cluster, 2);
    cluster.create_distributed("CREATE TABLE loose (key int, v text)", "loose", "key", 6, 2);
    cluster.sql(
        "INSERT INTO loose SELECT key % 20, v FROM items; CREATE TABLE here AS SELECT key AS x FROM items WHERE key % 2 = 0",
    );
    let mut session = cluster.new_session();
    cluster.kill(WORKER_1).expect("worker 1 is up");
    assert_eq!(session.count("UPDATE items SET v = v || x FROM here WHERE x = key"), 50);
    assert!(!session.warnings().is_empty(), "the dead worker is told");
    assert!(cluster.unhealthy("items") > 0, "its placements have missed the write");
    assert_eq!(session.count("UPDATE items SET key = key + 1000 WHERE key > 90"), 10);
    assert_eq!(session.count("DELETE FROM loose USING here WHERE x = key"), 45);
    assert_eq!(session.text("SELECT count(*), sum(length(v)) FROM items"), "100|389");
    cluster.start(WORKER_1).expect("worker 1 is down");
    cluster.repair("items");
    cluster.repair("loose");
    assert_eq!(cluster.assert_placements_equal("items"), 100);
    assert_eq!(cluster.assert_placements_equal("loose"), 55);

    // The node dies between the statements of a transaction.
    session.sql("BEGIN");
    assert_eq!(session.count("UPDATE items SET v = v || x FROM here WHERE x = key"), 45);
    cluster.kill(WORKER_2).expect("worker 2 is up");
    assert_eq!(session.count("UPDATE loose SET v = v || x FROM here WHERE x = key + 1"), 50);
    session.sql("COMMIT");
    cluster.start(WORKER_2).expect("worker 2 is down");
    cluster.repair("items");
    cluster.repair("loose");
    assert_eq!(cluster.assert_placements_equal("items"), 100);
    assert_eq!(cluster.assert_placements_equal("loose"), 55);

    // A failed row leaves nothing behind, in a block and outside.
    let before = session.text("SELECT * FROM items ORDER BY 1");
    assert_eq!(session.error("UPDATE items SET key = 7 FROM here WHERE x = key").sqlstate, "23505");
    session.sql("BEGIN; SAVEPOINT one");
    assert_eq!(session.error("MERGE INTO items USING here ON key = x + 1 WHEN NOT MATCHED THEN INSERT VALUES (5, 'five') WHEN MATCHED THEN DELETE").sqlstate, "23505");
    session.sql("ROLLBACK TO one; COMMIT");
    assert_eq!(session.text("SELECT * FROM items ORDER BY 1"), before);
    assert_eq!(cluster.assert_placements_equal("items"), 100);
}

#[test]
fn a_write_over_all_shards_survives_a_dead_worker_and_leaves_nothing_when_it_fails() {
    let cluster = TestCluster::impatient(3);
    create_items(&cluster, 2);
    let mut session = cluster.new_session();
    cluster.kill(WORKER_1).expect("worker 1 is up");
    assert_eq!(session.count("UPDATE items SET v = 'without worker 1'"), 100);
    assert!(!session.warnings().is_empty(), "the dead worker is told");
    assert!(cluster.unhealthy("items") > 0, "its placements have missed the write");
    assert_eq!(session.count("DELETE FROM items WHERE key > 90"), 10);
    assert!(session.warnings().is_empty(), "what is marked is left alone");
    cluster.start(WORKER_1).expect("worker 1 is down");
    cluster.repair("items");
    assert_eq!(cluster.assert_placements_equal("items"), 90);

    // A node that dies after it has written takes the transaction with it, unless others have what it wrote.
    session.sql("BEGIN; UPDATE items SET v = 'doomed?'");
    cluster.kill(WORKER_2).expect("worker 2 is up");
    let committed = session.try_sql("COMMIT").is_ok();
    cluster.start(WORKER_2).expect("worker 2 is down");
    cluster.repair("items");
    assert_eq!(cluster.assert_placements_equal("items"), 90);
    let kept = cluster.text("SELECT count(*) FROM items WHERE v = 'doomed?'");
    assert_eq!(kept, if committed { "90" } else { "0" });

    // One row that fails undoes all of it.
    for assigned in ["v", "key = key, v"] {
        let error = session.error(&format!("UPDATE items SET {assigned} = (1 / (key - 50))::text"));
        assert_eq!(error.sqlstate, "22012", "{assigned}");
    }
    assert_eq!(cluster.text("SELECT count(*) FROM items WHERE length(v) = 1"), "0");
    assert_eq!(cluster.unhealthy("items"), 0);
    assert_eq!(session.sql("TRUNCATE items").len(), 0);
    assert_eq!(cluster.assert_placements_equal("items"), 0);
}

#[test]
fn a_restart_between_statements_is_not_noticed() {
    let cluster = TestCluster::impatient(3);
    create_items(&cluster, 2);
    let key = key_led_by(&cluster, WORKER_1);
    let restart = |kill: bool| {
        if kill { cluster.kill(WORKER_1) } else { cluster.stop(WORKER_1) }.expect("worker 1 is up");
        cluster.start(WORKER_1).expect("worker 1 is down");
    };
    let setup = format!(
        "PREPARE get AS SELECT v FROM items WHERE key = $1; PREPARE put AS UPDATE items SET v = $2 WHERE key = $1;
         CREATE FUNCTION touch() RETURNS text LANGUAGE plpgsql AS $$ DECLARE r text; BEGIN
            UPDATE items SET v = v WHERE key = {key}; SELECT count(*) INTO r FROM items; RETURN r; END $$"
    );
    let mut session = cluster.new_session();
    session.sql(&setup);
    let first_after_restart = [
        (
            format!(
                "INSERT INTO items VALUES (1000 + {key}, 'new') ON CONFLICT (key) DO UPDATE SET v = 'again'"
            ),
            "",
        ),
        (format!("UPDATE items SET v = 'updated' WHERE key = {key}"), ""),
        (format!("SELECT v FROM items WHERE key = {key}"), "updated"),
        ("SELECT count(*) FROM items".to_owned(), "101"),
        (format!("EXECUTE put ({key}, 'prepared')"), ""),
        (format!("EXECUTE get ({key})"), "prepared"),
        ("SELECT touch()".to_owned(), "101"),
        (format!("BEGIN; UPDATE items SET v = 'block' WHERE key = {key}; COMMIT"), ""),
        (format!("DELETE FROM items WHERE key = {key} RETURNING v"), "block"),
        (format!("INSERT INTO items VALUES ({key}, 'x'), (2001, 'y'), (2002, 'z')"), ""),
        ("INSERT INTO items SELECT i FROM generate_series(3000, 3009) AS i".to_owned(), ""),
        (
            "DECLARE c CURSOR WITH HOLD FOR SELECT count(*) FROM items; FETCH ALL FROM c; CLOSE c"
                .to_owned(),
            "113",
        ),
    ];
    for (kill, statements) in
        [(true, &first_after_restart[..]), (false, &first_after_restart[1..8])]
    {
        for (statement, rows) in statements {
            session.sql("SELECT count(*) FROM items");
            restart(kill);
            let expected = if kill { (*rows).to_owned() } else { rows.replace("101", "113") };
            assert_eq!(session.text(statement), expected, "{statement}");
            assert_eq!(session.warnings(), [], "{statement}");
            assert_eq!(cluster.unhealthy("items"), 0, "{statement}");
        }
    }
    // The node is restarted inside a transaction that has not used it yet.
    session.sql("BEGIN; SELECT 1");
    restart(true);
    session.sql(&format!("UPDATE items SET v = 'late' WHERE key = {key}; COMMIT"));
    assert_eq!(session.warnings(), []);
    // Prepared statements of the protocol are prepared anew.
    let client = session.client();
    let get = client.prepare("SELECT v FROM items WHERE key = $1").expect("a SELECT by key");
    let put = client.prepare("UPDATE items SET v = $2 WHERE key = $1").expect("an UPDATE by key");
    for round in 0..8 {
        let text = format!("round {round}");
        assert_eq!(client.execute(&put, &[&key, &text]).expect("an UPDATE"), 1);
        assert_eq!(client.query_one(&get, &[&key]).expect("a row").get::<_, String>(0), text);
        if round == 2 || round == 6 {
            restart(true);
        }
    }
    assert_eq!(session.warnings(), []);
    assert_eq!(cluster.unhealthy("items"), 0);
    cluster.assert_placements_equal("items");
}

/// Statements that need the shard of `key`, which nobody has.
#[track_caller]
fn expect_nobody(session: &mut Session, key: i32) {
    for statement in
        ["SELECT count(*) FROM items".to_owned(), format!("SELECT * FROM items WHERE key = {key}")]
    {
        let error = session.error(&statement);
        assert_eq!(error.line(), "XX000: could not receive query results", "{statement}");
        assert!(error.detail.contains("items") && !error.hint.is_empty(), "{error}");
    }
    for statement in [
        format!("INSERT INTO items VALUES ({key}, 'twice') ON CONFLICT DO NOTHING"),
        format!("UPDATE items SET v = 'x' WHERE key = {key}"),
        format!("DELETE FROM items WHERE key = {key}"),
        "INSERT INTO items SELECT generate_series(5000, 5100)".to_owned(),
        "INSERT INTO items SELECT generate_series(5000, 5100) RETURNING key".to_owned(),
        "COPY items (key) FROM PROGRAM 'seq 5000 5100'".to_owned(),
    ] {
        let error = session.error(&statement);
        assert_eq!(error.line(), "XX000: could not modify any active placements", "{statement}");
        assert!(error.detail.contains("items"), "{error}");
    }
}

#[test]
fn a_shard_that_nobody_has_is_a_clear_error_and_marks_nothing() {
    for replicas in [1, 2] {
        let cluster = TestCluster::impatient(2);
        create_items(&cluster, replicas);
        let key = key_led_by(&cluster, WORKER_1);
        let mut session = cluster.new_session();
        session.sql("SELECT count(*) FROM items");
        let dead: &[NodeName] = if replicas == 1 { &[WORKER_1] } else { &[WORKER_1, WORKER_2] };
        for node in dead {
            cluster.kill(*node).expect("it is up");
        }
        expect_nobody(&mut session, key);
        expect_nobody(&mut cluster.new_session(), key);
        let error = session
            .error(&format!("BEGIN; SELECT 1; UPDATE items SET v = 'x' WHERE key = {key}; COMMIT"));
        assert_eq!(error.line(), "XX000: could not modify any active placements");
        session.sql("ROLLBACK");
        assert_eq!(cluster.unhealthy("items"), 0);
        for node in dead {
            cluster.start(*node).expect("it is down");
        }
        assert_eq!(
            session.text("SELECT count(*) FROM items WHERE key BETWEEN 5000 AND 5100"),
            "0",
            "half of it is visible"
        );
        assert_eq!(session.text("SELECT count(*) FROM items WHERE key <= 100"), "100");
        assert_eq!(session.count(&format!("UPDATE items SET v = 'alive' WHERE key = {key}")), 1);
        assert_eq!(cluster.unhealthy("items"), 0);
        cluster.assert_placements_equal("items");
    }
}

#[test]
fn a_stale_placement_is_never_used_not_even_as_the_last_one() {
    let cluster = TestCluster::impatient(2);
    create_items(&cluster, 2);
    let key = key_led_by(&cluster, WORKER_1);
    let mut session = cluster.new_session();
    cluster.kill(WORKER_1).expect("worker 1 is up");
    session.sql(&format!("UPDATE items SET v = 'newer' WHERE key = {key}"));
    assert_eq!(session.warnings().len(), 1);
    cluster.start(WORKER_1).expect("worker 1 is down");
    cluster.kill(WORKER_2).expect("worker 2 is up");
    let read = session.error(&format!("SELECT v FROM items WHERE key = {key}"));
    assert_eq!(read.line(), "XX000: could not receive query results");
    let write = session.error(&format!("UPDATE items SET v = 'other' WHERE key = {key}"));
    assert_eq!(write.line(), "XX000: could not modify any active placements");
    assert_eq!(cluster.unhealthy("items"), 1);
    let shard = cluster.shard_of("items", &format!("hashint4({key})"));
    let (good, bad) = (cluster.port(WORKER_2), cluster.port(WORKER_1));
    let repair = format!(
        "SELECT master_copy_shard_placement({shard}, 'localhost', {good}, 'localhost', {bad})"
    );
    let error = session.error(&repair);
    assert_eq!(error.message, "could not copy shard data", "{error}");
    assert_eq!(cluster.unhealthy("items"), 1);
    cluster.start(WORKER_2).expect("worker 2 is down");
    session.sql(&repair);
    assert_eq!(session.text(&format!("SELECT v FROM items WHERE key = {key}")), "newer");
    assert_eq!(cluster.unhealthy("items"), 0);
    assert_eq!(cluster.assert_placements_equal("items"), 100);
}

#[test]
fn a_node_that_dies_inside_a_transaction_leaves_no_half_of_it() {
    let cluster = TestCluster::impatient(3);
    create_items(&cluster, 2);
    let key = key_led_by(&cluster, WORKER_1);
    let other = key_led_by(&cluster, WORKER_2);
    let mut expected = format!("v{key}");
    let write = |value: &str| format!("UPDATE items SET v = '{value}' WHERE key IN ({key})");
    let endings = [
        "COMMIT",
        "SELECT count(*) FROM items",
        "UPDATE items SET v = v || '+' WHERE key = KEY",
        "SAVEPOINT s",
    ];
    for (round, ending) in endings.iter().enumerate() {
        let mut session = cluster.new_session();
        let value = format!("round {round}");
        session.sql(&format!(
            "BEGIN; {}; UPDATE items SET v = '{value}' WHERE key = {other}",
            write(&value)
        ));
        cluster.kill(WORKER_1).expect("worker 1 is up");
        let statement = ending.replace("KEY", &key.to_string());
        let outcome = session.try_sql(&statement).and_then(|_| {
            if *ending == "COMMIT" { Ok(Vec::new()) } else { session.try_sql("COMMIT") }
        });
        if outcome.is_err() {
            session.sql("ROLLBACK");
        }
        cluster.start(WORKER_1).expect("worker 1 is down");
        cluster.repair("items");
        cluster.assert_placements_equal("items");
        let stored = cluster.text(&format!("SELECT v FROM items WHERE key = {key}"));
        let plus = if ending.starts_with("UPDATE") { "+" } else { "" };
        if outcome.is_ok() {
            assert_eq!(stored, format!("{value}{plus}"), "{ending} was acknowledged");
            expected = stored;
        } else {
            // Then nothing is stored, unless the answer of the commit is what was lost.
            assert!(
                stored == expected || (*ending == "COMMIT" && stored == value),
                "{ending}: {stored} after {outcome:?}"
            );
            expected = stored;
        }
    }
    // A mark outlives the rollback of what was going on when it was made.
    let mut session = cluster.new_session();
    cluster.kill(WORKER_1).expect("worker 1 is up");
    session.sql(&format!("BEGIN; {}", write("rolled back")));
    assert!(!session.warnings().is_empty());
    session.sql("ROLLBACK");
    assert_eq!(cluster.unhealthy("items"), 1);
    session.sql(&format!(
        "BEGIN; SAVEPOINT s; {}; ROLLBACK TO s; {}; COMMIT",
        write("rolled back"),
        write("kept")
    ));
    cluster.start(WORKER_1).expect("worker 1 is down");
    assert_eq!(cluster.repair("items"), 1);
    assert_eq!(cluster.text(&format!("SELECT v FROM items WHERE key = {key}")), "kept");
    assert_eq!(cluster.assert_placements_equal("items"), 100);
}

#[test]
fn a_writer_that_waited_for_a_repair_writes_the_repaired_placement_too() {
    // Writers kept the list of placements that they had read before they waited for the repair's lock. So they
    // missed the placement that it had just made healthy, and nobody marked it. Now the list is read behind the lock.
    let cluster = TestCluster::impatient(2);
    create_items(&cluster, 2);
    let key = key_led_by(&cluster, WORKER_2);
    let shard = cluster.shard_of("items", &format!("hashint4({key})"));
    let other = (1..=100)
        .find(|other| {
            *other != key && cluster.shard_of("items", &format!("hashint4({other})")) == shard
        })
        .expect("100 keys, 8 shards");
    let writes = [
        format!("INSERT INTO items VALUES ({key}, 'alone')"),
        format!("INSERT INTO items VALUES ({key}, 'a'), ({other}, 'b')"),
        format!("INSERT INTO items SELECT i FROM generate_series({key}, {key}) AS i"),
        format!("INSERT INTO items SELECT i FROM generate_series({key}, {key}) AS i RETURNING key"),
        format!("COPY items (key) FROM PROGRAM 'echo {key}'"),
    ];
    for write in writes {
        cluster.kill(WORKER_1).expect("worker 1 is up");
        cluster.sql(&format!("DELETE FROM items WHERE key = {key}"));
        cluster.sql(&format!("DELETE FROM items WHERE key = {other}"));
        cluster.start(WORKER_1).expect("worker 1 is down");
        let mut writer = cluster.new_session();
        writer.sql("SELECT count(*) FROM items");
        cluster.sql("BEGIN");
        assert_eq!(cluster.repair("items"), 1, "{write}");
        let text = write.clone();
        let writing = std::thread::spawn(move || writer.sql(&text));
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'";
        wait_until("the writer waits for the repair", || cluster.text(waiting) == "1");
        cluster.sql("COMMIT");
        writing.join().expect("the write succeeds");
        assert_eq!(cluster.unhealthy("items"), 0, "{write}");
        let rows = cluster.assert_placements_equal("items");
        assert_eq!(
            rows,
            if write.contains("VALUES") && write.contains("'b'") { 100 } else { 99 },
            "{write}"
        );
    }
}

#[test]
fn every_table_that_a_with_clause_writes_is_marked_where_the_write_is_missed() {
    let cluster = TestCluster::impatient(2);
    create_items(&cluster, 2);
    cluster.create_distributed("CREATE TABLE sold (key int, v text)", "sold", "key", 8, 2);
    let key = key_led_by(&cluster, WORKER_1);
    let sell = |key: i32| {
        format!(
            "WITH gone AS (DELETE FROM items WHERE key = {key} RETURNING *) INSERT INTO sold SELECT * FROM gone RETURNING v"
        )
    };
    cluster.kill(WORKER_1).expect("worker 1 is up");
    let mut session = cluster.new_session();
    assert_eq!(session.text(&sell(key)), format!("v{key}"));
    assert_eq!(session.warnings().len(), 1);
    let marked = |table: &str| {
        let bad = cluster.placements(table).into_iter().filter(|placement| placement.state != 1);
        bad.map(|placement| (placement.shard, placement.node)).collect::<Vec<_>>()
    };
    for table in ["items", "sold"] {
        let shard = cluster.shard_of(table, &format!("hashint4({key})"));
        assert_eq!(marked(table), [(shard, WORKER_1)]);
    }
    // With the placement of one table healthy there and that of the other not, nobody writes half of the statement.
    cluster.start(WORKER_1).expect("worker 1 is down");
    assert_eq!(cluster.repair("items"), 1);
    session.sql(&format!("INSERT INTO items VALUES ({key}, 'again')"));
    let error = session.error(&sell(key));
    assert_eq!(error.sqlstate, "0A000", "{error}");
    assert_eq!(cluster.repair("sold"), 1);
    assert_eq!(session.text(&sell(key)), "again");
    // Killed inside a transaction that has written both.
    session.sql("BEGIN");
    let other = key_led_by(&cluster, WORKER_1);
    session.sql(&format!("INSERT INTO items VALUES ({other}, 'third')"));
    assert_eq!(session.text(&sell(other)), "third");
    cluster.kill(WORKER_1).expect("worker 1 is up");
    session.sql("COMMIT");
    assert_eq!(marked("items").len() + marked("sold").len(), 2);
    cluster.start(WORKER_1).expect("worker 1 is down");
    assert_eq!(cluster.repair("items") + cluster.repair("sold"), 2);
    assert_eq!(cluster.assert_placements_equal("items"), 99);
    assert_eq!(cluster.assert_placements_equal("sold"), 3);
}

#[test]
fn a_repaired_placement_is_as_good_as_the_other() {
    let cluster = TestCluster::impatient(2);
    cluster.create_distributed(
        "CREATE TABLE goods (key int PRIMARY KEY, code text UNIQUE DEFERRABLE, n int CHECK (n > 0) DEFAULT 1, twice int GENERATED ALWAYS AS (n * 2) STORED);
         CREATE INDEX goods_code ON goods (lower(code)) WHERE n < 1000",
        "goods", "key", 2, 2,
    );
    cluster.sql("INSERT INTO goods SELECT i, 'Code ' || i FROM generate_series(1, 2000) AS i");
    cluster.kill(WORKER_1).expect("worker 1 is up");
    cluster.sql("INSERT INTO goods SELECT i, 'Code ' || i FROM generate_series(2001, 4000) AS i");
    cluster.start(WORKER_1).expect("worker 1 is down");
    assert_eq!(cluster.repair("goods"), 2);
    let described = |node: NodeName| {
        cluster.session_on(node).text(
            "SELECT c.relname, i.indexrelid::regclass, i.indisvalid, i.indisready, pg_get_indexdef(i.indexrelid) FROM pg_index i \
             JOIN pg_class c ON c.oid = i.indrelid WHERE c.relname LIKE 'goods\\_%' ORDER BY 1, 2",
        )
    };
    assert_eq!(described(WORKER_1), described(WORKER_2));
    assert_eq!(described(WORKER_1).lines().count(), 6);
    cluster.kill(WORKER_2).expect("worker 2 is up");
    let mut session = cluster.new_session();
    assert_eq!(session.text("SELECT code, twice FROM goods WHERE key = 3000"), "Code 3000|2");
    assert_eq!(session.text("SELECT count(*) FROM goods"), "4000");
    let mut worker = cluster.session_on(WORKER_1);
    worker.sql("SET enable_seqscan = off");
    for shard in cluster.tables_on(WORKER_1, "goods\\_1%") {
        let by_index = worker.text(&format!("SELECT count(*) FROM {shard} WHERE lower(code) LIKE 'code %' AND lower(code) > 'code' AND n < 1000"));
        assert_eq!(by_index, worker.text(&format!("SELECT count(*) FROM {shard}")), "{shard}");
    }
    assert_eq!(session.error("INSERT INTO goods VALUES (3000, 'x')").sqlstate, "23505");
    assert_eq!(session.error("INSERT INTO goods VALUES (5000, 'x', 0)").sqlstate, "23514");
    cluster.start(WORKER_2).expect("worker 2 is down");
    assert_eq!(cluster.unhealthy("goods"), 0);
    assert_eq!(cluster.assert_placements_equal("goods"), 4000);
}

/// Ends the sessions that the coordinator has on a node.
fn hang_up(cluster: &TestCluster, node: NodeName) {
    let ended = cluster.session_on(node).text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name ~ '^pg_shard( |$)'",
    );
    assert_ne!(ended, "0");
}

#[test]
fn a_transaction_whose_writes_are_lost_with_a_node_reads_and_writes_no_more_even_behind_a_savepoint()
 {
    let cluster = TestCluster::up(2);
    create_items(&cluster, 1);
    let mut session = cluster.new_session();
    session.sql(
        "BEGIN; INSERT INTO items SELECT i, 'new' FROM generate_series(101, 150) AS i; SAVEPOINT s",
    );
    hang_up(&cluster, WORKER_2);
    assert_eq!(session.error("SELECT count(*) FROM items").sqlstate, "08006");
    session.sql("ROLLBACK TO s");
    assert_eq!(session.error("SELECT count(*) FROM items").sqlstate, "08006");
    session.sql("ROLLBACK TO s");
    assert_eq!(session.error("INSERT INTO items VALUES (500, 'more')").sqlstate, "08006");
    session.sql("ROLLBACK");
    assert_eq!(session.text("SELECT count(*) FROM items"), "100");
}

#[test]
fn a_repeatable_read_transaction_that_has_lost_a_nodes_snapshot_reads_no_other() {
    let cluster = TestCluster::up(2);
    create_items(&cluster, 1);
    let mut session = cluster.new_session();
    session.sql("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let before = session.text("SELECT count(*), min(v) FROM items");
    cluster.sql("UPDATE items SET v = 'a'");
    assert_eq!(session.text("SELECT count(*), min(v) FROM items"), before);
    hang_up(&cluster, WORKER_1);
    let error = session.error("SELECT count(*), min(v) FROM items");
    assert_eq!(error.sqlstate, "08006");
    assert!(error.message.contains("this transaction's snapshot"), "{error:?}");
    session.sql("ROLLBACK");
    assert_eq!(session.text("SELECT count(*), min(v) FROM items"), "100|a");
    // Nothing has been read there yet, so nothing is lost.
    session.sql("BEGIN ISOLATION LEVEL REPEATABLE READ");
    hang_up(&cluster, WORKER_1);
    assert_eq!(session.text("SELECT count(*), min(v) FROM items"), "100|a");
    session.sql("COMMIT");
}
