//! Which shards are asked: those that can hold a row of the answer, as far as keys tell.

use testkit::{Session, TestCluster};

/// How many shards each scan of the plan asks when it is executed, from the top.
fn asked(session: &mut Session, statement: &str) -> Vec<String> {
    let plan =
        session.text(&format!("EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) {statement}"));
    plan.lines()
        .filter_map(|line| line.trim().strip_prefix("Shards: "))
        .map(|shards| shards.strip_suffix(" of 16").unwrap_or(shards).to_owned())
        .collect()
}

#[test]
fn keys_that_come_from_elsewhere_cut_the_list_of_shards() {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    for (table, definition) in [("t", "(key int, v int)"), ("u", "(key bigint, w int)")] {
        session.sql(&format!(
            "CREATE TABLE {table} {definition}; CREATE TABLE plain_{table} {definition}"
        ));
        cluster.distribute(table, "key", 16, 1);
        for name in [table.to_owned(), format!("plain_{table}")] {
            session.sql(&format!(
                "INSERT INTO {name} SELECT i, i % 10 FROM generate_series(1, 2000) AS i"
            ));
        }
    }
    session.sql(
        "CREATE TABLE few (k int, x text); INSERT INTO few VALUES (1, 'a'), (5, 'b'), (NULL, 'c');
         CREATE TABLE none (k int); CREATE TABLE one (key int, v int); CREATE TABLE plain_one (key int, v int);
         INSERT INTO plain_one VALUES (1, 1);
         CREATE VIEW tv AS SELECT key, v + 1 AS v FROM t; CREATE VIEW plain_tv AS SELECT key, v + 1 AS v FROM plain_t;
         CREATE VIEW both_t AS SELECT key, v FROM t UNION ALL SELECT key, v FROM tv;
         CREATE VIEW plain_both_t AS SELECT key, v FROM plain_t UNION ALL SELECT key, v FROM plain_tv",
    );
    cluster.distribute("one", "key", 1, 1);
    session.sql("INSERT INTO one VALUES (1, 1); ANALYZE");
    // 1 and 5 lie in two shards, and 1 and 2 in one, as the first case says; what is NULL lies nowhere.
    for (statement, expected) in [
        ("SELECT * FROM {t} WHERE key IN (1, 5)", "2"),
        (
            "SELECT * FROM {t} AS t JOIN (VALUES (1, 'a'), (5, 'b'), (NULL, 'c')) AS v (k, x) ON t.key = v.k",
            "2",
        ),
        ("SELECT t.* FROM {t} AS t JOIN unnest('{1,5}'::int[]) AS u (k) ON t.key = u.k", "2"),
        ("SELECT * FROM {t} AS t WHERE key IN (VALUES (1), (5))", "2"),
        ("SELECT * FROM {t} AS t WHERE key IN (SELECT k FROM few)", "2"),
        ("SELECT * FROM {t} AS t WHERE key IN (SELECT k FROM few WHERE x = 'c')", "0"),
        ("SELECT * FROM {t} AS t WHERE EXISTS (SELECT FROM few WHERE k = t.key AND x <> 'b')", "1"),
        ("SELECT * FROM {t} AS t WHERE key = ANY (ARRAY(SELECT k FROM few))", "2"),
        ("SELECT * FROM {t} AS t WHERE key = (SELECT max(k) FROM few)", "1"),
        ("SELECT * FROM {t} AS t WHERE key = (SELECT k FROM none)", "0"),
        ("SELECT * FROM {t} AS t WHERE key = (SELECT max(k) FROM few) OR key = 1", "2"),
        (
            "SELECT * FROM {t} AS t JOIN few ON t.v = few.k JOIN {u} AS u USING (key) WHERE u.key = 5 OR u.key = 1",
            "2",
        ),
        (
            "SELECT * FROM {t} AS t JOIN {u} AS u USING (key) JOIN (VALUES (1), (5)) AS v (k) ON u.key = v.k",
            "2",
        ),
        ("SELECT * FROM {t} AS t JOIN none ON t.v = none.k", "0"),
        ("SELECT count(*), sum(v) FROM {t} AS t JOIN none ON t.key = none.k", "0"),
        ("SELECT count(*), sum(v) FROM {t} AS t WHERE key = (SELECT k FROM none)", "0"),
        (
            "SELECT v, count(*) FROM {t} AS t JOIN few ON t.key = few.k GROUP BY GROUPING SETS ((v), ())",
            "2",
        ),
        (
            "SELECT v, count(*) FROM {t} AS t JOIN none ON t.key = none.k GROUP BY GROUPING SETS ((v), ())",
            "0",
        ),
        (
            "SELECT v, count(*) FROM {t} AS t WHERE key = (SELECT k FROM none) GROUP BY GROUPING SETS ((v), ())",
            "0",
        ),
        ("SELECT count(*) FROM {one} AS t JOIN none ON t.key = none.k", "1 of 1"),
        ("SELECT count(*) FROM {one} AS t WHERE key = (SELECT k FROM none)", "1 of 1"),
        ("SELECT key, count(*) FROM {t} AS t JOIN few ON t.key = few.k GROUP BY key", "2"),
        ("SELECT * FROM {t} AS t JOIN few ON t.key = few.k ORDER BY v, t.key", "2"),
        ("SELECT * FROM {t} AS t JOIN none ON t.key = none.k ORDER BY v, t.key", "0"),
        // Rows of the table that match nothing are rows of the answer.
        ("SELECT * FROM {t} AS t LEFT JOIN few ON t.key = few.k", "16"),
        ("SELECT * FROM {t} AS t LEFT JOIN {u} AS u ON t.key = u.key AND u.key = 5", "16"),
        (
            "SELECT * FROM {t} AS t LEFT JOIN ({u} AS u JOIN few ON u.key = few.k) ON t.key = u.key",
            "16",
        ),
        ("SELECT * FROM {t} AS t WHERE NOT EXISTS (SELECT FROM few WHERE k = t.key)", "16"),
        ("SELECT * FROM {t} AS t FULL JOIN few ON t.key = few.k", "16"),
        // And those that do not.
        (
            "SELECT * FROM ({t} AS t JOIN few ON t.key = few.k) LEFT JOIN {u} AS u ON t.key = u.key",
            "2",
        ),
        ("SELECT * FROM {t} AS t LEFT JOIN {u} AS u USING (key) WHERE t.key IN (1, 5)", "2"),
        ("SELECT * FROM {t} AS t LEFT JOIN {u} AS u USING (key) WHERE u.key IN (1, 5)", "2"),
        ("SELECT * FROM {t} AS t FULL JOIN {u} AS u USING (key) WHERE t.key IN (1, 5)", "2"),
        // Through sub-queries, CTEs, views and unions.
        (
            "SELECT * FROM {t} AS t WHERE EXISTS (SELECT FROM {u} AS u WHERE u.key = t.key AND u.key IN (1, 5))",
            "2",
        ),
        (
            "SELECT * FROM (SELECT key, count(*) FROM {t} AS t GROUP BY key) AS s JOIN {u} AS u USING (key) WHERE u.key IN (1, 5)",
            "2",
        ),
        (
            "SELECT * FROM (SELECT key, count(*) FROM {t} AS t GROUP BY key) AS s WHERE key IN (1, 5)",
            "2",
        ),
        (
            "WITH s AS (SELECT * FROM {t}) SELECT * FROM s JOIN {tv} AS v USING (key) WHERE v.key IN (1, 5)",
            "2 2",
        ),
        ("SELECT * FROM {both_t} AS b WHERE key IN (1, 5)", "2 2"),
        ("SELECT * FROM {both_t} AS b WHERE key = (SELECT max(k) FROM few)", "1 1"),
    ] {
        let (mut ours, mut plain) = (statement.to_owned(), statement.to_owned());
        for table in ["t", "u", "tv", "one", "both_t"] {
            ours = ours.replace(&format!("{{{table}}}"), table);
            plain = plain.replace(&format!("{{{table}}}"), &format!("plain_{table}"));
        }
        let sorted = |session: &mut Session, statement: &str| {
            let mut lines: Vec<String> =
                session.text(statement).lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&mut session, &ours), sorted(&mut session, &plain), "{statement}");
        assert_eq!(asked(&mut session, &ours).join(" "), expected, "{statement}");
    }
    // Plans that are kept, with values that change.
    session.sql("SET plan_cache_mode = force_generic_plan");
    session.sql(
        "PREPARE get (int[]) AS SELECT count(*) FROM t JOIN unnest($1) AS k (k) ON t.key = k.k",
    );
    session.sql("PREPARE pair (int, int) AS SELECT count(*) FROM t JOIN u USING (key) WHERE u.key IN ($1, $2)");
    for (statement, rows, shards) in [
        ("EXECUTE get ('{1,5}')", "2", "2"),
        ("EXECUTE get ('{}')", "0", "0"),
        ("EXECUTE get ('{1,NULL,1}')", "2", "1"),
        ("EXECUTE pair (1, 5)", "2", "2"),
        ("EXECUTE pair (1, NULL)", "1", "1"),
    ] {
        assert_eq!(session.text(statement), rows, "{statement}");
        assert_eq!(asked(&mut session, statement).join(" "), shards, "{statement}");
    }
    // EXPLAIN alone executes nothing, sub-queries neither.
    session.sql("CREATE FUNCTION called() RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$called$$; END'");
    let plan = session.text("EXPLAIN (COSTS off) SELECT * FROM t WHERE key = (SELECT called())");
    assert!(plan.contains("Shards: decided at execution, of 16"), "{plan}");
    let plan = session.text("EXPLAIN (COSTS off) SELECT * FROM t JOIN few ON t.key = few.k");
    assert!(plan.contains("Shards: decided at execution, at most 16 of 16"), "{plan}");
}
