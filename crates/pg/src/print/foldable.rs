//! Expressions without columns that need this server or this moment: they are computed here, once.
//!
//! A tree is gone through once to find them, whatever its depth: to look below each node anew would take the square of it.

use crate::print::assigned::is_assignment;
use crate::sys::node::{self, Summary};
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::collections::HashSet;
use std::ffi::c_void;

mod raw {
    use pgrx::pg_sys::Oid;
    unsafe extern "C-unwind" {
        /// Plain frames: see `is_not_immutable`.
        pub(super) fn func_volatile(function: Oid) -> std::ffi::c_char;
    }
}

/// Something below keeps the expression from being computed here.
const BLOCKED: u8 = 1;

/// Something below yields another value elsewhere, or later.
const MUTABLE: u8 = 2;

/// The expressions of a tree that can be computed here, and should be.
#[derive(Debug, Default)]
pub(crate) struct Foldable {
    nodes: HashSet<*mut pg_sys::Node>,
}

impl Foldable {
    /// Those of a tree; parameters of the planner with these numbers are known before a scan begins.
    ///
    /// # Safety
    ///
    /// A live query or expression tree, which stays as it is as long as the value is asked.
    pub(crate) unsafe fn of<T>(tree: *mut T, init_params: &[i32]) -> Self {
        let mut finder = Finder { init_params, found: Self::default() };
        // SAFETY: the caller vouches for the tree.
        unsafe { node::summarize(tree, &mut finder) };
        finder.found
    }

    /// The node is to be computed here, once.
    ///
    /// # Safety
    ///
    /// A live node of the tree.
    pub(crate) unsafe fn has(&self, n: *mut pg_sys::Node, fold_volatile: bool) -> bool {
        // SAFETY: the caller vouches for the node.
        unsafe {
            self.nodes.contains(&n)
                && !pg_sys::expression_returns_set(n)
                && (fold_volatile || !pg_sys::contain_volatile_functions(n))
        }
    }
}

/// The expression is to be computed here, once.
///
/// # Safety
///
/// A live expression.
pub(crate) unsafe fn is_foldable(
    n: *mut pg_sys::Node,
    fold_volatile: bool,
    init_params: &[i32],
) -> bool {
    // SAFETY: the caller vouches for the expression.
    unsafe { Foldable::of(n, init_params).has(n, fold_volatile) }
}

struct Finder<'a> {
    init_params: &'a [i32],
    found: Foldable,
}

impl Summary for Finder<'_> {
    fn own(&mut self, n: *mut pg_sys::Node) -> u8 {
        // SAFETY: a live node of the tree; it is cast to the struct of its tag.
        unsafe {
            match node::tag(n) {
                NodeTag::T_Var
                | NodeTag::T_Aggref
                | NodeTag::T_GroupingFunc
                | NodeTag::T_WindowFunc
                | NodeTag::T_SubLink
                | NodeTag::T_SubPlan
                | NodeTag::T_AlternativeSubPlan
                | NodeTag::T_Query
                | NodeTag::T_SetToDefault
                | NodeTag::T_CurrentOfExpr
                | NodeTag::T_CaseTestExpr
                | NodeTag::T_CoerceToDomainValue
                | NodeTag::T_TargetEntry
                | NodeTag::T_List
                | NodeTag::T_PlaceHolderVar => BLOCKED,
                NodeTag::T_Param => {
                    let param = n.cast::<pg_sys::Param>();
                    let known = match (*param).paramkind {
                        pg_sys::ParamKind::PARAM_EXTERN => true,
                        pg_sys::ParamKind::PARAM_EXEC => {
                            self.init_params.contains(&(*param).paramid)
                        }
                        _ => false,
                    };
                    if known { MUTABLE } else { BLOCKED }
                }
                NodeTag::T_NextValueExpr | NodeTag::T_SQLValueFunction => MUTABLE,
                // Also casts through text. PostgreSQL's planner leaves a cstring below those that it may not compute, which
                // no SQL can say.
                _ => {
                    let is_mutable = pg_sys::check_functions_in_node(
                        n,
                        Some(is_not_immutable),
                        std::ptr::null_mut(),
                    );
                    if is_mutable { MUTABLE } else { 0 }
                }
            }
        }
    }

    fn whole(&mut self, n: *mut pg_sys::Node, bits: u8) {
        // SAFETY: as above.
        unsafe {
            if bits == MUTABLE && is_scalar_expression(node::tag(n)) && !is_assignment(n) {
                self.found.nodes.insert(n);
            }
        }
    }
}

/// A node that yields one value and may stand where any expression may.
fn is_scalar_expression(tag: NodeTag) -> bool {
    matches!(
        tag,
        NodeTag::T_Param
            | NodeTag::T_FuncExpr
            | NodeTag::T_OpExpr
            | NodeTag::T_DistinctExpr
            | NodeTag::T_NullIfExpr
            | NodeTag::T_ScalarArrayOpExpr
            | NodeTag::T_BoolExpr
            | NodeTag::T_SubscriptingRef
            | NodeTag::T_FieldSelect
            | NodeTag::T_RelabelType
            | NodeTag::T_CoerceViaIO
            | NodeTag::T_ArrayCoerceExpr
            | NodeTag::T_ConvertRowtypeExpr
            | NodeTag::T_CollateExpr
            | NodeTag::T_CaseExpr
            | NodeTag::T_ArrayExpr
            | NodeTag::T_RowExpr
            | NodeTag::T_CoalesceExpr
            | NodeTag::T_MinMaxExpr
            | NodeTag::T_SQLValueFunction
            | NodeTag::T_NextValueExpr
            | NodeTag::T_NullTest
            | NodeTag::T_BooleanTest
            | NodeTag::T_CoerceToDomain
    )
}

unsafe extern "C-unwind" fn is_not_immutable(function: Oid, _: *mut c_void) -> bool {
    // SAFETY: a syscache look-up by value. Its ERROR goes to the guard around `check_functions_in_node`: the frames between are
    // plain. A guard of its own would make a panic of it, which no guard lets through.
    unsafe { raw::func_volatile(function) as u8 != pg_sys::PROVOLATILE_IMMUTABLE }
}
