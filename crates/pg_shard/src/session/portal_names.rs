//! Which portals of the remote transaction are bound, and how the node knows them.

/// The portals of a session.
#[derive(Debug, Default)]
pub(super) struct Portals {
    /// The number of the last one.
    last: u64,
    /// The next statement is only bound, in this one.
    next: Option<u64>,
    /// To be closed: closing one that has gone with its transaction is no error.
    unwanted: Vec<u64>,
}

impl Portals {
    /// The portal of the statement that is queued now, if it is not to be executed.
    pub(super) fn take_next(&mut self) -> Option<u64> {
        self.next.take()
    }

    /// The next statement is only bound: the number of its portal.
    pub(super) fn hold_next(&mut self) -> u64 {
        self.last += 1;
        self.next = Some(self.last);
        self.last
    }

    /// The portal is not wanted any more.
    pub(super) fn close(&mut self, portal: u64) {
        self.unwanted.push(portal);
    }

    /// What the node is to close.
    pub(super) fn take_unwanted(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.unwanted)
    }
}

/// How the node knows it.
pub(super) fn name(portal: u64) -> String {
    format!("pg_shard cursor {portal}")
}
