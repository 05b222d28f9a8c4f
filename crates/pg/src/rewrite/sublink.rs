//! Correlated sub-queries anywhere in a query as LEFT JOINs: in the SELECT list, under OR, in CASE, in arguments.
//!
//! | what stands there | what is joined, on `s.k = outer.b` | what stands there then |
//! |---|---|---|
//! | `(SELECT 1 + count(*) FROM t WHERE t.a = outer.b)` | `(SELECT count(*) c, t.a k FROM t GROUP BY t.a) s` | `1 + coalesce(s.c, 0)` |
//! | `EXISTS (SELECT FROM t WHERE t.a = outer.b)` | `(SELECT t.a k FROM t GROUP BY t.a) s` | `s.k IS NOT NULL` |
//! | `(SELECT t.x FROM t WHERE t.a = outer.b)`, where no two rows agree in `a` | `(SELECT t.x, t.a k FROM t) s` | `s.x` |
//! | `(SELECT t.x FROM t WHERE t.a = outer.b ORDER BY t.y LIMIT 1)` | `(SELECT t.x, t.a k, row_number() OVER (PARTITION BY t.a ORDER BY t.y) n FROM t) s`, and `s.n <= 1` | `s.x` |
//!
//! Each outer row meets one row of `s` at most, and none if its value is NULL or nothing equals it. What is computed of
//! the aggregates or of the row's columns is computed where the sub-query stood, when it would have been; so its errors
//! are those of the sub-query. What is computed in `s` is computed of rows that nobody may have asked for: it must be
//! infallible (`infallible.rs`). Aggregates of the server are NULL of no rows, but for `count` and `regr_count`.
//!
//! Not moved: what row security or a security barrier guards, what is volatile, what depends on the query around by
//! anything but equalities, and, where the query around has groups, what stands outside its aggregates and WHERE. EXISTS
//! that PostgreSQL makes a semi-join or an anti-join by itself is left to it.

use crate::rewrite::correlation::conjuncts_of;
use crate::rewrite::joined_subquery::{Grouped, Moved};
use crate::sys::node::{self, Visit};
use pgrx::pg_sys::{self, NodeTag, Oid, SubLinkType};

/// Sub-queries of the query's expressions become joins; true if any did.
///
/// # Safety
///
/// A private, live SELECT.
pub(crate) unsafe fn rewrite(
    query: *mut pg_sys::Query,
    is_distributed: &dyn Fn(Oid) -> bool,
) -> bool {
    // SAFETY: the caller vouches for the query; parts of it that are replaced are private.
    unsafe {
        if node::length((*(*query).jointree).fromlist) == 0 {
            return false;
        }
        let mut done: Vec<(*mut pg_sys::SubLink, *mut pg_sys::Node)> = Vec::new();
        let mut grouped = Vec::new();
        for link in sub_queries(query) {
            // Equal ones are computed once.
            let known = done
                .iter()
                .find(|(known, _)| pg_sys::equal(known.cast(), link.cast()))
                .map(|(_, replacement)| *replacement);
            let original: *mut pg_sys::SubLink = node::copy(link);
            let replacement = match known {
                Some(replacement) => replacement,
                None => match replace(query, link, &mut grouped, is_distributed) {
                    Some(replacement) => replacement,
                    None => continue,
                },
            };
            done.push((original, replacement));
            put_in_place(query, link, replacement);
        }
        !done.is_empty()
    }
}

unsafe fn put_in_place(
    query: *mut pg_sys::Query,
    link: *mut pg_sys::SubLink,
    replacement: *mut pg_sys::Node,
) {
    // SAFETY: a private query; sub-queries are not gone into, so that pointers to others stay good.
    unsafe {
        let put = |part: *mut pg_sys::Node| {
            if part.is_null() { part } else { with(part, link, replacement) }
        };
        (*query).targetList = put((*query).targetList.cast()).cast();
        (*query).havingQual = put((*query).havingQual);
        (*(*query).jointree).quals = put((*(*query).jointree).quals);
    }
}

