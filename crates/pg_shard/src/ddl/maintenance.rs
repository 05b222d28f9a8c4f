//! CREATE INDEX and DROP INDEX with CONCURRENTLY, REINDEX and CLUSTER: on all healthy placements of the shards, all nodes at once.
//!
//! PostgreSQL runs the statement on the coordinator's table before. What CONCURRENTLY says commits several times on the way; its last
//! step, which makes the index valid or takes it out of the catalogs, is not committed yet when the nodes begin. So if one of them
//! fails, the coordinator's index is left INVALID, as PostgreSQL leaves it. DROP INDEX and REINDEX of such an index mend it on all
//! nodes, whatever each of them has of it.

use super::at_once::everywhere;
use super::follow::warn_of_loose_indexes;
use super::nodes::nodes;
use super::shard_definition::{self, definition_error};
use crate::catalog::{self, DistributedTable};
use crate::session::pool;
use pg::PgError;
use pg::catalog::table::{self, RelationLock};
use pg::catalog::uniqueness;
use pg::server::alter::show_changes;
use pg::server::maintenance::Maintenance;
use pg::server::utility::UtilityCall;
use pgrx::pg_sys::Oid;
use shardmap::NodeAddress;
use shardmap::definition::{Definition, Index};
use shardmap::shard_template::Template;
use std::cell::RefCell;
use std::rc::Rc;

/// A statement that is running.
struct Running {
    statement: usize,
    what: Maintenance,
    is_concurrent: bool,
    tables: Vec<Before>,
}

/// A table as it was before the statement.
struct Before {
    table: Rc<DistributedTable>,
    definition: Definition,
    /// Unique indexes that hold within each shard only.
    loose: Vec<String>,
}

// Not ended by a transaction's end: the statement commits on its way.
thread_local!(static RUNNING: RefCell<Vec<Running>> = const { RefCell::new(Vec::new()) });

/// Reads what is there before the statement; false if no distributed table is concerned. Nodes that cannot be reached make it
/// fail before anything is changed.
pub(super) fn begin(
    call: &UtilityCall,
    what: Maintenance,
    is_concurrent: bool,
    tables: Vec<Rc<DistributedTable>>,
) -> Result<bool, PgError> {
    let statement = call.id();
    RUNNING.with_borrow_mut(|running| running.retain(|one| one.statement != statement));
    if tables.is_empty() {
        return Ok(false);
    }
    let mut before = Vec::new();
    for table in tables {
        let asked = nodes(&table)?.into_iter();
        let asked = asked.map(|(node, parts)| (node, parts[0].0, "SELECT".to_owned())).collect();
        all_reached(everywhere(&table, asked, &mut |_| {})?)?;
        let definition =
            shard_definition::read(table.oid).map_err(|error| definition_error(&error))?;
        let loose = uniqueness::unique_indexes_without(table.oid, table.key.column);
        before.push(Before { table, definition, loose });
    }
    let running = Running { statement, what, is_concurrent, tables: before };
    RUNNING.with_borrow_mut(|all| all.push(running));
    Ok(true)
}

/// Has the shards do what PostgreSQL has done with the coordinator's table.
pub(super) fn finish(call: &UtilityCall) -> Result<(), PgError> {
    let statement = call.id();
    let running = RUNNING.with_borrow_mut(|running| {
        let at = running.iter().position(|one| one.statement == statement)?;
        Some(running.remove(at))
    });
    let Some(running) = running else { return Ok(()) };
    show_changes();
    for before in &running.tables {
        if table::describe(before.table.oid).is_none() {
            continue;
        }
        if running.is_concurrent {
            table::lock_relation(before.table.oid, RelationLock::ShareUpdateExclusive);
        }
        catalog::forget(Some(before.table.oid));
        let table = catalog::get(before.table.oid)?;
        let after = shard_definition::read(table.oid).map_err(|error| definition_error(&error))?;
        for statement in running.statements(before, &after) {
            on_shards(&table, &statement)?;
        }
        warn_of_loose_indexes(&table, &before.loose);
    }
    Ok(())
}

