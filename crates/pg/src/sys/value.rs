//! Values between PostgreSQL's datums and the wire.
//!
//! Binary where the type's binary form means the same on every node: types of the server itself, since those
//! of users have other OIDs elsewhere and some binary forms contain OIDs. Everything else travels as text,
//! under settings that both ends share (`settings.rs` of the extension).

use crate::sys::node;
use pgrx::pg_sys::{self, Datum, Oid};
use protocol::Arguments;
use std::cell::{RefCell, UnsafeCell};

/// The first OID that a user's object can have (`FirstNormalObjectId`, `src/include/access/transam.h`).
pub const FIRST_USER_OID: u32 = 16384;

thread_local! {
    /// Types of the server itself that have been looked at: they never change.
    static LOOKED_AT: RefCell<Vec<(Oid, bool)>> = const { RefCell::new(Vec::new()) };
}

/// The binary form of `type_oid` is the same on every node.
pub fn is_binary_safe(type_oid: Oid) -> bool {
    // Send and receive functions convert to and from the encoding of our client, and nodes speak the database's.
    // SAFETY: reads settings of the backend.
    let converts = unsafe { pg_sys::pg_get_client_encoding() != pg_sys::GetDatabaseEncoding() };
    // Numbers are the same in all encodings.
    let is_number = matches!(
        type_oid,
        pg_sys::INT8OID | pg_sys::NUMERICOID | pg_sys::FLOAT4OID | pg_sys::FLOAT8OID
    );
    if converts && !is_number || type_oid.to_u32() >= FIRST_USER_OID {
        return false;
    }
    let known = LOOKED_AT.with_borrow(|types| {
        types.iter().find(|(known, _)| *known == type_oid).map(|(_, safe)| *safe)
    });
    known.unwrap_or_else(|| {
        let safe = has_portable_binary_form(type_oid);
        LOOKED_AT.with_borrow_mut(|types| types.push((type_oid, safe)));
        safe
    })
}

fn has_portable_binary_form(type_oid: Oid) -> bool {
    // SAFETY: a syscache look-up by value.
    let category = unsafe {
        let (mut category, mut preferred) = (0, false);
        pg_sys::get_type_category_preferred(type_oid, &raw mut category, &raw mut preferred);
        category as u8
    };
    if category == b'P'
        || matches!(type_oid, pg_sys::RECORDOID | pg_sys::RECORDARRAYOID | pg_sys::ACLITEMOID)
    {
        return false;
    }
    // Types that name objects by OID: reg* and their arrays.
    let name = type_name(type_oid);
    if name.trim_start_matches('_').starts_with("reg") {
        return false;
    }
    let element = element_type(type_oid);
    if element != Oid::INVALID && element.to_u32() >= FIRST_USER_OID {
        return false;
    }
    has_binary_io(type_oid)
}

/// A type's name in the catalog.
pub(crate) fn type_name(type_oid: Oid) -> String {
    // SAFETY: a syscache look-up by value; the tuple is released before the name is used.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::TYPEOID as i32,
            Datum::from(type_oid),
        );
        if tuple.is_null() {
            return String::new();
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>();
        let name = node::text_of((*form).typname.data.as_ptr());
        pg_sys::ReleaseSysCache(tuple);
        name
    }
}

fn element_type(type_oid: Oid) -> Oid {
    // SAFETY: a syscache look-up by value.
    unsafe { pg_sys::get_element_type(type_oid) }
}

fn has_binary_io(type_oid: Oid) -> bool {
    // SAFETY: a syscache look-up by value; the tuple is released after its flags are read.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::TYPEOID as i32,
            Datum::from(type_oid),
        );
        if tuple.is_null() {
            return false;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>();
        let both = (*form).typsend != Oid::INVALID && (*form).typreceive != Oid::INVALID;
        pg_sys::ReleaseSysCache(tuple);
        both
    }
}

/// `HASHSTANDARD_PROC` of `src/include/access/hash.h`.
const HASH_SUPPORT_FUNCTION: i16 = 1;

/// A function looked up once.
///
/// PostgreSQL writes into it while it is called (`fn_extra`), also when calls nest; nobody holds a reference.
pub(crate) struct Function(Box<UnsafeCell<pg_sys::FmgrInfo>>);

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Function")
    }
}

impl Function {
    /// Looks it up; what it remembers lives in the current memory context, which must outlive this value.
    pub(crate) fn look_up(oid: Oid) -> Self {
        // SAFETY: an all-zero FmgrInfo is what fmgr_info_cxt fills.
        let info = Box::new(UnsafeCell::new(unsafe { std::mem::zeroed() }));
        // SAFETY: as above; the box does not move the struct.
        unsafe { pg_sys::fmgr_info_cxt(oid, info.get(), pg_sys::CurrentMemoryContext) };
        Self(info)
    }

