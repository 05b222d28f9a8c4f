//! Those who wait for a session, in order.

use crate::queue::{HAS_ROOM, HAS_SESSION, NOTHING, WAITS};
use crate::table::Table;
use crate::{Lease, Refused};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

/// A place among those who wait.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket(pub(crate) usize);

/// What whoever waits has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// Nothing yet.
    Nothing,
    /// A session.
    Session(Lease),
    /// Room to open one.
    Room(Lease),
}

impl Table {
    /// Somebody waits for a session of the group's node: whoever may wait goes to the end of the queue.
    pub fn has_queue(&self, group: usize) -> bool {
        let node = self.groups[group].node.load(Relaxed) as usize;
        self.waiting[node].load(SeqCst) > 0
    }

    pub(crate) fn awaits(&self, group: usize) -> bool {
        let length = self.queue.load(Acquire) as usize;
        self.waiters[..length].iter().any(|waiter| {
            waiter.state.load(Acquire) != NOTHING && waiter.group.load(Relaxed) as usize == group
        })
    }

    /// Begins to wait; none if too many do.
    pub fn wait(
        &self,
        group: usize,
        owner: i32,
        most: u32,
        wake: &mut dyn FnMut(i32),
    ) -> Option<Ticket> {
        let node = self.groups[group].node.load(Relaxed);
        let at = {
            let _locked = self.lock();
            let at = self.waiters.iter().position(|it| it.state.load(Relaxed) == NOTHING)?;
            let waiter = &self.waiters[at];
            waiter.owner.store(owner, Relaxed);
            waiter.group.store(group as u32, Relaxed);
            waiter.most.store(most, Relaxed);
            waiter.turn.store(self.tickets.fetch_add(1, Relaxed), Relaxed);
            waiter.state.store(WAITS, Release);
            self.queue.fetch_max(at as u32 + 1, Release);
            self.waiting[node as usize].fetch_add(1, SeqCst);
            at
        };
        fence(SeqCst);
        // What was given back before somebody was seen to wait.
        self.serve(node, wake);
        Some(Ticket(at))
    }

    /// What the ticket's owner has got.
    pub fn granted(&self, ticket: &Ticket) -> Granted {
        let waiter = &self.waiters[ticket.0];
        let state = waiter.state.load(Acquire);
        let lease = Lease {
            slot: waiter.slot.load(Relaxed) as usize,
            generation: waiter.generation.load(Relaxed),
        };
        match state {
            HAS_SESSION => Granted::Session(lease),
            HAS_ROOM => Granted::Room(lease),
            _ => Granted::Nothing,
        }
    }

    /// Gives the place up, with what was granted to it, which is the caller's.
    pub fn take(&self, ticket: Ticket, wake: &mut dyn FnMut(i32)) -> Granted {
        let (granted, node) = {
            let _locked = self.lock();
            let granted = self.granted(&ticket);
            (granted, self.forget(ticket.0))
        };
        if granted == Granted::Nothing {
            // Those behind may get what was kept for it.
            self.serve(node, wake);
        }
        granted
    }

    fn forget(&self, at: usize) -> u32 {
        let waiter = &self.waiters[at];
        let node = self.groups[waiter.group.load(Relaxed) as usize].node.load(Relaxed);
        if waiter.state.load(Relaxed) == WAITS {
            self.waiting[node as usize].fetch_sub(1, SeqCst);
        }
        waiter.state.store(NOTHING, Release);
        node
    }

    /// A process that ends waits no longer.
    pub(crate) fn stop_waiting(&self, owner: i32, wake: &mut dyn FnMut(i32)) {
        let length = self.queue.load(Acquire) as usize;
        for at in 0..length {
            let waiter = &self.waiters[at];
            if waiter.state.load(Acquire) != NOTHING && waiter.owner.load(Relaxed) == owner {
                let node = {
                    let _locked = self.lock();
                    self.forget(at)
                };
                self.serve(node, wake);
            }
        }
    }

    /// Gives those who wait for a node's sessions what there is, in order.
    pub fn serve(&self, node: u32, wake: &mut dyn FnMut(i32)) {
        if self.waiting[node as usize].load(SeqCst) == 0 {
            return;
        }
        let mut served = Vec::new();
        {
            let _locked = self.lock();
            let length = self.queue.load(Acquire) as usize;
            let next = || {
                let of_node = self.waiters[..length].iter().filter(|waiter| {
                    let group = waiter.group.load(Relaxed) as usize;
                    waiter.state.load(Relaxed) == WAITS
                        && self.groups[group].node.load(Relaxed) == node
                });
                of_node.min_by_key(|waiter| waiter.turn.load(Relaxed))
            };
            while let Some(waiter) = next() {
                let group = waiter.group.load(Relaxed) as usize;
                let owner = waiter.owner.load(Relaxed);
                let (state, lease) = match self.claim(group, owner) {
                    Some(lease) => (HAS_SESSION, lease),
                    None => match self.reserve_locked(group, owner, waiter.most.load(Relaxed)) {
                        Ok(lease) => (HAS_ROOM, lease),
                        Err(Refused::Node | Refused::Table) => break,
                    },
                };
                waiter.slot.store(lease.slot as u32, Relaxed);
                waiter.generation.store(lease.generation, Relaxed);
                waiter.state.store(state, Release);
                self.waiting[node as usize].fetch_sub(1, SeqCst);
                served.push(owner);
            }
        }
        served.into_iter().for_each(wake);
    }

    /// How many wait for a node's sessions.
    pub fn waiting(&self, node: u32) -> u32 {
        self.waiting[node as usize].load(Relaxed)
    }
}
