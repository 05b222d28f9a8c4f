//! Rows that this node keeps for others, split into parts by the hash of a column: one file for each time that rows are
//! split.
//!
//! `pgs_catalog.split_rows` is an aggregate: each row's columns are written in binary, as a client would be sent them, to
//! the file's next piece of its part; its result tells how much there is of each part. `pgs_catalog.rows_of` reads one
//! part of the rows that several nodes have split, of this node's own file or over the network, which is the extension's
//! affair.
//!
//! The file lies among PostgreSQL's temporary files, under a name that nobody can guess, and goes when its session drops it
//! or ends; PostgreSQL removes what is left when it starts. While it is written it counts against `temp_file_limit`. Only the role
//! that has split the rows, or a superuser, reads them. What makes a file or reaches a node is done on the word of a
//! coordinator only, which the extension proves (`open_instruction`). The columns' types are those of the server itself, and both
//! ends speak the encoding of the same client, the coordinator.

use crate::extension::extension;
use crate::sys::boundary::boundary;
use crate::sys::decoder::Decoder;
use crate::sys::error::{PgError, SqlState};
use crate::sys::node;
use crate::sys::unguarded;
use crate::sys::value::{Encoder, Hasher};
use crate::sys::version;
use pgrx::pg_sys::{self, Datum, NodeTag, Oid};
use protocol::Arguments;
use shardmap::ShardMap;
use shardmap::instruction::{self, Purpose};
use shardmap::repartition::{
    PartitionSize, PartitionSpec, RepartitionedRows, is_name, sizes_to_text,
};
use std::cell::{Cell, RefCell};
use std::ffi::{CString, c_int};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

/// Rows that wait to be written, of all parts together.
const BUFFERED: usize = 8 * 1024 * 1024;

/// A piece of a file is at most so long, unless one row is longer.
const LONGEST_PIECE: usize = 128 * 1024;

/// A part's rows are written when there are so many bytes of them, even if there are very many parts.
const SHORTEST_PIECE: usize = 8 * 1024;

/// What stands at the end of a file that is complete.
const END: &[u8; 8] = b"pgsparts";

/// More is not written or read at once; PostgreSQL's values are no longer.
const LONGEST_READ: usize = 0x3fff_ffff - 64;

/// The first argument of the aggregate that is a column.
const FIRST_COLUMN: usize = 2;

thread_local! {
    /// What this session keeps.
    static KEPT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static REMOVES_AT_EXIT: Cell<bool> = const { Cell::new(false) };
}

/// Where rows of a name are kept; the working directory of a backend is the data directory.
fn path_of(name: &str) -> String {
    debug_assert!(is_name(name), "looked at before");
    // The prefix tells PostgreSQL to remove it when it starts (`RemovePgTempFiles`, `src/backend/storage/file/fd.c`).
    format!("base/pgsql_tmp/pgsql_tmp.{name}")
}

/// A name that nobody can guess.
pub fn new_name() -> String {
    let mut bytes = [0u8; 16];
    // SAFETY: fills the array (`src/port/pg_strong_random.c`).
    let is_filled = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
    assert!(is_filled, "the system has random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn remove(name: &str) {
    let _ = fs::remove_file(path_of(name));
}

/// Drops rows that this session has split; all of them if none are named.
pub fn drop_kept(names: &[String]) {
    KEPT.with_borrow_mut(|kept| {
        kept.retain(|name| {
            let is_meant = names.is_empty() || names.contains(name);
            if is_meant {
                remove(name);
            }
            !is_meant
        });
    });
}

unsafe extern "C-unwind" fn remove_all(_code: c_int, _argument: Datum) {
    let _ = KEPT.try_with(|kept| {
        if let Ok(kept) = kept.try_borrow() {
            kept.iter().for_each(|name| remove(name));
        }
    });
}

/// What has been written of a part.
struct Part {
    number: usize,
    /// Rows that are not in the file yet.
    waiting: Arguments,
    rows: u64,
    bytes: u64,
    /// Where its pieces begin and how long they are.
    pieces: Vec<(u64, u32)>,
}

/// Rows that are being split.
struct Splitting {
    spec: PartitionSpec,
    map: ShardMap,
    file: pg_sys::File,
    /// The file's length.
    written: u64,
    parts: Vec<Part>,
    longest_waiting: usize,
    encoders: Vec<Encoder>,
    hasher: Hasher,
    is_complete: bool,
}

impl Drop for Splitting {
    fn drop(&mut self) {
        if !self.is_complete {
            // After an ERROR; the open file is PostgreSQL's to close.
            remove(&self.spec.name);
        }
    }
}

fn no_such_way() -> PgError {
    PgError::new(SqlState::INVALID_PARAMETER_VALUE, "no such way to split rows")
}

fn could_not(what: &str, error: &io::Error) -> PgError {
    let full = matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT));
    let code = if full { SqlState::DISK_FULL } else { SqlState::IO_ERROR };
    PgError::new(code, format!("could not {what} rows for other nodes: {error}"))
}

