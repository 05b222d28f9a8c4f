//! Rows on their way to the shards of one table, as COPY data.
//!
//! Lines are collected per shard. When a shard's lot is full it goes to every healthy placement as one COPY in
//! the node's session and transaction, without waiting for the node to have stored it; the next use of the
//! session waits. So a node never has more than one session with us, rows of the same transaction see each
//! other, and memory is bounded by the lots.

use super::write::{MOST_KEYS, Order, lock_for, refreshed, writable};
use crate::catalog::{DistributedTable, quote};
use crate::health;
use crate::naming::tell_as_table;
use crate::session::Failure;
use crate::session::pool::{self, SessionRef};
use crate::transaction::{self, NodeFailure};
use pg::query::Command;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::{NodeAddress, PlacementId, ShardId};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Bytes of a shard's lot.
const LOT_BYTES: usize = 256 * 1024;

/// Bytes over all lots, for tables of many shards.
const ALL_LOTS_BYTES: usize = 32 * 1024 * 1024;

/// Collects lines and sends them.
pub(crate) struct Sink {
    tables: Vec<Rc<DistributedTable>>,
    /// The role whose rights count: a view's owner, or (zero) the current user.
    user: Oid,
    columns: String,
    lots: Vec<Vec<u8>>,
    collected: usize,
    /// The keys of each shard's rows by their hashes; none if they are too many to be locked one by one.
    keys: Vec<Option<BTreeSet<i32>>>,
    /// Shards that are locked for any key.
    locked: Vec<bool>,
    /// Nodes that still store a lot, and whose lot it is.
    pending: Vec<(NodeAddress, SessionRef, usize, PlacementId)>,
    missed: Vec<(ShardId, PlacementId)>,
}

impl Sink {
    /// A sink for the columns named.
    pub(crate) fn new(table: Rc<DistributedTable>, user: Oid, columns: &[String]) -> Self {
        let shards = table.map.len();
        let columns: Vec<String> = columns.iter().map(|name| quote(name)).collect();
        Self {
            tables: vec![table],
            user,
            columns: columns.join(", "),
            lots: vec![Vec::new(); shards],
            collected: 0,
            keys: vec![Some(BTreeSet::new()); shards],
            locked: vec![false; shards],
            pending: Vec::new(),
            missed: Vec::new(),
        }
    }

    fn table(&self) -> &DistributedTable {
        &self.tables[0]
    }

    /// Adds a row by its key's hash; `write` appends its line.
    pub(crate) fn add(
        &mut self,
        hash: i32,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), PgError> {
        let index = self.table().map.owner(hash).ok_or_else(super::write::no_destination)?;
        let before = self.lots[index].len();
        write(&mut self.lots[index]);
        self.collected += self.lots[index].len() - before;
        if let Some(keys) = &mut self.keys[index] {
            keys.insert(hash);
            if keys.len() > MOST_KEYS {
                self.keys[index] = None;
            }
        }
        if self.lots[index].len() >= LOT_BYTES {
            self.send(index)?;
        }
        if self.collected >= ALL_LOTS_BYTES {
            self.send_all()?;
        }
        Ok(())
    }

    fn send_all(&mut self) -> Result<(), PgError> {
        for index in 0..self.lots.len() {
            if !self.lots[index].is_empty() {
                self.send(index)?;
            }
        }
        Ok(())
    }

    /// Sends a shard's lot to its placements.
    fn send(&mut self, index: usize) -> Result<(), PgError> {
        let lot = std::mem::take(&mut self.lots[index]);
        self.collected -= lot.len();
        if !self.locked[index] {
            let shard = self.table().shard_id(index);
            let keys =
                self.keys[index].as_ref().map(|keys| keys.iter().copied().collect::<Vec<_>>());
            lock_for(Order::of(Command::Insert), self.table(), index, keys.as_deref());
            self.locked[index] = keys.is_none();
            // A repair may have ended while we waited for the lock.
            self.tables = refreshed(&[self.table().oid], index, shard)?;
        }
        let sql = format!("COPY {} ({}) FROM STDIN", self.table().shard_name(index), self.columns);
        let missed = self.missed.clone();
        let placements: Vec<_> = writable(&self.tables, index)?
            .into_iter()
            .filter(|placement| !missed.iter().any(|(_, gone)| *gone == placement.id))
            .collect();
        let mut leads = true;
        for placement in placements {
            self.settle(Some(&placement.node))?;
            let mut attempt = |session: &SessionRef| {
                let mut open = session.borrow_mut();
                let (level, isolation) = transaction::level_for_write();
                open.begin(level, isolation)?;
                open.wrote = true;
                open.start_copy_in(&sql)?;
                open.put_copy(&lot)?;
                open.end_copy()
            };
            let outcome = pool::acting_as(self.user, || {
                transaction::with_session(&placement.node, &mut attempt)
            });
            match outcome {
                Ok((session, ())) => {
                    transaction::note_written(
                        self.table(),
                        index,
                        placement.id,
                        &placement.node,
                        leads,
                    );
                    leads = false;
                    self.pending.push((placement.node, session, index, placement.id));
                }
                Err(NodeFailure::Error(error)) => {
                    return Err(tell_as_table(error, &[(self.table(), index)], &placement.node));
                }
                Err(NodeFailure::Unreachable(error)) => {
                    self.miss(index, placement.id, &placement.node, &error)?
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
        Ok(())
    }

    fn miss(
        &mut self,
        index: usize,
        placement: PlacementId,
        node: &NodeAddress,
        error: &PgError,
    ) -> Result<(), PgError> {
        pg::error::warning(pool::connection_failed(node, error));
        transaction::lose_node(node, error)?;
        self.missed.push((self.table().shard_id(index), placement));
        Ok(())
    }

    /// Waits for a node (or all) to have stored its lot.
    fn settle(&mut self, node: Option<&NodeAddress>) -> Result<(), PgError> {
        let (waiting, rest) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|(pending, ..)| node.is_none_or(|node| node == pending));
        self.pending = rest;
        let waiting: Vec<(NodeAddress, SessionRef, usize, PlacementId)> = waiting;
        for (node, session, index, placement) in waiting {
            let stored = session.borrow_mut().finish_copy();
            match stored {
                Ok(()) => {}
                Err(Failure::Statement(error)) => {
                    return Err(tell_as_table(error, &[(self.table(), index)], &node));
                }
                Err(Failure::Lost(error)) => self.miss(index, placement, &node, &error)?,
            }
        }
        Ok(())
    }

    /// Sends what is left and waits for everything to be stored.
    pub(crate) fn finish(mut self) -> Result<(), PgError> {
        self.send_all()?;
        self.settle(None)?;
        if !self.missed.is_empty() {
            health::mark_inactive(&self.missed)?;
        }
        Ok(())
    }
}
