//! What nodes have been given for distributed tables goes there when it is dropped on the coordinator, and nothing else does.

use testkit::{NodeName, TestCluster};

const OBJECTS: &str = "CREATE ROLE maker; CREATE SCHEMA \"it's\" AUTHORIZATION maker; SET search_path = \"it's\", public; SET ROLE maker; \
    CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int, m mood); CREATE DOMAIN pos AS int CHECK (VALUE > 0); \
    CREATE TYPE span AS RANGE (subtype = float8); CREATE COLLATION plain (LOCALE = 'C'); \
    CREATE FUNCTION \"One\"(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i + 1'; \
    CREATE TABLE t (id int PRIMARY KEY, m mood, p pair, q pos, s span, c text COLLATE plain, CHECK (\"One\"(id) > 0)); RESET ROLE";

fn cluster() -> TestCluster {
    let cluster = TestCluster::up(2);
    let mut session = cluster.new_session();
    session.sql(OBJECTS);
    session.sql("SELECT create_distributed_table('t', 'id', 4)");
    // Roles follow to nodes that hold shards.
    session.sql("CREATE TABLE public.other (id int PRIMARY KEY)");
    session.sql("SELECT create_distributed_table('public.other', 'id', 4)");
    cluster
}

/// The names of what is there.
fn objects(cluster: &TestCluster, node: NodeName) -> String {
    let names = cluster.session_on(node).sql(
        "SELECT typname::text FROM pg_type WHERE typname IN ('mood', 'pair', 'pos', 'span') \
         UNION ALL SELECT proname FROM pg_proc WHERE proname = 'One' \
         UNION ALL SELECT collname FROM pg_collation WHERE collname = 'plain' \
         UNION ALL SELECT nspname FROM pg_namespace WHERE nspname = 'it''s' ORDER BY 1",
    );
    names.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// They stayed on the nodes, and DROP ROLE of their owner failed there.
#[test]
fn what_is_dropped_here_goes_on_the_nodes() {
    let cluster = cluster();
    let mut session = cluster.new_session();
    let all = "One it's mood pair plain pos span";
    cluster.workers().iter().for_each(|node| assert_eq!(objects(&cluster, *node), all, "{node}"));
    session.sql("SET search_path = \"it's\", public");
    session.sql("BEGIN; DROP TABLE t; DROP TYPE span; DROP FUNCTION \"One\"(int); ROLLBACK");
    assert_eq!(session.error("DROP TYPE mood").sqlstate, "2BP01");
    cluster.workers().iter().for_each(|node| assert_eq!(objects(&cluster, *node), all, "{node}"));
    session.sql("DROP TABLE t; DROP TYPE span; DROP FUNCTION \"One\"(int); DROP DOMAIN pos; DROP COLLATION plain");
    for node in cluster.workers() {
        assert_eq!(objects(&cluster, node), "it's mood pair", "{node}");
    }
    session.sql("DROP TYPE pair; DROP OWNED BY maker CASCADE");
    session.sql("DROP ROLE maker");
    for node in cluster.workers() {
        assert_eq!(objects(&cluster, node), "", "{node}");
        let roles = "SELECT count(*) FROM pg_roles WHERE rolname = 'maker'";
        assert_eq!(cluster.session_on(node).text(roles), "0");
    }
    assert_eq!(session.text("SELECT count(*) FROM pgs_catalog.placed_object"), "0");
}

#[test]
fn a_schema_takes_along_on_the_nodes_what_is_in_it() {
    let cluster = cluster();
    cluster.sql("DROP SCHEMA \"it's\" CASCADE; DROP ROLE maker");
    cluster.workers().iter().for_each(|node| assert_eq!(objects(&cluster, *node), "", "{node}"));
}

#[test]
fn what_others_have_made_or_use_on_a_node_stays() {
    let cluster = TestCluster::up(2);
    let (first, second) = (NodeName::Worker(1), NodeName::Worker(2));
    cluster.session_on(first).sql("CREATE TYPE public.mood AS ENUM ('sad', 'happy')");
    cluster.sql("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int); CREATE TABLE t (id int PRIMARY KEY, m mood, p pair)");
    cluster.distribute("t", "id", 4, 1);
    cluster.session_on(second).sql("CREATE TABLE public.own (p pair)");
    cluster.sql("DROP TABLE t; DROP TYPE mood; DROP TYPE pair");
    // What was there before is somebody's own, and a table of the second node's own has a column of the other.
    assert_eq!(objects(&cluster, first), "mood");
    assert_eq!(objects(&cluster, second), "pair");
}

#[test]
fn a_node_that_is_away_keeps_what_is_dropped() {
    let cluster = cluster();
    let mut session = cluster.new_session();
    session.sql("DROP TABLE \"it's\".t");
    cluster.kill(NodeName::Worker(2)).expect("the worker runs");
    session.sql("DROP TYPE \"it's\".span");
    let warnings = session.warnings();
    assert!(
        warnings.iter().any(|one| one.hint == "What is dropped here remains there."),
        "{warnings:?}"
    );
    assert!(!objects(&cluster, NodeName::Worker(1)).contains("span"));
    cluster.start(NodeName::Worker(2)).expect("the worker comes back");
    cluster.wait_for(NodeName::Worker(2));
    assert!(objects(&cluster, NodeName::Worker(2)).contains("span"));
}
