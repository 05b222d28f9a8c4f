//! Roles, memberships and settings of roles follow to the nodes, and nobody gains a right there by it.

use testkit::{NodeName, TestCluster};

/// All that is followed, without the order in which settings were made.
const DESCRIBE: &str = "SELECT pg_catalog.concat_ws(' ', a.rolname, a.rolsuper, a.rolinherit, a.rolcreaterole, a.rolcreatedb, a.rolcanlogin, \
           a.rolreplication, a.rolbypassrls, a.rolconnlimit, a.rolvaliduntil, a.rolpassword) AS line FROM pg_authid a WHERE a.oid >= 16384 \
    UNION ALL SELECT concat_ws(' ', 'member', m.roleid::regrole, m.member::regrole, m.admin_option, \
                               to_jsonb(m) ->> 'inherit_option', to_jsonb(m) ->> 'set_option') \
              FROM pg_auth_members m WHERE m.roleid >= 16384 OR m.member >= 16384 \
    UNION ALL SELECT concat_ws(' ', 'setting', s.setrole::regrole, d.datname, c.setting) \
              FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS c(setting) LEFT JOIN pg_database d ON d.oid = s.setdatabase \
    ORDER BY 1";

const STATEMENTS: [&str; 29] = [
    "CREATE ROLE crew",
    "CREATE USER \"An n\" PASSWORD 'secret''s' VALID UNTIL '2040-01-01 00:00:00.5+02' CONNECTION LIMIT 7",
    "CREATE GROUP g USER \"An n\"",
    "CREATE ROLE boss LOGIN CREATEROLE IN ROLE crew, pg_monitor ROLE \"An n\" ADMIN g",
    "ALTER ROLE boss CREATEDB NOLOGIN NOINHERIT",
    "ALTER ROLE \"An n\" PASSWORD 'other' VALID UNTIL 'infinity'",
    "ALTER ROLE \"An n\" PASSWORD NULL CONNECTION LIMIT -1",
    "ALTER ROLE boss RENAME TO chief",
    "ALTER ROLE boss2 RENAME TO \"the \"\"chief\"",
    "GRANT chief TO crew2 WITH ADMIN OPTION",
    "GRANT crew2, pg_read_all_data TO \"An n\"",
    "REVOKE ADMIN OPTION FOR chief FROM crew2",
    "REVOKE chief FROM crew2",
    "REVOKE pg_read_all_data FROM \"An n\"",
    "ALTER GROUP g ADD USER crew2",
    "ALTER GROUP g DROP USER \"An n\"",
    "ALTER ROLE chief SET search_path = \"$user\", \"a,\"\"b\", public",
    "ALTER ROLE chief SET app.tenant = 'it''s'",
    "ALTER ROLE chief IN DATABASE postgres SET work_mem = '5MB'",
    "ALTER ROLE chief SET work_mem = '6MB'",
    "ALTER ROLE chief RESET app.tenant",
    "ALTER ROLE chief RESET ALL",
    "ALTER ROLE ALL SET app.every = '1'",
    "ALTER DATABASE postgres SET app.here = '2'",
    "ALTER DATABASE postgres RESET app.here",
    "ALTER ROLE ALL RESET ALL",
    "DO 'BEGIN CREATE ROLE in_block; ALTER ROLE in_block SUPERUSER; END'",
    "DROP ROLE in_block",
    "DROP ROLE chief, \"An n\"",
];

fn cluster_with_table() -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster.sql("CREATE TABLE t (id int PRIMARY KEY, v int)");
    cluster.distribute("t", "id", 4, 1);
    cluster
}

fn describe(cluster: &TestCluster, node: NodeName) -> String {
    cluster.session_on(node).text(DESCRIBE)
}

const WORKERS: [NodeName; 2] = [NodeName::Worker(1), NodeName::Worker(2)];

/// CREATE ROLE and the like changed the coordinator only, and a role that the nodes lacked could not use a distributed table.
#[test]
fn roles_change_on_all_nodes_or_on_none() {
    let cluster = cluster_with_table();
    cluster.sql("CREATE ROLE boss2; CREATE ROLE crew2");
    let mut session = cluster.new_session();
    for statement in STATEMENTS {
        let before = describe(&cluster, NodeName::Coordinator);
        session.sql("BEGIN");
        session.sql(statement);
        session.sql("ROLLBACK; BEGIN; SAVEPOINT s");
        session.sql(statement);
        session.sql("ROLLBACK TO s; COMMIT");
        for node in WORKERS {
            assert_eq!(describe(&cluster, node), before, "{statement} was not undone on {node:?}");
        }
        session.sql(statement);
        let after = describe(&cluster, NodeName::Coordinator);
        assert_ne!(before, after, "{statement} changes nothing");
        for node in WORKERS {
            assert_eq!(describe(&cluster, node), after, "{statement} on {node:?}");
        }
    }
}

