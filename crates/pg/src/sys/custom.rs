//! Tables of functions by which PostgreSQL calls a node of ours. They are constant, and the same but for the functions that a
//! node has: none of ours is marked and restored, or runs in a parallel worker.

use pgrx::pg_sys;
use std::ffi::CStr;

/// The name of the node that reads and writes shards.
pub(crate) const SCAN: &CStr = c"pg_shard";

/// The plan's node is that one.
///
/// # Safety
///
/// A live node of a plan.
pub(crate) unsafe fn is_scan(custom: *const pg_sys::CustomScan) -> bool {
    // SAFETY: the caller vouches for the node; the tables of providers and their names are constant.
    unsafe { CStr::from_ptr((*(*custom).methods).CustomName) == SCAN }
}

/// A flag of a scan of ours, beside those that PostgreSQL knows: it reads what is there now, never at the time of its statement, because
/// it locks rows below LIMIT or finds the candidates for that.
pub(crate) const READS_NOW: u32 = 1 << 16;

/// A constant table that all of the process may point to.
pub(crate) struct Table<T>(T);

// SAFETY: `new` is called for constants only, by this module's callers; they hold function pointers and static names.
unsafe impl<T> Sync for Table<T> {}

impl<T> Table<T> {
    /// A table in a static.
    pub(crate) const fn new(table: T) -> Self {
        Self(table)
    }

    /// As PostgreSQL wants it.
    pub(crate) const fn pointer(&self) -> *const T {
        &raw const self.0
    }
}

/// What a node does at its execution.
pub(crate) struct Functions {
    pub(crate) begin: unsafe extern "C-unwind" fn(
        *mut pg_sys::CustomScanState,
        *mut pg_sys::EState,
        std::ffi::c_int,
    ),
    pub(crate) exec:
        unsafe extern "C-unwind" fn(*mut pg_sys::CustomScanState) -> *mut pg_sys::TupleTableSlot,
    pub(crate) rescan: unsafe extern "C-unwind" fn(*mut pg_sys::CustomScanState),
    pub(crate) end: unsafe extern "C-unwind" fn(*mut pg_sys::CustomScanState),
    pub(crate) explain: Option<
        unsafe extern "C-unwind" fn(
            *mut pg_sys::CustomScanState,
            *mut pg_sys::List,
            *mut pg_sys::ExplainState,
        ),
    >,
}

/// The table of a node's plan; `name` stands in EXPLAIN.
pub(crate) const fn scan_methods(
    name: &'static CStr,
    create_state: unsafe extern "C-unwind" fn(*mut pg_sys::CustomScan) -> *mut pg_sys::Node,
) -> Table<pg_sys::CustomScanMethods> {
    Table::new(pg_sys::CustomScanMethods {
        CustomName: name.as_ptr(),
        CreateCustomScanState: Some(create_state),
    })
}

/// The table of a node's state.
pub(crate) const fn exec_methods(
    name: &'static CStr,
    functions: &Functions,
) -> Table<pg_sys::CustomExecMethods> {
    Table::new(pg_sys::CustomExecMethods {
        CustomName: name.as_ptr(),
        BeginCustomScan: Some(functions.begin),
        ExecCustomScan: Some(functions.exec),
        EndCustomScan: Some(functions.end),
        ReScanCustomScan: Some(functions.rescan),
        MarkPosCustomScan: None,
        RestrPosCustomScan: None,
        EstimateDSMCustomScan: None,
        InitializeDSMCustomScan: None,
        ReInitializeDSMCustomScan: None,
        InitializeWorkerCustomScan: None,
        ShutdownCustomScan: None,
        ExplainCustomScan: functions.explain,
    })
}
