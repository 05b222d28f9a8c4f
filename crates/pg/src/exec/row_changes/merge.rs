//! Actions of MERGE: which one a row is for, and what it makes of the row.

use super::{Action, Change, Changes, holds, project, value};
use crate::sys::version::MergeMatch;
use pgrx::pg_sys;

impl Changes {
    /// The first action whose condition holds, as ExecMergeMatched and ExecMergeNotMatched choose it.
    ///
    /// `is_matched` says that there is a row of the target.
    pub(super) unsafe fn merge(&mut self, is_matched: bool) -> Change {
        // SAFETY: the expressions were made for this node; slots as above.
        unsafe {
            let context = (*self.node).ss.ps.ps_ExprContext;
            (*context).ecxt_scantuple = self.old;
            (*context).ecxt_innertuple = self.input;
            (*context).ecxt_outertuple = std::ptr::null_mut();
            let rows = match is_matched {
                false => MergeMatch::NotByTarget,
                true if holds(self.has_source, context) => MergeMatch::Matched,
                true => MergeMatch::NotBySource,
            };
            for index in 0..self.actions.len() {
                let Action { rows: of, command, qual, projection, set } = self.actions[index];
                if of != rows || !holds(qual, context) {
                    continue;
                }
                if rows != MergeMatch::NotByTarget && command != pg_sys::CmdType::CMD_NOTHING {
                    let kind = if command == pg_sys::CmdType::CMD_UPDATE {
                        pg_sys::WCOKind::WCO_RLS_MERGE_UPDATE_CHECK
                    } else {
                        pg_sys::WCOKind::WCO_RLS_MERGE_DELETE_CHECK
                    };
                    self.check(self.updating, kind, self.old);
                }
                return match command {
                    pg_sys::CmdType::CMD_INSERT => {
                        let row = project(projection);
                        self.fill_new(|column| value(row, column));
                        Change::Insert
                    }
                    pg_sys::CmdType::CMD_UPDATE => {
                        let row = project(projection);
                        self.assign(row, set);
                        Change::Update(set)
                    }
                    pg_sys::CmdType::CMD_DELETE => Change::Delete,
                    _ => Change::Nothing,
                };
            }
            Change::Nothing
        }
    }
}
