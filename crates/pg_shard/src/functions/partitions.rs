//! Partitions of distributed tables: each is a distributed table beside the partitioned one, and on the nodes the shards of the partitions
//! are partitions of its shards.

use super::distribute::{Layout, Rows, create_foreign_keys, create_shards, register};
use super::store::store_rows;
use crate::catalog::{self, DistributedTable};
use crate::ddl;
use crate::ddl::partition_tree::partitions;
use crate::plan::lie_together;
use crate::transaction::{self, NodeFailure};
use pg::catalog::table::{self, RelationLock};
use pg::exec::copy::local;
use pg::print::template::qualified_name;
use pg::server::alter::{PartitionChange, PartitionChangeKind};
use pg::sys::error::raise;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use std::rc::Rc;

#[pg_extern]
fn master_create_worker_shards(table_name: &str, shard_count: i32, replication_factor: i32) {
    let layout = Layout::Spread { shard_count, replication_factor };
    raise(
        create_all_shards(table_name, &layout, Rows::None)
            .and_then(|()| create_foreign_keys(table::resolve(table_name, RelationLock::None))),
    );
}

/// Creates the shards of a table and of all its partitions.
pub(super) fn create_all_shards(name: &str, layout: &Layout, rows: Rows) -> Result<(), PgError> {
    let oid = table::resolve(name, RelationLock::None);
    create_shards(name, layout)?;
    ddl::placed::note(&[oid])?;
    adopt_all(oid, rows)
}

/// Makes distributed tables of the partitions of one that has got its shards.
fn adopt_all(parent: Oid, rows: Rows) -> Result<(), PgError> {
    for (partition, bound) in partitions(parent)? {
        adopt(parent, partition, &bound, rows)?;
    }
    Ok(())
}

fn adopt(parent: Oid, partition: Oid, bound: &str, rows: Rows) -> Result<(), PgError> {
    catalog::forget(Some(parent));
    let parent = catalog::get(parent)?;
    let known = catalog::find(partition).filter(|known| !known.is_detached());
    if let Some(known) = known {
        let both = [Rc::clone(&parent), Rc::clone(&known)];
        if known.map.len() != parent.map.len() || !lie_together(&both) {
            return Err(not_beside(&parent, &known));
        }
        return attach(&parent, &known, bound);
    }
    let has_rows = is_plain(partition) && local::has_rows(partition);
    if has_rows && rows == Rows::None {
        return Err(PgError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("cannot distribute table \"{}\": it holds rows", name_of(partition)),
        )
        .detail("Rows of the local table are not visible once the table is distributed.")
        .hint("create_distributed_table takes the rows along."));
    }
    register(partition, &parent.key_name)?;
    catalog::forget(Some(partition));
    create_all_shards(&qualified_name(partition), &Layout::Beside(Rc::clone(&parent)), rows)?;
    catalog::forget(Some(partition));
    let own = catalog::get(partition)?;
    attach(&parent, &own, bound)?;
    if has_rows {
        store_rows(partition)?;
    }
    create_foreign_keys(partition)
}

fn is_plain(table: Oid) -> bool {
    table::describe(table).is_some_and(|relation| relation.kind == b'r')
}

fn name_of(table: Oid) -> String {
    table::describe(table).map_or_else(String::new, |relation| relation.name)
}

fn not_beside(parent: &DistributedTable, partition: &DistributedTable) -> PgError {
    PgError::unsupported(
        format!(
            "cannot attach distributed table \"{}\" to distributed table \"{}\"",
            partition.name, parent.name
        ),
        "Make it a local table with undistribute_table, and attach that.",
    )
    .detail("The shards of both must lie beside each other.")
}

fn attach(
    parent: &DistributedTable,
    partition: &DistributedTable,
    bound: &str,
) -> Result<(), PgError> {
    on_both(parent, partition, &|table, part| {
        format!("ALTER TABLE {table} ATTACH PARTITION {part} {bound}")
    })
}

/// Runs a statement for each pair of shards.
fn on_both(
    parent: &DistributedTable,
    partition: &DistributedTable,
    statement: &dyn Fn(&str, &str) -> String,
) -> Result<(), PgError> {
    for index in 0..parent.map.len() {
        let sql = statement(&parent.shard_name(index), &partition.shard_name(index));
        for placement in parent.healthy(index) {
            ddl::run_on(&placement.node, std::slice::from_ref(&sql)).map_err(|failure| {
                match failure {
                    NodeFailure::Error(error) => {
                        let shards = [(parent, index), (partition, index)];
                        crate::naming::tell_as_table(error, &shards, &placement.node)
                    }
                    NodeFailure::Unreachable(error) => {
                        crate::session::pool::connection_failed(&placement.node, &error)
                    }
                }
            })?;
            transaction::note_written(parent, index, placement.id, &placement.node);
        }
    }
    Ok(())
}

/// A change of partitions is one of a table that has shards, which have to follow.
pub(crate) fn concerns(change: &PartitionChange) -> Result<bool, PgError> {
    let Some(parent) = catalog::find(change.parent).filter(|parent| parent.is_partitioned) else {
        return Ok(false);
    };
    if parent.map.is_empty() {
        return Ok(false);
    }
    parent.check()?;
    if change.kind == PartitionChangeKind::Attach
        && let Some(child) = change.child
    {
        ddl::triggers::check_partition(child)?;
    }
    Ok(true)
}

/// The shards follow a change that PostgreSQL has made here.
pub(crate) fn follow(change: &PartitionChange) -> Result<(), PgError> {
    let Some(child) = change.child else { return Ok(()) };
    if change.kind == PartitionChangeKind::Detach {
        let (parent, child) = (catalog::get(change.parent)?, catalog::get(child)?);
        return on_both(&parent, &child, &|table, part| {
            format!("ALTER TABLE {table} DETACH PARTITION {part}")
        });
    }
    let found = partitions(change.parent)?;
    let Some((_, bound)) = found.iter().find(|(partition, _)| *partition == child) else {
        return Ok(());
    };
    let is_known = catalog::find(child).is_some_and(|known| !known.is_detached());
    if change.kind == PartitionChangeKind::Create && is_known {
        // IF NOT EXISTS.
        return Ok(());
    }
    adopt(change.parent, child, bound, Rows::Any)
}
