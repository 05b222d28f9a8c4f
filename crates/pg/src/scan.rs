//! Our scan node in PostgreSQL's executor: trampolines, and what a scan may ask of the executor.
//!
//! The extension implements [`Scan`]; a plan's private part says which. The scan lives in Rust memory that the
//! query's memory context owns: it is dropped when that context goes, which happens after an ERROR as well.

use crate::error::{PgError, boundary};
use crate::libpq::{Parameter, ResultSet};
use crate::node;
use crate::plan::PlanReader;
use crate::query::Key;
use crate::value::{Decoder, Encoder, Hasher, is_binary_safe};
use pgrx::pg_sys::{self, Datum, NodeTag, Oid};
use shardmap::KeyValue;
use std::cell::RefCell;
use std::ffi::{CString, c_int};
use std::rc::Rc;
use std::sync::OnceLock;

/// What the extension does in place of a table scan.
pub trait Scan {
    /// Puts the next row in the slot; false at the end.
    fn next(&mut self, io: &mut ScanIo) -> Result<bool, PgError>;
    /// Starts over. `changed` says that parameters of the plan may have other values now.
    fn rescan(&mut self, io: &mut ScanIo, changed: bool) -> Result<(), PgError>;
    /// The executor needs no more rows.
    fn end(&mut self, io: &mut ScanIo);
    /// Adds properties to EXPLAIN.
    fn explain(&mut self, io: &mut ScanIo, explain: &mut Explain) -> Result<(), PgError>;
}

/// Makes the scan of a plan.
pub type BeginScan = fn(PlanReader, &mut ScanIo, bool) -> Result<Box<dyn Scan>, PgError>;

static BEGIN: OnceLock<BeginScan> = OnceLock::new();

/// The node's name in EXPLAIN.
const NAME: &std::ffi::CStr = c"pg_shard";

struct Shared<T>(T);
// SAFETY: the tables below are constant and hold function pointers and a static name only.
unsafe impl<T> Sync for Shared<T> {}

static SCAN_METHODS: Shared<pg_sys::CustomScanMethods> = Shared(pg_sys::CustomScanMethods {
    CustomName: NAME.as_ptr(),
    CreateCustomScanState: Some(create_state),
});

static EXEC_METHODS: Shared<pg_sys::CustomExecMethods> = Shared(pg_sys::CustomExecMethods {
    CustomName: NAME.as_ptr(),
    BeginCustomScan: Some(begin),
    ExecCustomScan: Some(exec),
    EndCustomScan: Some(end),
    ReScanCustomScan: Some(rescan),
    MarkPosCustomScan: None,
    RestrPosCustomScan: None,
    EstimateDSMCustomScan: None,
    InitializeDSMCustomScan: None,
    ReInitializeDSMCustomScan: None,
    InitializeWorkerCustomScan: None,
    ShutdownCustomScan: None,
    ExplainCustomScan: Some(explain),
});

pub(crate) fn methods() -> *const pg_sys::CustomScanMethods {
    &raw const SCAN_METHODS.0
}

/// Registers the node; once, when the library is loaded.
pub(crate) fn register(begin: BeginScan) {
    if BEGIN.set(begin).is_ok() {
        // SAFETY: the table is static.
        unsafe { pg_sys::RegisterCustomScanMethods(methods()) };
    }
}

/// Our state, which starts with PostgreSQL's.
#[repr(C)]
struct State {
    custom: pg_sys::CustomScanState,
    running: *mut Running,
}

struct Running {
    io: ScanIo,
    scan: Box<dyn Scan>,
}

/// Where a column of the scan's row comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Column of the remote result.
    Remote(usize),
    /// The table's own OID, as `tableoid` shows it.
    TableOid(Oid),
    /// A row of the table, made of these columns of the remote result (in the table's order, live columns only).
    Row(Oid, Vec<usize>),
}

/// What a scan may ask of the executor.
pub struct ScanIo {
    node: *mut pg_sys::CustomScanState,
    expressions: Vec<Expression>,
    rows: Rc<RefCell<RowStore>>,
    kept_slot: *mut pg_sys::TupleTableSlot,
    buffered: Option<Buffered>,
}

/// All rows of the child plan, read before the first of them is used.
#[derive(Clone, Copy)]
struct Buffered {
    store: *mut pg_sys::Tuplestorestate,
    slot: *mut pg_sys::TupleTableSlot,
}

