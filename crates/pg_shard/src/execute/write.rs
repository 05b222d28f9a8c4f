//! A statement that changes one shard group: on the leading placement first, then on the others.
//!
//! The leader's row locks order all writers. A placement whose node cannot be reached misses the write and is
//! marked, if another one took it; an SQL error is the statement's and marks nothing. What is said of a placement
//! holds for those of all tables that the statement writes (WITH clauses write too): they lie on the same nodes.

use super::again::Again;
use super::assignment::common_nodes;
use super::explain::{explain_shards, render_generic};
use super::pair::{Pair, Rows};
use super::spread::{Send, write_shards};
use super::{prune, render, tables};
use crate::activity::{Kind, Work};
use crate::catalog::{self, DistributedTable, Placement};
use crate::health;
use crate::naming::tell_as_table;
use crate::plan::compiled::Compiled;
use crate::session::age;
use crate::session::pool::{self, SessionRef, Stale};
use crate::session::{Failure, NoSession, Request, Sql, StatementKey};
use crate::settings;
use crate::transaction::{self, NodeFailure};
use pg::exec::explain::Explain;
use pg::exec::rows::RowStore;
use pg::exec::scan_io::{Scan, ScanIo};
use pg::net::wait::{WaitSet, clock};
use pg::server::lock::{Mode, ShardLock, lock_shard, try_lock_shard, unlock_shard};
use pg::server::settings::lock_timeout;
use pg::server::transaction::{Isolation, isolation_level};
use pg::sys::plan::{Command, Key, Plan, Routed};
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use protocol::Row;
use shardmap::{KeyValue, NodeAddress, PlacementId, Prune, ShardId};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// A statement about more keys than this locks the whole shard.
pub(crate) const MOST_KEYS: usize = 100;

/// What a statement has locked: its tables as they are behind the lock, and the shards.
struct Locked {
    tables: Vec<Rc<DistributedTable>>,
    shards: Vec<usize>,
    /// The locks are those of all keys that it concerns.
    by_key: bool,
}

/// A scan that writes one shard.
pub(crate) struct RoutedWrite {
    compiled: Rc<Compiled>,
    done: bool,
    again: Again,
}

impl RoutedWrite {
    /// The scan of a plan.
    pub(crate) fn new(compiled: Rc<Compiled>) -> Self {
        Self { compiled, done: false, again: Again::default() }
    }

    fn plan(&self) -> &Routed {
        match &self.compiled.plan {
            Plan::Routed(plan) => plan,
            _ => unreachable!("made for a routed plan"),
        }
    }

    fn run(&mut self, io: &mut ScanIo) -> Result<(), PgError> {
        while !self.try_once(io)? {
            self.again.prepare();
        }
        Ok(())
    }

