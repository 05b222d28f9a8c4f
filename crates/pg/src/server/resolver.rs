//! Who ends what is in doubt and repairs what is stale: a background worker that rests until a backend wakes it, and sends
//! visitors to the databases where there may be something.
//!
//! A watcher stays in a database in use, and looks whether its nodes answer.
//!
//! The resolver visits all databases when the server starts, also after a crash; those in which distributed tables were found once in
//! every [`ROUND`]; and one in which a backend has left something behind at once. The repairer is sent for. A visitor lives as long
//! as there is something to do, and like those of [`super::rounds`] is in nobody's way.

use crate::server::activity;
use crate::server::down::{self, Down};
use crate::server::given_up::{self, GivenUp};
use crate::server::rounds::{self, Visit};
use crate::sys::shared_memory::Area;
use pgrx::bgworkers::{BackgroundWorkerBuilder, DynamicBackgroundWorker};
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::time::Duration;

/// How long after a visit the next one comes at the latest, in microseconds.
const ROUND: i64 = 30_000_000;

/// How soon it is tried again where there was no room for a visitor.
const AGAIN: i64 = 1_000_000;

/// Databases that are known to the launcher by other processes.
const DATABASES: usize = 64;

/// Our shared memory.
#[repr(C)]
struct Shared {
    /// What wakes the launcher.
    latch: AtomicPtr<pg_sys::Latch>,
    /// Databases in which something was left behind.
    wanted: [AtomicU32; DATABASES],
    /// Databases in which there are distributed tables.
    used: [AtomicU32; DATABASES],
    /// Databases in which there are stale placements.
    stale: [AtomicU32; DATABASES],
    /// Which nodes are down.
    down: Down,
    /// Sessions that were given up.
    given_up: GivenUp,
    /// What wakes those who wait for a visitor to end something.
    ended: UnsafeCell<pg_sys::ConditionVariable>,
}

// SAFETY: all bytes zero is valid but for the condition variable, which `begin` makes.
static SHARED: Area<Shared> = unsafe { Area::new(c"pg_shard resolver", || 0, begin) };

/// # Safety
///
/// Nobody else uses it yet.
unsafe fn begin(shared: *mut Shared) {
    // SAFETY: see above; it stays as long as the process.
    unsafe {
        pg_sys::ConditionVariableInit((*shared).ended.get());
        down::place(&raw mut (*shared).down);
        given_up::place(&raw mut (*shared).given_up);
    }
}

/// What visitors do.
#[derive(Clone, Copy)]
pub struct Visits {
    /// Ends what is in doubt in a database.
    pub resolve: fn(&Visit),
    /// Repairs what is stale there.
    pub repair: fn(&Visit),
    /// Watches the nodes of a database.
    pub watch: fn(&Visit),
    /// Nodes are to be watched.
    pub watches: fn() -> bool,
}

static VISITS: OnceLock<Visits> = OnceLock::new();

/// Registers the launcher, if the library is being preloaded; once, when it is loaded.
pub fn register(visits: Visits) {
    // SAFETY: `_PG_init` runs alone on the main thread of the postmaster; hooks are plain function pointers.
    unsafe {
        if VISITS.set(visits).is_err() || !pg_sys::process_shared_preload_libraries_in_progress {
            return;
        }
    }
    SHARED.reserve();
    BackgroundWorkerBuilder::new("pg_shard resolver launcher")
        .set_library("pg_shard")
        .set_function("pg_shard_resolver")
        .enable_spi_access()
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
}

// SAFETY: all of it is atomic but the condition variable, which PostgreSQL's own functions change under its lock.
unsafe impl Sync for Shared {}

fn shared() -> Option<&'static Shared> {
    SHARED.get()
}

fn note(databases: &[AtomicU32; DATABASES]) {
    // SAFETY: a global of the process.
    let mine = unsafe { pg_sys::MyDatabaseId }.to_u32();
    for place in databases {
        let order = (Ordering::AcqRel, Ordering::Acquire);
        match place.compare_exchange(0, mine, order.0, order.1) {
            Ok(_) => return,
            Err(known) if known == mine => return,
            Err(_) => {}
        }
    }
}

