//! Stored values of users' types, read back from text without what looks at new values.
//!
//! PostgreSQL checks a domain when a value is made of it, and never when a row is read. The input function of a domain cannot
//! tell these apart: it would run the CHECK for each row that a node sends, in the name of whoever reads, and refuse what was
//! stored before the constraint was there. So a domain is read as the type below it. Arrays, rows and ranges call the input
//! functions of their parts: where a part is a domain, they are read with the type below it in its place, and are then given
//! their own type; where a part is itself such an array, row or range, it is read as a text first and then by itself.

use super::version;
use crate::sys::error::{self, PgError};
use crate::sys::value::{FIRST_USER_OID, Function};
use pgrx::pg_sys::{self, Datum, Oid};
use protocol::ranges::{self, Bound};
use std::ffi::{CStr, c_char, c_int};

mod raw {
    use pgrx::pg_sys::{self, Oid};
    unsafe extern "C-unwind" {
        /// Guarded.
        pub(super) fn make_multirange(
            multirange: Oid,
            range: *mut pg_sys::TypeCacheEntry,
            count: i32,
            ranges: *mut *mut pg_sys::RangeType,
        ) -> *mut pg_sys::varlena;
    }
}

/// How the text form of a type is read.
#[derive(Debug)]
pub(crate) struct Reading {
    input: Input,
    form: Form,
}

/// A call of an input function; ranges have none.
#[derive(Debug)]
struct Input {
    type_oid: Oid,
    function: Option<Function>,
    parameter: Oid,
    typmod: i32,
}

/// What becomes of the value that the input function makes.
#[derive(Debug)]
enum Form {
    /// It is the value.
    Itself,
    /// An array whose elements are of this type; they are read as texts if they need more than that.
    Array { element: Oid, below: Option<Box<Reading>> },
    /// A row of this type; fields that are read as texts need more than that.
    Row { row: Oid, fields: Vec<Option<Reading>>, has_other_layout: bool },
    /// A range; its text is taken apart.
    Range { range: Oid, below: Box<Reading> },
    /// A multirange; each of its ranges is read by itself.
    Multirange { multirange: Oid, below: Box<Reading> },
}

impl Reading {
    /// For values of a type, as a node prints them. What it keeps lives in the current memory context.
    pub(crate) fn of(type_oid: Oid, typmod: i32) -> Self {
        if type_oid.to_u32() < FIRST_USER_OID {
            return Self::by_input(type_oid, typmod);
        }
        // SAFETY: syscache look-ups by value; the depth of types is the user's choice.
        unsafe {
            pg_sys::check_stack_depth();
            let mut typmod = typmod;
            let base = pg_sys::getBaseTypeAndTypmod(type_oid, &raw mut typmod);
            let part = |oid: Oid| (oid != Oid::INVALID).then(|| (oid, Self::of(oid, -1)));
            let form = if let Some((element, below)) = part(pg_sys::get_element_type(base)) {
                Self::array(element, below, typmod)
            } else if let Some((subtype, below)) = part(pg_sys::get_range_subtype(base)) {
                (!below.is_of(subtype)).then(|| {
                    Self::without_input(base, |range| Form::Range { range, below: Box::new(below) })
                })
            } else if let Some((range, below)) = part(pg_sys::get_multirange_range(base)) {
                (!below.is_of(range)).then(|| {
                    Self::without_input(base, |multirange| Form::Multirange {
                        multirange,
                        below: Box::new(below),
                    })
                })
            } else if pg_sys::get_typtype(base) as u8 == pg_sys::TYPTYPE_COMPOSITE {
                Self::row(base)
            } else {
                None
            };
            form.unwrap_or_else(|| Self::by_input(base, typmod))
        }
    }

    /// Values of the type are what its own input function makes.
    fn is_of(&self, type_oid: Oid) -> bool {
        matches!(self.form, Form::Itself) && self.input.type_oid == type_oid
    }

    /// It is read by one input function, and the value needs no more.
    fn is_simple(&self) -> bool {
        matches!(self.form, Form::Itself)
    }

    fn by_input(type_oid: Oid, typmod: i32) -> Self {
        let (mut function, mut parameter) = (Oid::INVALID, Oid::INVALID);
        // SAFETY: a syscache look-up by value.
        unsafe { pg_sys::getTypeInputInfo(type_oid, &raw mut function, &raw mut parameter) };
        let function = Some(Function::look_up(function));
        Self { input: Input { type_oid, function, parameter, typmod }, form: Form::Itself }
    }

    fn without_input(type_oid: Oid, form: impl FnOnce(Oid) -> Form) -> Self {
        let input = Input { type_oid, function: None, parameter: Oid::INVALID, typmod: -1 };
        Self { input, form: form(type_oid) }
    }

