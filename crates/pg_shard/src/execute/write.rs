//! A statement that changes one shard group: on the leading placement first, then on the others.
//!
//! The leader's row locks order all writers. A placement whose node cannot be reached misses the write and is
//! marked, if another one took it; an SQL error is the statement's and marks nothing. What is said of a placement
//! holds for those of all tables that the statement writes (WITH clauses write too): they lie on the same nodes.

use super::read::{common_nodes, explain_shards, render_generic};
use super::{prune, render, tables};
use crate::catalog::{DistributedTable, Placement};
use crate::health;
use crate::naming::tell_as_table;
use crate::plan::data::Routed;
use crate::session::pool::{self, SessionRef};
use crate::session::{Failure, NoSession, Request};
use crate::settings;
use crate::transaction::{self, NodeFailure};
use pg::libpq::ResultSet;
use pg::lock::{Mode, ShardLock, lock_shard};
use pg::query::{Command, Key};
use pg::scan::{Explain, Scan, ScanIo};
use pg::value::Hasher;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::{KeyValue, NodeAddress, PlacementId, Prune, ShardId};
use std::rc::Rc;

/// A statement about more keys than this locks the whole shard.
pub(crate) const MOST_KEYS: usize = 100;

/// The tables of a statement as they are behind the lock, and the shard.
type LockedShard = (Vec<Rc<DistributedTable>>, usize);

/// A scan that writes one shard.
pub(crate) struct RoutedWrite {
    plan: Routed,
    done: bool,
}

impl RoutedWrite {
    /// The scan of a plan.
    pub(crate) fn new(plan: Routed) -> Self {
        Self { plan, done: false }
    }

    fn run(&mut self, io: &mut ScanIo) -> Result<(), PgError> {
        let Some((tables, index)) = self.lock(io)? else { return Ok(()) };
        let sql = render(&self.plan.template, index)?;
        let request = Request {
            sql,
            types: (0..self.plan.sent).map(|index| io.parameter_type(index)).collect(),
            parameters: (0..self.plan.sent).map(|index| io.parameter(index)).collect(),
            binary: io.rows().borrow().binary_result,
        };
        let alone = io.is_whole_transaction();
        let rows = io.rows();
        let returning = self.plan.returning;
        let counts = self.plan.command.is_write();
        let (written, user) = (self.plan.writes.len(), self.plan.user);
        let target = Target { tables: &tables, written, index, user, counts };
        let affected = write_shard(&target, &request, alone, &mut |result| {
            if returning { rows.borrow_mut().keep(result) } else { Ok(()) }
        })?;
        if counts {
            io.add_processed(affected);
        }
        Ok(())
    }

    /// Finds the shard and locks it; none if no shard can hold a row that matches.
    ///
    /// While we waited a repair may have finished or a placement may have been marked, so the metadata are looked
    /// at again behind the lock: a write by an old list would miss a placement that is healthy now.
    fn lock(&self, io: &mut ScanIo) -> Result<Option<LockedShard>, PgError> {
        let mut known = tables(&self.plan.tables)?;
        loop {
            let Some(index) = self.shard(io, &known[0])? else { return Ok(None) };
            let hashes = self.key_hashes(io);
            let mut written: Vec<_> = self.plan.writes.iter().zip(&known).collect();
            // In one order, so that two statements that write the same tables do not wait for each other.
            written.sort_by_key(|(_, table)| table.shard_id(index));
            for (command, table) in written {
                lock_for(*command, table, index, hashes.as_deref());
            }
            let now = tables(&self.plan.tables)?;
            if known.iter().zip(&now).all(|(before, after)| Rc::ptr_eq(before, after)) {
                return Ok(Some((now, index)));
            }
            known = now;
        }
    }

