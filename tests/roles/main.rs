//! Who acts: roles that the client sets, owners of views and functions, and the one session to a node in which all of them act.
//! The same statements run on a local table beside the distributed one.

/// SET ROLE is repeated on the nodes.
mod set_role;

/// A transaction sees what it has written, whoever reads.
mod one_transaction;

/// Deferred constraints.
mod constraints;

/// Settings of the client.
mod settings;

use testkit::TestCluster;

/// Roles as PostgREST and Supabase have them: one that logs in and has no rights, and others that it becomes. `owner_of_views` can
/// neither log in nor is a member of anything.
pub const ROLES: &str = "CREATE ROLE authenticator LOGIN NOINHERIT; CREATE ROLE web_user NOLOGIN; \
    CREATE ROLE web_admin NOLOGIN; GRANT web_user, web_admin TO authenticator; CREATE ROLE owner_of_views NOLOGIN";

/// A cluster with these roles and two tables of the same rows, `plain` and, distributed, `sharded`.
pub fn with_roles(workers: u16) -> TestCluster {
    let cluster = TestCluster::up(workers);
    cluster.on_all_nodes(ROLES);
    for table in ["plain", "sharded"] {
        cluster.sql(&format!(
            "CREATE TABLE {table} (k int PRIMARY KEY, tenant text NOT NULL, v int); \
             GRANT ALL ON {table} TO web_user, web_admin, owner_of_views"
        ));
    }
    cluster.distribute("sharded", "k", 4, 1);
    for table in ["plain", "sharded"] {
        cluster.sql(&format!(
            "INSERT INTO {table} SELECT i, CASE i % 2 WHEN 0 THEN 'a' ELSE 'b' END, i FROM generate_series(1, 20) AS i"
        ));
    }
    cluster
}

/// Runs the same on both tables in sessions of their own, and compares what each statement gives: rows, or the error.
#[track_caller]
pub fn same_on_both(cluster: &TestCluster, role: &str, statements: &[&str]) {
    let mut sessions = ["plain", "sharded"].map(|table| (table, cluster.session_as(role)));
    for statement in statements {
        let [plain, sharded] = sessions.each_mut().map(|(table, session)| {
            session
                .try_sql(&statement.replace("{t}", table))
                .map_err(|error| error.line().replace(*table, "{t}"))
        });
        assert_eq!(sharded, plain, "{statement}");
    }
}
