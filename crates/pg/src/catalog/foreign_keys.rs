//! Which tables are linked by foreign keys, as the relation cache knows it: without a scan of `pg_constraint`, which has no index
//! by the table that is referred to.

use crate::sys::node;
use pgrx::FromDatum;
use pgrx::pg_sys::{self, Oid};
use std::ffi::CStr;

/// `pg_constraint`, whose OID the bindings lack.
const PG_CONSTRAINT: Oid = Oid::from_u32(2606);

/// A foreign key, seen from one of its two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The constraint.
    pub constraint: Oid,
    /// The other table.
    pub other: Oid,
    /// The other table refers to this one.
    pub is_incoming: bool,
    /// It may be checked at the end of the transaction.
    pub is_deferrable: bool,
}

/// The foreign keys of a table and those that refer to it; one to itself is there twice.
pub fn links(table: Oid) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    // SAFETY: the entry of the relation cache is held without a lock, or whoever looks a table up would wait for those who have
    // locked it; nothing in between takes in invalidations, so its triggers stay.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return links;
        }
        let description = (*relation).trigdesc;
        let count = if description.is_null() { 0 } else { (*description).numtriggers as usize };
        for trigger in (0..count).map(|index| &*(*description).triggers.add(index)) {
            let kind = pg_sys::RI_FKey_trigger_type(trigger.tgfoid) as u32;
            if trigger.tgconstraint == Oid::INVALID || kind == pg_sys::RI_TRIGGER_NONE {
                continue;
            }
            let link = Link {
                constraint: trigger.tgconstraint,
                other: trigger.tgconstrrelid,
                is_incoming: kind == pg_sys::RI_TRIGGER_PK,
                is_deferrable: trigger.tgdeferrable,
            };
            if !links.contains(&link) {
                links.push(link);
            }
        }
        pg_sys::RelationClose(relation);
    }
    links
}

/// What a foreign key does when the row that it refers to goes or changes: `a`, `r`, `c`, `n`, `d` as in `pg_constraint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    /// Its OID.
    pub id: Oid,
    /// Its name.
    pub name: String,
    /// The table that has it.
    pub table: Oid,
    /// The table that it refers to.
    pub referenced: Oid,
    /// The columns, each with the one that it refers to.
    pub columns: Vec<(i16, i16)>,
    /// The action of ON DELETE.
    pub on_delete: u8,
    /// The action of ON UPDATE.
    pub on_update: u8,
    /// The columns that ON DELETE sets, if not all.
    pub set_columns: Vec<i16>,
}

impl ForeignKey {
    /// What it refers to changes in an update that assigns these columns of the table it refers to: generated columns change
    /// with any.
    pub fn is_changed(&self, assigned: &[i16]) -> bool {
        let is_changed = |column: i16| {
            // SAFETY: a syscache look-up of a column that the key depends on.
            assigned.contains(&column)
                || unsafe { pg_sys::get_attgenerated(self.referenced, column) } != 0
        };
        !assigned.is_empty() && self.columns.iter().any(|(_, to)| is_changed(*to))
    }
}

/// Reads foreign keys that stand in `pg_constraint` under these OIDs.
pub fn read(ids: &[Oid]) -> Vec<ForeignKey> {
    ids.iter().filter_map(|id| read_one(*id)).collect()
}

fn read_one(id: Oid) -> Option<ForeignKey> {
    // SAFETY: the syscache's tuple is released here; each column has the type that `src/include/catalog/pg_constraint.h` says.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::CONSTROID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(id));
        if tuple.is_null() {
            return None;
        }
        // By name: their numbers differ from version to version.
        let value = |column: &CStr| {
            let number = pg_sys::get_attnum(PG_CONSTRAINT, column.as_ptr());
            let mut is_null = false;
            let value = pg_sys::SysCacheGetAttr(cache, tuple, number, &raw mut is_null);
            (!is_null).then_some(value)
        };
        let numbers = |column| value(column).map_or_else(Vec::new, |datum| int2s(datum));
        let oid = |column| value(column).map_or(Oid::INVALID, |d| Oid::from(d.value() as u32));
        let letter = |column| value(column).map_or(b' ', |datum| datum.value() as u8);
        let key = ForeignKey {
            id,
            name: value(c"conname")
                .map(|datum| node::text_of(datum.cast_mut_ptr()))
                .unwrap_or_default(),
            table: oid(c"conrelid"),
            referenced: oid(c"confrelid"),
            columns: numbers(c"conkey").into_iter().zip(numbers(c"confkey")).collect(),
            on_delete: letter(c"confdeltype"),
            on_update: letter(c"confupdtype"),
            set_columns: numbers(c"confdelsetcols"),
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(key)
    }
}

/// The numbers of an array of smallint.
unsafe fn int2s(array: pg_sys::Datum) -> Vec<i16> {
    // SAFETY: the caller passes a smallint array of a catalog.
    unsafe { Vec::<i16>::from_datum(array, false) }.unwrap_or_default()
}