    /// The one shard that the statement concerns now.
    fn shard(&self, io: &mut ScanIo, table: &DistributedTable) -> Result<Option<usize>, PgError> {
        match &prune(io, &self.plan.prune, table)?[..] {
            [index] => Ok(Some(*index)),
            [] if self.plan.brings_row => Err(self.no_shard(io)),
            // Nothing is written, but a SELECT around it has an answer; any shard gives it.
            [] if !self.plan.command.is_write() => Ok(Some(0)),
            [] => Ok(None),
            shards => Err(PgError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "cannot modify multiple shards during a single query",
            )
            .detail(format!(
                "The statement concerns {} shards of table \"{}\".",
                shards.len(),
                table.name
            ))
            .hint(format!("Add an equality on the distribution column \"{}\".", table.key_name))),
        }
    }

    fn no_shard(&self, io: &mut ScanIo) -> PgError {
        let is_null = match &self.plan.prune {
            Prune::Key(key) => Hasher::find(key.family, key.hash_type, key.collation)
                .is_some_and(|mut hasher| io.key_value(key, &mut hasher) == KeyValue::Null),
            _ => false,
        };
        if is_null {
            crate::plan::null_key(self.plan.tables.first().copied())
        } else {
            no_destination()
        }
    }

    /// The hashes of the keys that the statement is about; none if it is not by key, or by too many.
    fn key_hashes(&self, io: &mut ScanIo) -> Option<Vec<i32>> {
        let keys: Vec<&Key> = match &self.plan.prune {
            Prune::Key(key) => vec![key],
            Prune::Or(parts) => parts
                .iter()
                .map(|part| if let Prune::Key(key) = part { Some(key) } else { None })
                .collect::<Option<_>>()?,
            Prune::All | Prune::And(_) => return None,
        };
        let mut hashes = Vec::new();
        for key in keys {
            let mut hasher = Hasher::find(key.family, key.hash_type, key.collation)?;
            if let KeyValue::Hashes(found) = io.with_row_memory(|io| io.key_value(key, &mut hasher))
            {
                hashes.extend(found);
            }
        }
        // In one order, so that two statements about the same keys do not wait for each other.
        hashes.sort_unstable();
        hashes.dedup();
        (hashes.len() <= MOST_KEYS).then_some(hashes)
    }
}

/// pg_shard 1.2's error for a row outside all ranges.
pub(crate) fn no_destination() -> PgError {
    PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "could not find destination shard for new row",
    )
    .detail("Target relation does not contain any shards capable of storing the new row.")
}

/// Takes the locks that give all placements of a shard the same order of writes, and that a repair waits for.
///
/// INSERTs run beside each other; UPDATE and DELETE exclude INSERTs and each other where they could meet: on
/// the values of the distribution column if both are by key (`hashes`), on the whole shard otherwise. A shard with
/// one placement needs no order but its own.
pub(crate) fn lock_for(
    command: Command,
    table: &DistributedTable,
    index: usize,
    hashes: Option<&[i32]>,
) {
    let shard = table.shard_id(index);
    let ordered = table.placements[index].len() > 1 && !settings::all_modifications_commutative();
    let inserts = command == Command::Insert;
    let mode = match (hashes, inserts) {
        _ if !ordered => Mode::RowShare,
        (Some(_), true) => Mode::RowShare,
        (Some(_), false) => Mode::RowExclusive,
        (None, true) => Mode::Share,
        (None, false) => Mode::Exclusive,
    };
    lock_shard(ShardLock::Data(shard), mode);
    for hash in hashes.into_iter().flatten().filter(|_| ordered) {
        let mode = if inserts { Mode::Share } else { Mode::Exclusive };
        lock_shard(ShardLock::Key(shard, *hash), mode);
    }
}

/// The healthy placements of a shard on nodes that hold the other tables' shards as well.
pub(crate) fn writable(
    tables: &[Rc<DistributedTable>],
    index: usize,
) -> Result<Vec<Placement>, PgError> {
    let nodes = common_nodes(tables, index);
    let table = &tables[0];
    let healthy: Vec<Placement> = table.healthy(index).cloned().collect();
    if healthy.is_empty() {
        return Err(nobody(table, index));
    }
    // A placement that cannot see the other tables would silently miss the write.
    if let Some(apart) = healthy.iter().find(|placement| !nodes.contains(&placement.node)) {
        return Err(not_beside(table, &apart.node));
    }
    Ok(healthy)
}

