//! Triggers of distributed tables: they fire on the coordinator, as those of a foreign table do.
//!
//! A write of a table with triggers is computed here row by row ([`super::row_changes`]), or parsed here by COPY. PostgreSQL's own
//! functions fire the triggers with the old and the new row, so WHEN, UPDATE OF, transition tables, deferral and the order
//! are its affair, and the functions run with the client's settings and role, see whatever tables they name, and once for each
//! row however many placements it has. The shards have no triggers. What constraints have made (internal triggers) is left to the
//! shards, but for foreign keys of local tables: only this server has the referring rows, so PostgreSQL's own triggers of the
//! referenced table look for them here, and delete or change them as ON DELETE and ON UPDATE say.

use super::execution::Execution;
use super::trigger_rows;
use crate::catalog::foreign_keys;
use crate::extension::extension;
use crate::read::changes::RowsChanged;
use crate::read::query::Unshippable;
use crate::sys::error::{PgError, SqlState};
use crate::sys::plan::Command;
use crate::sys::{node, version};
use pgrx::pg_sys::{self, Datum, NodeTag, Oid};
use std::cell::{Cell, RefCell};
use std::ffi::c_char;

mod raw {
    //! Not among pgrx' bindings, so without its guard: the caller puts it around what may raise an error.
    use pgrx::pg_sys::{self, Datum};
    unsafe extern "C-unwind" {
        /// Guarded.
        pub(super) fn datum_image_eq(one: Datum, other: Datum, by_value: bool, length: i32)
        -> bool;
        /// Guarded.
        pub(super) fn ExecComputeStoredGenerated(
            relation: *mut pg_sys::ResultRelInfo,
            estate: *mut pg_sys::EState,
            slot: *mut pg_sys::TupleTableSlot,
            command: pg_sys::CmdType::Type,
        );
    }
}

thread_local! {
    /// The table whose triggers do not fire now.
    static SILENT: Cell<Oid> = const { Cell::new(Oid::INVALID) };
    /// Which executions keep rows for their AFTER triggers.
    static SEGMENTS: RefCell<Vec<(Execution, u16)>> = const { RefCell::new(Vec::new()) };
}

/// Runs what changes a table's rows without being a change that users have asked for; its triggers do not fire.
pub fn without<T>(table: Oid, body: impl FnOnce() -> T) -> T {
    struct Restore(Oid);
    impl Drop for Restore {
        fn drop(&mut self) {
            SILENT.set(self.0);
        }
    }
    let _restore = Restore(SILENT.replace(table));
    body()
}

/// The bits of `tgtype` (`src/include/catalog/pg_trigger.h`) of what a command may do with rows.
fn events(command: Command) -> i16 {
    let (insert, delete, update) = (1 << 2, 1 << 3, 1 << 4);
    match command {
        Command::Insert => insert,
        Command::Upsert => insert | update,
        Command::Update => update,
        Command::Delete => delete,
        Command::Merge => insert | update | delete,
        Command::Select | Command::SelectForUpdate => 0,
    }
}

fn is_enabled(trigger: &pg_sys::Trigger) -> bool {
    trigger.tgenabled as u8 != pg_sys::TRIGGER_DISABLED
}

/// The side of a foreign key that is referred to: what its trigger does concerns the rows of another table.
#[derive(Clone, Copy)]
struct Referenced {
    constraint: Oid,
    referring: Oid,
    /// It is about rows that are deleted; else about keys that are changed.
    deletes: bool,
}

impl Referenced {
    fn of(trigger: &pg_sys::Trigger) -> Option<Self> {
        if !trigger.tgisinternal || trigger.tgconstraint == Oid::INVALID {
            return None;
        }
        // SAFETY: compares the function's OID with constants.
        let kind = unsafe { pg_sys::RI_FKey_trigger_type(trigger.tgfoid) } as u32;
        (kind == pg_sys::RI_TRIGGER_PK).then(|| Self {
            constraint: trigger.tgconstraint,
            referring: trigger.tgconstrrelid,
            deletes: trigger.tgtype & events(Command::Delete) != 0,
        })
    }

    /// The rows that refer are here, and not on the nodes.
    fn is_local(self) -> bool {
        extension().distribution(self.referring).is_none()
    }

