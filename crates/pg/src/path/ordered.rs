//! ORDER BY with LIMIT, and LIMIT, on the workers: a node sends no more rows than the LIMIT lets through.

use crate::path::base;
use crate::path::pushed::{self, Order, Pushed};
use crate::path::upper_path::{
    is_free_of_columns, is_sorted_alike_everywhere, merged, order_of, plain_path, project,
    sorted_by,
};
use crate::sys::node;
use pgrx::pg_sys::{self, NodeTag};
use planner::cost;

/// ORDER BY: with LIMIT each node's first rows, without it sorted streams.
pub(crate) unsafe fn order(
    root: *mut pg_sys::PlannerInfo,
    input: *mut pg_sys::RelOptInfo,
    output: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        let parse = (*root).parse;
        if (*parse).sortClause.is_null() {
            return;
        }
        let Some((path, projection, below)) = plain_path(input) else { return };
        if !rows_pass_singly(parse, &below) {
            return;
        }
        let target = (*root).upper_targets[pg_sys::UpperRelationKind::UPPERREL_ORDERED as usize];
        let mut clauses = node::elements::<pg_sys::SortGroupClause>((*parse).sortClause);
        let Some(limit) = constant_limit(parse) else {
            let sorted_by = |clause: &*mut pg_sys::SortGroupClause| {
                pg_sys::get_sortgroupclause_expr(*clause, (*root).processed_tlist)
            };
            // The same in all rows; and what is sent must not be asked for as well (`set_customscan_references`).
            clauses.retain(|clause| !is_free_of_columns(sorted_by(clause)));
            let mut alike = clauses.iter().map(sorted_by);
            if clauses.is_empty() || !alike.all(|it| is_sorted_alike_everywhere(it)) {
                return;
            }
            // A row of several groupings has its columns only, and windows are not printed as keys.
            let has_sets = below.grouping.as_ref().is_some_and(|grouping| grouping.sets.is_some());
            if below.windows.is_some()
                || has_sets && !clauses.iter().all(|clause| below.yields(sorted_by(clause)))
            {
                return;
            }
            let Some(keys) = order_of(root, &below, &clauses) else { return };
            let merged = merged(path, &below, keys);
            let below = project(root, input, merged.cast(), projection);
            let path = pg_sys::apply_projection_to_path(root, output, below, target);
            (*path).pathkeys = (*root).sort_pathkeys;
            return pg_sys::add_path(output, path);
        };
        let Some(keys) = order_of(root, &below, &clauses) else { return };
        let copy = limited(path, &below, keys, limit);
        let below = project(root, input, copy.cast(), projection);
        let sorted = sorted_by(root, output, below, (*root).sort_pathkeys, limit as f64);
        let path = pg_sys::apply_projection_to_path(root, output, sorted, target);
        pg_sys::add_path(output, path);
    }
}

/// LIMIT without ORDER BY.
pub(crate) unsafe fn limit(
    root: *mut pg_sys::PlannerInfo,
    input: *mut pg_sys::RelOptInfo,
    output: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        let parse = (*root).parse;
        let Some(limit) = constant_limit(parse) else { return };
        if !(*parse).sortClause.is_null() {
            return;
        }
        let Some((path, projection, below)) = plain_path(input) else { return };
        if !rows_pass_singly(parse, &below) {
            return;
        }
        let copy = limited(path, &below, Vec::new(), limit);
        let below = project(root, input, copy.cast(), projection);
        let path = pg_sys::create_limit_path(
            root,
            output,
            below,
            (*parse).limitOffset,
            (*parse).limitCount,
            (*parse).limitOption,
            0,
            limit,
        );
        pg_sys::add_path(output, path.cast());
    }
}

/// A path like `path` of which each node sends the first `limit` rows.
unsafe fn limited(
    path: *mut pg_sys::CustomPath,
    below: &Pushed,
    order: Vec<Order>,
    limit: i64,
) -> *mut pg_sys::CustomPath {
    // SAFETY: a live path of ours.
    unsafe {
        let rows = cost::limited_rows(limit, (*path).path.rows, below.remote.extent());
        let mut worked = (*below.remote).clone();
        if !order.is_empty() {
            worked.work += cost::finding_first((*path).path.rows);
        }
        let copy = base::make_path((*path).path.parent, (*path).path.pathtarget, rows, &worked);
        let mut pushed = below.clone();
        pushed.order = order;
        pushed.limit = Some(limit);
        pushed::attach(copy, pushed);
        copy
    }
}

/// How many rows LIMIT and OFFSET together let through, if both are constants.
unsafe fn constant_limit(parse: *mut pg_sys::Query) -> Option<i64> {
    // SAFETY: a live query; limits are of type int8.
    unsafe {
        if (*parse).limitOption != pg_sys::LimitOption::LIMIT_OPTION_COUNT {
            return None;
        }
        let constant = |n: *mut pg_sys::Node| {
            let constant = node::cast::<pg_sys::Const, _>(n, NodeTag::T_Const)?;
            (!(*constant).constisnull).then_some((*constant).constvalue.value() as i64)
        };
        let count = constant((*parse).limitCount)?;
        let offset =
            if (*parse).limitOffset.is_null() { 0 } else { constant((*parse).limitOffset)? };
        (count >= 0 && offset >= 0).then(|| count.checked_add(offset)).flatten()
    }
}

/// Between what the workers have done and LIMIT nothing makes more or fewer rows, and none needs them all.
unsafe fn rows_pass_singly(parse: *mut pg_sys::Query, below: &Pushed) -> bool {
    // SAFETY: a live query.
    unsafe {
        (*parse).distinctClause.is_null()
            && (!(*parse).hasWindowFuncs || below.windows.is_some())
            && !(*parse).hasTargetSRFs
    }
}
