//! What stands above the joins, on the workers: grouping, DISTINCT, ORDER BY with LIMIT, LIMIT.
//!
//! Groups that lie in one shard each are made there and are done. Others are made in parts: PostgreSQL plans its
//! parallel aggregation, with the partial half on the nodes and its own Finalize above (`aggregate.rs`). A node sends
//! no row twice for DISTINCT, and no more rows than the LIMIT lets through; what is left is done here once more.

use crate::hooks;
use crate::path::aggregate::{self, PartialAggregate};
use crate::path::base;
use crate::path::pushed::{self, Grouping, Order, Pushed, Yield};
use crate::path::remote::{self, Column, Remote};
use crate::path::window;
use crate::sys::error::boundary;
use crate::sys::node::{self, Visit};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::ffi::c_void;
use std::rc::Rc;

mod raw {
    //! Not among pgrx' bindings.
    use pgrx::pg_sys;
    unsafe extern "C-unwind" {
        /// Guarded.
        pub(super) fn get_agg_clause_costs(
            root: *mut pg_sys::PlannerInfo,
            split: pg_sys::AggSplit::Type,
            costs: *mut pg_sys::AggClauseCosts,
        );
    }
}

/// `create_upper_paths_hook`.
///
/// # Safety
///
/// Called by the planner with its own structures.
pub(crate) unsafe extern "C-unwind" fn upper_paths(
    root: *mut pg_sys::PlannerInfo,
    stage: pg_sys::UpperRelationKind::Type,
    input: *mut pg_sys::RelOptInfo,
    output: *mut pg_sys::RelOptInfo,
    extra: *mut c_void,
) {
    // SAFETY: the planner's live structures; `extra` is the struct of the stage.
    unsafe {
        if let Some(previous) = hooks::previous_upper_paths() {
            previous(root, stage, input, output, extra);
        }
        boundary(|| {
            if !hooks::planner().pushes_down()
                || (*(*root).parse).commandType != pg_sys::CmdType::CMD_SELECT
                || !(*(*root).parse).rowMarks.is_null()
                || !(*root).rowMarks.is_null()
            {
                return Ok(());
            }
            match stage {
                pg_sys::UpperRelationKind::UPPERREL_GROUP_AGG => {
                    group(root, input, output, extra.cast());
                }
                pg_sys::UpperRelationKind::UPPERREL_WINDOW => window::windows(root, input, output),
                pg_sys::UpperRelationKind::UPPERREL_DISTINCT => distinct(root, input, output),
                pg_sys::UpperRelationKind::UPPERREL_ORDERED => order(root, input, output),
                pg_sys::UpperRelationKind::UPPERREL_FINAL => limit(root, input, output),
                _ => {}
            }
            Ok(())
        });
    }
}

