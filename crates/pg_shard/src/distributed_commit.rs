//! The commit of a transaction over several nodes.
//!
//! The crate `commit` decides what is done in which order; here it is done. Before the local commit all nodes prepare but the
//! one that decides, and that one commits; where the local transaction decides, the rest follows after its commit. Whatever
//! must be left behind is ended by the resolver ([`crate::resolver`]), and this backend waits for that before it uses the node
//! again.

use crate::fault;
use crate::health;
use crate::session::ending::{GRACE, OnInterrupt, PATIENCE, end_all};
use crate::session::pool::{self, SessionRef};
use crate::session::{Failure, Session, two_phase};
use crate::settings;
use crate::transaction::Written;
use ::commit::{
    Anchor, Cause, Command, Event, Evidence, Gid, Outcome, Part, Participant, Protocol, Stamp,
    State, Transaction,
};
use pg::net::wait::clock;
use pg::server::commit::should_stop;
use pg::server::transaction::{self, Isolation};
use pg::server::{decision, resolver};
use pg::time::{Time, When};
use pg::{PgError, SqlState};
use pgrx::prelude::*;
use shardmap::{NodeAddress, PlacementId, ShardId};
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// The longest wait for news of the resolver, which may be that of another server.
const TICK: Duration = Duration::from_millis(100);

/// How a commit has ended, before the local transaction commits.
pub(crate) enum Ended {
    /// All is committed, or will be with the local transaction.
    Well,
    /// This node has said no. Nothing is committed.
    Refused(PgError, NodeAddress),
    /// The client, or a time-out, has stopped it. Nothing is committed.
    Stopped,
    /// This node was lost, and what was written there with it. Nothing is committed.
    Lost(PgError, NodeAddress),
    /// A placement that was lost could not be marked. Nothing is committed.
    NotMarked(PgError),
    /// This node knows, and cannot be asked.
    Unknown(PgError, NodeAddress),
}

thread_local! {
    /// The commit that the local transaction decides.
    static PENDING: RefCell<Option<Commit>> = const { RefCell::new(None) };
    /// What this backend has had to leave prepared.
    static BEHIND: RefCell<Vec<(NodeAddress, Gid)>> = const { RefCell::new(Vec::new()) };
    static LEFT_ANY: Cell<bool> = const { Cell::new(false) };
}

/// The commit of one transaction.
pub(crate) struct Commit {
    protocol: Protocol,
    first: Vec<Command>,
    sessions: Vec<SessionRef>,
    written: Vec<Vec<(ShardId, PlacementId)>>,
    evidence: Option<Evidence>,
    /// The client has prepared the transaction, and ends it later.
    by_client: bool,
    /// What went wrong with whom.
    errors: Vec<Option<PgError>>,
    not_marked: Option<PgError>,
    /// The transaction must not commit before, as readers have been promised.
    not_before: Option<Time>,
    /// When the deciding participant has committed, by the nodes' clock.
    committed_at: Option<Time>,
    /// When the anchor says that it has, which was lost in its commit.
    anchor_says: Option<When>,
    /// The latest time that a node has reported.
    latest: Option<Time>,
    /// Something may be left prepared.
    leaves_behind: bool,
}

impl Commit {
    /// Decides who decides, and if that is the local transaction has it write what shows it. If the client prepares the
    /// transaction, `by_client`, it is the local one.
    pub(crate) fn plan(
        sessions: Vec<SessionRef>,
        written: &[Written],
        by_client: bool,
    ) -> Result<Self, PgError> {
        let of_node = |session: &SessionRef| {
            let session = session.borrow();
            let here = written.iter().filter(|known| session.wrote && known.node == session.node);
            here.map(|known| (known.shard, known.placement)).collect()
        };
        let written: Vec<Vec<(ShardId, PlacementId)>> = sessions.iter().map(of_node).collect();
        let participants =
            sessions.iter().zip(&written).map(|(session, written)| participant(session, written));
        let transaction = Transaction {
            participants: participants.collect(),
            wrote_here: decision::has_written(),
            readers_may_refuse: transaction::isolation_level() == Isolation::Serializable,
            by_client,
        };
        let anchor = transaction.anchor();
        let evidence = match anchor {
            Anchor::Nobody => None,
            Anchor::Here => {
                let recorded = decision::record(decision::identity())?;
                let decision::Recorded { node, transaction, nonce } = recorded;
                Some(Evidence { node, transaction, nonce })
            }
            Anchor::Participant(who) => sessions[who].borrow().evidence(),
        };
        if anchor != Anchor::Nobody {
            resolver::note_used();
        }
        let errors = vec![None; sessions.len()];
        let (protocol, first) = Protocol::begin(transaction, anchor);
        Ok(Self {
            protocol,
            first,
            sessions,
            written,
            evidence,
            errors,
            by_client,
            not_marked: None,
            not_before: None,
            committed_at: None,
            anchor_says: None,
            latest: None,
            leaves_behind: false,
        })
    }

