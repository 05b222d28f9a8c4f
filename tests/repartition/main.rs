//! Rows that move from worker to worker for a join: the answers are plain PostgreSQL's, and nothing stays behind.
//!
//! The tables are small; that they are large is what the coordinator's statistics are made to say.

use testkit::{NodeName, Rows, Session, TestCluster, wait_until};

const TABLES: &str = include_str!("tables.sql");
const STATEMENTS: &str = include_str!("statements.sql");

/// What EXPLAIN says of rows that move.
const MOVED: &str = "worker to worker";

const JOIN: &str = "SELECT count(*), sum(c.y) FROM a JOIN c ON a.x = c.i";

/// The tables in the schemas `plain` and `sharded`.
fn cluster_with_tables() -> TestCluster {
    let cluster = TestCluster::up_with(3, &[("autovacuum", "off")]);
    let (definitions, rows) =
        TABLES.split_once("INSERT INTO").expect("tables come before their rows");
    cluster.sql(&format!("CREATE SCHEMA plain; SET search_path = plain, public; {TABLES}"));
    cluster
        .sql(&format!("CREATE SCHEMA sharded; SET search_path = sharded, public; {definitions}"));
    for (table, shards, copies) in [("a", 6, 1), ("c", 4, 2), ("e", 6, 1)] {
        cluster.distribute(&format!("sharded.{table}"), "id", shards, copies);
    }
    cluster.sql("SELECT create_reference_table('sharded.r')");
    cluster.sql(&format!("SET search_path = sharded; INSERT INTO{rows}"));
    cluster.sql("ANALYZE");
    // Large tables, in no column of which a value comes often.
    cluster.sql(
        "UPDATE pg_class SET reltuples = 5e6 WHERE relname IN ('a', 'c', 'e') AND relnamespace = 'sharded'::regnamespace; \
         UPDATE pg_statistic SET stadistinct = -1, stakind1 = 0, stakind2 = 0, stakind3 = 0, stakind4 = 0, stakind5 = 0 \
         WHERE starelid IN ('sharded.a'::regclass, 'sharded.c'::regclass, 'sharded.e'::regclass)",
    );
    cluster.sql("RESET search_path");
    cluster
}

fn session(cluster: &TestCluster, schema: &str) -> Session {
    let mut session = cluster.new_session();
    session.sql(&format!("SET search_path = {schema}, public; SET statement_timeout = '60s'"));
    session
}

