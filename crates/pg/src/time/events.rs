//! What transactions report: that they are about to become visible, that they are, that they are prepared.
//!
//! The order matters. A transaction with changes gets its time before it becomes visible, as the last thing before the local
//! commit, and is in flight until it is visible to all. Of a prepared one the time is noted once COMMIT PREPARED has made it
//! visible; until then whoever may have to see it waits.
//!
//! Whoever commits on several servers tells the time in a comment behind the command, which needs no message of its own:
//! `COMMIT /* pgs_at_N */` does not commit before N, and `COMMIT PREPARED '...' /* pgs_at_N */` ends what has committed elsewhere at N
//! (`pgs_by_N`: at N or before, as whoever finds it after a crash knows). In sessions that want
//! to hear of it (`pg_shard.tell_commits`) the server reports when a transaction has committed, or not before when one that was prepared will,
//! as the parameter `pg_shard.commit_time`.

use super::{aged, kept, shared};
use crate::sys::error::{PgError, SqlState};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::io::Write;
use timeline::{Gid, Time};

/// Prepared transactions of this name are parts of larger ones: a coordinator decides them, soon, and with one time for all.
const SHARED_GID: &[u8] = b"pg_shard";

thread_local! {
    /// The transaction must not commit before.
    static LEAST: Cell<Time> = const { Cell::new(Time::ZERO) };
    /// The transaction in flight, or that is being prepared; 0 for none.
    static REPORTED: Cell<u32> = const { Cell::new(0) };
    /// Its time.
    static TIME: Cell<Time> = const { Cell::new(Time::ZERO) };
    /// The name that PREPARE TRANSACTION gives.
    static PREPARING: Cell<Option<Gid>> = const { Cell::new(None) };
    /// What was agreed about the transaction that COMMIT PREPARED makes visible next, and whether that is its very time.
    static AGREED: Cell<Option<(Time, bool)>> = const { Cell::new(None) };
    /// When the session's last transaction with changes has committed.
    static LAST: Cell<Option<Time>> = const { Cell::new(None) };
}

mod raw {
    //! Called without pgrx' guard, since they raise nothing, and what is not among its bindings.
    use pgrx::pg_sys::{self, TransactionId};
    use std::ffi::{c_char, c_int, c_void};
    /// `src/include/libpq/libpq.h`.
    #[repr(C)]
    pub(super) struct PqCommMethods {
        comm_reset: *mut c_void,
        flush: *mut c_void,
        flush_if_writable: *mut c_void,
        is_send_pending: *mut c_void,
        putmessage: *mut c_void,
        pub(super) putmessage_noblock: unsafe extern "C-unwind" fn(c_char, *const c_char, usize),
    }
    unsafe extern "C-unwind" {
        #[link_name = "PqCommMethods"]
        pub(super) static METHODS: *const PqCommMethods;
        pub(super) static whereToSendOutput: pg_sys::CommandDest::Type;
        /// Raises nothing: reads variables (`src/backend/access/transam/xact.c`).
        pub(super) fn GetTopTransactionIdIfAny() -> TransactionId;
        /// Raises nothing: reads variables (`src/backend/access/transam/xact.c`).
        pub(super) fn xactGetCommittedChildren(children: *mut *mut TransactionId) -> c_int;
    }
}

fn has_children() -> bool {
    let mut children: *mut pg_sys::TransactionId = std::ptr::null_mut();
    // SAFETY: tells what the backend knows.
    unsafe { raw::xactGetCommittedChildren(&raw mut children) > 0 }
}

/// The local transaction is about to commit, and nothing else will keep it from that.
pub(crate) fn before_commit() -> Result<(), PgError> {
    kept::give_up();
    // SAFETY: reads the backend's state.
    let xid = unsafe { raw::GetTopTransactionIdIfAny() }.into_inner();
    if xid == 0 || !shared::is_there() {
        return Ok(());
    }
    let (has_children, least) = (has_children(), LEAST.get());
    let begun = shared::with(|timeline| {
        timeline.begin_commit(xid, has_children, least, shared::own_clock())
    });
    let Some(time) = begun.flatten() else { return Err(no_room()) };
    REPORTED.set(xid);
    TIME.set(time);
    Ok(())
}

