//! Snapshots of a moment that has passed.
//!
//! A snapshot of PostgreSQL's lists the transactions that were in progress. To make one of time T, what has committed later is
//! added to the list: for whoever reads by it these transactions are still in progress, also when it comes to conflicts of
//! writers. Whole statements read so ([`swap`]), or transactions from their first statement on ([`import`]). The rules that
//! make this safe stand in the crate `timeline`; that what hidden transactions have replaced is still there is seen to by
//! [`super::horizon`] and by `install`.
//!
//! A statement says by the name of its portal at what time it reads: `pgs_at_` and the number. The coordinator so asks without
//! another message. Behind another underscore it may give the number by which it is known: it promises that whatever is in doubt of
//! its transactions commits later. Anybody may do so: no name shows what was not committed, nor harms others.

use super::{Reading, horizon, kept, refused, shared};
use crate::sys::error::{PgError, SqlState};
use pgrx::pg_sys::{self, TransactionId};
use pgrx::prelude::PgTryBuilder;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int};
use std::time::{Duration, Instant};
use timeline::{Answer, Gid, Hidden, Refusal, Time};

/// How long the end of a prepared transaction is waited for to be noted, once it is visible.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a reader waits for everything together.
const LONGEST: Duration = Duration::from_secs(10);

thread_local! {
    static HIDDEN: RefCell<Vec<Hidden>> = const { RefCell::new(Vec::new()) };
}

/// The snapshot that is made; PostgreSQL allocates its arrays once.
struct Own(std::cell::UnsafeCell<pg_sys::SnapshotData>);

thread_local! {
    static OWN: Own = Own(std::cell::UnsafeCell::new(pg_sys::SnapshotData::default()));
}

mod raw {
    //! Called without pgrx' guard: what it may raise passes over frames that hold nothing to drop.
    use pgrx::pg_sys::TransactionId;
    unsafe extern "C-unwind" {
        /// Raises nothing, unless memory runs out at its first call (`src/backend/storage/ipc/procarray.c`).
        pub(super) fn TransactionIdIsInProgress(xid: TransactionId) -> bool;
    }
}

fn is_in_progress(xid: u32) -> bool {
    // SAFETY: looks at the processes.
    unsafe { raw::TransactionIdIsInProgress(TransactionId::from(xid)) }
}

fn reading_of(name: &[u8]) -> Option<Reading> {
    let rest = std::str::from_utf8(name.strip_prefix(super::NAME.as_bytes())?).ok()?;
    let (number, but) = match rest.split_once('_') {
        Some((number, but)) => (number, Some(but.parse().ok()?)),
        None => (rest, None),
    };
    Some(Reading { at: Time::from_number(number.parse().ok()?)?, but, is_unclean: false })
}

fn number_of(digits: &[u8]) -> Option<Time> {
    Time::from_number(std::str::from_utf8(digits).ok()?.parse().ok()?)
}

/// The time that a comment at the end of a command's text tells, and whether it is exact.
pub(super) fn time_in(text: &[u8]) -> Option<(Time, bool)> {
    let inner = text.strip_suffix(b" */")?;
    let start = inner.len().saturating_sub(40);
    let at = inner[start..].windows(3).rposition(|three| three == b"/* ")?;
    let name = &inner[start + at + 3..];
    let by = || number_of(name.strip_prefix(b"pgs_by_")?);
    reading_of(name).map(|reading| (reading.at, true)).or_else(|| by().map(|time| (time, false)))
}