impl Running {
    /// The statements for each shard of a table.
    fn statements(&self, before: &Before, after: &Definition) -> Vec<Template> {
        let old = &before.definition;
        let was =
            |is: &Index| old.indexes.iter().find(|was| was.id == is.id || was.name == is.name);
        let create = |index: &Index| after.create_index(index, self.is_concurrent);
        let drop = |index: &Index| old.drop_index(index, self.is_concurrent);
        let usable = || after.indexes.iter().filter(|index| index.is_valid);
        match &self.what {
            Maintenance::CreateIndex(_) => {
                usable().filter(|is| was(is).is_none()).flat_map(create).collect()
            }
            Maintenance::DropIndex(_) => {
                let is_gone = |was: &&Index| !after.indexes.iter().any(|is| is.id == was.id);
                old.indexes.iter().filter(is_gone).map(drop).collect()
            }
            Maintenance::Cluster(_) => vec![after.cluster()],
            Maintenance::ClusterAll => {
                let is_clustered = after.indexes.iter().any(|index| index.is_clustered);
                is_clustered.then(|| after.cluster()).into_iter().collect()
            }
            Maintenance::ReindexIndex(..)
            | Maintenance::ReindexTable(_)
            | Maintenance::ReindexMany(_) => {
                // What had failed is there on some nodes only.
                let mended = usable().filter_map(|is| {
                    let was = was(is).filter(|was| !was.is_valid)?;
                    Some([vec![drop(was)], create(is)].concat())
                });
                let mut statements: Vec<Template> = mended.flatten().collect();
                if let Maintenance::ReindexIndex(_, index) = self.what {
                    let named = old.indexes.iter().find(|was| was.id == index.to_u32());
                    statements.extend(
                        named
                            .filter(|was| was.is_valid)
                            .map(|was| old.reindex(was, self.is_concurrent)),
                    );
                } else {
                    statements.push(after.reindex_table(self.is_concurrent));
                }
                statements
            }
        }
    }
}

/// Runs a statement for each shard, on all its healthy placements: on each node one after the other, all nodes at once.
fn on_shards(table: &Rc<DistributedTable>, statement: &Template) -> Result<(), PgError> {
    let nodes = nodes(table)?;
    let longest = nodes.iter().map(|(_, parts)| parts.len()).max().unwrap_or(0);
    for number in 0..longest {
        let mut statements = Vec::new();
        for (node, parts) in &nodes {
            let Some((index, _)) = parts.get(number) else { continue };
            let filled = statement.fill(table.shard_id(*index).0);
            let sql = filled.map_err(|error| definition_error(&error.into()))?;
            statements.push((node.clone(), *index, sql));
        }
        all_reached(everywhere(table, statements, &mut |_| {})?)?;
    }
    Ok(())
}

fn all_reached(unreachable: Vec<(NodeAddress, PgError)>) -> Result<(), PgError> {
    match unreachable.first() {
        None => Ok(()),
        Some((node, error)) => Err(pool::connection_failed(node, error)
            .hint("All nodes with shards of the table must take part. Start the node, and give the statement again.")),
    }
}

/// The tables whose shards a statement is about.
pub(super) fn tables(named: &[Oid], must_own: bool) -> Result<Vec<Rc<DistributedTable>>, PgError> {
    let mut tables = Vec::new();
    for table in named.iter().filter_map(|oid| catalog::find(*oid)) {
        if table.map.is_empty() || (!must_own && table.check().is_err()) {
            continue;
        }
        table.check()?;
        // PostgreSQL refuses it to others, or leaves their tables out.
        let is_plain = table::describe(table.oid).is_some_and(|relation| relation.kind == b'r');
        if is_plain && table::is_owned_by_user(table.oid) {
            tables.push(table);
        }
    }
    Ok(tables)
}
