//! Waits that nothing may interrupt: for an answer that decides whether something is stored, and for nodes to stop.
//!
//! Interrupts are not served here, since whoever waits must know the outcome, or is about to end a transaction. But every
//! wait ends: a node that is silent for `pg_shard.silence_timeout` is asked whether it is at work, and when the
//! client's cancel, a time-out or the end of the backend is pending, nodes have a moment left. Several nodes are waited for together.

use super::alive::{self, Verdict};
use super::pool::SessionRef;
use super::{Commit, Event, Expect, Failure, Session, drop_rows};
use crate::settings;
use pg::net::wait::{Readiness, clock, poll_uninterrupted};
use pg::net::watch::Watch;
use pg::server::commit::should_stop;
use pg::server::transaction::nest_level;
use pg::{PgError, SqlState};
use protocol::Row;
use shardmap::NodeAddress;
use std::cell::RefMut;
use std::ops::DerefMut;
use std::time::Duration;

/// The longest single wait, and when a node that has been asked to stop, and has not, is asked again.
const TICK: Duration = Duration::from_millis(50);

/// After this long a node that should have stopped is asked whether it is at work.
pub(crate) const GRACE: Duration = Duration::from_millis(200);

/// How long a node that works and was asked to stop may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// How long a node may take to leave a transaction of which nothing is to stay: without its connection it leaves it too, by itself.
/// Where a savepoint hangs on the session, it has more time.
pub(crate) fn patience_to_leave() -> Duration {
    if nest_level() <= 1 { GRACE } else { PATIENCE }
}

/// What is said of a server that does not even take a cancel request.
const DEAF: &str = "the node did not hear a cancel request";

/// So many times `pg_shard.silence_timeout` may the end of a transaction take, while the node waits for nobody.
const MOST_SILENCES: u32 = 6;

/// What a pending interrupt means to nodes whose answers decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnInterrupt {
    /// They are asked to cancel, and what they answer counts.
    Cancel,
    /// They finish, within this time: a cancel would leave placements that differ.
    Finish(Duration),
}

/// A session whose answer decides.
struct Awaited<S> {
    session: S,
    outcome: Option<Result<u64, Failure>>,
    heard: Duration,
}

