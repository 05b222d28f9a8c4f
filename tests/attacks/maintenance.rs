//! Maintenance of the attacker's tables by a superuser, or by nobody: her code in constraints, domains, indexes, generated columns
//! and statistics runs as she, as in PostgreSQL's own maintenance.

use crate::Spy;
use testkit::NodeName;

/// A table of the attacker's with her code wherever storing or looking at a row can call some.
const TABLE: &str = "
    CREATE DOMAIN m.dom AS text CHECK (m.spy(value) IS NOT NULL);
    CREATE TYPE m.comp AS (a int, d m.dom);
    CREATE FUNCTION m.cast_to(m.comp) RETURNS json LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM m.note(); RETURN null; END';
    CREATE CAST (m.comp AS json) WITH FUNCTION m.cast_to(m.comp)";

const DEFINITION: &str = "
    CREATE TABLE m.t (
        k int PRIMARY KEY,
        b text CHECK (m.spy(b) IS NOT NULL),
        d m.dom,
        a m.dom[],
        c m.comp,
        x text DEFAULT m.spy('x'::text),
        g text GENERATED ALWAYS AS (m.spy(b)) STORED,
        EXCLUDE USING hash (x WITH =) WHERE (m.spy(x) = 'never'));
    CREATE INDEX ON m.t (m.spy(b));
    CREATE INDEX ON m.t ((m.spy(1) + k));
    CREATE INDEX ON m.t (b) WHERE m.spy(b) = 'q' AND m.spy(2) = 2;
    CREATE STATISTICS m.s ON m.spy(b), k FROM m.t;
    INSERT INTO m.t (k, b, d, a, c) SELECT i, 'b' || i, 'd', '{x,y}', ROW(i, 'z')::m.comp FROM generate_series(1, 20) AS i";

fn up() -> Spy {
    let spy = Spy::up(2);
    spy.on_all_nodes_as_mallory(TABLE);
    spy.cluster.session_as("mallory").sql(DEFINITION);
    spy.assert_only(&["mallory"], "her own statements");
    spy
}

/// The rows, as they were.
fn assert_complete(spy: &Spy) {
    let rows = "SELECT count(*), min(d), max(a::text), max((c).d), max(g) FROM m.t";
    assert_eq!(spy.cluster.session_as("mallory").text(rows), "20|d|{x,y}|z|b9");
    spy.assert_only(&["mallory"], "her own statements");
}

/// A superuser distributed a table of somebody else's, and its CHECK, domains and index expressions ran on the nodes as he.
#[test]
fn a_table_is_distributed_and_brought_back_as_its_owner() {
    let spy = up();
    let cluster = &spy.cluster;
    cluster.sql("CREATE ROLE deputy LOGIN; GRANT mallory TO deputy");
    cluster.sql("SELECT create_distributed_table('m.t', 'k', 4, 2)");
    spy.assert_ran("create_distributed_table by a superuser");
    spy.assert_only(&["mallory"], "create_distributed_table by a superuser");
    assert_complete(&spy);
    cluster.sql("SELECT undistribute_table('m.t')");
    spy.assert_ran("undistribute_table by a superuser");
    spy.assert_only(&["mallory"], "undistribute_table by a superuser");
    assert_complete(&spy);
    // In a transaction, with a savepoint, and rolled back.
    let mut session = cluster.new_session();
    session.sql("BEGIN; SAVEPOINT a; SELECT create_distributed_table('m.t', 'k', 4, 1); ROLLBACK TO a; SELECT create_distributed_table('m.t', 'k', 2, 1); INSERT INTO m.seen VALUES ('mallory'); COMMIT");
    spy.assert_only(&["mallory"], "create_distributed_table in a transaction");
    assert_complete(&spy);
    session.sql("SELECT undistribute_table('m.t')");
    spy.assert_only(&["mallory"], "undistribute_table by a superuser");
    // A row that the owner's constraint refuses names the table.
    cluster.sql("SELECT create_distributed_table('m.t', 'k', 4, 2)");
    spy.assert_only(&["mallory"], "create_distributed_table by a superuser");
    cluster.sql("DROP TABLE m.t");
    spy.assert_only(&["mallory"], "DROP TABLE by a superuser");
}