/// Has a statement that is about to be executed read at the time that its portal's name says.
///
/// # Safety
///
/// `query` is what the executor's start is given.
pub(crate) unsafe fn swap(query: *mut pg_sys::QueryDesc) -> Result<(), PgError> {
    // SAFETY: the caller vouches for the query; its snapshot is registered with the current owner (`CreateQueryDesc`,
    // `pquery.c`), and will be given up there.
    unsafe {
        let Some(reading) = reading_of_portal(query) else { return Ok(()) };
        if pg_sys::XactIsoLevel as u32 > pg_sys::XACT_READ_COMMITTED || !shared::is_there() {
            return Ok(());
        }
        let before = (*query).snapshot;
        let kept = kept::of(reading.at, (*before).curcid);
        (*query).snapshot = match kept {
            Some(snapshot) => snapshot,
            None => {
                let aged = take(reading)?;
                (*aged).curcid = (*before).curcid;
                kept::keep(reading.at, aged);
                pg_sys::RegisterSnapshot(aged)
            }
        };
        pg_sys::UnregisterSnapshot(before);
    }
    Ok(())
}

/// The time of a portal's own statement; those of functions that it calls have none.
unsafe fn reading_of_portal(query: *mut pg_sys::QueryDesc) -> Option<Reading> {
    // SAFETY: reads the backend's globals; the portal and its name are live.
    unsafe {
        let portal = pg_sys::ActivePortal;
        if portal.is_null()
            || (*portal).name.is_null()
            || *(*portal).name != super::NAME.as_bytes()[0] as c_char
        {
            return None;
        }
        let reading = reading_of(CStr::from_ptr((*portal).name).to_bytes())?;
        let is_its_own = pg_sys::list_member_ptr((*portal).stmts, (*query).plannedstmt.cast());
        is_its_own.then_some(reading)
    }
}

/// `SET TRANSACTION SNAPSHOT 'pgs_at_...'`: true if it was that, and has been done.
///
/// # Safety
///
/// `statement` is live.
pub(crate) unsafe fn import(statement: *mut pg_sys::PlannedStmt) -> Result<bool, PgError> {
    // SAFETY: the caller vouches; the trees' tags say what they are (`ExecSetVariableStmt`, `guc.c`).
    unsafe {
        let tree = (*statement).utilityStmt;
        if tree.is_null() || (*tree).type_ != pg_sys::NodeTag::T_VariableSetStmt {
            return Ok(false);
        }
        let tree: *mut pg_sys::VariableSetStmt = tree.cast();
        if (*tree).kind != pg_sys::VariableSetKind::VAR_SET_MULTI
            || (*tree).is_local
            || CStr::from_ptr((*tree).name) != c"TRANSACTION SNAPSHOT"
        {
            return Ok(false);
        }
        let name: *mut pg_sys::A_Const = (*(*(*tree).args).elements).ptr_value.cast();
        let text = CStr::from_ptr((*name).val.sval.sval);
        let Some(reading) = reading_of(text.to_bytes()) else { return Ok(false) };
        check_transaction()?;
        let aged = take(reading)?;
        // On the stack it keeps what it needs, while PostgreSQL makes it the transaction's.
        pg_sys::PushActiveSnapshot(aged);
        pg_sys::RestoreTransactionSnapshot(aged, pg_sys::MyProc.cast());
        pg_sys::PopActiveSnapshot();
    }
    Ok(true)
}

/// The transaction can have a snapshot of its own, and has none.
fn check_transaction() -> Result<(), PgError> {
    // SAFETY: reads the backend's state.
    let (level, has_begun) = unsafe {
        let has_begun = pg_sys::FirstSnapshotSet
            || pg_sys::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId
            || pg_sys::GetCurrentTransactionNestLevel() > 1;
        (pg_sys::XactIsoLevel as u32, has_begun)
    };
    if has_begun {
        return Err(PgError::new(
            SqlState::ACTIVE_SQL_TRANSACTION,
            "SET TRANSACTION SNAPSHOT must be called before any query",
        ));
    }
    match level {
        pg_sys::XACT_REPEATABLE_READ => Ok(()),
        pg_sys::XACT_SERIALIZABLE => Err(PgError::unsupported(
            "cannot read at a given time in a SERIALIZABLE transaction",
            "Use REPEATABLE READ.",
        )),
        _ => Err(PgError::unsupported(
            "a snapshot-importing transaction must have isolation level SERIALIZABLE or REPEATABLE READ",
            "Use REPEATABLE READ.",
        )),
    }
}

