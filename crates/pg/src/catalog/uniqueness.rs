//! Which indexes keep rows apart in each shard by itself, and so in the table: those that compare the distribution column for
//! equality, since rows with equal keys lie in one shard.

use crate::catalog::table;
use pgrx::pg_sys::{self, Oid};
use std::ffi::c_int;

/// Unique indexes and exclusion constraints of the table that nothing can enforce over several shards: they do not contain
/// `column`, or, with EXCLUDE and WITHOUT OVERLAPS, do not compare it by `=`.
pub fn unique_indexes_without(table: Oid, column: i16) -> Vec<String> {
    let unenforced = |index: Oid| {
        // SAFETY: an index of the table, opened with a lock for the look.
        unsafe {
            let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as c_int);
            let is_loose = is_loose(relation, column);
            pg_sys::index_close(relation, pg_sys::AccessShareLock as c_int);
            is_loose
        }
    };
    let indexes = table::index_names(table).into_iter();
    indexes.filter(|(index, _)| unenforced(*index)).map(|(_, name)| name).collect()
}

/// The index keeps rows apart that may lie in different shards.
unsafe fn is_loose(index: pg_sys::Relation, column: i16) -> bool {
    // SAFETY: the caller passes an open index, whose key columns have numbers.
    unsafe {
        let form = (*index).rd_index;
        let keys = (*form).indnkeyatts as usize;
        let columns = std::slice::from_raw_parts((*form).indkey.values.as_ptr(), keys);
        if (*form).indisexclusion {
            let places = columns.iter().enumerate().filter(|(_, number)| **number == column);
            let operators = operators_of(index, keys);
            return !places
                .into_iter()
                .any(|(place, _)| is_equality(index, place, operators[place]));
        }
        (*form).indisunique && !columns.contains(&column)
    }
}

/// The operators by which an exclusion constraint compares its columns.
unsafe fn operators_of(index: pg_sys::Relation, keys: usize) -> Vec<Oid> {
    let [mut operators, mut functions] = [std::ptr::null_mut::<Oid>(); 2];
    let mut strategies = std::ptr::null_mut();
    // SAFETY: the caller passes an open index of an exclusion constraint; PostgreSQL pallocs an array of `keys` each.
    unsafe {
        pg_sys::RelationGetExclusionInfo(
            index,
            &raw mut operators,
            &raw mut functions,
            &raw mut strategies,
        );
        std::slice::from_raw_parts(operators, keys).to_vec()
    }
}

/// The operator is the equality by which the column's type is hashed.
unsafe fn is_equality(index: pg_sys::Relation, place: usize, operator: Oid) -> bool {
    // SAFETY: the caller passes an open index and the place of a key column; look-ups by value.
    unsafe {
        let input = *(*index).rd_opcintype.add(place);
        pg_sys::op_hashjoinable(operator, input)
    }
}
