//! NOTIFY in a transaction whose nodes commit.
//!
//! PostgreSQL puts a transaction's notifications into the server's queue behind the callback in which nodes commit
//! (`PreCommit_Notify`, `src/backend/commands/async.c`), and fails if the queue is full. So it is looked for room before.

use crate::sys::error::{PgError, SqlState, catch};
use pgrx::pg_sys;

mod raw {
    //! Not among pgrx' bindings. Raises an ERROR.
    unsafe extern "C-unwind" {
        /// Guarded.
        pub(super) fn AtPrepare_Notify();
    }
}

/// The part of the queue beyond which writers of notifications are ordered before the nodes commit. PostgreSQL warns from here on.
const MUCH: f64 = 0.5;

/// The part of the queue beyond which it counts as full: what is left, some 400 MB, is for the transaction's own notifications.
const FULL: f64 = 0.95;

/// LISTEN, UNLISTEN or NOTIFY wait for the commit.
pub fn are_pending() -> bool {
    // PREPARE TRANSACTION asks so. It raises an error if they do, and does nothing else.
    let asked = catch(|| {
        // SAFETY: reads variables of the backend, or raises.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| raw::AtPrepare_Notify()) };
        Ok(())
    });
    asked.is_err()
}

/// Fails if there is no room for the transaction's notifications.
pub(crate) fn check_room() -> Result<(), PgError> {
    if !are_pending() || usage() < MUCH {
        return Ok(());
    }
    // SAFETY: the lock that PostgreSQL takes a moment later, and holds to the end of the transaction: nobody else fills the queue.
    unsafe {
        let lock = pg_sys::AccessExclusiveLock as i32;
        pg_sys::LockSharedObject(pg_sys::DatabaseRelationId, pg_sys::InvalidOid, 0, lock);
    }
    if usage() < FULL {
        return Ok(());
    }
    Err(PgError::new(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        "too many notifications in the NOTIFY queue",
    )
    .hint("Nothing was committed. End the transaction of the session that listens and keeps the queue from being emptied."))
}

/// How full the queue is.
fn usage() -> f64 {
    // SAFETY: PostgreSQL's function of that name, which takes no arguments.
    unsafe { pgrx::direct_function_call(pg_sys::pg_notification_queue_usage, &[]) }.unwrap_or(0.0)
}
