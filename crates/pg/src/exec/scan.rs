//! Our scan node in PostgreSQL's executor: trampolines, and what a scan may ask of the executor.
//!
//! The extension implements [`Scan`]; a plan's private part says which. The scan lives in Rust memory that the
//! query's memory context owns: it is dropped when that context goes, which happens after an ERROR as well.

use crate::exec::arguments::is_volatile;
use crate::exec::explain::Explain;
use crate::exec::lookup::Lookup;
use crate::exec::rows::RowStore;
use crate::exec::scan_io::{Buffered, Expression, Scan, ScanIo};
use crate::sys::boundary::boundary;
use crate::sys::custom::{self, Functions, Table};
use crate::sys::error::PgError;
use crate::sys::node;
use crate::sys::plan::PlanReader;
use pgrx::pg_sys::{self, NodeTag};
use shardmap::Shard;
use std::cell::RefCell;
use std::ffi::c_int;
use std::rc::Rc;
use std::sync::OnceLock;

/// Makes the scan of a plan.
pub type BeginScan = fn(PlanReader, &mut ScanIo, bool) -> Result<Box<dyn Scan>, PgError>;

static BEGIN: OnceLock<BeginScan> = OnceLock::new();

static SCAN_METHODS: Table<pg_sys::CustomScanMethods> =
    custom::scan_methods(custom::SCAN, create_state);

static EXEC_METHODS: Table<pg_sys::CustomExecMethods> = custom::exec_methods(
    custom::SCAN,
    &Functions { begin, exec, rescan, end, explain: Some(explain) },
);

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

/// The same for a scan of candidates.
///
/// # Safety
///
/// A scan of ours that `begin` has filled.
pub(crate) unsafe fn ask_at_once(custom: *mut pg_sys::CustomScanState) -> Result<(), PgError> {
    // SAFETY: the caller vouches for the node.
    unsafe {
        let running = &mut *(*custom.cast::<State>()).running;
        running.scan.ask_at_once(&mut running.io)
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

impl ScanIo {
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
}

const _: () = assert!(std::mem::offset_of!(State, custom) == 0);
