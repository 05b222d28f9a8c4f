//! The table: groups of sessions that may stand for each other, and their slots.

use crate::queue::{WAITERS, Waiter};
use crate::slot::Slot;
use crate::{Digest, Lease, Seen, State};
use std::array::from_fn;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

/// Sessions of all nodes together.
pub const SLOTS: usize = 512;

/// Sessions of one group.
pub const MEMBERS: usize = 64;

pub(crate) const GROUPS: usize = 256;
pub(crate) const NODES: usize = 256;

/// Which sessions may stand for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Of everything by which a session is opened.
    pub digest: Digest,
    /// The node's number, below 256.
    pub node: u32,
    /// The database's OID.
    pub database: u32,
    /// The OID of the role of the log-in.
    pub role: u32,
}

/// How many sessions a node may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At most, for whoever holds one already.
    pub all: u32,
    /// At most, for whoever holds none: what is left is for those who cannot wait.
    pub first: u32,
}

impl Limits {
    /// A quarter is kept for those who hold a session already.
    pub fn of(most: u32) -> Self {
        let most = most.max(1);
        Self { all: most, first: (most - most / 4).max(1) }
    }

    /// The one that counts.
    pub fn for_who(self, holds_one: bool) -> u32 {
        if holds_one { self.all } else { self.first }
    }
}

/// Why there is no room for another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The node has as many as it may have.
    Node,
    /// The table is full.
    Table,
}

#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Group {
    high: AtomicU64,
    low: AtomicU64,
    pub(crate) node: AtomicU32,
    database: AtomicU32,
    role: AtomicU32,
    /// As many places as were ever in use.
    length: AtomicU32,
    /// When each was given back; 0 if it is not free.
    free: [AtomicU64; MEMBERS],
    /// The number of each one's slot, and one; 0 if there is none.
    slots: [AtomicU32; MEMBERS],
}

/// All sessions of a server.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Table {
    lock: AtomicU32,
    /// Counts what is given back.
    clock: AtomicU64,
    /// Changes when all sessions are to be opened anew.
    epoch: AtomicU32,
    /// How many sessions each node has.
    pub(crate) counts: [AtomicU32; NODES],
    /// How many wait for each.
    pub(crate) waiting: [AtomicU32; NODES],
    pub(crate) tickets: AtomicU64,
    /// Places of those who wait that were ever in use.
    pub(crate) queue: AtomicU32,
    pub(crate) groups: [Group; GROUPS],
    pub(crate) waiters: [Waiter; WAITERS],
    slots: [Slot; SLOTS],
}

impl Default for Group {
    fn default() -> Self {
        let (high, low) = Default::default();
        let (node, database, role, length) = Default::default();
        let (free, slots) = (from_fn(|_| AtomicU64::new(0)), from_fn(|_| AtomicU32::new(0)));
        Self { high, low, node, database, role, length, free, slots }
    }
}

impl Default for Table {
    fn default() -> Self {
        let (lock, clock, epoch, tickets, queue) = Default::default();
        Self {
            lock,
            clock,
            epoch,
            counts: from_fn(|_| AtomicU32::new(0)),
            waiting: from_fn(|_| AtomicU32::new(0)),
            tickets,
            queue,
            groups: from_fn(|_| Group::default()),
            waiters: from_fn(|_| Waiter::default()),
            slots: from_fn(|_| Slot::default()),
        }
    }
}

/// The critical section. Nothing in it can fail or wait.
pub(crate) struct Locked<'a>(&'a AtomicU32);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.store(0, Release);
    }
}

impl Table {
    pub(crate) fn lock(&self) -> Locked<'_> {
        let mut tries = 0u32;
        while self.lock.compare_exchange_weak(0, 1, Acquire, Relaxed).is_err() {
            tries += 1;
            if tries.is_multiple_of(100) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
        Locked(&self.lock)
    }

    /// The slot of a session.
    pub fn slot(&self, slot: usize) -> &Slot {
        &self.slots[slot]
    }

