//! What PostgreSQL's rewriter leaves in a query that ruleutils takes for something else: it prints stored rules and views,
//! which no rewriter has seen.

use crate::read::query::write_of;
use crate::sys::node::{self, Visit};
use crate::sys::plan::Command;
use pgrx::pg_sys::{self, NodeTag};

/// The target of an UPDATE or DELETE stands in its FROM list; the rewriter marks it as written there by the user
/// when it stood in a view, and ruleutils would then print it twice. What a rule brings along (its event's table as OLD
/// or NEW, a view by now) is marked as not written there, and would not be printed.
pub(crate) unsafe fn mark_from_items(query: *mut pg_sys::Query) {
    // SAFETY: the caller passes a private, live copy of a Query that writes.
    unsafe {
        if matches!(write_of(query), Some(Command::Update | Command::Delete)) {
            for item in node::elements::<pg_sys::Node>((*(*query).jointree).fromlist) {
                if let Some(item) =
                    node::cast::<pg_sys::RangeTblRef, _>(item, NodeTag::T_RangeTblRef)
                {
                    let rte: *mut pg_sys::RangeTblEntry =
                        node::nth((*query).rtable, (*item).rtindex as usize - 1);
                    (*rte).inFromCl = (*item).rtindex != (*query).resultRelation;
                }
            }
            let target: *mut pg_sys::RangeTblEntry =
                node::nth((*query).rtable, (*query).resultRelation as usize - 1);
            (*target).inFromCl = false;
        }
    }
}

/// SEARCH and CYCLE are columns and conditions of the WITH clause's query by now (`rewriteSearchAndCycle`), and would be
/// computed twice.
pub(crate) unsafe fn forget_search_and_cycle(query: *mut pg_sys::Query) {
    // SAFETY: the caller passes a private, live copy of a Query.
    unsafe {
        node::walk(query, &mut |n| {
            if let Some(query) = node::cast::<pg_sys::Query, _>(n, NodeTag::T_Query)
                && (*query).hasRecursive
            {
                for cte in node::elements::<pg_sys::CommonTableExpr>((*query).cteList) {
                    (*cte).search_clause = std::ptr::null_mut();
                    (*cte).cycle_clause = std::ptr::null_mut();
                }
            }
            Visit::Into
        });
    }
}

/// Has columns that a rule took from NEW printed as what the rewriter has made of them: it changes which entry of the
/// range table they are of, and leaves how they were written.
pub(crate) unsafe fn name_by_place<T>(n: *mut T, entries: *mut pg_sys::List, level: u32) {
    let n = n.cast::<pg_sys::Node>();
    // SAFETY: the caller passes a private, live copy of a Query that writes, or one below it, and the former's range table.
    unsafe {
        node::walk(n, &mut |part| {
            if part != n && node::tag(part) == NodeTag::T_Query {
                name_by_place(part, entries, level + 1);
                return Visit::Skip;
            }
            if let Some(var) = node::cast::<pg_sys::Var, _>(part, NodeTag::T_Var)
                && (*var).varlevelsup == level
                && (*var).varnosyn as i32 != (*var).varno
                && (1..=node::length(entries)).contains(&((*var).varnosyn as usize))
            {
                let written: *mut pg_sys::RangeTblEntry =
                    node::nth(entries, (*var).varnosyn as usize - 1);
                if (*written).rtekind != pg_sys::RTEKind::RTE_JOIN {
                    (*var).varnosyn = (*var).varno as u32;
                    (*var).varattnosyn = (*var).varattno;
                }
            }
            Visit::Into
        });
    }
}

/// Has columns printed by the relation that they are of: a column of a join with an alias remembers that it was written as one of
/// the join (`varnosyn`), which FROM has not.
///
/// # Safety
///
/// A private, live copy of an expression.
pub(crate) unsafe fn forget_spelling(own: *mut pg_sys::Node) {
    // SAFETY: the caller vouches for the copy.
    unsafe {
        node::walk(own, &mut |n| {
            if let Some(var) = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var) {
                ((*var).varnosyn, (*var).varattnosyn) = (0, 0);
            }
            Visit::Into
        });
    }
}