/// How remote rows become the scan's rows, and a place to keep them: in memory up to work_mem, then on disk.
///
/// Shared with whoever reads the session, so that rows can be kept when somebody else needs the session before
/// the scan has read them all. Lives no longer than the query.
pub struct RowStore {
    sources: Vec<Source>,
    decoders: Vec<Decoder>,
    /// The remote result comes in binary.
    pub binary_result: bool,
    query_context: pg_sys::MemoryContext,
    descriptor: pg_sys::TupleDesc,
    store: *mut pg_sys::Tuplestorestate,
    /// Rows kept, and how many of them have been taken. A tuplestore that has been read to its end does not
    /// show rows that are added later, so it is never read beyond what is known to be there.
    kept: u64,
    taken: u64,
}

struct Expression {
    node: *mut pg_sys::Node,
    state: *mut pg_sys::ExprState,
    type_oid: Oid,
    encoder: Option<Encoder>,
}

unsafe extern "C-unwind" fn create_state(_: *mut pg_sys::CustomScan) -> *mut pg_sys::Node {
    // SAFETY: State starts with a CustomScanState, which starts with a node tag.
    unsafe {
        boundary(|| {
            let state: *mut State = node::make(NodeTag::T_CustomScanState);
            (*state).custom.methods = &raw const EXEC_METHODS.0;
            Ok(state.cast())
        })
    }
}

unsafe extern "C-unwind" fn begin(
    custom: *mut pg_sys::CustomScanState,
    estate: *mut pg_sys::EState,
    flags: c_int,
) {
    // SAFETY: the executor calls us with the state that `create_state` made.
    unsafe {
        boundary(|| {
            let plan = (*custom).ss.ps.plan.cast::<pg_sys::CustomScan>();
            let before = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            for child in node::elements::<pg_sys::Plan>((*plan).custom_plans) {
                let child = pg_sys::ExecInitNode(child, estate, flags);
                (*custom).custom_ps = pg_sys::lappend((*custom).custom_ps, child.cast());
            }
            let expressions = node::elements::<pg_sys::Node>((*plan).custom_exprs)
                .into_iter()
                .map(|expression| Expression {
                    node: expression,
                    state: std::ptr::null_mut(),
                    type_oid: pg_sys::exprType(expression),
                    encoder: None,
                })
                .collect();
            let rows = RowStore {
                sources: Vec::new(),
                decoders: Vec::new(),
                binary_result: false,
                query_context: (*estate).es_query_cxt,
                descriptor: (*(*custom).ss.ss_ScanTupleSlot).tts_tupleDescriptor,
                store: std::ptr::null_mut(),
                kept: 0,
                taken: 0,
            };
            let mut io = ScanIo {
                node: custom,
                expressions,
                rows: Rc::new(RefCell::new(rows)),
                kept_slot: std::ptr::null_mut(),
                buffered: None,
            };
            let begin = BEGIN.get().ok_or_else(|| PgError::internal("no scan is registered"))?;
            let explain_only = flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as c_int != 0;
            let scan = begin(PlanReader::new((*plan).custom_private), &mut io, explain_only)?;
            let running = pgrx::PgMemoryContexts::For((*estate).es_query_cxt)
                .leak_and_drop_on_delete(Running { io, scan });
            (*custom.cast::<State>()).running = running;
            pg_sys::MemoryContextSwitchTo(before);
            Ok(())
        });
    }
}

unsafe extern "C-unwind" fn exec(
    custom: *mut pg_sys::CustomScanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the executor's own scan loop over our two callbacks; this frame holds nothing to drop, so an
    // ERROR may pass over it.
    unsafe { raw::ExecScan(&raw mut (*custom).ss, Some(access), Some(recheck)) }
}

mod raw {
    //! Called without pgrx' guard: the frames between are plain.
    use pgrx::pg_sys;
    unsafe extern "C-unwind" {
        pub(super) fn ExecScan(
            node: *mut pg_sys::ScanState,
            access: pg_sys::ExecScanAccessMtd,
            recheck: pg_sys::ExecScanRecheckMtd,
        ) -> *mut pg_sys::TupleTableSlot;
        pub(super) fn pq_buffer_has_data() -> bool;
        pub(super) fn pq_peekbyte() -> std::ffi::c_int;
    }
}