    /// False if the statement is to be executed anew.
    fn try_once(&self, io: &mut ScanIo) -> Result<bool, PgError> {
        let plan = self.plan();
        let codecs = io.codecs();
        // What is returned is read here when the node has committed.
        let alone = io.is_whole_transaction()
            && (!plan.returning || codecs.cannot_fail())
            && transaction::is_untouched()
            && transaction::has_plain_isolation()
            && !pg::server::notifications::are_pending();
        let Some(locked) = self.lock(io)? else {
            return if plan.must_find {
                not_found(plan.tables[0]).map(|()| true)
            } else {
                Ok(true)
            };
        };
        let Locked { tables, by_key, .. } = &locked;
        let (types, is_plain) = (codecs.argument_types(), plan.is_plain);
        let template = self.compiled.template_number(("", ""), &plan.template, types)?;
        let arguments = io.arguments(&[]);
        let mut rows = Returned { rows: io.rows(), wanted: plan.returning };
        let with_request = |index: usize, run: &mut dyn FnMut(&Request<'_>)| {
            let key = StatementKey { template, part: tables[0].shard_id(index).0 };
            let render = || render(&plan.template, index);
            run(&Request::new(Sql::Spooled(key, &render), types, &arguments).plain_if(is_plain));
        };
        let counts = plan.command.is_write();
        let (written, user) = (plan.writes.len(), plan.user);
        let target = |index| Target { tables, written, index, user, counts };
        let affected = if let [index] = locked.shards[..] {
            rows.rows.borrow_mut().set_shard(index);
            let _told = Work::begin(Kind::Write, 1);
            let one_table = tables.len() == 1 && counts;
            // Rows that other tables refer to may be free to go on one node and not on the other; who waits no longer would be marked.
            let is_alike = tables[0].unique_within_key && !tables[0].is_linked;
            let pair = if alone && *by_key && one_table && is_alike && lock_timeout() == 0 {
                writable(tables, index)?
            } else {
                Vec::new()
            };
            let pair = Pair::open(&tables[0], index, user, &pair)?;
            let mut outcome = Ok(0);
            with_request(index, &mut |request| {
                outcome = pair
                    .as_ref()
                    .map_or(Ok(None), |pair| pair.execute(request, &mut rows))
                    .and_then(|done| match done {
                        Some(affected) => Ok(affected),
                        None => {
                            write_shard(&target(index), request, alone, &mut |row| rows.take(row))
                        }
                    });
            });
            outcome?
        } else {
            match self.write_several(io, &locked, &with_request, &mut rows)? {
                Some(affected) => affected,
                None => return Ok(false),
            }
        };
        if plan.must_find && affected == 0 {
            not_found(plan.tables[0])?;
        }
        if counts {
            io.add_processed(affected);
        }
        Ok(true)
    }

