//! The placements of a shard hold the same rows, whatever is written and by however many at once: the ways in which
//! copies come apart when each is sent the same SQL, one by one.

use std::thread;

use testkit::{TestCluster, wait_until};

/// Writes that go to one shard, to several shards at once, and those whose rows are computed here.
fn writes_of(value: &str) -> [String; 6] {
    [
        format!("UPDATE seen SET v = {value}::text WHERE k = 3"),
        format!("UPDATE seen SET v = {value}::text"),
        format!("UPDATE seen SET v = {value}::text FROM here WHERE x = k"),
        format!("UPDATE seen SET k = k + 1000, v = {value}::text WHERE k % 7 = 0"),
        format!(
            "INSERT INTO seen (k, v) SELECT k + 5000, {value}::text FROM seen WHERE k % 5 = 1 ON CONFLICT DO NOTHING"
        ),
        format!(
            "MERGE INTO seen USING here ON k = x + 20 WHEN MATCHED THEN UPDATE SET v = {value}::text WHEN NOT MATCHED THEN INSERT (k, v) VALUES (x + 300, {value}::text)"
        ),
    ]
}

fn cluster_with_seen() -> TestCluster {
    let cluster = TestCluster::up(3);
    cluster.create_distributed(
        "CREATE TABLE seen (k int PRIMARY KEY, v text, at timestamptz DEFAULT clock_timestamp(), id bigserial,
             u uuid DEFAULT gen_random_uuid(), twice text GENERATED ALWAYS AS (v || v) STORED)",
        "seen",
        "k",
        6,
        2,
    );
    cluster.create_distributed("CREATE TABLE loose (k int, v float8, w int)", "loose", "k", 6, 2);
    cluster.sql(
        "INSERT INTO seen (k) SELECT i FROM generate_series(1, 60) AS i;
         INSERT INTO loose SELECT i % 10, random(), i FROM generate_series(1, 100) AS i;
         CREATE TABLE here AS SELECT x FROM generate_series(1, 60, 3) AS x; CREATE SEQUENCE numbers",
    );
    cluster
}

fn assert_same(cluster: &TestCluster, tables: &[&str]) {
    for table in tables {
        assert_eq!(cluster.unhealthy(table), 0, "{table}");
        cluster.assert_placements_equal(table);
    }
}

#[test]
fn functions_that_differ_at_each_call_or_on_each_server_store_one_value_everywhere() {
    let cluster = cluster_with_seen();
    let mut session = cluster.new_session();
    session.sql("SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'");
    for value in [
        "random()",
        "clock_timestamp()",
        "now()",
        "nextval('numbers')",
        "gen_random_uuid()",
        "txid_current()",
        "current_setting('port')",
        "current_user",
        "inet_server_port()",
        "pg_backend_pid()",
        "(timestamptz '2024-01-01 00:00Z')",
        "'seen'::regclass::oid",
    ] {
        for write in writes_of(value) {
            session.sql("BEGIN");
            session.sql(&write);
            session.sql("COMMIT");
        }
        assert_same(&cluster, &["seen"]);
        session.sql("DELETE FROM seen WHERE k > 60; INSERT INTO seen (k) SELECT i FROM generate_series(1, 60) AS i ON CONFLICT DO NOTHING");
    }
    // Each row has a value of its own, as on a local table.
    session.sql("UPDATE seen SET v = nextval('numbers')");
    assert_eq!(session.text("SELECT count(DISTINCT v) = count(*) FROM seen"), "t");
    session.sql("DELETE FROM seen WHERE random() < 0.5");
    assert_same(&cluster, &["seen"]);
}

