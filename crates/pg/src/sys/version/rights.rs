//! Rights: what the executor checks of a statement's tables, and look-ups in the catalogs.
//!
//! Up to PostgreSQL 15 an entry of the range table says itself which rights are checked. Since 16 the query has a second list
//! for that, in which entries that are checked have a number.

#[cfg(not(feature = "pg15"))]
use crate::sys::error::{PgError, SqlState, raise};
use crate::sys::node;
use pgrx::pg_sys::{self, Oid};

/// What is checked of one table: `requiredPerms`, `checkAsUser`, `selectedCols`, `insertedCols` and `updatedCols`.
#[cfg(feature = "pg15")]
pub(crate) type Rights = pg_sys::RangeTblEntry;
/// What is checked of one table: `requiredPerms`, `checkAsUser`, `selectedCols`, `insertedCols` and `updatedCols`.
#[cfg(not(feature = "pg15"))]
pub(crate) type Rights = pg_sys::RTEPermissionInfo;

/// What is checked of a query's entry; none if nothing is.
///
/// # Safety
///
/// A live Query and an entry of its range table.
pub(crate) unsafe fn rights(
    query: *mut pg_sys::Query,
    entry: *mut pg_sys::RangeTblEntry,
) -> Option<*mut Rights> {
    #[cfg(feature = "pg15")]
    {
        let _ = query;
        Some(entry)
    }
    #[cfg(not(feature = "pg15"))]
    {
        // SAFETY: the caller vouches for both.
        unsafe { numbered((*query).rteperminfos, entry) }
    }
}

/// The element of the list that the entry names.
#[cfg(not(feature = "pg15"))]
unsafe fn numbered(
    list: *mut pg_sys::List,
    entry: *mut pg_sys::RangeTblEntry,
) -> Option<*mut Rights> {
    // SAFETY: the caller vouches for both; numbers begin at 1, and 0 is none.
    unsafe {
        let index = ((*entry).perminfoindex as usize).checked_sub(1)?;
        (index < node::length(list)).then(|| node::nth(list, index))
    }
}

/// Has the columns that the other query reads of the other entry, which is of the same table, be checked too: rights are
/// checked column by column.
///
/// # Safety
///
/// Live Queries, each with an entry of its range table; the first is private.
pub(crate) unsafe fn add_selected(
    (query, entry): (*mut pg_sys::Query, *mut pg_sys::RangeTblEntry),
    (other, others): (*mut pg_sys::Query, *mut pg_sys::RangeTblEntry),
) {
    // SAFETY: the caller vouches for all four.
    unsafe {
        if let Some(own) = rights(query, entry)
            && let Some(others) = rights(other, others)
        {
            (*own).selectedCols =
                pg_sys::bms_add_members((*own).selectedCols, (*others).selectedCols);
        }
    }
}

/// Forgets which columns of an entry are read.
///
/// # Safety
///
/// A private, live Query and an entry of its range table.
pub(crate) unsafe fn clear_selected(query: *mut pg_sys::Query, entry: *mut pg_sys::RangeTblEntry) {
    // SAFETY: the caller vouches for both.
    unsafe {
        if let Some(rights) = rights(query, entry) {
            (*rights).selectedCols = std::ptr::null_mut();
        }
    }
}

/// A copy of an entry for another query, in which the same is checked of it.
///
/// # Safety
///
/// Live Queries, the second private; the entry is in the range table of the first.
pub(crate) unsafe fn copy_entry(
    entry: *mut pg_sys::RangeTblEntry,
    from: *mut pg_sys::Query,
    to: *mut pg_sys::Query,
) -> *mut pg_sys::RangeTblEntry {
    // SAFETY: the caller vouches for all three.
    unsafe {
        let own = node::copy(entry);
        move_rights(own, from, to);
        own
    }
}

/// The current user has that right on the whole relation.
pub(crate) fn has_right(relation: Oid, right: u32) -> bool {
    let mode = pg_sys::AclMode::from(right);
    // SAFETY: catalog look-ups by value.
    let result = unsafe { pg_sys::pg_class_aclcheck(relation, pg_sys::GetUserId(), mode) };
    result == pg_sys::AclResult::ACLCHECK_OK
}

/// As whom rights on a query's entry are checked; none is the current user.
///
/// # Safety
///
/// As for [`rights`].
pub(crate) unsafe fn checked_as(
    query: *mut pg_sys::Query,
    entry: *mut pg_sys::RangeTblEntry,
) -> Oid {
    // SAFETY: the caller vouches for both.
    unsafe { rights(query, entry).map_or(Oid::INVALID, |rights| (*rights).checkAsUser) }
}

/// The same for an entry of a plan's range table.
///
/// # Safety
///
/// A live plan and an entry of its range table.
pub(crate) unsafe fn planned_checked_as(
    planned: *mut pg_sys::PlannedStmt,
    entry: *mut pg_sys::RangeTblEntry,
) -> Oid {
    #[cfg(feature = "pg15")]
    {
        let _ = planned;
        // SAFETY: the caller vouches for the entry.
        unsafe { (*entry).checkAsUser }
    }
    #[cfg(not(feature = "pg15"))]
    {
        // SAFETY: the caller vouches for both.
        unsafe {
            numbered((*planned).permInfos, entry)
                .map_or(Oid::INVALID, |rights| (*rights).checkAsUser)
        }
    }
}

