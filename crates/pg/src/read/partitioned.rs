//! Partitioned tables that are distributed: to the planner each is one relation, whose shards have the partitions.

use crate::read::query::Statement;
use crate::sys::node::{self, Visit};
use pgrx::pg_sys::{self, NodeTag, Oid};

impl Statement {
    /// Has PostgreSQL's planner take these partitioned tables for tables of their own, whose partitions it leaves alone.
    ///
    /// ONLY means none of their rows, here as on the nodes.
    pub fn take_as_one_relation(&self, is_ours: &dyn Fn(Oid) -> bool) {
        // SAFETY: the live Query of the planner hook, which is the planner's own to change.
        unsafe {
            node::walk(self.parse, &mut |n| {
                if node::tag(n) == NodeTag::T_Query {
                    let entries = (*n.cast::<pg_sys::Query>()).rtable;
                    for entry in node::elements::<pg_sys::RangeTblEntry>(entries) {
                        if is_partitioned(entry) && is_ours((*entry).relid) && (*entry).inh {
                            (*entry).inh = false;
                            (*entry).relkind = pg_sys::RELKIND_RELATION as std::ffi::c_char;
                        }
                    }
                }
                Visit::Into
            });
        }
    }

    /// It names `ctid` or `tableoid` of some table.
    pub fn names_places(&self) -> bool {
        // SAFETY: the live Query of the planner hook.
        unsafe {
            node::walk(self.parse, &mut |n| match node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var) {
                Some(var)
                    if matches!(
                        i32::from((*var).varattno),
                        pg_sys::TableOidAttributeNumber | pg_sys::SelfItemPointerAttributeNumber
                    ) =>
                {
                    Visit::Stop
                }
                _ => Visit::Into,
            })
        }
    }
}

unsafe fn is_partitioned(entry: *mut pg_sys::RangeTblEntry) -> bool {
    // SAFETY: the caller passes a live entry.
    unsafe {
        (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
            && (*entry).relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE
    }
}

/// Undoes [`Statement::take_as_one_relation`] in an entry that is going to be printed: the nodes shall read the partitions.
///
/// # Safety
///
/// A private, live entry of a relation.
pub(crate) unsafe fn give_partitions_back(entry: *mut pg_sys::RangeTblEntry) {
    // SAFETY: the caller vouches for the entry; a syscache look-up by value.
    unsafe {
        if !(*entry).inh
            && (*entry).relkind as u8 != pg_sys::RELKIND_PARTITIONED_TABLE
            && pg_sys::get_rel_relkind((*entry).relid) as u8 == pg_sys::RELKIND_PARTITIONED_TABLE
        {
            (*entry).inh = true;
        }
    }
}
