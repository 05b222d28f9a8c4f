//! The rows of a plan below a write that [`crate::path::modify`] has taken over, as changes.
//!
//! [`Changes`] takes them apart as `src/backend/executor/nodeModifyTable.c` does: actions of MERGE, ON CONFLICT, WITH CHECK
//! OPTION, generated columns and RETURNING are PostgreSQL's own expressions, evaluated here in the node's contexts. The
//! extension sends the changes. Triggers fire in between ([`super::triggers`]).

/// Actions of MERGE.
mod merge;

use crate::exec::execution::Execution;
use crate::exec::rows::{Codecs, RowStore};
use crate::exec::scan_io::ScanIo;
use crate::exec::triggers::Triggers;
use crate::path::modify::{OLD, SHARD, knows_row};
use crate::read::tid;
use crate::sys::error::PgError;
use crate::sys::plan::{Command, Source};
use crate::sys::value::{Encoder, Hasher};
use crate::sys::{node, version};
use pgrx::pg_sys::{self, Datum, NodeTag};
use protocol::Arguments;
use shardmap::tid::Tid;
use shardmap::tid::TidLayout;
use std::ffi::{CStr, c_int};

/// Triggers that fire in between.
mod firing;

/// ON CONFLICT.
mod conflicts;

mod raw {
    //! Not among pgrx' bindings, so without its guard: the caller puts it around what may raise an error.
    use pgrx::pg_sys;
    unsafe extern "C-unwind" {
        /// Guarded.
        pub(super) fn ExecComputeStoredGenerated(
            relation: *mut pg_sys::ResultRelInfo,
            estate: *mut pg_sys::EState,
            slot: *mut pg_sys::TupleTableSlot,
            command: pg_sys::CmdType::Type,
        );
    }
}

/// What a ModifyTable has for the first of its tables.
unsafe fn first(lists: *mut pg_sys::List) -> *mut pg_sys::List {
    // SAFETY: the caller passes null or a live list of lists that is not empty.
    unsafe { if lists.is_null() { lists } else { node::nth(lists, 0) } }
}

/// What is to be done for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Insert the new row.
    Insert,
    /// Assign the columns of this set in the old row.
    Update(usize),
    /// Delete the old row.
    Delete,
    /// Nothing.
    Nothing,
}

/// Where a row lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The shard's index.
    pub shard: usize,
    ctid: u64,
}

impl Place {
    /// The row's `ctid` on its shard.
    pub fn tid(self) -> Tid {
        Tid { block: (self.ctid >> 16) as u32, offset: (self.ctid & 0xffff) as u16 }
    }
}

struct Action {
    rows: version::MergeMatch,
    command: pg_sys::CmdType::Type,
    qual: *mut pg_sys::ExprState,
    projection: *mut pg_sys::ProjectionInfo,
    set: usize,
}

/// What an INSERT does with a row that is there already.
struct Conflict {
    updates: bool,
    /// The columns of the index that is meant; none for any.
    columns: Option<Vec<i16>>,
    condition: *mut pg_sys::ExprState,
    projection: *mut pg_sys::ProjectionInfo,
    set: usize,
    excluded: *mut pg_sys::TupleTableSlot,
    /// How a row that is there comes from a worker: its place, then its live columns.
    existing: RowStore,
}

/// The rows of a plan below a write, as changes.
pub struct Changes {
    node: *mut pg_sys::CustomScanState,
    command: Command,
    sets_tag: bool,
    relation: pg_sys::Relation,
    inserting: *mut pg_sys::ResultRelInfo,
    updating: *mut pg_sys::ResultRelInfo,
    old: *mut pg_sys::TupleTableSlot,
    new: *mut pg_sys::TupleTableSlot,
    input: *mut pg_sys::TupleTableSlot,
    shard_at: usize,
    ctid_at: usize,
    /// How the `ctid`s are made, if they are not those of the nodes.
    layout: Option<TidLayout>,
    /// For each column of the table where its old value stands in a row of the plan; 0 for nowhere.
    old_at: Vec<usize>,
    has_old: bool,
    has_generated: bool,
    sets: Vec<Vec<i16>>,
    returning: *mut pg_sys::ProjectionInfo,
    action_name: version::ActionName,
    actions: Vec<Action>,
    /// Whether a row of the target has one of the source, where it may have none.
    has_source: *mut pg_sys::ExprState,
    conflict: Option<Conflict>,
    triggers: Option<Triggers>,
}

