//! Rows on their way to the shards of one table, as COPY data.
//!
//! Lines are collected per shard. When a shard's batch is full it goes to every healthy placement as one COPY in
//! the node's session and transaction. Nothing is waited for: batches are queued on the sessions and sent as the nodes
//! take them, so that all nodes work at once while the next batches are made. So a node never has more than one session
//! with us, rows of the same transaction see each other, and memory is bounded by the batches and by what is queued.

use super::pending::Pending;
use super::write::{MOST_KEYS, Order, lock_for, refreshed, writable};
use crate::activity::{self, Kind, Work};
use crate::catalog::{DistributedTable, quote};
use crate::health;
use crate::naming::{tell_as_table, tell_client_line};
use crate::session::Failure;
use crate::session::alive::check_all;
use crate::session::pool::{self, SessionRef};
use crate::settings;
use crate::transaction::{self, NodeFailure};
use pg::net::wait::{Readiness, WaitSet, clock};
use pg::sys::plan::Command;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::{NodeAddress, PlacementId, ShardId};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

/// Bytes of a shard's batch.
const LOT_BYTES: usize = 256 * 1024;

/// Bytes over all batches, for tables of many shards.
const ALL_LOTS_BYTES: usize = 32 * 1024 * 1024;

/// Bytes that may wait to be sent, over all nodes.
const UNSENT_BYTES: usize = 16 * 1024 * 1024;

/// Rows for one shard.
#[derive(Debug, Default)]
pub(crate) struct CopyBatch {
    /// Lines of COPY data.
    pub(crate) data: Vec<u8>,
    rows: usize,
    lines: LineNumbers,
}

impl CopyBatch {
    /// No row has been added.
    pub(crate) fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The next row is `height` lines of the batch and ends with this line of the client's data.
    pub(crate) fn note_line(&mut self, height: u32, of_client: u64) {
        self.lines.height += height;
        self.lines.ends.push((self.lines.height, of_client));
    }
}

/// Which lines of a batch are which of the client's data.
#[derive(Debug, Default)]
struct LineNumbers {
    height: u32,
    /// The last line of each row, here and there.
    ends: Vec<(u32, u64)>,
}

impl LineNumbers {
    fn of_client(&self, line: u64) -> Option<u64> {
        let at = self.ends.partition_point(|(end, _)| u64::from(*end) < line);
        self.ends.get(at).map(|(_, of_client)| *of_client)
    }

    /// The first and the last of the client's.
    fn all(&self) -> Option<(u64, u64)> {
        Some((self.ends.first()?.1, self.ends.last()?.1))
    }
}

/// A batch that a node has been sent and has not said to have stored.
struct Sent {
    number: u64,
    index: usize,
    placement: PlacementId,
    lines: Rc<LineNumbers>,
}

/// A node with batches under way.
struct Node {
    address: NodeAddress,
    session: SessionRef,
    sent: VecDeque<Sent>,
}

/// Collects lines and sends them.
pub(crate) struct Sink {
    tables: Vec<Rc<DistributedTable>>,
    /// The role whose rights count: a view's owner, or (zero) the current user.
    user: Oid,
    /// What follows the table's name in COPY.
    columns: String,
    options: String,
    batches: Vec<CopyBatch>,
    collected: usize,
    /// The keys of each shard's rows by their hashes; none if they are too many to be locked one by one.
    keys: Vec<Option<BTreeSet<i32>>>,
    /// Shards that are locked for any key.
    locked: Vec<bool>,
    nodes: Vec<Node>,
    missed: Vec<(ShardId, PlacementId)>,
    _told: Work,
}

impl Sink {
    /// A sink for the columns named; `options` is what COPY must be told of the lines' format.
    pub(crate) fn new(
        table: Rc<DistributedTable>,
        user: Oid,
        columns: &[String],
        options: String,
    ) -> Self {
        let shards = table.map.len();
        let columns: Vec<String> = columns.iter().map(|name| quote(name)).collect();
        Self {
            tables: vec![table],
            user,
            columns: columns.join(", "),
            options,
            batches: std::iter::repeat_with(CopyBatch::default).take(shards).collect(),
            collected: 0,
            keys: vec![Some(BTreeSet::new()); shards],
            locked: vec![false; shards],
            nodes: Vec::new(),
            missed: Vec::new(),
            _told: Work::begin(Kind::Copy, 0),
        }
    }

    fn table(&self) -> &DistributedTable {
        &self.tables[0]
    }

