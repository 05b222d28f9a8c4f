//! Stored values of users' types, read back from text without what looks at new values.
//!
//! PostgreSQL checks a domain when a value is made of it, and never when a row is read. The input function of a domain cannot
//! tell these apart: it would run the CHECK for each row that a node sends, in the name of whoever reads, and refuse what was
//! stored before the constraint was there. So a domain is read as the type below it; likewise the elements of an array and
//! the fields of a row, whose value is then told which type it is.
//!
//! A known gap: fields that are rows or arrays of domains themselves, and ranges over a domain, are read by their own input
//! functions.

use super::version;
use crate::sys::value::FIRST_USER_OID;
use pgrx::pg_sys::{self, Datum, Oid};

/// How the text form of a type is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// The type whose input function is called, and its typmod.
    pub(crate) type_oid: Oid,
    pub(crate) typmod: i32,
    /// What that one is told to read, if not what the type says.
    pub(crate) parameter: Option<Oid>,
    /// What the value is told afterwards.
    label: Label,
}

#[derive(Clone, Copy, Debug)]
enum Label {
    None,
    /// An array's element type.
    Element(Oid),
    /// A row's type.
    Row(Oid),
}

impl Reading {
    /// For values of a type, as a node prints them.
    pub(crate) fn of(type_oid: Oid, typmod: i32) -> Self {
        let mut reading = Self { type_oid, typmod, parameter: None, label: Label::None };
        if type_oid.to_u32() < FIRST_USER_OID {
            return reading;
        }
        // SAFETY: syscache look-ups by value.
        unsafe {
            reading.type_oid = pg_sys::getBaseTypeAndTypmod(type_oid, &raw mut reading.typmod);
            let element = pg_sys::get_element_type(reading.type_oid);
            if element != Oid::INVALID {
                let below = pg_sys::getBaseType(element);
                if below != element {
                    reading.parameter = Some(below);
                    reading.label = Label::Element(element);
                }
            } else if pg_sys::get_typtype(reading.type_oid) as u8 == pg_sys::TYPTYPE_COMPOSITE
                && let Some(typmod) = row_without_domains(reading.type_oid)
            {
                reading.label = Label::Row(reading.type_oid);
                reading.parameter = Some(pg_sys::RECORDOID);
                reading.typmod = typmod;
            }
        }
        reading
    }

    /// Tells a value which type it is.
    ///
    /// # Safety
    ///
    /// The input function has just made the value.
    pub(crate) unsafe fn label(&self, value: Datum) {
        // SAFETY: the caller vouches for the value, which nobody else has seen: an array, or a row, as input functions make them.
        unsafe {
            match self.label {
                Label::None => {}
                Label::Element(element) => {
                    (*value.cast_mut_ptr::<pg_sys::ArrayType>()).elemtype = element;
                }
                Label::Row(row) => {
                    let header = value.cast_mut_ptr::<pg_sys::HeapTupleHeaderData>();
                    (*header).t_choice.t_datum.datum_typeid = row;
                    (*header).t_choice.t_datum.datum_typmod = -1;
                }
            }
        }
    }
}

/// The number of a record type that has the types below domains where the row type has domains; none if it has none.
unsafe fn row_without_domains(row: Oid) -> Option<i32> {
    // SAFETY: the copy of the descriptor is ours; its record type is remembered by the backend, once for equal ones.
    unsafe {
        let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(row, -1);
        let mut has_domain = false;
        for index in 0..(*descriptor).natts as usize {
            let attribute = &mut *version::attribute(descriptor, index);
            if attribute.attisdropped {
                continue;
            }
            let below =
                pg_sys::getBaseTypeAndTypmod(attribute.atttypid, &raw mut attribute.atttypmod);
            has_domain |= below != attribute.atttypid;
            attribute.atttypid = below;
        }
        if !has_domain {
            return None;
        }
        (*descriptor).tdtypeid = pg_sys::RECORDOID;
        (*descriptor).tdtypmod = -1;
        pg_sys::assign_record_type_typmod(descriptor);
        Some((*descriptor).tdtypmod)
    }
}