    fn concerns(self, changed: &RowsChanged) -> bool {
        if self.deletes {
            return changed.deletes;
        }
        let keys = foreign_keys::read(&[self.constraint]);
        keys.iter().any(|key| key.is_changed(&changed.columns))
    }
}

unsafe fn list<'a>(triggers: *mut pg_sys::TriggerDesc) -> &'a mut [pg_sys::Trigger] {
    // SAFETY: the caller passes a live descriptor, or null; its array has that many members.
    unsafe {
        match triggers.as_ref() {
            Some(all) if all.numtriggers > 0 => {
                std::slice::from_raw_parts_mut(all.triggers, all.numtriggers as usize)
            }
            _ => &mut [],
        }
    }
}

/// The triggers of an open relation, in this process's cache.
///
/// # Safety
///
/// The relation stays open, and nobody else has the list.
pub(crate) unsafe fn of_relation<'a>(relation: pg_sys::Relation) -> &'a mut [pg_sys::Trigger] {
    // SAFETY: the caller vouches for the relation.
    unsafe { list((*relation).trigdesc) }
}

/// Triggers of a table fire here when a command of that kind runs that does this to rows which are there.
pub fn fire(command: Command, changed: &RowsChanged) -> bool {
    let table = changed.table;
    if SILENT.get() == table {
        return false;
    }
    let mut referenced: Vec<Referenced> = Vec::new();
    // SAFETY: the relation is in the cache while it is held; the statement has locked it. Nothing in between takes in
    // invalidations, so its triggers stay.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return false;
        }
        let may_fire = |trigger: &&pg_sys::Trigger| {
            is_enabled(trigger) && trigger.tgtype & events(command) != 0
        };
        let all = list((*relation).trigdesc).iter().filter(may_fire);
        let mut fires = false;
        for trigger in all {
            fires |= !trigger.tgisinternal;
            referenced.extend(Referenced::of(trigger));
        }
        pg_sys::RelationClose(relation);
        if fires {
            return true;
        }
    }
    referenced.into_iter().any(|one| one.is_local() && one.concerns(changed))
}

/// What stands in the way of such a command's routing.
pub(crate) fn unshippable(command: Command, changed: &RowsChanged) -> Option<Unshippable> {
    fire(command, changed).then_some(Unshippable::Triggers)
}

/// The triggers of a table that a statement writes.
pub(crate) struct Triggers {
    estate: *mut pg_sys::EState,
    relation: *mut pg_sys::ResultRelInfo,
    execution: Execution,
    /// What transition tables get of the rows that the command itself is about, and of those that ON CONFLICT updates.
    capture: *mut pg_sys::TransitionCaptureState,
    capture_of_conflict: *mut pg_sys::TransitionCaptureState,
    segment: Option<u16>,
    command: Command,
    /// What it may do with rows: INSERT, UPDATE and DELETE, in this order.
    deeds: Vec<Command>,
}

impl Triggers {
    /// The triggers of the written relation, if it has some that may fire; the others will not fire. `merges` are the deeds
    /// of a MERGE. Without the old rows ([`fire`] has said that nobody needs them) the command does not change what foreign keys
    /// refer to.
    ///
    /// # Safety
    ///
    /// Relation and state are live as long as the value.
    pub(crate) unsafe fn open(
        estate: *mut pg_sys::EState,
        relation: *mut pg_sys::ResultRelInfo,
        command: Command,
        merges: &[Command],
        knows_old_rows: bool,
    ) -> Option<Self> {
        let deeds: Vec<Command> = [Command::Insert, Command::Update, Command::Delete]
            .into_iter()
            .filter(|deed| match command {
                Command::Merge => merges.contains(deed),
                _ => events(*deed) & events(command) != 0,
            })
            .collect();
        // SAFETY: the caller vouches; the relation's descriptor of triggers is its own copy.
        let (table, all) =
            unsafe { ((*(*relation).ri_RelationDesc).rd_id, list((*relation).ri_TrigDesc)) };
        let is_silent = SILENT.get() == table;
        for trigger in all.iter_mut().filter(|trigger| trigger.tgisinternal || is_silent) {
            let acts_here =
                knows_old_rows && Referenced::of(trigger).is_some_and(Referenced::is_local);
            if is_silent || !acts_here {
                trigger.tgenabled = pg_sys::TRIGGER_DISABLED as c_char;
            }
        }
        let mask = deeds.iter().fold(0, |mask, deed| mask | events(*deed));
        all.iter().any(|trigger| is_enabled(trigger) && trigger.tgtype & mask != 0).then(|| Self {
            estate,
            relation,
            execution: Execution::of(estate),
            capture: std::ptr::null_mut(),
            capture_of_conflict: std::ptr::null_mut(),
            segment: None,
            command,
            deeds,
        })
    }

