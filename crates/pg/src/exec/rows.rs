//! Remote rows on their way into the executor: what they are made of, how they are decoded, and a place to keep
//! them.

use crate::exec::undecoded::Undecoded;
use crate::read::tid;
use crate::sys::decoder::Decoder;
use crate::sys::error::PgError;
use crate::sys::plan::{Source, StateKind};
use crate::sys::unguarded::client_encoding;
use crate::sys::value::{Encoder, FIRST_USER_OID, Hasher, is_binary_safe, make_bytea};
use crate::sys::version;
use pgrx::pg_sys::{self, Datum, Oid};
use protocol::Row;
use std::cell::RefCell;
use std::ffi::c_int;
use std::ops::Range;
use std::rc::Rc;

/// The serialised state of binary parts: the number as int8, sums as numeric. None if there is no sum: nothing
/// but NULLs has been added up.
fn serialise(kind: StateKind, count: &[u8], sum: &[u8], squares: Option<&[u8]>) -> Option<Vec<u8>> {
    let is_numeric = matches!(kind, StateKind::NumericSum | StateKind::NumericSquares);
    let sum = WireNumeric::read(sum)?;
    let finite = sum.sign == WireNumeric::POSITIVE || sum.sign == WireNumeric::NEGATIVE;
    // A special value is counted by itself below: one is enough for the result, and all together count.
    let all = i64::from_be_bytes(count.try_into().ok()?);
    let count = &(if finite { all } else { all - 1 }).to_be_bytes();
    let mut state = Vec::with_capacity(80);
    state.extend_from_slice(count);
    // The special values are counted, and are no part of the sums.
    let scale = if finite { sum.scale } else { 0 };
    let zero = WireNumeric { weight: 0, sign: WireNumeric::POSITIVE, scale: 0, digits: &[] };
    let squares = if kind.has_squares() { Some(WireNumeric::read(squares?)?) } else { None };
    for part in [Some(&sum), squares.as_ref()].into_iter().flatten() {
        (if finite { part } else { &zero }).write(&mut state);
    }
    if is_numeric {
        state.extend_from_slice(&i32::from(scale).to_be_bytes());
        // How many numbers have that scale is asked for when numbers are taken away again, never here.
        state.extend_from_slice(count);
        for special in [WireNumeric::NAN, WireNumeric::INFINITY, WireNumeric::MINUS_INFINITY] {
            state.extend_from_slice(&i64::from(sum.sign == special).to_be_bytes());
        }
    }
    Some(state)
}
/// A numeric as `numeric_send` writes it.
struct WireNumeric<'a> {
    weight: i16,
    sign: u16,
    scale: u16,
    digits: &'a [u8],
}

impl<'a> WireNumeric<'a> {
    const POSITIVE: u16 = 0;
    const NEGATIVE: u16 = 0x4000;
    const NAN: u16 = 0xC000;
    const INFINITY: u16 = 0xD000;
    const MINUS_INFINITY: u16 = 0xF000;

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, digits) = bytes.split_at_checked(8)?;
        Some(Self {
            weight: i16::from_be_bytes([head[2], head[3]]),
            sign: u16::from_be_bytes([head[4], head[5]]),
            scale: u16::from_be_bytes([head[6], head[7]]),
            digits,
        })
    }

    /// As `numericvar_serialize` writes it.
    fn write(&self, state: &mut Vec<u8>) {
        state.extend_from_slice(&(self.digits.len() as u32 / 2).to_be_bytes());
        state.extend_from_slice(&i32::from(self.weight).to_be_bytes());
        state.extend_from_slice(&u32::from(self.sign).to_be_bytes());
        state.extend_from_slice(&u32::from(self.scale).to_be_bytes());
        state.extend_from_slice(self.digits);
    }
}

/// Memory of PostgreSQL's that lives as long as this value.
#[derive(Debug)]
struct Memory(pg_sys::MemoryContext);

