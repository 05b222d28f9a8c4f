//! Reading from nodes, with retries and fail-over.
//!
//! A read marks no placement. What protects it is one rule: a statement may be sent again, to the same node or to another, as long as
//! nobody has seen anything of the answer that a second answer could contradict. After that a lost node is an error, never a
//! short result.

use crate::assignment::Parts;

/// A statement on its way to the nodes that together hold some shards.
#[derive(Clone, Debug)]
pub struct Opening<N> {
    waiting: Vec<usize>,
    avoid: Vec<N>,
    refused_here: bool,
}

/// Why a shard cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unopened<E> {
    /// No placement is left.
    Unreadable(E),
    /// This server has refused to connect, which says more than that no placement is left.
    RefusedHere,
}

impl<N> Opening<N> {
    /// Of these shards, without these nodes, which are known to be gone.
    pub fn new(shards: &[usize], avoid: Vec<N>) -> Self {
        Self { waiting: shards.to_vec(), avoid, refused_here: false }
    }

    /// Which nodes are to be asked next for which shards; none when each shard is asked for. `assign` gives shards to nodes other than
    /// those to be avoided, as [`crate::assignment::assign`] does.
    pub fn next<E>(
        &mut self,
        assign: impl FnOnce(&[usize], &[N]) -> Result<Parts<N>, E>,
    ) -> Result<Option<Parts<N>>, Unopened<E>> {
        if self.waiting.is_empty() {
            return Ok(None);
        }
        match assign(&std::mem::take(&mut self.waiting), &self.avoid) {
            Ok(parts) => Ok(Some(parts)),
            Err(_) if self.refused_here => Err(Unopened::RefusedHere),
            Err(unreadable) => Err(Unopened::Unreadable(unreadable)),
        }
    }

    /// The node cannot be reached, or this server itself has refused to; others are asked for its shards.
    pub fn on_unreachable(&mut self, node: N, shards: &[usize], refused_here: bool) {
        self.avoid.push(node);
        self.waiting.extend_from_slice(shards);
        self.refused_here |= refused_here;
    }
}

/// Why a statement is not under way on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFailure {
    /// There is no connection to it.
    Unreachable,
    /// There is none because of this server, such as a setting or a limit of it.
    RefusedHere,
    /// The node has refused to connect, or has rejected what prepares the session.
    Rejected,
    /// A session in which this statement had read already is gone.
    Torn,
    /// The connection was lost while the session was prepared.
    LostInPreparation,
    /// The connection was lost while the statement was sent.
    Lost {
        /// A remote transaction was under way on it.
        had_transaction: bool,
    },
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It is sent once more, over a fresh connection.
    SendAgain,
    /// Another node is asked for the shards.
    AskOthers,
    /// The statement fails with the error at hand.
    Fail,
    /// The statement fails: a snapshot by which it had read is gone.
    FailTorn,
}

/// Attempts to send a statement to one node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempts {
    lost: u32,
}

impl Attempts {
    /// What is to be done after this.
    ///
    /// A connection that had no transaction may have been closed while it was idle, which is noticed when something is sent:
    /// a fresh one is tried, once.
    pub fn on(&mut self, event: SendFailure) -> Retry {
        match event {
            SendFailure::Torn => Retry::FailTorn,
            SendFailure::Rejected => Retry::Fail,
            SendFailure::Unreachable
            | SendFailure::RefusedHere
            | SendFailure::LostInPreparation => Retry::AskOthers,
            SendFailure::Lost { had_transaction } => {
                self.lost += 1;
                if had_transaction || self.lost > 1 { Retry::AskOthers } else { Retry::SendAgain }
            }
        }
    }
}

/// What has happened to a statement that was under way on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// The connection is lost.
    Lost,
    /// The node does not know the prepared statement any more, or not as it was.
    StaleStatement,
    /// The node has raised an error.
    Error,
}

/// What is known of the statement at that moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The node has delivered a row.
    pub has_rows: bool,
    /// What the scan yields is of a moment that has passed: a cursor has been opened on it.
    pub is_settled: bool,
    /// A session in which this statement had read already is gone.
    pub is_torn: bool,
    /// The session has no remote transaction, or one in which nothing has been read.
    pub is_afresh: bool,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The same node is asked again, then others.
    AskAgain,
    /// The same, but only others are asked if nobody has heard from the node for a while.
    AskAgainUnlessSilent,
    /// The statement fails with the node's error.
    Fail,
    /// The statement fails, because the node was lost in the middle.
    FailInTheMiddle,
}

impl Progress {
    /// What is to be done after this. A restarted node has closed a connection that looked good, so it is asked once more.
    pub fn recovery(self, interruption: Interruption) -> Recovery {
        match interruption {
            Interruption::StaleStatement if !self.has_rows && self.is_afresh => Recovery::AskAgain,
            Interruption::StaleStatement | Interruption::Error => Recovery::Fail,
            Interruption::Lost if self.has_rows || self.is_settled || self.is_torn => {
                Recovery::FailInTheMiddle
            }
            Interruption::Lost => Recovery::AskAgainUnlessSilent,
        }
    }
}

impl Recovery {
    /// The same node is asked again. `is_silent` says that nobody has heard from it for a while; it is called only if that matters.
    pub fn asks_again(self, is_silent: impl FnOnce() -> bool) -> bool {
        match self {
            Self::AskAgain => true,
            Self::AskAgainUnlessSilent => !is_silent(),
            Self::Fail | Self::FailInTheMiddle => false,
        }
    }
}

/// How often another time is tried for a read of all nodes at one time.
const MOST_TIMES: u32 = 7;

/// Attempts to read at a time that all nodes accept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    refused: u32,
}

/// What is known of a read whose time a node has refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtOneTime {
    /// The read has a time that was chosen for it, and not the one of its statement's snapshots.
    pub has_time: bool,
    /// Other parts of the statement read at that time: all nodes were asked to keep it.
    pub is_kept: bool,
    /// A row was handed on.
    pub has_yielded: bool,
    /// See [`Progress`].
    pub is_settled: bool,
    /// The transaction has done nothing but this read, which locks rows, and that can be undone.
    pub can_be_undone: bool,
}

impl Times {
    /// A node has refused the time: whether a later one is tried. `is_untouched` says that the transaction has done nothing on any node;
    /// it is called only if that matters.
    pub fn on_refused(&mut self, read: AtOneTime, is_untouched: impl FnOnce() -> bool) -> bool {
        self.refused += 1;
        read.has_time
            && !read.is_kept
            && !read.has_yielded
            && !read.is_settled
            && self.refused <= MOST_TIMES
            && (is_untouched() || read.can_be_undone)
    }

    /// How many times were refused. After one no row is given out before all nodes have accepted the time.
    pub fn refused(self) -> u32 {
        self.refused
    }
}
