//! What roles may do.

use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

/// Whether a role may log in; false if there is no such role.
pub fn can_log_in(role: Oid) -> bool {
    // SAFETY: a syscache look-up by value; the tuple is released after its field is read.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::AUTHOID as c_int;
        let tuple = pg_sys::SearchSysCache1(cache, Datum::from(role));
        if tuple.is_null() {
            return false;
        }
        let can = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_authid>()).rolcanlogin;
        pg_sys::ReleaseSysCache(tuple);
        can
    }
}

/// Whether the current user may write files of the server: a superuser, or a member of `pg_write_server_files`.
pub fn may_write_server_files() -> bool {
    let role = Oid::from(pg_sys::ROLE_PG_WRITE_SERVER_FILES);
    // SAFETY: look-ups by value.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), role) }
}
