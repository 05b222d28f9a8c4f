//! Sessions that all backends of this server share: their table in shared memory, and the keeper that has their sockets.
//!
//! What the table is the crate `sharing` says. It is there if `pg_shard.shared_sessions` was on when the server was started. A backend
//! that ends, however it ends, leaves nothing in it: what it has is retired as it exits, and after a crash PostgreSQL makes shared
//! memory anew and ends the keeper, with which all sockets are closed.

/// Who has the sockets.
mod keeper;

/// How sockets go from process to process.
mod passing;

pub use keeper::register;
pub use passing::{fetch, give};

use crate::server::activity;
use pgrx::pg_sys::{self, Datum};
use sharing::{Granted, Lease, Table, Ticket};
use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::time::Duration;

/// All bytes zero is the beginning.
#[repr(C)]
struct Shared {
    table: Table,
    keeper: AtomicI32,
}

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(null_mut());

const NAME: &CStr = c"pg_shard sessions";

#[derive(Clone, Copy)]
struct Previous {
    request: pg_sys::shmem_request_hook_type,
    startup: pg_sys::shmem_startup_hook_type,
}

static PREVIOUS: OnceLock<Previous> = OnceLock::new();

thread_local!(static LEAVES: Cell<bool> = const { Cell::new(false) });

/// Asks for shared memory; once, when the library is being preloaded.
fn reserve() {
    // SAFETY: `_PG_init` runs alone on the main thread of the postmaster; hooks are plain function pointers.
    unsafe {
        let previous =
            Previous { request: pg_sys::shmem_request_hook, startup: pg_sys::shmem_startup_hook };
        if PREVIOUS.set(previous).is_ok() {
            pg_sys::shmem_request_hook = Some(request);
            pg_sys::shmem_startup_hook = Some(startup);
        }
    }
}

unsafe extern "C-unwind" fn request() {
    // SAFETY: the postmaster calls us where shared memory may be asked for; this frame holds plain values only.
    unsafe {
        if let Some(Previous { request: Some(previous), .. }) = PREVIOUS.get() {
            previous();
        }
        pg_sys::RequestAddinShmemSpace(size_of::<Shared>());
    }
}

unsafe extern "C-unwind" fn startup() {
    // SAFETY: the postmaster calls us once for each creation of shared memory, before any other process is there. The memory
    // is as large as asked for and aligned to 128 bytes (`ShmemAllocRaw`, `shmem.c`); all bytes zero is a valid value of it.
    unsafe {
        if let Some(Previous { startup: Some(previous), .. }) = PREVIOUS.get() {
            previous();
        }
        let mut found = false;
        let size = size_of::<Shared>();
        let shared: *mut Shared =
            pg_sys::ShmemInitStruct(NAME.as_ptr(), size, &raw mut found).cast();
        if !found && shared.addr().is_multiple_of(align_of::<Shared>()) {
            std::ptr::write_bytes(shared.cast::<u8>(), 0, size);
            SHARED.store(shared, Ordering::Relaxed);
        }
    }
}

fn shared() -> Option<&'static Shared> {
    // SAFETY: null, or what `startup` has made, which stays as long as the process; all of it is atomic.
    unsafe { SHARED.load(Ordering::Relaxed).as_ref() }
}

/// The table; none if sessions are not shared.
pub fn table() -> Option<&'static Table> {
    shared().map(|shared| &shared.table)
}

/// The processes of the node of this name whose sessions backends of this server have just now, and these backends.
pub fn users_of(node: &str) -> Vec<(i32, i32)> {
    let number = activity::node_number(node).map(|it| u32::from(it.number()));
    let seen = table().map(Table::all).unwrap_or_default();
    let of_node = seen.iter().filter(|it| Some(it.node) == number && it.owner > 0);
    of_node.map(|it| (it.backend, it.owner)).collect()
}

/// This process serves a client, and may share sessions: from now on what it has is retired when it ends.
pub fn is_client() -> bool {
    if LEAVES.get() {
        return true;
    }
    // SAFETY: a variable of the process; the callback is a plain function.
    unsafe {
        if pg_sys::MyBackendType != pg_sys::BackendType::B_BACKEND {
            return false;
        }
        pg_sys::on_shmem_exit(Some(leave), Datum::from(0));
    }
    LEAVES.set(true);
    true
}

unsafe extern "C-unwind" fn leave(_: c_int, _: Datum) {
    if let Some(table) = table() {
        table.leave(me(), &mut wake);
        wake_keeper();
    }
}

/// This process.
pub fn me() -> i32 {
    // SAFETY: a variable of the process.
    unsafe { pg_sys::MyProcPid }
}

/// A process has got what it has waited for.
pub fn wake(pid: i32) {
    // SAFETY: the array of processes stays where it is; whoever owns the latch by now looks and finds nothing.
    unsafe {
        let process = pg_sys::BackendPidGetProc(pid);
        if !process.is_null() {
            pg_sys::SetLatch(&raw mut (*process).procLatch);
        }
    }
}

/// The keeper is to close what was retired.
pub fn wake_keeper() {
    if let Some(shared) = shared() {
        let keeper = shared.keeper.load(Ordering::Acquire);
        if keeper > 0 {
            wake(keeper);
        }
    }
}

/// What was granted to a ticket is given back if nobody takes it: an interrupt has ended the wait.
struct Waiting<'a> {
    table: &'a Table,
    ticket: Option<Ticket>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        match self.table.take(ticket, &mut wake) {
            Granted::Nothing => {}
            Granted::Session(lease) => {
                if !self.table.give_back(lease, me(), &mut wake) {
                    self.table.retire(lease, me(), &mut wake);
                }
            }
            Granted::Room(lease) => self.table.retire(lease, me(), &mut wake),
        }
    }
}

/// Waits in order for a session of the group, or for room to open one: true with a session. None after `limit`, or if too many wait.
///
/// Serves interrupts.
pub fn wait(group: usize, most: u32, limit: Option<Duration>) -> Option<(Lease, bool)> {
    let table = table()?;
    let ticket = table.wait(group, me(), most, &mut wake)?;
    let mut waiting = Waiting { table, ticket: Some(ticket) };
    let until = limit.map(|limit| crate::net::wait::clock() + limit);
    loop {
        let granted = waiting.ticket.as_ref().map(|ticket| table.granted(ticket));
        if granted != Some(Granted::Nothing) {
            break;
        }
        let left = until.map(|until| until.saturating_sub(crate::net::wait::clock()));
        if left.is_some_and(|left| left.is_zero()) {
            return None;
        }
        crate::net::wait::pause(left.unwrap_or(Duration::from_secs(60)));
    }
    match table.take(waiting.ticket.take()?, &mut wake) {
        Granted::Session(lease) => Some((lease, true)),
        Granted::Room(lease) => Some((lease, false)),
        Granted::Nothing => None,
    }
}
