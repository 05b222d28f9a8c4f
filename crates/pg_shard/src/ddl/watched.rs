//! The tables, and what tables need, that running statements may change, as they were before.

use super::object_catalog::NeededObject;
use super::role_catalog::Scope;
use crate::catalog::DistributedTable;
use pgrx::pg_sys::Oid;
use shardmap::definition::Definition;
use shardmap::definition::conversion::Conversion;
use shardmap::definition::roles::Roles;
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

/// What a running statement may change of all that tables need.
pub(super) struct WatchedObjects {
    /// The statement.
    pub(super) statement: usize,
    pub(super) before: Vec<NeededObject>,
}

/// Roles that a running statement may change.
pub(super) struct WatchedRoles {
    /// The statement.
    pub(super) statement: usize,
    pub(super) scope: Scope,
    pub(super) before: Roles,
}

thread_local! {
    pub(super) static ROLES: RefCell<Vec<WatchedRoles>> = const { RefCell::new(Vec::new()) };
    pub(super) static WATCHED: RefCell<Vec<Watched>> = const { RefCell::new(Vec::new()) };
    pub(super) static OBJECTS: RefCell<Vec<WatchedObjects>> = const { RefCell::new(Vec::new()) };
}

/// The transaction has ended, and with it all statements.
pub(crate) fn forget() {
    WATCHED.with_borrow_mut(Vec::clear);
    OBJECTS.with_borrow_mut(Vec::clear);
    ROLES.with_borrow_mut(Vec::clear);
    super::restoring::end();
}

/// A statement that is running watches this table: its shards will follow.
pub(super) fn is_watched(oid: Oid) -> bool {
    WATCHED.with_borrow(|watched| watched.iter().any(|one| one.table.oid == oid))
}
