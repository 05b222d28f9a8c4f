//! The tables that running statements may change, as they were before.

use crate::catalog::DistributedTable;
use pgrx::pg_sys::Oid;
use shardmap::definition::Definition;
use shardmap::definition::conversion::Conversion;
use std::cell::RefCell;
use std::rc::Rc;

/// A table that a running statement may change.
pub(super) struct Watched {
    /// The statement.
    pub(super) statement: usize,
    pub(super) table: Rc<DistributedTable>,
    pub(super) before: Definition,
    pub(super) conversions: Vec<Conversion>,
    /// Unique indexes that hold within each shard only.
    pub(super) loose: Vec<String>,
    /// It has the heap's access method meanwhile.
    pub(super) is_suspended: bool,
}

thread_local!(pub(super) static WATCHED: RefCell<Vec<Watched>> = const { RefCell::new(Vec::new()) });

/// The transaction has ended, and with it all statements.
pub(crate) fn forget() {
    WATCHED.with_borrow_mut(Vec::clear);
}

/// A statement that is running watches this table: its shards will follow.
pub(super) fn is_watched(oid: Oid) -> bool {
    WATCHED.with_borrow(|watched| watched.iter().any(|one| one.table.oid == oid))
}
