//! What sessions keep, and how much of it.

use std::fs;

use testkit::{NodeName, Session, TestCluster};

/// Fingerprints of statements by key on table `wide`; `KEY` is the key, `N` some number.
fn shapes() -> Vec<String> {
    let mut shapes = Vec::new();
    for column in 1..=10 {
        shapes.push(format!("SELECT c{column}, KEY AS shape FROM wide WHERE k = KEY"));
        shapes.push(format!("SELECT c{column} FROM wide WHERE k = KEY AND c{column} > N"));
        shapes.push(format!("UPDATE wide SET c{column} = N WHERE k = KEY"));
        shapes.push(format!(
            "UPDATE wide SET c{column} = c{column} + 1 WHERE k = KEY RETURNING c{column}"
        ));
        shapes.push(format!(
            "INSERT INTO wide (k, c{column}) VALUES (KEY, N) ON CONFLICT (k) DO UPDATE SET c{column} = N"
        ));
    }
    shapes
}

fn create_wide(cluster: &TestCluster, replicas: u32) {
    let columns: Vec<String> = (1..=10).map(|number| format!("c{number} int DEFAULT 0")).collect();
    cluster.create_distributed(
        &format!("CREATE TABLE wide (k int PRIMARY KEY, {})", columns.join(", ")),
        "wide",
        "k",
        64,
        replicas,
    );
    cluster.sql("INSERT INTO wide SELECT i FROM generate_series(1, 500) AS i");
}

#[test]
fn a_session_keeps_no_more_prepared_statements_than_it_may() {
    let cluster = TestCluster::up(2);
    create_wide(&cluster, 1);
    // On the workers it tells what the session there has prepared.
    let create = |body: &str| {
        format!(
            "CREATE FUNCTION prepared(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN {body}; END $$"
        )
    };
    cluster.on_workers(&create("(SELECT count(*) FROM pg_prepared_statements)"));
    cluster.sql(&create("-1"));
    let keys = [NodeName::Worker(1), NodeName::Worker(2)]
        .map(|node| crate::key_led_by(&cluster, "wide", node));
    let mut session = cluster.new_session();
    session.sql("SET pg_shard.max_prepared_statements_per_session = 10");
    let mut most = 0;
    for round in 0..10 {
        for (number, shape) in (0..).zip(shapes()) {
            let key = 100 + (number * 37 + round * 101) % 400;
            let statement = fill(&shape, &key.to_string(), "7");
            session.sql(&statement);
            if number % 10 == 0 {
                for key in keys {
                    let held = session.text(&format!(
                        "UPDATE wide SET c1 = prepared(k) WHERE k = {key} RETURNING c1"
                    ));
                    let held: i32 = held.parse().expect("a number");
                    assert!((1..=10).contains(&held), "{held} prepared statements");
                    most = most.max(held);
                }
            }
        }
    }
    assert_eq!(most, 8, "two places of ten are for BEGIN and for what shows a commit");
    // In transactions too, whose BEGIN and COMMIT are kept beside the others.
    for number in 0..30 {
        session.sql(&format!(
            "BEGIN; UPDATE wide SET c2 = {number} WHERE k = {number}; SAVEPOINT s; SELECT c{} FROM wide WHERE k = {number}",
            number % 10 + 1
        ));
        let held = session
            .text(&format!("UPDATE wide SET c1 = prepared(k) WHERE k = {} RETURNING c1", keys[0]));
        assert!(held.parse::<i32>().expect("a number") <= 10, "{held} prepared statements");
        session.sql(if number % 3 == 0 { "ROLLBACK" } else { "COMMIT" });
    }
    // Errors on the way leave nothing behind.
    for number in 200..260 {
        let (column, other) = (number % 10 + 1, number % 7 + 1);
        let error = session.error(&format!(
            "UPDATE wide SET c{column} = 1 / (c1 - c1) WHERE k = {number} RETURNING c{other}"
        ));
        assert_eq!(error.sqlstate, "22012", "{error}");
    }
    let held = session
        .text(&format!("UPDATE wide SET c1 = prepared(k) WHERE k = {} RETURNING c1", keys[0]));
    assert!(held.parse::<i32>().expect("a number") <= 10, "{held} prepared statements");
}