#[test]
fn defaults_identities_and_policies_are_evaluated_once() {
    let cluster = cluster_with_seen();
    cluster.on_all_nodes("CREATE ROLE tenant LOGIN; GRANT CREATE ON SCHEMA public TO tenant");
    let mut session = cluster.new_session();
    session.sql("INSERT INTO seen (k) SELECT i FROM generate_series(100, 130) AS i");
    session.sql("WITH gone AS (DELETE FROM seen WHERE k > 120 RETURNING k) INSERT INTO seen (k) SELECT k + 100 FROM gone");
    session.sql("UPDATE seen SET at = DEFAULT, u = DEFAULT, id = DEFAULT WHERE k < 20");
    session.sql("MERGE INTO seen USING here ON k = x + 500 WHEN NOT MATCHED THEN INSERT (k) VALUES (x + 500)");
    assert_eq!(
        session
            .text("SELECT count(DISTINCT id) = count(*), count(DISTINCT u) = count(*) FROM seen"),
        "t|t"
    );
    assert_same(&cluster, &["seen"]);

    session.sql(
        "CREATE TABLE owned (k int PRIMARY KEY, who text DEFAULT current_user, v float8);
         ALTER TABLE owned ENABLE ROW LEVEL SECURITY; GRANT ALL ON owned TO tenant;
         CREATE POLICY own ON owned USING (who = current_user) WITH CHECK (v < 100)",
    );
    cluster.distribute("owned", "k", 4, 2);
    session.sql("INSERT INTO owned VALUES (1, 'tenant', 1), (2, 'tenant', 2), (3, 'other', 3)");
    let mut tenant = cluster.session_as("tenant");
    assert_eq!(tenant.count("UPDATE owned SET v = v + random()"), 2);
    assert_eq!(tenant.count("DELETE FROM owned WHERE k IN (2, 3)"), 1);
    assert_eq!(tenant.count("INSERT INTO owned (k, v) VALUES (4, 4), (5, 5)"), 2);
    for statement in [
        "INSERT INTO owned (k, v) VALUES (6, 100)",
        "UPDATE owned SET v = 100 WHERE k = 1",
        "UPDATE owned SET v = v + 97",
    ] {
        assert_eq!(
            tenant.error(statement).line(),
            "42501: new row violates row-level security policy for table \"owned\"",
            "{statement}"
        );
    }
    assert_eq!(
        session.text("SELECT k, who FROM owned ORDER BY 1"),
        "1|tenant\n3|other\n4|tenant\n5|tenant"
    );
    assert_same(&cluster, &["owned"]);
}

#[test]
fn which_rows_it_is_does_not_depend_on_where_they_lie() {
    let cluster = cluster_with_seen();
    // The placements' rows lie in different orders.
    cluster.sql("UPDATE loose SET w = w WHERE w % 3 = 0; DELETE FROM loose WHERE w % 11 = 0");
    let leaders = cluster.placements("loose");
    let first = leaders.iter().find(|placement| placement.state == 1).expect("there is one");
    let name = cluster.shard_name("loose", first.shard);
    cluster.session_on(first.node).sql(&format!(
        "CREATE TABLE shuffled AS SELECT * FROM {name} ORDER BY random(); TRUNCATE {name}; INSERT INTO {name} SELECT * FROM shuffled; DROP TABLE shuffled"
    ));
    for statement in [
        "DELETE FROM loose WHERE ctid IN (SELECT ctid FROM loose LIMIT 3)",
        "DELETE FROM loose WHERE w IN (SELECT w FROM loose LIMIT 5)",
        "UPDATE loose SET w = -1 WHERE w IN (SELECT w FROM loose WHERE k = 3 LIMIT 2) AND k = 3",
        "UPDATE loose SET v = o.v FROM (SELECT DISTINCT ON (k) * FROM loose) AS o WHERE o.k = loose.k",
        "UPDATE loose SET v = (SELECT sum(v) FROM loose AS o WHERE o.k = loose.k)",
        "UPDATE loose SET v = (SELECT (array_agg(v))[1] FROM loose AS o WHERE o.k = 4) WHERE k = 4",
        "UPDATE loose SET w = o.n FROM (SELECT k, w, row_number() OVER (PARTITION BY k) AS n FROM loose) AS o WHERE (o.k, o.w) = (loose.k, loose.w)",
        "UPDATE loose SET v = o.w FROM loose AS o WHERE o.k = loose.k AND o.w <> loose.w",
        "INSERT INTO loose SELECT k, sum(v), 0 FROM loose GROUP BY k LIMIT 4",
    ] {
        cluster.sql(statement);
        assert_same(&cluster, &["loose"]);
    }
    cluster.create_distributed(
        "CREATE TABLE two (k int, a int, b int, UNIQUE (k, a), UNIQUE (k, b))",
        "two",
        "k",
        4,
        2,
    );
    cluster.sql("INSERT INTO two SELECT i % 4, i % 7, i % 5 FROM generate_series(1, 200) AS i ON CONFLICT DO NOTHING");
    assert_same(&cluster, &["two"]);
}