    /// Adds a row by its key's hash; `write` appends it to its shard's batch.
    pub(crate) fn add(
        &mut self,
        hash: i32,
        write: impl FnOnce(&mut CopyBatch) -> Result<(), PgError>,
    ) -> Result<(), PgError> {
        let index = self.table().map.owner(hash).ok_or_else(super::write::no_destination)?;
        let before = self.batches[index].data.len();
        write(&mut self.batches[index])?;
        self.collected += self.batches[index].data.len() - before;
        self.batches[index].rows += 1;
        if let Some(keys) = &mut self.keys[index] {
            keys.insert(hash);
            if keys.len() > MOST_KEYS {
                self.keys[index] = None;
            }
        }
        if self.batches[index].data.len() >= LOT_BYTES {
            self.send(index)?;
        }
        if self.collected >= ALL_LOTS_BYTES {
            self.send_all()?;
        }
        Ok(())
    }

    fn send_all(&mut self) -> Result<(), PgError> {
        self.open_sessions();
        for index in 0..self.batches.len() {
            if !self.batches[index].is_empty() {
                self.send(index)?;
            }
        }
        Ok(())
    }

    /// Opens the sessions that are missing for what has been collected, all at once.
    fn open_sessions(&self) {
        let table = self.table();
        let filled = (0..self.batches.len()).filter(|index| !self.batches[*index].is_empty());
        let nodes = filled.flat_map(|index| table.healthy(index)).map(|placement| &placement.node);
        pool::acting_as(self.user, || pool::open_missing(nodes));
    }

    /// Queues a shard's batch for its placements.
    fn send(&mut self, index: usize) -> Result<(), PgError> {
        let CopyBatch { data, rows, lines } = std::mem::take(&mut self.batches[index]);
        self.collected -= data.len();
        let lines = Rc::new(lines);
        if !self.locked[index] {
            let shard = self.table().shard_id(index);
            let keys =
                self.keys[index].as_ref().map(|keys| keys.iter().copied().collect::<Vec<_>>());
            lock_for(Order::of(Command::Insert), self.table(), index, keys.as_deref());
            self.locked[index] = keys.is_none();
            // A repair may have ended while we waited for the lock.
            self.tables = refreshed(&[self.table().oid], index, shard)?;
        }
        let sql = format!(
            "COPY {} ({}) FROM STDIN{}",
            self.table().shard_name(index),
            self.columns,
            self.options
        );
        let is_missed = |placement: PlacementId| self.missed.iter().any(|(_, id)| *id == placement);
        let placements: Vec<_> = writable(&self.tables, index)?
            .into_iter()
            .filter(|placement| !is_missed(placement.id))
            .collect();
        let mut leads = true;
        for placement in placements {
            match self.session(&placement.node) {
                Ok(at) => {
                    let queued = self.nodes[at].session.borrow_mut().queue_copy(&sql, &data);
                    // From here on the node's loss is ours: what it has of this transaction is gone.
                    transaction::note_written(self.table(), index, placement.id, &placement.node);
                    match queued {
                        Ok(number) => {
                            let lines = Rc::clone(&lines);
                            let sent = Sent { number, index, placement: placement.id, lines };
                            self.nodes[at].sent.push_back(sent);
                            leads = false;
                        }
                        Err(Failure::Statement(error)) => {
                            let shard = (self.table(), index);
                            let error = tell_as_table(error, &[shard], &placement.node);
                            let of_client = |line| lines.of_client(line);
                            let name = &self.table().name;
                            return Err(tell_client_line(error, name, of_client, lines.all()));
                        }
                        Err(Failure::Lost(error)) => {
                            self.missed.push((self.table().shard_id(index), placement.id));
                            self.lose(at, &error)?;
                        }
                    }
                }
                Err(NodeFailure::Error(error)) => {
                    return Err(tell_as_table(error, &[(self.table(), index)], &placement.node));
                }
                Err(NodeFailure::Unreachable(error)) => {
                    pg::sys::error::warning(pool::connection_failed(&placement.node, &error));
                    self.missed.push((self.table().shard_id(index), placement.id));
                    transaction::lose_node(&placement.node, &error)?;
                }
            }
        }
        if leads {
            return Err(PgError::new(
                SqlState::INTERNAL_ERROR,
                "could not modify any active placements",
            )
            .detail(format!(
                "No placement of shard {} of table \"{}\" can be written.",
                self.table().shard_id(index).0,
                self.table().name
            )));
        }
        activity::sent_rows(rows);
        self.progress()?;
        while self.nodes.iter().map(|node| node.session.borrow().unsent()).sum::<usize>()
            > UNSENT_BYTES
        {
            self.wait()?;
        }
        Ok(())
    }

