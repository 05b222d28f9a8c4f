//! What is wrong on the coordinator's own side is an error that names the worker, and marks no placement.

use crate::WORKER_1;
use testkit::{NodeName, Session, TestCluster, wait_until};

/// A table of two placements a shard that the role `app` may use.
fn cluster_with_table() -> TestCluster {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE ROLE app LOGIN PASSWORD 'right'");
    cluster.create_distributed(
        "CREATE TABLE t (id bigint PRIMARY KEY, v int); GRANT ALL ON t TO app",
        "t",
        "id",
        4,
        2,
    );
    cluster.sql("INSERT INTO t SELECT i, 0 FROM generate_series(1, 20) AS i");
    cluster.on_all_nodes("GRANT USAGE ON SCHEMA public TO app");
    cluster
}

fn reload(cluster: &TestCluster, node: NodeName, has_come: &str) {
    cluster.session_on(node).sql("SELECT pg_reload_conf()");
    wait_until("the node has read its files", || cluster.session_on(node).text(has_come) == "t");
}

fn set_conninfo(cluster: &TestCluster, conninfo: &str) {
    cluster.sql(&format!("ALTER SYSTEM SET pg_shard.node_conninfo = '{conninfo}'"));
    let has_come = format!("SELECT current_setting('pg_shard.node_conninfo') = '{conninfo}'");
    reload(cluster, NodeName::Coordinator, &has_come);
}

/// Puts a line before those by which worker 1 lets clients in.
fn let_app_in(cluster: &TestCluster, by: &str) {
    let path = cluster.data_dir(WORKER_1).join("pg_hba.conf");
    let kept: String = std::fs::read_to_string(&path)
        .expect("the worker's file")
        .lines()
        .filter(|line| !line.contains(" app "))
        .map(|line| format!("{line}\n"))
        .collect();
    // It stays whose it is.
    std::fs::write(&path, format!("{by}\n{kept}")).expect("the file is ours");
    let auth = by.split(' ').next_back().unwrap_or_default();
    let has_come = format!(
        "SELECT count(*) = 1 FROM pg_hba_file_rules WHERE user_name = '{{app}}' \
         AND concat(auth_method, options::text) LIKE '%{auth}%'"
    );
    reload(cluster, WORKER_1, &has_come);
}

/// Each kind of statement fails, as `expected` says, and all placements stay healthy.
fn nothing_is_marked(cluster: &TestCluster, open: &dyn Fn() -> Session, expected: &str) {
    for statement in [
        "UPDATE t SET v = 1",
        "INSERT INTO t SELECT i, 1 FROM generate_series(100, 120) AS i",
        "BEGIN; INSERT INTO t SELECT i, 1 FROM generate_series(100, 120) AS i ON CONFLICT DO NOTHING; COMMIT",
        "COPY t FROM '/dev/null'; COPY t (id) FROM PROGRAM 'seq 100 120'",
        "DO $$ BEGIN FOR i IN 1..20 LOOP UPDATE t SET v = 1 WHERE id = i; END LOOP; END $$",
        "UPDATE t SET v = 1 WHERE id = 1; UPDATE t SET v = 1 WHERE id = 2; UPDATE t SET v = 1 WHERE id = 3",
    ] {
        let mut session = open();
        let error = session.error(statement);
        let told = format!("{} {} {}", error.line(), error.detail, error.hint);
        assert!(told.contains(expected), "{statement}: {error}");
        assert_eq!(cluster.unhealthy("t"), 0, "{statement}: {error}");
    }
    for key in 1..=20 {
        // By key, in a transaction of its own: both placements at once.
        let mut session = open();
        let error = session.error(&format!("UPDATE t SET v = 1 WHERE id = {key}"));
        assert_eq!(cluster.unhealthy("t"), 0, "key {key}: {error}");
    }
    assert_eq!(cluster.text("SELECT count(*), sum(v) FROM t"), "20|0");
    assert_eq!(cluster.assert_placements_equal("t"), 20);
}

#[test]
fn no_password_and_a_wrong_one_mark_nothing() {
    let cluster = cluster_with_table();
    cluster.sql("GRANT pg_execute_server_program, pg_read_server_files TO app");
    let app = || cluster.session_as("app");
    let_app_in(&cluster, "host all app 127.0.0.1/32 scram-sha-256");
    // No password file of whoever runs the test.
    set_conninfo(&cluster, "passfile=/nowhere");
    nothing_is_marked(&cluster, &app, "no password supplied");
    set_conninfo(&cluster, "password=wrong");
    nothing_is_marked(&cluster, &app, "password authentication failed");
    set_conninfo(&cluster, "password=right");
    assert_eq!(app().count("UPDATE t SET v = v"), 20);
}

