//! What is said on an open connection: PostgreSQL's protocol, spoken by us on libpq's socket.
//!
//! libpq opens the connection and stays its owner; from then on it neither reads nor writes. Speaking for
//! ourselves saves a row description for every statement, a copy of every row, and system calls: on a plain
//! socket a wait *is* the read. Such a wait is cut into ticks, so that interrupts are served within a tenth of
//! a second even if a signal arrives just before the read; a signal during the read ends it at once, since
//! reads with a time-out are never restarted (signal(7)).
//!
//! TLS goes through the SSL object that libpq has made, whose functions are in the process already, because
//! libpq is linked with them.

use crate::net::adopted::Adopted;
use crate::net::libpq::{Connection, Encryption};
use crate::net::wait::{Readiness, WaitSet, clock};
use crate::net::watch::Watch;
use crate::server::activity::{self, Counter};
use crate::sys::error::{PgError, SqlState};
use pgrx::pg_sys;
use protocol::{Ending, Inbox, Message, Pipeline, Row, error_fields};
use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::time::Duration;

/// The longest single wait in a read.
const TICK: Duration = Duration::from_millis(100);

/// Bytes that have been sent are not kept beside those that still wait, if they are more than this.
const KEPT_SENT: usize = 256 * 1024;

/// A connection and what is on its way over it.
#[derive(Debug)]
pub struct Link {
    /// Bytes of the flight that are sent.
    sent: usize,
    flight: Pipeline,
    inbox: Inbox,
    /// For waits that a read cannot do: for room to write, and under TLS.
    readable: Option<Box<WaitSet>>,
    transport: Transport,
    connection: Connection,
}

#[derive(Debug)]
enum Transport {
    Plain(c_int),
    Tls(Tls),
}

/// What a non-blocking read or write came to.
enum Moved {
    Bytes(usize),
    /// The other side is not ready.
    Nothing,
    /// A signal came.
    Interrupted,
}

impl Link {
    /// Takes over an open connection.
    ///
    /// # Errors
    ///
    /// If it is encrypted in a way that only libpq can speak.
    pub fn new(connection: Connection) -> Result<Self, PgError> {
        let socket = connection.socket();
        let transport = match connection.encryption() {
            Encryption::None => {
                read_with_ticks(socket).map_err(|error| lost(&error))?;
                Transport::Plain(socket)
            }
            Encryption::Tls(ssl) => Transport::Tls(Tls::new(ssl)?),
            Encryption::Gss => {
                return Err(PgError::unsupported(
                    "cannot use a connection that is encrypted by GSSAPI",
                    "Set gssencmode=disable in pg_shard.node_conninfo; sslmode=require encrypts too.",
                ));
            }
        };
        Ok(Self {
            sent: 0,
            flight: Pipeline::default(),
            inbox: Inbox::default(),
            readable: None,
            transport,
            connection,
        })
    }

    /// Takes over a connection that another process has opened.
    pub fn of_adopted(adopted: Adopted) -> Self {
        let socket = adopted.socket();
        Self {
            sent: 0,
            flight: Pipeline::default(),
            inbox: Inbox::default(),
            readable: None,
            transport: Transport::Plain(socket),
            connection: Connection::adopted(adopted),
        }
    }

    /// Makes the connection one on which other processes can speak too; false, and nothing is changed, if it cannot be.
    pub fn adopt(&mut self) -> bool {
        let is_done = self.is_quiet() && self.connection.adopt().is_some();
        if is_done {
            (self.readable, self.transport) = (None, Transport::Plain(self.connection.socket()));
        }
        is_done
    }

    /// All that is queued is sent, and all that has come has been taken.
    pub fn is_quiet(&self) -> bool {
        self.unsent() == 0 && self.inbox.is_empty()
    }

    /// The connection itself, for what libpq does.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// The socket.
    pub fn socket(&self) -> c_int {
        self.connection.socket()
    }

    /// On an idle connection: the server has closed it, or said something nobody asked for.
    pub fn is_stale(&self) -> bool {
        self.connection.is_stale()
    }

    /// Ends the conversation, whoever still holds this: the node rolls back what was open and lets its locks go.
    pub fn hang_up(&mut self) {
        // SAFETY: libpq's socket, which stays open until the connection is dropped; raises nothing.
        unsafe { libc::shutdown(self.socket(), libc::SHUT_RDWR) };
    }

    /// Messages to be sent by [`Self::send_some`].
    pub fn flight(&mut self) -> &mut Pipeline {
        &mut self.flight
    }

