//! Whether writing a table's rows runs anything that users have made.

use crate::catalog::table::index_names;
use crate::read::lent::{Needs, needs};
use crate::sys::node::{self, Visit};
use crate::sys::value::FIRST_USER_OID;
use crate::sys::version;
use pgrx::pg_sys::{self, Oid};
use std::ffi::{c_char, c_int};

/// It does not: columns have PostgreSQL's own types, or enums, and constraints, generated columns and indexes compute with PostgreSQL's own
/// functions. Triggers are no matter, which do not fire on the nodes. The caller has locked the table.
pub fn runs_only_servers_own(table: Oid) -> bool {
    // SAFETY: the relation is open while its descriptor is read, and closed behind it.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return false;
        }
        let descriptor = (*relation).rd_att;
        // A partition's rows are checked against the bounds of all above it.
        let is_partition = (*(*relation).rd_rel).relispartition;
        let is_plain =
            !is_partition && has_plain_columns(descriptor) && has_plain_expressions(descriptor);
        pg_sys::RelationClose(relation);
        is_plain && index_names(table).into_iter().all(|(index, _)| is_plain_index(index))
    }
}

unsafe fn has_plain_columns(descriptor: pg_sys::TupleDesc) -> bool {
    // SAFETY: the caller passes a live descriptor; look-ups are by value.
    unsafe {
        (0..(*descriptor).natts as usize).all(|at| {
            let column = &*version::attribute(descriptor, at);
            column.attisdropped
                || column.atttypid.to_u32() < FIRST_USER_OID
                || pg_sys::get_typtype(column.atttypid) as u8 == pg_sys::TYPTYPE_ENUM
        })
    }
}

unsafe fn has_plain_expressions(descriptor: pg_sys::TupleDesc) -> bool {
    // SAFETY: the caller passes a live descriptor; its arrays are as long as they say.
    unsafe {
        let Some(constraints) = (*descriptor).constr.as_ref() else { return true };
        let checks = (0..usize::from(constraints.num_check))
            .all(|at| is_plain_text((*constraints.check.add(at)).ccbin));
        let values = (0..usize::from(constraints.num_defval))
            .all(|at| is_plain_text((*constraints.defval.add(at)).adbin));
        checks && values
    }
}

/// # Safety
///
/// A live text that stands for an expression.
unsafe fn is_plain_text(text: *const c_char) -> bool {
    // SAFETY: the caller vouches for the text; the tree is new.
    unsafe { is_plain_tree(pg_sys::stringToNode(text).cast()) }
}

/// # Safety
///
/// A live tree, or null.
unsafe fn is_plain_tree(tree: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller vouches for the tree.
    unsafe {
        !node::walk(tree, &mut |n| match needs(n) {
            Needs::Nothing => Visit::Into,
            Needs::Type(_) | Needs::Code => Visit::Stop,
        })
    }
}

fn is_plain_index(index: Oid) -> bool {
    // SAFETY: an index that was just found, opened with a lock for the look; its families are as many as its key columns.
    unsafe {
        let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as c_int);
        let columns = usize::try_from((*(*relation).rd_index).indnkeyatts).unwrap_or(0);
        let families = std::slice::from_raw_parts((*relation).rd_opfamily, columns);
        let is_plain = families.iter().all(|family| family.to_u32() < FIRST_USER_OID)
            && is_plain_tree(pg_sys::RelationGetIndexExpressions(relation).cast())
            && is_plain_tree(pg_sys::RelationGetIndexPredicate(relation).cast());
        pg_sys::index_close(relation, pg_sys::AccessShareLock as c_int);
        is_plain
    }
}