/// The CHECK ran as the superuser who repaired a placement.
#[test]
fn a_placement_is_repaired_as_the_owner_of_its_table() {
    let spy = up();
    let cluster = &spy.cluster;
    cluster.session_as("mallory").sql("DELETE FROM m.t");
    cluster.sql("SELECT master_create_distributed_table('m.t', 'k')");
    cluster.sql("SELECT master_create_worker_shards('m.t', 2, 2)");
    spy.assert_only(&["mallory"], "creation of shards by a superuser");
    cluster.session_as("mallory").sql(
        "INSERT INTO m.t (k, b, d, a, c) SELECT i, 'b' || i, 'd', '{x,y}', ROW(i, 'z')::m.comp FROM generate_series(1, 20) AS i",
    );
    spy.assert_only(&["mallory"], "her own statements");
    // Rows that differ are sent; a placement that is gone is made anew.
    for damage in ["TRUNCATE", "DROP TABLE"] {
        for placement in cluster.placements("m.t").iter().filter(|placement| placement.id % 2 == 0)
        {
            let statement =
                format!("SET SESSION AUTHORIZATION mallory; {damage} m.t_{}", placement.shard);
            cluster.session_on(placement.node).sql(&statement);
        }
        cluster.sql(
            "UPDATE pgs_distribution_metadata.shard_placement SET shard_state = 3 WHERE id % 2 = 0",
        );
        spy.assert_only(&["mallory"], "the damage");
        assert_eq!(cluster.repair("m.t"), 2);
        let what = format!("repair by a superuser after {damage}");
        spy.assert_ran(&what);
        spy.assert_only(&["mallory"], &what);
        assert_complete(&spy);
        assert_eq!(cluster.unhealthy("m.t"), 0);
    }
    // A view in the place of the healthy shard is no shard.
    let placements = cluster.placements("m.t");
    let (good, bad) = (&placements[0], &placements[1]);
    cluster.sql(&format!(
        "UPDATE pgs_distribution_metadata.shard_placement SET shard_state = 3 WHERE id = {}",
        bad.id
    ));
    replace_by_view(&spy, good.node, good.shard);
    let repair = format!(
        "SELECT master_copy_shard_placement({}, 'localhost', {}, 'localhost', {})",
        good.shard,
        cluster.port(good.node),
        cluster.port(bad.node)
    );
    assert_eq!(cluster.error(&repair).message, "could not copy shard data");
    spy.assert_only(&["mallory"], "repair from a view");
    assert!(cluster.new_session().try_sql("SELECT undistribute_table('m.t')").is_err());
    spy.assert_only(&["mallory"], "undistribute_table from a view");
}

/// On a node the attacker puts a view over her code in a shard's place.
fn replace_by_view(spy: &Spy, node: NodeName, shard: i64) {
    spy.cluster.session_on(node).sql(&format!(
        "SET SESSION AUTHORIZATION mallory; ALTER TABLE m.t_{shard} RENAME TO kept_{shard};
         CREATE VIEW m.t_{shard} AS SELECT k, m.spy(b) AS b, d, a, c, x, g FROM m.kept_{shard}"
    ));
}

/// ANALYZE computes statistics of a sample, which is read from the nodes by domains' input functions, and of expressions.
#[test]
fn statistics_are_collected_as_the_owner() {
    let spy = up();
    let cluster = &spy.cluster;
    cluster.session_as("mallory").sql("SELECT public.create_distributed_table('m.t', 'k', 2, 1)");
    spy.assert_only(&["mallory"], "her own statements");
    for statement in ["ANALYZE m.t", "VACUUM ANALYZE m.t", "ANALYZE", "VACUUM FULL m.t"] {
        cluster.sql(statement);
        spy.assert_only(&["mallory"], statement);
    }
    assert_eq!(
        cluster
            .text("SELECT count(*) > 3 FROM pg_stats WHERE schemaname = 'm' AND tablename = 't'"),
        "t"
    );
    let shard = cluster.placements("m.t")[0].clone();
    replace_by_view(&spy, shard.node, shard.shard);
    let mut session = cluster.new_session();
    // It may fail, but not run her code.
    let _ = session.try_sql("ANALYZE m.t");
    spy.assert_only(&["mallory"], "ANALYZE of a view");
}