#[test]
fn writers_at_once_leave_the_placements_the_same() {
    let cluster = cluster_with_seen();
    let writers: Vec<_> = (0..5)
        .map(|writer| {
            let mut session = cluster.new_session();
            thread::spawn(move || {
                session.sql("SET statement_timeout = '60s'");
                for turn in 0..12 {
                    let statement = match writer {
                        0 => "UPDATE loose SET w = w * 2 % 1000".to_owned(),
                        1 => format!("UPDATE loose SET w = w + 1 WHERE k = {}", turn % 10),
                        2 => "UPDATE loose SET v = random(), k = k + 1 WHERE k = 2".to_owned(),
                        3 => format!("UPDATE loose SET w = x FROM here WHERE x = w AND k < {turn}"),
                        _ => format!(
                            "INSERT INTO loose SELECT k, v, {turn} FROM loose WHERE k = 3 LIMIT 2"
                        ),
                    };
                    session.sql(&statement);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("no writer fails");
    }
    assert_same(&cluster, &["loose"]);
}

#[test]
fn a_write_sees_of_a_transaction_that_commits_on_all_placements_the_same() {
    let cluster = cluster_with_seen();
    cluster.sql("DELETE FROM loose");
    let mut inserting = cluster.new_session();
    let inserter = thread::spawn(move || {
        for turn in 0..40 {
            inserting.sql(&format!(
                "BEGIN; INSERT INTO loose VALUES (1, 0, {turn}); INSERT INTO loose VALUES (1, 0, {turn}), (2, 0, {turn}); COMMIT"
            ));
        }
    });
    let mut flagging = cluster.new_session();
    let flagger = thread::spawn(move || {
        flagging.sql("SET statement_timeout = '60s'");
        for _ in 0..10 {
            flagging.sql("UPDATE loose SET v = v + 1 WHERE v = 0 AND k = 1");
            flagging.sql("UPDATE loose SET v = v + 1 WHERE v = 0");
            flagging.sql("UPDATE loose SET v = v + 1 + random() WHERE v = 0");
        }
    });
    inserter.join().expect("no writer fails");
    flagger.join().expect("no writer fails");
    assert_eq!(cluster.text("SELECT count(*) FROM loose"), "120");
    assert_same(&cluster, &["loose"]);
}

#[test]
fn what_one_placement_alone_rejects_is_stored_on_none_or_marked() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE strict (k int, v int, w int, UNIQUE (k, v))",
        "strict",
        "k",
        2,
        2,
    );
    cluster.sql("INSERT INTO strict SELECT i, 0, 0 FROM generate_series(1, 20) AS i; CREATE TABLE here AS SELECT 1 AS x");
    // A row that only a follower has, as after a restore from an old backup.
    let shard = cluster.shard_of("strict", "hashint4(1)");
    let follower = cluster
        .placements("strict")
        .into_iter()
        .filter(|placement| placement.shard == shard)
        .max_by_key(|placement| placement.id)
        .expect("there are two");
    let name = cluster.shard_name("strict", shard);
    let mut on_follower = cluster.session_on(follower.node);
    on_follower.sql(&format!("INSERT INTO {name} VALUES (1, 7, 0)"));
    for statement in [
        "INSERT INTO strict VALUES (1, 7), (2, 7), (3, 7), (4, 7)",
        "BEGIN; INSERT INTO strict VALUES (1, 7); COMMIT",
        "BEGIN; UPDATE strict SET v = 7 WHERE k = 1; COMMIT",
        "UPDATE strict SET v = 7",
        "UPDATE strict SET v = 7 FROM here WHERE x = k",
        "UPDATE strict SET v = 7 + (random() * 0)::int",
        "UPDATE strict SET k = 1, v = 7 WHERE k = 9",
    ] {
        assert_eq!(cluster.new_session().error(statement).sqlstate, "23505", "{statement}");
    }
    assert_eq!(cluster.text("SELECT count(*) FROM strict WHERE v = 7 OR k = 9"), "1");
    assert_eq!(cluster.unhealthy("strict"), 0);
    // A statement that both commit at once is stored by the leader, and the follower is known to lack it.
    cluster.sql("INSERT INTO strict VALUES (1, 7)");
    assert_eq!(cluster.unhealthy("strict"), 1);
    assert_eq!(cluster.repair("strict"), 1);
    cluster.sql("DELETE FROM strict WHERE v = 7");
    assert_same(&cluster, &["strict"]);
}

#[test]
fn a_constraint_that_is_checked_at_commit_undoes_the_transaction_on_all_placements() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE late (k int, v int, UNIQUE (k, v) DEFERRABLE INITIALLY DEFERRED)",
        "late",
        "k",
        2,
        2,
    );
    cluster.sql("INSERT INTO late SELECT i, 0 FROM generate_series(1, 20) AS i; CREATE TABLE here AS SELECT 1 AS x");
    for statement in [
        "BEGIN; INSERT INTO late VALUES (1, 0); COMMIT",
        "BEGIN; INSERT INTO late VALUES (1, 0), (2, 0), (3, 1), (4, 1); COMMIT",
        "BEGIN; INSERT INTO late VALUES (1, 1); UPDATE late SET v = 5 FROM here WHERE x = k; COMMIT",
        "INSERT INTO late VALUES (1, 0)",
    ] {
        let mut session = cluster.new_session();
        assert_eq!(session.error(statement).sqlstate, "23505", "{statement}");
        assert_eq!(cluster.text("SELECT count(*), sum(v) FROM late"), "20|0", "{statement}");
        assert_same(&cluster, &["late"]);
    }
    // For a moment twice is allowed.
    cluster.sql("BEGIN; UPDATE late SET v = x FROM here WHERE k IN (1, 2); INSERT INTO late VALUES (1, 1); DELETE FROM late WHERE k = 1 AND v = 1; COMMIT");
    assert_same(&cluster, &["late"]);
}

