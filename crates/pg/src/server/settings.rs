//! Settings in which the nodes follow the client: those that change what values mean and how they look, how long locks are waited for, whether
//! foreign keys are enforced (`session_replication_role`), and the client's own (`app.tenant`), which functions and policies read.

use crate::catalog::table;
use crate::sys::version;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::{CStr, c_char, c_int};

mod raw {
    use std::ffi::{c_char, c_int};
    unsafe extern "C" {
        pub(super) static bytea_output: c_int;
        pub(super) static xmloption: c_int;
        pub(super) static xmlbinary: c_int;
        pub(super) static locale_monetary: *const c_char;
        pub(super) static locale_numeric: *const c_char;
        pub(super) static locale_time: *const c_char;
        pub(super) static namespace_search_path: *const c_char;
    }
}

/// `search_path` names no schema, as in what pg_dump writes.
pub fn search_path_is_empty() -> bool {
    matches!(search_path().as_str(), "" | "\"\"")
}

/// `search_path` as it is set.
pub fn search_path() -> String {
    // SAFETY: a zero-terminated text once the settings are there.
    unsafe {
        let path = raw::namespace_search_path;
        if path.is_null() {
            String::new()
        } else {
            CStr::from_ptr(path).to_string_lossy().into_owned()
        }
    }
}

/// A fingerprint of the settings in [`FOLLOWED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    date_style: c_int,
    date_order: c_int,
    interval_style: c_int,
    time_zone: usize,
    float_digits: c_int,
    outputs: [c_int; 3],
    texts: [u64; 4],
    lock_timeout: c_int,
    replication_role: c_int,
}

/// Settings of the server's own in which the nodes follow the client.
pub const FOLLOWED: [&CStr; 13] = [
    c"DateStyle",
    c"IntervalStyle",
    c"TimeZone",
    c"bytea_output",
    c"xmloption",
    c"lc_monetary",
    c"timezone_abbreviations",
    c"extra_float_digits",
    c"xmlbinary",
    c"lc_numeric",
    c"lc_time",
    c"lock_timeout",
    REPLICATION_ROLE,
];

/// The one of them that not everybody may set.
pub const REPLICATION_ROLE: &CStr = c"session_replication_role";

/// The client's; equal ones mean equal settings.
pub fn settings() -> Settings {
    // SAFETY: reads globals of the backend; a time zone's address is unique to it for the process.
    unsafe {
        Settings {
            date_style: pg_sys::DateStyle,
            date_order: pg_sys::DateOrder,
            interval_style: pg_sys::IntervalStyle,
            time_zone: pg_sys::session_timezone.addr(),
            float_digits: float_digits(),
            outputs: [raw::bytea_output, raw::xmloption, raw::xmlbinary],
            texts: [
                digest(START, raw::locale_monetary),
                digest(START, raw::locale_numeric),
                digest(START, raw::locale_time),
                digest(START, time_zone_abbreviations()),
            ],
            lock_timeout: lock_timeout(),
            replication_role: pg_sys::SessionReplicationRole,
        }
    }
}

/// `timezone_abbreviations` as it is set. Its variable is no symbol in all versions; it is looked for once, since that takes as long as all
/// other settings together.
fn time_zone_abbreviations() -> *const c_char {
    thread_local!(static VARIABLE: Cell<*const *mut c_char> = const { Cell::new(std::ptr::null()) });
    if VARIABLE.get().is_null() {
        version::each_setting(&mut |setting| {
            // SAFETY: a live setting with a name; the one of this name is a text. The variable lasts as long as the process.
            unsafe {
                if CStr::from_ptr((*setting).name) == c"timezone_abbreviations" {
                    VARIABLE.set((*setting.cast::<pg_sys::config_string>()).variable);
                }
            }
        });
    }
    let variable = VARIABLE.get();
    // SAFETY: null if there is no such setting; else a variable of the process.
    unsafe { if variable.is_null() { std::ptr::null() } else { *variable } }
}

/// How long a lock is waited for, in milliseconds; 0 is for ever.
pub fn lock_timeout() -> c_int {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::LockTimeout }
}

/// The value that a node is told for one of [`FOLLOWED`].
pub fn told_value(name: &CStr) -> String {
    if name == c"extra_float_digits" {
        return float_digits().to_string();
    }
    table::setting(name)
}

/// Above zero, floats are printed so that they are read back as they were, whatever the number is.
fn float_digits() -> c_int {
    // SAFETY: reads a variable of the backend.
    match unsafe { pg_sys::extra_float_digits } {
        1.. => 3,
        few => few,
    }
}

thread_local! {
    /// How many settings there were at the last look, and whether one of them was the client's own.
    static SEEN: Cell<(c_int, bool)> = const { Cell::new((0, false)) };
    /// Names of settings of the client's own that nodes may have been told.
    static TOLD: RefCell<HashSet<String>> = RefCell::default();
}

/// A fingerprint of the client's own settings; 0 if there are none.
pub fn own_settings() -> u64 {
    let (count, has_own) = SEEN.get();
    let now = version::count_of_settings();
    if count == now && !has_own {
        return 0;
    }
    let mut all = 0;
    each_own(&mut |name, value| all ^= digest_of(name, value));
    SEEN.set((now, all != 0));
    all
}

/// The names of the client's own settings, in order; none if there are none.
pub fn own_setting_names() -> Option<Vec<String>> {
    if own_settings() == 0 {
        return None;
    }
    let mut names = Vec::new();
    each_own(&mut |name, _| names.push(name.to_string_lossy().into_owned()));
    names.sort();
    Some(names)
}

/// Names and values of the client's own settings.
pub fn own_setting_values() -> Vec<(String, String)> {
    let mut all = Vec::new();
    each_own(&mut |name, value| {
        let name = name.to_string_lossy().into_owned();
        TOLD.with_borrow_mut(|told| told.insert(name.clone()));
        all.push((name, value.to_string_lossy().into_owned()));
    });
    all
}

/// Hands the client's own settings to `each`: what it has set by itself. What the configuration file, ALTER ROLE or ALTER DATABASE say may
/// be for a library that is loaded on the nodes, and that allows nobody to set it.
fn each_own(each: &mut dyn FnMut(&CStr, &CStr)) {
    version::each_setting(&mut |setting| {
        // SAFETY: a live setting, which is a text if it has this flag; its name and its value are C strings, or the value is null.
        unsafe {
            let general = &*setting;
            if general.flags & pg_sys::GUC_CUSTOM_PLACEHOLDER as c_int == 0 {
                return;
            }
            let name = CStr::from_ptr(general.name);
            let is_of_client = general.source >= pg_sys::GucSource::PGC_S_CLIENT;
            if !is_of_client && TOLD.with_borrow(|told| !told.contains(&*name.to_string_lossy())) {
                return;
            }
            let value = *(*setting.cast::<pg_sys::config_string>()).variable;
            each(name, if value.is_null() { c"" } else { CStr::from_ptr(value) });
        }
    });
}

const START: u64 = 0xcbf2_9ce4_8422_2325;

/// Goes on with FNV-1a over a short text.
///
/// # Safety
///
/// `text` is null or a live C string.
unsafe fn digest(start: u64, text: *const c_char) -> u64 {
    if text.is_null() {
        return start;
    }
    // SAFETY: the caller vouches for the text.
    fnv(start, unsafe { CStr::from_ptr(text) })
}

fn fnv(start: u64, text: &CStr) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    text.to_bytes_with_nul().iter().fold(start, step)
}

fn digest_of(name: &CStr, value: &CStr) -> u64 {
    // Never 0, and as good in sums as alone.
    fnv(fnv(START, name), value).rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}
