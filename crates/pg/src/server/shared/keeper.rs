//! The keeper: a background worker that has the sockets of all shared sessions, and passes them to backends.
//!
//! A socket stays open as long as a process has it; so who ends a session leaves it to the keeper to shut the socket down, which ends it for
//! all. Sockets of idle sessions are looked at from time to time: a node that was restarted has hung up.

use super::passing::{self, Letter};
use super::{SHARED, shared, table, wake};
use crate::net::adopted;
use crate::server::rounds;
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder};
use pgrx::pg_sys::{self, Datum};
use sharing::{Lease, State, Table};
use std::collections::HashMap;
use std::ffi::c_int;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often idle sessions are looked at.
const ROUND: Duration = Duration::from_secs(1);

/// How long whoever has connected may take to say what it wants.
const PATIENCE: Duration = Duration::from_millis(500);

/// Asks for shared memory and registers the keeper; once, when the library is being preloaded, if sessions are to be shared.
pub fn register() {
    // SAFETY: a global of the postmaster.
    if !unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        return;
    }
    SHARED.reserve();
    BackgroundWorkerBuilder::new("pg_shard keeper")
        .set_library("pg_shard")
        .set_function("pg_shard_keeper")
        .enable_spi_access()
        .set_restart_time(Some(ROUND))
        .load();
}

/// The entry point of the keeper.
///
/// # Safety
///
/// Called by PostgreSQL in a fresh background worker.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_keeper(_argument: Datum) {
    let (Some(shared), Some(table)) = (shared(), table()) else { return };
    rounds::begin_launcher();
    raise_limit();
    // What an earlier keeper had is lost.
    table.begin_epoch();
    let Ok(listener) = listen() else { return };
    shared.keeper.store(super::me(), Ordering::Release);
    let mut keeper = Keeper { table, kept: HashMap::new() };
    watch_catalogs();
    while !must_end() {
        if has_changed() {
            table.doom(&|_| true);
            table.serve_all(&mut wake);
        }
        keeper.accept(&listener);
        keeper.sweep();
        wait(listener.as_raw_fd());
    }
    shared.keeper.store(0, Ordering::Release);
    table.begin_epoch();
    keeper.sweep();
    // SAFETY: an exit code other than zero has the postmaster start us again, unless it ends itself.
    unsafe { pg_sys::proc_exit(1) };
}

/// A role or a database has changed.
static HAS_CHANGED: AtomicBool = AtomicBool::new(false);

unsafe extern "C-unwind" fn note_change(_: Datum, _: c_int, _: u32) {
    HAS_CHANGED.store(true, Ordering::Relaxed);
}

fn watch_catalogs() {
    use pg_sys::SysCacheIdentifier::{AUTHOID, DATABASEOID};
    for cache in [AUTHOID, DATABASEOID] {
        // SAFETY: once in this process and cache; the callback only stores.
        unsafe {
            pg_sys::CacheRegisterSyscacheCallback(
                cache as c_int,
                Some(note_change),
                Datum::from(0),
            );
        }
    }
}

