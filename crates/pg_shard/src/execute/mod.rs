//! Execution: our scan node, from the plan's private part to rows.

/// Rows computed here, sent to their shards.
mod insert;

/// Rows from one or many shards.
mod read;

/// Rows on their way to the shards of one table.
pub(crate) mod sink;

/// A statement that changes one shard.
pub(crate) mod write;

use crate::catalog::{self, DistributedTable};
use crate::plan::data::Plan;
use pg::PgError;
use pg::plan::PlanReader;
use pg::query::Key;
use pg::scan::{Scan, ScanIo};
use pg::template::Piece;
use pg::value::Hasher;
use shardmap::{KeyValue, Prune};
use std::rc::Rc;

/// Makes the scan of a plan.
pub(crate) fn begin(
    mut reader: PlanReader,
    io: &mut ScanIo,
    explain_only: bool,
) -> Result<Box<dyn Scan>, PgError> {
    Ok(match Plan::read(&mut reader) {
        Plan::Routed(plan) if plan.is_write() => {
            io.set_plain_sources();
            Box::new(write::RoutedWrite::new(plan))
        }
        Plan::Routed(plan) => {
            io.set_plain_sources();
            Box::new(read::Read::routed(plan))
        }
        Plan::TableScan(plan) => {
            io.set_sources(&plan.remote, plan.sources.clone());
            Box::new(read::Read::table(plan))
        }
        Plan::InsertedRows(plan) => {
            io.set_plain_sources();
            Box::new(insert::InsertRows::new(plan, explain_only))
        }
    })
}

/// The shards that a plan concerns now, with the values at hand.
pub(crate) fn prune(
    io: &mut ScanIo,
    prune: &Prune<Key>,
    table: &DistributedTable,
) -> Result<Vec<usize>, PgError> {
    let mut failed = None;
    let shards = prune.shards(&table.map, &mut |key| match Hasher::find(
        key.family,
        key.hash_type,
        key.collation,
    ) {
        Some(mut hasher) => io.with_row_memory(|io| io.key_value(key, &mut hasher)),
        None => {
            failed = Some(PgError::new(
                pg::SqlState(*b"42883"),
                format!(
                    "could not identify a hash function for type {}",
                    pg::table::type_name(key.hash_type)
                ),
            ));
            KeyValue::Null
        }
    });
    failed.map_or(Ok(shards), Err)
}

/// The SQL of a template for one shard group.
pub(crate) fn render(template: &[Piece], index: usize) -> Result<String, PgError> {
    let mut sql = String::with_capacity(256);
    for piece in template {
        match piece {
            Piece::Text(text) => sql.push_str(text),
            Piece::Table(oid) => {
                let table = catalog::get(*oid)?;
                if index >= table.map.len() {
                    return Err(PgError::internal(format!(
                        "table \"{}\" has fewer shards than the tables it is joined with",
                        table.name
                    )));
                }
                sql.push_str(&table.shard_name(index));
            }
        }
    }
    Ok(sql)
}

/// The tables of a plan, as the metadata are now.
pub(crate) fn tables(oids: &[pgrx::pg_sys::Oid]) -> Result<Vec<Rc<DistributedTable>>, PgError> {
    oids.iter().map(|oid| catalog::get(*oid)).collect()
}
