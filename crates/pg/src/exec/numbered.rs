//! A child's rows that are kept here, while some of their columns go to the nodes as arrays together with numbers: what the
//! nodes answer is said of these numbers.
//!
//! The rows are kept in a tuplestore, in memory up to work_mem and then on disk, and
//! come out of it in the order in which they were read. A number stands for one of them, counted from zero, or for all that
//! agree in what is sent, which then goes once. What a scan does with them is in `scan_numbered.rs`.

use crate::exec::rows::RowStore;
use crate::sys::error::{PgError, SqlState};
use crate::sys::value::Encoder;
use crate::sys::version;
use pgrx::pg_sys::{self, Oid};
use protocol::Arguments;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The rows.
pub(crate) struct Numbered {
    /// Which columns of the child are sent; the number follows them.
    pub(super) columns: Vec<usize>,
    pub(super) rows: RowStore,
    /// What has been sent, if rows that agree have one number.
    pub(super) sent: Option<Sent>,
    /// For rows that are taken out.
    pub(super) slot: *mut pg_sys::TupleTableSlot,
    /// For a row of the scan that has come before its turn.
    pub(super) held: *mut pg_sys::TupleTableSlot,
}

/// What has been sent of rows that are kept.
#[derive(Default)]
pub(super) struct Sent {
    /// The number of each.
    pub(super) numbers: HashMap<Arguments, i32>,
    /// The number of each row.
    pub(super) of_rows: Vec<i32>,
}

impl Numbered {
    /// The types of what is sent.
    ///
    /// # Safety
    ///
    /// The child's live descriptor.
    pub(crate) unsafe fn types(&self, descriptor: pg_sys::TupleDesc) -> Vec<Oid> {
        let type_of = |column: &usize| {
            // SAFETY: the planner has found the columns among the child's.
            unsafe { (*version::attribute(descriptor, *column)).atttypid }
        };
        self.columns.iter().map(type_of).chain([pg_sys::INT4OID]).collect()
    }

    /// The child's column that is sent in this place; none if that is the number.
    pub(crate) fn column(&self, place: usize) -> Option<usize> {
        self.columns.get(place).copied()
    }

    /// Keeps the child's next row, and tells its number; none if what would be sent of it has been sent.
    ///
    /// # Safety
    ///
    /// A live, filled slot of the child, and encoders for the columns that are sent.
    pub(crate) unsafe fn keep(
        &mut self,
        slot: *mut pg_sys::TupleTableSlot,
        encoders: &[Encoder],
    ) -> Result<Option<i32>, PgError> {
        let row = i32::try_from(self.rows.kept).map_err(|_| too_much_to_send())?;
        // SAFETY: the caller vouches for the slot.
        unsafe { self.rows.keep_slot(slot) };
        let Some(sent) = &mut self.sent else { return Ok(Some(row)) };
        let mut key = Arguments::bare();
        for (column, encoder) in self.columns.iter().zip(encoders) {
            // SAFETY: the caller vouches for the slot and the encoders.
            unsafe {
                let is_null = *(*slot).tts_isnull.add(*column);
                let value = (!is_null).then(|| *(*slot).tts_values.add(*column));
                encoder.append(value, &mut key);
            }
        }
        let next = sent.numbers.len() as i32;
        let (number, is_new) = match sent.numbers.entry(key) {
            Entry::Occupied(known) => (*known.get(), false),
            Entry::Vacant(place) => (*place.insert(next), true),
        };
        sent.of_rows.push(number);
        Ok(is_new.then_some(number))
    }
}

/// The error for more rows than can be sent along.
pub(crate) fn too_much_to_send() -> PgError {
    PgError::new(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        "too many rows to send to the workers for a join",
    )
    .detail("The planner expected far less of the smaller side of the join.")
    .hint("ANALYZE the tables, or SET pg_shard.enable_pushdown = off to join on the coordinator.")
}
