//! Remote rows that are kept as they came, to be decoded later.
//!
//! Reading a value of a domain runs its check, and that may be a function that begins a subtransaction or asks for other
//! distributed tables. While a session is in somebody's hands its rows are therefore not decoded but put here: in memory up
//! to work_mem, then on disk. Whoever reads the rows decodes them when the session is free ([`crate::exec::rows::settle`]).

use crate::sys::value::make_bytea;
use pgrx::pg_sys::{self, Datum};
use protocol::{OwnedRow, Row};

/// A queue of rows; it lives no longer than the query whose memory it uses, or until it is closed.
pub(crate) struct Undecoded {
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
    slot: *mut pg_sys::TupleTableSlot,
    /// What slot and descriptor live in.
    memory: pg_sys::MemoryContext,
    kept: u64,
    taken: u64,
}

impl Undecoded {
    /// An empty queue, in this memory; its files belong to `owner`.
    pub(crate) fn new(memory: pg_sys::MemoryContext, owner: pg_sys::ResourceOwner) -> Self {
        // SAFETY: made in the query's memory and under its owner, which outlive us; an abort sets the owner itself.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(memory);
            let descriptor = pg_sys::CreateTemplateTupleDesc(1);
            pg_sys::TupleDescInitEntry(descriptor, 1, c"row".as_ptr(), pg_sys::BYTEAOID, -1, 0);
            let slot =
                pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsMinimalTuple);
            let current = pg_sys::CurrentResourceOwner;
            pg_sys::CurrentResourceOwner = owner;
            let store = pg_sys::tuplestore_begin_heap(false, false, pg_sys::work_mem);
            pg_sys::CurrentResourceOwner = current;
            pg_sys::MemoryContextSwitchTo(before);
            Self { store, descriptor, slot, memory, kept: 0, taken: 0 }
        }
    }

    /// Puts a row at the end.
    pub(crate) fn keep(&mut self, row: &Row<'_>) {
        // SAFETY: a live store, which copies the value; its own memory is the query's.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.memory);
            let bytes = make_bytea(row.bytes());
            let (mut value, mut is_null) = (bytes, false);
            pg_sys::tuplestore_putvalues(
                self.store,
                self.descriptor,
                &raw mut value,
                &raw mut is_null,
            );
            pg_sys::pfree(bytes.cast_mut_ptr());
            pg_sys::MemoryContextSwitchTo(before);
        }
        self.kept += 1;
    }

    /// Takes the first one out.
    pub(crate) fn take(&mut self) -> Option<OwnedRow> {
        if self.taken == self.kept {
            return None;
        }
        self.taken += 1;
        // SAFETY: a live store with a row left, and a slot for its rows: of one bytea, which is as it was made, without
        // compression and with a header of four bytes.
        unsafe {
            if !pg_sys::tuplestore_gettupleslot(self.store, true, false, self.slot) {
                return None;
            }
            pg_sys::slot_getallattrs(self.slot);
            let value: Datum = *(*self.slot).tts_values;
            let bytes = pgrx::varlena_to_byte_slice(value.cast_mut_ptr());
            Some(OwnedRow::of(bytes))
        }
    }

    /// Frees its files and memory. Not done by `drop`, which may run when the query's memory is gone as well.
    pub(crate) fn close(self) {
        // SAFETY: made by `new` and freed once, while the query goes on.
        unsafe {
            pg_sys::tuplestore_end(self.store);
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
        }
    }
}