/// The expression with `replacement` for `link`. Other sub-queries stay the nodes that they are.
unsafe fn with(
    expression: *mut pg_sys::Node,
    link: *mut pg_sys::SubLink,
    replacement: *mut pg_sys::Node,
) -> *mut pg_sys::Node {
    // SAFETY: a live expression; the replacement is copied.
    unsafe {
        node::rewrite(expression, &mut |n| {
            if n == link.cast() {
                return Some(node::copy(replacement));
            }
            let is_other = node::tag(n) == NodeTag::T_Query
                || node::tag(n) == NodeTag::T_SubLink && !contains(n, link);
            is_other.then_some(n)
        })
    }
}

unsafe fn contains(n: *mut pg_sys::Node, link: *mut pg_sys::SubLink) -> bool {
    // SAFETY: a live expression.
    unsafe {
        node::walk(n, &mut |part| match part {
            _ if part == link.cast() => Visit::Stop,
            _ if node::tag(part) == NodeTag::T_Query => Visit::Skip,
            _ => Visit::Into,
        })
    }
}

/// The sub-queries that could become joins by where they stand.
unsafe fn sub_queries(query: *mut pg_sys::Query) -> Vec<*mut pg_sys::SubLink> {
    // SAFETY: a live query.
    unsafe {
        let mut found = Vec::new();
        let groups = (*query).hasAggs
            || !(*query).groupClause.is_null()
            || !(*query).groupingSets.is_null()
            || !(*query).havingQual.is_null();
        if groups {
            // A column that comes by a join is none of the groups'.
            for part in [(*query).targetList.cast(), (*query).havingQual] {
                node::walk(part, &mut |n: *mut pg_sys::Node| match node::tag(n) {
                    NodeTag::T_Aggref if (*n.cast::<pg_sys::Aggref>()).agglevelsup == 0 => {
                        collect(n, &mut found);
                        Visit::Skip
                    }
                    NodeTag::T_Query => Visit::Skip,
                    _ => Visit::Into,
                });
            }
        } else {
            collect((*query).targetList.cast(), &mut found);
        }
        for conjunct in conjuncts_of((*(*query).jointree).quals) {
            if !is_joined_anyway(conjunct) {
                collect(conjunct, &mut found);
            }
        }
        found
    }
}

unsafe fn collect(part: *mut pg_sys::Node, found: &mut Vec<*mut pg_sys::SubLink>) {
    // SAFETY: null or a live expression.
    unsafe {
        node::walk(part, &mut |n| match node::tag(n) {
            NodeTag::T_SubLink => {
                found.push(n.cast());
                Visit::Into
            }
            NodeTag::T_Query => Visit::Skip,
            _ => Visit::Into,
        });
    }
}

/// `EXISTS (...)` or `NOT EXISTS (...)` by itself, for which PostgreSQL has joins.
unsafe fn is_joined_anyway(conjunct: *mut pg_sys::Node) -> bool {
    // SAFETY: a live condition.
    unsafe {
        let mut bare = conjunct;
        if let Some(not) = node::cast::<pg_sys::BoolExpr, _>(bare, NodeTag::T_BoolExpr)
            && (*not).boolop == pg_sys::BoolExprType::NOT_EXPR
        {
            bare = node::nth((*not).args, 0);
        }
        node::cast::<pg_sys::SubLink, _>(bare, NodeTag::T_SubLink)
            .is_some_and(|link| (*link).subLinkType == SubLinkType::EXISTS_SUBLINK)
    }
}

/// Joins what the sub-query needs; what stands in its place, or none if it has to stay.
unsafe fn replace(
    query: *mut pg_sys::Query,
    link: *mut pg_sys::SubLink,
    grouped: &mut Vec<Grouped>,
    is_distributed: &dyn Fn(Oid) -> bool,
) -> Option<*mut pg_sys::Node> {
    // SAFETY: a private query and a sub-query of it.
    unsafe {
        let below = (*link).subselect.cast::<pg_sys::Query>();
        let moved = Moved::of(query, below, grouped, is_distributed)?;
        match (*link).subLinkType {
            SubLinkType::EXISTS_SUBLINK => moved.exists(),
            SubLinkType::EXPR_SUBLINK if (*below).hasAggs => moved.aggregates(),
            SubLinkType::EXPR_SUBLINK if (*below).limitCount.is_null() => moved.only_row(),
            SubLinkType::EXPR_SUBLINK => moved.first_row(),
            _ => None,
        }
    }
}
