//! COPY FROM whose records travel on as the client wrote them: only the distribution column is read here.
//!
//! That is right if a worker reads a record as this server would: the options go along, and so do the settings that
//! input functions heed. [`CopyInput::lines`] says when; otherwise rows are parsed here. What a worker would put for
//! `now` and its like is put here, so that all placements hold the same.

use super::{CopyInput, per_tuple_context};
use crate::sys::error::{PgError, SqlState};
use crate::sys::node;
use crate::sys::value::TextStyle;
use crate::sys::value::{FIRST_USER_OID, Hasher};
use crate::sys::version;
use crate::sys::version::copy_state::{self as state, FROM_CLIENT, State};
use pgrx::pg_sys::{self, Oid};
use protocol::copy::{Field, Fields, Format, Next, Record, Splitter};
use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_int, c_void};

/// How much is read of a file at once.
const CHUNK: usize = 64 * 1024;

/// What to do with a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Nothing: any server takes the same text for the same value.
    Any,
    /// To compute them here if there are words like `now` in them.
    Words,
    /// To compute them here.
    Here,
}

/// Records of a COPY FROM.
pub struct Lines {
    format: Format,
    splitter: Splitter,
    data: Vec<u8>,
    at: usize,
    is_all: bool,
    record: Record,
    /// How to read each column of the data, up to the last one that is looked at.
    columns: Vec<Reading>,
    /// Where the distribution column is among them.
    key: usize,
    fields: Vec<Field>,
    rows: i64,
}

impl CopyInput {
    /// Its records as they are, if workers may have them so; `key` is the distribution column.
    ///
    /// # Errors
    ///
    /// If the header line is not one.
    pub fn lines(&mut self, key: i16) -> Result<Option<Lines>, PgError> {
        if !self.filter.is_null() {
            return Ok(None);
        }
        // SAFETY: the state that `open` has got from PostgreSQL, and catalog look-ups by value.
        unsafe {
            let state = state::of(self.state);
            let options = &(*state).options;
            let understood = (*state).relation == self.relation
                && !options.binary
                && !options.freeze
                && !state::skips_errors(options)
                && !options.convert_selectively
                && options.header_line != pg_sys::CopyHeaderChoice::COPY_HEADER_MATCH
                && (*state).num_defaults == 0
                && (*state).file_encoding <= pg_sys::pg_enc::PG_KOI8U as c_int
                && settings_are_usual();
            if !understood {
                return Ok(None);
            }
            let Some(format) = format_of(options) else { return Ok(None) };
            if !format.is_plain() || (*state).need_transcoding && !format.null.is_ascii() {
                return Ok(None);
            }
            let numbers = &self.numbers;
            let Some(key) = numbers.iter().position(|number| *number == key) else {
                return Ok(None);
            };
            let mut columns: Vec<Reading> =
                numbers.iter().map(|number| reading(self.column_type(*number))).collect();
            if columns.contains(&Reading::Here) {
                return Ok(None);
            }
            let last = columns.iter().rposition(|reading| *reading == Reading::Words);
            columns.truncate(key.max(last.unwrap_or(0)) + 1);
            let mut lines = Lines {
                splitter: Splitter::new(&format),
                format,
                data: Vec::new(),
                at: 0,
                is_all: false,
                record: Record { length: 0, consumed: 0, newlines: 0, returns: 0 },
                columns,
                key,
                fields: Vec::new(),
                rows: 0,
            };
            if (*state).options.header_line == pg_sys::CopyHeaderChoice::COPY_HEADER_TRUE {
                lines.next_record(self)?;
            }
            Ok(Some(lines))
        }
    }

    fn column_type(&self, number: i16) -> Oid {
        // SAFETY: a column of the open table.
        unsafe { (*version::attribute((*self.relation).rd_att, number as usize - 1)).atttypid }
    }

