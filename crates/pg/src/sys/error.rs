//! Errors as PostgreSQL knows them: every field, raised once all Rust values are gone.
//!
//! pgrx' own report has no CONTEXT and no constraint name and knows only the listed SQLSTATEs. A
//! [`PgError`] carries all of them as owned Rust values through `Result`s; [`throw`] copies them into
//! PostgreSQL's memory, drops the Rust side and only then leaves by `longjmp`.

use crate::sys::unguarded::allocate;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::PgTryBuilder;
use std::ffi::{CStr, c_char, c_int};
use std::fmt;
use std::panic::AssertUnwindSafe;

/// A five-character SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqlState(pub [u8; 5]);

impl SqlState {
    /// 08006: the connection is gone.
    pub const CONNECTION_FAILURE: Self = Self(*b"08006");
    /// 0A000: we cannot do this.
    pub const FEATURE_NOT_SUPPORTED: Self = Self(*b"0A000");
    /// 22023: an argument is out of its range.
    pub const INVALID_PARAMETER_VALUE: Self = Self(*b"22023");
    /// `invalid_text_representation`.
    pub const INVALID_TEXT_REPRESENTATION: Self = Self(*b"22P02");
    /// 22004: NULL where a value is needed.
    pub const NULL_VALUE_NOT_ALLOWED: Self = Self(*b"22004");
    /// 42P01: there is no such relation.
    pub const UNDEFINED_TABLE: Self = Self(*b"42P01");
    /// 42704: the named object does not exist.
    pub const UNDEFINED_OBJECT: Self = Self(*b"42704");
    /// 55000: the object is not in the state that this needs.
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: Self = Self(*b"55000");
    /// 55006: somebody still needs the object.
    pub const OBJECT_IN_USE: Self = Self(*b"55006");
    /// 42710: the object exists already.
    pub const DUPLICATE_OBJECT: Self = Self(*b"42710");
    /// 58P01: there is no such file.
    pub const UNDEFINED_FILE: Self = Self(*b"58P01");
    /// 02000: nothing there.
    pub const NO_DATA: Self = Self(*b"02000");
    /// XX000: a broken invariant, or an error that has no code of its own in pg_shard 1.2.
    pub const INTERNAL_ERROR: Self = Self(*b"XX000");
    /// 01000: a warning.
    pub const WARNING: Self = Self(*b"01000");
    /// 42622: a name is too long.
    pub const NAME_TOO_LONG: Self = Self(*b"42622");
    /// `deadlock_detected`
    pub const DEADLOCK_DETECTED: Self = Self(*b"40P01");
    /// 57014: the user or a timeout cancelled the statement.
    pub const QUERY_CANCELED: Self = Self(*b"57014");
    /// 08001: this server has refused to connect, or could not.
    pub const CANNOT_CONNECT: Self = Self(*b"08001");
    /// 23505: a row with this key is there.
    pub const UNIQUE_VIOLATION: Self = Self(*b"23505");
    /// 23P01: a row that excludes this one is there.
    pub const EXCLUSION_VIOLATION: Self = Self(*b"23P01");
    /// 55P03: somebody else holds the lock.
    pub const LOCK_NOT_AVAILABLE: Self = Self(*b"55P03");
    /// 54000: something has no room.
    pub const PROGRAM_LIMIT_EXCEEDED: Self = Self(*b"54000");
    /// 53300: a server has no connection slot left.
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    /// 40001: another transaction came between.
    pub const SERIALIZATION_FAILURE: Self = Self(*b"40001");
    /// 00000: no error.
    pub const SUCCESSFUL_COMPLETION: Self = Self(*b"00000");
    /// 42809: the object is of another kind.
    pub const WRONG_OBJECT_TYPE: Self = Self(*b"42809");
    /// 22000: an argument names nothing.
    pub const DATA_EXCEPTION: Self = Self(*b"22000");
    /// 25P02: the transaction is aborted already.
    pub const IN_FAILED_SQL_TRANSACTION: Self = Self(*b"25P02");
    /// 42501: the caller may not.
    pub const INSUFFICIENT_PRIVILEGE: Self = Self(*b"42501");
    /// 25001: not in this state of the transaction.
    pub const ACTIVE_SQL_TRANSACTION: Self = Self(*b"25001");
    /// The disk is full.
    pub const DISK_FULL: Self = Self(*b"53100");
    /// Nobody knows whether the transaction was committed.
    pub const TRANSACTION_RESOLUTION_UNKNOWN: Self = Self(*b"08007");
    /// What was sent breaks the protocol.
    pub const PROTOCOL_VIOLATION: Self = Self(*b"08P01");
    /// More rows than there may be.
    pub const CARDINALITY_VIOLATION: Self = Self(*b"21000");
    /// COPY data that cannot be read.
    pub const BAD_COPY_FILE_FORMAT: Self = Self(*b"22P04");
    /// A cursor is not in the state that is needed.
    pub const INVALID_CURSOR_STATE: Self = Self(*b"24000");
    /// The transaction does not allow it.
    pub const INVALID_TRANSACTION_STATE: Self = Self(*b"25000");
    /// No prepared statement has this name.
    pub const INVALID_SQL_STATEMENT_NAME: Self = Self(*b"26000");
    /// A trigger has changed a row that is to be changed.
    pub const TRIGGERED_DATA_CHANGE_VIOLATION: Self = Self(*b"27000");
    /// Others depend on the object.
    pub const DEPENDENT_OBJECTS_STILL_EXIST: Self = Self(*b"2BP01");
    /// No cursor has this name.
    pub const UNDEFINED_CURSOR: Self = Self(*b"34000");
    /// No schema has this name.
    pub const INVALID_SCHEMA_NAME: Self = Self(*b"3F000");
    /// No column has this name.
    pub const UNDEFINED_COLUMN: Self = Self(*b"42703");
    /// A value has another type.
    pub const DATATYPE_MISMATCH: Self = Self(*b"42804");
    /// There is no such function.
    pub const UNDEFINED_FUNCTION: Self = Self(*b"42883");
    /// A prepared statement has this name already.
    pub const DUPLICATE_PREPARED_STATEMENT: Self = Self(*b"42P05");
    /// The column cannot be meant here.
    pub const INVALID_COLUMN_REFERENCE: Self = Self(*b"42P10");
    /// A table cannot be defined so.
    pub const INVALID_TABLE_DEFINITION: Self = Self(*b"42P16");
    /// Something has run out.
    pub const INSUFFICIENT_RESOURCES: Self = Self(*b"53000");
    /// Memory has run out.
    pub const OUT_OF_MEMORY: Self = Self(*b"53200");
    /// A file cannot be read or written.
    pub const IO_ERROR: Self = Self(*b"58030");
    /// The snapshot is too old.
    pub const SNAPSHOT_TOO_OLD: Self = Self(*b"72000");
    /// A configuration file cannot be used.
    pub const CONFIG_FILE_ERROR: Self = Self(*b"F0000");

