//! Joins on the workers: two relations that the workers can compute, whose matching rows lie beside each other; or
//! one of them and any other, whose rows are read first and sent to all nodes.
//!
//! `planner::locus` has the rule; here are the facts that it needs out of the planner's clauses, and what stands in
//! the way on PostgreSQL's side: clauses that only this server can compute, rows to be locked, expressions that an
//! outer join must see before it fills in NULLs.

use crate::extension::extension;
use crate::path::base;
use crate::path::lock_join;
use crate::path::lookup_join;
use crate::path::pushed::{self, Pushed};
use crate::path::remote::{self, Broadcast, Column, Condition, Item, Remote};
use crate::path::repartition::{self, Side};
use crate::path::sorted;
use crate::read::facts::{is_deterministic, strip_relabel};
use crate::read::tid;
use crate::sys::boundary::boundary;
use crate::sys::node::{self, Visit};
use crate::sys::plan::Spread;
use crate::sys::previous::previous;
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use planner::cost::{self, Sent};
use planner::locus::{JoinKind, Locus};
use std::rc::Rc;

/// `set_join_pathlist_hook`.
///
/// # Safety
///
/// Called by the planner with its own structures.
pub(crate) unsafe extern "C-unwind" fn join_paths(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    outer: *mut pg_sys::RelOptInfo,
    inner: *mut pg_sys::RelOptInfo,
    kind: pg_sys::JoinType::Type,
    extra: *mut pg_sys::JoinPathExtraData,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        if let Some(previous) = previous().and_then(|it| it.join_paths) {
            previous(root, rel, outer, inner, kind, extra);
        }
        boundary(|| {
            let kind = match kind {
                pg_sys::JoinType::JOIN_INNER => JoinKind::Inner,
                pg_sys::JoinType::JOIN_LEFT => JoinKind::Left,
                pg_sys::JoinType::JOIN_FULL => JoinKind::Full,
                pg_sys::JoinType::JOIN_SEMI => JoinKind::Semi,
                pg_sys::JoinType::JOIN_ANTI => JoinKind::Anti,
                // A right join is offered as a left one too.
                _ => return Ok(()),
            };
            if lock_join::concerns(root, rel) {
                lock_join::offer(root, rel, (outer, inner), kind, (*extra).restrictlist);
                return Ok(());
            }
            if !may_join(root, rel) {
                return Ok(());
            }
            let (left, right) = (remote::noted(outer), remote::noted(inner));
            let clauses = (*extra).restrictlist;
            let mut ways = Vec::new();
            if let (Some(left), Some(right)) = (&left, &right) {
                ways.extend(join(root, rel, kind, left, right, clauses));
            }
            // Otherwise one side's rows come here and go to all nodes; which is cheaper, costs tell.
            if ways.is_empty() {
                if let Some(right) = &right {
                    lookup_join::offer(root, rel, (outer, inner), kind, right, clauses);
                }
                if let Some(left) = &left
                    && let Some(right) = broadcast(root, rel, inner, left, kind, clauses)
                {
                    ways.extend(join(root, rel, kind, left, &right, clauses));
                }
                if kind == JoinKind::Inner
                    && let Some(right) = &right
                    && let Some(left) = broadcast(root, rel, outer, right, kind, clauses)
                {
                    ways.extend(join(root, rel, kind, &left, right, clauses));
                }
            }
            if ways.is_empty()
                && let (Some(left), Some(right)) = (&left, &right)
            {
                let sides = (Side { rel: outer, remote: left }, Side { rel: inner, remote: right });
                for (left, right) in repartition::ways(root, rel, kind, sides, clauses) {
                    ways.extend(join(root, rel, kind, &left, &right, clauses));
                }
            }
            for mut joined in ways {
                joined.work += cost::joining((*outer).rows, (*inner).rows, (*rel).rows);
                let rows = cost::joined_rows((*rel).rows, joined.extent());
                let path = base::make_path(rel, (*rel).reltarget, rows, &joined);
                joined.cost = (*path).path.total_cost;
                if remote::noted(rel).is_some_and(|known| known.cost <= joined.cost) {
                    continue;
                }
                let joined = Rc::new(joined);
                remote::note(rel, Rc::clone(&joined));
                pushed::attach(path, Pushed::all(joined));
                let sorted = sorted::beside(root, rel, path);
                pg_sys::add_path(rel, path.cast());
                sorted.into_iter().for_each(|path| pg_sys::add_path(rel, path));
            }
            Ok(())
        });
    }
}

