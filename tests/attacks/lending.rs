//! Rights that a coordinator lends to a session of a node: nobody takes them who has not been given them, or keeps them.
//!
//! The session is the attacker's own, in which she has left whatever she can, or the victim's, in which she has code that runs.

use crate::Spy;
use crate::crashes::SEALED;
use testkit::{NodeName, Session};

/// A role `victim`, which cannot log in, with a distributed table and functions that everybody may call; and `caller`, which can.
fn with_victim() -> Spy {
    let spy = Spy::up(2);
    let cluster = &spy.cluster;
    cluster.on_all_nodes(
        "CREATE ROLE victim NOLOGIN; CREATE ROLE caller LOGIN; CREATE SCHEMA vault AUTHORIZATION victim; \
         GRANT CREATE ON SCHEMA public TO victim",
    );
    cluster.sql("CREATE TABLE vault.gold (k int PRIMARY KEY, b text, n int)");
    cluster.distribute("vault.gold", "k", 4, 1);
    cluster.sql("INSERT INTO vault.gold SELECT i, 'b' || i, i FROM generate_series(1, 12) AS i");
    cluster.sql(
        "CREATE FUNCTION peek(int) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN RETURN (SELECT n + 1 FROM vault.gold WHERE k = $1 AND b || 'x' <> 'c' AND n = ANY (ARRAY[n, 5])); END $$;
         CREATE FUNCTION count_gold() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS
             $$ SELECT count(*) FROM vault.gold WHERE n + 0 > 0 AND b LIKE 'b%' $$;
         CREATE FUNCTION put(int, text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN
             INSERT INTO vault.gold VALUES ($1, $2, 1) ON CONFLICT (k) DO UPDATE SET b = excluded.b || 'y', n = gold.n + 1;
             UPDATE vault.gold SET n = n * 2 WHERE k = $1 AND b = $2 || 'y';
         END $$;
         CREATE VIEW public.window_of_vault AS SELECT k, b, n FROM vault.gold WHERE n > 0 AND b <> '';
         ALTER TABLE vault.gold OWNER TO victim; ALTER FUNCTION peek OWNER TO victim; ALTER FUNCTION count_gold OWNER TO victim;
         ALTER FUNCTION put OWNER TO victim; ALTER VIEW window_of_vault OWNER TO victim;
         GRANT ALL ON window_of_vault TO PUBLIC",
    );
    spy
}

/// What runs with lent rights.
const CALLS: [&str; 6] = [
    "SELECT peek(3)",
    "SELECT count_gold()",
    "SELECT put(3, 'a\\'' || k) FROM (VALUES (1)) AS t(k)",
    "SELECT count(*) FROM window_of_vault WHERE n + 1 > 2",
    "SELECT b FROM window_of_vault WHERE k = 3 AND n = 3",
    "UPDATE window_of_vault SET b = b || 'z' WHERE k = 4",
];

/// The attacker's own code leaves behind in her session to the node whatever might change the meaning of what is executed there with
/// lent rights: settings, operators, prepared statements, temporary objects, cursors.
#[test]
fn what_a_role_leaves_in_its_session_is_not_met_with_lent_rights() {
    let spy = with_victim();
    spy.on_all_nodes_as_mallory(
        "CREATE FUNCTION m.no(int, int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM m.note(); RETURN true; END';
         CREATE FUNCTION m.no(text, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM m.note(); RETURN true; END';
         CREATE FUNCTION m.sum(int, int) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM m.note(); RETURN 1; END';
         CREATE FUNCTION m.glue(text, text) RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM m.note(); RETURN $1; END';
         CREATE OPERATOR m.= (leftarg = int, rightarg = int, function = m.no);
         CREATE OPERATOR m.> (leftarg = int, rightarg = int, function = m.no);
         CREATE OPERATOR m.<> (leftarg = text, rightarg = text, function = m.no);
         CREATE OPERATOR m.~~ (leftarg = text, rightarg = text, function = m.no);
         CREATE OPERATOR m.= (leftarg = text, rightarg = text, function = m.no);
         CREATE OPERATOR m.+ (leftarg = int, rightarg = int, function = m.sum);
         CREATE OPERATOR m.* (leftarg = int, rightarg = int, function = m.sum);
         CREATE OPERATOR m.|| (leftarg = text, rightarg = text, function = m.glue)",
    );
    spy.on_all_nodes_as_mallory(
        "CREATE FUNCTION m.poison(kind int) RETURNS boolean LANGUAGE plpgsql AS $$
         DECLARE arguments text[] := ARRAY['', '(int)', '(int, int)', '(int, text)', '(text)', '(text, int)', '(int, text, int)'];
         BEGIN
             IF kind < 10 THEN
                 PERFORM set_config('search_path', 'm, pg_temp, pg_catalog', false);
                 PERFORM set_config('standard_conforming_strings', 'off', false);
                 PERFORM set_config('backslash_quote', 'on', false);
                 PERFORM set_config('array_nulls', 'off', false);
                 PERFORM set_config('transform_null_equals', 'on', false);
                 PERFORM set_config('DateStyle', 'German', false);
                 PERFORM set_config('row_security', 'off', false);
             ELSE
                 DEALLOCATE ALL;
                 FOR n IN 0..120 LOOP
                     EXECUTE format('PREPARE s%s%s AS SELECT m.spy(1)', n, arguments[kind - 9]);
                 END LOOP;
             END IF;
             RETURN true;
         END $$",
    );
    let cluster = &spy.cluster;
    let mut session = cluster.session_as("mallory");
    session.sql(
        "CREATE TABLE m.own (k int, kind int CHECK (m.poison(kind))); \
         SELECT master_create_distributed_table('m.own', 'k'); SELECT master_create_worker_shards('m.own', 4, 1)",
    );
    for kind in [1, 10, 11, 12, 13, 14, 15, 16] {
        let mut session = cluster.session_as("mallory");
        for round in 0..2 {
            for call in CALLS {
                // A session that its own role has spoilt may fail, and nothing else.
                let _ = session.try_sql(call);
                spy.assert_only(&["mallory"], &format!("{call} after {kind}, round {round}"));
            }
            for k in 1..9 {
                let _ = session.try_sql(&format!("INSERT INTO m.own VALUES ({k}, {kind})"));
            }
        }
    }
    assert_eq!(cluster.text("SELECT count(*) FROM vault.gold"), "12");
}

/// The attacker's code runs with the rights that are lent, since the victim calls it. It gets no further: not to the role whose
/// session it is, not to anybody else's.
#[test]
fn code_that_runs_with_lent_rights_does_not_reach_those_of_the_session() {
    let spy = with_victim();
    spy.on_all_nodes_as_mallory(
        "CREATE FUNCTION m.climb(k int) RETURNS boolean LANGUAGE plpgsql AS $$
         DECLARE
             c refcursor;
             step text;
         BEGIN
             FOREACH step IN ARRAY ARRAY['SELECT pgs_catalog.end_acting()', 'RESET ROLE', 'SET ROLE NONE', 'SET ROLE caller', 'SET ROLE postgres',
                 'RESET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION caller', 'DISCARD ALL', 'COMMIT', 'ROLLBACK',
                 'SELECT set_config(''role'', ''caller'', false)', 'SELECT set_config(''role'', ''none'', true)', 'SET LOCAL role = none',
                 'SELECT pgs_catalog.act_as_owner(''m.own_of_caller''::regclass)'] LOOP
                 BEGIN EXECUTE step; EXCEPTION WHEN OTHERS THEN NULL; END;
                 PERFORM m.note();
             END LOOP;
             BEGIN
                 c := '';
                 OPEN c FOR EXECUTE 'SELECT pgs_catalog.end_acting()';
                 FETCH c INTO step;
             EXCEPTION WHEN OTHERS THEN NULL;
             END;
             PERFORM m.note();
             RETURN true;
         END $$",
    );
    let cluster = &spy.cluster;
    let mut mallory = cluster.session_as("mallory");
    mallory.sql(
        "CREATE TABLE m.trap (k int CHECK (m.climb(k))); GRANT ALL ON m.trap TO PUBLIC; \
         SELECT master_create_distributed_table('m.trap', 'k'); SELECT master_create_worker_shards('m.trap', 4, 1)",
    );
    cluster.sql(
        "CREATE FUNCTION walk_into(int) RETURNS void LANGUAGE sql SECURITY DEFINER AS 'INSERT INTO m.trap VALUES ($1)';
         CREATE FUNCTION walk_into_many() RETURNS void LANGUAGE sql SECURITY DEFINER AS
             'INSERT INTO m.trap SELECT i FROM generate_series(1, 20) AS i';
         ALTER FUNCTION walk_into OWNER TO victim; ALTER FUNCTION walk_into_many OWNER TO victim",
    );
    for role in ["caller", "postgres"] {
        let mut session = cluster.session_as(role);
        for call in ["SELECT walk_into(1)", "SELECT walk_into(1)", "SELECT walk_into_many()"] {
            session.sql(call);
            spy.assert_only(&["victim"], &format!("{role}: {call}"));
            session.sql(&format!("BEGIN; SAVEPOINT s; {call}; ROLLBACK TO s; {call}; COMMIT"));
            spy.assert_only(&["victim"], &format!("{role}: {call} in a savepoint"));
        }
    }
    // The session is again its own role's.
    let mut caller = cluster.session_as("caller");
    caller.sql("SELECT walk_into(1)");
    let error = caller.error("BEGIN; SELECT walk_into(1); SELECT count(*) FROM vault.gold");
    assert_eq!(error.sqlstate, "42501");
}

/// A word of a coordinator holds in one session, once, and as a command of the client only.
#[test]
fn a_proof_is_worth_nothing_elsewhere_or_twice() {
    let spy = with_victim();
    let cluster = &spy.cluster;
    cluster.on_all_nodes(SEALED);
    let mut first = worker_session_of_mallory(cluster);
    let mut second = worker_session_of_mallory(cluster);
    let number = first.text("SELECT pgs_catalog.lending_session()");
    assert_ne!(number, second.text("SELECT pgs_catalog.lending_session()"));
    let word = |session: &mut Session, number: &str, count: u32| {
        session.text(&format!(
            "SELECT sealed('act as another role', '', '{number} {count} 0 - 6 victim')"
        ))
    };
    let user = "SELECT current_user || ' ' || session_user";

    // The right one, to see that the wrong ones are refused for what is wrong with them.
    let good = word(&mut second, &number, 5);
    assert_eq!(lend(&mut second, &good), "42501", "another session");
    assert_eq!(
        first
            .error(&format!("SELECT pgs_catalog.begin_acting(E'{}')", good.replace('\n', "\\n")))
            .sqlstate,
        "42501"
    );
    let in_function = format!(
        "DO $$ BEGIN PERFORM pgs_catalog.begin_acting(E'{}'); END $$",
        good.replace('\n', "\\n")
    );
    assert_eq!(first.error(&in_function).sqlstate, "42501", "in a function");
    let in_cursor = format!(
        "DO $$ DECLARE c refcursor; r record; BEGIN OPEN c FOR EXECUTE 'SELECT pgs_catalog.begin_acting($1)' USING E'{}'; FETCH c INTO r; END $$",
        good.replace('\n', "\\n")
    );
    assert_eq!(first.error(&in_cursor).sqlstate, "42501", "in a cursor");
    first.sql("BEGIN");
    assert_eq!(lend(&mut first, &good), "");
    assert_eq!(first.text(user), "victim mallory");
    let next = word(&mut second, &number, 6);
    assert_eq!(lend(&mut first, &next), "25001", "while rights are lent");
    first.sql("ROLLBACK");
    assert_eq!(first.text(user), "mallory mallory");

    assert_eq!(lend(&mut first, &good), "42501", "twice");
    let before = word(&mut second, &number, 4);
    assert_eq!(lend(&mut first, &before), "42501", "out of order");
    let other = second.text(&format!("SELECT sealed('fetch rows', '', '{number} 9 0 - 6 victim')"));
    assert_eq!(lend(&mut first, &other), "42501", "another purpose");
    let nobody =
        first.text(&format!("SELECT sealed('act as another role', '', '{number} 7 0 - 6 nobody')"));
    assert_eq!(lend(&mut first, &nobody), "42704");
    assert_eq!(first.text(user), "mallory mallory");

    // Rights that are not given back do not outlive the transaction, nor a savepoint, and nothing commits with them.
    first.sql("BEGIN; SAVEPOINT s");
    let good = word(&mut second, &number, 10);
    assert_eq!(lend(&mut first, &good), "");
    first.sql("ROLLBACK TO s");
    assert_eq!(first.text(user), "mallory mallory");
    let good = word(&mut second, &number, 11);
    assert_eq!(lend(&mut first, &good), "");
    first.error("COMMIT");
    assert_eq!(first.text(user), "mallory mallory");
    assert_eq!(first.error("SELECT pgs_catalog.end_acting()").sqlstate, "25001");
}

fn worker_session_of_mallory(cluster: &testkit::TestCluster) -> Session {
    let mut session = cluster.session_on(NodeName::Worker(1));
    session.sql("SET SESSION AUTHORIZATION mallory");
    session
}

/// Gives a session the word as a coordinator does; the SQLSTATE of its refusal.
fn lend(session: &mut Session, word: &str) -> String {
    let client = session.client();
    let given = client.query("SELECT pgs_catalog.begin_acting($1)", &[&word]);
    given
        .err()
        .and_then(|error| error.code().map(|code| code.code().to_owned()))
        .unwrap_or_default()
}
