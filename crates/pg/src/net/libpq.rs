//! libpq, the system's: it opens connections, with everything that belongs to that (host lists, TLS, SCRAM,
//! passwords in files), and cancels statements. What is said on an open connection is [`crate::net::link`]'s.
//!
//! Nothing here raises an ERROR of PostgreSQL; failures are values. libpq itself knows nothing of the
//! backend it lives in, so its functions may be called in any state, also while a transaction aborts.

use crate::net::adopted::{self, Adopted};
use crate::net::cancel_key::Trace;
use crate::sys::error::{PgError, SqlState, owned_text};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::NonNull;

#[allow(non_camel_case_types, reason = "libpq's own names")]
mod ffi {
    use super::{c_char, c_int, c_void};
    #[repr(C)]
    pub(super) struct PGconn(c_void);
    #[repr(C)]
    pub(super) struct PGresult(c_void);
    #[repr(C)]
    pub(super) struct PGcancel(c_void);
    pub(super) type PQnoticeReceiver = Option<unsafe extern "C" fn(*mut c_void, *const PGresult)>;

    unsafe extern "C" {
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQconnectStartParams(
            keywords: *const *const c_char,
            values: *const *const c_char,
            expand_dbname: c_int,
        ) -> *mut PGconn;
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQconnectPoll(conn: *mut PGconn) -> c_int;
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQfinish(conn: *mut PGconn);
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQstatus(conn: *const PGconn) -> c_int;
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQsocket(conn: *const PGconn) -> c_int;
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQbackendPID(conn: *const PGconn) -> c_int;
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQparameterStatus(conn: *const PGconn, name: *const c_char) -> *const c_char;
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQerrorMessage(conn: *const PGconn) -> *const c_char;
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQsetErrorVerbosity(conn: *mut PGconn, verbosity: c_int) -> c_int;
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQsetNoticeReceiver(
            conn: *mut PGconn,
            receiver: PQnoticeReceiver,
            arg: *mut c_void,
        ) -> PQnoticeReceiver;
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQgetCancel(conn: *mut PGconn) -> *mut PGcancel;
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQcancel(cancel: *mut PGcancel, buffer: *mut c_char, n: c_int) -> c_int;
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQsslInUse(conn: *mut PGconn) -> c_int;
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQsslStruct(conn: *mut PGconn, name: *const c_char) -> *mut c_void;
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQgssEncInUse(conn: *mut PGconn) -> c_int;
        /// Raises nothing: libpq knows no ERROR.
        pub(super) fn PQfreeCancel(cancel: *mut PGcancel);

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

/// What protects the bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Nothing.
    None,
    /// TLS: OpenSSL's `SSL *`.
    Tls(*mut c_void),
    /// GSSAPI.
    Gss,
}

/// A connection to one node.
#[derive(Debug)]
pub struct Connection {
    /// Null if another process has opened it: libpq's functions know that there is none then.
    raw: *mut ffi::PGconn,
    adopted: Option<Adopted>,
    /// What is traced of the log-in, and the key that it has shown.
    trace: Option<Box<Trace>>,
    key: Option<i32>,
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
        let connection = Self { raw: raw.as_ptr(), adopted: None, trace: None, key: None };
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

    /// A connection that another process has opened.
    pub fn adopted(adopted: Adopted) -> Self {
        Self { raw: std::ptr::null_mut(), adopted: Some(adopted), trace: None, key: None }
    }

    /// Has [`Self::adopt`] know the key by which the connection is cancelled; to be called before it is open.
    pub fn note_key(&mut self) {
        // SAFETY: a live PGconn; the trace ends before it is closed, here or in `Drop`.
        self.trace = unsafe { Trace::begin(self.raw.cast()) };
    }

    fn end_trace(&mut self) {
        if let Some(mut trace) = self.trace.take() {
            // SAFETY: the trace was begun on this connection, which is live.
            self.key = unsafe { trace.end(self.raw.cast()) };
        }
    }