impl Memory {
    fn new() -> Self {
        // SAFETY: a child of a context that lives as long as the backend.
        Self(unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::CacheMemoryContext,
                c"pg_shard codecs".as_ptr(),
                0,
                1024,
                64 * 1024,
            )
        })
    }

    fn within<T>(&self, body: impl FnOnce() -> T) -> T {
        // SAFETY: a live context; an ERROR puts PostgreSQL's context back itself.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.0);
            let value = body();
            pg_sys::MemoryContextSwitchTo(before);
            value
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: ours, deleted once. The values whose look-ups live in it are dropped before (field order).
        unsafe { pg_sys::MemoryContextDelete(self.0) }
    }
}

/// Operator family, type and collation that a value is hashed as.
type HashedAs = (Oid, Oid, Oid);

/// Everything about a plan's values that takes look-ups: made once, shared by all executions of the plan.
#[derive(Debug)]
pub struct Codecs {
    sources: Vec<Source>,
    decoders: Vec<Decoder>,
    /// For sources that are texts to be read, in their order.
    inputs: Vec<Decoder>,
    encoders: Vec<Encoder>,
    argument_types: Vec<u32>,
    hashers: RefCell<Vec<(HashedAs, Rc<Hasher>)>>,
    binary_columns: Vec<bool>,
    /// Decoding may run users' code: the check of a domain, say.
    runs_code: bool,
    client_encoding: c_int,
    /// Last, so that it goes last.
    memory: Memory,
}

impl Codecs {
    /// Looks everything up. `remote` are the types and typmods of the remote result's columns, `sources` say how
    /// the scan's row is made of them, `arguments` are the types of the expressions that are sent.
    pub fn new(remote: &[(Oid, i32)], sources: Vec<Source>, arguments: &[Oid]) -> Self {
        let memory = Memory::new();
        // Each column by itself: a text is read here as the worker wrote it for the client's settings, which do not
        // name every value for certain (a zone's abbreviation), so only what has to is text.
        let binary_columns: Vec<bool> =
            remote.iter().map(|(type_oid, _)| is_binary_safe(*type_oid)).collect();
        let (decoders, inputs, encoders) = memory.within(|| {
            let inputs: Vec<Decoder> = sources
                .iter()
                .filter_map(|source| match source {
                    Source::Input(type_oid, _) => Some(Decoder::new(*type_oid, -1, false)),
                    _ => None,
                })
                .collect();
            let decoders: Vec<Decoder> = remote
                .iter()
                .zip(&binary_columns)
                .map(|((type_oid, typmod), is_binary)| Decoder::new(*type_oid, *typmod, *is_binary))
                .collect();
            let encoders: Vec<Encoder> =
                arguments.iter().map(|type_oid| Encoder::new(*type_oid)).collect();
            (decoders, inputs, encoders)
        });
        let read = sources.iter().filter_map(|source| match source {
            Source::Input(type_oid, _) => Some(*type_oid),
            _ => None,
        });
        let runs_code = remote.iter().map(|column| column.0).chain(read).any(runs_code);
        Self {
            runs_code,
            sources,
            decoders,
            inputs,
            argument_types: encoders.iter().map(Encoder::argument_type).collect(),
            encoders,
            hashers: RefCell::default(),
            binary_columns,
            client_encoding: client_encoding(),
            memory,
        }
    }

    /// What was looked up still holds: binary forms depend on the client's encoding.
    pub fn is_current(&self) -> bool {
        self.client_encoding == client_encoding()
    }

    /// Whatever rows a node returns, reading them raises no error, and neither does showing them to the client: all of them
    /// are of types of the server itself, as the node has them, in the client's encoding. A text may name what is not known here.
    pub fn cannot_fail(&self) -> bool {
        let is_plain = |source: &Source| matches!(source, Source::Remote(_) | Source::TableOid(_));
        self.binary_columns.iter().all(|is_binary| *is_binary) && self.sources.iter().all(is_plain)
    }

    /// Which columns of remote rows come in binary.
    pub fn binary_columns(&self) -> &[bool] {
        &self.binary_columns
    }

    /// The types that arguments are declared as to a worker; 0 leaves one to the worker.
    pub fn argument_types(&self) -> &[u32] {
        &self.argument_types
    }

    pub(crate) fn encoders(&self) -> &[Encoder] {
        &self.encoders
    }