/// Sessions are to be opened anew: a role or a database has changed, which may mean that they would not be opened any more, or the
/// configuration, by which they are opened.
fn has_changed() -> bool {
    // What others have changed is heard of as a transaction begins.
    BackgroundWorker::transaction(|| ());
    // SAFETY: a flag of the process that a signal handler sets; no transaction is under way.
    let is_reloaded = unsafe {
        let is_pending = (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0;
        if is_pending {
            (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
        is_pending
    };
    HAS_CHANGED.swap(false, Ordering::Relaxed) || is_reloaded
}

/// As many descriptors as the system allows the process.
fn raise_limit() {
    // SAFETY: the system's limits in a local.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

fn listen() -> std::io::Result<UnixListener> {
    // An earlier keeper's.
    let _ = std::fs::remove_file(passing::PATH);
    let listener = UnixListener::bind(passing::PATH)?;
    std::fs::set_permissions(passing::PATH, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn must_end() -> bool {
    // SAFETY: a flag of the process that a signal handler sets.
    unsafe { (&raw const pg_sys::ShutdownRequestPending).read_volatile() != 0 }
}

/// Waits until somebody connects, the latch is set, or it is time for a round.
fn wait(listener: c_int) {
    let events = pg_sys::WL_LATCH_SET
        | pg_sys::WL_SOCKET_READABLE
        | pg_sys::WL_TIMEOUT
        | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: this process's own latch, and an open socket.
    unsafe {
        pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as c_int,
            listener,
            ROUND.as_millis() as _,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

struct Keeper {
    table: &'static Table,
    /// By slot.
    kept: HashMap<usize, (u32, OwnedFd)>,
}

impl Keeper {
    fn accept(&mut self, listener: &UnixListener) {
        while let Ok((stream, _)) = listener.accept() {
            if passing::is_ours(&stream) {
                self.answer(stream);
            }
        }
    }

    fn answer(&mut self, stream: UnixStream) {
        let _ = stream.set_nonblocking(false);
        let stream = OwnedFd::from(stream);
        adopted::limit(&stream, PATIENCE);
        let Some((letter, lease, passed)) = passing::receive(stream.as_raw_fd()) else { return };
        let (answer, socket) = match (letter, passed) {
            (Letter::Give, Some(socket)) if self.is_of_now(lease) => {
                self.keep(lease, socket);
                (Letter::Yes, None)
            }
            (Letter::Fetch, _) => match self.kept.get(&lease.slot) {
                Some((generation, socket)) if *generation == lease.generation => {
                    (Letter::Yes, Some(socket.as_raw_fd()))
                }
                _ => (Letter::No, None),
            },
            _ => (Letter::No, None),
        };
        passing::send(stream.as_raw_fd(), answer, lease, socket);
    }

    fn is_of_now(&self, lease: Lease) -> bool {
        lease.slot < sharing::SLOTS && self.table.is_current(lease)
    }

    fn keep(&mut self, lease: Lease, socket: OwnedFd) {
        if let Some((_, earlier)) = self.kept.insert(lease.slot, (lease.generation, socket)) {
            hang_up(&earlier);
        }
    }

    /// Ends what was retired, and retires idle sessions whose nodes have hung up.
    fn sweep(&mut self) {
        let gone = self.hung_up();
        if !gone.is_empty() {
            self.table.reap(&|seen| gone.contains(&seen.lease));
            self.table.serve_all(&mut wake);
        }
        let table = self.table;
        self.kept.retain(|slot, (generation, socket)| {
            let is_good = table.is_current(Lease { slot: *slot, generation: *generation });
            if !is_good {
                hang_up(socket);
            }
            is_good
        });
    }

    /// Nothing is read on the socket of an idle session unless the node has ended it.
    fn hung_up(&self) -> Vec<Lease> {
        let leases = self.kept.iter().map(|(slot, (generation, socket))| {
            (Lease { slot: *slot, generation: *generation }, socket.as_raw_fd())
        });
        let is_free = |lease: &Lease| self.table.slot(lease.slot).now().0 == State::Free;
        let (free, mut sockets): (Vec<Lease>, Vec<libc::pollfd>) = leases
            .filter(|(lease, _)| is_free(lease))
            .map(|(lease, fd)| (lease, libc::pollfd { fd, events: libc::POLLIN, revents: 0 }))
            .unzip();
        // SAFETY: a list of as many entries as is said; does not wait.
        unsafe { libc::poll(sockets.as_mut_ptr(), sockets.len() as libc::nfds_t, 0) };
        free.into_iter()
            .zip(sockets)
            .filter(|(_, socket)| socket.revents != 0)
            .map(|(lease, _)| lease)
            .collect()
    }
}

/// Ends a session, whoever else has the socket: the node rolls back what is open. Nothing is said before, which could be taken for the
/// rest of a message that somebody has not sent to its end.
fn hang_up(socket: &OwnedFd) {
    // SAFETY: an open socket.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}
