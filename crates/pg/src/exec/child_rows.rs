//! The rows of the child plan of a scan that writes, read before the first of them is used.

use crate::exec::scan_io::{Buffered, ScanIo, next_row};
use crate::sys::node;
use crate::sys::value::{Encoder, Hasher};
use crate::sys::version;
use pgrx::pg_sys::{self, Datum, Oid};
use protocol::Arguments;

/// A row of the child plan.
pub struct ChildRow {
    slot: *mut pg_sys::TupleTableSlot,
}

impl ChildRow {
    pub(crate) fn slot(&self) -> *mut pg_sys::TupleTableSlot {
        self.slot
    }

    /// How many columns it has.
    pub fn columns(&self) -> usize {
        // SAFETY: the slot is live until the next row.
        unsafe { (*(*self.slot).tts_tupleDescriptor).natts as usize }
    }

    fn datum(&self, column: usize) -> Option<Datum> {
        // SAFETY: the slot is live and deformed; the caller's column is below `columns`.
        unsafe {
            (!*(*self.slot).tts_isnull.add(column)).then(|| *(*self.slot).tts_values.add(column))
        }
    }

    /// Appends a value to a statement's arguments.
    pub fn append(&self, column: usize, encoder: &Encoder, arguments: &mut Arguments) {
        // SAFETY: the encoder was made for this column of the child.
        unsafe { encoder.append(self.datum(column), arguments) }
    }

    /// Hands a value's bytes to `take`; none for NULL.
    pub fn with_bytes<T>(
        &self,
        column: usize,
        encoder: &Encoder,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        // SAFETY: the encoder was made for this column of the child.
        self.datum(column).map(|value| unsafe { encoder.with_bytes(value, take) })
    }

    /// The hash of a value; none for NULL.
    pub fn hash(&self, column: usize, hasher: &Hasher) -> Option<i32> {
        // SAFETY: the child's column has the distribution column's type, for which the hasher was found.
        self.datum(column).map(|value| unsafe { hasher.hash(value) })
    }
}

impl ScanIo {
    /// Reads the child plan to its end now, into memory up to work_mem and then to disk; [`Self::child_row`]
    /// gives its rows afterwards.
    pub fn buffer_child(&mut self) {
        // SAFETY: the child was initialised by `begin`; store and slot live in the query's context.
        unsafe {
            let child: *mut pg_sys::PlanState = node::nth((*self.node).custom_ps, 0);
            let estate = (*self.node).ss.ps.state;
            let before = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            let store = pg_sys::tuplestore_begin_heap(false, false, pg_sys::work_mem);
            let slot = pg_sys::ExecInitExtraTupleSlot(
                estate,
                (*child).ps_ResultTupleDesc,
                &raw const pg_sys::TTSOpsMinimalTuple,
            );
            pg_sys::MemoryContextSwitchTo(before);
            while let Some(row) = next_row(child) {
                pg_sys::tuplestore_puttupleslot(store, row);
            }
            self.buffered = Some(Buffered { store, slot });
        }
    }

    /// The next row of the child plan: its values as texts that COPY and the extension understand.
    pub fn child_row(&mut self) -> Option<ChildRow> {
        if let Some(Buffered { store, slot }) = self.buffered {
            pgrx::check_for_interrupts!();
            // SAFETY: made by `buffer_child`, ended with the query's context.
            unsafe {
                if !pg_sys::tuplestore_gettupleslot(store, true, false, slot) {
                    return None;
                }
                pg_sys::slot_getallattrs(slot);
            }
            return Some(ChildRow { slot });
        }
        // SAFETY: the child was initialised by `begin`; its slot's values stay until the next call.
        unsafe {
            let child: *mut pg_sys::PlanState = node::nth((*self.node).custom_ps, 0);
            next_row(child).map(|slot| ChildRow { slot })
        }
    }

    /// Encoders for the child's columns.
    pub fn child_encoders(&mut self) -> Vec<Encoder> {
        self.encoders_of_child(Encoder::new)
    }

    /// Encoders of the child's columns as COPY's text format wants them.
    pub fn child_text_encoders(&mut self) -> Vec<Encoder> {
        self.encoders_of_child(Encoder::text)
    }

    fn encoders_of_child(&mut self, make: fn(Oid) -> Encoder) -> Vec<Encoder> {
        // SAFETY: the child was initialised by `begin`; the encoders live in the query's context.
        unsafe {
            let child: *mut pg_sys::PlanState = node::nth((*self.node).custom_ps, 0);
            let descriptor = (*child).ps_ResultTupleDesc;
            let before = pg_sys::MemoryContextSwitchTo((*(*self.node).ss.ps.state).es_query_cxt);
            let encoders = (0..(*descriptor).natts as usize)
                .map(|index| make((*version::attribute(descriptor, index)).atttypid))
                .collect();
            pg_sys::MemoryContextSwitchTo(before);
            encoders
        }
    }
}
