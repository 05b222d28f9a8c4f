//! The triggers of a table, from the catalog.

use crate::catalog::table::{Search, scan};
use pgrx::pg_sys::{self, Oid};

/// The types (`pg_trigger.tgtype`) of the triggers that users have made.
pub fn trigger_types(table: Oid) -> Vec<i16> {
    let mut types = Vec::new();
    let index = Some(Oid::from(pg_sys::TriggerRelidNameIndexId));
    let relation = pg_sys::Anum_pg_trigger_tgrelid as i16;
    scan(pg_sys::TriggerRelationId, index, relation, Search::Oid(table), &mut |row| {
        if !row.bool(pg_sys::Anum_pg_trigger_tgisinternal as i16) {
            types.push(row.int2(pg_sys::Anum_pg_trigger_tgtype as i16));
        }
    });
    types
}