#[test]
fn fifty_shapes_over_64_shards_answer_right_with_ten_prepared_statements() {
    let cluster = TestCluster::up(3);
    create_wide(&cluster, 2);
    let mut session = cluster.new_session();
    session.sql("SET pg_shard.max_prepared_statements_per_session = 10");
    let mut expected = vec![[0_i32; 10]; 501];
    for turn in 0_i32..3000 {
        let key = (turn * 67) % 500 + 1;
        let column = usize::try_from((turn * 7) % 10).expect("is not negative");
        let value = &mut expected[usize::try_from(key).expect("is not negative")][column];
        let name = format!("c{}", column + 1);
        match turn % 5 {
            0 => {
                *value = turn;
                session.sql(&format!("UPDATE wide SET {name} = {turn} WHERE k = {key}"));
            }
            1 => {
                *value += 1;
                let found = session.text(&format!(
                    "UPDATE wide SET {name} = {name} + 1 WHERE k = {key} RETURNING {name}"
                ));
                assert_eq!(found, value.to_string());
            }
            2 => {
                *value = -turn;
                session.sql(&format!(
                    "INSERT INTO wide (k, {name}) VALUES ({key}, 0) ON CONFLICT (k) DO UPDATE SET {name} = {}",
                    -turn
                ));
            }
            _ => {
                let found = session.text(&format!("SELECT {name} FROM wide WHERE k = {key}"));
                assert_eq!(found, value.to_string(), "turn {turn}");
            }
        }
    }
    for (key, row) in (0_i32..).zip(&expected).skip(1) {
        let columns: Vec<String> = row.iter().map(i32::to_string).collect();
        let found = session.text(&format!(
            "SELECT c1, c2, c3, c4, c5, c6, c7, c8, c9, c10 FROM wide WHERE k = {key}"
        ));
        assert_eq!(found, columns.join("|"), "key {key}");
    }
    assert_eq!(cluster.unhealthy("wide"), 0);
    assert_eq!(cluster.assert_placements_equal("wide"), 500);
}

/// Memory that a process shares with no other, in kB.
fn private_memory(pid: &str) -> u64 {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let of = |label: &str| {
        let line = text.lines().find(|line| line.starts_with(label)).expect("the kernel tells");
        line.split_whitespace()
            .nth(1)
            .and_then(|number| number.parse::<u64>().ok())
            .expect("a number")
    };
    of("Private_Clean:") + of("Private_Dirty:")
}

/// Runs `statement(session, number)` 20,000 times and looks at the backend's memory.
fn memory_stays_flat(
    cluster: &TestCluster,
    what: &str,
    mut statement: impl FnMut(&mut Session, u32),
) {
    let mut session = cluster.new_session();
    let pid = session.text("SELECT pg_backend_pid()");
    let mut plain = cluster.new_session();
    plain.sql("SELECT count(*) FROM pg_class");
    let of_plain = private_memory(&plain.text("SELECT pg_backend_pid()"));
    statement(&mut session, 0);
    let first = private_memory(&pid);
    for number in 1..10_000 {
        statement(&mut session, number);
    }
    let warm = private_memory(&pid);
    for number in 10_000..20_000 {
        statement(&mut session, number);
    }
    let last = private_memory(&pid);
    println!(
        "{what}: a plain backend {of_plain} kB; after 1 statement {first} kB, after 10,000 {warm} kB, after 20,000 {last} kB"
    );
    assert!(warm < 8 * 1024, "{what}: {warm} kB after 10,000 statements");
    assert!(
        last <= warm + 256,
        "{what}: {warm} kB after 10,000 statements, {last} kB after 20,000"
    );
}

#[test]
fn memory_is_bounded_and_does_not_grow() {
    let cluster = TestCluster::up(2);
    create_wide(&cluster, 1);
    let shapes = shapes();
    let key = |number: u32| (number * 67) % 500 + 1;
    memory_stays_flat(&cluster, "simple", |session, number| {
        let shape = &shapes[number as usize % shapes.len()];
        session.sql(&fill(shape, &key(number).to_string(), &number.to_string()));
    });
    let mut prepared = Vec::new();
    memory_stays_flat(&cluster, "prepared", |session, number| {
        let client = session.client();
        if prepared.is_empty() {
            prepared = shapes
                .iter()
                .map(|shape| {
                    let sql = fill(shape, "$1::int", "$2::int");
                    (client.prepare(&sql).expect("a statement by key"), sql.contains("$2"))
                })
                .collect();
        }
        let (statement, with_number) = &prepared[number as usize % prepared.len()];
        let (key, value) = (key(number).cast_signed(), number.cast_signed());
        let arguments: &[&(dyn testkit::postgres::types::ToSql + Sync)] =
            if *with_number { &[&key, &value] } else { &[&key] };
        client.query(statement, arguments).expect("it runs");
    });
    memory_stays_flat(&cluster, "transactions", |session, number| {
        let statement =
            fill(&shapes[number as usize % shapes.len()], &key(number).to_string(), "1");
        match number % 4 {
            0 => drop(session.sql(&format!("BEGIN; {statement}; COMMIT"))),
            1 => drop(
                session.sql(&format!("BEGIN; SAVEPOINT a; {statement}; ROLLBACK TO a; COMMIT")),
            ),
            2 => drop(session.error(&format!("SELECT c1 / 0 FROM wide WHERE k = {}", key(number)))),
            _ => drop(session.sql(&statement)),
        }
    });
}