/// GROUP BY and aggregates.
unsafe fn group(
    root: *mut pg_sys::PlannerInfo,
    input: *mut pg_sys::RelOptInfo,
    output: *mut pg_sys::RelOptInfo,
    extra: *mut pg_sys::GroupPathExtraData,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        let parse = (*root).parse;
        let Some(remote) = remote::noted(input).filter(|remote| remote.complete) else { return };
        version::sort_in_aggregates(root);
        if !(*parse).groupingSets.is_null() {
            return group_sets(root, input, output, &remote, extra);
        }
        let having = node::elements::<pg_sys::Node>((*extra).havingQual.cast());
        let target = below_grouping((*output).reltarget, parse, &having);
        let outputs = node::elements::<pg_sys::Node>((*target).exprs);
        // GROUPING over a single set is always 0, and not worth a case.
        if outputs.iter().any(|output| node::tag(*output) == NodeTag::T_GroupingFunc) {
            return;
        }
        // The rows of a set-valued key are made below the grouping.
        if (*parse).hasTargetSRFs
            && outputs.iter().any(|output| pg_sys::expression_returns_set(*output))
        {
            return;
        }
        let is_key = |index: usize| {
            let reference = if (*target).sortgrouprefs.is_null() {
                0
            } else {
                *(*target).sortgrouprefs.add(index)
            };
            reference != 0
                && !pg_sys::get_sortgroupref_clause_noerr(reference, (*parse).groupClause).is_null()
        };
        // What has no column is computed here, from the same parameters that are sent.
        let comes_back = |index: &usize| !is_free_of_columns(outputs[*index]);
        let keys: Vec<usize> =
            (0..outputs.len()).filter(|index| is_key(*index)).filter(comes_back).collect();
        if keys.is_empty() && !(*parse).groupClause.is_null() {
            return;
        }
        let is_whole = outputs.iter().all(|expression| remote.can_compute(*expression, true));
        if !is_whole && !has_parts(root, &remote, &outputs) {
            return distinct_arguments(root, input, output, &remote, extra);
        }
        let key_list: Vec<*mut pg_sys::Node> = keys.iter().map(|key| outputs[*key]).collect();
        let groups = if (*parse).groupClause.is_null() {
            1.0
        } else {
            pg_sys::estimate_num_groups(
                root,
                node::list_of(&key_list),
                (*input).rows,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        let columns: Vec<Column> = key_list.iter().filter_map(|key| column_of(*key)).collect();
        if is_whole
            && remote.locus.keeps_together(&columns)
            && having.iter().all(|clause| remote.can_compute(*clause, true))
        {
            let mut grouped = (*remote).clone();
            grouped.work += (*input).rows * 0.02;
            let rows = if having.is_empty() { groups } else { groups / 3.0 };
            let path = base::make_path(output, target, rows, &grouped);
            let mut pushed = Pushed::all(Rc::clone(&remote));
            let wanted: Vec<usize> = (0..outputs.len()).filter(comes_back).collect();
            // Columns that depend on the keys are no keys here, but may have to be where there is no primary key.
            let is_aggregate = |index: usize| node::tag(outputs[index]) == NodeTag::T_Aggref;
            let keys = (0..wanted.len()).filter(|place| !is_aggregate(wanted[*place])).collect();
            pushed.grouping = Some(Grouping { keys, sets: None, having });
            let yields =
                wanted.iter().map(|index| Yield { expression: outputs[*index], partial: None });
            pushed.outputs = Some(yields.collect());
            pushed::attach(path, pushed);
            let path =
                pg_sys::apply_projection_to_path(root, output, path.cast(), (*output).reltarget);
            return pg_sys::add_path(output, path);
        }
        if (*root).hasNonPartialAggs || (*root).hasNonSerialAggs {
            return distinct_arguments(root, input, output, &remote, extra);
        }
        // Above, the aggregates are known as partial ones.
        let target = with_partial_aggregates(root, target);
        let known_as = node::elements::<pg_sys::Node>((*target).exprs);
        let mut yields = Vec::new();
        for index in (0..outputs.len()).filter(comes_back) {
            let aggregate = node::cast::<pg_sys::Aggref, _>(outputs[index], NodeTag::T_Aggref);
            let partial = match aggregate.map(|aggregate| PartialAggregate::of(aggregate, &remote))
            {
                Some(None) => return,
                partial => partial.flatten(),
            };
            yields.push(Yield { expression: known_as[index], partial });
        }
        let nodes = hooks::planner().node_count(remote.tables[0]).max(1) as f64;
        let shards = (hooks::planner().shard_count(remote.tables[0]) as f64).max(nodes);
        // A worker groups a shard's rows quicker than the union of its shards' rows, of which it knows less.
        let by_shard = groups * (shards - nodes) * base::TRANSFER < (*input).rows * 0.01;
        let batches = if by_shard { shards } else { nodes };
        let rows = (groups * batches).min((*input).rows.max(1.0));
        let mut partial = (*remote).clone();
        partial.work += (*input).rows * if by_shard { 0.015 } else { 0.02 };
        let partial_rel = partial_relation(root, input, target);
        let path = base::make_path(partial_rel, target, rows, &partial);
        let mut pushed = Pushed::all(Rc::clone(&remote));
        pushed.outputs = Some(yields);
        pushed.partial = true;
        pushed.by_shard = by_shard;
        pushed::attach(path, pushed);
        finish_groups(root, output, path.cast(), extra, groups);
    }
}

/// GROUPING SETS, ROLLUP and CUBE.
///
/// If every set has a column that spreads the rows, each group lies in one shard. Otherwise the nodes make the groups of
/// all sets in parts, and tell by GROUPING which set a part is of: that is one more key for PostgreSQL's Finalize, which
/// keeps apart a key that is NULL and a key that is not in the set.
unsafe fn group_sets(
    root: *mut pg_sys::PlannerInfo,
    input: *mut pg_sys::RelOptInfo,
    output: *mut pg_sys::RelOptInfo,
    remote: &Rc<Remote>,
    extra: *mut pg_sys::GroupPathExtraData,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        let parse = (*root).parse;
        let having = node::elements::<pg_sys::Node>((*extra).havingQual.cast());
        let target = below_grouping((*output).reltarget, parse, &having);
        let outputs = node::elements::<pg_sys::Node>((*target).exprs);
        if (*parse).hasTargetSRFs
            && outputs.iter().any(|output| pg_sys::expression_returns_set(*output))
        {
            return;
        }
        let references: Vec<u32> = (0..outputs.len())
            .map(|index| {
                let all = (*target).sortgrouprefs;
                if all.is_null() { 0 } else { *all.add(index) }
            })
            .collect();
        let Some(sets) = sets_of(parse, &references) else { return };
        let keys: Vec<usize> = (0..outputs.len()).filter(|index| references[*index] != 0).collect();
        let is_made = |index: usize| {
            matches!(node::tag(outputs[index]), NodeTag::T_Aggref | NodeTag::T_GroupingFunc)
        };
        // A key without columns would be computed here, and is NULL for some sets. Of two keys that are the same one is
        // NULL where the other is not.
        let is_repeated = |key: &usize| {
            let others = keys.iter().filter(|other| *other != key);
            others
                .into_iter()
                .any(|other| pg_sys::equal(outputs[*other].cast(), outputs[*key].cast()))
        };
        if keys.is_empty()
            || keys.iter().any(is_repeated)
            || keys.iter().any(|key| is_free_of_columns(outputs[*key]))
        {
            return;
        }
        let is_computed = outputs.iter().all(|expression| remote.can_compute(*expression, true));
        if !is_computed && !has_parts(root, remote, &outputs) {
            return;
        }
        // Columns that depend on a primary key, which is in all sets then.
        let dependent: Vec<usize> = (0..outputs.len())
            .filter(|index| references[*index] == 0 && !is_made(*index))
            .collect();
        let nodes = hooks::planner().node_count(remote.tables[0]).max(1) as f64;
        let (mut groups, mut parts, mut is_whole) = (0.0, 0.0, is_computed);
        for set in &sets {
            let expressions: Vec<*mut pg_sys::Node> = set.iter().map(|key| outputs[*key]).collect();
            let many = if set.is_empty() {
                1.0
            } else {
                pg_sys::estimate_num_groups(
                    root,
                    node::list_of(&expressions),
                    (*input).rows,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                )
            };
            let columns: Vec<Column> =
                expressions.iter().filter_map(|key| column_of(*key)).collect();
            let lies_together = remote.locus.keeps_together(&columns);
            groups += many;
            parts += if lies_together { many } else { (many * nodes).min((*input).rows.max(1.0)) };
            is_whole &= lies_together;
        }
        let mut worked = (**remote).clone();
        worked.work += (*input).rows * 0.02 * sets.len() as f64;
        if is_whole && having.iter().all(|clause| remote.can_compute(*clause, true)) {
            let rows = if having.is_empty() { groups } else { groups / 3.0 };
            let path = base::make_path(output, target, rows, &worked);
            let mut pushed = Pushed::all(Rc::clone(remote));
            let sets = sets
                .into_iter()
                .map(|set| set.into_iter().chain(dependent.iter().copied()).collect())
                .collect();
            pushed.grouping = Some(Grouping { keys, sets: Some(sets), having });
            let yields =
                outputs.into_iter().map(|expression| Yield { expression, partial: None }).collect();
            pushed.outputs = Some(yields);
            pushed::attach(path, pushed);
            let path =
                pg_sys::apply_projection_to_path(root, output, path.cast(), (*output).reltarget);
            return pg_sys::add_path(output, path);
        }
        // Sets that are the same set twice could not be told apart, nor more keys than GROUPING takes. A node that is
        // not asked would not tell that there are no rows, which the empty set shows.
        let is_twice = (1..sets.len()).any(|index| sets[..index].contains(&sets[index]));
        if (*root).hasNonPartialAggs
            || (*root).hasNonSerialAggs
            || is_twice
            || !dependent.is_empty()
            || keys.len() > 31
            || !pg_sys::grouping_is_hashable((*parse).groupClause)
            || sets.iter().any(Vec::is_empty) && may_leave_out_nodes(remote)
        {
            return;
        }
        let own = pg_sys::copy_pathtarget(target);
        let mut clause = pg_sys::list_copy((*parse).groupClause);
        let mut reference = 1 + node::elements::<pg_sys::TargetEntry>((*root).processed_tlist)
            .into_iter()
            .map(|entry| (*entry).ressortgroupref)
            .max()
            .unwrap_or(0);
        let all: *mut pg_sys::GroupingFunc = node::make(NodeTag::T_GroupingFunc);
        (*all).args = node::list_of(&keys.iter().map(|key| outputs[*key]).collect::<Vec<_>>());
        for key in &keys {
            (*all).refs = pg_sys::lappend_int((*all).refs, references[*key] as i32);
        }
        (*all).location = -1;
        pg_sys::add_column_to_pathtarget(own, all.cast(), 0);
        for (index, expression) in
            node::elements::<pg_sys::Node>((*own).exprs).into_iter().enumerate()
        {
            if node::tag(expression) == NodeTag::T_GroupingFunc {
                *(*own).sortgrouprefs.add(index) = reference;
                clause = pg_sys::lappend(clause, integer_key(reference).cast());
                reference += 1;
            }
        }
        let own = with_partial_aggregates(root, own);
        let known_as = node::elements::<pg_sys::Node>((*own).exprs);
        let mut yields = Vec::new();
        for (index, expression) in known_as.into_iter().enumerate() {
            let aggregate = outputs
                .get(index)
                .and_then(|known| node::cast::<pg_sys::Aggref, _>(*known, NodeTag::T_Aggref));
            let partial = match aggregate.map(|aggregate| PartialAggregate::of(aggregate, remote)) {
                Some(None) => return,
                partial => partial.flatten(),
            };
            yields.push(Yield { expression, partial });
        }
        let partial_rel = partial_relation(root, input, own);
        let path = base::make_path(partial_rel, own, parts, &worked);
        let mut pushed = Pushed::all(Rc::clone(remote));
        pushed.outputs = Some(yields);
        pushed.partial = true;
        pushed.partial_sets = Some(sets);
        pushed::attach(path, pushed);
        let split = pg_sys::AggSplit::AGGSPLIT_FINAL_DESERIAL;
        let costs = aggregate_costs(root, split);
        let path = pg_sys::create_agg_path(
            root,
            output,
            path.cast(),
            (*output).reltarget,
            pg_sys::AggStrategy::AGG_HASHED,
            split,
            clause,
            (*extra).havingQual.cast(),
            &costs,
            groups,
        );
        pg_sys::add_path(output, path.cast());
    }
}

