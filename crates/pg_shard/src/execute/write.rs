//! A statement that changes one shard: on the leading placement first, then on the others.
//!
//! The leader's row locks order all writers. A placement whose node cannot be reached misses the write and is
//! marked, if another one took it; an SQL error is the statement's and marks nothing.

use super::pair::{Pair, Rows};
use super::read::{common_nodes, explain_shards, render_generic};
use super::{prune, render, tables};
use crate::catalog::{DistributedTable, Placement};
use crate::health;
use crate::naming::tell_as_table;
use crate::plan::compiled::Compiled;
use crate::plan::data::{Plan, Routed};
use crate::session::pool::{self, Stale};
use crate::session::{Failure, NoSession, Request, Sql, StatementKey};
use crate::settings;
use crate::transaction::{self, NodeFailure};
use pg::lock::{Mode, ShardLock, lock_shard};
use pg::query::Command;
use pg::rows::RowStore;
use pg::scan::{Explain, Scan, ScanIo};
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use protocol::Row;
use shardmap::{PlacementId, ShardId};
use std::cell::RefCell;
use std::rc::Rc;

/// A scan that writes one shard.
pub(crate) struct RoutedWrite {
    compiled: Rc<Compiled>,
    done: bool,
}

impl RoutedWrite {
    /// The scan of a plan.
    pub(crate) fn new(compiled: Rc<Compiled>) -> Self {
        Self { compiled, done: false }
    }

    fn plan(&self) -> &Routed {
        match &self.compiled.plan {
            Plan::Routed(plan) => plan,
            _ => unreachable!("made for a routed plan"),
        }
    }

    fn run(&mut self, io: &mut ScanIo) -> Result<(), PgError> {
        let plan = self.plan();
        let tables = tables(&plan.tables)?;
        let table = &tables[0];
        let pruned = prune(io, &plan.prune, table)?;
        let index = match (&pruned.shards[..], plan.command) {
            ([index], _) => *index,
            ([], Command::Insert | Command::Upsert) if pruned.null_key => {
                return Err(crate::plan::null_key(Some(table.oid)));
            }
            ([], Command::Insert | Command::Upsert) => return Err(no_destination()),
            ([], _) => return Ok(()),
            (several, _) => return Err(several_shards(several.len(), table)),
        };
        let shard = table.shard_id(index);
        let hash = pruned.hash.filter(|_| plan.by_key);
        let alone = io.is_whole_transaction() && transaction::is_untouched();
        let order = match hash {
            Some(_) if alone && tables.len() == 1 && table.unique_within_key => Order::OfKeyAlone,
            _ => Order::of(plan.command),
        };
        lock_for(order, table, index, hash);
        let tables = if table.placements[index].len() > 1 {
            refreshed(&plan.tables, index, shard)?
        } else {
            tables
        };

        let key = StatementKey {
            template: self.compiled.template_number(&plan.template)?,
            part: shard.0,
        };
        let codecs = io.codecs();
        let render = || render(&plan.template, index);
        let request = Request {
            sql: Sql::Kept(key, &render),
            types: codecs.argument_types(),
            arguments: &io.arguments(),
        };
        let mut rows = Returned { rows: io.rows(), wanted: plan.returning };
        if order == Order::OfKeyAlone {
            let placements = writable(&tables, index)?;
            if let Some(pair) = Pair::open(&tables[0], index, &placements)? {
                io.add_processed(pair.execute(&request, &mut rows)?);
                return Ok(());
            }
        }
        let affected = write_shard(&tables, index, &request, alone, &mut |row| rows.take(row))?;
        io.add_processed(affected);
        Ok(())
    }
}

/// The rows of a RETURNING clause, on their way to the executor.
struct Returned {
    rows: Rc<RefCell<RowStore>>,
    wanted: bool,
}

impl Rows for Returned {
    fn take(&mut self, row: Row<'_>) -> Result<(), PgError> {
        if self.wanted { self.rows.borrow_mut().keep(row) } else { Ok(()) }
    }

    fn forget(&mut self) {
        self.rows.borrow_mut().clear();
    }
}

/// The tables of a plan once the locks are held: whoever had them before may have repaired a placement, which must
/// not miss this write.
pub(crate) fn refreshed(
    oids: &[Oid],
    index: usize,
    shard: ShardId,
) -> Result<Vec<Rc<DistributedTable>>, PgError> {
    pg::transaction::accept_invalidations();
    let tables = tables(oids)?;
    if index >= tables[0].map.len() || tables[0].shard_id(index) != shard {
        return Err(PgError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "the shards of table \"{}\" have changed while the statement waited",
                tables[0].name
            ),
        )
        .hint("Run it again."));
    }
    Ok(tables)
}

