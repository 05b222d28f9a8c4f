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

/// A number that changes when a setting that nobody knows is first set: how many settings there are.
#[cfg(feature = "pg15")]
pub(crate) fn count_of_settings() -> c_int {
    // SAFETY: reads a variable (`src/backend/utils/misc/guc.c`).
    unsafe { raw::GetNumConfigOptions() }
}

/// A number that changes when a setting that nobody knows is first set: how many such settings the client has set.
///
/// The server keeps a list of the settings that do not have their default, a few dozen. Making an array of all takes as long as
/// parsing a statement.
#[cfg(not(feature = "pg15"))]
pub(crate) fn count_of_settings() -> c_int {
    use std::mem::offset_of;
    let head = head_of_changed();
    let mut count = 0;
    // SAFETY: the server's list in this process, a circle through `head`. Each other node is a part of a setting
    // (`src/include/utils/guc_tables.h`); nothing changes them meanwhile.
    unsafe {
        let mut at = (*head).next.cast_const();
        while !std::ptr::eq(at, head) {
            let setting = at
                .byte_sub(offset_of!(pg_sys::config_generic, nondef_link))
                .cast::<pg_sys::config_generic>();
            let is_placeholder = (*setting).flags & pg_sys::GUC_CUSTOM_PLACEHOLDER as c_int != 0;
            if is_placeholder && (*setting).source >= pg_sys::GucSource::PGC_S_CLIENT {
                count += 1;
            }
            at = (*at).next;
        }
    }
    count
}

/// The head of the list of settings that do not have their default (`guc_nondef_list` of `src/backend/utils/misc/guc.c`): the
/// node in the circle that is not a part of a setting. It is a variable of the server and stays where it is.
#[cfg(not(feature = "pg15"))]
fn head_of_changed() -> *const pg_sys::dlist_node {
    use std::cell::Cell;
    use std::collections::HashSet;
    thread_local!(static HEAD: Cell<*const pg_sys::dlist_node> = const { Cell::new(std::ptr::null()) });
    if HEAD.get().is_null() {
        let mut known: HashSet<*const pg_sys::dlist_node> = HashSet::new();
        let mut at: *const pg_sys::dlist_node = std::ptr::null();
        each_setting(&mut |setting| {
            // SAFETY: a live setting. The places of files never have their default.
            unsafe {
                if (*setting).source != pg_sys::GucSource::PGC_S_DEFAULT {
                    at = &raw const (*setting).nondef_link;
                    known.insert(at);
                }
            }
        });
        while known.contains(&at) {
            // SAFETY: a node of the list.
            at = unsafe { (*at).next };
        }
        assert!(!at.is_null(), "a running server has settings that are not the default");
        HEAD.set(at);
    }
    HEAD.get()
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