/// Whoever was there before the first table is there when the table comes, also on a node that gets a shard later.
#[test]
fn a_node_gets_roles_with_its_first_shard() {
    let cluster = TestCluster::up(2);
    cluster.sql(
        "CREATE ROLE crew; CREATE ROLE ann LOGIN PASSWORD 'secret' IN ROLE crew; ALTER ROLE ann SET app.tenant = '7'; \
         CREATE ROLE reader LOGIN; CREATE TABLE t (id int PRIMARY KEY, v int); ALTER TABLE t OWNER TO crew; \
         GRANT SELECT ON t TO reader; CREATE POLICY p ON t TO ann USING (true)",
    );
    cluster.on_workers("CREATE ROLE reader LOGIN CREATEDB");
    cluster.distribute("t", "id", 1, 1);
    let placement = cluster.placements("t").remove(0);
    let other = WORKERS.into_iter().find(|node| *node != placement.node).expect("there are two");
    assert!(!describe(&cluster, other).contains("ann"), "it has no shard yet");
    cluster.session_as("ann").sql("INSERT INTO t VALUES (1, 1)");
    assert_eq!(cluster.session_as("reader").text("SELECT * FROM t"), "1|1");
    cluster.sql("CREATE ROLE later LOGIN");
    cluster.sql(&format!(
        "SELECT pgs_catalog.move_shard({}, 'localhost', {}, 'localhost', {})",
        placement.shard,
        cluster.port(placement.node),
        cluster.port(other)
    ));
    let mut expected = describe(&cluster, NodeName::Coordinator);
    // What a node has under the name stays as it is.
    expected = expected.replace("reader f t f f t", "reader f t f t t");
    assert_eq!(describe(&cluster, other), expected);
    cluster.session_as("ann").sql("UPDATE t SET v = 2");
    assert_eq!(cluster.session_as("reader").text("SELECT * FROM t"), "1|2");
}

/// A table's rights are its shards' rights, so default privileges hold for shards as well.
#[test]
fn default_privileges_reach_the_shards() {
    let cluster = cluster_with_table();
    cluster.sql(
        "CREATE ROLE reader LOGIN; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader; \
         CREATE TABLE u (id int PRIMARY KEY); CREATE TABLE w (id int PRIMARY KEY); REVOKE ALL ON w FROM reader",
    );
    cluster.distribute("u", "id", 2, 1);
    cluster.distribute("w", "id", 2, 1);
    let mut reader = cluster.session_as("reader");
    assert_eq!(reader.text("SELECT count(*) FROM u"), "0");
    assert_eq!(reader.error("SELECT count(*) FROM w").sqlstate, "42501");
    for node in WORKERS {
        let shard = cluster.tables_on(node, "w_%").remove(0);
        let right = format!("SELECT has_table_privilege('reader', '{shard}', 'SELECT')");
        assert_eq!(cluster.session_on(node).text(&right), "f");
    }
}

/// A role that a node has under a name has rights there that nobody here has given it. Whoever may create roles here must not get at
/// it by creating one of that name, by renaming one, or by giving one away; nor at hashes of passwords.
#[test]
fn who_may_create_roles_gains_nothing_on_nodes() {
    let cluster = cluster_with_table();
    cluster
        .sql("CREATE ROLE maker LOGIN CREATEROLE; CREATE ROLE secretive LOGIN PASSWORD 'secret'");
    cluster.on_workers("CREATE ROLE mighty LOGIN CREATEDB; GRANT pg_read_all_data TO mighty; CREATE ROLE almighty SUPERUSER LOGIN");
    let mut maker = cluster.session_as("maker");
    let before = WORKERS.map(|node| describe(&cluster, node));
    for role in ["mighty", "almighty"] {
        let error = maker.error(&format!("CREATE ROLE {role} LOGIN"));
        assert_eq!(error.line(), format!("42710: role \"{role}\" already exists"));
        assert!(error.context.contains("on node"), "{error}");
        maker.sql("BEGIN; SAVEPOINT s");
        assert_eq!(maker.error(&format!("CREATE ROLE {role} LOGIN")).sqlstate, "42710");
        maker.sql("ROLLBACK");
    }
    // This one is missing on the nodes.
    cluster.sql("SET pg_shard.propagate_roles = off; CREATE ROLE unknown LOGIN");
    cluster.reconnect();
    if cluster.is_older_than(16) {
        let error = maker.error("ALTER ROLE unknown RENAME TO mighty");
        assert_eq!(error.line(), "42710: role \"mighty\" already exists");
        maker.sql("ALTER ROLE unknown PASSWORD 'x'; ALTER ROLE unknown SET work_mem = '5MB'; GRANT pg_monitor TO unknown");
    }
    assert_eq!(maker.error("ALTER ROLE maker SUPERUSER").sqlstate, "42501");
    assert_eq!(maker.error("SET pg_shard.propagate_roles = off").sqlstate, "42501");
    assert_eq!(WORKERS.map(|node| describe(&cluster, node)), before);
}

/// Where a node is away, or does not let the client change it, nothing changes at all.
#[test]
fn roles_stay_as_they_are_if_a_node_cannot_follow() {
    let cluster = cluster_with_table();
    cluster.sql("CREATE ROLE maker LOGIN CREATEROLE; CREATE ROLE owner");
    cluster
        .session_on(WORKERS[1])
        .sql("ALTER ROLE maker NOCREATEROLE; CREATE TABLE own (); ALTER TABLE own OWNER TO owner");
    let before = describe(&cluster, NodeName::Coordinator);
    let error = cluster.session_as("maker").error("CREATE ROLE another");
    assert_eq!(error.sqlstate, "42501");
    assert!(error.context.contains(&cluster.port(WORKERS[1]).to_string()), "{error}");
    assert!(error.hint.contains("pg_shard.propagate_roles"), "{error}");
    let error = cluster.error("DROP ROLE owner");
    assert_eq!(error.sqlstate, "2BP01");
    assert!(error.context.contains(&cluster.port(WORKERS[1]).to_string()), "{error}");
    cluster.kill(WORKERS[1]).expect("the worker runs");
    let error = cluster.error("CREATE ROLE another");
    assert!(error.message.contains(&cluster.port(WORKERS[1]).to_string()), "{error}");
    assert!(error.hint.contains("All nodes with shards must take part"), "{error}");
    assert_eq!(describe(&cluster, NodeName::Coordinator), before);
    assert!(!describe(&cluster, WORKERS[0]).contains("another"));
    cluster.sql("SET pg_shard.propagate_roles = off; CREATE ROLE another");
}
