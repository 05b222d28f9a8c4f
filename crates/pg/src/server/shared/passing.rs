//! Passing sockets: over a socket in the data directory, with a descriptor as ancillary data (unix(7)). Only processes of the
//! server's own user are answered.
//!
//! A message is a letter and a lease. The keeper is asked once for each socket and process; whoever gets no answer within a second
//! goes on without it.

use crate::net::adopted;
use sharing::Lease;
use std::ffi::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Below the data directory, in which every process of the server works.
pub(super) const PATH: &str = "pg_shard.keeper";

const PATIENCE: Duration = Duration::from_secs(1);

/// What the keeper is asked, and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letter {
    /// Here is a socket.
    Give,
    /// Which socket is it?
    Fetch,
    /// Done; here it is.
    Yes,
    /// There is none.
    No,
}

const LETTERS: [(u8, Letter); 4] =
    [(b'g', Letter::Give), (b'f', Letter::Fetch), (b'y', Letter::Yes), (b'n', Letter::No)];

/// A message: a letter, the slot, the generation.
pub(super) const LENGTH: usize = 13;

/// Room for one descriptor, aligned as the system wants it.
#[repr(C, align(8))]
struct Ancillary([u8; 64]);

/// Sends a message.
pub(super) fn send(socket: c_int, letter: Letter, lease: Lease, passed: Option<c_int>) -> bool {
    let code = LETTERS.iter().find(|(_, known)| *known == letter).map_or(b'n', |(code, _)| *code);
    let mut bytes = [0u8; LENGTH];
    bytes[0] = code;
    bytes[1..9].copy_from_slice(&(lease.slot as u64).to_le_bytes());
    bytes[9..].copy_from_slice(&lease.generation.to_le_bytes());
    let mut ancillary = Ancillary([0; 64]);
    // SAFETY: all that the header points to are locals of the sizes given; the ancillary data have room for one descriptor.
    unsafe {
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: LENGTH };
        let mut header: libc::msghdr = std::mem::zeroed();
        (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
        if let Some(passed) = passed {
            header.msg_control = ancillary.0.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(size_of::<c_int>() as u32) as _;
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            ((*first).cmsg_level, (*first).cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
            (*first).cmsg_len = libc::CMSG_LEN(size_of::<c_int>() as u32) as _;
            libc::CMSG_DATA(first).cast::<c_int>().write_unaligned(passed);
        }
        libc::sendmsg(socket, &raw const header, libc::MSG_NOSIGNAL) == LENGTH as isize
    }
}

/// Receives one, with the descriptor that came along.
pub(super) fn receive(socket: c_int) -> Option<(Letter, Lease, Option<OwnedFd>)> {
    let mut bytes = [0u8; LENGTH];
    let mut ancillary = Ancillary([0; 64]);
    let mut passed = None;
    // SAFETY: as in `send`; a descriptor that comes is new, and owned by the value that is made of it.
    unsafe {
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: LENGTH };
        let mut header: libc::msghdr = std::mem::zeroed();
        (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
        header.msg_control = ancillary.0.as_mut_ptr().cast();
        header.msg_controllen = size_of::<Ancillary>() as _;
        let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_WAITALL;
        let mut n = libc::recvmsg(socket, &raw mut header, flags);
        for _ in 0..100 {
            let is_interrupted =
                std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
            if n >= 0 || !is_interrupted {
                break;
            }
            n = libc::recvmsg(socket, &raw mut header, flags);
        }
        let first =
            if n > 0 { libc::CMSG_FIRSTHDR(&raw const header) } else { std::ptr::null_mut() };
        if !first.is_null()
            && (*first).cmsg_level == libc::SOL_SOCKET
            && (*first).cmsg_type == libc::SCM_RIGHTS
        {
            let descriptor = libc::CMSG_DATA(first).cast::<c_int>().read_unaligned();
            passed = Some(OwnedFd::from_raw_fd(descriptor));
        }
        if n != LENGTH as isize {
            return None;
        }
    }
    let (_, letter) = *LETTERS.iter().find(|(code, _)| *code == bytes[0])?;
    let slot = u64::from_le_bytes(bytes[1..9].try_into().ok()?) as usize;
    let generation = u32::from_le_bytes(bytes[9..].try_into().ok()?);
    Some((letter, Lease { slot, generation }, passed))
}

/// The process at the other end is of the server's own user.
pub(super) fn is_ours(stream: &UnixStream) -> bool {
    // SAFETY: fills the local, of the size given.
    unsafe {
        let mut peer: libc::ucred = std::mem::zeroed();
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        let done = libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        );
        done == 0 && peer.uid == libc::geteuid()
    }
}

fn connect() -> Option<UnixStream> {
    // SAFETY: a new socket, owned by the value that is made of it; the address is a local, and its path ends with a zero byte.
    unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return None;
        }
        let socket = OwnedFd::from_raw_fd(socket);
        adopted::limit(&socket, PATIENCE);
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in address.sun_path.iter_mut().zip(PATH.bytes()) {
            *to = from as libc::c_char;
        }
        let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        let done = libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length);
        (done == 0).then(|| UnixStream::from(socket)).filter(is_ours)
    }
}

/// Gives the keeper a socket; false if it has not taken it.
pub fn give(lease: Lease, socket: c_int) -> bool {
    let Some(stream) = connect() else { return false };
    send(stream.as_raw_fd(), Letter::Give, lease, Some(socket))
        && matches!(receive(stream.as_raw_fd()), Some((Letter::Yes, ..)))
}

/// The socket of a session.
pub fn fetch(lease: Lease) -> Option<OwnedFd> {
    let stream = connect()?;
    if !send(stream.as_raw_fd(), Letter::Fetch, lease, None) {
        return None;
    }
    match receive(stream.as_raw_fd())? {
        (Letter::Yes, known, Some(socket)) if known == lease => Some(socket),
        _ => None,
    }
}