impl Splitting {
    /// Begins, with the columns of the first row.
    ///
    /// # Safety
    ///
    /// A live call of the aggregate's transition function; the current memory context lives as long as its state.
    unsafe fn begin(call: pg_sys::FunctionCallInfo, spec: PartitionSpec) -> Result<Self, PgError> {
        // SAFETY: the caller vouches for the call; paths are zero-terminated.
        unsafe {
            let count = usize::try_from((*call).nargs).unwrap_or(0).saturating_sub(FIRST_COLUMN);
            let type_of = |column: usize| {
                let place = (column + FIRST_COLUMN) as c_int;
                pg_sys::get_fn_expr_argtype((*call).flinfo, place)
            };
            let map = ShardMap::new(spec.parts.clone());
            if spec.column >= count || map.is_empty() {
                return Err(no_such_way());
            }
            // The text is somebody's word for what the datum is.
            let actual = type_of(spec.column);
            if actual == Oid::INVALID
                || !pg_sys::IsBinaryCoercible(actual, Oid::from(spec.type_oid))
            {
                return Err(PgError::new(
                    SqlState::DATATYPE_MISMATCH,
                    "rows cannot be split by a column of another type",
                ));
            }
            if fs::symlink_metadata(path_of(&spec.name)).is_ok() {
                return Err(PgError::new(
                    SqlState::DUPLICATE_OBJECT,
                    format!("this server keeps rows \"{}\" already", spec.name),
                ));
            }
            let encoders: Vec<Encoder> =
                (0..count).map(|column| Encoder::binary(type_of(column))).collect();
            // The hash of a text is the same under every deterministic collation, and the server's default is one.
            let hasher = Hasher::find_named(
                Oid::from(spec.family),
                Oid::from(spec.type_oid),
                pg_sys::DEFAULT_COLLATION_OID,
            )
            .ok_or_else(no_such_way)?;
            pg_sys::MakePGDirectory(c"base/pgsql_tmp".as_ptr());
            let path = CString::new(path_of(&spec.name))?;
            let file = pg_sys::PathNameCreateTemporaryFile(path.as_ptr(), true);
            let parts: Vec<Part> = map
                .shards()
                .iter()
                .map(|shard| Part {
                    number: shard.id.0 as usize,
                    waiting: Arguments::bare(),
                    rows: 0,
                    bytes: 0,
                    pieces: Vec::new(),
                })
                .collect();
            let longest_waiting = (BUFFERED / parts.len()).clamp(SHORTEST_PIECE, LONGEST_PIECE);
            Ok(Self {
                spec,
                map,
                file,
                written: 0,
                parts,
                longest_waiting,
                encoders,
                hasher,
                is_complete: false,
            })
        }
    }

