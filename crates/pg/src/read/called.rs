//! The functions that a node calls.

use pgrx::pg_sys::{self, Oid};
use std::ffi::c_void;

/// The functions that a node itself calls.
///
/// # Safety
///
/// `n` is a live node.
pub(crate) unsafe fn functions_of(n: *mut pg_sys::Node) -> Vec<Oid> {
    let mut found: Vec<Oid> = Vec::new();
    // SAFETY: the caller vouches for the node; `found` outlives the call.
    unsafe { pg_sys::check_functions_in_node(n, Some(note_function), (&raw mut found).cast()) };
    found
}

unsafe extern "C-unwind" fn note_function(function: Oid, found: *mut c_void) -> bool {
    // SAFETY: `functions_of` passes its local vector.
    unsafe { (*found.cast::<Vec<Oid>>()).push(function) };
    false
}
