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

use crate::catalog::table;
use crate::sys::error::{PgError, SqlState};
use crate::sys::node;
use crate::sys::unguarded;
use crate::sys::version;
use pgrx::pg_sys::{self, Oid};
use pgrx::spi::SpiClient;
use std::cell::Cell;
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
    (version::PARALLEL_FOR_TESTS, c"off"),
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

/// Sets what [`SETTINGS`] says, in the innermost level of settings, and what later versions add to it.
fn pin_settings() {
    for (name, value) in SETTINGS.into_iter().chain(version::NEWER_PLANNER_SETTINGS) {
        set(name, value, pg_sys::GucAction::GUC_ACTION_SAVE);
    }
}

/// Changes a setting for as long as `action` says.
fn set(name: &CStr, value: &CStr, action: pg_sys::GucAction::Type) {
    // SAFETY: zero-terminated texts; the end of the level of settings, or of the transaction, puts the setting back.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
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

/// Runs a statement with the rights and settings of the current user, as a part of a statement of his.
///
/// # Errors
///
/// If SPI does not know what to make of it; PostgreSQL's own ERRORs pass through.
pub fn run_as_caller(sql: &str) -> Result<(), PgError> {
    #[expect(clippy::disallowed_types, reason = "this module is the place for it")]
    pgrx::Spi::run(sql).map_err(|error| PgError::internal(error.to_string()))
}

/// The same, of a statement that changes rows: how many.
///
/// # Errors
///
/// As [`run_as_caller`].
pub fn change_as_caller(sql: &str) -> Result<u64, PgError> {
    #[expect(clippy::disallowed_types, reason = "this module is the place for it")]
    let changed = pgrx::Spi::connect_mut(|client| {
        client.update(sql, None, &[]).map(|rows| rows.len() as u64)
    });
    changed.map_err(|error| PgError::internal(error.to_string()))
}

/// Has `body` query the catalogs, with the current user's rights: whose name matters for what is printed.
pub fn read_catalogs<T>(body: impl FnOnce(&SpiClient<'_>) -> T) -> T {
    let _before = Before::leave_for(None, pg_sys::SECURITY_RESTRICTED_OPERATION);
    pin_settings();
    #[expect(clippy::disallowed_types, reason = "this module is the place for it")]
    pgrx::Spi::connect(body)
}

/// The same with the rights of the superuser who owns the cluster: for what the catalogs tell nobody else. What `body` queries is the
/// extension's own text.
pub fn read_as_superuser<T>(body: impl FnOnce(&SpiClient<'_>) -> T) -> T {
    let superuser = Some(Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID));
    let _before = Before::leave_for(superuser, pg_sys::SECURITY_RESTRICTED_OPERATION);
    pin_settings();
    #[expect(clippy::disallowed_types, reason = "this module is the place for it")]
    pgrx::Spi::connect(body)
}

thread_local! {
    /// The next statement that is planned reads this table with the rights of this role.
    static READ_AS: Cell<Option<(Oid, Oid)>> = const { Cell::new(None) };
}

/// Queries of one table of users, for maintenance: planned and executed as the table's owner, since to plan is to run his
/// functions already (constants in expressions of indexes are folded); but with the rights, and so in the sessions, of the
/// current user, who sees what his transaction has written.
#[derive(Debug)]
pub(crate) struct Queries {
    table: Oid,
    owner: Oid,
}

impl Queries {
    /// Has `body` ask queries of a table. What it allocates, and the rows that it gets, go with it.
    #[expect(clippy::disallowed_methods, reason = "this module is the place for it")]
    pub(crate) fn ask<T>(
        table: Oid,
        body: impl FnOnce(&Self) -> Result<T, PgError>,
    ) -> Result<T, PgError> {
        let queries = Self { table, owner: table::owner_of(table)? };
        let _before = Before::leave_for(None, pg_sys::SECURITY_RESTRICTED_OPERATION);
        pin_settings();
        // SAFETY: SPI as it wants to be used; after an ERROR, and after an error of the body, which becomes one, the
        // transaction's abort closes it.
        unsafe {
            if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as c_int {
                return Err(PgError::internal("SPI_connect failed"));
            }
            let value = body(&queries)?;
            pg_sys::SPI_finish();
            Ok(value)
        }
    }

    /// The rows of a SELECT from the table alone, and how many they are.
    #[expect(clippy::disallowed_methods, reason = "this module is the place for it")]
    pub(crate) fn select(&self, sql: &str) -> Result<(*mut pg_sys::SPITupleTable, u64), PgError> {
        struct Forget;
        impl Drop for Forget {
            fn drop(&mut self) {
                READ_AS.set(None);
            }
        }
        let text = node::c_text(sql);
        let caller = table::current_role();
        // SAFETY: SPI is connected while `self` lives. Names are looked up as the caller, who can use the table's schema.
        unsafe {
            let plan = pg_sys::SPI_prepare(text, 0, std::ptr::null_mut());
            if plan.is_null() {
                return Err(PgError::internal("a query of the extension could not be prepared"));
            }
            let flags = pg_sys::SECURITY_RESTRICTED_OPERATION | pg_sys::SECURITY_NOFORCE_RLS;
            let _as_owner = Before::leave_for(Some(self.owner), flags);
            READ_AS.set(Some((self.table, caller)));
            let _forget = Forget;
            let (no_values, no_nulls) = (std::ptr::null_mut(), std::ptr::null());
            let outcome = pg_sys::SPI_execute_plan(plan, no_values, no_nulls, false, 0);
            if outcome != pg_sys::SPI_OK_SELECT as c_int {
                return Err(PgError::internal("a query of the extension gave no rows"));
            }
            Ok((pg_sys::SPI_tuptable, pg_sys::SPI_processed))
        }
    }
}

/// Has a statement that is about to be planned read its table with the rights of the role that asked, if it is one of
/// [`Queries`].
///
/// # Safety
///
/// `query` is the live Query that the planner was given.
pub(crate) unsafe fn lend_rights(query: *mut pg_sys::Query) {
    let Some((table, role)) = READ_AS.take() else { return };
    // SAFETY: the caller vouches for the Query, which is the planner's own copy.
    unsafe {
        for entry in node::elements::<pg_sys::RangeTblEntry>((*query).rtable) {
            if (*entry).relid == table
                && let Some(rights) = version::rights(query, entry)
            {
                (*rights).checkAsUser = role;
            }
        }
    }
}

thread_local! {
    /// The subtransaction that acts as an owner, and its level of settings.
    static ACTING: Cell<Option<(u32, c_int)>> = const { Cell::new(None) };
}

/// Makes the rest of the subtransaction act as the owner of a table, restricted as in [`as_restricted`]: for a session whose
/// role is not the owner, and which is about to store rows that functions of the owner look at.
///
/// What these functions do cannot end it: identities cannot be changed under the restriction, and only the client ends the
/// subtransaction that the client has begun.
///
/// # Errors
///
/// Outside a subtransaction; below a function that has another identity; for whoever is no member of the owner.
pub fn act_as_owner(table: Oid) -> Result<(), PgError> {
    let refuse = |code: &[u8; 5], message: String| Err(PgError::new(SqlState(*code), message));
    let Some(relation) = table::describe(table) else {
        return refuse(b"42P01", format!("relation with OID {} does not exist", table.to_u32()));
    };
    let (mut user, mut context) = (Oid::INVALID, 0);
    // SAFETY: reads variables of the backend; syscache look-ups by value.
    let (id, is_member) = unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        (pg_sys::GetCurrentSubTransactionId(), pg_sys::is_member_of_role(user, relation.owner))
    };
    if !is_member {
        return refuse(b"42501", format!("must be member of the owner of table {}", relation.name));
    }
    if unguarded::nest_level() < 2 || context != 0 || ACTING.get().is_some() {
        return refuse(b"25001", "act_as_owner is for a subtransaction of a client".to_owned());
    }
    // SAFETY: sets variables of the backend; `end_acting` and the abort of the subtransaction put them back.
    #[expect(clippy::disallowed_methods, reason = "this module is the place for it")]
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        let restricted = pg_sys::SECURITY_RESTRICTED_OPERATION as c_int;
        pg_sys::SetUserIdAndSecContext(relation.owner, restricted);
        ACTING.set(Some((id, level)));
    }
    Ok(())
}