    /// Waits until more of what is queued can be sent, or something has come, which is read: a node that cannot take more until
    /// we read what it says would wait for us for ever. False when `limit` has passed without either.
    ///
    /// Serves interrupts.
    pub fn wait_for_room(&mut self, limit: Option<Duration>) -> Result<bool, PgError> {
        let until = limit.map(|limit| clock() + limit);
        let set = WaitSet::new(&[(self.socket(), Readiness::Writable)]);
        loop {
            let left = until.map(|until| until.saturating_sub(clock()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
            let is_ready = set.wait(left).is_some();
            if self.receive()? || is_ready {
                return Ok(true);
            }
        }
    }

    /// Sends what is queued as far as the socket takes it; true when all of it is sent.
    pub fn send_some(&mut self) -> Result<bool, PgError> {
        while self.sent < self.flight.bytes().len() {
            let bytes = &self.flight.bytes()[self.sent..];
            let moved = match &mut self.transport {
                Transport::Plain(socket) => send(*socket, bytes),
                Transport::Tls(tls) => tls.write(bytes),
            };
            match moved.map_err(|error| lost(&error))? {
                Moved::Bytes(n) => {
                    self.sent += n;
                    activity::count(Counter::BytesSent, n as u64);
                }
                Moved::Nothing => {
                    if self.sent > KEPT_SENT && self.sent > self.unsent() {
                        self.flight.forget(self.sent);
                        self.sent = 0;
                    }
                    return Ok(false);
                }
                Moved::Interrupted => {}
            }
        }
        self.flight.clear();
        self.sent = 0;
        Ok(true)
    }

    /// Bytes that are queued and not sent.
    pub fn unsent(&self) -> usize {
        self.flight.bytes().len() - self.sent
    }

    /// Reads what has come, without waiting; true if something has.
    pub fn receive(&mut self) -> Result<bool, PgError> {
        let mut any = false;
        loop {
            any |= matches!(self.read(libc::MSG_DONTWAIT)?, Moved::Bytes(_));
            // Bytes that TLS has decrypted already would not make the socket readable again.
            if !matches!(&self.transport, Transport::Tls(tls) if tls.has_more()) {
                return Ok(any);
            }
        }
    }

    fn read(&mut self, flags: c_int) -> Result<Moved, PgError> {
        let room = self.inbox.room();
        let moved = match &mut self.transport {
            Transport::Plain(socket) => receive(*socket, room, flags),
            Transport::Tls(tls) => tls.read(room),
        };
        match moved.map_err(|error| lost(&error))? {
            Moved::Bytes(0) => Err(PgError::new(
                SqlState::CONNECTION_FAILURE,
                "server closed the connection unexpectedly",
            )),
            Moved::Bytes(n) => {
                self.inbox.received(n);
                activity::count(Counter::BytesReceived, n as u64);
                Ok(Moved::Bytes(n))
            }
            moved => Ok(moved),
        }
    }

    /// Waits until something has come and been read: true; false when `limit` has passed without.
    ///
    /// Serves interrupts.
    pub fn wait(&mut self, limit: Option<Duration>) -> Result<bool, PgError> {
        pgrx::check_for_interrupts!();
        if matches!(self.transport, Transport::Tls(_)) {
            return self.wait_on_set(limit);
        }
        let mut until = None;
        let mut watch = Watch::default();
        loop {
            let moved = {
                let _told = WaitEvent::start();
                self.read(0)?
            };
            match moved {
                Moved::Bytes(_) => return Ok(true),
                Moved::Nothing | Moved::Interrupted => {
                    pgrx::check_for_interrupts!();
                    exit_without_postmaster();
                    watch.look(&[self.socket()]);
                    if let Some(limit) = limit {
                        // The clock is read only by waits that take long.
                        let until = *until.get_or_insert_with(|| clock() + limit);
                        if clock() >= until {
                            return Ok(false);
                        }
                    }
                }
            }
        }
    }

    fn wait_on_set(&mut self, limit: Option<Duration>) -> Result<bool, PgError> {
        let until = limit.map(|limit| clock() + limit);
        if let Some(set) = &self.readable {
            set.begin_again();
        }
        while !self.receive()? {
            let socket = self.socket();
            let set = self
                .readable
                .get_or_insert_with(|| Box::new(WaitSet::new(&[(socket, Readiness::Readable)])));
            let left = until.map(|until| until.saturating_sub(clock()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
            set.wait(left);
        }
        Ok(true)
    }

    /// The same without serving interrupts: for use while a transaction ends. A signal ends the wait early; without one it lasts
    /// a tick at least on a plain socket.
    pub fn wait_uninterrupted(&mut self, limit: Duration) -> Result<bool, PgError> {
        let until = clock() + limit;
        let is_plain = matches!(self.transport, Transport::Plain(_));
        loop {
            let has_come = if is_plain {
                let _told = WaitEvent::start();
                match self.read(0)? {
                    Moved::Bytes(_) => true,
                    Moved::Nothing => false,
                    Moved::Interrupted => return Ok(false),
                }
            } else {
                self.receive()?
            };
            if has_come {
                return Ok(true);
            }
            let left = until.saturating_sub(clock());
            if left.is_zero() {
                return Ok(false);
            }
            if !is_plain {
                let _told = WaitEvent::start();
                wait_readable(self.socket(), left);
            }
        }
    }

    /// The next message that is here.
    pub fn message(&mut self) -> Result<Option<Message>, PgError> {
        self.inbox
            .message()
            .map_err(|error| PgError::new(SqlState::CONNECTION_FAILURE, error.to_string()))
    }

    /// The latest commit time that the node has reported since somebody asked.
    pub fn take_commit_time(&mut self) -> Option<i64> {
        self.inbox.take_commit_time()
    }

    /// A message that is a row.
    pub fn row(&mut self, message: &Message) -> Row<'_> {
        self.inbox.row(message)
    }

    /// A message's body.
    pub fn body(&self, message: &Message) -> &[u8] {
        self.inbox.body(message)
    }

    /// What a completed COMMIT, or another command that ends a transaction, has come to.
    pub fn ending(&self, message: &Message, command: &str) -> Ending {
        self.inbox.ending(message, command)
    }

    /// How many rows a command says it concerned.
    pub fn affected(&self, message: &Message) -> u64 {
        self.inbox.affected(message)
    }

    /// A node's error with all its fields, and whether it ended the session.
    pub fn error(&self, message: &Message) -> (PgError, bool) {
        let mut sqlstate = SqlState::INTERNAL_ERROR;
        let (mut text, mut is_fatal) = (String::new(), false);
        let (mut detail, mut hint, mut context) = (None, None, None);
        let (mut schema, mut table, mut column, mut datatype, mut constraint) =
            (None, None, None, None, None);
        for (letter, value) in error_fields(self.inbox.body(message)) {
            match letter {
                b'C' => sqlstate = SqlState::parse(&value).unwrap_or(sqlstate),
                b'V' => is_fatal = matches!(value.as_str(), "FATAL" | "PANIC"),
                b'M' => text = value,
                b'D' => detail = Some(value),
                b'H' => hint = Some(value),
                b'W' => context = Some(value),
                b's' => schema = Some(value),
                b't' => table = Some(value),
                b'c' => column = Some(value),
                b'd' => datatype = Some(value),
                b'n' => constraint = Some(value),
                _ => {}
            }
        }
        let mut error =
            PgError::new(sqlstate, text).names(schema, table, column, datatype, constraint);
        if let Some(detail) = detail {
            error = error.detail(detail);
        }
        if let Some(hint) = hint {
            error = error.hint(hint);
        }
        if let Some(context) = context {
            error = error.context(context);
        }
        (error, is_fatal)
    }
}

fn lost(error: &io::Error) -> PgError {
    PgError::new(SqlState::CONNECTION_FAILURE, format!("could not talk to server: {error}"))
}

/// Makes reads of a socket wait for what they read, a tick at the longest.
fn read_with_ticks(socket: c_int) -> io::Result<()> {
    let tick = libc::timeval { tv_sec: 0, tv_usec: TICK.subsec_micros().into() };
    // SAFETY: an open socket; the option's value is a local of the size given.
    unsafe {
        let set = libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const tick).cast(),
            size_of::<libc::timeval>() as u32,
        );
        let flags = libc::fcntl(socket, libc::F_GETFL);
        if set != 0
            || flags < 0
            || libc::fcntl(socket, libc::F_SETFL, flags & !libc::O_NONBLOCK) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn moved(n: isize) -> io::Result<Moved> {
    if let Ok(n) = usize::try_from(n) {
        return Ok(Moved::Bytes(n));
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(Moved::Nothing),
        io::ErrorKind::Interrupted => Ok(Moved::Interrupted),
        _ => Err(error),
    }
}

fn send(socket: c_int, bytes: &[u8]) -> io::Result<Moved> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: an open socket and a buffer of the length given.
    moved(unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), flags) })
}

