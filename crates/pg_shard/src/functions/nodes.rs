//! Nodes come and go: what operators call.
//!
//! Superusers and members of `pg_write_server_files` may: whoever writes files of the server writes its worker list as well. A server
//! that is named here gets this server's credentials.

use super::distribute::Joining;
use super::{change_metadata, given, literal, worker_list};
use crate::catalog::{self, DistributedTable};
use crate::health;
use crate::nodes;
use crate::repair;
use pg::catalog::role;
use pg::sys::error::raise;
use pg::{PgError, SqlState};
use pgrx::prelude::*;
use shardmap::metadata::is_plausible;
use shardmap::{NodeAddress, PlacementState, ShardId};
use std::rc::Rc;

#[pg_extern]
fn known_nodes() -> TableIterator<
    'static,
    (name!(name, String), name!(port, i32), name!(is_listed, bool), name!(takes_shards, bool)),
> {
    let listed = worker_list::read().unwrap_or_default();
    let taking = nodes::for_new_shards().unwrap_or_default();
    let rows = nodes::all().into_iter().map(|node| {
        let (is_listed, takes) = (listed.contains(&node), taking.contains(&node));
        (node.host.to_string(), node.port, is_listed, takes)
    });
    TableIterator::new(rows.collect::<Vec<_>>())
}

#[pg_extern]
fn add_node(
    name: Option<&str>,
    port: Option<i32>,
    rack: Option<&str>,
    host: Option<&str>,
    host_port: Option<i32>,
) -> i32 {
    let add = || {
        check_right()?;
        let node = node(given(name, "name")?, given(port, "port")?)?;
        check_address(host, host_port)?;
        add(&node, rack, host, host_port)
    };
    raise(add())
}

#[pg_extern]
fn remove_node(name: &str, port: i32) {
    let remove = || {
        check_right()?;
        remove(&node(name, port)?)
    };
    raise(remove());
}

#[pg_extern]
fn set_node_address(
    name: Option<&str>,
    port: Option<i32>,
    host: Option<&str>,
    host_port: Option<i32>,
) {
    let set = || {
        check_right()?;
        let node = known(given(name, "name")?, given(port, "port")?)?;
        check_address(host, host_port)?;
        write_row(&node)?;
        change_metadata(&format!(
            "UPDATE pgs_catalog.node SET host = {}, host_port = {} WHERE {}",
            nullable(host),
            host_port.map_or_else(|| "NULL".to_owned(), |port| port.to_string()),
            is(&node)
        ))?;
        let others = nodes::all().into_iter().filter(|other| *other != node).collect();
        Joining::new(others)?.meet(&node)
    };
    raise(set());
}

#[pg_extern]
fn set_node_rack(name: Option<&str>, port: Option<i32>, rack: Option<&str>) {
    let set = || {
        check_right()?;
        let node = known(given(name, "name")?, given(port, "port")?)?;
        write_row(&node)?;
        change_metadata(&format!(
            "UPDATE pgs_catalog.node SET rack = {} WHERE {}",
            nullable(rack),
            is(&node)
        ))
    };
    raise(set());
}

/// Who may manage nodes.
pub(super) fn check_right() -> Result<(), PgError> {
    if role::may_write_server_files() {
        return Ok(());
    }
    Err(PgError::new(SqlState::INSUFFICIENT_PRIVILEGE, "permission denied to manage nodes")
        .detail("Only superusers and members of pg_write_server_files may."))
}

fn node(name: &str, port: i32) -> Result<NodeAddress, PgError> {
    let node = NodeAddress { host: name.into(), port };
    if is_plausible(&node) && name.len() <= 255 && !name.contains(char::is_whitespace) {
        return Ok(node);
    }
    let text = format!("\"{node}\" cannot be the name of a node");
    Err(PgError::new(SqlState::INVALID_PARAMETER_VALUE, text)
        .hint("A node is named by a host name or an address, and a port."))
}

/// A node that is known.
pub(super) fn known(name: &str, port: i32) -> Result<NodeAddress, PgError> {
    let node = node(name, port)?;
    if nodes::all().contains(&node) {
        return Ok(node);
    }
    Err(PgError::new(SqlState::UNDEFINED_OBJECT, format!("node \"{node}\" does not exist"))
        .hint("The view pgs_catalog.nodes shows the nodes."))
}

fn check_address(host: Option<&str>, port: Option<i32>) -> Result<(), PgError> {
    let is_host = |host: &str| {
        let parts = host.split(',');
        host.len() <= 255 && parts.into_iter().all(|part| node(part, 1).is_ok())
    };
    if host.is_none_or(is_host) && port.is_none_or(|port| (1..=65_535).contains(&port)) {
        return Ok(());
    }
    Err(PgError::new(SqlState::INVALID_PARAMETER_VALUE, "this is not the address of a node")
        .hint("Give one host or several, separated by commas, and a port from 1 to 65535."))
}

fn nullable(text: Option<&str>) -> String {
    text.map_or_else(|| "NULL".to_owned(), literal)
}

/// A condition on `pgs_catalog.node`.
fn is(node: &NodeAddress) -> String {
    format!("name = {} AND port = {}", literal(&node.host), node.port)
}

/// The node has a row in the table.
fn write_row(node: &NodeAddress) -> Result<(), PgError> {
    change_metadata(&format!(
        "INSERT INTO pgs_catalog.node (name, port) VALUES ({}, {}) ON CONFLICT (name, port) DO NOTHING",
        literal(&node.host),
        node.port
    ))
}

