//! The places of those who wait.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

pub(crate) const WAITERS: usize = 2048;

pub(crate) const NOTHING: u32 = 0;
pub(crate) const WAITS: u32 = 1;
pub(crate) const HAS_SESSION: u32 = 2;
pub(crate) const HAS_ROOM: u32 = 3;

#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Waiter {
    pub(crate) state: AtomicU32,
    pub(crate) owner: AtomicI32,
    /// Its turn.
    pub(crate) turn: AtomicU64,
    pub(crate) group: AtomicU32,
    /// How many sessions the node may have for it.
    pub(crate) most: AtomicU32,
    pub(crate) slot: AtomicU32,
    pub(crate) generation: AtomicU32,
}