/// Something was left behind in this database: somebody comes and ends it.
pub fn wake() {
    let Some(shared) = shared() else { return };
    note(&shared.wanted);
    shared.wake();
}

/// This database has a stale placement: somebody comes and repairs it.
pub fn note_stale() {
    let Some(shared) = shared() else { return };
    note(&shared.stale);
    shared.wake();
}

impl Shared {
    fn wake(&self) {
        let latch = self.latch.load(Ordering::Acquire);
        if !latch.is_null() {
            // SAFETY: a latch of the array of processes, which stays where it is; whoever owns it now looks and finds nothing.
            unsafe { pg_sys::SetLatch(latch) };
        }
    }
}

/// A visitor has ended something: whoever waits for that looks again.
pub fn note_ended() {
    if let Some(shared) = shared() {
        // SAFETY: initialised before any process was there; PostgreSQL keeps it consistent.
        unsafe { pg_sys::ConditionVariableBroadcast(shared.ended.get()) };
    }
}

/// A wait for visitors to end something, which outlives single looks.
#[derive(Debug, Default)]
pub struct WaitForEnd {
    is_prepared: bool,
}

impl WaitForEnd {
    /// Waits until a visitor has ended something since the last call, `limit` at most. The first call returns at once: only what
    /// happens after it is sure to be noticed. Interrupts are served unless they are held.
    pub fn wait(&mut self, limit: Duration) {
        let Some(shared) = shared() else { return std::thread::sleep(limit) };
        self.is_prepared = true;
        // SAFETY: as in `note_ended`; `drop` ends the wait, and so does the end of the transaction.
        unsafe {
            pg_sys::ConditionVariableTimedSleep(
                shared.ended.get(),
                limit.as_millis() as std::ffi::c_long,
                pg_sys::PG_WAIT_EXTENSION,
            );
        }
    }
}

impl Drop for WaitForEnd {
    fn drop(&mut self) {
        if self.is_prepared {
            // SAFETY: takes this process off the list on which `wait` has put it; does nothing if it is on none.
            unsafe { pg_sys::ConditionVariableCancelSleep() };
        }
    }
}

/// This database has distributed tables: it is visited again.
pub fn note_used() {
    if let Some(shared) = shared() {
        note(&shared.used);
    }
}

/// This database has distributed tables, or has other nodes: its nodes are watched, if nodes are watched at all.
pub fn note_watched() {
    if let Some(shared) = shared() {
        note(&shared.used);
        shared.wake();
    }
}

/// A database as the launcher knows it.
#[derive(Default)]
struct Known {
    /// When it is visited next.
    due: i64,
    /// It was, since somebody has last asked for it.
    is_visited: bool,
    visitor: Option<DynamicBackgroundWorker>,
    /// It has stale placements, which nobody has been sent to.
    is_stale: bool,
    repairer: Option<DynamicBackgroundWorker>,
    /// When it may get a watcher.
    watch_due: i64,
    watcher: Option<DynamicBackgroundWorker>,
}

impl Known {
    /// Forgets visitors that have gone, and sends for those that are due.
    fn send(&mut self, oid: Oid, now: i64) {
        let is_gone = |visitor: &Option<DynamicBackgroundWorker>| {
            visitor.as_ref().is_some_and(rounds::has_ended)
        };
        if is_gone(&self.visitor) {
            self.visitor = None;
        }
        if self.visitor.is_none() && self.due <= now {
            self.visitor = rounds::start_visitor(oid, "pg_shard resolver", "pg_shard_resolve");
            self.is_visited = self.visitor.is_some();
            self.due = now + if self.is_visited { ROUND } else { AGAIN };
        }
        if is_gone(&self.repairer) {
            self.repairer = None;
        }
        if self.repairer.is_none() && self.is_stale {
            self.repairer = rounds::start_visitor(oid, "pg_shard repairer", "pg_shard_repair");
            self.is_stale = self.repairer.is_none();
        }
    }