/// A relation whose rows are read here first and sent to all nodes, as something that lies everywhere; none if
/// its columns cannot travel as arrays, or if they are too many.
pub(crate) unsafe fn broadcast(
    root: *mut pg_sys::PlannerInfo,
    joined: *mut pg_sys::RelOptInfo,
    rel: *mut pg_sys::RelOptInfo,
    other: &Remote,
    kind: JoinKind,
    clauses: *mut pg_sys::List,
) -> Option<Remote> {
    // SAFETY: the planner's live structures; inputs of a join have their cheapest path.
    unsafe {
        let mut path = (*rel).cheapest_total_path;
        if path.is_null()
            || !(*path).param_info.is_null()
            || !(*rel).lateral_relids.is_null()
            || !cost::can_broadcast((*path).rows, f64::from((*(*path).pathtarget).width))
            || changes_with_outer_rows(root, rel)
        {
            return None;
        }
        let mut columns = Vec::new();
        for expression in node::elements::<pg_sys::Node>((*(*path).pathtarget).exprs) {
            let var = node::cast::<pg_sys::Var, _>(expression, NodeTag::T_Var)?;
            if lock_join::is_recheck_only(root, var) {
                continue;
            }
            if !travels(&*var) && !tid::is_ctid(&*var) {
                return None;
            }
            columns.push(var);
        }
        if columns.len() < node::length((*(*path).pathtarget).exprs) {
            path = only_columns(root, rel, path, &columns);
        }
        let relations = version::relations_of(root, (*rel).relids);
        let table = *other.tables.first()?;
        let spread = node::elements::<pg_sys::RestrictInfo>(clauses)
            .into_iter()
            .filter(|info| !is_asked_after(*info, kind, joined))
            .find_map(|info| spread_by((*info).clause.cast(), &columns, other));
        let unique = match relations[..] {
            [relation]
                if spread.is_none() && (*path).rows < cost::MOST_DISTINCT && !other.locks_all =>
            {
                node::elements::<pg_sys::RestrictInfo>(clauses)
                    .into_iter()
                    .filter(|info| !is_asked_after(*info, kind, joined))
                    .find_map(|info| unique_column(root, relation, (*info).clause.cast(), &columns))
            }
            _ => None,
        };
        let sent = Sent { rows: (*path).rows, columns: columns.len(), spread: spread.is_some() };
        let cost::Spent { work, before } =
            cost::broadcast(sent, (*path).total_cost, remote::extent_of(table));
        let rows = Rc::new(Broadcast { path, relations, columns, spread, unique });
        Some(Remote {
            root,
            items: vec![Item::Broadcast(rows)],
            conditions: Vec::new(),
            locus: Locus::Everywhere,
            hash: other.hash,
            filters: Vec::new(),
            tables: Vec::new(),
            user: other.user,
            stand_ins: Vec::new(),
            work,
            before,
            cost: 0.0,
            complete: true,
            locks_all: false,
        })
    }
}

/// The path without its other columns.
unsafe fn only_columns(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    path: *mut pg_sys::Path,
    columns: &[*mut pg_sys::Var],
) -> *mut pg_sys::Path {
    // SAFETY: the planner's live structures.
    unsafe {
        let target = pg_sys::create_empty_pathtarget();
        for column in columns {
            pg_sys::add_column_to_pathtarget(target, column.cast(), 0);
        }
        let target = pg_sys::set_pathtarget_cost_width(root, target);
        pg_sys::create_projection_path(root, rel, path, target).cast()
    }
}

