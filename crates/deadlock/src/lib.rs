//! Deadlocks over several servers: which backends of coordinators wait for each other in a circle, and which of them gives way.
//!
//! PostgreSQL finds the deadlocks of one server. Over several servers each sees a part: a backend of a coordinator waits on one node
//! for a process that serves another backend, which waits on another node. Whoever has waited for some time takes a [`Look`] at all
//! servers; [`Look::and`] keeps what a second look shows unchanged, and [`Waits::verdict`] tells whether the asker is the one to give way.
//! All who wait in a circle look by themselves and come to the same answer, so that nobody has to be told, or cancelled.
//!
//! Three things look like a deadlock and are none:
//!
//! * Looks at different servers are of different moments. A wait that began before the first look and goes on in the second has lasted
//!   in between, and so have all of a circle: there was a moment at which all of them waited.
//! * A lock on a tuple's place in the queue, or on a page, is released before the transaction ends. Its holder
//!   blocks others only as long as it waits on that server itself. Such edges are reduced as the global deadlock detector of Greenplum
//!   does it (`src/backend/utils/gdd/README.md` there).
//! * A prepared transaction ends by itself, or by whoever recovers it: nobody gives way for it.

/// Which backend of which coordinator a session serves.
mod identity;

pub use identity::Identity;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A server that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub usize);

impl Place {
    /// The server of whoever looks.
    pub const HERE: Self = Self(0);
}

/// Who waits, or is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// A backend of a coordinator.
    Backend(Identity),
    /// Another process of a server.
    Process(Place, i32),
}

/// How long a lock is held that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// To the end of the transaction.
    Transaction,
    /// As long as its holder does something on that server.
    Moment,
}

impl Hold {
    /// By PostgreSQL's name of what is locked (`pg_locks.locktype`).
    pub fn of_lock(name: &str) -> Self {
        match name {
            "tuple" | "extend" | "page" | "spectoken" => Self::Moment,
            _ => Self::Transaction,
        }
    }
}

/// A process that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Where.
    pub place: Place,
    /// The process.
    pub pid: i32,
    /// Since when, in the words of that server.
    pub since: String,
    /// How long what it waits for is held.
    pub hold: Hold,
    /// The processes it waits for; 0 is a prepared transaction.
    pub holders: Vec<i32>,
    /// The table of the row or lock, if it is known.
    pub table: Option<String>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Look {
    waits: Vec<Wait>,
    served: BTreeMap<(Place, i32), Identity>,
}

impl Look {
    /// A process serves this backend.
    pub fn serves(&mut self, place: Place, pid: i32, backend: Identity) {
        self.served.insert((place, pid), backend);
    }

    /// A process waits.
    pub fn waits(&mut self, wait: Wait) {
        self.waits.push(wait);
    }

    /// A backend waits somewhere.
    pub fn is_waiting(&self, backend: Identity) -> bool {
        self.waits.iter().any(|wait| self.member(wait.place, wait.pid) == Member::Backend(backend))
    }

    fn member(&self, place: Place, pid: i32) -> Member {
        self.served
            .get(&(place, pid))
            .map_or(Member::Process(place, pid), |identity| Member::Backend(*identity))
    }

    /// The waits of this look alone.
    pub fn alone(&self) -> Waits {
        let mut edges = Vec::new();
        for wait in &self.waits {
            // Zero is a prepared transaction.
            for holder in wait.holders.iter().filter(|holder| **holder != 0) {
                edges.push(Edge {
                    waiter: self.member(wait.place, wait.pid),
                    holder: self.member(wait.place, *holder),
                    pids: (wait.pid, *holder),
                    place: wait.place,
                    since: wait.since.clone(),
                    hold: wait.hold,
                    table: wait.table.clone(),
                });
            }
        }
        Waits(edges)
    }

    /// The waits that a later look shows unchanged.
    pub fn and(&self, later: &Self) -> Waits {
        let mut waits = self.alone();
        let then = later.alone();
        waits.0.retain(|edge| then.0.contains(edge));
        waits
    }
}

/// Somebody waits for somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edge {
    waiter: Member,
    holder: Member,
    pids: (i32, i32),
    place: Place,
    since: String,
    hold: Hold,
    table: Option<String>,
}

/// Who waits for whom.
#[derive(Clone, Debug, Default)]
pub struct Waits(Vec<Edge>);

/// A step of a circle: who waits where, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who waits.
    pub waiter: Member,
    /// Where.
    pub place: Place,
    /// The process that waits there.
    pub pid: i32,
    /// The table of the row or lock, if it is known.
    pub table: Option<String>,
    /// For whom.
    pub holder: Member,
}

/// What whoever looks has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To go on waiting: it is in no circle.
    Waits,
    /// To go on waiting: another one of its circle gives way.
    AnotherGivesWay,
    /// To give way. The circle begins with it.
    GivesWay(Vec<Step>),
}