/// The workers can compute all of it, if aggregates may be in parts.
unsafe fn has_parts(
    root: *mut pg_sys::PlannerInfo,
    remote: &Remote,
    outputs: &[*mut pg_sys::Node],
) -> bool {
    // SAFETY: the planner's live structures.
    unsafe {
        !(*root).hasNonPartialAggs
            && !(*root).hasNonSerialAggs
            && outputs.iter().all(|expression| {
                remote.can_compute(*expression, true) || aggregate::has_parts(*expression, remote)
            })
    }
}

/// The keys of each set, as numbers of the outputs that have these references.
unsafe fn sets_of(parse: *mut pg_sys::Query, references: &[u32]) -> Option<Vec<Vec<usize>>> {
    // SAFETY: a live query whose sets the planner has expanded to lists of references (`preprocess_grouping_sets` of
    // `src/backend/optimizer/plan/planner.c`); an empty one is NIL.
    unsafe {
        node::elements::<pg_sys::List>((*parse).groupingSets)
            .into_iter()
            .map(|set| {
                if !set.is_null() && node::tag(set) != NodeTag::T_IntList {
                    return None;
                }
                let mut keys = (0..node::length(set))
                    .map(|index| {
                        let reference = (*(*set).elements.add(index)).int_value as u32;
                        references.iter().position(|known| *known == reference)
                    })
                    .collect::<Option<Vec<usize>>>()?;
                keys.sort_unstable();
                keys.dedup();
                Some(keys)
            })
            .collect()
    }
}

