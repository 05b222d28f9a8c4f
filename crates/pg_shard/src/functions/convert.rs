//! Tables that become distributed with their rows, and local again with them: each in one transaction, under a lock
//! that keeps everybody else away from the table.

use super::distribute::{
    Layout, Rows, check_colocation, create_foreign_keys, distribute, warn_of_loose_indexes,
};
use super::online;
use super::partitions::create_all_shards;
use super::store::store_rows;
use super::{check_owner, given};
use crate::catalog::{self, DistributedTable, quote};
use crate::ddl;
use crate::ddl::foreign_keys;
use crate::ddl::partition_tree::tree;
use crate::mark;
use crate::nodes;
use crate::session::Failure;
use crate::session::pool::{self, SessionRef};
use crate::transaction::{self, NodeFailure};
use pg::catalog::privileged;
use pg::catalog::table::{self, RelationLock};
use pg::exec::copy::{self, CopySource, ForeignKeys, RowFormat, local};
use pg::server::lock::{Mode, ShardLock, lock_shard};
use pg::server::utility::copied_columns;
use pg::sys::error::raise;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use shardmap::NodeAddress;

#[pg_extern]
fn create_distributed_table(
    table_name: Option<Oid>,
    distribution_column: Option<&str>,
    shard_count: Option<i32>,
    replication_factor: Option<i32>,
    colocate_with: Option<&str>,
) {
    let distribute = || {
        let table = given(table_name, "table_name")?;
        let column = given(distribution_column, "distribution_column")?;
        let shard_count = given(shard_count, "shard_count")?;
        let replication_factor = given(replication_factor, "replication_factor")?;
        let layout = match colocate_with {
            None | Some("default" | "none") => Layout::Spread { shard_count, replication_factor },
            Some(other) => Layout::Beside(catalog::get(table::resolve(other, RelationLock::None))?),
        };
        distribute_with_rows(table, column, &layout)
    };
    raise(distribute());
}

/// One shard, placed on all workers: each joins with it what it has.
#[pg_extern]
fn create_reference_table(table_name: Option<Oid>) {
    raise(given(table_name, "table_name").and_then(distribute_everywhere));
}

fn distribute_everywhere(oid: Oid) -> Result<(), PgError> {
    check_owner(oid)?;
    table::lock_relation(oid, RelationLock::AccessShare);
    check_is_local(oid)?;
    let name = table::describe(oid).map_or_else(String::new, |relation| relation.name);
    let column = table::column_of_every_row(oid).ok_or_else(|| {
        PgError::new(
            SqlState::INVALID_TABLE_DEFINITION,
            format!("cannot make a reference table of \"{name}\": no column is NOT NULL"),
        )
        .hint("Give it a primary key, or declare a column NOT NULL.")
    })?;
    let workers = nodes::for_new_shards()?.len();
    let replication_factor = i32::try_from(workers).unwrap_or(i32::MAX);
    distribute_with_rows(oid, &column, &Layout::Spread { shard_count: 1, replication_factor })
}

pub(super) fn distribute_with_rows(oid: Oid, column: &str, layout: &Layout) -> Result<(), PgError> {
    check_owner(oid)?;
    if let Layout::Beside(other) = layout {
        check_owner(other.oid)?;
        if other.map.is_empty() {
            return Err(other.no_shards());
        }
    }
    if online::distribute(oid, column, layout)? {
        return Ok(());
    }
    for member in tree(oid)? {
        table::lock_for_truncate(member);
        table::check_not_in_use(member, c"distribute");
    }
    check_is_local(oid)?;
    let name = pg::print::template::qualified_name(oid);
    distribute(&name, column, b'h', Rows::Any)?;
    catalog::forget(Some(oid));
    if let Layout::Beside(other) = layout {
        let table = catalog::get(oid)?;
        check_colocation(&table, &table.name, other)?;
    }
    create_all_shards(&name, layout, Rows::Any)?;
    warn_of_loose_indexes(oid)?;
    let is_plain = table::describe(oid).is_some_and(|relation| relation.kind == b'r');
    if is_plain && local::has_rows(oid) {
        store_rows(oid)?;
    }
    create_foreign_keys(oid)
}

/// Refuses a table that is distributed already.
fn check_is_local(oid: Oid) -> Result<(), PgError> {
    catalog::find(oid).filter(|table| !table.is_detached()).map_or(Ok(()), |table| {
        Err(PgError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table \"{}\" is distributed already", table.name),
        )
        .hint("undistribute_table makes it a local table again."))
    })
}

#[pg_extern]
fn undistribute_table(table_name: Option<Oid>) {
    raise(given(table_name, "table_name").and_then(bring_back));
}

