//! Whether nodes answer: a question to all of them at once, over connections that are kept for the next one.

use crate::nodes;
use crate::session::{NoSession, connect};
use pg::net::libpq::{Connection, Opening};
use pg::net::link::Link;
use pg::net::wait::{Readiness, clock, poll_uninterrupted};
use pg::{PgError, SqlState};
use protocol::Kind;
use shardmap::NodeAddress;
use std::time::Duration;

/// The longest single wait.
const TICK: Duration = Duration::from_millis(50);

/// How long nodes have for an answer.
const LIMIT: Duration = Duration::from_millis(900);

/// After so many questions without an answer another connection is opened.
const GIVEN_UP: u32 = 5;

/// Connections to nodes that are asked again and again.
#[derive(Default)]
pub(crate) struct Pings {
    all: Vec<Ping>,
    /// By which addresses they were opened.
    addresses: u64,
}

struct Ping {
    node: NodeAddress,
    /// The connection had answered before.
    is_kept: bool,
    /// How often it was waited for in vain.
    misses: u32,
    step: Step,
}

enum Step {
    Opening(Connection),
    Asked(Link),
    Answered(Link),
    /// It has answered, and there is no connection to keep.
    Refused,
    Silent(PgError),
}

impl Pings {
    /// Asks the nodes, in their order. One that refuses to serve us has answered.
    pub(crate) fn ask(&mut self, nodes: &[NodeAddress]) -> Vec<Result<(), PgError>> {
        let addresses = nodes::version();
        if addresses != self.addresses {
            self.all.clear();
            self.addresses = addresses;
        }
        let mut kept = std::mem::take(&mut self.all);
        self.all = nodes
            .iter()
            .map(|node| match kept.iter().position(|ping| ping.node == *node) {
                Some(at) => kept.swap_remove(at).again(),
                None => Ping::start(node),
            })
            .collect();
        drop(kept);
        let deadline = clock() + LIMIT;
        loop {
            let sockets: Vec<(i32, Readiness)> =
                self.all.iter_mut().filter_map(Ping::advance).collect();
            let left = deadline.saturating_sub(clock());
            if sockets.is_empty() || left.is_zero() {
                break;
            }
            poll_uninterrupted(&sockets, left.min(TICK));
            pg::server::transaction::serve_interrupts();
        }
        self.all.iter_mut().map(Ping::outcome).collect()
    }
}

impl Ping {
    fn start(node: &NodeAddress) -> Self {
        // Where we cannot even begin, nothing is known of the node.
        let step = connect::start(node).map_or(Step::Refused, Step::Opening);
        Self { node: node.clone(), is_kept: false, misses: 0, step }
    }

    /// Asks once more, over the same connection if it is good.
    fn again(self) -> Self {
        match self.step {
            Step::Answered(link) => {
                let step = asked(link).unwrap_or_else(Step::Silent);
                Self { is_kept: true, misses: 0, step, ..self }
            }
            // A busy server may need longer than one question lasts; a connection that leads nowhere is given up.
            Step::Opening(_) | Step::Asked(_) if self.misses < GIVEN_UP => self,
            _ => Self::start(&self.node),
        }
    }

    /// Does what can be done without waiting; tells what to wait for then.
    fn advance(&mut self) -> Option<(i32, Readiness)> {
        loop {
            let next = match &mut self.step {
                Step::Answered(_) | Step::Refused => return None,
                // The node may have closed the connection at its restart.
                Step::Silent(_) if self.is_kept => {
                    *self = Self::start(&self.node);
                    continue;
                }
                Step::Silent(_) => return None,
                Step::Opening(connection) => match connection.poll_opening() {
                    Opening::WaitReadable => {
                        return Some((connection.socket(), Readiness::Readable));
                    }
                    Opening::WaitWritable => {
                        return Some((connection.socket(), Readiness::Writable));
                    }
                    Opening::Failed => match connect::classify(connection, &self.node) {
                        NoSession::Unreachable(error) => Step::Silent(error),
                        NoSession::Refused(_) => Step::Refused,
                    },
                    Opening::Open => self.opened(),
                },
                Step::Asked(link) => match read(link) {
                    None => return Some((link.socket(), Readiness::Readable)),
                    Some(Err(error)) => Step::Silent(error),
                    Some(Ok(())) => self.answered(),
                },
            };
            self.step = next;
        }
    }

    fn opened(&mut self) -> Step {
        match std::mem::replace(&mut self.step, Step::Refused) {
            Step::Opening(connection) => {
                Link::new(connection).and_then(asked).unwrap_or_else(Step::Silent)
            }
            other => other,
        }
    }

    fn answered(&mut self) -> Step {
        match std::mem::replace(&mut self.step, Step::Refused) {
            Step::Asked(link) => Step::Answered(link),
            other => other,
        }
    }

    fn outcome(&mut self) -> Result<(), PgError> {
        match &self.step {
            Step::Answered(_) | Step::Refused => Ok(()),
            Step::Silent(error) => Err(error.clone()),
            Step::Opening(_) | Step::Asked(_) => {
                let text = format!("no answer within {} s", LIMIT.as_secs_f32());
                self.misses += 1;
                Err(PgError::new(SqlState::CONNECTION_FAILURE, text))
            }
        }
    }
}

fn asked(mut link: Link) -> Result<Step, PgError> {
    link.flight().query("SELECT");
    link.send_some()?;
    Ok(Step::Asked(link))
}

/// Reads the answer, as far as it is here.
fn read(link: &mut Link) -> Option<Result<(), PgError>> {
    loop {
        match link.message() {
            Ok(Some(message)) => {
                if matches!(message.kind, Kind::Ready(_)) {
                    return Some(Ok(()));
                }
            }
            Ok(None) => match link.receive() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            },
            Err(error) => return Some(Err(error)),
        }
    }
}