impl Waits {
    /// What `asker` has to do. `begun` tells when a backend's transaction began, if that is known: the youngest of those that wait on
    /// a node gives way. Where it is not known of all of them, the one that has begun to wait last does.
    pub fn verdict(mut self, asker: Identity, begun: &dyn Fn(Identity) -> Option<i64>) -> Verdict {
        self.reduce();
        let asker = Member::Backend(asker);
        let circle = self.connected_with(asker);
        let edges: Vec<&Edge> = self
            .0
            .iter()
            .filter(|edge| circle.contains(&edge.waiter) && circle.contains(&edge.holder))
            .collect();
        if !circle.contains(&asker) || edges.is_empty() || is_seen_by_a_server(&edges) {
            return Verdict::Waits;
        }
        match victim(&edges, begun) {
            Some(victim) if victim == asker => Verdict::GivesWay(shortest_circle(&edges, asker)),
            Some(_) => Verdict::AnotherGivesWay,
            None => Verdict::Waits,
        }
    }

    /// Takes away what cannot be part of a deadlock.
    fn reduce(&mut self) {
        loop {
            let before = self.0.len();
            let waiters: BTreeSet<Member> = self.0.iter().map(|edge| edge.waiter).collect();
            let holders: BTreeSet<Member> = self.0.iter().map(|edge| edge.holder).collect();
            let waiting_there: BTreeSet<(Place, Member)> =
                self.0.iter().map(|edge| (edge.place, edge.waiter)).collect();
            self.0.retain(|edge| {
                // Who waits for nobody goes on, and whom nobody waits for is in no circle.
                waiters.contains(&edge.holder)
                    && holders.contains(&edge.waiter)
                    // Who does not wait on that server releases such a lock soon.
                    && (edge.hold == Hold::Transaction
                        || waiting_there.contains(&(edge.place, edge.holder)))
            });
            if self.0.len() == before {
                return;
            }
        }
    }

    /// Those that a member waits for, directly or not, and that wait for it.
    fn connected_with(&self, member: Member) -> BTreeSet<Member> {
        let onward = self.reach(member, |edge| (edge.waiter, edge.holder));
        let backward = self.reach(member, |edge| (edge.holder, edge.waiter));
        onward.intersection(&backward).copied().collect()
    }

    fn reach(&self, from: Member, ends: impl Fn(&Edge) -> (Member, Member)) -> BTreeSet<Member> {
        let mut reached = BTreeSet::new();
        let mut left = vec![from];
        while let Some(member) = left.pop() {
            for edge in &self.0 {
                let (near, far) = ends(edge);
                if near == member && reached.insert(far) {
                    left.push(far);
                }
            }
        }
        reached
    }
}

/// Processes of one server wait for each other in a circle: that server breaks it.
fn is_seen_by_a_server(edges: &[&Edge]) -> bool {
    let mut left: Vec<(Place, i32, i32)> =
        edges.iter().map(|edge| (edge.place, edge.pids.0, edge.pids.1)).collect();
    loop {
        let before = left.len();
        let waiters: BTreeSet<(Place, i32)> = left.iter().map(|it| (it.0, it.1)).collect();
        left.retain(|(place, _, holder)| waiters.contains(&(*place, *holder)));
        if left.len() == before {
            return !left.is_empty();
        }
    }
}

/// Who gives way: a backend that waits on a node, where it looks while it waits.
fn victim(edges: &[&Edge], begun: &dyn Fn(Identity) -> Option<i64>) -> Option<Member> {
    let waits = edges.iter().filter(|edge| edge.place != Place::HERE);
    let mut latest: BTreeMap<Identity, &str> = BTreeMap::new();
    for edge in waits {
        if let Member::Backend(backend) = edge.waiter {
            let since = latest.entry(backend).or_default();
            *since = (*since).max(&edge.since);
        }
    }
    let ages: Option<Vec<(i64, Identity)>> =
        latest.keys().map(|backend| Some((begun(*backend)?, *backend))).collect();
    let victim = match ages {
        Some(ages) => ages.into_iter().max().map(|(_, backend)| backend),
        None => latest.into_iter().map(|(backend, since)| (since, backend)).max().map(|(_, it)| it),
    };
    victim.map(Member::Backend)
}

/// The shortest way from a member back to itself.
fn shortest_circle(edges: &[&Edge], member: Member) -> Vec<Step> {
    let mut ways: VecDeque<Vec<&Edge>> =
        edges.iter().filter(|edge| edge.waiter == member).map(|edge| vec![*edge]).collect();
    let mut seen: BTreeSet<Member> = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        let Some(end) = way.last().map(|edge| edge.holder) else { break };
        if end == member {
            return way.into_iter().map(step).collect();
        }
        if seen.insert(end) {
            for edge in edges.iter().filter(|edge| edge.waiter == end) {
                let mut longer = way.clone();
                longer.push(edge);
                ways.push_back(longer);
            }
        }
    }
    Vec::new()
}

fn step(edge: &Edge) -> Step {
    Step {
        waiter: edge.waiter,
        place: edge.place,
        pid: edge.pids.0,
        table: edge.table.clone(),
        holder: edge.holder,
    }
}

#[cfg(test)]
mod tests;
