//! Whether a statement may ask the nodes for rows more than once, told by its plan.
//!
//! Each scan of ours counts as often as it may be executed: twice if what is above it may start it over. What
//! is below another kind of node than those named here is executed as often as the node itself.

use crate::sys::custom;
use crate::sys::node;
use pgrx::pg_sys::{self, NodeTag};
use std::ffi::c_int;

/// The statement is a read (or writes a table of this server only) whose plan may have scans of ours executed more than once,
/// all told; or it calls functions of users, which may read too.
///
/// # Safety
///
/// A live statement whose execution has begun.
pub(crate) unsafe fn may_read_again(statement: *const pg_sys::PlannedStmt) -> bool {
    // SAFETY: the caller vouches for the statement; its lists hold what PostgreSQL puts there.
    unsafe {
        if statement.is_null() {
            return false;
        }
        let statement = &*statement;
        let is_read = statement.commandType == pg_sys::CmdType::CMD_SELECT
            || node::tag(statement.planTree) == NodeTag::T_ModifyTable;
        if !is_read || statement.hasModifyingCTE || !statement.rowMarks.is_null() {
            return false;
        }
        let is_function = |item: *mut pg_sys::PlanInvalItem| {
            (*item).cacheId == pg_sys::SysCacheIdentifier::PROCOID as c_int
        };
        if node::elements(statement.invalItems).into_iter().any(is_function) {
            return true;
        }
        scans_of(statement, 0) > 1
    }
}

/// How often scans of ours are executed, all told; twice stands for more than once. Scans with one of the flags `without` do not count.
unsafe fn scans_of(statement: &pg_sys::PlannedStmt, without: u32) -> u32 {
    // SAFETY: the caller vouches for the statement; its lists hold what PostgreSQL puts there.
    unsafe {
        let mut count = Count { scans: 0, without, once: Vec::new() };
        count.look_at(statement.planTree, 1);
        for (index, plan) in node::elements::<pg_sys::Plan>(statement.subplans).iter().enumerate() {
            // An init plan is executed once.
            let times = if count.once.contains(&(index as c_int + 1)) { 1 } else { 2 };
            count.look_at(*plan, times);
        }
        count.scans
    }
}

/// The plan has several scans that read at the statement's time, or one that may be executed more than once, beside what writes at
/// its top.
///
/// # Safety
///
/// A live statement whose execution has begun.
pub(crate) unsafe fn has_several_scans(statement: *const pg_sys::PlannedStmt) -> bool {
    // SAFETY: the caller vouches for the statement; its lists hold what PostgreSQL puts there.
    unsafe {
        if statement.is_null() {
            return false;
        }
        let statement = &*statement;
        let writes_at_top = statement.commandType != pg_sys::CmdType::CMD_SELECT
            && node::tag(statement.planTree) == NodeTag::T_CustomScan;
        scans_of(statement, custom::READS_NOW) > 1 + u32::from(writes_at_top)
    }
}

struct Count {
    scans: u32,
    /// Flags of scans that do not count.
    without: u32,
    /// Numbers of sub-plans that are executed once.
    once: Vec<c_int>,
}

impl Count {
    /// Counts the scans of a plan that is executed so many times.
    ///
    /// # Safety
    ///
    /// `plan` is null or a live plan.
    unsafe fn look_at(&mut self, plan: *mut pg_sys::Plan, times: u32) {
        node::check_depth();
        if plan.is_null() {
            return;
        }
        // SAFETY: the caller vouches for the plan; each node is cast to the struct of its tag.
        unsafe {
            for below in node::elements::<pg_sys::SubPlan>((*plan).initPlan) {
                if times == 1 {
                    self.once.push((*below).plan_id);
                }
            }
            let (left, right) = ((*plan).lefttree, (*plan).righttree);
            match node::tag(plan) {
                NodeTag::T_NestLoop | NodeTag::T_MergeJoin | NodeTag::T_RecursiveUnion => {
                    self.look_at(left, times);
                    self.look_at(right, 2);
                }
                NodeTag::T_Append => {
                    let append = plan.cast::<pg_sys::Append>();
                    for below in node::elements((*append).appendplans) {
                        self.look_at(below, times);
                    }
                }
                NodeTag::T_MergeAppend => {
                    let append = plan.cast::<pg_sys::MergeAppend>();
                    for below in node::elements((*append).mergeplans) {
                        self.look_at(below, times);
                    }
                }
                NodeTag::T_SubqueryScan => {
                    self.look_at((*plan.cast::<pg_sys::SubqueryScan>()).subplan, times);
                }
                NodeTag::T_CustomScan => {
                    let scan = plan.cast::<pg_sys::CustomScan>();
                    if custom::is_scan(scan) && (*scan).flags & self.without == 0 {
                        self.scans += times;
                    }
                    for below in node::elements((*scan).custom_plans) {
                        self.look_at(below, times);
                    }
                }
                _ => {
                    self.look_at(left, times);
                    self.look_at(right, times);
                }
            }
        }
    }
}