/// A column's values can be sent as an array.
pub(crate) unsafe fn travels(var: &pg_sys::Var) -> bool {
    // SAFETY: syscache look-ups by value.
    unsafe {
        var.varattno > 0
            && crate::sys::value::is_binary_safe(var.vartype)
            && pg_sys::get_element_type(var.vartype) == Oid::INVALID
            && pg_sys::get_array_type(var.vartype) != Oid::INVALID
            && matches!(var.varcollid, Oid::INVALID | pg_sys::DEFAULT_COLLATION_OID)
    }
}

/// Nothing about the query or the relation keeps joins here.
unsafe fn may_join(root: *mut pg_sys::PlannerInfo, rel: *mut pg_sys::RelOptInfo) -> bool {
    // SAFETY: the planner's live structures.
    unsafe {
        extension().pushes_down()
            && (*(*root).parse).commandType == pg_sys::CmdType::CMD_SELECT
            // A row that is locked here may have to be looked at again, relation by relation.
            && (*(*root).parse).rowMarks.is_null()
            && (*root).rowMarks.is_null()
            && (*rel).lateral_relids.is_null()
    }
}

/// What the relation yields changes with rows of a query around this one: to send it along would be to ask the nodes for each
/// of these.
pub(crate) unsafe fn changes_with_outer_rows(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
) -> bool {
    // SAFETY: the planner's live structures; the roots of the queries around live while this one is planned.
    unsafe {
        let (mut around, mut is_correlated) = ((*root).parent_root, false);
        while !around.is_null() {
            is_correlated |= !(*around).plan_params.is_null();
            around = (*around).parent_root;
        }
        if !is_correlated {
            return false;
        }
        let init_params = base::init_params(root);
        let is_outer = |n: *mut pg_sys::Node| {
            let param = node::cast::<pg_sys::Param, _>(n, NodeTag::T_Param);
            param.is_some_and(|param| {
                (*param).paramkind == pg_sys::ParamKind::PARAM_EXEC
                    && !init_params.contains(&(*param).paramid)
            })
        };
        let mentions_outer = |clauses: *mut pg_sys::List| {
            node::elements::<pg_sys::RestrictInfo>(clauses).into_iter().any(|info| {
                node::walk((*info).clause.cast::<pg_sys::Node>(), &mut |n| {
                    if is_outer(n) { Visit::Stop } else { Visit::Into }
                })
            })
        };
        version::relations_of(root, (*rel).relids).into_iter().any(|relation| {
            let base = pg_sys::find_base_rel(root, relation as i32);
            let is_table =
                (*base::entry_of(root, relation)).rtekind == pg_sys::RTEKind::RTE_RELATION;
            !is_table
                || mentions_outer((*base).baserestrictinfo)
                || mentions_outer((*base).joininfo)
        })
    }
}