/// pg_shard 1.2's error for a write that would reach several shards.
fn several_shards(count: usize, table: &DistributedTable) -> PgError {
    PgError::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        "cannot modify multiple shards during a single query",
    )
    .detail(format!("The statement concerns {count} shards of table \"{}\".", table.name))
    .hint(format!("Add an equality on the distribution column \"{}\".", table.key_name))
}

/// pg_shard 1.2's error for a row outside all ranges.
pub(crate) fn no_destination() -> PgError {
    PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "could not find destination shard for new row",
    )
    .detail("Target relation does not contain any shards capable of storing the new row.")
}

/// Which other writers of a shard a write lets run beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// All that are of this kind too: their order does not matter.
    Any,
    /// Those of other keys.
    OfKey,
    /// Those of other keys; and the placements are written at once, so that no row lock orders even what is of
    /// the kind [`Order::Any`].
    OfKeyAlone,
}

impl Order {
    /// INSERTs run beside each other; UPDATE and DELETE exclude INSERTs and each other where they could meet.
    pub(crate) fn of(command: Command) -> Self {
        if command == Command::Insert || settings::all_modifications_commutative() {
            Self::Any
        } else {
            Self::OfKey
        }
    }
}

/// Takes the locks that give all placements of a shard the same order of writes, and that a repair waits for.
///
/// Writers meet on one value of the distribution column if the statement is by key, on the whole shard otherwise. A
/// shard with one placement needs no order but its own, and nobody repairs it.
pub(crate) fn lock_for(order: Order, table: &DistributedTable, index: usize, hash: Option<i32>) {
    if table.placements[index].len() <= 1 {
        return;
    }
    let shard = table.shard_id(index);
    match (order, hash) {
        (Order::Any, Some(hash)) => {
            lock_shard(ShardLock::Data(shard), Mode::InsertByKey);
            lock_shard(ShardLock::Key(shard, hash), Mode::Share);
        }
        (Order::Any, None) => lock_shard(ShardLock::Data(shard), Mode::Share),
        (_, Some(hash)) => {
            lock_shard(ShardLock::Data(shard), Mode::ChangeByKey);
            lock_shard(ShardLock::Key(shard, hash), Mode::Exclusive);
        }
        (_, None) => lock_shard(ShardLock::Data(shard), Mode::Exclusive),
    }
}

/// The healthy placements of a shard on nodes that hold the other tables' shards as well.
pub(crate) fn writable(
    tables: &[Rc<DistributedTable>],
    index: usize,
) -> Result<Vec<Placement>, PgError> {
    let table = &tables[0];
    let healthy: Vec<Placement> = table.healthy(index).cloned().collect();
    if healthy.is_empty() {
        return Err(nobody(table, index));
    }
    if tables.len() == 1 {
        return Ok(healthy);
    }
    let nodes = common_nodes(tables, index);
    // A placement that cannot see the other tables would silently miss the write.
    if let Some(apart) = healthy.iter().find(|placement| !nodes.contains(&placement.node)) {
        return Err(PgError::unsupported(
            format!(
                "cannot write table \"{}\" while reading a table that is not beside it",
                table.name
            ),
            "Read what you need first and pass it as values.",
        )
        .detail(format!(
            "Node \"{}\" has no healthy placement of the other table's shard.",
            apart.node
        )));
    }
    Ok(healthy)
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

/// Runs a statement on all healthy placements of a shard; `each` gets the leader's rows. Returns how many rows
/// the leader changed.
///
/// `alone` says that the statement is the whole transaction, of which nothing has been sent yet: with a single
/// placement the node then commits it by itself.
pub(crate) fn write_shard(
    tables: &[Rc<DistributedTable>],
    index: usize,
    request: &Request<'_>,
    alone: bool,
    each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
) -> Result<u64, PgError> {
    let table = &tables[0];
    let placements = writable(tables, index)?;
    let named: Vec<(&DistributedTable, usize)> =
        tables.iter().map(|table| (&**table, index)).collect();
    if alone && placements.len() == 1 {
        return write_alone(table, index, &placements[0], request, &named, each);
    }
    let mut write = Write { table, index, named: &named, affected: None, missed: Vec::new() };
    for placement in &placements {
        write.on(placement, request, each)?;
    }
    write.finish()
}

/// A write on its way over the placements of a shard.
struct Write<'a> {
    table: &'a DistributedTable,
    index: usize,
    named: &'a [(&'a DistributedTable, usize)],
    /// Rows that the leader changed; none until some placement has taken the write.
    affected: Option<u64>,
    missed: Vec<(ShardId, PlacementId)>,
}

