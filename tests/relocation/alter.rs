//! A table is distributed otherwise, with those beside it, while clients go on.

use testkit::{Script, TestCluster, wait_until};

fn cluster() -> TestCluster {
    let cluster = TestCluster::up(3);
    cluster.sql("CREATE TABLE kinds (id int PRIMARY KEY); SELECT create_reference_table('kinds')");
    cluster.sql("INSERT INTO kinds SELECT generate_series(0, 9)");
    cluster.sql(
        "CREATE TABLE accounts (k int PRIMARY KEY, v int NOT NULL, owner int NOT NULL, kind int REFERENCES kinds, \
         id bigint GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (k * 2) STORED); \
         SELECT create_distributed_table('accounts', 'k', 4)",
    );
    cluster.sql("CREATE INDEX ON accounts (owner)");
    cluster.sql(
        "CREATE TABLE lines (k int REFERENCES accounts ON DELETE CASCADE, n int, PRIMARY KEY (k, n)); \
         SELECT create_distributed_table('lines', 'k', colocate_with => 'accounts')",
    );
    cluster.sql("INSERT INTO accounts (k, v, owner, kind) SELECT i, 100, i % 50, i % 10 FROM generate_series(1, 1000) i");
    cluster.sql("INSERT INTO lines SELECT i, 1 FROM generate_series(1, 500) i");
    cluster
}

fn shards(cluster: &TestCluster, table: &str) -> String {
    cluster.text(&format!("SELECT count(*) FROM pgs_catalog.shards WHERE \"table\" = '{table}'"))
}

/// Everything is there, on each placement, and nothing else on the nodes.
fn check(cluster: &TestCluster) {
    for (table, rows) in [("accounts", 1000), ("lines", 500)] {
        assert_eq!(cluster.assert_placements_equal(table), rows);
        let on_nodes: usize = cluster
            .workers()
            .into_iter()
            .map(|worker| cluster.tables_on(worker, &format!("{table}\\_%")).len())
            .sum();
        assert_eq!(on_nodes, cluster.placements(table).len(), "{table}");
        assert_eq!(
            cluster.text(&format!(
                "SELECT count(*) FROM ONLY pg_class WHERE oid = '{table}'::regclass"
            )),
            "1"
        );
    }
    assert_eq!(
        cluster.text("SELECT count(*), sum(twice), count(DISTINCT id) FROM accounts"),
        "1000|1001000|1000"
    );
    assert_eq!(cluster.text("SELECT count(*) FROM accounts JOIN lines USING (k)"), "500");
}

#[test]
fn a_table_gets_another_number_of_shards_with_those_beside_it() {
    let cluster = cluster();
    cluster.sql("SELECT alter_distributed_table('accounts', shard_count => 6)");
    assert_eq!((shards(&cluster, "accounts"), shards(&cluster, "lines")), ("6".into(), "6".into()));
    check(&cluster);
    // Foreign keys hold in the new shards.
    assert_eq!(cluster.error("INSERT INTO lines VALUES (5000, 1)").sqlstate, "23503");
    assert_eq!(
        cluster.error("INSERT INTO accounts (k, v, owner, kind) VALUES (5000, 1, 1, 77)").sqlstate,
        "23503"
    );
    cluster.sql("SELECT alter_distributed_table('lines', shard_count => 2)");
    assert_eq!((shards(&cluster, "accounts"), shards(&cluster, "lines")), ("2".into(), "2".into()));
    check(&cluster);
}

