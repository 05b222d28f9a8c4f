//! A scan's numbered rows: what a scan asks of [`super::numbered`].
//!
//! `ScanIo::read_arrays` reads the child's rows into them.

use crate::exec::numbered::{Numbered, Sent};
use crate::exec::rows::RowStore;
use crate::exec::scan_io::ScanIo;
use crate::sys::node;
use crate::sys::unguarded;
use pgrx::pg_sys::{self, Datum};

impl ScanIo {
    /// The first child's rows are kept; these columns of them are sent, with numbers: one for all rows that agree in
    /// the columns, or one for each.
    pub fn number_first_child(&mut self, columns: &[usize], agreeing: bool) {
        // SAFETY: the children were initialised by `begin`; the slots live in the query's memory, as its other slots do.
        unsafe {
            let child: *mut pg_sys::PlanState = node::nth((*self.node()).custom_ps, 0);
            let estate = (*self.node()).ss.ps.state;
            let minimal = &raw const pg_sys::TTSOpsMinimalTuple;
            let before = pg_sys::MemoryContextSwitchTo(self.query_memory());
            let descriptor = (*child).ps_ResultTupleDesc;
            let slot = pg_sys::ExecInitExtraTupleSlot(estate, descriptor, minimal);
            let own = (*self.slot()).tts_tupleDescriptor;
            let held = pg_sys::ExecInitExtraTupleSlot(estate, own, minimal);
            pg_sys::MemoryContextSwitchTo(before);
            let rows = RowStore::new(self.query_memory(), descriptor);
            let sent = agreeing.then(Sent::default);
            self.numbered = Some(Numbered { columns: columns.to_vec(), rows, sent, slot, held });
        }
    }

    fn numbered(&mut self) -> &mut Numbered {
        let numbered = self.numbered.as_mut();
        numbered.unwrap_or_else(|| unreachable!("a scan that asks for numbered rows has them"))
    }

    /// How many numbers there are.
    pub fn numbers(&mut self) -> usize {
        let numbered = self.numbered();
        match &numbered.sent {
            Some(sent) => sent.numbers.len(),
            None => usize::try_from(numbered.rows.kept).unwrap_or(usize::MAX),
        }
    }

    /// The number of a row, counted from zero.
    pub fn number_of(&mut self, row: usize) -> usize {
        match &self.numbered().sent {
            Some(sent) => sent.of_rows.get(row).map_or(usize::MAX, |number| *number as usize),
            None => row,
        }
    }

    /// Takes the next of them out; false after the last.
    pub fn next_numbered(&mut self) -> bool {
        let numbered = self.numbered();
        if numbered.rows.taken >= numbered.rows.kept {
            return false;
        }
        numbered.rows.taken += 1;
        // SAFETY: the store is live, since rows have been kept, and the slot is one for its rows.
        unsafe {
            if !pg_sys::tuplestore_gettupleslot(numbered.rows.store, true, false, numbered.slot) {
                return false;
            }
            pg_sys::slot_getallattrs(numbered.slot);
        }
        true
    }

    /// The next is the first again.
    pub fn rewind_numbered(&mut self) {
        self.numbered().rows.rewind();
    }

    /// Forgets them.
    pub fn clear_numbered(&mut self) {
        let numbered = self.numbered();
        numbered.rows.clear();
        numbered.sent = numbered.sent.take().map(|_| Sent::default());
    }

    /// The number that is the first column of the scan's row.
    pub fn number(&self) -> usize {
        let slot = self.slot();
        // SAFETY: the node's own slot, which a remote row has been put in; its first column is an int4, and not NULL.
        let number = unsafe { (*(*slot).tts_values).value() as i32 };
        usize::try_from(number).unwrap_or(usize::MAX)
    }

    /// Forgets the row in the scan's slot, and serves interrupts.
    pub fn pass_over(&mut self) {
        pgrx::check_for_interrupts!();
        self.clear_slot(self.slot());
        self.reset_row_memory();
    }

    /// Puts a row of NULLs in the scan's slot.
    pub fn emit_nulls(&mut self) {
        let slot = self.slot();
        self.clear_slot(slot);
        // SAFETY: the node's own slot, whose arrays are as long as its descriptor.
        unsafe {
            let columns = (*(*slot).tts_tupleDescriptor).natts as usize;
            std::ptr::write_bytes((*slot).tts_values, 0, columns);
            std::ptr::write_bytes((*slot).tts_isnull.cast::<u8>(), 1, columns);
            unguarded::store_virtual(slot);
        }
    }

    /// Sets the row in the scan's slot aside.
    pub fn hold(&mut self) {
        let slot = self.slot();
        let held = self.numbered().held;
        // SAFETY: both slots are live, of the same descriptor, and the scan's is filled.
        unsafe { pg_sys::ExecCopySlot(held, slot) };
        self.pass_over();
    }

    /// Puts the row that was set aside in the scan's slot; it stays until another is.
    pub fn emit_held(&mut self) {
        let slot = self.slot();
        let held = self.numbered().held;
        self.clear_slot(slot);
        // SAFETY: both slots are live, of the same descriptor, and `hold` has filled the one; the values copied point into it.
        unsafe {
            pg_sys::slot_getallattrs(held);
            copy_values(held, slot, 0, 0..(*(*slot).tts_tupleDescriptor).natts as usize);
            unguarded::store_virtual(slot);
        }
    }

    /// Puts these columns of the row that was taken out last in the scan's row, from its column `first` on.
    pub fn put_numbered(&mut self, first: usize, columns: &[usize]) {
        let slot = self.slot();
        let from = self.numbered().slot;
        // SAFETY: the scan's slot is virtual and filled, and has room for these columns; the other holds a whole row, which
        // stays until the next is taken out.
        unsafe { copy_values(from, slot, first, columns.iter().copied()) };
    }
}

/// Copies values as they are.
///
/// # Safety
///
/// Both slots have arrays of values with these columns in them.
unsafe fn copy_values(
    from: *mut pg_sys::TupleTableSlot,
    to: *mut pg_sys::TupleTableSlot,
    first: usize,
    columns: impl Iterator<Item = usize>,
) {
    for (place, column) in (first..).zip(columns) {
        // SAFETY: the caller vouches for both.
        unsafe {
            let value: Datum = *(*from).tts_values.add(column);
            *(*to).tts_values.add(place) = value;
            *(*to).tts_isnull.add(place) = *(*from).tts_isnull.add(column);
        }
    }
}
