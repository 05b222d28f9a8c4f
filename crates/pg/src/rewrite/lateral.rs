//! LATERAL sub-queries that equalities alone tie to what stands before them, as joins:
//!
//! | what stands in FROM | what stands there then |
//! |---|---|
//! | `LATERAL (SELECT t.x FROM t WHERE t.a = outer.b ORDER BY t.y LIMIT 3) s` | `(SELECT t.x, t.a k, row_number() OVER (PARTITION BY t.a ORDER BY t.y) n FROM t) s`, joined on `s.k = outer.b AND s.n <= 3` |
//! | `LATERAL (SELECT count(*) c FROM t WHERE t.a = outer.b) s` | `LEFT JOIN (SELECT count(*) c, t.a k FROM t GROUP BY t.a) s ON s.k = outer.b`, and `coalesce(s.c, 0)` for `s.c` |
//!
//! By the rules of `sublink.rs`, which makes the relation; besides, what is selected must be infallible, since it is
//! computed of all rows. The aggregates' row is there whatever matches: such a sub-query must stand in an inner join, or in a
//! LEFT JOIN ON true, which no other outer join can take away. PostgreSQL pulls up by itself what neither limits nor
//! aggregates.

use crate::read::infallible::{is_infallible, is_infallible_aggregate};
use crate::rewrite::correlation::{and, has_sublink, refers_above};
use crate::rewrite::joined_subquery::{self, Moved, Way};
use crate::sys::node::{self, Visit};
use pgrx::pg_sys::{self, JoinType, NodeTag};
use std::ffi::c_int;

mod raw {
    //! Not among pgrx' bindings, so without its guard: the caller puts it around.
    use pgrx::pg_sys;
    use std::ffi::c_int;
    unsafe extern "C-unwind" {
        /// Guarded.
        pub(super) fn IncrementVarSublevelsUp(node: *mut pg_sys::Node, delta: c_int, least: c_int);
    }
}

/// LATERAL sub-queries of the query become joins; true if any did.
///
/// # Safety
///
/// A private, live SELECT.
pub(crate) unsafe fn rewrite(
    query: *mut pg_sys::Query,
    is_distributed: &dyn Fn(pg_sys::Oid) -> bool,
) -> bool {
    // SAFETY: the caller vouches for the query.
    unsafe {
        let many = node::length((*query).rtable) as c_int;
        let moved = (1..=many)
            .filter(|number| rewrite_item(query, *number, is_distributed).is_some())
            .count();
        moved > 0
    }
}

/// Where a relation stands.
struct Place {
    /// The reference to it.
    reference: *mut pg_sys::RangeTblRef,
    /// The join of which it is the right side; none: it is the last of FROM, or one before.
    join: Option<*mut pg_sys::JoinExpr>,
    is_last: bool,
    /// A join around it may put NULLs in place of its row.
    is_nullable: bool,
}

