//! Plans as PostgreSQL keeps them: a CustomScan whose private part is a flat list of texts and numbers
//! (`sys/plan.rs`), so that plans can be copied, cached and printed like any other.

use crate::exec::scan;
use crate::read::query::{Prepared, Statement};
use crate::sys::node;
use crate::sys::plan::PlanWriter;
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::cell::Cell;

thread_local! {
    /// The next statement to be planned is known to concern no distributed table.
    static PASS_ON: Cell<bool> = const { Cell::new(false) };
}

/// Says so; whoever does calls the planner at once.
fn pass_on_next() {
    PASS_ON.set(true);
}

/// Whether that was said of the statement that is planned now.
pub(crate) fn is_passed_on() -> bool {
    PASS_ON.take()
}

/// The client's parameters, as the planner was given them.
#[derive(Clone, Copy, Debug)]
pub struct BoundParameters(pub(crate) pg_sys::ParamListInfo);

/// A finished plan for PostgreSQL.
#[derive(Clone, Copy, Debug)]
pub struct Plan(pub(crate) *mut pg_sys::PlannedStmt);

impl Statement {
    /// The plan of a statement that is one scan of ours and nothing else.
    ///
    /// PostgreSQL's executor checks privileges and takes locks by the range table, so all tables of all levels
    /// are in it; the plan depends on each of them, and on `metadata`, whose invalidation means that any table
    /// may be cut differently now.
    pub fn plan_whole(
        &self,
        prepared: &Prepared,
        private: &PlanWriter,
        metadata: Oid,
        scroll: bool,
    ) -> Plan {
        // SAFETY: the Query is live during planning; nodes are made with the structs of their tags.
        unsafe {
            let parse = self.parse;
            let outputs = if (*parse).commandType == pg_sys::CmdType::CMD_SELECT {
                (*parse).targetList
            } else {
                (*parse).returningList
            };
            let scan: *mut pg_sys::CustomScan = node::make(NodeTag::T_CustomScan);
            let (mut target_list, mut scan_list) = (Vec::new(), Vec::new());
            for entry in node::elements::<pg_sys::TargetEntry>(outputs) {
                if (*entry).resjunk {
                    continue;
                }
                let number = target_list.len() as i16 + 1;
                let expr = (*entry).expr.cast::<pg_sys::Node>();
                let var = pg_sys::makeVar(
                    pg_sys::INDEX_VAR,
                    number,
                    pg_sys::exprType(expr),
                    pg_sys::exprTypmod(expr),
                    pg_sys::exprCollation(expr),
                    0,
                );
                let output = pg_sys::makeTargetEntry(var.cast(), number, (*entry).resname, false);
                (*output).resorigtbl = (*entry).resorigtbl;
                (*output).resorigcol = (*entry).resorigcol;
                target_list.push(output);
                scan_list.push(pg_sys::makeTargetEntry(
                    (*entry).expr,
                    number,
                    (*entry).resname,
                    false,
                ));
            }
            (*scan).scan.plan.targetlist = node::list_of(&target_list);
            (*scan).custom_scan_tlist = node::list_of(&scan_list);
            (*scan).scan.plan.plan_rows = 1.0;
            (*scan).scan.plan.total_cost = 1.0;
            (*scan).methods = scan::methods();
            // The executor runs planned expressions only (no COLLATE clauses, no named arguments).
            let planned: Vec<*mut pg_sys::Expr> = prepared
                .expressions
                .iter()
                .map(|expression| pg_sys::expression_planner(node::copy(*expression).cast()))
                .collect();
            (*scan).custom_exprs = node::list_of(&planned);
            (*scan).custom_private = private.list();

            let mut top = scan.cast::<pg_sys::Plan>();
            if scroll {
                top = pg_sys::materialize_finished_plan(top);
            }
            Plan(self.finish(top, metadata))
        }
    }