    /// An array with other elements than its input function makes; none if there are none.
    fn array(element: Oid, below: Self, typmod: i32) -> Option<Self> {
        if below.is_of(element) {
            return None;
        }
        let mut reading = Self::by_input(pg_sys::TEXTARRAYOID, typmod);
        let below = if below.is_simple() {
            reading.input.parameter = below.input.type_oid;
            None
        } else {
            reading.input.typmod = -1;
            Some(Box::new(below))
        };
        reading.form = Form::Array { element, below };
        Some(reading)
    }

    /// A row with other fields than its input function makes; none if there are none.
    unsafe fn row(row: Oid) -> Option<Self> {
        // SAFETY: the copy of the descriptor is ours; the record type of the other one is remembered by the backend, once for
        // equal ones.
        unsafe {
            let own = pg_sys::lookup_rowtype_tupdesc_copy(row, -1);
            let attributes: Vec<_> = (0..(*own).natts as usize)
                .map(|index| &*version::attribute(own, index))
                .filter(|attribute| !attribute.attisdropped)
                .map(|attribute| (attribute, Self::of(attribute.atttypid, attribute.atttypmod)))
                .collect();
            if attributes.iter().all(|(attribute, below)| below.is_of(attribute.atttypid)) {
                return None;
            }
            let other = pg_sys::CreateTemplateTupleDesc(attributes.len() as c_int);
            let mut fields = Vec::with_capacity(attributes.len());
            for (index, (attribute, below)) in attributes.into_iter().enumerate() {
                let (type_oid, typmod) = match below.is_simple() {
                    true => (below.input.type_oid, below.input.typmod),
                    false => (pg_sys::TEXTOID, -1),
                };
                let name = attribute.attname.data.as_ptr();
                let number = index as i16 + 1;
                pg_sys::TupleDescInitEntry(other, number, name, type_oid, typmod, 0);
                fields.push((!below.is_simple()).then_some(below));
            }
            let has_other_layout =
                fields.len() != (*own).natts as usize || fields.iter().any(Option::is_some);
            pg_sys::assign_record_type_typmod(other);
            let mut reading = Self::by_input(pg_sys::RECORDOID, (*other).tdtypmod);
            reading.form = Form::Row { row, fields, has_other_layout };
            Some(reading)
        }
    }

    /// The value of a text, in the current memory context.
    ///
    /// # Safety
    ///
    /// The text is what an output function of the type has written, and ends with a zero byte.
    pub(crate) unsafe fn read(&self, text: *mut c_char) -> Datum {
        // SAFETY: the caller vouches for the text; input functions do not change it. What they make nobody else has seen.
        unsafe {
            let input = &self.input;
            let value = match &input.function {
                Some(function) => pg_sys::InputFunctionCall(
                    function.pointer(),
                    text,
                    input.parameter,
                    input.typmod,
                ),
                None => Datum::null(),
            };
            match &self.form {
                Form::Itself => value,
                Form::Array { element, below: None } => {
                    (*value.cast_mut_ptr::<pg_sys::ArrayType>()).elemtype = *element;
                    value
                }
                Form::Array { element, below: Some(below) } => {
                    array_of_texts(value.cast_mut_ptr(), *element, below)
                }
                Form::Row { row, has_other_layout: false, .. } => {
                    let header = value.cast_mut_ptr::<pg_sys::HeapTupleHeaderData>();
                    (*header).t_choice.t_datum.datum_typeid = *row;
                    (*header).t_choice.t_datum.datum_typmod = -1;
                    value
                }
                Form::Row { row, fields, .. } => {
                    row_of_texts(value.cast_mut_ptr(), input.typmod, *row, fields)
                }
                Form::Range { range, below } => range_of(CStr::from_ptr(text), *range, below),
                Form::Multirange { multirange, below } => {
                    multirange_of(CStr::from_ptr(text), *multirange, below)
                }
            }
        }
    }

    /// The value of a part that was read as a text.
    unsafe fn read_part(&self, text: Datum) -> Datum {
        // SAFETY: the caller passes a text that an input function has made.
        unsafe { self.read(pg_sys::text_to_cstring(text.cast_mut_ptr())) }
    }
}

/// The array of the values that an array of texts says.
unsafe fn array_of_texts(texts: *mut pg_sys::ArrayType, element: Oid, below: &Reading) -> Datum {
    // SAFETY: the caller passes an array of texts of its own; the parts point into it, and counts are its own.
    unsafe {
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            texts,
            pg_sys::TEXTOID,
            -1,
            false,
            b'i' as c_char,
            &raw mut values,
            &raw mut nulls,
            &raw mut count,
        );
        for index in 0..count as usize {
            if !*nulls.add(index) {
                *values.add(index) = below.read_part(*values.add(index));
            }
        }
        let (mut length, mut by_value, mut align) = (0, false, 0);
        pg_sys::get_typlenbyvalalign(element, &raw mut length, &raw mut by_value, &raw mut align);
        // The dimensions follow the header, the lower bounds follow them (`ARR_DIMS`, `ARR_LBOUND`).
        let dimensions = (*texts).ndim;
        let sizes = texts.add(1).cast::<c_int>();
        let array = pg_sys::construct_md_array(
            values,
            nulls,
            dimensions,
            sizes,
            sizes.add(dimensions as usize),
            element,
            c_int::from(length),
            by_value,
            align,
        );
        Datum::from(array)
    }
}

