//! Waiting for nodes: sockets, our latch and the postmaster's death in one wait.
//!
//! Interrupts (cancel, timeouts, shutdown) are served here and raise PostgreSQL's ERROR, which unwinds
//! through Rust as a panic; whoever waits keeps its state consistent before it does.

pub use crate::net::clock::clock;
use crate::net::watch::Watch;
use crate::sys::version;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::c_int;
use std::time::Duration;

/// What to wait for on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Bytes to read.
    Readable,
    /// Room to write, or bytes to read.
    Writable,
}

/// A kept set of sockets to wait on: making one costs system calls, using it one.
#[derive(Debug)]
pub struct WaitSet {
    raw: *mut pg_sys::WaitEventSet,
    sockets: Vec<c_int>,
    watch: RefCell<Watch>,
}

impl WaitSet {
    /// A set over `sockets`; the index of each is what [`WaitSet::wait`] returns.
    pub fn new(sockets: &[(c_int, Readiness)]) -> Self {
        // SAFETY: on the main thread of a backend with a latch; the set lives in TopMemoryContext until Drop.
        unsafe {
            let raw = version::lasting_wait_set(sockets.len() as c_int + 2);
            let list = sockets.iter().map(|(socket, _)| *socket).collect();
            let set = Self { raw, sockets: list, watch: RefCell::default() };
            for (index, (socket, readiness)) in sockets.iter().enumerate() {
                let events = match readiness {
                    Readiness::Readable => pg_sys::WL_SOCKET_READABLE,
                    Readiness::Writable => pg_sys::WL_SOCKET_READABLE | pg_sys::WL_SOCKET_WRITEABLE,
                };
                let tag = std::ptr::without_provenance_mut(index + 1);
                pg_sys::AddWaitEventToSet(raw, events, *socket, std::ptr::null_mut(), tag);
            }
            let nothing = std::ptr::null_mut();
            pg_sys::AddWaitEventToSet(
                raw,
                pg_sys::WL_LATCH_SET,
                pg_sys::PGINVALID_SOCKET,
                pg_sys::MyLatch,
                nothing,
            );
            pg_sys::AddWaitEventToSet(
                raw,
                pg_sys::WL_EXIT_ON_PM_DEATH,
                pg_sys::PGINVALID_SOCKET,
                std::ptr::null_mut(),
                nothing,
            );
            set
        }
    }

    /// Waits until a socket is ready and returns its index; none after `limit`, when the latch was set, or from time to time.
    ///
    /// Serves interrupts before and after. A wait that takes long is looked into ([`Watch`]).
    pub fn wait(&self, limit: Option<Duration>) -> Option<usize> {
        pgrx::check_for_interrupts!();
        if self.sockets.is_empty() {
            return self.wait_uninterrupted(limit);
        }
        let patience = {
            let mut watch = self.watch.borrow_mut();
            watch.begin();
            watch.patience()
        };
        let limit =
            limit.map_or(patience, |limit| Some(patience.map_or(limit, |it| it.min(limit))));
        let ready = self.wait_uninterrupted(limit);
        pgrx::check_for_interrupts!();
        match ready {
            Some(_) => self.begin_again(),
            None => self.watch.borrow_mut().look(&self.sockets),
        }
        ready
    }

    /// What is waited for now is another wait.
    pub(crate) fn begin_again(&self) {
        self.watch.borrow_mut().begin_again();
    }

    /// The same without serving interrupts: for use while a transaction ends.
    pub fn wait_uninterrupted(&self, limit: Option<Duration>) -> Option<usize> {
        let milliseconds = limit.map_or(-1, |limit| limit.as_millis() as std::ffi::c_long);
        // SAFETY: a live set; the event is a local that the call fills.
        unsafe {
            let mut event: pg_sys::WaitEvent = std::mem::zeroed();
            let n = pg_sys::WaitEventSetWait(
                self.raw,
                milliseconds,
                &raw mut event,
                1,
                pg_sys::PG_WAIT_EXTENSION,
            );
            if n == 0 {
                return None;
            }
            if event.events & pg_sys::WL_LATCH_SET != 0 {
                pg_sys::ResetLatch(pg_sys::MyLatch);
                return None;
            }
            let index = event.user_data.addr();
            (1..=self.sockets.len()).contains(&index).then(|| index - 1)
        }
    }
}

impl Drop for WaitSet {
    fn drop(&mut self) {
        // SAFETY: ours; freed once.
        unsafe { pg_sys::FreeWaitEventSet(self.raw) }
    }
}

/// Waits until one of the sockets is ready, `limit` at most, without serving interrupts; a signal ends the wait early.
pub fn poll_uninterrupted(sockets: &[(c_int, Readiness)], limit: Duration) {
    let mut wanted: Vec<libc::pollfd> = sockets
        .iter()
        .map(|(socket, readiness)| {
            let events = match readiness {
                Readiness::Readable => libc::POLLIN,
                Readiness::Writable => libc::POLLIN | libc::POLLOUT,
            };
            libc::pollfd { fd: *socket, events, revents: 0 }
        })
        .collect();
    let milliseconds = c_int::try_from(limit.as_millis()).unwrap_or(c_int::MAX).max(1);
    // SAFETY: a list of as many entries as is said.
    unsafe { libc::poll(wanted.as_mut_ptr(), wanted.len() as libc::nfds_t, milliseconds) };
}

/// Waits until the latch is set, `limit` at most; serves interrupts unless they are held.
pub fn pause(limit: Duration) {
    WaitSet::new(&[]).wait(Some(limit));
    pgrx::check_for_interrupts!();
}