#[test]
fn a_missing_client_certificate_marks_nothing() {
    let cluster = cluster_with_table();
    cluster.certify(WORKER_1);
    let mut worker = cluster.session_on(WORKER_1);
    worker.sql("ALTER SYSTEM SET ssl_ca_file = 'server.crt'");
    worker.sql("ALTER SYSTEM SET ssl = on");
    reload(&cluster, WORKER_1, "SELECT current_setting('ssl') = 'on'");
    let_app_in(&cluster, "hostssl all app 127.0.0.1/32 trust clientcert=verify-ca");
    set_conninfo(&cluster, "sslmode=require sslcert=absent sslkey=absent sslrootcert=absent");
    let app = || {
        let mut session = cluster.new_session();
        session.sql("SET pg_shard.propagate_roles = off");
        session.sql("GRANT pg_execute_server_program, pg_read_server_files TO app; SET ROLE app");
        session
    };
    nothing_is_marked(&cluster, &app, "could not connect to worker");
}

#[test]
fn wrong_options_of_connections_mark_nothing() {
    let cluster = cluster_with_table();
    let open = || cluster.new_session();
    for (conninfo, expected) in [
        ("sslmode=nonsense", "node_conninfo"),
        ("sslmode=require", "server does not support SSL"),
        ("sslmode=verify-full sslrootcert=/nowhere", "could not connect to worker"),
        ("channel_binding=require", "could not connect to worker"),
        ("requirepeer=nobody target_session_attrs=standby", "could not connect to worker"),
    ] {
        set_conninfo(&cluster, conninfo);
        nothing_is_marked(&cluster, &open, expected);
    }
    set_conninfo(&cluster, "");
    assert_eq!(cluster.new_session().count("UPDATE t SET v = v"), 20);
}

/// The first number of a file that a backend may close, or has not opened: what is below stays open as long as it lives.
fn first_number_to_be_had(pid: &str) -> u32 {
    let is_kept = |number: &u32| {
        let file = std::fs::read_link(format!("/proc/{pid}/fd/{number}"));
        file.is_ok_and(|file| !file.to_string_lossy().contains("/data/"))
    };
    (0..).find(|number| !is_kept(number)).expect("some number is free")
}

/// The server's own user may change what its processes may have.
fn limit_files(cluster: &TestCluster, pid: &str, limit: u32) {
    let command = format!("prlimit --pid={pid} --nofile={limit}:");
    cluster.sql(&format!("COPY (SELECT) TO PROGRAM '{command}'"));
}

#[test]
fn no_descriptor_left_marks_nothing() {
    let cluster = cluster_with_table();
    for statement in [
        "UPDATE t SET v = 1 WHERE id = 1",
        "UPDATE t SET v = 1",
        "INSERT INTO t SELECT i, 1 FROM generate_series(100, 120) AS i",
    ] {
        let mut session = cluster.new_session();
        let pid = session.text("SELECT pg_backend_pid()");
        let limit = first_number_to_be_had(&pid);
        // All that it reads here is known to it, and its sessions to the workers are gone.
        session.sql(&format!("BEGIN; {statement}; ROLLBACK; SELECT count(*) FROM t"));
        let theirs = "FROM pg_stat_activity WHERE application_name ~ '^pg_shard( |$)'";
        cluster.on_workers(&format!("SELECT pg_terminate_backend(pid) {theirs}"));
        for worker in cluster.workers() {
            let mut worker = cluster.session_on(worker);
            wait_until("the sessions are gone", || {
                worker.text(&format!("SELECT count(*) {theirs}")) == "0"
            });
        }
        limit_files(&cluster, &pid, limit);
        let error = session.error(statement);
        assert_eq!(cluster.unhealthy("t"), 0, "{statement}: {error}");
        limit_files(&cluster, &pid, 1000);
        assert_eq!(session.text("SELECT count(*), sum(v) FROM t"), "20|0", "{statement}");
    }
    assert_eq!(cluster.assert_placements_equal("t"), 20);
}