    /// The code in `text` if it has five characters of `0-9A-Z`.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 5] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()).then_some(Self(bytes))
    }

    /// The code's first two characters.
    pub fn class(self) -> [u8; 2] {
        [self.0[0], self.0[1]]
    }

    /// The code of PostgreSQL's packed form (`unpack_sql_state`, `src/backend/utils/error/elog.c`).
    pub(crate) fn unpacked(mut code: c_int) -> Self {
        Self(std::array::from_fn(|_| {
            let byte = (code & 0x3f) as u8 + b'0';
            code >>= 6;
            byte
        }))
    }

    /// PostgreSQL's packed form (`MAKE_SQLSTATE`, `src/include/utils/elog.h`).
    fn packed(self) -> c_int {
        self.0
            .iter()
            .rev()
            .fold(0, |code, byte| (code << 6) | c_int::from(byte.wrapping_sub(b'0') & 0x3f))
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or("?????"))
    }
}

/// An error or warning on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgError(Box<Fields>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    sqlstate: SqlState,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    context: Option<String>,
    schema: Option<String>,
    table: Option<String>,
    column: Option<String>,
    datatype: Option<String>,
    constraint: Option<String>,
}

impl PgError {
    /// An error with its code and primary message (lower case, no full stop).
    pub fn new(sqlstate: SqlState, message: impl Into<String>) -> Self {
        Self(Box::new(Fields {
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
            context: None,
            schema: None,
            table: None,
            column: None,
            datatype: None,
            constraint: None,
        }))
    }