impl ScanIo {
    /// Which execution of which statement this is.
    pub fn execution(&self) -> Execution {
        // SAFETY: the node is live.
        Execution::of(unsafe { (*self.node()).ss.ps.state })
    }

    /// Prepares to read the changes of a write that was taken over; when the scan begins.
    pub fn open_changes(&mut self) -> Result<Changes, PgError> {
        // SAFETY: the scan was made by `taken_over`, whose private part ends with the ModifyTable. The steps are
        // those of ExecInitModifyTable; everything lives in the query's context, in which `begin` runs.
        unsafe {
            let custom = self.node();
            let ps = &raw mut (*custom).ss.ps;
            let estate = (*ps).state;
            let private = (*(*ps).plan.cast::<pg_sys::CustomScan>()).custom_private;
            let write: *mut pg_sys::ModifyTable = node::nth(private, node::length(private) - 1);
            assert_eq!(node::tag(write), NodeTag::T_ModifyTable, "the plan ends with the write");
            if (*ps).ps_ExprContext.is_null() {
                pg_sys::ExecAssignExprContext(estate, ps);
            }
            let context = (*ps).ps_ExprContext;
            let number = (*(*(*write).resultRelations).elements).int_value as u32;
            let make_relation =
                || -> *mut pg_sys::ResultRelInfo { node::make(NodeTag::T_ResultRelInfo) };
            let inserting = make_relation();
            pg_sys::ExecInitResultRelation(estate, inserting, number);
            let relation = (*inserting).ri_RelationDesc;
            let updating = make_relation();
            pg_sys::InitResultRelInfo(updating, relation, number, std::ptr::null_mut(), 0);
            let descriptor = (*relation).rd_att;
            let natts = (*descriptor).natts as usize;

            let options = first((*write).withCheckOptionLists);
            let mut checks: *mut pg_sys::List = std::ptr::null_mut();
            for option in node::elements::<pg_sys::WithCheckOption>(options) {
                let state = pg_sys::ExecInitQual((*option).qual.cast(), ps);
                checks = pg_sys::lappend(checks, state.cast());
            }
            for relation in [inserting, updating] {
                (*relation).ri_WithCheckOptions = options;
                (*relation).ri_WithCheckOptionExprs = checks;
            }

            let virtual_slot = |descriptor| {
                pg_sys::ExecInitExtraTupleSlot(estate, descriptor, &raw const pg_sys::TTSOpsVirtual)
            };
            let (old, new) = (virtual_slot(descriptor), virtual_slot(descriptor));
            let mut returning_list = first((*write).returningLists);
            let action_name = version::ActionName::replace_in(&mut returning_list);
            let returning = if returning_list.is_null() {
                std::ptr::null_mut()
            } else {
                let slot = virtual_slot(pg_sys::ExecTypeFromTL(returning_list));
                pg_sys::ExecBuildProjectionInfo(returning_list, context, slot, ps, descriptor)
            };

            let numbers = |list: *mut pg_sys::List| -> Vec<i16> {
                (0..node::length(list))
                    .map(|index| (*(*list).elements.add(index)).int_value as i16)
                    .collect()
            };
            let mut sets = vec![numbers(first((*write).updateColnosLists))];
            let mut actions = Vec::new();
            for action in node::elements::<pg_sys::MergeAction>(first((*write).mergeActionLists)) {
                let command = (*action).commandType;
                let projection =
                    if matches!(command, pg_sys::CmdType::CMD_INSERT | pg_sys::CmdType::CMD_UPDATE)
                    {
                        let slot = virtual_slot(pg_sys::ExecTypeFromTL((*action).targetList));
                        let list = (*action).targetList;
                        pg_sys::ExecBuildProjectionInfo(list, context, slot, ps, descriptor)
                    } else {
                        std::ptr::null_mut()
                    };
                sets.push(numbers((*action).updateColnos));
                actions.push(Action {
                    rows: version::merge_match(action),
                    command,
                    qual: pg_sys::ExecInitQual((*action).qual.cast(), ps),
                    projection,
                    set: sets.len() - 1,
                });
            }

            let conflict = if (*write).onConflictAction == pg_sys::OnConflictAction::ONCONFLICT_NONE
            {
                None
            } else {
                let list = (*write).onConflictSet;
                let updates =
                    (*write).onConflictAction == pg_sys::OnConflictAction::ONCONFLICT_UPDATE;
                let projection = if updates {
                    let slot = virtual_slot(pg_sys::ExecTypeFromTL(list));
                    pg_sys::ExecBuildProjectionInfo(list, context, slot, ps, descriptor)
                } else {
                    std::ptr::null_mut()
                };
                sets.push(numbers((*write).onConflictCols));
                Some(Conflict {
                    updates,
                    columns: arbiter((*write).arbiterIndexes)?,
                    condition: pg_sys::ExecInitQual((*write).onConflictWhere.cast(), ps),
                    projection,
                    set: sets.len() - 1,
                    excluded: virtual_slot(descriptor),
                    existing: existing_rows(estate, descriptor),
                })
            };

            let command = command_of(write);
            let merges: Vec<_> = actions.iter().map(|action| deed_of(action.command)).collect();
            let child: *mut pg_sys::PlanState = node::nth((*custom).custom_ps, 0);
            let columns = (*(*child).plan).targetlist;
            let place_of = |name: &CStr| {
                pg_sys::ExecFindJunkAttributeInTlist(columns, name.as_ptr()).max(0) as usize
            };
            let old_at: Vec<usize> = (1..=natts)
                .map(|column| {
                    let name = std::ffi::CString::new(format!("{OLD}{column}"));
                    name.map_or(0, |name| place_of(&name))
                })
                .collect();
            let has_old = knows_row(descriptor, &old_at);
            let knows_old = has_old || conflict.is_some();
            let triggers = Triggers::open(estate, inserting, command, &merges, knows_old);
            let constraints = (*descriptor).constr;
            if !(*write).canSetTag {
                // What nobody reads to its end is run after the rest of the statement, as ModifyTable nodes are.
                (*estate).es_auxmodifytables =
                    pg_sys::lcons(custom.cast(), (*estate).es_auxmodifytables);
            }
            Ok(Changes {
                node: custom,
                command,
                sets_tag: (*write).canSetTag,
                relation,
                inserting,
                updating,
                old,
                new,
                input: std::ptr::null_mut(),
                shard_at: place_of(SHARD),
                ctid_at: place_of(c"ctid"),
                layout: tid::layout_of((*relation).rd_id),
                has_old,
                old_at,
                has_generated: !constraints.is_null() && (*constraints).has_generated_stored,
                sets,
                returning,
                action_name,
                actions,
                has_source: pg_sys::ExecInitQual(first(version::join_conditions(write)), ps),
                conflict,
                triggers,
            })
        }
    }
}

