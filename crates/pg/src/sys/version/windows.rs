//! Window functions that the nodes compute, as EXPLAIN shows them.
//!
//! Since PostgreSQL 18 ruleutils prints a window function together with the name of its window, which it looks for in the
//! WindowAgg node around it. There is none where the nodes compute it, so it is shown as a call. The planner recognises what a scan
//! yields by its expression; only a finished plan may say something else.

use pgrx::pg_sys;
#[cfg(feature = "pg18")]
use {crate::sys::node, pgrx::pg_sys::NodeTag, std::cell::Cell};

#[cfg(feature = "pg18")]
thread_local! {
    /// A scan of this backend yields window functions.
    static ARE_YIELDED: Cell<bool> = const { Cell::new(false) };
}

/// An expression as EXPLAIN is to show it.
///
/// # Safety
///
/// A live expression of the planner.
pub(crate) unsafe fn shown_windows(n: *mut pg_sys::Node) -> *mut pg_sys::Node {
    #[cfg(not(feature = "pg18"))]
    {
        n
    }
    // SAFETY: the caller vouches for the expression; the node is made with the struct of its tag.
    #[cfg(feature = "pg18")]
    unsafe {
        node::rewrite(n, &mut |n| {
            let window: *mut pg_sys::WindowFunc = node::cast(n, NodeTag::T_WindowFunc)?;
            let call: *mut pg_sys::FuncExpr = node::make(NodeTag::T_FuncExpr);
            (*call).funcid = (*window).winfnoid;
            (*call).funcresulttype = (*window).wintype;
            (*call).funccollid = (*window).wincollid;
            (*call).inputcollid = (*window).inputcollid;
            (*call).args = node::copy((*window).args);
            (*call).location = -1;
            Some(call.cast())
        })
    }
}

/// A scan is made that yields window functions: [`show_windows`] has to look for it.
pub(crate) fn yields_windows() {
    #[cfg(feature = "pg18")]
    ARE_YIELDED.set(true);
}

/// Has the scans of a finished plan say what they yield as EXPLAIN is to show it. The executor asks for its types only.
///
/// # Safety
///
/// A finished plan that nobody else holds, and the functions by which the scans are known.
pub(crate) unsafe fn show_windows(
    planned: *mut pg_sys::PlannedStmt,
    methods: *const pg_sys::CustomScanMethods,
) {
    #[cfg(not(feature = "pg18"))]
    {
        let _ = (planned, methods);
    }
    // SAFETY: the caller vouches for the plan.
    #[cfg(feature = "pg18")]
    unsafe {
        if ARE_YIELDED.get() {
            let mut todo = node::elements::<pg_sys::Plan>((*planned).subplans);
            todo.push((*planned).planTree);
            while let Some(plan) = todo.pop() {
                if !plan.is_null() {
                    show_windows_of(plan, methods);
                    todo.extend(below(plan));
                }
            }
        }
    }
}

#[cfg(feature = "pg18")]
unsafe fn show_windows_of(plan: *mut pg_sys::Plan, methods: *const pg_sys::CustomScanMethods) {
    // SAFETY: the caller passes a live plan.
    unsafe {
        let Some(custom) = node::cast::<pg_sys::CustomScan, _>(plan, NodeTag::T_CustomScan) else {
            return;
        };
        if std::ptr::eq((*custom).methods, methods) {
            for output in node::elements::<pg_sys::TargetEntry>((*custom).custom_scan_tlist) {
                (*output).expr = shown_windows((*output).expr.cast()).cast();
            }
        }
    }
}

/// The plans that this one has below it, some of which may be null.
#[cfg(feature = "pg18")]
unsafe fn below(plan: *mut pg_sys::Plan) -> Vec<*mut pg_sys::Plan> {
    // SAFETY: the caller passes a live plan, which is cast to the struct of its tag.
    unsafe {
        let more = match node::tag(plan) {
            NodeTag::T_Append => node::elements((*plan.cast::<pg_sys::Append>()).appendplans),
            NodeTag::T_MergeAppend => {
                node::elements((*plan.cast::<pg_sys::MergeAppend>()).mergeplans)
            }
            NodeTag::T_SubqueryScan => vec![(*plan.cast::<pg_sys::SubqueryScan>()).subplan],
            NodeTag::T_CustomScan => {
                node::elements((*plan.cast::<pg_sys::CustomScan>()).custom_plans)
            }
            _ => Vec::new(),
        };
        [vec![(*plan).lefttree, (*plan).righttree], more].concat()
    }
}
