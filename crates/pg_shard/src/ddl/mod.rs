//! Utility statements on distributed tables: COPY is carried out, DROP takes the shards along, and what would
//! change the definition of the local table only is refused.

/// Reading a table's definition from the catalogs.
mod shard_catalog;

/// VACUUM and ANALYZE.
mod statistics;

/// Statistics that are brought without being asked for.
mod fresh_statistics;

/// Types, functions and the like that a table needs.
mod needed;

/// Types, functions and the like as they are.
mod object_catalog;

/// Types, functions and the like follow when they change.
mod objects;

/// Roles as they are.
mod role_catalog;

/// What nodes have been given goes when it is dropped.
pub(crate) mod placed;

/// Roles follow when they change.
pub(crate) mod roles;

/// Tables while a dump is restored.
pub(crate) mod restoring;

/// Shards follow their table's definition.
pub(crate) mod follow;

/// Foreign keys of shards.
pub(crate) mod foreign_keys;

/// Tables that running statements may change.
pub(crate) mod watched;

/// Indexes that are built, rebuilt and dropped beside running statements.
mod maintenance;

/// A statement for each of several nodes at once.
mod at_once;

/// Statements for nodes and shards.
mod nodes;

/// Which partitions a table has.
pub(crate) mod partition_tree;

/// TRUNCATE.
mod truncate;

/// Which triggers a distributed table can have.
pub(crate) mod triggers;

/// What a shard of a table is made of.
pub(crate) mod shard_definition;

pub(crate) use self::at_once::ask_nodes;
pub(crate) use self::fresh_statistics::keep_fresh;
pub(crate) use self::nodes::{on_shards, run_on};
pub(crate) use self::shard_definition::definition_error;

use crate::catalog::{self, DistributedTable};
use crate::client_decision;
use crate::mark;
use crate::naming;
use crate::session::pool;
use crate::transaction::NodeFailure;
use pg::catalog::privileged;
use pg::catalog::table;
use pg::catalog::type_parts;
use pg::server::maintenance::Maintenance;
use pg::server::utility::{Outcome, TablesOf, Utility, UtilityCall};
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shard_definition::ShardDefinition;
use std::cell::Cell;
use std::rc::Rc;

