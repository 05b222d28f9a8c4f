//! A session's place in the table: its state, and what it knows.

use crate::Statements;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64};

/// What becomes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The slot has no session.
    Unused,
    /// A process opens one.
    Opening,
    /// Nobody has it.
    Free,
    /// A process has it.
    Lent,
    /// It is about to be closed.
    Closing,
    /// A process has it to itself and does not need it now: it is closed where there is no room for others.
    Kept,
}

impl State {
    fn of(word: u64) -> Self {
        match word >> 28 & 0xf {
            1 => Self::Opening,
            2 => Self::Free,
            3 => Self::Lent,
            4 => Self::Closing,
            5 => Self::Kept,
            _ => Self::Unused,
        }
    }

    fn code(self) -> u64 {
        match self {
            Self::Unused => 0,
            Self::Opening => 1,
            Self::Free => 2,
            Self::Lent => 3,
            Self::Closing => 4,
            Self::Kept => 5,
        }
    }
}

/// What a session knows, each a number of 64 bits whose meaning is the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact(pub usize);

pub(crate) const FACTS: usize = 20;

/// One use of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Which slot.
    pub slot: usize,
    /// Which of its uses.
    pub generation: u32,
}

/// A session's place.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Slot {
    /// The generation, four bits of state, and 28 bits of who has it.
    word: AtomicU64,
    pub(crate) group: AtomicU32,
    pub(crate) member: AtomicU32,
    /// It is to be closed when it is given back.
    pub(crate) is_doomed: AtomicBool,
    /// The node's process, and the key by which it is cancelled.
    pub(crate) backend: AtomicI32,
    pub(crate) cancel_key: AtomicI32,
    /// When it was opened, and when it was last given back.
    pub(crate) opened: AtomicI64,
    pub(crate) changed: AtomicI64,
    pub(crate) facts: [AtomicU64; FACTS],
    /// What the node keeps prepared.
    pub statements: Statements,
}

/// What the table says of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub lease: Lease,
    /// What becomes of it.
    pub state: State,
    /// Who has it, 0 for nobody.
    pub owner: i32,
    /// The node's number.
    pub node: u32,
    /// The database and the role of the log-in.
    pub database: u32,
    /// See above.
    pub role: u32,
    /// The node's process.
    pub backend: i32,
    /// When it was opened, and when it last changed hands.
    pub opened: i64,
    /// See above.
    pub changed: i64,
    /// How many statements are kept.
    pub statements: u32,
}

fn word(generation: u32, state: State, owner: i32) -> u64 {
    u64::from(generation) << 32
        | state.code() << 28
        | u64::from(owner.cast_unsigned() & 0x0fff_ffff)
}

impl Slot {
    pub(crate) fn generation(&self) -> u32 {
        (self.word.load(Acquire) >> 32) as u32
    }

    /// State and owner.
    pub fn now(&self) -> (State, i32) {
        let word = self.word.load(Acquire);
        (State::of(word), (word & 0x0fff_ffff) as i32)
    }

    /// Goes from one state to another, if it is in the former; the generation is the same.
    pub(crate) fn change(&self, generation: u32, from: (State, i32), to: (State, i32)) -> bool {
        let (from, to) = (word(generation, from.0, from.1), word(generation, to.0, to.1));
        self.word.compare_exchange(from, to, AcqRel, Acquire).is_ok()
    }

    /// The session is gone: whoever has something of it finds another generation.
    pub(crate) fn vacate(&self) {
        let next = self.generation().wrapping_add(1);
        self.word.store(word(next, State::Unused, 0), Release);
    }

    /// The session is open, with this process of the node's, which is cancelled by this key.
    pub fn tell(&self, backend: i32, cancel_key: i32, now: i64) {
        self.backend.store(backend, Relaxed);
        self.cancel_key.store(cancel_key, Relaxed);
        self.opened.store(now, Relaxed);
        self.changed.store(now, Relaxed);
    }

    /// The node's process, and the key by which it is cancelled.
    pub fn told(&self) -> (i32, i32) {
        (self.backend.load(Relaxed), self.cancel_key.load(Relaxed))
    }

    /// It is given back now.
    pub fn note_change(&self, now: i64) {
        self.changed.store(now, Relaxed);
    }

    /// What the session knows; only who has it asks.
    pub fn fact(&self, fact: Fact) -> u64 {
        self.facts[fact.0].load(Relaxed)
    }

    /// Notes it; only who has it does so.
    pub fn note(&self, fact: Fact, value: u64) {
        self.facts[fact.0].store(value, Relaxed);
    }
}
