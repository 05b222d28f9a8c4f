//! Paths and orders that the stages above the joins have in common.

use crate::path::base;
use crate::path::pushed::{self, Order, Pushed};
use crate::path::remote::Column;
use crate::sys::node::{self, Visit};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use planner::cost;
use std::rc::Rc;

/// How many groups the planner takes so many rows to have by these expressions.
///
/// # Safety
///
/// Live structures of the planner.
pub(crate) unsafe fn estimated_groups(
    root: *mut pg_sys::PlannerInfo,
    expressions: *mut pg_sys::List,
    rows: f64,
) -> f64 {
    if expressions.is_null() {
        return 1.0;
    }
    let (sets, flags) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the caller vouches for the structures.
    unsafe { pg_sys::estimate_num_groups(root, expressions, rows, sets, flags) }
}

/// The path's rows sorted. Keys that are the same in all rows are none to the planner, and there is no sort by none.
pub(crate) unsafe fn sorted_by(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    path: *mut pg_sys::Path,
    keys: *mut pg_sys::List,
    limit: f64,
) -> *mut pg_sys::Path {
    if keys.is_null() {
        return path;
    }
    // SAFETY: the planner's live structures.
    unsafe { pg_sys::create_sort_path(root, rel, path, keys, limit).cast() }
}

/// A path like `path` whose rows each node sorts, to be merged here.
///
/// # Safety
///
/// Live structures of the planner.
pub(crate) unsafe fn merged(
    path: *mut pg_sys::CustomPath,
    below: &Pushed,
    order: Vec<Order>,
) -> *mut pg_sys::CustomPath {
    // SAFETY: a live path of ours; the planner's settings.
    unsafe {
        let rows = (*path).path.rows;
        let compare = 2.0 * pg_sys::cpu_operator_cost;
        let mut worked = (*below.remote).clone();
        let (spent, merging) = cost::merging(worked.spent(), rows, compare, worked.extent());
        (worked.work, worked.before) = (spent.work, spent.before);
        let copy = base::make_path((*path).path.parent, (*path).path.pathtarget, rows, &worked);
        (*copy).path.total_cost += merging;
        let mut pushed = below.clone();
        pushed.order = order;
        pushed::attach(copy, pushed);
        copy
    }
}

/// The workers have the type's order from PostgreSQL itself: not so the order of an enum, for example.
///
/// # Safety
///
/// Live structures of the planner.
pub(crate) unsafe fn is_sorted_alike_everywhere(expression: *mut pg_sys::Node) -> bool {
    // SAFETY: a live expression of the planner; a syscache look-up by value.
    let base = unsafe { pg_sys::getBaseType(pg_sys::exprType(expression)) };
    base.to_u32() < crate::sys::value::FIRST_USER_OID
        && !matches!(base, pg_sys::RECORDOID | pg_sys::RECORDARRAYOID | pg_sys::ANYENUMOID)
}

/// The clauses as a node can sort by them.
pub(crate) unsafe fn order_of(
    root: *mut pg_sys::PlannerInfo,
    below: &Pushed,
    clauses: &[*mut pg_sys::SortGroupClause],
) -> Option<Vec<Order>> {
    // SAFETY: the planner's live structures.
    unsafe {
        let mut keys = Vec::new();
        for clause in clauses {
            let expression = pg_sys::get_sortgroupclause_expr(*clause, (*root).processed_tlist);
            let is_window = below.windows.is_some()
                && node::tag(expression) == NodeTag::T_WindowFunc
                && below.yields(expression);
            if !is_window && !below.remote.can_compute(expression, below.grouping.is_some()) {
                return None;
            }
            let descending = direction(*clause, expression)?;
            keys.push(Order {
                expression,
                descending,
                nulls_first: (**clause).nulls_first,
                operator: (**clause).sortop,
            });
        }
        Some(keys)
    }
}

