//! The nodes of a coordinator: those of the worker list, and those that are added and removed by functions.

use testkit::{NodeName, TestCluster};

/// Leaves so many workers in the worker list; the others run as servers that nobody knows.
pub(crate) fn keep_in_list(cluster: &TestCluster, workers: u16) {
    let lines: Vec<String> = (1..=workers).map(|number| line(cluster, number)).collect();
    write_list(cluster, &lines.concat());
}

pub(crate) fn line(cluster: &TestCluster, worker: u16) -> String {
    format!("127.0.0.1 {}\n", cluster.port(NodeName::Worker(worker)))
}

pub(crate) fn write_list(cluster: &TestCluster, lines: &str) {
    let list = cluster.data_dir(NodeName::Coordinator).join("pg_worker_list.conf");
    std::fs::write(list, lines).expect("the worker list can be written");
}

/// Nodes with their figures, by their numbers in the cluster.
fn nodes(cluster: &TestCluster) -> Vec<String> {
    let rows = cluster.sql(
        "SELECT port, state, is_listed, takes_shards, placements, coalesce(rack, '-') FROM pgs_catalog.nodes ORDER BY port",
    );
    rows.iter()
        .map(|row| format!("{} {}", cluster.worker_on(&row[0]), row[1..].join(" ")))
        .collect()
}

#[test]
fn the_worker_list_says_which_nodes_there_are_and_nobody_else_has_to() {
    let cluster = TestCluster::up(3);
    keep_in_list(&cluster, 2);
    cluster.create_distributed("CREATE TABLE t (k int)", "t", "k", 4, 1);
    assert_eq!(nodes(&cluster), ["worker1 up t t 2 -", "worker2 up t t 2 -"]);
    // The file is read afresh; a node with placements is known though its line is gone.
    write_list(&cluster, &line(&cluster, 3));
    cluster.create_distributed("CREATE TABLE u (k int)", "u", "k", 2, 1);
    assert_eq!(nodes(&cluster), ["worker1 up f f 2 -", "worker2 up f f 2 -", "worker3 up t t 2 -"]);
}

#[test]
fn a_node_that_is_added_gets_reference_tables_with_all_that_they_need() {
    let cluster = TestCluster::up(3);
    keep_in_list(&cluster, 2);
    cluster.sql("CREATE SCHEMA shop; CREATE TYPE shop.colour AS ENUM ('red', 'blue')");
    cluster.sql(
        "CREATE FUNCTION shop.is_fine(c shop.colour) RETURNS boolean IMMUTABLE LANGUAGE sql AS $$ SELECT c IS NOT NULL $$; \
         CREATE TABLE shop.colours (id int PRIMARY KEY, colour shop.colour CHECK (shop.is_fine(colour))); \
         CREATE TABLE shop.things (k int, colour int REFERENCES shop.colours)",
    );
    cluster.sql("SELECT create_reference_table('shop.colours')");
    cluster.sql("INSERT INTO shop.colours VALUES (1, 'red'), (2, 'blue')");
    cluster.sql("SELECT create_distributed_table('shop.things', 'k', 4)");
    cluster.sql("INSERT INTO shop.things SELECT i, i % 2 + 1 FROM generate_series(1, 100) i");
    let port = cluster.port(NodeName::Worker(3));
    cluster.sql(&format!("SELECT pgs_catalog.add_node('127.0.0.1', {port}, rack => 'b')"));
    assert_eq!(nodes(&cluster)[2], "worker3 up f t 1 b");
    assert_eq!(cluster.tables_on(NodeName::Worker(3), "colours%").len(), 1);
    assert_eq!(cluster.assert_placements_equal("shop.colours"), 2);
    // New shards go there, and join in place.
    cluster.sql("CREATE TABLE shop.more (k int, colour int); SELECT create_distributed_table('shop.more', 'k', 3)");
    assert_eq!(nodes(&cluster)[2], "worker3 up f t 2 b");
    cluster.sql("INSERT INTO shop.more SELECT i, 1 FROM generate_series(1, 30) i");
    let join = "SELECT count(*) FROM shop.more JOIN shop.colours ON more.colour = id";
    assert_eq!(cluster.text(join), "30");
    // A write reaches the new placement.
    cluster.sql("UPDATE shop.colours SET colour = 'blue' WHERE id = 1");
    assert_eq!(cluster.assert_placements_equal("shop.colours"), 2);
    let again = cluster.error(&format!("SELECT pgs_catalog.add_node('127.0.0.1', {port})"));
    assert_eq!(again.line(), format!("42710: node \"127.0.0.1:{port}\" exists already"));
}

#[test]
fn a_server_that_is_a_node_already_or_cannot_be_reached_is_not_added() {
    let cluster = TestCluster::up(2);
    let port = cluster.port(NodeName::Worker(1));
    let twice = cluster.error(&format!("SELECT pgs_catalog.add_node('127.0.0.1', {port})"));
    assert_eq!(
        twice.line(),
        format!("F0000: workers \"localhost:{port}\" and \"127.0.0.1:{port}\" are the same server")
    );
    let nobody = cluster.error("SELECT pgs_catalog.add_node('127.0.0.1', 1)");
    assert_eq!(nobody.line(), "08006: Connection failed to 127.0.0.1:1");
    for call in [
        "''",
        "'a b'",
        "'a,b'",
        "'a', 0",
        "'a', 70000",
        "'a', host_port => 0",
        "'a', host => 'b c'",
    ] {
        assert_eq!(
            cluster.error(&format!("SELECT pgs_catalog.add_node({call})")).sqlstate,
            "22023",
            "{call}"
        );
    }
    assert_eq!(nodes(&cluster).len(), 2);
}