/// Filters or rows that are sent along may lead past a node, or past all of them.
unsafe fn may_leave_out_nodes(remote: &Remote) -> bool {
    let mentions_key = |filter: &remote::Filter| {
        filter.is_sharded
            && filter.clauses.iter().any(|clause| {
                // SAFETY: a live clause of the planner.
                unsafe {
                    node::walk(*clause, &mut |n| match node::cast::<pg_sys::Var, _>(
                        n,
                        NodeTag::T_Var,
                    ) {
                        Some(var)
                            if (*var).varno as u32 == filter.relation
                                && (*var).varattno == filter.key.column =>
                        {
                            Visit::Stop
                        }
                        _ => Visit::Into,
                    })
                }
            })
    };
    !remote.broadcasts().is_empty() || remote.filters.iter().any(mentions_key)
}

/// A further key of GROUP BY, of type int4.
unsafe fn integer_key(reference: u32) -> *mut pg_sys::SortGroupClause {
    // SAFETY: the node is made with the struct of its tag; looked up are operators of a type of the server.
    unsafe {
        let (mut less, mut equal, mut hashable) = (Oid::INVALID, Oid::INVALID, false);
        pg_sys::get_sort_group_operators(
            pg_sys::INT4OID,
            true,
            true,
            false,
            &raw mut less,
            &raw mut equal,
            std::ptr::null_mut(),
            &raw mut hashable,
        );
        let clause: *mut pg_sys::SortGroupClause = node::make(NodeTag::T_SortGroupClause);
        (*clause).tleSortGroupRef = reference;
        (*clause).eqop = equal;
        (*clause).sortop = less;
        (*clause).hashable = hashable;
        clause
    }
}