unsafe extern "C-unwind" fn access(node: *mut pg_sys::ScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: our own state; `begin` has filled it.
    unsafe {
        boundary(|| {
            let running = &mut *(*node.cast::<State>()).running;
            let slot = (*node).ss_ScanTupleSlot;
            running.io.clear_slot(slot);
            running.scan.next(&mut running.io)?;
            Ok(slot)
        })
    }
}

unsafe extern "C-unwind" fn recheck(
    _: *mut pg_sys::ScanState,
    _: *mut pg_sys::TupleTableSlot,
) -> bool {
    true
}

unsafe extern "C-unwind" fn end(custom: *mut pg_sys::CustomScanState) {
    // SAFETY: our own state.
    unsafe {
        boundary(|| {
            let running = (*custom.cast::<State>()).running;
            if !running.is_null() {
                let running = &mut *running;
                running.scan.end(&mut running.io);
                running.io.rows.borrow_mut().close();
                if let Some(Buffered { store, .. }) = running.io.buffered.take() {
                    pg_sys::tuplestore_end(store);
                }
            }
            for child in node::elements::<pg_sys::PlanState>((*custom).custom_ps) {
                pg_sys::ExecEndNode(child);
            }
            Ok(())
        });
    }
}

unsafe extern "C-unwind" fn rescan(custom: *mut pg_sys::CustomScanState) {
    // SAFETY: our own state.
    unsafe {
        boundary(|| {
            let running = &mut *(*custom.cast::<State>()).running;
            let changed = !(*custom).ss.ps.chgParam.is_null();
            pg_sys::ExecScanReScan(&raw mut (*custom).ss);
            running.scan.rescan(&mut running.io, changed)
        });
    }
}

unsafe extern "C-unwind" fn explain(
    custom: *mut pg_sys::CustomScanState,
    _ancestors: *mut pg_sys::List,
    explain: *mut pg_sys::ExplainState,
) {
    // SAFETY: our own state, and EXPLAIN's.
    unsafe {
        boundary(|| {
            let running = &mut *(*custom.cast::<State>()).running;
            running.scan.explain(&mut running.io, &mut Explain(explain))
        });
    }
}

impl ScanIo {
    /// Where remote rows are decoded and kept.
    pub fn rows(&self) -> Rc<RefCell<RowStore>> {
        Rc::clone(&self.rows)
    }

    /// Says what the remote result's columns are and how the scan's row is made of them.
    ///
    /// `remote` are the types and typmods of the remote columns.
    pub fn set_sources(&mut self, remote: &[(Oid, i32)], sources: Vec<Source>) {
        let binary = remote.iter().all(|(type_oid, _)| is_binary_safe(*type_oid));
        let mut rows = self.rows.borrow_mut();
        rows.binary_result = binary;
        rows.decoders = remote
            .iter()
            .map(|(type_oid, typmod)| Decoder::new(*type_oid, *typmod, binary))
            .collect();
        rows.sources = sources;
    }

    /// The remote result's columns are the scan's row, one to one.
    pub fn set_plain_sources(&mut self) {
        // SAFETY: the slot has its descriptor since the node was initialised.
        let remote: Vec<(Oid, i32)> = unsafe {
            let descriptor = (*(*self.node).ss.ss_ScanTupleSlot).tts_tupleDescriptor;
            (0..(*descriptor).natts as usize)
                .map(|index| {
                    let attribute = (*descriptor).attrs.as_ptr().add(index);
                    ((*attribute).atttypid, (*attribute).atttypmod)
                })
                .collect()
        };
        self.set_sources(&remote, (0..remote.len()).map(Source::Remote).collect());
    }

    /// How many expressions the plan has.
    pub fn expression_count(&self) -> usize {
        self.expressions.len()
    }

    /// The type that a parameter is declared as to a worker; 0 leaves it to the worker.
    pub fn parameter_type(&self, index: usize) -> u32 {
        let oid = self.expressions[index].type_oid.to_u32();
        if oid < crate::value::FIRST_USER_OID { oid } else { 0 }
    }

    /// All values needed can be computed: false for EXPLAIN of a generic plan, which has no parameters.
    pub fn has_parameters(&self) -> bool {
        // SAFETY: the executor's state is live; only tags are read.
        unsafe {
            let list = (*(*self.node).ss.ps.state).es_param_list_info;
            !list.is_null()
                || self.expressions.iter().all(|expression| {
                    !node::walk(expression.node, &mut |n| match node::tag(n) {
                        NodeTag::T_Param => node::Visit::Stop,
                        _ => node::Visit::Into,
                    })
                })
        }
    }

