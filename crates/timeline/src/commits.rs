//! The recent commits of a server: events in, answers out.
//!
//! A transaction that has written is *in flight* from the moment at which it gets its time, just before it becomes visible, until
//! just after. One that is prepared is *in doubt* until it is decided. What has committed is kept in a ring, oldest overwritten
//! first.
//!
//! Three rules make a snapshot of the past safe, and they hold by what is answered here:
//!
//! * *Age only.* Nothing is ever shown that is not committed. What is in flight gets a time after the reader's, since nobody has
//!   been told its time yet. A reader waits for what is in doubt and may be older than its time.
//! * *Hide a suffix.* Whatever has a later time than the reader's is hidden, without exception. A transaction that has seen
//!   another has a later time, since its time is taken from the clock after the other's was.
//! * *Hold the horizon.* The server must not have removed what hidden transactions replaced. What has left the ring cannot be
//!   hidden, and times before it are refused; the rest is the server's affair.
//!
//! The reader's order is: [`Timeline::may_read`] until it is ready, take a snapshot, [`Timeline::hidden`].

use crate::clock::Time;

/// When a transaction has committed, as far as is known: not before `low`, and not after `high`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Span {
    /// Not before.
    pub low: Time,
    /// Not after.
    pub high: Time,
}

impl Span {
    fn exact(time: Time) -> Self {
        Self { low: time, high: time }
    }
}

/// A transaction that is committing.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Flight {
    xid: u32,
    has_children: bool,
    time: Time,
}

/// Bytes of a prepared transaction's name, as PostgreSQL bounds them.
const GID_BYTES: usize = 200;

/// The name of a prepared transaction.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Gid {
    length: u8,
    bytes: [u8; GID_BYTES],
}

impl Gid {
    /// From its bytes; none if it is too long.
    pub fn new(name: &[u8]) -> Option<Self> {
        let mut bytes = [0; GID_BYTES];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self { length: u8::try_from(name.len()).ok()?, bytes })
    }

    /// Its bytes.
    pub fn name(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length).min(GID_BYTES)]
    }
}

impl Default for Gid {
    fn default() -> Self {
        Self { length: 0, bytes: [0; GID_BYTES] }
    }
}

impl PartialEq for Gid {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl std::fmt::Debug for Gid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        String::from_utf8_lossy(self.name()).fmt(f)
    }
}

/// A prepared transaction.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Doubt {
    xid: u32,
    has_children: bool,
    /// Other servers take part, and its time is that of all of them. Otherwise it gets one when it is committed here.
    is_shared: bool,
    /// By which number the coordinator is known; 0 if it is not.
    coordinator: u64,
    /// It does not commit before.
    low: Time,
    gid: Gid,
}

/// A transaction that has committed.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Commit {
    xid: u32,
    has_children: bool,
    span: Span,
    /// The clock when it was noted, which never falls from one to the next, and is not before the commit.
    noted: Time,
}

/// What stands before the arrays.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Head {
    clock: Time,
    /// What was committed up to here cannot be hidden any more: earlier times are refused.
    floor: Time,
    flights: usize,
    doubts: usize,
    /// How many commits have been noted, ever.
    commits: u64,
    /// Transactions that were prepared before the server was started are known.
    knows_prepared: bool,
}

/// A transaction that a snapshot must not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// Its number.
    pub xid: u32,
    /// It has subtransactions.
    pub has_children: bool,
}

/// Why a time cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What was committed after it is not all known any more.
    TooOld,
    /// It lies too far in the future.
    TooFar,
    /// Whether some transaction had been committed by then is not known.
    Unsure,
}

/// Whether a snapshot may be taken now for reading at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Ready,
    /// When this transaction has ended; then ask again.
    Wait(u32),
    /// When what has just been done with a prepared transaction has been noted, a few microseconds later; then ask again.
    WaitForNote(u32),
    /// When the server's clock has gone on a little; then ask again.
    TooEarly,
    /// Never.
    Refused(Refusal),
}

/// The recent commits of a server, in memory of whoever owns it.
#[derive(Debug)]
pub struct Timeline<'a> {
    head: &'a mut Head,
    flights: &'a mut [Flight],
    doubts: &'a mut [Doubt],
    commits: &'a mut [Commit],
}

impl<'a> Timeline<'a> {
    /// Over memory that is all zero, or was used before. `flights` has room for all processes, `doubts` for all transactions that
    /// can be prepared, or are about to be; `commits` is not empty.
    pub fn new(
        head: &'a mut Head,
        flights: &'a mut [Flight],
        doubts: &'a mut [Doubt],
        commits: &'a mut [Commit],
    ) -> Self {
        Self { head, flights, doubts, commits }
    }

    /// The server has been started: of what was committed before no time is known, other than that it was not later.
    pub fn start(&mut self, own: Time) {
        *self.head = Head { clock: own, floor: own, ..Head::default() };
    }

    /// The clock now.
    pub fn now(&mut self, own: Time) -> Time {
        self.head.clock = self.head.clock.max(own);
        self.head.clock
    }