/// A subtransaction is about to be released: if it acts as an owner, its own identity and settings are put back. At an abort
/// PostgreSQL does it.
pub(crate) fn end_acting(id: u32, aborts: bool) {
    let Some((_, level)) = ACTING.get().filter(|(acting, _)| *acting == id) else { return };
    ACTING.set(None);
    if aborts {
        return;
    }
    // SAFETY: the level was opened in this subtransaction, which is still there; the outer identity is what it had.
    #[expect(clippy::disallowed_methods, reason = "this module is the place for it")]
    unsafe {
        pg_sys::AtEOXact_GUC(false, level);
        pg_sys::SetUserIdAndSecContext(pg_sys::GetOuterUserId(), 0);
    }
}

/// The transaction has ended, and with it whatever acted as an owner.
pub(crate) fn forget_acting() {
    ACTING.set(None);
}

/// Sets a setting to the end of the transaction.
pub fn set_for_transaction(name: &CStr, value: &CStr) {
    set(name, value, pg_sys::GucAction::GUC_ACTION_LOCAL);
}

/// Objects that a table's definition needs besides PostgreSQL's own, which `pg_depend` does not list: functions, types,
/// operators of its columns, constraints, defaults, indexes and statistics.
const OBJECTS_OF_USERS: &str = "SELECT 1 FROM pg_catalog.pg_depend AS d \
    WHERE d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass, \
                           'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_opclass'::pg_catalog.regclass, \
                           'pg_catalog.pg_opfamily'::pg_catalog.regclass) \
      AND (d.classid, d.objid) IN ( \
          SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, $1 \
          UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid FROM pg_catalog.pg_index AS i WHERE i.indrelid = $1 \
          UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid FROM pg_catalog.pg_statistic_ext AS s WHERE s.stxrelid = $1 \
          UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid FROM pg_catalog.pg_constraint AS k WHERE k.conrelid = $1 \
          UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, a.oid FROM pg_catalog.pg_attrdef AS a WHERE a.adrelid = $1)";

/// Whoever stores a row of the table may run functions of users.
pub fn has_code_of_users(table: Oid) -> bool {
    // What cannot be told may have some.
    read_catalogs(|client| {
        client
            .select(OBJECTS_OF_USERS, Some(1), &[table.into()])
            .map_or(true, |rows| !rows.is_empty())
    })
}

/// Runs `body` as a role, in whose name functions of users may then run: they cannot get at anybody else's rights, and the
/// settings that they leave are gone afterwards (`do_analyze_rel`, `analyze.c`).
pub fn as_restricted<T>(role: Oid, body: impl FnOnce() -> T) -> T {
    let _before = Before::leave_for(Some(role), pg_sys::SECURITY_RESTRICTED_OPERATION);
    body()
}
