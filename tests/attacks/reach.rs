//! Which hosts a server connects to, on whose word, and what a host that it connects to can do to it.

use crate::crashes::{as_mallory, cluster};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use testkit::{NodeName, TestCluster, wait_until};

/// The worker list of a cluster with the lines instead of its own.
fn write_list(cluster: &TestCluster, lines: &str) {
    let list = cluster.data_dir(NodeName::Coordinator).join("pg_worker_list.conf");
    std::fs::write(list, lines).expect("the worker list can be written");
}

/// A node connected to whatever host the text of an ordinary role named, with the server's own credentials, and its error
/// texts told which ports are open. Hosts are now named by coordinators only, who prove that they have named them.
#[test]
fn a_node_reaches_nobody_on_the_word_of_a_role() {
    let cluster = TestCluster::up_with(1, &[("pg_shard.node_conninfo", "password=sesame")]);
    cluster.on_all_nodes("CREATE ROLE mallory LOGIN; CREATE SCHEMA m AUTHORIZATION mallory");
    cluster.create_distributed("CREATE TABLE t (k int)", "t", "k", 2, 1);
    cluster.on_all_nodes("SET ROLE mallory; CREATE TABLE m.own (k int)");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.set_nonblocking(true).expect("a listener need not block");
    let open = listener.local_addr().expect("it is bound").port();
    for node in [NodeName::Coordinator, NodeName::Worker(1)] {
        let mut session = as_mallory(&cluster, node);
        let mut said = Vec::new();
        for port in [open, 1] {
            let proof = "0".repeat(64);
            let calls = [
                format!(
                    "SELECT * FROM pgs_catalog.rows_of(E'abc {port} 1 0 1 1 127.0.0.1\\n', 0, 1) AS r(c int)"
                ),
                format!(
                    "SELECT * FROM pgs_catalog.rows_of(E'{proof}\\nabc {port} 1 0 1 1 127.0.0.1\\n', 0, 1) AS r(c int)"
                ),
                format!("SELECT worker_copy_shard_placement('m.own', '127.0.0.1', {port})"),
                format!(
                    "SELECT pgs_catalog.copy_shard_placement(E'{proof}\\n{port} 127.0.0.1\\nm.own')"
                ),
                format!(
                    "SELECT master_copy_shard_placement(10000, '127.0.0.1', {port}, '127.0.0.1', {port})"
                ),
            ];
            let errors = calls.map(|call| session.error(&call).to_string());
            for error in &errors {
                // The worker knows no shards.
                let is_refused = error.starts_with("42501: ") || error.starts_with("42704: shard");
                assert!(is_refused, "{error}");
                assert!(!error.contains("sesame"), "{error}");
            }
            said.push(errors);
        }
        assert_eq!(said[0], said[1], "an open port looks like a closed one");
    }
    match listener.accept() {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        other => panic!("a server has connected: {other:?}"),
    }
    // Nor does an ordinary role see the credentials.
    let mut session = as_mallory(&cluster, NodeName::Coordinator);
    assert_eq!(session.error("SHOW pg_shard.node_conninfo").sqlstate, "42501");
    let seen = "SELECT count(*) FROM pg_settings WHERE setting LIKE '%sesame%'";
    assert_eq!(session.text(seen), "0");
    assert!(!session.text("EXPLAIN (VERBOSE, SETTINGS) SELECT * FROM pg_class").contains("sesame"));
}

/// libpq quotes an option that it does not know, and a password with a space in it, not quoted itself, is such an option.
#[test]
fn a_wrong_setting_of_connections_is_quoted_to_superusers_only() {
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes(
        "CREATE ROLE mallory LOGIN; GRANT pg_write_all_data, pg_read_all_data TO mallory",
    );
    cluster.create_distributed("CREATE TABLE t (k int)", "t", "k", 2, 2);
    cluster.sql("ALTER SYSTEM SET pg_shard.node_conninfo = 'password=open sesame sslmode=prefer'");
    cluster.sql("SELECT pg_reload_conf()");
    wait_until("the setting is read", || {
        cluster.new_session().text("SHOW pg_shard.node_conninfo").contains("sesame")
    });
    let mut session = as_mallory(&cluster, NodeName::Coordinator);
    for statement in ["SELECT count(*) FROM t", "INSERT INTO t VALUES (1)"] {
        let error = session.error(statement);
        assert_eq!(error.line(), "F0000: the setting \"pg_shard.node_conninfo\" is not valid");
        assert!(!error.to_string().contains("sesame"), "{error}");
        let warnings = session.warnings();
        assert!(warnings.is_empty(), "{warnings:?}");
    }
    let error = cluster.new_session().error("SELECT count(*) FROM t");
    assert_eq!(error.detail, "invalid connection option \"sesame sslmode\"");
    // No node is to blame.
    assert_eq!(cluster.unhealthy("t"), 0);
}