/// Waits a little, and serves interrupts.
pub(super) fn nap(milliseconds: i64) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: this process's own latch.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as c_int,
            milliseconds,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

/// The clock takes over a time; waits if it is ahead of this server's.
pub(super) fn hear(time: Time) -> Result<(), PgError> {
    loop {
        match shared::with(|timeline| timeline.hear(time, shared::own_clock())) {
            None | Some(Ok(())) => return Ok(()),
            Some(Err(Answer::Refused(_))) => return Err(too_far()),
            Some(Err(_)) => nap(5),
        }
    }
}

fn too_far() -> PgError {
    refused("The time lies more than a minute ahead of this server's clock.")
}

/// A snapshot of time `at`, valid until the next is made.
fn take(reading: Reading) -> Result<pg_sys::Snapshot, PgError> {
    let at = reading.at;
    horizon::want();
    wait_for(reading)?;
    // SAFETY: PostgreSQL fills the snapshot, which lives as long as the backend; nobody else uses it.
    let snapshot = unsafe { pg_sys::GetSnapshotData(OWN.with(|own| own.0.get())) };
    HIDDEN.with_borrow_mut(|hidden| {
        hidden.clear();
        let outcome = shared::with(|timeline| timeline.hidden(at, &mut |it| hidden.push(it)));
        match outcome {
            Some(Ok(())) => {}
            Some(Err(refusal)) => return Err(error_of(refusal)),
            None => return Err(refused("The server does not keep the time.")),
        }
        // SAFETY: as above.
        unsafe { age(&mut *snapshot, hidden) }
    })?;
    Ok(snapshot)
}

fn error_of(refusal: Refusal) -> PgError {
    match refusal {
        Refusal::TooOld => {
            refused("The time is too old: what was committed since is not known any more.")
        }
        Refusal::TooFar => too_far(),
        Refusal::Unsure => {
            refused("Whether a transaction had been committed by then is not known.")
        }
    }
}

/// Waits until a snapshot can be made one of that time; not for ever.
fn wait_for(reading: Reading) -> Result<(), PgError> {
    learn_prepared()?;
    let mut since = None;
    let mut noting: Option<(u32, Instant)> = None;
    loop {
        let answer = shared::with(|timeline| {
            let (at, own) = (reading.at, shared::own_clock());
            timeline.may_read(at, reading.but, own, &mut is_in_progress)
        });
        if matches!(answer, Some(Answer::Ready) | None) {
            return Ok(());
        }
        let waited = since.get_or_insert_with(Instant::now).elapsed();
        let left = LONGEST.saturating_sub(waited);
        match answer {
            Some(Answer::Wait(xid)) => wait_for_end(xid, left)?,
            Some(Answer::WaitForNote(xid)) => {
                let since = match noting {
                    Some((known, since)) if known == xid => since,
                    _ => Instant::now(),
                };
                noting = Some((xid, since));
                if since.elapsed() > PATIENCE {
                    note_for(xid);
                }
                nap(1);
            }
            Some(Answer::Refused(refusal)) => return Err(error_of(refusal)),
            _ if left.is_zero() => return Err(too_far()),
            _ => nap(5),
        }
    }
}

