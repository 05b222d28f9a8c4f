//! Shards follow their table when its definition changes.
//!
//! The definition is read before PostgreSQL runs the statement on the coordinator's table and once more afterwards;
//! `shardmap/src/definition/change.rs` says what the shards need. That goes to all healthy placements in the client's transaction,
//! so a definition changes everywhere or nowhere, and ROLLBACK undoes it. What the statement was does not matter, so a column
//! that goes with its type is followed as well. Inactive placements are left alone: repair creates them anew.

use super::foreign_keys;
use super::nodes::{catalog_entry, failed, nodes, on_shards, run_on};
use super::partition_tree::tree;
use super::placed;
use super::roles;
use super::shard_definition::{self, definition_error};
use super::watched::{WATCHED, Watched};
use crate::catalog::DistributedTable;
use crate::functions::literal;
use crate::mark;
use pg::catalog::privileged;
use pg::catalog::table::{self, RelationLock};
use pg::catalog::uniqueness;
use pg::exec::triggers;
use pg::server::alter::show_changes;
use pg::server::lock::{Mode, ShardLock, lock_shard};
use pg::server::utility::UtilityCall;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::definition::change::{Change, change};
use shardmap::definition::conversion::Conversion;
use shardmap::definition::refusal::Refusal;
use shardmap::definition::{Column, Definition};
use std::rc::Rc;

/// Reads the definitions of tables that a statement is about to change.
///
/// `locks` keeps others from changing them meanwhile. PostgreSQL refuses the statement itself to whoever may not give it.
pub(super) fn watch(
    call: &UtilityCall,
    tables: Vec<Rc<DistributedTable>>,
    locks: bool,
) -> Result<(), PgError> {
    let statement = call.id();
    WATCHED.with_borrow_mut(|watched| watched.retain(|one| one.statement != statement));
    watch_each(call, tables, locks)
}

/// The same for tables that change with those that the statement is about.
pub(super) fn watch_too(
    call: &UtilityCall,
    tables: Vec<Rc<DistributedTable>>,
) -> Result<(), PgError> {
    watch_each(call, tables, false)
}

fn watch_each(
    call: &UtilityCall,
    tables: Vec<Rc<DistributedTable>>,
    locks: bool,
) -> Result<(), PgError> {
    let statement = call.id();
    for table in tables {
        table.check()?;
        let is_own = table::is_owned_by_user(table.oid);
        if locks && is_own {
            table::lock_relation(table.oid, RelationLock::ShareUpdateExclusive);
        }
        let before = shard_definition::read(table.oid).map_err(|error| definition_error(&error))?;
        let is_meant = call.is_about(table.oid);
        let conversions =
            if is_own && is_meant { conversions(call, table.oid) } else { Vec::new() };
        let is_suspended = is_own && is_meant && call.may_rewrite();
        if is_suspended {
            tree(table.oid)?.into_iter().try_for_each(mark::suspend)?;
        }
        let loose = uniqueness::unique_indexes_without(table.oid, table.key.column);
        let watched = Watched { statement, table, before, conversions, loose, is_suspended };
        WATCHED.with_borrow_mut(|all| all.push(watched));
    }
    Ok(())
}

/// How the statement has values of the table's columns become others.
fn conversions(call: &UtilityCall, table: Oid) -> Vec<Conversion> {
    let converted = call.conversions(table).into_iter();
    let generated = call.regenerated(table).into_iter();
    converted
        .map(|(column, expression)| Conversion::Using { column, expression })
        .chain(generated.map(|column| Conversion::Generated { column }))
        .collect()
}

/// Has the shards follow what a statement has changed; false if it watched no table.
pub(super) fn finish(call: &UtilityCall) -> Result<bool, PgError> {
    let statement = call.id();
    let mine = WATCHED.with_borrow_mut(|watched| {
        let (mine, others): (Vec<_>, Vec<_>) =
            watched.drain(..).partition(|one| one.statement == statement);
        *watched = others;
        mine
    });
    if mine.is_empty() {
        return Ok(false);
    }
    show_changes();
    let mut asked = Vec::new();
    for watched in &mine {
        // The table may have gone with the statement, and its shards with it.
        if table::describe(watched.table.oid).is_some() {
            asked.extend(follow(watched)?);
        }
    }
    // What a foreign key depends on goes after it, and comes before it, whatever table that is of.
    for asked in &asked {
        on_shards(&*catalog_entry(&asked.watched.table)?, &asked.change.foreign_keys.dropped)?;
    }
    for asked in &asked {
        apply(asked)?;
    }
    for asked in &asked {
        on_shards(&*catalog_entry(&asked.watched.table)?, &asked.change.foreign_keys.made)?;
    }
    Ok(true)
}

/// What a statement asks of the shards of a table.
struct Asked<'a> {
    watched: &'a Watched,
    after: Definition,
    change: Change,
}