    /// The triggers of the table that a COPY fills.
    ///
    /// # Safety
    ///
    /// The state of the COPY, and its parse state, whose range table is the written table.
    pub(crate) unsafe fn of_copy(
        estate: *mut pg_sys::EState,
        parse: *mut pg_sys::ParseState,
        table: Oid,
    ) -> Option<Self> {
        let nothing = RowsChanged { table, deletes: false, columns: Vec::new() };
        if !fire(Command::Insert, &nothing) {
            return None;
        }
        // SAFETY: the caller vouches; the node is made with the struct of its tag.
        unsafe {
            version::open_range_table(estate, parse);
            let relation: *mut pg_sys::ResultRelInfo = node::make(NodeTag::T_ResultRelInfo);
            pg_sys::ExecInitResultRelation(estate, relation, 1);
            Self::open(estate, relation, Command::Insert, &[], false)
        }
    }

    /// Computes the generated columns of a row that is inserted.
    ///
    /// # Safety
    ///
    /// A slot of the table.
    pub(crate) unsafe fn compute_generated(&self, slot: *mut pg_sys::TupleTableSlot) {
        let (estate, relation) = (self.estate, self.relation);
        // SAFETY: the caller vouches for the slot.
        unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                raw::ExecComputeStoredGenerated(
                    relation,
                    estate,
                    slot,
                    pg_sys::CmdType::CMD_INSERT,
                );
            });
        }
    }

    pub(crate) fn execution(&self) -> Execution {
        self.execution
    }

    fn table(&self) -> Oid {
        // SAFETY: the relation is open, as `open` was promised.
        unsafe { (*(*self.relation).ri_RelationDesc).rd_id }
    }

    fn description(&self) -> &pg_sys::TriggerDesc {
        // SAFETY: there are triggers, so the descriptor is there.
        unsafe { &*(*self.relation).ri_TrigDesc }
    }

    /// Before the first row: BEFORE triggers of the statement, and its transition tables.
    pub(crate) fn begin_statement(&mut self) {
        let (estate, relation) = (self.estate, self.relation);
        // SAFETY: state and relation are live; the order is that of fireBSTriggers and ExecSetupTransitionCaptureState
        // (`src/backend/executor/nodeModifyTable.c`).
        unsafe {
            for deed in &self.deeds {
                match deed {
                    Command::Insert => pg_sys::ExecBSInsertTriggers(estate, relation),
                    Command::Update => pg_sys::ExecBSUpdateTriggers(estate, relation),
                    _ => pg_sys::ExecBSDeleteTriggers(estate, relation),
                }
            }
            use pg_sys::CmdType::{CMD_DELETE, CMD_INSERT, CMD_MERGE, CMD_UPDATE};
            let kind = match self.command {
                Command::Update => CMD_UPDATE,
                Command::Delete => CMD_DELETE,
                Command::Merge => CMD_MERGE,
                _ => CMD_INSERT,
            };
            let (triggers, table) = ((*relation).ri_TrigDesc, self.table());
            let capture = |kind| pg_sys::MakeTransitionCaptureState(triggers, table, kind);
            self.capture = capture(kind);
            if self.command == Command::Upsert {
                self.capture_of_conflict = capture(CMD_UPDATE);
            }
        }
    }

    /// After the last row: AFTER triggers of the statement are queued.
    pub(crate) fn end_statement(&mut self) {
        let (estate, relation) = (self.estate, self.relation);
        let of_update = self.capture_of_update();
        // SAFETY: as in `begin_statement`; the order is that of fireASTriggers.
        unsafe {
            for deed in self.deeds.iter().rev() {
                match deed {
                    Command::Insert => pg_sys::ExecASInsertTriggers(estate, relation, self.capture),
                    Command::Update => pg_sys::ExecASUpdateTriggers(estate, relation, of_update),
                    _ => pg_sys::ExecASDeleteTriggers(estate, relation, self.capture),
                }
            }
        }
    }

    fn capture_of_update(&self) -> *mut pg_sys::TransitionCaptureState {
        if self.command == Command::Upsert { self.capture_of_conflict } else { self.capture }
    }

    /// BEFORE INSERT of a row, which may be another one afterwards; false if it is not to be inserted.
    ///
    /// # Safety
    ///
    /// A virtual slot of the table, whose values are all there; so below.
    pub(crate) unsafe fn before_insert(&self, new: *mut pg_sys::TupleTableSlot) -> bool {
        // SAFETY: the caller vouches for the slot.
        unsafe {
            !self.description().trig_insert_before_row
                || pg_sys::ExecBRInsertTriggers(self.estate, self.relation, new)
        }
    }

    /// BEFORE UPDATE of a row.
    ///
    /// # Safety
    ///
    /// As above.
    pub(crate) unsafe fn before_update(
        &self,
        old: *mut pg_sys::TupleTableSlot,
        new: *mut pg_sys::TupleTableSlot,
    ) -> bool {
        if !self.description().trig_update_before_row {
            return true;
        }
        // SAFETY: the caller vouches for the slots; the tuple lives until the next row.
        unsafe { version::before_update(self.estate, self.relation, self.tuple(old), new) }
    }

    /// BEFORE DELETE of a row.
    ///
    /// # Safety
    ///
    /// As above.
    pub(crate) unsafe fn before_delete(&self, old: *mut pg_sys::TupleTableSlot) -> bool {
        if !self.description().trig_delete_before_row {
            return true;
        }
        // SAFETY: as above.
        unsafe { version::before_delete(self.estate, self.relation, self.tuple(old)) }
    }

    /// AFTER INSERT of a row is queued.
    ///
    /// # Safety
    ///
    /// As above.
    pub(crate) unsafe fn after_insert(
        &mut self,
        new: *mut pg_sys::TupleTableSlot,
    ) -> Result<(), PgError> {
        // SAFETY: the caller vouches for the slot; the capture is null or live.
        unsafe {
            let is_captured = self.capture.as_ref().is_some_and(|it| it.tcs_insert_new_table);
            let fires = self.description().trig_insert_after_row;
            if fires {
                (*new).tts_tid = self.keep(new)?;
            }
            if fires || is_captured {
                let none = std::ptr::null_mut();
                pg_sys::ExecARInsertTriggers(self.estate, self.relation, new, none, self.capture);
            }
        }
        Ok(())
    }

    /// AFTER UPDATE of a row is queued.
    ///
    /// # Safety
    ///
    /// As above.
    pub(crate) unsafe fn after_update(
        &mut self,
        old: *mut pg_sys::TupleTableSlot,
        new: *mut pg_sys::TupleTableSlot,
    ) -> Result<(), PgError> {
        let capture = self.capture_of_update();
        // SAFETY: the caller vouches for the slots; the capture is null or live. The old row is fetched by its place.
        unsafe {
            let is_captured = capture
                .as_ref()
                .is_some_and(|it| it.tcs_update_old_table || it.tcs_update_new_table);
            let fires = self.description().trig_update_after_row;
            if !fires && !is_captured {
                return Ok(());
            }
            let (mut place, row) = self.old_row(old, fires)?;
            if fires {
                (*new).tts_tid = self.keep(new)?;
            }
            pg_sys::ExecARUpdateTriggers(
                self.estate,
                self.relation,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                &raw mut place,
                row,
                new,
                std::ptr::null_mut(),
                capture,
                false,
            );
        }
        Ok(())
    }

    /// AFTER DELETE of a row is queued.
    ///
    /// # Safety
    ///
    /// As above.
    pub(crate) unsafe fn after_delete(
        &mut self,
        old: *mut pg_sys::TupleTableSlot,
    ) -> Result<(), PgError> {
        // SAFETY: as above.
        unsafe {
            let is_captured = self.capture.as_ref().is_some_and(|it| it.tcs_delete_old_table);
            let fires = self.description().trig_delete_after_row;
            if !fires && !is_captured {
                return Ok(());
            }
            let (mut place, row) = self.old_row(old, fires)?;
            pg_sys::ExecARDeleteTriggers(
                self.estate,
                self.relation,
                &raw mut place,
                row,
                self.capture,
                false,
            );
        }
        Ok(())
    }

    /// The old row as AFTER triggers want it: by a place where it is kept, or as a tuple if only transition tables take it.
    unsafe fn old_row(
        &mut self,
        old: *mut pg_sys::TupleTableSlot,
        is_kept: bool,
    ) -> Result<(pg_sys::ItemPointerData, pg_sys::HeapTuple), PgError> {
        // SAFETY: the caller vouches for the slot.
        unsafe {
            if is_kept {
                return Ok((self.keep(old)?, std::ptr::null_mut()));
            }
            Ok((pg_sys::ItemPointerData::default(), self.tuple(old)))
        }
    }

    /// Keeps a row for triggers that fire later.
    unsafe fn keep(
        &mut self,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<pg_sys::ItemPointerData, PgError> {
        let segment = match self.segment {
            Some(segment) => segment,
            None => {
                // SAFETY: the descriptor is live.
                let all = unsafe { list((*self.relation).ri_TrigDesc) };
                let may_wait =
                    all.iter().any(|trigger| is_enabled(trigger) && trigger.tgdeferrable);
                let segment = trigger_rows::open_segment(may_wait).ok_or_else(|| {
                    PgError::new(
                        SqlState::PROGRAM_LIMIT_EXCEEDED,
                        "too many nested statements keep rows for triggers",
                    )
                })?;
                SEGMENTS.with_borrow_mut(|known| known.push((self.execution, segment)));
                *self.segment.insert(segment)
            }
        };
        // SAFETY: the caller vouches for the slot.
        unsafe { trigger_rows::keep(segment, self.table(), slot) }
    }

    /// The row as PostgreSQL's functions want it, until the next row.
    unsafe fn tuple(&self, slot: *mut pg_sys::TupleTableSlot) -> pg_sys::HeapTuple {
        // SAFETY: the caller vouches for the slot; the context is that of PostgreSQL's own triggers.
        unsafe {
            let context = per_row_memory(self.estate);
            let before = pg_sys::MemoryContextSwitchTo(context);
            let tuple = pg_sys::heap_form_tuple(
                (*slot).tts_tupleDescriptor,
                (*slot).tts_values,
                (*slot).tts_isnull,
            );
            (*tuple).t_tableOid = self.table();
            pg_sys::MemoryContextSwitchTo(before);
            tuple
        }
    }
}

