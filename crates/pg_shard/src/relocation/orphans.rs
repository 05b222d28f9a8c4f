//! Shards that a lost node may still have though their placements are elsewhere by now. The table `pgs_catalog.orphaned_shard` names
//! them. Nobody reads them, since no metadata lead there, and a visitor drops them when the node is back.

use super::group::Member;
use super::placements::{drop_shards, on_node};
use crate::catalog::{self, quote};
use crate::ddl;
use crate::functions::{change_metadata, literal};
use crate::transaction::NodeFailure;
use pg::PgError;
use pg::catalog::privileged;
use pg::server::lock::{Mode, ShardLock, try_lock_shard};
use shardmap::{NodeAddress, ShardId};

/// How long others queue behind a table that is to be dropped.
const PATIENCE: &str = "SET LOCAL lock_timeout = '1s'";

/// A table on a node that was a placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub(crate) shard: ShardId,
    pub(crate) node: NodeAddress,
    schema: String,
    name: String,
}

/// Notes that a node may have these shards.
pub(super) fn note(members: &[&Member], node: &NodeAddress) -> Result<(), PgError> {
    for member in members {
        let (table, shard) = (&member.table, member.shard().0);
        change_metadata(&format!(
            "INSERT INTO pgs_catalog.orphaned_shard (shard_id, node_name, node_port, schema_name, table_name) \
             VALUES ({shard}, {}, {}, {}, {}) ON CONFLICT DO NOTHING",
            literal(&node.host),
            node.port,
            literal(&table.schema),
            literal(&format!("{}_{shard}", table.name))
        ))?;
    }
    Ok(())
}

impl Orphan {
    /// All that are known.
    pub(crate) fn all() -> Result<Vec<Self>, PgError> {
        let mut found = Vec::new();
        if pg::catalog::table::relation_oid("pgs_catalog", "orphaned_shard").is_none() {
            return Ok(found);
        }
        let sql = "SELECT shard_id, node_name, node_port, schema_name, table_name FROM pgs_catalog.orphaned_shard ORDER BY 1, 2, 3";
        privileged::read_catalogs(|client| {
            for row in client.select(sql, None, &[])? {
                let text = |number| {
                    Ok::<_, pgrx::spi::Error>(row.get::<String>(number)?.unwrap_or_default())
                };
                found.push(Self {
                    shard: ShardId(row.get(1)?.unwrap_or_default()),
                    node: NodeAddress {
                        host: text(2)?.as_str().into(),
                        port: row.get(3)?.unwrap_or(0),
                    },
                    schema: text(4)?,
                    name: text(5)?,
                });
            }
            Ok::<(), pgrx::spi::Error>(())
        })
        .map_err(|error| PgError::internal(error.to_string()))?;
        Ok(found)
    }

    /// The name on the node, for the log.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }
}

/// Drops what a node still has of a shard, unless that is a placement again; false if the shard is in use now.
///
/// # Errors
///
/// If the node fails.
pub(crate) fn discard(orphan: &Orphan) -> Result<bool, NodeFailure> {
    // Whoever gives the shard a placement holds this to his end.
    if !try_lock_shard(ShardLock::Metadata(orphan.shard), Mode::Exclusive) {
        return Ok(false);
    }
    let placements = catalog::current_placements(orphan.shard);
    if !placements.iter().any(|placement| placement.node == orphan.node) {
        let mut statements = vec![PATIENCE.to_owned()];
        statements.extend(drop_shards(&[orphan.name()]));
        ddl::run_on(&orphan.node, &statements)?;
    }
    change_metadata(&format!(
        "DELETE FROM pgs_catalog.orphaned_shard WHERE shard_id = {} AND {}",
        orphan.shard.0,
        on_node(&orphan.node)
    ))
    .map_err(NodeFailure::Error)?;
    Ok(true)
}
