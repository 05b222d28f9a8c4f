//! What goes along with a shard, what is refused before anything changes, and what is left on the nodes.

use crate::{WORKER_1, WORKER_2, WORKER_3, call, nodes_of, shard_on};
use testkit::{NodeName, TestCluster, wait_until};

/// Orders and their lines, beside a table without a key, and a reference table.
fn shop() -> TestCluster {
    let cluster = TestCluster::up(3);
    cluster.sql("CREATE TABLE currency (code text PRIMARY KEY)");
    cluster.sql("SELECT create_reference_table('currency')");
    cluster.sql("INSERT INTO currency VALUES ('EUR'), ('USD')");
    cluster.sql(
        "CREATE TABLE orders (id int PRIMARY KEY, note text NOT NULL, total numeric, code text REFERENCES currency, \
         twice int GENERATED ALWAYS AS (id * 2) STORED, UNIQUE (id, note))",
    );
    cluster.sql("SELECT create_distributed_table('orders', 'id', 4)");
    cluster.sql("CREATE INDEX orders_note ON orders (lower(note)) WHERE total > 1");
    cluster.sql("CREATE STATISTICS orders_stat ON id, total FROM orders");
    cluster.sql(
        "CREATE TABLE lines (id int REFERENCES orders ON DELETE CASCADE, line int, PRIMARY KEY (id, line))",
    );
    cluster.sql("SELECT create_distributed_table('lines', 'id', colocate_with => 'orders')");
    cluster.sql("CREATE TABLE events (id int, what json)");
    cluster.sql("SELECT create_distributed_table('events', 'id', colocate_with => 'orders')");
    cluster.sql("INSERT INTO orders (id, note, total, code) SELECT i, 'n' || i, i / 3.0, 'EUR' FROM generate_series(1, 400) i");
    cluster.sql(
        "INSERT INTO lines SELECT i, j FROM generate_series(1, 400) i, generate_series(1, 2) j",
    );
    cluster.sql("INSERT INTO events SELECT i % 7, '{\"a\": 1}' FROM generate_series(1, 100) i");
    cluster
}

/// The shard of a table that lies beside one of `orders`.
fn beside(cluster: &TestCluster, table: &str, shard: i64) -> i64 {
    let orders = cluster.placements("orders");
    let number = orders.iter().position(|placement| placement.shard == shard);
    cluster.placements(table)[number.expect("it is one of orders")].shard
}

/// What the node's catalogs say of a table, without its statistics.
fn description(cluster: &TestCluster, node: NodeName, table: &str) -> String {
    let text = cluster.psql(node, &["-c", &format!("\\d+ {table}")], "");
    String::from_utf8(text.stdout).expect("psql prints UTF-8")
}

/// What captures leave on a node: tables, functions, triggers.
pub(crate) fn left_on(cluster: &TestCluster, node: NodeName) -> Vec<String> {
    let mut session = cluster.session_on(node);
    let found = session.sql(
        "SELECT relname FROM pg_class WHERE relname LIKE 'pgs\\_%' AND relkind = 'r' AND relnamespace = 'public'::regnamespace \
         UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE 'pgs\\_capture%' \
         UNION ALL SELECT tgname FROM pg_trigger WHERE tgname = 'pgs_capture'",
    );
    found.into_iter().flatten().collect()
}

#[test]
fn a_shard_moves_with_its_definition_and_the_shards_beside_it() {
    let cluster = shop();
    let shard = shard_on(&cluster, "orders", WORKER_1);
    let tables = ["orders", "lines", "events"];
    let shards = tables.map(|table| beside(&cluster, table, shard));
    let names: Vec<String> =
        tables.iter().zip(shards).map(|(table, shard)| format!("{table}_{shard}")).collect();
    let before: Vec<String> =
        names.iter().map(|name| description(&cluster, WORKER_1, name)).collect();
    let rows: Vec<usize> =
        tables.iter().map(|table| cluster.assert_placements_equal(table)).collect();
    cluster.sql(&call(&cluster, "move_shard", shard, WORKER_1, WORKER_2));
    for (at, table) in tables.into_iter().enumerate() {
        assert_eq!(nodes_of(&cluster, table, shards[at]), [WORKER_2], "{table}");
        assert_eq!(description(&cluster, WORKER_2, &names[at]), before[at], "{table}");
        assert_eq!(cluster.assert_placements_equal(table), rows[at], "{table}");
        assert!(cluster.tables_on(WORKER_1, &names[at]).is_empty(), "{table} is dropped");
    }
    let analyzed = format!("SELECT reltuples > 0 FROM pg_class WHERE relname = '{}'", names[0]);
    assert_eq!(cluster.session_on(WORKER_2).text(&analyzed), "t");
    // The foreign keys hold where the shards are now.
    let in_shard = cluster.session_on(WORKER_2).text(&format!("SELECT min(id) FROM {}", names[0]));
    cluster.sql(&format!("DELETE FROM orders WHERE id = {in_shard}"));
    assert_eq!(cluster.text(&format!("SELECT count(*) FROM lines WHERE id = {in_shard}")), "0");
    let error = cluster.error(&format!("INSERT INTO lines VALUES ({in_shard}, 1)"));
    assert_eq!(error.sqlstate, "23503");
    let error = cluster
        .error(&format!("INSERT INTO orders (id, note, code) VALUES ({in_shard}, 'x', 'none')"));
    assert_eq!(error.sqlstate, "23503");
    for node in [WORKER_1, WORKER_2] {
        assert_eq!(left_on(&cluster, node), Vec::<String>::new(), "{node}");
    }
    // And back again.
    cluster.sql(&call(&cluster, "move_shard", shard, WORKER_2, WORKER_1));
    assert_eq!(cluster.assert_placements_equal("lines"), rows[1] - 2);
}

