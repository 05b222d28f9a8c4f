//! What a transaction has written is seen by whoever reads in it, also with the rights of another owner, or the read is refused.

use crate::{same_on_both, with_roles};
use testkit::TestCluster;

/// Views and functions over both tables, all of a role that cannot log in and of which nobody is a member.
fn with_objects_of_another_owner() -> TestCluster {
    let cluster = with_roles(2);
    for table in ["plain", "sharded"] {
        cluster.sql(&format!(
            "CREATE VIEW {table}_view AS SELECT k, tenant, v FROM {table};
             CREATE VIEW {table}_totals AS SELECT tenant, count(*) AS n, sum(v) AS v FROM {table} GROUP BY tenant;
             CREATE FUNCTION {table}_add(int) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN
                 INSERT INTO {table} VALUES ($1, 'f', 1);
                 RETURN current_user || ' ' || session_user || ' ' || (SELECT count(*) FROM {table});
             END $$;
             CREATE FUNCTION {table}_count() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER AS
                 'SELECT count(*) FROM {table}';
             CREATE FUNCTION {table}_fill(int, int) RETURNS void LANGUAGE sql SECURITY DEFINER AS
                 'INSERT INTO {table} SELECT i, ''f'', i FROM generate_series($1, $2) AS i';
             CREATE FUNCTION {table}_clear() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
                 'BEGIN DELETE FROM {table} WHERE v > 3; UPDATE {table} SET v = v + 1; END';
             ALTER VIEW {table}_view OWNER TO owner_of_views; ALTER VIEW {table}_totals OWNER TO owner_of_views;
             ALTER FUNCTION {table}_add OWNER TO owner_of_views; ALTER FUNCTION {table}_count OWNER TO owner_of_views;
             ALTER FUNCTION {table}_fill OWNER TO owner_of_views; ALTER FUNCTION {table}_clear OWNER TO owner_of_views;
             GRANT ALL ON {table}_view, {table}_totals TO web_user"
        ));
    }
    cluster
}

/// A view of another owner was read in a session of its owner's, which did not see what the reader's transaction had written: the
/// answer was wrong. Now its owner's rights are lent to the reader's session.
#[test]
fn views_of_another_owner_see_what_the_transaction_has_written() {
    let cluster = with_objects_of_another_owner();
    same_on_both(
        &cluster,
        "authenticator",
        &[
            "SET ROLE web_user",
            "SELECT count(*), current_user FROM {t}_view",
            "SELECT * FROM {t}_view WHERE k = 4",
            "BEGIN",
            "INSERT INTO {t} SELECT i, 'a', i FROM generate_series(101, 110) AS i",
            "SELECT count(*), current_user FROM {t}_view",
            "SELECT * FROM {t}_totals ORDER BY 1",
            "SELECT * FROM {t}_view WHERE k = 105",
            "UPDATE {t}_view SET v = v + 1 WHERE k = 105",
            "UPDATE {t}_view SET v = v + 1 WHERE k > 100",
            "SELECT t.v, w.v FROM {t} AS t JOIN {t}_view AS w USING (k) WHERE k > 100 ORDER BY k",
            "SELECT t.v, w.v FROM {t} AS t JOIN {t}_view AS w ON t.k = w.v WHERE w.k > 15 ORDER BY t.k",
            "INSERT INTO {t}_view SELECT i, 'v', i FROM generate_series(201, 230) AS i",
            "INSERT INTO {t}_view VALUES (301, 'v', 1), (302, 'v', 1) RETURNING k, current_user",
            "SELECT count(*) FROM {t}",
            "SAVEPOINT s",
            "DELETE FROM {t}_view WHERE k > 200",
            "SELECT count(*) FROM {t}",
            "ROLLBACK TO s",
            "SELECT count(*), current_user FROM {t}",
            "SELECT count(*), current_user FROM {t}_view",
            "DELETE FROM {t}_view WHERE k = 301 RETURNING k",
            "INSERT INTO {t}_view VALUES (1, 'x', 0)",
            "SELECT 1",
            "ROLLBACK",
            "SELECT count(*), current_user FROM {t}",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "SELECT count(*) FROM {t}_view",
            "INSERT INTO {t} VALUES (400, 'a', 1)",
            "SELECT count(*) FROM {t}_view",
            "COMMIT",
            "SELECT count(*) FROM {t}_view",
            "DELETE FROM {t}_view WHERE k = 400",
        ],
    );
}