/// An UPDATE over all shards locked them one by one and waited for one that a transaction had, which then waited for
/// another: PostgreSQL ended one of the two. Now the UPDATE waits with nothing in its hands.
#[test]
fn an_update_of_all_shards_and_a_transaction_by_key_do_not_wait_for_each_other() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v int)", "t", "k", 8, 2);
    cluster.sql("INSERT INTO t SELECT i, 0 FROM generate_series(1, 100) AS i");
    let shard_of = |k: u32| cluster.shard_of("t", &format!("hashint4({k})"));
    let mut keys: Vec<u32> = (1..=100).collect();
    keys.sort_by_key(|k| shard_of(*k));
    let (first, last) = (keys[0], keys[99]);
    let mut session = cluster.new_session();
    session.sql(&format!("BEGIN; UPDATE t SET v = v + 1 WHERE k = {last}"));
    let mut other = cluster.new_session();
    thread::scope(|scope| {
        let update = scope.spawn(move || other.count("UPDATE t SET v = v + 10 WHERE v >= 0"));
        let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        wait_until("the UPDATE waits", || cluster.text(waits) == "1");
        session.sql(&format!("UPDATE t SET v = v + 1 WHERE k = {first}"));
        session.sql("COMMIT");
        assert_eq!(update.join().expect("the UPDATE ends well"), 100);
    });
    assert_eq!(cluster.text("SELECT sum(v), count(*) FILTER (WHERE v = 11) FROM t"), "1002|2");
    cluster.assert_placements_equal("t");
}
