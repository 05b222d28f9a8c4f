//! The worker's half of a user's aggregate that is computed in parts: the SQL aggregates `pgs_catalog.partial_state` and
//! `pgs_catalog.serial_state`, which yield the transition state of another aggregate.
//!
//! Their transition function does what the executor does for a transition function (`ExecBuildAggTrans` of
//! `src/backend/executor/execExpr.c` and its steps): initial value, strictness, the state kept in the aggregate's memory, read-write
//! expanded objects taken over. Their final functions print the state, or make bytes of one of type internal.
//! They are told, before the arguments, the aggregate's signature, the types of the arguments, the digest by which the coordinator
//! knows the aggregate (`definition.rs`), and the schemas in which names are to be looked up. Rights are checked as for the
//! aggregate itself, by the same look-up.
//!
//! A state lives in the aggregate's memory, the preparation in that of the executor's expression; both are older than
//! any call and end with the query.

use crate::catalog::definition::{self, Aggregate};
use crate::sys::boundary::boundary;
use crate::sys::error::{PgError, SqlState};
use crate::sys::node;
use crate::sys::value::{FIRST_USER_OID, TextStyle};
use crate::sys::version::{self, SearchPath};
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::{CStr, c_int};

mod raw {
    //! Not among pgrx' bindings, or called where no Rust value waits to be dropped.
    use pgrx::pg_sys::{self, Datum};
    use std::ffi::c_int;
    unsafe extern "C-unwind" {
        /// Plain frames: those of the aggregates' functions hold nothing to drop.
        pub(super) fn datumCopy(value: Datum, by_value: bool, length: c_int) -> Datum;
        /// Plain frames: those of the aggregates' functions hold nothing to drop.
        pub(super) fn DeleteExpandedObject(value: Datum);
        /// Plain frames: those of the aggregates' functions hold nothing to drop.
        pub(super) fn pfree(pointer: *mut std::ffi::c_void);
        /// Plain frames: those of the aggregates' functions hold nothing to drop.
        pub(super) fn MemoryContextAlloc(
            context: pg_sys::MemoryContext,
            size: usize,
        ) -> *mut std::ffi::c_void;
        /// Raises nothing: looks at the call's node (`src/backend/executor/nodeAgg.c`).
        pub(super) fn AggCheckCallContext(
            call: pg_sys::FunctionCallInfo,
            context: *mut pg_sys::MemoryContext,
        ) -> c_int;
    }
}

/// How many arguments come before the aggregate's own: the state, and what is told.
const FIRST: usize = 5;

/// What is needed for each row, looked up once an execution.
struct Prepared {
    transition: pg_sys::FmgrInfo,
    /// The transition function's call, reused.
    call: pg_sys::FunctionCallInfo,
    /// How many arguments it takes beside the state.
    inputs: usize,
    strict: bool,
    /// None if it is NULL.
    initial: Option<Datum>,
    by_value: bool,
    length: c_int,
    output: pg_sys::FmgrInfo,
    serial: pg_sys::FmgrInfo,
    /// Where names in the functions of users are looked up; none for functions of the server.
    path: Option<SearchPath>,
}

/// The state of one group.
#[repr(C)]
struct State {
    prepared: *mut Prepared,
    value: Datum,
    is_null: bool,
    /// The first value that is not NULL becomes the state.
    awaits_first: bool,
}

unsafe fn argument(call: pg_sys::FunctionCallInfo, index: usize) -> *mut pg_sys::NullableDatum {
    // SAFETY: the caller knows that there are as many.
    unsafe { (*call).args.as_mut_ptr().add(index) }
}

/// The transition function of both aggregates.
///
/// # Safety
///
/// Called by PostgreSQL's executor, with a state and at least [`FIRST`] arguments.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_partial_state_step(
    call: pg_sys::FunctionCallInfo,
) -> Datum {
    // SAFETY: PostgreSQL's live call information. This frame holds nothing to drop: ERRORs of the transition function pass
    // it by longjmp.
    unsafe {
        let mut context = std::ptr::null_mut();
        let is_aggregate = raw::AggCheckCallContext(call, &raw mut context)
            == pg_sys::AGG_CONTEXT_AGGREGATE as c_int;
        let info = (*call).flinfo;
        if !is_aggregate || (*info).fn_extra.is_null() {
            boundary(|| {
                if !is_aggregate {
                    return Err(outside());
                }
                (*info).fn_extra = prepare(call)?.cast();
                Ok(())
            });
        }
        let prepared: *mut Prepared = (*info).fn_extra.cast();
        let given = argument(call, 0);
        let state: *mut State = if (*given).isnull {
            let state: *mut State = raw::MemoryContextAlloc(context, size_of::<State>()).cast();
            (*state).prepared = prepared;
            (*state).is_null = true;
            (*state).value = Datum::from(0);
            (*state).awaits_first = (*prepared).initial.is_none();
            if let Some(initial) = (*prepared).initial {
                (*state).value = copy_into(context, initial, prepared);
                (*state).is_null = false;
            }
            state
        } else {
            (*given).value.cast_mut_ptr()
        };
        advance(call, prepared, state, context);
        (*call).isnull = false;
        Datum::from(state)
    }
}

