//! DISTINCT on the workers: a node sends no row twice.

use crate::path::base;
use crate::path::pushed::{self, Grouping, Yield};
use crate::path::remote::{self, Column, Remote};
use crate::path::upper_path::{
    column_of, estimated_groups, has_equality, is_free_of_columns, order_of, plain_path, project,
    sorted_by,
};
use crate::sys::node;
use pgrx::pg_sys;
use planner::cost;
use std::rc::Rc;

/// The input's rows, each once from a node, if that can be asked for: a row is all columns that are needed.
pub(crate) unsafe fn distinct_rows(
    root: *mut pg_sys::PlannerInfo,
    input: *mut pg_sys::RelOptInfo,
    remote: &Rc<Remote>,
) -> Option<*mut pg_sys::Path> {
    // SAFETY: the planner's live structures.
    unsafe {
        let (path, projection, below) = plain_path(input)?;
        let target = if projection.is_null() { (*path).path.pathtarget } else { projection };
        let columns = match &below.outputs {
            None => remote::columns_in(remote, &node::elements::<pg_sys::Node>((*target).exprs)),
            Some(outputs) if below.windows.is_some() => {
                outputs.iter().map(|output| output.expression).collect()
            }
            Some(_) => return None,
        };
        if columns.is_empty() || !columns.iter().all(|column| has_equality(*column)) {
            return None;
        }
        let rows = estimated_groups(root, node::list_of(&columns), (*input).rows);
        let rows = cost::groups_of_nodes(rows, (*input).rows, remote.extent());
        let mut worked = (**remote).clone();
        worked.work += cost::grouping((*input).rows, 1);
        // The path may yield what a join needed that has been removed since; a node's rows are not distinct with it.
        let mut own = (*path).path.pathtarget;
        if !projection.is_null() && below.outputs.is_none() {
            own = pg_sys::create_empty_pathtarget();
            for column in &columns {
                pg_sys::add_column_to_pathtarget(own, (*column).cast(), 0);
            }
            pg_sys::set_pathtarget_cost_width(root, own);
        }
        let yields = columns
            .into_iter()
            .map(|expression| Yield { expression, partial: None })
            .collect::<Vec<_>>();
        let copy = base::make_path(input, own, rows, &worked);
        let mut pushed = (*below).clone();
        pushed.outputs = Some(yields);
        pushed.distinct = true;
        pushed::attach(copy, pushed);
        Some(project(root, input, copy.cast(), projection))
    }
}

/// SELECT DISTINCT.
pub(crate) unsafe fn distinct(
    root: *mut pg_sys::PlannerInfo,
    input: *mut pg_sys::RelOptInfo,
    output: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        let parse = (*root).parse;
        if (*parse).hasDistinctOn {
            return distinct_on(root, input, output);
        }
        if (*parse).hasTargetSRFs || !pg_sys::grouping_is_hashable((*parse).distinctClause) {
            return;
        }
        let is_grouped =
            !(*parse).groupClause.is_null() || !(*parse).groupingSets.is_null() || (*parse).hasAggs;
        let remote = match plain_path(input) {
            Some((_, _, below)) if below.windows.is_some() => Rc::clone(&below.remote),
            _ if is_grouped || (*parse).hasWindowFuncs => return,
            _ => match remote::noted(input) {
                Some(remote) if remote.complete => remote,
                _ => return,
            },
        };
        if !(*parse).hasWindowFuncs {
            whole_distinct(root, input, output, &remote);
        }
        let Some(path) = distinct_rows(root, input, &remote) else { return };
        let costs: pg_sys::AggClauseCosts = std::mem::zeroed();
        let path = pg_sys::create_agg_path(
            root,
            output,
            path,
            (*path).pathtarget,
            pg_sys::AggStrategy::AGG_HASHED,
            pg_sys::AggSplit::AGGSPLIT_SIMPLE,
            (*parse).distinctClause,
            std::ptr::null_mut(),
            &costs,
            (*path).rows,
        );
        pg_sys::add_path(output, path.cast());
    }
}

