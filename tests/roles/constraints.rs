//! Deferred constraints, and SET CONSTRAINTS, as on one server.

use testkit::TestCluster;

/// Runs the same on both tables, and compares what each statement gives: rows, or SQLSTATE and message.
#[track_caller]
fn same(cluster: &TestCluster, statements: &[&str]) {
    let mut sessions = ["plain", "sharded"].map(|table| (table, cluster.new_session()));
    for statement in statements {
        let [plain, sharded] = sessions.each_mut().map(|(table, session)| {
            session.try_sql(&statement.replace("{t}", table)).map_err(|error| {
                format!("{} {}", error.sqlstate, error.message.replace(*table, "{t}"))
            })
        });
        assert_eq!(sharded, plain, "{statement}");
    }
}

/// SET CONSTRAINTS changed nothing on the nodes: what it should have found there was found at COMMIT, and what should have waited did not.
#[test]
fn set_constraints_reaches_the_nodes() {
    let cluster = TestCluster::up(2);
    for table in ["plain", "sharded"] {
        cluster.sql(&format!(
            "CREATE TABLE {table} (k int CONSTRAINT {table}_id PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v int); \
             CREATE TABLE {table}2 (k int, v int, CONSTRAINT {table}2_pair UNIQUE (k, v) DEFERRABLE INITIALLY IMMEDIATE)"
        ));
    }
    cluster.distribute("sharded", "k", 4, 1);
    cluster.distribute("sharded2", "k", 4, 1);
    for table in ["plain", "sharded"] {
        cluster.sql(&format!(
            "INSERT INTO {table} SELECT i, i FROM generate_series(1, 20) AS i; INSERT INTO {table}2 SELECT 1, i FROM generate_series(1, 5) AS i"
        ));
    }
    same(
        &cluster,
        &[
            // Deferred: found at COMMIT, and nothing is stored on any node.
            "BEGIN; INSERT INTO {t} VALUES (1, 0), (50, 0)",
            "SELECT count(*) FROM {t}",
            "COMMIT",
            "SELECT count(*) FROM {t}",
            // Found by the command itself, with what was deferred before it.
            "BEGIN; INSERT INTO {t} VALUES (1, 0)",
            "SET CONSTRAINTS ALL IMMEDIATE",
            "ROLLBACK",
            "BEGIN; INSERT INTO {t} SELECT i, 0 FROM generate_series(1, 4) AS i WHERE i = 3",
            "SET CONSTRAINTS {t}_id IMMEDIATE",
            "ROLLBACK",
            "BEGIN; INSERT INTO {t} VALUES (1, 0)",
            "SET CONSTRAINTS public.{t}_id, {t}2_pair IMMEDIATE",
            "ROLLBACK",
            // Said before anything is asked on a node.
            "BEGIN; SET CONSTRAINTS {t}_id IMMEDIATE",
            "INSERT INTO {t} VALUES (1, 0)",
            "ROLLBACK",
            "BEGIN; SET CONSTRAINTS ALL IMMEDIATE",
            "INSERT INTO {t} VALUES (50, 0), (2, 0)",
            "ROLLBACK",
            // It ends with the transaction.
            "BEGIN; INSERT INTO {t} VALUES (1, 0)",
            "ROLLBACK",
            // And with the savepoint.
            "BEGIN; INSERT INTO {t} VALUES (51, 0); SAVEPOINT s",
            "SET CONSTRAINTS ALL IMMEDIATE",
            "INSERT INTO {t} VALUES (1, 0)",
            "ROLLBACK TO s",
            "INSERT INTO {t} VALUES (1, 0)",
            "DELETE FROM {t} WHERE k = 1 AND v = 0",
            "SAVEPOINT t",
            "SET CONSTRAINTS {t}_id IMMEDIATE",
            "RELEASE t",
            "INSERT INTO {t} VALUES (3, 0)",
            "ROLLBACK",
            // What is checked at once can wait.
            "BEGIN; SET CONSTRAINTS {t}2_pair DEFERRED",
            "INSERT INTO {t}2 VALUES (1, 5)",
            "SELECT count(*) FROM {t}2",
            "UPDATE {t}2 SET v = v + 1 WHERE k = 1",
            "SET CONSTRAINTS ALL IMMEDIATE",
            "ROLLBACK",
            "BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE {t}2 SET v = v + 1 WHERE k = 1; INSERT INTO {t}2 VALUES (1, 1)",
            "COMMIT",
            "SELECT k, v FROM {t}2 ORDER BY 1, 2",
            "BEGIN; SET CONSTRAINTS no_such DEFERRED",
            "ROLLBACK",
            "SET CONSTRAINTS ALL IMMEDIATE",
            "SELECT count(*) FROM {t}",
        ],
    );
}