    /// The clock as it was when somebody looked last.
    pub fn clock(&self) -> Time {
        self.head.clock
    }

    /// A moment that no other has had.
    fn tick(&mut self, own: Time) -> Time {
        self.head.clock = self.head.clock.next().max(own);
        self.head.clock
    }

    /// The clock takes over a time that it was told, as far as that is not too far ahead of the server's own.
    pub fn hear(&mut self, time: Time, own: Time) -> Result<(), Answer> {
        if time > self.head.clock {
            if time > own.plus(Time::FAR) {
                return Err(Answer::Refused(Refusal::TooFar));
            }
            if time > own.plus(Time::AHEAD) {
                return Err(Answer::TooEarly);
            }
            self.head.clock = time;
        }
        Ok(())
    }

    /// A transaction is about to become visible, with a time not before `least`, which the clock has heard. None if there is no
    /// room.
    pub fn begin_commit(
        &mut self,
        xid: u32,
        has_children: bool,
        least: Time,
        own: Time,
    ) -> Option<Time> {
        let flight = self.flights.get_mut(self.head.flights)?;
        self.head.clock = self.head.clock.next().max(own).max(least);
        *flight = Flight { xid, has_children, time: self.head.clock };
        self.head.flights += 1;
        Some(self.head.clock)
    }

    /// It has become visible, or was aborted. Tells its time, which is not before the one of [`Self::begin_commit`].
    pub fn end_commit(&mut self, xid: u32, has_committed: bool) -> Option<Time> {
        let flights = &mut self.flights[..self.head.flights];
        let at = flights.iter().position(|flight| flight.xid == xid)?;
        let flight = flights[at];
        flights[at] = flights[flights.len() - 1];
        self.head.flights -= 1;
        if has_committed {
            self.note(flight.xid, flight.has_children, Span::exact(flight.time));
        }
        Some(flight.time)
    }

    fn note(&mut self, xid: u32, has_children: bool, span: Span) {
        let size = self.commits.len() as u64;
        let place = &mut self.commits[(self.head.commits % size) as usize];
        if self.head.commits >= size {
            self.head.floor = self.head.floor.max(place.span.high);
        }
        *place = Commit { xid, has_children, span, noted: self.head.clock };
        self.head.commits += 1;
    }

    /// A transaction is about to be prepared. If others take part, it is of this `coordinator`, and commits at a time that is
    /// agreed with them and is not before the one returned. None if there is no room.
    pub fn begin_prepare(
        &mut self,
        xid: u32,
        has_children: bool,
        gid: Gid,
        coordinator: Option<u64>,
        own: Time,
    ) -> Option<Time> {
        let low = self.tick(own);
        self.add_doubt(xid, has_children, gid, coordinator, low).then_some(low)
    }

    fn add_doubt(
        &mut self,
        xid: u32,
        has_children: bool,
        gid: Gid,
        coordinator: Option<u64>,
        low: Time,
    ) -> bool {
        let Some(doubt) = self.doubts.get_mut(self.head.doubts) else { return false };
        let (is_shared, coordinator) = (coordinator.is_some(), coordinator.unwrap_or(0));
        *doubt = Doubt { xid, has_children, is_shared, coordinator, low, gid };
        self.head.doubts += 1;
        true
    }

    /// Transactions that were prepared before the server was started are known.
    pub fn knows_prepared(&self) -> bool {
        self.head.knows_prepared
    }

    /// Tells of all prepared transactions, unless somebody has before: number, name, and the coordinator if others take part.
    pub fn tell_prepared(&mut self, prepared: impl Iterator<Item = (u32, Gid, Option<u64>)>) {
        if self.head.knows_prepared {
            return;
        }
        self.head.knows_prepared = true;
        for (xid, gid, coordinator) in prepared {
            if self.doubt_of(xid).is_none() {
                self.add_doubt(xid, true, gid, coordinator, Time::ZERO);
            }
        }
    }

    fn doubt_of(&self, xid: u32) -> Option<usize> {
        self.doubts[..self.head.doubts].iter().position(|doubt| doubt.xid == xid)
    }

    fn remove_doubt(&mut self, at: usize) -> Doubt {
        let doubt = self.doubts[at];
        self.head.doubts -= 1;
        self.doubts[at] = self.doubts[self.head.doubts];
        doubt
    }

    /// A transaction that was about to be prepared, or was, has been rolled back.
    pub fn forget(&mut self, xid: u32) {
        if let Some(at) = self.doubt_of(xid) {
            self.remove_doubt(at);
        }
    }

    /// The number of a prepared transaction.
    pub fn prepared(&self, gid: &Gid) -> Option<u32> {
        self.doubts[..self.head.doubts].iter().find(|doubt| doubt.gid == *gid).map(|it| it.xid)
    }

    /// A prepared transaction is about to become visible: not before the time returned, if no other is agreed.
    pub fn begin_prepared(&mut self, own: Time) -> Time {
        self.tick(own)
    }