/// Waits as for a row's writer: others see for whom, and deadlocks are found.
fn wait_for_end(xid: u32, limit: Duration) -> Result<(), PgError> {
    let limit = c_int::try_from(limit.as_millis()).unwrap_or(c_int::MAX).max(1);
    let name = shared::with(|timeline| timeline.name_of(xid)).flatten();
    let name = name.map_or_else(String::new, |it| String::from_utf8_lossy(it.name()).into_owned());
    // SAFETY: reads a variable of the backend's.
    let own = unsafe { pg_sys::LockTimeout };
    let is_ours = own == 0 || own > limit;
    // SAFETY: writes it; it is put back whatever happens.
    let set = |limit: c_int| unsafe { pg_sys::LockTimeout = limit };
    if is_ours {
        set(limit);
    }
    // What is raised is raised on: the wait is cleaned up where the statement ends.
    PgTryBuilder::new(|| {
        // SAFETY: waits for the transaction's lock on its own number.
        unsafe {
            pg_sys::XactLockTableWait(
                TransactionId::from(xid),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                pg_sys::XLTW_Oper::XLTW_None,
            );
        }
        Ok(())
    })
    .catch_when(pgrx::PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, |cause| match is_ours {
        true => Err(undecided(&name)),
        false => cause.rethrow(),
    })
    .finally(|| set(own))
    .execute()
}

fn undecided(name: &str) -> PgError {
    let seconds = LONGEST.as_secs();
    PgError::new(
        SqlState::LOCK_NOT_AVAILABLE,
        format!("prepared transaction \"{name}\" has not been ended for {seconds} s"),
    )
    .detail("What it has written may belong to the moment that is read.")
    .hint("It is ended as soon as the node that has decided it can be reached; pgs_catalog.in_doubt on the coordinator shows it.")
}

/// Whoever has ended a prepared transaction has not noted it: an error must have come between.
fn note_for(xid: u32) {
    // SAFETY: looks at what is stored of a transaction that has ended.
    let has_committed = unsafe { pg_sys::TransactionIdDidCommit(TransactionId::from(xid)) };
    shared::with(|timeline| {
        let begun = timeline.begin_prepared(shared::own_clock());
        match has_committed {
            true => timeline.end_prepared(xid, None, false, begun),
            false => timeline.forget(xid),
        }
    });
}

/// Adds to a snapshot's list what it must not show.
unsafe fn age(snapshot: &mut pg_sys::SnapshotData, hidden: &[Hidden]) -> Result<(), PgError> {
    if snapshot.takenDuringRecovery {
        return Err(refused("The server is a standby."));
    }
    // SAFETY: the arrays are PostgreSQL's, as large as it says, and filled so far (`GetSnapshotData`, `procarray.c`).
    unsafe {
        let listed = snapshot.xcnt as usize;
        let is_shown = |it: &&Hidden| {
            let xid = TransactionId::from(it.xid);
            let list = std::slice::from_raw_parts(snapshot.xip, listed);
            horizon::precedes(xid, snapshot.xmax) && !list.contains(&xid)
        };
        let mut shown = hidden.iter().filter(is_shown).peekable();
        if shown.peek().is_none() {
            return Ok(());
        }
        let shown: Vec<Hidden> = shown.copied().collect();
        // Which subtransactions a hidden transaction has is looked up, as it is for one with too many of them to be listed.
        let looks_up = snapshot.suboverflowed || shown.iter().any(|it| it.has_children);
        let room = match looks_up {
            true => pg_sys::GetMaxSnapshotXidCount() as usize - listed,
            false => pg_sys::GetMaxSnapshotSubxidCount() as usize - snapshot.subxcnt as usize,
        };
        if shown.len() > room {
            return Err(refused("Too many transactions have committed since."));
        }
        // The arrays are not what PostgreSQL has filled in: it must not reuse them.
        snapshot.snapXactCompletionCount = 0;
        snapshot.suboverflowed = looks_up;
        for it in shown {
            let xid = TransactionId::from(it.xid);
            if looks_up {
                *snapshot.xip.add(snapshot.xcnt as usize) = xid;
                snapshot.xcnt += 1;
            } else {
                *snapshot.subxip.add(snapshot.subxcnt as usize) = xid;
                snapshot.subxcnt += 1;
            }
            if horizon::precedes(xid, snapshot.xmin) {
                snapshot.xmin = xid;
            }
        }
    }
    install(snapshot.xmin)
}

