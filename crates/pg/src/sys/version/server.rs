//! The server around a statement: processes, signals, files, the wait event set, tables' sizes.

use pgrx::pg_sys;
use std::ffi::{CStr, c_char, c_int};

/// The setting that has plans run in parallel workers to try them.
#[cfg(feature = "pg15")]
pub(crate) const PARALLEL_FOR_TESTS: &CStr = c"force_parallel_mode";
/// The setting that has plans run in parallel workers to try them.
#[cfg(not(feature = "pg15"))]
pub(crate) const PARALLEL_FOR_TESTS: &CStr = c"debug_parallel_query";

/// The number of this backend among all that there may be, from 0; none in a process that is none.
pub(crate) fn backend_index() -> Option<usize> {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    {
        // SAFETY: a variable of the process.
        let number = unsafe { pg_sys::MyBackendId };
        usize::try_from(number).ok()?.checked_sub(1)
    }
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    {
        // SAFETY: a variable of the process; backends come first among processes.
        let number = unsafe { pg_sys::MyProcNumber };
        usize::try_from(number).ok()
    }
}

/// The place of this process in `ProcGlobal->allProcs`.
///
/// # Safety
///
/// The process has a PGPROC.
pub(crate) unsafe fn process_number() -> c_int {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: the caller vouches for it.
    unsafe {
        (*pg_sys::MyProc).pgprocno
    }
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    // SAFETY: a variable of the process.
    unsafe {
        pg_sys::MyProcNumber
    }
}

/// Has a signal handled.
///
/// # Safety
///
/// A handler as PostgreSQL has them.
pub(crate) unsafe fn handle_signal(
    signal: c_int,
    handler: Option<unsafe extern "C-unwind" fn(c_int)>,
) {
    // SAFETY: the caller vouches for the handler.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(signal, handler);
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(signal, handler);
    }
}

/// A wait event set that lasts until it is freed.
///
/// # Safety
///
/// On the main thread of a backend.
pub(crate) unsafe fn lasting_wait_set(events: c_int) -> *mut pg_sys::WaitEventSet {
    // SAFETY: the context, or no owner, which means as much, keeps the set until it is freed.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        {
            pg_sys::CreateWaitEventSet(pg_sys::TopMemoryContext, events)
        }
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        {
            pg_sys::CreateWaitEventSet(std::ptr::null_mut(), events)
        }
    }
}

/// Writes at a place of a temporary file; how many bytes were written.
///
/// # Safety
///
/// An open file.
pub(crate) unsafe fn write_file(file: pg_sys::File, bytes: &[u8], offset: i64) -> i64 {
    let (start, event) = (bytes.as_ptr().cast_mut().cast(), pg_sys::PG_WAIT_EXTENSION);
    // SAFETY: the caller vouches for the file; the bytes are only read. Longer ones than a C int are never written at once.
    unsafe { pg_sys::FileWrite(file, start, bytes.len() as _, offset, event) as i64 }
}

/// The subtransaction in which the relation got a new file; the invalid one if none did.
///
/// # Safety
///
/// An open relation.
pub(crate) unsafe fn rewritten_in(relation: pg_sys::Relation) -> pg_sys::SubTransactionId {
    // SAFETY: the caller vouches for the relation.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            (*relation).rd_newRelfilenodeSubid
        }
        #[cfg(not(feature = "pg15"))]
        {
            (*relation).rd_newRelfilelocatorSubid
        }
    }
}

/// Stores how large a table is, for the planner.
///
/// # Safety
///
/// An open relation, locked against others that do the same.
pub(crate) unsafe fn store_size(relation: pg_sys::Relation, pages: pg_sys::BlockNumber, rows: f64) {
    // SAFETY: the caller vouches for the relation.
    unsafe {
        pg_sys::vac_update_relstats(
            relation,
            pages,
            rows,
            0,
            #[cfg(feature = "pg18")]
            0,
            (*(*relation).rd_rel).relhasindex,
            pg_sys::TransactionId::from_inner(0),
            pg_sys::MultiXactId::from_inner(0),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            true,
        );
    }
}

/// PostgreSQL's own TRUNCATE of open tables.
///
/// # Safety
///
/// Live lists: of relations that are open and locked, and of their OIDs.
pub(crate) unsafe fn truncate(relations: *mut pg_sys::List, oids: *mut pg_sys::List) {
    // SAFETY: the caller vouches for the lists.
    unsafe {
        pg_sys::ExecuteTruncateGuts(
            relations,
            oids,
            std::ptr::null_mut(),
            pg_sys::DropBehavior::DROP_RESTRICT,
            false,
            #[cfg(not(feature = "pg15"))]
            false,
        );
    }
}

/// The name of an encoding.
///
/// # Safety
///
/// A valid number.
pub(crate) unsafe fn encoding_name(encoding: c_int) -> *const c_char {
    // SAFETY: the caller vouches for the number.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        {
            pg_sys::pg_encoding_to_char(encoding)
        }
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        {
            pg_sys::pg_encoding_to_char_private(encoding)
        }
    }
}

mod raw {
    //! Not among pgrx' bindings.
    unsafe extern "C-unwind" {
        /// Raises nothing: compares two variables (`src/backend/libpq/pqcomm.c`).
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        pub(super) fn pq_buffer_has_data() -> bool;
        /// Raises nothing: subtracts two variables (`src/backend/libpq/pqcomm.c`).
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        pub(super) fn pq_buffer_remaining_data() -> isize;
    }
}

/// Bytes of the client have been read that no message has taken yet.
pub(crate) fn has_read_more() -> bool {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: looks at variables of the backend.
    unsafe {
        raw::pq_buffer_has_data()
    }
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    // SAFETY: looks at variables of the backend.
    unsafe {
        raw::pq_buffer_remaining_data() > 0
    }
}
