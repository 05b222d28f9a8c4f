//! libpq, the system's: one [`Connection`] owns one `PGconn`, one [`ResultSet`] one `PGresult`.
//!
//! Everything is non-blocking: whoever needs an answer waits with [`crate::wait`], where interrupts are
//! served. Nothing here raises an ERROR of PostgreSQL; failures are values. libpq itself knows nothing of the
//! backend it lives in, so its functions may be called in any state, also while a transaction aborts.

use crate::error::{PgError, SqlState, owned_text};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::NonNull;

#[allow(non_camel_case_types, reason = "libpq's own names")]
mod ffi {
    use super::{c_char, c_int, c_uint, c_void};
    #[repr(C)]
    pub(super) struct PGconn(c_void);
    #[repr(C)]
    pub(super) struct PGresult(c_void);
    #[repr(C)]
    pub(super) struct PGcancel(c_void);
    pub(super) type PQnoticeReceiver = Option<unsafe extern "C" fn(*mut c_void, *const PGresult)>;

    unsafe extern "C" {
        pub(super) fn PQconnectStartParams(
            keywords: *const *const c_char,
            values: *const *const c_char,
            expand_dbname: c_int,
        ) -> *mut PGconn;
        pub(super) fn PQconnectPoll(conn: *mut PGconn) -> c_int;
        pub(super) fn PQfinish(conn: *mut PGconn);
        pub(super) fn PQstatus(conn: *const PGconn) -> c_int;
        pub(super) fn PQsocket(conn: *const PGconn) -> c_int;
        pub(super) fn PQerrorMessage(conn: *const PGconn) -> *const c_char;
        pub(super) fn PQsetErrorVerbosity(conn: *mut PGconn, verbosity: c_int) -> c_int;
        pub(super) fn PQsetNoticeReceiver(
            conn: *mut PGconn,
            receiver: PQnoticeReceiver,
            arg: *mut c_void,
        ) -> PQnoticeReceiver;
        pub(super) fn PQsetnonblocking(conn: *mut PGconn, arg: c_int) -> c_int;
        pub(super) fn PQflush(conn: *mut PGconn) -> c_int;
        pub(super) fn PQconsumeInput(conn: *mut PGconn) -> c_int;
        pub(super) fn PQisBusy(conn: *mut PGconn) -> c_int;
        pub(super) fn PQgetResult(conn: *mut PGconn) -> *mut PGresult;
        pub(super) fn PQsetSingleRowMode(conn: *mut PGconn) -> c_int;
        pub(super) fn PQsendQuery(conn: *mut PGconn, query: *const c_char) -> c_int;
        pub(super) fn PQsendPrepare(
            conn: *mut PGconn,
            name: *const c_char,
            query: *const c_char,
            n: c_int,
            types: *const c_uint,
        ) -> c_int;
        pub(super) fn PQsendQueryPrepared(
            conn: *mut PGconn,
            name: *const c_char,
            n: c_int,
            values: *const *const c_char,
            lengths: *const c_int,
            formats: *const c_int,
            result_format: c_int,
        ) -> c_int;
        pub(super) fn PQsendQueryParams(
            conn: *mut PGconn,
            query: *const c_char,
            n: c_int,
            types: *const c_uint,
            values: *const *const c_char,
            lengths: *const c_int,
            formats: *const c_int,
            result_format: c_int,
        ) -> c_int;
        pub(super) fn PQenterPipelineMode(conn: *mut PGconn) -> c_int;
        pub(super) fn PQexitPipelineMode(conn: *mut PGconn) -> c_int;
        pub(super) fn PQpipelineSync(conn: *mut PGconn) -> c_int;
        pub(super) fn PQtransactionStatus(conn: *const PGconn) -> c_int;
        pub(super) fn PQputCopyData(conn: *mut PGconn, buffer: *const c_char, n: c_int) -> c_int;
        pub(super) fn PQputCopyEnd(conn: *mut PGconn, error: *const c_char) -> c_int;
        pub(super) fn PQgetCopyData(
            conn: *mut PGconn,
            buffer: *mut *mut c_char,
            is_async: c_int,
        ) -> c_int;
        pub(super) fn PQfreemem(what: *mut c_void);
        pub(super) fn PQgetCancel(conn: *mut PGconn) -> *mut PGcancel;
        pub(super) fn PQcancel(cancel: *mut PGcancel, buffer: *mut c_char, n: c_int) -> c_int;
        pub(super) fn PQfreeCancel(cancel: *mut PGcancel);

        pub(super) fn PQresultStatus(res: *const PGresult) -> c_int;
        pub(super) fn PQresultErrorField(res: *const PGresult, field: c_int) -> *const c_char;
        pub(super) fn PQresultErrorMessage(res: *const PGresult) -> *const c_char;
        pub(super) fn PQntuples(res: *const PGresult) -> c_int;
        pub(super) fn PQnfields(res: *const PGresult) -> c_int;
        pub(super) fn PQgetvalue(res: *const PGresult, row: c_int, column: c_int) -> *const c_char;
        pub(super) fn PQgetlength(res: *const PGresult, row: c_int, column: c_int) -> c_int;
        pub(super) fn PQgetisnull(res: *const PGresult, row: c_int, column: c_int) -> c_int;
        pub(super) fn PQcmdTuples(res: *const PGresult) -> *const c_char;
        pub(super) fn PQclear(res: *mut PGresult);
    }
}

