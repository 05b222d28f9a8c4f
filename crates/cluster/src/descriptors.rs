//! Open files that a server must not inherit.
//!
//! A server lives on after us. If it inherited, say, the descriptor of a lock that our caller holds (`flock`), the lock
//! would be held for as long as the server runs. Rust's own files close on exec; those that *we* inherited may not.

use std::fs;
use std::os::fd::RawFd;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Marks everything this process has open, except its standard streams, to be closed when it runs another program.
pub(crate) fn close_ours_on_exec() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<RawFd> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|&descriptor| descriptor > 2) {
        // One that has been closed since is none that a server could inherit.
        let _ = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
}
