//! The clock and the recent commits in shared memory.
//!
//! One lock protects all of it, held for tens of nanoseconds. Without `shared_preload_libraries` there is none of it, and nothing
//! is noted.

use crate::server::activity;
use crate::sys::shared_memory::Area;
use pgrx::pg_sys;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicPtr, Ordering};
use std::time::Duration;
use timeline::{Commit, Decision, Decisions, DecisionsHead, Doubt, Flight, Head, Time, Timeline};

/// How many commits are remembered; a power of two.
const COMMITS: usize = 16_384;

const NAME: &CStr = c"pg_shard timeline";

/// What stands before the arrays of flights, doubts, commits and decisions.
#[repr(C, align(64))]
struct Shared {
    head: Head,
    decisions: DecisionsHead,
    flights: usize,
    doubts: usize,
    /// The process that holds the horizon: its place among PostgreSQL's, and its number.
    holder_place: AtomicI32,
    holder_pid: AtomicI32,
    /// The latest commit on a node that this server has acknowledged.
    acknowledged: AtomicI64,
    /// When somebody has read at a time, in PostgreSQL's count; 0 for never.
    read: AtomicI64,
}

// SAFETY: all bytes zero is valid but for what `begin` fills in; it is used under `LOCK`, or atomic.
static SHARED: Area<Shared> = unsafe { Area::new(NAME, bytes_behind, begin) }.with_lock();
static LOCK: AtomicPtr<pg_sys::LWLock> = AtomicPtr::new(null_mut());

static CLOCK_OFFSET: GucSetting<i32> = GucSetting::<i32>::new(0);

mod raw {
    //! Called without pgrx' guard: the lock functions raise nothing here, and the variable is not among its bindings.
    use pgrx::pg_sys;
    unsafe extern "C-unwind" {
        pub(super) static max_prepared_xacts: std::ffi::c_int;
        /// Raises nothing while fewer than 200 are held (`src/backend/storage/lmgr/lwlock.c`).
        pub(super) fn LWLockAcquire(lock: *mut pg_sys::LWLock, mode: std::ffi::c_uint) -> bool;
        /// Raises nothing: the lock is held.
        pub(super) fn LWLockRelease(lock: *mut pg_sys::LWLock);
    }
}

/// Asks for shared memory, if the library is being preloaded; once, when it is loaded.
pub(super) fn reserve() {
    GucRegistry::define_int_guc(
        c"pg_shard.clock_offset",
        c"Makes this server's clock wrong by so much.",
        c"For tests of pg_shard itself: commit times are then those of a server whose clock is ahead or behind.",
        &CLOCK_OFFSET,
        -3_600_000,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS | GucFlags::SUPERUSER_ONLY,
    );
    SHARED.reserve();
}

/// Room for all processes, and for all transactions that are prepared or about to be.
fn sizes() -> (usize, usize) {
    // SAFETY: set before the hooks are called, and never changed.
    let (backends, prepared) = unsafe { (pg_sys::MaxBackends, raw::max_prepared_xacts) };
    let flights = usize::try_from(backends).unwrap_or(0);
    (flights, flights + usize::try_from(prepared).unwrap_or(0))
}

fn bytes_behind() -> usize {
    let (flights, doubts) = sizes();
    flights * size_of::<Flight>()
        + doubts * size_of::<Doubt>()
        + COMMITS * size_of::<Commit>()
        + flights * size_of::<Decision>()
}

/// # Safety
///
/// Nobody else uses it yet.
unsafe fn begin(shared: *mut Shared) {
    // SAFETY: see above; the tranche was asked for with the memory.
    unsafe {
        ((*shared).flights, (*shared).doubts) = sizes();
        let lock = &raw mut (*pg_sys::GetNamedLWLockTranche(NAME.as_ptr())).lock;
        LOCK.store(lock, Ordering::Relaxed);
        timeline(shared).start(own_clock());
    }
}

/// # Safety
///
/// `shared` is what [`begin`] is called with, and nobody else uses it meanwhile.
unsafe fn timeline<'a>(shared: *mut Shared) -> Timeline<'a> {
    // SAFETY: the arrays follow the header in this order; their sizes were written by `begin` and are never changed. Sizes of
    // the types before each are multiples of eight, which is the alignment of the next.
    unsafe {
        let flights: *mut Flight = shared.add(1).cast();
        let doubts: *mut Doubt = flights.add((*shared).flights).cast();
        let commits: *mut Commit = doubts.add((*shared).doubts).cast();
        Timeline::new(
            &mut (*shared).head,
            std::slice::from_raw_parts_mut(flights, (*shared).flights),
            std::slice::from_raw_parts_mut(doubts, (*shared).doubts),
            std::slice::from_raw_parts_mut(commits, COMMITS),
        )
    }
}

