//! COPY FROM: PostgreSQL parses the client's data, row by row, and we say where each row goes.
//!
//! Parsing, defaults, encodings, column lists and error positions are PostgreSQL's (`copyfrom.c`); what it does
//! with a row is replaced. The other half, [`receive`], feeds rows that come from another node into
//! PostgreSQL's own COPY, so that indexes, constraints and generated columns are its affair.

/// Records that travel as they are.
mod lines;

/// Rows of a table of this server.
pub mod local;

/// Triggers of the table.
mod triggers;

pub use lines::Lines;

use crate::exec::triggers::{Triggers, of_relation};
use crate::server::utility::{UtilityCall, copied_columns};
use crate::sys::error::{PgError, SqlState};
use crate::sys::node;
use crate::sys::value::Hasher;
use crate::sys::value::TextStyle;
use crate::sys::version::{self, copy_state as state};
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void};

/// A COPY FROM that is running.
pub struct CopyInput {
    relation: pg_sys::Relation,
    state: pg_sys::CopyFromState,
    estate: *mut pg_sys::EState,
    filter: *mut pg_sys::ExprState,
    slot: *mut pg_sys::TupleTableSlot,
    columns: Vec<OutColumn>,
    /// The columns in the data, by number.
    numbers: Vec<i16>,
    rows: i64,
    excluded: i64,
    tells_line: bool,
    triggers: Option<Triggers>,
}

struct OutColumn {
    number: i16,
    name: String,
    function: pg_sys::FmgrInfo,
}

