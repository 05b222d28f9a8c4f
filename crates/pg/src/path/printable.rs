//! Expressions of the planner, made ready for ruleutils.
//!
//! They are copies: the planner's own trees stay as they are.

use crate::print::foldable::Foldable;
use crate::print::prepare;
use crate::sys::node;
use pgrx::pg_sys::{self, NodeTag, Oid};

/// The expression as ruleutils shall print it: parameters where the coordinator computes, no placeholders (where
/// they matter nothing is pushed down), and collations spelled out, which the planner hides in casts.
///
/// # Safety
///
/// A live expression of the planner; what is kept of it stays live.
pub(crate) unsafe fn printable(
    expression: *mut pg_sys::Node,
    init_params: &[i32],
    first: usize,
    expressions: &mut Vec<*mut pg_sys::Node>,
) -> *mut pg_sys::Node {
    // SAFETY: the caller passes a live expression.
    unsafe {
        let foldable = Foldable::of(expression, init_params);
        printable_part(expression, &foldable, first, expressions)
    }
}

/// The same for a part of an expression.
unsafe fn printable_part(
    expression: *mut pg_sys::Node,
    foldable: &Foldable,
    first: usize,
    expressions: &mut Vec<*mut pg_sys::Node>,
) -> *mut pg_sys::Node {
    node::check_depth();
    // SAFETY: the caller passes a live expression; each node is cast to the struct of its tag.
    unsafe {
        let own = node::rewrite(expression, &mut |n| {
            let mut number_of = |n| prepare::number_in(expressions, n);
            if let Some(parameter) = prepare::fold_one(n, false, foldable, first, &mut number_of) {
                return Some(parameter);
            }
            if let Some(holder) =
                node::cast::<pg_sys::PlaceHolderVar, _>(n, NodeTag::T_PlaceHolderVar)
            {
                let below = (*holder).phexpr.cast();
                return Some(printable_part(below, foldable, first, expressions));
            }
            let cast = node::cast::<pg_sys::RelabelType, _>(n, NodeTag::T_RelabelType)?;
            let hidden = (*cast).resultcollid;
            let below = (*cast).arg.cast::<pg_sys::Node>();
            if hidden == Oid::INVALID || hidden == pg_sys::exprCollation(below) {
                return None;
            }
            let collate: *mut pg_sys::CollateExpr = node::make(NodeTag::T_CollateExpr);
            let inner = printable_part(below, foldable, first, expressions);
            (*collate).collOid = hidden;
            (*collate).location = -1;
            (*collate).arg = if (*cast).resulttype == pg_sys::exprType(below) {
                inner.cast()
            } else {
                let own: *mut pg_sys::RelabelType = node::copy(cast);
                (*own).arg = inner.cast();
                (*own).relabelformat = pg_sys::CoercionForm::COERCE_EXPLICIT_CAST;
                own.cast()
            };
            Some(collate.cast())
        });
        if own == expression { node::copy(own) } else { own }
    }
}