    /// Hash support function 1 of `family` for values of `type_oid`; none if the family has none.
    pub fn hasher(&self, family: Oid, type_oid: Oid, collation: Oid) -> Option<Rc<Hasher>> {
        let wanted = (family, type_oid, collation);
        if let Some((_, known)) = self.hashers.borrow().iter().find(|(known, _)| *known == wanted) {
            return Some(Rc::clone(known));
        }
        let found = Rc::new(self.memory.within(|| Hasher::find(family, type_oid, collation))?);
        self.hashers.borrow_mut().push((wanted, Rc::clone(&found)));
        Some(found)
    }

    /// Decodes a remote row into arrays of the descriptor's length, in the current memory context.
    unsafe fn decode(
        &self,
        places: &mut Vec<Option<Range<usize>>>,
        values: *mut Datum,
        nulls: *mut bool,
        mut row: Row<'_>,
        shard: usize,
    ) -> Result<(), PgError> {
        row.columns(places).map_err(|error| PgError::internal(error.to_string()))?;
        if places.len() < self.decoders.len() {
            return Err(PgError::internal(format!(
                "a node returned {} columns where {} were asked for",
                places.len(),
                self.decoders.len()
            )));
        }
        let places = &*places;
        let state = |row: &Row<'_>, kind: StateKind, first: usize| {
            let part = |index: usize| places[first + index].clone().map(|place| row.value(place));
            serialise(kind, part(0)?, part(1)?, if kind.has_squares() { part(2) } else { None })
        };
        let mut inputs = self.inputs.iter();
        let mut datum_by = |decoder: &Decoder, column: usize| {
            let place = places[column].clone()?;
            Some(decoder.datum(row.value_and_next(place)))
        };
        // SAFETY: the caller vouches for the arrays.
        unsafe {
            for (index, source) in self.sources.iter().enumerate() {
                let value = match source {
                    Source::State(..) | Source::Here => None,
                    Source::Remote(column) => datum_by(&self.decoders[*column], *column),
                    Source::Input(_, column) => {
                        inputs.next().and_then(|decoder| datum_by(decoder, *column))
                    }
                    Source::TableOid(table) => Some(Datum::from(*table)),
                    Source::Tid(first, layout) => {
                        let tid = datum_by(&self.decoders[*first], *first);
                        let shard = datum_by(&self.decoders[first + 1], first + 1);
                        match (tid, shard) {
                            (Some(tid), Some(shard)) => {
                                Some(tid::encode(tid, shard.value(), *layout)?)
                            }
                            _ => None,
                        }
                    }
                    Source::ShardTid(column, layout) => {
                        match datum_by(&self.decoders[*column], *column) {
                            Some(tid) => Some(tid::encode(tid, shard, *layout)?),
                            None => None,
                        }
                    }
                    Source::Row(table, columns) => {
                        let mut datum = |column: usize| datum_by(&self.decoders[column], column);
                        Some(make_row(*table, columns, &mut datum))
                    }
                };
                *nulls.add(index) = value.is_none();
                *values.add(index) = value.unwrap_or(Datum::from(0));
            }
            for (index, source) in self.sources.iter().enumerate() {
                if let Source::State(kind, first) = source
                    && let Some(state) = state(&row, *kind, *first)
                {
                    *nulls.add(index) = false;
                    *values.add(index) = make_bytea(&state);
                }
            }
        }
        Ok(())
    }
}

/// Values of the type may be checked, or compared, by functions of users when they are read.
fn runs_code(type_oid: Oid) -> bool {
    // SAFETY: a syscache look-up by value.
    type_oid.to_u32() >= FIRST_USER_OID && !unsafe { pg_sys::type_is_enum(type_oid) }
}

/// A place to keep rows: in memory up to work_mem, then on disk.
///
/// Shared with whoever reads the session, so that rows can be kept when somebody else needs the session before
/// the scan has read them all. Lives no longer than the query.
pub struct RowStore {
    pub(crate) codecs: Option<Rc<Codecs>>,
    shard: usize,
    places: Vec<Option<Range<usize>>>,
    /// Rows that are still as they came, since decoding them may run users' code; behind those of `store`.
    undecoded: Option<Undecoded>,
    /// Arrays and memory for a row on its way into the store.
    scratch: (Vec<Datum>, Vec<bool>),
    row_context: pg_sys::MemoryContext,
    query_context: pg_sys::MemoryContext,
    /// Whom the store's files belong to, whoever opens it: the query that reads.
    pub(crate) owner: pg_sys::ResourceOwner,
    pub(crate) descriptor: pg_sys::TupleDesc,
    pub(crate) store: *mut pg_sys::Tuplestorestate,
    /// Rows kept, and how many of them have been taken. A tuplestore that has been read to its end does not
    /// show rows that are added later, so it is never read beyond what is known to be there.
    pub(crate) kept: u64,
    pub(crate) taken: u64,
}