    /// The names of the columns in the data, and the options, for a COPY of its records.
    pub fn columns_and_options(&self) -> (Vec<String>, String) {
        // SAFETY: the state that `open` has got from PostgreSQL; option texts are zero-terminated, flags are as many
        // as the table has columns, or absent.
        unsafe {
            let state = state::of(self.state);
            let options = &(*state).options;
            let numbers = &self.numbers;
            let name = |number: i16| {
                let descriptor = (*self.relation).rd_att;
                let attribute = version::attribute(descriptor, number as usize - 1);
                node::text_of((*attribute).attname.data.as_ptr())
            };
            let quoted = |text: *mut c_char| literal(&node::text_of(text));
            let mut list = vec![
                format!("FORMAT {}", if options.csv_mode { "csv" } else { "text" }),
                format!("DELIMITER {}", quoted(options.delim)),
                format!("NULL {}", quoted(options.null_print)),
            ];
            if options.csv_mode {
                list.push(format!("QUOTE {}", quoted(options.quote)));
                list.push(format!("ESCAPE {}", quoted(options.escape)));
                for (word, flags) in [
                    ("FORCE_NOT_NULL", options.force_notnull_flags),
                    ("FORCE_NULL", options.force_null_flags),
                ] {
                    let forced: Vec<String> = numbers
                        .iter()
                        .filter(|number| flag(flags, **number))
                        .map(|number| format!("\"{}\"", name(*number).replace('"', "\"\"")))
                        .collect();
                    if !forced.is_empty() {
                        list.push(format!("{word} ({})", forced.join(", ")));
                    }
                }
            }
            if (*state).need_transcoding {
                let encoding = version::encoding_name((*state).file_encoding);
                list.push(format!("ENCODING {}", literal(&node::text_of(encoding))));
            }
            (numbers.iter().copied().map(name).collect(), format!(" WITH ({})", list.join(", ")))
        }
    }
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// # Safety
///
/// `flags` is null or has one for each column of the table.
unsafe fn flag(flags: *mut bool, number: i16) -> bool {
    // SAFETY: the caller vouches for the array.
    !flags.is_null() && unsafe { *flags.add(number as usize - 1) }
}

/// # Safety
///
/// Options of a COPY that PostgreSQL has checked.
unsafe fn format_of(options: &pg_sys::CopyFormatOptions) -> Option<Format> {
    // SAFETY: zero-terminated texts; those of CSV are set in CSV only.
    unsafe {
        let one = |text: *mut c_char| match CStr::from_ptr(text).to_bytes() {
            [byte] => Some(*byte),
            _ => None,
        };
        let plain = if options.csv_mode { Format::csv() } else { Format::text() };
        Some(Format {
            csv: options.csv_mode,
            delimiter: one(options.delim)?,
            quote: if options.csv_mode { one(options.quote)? } else { plain.quote },
            escape: if options.csv_mode { one(options.escape)? } else { plain.escape },
            null: CStr::from_ptr(options.null_print).to_bytes().to_vec(),
            has_strict_marker: version::copy_state::HAS_STRICT_MARKER,
        })
    }
}

/// Settings that input functions heed and that sessions to workers do not share are as they are on any server.
fn settings_are_usual() -> bool {
    let is = |name: &CStr, value: &str| crate::catalog::table::setting(name) == value;
    is(c"array_nulls", "on") && is(c"timezone_abbreviations", "Default")
}

/// How values of a type are to be read.
fn reading(type_oid: Oid) -> Reading {
    // SAFETY: syscache look-ups by value.
    unsafe {
        let base = pg_sys::getBaseType(type_oid);
        let parts = [
            pg_sys::get_element_type(base),
            pg_sys::get_range_subtype(base),
            pg_sys::get_multirange_range(base),
        ];
        if let Some(part) = parts.into_iter().find(|part| *part != Oid::INVALID) {
            return reading(part);
        }
        match base {
            pg_sys::DATEOID
            | pg_sys::TIMEOID
            | pg_sys::TIMETZOID
            | pg_sys::TIMESTAMPOID
            | pg_sys::TIMESTAMPTZOID => return Reading::Words,
            // Their settings travel along, or make no difference (`lc_monetary`).
            pg_sys::INTERVALOID | pg_sys::XMLOID | pg_sys::MONEYOID => return Reading::Any,
            _ => {}
        }
        let kind = pg_sys::get_typtype(base) as u8;
        let (mut input, mut parameter) = (Oid::INVALID, Oid::INVALID);
        pg_sys::getTypeInputInfo(base, &raw mut input, &raw mut parameter);
        let is_immutable = pg_sys::func_volatile(input) as u8 == pg_sys::PROVOLATILE_IMMUTABLE;
        let is_enum = kind == pg_sys::TYPTYPE_ENUM && base.to_u32() >= FIRST_USER_OID;
        if is_immutable || is_enum { Reading::Any } else { Reading::Here }
    }
}

/// There may be a word in a date or time that means another moment each time it is read: `now`, `today`, `tomorrow`,
/// `yesterday`. Names of months, days and zones look alike.
fn may_be_word(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b'o' | b'O' | b'd' | b'D' | b'\\' | 128..))
}

impl Lines {
    /// Goes on to the next record; false at the end.
    pub fn next(&mut self, input: &mut CopyInput) -> Result<bool, PgError> {
        self.at += self.record.consumed;
        let found = self.next_record(input)?;
        self.rows += i64::from(found);
        Ok(found)
    }

