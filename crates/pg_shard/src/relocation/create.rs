//! Making the placements on the target, in the transaction of the relocation.

use super::group::Member;
use super::request::Relocation;
use crate::ddl::partition_tree::partitions;
use crate::ddl::{definition_error, foreign_keys, shard_definition};
use crate::functions::equip;
use crate::owner;
use crate::repair;
use pg::PgError;
use shardmap::ShardId;
use shardmap::definition::Definition;
use shardmap::shard_template::Template;

pub(super) fn definition(member: &Member) -> Result<Definition, PgError> {
    shard_definition::read(member.table.oid).map_err(|error| definition_error(&error))
}

/// The statements for a shard.
pub(super) fn filled_as(shard: ShardId, templates: &[Template]) -> Result<Vec<String>, PgError> {
    let filled: Result<Vec<String>, _> =
        templates.iter().map(|template| template.fill(shard.0)).collect();
    filled.map_err(|error| definition_error(&error.into()))
}

fn filled(member: &Member, templates: &[Template]) -> Result<Vec<String>, PgError> {
    filled_as(member.shard(), templates)
}

/// The tables, without indexes. What a node that was lost before has kept of the shard is dropped.
pub(super) fn tables(relocation: &Relocation) -> Result<(), PgError> {
    equip(&relocation.target).map_err(|failure| relocation.failed(&relocation.target, failure))?;
    let names: Vec<String> = relocation.group.members.iter().map(Member::name).collect();
    relocation.on_target(&[foreign_keys::drop_referring(&names)])?;
    for member in &relocation.group.members {
        let definition = definition(member)?;
        let mut statements = definition.prerequisites.clone();
        statements.extend(filled(member, &[definition.drop()])?);
        statements.extend(filled(member, &definition.create_around_rows().0)?);
        relocation.on_target(&statements)?;
    }
    Ok(())
}

/// The rows, as they are when the copying of each table begins.
pub(super) fn rows(relocation: &Relocation) -> Result<(), PgError> {
    for member in relocation.group.members.iter().filter(|member| member.has_rows()) {
        repair::fill(member.table.oid, member.shard(), &relocation.source, &relocation.target)?;
    }
    Ok(())
}

/// Indexes, partitions and statistics.
pub(super) fn indexes(relocation: &Relocation) -> Result<(), PgError> {
    let members = &relocation.group.members;
    for member in members {
        relocation.on_target(&filled(member, &definition(member)?.create_around_rows().1)?)?;
    }
    attach(relocation, &|member| members[member].name())?;
    for member in members.iter().filter(|member| member.has_rows()) {
        let analyze = [format!("ANALYZE {}", member.name())];
        owner::acting_on(&member.table, member.index, &[&relocation.target], || {
            relocation.on_target(&analyze)
        })?;
    }
    Ok(())
}

/// Attaches the partitions; `name` tells what stands on the target for a member of the group.
pub(super) fn attach(
    relocation: &Relocation,
    name: &dyn Fn(usize) -> String,
) -> Result<(), PgError> {
    let members = &relocation.group.members;
    for (number, parent) in members.iter().enumerate() {
        if !parent.table.is_partitioned {
            continue;
        }
        for (partition, bound) in partitions(parent.table.oid)? {
            let Some(partition) = members.iter().position(|one| one.table.oid == partition) else {
                return Err(PgError::internal("a partition does not lie beside its table"));
            };
            relocation.on_target(&[format!(
                "ALTER TABLE {} ATTACH PARTITION {} {bound}",
                name(number),
                name(partition)
            )])?;
        }
    }
    Ok(())
}

/// The foreign keys, when everybody else is kept away: they lock the tables to which they refer.
pub(super) fn keys(relocation: &Relocation) -> Result<(), PgError> {
    let members = &relocation.group.members;
    let target = &relocation.target;
    let mut all: Vec<String> = Vec::new();
    for member in members.iter().filter(|member| member.table.is_linked) {
        let keys = foreign_keys::after_repair(&member.table, member.index, &|other, index| {
            members.iter().any(|one| one.table.oid == other.oid)
                || other.healthy(index).any(|placement| placement.node == *target)
        })?;
        // One that links two members is told by both.
        for key in keys {
            if !all.contains(&key) {
                all.push(key);
            }
        }
    }
    if all.is_empty() { Ok(()) } else { relocation.on_target(&all) }
}
