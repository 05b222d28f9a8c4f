//! What pgrx' guard forgets of an ERROR of PostgreSQL's: kept when it is raised, for who reports it again.
//!
//! The guard copies code, message, detail and hint of an ERROR that passes it, and drops the rest: the names that tools read
//! (schema, type, constraint ...) and the CONTEXT. PostgreSQL calls the callbacks of its stack `error_context_stack` for each
//! error when it is raised (`errfinish`, `src/backend/utils/error/elog.c`), innermost first. At every border there is one of ours,
//! which keeps what the error has by then, if no other border is further inside. What callbacks further out add is added
//! when the error is reported again.

use crate::sys::error::{LEVEL_ERROR, PgError, SqlState, owned_text};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use std::any::Any;
use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

thread_local! {
    /// The last error that was raised.
    static LAST: Cell<Option<Box<PgError>>> = const { Cell::new(None) };
}

mod raw {
    use pgrx::pg_sys;
    use std::ffi::c_int;
    unsafe extern "C-unwind" {
        /// Raises nothing: an error is being made when a callback is called.
        pub(super) fn geterrcode() -> c_int;
        /// Plain frames: `keep` holds nothing to drop when memory is short.
        pub(super) fn CopyErrorData() -> *mut pg_sys::ErrorData;
        /// Raises nothing: it frees.
        pub(super) fn FreeErrorData(error: *mut pg_sys::ErrorData);
    }
}

/// `ERRCODE_OUT_OF_MEMORY`: nothing can be kept then.
const OUT_OF_MEMORY: SqlState = SqlState::OUT_OF_MEMORY;

/// Runs `body`; an ERROR of PostgreSQL's that the guard turns into a panic in it becomes an `Err` with all fields.
///
/// # Safety
///
/// An ERROR that passes this frame without the guard does so to a handler of PostgreSQL's, which puts its stack of callbacks back.
pub(crate) unsafe fn keeping<R>(body: impl FnOnce() -> Result<R, PgError>) -> Result<R, PgError> {
    let mut entry = pg_sys::ErrorContextCallback {
        // SAFETY: reads a variable of the backend.
        previous: unsafe { pg_sys::error_context_stack },
        callback: Some(keep),
        arg: std::ptr::null_mut(),
    };
    entry.arg = (&raw mut entry).cast();
    // SAFETY: the entry is taken off before this frame ends.
    unsafe { pg_sys::error_context_stack = &raw mut entry };
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Err(error)) => {
            // SAFETY: the entry lives; nothing but this frame knows it.
            unsafe { take_off(&raw mut entry) };
            Err(error)
        }
        outcome => {
            // SAFETY: the stack is what it was.
            unsafe { pg_sys::error_context_stack = entry.previous };
            outcome.unwrap_or_else(|payload| Err(whole(payload)))
        }
    }
}

/// Takes an entry off the stack and leaves those above it: they have not been called for an error of ours, which is about to be
/// reported, and say where it is (COPY's line).
///
/// # Safety
///
/// The entry lives, and so do those above it.
unsafe fn take_off(own: *mut pg_sys::ErrorContextCallback) {
    // SAFETY: the caller vouches for the entries.
    unsafe {
        let mut place = &raw mut pg_sys::error_context_stack;
        while !(*place).is_null() && *place != own {
            place = &raw mut (**place).previous;
        }
        if *place == own {
            *place = (*own).previous;
        }
    }
}

/// The error that a panic carries. Other panics go on, and errors that nobody has kept.
fn whole(payload: Box<dyn Any + Send>) -> PgError {
    if let Some(CaughtError::PostgresError(report)) = payload.downcast_ref::<CaughtError>()
        && let Some(kept) = LAST.take()
        // The code that pgrx tells is XX000 if it is none of PostgreSQL's own.
        && kept.message() == report.message()
    {
        return *kept;
    }
    resume_unwind(payload)
}

/// The callback. An entry of ours is known by its argument, which is the entry.
unsafe extern "C-unwind" fn keep(own: *mut c_void) {
    // SAFETY: PostgreSQL's stack of callbacks is live while one of them is called. CopyErrorData may fail for want of memory: this
    // frame holds nothing to drop then. It is not to be called in the context that the callback is called in.
    unsafe {
        let mut entry = pg_sys::error_context_stack;
        while !entry.is_null() && !std::ptr::eq((*entry).arg, entry.cast()) {
            entry = (*entry).previous;
        }
        if !std::ptr::eq(entry.cast(), own)
            || SqlState::unpacked(raw::geterrcode()) == OUT_OF_MEMORY
        {
            return;
        }
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = pg_sys::TopMemoryContext;
        let data = raw::CopyErrorData();
        if (*data).elevel >= LEVEL_ERROR {
            LAST.set(Some(Box::new(read(&*data))));
        }
        raw::FreeErrorData(data);
        pg_sys::CurrentMemoryContext = before;
    }
}

fn read(data: &pg_sys::ErrorData) -> PgError {
    let text = |text: *mut c_char| {
        // SAFETY: a text of a live ErrorData.
        (!text.is_null()).then(|| unsafe { owned_text(text) })
    };
    let message = text(data.message).unwrap_or_else(|| "<null error message>".to_owned());
    let mut error = PgError::new(SqlState::unpacked(data.sqlerrcode), message).names(
        text(data.schema_name),
        text(data.table_name),
        text(data.column_name),
        text(data.datatype_name),
        text(data.constraint_name),
    );
    if let Some(detail) = text(data.detail) {
        error = error.detail(detail);
    }
    if let Some(hint) = text(data.hint) {
        error = error.hint(hint);
    }
    if let Some(context) = text(data.context) {
        error = error.context(context);
    }
    error
}
