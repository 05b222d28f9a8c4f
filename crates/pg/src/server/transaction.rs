//! Transaction events and what the backend knows about its transaction.
//!
//! Before a commit we may still refuse; after an abort nothing may go wrong any more, so whatever our part
//! raises there is swallowed (its sessions are closed instead).

use crate::catalog::{lent, privileged};
use crate::exec::{trigger_rows, triggers};
use crate::extension::extension;
use crate::server::commit;
pub use crate::server::interrupts::is_interrupted;
use crate::sys::boundary::boundary;
use crate::sys::unguarded;
use crate::time::events;
use pgrx::pg_sys;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) fn register() {
    // SAFETY: plain functions, registered once for the life of the process.
    unsafe {
        pg_sys::RegisterXactCallback(Some(on_transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_subtransaction), std::ptr::null_mut());
    }
}

/// A cancel or a time-out that waits is raised now.
pub fn serve_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Runs what must not fail.
fn quietly(body: impl FnOnce()) {
    // A panic here has been reported where it arose; the transaction is over either way.
    let _ = catch_unwind(AssertUnwindSafe(body));
}

unsafe extern "C-unwind" fn on_transaction(event: pg_sys::XactEvent::Type, _: *mut c_void) {
    use pg_sys::XactEvent::*;
    // SAFETY: PostgreSQL calls us; this frame holds plain values only.
    unsafe {
        match event {
            XACT_EVENT_PRE_COMMIT => boundary(|| {
                lent::check_before_commit()?;
                extension().before_commit()?;
                events::before_commit()
            }),
            XACT_EVENT_PRE_PREPARE => boundary(|| {
                lent::check_before_commit()?;
                extension().before_prepare()?;
                events::before_prepare()
            }),
            XACT_EVENT_COMMIT | XACT_EVENT_PREPARE => {
                match event {
                    XACT_EVENT_COMMIT => events::after_commit(),
                    _ => events::after_prepare(),
                }
                triggers::forget_all();
                quietly(|| extension().after_transaction(true));
                commit::committed();
            }
            XACT_EVENT_ABORT => {
                events::after_abort();
                commit::rolled_back();
                privileged::forget_acting();
                lent::forget(0);
                triggers::forget_all();
                quietly(|| extension().after_transaction(false));
            }
            _ => {}
        }
    }
}

unsafe extern "C-unwind" fn on_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    id: pg_sys::SubTransactionId,
    _: pg_sys::SubTransactionId,
    _: *mut c_void,
) {
    use pg_sys::SubXactEvent::*;
    // SAFETY: PostgreSQL calls us; this frame holds plain values only.
    unsafe {
        match event {
            SUBXACT_EVENT_PRE_COMMIT_SUB => {
                privileged::end_acting(id, false);
                boundary(|| extension().before_subtransaction_commit(nest_level()));
            }
            SUBXACT_EVENT_ABORT_SUB => {
                privileged::end_acting(id, true);
                lent::forget(id);
                quietly(|| trigger_rows::forget_level(nest_level()));
                quietly(|| extension().after_subtransaction_abort(nest_level()));
            }
            _ => {}
        }
    }
}

/// 1 in a transaction, one more for each open subtransaction.
pub fn nest_level() -> u32 {
    unguarded::nest_level()
}

/// The client has said BEGIN, or sent several statements in one text.
pub fn is_in_block() -> bool {
    unguarded::is_in_block()
}

/// Catalogs and tables can be read: a transaction is under way, and is not about to end.
pub fn can_read() -> bool {
    unguarded::can_read()
}

/// Nothing may be written.
pub fn is_read_only() -> bool {
    // SAFETY: reads the backend's state.
    unsafe { pg_sys::XactReadOnly }
}

/// The isolation level, as BEGIN spells it.
pub fn isolation_level() -> Isolation {
    // SAFETY: reads the backend's state.
    match unsafe { pg_sys::XactIsoLevel } as u32 {
        pg_sys::XACT_REPEATABLE_READ => Isolation::RepeatableRead,
        pg_sys::XACT_SERIALIZABLE => Isolation::Serializable,
        _ => Isolation::ReadCommitted,
    }
}

/// The number of this backend's process.
pub fn backend_pid() -> i32 {
    // SAFETY: reads the backend's state.
    unsafe { pg_sys::MyProcPid }
}

/// How much of others' commits a transaction sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it.
    ReadCommitted,
    /// The transaction sees what was committed before its first statement.
    RepeatableRead,
    /// As if alone.
    Serializable,
}

/// Keeps cancel requests and the like from being served while `body` runs.
pub fn hold_interrupts<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: a counter of the backend; an ERROR inside resets it.
    unsafe { pg_sys::InterruptHoldoffCount += 1 };
    let value = body();
    // SAFETY: as above.
    unsafe { pg_sys::InterruptHoldoffCount = pg_sys::InterruptHoldoffCount.saturating_sub(1) }
    value
}

/// When the client's statement has begun, in PostgreSQL's microseconds.
pub fn statement_start() -> i64 {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}

/// Sees what other backends have committed and invalidated meanwhile.
pub fn accept_invalidations() {
    // SAFETY: reads the shared queue; callbacks only forget.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Tells all backends, at commit, that what they remember about `table` is wrong.
pub fn invalidate(table: pg_sys::Oid) {
    // SAFETY: a syscache look-up and a queue of this transaction; a table that is gone needs nothing.
    unsafe {
        if !pg_sys::get_rel_name(table).is_null() {
            pg_sys::CacheInvalidateRelcacheByRelid(table);
        }
    }
}

/// Tells all backends at once, whatever becomes of this transaction, that what they remember about `table` is wrong.
pub fn invalidate_now(table: pg_sys::Oid) {
    // SAFETY: a global of the process; the message is plain data, which is copied into the shared queue. All bytes zero is valid for its padding.
    unsafe {
        let mut message: pg_sys::SharedInvalidationMessage = std::mem::zeroed();
        message.rc = pg_sys::SharedInvalRelcacheMsg {
            id: pg_sys::SHAREDINVALRELCACHE_ID as pg_sys::int8,
            dbId: pg_sys::MyDatabaseId,
            relId: table,
        };
        pg_sys::SendSharedInvalidMessages(&raw const message, 1);
    }
}
