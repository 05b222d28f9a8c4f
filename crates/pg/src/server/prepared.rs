//! Room for prepared transactions.
//!
//! A transaction over several nodes prepares on them, and PostgreSQL's default, `max_prepared_transactions = 0`, forbids that. A
//! server that preloads the library has as much room as it has connections, unless its configuration says otherwise.

use pgrx::pg_sys;
use std::ffi::CString;

/// Changes the default, while the library is preloaded. What the configuration says, 0 included, has precedence.
pub fn make_room() {
    // SAFETY: variables of the postmaster's start. The value is a number that the setting takes, and the source is that of
    // defaults that are found out at run time, which every other source overrides (`set_config_option`, `guc.c`).
    unsafe {
        if !pg_sys::process_shared_preload_libraries_in_progress {
            return;
        }
        let connections = pg_sys::MaxConnections;
        let Ok(value) = CString::new(connections.to_string()) else { return };
        pg_sys::SetConfigOption(
            c"max_prepared_transactions".as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_POSTMASTER,
            pg_sys::GucSource::PGC_S_DYNAMIC_DEFAULT,
        );
    }
}
