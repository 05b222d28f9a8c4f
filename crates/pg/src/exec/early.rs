//! Cursors see what was there when they were opened: their scans ask the nodes then, and not when the first row is fetched.
//!
//! A node takes a statement's snapshot when the statement reaches it. PostgreSQL takes a cursor's when the portal starts, and
//! what its transaction or others change afterwards is not seen. So once the executor has started a portal that is
//! to be fetched from later (a cursor of SQL or PL/pgSQL, a named portal of the extended protocol), each scan of ours that knows
//! what it asks for sends its statement, and waits until the node has taken the snapshot. The rows come when they are fetched; whoever
//! needs the session before has the rest of them kept. What is executed at once begins as it always does, with
//! its first row. A scan that asks for other rows each time that it is executed (the inner side of a nested loop, a correlated
//! sub-query) cannot ask before, nor one that locks.

use crate::exec::scan;
use crate::sys::error::boundary;
use pgrx::pg_sys;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

mod raw {
    //! Not among pgrx' bindings, so without its guard: the frames that call them hold nothing to drop.
    use pgrx::pg_sys;
    use std::ffi::{c_int, c_void};
    pub(super) type Walker =
        unsafe extern "C-unwind" fn(*mut pg_sys::PlanState, *mut c_void) -> bool;
    unsafe extern "C-unwind" {
        pub(super) fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
        pub(super) fn planstate_tree_walker(
            state: *mut pg_sys::PlanState,
            walker: Walker,
            context: *mut c_void,
        ) -> bool;
    }
}

static PREVIOUS: OnceLock<pg_sys::ExecutorStart_hook_type> = OnceLock::new();

/// Installs the hook.
///
/// # Safety
///
/// Once per process, from `_PG_init`.
pub(crate) unsafe fn install() {
    // SAFETY: the caller vouches; hooks are plain function pointers.
    unsafe {
        let _ = PREVIOUS.set(pg_sys::ExecutorStart_hook);
        pg_sys::ExecutorStart_hook = Some(start);
    }
}

unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: PostgreSQL's own arguments, passed on unchanged; this frame holds plain values only.
    unsafe {
        match PREVIOUS.get() {
            Some(Some(previous)) => previous(query, flags),
            _ => raw::standard_ExecutorStart(query, flags),
        }
        if flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as c_int == 0 && is_fetched_from_later(query) {
            let mut scans: Vec<*mut pg_sys::CustomScanState> = Vec::new();
            boundary(|| {
                find((*query).planstate, (&raw mut scans).cast());
                // What is read first, the inner side of a hash join, comes last in the tree. Rows of two scans cannot flow over
                // one session: those of the scan that asks first are kept.
                for custom in scans.iter().rev() {
                    scan::ask_early(*custom)?;
                }
                Ok(())
            });
        }
    }
}

/// The portal that is being started is a cursor's, or has a name, and reads.
unsafe fn is_fetched_from_later(query: *mut pg_sys::QueryDesc) -> bool {
    // SAFETY: reads the backend's globals; the portal and its name are live.
    unsafe {
        let portal = pg_sys::ActivePortal;
        !portal.is_null()
            && (*portal).status == pg_sys::PortalStatus::PORTAL_DEFINED
            && !(*portal).name.is_null()
            && *(*portal).name != 0
            && (*query).operation == pg_sys::CmdType::CMD_SELECT
            && !(*(*query).plannedstmt).hasModifyingCTE
    }
}

unsafe extern "C-unwind" fn find(state: *mut pg_sys::PlanState, found: *mut c_void) -> bool {
    if state.is_null() {
        return false;
    }
    // SAFETY: the executor's live tree; `start` passes its local vector.
    unsafe {
        if let Some(custom) = scan::of_ours(state) {
            (*found.cast::<Vec<*mut pg_sys::CustomScanState>>()).push(custom);
        }
        raw::planstate_tree_walker(state, find, found)
    }
}