    /// An error that says an invariant of ours is broken.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(SqlState::INTERNAL_ERROR, message)
    }

    /// 0A000 with what to do instead.
    pub fn unsupported(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(SqlState::FEATURE_NOT_SUPPORTED, message).hint(hint)
    }

    /// Its detail.
    pub fn detail_text(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// Adds the DETAIL: what happened, in sentences.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds the HINT: what to do, in sentences.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds a line of CONTEXT.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        let line = context.into();
        self.0.context = Some(match self.0.context.take() {
            Some(before) => format!("{before}\n{line}"),
            None => line,
        });
        self
    }

    /// Adds a line of CONTEXT before the others: it is further inside.
    #[must_use]
    pub fn context_before(mut self, context: impl Into<String>) -> Self {
        let after = self.0.context.take();
        self = self.context(context);
        after.into_iter().fold(self, Self::context)
    }

    /// Sets the fields that tools read: schema, table, column, data type, constraint.
    #[must_use]
    pub fn names(
        mut self,
        schema: Option<String>,
        table: Option<String>,
        column: Option<String>,
        datatype: Option<String>,
        constraint: Option<String>,
    ) -> Self {
        self.0.schema = schema;
        self.0.table = table;
        self.0.column = column;
        self.0.datatype = datatype;
        self.0.constraint = constraint;
        self
    }

    /// The code.
    pub fn sqlstate(&self) -> SqlState {
        self.0.sqlstate
    }

    /// The primary message.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Something stands in its CONTEXT: a function in which it was raised, say.
    pub fn has_context(&self) -> bool {
        self.0.context.is_some()
    }

    /// Lets `rewrite` change each line of the CONTEXT, or take it away.
    #[must_use]
    pub fn rewrite_context(mut self, rewrite: impl Fn(&str) -> Option<String>) -> Self {
        if let Some(context) = self.0.context.take() {
            let lines: Vec<String> = context.lines().filter_map(rewrite).collect();
            self.0.context = (!lines.is_empty()).then(|| lines.join("\n"));
        }
        self
    }

    /// The schema and the name of the data type that the error is about, if it tells them.
    pub fn data_type(&self) -> Option<(&str, &str)> {
        Some((self.0.schema.as_deref()?, self.0.datatype.as_deref()?))
    }

    /// Lets `rewrite` change the primary message.
    pub fn rewrite_message(&mut self, rewrite: impl Fn(&str) -> String) {
        self.0.message = rewrite(&self.0.message);
    }

    /// Lets `rewrite` change every text that a person may read: message, detail, hint, context and names.
    pub fn rewrite(&mut self, rewrite: impl Fn(&str) -> String) {
        let fields = &mut *self.0;
        fields.message = rewrite(&fields.message);
        for text in [
            &mut fields.detail,
            &mut fields.hint,
            &mut fields.context,
            &mut fields.table,
            &mut fields.constraint,
        ]
        .into_iter()
        .flatten()
        {
            *text = rewrite(text);
        }
    }
}

impl fmt::Display for PgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for PgError {}

impl From<std::ffi::NulError> for PgError {
    fn from(_: std::ffi::NulError) -> Self {
        Self::internal("a text contains a zero byte")
    }
}

mod raw {
    use std::ffi::{c_char, c_int};
    unsafe extern "C-unwind" {
        /// Plain frames: `emit` holds nothing to drop, and its caller knows what leaves.
        pub(super) fn errstart(level: c_int, domain: *const c_char) -> bool;
        /// Plain frames: `emit` holds nothing to drop, and its caller knows what leaves.
        pub(super) fn errcode(code: c_int) -> c_int;
        /// Plain frames: `emit` holds nothing to drop, and its caller knows what leaves.
        pub(super) fn errmsg_internal(format: *const c_char, ...) -> c_int;
        /// Plain frames: `emit` holds nothing to drop, and its caller knows what leaves.
        pub(super) fn errdetail_internal(format: *const c_char, ...) -> c_int;
        /// Plain frames: `emit` holds nothing to drop, and its caller knows what leaves.
        pub(super) fn errhint(format: *const c_char, ...) -> c_int;
        /// Plain frames: `emit` holds nothing to drop, and its caller knows what leaves.
        pub(super) fn errcontext_msg(format: *const c_char, ...) -> c_int;
        /// Plain frames: `emit` holds nothing to drop, and its caller knows what leaves.
        pub(super) fn err_generic_string(field: c_int, text: *const c_char) -> c_int;
        /// Plain frames: `emit` holds nothing to drop, and its caller knows what leaves.
        pub(super) fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
    }
}

