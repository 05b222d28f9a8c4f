//! What a user's aggregate is made of, as a digest by which two servers can tell that theirs is the same.
//!
//! A node may compute the parts of an aggregate if it would do what the coordinator does: its transition function, its
//! serial function, the type and the initial value of its state, and all that these mention. A function's body is text, which
//! only its language can read; so every function and type of users whose name occurs in it as a word counts, and what
//! occurs in those. Names that mean nothing there make the digest more particular than it need be, never less. What two
//! servers describe differently may still do the same; the aggregate is then computed on the coordinator.
//!
//! Only functions marked IMMUTABLE are described: others may look at tables, which are not the coordinator's.

use crate::sys::error::PgError;
use crate::sys::node;
use crate::sys::value::FIRST_USER_OID;
use crate::sys::version::{self, SearchPath};
use pgrx::pg_sys::{self, Datum, Oid, SysCacheIdentifier};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::ffi::{CString, c_int};
use std::rc::Rc;

mod raw {
    //! Not among pgrx' bindings.
    use pgrx::pg_sys::{self, Oid};
    use std::ffi::c_int;
    unsafe extern "C-unwind" {
        /// Guarded.
        pub(super) fn build_aggregate_transfn_expr(
            input_types: *mut Oid,
            inputs: c_int,
            direct_inputs: c_int,
            variadic: bool,
            state_type: Oid,
            collation: Oid,
            transition: Oid,
            inverse: Oid,
            expression: *mut *mut pg_sys::Expr,
            inverse_expression: *mut *mut pg_sys::Expr,
        );
    }
}

/// More functions or types than these are not looked at.
const MOST_PARTS: usize = 100;

/// Digests kept.
const MOST_KEPT: usize = 200;

/// An aggregate of a user that can be computed in parts.
#[derive(Debug)]
pub(crate) struct Aggregate {
    /// Its name and the types that it was declared with, as `to_regprocedure` reads it anywhere.
    pub(crate) signature: String,
    /// The types of the arguments in this call, as `to_regtype` reads them, with commas between them.
    pub(crate) inputs: String,
    /// Its transition function.
    pub(crate) transition: Oid,
    /// The function that makes bytes of a state of type internal.
    pub(crate) serial: Option<Oid>,
    /// The type of its state, in this call.
    pub(crate) state: Oid,
    /// The initial state as text.
    pub(crate) initial: Option<String>,
    /// It was declared VARIADIC.
    pub(crate) variadic: bool,
    /// The same on another server if the aggregate is the same.
    pub(crate) digest: String,
    /// The functions of users in it.
    pub(crate) functions: Vec<Oid>,
    /// The types of users in it.
    pub(crate) types: Vec<Oid>,
}

/// Who calls which aggregate with which types.
type Call = (Oid, Oid, Vec<Oid>);

/// An aggregate, or that it is none that has parts; and the generation that this was true in.
type Known = (u64, Option<Rc<Aggregate>>);

thread_local! {
    /// Grows whenever a catalog has changed that a digest depends on.
    static GENERATION: Cell<u64> = const { Cell::new(0) };
    static IS_LISTENING: Cell<bool> = const { Cell::new(false) };
    static KNOWN: RefCell<HashMap<Call, Known>> = RefCell::default();
}

/// The aggregate, if it can be computed in parts and the current user may call it.
pub(crate) fn of(function: Oid, inputs: &[Oid]) -> Option<Rc<Aggregate>> {
    listen();
    let call = (crate::sys::unguarded::current_role(), function, inputs.to_vec());
    let generation = GENERATION.get();
    if let Some((known_at, known)) = KNOWN.with_borrow(|known| known.get(&call).cloned())
        && known_at == generation
    {
        return known;
    }
    let described = describe(function, inputs).map(Rc::new);
    KNOWN.with_borrow_mut(|known| {
        if known.len() >= MOST_KEPT {
            known.clear();
        }
        known.insert(call, (generation, described.clone()));
    });
    described
}

