//! Rows that AFTER triggers will ask for.
//!
//! PostgreSQL queues an event of an AFTER trigger with the places of its rows and has the access method of the table fetch them
//! when the trigger fires (`AfterTriggerExecute`, `src/backend/commands/trigger.c`). The local table of a distributed one is
//! empty, so these rows are kept here under places of their own, and the access method of distributed tables ([`routine`])
//! finds them. Rows of a statement go with it; those of triggers that may be deferred go with the transaction. Beyond a few
//! megabytes they are in a temporary file.
//!
//! A place's offset is the number of a [`Segment`], its block the number of the row in there.

use crate::sys::boundary::boundary;
use crate::sys::error::PgError;
use crate::sys::unguarded;
use pgrx::pg_sys::{self, Oid};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::OnceLock;

/// Bytes of a segment in memory.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// The segment of rows that stay until the transaction ends.
const OF_TRANSACTION: u16 = 1;

/// Rows of one statement, or of the transaction.
struct Segment {
    /// The nesting level of transactions in which it was opened.
    level: u32,
    /// Where each row begins, with its table; the last one ends where the next will begin.
    begins: Vec<(u64, Oid)>,
    end: u64,
    /// What has not been written to the file.
    tail: Vec<u8>,
    file: *mut pg_sys::BufFile,
}

thread_local!(static SEGMENTS: RefCell<HashMap<u16, Segment>> = RefCell::new(HashMap::new()));

/// A number for the rows of a statement; none if too many statements keep rows.
pub(crate) fn open_segment(until_end_of_transaction: bool) -> Option<u16> {
    SEGMENTS.with_borrow_mut(|segments| {
        if until_end_of_transaction {
            segments.entry(OF_TRANSACTION).or_insert_with(|| Segment::empty(0));
            return Some(OF_TRANSACTION);
        }
        let number =
            (OF_TRANSACTION + 1..u16::MAX).find(|number| !segments.contains_key(number))?;
        segments.insert(number, Segment::empty(unguarded::nest_level()));
        Some(number)
    })
}

/// The rows of a statement are needed no more.
pub(crate) fn close_segment(number: u16) {
    if number == OF_TRANSACTION {
        return;
    }
    let Some(segment) = SEGMENTS.with_borrow_mut(|segments| segments.remove(&number)) else {
        return;
    };
    if !segment.file.is_null() {
        // SAFETY: the file is open: it is closed here, or with the transaction, which forgets the segment too.
        unsafe { pg_sys::BufFileClose(segment.file) };
    }
}

/// Statements of this level of transactions and deeper have failed.
pub(crate) fn forget_level(level: u32) {
    let failed: Vec<u16> = SEGMENTS.with_borrow(|segments| {
        let failed = segments.iter().filter(|(_, segment)| segment.level >= level);
        failed.map(|(number, _)| *number).collect()
    });
    failed.into_iter().for_each(close_segment);
}

/// The transaction has ended, and PostgreSQL has closed the files.
pub(crate) fn forget_all() {
    SEGMENTS.with_borrow_mut(HashMap::clear);
}

/// Keeps a slot's row and returns its place.
///
/// # Safety
///
/// A slot of the table, whose values are all there.
pub(crate) unsafe fn keep(
    number: u16,
    table: Oid,
    slot: *mut pg_sys::TupleTableSlot,
) -> Result<pg_sys::ItemPointerData, PgError> {
    // SAFETY: the caller vouches for the slot; the tuple is a palloced copy, freed here.
    unsafe {
        let tuple = pg_sys::heap_form_tuple(
            (*slot).tts_tupleDescriptor,
            (*slot).tts_values,
            (*slot).tts_isnull,
        );
        let bytes =
            std::slice::from_raw_parts((*tuple).t_data.cast::<u8>(), (*tuple).t_len as usize);
        let row = SEGMENTS.with_borrow_mut(|segments| {
            let segment = segments.get_mut(&number);
            segment.map(|segment| segment.add(table, bytes))
        });
        pg_sys::heap_freetuple(tuple);
        let row = row.ok_or_else(|| PgError::internal("rows of triggers are kept nowhere"))?;
        Ok(place(number, row))
    }
}