    /// Adds the row of a call.
    ///
    /// # Safety
    ///
    /// A live call of the aggregate's transition function, with the columns of the first one.
    unsafe fn add(&mut self, call: pg_sys::FunctionCallInfo) -> Result<(), PgError> {
        // SAFETY: the caller vouches for the call; encoders and hasher are made for its arguments' types.
        unsafe {
            let columns = (*call).args.as_ptr().add(FIRST_COLUMN);
            let key = &*columns.add(self.spec.column);
            let owner = if key.isnull {
                self.spec.keeps_nulls.then_some(0)
            } else {
                self.map.owner(self.hasher.hash(key.value))
            };
            let Some(part) = owner else { return Ok(()) };
            let waiting = &mut self.parts[part].waiting;
            for (place, encoder) in self.encoders.iter().enumerate() {
                let column = &*columns.add(place);
                encoder.append((!column.isnull).then_some(column.value), waiting);
            }
            self.parts[part].rows += 1;
            if self.parts[part].waiting.bytes().len() >= self.longest_waiting {
                self.write_part(part)?;
            }
        }
        Ok(())
    }

    fn write_part(&mut self, part: usize) -> Result<(), PgError> {
        let waiting = std::mem::replace(&mut self.parts[part].waiting, Arguments::bare());
        let at = self.written;
        if waiting.bytes().len() > LONGEST_READ {
            return Err(PgError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "a row is too long to be moved",
            ));
        }
        self.write(waiting.bytes())?;
        let part = &mut self.parts[part];
        part.bytes += waiting.bytes().len() as u64;
        part.pieces.push((at, waiting.bytes().len() as u32));
        part.waiting = waiting;
        part.waiting.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PgError> {
        bytes.chunks(LONGEST_READ).try_for_each(|chunk| self.write_chunk(chunk))
    }

    fn write_chunk(&mut self, bytes: &[u8]) -> Result<(), PgError> {
        // SAFETY: an open temporary file and bytes that are only read.
        let written = unsafe { version::write_file(self.file, bytes, self.written as i64) };
        if usize::try_from(written) != Ok(bytes.len()) {
            return Err(could_not("write", &io::Error::last_os_error()));
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Writes what is left, and where everything is: the owner, and for each part its number, and its pieces.
    fn complete(&mut self) -> Result<Vec<PartitionSize>, PgError> {
        for part in 0..self.parts.len() {
            if !self.parts[part].waiting.bytes().is_empty() {
                self.write_part(part)?;
            }
        }
        let mut end = Vec::new();
        end.extend_from_slice(&unguarded::current_role().to_u32().to_be_bytes());
        end.extend_from_slice(&(self.parts.len() as u32).to_be_bytes());
        for part in &self.parts {
            end.extend_from_slice(&(part.number as u32).to_be_bytes());
            end.extend_from_slice(&(part.pieces.len() as u32).to_be_bytes());
            for (at, length) in &part.pieces {
                end.extend_from_slice(&at.to_be_bytes());
                end.extend_from_slice(&length.to_be_bytes());
            }
        }
        let length = end.len() as u64;
        end.extend_from_slice(&length.to_be_bytes());
        end.extend_from_slice(END);
        self.write(&end)?;
        // SAFETY: opened by `begin`, closed once.
        unsafe { pg_sys::FileClose(self.file) };
        self.is_complete = true;
        KEPT.with_borrow_mut(|kept| kept.push(self.spec.name.clone()));
        if !REMOVES_AT_EXIT.replace(true) {
            // SAFETY: the callback raises nothing, and is registered once in a backend.
            unsafe { pg_sys::on_proc_exit(Some(remove_all), Datum::from(0)) };
        }
        let sizes = self.parts.iter().filter(|part| part.rows > 0);
        Ok(sizes
            .map(|part| PartitionSize { part: part.number, rows: part.rows, bytes: part.bytes })
            .collect())
    }
}

/// `pgs_catalog.split_rows_step`: one more row.
///
/// # Safety
///
/// Called by PostgreSQL as the transition function of `pgs_catalog.split_rows`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_split_rows_step(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: PostgreSQL's live call; the state is one that an earlier call made, in the aggregate's memory.
    unsafe {
        boundary(|| {
            let mut memory = std::ptr::null_mut();
            let argument = |index: usize| &*(*call).args.as_ptr().add(index);
            if pg_sys::AggCheckCallContext(call, &raw mut memory)
                != pg_sys::AGG_CONTEXT_AGGREGATE as c_int
                || argument(1).isnull
            {
                return Err(PgError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    "rows are split by an aggregate, with a text that says how",
                ));
            }
            let state = if argument(0).isnull {
                let text = pg_sys::text_to_cstring(argument(1).value.cast_mut_ptr());
                let sealed = node::text_of(text);
                let text = extension().open_instruction(Purpose::Split, &sealed)?;
                let spec = PartitionSpec::parse(text).ok_or_else(no_such_way)?;
                let before = pg_sys::MemoryContextSwitchTo(memory);
                let made = Splitting::begin(call, spec);
                pg_sys::MemoryContextSwitchTo(before);
                pgrx::PgMemoryContexts::For(memory).leak_and_drop_on_delete(made?)
            } else {
                argument(0).value.cast_mut_ptr::<Splitting>()
            };
            (*state).add(call)?;
            Ok(Datum::from(state))
        })
    }
}

