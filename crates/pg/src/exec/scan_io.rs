//! What a scan is, and what it may ask of the executor.

use crate::exec::lookup::Lookup;
use crate::exec::numbered::Numbered;
use crate::exec::rows::{self, Codecs, RowStore};
use crate::sys::error::PgError;
use crate::sys::node;
use crate::sys::plan::Source;
use crate::sys::{unguarded, version};
use pgrx::pg_sys::{self, Datum, NodeTag, Oid};
use protocol::{Elements, Row};
use shardmap::Shard;
use shardmap::repartition::RepartitionedRows;
use shardmap::tid::TidLayout;
use std::cell::RefCell;
use std::ffi::c_int;
use std::rc::Rc;

use crate::exec::explain::Explain;

mod raw {
    //! Not among pgrx' bindings.
    unsafe extern "C-unwind" {
        /// Raises nothing: asked only if the buffer has data, it reads no more.
        pub(super) fn pq_peekbyte() -> std::ffi::c_int;
    }
}

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
    /// Asks for the rows now, those of a cursor that is fetched from later, if it knows what to ask for.
    fn ask_early(&mut self, _io: &mut ScanIo) -> Result<(), PgError> {
        Ok(())
    }

    /// The same for a scan of candidates, which others leave to the scan that locks them.
    fn ask_at_once(&mut self, _io: &mut ScanIo) -> Result<(), PgError> {
        Ok(())
    }

    /// What it asks for is known only when it is executed.
    fn asks_later(&self, _io: &ScanIo) -> bool {
        false
    }

    /// Adds properties to EXPLAIN.
    fn explain(&mut self, io: &mut ScanIo, explain: &mut Explain) -> Result<(), PgError>;
}

/// What a scan may ask of the executor.
pub struct ScanIo {
    pub(super) node: *mut pg_sys::CustomScanState,
    pub(super) expressions: Vec<Expression>,
    pub(super) rows: Rc<RefCell<RowStore>>,
    pub(super) kept_slot: *mut pg_sys::TupleTableSlot,
    pub(super) buffered: Option<Buffered>,
    /// How many arguments are arrays of the children's columns.
    pub(super) array_count: usize,
    /// The children's rows, once they have been read.
    pub(super) arrays: Option<Rc<Vec<ChildRows>>>,
    /// The first child's rows are kept, and sent by number.
    pub(crate) numbered: Option<Numbered>,
    /// How kept rows are found by value.
    pub(crate) lookup: Lookup,
    /// How many of the children, the last, have rows that move.
    pub(super) moves: usize,
    /// Where these are, once they have been split, and into which parts.
    pub(super) moved: Option<(Vec<Shard>, Rc<Vec<RepartitionedRows>>)>,
}

/// The rows of a child that are sent along.
pub(super) struct ChildRows {
    pub(super) types: Vec<u32>,
    pub(super) batches: Vec<CopyBatch>,
}

/// Those that can match in one shard, or (none) anywhere, column by column.
pub(super) struct CopyBatch {
    pub(super) shard: Option<usize>,
    pub(super) columns: Vec<Elements>,
}

/// All rows of the child plan, read before the first of them is used.
#[derive(Clone, Copy)]
pub(super) struct Buffered {
    pub(super) store: *mut pg_sys::Tuplestorestate,
    pub(super) slot: *mut pg_sys::TupleTableSlot,
}

pub(super) struct Expression {
    pub(super) node: *mut pg_sys::Node,
    pub(super) state: *mut pg_sys::ExprState,
    pub(super) type_oid: Oid,
    /// It may have another value each time that it is computed.
    pub(super) is_volatile: bool,
    /// The value of a volatile expression, once it has been computed: what decides the shard is what is stored.
    pub(super) computed: Option<Option<Datum>>,
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

    /// The statement has several scans that read at its time, or one that may be executed more than once.
    pub fn has_several_scans(&self) -> bool {
        // SAFETY: as above.
        unsafe {
            crate::read::repeated::has_several_scans((*(*self.node).ss.ps.state).es_plannedstmt)
        }
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

    /// EXPLAIN ANALYZE, or something like it, will ask what was done.
    pub fn is_explained(&self) -> bool {
        // SAFETY: the executor's state is live.
        unsafe { (*(*self.node).ss.ps.state).es_instrument != 0 }
    }

    pub(super) fn in_tuple_context<T>(&mut self, body: impl FnOnce(&mut Self) -> T) -> T {
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
