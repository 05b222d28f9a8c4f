//! How far back snapshots can be taken: a background worker that always has a snapshot of three seconds ago.
//!
//! PostgreSQL removes row versions that no snapshot of any process needs. The worker has no database and its snapshots count for
//! all of them, as those of a standby's feedback do (`PROC_AFFECTS_ALL_HORIZONS`; `InitWalSender`, `walsender.c`). A
//! snapshot of the past is safe if the worker's is older: see [`is_held`].
//!
//! To keep what has been replaced costs those who update the same rows again and again. So the worker begins when somebody
//! reads at a time ([`want`]), and lets go when nobody has for a while, unless the server's configuration says
//! `pg_shard.read_consistency = snapshot`.

use super::{aged, shared};
use crate::catalog::table;
use crate::sys::version;
use pgrx::bgworkers::BackgroundWorkerBuilder;
use pgrx::pg_sys::{self, Datum};
use std::collections::VecDeque;
use std::ffi::{c_int, c_uint};
use std::time::{Duration, Instant};

/// Time between two snapshots.
const TICK: i64 = 250;

/// How many are kept: the oldest is three seconds old and a little more.
const KEPT: usize = 13;

/// The worker lets go when nobody has read at a time for so long.
const IDLE: Duration = Duration::from_secs(60);

/// How long a reader waits at most for the worker to begin.
const PATIENCE: Duration = Duration::from_secs(1);

mod raw {
    //! Not among pgrx' bindings, signal handlers, and what raises nothing.
    use pgrx::pg_sys;
    use std::ffi::{c_int, c_uint};
    unsafe extern "C-unwind" {
        /// Raises nothing while fewer than 200 are held (`src/backend/storage/lmgr/lwlock.c`).
        pub(super) fn LWLockAcquire(lock: *mut pg_sys::LWLock, mode: c_uint) -> bool;
        /// Raises nothing: the lock is held.
        pub(super) fn LWLockRelease(lock: *mut pg_sys::LWLock);
        /// Raises nothing: a handler of signals, of which only the address is taken.
        pub(super) fn SignalHandlerForConfigReload(signal: c_int);
        /// Raises nothing: a handler of signals, of which only the address is taken.
        pub(super) fn SignalHandlerForShutdownRequest(signal: c_int);
    }
}

/// `ProcArrayLock` (`src/backend/storage/lmgr/lwlocknames.txt`).
const PROC_ARRAY_LOCK: usize = 4;

/// Runs `body` while the processes' transactions and snapshots do not change in what others conclude from them.
pub(super) fn with_processes<T>(mode: c_uint, body: impl FnOnce() -> T) -> T {
    // SAFETY: one of PostgreSQL's own locks, which are there as long as the process.
    unsafe {
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(PROC_ARRAY_LOCK)).lock;
        raw::LWLockAcquire(lock, mode);
        let value = body();
        raw::LWLockRelease(lock);
        value
    }
}

/// One transaction was begun before the other (`TransactionIdPrecedes`, for normal transactions).
pub(super) fn precedes(one: pg_sys::TransactionId, other: pg_sys::TransactionId) -> bool {
    one.into_inner().wrapping_sub(other.into_inner()).cast_signed() < 0
}

/// The worker's oldest snapshot is at least as old as one with this `xmin`. True only as long as [`with_processes`] keeps the
/// worker from letting go of it.
pub(super) fn is_held(xmin: pg_sys::TransactionId) -> bool {
    holder().is_some_and(|process| {
        // SAFETY: see `holder`.
        let held = unsafe { (&raw const (*process).xmin).read_volatile() };
        held != pg_sys::InvalidTransactionId && !precedes(xmin, held)
    })
}

/// Somebody reads at a time: from now on the worker keeps what snapshots of the past see. Waits until it does.
pub(super) fn want() {
    shared::note_read();
    let since = Instant::now();
    while holder().is_some() && !is_holding() && since.elapsed() < PATIENCE {
        wake();
        aged::nap(1);
    }
}

fn is_holding() -> bool {
    holder().is_some_and(|process| {
        // SAFETY: see `holder`.
        unsafe { (&raw const (*process).xmin).read_volatile() != pg_sys::InvalidTransactionId }
    })
}

