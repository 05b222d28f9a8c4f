//! Which ports are free, and who has those that are not.
//!
//! A port is free when it can be bound on every loopback address that the servers will use. Who has a taken one is read
//! from `/proc/net/tcp` (the socket) and `/proc/PID/fd` (its owner); a stranger's processes are visible to root only.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::error::ClusterError;
use crate::node_name::NodeName;

/// Where [`free_ports`] looks: above the well-known ports, below those that the system hands out to clients.
const SEARCHED: std::ops::Range<u16> = 15_000..32_000;

/// Ports that this process has claimed; a claim ends with the process.
static CLAIMS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// For so long a port may be taken by nobody who can be seen: a program that another thread starts has what is bound here for a moment
/// to listen, until it is executed.
const PASSING: Duration = Duration::from_secs(1);

/// The first of `workers + 1` free ports in a row: what a cluster with that many workers needs.
///
/// The ports are claimed until this process ends, so that neither another call nor another test process gets them, even
/// while a node is down. A claim is an abstract unix socket: exclusive, without a file, gone when its owner is. Only
/// callers of this function heed claims.
pub fn free_ports(workers: u16) -> Result<u16, ClusterError> {
    let count = u32::from(workers) + 1;
    let both_families = ipv6_loopback_works();
    // Processes start at different places, so that they seldom meet.
    let span = u32::from(SEARCHED.end - SEARCHED.start);
    let start = std::process::id().wrapping_mul(97) % span;
    let mut claimed = Vec::new();
    for step in 0..span {
        let offset = (start + step) % span;
        if offset == 0 {
            claimed.clear();
        }
        let port = SEARCHED.start + u16::try_from(offset).expect("an offset within a range of u16");
        match claim(port).filter(|_| bind(port, both_families).is_ok()) {
            Some(claim) => claimed.push(claim),
            None => claimed.clear(),
        }
        if claimed.len() == count as usize {
            CLAIMS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).append(&mut claimed);
            return Ok(port - workers);
        }
    }
    Err(ClusterError::NoFreePorts { count })
}

/// Claims `port` among the callers of [`free_ports`] on this machine.
fn claim(port: u16) -> Option<UnixListener> {
    let name = format!("pgshard-port-{port}");
    SocketAddr::from_abstract_name(name).and_then(|address| UnixListener::bind_addr(&address)).ok()
}

/// Whether a server can listen on `::1`.
pub(crate) fn ipv6_loopback_works() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Refuses a port of `node` that somebody else has.
pub(crate) fn ensure_free(
    port: u16,
    node: NodeName,
    both_families: bool,
) -> Result<(), ClusterError> {
    let until = Instant::now() + PASSING;
    loop {
        let Err(source) = bind(port, both_families) else { return Ok(()) };
        if source.kind() != io::ErrorKind::AddrInUse {
            return Err(ClusterError::PortUnusable { port, node, source });
        }
        let holder = holder_of(port);
        if holder.is_some() || Instant::now() >= until {
            let holder = holder.unwrap_or_else(|| "another program".to_owned());
            return Err(ClusterError::PortTaken { port, node, holder });
        }
        std::thread::sleep(PASSING / 50);
    }
}

/// Listens on `port` for a moment.
fn bind(port: u16, both_families: bool) -> io::Result<()> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    if both_families {
        TcpListener::bind((Ipv6Addr::LOCALHOST, port))?;
    }
    Ok(())
}

/// The program that has `port`, as "postgres (process 123)", if it can be seen.
fn holder_of(port: u16) -> Option<String> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| sockets_on(port, &table))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let has_socket = fs::read_dir(entry.path().join("fd"))
            .ok()?
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()));
        if !has_socket {
            return None;
        }
        let program = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        Some(format!("{} (process {pid})", program.trim()))
    })
}

/// The inodes of the sockets that listen on `port`, from the text of `/proc/net/tcp`.
fn sockets_on(port: u16, table: &str) -> Vec<String> {
    const LISTENING: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
            let is_ours =
                u16::from_str_radix(local_port, 16) == Ok(port) && *fields.get(3)? == LISTENING;
            is_ours.then(|| fields.get(9).map(|inode| (*inode).to_owned())).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1770 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 4711 1 0000 100 0 0 10 0
   1: 0100007F:1770 0100007F:D2A0 01 00000000:00000000 00:00000000 00000000   101        0 4712 1 0000 20 4 30 10 -1
";

    #[test]
    fn only_the_listening_socket_holds_a_port() {
        assert_eq!(sockets_on(6000, TABLE), ["4711"]);
        assert!(sockets_on(6001, TABLE).is_empty());
    }

    #[test]
    fn a_run_of_free_ports_is_given_out_once() {
        let first = free_ports(4).unwrap();
        let second = free_ports(4).unwrap();
        assert!(first.abs_diff(second) >= 5, "{first} and {second} overlap");
    }

    #[test]
    fn a_taken_port_is_reported_with_the_program_that_has_it() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = ensure_free(port, NodeName::Worker(1), false).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(&format!("port {port}, needed for worker1, is taken by")),
            "{message}"
        );
        assert!(message.contains(&format!("(process {})", std::process::id())), "{message}");
    }
}
