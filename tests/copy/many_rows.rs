//! INSERT of many rows over many shards with ON CONFLICT or RETURNING: one command, as PostgreSQL has it.

use testkit::TestCluster;

fn both(cluster: &TestCluster, definition: &str, placements: u32) {
    cluster.sql(&format!("CREATE TABLE plain {definition}"));
    cluster.create_distributed(
        &format!("CREATE TABLE sharded {definition}"),
        "sharded",
        "k",
        6,
        placements,
    );
}

#[test]
fn what_is_returned_comes_in_the_order_of_the_rows() {
    let cluster = TestCluster::up(3);
    both(&cluster, "(k int PRIMARY KEY, v int, s text DEFAULT 'none', n serial)", 2);
    for statement in [
        "INSERT INTO _ (k, v) VALUES (5, 1), (3, 2), (9, 3), (1, 4), (7, 5) RETURNING k, v, s, n",
        "INSERT INTO _ (k, v) SELECT i, i * 2 FROM generate_series(30, 10, -1) AS i RETURNING *",
        "INSERT INTO _ (k, v) VALUES (40, 1), (9, 0), (3, 0), (41, 1), (1, 0) ON CONFLICT (k) DO UPDATE SET v = _.v + excluded.v + 100 RETURNING k, v, s",
        "INSERT INTO _ (k, v) SELECT i, i FROM generate_series(1, 60) AS i ON CONFLICT (k) DO UPDATE SET v = excluded.v, s = 'again' RETURNING k, s, v",
        "INSERT INTO _ (k, v) SELECT i, i FROM generate_series(50, 70) AS i ON CONFLICT DO NOTHING",
        "INSERT INTO _ (k, v) VALUES (100, 1), (100, 2), (101, 3) ON CONFLICT DO NOTHING",
        "INSERT INTO _ (k, v) SELECT i, 0 FROM generate_series(60, 64) AS i ON CONFLICT (k) DO UPDATE SET v = 0 WHERE _.v > 62",
        "INSERT INTO _ (k, v) SELECT i, i FROM generate_series(1000, 9000) AS i RETURNING k",
        "INSERT INTO _ (k, s) VALUES (200, 'a''b'), (201, E'\\\\'), (202, NULL) RETURNING s, k",
        "WITH new AS (SELECT * FROM (VALUES (300, 1), (301, 2), (302, 3)) AS v) INSERT INTO _ (k, v) SELECT * FROM new RETURNING k + v",
    ] {
        let answer = |table: &str| {
            let text = statement
                .replace("_.", &format!("{table}."))
                .replace("INTO _", &format!("INTO {table}"));
            let count = cluster.session().count(&format!("BEGIN; {text}"));
            cluster.sql("ROLLBACK");
            let returned = cluster.sql(&text);
            let stored = cluster.sql(&format!("SELECT k, v, s FROM {table} ORDER BY k"));
            (count, returned, stored)
        };
        let (count, returned, stored) = answer("sharded");
        let expected = answer("plain");
        assert_eq!(count, expected.0, "{statement}");
        assert_eq!(stored, expected.2, "{statement}");
        assert_eq!(returned, expected.1, "{statement}");
    }
    cluster.assert_placements_equal("sharded");
    assert_eq!(cluster.unhealthy("sharded"), 0);
}

#[test]
fn a_row_is_not_met_twice_by_one_command() {
    let cluster = TestCluster::up(2);
    both(&cluster, "(k int PRIMARY KEY, v int)", 1);
    cluster.sql("INSERT INTO sharded SELECT i, 0 FROM generate_series(1, 20) AS i");
    cluster.sql("INSERT INTO plain SELECT i, 0 FROM generate_series(1, 20) AS i");
    for rows in ["(1, 1), (2, 1), (3, 1), (1, 2)", "(30, 1), (2, 1), (30, 2)"] {
        let error = |table: &str| {
            cluster.error(&format!(
                "INSERT INTO {table} VALUES {rows} ON CONFLICT (k) DO UPDATE SET v = excluded.v"
            ))
        };
        let (sharded, plain) = (error("sharded"), error("plain"));
        assert_eq!(sharded.line(), plain.line());
        assert_eq!(sharded.hint, plain.hint);
    }
    let error = cluster.error("INSERT INTO sharded VALUES (50, 1), (51, 1), (7, 1) RETURNING k");
    assert_eq!((error.sqlstate.as_str(), error.constraint.as_str()), ("23505", "sharded_pkey"));
    assert_eq!(cluster.text("SELECT count(*), sum(v) FROM sharded"), "20|0");
}

#[test]
fn sessions_that_write_the_same_rows_in_any_order_do_not_wait_for_each_other_for_ever() {
    let cluster = TestCluster::up(3);
    both(&cluster, "(k int PRIMARY KEY, v int)", 1);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let mut session = cluster.new_session();
            scope.spawn(move || {
                session.sql("SET statement_timeout = '60s'");
                for round in 0..15 {
                    let rows: Vec<String> = (0..20)
                        .map(|row| {
                            let k = if number % 2 == 0 { row } else { 19 - row };
                            format!("({k}, {round})")
                        })
                        .collect();
                    session.sql(&format!(
                        "INSERT INTO sharded VALUES {} ON CONFLICT (k) DO UPDATE SET v = sharded.v + 1",
                        rows.join(", ")
                    ));
                    session.sql(&format!(
                        "INSERT INTO sharded VALUES {} ON CONFLICT DO NOTHING",
                        rows.join(", ")
                    ));
                }
            });
        }
    });
    // 60 commands met each of 20 rows; the first of them inserted it.
    assert_eq!(
        cluster.text("SELECT count(*), sum(v - (SELECT min(v) FROM sharded)) FROM sharded"),
        "20|0"
    );
    assert_eq!(cluster.text("SELECT min(v) FROM sharded"), "59");
}
