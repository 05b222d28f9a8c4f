//! Foreign keys of distributed tables.
//!
//! The nodes enforce them, shard by shard, so each row must lie on the node of the row that it refers to: in a table that is cut
//! and placed alike, if both distribution columns are part of the key, or in a reference table that has a placement there. Others
//! are refused.
//!
//! A local table may refer to a distributed one, which is what there is before it is distributed itself. PostgreSQL then checks its
//! rows here, by queries that read the shards, and acts on them when a statement deletes or changes what they refer to. Where that happens
//! on the nodes, by another foreign key, nobody would look here, so `links.rs` refuses it.

use super::nodes::{on_shards, peers};
use super::shard_definition::{self, definition_error};
use super::triggers;
use crate::catalog::{self, DistributedTable};
use crate::links::{has_partitions, keys_of, keys_to, name_of};
use pg::PgError;
use pg::catalog::foreign_keys::{ForeignKey, links};
use pg::catalog::trigger::trigger_types;
use pgrx::pg_sys::Oid;
use shardmap::shard_template::Template;

/// Actions of a foreign key, as `pg_constraint` has them.
const SET_NULL: u8 = b'n';
const SET_DEFAULT: u8 = b'd';

/// The distributed tables with shards that refer to this one directly.
pub(super) fn referrers(table: Oid) -> Vec<Oid> {
    let mut referrers: Vec<Oid> = links(table)
        .into_iter()
        .filter(|link| link.is_incoming && link.other != table)
        .map(|link| link.other)
        .filter(|other| catalog::find(*other).is_some_and(|other| !other.map.is_empty()))
        .collect();
    referrers.dedup();
    referrers
}

/// A table is about to be distributed: what it refers to must be distributed already.
pub(crate) fn check_before_distribution(table: Oid) -> Result<(), PgError> {
    let keys = keys_of(table);
    let local =
        keys.iter().find(|key| key.referenced != table && catalog::find(key.referenced).is_none());
    let Some(key) = local else { return Ok(()) };
    let other = name_of(key.referenced);
    Err(PgError::unsupported(
        format!(
            "cannot distribute table \"{}\": foreign key \"{}\" refers to local table \"{other}\"",
            name_of(table),
            key.name
        ),
        format!(
            "Distribute table \"{other}\" first: by the column that the foreign key has beside this table's distribution column, \
             or as a reference table with create_reference_table."
        ),
    )
    .detail("The nodes would have no rows to check it against."))
}

/// A distributed table becomes a local one: no other distributed table may refer to it.
pub(crate) fn check_before_undistribution(table: Oid) -> Result<(), PgError> {
    let keys = keys_to(table);
    let Some(key) = keys.iter().find(|key| catalog::find(key.table).is_some()) else {
        return Ok(());
    };
    Err(PgError::unsupported(
        format!(
            "cannot undistribute table \"{}\": foreign key \"{}\" of distributed table \"{}\" refers to it",
            name_of(table),
            key.name,
            name_of(key.table)
        ),
        "Undistribute that table first, or drop the foreign key.",
    ))
}

/// The foreign keys of a table can be enforced by the nodes.
pub(crate) fn check(table: &DistributedTable) -> Result<(), PgError> {
    triggers::check_keys(table.oid, &trigger_types(table.oid))?;
    keys_of(table.oid).iter().try_for_each(|key| check_key(table, key))
}

fn check_key(table: &DistributedTable, key: &ForeignKey) -> Result<(), PgError> {
    let refused = |detail: String, hint: String| {
        Err(PgError::unsupported(
            format!(
                "cannot create foreign key \"{}\" of distributed table \"{}\"",
                key.name, table.name
            ),
            hint,
        )
        .detail(detail))
    };
    if has_partitions(table.oid) || has_partitions(key.referenced) {
        return refused(
            "One of the tables is partitioned, or a partition.".to_owned(),
            "Leave the foreign key out, and check the reference in the application.".to_owned(),
        );
    }
    let Some(other) = catalog::find(key.referenced) else {
        let name = name_of(key.referenced);
        return refused(
            format!("It refers to local table \"{name}\", whose rows the nodes do not have."),
            format!(
                "Make \"{name}\" a reference table with create_reference_table, or distribute it beside this table."
            ),
        );
    };
    other.check()?;
    if other.map.is_empty() {
        return Err(other.no_shards());
    }
    if other.map.len() == 1 {
        return check_nodes(table, &other, key);
    }
    let name = &other.name;
    let beside = format!(
        "Distribute both tables by columns of the foreign key, one beside the other: create_distributed_table(..., \
         colocate_with => '{name}'). Or make \"{name}\" a reference table with create_reference_table."
    );
    if table.map.len() == 1 || !are_cut_alike(table, &other) {
        let detail = format!("Its rows and those of table \"{name}\" lie on different nodes.");
        return refused(detail, beside);
    }
    if !key.columns.contains(&(table.key.column, other.key.column)) {
        return refused(
            format!(
                "The distribution column \"{}\" does not refer to \"{}\", the distribution column of table \"{name}\".",
                table.key_name, other.key_name
            ),
            beside,
        );
    }
    let sets_key = |action: u8, columns: &[i16]| {
        matches!(action, SET_NULL | SET_DEFAULT)
            && (columns.is_empty() || columns.contains(&table.key.column))
    };
    if sets_key(key.on_delete, &key.set_columns) || sets_key(key.on_update, &[]) {
        return refused(
            format!("It would set the distribution column \"{}\", and rows would have to move.", table.key_name),
            "Name the other columns: ON DELETE SET NULL (column). ON UPDATE can be NO ACTION, RESTRICT or CASCADE.".to_owned(),
        );
    }
    check_nodes(table, &other, key)
}

