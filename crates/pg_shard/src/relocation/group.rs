//! The shards that lie beside each other, one of each table that is cut and placed alike: statements join them on their node,
//! and foreign keys and partitions bind them. They stay together.

use super::kind::Kind;
use crate::catalog::{self, DistributedTable};
use crate::functions::{self, check_owner, same_server};
use crate::plan::lie_together;
use crate::repair;
use crate::session::capabilities;
use pg::catalog::foreign_keys::links;
use pg::catalog::table;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::change_capture::ChangeCapture;
use shardmap::{NodeAddress, PlacementState, ShardId, metadata};
use std::rc::Rc;

/// A shard of the group.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) table: Rc<DistributedTable>,
    pub(super) index: usize,
}

impl Member {
    pub(super) fn shard(&self) -> ShardId {
        self.table.shard_id(self.index)
    }

    /// Quoted and qualified.
    pub(super) fn name(&self) -> String {
        self.table.shard_name(self.index)
    }

    /// What notes changes of the shard.
    pub(super) fn capture(&self) -> ChangeCapture {
        ChangeCapture::named(&self.table.schema, &self.shard().0.to_string())
    }

    /// It holds rows itself.
    pub(super) fn has_rows(&self) -> bool {
        !self.table.is_partitioned
    }
}

/// The shards that go together.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) members: Vec<Member>,
    /// Tables of one shard to which foreign keys of the members refer, and those that refer to a member.
    pub(super) linked: Vec<Rc<DistributedTable>>,
}