/// A proof holds for one purpose, one role, and one node: whoever has got hold of another's gains nothing.
#[test]
fn the_proof_of_another_role_purpose_or_node_is_none() {
    let cluster = cluster();
    cluster.on_all_nodes("CREATE ROLE other LOGIN");
    let mut session = as_mallory(&cluster, NodeName::Worker(1));
    let rows = "E'abc 1 1 0 1 1 127.0.0.1\\n'";
    let fetch = |session: &mut testkit::Session, sealed: &str| {
        session
            .error(&format!("SELECT * FROM pgs_catalog.rows_of({sealed}, 0, 1) AS r(c int)"))
            .line()
    };
    let refused = "42501: permission denied for an instruction that no coordinator has given";
    for (purpose, role) in
        [("split rows", "mallory"), ("fetch rows", "other"), ("fetch rows", "postgres")]
    {
        assert_eq!(fetch(&mut session, &format!("sealed('{purpose}', '{role}', {rows})")), refused);
    }
    let elsewhere = as_mallory(&cluster, NodeName::Coordinator)
        .text(&format!("SELECT sealed('fetch rows', 'mallory', {rows})"));
    assert_eq!(fetch(&mut session, &format!("'{elsewhere}'")), refused);
    // One that was given long ago, or will be.
    for age in [3600, -3600] {
        let old = format!("sealed('fetch rows', 'mallory', {rows}, {age})");
        assert_eq!(fetch(&mut session, &old), refused);
    }
    // A right one is followed, and no further than to where it leads.
    let own = fetch(&mut session, &format!("sealed('fetch rows', 'mallory', {rows})"));
    assert_eq!(own, "08006: could not fetch rows from node \"127.0.0.1:1\"");
}

#[test]
fn the_secret_of_a_node_is_read_by_superusers_only() {
    let cluster = cluster();
    cluster.on_all_nodes("GRANT pg_read_all_data TO mallory");
    for node in [NodeName::Coordinator, NodeName::Worker(1)] {
        let mut session = as_mallory(&cluster, node);
        // The right to read all tables goes past privileges, and not past row security.
        assert_eq!(session.text("SELECT count(*) FROM pgs_catalog.secret"), "0");
        assert_eq!(cluster.session_on(node).text("SELECT count(*) FROM pgs_catalog.secret"), "1");
    }
    cluster.on_all_nodes("REVOKE pg_read_all_data FROM mallory");
    let mut session = as_mallory(&cluster, NodeName::Worker(1));
    assert_eq!(session.error("SELECT * FROM pgs_catalog.secret").sqlstate, "42501");
    assert_eq!(
        cluster.text("SELECT 'pgs_catalog.secret'::regclass = ANY (extconfig) FROM pg_extension WHERE extname = 'pg_shard'"),
        "f",
        "dumps do not have it"
    );
}

