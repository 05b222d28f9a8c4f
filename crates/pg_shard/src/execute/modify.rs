//! A write whose rows are computed here: each change goes to the shard where its row lies.
//!
//! The plan below is read to its end before the first change is sent; its scan of the written table has locked the rows
//! on the workers, so they stay where they are. On a shard that has but one placement a row is known by its `ctid`. Elsewhere
//! every placement has its own, and a row is known by its primary key or another unique index, or else by all
//! that is in it: of rows that are the same in every letter any one will do. A row whose distribution column changes is
//! deleted in one shard and inserted in another.
//!
//! Changes travel as one small statement a row, many in a flight, all nodes at once, by the rules of
//! [`super::spread`] for placements. If the statement writes in several places (WITH clauses), all of them read what
//! was there before: the changes wait for the end of the statement.

use super::nested::{self, Watch};
use super::pending::{self, Pending};
use super::render;
use super::row_sql::{self, Find, Kind, Names};
use super::spread::{Send, write_shards};
use super::write::{Order, Target, lock_for, lock_rows_of, no_destination, not_found};
use crate::activity;
use crate::catalog::{self, DistributedTable, quote};
use crate::links;
use crate::session::{Failure, Request, Sql};
use pg::catalog::table::{self, TableColumn};
use pg::exec::execution::Execution;
use pg::exec::explain::Explain;
use pg::exec::row_changes::{Change, Changes, Place};
use pg::exec::scan_io::{Scan, ScanIo};
use pg::sys::plan::{Command, ComputedModify, Piece};
use pg::sys::value::{Encoder, Hasher};
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use protocol::{Arguments, Row};
use shardmap::ShardId;
use shardmap::tid::Tid;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::rc::Rc;

/// Changes of a shard in one flight: their answers fit into any socket's buffer.
const LOT: usize = 500;

/// Bytes of arguments that are collected before they are sent.
const MOST_BYTES: usize = 16 * 1024 * 1024;

thread_local! {
    /// Changes that wait for the end of their statement, in the order in which they were computed.
    static WAITING: RefCell<Vec<Waiting>> = const { RefCell::new(Vec::new()) };
}

struct Waiting {
    execution: Execution,
    /// The transaction level of the statement: with it they go.
    level: u32,
    change_buffer: Rc<RefCell<ChangeBuffer>>,
}

/// Sends what has waited for the end of a statement.
pub(crate) fn finish(execution: Execution) -> Result<(), PgError> {
    if WAITING.with_borrow(|waiting| waiting.iter().all(|known| known.execution != execution)) {
        return Ok(());
    }
    let (ours, others) = WAITING.with_borrow_mut(|waiting| {
        std::mem::take(waiting).into_iter().partition(|known| known.execution == execution)
    });
    WAITING.set(others);
    let ours: Vec<Waiting> = ours;
    // None of the statement's own changes has been sent yet.
    for waiting in &ours {
        let change_buffer = waiting.change_buffer.borrow();
        for (index, row_changes) in &change_buffer.row_changes {
            change_buffer.check_places(*index, row_changes.iter())?;
        }
    }
    for waiting in ours {
        let mut change_buffer = waiting.change_buffer.borrow_mut();
        change_buffer.is_checked = true;
        change_buffer.send_all()?;
    }
    Ok(())
}

/// The statements of this level and deeper have failed.
pub(crate) fn forget_waiting(level: u32) {
    WAITING.with_borrow_mut(|waiting| waiting.retain(|known| known.level < level));
}

/// A scan that sends the changes that the plan below it yields.
pub(crate) struct ModifyRows {
    plan: ComputedModify,
    changes: Changes,
    seen: HashSet<Place>,
    /// The same of a partitioned table, whose rows are known by their keys.
    seen_keys: HashSet<(usize, Arguments)>,
    /// The shards and unique values of rows that ON CONFLICT DO UPDATE has inserted or changed.
    upserted: HashSet<(usize, Arguments)>,
    done: bool,
}

