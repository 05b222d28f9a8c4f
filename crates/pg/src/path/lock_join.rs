//! Joins of a table whose rows are locked, or are going to be changed, with others: only rows that have a partner may be locked.
//!
//! A scan that locks does so before a join above it could tell which rows are wanted. It would wait for rows that
//! other sessions hold and that the statement is not about, and would keep others from them. So the other side is read
//! first and its rows are sent along ([`crate::path::join::broadcast`]): the node joins, and locks what it has found. The node also
//! looks at a row again that has changed while it was waited for. Where there is such a path the planner gets no other, whatever
//! the costs: which rows are locked must not depend on estimates. Where there is none (the other side has too many rows, or an
//! expression that only this server can compute decides) all rows of the table that pass its own filters are locked.
//!
//! In UPDATE and DELETE PostgreSQL wants the whole rows of other relations, to look at a changed row again. Nobody does so
//! here, for the changes are not made by a ModifyTable node: these columns are NULL.

use crate::path::base;
use crate::path::join::{broadcast, join};
use crate::path::pushed::{self, Pushed};
use crate::path::remote::{self, Item, Remote};
use crate::read::tid;
use crate::sys::node::{self, Visit};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag};
use planner::cost;
use planner::locus::JoinKind;
use std::rc::Rc;

/// A relation that is joined has rows to be locked, and nothing about the query stands in the way.
///
/// # Safety
///
/// The planner's live structures.
pub(crate) unsafe fn concerns(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
) -> bool {
    // SAFETY: the caller vouches for the planner's structures.
    unsafe {
        let parse = (*root).parse;
        let command = (*parse).commandType;
        let rechecks = match command {
            pg_sys::CmdType::CMD_SELECT => {
                !(*parse).rowMarks.is_null() || !(*root).rowMarks.is_null()
            }
            pg_sys::CmdType::CMD_UPDATE | pg_sys::CmdType::CMD_DELETE => !writes_ours(root),
            _ => return false,
        };
        !rechecks
            && (*rel).lateral_relids.is_null()
            && version::relations_of(root, (*rel).relids)
                .into_iter()
                .any(|relation| locks(root, relation))
    }
}

/// The query writes a distributed table, whose rows its scan locks.
unsafe fn writes_ours(root: *mut pg_sys::PlannerInfo) -> bool {
    // SAFETY: the planner's live structures.
    unsafe {
        let target = (*(*root).parse).resultRelation;
        target > 0 && base::is_target(base::entry_of(root, target as u32))
    }
}