fn no_room() -> PgError {
    PgError::new(SqlState::INSUFFICIENT_RESOURCES, "too many transactions commit at once")
}

/// It has committed, and is visible.
pub(crate) fn after_commit() {
    LEAST.set(Time::ZERO);
    let xid = REPORTED.replace(0);
    if xid != 0 {
        let time = shared::with(|timeline| timeline.end_commit(xid, true)).flatten();
        note_last(time.unwrap_or_else(|| TIME.get()));
    }
}

/// It has been rolled back.
pub(crate) fn after_abort() {
    kept::forget();
    LEAST.set(Time::ZERO);
    AGREED.set(None);
    PREPARING.set(None);
    let xid = REPORTED.replace(0);
    if xid != 0 {
        shared::with(|timeline| {
            timeline.end_commit(xid, false);
            timeline.forget(xid);
        });
    }
}

/// The coordinator of a prepared transaction of this name, if it is part of a larger one; 0 if it is not known. The crate
/// `commit` makes the names.
pub(super) fn coordinator_of(gid: &[u8]) -> Option<u64> {
    let rest = gid.strip_prefix(SHARED_GID)?;
    let field = std::str::from_utf8(rest).ok().and_then(|rest| rest.split(':').nth(5));
    Some(field.and_then(|field| field.parse().ok()).unwrap_or(0))
}

/// It is about to be prepared, and nothing of ours will keep it from that.
pub(crate) fn before_prepare() -> Result<(), PgError> {
    kept::give_up();
    let Some(gid) = PREPARING.take().filter(|_| shared::is_there()) else { return Ok(()) };
    // SAFETY: PostgreSQL does the same in a moment.
    let xid = unsafe { pg_sys::GetCurrentTransactionId() }.into_inner();
    let has_children = has_children();
    let coordinator = coordinator_of(gid.name());
    let begun = shared::with(|timeline| {
        timeline.begin_prepare(xid, has_children, gid, coordinator, shared::own_clock())
    });
    let Some(time) = begun.flatten() else { return Err(no_room()) };
    REPORTED.set(xid);
    TIME.set(time);
    Ok(())
}

/// It is prepared.
pub(crate) fn after_prepare() {
    LEAST.set(Time::ZERO);
    if REPORTED.replace(0) != 0 && super::tells_commits() {
        // It does not commit before.
        tell(TIME.get());
    }
}

/// What is to be noted when a statement about a prepared transaction has been executed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Finish {
    xid: u32,
    commits: bool,
    begun: Time,
    agreed: Option<(Time, bool)>,
}

/// A utility statement is about to be executed.
///
/// # Safety
///
/// `statement` is live, and so is its text.
pub(crate) unsafe fn before_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
) -> Result<Option<Finish>, PgError> {
    if !shared::is_there() {
        return Ok(None);
    }
    // SAFETY: the caller vouches; the tree's tag says what it is.
    unsafe {
        let tree = (*statement).utilityStmt;
        if tree.is_null() {
            return Ok(None);
        }
        if (*tree).type_ == pg_sys::NodeTag::T_VariableSetStmt {
            tell_clock_to_coordinator(tree.cast());
        }
        if (*tree).type_ != pg_sys::NodeTag::T_TransactionStmt {
            return Ok(None);
        }
        let tree: *mut pg_sys::TransactionStmt = tree.cast();
        if !text.is_null()
            && let Some((time, is_exact)) = aged::time_in(CStr::from_ptr(text).to_bytes())
        {
            match (*tree).kind {
                pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT => {
                    commit_at(time)?;
                }
                pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED => {
                    commit_prepared_at(time, is_exact);
                }
                _ => {}
            }
        }
        if (*tree).gid.is_null() {
            return Ok(None);
        }
        let Some(gid) = Gid::new(CStr::from_ptr((*tree).gid).to_bytes()) else { return Ok(None) };
        use pg_sys::TransactionStmtKind::{
            TRANS_STMT_COMMIT_PREPARED, TRANS_STMT_PREPARE, TRANS_STMT_ROLLBACK_PREPARED,
        };
        match (*tree).kind {
            TRANS_STMT_PREPARE => {
                PREPARING.set(Some(gid));
                Ok(None)
            }
            TRANS_STMT_COMMIT_PREPARED => begin_finish(gid, true),
            TRANS_STMT_ROLLBACK_PREPARED => begin_finish(gid, false),
            _ => Ok(None),
        }
    }
}

