//! Whether a node that has been silent for long is still at work.
//!
//! A connection of its own asks. A frozen server does not accept it. One that does is asked what the session's own process is
//! doing: a process that waits for a message, while its message has been on the way for as long as `pg_shard.silence_timeout`
//! says, has been stopped or cannot be reached any more. All nodes in question are asked at once.
//!
//! A process that was stopped in the middle of its work looks like one that works: only the end of a transaction, which
//! takes little work, has a limit for that (`super::ending`).

/// Whether nodes answer that nobody has anything under way on.
pub(crate) mod ping;

use super::connect;
use super::pool::{self, SessionRef};
use super::{Failure, NoSession, Session};
use crate::nodes::number;
use crate::settings;
use pg::net::libpq::{Connection, Opening};
use pg::net::link::Link;
use pg::net::wait::{Readiness, clock, poll_uninterrupted};
use pg::server::given_up::{self, Process};
use pg::{PgError, SqlState};
use protocol::Kind;
use shardmap::NodeAddress;
use std::time::Duration;

/// The longest single wait.
const TICK: Duration = Duration::from_millis(50);

/// What was found out about a session.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// Nothing that speaks against the node.
    Alive,
    /// Its process works, and waits for nobody.
    Works,
    /// Its process waits to be sent something.
    Idle,
    /// The node will not answer.
    Dead(PgError),
}

/// Asks the nodes of several sessions at once, for `pg_shard.connect_timeout` at most and until `should_stop`.
pub(super) fn ask(
    sessions: &[(&NodeAddress, i32)],
    should_stop: &dyn Fn() -> bool,
) -> Vec<Verdict> {
    let limit = settings::connect_timeout();
    let deadline = clock() + limit;
    let mut probes: Vec<Probe> =
        sessions.iter().map(|(node, backend)| Probe::start(node, *backend)).collect();
    loop {
        let sockets: Vec<(i32, Readiness)> =
            probes.iter_mut().filter_map(|probe| probe.advance()).collect();
        let left = deadline.saturating_sub(clock());
        if sockets.is_empty() || left.is_zero() || should_stop() {
            break;
        }
        poll_uninterrupted(&sockets, left.min(TICK));
        if !pg::server::commit::holds_interrupts() {
            pg::server::transaction::serve_interrupts();
        }
    }
    let was_stopped = clock() < deadline;
    let unanswered = || {
        if was_stopped {
            return Verdict::Alive;
        }
        let text = format!("no answer within {} s", limit.as_secs_f32());
        Verdict::Dead(PgError::new(SqlState::CONNECTION_FAILURE, text))
    };
    probes.into_iter().map(|probe| probe.verdict().unwrap_or_else(unanswered)).collect()
}

/// A question on its way.
struct Probe {
    node: NodeAddress,
    backend: i32,
    step: Step,
}

enum Step {
    Opening(Connection),
    Asked(Link, Option<String>),
    Done(Verdict),
}

impl Probe {
    fn start(node: &NodeAddress, backend: i32) -> Self {
        let step = match connect::start(node) {
            Ok(connection) => Step::Opening(connection),
            // We cannot ask: that says nothing of the node.
            Err(_) => Step::Done(Verdict::Alive),
        };
        Self { node: node.clone(), backend, step }
    }

    /// Does what can be done without waiting; tells what to wait for then.
    fn advance(&mut self) -> Option<(i32, Readiness)> {
        loop {
            let done = match &mut self.step {
                Step::Done(_) => return None,
                Step::Opening(connection) => match connection.poll_opening() {
                    Opening::WaitReadable => {
                        return Some((connection.socket(), Readiness::Readable));
                    }
                    Opening::WaitWritable => {
                        return Some((connection.socket(), Readiness::Writable));
                    }
                    Opening::Failed => match connect::classify(connection, &self.node) {
                        NoSession::Unreachable(error) => Verdict::Dead(error),
                        NoSession::Refused(_) => Verdict::Alive,
                    },
                    Opening::Open => {
                        self.ask();
                        continue;
                    }
                },
                Step::Asked(link, answer) => match read(link, answer) {
                    None => return Some((link.socket(), Readiness::Readable)),
                    Some(verdict) => verdict,
                },
            };
            self.step = Step::Done(done);
        }
    }

