//! Which triggers a distributed table can have.
//!
//! They belong to the coordinator's table and fire there (`pg::exec::triggers`), so nothing of them goes to the nodes.

use crate::links::{key_past_triggers, name_of};
use pg::PgError;
use pg::catalog::mark;
use pg::catalog::table;
use pg::catalog::trigger::trigger_types;
use pgrx::pg_sys::Oid;

/// Bits of `pg_trigger.tgtype` (`src/include/catalog/pg_trigger.h`).
const ROW: i16 = 1;
const BEFORE: i16 = 1 << 1;
const TRUNCATE: i16 = 1 << 5;

/// Refuses a table that is to be distributed if it has triggers that cannot fire.
pub(crate) fn check(oid: Oid) -> Result<(), PgError> {
    check_keys(oid, &trigger_types(oid))?;
    trigger_types(oid).into_iter().try_for_each(|kind| check_kind(oid, kind))
}

/// Refuses a partition to be with triggers of rows.
pub(crate) fn check_partition(oid: Oid) -> Result<(), PgError> {
    match (table::describe(oid), trigger_types(oid).iter().any(|kind| kind & ROW != 0)) {
        (Some(relation), true) => Err(PgError::unsupported(
            format!("distributed table \"{}\" cannot have triggers of rows", relation.name),
            "Drop the triggers, or use triggers of statements.",
        )
        .detail("It becomes a partition.")),
        _ => Ok(()),
    }
}

/// Refuses a trigger that cannot fire on a distributed table.
pub(super) fn check_kind(oid: Oid, kind: i16) -> Result<(), PgError> {
    let Some(relation) = table::describe(oid) else { return Ok(()) };
    check_keys(oid, &[kind])?;
    let refused = |what: &str, detail: &str, hint: &str| {
        Err(PgError::unsupported(
            format!("distributed table \"{}\" cannot have {what}", relation.name),
            hint,
        )
        .detail(detail))
    };
    if kind & ROW != 0 && (relation.kind == b'p' || relation.is_partition) {
        return refused(
            "triggers of rows",
            "It is partitioned, or a partition.",
            "Drop the triggers, or use triggers of statements.",
        );
    }
    if relation.kind == b'f' {
        return refused(
            "triggers",
            "It is a foreign table.",
            "Drop the triggers, or use a table that is no foreign one.",
        );
    }
    if relation.kind != b'p' && mark::has_foreign_method(oid) {
        return refused(
            "triggers",
            "Its rows are not kept as PostgreSQL keeps them, and triggers could not find them.",
            "Create the table without USING.",
        );
    }
    if kind & TRUNCATE != 0 && kind & BEFORE != 0 {
        return refused(
            "a BEFORE TRUNCATE trigger",
            "The shards are truncated before the trigger would fire.",
            "Use an AFTER TRUNCATE trigger.",
        );
    }
    Ok(())
}

/// Refuses triggers of these types beside a foreign key whose actions would not fire them.
pub(super) fn check_keys(oid: Oid, types: &[i16]) -> Result<(), PgError> {
    let Some(key) = key_past_triggers(oid, types) else { return Ok(()) };
    Err(PgError::unsupported(
        format!(
            "distributed table \"{}\" cannot have both triggers and foreign key \"{}\"",
            name_of(oid),
            key.name
        ),
        format!(
            "Use NO ACTION, and change the rows by a trigger of table \"{}\".",
            name_of(key.referenced)
        ),
    )
    .detail("The nodes carry out the foreign key's actions, and triggers do not fire there."))
}