/// A session that wants to hear of commits is told the clock first: whatever has been acknowledged before was not later, also if nobody
/// remembers it.
unsafe fn tell_clock_to_coordinator(tree: *mut pg_sys::VariableSetStmt) {
    // SAFETY: the caller vouches for the statement.
    let is_meant =
        unsafe { !(*tree).name.is_null() && CStr::from_ptr((*tree).name) == super::TELL_COMMITS };
    if is_meant && let Some(now) = super::now() {
        tell(now);
    }
}

fn begin_finish(gid: Gid, commits: bool) -> Result<Option<Finish>, PgError> {
    let agreed = AGREED.take();
    if let Some((time, _)) = agreed {
        aged::hear(time)?;
    }
    aged::learn_prepared()?;
    Ok(shared::with(|timeline| {
        let xid = timeline.prepared(&gid)?;
        if let Some((time, true)) = agreed {
            timeline.agree(xid, time);
        }
        let begun = timeline.begin_prepared(shared::own_clock());
        Some(Finish { xid, commits, begun, agreed })
    })
    .flatten())
}

/// It has been executed.
pub(crate) fn after_utility(finish: Finish) {
    let Finish { xid, commits, begun, agreed } = finish;
    let told = shared::with(|timeline| {
        if commits {
            let is_exact = agreed.is_some_and(|(_, is_exact)| is_exact);
            timeline.end_prepared(xid, agreed.map(|(time, _)| time), is_exact, begun);
        } else {
            timeline.forget(xid);
        }
        timeline.clock()
    });
    if let Some(time) = told.filter(|_| commits) {
        note_last(time);
    }
}

/// The local transaction must not commit before `time`; tells the clock, which is not before that either.
pub fn commit_at(time: Time) -> Result<Option<Time>, PgError> {
    aged::hear(time)?;
    LEAST.set(LEAST.get().max(time));
    Ok(super::now())
}

/// The transaction that this session's next COMMIT PREPARED makes visible has committed on other servers at `time`, or, if that is
/// not exact, not after it.
pub fn commit_prepared_at(time: Time, is_exact: bool) {
    AGREED.set(Some((time, is_exact)));
}

/// When the session's last transaction with changes has committed.
pub fn last_commit() -> Option<Time> {
    LAST.get()
}

/// The name under which a server tells a coordinator's session when a transaction has committed.
const PARAMETER: &CStr = c"pg_shard.commit_time";

fn note_last(time: Time) {
    LAST.set(Some(time));
    if super::tells_commits() {
        tell(time);
    }
}

/// Tells the client, with a message that is sent with what it gets next.
fn tell(time: Time) {
    let mut message = [0_u8; 64];
    let name = PARAMETER.to_bytes_with_nul();
    message[..name.len()].copy_from_slice(name);
    let mut rest = &mut message[name.len()..];
    if write!(rest, "{}", time.number()).is_err() {
        return;
    }
    // The zero behind the number is there already.
    let length = 64 - rest.len() + 1;
    // SAFETY: PostgreSQL's table of functions; this one copies the bytes into a buffer, which it makes larger if need be, and does
    // not wait for the client.
    unsafe {
        if raw::whereToSendOutput == pg_sys::CommandDest::DestRemote {
            let put = (*raw::METHODS).putmessage_noblock;
            put(b'S' as c_char, message.as_ptr().cast(), length);
        }
    }
}
