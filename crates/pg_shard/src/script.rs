//! The script that made the extension's objects in this database, and what the library needs of it.
//!
//! The library and the objects change at different times: a package replaces the library, ALTER EXTENSION updates the objects of one
//! database. With objects of another version no distributed table is used: they may declare functions that the library has no longer, or has
//! with other arguments. Objects of the same version can come from a script before the release, and lack a function that the library
//! calls by SQL. Whoever calls such a function asks [`need`] first.

use pg::catalog::extension;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;

/// The version of the objects that the library works with.
const VERSION: &str = "2.0";

/// The version of the objects in this database, if the library does not work with it.
pub(crate) fn other_version() -> Option<String> {
    extension::version(c"pg_shard").filter(|version| version != VERSION)
}

/// The error of whoever uses a table whose metadata another version made.
pub(crate) fn wrong_version(version: &str) -> PgError {
    PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("objects of extension \"pg_shard\" are of version {version}, but the library is of version {VERSION}"),
    )
    .hint(if version.starts_with("1.") {
        "Objects of 1.2 cannot be updated. Keep the rows of the three metadata tables, create the extension anew, and insert them again."
    } else {
        "Run ALTER EXTENSION pg_shard UPDATE, or install the library of the version of the objects."
    })
}

/// Objects of the library's own version have that function of the schema `pgs_catalog`.
pub(crate) fn need(function: &str, arguments: &[Oid]) -> Result<(), PgError> {
    if extension::has_function("pgs_catalog", function, arguments) {
        return Ok(());
    }
    Err(PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the extension's function pgs_catalog.{function} is missing in this database"),
    )
    .detail("A script before the release made the objects of extension \"pg_shard\".")
    .hint(format!(
        "Execute the CREATE FUNCTION of it in the installed pg_shard--{VERSION}.sql, and then ALTER EXTENSION pg_shard ADD FUNCTION."
    )))
}