impl Group {
    /// Finds the group of a shard. Nothing of it is locked.
    pub(super) fn find(
        verb: &str,
        shard: ShardId,
        nodes: &[&NodeAddress],
    ) -> Result<Self, PgError> {
        let oid = repair::table_of(shard)?;
        let table = catalog::get(oid)?;
        if let Some(node) = nodes.iter().find(|node| !metadata::is_plausible(node)) {
            return Err(PgError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("there can be no node \"{node}\""),
            ));
        }
        let index = table
            .index_of(shard)
            .ok_or_else(|| PgError::internal("the shard is not one of its table"))?;
        let mut tables = vec![Rc::clone(&table)];
        if table.map.len() > 1 {
            let others = catalog::distributed_tables().into_iter().filter_map(catalog::find);
            tables.extend(others.filter(|other| {
                let is_usable = other.oid != oid && other.trouble.is_none();
                let is_sharded = is_usable && other.map.len() > 1;
                is_sharded && lie_together(&[Rc::clone(&table), Rc::clone(other)])
            }));
        }
        let mut linked: Vec<Rc<DistributedTable>> = Vec::new();
        for one in &tables {
            check_owner(one.oid)?;
            check_kind(verb, shard, one)?;
            for link in links(one.oid) {
                let Some(other) = catalog::find(link.other) else { continue };
                let is_known = tables.iter().chain(&linked).any(|known| known.oid == other.oid);
                if !is_known && !other.map.is_empty() {
                    linked.push(other);
                }
            }
        }
        let members = tables.into_iter().map(|table| Member { table, index }).collect();
        Ok(Self { members, linked })
    }

    /// In the one order in which tables are locked.
    pub(super) fn in_order(&self) -> Vec<&Member> {
        let mut members: Vec<&Member> = self.members.iter().collect();
        members.sort_by_key(|member| member.table.oid.to_u32());
        members
    }

    /// Their ids.
    pub(super) fn shards(&self) -> Vec<ShardId> {
        self.in_order().iter().map(|member| member.shard()).collect()
    }

    /// All tables that must not be used while placements change: foreign keys lock the linked ones on the nodes.
    pub(super) fn tables(&self) -> Vec<Oid> {
        let members = self.members.iter().map(|member| &member.table);
        let mut tables: Vec<Oid> = members.chain(&self.linked).map(|table| table.oid).collect();
        tables.sort_by_key(|oid| oid.to_u32());
        tables
    }

    /// The placements are what they have to be.
    pub(super) fn check_relocation(
        &self,
        kind: Kind,
        source: &NodeAddress,
        target: &NodeAddress,
    ) -> Result<(), PgError> {
        for Member { table, index } in &self.members {
            self.check_source(table, *index, source)?;
            if let Some(there) =
                table.placements[*index].iter().find(|placement| placement.node == *target)
            {
                let error = PgError::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!(
                        "shard {} of table \"{}\" has a placement on node \"{target}\" already",
                        table.shard_id(*index).0,
                        table.name
                    ),
                );
                return Err(match there.state {
                    PlacementState::Healthy => error,
                    PlacementState::Unusable(_) => error
                        .detail("It is inactive.")
                        .hint("Repair it with master_copy_shard_placement, or remove it with pgs_catalog.drop_placement."),
                });
            }
            if kind != Kind::Move && is_of_partitions(table) {
                return Err(PgError::unsupported(
                    format!("cannot replicate shards of partitioned table \"{}\"", table.name),
                    "Move the shards, and make the nodes safe by streaming replication.",
                )
                .detail("A placement and its partitions could not be marked together."));
            }
        }
        self.check_links(kind, source, target)?;
        if let Some(servers) =
            capabilities::of_nodes(&[source.clone(), target.clone()], functions::SERVER)
            && servers[0] == servers[1]
        {
            return Err(same_server(source, target));
        }
        Ok(())
    }

    /// No placement on these nodes has been marked meanwhile; the tables are locked.
    pub(super) fn check_healthy<'a>(
        &self,
        kind: Kind,
        nodes: impl IntoIterator<Item = &'a NodeAddress>,
    ) -> Result<(), PgError> {
        for node in nodes {
            let is_healthy = |member: &Member| {
                let placements = catalog::current_placements(member.shard());
                placements
                    .iter()
                    .any(|one| one.node == *node && one.state == PlacementState::Healthy)
            };
            if let Some(member) = self.members.iter().find(|member| !is_healthy(member)) {
                return Err(PgError::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!(
                        "could not {} shard {}: its placement on node \"{node}\" has missed a write",
                        kind.verb(),
                        member.shard().0
                    ),
                )
                .hint("Try again when it has been repaired, or from another placement."));
            }
        }
        Ok(())
    }

    fn check_source(
        &self,
        table: &DistributedTable,
        index: usize,
        source: &NodeAddress,
    ) -> Result<(), PgError> {
        if table.healthy(index).any(|placement| placement.node == *source) {
            return Ok(());
        }
        Err(PgError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "shard {} of table \"{}\" has no healthy placement on node \"{source}\"",
                table.shard_id(index).0,
                table.name
            ),
        )
        .detail("The shards beside each other are moved and copied together.")
        .hint("Repair the placements first, or name another source."))
    }

    /// What foreign keys and joins need besides is on the target, and nothing on the source needs what goes.
    fn check_links(
        &self,
        kind: Kind,
        source: &NodeAddress,
        target: &NodeAddress,
    ) -> Result<(), PgError> {
        let is_on = |table: &DistributedTable, node: &NodeAddress| {
            table.map.len() == 1 && table.healthy(0).any(|placement| placement.node == *node)
        };
        let first = &self.members[0].table;
        if first.map.len() == 1 {
            if kind != Kind::Move || self.linked.is_empty() {
                return Ok(());
            }
            return Err(PgError::unsupported(
                format!(
                    "cannot move the shard of table \"{}\": foreign keys link it with table \"{}\"",
                    first.name, self.linked[0].name
                ),
                "Copy it with pgs_catalog.copy_shard, and drop the placement when the other table has left the node.",
            ));
        }
        for other in &self.linked {
            if !is_on(other, target) {
                return Err(lacks(other, target, "A foreign key links it with the shard."));
            }
        }
        for other in catalog::distributed_tables().into_iter().filter_map(catalog::find) {
            let is_reference = other.map.len() == 1 && other.is_replicated();
            if is_reference && is_on(&other, source) && !is_on(&other, target) {
                return Err(lacks(
                    &other,
                    target,
                    "Statements join it with the shard on its node.",
                ));
            }
        }
        Ok(())
    }
}

fn lacks(table: &DistributedTable, node: &NodeAddress, why: &str) -> PgError {
    PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("table \"{}\" has no healthy placement on node \"{node}\"", table.name),
    )
    .detail(why)
    .hint("Copy its shard there first, with pgs_catalog.copy_shard.")
}

fn is_of_partitions(table: &DistributedTable) -> bool {
    table.is_partitioned || table::describe(table.oid).is_some_and(|relation| relation.is_partition)
}

fn check_kind(verb: &str, shard: ShardId, table: &DistributedTable) -> Result<(), PgError> {
    let is_foreign = table::describe(table.oid).is_some_and(|relation| relation.kind == b'f');
    let refused = |why: &str, hint: &str| {
        let error = format!("cannot {verb} shard {} of table \"{}\"", shard.0, table.name);
        Err(PgError::unsupported(error, hint).detail(why))
    };
    if is_foreign {
        return refused(
            "It is a foreign table, whose rows are somewhere else.",
            "Create the foreign table on the other node, and change the metadata.",
        );
    }
    if table.map.len() == 1 && is_of_partitions(table) {
        return refused(
            "It is the only shard of a partitioned table.",
            "Distribute the table anew, with more shards.",
        );
    }
    Ok(())
}
