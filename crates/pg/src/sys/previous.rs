//! Hooks of those who were there before us.

use pgrx::pg_sys;
use std::sync::OnceLock;

/// What stood in PostgreSQL's variables when the library was loaded.
#[derive(Clone, Copy)]
pub(crate) struct Previous {
    pub(crate) planner: pg_sys::planner_hook_type,
    pub(crate) relation_paths: pg_sys::set_rel_pathlist_hook_type,
    pub(crate) relation_info: pg_sys::get_relation_info_hook_type,
    pub(crate) join_paths: pg_sys::set_join_pathlist_hook_type,
    pub(crate) upper_paths: pg_sys::create_upper_paths_hook_type,
    pub(crate) utility: pg_sys::ProcessUtility_hook_type,
    pub(crate) access: pg_sys::object_access_hook_type,
}

static PREVIOUS: OnceLock<Previous> = OnceLock::new();

/// Keeps them; once.
pub(crate) fn keep(previous: Previous) {
    let _ = PREVIOUS.set(previous);
}

/// What was kept; none before the hooks are installed.
pub(crate) fn previous() -> Option<&'static Previous> {
    PREVIOUS.get()
}