/// The planner's relation of groups in parts.
unsafe fn partial_relation(
    root: *mut pg_sys::PlannerInfo,
    input: *mut pg_sys::RelOptInfo,
    target: *mut pg_sys::PathTarget,
) -> *mut pg_sys::RelOptInfo {
    // SAFETY: the planner's live structures.
    unsafe {
        let stage = pg_sys::UpperRelationKind::UPPERREL_PARTIAL_GROUP_AGG;
        let relation = pg_sys::fetch_upper_rel(root, stage, (*input).relids);
        let known = (*relation).reltarget;
        if known.is_null() || node::length((*known).exprs) == 0 {
            (*relation).reltarget = target;
        }
        relation
    }
}

/// What the query's aggregates cost in that half of their work.
unsafe fn aggregate_costs(
    root: *mut pg_sys::PlannerInfo,
    split: pg_sys::AggSplit::Type,
) -> pg_sys::AggClauseCosts {
    // SAFETY: the planner's live structures; the costs are filled before they are read.
    unsafe {
        let mut costs: pg_sys::AggClauseCosts = std::mem::zeroed();
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            raw::get_agg_clause_costs(root, split, &raw mut costs);
        });
        costs
    }
}

/// PostgreSQL's Finalize over partial groups.
unsafe fn finish_groups(
    root: *mut pg_sys::PlannerInfo,
    output: *mut pg_sys::RelOptInfo,
    partial: *mut pg_sys::Path,
    extra: *mut pg_sys::GroupPathExtraData,
    groups: f64,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        let split = pg_sys::AggSplit::AGGSPLIT_FINAL_DESERIAL;
        let costs = aggregate_costs(root, split);
        add_aggregate(root, output, partial, split, (*extra).havingQual.cast(), &costs, groups);
    }
}

/// Aggregation here over `below`, hashed if the keys can be, else sorted.
unsafe fn add_aggregate(
    root: *mut pg_sys::PlannerInfo,
    output: *mut pg_sys::RelOptInfo,
    below: *mut pg_sys::Path,
    split: pg_sys::AggSplit::Type,
    having: *mut pg_sys::List,
    costs: &pg_sys::AggClauseCosts,
    groups: f64,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        let clause = (*(*root).parse).groupClause;
        let mut below = below;
        let hashes_only =
            split == pg_sys::AggSplit::AGGSPLIT_FINAL_DESERIAL || (*root).numOrderedAggs == 0;
        let strategy = if clause.is_null() {
            pg_sys::AggStrategy::AGG_PLAIN
        } else if hashes_only && pg_sys::grouping_is_hashable(clause) {
            pg_sys::AggStrategy::AGG_HASHED
        } else if pg_sys::grouping_is_sortable(clause) {
            below = sorted_by(root, output, below, (*root).group_pathkeys, -1.0);
            pg_sys::AggStrategy::AGG_SORTED
        } else {
            return;
        };
        let path = pg_sys::create_agg_path(
            root,
            output,
            below,
            (*output).reltarget,
            strategy,
            split,
            clause,
            having,
            costs,
            groups,
        );
        pg_sys::add_path(output, path.cast());
    }
}