/// The join of two relations on the workers, if it can be made there.
pub(crate) unsafe fn join(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    kind: JoinKind,
    left: &Remote,
    right: &Remote,
    restrictions: *mut pg_sys::List,
) -> Option<Remote> {
    let locks = left.locks_all || right.locks_all;
    let has_all = |side: &Remote| side.complete || side.locks_all;
    if !has_all(left) || !has_all(right) || left.user != right.user {
        return None;
    }
    // SAFETY: the planner's live structures.
    unsafe {
        let (mut on, mut after) = (Vec::new(), Vec::new());
        for info in node::elements::<pg_sys::RestrictInfo>(restrictions) {
            if (*info).pseudoconstant {
                return None;
            }
            let clause = (*info).clause.cast::<pg_sys::Node>();
            if is_asked_after(info, kind, rel) { after.push(clause) } else { on.push(clause) }
        }
        let covers = |var: &pg_sys::Var| left.has(var) || right.has(var);
        let init_params = base::init_params(root);
        let ships = |part| {
            crate::read::shippable::is_shippable(part, &covers, &init_params, false, left.user)
        };
        let can = |clause: &*mut pg_sys::Node| {
            let is_row = |var: &pg_sys::Var| left.stores(var) || right.stores(var);
            let is_sent = |value| {
                let var = node::cast::<pg_sys::Var, _>(value, NodeTag::T_Var);
                var.is_some_and(|var| left.sends(&*var) || right.sends(&*var))
            };
            let is_value = |value| ships(value) || is_sent(value);
            ships(*clause) || tid::comparison(*clause, &is_row, &is_value).is_some()
        };
        if !on.iter().chain(&after).all(can) {
            return None;
        }
        let mut stand_ins = left.stand_ins.clone();
        stand_ins.extend_from_slice(&right.stand_ins);
        let fills_in = matches!(kind, JoinKind::Left | JoinKind::Full);
        if fills_in && has_placeholder_in(root, right)
            || kind == JoinKind::Full && has_placeholder_in(root, left)
        {
            return None;
        }
        // A row as a whole is made of its columns here, and of NULLs it would not be NULL; nor would `tableoid`.
        let may_be_missing = |var: &pg_sys::Var| {
            var.varattno <= 0
                && (fills_in && right.has(var) || kind == JoinKind::Full && left.has(var))
        };
        let mut above = node::elements::<pg_sys::Node>((*(*rel).reltarget).exprs);
        above.extend(&after);
        if above.into_iter().any(|expression| has_column(expression, &may_be_missing)) {
            return None;
        }
        if matches!(kind, JoinKind::Semi | JoinKind::Anti) {
            // What is only looked for has no columns; but what equals one of the left side can be had from there.
            if kind == JoinKind::Semi {
                stand_ins.extend(on.iter().filter_map(|clause| {
                    equal_column(*clause, &|relation| left.covers(relation), right)
                }));
            }
            let is_lost = |var: &pg_sys::Var| {
                right.has(var)
                    && remote::stand_in(&stand_ins, (var.varno as u32, var.varattno), &|relation| {
                        left.covers(relation)
                    })
                    .is_none()
            };
            let mut above = node::elements::<pg_sys::Node>((*(*rel).reltarget).exprs);
            above.extend(&after);
            if above.into_iter().any(|expression| has_column(expression, &is_lost)) {
                return None;
            }
        }
        let mut equal: Vec<(Column, Column)> = Vec::new();
        let is_sharded = |side: &Remote| matches!(side.locus, Locus::Sharded(_));
        if is_sharded(left) && is_sharded(right) && left.hash.family == right.hash.family {
            let family = left.hash.family;
            equal.extend(on.iter().filter_map(|clause| equality(*clause, family, left, right)));
        }
        let locus = left.locus.join(kind, &right.locus, &equal)?;
        if matches!(locus, Locus::Everywhere) && (left.tables.is_empty() || right.tables.is_empty())
        {
            // One node would do it all, where this one can do it as well.
            return None;
        }

        let mut tables = left.tables.clone();
        tables.extend(right.tables.iter().filter(|table| !left.tables.contains(table)));
        tables.sort_by_key(|table| std::cmp::Reverse(extension().shard_count(*table)));
        if !extension().lie_together(&tables) {
            return None;
        }
        let clauses = |list: &[*mut pg_sys::Node]| {
            list.iter().map(|clause| Condition::Clause(*clause)).collect::<Vec<_>>()
        };
        let (mut items, mut conditions) = (left.items.clone(), left.conditions.clone());
        let mut filters = left.filters.clone();
        match kind {
            JoinKind::Inner => {
                items.extend_from_slice(&right.items);
                conditions.extend_from_slice(&right.conditions);
                conditions.extend(clauses(&on));
                filters.extend_from_slice(&right.filters);
            }
            JoinKind::Left => {
                let mut on = clauses(&on);
                on.extend_from_slice(&right.conditions);
                items = vec![Item::Join(kind, items, right.items.clone(), on)];
            }
            JoinKind::Full => {
                // Neither side's filters may stand in ON, where they would keep rows from matching only.
                if !left.conditions.is_empty() || !right.conditions.is_empty() {
                    return None;
                }
                items = vec![Item::Join(kind, items, right.items.clone(), clauses(&on))];
                filters = Vec::new();
            }
            JoinKind::Semi | JoinKind::Anti => {
                let mut looked_for = right.conditions.clone();
                looked_for.extend(clauses(&on));
                if kind == JoinKind::Semi {
                    filters.extend_from_slice(&right.filters);
                }
                conditions.push(Condition::Exists {
                    negated: kind == JoinKind::Anti,
                    items: right.items.clone(),
                    conditions: looked_for,
                });
            }
        }
        conditions.extend(clauses(&after));
        Some(Remote {
            root,
            items,
            conditions,
            locus,
            hash: if is_sharded(left) { left.hash } else { right.hash },
            filters: of_sharded(filters, &tables),
            tables,
            user: left.user,
            stand_ins,
            work: left.work + right.work,
            before: left.before + right.before,
            cost: 0.0,
            complete: !locks,
            locks_all: locks,
        })
    }
}