fn statements() -> Vec<String> {
    let lines: Vec<&str> = STATEMENTS.lines().filter(|line| !line.starts_with("--")).collect();
    let text = lines.join("\n") + "\n";
    text.split(";\n").map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

fn sorted(mut rows: Rows) -> Rows {
    rows.sort();
    rows
}

#[track_caller]
fn assert_moves(session: &mut Session, statement: &str) {
    let plan = session.text(&format!("EXPLAIN {statement}"));
    assert!(plan.contains(MOVED), "nothing moves for {statement}:\n{plan}");
}

/// The files in which the workers keep rows for each other.
fn kept_files(cluster: &TestCluster) -> String {
    let files = cluster.workers().into_iter().map(|worker| {
        cluster.session_on(worker).text(
            "SELECT count(*) FROM pg_ls_dir('base/pgsql_tmp', true, false) AS file WHERE file LIKE 'pgsql_tmp%'",
        )
    });
    files.collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn assert_nothing_is_kept(cluster: &TestCluster) {
    wait_until("the workers keep no rows for each other", || kept_files(cluster) == "0 0 0");
}

#[test]
fn joins_of_rows_that_move_are_answered_as_by_plain_postgresql() {
    let cluster = cluster_with_tables();
    let (mut plain, mut sharded) = (session(&cluster, "plain"), session(&cluster, "sharded"));
    let mut wrong = Vec::new();
    for statement in statements() {
        let plan = sharded.text(&format!("EXPLAIN {statement}"));
        if !plan.contains(MOVED) {
            wrong.push(format!("nothing moves for {statement}:\n{plan}"));
        }
        let expected = sorted(plain.sql(&statement));
        match sharded.try_sql(&statement) {
            Ok(rows) if sorted(rows.clone()) == expected => {}
            Ok(rows) => wrong.push(format!(
                "{} rows instead of {} for {statement}\n{plan}",
                rows.len(),
                expected.len()
            )),
            Err(error) => wrong.push(format!("{error}\nfor {statement}\n{plan}")),
        }
        if let Err(error) = sharded.try_sql(&format!("EXPLAIN (ANALYZE, VERBOSE) {statement}")) {
            wrong.push(format!("EXPLAIN: {error}\nfor {statement}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert_nothing_is_kept(&cluster);
}

#[test]
fn workers_get_the_extension_with_their_first_shard() {
    let cluster = TestCluster::up(1);
    cluster.create_distributed("CREATE TABLE t (k int)", "t", "k", 1, 1);
    let found = "SELECT count(*) FROM pg_extension WHERE extname = 'pg_shard'";
    assert_eq!(cluster.session_on(NodeName::Worker(1)).text(found), "1");
}

#[test]
fn what_the_transaction_has_written_moves_too() {
    let cluster = cluster_with_tables();
    let (mut plain, mut sharded) = (session(&cluster, "plain"), session(&cluster, "sharded"));
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let write = format!(
            "BEGIN ISOLATION LEVEL {level}; UPDATE a SET x = x + 1 WHERE id < 300; DELETE FROM c WHERE y < 5; \
             INSERT INTO a (id, x) VALUES (1000, 7), (1001, 8); SAVEPOINT s; UPDATE a SET x = 7 WHERE id > 500"
        );
        plain.sql(&write);
        sharded.sql(&write);
        assert_moves(&mut sharded, JOIN);
        assert_eq!(sharded.text(JOIN), plain.text(JOIN), "{level}");
        for session in [&mut plain, &mut sharded] {
            session.sql("ROLLBACK TO s");
        }
        assert_eq!(sharded.text(JOIN), plain.text(JOIN), "{level}, savepoint rolled back");
        for session in [&mut plain, &mut sharded] {
            session.sql("ROLLBACK");
        }
    }
    assert_eq!(sharded.text(JOIN), plain.text(JOIN));
    assert_nothing_is_kept(&cluster);
}

#[test]
fn kept_plans_cursors_and_functions_move_rows_each_time() {
    let cluster = cluster_with_tables();
    let mut answers = Vec::new();
    for schema in ["plain", "sharded"] {
        let mut session = session(&cluster, schema);
        let mut rows = Vec::new();
        session.sql(
            "SET plan_cache_mode = force_generic_plan; \
             PREPARE p (int) AS SELECT count(*), sum(c.y) FROM a JOIN c ON a.x = c.i WHERE a.id < $1 AND c.y > $1 / 100; \
             PREPARE q (text) AS SELECT count(*), sum(a.x) FROM a JOIN c ON a.t = c.id WHERE c.id = $1",
        );
        for bound in [100, 200, 300, 600, 0, 50, 400] {
            rows.extend(session.sql(&format!("EXECUTE p ({bound})")));
            rows.extend(session.sql(&format!("EXECUTE q ('k{}')", bound / 10)));
        }
        session.sql(
            "BEGIN; DECLARE n CURSOR FOR SELECT a.id, c.id, c.y FROM a JOIN c ON a.x = c.i ORDER BY a.id, c.id, c.y; \
             DECLARE m SCROLL CURSOR FOR SELECT a.id, c.id, c.y FROM a FULL JOIN c ON a.u = c.u ORDER BY a.id, c.id, c.y",
        );
        for _ in 0..3 {
            rows.extend(session.sql("FETCH 7 FROM n"));
            rows.extend(session.sql("FETCH 5 FROM m"));
            rows.extend(session.sql(JOIN));
        }
        rows.extend(session.sql("FETCH BACKWARD 9 FROM m"));
        session.sql("COMMIT");
        session.sql(
            "CREATE FUNCTION f(bound int) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE n bigint := 0; row record; BEGIN \
             FOR row IN SELECT a.id, c.y FROM a JOIN c ON a.x = c.i WHERE a.id < bound LOOP \
             n := n + row.y * row.id; END LOOP; RETURN n; END $$",
        );
        for bound in [10, 100, 600] {
            rows.extend(session.sql(&format!("SELECT f({bound})")));
        }
        session
            .sql(&format!("DROP FUNCTION f; CREATE TABLE IF NOT EXISTS {schema}.made AS {JOIN}"));
        rows.extend(session.sql("SELECT * FROM made"));
        answers.push(rows);
    }
    assert_eq!(answers[0], answers[1]);
    assert_nothing_is_kept(&cluster);
}

#[test]
fn a_sub_query_for_each_row_moves_its_rows_anew_when_it_has_to() {
    let cluster = cluster_with_tables();
    let statement = "SELECT r.id, (SELECT count(*) FROM a JOIN c ON a.x = c.i AND a.b > r.id) FROM r ORDER BY r.id";
    let lateral = "SELECT r.id, s.* FROM r, LATERAL (SELECT a.id, c.y FROM a JOIN c ON a.x = c.i WHERE c.y < r.id \
         ORDER BY a.id, c.y, c.id LIMIT 2) s ORDER BY 1, 2, 3";
    let (mut plain, mut sharded) = (session(&cluster, "plain"), session(&cluster, "sharded"));
    for statement in [statement, lateral] {
        assert_eq!(sharded.text(statement), plain.text(statement));
    }
    assert_nothing_is_kept(&cluster);
}

#[test]
fn an_error_in_the_middle_leaves_nothing_behind() {
    let cluster = cluster_with_tables();
    let mut session = session(&cluster, "sharded");
    // One fails when rows are split, one when they are joined, and one on the coordinator.
    for statement in [
        "SELECT count(*) FROM a JOIN c ON a.x = c.i WHERE 1 / (a.id - 77) > -5",
        "SELECT count(*) FROM a JOIN c ON a.x = c.i AND 1 / (a.id - c.y) > -5",
        "SELECT 1 / (count(*) - count(*)) FROM a JOIN c ON a.x = c.i",
    ] {
        assert_eq!(session.error(statement).line(), "22012: division by zero", "{statement}");
        assert_nothing_is_kept(&cluster);
        session.sql("BEGIN; SAVEPOINT s");
        assert_eq!(session.error(statement).line(), "22012: division by zero", "{statement}");
        session.sql("ROLLBACK TO s");
        assert_eq!(session.sql(JOIN).len(), 1);
        session.sql("COMMIT");
        assert_nothing_is_kept(&cluster);
    }
}

/// Statements that never end: while rows are split, and while they are joined.
const ENDLESS: [&str; 2] = [
    "SELECT count(*) FROM a JOIN c ON a.x = c.i WHERE (SELECT count(*) FROM generate_series(1, a.id + 2000000000)) > 0",
    "SELECT count(*) FROM a JOIN c ON a.x = c.i AND (SELECT count(*) FROM generate_series(1, a.id + c.y + 2000000000)) > 0",
];

#[test]
fn a_cancel_ends_it_on_all_nodes() {
    let cluster = cluster_with_tables();
    for statement in ENDLESS {
        let session = session(&cluster, "sharded");
        let after = "SELECT count(*) FROM a";
        assert_eq!(cluster.cancel_in_the_middle(session, statement, after), "600");
        cluster.wait_for_rest();
        assert_nothing_is_kept(&cluster);
    }
}

#[test]
fn a_coordinators_backend_that_is_ended_leaves_nothing_behind() {
    let cluster = cluster_with_tables();
    let mut session = session(&cluster, "sharded");
    let pid = session.text("SELECT pg_backend_pid()");
    session.sql(&format!(
        "BEGIN; DECLARE n CURSOR FOR {}; FETCH 1 FROM n",
        "SELECT a.id, c.id FROM a JOIN c ON a.x = c.i"
    ));
    assert_ne!(kept_files(&cluster), "0 0 0");
    cluster.sql(&format!("SELECT pg_terminate_backend({pid})"));
    assert_nothing_is_kept(&cluster);
}

#[test]
fn a_worker_that_crashes_keeps_nothing_when_it_is_back() {
    let cluster = cluster_with_tables();
    let mut open = session(&cluster, "sharded");
    open.sql(
        "BEGIN; DECLARE n CURSOR FOR SELECT a.id, c.id FROM a JOIN c ON a.x = c.i; FETCH 1 FROM n",
    );
    assert_ne!(kept_files(&cluster), "0 0 0");
    for worker in cluster.workers() {
        cluster.kill(worker).expect("it runs");
        cluster.start(worker).expect("it is down");
    }
    assert_nothing_is_kept(&cluster);
    drop(open);
    let (mut plain, mut sharded) = (session(&cluster, "plain"), session(&cluster, "sharded"));
    assert_eq!(sharded.text(JOIN), plain.text(JOIN));
}

#[test]
fn a_node_that_is_away_is_replaced_or_named() {
    let cluster = cluster_with_tables();
    let (mut plain, mut sharded) = (session(&cluster, "plain"), session(&cluster, "sharded"));
    let replicated = "SELECT count(*), sum(p.y) FROM c p JOIN c q ON p.i = q.y";
    assert_moves(&mut sharded, replicated);
    assert_eq!(sharded.text(replicated), plain.text(replicated));
    cluster.kill(NodeName::Worker(2)).expect("it runs");
    assert_eq!(sharded.text(replicated), plain.text(replicated));
    let error = sharded.error(JOIN);
    assert_eq!(error.line(), "XX000: could not receive query results");
    cluster.start(NodeName::Worker(2)).expect("it is down");
    assert_eq!(sharded.text(JOIN), plain.text(JOIN));
    assert_nothing_is_kept(&cluster);
}

#[test]
fn workers_that_do_not_reach_each_other_are_named_and_left_alone_for_a_while() {
    let cluster = cluster_with_tables();
    let (mut plain, mut sharded) = (session(&cluster, "plain"), session(&cluster, "sharded"));
    cluster.on_workers("ALTER SYSTEM SET pg_shard.node_conninfo = 'sslmode=require'");
    cluster.on_workers("SELECT pg_reload_conf()");
    for worker in cluster.workers() {
        let mut session = cluster.session_on(worker);
        wait_until("the worker has read its settings", || {
            session.text("SHOW pg_shard.node_conninfo") == "sslmode=require"
        });
    }
    sharded.sql("PREPARE p AS SELECT count(*), sum(c.y) FROM a JOIN c ON a.x = c.i");
    let error = sharded.error("EXECUTE p");
    assert_eq!(error.sqlstate, "08006", "{error}");
    assert!(error.message.starts_with("could not fetch rows from node \"localhost:"), "{error}");
    assert_eq!(sharded.text("EXECUTE p"), plain.text(JOIN));
    assert!(!sharded.text(&format!("EXPLAIN {JOIN}")).contains(MOVED));
    assert_nothing_is_kept(&cluster);
}

#[test]
fn rows_move_only_beside_shards_that_are_read() {
    let cluster = cluster_with_tables();
    // A few values of the distribution column are many rows.
    cluster.sql("UPDATE pg_statistic SET stadistinct = 3 WHERE starelid = 'sharded.c'::regclass AND staattnum = 1");
    let (mut plain, mut sharded) = (session(&cluster, "plain"), session(&cluster, "sharded"));
    for join in ["JOIN", "LEFT JOIN"] {
        let statement =
            format!("SELECT a.id, c.y FROM c {join} a ON a.t = c.id WHERE c.id IN ('k3', 'k7')");
        let plan = sharded.text(&format!("EXPLAIN {statement}"));
        assert!(plan.contains(MOVED) && plan.contains("Shards: 2 of 4"), "{plan}");
        assert_eq!(sorted(sharded.sql(&statement)), sorted(plain.sql(&statement)));
    }
}

#[test]
fn rows_of_a_role_that_is_no_superuser_move_too() {
    let cluster = cluster_with_tables();
    cluster.on_all_nodes("CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader");
    let expected = session(&cluster, "plain").text(JOIN);
    let mut reader = cluster.session_as("reader");
    reader.sql("SET search_path = sharded");
    assert_moves(&mut reader, JOIN);
    assert_eq!(reader.text(JOIN), expected);
    assert_nothing_is_kept(&cluster);
}

#[test]
fn a_node_whose_secret_has_changed_is_asked_for_it_again() {
    let cluster = cluster_with_tables();
    let expected = session(&cluster, "plain").text(JOIN);
    let mut sharded = session(&cluster, "sharded");
    assert_moves(&mut sharded, JOIN);
    assert_eq!(sharded.text(JOIN), expected);
    cluster.on_workers("UPDATE pgs_catalog.secret SET secret = md5('a') || md5('b')");
    let error = sharded.error(JOIN);
    assert_eq!(error.sqlstate, "42501", "{error}");
    // For a while rows go by the coordinator.
    assert_eq!(sharded.text(JOIN), expected);
    let mut other = session(&cluster, "sharded");
    assert_moves(&mut other, JOIN);
    assert_eq!(other.text(JOIN), expected);
}

#[test]
fn rows_go_by_the_coordinator_where_a_node_tells_no_secret() {
    let cluster = cluster_with_tables();
    let expected = session(&cluster, "plain").text(JOIN);
    cluster.session_on(NodeName::Worker(2)).sql("DELETE FROM pgs_catalog.secret");
    let mut sharded = session(&cluster, "sharded");
    let plan = sharded.text(&format!("EXPLAIN {JOIN}"));
    assert!(!plan.contains(MOVED), "{plan}");
    assert_eq!(sharded.text(JOIN), expected);
}

#[test]
fn another_role_gets_at_nothing() {
    let cluster = cluster_with_tables();
    cluster.on_all_nodes("CREATE ROLE reader LOGIN; CREATE ROLE other LOGIN");
    let mut session = session(&cluster, "sharded");
    session.sql(
        "BEGIN; DECLARE n CURSOR FOR SELECT a.id, c.id FROM a JOIN c ON a.x = c.i; FETCH 1 FROM n",
    );
    let worker = NodeName::Worker(1);
    let name = cluster.session_on(worker).text(
        "SELECT substr(file, 11) FROM pg_ls_dir('base/pgsql_tmp') AS file WHERE file LIKE 'pgsql_tmp%' LIMIT 1",
    );
    let mut other = cluster.session_on(worker);
    other.sql("SET ROLE other");
    assert_eq!(
        other.error(&format!("SELECT count(*) FROM pgs_catalog.part_of_rows('{name}', 0)")).line(),
        "42501: permission denied for rows that another role has split"
    );
    // Nor is what it drops another session's.
    other.sql(&format!("SELECT pgs_catalog.drop_rows('{{{name}}}')"));
    assert_ne!(kept_files(&cluster), "0 0 0");
    assert_eq!(
        other
            .error("SELECT count(*) FROM pgs_catalog.part_of_rows('../../PG_VERSION', 0)")
            .sqlstate,
        "42704"
    );
    session.sql("COMMIT");
    assert_nothing_is_kept(&cluster);
}