    /// Executes the statement on several shards. None if it is to be executed anew; then nothing of it is left.
    fn write_several(
        &self,
        io: &ScanIo,
        locked: &Locked,
        with_request: &WithRequest<'_>,
        rows: &mut Returned,
    ) -> Result<Option<u64>, PgError> {
        let (plan, Locked { tables, shards, .. }) = (self.plan(), locked);
        if !plan.returned_tids.is_empty() && io.decoding_runs_code() {
            return Err(returns_places_and_code(&tables[0]));
        }
        let mut send = |index: usize, send: Send<'_>| {
            let mut outcome = Ok(());
            with_request(index, &mut |request| {
                outcome = send(std::slice::from_ref(request));
            });
            outcome
        };
        let choose_time = || self.again.choose_time(io);
        let target = |index: &usize| Target {
            tables,
            written: plan.writes.len(),
            index: *index,
            user: plan.user,
            counts: plan.command.is_write(),
        };
        rows.forget();
        let outcome = self.again.attempt(|| {
            let targets = shards.iter().map(target).collect();
            write_shards(targets, &choose_time, &mut send, &mut |index, row| {
                rows.rows.borrow_mut().set_shard(index);
                rows.take(row)
            })
        })?;
        if outcome.is_none() {
            let written = plan.writes.iter().zip(tables);
            let written: Vec<&DistributedTable> = written.map(|(_, table)| &**table).collect();
            unlock_together(&written, shards);
        }
        Ok(outcome)
    }

    /// Finds the shards and locks them; none if no shard can hold a row that matches.
    ///
    /// While we waited a repair may have finished or a placement may have been marked, so the metadata are looked
    /// at again behind the lock: a write by an old list would miss a placement that is healthy now.
    fn lock(&self, io: &mut ScanIo) -> Result<Option<Locked>, PgError> {
        let plan = self.plan();
        let mut known = tables(&plan.tables)?;
        loop {
            let shards = self.shards(io, &known[0])?;
            if shards.is_empty() {
                return Ok(None);
            }
            let is_replicated = |index: &usize| {
                known[..plan.writes.len()].iter().any(|table| is_replicated(table, *index))
            };
            // Two statements over several shards that met in another order on each node would wait for each other
            // where nobody sees it; so they wait here, one after the other.
            let spreads = shards.len() > 1;
            if !spreads && !shards.iter().any(is_replicated) {
                return Ok(Some(Locked { tables: known, shards, by_key: false }));
            }
            let hashes = self.key_hashes(io)?;
            let mut written: Vec<_> = shards
                .iter()
                .flat_map(|index| plan.writes.iter().zip(&known).map(move |write| (*index, write)))
                .collect();
            // In one order, so that two statements that write the same tables do not wait for each other.
            written.sort_by_key(|(index, (_, table))| table.shard_id(*index));
            if spreads {
                let shards: Vec<_> = written
                    .iter()
                    .map(|(index, (_, table))| (table.shard_id(*index), &***table))
                    .collect();
                lock_together(&shards);
            } else {
                for (index, (command, table)) in written {
                    lock_for(Order::of(*command), table, index, hashes.as_deref());
                }
            }
            let now = tables(&plan.tables)?;
            if known.iter().zip(&now).all(|(before, after)| Rc::ptr_eq(before, after)) {
                return Ok(Some(Locked { tables: now, shards, by_key: hashes.is_some() }));
            }
            known = now;
        }
    }

    /// The shards that the statement concerns now: one, unless it may be spread.
    fn shards(&self, io: &mut ScanIo, table: &DistributedTable) -> Result<Vec<usize>, PgError> {
        let plan = self.plan();
        let pruned = prune(io, &plan.prune, table)?;
        match &pruned.shards[..] {
            [_] => Ok(pruned.shards),
            [] if plan.brings_row && pruned.null_key => {
                let owner = table.map.owner(table.hash_of_null()?);
                Ok(vec![owner.ok_or_else(no_destination)?])
            }
            [] if plan.brings_row => Err(no_destination()),
            // Nothing is written, but a SELECT around it has an answer; any shard gives it.
            [] if !plan.command.is_write() => Ok(vec![0]),
            [] => Ok(Vec::new()),
            _ if plan.spreads => Ok(pruned.shards),
            shards => Err(PgError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "cannot modify multiple shards during a single query",
            )
            .detail(format!(
                "The statement concerns {} shards of table \"{}\", and computes a volatile function that would have one value for all rows.",
                shards.len(),
                table.name
            ))
            .hint(format!(
                "Add an equality on the distribution column \"{}\", or compute the value first and pass it as a parameter.",
                table.key_name
            ))),
        }
    }

    /// The hashes of the keys that the statement is about; none if it is not by key, or by too many.
    fn key_hashes(&self, io: &mut ScanIo) -> Result<Option<Vec<i32>>, PgError> {
        let mut keys: Vec<&Key> = Vec::new();
        match &self.plan().prune {
            Prune::Key(key) => keys.push(key),
            Prune::Or(parts) => {
                for part in parts {
                    let Prune::Key(key) = part else { return Ok(None) };
                    keys.push(key);
                }
            }
            Prune::All | Prune::And(_) => return Ok(None),
        }
        let mut hashes = Vec::new();
        for key in keys {
            let hasher = super::hasher(io, key)?;
            if let KeyValue::Hashes(found) = io.with_row_memory(|io| io.key_value(key, &hasher)) {
                hashes.extend(found);
            }
        }
        // In one order, so that two statements about the same keys do not wait for each other.
        hashes.sort_unstable();
        hashes.dedup();
        Ok((hashes.len() <= MOST_KEYS).then_some(hashes))
    }
}

/// Makes the request for a shard, given by its index, and hands it on.
type WithRequest<'a> = dyn Fn(usize, &mut dyn FnMut(&Request<'_>)) + 'a;

fn returns_places_and_code(table: &DistributedTable) -> PgError {
    PgError::unsupported(
        format!(
            "cannot return ctids of table \"{}\" and values of users' types from several shards",
            table.name
        ),
        "Name one key at a time, or leave ctid out of RETURNING.",
    )
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

/// pg_shard 1.2's error for a row outside all ranges.
pub(crate) fn no_destination() -> PgError {
    PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "could not find destination shard for new row",
    )
    .detail("Target relation does not contain any shards capable of storing the new row.")
}

