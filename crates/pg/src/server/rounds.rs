//! Rounds through the databases: a background worker that rests, looks which databases have changed, and sends a second one
//! to each of these.
//!
//! The first is registered when the library is preloaded, sees shared catalogs only and is in nobody's way; a standby starts it when
//! it is promoted. The second, the visitor, lives as long as its visit. PostgreSQL takes it for an autovacuum worker: whoever waits for a lock
//! that it holds for `deadlock_timeout` has it cancelled (`ProcSleep`, `proc.c`), and DROP DATABASE ends it
//! (`CountOtherDBBackends`, `procarray.c`).

use crate::catalog::table::{self, Search};
use crate::server::activity;
use crate::sys::error::{PgError, caught};
use crate::sys::version;
use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, BackgroundWorkerStatus, DynamicBackgroundWorker,
};
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::PgTryBuilder;
use std::collections::HashMap;
use std::ffi::{CString, c_int};
use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::time::Duration;

/// What is done on rounds.
#[derive(Clone, Copy)]
pub struct Rounds {
    /// How long to rest between them; none for no rounds at all.
    pub rest: fn() -> Option<Duration>,
    /// The visit of a database, in its visitor.
    pub visit: fn(&Visit),
}

static ROUNDS: OnceLock<Rounds> = OnceLock::new();

/// A change is looked at once more so much later, in microseconds: the workers' counters of changed rows are behind by up to ten
/// seconds (`PGSTAT_IDLE_INTERVAL`, `pgstat.c`).
const BEHIND: i64 = 15_000_000;

/// Registers the worker that makes the rounds, if the library is being preloaded; once, when it is loaded.
pub fn register(rounds: Rounds) {
    // SAFETY: a global of the postmaster.
    if ROUNDS.set(rounds).is_ok() && unsafe { pg_sys::process_shared_preload_libraries_in_progress }
    {
        BackgroundWorkerBuilder::new("pg_shard statistics launcher")
            .set_library("pg_shard")
            .set_function("pg_shard_rounds")
            .enable_spi_access()
            .set_restart_time(Some(Duration::from_secs(60)))
            .load();
    }
}

/// The entry point of the worker that makes the rounds.
///
/// # Safety
///
/// Called by PostgreSQL in a fresh background worker.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_rounds(_argument: Datum) {
    let Some(rounds) = ROUNDS.get() else { return };
    begin_launcher();
    let mut visited: HashMap<Oid, i64> = HashMap::new();
    let mut last = activity::now();
    loop {
        let due = (rounds.rest)().map(|rest| last.saturating_add(rest.as_micros() as i64));
        let left = due.map(|due| {
            Duration::from_micros(u64::try_from(due - activity::now()).unwrap_or_default())
        });
        if left.is_none_or(|left| !left.is_zero()) {
            rest(left);
            continue;
        }
        last = activity::now();
        visit_changed(&mut visited);
    }
}

/// Makes this process, a fresh background worker, one that sees shared catalogs only and rests by [`rest`].
pub(super) fn begin_launcher() {
    // SAFETY: a worker starts with signals blocked; the handlers are PostgreSQL's own.
    unsafe {
        version::handle_signal(libc::SIGHUP, Some(raw::SignalHandlerForConfigReload));
        version::handle_signal(libc::SIGTERM, Some(raw::SignalHandlerForShutdownRequest));
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
    }
}

mod raw {
    //! Signal handlers, which PostgreSQL calls.
    use std::ffi::c_int;
    unsafe extern "C-unwind" {
        /// Raises nothing: a handler of signals, of which only the address is taken.
        pub(super) fn SignalHandlerForConfigReload(signal: c_int);
        /// Raises nothing: a handler of signals, of which only the address is taken.
        pub(super) fn SignalHandlerForShutdownRequest(signal: c_int);
        /// Raises nothing: a handler of signals, of which only the address is taken.
        pub(super) fn StatementCancelHandler(signal: c_int);
        /// Raises nothing: a handler of signals, of which only the address is taken.
        pub(super) fn die(signal: c_int);
    }
}

