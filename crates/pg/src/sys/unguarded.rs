//! Functions of the server that raise nothing, called as they are: pgrx guards each call against errors, which costs more
//! than these do, and they are on the path of every statement.

use pgrx::pg_sys::{self, Oid};
use std::ffi::c_int;

mod raw {
    use pgrx::pg_sys::{self, Oid};
    use std::ffi::c_int;
    unsafe extern "C-unwind" {
        pub(super) fn GetUserId() -> Oid;
        pub(super) fn GetCurrentTransactionNestLevel() -> c_int;
        pub(super) fn IsTransactionBlock() -> bool;
        pub(super) fn pg_get_client_encoding() -> c_int;
        pub(super) fn MemoryContextReset(context: pg_sys::MemoryContext);
        pub(super) fn ExecStoreVirtualTuple(
            slot: *mut pg_sys::TupleTableSlot,
        ) -> *mut pg_sys::TupleTableSlot;
    }
}

/// The current role.
pub(crate) fn current_role() -> Oid {
    // SAFETY: reads a variable (`src/backend/utils/init/miscinit.c`).
    unsafe { raw::GetUserId() }
}

/// 1 in a transaction, one more for each open subtransaction.
pub(crate) fn nest_level() -> u32 {
    // SAFETY: reads a variable (`src/backend/access/transam/xact.c`).
    unsafe { raw::GetCurrentTransactionNestLevel() as u32 }
}

/// The client has said BEGIN, or sent several statements in one text.
pub(crate) fn is_in_block() -> bool {
    // SAFETY: reads a variable (`src/backend/access/transam/xact.c`).
    unsafe { raw::IsTransactionBlock() }
}

/// The encoding that the client speaks.
pub(crate) fn client_encoding() -> c_int {
    // SAFETY: reads a variable (`src/backend/utils/mb/mbutils.c`).
    unsafe { raw::pg_get_client_encoding() }
}

/// Frees all that was allocated in a context.
///
/// # Safety
///
/// `context` is live, and nothing in it is used any more.
pub(crate) unsafe fn reset(context: pg_sys::MemoryContext) {
    // SAFETY: the caller vouches for the context; freeing raises nothing.
    unsafe { raw::MemoryContextReset(context) }
}

/// Empties a slot of the virtual kind.
///
/// # Safety
///
/// `slot` is live and virtual.
pub(crate) unsafe fn clear(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: what ExecClearTuple does (`src/include/executor/tuptable.h`): every kind of slot has the function, and that of
    // the virtual kind only frees.
    unsafe { ((*(*slot).tts_ops).clear.unwrap_unchecked())(slot) }
}

/// Says that a virtual slot's values are there.
///
/// # Safety
///
/// `slot` is live, virtual and empty, and its arrays have been filled.
pub(crate) unsafe fn store_virtual(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: the caller vouches for the slot; sets two fields (`src/backend/executor/execTuples.c`).
    unsafe { raw::ExecStoreVirtualTuple(slot) };
}
