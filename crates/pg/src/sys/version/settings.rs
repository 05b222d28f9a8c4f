//! The list of all settings, and what later versions have added to it.

use pgrx::pg_sys;
use std::ffi::{CStr, c_int};

/// The planner's settings that PostgreSQL 15 does not have, with their defaults.
#[cfg(feature = "pg15")]
pub(crate) const NEWER_PLANNER_SETTINGS: [(&CStr, &CStr); 0] = [];
/// The planner's settings that PostgreSQL 15 does not have, with their defaults.
#[cfg(feature = "pg16")]
pub(crate) const NEWER_PLANNER_SETTINGS: [(&CStr, &CStr); 1] =
    [(c"enable_presorted_aggregate", c"on")];
/// The planner's settings that PostgreSQL 15 does not have, with their defaults.
#[cfg(feature = "pg17")]
pub(crate) const NEWER_PLANNER_SETTINGS: [(&CStr, &CStr); 2] =
    [(c"enable_presorted_aggregate", c"on"), (c"enable_group_by_reordering", c"on")];
/// The planner's settings that PostgreSQL 15 does not have, with their defaults.
#[cfg(feature = "pg18")]
pub(crate) const NEWER_PLANNER_SETTINGS: [(&CStr, &CStr); 4] = [
    (c"enable_presorted_aggregate", c"on"),
    (c"enable_group_by_reordering", c"on"),
    (c"enable_distinct_reordering", c"on"),
    (c"enable_self_join_elimination", c"on"),
];

#[cfg(feature = "pg15")]
mod raw {
    use std::ffi::c_int;
    unsafe extern "C-unwind" {
        /// Raises nothing: see the function below that calls it.
        pub(super) fn GetNumConfigOptions() -> c_int;
    }
}

/// How many settings there are. It grows when one is set that nobody knows. From 16 on that is not cheap to know: then it is
/// another number each time.
#[cfg(feature = "pg15")]
pub(crate) fn count_of_settings() -> c_int {
    // SAFETY: reads a variable (`src/backend/utils/misc/guc.c`).
    unsafe { raw::GetNumConfigOptions() }
}

/// See above.
#[cfg(not(feature = "pg15"))]
pub(crate) fn count_of_settings() -> c_int {
    thread_local!(static LAST: std::cell::Cell<c_int> = const { std::cell::Cell::new(0) });
    LAST.set(LAST.get().wrapping_add(1));
    LAST.get()
}

/// Hands every setting to `each`.
pub(crate) fn each_setting(each: &mut dyn FnMut(*mut pg_sys::config_generic)) {
    // SAFETY: the array of the server's settings, with as many elements as it says; `each` changes none.
    unsafe {
        #[cfg(feature = "pg15")]
        let (all, count) = (pg_sys::get_guc_variables(), count_of_settings());
        #[cfg(not(feature = "pg15"))]
        let (all, count) = {
            let mut count = 0;
            (pg_sys::get_guc_variables(&raw mut count), count)
        };
        for at in 0..count as usize {
            each(*all.add(at));
        }
        #[cfg(not(feature = "pg15"))]
        pg_sys::pfree(all.cast());
    }
}
