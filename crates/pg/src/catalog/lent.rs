//! On a node: rights that a coordinator lends to a session for what it sends next.
//!
//! From [`begin`] to [`end`] the session acts as a role under `SECURITY_LOCAL_USERID_CHANGE`, as inside a function that is SECURITY DEFINER:
//! code of users that runs meanwhile can neither go back to the session's own role nor take on another. Both are commands of
//! the client, who is a coordinator, and are refused to functions. The proof that a coordinator asks has been looked at before.
//!
//! What the session's own role may have left in the session must not change what is executed with other rights. So the settings that
//! decide what a text means are put in place, and undone at the end; and statements that are about to be executed must have been
//! prepared by the client: only a coordinator speaks to the session so, while a function can only PREPARE.
//!
//! The abort of a (sub)transaction ends it too: PostgreSQL puts back identity and settings of its beginning.

use crate::server::identity::identity;
use crate::server::settings::FOLLOWED;
use crate::sys::error::{PgError, SqlState};
use crate::sys::node;
use pgrx::pg_sys::{self, Oid};
use shardmap::lending::Lending;
use std::cell::Cell;
use std::ffi::{CStr, CString, c_int};

/// What decides the meaning of a text that a coordinator sends, and which of its rows it concerns.
const SETTINGS: [(&CStr, &CStr); 8] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"standard_conforming_strings", c"on"),
    (c"backslash_quote", c"safe_encoding"),
    (c"array_nulls", c"on"),
    (c"transform_null_equals", c"off"),
    (c"quote_all_identifiers", c"off"),
    (c"row_security", c"on"),
    (c"gin_fuzzy_search_limit", c"0"),
];

thread_local! {
    /// The number by which coordinators name this session; 0 before anybody has asked.
    static SESSION: Cell<u64> = const { Cell::new(0) };
    /// The number of the last instruction.
    static LAST: Cell<u64> = const { Cell::new(0) };
    /// The subtransaction that acts with lent rights, and its level of settings.
    static LENT: Cell<Option<(u32, c_int)>> = const { Cell::new(None) };
}

/// The number by which coordinators name this session.
pub fn session_number() -> u64 {
    while SESSION.get() == 0 {
        let mut bytes = [0u8; 8];
        // SAFETY: fills the array (`src/port/pg_strong_random.c`).
        let is_filled = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
        assert!(is_filled, "the system has random numbers");
        SESSION.set(u64::from_ne_bytes(bytes));
    }
    SESSION.get()
}

/// An instruction for this session that has not been carried out before; it never will be again.
pub fn is_next(session: u64, number: u64) -> bool {
    let is_next = session == session_number() && number > LAST.get();
    if is_next {
        LAST.set(number);
    }
    is_next
}

/// The text that runs now is a command of the client's own, and it is this one: no function is between them.
///
/// Only the client can open the portal without a name, by its protocol. The cursors of functions have names.
pub fn is_command_of_client(text: &CStr) -> bool {
    // SAFETY: reads the backend's globals; a portal and its texts live as long as it is active.
    unsafe {
        let portal = pg_sys::ActivePortal;
        !portal.is_null()
            && !(*portal).name.is_null()
            && CStr::from_ptr((*portal).name).is_empty()
            && !(*portal).sourceText.is_null()
            && CStr::from_ptr((*portal).sourceText) == text
    }
}

/// Has the session act as the role of the instruction until [`end`].
///
/// # Errors
///
/// If the session acts for somebody already, the role does not exist, or a function has put a statement of its own in the place
/// of a prepared one.
pub fn begin(lending: &Lending) -> Result<(), PgError> {
    let Lending { role, is_restricted, statements, settings, .. } = lending;
    let refuse = |code: SqlState, message: &str| Err(PgError::new(code, message));
    if LENT.get().is_some() || identity().is_fixed {
        return refuse(
            SqlState::ACTIVE_SQL_TRANSACTION,
            "rights have been lent to this session already",
        );
    }
    if statements.iter().any(|number| is_prepared_by_function(*number)) {
        return refuse(
            SqlState::INSUFFICIENT_PRIVILEGE,
            "a prepared statement of the coordinator has been replaced",
        );
    }
    let name = node::c_text(role);
    // SAFETY: a syscache look-up of a palloced text.
    let oid = unsafe { pg_sys::get_role_oid(name, true) };
    if oid == Oid::INVALID {
        return refuse(SqlState::UNDEFINED_OBJECT, &format!("role \"{role}\" does not exist"));
    }
    let restricted = if *is_restricted { pg_sys::SECURITY_RESTRICTED_OPERATION } else { 0 };
    // SAFETY: sets variables of the backend; `end` and the abort of the (sub)transaction put them back.
    #[expect(clippy::disallowed_methods, reason = "the guard is the transaction")]
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        for (name, value) in SETTINGS {
            put(name, value);
        }
        for (name, value) in FOLLOWED.into_iter().zip(settings) {
            if let Ok(value) = CString::new(value.as_str()) {
                put(name, &value);
            }
        }
        LENT.set(Some((pg_sys::GetCurrentSubTransactionId(), level)));
        let context = pg_sys::SECURITY_LOCAL_USERID_CHANGE | restricted;
        pg_sys::SetUserIdAndSecContext(oid, context as c_int);
    }
    Ok(())
}

/// Changes a setting, if it has another value.
fn put(name: &CStr, value: &CStr) {
    // SAFETY: the name of a setting that there is; its value is copied before anything can change it.
    let has = unsafe {
        let now = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        !now.is_null() && CStr::from_ptr(now) == value
    };
    if has {
        return;
    }
    // SAFETY: zero-terminated texts; the end of the level of settings, or of the transaction, puts the setting back.
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

/// The statement of that number was made by PREPARE and not by the protocol.
fn is_prepared_by_function(number: u32) -> bool {
    let Ok(name) = CString::new(format!("s{number}")) else { return true };
    // SAFETY: looks up a hash table of the backend; the entry lives until it is dropped, which nothing does meanwhile.
    unsafe {
        let known = pg_sys::FetchPreparedStatement(name.as_ptr(), false);
        !known.is_null() && (*known).from_sql
    }
}

/// Gives the rights back.
///
/// # Errors
///
/// If there are none in this subtransaction.
pub fn end() -> Result<(), PgError> {
    // SAFETY: reads a number of the transaction.
    let here = unsafe { pg_sys::GetCurrentSubTransactionId() };
    let Some((_, level)) = LENT.get().filter(|(lent, _)| *lent == here) else {
        return Err(PgError::new(
            SqlState::ACTIVE_SQL_TRANSACTION,
            "no rights have been lent here",
        ));
    };
    LENT.set(None);
    // SAFETY: the level was opened in this subtransaction, which is still there; the outer identity is what it had.
    #[expect(clippy::disallowed_methods, reason = "the other half of `begin`")]
    unsafe {
        pg_sys::AtEOXact_GUC(false, level);
        pg_sys::SetUserIdAndSecContext(pg_sys::GetOuterUserId(), 0);
    }
    Ok(())
}

/// A (sub)transaction has been rolled back, and with it what was lent inside.
pub(crate) fn forget(subtransaction: u32) {
    LENT.set(LENT.get().filter(|(lent, _)| *lent < subtransaction));
}

/// Nothing commits with rights that are lent: a coordinator gives them back in the flight in which it was given them.
pub(crate) fn check_before_commit() -> Result<(), PgError> {
    match LENT.get() {
        None => Ok(()),
        Some(_) => Err(PgError::internal("rights that were lent have not been given back")),
    }
}