    /// Commits, up to what the local transaction decides.
    pub(crate) fn run(mut self) -> Ended {
        let first = std::mem::take(&mut self.first);
        let must_wait = self.go_on(first);
        if must_wait {
            PENDING.set(Some(self));
            return Ended::Well;
        }
        self.ended()
    }

    fn ended(mut self) -> Ended {
        let mut cause = |who: usize| {
            let error = self.errors[who].take();
            let node = self.sessions[who].borrow().node.clone();
            let unknown = || PgError::new(SqlState::CONNECTION_FAILURE, "the connection was lost");
            (error.unwrap_or_else(unknown), node)
        };
        match self.protocol.outcome() {
            None | Some(Outcome::Committed | Outcome::Aborted(Cause::Here)) => Ended::Well,
            Some(Outcome::Unknown(who)) => {
                let (error, node) = cause(who);
                Ended::Unknown(error, node)
            }
            Some(Outcome::Aborted(Cause::Refused(who))) => {
                let (error, node) = cause(who);
                let error = explain(error, &node);
                Ended::Refused(error, node)
            }
            Some(Outcome::Aborted(Cause::Lost(who))) => {
                let (error, node) = cause(who);
                Ended::Lost(error, node)
            }
            Some(Outcome::Aborted(Cause::Stopped)) => Ended::Stopped,
            Some(Outcome::Aborted(Cause::NotMarked)) => Ended::NotMarked(
                self.not_marked.take().unwrap_or_else(|| PgError::internal("no mark")),
            ),
        }
    }

    /// Carries out commands and what follows from them; true if the local transaction is to decide now.
    fn go_on(&mut self, mut commands: Vec<Command>) -> bool {
        while !commands.is_empty() {
            let decides = commands.iter().any(|command| {
                matches!(
                    command,
                    Command::DecideHere { .. } | Command::Commit { decides: true, .. }
                )
            });
            if decides && should_stop() && self.protocol.may_stop() {
                commands = self.protocol.on(Event::Stop);
                continue;
            }
            if self.evidence.is_some() {
                fault::point(point_of(&commands));
            }
            if decides && self.evidence.is_some() && !self.by_client {
                self.begin_decision(&commands);
            }
            if let [Command::DecideHere { at }] = &commands[..] {
                if let Some(at) = self.not_before.or(at.and_then(time_of)) {
                    // If the clock does not believe it, readers find the prepared parts to be of an uncertain time.
                    let _ = pg::time::commit_at(at);
                }
                return true;
            }
            let events = self.carry_out(&commands);
            commands.clear();
            for event in events {
                commands.extend(self.protocol.on(event));
            }
        }
        if self.evidence.is_some() {
            fault::point("end");
        }
        let committed_at = self.committed_at.or(self.latest);
        committed_at.into_iter().for_each(pg::time::acknowledge);
        if self.not_before.take().is_some() {
            let is_known = !matches!(self.protocol.outcome(), None | Some(Outcome::Unknown(_)));
            pg::time::end_decision(is_known && !self.leaves_behind);
        }
        false
    }

    /// Readers who come now read before this transaction commits.
    fn begin_decision(&mut self, commands: &[Command]) {
        let least = commands.iter().find_map(|command| match command {
            Command::DecideHere { at } | Command::Commit { decides: true, at, .. } => *at,
            _ => None,
        });
        self.not_before = pg::time::begin_decision(least.and_then(time_of).unwrap_or_default());
    }