    fn next_record(&mut self, input: &mut CopyInput) -> Result<bool, PgError> {
        loop {
            let next = self.splitter.next(&self.data[self.at..], self.is_all);
            // SAFETY: the state that `open` has got from PostgreSQL.
            unsafe { (*state::of(input.state)).line_number = self.splitter.line() };
            match next {
                Ok(Next::Record(record)) => {
                    self.record = record;
                    return Ok(true);
                }
                Ok(Next::End) => {
                    self.record.consumed = 0;
                    // What follows the mark is of no interest, but the client must have sent it.
                    while !self.is_all {
                        self.data.clear();
                        self.at = 0;
                        self.read(input)?;
                    }
                    return Ok(false);
                }
                Ok(Next::More) => {
                    self.data.drain(..self.at);
                    self.at = 0;
                    self.read(input)?;
                }
                Err(bad) => {
                    let error = PgError::new(SqlState::BAD_COPY_FILE_FORMAT, bad.to_string());
                    return Err(match bad.hint() {
                        Some(hint) => error.hint(hint),
                        None => error,
                    });
                }
            }
        }
    }

    /// Reads some more data.
    fn read(&mut self, input: &mut CopyInput) -> Result<(), PgError> {
        pgrx::check_for_interrupts!();
        input.tell_progress(self.rows);
        let before = self.data.len();
        // SAFETY: the state that `open` has got from PostgreSQL.
        unsafe {
            let state = state::of(input.state);
            let more = if (*state).source == FROM_CLIENT {
                read_client(state, &mut self.data)?
            } else {
                read_file((*state).file, &mut self.data)?
            };
            self.is_all = !more;
            (*state).reached_eof = self.is_all;
            (*state).bytes_processed += (self.data.len() - before) as u64;
            let bytes = (*state).bytes_processed as i64;
            pg_sys::pgstat_progress_update_param(
                pg_sys::PROGRESS_COPY_BYTES_PROCESSED as c_int,
                bytes,
            );
        }
        Ok(())
    }

    fn record(&self) -> &[u8] {
        &self.data[self.at..self.at + self.record.length]
    }

    /// The hash of the record's distribution column; none for NULL.
    pub fn hash(&mut self, input: &mut CopyInput, hasher: &Hasher) -> Result<Option<i32>, PgError> {
        let record = &self.data[self.at..self.at + self.record.length];
        self.fields.clear();
        self.fields.extend(Fields::of(record, &self.format).take(self.columns.len()));
        let number = input.numbers[self.key];
        let Some(field) = self.fields.get(self.key) else {
            input.show_line(record);
            return Err(wrong_count(input, self.fields.len()));
        };
        // SAFETY: the hasher was found for the column's type.
        let hash = input
            .value(number, field, record, &self.format)?
            .map(|value| unsafe { hasher.hash(value) });
        if hash.is_none() {
            input.show_line(record);
            // Whoever reads all fields finds first that there are too many or too few.
            let count = Fields::of(record, &self.format).count();
            if count != input.numbers.len() {
                return Err(wrong_count(input, count));
            }
        }
        Ok(hash)
    }

    /// The number of the record's last line, as the client counts.
    pub fn line(&self) -> u64 {
        self.splitter.line()
    }

    /// How many lines the record has for whoever reads it; `first` if nothing stands before it.
    pub fn height(&self, first: bool) -> u32 {
        1 + self.splitter.inner_lines(&self.record, first)
    }

    /// Appends the record, with its line end.
    pub fn append(&self, input: &mut CopyInput, out: &mut Vec<u8>) -> Result<(), PgError> {
        let record = self.record();
        let mut done = 0;
        for (index, field) in self.fields.iter().enumerate() {
            if self.columns[index] == Reading::Words && may_be_word(field.raw(record)) {
                let number = input.numbers[index];
                if let Some(text) = input.text_of(number, field, record, &self.format)? {
                    out.extend_from_slice(&record[done..field.start]);
                    self.format.append(&text, out);
                    done = field.end;
                }
            }
        }
        out.extend_from_slice(&record[done..]);
        // Data may end in the middle of a line; then that is the last one of its batch too.
        if self.record.consumed > self.record.length {
            out.extend_from_slice(self.splitter.line_end());
        }
        Ok(())
    }

    /// How many records there were.
    pub fn rows(&self) -> u64 {
        self.rows as u64
    }
}