fn add(
    node: &NodeAddress,
    rack: Option<&str>,
    host: Option<&str>,
    host_port: Option<i32>,
) -> Result<i32, PgError> {
    let others: Vec<NodeAddress> = nodes::all().into_iter().filter(|known| known != node).collect();
    if nodes::rows().iter().any(|row| row.address == *node && row.is_added) {
        let text = format!("node \"{node}\" exists already");
        return Err(PgError::new(SqlState::DUPLICATE_OBJECT, text));
    }
    write_row(node)?;
    change_metadata(&format!(
        "UPDATE pgs_catalog.node SET is_added = true, is_draining = false, rack = {}, host = {}, host_port = {} WHERE {}",
        nullable(rack),
        nullable(host),
        host_port.map_or_else(|| "NULL".to_owned(), |port| port.to_string()),
        is(node)
    ))?;
    let mut joining = Joining::new(others.clone())?;
    joining.meet(node)?;
    for table in reference_tables(&others) {
        place(&table, node)?;
    }
    id_of(node)
}

fn id_of(node: &NodeAddress) -> Result<i32, PgError> {
    let row = nodes::rows().into_iter().find(|row| row.address == *node);
    row.map(|row| row.id).ok_or_else(|| PgError::internal("a node that was just added is gone"))
}

/// Tables of one shard that all these nodes hold which hold any. With one node that is each table of one shard.
fn reference_tables(nodes: &[NodeAddress]) -> Vec<Rc<DistributedTable>> {
    let tables = catalog::distributed_tables().into_iter().filter_map(catalog::find);
    let tables: Vec<_> = tables.filter(|table| table.check().is_ok()).collect();
    let holders: Vec<&NodeAddress> = nodes
        .iter()
        .filter(|node| tables.iter().any(|table| table.nodes().contains(node)))
        .collect();
    let is_reference = |table: &Rc<DistributedTable>| {
        let holds = |node: &&NodeAddress| table.placements[0].iter().any(|it| it.node == **node);
        table.map.len() == 1 && !table.is_partitioned && holders.iter().all(holds)
    };
    tables.iter().filter(|table| is_reference(table)).cloned().collect()
}

/// Makes a placement of a table of one shard on a node, which had none. Writers wait.
fn place(table: &DistributedTable, node: &NodeAddress) -> Result<(), PgError> {
    let shard = table.shard_id(0);
    if table.placements[0].iter().any(|placement| placement.node == *node) {
        return Ok(());
    }
    let down = nodes::down();
    let mut healthy: Vec<NodeAddress> = table.healthy(0).map(|it| it.node.clone()).collect();
    healthy.sort_by_key(|node| down.contains(node));
    let Some(source) = healthy.into_iter().next() else {
        return Err(PgError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("reference table \"{}\" has no healthy placement", table.name),
        ));
    };
    change_metadata(&format!(
        "INSERT INTO pgs_distribution_metadata.shard_placement (shard_id, shard_state, node_name, node_port) \
         VALUES ({}, 3, {}, {})",
        shard.0,
        literal(&node.host),
        node.port
    ))?;
    repair::repair(shard, &source, node).map(drop)
}

fn remove(node: &NodeAddress) -> Result<(), PgError> {
    let node = known(&node.host, node.port)?;
    if worker_list::read().unwrap_or_default().contains(&node) {
        return Err(in_use(format!("node \"{node}\" stands in the worker list file"))
            .hint("Remove its line from pg_worker_list.conf first."));
    }
    // Nobody marks the placements that remain as long as this transaction lasts.
    health::lock_marks();
    let mut kept: Vec<String> = Vec::new();
    let mut gone: Vec<ShardId> = Vec::new();
    for table in catalog::distributed_tables().into_iter().filter_map(catalog::find) {
        let (mut is_kept, mut shards) = (false, Vec::new());
        for index in 0..table.map.len() {
            let placements = catalog::current_placements(table.shard_id(index));
            let is_healthy = |state| state == PlacementState::Healthy;
            if placements.iter().any(|it| it.node == node) {
                shards.push(table.shard_id(index));
                is_kept |= !placements.iter().any(|it| it.node != node && is_healthy(it.state));
            }
        }
        if is_kept {
            kept.push(format!("\"{}\"", table.name));
        }
        gone.extend(shards);
    }
    if !kept.is_empty() {
        return Err(in_use(format!("node \"{node}\" holds the last healthy placement of shards"))
            .detail(format!("The tables are: {}.", kept.join(", ")))
            .hint("drain_node moves them to other nodes."));
    }
    if !gone.is_empty() {
        pg::sys::error::notice(PgError::new(
            SqlState::SUCCESSFUL_COMPLETION,
            format!("{} shards remain as tables on node \"{node}\"", gone.len()),
        ));
    }
    change_metadata(&format!(
        "DELETE FROM pgs_distribution_metadata.shard_placement WHERE node_name = {0} AND node_port = {1}; \
         DELETE FROM pgs_catalog.orphaned_shard WHERE node_name = {0} AND node_port = {1}; \
         DELETE FROM pgs_catalog.node WHERE {2}",
        literal(&node.host),
        node.port,
        is(&node)
    ))
}

fn in_use(message: String) -> PgError {
    PgError::new(SqlState::OBJECT_IN_USE, message)
}

/// The node gives its placements away from now on, or no longer.
pub(super) fn mark_draining(node: &NodeAddress, is_draining: bool) -> Result<(), PgError> {
    write_row(node)?;
    change_metadata(&format!(
        "UPDATE pgs_catalog.node SET is_draining = {is_draining} WHERE {}",
        is(node)
    ))
}