    fn carry_out(&mut self, commands: &[Command]) -> Vec<Event> {
        let mut events = Vec::with_capacity(commands.len());
        let mut told: Vec<(usize, bool, &Command)> = Vec::new();
        for command in commands {
            match command {
                Command::Prepare { who } | Command::Commit { who, .. } => {
                    told.push((*who, true, command));
                }
                Command::CommitPrepared { who, .. } | Command::RollBackPrepared { who } => {
                    told.push((*who, false, command));
                }
                Command::Mark { whom } => events.push(self.mark(whom)),
                Command::Ask { who } => events.push(Event::Told(self.ask(*who))),
                Command::LeaveBehind { who } => self.leave_behind(*who),
                Command::DecideHere { .. } => {}
            }
        }
        if !told.is_empty() {
            events.extend(self.tell(&told));
        }
        events
    }

    /// Tells nodes to end their transactions, all at once.
    fn tell(&mut self, told: &[(usize, bool, &Command)]) -> Vec<Event> {
        let commands: Vec<(SessionRef, String)> = told
            .iter()
            .map(|(who, is_open, command)| {
                let session = &self.sessions[*who];
                if *is_open {
                    // What was lost is said by the commit.
                    let _ = crate::session::stream::claim(session);
                }
                let mut open = session.borrow_mut();
                (open.reported, open.is_deciding) = (None, self.evidence.is_some());
                drop(open);
                (SessionRef::clone(session), self.sql(*who, command))
            })
            .collect();
        let on_interrupt = match told.iter().any(|(_, is_open, _)| *is_open) {
            true if self.protocol.outcome().is_none() => OnInterrupt::Cancel,
            // The resolver goes on where this backend leaves off.
            _ => OnInterrupt::Finish(GRACE),
        };
        let outcomes = end_all(&commands, on_interrupt);
        let mut events = Vec::with_capacity(told.len());
        for ((who, is_open, command), outcome) in told.iter().zip(outcomes) {
            let outcome = match outcome {
                Err(Failure::Statement(error)) if !is_open => self.end_again(*who, command, error),
                outcome => outcome,
            };
            events.push(self.heard(*who, *is_open, command, outcome));
        }
        events
    }

    fn sql(&self, who: usize, command: &Command) -> String {
        match command {
            Command::Prepare { .. } => format!("PREPARE TRANSACTION '{}'", self.gid(who)),
            Command::CommitPrepared { .. } => {
                format!(
                    "COMMIT PREPARED '{}'{}",
                    self.gid(who),
                    self.when().map(When::comment).unwrap_or_default()
                )
            }
            Command::RollBackPrepared { .. } => format!("ROLLBACK PREPARED '{}'", self.gid(who)),
            Command::Commit { at, decides, .. } => {
                let keeps_time = self.sessions[who].borrow().keeps_time();
                let not_before = self.not_before.filter(|_| *decides && keeps_time);
                format!("COMMIT{}", pg::time::comment(not_before.or(at.and_then(time_of))))
            }
            _ => "COMMIT".to_owned(),
        }
    }

    /// When the transaction has committed.
    fn when(&self) -> Option<When> {
        let exact = self.committed_at.map(|time| When { time, is_exact: true });
        exact.or(self.anchor_says)
    }

    fn gid(&self, who: usize) -> Gid {
        let nobody = Evidence { node: 0, transaction: 0, nonce: 0 };
        Gid {
            evidence: self.evidence.unwrap_or(nobody),
            coordinator: decision::identity(),
            number: who as u32,
        }
    }

    /// The node does not end what is prepared: perhaps because the resolver has done it, or is about to.
    fn end_again(&self, who: usize, command: &Command, mut error: PgError) -> Result<(), Failure> {
        let until = clock() + PATIENCE;
        let mut news = resolver::WaitForEnd::default();
        let told = [(SessionRef::clone(&self.sessions[who]), self.sql(who, command))];
        loop {
            if two_phase::is_ended(&error) {
                return Ok(());
            }
            if !two_phase::is_busy(&error) || clock() >= until || should_stop() {
                return Err(Failure::Statement(error));
            }
            news.wait(TICK);
            match end_all(&told, OnInterrupt::Finish(GRACE)).pop() {
                Some(Err(Failure::Statement(again))) => error = again,
                Some(outcome) => return outcome,
                None => return Ok(()),
            }
        }
    }

