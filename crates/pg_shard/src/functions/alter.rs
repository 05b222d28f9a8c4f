//! Changing how a table is distributed: by another column, in more or fewer shards, with more placements, beside another table. Its rows come
//! back to the coordinator and go out again, in one transaction, so clients see the table as it was or as it is to be.
//!
//! Tables that lie beside it are cut alike, so joins and foreign keys among them stay on one node. A new number of shards or placements is that of
//! all of them; with another column, or beside another table, a table leaves the others.

use super::convert::{bring_back, distribute_with_rows};
use super::distribute::Layout;
use super::{check_owner, given};
use crate::catalog::{self, DistributedTable};
use crate::ddl::foreign_keys;
use crate::plan::lie_together;
use crate::relocation;
use pg::catalog::table::{self, RelationLock};
use pg::sys::error::raise;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use std::rc::Rc;

#[pg_extern]
fn alter_distributed_table(
    table_name: Option<Oid>,
    distribution_column: Option<&str>,
    shard_count: Option<i32>,
    replication_factor: Option<i32>,
    colocate_with: Option<&str>,
) {
    let alter = || {
        let oid = given(table_name, "table_name")?;
        let beside = match colocate_with {
            None | Some("default") => None,
            Some("none") => Some(Beside::Nobody),
            Some(other) => Some(Beside::Table(table::resolve(other, RelationLock::None))),
        };
        alter(oid, &Change { column: distribution_column, shard_count, replication_factor, beside })
    };
    raise(alter());
}

/// Beside whom the table is to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nobody,
    Table(Oid),
}

/// What is to change.
#[derive(Clone, Copy, Debug)]
struct Change<'a> {
    column: Option<&'a str>,
    shard_count: Option<i32>,
    replication_factor: Option<i32>,
    beside: Option<Beside>,
}

impl Change<'_> {
    fn check(&self) -> Result<(), PgError> {
        let is_nothing = self.column.is_none()
            && self.shard_count.is_none()
            && self.replication_factor.is_none()
            && self.beside.is_none();
        let refused = |text: &str| Err(PgError::new(SqlState::INVALID_PARAMETER_VALUE, text));
        if is_nothing {
            return refused("nothing of the table is to be changed");
        }
        let has_counts = self.shard_count.is_some() || self.replication_factor.is_some();
        if matches!(self.beside, Some(Beside::Table(_))) && has_counts {
            return refused("a table that lies beside another has its shards and placements");
        }
        Ok(())
    }

    /// The table leaves those beside it.
    fn parts(&self) -> bool {
        self.column.is_some() || self.beside.is_some()
    }
}

fn alter(oid: Oid, change: &Change<'_>) -> Result<(), PgError> {
    change.check()?;
    check_owner(oid)?;
    let table = catalog::get(oid)?;
    let tables = concerned(&table, change)?;
    relocation::lock_out_tables(&tables.iter().map(|table| table.oid).collect::<Vec<_>>())?;
    catalog::forget(None);
    let table = catalog::get(oid)?;
    let now = concerned(&table, change)?;
    if now.iter().map(|it| it.oid).ne(tables.iter().map(|it| it.oid)) {
        return Err(PgError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the tables beside \"{}\" have changed meanwhile", table.name),
        )
        .hint("Run it again."));
    }
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let spread = Layout::Spread {
        shard_count: change.shard_count.unwrap_or(count(table.map.len())),
        replication_factor: change
            .replication_factor
            .unwrap_or(table.placements.first().map_or(1, |placements| count(placements.len()))),
    };
    let mut order = bring_back_all(now)?;
    // Those to which foreign keys refer come first.
    order.reverse();
    let mut first: Option<Oid> = match change.beside {
        Some(Beside::Table(other)) => Some(other),
        _ => None,
    };
    for table in order {
        let column = change.column.unwrap_or(&table.key_name);
        let layout = match first {
            Some(other) => Layout::Beside(catalog::get(other)?),
            None => spread.clone(),
        };
        distribute_with_rows(table.oid, column, &layout)?;
        first.get_or_insert(table.oid);
    }
    Ok(())
}

/// The tables that change, in the one order in which tables are locked.
fn concerned(
    table: &Rc<DistributedTable>,
    change: &Change<'_>,
) -> Result<Vec<Rc<DistributedTable>>, PgError> {
    table.check()?;
    if table.map.is_empty() {
        return Err(table.no_shards());
    }
    let mut tables = vec![Rc::clone(table)];
    if !change.parts() && table.map.len() > 1 {
        let others = catalog::distributed_tables().into_iter().filter_map(catalog::find);
        tables.extend(others.filter(|other| {
            let is_sharded =
                other.oid != table.oid && other.trouble.is_none() && other.map.len() > 1;
            is_sharded && lie_together(&[Rc::clone(table), Rc::clone(other)])
        }));
    }
    for table in &tables {
        check_owner(table.oid)?;
        check_is_whole(table)?;
    }
    tables.sort_by_key(|table| table.oid.to_u32());
    Ok(tables)
}

/// Partitioned tables and their partitions are refused.
fn check_is_whole(table: &DistributedTable) -> Result<(), PgError> {
    let is_partition = table::describe(table.oid).is_some_and(|relation| relation.is_partition);
    if !table.is_partitioned && !is_partition {
        return Ok(());
    }
    Err(PgError::unsupported(
        format!("cannot distribute table \"{}\" anew", table.name),
        "Undistribute the partitioned table with all its partitions, and distribute it again.",
    )
    .detail("It is partitioned, or a partition."))
}

/// Makes local tables of them, those first to which no other one refers.
fn bring_back_all(
    mut tables: Vec<Rc<DistributedTable>>,
) -> Result<Vec<Rc<DistributedTable>>, PgError> {
    let mut done = Vec::new();
    while !tables.is_empty() {
        let free = |table: &Rc<DistributedTable>| {
            foreign_keys::check_before_undistribution(table.oid).is_ok()
        };
        // If there is none, the first one's error says why.
        let next = tables.remove(tables.iter().position(free).unwrap_or(0));
        bring_back(next.oid)?;
        catalog::forget(Some(next.oid));
        done.push(next);
    }
    Ok(done)
}