impl CopyInput {
    /// A field's value; none for NULL. In the memory of the row, which is emptied first.
    fn value(
        &mut self,
        number: i16,
        field: &Field,
        record: &[u8],
        format: &Format,
    ) -> Result<Option<pg_sys::Datum>, PgError> {
        // SAFETY: the state that `open` has got from PostgreSQL; input functions are as many as the table has columns,
        // and each gets a zero-terminated text in the server's encoding.
        unsafe {
            let state = state::of(self.state);
            let options = &(*state).options;
            let context = per_tuple_context(self.estate);
            pg_sys::ReScanExprContext(context);
            let before = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
            let mut text = field.value(record, format);
            let mut is_null = field.is_null(record, format);
            let is_ascii = text.is_ascii() && !text.contains(&0);
            let converted;
            if !is_ascii {
                converted = self.server_text(field, record, format);
                text = Cow::Borrowed(&converted);
            }
            if options.csv_mode {
                if is_null && flag(options.force_notnull_flags, number) {
                    is_null = false;
                } else if flag(options.force_null_flags, number) && *text == *format.null {
                    is_null = true;
                }
            }
            let column = number as usize - 1;
            let attribute = version::attribute((*self.relation).rd_att, column);
            let bytes = pg_sys::palloc(text.len() + 1).cast::<u8>();
            std::ptr::copy_nonoverlapping(text.as_ptr(), bytes, text.len());
            *bytes.add(text.len()) = 0;
            let bytes = if is_null { std::ptr::null_mut() } else { bytes.cast::<c_char>() };
            (*state).column_name = (*attribute).attname.data.as_ptr();
            (*state).column_text = bytes;
            let value = pg_sys::InputFunctionCall(
                (*state).in_functions.add(column),
                bytes,
                *(*state).typioparams.add(column),
                (*attribute).atttypmod,
            );
            (*state).column_name = std::ptr::null();
            (*state).column_text = std::ptr::null();
            pg_sys::MemoryContextSwitchTo(before);
            Ok((!is_null).then_some(value))
        }
    }

    /// A field's value in the server's encoding, which is checked: what has been written in digits after a backslash is
    /// in that encoding already.
    fn server_text(&self, field: &Field, record: &[u8], format: &Format) -> Vec<u8> {
        let raw = self.to_server(field.raw(record));
        let value = match Fields::of(&raw, format).next() {
            Some(field) => field.value(&raw, format).into_owned(),
            None => Vec::new(),
        };
        // SAFETY: a buffer and its length.
        unsafe { pg_sys::pg_verifymbstr(value.as_ptr().cast(), value.len() as c_int, false) };
        value
    }

    /// Bytes of the client in the server's encoding.
    fn to_server(&self, bytes: &[u8]) -> Vec<u8> {
        // SAFETY: a buffer and its length; the answer is that buffer, if there is nothing to convert, or a
        // zero-terminated text in the current memory context.
        unsafe {
            let encoding = (*state::of(self.state)).file_encoding;
            let from = bytes.as_ptr().cast::<c_char>();
            let to = pg_sys::pg_any_to_server(from, bytes.len() as c_int, encoding);
            if std::ptr::eq(to, from) {
                bytes.to_vec()
            } else {
                CStr::from_ptr(to).to_bytes().to_vec()
            }
        }
    }

    /// A field's value as it is printed here; none for NULL.
    fn text_of(
        &mut self,
        number: i16,
        field: &Field,
        record: &[u8],
        format: &Format,
    ) -> Result<Option<Vec<u8>>, PgError> {
        let Some(value) = self.value(number, field, record, format)? else { return Ok(None) };
        let Some(column) = self.columns.iter_mut().find(|column| column.number == number) else {
            return Err(PgError::internal("COPY has a column that the table has not"));
        };
        // SAFETY: the value is of the column's type.
        unsafe {
            let context = per_tuple_context(self.estate);
            let before = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
            let style = TextStyle::exact();
            let text = pg_sys::OutputFunctionCall(&raw mut column.function, value);
            drop(style);
            let text = CStr::from_ptr(text).to_bytes().to_vec();
            pg_sys::MemoryContextSwitchTo(before);
            Ok(Some(text))
        }
    }

    /// Has errors show the line.
    fn show_line(&mut self, record: &[u8]) {
        let text = self.to_server(record);
        // SAFETY: the line's buffer of PostgreSQL's own state, which outlives the statement.
        unsafe {
            let state = state::of(self.state);
            pg_sys::resetStringInfo(&raw mut (*state).line);
            pg_sys::appendBinaryStringInfo(
                &raw mut (*state).line,
                text.as_ptr().cast(),
                text.len() as c_int,
            );
            (*state).line_is_valid = true;
        }
    }
}