    fn heard(
        &mut self,
        who: usize,
        is_open: bool,
        command: &Command,
        outcome: Result<(), Failure>,
    ) -> Event {
        let mut session = self.sessions[who].borrow_mut();
        session.left_transaction();
        session.is_deciding = false;
        let reported = session.reported.take();
        self.latest = self.latest.max(reported);
        match outcome {
            Ok(()) if matches!(command, Command::Prepare { .. }) => {
                Event::Prepared { who, clock: reported.map(|time| time.number() as u64) }
            }
            Ok(()) if matches!(command, Command::Commit { decides: true, .. }) => {
                self.committed_at = reported;
                reported.into_iter().for_each(pg::time::decided);
                Event::Ended { who }
            }
            Ok(()) => Event::Ended { who },
            Err(Failure::Statement(error)) => {
                if is_open {
                    // The node has rolled back, or is in a state that we do not know: it starts afresh.
                    session.give_up(error.clone());
                }
                self.errors[who] = Some(error);
                Event::Refused { who }
            }
            Err(Failure::Lost(error)) => {
                self.errors[who] = Some(error);
                Event::Lost { who }
            }
        }
    }

    /// Marks what was written on nodes that may not have prepared it.
    fn mark(&mut self, whom: &[usize]) -> Event {
        for who in whom {
            if let Some(error) = &self.errors[*who] {
                let node = &self.sessions[*who].borrow().node;
                pg::sys::error::warning(pool::connection_failed(node, error));
            }
        }
        let lost: Vec<(ShardId, PlacementId)> =
            whom.iter().flat_map(|who| self.written[*who].iter().copied()).collect();
        match health::mark_inactive(&lost) {
            Ok(()) => Event::Marked(true),
            Err(error) => {
                self.not_marked = Some(error);
                Event::Marked(false)
            }
        }
    }

    /// Asks the anchor's server, over new connections, what became of its transaction; for a while only.
    fn ask(&mut self, who: usize) -> Option<bool> {
        let evidence = self.evidence?;
        let node = self.sessions[who].borrow().node.clone();
        let until = clock() + settings::connect_timeout().max(PATIENCE);
        while clock() < until && !should_stop() {
            let state =
                Session::open(&node).ok().and_then(|mut session| session.state_of(&evidence).ok());
            if let Some((State::Ended { has_row }, when)) = state {
                self.anchor_says = when;
                return Some(has_row);
            }
            pg::net::wait::pause(TICK);
        }
        None
    }

    fn leave_behind(&mut self, who: usize) {
        self.leaves_behind = true;
        let node = self.sessions[who].borrow().node.clone();
        BEHIND.with_borrow_mut(|behind| behind.push((node, self.gid(who))));
        LEFT_ANY.set(true);
        resolver::wake();
    }
}

/// A node's time, as the protocol knows it.
fn time_of(stamp: Stamp) -> Option<Time> {
    i64::try_from(stamp).ok().and_then(Time::from_number)
}

/// What a commit is about to do, as tests name it.
fn point_of(commands: &[Command]) -> &'static str {
    match commands.first() {
        Some(Command::Prepare { .. }) => "prepare",
        Some(Command::Mark { .. }) => "mark",
        Some(Command::DecideHere { .. } | Command::Commit { decides: true, .. }) => "decide",
        Some(Command::CommitPrepared { .. }) => "finish",
        _ => "other",
    }
}

/// Commits node by node: the transaction has dropped the extension, and with it what would show that it has committed.
pub(crate) fn commit_each(sessions: &[SessionRef]) -> Ended {
    let commands: Vec<(SessionRef, String)> =
        sessions.iter().map(|session| (SessionRef::clone(session), "COMMIT".to_owned())).collect();
    let outcomes = end_all(&commands, OnInterrupt::Finish(PATIENCE));
    let mut ended = Ended::Well;
    for (session, outcome) in sessions.iter().zip(outcomes) {
        let mut session = session.borrow_mut();
        session.left_transaction();
        let node = session.node.clone();
        match outcome {
            Ok(()) => {}
            Err(Failure::Statement(error)) => {
                session.give_up(error.clone());
                ended = Ended::Refused(error, node);
            }
            Err(Failure::Lost(error)) => ended = Ended::Unknown(error, node),
        }
    }
    ended
}

