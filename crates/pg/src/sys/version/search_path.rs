//! Search paths that hold for a while.
//!
//! Up to PostgreSQL 16 there is a stack of paths beside the setting; since 17 the setting is changed for the while.

use crate::sys::node;
use pgrx::pg_sys::{self, Oid};

/// Schemas in which names are looked up, `pg_catalog` first unless it is among them, temporary tables never or last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SearchPath(
    #[cfg(any(feature = "pg15", feature = "pg16"))] *mut pg_sys::OverrideSearchPath,
    #[cfg(not(any(feature = "pg15", feature = "pg16")))] *mut std::ffi::c_char,
);

/// What ends a search path's while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before(#[cfg(not(any(feature = "pg15", feature = "pg16")))] std::ffi::c_int);

#[cfg(any(feature = "pg15", feature = "pg16"))]
mod raw {
    //! Plain frames: the caller's hold nothing to drop, or it puts a guard around.
    use pgrx::pg_sys;
    unsafe extern "C-unwind" {
        /// Plain frames: see above.
        pub(super) fn PushOverrideSearchPath(path: *mut pg_sys::OverrideSearchPath);
        /// Plain frames: see above.
        pub(super) fn PopOverrideSearchPath();
    }
}

#[cfg(not(any(feature = "pg15", feature = "pg16")))]
mod raw {
    //! Plain frames: the caller's hold nothing to drop, or it puts a guard around.
    use pgrx::pg_sys;
    use std::ffi::{c_char, c_int};
    unsafe extern "C-unwind" {
        /// Raises nothing: counts.
        pub(super) fn NewGUCNestLevel() -> c_int;
        /// Plain frames: see above.
        pub(super) fn set_config_option(
            name: *const c_char,
            value: *const c_char,
            context: pg_sys::GucContext::Type,
            source: pg_sys::GucSource::Type,
            action: pg_sys::GucAction::Type,
            change: bool,
            level: c_int,
            is_reload: bool,
        ) -> c_int;
        /// Plain frames: see above.
        pub(super) fn AtEOXact_GUC(commits: bool, level: c_int);
    }
}

impl SearchPath {
    /// The schemas that names without one are looked up in now, but for those that go without saying.
    pub(crate) fn schemas() -> Vec<Oid> {
        // SAFETY: reads the backend's search path into the current context; a list of OIDs.
        unsafe {
            #[cfg(any(feature = "pg15", feature = "pg16"))]
            let path = pg_sys::GetOverrideSearchPath(pg_sys::CurrentMemoryContext);
            #[cfg(not(any(feature = "pg15", feature = "pg16")))]
            let path = pg_sys::GetSearchPathMatcher(pg_sys::CurrentMemoryContext);
            let list = (*path).schemas;
            (0..node::length(list)).map(|index| (*(*list).elements.add(index)).oid_value).collect()
        }
    }

    /// A path, in the current memory context.
    pub(crate) fn of(schemas: &[Oid]) -> Self {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        // SAFETY: palloc0 returns zeroed memory of the size; lappend_oid makes a list.
        unsafe {
            let size = size_of::<pg_sys::OverrideSearchPath>();
            let path: *mut pg_sys::OverrideSearchPath = pg_sys::palloc0(size).cast();
            (*path).addCatalog = !schemas.contains(&Oid::from(pg_sys::PG_CATALOG_NAMESPACE));
            for schema in schemas {
                (*path).schemas = pg_sys::lappend_oid((*path).schemas, *schema);
            }
            Self(path)
        }
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        {
            let name = |schema: &Oid| {
                // SAFETY: a syscache look-up; names are palloced.
                unsafe {
                    let name = pg_sys::get_namespace_name(*schema);
                    (!name.is_null()).then(|| node::text_of(pg_sys::quote_identifier(name)))
                }
            };
            let mut names: Vec<String> = schemas.iter().filter_map(name).collect();
            names.push("pg_temp".to_owned());
            Self(node::c_text(&names.join(", ")))
        }
    }

    /// Makes it the one in which names are looked up, until [`Before::end`] or the end of the (sub)transaction.
    ///
    /// # Safety
    ///
    /// The path is live meanwhile. The frames up to the next guard hold nothing to drop.
    pub(crate) unsafe fn begin(self) -> Before {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        {
            // SAFETY: the caller vouches for the path.
            unsafe { raw::PushOverrideSearchPath(self.0) };
            Before()
        }
        // SAFETY: the caller vouches for the path; set as `RestrictSearchPath` of `src/backend/utils/misc/guc.c` sets it.
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        unsafe {
            let level = raw::NewGUCNestLevel();
            raw::set_config_option(
                c"search_path".as_ptr(),
                self.0,
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
            Before(level)
        }
    }
}

impl Before {
    /// Goes back to the path that was there.
    ///
    /// # Safety
    ///
    /// In the same (sub)transaction as [`SearchPath::begin`], in the opposite order.
    pub(crate) unsafe fn end(self) {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        // SAFETY: the caller vouches for the order.
        unsafe {
            raw::PopOverrideSearchPath();
        }
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        // SAFETY: the caller vouches for the order.
        unsafe {
            raw::AtEOXact_GUC(true, self.0);
        }
    }
}
