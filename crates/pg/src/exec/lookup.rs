//! Spooled rows that are found by value: a sub-query that is computed for each row of another filters the same rows each time,
//! `column = value of the outer row`. Once that has been asked twice, the kept rows are put in the order of their hashes,
//! and from then on only rows with the value's hash are looked at. The executor applies the filter to them as before, so
//! that a row too many is harmless.
//!
//! Rows lie in pages, each with the hash of its first row beside it. Pages are in memory as long as all of them fit
//! `work_mem * hash_mem_multiplier`, and in a temporary file otherwise; what stays in memory then is less than a hundredth
//! of the rows' size. PostgreSQL's own sort brings them in order, in `work_mem`.
//!
//! Only equalities of a column of the scan with an expression of outer values are used, by a strict operator that can be
//! hashed; both sides are hashed as a hash join would do it (`src/backend/executor/nodeHash.c`).

use crate::exec::rows::RowStore;
use crate::sys::error::PgError;
use crate::sys::node::{self, Visit};
use crate::sys::unguarded;
use crate::sys::value::Hasher;
use pgrx::pg_sys::{self, Datum, NodeTag, Oid};
use std::ffi::c_int;

/// Fewer rows than that are filtered as fast as they are found.
pub(super) const FEW_ROWS: u64 = 64;

/// How many bytes a page has before another is begun.
const PAGE: usize = 4096;

/// What stands before a row in its page: its hash and its length.
const HEAD: usize = 8;

/// Whether and how the rows of a scan are found.
#[derive(Default)]
pub(crate) enum Lookup {
    /// Nobody has looked.
    #[default]
    Unknown,
    /// Nothing to find rows by.
    Impossible,
    /// The rows are not in order yet.
    Possible(Vec<Key>),
    /// They are.
    Ready(Vec<Key>, SortedRows),
}

/// An equality that all rows wanted fulfil.
pub(crate) struct Key {
    /// The scan's column.
    column: usize,
    of_column: Hasher,
    of_value: Hasher,
    value: *mut pg_sys::ExprState,
}

/// Rows in the order of their hashes, and where a search among them has come to.
pub(crate) struct SortedRows {
    pages: Vec<Page>,
    file: *mut pg_sys::BufFile,
    /// The page of the file that is in memory.
    loaded: Option<usize>,
    buffer: Vec<u64>,
    /// A row with its hash before its columns.
    pub(super) slot: *mut pg_sys::TupleTableSlot,
    pub(super) search: Search,
}

/// A page: in memory, or at a place of the file.
struct Page {
    first: i32,
    bytes: usize,
    words: Vec<u64>,
    place: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// The value has to be computed.
    NotBegun,
    /// From there on: page and byte.
    At(i32, usize, usize),
    Over,
}

impl Lookup {
    /// Ends the file.
    pub(crate) fn close(&mut self) {
        if let Self::Ready(_, rows) = self
            && !rows.file.is_null()
        {
            // SAFETY: a live file, closed once.
            unsafe { pg_sys::BufFileClose(rows.file) };
            rows.file = std::ptr::null_mut();
        }
    }
}

/// The equalities in the node's filter by which rows can be found.
pub(super) unsafe fn keys_of(custom: *mut pg_sys::CustomScanState) -> Vec<Key> {
    // SAFETY: a live node; its plan's filter is a list of conditions that must all hold.
    unsafe {
        let plan = (*custom).ss.ps.plan;
        node::elements::<pg_sys::Node>((*plan).qual)
            .into_iter()
            .filter_map(|condition| key_of(custom, condition))
            .collect()
    }
}

unsafe fn key_of(
    custom: *mut pg_sys::CustomScanState,
    condition: *mut pg_sys::Node,
) -> Option<Key> {
    // SAFETY: a live condition of the node's plan; syscache look-ups by value.
    unsafe {
        let op = node::cast::<pg_sys::OpExpr, _>(condition, NodeTag::T_OpExpr)?;
        if node::length((*op).args) != 2 || !pg_sys::op_strict((*op).opno) {
            return None;
        }
        let sides: Vec<*mut pg_sys::Node> = node::elements((*op).args);
        let column = |side: *mut pg_sys::Node| {
            let bare = crate::read::facts::strip_relabel(side);
            let var = node::cast::<pg_sys::Var, _>(bare, NodeTag::T_Var)?;
            let natts = (*(*(*custom).ss.ss_ScanTupleSlot).tts_tupleDescriptor).natts;
            let number = c_int::from((*var).varattno);
            ((*var).varno == pg_sys::INDEX_VAR && number > 0 && number <= natts)
                .then(|| number as usize - 1)
        };
        let (at, column) = match (column(sides[0]), column(sides[1])) {
            (Some(column), None) => (0, column),
            (None, Some(column)) => (1, column),
            _ => return None,
        };
        let value = sides[1 - at];
        let (mut left, mut right) = (Oid::INVALID, Oid::INVALID);
        if !is_value(value)
            || !pg_sys::op_hashjoinable((*op).opno, pg_sys::exprType(sides[0]))
            || !pg_sys::get_op_hash_functions((*op).opno, &raw mut left, &raw mut right)
        {
            return None;
        }
        let (of_column, of_value) = if at == 0 { (left, right) } else { (right, left) };
        let collation = (*op).inputcollid;
        Some(Key {
            column,
            of_column: Hasher::of(of_column, collation),
            of_value: Hasher::of(of_value, collation),
            value: pg_sys::ExecInitExpr(value.cast(), &raw mut (*custom).ss.ps),
        })
    }
}