/// The clause is asked of what an outer join yields, and does not decide what matches.
pub(crate) unsafe fn is_asked_after(
    info: *mut pg_sys::RestrictInfo,
    kind: JoinKind,
    rel: *mut pg_sys::RelOptInfo,
) -> bool {
    // SAFETY: a live clause and relation of the planner.
    unsafe {
        matches!(kind, JoinKind::Left | JoinKind::Full | JoinKind::Anti)
            && ((*info).is_pushed_down
                || !pg_sys::bms_is_subset((*info).required_relids, (*rel).relids))
    }
}

/// The clause compares a key of `other` with one of `columns`: rows that match lie in the shard of its hash.
pub(crate) unsafe fn spread_by(
    clause: *mut pg_sys::Node,
    columns: &[*mut pg_sys::Var],
    other: &Remote,
) -> Option<Spread> {
    // SAFETY: a live clause of the planner; syscache look-ups by value.
    unsafe {
        let remote::HashedBy { family, collation } = other.hash;
        let op = node::cast::<pg_sys::OpExpr, _>(clause, NodeTag::T_OpExpr)?;
        if node::length((*op).args) != 2
            || pg_sys::get_op_opfamily_strategy((*op).opno, family) != 1
            || !is_deterministic((*op).inputcollid)
        {
            return None;
        }
        let column = |index| {
            let side: *mut pg_sys::Node = node::nth((*op).args, index);
            node::cast::<pg_sys::Var, _>(strip_relabel(side), NodeTag::T_Var)
        };
        let (mut left, mut right) = (Oid::INVALID, Oid::INVALID);
        pg_sys::op_input_types((*op).opno, &raw mut left, &raw mut right);
        for (ours, theirs, type_oid) in
            [(column(0)?, column(1)?, right), (column(1)?, column(0)?, left)]
        {
            let is_key = other
                .locus
                .keys()
                .iter()
                .any(|key| key.column == ((*ours).varno as u32, (*ours).varattno));
            let place = columns.iter().position(|known| {
                (**known).varno == (*theirs).varno && (**known).varattno == (*theirs).varattno
            });
            if let (true, Some(column)) = (is_key, place)
                && crate::sys::value::Hasher::find(family, type_oid, collation).is_some()
            {
                return Some(Spread { column, family, type_oid, collation });
            }
        }
        None
    }
}