/// # Safety
///
/// As for [`timeline`].
unsafe fn decisions<'a>(shared: *mut Shared) -> Decisions<'a> {
    // SAFETY: the array follows that of commits, and has as many places as that of flights; see `timeline`.
    unsafe {
        let flights: *mut Flight = shared.add(1).cast();
        let doubts: *mut Doubt = flights.add((*shared).flights).cast();
        let commits: *mut Commit = doubts.add((*shared).doubts).cast();
        let decisions: *mut Decision = commits.add(COMMITS).cast();
        Decisions::new(
            &mut (*shared).decisions,
            std::slice::from_raw_parts_mut(decisions, (*shared).flights),
        )
    }
}

const _: () = assert!(
    size_of::<Shared>().is_multiple_of(8)
        && size_of::<Flight>().is_multiple_of(8)
        && size_of::<Doubt>().is_multiple_of(8)
        && size_of::<Commit>().is_multiple_of(8)
        && align_of::<Commit>() <= 8
        && align_of::<Decision>() <= 8
        && align_of::<Flight>() <= 8
        && align_of::<Doubt>() <= 8
);

/// There is shared memory of ours.
pub(super) fn is_there() -> bool {
    !SHARED.pointer().is_null()
}

/// Runs `body` on the timeline, under its lock. `body` must be short, must not panic, and holds nothing that needs dropping if an
/// ERROR may pass over it.
pub(crate) fn with<T>(body: impl FnOnce(&mut Timeline<'_>) -> T) -> Option<T> {
    // SAFETY: the lock makes us the only user.
    locked(|shared| body(&mut unsafe { timeline(shared) }))
}

/// The same for the decisions of this server.
pub(super) fn with_decisions<T>(body: impl FnOnce(&mut Decisions<'_>) -> T) -> Option<T> {
    // SAFETY: the lock makes us the only user.
    locked(|shared| body(&mut unsafe { decisions(shared) }))
}

fn locked<T>(body: impl FnOnce(*mut Shared) -> T) -> Option<T> {
    let shared = SHARED.pointer();
    if shared.is_null() {
        return None;
    }
    let lock = LOCK.load(Ordering::Relaxed);
    // SAFETY: both are what `begin` was called with, and stay as long as the process. An ERROR, and a panic that becomes one, has
    // PostgreSQL release the lock.
    unsafe {
        raw::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let value = body(shared);
        raw::LWLockRelease(lock);
        Some(value)
    }
}

/// The server's own clock.
pub(crate) fn own_clock() -> Time {
    Time::of_micros(activity::now() + i64::from(CLOCK_OFFSET.get()) * 1000)
}

/// Says which process holds the horizon.
pub(super) fn set_holder(place: i32, pid: i32) {
    // SAFETY: null or what `begin` was called with; both fields are atomic.
    if let Some(shared) = SHARED.get() {
        shared.holder_place.store(place, Ordering::Relaxed);
        shared.holder_pid.store(pid, Ordering::Release);
    }
}

/// The process that holds the horizon: its place among PostgreSQL's, and its number.
pub(super) fn holder() -> Option<(i32, i32)> {
    // SAFETY: as in `set_holder`.
    let shared = SHARED.get()?;
    let pid = shared.holder_pid.load(Ordering::Acquire);
    (pid != 0).then(|| (shared.holder_place.load(Ordering::Relaxed), pid))
}

/// The latest commit on a node that this server has acknowledged.
pub(super) fn acknowledged() -> Time {
    // SAFETY: as in `set_holder`.
    let shared = SHARED.get();
    shared
        .and_then(|shared| Time::from_number(shared.acknowledged.load(Ordering::Acquire)))
        .unwrap_or_default()
}

/// A commit on a node is about to be acknowledged.
pub(super) fn acknowledge(time: Time) {
    // SAFETY: as in `set_holder`.
    if let Some(shared) = SHARED.get() {
        shared.acknowledged.fetch_max(time.number(), Ordering::AcqRel);
    }
}

/// Somebody reads at a time.
pub(super) fn note_read() {
    // SAFETY: as in `set_holder`.
    if let Some(shared) = SHARED.get() {
        shared.read.store(activity::now(), Ordering::Relaxed);
    }
}

/// Somebody has read at a time, not longer ago than that.
pub(super) fn was_read_within(limit: Duration) -> bool {
    // SAFETY: as in `set_holder`.
    let shared = SHARED.get();
    let micros = i64::try_from(limit.as_micros()).unwrap_or(i64::MAX);
    shared.is_some_and(|it| activity::now() - it.read.load(Ordering::Relaxed) <= micros)
}