/// What a connection being opened waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Wait until the socket can be read, then poll again.
    WaitReadable,
    /// Wait until the socket can be written, then poll again.
    WaitWritable,
    /// The session is open.
    Open,
    /// It failed; [`Connection::opening_error`] says why.
    Failed,
}

/// What a `PGresult` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultKind {
    /// A command without rows is done.
    Command,
    /// All rows, or the end of rows that came one by one.
    Rows,
    /// One row of several.
    SingleRow,
    /// The server waits for COPY data.
    CopyIn,
    /// The server sends COPY data.
    CopyOut,
    /// The statement failed.
    Error,
    /// An earlier statement of the flight failed, this one was not tried.
    Skipped,
    /// The end of a flight.
    Sync,
    /// An empty query or something unknown.
    Other,
}

/// A value on its way to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The bytes, or none for NULL. Texts end with a zero byte that is not counted.
    pub bytes: Option<Vec<u8>>,
    /// Binary or text.
    pub binary: bool,
}

/// A connection to one node.
#[derive(Debug)]
pub struct Connection {
    raw: NonNull<ffi::PGconn>,
}

unsafe extern "C" fn ignore_notice(_: *mut c_void, _: *const ffi::PGresult) {}

impl Connection {
    /// Starts to open a connection with libpq's keywords and values.
    pub fn start(options: &[(&str, String)]) -> Result<Self, PgError> {
        let mut keywords = Vec::with_capacity(options.len());
        let mut values = Vec::with_capacity(options.len());
        for (keyword, value) in options {
            keywords.push(CString::new(*keyword)?);
            values.push(CString::new(value.as_str())?);
        }
        let pointers = |texts: &[CString]| {
            texts.iter().map(|t| t.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        let (keyword_pointers, value_pointers) = (pointers(&keywords), pointers(&values));
        // SAFETY: both arrays end with a null pointer and live during the call; libpq copies them.
        let raw = unsafe {
            ffi::PQconnectStartParams(keyword_pointers.as_ptr(), value_pointers.as_ptr(), 0)
        };
        let raw =
            NonNull::new(raw).ok_or_else(|| PgError::internal("out of memory for a connection"))?;
        let connection = Self { raw };
        const VERBOSE: c_int = 2; // the SQLSTATE of a refused connection is in the text only when verbose
        // SAFETY: `raw` is a live PGconn; the receiver is a plain function without state.
        unsafe {
            ffi::PQsetErrorVerbosity(connection.pointer(), VERBOSE);
            ffi::PQsetNoticeReceiver(
                connection.pointer(),
                Some(ignore_notice),
                std::ptr::null_mut(),
            );
        }
        Ok(connection)
    }

    fn pointer(&self) -> *mut ffi::PGconn {
        self.raw.as_ptr()
    }

    /// Goes on opening; call when the awaited readiness has come.
    pub fn poll_opening(&mut self) -> Opening {
        if self.is_bad() {
            return Opening::Failed;
        }
        // SAFETY: a live PGconn in the opening state.
        match unsafe { ffi::PQconnectPoll(self.pointer()) } {
            1 => Opening::WaitReadable,
            2 => Opening::WaitWritable,
            3 => {
                const DEFAULT: c_int = 1;
                // SAFETY: a live, open PGconn.
                unsafe {
                    ffi::PQsetnonblocking(self.pointer(), 1);
                    ffi::PQsetErrorVerbosity(self.pointer(), DEFAULT);
                }
                Opening::Open
            }
            _ => Opening::Failed,
        }
    }

    /// Why opening failed: the server's SQLSTATE if a server answered, and libpq's text.
    ///
    /// libpq 15 keeps no fields of a refusal; with verbose errors the text reads `FATAL:  28000: role ...`.
    pub fn opening_error(&self) -> (Option<SqlState>, String) {
        let text = self.error_text();
        let code = text.split(": ").find_map(|part| {
            SqlState::parse(part.trim()).filter(|code| code.0.iter().any(u8::is_ascii_digit))
        });
        let message = text
            .lines()
            .filter(|line| !line.starts_with("LOCATION:"))
            .collect::<Vec<_>>()
            .join("\n");
        let message = match code {
            Some(code) => message.replacen(&format!("{code}: "), "", 1),
            None => message,
        };
        (code, message)
    }

    /// libpq's last message, without its final newline.
    pub fn error_text(&self) -> String {
        // SAFETY: libpq returns a text that lives until the next call on this connection.
        unsafe { owned_text(ffi::PQerrorMessage(self.pointer())) }.trim_end().to_owned()
    }

    /// The socket, or -1.
    pub fn socket(&self) -> c_int {
        // SAFETY: a live PGconn.
        unsafe { ffi::PQsocket(self.pointer()) }
    }

    /// libpq knows the connection to be broken.
    pub fn is_bad(&self) -> bool {
        // SAFETY: a live PGconn.
        unsafe { ffi::PQstatus(self.pointer()) == 1 }
    }

    /// On an idle connection: the server has closed it, or said something nobody asked for.
    ///
    /// An idle server says nothing unless it ends the session (or a setting changed), so a readable or closed
    /// socket means: do not trust this connection with a statement.
    pub fn is_stale(&self) -> bool {
        let mut byte = 0u8;
        // SAFETY: peeks one byte into a local of that size; does not block.
        let n = unsafe {
            libc::recv(
                self.socket(),
                (&raw mut byte).cast(),
                1,
                libc::MSG_PEEK | libc::MSG_DONTWAIT,
            )
        };
        n >= 0 || !matches!(std::io::Error::last_os_error().kind(), std::io::ErrorKind::WouldBlock)
    }

    /// Whether the server is inside a transaction block: `Some(true)` when that block has failed.
    pub fn transaction_failed(&self) -> Option<bool> {
        // SAFETY: a live PGconn.
        match unsafe { ffi::PQtransactionStatus(self.pointer()) } {
            2 => Some(false),
            3 => Some(true),
            _ => None,
        }
    }

    fn sent(&self, code: c_int) -> Result<(), PgError> {
        if code == 1 { Ok(()) } else { Err(self.lost()) }
    }

    /// The connection's failure as an error.
    pub fn lost(&self) -> PgError {
        PgError::new(SqlState::CONNECTION_FAILURE, self.error_text())
    }

    /// Queues one or several commands in one text (not in pipeline mode).
    pub fn send_query(&mut self, sql: &str) -> Result<(), PgError> {
        let sql = CString::new(sql)?;
        // SAFETY: a live PGconn and a zero-terminated text that libpq copies.
        self.sent(unsafe { ffi::PQsendQuery(self.pointer(), sql.as_ptr()) })
    }

    /// Queues a command without parameters (also in pipeline mode).
    pub fn send_command(&mut self, sql: &CStr) -> Result<(), PgError> {
        // SAFETY: a live PGconn, zero parameters, a zero-terminated text.
        self.sent(unsafe {
            ffi::PQsendQueryParams(
                self.pointer(),
                sql.as_ptr(),
                0,
                std::ptr::null(),
                std::ptr::null(),
                std::ptr::null(),
                std::ptr::null(),
                0,
            )
        })
    }

    /// Queues the preparation of `sql` as `name`; a type of 0 is left to the server.
    pub fn send_prepare(&mut self, name: &CStr, sql: &CStr, types: &[u32]) -> Result<(), PgError> {
        // SAFETY: a live PGconn; `types` has the length given.
        self.sent(unsafe {
            ffi::PQsendPrepare(
                self.pointer(),
                name.as_ptr(),
                sql.as_ptr(),
                types.len() as c_int,
                types.as_ptr(),
            )
        })
    }

    /// Queues the execution of a prepared statement.
    pub fn send_prepared(
        &mut self,
        name: &CStr,
        parameters: &[Parameter],
        binary_result: bool,
    ) -> Result<(), PgError> {
        let pointers: Vec<*const c_char> = parameters
            .iter()
            .map(|p| p.bytes.as_ref().map_or(std::ptr::null(), |bytes| bytes.as_ptr().cast()))
            .collect();
        let lengths: Vec<c_int> = parameters
            .iter()
            .map(|p| p.bytes.as_ref().map_or(0, |bytes| bytes.len() as c_int))
            .collect();
        let formats: Vec<c_int> = parameters.iter().map(|p| c_int::from(p.binary)).collect();
        // SAFETY: three arrays of the same length that live during the call; texts end with a zero byte
        // (`Parameter`), an empty value's pointer is dangling but not null and not read.
        self.sent(unsafe {
            ffi::PQsendQueryPrepared(
                self.pointer(),
                name.as_ptr(),
                pointers.len() as c_int,
                pointers.as_ptr(),
                lengths.as_ptr(),
                formats.as_ptr(),
                c_int::from(binary_result),
            )
        })
    }

    /// Rows of the next statement come one at a time; call before its first result.
    pub fn rows_one_by_one(&mut self) -> bool {
        // SAFETY: a live PGconn.
        unsafe { ffi::PQsetSingleRowMode(self.pointer()) == 1 }
    }

    /// Switches pipeline mode; only while nothing is under way.
    pub fn set_pipeline(&mut self, on: bool) -> Result<(), PgError> {
        // SAFETY: a live PGconn.
        let code = unsafe {
            if on {
                ffi::PQenterPipelineMode(self.pointer())
            } else {
                ffi::PQexitPipelineMode(self.pointer())
            }
        };
        self.sent(code)
    }

    /// Ends a flight: the server answers up to here, and an error skips what is left of it.
    pub fn send_sync(&mut self) -> Result<(), PgError> {
        // SAFETY: a live PGconn in pipeline mode.
        self.sent(unsafe { ffi::PQpipelineSync(self.pointer()) })
    }

    /// Sends what is queued; false when the socket is full and it has to be tried again.
    pub fn flush(&mut self) -> Result<bool, PgError> {
        // SAFETY: a live PGconn.
        match unsafe { ffi::PQflush(self.pointer()) } {
            0 => Ok(true),
            1 => Ok(false),
            _ => Err(self.lost()),
        }
    }

    /// Reads what the socket has.
    pub fn consume(&mut self) -> Result<(), PgError> {
        // SAFETY: a live PGconn.
        self.sent(unsafe { ffi::PQconsumeInput(self.pointer()) })
    }

    /// The next result would have to wait for the server.
    pub fn is_busy(&mut self) -> bool {
        // SAFETY: a live PGconn.
        unsafe { ffi::PQisBusy(self.pointer()) != 0 }
    }

    /// The next result; none at the end of a statement. Blocks if [`Self::is_busy`].
    pub fn result(&mut self) -> Option<ResultSet> {
        // SAFETY: a live PGconn; the result is ours to clear.
        NonNull::new(unsafe { ffi::PQgetResult(self.pointer()) }).map(|raw| ResultSet { raw })
    }

    /// Queues COPY data; false when the socket is full and nothing was queued.
    pub fn put_copy(&mut self, data: &[u8]) -> Result<bool, PgError> {
        let n = c_int::try_from(data.len())
            .map_err(|_| PgError::internal("COPY data over 2 GB in one piece"))?;
        // SAFETY: a live PGconn in COPY IN state; libpq copies the bytes.
        match unsafe { ffi::PQputCopyData(self.pointer(), data.as_ptr().cast(), n) } {
            1 => Ok(true),
            0 => Ok(false),
            _ => Err(self.lost()),
        }
    }

    /// Ends COPY data.
    pub fn end_copy(&mut self) -> Result<bool, PgError> {
        // SAFETY: a live PGconn in COPY IN state; no error text.
        match unsafe { ffi::PQputCopyEnd(self.pointer(), std::ptr::null()) } {
            1 => Ok(true),
            0 => Ok(false),
            _ => Err(self.lost()),
        }
    }

    /// The next piece of COPY data the server sent.
    pub fn get_copy(&mut self) -> Result<CopyPiece, PgError> {
        let mut buffer: *mut c_char = std::ptr::null_mut();
        // SAFETY: a live PGconn in COPY OUT state; the buffer is freed below.
        let n = unsafe { ffi::PQgetCopyData(self.pointer(), &raw mut buffer, 1) };
        match n {
            0 => Ok(CopyPiece::Wait),
            -1 => Ok(CopyPiece::End),
            n if n > 0 => {
                // SAFETY: libpq returned `n` bytes at `buffer`, ours to free.
                let bytes = unsafe {
                    let bytes =
                        std::slice::from_raw_parts(buffer.cast::<u8>(), n as usize).to_vec();
                    ffi::PQfreemem(buffer.cast());
                    bytes
                };
                Ok(CopyPiece::Data(bytes))
            }
            _ => Err(self.lost()),
        }
    }

    /// Asks the server to cancel what it does, and waits at most `limit` for the request to be heard.
    ///
    /// libpq's cancel blocks, for ever if the node is frozen, so it runs on a thread of its own that touches
    /// nothing of PostgreSQL and gets no signals.
    pub fn cancel(&mut self, limit: std::time::Duration) -> bool {
        // SAFETY: a live PGconn.
        let Some(request) = NonNull::new(unsafe { ffi::PQgetCancel(self.pointer()) }) else {
            return false;
        };
        let request = CancelRequest(request);
        let (done, heard) = std::sync::mpsc::channel();
        let spawned = with_signals_blocked(|| {
            std::thread::Builder::new().name("pg_shard cancel".into()).spawn(move || {
                let sent = request.send();
                // The receiver is gone when the limit has passed.
                let _ = done.send(sent);
            })
        });
        spawned.is_ok() && heard.recv_timeout(limit).unwrap_or(false)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: `raw` is live and nobody else has it.
        unsafe { ffi::PQfinish(self.pointer()) }
    }
}

/// A cancel request: a copy of the address and key, independent of its connection.
struct CancelRequest(NonNull<ffi::PGcancel>);

// SAFETY: libpq documents PQcancel as safe to call from another thread: the object is a private copy.
unsafe impl Send for CancelRequest {}

impl CancelRequest {
    fn send(&self) -> bool {
        let mut message = [0 as c_char; 256];
        // SAFETY: a live PGcancel and a buffer of the length given.
        unsafe { ffi::PQcancel(self.0.as_ptr(), message.as_mut_ptr(), message.len() as c_int) == 1 }
    }
}

impl Drop for CancelRequest {
    fn drop(&mut self) {
        // SAFETY: ours and live.
        unsafe { ffi::PQfreeCancel(self.0.as_ptr()) }
    }
}

/// Runs `body` with all signals blocked, so that a thread it starts never runs the backend's handlers.
fn with_signals_blocked<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: plain POSIX calls on local sets; the old mask is put back.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let value = body();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        value
    }
}

