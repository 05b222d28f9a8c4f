//! A shard becomes several, with all that lies beside it.

use crate::whole::left_on;
use crate::{WORKER_1, WORKER_2, call, nodes_of};
use std::thread;
use testkit::{Script, TestCluster, wait_until};

fn shop() -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TABLE unit (code text PRIMARY KEY)");
    cluster.sql("SELECT create_reference_table('unit')");
    cluster.sql("INSERT INTO unit VALUES ('kg')");
    cluster.sql(
        "CREATE TABLE items (name text PRIMARY KEY, n int NOT NULL, code text REFERENCES unit, size int GENERATED ALWAYS AS (length(name)) STORED)",
    );
    cluster.sql("SELECT create_distributed_table('items', 'name', 2)");
    cluster.sql("CREATE INDEX items_n ON items (n)");
    cluster.sql(
        "CREATE TABLE stock (name text REFERENCES items ON DELETE CASCADE, place int, PRIMARY KEY (name, place))",
    );
    cluster.sql("SELECT create_distributed_table('stock', 'name', colocate_with => 'items')");
    cluster.sql("CREATE TABLE log (name text, what text)");
    cluster.sql("SELECT create_distributed_table('log', 'name', colocate_with => 'items')");
    cluster.sql(
        "INSERT INTO items (name, n, code) SELECT 'i' || i, 0, 'kg' FROM generate_series(1, 500) i",
    );
    cluster.sql("INSERT INTO stock SELECT name, 1 FROM items");
    cluster.sql("INSERT INTO log SELECT 'i' || i % 50, 'x' FROM generate_series(1, 200) i");
    cluster
}

fn shards(cluster: &TestCluster, table: &str) -> usize {
    cluster.placements(table).len()
}

