//! Cursors see what was there when they were opened: their scans ask the nodes then, and not when the first row is fetched.
//!
//! A node takes a statement's snapshot when the statement reaches it. PostgreSQL takes a cursor's when the portal starts, and
//! what its transaction or others change afterwards is not seen. So once the executor has started a portal that is
//! to be fetched from later (a cursor of SQL or PL/pgSQL, a named portal of the extended protocol), each scan of ours that knows
//! what it asks for sends its statement, and waits until the node has taken the snapshot. The rows come when they are fetched; whoever
//! needs the session before has the rest of them kept. What is executed at once begins as it always does, with
//! its first row.
//!
//! A scan that asks for other rows each time that it is executed (the inner side of a nested loop, a correlated sub-query) cannot
//! ask before. Where a plan has one, all of the plan's rows are computed when the portal starts, and kept by a Material node: the
//! executor is started once more for a copy of the plan with that node on top. A statement that locks rows is left without that node:
//! PostgreSQL locks rows when they are fetched. Its scans that lock have the nodes take their snapshots, and execute nothing yet.

use crate::exec::scan;
use crate::sys::boundary::boundary;
use crate::sys::node;
use crate::sys::version::walkers;
use crate::time::aged;
use pgrx::pg_sys::{self, NodeTag};
use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

mod raw {
    //! Not among pgrx' bindings, so without its guard: the frames that call them hold nothing to drop.
    use pgrx::pg_sys;
    use std::ffi::c_int;
    unsafe extern "C-unwind" {
        /// Plain frames: the hook holds nothing to drop.
        pub(super) fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
        /// Plain frames: the hook holds nothing to drop.
        pub(super) fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);
        /// Plain frames: the hook holds nothing to drop.
        pub(super) fn standard_ExecutorEnd(query: *mut pg_sys::QueryDesc);
    }
}

static PREVIOUS: OnceLock<pg_sys::ExecutorStart_hook_type> = OnceLock::new();

/// Installs the hook.
///
/// # Safety
///
/// Once per process, from `_PG_init`.
pub(crate) unsafe fn install() {
    // SAFETY: the caller vouches; hooks are plain function pointers.
    unsafe {
        let _ = PREVIOUS.set(pg_sys::ExecutorStart_hook);
        pg_sys::ExecutorStart_hook = Some(start);
    }
}

unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: PostgreSQL's own arguments, passed on unchanged; this frame holds plain values only.
    unsafe {
        boundary(|| aged::swap(query));
        begin(query, flags);
        if flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as c_int != 0 || !is_fetched_from_later(query) {
            return;
        }
        if boundary(|| Ok(must_keep_all(query))) {
            raw::standard_ExecutorFinish(query);
            raw::standard_ExecutorEnd(query);
            boundary(|| {
                (*query).plannedstmt = with_rows_kept((*query).plannedstmt);
                Ok(())
            });
            begin(query, flags | pg_sys::EXEC_FLAG_REWIND as c_int);
            boundary(|| {
                fill(query);
                Ok(())
            });
            return;
        }
        boundary(|| {
            // What is read first, the inner side of a hash join, comes last in the tree. Rows of two scans cannot flow over
            // one session: those of the scan that asks first are kept.
            for custom in scans(query).into_iter().rev() {
                if !depends_on_row(custom) {
                    scan::ask_early(custom)?;
                }
            }
            Ok(())
        });
    }
}

unsafe fn begin(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: the caller passes PostgreSQL's own arguments.
    unsafe {
        match PREVIOUS.get() {
            Some(Some(previous)) => previous(query, flags),
            _ => raw::standard_ExecutorStart(query, flags),
        }
    }
}

/// Our scans in a plan that was begun.
unsafe fn scans(query: *mut pg_sys::QueryDesc) -> Vec<*mut pg_sys::CustomScanState> {
    let mut scans: Vec<*mut pg_sys::CustomScanState> = Vec::new();
    // SAFETY: the executor's live tree.
    unsafe {
        let (state, found) = ((*query).planstate, (&raw mut scans).cast());
        // The walk may run out of the stack.
        pg_sys::ffi::pg_guard_ffi_boundary(|| find(state, found));
    }
    scans
}

/// Some scan cannot ask before it is executed, and the statement locks nothing.
unsafe fn must_keep_all(query: *mut pg_sys::QueryDesc) -> bool {
    // SAFETY: the executor's live tree; the scans in it are begun.
    unsafe {
        (*(*query).plannedstmt).rowMarks.is_null()
            && scans(query)
                .into_iter()
                .any(|custom| depends_on_row(custom) || scan::asks_later(custom))
    }
}