fn not_beside(table: &DistributedTable, node: &NodeAddress) -> PgError {
    PgError::unsupported(
        format!(
            "cannot write table \"{}\" while reading or writing a table that is not beside it",
            table.name
        ),
        "Use one statement for each table, and pass what you have read as values; or repair the placements.",
    )
    .detail(format!("Node \"{node}\" has no healthy placement of the other table's shard."))
}

fn nobody(table: &DistributedTable, index: usize) -> PgError {
    let all: Vec<String> = table.placements[index].iter().map(|p| p.node.to_string()).collect();
    PgError::new(SqlState::INTERNAL_ERROR, "could not modify any active placements")
        .detail(format!(
            "No placement of shard {} of table \"{}\" can be written; it is placed on {}.",
            table.shard_id(index).0,
            table.name,
            all.join(", ")
        ))
        .hint("Start the nodes again, or repair the placements with master_copy_shard_placement.")
}

/// What a statement writes.
pub(crate) struct Target<'a> {
    /// Its tables, the written ones first.
    pub(crate) tables: &'a [Rc<DistributedTable>],
    /// How many of them are written.
    pub(crate) written: usize,
    /// The shard of each.
    pub(crate) index: usize,
    /// The role whose rights count, as in the plan.
    pub(crate) user: Oid,
    /// The rows that a placement reports are those that it changed.
    pub(crate) counts: bool,
}

impl Target<'_> {
    /// The placements of the written tables on one node: they are written, or missed, together.
    fn on_node(&self, node: &NodeAddress) -> Vec<(&DistributedTable, PlacementId)> {
        self.tables[..self.written]
            .iter()
            .filter_map(|table| {
                let placement = table.healthy(self.index).find(|known| known.node == *node)?;
                Some((&**table, placement.id))
            })
            .collect()
    }

    /// The healthy placements of the first table, on nodes that hold those of all others.
    fn placements(&self) -> Result<Vec<Placement>, PgError> {
        let placements = writable(self.tables, self.index)?;
        for table in &self.tables[1..self.written] {
            let is_here = |copy: &Placement| placements.iter().any(|p| p.node == copy.node);
            if let Some(apart) = table.healthy(self.index).find(|copy| !is_here(copy)) {
                return Err(not_beside(table, &apart.node));
            }
        }
        Ok(placements)
    }
}

