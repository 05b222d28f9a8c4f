//! A forwarder that knows nothing: what a hop costs at the least on this machine.
//!
//! Each client has a process and one session, which stays at one server; sessions are spread over the servers in turn. For each
//! statement the process makes four system calls: it reads the client's messages, writes them to the server, reads the
//! answer up to `ReadyForQuery`, and writes it back. Messages of one statement must come in one read, as pgbench's do.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::{env, thread};

use anyhow::{Context, Result, ensure};

/// The codes by which a client asks for TLS and for GSSAPI before it logs in (`src/include/libpq/pqcomm.h`).
const ENCRYPTION_REQUESTS: [u32; 2] = [80_877_103, 80_877_104];

/// The message with which a server ends an answer, but for its last byte.
const READY: [u8; 5] = [b'Z', 0, 0, 0, 5];

/// Listens on a port, and starts a process for each client that connects, until it goes out of scope.
#[derive(Debug)]
pub(crate) struct Forwarder {
    port: u16,
    is_over: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Forwards clients to the servers on these ports.
    pub(crate) fn start(servers: Vec<u16>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        let port = listener.local_addr().context("cannot find the port")?.port();
        let program = env::current_exe().context("cannot find this program's file")?;
        let is_over = Arc::new(AtomicBool::new(false));
        let sees_end = Arc::clone(&is_over);
        let listening = thread::spawn(move || {
            let mut children: Vec<Child> = Vec::new();
            for (client, server) in listener.incoming().zip(servers.iter().cycle()) {
                if sees_end.load(Ordering::Acquire) {
                    break;
                }
                children.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
                let child = client.and_then(|client| {
                    Command::new(&program)
                        .args(["forward", &server.to_string()])
                        .stdin(Stdio::from(OwnedFd::from(client)))
                        .spawn()
                });
                // Where it fails the client sees its connection closed, and the run fails.
                children.extend(child);
            }
            for mut child in children {
                // The clients are gone.
                let _ = child.wait();
            }
        });
        Ok(Self { port, is_over, listening: Some(listening) })
    }

    /// Where clients connect.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // Wakes the thread, which then looks.
        let woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let (Ok(_), Some(listening)) = (woken, self.listening.take()) {
            let _ = listening.join();
        }
    }
}

/// One client's process: forwards what comes on standard input, which is its connection, to the server on this port.
pub(crate) fn serve(server: u16) -> Result<()> {
    let client = io::stdin().as_fd().try_clone_to_owned().context("cannot have the connection")?;
    let mut client = TcpStream::from(client);
    let startup = startup_packet(&mut client).context("cannot read the start of a session")?;
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server))
        .with_context(|| format!("cannot connect to port {server}"))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    server.write_all(&startup)?;
    forward(&mut client, &mut server).context("cannot forward")
}

/// The packet with which a client logs in. Encryption is declined.
fn startup_packet(client: &mut (impl Read + Write)) -> Result<Vec<u8>> {
    loop {
        let mut length = [0; 4];
        client.read_exact(&mut length)?;
        let rest = (u32::from_be_bytes(length) as usize).saturating_sub(4);
        ensure!((4..10_000).contains(&rest), "a packet of {rest} bytes");
        let mut body = vec![0; rest];
        client.read_exact(&mut body)?;
        let code = body.first_chunk().map(|code| u32::from_be_bytes(*code));
        if !code.is_some_and(|code| ENCRYPTION_REQUESTS.contains(&code)) {
            return Ok([length.to_vec(), body].concat());
        }
        client.write_all(b"N")?;
    }
}

/// Answers and requests in turn, until one side hangs up. The server's turn comes first: it has been sent the packet of the log-in.
fn forward(client: &mut (impl Read + Write), server: &mut (impl Read + Write)) -> io::Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let mut end = End::default();
        while !end.is_ready() {
            let n = server.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            client.write_all(&buffer[..n])?;
            end.see(&buffer[..n]);
        }
        let n = client.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        server.write_all(&buffer[..n])?;
    }
}

/// The last bytes of an answer, as far as it has come.
#[derive(Debug, Default)]
struct End([u8; READY.len() + 1]);

impl End {
    fn see(&mut self, bytes: &[u8]) {
        let length = self.0.len();
        let new = bytes.len().min(length);
        self.0.rotate_left(new);
        self.0[length - new..].copy_from_slice(&bytes[bytes.len() - new..]);
    }

    fn is_ready(&self) -> bool {
        self.0.starts_with(&READY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A side that says what it was given, piece by piece, and notes what it is told.
    struct Side {
        says: Vec<&'static [u8]>,
        hears: Vec<u8>,
    }

    impl Read for Side {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            if self.says.is_empty() {
                return Ok(0);
            }
            let piece = self.says.remove(0);
            room[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    impl Write for Side {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.hears.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn side(says: &[&'static [u8]]) -> Side {
        Side { says: says.to_vec(), hears: Vec::new() }
    }

    #[test]
    fn an_answer_ends_where_the_server_is_ready_however_it_is_cut() {
        let mut client = side(&[b"ask", b"again"]);
        let mut server = side(&[b"hello", b"Z\0\0\0\x05I", b"rowZ\0\0", b"\0\x05", b"T"]);
        forward(&mut client, &mut server).unwrap();
        assert_eq!(server.hears, b"askagain");
        assert_eq!(client.hears, b"helloZ\0\0\0\x05IrowZ\0\0\0\x05T");
    }

    #[test]
    fn encryption_is_declined_and_the_log_in_is_passed_on() {
        let request: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
        let mut client = side(&[&request[..4], &request[4..], b"\0\0\0\x0a", b"\0\x03\0\0u\0"]);
        assert_eq!(startup_packet(&mut client).unwrap(), b"\0\0\0\x0a\0\x03\0\0u\0");
        assert_eq!(client.hears, b"N");
    }
}
