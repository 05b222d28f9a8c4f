//! Which rows of which tables a statement may delete, and which columns it may change.

use crate::read::query::Statement;
use crate::sys::node;
use pgrx::pg_sys::{self, NodeTag, Oid};

/// What a statement, or a WITH clause of it, does to rows that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowsChanged {
    /// The table.
    pub table: Oid,
    /// It may delete rows.
    pub deletes: bool,
    /// The columns that it may change.
    pub columns: Vec<i16>,
}

impl Statement {
    /// What it does to rows that are there, WITH clauses included.
    pub fn changes(&self) -> Vec<RowsChanged> {
        let mut changes = Vec::new();
        // SAFETY: the live Query that is being planned.
        unsafe { collect(self.parse, &mut changes) };
        changes
    }
}

unsafe fn collect(query: *mut pg_sys::Query, changes: &mut Vec<RowsChanged>) {
    // SAFETY: the caller passes a live Query; its lists hold what the analyser puts there. Only top queries have WITH clauses that
    // write (parse_cte.c).
    unsafe {
        for with in node::elements::<pg_sys::CommonTableExpr>((*query).cteList) {
            if let Some(nested) = node::cast::<pg_sys::Query, _>((*with).ctequery, NodeTag::T_Query)
            {
                collect(nested, changes);
            }
        }
        changes.extend(RowsChanged::of(query));
    }
}

impl RowsChanged {
    /// What this level of a statement does, if it writes.
    ///
    /// # Safety
    ///
    /// A live Query.
    pub(crate) unsafe fn of(query: *mut pg_sys::Query) -> Option<Self> {
        // SAFETY: the caller vouches; its lists hold what the analyser puts there.
        unsafe {
            if (*query).resultRelation == 0 {
                return None;
            }
            let tables = node::elements::<pg_sys::RangeTblEntry>((*query).rtable);
            let table = (*tables[(*query).resultRelation as usize - 1]).relid;
            let mut change = RowsChanged { table, deletes: false, columns: Vec::new() };
            match (*query).commandType {
                pg_sys::CmdType::CMD_DELETE => change.deletes = true,
                pg_sys::CmdType::CMD_UPDATE => change.columns = assigned((*query).targetList),
                pg_sys::CmdType::CMD_MERGE => {
                    for action in node::elements::<pg_sys::MergeAction>((*query).mergeActionList) {
                        match (*action).commandType {
                            pg_sys::CmdType::CMD_DELETE => change.deletes = true,
                            pg_sys::CmdType::CMD_UPDATE => {
                                change.columns.extend(assigned((*action).targetList));
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
            if !(*query).onConflict.is_null() {
                change.columns.extend(assigned((*(*query).onConflict).onConflictSet));
            }
            Some(change)
        }
    }
}

unsafe fn assigned(list: *mut pg_sys::List) -> Vec<i16> {
    // SAFETY: the caller passes a live target list.
    unsafe {
        node::elements::<pg_sys::TargetEntry>(list)
            .into_iter()
            .filter(|entry| !(**entry).resjunk)
            .map(|entry| (*entry).resno)
            .collect()
    }
}
