//! Functions of the server that raise nothing, called as they are: pgrx guards each call against errors, which costs more
//! than these do, and they are on the path of every statement.

use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::{CStr, c_int, c_void};

mod raw {
    use pgrx::pg_sys::{self, Datum, Oid};
    use std::ffi::{c_int, c_void};
    unsafe extern "C-unwind" {
        /// Raises nothing: see the function below that calls it.
        pub(super) fn GetUserId() -> Oid;
        /// Raises nothing: see the function below that calls it.
        pub(super) fn GetCurrentTransactionNestLevel() -> c_int;
        /// Raises nothing: see the function below that calls it.
        pub(super) fn IsTransactionBlock() -> bool;
        /// Raises nothing: see the function below that calls it.
        pub(super) fn IsTransactionState() -> bool;
        /// Raises nothing: see the function below that calls it.
        pub(super) fn pg_get_client_encoding() -> c_int;
        /// Raises nothing: see the function below that calls it.
        pub(super) fn MemoryContextReset(context: pg_sys::MemoryContext);
        /// Guarded.
        pub(super) fn datumCopy(value: Datum, by_value: bool, length: c_int) -> Datum;
        /// Raises nothing: see the function below that calls it.
        pub(super) fn MemoryContextAllocExtended(
            context: pg_sys::MemoryContext,
            size: usize,
            flags: c_int,
        ) -> *mut c_void;
        /// Raises nothing: see the function below that calls it.
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

/// A transaction is under way that can read.
pub(crate) fn can_read() -> bool {
    // SAFETY: reads a variable (`src/backend/access/transam/xact.c`).
    unsafe { raw::IsTransactionState() }
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

/// Memory in a context, or null if there is none left.
///
/// # Safety
///
/// `context` is live.
pub(crate) unsafe fn allocate(context: pg_sys::MemoryContext, size: usize) -> *mut c_void {
    /// `MaxAllocSize` (`src/include/utils/memutils.h`).
    const MOST: usize = 0x3fff_ffff;
    if size > MOST {
        return std::ptr::null_mut();
    }
    // SAFETY: the caller vouches for the context; with this flag and that size nothing is raised (`mcxt.c`).
    unsafe { raw::MemoryContextAllocExtended(context, size, pg_sys::MCXT_ALLOC_NO_OOM as c_int) }
}

/// `datumCopy` into the current context.
///
/// # Safety
///
/// `value` is a live value of a type with that length and that way of being passed.
pub(crate) unsafe fn copy_datum(value: Datum, by_value: bool, length: i16) -> Datum {
    if by_value {
        return value;
    }
    // SAFETY: the caller vouches for the value. What is stored elsewhere or expanded, and what there is no memory for, is
    // left to PostgreSQL's own function, below a guard.
    unsafe {
        let from = value.cast_mut_ptr::<u8>();
        let size = match length {
            -1 if pgrx::varatt_is_1b_e(from.cast()) => 0,
            -1 => pgrx::varsize_any(from.cast()),
            -2 => CStr::from_ptr(from.cast()).to_bytes_with_nul().len(),
            fixed => fixed as usize,
        };
        let to = if size == 0 {
            std::ptr::null_mut()
        } else {
            allocate(pg_sys::CurrentMemoryContext, size).cast::<u8>()
        };
        if to.is_null() {
            return pg_sys::ffi::pg_guard_ffi_boundary(|| {
                raw::datumCopy(value, by_value, c_int::from(length))
            });
        }
        std::ptr::copy_nonoverlapping(from, to, size);
        Datum::from(to)
    }
}