/// `pgs_catalog.split_rows_end`: how much there is of each part; NULL if there was no row.
///
/// # Safety
///
/// Called by PostgreSQL as the final function of `pgs_catalog.split_rows`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_split_rows_end(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: PostgreSQL's live call; the state is the transition function's.
    unsafe {
        boundary(|| {
            let state = &*(*call).args.as_ptr();
            if pg_sys::AggCheckCallContext(call, std::ptr::null_mut())
                != pg_sys::AGG_CONTEXT_AGGREGATE as c_int
            {
                return Err(PgError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    "rows are split by an aggregate",
                ));
            }
            if state.isnull {
                (*call).isnull = true;
                return Ok(Datum::from(0));
            }
            let splitting = &mut *state.value.cast_mut_ptr::<Splitting>();
            if splitting.is_complete {
                return Err(PgError::internal("rows have been split already"));
            }
            let sizes = splitting.complete()?;
            let text = node::c_text(&sizes_to_text(&sizes));
            Ok(Datum::from(pg_sys::cstring_to_text(text)))
        })
    }
}

/// The rows of one part, piece by piece.
#[derive(Debug)]
pub struct PartReader {
    file: File,
    pieces: std::vec::IntoIter<(u64, u32)>,
}

impl PartReader {
    /// A part of the rows that this server keeps under that name; none if it does not know the name.
    pub fn open(name: &str, part: usize) -> Result<Option<Self>, PgError> {
        if !is_name(name) {
            return Ok(None);
        }
        let file = match File::open(path_of(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(could_not("read", &error)),
        };
        let (owner, pieces) = read_end(&file, part).map_err(|error| could_not("read", &error))?;
        if owner != unguarded::current_role() && !crate::catalog::table::is_superuser() {
            return Err(PgError::new(
                SqlState::INSUFFICIENT_PRIVILEGE,
                "permission denied for rows that another role has split",
            ));
        }
        Ok(Some(Self { file, pieces: pieces.into_iter() }))
    }

    /// The next piece, whole rows each behind the other; none at the end.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, PgError> {
        let Some((at, length)) = self.pieces.next() else { return Ok(None) };
        let mut piece = vec![0; length as usize];
        self.file.read_exact_at(&mut piece, at).map_err(|error| could_not("read", &error))?;
        Ok(Some(piece))
    }
}

/// Whose the file is, and the pieces of a part.
fn read_end(file: &File, part: usize) -> io::Result<(Oid, Vec<(u64, u32)>)> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let length = file.metadata()?.len();
    let mut last = [0; 16];
    file.read_exact_at(&mut last, length.checked_sub(16).ok_or_else(malformed)?)?;
    let (end_length, end) = last.split_at(8);
    if end != END {
        return Err(malformed());
    }
    let end_length = u64::from_be_bytes(end_length.try_into().map_err(|_| malformed())?);
    let start = (length - 16).checked_sub(end_length).ok_or_else(malformed)?;
    let mut end = vec![0; end_length as usize];
    file.read_exact_at(&mut end, start)?;
    let mut rest = &end[..];
    let mut take = |bytes: usize| -> io::Result<u64> {
        let (number, behind) = rest.split_at_checked(bytes).ok_or_else(malformed)?;
        rest = behind;
        Ok(number.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)))
    };
    let owner = Oid::from(take(4)? as u32);
    let mut found = Vec::new();
    for _ in 0..take(4)? {
        let is_it = take(4)? == part as u64;
        for _ in 0..take(4)? {
            let piece = (take(8)?, take(4)? as u32);
            if is_it {
                found.push(piece);
            }
        }
    }
    Ok((owner, found))
}