/// Aggregates that take no value twice, over rows of which a node sends none twice.
unsafe fn distinct_arguments(
    root: *mut pg_sys::PlannerInfo,
    input: *mut pg_sys::RelOptInfo,
    output: *mut pg_sys::RelOptInfo,
    remote: &Rc<Remote>,
    extra: *mut pg_sys::GroupPathExtraData,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        let mut wanted = node::elements::<pg_sys::Node>((*(*output).reltarget).exprs);
        wanted.push((*extra).havingQual);
        let takes_all = wanted.iter().any(|expression| {
            node::walk(*expression, &mut |n| match node::cast::<pg_sys::Aggref, _>(
                n,
                NodeTag::T_Aggref,
            ) {
                Some(aggregate) if !ignores_repetition(aggregate) => Visit::Stop,
                _ => Visit::Into,
            })
        });
        if takes_all || !(*(*root).parse).hasAggs {
            return;
        }
        let Some(path) = distinct_rows(root, input, remote) else { return };
        let split = pg_sys::AggSplit::AGGSPLIT_SIMPLE;
        let costs = aggregate_costs(root, split);
        let groups = (*path).rows;
        add_aggregate(root, output, path, split, (*extra).havingQual.cast(), &costs, groups);
    }
}

/// The result is the same if a row comes twice.
unsafe fn ignores_repetition(aggregate: *mut pg_sys::Aggref) -> bool {
    // SAFETY: a live aggregate of the planner.
    unsafe {
        if !(*aggregate).aggdistinct.is_null() {
            return true;
        }
        let is_own = (*aggregate).aggfnoid.to_u32() < crate::sys::value::FIRST_USER_OID;
        let name = node::text_of(pg_sys::get_func_name((*aggregate).aggfnoid));
        is_own && ["min", "max", "bool_and", "bool_or", "every"].contains(&name.as_str())
    }
}