pub(super) fn bring_back(oid: Oid) -> Result<(), PgError> {
    check_owner(oid)?;
    table::lock_for_truncate(oid);
    catalog::forget(Some(oid));
    if catalog::find(oid).is_some_and(|table| table.is_detached()) {
        return mark::remove(oid);
    }
    let table = catalog::get(oid)?;
    if table::describe(oid).is_some_and(|relation| relation.is_partition) {
        return Err(PgError::unsupported(
            format!("cannot undistribute table \"{}\"", table.name),
            "Undistribute the partitioned table with all its partitions, or detach the partition first.",
        )
        .detail("It is a partition."));
    }
    let members = tree(oid)?;
    for member in &members {
        check_owner(*member)?;
        table::lock_for_truncate(*member);
        table::check_not_in_use(*member, c"undistribute");
        catalog::forget(Some(*member));
        check_before(&*catalog::get(*member)?)?;
    }
    for member in &members {
        catalog::forget(Some(*member));
        bring_rows_back(&*catalog::get(*member)?)?;
    }
    // The shards of partitions are partitions of their table's shards.
    for member in members.iter().rev() {
        ddl::forget_table(&catalog::get(*member)?)?;
        mark::remove(*member)?;
    }
    Ok(())
}

/// Whether a table can become local; a repair of its shards ends first.
fn check_before(table: &DistributedTable) -> Result<(), PgError> {
    if table::describe(table.oid).is_none_or(|relation| !matches!(relation.kind, b'r' | b'p')) {
        return Err(PgError::new(
            SqlState::WRONG_OBJECT_TYPE,
            format!("cannot undistribute foreign table \"{}\"", table.name),
        ));
    }
    foreign_keys::check_before_undistribution(table.oid)?;
    for index in 0..table.map.len() {
        lock_shard(ShardLock::Data(table.shard_id(index)), Mode::Exclusive);
    }
    Ok(())
}

/// Brings the rows of a table's shards; a partitioned one has none of its own.
fn bring_rows_back(table: &DistributedTable) -> Result<(), PgError> {
    if table.is_partitioned {
        return Ok(());
    }
    let columns: Vec<String> =
        copied_columns(table.oid).into_iter().map(|(_, name)| name).collect();
    let owner = table::owner_of(table.oid)?;
    for index in 0..table.map.len() {
        let (session, node) = fetch(table, index, &columns)?;
        let rows = Box::new(ShardRows { session, node });
        privileged::as_restricted(owner, || {
            copy::receive(table.oid, &columns, RowFormat::Text, rows, ForeignKeys::Known)
        })?;
    }
    Ok(())
}

/// Has a node send a shard's rows.
fn fetch(
    table: &DistributedTable,
    index: usize,
    columns: &[String],
) -> Result<(SessionRef, NodeAddress), PgError> {
    let columns: Vec<String> = columns.iter().map(|name| quote(name)).collect();
    let sql = format!(
        // Of a table only: where somebody has put a view in its place, its functions must not run in our name.
        "COPY {} ({}) TO STDOUT",
        table.shard_name(index),
        columns.join(", ")
    );
    let (level, isolation) = transaction::level_for_write();
    for placement in table.healthy(index) {
        let mut start = |session: &SessionRef| {
            let mut session = session.borrow_mut();
            session.begin(level, isolation)?;
            session.start_copy_out(&sql)
        };
        match transaction::with_session(&placement.node, &mut start) {
            Ok((session, ())) => return Ok((session, placement.node.clone())),
            Err(NodeFailure::Error(error)) => {
                return Err(
                    error.context(format!("while executing on node \"{}\"", placement.node))
                );
            }
            Err(NodeFailure::Unreachable(error)) => {
                pg::sys::error::warning(pool::connection_failed(&placement.node, &error));
                transaction::lose_node(&placement.node, &error)?;
            }
        }
    }
    Err(PgError::new(SqlState::INTERNAL_ERROR, "could not receive query results").detail(format!(
        "No placement of shard {} of table \"{}\" can be read.",
        table.shard_id(index).0,
        table.name
    )))
}

/// On a worker: see [`privileged::act_as_owner`].
#[pg_extern]
fn act_as_owner(shard: Oid) {
    raise(privileged::act_as_owner(shard));
}

/// A shard's rows on their way here.
struct ShardRows {
    session: SessionRef,
    node: NodeAddress,
}

impl CopySource for ShardRows {
    fn read(&mut self) -> Result<Vec<u8>, PgError> {
        self.session.borrow_mut().get_copy().map_err(|failure| {
            let (Failure::Lost(error) | Failure::Statement(error)) = failure;
            error.context(format!("while reading from node \"{}\"", self.node))
        })
    }
}