/// A statement for one row of any shard.
struct Text {
    template: Vec<Piece>,
    types: Vec<u32>,
}

/// A change of one row.
struct RowChange {
    text: usize,
    arguments: Arguments,
    /// Where the row was that is to be changed.
    place: Option<Tid>,
}

/// Changes on their way to the shards of one table.
struct ChangeBuffer {
    table: Rc<DistributedTable>,
    user: Oid,
    texts: Vec<Text>,
    /// By shard, in the order in which they were computed.
    row_changes: BTreeMap<usize, VecDeque<RowChange>>,
    bytes: usize,
    /// Nobody else changes the rows: each must still be there.
    is_alone: bool,
    /// What functions of the statement have written.
    watch: Rc<Watch>,
    /// It is known that they have changed none of the rows.
    is_checked: bool,
    /// What is done to rows, in PostgreSQL's words.
    deed: &'static str,
    /// Nobody minds if changes are there before the statement ends.
    sends_early: bool,
}

impl Pending for ChangeBuffer {
    fn table(&self) -> Oid {
        self.table.oid
    }

    fn table_name(&self) -> String {
        self.table.name.clone()
    }

    fn is_full(&self) -> bool {
        self.sends_early && !self.row_changes.is_empty()
    }

    fn send_now(&mut self) -> Result<(), PgError> {
        self.send_all()
    }
}

/// Makes row_changes of changes.
struct Packer {
    columns: Vec<TableColumn>,
    encoders: Vec<Option<Encoder>>,
    place: Encoder,
    /// The columns of a unique index.
    key: Option<Vec<i16>>,
    hasher: Hasher,
    known: HashMap<Kind, usize>,
}

impl ModifyRows {
    /// The scan of a plan.
    pub(crate) fn new(plan: ComputedModify, io: &mut ScanIo) -> Result<Self, PgError> {
        let changes = io.open_changes()?;
        Ok(Self {
            plan,
            changes,
            seen: HashSet::new(),
            seen_keys: HashSet::new(),
            upserted: HashSet::new(),
            done: false,
        })
    }

    fn run(&mut self, io: &mut ScanIo) -> Result<(), PgError> {
        let mut table = catalog::get(self.plan.table)?;
        if self.changes.may_move(table.key.column) && table.is_replicated() {
            // Where to is known too late: locks that are taken one by one would meet others' in another order.
            lock_rows_of(&table, &(0..table.map.len()).collect::<Vec<_>>());
            table = catalog::get(self.plan.table)?;
        }
        self.changes.begin_statement();
        let watch = Watch::begin();
        io.buffer_child();
        let mut packer = Packer::new(&table, &self.changes)?;
        let sends_early = self.plan.is_alone && !self.plan.has_subqueries;
        let shared = ChangeBuffer {
            table: Rc::clone(&table),
            user: self.plan.user,
            texts: Vec::new(),
            row_changes: BTreeMap::new(),
            bytes: 0,
            is_alone: self.plan.is_alone,
            watch,
            is_checked: false,
            deed: match self.plan.command {
                Command::Merge => "updated or deleted",
                Command::Delete => "deleted",
                _ => "updated",
            },
            sends_early,
        };
        let shared = pending::share(shared);
        let mut count = 0;
        while let Some(change) = self.changes.next(io)? {
            let place = match change {
                Change::Nothing => continue,
                Change::Insert => None,
                Change::Update(_) | Change::Delete => {
                    let place = self.changes.place()?;
                    if self.has_seen(place, &packer, &table)? {
                        if self.plan.command == Command::Merge {
                            return Err(second_time());
                        }
                        // A row that several rows are joined to is changed once, by the first.
                        continue;
                    }
                    Some(place)
                }
            };
            let change = self.changes.before_row(change);
            if change == Change::Nothing {
                continue;
            }
            if self.changes.has_conflict_clause() {
                count += u64::from(self.upsert(io, &mut packer, &shared)?);
                continue;
            }
            self.changes.complete(io, change)?;
            let change_buffer = &mut *shared.borrow_mut();
            packer.pack(&self.changes, change, place, change_buffer)?;
            count += 1;
            if sends_early && change_buffer.bytes >= MOST_BYTES {
                change_buffer.send_all()?;
            }
        }
        self.changes.end_statement();
        if self.plan.must_find && count == 0 {
            return not_found(self.plan.table);
        }
        if self.changes.sets_tag() {
            io.add_processed(count);
        }
        if self.plan.is_alone {
            return shared.borrow_mut().send_all();
        }
        let level = pg::server::transaction::nest_level();
        let waiting = Waiting { execution: io.execution(), level, change_buffer: shared };
        WAITING.with_borrow_mut(|all| all.push(waiting));
        Ok(())
    }
}