fn outside() -> PgError {
    PgError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        "the state of an aggregate is asked for outside an aggregate",
    )
}

/// One row, as `ExecBuildAggTrans` of `src/backend/executor/execExpr.c` has it done.
unsafe fn advance(
    call: pg_sys::FunctionCallInfo,
    prepared: *mut Prepared,
    state: *mut State,
    context: pg_sys::MemoryContext,
) {
    // SAFETY: live structures of this execution; this frame holds nothing to drop.
    unsafe {
        let own = (*prepared).call;
        for index in 0..(*prepared).inputs {
            let value = *argument(call, FIRST + index);
            if value.isnull && (*prepared).strict {
                return;
            }
            *argument(own, 1 + index) = value;
        }
        if (*prepared).strict {
            if (*state).awaits_first {
                (*state).value = copy_into(context, (*argument(own, 1)).value, prepared);
                (*state).is_null = false;
                (*state).awaits_first = false;
                return;
            }
            if (*state).is_null {
                return;
            }
        }
        (*state).awaits_first = false;
        *argument(own, 0) =
            pg_sys::NullableDatum { value: (*state).value, isnull: (*state).is_null };
        (*own).context = (*call).context;
        (*own).fncollation = (*call).fncollation;
        (*own).isnull = false;
        let function = (*prepared).transition.fn_addr.unwrap_unchecked();
        let mut value = match (*prepared).path {
            None => function(own),
            Some(path) => {
                let before = path.begin();
                let value = function(own);
                before.end();
                value
            }
        };
        // As `ExecAggTransReparent` of the same file does.
        let is_null = (*own).isnull;
        let is_same = value.value() == (*state).value.value();
        if !(*prepared).by_value && !is_same {
            if is_null {
                value = Datum::from(0);
            } else if !is_expanded_in(context, value, prepared) {
                value = copy_into(context, value, prepared);
            }
            if !(*state).is_null {
                if is_expanded((*state).value, prepared) {
                    raw::DeleteExpandedObject((*state).value);
                } else {
                    raw::pfree((*state).value.cast_mut_ptr());
                }
            }
        }
        (*state).value = value;
        (*state).is_null = is_null;
    }
}

unsafe fn copy_into(
    context: pg_sys::MemoryContext,
    value: Datum,
    prepared: *const Prepared,
) -> Datum {
    // SAFETY: a live value of the state's type; this frame holds nothing to drop.
    unsafe {
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = context;
        let copy = raw::datumCopy(value, (*prepared).by_value, (*prepared).length);
        pg_sys::CurrentMemoryContext = before;
        copy
    }
}

/// A read-write pointer to an expanded object, `DatumIsReadWriteExpandedObject` of `src/include/utils/expandeddatum.h`.
unsafe fn is_expanded(value: Datum, prepared: *const Prepared) -> bool {
    // SAFETY: a live value of the state's type. A varlena's first byte tells an external one, its second byte of which kind
    // (`varattrib_1b_e` of `src/include/postgres.h`).
    unsafe {
        let bytes: *const u8 = value.cast_mut_ptr();
        (*prepared).length == -1
            && *bytes == 0x01
            && u32::from(*bytes.add(1)) == pg_sys::vartag_external::VARTAG_EXPANDED_RW
    }
}

/// Such a one, which lives in a child of the context.
unsafe fn is_expanded_in(
    context: pg_sys::MemoryContext,
    value: Datum,
    prepared: *const Prepared,
) -> bool {
    // SAFETY: behind the two bytes of such a pointer stands that to the object (`varatt_expanded`), not aligned.
    unsafe {
        if !is_expanded(value, prepared) {
            return false;
        }
        let bytes: *const u8 = value.cast_mut_ptr();
        let object: *const pg_sys::ExpandedObjectHeader =
            bytes.add(2).cast::<*const pg_sys::ExpandedObjectHeader>().read_unaligned();
        (*(*object).eoh_context).parent == context
    }
}

