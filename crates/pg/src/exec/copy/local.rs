//! The rows of a table of this server, past planner and hooks: for a table that is being distributed.

use super::escape_text;
use crate::PgError;
use crate::server::utility::copied_columns;
use crate::sys::node;
use crate::sys::value::{Encoder, Hasher};
use crate::sys::version;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

/// A row of a local table.
pub struct LocalRow<'a> {
    key: Option<Datum>,
    values: Vec<(&'a Encoder, Option<Datum>)>,
}

impl LocalRow<'_> {
    /// The hash of its distribution column; none for NULL.
    pub fn hash(&self, hasher: &Hasher) -> Option<i32> {
        // SAFETY: the hasher was found for the column's type.
        self.key.map(|value| unsafe { hasher.hash(value) })
    }

    /// Appends it as a line of COPY's text format.
    pub fn append(&self, out: &mut Vec<u8>) {
        for (position, (encoder, value)) in self.values.iter().enumerate() {
            if position > 0 {
                out.push(b'\t');
            }
            match value {
                // SAFETY: the encoder was made for the column's type.
                Some(value) => unsafe { encoder.with_bytes(*value, |text| escape_text(text, out)) },
                None => out.extend_from_slice(b"\\N"),
            }
        }
        out.push(b'\n');
    }
}

/// Hands all rows that are committed, or ours, to `each`, and tells pg_stat_progress_copy how many there were.
///
/// The caller holds a lock that keeps writers away; so no row comes later than the snapshot taken here. `key` is the
/// distribution column. Values are printed as the session's settings say.
pub fn for_each_row(
    table: Oid,
    key: i16,
    each: &mut dyn FnMut(&LocalRow<'_>) -> Result<(), PgError>,
) -> Result<u64, PgError> {
    // SAFETY: PostgreSQL's own scan of an open table under a registered snapshot; datums are used while their tuple
    // lives, in memory that is emptied after each row. What is left open in an error goes with the transaction.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::NoLock as c_int);
        let descriptor = (*relation).rd_att;
        let natts = (*descriptor).natts as usize;
        let columns: Vec<(usize, Encoder)> = copied_columns(table)
            .into_iter()
            .map(|(number, _)| {
                let index = number as usize - 1;
                (index, Encoder::text((*version::attribute(descriptor, index)).atttypid))
            })
            .collect();
        let mut values = vec![Datum::from(0); natts];
        let mut nulls = vec![true; natts];
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let scan = pg_sys::systable_beginscan(
            relation,
            Oid::INVALID,
            false,
            snapshot,
            0,
            std::ptr::null_mut(),
        );
        let memory = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"pg_shard local row".as_ptr(),
            0,
            8 * 1024,
            8 * 1024 * 1024,
        );
        pg_sys::pgstat_progress_start_command(
            pg_sys::ProgressCommandType::PROGRESS_COMMAND_COPY,
            table,
        );
        let mut count = 0;
        loop {
            pgrx::check_for_interrupts!();
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            let value = |index: usize| (!nulls[index]).then(|| values[index]);
            let row = LocalRow {
                key: value(key as usize - 1),
                values: columns.iter().map(|(index, encoder)| (encoder, value(*index))).collect(),
            };
            let before = pg_sys::MemoryContextSwitchTo(memory);
            let done = each(&row);
            pg_sys::MemoryContextSwitchTo(before);
            pg_sys::MemoryContextReset(memory);
            done?;
            count += 1;
            pg_sys::pgstat_progress_update_param(
                pg_sys::PROGRESS_COPY_TUPLES_PROCESSED as c_int,
                count,
            );
        }
        pg_sys::pgstat_progress_end_command();
        pg_sys::MemoryContextDelete(memory);
        pg_sys::systable_endscan(scan);
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        Ok(count as u64)
    }
}

/// The table has rows that are committed, or ours.
pub fn has_rows(table: Oid) -> bool {
    // SAFETY: PostgreSQL's own scan of a table that the caller has locked, under a registered snapshot.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::NoLock as c_int);
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let scan = pg_sys::systable_beginscan(
            relation,
            Oid::INVALID,
            false,
            snapshot,
            0,
            std::ptr::null_mut(),
        );
        let found = !pg_sys::systable_getnext(scan).is_null();
        pg_sys::systable_endscan(scan);
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        found
    }
}

/// Empties a table of this server, past our hooks; the caller has locked it as TRUNCATE does. Its rows have gone elsewhere, so
/// other tables may go on to refer to them.
pub fn empty(table: Oid) {
    // SAFETY: PostgreSQL's own TRUNCATE of one open table.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::NoLock as c_int);
        let unreferenced = Unreferenced::new(relation);
        let relids = pg_sys::lappend_oid(std::ptr::null_mut(), table);
        version::truncate(node::list_of(&[relation]), relids);
        drop(unreferenced);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
    }
}

/// While it lives, `heap_truncate_check_FKs` finds no foreign key that refers to the table: it looks only at tables that the
/// relation cache says have triggers.
struct Unreferenced {
    relation: pg_sys::Relation,
    has_triggers: bool,
}

impl Unreferenced {
    /// # Safety
    ///
    /// The relation stays open for as long as the value lives.
    unsafe fn new(relation: pg_sys::Relation) -> Self {
        // SAFETY: an open relation's entry of the relation cache.
        let row = unsafe { &mut *(*relation).rd_rel };
        let has_triggers = std::mem::replace(&mut row.relhastriggers, false);
        Self { relation, has_triggers }
    }
}

impl Drop for Unreferenced {
    fn drop(&mut self) {
        // SAFETY: the relation is open still; the entry stays at its address when it is built anew.
        unsafe { (*(*self.relation).rd_rel).relhastriggers = self.has_triggers };
    }
}