impl ModifyRows {
    /// The row has come before, joined to other rows.
    fn has_seen(
        &mut self,
        place: Place,
        packer: &Packer,
        table: &DistributedTable,
    ) -> Result<bool, PgError> {
        Ok(match packer.row_key(&self.changes, table)? {
            Some(key) => !self.seen_keys.insert((place.shard, key)),
            None => !self.seen.insert(place),
        })
    }
}

/// How often a row is tried that was there and is gone again.
const TRIES: usize = 100;

impl ModifyRows {
    /// Inserts the row, or does what ON CONFLICT says with the one that is there; true if it changed something.
    ///
    /// The steps are those of ExecInsert and ExecOnConflictUpdate, each of them sent at once: nothing else in the statement
    /// reads or writes the table.
    fn upsert(
        &mut self,
        io: &mut ScanIo,
        packer: &mut Packer,
        shared: &Rc<RefCell<ChangeBuffer>>,
    ) -> Result<bool, PgError> {
        self.changes.propose();
        let (index, hash) = {
            let change_buffer = &*shared.borrow();
            let index = packer.shard_of_new(&self.changes, change_buffer)?;
            (index, packer.hash_of_new(&self.changes, change_buffer)?)
        };
        let order =
            if self.changes.updates_on_conflict() { Command::Upsert } else { Command::Insert };
        let table = Rc::clone(&shared.borrow().table);
        lock_for(Order::of(order), &table, index, Some(&[hash]));
        for _ in 0..TRIES {
            let mut change_buffer = shared.borrow_mut();
            packer.add(&self.changes, Kind::Offer, index, None, &mut change_buffer);
            if change_buffer.send_counted(&mut |_| Ok(()))? > 0 {
                let key = packer.conflict_key(&self.changes);
                self.upserted.insert((index, key));
                self.changes.complete(io, Change::Insert)?;
                return Ok(true);
            }
            if !self.changes.updates_on_conflict() {
                return Ok(false);
            }
            let key = packer.conflict_key(&self.changes);
            if self.upserted.contains(&(index, key.clone())) {
                return Err(PgError::new(
                    SqlState::CARDINALITY_VIOLATION,
                    "ON CONFLICT DO UPDATE command cannot affect row a second time",
                )
                .hint("Ensure that no rows proposed for insertion within the same command have duplicate constrained values."));
            }
            packer.add(&self.changes, Kind::Existing, index, None, &mut change_buffer);
            let mut existing = None;
            let keep = &mut |row: Row<'_>| {
                existing = Some(row.to_owned());
                Ok(())
            };
            if change_buffer.send_counted(keep)? == 0 {
                continue;
            }
            drop(change_buffer);
            // Only now: it may run users' code, when nobody holds a session any more.
            if let Some(mut row) = existing {
                self.changes.take_existing(row.as_row())?;
            }
            let change = self.changes.resolve();
            if change == Change::Nothing {
                return Ok(false);
            }
            self.upserted.insert((index, key));
            let change = self.changes.before_row(change);
            if change == Change::Nothing {
                return Ok(false);
            }
            let place = self.changes.existing_place(index);
            packer.pack(&self.changes, change, Some(place), &mut shared.borrow_mut())?;
            shared.borrow_mut().send_all()?;
            self.upserted.insert((index, packer.conflict_key(&self.changes)));
            self.changes.complete(io, change)?;
            return Ok(true);
        }
        Err(PgError::new(
            SqlState::SERIALIZATION_FAILURE,
            "a row that an INSERT met was changed again and again",
        ))
    }
}

