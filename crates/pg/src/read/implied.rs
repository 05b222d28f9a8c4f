//! Operators that a statement uses and that SQL has no place to name: those of NULLIF, IS DISTINCT FROM, CASE x WHEN y,
//! JOIN USING, and of rows that are compared.
//!
//! Ruleutils writes `OPERATOR(schema.=)` where it can. Here it cannot, and a node, which looks in `pg_catalog` only, would take
//! another operator: two values of type `citext` would be compared as texts.

use crate::sys::node;
use crate::sys::value::FIRST_USER_OID;
use pgrx::pg_sys::{self, NodeTag, Oid};

/// The node has an operator of users that the printed SQL would not name.
///
/// # Safety
///
/// A live node of a Query.
pub(crate) unsafe fn has_unnamed_operator(n: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller vouches for the node, which is cast to the struct of its tag.
    unsafe {
        match node::tag(n) {
            NodeTag::T_DistinctExpr | NodeTag::T_NullIfExpr => {
                is_of_users((*n.cast::<pg_sys::OpExpr>()).opno)
            }
            NodeTag::T_CaseExpr if !(*n.cast::<pg_sys::CaseExpr>()).arg.is_null() => {
                node::elements::<pg_sys::CaseWhen>((*n.cast::<pg_sys::CaseExpr>()).args)
                    .into_iter()
                    .any(|when| compares((*when).expr.cast()))
            }
            NodeTag::T_RowCompareExpr => {
                let operators = (*n.cast::<pg_sys::RowCompareExpr>()).opnos;
                (0..node::length(operators))
                    .any(|index| is_of_users((*(*operators).elements.add(index)).oid_value))
            }
            // One operator has a name of its own there; of several only the first.
            NodeTag::T_SubLink => is_and((*n.cast::<pg_sys::SubLink>()).testexpr)
                .is_some_and(|tests| tests.into_iter().any(|test| compares(test))),
            NodeTag::T_JoinExpr if !(*n.cast::<pg_sys::JoinExpr>()).usingClause.is_null() => {
                let quals = (*n.cast::<pg_sys::JoinExpr>()).quals;
                is_and(quals)
                    .unwrap_or_else(|| vec![quals])
                    .into_iter()
                    .any(|test| !test.is_null() && compares(test))
            }
            _ => false,
        }
    }
}

/// It is a comparison by an operator of users.
unsafe fn compares(test: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller passes a live expression.
    unsafe {
        node::cast::<pg_sys::OpExpr, _>(test, NodeTag::T_OpExpr)
            .is_some_and(|test| is_of_users((*test).opno))
    }
}

/// What AND or OR joins.
unsafe fn is_and(test: *mut pg_sys::Node) -> Option<Vec<*mut pg_sys::Node>> {
    // SAFETY: the caller passes a live expression or null.
    unsafe {
        node::cast::<pg_sys::BoolExpr, _>(test, NodeTag::T_BoolExpr)
            .map(|both| node::elements((*both).args))
    }
}

fn is_of_users(operator: Oid) -> bool {
    operator.to_u32() >= FIRST_USER_OID
}