/// The same fields as zero-terminated texts in PostgreSQL's memory: nothing here has a destructor.
#[derive(Clone, Copy)]
struct Palloced {
    code: c_int,
    message: *const c_char,
    detail: *const c_char,
    hint: *const c_char,
    context: *const c_char,
    names: [(c_int, *const c_char); 5],
}

/// `ERROR` of `src/include/utils/elog.h`, which is a macro that bindgen leaves out.
pub(crate) const LEVEL_ERROR: c_int = 21;

/// Fields' letters in the protocol (`PG_DIAG_*`, `src/include/postgres_ext.h`).
const NAME_FIELDS: [u8; 5] = *b"stcdn";

/// A text in PostgreSQL's memory. No ERROR can come out of here, where one is being made.
fn palloc_text(text: &str) -> *const c_char {
    let bytes = || text.bytes().filter(|b| *b != 0);
    // SAFETY: the current context is live; what is allocated is as long as what is written.
    unsafe {
        let copy = allocate(pg_sys::CurrentMemoryContext, bytes().count() + 1).cast::<u8>();
        if copy.is_null() {
            return c"out of memory".as_ptr();
        }
        let mut end = copy;
        for byte in bytes() {
            *end = byte;
            end = end.add(1);
        }
        *end = 0;
        copy.cast()
    }
}

fn palloc_fields(error: PgError) -> Palloced {
    let optional = |text: &Option<String>| text.as_deref().map_or(std::ptr::null(), palloc_text);
    let f = &error.0;
    let names = [&f.schema, &f.table, &f.column, &f.datatype, &f.constraint];
    let mut pairs = [(0, std::ptr::null()); 5];
    for (pair, (letter, text)) in pairs.iter_mut().zip(NAME_FIELDS.into_iter().zip(names)) {
        *pair = (c_int::from(letter), optional(text));
    }
    Palloced {
        code: f.sqlstate.packed(),
        message: palloc_text(&f.message),
        detail: optional(&f.detail),
        hint: optional(&f.hint),
        context: optional(&f.context),
        names: pairs,
    }
}

/// Reports at `level`; returns only for levels below ERROR.
///
/// # Safety
///
/// For ERROR and above the caller's frames must hold nothing with a destructor: this leaves by `longjmp`.
unsafe fn emit(level: c_int, fields: Palloced) {
    let text: *const c_char = c"%s".as_ptr();
    // SAFETY: the elog.c protocol: errstart, fields, errfinish, with texts that live in PostgreSQL's memory.
    unsafe {
        if !raw::errstart(level, std::ptr::null()) {
            return;
        }
        raw::errcode(fields.code);
        raw::errmsg_internal(text, fields.message);
        if !fields.detail.is_null() {
            raw::errdetail_internal(text, fields.detail);
        }
        if !fields.hint.is_null() {
            raw::errhint(text, fields.hint);
        }
        if !fields.context.is_null() {
            raw::errcontext_msg(text, fields.context);
        }
        for (field, value) in fields.names {
            if !value.is_null() {
                raw::err_generic_string(field, value);
            }
        }
        raw::errfinish(c"pg_shard".as_ptr(), 0, c"pg_shard".as_ptr());
    }
}

/// Raises `error` as an ERROR of PostgreSQL; never returns.
///
/// # Safety
///
/// No frame between here and PostgreSQL's handler may hold a value with a destructor.
pub(crate) unsafe fn throw(error: PgError) -> ! {
    let fields = palloc_fields(error);
    // SAFETY: the caller vouches for its frames; `fields` is plain data.
    unsafe { emit(LEVEL_ERROR, fields) };
    std::process::abort()
}