/// The aggregate of that signature, called with arguments of these types.
pub(crate) fn named(signature: &str, inputs: &str) -> Option<Rc<Aggregate>> {
    // SAFETY: parsing and syscache look-ups over texts that live for the call.
    unsafe {
        let arguments: Vec<Oid> = inputs
            .split(',')
            .filter(|name| !name.is_empty())
            .map(|name| {
                let (mut type_oid, mut typmod) = (Oid::INVALID, -1);
                let name = CString::new(name).ok()?;
                version::parse_type(name.as_ptr(), &raw mut type_oid, &raw mut typmod, true);
                (type_oid != Oid::INVALID).then_some(type_oid)
            })
            .collect::<Option<_>>()?;
        let text = pgrx::IntoDatum::into_datum(signature)?;
        let found = pgrx::direct_function_call::<Oid>(pg_sys::to_regprocedure, &[Some(text)])?;
        let is_aggregate = pg_sys::get_func_prokind(found) as u8 == b'a';
        if is_aggregate { of(found, &arguments) } else { None }
    }
}

fn listen() {
    if IS_LISTENING.replace(true) {
        return;
    }
    for cache in [
        SysCacheIdentifier::AGGFNOID,
        SysCacheIdentifier::PROCOID,
        SysCacheIdentifier::TYPEOID,
        SysCacheIdentifier::ENUMOID,
        SysCacheIdentifier::RELOID,
        SysCacheIdentifier::NAMESPACEOID,
        SysCacheIdentifier::AUTHOID,
        SysCacheIdentifier::AUTHMEMMEMROLE,
    ] {
        // SAFETY: once a backend and cache; the callback only counts.
        unsafe {
            pg_sys::CacheRegisterSyscacheCallback(cache as c_int, Some(changed), Datum::from(0));
        }
    }
}

unsafe extern "C-unwind" fn changed(_: Datum, _cache: c_int, _hash: u32) {
    GENERATION.set(GENERATION.get() + 1);
}

fn describe(function: Oid, inputs: &[Oid]) -> Option<Aggregate> {
    // SAFETY: syscache look-ups by value. The search path is put back here, or by the end of the (sub)transaction after an
    // ERROR (`AtEOSubXact_Namespace` of `src/backend/catalog/namespace.c`).
    unsafe {
        let path = SearchPath::of(&[]);
        let before = pg_sys::ffi::pg_guard_ffi_boundary(|| path.begin());
        let described = describe_in_catalog_path(function, inputs);
        pg_sys::ffi::pg_guard_ffi_boundary(|| before.end());
        described
    }
}

unsafe fn describe_in_catalog_path(function: Oid, inputs: &[Oid]) -> Option<Aggregate> {
    // SAFETY: syscache look-ups by value; texts are palloced.
    unsafe {
        let entry = Entry::find(function)?;
        let (owner, variadic) = owner_and_variadic(function)?;
        let may = |role, what| version::may_execute(what, role);
        // As `ExecInitAgg` of `src/backend/executor/nodeAgg.c` checks.
        let is_allowed = may(crate::sys::unguarded::current_role(), function)
            && may(owner, entry.transition)
            && (entry.serial == Oid::INVALID || may(owner, entry.serial));
        let is_immutable =
            |what| pg_sys::func_volatile(what) as u8 == pg_sys::PROVOLATILE_IMMUTABLE;
        if entry.kind != b'n'
            || entry.combine == Oid::INVALID
            || !is_allowed
            || variadic == pg_sys::ANYOID
            || inputs.len() > 90
            || !is_immutable(entry.transition)
        {
            return None;
        }
        if !takes(function, inputs) {
            return None;
        }
        let state = state_type(&entry, inputs)?;
        // Where the first value becomes the state (`build_pertrans_for_aggref` of `nodeAgg.c`).
        if pg_sys::func_strict(entry.transition)
            && entry.initial.is_none()
            && !inputs.first().is_some_and(|first| pg_sys::IsBinaryCoercible(*first, state))
        {
            return None;
        }
        let is_internal = state == pg_sys::INTERNALOID;
        let has_serial = entry.serial != Oid::INVALID && entry.deserial != Oid::INVALID;
        if is_internal
            && !(has_serial
                && is_immutable(entry.serial)
                && pg_sys::func_strict(entry.serial)
                && pg_sys::func_strict(entry.deserial))
        {
            return None;
        }
        if !is_internal && pg_sys::get_typtype(state) as u8 == pg_sys::TYPTYPE_PSEUDO {
            return None;
        }
        // As `ExecInitAgg` demands where the first value becomes the state.
        if pg_sys::func_strict(entry.transition)
            && entry.initial.is_none()
            && !inputs.first().is_some_and(|first| pg_sys::IsBinaryCoercible(*first, state))
        {
            return None;
        }
        let signature = node::text_of(pg_sys::format_procedure_qualified(function));
        let mut parts = Parts::default();
        let mut text = format!("{signature} {} {:?}\n", type_name(state), entry.initial);
        let names: Vec<String> = inputs.iter().map(|input| type_name(*input)).collect();
        parts.types.push(state);
        parts.types.extend(inputs);
        parts.functions.push(entry.transition);
        if is_internal {
            parts.functions.push(entry.serial);
        }
        parts.describe(&mut text)?;
        let digest = digest_of(&text)?;
        parts.functions.retain(|function| function.to_u32() >= FIRST_USER_OID);
        parts.types.retain(|type_oid| type_oid.to_u32() >= FIRST_USER_OID);
        Some(Aggregate {
            signature,
            inputs: names.join(","),
            transition: entry.transition,
            serial: is_internal.then_some(entry.serial),
            state,
            initial: entry.initial,
            variadic: variadic != Oid::INVALID,
            digest,
            functions: parts.functions,
            types: parts.types,
        })
    }
}