impl Changes {
    /// The rows count in what the statement reports.
    pub fn sets_tag(&self) -> bool {
        self.sets_tag
    }

    /// The old rows are known as a whole.
    pub fn has_old_rows(&self) -> bool {
        self.has_old
    }

    /// The sets of columns that an update assigns.
    pub fn sets(&self) -> &[Vec<i16>] {
        &self.sets
    }

    /// It may store rows in other shards than those that its target's scan reads: it inserts, or assigns the column
    /// given, and there are shards to read.
    pub fn may_move(&self, column: i16) -> bool {
        self.shard_at > 0
            && (self.sets.iter().any(|set| set.contains(&column))
                || self.actions.iter().any(|action| action.command == pg_sys::CmdType::CMD_INSERT))
    }

    /// The next row; none at the end. Its old and new values stay until the one after it.
    pub fn next(&mut self, io: &mut ScanIo) -> Result<Option<Change>, PgError> {
        // SAFETY: the slots are live; values point into the plan's row or per-row memory, which stay until the next call.
        unsafe {
            let context = (*self.node).ss.ps.ps_ExprContext;
            pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            let estate = (*self.node).ss.ps.state;
            if !(*estate).es_per_tuple_exprcontext.is_null() {
                let memory = (*(*estate).es_per_tuple_exprcontext).ecxt_per_tuple_memory;
                pg_sys::MemoryContextReset(memory);
            }
            let Some(row) = io.child_row() else { return Ok(None) };
            self.input = row.slot();
            let is_matched = self.ctid_at > 0 && value(self.input, self.ctid_at - 1).is_some();
            self.fill_old(is_matched);
            Ok(Some(match self.command {
                Command::Insert | Command::Upsert => {
                    let input = self.input;
                    self.fill_new(|column| value(input, column));
                    Change::Insert
                }
                Command::Update => {
                    self.assign(self.input, 0);
                    Change::Update(0)
                }
                Command::Merge => self.merge(is_matched),
                _ => Change::Delete,
            }))
        }
    }

