//! Types, functions, schemas and the like follow on the nodes when they change, as far as distributed tables need them.
//!
//! They are read before PostgreSQL runs the statement and once more afterwards; `shardmap/src/definition/objects.rs` says what the
//! nodes need. That goes, in the client's transaction, to each node that has shards of a table that needs the object.

use super::nodes::run_on;
use super::object_catalog::{self, NeededObject};
use super::placed;
use super::watched::{OBJECTS, WatchedObjects};
use crate::catalog::{self, DistributedTable};
use crate::naming;
use crate::session::pool;
use crate::transaction::NodeFailure;
use pg::PgError;
use pg::catalog::table::{self, RelationLock};
use pg::server::alter::show_changes;
use pg::server::transaction::invalidate;
use pg::server::utility::UtilityCall;
use pgrx::pg_sys::Oid;
use shardmap::NodeAddress;
use shardmap::definition::objects::{Object, ObjectChange, change};
use std::rc::Rc;

/// Reads what distributed tables need before a statement that may change some of it; says whether there is anything.
pub(super) fn watch(call: &UtilityCall) -> Result<bool, PgError> {
    let statement = call.id();
    OBJECTS.with_borrow_mut(|watched| watched.retain(|one| one.statement != statement));
    if !call.changes_objects() {
        return Ok(false);
    }
    let tables: Vec<Oid> = catalog::distributed_tables()
        .into_iter()
        .filter(|oid| {
            catalog::find(*oid).is_some_and(|table| !table.map.is_empty() && table.check().is_ok())
        })
        .collect();
    if tables.is_empty() {
        return Ok(false);
    }
    let before = object_catalog::needed_by(&tables)?;
    OBJECTS.with_borrow_mut(|watched| watched.push(WatchedObjects { statement, before }));
    Ok(true)
}

/// A running statement has its changes of this object repeated on the nodes.
pub(super) fn is_watched(object: Oid) -> bool {
    let is_it = |one: &NeededObject| one.object.id == object.to_u32();
    OBJECTS.with_borrow(|all| all.iter().any(|watched| watched.before.iter().any(is_it)))
}

/// Has the nodes repeat what a statement has changed.
pub(super) fn finish(call: &UtilityCall) -> Result<(), PgError> {
    let statement = call.id();
    let watched = OBJECTS.with_borrow_mut(|watched| {
        let at = watched.iter().position(|one| one.statement == statement)?;
        Some(watched.remove(at))
    });
    let Some(WatchedObjects { before, .. }) = watched else { return Ok(()) };
    show_changes();
    let ids: Vec<Oid> = before.iter().map(|one| Oid::from(one.object.id)).collect();
    let after = object_catalog::by_id(&ids)?;
    let changed: Vec<NeededObject> = before
        .into_iter()
        .filter(|was| after.iter().find(|is| is.id == was.object.id) != Some(&was.object))
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    // A statement around this one compares with what is there now.
    OBJECTS.with_borrow_mut(|all| {
        for outer in all.iter_mut().flat_map(|watched| &mut watched.before) {
            if let Some(is) = after.iter().find(|is| is.id == outer.object.id) {
                outer.object.clone_from(is);
            }
        }
    });
    repeat(&changed, &after)
}

fn repeat(changed: &[NeededObject], after: &[Object]) -> Result<(), PgError> {
    let tables = tables_of(changed);
    let all: Vec<Object> = changed.iter().map(|one| one.object.clone()).collect();
    let named = change(&all, after);
    if named.is_empty() {
        return Ok(());
    }
    if !named.renamed.is_empty() {
        // Statements that others have planned have the former names in them.
        tables
            .iter()
            .for_each(|table| table::lock_relation(table.oid, RelationLock::AccessExclusive));
        if let Some(metadata) = catalog::metadata() {
            invalidate(metadata.partition);
        }
        catalog::forget(None);
    }
    let oids: Vec<Oid> = tables.iter().map(|table| table.oid).collect();
    let prerequisites =
        if named.changed.is_empty() { Vec::new() } else { object_catalog::prerequisites(&oids)? };
    if !prerequisites.is_empty() {
        placed::note(&oids)?;
    }
    for (node, here) in per_node(&tables)? {
        let objects: Vec<Object> = changed
            .iter()
            .filter(|one| one.tables.iter().any(|oid| here.iter().any(|table| table.oid == *oid)))
            .map(|one| one.object.clone())
            .collect();
        let change = change(&objects, after);
        if !change.is_empty() {
            run_on(&node, &statements(&change, &prerequisites))
                .map_err(|failure| failed(&here, &node, failure))?;
        }
    }
    Ok(())
}

fn statements(change: &ObjectChange, prerequisites: &[String]) -> Vec<String> {
    let mut all = vec!["SET LOCAL check_function_bodies TO off".to_owned()];
    all.extend_from_slice(&change.renamed);
    if !change.changed.is_empty() {
        all.extend_from_slice(prerequisites);
    }
    all.extend_from_slice(&change.changed);
    all.extend_from_slice(&change.dropped);
    all
}

/// The tables that need one of the objects and are still there.
fn tables_of(changed: &[NeededObject]) -> Vec<Rc<DistributedTable>> {
    let mut oids: Vec<Oid> = changed.iter().flat_map(|one| one.tables.clone()).collect();
    oids.sort_by_key(|oid| oid.to_u32());
    oids.dedup();
    oids.retain(|oid| table::describe(*oid).is_some());
    oids.into_iter().filter_map(catalog::find).collect()
}

/// Nodes, each with the tables that have healthy placements there.
type PerNode = Vec<(NodeAddress, Vec<Rc<DistributedTable>>)>;

fn per_node(tables: &[Rc<DistributedTable>]) -> Result<PerNode, PgError> {
    let mut nodes: PerNode = Vec::new();
    for table in tables {
        for (node, _) in super::nodes::nodes(table)? {
            match nodes.iter_mut().find(|(known, _)| *known == node) {
                Some((_, here)) => here.push(Rc::clone(table)),
                None => nodes.push((node, vec![Rc::clone(table)])),
            }
        }
    }
    Ok(nodes)
}

fn failed(here: &[Rc<DistributedTable>], node: &NodeAddress, failure: NodeFailure) -> PgError {
    match failure {
        NodeFailure::Unreachable(error) => pool::connection_failed(node, &error).hint(
            "All nodes with shards of tables that need the object must take part when it changes. Start the node, or mark its \
             placements with shard_state 3.",
        ),
        NodeFailure::Error(error) => {
            // A domain's check names a shard: of which table, only its name says.
            let message = error.message().to_owned();
            let shards = here.iter().flat_map(|table| (0..table.map.len()).map(move |at| (&**table, at)));
            let meant: Vec<(&DistributedTable, usize)> = shards
                .filter(|(table, at)| {
                    let shard = format!("\"{}_{}", table.name, table.shard_id(*at).0);
                    ["\"", "."].iter().any(|end| message.contains(&format!("{shard}{end}")))
                })
                .collect();
            naming::tell_as_table(error, &meant, node)
        }
    }
}