/// How a transition function's call looks to itself: a state and inputs.
///
/// # Safety
///
/// `inputs` has the types of all its arguments but the state.
pub(crate) unsafe fn transition_expression(
    function: Oid,
    state: Oid,
    inputs: &mut [Oid],
    variadic: bool,
    collation: Oid,
) -> *mut pg_sys::Node {
    let mut expression = std::ptr::null_mut();
    // SAFETY: the types are only read; the expression is palloced.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            raw::build_aggregate_transfn_expr(
                inputs.as_mut_ptr(),
                inputs.len() as c_int,
                0,
                variadic,
                state,
                collation,
                function,
                Oid::INVALID,
                &raw mut expression,
                std::ptr::null_mut(),
            );
        });
    }
    expression.cast()
}

/// The initial state, which every part begins with, adds nothing when parts are combined: combined with itself it stays what
/// it is. (With the initial state `i`, and `+` for the combine function, `i + i = i` makes `i + (i + x)` what `i + x` is.)
///
/// # Safety
///
/// Called while planning, with an aggregate of the current catalog.
pub(crate) unsafe fn begins_neutral(function: Oid, aggregate: &Aggregate) -> bool {
    // SAFETY: look-ups by value; the call is made as `ExecBuildAggTrans` of `src/backend/executor/execExpr.c` makes it. Of the
    // executor's state the functions look at no more than the memory for states (`AggCheckCallContext` of
    // `src/backend/executor/nodeAgg.c`).
    unsafe {
        let Some(entry) = Entry::find(function) else { return false };
        let Some((owner, _)) = owner_and_variadic(function) else { return false };
        if aggregate.initial.is_none() && pg_sys::func_strict(entry.combine) {
            return true;
        }
        if pg_sys::func_volatile(entry.combine) as u8 != pg_sys::PROVOLATILE_IMMUTABLE
            || !version::may_execute(entry.combine, owner)
        {
            return false;
        }
        let initial = || {
            let Some(text) = &aggregate.initial else {
                return pg_sys::NullableDatum { value: Datum::from(0), isnull: true };
            };
            let (mut input, mut io_parameter) = (Oid::INVALID, Oid::INVALID);
            pg_sys::getTypeInputInfo(aggregate.state, &raw mut input, &raw mut io_parameter);
            let value = pg_sys::OidInputFunctionCall(input, node::c_text(text), io_parameter, -1);
            pg_sys::NullableDatum { value, isnull: false }
        };
        let printed = |state: pg_sys::NullableDatum| {
            let (mut output, mut is_varlena) = (Oid::INVALID, false);
            pg_sys::getTypeOutputInfo(aggregate.state, &raw mut output, &raw mut is_varlena);
            (!state.isnull)
                .then(|| node::text_of(pg_sys::OidOutputFunctionCall(output, state.value)))
        };

        let memory = pg_sys::CurrentMemoryContext;
        let executor: *mut pg_sys::AggState = node::make(pg_sys::NodeTag::T_AggState);
        (*executor).curaggcontext = pg_sys::CreateStandaloneExprContext();
        let info: *mut pg_sys::FmgrInfo = pg_sys::palloc0(size_of::<pg_sys::FmgrInfo>()).cast();
        pg_sys::fmgr_info_cxt(entry.combine, info, memory);
        let mut inputs = [aggregate.state];
        (*info).fn_expr = transition_expression(
            entry.combine,
            aggregate.state,
            &mut inputs,
            false,
            pg_sys::get_typcollation(aggregate.state),
        )
        .cast();
        let width = std::mem::offset_of!(pg_sys::FunctionCallInfoBaseData, args)
            + 2 * size_of::<pg_sys::NullableDatum>();
        let call: pg_sys::FunctionCallInfo = pg_sys::palloc0(width).cast();
        (*call).flinfo = info;
        (*call).nargs = 2;
        (*call).context = executor.cast();
        (*call).fncollation = pg_sys::get_typcollation(aggregate.state);
        for index in 0..2 {
            *(*call).args.as_mut_ptr().add(index) = initial();
        }
        let combine = (*info).fn_addr.unwrap_unchecked();
        let combined = pg_sys::ffi::pg_guard_ffi_boundary(|| combine(call));
        let combined = pg_sys::NullableDatum { value: combined, isnull: (*call).isnull };
        let is_neutral = if aggregate.initial.is_none() {
            combined.isnull
        } else {
            printed(combined) == printed(initial())
        };
        pg_sys::FreeExprContext((*executor).curaggcontext, true);
        is_neutral
    }
}

