//! Work in a transaction of its own: a short-lived background worker of this database.
//!
//! What must survive the rollback of the user's transaction (the mark on a placement that missed a write)
//! cannot be written inside it. A background worker needs no password and no connection slot; its argument
//! fits in the 128 bytes that PostgreSQL passes along.

use crate::sys::error::{PgError, SqlState};
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder};
use pgrx::pg_sys::{self, Datum, Oid};

/// Bytes of argument that a worker can take.
pub const ARGUMENT_BYTES: usize = 127;

/// Runs the job (see [`set_job`]) with `argument` in a background worker and waits for it to end.
pub fn run(name: &str, argument: &str) -> Result<(), PgError> {
    debug_assert!(argument.len() + 12 <= ARGUMENT_BYTES, "the argument fits");
    // SAFETY: reads globals of the backend.
    let (pid, database) = unsafe { (pg_sys::MyProcPid, pg_sys::MyDatabaseId) };
    let started = BackgroundWorkerBuilder::new(name)
        .set_library("pg_shard")
        .set_function("pg_shard_background")
        .set_extra(&format!("{}:{argument}", database.to_u32()))
        .enable_spi_access()
        .set_notify_pid(pid)
        .set_restart_time(None)
        .load_dynamic();
    let no_slot = || {
        PgError::new(
            SqlState::INSUFFICIENT_RESOURCES,
            "could not start a background worker to record a failed placement",
        )
        .hint("Raise max_worker_processes.")
    };
    let worker = started.map_err(|_| no_slot())?;
    worker.wait_for_shutdown().map_err(|_| no_slot())
}

/// Ends this process as a crash does; the postmaster then starts the server anew.
pub fn crash() -> ! {
    // SAFETY: signals this process itself, and does not come back.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    std::process::abort()
}

/// What a background worker does with its argument.
#[derive(Clone, Copy)]
pub struct Job {
    /// The work, in a transaction.
    pub run: fn(&str),
    /// What is done in another transaction, when that one has committed.
    pub afterwards: fn(&str),
}

static JOB: std::sync::OnceLock<Job> = std::sync::OnceLock::new();

/// Says what a background worker does with its argument; once, when the library is loaded.
pub fn set_job(job: Job) {
    // Set at most once per process.
    let _ = JOB.set(job);
}

/// The entry point of our background workers, found by its name in the library.
///
/// # Safety
///
/// Called by PostgreSQL in a fresh background worker.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_background(_argument: Datum) {
    let argument = start();
    if let Some(job) = JOB.get() {
        BackgroundWorker::transaction(|| (job.run)(&argument));
        BackgroundWorker::transaction(|| (job.afterwards)(&argument));
    }
}

/// Inside the worker: connects to the database that asked, as superuser; returns the argument.
fn start() -> String {
    let extra = BackgroundWorker::get_extra().to_owned();
    let (database, argument) = extra.split_once(':').unwrap_or(("0", ""));
    BackgroundWorker::connect_worker_to_spi_by_oid(
        Some(Oid::from(database.parse().unwrap_or(0))),
        None,
    );
    // SAFETY: a worker starts with signals blocked and must unblock them to be cancelled or shut down.
    unsafe { pg_sys::BackgroundWorkerUnblockSignals() };
    argument.to_owned()
}