/// A parameter of the scan's plan comes from the row of another plan, and not from a sub-plan that is computed before.
unsafe fn depends_on_row(custom: *mut pg_sys::CustomScanState) -> bool {
    // SAFETY: a live node of the executor's; the parameters of its plan are numbers of the statement's.
    unsafe {
        let wanted = (*(*custom).ss.ps.plan).extParam;
        let values = (*(*custom).ss.ps.state).es_param_exec_vals;
        let mut parameter = -1;
        loop {
            parameter = pg_sys::bms_next_member(wanted, parameter);
            if parameter < 0 {
                return false;
            }
            if (*values.add(parameter as usize)).execPlan.is_null() {
                return true;
            }
        }
    }
}

/// A copy of a plan with a Material node on top; below the node by which a cursor's row is known, if there is one.
unsafe fn with_rows_kept(planned: *mut pg_sys::PlannedStmt) -> *mut pg_sys::PlannedStmt {
    // SAFETY: a live plan, which stays as it is; the copies live in the portal's context, as the query does.
    unsafe {
        let copy: *mut pg_sys::PlannedStmt = node::make(NodeTag::T_PlannedStmt);
        *copy = *planned;
        let top = (*planned).planTree;
        (*copy).planTree = match node::cast::<pg_sys::CustomScan, _>(top, NodeTag::T_CustomScan) {
            Some(scan) if is_of_cursor((*scan).methods) => {
                let above: *mut pg_sys::CustomScan = node::make(NodeTag::T_CustomScan);
                *above = *scan;
                let below = material(node::nth((*scan).custom_plans, 0));
                (*above).custom_plans = node::list_of(&[below]);
                above.cast()
            }
            _ => material(top),
        };
        copy
    }
}

/// The node by which a cursor's row is known: [`crate::exec::cursor`].
unsafe fn is_of_cursor(methods: *const pg_sys::CustomScanMethods) -> bool {
    // SAFETY: methods of a custom node are registered under a name.
    unsafe { CStr::from_ptr((*methods).CustomName) == c"pg_shard cursor" }
}

unsafe fn material(below: *mut pg_sys::Plan) -> *mut pg_sys::Plan {
    // SAFETY: a live plan. Sub-plans that are computed first stay with it.
    unsafe {
        if node::tag(below) == NodeTag::T_Material {
            return below;
        }
        let material: *mut pg_sys::Material = node::make(NodeTag::T_Material);
        let plan = &mut (*material).plan;
        plan.targetlist = (*below).targetlist;
        plan.startup_cost = (*below).total_cost;
        plan.total_cost = (*below).total_cost;
        plan.plan_rows = (*below).plan_rows;
        plan.plan_width = (*below).plan_width;
        plan.extParam = (*below).extParam;
        plan.allParam = (*below).allParam;
        plan.lefttree = below;
        material.cast()
    }
}

/// Computes all rows and goes back to the first.
unsafe fn fill(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the plan of `with_rows_kept`, which was begun so that its rows can be read again; the loop is ExecutePlan's
    // (`src/backend/executor/execMain.c`).
    unsafe {
        let estate = (*query).estate;
        let before = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
        let mut state = (*query).planstate;
        if let Some(custom) =
            node::cast::<pg_sys::CustomScanState, _>(state, NodeTag::T_CustomScanState)
        {
            state = node::nth((*custom).custom_ps, 0);
        }
        loop {
            pgrx::check_for_interrupts!();
            let slot = pg_sys::ExecProcNode(state);
            if slot.is_null() || (*slot).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 != 0 {
                break;
            }
            if !(*estate).es_per_tuple_exprcontext.is_null() {
                pg_sys::ReScanExprContext((*estate).es_per_tuple_exprcontext);
            }
        }
        pg_sys::ExecReScan(state);
        pg_sys::MemoryContextSwitchTo(before);
    }
}

/// The portal that is being started is a cursor's, or has a name, and reads.
unsafe fn is_fetched_from_later(query: *mut pg_sys::QueryDesc) -> bool {
    // SAFETY: reads the backend's globals; the portal and its name are live.
    unsafe {
        let portal = pg_sys::ActivePortal;
        !portal.is_null()
            && (*portal).status == pg_sys::PortalStatus::PORTAL_DEFINED
            && !(*portal).name.is_null()
            && *(*portal).name != 0
            && (*query).operation == pg_sys::CmdType::CMD_SELECT
            && !(*(*query).plannedstmt).hasModifyingCTE
    }
}

unsafe extern "C-unwind" fn find(state: *mut pg_sys::PlanState, found: *mut c_void) -> bool {
    if state.is_null() {
        return false;
    }
    // SAFETY: the executor's live tree; `start` passes its local vector.
    unsafe {
        if let Some(custom) = scan::of_ours(state) {
            (*found.cast::<Vec<*mut pg_sys::CustomScanState>>()).push(custom);
        }
        walkers::planstate_tree_walker(state, find, found)
    }
}
