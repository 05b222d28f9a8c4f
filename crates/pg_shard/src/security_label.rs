//! SECURITY LABEL on tables: dumps set the mark of a distributed table ([`crate::mark`]) with it.

use crate::catalog;
use pg::catalog::table;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;

/// SECURITY LABEL, by hand or from a dump.
pub(crate) fn check(table: Option<Oid>) -> Result<(), PgError> {
    let Some(oid) = table else {
        return Err(PgError::unsupported(
            "security labels of pg_shard are for tables only",
            "They come with dumps of distributed tables.",
        ));
    };
    if !table::is_superuser() {
        return Err(PgError::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            "must be superuser to set a security label of pg_shard",
        ));
    }
    match catalog::find(oid) {
        Some(known) if !known.is_detached() => Err(PgError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table \"{}\" is distributed already", known.name),
        )
        .hint("Restore into an empty database, or drop the table first.")),
        _ => Ok(()),
    }
}