/// ExecMergeMatched's error.
fn second_time() -> PgError {
    PgError::new(SqlState::CARDINALITY_VIOLATION, "MERGE command cannot affect row a second time")
        .hint("Ensure that not more than one source row matches any one target row.")
}

impl Packer {
    fn new(table: &DistributedTable, changes: &Changes) -> Result<Self, PgError> {
        let key = &table.key;
        let hasher = Hasher::find(key.family, key.type_oid, key.collation).ok_or_else(|| {
            PgError::internal("the distribution column's type has lost its hash function")
        })?;
        Ok(Self {
            columns: table::columns(table.oid),
            encoders: changes.encoders(),
            place: changes.place_encoder(),
            key: table::row_identities(table.oid).into_iter().next(),
            hasher,
            known: HashMap::new(),
        })
    }

    /// By what a row of a partitioned table is known; none for other tables.
    fn row_key(
        &self,
        changes: &Changes,
        table: &DistributedTable,
    ) -> Result<Option<Arguments>, PgError> {
        if !table.is_partitioned {
            return Ok(None);
        }
        let columns = self.key.as_ref().ok_or_else(|| no_key(table))?;
        let mut key =
            Arguments::start(columns.iter().map(|column| self.encoder(*column).is_binary()));
        for column in columns {
            changes.append_old(*column, self.encoder(*column), &mut key);
        }
        Ok(Some(key))
    }

    /// Puts a change into the change_buffer.
    fn pack(
        &mut self,
        changes: &Changes,
        change: Change,
        place: Option<Place>,
        change_buffer: &mut ChangeBuffer,
    ) -> Result<(), PgError> {
        let key = change_buffer.table.key.column;
        match (change, place) {
            (Change::Insert, _) => {
                let index = self.destination(changes, change_buffer)?;
                self.add(changes, Kind::Insert, index, None, change_buffer);
            }
            (Change::Update(set), Some(place)) => {
                let find = self.find(changes, place, change_buffer)?;
                let moves = changes.sets()[set].contains(&key);
                let index =
                    if moves { self.destination(changes, change_buffer)? } else { place.shard };
                if index == place.shard {
                    self.add(changes, Kind::Update(set, find), index, Some(place), change_buffer);
                } else {
                    links::check_move(&change_buffer.table)?;
                    self.add(changes, Kind::Delete(find), place.shard, Some(place), change_buffer);
                    self.add(changes, Kind::Insert, index, None, change_buffer);
                }
            }
            (Change::Delete, Some(place)) => {
                let find = self.find(changes, place, change_buffer)?;
                self.add(changes, Kind::Delete(find), place.shard, Some(place), change_buffer);
            }
            _ => {}
        }
        Ok(())
    }

    fn hash_of_new(&self, changes: &Changes, change_buffer: &ChangeBuffer) -> Result<i32, PgError> {
        changes
            .hash_new(change_buffer.table.key.column, &self.hasher)
            .map_or_else(|| change_buffer.table.hash_of_null(), Ok)
    }

    fn shard_of_new(
        &self,
        changes: &Changes,
        change_buffer: &ChangeBuffer,
    ) -> Result<usize, PgError> {
        let hash = self.hash_of_new(changes, change_buffer)?;
        change_buffer.table.map.owner(hash).ok_or_else(no_destination)
    }