/// A row of pg_aggregate.
struct Entry {
    kind: u8,
    transition: Oid,
    combine: Oid,
    serial: Oid,
    deserial: Oid,
    state: Oid,
    initial: Option<String>,
}

impl Entry {
    fn find(function: Oid) -> Option<Self> {
        /// `src/include/catalog/pg_aggregate.h`.
        const KIND: i16 = 2;
        const TRANSITION: i16 = 4;
        const COMBINE: i16 = 6;
        const SERIAL: i16 = 7;
        const DESERIAL: i16 = 8;
        const STATE: i16 = 17;
        const INITIAL: i16 = 21;
        // SAFETY: a syscache look-up by value; the values are copied before the tuple is released.
        unsafe {
            let cache = SysCacheIdentifier::AGGFNOID as c_int;
            let tuple = pg_sys::SearchSysCache1(cache, Datum::from(function));
            if tuple.is_null() {
                return None;
            }
            let value = |number: i16| {
                let mut is_null = false;
                let value = pg_sys::SysCacheGetAttr(cache, tuple, number, &raw mut is_null);
                (!is_null).then_some(value)
            };
            let oid =
                |number| value(number).map_or(Oid::INVALID, |it| Oid::from(it.value() as u32));
            let entry = Self {
                kind: value(KIND).map_or(0, |it| it.value() as u8),
                transition: oid(TRANSITION),
                combine: oid(COMBINE),
                serial: oid(SERIAL),
                deserial: oid(DESERIAL),
                state: oid(STATE),
                initial: value(INITIAL)
                    .map(|it| node::text_of(pg_sys::text_to_cstring(it.cast_mut_ptr()))),
            };
            pg_sys::ReleaseSysCache(tuple);
            Some(entry)
        }
    }
}

/// Datums of these types are what the aggregate was declared with: whoever names it and them may be wrong. Types that do
/// not fit into polymorphic ones raise an ERROR.
unsafe fn takes(function: Oid, inputs: &[Oid]) -> bool {
    // SAFETY: a syscache look-up by value; the declared types are palloced, and a private copy.
    unsafe {
        let (mut declared, mut count) = (std::ptr::null_mut(), 0);
        pg_sys::get_func_signature(function, &raw mut declared, &raw mut count);
        if usize::try_from(count) != Ok(inputs.len()) {
            return false;
        }
        if inputs.is_empty() {
            return true;
        }
        let any = pg_sys::VOIDOID;
        pg_sys::enforce_generic_type_consistency(inputs.as_ptr(), declared, count, any, false);
        // Polymorphic types have been replaced by those that they stand for.
        let declared = std::slice::from_raw_parts(declared, inputs.len());
        inputs.iter().zip(declared).all(|(actual, declared)| {
            *actual != Oid::INVALID && pg_sys::IsBinaryCoercible(*actual, *declared)
        })
    }
}

