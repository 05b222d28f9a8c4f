//! The mark that a distributed table carries itself.
//!
//! The metadata know tables by their OIDs, and a dump holds these as numbers, which mean nothing where it is restored, or
//! another table. The label of a distributed table says under which OID the metadata know it. pg_dump writes it with the table. Only
//! a table whose label is its own OID is distributed; one with another label came with a dump, and
//! `pgs_catalog.after_restore` brings its metadata to its OID. The label goes with a table that is dropped, so metadata that are
//! left never become those of the next table that gets the OID.
//!
//! The access method ([`pg::catalog::mark`]) keeps out sessions that have not our hooks.

use pg::PgError;
use pg::catalog::mark;
use pg::catalog::privileged;
use pg::catalog::table;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use std::cell::Cell;

/// Opens the label; the OID follows.
const LABEL: &str = "distributed table ";

/// What a table's mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It is a local table.
    None,
    /// The metadata know it by its OID.
    Own,
    /// It was distributed where it was dumped.
    Foreign,
}

thread_local! {
    /// A table that is being dropped, mark and all.
    static DROPPED: Cell<Option<Oid>> = const { Cell::new(None) };
}

/// Reads a table's mark.
pub(crate) fn read(oid: Oid) -> Mark {
    match mark::label(oid) {
        Some(label) if label == text(oid) => Mark::Own,
        Some(_) => Mark::Foreign,
        None if mark::has_access_method(oid) => Mark::Foreign,
        None => Mark::None,
    }
}

fn text(oid: Oid) -> String {
    format!("{LABEL}{}", oid.to_u32())
}

/// Marks a table as one that the metadata know by its OID.
pub(crate) fn put(oid: Oid) -> Result<(), PgError> {
    mark::set_label(oid, Some(&text(oid)));
    // A table of another access method keeps that.
    privileged::run(&format!(
        "WITH changed AS ( \
           UPDATE pg_catalog.pg_class AS c SET relam = a.oid FROM pg_catalog.pg_am AS a \
           WHERE a.amname OPERATOR(pg_catalog.=) 'pg_shard'::pg_catalog.name \
             AND {0} \
             AND c.relam OPERATOR(pg_catalog.=) '2'::pg_catalog.oid RETURNING c.oid, a.oid AS method) \
         INSERT INTO pg_catalog.pg_depend (classid, objid, objsubid, refclassid, refobjid, refobjsubid, deptype) \
         SELECT '1259'::pg_catalog.oid, oid, 0, '2601'::pg_catalog.oid, method, 0, 'n' FROM changed",
        table_and_toast(oid)
    ))
}

/// Takes a table's mark away.
pub(crate) fn remove(oid: Oid) -> Result<(), PgError> {
    if mark::label(oid).is_some() {
        mark::set_label(oid, None);
    }
    remove_access_method(&table_and_toast(oid))
}

/// The table, and its TOAST table: VACUUM FULL and CLUSTER make both anew with the table's method, and exchange only tables of
/// one method.
fn table_and_toast(oid: Oid) -> String {
    format!(
        "(c.oid OPERATOR(pg_catalog.=) '{0}'::pg_catalog.oid OR c.oid OPERATOR(pg_catalog.=) \
          (SELECT o.reltoastrelid FROM pg_catalog.pg_class AS o WHERE o.oid OPERATOR(pg_catalog.=) '{0}'::pg_catalog.oid))",
        oid.to_u32()
    )
}

/// Gives a table the heap's own access method until [`put`]: PostgreSQL writes a table anew only if its TOAST table depends on
/// nothing else (`swap_relation_files`, `src/backend/commands/cluster.c`).
pub(crate) fn suspend(oid: Oid) -> Result<(), PgError> {
    remove_access_method(&table_and_toast(oid))
}

/// Takes all marks of the database away: the extension is about to go.
pub(crate) fn remove_all() -> Result<(), PgError> {
    privileged::run(
        "DELETE FROM pg_catalog.pg_seclabel WHERE provider OPERATOR(pg_catalog.=) 'pg_shard'::pg_catalog.text",
    )?;
    remove_access_method("true")
}

/// Also of the TOAST tables, which have it from their tables.
fn remove_access_method(condition: &str) -> Result<(), PgError> {
    privileged::run(&format!(
        "WITH method AS (SELECT oid FROM pg_catalog.pg_am \
                         WHERE amname OPERATOR(pg_catalog.=) 'pg_shard'::pg_catalog.name), \
              marked AS (SELECT c.oid, c.reltoastrelid FROM pg_catalog.pg_class AS c, method \
                         WHERE c.relam OPERATOR(pg_catalog.=) method.oid AND {condition}), \
              undone AS (UPDATE pg_catalog.pg_class AS c SET relam = '2'::pg_catalog.oid FROM marked, method \
                         WHERE c.relam OPERATOR(pg_catalog.=) method.oid \
                           AND (c.oid OPERATOR(pg_catalog.=) marked.oid \
                                OR c.oid OPERATOR(pg_catalog.=) marked.reltoastrelid AND c.relkind OPERATOR(pg_catalog.=) 't'::\"char\")) \
         DELETE FROM pg_catalog.pg_depend AS d USING marked, method \
         WHERE d.classid OPERATOR(pg_catalog.=) '1259'::pg_catalog.oid AND d.objid OPERATOR(pg_catalog.=) marked.oid \
           AND d.refclassid OPERATOR(pg_catalog.=) '2601'::pg_catalog.oid \
           AND d.refobjid OPERATOR(pg_catalog.=) method.oid"
    ))
}

/// A dropped table takes its mark along: while `body` forgets it, the mark is left alone.
pub(crate) fn while_dropping<T>(oid: Oid, body: impl FnOnce() -> T) -> T {
    let before = DROPPED.replace(Some(oid));
    let value = body();
    DROPPED.set(before);
    value
}

/// Called for rows of the metadata that are written by hand, and by `after_restore`; a table that came with a dump is marked
/// only if `also_restored` is set, since its OID may be that of another one's metadata.
#[pg_extern]
fn mark_distributed(table_oid: Oid, also_restored: bool) {
    if table::describe(table_oid).is_some() && (also_restored || read(table_oid) != Mark::Foreign) {
        pg::sys::error::raise(put(table_oid));
    }
}

/// The server has loaded the library when it started.
#[pg_extern]
fn is_preloaded() -> bool {
    mark::is_preloaded()
}

/// Called for rows of the metadata that are deleted, by whomever.
#[pg_extern]
fn unmark_distributed(table_oid: Oid) {
    if DROPPED.get() != Some(table_oid) && read(table_oid) == Mark::Own {
        pg::sys::error::raise(remove(table_oid));
    }
}