    /// The values by which the new row conflicts with others.
    fn conflict_key(&self, changes: &Changes) -> Arguments {
        let columns = changes.conflict_columns().unwrap_or_default();
        let mut key =
            Arguments::start(columns.iter().map(|column| self.encoder(*column).is_binary()));
        for column in columns {
            changes.append_new(*column, self.encoder(*column), &mut key);
        }
        key
    }

    /// The shard of the new row, locked for it.
    fn destination(
        &self,
        changes: &Changes,
        change_buffer: &ChangeBuffer,
    ) -> Result<usize, PgError> {
        let table = &change_buffer.table;
        let hash = self.hash_of_new(changes, change_buffer)?;
        let index = self.shard_of_new(changes, change_buffer)?;
        lock_for(Order::of(Command::Insert), table, index, Some(&[hash]));
        Ok(index)
    }

    fn find(
        &self,
        changes: &Changes,
        place: Place,
        change_buffer: &ChangeBuffer,
    ) -> Result<Find, PgError> {
        if place.shard >= change_buffer.table.map.len() {
            return Err(have_changed(&change_buffer.table));
        }
        // A placement that is repaired meanwhile takes the change too, and has its rows elsewhere.
        let table = &change_buffer.table;
        if table.placements[place.shard].len() == 1 && !table.is_partitioned {
            return Ok(Find::Place);
        }
        if !changes.has_old_rows() {
            return Err(have_changed(&change_buffer.table));
        }
        Ok(if self.key.is_some() { Find::Key } else { Find::Row })
    }

    fn add(
        &mut self,
        changes: &Changes,
        kind: Kind,
        index: usize,
        place: Option<Place>,
        change_buffer: &mut ChangeBuffer,
    ) {
        let text = match self.known.get(&kind) {
            Some(known) => *known,
            None => {
                change_buffer.texts.push(self.text(changes, kind, change_buffer.table.oid));
                self.known.insert(kind, change_buffer.texts.len() - 1);
                change_buffer.texts.len() - 1
            }
        };
        let arguments = self.arguments(changes, kind);
        change_buffer.bytes += arguments.len();
        change_buffer.row_changes.entry(index).or_default().push_back(RowChange {
            text,
            arguments,
            place: place.filter(|_| !change_buffer.table.is_partitioned).map(Place::tid),
        });
    }

    fn column(&self, number: i16) -> String {
        let column = self.columns.iter().find(|column| column.number == number);
        quote(column.map_or("", |column| &column.name))
    }

    fn encoder(&self, number: i16) -> &Encoder {
        self.encoders[number as usize - 1]
            .as_ref()
            .unwrap_or_else(|| unreachable!("only live columns are sent"))
    }

    /// The columns that an inserted row brings.
    fn inserted(&self) -> impl Iterator<Item = i16> {
        self.columns.iter().filter(|column| !column.is_generated).map(|column| column.number)
    }

    /// The columns of the new row that a statement has among its arguments, which come first.
    fn new_columns(&self, changes: &Changes, kind: Kind) -> Vec<i16> {
        match kind {
            Kind::Insert | Kind::Offer => self.inserted().collect(),
            Kind::Existing => changes.conflict_columns().unwrap_or_default().to_vec(),
            Kind::Update(set, _) => changes.sets()[set].clone(),
            Kind::Delete(_) => Vec::new(),
        }
    }

    /// The columns of the old row that follow them.
    fn old_columns(&self, kind: Kind) -> Vec<i16> {
        match kind {
            Kind::Update(_, Find::Key) | Kind::Delete(Find::Key) => {
                self.key.clone().unwrap_or_default()
            }
            Kind::Update(_, Find::Row) | Kind::Delete(Find::Row) => {
                self.columns.iter().map(|column| column.number).collect()
            }
            _ => Vec::new(),
        }
    }

    fn has_place(kind: Kind) -> bool {
        matches!(kind, Kind::Update(_, Find::Place) | Kind::Delete(Find::Place))
    }