#[test]
fn a_copied_shard_is_written_in_both_places_and_a_dropped_placement_is_gone() {
    let cluster = shop();
    let shard = shard_on(&cluster, "orders", WORKER_1);
    cluster.sql(&call(&cluster, "copy_shard", shard, WORKER_1, WORKER_3));
    assert_eq!(nodes_of(&cluster, "orders", shard), [WORKER_1, WORKER_3]);
    cluster.sql("UPDATE orders SET note = note || '!'");
    cluster.sql("DELETE FROM lines WHERE line = 1 AND id % 2 = 0");
    cluster.sql("INSERT INTO events SELECT i, NULL FROM generate_series(1, 50) i");
    for table in ["orders", "lines", "events"] {
        cluster.assert_placements_equal(table);
    }
    let drop = |node| {
        format!("SELECT pgs_catalog.drop_placement({shard}, 'localhost', {})", cluster.port(node))
    };
    cluster.sql(&drop(WORKER_1));
    assert_eq!(nodes_of(&cluster, "orders", shard), [WORKER_3]);
    assert!(cluster.tables_on(WORKER_1, &format!("orders_{shard}")).is_empty());
    let error = cluster.error(&drop(WORKER_3));
    assert_eq!(
        (error.sqlstate.as_str(), error.detail.as_str()),
        ("55000", "The shard has no other healthy placement.")
    );
    for table in ["orders", "lines", "events"] {
        cluster.assert_placements_equal(table);
    }
}

#[test]
fn partitions_move_with_their_table() {
    let cluster = TestCluster::up(2);
    cluster.sql(
        "CREATE TABLE m (k int, day date, v int, PRIMARY KEY (k, day)) PARTITION BY RANGE (day)",
    );
    cluster.sql("CREATE TABLE m1 PARTITION OF m FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')");
    cluster.sql("CREATE TABLE m2 PARTITION OF m FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')");
    cluster.sql("CREATE INDEX ON m (v)");
    cluster.sql("SELECT create_distributed_table('m', 'k', 2)");
    cluster.sql(
        "INSERT INTO m SELECT i, date '2026-01-01' + i % 59, i FROM generate_series(1, 500) i",
    );
    let shard = shard_on(&cluster, "m", WORKER_1);
    let before = description(&cluster, WORKER_1, &format!("m_{shard}"));
    cluster.sql(&call(&cluster, "move_shard", shard, WORKER_1, WORKER_2));
    assert_eq!(description(&cluster, WORKER_2, &format!("m_{shard}")), before);
    assert_eq!(cluster.text("SELECT count(*), sum(v) FROM m"), "500|125250");
    cluster.sql("INSERT INTO m SELECT i, '2026-02-03', i FROM generate_series(501, 600) i");
    cluster.sql("UPDATE m SET day = day + 31 WHERE day < '2026-01-15'");
    assert_eq!(cluster.text("SELECT count(*) FROM m WHERE day >= '2026-02-01'"), {
        let rows = cluster.text(
            "SELECT count(*) FROM generate_series(1, 500) i WHERE i % 59 < 14 OR i % 59 > 30",
        );
        (rows.parse::<u32>().expect("a number") + 100).to_string()
    });
    let error = cluster.error(&call(&cluster, "copy_shard", shard, WORKER_2, WORKER_1));
    assert_eq!(error.sqlstate, "0A000");
}