    /// The plan of an INSERT whose rows come from `source`, planned already: our scan on top of it.
    pub fn plan_over_source(
        &self,
        source: Plan,
        prepared: &Prepared,
        private: &PlanWriter,
        metadata: Oid,
    ) -> Plan {
        let Plan(whole) = self.plan_whole(prepared, private, metadata, false);
        // SAFETY: both plans are live and ours; the source's range table, sub-plans and parameters stay as
        // they are, since its plan tree refers to them by number.
        unsafe {
            let Plan(below) = source;
            let top = (*whole).planTree.cast::<pg_sys::CustomScan>();
            (*top).custom_plans = node::list_of(&[(*below).planTree]);
            (*below).planTree = top.cast();
            (*below).commandType = (*self.parse).commandType;
            (*below).hasReturning = (*whole).hasReturning;
            (*below).canSetTag = (*self.parse).canSetTag;
            (*below).queryId = (*self.parse).queryId;
            (*below).stmt_location = (*self.parse).stmt_location;
            (*below).stmt_len = (*self.parse).stmt_len;
            (*below).relationOids =
                pg_sys::list_concat_unique_oid((*below).relationOids, (*whole).relationOids);
            Plan(below)
        }
    }

    /// PostgreSQL's own plan of the statement, with our hooks at work below.
    pub fn plan_by_postgres(&self, parameters: BoundParameters) -> Plan {
        // SAFETY: a live Query; planner() runs the hook chain, which is re-entrant.
        unsafe { Plan(pg_sys::planner(self.parse, c"".as_ptr(), 0, parameters.0)) }
    }

    /// The same of a statement that reads no distributed table: we need not look at it again.
    pub fn plan_without_us(&self, parameters: BoundParameters) -> Plan {
        pass_on_next();
        self.plan_by_postgres(parameters)
    }

    /// A PlannedStmt around `top` with the statement's own range table.
    unsafe fn finish(&self, top: *mut pg_sys::Plan, metadata: Oid) -> *mut pg_sys::PlannedStmt {
        // SAFETY: the caller passes a finished plan; the Query is live.
        unsafe {
            let parse = self.parse;
            let plan: *mut pg_sys::PlannedStmt = node::make(NodeTag::T_PlannedStmt);
            (*plan).commandType = (*parse).commandType;
            (*plan).queryId = (*parse).queryId;
            (*plan).hasReturning = !(*parse).returningList.is_null();
            (*plan).hasModifyingCTE = (*parse).hasModifyingCTE;
            (*plan).canSetTag = (*parse).canSetTag;
            (*plan).planTree = top;
            (*plan).stmt_location = (*parse).stmt_location;
            (*plan).stmt_len = (*parse).stmt_len;
            let mut entries: Vec<*mut pg_sys::RangeTblEntry> = Vec::new();
            node::walk(parse, &mut |n| {
                if node::tag(n) == NodeTag::T_Query {
                    for rte in
                        node::elements::<pg_sys::RangeTblEntry>((*n.cast::<pg_sys::Query>()).rtable)
                    {
                        if version::is_checked(rte) {
                            let own: *mut pg_sys::RangeTblEntry =
                                node::make(NodeTag::T_RangeTblEntry);
                            std::ptr::copy_nonoverlapping(rte, own, 1);
                            (*own).tablesample = std::ptr::null_mut();
                            (*own).securityQuals = std::ptr::null_mut();
                            (*own).subquery = std::ptr::null_mut();
                            version::plan_rights(plan, n.cast(), own);
                            entries.push(own);
                        }
                    }
                }
                node::Visit::Into
            });
            (*plan).relationOids = pg_sys::lappend_oid(std::ptr::null_mut(), metadata);
            for entry in &entries {
                (*plan).relationOids = pg_sys::lappend_oid((*plan).relationOids, (**entry).relid);
            }
            (*plan).rtable = node::list_of(&entries);
            plan
        }
    }
}

impl Plan {
    /// Makes the plan depend on `metadata` too: its invalidation makes PostgreSQL plan anew.
    pub fn depends_on(self, metadata: Oid) {
        // SAFETY: a finished plan of this backend.
        unsafe { (*self.0).relationOids = pg_sys::lappend_oid((*self.0).relationOids, metadata) }
    }
}

/// Has PostgreSQL make all plans anew that it keeps.
pub fn forget_cached() {
    // SAFETY: marks the backend's kept plans; one that is being executed goes on.
    unsafe { pg_sys::ResetPlanCache() };
}
