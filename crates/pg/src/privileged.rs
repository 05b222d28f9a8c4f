//! SQL of our own: the one place in which this extension executes SQL text on its own server.
//!
//! What a client has set must neither change what such a statement means nor how it is planned, and nothing that a role has
//! created may run in another role's name. So each statement runs
//! * with `search_path = pg_catalog, pg_temp`: operators, functions, casts and types are PostgreSQL's own, whatever the
//!   client's schemas offer (operators and functions are never looked up in `pg_temp`, which is named so that it comes last);
//! * with the settings of [`SETTINGS`], which are those of a fresh session;
//! * under `SECURITY_RESTRICTED_OPERATION`, as PostgreSQL's maintenance runs (`vacuum.c`, `index.c`).
//!
//! Identity and settings are put back on every way out: by a guard's destructor, which also runs when an ERROR unwinds the
//! frame, and once more by the abort of the (sub)transaction, which restores both.

use crate::error::PgError;
use crate::node;
use pgrx::pg_sys::{self, Oid};
use pgrx::spi::SpiClient;
use std::ffi::{CStr, c_int};

/// What a client can set that changes the meaning or the plan of a query. `statement_timeout` and `lock_timeout` stay the
/// client's.
const SETTINGS: [(&CStr, &CStr); 44] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    // What texts mean, and how values are printed.
    (c"standard_conforming_strings", c"on"),
    (c"backslash_quote", c"safe_encoding"),
    (c"array_nulls", c"on"),
    (c"transform_null_equals", c"off"),
    (c"quote_all_identifiers", c"off"),
    (c"datestyle", c"ISO"),
    (c"intervalstyle", c"postgres"),
    (c"extra_float_digits", c"3"),
    (c"bytea_output", c"hex"),
    (c"xmlbinary", c"base64"),
    (c"xmloption", c"content"),
    // Who sees which rows, and which triggers fire.
    (c"row_security", c"on"),
    (c"session_replication_role", c"origin"),
    // How a query is planned.
    (c"plan_cache_mode", c"auto"),
    (c"constraint_exclusion", c"partition"),
    (c"from_collapse_limit", c"8"),
    (c"join_collapse_limit", c"8"),
    (c"geqo", c"off"),
    (c"jit", c"off"),
    (c"force_parallel_mode", c"off"),
    (c"max_parallel_workers_per_gather", c"0"),
    (c"seq_page_cost", c"1"),
    (c"random_page_cost", c"4"),
    (c"cpu_tuple_cost", c"0.01"),
    (c"cpu_index_tuple_cost", c"0.005"),
    (c"cpu_operator_cost", c"0.0025"),
    (c"enable_async_append", c"on"),
    (c"enable_bitmapscan", c"on"),
    (c"enable_gathermerge", c"on"),
    (c"enable_hashagg", c"on"),
    (c"enable_hashjoin", c"on"),
    (c"enable_incremental_sort", c"on"),
    (c"enable_indexonlyscan", c"on"),
    (c"enable_indexscan", c"on"),
    (c"enable_material", c"on"),
    (c"enable_memoize", c"on"),
    (c"enable_mergejoin", c"on"),
    (c"enable_nestloop", c"on"),
    (c"enable_partition_pruning", c"on"),
    (c"enable_seqscan", c"on"),
    (c"enable_sort", c"on"),
    (c"enable_tidscan", c"on"),
    (c"gin_fuzzy_search_limit", c"0"),
];

/// The state of identity and settings before the guard was made; dropping it puts them back.
struct Before {
    user: Oid,
    context: c_int,
    level: c_int,
}

