//! The commits over several nodes that a coordinator is deciding, and times for its readers.
//!
//! A transaction over several nodes is in doubt on those that have prepared it until they are told the outcome. A reader whose
//! time may be after the commit has to wait there. But its coordinator knows more than the nodes: what is not decided
//! yet can get a time after the reader's, and so the reader does not wait for it.
//!
//! From just before the decision until all nodes have done what was decided, a transaction is among the *decisions*, with
//! a time before which it does not commit. A reader gets a time before all of these, if that is late enough for
//! it; later decisions then get later times. Such a time is *settled*: whatever is in doubt commits after it.
//!
//! What a crash has left in doubt is not among the decisions. A database's times are settled only when somebody has seen that
//! nothing was left of its transactions.

use crate::clock::Time;
use std::time::Duration;

/// How many databases can have settled times.
const DATABASES: usize = 32;

/// A reader's time is not further back than this.
const LAG: Duration = Duration::from_millis(300);

/// A commit that is being decided, or is decided and not done everywhere.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Decision {
    /// It does not commit before.
    bound: Time,
    owner: u32,
    database: u32,
}

/// What stands before the decisions.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Head {
    /// Later decisions get later times.
    promised: Time,
    decisions: usize,
    /// How often something was left in doubt.
    left: u64,
    /// Databases of whose transactions nothing is left in doubt.
    clean: [u32; DATABASES],
}

/// A time for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The time.
    pub at: Time,
    /// Whatever this coordinator has in doubt commits later.
    pub is_settled: bool,
    /// Nothing is known to be left in doubt by a crash or a failure.
    pub is_clean: bool,
}

/// The decisions of a coordinator, in memory of whoever owns it.
#[derive(Debug)]
pub struct Decisions<'a> {
    head: &'a mut Head,
    decisions: &'a mut [Decision],
}

impl<'a> Decisions<'a> {
    /// Over memory that is all zero, or was used before, with room for a decision of each process.
    pub fn new(head: &'a mut Head, decisions: &'a mut [Decision]) -> Self {
        Self { head, decisions }
    }

    /// A process is about to decide, not before `least`. Tells the time before which the transaction must not commit. None if there
    /// is no room.
    pub fn begin(&mut self, owner: u32, database: u32, least: Time) -> Option<Time> {
        if self.place_of(owner).is_some() {
            // What became of the earlier one nobody has said.
            self.end(owner, false);
        }
        let bound = least.max(self.head.promised.next());
        let place = self.decisions.get_mut(self.head.decisions)?;
        *place = Decision { bound, owner, database };
        self.head.decisions += 1;
        Some(bound)
    }

    /// The transaction has committed at that time; other nodes have still to be told.
    pub fn decide(&mut self, owner: u32, time: Time) {
        if let Some(at) = self.place_of(owner) {
            self.decisions[at].bound = self.decisions[at].bound.max(time);
        }
    }

    /// The transaction is over, if `is_done` on all nodes.
    pub fn end(&mut self, owner: u32, is_done: bool) {
        let Some(at) = self.place_of(owner) else { return };
        let database = self.decisions[at].database;
        self.head.decisions -= 1;
        self.decisions[at] = self.decisions[self.head.decisions];
        if !is_done {
            self.leave(database);
        }
    }

    /// Something was left in doubt.
    pub fn leave(&mut self, database: u32) {
        self.head.left += 1;
        self.head.clean.iter_mut().filter(|known| **known == database).for_each(|it| *it = 0);
    }

    /// How often something was left in doubt.
    pub fn left(&self) -> u64 {
        self.head.left
    }

    /// Nothing is left in doubt of a database's transactions, unless since [`Self::left`] was that.
    pub fn settle(&mut self, database: u32, left: u64) {
        if left != self.head.left || self.is_clean(database) {
            return;
        }
        if let Some(place) = self.head.clean.iter_mut().find(|known| **known == 0) {
            *place = database;
        }
    }

    fn is_clean(&self, database: u32) -> bool {
        self.head.clean.contains(&database)
    }

    /// Chooses a time for a reader: not before `least`, and as late as can be had without waiting.
    pub fn choose(&mut self, database: u32, least: Time, now: Time) -> Chosen {
        let decisions = &self.decisions[..self.head.decisions];
        let first = decisions.iter().map(|decision| decision.bound).min();
        let latest = first.map_or(now, |first| now.min(first.previous()));
        let at = latest.max(least).max(now.minus(LAG));
        let is_clean = self.is_clean(database);
        let is_settled = is_clean && first.is_none_or(|first| first > at);
        if is_settled {
            self.head.promised = self.head.promised.max(at);
        }
        Chosen { at, is_settled, is_clean }
    }