#[test]
fn a_split_shard_has_its_rows_indexes_and_foreign_keys_in_its_parts() {
    let cluster = shop();
    let shard = cluster.placements("items")[0].shard;
    let parts = cluster
        .text(&format!("SELECT pgs_catalog.split_shard({shard}, ARRAY[-2000000000, -1000000000])"));
    assert_eq!(parts.split(',').count(), 3, "{parts}");
    for (table, rows) in [("items", 500), ("stock", 500), ("log", 200)] {
        assert_eq!(shards(&cluster, table), 4, "{table}");
        assert_eq!(cluster.assert_placements_equal(table), rows, "{table}");
        assert!(cluster.tables_on(WORKER_1, &format!("items\\_{shard}")).is_empty());
    }
    // Each row is found by its key, so it lies where it belongs.
    assert_eq!(
        cluster.text("SELECT count(*) FROM items AS i WHERE n = (SELECT min(n) FROM items AS j WHERE j.name = i.name)"),
        "500"
    );
    assert_eq!(
        cluster.text("SELECT count(*) FROM items JOIN stock USING (name) JOIN log USING (name)"),
        "196"
    );
    assert_eq!(cluster.error("INSERT INTO stock VALUES ('none', 1)").sqlstate, "23503");
    assert_eq!(
        cluster.error("INSERT INTO items (name, n, code) VALUES ('a', 1, 'lb')").sqlstate,
        "23503"
    );
    cluster.sql("DELETE FROM items WHERE name IN ('i1', 'i2', 'i3')");
    assert_eq!(cluster.text("SELECT count(*) FROM stock"), "497");
    let first = cluster.placements("items")[0].node;
    let indexed = format!(
        "SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'items\\_n\\_%' AND tablename IN ({})",
        cluster
            .tables_on(first, "items\\_%")
            .iter()
            .map(|name| format!("'{name}'"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    let tables = cluster.tables_on(first, "items\\_%").len().to_string();
    assert_eq!(cluster.session_on(first).text(&indexed), tables);
    for node in [WORKER_1, WORKER_2] {
        assert_eq!(left_on(&cluster, node), Vec::<String>::new(), "{node}");
    }
}

#[test]
fn a_key_gets_a_shard_of_its_own_which_can_move() {
    let cluster = shop();
    let shard: i64 = cluster
        .text("SELECT pgs_catalog.isolate_key('items', 'i7')")
        .parse()
        .expect("a shard's number");
    assert_eq!(cluster.text("SELECT pgs_catalog.isolate_key('items', 'i7')"), shard.to_string());
    let from = nodes_of(&cluster, "items", shard)[0];
    let to = if from == WORKER_1 { WORKER_2 } else { WORKER_1 };
    let in_shard = format!("SELECT string_agg(name, ' ') FROM items_{shard}");
    assert_eq!(cluster.session_on(from).text(&in_shard), "i7");
    cluster.sql(&call(&cluster, "move_shard", shard, from, to));
    assert_eq!(cluster.session_on(to).text(&in_shard), "i7");
    assert_eq!(
        cluster.text("SELECT count(*) FROM items JOIN stock USING (name) WHERE name = 'i7'"),
        "1"
    );
    for (table, rows) in [("items", 500), ("stock", 500), ("log", 200)] {
        assert_eq!(cluster.assert_placements_equal(table), rows, "{table}");
    }
}

#[test]
fn both_placements_of_a_shard_are_split() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY, v int)", "t", "k", 2, 2);
    cluster.sql("INSERT INTO t SELECT i, i FROM generate_series(1, 400) i");
    let shard = cluster.placements("t")[0].shard;
    cluster.sql(&format!("SELECT pgs_catalog.split_shard({shard}, '{{-1500000000}}')"));
    assert_eq!(shards(&cluster, "t"), 6);
    cluster.sql("UPDATE t SET v = v + 1 WHERE k % 3 = 0");
    assert_eq!(cluster.assert_placements_equal("t"), 400);
}

#[test]
fn what_cannot_be_split_is_refused() {
    let cluster = shop();
    let shard = cluster.placements("items")[0].shard;
    for points in ["{}", "{2000000000}", "{-5,-6}", "{-2147483648,-2147483648}"] {
        let error = cluster.error(&format!("SELECT pgs_catalog.split_shard({shard}, '{points}')"));
        assert_eq!(error.sqlstate, "22023", "{points}");
    }
    let reference = cluster.placements("unit")[0].shard;
    let error = cluster.error(&format!("SELECT pgs_catalog.split_shard({reference}, '{{0}}')"));
    assert_eq!(error.sqlstate, "0A000");
    assert_eq!(shards(&cluster, "items"), 2);
}

#[test]
fn clients_with_prepared_statements_go_on_while_shards_are_split() {
    let cluster = TestCluster::up(2);
    cluster.create_distributed(
        "CREATE TABLE accounts (k int PRIMARY KEY, v int NOT NULL)",
        "accounts",
        "k",
        2,
        1,
    );
    cluster.sql("INSERT INTO accounts SELECT i, 100 FROM generate_series(1, 1000) i");
    let transfer = "\\set a random(1, 1000)\n\\set b random(1, 1000)\nBEGIN;\nUPDATE accounts SET v = v - 1 WHERE k = :a;\n\
        UPDATE accounts SET v = v + 1 WHERE k = :b;\nEND;\n";
    let total = "SELECT 1 / (sum(v) = 100000 AND count(*) = 1000)::int FROM accounts;\n";
    let scripts = [(6, transfer), (1, total)].map(|(weight, text)| Script { weight, text });
    let mut load = cluster.pgbench("prepared", &scripts, &["-c", "8", "-j", "1", "-T", "600"]);
    let mut session = cluster.new_session();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3 {
                let shard = session.text(
                    "SELECT id FROM pgs_distribution_metadata.shard ORDER BY max_value::bigint - min_value::bigint DESC, id LIMIT 1",
                );
                session.sql(&format!(
                    "SELECT pgs_catalog.split_shard(id, ARRAY[((min_value::bigint + max_value::bigint) / 2)::int]) \
                     FROM pgs_distribution_metadata.shard WHERE id = {shard}"
                ));
            }
        });
    });
    let values = "SELECT md5(string_agg(v::text, ' ' ORDER BY k)) FROM accounts";
    let before = cluster.text(values);
    wait_until("clients go on", || cluster.text(values) != before);
    assert!(load.is_running(), "no client has failed");
    let report = load.stop();
    assert!(!report.errors.contains("ERROR"), "{}", report.errors);
    cluster.wait_for_rest();
    assert_eq!(shards(&cluster, "accounts"), 5);
    assert_eq!(cluster.text("SELECT sum(v) FROM accounts"), "100000");
    assert_eq!(cluster.assert_placements_equal("accounts"), 1000);
}

