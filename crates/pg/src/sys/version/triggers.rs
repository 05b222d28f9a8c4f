//! Firing triggers.

use pgrx::pg_sys;
#[cfg(not(feature = "pg15"))]
use std::ptr::null_mut;

/// BEFORE UPDATE triggers of a row; false if it is not to be updated. With the old row at hand PostgreSQL looks nothing up, and
/// needs neither the state of EvalPlanQual nor the row's place.
///
/// # Safety
///
/// A live state, the written relation, its old row and a slot with the new one.
pub(crate) unsafe fn before_update(
    estate: *mut pg_sys::EState,
    relation: *mut pg_sys::ResultRelInfo,
    old: pg_sys::HeapTuple,
    new: *mut pg_sys::TupleTableSlot,
) -> bool {
    let none = std::ptr::null_mut();
    let nowhere = std::ptr::null_mut();
    // SAFETY: the caller vouches; what is null is not looked at.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::ExecBRUpdateTriggers(
            estate,
            none,
            relation,
            nowhere,
            old,
            new,
            std::ptr::null_mut(),
        );
        #[cfg(any(feature = "pg16", feature = "pg17"))]
        return pg_sys::ExecBRUpdateTriggers(
            estate,
            none,
            relation,
            nowhere,
            old,
            new,
            null_mut(),
            null_mut(),
        );
        #[cfg(feature = "pg18")]
        return pg_sys::ExecBRUpdateTriggers(
            estate,
            none,
            relation,
            nowhere,
            old,
            new,
            null_mut(),
            null_mut(),
            false,
        );
    }
}

/// BEFORE DELETE triggers of a row; false if it is not to be deleted.
///
/// # Safety
///
/// As above.
pub(crate) unsafe fn before_delete(
    estate: *mut pg_sys::EState,
    relation: *mut pg_sys::ResultRelInfo,
    old: pg_sys::HeapTuple,
) -> bool {
    let none = std::ptr::null_mut();
    let nowhere = std::ptr::null_mut();
    let unchanged = std::ptr::null_mut();
    // SAFETY: as above.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::ExecBRDeleteTriggers(estate, none, relation, nowhere, old, unchanged);
        #[cfg(any(feature = "pg16", feature = "pg17"))]
        return pg_sys::ExecBRDeleteTriggers(
            estate,
            none,
            relation,
            nowhere,
            old,
            unchanged,
            null_mut(),
            null_mut(),
        );
        #[cfg(feature = "pg18")]
        return pg_sys::ExecBRDeleteTriggers(
            estate,
            none,
            relation,
            nowhere,
            old,
            unchanged,
            null_mut(),
            null_mut(),
            false,
        );
    }
}

/// Gives a state the range table of a parse state.
///
/// # Safety
///
/// Both are live.
pub(crate) unsafe fn open_range_table(estate: *mut pg_sys::EState, parse: *mut pg_sys::ParseState) {
    // SAFETY: the caller vouches.
    unsafe {
        #[cfg(feature = "pg15")]
        pg_sys::ExecInitRangeTable(estate, (*parse).p_rtable);
        #[cfg(any(feature = "pg16", feature = "pg17"))]
        pg_sys::ExecInitRangeTable(estate, (*parse).p_rtable, (*parse).p_rteperminfos);
        #[cfg(feature = "pg18")]
        pg_sys::ExecInitRangeTable(
            estate,
            (*parse).p_rtable,
            (*parse).p_rteperminfos,
            pg_sys::bms_make_singleton(1),
        );
    }
}