/// Looks everything up, in memory of the executor's expression.
unsafe fn prepare(call: pg_sys::FunctionCallInfo) -> Result<*mut Prepared, PgError> {
    // SAFETY: PostgreSQL's live call information; what is told are cstrings, and constants.
    unsafe {
        let told = |index: usize| {
            let given = argument(call, index);
            if (*given).isnull {
                return String::new();
            }
            CStr::from_ptr((*given).value.cast_mut_ptr()).to_string_lossy().into_owned()
        };
        let (signature, inputs, digest, schemas) = (told(1), told(2), told(3), told(4));
        let aggregate = definition::named(&signature, &inputs)
            .filter(|known| known.digest == digest)
            .ok_or_else(|| differs(&signature))?;
        let inputs: Vec<Oid> = input_types(&aggregate)?;
        let given = usize::try_from((*call).nargs).unwrap_or(0).saturating_sub(FIRST);
        // Without arguments of its own there is one for form's sake.
        if given != inputs.len().max(1) {
            return Err(PgError::new(
                SqlState::DATATYPE_MISMATCH,
                "a partial state of a wrong number of arguments",
            ));
        }
        for (index, wanted) in inputs.iter().enumerate() {
            let actual = pg_sys::get_fn_expr_argtype((*call).flinfo, (FIRST + index) as c_int);
            if actual == Oid::INVALID || !pg_sys::IsBinaryCoercible(actual, *wanted) {
                return Err(PgError::new(
                    SqlState::DATATYPE_MISMATCH,
                    "a partial state of arguments of other types",
                ));
            }
        }
        let memory = (*(*call).flinfo).fn_mcxt;
        let before = pg_sys::MemoryContextSwitchTo(memory);
        let prepared = prepare_in_context(call, &aggregate, inputs, &schemas);
        pg_sys::MemoryContextSwitchTo(before);
        prepared
    }
}

/// The types that the call's arguments were told to have, as they are known here.
unsafe fn input_types(aggregate: &Aggregate) -> Result<Vec<Oid>, PgError> {
    aggregate
        .inputs
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| {
            let (mut type_oid, mut typmod) = (Oid::INVALID, -1);
            let name = node::c_text(name);
            // SAFETY: a zero-terminated text that was printed here.
            unsafe { version::parse_type(name, &raw mut type_oid, &raw mut typmod, false) };
            Ok(type_oid)
        })
        .collect()
}

unsafe fn prepare_in_context(
    call: pg_sys::FunctionCallInfo,
    aggregate: &Aggregate,
    mut inputs: Vec<Oid>,
    schemas: &str,
) -> Result<*mut Prepared, PgError> {
    // SAFETY: look-ups by value; all that is kept is palloced in the current context, which lives as long as the
    // expression that calls us.
    unsafe {
        let memory = pg_sys::CurrentMemoryContext;
        let prepared: *mut Prepared = pg_sys::palloc0(size_of::<Prepared>()).cast();
        pg_sys::fmgr_info_cxt(aggregate.transition, &raw mut (*prepared).transition, memory);
        (*prepared).transition.fn_expr = definition::transition_expression(
            aggregate.transition,
            aggregate.state,
            &mut inputs,
            aggregate.variadic,
            (*call).fncollation,
        )
        .cast();
        let width = std::mem::offset_of!(pg_sys::FunctionCallInfoBaseData, args)
            + (inputs.len() + 1) * size_of::<pg_sys::NullableDatum>();
        let own: pg_sys::FunctionCallInfo = pg_sys::palloc0(width).cast();
        (*own).flinfo = &raw mut (*prepared).transition;
        (*own).nargs = inputs.len() as i16 + 1;
        (*prepared).call = own;
        (*prepared).inputs = inputs.len();
        (*prepared).strict = (*prepared).transition.fn_strict;
        let (mut length, mut by_value) = (0, false);
        pg_sys::get_typlenbyval(aggregate.state, &raw mut length, &raw mut by_value);
        ((*prepared).length, (*prepared).by_value) = (c_int::from(length), by_value);
        (*prepared).initial = aggregate.initial.as_ref().map(|text| {
            let (mut function, mut io_parameter) = (Oid::INVALID, Oid::INVALID);
            pg_sys::getTypeInputInfo(aggregate.state, &raw mut function, &raw mut io_parameter);
            pg_sys::OidInputFunctionCall(function, node::c_text(text), io_parameter, -1)
        });
        match aggregate.serial {
            Some(serial) => {
                pg_sys::fmgr_info_cxt(serial, &raw mut (*prepared).serial, memory);
            }
            None => {
                let (mut function, mut is_varlena) = (Oid::INVALID, false);
                pg_sys::getTypeOutputInfo(aggregate.state, &raw mut function, &raw mut is_varlena);
                pg_sys::fmgr_info_cxt(function, &raw mut (*prepared).output, memory);
            }
        }
        let has_names = aggregate.functions.iter().any(|it| it.to_u32() >= FIRST_USER_OID);
        (*prepared).path = has_names.then(|| search_path(schemas));
        Ok(prepared)
    }
}