    /// The connection is open.
    fn ask(&mut self) {
        let Step::Opening(connection) =
            std::mem::replace(&mut self.step, Step::Done(Verdict::Alive))
        else {
            return;
        };
        let Ok(mut link) = Link::new(connection) else { return };
        link.flight().query(&format!(
            "SELECT CASE WHEN a.state LIKE 'idle%' THEN 'idle' \
             WHEN a.state = 'active' AND a.wait_event_type IS DISTINCT FROM 'Lock' \
             AND a.wait_event_type IS DISTINCT FROM 'IPC' THEN 'works' ELSE 'waits' END \
             FROM pg_catalog.pg_stat_activity AS a WHERE a.pid OPERATOR(pg_catalog.=) {}",
            self.backend
        ));
        if link.send_some().is_ok() {
            self.step = Step::Asked(link, None);
        }
    }

    fn verdict(self) -> Option<Verdict> {
        match self.step {
            Step::Done(verdict) => Some(verdict),
            _ => None,
        }
    }
}

/// Reads the answer as far as it is here.
fn read(link: &mut Link, answer: &mut Option<String>) -> Option<Verdict> {
    loop {
        match link.message() {
            Ok(Some(message)) => match message.kind {
                Kind::Row => *answer = link.row(&message).first_text(),
                Kind::Error => return Some(Verdict::Alive),
                Kind::Ready(_) => {
                    return Some(match answer.as_deref() {
                        Some("idle") => Verdict::Idle,
                        Some("works") => Verdict::Works,
                        _ => Verdict::Alive,
                    });
                }
                _ => {}
            },
            Ok(None) => match link.receive() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Verdict::Dead(error)),
            },
            Err(error) => return Some(Verdict::Dead(error)),
        }
    }
}

/// After `pg_shard.silence_timeout` without a word: gives up the sessions that will not answer; the first one's place and failure.
pub(crate) fn check_all(sessions: &[&SessionRef]) -> Result<(), (usize, Failure)> {
    let asked: Vec<(NodeAddress, i32)> =
        sessions.iter().map(|session| session.borrow_mut().identity()).collect();
    let asked: Vec<(&NodeAddress, i32)> =
        asked.iter().map(|(node, backend)| (node, *backend)).collect();
    let mut first = None;
    for (at, verdict) in ask(&asked, &|| false).into_iter().enumerate() {
        if let Err(failure) = sessions[at].borrow_mut().heed(verdict) {
            first.get_or_insert((at, failure));
        }
    }
    first.map_or(Ok(()), Err)
}

impl Session {
    /// The session is about to be given up. What the node's process was sent it may still execute: see [`crate::repair::fence`].
    pub(super) fn note_loss(&mut self) {
        if self.is_busy() {
            given_up::note(number(&self.node), self.process());
        }
        self.told.has_answered();
    }

    /// The node's process, as it is known among those that are given up.
    pub(crate) fn process(&mut self) -> Process {
        Process { pid: self.link.connection().backend(), started: self.about.started }
    }

    /// Which process on which node serves the session.
    pub(super) fn identity(&mut self) -> (NodeAddress, i32) {
        (self.node.clone(), self.link.connection().backend())
    }

    /// The session is given up if it will not answer.
    pub(super) fn heed(&mut self, verdict: Verdict) -> Result<(), Failure> {
        let error = match verdict {
            Verdict::Dead(error) => error,
            Verdict::Idle if self.is_busy() => PgError::new(
                SqlState::CONNECTION_FAILURE,
                "the node's process does not take what it is sent",
            ),
            Verdict::Alive | Verdict::Works | Verdict::Idle => return Ok(()),
        };
        pool::avoid(&self.node);
        Err(self.lose(error))
    }

    /// After silence: is the node still at work?
    pub(crate) fn check_alive(&mut self) -> Result<(), Failure> {
        let (node, backend) = self.identity();
        let found = ask(&[(&node, backend)], &|| false).pop();
        self.heed(found.unwrap_or(Verdict::Alive))
    }

    /// Waits for something to come. After `pg_shard.silence_timeout` without a word the node is asked whether it is at work.
    pub(crate) fn wait(&mut self) -> Result<(), Failure> {
        loop {
            match self.link.wait(settings::silence_timeout()) {
                Ok(true) => return Ok(()),
                Ok(false) => self.check_alive()?,
                Err(error) => return Err(self.lose_unless_told(error)),
            }
        }
    }

    /// Sends what is queued. Where there is no room, silence is what it is in [`Self::wait`]: nothing has been taken, and nothing has come.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        loop {
            match self.link.send_some() {
                Ok(true) => return Ok(()),
                Ok(false) => match self.link.wait_for_room(settings::silence_timeout()) {
                    Ok(true) => {}
                    Ok(false) => self.check_alive()?,
                    Err(error) => return Err(self.lose_unless_told(error)),
                },
                Err(error) => return Err(self.lose_unless_told(error)),
            }
        }
    }
}