#[test]
fn a_node_is_removed_unless_it_has_the_last_healthy_placement_of_something() {
    let cluster = TestCluster::up(3);
    keep_in_list(&cluster, 2);
    let port = cluster.port(NodeName::Worker(3));
    cluster.sql(&format!("SELECT pgs_catalog.add_node('127.0.0.1', {port})"));
    cluster.create_distributed("CREATE TABLE one (k int)", "one", "k", 3, 1);
    cluster.create_distributed("CREATE TABLE two (k int)", "two", "k", 3, 2);
    let remove = format!("SELECT pgs_catalog.remove_node('127.0.0.1', {port})");
    let error = cluster.error(&remove);
    assert_eq!(
        error.line(),
        format!("55006: node \"127.0.0.1:{port}\" holds the last healthy placement of shards")
    );
    assert_eq!(error.detail, "The tables are: \"one\".");
    cluster.sql("DROP TABLE one");
    cluster.sql("INSERT INTO two SELECT generate_series(1, 100)");
    cluster.sql(&remove);
    assert_eq!(nodes(&cluster).len(), 2);
    assert_eq!(cluster.placements("two").len(), 4);
    assert_eq!(cluster.text("SELECT count(*) FROM two"), "100");
    // A node of the list is removed there.
    let listed = cluster.port(NodeName::Worker(1));
    let error = cluster.error(&format!("SELECT pgs_catalog.remove_node('127.0.0.1', {listed})"));
    assert_eq!(
        error.line(),
        format!("55006: node \"127.0.0.1:{listed}\" stands in the worker list file")
    );
    let error = cluster.error("SELECT pgs_catalog.remove_node('elsewhere', 1)");
    assert_eq!(error.line(), "42704: node \"elsewhere:1\" does not exist");
}

#[test]
fn a_node_is_reached_under_another_address_from_the_next_statement_on() {
    let cluster = TestCluster::up(2);
    // A server that is known under a name that leads nowhere.
    let port = cluster.port(NodeName::Worker(2));
    write_list(&cluster, &line(&cluster, 1));
    cluster.sql(&format!(
        "SELECT pgs_catalog.add_node('db-2.example.invalid', 5432, host => '127.0.0.1', host_port => {port})"
    ));
    cluster.create_distributed("CREATE TABLE t (k int, v int)", "t", "k", 4, 1);
    cluster.sql("INSERT INTO t SELECT i, i FROM generate_series(1, 100) i");
    let names = "SELECT count(*) FROM pgs_distribution_metadata.shard_placement WHERE node_name = 'db-2.example.invalid'";
    assert_eq!(cluster.text(names), "2");
    let mut other = cluster.new_session();
    assert_eq!(other.text("SELECT count(*) FROM t"), "100");
    // Rows move from worker to worker by the same address.
    assert_eq!(other.text("SELECT count(*) FROM t a JOIN t b ON a.v = b.k"), "100");
    // Sessions that are open follow: this address leads nowhere either, and the one after it is good.
    let set = |host: &str, port: &str| {
        format!("SELECT pgs_catalog.set_node_address('db-2.example.invalid', 5432, {host}, {port})")
    };
    assert_eq!(cluster.error(&set("'127.0.0.1'", "1")).sqlstate, "08006");
    assert_eq!(other.text("SELECT count(*) FROM t"), "100");
    cluster.sql("UPDATE pgs_catalog.node SET host_port = 1 WHERE name = 'db-2.example.invalid'");
    assert_eq!(other.error("SELECT count(*) FROM t").sqlstate, "XX000");
    cluster.sql(&set("'localhost,127.0.0.1'", &port.to_string()));
    assert_eq!(other.text("SELECT count(*) FROM t"), "100");
    other.sql("UPDATE t SET v = v + 1");
    let inactive =
        "SELECT count(*) FROM pgs_distribution_metadata.shard_placement WHERE shard_state <> 1";
    assert_eq!(cluster.text(inactive), "0");
}

#[test]
fn nodes_are_managed_by_superusers_and_those_who_may_write_the_list_itself() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE ROLE mallory LOGIN; CREATE ROLE operator LOGIN; GRANT pg_write_server_files TO operator");
    let mut mallory = cluster.session_as("mallory");
    for call in [
        "add_node('127.0.0.1', 1)",
        "remove_node('a', 1)",
        "set_node_address('a', 1, 'b')",
        "set_node_rack('a', 1, 'b')",
    ] {
        let error = mallory.error(&format!("SELECT pgs_catalog.{call}"));
        assert_eq!(error.line(), "42501: permission denied to manage nodes", "{call}");
    }
    for statement in [
        "SELECT * FROM pgs_catalog.node",
        "SELECT * FROM pgs_catalog.nodes",
        "UPDATE pgs_catalog.node SET host = 'b'",
        "SELECT pgs_catalog.known_nodes()",
        "SELECT pgs_catalog.placements_of_nodes()",
    ] {
        assert_eq!(mallory.error(statement).sqlstate, "42501", "{statement}");
    }
    let mut operator = cluster.session_as("operator");
    let port = cluster.port(NodeName::Worker(2));
    operator.sql(&format!("SELECT pgs_catalog.set_node_rack('localhost', {port}, 'b')"));
    assert_eq!(nodes(&cluster)[1], "worker2 up t t 0 b");
}