/// Has COPY TO read the shards. A missing right is told first, as by PostgreSQL: the query would be told that row security is
/// in its way.
fn copy_to(call: &mut UtilityCall, distributed: &DistributedTable) -> Result<(), PgError> {
    if !table::may_select_any(distributed.oid) {
        let message = format!("permission denied for table {}", distributed.name);
        return Err(PgError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    call.copy_as_query(distributed.oid);
    Ok(())
}

/// Before a utility statement runs.
pub(crate) fn utility(call: &mut UtilityCall) -> Result<Outcome, PgError> {
    if catalog::metadata().is_none() {
        return Ok(Outcome::PassOn);
    }
    restoring::end();
    let is_watched = objects::watch(call)? | roles::watch(call)?;
    let outcome = utility_on_tables(call)?;
    Ok(if is_watched && outcome == Outcome::PassOn { Outcome::ThenFinish } else { outcome })
}

/// The same, as far as it is about tables.
fn utility_on_tables(call: &mut UtilityCall) -> Result<Outcome, PgError> {
    DROPS_BELOW_TABLES.set(call.drops_below_tables());
    if let Some((what, is_concurrent)) = call.maintenance() {
        return maintain(call, what, is_concurrent);
    }
    match call.read() {
        // The rows of a dump wait in the restored table for its shards.
        Utility::CopyFrom(oid) if restoring::is_restored(oid) => {}
        Utility::CopyFrom(oid) if catalog::find(oid).is_some() => {
            crate::copy::copy_from(call, oid)?;
            return Ok(Outcome::Done);
        }
        Utility::CopyTo(oid) => {
            if let Some(table) = catalog::find(oid) {
                copy_to(call, &table)?;
            }
        }
        Utility::Truncate { tables, cascades } => truncate::truncate(&tables, cascades)?,
        Utility::Vacuum(_) => return Ok(Outcome::ThenFinish),
        Utility::EndPrepared => {
            client_decision::begin();
            return Ok(Outcome::ThenFinish);
        }
        Utility::Define(command, tables) => return define(call, command, &tables, true),
        Utility::CheckDomain(_, domain) if objects::is_watched(domain) => {}
        Utility::CheckDomain(command, domain) => refuse_check(command, domain)?,
        Utility::DefineAll(command, which) => {
            return define(call, command, &tables_of(&which), false);
        }
        Utility::DropExtension { cascade } => drop_extension(cascade)?,
        Utility::Other if call.drops_below_tables() => {
            return define(call, "DROP ... CASCADE", &catalog::distributed_tables(), false);
        }
        Utility::Other if call.set_constraints().is_some() => return Ok(Outcome::ThenFinish),
        Utility::CopyFrom(_) | Utility::Other => {}
    }
    Ok(Outcome::PassOn)
}

/// A statement about indexes, which the shards repeat.
fn maintain(
    call: &UtilityCall,
    what: Maintenance,
    is_concurrent: bool,
) -> Result<Outcome, PgError> {
    let tables = match &what {
        Maintenance::CreateIndex(table)
        | Maintenance::DropIndex(table)
        | Maintenance::ReindexIndex(table, _)
        | Maintenance::ReindexTable(table)
        | Maintenance::Cluster(table) => maintenance::tables(&[*table], true)?,
        Maintenance::ReindexMany(which) => maintenance::tables(&tables_of(which), false)?,
        Maintenance::ClusterAll => maintenance::tables(&catalog::distributed_tables(), false)?,
    };
    let clustered = matches!(what, Maintenance::Cluster(_)).then(|| tables.clone());
    let is_ours = maintenance::begin(call, what, is_concurrent, tables)?;
    if let Some(clustered) = clustered.filter(|_| is_ours) {
        follow::watch(call, clustered, true)?;
    }
    Ok(if is_ours { Outcome::ThenFinish } else { Outcome::PassOn })
}

/// A statement that changes the definition of distributed tables: their shards follow, or it is refused. Tables that it names
/// are locked.
fn define(
    call: &UtilityCall,
    command: &str,
    tables: &[Oid],
    names: bool,
) -> Result<Outcome, PgError> {
    let mut with_shards: Vec<Rc<DistributedTable>> = tables
        .iter()
        .filter_map(|oid| catalog::find(*oid))
        .filter(|table| !table.map.is_empty())
        .collect();
    with_shards.sort_by_key(|table| table.oid.to_u32());
    with_shards.dedup_by_key(|table| table.oid);
    if with_shards.is_empty() {
        return Ok(restoring::begin(command));
    }
    // PostgreSQL refuses it unless the table is partitioned, and then the new partition gets its shards afterwards; see
    // `functions/partitions.rs`.
    if command == "CREATE TABLE ... PARTITION OF" {
        return Ok(Outcome::PassOn);
    }
    let is_foreign = |table: &Rc<DistributedTable>| {
        table::describe(table.oid).is_some_and(|relation| relation.kind == b'f')
    };
    if !names {
        with_shards.retain(|table| !is_foreign(table) && table.check().is_ok());
    }
    if !is_followed(command) || with_shards.iter().any(is_foreign) {
        refuse(command, tables)?;
    }
    if let Some(subcommand) = call.local_subcommand() {
        refuse(subcommand, tables)?;
    }
    if let Some(kind) = call.trigger_type() {
        with_shards.iter().try_for_each(|table| triggers::check_kind(table.oid, kind))?;
        return Ok(Outcome::PassOn);
    }
    // Row security is the coordinator's: it has the nodes check what the policies say.
    if command.ends_with(" POLICY") {
        return Ok(Outcome::PassOn);
    }
    // A foreign key goes with what it refers to.
    let referring: Vec<Rc<DistributedTable>> = with_shards
        .iter()
        .flat_map(|table| foreign_keys::referrers(table.oid))
        .filter(|oid| !with_shards.iter().any(|table| table.oid == *oid))
        .filter_map(catalog::find)
        .filter(|table| table.check().is_ok())
        .collect();
    follow::watch(call, with_shards, names)?;
    follow::watch_too(call, referring)?;
    Ok(Outcome::ThenFinish)
}

/// The shards can follow a statement of this kind.
fn is_followed(command: &str) -> bool {
    matches!(
        command,
        "ALTER TABLE"
            | "ALTER ... RENAME"
            | "ALTER TABLE ... SET SCHEMA"
            | "CREATE INDEX"
            | "DROP INDEX"
            | "CREATE STATISTICS"
            | "ALTER STATISTICS"
            | "CREATE POLICY"
            | "CREATE TRIGGER"
            | "COMMENT"
            | "DROP ... CASCADE"
            | "REASSIGN OWNED"
    ) || command.starts_with("GRANT")
        || command.starts_with("REVOKE")
}

/// After PostgreSQL has run a statement of which [`utility`] wanted more.
pub(crate) fn finish_utility(call: &mut UtilityCall) -> Result<(), PgError> {
    restoring::end();
    let is_followed = follow::finish(call)?;
    maintenance::finish(call)?;
    objects::finish(call)?;
    roles::finish(call)?;
    if is_followed {
        return Ok(());
    }
    if let Some(set) = call.set_constraints() {
        return crate::transaction::set_constraints(&set);
    }
    match call.read() {
        Utility::Vacuum(vacuum) => statistics::on_shards(&vacuum),
        Utility::EndPrepared => crate::resolver::end_now(),
        _ => Ok(()),
    }
}

/// The first table among these that has shards.
fn first_with_shards(tables: &[Oid]) -> Option<Rc<DistributedTable>> {
    tables.iter().filter_map(|oid| catalog::find(*oid)).find(|table| !table.map.is_empty())
}

/// Refuses a check of stored values of a domain that distributed tables have: it would look at the coordinator's empty tables.
fn refuse_check(command: &str, domain: Oid) -> Result<(), PgError> {
    let mut tables = catalog::distributed_tables();
    tables.retain(|oid| type_parts::has_values_of(*oid, domain));
    let Some(table) = first_with_shards(&tables) else { return Ok(()) };
    let hint = if command.contains("CONSTRAINT") && !command.contains("VALIDATE") {
        "Add the constraint as NOT VALID, here and on the workers, and look for such values before; or make the table a local one \
         with undistribute_table, alter the domain on all nodes, and distribute the table again."
    } else {
        "Make the table a local one with undistribute_table, alter the domain on all nodes, and distribute the table again with \
         create_distributed_table."
    };
    Err(PgError::unsupported(
        format!(
            "cannot execute {command} while distributed table \"{}\" has values of the domain",
            table.name
        ),
        hint,
    )
    .detail("The statement would check the coordinator's empty table but none of its shards."))
}

/// Refuses what would reach the local table only.
fn refuse(command: &str, tables: &[Oid]) -> Result<(), PgError> {
    let Some(table) = first_with_shards(tables) else { return Ok(()) };
    Err(PgError::unsupported(
        format!("cannot execute {command} on distributed table \"{}\"", table.name),
        match command {
            "REASSIGN OWNED" => "Give the other objects to the role one by one, or drop the distributed tables first.",
            "CREATE PUBLICATION" | "ALTER PUBLICATION" => {
                "Publish the shards on the workers, and only local tables here."
            }
            "CREATE TRIGGER" => "Triggers need a distributed table that is no foreign one.",
            "CREATE RULE" => "A table with rules cannot be distributed. Use a trigger.",
            _ if command.contains("INHERIT") => "Create a table of its own; CREATE TABLE ... (LIKE ...) copies the columns.",
            _ => "Make it a local table with undistribute_table, change it, and distribute it again with \
                  create_distributed_table, all in one transaction.",
        },
    )
    .detail("The statement would change the coordinator's empty table but none of its shards."))
}

/// The distributed tables among those that a statement means without naming them.
fn tables_of(which: &TablesOf) -> Vec<Oid> {
    let mut tables = catalog::distributed_tables();
    let is_meant = |oid: &Oid| {
        table::describe(*oid).is_some_and(|relation| match which {
            TablesOf::Schemas(schemas) => schemas.contains(&relation.namespace),
            TablesOf::Roles(roles) => roles.contains(&relation.owner),
            TablesOf::Database => true,
        })
    };
    tables.retain(is_meant);
    tables
}

/// DROP EXTENSION, guarded as in pg_shard 1.2.
fn drop_extension(cascade: bool) -> Result<(), PgError> {
    if cascade {
        // The tables stay, as local ones: PostgreSQL would drop them with the access method.
        mark::remove_all()?;
    }
    if catalog::distributed_tables().is_empty() {
        return Ok(());
    }
    if cascade {
        pg::sys::error::notice(
            PgError::new(SqlState::SUCCESSFUL_COMPLETION, "shards remain on worker nodes")
                .detail("Shards created by the extension are not removed by DROP EXTENSION."),
        );
        return Ok(());
    }
    Err(PgError::new(
        SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
        "cannot drop extension pg_shard because other objects depend on it",
    )
    .detail("Existing distributed tables depend on extension pg_shard")
    .hint("Use DROP ... CASCADE to drop the dependent objects too."))
}

thread_local! {
    /// The utility statement that began last drops types, functions or the like with what depends on them.
    static DROPS_BELOW_TABLES: Cell<bool> = const { Cell::new(false) };
}

/// A column goes with its type, say: the shards would keep it.
///
/// A statement that drops tables or schemas may take column and table together, in any order, and is let through.
pub(crate) fn on_drop_column(table: Oid) -> Result<(), PgError> {
    if DROPS_BELOW_TABLES.get() && !watched::is_watched(table) {
        return refuse("DROP ... CASCADE", &[table]);
    }
    Ok(())
}

/// A relation is being dropped: of a distributed table the shards and the metadata go too.
pub(crate) fn on_drop(oid: Oid) -> Result<(), PgError> {
    if oid.to_u32() < 16384 || catalog::metadata().is_none() {
        return Ok(());
    }
    match catalog::find(oid) {
        // What stands under its OID is not known to be its own.
        Some(table) if !table.is_detached() => mark::while_dropping(oid, || forget_table(&table)),
        _ => Ok(()),
    }
}

/// Drops a table's shards, and what the metadata say of it.
pub(crate) fn forget_table(table: &Rc<DistributedTable>) -> Result<(), PgError> {
    drop_shards(table)?;
    privileged::run(&format!(
        "DELETE FROM pgs_distribution_metadata.shard_placement WHERE shard_id IN \
               (SELECT id FROM pgs_distribution_metadata.shard WHERE relation_id = {0}); \
             DELETE FROM pgs_distribution_metadata.shard WHERE relation_id = {0}; \
             DELETE FROM pgs_distribution_metadata.partition WHERE relation_id = {0}; \
             DELETE FROM pgs_catalog.statistics WHERE relation_id = {0}",
        table.oid.to_u32()
    ))
}

/// Drops the shards on all nodes that can be reached; what stays behind is told.
fn drop_shards(table: &Rc<DistributedTable>) -> Result<(), PgError> {
    let mut per_node: Vec<(shardmap::NodeAddress, Vec<String>)> = Vec::new();
    for (index, placements) in table.placements.iter().enumerate() {
        let kind = if table::describe(table.oid).is_some_and(|relation| relation.kind == b'f') {
            "FOREIGN TABLE"
        } else {
            "TABLE"
        };
        let sql = format!("DROP {kind} IF EXISTS {}", table.shard_name(index));
        for placement in placements {
            match per_node.iter_mut().find(|(node, _)| *node == placement.node) {
                Some((_, list)) => list.push(sql.clone()),
                None => per_node.push((placement.node.clone(), vec![sql.clone()])),
            }
        }
    }
    for (node, mut statements) in per_node {
        // Foreign keys that referred to the table are gone here, or go with it.
        let on_node = |index: &usize| table.placements[*index].iter().any(|one| one.node == node);
        let names = (0..table.map.len()).filter(on_node).map(|index| table.shard_name(index));
        statements.insert(0, foreign_keys::drop_referring(&names.collect::<Vec<_>>()));
        if !shardmap::metadata::is_plausible(&node) {
            pg::sys::error::warning(
                PgError::new(SqlState::WARNING, format!("there can be no node \"{node}\"")).hint(
                    format!(
                        "If shards of table \"{}\" are somewhere, they remain there.",
                        table.name
                    ),
                ),
            );
            continue;
        }
        match run_on(&node, &statements) {
            Ok(()) => {}
            Err(NodeFailure::Unreachable(error)) => {
                pg::sys::error::warning(
                    pool::connection_failed(&node, &error)
                        .hint(format!("The shards of table \"{}\" remain there.", table.name)),
                );
            }
            Err(NodeFailure::Error(error)) => {
                let named: Vec<(&DistributedTable, usize)> =
                    (0..table.map.len()).filter(on_node).map(|index| (&**table, index)).collect();
                return Err(naming::tell_as_table(error, &named, &node));
            }
        }
    }
    Ok(())
}

/// What the shards of a table are made of; printed so that any session reads it alike.
pub(crate) fn definition(oid: Oid) -> Result<ShardDefinition, PgError> {
    ShardDefinition::read(oid).map_err(|error| definition_error(&error))
}