    unsafe fn fill_old(&mut self, is_matched: bool) {
        // SAFETY: the slots are live and as long as the table's descriptor.
        unsafe {
            let (old, input) = (self.old, self.input);
            fill(old, self.old_at.len(), |column| {
                let at = self.old_at[column];
                if at > 0 && is_matched { value(input, at - 1) } else { None }
            });
            (*old).tts_tableOid = (*self.relation).rd_id;
            if is_matched && let Some(ctid) = value(input, self.ctid_at - 1) {
                let id = *ctid.cast_mut_ptr::<pg_sys::ItemPointerData>();
                (*old).tts_tid = self.layout.map_or(id, |layout| tid::decode(id, layout));
            }
        }
    }

    unsafe fn fill_new(&mut self, from: impl Fn(usize) -> Option<Datum>) {
        // SAFETY: as in `fill_old`.
        unsafe {
            fill(self.new, self.old_at.len(), from);
            (*self.new).tts_tableOid = (*self.relation).rd_id;
        }
    }

    /// The new row is the old one with the values of `from` in the columns of a set.
    unsafe fn assign(&mut self, from: *mut pg_sys::TupleTableSlot, set: usize) {
        // SAFETY: as in `fill_old`; the set's values come first in `from`.
        unsafe {
            let old = self.old;
            let columns = std::mem::take(&mut self.sets[set]);
            self.fill_new(|column| {
                let place = columns.iter().position(|known| *known as usize == column + 1);
                match place {
                    Some(place) => value(from, place),
                    None => value(old, column),
                }
            });
            self.sets[set] = columns;
        }
    }

    unsafe fn check(
        &self,
        relation: *mut pg_sys::ResultRelInfo,
        kind: pg_sys::WCOKind::Type,
        slot: *mut pg_sys::TupleTableSlot,
    ) {
        // SAFETY: the conditions were made by `open_changes`; the slot is virtual, as they expect.
        unsafe {
            if !(*relation).ri_WithCheckOptions.is_null() {
                pg_sys::ExecWithCheckOptions(kind, relation, slot, (*self.node).ss.ps.state);
            }
        }
    }