impl CopyInput {
    /// Checks rights as COPY does and opens the input.
    pub fn open(call: &UtilityCall, table: Oid) -> Result<Self, PgError> {
        // SAFETY: the hook's live CopyStmt; PostgreSQL's own functions with their own structures, in the order
        // of DoCopy (`src/backend/commands/copy.c`).
        unsafe {
            let statement = call.node().cast::<pg_sys::CopyStmt>();
            check_file_rights(statement)?;
            let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as c_int);
            let parse = pg_sys::make_parsestate(std::ptr::null_mut());
            (*parse).p_sourcetext = call.text();
            let item = pg_sys::addRangeTableEntryForRelation(
                parse,
                relation,
                pg_sys::RowExclusiveLock as c_int,
                std::ptr::null_mut(),
                false,
                false,
            );
            let numbers =
                pg_sys::CopyGetAttnums((*relation).rd_att, relation, (*statement).attlist);
            let numbers: Vec<c_int> = (0..node::length(numbers))
                .map(|index| (*(*numbers).elements.add(index)).int_value)
                .collect();
            version::check_insert(parse, item, &numbers);
            if pg_sys::check_enable_rls(table, Oid::INVALID, false)
                == pg_sys::CheckEnableRlsResult::RLS_ENABLED as c_int
            {
                return Err(PgError::unsupported(
                    "COPY FROM not supported with row-level security",
                    "Use INSERT statements instead.",
                ));
            }
            if pg_sys::XactReadOnly {
                pg_sys::PreventCommandIfReadOnly(c"COPY FROM".as_ptr());
            }
            let filter = where_clause(parse, item, (*statement).whereClause);
            let state = pg_sys::BeginCopyFrom(
                parse,
                relation,
                std::ptr::null_mut(),
                (*statement).filename,
                (*statement).is_program,
                None,
                (*statement).attlist,
                (*statement).options,
            );
            check_freeze(state, relation)?;
            let estate = pg_sys::CreateExecutorState();
            let filter = if filter.is_null() {
                std::ptr::null_mut()
            } else {
                pg_sys::ExecPrepareQual(filter, estate)
            };
            let slot = pg_sys::MakeSingleTupleTableSlot(
                (*relation).rd_att,
                &raw const pg_sys::TTSOpsVirtual,
            );
            let columns = copied_columns(table)
                .into_iter()
                .map(|(number, name)| {
                    let attribute = version::attribute((*relation).rd_att, number as usize - 1);
                    let (mut output, mut varlena) = (Oid::INVALID, false);
                    pg_sys::getTypeOutputInfo(
                        (*attribute).atttypid,
                        &raw mut output,
                        &raw mut varlena,
                    );
                    let mut function: pg_sys::FmgrInfo = std::mem::zeroed();
                    pg_sys::fmgr_info(output, &raw mut function);
                    OutColumn { number, name, function }
                })
                .collect();
            push_error_context(state);
            let numbers = numbers.into_iter().map(|number| number as i16).collect();
            Ok(Self {
                relation,
                state,
                estate,
                filter,
                slot,
                columns,
                numbers,
                rows: 0,
                excluded: 0,
                tells_line: true,
                triggers: Triggers::of_copy(estate, parse, table),
            })
        }
    }

    /// The names of the columns of [`Self::line`], in order.
    pub fn column_names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// Parses the next row that the WHERE clause lets pass; false at the end of the data.
    ///
    /// # Errors
    ///
    /// If more rows do not fit their types than may be left out.
    pub fn read_row(&mut self) -> Result<bool, PgError> {
        // SAFETY: live structures of this COPY; per-row memory is reset before each row.
        unsafe {
            loop {
                pgrx::check_for_interrupts!();
                let context = per_tuple_context(self.estate);
                pg_sys::ReScanExprContext(context);
                let before = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
                pg_sys::ExecClearTuple(self.slot);
                let more = pg_sys::NextCopyFrom(
                    self.state,
                    context,
                    (*self.slot).tts_values,
                    (*self.slot).tts_isnull,
                );
                pg_sys::MemoryContextSwitchTo(before);
                if !more {
                    return Ok(false);
                }
                if state::takes_row_out(self.state)? {
                    continue;
                }
                pg_sys::ExecStoreVirtualTuple(self.slot);
                if self.filter.is_null() {
                    self.rows += 1;
                    self.tell_progress(self.rows);
                    return Ok(true);
                }
                (*context).ecxt_scantuple = self.slot;
                let filter = self.filter;
                let mut is_null = false;
                let before = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
                let passes = pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    ((*filter).evalfunc.unwrap_unchecked())(filter, context, &raw mut is_null)
                });
                pg_sys::MemoryContextSwitchTo(before);
                if !is_null && passes.value() != 0 {
                    self.rows += 1;
                    self.tell_progress(self.rows);
                    return Ok(true);
                }
                self.excluded += 1;
                pg_sys::pgstat_progress_update_param(
                    pg_sys::PROGRESS_COPY_TUPLES_EXCLUDED as c_int,
                    self.excluded,
                );
            }
        }
    }

    /// Tells pg_stat_progress_copy how many rows have been read.
    fn tell_progress(&self, rows: i64) {
        // SAFETY: writes this backend's own entry.
        unsafe {
            pg_sys::pgstat_progress_update_param(
                pg_sys::PROGRESS_COPY_TUPLES_PROCESSED as c_int,
                rows,
            );
        }
    }

    /// The number of the line that has been read last.
    pub fn line_number(&self) -> u64 {
        // SAFETY: the state that `open` has got from PostgreSQL.
        unsafe { (*state::of(self.state)).line_number }
    }

    /// Errors are not about the line that has been read last.
    pub fn forget_line(&mut self) {
        if std::mem::replace(&mut self.tells_line, false) {
            // SAFETY: `open` has pushed one.
            unsafe { pop_error_context() };
        }
    }

    fn name_of(&self, number: i16) -> String {
        let name = self.columns.iter().find(|column| column.number == number);
        name.map_or_else(String::new, |column| column.name.clone())
    }

    fn datum(&self, number: i16) -> Option<Datum> {
        let index = number as usize - 1;
        // SAFETY: the slot holds the row; the number is a column of the table.
        unsafe {
            (!*(*self.slot).tts_isnull.add(index)).then(|| *(*self.slot).tts_values.add(index))
        }
    }

    /// The hash of a column of the current row; none for NULL.
    pub fn hash(&self, column: i16, hasher: &Hasher) -> Option<i32> {
        // SAFETY: the hasher was found for the column's type.
        self.datum(column).map(|value| unsafe { hasher.hash(value) })
    }

    /// Appends the current row as a line of COPY's text format.
    pub fn line(&mut self, out: &mut Vec<u8>) {
        // SAFETY: per-row memory; each value is of its column's type.
        unsafe {
            let context = per_tuple_context(self.estate);
            let before = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
            for index in 0..self.columns.len() {
                if index > 0 {
                    out.push(b'\t');
                }
                match self.datum(self.columns[index].number) {
                    None => out.extend_from_slice(b"\\N"),
                    Some(value) => {
                        let style = TextStyle::exact();
                        let text = pg_sys::OutputFunctionCall(
                            &raw mut self.columns[index].function,
                            value,
                        );
                        drop(style);
                        escape_text(std::ffi::CStr::from_ptr(text).to_bytes(), out);
                    }
                }
            }
            out.push(b'\n');
            pg_sys::MemoryContextSwitchTo(before);
        }
    }

    /// Closes the input; the table's lock stays to the end of the transaction.
    pub fn close(mut self) {
        self.forget_line();
        // SAFETY: the structures that `open` made, closed once.
        unsafe {
            state::tell_skipped(self.state);
            pg_sys::EndCopyFrom(self.state);
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            if self.triggers.is_some() {
                pg_sys::ExecResetTupleTable((*self.estate).es_tupleTable, false);
                pg_sys::ExecCloseResultRelations(self.estate);
                pg_sys::ExecCloseRangeTableRelations(self.estate);
            }
            pg_sys::FreeExecutorState(self.estate);
            pg_sys::table_close(self.relation, pg_sys::NoLock as c_int);
        }
    }
}