    /// The value of an expression, in the per-row memory context.
    fn evaluate(&mut self, index: usize) -> Option<Datum> {
        // SAFETY: the expression belongs to the plan, its state to the query's context; ExecInitExpr and the
        // evaluation are PostgreSQL's own, through the guard.
        unsafe {
            let node = self.node;
            let expression = &mut self.expressions[index];
            if expression.state.is_null() {
                let estate = (*node).ss.ps.state;
                let before = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
                expression.state =
                    pg_sys::ExecInitExpr(expression.node.cast(), &raw mut (*node).ss.ps);
                pg_sys::MemoryContextSwitchTo(before);
            }
            let context = (*node).ss.ps.ps_ExprContext;
            let before = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
            let state = expression.state;
            let mut is_null = false;
            let value = pg_sys::ffi::pg_guard_ffi_boundary(|| {
                ((*state).evalfunc.unwrap_unchecked())(state, context, &raw mut is_null)
            });
            pg_sys::MemoryContextSwitchTo(before);
            (!is_null).then_some(value)
        }
    }

    /// The value of an expression as a statement's parameter.
    pub fn parameter(&mut self, index: usize) -> Parameter {
        let value = self.evaluate(index);
        self.in_tuple_context(|io| {
            let type_oid = io.expressions[index].type_oid;
            // Look-ups live as long as the query.
            // SAFETY: switches between live contexts; the datum is of the expression's type.
            unsafe {
                if io.expressions[index].encoder.is_none() {
                    let estate = (*io.node).ss.ps.state;
                    let before = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
                    io.expressions[index].encoder = Some(Encoder::new(type_oid));
                    pg_sys::MemoryContextSwitchTo(before);
                }
                match &mut io.expressions[index].encoder {
                    Some(encoder) => encoder.parameter(value),
                    None => Parameter { bytes: None, binary: false },
                }
            }
        })
    }

