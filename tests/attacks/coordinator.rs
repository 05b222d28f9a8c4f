//! Operators, functions and casts of the attacker that come before PostgreSQL's own in the search path, or fit better.

use crate::Spy;
use testkit::NodeName;

/// Operators that are an exact match for what SQL compares, whatever the search path says of the order; and functions of
/// common names.
fn shadow_everything(spy: &Spy) {
    let types = [
        "oid", "int2", "int4", "int8", "text", "name", "bool", "\"char\"", "regclass", "float4",
        "float8", "numeric", "oid[]", "text[]",
    ];
    let mut sql = String::new();
    for left in types {
        for right in types {
            sql += &format!(
                "CREATE FUNCTION m.eq({left}, {right}) RETURNS bool LANGUAGE plpgsql AS $$
                     BEGIN PERFORM m.note(); RETURN $1::text = $2::text; END $$;"
            );
            for operator in ["=", "<>", "<", ">", ">=", "<="] {
                sql += &format!(
                    "CREATE OPERATOR m.{operator} (leftarg = {left}, rightarg = {right}, function = m.eq);"
                );
            }
        }
    }
    for left in ["text", "name", "text[]"] {
        sql += &format!(
            "CREATE FUNCTION m.glue({left}, text) RETURNS text LANGUAGE plpgsql AS $$
                 BEGIN PERFORM m.note(); RETURN concat($1, $2); END $$;
             CREATE OPERATOR m.|| (leftarg = {left}, rightarg = text, function = m.glue);"
        );
    }
    for (function, arguments, result) in [
        ("nextval", "regclass", "int8"),
        ("nextval", "text", "int8"),
        ("now", "", "timestamptz"),
        ("format", "text, name", "text"),
        ("format", "text, text", "text"),
        ("concat", "text, text", "text"),
        ("quote_ident", "name", "text"),
        ("coalesce_", "text", "text"),
        ("array_agg_", "oid", "oid[]"),
        ("pg_get_expr", "pg_node_tree, oid", "text"),
        ("hashtid", "tid", "int4"),
    ] {
        sql += &format!(
            "CREATE FUNCTION m.{function}({arguments}) RETURNS {result} LANGUAGE plpgsql AS $$
                 BEGIN PERFORM m.note(); RETURN NULL; END $$;"
        );
    }
    spy.on_all_nodes_as_mallory(&sql);
}

/// The search path came from the client when metadata were changed with the superuser's rights: `relation_id = 16400`
/// found `m.=(oid, int4)`, which fits better than PostgreSQL's own, even behind `pg_catalog`. Now no SQL of ours looks
/// anywhere but in `pg_catalog`.
#[test]
fn operators_and_functions_of_the_search_path_are_never_ours() {
    let spy = Spy::up(2);
    shadow_everything(&spy);
    let cluster = &spy.cluster;
    cluster.sql("CREATE ROLE other LOGIN; GRANT mallory TO other");
    cluster.sql("CREATE TABLE keep (k int PRIMARY KEY, v text)");
    cluster.distribute("keep", "k", 2, 2);
    // The attacker sets the path for herself, as an owner of a database could for everybody.
    for path in ["m, pg_catalog, public", "pg_catalog, m, public", "pg_temp, m, pg_catalog, public"]
    {
        let mut session = cluster.session_as("mallory");
        session.sql(&format!("SET search_path = {path}"));
        session.sql(
            "CREATE TABLE m.t (k int PRIMARY KEY, b text DEFAULT 'x', g int GENERATED ALWAYS AS (1) STORED, CHECK (b OPERATOR(pg_catalog.<>) 'y'));
             CREATE INDEX ON m.t (b); CREATE STATISTICS m.s ON k, b FROM m.t; COMMENT ON TABLE m.t IS 'c'",
        );
        spy.assert_only(&["mallory"], "the attacker's own statements");
        session.sql("SELECT public.master_create_distributed_table('m.t', 'k')");
        session.sql("SELECT public.master_create_worker_shards('m.t', 4, 2)");
        spy.assert_only(&[], "creating a distributed table");
        session.sql("INSERT INTO m.t (k) SELECT generate_series(1, 20)");
        session.sql("ANALYZE m.t");
        session.sql("VACUUM m.t");
        spy.assert_only(&[], "ANALYZE");
        session.sql("SELECT public.partition_column_to_node_string('m.t'::pg_catalog.regclass), public.column_name_to_column('m.t'::pg_catalog.regclass, 'k')");
        spy.assert_only(&[], "functions about columns");
        for followed in [
            "ALTER FUNCTION m.spy(anyelement) COST 7",
            "ALTER TABLE m.t ADD COLUMN c int DEFAULT 3, ADD CHECK (b OPERATOR(pg_catalog.<>) 'z')",
            "CREATE INDEX ON m.t (c)",
            "ALTER TABLE m.t ALTER c TYPE text USING pg_catalog.concat(c, b)",
            "REASSIGN OWNED BY mallory TO mallory",
            "GRANT SELECT ON ALL TABLES IN SCHEMA m TO PUBLIC",
            "ALTER TABLE m.t DROP COLUMN c",
        ] {
            session.sql(followed);
        }
        spy.assert_only(&[], "changes of definitions");
        let bad =
            spy.cluster.placements("m.t").into_iter().find(|it| it.node != NodeName::Coordinator);
        let bad = bad.expect("it has placements");
        cluster.sql(&format!(
            "UPDATE pgs_distribution_metadata.shard_placement SET shard_state = 3 WHERE id = {}",
            bad.id
        ));
        session.sql(&repair_of(&spy, bad.shard, bad.id));
        assert_eq!(cluster.unhealthy("m.t"), 0);
        spy.assert_only(&["mallory"], "repair");
        session.sql("TRUNCATE m.t; INSERT INTO m.t (k) SELECT generate_series(1, 20)");
        session.sql("SELECT public.undistribute_table('m.t')");
        spy.assert_only(&[], "undistribute_table");
        assert_eq!(session.text("SELECT pg_catalog.count(*) FROM m.t"), "20");
        session.sql("SELECT public.create_distributed_table('m.t', 'k', 4)");
        spy.assert_only(&[], "create_distributed_table");
        session.sql("DROP TABLE m.t");
        spy.assert_only(&[], "DROP TABLE");
        session.sql("CREATE TABLE m.r (k int PRIMARY KEY); SELECT public.create_reference_table('m.r'); DROP TABLE m.r");
        spy.assert_only(&[], "create_reference_table");
    }
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_distribution_metadata.partition"), "1");
    assert_eq!(cluster.text("SELECT count(*) FROM pgs_distribution_metadata.shard"), "2");
}