fn participant(session: &SessionRef, written: &[(ShardId, PlacementId)]) -> Participant {
    let session = session.borrow();
    let part = match (session.wrote, session.locked) {
        (true, _) => Part::Wrote,
        (false, true) => Part::Locked,
        (false, false) => Part::Read,
    };
    Participant {
        part,
        shards: written.iter().map(|(shard, _)| shard.0 as u64).collect(),
        has_evidence: session.evidence().is_some(),
    }
}

/// After the local transaction: what it has decided is done. Must not fail.
pub(crate) fn after_transaction(committed: bool) {
    let Some(mut commit) = PENDING.take() else { return };
    if commit.by_client && committed {
        return;
    }
    commit.committed_at = pg::time::last_commit().filter(|_| committed);
    commit.committed_at.into_iter().for_each(pg::time::decided);
    let commands = commit.protocol.on(Event::DecidedHere(committed));
    commit.go_on(commands);
}

/// A new session to a node where this backend has left something prepared: if it can be ended now it is, so that what the
/// client was told is seen.
pub(crate) fn end_what_was_left(session: &mut Session) {
    if !LEFT_ANY.get() {
        return;
    }
    let here = |(node, _): &(NodeAddress, Gid)| *node == session.node;
    let left = BEHIND
        .with_borrow_mut(|behind| behind.extract_if(.., |left| here(left)).collect::<Vec<_>>());
    for (_, gid) in left {
        wait_for_resolver(session, &gid);
    }
    LEFT_ANY.set(BEHIND.with_borrow(|behind| !behind.is_empty()));
}

/// Waits for a moment until somebody has ended it.
fn wait_for_resolver(session: &mut Session, gid: &Gid) {
    let until = clock() + PATIENCE;
    let mut news = resolver::WaitForEnd::default();
    let query = format!("SELECT 1 FROM pg_catalog.pg_prepared_xacts WHERE gid = '{gid}'");
    resolver::wake();
    loop {
        let mut is_there = false;
        let asked = session.run(&query, None, &mut |_| {
            is_there = true;
            Ok(())
        });
        if asked.is_err() || !is_there || clock() >= until {
            return;
        }
        news.wait(TICK);
    }
}

/// The node that cannot prepare, if one of those has to that cannot: all but one prepare, and all if the local server has
/// written too.
pub(crate) fn who_cannot_prepare<'a>(
    writers: impl Iterator<Item = (&'a NodeAddress, u32)>,
) -> Option<&'a NodeAddress> {
    let mut unable = writers.filter(|(_, most)| *most == 0).map(|(node, _)| node);
    let first = unable.next()?;
    match decision::has_written() {
        true => Some(first),
        false => unable.next(),
    }
}

/// The error for a node that cannot prepare.
pub(crate) fn cannot_prepare(node: &NodeAddress) -> PgError {
    PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("node \"{node}\" cannot take part in a transaction over several nodes"),
    )
    .detail("The setting max_prepared_transactions is 0 there.")
    .hint(
        "Set max_prepared_transactions to at least max_connections on every node, and restart it.",
    )
}

/// What a node says that has no room for a prepared transaction.
fn explain(error: PgError, node: &NodeAddress) -> PgError {
    if error.message() == "prepared transactions are disabled" {
        return cannot_prepare(node);
    }
    if error.message() == "maximum number of prepared transactions reached" {
        let message = format!("node \"{node}\" has no room left for a prepared transaction");
        return PgError::new(error.sqlstate(), message)
            .detail("Every transaction that writes on several nodes needs one for a moment.")
            .hint("Increase max_prepared_transactions on the node, to at least max_connections.");
    }
    error
}

/// On the node that decides, of a transaction's number that is under way: it is that of the transaction that is asked about.
#[pg_extern]
fn has_begun_decision(transaction: i64, nonce: i64) -> bool {
    decision::has_written_row(transaction.cast_unsigned(), nonce)
}

/// On the node that is to decide: its transaction writes what shows that it has committed.
#[pg_extern]
fn begin_decision(coordinator: i64) -> String {
    let decision::Recorded { node, transaction, nonce } =
        pg::sys::error::raise(decision::record(coordinator.cast_unsigned()));
    format!("{node} {transaction} {nonce}")
}