/// The owner, and the type of the elements that VARIADIC collects, if it does.
unsafe fn owner_and_variadic(function: Oid) -> Option<(Oid, Oid)> {
    // SAFETY: a syscache look-up by value.
    unsafe {
        let cache = SysCacheIdentifier::PROCOID as c_int;
        let tuple = pg_sys::SearchSysCache1(cache, Datum::from(function));
        if tuple.is_null() {
            return None;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let found = ((*form).proowner, (*form).provariadic);
        pg_sys::ReleaseSysCache(tuple);
        Some(found)
    }
}

/// The type of the state where the arguments have these types.
unsafe fn state_type(entry: &Entry, inputs: &[Oid]) -> Option<Oid> {
    // SAFETY: a syscache look-up by value; the declared types are palloced, the actual ones a private copy.
    unsafe {
        let is_polymorphic = matches!(
            entry.state,
            pg_sys::ANYELEMENTOID
                | pg_sys::ANYARRAYOID
                | pg_sys::ANYNONARRAYOID
                | pg_sys::ANYENUMOID
                | pg_sys::ANYRANGEOID
                | pg_sys::ANYMULTIRANGEOID
                | pg_sys::ANYCOMPATIBLEOID
                | pg_sys::ANYCOMPATIBLEARRAYOID
                | pg_sys::ANYCOMPATIBLENONARRAYOID
                | pg_sys::ANYCOMPATIBLERANGEOID
                | pg_sys::ANYCOMPATIBLEMULTIRANGEOID
        );
        if !is_polymorphic {
            return Some(entry.state);
        }
        // The transition function's own arguments are the state and the inputs.
        let (mut declared, mut count) = (std::ptr::null_mut(), 0);
        pg_sys::get_func_signature(entry.transition, &raw mut declared, &raw mut count);
        if usize::try_from(count).ok()? != inputs.len() + 1 {
            return None;
        }
        let declared = std::slice::from_raw_parts(declared, count as usize);
        // Resolved where an argument has the same polymorphic type, or the array or element of it.
        for (declared, actual) in declared[1..].iter().zip(inputs) {
            match (entry.state, *declared) {
                (state, declared) if state == declared => return Some(*actual),
                (pg_sys::ANYARRAYOID, pg_sys::ANYELEMENTOID | pg_sys::ANYNONARRAYOID)
                | (
                    pg_sys::ANYCOMPATIBLEARRAYOID,
                    pg_sys::ANYCOMPATIBLEOID | pg_sys::ANYCOMPATIBLENONARRAYOID,
                ) => {
                    let array = pg_sys::get_array_type(*actual);
                    return (array != Oid::INVALID).then_some(array);
                }
                (pg_sys::ANYELEMENTOID, pg_sys::ANYARRAYOID)
                | (pg_sys::ANYCOMPATIBLEOID, pg_sys::ANYCOMPATIBLEARRAYOID) => {
                    let element = pg_sys::get_element_type(*actual);
                    return (element != Oid::INVALID).then_some(element);
                }
                _ => {}
            }
        }
        None
    }
}

/// What is to be described; lists grow while they are gone through.
#[derive(Default)]
struct Parts {
    functions: Vec<Oid>,
    types: Vec<Oid>,
}

impl Parts {
    /// Describes all of them, and what they mention. None if that is too much, or of a kind that is not described.
    unsafe fn describe(&mut self, text: &mut String) -> Option<()> {
        let (mut function, mut type_oid) = (0, 0);
        // SAFETY: syscache look-ups by value.
        unsafe {
            loop {
                if self.functions.len() + self.types.len() > MOST_PARTS {
                    return None;
                }
                if let Some(next) = self.functions.get(function) {
                    function += 1;
                    self.describe_function(*next, text)?;
                } else if let Some(next) = self.types.get(type_oid) {
                    type_oid += 1;
                    self.describe_type(*next, text)?;
                } else {
                    return Some(());
                }
            }
        }
    }

    fn add_function(&mut self, function: Oid) {
        if !self.functions.contains(&function) {
            self.functions.push(function);
        }
    }

    fn add_type(&mut self, type_oid: Oid) {
        if !self.types.contains(&type_oid) {
            self.types.push(type_oid);
        }
    }

    unsafe fn describe_function(&mut self, function: Oid, text: &mut String) -> Option<()> {
        // SAFETY: syscache look-ups by value; texts are palloced.
        unsafe {
            text.push_str(&node::text_of(pg_sys::format_procedure_qualified(function)));
            text.push('\n');
            if function.to_u32() < FIRST_USER_OID {
                return Some(());
            }
            if pg_sys::get_func_prokind(function) as u8 == b'a' {
                let entry = Entry::find(function)?;
                self.add_function(entry.transition);
                return Some(());
            }
            let (mut arguments, mut count) = (std::ptr::null_mut(), 0);
            let result = pg_sys::get_func_signature(function, &raw mut arguments, &raw mut count);
            self.add_type(result);
            for type_oid in (0..count as usize).map(|index| *arguments.add(index)) {
                self.add_type(type_oid);
            }
            let definition = pg_sys::OidFunctionCall1Coll(
                Oid::from(pg_sys::F_PG_GET_FUNCTIONDEF),
                Oid::INVALID,
                Datum::from(function),
            );
            let definition = node::text_of(pg_sys::text_to_cstring(definition.cast_mut_ptr()));
            text.push_str(&definition);
            self.add_mentioned(&definition);
            Some(())
        }
    }

    /// Adds the functions and types of users whose names stand in `definition`, in an order that is the same everywhere.
    unsafe fn add_mentioned(&mut self, definition: &str) {
        let is_letter = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '$';
        let mut words: BTreeSet<String> = BTreeSet::new();
        for word in definition.split(|letter| !is_letter(letter)) {
            if !word.is_empty() && word.len() < pg_sys::NAMEDATALEN as usize {
                words.insert(word.to_owned());
                words.insert(word.to_ascii_lowercase());
            }
        }
        // SAFETY: syscache look-ups by name; texts are palloced.
        unsafe {
            let (mut functions, mut types) = (BTreeSet::new(), BTreeSet::new());
            for word in words {
                for function in members::<pg_sys::FormData_pg_proc>(
                    SysCacheIdentifier::PROCNAMEARGSNSP,
                    Datum::from(node::c_text(&word)),
                ) {
                    let oid = (*function).oid;
                    if oid.to_u32() >= FIRST_USER_OID {
                        let name = node::text_of(pg_sys::format_procedure_qualified(oid));
                        functions.insert((name, oid.to_u32()));
                    }
                }
                for found in members::<pg_sys::FormData_pg_type>(
                    SysCacheIdentifier::TYPENAMENSP,
                    Datum::from(node::c_text(&word)),
                ) {
                    // Each table has a row type of its name, which is hardly meant, and no node has the table.
                    let relation = (*found).typrelid;
                    let is_row = relation != Oid::INVALID
                        && pg_sys::get_rel_relkind(relation) as u8
                            != pg_sys::RELKIND_COMPOSITE_TYPE;
                    if (*found).oid.to_u32() >= FIRST_USER_OID && !is_row {
                        types.insert((type_name((*found).oid), (*found).oid.to_u32()));
                    }
                }
            }
            functions.into_iter().for_each(|(_, oid)| self.add_function(Oid::from(oid)));
            types.into_iter().for_each(|(_, oid)| self.add_type(Oid::from(oid)));
        }
    }

    unsafe fn describe_type(&mut self, type_oid: Oid, text: &mut String) -> Option<()> {
        // SAFETY: syscache look-ups by value; descriptors are copies.
        unsafe {
            text.push_str(&type_name(type_oid));
            text.push('\n');
            if type_oid.to_u32() < FIRST_USER_OID {
                return Some(());
            }
            let element = pg_sys::get_element_type(type_oid);
            if element != Oid::INVALID {
                self.add_type(element);
                return Some(());
            }
            match pg_sys::get_typtype(type_oid) as u8 {
                pg_sys::TYPTYPE_BASE => {
                    let (mut function, mut io_parameter, mut varlena) =
                        (Oid::INVALID, Oid::INVALID, false);
                    pg_sys::getTypeOutputInfo(type_oid, &raw mut function, &raw mut varlena);
                    self.add_function(function);
                    pg_sys::getTypeInputInfo(type_oid, &raw mut function, &raw mut io_parameter);
                    self.add_function(function);
                }
                pg_sys::TYPTYPE_COMPOSITE => {
                    let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(type_oid, -1);
                    for index in 0..(*descriptor).natts as usize {
                        let attribute = version::attribute(descriptor, index);
                        if (*attribute).attisdropped {
                            continue;
                        }
                        let name = node::text_of((*attribute).attname.data.as_ptr());
                        text.push_str(&format!("{name:?} {}\n", (*attribute).atttypmod));
                        self.add_type((*attribute).atttypid);
                    }
                }
                pg_sys::TYPTYPE_ENUM => {
                    let mut labels: Vec<(f32, String)> = members::<pg_sys::FormData_pg_enum>(
                        SysCacheIdentifier::ENUMTYPOIDNAME,
                        Datum::from(type_oid),
                    )
                    .into_iter()
                    .map(|label| {
                        let name = node::text_of((*label).enumlabel.data.as_ptr());
                        ((*label).enumsortorder, name)
                    })
                    .collect();
                    labels.sort_by(|(one, _), (other, _)| one.total_cmp(other));
                    for (_, label) in labels {
                        text.push_str(&format!("{label:?}\n"));
                    }
                }
                pg_sys::TYPTYPE_RANGE => self.add_type(pg_sys::get_range_subtype(type_oid)),
                // Domains above all: what they check is not described.
                _ => return None,
            }
            Some(())
        }
    }
}

/// The structs of a cache's tuples with that first key; copies.
unsafe fn members<T>(cache: SysCacheIdentifier::Type, key: Datum) -> Vec<*mut T> {
    // SAFETY: a syscache look-up; the tuples are copied while the list is held.
    unsafe {
        let list =
            pg_sys::SearchSysCacheList(cache as c_int, 1, key, Datum::from(0), Datum::from(0));
        let found = (0..(*list).n_members as usize)
            .map(|index| {
                let member = *(*list).members.as_ptr().add(index);
                pg_sys::GETSTRUCT(pg_sys::heap_copytuple(&raw mut (*member).tuple)).cast::<T>()
            })
            .collect();
        pg_sys::ReleaseCatCacheList(list);
        found
    }
}

/// A type's name as it is read on any server.
unsafe fn type_name(type_oid: Oid) -> String {
    // SAFETY: a syscache look-up by value; the text is palloced.
    unsafe { node::text_of(pg_sys::format_type_be_qualified(type_oid)) }
}

fn digest_of(text: &str) -> Option<String> {
    // SAFETY: md5 of a text, both palloced.
    unsafe {
        let text = pgrx::IntoDatum::into_datum(text)?;
        let digest =
            pg_sys::OidFunctionCall1Coll(Oid::from(pg_sys::F_MD5_TEXT), Oid::INVALID, text);
        Some(node::text_of(pg_sys::text_to_cstring(digest.cast_mut_ptr())))
    }
}

/// `pgs_catalog.aggregate_definition`: the digest of the aggregate that a signature and the types of a call's arguments
/// name; NULL if there is none here that could be computed in parts for the current user.
///
/// # Safety
///
/// Called by PostgreSQL, with two texts that are not NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_aggregate_definition(
    call: pg_sys::FunctionCallInfo,
) -> Datum {
    // SAFETY: PostgreSQL's live call information with two arguments, of a STRICT function.
    unsafe {
        crate::sys::boundary::boundary(|| {
            let text = |index: usize| {
                let value = (*(*call).args.as_ptr().add(index)).value;
                node::text_of(pg_sys::text_to_cstring(value.cast_mut_ptr()))
            };
            let found = named(&text(0), &text(1));
            let digest = found.and_then(|it| pgrx::IntoDatum::into_datum(it.digest.as_str()));
            (*call).isnull = digest.is_none();
            Ok::<_, PgError>(digest.unwrap_or(Datum::from(0)))
        })
    }
}

/// How PostgreSQL is to call it.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shard_aggregate_definition() -> *const pg_sys::Pg_finfo_record {
    static VERSION: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &raw const VERSION
}
