//! A scan's spooled rows, found by value: what a scan asks of [`super::lookup`].

use crate::exec::lookup::{FEW_ROWS, Lookup, Search, keys_of, sorted, wanted};
use crate::exec::scan_io::ScanIo;
use crate::sys::error::PgError;
use crate::sys::unguarded;
use pgrx::pg_sys;

impl ScanIo {
    /// Rows that are kept could be found by value.
    pub fn can_look_up(&mut self) -> bool {
        if matches!(self.lookup, Lookup::Unknown) {
            // SAFETY: the node was initialised by `begin`; what is looked up lives in the query's memory.
            let keys = unsafe {
                let before = pg_sys::MemoryContextSwitchTo(self.query_memory());
                let keys = keys_of(self.node());
                pg_sys::MemoryContextSwitchTo(before);
                keys
            };
            self.lookup = if keys.is_empty() { Lookup::Impossible } else { Lookup::Possible(keys) };
        }
        matches!(self.lookup, Lookup::Possible(_)) && self.rows().borrow().kept > FEW_ROWS
    }

    /// Rows are found by value now.
    pub fn looks_up(&self) -> bool {
        matches!(self.lookup, Lookup::Ready(..))
    }

    /// Puts the kept rows in order. They are all there is.
    pub fn sort_kept(&mut self) -> Result<(), PgError> {
        let Lookup::Possible(keys) = std::mem::take(&mut self.lookup) else { return Ok(()) };
        let rows = self.rows();
        let mut rows = rows.borrow_mut();
        // SAFETY: the node and its rows are live; see `sorted`. What is made belongs to the query, whoever asks for rows,
        // as the store does; an abort sets the owner itself.
        let sorted = unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.query_memory());
            let owner = pg_sys::CurrentResourceOwner;
            pg_sys::CurrentResourceOwner = rows.owner;
            let sorted = sorted(self.node(), &mut rows, &keys);
            pg_sys::CurrentResourceOwner = owner;
            pg_sys::MemoryContextSwitchTo(before);
            sorted
        };
        rows.clear();
        self.lookup = Lookup::Ready(keys, sorted?);
        Ok(())
    }

    /// The rows of another value are wanted.
    pub fn look_up_again(&mut self) {
        if let Lookup::Ready(_, rows) = &mut self.lookup {
            rows.search = Search::NotBegun;
        }
    }

    /// The rows are not those that are wanted any more.
    pub fn forget_found(&mut self) {
        self.lookup.close();
        self.lookup = match std::mem::take(&mut self.lookup) {
            Lookup::Ready(keys, _) => Lookup::Possible(keys),
            other => other,
        };
    }

    /// Puts the next row that may equal the value in the slot; false if there is none.
    pub fn emit_found(&mut self) -> Result<bool, PgError> {
        let node = self.node();
        let target = self.slot();
        let Lookup::Ready(keys, rows) = &mut self.lookup else { return Ok(false) };
        if rows.search == Search::NotBegun {
            // SAFETY: the keys were made for this node.
            rows.begin(unsafe { wanted(node, keys) });
        }
        let Some(row) = rows.next()? else { return Ok(false) };
        // SAFETY: the row was put into its page as a minimal tuple of the slot's descriptor, and stays there until the
        // next is asked for; the node's own slot was cleared before and has one column less.
        unsafe {
            pg_sys::ExecStoreMinimalTuple(row, rows.slot, false);
            pg_sys::slot_getallattrs(rows.slot);
            let natts = (*(*target).tts_tupleDescriptor).natts as usize;
            let (values, nulls) = ((*rows.slot).tts_values, (*rows.slot).tts_isnull);
            std::ptr::copy_nonoverlapping(values.add(1), (*target).tts_values, natts);
            std::ptr::copy_nonoverlapping(nulls.add(1), (*target).tts_isnull, natts);
            unguarded::store_virtual(target);
        }
        Ok(true)
    }
}
