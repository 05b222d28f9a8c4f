//! A part of a transaction that may fail and be undone, while the transaction goes on: a subtransaction.
//!
//! What the nodes did meanwhile is undone too: their sessions follow the subtransaction with a savepoint. The steps are those of
//! PL/pgSQL's blocks with an EXCEPTION clause (`exec_stmt_block`, `src/pl/plpgsql/src/pl_exec.c`).

use crate::sys::error::{PgError, SqlState, caught};
use pgrx::pg_sys;
use pgrx::prelude::PgTryBuilder;
use std::panic::AssertUnwindSafe;

/// Runs `body` in a subtransaction.
///
/// An error with one of the `expected` codes undoes all that `body` did, locks included, and is returned as the inner one.
///
/// # Errors
///
/// Any other error of `body`, which ends the transaction.
pub fn attempt<T>(
    expected: &[SqlState],
    body: impl FnOnce() -> Result<T, PgError>,
) -> Result<Result<T, PgError>, PgError> {
    // SAFETY: reads and, below, restores globals of the backend; a transaction is under way, since SQL called us.
    let (context, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    // SAFETY: as above; the memory context is the caller's again at once.
    unsafe {
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
    }
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| {
        let value = body()?;
        // SAFETY: the subtransaction that was begun above is the current one: `body` has ended its own.
        unsafe { pg_sys::ReleaseCurrentSubTransaction() };
        Ok(value)
    }))
    .catch_others(|cause| Err(caught(&cause)))
    .execute();
    // SAFETY: after an ERROR, which the guard has caught, the subtransaction is still the current one and can be rolled back.
    unsafe {
        if outcome.is_err() {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
    }
    match outcome {
        Err(error) if expected.contains(&error.sqlstate()) => Ok(Err(error)),
        other => other.map(Ok),
    }
}
