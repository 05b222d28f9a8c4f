//! A row that an INSERT cannot add, and how it goes on, in the steps of ExecInsert and ExecOnConflictUpdate.

use super::{
    Change, Changes, Conflict, Place, fill, holds, materialize, number_of, project, raw, value,
};
use crate::sys::error::PgError;
use crate::sys::version;
use pgrx::pg_sys::{self, Datum};
use protocol::Row;

impl Changes {
    /// The INSERT has an ON CONFLICT clause.
    pub fn has_conflict_clause(&self) -> bool {
        self.conflict.is_some()
    }

    /// It is DO UPDATE.
    pub fn updates_on_conflict(&self) -> bool {
        self.conflict.as_ref().is_some_and(|conflict| conflict.updates)
    }

    /// The columns that conflicts are looked for in; none for any unique index.
    pub fn conflict_columns(&self) -> Option<&[i16]> {
        self.conflict.as_ref()?.columns.as_deref()
    }

    /// In which formats the columns of a row that is there are asked for; see [`Self::take_existing`].
    pub fn existing_formats(&self) -> Vec<bool> {
        let codecs = self.conflict.as_ref().and_then(|conflict| conflict.existing.codecs.clone());
        codecs.map_or_else(Vec::new, |codecs| codecs.binary_columns().to_vec())
    }

    /// The row is about to be inserted: its generated columns, and what policies say of it.
    pub fn propose(&mut self) {
        // SAFETY: as in `complete`; the excluded slot's values point to where those of the new row do.
        unsafe {
            if self.has_generated {
                let (estate, new) = ((*self.node).ss.ps.state, self.new);
                let (relation, command) = (self.inserting, pg_sys::CmdType::CMD_INSERT);
                pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    raw::ExecComputeStoredGenerated(relation, estate, new, command);
                });
            }
            self.check(self.inserting, pg_sys::WCOKind::WCO_RLS_INSERT_CHECK, self.new);
            if let Some(conflict) = &self.conflict {
                let new = self.new;
                fill(conflict.excluded, self.old_at.len(), |column| value(new, column));
                (*conflict.excluded).tts_tableOid = (*self.relation).rd_id;
                // What a trigger has made of the new row goes when the slot gets the next one.
                if self.triggers.is_some() {
                    materialize(conflict.excluded);
                }
            }
        }
    }

    /// Takes the row that is there, from a worker: its `ctid` and its live columns.
    pub fn take_existing(&mut self, row: Row<'_>) -> Result<(), PgError> {
        let Some(conflict) = &mut self.conflict else { return Ok(()) };
        let natts = self.old_at.len();
        let (mut values, mut nulls) = (vec![Datum::from(0); natts + 1], vec![true; natts + 1]);
        // SAFETY: the arrays are as long as the store's row can be; what is decoded lives in per-row memory, as the
        // slots' values do.
        unsafe {
            let memory = (*(*self.node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory;
            let before = pg_sys::MemoryContextSwitchTo(memory);
            let decoded = conflict.existing.decode(values.as_mut_ptr(), nulls.as_mut_ptr(), row);
            pg_sys::MemoryContextSwitchTo(before);
            decoded?;
            let descriptor = (*self.relation).rd_att;
            let mut next = 0;
            fill(self.old, natts, |column| {
                if (*version::attribute(descriptor, column)).attisdropped {
                    return None;
                }
                next += 1;
                (!nulls[next]).then(|| values[next])
            });
            (*self.old).tts_tableOid = (*self.relation).rd_id;
            (*self.old).tts_tid = *values[0].cast_mut_ptr::<pg_sys::ItemPointerData>();
        }
        self.has_old = true;
        Ok(())
    }

    /// What is done with the row that is there, as ExecOnConflictUpdate does it.
    pub fn resolve(&mut self) -> Change {
        let Some(Conflict { condition, projection, set, excluded, .. }) = self.conflict else {
            return Change::Nothing;
        };
        // SAFETY: the expressions were made for this node; the slots are filled.
        unsafe {
            let context = (*self.node).ss.ps.ps_ExprContext;
            (*context).ecxt_scantuple = self.old;
            (*context).ecxt_innertuple = excluded;
            (*context).ecxt_outertuple = std::ptr::null_mut();
            self.check(self.updating, version::EXISTING_ROW_OF_VIEW, self.old);
            if !holds(condition, context) {
                return Change::Nothing;
            }
            self.check(self.updating, pg_sys::WCOKind::WCO_RLS_CONFLICT_CHECK, self.old);
            let row = project(projection);
            self.assign(row, set);
        }
        Change::Update(set)
    }

    /// Where the row that is there lies.
    pub fn existing_place(&self, shard: usize) -> Place {
        // SAFETY: filled by `take_existing`.
        Place { shard, ctid: number_of(unsafe { (*self.old).tts_tid }) }
    }
}