/// The clause compares one of `columns`, of the relation, in which no two rows of its table agree: a shard's index says so,
/// and rows that agree in the distribution column lie in one shard.
unsafe fn unique_column(
    root: *mut pg_sys::PlannerInfo,
    relation: u32,
    clause: *mut pg_sys::Node,
    columns: &[*mut pg_sys::Var],
) -> Option<usize> {
    // SAFETY: a live clause of the planner over relations of its range table; syscache look-ups by value.
    unsafe {
        let op = node::cast::<pg_sys::OpExpr, _>(clause, NodeTag::T_OpExpr)?;
        if node::length((*op).args) != 2 {
            return None;
        }
        let entry = base::entry_of(root, relation);
        if (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION {
            return None;
        }
        let key = extension().distribution((*entry).relid)?;
        let is_whole = extension().shard_count((*entry).relid) == 1;
        (0..2).find_map(|index| {
            let side: *mut pg_sys::Node = node::nth((*op).args, index);
            let var = node::cast::<pg_sys::Var, _>(side, NodeTag::T_Var)?;
            let place = columns.iter().position(|known| {
                (**known).varno == (*var).varno && (**known).varattno == (*var).varattno
            })?;
            // With a collation, to find out what is distinct costs more than it saves.
            (((*var).varattno == key.column || is_whole)
                && (*var).varcollid == Oid::INVALID
                && pg_sys::op_mergejoinable((*op).opno, (*var).vartype)
                && crate::catalog::table::row_identities((*entry).relid)
                    .iter()
                    .any(|columns| columns[..] == [(*var).varattno]))
            .then_some(place)
        })
    }
}

/// Filters of tables that are whole everywhere say nothing of the shards of others.
fn of_sharded(filters: Vec<remote::Filter>, tables: &[Oid]) -> Vec<remote::Filter> {
    let planner = extension();
    if tables.iter().all(|table| planner.shard_count(*table) == 1) {
        return filters;
    }
    filters.into_iter().filter(|filter| filter.is_sharded).collect()
}

/// `left = right` of columns, one of each side, with the equality by which keys are hashed.
unsafe fn equality(
    clause: *mut pg_sys::Node,
    family: Oid,
    left: &Remote,
    right: &Remote,
) -> Option<(Column, Column)> {
    // SAFETY: a live clause of the planner.
    unsafe {
        let op = node::cast::<pg_sys::OpExpr, _>(clause, NodeTag::T_OpExpr)?;
        if node::length((*op).args) != 2
            || pg_sys::get_op_opfamily_strategy((*op).opno, family) != 1
            || !is_deterministic((*op).inputcollid)
        {
            return None;
        }
        let column = |index| {
            let side: *mut pg_sys::Node = node::nth((*op).args, index);
            let var = node::cast::<pg_sys::Var, _>(strip_relabel(side), NodeTag::T_Var)?;
            ((*var).varlevelsup == 0 && (*var).varno > 0)
                .then(|| ((*var).varno as u32, (*var).varattno))
        };
        let (first, second) = (column(0)?, column(1)?);
        if left.covers(first.0) && right.covers(second.0) {
            Some((first, second))
        } else if left.covers(second.0) && right.covers(first.0) {
            Some((second, first))
        } else {
            None
        }
    }
}

/// An expression of this side must be computed before an outer join fills in NULLs.
pub(crate) unsafe fn has_placeholder_in(root: *mut pg_sys::PlannerInfo, side: &Remote) -> bool {
    // SAFETY: the planner's live structures.
    unsafe {
        node::elements::<pg_sys::PlaceHolderInfo>((*root).placeholder_list).into_iter().any(
            |info| {
                let relations = version::relations_of(root, (*info).ph_eval_at);
                relations.into_iter().all(|relation| side.covers(relation))
            },
        )
    }
}

/// The expression has a column for which `test` holds.
unsafe fn has_column(expression: *mut pg_sys::Node, test: &dyn Fn(&pg_sys::Var) -> bool) -> bool {
    // SAFETY: a live expression of the planner.
    unsafe {
        node::walk(expression, &mut |n| {
            let var = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var);
            if var.is_some_and(|var| test(&*var)) { Visit::Stop } else { Visit::Into }
        })
    }
}

/// A column of the right side that equals one of the left in all that a semi-join yields.
pub(crate) unsafe fn equal_column(
    clause: *mut pg_sys::Node,
    is_left: &dyn Fn(u32) -> bool,
    right: &Remote,
) -> Option<(Column, *mut pg_sys::Var)> {
    // SAFETY: a live clause of the planner; syscache look-ups by value.
    unsafe {
        let op = node::cast::<pg_sys::OpExpr, _>(clause, NodeTag::T_OpExpr)?;
        if node::length((*op).args) != 2 {
            return None;
        }
        let column = |index| {
            let side: *mut pg_sys::Node = node::nth((*op).args, index);
            node::cast::<pg_sys::Var, _>(side, NodeTag::T_Var)
        };
        let (first, second) = (column(0)?, column(1)?);
        let same = (*first).vartype == (*second).vartype
            && (*first).varcollid == (*second).varcollid
            && pg_sys::op_mergejoinable((*op).opno, (*first).vartype);
        for (ours, theirs) in [(first, second), (second, first)] {
            if same && is_left((*ours).varno as u32) && right.has(&*theirs) {
                return Some((((*theirs).varno as u32, (*theirs).varattno), ours));
            }
        }
        None
    }
}
