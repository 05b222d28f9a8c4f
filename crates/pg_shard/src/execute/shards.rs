//! Which shards a plan concerns now, and the SQL for them.

use crate::catalog::{self, DistributedTable};
use pg::exec::scan_io::ScanIo;
use pg::sys::plan::{Key, Piece};
use pg::sys::value::Hasher;
use pg::{PgError, SqlState};
use shardmap::tid::TidLayout;
use shardmap::{KeyValue, Prune};
use std::rc::Rc;

/// What decides the shards of a plan now, with the values at hand.
pub(crate) struct Pruned {
    /// The shards.
    pub(crate) shards: Vec<usize>,
    /// One key decides, and it is NULL.
    pub(crate) null_key: bool,
}

/// The shards that a plan concerns now.
pub(crate) fn prune(
    io: &mut ScanIo,
    prune: &Prune<Key>,
    table: &DistributedTable,
) -> Result<Pruned, PgError> {
    let mut null_key = false;
    let mut failed = None;
    let layout = TidLayout::for_shards(table.map.len());
    let shards = prune.shards(&table.map, &mut |key| match hasher(io, key) {
        _ if key.names_shards() => io.with_row_memory(|io| io.tid_shards(key, layout)),
        Ok(hasher) => {
            let value = io.with_row_memory(|io| io.key_value(key, &hasher));
            null_key = value == KeyValue::Null && matches!(prune, Prune::Key(_));
            value
        }
        Err(error) => {
            failed = Some(error);
            KeyValue::Null
        }
    });
    failed.map_or(Ok(Pruned { shards, null_key }), Err)
}

/// The hash function of a key.
pub(crate) fn hasher(io: &ScanIo, key: &Key) -> Result<Rc<Hasher>, PgError> {
    io.hasher(key).ok_or_else(|| {
        PgError::new(
            SqlState::UNDEFINED_FUNCTION,
            format!(
                "could not identify a hash function for type {}",
                pg::catalog::table::type_name(key.hash_type)
            ),
        )
    })
}

/// The SQL of a template for one shard group.
pub(crate) fn render(template: &[Piece], index: usize) -> Result<String, PgError> {
    let mut sql = String::with_capacity(256);
    for piece in template {
        match piece {
            Piece::Text(text) => sql.push_str(text),
            Piece::Index => sql.push_str(&index.to_string()),
            Piece::Object(oid, name) => {
                let table = catalog::get(*oid)?;
                let shard = table.shard_id(table.beside(index)).0;
                let name = shardmap::shard_template::shard_name(name, shard)
                    .map_err(|error| PgError::internal(error.to_string()))?;
                sql.push_str(&catalog::quote(&name));
            }
            Piece::Table(oid) => {
                let table = catalog::get(*oid)?;
                let index = table.beside(index);
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

/// The tables of a plan, as the metadata are now. PostgreSQL hears of changes when it locks a table, but not if the
/// transaction has the lock already.
pub(crate) fn tables(oids: &[pgrx::pg_sys::Oid]) -> Result<Vec<Rc<DistributedTable>>, PgError> {
    pg::server::transaction::accept_invalidations();
    oids.iter().map(|oid| catalog::get(*oid)).collect()
}
