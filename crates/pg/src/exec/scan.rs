//! Our scan node in PostgreSQL's executor: trampolines, and what a scan may ask of the executor.
//!
//! The extension implements [`Scan`]; a plan's private part says which. The scan lives in Rust memory that the
//! query's memory context owns: it is dropped when that context goes, which happens after an ERROR as well.

use crate::exec::lookup::Lookup;
use crate::exec::rows::{self, Codecs, RowStore, Source};
use crate::path::base::Spread;
use crate::path::numbered::Numbered;
use crate::path::plan::PlanReader;
use crate::path::tid;
use crate::read::query::Key;
use crate::sys::custom::{self, Functions, Table};
use crate::sys::error::{PgError, SqlState, boundary};
use crate::sys::node;
use crate::sys::unguarded::copy_datum;
use crate::sys::value::{Encoder, Hasher};
use crate::sys::{unguarded, version};
use pgrx::pg_sys::{self, Datum, NodeTag, Oid};
use protocol::{Arguments, Elements, Row};
use shardmap::repartition::RepartitionedRows;
use shardmap::tid::TidLayout;
use shardmap::{KeyValue, Shard};
use std::cell::RefCell;
use std::ffi::{CString, c_int};
use std::rc::Rc;
use std::sync::OnceLock;

/// Puts the proof before where moved rows are that a node wants.
pub type Seal<'a> = &'a dyn Fn(&str) -> String;

/// What the extension does in place of a table scan.
pub trait Scan {
    /// Puts the next row in the slot; false at the end.
    fn next(&mut self, io: &mut ScanIo) -> Result<bool, PgError>;
    /// Starts over. `changed` says that parameters of the plan may have other values now.
    fn rescan(&mut self, io: &mut ScanIo, changed: bool) -> Result<(), PgError>;
    /// The executor needs no more rows.
    fn end(&mut self, io: &mut ScanIo);
    /// Splits the rows on the nodes that have them, into these parts, instead of yielding them.
    fn split(&mut self, _io: &mut ScanIo, _parts: &[Shard]) -> Result<RepartitionedRows, PgError> {
        Err(PgError::internal("rows that are not split were to be"))
    }
    /// Asks for the rows now, that of a cursor which is fetched from later, if it reads and knows what to ask for.
    fn ask_early(&mut self, _io: &mut ScanIo) -> Result<(), PgError> {
        Ok(())
    }

    /// What it asks for is known only when it is executed.
    fn asks_later(&self, _io: &ScanIo) -> bool {
        false
    }

    /// Adds properties to EXPLAIN.
    fn explain(&mut self, io: &mut ScanIo, explain: &mut Explain) -> Result<(), PgError>;
}

/// Makes the scan of a plan.
pub type BeginScan = fn(PlanReader, &mut ScanIo, bool) -> Result<Box<dyn Scan>, PgError>;

static BEGIN: OnceLock<BeginScan> = OnceLock::new();

/// The node's name in EXPLAIN.
const NAME: &std::ffi::CStr = c"pg_shard";

static SCAN_METHODS: Table<pg_sys::CustomScanMethods> = custom::scan_methods(NAME, create_state);

static EXEC_METHODS: Table<pg_sys::CustomExecMethods> =
    custom::exec_methods(NAME, &Functions { begin, exec, rescan, end, explain: Some(explain) });

