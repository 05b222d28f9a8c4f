//! What the catalogs say of an extension and its functions.

use super::table::{self, Search};
use crate::sys::node;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ffi::{CStr, c_int};

/// `pg_extension` and its index by OID; the bindings lack them (`CATALOG(...)` in `pg_extension.h`).
const PG_EXTENSION: (Oid, Oid) = (Oid::from_u32(3079), Oid::from_u32(3080));

/// The type oid.
pub const OID: Oid = pg_sys::OIDOID;

/// The version of an extension's objects in this database; none if they are not here.
pub fn version(name: &CStr) -> Option<String> {
    // SAFETY: a look-up by a zero-terminated name.
    let oid = unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) };
    let (catalog, index) = PG_EXTENSION;
    let mut version = None;
    // `oid`, `extversion`.
    table::scan(catalog, Some(index), 1, Search::Oid(oid), &mut |row| version = Some(row.text(6)));
    version
}

/// There is such a function.
pub fn has_function(schema: &str, name: &str, arguments: &[Oid]) -> bool {
    // SAFETY: a look-up by name and types, which live during the call.
    let oid = unsafe {
        let name = [node::string_node(schema), node::string_node(name)];
        let count = arguments.len() as c_int;
        pg_sys::LookupFuncName(node::list_of(&name), count, arguments.as_ptr(), true)
    };
    oid != Oid::INVALID
}