    /// The hashes of a key.
    pub fn key_value(&mut self, key: &Key, hasher: &mut Hasher) -> KeyValue {
        let Some(value) = self.evaluate(key.expression) else { return KeyValue::Null };
        self.in_tuple_context(|io| {
            // SAFETY: the datum is of the key's type, or an array of it; `Key` was made for this expression.
            unsafe {
                if !key.is_array {
                    return KeyValue::Hashes(vec![hasher.hash(value)]);
                }
                let element =
                    pg_sys::get_base_element_type(io.expressions[key.expression].type_oid);
                let (mut length, mut by_value, mut align) = (0i16, false, 0);
                pg_sys::get_typlenbyvalalign(
                    element,
                    &raw mut length,
                    &raw mut by_value,
                    &raw mut align,
                );
                let array =
                    pg_sys::pg_detoast_datum(value.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
                let (mut values, mut nulls, mut n) =
                    (std::ptr::null_mut(), std::ptr::null_mut(), 0);
                pg_sys::deconstruct_array(
                    array,
                    element,
                    length.into(),
                    by_value,
                    align,
                    &raw mut values,
                    &raw mut nulls,
                    &raw mut n,
                );
                let hashes = (0..n as usize)
                    .filter(|i| !*nulls.add(*i))
                    .map(|i| hasher.hash(*values.add(i)));
                KeyValue::Hashes(hashes.collect())
            }
        })
    }

    fn in_tuple_context<T>(&mut self, body: impl FnOnce(&mut Self) -> T) -> T {
        // SAFETY: the node's own per-row context; an ERROR puts PostgreSQL's context back itself.
        unsafe {
            let context = (*(*self.node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory;
            let before = pg_sys::MemoryContextSwitchTo(context);
            let value = body(self);
            pg_sys::MemoryContextSwitchTo(before);
            value
        }
    }

    fn clear_slot(&mut self, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: the node's own slot.
        unsafe { pg_sys::ExecClearTuple(slot) };
    }

    /// Puts a remote row in the slot; it stays until the next.
    pub fn emit(&mut self, result: &ResultSet, row: usize) -> Result<(), PgError> {
        self.in_tuple_context(|io| {
            // SAFETY: the node's own slot, cleared before; its arrays are as long as its descriptor.
            unsafe {
                let slot = (*io.node).ss.ss_ScanTupleSlot;
                io.rows.borrow_mut().decode((*slot).tts_values, (*slot).tts_isnull, result, row)?;
                pg_sys::ExecStoreVirtualTuple(slot);
            }
            Ok(())
        })
    }

    /// Puts the next kept row in the slot; false when there is none (yet).
    pub fn emit_kept(&mut self) -> bool {
        let mut rows = self.rows.borrow_mut();
        if rows.taken >= rows.kept {
            return false;
        }
        rows.taken += 1;
        // SAFETY: the store and the slots are live; the values copied point into the stored row, which stays
        // until the next fetch.
        unsafe {
            if self.kept_slot.is_null() {
                let estate = (*self.node).ss.ps.state;
                let before = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
                self.kept_slot = pg_sys::ExecInitExtraTupleSlot(
                    estate,
                    rows.descriptor,
                    &raw const pg_sys::TTSOpsMinimalTuple,
                );
                pg_sys::MemoryContextSwitchTo(before);
            }
            if !pg_sys::tuplestore_gettupleslot(rows.store, true, false, self.kept_slot) {
                return false;
            }
            pg_sys::slot_getallattrs(self.kept_slot);
            let slot = (*self.node).ss.ss_ScanTupleSlot;
            let natts = (*(*slot).tts_tupleDescriptor).natts as usize;
            std::ptr::copy_nonoverlapping((*self.kept_slot).tts_values, (*slot).tts_values, natts);
            std::ptr::copy_nonoverlapping((*self.kept_slot).tts_isnull, (*slot).tts_isnull, natts);
            pg_sys::ExecStoreVirtualTuple(slot);
        }
        true
    }

    /// Adds to the number of rows that the statement reports.
    pub fn add_processed(&mut self, rows: u64) {
        // SAFETY: the executor's state is live.
        unsafe { (*(*self.node).ss.ps.state).es_processed += rows };
    }

    /// The statement that this scan is all of runs by itself: outside a transaction block, a function, a
    /// pipeline with more to come. Then the worker may commit it at once.
    ///
    /// Known by looking: the client's unnamed portal holds exactly this plan, and in the extended protocol the
    /// client's next message, already here, is the Sync that ends the implicit transaction.
    pub fn is_whole_transaction(&self) -> bool {
        // SAFETY: reads the backend's globals and its input buffer without waiting (there is data to peek at).
        unsafe {
            if pg_sys::IsTransactionBlock()
                || pg_sys::GetCurrentTransactionNestLevel() != 1
                || pg_sys::MyXactFlags & pg_sys::XACT_FLAGS_PIPELINING as c_int != 0
                || pg_sys::ActivePortal.is_null()
            {
                return false;
            }
            let portal = &*pg_sys::ActivePortal;
            let statements = portal.stmts;
            if node::length(statements) != 1 || *portal.name != 0 {
                return false;
            }
            let statement: *mut pg_sys::PlannedStmt = node::nth(statements, 0);
            if node::tag(statement) != NodeTag::T_PlannedStmt
                || (*statement).planTree != (*self.node).ss.ps.plan
            {
                return false;
            }
            portal.cplan.is_null()
                || (raw::pq_buffer_has_data() && raw::pq_peekbyte() == c_int::from(b'S'))
        }
    }

    /// Reads the child plan to its end now, into memory up to work_mem and then to disk; [`Self::child_row`]
    /// gives its rows afterwards.
    pub fn buffer_child(&mut self) {
        // SAFETY: the child was initialised by `begin`; store and slot live in the query's context.
        unsafe {
            let child: *mut pg_sys::PlanState = node::nth((*self.node).custom_ps, 0);
            let estate = (*self.node).ss.ps.state;
            let before = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            let store = pg_sys::tuplestore_begin_heap(false, false, pg_sys::work_mem);
            let slot = pg_sys::ExecInitExtraTupleSlot(
                estate,
                (*child).ps_ResultTupleDesc,
                &raw const pg_sys::TTSOpsMinimalTuple,
            );
            pg_sys::MemoryContextSwitchTo(before);
            loop {
                let row = pg_sys::ExecProcNode(child);
                if row.is_null() || (*row).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 != 0 {
                    break;
                }
                pg_sys::tuplestore_puttupleslot(store, row);
            }
            self.buffered = Some(Buffered { store, slot });
        }
    }

    /// The next row of the child plan: its values as texts that COPY and the extension understand.
    pub fn child_row(&mut self) -> Option<ChildRow> {
        if let Some(Buffered { store, slot }) = self.buffered {
            // SAFETY: made by `buffer_child`, ended with the query's context.
            unsafe {
                if !pg_sys::tuplestore_gettupleslot(store, true, false, slot) {
                    return None;
                }
                pg_sys::slot_getallattrs(slot);
            }
            return Some(ChildRow { slot });
        }
        // SAFETY: the child was initialised by `begin`; its slot's values stay until the next call.
        unsafe {
            let child: *mut pg_sys::PlanState = node::nth((*self.node).custom_ps, 0);
            let slot = pg_sys::ExecProcNode(child);
            if slot.is_null() || (*slot).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 != 0 {
                return None;
            }
            pg_sys::slot_getallattrs(slot);
            Some(ChildRow { slot })
        }
    }

    /// Encoders for the child's columns.
    pub fn child_encoders(&mut self) -> Vec<Encoder> {
        self.encoders_of_child(Encoder::new)
    }

    /// Encoders of the child's columns as COPY's text format wants them.
    pub fn child_text_encoders(&mut self) -> Vec<Encoder> {
        self.encoders_of_child(Encoder::text)
    }

    fn encoders_of_child(&mut self, make: fn(Oid) -> Encoder) -> Vec<Encoder> {
        // SAFETY: the child was initialised by `begin`; the encoders live in the query's context.
        unsafe {
            let child: *mut pg_sys::PlanState = node::nth((*self.node).custom_ps, 0);
            let descriptor = (*child).ps_ResultTupleDesc;
            let before = pg_sys::MemoryContextSwitchTo((*(*self.node).ss.ps.state).es_query_cxt);
            let encoders = (0..(*descriptor).natts as usize)
                .map(|index| make((*(*descriptor).attrs.as_ptr().add(index)).atttypid))
                .collect();
            pg_sys::MemoryContextSwitchTo(before);
            encoders
        }
    }

    /// Runs `body` in memory that is freed afterwards.
    pub fn with_row_memory<T>(&mut self, body: impl FnOnce(&mut Self) -> T) -> T {
        let value = self.in_tuple_context(body);
        // SAFETY: the node's own per-row context, in which nothing is in use now.
        unsafe {
            pg_sys::MemoryContextReset((*(*self.node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory);
        }
        value
    }
}

impl RowStore {
    /// Decodes a remote row into arrays of the descriptor's length, in the current memory context.
    unsafe fn decode(
        &mut self,
        values: *mut Datum,
        nulls: *mut bool,
        result: &ResultSet,
        row: usize,
    ) -> Result<(), PgError> {
        if result.columns() < self.decoders.len() {
            return Err(PgError::internal(format!(
                "a node returned {} columns where {} were asked for",
                result.columns(),
                self.decoders.len()
            )));
        }
        // SAFETY: the caller vouches for the arrays; libpq ends every value with a zero byte.
        unsafe {
            for (index, source) in self.sources.iter().enumerate() {
                let value = match source {
                    Source::Remote(column) => {
                        result.value(row, *column).map(|bytes| self.decoders[*column].datum(bytes))
                    }
                    Source::TableOid(table) => Some(Datum::from(*table)),
                    Source::Row(table, columns) => {
                        Some(make_row(*table, columns, &mut self.decoders, result, row))
                    }
                };
                *nulls.add(index) = value.is_none();
                *values.add(index) = value.unwrap_or(Datum::from(0));
            }
        }
        Ok(())
    }

    /// Keeps all rows of a result.
    pub fn keep(&mut self, result: &ResultSet) -> Result<(), PgError> {
        self.open();
        // SAFETY: live contexts; the store copies the values, which live in a context of their own.
        unsafe {
            let context = pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurrentMemoryContext,
                c"pg_shard row".as_ptr(),
                0,
                1024,
                8 * 1024 * 1024,
            );
            let before = pg_sys::MemoryContextSwitchTo(context);
            let natts = (*self.descriptor).natts as usize;
            let mut values = vec![Datum::from(0); natts];
            let mut nulls = vec![true; natts];
            let mut outcome = Ok(());
            for row in 0..result.rows() {
                outcome = self.decode(values.as_mut_ptr(), nulls.as_mut_ptr(), result, row);
                if outcome.is_err() {
                    break;
                }
                pg_sys::MemoryContextSwitchTo(self.query_context);
                pg_sys::tuplestore_putvalues(
                    self.store,
                    self.descriptor,
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                );
                self.kept += 1;
                pg_sys::MemoryContextSwitchTo(context);
            }
            pg_sys::MemoryContextSwitchTo(before);
            pg_sys::MemoryContextDelete(context);
            outcome
        }
    }

    /// Makes the store ready; its files belong to the resource owner that is current.
    pub fn open(&mut self) {
        if !self.store.is_null() {
            return;
        }
        // SAFETY: made in the query's context, which outlives us.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.query_context);
            self.store = pg_sys::tuplestore_begin_heap(true, false, pg_sys::work_mem);
            pg_sys::MemoryContextSwitchTo(before);
        }
    }

    /// Reads the kept rows from the first one again.
    pub fn rewind(&mut self) {
        self.taken = 0;
        if !self.store.is_null() {
            // SAFETY: a live store made for random access.
            unsafe { pg_sys::tuplestore_rescan(self.store) };
        }
    }

    /// Forgets the kept rows.
    pub fn clear(&mut self) {
        (self.kept, self.taken) = (0, 0);
        if !self.store.is_null() {
            // SAFETY: a live store.
            unsafe { pg_sys::tuplestore_clear(self.store) };
        }
    }

    fn close(&mut self) {
        if !self.store.is_null() {
            // SAFETY: a live store, ended once.
            unsafe { pg_sys::tuplestore_end(self.store) };
            self.store = std::ptr::null_mut();
        }
    }
}

/// A row of the child plan.
pub struct ChildRow {
    slot: *mut pg_sys::TupleTableSlot,
}

impl ChildRow {
    /// How many columns it has.
    pub fn columns(&self) -> usize {
        // SAFETY: the slot is live until the next row.
        unsafe { (*(*self.slot).tts_tupleDescriptor).natts as usize }
    }

    fn datum(&self, column: usize) -> Option<Datum> {
        // SAFETY: the slot is live and deformed; the caller's column is below `columns`.
        unsafe {
            (!*(*self.slot).tts_isnull.add(column)).then(|| *(*self.slot).tts_values.add(column))
        }
    }

    /// A value as a parameter.
    pub fn parameter(&self, column: usize, encoder: &mut Encoder) -> Parameter {
        // SAFETY: the encoder was made for this column of the child.
        unsafe { encoder.parameter(self.datum(column)) }
    }

    /// The hash of a value; none for NULL.
    pub fn hash(&self, column: usize, hasher: &mut Hasher) -> Option<i32> {
        // SAFETY: the child's column has the distribution column's type, for which the hasher was found.
        self.datum(column).map(|value| unsafe { hasher.hash(value) })
    }
}

unsafe fn make_row(
    table: Oid,
    columns: &[usize],
    decoders: &mut [Decoder],
    result: &ResultSet,
    row: usize,
) -> Datum {
    // SAFETY: the table is locked by the plan that runs; `columns` are its live columns in order.
    unsafe {
        let relation = pg_sys::relation_open(table, pg_sys::NoLock as c_int);
        let descriptor = (*relation).rd_att;
        let natts = (*descriptor).natts as usize;
        let mut values = vec![Datum::from(0); natts];
        let mut nulls = vec![true; natts];
        let mut live = columns.iter();
        for index in 0..natts {
            if (*(*descriptor).attrs.as_ptr().add(index)).attisdropped {
                continue;
            }
            let Some(column) = live.next() else { break };
            if let Some(bytes) = result.value(row, *column) {
                values[index] = decoders[*column].datum(bytes);
                nulls[index] = false;
            }
        }
        let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::relation_close(relation, pg_sys::NoLock as c_int);
        pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
    }
}

/// EXPLAIN's output.
pub struct Explain(*mut pg_sys::ExplainState);

impl Explain {
    /// Adds a property with a text.
    pub fn text(&mut self, label: &str, value: &str) {
        let (Ok(label), Ok(value)) = (CString::new(label), CString::new(value)) else { return };
        // SAFETY: EXPLAIN's live state; the texts are copied.
        unsafe { pg_sys::ExplainPropertyText(label.as_ptr(), value.as_ptr(), self.0) };
    }

    /// EXPLAIN (VERBOSE).
    pub fn is_verbose(&self) -> bool {
        // SAFETY: EXPLAIN's live state.
        unsafe { (*self.0).verbose }
    }

    /// EXPLAIN (ANALYZE).
    pub fn is_analyze(&self) -> bool {
        // SAFETY: EXPLAIN's live state.
        unsafe { (*self.0).analyze }
    }
}

const _: () = assert!(std::mem::offset_of!(State, custom) == 0);
