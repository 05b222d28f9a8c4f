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
