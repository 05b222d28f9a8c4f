//! Writes in WITH clauses: all in one shard group, or refused.

use testkit::TestCluster;

/// Two tables cut alike, with two placements a shard; a local one.
fn cluster_with_tables() -> TestCluster {
    let cluster = TestCluster::up(3);
    cluster.create_distributed(
        "CREATE TABLE jobs (owner int, id int, state text DEFAULT 'new', luck float8 DEFAULT random(), at timestamptz DEFAULT clock_timestamp(), PRIMARY KEY (owner, id))",
        "jobs", "owner", 6, 2,
    );
    cluster.create_distributed(
        "CREATE TABLE done (owner int, id int, note text)",
        "done",
        "owner",
        6,
        2,
    );
    cluster.sql("CREATE TABLE plain (owner int, id int)");
    cluster.sql("INSERT INTO jobs SELECT i % 10, i FROM generate_series(1, 100) AS i");
    cluster
}

#[test]
fn a_with_clause_writes_in_the_shard_group_of_its_statement() {
    let cluster = cluster_with_tables();
    let mut session = cluster.new_session();
    for (statement, rows) in [
        // SELECT around each kind of write; the answer is the write's, also when nothing matches.
        (
            "WITH gone AS (DELETE FROM jobs WHERE owner = 1 AND id > 80 RETURNING *) SELECT owner, id FROM gone ORDER BY id DESC LIMIT 1",
            "1|91",
        ),
        (
            "WITH gone AS (DELETE FROM jobs WHERE owner = 1 AND id > 80 RETURNING *) SELECT count(*) FROM gone",
            "0",
        ),
        (
            "WITH changed AS (UPDATE jobs SET state = 'run' WHERE owner = 2 AND id < 30 RETURNING id) SELECT array_agg(id ORDER BY id) FROM changed",
            "{2,12,22}",
        ),
        (
            "WITH made AS (INSERT INTO jobs (owner, id) VALUES (3, 1000), (3, 1001) RETURNING id, luck <> 0) SELECT * FROM made ORDER BY id",
            "1000|t\n1001|t",
        ),
        (
            "WITH made AS (INSERT INTO jobs (owner, id) VALUES (3, 1000) ON CONFLICT (owner, id) DO UPDATE SET state = 'again ' || excluded.id RETURNING state) SELECT * FROM made",
            "again 1000",
        ),
        // Rows move from one table to another.
        (
            "WITH gone AS (DELETE FROM jobs WHERE owner = 4 RETURNING owner, id) INSERT INTO done SELECT owner, id, 'moved' FROM gone",
            "",
        ),
        (
            "WITH gone AS (DELETE FROM done WHERE owner = 4 AND id = 4 RETURNING *), back AS (INSERT INTO jobs (owner, id, luck, at) SELECT owner, id, 0, now() FROM gone RETURNING id) SELECT * FROM back",
            "4",
        ),
        // UPDATE and DELETE around a write, and two writes side by side that see the same snapshot.
        (
            "WITH gone AS (DELETE FROM done WHERE owner = 4 AND id = 14 RETURNING id) UPDATE jobs SET state = 'late' FROM gone WHERE owner = 4 AND jobs.id = 4 RETURNING state, gone.id",
            "late|14",
        ),
        (
            "WITH a AS (UPDATE jobs SET state = 'x' WHERE owner = 5 RETURNING id), b AS (INSERT INTO done VALUES (5, 5, 'y') RETURNING id) DELETE FROM done WHERE owner = 5 RETURNING (SELECT count(*) FROM a), (SELECT count(*) FROM b)",
            "",
        ),
        ("SELECT count(*), min(state) FROM jobs WHERE owner = 5", "10|x"),
        ("SELECT id, note FROM done WHERE owner = 5", "5|y"),
        (
            "WITH gone AS (DELETE FROM done WHERE owner = NULL RETURNING id) SELECT count(*) FROM gone",
            "0",
        ),
    ] {
        assert_eq!(session.text(statement), rows, "{statement}");
    }
    // A parameter is the key; in a transaction; in a function.
    session.sql(
        "PREPARE finish (int, int) AS WITH gone AS (DELETE FROM jobs WHERE owner = $1 AND id = $2 RETURNING *) \
         INSERT INTO done SELECT owner, id, 'prepared' FROM gone RETURNING id",
    );
    for turn in 0..8 {
        let id = 6 + turn * 10;
        assert_eq!(session.text(&format!("EXECUTE finish (6, {id})")), id.to_string());
    }
    assert_eq!(session.text("EXECUTE finish (NULL, 1)"), "");
    session.sql("BEGIN");
    session.sql("WITH gone AS (DELETE FROM jobs WHERE owner = 7 RETURNING *) INSERT INTO done SELECT owner, id FROM gone");
    assert_eq!(session.text("SELECT count(*) FROM done WHERE owner = 7"), "10");
    session.sql("ROLLBACK");
    assert_eq!(session.text("SELECT count(*) FROM jobs WHERE owner = 7"), "10");
    session.sql(
        "CREATE FUNCTION finish_all(who int) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE n bigint; BEGIN \
         WITH gone AS (DELETE FROM jobs WHERE owner = who RETURNING *), kept AS (INSERT INTO done SELECT owner, id FROM gone RETURNING 1) \
         SELECT count(*) INTO n FROM kept; RETURN n; END $$",
    );
    assert_eq!(session.text("SELECT finish_all(8), finish_all(8)"), "10|0");
    assert_eq!(session.warnings(), []);
    assert_eq!(cluster.unhealthy("jobs") + cluster.unhealthy("done"), 0);
    cluster.assert_placements_equal("jobs");
    cluster.assert_placements_equal("done");
}

