//! What lies between the nodes' commit and the local one.
//!
//! Once a node may have committed, an error of this server would tell the client that nothing is stored. So everything of
//! the local commit that can fail comes first ([`make_ready`]), and from then on interrupts are held until
//! PostgreSQL has committed ([`hold_interrupts_until_end`]). A cancel that has come meanwhile has come too late, as it does
//! when PostgreSQL itself is writing its commit record.
//!
//! The steps are those of CommitTransaction (`src/backend/access/transam/xact.c`): deferred triggers and portals come before
//! the callback in which nodes commit.

use crate::server::notifications;
use crate::sys::error::{PgError, SqlState};
use pgrx::pg_sys;
use std::cell::Cell;

mod raw {
    //! Not among pgrx' bindings. The first raises nothing.
    use std::ffi::c_int;
    unsafe extern "C-unwind" {
        /// Raises nothing: reads a flag (`src/backend/utils/misc/timeout.c`).
        pub(super) fn get_timeout_indicator(id: c_int, resets: bool) -> bool;
        /// Guarded.
        pub(super) fn PreCommit_CheckForSerializationFailure();
    }
}

// Of `src/include/utils/timeout.h`.
const LOCK_TIMEOUT: std::ffi::c_int = 2;
const STATEMENT_TIMEOUT: std::ffi::c_int = 3;

thread_local!(static HOLDS: Cell<bool> = const { Cell::new(false) });

/// Does what of the local commit can fail and can be done before its time: ON COMMIT actions of temporary tables, and the
/// check of a serializable transaction for conflicts. PostgreSQL does both again and finds nothing left to do. Notifications
/// must find room in their queue.
pub fn make_ready() -> Result<(), PgError> {
    // SAFETY: called from the callback before the commit, which PostgreSQL calls just before these functions.
    unsafe {
        pg_sys::PreCommit_on_commit_actions();
        if pg_sys::XactIsoLevel as u32 == pg_sys::XACT_SERIALIZABLE {
            pg_sys::ffi::pg_guard_ffi_boundary(|| raw::PreCommit_CheckForSerializationFailure());
        }
    }
    notifications::check_room()
}

/// Keeps cancel requests, time-outs and the end of the backend from being served until the local transaction has ended.
pub fn hold_interrupts_until_end() {
    if !HOLDS.replace(true) {
        // SAFETY: a counter of the backend; an ERROR resets it.
        unsafe { pg_sys::InterruptHoldoffCount += 1 };
    }
}

/// Nothing has been committed after all: interrupts are served again, those that have come meanwhile at once.
pub fn serve_held_interrupts() {
    if HOLDS.replace(false) {
        // SAFETY: what `hold_interrupts_until_end` has added, and no ERROR has come since.
        unsafe {
            pg_sys::InterruptHoldoffCount = pg_sys::InterruptHoldoffCount.saturating_sub(1);
        }
    }
    pgrx::check_for_interrupts!();
}

/// Interrupts are held by [`hold_interrupts_until_end`].
pub fn holds_interrupts() -> bool {
    HOLDS.get()
}

/// The local transaction has committed.
pub(crate) fn committed() {
    if !HOLDS.replace(false) {
        return;
    }
    // SAFETY: PostgreSQL itself holds interrupts while it calls us, so that the counter is at least two; plain
    // variables of the backend.
    unsafe {
        pg_sys::InterruptHoldoffCount = pg_sys::InterruptHoldoffCount.saturating_sub(1);
        // In a procedure the statement goes on, and may be cancelled.
        if !pg_sys::SPI_inside_nonatomic_context() {
            forget_cancel();
        }
    }
}

/// Forgets a cancel request or time-out that has come too late.
///
/// The marks of the timers go as well. PostgreSQL resets them with the error that they cause, or with the timer as long as it
/// runs (`disable_statement_timeout`, `src/backend/tcop/postgres.c`). A mark that stayed would turn the next cancel request into a
/// time-out, and that one is raised in an idle session too: the client would take the error for the answer to its next
/// statement, and every answer from then on for that of the statement before.
fn forget_cancel() {
    // SAFETY: flags of this process. PostgreSQL stops the statement's timers before it commits, so none fires in between.
    unsafe {
        (&raw mut pg_sys::QueryCancelPending).write_volatile(0);
        raw::get_timeout_indicator(LOCK_TIMEOUT, true);
        raw::get_timeout_indicator(STATEMENT_TIMEOUT, true);
    }
}

/// The local transaction has been rolled back, for an ERROR, which has reset the counter.
pub(crate) fn rolled_back() {
    HOLDS.set(false);
}

/// Why a wait that does not serve interrupts should come to its end: somebody has asked for it, or the statement's time is
/// over. PostgreSQL's own clock for that does not run while it commits.
pub fn should_stop() -> bool {
    crate::server::interrupts::is_interrupted() || is_out_of_time()
}

fn is_out_of_time() -> bool {
    // SAFETY: reads a setting and two clocks.
    unsafe {
        let limit = i64::from(pg_sys::StatementTimeout);
        limit > 0
            && pg_sys::GetCurrentTimestamp() - pg_sys::GetCurrentStatementStartTimestamp()
                > limit * 1000
    }
}

/// The error of a statement that was stopped so.
pub fn stopped() -> PgError {
    // SAFETY: looks at a flag of this process.
    let by_time =
        is_out_of_time() || unsafe { raw::get_timeout_indicator(STATEMENT_TIMEOUT, false) };
    let cause = if by_time { "statement timeout" } else { "user request" };
    PgError::new(SqlState::QUERY_CANCELED, format!("canceling statement due to {cause}"))
}
