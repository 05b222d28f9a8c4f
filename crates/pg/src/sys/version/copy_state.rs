//! What PostgreSQL keeps of a COPY FROM that is running: `CopyFromStateData` of
//! `src/include/commands/copyfrom_internal.h`, which pgrx knows by name only.

use crate::sys::error::PgError;
#[cfg(feature = "pg18")]
use crate::sys::error::SqlState;
use pgrx::pg_sys::{self, Oid};
use std::ffi::{c_char, c_int, c_void};

/// `COPY_FRONTEND`, the client as the source.
pub(crate) const FROM_CLIENT: c_int = 1;

/// The end-of-copy marker has a line of its own, and is none in CSV.
pub(crate) const HAS_STRICT_MARKER: bool = cfg!(feature = "pg18");

/// The structure, field by field.
#[repr(C)]
pub(crate) struct State {
    #[cfg(feature = "pg18")]
    routine: *const c_void,
    pub(crate) source: c_int,
    pub(crate) file: *mut c_void,
    pub(crate) client_message: pg_sys::StringInfo,
    eol_type: c_int,
    pub(crate) file_encoding: c_int,
    pub(crate) need_transcoding: bool,
    conversion_proc: Oid,
    pub(crate) relation: pg_sys::Relation,
    pub(crate) attnumlist: *mut pg_sys::List,
    filename: *mut c_char,
    is_program: bool,
    data_source_cb: pg_sys::copy_data_source_cb,
    pub(crate) options: pg_sys::CopyFormatOptions,
    convert_select_flags: *mut bool,
    where_clause: *mut pg_sys::Node,
    cur_relname: *const c_char,
    pub(crate) line_number: u64,
    pub(crate) column_name: *const c_char,
    pub(crate) column_text: *const c_char,
    #[cfg(not(feature = "pg15"))]
    relname_only: bool,
    copycontext: pg_sys::MemoryContext,
    pub(crate) num_defaults: i16,
    pub(crate) in_functions: *mut pg_sys::FmgrInfo,
    pub(crate) typioparams: *mut Oid,
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    soft_errors: *mut c_void,
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    pub(crate) skipped: u64,
    defmap: *mut c_int,
    defexprs: *mut *mut pg_sys::ExprState,
    #[cfg(not(feature = "pg15"))]
    defaults: *mut bool,
    volatile_defexprs: bool,
    range_table: *mut pg_sys::List,
    #[cfg(not(feature = "pg15"))]
    rteperminfos: *mut pg_sys::List,
    qualexpr: *mut pg_sys::ExprState,
    transition_capture: *mut c_void,
    attribute_buf: pg_sys::StringInfoData,
    max_fields: c_int,
    raw_fields: *mut *mut c_char,
    pub(crate) line: pg_sys::StringInfoData,
    pub(crate) line_is_valid: bool,
    input_buf: *mut c_char,
    input_buf_index: c_int,
    input_buf_len: c_int,
    input_reached_eof: bool,
    input_reached_error: bool,
    raw_buf: *mut c_char,
    raw_buf_index: c_int,
    raw_buf_len: c_int,
    pub(crate) reached_eof: bool,
    pub(crate) bytes_processed: u64,
}

/// # Safety
///
/// `state` is what `BeginCopyFrom` has returned.
pub(crate) unsafe fn of(state: pg_sys::CopyFromState) -> *mut State {
    state.cast()
}

/// Rows that their types do not take are left out (`ON_ERROR ignore`, since PostgreSQL 17).
pub(crate) fn skips_errors(options: &pg_sys::CopyFormatOptions) -> bool {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    {
        let _ = options;
        false
    }
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    {
        options.on_error != pg_sys::CopyOnErrorChoice::COPY_ON_ERROR_STOP
    }
}

/// The row that was just read is one of these, and is left out (`CopyFrom` of `src/backend/commands/copyfrom.c`).
///
/// # Errors
///
/// If more rows were left out than may be.
///
/// # Safety
///
/// What `BeginCopyFrom` has returned, right after `NextCopyFrom`.
pub(crate) unsafe fn takes_row_out(state: pg_sys::CopyFromState) -> Result<bool, PgError> {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    {
        let _ = state;
        Ok(false)
    }
    // SAFETY: the caller vouches for the state; with this option it has a place for errors.
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    unsafe {
        let own = &*of(state);
        let errors: *mut pg_sys::ErrorSaveContext = own.soft_errors.cast();
        if !skips_errors(&own.options) || !(*errors).error_occurred {
            return Ok(false);
        }
        (*errors).error_occurred = false;
        let skipped = own.skipped as i64;
        pg_sys::pgstat_progress_update_param(
            pg_sys::PROGRESS_COPY_TUPLES_SKIPPED as c_int,
            skipped,
        );
        #[cfg(feature = "pg18")]
        if own.options.reject_limit > 0 && skipped > own.options.reject_limit {
            return Err(PgError::new(
                SqlState::INVALID_TEXT_REPRESENTATION,
                format!(
                    "skipped more than REJECT_LIMIT ({}) rows due to data type incompatibility",
                    own.options.reject_limit
                ),
            ));
        }
        Ok(true)
    }
}

/// Tells the client at the end how many rows were left out, if it wants to know.
///
/// # Safety
///
/// What `BeginCopyFrom` has returned.
pub(crate) unsafe fn tell_skipped(state: pg_sys::CopyFromState) {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    {
        let _ = state;
    }
    // SAFETY: the caller vouches for the state.
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    unsafe {
        let own = &*of(state);
        let is_wanted =
            own.options.log_verbosity >= pg_sys::CopyLogVerbosityChoice::COPY_LOG_VERBOSITY_DEFAULT;
        if skips_errors(&own.options) && own.skipped > 0 && is_wanted {
            let rows = if own.skipped == 1 { "row was" } else { "rows were" };
            pgrx::notice!("{} {rows} skipped due to data type incompatibility", own.skipped);
        }
    }
}