unsafe fn rewrite_item(
    query: *mut pg_sys::Query,
    number: c_int,
    is_distributed: &dyn Fn(pg_sys::Oid) -> bool,
) -> Option<()> {
    // SAFETY: a private query; what is made is made of nodes with the structs of their tags.
    unsafe {
        let entry: *mut pg_sys::RangeTblEntry = node::nth((*query).rtable, number as usize - 1);
        if (*entry).rtekind != pg_sys::RTEKind::RTE_SUBQUERY
            || !(*entry).lateral
            || (*entry).security_barrier
            || (*entry).subquery.is_null()
            || has_whole_row(query, number, 0)
        {
            return None;
        }
        let below = (*entry).subquery;
        let place = place_of(query, number)?;
        let mut none = Vec::new();
        let moved = Moved::of(query, below, &mut none, is_distributed)?;
        if !moved.belongs_to(&mut |relation| {
            place.join.is_none_or(|join| covers((*join).larg, relation))
        }) {
            return None;
        }
        let fits = match place.join.map(|join| (*join).jointype) {
            None | Some(JoinType::JOIN_INNER | JoinType::JOIN_LEFT) => {
                place.join.is_none_or(|join| (*join).usingClause.is_null() && !(*join).isNatural)
            }
            _ => false,
        };
        if !fits || !(*below).distinctClause.is_null() {
            return None;
        }
        let columns: Vec<*mut pg_sys::Node> =
            node::elements::<pg_sys::TargetEntry>((*below).targetList)
                .into_iter()
                .filter(|target| !(**target).resjunk)
                .map(|target| (*target).expr.cast())
                .collect();
        let plain = |column: &*mut pg_sys::Node| {
            is_infallible(*column) && !refers_above(*column, 0) && !has_sublink((*column).cast())
        };
        if !columns.iter().all(plain) {
            return None;
        }
        let (values, way) = if (*below).hasAggs {
            let mut aggregates = Vec::new();
            for column in &columns {
                aggregates_in(*column, &mut aggregates)?;
            }
            let always = match place.join {
                Some(join) => (*join).quals.is_null() || is_true((*join).quals),
                None => place.is_last,
            };
            if !(*below).limitCount.is_null() || place.is_nullable || !always {
                return None;
            }
            (aggregates, Way::Groups)
        } else {
            let limit = joined_subquery::limit_of(below)?;
            if (*below).limitCount.is_null() || limit < 0 {
                return None;
            }
            (columns.clone(), moved.first_rows(limit)?)
        };
        let aggregates = (*below).hasAggs;

        let (joined, on) = moved.relation(&values, way);
        (*place.reference).rtindex = joined.relation;
        match place.join {
            Some(join) if aggregates => {
                (*join).jointype = JoinType::JOIN_LEFT;
                (*join).quals = on;
                let own: *mut pg_sys::RangeTblEntry =
                    node::nth((*query).rtable, (*join).rtindex as usize - 1);
                (*own).jointype = JoinType::JOIN_LEFT;
            }
            Some(join) => (*join).quals = and((*join).quals, on),
            None if aggregates => {
                let tree = (*query).jointree;
                let mut from: Vec<*mut pg_sys::Node> = node::elements((*tree).fromlist);
                from.pop();
                (*tree).fromlist = node::list_of(&from);
                joined_subquery::join_to_all(query, joined.relation, on);
            }
            None => (*(*query).jointree).quals = and((*(*query).jointree).quals, on),
        }
        // The entry stays for the numbers' sake, as that of a sub-query which has been pulled up.
        (*entry).rtekind = pg_sys::RTEKind::RTE_RESULT;
        (*entry).subquery = std::ptr::null_mut();
        (*entry).lateral = false;
        let columns: Vec<*mut pg_sys::Node> = if aggregates {
            columns.into_iter().map(|column| joined.computed(column, &values)).collect()
        } else {
            joined.columns
        };
        *query = *with_columns(query, number, &columns, 0).cast::<pg_sys::Query>();
        Some(())
    }
}

/// Adds the aggregates of an expression to those that are known, if nothing is in the way.
unsafe fn aggregates_in(
    expression: *mut pg_sys::Node,
    aggregates: &mut Vec<*mut pg_sys::Node>,
) -> Option<()> {
    // SAFETY: a live expression.
    unsafe {
        let unknown = node::walk(expression, &mut |n| match node::tag(n) {
            NodeTag::T_Aggref => {
                let aggregate = n.cast::<pg_sys::Aggref>();
                if (*aggregate).agglevelsup != 0 || !is_infallible_aggregate(aggregate) {
                    return Visit::Stop;
                }
                if !aggregates.iter().any(|known| pg_sys::equal(known.cast(), n.cast())) {
                    aggregates.push(n);
                }
                Visit::Skip
            }
            NodeTag::T_GroupingFunc => Visit::Stop,
            _ => Visit::Into,
        });
        (!unknown).then_some(())
    }
}

unsafe fn is_true(condition: *mut pg_sys::Node) -> bool {
    // SAFETY: a live condition.
    unsafe {
        node::cast::<pg_sys::Const, _>(condition, NodeTag::T_Const)
            .is_some_and(|constant| !(*constant).constisnull && (*constant).constvalue.value() != 0)
    }
}