fn are_cut_alike(table: &DistributedTable, other: &DistributedTable) -> bool {
    table.key.family == other.key.family
        && table.key.collation == other.key.collation
        && table.map.is_cut_like(&other.map)
}

/// Wherever a shard has a healthy placement, what it refers to has one too; of tables that are cut alike also the other way round.
fn check_nodes(
    table: &DistributedTable,
    other: &DistributedTable,
    key: &ForeignKey,
) -> Result<(), PgError> {
    let lacks = |one: &DistributedTable, two: &DistributedTable, index: usize| {
        let mut nodes = one.healthy(index).map(|placement| placement.node.clone());
        nodes.find(|node| !two.healthy(two.beside(index)).any(|placement| placement.node == *node))
    };
    for index in 0..table.map.len() {
        let node = lacks(table, other, index).map(|node| (&other.name, node)).or_else(|| {
            let is_mutual = other.map.len() > 1;
            is_mutual.then(|| lacks(other, table, index)).flatten().map(|node| (&table.name, node))
        });
        if let Some((name, node)) = node {
            return Err(PgError::unsupported(
                format!(
                    "cannot create foreign key \"{}\" of distributed table \"{}\"",
                    key.name, table.name
                ),
                format!(
                    "Repair the placements of the tables that are inactive; or distribute the table anew, with colocate_with => '{}'.",
                    other.name
                ),
            )
            .detail(format!("Table \"{name}\" has no healthy placement beside it on node \"{node}\".")));
        }
    }
    Ok(())
}

/// Gives the shards of a table its foreign keys; the nodes check the rows that are there.
pub(crate) fn create(table: &DistributedTable) -> Result<(), PgError> {
    if !table.is_linked {
        return Ok(());
    }
    check(table)?;
    let definition = shard_definition::read(table.oid).map_err(|error| definition_error(&error))?;
    on_shards(table, &definition.create_foreign_keys(&|_| true))
}

/// Drops whatever foreign keys refer to these shards, which are about to go. The names are quoted and qualified.
pub(crate) fn drop_referring(shards: &[String]) -> String {
    let names: Vec<String> = shards.iter().map(|name| crate::functions::literal(name)).collect();
    let body = format!(
        "DECLARE k record; BEGIN FOR k IN SELECT c.conrelid::pg_catalog.regclass AS relation, c.conname FROM pg_catalog.pg_constraint c \
         WHERE c.contype = 'f' AND c.conparentid = 0 AND c.conrelid <> c.confrelid \
         AND c.confrelid IN (SELECT pg_catalog.to_regclass(n) FROM pg_catalog.unnest(ARRAY[{}]) AS n) \
         LOOP EXECUTE pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', k.relation, k.conname); END LOOP; END",
        names.join(", ")
    );
    format!("DO {}", crate::functions::literal(&body))
}

/// Foreign keys that come back when a placement is repaired: the shard's own, and those of others that refer to it. Each belongs to a
/// table, a shard of it, and a statement for this shard.
pub(crate) fn after_repair(
    table: &DistributedTable,
    index: usize,
    is_healthy: &dyn Fn(&DistributedTable, usize) -> bool,
) -> Result<Vec<String>, PgError> {
    let read = |oid| shard_definition::read(oid).map_err(|error| definition_error(&error));
    let mut statements = Vec::new();
    let mut add = |owner: &DistributedTable, index: usize, templates: Vec<Template>| {
        for template in templates {
            let filled = template.fill_beside(owner.shard_id(index).0, &peers(index));
            statements.push(filled.map_err(|error| definition_error(&error.into()))?);
        }
        Ok::<(), PgError>(())
    };
    let own = read(table.oid)?.restore_foreign_keys(&|other| {
        let other = Oid::from_u32(other);
        other == table.oid
            || catalog::find(other).is_some_and(|other| is_healthy(&other, other.beside(index)))
    });
    add(table, index, own)?;
    for referrer in referrers(table.oid) {
        let other = catalog::get(referrer)?;
        let shards = if table.map.len() == 1 { 0..other.map.len() } else { index..index + 1 };
        for beside in shards.filter(|beside| is_healthy(&other, *beside)) {
            let keys = read(referrer)?.restore_foreign_keys(&|one| one == table.oid.to_u32());
            add(&other, beside, keys)?;
        }
    }
    // A new foreign key brings triggers to the table that it refers to.
    let mut referenced: Vec<Oid> = keys_of(table.oid).iter().map(|key| key.referenced).collect();
    referenced.push(table.oid);
    for other in referenced.into_iter().filter_map(catalog::find) {
        let beside = if other.oid == table.oid { index } else { other.beside(index) };
        if other.oid == table.oid || is_healthy(&other, beside) {
            let off = read(other.oid)?.disable_system_triggers();
            add(&other, beside, off.into_iter().collect())?;
        }
    }
    Ok(statements)
}