#[expect(clippy::disallowed_methods, reason = "this module is the place for it")]
impl Before {
    /// Takes on a role's identity, restricted further by `flags`, and opens a level of settings.
    fn leave_for(role: Option<Oid>, flags: u32) -> Self {
        let (mut user, mut context) = (Oid::INVALID, 0);
        // SAFETY: reads and sets variables of the backend; `drop` and the transaction's abort put them back.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
            let level = pg_sys::NewGUCNestLevel();
            pg_sys::SetUserIdAndSecContext(role.unwrap_or(user), context | flags as c_int);
            Self { user, context, level }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this module is the place for it")]
impl Drop for Before {
    fn drop(&mut self) {
        // SAFETY: the level was opened by this guard, and whoever opened one inside has closed it, or has left it to us by an
        // ERROR; putting settings back raises nothing.
        unsafe {
            pg_sys::AtEOXact_GUC(false, self.level);
            pg_sys::SetUserIdAndSecContext(self.user, self.context);
        }
    }
}

/// Sets what [`SETTINGS`] says, in the innermost level of settings.
fn pin_settings() {
    for (name, value) in SETTINGS {
        // SAFETY: settings of the server itself with values that they take; the level of settings is the caller's.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
    }
}

/// Runs statements on the extension's own tables, as the superuser who owns the cluster.
///
/// # Errors
///
/// If SPI does not know what to make of a statement; PostgreSQL's own ERRORs pass through.
pub fn run(sql: &str) -> Result<(), PgError> {
    let flags = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
    let _before = Before::leave_for(Some(Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID)), flags);
    pin_settings();
    #[expect(clippy::disallowed_types, reason = "this module is the place for it")]
    pgrx::Spi::run(sql).map_err(|error| PgError::internal(error.to_string()))
}

/// Has `body` query the catalogs, with the current user's rights: whose name matters for what is printed.
pub fn read_catalogs<T>(body: impl FnOnce(&SpiClient<'_>) -> T) -> T {
    let _before = Before::leave_for(None, pg_sys::SECURITY_RESTRICTED_OPERATION);
    pin_settings();
    #[expect(clippy::disallowed_types, reason = "this module is the place for it")]
    pgrx::Spi::connect(body)
}

/// SPI, open for queries of the current user.
#[derive(Debug)]
pub(crate) struct Queries(());

impl Queries {
    /// Has `body` ask queries with the current user's rights. What it allocates, and the rows that it gets, go with it.
    #[expect(clippy::disallowed_methods, reason = "this module is the place for it")]
    pub(crate) fn ask<T>(body: impl FnOnce(&Self) -> Result<T, PgError>) -> Result<T, PgError> {
        let _before = Before::leave_for(None, pg_sys::SECURITY_RESTRICTED_OPERATION);
        pin_settings();
        // SAFETY: SPI as it wants to be used; after an ERROR, and after an error of the body, which becomes one, the
        // transaction's abort closes it.
        unsafe {
            if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as c_int {
                return Err(PgError::internal("SPI_connect failed"));
            }
            let value = body(&Self(()))?;
            pg_sys::SPI_finish();
            Ok(value)
        }
    }

    /// The rows of a SELECT, and how many they are.
    #[expect(clippy::disallowed_methods, reason = "this module is the place for it")]
    pub(crate) fn select(&self, sql: &str) -> Result<(*mut pg_sys::SPITupleTable, u64), PgError> {
        let text = node::c_text(sql);
        // SAFETY: SPI is connected while `self` lives.
        unsafe {
            if pg_sys::SPI_execute(text, false, 0) != pg_sys::SPI_OK_SELECT as c_int {
                return Err(PgError::internal("a query of the extension gave no rows"));
            }
            Ok((pg_sys::SPI_tuptable, pg_sys::SPI_processed))
        }
    }
}

/// Sets a setting to the end of the transaction.
pub fn set_for_transaction(name: &CStr, value: &CStr) {
    // SAFETY: zero-terminated texts; the transaction's end puts the setting back.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}

/// Runs `body` as a role, in whose name functions of users may then run: they cannot get at anybody else's rights, and the
/// settings that they leave are gone afterwards (`do_analyze_rel`, `analyze.c`).
pub fn as_restricted<T>(role: Oid, body: impl FnOnce() -> T) -> T {
    let _before = Before::leave_for(Some(role), pg_sys::SECURITY_RESTRICTED_OPERATION);
    body()
}
