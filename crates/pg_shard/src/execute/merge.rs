//! Sorted streams of several nodes as one: a heap of the rows at their heads.
//!
//! A stream's next row is taken when the executor asks for the row after it, so that a row stays where it is while it is in
//! use, and no node is read further than one row ahead: what is not wanted yet waits in the sockets and in the nodes.

use super::node_read::{NodeRead, Taken, take};
use crate::activity::Work;
use crate::session::Failure;
use crate::session::pool::SessionRef;
use crate::transaction;
use pg::exec::merge::{Head, MergeOrder};
use pg::exec::scan_io::ScanIo;
use pg::{PgError, SqlState};
use std::cmp::Ordering;
use std::rc::Rc;

/// A node's stream.
struct Source {
    read: NodeRead,
    head: Head,
    /// All rows that are still to come have been put in the head's store.
    spilled: bool,
}

/// What came of asking a stream for its next row.
enum Next {
    /// It stands at the head.
    Row,
    /// There is none.
    End,
    /// The node failed.
    Failed(Failure),
}

/// The streams.
pub(super) struct Merge {
    order: Rc<MergeOrder>,
    /// Streams that have not given their next row yet.
    waiting: Vec<Source>,
    /// Streams with a row at the head: each is no greater than the two at twice its place.
    heap: Vec<Source>,
}

impl Merge {
    pub(super) fn new(order: Rc<MergeOrder>) -> Self {
        Self { order, waiting: Vec::new(), heap: Vec::new() }
    }

    /// Streams that have just been started.
    pub(super) fn add(&mut self, reads: Vec<NodeRead>) {
        self.waiting.extend(reads.into_iter().filter_map(|mut read| {
            let head = read.head.take()?;
            Some(Source { read, head, spilled: false })
        }));
    }

    /// Waits for the next row of each stream that has not given it.
    /// Returns a node that failed.
    pub(super) fn advance(
        &mut self,
        told: Option<&Work>,
    ) -> Result<Option<(Failure, NodeRead)>, PgError> {
        while let Some(mut source) = self.waiting.pop() {
            match source.next(&self.order, told)? {
                Next::Row => self.push(source),
                Next::End => {
                    if let Some(told) = told {
                        told.done(source.read.shards.len());
                    }
                    source.head.release();
                }
                Next::Failed(failure) => {
                    source.head.release();
                    return Ok(Some((failure, source.read)));
                }
            }
        }
        Ok(None)
    }

    /// The first row of all, in the scan's slot; false if there is none. Its stream goes to those that wait.
    pub(super) fn emit(&mut self, io: &mut ScanIo) -> bool {
        let Some(first) = self.pop() else { return false };
        io.emit_head(&first.head);
        self.waiting.push(first);
        true
    }

    /// Gives the streams up.
    pub(super) fn give_up(self, abandon: &dyn Fn(&NodeRead)) {
        for source in self.waiting.into_iter().chain(self.heap) {
            abandon(&source.read);
            source.head.release();
        }
    }

    /// The session from which the first row of all has come.
    pub(super) fn first(&self) -> Option<SessionRef> {
        self.heap.first().map(|source| Rc::clone(&source.read.session))
    }

    /// Reads all streams to their ends.
    pub(super) fn finish(mut self) -> Result<(), PgError> {
        while let Some(mut source) = self.heap.pop() {
            let mut next = Next::Row;
            while let Next::Row = next {
                next = source.next(&self.order, None)?;
            }
            source.head.release();
            if let Next::Failed(failure) = next {
                return Err(transaction::fail(failure));
            }
        }
        Ok(())
    }

    fn is_before(&self, left: usize, right: usize) -> bool {
        let (left, right) = (&self.heap[left].head, &self.heap[right].head);
        left.compare(right, &self.order) == Ordering::Less
    }

    fn push(&mut self, source: Source) {
        self.heap.push(source);
        let mut place = self.heap.len() - 1;
        while place > 0 {
            let above = (place - 1) / 2;
            if !self.is_before(place, above) {
                break;
            }
            self.heap.swap(place, above);
            place = above;
        }
    }

    fn pop(&mut self) -> Option<Source> {
        if self.heap.is_empty() {
            return None;
        }
        let first = self.heap.swap_remove(0);
        let mut place = 0;
        loop {
            let mut least = place;
            for below in [2 * place + 1, 2 * place + 2] {
                if below < self.heap.len() && self.is_before(below, least) {
                    least = below;
                }
            }
            if least == place {
                return Some(first);
            }
            self.heap.swap(place, least);
            place = least;
        }
    }
}

impl Source {
    fn next(&mut self, order: &MergeOrder, told: Option<&Work>) -> Result<Next, PgError> {
        loop {
            if self.spilled {
                let Some(in_order) = self.head.put_kept(order)? else { return Ok(Next::End) };
                return self.checked(in_order);
            }
            match take(&mut self.read) {
                Taken::Row(message) => {
                    let mut session = self.read.session.borrow_mut();
                    let runs_code = self.head.store().borrow().decoding_runs_code();
                    let in_order = if runs_code {
                        let mut row = session.row(&message).to_owned();
                        drop(session);
                        self.head.put(row.as_row(), order)?
                    } else {
                        self.head.put(session.row(&message), order)?
                    };
                    return self.checked(in_order);
                }
                Taken::Nothing => {
                    if told.is_some_and(Work::goes_on) {
                        self.read.session.borrow().tell_again();
                    }
                    // What was lost is noticed when it is asked again.
                    let _ = self.read.session.borrow_mut().wait();
                }
                Taken::End => return Ok(Next::End),
                Taken::Spilled => self.spilled = true,
                Taken::Failed(failure) => return Ok(Next::Failed(failure)),
            }
        }
    }

    fn checked(&self, in_order: bool) -> Result<Next, PgError> {
        if in_order {
            return Ok(Next::Row);
        }
        Err(PgError::new(
            SqlState::INTERNAL_ERROR,
            format!("node \"{}\" sorts rows otherwise than this server", self.read.node),
        )
        .detail("The rows that it sent are not in the order of ORDER BY.")
        .hint("All nodes must have the same locales and versions of them; compare datcollate, datctype and datcollversion."))
    }
}