fn place(number: u16, row: u32) -> pg_sys::ItemPointerData {
    pg_sys::ItemPointerData {
        ip_blkid: pg_sys::BlockIdData { bi_hi: (row >> 16) as u16, bi_lo: row as u16 },
        ip_posid: number,
    }
}

impl Segment {
    fn empty(level: u32) -> Self {
        Self { level, begins: Vec::new(), end: 0, tail: Vec::new(), file: std::ptr::null_mut() }
    }

    /// # Safety
    ///
    /// In a transaction.
    unsafe fn add(&mut self, table: Oid, bytes: &[u8]) -> u32 {
        if self.tail.len() + bytes.len() > MOST_BYTES {
            // SAFETY: the caller vouches.
            unsafe { self.spill() };
        }
        self.begins.push((self.end, table));
        self.tail.extend_from_slice(bytes);
        self.end += bytes.len() as u64;
        self.begins.len() as u32 - 1
    }

    /// Writes what is in memory to the end of the file, which lives as long as the transaction.
    unsafe fn spill(&mut self) {
        // SAFETY: the caller is in a transaction; owner and context are put back, which an ERROR does as well when it ends
        // the statement.
        unsafe {
            if self.file.is_null() {
                let (owner, context) = (pg_sys::CurrentResourceOwner, pg_sys::CurrentMemoryContext);
                pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
                pg_sys::CurrentMemoryContext = pg_sys::TopTransactionContext;
                self.file = pg_sys::BufFileCreateTemp(false);
                pg_sys::CurrentResourceOwner = owner;
                pg_sys::CurrentMemoryContext = context;
            }
            let written = self.end - self.tail.len() as u64;
            pg_sys::BufFileSeek(self.file, 0, written as pg_sys::off_t, 0);
            pg_sys::BufFileWrite(self.file, self.tail.as_mut_ptr().cast(), self.tail.len());
        }
        self.tail.clear();
    }

    /// Reads a row of a table.
    ///
    /// # Safety
    ///
    /// In a transaction.
    unsafe fn read(&self, row: usize, table: Oid) -> Option<Vec<u8>> {
        let (begin, of) = *self.begins.get(row)?;
        if of != table {
            return None;
        }
        let end = self.begins.get(row + 1).map_or(self.end, |(next, _)| *next);
        let length = (end - begin) as usize;
        let in_file = self.end - self.tail.len() as u64;
        if begin >= in_file {
            let at = (begin - in_file) as usize;
            return Some(self.tail[at..at + length].to_vec());
        }
        let mut bytes = vec![0; length];
        // SAFETY: the file is open as long as the segment is known; a row is written as a whole.
        let got = unsafe {
            pg_sys::BufFileSeek(self.file, 0, begin as pg_sys::off_t, 0);
            pg_sys::BufFileRead(self.file, bytes.as_mut_ptr().cast(), length)
        };
        (got == length).then_some(bytes)
    }
}

/// The row of a table at such a place.
unsafe fn find(table: Oid, place: pg_sys::ItemPointerData) -> Option<Vec<u8>> {
    let row = (place.ip_blkid.bi_hi as usize) << 16 | place.ip_blkid.bi_lo as usize;
    // SAFETY: in a transaction, since somebody has opened the table.
    SEGMENTS.with_borrow(|segments| unsafe { segments.get(&place.ip_posid)?.read(row, table) })
}

/// What distributed tables are accessed by: the heap's own functions, but for rows that are kept for triggers.
pub(crate) fn routine() -> *const pg_sys::TableAmRoutine {
    static ROUTINE: OnceLock<pg_sys::TableAmRoutine> = OnceLock::new();
    ROUTINE.get_or_init(|| {
        // SAFETY: a constant of the server.
        let mut routine = unsafe { *pg_sys::GetHeapamTableAmRoutine() };
        routine.tuple_fetch_row_version = Some(fetch);
        routine.index_build_range_scan = Some(build_index);
        routine.index_validate_scan = Some(validate_index);
        routine
    })
}