/// A value in COPY's text format.
pub fn escape_text(value: &[u8], out: &mut Vec<u8>) {
    for byte in value {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.push(*byte),
        }
    }
}

unsafe fn per_tuple_context(estate: *mut pg_sys::EState) -> *mut pg_sys::ExprContext {
    // SAFETY: the caller passes a live EState; MakePerTupleExprContext makes its context once.
    unsafe {
        if (*estate).es_per_tuple_exprcontext.is_null() {
            return pg_sys::MakePerTupleExprContext(estate);
        }
        (*estate).es_per_tuple_exprcontext
    }
}

/// Where FREEZE is allowed (`CopyFrom`, `src/backend/commands/copyfrom.c`). The shards' rows are not frozen: that changes nothing
/// that can be seen.
unsafe fn check_freeze(
    state: pg_sys::CopyFromState,
    relation: pg_sys::Relation,
) -> Result<(), PgError> {
    // SAFETY: the caller passes the state that BeginCopyFrom has made, and the open relation.
    unsafe {
        if !(*state::of(state)).options.freeze {
            return Ok(());
        }
        pg_sys::InvalidateCatalogSnapshot();
        if !pg_sys::ThereAreNoPriorRegisteredSnapshots() || !pg_sys::ThereAreNoReadyPortals() {
            return Err(PgError::new(
                SqlState::INVALID_TRANSACTION_STATE,
                "cannot perform COPY FREEZE because of prior transaction activity",
            ));
        }
        let now = pg_sys::GetCurrentSubTransactionId();
        if (*relation).rd_createSubid != now && version::rewritten_in(relation) != now {
            return Err(PgError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "cannot perform COPY FREEZE because the table was not created or truncated in the current subtransaction",
            ));
        }
        Ok(())
    }
}