    /// What follows once it is certain that the change is made: generated columns, the checks of views and of
    /// row-level security, and RETURNING, whose row is kept.
    pub fn complete(&mut self, io: &mut ScanIo, change: Change) -> Result<(), PgError> {
        // SAFETY: the expressions were made for this node; the slots are live and virtual.
        unsafe {
            let (relation, command, kind) = match change {
                Change::Insert => (
                    self.inserting,
                    pg_sys::CmdType::CMD_INSERT,
                    pg_sys::WCOKind::WCO_RLS_INSERT_CHECK,
                ),
                _ => (
                    self.updating,
                    pg_sys::CmdType::CMD_UPDATE,
                    pg_sys::WCOKind::WCO_RLS_UPDATE_CHECK,
                ),
            };
            let is_whole = change == Change::Insert || self.has_old;
            if change != Change::Delete && is_whole {
                if self.has_generated {
                    let (estate, new) = ((*self.node).ss.ps.state, self.new);
                    pg_sys::ffi::pg_guard_ffi_boundary(|| {
                        raw::ExecComputeStoredGenerated(relation, estate, new, command);
                    });
                }
                self.check(relation, kind, self.new);
                self.check(relation, pg_sys::WCOKind::WCO_VIEW_CHECK, self.new);
            }
            if let Some(triggers) = &mut self.triggers {
                match change {
                    Change::Insert => triggers.after_insert(self.new)?,
                    Change::Update(_) => triggers.after_update(self.old, self.new)?,
                    Change::Delete => triggers.after_delete(self.old)?,
                    Change::Nothing => {}
                }
            }
            if !self.returning.is_null() {
                let context = (*self.node).ss.ps.ps_ExprContext;
                (*context).ecxt_scantuple =
                    if change == Change::Delete { self.old } else { self.new };
                (*context).ecxt_outertuple = self.input;
                let old = (change != Change::Insert).then_some(self.old);
                let new = (change != Change::Delete).then_some(self.new);
                version::return_old_and_new(self.returning, context, relation, old, new);
                self.action_name.set(match change {
                    Change::Insert => b"INSERT",
                    Change::Delete => b"DELETE",
                    _ => b"UPDATE",
                });
                let row = project(self.returning);
                io.rows().borrow_mut().keep_slot(row);
            }
            Ok(())
        }
    }

    /// Where the old row lies.
    pub fn place(&self) -> Result<Place, PgError> {
        // SAFETY: the slot holds the plan's row; the column is of type cid, which is passed by value.
        let shard =
            unsafe { if self.shard_at == 0 { None } else { value(self.input, self.shard_at - 1) } };
        let shard = shard.ok_or_else(|| PgError::internal("a row without its shard"))?;
        // SAFETY: filled by `fill_old`.
        let id = unsafe { (*self.old).tts_tid };
        Ok(Place { shard: shard.value() as u32 as usize, ctid: number_of(id) })
    }

    /// The hash of the new row's value in a column (from 1); none for NULL.
    pub fn hash_new(&self, column: i16, hasher: &Hasher) -> Option<i32> {
        // SAFETY: the slot is filled; the hasher was found for the column's type.
        unsafe { value(self.new, column as usize - 1).map(|value| hasher.hash(value)) }
    }