/// The keeper of statistics is a superuser's background worker.
#[test]
fn the_keeper_of_statistics_runs_nothing_of_users_as_superuser() {
    let spy = Spy::up_with(2, &[("pg_shard.autoanalyze_naptime", "1s")]);
    spy.on_all_nodes_as_mallory(TABLE);
    let cluster = &spy.cluster;
    cluster.session_as("mallory").sql(DEFINITION);
    for (role, login) in [("mallory", "LOGIN"), ("nobody", "NOLOGIN")] {
        if role == "nobody" {
            cluster.on_all_nodes("CREATE ROLE nobody NOLOGIN; GRANT ALL ON SCHEMA m TO nobody; GRANT nobody TO mallory");
            cluster.sql("ALTER TABLE m.t OWNER TO nobody");
        }
        spy.assert_only(&["mallory"], "her own statements");
        cluster.sql("SELECT create_distributed_table('m.t', 'k', 2, 1)");
        spy.assert_only(&[role, "mallory"], "create_distributed_table");
        cluster.sql("ALTER DATABASE postgres SET search_path = m, pg_catalog, public");
        cluster.session_as("mallory").sql(
            "INSERT INTO m.t (k, b, d, a, c) SELECT i, 'b' || i, 'd', '{x,y}', ROW(i, 'z')::m.comp FROM generate_series(21, 2000) AS i",
        );
        testkit::wait_until("the keeper has come", || {
            cluster.text("SELECT pg_catalog.max(reltuples) > 1000 FROM pg_catalog.pg_class WHERE oid = 'm.t'::pg_catalog.regclass") == "t"
        });
        spy.assert_only(&[role, "mallory"], login);
        cluster.sql("ALTER DATABASE postgres RESET search_path");
        cluster.session_as("mallory").sql("DELETE FROM m.t WHERE k > 20");
        cluster.sql("SELECT public.undistribute_table('m.t')");
        spy.assert_only(&[role, "mallory"], "undistribute_table");
    }
}

/// What has the nodes act as an owner lends no right and is not ended by what runs meanwhile.
#[test]
fn acting_as_the_owner_gives_nobody_anything() {
    let spy = Spy::up(1);
    let cluster = &spy.cluster;
    cluster.on_all_nodes(
        "CREATE TABLE treasure (x int); CREATE ROLE deputy LOGIN; GRANT mallory TO deputy",
    );
    cluster.sql("CREATE TABLE t (k int); SELECT create_distributed_table('t', 'k', 1)");
    let worker = cluster.workers()[0];
    spy.on_all_nodes_as_mallory("CREATE TABLE m.own (x text CHECK (m.spy(x) IS NOT NULL))");
    let mut session = cluster.session_on(worker);
    let act = "SELECT pgs_catalog.act_as_owner('m.own')";
    session.sql("SET SESSION AUTHORIZATION mallory");
    assert_eq!(
        session.error("BEGIN; SAVEPOINT a; SELECT pgs_catalog.act_as_owner('treasure')").sqlstate,
        "42501"
    );
    session.sql("ROLLBACK");
    session.sql("SET SESSION AUTHORIZATION deputy");
    assert_eq!(session.error(act).sqlstate, "25001");
    session.sql(&format!("BEGIN; SAVEPOINT a; {act}"));
    assert_eq!(session.text("SELECT current_user"), "mallory");
    session.sql("INSERT INTO m.own VALUES ('x')");
    session.sql("RELEASE a");
    assert_eq!(session.text("SELECT current_user"), "deputy");
    session.sql(&format!("SAVEPOINT b; {act}; SET search_path = m; ROLLBACK TO b"));
    assert_eq!(session.text("SELECT current_user; SHOW search_path"), "deputy\n\"$user\", public");
    session.sql(&format!("SAVEPOINT c; {act}; SET search_path = m; COMMIT"));
    assert_eq!(session.text("SELECT current_user; SHOW search_path"), "deputy\n\"$user\", public");
    session.sql(&format!("BEGIN; SAVEPOINT d; {act}"));
    assert_eq!(session.error("SET ROLE deputy").sqlstate, "42501");
    session.sql("ROLLBACK");
    // Below a function with another identity it is refused: the caller would come back as that one.
    cluster.session_on(worker).sql(
        "CREATE FUNCTION lends() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'SELECT pgs_catalog.act_as_owner(''m.own'')'",
    );
    assert_eq!(session.error("BEGIN; SAVEPOINT e; SELECT lends()").sqlstate, "25001");
    session.sql("ROLLBACK");
    assert_eq!(session.text("SELECT current_user"), "deputy");
    spy.assert_only(&["mallory"], "acting as the owner");
}