    /// The number of the time in which sessions are good.
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Acquire)
    }

    fn is(&self, group: usize, digest: Digest) -> bool {
        let group = &self.groups[group];
        group.high.load(Acquire) == digest.0 && group.low.load(Acquire) == digest.1
    }

    /// The group of this key, which is made if there is none. None if there are too many.
    pub fn group(&self, key: &Key) -> Option<usize> {
        if key.node as usize >= NODES {
            return None;
        }
        let _locked = self.lock();
        if let Some(known) = (0..GROUPS).find(|group| self.is(*group, key.digest)) {
            return Some(known);
        }
        let is_left = |group: &Group| {
            group.high.load(Relaxed) != 0 && group.slots.iter().all(|it| it.load(Relaxed) == 0)
        };
        let wanted = |at: usize| {
            let is_awaited = self.awaits(at);
            !is_awaited && is_left(&self.groups[at])
        };
        let empty = (0..GROUPS).find(|at| self.groups[*at].high.load(Relaxed) == 0);
        let place = empty.or_else(|| (0..GROUPS).find(|at| wanted(*at)))?;
        let group = &self.groups[place];
        group.high.store(0, Release);
        group.low.store(key.digest.1, Release);
        group.node.store(key.node, Relaxed);
        group.database.store(key.database, Relaxed);
        group.role.store(key.role, Relaxed);
        group.length.store(0, Relaxed);
        group.high.store(key.digest.0, Release);
        Some(place)
    }

    /// The group is still that of this digest.
    pub fn is_group(&self, group: usize, digest: Digest) -> bool {
        self.is(group, digest)
    }

    /// Lends the free session of the group that was given back last.
    pub fn claim(&self, group: usize, owner: i32) -> Option<Lease> {
        let places = &self.groups[group];
        let length = places.length.load(Acquire) as usize;
        // Others may be quicker; as often as there are places one is left to be tried.
        for _ in 0..=length {
            // The stamp is read once: one that is gone meanwhile does not mean that nothing is free.
            let stamps = (0..length).map(|at| (places.free[at].load(Acquire), at));
            let (stamp, newest) = stamps.max().filter(|(stamp, _)| *stamp > 0)?;
            let Some(slot) = (places.slots[newest].load(Acquire) as usize).checked_sub(1) else {
                // Its session is being closed.
                let _ = places.free[newest].compare_exchange(stamp, 0, SeqCst, Relaxed);
                continue;
            };
            let generation = self.slots[slot].generation();
            let is_there = self.slots[slot].group.load(Acquire) as usize == group;
            // Whoever takes the stamp away may take the session.
            if places.free[newest].compare_exchange(stamp, 0, SeqCst, Relaxed).is_err() {
                continue;
            }
            let (free, lent) = ((State::Free, 0), (State::Lent, owner));
            if is_there && self.slots[slot].change(generation, free, lent) {
                return Some(Lease { slot, generation });
            }
        }
        None
    }

    /// Room for another session, which this process is going to open: at most so many for the node.
    pub fn reserve(&self, group: usize, owner: i32, most: u32) -> Result<Lease, Refused> {
        let _locked = self.lock();
        self.reserve_locked(group, owner, most)
    }

    pub(crate) fn reserve_locked(
        &self,
        group: usize,
        owner: i32,
        most: u32,
    ) -> Result<Lease, Refused> {
        let node = self.groups[group].node.load(Relaxed);
        let count = &self.counts[node as usize];
        if count.load(Relaxed) >= most && !self.close_idle(Some(node), group) {
            return Err(Refused::Node);
        }
        if count.load(Relaxed) >= most {
            return Err(Refused::Node);
        }
        let places = &self.groups[group];
        let member = places.slots.iter().position(|it| it.load(Relaxed) == 0);
        let member = member.ok_or(Refused::Node)?;
        let unused = || self.slots.iter().position(|slot| slot.now().0 == State::Unused);
        let found = unused().or_else(|| self.close_idle(None, group).then(unused).flatten());
        let at = found.ok_or(Refused::Table)?;
        let slot = &self.slots[at];
        let generation = slot.generation();
        if !slot.change(generation, (State::Unused, 0), (State::Opening, owner)) {
            return Err(Refused::Table);
        }
        slot.group.store(group as u32, Release);
        slot.member.store(member as u32, Relaxed);
        slot.is_doomed.store(false, Relaxed);
        slot.statements.clear();
        slot.facts.iter().for_each(|fact| fact.store(0, Relaxed));
        slot.tell(0, 0, 0);
        places.free[member].store(0, Relaxed);
        places.slots[member].store(at as u32 + 1, Release);
        places.length.fetch_max(member as u32 + 1, Release);
        count.fetch_add(1, Relaxed);
        Ok(Lease { slot: at, generation })
    }

    /// Makes room: closes the free session of another group that was unused for longest, or else one that its process does not need
    /// now. False if there is none.
    fn close_idle(&self, node: Option<u32>, not: usize) -> bool {
        let of = |slot: &Slot| slot.group.load(Relaxed) as usize;
        let is_near =
            |slot: &Slot| node.is_none_or(|node| self.groups[of(slot)].node.load(Relaxed) == node);
        let rank = |slot: &&Slot| match slot.now().0 {
            State::Free if is_near(slot) && of(slot) != not => {
                let member = slot.member.load(Relaxed) as usize;
                Some((0, self.groups[of(slot)].free[member].load(Relaxed)))
            }
            State::Kept if is_near(slot) => Some((1, slot.changed.load(Relaxed).cast_unsigned())),
            _ => None,
        };
        let ranked = || {
            let all = self.slots.iter().filter_map(|slot| Some((rank(&slot)?, slot)));
            all.min_by_key(|(rank, _)| *rank).map(|(_, slot)| slot)
        };
        while let Some(slot) = ranked() {
            let (generation, now) = (slot.generation(), slot.now());
            let is_idle = matches!(now.0, State::Free | State::Kept);
            if is_idle && slot.change(generation, now, (State::Closing, 0)) {
                self.vacate(slot);
                return true;
            }
        }
        false
    }

    /// Frees the slot; the lock is held.
    fn vacate(&self, slot: &Slot) {
        let group = &self.groups[slot.group.load(Relaxed) as usize];
        let member = slot.member.load(Relaxed) as usize;
        group.free[member].store(0, Relaxed);
        group.slots[member].store(0, Release);
        self.counts[group.node.load(Relaxed) as usize].fetch_sub(1, Relaxed);
        slot.vacate();
    }

    /// It is open: the process that has opened it has it.
    pub fn opened(&self, lease: Lease, owner: i32) -> bool {
        let slot = &self.slots[lease.slot];
        slot.change(lease.generation, (State::Opening, owner), (State::Lent, owner))
    }

    /// Gives a session back, which is good and has nothing under way. False if it is to be closed and retired. `wake` is called
    /// for each process that has waited and has got something.
    pub fn give_back(&self, lease: Lease, owner: i32, wake: &mut dyn FnMut(i32)) -> bool {
        let slot = &self.slots[lease.slot];
        if slot.is_doomed.load(SeqCst) {
            return false;
        }
        let group = &self.groups[slot.group.load(Relaxed) as usize];
        let node = group.node.load(Relaxed);
        let member = slot.member.load(Relaxed) as usize;
        let stamp = self.clock.fetch_add(1, Relaxed) + 1;
        if !slot.change(lease.generation, (State::Lent, owner), (State::Free, 0)) {
            return false;
        }
        group.free[member].store(stamp, SeqCst);
        fence(SeqCst);
        if slot.is_doomed.load(SeqCst) {
            self.reap(&|seen| seen.lease == lease);
        }
        if self.waiting[node as usize].load(SeqCst) > 0 {
            self.serve(node, wake);
        }
        true
    }

    /// The process keeps the session, and does not need it now.
    pub fn keep(&self, lease: Lease, owner: i32, wake: &mut dyn FnMut(i32)) {
        let slot = &self.slots[lease.slot];
        let node = self.groups[slot.group.load(Relaxed) as usize].node.load(Relaxed);
        if slot.change(lease.generation, (State::Lent, owner), (State::Kept, owner)) {
            fence(SeqCst);
            self.serve(node, wake);
        }
    }

    /// The process needs it again; false if it was closed meanwhile, or is to be.
    pub fn need(&self, lease: Lease, owner: i32) -> bool {
        let slot = &self.slots[lease.slot];
        slot.change(lease.generation, (State::Kept, owner), (State::Lent, owner))
            && !slot.is_doomed.load(SeqCst)
    }

    /// The session is gone, or could not be opened.
    pub fn retire(&self, lease: Lease, owner: i32, wake: &mut dyn FnMut(i32)) {
        let slot = &self.slots[lease.slot];
        let node = {
            let _locked = self.lock();
            let is_mine = slot.generation() == lease.generation
                && matches!(slot.now(), (State::Lent | State::Opening | State::Kept, who) if who == owner);
            if !is_mine {
                return;
            }
            let node = self.groups[slot.group.load(Relaxed) as usize].node.load(Relaxed);
            self.vacate(slot);
            node
        };
        self.serve(node, wake);
    }

    /// A process ends: what it has is retired, and it waits no longer.
    pub fn leave(&self, owner: i32, wake: &mut dyn FnMut(i32)) {
        self.stop_waiting(owner, wake);
        for at in 0..SLOTS {
            let slot = &self.slots[at];
            if let (State::Lent | State::Opening | State::Kept, who) = slot.now()
                && who == owner
            {
                let lease = Lease { slot: at, generation: slot.generation() };
                self.retire(lease, owner, wake);
            }
        }
    }

    /// Closes the free sessions of which `is_over` holds; how many.
    pub fn reap(&self, is_over: &dyn Fn(&Seen) -> bool) -> usize {
        let _locked = self.lock();
        let mut count = 0;
        for at in 0..SLOTS {
            let slot = &self.slots[at];
            let Some(seen) = self.seen(at).filter(|seen| seen.state == State::Free) else {
                continue;
            };
            if is_over(&seen)
                && slot.change(seen.lease.generation, (State::Free, 0), (State::Closing, 0))
            {
                self.vacate(slot);
                count += 1;
            }
        }
        count
    }

    /// Sessions of which `is_over` holds are lent to nobody any more: free ones are closed now, others when they are given back.
    pub fn doom(&self, is_over: &dyn Fn(&Seen) -> bool) {
        for at in 0..SLOTS {
            if self.seen(at).is_some_and(|seen| is_over(&seen)) {
                self.slots[at].is_doomed.store(true, SeqCst);
            }
        }
        fence(SeqCst);
        self.reap(is_over);
    }

    /// All sessions are to be opened anew.
    pub fn begin_epoch(&self) {
        self.epoch.fetch_add(1, SeqCst);
        self.doom(&|_| true);
    }

    fn seen(&self, at: usize) -> Option<Seen> {
        let slot = &self.slots[at];
        let generation = slot.generation();
        let (state, owner) = slot.now();
        if state == State::Unused {
            return None;
        }
        let group = &self.groups[slot.group.load(Relaxed) as usize];
        Some(Seen {
            lease: Lease { slot: at, generation },
            state,
            owner,
            node: group.node.load(Relaxed),
            database: group.database.load(Relaxed),
            role: group.role.load(Relaxed),
            backend: slot.backend.load(Relaxed),
            opened: slot.opened.load(Relaxed),
            changed: slot.changed.load(Relaxed),
            statements: slot.statements.count(),
        })
    }

    /// All sessions.
    pub fn all(&self) -> Vec<Seen> {
        (0..SLOTS).filter_map(|at| self.seen(at)).collect()
    }

    /// Somebody waits for a session of its node.
    pub fn is_wanted(&self, lease: Lease) -> bool {
        self.has_queue(self.slots[lease.slot].group.load(Relaxed) as usize)
    }

    /// The session is there, in whatever state.
    pub fn is_current(&self, lease: Lease) -> bool {
        let slot = &self.slots[lease.slot];
        slot.generation() == lease.generation && slot.now().0 != State::Unused
    }

    /// Gives all who wait what there is.
    pub fn serve_all(&self, wake: &mut dyn FnMut(i32)) {
        for node in 0..NODES as u32 {
            self.serve(node, wake);
        }
    }

    /// How many sessions a node has.
    pub fn count(&self, node: u32) -> u32 {
        self.counts[node as usize].load(Relaxed)
    }
}
