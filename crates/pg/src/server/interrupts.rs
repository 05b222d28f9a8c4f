//! What the backend has been asked to end.

use pgrx::pg_sys;

/// A cancel or the end of the backend has been asked for and not been served.
pub fn is_interrupted() -> bool {
    // SAFETY: reads flags that signal handlers set.
    unsafe {
        (&raw const pg_sys::QueryCancelPending).read_volatile() != 0
            || (&raw const pg_sys::ProcDiePending).read_volatile() != 0
    }
}
