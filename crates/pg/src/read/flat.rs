//! Nested conditions of one kind as one: `((a OR b) OR c) OR d` is `a OR b OR c OR d`.
//!
//! The parser makes them flat as they are written, but of `(x, y) IN (...)` with thousands of rows it makes thousands of
//! levels, of which PostgreSQL's planner gets rid early. We go through a statement more often than it, and print it, which
//! takes more of the stack; so we flatten first. Neither the value nor the order of evaluation changes.

use crate::read::query::Statement;
use crate::sys::node::{self, Visit};
use pgrx::pg_sys::{self, NodeTag};

impl Statement {
    /// Flattens the conditions of the statement, in its place: the planner may change what it is given.
    pub fn flatten_conditions(&self) {
        // SAFETY: a live Query of the planner hook; a BoolExpr has a list of expressions.
        unsafe {
            node::walk(self.parse, &mut |n| {
                if let Some(expr) = node::cast::<pg_sys::BoolExpr, _>(n, NodeTag::T_BoolExpr) {
                    flatten(expr);
                }
                Visit::Into
            });
        }
    }
}

/// The arguments of a condition if it is of this kind and has several.
unsafe fn arguments(
    n: *mut pg_sys::Node,
    kind: pg_sys::BoolExprType::Type,
) -> Option<*mut pg_sys::List> {
    // SAFETY: the caller passes a live expression.
    unsafe {
        node::cast::<pg_sys::BoolExpr, _>(n, NodeTag::T_BoolExpr)
            .filter(|expr| (**expr).boolop == kind && kind != pg_sys::BoolExprType::NOT_EXPR)
            .map(|expr| (*expr).args)
    }
}

unsafe fn flatten(expr: *mut pg_sys::BoolExpr) {
    // SAFETY: the caller passes a live expression.
    unsafe {
        let kind = (*expr).boolop;
        let args = (*expr).args;
        let is_flat =
            (0..node::length(args)).all(|index| arguments(node::nth(args, index), kind).is_none());
        if is_flat {
            return;
        }
        let (mut flat, mut waiting) = (Vec::new(), node::elements::<pg_sys::Node>(args));
        waiting.reverse();
        while let Some(next) = waiting.pop() {
            match arguments(next, kind) {
                Some(inner) => waiting.extend(node::elements::<pg_sys::Node>(inner).iter().rev()),
                None => flat.push(next),
            }
        }
        (*expr).args = node::list_of(&flat);
    }
}
