//! What differs between PostgreSQL's versions, each as one function with a body for each way that it is done.
//!
//! Callers do not know which version they are compiled for: outside of this folder no `cfg` names a version. A function has
//! the meaning that PostgreSQL 15 gives it, or that of the later version where 15 does not know the thing.

/// The major version of PostgreSQL that this is compiled for.
pub const MAJOR_VERSION: u32 = pgrx::pg_sys::PG_VERSION_NUM / 10_000;

/// A COPY FROM that is running, as PostgreSQL keeps it.
pub(crate) mod copy_state;
mod planner;
mod queries;
mod rights;
mod search_path;
mod server;
mod settings;
mod trees;
mod triggers;
mod tuples;
/// Walks over trees.
pub(crate) mod walkers;
mod windows;

pub(crate) use planner::{
    ascending_key, flatten_joins, is_in_btree, is_interval_array, ordering, run_conditions,
    sort_in_aggregates, strategy,
};
pub(crate) use queries::{
    ActionName, EXISTING_ROW_OF_VIEW, MergeMatch, conditions_of, current_column, for_newer_numbers,
    hidden_column, join_conditions, make_range, merge_match, parse_type, qualified_name,
    replace_newer_parts, return_old_and_new, sets_expression,
};
pub(crate) use rights::{
    add_select, add_selected, begin_rights, check_insert, checked_as, clear_selected, copy_entry,
    drop_all_rights, drop_rights, has_right, is_checked, may_execute, may_maintain, may_use_schema,
    move_rights, owns_database, owns_relation, owns_type, plan_rights, plan_rights_of_all,
    planned_checked_as, rights,
};
pub(crate) use search_path::SearchPath;
pub(crate) use server::{
    PARALLEL_FOR_TESTS, backend_index, encoding_name, handle_signal, has_read_more,
    lasting_wait_set, process_number, rewritten_in, store_size, truncate, write_file,
};
pub(crate) use settings::{NEWER_PLANNER_SETTINGS, count_of_settings, each_setting};
pub(crate) use trees::{
    flatten_groups, forget_nulling, has_group_entry, relations_of, same_expression, settle_nulling,
};
pub(crate) use triggers::{before_delete, before_update, open_range_table};
pub(crate) use tuples::{attribute, describe_column, is_virtual, statistics_target};
pub(crate) use windows::{show_windows, shown_windows, yields_windows};
