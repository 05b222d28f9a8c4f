//! What PostgreSQL keeps of a COPY FROM that is running: `CopyFromStateData` of
//! `src/include/commands/copyfrom_internal.h`, which pgrx knows by name only.

use pgrx::pg_sys::{self, Oid};
use std::ffi::{c_char, c_int, c_void};

/// `COPY_FRONTEND`, the client as the source.
pub(super) const FROM_CLIENT: c_int = 1;

/// The structure of PostgreSQL 15, field by field.
#[repr(C)]
pub(super) struct State {
    pub(super) source: c_int,
    pub(super) file: *mut c_void,
    pub(super) client_message: pg_sys::StringInfo,
    eol_type: c_int,
    pub(super) file_encoding: c_int,
    pub(super) need_transcoding: bool,
    conversion_proc: Oid,
    pub(super) relation: pg_sys::Relation,
    pub(super) attnumlist: *mut pg_sys::List,
    filename: *mut c_char,
    is_program: bool,
    data_source_cb: pg_sys::copy_data_source_cb,
    pub(super) options: pg_sys::CopyFormatOptions,
    convert_select_flags: *mut bool,
    where_clause: *mut pg_sys::Node,
    cur_relname: *const c_char,
    pub(super) line_number: u64,
    pub(super) column_name: *const c_char,
    pub(super) column_text: *const c_char,
    copycontext: pg_sys::MemoryContext,
    pub(super) num_defaults: i16,
    pub(super) in_functions: *mut pg_sys::FmgrInfo,
    pub(super) typioparams: *mut Oid,
    defmap: *mut c_int,
    defexprs: *mut *mut pg_sys::ExprState,
    volatile_defexprs: bool,
    range_table: *mut pg_sys::List,
    qualexpr: *mut pg_sys::ExprState,
    transition_capture: *mut c_void,
    attribute_buf: pg_sys::StringInfoData,
    max_fields: c_int,
    raw_fields: *mut *mut c_char,
    pub(super) line: pg_sys::StringInfoData,
    pub(super) line_is_valid: bool,
    input_buf: *mut c_char,
    input_buf_index: c_int,
    input_buf_len: c_int,
    input_reached_eof: bool,
    input_reached_error: bool,
    raw_buf: *mut c_char,
    raw_buf_index: c_int,
    raw_buf_len: c_int,
    pub(super) reached_eof: bool,
    pub(super) bytes_processed: u64,
}

/// # Safety
///
/// `state` is what `BeginCopyFrom` has returned.
pub(super) unsafe fn of(state: pg_sys::CopyFromState) -> *mut State {
    state.cast()
}