    /// Sends for a watcher, if there may be one more; true if there is one.
    fn watch(&mut self, oid: Oid, now: i64, may_start: bool) -> bool {
        if self.watcher.as_ref().is_some_and(rounds::has_ended) {
            self.watcher = None;
            down::forget(oid.to_u32());
        }
        if self.watcher.is_none() && may_start && self.watch_due <= now {
            self.watcher = rounds::start_visitor(oid, "pg_shard watcher", "pg_shard_watch");
            self.watch_due = now + ROUND;
        }
        self.watcher.is_some()
    }
}

/// The entry point of the launcher.
///
/// # Safety
///
/// Called by PostgreSQL in a fresh background worker.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_resolver(_argument: Datum) {
    let Some(shared) = shared() else { return };
    rounds::begin_launcher();
    // SAFETY: this process's own latch.
    shared.latch.store(unsafe { pg_sys::MyLatch }, Ordering::Release);
    let mut known: HashMap<Oid, Known> =
        rounds::databases().into_iter().map(|oid| (oid, Known::default())).collect();
    loop {
        let now = activity::now();
        for place in &shared.wanted {
            let oid = place.swap(0, Ordering::AcqRel);
            if oid != 0 {
                let database = known.entry(Oid::from(oid)).or_default();
                (database.due, database.is_visited) = (now, false);
            }
        }
        for place in &shared.used {
            let oid = place.load(Ordering::Acquire);
            if oid != 0 {
                known
                    .entry(Oid::from(oid))
                    .or_insert_with(|| Known { due: now + ROUND, ..Known::default() });
            }
        }
        for place in &shared.stale {
            let oid = place.swap(0, Ordering::AcqRel);
            if oid != 0 {
                let begin = || Known { due: now + ROUND, ..Known::default() };
                known.entry(Oid::from(oid)).or_insert_with(begin).is_stale = true;
            }
        }
        for (oid, database) in &mut known {
            database.send(*oid, now);
        }
        send_watchers(shared, &mut known, now);
        known.retain(|oid, database| {
            database.visitor.is_some()
                || database.repairer.is_some()
                || database.watcher.is_some()
                || !database.is_visited
                || is_used(shared, *oid)
        });
        let idle = known.values().filter(|database| database.visitor.is_none());
        let next = idle.map(|database| database.due).min().unwrap_or(now + ROUND);
        let left = u64::try_from(next - activity::now()).unwrap_or_default();
        rounds::rest(Some(Duration::from_micros(left)));
    }
}

/// Sends watchers to databases in use, as many as leave room for other workers.
fn send_watchers(shared: &Shared, known: &mut HashMap<Oid, Known>, now: i64) {
    let watches = VISITS.get().is_some_and(|visits| (visits.watches)());
    // SAFETY: a global of the process.
    let most = (unsafe { pg_sys::max_worker_processes } / 4).max(1);
    let mut running = known.values().filter(|database| database.watcher.is_some()).count();
    for (oid, database) in known {
        let had = database.watcher.is_some();
        let may_start = watches && is_used(shared, *oid) && running < most.unsigned_abs() as usize;
        match (had, database.watch(*oid, now, may_start)) {
            (true, false) => running -= 1,
            (false, true) => running += 1,
            _ => {}
        }
    }
}

fn is_used(shared: &Shared, oid: Oid) -> bool {
    shared.used.iter().any(|place| place.load(Ordering::Acquire) == oid.to_u32())
}

/// The entry point of a visitor.
///
/// # Safety
///
/// Called by PostgreSQL in a fresh background worker.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_resolve(_argument: Datum) {
    if let Some(visits) = VISITS.get() {
        (visits.resolve)(&rounds::begin_visit());
    }
}

/// The entry point of a visitor who repairs.
///
/// # Safety
///
/// Called by PostgreSQL in a fresh background worker.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_repair(_argument: Datum) {
    if let Some(visits) = VISITS.get() {
        (visits.repair)(&rounds::begin_visit());
    }
}

/// The entry point of a visitor who watches nodes.
///
/// # Safety
///
/// Called by PostgreSQL in a fresh background worker.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_watch(_argument: Datum) {
    if let Some(visits) = VISITS.get() {
        (visits.watch)(&rounds::begin_visit());
    }
}