/// It is the same for all rows of the scan.
unsafe fn is_value(expression: *mut pg_sys::Node) -> bool {
    // SAFETY: a live expression of a plan.
    unsafe {
        let depends = node::walk(expression, &mut |n| match node::tag(n) {
            NodeTag::T_Var | NodeTag::T_SubPlan | NodeTag::T_AlternativeSubPlan => Visit::Stop,
            _ => Visit::Into,
        });
        !depends && !pg_sys::contain_volatile_functions(expression)
    }
}

fn combined(hash: u32, more: i32) -> u32 {
    // As a hash join combines its keys (`ExecHashGetHashValue`).
    hash.rotate_left(1) ^ more as u32
}

/// The hash of the values that are wanted now; none if one is NULL, which nothing equals.
pub(super) unsafe fn wanted(custom: *mut pg_sys::CustomScanState, keys: &[Key]) -> Option<i32> {
    // SAFETY: the keys' expressions were made for this node; they are computed as any filter's, in the row's memory.
    unsafe {
        let context = (*custom).ss.ps.ps_ExprContext;
        let before = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
        let mut hash = Some(0);
        for key in keys {
            let state = key.value;
            let mut is_null = false;
            let value = pg_sys::ffi::pg_guard_ffi_boundary(|| {
                ((*state).evalfunc.unwrap_unchecked())(state, context, &raw mut is_null)
            });
            hash = hash.filter(|_| !is_null).map(|hash| combined(hash, key.of_value.hash(value)));
        }
        pg_sys::MemoryContextSwitchTo(before);
        hash.map(|hash| hash as i32)
    }
}

/// The rows of the store in the order of their hashes, without those that nothing equals.
pub(super) unsafe fn sorted(
    custom: *mut pg_sys::CustomScanState,
    rows: &mut RowStore,
    keys: &[Key],
) -> Result<SortedRows, PgError> {
    // SAFETY: the store is live and holds `kept` rows of its descriptor; slots, descriptor, sort and file are made in the
    // query's memory by the caller. A sort's rows stay in its slot until the next is asked for.
    unsafe {
        let estate = (*custom).ss.ps.state;
        let natts = (*rows.descriptor).natts;
        let descriptor = pg_sys::CreateTemplateTupleDesc(natts + 1);
        pg_sys::TupleDescInitEntry(descriptor, 1, c"hash".as_ptr(), pg_sys::INT4OID, -1, 0);
        for number in 1..=natts as i16 {
            pg_sys::TupleDescCopyEntry(descriptor, number + 1, rows.descriptor, number);
        }
        let kept = pg_sys::MakeSingleTupleTableSlot(
            rows.descriptor,
            &raw const pg_sys::TTSOpsMinimalTuple,
        );
        let hashed = pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsVirtual);
        let slot = pg_sys::ExecInitExtraTupleSlot(
            estate,
            descriptor,
            &raw const pg_sys::TTSOpsMinimalTuple,
        );
        let (mut number, mut operator) = (1i16, Oid::from(pg_sys::Int4LessOperator));
        let (mut collation, mut nulls_first) = (Oid::INVALID, false);
        let sort = pg_sys::tuplesort_begin_heap(
            descriptor,
            1,
            &raw mut number,
            &raw mut operator,
            &raw mut collation,
            &raw mut nulls_first,
            pg_sys::work_mem,
            std::ptr::null_mut(),
            pg_sys::TUPLESORT_NONE as c_int,
        );
        rows.rewind();
        while rows.taken < rows.kept
            && pg_sys::tuplestore_gettupleslot(rows.store, true, false, kept)
        {
            rows.taken += 1;
            pg_sys::check_for_interrupts!();
            pg_sys::slot_getallattrs(kept);
            let (values, nulls) = ((*kept).tts_values, (*kept).tts_isnull);
            let mut hash = Some(0);
            for key in keys {
                hash = hash
                    .filter(|_| !*nulls.add(key.column))
                    .map(|hash| combined(hash, key.of_column.hash(*values.add(key.column))));
            }
            let Some(hash) = hash else { continue };
            unguarded::clear(hashed);
            *(*hashed).tts_values = Datum::from(hash as i32);
            *(*hashed).tts_isnull = false;
            let columns = natts as usize;
            std::ptr::copy_nonoverlapping(values, (*hashed).tts_values.add(1), columns);
            std::ptr::copy_nonoverlapping(nulls, (*hashed).tts_isnull.add(1), columns);
            unguarded::store_virtual(hashed);
            pg_sys::tuplesort_puttupleslot(sort, hashed);
        }
        pg_sys::tuplesort_performsort(sort);
        let mut sorted = SortedRows {
            pages: Vec::new(),
            file: std::ptr::null_mut(),
            loaded: None,
            buffer: Vec::new(),
            slot,
            search: Search::NotBegun,
        };
        let mut filler = Filler { page: Vec::new(), first: 0, in_memory: 0, written: 0 };
        while pg_sys::tuplesort_gettupleslot(sort, true, false, slot, std::ptr::null_mut()) {
            pg_sys::check_for_interrupts!();
            let mut is_null = false;
            let hash = pg_sys::slot_getattr(slot, 1, &raw mut is_null).value() as i32;
            let mut is_copy = false;
            let tuple = pg_sys::ExecFetchSlotMinimalTuple(slot, &raw mut is_copy);
            let bytes = std::slice::from_raw_parts(tuple.cast::<u8>(), (*tuple).t_len as usize);
            filler.put(&mut sorted, hash, bytes);
        }
        filler.end_page(&mut sorted);
        pg_sys::ExecClearTuple(slot);
        pg_sys::tuplesort_end(sort);
        pg_sys::ExecDropSingleTupleTableSlot(kept);
        pg_sys::ExecDropSingleTupleTableSlot(hashed);
        Ok(sorted)
    }
}