/// Memory for the values of one row.
struct RowMemory(pg_sys::MemoryContext);

impl RowMemory {
    fn new() -> Self {
        // SAFETY: a child of the current context.
        Self(unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurrentMemoryContext,
                c"pg_shard moved row".as_ptr(),
                0,
                8 * 1024,
                8 * 1024 * 1024,
            )
        })
    }
}

/// WriteGates pieces into rows of a tuplestore.
struct Unpacker {
    decoders: Vec<Decoder>,
    values: Vec<Datum>,
    nulls: Vec<bool>,
    memory: RowMemory,
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
}

impl Unpacker {
    /// Appends the rows of a piece; tells how many they were.
    fn unpack(&mut self, mut piece: Vec<u8>) -> Result<u64, PgError> {
        let malformed = || PgError::internal("rows of another node are malformed");
        let end = piece.len();
        // Decoders need one byte behind the last value.
        piece.push(0);
        let (mut at, mut rows) = (0, 0);
        // SAFETY: store, descriptor and memory are live as long as this value; values are of the descriptor's types, and the
        // store copies them before their memory is reset.
        unsafe {
            while at < end {
                let before = pg_sys::MemoryContextSwitchTo(self.memory.0);
                for (column, decoder) in self.decoders.iter().enumerate() {
                    let head = piece.get(at..at + 4).ok_or_else(malformed)?;
                    let length = i32::from_be_bytes([head[0], head[1], head[2], head[3]]);
                    at += 4;
                    match usize::try_from(length) {
                        Err(_) => self.nulls[column] = true,
                        Ok(length) if at + length <= end => {
                            self.values[column] = decoder.datum(&mut piece[at..=at + length]);
                            self.nulls[column] = false;
                            at += length;
                        }
                        Ok(_) => return Err(malformed()),
                    }
                }
                pg_sys::MemoryContextSwitchTo(before);
                pg_sys::tuplestore_putvalues(
                    self.store,
                    self.descriptor,
                    self.values.as_mut_ptr(),
                    self.nulls.as_mut_ptr(),
                );
                unguarded::reset(self.memory.0);
                rows += 1;
            }
        }
        Ok(rows)
    }
}

/// `pgs_catalog.rows_of`: a part of rows that several nodes have split.
///
/// # Safety
///
/// Called by PostgreSQL, in FROM with a list of columns.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_rows_of(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: PostgreSQL's live call with three arguments, none of them NULL (STRICT).
    unsafe {
        boundary(|| {
            let argument = |index: usize| (*(*call).args.as_ptr().add(index)).value;
            let text = node::text_of(pg_sys::text_to_cstring(argument(0).cast_mut_ptr()));
            let wrong = || {
                PgError::new(SqlState::INVALID_PARAMETER_VALUE, "no such description of moved rows")
            };
            let part = usize::try_from(argument(1).value() as i32).map_err(|_| wrong())?;
            // Without sources nobody is reached: so it stands in a plan that is only explained.
            let text = match text.as_str() {
                "" => "",
                sealed => extension().open_instruction(Purpose::Fetch, sealed)?,
            };
            let moved = RepartitionedRows::parse(text).ok_or_else(wrong)?.of_parts(&[part]);
            pg_sys::InitMaterializedSRF(call, pg_sys::MAT_SRF_USE_EXPECTED_DESC);
            let result = (*call).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            let descriptor = (*result).setDesc;
            let columns = (*descriptor).natts as usize;
            if columns == 0 {
                return Err(wrong());
            }
            let decoders = (0..columns)
                .map(|index| {
                    let attribute = &*version::attribute(descriptor, index);
                    Decoder::new(attribute.atttypid, -1, true)
                })
                .collect();
            let mut unpacker = Unpacker {
                decoders,
                values: vec![Datum::from(0); columns],
                nulls: vec![true; columns],
                memory: RowMemory::new(),
                store: (*result).setResult,
                descriptor,
            };
            let mut rows = vec![0u64; moved.sources.len()];
            extension().fetch_part(&moved, part, &mut |source, piece| {
                pgrx::check_for_interrupts!();
                rows[source] += unpacker.unpack(piece)?;
                Ok(())
            })?;
            for (source, rows) in moved.sources.iter().zip(rows) {
                let expected: u64 = source.parts.iter().map(|size| size.rows).sum();
                if rows != expected {
                    return Err(PgError::new(
                        SqlState::CONNECTION_FAILURE,
                        format!(
                            "node \"{}\" delivered {rows} rows of {expected} that were to be moved",
                            source.node
                        ),
                    ));
                }
            }
            (*call).isnull = true;
            Ok(Datum::from(0))
        })
    }
}

