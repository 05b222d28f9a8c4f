//! Sorted streams of rows, one a node, on their way into one: rows that wait at the heads of streams, and how they compare.
//!
//! Rows are compared by PostgreSQL's own sort support, as its Merge Append does
//! (`src/backend/executor/nodeMergeAppend.c`). A head keeps the row before it, so that a stream which a node has sorted
//! otherwise than this server does is found out.

use crate::exec::rows::{self, RowStore};
use crate::exec::scan_io::ScanIo;
use crate::sys::error::PgError;
use crate::sys::plan::SortKey;
use crate::sys::unguarded::copy_datum;
use crate::sys::version;
use pgrx::pg_sys::{self, Datum};
use protocol::Row;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::rc::Rc;

mod raw {
    //! Called without pgrx' guard: the frames between are plain.
    use pgrx::pg_sys;
    unsafe extern "C-unwind" {
        /// Raises nothing: compares two numbers; only its address is taken.
        pub(super) fn ssup_datum_int32_cmp(
            left: pg_sys::Datum,
            right: pg_sys::Datum,
            support: pg_sys::SortSupport,
        ) -> std::ffi::c_int;
        /// Raises nothing: compares two numbers; only its address is taken.
        pub(super) fn ssup_datum_signed_cmp(
            left: pg_sys::Datum,
            right: pg_sys::Datum,
            support: pg_sys::SortSupport,
        ) -> std::ffi::c_int;
    }
}

/// The order of a merge.
pub struct MergeOrder {
    keys: Vec<Comparison>,
}

/// A column of the scan's row with what compares it.
struct Comparison {
    column: usize,
    /// It does not move: what compares may keep a pointer to it.
    support: Box<pg_sys::SortSupportData>,
    kind: Kind,
}

/// Numbers that are their datums need no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Int32,
    Int64,
    Other,
}

impl Comparison {
    /// Of values that are not NULL, before DESC is looked at.
    unsafe fn compare(&self, left: Datum, right: Datum) -> Ordering {
        match self.kind {
            Kind::Int32 => (left.value() as i32).cmp(&(right.value() as i32)),
            Kind::Int64 => (left.value() as i64).cmp(&(right.value() as i64)),
            Kind::Other => {
                let pointer = (&raw const *self.support).cast_mut();
                // SAFETY: the caller vouches for the values; `support` is what `PrepareSortSupportFromOrderingOp` filled
                // in. The closure holds nothing to drop.
                let found = unsafe {
                    let compare = self.support.comparator.unwrap_unchecked();
                    pg_sys::ffi::pg_guard_ffi_boundary(|| compare(left, right, pointer))
                };
                found.cmp(&0)
            }
        }
    }
}

impl MergeOrder {
    /// Looks up what compares; in the query's memory.
    pub(crate) fn new(keys: &[SortKey], memory: pg_sys::MemoryContext) -> Self {
        let keys = keys
            .iter()
            .map(|key| {
                // SAFETY: all zeroes is how PostgreSQL initialises the struct; the operator is a sort operator, as the
                // planner has found, and the context lives as long as the query, longer than this value.
                unsafe {
                    let mut support: Box<pg_sys::SortSupportData> = Box::new(std::mem::zeroed());
                    support.ssup_cxt = memory;
                    support.ssup_collation = key.collation;
                    support.ssup_nulls_first = key.nulls_first;
                    support.abbreviate = false;
                    pg_sys::PrepareSortSupportFromOrderingOp(key.operator, &raw mut *support);
                    let compares = support.comparator.map_or(0, |it| it as usize);
                    let kind = if compares == raw::ssup_datum_int32_cmp as *const () as usize {
                        Kind::Int32
                    } else if compares == raw::ssup_datum_signed_cmp as *const () as usize {
                        Kind::Int64
                    } else {
                        Kind::Other
                    };
                    Comparison { column: key.column, support, kind }
                }
            })
            .collect();
        Self { keys }
    }

    fn compare(&self, left: &Held, right: &Held) -> Ordering {
        for key in &self.keys {
            let (column, support) = (key.column, &key.support);
            // NULLs and DESC as `ApplySortComparator` has them.
            let found = match (left.nulls[column], right.nulls[column]) {
                (true, true) => Ordering::Equal,
                (true, false) if support.ssup_nulls_first => Ordering::Less,
                (true, false) => Ordering::Greater,
                (false, true) if support.ssup_nulls_first => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => {
                    // SAFETY: the values are of the key's type and live while their rows are held.
                    let found = unsafe { key.compare(left.values[column], right.values[column]) };
                    if support.ssup_reverse { found.reverse() } else { found }
                }
            };
            if found != Ordering::Equal {
                return found;
            }
        }
        Ordering::Equal
    }
}

/// A row that is held, with its memory.
struct Held {
    memory: pg_sys::MemoryContext,
    values: Vec<Datum>,
    nulls: Vec<bool>,
}

/// The head of a stream.
pub struct Head {
    /// The row at the head, and the one before it, by turns.
    rows: [Held; 2],
    current: usize,
    /// How many rows have been at the head: no more than two are of interest.
    seen: usize,
    store: Rc<RefCell<RowStore>>,
    slot: *mut pg_sys::TupleTableSlot,
    /// What all this lives in.
    memory: pg_sys::MemoryContext,
}

