//! Definitions change beside clients with prepared statements: these get no error that one PostgreSQL would not give.

use testkit::{Script, TestCluster, wait_until};

/// What eight clients do all the time; nothing of it depends on what changes.
const CLIENT: &str = "\\set k random(1, 100)
SELECT v FROM t WHERE k = :k;
UPDATE t SET v = v + 1 WHERE k = :k;
SELECT count(*), sum(v) FROM t;
INSERT INTO t (k, v) VALUES (:k + 1000 * (1 + :client_id), 1) ON CONFLICT (k) DO UPDATE SET v = t.v + 1;
BEGIN;
UPDATE t SET v = v + 1 WHERE k = :k;
SELECT max(v) FROM t WHERE k < 50;
COMMIT;
";

const CHANGES: [&str; 16] = [
    "ALTER TABLE t ADD COLUMN n1 int DEFAULT 5",
    "CREATE INDEX i ON t (v)",
    "ALTER TABLE t ALTER COLUMN w TYPE varchar(100)",
    "ALTER TABLE t ADD CONSTRAINT c CHECK (v >= 0)",
    "ALTER TABLE t RENAME COLUMN w TO w2",
    "ALTER TABLE t ADD COLUMN n2 uuid DEFAULT gen_random_uuid()",
    "CREATE INDEX CONCURRENTLY j ON t (w2)",
    "REINDEX INDEX CONCURRENTLY j",
    "DROP INDEX CONCURRENTLY j",
    "BEGIN; ALTER TABLE t ADD COLUMN n3 int; ALTER TABLE t DROP COLUMN n3; ROLLBACK",
    "ALTER TABLE t DROP COLUMN n1, DROP COLUMN n2, DROP CONSTRAINT c",
    "DROP INDEX i",
    "ALTER TABLE t ALTER COLUMN v SET DEFAULT 7",
    "CREATE ROLE reader; GRANT SELECT ON t TO reader",
    "CREATE FUNCTION f(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true'; ALTER TABLE t ADD CHECK (f(v))",
    "CREATE OR REPLACE FUNCTION f(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT i >= 0'",
];

#[test]
fn prepared_statements_of_eight_clients_go_on_while_definitions_change() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TABLE t (k int PRIMARY KEY, v int, w text); INSERT INTO t SELECT i, 0, 'x' FROM generate_series(1, 100) AS i");
    cluster.sql("SELECT create_distributed_table('t', 'k', 4, 2)");
    let script = Script { weight: 1, text: CLIENT };
    let mut load = cluster.pgbench("prepared", &[script], &["-c", "8", "-j", "1", "-T", "600"]);
    for change in CHANGES {
        // Every client has had its turn between two changes, or is waiting for the table.
        let sum = || -> i64 { cluster.text("SELECT sum(v) FROM t").parse().expect("a number") };
        let before = sum();
        wait_until("the clients write", || sum() > before + 16);
        for statement in change.split("; ") {
            cluster.sql(statement);
        }
        assert!(load.is_running(), "{change}: {:?}", load.finish());
    }
    let report = load.stop();
    assert_eq!(
        report.errors.lines().filter(|line| line.contains("rror")).collect::<Vec<_>>(),
        Vec::<&str>::new()
    );
    cluster.wait_for_rest();
    cluster.assert_placements_equal("t");
}