/// The search path of these schemas, as far as they are here and the user may look into them.
unsafe fn search_path(schemas: &str) -> SearchPath {
    let mut found = Vec::new();
    // SAFETY: the text is a private copy, into which the names point; look-ups by value.
    unsafe {
        let mut names = std::ptr::null_mut();
        if pg_sys::SplitIdentifierString(node::c_text(schemas), ',' as _, &raw mut names) {
            for name in node::elements::<std::ffi::c_char>(names) {
                let schema = pg_sys::get_namespace_oid(name, true);
                let user = crate::sys::unguarded::current_role();
                let is_catalog = schema == Oid::from(pg_sys::PG_CATALOG_NAMESPACE);
                if is_catalog || schema != Oid::INVALID && version::may_use_schema(schema, user) {
                    found.push(schema);
                }
            }
        }
        SearchPath::of(&found)
    }
}

/// The message of a node whose aggregate is another one, after the aggregate's signature.
const DIFFERS: &str = " is not the one that the coordinator has";

fn differs(signature: &str) -> PgError {
    PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("aggregate {signature}{DIFFERS}"),
    )
    .hint("Run the statement again: the aggregate is then computed on the coordinator, until all nodes have the same.")
}

/// A node says that it has not what it was thought to have: what is known of nodes is wrong.
pub fn is_surprise(error: &PgError) -> bool {
    let code = error.sqlstate();
    code == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE && error.message().ends_with(DIFFERS)
        // undefined_function, invalid_schema_name
        || [SqlState::UNDEFINED_FUNCTION, SqlState::INVALID_SCHEMA_NAME, SqlState::INSUFFICIENT_PRIVILEGE].contains(&code)
            && error.message().contains("pgs_catalog")
}

/// The state has text where bytes are asked for, or the reverse.
fn other_form() -> PgError {
    PgError::new(
        SqlState::DATATYPE_MISMATCH,
        "the state of this aggregate has another form than the one that is asked for",
    )
}

/// What remains of the states of a group.
unsafe fn state_of(call: pg_sys::FunctionCallInfo) -> Option<*mut State> {
    // SAFETY: PostgreSQL's live call information with the state that the transition function has made, or NULL.
    unsafe {
        let given = argument(call, 0);
        let state: *mut State = (*given).value.cast_mut_ptr();
        (!(*given).isnull && !(*state).is_null).then_some(state)
    }
}

/// The final function of `partial_state`: the state as text.
///
/// # Safety
///
/// Called by PostgreSQL's executor with the state.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_partial_state_text(
    call: pg_sys::FunctionCallInfo,
) -> Datum {
    // SAFETY: as the caller vouches; the state's preparation lives as long as the query.
    unsafe {
        boundary(|| {
            let state = state_of(call);
            if state.is_some_and(|state| (*(*state).prepared).output.fn_addr.is_none()) {
                return Err(other_form());
            }
            let text = state.map(|state| {
                let style = TextStyle::exact();
                let output = &raw mut (*(*state).prepared).output;
                let text = pg_sys::OutputFunctionCall(output, (*state).value);
                drop(style);
                Datum::from(pg_sys::cstring_to_text(text))
            });
            (*call).isnull = text.is_none();
            Ok(text.unwrap_or(Datum::from(0)))
        })
    }
}

/// The final function of `serial_state`: the state as its serial function writes it.
///
/// # Safety
///
/// Called by PostgreSQL's executor with the state.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_partial_state_bytes(
    call: pg_sys::FunctionCallInfo,
) -> Datum {
    // SAFETY: as the caller vouches; the state's preparation lives as long as the query. This frame holds nothing to drop.
    unsafe {
        let Some(state) = state_of(call) else {
            (*call).isnull = true;
            return Datum::from(0);
        };
        let serial = &raw mut (*(*state).prepared).serial;
        if (*serial).fn_addr.is_none() {
            boundary(|| Err(other_form()))
        }
        // The transition function's call has room for one argument.
        let own = (*(*state).prepared).call;
        let before = ((*own).flinfo, (*own).nargs);
        ((*own).flinfo, (*own).nargs) = (serial, 1);
        (*own).context = (*call).context;
        (*own).isnull = false;
        *argument(own, 0) = pg_sys::NullableDatum { value: (*state).value, isnull: false };
        let bytes = (*serial).fn_addr.unwrap_unchecked()(own);
        ((*own).flinfo, (*own).nargs) = before;
        (*call).isnull = (*own).isnull;
        bytes
    }
}

macro_rules! call_information {
    ($($name:ident),*) => {$(
        /// How PostgreSQL is to call it.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> *const pg_sys::Pg_finfo_record {
            static VERSION: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &raw const VERSION
        }
    )*};
}

call_information!(
    pg_finfo_pg_shard_partial_state_step,
    pg_finfo_pg_shard_partial_state_text,
    pg_finfo_pg_shard_partial_state_bytes
);
