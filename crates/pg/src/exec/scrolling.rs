//! Cursors that go backward though nobody said SCROLL.
//!
//! PostgreSQL lets a cursor go backward if it was declared with neither SCROLL nor NO SCROLL, locks no rows, and its plan
//! can run backward; a scan of a local table can. Rows of nodes come once, so a plan of ours cannot. If the rows are
//! likely to fit into `work_mem`, a Material node on top keeps them, and the cursor goes backward as it does over a
//! local table. Others go forward only: a cursor by which a client reads a large table shall not fill the disk.

use crate::extension::extension;
use crate::sys::node;
use pgrx::pg_sys::{self, NodeTag};

/// What a row takes at least, where the plan knows no width.
const LEAST_WIDTH: f64 = 64.0;

/// Whether a statement is the query of a cursor that may go backward if its plan can.
///
/// # Safety
///
/// A live query, and the options that the planner was given with it.
pub(crate) unsafe fn is_asked_for(parse: *mut pg_sys::Query, options: i32) -> bool {
    let is = |flag: u32| options & flag.cast_signed() != 0;
    // The parser marks the queries of cursors by FAST_PLAN.
    is(pg_sys::CURSOR_OPT_FAST_PLAN)
        && !is(pg_sys::CURSOR_OPT_SCROLL)
        && !is(pg_sys::CURSOR_OPT_NO_SCROLL)
        // SAFETY: the caller vouches for the query.
        && unsafe { (*parse).rowMarks.is_null() }
}

/// Makes the plan of such a query one that can run backward, if that is cheap.
///
/// # Safety
///
/// A finished plan over distributed tables that nobody else holds.
pub(crate) unsafe fn keep_rows(planned: *mut pg_sys::PlannedStmt) {
    // SAFETY: the caller vouches for the plan.
    unsafe {
        let top = (*planned).planTree;
        if (*planned).commandType != pg_sys::CmdType::CMD_SELECT
            || pg_sys::ExecSupportsBackwardScan(top)
        {
            return;
        }
        let rows = (*top).plan_rows.max(rows_of_a_shard(planned));
        let width = f64::from((*top).plan_width).max(LEAST_WIDTH);
        if rows * width <= f64::from(pg_sys::work_mem) * 1024.0 {
            (*planned).planTree = pg_sys::materialize_finished_plan(top);
        }
    }
}

/// Says of the plan of a cursor whose rows the nodes lock that it locks rows, which its own row marks would say of a local table:
/// PostgreSQL then lets it go forward only (`PerformCursorOpen`, `src/backend/commands/portalcmds.c`).
///
/// # Safety
///
/// A finished plan over distributed tables that nobody else holds.
pub(crate) unsafe fn say_that_it_locks(planned: *mut pg_sys::PlannedStmt) {
    // SAFETY: the caller vouches for the plan. The executor ignores row marks of parents (`InitPlan`).
    unsafe {
        if (*planned).rowMarks.is_null() {
            let mark: *mut pg_sys::PlanRowMark = node::make(NodeTag::T_PlanRowMark);
            ((*mark).rti, (*mark).prti) = (1, 1);
            (*mark).markType = pg_sys::RowMarkType::ROW_MARK_REFERENCE;
            (*mark).isParent = true;
            (*planned).rowMarks = node::list_of(&[mark]);
        }
    }
}

/// The rows of one shard of the largest table. The plan of a statement that is sent to one node as it is has no estimate
/// of its own.
unsafe fn rows_of_a_shard(planned: *mut pg_sys::PlannedStmt) -> f64 {
    // SAFETY: the caller passes a live plan.
    let tables = unsafe {
        let entries = node::elements::<pg_sys::RangeTblEntry>((*planned).rtable);
        let relations =
            entries.into_iter().filter(|entry| (**entry).rtekind == pg_sys::RTEKind::RTE_RELATION);
        relations.map(|entry| (*entry).relid).collect::<Vec<_>>()
    };
    let extension = extension();
    let of_a_shard = |table| {
        let rows = extension.estimated_rows(table)?;
        Some(rows / extension.shard_count(table).max(1) as f64)
    };
    tables.into_iter().filter_map(of_a_shard).fold(0.0, f64::max)
}
