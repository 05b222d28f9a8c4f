//! Commands of an administrator on nodes, shards and placements.

use testkit::TestCluster;

#[test]
fn a_command_runs_on_each_node_shard_and_placement() {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE SCHEMA s; SET search_path = s; CREATE TABLE t (k int PRIMARY KEY, v text); CREATE TABLE \"T's\" (d text NOT NULL)");
    cluster.sql("SELECT public.create_distributed_table('t', 'k', 4, 2); SELECT public.create_distributed_table('\"T''s\"', 'd', 2)");
    cluster.sql("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 20) AS i; INSERT INTO \"T's\" VALUES ('2026-01-02')");
    // Names mean there what they mean here, and what cannot run in a transaction block runs.
    let on_nodes = |command: &str| {
        format!("SELECT success, result FROM pgs_catalog.run_command_on_nodes($${command}$$)")
    };
    assert_eq!(cluster.text(&on_nodes("SHOW search_path")), "t|s\nt|s");
    assert_eq!(cluster.text(&on_nodes("VACUUM")), "t|NULL\nt|NULL");
    assert_eq!(
        cluster.text(&on_nodes("SELECT x")),
        "f|ERROR: column \"x\" does not exist\nf|ERROR: column \"x\" does not exist"
    );
    let counts = "SELECT count(*), sum(result::int) FROM pgs_catalog.run_command_on_shards('t', 'SELECT count(*) FROM %s') WHERE success";
    assert_eq!(cluster.text(counts), "4|20");
    assert_eq!(cluster.text(&counts.replace("shards", "placements")), "8|40");
    assert_eq!(cluster.text(&counts.replace("'t'", "'\"T''s\"'")), "2|1");
    // A command changes all placements of a shard, and the client's sessions stay as they are.
    cluster.sql("SELECT pgs_catalog.run_command_on_shards('t', 'UPDATE %s SET v = 1')");
    cluster.sql("SELECT pgs_catalog.run_command_on_nodes('SET search_path = nowhere')");
    cluster.assert_placements_equal("t");
    assert_eq!(cluster.text("SELECT count(*) FROM t WHERE v = '1'"), "20");
    // Which shard a key is in, also in words.
    for (table, key) in
        [("t", "7"), ("t", "'7'"), ("\"T''s\"", "'2026-01-02'::text"), ("\"T''s\"", "'2026-01-02'")]
    {
        let found = cluster.text(&format!(
            "SET datestyle = 'SQL, DMY'; SELECT (SELECT bool_or(r.result = '1') FROM pgs_catalog.run_command_on_shards('{table}', \
               $$ SELECT count(*) FROM %s WHERE {} = {key} $$) AS r WHERE r.shard_id = public.get_shard_id_for_distribution_column('{table}', {key}))",
            if table == "t" { "k" } else { "d" }
        ));
        assert_eq!(found.lines().last(), Some("t"), "{table} {key}");
    }
    cluster.reconnect();
}

/// The functions go past the coordinator's rights of tables, so they are for superusers.
#[test]
fn commands_are_for_superusers() {
    let cluster = TestCluster::up(1);
    cluster.on_all_nodes("CREATE ROLE eve LOGIN");
    cluster.create_distributed("CREATE TABLE t (k int PRIMARY KEY)", "t", "k", 2, 1);
    let mut eve = cluster.session_as("eve");
    for call in [
        "pgs_catalog.run_command_on_nodes('SELECT 1')",
        "pgs_catalog.run_command_on_shards('t', 'SELECT 1')",
        "pgs_catalog.run_command_on_placements('t', 'SELECT 1')",
        "get_shard_id_for_distribution_column('t', 1)",
        "pgs_catalog.after_restore(true)",
        "pgs_catalog.distribute_restored('{}', '{}')",
        "pgs_catalog.drop_restored_rows('{}')",
    ] {
        assert_eq!(eve.error(&format!("SELECT * FROM {call}")).sqlstate, "42501", "{call}");
    }
    // Whoever is given the function is on the nodes who he is here.
    cluster.sql("GRANT EXECUTE ON FUNCTION pgs_catalog.run_command_on_nodes(text) TO eve");
    let who = "SELECT result FROM pgs_catalog.run_command_on_nodes('SELECT current_user')";
    assert_eq!(eve.text(who), "eve");
    let denied = eve.text("SELECT success FROM pgs_catalog.run_command_on_nodes('CREATE ROLE x')");
    assert_eq!(denied, "f");
}
