//! Tuple descriptors and their columns.

use pgrx::pg_sys;
#[cfg(not(any(feature = "pg15", feature = "pg16")))]
use pgrx::pg_sys::Datum;
use std::ffi::c_int;

/// A column of a tuple descriptor, by its index from 0.
///
/// Since PostgreSQL 18 the columns follow an array of their most needed fields; who changes a length, an alignment or a flag
/// here has to change it there too (`populate_compact_attribute`).
///
/// # Safety
///
/// `descriptor` is live, and `index` is below its number of columns.
#[inline]
pub(crate) unsafe fn attribute(
    descriptor: pg_sys::TupleDesc,
    index: usize,
) -> *mut pg_sys::FormData_pg_attribute {
    #[cfg(not(feature = "pg18"))]
    {
        // SAFETY: the caller vouches for descriptor and index.
        unsafe { (*descriptor).attrs.as_mut_ptr().add(index) }
    }
    #[cfg(feature = "pg18")]
    {
        // SAFETY: TupleDescAttr (`src/include/access/tupdesc.h`): the array begins behind the last compact attribute.
        unsafe {
            let columns = (*descriptor).natts as usize;
            let compact = (*descriptor).compact_attrs.as_mut_ptr();
            compact.add(columns).cast::<pg_sys::FormData_pg_attribute>().add(index)
        }
    }
}

/// The column is computed whenever it is read, and stored nowhere; since PostgreSQL 18.
///
/// # Safety
///
/// A live column of a descriptor.
pub(crate) unsafe fn is_virtual(attribute: *const pg_sys::FormData_pg_attribute) -> bool {
    // SAFETY: the caller vouches for the column. `ATTRIBUTE_GENERATED_VIRTUAL` of `src/include/catalog/pg_attribute.h`.
    unsafe { (*attribute).attgenerated as u8 == b'v' }
}

/// How much is to be known of a column: 0 for nothing, -1 for what the setting says.
///
/// # Safety
///
/// A live column of a table's descriptor.
pub(crate) unsafe fn statistics_target(attribute: *const pg_sys::FormData_pg_attribute) -> c_int {
    // SAFETY: the caller vouches for the column; a syscache look-up by value.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            (*attribute).attstattarget
        }
        #[cfg(feature = "pg16")]
        {
            c_int::from((*attribute).attstattarget)
        }
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        {
            let cache = pg_sys::SysCacheIdentifier::ATTNUM as c_int;
            let (table, number) = ((*attribute).attrelid, (*attribute).attnum);
            let tuple = pg_sys::SearchSysCache2(cache, Datum::from(table), Datum::from(number));
            if tuple.is_null() {
                return -1;
            }
            let mut is_null = false;
            let place = pg_sys::Anum_pg_attribute_attstattarget as pg_sys::AttrNumber;
            let value = pg_sys::SysCacheGetAttr(cache, tuple, place, &raw mut is_null);
            pg_sys::ReleaseSysCache(tuple);
            if is_null { -1 } else { c_int::from(value.value() as i16) }
        }
    }
}

/// Tells the functions that compute statistics which column theirs is.
///
/// # Safety
///
/// Zeroed statistics, and a column that lives as long.
pub(crate) unsafe fn describe_column(
    stats: *mut pg_sys::VacAttrStats,
    attribute: *mut pg_sys::FormData_pg_attribute,
) {
    // SAFETY: the caller vouches for both.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        {
            (*stats).attr = attribute;
        }
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        {
            (*stats).attstattarget = statistics_target(attribute);
        }
    }
}
