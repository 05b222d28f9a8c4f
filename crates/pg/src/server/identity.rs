//! In whose name the backend acts: the role that the client has logged in as, the one that it has set, and the one whose rights
//! count at this moment.

use pgrx::pg_sys::{self, Oid};
use std::ffi::c_int;

mod raw {
    use pgrx::pg_sys::Oid;
    use std::ffi::c_int;
    unsafe extern "C-unwind" {
        /// Raises nothing: see the function below that calls it.
        pub(super) fn GetSessionUserId() -> Oid;
        /// Raises nothing: see the function below that calls it.
        pub(super) fn GetCurrentRoleId() -> Oid;
        /// Raises nothing: see the function below that calls it.
        pub(super) fn GetUserIdAndSecContext(user: *mut Oid, context: *mut c_int);
    }
}

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The session's role: that of the log-in, or of SET SESSION AUTHORIZATION.
    pub session: Oid,
    /// The role of SET ROLE; invalid without one.
    pub set: Oid,
    /// The role whose rights count now.
    pub current: Oid,
    /// It is a function's that is SECURITY DEFINER, or that of maintenance: code that runs now cannot take on another.
    pub is_fixed: bool,
    /// Besides, that code is barred from leaving anything behind in the session (`SECURITY_RESTRICTED_OPERATION`).
    pub is_restricted: bool,
}

/// Who acts now.
pub fn identity() -> Identity {
    let (mut current, mut context): (Oid, c_int) = (Oid::INVALID, 0);
    // SAFETY: read variables (`src/backend/utils/init/miscinit.c`); assertions apart, none raises an error.
    let (session, set) = unsafe {
        raw::GetUserIdAndSecContext(&raw mut current, &raw mut context);
        (raw::GetSessionUserId(), raw::GetCurrentRoleId())
    };
    let has = |flag: u32| context & flag as c_int != 0;
    let is_restricted = has(pg_sys::SECURITY_RESTRICTED_OPERATION);
    let is_fixed = is_restricted || has(pg_sys::SECURITY_LOCAL_USERID_CHANGE);
    Identity { session, set, current, is_fixed, is_restricted }
}
