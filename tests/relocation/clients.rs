//! Clients read and write while shards move: no error, no lost write, no row that is read twice.

use crate::{WORKER_1, WORKER_2, WORKER_3, call, nodes_of, shard_on};
use testkit::Script;
use testkit::{TestCluster, wait_until};

fn cluster_with_accounts() -> TestCluster {
    let cluster = TestCluster::up(3);
    cluster.create_distributed(
        "CREATE TABLE accounts (k int PRIMARY KEY, v int NOT NULL, note text UNIQUE)",
        "accounts",
        "k",
        4,
        1,
    );
    cluster.sql("CREATE TABLE history (k int, what text)");
    cluster.sql("SELECT create_distributed_table('history', 'k', colocate_with => 'accounts')");
    cluster.sql("INSERT INTO accounts SELECT i, 100, 'n' || i FROM generate_series(1, 2000) i");
    cluster
}

/// Moves money, and notes it in a table without a key.
const TRANSFER: &str = "\\set a random(1, 2000)\n\\set b random(1, 2000)\nBEGIN;\n\
    UPDATE accounts SET v = v - 1 WHERE k = :a;\nINSERT INTO history VALUES (:a, 'transfer');\n\
    UPDATE accounts SET v = v + 1 WHERE k = :b;\nEND;\n";

const READ: &str = "\\set a random(1, 2000)\nSELECT v FROM accounts WHERE k = :a;\n";

/// Fails if the total is not that of the start.
const TOTAL: &str = "SELECT 1 / (sum(v) = 200000)::int FROM accounts;\n";

#[test]
fn clients_see_no_error_and_no_wrong_total_while_shards_move() {
    let cluster = cluster_with_accounts();
    let scripts =
        [(4, TRANSFER), (4, READ), (1, TOTAL)].map(|(weight, text)| Script { weight, text });
    for mode in ["prepared", "simple"] {
        let mut load = cluster.pgbench(mode, &scripts, &["-c", "8", "-j", "1", "-T", "600"]);
        let shard = shard_on(&cluster, "accounts", WORKER_1);
        let mut session = cluster.new_session();
        for (from, to) in [(WORKER_1, WORKER_2), (WORKER_2, WORKER_3), (WORKER_3, WORKER_1)] {
            session.sql(&call(&cluster, "move_shard", shard, from, to));
            assert_eq!(nodes_of(&cluster, "accounts", shard), [to]);
            assert!(load.is_running(), "no client has failed");
        }
        session.sql(&call(&cluster, "copy_shard", shard, WORKER_1, WORKER_2));
        session.sql(&format!(
            "SELECT pgs_catalog.drop_placement({shard}, 'localhost', {})",
            cluster.port(WORKER_2)
        ));
        let before = cluster.text("SELECT count(*) FROM history");
        wait_until("clients go on", || cluster.text("SELECT count(*) FROM history") > before);
        assert!(load.is_running(), "no client has failed");
        let report = load.stop();
        assert!(!report.errors.contains("ERROR"), "{mode}: {}", report.errors);
        cluster.wait_for_rest();
        assert_eq!(cluster.text("SELECT sum(v) FROM accounts"), "200000");
        cluster.assert_placements_equal("accounts");
        cluster.assert_placements_equal("history");
    }
}

#[test]
fn a_snapshot_that_is_older_than_a_move_is_refused() {
    let cluster = cluster_with_accounts();
    let shard = shard_on(&cluster, "accounts", WORKER_1);
    let mut reader = cluster.new_session();
    // A snapshot of all nodes, and no lock on the table that moves.
    cluster.create_distributed("CREATE TABLE apart (k int)", "apart", "k", 3, 1);
    reader.sql("BEGIN ISOLATION LEVEL REPEATABLE READ");
    reader.sql("SELECT count(*) FROM apart");
    cluster.sql(&call(&cluster, "move_shard", shard, WORKER_1, WORKER_2));
    let error = reader.error("SELECT count(*) FROM accounts");
    assert_eq!(error.sqlstate, "40001", "{}", error.message);
    reader.sql("ROLLBACK");
    assert_eq!(reader.text("SELECT count(*) FROM accounts"), "2000");
}

#[test]
fn a_move_waits_for_a_transaction_that_has_read_and_others_do_not_wait_for_the_move() {
    let cluster = cluster_with_accounts();
    let shard = shard_on(&cluster, "accounts", WORKER_1);
    let mut reader = cluster.new_session();
    reader.sql("BEGIN");
    reader.sql("DECLARE c CURSOR FOR SELECT k FROM accounts");
    reader.sql("FETCH 10 FROM c");
    let mut mover = cluster.new_session();
    let statement = call(&cluster, "move_shard", shard, WORKER_1, WORKER_2);
    std::thread::scope(|scope| {
        let moved = scope.spawn(move || mover.sql(&statement));
        wait_until("changes are noted", || {
            !cluster.tables_on(WORKER_1, "pgs\\_changes%").is_empty()
        });
        for key in 1..=200 {
            cluster.sql(&format!("UPDATE accounts SET v = v + 1 WHERE k = {key}"));
        }
        assert!(!moved.is_finished());
        assert_eq!(reader.sql("FETCH ALL FROM c").len(), 1990);
        reader.sql("COMMIT");
        moved.join().expect("it does not panic");
    });
    assert_eq!(cluster.text("SELECT sum(v) FROM accounts"), "200200");
    assert_eq!(nodes_of(&cluster, "accounts", shard), [WORKER_2]);
}

#[test]
fn a_node_that_had_nothing_to_read_refuses_an_older_snapshot_too() {
    // The transaction had not begun there, so the node was asked for its time later, and showed the shard empty.
    let cluster = TestCluster::up(3);
    let on_two = |table: &str| {
        cluster.create_distributed(
            &format!("CREATE TABLE {table} (k int PRIMARY KEY)"),
            table,
            "k",
            2,
            1,
        );
    };
    on_two("accounts");
    cluster.create_distributed("CREATE TABLE apart (k text)", "apart", "k", 2, 1);
    cluster.sql("INSERT INTO accounts SELECT generate_series(1, 500)");
    let shard = shard_on(&cluster, "accounts", WORKER_1);
    let mut reader = cluster.new_session();
    reader.sql("BEGIN ISOLATION LEVEL REPEATABLE READ");
    reader.sql("SELECT count(*) FROM apart");
    cluster.sql(&call(&cluster, "move_shard", shard, WORKER_1, WORKER_3));
    assert_eq!(reader.error("SELECT count(*) FROM accounts").sqlstate, "40001");
    reader.sql("ROLLBACK");
    assert_eq!(reader.text("SELECT count(*) FROM accounts"), "500");
}