#[test]
fn a_table_is_distributed_by_another_column_or_beside_another_table() {
    let cluster = cluster();
    cluster.sql("CREATE TABLE owners (owner int PRIMARY KEY); SELECT create_distributed_table('owners', 'owner', 5)");
    cluster.sql("CREATE TABLE notes (k int, owner int NOT NULL, note text); SELECT create_distributed_table('notes', 'k', 3)");
    cluster.sql("INSERT INTO notes SELECT i, i % 50, 'note' FROM generate_series(1, 300) i");
    cluster.sql("SELECT alter_distributed_table('notes', distribution_column => 'owner', colocate_with => 'owners')");
    assert_eq!(shards(&cluster, "notes"), "5");
    cluster.sql("INSERT INTO owners SELECT generate_series(0, 49)");
    assert_eq!(cluster.text("SELECT count(*) FROM notes JOIN owners USING (owner)"), "300");
    assert_eq!(cluster.assert_placements_equal("notes"), 300);
    cluster.sql(
        "SELECT alter_distributed_table('notes', replication_factor => 2, colocate_with => 'none')",
    );
    assert_eq!(cluster.placements("notes").len(), 10);
    assert_eq!(cluster.placements("owners").len(), 5);
    assert_eq!(cluster.assert_placements_equal("notes"), 300);
}

#[test]
fn what_cannot_be_altered_is_refused_and_stays_as_it_was() {
    let cluster = cluster();
    let refused = |call: &str, code: &str| {
        let error = cluster.error(&format!("SELECT alter_distributed_table({call})"));
        assert_eq!(error.sqlstate, code, "{call}: {}", error.message);
    };
    refused("'accounts'", "22023");
    refused("'accounts', shard_count => 0", "22023");
    refused("'accounts', replication_factor => 9", "22023");
    refused("'accounts', shard_count => 3, colocate_with => 'lines'", "22023");
    // The other table's foreign key needs both to lie together.
    refused("'accounts', 'owner'", "0A000");
    refused("'kv', shard_count => 3", "42P01");
    cluster
        .sql("CREATE TABLE empty (k int, v int); SELECT create_distributed_table('empty', 'k', 2)");
    cluster.sql("INSERT INTO empty VALUES (1, NULL)");
    refused("'empty', 'v'", "22004");
    assert_eq!(cluster.text("SELECT count(*) FROM empty"), "1");
    check(&cluster);
}

#[test]
fn clients_with_prepared_statements_go_on_while_a_table_is_altered() {
    let cluster = cluster();
    let transfer = "\\set a random(1, 1000)\n\\set b random(1, 1000)\n\\set low least(:a, :b)\n\\set high greatest(:a, :b)\nBEGIN;\n\
        UPDATE accounts SET v = v - 1 WHERE k = :low;\n\
        UPDATE accounts SET v = v + 1 WHERE k = :high;\nEND;\n";
    let total = "SELECT 1 / (sum(v) = 100000 AND count(*) = 1000)::int FROM accounts;\n";
    let scripts = [(6, transfer), (1, total)].map(|(weight, text)| Script { weight, text });
    let mut load = cluster.pgbench("prepared", &scripts, &["-c", "8", "-j", "1", "-T", "600"]);
    let mut session = cluster.new_session();
    let values = "SELECT md5(string_agg(v::text, ' ' ORDER BY k)) FROM accounts";
    for count in [7, 3] {
        session.sql(&format!("SELECT alter_distributed_table('accounts', shard_count => {count})"));
        let before = cluster.text(values);
        wait_until("clients go on", || cluster.text(values) != before);
        assert!(load.is_running(), "no client has failed");
    }
    let report = load.stop();
    assert!(!report.errors.contains("ERROR"), "{}", report.errors);
    cluster.wait_for_rest();
    assert_eq!(cluster.text("SELECT sum(v) FROM accounts"), "100000");
    check(&cluster);
}

#[test]
fn a_partitioned_table_is_not_distributed_anew() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TABLE p (k int, v int) PARTITION BY RANGE (v); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9)");
    cluster.sql("SELECT create_distributed_table('p', 'k', 2); INSERT INTO p SELECT g, g FROM generate_series(1, 8) AS g");
    for table in ["p", "p1"] {
        for change in ["shard_count => 3", "distribution_column => 'v'", "colocate_with => 'none'"]
        {
            let call = format!("SELECT alter_distributed_table('{table}', {change})");
            assert_eq!(cluster.error(&call).sqlstate, "0A000", "{call}");
        }
    }
    assert_eq!(cluster.text("SELECT count(*) FROM p"), "8");
}
