//! SET ROLE is repeated on the nodes, in the session that is there. The oracle is a local table.

use crate::{same_on_both, with_roles};

/// Sessions to the nodes were opened in the name of the current role, so that SET ROLE of a role without LOGIN failed there.
#[test]
fn roles_that_cannot_log_in_are_set_on_the_nodes() {
    let cluster = with_roles(2);
    same_on_both(
        &cluster,
        "authenticator",
        &[
            "SELECT count(*) FROM {t}",
            "BEGIN",
            "SET LOCAL ROLE web_user",
            "SELECT count(*), current_user, session_user FROM {t}",
            "SELECT k, current_user FROM {t} WHERE k = 3",
            "INSERT INTO {t} VALUES (100, 'a', 1)",
            "SELECT v FROM {t} WHERE k = 100",
            "SAVEPOINT s",
            "RESET ROLE",
            "SELECT count(*) FROM {t}",
            "ROLLBACK TO s",
            "SELECT count(*), current_user FROM {t}",
            "SET LOCAL ROLE web_admin",
            "SELECT count(*), current_user FROM {t}",
            "UPDATE {t} SET v = v + 1 WHERE k = 100 RETURNING v, current_user",
            "COMMIT",
            "SELECT count(*) FROM {t}",
            "SET ROLE web_user",
            "SELECT sum(v), current_user FROM {t}",
            "BEGIN; SET LOCAL ROLE web_admin; DELETE FROM {t} WHERE k = 100; ROLLBACK",
            "SELECT v, current_user FROM {t} WHERE k = 100",
            "DELETE FROM {t} WHERE k = 100",
            "SET ROLE no_such_role",
            "RESET ROLE",
            "SELECT v FROM {t} WHERE k = 100",
        ],
    );
}

/// The pattern of PostgREST: the request's claims decide what a policy shows, and the next request on the pooled connection has
/// others.
#[test]
fn policies_read_the_claims_of_the_request_and_of_no_other() {
    let cluster = with_roles(2);
    for table in ["plain", "sharded"] {
        cluster.sql(&format!(
            "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
             CREATE POLICY tenants ON {table} USING (tenant = current_setting('request.jwt.claims', true)::json ->> 'tenant' \
                 AND current_user = 'web_user')"
        ));
    }
    let mut statements = Vec::new();
    for claims in ["{\"tenant\":\"a\"}", "{\"tenant\":\"b\"}", "{}"] {
        let set = format!("SELECT set_config('request.jwt.claims', '{claims}', true)");
        for statement in [
            "BEGIN",
            &set,
            "SET LOCAL ROLE web_user",
            "SELECT count(*), min(k) FROM {t}",
            "SELECT k FROM {t} WHERE k = 3",
            "UPDATE {t} SET v = v + 1 WHERE k = 4 RETURNING *",
            "INSERT INTO {t} VALUES (50, 'a', 1)",
            "COMMIT",
            "SELECT count(*) FROM {t}",
        ] {
            statements.push(statement.to_owned());
        }
    }
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    same_on_both(&cluster, "authenticator", &statements);
}

/// Rows of COPY and of a query are sent in the name of the role that is set, also where both alternate.
#[test]
fn rows_are_stored_in_the_name_of_the_role_that_is_set() {
    let cluster = with_roles(2);
    same_on_both(
        &cluster,
        "authenticator",
        &[
            "SET ROLE web_user",
            "INSERT INTO {t} SELECT i, 'a', i FROM generate_series(101, 150) AS i",
            "BEGIN",
            "INSERT INTO {t} SELECT i, 'a', i FROM generate_series(151, 200) AS i",
            "SET LOCAL ROLE web_admin",
            "INSERT INTO {t} SELECT k + 1000, tenant, v FROM {t} WHERE k > 150",
            "RESET ROLE",
            "INSERT INTO {t} SELECT i, 'a', i FROM generate_series(301, 310) AS i",
            "ROLLBACK",
            "SELECT count(*), current_user FROM {t}",
        ],
    );
}