/// The call that repairs a placement, for whoever may not read the metadata.
fn repair_of(spy: &Spy, shard: i64, placement: i64) -> String {
    spy.cluster.text(&format!(
        "SELECT format('SELECT public.master_copy_shard_placement(%s::pg_catalog.int8, %L, %s, %L, %s)', bad.shard_id, good.node_name, good.node_port, bad.node_name, bad.node_port) \
         FROM pgs_distribution_metadata.shard_placement AS bad \
         JOIN pgs_distribution_metadata.shard_placement AS good ON good.shard_id = bad.shard_id AND good.id <> bad.id \
         WHERE bad.id = {placement} AND bad.shard_id = {shard}"
    ))
}

/// A write that misses a placement is marked by a background worker, a superuser with the database's settings, which are
/// the database's owner's.
#[test]
fn the_marker_of_placements_obeys_no_setting_of_the_database() {
    let spy = Spy::up(2);
    shadow_everything(&spy);
    let cluster = &spy.cluster;
    cluster.sql("CREATE TABLE keep (k int PRIMARY KEY, v text)");
    cluster.distribute("keep", "k", 2, 2);
    cluster.sql("ALTER DATABASE postgres SET search_path = pg_catalog, m, public");
    let worker = cluster.workers()[0];
    cluster.stop(worker).expect("it runs");
    let mut session = cluster.new_session();
    session.sql("INSERT INTO public.keep SELECT pg_catalog.generate_series(1, 10)");
    cluster.start(worker).expect("it starts");
    spy.assert_only(&[], "marking placements");
    cluster.sql("ALTER DATABASE postgres RESET search_path");
    assert_eq!(cluster.unhealthy("keep"), 2);
}

/// `create_distributed_table` took 20 s where the client had switched joins off: our queries of the catalogs are planned
/// and read as in a fresh session.
#[test]
fn queries_of_catalogs_obey_no_setting_of_the_client() {
    let spy = Spy::up(1);
    let cluster = &spy.cluster;
    let table = "(k int PRIMARY KEY, d date DEFAULT '2026-12-01', b bytea DEFAULT '\\x01', i interval DEFAULT '1 day', \
                 t text CHECK (t <> 'a\\b'), f float8 DEFAULT 0.1, a text[] DEFAULT '{NULL}')";
    let shards = |name: &str| {
        let shard = cluster.text(&format!(
            "SELECT min(id) FROM pgs_distribution_metadata.shard WHERE relation_id = '{name}'::regclass"
        ));
        cluster
            .session_on(cluster.workers()[0])
            .text(&format!(
                "SELECT attname, format_type(atttypid, atttypmod), pg_get_expr(adbin, adrelid) FROM pg_attribute \
                 LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum \
                 WHERE attrelid = 'public.{name}_{shard}'::regclass AND attnum > 0 ORDER BY attnum"
            ))
    };
    cluster.sql(&format!(
        "CREATE TABLE plain {table}; SELECT create_distributed_table('plain', 'k', 1)"
    ));
    let mut session = cluster.new_session();
    session.sql(&format!("CREATE TABLE odd {table}"));
    session.sql(
        "SET enable_hashjoin = off; SET enable_nestloop = off; SET enable_mergejoin = off; SET enable_indexscan = off;
         SET jit = on; SET jit_above_cost = 0; SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601';
         SET bytea_output = 'escape'; SET standard_conforming_strings = off; SET array_nulls = off;
         SET quote_all_identifiers = on; SET extra_float_digits = -10; SET transform_null_equals = on;
         SET default_transaction_read_only = off; SET row_security = off; SET session_replication_role = replica;
         SELECT public.create_distributed_table('odd', 'k', 1)",
    );
    assert_eq!(shards("odd"), shards("plain"));
    assert_eq!(session.text("SHOW enable_hashjoin; SHOW bytea_output; SHOW search_path; SHOW session_replication_role"),
        "off\nescape\n\"$user\", public\nreplica");
    // Metadata are told to other sessions though this one fires no triggers.
    session.sql("INSERT INTO odd VALUES (1, DEFAULT, DEFAULT, DEFAULT, 'x')");
    assert_eq!(cluster.text("SELECT count(*) FROM odd"), "1");
    // Settings are back after an error as well, and so is the role.
    assert_eq!(
        session.error("SELECT public.create_distributed_table('odd', 'k', 1)").sqlstate,
        "55000"
    );
    assert_eq!(session.text("SHOW enable_hashjoin; SELECT current_user"), "off\npostgres");
}