/// Rights that COPY asks for files and programs (`DoCopy`).
unsafe fn check_file_rights(statement: *mut pg_sys::CopyStmt) -> Result<(), PgError> {
    // SAFETY: a live CopyStmt; catalog look-ups by value.
    unsafe {
        if (*statement).filename.is_null() {
            return Ok(());
        }
        let (role, message) = if (*statement).is_program {
            (
                pg_sys::ROLE_PG_EXECUTE_SERVER_PROGRAM,
                "must be superuser or a member of the pg_execute_server_program role to COPY to or from an external program",
            )
        } else {
            (
                pg_sys::ROLE_PG_READ_SERVER_FILES,
                "must be superuser or a member of the pg_read_server_files role to COPY from a file",
            )
        };
        if pg_sys::has_privs_of_role(pg_sys::GetUserId(), Oid::from(role)) {
            return Ok(());
        }
        Err(PgError::new(SqlState::INSUFFICIENT_PRIVILEGE, message).hint(
            "Anyone can COPY to stdout or from stdin. psql's \\copy command also works for anyone.",
        ))
    }
}

/// COPY ... WHERE as an implicit-AND list, in the steps of DoCopy.
unsafe fn where_clause(
    parse: *mut pg_sys::ParseState,
    item: *mut pg_sys::ParseNamespaceItem,
    clause: *mut pg_sys::Node,
) -> *mut pg_sys::List {
    if clause.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: the parse state and item that `open` made.
    unsafe {
        pg_sys::addNSItemToQuery(parse, item, false, true, true);
        let clause =
            pg_sys::transformExpr(parse, clause, pg_sys::ParseExprKind::EXPR_KIND_COPY_WHERE);
        let clause = pg_sys::coerce_to_boolean(parse, clause, c"WHERE".as_ptr());
        pg_sys::assign_expr_collations(parse, clause);
        let clause = pg_sys::eval_const_expressions(std::ptr::null_mut(), clause);
        let clause = pg_sys::canonicalize_qual(clause.cast(), false);
        pg_sys::make_ands_implicit(clause.cast())
    }
}

mod raw {
    use std::ffi::c_void;
    unsafe extern "C-unwind" {
        /// Plain frames: PostgreSQL calls it, of which only the address is taken.
        pub(super) fn CopyFromErrorCallback(arg: *mut c_void);
    }
}

/// Errors tell the client's line from here on, as COPY's own do.
unsafe fn push_error_context(state: pg_sys::CopyFromState) {
    // SAFETY: the callback's record lives in the statement's memory, longer than any error of this statement;
    // PostgreSQL unlinks it itself when an ERROR leaves the statement.
    unsafe {
        let record = pg_sys::palloc0(size_of::<pg_sys::ErrorContextCallback>())
            .cast::<pg_sys::ErrorContextCallback>();
        (*record).callback = Some(raw::CopyFromErrorCallback);
        (*record).arg = state.cast::<c_void>();
        (*record).previous = pg_sys::error_context_stack;
        pg_sys::error_context_stack = record;
    }
}

unsafe fn pop_error_context() {
    // SAFETY: `push_error_context` has pushed one.
    unsafe { pg_sys::error_context_stack = (*pg_sys::error_context_stack).previous };
}

/// Where the bytes of a [`receive`] come from.
pub trait CopySource {
    /// Some more bytes; empty at the end.
    fn read(&mut self) -> Result<Vec<u8>, PgError>;
}

struct Feeding {
    source: Box<dyn CopySource>,
    rest: Vec<u8>,
    at: usize,
}

thread_local!(static FEEDING: RefCell<Option<Feeding>> = const { RefCell::new(None) });

/// While it lives, users' triggers of a table do not fire: its rows are only brought back. Nor do those of foreign keys that hold
/// already: deferred ones could not fire at all, since whoever brings rows back acts under restrictions.
struct Silent {
    relation: pg_sys::Relation,
    enabled: Vec<(Oid, c_char)>,
}