/// A piece of COPY OUT data.
pub enum CopyPiece {
    /// Some bytes (a line, in text format).
    Data(Vec<u8>),
    /// Nothing yet.
    Wait,
    /// The stream is at its end; results follow.
    End,
}

/// One result of a server.
#[derive(Debug)]
pub struct ResultSet {
    raw: NonNull<ffi::PGresult>,
}

impl ResultSet {
    /// What this is.
    pub fn kind(&self) -> ResultKind {
        // SAFETY: a live PGresult.
        match unsafe { ffi::PQresultStatus(self.raw.as_ptr()) } {
            1 => ResultKind::Command,
            2 => ResultKind::Rows,
            3 => ResultKind::CopyOut,
            4 => ResultKind::CopyIn,
            5 | 7 => ResultKind::Error,
            9 => ResultKind::SingleRow,
            10 => ResultKind::Sync,
            11 => ResultKind::Skipped,
            _ => ResultKind::Other,
        }
    }

    fn field(&self, letter: u8) -> Option<String> {
        // SAFETY: a live PGresult; the text lives as long as it.
        unsafe {
            let text = ffi::PQresultErrorField(self.raw.as_ptr(), c_int::from(letter));
            (!text.is_null()).then(|| owned_text(text))
        }
    }

    /// The server's error with all its fields. None of them a SQLSTATE: the connection broke.
    pub fn error(&self) -> Result<PgError, PgError> {
        let Some(sqlstate) = self.field(b'C').as_deref().and_then(SqlState::parse) else {
            // SAFETY: a live PGresult; the text lives as long as it.
            let text = unsafe { owned_text(ffi::PQresultErrorMessage(self.raw.as_ptr())) };
            return Err(PgError::new(SqlState::CONNECTION_FAILURE, text.trim_end()));
        };
        let mut error = PgError::new(sqlstate, self.field(b'M').unwrap_or_default());
        if let Some(detail) = self.field(b'D') {
            error = error.detail(detail);
        }
        if let Some(hint) = self.field(b'H') {
            error = error.hint(hint);
        }
        if let Some(context) = self.field(b'W') {
            error = error.context(context);
        }
        Ok(error.names(
            self.field(b's'),
            self.field(b't'),
            self.field(b'c'),
            self.field(b'd'),
            self.field(b'n'),
        ))
    }