    pub(crate) fn pointer(&self) -> *mut pg_sys::FmgrInfo {
        self.0.get()
    }
}

/// Types whose binary form is their datum's bytes in the network's order, so that no function is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    Bool,
    Two,
    Four,
    Eight,
}

impl Plain {
    /// int2send and its kin, `src/backend/utils/adt`: each sends the value with pq_sendintN. The datums are passed
    /// by value on 64-bit machines, the only ones that we are built for.
    pub(super) fn of(type_oid: Oid) -> Option<Self> {
        Some(match type_oid {
            pg_sys::BOOLOID => Self::Bool,
            pg_sys::INT2OID => Self::Two,
            pg_sys::INT4OID | pg_sys::OIDOID | pg_sys::DATEOID | pg_sys::FLOAT4OID => Self::Four,
            pg_sys::INT8OID | pg_sys::FLOAT8OID | pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID => {
                Self::Eight
            }
            _ => return None,
        })
    }

    fn append(self, value: Datum, arguments: &mut Arguments) {
        let bits = (value.value() as u64).to_be_bytes();
        arguments.value(match self {
            Self::Bool => &bits[7..],
            Self::Two => &bits[6..],
            Self::Four => &bits[4..],
            Self::Eight => &bits,
        });
    }

    /// The datum, if the bytes are as many as they should be.
    #[inline]
    pub(super) fn datum(self, bytes: &[u8]) -> Option<Datum> {
        Some(match self {
            Self::Bool => Datum::from(*bytes.first()? != 0),
            Self::Two => Datum::from(i16::from_be_bytes(bytes.try_into().ok()?)),
            Self::Four => Datum::from(i32::from_be_bytes(bytes.try_into().ok()?)),
            Self::Eight => Datum::from(i64::from_be_bytes(bytes.try_into().ok()?)),
        })
    }
}

const _: () = assert!(size_of::<Datum>() == 8, "64-bit machines only");

/// What the session has set for the texts of dates and floats, put back when this value goes, after an ERROR too.
pub(crate) struct TextStyle {
    date: std::ffi::c_int,
    float_digits: std::ffi::c_int,
}

impl TextStyle {
    /// Until then texts are read back as what they were.
    pub(crate) fn exact() -> Self {
        // SAFETY: variables of the backend's one thread; output functions read them when they are called.
        unsafe {
            let before = Self { date: pg_sys::DateStyle, float_digits: pg_sys::extra_float_digits };
            pg_sys::DateStyle = pg_sys::USE_ISO_DATES as std::ffi::c_int;
            pg_sys::extra_float_digits = 3;
            before
        }
    }
}

impl Drop for TextStyle {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe {
            pg_sys::DateStyle = self.date;
            pg_sys::extra_float_digits = self.float_digits;
        }
    }
}

/// How values of one type leave for a node.
#[derive(Debug)]
pub struct Encoder {
    function: Function,
    type_oid: Oid,
    plain: Option<Plain>,
    binary: bool,
}

impl Encoder {
    /// Looks the type's output function up; in the current memory context, which must outlive this value.
    pub fn new(type_oid: Oid) -> Self {
        Self::with_format(type_oid, is_binary_safe(type_oid))
    }

    /// The type's text form, as COPY wants it.
    pub fn text(type_oid: Oid) -> Self {
        Self::with_format(type_oid, false)
    }

    /// The type's binary form, whatever the client's encoding.
    pub(crate) fn binary(type_oid: Oid) -> Self {
        Self::with_format(type_oid, true)
    }

    /// Values leave in binary.
    pub fn is_binary(&self) -> bool {
        self.binary
    }

    /// The type that an argument is declared as to a worker; 0 leaves it to the worker.
    pub fn argument_type(&self) -> u32 {
        if self.type_oid.to_u32() < FIRST_USER_OID { self.type_oid.to_u32() } else { 0 }
    }

    fn with_format(type_oid: Oid, binary: bool) -> Self {
        let (mut function, mut varlena) = (Oid::INVALID, false);
        // SAFETY: syscache look-ups by value.
        unsafe {
            if binary {
                pg_sys::getTypeBinaryOutputInfo(type_oid, &raw mut function, &raw mut varlena);
            } else {
                pg_sys::getTypeOutputInfo(type_oid, &raw mut function, &raw mut varlena);
            }
        }
        let plain = if binary { Plain::of(type_oid) } else { None };
        Self { function: Function::look_up(function), type_oid, plain, binary }
    }