/// Has nothing be checked of an entry. What a query keeps for it is not named any more.
///
/// # Safety
///
/// A private, live entry.
pub(crate) unsafe fn drop_rights(entry: *mut pg_sys::RangeTblEntry) {
    // SAFETY: the caller vouches for the entry.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            (*entry).requiredPerms = 0;
            (*entry).checkAsUser = Oid::INVALID;
            (*entry).selectedCols = std::ptr::null_mut();
            (*entry).insertedCols = std::ptr::null_mut();
            (*entry).updatedCols = std::ptr::null_mut();
            (*entry).extraUpdatedCols = std::ptr::null_mut();
        }
        #[cfg(not(feature = "pg15"))]
        {
            (*entry).perminfoindex = 0;
            if (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION {
                // A view's; the executor wants to lock it with its rights.
                (*entry).relid = Oid::INVALID;
            }
        }
    }
}

/// Has nothing be checked of a query's own entries.
///
/// # Safety
///
/// A private, live Query.
pub(crate) unsafe fn drop_all_rights(query: *mut pg_sys::Query) {
    // SAFETY: the caller vouches for the query.
    unsafe {
        for entry in node::elements::<pg_sys::RangeTblEntry>((*query).rtable) {
            drop_rights(entry);
        }
        #[cfg(not(feature = "pg15"))]
        {
            (*query).rteperminfos = std::ptr::null_mut();
        }
    }
}

/// Gives an entry that was copied from another query rights of its own in `query`, which are none yet but for the role.
///
/// # Safety
///
/// Private, live structures; the entry is one of a table.
pub(crate) unsafe fn begin_rights(
    query: *mut pg_sys::Query,
    entry: *mut pg_sys::RangeTblEntry,
    checked_as: Oid,
) {
    // SAFETY: the caller vouches for both.
    unsafe {
        drop_rights(entry);
        #[cfg(feature = "pg15")]
        let rights = {
            let _ = query;
            entry
        };
        #[cfg(not(feature = "pg15"))]
        let rights = pg_sys::addRTEPermissionInfo(&raw mut (*query).rteperminfos, entry);
        (*rights).checkAsUser = checked_as;
    }
}

/// Has the right to read these columns be checked too.
///
/// # Safety
///
/// Private, live structures; the entry is one of a table, in the range table of the query or soon to be.
pub(crate) unsafe fn add_select(
    query: *mut pg_sys::Query,
    entry: *mut pg_sys::RangeTblEntry,
    columns: &[i16],
) {
    // SAFETY: the caller vouches for both.
    unsafe {
        let Some(rights) = rights(query, entry) else { return };
        (*rights).requiredPerms |= pg_sys::AclMode::from(pg_sys::ACL_SELECT);
        for column in columns {
            let member = i32::from(*column) - pg_sys::FirstLowInvalidHeapAttributeNumber;
            (*rights).selectedCols = pg_sys::bms_add_member((*rights).selectedCols, member);
        }
    }
}

/// Takes the rights of an entry that is moved from one query to another along.
///
/// # Safety
///
/// Private, live structures; the entry was in the range table of `from`.
#[cfg_attr(
    feature = "pg15",
    expect(unused_variables, reason = "the entry has its rights in itself")
)]
pub(crate) unsafe fn move_rights(
    entry: *mut pg_sys::RangeTblEntry,
    from: *mut pg_sys::Query,
    to: *mut pg_sys::Query,
) {
    // SAFETY: the caller vouches for all three.
    #[cfg(not(feature = "pg15"))]
    unsafe {
        append(&mut (*to).rteperminfos, from, entry);
    }
}

/// Gives a plan the entry of a query, with what is checked of it: `entry` is a copy of `original`.
///
/// # Safety
///
/// A live plan of ours and a live Query; `original` is in the range table of the query.
#[cfg_attr(
    feature = "pg15",
    expect(unused_variables, reason = "the entry has its rights in itself")
)]
pub(crate) unsafe fn plan_rights(
    planned: *mut pg_sys::PlannedStmt,
    query: *mut pg_sys::Query,
    entry: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: the caller vouches for all three.
    #[cfg(not(feature = "pg15"))]
    unsafe {
        append(&mut (*planned).permInfos, query, entry);
    }
}

/// The same for what the planner collects for its plan.
///
/// # Safety
///
/// Live structures of the planner.
#[cfg_attr(
    feature = "pg15",
    expect(unused_variables, reason = "the entry has its rights in itself")
)]
pub(crate) unsafe fn plan_rights_of_all(
    all: *mut pg_sys::PlannerGlobal,
    query: *mut pg_sys::Query,
    entry: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: the caller vouches for all three.
    #[cfg(not(feature = "pg15"))]
    unsafe {
        append(&mut (*all).finalrteperminfos, query, entry);
    }
}