impl Silent {
    /// # Safety
    ///
    /// The relation stays open.
    unsafe fn begin(relation: pg_sys::Relation, foreign_keys: ForeignKeys) -> Self {
        let mut enabled = Vec::new();
        // SAFETY: the descriptor of an open relation in this process's cache.
        for trigger in unsafe { of_relation(relation) } {
            let is_known_key =
                foreign_keys == ForeignKeys::Known && trigger.tgconstrrelid != Oid::INVALID;
            if !trigger.tgisinternal || is_known_key {
                enabled.push((trigger.tgoid, trigger.tgenabled));
                trigger.tgenabled = pg_sys::TRIGGER_DISABLED as c_char;
            }
        }
        Self { relation, enabled }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // SAFETY: as in `begin`; the descriptor may be another one meanwhile, made anew from the catalog.
        for trigger in unsafe { of_relation(self.relation) } {
            let before = self.enabled.iter().find(|(oid, _)| *oid == trigger.tgoid);
            trigger.tgenabled = before.map_or(trigger.tgenabled, |(_, enabled)| *enabled);
        }
    }
}

/// In which format rows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFormat {
    /// COPY's own.
    Text,
    /// `FORMAT binary`.
    Binary,
}

/// Whether rows that arrive are checked against foreign keys of their table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignKeys {
    /// They may be any.
    Checked,
    /// Who sends them has checked them.
    Known,
}

/// Copies rows into a local table through PostgreSQL's own COPY; returns how many.
pub fn receive(
    table: Oid,
    columns: &[String],
    format: RowFormat,
    source: Box<dyn CopySource>,
    foreign_keys: ForeignKeys,
) -> Result<u64, PgError> {
    FEEDING
        .with(|feeding| *feeding.borrow_mut() = Some(Feeding { source, rest: Vec::new(), at: 0 }));
    // SAFETY: PostgreSQL's own functions in the order of DoCopy; the caller has checked rights.
    let rows = unsafe {
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as c_int);
        let parse = pg_sys::make_parsestate(std::ptr::null_mut());
        pg_sys::addRangeTableEntryForRelation(
            parse,
            relation,
            pg_sys::RowExclusiveLock as c_int,
            std::ptr::null_mut(),
            false,
            false,
        );
        let names: Vec<*mut pg_sys::Node> =
            columns.iter().map(|name| node::string_node(name)).collect();
        let mut options: Vec<*mut pg_sys::Node> = Vec::new();
        if format == RowFormat::Binary {
            let value = node::string_node("binary");
            options.push(pg_sys::makeDefElem(c"format".as_ptr().cast_mut(), value, -1).cast());
        }
        let state = pg_sys::BeginCopyFrom(
            parse,
            relation,
            std::ptr::null_mut(),
            std::ptr::null(),
            false,
            Some(feed),
            node::list_of(&names),
            node::list_of(&options),
        );
        let rows = {
            let _silent = Silent::begin(relation, foreign_keys);
            pg_sys::CopyFrom(state)
        };
        pg_sys::EndCopyFrom(state);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        rows
    };
    FEEDING.with(|feeding| *feeding.borrow_mut() = None);
    Ok(rows)
}

unsafe extern "C-unwind" fn feed(out: *mut c_void, least: c_int, most: c_int) -> c_int {
    // SAFETY: PostgreSQL gives a buffer of `most` bytes.
    unsafe {
        crate::sys::boundary::boundary(|| {
            FEEDING.with(|feeding| {
                let mut feeding = feeding.borrow_mut();
                let Some(feeding) = feeding.as_mut() else { return Ok(0) };
                let mut given = 0usize;
                while given < least.max(1) as usize {
                    if feeding.at == feeding.rest.len() {
                        feeding.rest = feeding.source.read()?;
                        feeding.at = 0;
                        if feeding.rest.is_empty() {
                            break;
                        }
                    }
                    let n = (feeding.rest.len() - feeding.at).min(most as usize - given);
                    std::ptr::copy_nonoverlapping(
                        feeding.rest.as_ptr().add(feeding.at),
                        out.cast::<u8>().add(given),
                        n,
                    );
                    feeding.at += n;
                    given += n;
                }
                Ok(given as c_int)
            })
        })
    }
}
