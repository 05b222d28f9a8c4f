//! PostgreSQL's walkers over trees, called without pgrx' guard: macros of these names stand before the functions since
//! PostgreSQL 16.

use pgrx::pg_sys;
use std::ffi::{c_int, c_void};

/// A node's turn in a walk.
pub(crate) type Walker =
    Option<unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool>;
/// A node's turn in a rewrite.
pub(crate) type Mutator =
    Option<unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> *mut pg_sys::Node>;
/// A plan node's turn in a walk over an executor's state.
pub(crate) type StateWalker =
    unsafe extern "C-unwind" fn(*mut pg_sys::PlanState, *mut c_void) -> bool;

unsafe extern "C-unwind" {
    /// Plain frames: those of `node::step`, up to the guard of `node::walk`.
    #[cfg_attr(not(feature = "pg15"), link_name = "query_tree_walker_impl")]
    pub(crate) fn query_tree_walker(
        query: *mut pg_sys::Query,
        walker: Walker,
        context: *mut c_void,
        flags: c_int,
    ) -> bool;
    /// Plain frames: those of `node::step`, up to the guard of `node::walk`.
    #[cfg_attr(not(feature = "pg15"), link_name = "expression_tree_walker_impl")]
    pub(crate) fn expression_tree_walker(
        node: *mut pg_sys::Node,
        walker: Walker,
        context: *mut c_void,
    ) -> bool;
    /// Plain frames: those of `node::rewrite_step`, up to the guard of `node::rewrite`.
    // PostgreSQL 15 declares mutators without a prototype; this is the signature that it calls them with
    // (`src/include/nodes/nodeFuncs.h`).
    #[cfg_attr(not(feature = "pg15"), link_name = "query_tree_mutator_impl")]
    pub(crate) fn query_tree_mutator(
        query: *mut pg_sys::Query,
        mutator: Mutator,
        context: *mut c_void,
        flags: c_int,
    ) -> *mut pg_sys::Query;
    /// Plain frames: those of `node::rewrite_step`, up to the guard of `node::rewrite`.
    #[cfg_attr(not(feature = "pg15"), link_name = "expression_tree_mutator_impl")]
    pub(crate) fn expression_tree_mutator(
        node: *mut pg_sys::Node,
        mutator: Mutator,
        context: *mut c_void,
    ) -> *mut pg_sys::Node;
    /// Plain frames: those of `early::find`, up to the guard of `early::scans`.
    #[cfg_attr(not(feature = "pg15"), link_name = "planstate_tree_walker_impl")]
    pub(crate) fn planstate_tree_walker(
        state: *mut pg_sys::PlanState,
        walker: StateWalker,
        context: *mut c_void,
    ) -> bool;
}