/// `pgs_catalog.rows_of_support`: how many rows the planner may expect.
///
/// # Safety
///
/// Called by PostgreSQL's planner.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_rows_of_support(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: the planner's live request; each node is cast to the struct of its tag.
    unsafe {
        boundary(|| {
            let node = (*(*call).args.as_ptr()).value.cast_mut_ptr::<pg_sys::Node>();
            let rows =
                node::cast::<pg_sys::SupportRequestRows, _>(node, NodeTag::T_SupportRequestRows)
                    .and_then(|request| {
                        let rows = expected_rows(request)?;
                        (*request).rows = rows;
                        Some(rows)
                    });
            Ok(rows.map_or(Datum::from(0), |_| Datum::from(node)))
        })
    }
}

/// What the call's text says of its part; if that is not known yet, the caller's guess.
unsafe fn expected_rows(request: *mut pg_sys::SupportRequestRows) -> Option<f64> {
    // SAFETY: the caller passes a live request; each node is cast to the struct of its tag.
    unsafe {
        let call = node::cast::<pg_sys::FuncExpr, _>((*request).node, NodeTag::T_FuncExpr)?;
        let known = |index: usize| {
            let argument: *mut pg_sys::Node = node::nth((*call).args, index);
            let value = pg_sys::estimate_expression_value((*request).root, argument);
            node::cast::<pg_sys::Const, _>(value, NodeTag::T_Const)
                .filter(|value| !(**value).constisnull)
                .map(|value| (*value).constvalue)
        };
        if node::length((*call).args) != 3 || (*request).root.is_null() {
            return None;
        }
        let told = || {
            let text = node::text_of(pg_sys::text_to_cstring(known(0)?.cast_mut_ptr()));
            let part = usize::try_from(known(1)?.value() as i32).ok()?;
            let moved = RepartitionedRows::parse(instruction::unproven(&text)?)?;
            // A text without sources stands for one that will be there when the statement is executed.
            (!moved.sources.is_empty()).then(|| moved.of_parts(&[part]).rows() as f64)
        };
        told().or_else(|| Some(f64::from_bits(known(2)?.value() as u64)))
    }
}

/// How PostgreSQL is to call these functions.
static VERSION: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };

/// Of `pg_shard_split_rows_step`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shard_split_rows_step() -> *const pg_sys::Pg_finfo_record {
    &raw const VERSION
}

/// Of `pg_shard_split_rows_end`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shard_split_rows_end() -> *const pg_sys::Pg_finfo_record {
    &raw const VERSION
}

/// Of `pg_shard_rows_of`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shard_rows_of() -> *const pg_sys::Pg_finfo_record {
    &raw const VERSION
}

/// Of `pg_shard_rows_of_support`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shard_rows_of_support() -> *const pg_sys::Pg_finfo_record {
    &raw const VERSION
}
