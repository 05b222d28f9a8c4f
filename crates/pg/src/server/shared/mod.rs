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
use crate::sys::shared_memory::Area;
use pgrx::pg_sys::{self, Datum};
use sharing::{Granted, Lease, Table, Ticket};
use std::cell::Cell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// All bytes zero is the beginning.
#[repr(C)]
struct Shared {
    table: Table,
    keeper: AtomicI32,
}

// SAFETY: all bytes zero is an empty table; all of it is atomic.
static SHARED: Area<Shared> = unsafe { Area::new(c"pg_shard sessions", || 0, |_| {}) };

thread_local!(static LEAVES: Cell<bool> = const { Cell::new(false) });

fn shared() -> Option<&'static Shared> {
    SHARED.get()
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
