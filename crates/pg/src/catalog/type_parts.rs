//! What types are made of.

use crate::path::base::live_columns;
use crate::sys::version;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

/// A column of the table has values of this type, or values that such values are part of: elements of arrays, fields of rows,
/// bounds of ranges, and what domains over it hold.
pub fn has_values_of(table: Oid, type_oid: Oid) -> bool {
    let mut seen = Vec::new();
    live_columns(table).into_iter().any(|(_, column, _)| is_made_of(column, type_oid, &mut seen))
}

/// `seen` are types that have been looked at: a row type may have arrays of itself.
fn is_made_of(whole: Oid, part: Oid, seen: &mut Vec<Oid>) -> bool {
    if whole == part {
        return true;
    }
    if seen.contains(&whole) {
        return false;
    }
    seen.push(whole);
    parts_of(whole).into_iter().any(|inner| is_made_of(inner, part, seen))
}

/// The types that values of a type are directly made of.
fn parts_of(type_oid: Oid) -> Vec<Oid> {
    // SAFETY: syscache look-ups by value; the copy of the descriptor is ours.
    unsafe {
        match pg_sys::get_typtype(type_oid) as u8 {
            pg_sys::TYPTYPE_DOMAIN => base_of(type_oid).into_iter().collect(),
            pg_sys::TYPTYPE_RANGE => vec![pg_sys::get_range_subtype(type_oid)],
            pg_sys::TYPTYPE_MULTIRANGE => vec![pg_sys::get_multirange_range(type_oid)],
            pg_sys::TYPTYPE_COMPOSITE => {
                let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(type_oid, -1);
                (0..(*descriptor).natts as usize)
                    .map(|index| &*version::attribute(descriptor, index))
                    .filter(|attribute| !attribute.attisdropped)
                    .map(|attribute| attribute.atttypid)
                    .collect()
            }
            _ => {
                let element = pg_sys::get_element_type(type_oid);
                if element == Oid::INVALID { Vec::new() } else { vec![element] }
            }
        }
    }
}

/// The type that a domain is directly over.
fn base_of(domain: Oid) -> Option<Oid> {
    // SAFETY: a syscache look-up by value; the tuple is released when its field is copied.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::TYPEOID as c_int;
        let tuple = pg_sys::SearchSysCache1(cache, Datum::from(domain));
        if tuple.is_null() {
            return None;
        }
        let base = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>()).typbasetype;
        pg_sys::ReleaseSysCache(tuple);
        (base != Oid::INVALID).then_some(base)
    }
}
