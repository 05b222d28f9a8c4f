//! A statement that changes one shard: on the leading placement first, then on the others.
//!
//! The leader's row locks order all writers. A placement whose node cannot be reached misses the write and is
//! marked, if another one took it; an SQL error is the statement's and marks nothing.

use super::read::{common_nodes, explain_shards, render_generic};
use super::{prune, render, tables};
use crate::catalog::{DistributedTable, Placement};
use crate::health;
use crate::naming::tell_as_table;
use crate::plan::compiled::Compiled;
use crate::plan::data::{Plan, Routed};
use crate::session::pool;
use crate::session::{Failure, NoSession, Request, Sql, StatementKey};
use crate::settings;
use crate::transaction::{self, NodeFailure};
use pg::lock::{Mode, ShardLock, lock_shard};
use pg::query::Command;
use pg::scan::{Explain, Scan, ScanIo};
use pg::{PgError, SqlState};
use protocol::Row;
use shardmap::{PlacementId, ShardId};
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
        lock_for(plan.command, table, index, pruned.hash);

        let key = StatementKey {
            template: self.compiled.template_number(&plan.template)?,
            part: table.shard_id(index).0,
        };
        let codecs = self.compiled.codecs(|| io.make_plain_codecs(plan.sent));
        let render = || render(&plan.template, index);
        let request = Request {
            sql: Sql::Kept(key, &render),
            types: codecs.argument_types(),
            arguments: &io.arguments(),
        };
        let alone = io.is_whole_transaction();
        let rows = io.rows();
        let returning = plan.returning;
        let affected = write_shard(&tables, index, &request, alone, &mut |row| {
            if returning { rows.borrow_mut().keep(row) } else { Ok(()) }
        })?;
        io.add_processed(affected);
        Ok(())
    }
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

/// Takes the locks that give all placements of a shard the same order of writes, and that a repair waits for.
///
/// INSERTs run beside each other; UPDATE and DELETE exclude INSERTs and each other where they could meet: on
/// one value of the distribution column if the statement is by key, on the whole shard otherwise. A shard with
/// one placement needs no order but its own, and nobody repairs it.
pub(crate) fn lock_for(
    command: Command,
    table: &DistributedTable,
    index: usize,
    hash: Option<i32>,
) {
    if table.placements[index].len() <= 1 {
        return;
    }
    let shard = table.shard_id(index);
    let commutes = command == Command::Insert || settings::all_modifications_commutative();
    match (commutes, hash) {
        (true, hash) => {
            lock_shard(ShardLock::Data(shard), Mode::Share);
            if let Some(hash) = hash {
                lock_shard(ShardLock::Key(shard, hash), Mode::Share);
            }
        }
        (false, Some(hash)) => {
            lock_shard(ShardLock::Data(shard), Mode::Share);
            lock_shard(ShardLock::Key(shard, hash), Mode::Exclusive);
        }
        (false, None) => lock_shard(ShardLock::Data(shard), Mode::Exclusive),
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
/// `alone` says that the statement is the whole transaction: with a single placement the node then commits it
/// by itself.
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
    if alone && placements.len() == 1 && transaction::is_untouched() {
        return write_alone(table, index, &placements[0], request, &named, each);
    }
    let mut write = Write { table, index, named: &named, affected: None, missed: Vec::new() };
    if alone
        && let [leader, follower] = &placements[..]
        && transaction::is_untouched()
    {
        write.on(leader, request, Commits::WithTransaction, each)?;
        if write.affected.is_some() {
            // From here on the transaction is decided: the follower commits with the statement, the leader after it.
            // A cancel meanwhile is passed to the follower; if that obeys, nothing has happened.
            return transaction::uninterrupted(|| {
                write.on(follower, request, Commits::AtOnce, each)?;
                let affected = write.finish()?;
                transaction::before_commit()?;
                Ok(affected)
            });
        }
        write.on(follower, request, Commits::WithTransaction, each)?;
        return write.finish();
    }
    for placement in &placements {
        write.on(placement, request, Commits::WithTransaction, each)?;
    }
    write.finish()
}

/// When a placement's write is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commits {
    /// By the node itself, as soon as it is done.
    AtOnce,
    /// At the end of the transaction.
    WithTransaction,
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
        commits: Commits,
        each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
    ) -> Result<(), PgError> {
        let leads = self.affected.is_none();
        let outcome = transaction::with_session(&placement.node, &mut |session| {
            let mut session = session.borrow_mut();
            let mut take = |row: Row<'_>| if leads { each(row) } else { Ok(()) };
            match commits {
                Commits::AtOnce => session.execute_uninterrupted(request, &mut take),
                Commits::WithTransaction => {
                    let level = transaction::level_for_write();
                    let rows = session.execute(request, Some(level), &mut take)?;
                    session.wrote = true;
                    Ok(rows)
                }
            }
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
                    pg::error::warning(
                        PgError::new(
                            SqlState::WARNING,
                            format!("modified {rows} tuples, but expected to modify {expected}"),
                        )
                        .detail(format!("modified placement on {}", placement.node)),
                    );
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

/// One placement, one statement, one round trip.
fn write_alone(
    table: &DistributedTable,
    index: usize,
    placement: &Placement,
    request: &Request<'_>,
    named: &[(&DistributedTable, usize)],
    each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
) -> Result<u64, PgError> {
    let session = pool::session(&placement.node).map_err(|reason| match reason {
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