impl RowStore {
    /// An empty store for rows of `descriptor`.
    pub(crate) fn new(query_context: pg_sys::MemoryContext, descriptor: pg_sys::TupleDesc) -> Self {
        Self {
            codecs: None,
            shard: 0,
            places: Vec::new(),
            undecoded: None,
            scratch: Default::default(),
            row_context: std::ptr::null_mut(),
            query_context,
            // SAFETY: reads the backend's state; the executor runs under the query's owner.
            owner: unsafe { pg_sys::CurrentResourceOwner },
            descriptor,
            store: std::ptr::null_mut(),
            kept: 0,
            taken: 0,
        }
    }

    /// Tells the shard that the next rows come from.
    pub fn set_shard(&mut self, shard: usize) {
        self.shard = shard;
    }

    /// Decoding may run users' code.
    pub fn decoding_runs_code(&self) -> bool {
        self.codecs.as_ref().is_some_and(|codecs| codecs.runs_code)
    }

    /// Decodes a remote row into arrays of the descriptor's length, in the current memory context.
    pub(crate) unsafe fn decode(
        &mut self,
        values: *mut Datum,
        nulls: *mut bool,
        row: Row<'_>,
    ) -> Result<(), PgError> {
        let codecs =
            self.codecs.clone().ok_or_else(|| PgError::internal("a scan without codecs"))?;
        // SAFETY: the caller vouches for the arrays.
        unsafe { codecs.decode(&mut self.places, values, nulls, row, self.shard) }
    }

    /// Keeps a row. Runs no code of users, so that the caller may hold whatever they may want.
    pub fn keep(&mut self, row: Row<'_>) -> Result<(), PgError> {
        if self.decoding_runs_code() {
            let (context, owner) = (self.query_context, self.owner);
            self.undecoded.get_or_insert_with(|| Undecoded::new(context, owner)).keep(&row);
            return Ok(());
        }
        self.open();
        let (mut values, mut nulls) = self.scratch();
        let row_context = self.row_context();
        // SAFETY: live contexts; the store copies the values, which live in a context that is reset before the next.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(row_context);
            let outcome = self.decode(values.as_mut_ptr(), nulls.as_mut_ptr(), row);
            pg_sys::MemoryContextSwitchTo(before);
            if outcome.is_ok() {
                self.put(&mut values, &mut nulls);
            }
            pg_sys::MemoryContextReset(row_context);
            self.scratch = (values, nulls);
            outcome
        }
    }

    /// Arrays as long as the descriptor.
    fn scratch(&mut self) -> (Vec<Datum>, Vec<bool>) {
        // SAFETY: the descriptor is live.
        let natts = unsafe { (*self.descriptor).natts } as usize;
        let (mut values, mut nulls) = std::mem::take(&mut self.scratch);
        values.resize(natts, Datum::from(0));
        nulls.resize(natts, true);
        (values, nulls)
    }

    fn row_context(&mut self) -> pg_sys::MemoryContext {
        if self.row_context.is_null() {
            // SAFETY: a child of a live context.
            self.row_context = unsafe {
                pg_sys::AllocSetContextCreateInternal(
                    self.query_context,
                    c"pg_shard row".as_ptr(),
                    0,
                    1024,
                    8 * 1024 * 1024,
                )
            };
        }
        self.row_context
    }

    /// Stores a decoded row.
    ///
    /// # Safety
    ///
    /// The arrays are as long as the descriptor, and the store is open.
    unsafe fn put(&mut self, values: &mut [Datum], nulls: &mut [bool]) {
        // SAFETY: the caller vouches for arrays and store; it copies the values.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.query_context);
            pg_sys::tuplestore_putvalues(
                self.store,
                self.descriptor,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            pg_sys::MemoryContextSwitchTo(before);
        }
        self.kept += 1;
    }

    /// Keeps a row that was computed here.
    ///
    /// # Safety
    ///
    /// A live, filled slot with the store's descriptor.
    pub(crate) unsafe fn keep_slot(&mut self, slot: *mut pg_sys::TupleTableSlot) {
        self.open();
        // SAFETY: the caller vouches for the slot; the store copies the row.
        unsafe { pg_sys::tuplestore_puttupleslot(self.store, slot) };
        self.kept += 1;
    }

    fn open(&mut self) {
        if !self.store.is_null() {
            return;
        }
        // SAFETY: made in the query's context and under its owner, which outlive us; nothing between the two
        // switches of the owner raises but for want of memory, and an abort sets the owner itself.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.query_context);
            let owner = pg_sys::CurrentResourceOwner;
            pg_sys::CurrentResourceOwner = self.owner;
            self.store = pg_sys::tuplestore_begin_heap(true, false, pg_sys::work_mem);
            pg_sys::CurrentResourceOwner = owner;
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
        self.undecoded.take().into_iter().for_each(Undecoded::close);
        if !self.store.is_null() {
            // SAFETY: a live store.
            unsafe { pg_sys::tuplestore_clear(self.store) };
        }
    }

    pub(crate) fn close(&mut self) {
        self.undecoded.take().into_iter().for_each(Undecoded::close);
        if !self.store.is_null() {
            // SAFETY: a live store, ended once.
            unsafe { pg_sys::tuplestore_end(self.store) };
            self.store = std::ptr::null_mut();
        }
    }
}