/// Runs a statement on all healthy placements of a shard; `each` gets the leader's rows. Returns how many rows
/// the leader changed.
///
/// `alone` says that the statement is the whole transaction: with a single placement the node then commits it
/// by itself.
pub(crate) fn write_shard(
    target: &Target<'_>,
    request: &Request,
    alone: bool,
    each: &mut dyn FnMut(&ResultSet) -> Result<(), PgError>,
) -> Result<u64, PgError> {
    let Target { tables, index, .. } = *target;
    let table = &tables[0];
    let placements = target.placements()?;
    let named: Vec<(&DistributedTable, usize)> =
        tables.iter().map(|table| (&**table, index)).collect();
    if alone && placements.len() == 1 && transaction::is_untouched() {
        return write_alone(target, &placements[0], request, &named, each);
    }
    let mut missed: Vec<(ShardId, PlacementId)> = Vec::new();
    let mut affected = None;
    for placement in &placements {
        let level = transaction::level_for_write();
        let leads = affected.is_none();
        let here = target.on_node(&placement.node);
        let miss = |missed: &mut Vec<(ShardId, PlacementId)>| {
            missed.extend(here.iter().map(|(table, id)| (table.shard_id(index), *id)));
        };
        let mut attempt = |session: &SessionRef| {
            let mut session = session.borrow_mut();
            let rows = session.execute(request, Some(level), &mut |rows| {
                if leads { each(rows) } else { Ok(()) }
            })?;
            session.wrote = true;
            Ok(rows)
        };
        let outcome = pool::acting_as(target.user, || {
            transaction::with_session(&placement.node, &mut attempt)
        });
        match outcome {
            Ok((_, rows)) => {
                for (table, id) in &here {
                    transaction::note_written(table, index, *id, &placement.node, leads);
                }
                let expected = *affected.get_or_insert(rows);
                if rows != expected && target.counts {
                    pg::error::warning(
                        PgError::new(
                            SqlState::WARNING,
                            format!("modified {rows} tuples, but expected to modify {expected}"),
                        )
                        .detail(format!("modified placement on {}", placement.node)),
                    );
                    miss(&mut missed);
                }
            }
            Err(NodeFailure::Error(error)) => {
                return Err(tell_as_table(error, &named, &placement.node));
            }
            Err(NodeFailure::Unreachable(error)) => {
                pg::error::warning(pool::connection_failed(&placement.node, &error));
                transaction::lose_node(&placement.node, &error)?;
                miss(&mut missed);
            }
        }
    }
    let affected = affected.ok_or_else(|| nobody(table, index))?;
    if !missed.is_empty() {
        health::mark_inactive(&missed)?;
    }
    Ok(affected)
}

/// One placement, one statement, one round trip.
fn write_alone(
    target: &Target<'_>,
    placement: &Placement,
    request: &Request,
    named: &[(&DistributedTable, usize)],
    each: &mut dyn FnMut(&ResultSet) -> Result<(), PgError>,
) -> Result<u64, PgError> {
    let (table, index) = (&target.tables[0], target.index);
    let session = pool::acting_as(target.user, || pool::session(&placement.node));
    let session = session.map_err(|reason| match reason {
        NoSession::Refused(error) => error,
        NoSession::Unreachable(error) => {
            pg::error::warning(pool::connection_failed(&placement.node, &error));
            nobody(table, index)
        }
    })?;
    let outcome = session.borrow_mut().execute(request, None, each);
    match outcome {
        Ok(rows) => Ok(rows),
        Err(Failure::Statement(error)) => Err(tell_as_table(error, named, &placement.node)),
        Err(Failure::Lost(error)) => {
            pool::discard_broken();
            Err(PgError::new(
                SqlState(*b"08007"),
                format!(
                    "connection to node \"{}\" was lost while it executed the statement",
                    placement.node
                ),
            )
            .detail(format!(
                "The change to table \"{}\" may be stored or not. Remote message: {}",
                table.name,
                error.message()
            ))
            .hint("Look whether it is there before you run the statement again."))
        }
    }
}

impl Scan for RoutedWrite {
    fn next(&mut self, io: &mut ScanIo) -> Result<bool, PgError> {
        if !self.done {
            self.run(io)?;
            self.done = true;
        }
        Ok(self.plan.returning && io.emit_kept())
    }

    fn rescan(&mut self, io: &mut ScanIo, _changed: bool) -> Result<(), PgError> {
        // A write is never on the inner side of anything; a cursor over its RETURNING may go back.
        io.rows().borrow_mut().rewind();
        Ok(())
    }

    fn end(&mut self, _io: &mut ScanIo) {}

    fn explain(&mut self, io: &mut ScanIo, explain: &mut Explain) -> Result<(), PgError> {
        let tables = tables(&self.plan.tables)?;
        if !io.has_parameters() {
            explain.text("Shards", &format!("decided at execution, of {}", tables[0].map.len()));
            explain.text("Remote SQL", &render_generic(&self.plan.template)?);
            return Ok(());
        }
        let shards = prune(io, &self.plan.prune, &tables[0])?;
        explain_shards(explain, &tables, &shards, &self.plan.template)
    }
}