/// SELECT DISTINCT ON: the first rows of each node, by ORDER BY, and once more of these, unless the equal ones all lie
/// in one shard.
unsafe fn distinct_on(
    root: *mut pg_sys::PlannerInfo,
    input: *mut pg_sys::RelOptInfo,
    output: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        let parse = (*root).parse;
        let Some((path, projection, below)) = plain_path(input) else { return };
        let is_grouped = !(*parse).groupClause.is_null() || (*parse).hasAggs;
        if (*parse).hasTargetSRFs
            || !(*parse).groupingSets.is_null()
            || is_grouped && below.grouping.is_none()
            || (*parse).hasWindowFuncs && below.windows.is_none()
            || (*root).distinct_pathkeys.is_null()
        {
            return;
        }
        // DISTINCT ON has to begin with what ORDER BY begins with.
        let distinct = node::elements::<pg_sys::SortGroupClause>((*parse).distinctClause);
        let mut clauses = node::elements::<pg_sys::SortGroupClause>((*parse).sortClause);
        for clause in &distinct {
            let is_it = |known: &*mut pg_sys::SortGroupClause| {
                (**known).tleSortGroupRef == (**clause).tleSortGroupRef
            };
            if !clauses.iter().any(is_it) {
                clauses.push(*clause);
            }
        }
        let Some(order) = order_of(root, &below, &clauses) else { return };
        let first_of: Vec<*mut pg_sys::Node> = distinct
            .iter()
            .map(|clause| pg_sys::get_sortgroupclause_expr(*clause, (*root).processed_tlist))
            .collect();
        let columns: Vec<Column> =
            first_of.iter().filter_map(|expression| column_of(*expression)).collect();
        let rows = (*path).path.rows;
        let groups = estimated_groups(root, node::list_of(&first_of), rows);
        let is_whole = below.remote.locus.keeps_together(&columns);
        let extent = below.remote.extent();
        let sent = if is_whole { groups } else { cost::groups_of_nodes(groups, rows, extent) };
        let mut worked = (*below.remote).clone();
        worked.work += cost::grouping(rows, 1);
        let copy = base::make_path(input, (*path).path.pathtarget, sent, &worked);
        let mut pushed = (*below).clone();
        pushed.first_of = first_of;
        pushed.order = order;
        pushed::attach(copy, pushed);
        let path = project(root, input, copy.cast(), projection);
        if is_whole {
            return pg_sys::add_path(output, path);
        }
        // As `create_final_distinct_paths` of `src/backend/optimizer/plan/planner.c` does.
        let keys = node::length((*root).distinct_pathkeys);
        let needed = if keys < node::length((*root).sort_pathkeys) {
            (*root).sort_pathkeys
        } else {
            (*root).distinct_pathkeys
        };
        let sorted = sorted_by(root, output, path, needed, -1.0);
        let unique = pg_sys::create_upper_unique_path(root, output, sorted, keys as i32, groups);
        pg_sys::add_path(output, unique.cast());
    }
}

/// SELECT DISTINCT of rows that are in one shard if they are equal: as groups.
unsafe fn whole_distinct(
    root: *mut pg_sys::PlannerInfo,
    input: *mut pg_sys::RelOptInfo,
    output: *mut pg_sys::RelOptInfo,
    remote: &Rc<Remote>,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        let Some((path, projection, below)) = plain_path(input) else { return };
        let target = if projection.is_null() { (*path).path.pathtarget } else { projection };
        let list = node::elements::<pg_sys::Node>((*target).exprs);
        let columns: Vec<Column> = list.iter().filter_map(|column| column_of(*column)).collect();
        if below.grouping.is_some()
            || !remote.locus.keeps_together(&columns)
            || !list
                .iter()
                .all(|column| !is_free_of_columns(*column) && remote.can_compute(*column, false))
        {
            return;
        }
        let rows = estimated_groups(root, (*target).exprs, (*input).rows);
        let mut worked = (**remote).clone();
        worked.work += cost::grouping((*input).rows, 1);
        let copy = base::make_path(output, target, rows, &worked);
        let mut pushed = (*below).clone();
        pushed.grouping =
            Some(Grouping { keys: (0..list.len()).collect(), sets: None, having: Vec::new() });
        let yields = list.into_iter().map(|expression| Yield { expression, partial: None });
        pushed.outputs = Some(yields.collect());
        pushed::attach(copy, pushed);
        pg_sys::add_path(output, copy.cast());
    }
}