/// The hash function of these types takes another type, to which SQL does not cast: a split of the table failed on the node, and a key
/// could not be isolated.
#[test]
fn keys_of_every_type_are_isolated_and_stay_where_they_are_found() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE DOMAIN code AS varchar(9)");
    let types = [
        ("date", "'2026-01-01'::date + g", "2026-02-01"),
        ("timestamptz", "'2026-01-01 UTC'::timestamptz + g * interval '1 day'", "2026-02-01 UTC"),
        ("boolean", "g % 2 = 0", "true"),
        ("\"char\"", "chr(40 + g)::\"char\"", "A"),
        ("char(5)", "'c' || g", "c31"),
        ("code", "('c' || g)::code", "c31"),
        ("text COLLATE \"C\"", "'c' || g", "c31"),
        ("numeric", "g::numeric / 2", "15.50"),
        ("int4range", "int4range(g, g + 5)", "[31,36)"),
        ("int[]", "ARRAY[g, NULL]", "{31,NULL}"),
    ];
    for (type_name, value, key) in types {
        cluster.sql(&format!(
            "CREATE TABLE t (k {type_name}, g int); SELECT create_distributed_table('t', 'k', 2); \
             INSERT INTO t SELECT {value}, g FROM generate_series(1, 60) AS g"
        ));
        let own = format!("SELECT count(*), sum(g) FROM t WHERE k = '{key}'");
        let before = cluster.text(&own);
        assert!(!before.starts_with('0'), "{type_name}");
        let shard = cluster.text(&format!("SELECT pgs_catalog.isolate_key('t', '{key}')"));
        assert_eq!(cluster.text(&own), before, "{type_name}");
        assert_eq!(
            cluster.text(&format!("SELECT pgs_catalog.shard_of_key('t', '{key}')")),
            shard,
            "{type_name}"
        );
        // Each row is found by its key.
        let keys = cluster.sql("SELECT DISTINCT k::text FROM t");
        let found = keys.iter().map(|row| {
            let rows = cluster.text(&format!("SELECT count(*) FROM t WHERE k = '{}'", row[0]));
            rows.parse::<u32>().expect("a number")
        });
        assert_eq!(found.sum::<u32>(), 60, "{type_name}");
        cluster.sql("DROP TABLE t");
    }
}

/// An enum's value is hashed by its number in the catalogs, which nodes do not share: rows went to the wrong part, and were not found.
#[test]
fn a_shard_whose_keys_hash_otherwise_on_the_nodes_is_not_split() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TYPE mood AS ENUM ('fine', 'so so'); CREATE DOMAIN moods AS mood[]");
    for (type_name, value) in [("mood", "fine"), ("moods", "{fine}"), ("regclass", "pg_class")] {
        cluster.sql(&format!(
            "CREATE TABLE t (k {type_name}); SELECT create_distributed_table('t', 'k', 2); INSERT INTO t VALUES ('{value}')"
        ));
        let error = cluster.error(&format!("SELECT pgs_catalog.isolate_key('t', '{value}')"));
        assert_eq!(error.sqlstate, "0A000", "{type_name}: {error}");
        assert_eq!(
            cluster.text(&format!("SELECT count(*) FROM t WHERE k = '{value}'::{type_name}")),
            "1"
        );
        cluster.sql("DROP TABLE t");
    }
}