unsafe fn locks(root: *mut pg_sys::PlannerInfo, relation: u32) -> bool {
    // SAFETY: a relation of the root's range table.
    unsafe {
        let entry = base::entry_of(root, relation);
        (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION && base::lock_clause(entry).is_some()
    }
}

/// Leaves the join no path but one in which the other side's rows are sent along, if there is one.
///
/// # Safety
///
/// The planner's live structures, as it passes them to `set_join_pathlist_hook`.
pub(crate) unsafe fn offer(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    (outer, inner): (*mut pg_sys::RelOptInfo, *mut pg_sys::RelOptInfo),
    kind: JoinKind,
    clauses: *mut pg_sys::List,
) {
    // SAFETY: the caller vouches for the planner's structures.
    unsafe {
        let locked = |side| remote::noted(side).filter(|known| known.locks_all);
        let mut ways: Vec<Remote> = Vec::new();
        if matches!(kind, JoinKind::Inner | JoinKind::Semi | JoinKind::Anti)
            && let Some(left) = locked(outer)
            && let Some(right) = broadcast(root, rel, inner, &left, kind, clauses)
        {
            ways.extend(join(root, rel, kind, &left, &right, clauses));
        }
        if kind == JoinKind::Inner
            && let Some(right) = locked(inner)
            && let Some(left) = broadcast(root, rel, outer, &right, kind, clauses)
        {
            ways.extend(join(root, rel, kind, &left, &right, clauses));
        }
        for mut joined in ways {
            joined.work += cost::joining((*outer).rows, (*inner).rows, (*rel).rows);
            let path = base::make_path(rel, (*rel).reltarget, (*rel).rows, &joined);
            joined.cost = (*path).path.total_cost;
            if remote::noted(rel).is_none_or(|known| joined.cost < known.cost) {
                remote::note(rel, Rc::new(joined));
            }
        }
        // Paths that the planner has made for this pair may have driven out ours of an earlier one.
        if let Some(best) = locked(rel) {
            let path = base::make_path(rel, (*rel).reltarget, (*rel).rows, &best);
            pushed::attach(path, Pushed::all(best));
            (*rel).pathlist = std::ptr::null_mut();
            pg_sys::add_path(rel, path.cast());
        }
    }
}

/// The column is one that PostgreSQL wants of a relation in order to look at a changed row again, and nothing else asks for.
///
/// # Safety
///
/// The planner's live structures.
pub(crate) unsafe fn is_recheck_only(
    root: *mut pg_sys::PlannerInfo,
    column: *mut pg_sys::Var,
) -> bool {
    // SAFETY: the caller vouches for the planner's structures; trees of the query are live while it is planned.
    unsafe {
        let parse = (*root).parse;
        let is_mark = (*column).varattno == 0 || tid::is_ctid(&*column);
        if !is_mark || (*column).varno == (*parse).resultRelation || !writes_ours(root) {
            return false;
        }
        let names_it = |tree: *mut pg_sys::Node| {
            node::walk(tree, &mut |n| {
                let var = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var);
                let is_it = var.is_some_and(|var| {
                    (*var).varno == (*column).varno && (*var).varattno == (*column).varattno
                });
                if is_it { Visit::Stop } else { Visit::Into }
            })
        };
        let mut trees: Vec<*mut pg_sys::Node> = vec![
            (*parse).jointree.cast(),
            (*parse).returningList.cast(),
            (*parse).mergeActionList.cast(),
            version::conditions_of(parse, (*parse).jointree),
        ];
        trees.extend(
            node::elements::<pg_sys::TargetEntry>((*parse).targetList)
                .into_iter()
                .filter(|entry| !(**entry).resjunk)
                .map(|entry| (*entry).expr.cast()),
        );
        !trees.into_iter().any(names_it)
    }
}

/// The columns among `wanted` that are NULL in the scan of such a join, or of another table than the one that is written: who reads
/// them needs rights that the statement does not.
///
/// # Safety
///
/// Live expressions of the planner.
pub(crate) unsafe fn unread_columns(
    remote: &Remote,
    wanted: &[*mut pg_sys::Node],
) -> Vec<*mut pg_sys::Node> {
    let mut found: Vec<*mut pg_sys::Node> = Vec::new();
    for expression in wanted {
        // SAFETY: the caller vouches for the expressions.
        unsafe {
            let var = node::cast::<pg_sys::Var, _>(*expression, NodeTag::T_Var);
            if let Some(var) = var
                && is_unread(remote, var)
                && !found.iter().any(|known| pg_sys::equal((*known).cast(), var.cast()))
            {
                found.push(var.cast());
            }
        }
    }
    found
}

/// The column is one of [`unread_columns`].
///
/// # Safety
///
/// A live expression of the planner.
pub(crate) unsafe fn is_unread(remote: &Remote, column: *mut pg_sys::Var) -> bool {
    // SAFETY: the caller vouches for it.
    unsafe { (remote.locks_all || remote.has(&*column)) && is_recheck_only(remote.root, column) }
}

/// The table whose rows are locked, if there is one.
pub(crate) fn locked_table(remote: &Remote) -> Option<u32> {
    remote.items.iter().find_map(|item| match item {
        // SAFETY: a table of the root's range table.
        Item::Table(table) if unsafe { locks(remote.root, *table) } => Some(*table),
        _ => None,
    })
}

/// FOR UPDATE or alike, as the SQL of a shard ends.
pub(crate) fn lock_of(remote: &Remote) -> Option<String> {
    let table = locked_table(remote)?;
    // SAFETY: as above.
    unsafe { base::lock_clause(base::entry_of(remote.root, table)) }
}
