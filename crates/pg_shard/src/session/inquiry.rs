//! The same question to several nodes at once, over connections of its own, while a session waits for its answer.
//!
//! Nothing here waits for long: what has not answered within a moment has not been asked, and the question is given up as
//! soon as the wait that it is about has come to its end. The connections are kept for the next question.

use super::connect;
use pg::net::libpq::{Connection, Opening};
use pg::net::link::Link;
use pg::net::wait::{Readiness, clock, poll_uninterrupted};
use protocol::Kind;
use shardmap::NodeAddress;
use std::time::Duration;

/// The longest single wait.
const TICK: Duration = Duration::from_millis(10);

/// How long nodes have for an answer.
const LIMIT: Duration = Duration::from_millis(800);

/// Nodes that are asked.
#[derive(Default)]
pub(super) struct Inquiry(Vec<Asked>);

struct Asked {
    node: NodeAddress,
    step: Step,
    /// The first column of the rows that have come.
    rows: Vec<String>,
}

enum Step {
    Opening(Connection),
    Answering(Link),
    Answered(Link),
    Failed,
}

impl Inquiry {
    /// Asks these nodes; the rows that each has answered. None if `goes_on` says that nobody wants to know any more.
    pub(super) fn ask(
        &mut self,
        nodes: &[NodeAddress],
        sql: &str,
        goes_on: &dyn Fn() -> bool,
    ) -> Option<Vec<(NodeAddress, Vec<String>)>> {
        for node in nodes {
            if !self.0.iter().any(|asked| asked.node == *node) {
                let step = connect::start(node).map_or(Step::Failed, Step::Opening);
                self.0.push(Asked { node: node.clone(), step, rows: Vec::new() });
            }
        }
        let deadline = clock() + LIMIT;
        for asked in &mut self.0 {
            asked.ask_again(sql);
        }
        loop {
            let sockets: Vec<(i32, Readiness)> = self
                .0
                .iter_mut()
                .filter(|asked| nodes.contains(&asked.node))
                .filter_map(|asked| asked.advance(sql))
                .collect();
            let left = deadline.saturating_sub(clock());
            if sockets.is_empty() || left.is_zero() {
                break;
            }
            poll_uninterrupted(&sockets, left.min(TICK));
            if !pg::server::commit::holds_interrupts() {
                pg::server::transaction::serve_interrupts();
            }
            if !goes_on() {
                return None;
            }
        }
        let answers = self.0.iter_mut().filter(|asked| matches!(asked.step, Step::Answered(_)));
        Some(answers.map(|asked| (asked.node.clone(), std::mem::take(&mut asked.rows))).collect())
    }
}

impl Asked {
    fn ask_again(&mut self, sql: &str) {
        self.step = match std::mem::replace(&mut self.step, Step::Failed) {
            Step::Answered(link) => send(link, sql),
            Step::Opening(connection) => Step::Opening(connection),
            // An answer that came too late is not the answer to this question.
            Step::Answering(_) | Step::Failed => Step::Failed,
        };
        self.rows.clear();
    }

    /// Does what can be done without waiting; tells what to wait for then.
    fn advance(&mut self, sql: &str) -> Option<(i32, Readiness)> {
        loop {
            match &mut self.step {
                Step::Answered(_) | Step::Failed => return None,
                Step::Opening(connection) => match connection.poll_opening() {
                    Opening::WaitReadable => {
                        return Some((connection.socket(), Readiness::Readable));
                    }
                    Opening::WaitWritable => {
                        return Some((connection.socket(), Readiness::Writable));
                    }
                    Opening::Failed => self.step = Step::Failed,
                    Opening::Open => {
                        let Step::Opening(connection) =
                            std::mem::replace(&mut self.step, Step::Failed)
                        else {
                            return None;
                        };
                        if let Ok(link) = Link::new(connection) {
                            self.step = send(link, sql);
                        }
                    }
                },
                Step::Answering(link) => match read(link, &mut self.rows) {
                    None => return Some((link.socket(), Readiness::Readable)),
                    Some(is_good) => {
                        let step = std::mem::replace(&mut self.step, Step::Failed);
                        if let (Step::Answering(link), true) = (step, is_good) {
                            self.step = Step::Answered(link);
                        }
                    }
                },
            }
        }
    }
}

fn send(mut link: Link, sql: &str) -> Step {
    link.flight().query(sql);
    match link.send_some() {
        Ok(true) => Step::Answering(link),
        _ => Step::Failed,
    }
}

/// Reads the answer as far as it is here; at its end, whether it is one.
fn read(link: &mut Link, rows: &mut Vec<String>) -> Option<bool> {
    loop {
        match link.message() {
            Ok(Some(message)) => match message.kind {
                Kind::Row => rows.extend(link.row(&message).first_text()),
                Kind::Error => return Some(false),
                Kind::Ready(_) => return Some(true),
                _ => {}
            },
            Ok(None) => match link.receive() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(_) => return Some(false),
            },
            Err(_) => return Some(false),
        }
    }
}