/// Rows that an execution has kept are needed no more: its triggers have fired.
pub(crate) fn finish(execution: Execution) {
    let done: Vec<u16> = SEGMENTS.with_borrow_mut(|known| {
        let done = known.iter().filter(|(of, _)| *of == execution).map(|(_, number)| *number);
        let done = done.collect();
        known.retain(|(of, _)| *of != execution);
        done
    });
    done.into_iter().for_each(trigger_rows::close_segment);
}

/// The transaction has ended.
pub(crate) fn forget_all() {
    SEGMENTS.with_borrow_mut(Vec::clear);
    trigger_rows::forget_all();
}

unsafe fn per_row_memory(estate: *mut pg_sys::EState) -> pg_sys::MemoryContext {
    // SAFETY: the caller passes a live state; the context is made once.
    unsafe {
        let context = if (*estate).es_per_tuple_exprcontext.is_null() {
            pg_sys::MakePerTupleExprContext(estate)
        } else {
            (*estate).es_per_tuple_exprcontext
        };
        (*context).ecxt_per_tuple_memory
    }
}

/// Two values of a type are the same in every byte.
///
/// # Safety
///
/// Values of a type with this passing and length.
pub(crate) unsafe fn are_alike(
    one: Option<Datum>,
    other: Option<Datum>,
    by_value: bool,
    length: i16,
) -> bool {
    match (one, other) {
        (None, None) => true,
        // SAFETY: the caller vouches for the values.
        (Some(one), Some(other)) => unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                raw::datum_image_eq(one, other, by_value, i32::from(length))
            })
        },
        _ => false,
    }
}