/// A shape's statement.
fn fill(shape: &str, key: &str, number: &str) -> String {
    let words = shape.split_inclusive([' ', '(', ')', ',']);
    let filled = words.map(|word| {
        let end = word.trim_end_matches([' ', '(', ')', ',']);
        let rest = &word[end.len()..];
        match end {
            "KEY" => format!("{key}{rest}"),
            "N" => format!("{number}{rest}"),
            _ => word.to_owned(),
        }
    });
    filled.collect()
}

#[test]
fn statements_that_have_become_useless_are_closed_on_the_worker() {
    // All that a session had prepared was forgotten when one of them had become useless, but stayed on the worker: 1000
    // statements more each time. Now the next flight closes what was forgotten.
    let cluster = TestCluster::up(1);
    crate::create_kv(&cluster, 1);
    let create = |body: &str| {
        format!(
            "CREATE FUNCTION prepared(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN {body}; END $$"
        )
    };
    cluster.on_workers(&create("(SELECT count(*) FROM pg_prepared_statements)"));
    cluster.sql(&create("-1"));
    let shard = cluster.shard_name("kv", crate::shard_of(&cluster, "kv", 7));
    let mut worker = cluster.session_on(NodeName::Worker(1));
    let mut session = cluster.new_session();
    for turn in 0..10 {
        for key in 1..=40 {
            session.sql(&format!("SELECT s FROM kv WHERE k = {key}"));
        }
        let to = if turn % 2 == 0 { "text" } else { "varchar(20)" };
        worker.sql(&format!("ALTER TABLE {shard} ALTER COLUMN s TYPE {to}"));
        assert_eq!(session.text("SELECT s FROM kv WHERE k = 7"), "s7");
        let held = session.text("UPDATE kv SET v = prepared(k) WHERE k = 7 RETURNING v");
        // The two statements of this turn, of eight shards at most.
        assert!((1..=16).contains(&held.parse::<i32>().expect("a number")), "{held}, turn {turn}");
    }
}

#[test]
fn a_worker_may_plan_for_the_values_at_hand_where_they_differ_much() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE jobs (tenant int, number int, state text, held bigint); CREATE INDEX jobs_state ON jobs (state)",
        "jobs",
        "tenant",
        4,
        1,
    );
    cluster.sql(
        "INSERT INTO jobs SELECT 1, i, CASE WHEN i % 2000 = 0 THEN 'new' ELSE 'done' END FROM generate_series(1, 20000) AS i",
    );
    cluster.on_workers("ANALYZE");
    let create = |body: &str| {
        format!(
            "CREATE FUNCTION custom_plans(int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN {body}; END $$"
        )
    };
    cluster.on_workers(&create("(SELECT max(custom_plans) FROM pg_prepared_statements)"));
    cluster.sql(&create("-1"));
    for prepared in [false, true] {
        let mut session = cluster.new_session();
        session.sql("PREPARE sum(int, text) AS SELECT sum(number) FROM jobs WHERE tenant = $1 AND state = $2");
        for _ in 0..20 {
            let sum = session.text(if prepared {
                "EXECUTE sum(1, 'new')"
            } else {
                "SELECT sum(number) FROM jobs WHERE tenant = 1 AND state = 'new'"
            });
            assert_eq!(sum, "110000");
        }
        let planned = session.text(
            "UPDATE jobs SET held = custom_plans(number) WHERE tenant = 1 AND number = 1 RETURNING held",
        );
        assert_eq!(planned, "20", "an index for the few that are new, prepared: {prepared}");
    }
}

/// An UPDATE of all shards skipped the first shard of each node, and said so by its count only: BEGIN was prepared anew
/// and closed the least recently used statement to make room, which was the one that followed in the same flight and was
/// believed to be prepared; an empty text was prepared in its place. Statements of a flight are looked up first now, room
/// is made afterwards among the others, and an empty statement is an error.
#[test]
fn no_statement_of_a_flight_is_closed_to_make_room_for_another() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v int)", "t", "k", 40, 1);
    cluster.sql("INSERT INTO t SELECT i, 0 FROM generate_series(1, 400) AS i");
    let mut session = cluster.new_session();
    // For each number of statements that a session may keep there is one at which BEGIN displaces the next statement.
    for limit in 10..=30 {
        session.sql(&format!("SET pg_shard.max_prepared_statements_per_session = {limit}"));
        for _ in 0..2 {
            assert_eq!(session.count("UPDATE t SET v = v + 1"), 400, "limit {limit}");
        }
        for key in 1..=25 {
            session.sql(&format!("UPDATE t SET v = v + 0 WHERE k = {key}"));
        }
        session.sql("BEGIN ISOLATION LEVEL REPEATABLE READ");
        for key in 1..=25 {
            let read = session.text(&format!("SELECT k FROM t WHERE k = {key}"));
            assert_eq!(read, key.to_string(), "limit {limit}");
        }
        session.sql("COMMIT");
    }
    assert_eq!(cluster.text("SELECT min(v), max(v), count(*) FROM t"), "42|42|400");
}