impl Head {
    /// Frees what the head holds, before the query's end. Not done by `drop`, which runs when the query's memory is gone as
    /// well.
    pub fn release(self) {
        self.store.borrow_mut().close();
        // SAFETY: made by `new_head`, and freed once: the query goes on, so its memory is there still.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::MemoryContextDelete(self.memory);
        }
    }

    /// Where rows of this stream are kept, if its session is needed otherwise.
    pub fn store(&self) -> &Rc<RefCell<RowStore>> {
        &self.store
    }

    /// Puts a row at the head; false if it should have come before the last one.
    pub fn put(&mut self, row: Row<'_>, order: &MergeOrder) -> Result<bool, PgError> {
        let next = self.free();
        // SAFETY: the arrays are as long as the descriptor; the memory is this row's own and has just been reset.
        unsafe {
            let held = &mut self.rows[next];
            let before = pg_sys::MemoryContextSwitchTo(held.memory);
            let (values, nulls) = (held.values.as_mut_ptr(), held.nulls.as_mut_ptr());
            let outcome = rows::decode(&self.store, values, nulls, row);
            pg_sys::MemoryContextSwitchTo(before);
            outcome?;
        }
        Ok(self.is_in_order(next, order))
    }

    /// Puts the next row that was kept at the head; none if there is none.
    pub fn put_kept(&mut self, order: &MergeOrder) -> Result<Option<bool>, PgError> {
        rows::settle(&self.store)?;
        let next = self.free();
        let mut store = self.store.borrow_mut();
        if store.taken >= store.kept {
            return Ok(None);
        }
        store.taken += 1;
        // SAFETY: a live store and a slot for its rows; values are copied into this row's own memory.
        unsafe {
            if !pg_sys::tuplestore_gettupleslot(store.store, true, false, self.slot) {
                return Ok(None);
            }
            pg_sys::slot_getallattrs(self.slot);
            let held = &mut self.rows[next];
            let before = pg_sys::MemoryContextSwitchTo(held.memory);
            for column in 0..held.values.len() {
                let is_null = *(*self.slot).tts_isnull.add(column);
                held.nulls[column] = is_null;
                let attribute = version::attribute(store.descriptor, column);
                held.values[column] = if is_null {
                    Datum::from(0)
                } else {
                    copy_datum(
                        *(*self.slot).tts_values.add(column),
                        (*attribute).attbyval,
                        (*attribute).attlen,
                    )
                };
            }
            pg_sys::MemoryContextSwitchTo(before);
        }
        drop(store);
        Ok(Some(self.is_in_order(next, order)))
    }

    /// The place of the row that is not needed any more.
    fn free(&mut self) -> usize {
        let next = 1 - self.current;
        // SAFETY: the row's own memory, in which nothing is in use: the executor has done with it.
        unsafe { pg_sys::MemoryContextReset(self.rows[next].memory) };
        next
    }

    fn is_in_order(&mut self, next: usize, order: &MergeOrder) -> bool {
        let before = self.current;
        self.current = next;
        self.seen = (self.seen + 1).min(2);
        self.seen < 2 || order.compare(&self.rows[before], &self.rows[next]) != Ordering::Greater
    }

    /// How two heads compare.
    pub fn compare(&self, other: &Self, order: &MergeOrder) -> Ordering {
        order.compare(&self.rows[self.current], &other.rows[other.current])
    }
}

impl ScanIo {
    /// The order of a merge of this scan's rows.
    pub fn merge_order(&self, keys: &[SortKey]) -> MergeOrder {
        MergeOrder::new(keys, self.query_memory())
    }

    /// A head for a stream of this scan's rows.
    pub fn new_head(&self) -> Head {
        let codecs = self.codecs();
        let descriptor = self.rows().borrow().descriptor;
        let context = |parent, sizes: (usize, usize)| {
            // SAFETY: a child of a live context.
            unsafe {
                let name = c"pg_shard merged rows".as_ptr();
                pg_sys::AllocSetContextCreateInternal(parent, name, 0, sizes.0, sizes.1)
            }
        };
        let memory = context(self.query_memory(), (1024, 8 * 1024));
        let mut store = RowStore::new(memory, descriptor);
        store.codecs = Some(codecs);
        // SAFETY: the descriptor is the scan's and lives as long as the query.
        unsafe {
            let natts = (*descriptor).natts as usize;
            let held = || Held {
                memory: context(memory, (1024, 8 * 1024 * 1024)),
                values: vec![Datum::from(0); natts],
                nulls: vec![true; natts],
            };
            let rows = [held(), held()];
            let before = pg_sys::MemoryContextSwitchTo(memory);
            let slot =
                pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsMinimalTuple);
            pg_sys::MemoryContextSwitchTo(before);
            let store = Rc::new(RefCell::new(store));
            Head { rows, current: 0, seen: 0, store, slot, memory }
        }
    }

    /// Puts the row at a stream's head in the scan's slot; it stays until the stream's head has changed twice.
    pub fn emit_head(&mut self, head: &Head) {
        let row = &head.rows[head.current];
        // SAFETY: the node's own slot, cleared before, whose arrays are as long as its descriptor, and so are the row's.
        unsafe {
            let slot = self.slot();
            std::ptr::copy_nonoverlapping(
                row.values.as_ptr(),
                (*slot).tts_values,
                row.values.len(),
            );
            std::ptr::copy_nonoverlapping(row.nulls.as_ptr(), (*slot).tts_isnull, row.nulls.len());
            pg_sys::ExecStoreVirtualTuple(slot);
        }
    }

    /// Moves the row in the scan's slot to those that are kept.
    pub fn keep_emitted(&mut self) {
        // SAFETY: the node's own slot, filled by `emit_head`.
        unsafe {
            let slot = self.slot();
            self.rows().borrow_mut().keep_slot(slot);
            pg_sys::ExecClearTuple(slot);
        }
    }
}