fn receive(socket: c_int, room: &mut [u8], flags: c_int) -> io::Result<Moved> {
    // SAFETY: an open socket and a buffer of the length given.
    moved(unsafe { libc::recv(socket, room.as_mut_ptr().cast(), room.len(), flags) })
}

/// Waits on one socket without PostgreSQL's latch.
fn wait_readable(socket: c_int, limit: Duration) {
    let mut wanted = libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
    let milliseconds = c_int::try_from(limit.as_millis()).unwrap_or(c_int::MAX).max(1);
    // SAFETY: one local.
    unsafe { libc::poll(&raw mut wanted, 1, milliseconds) };
}

mod raw {
    unsafe extern "C-unwind" {
        /// Raises nothing: reads a pipe (`src/backend/storage/ipc/pmsignal.c`).
        pub(super) fn PostmasterIsAliveInternal() -> bool;
    }
}

fn exit_without_postmaster() {
    // SAFETY: reads a pipe of the backend; raises nothing. proc_exit is what WL_EXIT_ON_PM_DEATH does.
    unsafe {
        if !raw::PostmasterIsAliveInternal() {
            pg_sys::proc_exit(1);
        }
    }
}

/// Tells pg_stat_activity that the backend waits, while it lives.
struct WaitEvent;

impl WaitEvent {
    fn start() -> Self {
        // SAFETY: points to this backend's entry, or to a local of the process before it has one
        // (`pgstat_report_wait_start`, `src/include/utils/wait_event.h`).
        unsafe { pg_sys::my_wait_event_info.write_volatile(pg_sys::PG_WAIT_EXTENSION) };
        Self
    }
}