/// Waits until all of them have answered, or are lost; `each` gets rows, with the session's place.
pub(crate) fn decide<S: DerefMut<Target = Session>>(
    sessions: Vec<S>,
    on_interrupt: OnInterrupt,
    each: &mut dyn FnMut(usize, Row<'_>) -> Result<(), PgError>,
) -> Vec<Result<u64, Failure>> {
    let since = clock();
    let mut all: Vec<Awaited<S>> = sessions
        .into_iter()
        .map(|session| Awaited { session, outcome: None, heard: since })
        .collect();
    let mut stop = Stop {
        on_interrupt,
        since: None,
        asked: since,
        is_checked: false,
        watch: Watch::default(),
        deadlock: None,
    };
    let mut is_quiet = false;
    loop {
        for (at, awaited) in all.iter_mut().enumerate() {
            if awaited.outcome.is_none() {
                awaited.outcome =
                    awaited.session.go_on(&mut awaited.heard, &mut |row| each(at, row));
            }
        }
        if is_quiet {
            let mut pending = unanswered(&mut all);
            stop.look(&mut pending);
            stop.serve(&mut pending);
            check_silent(&mut pending, since);
        }
        let mut pending = unanswered(&mut all);
        if pending.is_empty() {
            break;
        }
        is_quiet = !receive_any(&mut pending);
    }
    let until = clock() + GRACE;
    all.into_iter()
        .map(|mut awaited| {
            awaited.session.settle_cancel(until.saturating_sub(clock()));
            stop.explain(awaited.outcome.unwrap_or(Ok(0)))
        })
        .collect()
}

fn unanswered<S>(all: &mut [Awaited<S>]) -> Vec<&mut Awaited<S>> {
    all.iter_mut().filter(|awaited| awaited.outcome.is_none()).collect()
}

/// Waits for a moment until something has come; true if something has. On a plain socket waiting for one is the read itself.
fn receive_any<S: DerefMut<Target = Session>>(pending: &mut [&mut Awaited<S>]) -> bool {
    if let [only] = pending
        && only.session.link.unsent() == 0
    {
        let received = only.session.link.wait_uninterrupted(TICK);
        return only.received(received);
    }
    let sockets: Vec<(i32, Readiness)> =
        pending.iter().map(|awaited| awaited.session.wanted()).collect();
    poll_uninterrupted(&sockets, TICK);
    let mut any = false;
    for awaited in pending {
        let received = awaited.session.link.receive();
        any |= awaited.received(received);
    }
    any
}

/// An interrupt that is pending.
struct Stop {
    on_interrupt: OnInterrupt,
    since: Option<Duration>,
    asked: Duration,
    is_checked: bool,
    watch: Watch,
    /// The nodes were asked to cancel because of a deadlock.
    deadlock: Option<PgError>,
}

impl Stop {
    /// Has the nodes cancel if they wait for what this backend itself keeps from others.
    fn look<S: DerefMut<Target = Session>>(&mut self, pending: &mut [&mut Awaited<S>]) {
        if self.on_interrupt != OnInterrupt::Cancel || self.since.is_some() {
            return;
        }
        let now = clock();
        if self.deadlock.is_none() {
            let sockets: Vec<i32> =
                pending.iter().map(|awaited| awaited.session.socket()).collect();
            self.deadlock = self.watch.find(&sockets);
            if self.deadlock.is_some() {
                self.ask(pending, now);
            }
        } else if now - self.asked >= TICK {
            self.ask(pending, now);
        }
    }

    /// A node that was asked to cancel because of a deadlock, and did, says only that it was.
    fn explain(&self, outcome: Result<u64, Failure>) -> Result<u64, Failure> {
        match (outcome, &self.deadlock) {
            (Err(Failure::Statement(error)), Some(deadlock))
                if error.sqlstate() == SqlState::QUERY_CANCELED =>
            {
                Err(Failure::Statement(deadlock.clone()))
            }
            (outcome, _) => outcome,
        }
    }

    fn serve<S: DerefMut<Target = Session>>(&mut self, pending: &mut [&mut Awaited<S>]) {
        let now = clock();
        let Some(since) = self.since else {
            if should_stop() {
                self.since = Some(now);
                self.ask(pending, now);
            }
            return;
        };
        let limit = match self.on_interrupt {
            OnInterrupt::Cancel => PATIENCE,
            OnInterrupt::Finish(limit) => limit,
        };
        for awaited in pending.iter_mut() {
            let reason = match now - since >= limit {
                true => Some("the node did not answer in time"),
                false => awaited.session.is_deaf(now).then_some(DEAF),
            };
            if let Some(reason) = reason {
                awaited.lose(PgError::new(SqlState::CONNECTION_FAILURE, reason));
            }
        }
        let mut pending: Vec<&mut Awaited<S>> = pending
            .iter_mut()
            .filter(|awaited| awaited.outcome.is_none())
            .map(|awaited| &mut **awaited)
            .collect();
        if now - since >= GRACE && !self.is_checked && !pending.is_empty() {
            self.is_checked = true;
            // A server that does not answer this either is waited for as long as its patience lasts.
            let until = (since + limit).min(now + GRACE);
            ask_alive(&mut pending, &|| clock() >= until, &|_| false);
        }
        if now - self.asked >= TICK {
            self.ask(&mut pending, now);
        }
    }

    fn ask<S: DerefMut<Target = Session>>(
        &mut self,
        pending: &mut [&mut Awaited<S>],
        now: Duration,
    ) {
        self.asked = now;
        if self.on_interrupt == OnInterrupt::Cancel {
            for awaited in pending {
                awaited.session.ask_again();
            }
        }
    }
}

impl<S: DerefMut<Target = Session>> Awaited<S> {
    fn received(&mut self, received: Result<bool, PgError>) -> bool {
        match received {
            Ok(any) => {
                if any {
                    self.heard = clock();
                }
                any
            }
            Err(error) => {
                self.outcome = Some(Err(self.session.lose_unless_told(error)));
                true
            }
        }
    }

    fn lose(&mut self, error: PgError) {
        self.outcome = Some(Err(self.session.lose(error)));
    }
}

/// Nodes that have been silent for too long are asked whether they are at work.
fn check_silent<S: DerefMut<Target = Session>>(pending: &mut [&mut Awaited<S>], since: Duration) {
    let Some(limit) = settings::silence_timeout() else { return };
    let now = clock();
    let mut silent: Vec<&mut Awaited<S>> = pending
        .iter_mut()
        .filter(|awaited| awaited.outcome.is_none() && now - awaited.heard >= limit)
        .map(|awaited| &mut **awaited)
        .collect();
    if silent.is_empty() {
        return;
    }
    let is_too_long = now - since >= limit * MOST_SILENCES;
    ask_alive(&mut silent, &should_stop, &|session| is_too_long && session.is_ending_transaction());
    let now = clock();
    for awaited in silent {
        awaited.heard = now;
    }
}

fn ask_alive<S: DerefMut<Target = Session>>(
    pending: &mut [&mut Awaited<S>],
    should_stop: &dyn Fn() -> bool,
    must_be_done: &dyn Fn(&Session) -> bool,
) {
    let identities: Vec<(NodeAddress, i32)> =
        pending.iter_mut().map(|awaited| awaited.session.identity()).collect();
    let asked: Vec<(&NodeAddress, i32)> =
        identities.iter().map(|(node, backend)| (node, *backend)).collect();
    for (awaited, verdict) in pending.iter_mut().zip(alive::ask(&asked, should_stop)) {
        let verdict = match verdict {
            Verdict::Works if must_be_done(&awaited.session) => Verdict::Dead(PgError::new(
                SqlState::CONNECTION_FAILURE,
                "the node does not come to the end of a transaction",
            )),
            verdict => verdict,
        };
        if let Err(failure) = awaited.session.heed(verdict) {
            awaited.outcome = Some(Err(failure));
        }
    }
}

/// Stops what is under way on all of them and throws its results away, within `limit`; those that do not stop are given up.
pub(crate) fn stop_all<S: DerefMut<Target = Session>>(sessions: &mut [S], limit: Duration) {
    for session in sessions.iter_mut() {
        session.begin_to_stop();
    }
    drain_all(sessions, limit, true);
}

/// Has all of them carry out what is queued, within `limit`; those that do not are given up.
fn drain_all<S: DerefMut<Target = Session>>(sessions: &mut [S], limit: Duration, cancels: bool) {
    let deadline = clock() + limit;
    let mut asked = clock();
    loop {
        let mut sockets = Vec::new();
        for session in sessions.iter_mut() {
            if session.is_usable() && session.drain_some() {
                sockets.push(session.wanted());
            }
        }
        let now = clock();
        if sockets.is_empty() || now >= deadline {
            break;
        }
        let is_time = cancels && now - asked >= TICK;
        if is_time {
            asked = now;
        }
        for session in sessions.iter_mut().filter(|_| is_time) {
            if session.is_usable() && session.is_busy() {
                session.ask_again();
            }
        }
        for session in sessions.iter_mut().filter(|_| cancels) {
            session.give_up_if_deaf(now);
        }
        poll_uninterrupted(&sockets, (deadline - now).min(TICK));
    }
    for session in sessions.iter_mut() {
        if session.is_usable() && !session.drain_is_over() {
            session.give_up(PgError::new(
                SqlState::CONNECTION_FAILURE,
                "the node did not stop in time",
            ));
        }
        session.settle_cancel(deadline.saturating_sub(clock()).min(GRACE));
    }
}

/// Rolls the remote transactions of all of them back, and has them drop what they keep for others.
pub(crate) fn roll_back_all(sessions: &mut [RefMut<'_, Session>], limit: Duration) {
    let mut asked: Vec<&mut Session> = Vec::new();
    for session in sessions {
        let rolls_back = session.depth > 0;
        if rolls_back {
            session.left_transaction();
            session.forget_settings();
        }
        let keeps = !std::mem::take(&mut session.keeps).is_empty();
        if !session.is_usable() || !rolls_back && !keeps {
            continue;
        }
        session.error = None;
        if rolls_back {
            session.queue_command("ROLLBACK");
        }
        if keeps {
            session.queue_command(&drop_rows(""));
        }
        session.queue_sync();
        asked.push(session);
    }
    drain_all(&mut asked, limit, false);
    for session in asked {
        if session.is_usable() && session.error.take().is_some() {
            session
                .give_up(PgError::new(SqlState::CONNECTION_FAILURE, "the node did not roll back"));
        }
    }
}

/// Has each of them carry out the commands, without serving interrupts; tells which did.
pub(crate) fn run_all(sessions: &mut [RefMut<'_, Session>], commands: &[String]) -> Vec<bool> {
    let mut asked: Vec<&mut Session> = Vec::new();
    for session in sessions.iter_mut() {
        if session.is_usable() {
            session.error = None;
            for command in commands {
                session.queue_command(command);
            }
            session.queue_sync();
            asked.push(session);
        }
    }
    drain_all(&mut asked, PATIENCE, false);
    sessions.iter().map(|session| session.is_usable() && session.error.is_none()).collect()
}

/// Has each session carry out its command, which ends its remote transaction or one that is prepared, all at once.
pub(crate) fn end_all(
    commands: &[(SessionRef, String)],
    on_interrupt: OnInterrupt,
) -> Vec<Result<(), Failure>> {
    let mut open: Vec<RefMut<'_, Session>> =
        commands.iter().map(|(session, _)| session.borrow_mut()).collect();
    for (session, (_, command)) in open.iter_mut().zip(commands) {
        session.queue_end(command);
    }
    let open: Vec<&mut Session> = open.iter_mut().map(|session| &mut **session).collect();
    let outcomes = decide(open, on_interrupt, &mut |_, _| Ok(()));
    outcomes.into_iter().map(|outcome| outcome.map(drop)).collect()
}

/// Releases a savepoint on all of them at once. PostgreSQL's clock for statements does not run meanwhile, so that this is a wait
/// by the rules of [`decide`].
pub(crate) fn release_all(sessions: &[SessionRef], sql: &str) -> Vec<Result<(), Failure>> {
    let mut open: Vec<RefMut<'_, Session>> =
        sessions.iter().map(|session| session.borrow_mut()).collect();
    for session in open.iter_mut().filter(|session| session.is_usable()) {
        session.error = None;
        session.queue_command(sql);
        session.queue_sync();
    }
    let open: Vec<&mut Session> = open.iter_mut().map(|session| &mut **session).collect();
    let outcomes = decide(open, OnInterrupt::Cancel, &mut |_, _| Ok(()));
    outcomes.into_iter().map(|outcome| outcome.map(drop)).collect()
}

impl Session {
    /// What to wait for.
    fn wanted(&self) -> (i32, Readiness) {
        let readiness =
            if self.link.unsent() > 0 { Readiness::Writable } else { Readiness::Readable };
        (self.socket(), readiness)
    }

    /// Sends what goes without waiting and takes in what is here; `heard` is when the node has taken something. None if there
    /// is more to come.
    fn go_on(
        &mut self,
        heard: &mut Duration,
        each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
    ) -> Option<Result<u64, Failure>> {
        if let Some(failure) = self.broken() {
            return Some(Err(failure));
        }
        let unsent = self.link.unsent();
        if unsent > 0 {
            if let Err(error) = self.link.send_some() {
                return Some(Err(self.lose_unless_told(error)));
            }
            if self.link.unsent() < unsent {
                *heard = clock();
            }
        }
        loop {
            match self.poll() {
                Ok(Event::Row(row)) => {
                    if let Err(error) = each(self.link.row(&row)) {
                        return Some(Err(Failure::Statement(error)));
                    }
                }
                Ok(Event::Done(affected)) => return Some(Ok(affected)),
                Err(failure) => return Some(Err(failure)),
                Ok(Event::Wait) => return None,
            }
        }
    }

    /// Reads to the end of a statement that the node commits by itself, by the rules of [`decide`].
    pub(crate) fn decide(
        &mut self,
        on_interrupt: OnInterrupt,
        each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
    ) -> Result<u64, Failure> {
        let mut outcomes = decide(vec![self], on_interrupt, &mut |_, row| each(row));
        outcomes.pop().unwrap_or(Ok(0))
    }

    /// Queues a command that ends a transaction. It is not among the statements that a node keeps: one that has lost them
    /// (DISCARD, a pool between) would fail just there. As a simple query it is parsed and executed with the least ado.
    fn queue_end(&mut self, command: &str) {
        if self.is_usable() {
            self.error = None;
            let known = ["PREPARE TRANSACTION", "COMMIT PREPARED", "ROLLBACK PREPARED"];
            let tag = known.into_iter().find(|tag| command.starts_with(tag)).unwrap_or("COMMIT");
            self.commit = Commit::Asked(tag);
            self.link.flight().query(command);
            self.expects.extend([Expect::Statement, Expect::Sync]);
        }
    }

    fn is_ending_transaction(&self) -> bool {
        self.commit != Commit::NotAsked
    }

    /// Asks the node to stop, unless it has been and has not heard it yet.
    fn ask_again(&mut self) {
        if self.cancelling.as_ref().is_none_or(|(_, request)| request.is_over(Duration::ZERO)) {
            self.cancelling = self.link.connection().start_cancel().map(|it| (clock(), it));
        }
    }

    /// A server that does not even hear a cancel request is frozen, or behind a dead network: nobody need wait until its patience is
    /// over. Where a savepoint hangs on the session, it is waited for.
    fn give_up_if_deaf(&mut self, now: Duration) {
        let costs_nothing = self.depth == 0 || nest_level() == 1;
        if costs_nothing && self.is_usable() && self.is_deaf(now) {
            self.give_up(PgError::new(SqlState::CONNECTION_FAILURE, DEAF));
        }
    }

    /// It was sent a cancel request some time ago, and nobody has taken it.
    fn is_deaf(&self, now: Duration) -> bool {
        self.cancelling.as_ref().is_some_and(|(asked, request)| {
            now.saturating_sub(*asked) >= GRACE && !request.is_over(Duration::ZERO)
        })
    }

    /// A cancel that is still on its way would strike whatever the session does next.
    fn settle_cancel(&mut self, limit: Duration) {
        if let Some((_, request)) = self.cancelling.take()
            && self.is_usable()
            && !request.is_over(limit)
        {
            self.give_up(PgError::new(
                SqlState::CONNECTION_FAILURE,
                "the node did not hear a cancel request in time",
            ));
        }
    }

    /// Asks the node to stop what is under way; COPY, and what it must not even begin, end with the connection.
    fn begin_to_stop(&mut self) {
        if !self.is_usable() {
            return;
        }
        let must_not_begin = self.commits_itself && self.link.unsent() > 0;
        if self.copying_out || must_not_begin {
            // Without the connection the node rolls it back.
            self.give_up(PgError::new(SqlState::CONNECTION_FAILURE, "the statement was given up"));
            (self.copying_out, self.storing) = (false, 0);
        } else if self.is_busy() {
            self.ask_again();
        }
    }

    /// Goes on with what is under way, without waiting; true if there is more to come.
    fn drain_some(&mut self) -> bool {
        if self.storing > 0 {
            if self.move_copies().is_err() {
                self.give_up(PgError::new(SqlState::CONNECTION_FAILURE, "COPY was given up"));
            } else if self.storing > 0 {
                return true;
            }
            self.storing = 0;
            self.stored.clear();
        }
        if !self.is_usable() || self.expects.is_empty() {
            return false;
        }
        let mut heard = clock();
        loop {
            match self.go_on(&mut heard, &mut |_| Ok(())) {
                None => match self.link.receive() {
                    Ok(true) => {}
                    Ok(false) => return true,
                    Err(error) => {
                        self.give_up(error);
                        return false;
                    }
                },
                Some(outcome) => {
                    if let Err(Failure::Statement(error)) = outcome {
                        self.error = Some(error);
                    }
                    self.is_ending = false;
                    return false;
                }
            }
        }
    }

    fn drain_is_over(&self) -> bool {
        self.storing == 0 && self.expects.is_empty()
    }

    /// Stops what is under way and throws its results away; true if the session is good afterwards.
    ///
    /// For use while a transaction aborts: raises nothing, serves no interrupts, and takes no longer than `limit`.
    pub(crate) fn stop(&mut self, limit: Duration) -> bool {
        stop_all(&mut [&mut *self], limit);
        self.is_usable()
    }

    /// Runs a command without serving interrupts, within `limit`; true if it succeeded.
    pub(crate) fn run_quietly(&mut self, sql: &str, limit: Duration) -> bool {
        if !self.is_usable() {
            return false;
        }
        self.error = None;
        self.queue_command(sql);
        self.queue_sync();
        self.drain(limit) && self.error.is_none()
    }

    /// Reads what is under way to its end; true if the session is good afterwards.
    pub(super) fn drain(&mut self, limit: Duration) -> bool {
        drain_all(&mut [&mut *self], limit, false);
        self.is_usable()
    }

    /// An error skips the rest of a pipeline: what was to be prepared there is not.
    pub(super) fn forget_unprepared(&mut self) {
        for expect in self.expects.iter().take_while(|it| !matches!(it, Expect::Sync)) {
            if let Expect::Prepare(key) = expect {
                self.statements.forget(*key);
            }
        }
    }

    /// What the pipeline has not been answered so far it never will be. The next one's answers are still to come.
    pub(super) fn end_pipeline(&mut self) {
        while let Some(expect) = self.expects.pop_front() {
            if matches!(expect, Expect::Sync) {
                break;
            }
        }
    }
}
