//! Grouping and aggregates on the workers.
//!
//! Groups that lie in one shard each are made there and are done. Others are made in parts: PostgreSQL plans its
//! parallel aggregation, with the partial half on the nodes and its own Finalize above (`aggregate.rs`).

use crate::path::aggregate::{self, PartialAggregate};
use crate::path::base;
use crate::path::distinct::distinct_rows;
use crate::path::pushed::{self, Grouping, Pushed, Yield};
use crate::path::remote::{self, Column, Remote};
use crate::path::upper_path::{column_of, estimated_groups, is_free_of_columns, sorted_by};
use crate::sys::node::{self, Visit};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use planner::cost;
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

/// GROUP BY and aggregates.
pub(crate) unsafe fn group(
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
        let groups = estimated_groups(root, node::list_of(&key_list), (*input).rows);
        let columns: Vec<Column> = key_list.iter().filter_map(|key| column_of(*key)).collect();
        if is_whole
            && remote.locus.keeps_together(&columns)
            && having.iter().all(|clause| remote.can_compute(*clause, true))
        {
            let mut grouped = (*remote).clone();
            grouped.work += cost::grouping((*input).rows, 1);
            let rows = cost::passing(groups, !having.is_empty());
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
        let parts = cost::partial_groups(groups, (*input).rows, remote.extent());
        let mut partial = (*remote).clone();
        partial.work += parts.work;
        let partial_rel = partial_relation(root, input, target);
        let path = base::make_path(partial_rel, target, parts.rows, &partial);
        let mut pushed = Pushed::all(Rc::clone(&remote));
        pushed.outputs = Some(yields);
        pushed.partial = true;
        pushed.by_shard = parts.by_shard;
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
        let (mut groups, mut parts, mut is_whole) = (0.0, 0.0, is_computed);
        for set in &sets {
            let expressions: Vec<*mut pg_sys::Node> = set.iter().map(|key| outputs[*key]).collect();
            let many = estimated_groups(root, node::list_of(&expressions), (*input).rows);
            let columns: Vec<Column> =
                expressions.iter().filter_map(|key| column_of(*key)).collect();
            let lies_together = remote.locus.keeps_together(&columns);
            groups += many;
            parts += if lies_together {
                many
            } else {
                cost::groups_of_nodes(many, (*input).rows, remote.extent())
            };
            is_whole &= lies_together;
        }
        let mut worked = (**remote).clone();
        worked.work += cost::grouping((*input).rows, sets.len());
        if is_whole && having.iter().all(|clause| remote.can_compute(*clause, true)) {
            let rows = cost::passing(groups, !having.is_empty());
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