/// Where relation `number` stands, if it stands in FROM or on the right of a join.
unsafe fn place_of(query: *mut pg_sys::Query, number: c_int) -> Option<Place> {
    // SAFETY: a live query's join tree.
    unsafe {
        let from: Vec<*mut pg_sys::Node> = node::elements((*(*query).jointree).fromlist);
        for (index, item) in from.iter().enumerate() {
            if let Some(reference) = reference_to(*item, number) {
                let is_last = index > 0 && index + 1 == from.len();
                return Some(Place { reference, join: None, is_last, is_nullable: false });
            }
            if let Some(place) = place_in(*item, number, false) {
                return Some(place);
            }
        }
        None
    }
}

unsafe fn place_in(item: *mut pg_sys::Node, number: c_int, is_nullable: bool) -> Option<Place> {
    node::check_depth();
    // SAFETY: a live part of a join tree.
    unsafe {
        let join = node::cast::<pg_sys::JoinExpr, _>(item, NodeTag::T_JoinExpr)?;
        if let Some(reference) = reference_to((*join).rarg, number) {
            return Some(Place { reference, join: Some(join), is_last: false, is_nullable });
        }
        let kind = (*join).jointype;
        let left = is_nullable || matches!(kind, JoinType::JOIN_RIGHT | JoinType::JOIN_FULL);
        let right = is_nullable || matches!(kind, JoinType::JOIN_LEFT | JoinType::JOIN_FULL);
        place_in((*join).larg, number, left).or_else(|| place_in((*join).rarg, number, right))
    }
}

unsafe fn reference_to(item: *mut pg_sys::Node, number: c_int) -> Option<*mut pg_sys::RangeTblRef> {
    // SAFETY: a live part of a join tree.
    unsafe {
        node::cast::<pg_sys::RangeTblRef, _>(item, NodeTag::T_RangeTblRef)
            .filter(|reference| (**reference).rtindex == number)
    }
}

/// The relation is part of this part of a join tree.
unsafe fn covers(item: *mut pg_sys::Node, relation: c_int) -> bool {
    node::check_depth();
    // SAFETY: a live part of a join tree.
    unsafe {
        if reference_to(item, relation).is_some() {
            return true;
        }
        if let Some(from) = node::cast::<pg_sys::FromExpr, _>(item, NodeTag::T_FromExpr) {
            return node::elements((*from).fromlist).into_iter().any(|one| covers(one, relation));
        }
        node::cast::<pg_sys::JoinExpr, _>(item, NodeTag::T_JoinExpr).is_some_and(|join| {
            (*join).rtindex == relation
                || covers((*join).larg, relation)
                || covers((*join).rarg, relation)
        })
    }
}

/// Something refers to the relation's row as a whole.
unsafe fn has_whole_row<T>(tree: *mut T, relation: c_int, depth: u32) -> bool {
    let tree = tree.cast::<pg_sys::Node>();
    // SAFETY: a live query, or a part of it that lies so deep.
    unsafe {
        node::walk(tree, &mut |n| {
            if n != tree && node::tag(n) == NodeTag::T_Query {
                return if has_whole_row(n, relation, depth + 1) {
                    Visit::Stop
                } else {
                    Visit::Skip
                };
            }
            let var = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var);
            let is_whole = var.is_some_and(|var| {
                (*var).varno == relation && (*var).varlevelsup == depth && (*var).varattno <= 0
            });
            if is_whole { Visit::Stop } else { Visit::Into }
        })
    }
}

/// A copy with expressions for the relation's columns.
unsafe fn with_columns<T>(
    tree: *mut T,
    relation: c_int,
    columns: &[*mut pg_sys::Node],
    depth: u32,
) -> *mut pg_sys::Node {
    node::check_depth();
    let tree = tree.cast::<pg_sys::Node>();
    // SAFETY: as in `has_whole_row`; what is put in is a copy. The closure of the guard holds nothing to drop.
    unsafe {
        node::rewrite(tree, &mut |n| {
            if n != tree && node::tag(n) == NodeTag::T_Query {
                return Some(with_columns(n, relation, columns, depth + 1));
            }
            let var = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var)?;
            if (*var).varno != relation || (*var).varlevelsup != depth {
                return None;
            }
            let column = usize::try_from((*var).varattno).ok()?.checked_sub(1)?;
            let own: *mut pg_sys::Node = node::copy(*columns.get(column)?);
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                raw::IncrementVarSublevelsUp(own, depth as c_int, 0);
            });
            Some(own)
        })
    }
}