/// The same for functions that are SECURITY DEFINER, and the other way round: their caller sees what they have written.
#[test]
fn functions_of_another_owner_and_their_caller_see_what_the_other_has_written() {
    let cluster = with_objects_of_another_owner();
    same_on_both(
        &cluster,
        "authenticator",
        &[
            "SET ROLE web_user",
            "SELECT {t}_count()",
            "SELECT {t}_add(100)",
            "SELECT {t}_add(100)",
            "SELECT count(*), current_user FROM {t}",
            "BEGIN",
            "INSERT INTO {t} VALUES (101, 'a', 1)",
            "SELECT {t}_count()",
            "SELECT {t}_add(102)",
            "SELECT count(*), current_user FROM {t}",
            "SELECT v FROM {t} WHERE k = 102",
            "SELECT k, {t}_count() FROM {t} WHERE k > 99 ORDER BY k",
            "SELECT {t}_fill(500, 600)",
            "SELECT count(*) FROM {t}",
            "SAVEPOINT s",
            "SELECT {t}_clear()",
            "SELECT count(*), sum(v), current_user FROM {t}",
            "SELECT {t}_add(102)",
            "ROLLBACK TO s",
            "SELECT count(*), sum(v), current_user FROM {t}",
            "DO $$ BEGIN PERFORM {t}_add(103); PERFORM {t}_add(103); EXCEPTION WHEN unique_violation THEN PERFORM {t}_add(104); END $$",
            "SELECT k, current_user FROM {t} WHERE k > 100 AND k < 200 ORDER BY k",
            "COMMIT",
            "SELECT count(*) FROM {t}",
            "RESET ROLE",
            "SELECT {t}_count()",
            "SELECT count(*) FROM {t}",
        ],
    );
}

/// The secret by which a node believes that a coordinator lends rights cannot be read: the owner has a session of its own, and what it
/// would miss is refused.
#[test]
fn nothing_is_missed_where_no_rights_can_be_lent() {
    let cluster = with_objects_of_another_owner();
    cluster.on_all_nodes("ALTER ROLE owner_of_views LOGIN");
    cluster.on_workers("DELETE FROM pgs_catalog.secret");
    let mut session = cluster.session_as("authenticator");
    session.sql("SET ROLE web_user");
    assert_eq!(session.text("SELECT count(*) FROM sharded_view"), "20");
    session.sql("BEGIN");
    assert_eq!(session.text("SELECT count(*) FROM sharded_view"), "20");
    session.sql("INSERT INTO sharded SELECT i, 'a', i FROM generate_series(101, 110) AS i");
    let error = session.error("SELECT count(*) FROM sharded_view");
    assert_eq!(error.sqlstate, "0A000", "{error:?}");
    session.sql("ROLLBACK");
    assert_eq!(session.text("SELECT count(*) FROM sharded_view"), "20");
}

/// Roles that may log in: reads of views and functions once had a session of their owner's, and missed the transaction's rows.
#[test]
fn roles_that_may_log_in_see_no_less_of_their_transaction() {
    let cluster = with_objects_of_another_owner();
    cluster.on_all_nodes("ALTER ROLE owner_of_views LOGIN; ALTER ROLE web_user LOGIN");
    same_on_both(
        &cluster,
        "authenticator",
        &[
            "SET ROLE web_user",
            "SELECT count(*), current_user FROM {t}_view",
            "SELECT {t}_count()",
            "BEGIN",
            "INSERT INTO {t} SELECT i, 'a', i FROM generate_series(101, 110) AS i",
            "SELECT count(*) FROM {t}_view",
            "SELECT v FROM {t}_view WHERE k = 105",
            "SELECT {t}_count()",
            "SELECT {t}_add(200)",
            "SELECT count(*) FROM {t}",
            "COMMIT",
            "SELECT count(*) FROM {t}_view",
        ],
    );
}
