//! Connections that another process has opened: a socket, and what it takes to cancel on it.
//!
//! The process that opens a connection lets go of libpq's object (`Connection::adopt`), so that all who have the socket are alike. No
//! process says goodbye on a socket that others have too: who ends the conversation shuts it down.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// How long a cancel request may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// PostgreSQL's code of a cancel request (`CANCEL_REQUEST_CODE`, `src/include/libpq/pqcomm.h`).
const CANCEL: u32 = 1234 << 16 | 5678;

/// A socket to a node.
#[derive(Debug)]
pub struct Adopted {
    socket: OwnedFd,
    /// The node's process.
    pub(crate) backend: i32,
    /// By which it knows who may cancel.
    pub(crate) key: i32,
}

impl Adopted {
    /// A socket that another process has passed on.
    pub fn new(socket: OwnedFd, backend: i32, key: i32) -> Self {
        Self { socket, backend, key }
    }

    pub(crate) fn socket(&self) -> c_int {
        self.socket.as_raw_fd()
    }

    /// What asks the node to cancel, independent of the connection.
    pub(crate) fn cancel_request(&self) -> Option<Request> {
        // SAFETY: fills the local, of the size given, with the address of the other side of an open socket.
        let (address, length) = unsafe {
            let mut address: libc::sockaddr_storage = std::mem::zeroed();
            let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            let done = libc::getpeername(self.socket(), (&raw mut address).cast(), &raw mut length);
            (done == 0).then_some((address, length))?
        };
        Some(Request { address, length, backend: self.backend, key: self.key })
    }
}

/// A cancel request.
pub(crate) struct Request {
    address: libc::sockaddr_storage,
    length: libc::socklen_t,
    backend: i32,
    key: i32,
}

impl Request {
    /// Sends it, and waits until the server has heard it and hangs up.
    pub(crate) fn send(&self) -> bool {
        let mut message = Vec::with_capacity(16);
        message.extend_from_slice(&16u32.to_be_bytes());
        message.extend_from_slice(&CANCEL.to_be_bytes());
        message.extend_from_slice(&self.backend.to_be_bytes());
        message.extend_from_slice(&self.key.to_be_bytes());
        let family = c_int::from(self.address.ss_family);
        // SAFETY: a new socket, owned by the value that is made of it; the address is as long as said.
        unsafe {
            let socket = libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            if socket < 0 {
                return false;
            }
            let socket = OwnedFd::from_raw_fd(socket);
            limit(&socket, PATIENCE);
            let address = (&raw const self.address).cast();
            if libc::connect(socket.as_raw_fd(), address, self.length) != 0 {
                return false;
            }
            let flags = libc::MSG_NOSIGNAL;
            let sent =
                libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), flags);
            if sent != message.len() as isize {
                return false;
            }
            let mut byte = 0u8;
            libc::recv(socket.as_raw_fd(), (&raw mut byte).cast(), 1, 0) == 0
        }
    }
}

/// Limits how long reads, writes and connecting take.
pub(crate) fn limit(socket: &OwnedFd, limit: Duration) {
    let time = libc::timeval {
        tv_sec: limit.as_secs() as libc::time_t,
        tv_usec: limit.subsec_micros().into(),
    };
    for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        // SAFETY: an open socket; the option's value is a local of the size given.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const time).cast(),
                size_of::<libc::timeval>() as u32,
            )
        };
    }
}

/// Another descriptor of a socket, which no program that is started gets.
pub(crate) fn duplicate(socket: c_int) -> Option<OwnedFd> {
    // SAFETY: an open descriptor; the new one is owned by the value that is made of it.
    unsafe {
        let new = libc::fcntl(socket, libc::F_DUPFD_CLOEXEC, 3);
        (new >= 0).then(|| OwnedFd::from_raw_fd(new))
    }
}