/// Appends what `query` checks of an entry to the list, by which the entry then finds it.
#[cfg(not(feature = "pg15"))]
unsafe fn append(
    list: &mut *mut pg_sys::List,
    query: *mut pg_sys::Query,
    entry: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: the caller vouches for query and entry.
    unsafe {
        let Some(rights) = rights(query, entry) else { return };
        *list = pg_sys::lappend(*list, node::copy(rights).cast());
        (*entry).perminfoindex = node::length(*list) as pg_sys::Index;
    }
}

/// The entry names a relation that the executor locks, and of which it checks rights: a table, and since PostgreSQL 16 a view,
/// whose sub-query is the entry.
///
/// # Safety
///
/// A live entry.
pub(crate) unsafe fn is_checked(entry: *mut pg_sys::RangeTblEntry) -> bool {
    // SAFETY: the caller vouches for the entry.
    unsafe {
        (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
            || cfg!(not(feature = "pg15"))
                && (*entry).rtekind == pg_sys::RTEKind::RTE_SUBQUERY
                && (*entry).relid != Oid::INVALID
    }
}

/// Checks that the current user may insert these columns; raises PostgreSQL's error otherwise.
///
/// # Safety
///
/// The item is the table's in the live state of a parser.
pub(crate) unsafe fn check_insert(
    parse: *mut pg_sys::ParseState,
    item: *mut pg_sys::ParseNamespaceItem,
    columns: &[i32],
) {
    // SAFETY: the caller vouches for both.
    unsafe {
        #[cfg(feature = "pg15")]
        let rights = (*item).p_rte;
        #[cfg(not(feature = "pg15"))]
        let rights = (*item).p_perminfo;
        (*rights).requiredPerms = pg_sys::AclMode::from(pg_sys::ACL_INSERT);
        for number in columns {
            let member = number - pg_sys::FirstLowInvalidHeapAttributeNumber;
            (*rights).insertedCols = pg_sys::bms_add_member((*rights).insertedCols, member);
        }
        #[cfg(feature = "pg15")]
        pg_sys::ExecCheckRTPerms((*parse).p_rtable, true);
        #[cfg(not(feature = "pg15"))]
        pg_sys::ExecCheckPermissions((*parse).p_rtable, (*parse).p_rteperminfos, true);
    }
}

/// The role may look into the schema.
pub(crate) fn may_use_schema(schema: Oid, role: Oid) -> bool {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_USAGE);
    // SAFETY: catalog look-ups by value.
    let result = unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::pg_namespace_aclcheck(schema, role, mode)
        }
        #[cfg(not(feature = "pg15"))]
        {
            pg_sys::object_aclcheck(pg_sys::NamespaceRelationId, schema, role, mode)
        }
    };
    result == pg_sys::AclResult::ACLCHECK_OK
}

/// The role may call the function.
pub(crate) fn may_execute(function: Oid, role: Oid) -> bool {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_EXECUTE);
    // SAFETY: catalog look-ups by value.
    let result = unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::pg_proc_aclcheck(function, role, mode)
        }
        #[cfg(not(feature = "pg15"))]
        {
            pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function, role, mode)
        }
    };
    result == pg_sys::AclResult::ACLCHECK_OK
}

/// The role owns the relation, or is a superuser or a member of its owner.
pub(crate) fn owns_relation(relation: Oid, role: Oid) -> bool {
    // SAFETY: catalog look-ups by value.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::pg_class_ownercheck(relation, role)
        }
        #[cfg(not(feature = "pg15"))]
        {
            // To look for what does not exist was the user's error, and is an internal one since PostgreSQL 16.
            if pg_sys::get_rel_relkind(relation) == 0 {
                let text = format!("relation with OID {} does not exist", relation.to_u32());
                return raise(Err(PgError::new(SqlState::UNDEFINED_TABLE, text)));
            }
            pg_sys::object_ownercheck(pg_sys::RelationRelationId, relation, role)
        }
    }
}

/// The role may have a table's statistics collected: its owner, and since PostgreSQL 17 whoever has the right MAINTAIN.
pub(crate) fn may_maintain(relation: Oid, role: Oid) -> bool {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    {
        owns_relation(relation, role)
    }
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    {
        let mode = pg_sys::AclMode::from(pg_sys::ACL_MAINTAIN);
        // SAFETY: catalog look-ups by value.
        let result = unsafe { pg_sys::pg_class_aclcheck(relation, role, mode) };
        result == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// The role owns the type, or is a superuser or a member of its owner.
pub(crate) fn owns_type(type_oid: Oid, role: Oid) -> bool {
    // SAFETY: catalog look-ups by value.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::pg_type_ownercheck(type_oid, role)
        }
        #[cfg(not(feature = "pg15"))]
        {
            pg_sys::object_ownercheck(pg_sys::TypeRelationId, type_oid, role)
        }
    }
}

/// The role owns the database, or is a superuser or a member of its owner.
pub(crate) fn owns_database(database: Oid, role: Oid) -> bool {
    // SAFETY: catalog look-ups by value.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::pg_database_ownercheck(database, role)
        }
        #[cfg(not(feature = "pg15"))]
        {
            pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, role)
        }
    }
}
