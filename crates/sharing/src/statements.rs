//! Which statements a node keeps prepared for a session.
//!
//! They are known by the digest of their text and types, so that what one process has had prepared is found by all. The
//! table has a fixed size: where a place is needed, the least recently used statement of eight is closed. Only the process that has
//! the session calls these functions.

use crate::Digest;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

const BUCKETS: usize = 128;
const WAYS: usize = 8;

#[derive(Debug, Default)]
#[repr(C)]
struct Entry {
    high: AtomicU64,
    low: AtomicU64,
    number: AtomicU32,
    used: AtomicU32,
}

/// The statements of one session.
#[derive(Debug)]
#[repr(C)]
pub struct Statements {
    next: AtomicU32,
    clock: AtomicU32,
    kept: AtomicU32,
    entries: [Entry; BUCKETS * WAYS],
}

/// What a statement is called, and what has to be done about that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub number: u32,
    /// It has to be prepared.
    pub is_new: bool,
    /// The statement whose place it takes, which is to be closed.
    pub closes: Option<u32>,
    /// There was no place for it: it is to be closed after the flight.
    pub is_passing: bool,
}

impl Default for Statements {
    fn default() -> Self {
        let (next, clock, kept) = Default::default();
        Self { next, clock, kept, entries: std::array::from_fn(|_| Entry::default()) }
    }
}

impl Statements {
    /// Forgets all: the session is a new one.
    pub fn clear(&self) {
        self.next.store(0, Relaxed);
        self.clock.store(1, Relaxed);
        self.kept.store(0, Relaxed);
        for entry in &self.entries {
            entry.high.store(0, Relaxed);
        }
    }

    /// The first number that was not used before the session was shared.
    pub fn begin_at(&self, number: u32) {
        self.next.store(number, Relaxed);
    }

    /// It is there.
    pub fn has(&self, digest: Digest) -> bool {
        self.entry(digest).is_some()
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.kept.load(Relaxed)
    }

    /// A flight is put together: no statement that is looked up from now on is closed before the next one.
    pub fn begin_flight(&self) {
        self.clock.fetch_add(1, Relaxed);
    }

    fn bucket(&self, digest: Digest) -> &[Entry] {
        let first = (digest.1 as usize % BUCKETS) * WAYS;
        &self.entries[first..first + WAYS]
    }

    fn entry(&self, digest: Digest) -> Option<&Entry> {
        self.bucket(digest).iter().find(|entry| {
            entry.high.load(Relaxed) == digest.0 && entry.low.load(Relaxed) == digest.1
        })
    }

    /// The statement's number. A new one counts as prepared from now on.
    pub fn find(&self, digest: Digest) -> Found {
        let now = self.clock.load(Relaxed);
        if let Some(entry) = self.entry(digest) {
            entry.used.store(now, Relaxed);
            let number = entry.number.load(Relaxed);
            return Found { number, is_new: false, closes: None, is_passing: false };
        }
        let number = self.next.load(Relaxed);
        self.next.store(number.wrapping_add(1), Relaxed);
        let age = |entry: &&Entry| match entry.high.load(Relaxed) {
            0 => u32::MAX,
            _ => now.wrapping_sub(entry.used.load(Relaxed)),
        };
        let oldest = self.bucket(digest).iter().max_by_key(age);
        let Some(place) = oldest.filter(|entry| age(entry) > 0) else {
            return Found { number, is_new: true, closes: None, is_passing: true };
        };
        let closes = (place.high.load(Relaxed) != 0).then(|| place.number.load(Relaxed));
        if closes.is_none() {
            self.kept.fetch_add(1, Relaxed);
        }
        place.number.store(number, Relaxed);
        place.used.store(now, Relaxed);
        place.low.store(digest.1, Relaxed);
        place.high.store(digest.0, Relaxed);
        Found { number, is_new: true, closes, is_passing: false }
    }

    /// Forgets all, of which `each` gets the numbers: whether the node has them is not known.
    pub fn drain(&self, each: &mut dyn FnMut(u32)) {
        for entry in &self.entries {
            if entry.high.swap(0, Relaxed) != 0 {
                each(entry.number.load(Relaxed));
            }
        }
        self.kept.store(0, Relaxed);
    }

    /// The node does not have it after all.
    pub fn forget(&self, digest: Digest) {
        if let Some(entry) = self.entry(digest) {
            entry.high.store(0, Relaxed);
            self.kept.fetch_sub(1, Relaxed);
        }
    }
}