/// Our path among those of a relation, one that is not sorted, and the target of the projection above it, if there is one.
unsafe fn own_path(
    rel: *mut pg_sys::RelOptInfo,
) -> Option<(*mut pg_sys::CustomPath, *mut pg_sys::PathTarget)> {
    // SAFETY: a live relation of the planner.
    unsafe {
        let is_unsorted =
            |path| pushed::attached(path).is_some_and(|pushed| pushed.order.is_empty());
        for path in node::elements::<pg_sys::Path>((*rel).pathlist) {
            if is_unsorted(path) {
                return Some((path.cast(), std::ptr::null_mut()));
            }
            if let Some(projection) =
                node::cast::<pg_sys::ProjectionPath, _>(path, NodeTag::T_ProjectionPath)
                && is_unsorted((*projection).subpath)
            {
                return Some(((*projection).subpath.cast(), (*projection).path.pathtarget));
            }
        }
        None
    }
}

/// Such a path with which nothing has been done yet that concerns all of a node's rows, and which is all of its relation;
/// with what it sends.
///
/// # Safety
///
/// Live structures of the planner.
pub(crate) unsafe fn plain_path(
    rel: *mut pg_sys::RelOptInfo,
) -> Option<(*mut pg_sys::CustomPath, *mut pg_sys::PathTarget, Rc<Pushed>)> {
    // SAFETY: a live relation of the planner.
    let (path, projection) = unsafe { own_path(rel)? };
    let below = pushed::attached(path.cast())?;
    (below.is_plain() && below.remote.complete).then_some((path, projection, below))
}

pub(crate) unsafe fn project(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    path: *mut pg_sys::Path,
    target: *mut pg_sys::PathTarget,
) -> *mut pg_sys::Path {
    // SAFETY: the planner's live structures.
    unsafe {
        if target.is_null() {
            path
        } else {
            pg_sys::create_projection_path(root, rel, path, target).cast()
        }
    }
}

/// The clause sorts by the type's usual order: descending or not.
///
/// # Safety
///
/// Live structures of the planner.
pub(crate) unsafe fn direction(
    clause: *mut pg_sys::SortGroupClause,
    expression: *mut pg_sys::Node,
) -> Option<bool> {
    // SAFETY: a live clause; syscache look-ups by value.
    unsafe {
        let (family, strategy) = version::ordering((*clause).sortop)?;
        let usual = pg_sys::GetDefaultOpClass(pg_sys::exprType(expression), pg_sys::BTREE_AM_OID);
        if usual == Oid::INVALID || pg_sys::get_opclass_family(usual) != family {
            return None;
        }
        Some(strategy == pg_sys::BTGreaterStrategyNumber as i16)
    }
}

/// The expression needs no row.
///
/// # Safety
///
/// Live structures of the planner.
pub(crate) unsafe fn is_free_of_columns(expression: *mut pg_sys::Node) -> bool {
    // SAFETY: a live expression of the planner.
    unsafe {
        !node::walk(expression, &mut |n| match node::tag(n) {
            NodeTag::T_Var | NodeTag::T_Aggref | NodeTag::T_WindowFunc => Visit::Stop,
            _ => Visit::Into,
        })
    }
}

pub(crate) unsafe fn has_equality(expression: *mut pg_sys::Node) -> bool {
    // SAFETY: a live expression; the cache entry lives as long as the backend.
    unsafe {
        let var = node::cast::<pg_sys::Var, _>(expression, NodeTag::T_Var);
        if var.is_some_and(|var| (*var).varattno <= 0) {
            return false;
        }
        let type_oid = pg_sys::exprType(expression);
        let entry = pg_sys::lookup_type_cache(
            type_oid,
            (pg_sys::TYPECACHE_HASH_PROC | pg_sys::TYPECACHE_EQ_OPR) as i32,
        );
        type_oid.to_u32() < crate::sys::value::FIRST_USER_OID
            && (*entry).hash_proc != Oid::INVALID
            && crate::read::facts::is_deterministic(pg_sys::exprCollation(expression))
    }
}

/// The column that an expression is.
///
/// # Safety
///
/// Live structures of the planner.
pub(crate) unsafe fn column_of(expression: *mut pg_sys::Node) -> Option<Column> {
    // SAFETY: a live expression of the planner.
    unsafe {
        let var = node::cast::<pg_sys::Var, _>(
            crate::read::facts::strip_relabel(expression),
            NodeTag::T_Var,
        )?;
        ((*var).varlevelsup == 0 && (*var).varno > 0)
            .then(|| ((*var).varno as u32, (*var).varattno))
    }
}