    /// Goes on without libpq, which forgets the connection and does not close it. None, and nothing is changed, if the connection is
    /// not one that several processes can speak on.
    pub fn adopt(&mut self) -> Option<()> {
        let key = self.key?;
        if self.adopted.is_some() || self.encryption() != Encryption::None || self.backend() <= 0 {
            return None;
        }
        let socket = adopted::duplicate(self.socket())?;
        let adopted = Adopted::new(socket, self.backend(), key);
        // SAFETY: libpq's descriptor becomes one of the null device, to which it says goodbye; the object is live and freed once.
        unsafe {
            let nothing = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
            if nothing < 0 {
                return None;
            }
            libc::dup2(nothing, self.socket());
            libc::close(nothing);
            ffi::PQfinish(self.pointer());
        }
        self.raw = std::ptr::null_mut();
        self.adopted = Some(adopted);
        Some(())
    }

    /// The key by which an adopted connection is cancelled.
    pub fn cancel_key(&self) -> Option<i32> {
        self.adopted.as_ref().map(|adopted| adopted.key)
    }

    fn pointer(&self) -> *mut ffi::PGconn {
        self.raw
    }

    /// Goes on opening; call when the awaited readiness has come.
    pub fn poll_opening(&mut self) -> Opening {
        if self.is_bad() {
            return Opening::Failed;
        }
        // SAFETY: `raw` is a live PGconn in its opening state; libpq's texts are to be those that `network_failure` knows, so
        // that the thread's locale is another one meanwhile.
        let polled = unsafe {
            let before = c_locale().map(|locale| libc::uselocale(locale));
            let polled = ffi::PQconnectPoll(self.pointer());
            if let Some(before) = before {
                libc::uselocale(before);
            }
            polled
        };
        match polled {
            1 => Opening::WaitReadable,
            2 => Opening::WaitWritable,
            3 => {
                self.end_trace();
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

    /// Opening has failed because of the network or the other server: nobody answers there. What libpq refuses by itself (no
    /// password, certificates, names that cannot be resolved, too few descriptors) says nothing of the node.
    pub fn is_network_failure(&self) -> bool {
        is_network_failure(&self.error_text())
    }

    /// libpq's last message, without its final newline.
    pub fn error_text(&self) -> String {
        // SAFETY: libpq returns a text that lives until the next call on this connection.
        unsafe { owned_text(ffi::PQerrorMessage(self.pointer())) }.trim_end().to_owned()
    }

    /// The socket, or -1.
    pub fn socket(&self) -> c_int {
        if let Some(adopted) = &self.adopted {
            return adopted.socket();
        }
        // SAFETY: a live PGconn.
        unsafe { ffi::PQsocket(self.pointer()) }
    }

    /// The number of the server's process, as it has told it at the log-in.
    pub fn backend_pid(&self) -> c_int {
        self.backend()
    }

    /// A setting that the server has reported at the log-in.
    pub fn parameter(&self, name: &CStr) -> Option<String> {
        // SAFETY: a live PGconn; the text is libpq's, and is copied at once.
        unsafe {
            let value = ffi::PQparameterStatus(self.pointer(), name.as_ptr());
            (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
        }
    }

    /// libpq knows the connection to be broken.
    pub fn is_bad(&self) -> bool {
        if self.adopted.is_some() {
            return false;
        }
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

    /// Whether and how the connection is encrypted.
    pub fn encryption(&self) -> Encryption {
        if self.adopted.is_some() {
            return Encryption::None;
        }
        // SAFETY: a live, open PGconn; the SSL object belongs to it and lives as long.
        unsafe {
            if ffi::PQgssEncInUse(self.pointer()) != 0 {
                Encryption::Gss
            } else if ffi::PQsslInUse(self.pointer()) != 0 {
                Encryption::Tls(ffi::PQsslStruct(self.pointer(), c"OpenSSL".as_ptr()))
            } else {
                Encryption::None
            }
        }
    }

    /// The process that serves the connection, as the server has told.
    pub fn backend(&self) -> c_int {
        if let Some(adopted) = &self.adopted {
            return adopted.backend;
        }
        // SAFETY: a live PGconn.
        unsafe { ffi::PQbackendPID(self.pointer()) }
    }

    /// Asks the server to cancel what it does, without waiting; none if that cannot be done.
    ///
    /// libpq's cancel blocks, for ever if the node is frozen, so it runs on a thread of its own that touches
    /// nothing of PostgreSQL and gets no signals.
    pub fn start_cancel(&mut self) -> Option<Cancelling> {
        let request = if let Some(adopted) = &self.adopted {
            CancelRequest::Ours(adopted.cancel_request()?)
        } else {
            // SAFETY: a live PGconn.
            let raw = unsafe { ffi::PQgetCancel(self.pointer()) };
            CancelRequest::Libpq(NonNull::new(raw)?)
        };
        let (done, heard) = std::sync::mpsc::channel();
        let spawned = with_signals_blocked(|| {
            std::thread::Builder::new().name("pg_shard cancel".into()).spawn(move || {
                let sent = request.send();
                // The receiver is gone when the limit has passed.
                let _ = done.send(sent);
            })
        });
        spawned.ok().map(|_| Cancelling(heard))
    }
}

/// A cancel request on its way. Until the server has heard it, it may strike whatever the connection does by then.
#[derive(Debug)]
pub struct Cancelling(std::sync::mpsc::Receiver<bool>);

impl Cancelling {
    /// The request has come to its end, if it does so within `limit`.
    pub fn is_over(&self, limit: std::time::Duration) -> bool {
        !matches!(self.0.recv_timeout(limit), Err(std::sync::mpsc::RecvTimeoutError::Timeout))
    }
}

/// The locale of untranslated texts.
fn c_locale() -> Option<libc::locale_t> {
    static LOCALE: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    let locale = *LOCALE.get_or_init(|| {
        // SAFETY: a constant name; the object is kept for the life of the process.
        unsafe { libc::newlocale(libc::LC_ALL_MASK, c"C".as_ptr(), std::ptr::null_mut()) as usize }
    });
    (locale != 0).then_some(locale as libc::locale_t)
}

/// What libpq 15 and the system say if a server does not answer (`src/interfaces/libpq/fe-connect.c`, `fe-misc.c`, `fe-secure.c`). With
/// several addresses each has its line; that of the last one tried counts.
fn is_network_failure(text: &str) -> bool {
    const SIGNS: [&str; 16] = [
        "Connection refused",
        "Connection timed out",
        "timeout expired",
        "No route to host",
        "Network is unreachable",
        "Network is down",
        "Host is down",
        "Connection reset by peer",
        "Broken pipe",
        "No such file or directory\n\tIs the server running",
        "server closed the connection unexpectedly",
        "SSL connection has been closed unexpectedly",
        "SSL SYSCALL error: EOF detected",
        "could not receive data from server",
        "could not send data to server",
        "could not send startup packet",
    ];
    let last = text.rfind("connection to server").map_or(text, |at| &text[at..]);
    SIGNS.iter().any(|sign| last.contains(sign))
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end_trace();
        // SAFETY: `raw` is live and nobody else has it, or null, which libpq passes over.
        unsafe { ffi::PQfinish(self.pointer()) }
    }
}

/// A cancel request: a copy of the address and key, independent of its connection.
enum CancelRequest {
    Libpq(NonNull<ffi::PGcancel>),
    /// On a connection that has left libpq.
    Ours(adopted::Request),
}

// SAFETY: libpq documents PQcancel as safe to call from another thread: the object is a private copy.
unsafe impl Send for CancelRequest {}

impl CancelRequest {
    fn send(&self) -> bool {
        match self {
            Self::Ours(request) => request.send(),
            Self::Libpq(request) => {
                let mut message = [0 as c_char; 256];
                let length = message.len() as c_int;
                // SAFETY: a live PGcancel and a buffer of the length given.
                unsafe { ffi::PQcancel(request.as_ptr(), message.as_mut_ptr(), length) == 1 }
            }
        }
    }
}

impl Drop for CancelRequest {
    fn drop(&mut self) {
        if let Self::Libpq(request) = self {
            // SAFETY: ours and live.
            unsafe { ffi::PQfreeCancel(request.as_ptr()) }
        }
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