    /// Rows here.
    pub fn rows(&self) -> usize {
        // SAFETY: a live PGresult.
        unsafe { ffi::PQntuples(self.raw.as_ptr()) as usize }
    }

    /// Columns here.
    pub fn columns(&self) -> usize {
        // SAFETY: a live PGresult.
        unsafe { ffi::PQnfields(self.raw.as_ptr()) as usize }
    }

    /// A value's bytes, none for NULL. A zero byte follows them in memory (libpq's promise).
    pub fn value(&self, row: usize, column: usize) -> Option<&[u8]> {
        let (row, column) = (row as c_int, column as c_int);
        // SAFETY: a live PGresult; libpq answers an index out of range with NULL and a warning; the bytes live
        // as long as the result.
        unsafe {
            if ffi::PQgetisnull(self.raw.as_ptr(), row, column) != 0 {
                return None;
            }
            let bytes = ffi::PQgetvalue(self.raw.as_ptr(), row, column);
            let n = ffi::PQgetlength(self.raw.as_ptr(), row, column);
            Some(std::slice::from_raw_parts(bytes.cast(), n as usize))
        }
    }

    /// A value as text.
    pub fn text(&self, row: usize, column: usize) -> Option<String> {
        self.value(row, column).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Rows that the command wrote, or returned.
    pub fn affected(&self) -> u64 {
        // SAFETY: a live PGresult; the text lives as long as it.
        unsafe { owned_text(ffi::PQcmdTuples(self.raw.as_ptr())) }.parse().unwrap_or(0)
    }
}

impl Drop for ResultSet {
    fn drop(&mut self) {
        // SAFETY: ours and live.
        unsafe { ffi::PQclear(self.raw.as_ptr()) }
    }
}

const _: () = assert!(size_of::<c_uint>() == size_of::<u32>());