/// Fills pages.
struct Filler {
    page: Vec<u64>,
    first: i32,
    /// Bytes of pages, as long as all are in memory.
    in_memory: usize,
    /// Bytes of the file.
    written: i64,
}

impl Filler {
    fn put(&mut self, rows: &mut SortedRows, hash: i32, row: &[u8]) {
        if self.page.is_empty() {
            self.first = hash;
        }
        self.page.push(u64::from(hash as u32) | (row.len() as u64) << 32);
        // Rows are aligned as palloc would do it.
        let words = row.chunks(8).map(|part| {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            u64::from_ne_bytes(word)
        });
        self.page.extend(words);
        if self.page.len() * 8 >= PAGE {
            self.end_page(rows);
        }
    }

    fn end_page(&mut self, rows: &mut SortedRows) {
        if self.page.is_empty() {
            return;
        }
        let words = std::mem::take(&mut self.page);
        let bytes = words.len() * 8;
        rows.pages.push(Page { first: self.first, bytes, words, place: 0 });
        self.in_memory += bytes;
        // SAFETY: reads settings.
        if rows.file.is_null() && self.in_memory <= unsafe { pg_sys::get_hash_memory_limit() } {
            return;
        }
        // SAFETY: made in the query's memory and under its owner, see `sort_kept`; the words are as many bytes.
        unsafe {
            let begins = rows.file.is_null();
            if begins {
                rows.file = pg_sys::BufFileCreateTemp(false);
            }
            let from = if begins { 0 } else { rows.pages.len() - 1 };
            for page in &mut rows.pages[from..] {
                let words = std::mem::take(&mut page.words);
                pg_sys::BufFileWrite(rows.file, words.as_ptr().cast_mut().cast(), page.bytes);
                page.place = self.written;
                self.written += page.bytes as i64;
            }
        }
    }
}

impl SortedRows {
    pub(super) fn begin(&mut self, hash: Option<i32>) {
        self.search = match hash {
            None => Search::Over,
            Some(hash) => {
                // The page before may end with such rows.
                let after = self.pages.partition_point(|page| page.first < hash);
                Search::At(hash, after.saturating_sub(1), 0)
            }
        };
    }

    /// The next row that is searched for.
    pub(super) fn next(&mut self) -> Result<Option<pg_sys::MinimalTuple>, PgError> {
        let Search::At(hash, mut number, mut at) = self.search else { return Ok(None) };
        while number < self.pages.len() {
            let words = self.page(number)?;
            while at < words.len() {
                let head = words[at];
                let (found, length) = (head as u32 as i32, (head >> 32) as usize);
                let row = at + HEAD / 8;
                at = row + length.div_ceil(8);
                if found > hash {
                    self.search = Search::Over;
                    return Ok(None);
                }
                if found == hash {
                    let row = words[row..].as_ptr().cast_mut().cast();
                    self.search = Search::At(hash, number, at);
                    return Ok(Some(row));
                }
            }
            (number, at) = (number + 1, 0);
        }
        self.search = Search::Over;
        Ok(None)
    }

    fn page(&mut self, number: usize) -> Result<&[u64], PgError> {
        let page = &self.pages[number];
        if self.file.is_null() {
            return Ok(&page.words);
        }
        if self.loaded != Some(number) {
            self.loaded = None;
            self.buffer.resize(page.bytes / 8, 0);
            // SAFETY: a live file; the buffer has as many bytes. Places beyond a segment's end are carried over by
            // BufFileSeek.
            let read = unsafe {
                if pg_sys::BufFileSeek(self.file, 0, page.place, 0) != 0 {
                    0
                } else {
                    pg_sys::BufFileRead(self.file, self.buffer.as_mut_ptr().cast(), page.bytes)
                }
            };
            if read != page.bytes {
                return Err(PgError::internal("could not read kept rows from a temporary file"));
            }
            self.loaded = Some(number);
        }
        Ok(&self.buffer)
    }
}