fn wake() {
    if let Some(process) = holder() {
        // SAFETY: see `holder`; a latch that is set in vain does no harm to whoever has it now.
        unsafe { pg_sys::SetLatch(&raw mut (*process).procLatch) };
    }
}

/// The worker's place in PostgreSQL's array of processes, which is there as long as the server.
fn holder() -> Option<*mut pg_sys::PGPROC> {
    let (place, pid) = shared::holder()?;
    // SAFETY: the worker has told its place; whoever has it now is recognised by the number.
    unsafe {
        let process = (*pg_sys::ProcGlobal).allProcs.add(usize::try_from(place).ok()?);
        ((*process).pid == pid).then_some(process)
    }
}

/// Registers the worker, if the library is being preloaded; once, when it is loaded.
pub(super) fn register() {
    // SAFETY: a global of the postmaster.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        BackgroundWorkerBuilder::new("pg_shard horizon")
            .set_library("pg_shard")
            .set_function("pg_shard_horizon")
            .enable_spi_access()
            .set_restart_time(Some(Duration::from_secs(1)))
            .load();
    }
}

/// The entry point of the worker.
///
/// # Safety
///
/// Called by PostgreSQL in a fresh background worker.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_horizon(_argument: Datum) {
    // SAFETY: a worker starts with signals blocked; the handlers are PostgreSQL's own. Its one transaction lasts as long as it does, and
    // takes no snapshot but those that are registered here.
    unsafe {
        version::handle_signal(libc::SIGHUP, Some(raw::SignalHandlerForConfigReload));
        version::handle_signal(libc::SIGTERM, Some(raw::SignalHandlerForShutdownRequest));
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
        with_processes(pg_sys::LWLockMode::LW_EXCLUSIVE, || {
            (*pg_sys::MyProc).statusFlags |= pg_sys::PROC_AFFECTS_ALL_HORIZONS as u8;
            let place = usize::try_from((*pg_sys::MyProc).pgxactoff).unwrap_or(0);
            *(*pg_sys::ProcGlobal).statusFlags.add(place) = (*pg_sys::MyProc).statusFlags;
        });
        pg_sys::StartTransactionCommand();
        // It is no transaction that anybody has to look after.
        pg_sys::pgstat_report_xact_timestamp(0);
        let mut latest = pg_sys::SnapshotData::default();
        let mut kept: VecDeque<pg_sys::Snapshot> = VecDeque::new();
        shared::set_holder(version::process_number(), pg_sys::MyProcPid);
        loop {
            let is_wanted = is_configured() || shared::was_read_within(IDLE);
            if is_wanted {
                let snapshot = pg_sys::GetSnapshotData(&raw mut latest);
                kept.push_back(pg_sys::RegisterSnapshot(snapshot));
            }
            let wanted = if is_wanted { KEPT } else { 0 };
            while kept.len() > wanted
                && let Some(oldest) = kept.pop_front()
            {
                let_go(oldest);
            }
            rest();
        }
    }
}

/// The server's own configuration asks for reads at a time.
fn is_configured() -> bool {
    table::setting(c"pg_shard.read_consistency") == "snapshot"
}

/// Lets go of a snapshot, while nobody relies on it.
unsafe fn let_go(snapshot: pg_sys::Snapshot) {
    // SAFETY: one that was registered. What start-up has left of catalog snapshots would keep the horizon for ever.
    unsafe {
        pg_sys::InvalidateCatalogSnapshot();
        with_processes(pg_sys::LWLockMode::LW_EXCLUSIVE, || pg_sys::UnregisterSnapshot(snapshot));
    }
}

/// Waits for a signal, or until the next snapshot is due.
fn rest() {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: this process's own latch and flags. An exit code other than zero has the postmaster start us again, unless it ends
    // itself.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as c_int, TICK, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
        if (&raw const pg_sys::ShutdownRequestPending).read_volatile() != 0 {
            pg_sys::proc_exit(1);
        }
        if (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0 {
            (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
    pgrx::check_for_interrupts!();
}
