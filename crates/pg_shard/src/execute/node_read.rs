//! What one node delivers: its session, and the stream of rows on it.

use crate::activity::Work;
use crate::session::alive::check_all;
use crate::session::pool::SessionRef;
use crate::session::stream::Stream;
use crate::session::{Event, Failure};
use crate::settings;
use pg::exec::merge::Head;
use pg::net::wait::{Readiness, WaitSet, clock};
use pg::server::transaction::Isolation;
use pg::{PgError, SqlState};
use protocol::Message;
use shardmap::NodeAddress;

/// What one node delivers.
pub(super) struct NodeRead {
    pub(super) node: NodeAddress,
    pub(super) shards: Vec<usize>,
    pub(super) session: SessionRef,
    pub(super) stream: Stream,
    /// The row that the stream has come to, if it is one to be merged.
    pub(super) head: Option<Head>,
    /// The node's portal, if the statement is bound and not executed.
    pub(super) portal: Option<u64>,
}

impl Drop for NodeRead {
    fn drop(&mut self) {
        // After an error nobody has told the session that the query, and the store for its rows, are gone.
        self.stream.state.borrow_mut().unwanted = true;
    }
}

/// The statement can be sent once more: nothing has come by the node's snapshot, or there is none.
pub(super) fn is_afresh(session: &SessionRef) -> bool {
    let mut session = session.borrow_mut();
    if session.snapshot.as_ref().is_some_and(|snapshot| !snapshot.has_answered) {
        session.roll_back();
    }
    session.depth == 0
}

pub(super) fn tell_done(told: Option<&Work>, read: &NodeRead) {
    if let Some(told) = told {
        told.done(read.shards.len());
    }
}

pub(super) enum Taken {
    Row(Message),
    Nothing,
    End,
    Spilled,
    Failed(Failure),
}

pub(super) fn take(read: &mut NodeRead) -> Taken {
    {
        let mut state = read.stream.state.borrow_mut();
        if let Some(failure) = state.failure.take() {
            return Taken::Failed(failure);
        }
        if state.done {
            return Taken::Spilled;
        }
    }
    let event = read.session.borrow_mut().poll();
    match event {
        Ok(Event::Row(row)) => {
            read.stream.state.borrow_mut().started = true;
            Taken::Row(row)
        }
        Ok(Event::Wait) => Taken::Nothing,
        Ok(Event::Done(_)) => {
            read.stream.state.borrow_mut().done = true;
            read.session.borrow_mut().reader = None;
            Taken::End
        }
        Err(failure) => {
            read.stream.state.borrow_mut().done = true;
            read.session.borrow_mut().reader = None;
            Taken::Failed(failure)
        }
    }
}

pub(super) fn wait_any(reads: &[NodeRead]) -> Result<(), PgError> {
    if let [only] = reads {
        // What was lost is noticed at the next poll.
        let _ = only.session.borrow_mut().wait();
        return Ok(());
    }
    let sockets: Vec<_> =
        reads.iter().map(|read| (read.session.borrow().socket(), Readiness::Readable)).collect();
    let set = WaitSet::new(&sockets);
    let limit = settings::silence_timeout();
    let since = clock();
    loop {
        match set.wait(limit) {
            Some(index) => {
                let _ = reads[index].session.borrow_mut().consume();
                return Ok(());
            }
            None if limit.is_some_and(|limit| clock() - since >= limit) => {
                let sessions: Vec<_> = reads.iter().map(|read| &read.session).collect();
                let _ = check_all(&sessions);
                return Ok(());
            }
            None => {}
        }
    }
}

/// The executor needs no more rows of this node, but perhaps its snapshot; true if what is under way there has to be stopped.
pub(super) fn abandon(read: &NodeRead, keeps_snapshot: bool) -> bool {
    if read.stream.state.borrow().done {
        return false;
    }
    read.stream.state.borrow_mut().done = true;
    let Ok(mut session) = read.session.try_borrow_mut() else { return false };
    session.reader = None;
    // Often the rest is here already.
    loop {
        match session.poll() {
            Ok(Event::Row(_)) => {}
            Ok(Event::Wait) => break,
            Ok(Event::Done(_)) | Err(_) => return false,
        }
    }
    if session.depth > 0
        && (session.wrote
            || session.locked
            || keeps_snapshot && session.snapshot.is_some()
            || pg::server::transaction::isolation_level() != Isolation::ReadCommitted)
    {
        // A cancel would abort the remote transaction: read the rest and throw it away.
        let _ = session.finish(&mut |_| Ok(()));
        return false;
    }
    true
}

/// The error for a node that was lost after rows of it had been given out.
pub(super) fn lost_in_the_middle(node: &NodeAddress, cause: Option<&PgError>) -> PgError {
    let error = PgError::new(
        SqlState::CONNECTION_FAILURE,
        format!("connection to node \"{node}\" was lost in the middle of a read"),
    )
    .hint("Run the statement again; it will use other placements, if there are any.");
    match cause {
        Some(cause) => error.detail(format!("Remote message: {}", cause.message())),
        None => error,
    }
}