/// A row under a cursor that is known by all that was in it is not there any more.
pub(crate) fn not_found(table: Oid) -> Result<(), PgError> {
    let table = catalog::get(table)?;
    Err(PgError::new(
        SqlState::INVALID_CURSOR_STATE,
        format!("the row of table \"{}\" under the cursor has changed since it was fetched", table.name),
    )
    .detail("The table has no unique index of columns that are not null, so its rows are known by all that is in them.")
    .hint("Fetch it again, or give the table a primary key."))
}

/// Which other writers of a shard a write lets run beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// All that are of this kind too: their order does not matter.
    Any,
    /// Those of other keys.
    OfKeys,
}

impl Order {
    /// INSERTs run beside each other; UPDATE and DELETE exclude INSERTs and each other where they could meet.
    pub(crate) fn of(command: Command) -> Self {
        if command == Command::Insert || settings::all_modifications_commutative() {
            Self::Any
        } else {
            Self::OfKeys
        }
    }
}

fn is_replicated(table: &DistributedTable, index: usize) -> bool {
    table.placements[index].len() > 1
}

/// Takes the locks that give all placements of a shard the same order of writes, and that a repair waits for.
///
/// Writers meet on the values of the distribution column if the statement is by key, on the whole shard otherwise. A
/// shard with one placement needs no order but its own, and nobody repairs it.
pub(crate) fn lock_for(
    order: Order,
    table: &DistributedTable,
    index: usize,
    hashes: Option<&[i32]>,
) {
    if is_replicated(table, index) {
        lock_always(order, table, index, hashes);
    }
}

/// The same for shards with one placement too.
pub(crate) fn lock_always(
    order: Order,
    table: &DistributedTable,
    index: usize,
    hashes: Option<&[i32]>,
) {
    let shard = table.shard_id(index);
    let (shard_mode, key_mode) = match (order, hashes) {
        (Order::Any, Some(_)) => (Mode::InsertByKey, Mode::Share),
        (Order::Any, None) => (Mode::Share, Mode::Share),
        (Order::OfKeys, Some(_)) => (Mode::ChangeByKey, Mode::Exclusive),
        (Order::OfKeys, None) => (Mode::Exclusive, Mode::Exclusive),
    };
    share_turn(table);
    lock_shard(ShardLock::Data(shard), shard_mode);
    for hash in hashes.unwrap_or_default() {
        lock_shard(ShardLock::Key(shard, *hash), key_mode);
    }
}

/// Takes the locks of a write of whichever rows of the shards: it runs alone in those that are replicated; and if it
/// concerns several, it does not meet another such write in another order on each node, where nobody sees them wait.
pub(crate) fn lock_rows_of(table: &DistributedTable, shards: &[usize]) {
    let mut shards: Vec<usize> = match shards {
        [only] if !is_replicated(table, *only) => Vec::new(),
        shards => shards.to_vec(),
    };
    shards.sort_by_key(|index| table.shard_id(*index));
    let shards: Vec<_> = shards.into_iter().map(|index| (table.shard_id(index), table)).collect();
    lock_together(&shards);
}

/// How long shards that have been locked are kept from others while one more is waited for.
const PATIENCE: Duration = Duration::from_millis(50);

