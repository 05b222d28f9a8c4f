//! Functions that write the rows which the statement that calls them is about.
//!
//! `UPDATE t SET v = f(id)`, where `f` updates the same row: on shards with two placements, whose rows are found again by their
//! keys, what the function had written was overwritten without a word. PostgreSQL raises 27000. The coordinator now
//! watches what is written while such a statement runs, and asks the shards' leaders whether the rows are still where they were.

use testkit::TestCluster;

/// What calls `f`, which adds 100 to the row of its argument, and PostgreSQL's answer.
const MODIFIED: [(&str, &str); 8] = [
    ("UPDATE t SET v = f(id)", "updated"),
    ("UPDATE t SET v = 5 WHERE f(id) > 0", "updated"),
    ("UPDATE t SET v = 5 WHERE id = 3 AND f(id) > 0", "updated"),
    ("DELETE FROM t WHERE f(id) > 0", "deleted"),
    ("DELETE FROM t USING o WHERE o.id = t.id AND f(t.id) > 0 RETURNING t.id", "deleted"),
    (
        "MERGE INTO t USING o ON o.id = t.id WHEN MATCHED THEN UPDATE SET v = f(t.id)",
        "updated or deleted",
    ),
    (
        "INSERT INTO t VALUES (1, 1), (2, 2) ON CONFLICT (id) DO UPDATE SET v = (SELECT f(excluded.id) + count(*) FROM o)",
        "updated",
    ),
    (
        "WITH w AS (UPDATE t SET v = f(id) WHERE id < 3 RETURNING 1) UPDATE o SET v = 1 WHERE id > 2",
        "updated",
    ),
];

/// The function writes other rows, or what it has written is undone.
const UNTOUCHED: [&str; 5] = [
    "UPDATE t SET v = f(id + 4) WHERE id <= 4",
    "DELETE FROM t WHERE id <= 4 AND f(id + 4) > 0",
    "UPDATE t SET v = undone(id)",
    "DELETE FROM t WHERE undone(id) > 0",
    "MERGE INTO t USING o ON o.id = t.id WHEN MATCHED AND o.id <= 4 THEN UPDATE SET v = f(t.id + 4)",
];

#[test]
fn rows_that_a_function_of_the_statement_has_changed_are_not_changed_over_it() {
    let cluster = TestCluster::up(2);
    for (schema, placements) in [("plain", None), ("one", Some(1)), ("two", Some(2))] {
        cluster.sql(&format!(
            "CREATE SCHEMA {schema}; SET search_path = {schema}, public; \
             CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE o (id int PRIMARY KEY, v int); \
             CREATE FUNCTION f(n int) RETURNS int LANGUAGE plpgsql AS \
             $$ BEGIN UPDATE t SET v = v + 100 WHERE id = n; RETURN n; END $$; \
             CREATE FUNCTION undone(n int) RETURNS int LANGUAGE plpgsql AS \
             $$ BEGIN BEGIN UPDATE t SET v = v + 100 WHERE id = n; RAISE 'no'; EXCEPTION WHEN raise_exception THEN END; RETURN n; END $$"
        ));
        if let Some(placements) = placements {
            cluster.distribute(&format!("{schema}.t"), "id", 4, placements);
            cluster.distribute(&format!("{schema}.o"), "id", 4, placements);
        }
        cluster.sql("INSERT INTO t SELECT g, g FROM generate_series(1, 8) AS g; INSERT INTO o SELECT * FROM t; RESET search_path");
    }
    let mut sessions = ["plain", "one", "two"].map(|schema| {
        let mut session = cluster.new_session();
        session.sql(&format!("SET search_path = {schema}"));
        session
    });
    for (statement, deed) in MODIFIED {
        for session in &mut sessions {
            let error = session.error(statement);
            let message = format!(
                "27000: tuple to be {deed} was already modified by an operation triggered by the current command"
            );
            assert_eq!(error.line(), message, "{statement}");
            assert!(error.hint.starts_with("Consider using an AFTER trigger"), "{statement}");
        }
    }
    for statement in UNTOUCHED {
        let contents = sessions.each_mut().map(|session| {
            session.sql("BEGIN");
            session.sql(statement);
            let contents = session.text("SELECT * FROM t ORDER BY id");
            session.sql("ROLLBACK");
            contents
        });
        assert_eq!(contents[0], contents[1], "{statement}");
        assert_eq!(contents[0], contents[2], "{statement}");
    }
    // PostgreSQL evaluates RETURNING when the row has been changed; here it comes first, which is an error and no lost write.
    for session in &mut sessions[1..] {
        let error = session.error("UPDATE t SET v = 0 FROM o WHERE o.id = t.id RETURNING f(t.id)");
        assert_eq!(error.sqlstate, "27000");
    }
    // Rows that are joined with others are read behind these: what functions have written by then is seen.
    for session in &mut sessions[1..] {
        session.sql("BEGIN");
        session.sql(
            "UPDATE t SET v = t.v + s.v FROM (SELECT f(id) AS v, id FROM o) AS s WHERE s.id = t.id",
        );
        assert_eq!(session.text("SELECT sum(v) FROM t"), "872");
        session.sql("ROLLBACK");
    }
    let expected = sessions[0].text("SELECT * FROM t ORDER BY id");
    for (session, schema) in sessions[1..].iter_mut().zip(["one", "two"]) {
        assert_eq!(session.text("SELECT * FROM t ORDER BY id"), expected);
        cluster.assert_placements_equal(&format!("{schema}.t"));
    }
}