impl Drop for WaitEvent {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::my_wait_event_info.write_volatile(0) };
    }
}

type SslRead = unsafe extern "C" fn(*mut c_void, *mut c_void, c_int) -> c_int;
type SslWrite = unsafe extern "C" fn(*mut c_void, *const c_void, c_int) -> c_int;
type SslError = unsafe extern "C" fn(*const c_void, c_int) -> c_int;
type SslPending = unsafe extern "C" fn(*const c_void) -> c_int;
type ClearErrors = unsafe extern "C" fn();

/// OpenSSL's object of a connection, and the functions we need of it.
struct Tls {
    ssl: *mut c_void,
    read: SslRead,
    write: SslWrite,
    error: SslError,
    pending: SslPending,
    clear_errors: ClearErrors,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    fn new(ssl: *mut c_void) -> Result<Self, PgError> {
        let find = |name: &CStr| {
            // SAFETY: a zero-terminated name; libpq has brought the library in.
            let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            if ssl.is_null() || found.is_null() {
                Err(PgError::internal("this libpq's TLS is not OpenSSL's"))
            } else {
                Ok(found)
            }
        };
        // SAFETY: the functions have these signatures in all versions of OpenSSL (ssl.h, err.h).
        unsafe {
            Ok(Self {
                ssl,
                read: std::mem::transmute::<*mut c_void, SslRead>(find(c"SSL_read")?),
                write: std::mem::transmute::<*mut c_void, SslWrite>(find(c"SSL_write")?),
                error: std::mem::transmute::<*mut c_void, SslError>(find(c"SSL_get_error")?),
                pending: std::mem::transmute::<*mut c_void, SslPending>(find(c"SSL_pending")?),
                clear_errors: std::mem::transmute::<*mut c_void, ClearErrors>(find(
                    c"ERR_clear_error",
                )?),
            })
        }
    }

    fn has_more(&self) -> bool {
        // SAFETY: a live SSL object.
        unsafe { (self.pending)(self.ssl) > 0 }
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<Moved> {
        let length = c_int::try_from(room.len()).unwrap_or(c_int::MAX);
        // SAFETY: a live SSL object and a buffer of the length given.
        let n = unsafe {
            (self.clear_errors)();
            (self.read)(self.ssl, room.as_mut_ptr().cast(), length)
        };
        self.outcome(n)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<Moved> {
        let length = c_int::try_from(bytes.len()).unwrap_or(c_int::MAX);
        // SAFETY: a live SSL object and a buffer of the length given; a write that could not be done is tried
        // again with the same bytes, since nothing is queued before all is sent.
        let n = unsafe {
            (self.clear_errors)();
            (self.write)(self.ssl, bytes.as_ptr().cast(), length)
        };
        self.outcome(n)
    }

    fn outcome(&self, n: c_int) -> io::Result<Moved> {
        if n > 0 {
            return moved(n as isize);
        }
        // What SSL_get_error says (ssl.h).
        const WANT_READ: c_int = 2;
        const WANT_WRITE: c_int = 3;
        const SYSCALL: c_int = 5;
        const ZERO_RETURN: c_int = 6;
        let system = io::Error::last_os_error();
        // SAFETY: a live SSL object and what its last call returned.
        match unsafe { (self.error)(self.ssl, n) } {
            WANT_READ | WANT_WRITE => Ok(Moved::Nothing),
            ZERO_RETURN => Ok(Moved::Bytes(0)),
            SYSCALL if n == 0 => Ok(Moved::Bytes(0)),
            SYSCALL if system.kind() == io::ErrorKind::Interrupted => Ok(Moved::Interrupted),
            SYSCALL => Err(system),
            _ => Err(io::Error::other("TLS failure")),
        }
    }
}