    /// Encoders for the table's columns, none for those dropped.
    pub fn encoders(&self) -> Vec<Option<Encoder>> {
        // SAFETY: the relation is open; the encoders live in the query's context.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo((*(*self.node).ss.ps.state).es_query_cxt);
            let descriptor = (*self.relation).rd_att;
            let encoders = (0..(*descriptor).natts as usize)
                .map(|index| {
                    let attribute = version::attribute(descriptor, index);
                    (!(*attribute).attisdropped).then(|| Encoder::new((*attribute).atttypid))
                })
                .collect();
            pg_sys::MemoryContextSwitchTo(before);
            encoders
        }
    }

    /// An encoder for rows' places.
    pub fn place_encoder(&self) -> Encoder {
        // SAFETY: as in `encoders`.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo((*(*self.node).ss.ps.state).es_query_cxt);
            let encoder = Encoder::new(pg_sys::TIDOID);
            pg_sys::MemoryContextSwitchTo(before);
            encoder
        }
    }

    /// Appends the old row's value in a column (from 1) to a statement's arguments.
    pub fn append_old(&self, column: i16, encoder: &Encoder, arguments: &mut Arguments) {
        // SAFETY: the slot is filled and the encoder made for the column; what it allocates goes with the row.
        unsafe { self.append(self.old, column, encoder, arguments) }
    }

    /// The same of the new row.
    pub fn append_new(&self, column: i16, encoder: &Encoder, arguments: &mut Arguments) {
        // SAFETY: as above.
        unsafe { self.append(self.new, column, encoder, arguments) }
    }

    unsafe fn append(
        &self,
        slot: *mut pg_sys::TupleTableSlot,
        column: i16,
        encoder: &Encoder,
        arguments: &mut Arguments,
    ) {
        // SAFETY: the caller vouches for slot and encoder.
        unsafe {
            let memory = (*(*self.node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory;
            let before = pg_sys::MemoryContextSwitchTo(memory);
            encoder.append(value(slot, column as usize - 1), arguments);
            pg_sys::MemoryContextSwitchTo(before);
        }
    }

    /// Appends the old row's place to a statement's arguments.
    pub fn append_place(&self, encoder: &Encoder, arguments: &mut Arguments) {
        // SAFETY: the row is a matched one, whose ctid is in the slot.
        unsafe {
            let memory = (*(*self.node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory;
            let before = pg_sys::MemoryContextSwitchTo(memory);
            let place = Datum::from((&raw const (*self.old).tts_tid).cast::<std::ffi::c_void>());
            encoder.append(Some(place), arguments);
            pg_sys::MemoryContextSwitchTo(before);
        }
    }
}

fn number_of(id: pg_sys::ItemPointerData) -> u64 {
    let block = u64::from(id.ip_blkid.bi_hi) << 16 | u64::from(id.ip_blkid.bi_lo);
    block << 16 | u64::from(id.ip_posid)
}

/// How a ModifyTable writes.
unsafe fn command_of(write: *mut pg_sys::ModifyTable) -> Command {
    // SAFETY: the caller passes a live node.
    unsafe {
        let updates = (*write).onConflictAction == pg_sys::OnConflictAction::ONCONFLICT_UPDATE;
        if updates { Command::Upsert } else { deed_of((*write).operation) }
    }
}

fn deed_of(operation: pg_sys::CmdType::Type) -> Command {
    match operation {
        pg_sys::CmdType::CMD_INSERT => Command::Insert,
        pg_sys::CmdType::CMD_UPDATE => Command::Update,
        pg_sys::CmdType::CMD_DELETE => Command::Delete,
        pg_sys::CmdType::CMD_MERGE => Command::Merge,
        _ => Command::Select,
    }
}

/// The columns of the index by which ON CONFLICT knows a row; none if it means any.
unsafe fn arbiter(indexes: *mut pg_sys::List) -> Result<Option<Vec<i16>>, PgError> {
    if indexes.is_null() {
        return Ok(None);
    }
    // SAFETY: a list of indexes of the target, which is locked.
    unsafe {
        let relation =
            pg_sys::index_open((*(*indexes).elements).oid_value, pg_sys::AccessShareLock as c_int);
        let form = &*(*relation).rd_index;
        let columns =
            std::slice::from_raw_parts(form.indkey.values.as_ptr(), form.indnkeyatts as usize)
                .to_vec();
        let is_plain = form.indisunique
            && crate::catalog::table::is_total(relation)
            && columns.iter().all(|column| {
                *column > 0
                    && pg_sys::get_atttype(form.indrelid, *column).to_u32()
                        < crate::sys::value::FIRST_USER_OID
            });
        pg_sys::index_close(relation, pg_sys::AccessShareLock as c_int);
        if is_plain {
            return Ok(Some(columns));
        }
        Err(PgError::unsupported(
            "cannot compute ON CONFLICT by this index on the coordinator",
            "Leave sub-queries and the distribution column out of ON CONFLICT and RETURNING.",
        )
        .detail("The index is partial, over an expression, or of a type of users."))
    }
}

/// Where rows that are there already are decoded.
unsafe fn existing_rows(estate: *mut pg_sys::EState, descriptor: pg_sys::TupleDesc) -> RowStore {
    // SAFETY: the caller passes the target's descriptor and the query's state.
    unsafe {
        let mut remote = vec![(pg_sys::TIDOID, -1)];
        for index in 0..(*descriptor).natts as usize {
            let attribute = &*version::attribute(descriptor, index);
            if !attribute.attisdropped {
                remote.push((attribute.atttypid, attribute.atttypmod));
            }
        }
        let sources = (0..remote.len()).map(Source::Remote).collect();
        let mut rows = RowStore::new((*estate).es_query_cxt, descriptor);
        rows.codecs = Some(std::rc::Rc::new(Codecs::new(&remote, sources, &[])));
        rows
    }
}

/// A value of a slot whose values are all there; none for NULL.
unsafe fn value(slot: *mut pg_sys::TupleTableSlot, column: usize) -> Option<Datum> {
    // SAFETY: the caller passes a deformed slot and a column that it has.
    unsafe { (!*(*slot).tts_isnull.add(column)).then(|| *(*slot).tts_values.add(column)) }
}

/// ExecMaterializeSlot, `src/include/executor/tuptable.h`.
unsafe fn materialize(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: the caller passes a filled slot.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            ((*(*slot).tts_ops).materialize.unwrap_unchecked())(slot);
        });
    }
}