#[test]
fn a_tables_owner_repairs_without_being_superuser() {
    // Nor need it have the right to ask which server a node is.
    let cluster = TestCluster::up(2);
    cluster.on_all_nodes("CREATE ROLE owner LOGIN; GRANT CREATE ON SCHEMA public TO owner; REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
    // A superuser's table, so that the workers have the extension.
    cluster.create_distributed("CREATE TABLE other (k int)", "other", "k", 2, 2);
    let mut session = cluster.session_as("owner");
    session.sql(
        "CREATE TABLE t (k int NOT NULL, v text); SELECT master_create_distributed_table('t', 'k'); \
         SELECT master_create_worker_shards('t', 2, 2); INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 50) g",
    );
    cluster.sql(
        "UPDATE pgs_distribution_metadata.shard_placement SET shard_state = 3 WHERE id IN \
         (SELECT max(p.id) FROM pgs_distribution_metadata.shard_placement p JOIN pgs_distribution_metadata.shard s \
          ON s.id = p.shard_id WHERE s.relation_id = 't'::regclass GROUP BY p.shard_id); GRANT USAGE ON SCHEMA pgs_distribution_metadata TO owner; \
         GRANT SELECT ON ALL TABLES IN SCHEMA pgs_distribution_metadata TO owner",
    );
    session.sql(
        "SELECT master_copy_shard_placement(bad.shard_id, good.node_name, good.node_port, bad.node_name, bad.node_port) \
         FROM pgs_distribution_metadata.shard_placement bad JOIN pgs_distribution_metadata.shard_placement good USING (shard_id) \
         WHERE bad.shard_state = 3 AND good.shard_state = 1",
    );
    assert_eq!(cluster.assert_placements_equal("t"), 50);
    assert_eq!(cluster.unhealthy("t"), 0);
}

/// One worker that stood in the list under two names waited for itself, and the statement for ever.
#[test]
fn a_server_under_two_names_is_found_before_anything_waits() {
    let cluster = TestCluster::up(1);
    let port = cluster.port(NodeName::Worker(1));
    write_list(&cluster, &format!("# workers\nlocalhost {port}\n127.0.0.1 {port}\n"));
    let mut session = cluster.new_session();
    session.sql("SET statement_timeout = '30s'; CREATE TABLE t (k int NOT NULL); CREATE TABLE r (k int NOT NULL)");
    for call in [
        "create_distributed_table('t', 'k', 4)",
        "create_distributed_table('t', 'k', 4, 2)",
        "create_reference_table('r')",
    ] {
        let error = session.error(&format!("SELECT {call}"));
        assert_eq!(
            error.line(),
            format!(
                "F0000: workers \"127.0.0.1:{port}\" and \"localhost:{port}\" are the same server"
            ),
            "{call}"
        );
        assert_eq!(error.detail, "They stand in lines 2 and 3 of the worker list file.");
    }
    write_list(&cluster, &format!("localhost {port}\nlocalhost {port}\n"));
    let error = session.error("SELECT create_reference_table('r')");
    assert_eq!(error.detail, "It stands in lines 1 and 2 of the worker list file.");

    // A repair onto the same server under another name would drop its source.
    write_list(&cluster, &format!("localhost {port}\n"));
    session.sql("SELECT create_distributed_table('t', 'k', 1); INSERT INTO t VALUES (1), (2)");
    session.sql(&format!(
        "INSERT INTO pgs_distribution_metadata.shard_placement (shard_id, shard_state, node_name, node_port) \
         SELECT id, 3, '127.0.0.1', {port} FROM pgs_distribution_metadata.shard"
    ));
    let error = session.error(&format!(
        "SELECT master_copy_shard_placement(id, 'localhost', {port}, '127.0.0.1', {port}) FROM pgs_distribution_metadata.shard"
    ));
    assert_eq!(error.sqlstate, "F0000", "{error}");
    assert_eq!(session.text("SELECT count(*) FROM t"), "2");
}

/// Reads one message of the protocol that has a type before its length.
fn read_message(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).expect("a message");
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).expect("all of it");
    body
}

/// Behaves as a server until the first statement comes, and then announces a row of a gigabyte.
fn announce(mut stream: TcpStream) -> TcpStream {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("a start");
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut rest).expect("all of it");
        if rest.len() > 4 {
            break;
        }
        // TLS is asked for.
        stream.write_all(b"N").expect("an answer");
    }
    stream
        .write_all(b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x01Z\0\0\0\x05I")
        .expect("a welcome");
    read_message(&mut stream);
    stream.write_all(b"D\x3f\xff\xff\xff").expect("an announcement");
    // More than sockets hold: the backend has read the announcement when it is written.
    stream.write_all(&vec![0; 32 << 20]).expect("a beginning");
    stream
}

/// A backend took as much memory as a message was announced to have, before it had come.
#[test]
fn an_announced_message_takes_no_memory_before_it_comes() {
    let cluster = TestCluster::up(1);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    write_list(&cluster, &format!("127.0.0.1 {port}\n"));
    let mut session = cluster.new_session();
    session.sql("SET pg_shard.silence_timeout = 0; CREATE TABLE t (k int NOT NULL); SELECT master_create_distributed_table('t', 'k')");
    let pid = session.text("SELECT pg_backend_pid()");
    let (told, announced) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (stream, _) = listener.accept().expect("the coordinator comes");
            told.send(announce(stream)).expect("the test waits");
        });
        let asked = scope
            .spawn(move || session.error("SELECT master_create_worker_shards('t', 1, 1)").line());
        let stream = announced.recv().expect("the coordinator has said something");
        wait_until("the backend has read it and waits for the rest", || {
            // What the kernel still holds for it would be counted here.
            cluster.text(&format!("SELECT wait_event_type FROM pg_stat_activity WHERE pid = {pid}"))
                == "Extension"
        });
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let most: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok())
            .expect("Linux tells the most memory that a process has had");
        assert!(most < 300_000, "{most} kB");
        cluster.sql(&format!("SELECT pg_cancel_backend({pid})"));
        assert_eq!(
            asked.join().expect("it does not panic"),
            "57014: canceling statement due to user request"
        );
        drop(stream);
    });
}