/// Sends a WARNING to the client.
pub fn warning(warning: PgError) {
    report(pg_sys::WARNING as c_int, warning);
}

/// Sends a NOTICE to the client.
pub fn notice(notice: PgError) {
    report(pg_sys::NOTICE as c_int, notice);
}

/// Writes a line to the server's log.
pub fn log(line: PgError) {
    report(pg_sys::LOG as c_int, line);
}

/// Tells a client that asks for DEBUG1.
pub(crate) fn debug(what: PgError) {
    report(pg_sys::DEBUG1 as c_int, what);
}

fn report(level: c_int, what: PgError) {
    let fields = palloc_fields(what);
    // SAFETY: below ERROR errfinish returns; the guard turns an ERROR raised while sending into a panic.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| emit(level, fields)) };
}

/// Raises `Err` as PostgreSQL's ERROR from inside a `#[pg_extern]` function.
///
/// It travels as a panic that pgrx' guard catches at the border, so destructors run; the fields that pgrx'
/// report does not carry are lost. Functions that users call want SQLSTATE, message, detail and hint: these
/// stay.
pub fn raise<T>(result: Result<T, PgError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => {
            let fields = palloc_fields(error);
            // SAFETY: inside the guard the longjmp of errfinish is caught at once and becomes a panic, which
            // runs the destructors of the frames above.
            unsafe {
                pg_sys::ffi::pg_guard_ffi_boundary(|| emit(LEVEL_ERROR, fields));
            }
            unreachable!("errfinish returned from an ERROR")
        }
    }
}

/// Runs `body` and catches an ERROR of PostgreSQL's. Nothing is cleaned up: the transaction has to end with it.
pub fn catch<T>(body: impl FnOnce() -> Result<T, PgError>) -> Result<T, PgError> {
    // SAFETY: counters of the backend, which an ERROR resets: who holds interrupts goes on holding them.
    let (held, cancels_held) =
        unsafe { (pg_sys::InterruptHoldoffCount, pg_sys::QueryCancelHoldoffCount) };
    PgTryBuilder::new(AssertUnwindSafe(body))
        .catch_others(|cause| {
            // SAFETY: as above.
            unsafe {
                pg_sys::InterruptHoldoffCount = held;
                pg_sys::QueryCancelHoldoffCount = cancels_held;
            }
            Err(caught(&cause))
        })
        .execute()
}

/// Runs `body` and catches the ERROR that ends a deadlock; others pass. Nothing is cleaned up: what the body has begun on this server
/// ends with the transaction.
pub fn catch_deadlock<T>(body: impl FnOnce() -> Result<T, PgError>) -> Result<T, PgError> {
    // SAFETY: as in `catch`.
    let (held, cancels_held) =
        unsafe { (pg_sys::InterruptHoldoffCount, pg_sys::QueryCancelHoldoffCount) };
    let deadlock = pgrx::PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED;
    PgTryBuilder::new(AssertUnwindSafe(body))
        .catch_when(deadlock, |cause| {
            // SAFETY: as in `catch`.
            unsafe {
                pg_sys::InterruptHoldoffCount = held;
                pg_sys::QueryCancelHoldoffCount = cancels_held;
            }
            Err(caught(&cause))
        })
        .execute()
}

/// An error that was raised, as far as pgrx knows it.
pub(crate) fn caught(cause: &CaughtError) -> PgError {
    let (CaughtError::PostgresError(report)
    | CaughtError::ErrorReport(report)
    | CaughtError::RustPanic { ereport: report, .. }) = cause;
    let mut error =
        PgError::new(SqlState::unpacked(report.sql_error_code() as c_int), report.message());
    if let Some(detail) = report.detail() {
        error = error.detail(detail);
    }
    if let Some(hint) = report.hint() {
        error = error.hint(hint);
    }
    error
}

/// The text of a C string that PostgreSQL or libpq owns; empty for a null pointer.
///
/// # Safety
///
/// `text` is null or a zero-terminated string that stays in place during the call.
pub(crate) unsafe fn owned_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller vouches for the pointer.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