    fn text(&self, changes: &Changes, kind: Kind, table: Oid) -> Text {
        let new = self.new_columns(changes, kind);
        let old = self.old_columns(kind);
        let mut types: Vec<u32> =
            new.iter().chain(&old).map(|column| self.encoder(*column).argument_type()).collect();
        if Self::has_place(kind) {
            types.push(self.place.argument_type());
        }
        let names = |columns: &[i16]| columns.iter().map(|column| self.column(*column)).collect();
        let generated = self.columns.iter().find(|column| column.is_generated);
        let all = self.columns.iter();
        let names = Names {
            new: names(&new),
            old: names(&old),
            conflict: changes.conflict_columns().map(names),
            all: all.map(|column| (quote(&column.name), column.type_name.clone())).collect(),
            generated: generated.map(|column| quote(&column.name)),
        };
        let template = row_sql::template(kind, &names, table);
        Text { template, types }
    }

    fn arguments(&self, changes: &Changes, kind: Kind) -> Arguments {
        let new = self.new_columns(changes, kind);
        let old = self.old_columns(kind);
        let mut formats: Vec<bool> =
            new.iter().chain(&old).map(|column| self.encoder(*column).is_binary()).collect();
        if Self::has_place(kind) {
            formats.push(self.place.is_binary());
        }
        let mut arguments = Arguments::start(formats.into_iter());
        for column in new {
            changes.append_new(column, self.encoder(column), &mut arguments);
        }
        for column in old {
            changes.append_old(column, self.encoder(column), &mut arguments);
        }
        if Self::has_place(kind) {
            changes.append_place(&self.place, &mut arguments);
        }
        if kind == Kind::Existing {
            arguments.finish(&changes.existing_formats());
        } else {
            arguments.finish(&[]);
        }
        arguments
    }
}

impl ChangeBuffer {
    /// Sends everything, a batch of each shard at a time.
    fn send_all(&mut self) -> Result<(), PgError> {
        self.bytes = 0;
        while !self.row_changes.is_empty() {
            let batches = self.next_batches();
            let changed = self.send(&batches, &mut |_| Ok(()))?;
            let expected: usize = batches.values().map(Vec::len).sum();
            let is_short = changed < expected as u64 && self.deed == "deleted";
            // A foreign key of the table to itself may have been faster.
            if is_short && links::deletes_itself(&self.table) {
                continue;
            }
            if self.is_alone && changed != expected as u64 {
                return Err(self.gone(changed, expected));
            }
        }
        Ok(())
    }

    /// The same for one row_change, of which it is not known what it finds; `each` gets the rows. Tells how many they were.
    fn send_counted(
        &mut self,
        each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
    ) -> Result<u64, PgError> {
        let batches = self.next_batches();
        self.send(&batches, each)
    }

    fn next_batches(&mut self) -> BTreeMap<usize, Vec<RowChange>> {
        let mut batches: BTreeMap<usize, Vec<RowChange>> = BTreeMap::new();
        for (index, row_changes) in &mut self.row_changes {
            let n = row_changes.len().min(LOT);
            batches.insert(*index, row_changes.drain(..n).collect());
        }
        self.row_changes.retain(|_, row_changes| !row_changes.is_empty());
        batches
    }