    /// A prepared transaction has committed elsewhere at that time, which the clock has heard.
    pub fn agree(&mut self, xid: u32, time: Time) {
        if let Some(at) = self.doubt_of(xid) {
            self.doubts[at].low = self.doubts[at].low.max(time);
        }
    }

    /// The name of a prepared transaction.
    pub fn name_of(&self, xid: u32) -> Option<Gid> {
        self.doubt_of(xid).map(|at| self.doubts[at].gid)
    }

    /// It has become visible. Where others take part, it has committed there at the `agreed` time, which the clock had heard before; of
    /// a server that does not know when, it is at least known that it was not after that server's clock (`is_exact` is false
    /// then). Without any it is taken for granted that this server's clock is not behind. `begun` is from
    /// [`Self::begin_prepared`].
    pub fn end_prepared(&mut self, xid: u32, agreed: Option<Time>, is_exact: bool, begun: Time) {
        let Some(at) = self.doubt_of(xid) else { return };
        let doubt = self.remove_doubt(at);
        let now = self.head.clock;
        let span = match agreed {
            _ if !doubt.is_shared => Span::exact(begun),
            Some(time) if is_exact && time >= doubt.low && time <= now => Span::exact(time),
            Some(time) if time >= doubt.low && time <= now => Span { low: doubt.low, high: time },
            _ => Span { low: doubt.low, high: now },
        };
        self.note(doubt.xid, doubt.has_children, span);
    }

    /// When a transaction has committed that is visible: the time, and whether it is exact. Otherwise the transaction has committed by then:
    /// too many others have since, or the server has been started anew.
    pub fn committed(&self, xid: u32) -> (Time, bool) {
        // What has just become visible may not be noted yet. Its time is not moved any more.
        let flights = &self.flights[..self.head.flights];
        if let Some(flight) = flights.iter().find(|flight| flight.xid == xid) {
            return (flight.time, true);
        }
        let size = self.commits.len() as u64;
        let kept = 1..=self.head.commits.min(size);
        let mut commits =
            kept.map(|back| &self.commits[((self.head.commits - back) % size) as usize]);
        match commits.find(|commit| commit.xid == xid) {
            Some(commit) => (commit.span.high, commit.span.low == commit.span.high),
            None => (self.head.floor, false),
        }
    }

    /// Whether a snapshot that is taken from now on can be made one of time `at`. From then on whatever commits gets a later
    /// time. What is in doubt of the coordinator `but` commits later, as that coordinator has promised.
    pub fn may_read(
        &mut self,
        at: Time,
        but: Option<u64>,
        own: Time,
        is_in_progress: &mut dyn FnMut(u32) -> bool,
    ) -> Answer {
        if let Err(answer) = self.hear(at, own) {
            return answer;
        }
        if at < self.head.floor {
            return Answer::Refused(Refusal::TooOld);
        }
        // Nobody has seen what is in progress, nor been told its time: it commits after the reader's. Whoever sees it later
        // commits later still, as the clock has gone on.
        for flight in &mut self.flights[..self.head.flights] {
            if flight.time <= at && is_in_progress(flight.xid) {
                flight.time = at.next();
                self.head.clock = self.head.clock.max(flight.time);
            }
        }
        for doubt in &self.doubts[..self.head.doubts] {
            if doubt.is_shared && but.is_some_and(|but| but != 0 && but == doubt.coordinator) {
                continue;
            }
            match (is_in_progress(doubt.xid), doubt.is_shared) {
                // Whatever its time will be, it is later.
                (_, true) if doubt.low > at => {}
                (true, false) => {}
                (true, true) => return Answer::Wait(doubt.xid),
                // It may be visible already, and nobody has said since when.
                (false, _) => return Answer::WaitForNote(doubt.xid),
            }
        }
        Answer::Ready
    }

    /// Tells what a snapshot that was taken behind [`Self::may_read`] must not show to be one of time `at`.
    pub fn hidden(&self, at: Time, each: &mut dyn FnMut(Hidden)) -> Result<(), Refusal> {
        if at < self.head.floor {
            return Err(Refusal::TooOld);
        }
        let flights = self.flights[..self.head.flights].iter();
        flights
            .filter(|flight| flight.time > at)
            .for_each(|it| each(Hidden { xid: it.xid, has_children: it.has_children }));
        // Those that have a part in what is read had ended before the snapshot was taken.
        for doubt in &self.doubts[..self.head.doubts] {
            each(Hidden { xid: doubt.xid, has_children: doubt.has_children });
        }
        let size = self.commits.len() as u64;
        let kept = self.head.commits.min(size);
        for back in 1..=kept {
            let commit = &self.commits[((self.head.commits - back) % size) as usize];
            if commit.noted <= at {
                break;
            }
            if is_after(commit.span, at)? {
                each(Hidden { xid: commit.xid, has_children: commit.has_children });
            }
        }
        Ok(())
    }
}

/// Whether what has committed in that span had not by then.
fn is_after(span: Span, at: Time) -> Result<bool, Refusal> {
    match span {
        Span { low, .. } if low > at => Ok(true),
        Span { high, .. } if high <= at => Ok(false),
        Span { .. } => Err(Refusal::Unsure),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
