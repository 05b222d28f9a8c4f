//! What PostgreSQL itself keeps with a table that is distributed: an access method, and a security label.
//!
//! The access method is PostgreSQL's heap under another name, which also finds the rows of triggers ([`trigger_rows`]). Whoever opens a table of it calls our handler, which loads the
//! library where it was not preloaded, and refuses: no session gets at the coordinator's empty table without our hooks.
//! The label is dumped with the table, by its name, and goes with it when it is dropped.

use crate::exec::trigger_rows;
use crate::sys::boundary::boundary;
use crate::sys::error::{PgError, SqlState};
use crate::sys::node;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::{CStr, c_char, c_int};
use std::sync::atomic::{AtomicBool, Ordering};

/// The provider of our labels, and the access method's name.
pub const NAME: &CStr = c"pg_shard";

static IS_PRELOADED: AtomicBool = AtomicBool::new(false);

/// Whether a label may be given to a table by SECURITY LABEL.
pub type CheckLabel = fn(table: Option<Oid>) -> Result<(), PgError>;

static CHECK_LABEL: std::sync::OnceLock<CheckLabel> = std::sync::OnceLock::new();

/// Notes how the library was loaded, and registers the labels; once, when it is loaded.
pub fn register(check: CheckLabel) {
    if CHECK_LABEL.set(check).is_err() {
        return;
    }
    // SAFETY: a flag of the postmaster's start; the provider's name is static, and the function stays loaded.
    unsafe {
        if pg_sys::process_shared_preload_libraries_in_progress {
            IS_PRELOADED.store(true, Ordering::Relaxed);
        }
        pg_sys::register_label_provider(NAME.as_ptr(), Some(check_label));
    }
}

/// The library was loaded when the server started.
pub fn is_preloaded() -> bool {
    IS_PRELOADED.load(Ordering::Relaxed)
}

/// The error of a server that has not loaded the library when it started.
pub fn not_preloaded(message: &str) -> PgError {
    PgError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .detail("This server has not loaded the library pg_shard when it was started.")
        .hint("Add pg_shard to shared_preload_libraries in the server's configuration and restart it.")
}

unsafe extern "C-unwind" fn check_label(object: *const pg_sys::ObjectAddress, _: *const c_char) {
    // SAFETY: PostgreSQL's live address of the object; this frame holds plain values only.
    unsafe {
        let is_table =
            (*object).classId == pg_sys::RelationRelationId && (*object).objectSubId == 0;
        let table = is_table.then_some((*object).objectId);
        boundary(|| CHECK_LABEL.get().map_or(Ok(()), |check| check(table)));
    }
}

fn address(table: Oid) -> pg_sys::ObjectAddress {
    pg_sys::ObjectAddress { classId: pg_sys::RelationRelationId, objectId: table, objectSubId: 0 }
}

/// Our label of a table.
pub fn label(table: Oid) -> Option<String> {
    let address = address(table);
    // SAFETY: looks the label up in its catalog; the text is palloced.
    unsafe {
        let label = pg_sys::GetSecurityLabel(&raw const address, NAME.as_ptr());
        (!label.is_null()).then(|| node::text_of(label))
    }
}

/// Gives a table our label, or takes it away.
pub fn set_label(table: Oid, label: Option<&str>) {
    let address = address(table);
    let label = label.map_or(std::ptr::null_mut(), node::c_text);
    // SAFETY: writes the catalog of labels, whatever the current user's rights; the next command sees it.
    unsafe {
        pg_sys::SetSecurityLabel(&raw const address, NAME.as_ptr(), label);
        pg_sys::CommandCounterIncrement();
    }
}

/// The table has our access method.
pub fn has_access_method(table: Oid) -> bool {
    let method = access_method(table);
    method != Oid::INVALID
        && method != pg_sys::HEAP_TABLE_AM_OID
        // SAFETY: a syscache look-up by a static name.
        && method == unsafe { pg_sys::get_am_oid(NAME.as_ptr(), true) }
}

/// The table's access method is neither ours nor the heap, which [`NAME`] stands for; or it has none.
pub fn has_foreign_method(table: Oid) -> bool {
    access_method(table) != pg_sys::HEAP_TABLE_AM_OID && !has_access_method(table)
}

fn access_method(table: Oid) -> Oid {
    // SAFETY: a syscache look-up; the tuple is released after its field is copied.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as c_int,
            Datum::from(table),
        );
        if tuple.is_null() {
            return Oid::INVALID;
        }
        let method = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relam;
        pg_sys::ReleaseSysCache(tuple);
        method
    }
}

/// `pgs_catalog.table_handler`: the heap's own functions, but for what triggers need.
///
/// # Safety
///
/// Called by PostgreSQL, when it reads a relation's definition.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_table_handler(_: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: PostgreSQL calls; this frame holds nothing. The routine lives as long as the process.
    unsafe {
        boundary(|| {
            if is_preloaded() {
                Ok(Datum::from(trigger_rows::routine()))
            } else {
                Err(not_preloaded("cannot use distributed tables: pg_shard is not preloaded"))
            }
        })
    }
}

/// How PostgreSQL is to call it.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shard_table_handler() -> *const pg_sys::Pg_finfo_record {
    static VERSION: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &raw const VERSION
}