    /// Hands a value's bytes, as they travel, to `take`.
    ///
    /// # Safety
    ///
    /// `value` is a datum of the type that the encoder was made for.
    pub(crate) unsafe fn with_bytes<T>(&self, value: Datum, take: impl FnOnce(&[u8]) -> T) -> T {
        // SAFETY: the caller vouches for the datum's type; the function returns a bytea or a C string in the
        // current context, which the caller resets.
        unsafe {
            if self.binary {
                let bytea = pg_sys::SendFunctionCall(self.function.pointer(), value);
                let n = pgrx::varsize_any_exhdr(bytea.cast());
                take(std::slice::from_raw_parts(pgrx::vardata_any(bytea.cast()).cast::<u8>(), n))
            } else {
                // ISO names zones by their offsets; what other styles call a zone means another one to the reader.
                let style = TextStyle::exact();
                let text = pg_sys::OutputFunctionCall(self.function.pointer(), value);
                drop(style);
                take(std::ffi::CStr::from_ptr(text).to_bytes())
            }
        }
    }

    /// A value as an argument of a statement.
    ///
    /// # Safety
    ///
    /// As for the datum's type; NULL is `None`.
    pub(crate) unsafe fn append(&self, value: Option<Datum>, arguments: &mut Arguments) {
        match (value, self.plain) {
            (None, _) => arguments.null(),
            (Some(value), Some(plain)) => plain.append(value, arguments),
            // SAFETY: the caller vouches for the datum.
            (Some(value), None) => unsafe {
                self.with_bytes(value, |bytes| arguments.value(bytes))
            },
        }
    }
}

/// A hash function of an operator family, with the collation it hashes under.
#[derive(Debug)]
pub struct Hasher {
    function: Function,
    collation: Oid,
}

impl Hasher {
    /// Hash support function 1 of `family` for values of `type_oid`; none if the family has none. What the function
    /// remembers lives in the current memory context, which must outlive this value.
    pub fn find(family: Oid, type_oid: Oid, collation: Oid) -> Option<Self> {
        // SAFETY: a syscache look-up by value.
        let function =
            unsafe { pg_sys::get_opfamily_proc(family, type_oid, type_oid, HASH_SUPPORT_FUNCTION) };
        (function != Oid::INVALID)
            .then(|| Self { function: Function::look_up(function), collation })
    }

    /// The same for a family that somebody has named: one of the server's own, of hash indexes, since those of other indexes
    /// take other arguments.
    pub(crate) fn find_named(family: Oid, type_oid: Oid, collation: Oid) -> Option<Self> {
        // SAFETY: a syscache look-up by value; the tuple is released after its field is read.
        let is_hash = unsafe {
            let cache = pg_sys::SysCacheIdentifier::OPFAMILYOID as i32;
            let tuple = pg_sys::SearchSysCache1(cache, Datum::from(family));
            if tuple.is_null() {
                return None;
            }
            let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_opfamily>();
            let method = (*form).opfmethod;
            pg_sys::ReleaseSysCache(tuple);
            method == pg_sys::HASH_AM_OID
        };
        let is_own = family.to_u32() < FIRST_USER_OID && type_oid.to_u32() < FIRST_USER_OID;
        if is_hash && is_own { Self::find(family, type_oid, collation) } else { None }
    }

    /// Every value of the type can be hashed: of a composite type each field, of an array its elements.
    pub fn covers(type_oid: Oid) -> bool {
        // SAFETY: a look-up in the backend's cache of types, which looks at their parts (`typcache.c`).
        unsafe {
            let known = pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_HASH_PROC as i32);
            (*known).hash_proc != Oid::INVALID
        }
    }

    /// A hash function of the server's by itself; what it remembers lives in the current memory context.
    pub(crate) fn of(function: Oid, collation: Oid) -> Self {
        Self { function: Function::look_up(function), collation }
    }

    /// The hash of a value: PostgreSQL's own 32 bits, taken as signed.
    ///
    /// # Safety
    ///
    /// `value` is a datum of the type that the hasher was found for.
    pub(crate) unsafe fn hash(&self, value: Datum) -> i32 {
        // SAFETY: the caller vouches for the datum; hash functions take one argument.
        unsafe { pg_sys::FunctionCall1Coll(self.function.pointer(), self.collation, value) }.value()
            as i32
    }
}

/// A bytea in the current memory context.
///
/// # Safety
///
/// Called where a memory context is set, as everywhere in a backend.
pub(crate) unsafe fn make_bytea(bytes: &[u8]) -> Datum {
    // SAFETY: palloc gives that many bytes or does not return; a varlena's length word counts itself.
    unsafe {
        let length = bytes.len() + pg_sys::VARHDRSZ;
        let value = pg_sys::palloc(length).cast::<pg_sys::varlena>();
        pgrx::set_varsize_4b(value, length as i32);
        let data = value.cast::<u8>().add(pg_sys::VARHDRSZ);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
        Datum::from(value)
    }
}