pub(crate) fn methods() -> *const pg_sys::CustomScanMethods {
    SCAN_METHODS.pointer()
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

/// What a scan may ask of the executor.
pub struct ScanIo {
    node: *mut pg_sys::CustomScanState,
    expressions: Vec<Expression>,
    rows: Rc<RefCell<RowStore>>,
    kept_slot: *mut pg_sys::TupleTableSlot,
    buffered: Option<Buffered>,
    /// How many arguments are arrays of the children's columns.
    array_count: usize,
    /// The children's rows, once they have been read.
    arrays: Option<Rc<Vec<ChildRows>>>,
    /// The first child's rows are kept, and sent by number.
    pub(crate) numbered: Option<Numbered>,
    /// How kept rows are found by value.
    pub(crate) lookup: Lookup,
    /// How many of the children, the last, have rows that move.
    moves: usize,
    /// Where these are, once they have been split, and into which parts.
    moved: Option<(Vec<Shard>, Rc<Vec<RepartitionedRows>>)>,
}

/// More bytes than that are not sent along: a node takes a gigabyte in one message, and they are held in memory here.
const MOST_SENT: usize = 768 * 1024 * 1024;

pub(crate) fn too_much_to_send() -> PgError {
    PgError::new(SqlState(*b"54000"), "too many rows to send to the workers for a join")
        .detail("The planner expected far less of the smaller side of the join.")
        .hint(
            "ANALYZE the tables, or SET pg_shard.enable_pushdown = off to join on the coordinator.",
        )
}

/// The rows of a child that are sent along.
struct ChildRows {
    types: Vec<u32>,
    batches: Vec<CopyBatch>,
}

/// Those that can match in one shard, or (none) anywhere, column by column.
struct CopyBatch {
    shard: Option<usize>,
    columns: Vec<Elements>,
}

/// All rows of the child plan, read before the first of them is used.
#[derive(Clone, Copy)]
struct Buffered {
    store: *mut pg_sys::Tuplestorestate,
    slot: *mut pg_sys::TupleTableSlot,
}

struct Expression {
    node: *mut pg_sys::Node,
    state: *mut pg_sys::ExprState,
    type_oid: Oid,
    /// It may have another value each time that it is computed.
    is_volatile: bool,
    /// The value of a volatile expression, once it has been computed: what decides the shard is what is stored.
    computed: Option<Option<Datum>>,
}

unsafe extern "C-unwind" fn create_state(_: *mut pg_sys::CustomScan) -> *mut pg_sys::Node {
    // SAFETY: State starts with a CustomScanState, which starts with a node tag.
    unsafe {
        boundary(|| {
            let state: *mut State = node::make(NodeTag::T_CustomScanState);
            (*state).custom.methods = EXEC_METHODS.pointer();
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
                    is_volatile: is_volatile(expression),
                    computed: None,
                })
                .collect();
            let rows = RowStore::new(
                (*estate).es_query_cxt,
                (*(*custom).ss.ss_ScanTupleSlot).tts_tupleDescriptor,
            );
            let mut io = ScanIo {
                node: custom,
                expressions,
                rows: Rc::new(RefCell::new(rows)),
                kept_slot: std::ptr::null_mut(),
                buffered: None,
                array_count: 0,
                arrays: None,
                numbered: None,
                lookup: Lookup::default(),
                moves: 0,
                moved: None,
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
        /// Plain frames: the node's function holds nothing to drop.
        pub(super) fn ExecScan(
            node: *mut pg_sys::ScanState,
            access: pg_sys::ExecScanAccessMtd,
            recheck: pg_sys::ExecScanRecheckMtd,
        ) -> *mut pg_sys::TupleTableSlot;
        /// Raises nothing: asked only if the buffer has data, it reads no more.
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

/// The node, if it is a scan of ours.
///
/// # Safety
///
/// A live node of the executor.
pub(crate) unsafe fn of_ours(
    state: *mut pg_sys::PlanState,
) -> Option<*mut pg_sys::CustomScanState> {
    // SAFETY: the caller vouches for the node.
    unsafe {
        node::cast::<pg_sys::CustomScanState, _>(state, NodeTag::T_CustomScanState)
            .filter(|custom| (**custom).methods == EXEC_METHODS.pointer())
    }
}

/// The scan asks for other rows each time that it is executed; see [`crate::exec::early`].
///
/// # Safety
///
/// A scan of ours that `begin` has filled.
pub(crate) unsafe fn asks_later(custom: *mut pg_sys::CustomScanState) -> bool {
    // SAFETY: the caller vouches for the node.
    unsafe {
        let running = &*(*custom.cast::<State>()).running;
        running.scan.asks_later(&running.io)
    }
}

/// Has the scan ask for its rows; see [`crate::exec::early`].
///
/// # Safety
///
/// A scan of ours that `begin` has filled.
pub(crate) unsafe fn ask_early(custom: *mut pg_sys::CustomScanState) -> Result<(), PgError> {
    // SAFETY: the caller vouches for the node.
    unsafe {
        let running = &mut *(*custom.cast::<State>()).running;
        running.scan.ask_early(&mut running.io)
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
                running.io.lookup.close();
                if let Some(Buffered { store, .. }) = running.io.buffered.take() {
                    pg_sys::tuplestore_end(store);
                }
                if let Some(numbered) = &mut running.io.numbered {
                    numbered.rows.close();
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
            for expression in running.io.expressions.iter_mut().filter(|_| changed) {
                expression.computed = None;
            }
            // Rows that are sent along or move are those that they were, if nothing has changed for them.
            let children = node::elements::<pg_sys::PlanState>((*custom).custom_ps);
            let mut is_affected = false;
            for child in children.iter().filter(|_| changed && running.io.sends_rows()) {
                pg_sys::UpdateChangedParamSet(*child, (*custom).ss.ps.chgParam);
                is_affected |= !(**child).chgParam.is_null();
            }
            if is_affected {
                running.io.arrays = None;
                running.io.moved = None;
                children.into_iter().for_each(|child| pg_sys::ExecReScan(child));
            }
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

/// The next row of a plan below, with all its columns; none at the end. Serves interrupts: the plan may yield row after row
/// without looking for them, and so may we go on from row to row.
///
/// # Safety
///
/// `child` is a live node of the executor's.
pub(crate) unsafe fn next_row(
    child: *mut pg_sys::PlanState,
) -> Option<*mut pg_sys::TupleTableSlot> {
    pgrx::check_for_interrupts!();
    // SAFETY: the caller vouches for the node; the slot that it returns is its own.
    unsafe {
        let slot = pg_sys::ExecProcNode(child);
        if slot.is_null() || (*slot).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 != 0 {
            return None;
        }
        pg_sys::slot_getallattrs(slot);
        Some(slot)
    }
}

impl ScanIo {
    pub(crate) fn node(&self) -> *mut pg_sys::CustomScanState {
        self.node
    }

    pub(crate) fn slot(&self) -> *mut pg_sys::TupleTableSlot {
        // SAFETY: the node's state is live.
        unsafe { (*self.node).ss.ss_ScanTupleSlot }
    }

    pub(crate) fn query_memory(&self) -> pg_sys::MemoryContext {
        // SAFETY: the executor's state is live.
        unsafe { (*(*self.node).ss.ps.state).es_query_cxt }
    }

    /// The statement's snapshot, by its place: the same for the queries of STABLE functions that the statement calls, and for
    /// no other as long as one of them runs.
    pub fn snapshot_place(&self) -> usize {
        // SAFETY: the executor's state is live.
        unsafe { (*(*self.node).ss.ps.state).es_snapshot.addr() }
    }

    /// The statement may ask the nodes for rows more than once, and changes nothing there.
    pub fn may_read_again(&self) -> bool {
        // SAFETY: the executor's state is live, and so is the statement that it executes.
        unsafe { crate::read::repeated::may_read_again((*(*self.node).ss.ps.state).es_plannedstmt) }
    }

    /// Where remote rows are decoded and kept.
    pub fn rows(&self) -> Rc<RefCell<RowStore>> {
        Rc::clone(&self.rows)
    }

    /// Uses look-ups that the plan's executions share.
    pub fn set_codecs(&mut self, codecs: Rc<Codecs>) {
        self.rows.borrow_mut().codecs = Some(codecs);
    }

    /// The look-ups of this scan.
    pub fn codecs(&self) -> Rc<Codecs> {
        let codecs = self.rows.borrow().codecs.clone();
        codecs.unwrap_or_else(|| unreachable!("a scan gets its codecs when it begins"))
    }

    /// Codecs of a remote result with these columns (types and typmods), of which the scan's row is made as
    /// `sources` say; the first `sent` expressions are arguments.
    pub fn make_codecs(&self, remote: &[(Oid, i32)], sources: Vec<Source>, sent: usize) -> Codecs {
        let mut arguments = Vec::with_capacity(self.array_count + self.moves + sent);
        if self.array_count > 0 {
            for element in self.array_elements().into_iter().flatten() {
                // SAFETY: a syscache look-up by value.
                arguments.push(unsafe { pg_sys::get_array_type(element) });
            }
        }
        arguments.extend(std::iter::repeat_n(pg_sys::TEXTOID, self.moves));
        arguments.extend(self.expressions.iter().take(sent).map(|expression| expression.type_oid));
        Codecs::new(remote, sources, &arguments)
    }

    /// The rows of so many children, the last, move.
    pub fn set_moves(&mut self, moves: usize) {
        self.moves = moves;
    }

    /// Has the rows of these children split into parts, if that has not been done.
    pub fn move_rows(&mut self, parts: &[Shard]) -> Result<(), PgError> {
        let is_done = self.moved.as_ref().is_some_and(|(known, _)| known == parts);
        if self.moves == 0 || is_done {
            return Ok(());
        }
        self.moved = None;
        let mut moved = Vec::new();
        // SAFETY: the children were initialised by `begin`; each is a scan of ours with a state of its own, since
        // `moved.rs` makes no other paths for them.
        unsafe {
            let children = node::elements::<pg_sys::PlanState>((*self.node).custom_ps);
            for child in &children[children.len() - self.moves..] {
                let custom =
                    node::cast::<pg_sys::CustomScanState, _>(*child, NodeTag::T_CustomScanState)
                        .filter(|custom| (**custom).methods == EXEC_METHODS.pointer())
                        .ok_or_else(|| {
                            PgError::internal("rows that move come from another plan")
                        })?;
                let child = *child;
                if !(*child).chgParam.is_null() {
                    pg_sys::ExecReScan(child);
                }
                if !(*child).instrument.is_null() {
                    pg_sys::InstrStartNode((*child).instrument);
                }
                let running = &mut *(*custom.cast::<State>()).running;
                let rows = running.scan.split(&mut running.io, parts)?;
                if !(*child).instrument.is_null() {
                    pg_sys::InstrStopNode((*child).instrument, rows.rows() as f64);
                }
                moved.push(rows);
            }
        }
        self.moved = Some((parts.to_vec(), Rc::new(moved)));
        Ok(())
    }

    /// What the nodes are told of rows that have moved, as far as these parts are concerned.
    fn append_moved(&self, shards: &[usize], seal: Seal<'_>, arguments: &mut Arguments) {
        for number in 0..self.moves {
            let moved = self.moved.as_ref().and_then(|(_, moved)| moved.get(number));
            // Without any a node can plan, and finds no rows.
            let text = moved.map_or_else(String::new, |moved| moved.of_parts(shards).to_text());
            let text = if text.is_empty() { text } else { seal(&text) };
            arguments.value(text.as_bytes());
        }
    }

    /// The columns of the children's rows are arguments too, as arrays, before the others.
    pub fn send_children_as_arrays(&mut self) {
        self.array_count = self.array_elements().iter().map(Vec::len).sum();
    }

    /// What stands for the children's rows where nothing is executed.
    fn unread_arrays(&self) -> Option<Rc<Vec<ChildRows>>> {
        (self.array_count > 0).then(|| {
            let types = |elements: Vec<Oid>| elements.iter().map(|known| known.to_u32()).collect();
            let empty = |elements| ChildRows { types: types(elements), batches: Vec::new() };
            Rc::new(self.array_elements().into_iter().map(empty).collect())
        })
    }

    /// The children's rows are arguments, or have to move.
    pub fn sends_rows(&self) -> bool {
        self.array_count + self.moves > 0
    }

    /// Nothing of that has to be done any more.
    pub fn has_sent_rows(&self) -> bool {
        (self.array_count == 0 || self.arrays.is_some())
            && (self.moves == 0 || self.moved.is_some())
    }

    /// The types of each child's columns; a child without columns counts rows by numbers.
    fn array_elements(&self) -> Vec<Vec<Oid>> {
        // SAFETY: the children were initialised by `begin`.
        unsafe {
            let children = node::elements::<pg_sys::PlanState>((*self.node).custom_ps);
            children[..children.len() - self.moves]
                .iter()
                .enumerate()
                .map(|(number, child)| {
                    let descriptor = (**child).ps_ResultTupleDesc;
                    if let Some(numbered) = self.numbered.as_ref().filter(|_| number == 0) {
                        return numbered.types(descriptor);
                    }
                    let columns = (*descriptor).natts as usize;
                    if columns == 0 {
                        return vec![pg_sys::INT4OID];
                    }
                    (0..columns)
                        .map(|index| (*version::attribute(descriptor, index)).atttypid)
                        .collect()
                })
                .collect()
        }
    }

    /// Reads the children's rows, if they are to be sent and that has not been done. Where a child's rows are spread,
    /// `owner` says which shard a hash belongs to.
    pub fn read_arrays(
        &mut self,
        spread: &[Option<Spread>],
        owner: &dyn Fn(i32) -> Option<usize>,
    ) -> Result<(), PgError> {
        if self.array_count == 0 || self.arrays.is_some() {
            return Ok(());
        }
        let codecs = self.codecs();
        let elements = self.array_elements();
        let mut numbered = self.numbered.take();
        let mut read = Vec::new();
        let (mut first, mut bytes) = (0, 0);
        // SAFETY: the children were initialised by `begin`; each element's encoder is made for its column's type, each
        // hasher for the type that the planner has found.
        unsafe {
            let memory = (*(*self.node).ss.ps.state).es_query_cxt;
            let children = node::elements::<pg_sys::PlanState>((*self.node).custom_ps);
            for (number, (child, types)) in children.into_iter().zip(elements).enumerate() {
                let encoders: Vec<Encoder> = {
                    let before = pg_sys::MemoryContextSwitchTo(memory);
                    let made = types.iter().map(|element| Encoder::new(*element)).collect();
                    pg_sys::MemoryContextSwitchTo(before);
                    made
                };
                let spread = match spread.get(number).copied().flatten() {
                    None => None,
                    Some(by) => {
                        let hasher = codecs.hasher(by.family, by.type_oid, by.collation);
                        let hasher = hasher.ok_or_else(|| {
                            PgError::internal("a hash function is gone since the plan was made")
                        })?;
                        Some((by.column, hasher))
                    }
                };
                let mut kept = numbered.as_mut().filter(|_| number == 0);
                let mut batches: Vec<CopyBatch> = Vec::new();
                while let Some(slot) = next_row(child) {
                    let columns = (*(*slot).tts_tupleDescriptor).natts as usize;
                    let row = match &mut kept {
                        None => None,
                        Some(numbered) => {
                            let number = self.in_tuple_context(|_| numbered.keep(slot, &encoders));
                            let number = number?;
                            if number.is_none() {
                                self.reset_row_memory();
                                continue;
                            }
                            number
                        }
                    };
                    let value = |index: usize| {
                        let index = match (&kept, row) {
                            (Some(numbered), Some(row)) => match numbered.column(index) {
                                Some(column) => column,
                                None => return Some(Datum::from(row)),
                            },
                            _ if columns == 0 => return Some(Datum::from(0)),
                            _ => index,
                        };
                        (!*(*slot).tts_isnull.add(index)).then(|| *(*slot).tts_values.add(index))
                    };
                    self.in_tuple_context(|_| {
                        let shard = match &spread {
                            None => None,
                            Some((column, hasher)) => {
                                // A row that can match nowhere is not sent.
                                let hash = value(*column).map(|value| hasher.hash(value));
                                let Some(shard) = hash.and_then(owner) else { return };
                                Some(shard)
                            }
                        };
                        let known = batches.iter().position(|batch| batch.shard == shard);
                        let batch = known.unwrap_or_else(|| {
                            let columns = vec![Elements::default(); types.len()];
                            batches.push(CopyBatch { shard, columns });
                            batches.len() - 1
                        });
                        for (index, encoder) in encoders.iter().enumerate() {
                            let value = value(index);
                            let column = &mut batches[batch].columns[index];
                            let before = column.bytes();
                            encoder.append(value, column.next(value.is_none()));
                            bytes += column.bytes() - before;
                        }
                    });
                    self.reset_row_memory();
                    if bytes > MOST_SENT {
                        return Err(too_much_to_send());
                    }
                }
                let types = types.iter().map(|element| element.to_u32()).collect();
                read.push(ChildRows { types, batches });
                first += encoders.len();
            }
        }
        debug_assert_eq!(first, self.array_count);
        self.numbered = numbered;
        self.arrays = Some(Rc::new(read));
        Ok(())
    }

    /// Of the rows that have been read, this shard gets some of each child's that are needed.
    pub fn has_needed_rows(&self, needed: &[bool], shard: usize) -> bool {
        let concerns = |batch: &CopyBatch| batch.shard.is_none_or(|known| known == shard);
        self.arrays
            .iter()
            .flat_map(|children| children.iter())
            .zip(needed)
            .all(|(child, is_needed)| !is_needed || child.batches.iter().any(concerns))
    }

    /// Codecs of a remote result whose columns are the scan's row, one to one.
    pub fn make_plain_codecs(&self, sent: usize) -> Codecs {
        self.make_returned_codecs(sent, &[], TidLayout::for_shards(1))
    }

    /// The same where some of the columns are `ctid`s of rows of the shard that the statement is executed on.
    pub fn make_returned_codecs(&self, sent: usize, tids: &[usize], layout: TidLayout) -> Codecs {
        // SAFETY: the slot has its descriptor since the node was initialised.
        let remote: Vec<(Oid, i32)> = unsafe {
            let descriptor = (*(*self.node).ss.ss_ScanTupleSlot).tts_tupleDescriptor;
            (0..(*descriptor).natts as usize)
                .map(|index| {
                    let attribute = version::attribute(descriptor, index);
                    ((*attribute).atttypid, (*attribute).atttypmod)
                })
                .collect()
        };
        let source = |column: usize| match tids.contains(&column) {
            true => Source::ShardTid(column, layout),
            false => Source::Remote(column),
        };
        self.make_codecs(&remote, (0..remote.len()).map(source).collect(), sent)
    }

    /// All values needed can be computed: false for EXPLAIN of a generic plan, which has no parameters of the client, and if that
    /// would do something (a sequence's next value) that only executing may.
    pub fn has_parameters(&self) -> bool {
        // SAFETY: the executor's state is live; only tags are read.
        unsafe {
            let list = (*(*self.node).ss.ps.state).es_param_list_info;
            if self.expressions.iter().any(|known| known.is_volatile && known.computed.is_none()) {
                return false;
            }
            !list.is_null()
                || self.expressions.iter().all(|expression| {
                    !node::walk(expression.node, &mut |n| match node::cast::<pg_sys::Param, _>(
                        n,
                        NodeTag::T_Param,
                    ) {
                        Some(param) if (*param).paramkind == pg_sys::ParamKind::PARAM_EXTERN => {
                            node::Visit::Stop
                        }
                        _ => node::Visit::Into,
                    })
                })
        }
    }

    /// Values are those of sub-queries that have not been executed.
    pub fn awaits_subqueries(&self) -> bool {
        // SAFETY: the plan's expressions are live, each node is cast to the struct of its tag; the executor has a place for
        // each parameter of its own.
        unsafe {
            let values = (*(*self.node).ss.ps.state).es_param_exec_vals;
            let awaits = |param: *mut pg_sys::Param| {
                (*param).paramkind == pg_sys::ParamKind::PARAM_EXEC
                    && !(*values.add((*param).paramid as usize)).execPlan.is_null()
            };
            self.expressions.iter().any(|expression| {
                node::walk(expression.node, &mut |n| match node::cast::<pg_sys::Param, _>(
                    n,
                    NodeTag::T_Param,
                ) {
                    Some(param) if awaits(param) => node::Visit::Stop,
                    _ => node::Visit::Into,
                })
            })
        }
    }

    /// EXPLAIN ANALYZE, or something like it, will ask what was done.
    pub fn is_explained(&self) -> bool {
        // SAFETY: the executor's state is live.
        unsafe { (*(*self.node).ss.ps.state).es_instrument != 0 }
    }

    /// The value of an expression, in the per-row memory context.
    pub(crate) fn evaluate(&mut self, index: usize) -> Option<Datum> {
        // SAFETY: the expression belongs to the plan, its state to the query's context; ExecInitExpr and the
        // evaluation are PostgreSQL's own, through the guard.
        unsafe {
            let node = self.node;
            let expression = &mut self.expressions[index];
            if let Some(value) = known_value(expression.node, (*node).ss.ps.state) {
                return value;
            }
            if let Some(value) = expression.computed {
                return value;
            }
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
            let value = (!is_null).then_some(value);
            let value = if expression.is_volatile {
                // The row's memory is reset long before the query ends.
                pg_sys::MemoryContextSwitchTo((*(*node).ss.ps.state).es_query_cxt);
                let (mut length, mut by_value) = (0i16, false);
                pg_sys::get_typlenbyval(expression.type_oid, &raw mut length, &raw mut by_value);
                let kept = value.map(|value| copy_datum(value, by_value, length));
                expression.computed = Some(kept);
                kept
            } else {
                value
            };
            pg_sys::MemoryContextSwitchTo(before);
            value
        }
    }

    /// The values of the expressions that are sent, as a statement's arguments, each computed once; before them the
    /// children's rows that concern these shards.
    pub fn arguments(&mut self, shards: &[usize]) -> Arguments {
        self.sealed_arguments(shards, &|text| text.to_owned())
    }

    /// The same for a node that does not believe where moved rows are without a proof.
    pub fn sealed_arguments(&mut self, shards: &[usize], seal: Seal<'_>) -> Arguments {
        let codecs = self.codecs();
        self.arguments_for(shards, codecs.binary_columns(), seal)
    }

    /// The same for a statement whose result has other columns.
    pub fn arguments_for(
        &mut self,
        shards: &[usize],
        binary_columns: &[bool],
        seal: Seal<'_>,
    ) -> Arguments {
        let codecs = self.codecs();
        let mut arguments = Arguments::start(codecs.encoders().iter().map(Encoder::is_binary));
        if let Some(children) = self.arrays.clone().or_else(|| self.unread_arrays()) {
            for child in &*children {
                let concerns =
                    |batch: &&CopyBatch| batch.shard.is_none_or(|shard| shards.contains(&shard));
                for (column, element) in child.types.iter().enumerate() {
                    let parts: Vec<&Elements> = child
                        .batches
                        .iter()
                        .filter(concerns)
                        .map(|batch| &batch.columns[column])
                        .collect();
                    Elements::append_to(&parts, *element, &mut arguments);
                }
            }
        }
        self.append_moved(shards, seal, &mut arguments);
        let first = self.array_count + self.moves;
        for (index, encoder) in codecs.encoders().iter().skip(first).enumerate() {
            let value = self.evaluate(index);
            // SAFETY: the encoder was made for the expression's type.
            self.in_tuple_context(|_| unsafe { encoder.append(value, &mut arguments) });
        }
        arguments.finish(binary_columns);
        arguments
    }

    /// The same values as a person would write them: `$1 = '5', $2 = NULL`. Empty if there are none.
    pub fn describe_arguments(&mut self) -> String {
        if self.awaits_subqueries() {
            return String::new();
        }
        let codecs = self.codecs();
        let mut described = Vec::new();
        let arrays = self.array_count + self.moves;
        for index in 0..codecs.encoders().len() - arrays {
            let value = self.evaluate(index);
            let type_oid = self.expressions[index].type_oid;
            let text = self.in_tuple_context(|_| {
                // SAFETY: the value is of the expression's type; the look-up lives as long as the row's memory.
                value.map(|value| unsafe {
                    Encoder::text(type_oid)
                        .with_bytes(value, |text| String::from_utf8_lossy(text).into_owned())
                })
            });
            described.push(match text {
                Some(text) => format!("${} = '{}'", arrays + index + 1, text.replace('\'', "''")),
                None => format!("${} = NULL", arrays + index + 1),
            });
        }
        described.join(", ")
    }

    /// The same values apart, to stand behind the values of each of many rows.
    pub fn fixed_arguments(&mut self) -> FixedArguments {
        let codecs = self.codecs();
        let values = codecs
            .encoders()
            .iter()
            .enumerate()
            .map(|(index, encoder)| {
                let value = self.evaluate(index)?;
                // SAFETY: the encoder was made for the expression's type.
                Some(
                    self.in_tuple_context(|_| unsafe { encoder.with_bytes(value, <[u8]>::to_vec) }),
                )
            })
            .collect();
        FixedArguments { values, codecs }
    }

    /// The hash function of a key.
    pub fn hasher(&self, key: &Key) -> Option<Rc<Hasher>> {
        self.codecs().hasher(key.family, key.hash_type, key.collation)
    }

    /// The hashes of a key.
    pub fn key_value(&mut self, key: &Key, hasher: &Hasher) -> KeyValue {
        let Some(value) = self.evaluate(key.expression) else { return KeyValue::Null };
        self.in_tuple_context(|io| {
            // SAFETY: the datum is of the key's type, or an array of it; `Key` was made for this expression.
            unsafe {
                if !key.is_array {
                    return KeyValue::Hashes(vec![hasher.hash(value)]);
                }
                let values = array_elements(value, io.expressions[key.expression].type_oid);
                let hashes = values.into_iter().flatten().map(|value| hasher.hash(value));
                KeyValue::Hashes(hashes.collect())
            }
        })
    }

    /// The shards of the `ctid`s that a key yields, which is none of the distribution column.
    pub fn tid_shards(&mut self, key: &Key, layout: TidLayout) -> KeyValue {
        let Some(value) = self.evaluate(key.expression) else { return KeyValue::Null };
        self.in_tuple_context(|_| {
            // SAFETY: the datum is a tid, or an array of them; `Key` was made for this expression.
            unsafe {
                let shard = |tid: Datum| {
                    let tid = tid::read(*tid.cast_mut_ptr::<pg_sys::ItemPointerData>());
                    layout.decode(tid).0
                };
                if !key.is_array {
                    return KeyValue::Shards(vec![shard(value)]);
                }
                let values = array_elements(value, pg_sys::TIDARRAYOID);
                KeyValue::Shards(values.into_iter().flatten().map(shard).collect())
            }
        })
    }

    /// Some of the children's rows may match something.
    pub fn has_rows_to_send(&self) -> bool {
        let has_rows = |child: &ChildRows| !child.batches.is_empty();
        self.arrays.as_ref().is_some_and(|children| children.iter().all(has_rows))
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

    pub(crate) fn clear_slot(&mut self, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: the node's own slot, which is virtual (`CUSTOM_SCAN` nodes' slots are).
        unsafe { unguarded::clear(slot) };
    }

    /// Decoding a row may run users' code, which may run statements of its own: nobody may hold a session meanwhile.
    pub fn decoding_runs_code(&self) -> bool {
        self.rows.borrow().decoding_runs_code()
    }

    /// Puts a remote row in the slot; it stays until the next.
    pub fn emit(&mut self, row: Row<'_>) -> Result<(), PgError> {
        self.in_tuple_context(|io| {
            // SAFETY: the node's own slot, cleared before; its arrays are as long as its descriptor.
            unsafe {
                let slot = (*io.node).ss.ss_ScanTupleSlot;
                rows::decode(&io.rows, (*slot).tts_values, (*slot).tts_isnull, row)?;
                unguarded::store_virtual(slot);
            }
            Ok(())
        })
    }

    /// Puts the next kept row in the slot; false when there is none (yet).
    pub fn emit_kept(&mut self) -> Result<bool, PgError> {
        rows::settle(&self.rows)?;
        let mut rows = self.rows.borrow_mut();
        if rows.taken >= rows.kept {
            return Ok(false);
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
                return Ok(false);
            }
            pg_sys::slot_getallattrs(self.kept_slot);
            let slot = (*self.node).ss.ss_ScanTupleSlot;
            let natts = (*(*slot).tts_tupleDescriptor).natts as usize;
            std::ptr::copy_nonoverlapping((*self.kept_slot).tts_values, (*slot).tts_values, natts);
            std::ptr::copy_nonoverlapping((*self.kept_slot).tts_isnull, (*slot).tts_isnull, natts);
            unguarded::store_virtual(slot);
        }
        Ok(true)
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
            if unguarded::is_in_block()
                || unguarded::nest_level() != 1
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
                || (version::has_read_more() && raw::pq_peekbyte() == c_int::from(b'S'))
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
            while let Some(row) = next_row(child) {
                pg_sys::tuplestore_puttupleslot(store, row);
            }
            self.buffered = Some(Buffered { store, slot });
        }
    }

    /// The next row of the child plan: its values as texts that COPY and the extension understand.
    pub fn child_row(&mut self) -> Option<ChildRow> {
        if let Some(Buffered { store, slot }) = self.buffered {
            pgrx::check_for_interrupts!();
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
            next_row(child).map(|slot| ChildRow { slot })
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
                .map(|index| make((*version::attribute(descriptor, index)).atttypid))
                .collect();
            pg_sys::MemoryContextSwitchTo(before);
            encoders
        }
    }

    /// Runs `body` in memory that is freed afterwards.
    pub fn with_row_memory<T>(&mut self, body: impl FnOnce(&mut Self) -> T) -> T {
        let value = self.in_tuple_context(body);
        self.reset_row_memory();
        value
    }

    pub(crate) fn reset_row_memory(&mut self) {
        // SAFETY: the node's own per-row context, in which nothing is in use when rows are done with.
        unsafe {
            unguarded::reset((*(*self.node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory);
        }
    }
}

/// The elements of an array, or of a domain over one.
///
/// # Safety
///
/// A value of that type.
unsafe fn array_elements(value: Datum, type_oid: Oid) -> Vec<Option<Datum>> {
    // SAFETY: the caller vouches for the value; the arrays that are returned are as long as told.
    unsafe {
        let element = pg_sys::get_base_element_type(type_oid);
        let (mut length, mut by_value, mut align) = (0i16, false, 0);
        pg_sys::get_typlenbyvalalign(element, &raw mut length, &raw mut by_value, &raw mut align);
        let array = pg_sys::pg_detoast_datum(value.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let (mut values, mut nulls, mut n) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
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
        (0..n as usize).map(|i| (!*nulls.add(i)).then(|| *values.add(i))).collect()
    }
}

/// Values of a plan's expressions, encoded.
pub struct FixedArguments {
    values: Vec<Option<Vec<u8>>>,
    codecs: Rc<Codecs>,
}

impl FixedArguments {
    /// Which of them are binary.
    pub fn formats(&self) -> impl Iterator<Item = bool> {
        self.codecs.encoders().iter().map(Encoder::is_binary)
    }

    /// Appends them.
    pub fn append(&self, arguments: &mut Arguments) {
        for value in &self.values {
            match value {
                Some(bytes) => arguments.value(bytes),
                None => arguments.null(),
            }
        }
    }
}

/// The expression is neither a constant nor a parameter, and has a volatile function in it.
///
/// # Safety
///
/// A live expression of a plan.
unsafe fn is_volatile(expression: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller vouches for the expression.
    unsafe {
        !matches!(node::tag(expression), NodeTag::T_Const | NodeTag::T_Param)
            && pg_sys::contain_volatile_functions(expression)
    }
}

/// The value of a constant or of the client's parameter, which need no expression machinery.
///
/// # Safety
///
/// A live expression of a plan that runs in `estate`.
unsafe fn known_value(
    expression: *mut pg_sys::Node,
    estate: *mut pg_sys::EState,
) -> Option<Option<Datum>> {
    // SAFETY: each node is cast to the struct of its tag. Parameters are found as ExecEvalParamExtern does
    // (`src/backend/executor/execExprInterp.c`); what is not plainly there is left to it, errors included.
    unsafe {
        match node::tag(expression) {
            NodeTag::T_Const => {
                let constant = &*expression.cast::<pg_sys::Const>();
                Some((!constant.constisnull).then_some(constant.constvalue))
            }
            NodeTag::T_Param => {
                let param = &*expression.cast::<pg_sys::Param>();
                let list = (*estate).es_param_list_info;
                if param.paramkind != pg_sys::ParamKind::PARAM_EXTERN
                    || list.is_null()
                    || (*list).paramFetch.is_some()
                    || param.paramid < 1
                    || param.paramid > (*list).numParams
                {
                    return None;
                }
                let given = &*(*list).params.as_ptr().add(param.paramid as usize - 1);
                (given.ptype == param.paramtype).then(|| (!given.isnull).then_some(given.value))
            }
            _ => None,
        }
    }
}

/// A row of the child plan.
pub struct ChildRow {
    slot: *mut pg_sys::TupleTableSlot,
}

impl ChildRow {
    pub(crate) fn slot(&self) -> *mut pg_sys::TupleTableSlot {
        self.slot
    }

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

    /// Appends a value to a statement's arguments.
    pub fn append(&self, column: usize, encoder: &Encoder, arguments: &mut Arguments) {
        // SAFETY: the encoder was made for this column of the child.
        unsafe { encoder.append(self.datum(column), arguments) }
    }

    /// Hands a value's bytes to `take`; none for NULL.
    pub fn with_bytes<T>(
        &self,
        column: usize,
        encoder: &Encoder,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        // SAFETY: the encoder was made for this column of the child.
        self.datum(column).map(|value| unsafe { encoder.with_bytes(value, take) })
    }

    /// The hash of a value; none for NULL.
    pub fn hash(&self, column: usize, hasher: &Hasher) -> Option<i32> {
        // SAFETY: the child's column has the distribution column's type, for which the hasher was found.
        self.datum(column).map(|value| unsafe { hasher.hash(value) })
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

    /// Adds a property with a text of several lines.
    pub fn lines(&mut self, label: &str, lines: &[String]) {
        // SAFETY: EXPLAIN's live state.
        let (format, indent) = unsafe { ((*self.0).format, (*self.0).indent) };
        if format != pg_sys::ExplainFormat::EXPLAIN_FORMAT_TEXT {
            return self.text(label, &lines.join("\n"));
        }
        let indent = " ".repeat(usize::try_from(indent).unwrap_or(0) * 2 + 2);
        let text: String = lines.iter().map(|line| format!("\n{indent}{line}")).collect();
        self.text(label, &text);
    }

    /// The options that a worker's EXPLAIN is to have for the same picture; `may_execute` allows ANALYZE.
    pub fn options(&self, may_execute: bool) -> String {
        // SAFETY: EXPLAIN's live state.
        let state = unsafe { &*self.0 };
        let mut options = vec![format!("COSTS {}", state.costs)];
        if state.analyze && may_execute {
            options.push("ANALYZE".to_owned());
            options.push(format!("BUFFERS {}", state.buffers));
            options.push(format!("TIMING {}", state.timing));
            options.push(format!("SUMMARY {}", state.summary));
        }
        options.join(", ")
    }

    /// EXPLAIN (VERBOSE).
    pub fn is_verbose(&self) -> bool {
        // SAFETY: EXPLAIN's live state.
        unsafe { (*self.0).verbose }
    }
}

const _: () = assert!(std::mem::offset_of!(State, custom) == 0);
