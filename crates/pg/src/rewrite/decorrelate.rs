//! Correlated sub-queries as joins: `x < (SELECT avg(..) FROM t WHERE t.a = outer.b ...)` in WHERE would be computed once
//! for each row of the outer query, over rows that have to be fetched each time. It says the same as a join with the
//! groups of `t`:
//!
//! ```sql
//! FROM ..., (SELECT avg(..), t.a FROM t WHERE ... GROUP BY t.a) s WHERE x < s.1 AND s.2 = outer.b
//! ```
//!
//! as long as the aggregate of no rows is NULL and the comparison with NULL is not true, since rows without a group are
//! then dropped either way. If the outer query filters the table of `b` by itself, the groups are made for the values
//! only that pass: `t.a IN (SELECT b FROM that table WHERE its filters)`. Kim, "On Optimizing an SQL-like Nested Query"
//! (1982), and the magic sets of Mumick and others (1990).
//!
//! Works on the analysed query, before PostgreSQL plans it. What does not fit here becomes a LEFT JOIN by `sublink.rs`, as LATERAL
//! does by `lateral.rs`, or
//! is left as it is.

use crate::read::query::Statement;
use crate::rewrite::correlation::{
    add_relation, and, column, conjuncts_of, correlations_of, group, raw, replace_argument,
    restriction,
};
use crate::rewrite::lateral;
use crate::rewrite::sublink;
use crate::sys::node::{self, Visit};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};

impl Statement {
    /// The statement with correlated sub-queries over distributed tables as joins; none if there are none.
    pub fn decorrelated(&self, is_distributed: &dyn Fn(Oid) -> bool) -> Option<Statement> {
        // SAFETY: a live Query of the planner hook; the copy is private.
        unsafe {
            if !has_sub_query(self.parse) {
                return None;
            }
            let copy: *mut pg_sys::Query = node::copy(self.parse);
            version::flatten_groups(copy, false);
            let mut queries: Vec<*mut pg_sys::Query> = Vec::new();
            node::walk(copy, &mut |n| {
                if node::tag(n) == NodeTag::T_Query {
                    queries.push(n.cast());
                }
                Visit::Into
            });
            // Inner ones first, so that what is moved has been looked at.
            let mut changed = false;
            for query in queries.into_iter().rev() {
                changed |= rewrite_query(query, is_distributed);
            }
            if changed {
                version::settle_nulling(copy);
            }
            changed.then_some(Statement { parse: copy })
        }
    }
}

/// Something in the query could become a join.
unsafe fn has_sub_query(query: *mut pg_sys::Query) -> bool {
    // SAFETY: the caller passes a live Query.
    unsafe {
        node::walk(query, &mut |n| {
            let is_one = match node::tag(n) {
                NodeTag::T_SubLink => true,
                NodeTag::T_Query => {
                    node::elements::<pg_sys::RangeTblEntry>((*n.cast::<pg_sys::Query>()).rtable)
                        .into_iter()
                        .any(|entry| (*entry).lateral)
                }
                _ => false,
            };
            if is_one { Visit::Stop } else { Visit::Into }
        })
    }
}

unsafe fn rewrite_query(query: *mut pg_sys::Query, is_distributed: &dyn Fn(Oid) -> bool) -> bool {
    // SAFETY: the caller passes a private, live Query.
    unsafe {
        if (*query).commandType != pg_sys::CmdType::CMD_SELECT
            || !(*query).rowMarks.is_null()
            || !(*query).setOperations.is_null()
            || (*query).jointree.is_null()
            || version::has_group_entry(query)
        {
            return false;
        }
        let conjuncts = conjuncts_of((*(*query).jointree).quals);
        let mut changed = false;
        for (place, conjunct) in conjuncts.iter().enumerate() {
            let others: Vec<*mut pg_sys::Node> = conjuncts
                .iter()
                .enumerate()
                .filter(|(index, _)| *index != place)
                .map(|(_, other)| *other)
                .collect();
            changed |= rewrite_conjunct(query, *conjunct, &others, is_distributed);
        }
        changed |= lateral::rewrite(query, is_distributed);
        sublink::rewrite(query, is_distributed) || changed
    }
}

unsafe fn rewrite_conjunct(
    query: *mut pg_sys::Query,
    conjunct: *mut pg_sys::Node,
    others: &[*mut pg_sys::Node],
    is_distributed: &dyn Fn(Oid) -> bool,
) -> bool {
    // SAFETY: a live conjunct of a private Query.
    unsafe {
        let Some(op) = node::cast::<pg_sys::OpExpr, _>(conjunct, NodeTag::T_OpExpr) else {
            return false;
        };
        if node::length((*op).args) != 2 || !pg_sys::op_strict((*op).opno) {
            return false;
        }
        let arguments = node::elements::<pg_sys::Node>((*op).args);
        let link = |n: *mut pg_sys::Node| {
            node::cast::<pg_sys::SubLink, _>(n, NodeTag::T_SubLink)
                .filter(|link| (**link).subLinkType == pg_sys::SubLinkType::EXPR_SUBLINK)
        };
        let (place, link) = match (link(arguments[0]), link(arguments[1])) {
            (Some(link), None) => (0, link),
            (None, Some(link)) => (1, link),
            _ => return false,
        };
        let below = (*link).subselect.cast::<pg_sys::Query>();
        if !(Statement { parse: below }).tables().into_iter().any(is_distributed) {
            return false;
        }
        let Some(correlations) = correlations_of(below) else { return false };

        let restriction = restriction(query, &correlations, others);
        group(below, &correlations);
        if let Some(restriction) = restriction {
            let quals = (*(*below).jointree).quals;
            (*(*below).jointree).quals = and(quals, restriction);
            (*below).hasSubLinks = true;
        }
        // The sub-query stands in FROM now.
        let number = add_relation(query, below);
        let reference: *mut pg_sys::RangeTblRef = node::make(NodeTag::T_RangeTblRef);
        (*reference).rtindex = number;
        (*(*query).jointree).fromlist =
            pg_sys::lappend((*(*query).jointree).fromlist, reference.cast());
        let column = |index: usize| column(below, number, index);
        replace_argument(op, place, column(0));
        for (index, correlation) in correlations.iter().enumerate() {
            let join: *mut pg_sys::OpExpr = node::copy(correlation.clause);
            let outer: *mut pg_sys::Node = node::nth((*join).args, 1 - correlation.inner);
            pg_sys::ffi::pg_guard_ffi_boundary(|| raw::IncrementVarSublevelsUp(outer, -1, 1));
            replace_argument(join, correlation.inner, column(index + 1));
            (*(*query).jointree).quals = and((*(*query).jointree).quals, join.cast());
        }
        true
    }
}