    /// The node's place among ours, with a session inside the transaction.
    fn session(&mut self, node: &NodeAddress) -> Result<usize, NodeFailure> {
        let known = self.nodes.iter().position(|known| known.address == *node);
        let (level, isolation) = transaction::level_for_write();
        if let Some(at) = known {
            let session = &self.nodes[at].session;
            let is_told = pool::acting_as(self.user, || pool::is_told(session));
            let open = session.borrow();
            let is_ours = open.depth == level && open.snapshot.is_none() && open.reader.is_none();
            if open.is_usable() && is_ours && is_told {
                return Ok(at);
            }
        }
        let mut begin = |session: &SessionRef| {
            let mut open = session.borrow_mut();
            open.begin(level, isolation)?;
            open.wrote = true;
            Ok(())
        };
        let (session, ()) =
            pool::acting_as(self.user, || transaction::with_session(node, &mut begin))?;
        Ok(if let Some(at) = known {
            self.nodes[at].session = session;
            at
        } else {
            self.nodes.push(Node { address: node.clone(), session, sent: VecDeque::new() });
            self.nodes.len() - 1
        })
    }

    /// A node is lost, and with it all batches that it was sent.
    fn lose(&mut self, at: usize, error: &PgError) -> Result<(), PgError> {
        let Node { address, sent, .. } = self.nodes.remove(at);
        pg::sys::error::warning(pool::connection_failed(&address, error));
        let missed = sent.iter().map(|sent| (self.table().shard_id(sent.index), sent.placement));
        let missed: Vec<_> = missed.collect();
        self.missed.extend(missed);
        transaction::lose_node(&address, error)
    }

    /// Sends and receives what goes without waiting.
    fn progress(&mut self) -> Result<(), PgError> {
        let mut at = 0;
        while at < self.nodes.len() {
            let moved = self.nodes[at].session.borrow_mut().move_copies();
            loop {
                let node = &mut self.nodes[at];
                let Some(sent) = node.sent.front() else { break };
                let Some(outcome) = node.session.borrow_mut().stored(sent.number) else { break };
                if let Err(Failure::Statement(error) | Failure::Lost(error)) = outcome {
                    return Err(self.tell(error, at));
                }
                node.sent.pop_front();
            }
            match moved {
                Ok(()) => at += 1,
                Err(Failure::Statement(error) | Failure::Lost(error)) => self.lose(at, &error)?,
            }
        }
        Ok(())
    }

    /// A node's error about the first of its batches, as the user is told.
    fn tell(&self, error: PgError, at: usize) -> PgError {
        let node = &self.nodes[at];
        let Some(Sent { index, lines, .. }) = node.sent.front() else { return error };
        let error = tell_as_table(error, &[(self.table(), *index)], &node.address);
        tell_client_line(error, &self.table().name, |line| lines.of_client(line), lines.all())
    }

    /// Waits until some node has taken or said something.
    fn wait(&mut self) -> Result<(), PgError> {
        let sockets: Vec<_> = self
            .nodes
            .iter()
            .filter(|node| !node.sent.is_empty())
            .map(|node| {
                let session = node.session.borrow();
                let is_sending = session.unsent() > 0;
                let readiness = if is_sending { Readiness::Writable } else { Readiness::Readable };
                (session.socket(), readiness)
            })
            .collect();
        let set = WaitSet::new(&sockets);
        let limit = settings::silence_timeout();
        let since = clock();
        while set.wait(limit).is_none() {
            if limit.is_some_and(|limit| clock() - since >= limit) {
                let waiting = self.nodes.iter().filter(|node| !node.sent.is_empty());
                let sessions: Vec<_> = waiting.map(|node| &node.session).collect();
                // Whether one is lost is seen when it is used.
                let _ = check_all(&sessions);
                break;
            }
        }
        self.progress()
    }

    /// Sends what has been collected and waits for everything to be stored.
    pub(crate) fn settle(&mut self) -> Result<(), PgError> {
        self.send_all()?;
        while self.nodes.iter().any(|node| !node.sent.is_empty()) {
            self.wait()?;
        }
        Ok(())
    }

    /// The same at the end.
    pub(crate) fn finish(&mut self) -> Result<(), PgError> {
        self.settle()?;
        if !self.missed.is_empty() {
            health::mark_inactive(&self.missed)?;
        }
        Ok(())
    }
}

impl Pending for Sink {
    fn table(&self) -> Oid {
        self.tables[0].oid
    }

    fn table_name(&self) -> String {
        self.tables[0].name.clone()
    }

    fn is_full(&self) -> bool {
        self.collected > 0 || self.nodes.iter().any(|node| !node.sent.is_empty())
    }

    fn send_now(&mut self) -> Result<(), PgError> {
        self.settle()
    }
}