#[test]
fn local_rows_move_into_shards_by_a_with_clause() {
    let cluster = cluster_with_tables();
    cluster.sql("INSERT INTO plain SELECT i, i FROM generate_series(1, 30) AS i");
    let moved = "WITH gone AS (DELETE FROM plain WHERE id <= 20 RETURNING *) INSERT INTO done SELECT owner, id FROM gone";
    assert_eq!(cluster.session().count(moved), 20);
    assert_eq!(cluster.text("SELECT count(*) FROM plain"), "10");
    assert_eq!(cluster.assert_placements_equal("done"), 20);
    // And the other way round, by what the shards hold.
    cluster.sql("WITH kept AS (INSERT INTO plain SELECT owner, id FROM done WHERE id < 4 RETURNING 1) SELECT count(*) FROM kept");
    assert_eq!(cluster.text("SELECT count(*) FROM plain"), "13");
}

#[test]
fn every_table_that_a_with_clause_writes_is_locked() {
    let cluster = cluster_with_tables();
    let mut session = cluster.new_session();
    session.sql("BEGIN; WITH gone AS (DELETE FROM jobs WHERE owner = 4 RETURNING *) INSERT INTO done SELECT owner, id FROM gone");
    let locked = session.text(
        "SELECT DISTINCT classid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 5 AND pid = pg_backend_pid() ORDER BY 1",
    );
    let shards = ["jobs", "done"].map(|table| cluster.shard_of(table, "hashint4(4)").to_string());
    assert_eq!(locked, shards.join("\n"));
    session.sql("COMMIT");
    cluster.assert_placements_equal("done");
}

#[test]
fn a_with_clause_over_several_shards_sees_what_was_there_before() {
    let cluster = cluster_with_tables();
    let mut session = cluster.new_session();
    cluster.sql("INSERT INTO done VALUES (1, 1), (2, 2), (3, 3)");
    cluster.create_distributed(
        "CREATE TABLE numbered (owner int, id bigserial)",
        "numbered",
        "owner",
        6,
        2,
    );
    let jobs = session.text("SELECT count(*) FROM jobs");
    let of_one = session.text("SELECT count(*) FROM jobs WHERE owner = 1");
    session.sql("BEGIN");
    for (statement, rows) in [
        (
            "WITH gone AS (DELETE FROM jobs RETURNING *) SELECT count(*), (SELECT count(*) FROM jobs) FROM gone",
            format!("{jobs}|{jobs}"),
        ),
        (
            "WITH gone AS (DELETE FROM jobs WHERE owner = 1 RETURNING *), made AS (INSERT INTO done SELECT id, owner FROM gone RETURNING *) SELECT count(*), (SELECT count(*) FROM done) FROM made",
            format!("{of_one}|3"),
        ),
        (
            "WITH gone AS (DELETE FROM jobs WHERE owner = 1 RETURNING *) INSERT INTO plain SELECT owner, id FROM gone RETURNING (SELECT count(*) FROM jobs WHERE owner = 1)",
            vec![of_one.clone(); of_one.parse().expect("a count")].join("\n"),
        ),
        (
            "WITH made AS (INSERT INTO jobs (owner, id) VALUES (1, 0), (2, 0) RETURNING *) SELECT count(*), (SELECT count(*) FROM jobs) FROM made",
            format!("2|{jobs}"),
        ),
        // Each row of its own, the same on both placements.
        (
            "WITH gone AS (DELETE FROM jobs WHERE owner = 1 RETURNING *), made AS (INSERT INTO numbered (owner) SELECT owner FROM gone RETURNING id) SELECT count(DISTINCT id) FROM made",
            of_one.clone(),
        ),
        (
            "WITH one AS (SELECT id FROM jobs WHERE owner = 1 LIMIT 1), gone AS (DELETE FROM jobs USING one WHERE owner = 1 AND jobs.id = one.id RETURNING 1) SELECT count(*) FROM gone",
            "1".to_owned(),
        ),
        // Nobody reads what it returns, and still it is done.
        ("WITH gone AS (DELETE FROM jobs) SELECT 1", "1".to_owned()),
    ] {
        session.sql("SAVEPOINT one");
        assert_eq!(session.text(statement), rows, "{statement}");
        if !statement.contains("SELECT 1") {
            session.sql("ROLLBACK TO one");
        }
    }
    assert_eq!(session.text("SELECT count(*) FROM jobs"), "0");
    session.sql("ROLLBACK");
    assert_eq!(
        session
            .error("WITH made AS (INSERT INTO done (owner) VALUES (NULL) RETURNING 1) SELECT * FROM made")
            .sqlstate,
        "22004"
    );
    assert_eq!(
        session
            .error("WITH made AS (INSERT INTO done VALUES (1, 1), (2, 2) ON CONFLICT DO NOTHING RETURNING 1) SELECT * FROM made")
            .sqlstate,
        "0A000"
    );
    session.sql("WITH gone AS (DELETE FROM jobs WHERE owner < 4 RETURNING *) INSERT INTO numbered (owner) SELECT owner FROM gone");
    assert_eq!(session.text("SELECT count(*) FROM jobs WHERE owner < 4"), "0");
    for table in ["jobs", "done", "numbered"] {
        cluster.assert_placements_equal(table);
    }
}