impl Write<'_> {
    /// Runs the statement on one placement. The first that takes it leads.
    fn on(
        &mut self,
        placement: &Placement,
        request: &Request<'_>,
        each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
    ) -> Result<(), PgError> {
        let leads = self.affected.is_none();
        let outcome = transaction::with_session(&placement.node, &mut |session| {
            let mut session = session.borrow_mut();
            let mut take = |row: Row<'_>| if leads { each(row) } else { Ok(()) };
            let rows = session.execute(request, Some(transaction::level_for_write()), &mut take)?;
            session.wrote = true;
            Ok(rows)
        });
        match outcome {
            Ok((_, rows)) => {
                transaction::note_written(
                    self.table,
                    self.index,
                    placement.id,
                    &placement.node,
                    leads,
                );
                let expected = *self.affected.get_or_insert(rows);
                if rows != expected {
                    pg::error::warning(other_count(rows, expected, placement));
                    self.missed.push((self.table.shard_id(self.index), placement.id));
                }
                Ok(())
            }
            Err(NodeFailure::Error(error)) => {
                Err(tell_as_table(error, self.named, &placement.node))
            }
            Err(NodeFailure::Unreachable(error)) => {
                pg::error::warning(pool::connection_failed(&placement.node, &error));
                transaction::lose_node(&placement.node, &error)?;
                self.missed.push((self.table.shard_id(self.index), placement.id));
                Ok(())
            }
        }
    }

    /// Marks what has missed the write; returns how many rows the leader changed.
    fn finish(&self) -> Result<u64, PgError> {
        let affected = self.affected.ok_or_else(|| nobody(self.table, self.index))?;
        if !self.missed.is_empty() {
            health::mark_inactive(&self.missed)?;
        }
        Ok(affected)
    }
}

/// pg_shard 1.2's warning for placements that changed different numbers of rows.
pub(super) fn other_count(rows: u64, expected: u64, placement: &Placement) -> PgError {
    PgError::new(
        SqlState::WARNING,
        format!("modified {rows} tuples, but expected to modify {expected}"),
    )
    .detail(format!("modified placement on {}", placement.node))
}

/// The error for a statement whose outcome nobody knows.
pub(super) fn commit_unknown(
    table: &DistributedTable,
    placement: &Placement,
    cause: &PgError,
) -> PgError {
    PgError::new(
        SqlState(*b"08007"),
        format!(
            "connection to node \"{}\" was lost while it executed the statement",
            placement.node
        ),
    )
    .detail(format!(
        "The change to table \"{}\" may be stored or not. Remote message: {}",
        table.name,
        cause.message()
    ))
    .hint("Look whether it is there before you run the statement again.")
}

/// One placement, one statement, one round trip.
fn write_alone(
    table: &DistributedTable,
    index: usize,
    placement: &Placement,
    request: &Request<'_>,
    named: &[(&DistributedTable, usize)],
    each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
) -> Result<u64, PgError> {
    let session =
        pool::session(&placement.node, Stale::Matters).map_err(|reason| match reason {
            NoSession::Refused(error) => error,
            NoSession::Unreachable(error) => {
                pg::error::warning(pool::connection_failed(&placement.node, &error));
                nobody(table, index)
            }
        })?;
    let mut outcome = session.borrow_mut().execute(request, None, each);
    if outcome.as_ref().is_err_and(Failure::is_stale_statement) {
        outcome = session.borrow_mut().execute(request, None, each);
    }
    match outcome {
        Ok(rows) => Ok(rows),
        Err(Failure::Statement(error)) => Err(tell_as_table(error, named, &placement.node)),
        Err(Failure::Lost(error)) => {
            pool::discard_broken();
            Err(commit_unknown(table, placement, &error))
        }
    }
}

impl Scan for RoutedWrite {
    fn next(&mut self, io: &mut ScanIo) -> Result<bool, PgError> {
        if !self.done {
            self.run(io)?;
            self.done = true;
        }
        Ok(self.plan().returning && io.emit_kept())
    }

    fn rescan(&mut self, io: &mut ScanIo, _changed: bool) -> Result<(), PgError> {
        // A write is never on the inner side of anything; a cursor over its RETURNING may go back.
        io.rows().borrow_mut().rewind();
        Ok(())
    }

    fn end(&mut self, _io: &mut ScanIo) {}

    fn explain(&mut self, io: &mut ScanIo, explain: &mut Explain) -> Result<(), PgError> {
        let tables = tables(&self.plan().tables)?;
        if !io.has_parameters() {
            explain.text("Shards", &format!("decided at execution, of {}", tables[0].map.len()));
            explain.text("Remote SQL", &render_generic(&self.plan().template)?);
            return Ok(());
        }
        let shards = prune(io, &self.plan().prune, &tables[0])?;
        explain_shards(explain, &tables, &shards.shards, &self.plan().template)
    }
}