/// Finds out what the shards need.
fn follow(watched: &Watched) -> Result<Option<Asked<'_>>, PgError> {
    let table = &watched.table;
    if watched.is_suspended {
        tree(table.oid)?.into_iter().try_for_each(mark::put)?;
    }
    let after = shard_definition::read(table.oid).map_err(|error| definition_error(&error))?;
    let change = change(&watched.before, &after, table.key.column, &watched.conversions)
        .map_err(|refusal| refused(table, &refusal))?;
    // A statement around this one compares with what is there now.
    WATCHED.with_borrow_mut(|all| {
        for outer in all.iter_mut().filter(|outer| outer.table.oid == table.oid) {
            outer.before.clone_from(&after);
        }
    });
    rename_key(watched, &after)?;
    if change.is_empty() {
        return Ok(None);
    }
    if !change.foreign_keys.made.is_empty() {
        foreign_keys::check(table)?;
    }
    if !table::is_owned_by_user(table.oid) && watched.before.table.owner == after.table.owner {
        return Err(PgError::unsupported(
            format!("cannot change the shards of distributed table \"{}\"", table.name),
            "Have the owner of the table do it.",
        )
        .detail("Only the owner of the shards can change them."));
    }
    warn_of_loose_indexes(table, &watched.loose);
    // A repair that is under way would copy what was there before.
    for index in 0..table.map.len() {
        if table.placements[index].len() > 1 {
            lock_shard(ShardLock::Metadata(table.shard_id(index)), Mode::Share);
        }
    }
    Ok(Some(Asked { watched, after, change }))
}

fn apply(asked: &Asked<'_>) -> Result<(), PgError> {
    let Asked { watched, after, change } = asked;
    let table = &catalog_entry(&watched.table)?;
    if !change.prerequisites.is_empty() {
        for (node, parts) in nodes(table)? {
            run_on(&node, &change.prerequisites)
                .map_err(|failure| failed(table, parts[0].0, &node, failure))?;
        }
        placed::note(&[table.oid])?;
    }
    let owner_and_grants =
        |definition: &Definition| (definition.table.owner.clone(), definition.grants.clone());
    if owner_and_grants(&watched.before) != owner_and_grants(after) {
        let roles = roles::for_node()?;
        for (node, parts) in nodes(table)?.iter().filter(|_| !roles.is_empty()) {
            run_on(node, &roles).map_err(|failure| failed(table, parts[0].0, node, failure))?;
        }
    }
    on_shards(table, &change.first)?;
    if !change.filled.is_empty() {
        fill(table.oid, after, &change.filled)?;
    }
    on_shards(table, &change.then)
}

/// Computes the defaults of new columns for the rows that are there, as for any UPDATE but without triggers.
fn fill(table: Oid, after: &Definition, columns: &[String]) -> Result<(), PgError> {
    let assignments: Vec<String> =
        columns.iter().map(|column| format!("{column} = DEFAULT")).collect();
    let sql = format!(
        "UPDATE {}.{} SET {}",
        after.table.schema,
        crate::catalog::quote(&after.table.name),
        assignments.join(", ")
    );
    triggers::without(table, || privileged::run_as_caller(&sql))
}

/// The metadata know the distribution column by its name.
fn rename_key(watched: &Watched, after: &Definition) -> Result<(), PgError> {
    let key = watched.table.key.column;
    let name = |columns: &[Column]| {
        let column = columns.iter().find(|column| column.number == key);
        column.map(|column| column.quoted_name.clone())
    };
    if name(&watched.before.columns) == name(&after.columns) {
        return Ok(());
    }
    let Some(new) = table::column_name(watched.table.oid, key) else { return Ok(()) };
    let tables: Vec<String> =
        tree(watched.table.oid)?.iter().map(|oid| oid.to_u32().to_string()).collect();
    privileged::run(&format!(
        "UPDATE pgs_distribution_metadata.partition SET key = {} WHERE relation_id IN ({})",
        literal(&new),
        tables.join(", ")
    ))
}

/// Warns of unique indexes that hold within each shard only and were not there before. In a table of one shard all hold.
pub(crate) fn warn_of_loose_indexes(table: &DistributedTable, known: &[String]) {
    if table.map.len() == 1 {
        return;
    }
    for name in uniqueness::unique_indexes_without(table.oid, table.key.column) {
        if !known.contains(&name) {
            pg::sys::error::warning(
                PgError::new(
                    SqlState::WARNING,
                    format!("unique constraint \"{name}\" will hold within each shard only"),
                )
                .detail(format!(
                    "It does not contain the distribution column \"{}\".",
                    table.key_name
                ))
                .hint("Add the distribution column to the constraint."),
            );
        }
    }
}

fn refused(table: &DistributedTable, refusal: &Refusal) -> PgError {
    let message = |what: &str| format!("cannot {what} distributed table \"{}\"", table.name);
    let again = "Make it a local table with undistribute_table, change it, and distribute it again with \
                 create_distributed_table, all in one transaction.";
    match refusal {
        Refusal::KeyDropped => {
            PgError::unsupported(message("drop the distribution column of"), again)
                .detail("Its values say in which shard a row is.")
        }
        Refusal::KeyConverted { from, to } => PgError::unsupported(
            message("change the type of the distribution column of"),
            again,
        )
        .detail(format!(
            "Values of type {from} have other hashes when they are of type {to}, so rows would have to move."
        )),
        Refusal::SystemTrigger => PgError::unsupported(
            message("enable or disable a single system trigger of"),
            "Name ALL, which means the others too.",
        )
        .detail("The triggers by which the shards enforce constraints have other names."),
        Refusal::Storage => PgError::unsupported(
            message("change the access method or the foreign server of"),
            again,
        ),
    }
}