/// Locks the rows of all the shards, which are in their order.
///
/// Who writes by key, in a transaction of several statements, takes one lock after the other in any order; if we waited for
/// one of them with others in our hands, it could wait for us, and PostgreSQL would end one of the two. So what is not
/// to be had soon is waited for with nothing in our hands: whoever holds a lock of a shard holds the table's turn as
/// well, shared, and once we have that alone nobody holds any. Nothing has been read or written yet.
fn lock_together(shards: &[(ShardId, &DistributedTable)]) {
    let mut tables: Vec<&DistributedTable> = shards.iter().map(|(_, table)| *table).collect();
    tables.sort_by_key(|table| table.oid.to_u32());
    tables.dedup_by_key(|table| table.oid);
    let share = || tables.iter().for_each(|table| share_turn(table));
    share();
    let since = clock();
    let missing = shards.iter().position(|(shard, _)| !lock_patiently(*shard, since));
    let Some(missing) = missing else { return };
    for (shard, _) in &shards[..missing] {
        unlock_shard(ShardLock::Data(*shard), Mode::Exclusive);
    }
    for table in &tables {
        unlock_shard(table.turn(), Mode::InsertByKey);
    }
    for table in &tables {
        lock_shard(table.turn(), Mode::Exclusive);
    }
    for (shard, _) in shards {
        lock_shard(ShardLock::Data(*shard), Mode::Exclusive);
    }
    share();
    for table in &tables {
        unlock_shard(table.turn(), Mode::Exclusive);
    }
}

/// Gives back what [`lock_together`] has locked: the statement has written nothing, and is about to lock it anew.
fn unlock_together(tables: &[&DistributedTable], shards: &[usize]) {
    for table in tables {
        for index in shards {
            unlock_shard(ShardLock::Data(table.shard_id(*index)), Mode::Exclusive);
        }
        unlock_shard(table.turn(), Mode::InsertByKey);
    }
}

/// Comes before the first lock of a shard of the table; see [`lock_together`].
fn share_turn(table: &DistributedTable) {
    lock_shard(table.turn(), Mode::InsertByKey);
}

