//! The key by which a connection is cancelled, for whoever has the socket and not libpq's object.
//!
//! libpq shows it to nobody, but its trace of the protocol (`PQtrace`) has the server's message `BackendKeyData`. The trace goes to memory,
//! for the time of the log-in, and is wiped.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;

unsafe extern "C" {
    /// Raises nothing: libpq knows no ERROR.
    fn PQtrace(conn: *mut c_void, stream: *mut libc::FILE);
    /// Raises nothing: libpq knows no ERROR.
    fn PQsetTraceFlags(conn: *mut c_void, flags: c_int);
    /// Raises nothing: libpq knows no ERROR.
    fn PQuntrace(conn: *mut c_void);
    /// Raises nothing: the C library's.
    fn open_memstream(text: *mut *mut c_char, length: *mut usize) -> *mut libc::FILE;
}

/// `PQTRACE_SUPPRESS_TIMESTAMPS`, `libpq-fe.h`.
const WITHOUT_TIMES: c_int = 1;

/// What is traced of a log-in.
#[derive(Debug)]
pub(super) struct Trace {
    stream: *mut libc::FILE,
    text: *mut c_char,
    length: usize,
}

impl Trace {
    /// Begins to trace a connection.
    ///
    /// # Safety
    ///
    /// A live PGconn, for which [`Self::end`] is called before it is closed.
    pub(super) unsafe fn begin(connection: *mut c_void) -> Option<Box<Self>> {
        let mut trace = Box::new(Self { stream: null_mut(), text: null_mut(), length: 0 });
        // SAFETY: the stream's text and length are in the box, and stay there; the caller vouches for the connection.
        unsafe {
            trace.stream = open_memstream(&raw mut trace.text, &raw mut trace.length);
            if trace.stream.is_null() {
                return None;
            }
            PQtrace(connection, trace.stream);
            PQsetTraceFlags(connection, WITHOUT_TIMES);
        }
        Some(trace)
    }

    /// Ends it: the key, if the server has told one.
    ///
    /// # Safety
    ///
    /// The connection of [`Self::begin`].
    pub(super) unsafe fn end(&mut self, connection: *mut c_void) -> Option<i32> {
        // SAFETY: the caller vouches for the connection; the stream is closed once, and its text is the C library's until it is freed.
        unsafe {
            PQuntrace(connection);
            libc::fclose(std::mem::replace(&mut self.stream, null_mut()));
            if self.text.is_null() {
                return None;
            }
            let bytes = std::slice::from_raw_parts_mut(self.text.cast::<u8>(), self.length);
            let key = key_in(&String::from_utf8_lossy(bytes));
            bytes.fill(0);
            libc::free(std::mem::replace(&mut self.text, null_mut()).cast());
            key
        }
    }
}

/// A line is the direction, the length, the message's name and its fields; a key has 4 bytes in the protocol that we speak.
fn key_in(trace: &str) -> Option<i32> {
    trace.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("B")).then_some(())?;
        (words.next() == Some("12") && words.next() == Some("BackendKeyData")).then_some(())?;
        words.next()?;
        words.next()?.parse().ok()
    })
}