/// Decodes a row for the reader of a store, as [`RowStore::decode`]. What users' code asks for meanwhile may put more rows into
/// the store, so nobody holds it.
///
/// # Safety
///
/// The arrays are as long as the store's descriptor.
pub(crate) unsafe fn decode(
    rows: &RefCell<RowStore>,
    values: *mut Datum,
    nulls: *mut bool,
    row: Row<'_>,
) -> Result<(), PgError> {
    if !rows.borrow().decoding_runs_code() {
        // SAFETY: the caller vouches for the arrays.
        return unsafe { rows.borrow_mut().decode(values, nulls, row) };
    }
    let (codecs, shard) = (rows.borrow().codecs.clone(), rows.borrow().shard);
    let codecs = codecs.ok_or_else(|| PgError::internal("a scan without codecs"))?;
    // SAFETY: the caller vouches for the arrays.
    unsafe { codecs.decode(&mut Vec::new(), values, nulls, row, shard) }
}

/// Decodes the rows that are still as they came. For the reader of a store, who holds no session and not the store itself.
pub fn settle(rows: &RefCell<RowStore>) -> Result<(), PgError> {
    loop {
        let mut store = rows.borrow_mut();
        let Some(mut row) = store.undecoded.as_mut().and_then(Undecoded::take) else {
            return Ok(());
        };
        store.open();
        let (mut values, mut nulls) = store.scratch();
        let row_context = store.row_context();
        drop(store);
        // SAFETY: as in `RowStore::keep`; the row's memory is this store's own, whose rows nobody else decodes.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(row_context);
            let outcome = decode(rows, values.as_mut_ptr(), nulls.as_mut_ptr(), row.as_row());
            pg_sys::MemoryContextSwitchTo(before);
            outcome?;
            let mut store = rows.borrow_mut();
            store.put(&mut values, &mut nulls);
            pg_sys::MemoryContextReset(row_context);
            store.scratch = (values, nulls);
        }
        pgrx::check_for_interrupts!();
    }
}

unsafe fn make_row(
    table: Oid,
    columns: &[usize],
    datum: &mut dyn FnMut(usize) -> Option<Datum>,
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
            if (*version::attribute(descriptor, index)).attisdropped {
                continue;
            }
            let Some(column) = live.next() else { break };
            if let Some(value) = datum(*column) {
                values[index] = value;
                nulls[index] = false;
            }
        }
        let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::relation_close(relation, pg_sys::NoLock as c_int);
        pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
    }
}