#[test]
fn what_cannot_be_moved_is_refused_before_anything_changes() {
    let cluster = shop();
    let shard = shard_on(&cluster, "orders", WORKER_1);
    let refused = |sql: &str, code: &str| {
        let error = cluster.error(sql);
        assert_eq!(error.sqlstate, code, "{sql}: {}", error.message);
    };
    refused(&call(&cluster, "move_shard", shard, WORKER_2, WORKER_3), "55000");
    refused(&call(&cluster, "move_shard", shard, WORKER_1, WORKER_1), "55000");
    refused(&call(&cluster, "move_shard", 1, WORKER_1, WORKER_2), "42704");
    let reference = shard_on(&cluster, "currency", WORKER_1);
    refused(
        &format!(
            "SELECT pgs_catalog.drop_placement({reference}, 'localhost', {})",
            cluster.port(WORKER_1)
        ),
        "55000",
    );
    let mut session = cluster.new_session();
    session.sql("BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(
        session.error(&call(&cluster, "move_shard", shard, WORKER_1, WORKER_2)).sqlstate,
        "25001"
    );
    session.sql("ROLLBACK");
    session.sql("BEGIN");
    session.sql("DELETE FROM events");
    assert_eq!(
        session.error(&call(&cluster, "move_shard", shard, WORKER_1, WORKER_2)).sqlstate,
        "25001"
    );
    session.sql("ROLLBACK");
    cluster.on_all_nodes("CREATE ROLE other LOGIN");
    let error =
        cluster.session_as("other").error(&call(&cluster, "move_shard", shard, WORKER_1, WORKER_2));
    assert_eq!(error.sqlstate, "42501");
    assert_eq!(nodes_of(&cluster, "orders", shard), [WORKER_1]);
}

#[test]
fn a_cancelled_move_leaves_nothing_behind() {
    let cluster = shop();
    let shard = shard_on(&cluster, "orders", WORKER_1);
    // A reader that stays keeps the move from its end.
    let mut reader = cluster.new_session();
    reader.sql("BEGIN");
    reader.sql("SELECT count(*) FROM orders");
    let mut mover = cluster.new_session();
    let pid = mover.text("SELECT pg_backend_pid()");
    let statement = call(&cluster, "move_shard", shard, WORKER_1, WORKER_2);
    std::thread::scope(|scope| {
        let moved = scope.spawn(move || mover.error(&statement).line());
        wait_until("changes are noted", || !left_on(&cluster, WORKER_1).is_empty());
        cluster.sql("UPDATE orders SET note = note || '?'");
        wait_until("the relocation shows what it waits for", || {
            let phase = format!("SELECT phase FROM pgs_catalog.relocation WHERE pid = {pid}");
            cluster.sql(&phase).concat() == ["catch up"]
        });
        cluster.sql(&format!("SELECT pg_cancel_backend({pid})"));
        assert!(moved.join().expect("it does not panic").starts_with("57014"));
    });
    reader.sql("COMMIT");
    wait_until("nothing is left at the source", || left_on(&cluster, WORKER_1).is_empty());
    assert!(cluster.tables_on(WORKER_2, &format!("orders_{shard}")).is_empty());
    assert_eq!(nodes_of(&cluster, "orders", shard), [WORKER_1]);
    assert_eq!(cluster.assert_placements_equal("orders"), 400);
}

#[test]
fn the_owner_of_a_table_moves_its_shards() {
    let cluster = TestCluster::up(2);
    // An owner cannot create it.
    cluster.on_workers("CREATE EXTENSION IF NOT EXISTS pg_shard");
    cluster.on_all_nodes("CREATE ROLE keeper LOGIN");
    cluster.on_all_nodes("CREATE SCHEMA kept AUTHORIZATION keeper");
    let mut keeper = cluster.session_as("keeper");
    keeper.sql("CREATE TABLE kept.t (k int PRIMARY KEY, v int CHECK (v >= 0))");
    keeper.sql("SELECT create_distributed_table('kept.t', 'k', 2)");
    keeper.sql("INSERT INTO kept.t SELECT i, i FROM generate_series(1, 300) i");
    let shard = shard_on(&cluster, "kept.t", WORKER_1);
    keeper.sql(&call(&cluster, "move_shard", shard, WORKER_1, WORKER_2));
    assert_eq!(cluster.assert_placements_equal("kept.t"), 300);
    let owner = format!("SELECT relowner::regrole FROM pg_class WHERE relname = 't_{shard}'");
    assert_eq!(cluster.session_on(WORKER_2).text(&owner), "keeper");
    // A superuser moves it back, and it stays the owner's.
    cluster.sql(&call(&cluster, "move_shard", shard, WORKER_2, WORKER_1));
    keeper.sql("UPDATE kept.t SET v = v + 1");
    assert_eq!(cluster.session_on(WORKER_1).text(&owner), "keeper");
    let split = format!("SELECT pgs_catalog.split_shard({shard}, '{{-1500000000}}')");
    keeper.sql(&split);
    assert_eq!(cluster.assert_placements_equal("kept.t"), 300);
}
