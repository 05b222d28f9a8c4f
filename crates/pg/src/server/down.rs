//! Nodes that are down, for all backends to see.
//!
//! A watcher notes them for its database; the launcher forgets them when the watcher has gone. Backends use other placements for reads
//! where there are some, so it does no harm if what stands here is wrong. While all nodes are up a look is one load.

use pgrx::pg_sys;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

static SHARED: AtomicPtr<Down> = AtomicPtr::new(null_mut());

/// Says where it is.
///
/// # Safety
///
/// It is valid, and stays where it is as long as the process.
pub(super) unsafe fn place(down: *mut Down) {
    SHARED.store(down, Ordering::Relaxed);
}

/// None if the library was not preloaded.
fn shared() -> Option<&'static Down> {
    // SAFETY: null, or what `place` was given.
    unsafe { SHARED.load(Ordering::Relaxed).as_ref() }
}

/// Forgets the nodes of a database, whose watcher has gone.
pub(super) fn forget(database: u32) {
    if let Some(down) = shared() {
        down.forget(database);
    }
}

/// Nodes that are noted at once.
const NODES: usize = 64;

/// What stands in shared memory; all bytes zero is the beginning.
#[repr(C)]
pub(super) struct Down {
    count: AtomicU32,
    places: [Place; NODES],
}

#[repr(C)]
struct Place {
    /// 0 while the place is free.
    database: AtomicU32,
    node: AtomicU64,
}

impl Down {
    /// Forgets the nodes of a database.
    fn forget(&self, database: u32) {
        for place in &self.places {
            self.release(place, database);
        }
    }

    fn release(&self, place: &Place, database: u32) {
        let order = (Ordering::AcqRel, Ordering::Acquire);
        if place.database.compare_exchange(database, 0, order.0, order.1).is_ok() {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn find(&self, database: u32, node: u64) -> Option<&Place> {
        self.places.iter().find(|place| {
            place.database.load(Ordering::Acquire) == database
                && place.node.load(Ordering::Acquire) == node
        })
    }

    /// Only the watcher of the database calls it.
    fn note(&self, database: u32, node: u64, is_down: bool) {
        match (self.find(database, node), is_down) {
            (Some(place), false) => self.release(place, database),
            (None, true) => {
                for place in &self.places {
                    let order = (Ordering::AcqRel, Ordering::Acquire);
                    if place.database.compare_exchange(0, database, order.0, order.1).is_ok() {
                        place.node.store(node, Ordering::Release);
                        self.count.fetch_add(1, Ordering::AcqRel);
                        return;
                    }
                }
            }
            _ => {}
        }
    }
}

fn database() -> u32 {
    // SAFETY: a global of the process.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

/// Notes whether a node of this database is down; by a number that stands for it.
pub fn note(node: u64, is_down: bool) {
    if let Some(down) = shared() {
        down.note(database(), node, is_down);
    }
}

/// Some node of some database is down.
pub fn is_any() -> bool {
    shared().is_some_and(|down| down.count.load(Ordering::Relaxed) > 0)
}

/// The node of this database is down.
pub fn is(node: u64) -> bool {
    shared().is_some_and(|down| down.find(database(), node).is_some())
}
