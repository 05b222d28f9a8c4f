//! Sessions that were given up while a node was at work for them, for all backends to see.
//!
//! The node's process may only have been slow, or stopped: what it was sent lies in its socket, and it executes that when it goes on. Whoever is about
//! to rely on a placement there has these processes ended first. A crash of
//! this server loses the list, but not those of writes that two nodes were committing ([`super::in_flight`]).

use std::ptr::null_mut;
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, Ordering};

/// How many are known; of more the oldest are forgotten.
const PLACES: usize = 1024;

static SHARED: AtomicPtr<GivenUp> = AtomicPtr::new(null_mut());

/// What stands in shared memory; all bytes zero is the beginning.
#[repr(C)]
pub(super) struct GivenUp {
    next: AtomicU64,
    places: [Place; PLACES],
}

#[repr(C)]
struct Place {
    /// 0 while the place is free.
    process: AtomicU64,
    node: AtomicU64,
    started: AtomicI64,
}

/// A process of a node. Its number may become that of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it was started, by the node's clock, in microseconds; 0 if that is unknown.
    pub started: i64,
}

/// Says where it is.
///
/// # Safety
///
/// It is valid, and stays where it is as long as the process.
pub(super) unsafe fn place(given_up: *mut GivenUp) {
    SHARED.store(given_up, Ordering::Relaxed);
}

/// None if the library was not preloaded.
fn shared() -> Option<&'static GivenUp> {
    // SAFETY: null, or what `place` was given.
    unsafe { SHARED.load(Ordering::Relaxed).as_ref() }
}

/// Notes a process of a node, which is known by a number that stands for it.
pub fn note(node: u64, process: Process) {
    let Some(shared) = shared() else { return };
    let next = shared.next.fetch_add(1, Ordering::Relaxed) as usize % PLACES;
    let place = &shared.places[next];
    place.process.store(0, Ordering::Release);
    place.node.store(node, Ordering::Relaxed);
    place.started.store(process.started, Ordering::Relaxed);
    place.process.store(u64::from(process.pid.cast_unsigned()), Ordering::Release);
}

/// The node's processes.
pub fn of(node: u64) -> Vec<Process> {
    let Some(shared) = shared() else { return Vec::new() };
    let places = shared.places.iter().filter_map(|place| {
        let pid = (place.process.load(Ordering::Acquire) as u32).cast_signed();
        let is_there = pid != 0 && place.node.load(Ordering::Relaxed) == node;
        is_there.then(|| Process { pid, started: place.started.load(Ordering::Relaxed) })
    });
    places.collect()
}

/// These processes of the node are gone.
pub fn forget(node: u64, processes: &[Process]) {
    let Some(shared) = shared() else { return };
    for place in &shared.places {
        let process = place.process.load(Ordering::Acquire);
        let started = place.started.load(Ordering::Relaxed);
        let is_meant = processes
            .iter()
            .any(|it| u64::from(it.pid.cast_unsigned()) == process && it.started == started);
        if is_meant && place.node.load(Ordering::Relaxed) == node {
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            // Somebody else may have taken the place meanwhile.
            let _ = place.process.compare_exchange(process, 0, order.0, order.1);
        }
    }
}