/// Has this process need what a snapshot with that `xmin` needs. The horizon must not go back by it: somebody holds it already.
fn install(xmin: TransactionId) -> Result<(), PgError> {
    // SAFETY: what ProcArrayInstallRestoredXmin does (`procarray.c`), with the horizon's worker as the process that it is
    // inherited from. Whoever computes a horizon has the lock too, and the worker lets go under the exclusive one.
    let is_safe = horizon::with_processes(pg_sys::LWLockMode::LW_SHARED, || unsafe {
        let process = pg_sys::MyProc;
        let mine = (*process).xmin;
        let holds = mine != pg_sys::InvalidTransactionId && !horizon::precedes(xmin, mine);
        if !holds {
            if !horizon::is_held(xmin) {
                return false;
            }
            (&raw mut (*process).xmin).write_volatile(xmin);
        }
        if horizon::precedes(xmin, pg_sys::TransactionXmin) {
            pg_sys::TransactionXmin = xmin;
        }
        true
    });
    match is_safe {
        true => Ok(()),
        false => Err(refused("The time is too old: rows of then may have been removed.")),
    }
}

/// Learns which transactions were prepared before the server was started, once.
pub(super) fn learn_prepared() -> Result<(), PgError> {
    if shared::with(|timeline| timeline.knows_prepared()) != Some(false) {
        return Ok(());
    }
    let found: Vec<(u32, Gid, Option<u64>)> = prepared()
        .into_iter()
        .filter_map(|(xid, gid)| Some((xid, Gid::new(&gid)?, super::events::coordinator_of(&gid))))
        .collect();
    shared::with(|timeline| timeline.tell_prepared(found.iter().copied()));
    Ok(())
}

/// The prepared transactions, with their names. PostgreSQL's function is called as it is, without SQL: no snapshot must be
/// taken for that.
fn prepared() -> Vec<(u32, Vec<u8>)> {
    let mut found = Vec::new();
    // SAFETY: a set-returning function that gives one row a call, called as the executor would: with a context for what it keeps, and
    // until it says that it is done (`pg_prepared_xact`, `twophase.c`).
    unsafe {
        let mut function = pg_sys::FmgrInfo::default();
        pg_sys::fmgr_info(pg_sys::Oid::from(pg_sys::F_PG_PREPARED_XACT), &raw mut function);
        let context = pg_sys::CreateStandaloneExprContext();
        let mut result = pg_sys::ReturnSetInfo {
            type_: pg_sys::NodeTag::T_ReturnSetInfo,
            econtext: context,
            allowedModes: pg_sys::SetFunctionReturnMode::SFRM_ValuePerCall as c_int,
            ..pg_sys::ReturnSetInfo::default()
        };
        let mut call = pg_sys::FunctionCallInfoBaseData {
            flinfo: &raw mut function,
            resultinfo: (&raw mut result).cast(),
            ..pg_sys::FunctionCallInfoBaseData::default()
        };
        loop {
            call.isnull = false;
            result.isDone = pg_sys::ExprDoneCond::ExprSingleResult;
            let row = pg_sys::pg_prepared_xact(&raw mut call);
            if result.isDone != pg_sys::ExprDoneCond::ExprMultipleResult {
                break;
            }
            let header: pg_sys::HeapTupleHeader = row.cast_mut_ptr();
            let mut is_null = false;
            let xid = pg_sys::GetAttributeByNum(header, 1, &raw mut is_null);
            let gid = pg_sys::GetAttributeByNum(header, 2, &raw mut is_null);
            let gid = pg_sys::text_to_cstring(gid.cast_mut_ptr());
            found.push((xid.value() as u32, CStr::from_ptr(gid).to_bytes().to_vec()));
        }
        pg_sys::FreeExprContext(context, true);
    }
    found
}