    /// Ends the decisions of processes that are gone.
    pub fn end_of_the_dead(&mut self, is_alive: &mut dyn FnMut(u32) -> bool) {
        let mut at = 0;
        while at < self.head.decisions {
            let owner = self.decisions[at].owner;
            match is_alive(owner) {
                true => at += 1,
                false => self.end(owner, false),
            }
        }
    }

    fn place_of(&self, owner: u32) -> Option<usize> {
        self.decisions[..self.head.decisions].iter().position(|known| known.owner == owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: u32 = 5;

    #[derive(Default)]
    struct Owned(Head, [Decision; 3]);

    impl Owned {
        fn clean() -> Self {
            let mut owned = Self::default();
            owned.decisions().settle(HERE, 0);
            owned
        }

        fn decisions(&mut self) -> Decisions<'_> {
            Decisions::new(&mut self.0, &mut self.1)
        }

        fn choose(&mut self, least: i64, now: i64) -> Chosen {
            self.decisions().choose(HERE, at(least), at(now))
        }
    }

    fn at(micros: i64) -> Time {
        Time::of_micros(1_000_000_000 + micros)
    }

    fn settled(time: Time) -> Chosen {
        Chosen { at: time, is_settled: true, is_clean: true }
    }

    #[test]
    fn a_reader_reads_before_what_is_being_decided() {
        let mut owned = Owned::clean();
        assert_eq!(owned.choose(0, 50), settled(at(50)));
        let bound = owned.decisions().begin(1, HERE, at(10)).expect("there is room");
        assert!(bound > at(50));
        assert_eq!(owned.choose(20, 90), settled(bound.previous()));
        owned.decisions().decide(1, at(80));
        assert_eq!(owned.choose(20, 90), settled(at(80).previous()));
        owned.decisions().end(1, true);
        assert_eq!(owned.choose(20, 90), settled(at(90)));
    }

    #[test]
    fn what_was_acknowledged_is_read_though_others_are_being_decided() {
        let mut owned = Owned::clean();
        let bound = owned.decisions().begin(1, HERE, at(10)).expect("there is room");
        assert_eq!(bound, at(10));
        assert_eq!(owned.choose(20, 90), Chosen { at: at(20), is_settled: false, is_clean: true });
    }

    #[test]
    fn a_decision_that_takes_long_does_not_keep_readers_in_the_past() {
        let mut owned = Owned::clean();
        owned.decisions().begin(1, HERE, at(10)).expect("there is room");
        let now = at(10).plus(Duration::from_secs(1));
        let chosen = owned.decisions().choose(HERE, at(0), now);
        assert_eq!(chosen, Chosen { at: now.minus(LAG), is_settled: false, is_clean: true });
    }

    #[test]
    fn no_time_is_settled_while_something_is_left_in_doubt() {
        let mut owned = Owned::clean();
        owned.decisions().begin(1, HERE, at(10));
        let left = owned.decisions().left();
        owned.decisions().end(1, false);
        assert!(!owned.choose(20, 90).is_settled);
        owned.decisions().settle(HERE, left);
        assert!(!owned.choose(20, 90).is_settled);
        let left = owned.decisions().left();
        owned.decisions().settle(HERE, left);
        assert!(owned.choose(20, 90).is_settled);
        // A process that begins anew has not ended what it had begun before.
        owned.decisions().begin(1, HERE, at(10));
        owned.decisions().begin(1, HERE, at(200));
        assert!(!owned.choose(20, 90).is_settled);
    }

    #[test]
    fn a_server_that_was_just_started_knows_of_no_database_what_is_in_doubt() {
        let mut owned = Owned::default();
        assert_eq!(owned.choose(0, 50), Chosen { at: at(50), is_settled: false, is_clean: false });
    }

    #[test]
    fn what_a_process_was_deciding_that_is_gone_is_in_doubt() {
        let mut owned = Owned::clean();
        owned.decisions().begin(1, HERE, at(10));
        owned.decisions().begin(2, HERE, at(10));
        owned.decisions().end_of_the_dead(&mut |owner| owner == 2);
        assert!(!owned.choose(0, 90).is_clean);
        owned.decisions().end(2, true);
        assert_eq!(owned.choose(0, 90).at, at(90));
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let mut owned = Owned::clean();
        for owner in 1..=3 {
            assert!(owned.decisions().begin(owner, HERE, at(10)).is_some());
        }
        assert_eq!(owned.decisions().begin(4, HERE, at(10)), None);
    }
}