/// Locks the shard unless it is still not to be had when the patience that began at `since` has come to its end.
fn lock_patiently(shard: ShardId, since: Duration) -> bool {
    loop {
        if try_lock_shard(ShardLock::Data(shard), Mode::Exclusive) {
            return true;
        }
        if clock() - since >= PATIENCE {
            return false;
        }
        WaitSet::new(&[]).wait(Some(Duration::from_millis(1)));
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
    let is_serializable = isolation_level() == Isolation::Serializable;
    if is_serializable && healthy.len() < table.placements[index].len() {
        return Err(not_all_healthy(table));
    }
    if tables.len() == 1 {
        return Ok(healthy);
    }
    let nodes = common_nodes(tables, index);
    // A placement that cannot see the other tables would silently miss the write.
    if let Some(apart) = healthy.iter().find(|placement| !nodes.contains(&placement.node)) {
        return Err(not_beside(table, &apart.node));
    }
    Ok(healthy)
}

/// Whoever has read a placement that is not healthy any more is not met on the others.
fn not_all_healthy(table: &DistributedTable) -> PgError {
    PgError::unsupported(
        format!(
            "cannot write table \"{}\" in a SERIALIZABLE transaction while a placement is inactive",
            table.name
        ),
        "Repair the placement, or use REPEATABLE READ.",
    )
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

impl<'a> Target<'a> {
    /// The tables with the shard, as errors are told.
    pub(super) fn named(&self) -> Vec<(&'a DistributedTable, usize)> {
        self.tables.iter().map(|table| (&**table, self.index)).collect()
    }

    /// The placements that miss the write if the node does.
    pub(super) fn missed_by(&self, node: &NodeAddress) -> Vec<(ShardId, PlacementId)> {
        self.on_node(node).into_iter().map(|(table, id)| (table.shard_id(self.index), id)).collect()
    }

    /// The shard is healthy elsewhere too.
    pub(super) fn has_other_placements(&self, node: &NodeAddress) -> bool {
        self.tables[0].healthy(self.index).any(|placement| placement.node != *node)
    }

    /// The error for a shard that no placement could take.
    pub(super) fn nobody(&self) -> PgError {
        nobody(&self.tables[0], self.index)
    }

    /// The placements of the written tables on one node: they are written, or missed, together.
    pub(super) fn on_node(&self, node: &NodeAddress) -> Vec<(&DistributedTable, PlacementId)> {
        self.tables[..self.written]
            .iter()
            .filter_map(|table| {
                let placement = table.healthy(self.index).find(|known| known.node == *node)?;
                Some((&**table, placement.id))
            })
            .collect()
    }

    /// The healthy placements of the first table, on nodes that hold those of all others.
    pub(super) fn placements(&self) -> Result<Vec<Placement>, PgError> {
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
/// `alone` says that the statement is the whole transaction, of which nothing has been sent yet: with a single
/// placement the node then commits it by itself.
pub(crate) fn write_shard(
    target: &Target<'_>,
    request: &Request<'_>,
    alone: bool,
    each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
) -> Result<u64, PgError> {
    let Target { tables, index, .. } = *target;
    let table = &tables[0];
    let placements = target.placements()?;
    let named: Vec<(&DistributedTable, usize)> =
        tables.iter().map(|table| (&**table, index)).collect();
    if alone && placements.len() == 1 {
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
            age::must_show(session, tables, &[index])?;
            let mut session = session.borrow_mut();
            let rows = session.execute(request, Some(level), &mut |rows| {
                if leads { each(rows) } else { Ok(()) }
            })?;
            session.wrote = true;
            Ok(rows)
        };
        let outcome = match pool::missed(&placement.node) {
            Some(error) if placements.len() > 1 => Err(NodeFailure::Unreachable(error)),
            _ => pool::acting_as(target.user, || {
                transaction::with_session(&placement.node, &mut attempt)
            }),
        };
        match outcome {
            Ok((_, rows)) => {
                for (table, id) in &here {
                    transaction::note_written(table, index, *id, &placement.node);
                }
                let expected = *affected.get_or_insert(rows);
                if rows != expected && target.counts {
                    pg::sys::error::warning(other_count(rows, expected, placement));
                    miss(&mut missed);
                }
            }
            Err(NodeFailure::Error(error)) => {
                return Err(tell_as_table(error, &named, &placement.node));
            }
            Err(NodeFailure::Unreachable(error)) => {
                pool::note_missed(&placement.node, &error);
                pg::sys::error::warning(pool::connection_failed(&placement.node, &error));
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
        SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
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
    target: &Target<'_>,
    placement: &Placement,
    request: &Request<'_>,
    named: &[(&DistributedTable, usize)],
    each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
) -> Result<u64, PgError> {
    let (table, index) = (&target.tables[0], target.index);
    let session = pool::acting_as(target.user, || pool::session(&placement.node, Stale::Matters));
    let session = session.map_err(|reason| match reason {
        NoSession::Refused(error) => error,
        NoSession::Unreachable(error) => {
            pg::sys::error::warning(pool::connection_failed(&placement.node, &error));
            nobody(table, index)
        }
    })?;
    let mut outcome = session.borrow_mut().execute_alone(request, each);
    if outcome.as_ref().is_err_and(Failure::is_stale_statement) {
        pg::server::commit::serve_held_interrupts();
        outcome = session.borrow_mut().execute_alone(request, each);
    }
    match outcome {
        Ok(rows) => Ok(rows),
        Err(Failure::Statement(error)) => Err(if error.sqlstate() == SqlState::QUERY_CANCELED {
            // The node was asked to, for a reason of this server's.
            pg::server::commit::serve_held_interrupts();
            pg::server::commit::stopped()
        } else {
            tell_as_table(error, named, &placement.node)
        }),
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
        if self.plan().returning { io.emit_kept() } else { Ok(false) }
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
        let (concerned, total) = (shards.shards.len(), tables[0].map.len());
        explain.text("Shards", &format!("{concerned} of {total}"));
        explain_shards(explain, io, &tables, &shards.shards, ("", ""), &self.plan().template)
    }
}