/// PostgreSQL's error for a record with too many or too few fields.
fn wrong_count(input: &CopyInput, count: usize) -> PgError {
    let message = match input.numbers.get(count) {
        Some(number) => format!("missing data for column \"{}\"", input.name_of(*number)),
        None => "extra data after last expected column".to_owned(),
    };
    PgError::new(SqlState::BAD_COPY_FILE_FORMAT, message)
}

mod raw {
    use pgrx::pg_sys;
    use std::ffi::{c_char, c_int};
    unsafe extern "C-unwind" {
        /// Guarded.
        pub(super) fn pq_startmsgread();
        /// Guarded.
        pub(super) fn pq_getbyte() -> c_int;
        /// Guarded.
        pub(super) fn pq_getmessage(message: pg_sys::StringInfo, most: c_int) -> c_int;
        /// Guarded.
        pub(super) fn pq_getmsgstring(message: pg_sys::StringInfo) -> *const c_char;
    }
}

/// `PQ_LARGE_MESSAGE_LIMIT` and `PQ_SMALL_MESSAGE_LIMIT`, `src/include/libpq/libpq.h`.
const LARGE_MESSAGE: c_int = 0x3fff_ffff - 1;
const SMALL_MESSAGE: c_int = 10_000;

/// The client's next piece of data; false after its last. In the steps of CopyGetData
/// (`src/backend/commands/copyfromparse.c`).
///
/// # Safety
///
/// The state of a COPY FROM STDIN for which PostgreSQL has told the client to begin.
unsafe fn read_client(state: *mut State, out: &mut Vec<u8>) -> Result<bool, PgError> {
    let gone = || {
        PgError::new(
            SqlState::CONNECTION_FAILURE,
            "unexpected EOF on client connection with an open transaction",
        )
    };
    loop {
        // SAFETY: libpq's own functions on the backend's only client. The guard turns their ERRORs into panics; a cancel
        // must not come in the middle of a message.
        let (kind, message) = unsafe {
            let message = (*state).client_message;
            pg_sys::QueryCancelHoldoffCount += 1;
            let kind = pg_sys::ffi::pg_guard_ffi_boundary(|| {
                raw::pq_startmsgread();
                raw::pq_getbyte()
            });
            let most = match u8::try_from(kind) {
                Ok(b'd') => LARGE_MESSAGE,
                Ok(b'c' | b'f' | b'H' | b'S') => SMALL_MESSAGE,
                Ok(other) => {
                    return Err(PgError::new(
                        SqlState::PROTOCOL_VIOLATION,
                        format!("unexpected message type 0x{other:02X} during COPY from stdin"),
                    ));
                }
                Err(_) => return Err(gone()),
            };
            if pg_sys::ffi::pg_guard_ffi_boundary(|| raw::pq_getmessage(message, most)) != 0 {
                return Err(gone());
            }
            pg_sys::QueryCancelHoldoffCount -= 1;
            (kind as u8, message)
        };
        match kind {
            b'd' => {
                // SAFETY: the message that was read, in PostgreSQL's buffer.
                let bytes = unsafe {
                    std::slice::from_raw_parts(
                        (*message).data.cast::<u8>(),
                        (*message).len as usize,
                    )
                };
                out.extend_from_slice(bytes);
                return Ok(true);
            }
            b'c' => return Ok(false),
            b'f' => {
                // SAFETY: the message that was read; its text is zero-terminated, or the guard catches the ERROR.
                let reason = unsafe {
                    node::text_of(pg_sys::ffi::pg_guard_ffi_boundary(|| {
                        raw::pq_getmsgstring(message)
                    }))
                };
                return Err(PgError::new(
                    SqlState::QUERY_CANCELED,
                    format!("COPY from stdin failed: {reason}"),
                ));
            }
            _ => {}
        }
    }
}

/// Some more bytes of a file or a program; false at the end.
///
/// # Safety
///
/// `file` is an open `FILE`.
unsafe fn read_file(file: *mut c_void, out: &mut Vec<u8>) -> Result<bool, PgError> {
    let before = out.len();
    out.resize(before + CHUNK, 0);
    // SAFETY: an open file and a buffer of the size given; raises nothing.
    let (read, failed) = unsafe {
        let file = file.cast::<libc::FILE>();
        let read = libc::fread(out.as_mut_ptr().add(before).cast(), 1, CHUNK, file);
        (read, libc::ferror(file) != 0)
    };
    out.truncate(before + read);
    if failed {
        let error = std::io::Error::last_os_error();
        return Err(PgError::new(
            SqlState::IO_ERROR,
            format!("could not read from COPY file: {error}"),
        ));
    }
    Ok(read > 0)
}