    fn send(
        &self,
        batches: &BTreeMap<usize, Vec<RowChange>>,
        each: &mut dyn FnMut(Row<'_>) -> Result<(), PgError>,
    ) -> Result<u64, PgError> {
        let table = catalog::get(self.table.oid)?;
        let ids = |table: &DistributedTable| -> Vec<ShardId> {
            table.map.shards().iter().map(|shard| shard.id).collect()
        };
        if !Rc::ptr_eq(&table, &self.table) {
            let is_alone =
                |table: &DistributedTable, index: usize| table.placements[index].len() == 1;
            let has_changed =
                |index: &usize| is_alone(&table, *index) != is_alone(&self.table, *index);
            if ids(&table) != ids(&self.table) || batches.keys().any(has_changed) {
                return Err(have_changed(&table));
            }
        }
        for (index, row_changes) in batches {
            self.check_places(*index, row_changes.iter())?;
        }
        let tables = [table];
        let targets = batches
            .keys()
            .map(|index| Target {
                tables: &tables,
                written: 1,
                index: *index,
                user: self.user,
                counts: true,
            })
            .collect();
        let mut request = |index: usize, send: Send<'_>| {
            let render = |text: &Text| render(&text.template, index);
            let texts: Result<Vec<String>, PgError> = self.texts.iter().map(render).collect();
            let texts = texts.map_err(Failure::Statement)?;
            let mut before = None;
            let requests: Vec<Request<'_>> = batches[&index]
                .iter()
                .map(|row_change| {
                    let is_again = before.replace(row_change.text) == Some(row_change.text);
                    Request::new(
                        if is_again { Sql::Again } else { Sql::Once(&texts[row_change.text]) },
                        &self.texts[row_change.text].types,
                        &row_change.arguments,
                    )
                })
                .collect();
            send(&requests)
        };
        let changed = self
            .watch
            .own(|| write_shards(targets, &|| None, &mut request, &mut |_, row| each(row)))?;
        activity::sent_rows(batches.values().map(Vec::len).sum());
        Ok(changed)
    }

    /// No function of the statement has changed rows of this shard that are to be changed.
    fn check_places<'a>(
        &self,
        index: usize,
        row_changes: impl Iterator<Item = &'a RowChange>,
    ) -> Result<(), PgError> {
        if self.is_checked || !self.watch.has_seen(self.table.shard_id(index)) {
            return Ok(());
        }
        let places: Vec<Tid> = row_changes.filter_map(|change| change.place).collect();
        for some in places.chunks(LOT) {
            if !self.watch.own(|| nested::are_in_place(&self.table, self.user, index, some))? {
                return Err(nested::already_modified(self.deed));
            }
        }
        Ok(())
    }

    fn gone(&self, changed: u64, expected: usize) -> PgError {
        PgError::new(
            SqlState::TRIGGERED_DATA_CHANGE_VIOLATION,
            format!(
                "rows of table \"{}\" that were to be changed are not there any more",
                self.table.name
            ),
        )
        .detail(format!("{changed} of {expected} changes found their row."))
        .hint("A function that the statement calls may have changed them.")
    }
}

fn no_key(table: &DistributedTable) -> PgError {
    PgError::unsupported(
        format!(
            "cannot modify rows of partitioned distributed table \"{}\" one by one",
            table.name
        ),
        "Give it a primary key, or write a filter that the nodes can apply.",
    )
    .detail(
        "It has no unique index by which its rows are known, and a ctid is one of each partition.",
    )
}

fn have_changed(table: &DistributedTable) -> PgError {
    PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the shards of table \"{}\" have changed while the statement ran", table.name),
    )
    .hint("Run it again.")
}

impl Scan for ModifyRows {
    fn next(&mut self, io: &mut ScanIo) -> Result<bool, PgError> {
        if !self.done {
            self.done = true;
            self.run(io)?;
        }
        io.emit_kept()
    }

    fn rescan(&mut self, io: &mut ScanIo, _changed: bool) -> Result<(), PgError> {
        io.rows().borrow_mut().rewind();
        Ok(())
    }

    fn end(&mut self, _io: &mut ScanIo) {}

    fn explain(&mut self, _io: &mut ScanIo, explain: &mut Explain) -> Result<(), PgError> {
        let table = catalog::get(self.plan.table)?;
        let command = match self.plan.command {
            Command::Update => "Update",
            Command::Delete => "Delete",
            Command::Merge => "Merge",
            _ => "Insert",
        };
        explain.text(command, &table.name);
        explain.text("Shards", &format!("decided row by row, of {}", table.map.len()));
        Ok(())
    }
}