unsafe fn fill(
    slot: *mut pg_sys::TupleTableSlot,
    columns: usize,
    mut from: impl FnMut(usize) -> Option<Datum>,
) {
    // SAFETY: the caller passes a virtual slot with that many columns.
    unsafe {
        pg_sys::ExecClearTuple(slot);
        for column in 0..columns {
            let datum = from(column);
            *(*slot).tts_isnull.add(column) = datum.is_none();
            *(*slot).tts_values.add(column) = datum.unwrap_or(Datum::from(0));
        }
        pg_sys::ExecStoreVirtualTuple(slot);
    }
}

/// ExecQual, `src/include/executor/executor.h`.
pub(crate) unsafe fn holds(
    qual: *mut pg_sys::ExprState,
    context: *mut pg_sys::ExprContext,
) -> bool {
    // SAFETY: the caller passes a condition and the context of its node.
    unsafe {
        if qual.is_null() {
            return true;
        }
        let mut is_null = false;
        evaluate(qual, context, &mut is_null).value() != 0
    }
}

unsafe fn evaluate(
    state: *mut pg_sys::ExprState,
    context: *mut pg_sys::ExprContext,
    is_null: &mut bool,
) -> Datum {
    // SAFETY: the caller passes an expression and the context of its node; results live in per-row memory.
    unsafe {
        let before = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
        let value = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            ((*state).evalfunc.unwrap_unchecked())(state, context, is_null)
        });
        pg_sys::MemoryContextSwitchTo(before);
        value
    }
}

/// ExecProject, `src/include/executor/executor.h`.
unsafe fn project(projection: *mut pg_sys::ProjectionInfo) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the caller passes a projection of a live node.
    unsafe {
        let state = &raw mut (*projection).pi_state;
        let slot = (*state).resultslot;
        pg_sys::ExecClearTuple(slot);
        let mut is_null = false;
        evaluate(state, (*projection).pi_exprContext, &mut is_null);
        pg_sys::ExecStoreVirtualTuple(slot);
        slot
    }
}
