//! Settings, roles, transactions and failures of one client, and what the next one of the same session sees.

use super::cluster;

#[test]
fn nobody_sees_the_settings_of_another() {
    let cluster = cluster(&[]);
    let (mut one, mut other) = (cluster.session_as("alice"), cluster.session_as("alice"));
    let shown =
        "SELECT v::text || to_char(timestamptz '2020-07-01 12:00+00', ' HH24') FROM t WHERE k = 1";
    let zones = [("UTC", "1 12"), ("Asia/Tokyo", "1 21"), ("America/New_York", "1 08")];
    for (zone, expected) in zones {
        one.sql(&format!("SET TimeZone = '{zone}'"));
        assert_eq!(one.text(shown), expected);
        other.sql("SET TimeZone = 'Asia/Kolkata'");
        assert_eq!(other.text(shown), "1 17");
    }
}

#[test]
fn settings_of_the_clients_own_stay_theirs() {
    let cluster = cluster(&[]);
    cluster.sql("CREATE TABLE tenants (k int, tenant text); GRANT ALL ON tenants TO alice");
    cluster.distribute("tenants", "k", 1, 1);
    cluster.sql("INSERT INTO tenants VALUES (1, 'red'), (1, 'blue')");
    cluster.sql(
        "ALTER TABLE tenants ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY own ON tenants USING (tenant = current_setting('app.tenant', true))",
    );
    let (mut red, mut blue, mut none) =
        (cluster.session_as("alice"), cluster.session_as("alice"), cluster.session_as("alice"));
    let seen = "SELECT string_agg(tenant, ',') FROM tenants WHERE k = 1";
    red.sql("SET app.tenant = 'red'");
    for _ in 0..3 {
        assert_eq!(red.text(seen), "red");
        blue.sql("BEGIN; SET LOCAL app.tenant = 'blue'");
        assert_eq!(blue.text(seen), "blue");
        blue.sql("ROLLBACK");
        assert_eq!(blue.text(&format!("SELECT coalesce(({seen}), 'nothing')")), "nothing");
        assert_eq!(none.text(&format!("SELECT coalesce(({seen}), 'nothing')")), "nothing");
    }
}

#[test]
fn a_role_that_one_client_has_set_is_not_the_next_ones() {
    let cluster = cluster(&[]);
    cluster.on_all_nodes("CREATE ROLE clerk; ALTER ROLE alice NOINHERIT; GRANT clerk TO alice");
    cluster.sql("CREATE TABLE files (k int, v int); GRANT SELECT ON files TO clerk");
    cluster.distribute("files", "k", 2, 1);
    cluster.sql("INSERT INTO files VALUES (1, 1)");
    let (mut one, mut other) = (cluster.session_as("alice"), cluster.session_as("alice"));
    let mut bob = cluster.session_as("bob");
    for _ in 0..2 {
        one.sql("SET ROLE clerk");
        assert_eq!(one.text("SELECT v FROM files WHERE k = 1"), "1");
        assert_eq!(other.text("SELECT v FROM t WHERE k = 1"), "1");
        for client in [&mut other, &mut bob] {
            assert_eq!(client.error("SELECT v FROM files WHERE k = 1").sqlstate, "42501");
        }
        one.sql("RESET ROLE");
        assert_eq!(one.text("SELECT v FROM t WHERE k = 2"), "2");
    }
}

#[test]
fn a_statement_that_fails_leaves_nothing_for_the_next_client() {
    let cluster = cluster(&[]);
    let (mut one, mut other) = (cluster.session_as("alice"), cluster.session_as("alice"));
    for _ in 0..3 {
        assert_eq!(one.error("SELECT v / (v - v) FROM t WHERE k = 1").sqlstate, "22012");
        assert_eq!(other.text("SELECT v FROM t WHERE k = 1"), "1");
        one.sql("BEGIN");
        assert_eq!(one.text("SELECT v FROM t WHERE k = 1 FOR UPDATE"), "1");
        assert_eq!(one.error("SELECT v / (v - v) FROM t WHERE k = 1").sqlstate, "22012");
        assert_eq!(other.text("SELECT v FROM t WHERE k = 1"), "1");
        one.sql("ROLLBACK");
        assert_eq!(other.text("SELECT v FROM t WHERE k = 1 FOR UPDATE"), "1");
    }
}
