//! The border where PostgreSQL calls us: Rust's errors and panics become its ERRORs there.

use crate::sys::caught;
use crate::sys::error::{PgError, throw};
use pgrx::pg_sys;

/// Runs `body` at a border where PostgreSQL called us: an `Err` becomes PostgreSQL's ERROR with all its
/// fields, and so does an ERROR that a guarded call turned into a panic. Other panics become an ERROR as pgrx does it.
///
/// # Safety
///
/// Called directly from an `extern "C-unwind"` function that PostgreSQL calls and whose own frame holds
/// nothing with a destructor.
pub(crate) unsafe fn boundary<R>(body: impl FnOnce() -> Result<R, PgError>) -> R {
    // SAFETY: the caller vouches for the frame above.
    match unsafe { pg_sys::panic::pgrx_extern_c_guard(|| caught::keeping(body)) } {
        Ok(value) => value,
        // SAFETY: as above; `error` itself is consumed before the jump.
        Err(error) => unsafe { throw(error) },
    }
}
