//! A connection pool between coordinator and node, as PgBouncer is one in its session and in its transaction mode.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use testkit::{NodeName, TestCluster};

/// One message of the protocol, whole; those of a client's start have no type.
fn message(from: &mut TcpStream, has_type: bool) -> io::Result<Vec<u8>> {
    let mut message = vec![0; if has_type { 5 } else { 4 }];
    from.read_exact(&mut message)?;
    let at = message.len() - 4;
    let length = u32::from_be_bytes(message[at..].try_into().expect("four bytes")) as usize;
    let whole = at + length;
    let head = message.len();
    message.resize(whole, 0);
    from.read_exact(&mut message[head..])?;
    Ok(message)
}

/// Hands on what the server says up to the end of a flight; whether it is in a transaction then.
fn answer(server: &mut TcpStream, client: &mut TcpStream) -> io::Result<bool> {
    loop {
        let said = message(server, true)?;
        client.write_all(&said)?;
        if said[0] == b'Z' {
            return Ok(said[5] != b'I');
        }
    }
}

/// A server connection for the user and database of a client's start.
fn log_in(start: &[u8], port: u16) -> io::Result<TcpStream> {
    let mut server = TcpStream::connect(("127.0.0.1", port))?;
    server.write_all(start)?;
    while message(&mut server, true)?[0] != b'Z' {}
    Ok(server)
}

/// What all clients share: the server connection, once there is one.
type Shared = Arc<Mutex<Option<TcpStream>>>;

/// Serves a client, for each transaction with the shared connection, or with one of its own.
fn serve(mut client: TcpStream, port: u16, shared: &Shared, made_up: u32) -> io::Result<()> {
    let mut start = message(&mut client, false)?;
    while start.len() == 8 {
        // It asks for encryption.
        client.write_all(b"N")?;
        start = message(&mut client, false)?;
    }
    let mut slot = shared.lock().expect("no client panics");
    if slot.is_none() {
        *slot = Some(log_in(&start, port)?);
    }
    drop(slot);
    client.write_all(b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c")?;
    client.write_all(&made_up.to_be_bytes())?;
    client.write_all(b"\0\0\0\x01Z\0\0\0\x05I")?;
    loop {
        let mut said = message(&mut client, true)?;
        let mut slot = shared.lock().expect("no client panics");
        let server = slot.as_mut().expect("it has logged in");
        loop {
            if said[0] == b'X' {
                return Ok(());
            }
            server.write_all(&said)?;
            if matches!(said[0], b'Q' | b'S') && !answer(server, &mut client)? {
                break;
            }
            said = message(&mut client, true)?;
        }
    }
}

/// A pool before a server; its port.
fn pool_before(port: u16, shares: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let own = listener.local_addr().expect("it is bound").port();
    let shared = Shared::default();
    let clients = AtomicU32::new(1_000_000);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let shared = if shares { Arc::clone(&shared) } else { Shared::default() };
            let number = clients.fetch_add(1, Ordering::Relaxed);
            // A client that leaves in the middle ends its thread.
            std::thread::spawn(move || serve(client, port, &shared, number));
        }
    });
    own
}

/// Sessions through a pool in transaction mode met each other's prepared statements and settings: `prepared statement "s0"
/// already exists`, once two clients were there. A session now finds out when it is opened.
#[test]
fn a_pool_that_shares_server_connections_is_refused_and_one_that_does_not_serves() {
    let cluster = TestCluster::up(1);
    let list = cluster.data_dir(NodeName::Coordinator).join("pg_worker_list.conf");
    let server = cluster.port(NodeName::Worker(1));
    let mut session = cluster.new_session();
    session.sql("SET statement_timeout = '60s'");
    for (table, shares) in [("own", false), ("shared", true)] {
        let port = pool_before(server, shares);
        std::fs::write(&list, format!("127.0.0.1 {port}\n")).expect("we may write it");
        session.sql(&format!("CREATE TABLE {table} (k int PRIMARY KEY, v int)"));
        let create = format!("SELECT create_distributed_table('{table}', 'k', 2)");
        if shares {
            let error = session.error(&create);
            assert_eq!(
                error.line(),
                format!(
                    "0A000: cannot use a connection pool that shares server connections for node \"127.0.0.1:{port}\""
                )
            );
            assert!(error.hint.contains("pool_mode = session"), "{error}");
            continue;
        }
        session.sql(&create);
        for key in 0..20 {
            let mut other = cluster.new_session();
            other.sql(&format!(
                "INSERT INTO {table} VALUES ({key}, 0); UPDATE {table} SET v = 1 WHERE k = {key}"
            ));
        }
        assert_eq!(session.text(&format!("SELECT sum(v) FROM {table}")), "20");
    }
}