/// The row of a type, of a record some of whose fields are read as texts.
unsafe fn row_of_texts(
    record: pg_sys::HeapTupleHeader,
    typmod: i32,
    row: Oid,
    fields: &[Option<Reading>],
) -> Datum {
    // SAFETY: the caller passes a record of the type that this number stands for, of its own; the type's live columns are its
    // fields, in their order.
    unsafe {
        let read = pg_sys::lookup_rowtype_tupdesc_copy(pg_sys::RECORDOID, typmod);
        let own = pg_sys::lookup_rowtype_tupdesc_copy(row, -1);
        let mut tuple = pg_sys::HeapTupleData {
            t_len: pgrx::varsize_any(record.cast()) as u32,
            t_data: record,
            ..Default::default()
        };
        let (mut texts, mut no_texts) =
            (vec![Datum::null(); fields.len()], vec![true; fields.len()]);
        pg_sys::heap_deform_tuple(&raw mut tuple, read, texts.as_mut_ptr(), no_texts.as_mut_ptr());
        let count = (*own).natts as usize;
        let (mut values, mut nulls) = (vec![Datum::null(); count], vec![true; count]);
        let live = (0..count).filter(|index| !(*version::attribute(own, *index)).attisdropped);
        for (place, (index, field)) in live.zip(fields).enumerate() {
            if no_texts[place] {
                continue;
            }
            nulls[index] = false;
            values[index] = match field {
                Some(below) => below.read_part(texts[place]),
                None => texts[place],
            };
        }
        let tuple = pg_sys::heap_form_tuple(own, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::heap_copy_tuple_as_datum(tuple, own)
    }
}

unsafe fn range_of(text: &CStr, range: Oid, below: &Reading) -> Datum {
    let Some(parts) = ranges::range(text.to_bytes()) else { malformed(range) };
    // SAFETY: the type is a range, whose entry in the cache of types stays; the bounds are of its subtype.
    unsafe {
        let flags = pg_sys::TYPECACHE_RANGE_INFO as c_int;
        let known = pg_sys::lookup_type_cache(range, flags);
        let bound = |bound: Option<&Bound>, lower: bool| pg_sys::RangeBound {
            val: bound
                .and_then(|bound| bound.text.as_deref())
                .map_or(Datum::null(), |text| below.read(copy_of(text))),
            infinite: bound.is_none_or(|bound| bound.text.is_none()),
            inclusive: bound.is_some_and(|bound| bound.is_inclusive),
            lower,
        };
        let mut lower = bound(parts.as_ref().map(|parts| &parts.0), true);
        let mut upper = bound(parts.as_ref().map(|parts| &parts.1), false);
        let is_empty = parts.is_none();
        Datum::from(version::make_range(known, &mut lower, &mut upper, is_empty))
    }
}

unsafe fn multirange_of(text: &CStr, multirange: Oid, below: &Reading) -> Datum {
    let Some(parts) = ranges::ranges(text.to_bytes()) else { malformed(multirange) };
    // SAFETY: the type is a multirange, and each of its ranges is read as one, in memory of the current context.
    unsafe {
        let range = pg_sys::get_multirange_range(multirange);
        let known = pg_sys::lookup_type_cache(range, pg_sys::TYPECACHE_RANGE_INFO as c_int);
        let mut all: Vec<*mut pg_sys::RangeType> =
            parts.into_iter().map(|part| below.read(copy_of(part)).cast_mut_ptr()).collect();
        let (count, all) = (all.len() as i32, all.as_mut_ptr());
        let made = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            raw::make_multirange(multirange, known, count, all)
        });
        Datum::from(made)
    }
}

/// Bytes as a zero-terminated text in the current memory context.
fn copy_of(bytes: &[u8]) -> *mut c_char {
    // SAFETY: as many bytes as there are.
    unsafe { pg_sys::pnstrdup(bytes.as_ptr().cast(), bytes.len()) }
}

/// Raises what input functions say of a text that none of PostgreSQL's output functions writes.
fn malformed(type_oid: Oid) -> ! {
    let name = crate::sys::value::type_name(type_oid);
    error::raise(Err(PgError::internal(format!("malformed value of type {name} from a node"))))
}