/// The input's rows, each once from a node, if that can be asked for: a row is all columns that are needed.
unsafe fn distinct_rows(
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
        let rows = pg_sys::estimate_num_groups(
            root,
            node::list_of(&columns),
            (*input).rows,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        );
        let nodes = hooks::planner().node_count(remote.tables[0]).max(1) as f64;
        let rows = (rows * nodes).min((*input).rows.max(1.0));
        let mut worked = (**remote).clone();
        worked.work += (*input).rows * 0.02;
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
unsafe fn distinct(
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
        let groups = pg_sys::estimate_num_groups(
            root,
            node::list_of(&first_of),
            rows,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        );
        let is_whole = below.remote.locus.keeps_together(&columns);
        let nodes = hooks::planner().node_count(below.remote.tables[0]).max(1) as f64;
        let sent = if is_whole { groups } else { (groups * nodes).min(rows) };
        let mut worked = (*below.remote).clone();
        worked.work += rows * 0.02;
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
        let rows = pg_sys::estimate_num_groups(
            root,
            (*target).exprs,
            (*input).rows,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        );
        let mut worked = (**remote).clone();
        worked.work += (*input).rows * 0.02;
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

/// ORDER BY: with LIMIT each node's first rows, without it sorted streams.
unsafe fn order(
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

/// The path's rows sorted. Keys that are the same in all rows are none to the planner, and there is no sort by none.
unsafe fn sorted_by(
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
        let nodes = hooks::planner().node_count(below.remote.tables[0]).max(1) as f64;
        let rows = (*path).path.rows;
        let compare = 2.0 * pg_sys::cpu_operator_cost;
        let mut worked = (*below.remote).clone();
        let of_node = (rows / nodes).max(2.0);
        // The nodes sort at the same time, before the first row comes.
        let sorting = compare * of_node * of_node.log2();
        worked.before += worked.work / nodes + sorting;
        worked.work = 0.0;
        let copy = base::make_path((*path).path.parent, (*path).path.pathtarget, rows, &worked);
        (*copy).path.total_cost += rows * compare * (nodes + 1.0).log2();
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
unsafe fn order_of(
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

/// LIMIT without ORDER BY.
unsafe fn limit(
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
        let nodes = hooks::planner().node_count(below.remote.tables[0]).max(1) as f64;
        let rows = (limit as f64 * nodes).min((*path).path.rows);
        let mut worked = (*below.remote).clone();
        if !order.is_empty() {
            worked.work += (*path).path.rows * 0.01;
        }
        let copy = base::make_path((*path).path.parent, (*path).path.pathtarget, rows, &worked);
        let mut pushed = below.clone();
        pushed.order = order;
        pushed.limit = Some(limit);
        pushed::attach(copy, pushed);
        copy
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

unsafe fn project(
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

/// ` NULLS FIRST` or ` NULLS LAST`, where it is not what goes without saying.
pub(crate) fn nulls_of(descending: bool, nulls_first: bool) -> &'static str {
    match (descending, nulls_first) {
        (false, true) => " NULLS FIRST",
        (true, false) => " NULLS LAST",
        _ => "",
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

unsafe fn has_equality(expression: *mut pg_sys::Node) -> bool {
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

/// What grouping has to yield so that the target above can be computed: the keys, and aggregates.
///
/// As `make_partial_grouping_target` of `src/backend/optimizer/plan/planner.c` does, which is not exported.
unsafe fn below_grouping(
    above: *mut pg_sys::PathTarget,
    parse: *mut pg_sys::Query,
    having: &[*mut pg_sys::Node],
) -> *mut pg_sys::PathTarget {
    // SAFETY: the planner's live structures.
    unsafe {
        let target = pg_sys::create_empty_pathtarget();
        let mut others: Vec<*mut pg_sys::Node> = Vec::new();
        for (index, expression) in
            node::elements::<pg_sys::Node>((*above).exprs).into_iter().enumerate()
        {
            let reference = if (*above).sortgrouprefs.is_null() {
                0
            } else {
                *(*above).sortgrouprefs.add(index)
            };
            let is_key = reference != 0
                && !pg_sys::get_sortgroupref_clause_noerr(reference, (*parse).groupClause)
                    .is_null();
            if is_key {
                pg_sys::add_column_to_pathtarget(target, expression.cast(), reference);
            } else {
                others.push(expression);
            }
        }
        others.extend_from_slice(having);
        // A column inside a key is none by itself: grouping by it as well would make more groups.
        let keys = node::elements::<pg_sys::Node>((*target).exprs);
        let mut parts: Vec<*mut pg_sys::Node> = Vec::new();
        for expression in others {
            node::walk(expression, &mut |n| {
                if keys.iter().any(|key| pg_sys::equal((*key).cast(), n.cast())) {
                    return Visit::Skip;
                }
                match node::tag(n) {
                    NodeTag::T_Var
                    | NodeTag::T_Aggref
                    | NodeTag::T_GroupingFunc
                    | NodeTag::T_PlaceHolderVar => {
                        parts.push(n);
                        Visit::Skip
                    }
                    _ => Visit::Into,
                }
            });
        }
        pg_sys::add_new_columns_to_pathtarget(target, node::list_of(&parts));
        target
    }
}

/// The same target with each aggregate's transition state in its place.
unsafe fn with_partial_aggregates(
    root: *mut pg_sys::PlannerInfo,
    target: *mut pg_sys::PathTarget,
) -> *mut pg_sys::PathTarget {
    // SAFETY: the planner's live structures; the copies are private.
    unsafe {
        let partial = pg_sys::copy_pathtarget(target);
        for index in 0..node::length((*partial).exprs) {
            let expression: *mut pg_sys::Node = node::nth((*partial).exprs, index);
            if let Some(aggregate) = node::cast::<pg_sys::Aggref, _>(expression, NodeTag::T_Aggref)
            {
                let own: *mut pg_sys::Aggref = node::make(NodeTag::T_Aggref);
                std::ptr::copy_nonoverlapping(aggregate, own, 1);
                pg_sys::mark_partial_aggref(own, pg_sys::AggSplit::AGGSPLIT_INITIAL_SERIAL);
                (*(*(*partial).exprs).elements.add(index)).ptr_value = own.cast();
            }
        }
        set_width(root, partial)
    }
}

unsafe fn set_width(
    root: *mut pg_sys::PlannerInfo,
    target: *mut pg_sys::PathTarget,
) -> *mut pg_sys::PathTarget {
    // SAFETY: the planner's live structures.
    unsafe { pg_sys::set_pathtarget_cost_width(root, target) }
}
