//! Values between PostgreSQL's datums and the wire.
//!
//! Binary where the type's binary form means the same on every node: types of the server itself, since those
//! of users have other OIDs elsewhere and some binary forms contain OIDs. Everything else travels as text,
//! under settings that both ends share (`settings.rs` of the extension).

use crate::libpq::Parameter;
use crate::node;
use pgrx::pg_sys::{self, Datum, Oid};

/// The first OID that a user's object can have (`FirstNormalObjectId`, `src/include/access/transam.h`).
pub const FIRST_USER_OID: u32 = 16384;

/// The binary form of `type_oid` is the same on every node.
pub fn is_binary_safe(type_oid: Oid) -> bool {
    // Send and receive functions convert to and from the encoding of our client, and nodes speak the database's.
    // SAFETY: reads settings of the backend.
    let converts = unsafe { pg_sys::pg_get_client_encoding() != pg_sys::GetDatabaseEncoding() };
    if converts || type_oid.to_u32() >= FIRST_USER_OID {
        return false;
    }
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

fn type_name(type_oid: Oid) -> String {
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
#[derive(Debug)]
struct Function(Box<pg_sys::FmgrInfo>);

impl Function {
    fn look_up(oid: Oid) -> Self {
        // SAFETY: an all-zero FmgrInfo is what fmgr_info fills; its extra memory goes with the query's context,
        // in which the caller is.
        let mut info: Box<pg_sys::FmgrInfo> = Box::new(unsafe { std::mem::zeroed() });
        // SAFETY: as above.
        unsafe { pg_sys::fmgr_info_cxt(oid, &raw mut *info, pg_sys::CurrentMemoryContext) };
        Self(info)
    }

    fn pointer(&mut self) -> *mut pg_sys::FmgrInfo {
        &raw mut *self.0
    }
}

/// How values of one type leave for a node.
#[derive(Debug)]
pub struct Encoder {
    function: Function,
    type_oid: Oid,
    binary: bool,
}

impl Encoder {
    /// Looks the type's output function up; in the query's memory context.
    pub fn new(type_oid: Oid) -> Self {
        Self::with_format(type_oid, is_binary_safe(type_oid))
    }

    /// The type's text form, as COPY wants it.
    pub fn text(type_oid: Oid) -> Self {
        Self::with_format(type_oid, false)
    }

    /// The type that a parameter is declared as to a worker; 0 leaves it to the worker.
    pub fn parameter_type(&self) -> u32 {
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
        Self { function: Function::look_up(function), type_oid, binary }
    }

    /// A value as it travels.
    ///
    /// # Safety
    ///
    /// `value` is a datum of the type that the encoder was made for.
    unsafe fn bytes(&mut self, value: Datum) -> Vec<u8> {
        // SAFETY: the caller vouches for the datum's type; the function returns a bytea or a C string in the
        // current context, which the caller resets.
        unsafe {
            if self.binary {
                let bytea = pg_sys::SendFunctionCall(self.function.pointer(), value);
                let n = pgrx::varsize_any_exhdr(bytea.cast());
                std::slice::from_raw_parts(pgrx::vardata_any(bytea.cast()).cast::<u8>(), n).to_vec()
            } else {
                let text = pg_sys::OutputFunctionCall(self.function.pointer(), value);
                std::ffi::CStr::from_ptr(text).to_bytes_with_nul().to_vec()
            }
        }
    }

    /// A value as a parameter of a statement.
    ///
    /// # Safety
    ///
    /// As for the datum's type; NULL is `None`.
    pub(crate) unsafe fn parameter(&mut self, value: Option<Datum>) -> Parameter {
        // SAFETY: the caller vouches for the datum.
        Parameter { bytes: value.map(|value| unsafe { self.bytes(value) }), binary: self.binary }
    }
}

/// How values of one type arrive from a node.
#[derive(Debug)]
pub(crate) struct Decoder {
    function: Function,
    io_parameter: Oid,
    typmod: i32,
    binary: bool,
}

impl Decoder {
    /// Looks the type's input function up; in the query's memory context.
    pub(crate) fn new(type_oid: Oid, typmod: i32, binary: bool) -> Self {
        let (mut function, mut io_parameter) = (Oid::INVALID, Oid::INVALID);
        // SAFETY: syscache look-ups by value.
        unsafe {
            if binary {
                pg_sys::getTypeBinaryInputInfo(type_oid, &raw mut function, &raw mut io_parameter);
            } else {
                pg_sys::getTypeInputInfo(type_oid, &raw mut function, &raw mut io_parameter);
            }
        }
        Self { function: Function::look_up(function), io_parameter, typmod, binary }
    }

    /// The datum of a value's bytes, in the current memory context.
    ///
    /// # Safety
    ///
    /// A zero byte follows the bytes in memory (libpq's promise for results).
    pub(crate) unsafe fn datum(&mut self, bytes: &[u8]) -> Datum {
        // SAFETY: the caller vouches for the zero byte; the receive function reads the buffer and keeps nothing
        // of it; input functions get a zero-terminated text that they do not change.
        unsafe {
            if self.binary {
                let mut buffer = pg_sys::StringInfoData {
                    data: bytes.as_ptr().cast_mut().cast(),
                    len: bytes.len() as i32,
                    maxlen: bytes.len() as i32 + 1,
                    cursor: 0,
                };
                pg_sys::ReceiveFunctionCall(
                    self.function.pointer(),
                    &raw mut buffer,
                    self.io_parameter,
                    self.typmod,
                )
            } else {
                pg_sys::InputFunctionCall(
                    self.function.pointer(),
                    bytes.as_ptr().cast_mut().cast(),
                    self.io_parameter,
                    self.typmod,
                )
            }
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
    /// Hash support function 1 of `family` for values of `type_oid`; none if the family has none.
    pub fn find(family: Oid, type_oid: Oid, collation: Oid) -> Option<Self> {
        // SAFETY: a syscache look-up by value.
        let function =
            unsafe { pg_sys::get_opfamily_proc(family, type_oid, type_oid, HASH_SUPPORT_FUNCTION) };
        (function != Oid::INVALID).then(|| {
            // SAFETY: look-ups made for a longer time than a query belong to the session's context.
            let before = unsafe { pg_sys::MemoryContextSwitchTo(pg_sys::CacheMemoryContext) };
            let function = Function::look_up(function);
            // SAFETY: back to the context we came from.
            unsafe { pg_sys::MemoryContextSwitchTo(before) };
            Self { function, collation }
        })
    }

    /// The hash of a value: PostgreSQL's own 32 bits, taken as signed.
    ///
    /// # Safety
    ///
    /// `value` is a datum of the type that the hasher was found for.
    pub(crate) unsafe fn hash(&mut self, value: Datum) -> i32 {
        // SAFETY: the caller vouches for the datum; hash functions take one argument.
        unsafe { pg_sys::FunctionCall1Coll(self.function.pointer(), self.collation, value) }.value()
            as i32
    }
}
