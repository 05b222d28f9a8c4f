//! Tuple descriptors.

use pgrx::pg_sys;

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