/// Waits for a signal, or until the time is over.
pub(super) fn rest(limit: Option<Duration>) {
    const LONG: Duration = Duration::from_secs(3600);
    let milliseconds = limit.unwrap_or(LONG).min(LONG).as_millis() as i64 + 1;
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: this process's own latch and flags.
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
    // SAFETY: as above. An exit code other than zero has the postmaster start us again, unless it ends itself.
    unsafe {
        if (&raw const pg_sys::ShutdownRequestPending).read_volatile() != 0 {
            pg_sys::proc_exit(1);
        }
        if (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0 {
            (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// Visits the databases whose tables may have changed since they were visited last.
fn visit_changed(visited: &mut HashMap<Oid, i64>) {
    let databases = databases();
    visited.retain(|known, _| databases.contains(known));
    for database in databases {
        let is_due = |at: &i64| activity::last_change(database) > at.saturating_sub(BEHIND);
        if !visited.get(&database).is_none_or(is_due) {
            continue;
        }
        let now = activity::now();
        if send_visitor(database) {
            visited.insert(database, now);
        }
    }
}

/// The databases that can be visited; templates are left alone, or copying them would have to wait.
pub(super) fn databases() -> Vec<Oid> {
    let mut found = Vec::new();
    // SAFETY: starts and ends a transaction of this process, which has none.
    unsafe { pg_sys::StartTransactionCommand() };
    table::scan(pg_sys::DatabaseRelationId, None, 1, Search::All, &mut |row| {
        let is_template = row.bool(pg_sys::Anum_pg_database_datistemplate as i16);
        if !is_template && row.bool(pg_sys::Anum_pg_database_datallowconn as i16) {
            found.push(row.oid(pg_sys::Anum_pg_database_oid as i16));
        }
    });
    // SAFETY: as above.
    unsafe { pg_sys::CommitTransactionCommand() };
    found
}

/// Has a database visited and waits for the end of the visit; false if there is no room for another process.
fn send_visitor(database: Oid) -> bool {
    let started = start_visitor(database, "pg_shard statistics keeper", "pg_shard_visit");
    let Some(visitor) = started else { return false };
    while !has_ended(&visitor) {
        rest(Some(Duration::from_secs(10)));
    }
    true
}

/// Starts a visitor of a database, whose start and end wake this process; none if there is no room for another process.
pub(super) fn start_visitor(
    database: Oid,
    name: &str,
    function: &str,
) -> Option<DynamicBackgroundWorker> {
    // SAFETY: a global of the process.
    let pid = unsafe { pg_sys::MyProcPid };
    BackgroundWorkerBuilder::new(name)
        .set_library("pg_shard")
        .set_function(function)
        .set_extra(&database.to_u32().to_string())
        .enable_spi_access()
        .set_notify_pid(pid)
        .set_restart_time(None)
        .load_dynamic()
        .ok()
}

pub(super) fn has_ended(visitor: &DynamicBackgroundWorker) -> bool {
    matches!(
        visitor.pid(),
        Err(BackgroundWorkerStatus::Stopped | BackgroundWorkerStatus::PostmasterDied)
    )
}

/// The lock of the array of processes (`lwlocknames.txt`).
const PROC_ARRAY_LOCK: usize = 4;

/// The entry point of a visitor.
///
/// # Safety
///
/// Called by PostgreSQL in a fresh background worker.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_visit(_argument: Datum) {
    let Some(rounds) = ROUNDS.get() else { return };
    (rounds.visit)(&begin_visit());
}

/// Makes this process, a fresh background worker, a visitor.
pub(super) fn begin_visit() -> Visit {
    let database = BackgroundWorker::get_extra().parse().unwrap_or(0);
    // SAFETY: a worker starts with signals blocked; the handlers are PostgreSQL's own.
    unsafe {
        version::handle_signal(libc::SIGTERM, Some(raw::die));
        version::handle_signal(libc::SIGINT, Some(raw::StatementCancelHandler));
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::BackgroundWorkerInitializeConnectionByOid(Oid::from(database), Oid::INVALID, 0);
    }
    let visit = Visit(());
    visit.yields(true);
    visit
}

/// The visit of a database.
#[derive(Debug)]
pub struct Visit(());

impl Visit {
    /// Whether somebody who waits for a lock of ours for `deadlock_timeout` has us cancelled.
    pub fn yields(&self, yields: bool) {
        // SAFETY: flags of a process are set under the lock, in both places, as `vacuum_rel` (`vacuum.c`) does it.
        unsafe {
            let lock = &raw mut (*pg_sys::MainLWLockArray.add(PROC_ARRAY_LOCK)).lock;
            pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
            let me = pg_sys::MyProc;
            let flag = pg_sys::PROC_IS_AUTOVACUUM as u8;
            (*me).statusFlags = (*me).statusFlags & !flag | if yields { flag } else { 0 };
            *(*pg_sys::ProcGlobal).statusFlags.add((*me).pgxactoff as usize) = (*me).statusFlags;
            pg_sys::LWLockRelease(lock);
        }
    }

    /// Waits for so long, or for somebody who wants the visit to end.
    pub fn rest(&self, limit: Duration) {
        rest(Some(limit));
    }

    /// Shows in pg_stat_activity what is being done; nothing if it is empty.
    pub fn tell(&self, what: &str) {
        let Ok(text) = CString::new(what) else { return };
        let state = if what.is_empty() {
            pg_sys::BackendState::STATE_IDLE
        } else {
            pg_sys::BackendState::STATE_RUNNING
        };
        // SAFETY: this process's own entry; the text is copied.
        unsafe { pg_sys::pgstat_report_activity(state, text.as_ptr()) };
    }

    /// Runs `body` in a transaction of its own, as the superuser who owns the cluster. What it returns or raises as an
    /// error rolls the transaction back.
    pub fn in_transaction<T>(
        &self,
        body: impl FnOnce() -> Result<T, PgError>,
    ) -> Result<T, PgError> {
        // SAFETY: this process has no transaction, and nobody else starts or ends one here. After an ERROR, which the guard has
        // caught, everything that is open ends with the abort.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let outcome = PgTryBuilder::new(AssertUnwindSafe(|| {
                let value = body()?;
                pg_sys::PopActiveSnapshot();
                pg_sys::CommitTransactionCommand();
                Ok(value)
            }))
            .catch_others(|cause| Err(caught(&cause)))
            .execute();
            if outcome.is_err() {
                pg_sys::AbortOutOfAnyTransaction();
            }
            outcome
        }
    }
}
