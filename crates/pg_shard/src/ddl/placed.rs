//! Schemas, types, functions and collations that we have put on nodes go there when they are dropped here.
//!
//! `pgs_catalog.placed_object` says which objects distributed tables have needed. What we have created on a node bears a comment
//! ([`MARK`]): what somebody else has put there stays, as does what something else on the node depends on. An object is dropped
//! after whatever depends on it, on the nodes as well as here.

use super::needed::{MARK, NEED};
use super::nodes::run_on;
use crate::catalog;
use crate::functions::literal;
use crate::nodes;
use crate::session::pool;
use crate::transaction::NodeFailure;
use pg::PgError;
use pg::catalog::privileged;
use pg::catalog::table::{self, Search};
use pgrx::pg_sys::Oid;

/// The objects of a table's definition, as PostgreSQL names their catalogs.
const PLACED: &str = "SELECT m.classid, m.objid FROM member m WHERE m.extension IS NULL AND m.classid IN \
      ('pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_collation'::pg_catalog.regclass) \
    UNION SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, x.namespace FROM ( \
      SELECT c.relnamespace FROM pg_catalog.pg_class c JOIN need n ON n.root = c.oid \
      UNION SELECT t.typnamespace FROM pg_catalog.pg_type t JOIN member m ON m.objid = t.oid AND m.extension IS NULL \
      UNION SELECT p.pronamespace FROM pg_catalog.pg_proc p JOIN member m ON m.objid = p.oid AND m.extension IS NULL \
      UNION SELECT l.collnamespace FROM pg_catalog.pg_collation l JOIN member m ON m.objid = l.oid AND m.extension IS NULL \
    ) x(namespace) WHERE x.namespace >= 16384";

/// Notes what these tables need: nodes may have got it.
pub(crate) fn note(tables: &[Oid]) -> Result<(), PgError> {
    // Objects of a script before the release lack it.
    if table::relation_oid("pgs_catalog", "placed_object").is_none() {
        return Ok(());
    }
    let oids: Vec<String> = tables.iter().map(|oid| oid.to_u32().to_string()).collect();
    let need = NEED.replace("$1", &format!("ARRAY[{}]", oids.join(", ")));
    privileged::run(&format!(
        "{need} INSERT INTO pgs_catalog.placed_object (class_id, object_id) {PLACED} ON CONFLICT DO NOTHING"
    ))
}

/// An object is being dropped.
pub(crate) fn on_drop(class: Oid, object: Oid) -> Result<(), PgError> {
    if object.to_u32() < 16384 || catalog::metadata().is_none() || !is_placed(class, object) {
        return Ok(());
    }
    let statement = statement(class, object);
    privileged::run(&format!(
        "DELETE FROM pgs_catalog.placed_object WHERE class_id = {} AND object_id = {}",
        class.to_u32(),
        object.to_u32()
    ))?;
    let Some(statement) = statement else { return Ok(()) };
    for node in nodes::all().into_iter().filter(shardmap::metadata::is_plausible) {
        match run_on(&node, std::slice::from_ref(&statement)) {
            Ok(()) => {}
            Err(NodeFailure::Unreachable(error)) => pg::sys::error::warning(
                pool::connection_failed(&node, &error).hint("What is dropped here remains there."),
            ),
            Err(NodeFailure::Error(error)) => {
                return Err(error.context(format!("while executing on node \"{node}\"")));
            }
        }
    }
    Ok(())
}

fn is_placed(class: Oid, object: Oid) -> bool {
    let Some(placed) = table::relation_oid("pgs_catalog", "placed_object") else { return false };
    let index = table::relation_oid("pgs_catalog", "placed_object_pkey");
    let mut found = false;
    table::scan(placed, index, 1, Search::Oid(object), &mut |row| found |= row.oid(2) == class);
    found
}

/// The statement that drops it on a node if it is ours there; none for what we never create.
fn statement(class: Oid, object: Oid) -> Option<String> {
    let (kind, find, catalog, name) = match class.to_u32() {
        TYPES => ("TYPE", "to_regtype", "pg_type", "pg_catalog.format_type(x.oid, NULL)"),
        FUNCTIONS => (
            "FUNCTION",
            "to_regprocedure",
            "pg_proc",
            "pg_catalog.format('%s.%I(%s)', x.pronamespace::pg_catalog.regnamespace, x.proname, \
               pg_catalog.oidvectortypes(x.proargtypes))",
        ),
        COLLATIONS => (
            "COLLATION",
            "to_regcollation",
            "pg_collation",
            "pg_catalog.format('%s.%I', x.collnamespace::pg_catalog.regnamespace, x.collname)",
        ),
        SCHEMAS => {
            ("SCHEMA", "to_regnamespace", "pg_namespace", "pg_catalog.quote_ident(x.nspname)")
        }
        _ => return None,
    };
    let query =
        format!("SELECT {name} FROM pg_catalog.{catalog} x WHERE x.oid = {}", object.to_u32());
    let name: Result<Option<String>, _> = privileged::read_catalogs(|client| {
        client.select(&query, Some(1), &[])?.first().get_one::<String>()
    });
    Some(drop_statement(kind, find, catalog, &name.ok()??))
}

/// The catalogs' OIDs (`src/include/catalog/pg_type.h` and so on).
const TYPES: u32 = 1247;
const FUNCTIONS: u32 = 1255;
const SCHEMAS: u32 = 2615;
const COLLATIONS: u32 = 3456;

fn drop_statement(kind: &str, find: &str, catalog: &str, name: &str) -> String {
    let body = format!(
        "BEGIN IF pg_catalog.obj_description(pg_catalog.{find}({name_text})::pg_catalog.oid, '{catalog}') = {mark} THEN DROP {kind} {name}; END IF; \
         EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN NULL; END",
        name_text = literal(name),
        mark = literal(MARK),
    );
    format!("DO {}", literal(&body))
}