fn heap() -> &'static pg_sys::TableAmRoutine {
    // SAFETY: a constant of the server.
    unsafe { &*pg_sys::GetHeapamTableAmRoutine() }
}

unsafe extern "C-unwind" fn fetch(
    relation: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: PostgreSQL's live arguments. The tuple is palloced in one piece, as heap_copytuple does it, in the slot's
    // context, and is the slot's.
    unsafe {
        boundary(|| {
            let table = (*relation).rd_id;
            let Some(bytes) = find(table, *tid) else {
                #[expect(ffi_unwind_calls, reason = "inside pg_guard_ffi_boundary")]
                return Ok(pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    (heap().tuple_fetch_row_version.unwrap_unchecked())(
                        relation, tid, snapshot, slot,
                    )
                }));
            };
            let head = size_of::<pg_sys::HeapTupleData>().next_multiple_of(8);
            let memory =
                pg_sys::MemoryContextAlloc((*slot).tts_mcxt, head + bytes.len()).cast::<u8>();
            let tuple = memory.cast::<pg_sys::HeapTupleData>();
            let data = memory.add(head);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
            (*tuple).t_len = bytes.len() as u32;
            (*tuple).t_self = *tid;
            (*tuple).t_tableOid = table;
            (*tuple).t_data = data.cast();
            pg_sys::ExecForceStoreHeapTuple(tuple, slot, true);
            (*slot).tts_tid = *tid;
            (*slot).tts_tableOid = table;
            Ok(true)
        })
    }
}

/// While it lives, a table is a heap by name too: `heap_getnext` asks for that.
struct AsHeap(pg_sys::Relation, *const pg_sys::TableAmRoutine);

impl AsHeap {
    /// # Safety
    ///
    /// The relation stays open.
    unsafe fn begin(relation: pg_sys::Relation) -> Self {
        // SAFETY: the caller vouches; the field is this process's own.
        unsafe {
            let before = (*relation).rd_tableam;
            (*relation).rd_tableam = heap();
            Self(relation, before)
        }
    }
}

impl Drop for AsHeap {
    fn drop(&mut self) {
        // SAFETY: as in `begin`.
        unsafe { (*self.0).rd_tableam = self.1 };
    }
}

unsafe extern "C-unwind" fn build_index(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    allow_sync: bool,
    any_visible: bool,
    progress: bool,
    start: pg_sys::BlockNumber,
    blocks: pg_sys::BlockNumber,
    callback: pg_sys::IndexBuildCallback,
    state: *mut c_void,
    scan: pg_sys::TableScanDesc,
) -> f64 {
    // SAFETY: PostgreSQL's arguments, passed on; the relation stays open meanwhile.
    unsafe {
        boundary(|| {
            let _as_heap = AsHeap::begin(table);
            #[expect(ffi_unwind_calls, reason = "inside pg_guard_ffi_boundary")]
            Ok(pg_sys::ffi::pg_guard_ffi_boundary(|| {
                (heap().index_build_range_scan.unwrap_unchecked())(
                    table,
                    index,
                    info,
                    allow_sync,
                    any_visible,
                    progress,
                    start,
                    blocks,
                    callback,
                    state,
                    scan,
                )
            }))
        })
    }
}

unsafe extern "C-unwind" fn validate_index(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    snapshot: pg_sys::Snapshot,
    state: *mut pg_sys::ValidateIndexState,
) {
    // SAFETY: as above.
    unsafe {
        boundary(|| {
            let _as_heap = AsHeap::begin(table);
            #[expect(ffi_unwind_calls, reason = "inside pg_guard_ffi_boundary")]
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                (heap().index_validate_scan.unwrap_unchecked())(table, index, info, snapshot, state)
            });
            Ok(())
        })
    }
}
