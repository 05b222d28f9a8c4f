//! Triggers of the table that a COPY FROM fills, in the steps of `CopyFrom` (`src/backend/commands/copyfrom.c`).

use super::CopyInput;
use crate::exec::triggers;
use crate::sys::error::PgError;
use pgrx::pg_sys;

impl CopyInput {
    /// Triggers fire for the rows.
    pub fn fires_triggers(&self) -> bool {
        self.triggers.is_some()
    }

    /// BEFORE triggers of the statement fire.
    pub fn begin_statement(&mut self) {
        if let Some(triggers) = &mut self.triggers {
            // SAFETY: ended by `end_statement`; an ERROR ends it with the transaction.
            unsafe { pg_sys::AfterTriggerBeginQuery() };
            triggers.begin_statement();
        }
    }

    /// BEFORE triggers of the row fire; false if they suppress it.
    pub fn before_row(&mut self) -> bool {
        let slot = self.slot;
        self.triggers.as_ref().is_none_or(|triggers| {
            // SAFETY: the virtual slot holds the row that was read last.
            unsafe {
                (*slot).tts_tableOid = (*self.relation).rd_id;
                let before = pg_sys::MemoryContextSwitchTo(
                    (*super::per_tuple_context(self.estate)).ecxt_per_tuple_memory,
                );
                let goes_on = triggers.before_insert(slot);
                pg_sys::MemoryContextSwitchTo(before);
                goes_on
            }
        })
    }

    /// AFTER triggers of the row are queued.
    pub fn after_row(&mut self) -> Result<(), PgError> {
        let slot = self.slot;
        self.triggers.as_mut().map_or(Ok(()), |own| {
            // SAFETY: as above.
            unsafe {
                let constraints = (*(*self.relation).rd_att).constr;
                if !constraints.is_null() && (*constraints).has_generated_stored {
                    own.compute_generated(slot);
                }
                own.after_insert(slot)
            }
        })
    }

    /// All rows are stored: AFTER triggers fire.
    pub fn end_statement(&mut self) {
        if let Some(own) = &mut self.triggers {
            own.end_statement();
            // SAFETY: begun by `begin_statement`.
            unsafe { pg_sys::AfterTriggerEndQuery(self.estate) };
            triggers::finish(own.execution());
        }
    }
}
