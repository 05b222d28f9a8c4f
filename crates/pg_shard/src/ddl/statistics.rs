//! VACUUM and ANALYZE of distributed tables: of all healthy placements of their shards, all nodes at once.
//!
//! PostgreSQL has run the statement on the coordinator's own tables before, and has refused or warned where it should.
//! ANALYZE then brings the shards' row counts here, and what a sample of the rows says of the columns; both are kept where
//! PostgreSQL keeps them for any table, so every session's planner sees them. How many changes of rows the shards had counted by then
//! stands in `pgs_catalog.statistics`.

use super::at_once::everywhere;
use crate::catalog::{self, DistributedTable, quote};
use crate::owner::{self, Purpose};
use crate::session::pool;
use pg::catalog::privileged;
use pg::catalog::statistics::{self, Known};
use pg::server::utility::Vacuum;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::NodeAddress;
use std::rc::Rc;

/// What all shards of a table come to.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    rows: f64,
    pages: f64,
    /// Different values of the distribution column: no value is in two shards.
    keys: f64,
    /// Rows that were ever inserted, updated or deleted.
    changes: f64,
}

/// Runs the statement on the shards of the distributed tables that it concerns.
pub(super) fn on_shards(vacuum: &Vacuum) -> Result<(), PgError> {
    let named = match &vacuum.tables {
        Some(tables) => tables.clone(),
        None => catalog::distributed_tables().into_iter().map(|oid| (oid, Vec::new())).collect(),
    };
    for (oid, columns) in named {
        let Some(table) = catalog::find(oid).filter(|table| !table.map.is_empty()) else {
            continue;
        };
        // PostgreSQL has warned already.
        if !statistics::may_analyze(oid) {
            continue;
        }
        if vacuum.tables.is_none()
            && let Err(error) = table.check()
        {
            pg::sys::error::warning(error);
            continue;
        }
        table.check()?;
        run(vacuum, &table, &columns)?;
        if vacuum.analyzes {
            bring(&table, columns, true)?;
        }
    }
    Ok(())
}

/// Brings what the shards' ANALYZE has found here; whether somebody else's lock on the table is waited for.
pub(super) fn bring(
    table: &Rc<DistributedTable>,
    columns: Vec<String>,
    waits: bool,
) -> Result<(), PgError> {
    let counts = count(table)?;
    let is_all = columns.is_empty();
    let mut known = Known {
        table: table.oid,
        columns,
        rows: counts.rows,
        pages: counts.pages,
        distinct: (table.key.column, counts.keys),
        waits,
        has_sample: true,
    };
    if owner::is_needed(table)? {
        let gathered = owner::acting(table, Purpose::Read, || statistics::gather(&known));
        match gathered {
            Err(error) if error.sqlstate() == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => {
                pg::sys::error::warning(error);
                known.has_sample = false;
                statistics::gather(&known)?;
            }
            outcome => outcome?,
        }
    } else {
        statistics::gather(&known)?;
    }
    if is_all { remember(table.oid, counts.changes) } else { Ok(()) }
}

/// Notes how many changes had been counted when the statistics were brought.
pub(super) fn remember(table: Oid, changes: f64) -> Result<(), PgError> {
    // ANALYZE may run where nothing may be written; then the statistics seem older than they are.
    if pg::server::transaction::is_read_only() {
        return Ok(());
    }
    privileged::run(&format!(
        "INSERT INTO pgs_catalog.statistics AS s VALUES ({}, {changes:.0}, pg_catalog.now()) \
             ON CONFLICT (relation_id) DO UPDATE SET changes = excluded.changes, brought = excluded.brought",
        table.to_u32()
    ))
}

/// The command on all healthy placements.
fn run(vacuum: &Vacuum, table: &Rc<DistributedTable>, columns: &[String]) -> Result<(), PgError> {
    let mut nodes: Vec<(NodeAddress, Vec<usize>)> = Vec::new();
    for index in 0..table.map.len() {
        for placement in table.healthy(index) {
            add(&mut nodes, &placement.node, index);
        }
    }
    let columns: Vec<String> = columns.iter().map(|name| quote(name)).collect();
    let columns =
        if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
    let statements = nodes.iter().map(|(node, shards)| {
        let names: Vec<String> =
            shards.iter().map(|index| format!("{}{columns}", table.shard_name(*index))).collect();
        (node.clone(), shards[0], format!("{} {}", vacuum.command, names.join(", ")))
    });
    for (node, error) in everywhere(table, statements.collect(), &mut |_| {})? {
        pg::sys::error::warning(pool::connection_failed(&node, &error));
    }
    Ok(())
}

/// What the first reachable placements of the shards say after ANALYZE.
fn count(table: &Rc<DistributedTable>) -> Result<Counts, PgError> {
    let mut counts = Counts::default();
    let mut left: Vec<usize> = (0..table.map.len()).collect();
    let mut gone: Vec<NodeAddress> = Vec::new();
    while !left.is_empty() {
        let mut nodes: Vec<(NodeAddress, Vec<usize>)> = Vec::new();
        for index in left.drain(..) {
            if let Some(placement) = table.healthy(index).find(|it| !gone.contains(&it.node)) {
                add(&mut nodes, &placement.node, index);
            }
        }
        let statements = nodes
            .iter()
            .map(|(node, shards)| (node.clone(), shards[0], count_query(table, shards)))
            .collect();
        let unreachable = everywhere(table, statements, &mut |text| {
            let mut numbers = text.split(' ').map(|number| number.parse().unwrap_or(0.0));
            let mut next = || numbers.next().unwrap_or(0.0);
            counts.rows += next();
            counts.pages += next();
            counts.keys += next();
            counts.changes += next();
        })?;
        for (node, shards) in nodes {
            if unreachable.iter().any(|(lost, _)| *lost == node) {
                left.extend(shards);
                gone.push(node);
            }
        }
    }
    Ok(counts)
}

/// Rows, pages and different keys of some shards of a node, as one text.
fn count_query(table: &DistributedTable, shards: &[usize]) -> String {
    let names: Vec<String> = shards
        .iter()
        .map(|index| {
            crate::functions::literal(&format!("{}_{}", table.name, table.shard_id(*index).0))
        })
        .collect();
    format!(
        "SELECT concat_ws(' ', sum(greatest(c.reltuples, 0)), sum(c.relpages), \
                coalesce(sum(CASE WHEN s.n_distinct < 0 THEN -s.n_distinct * greatest(c.reltuples, 0) ELSE s.n_distinct END), 0), \
                sum({CHANGES})) \
           FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
           LEFT JOIN pg_stats AS s ON s.schemaname = n.nspname AND s.tablename = c.relname \
                AND s.attname = {key} AND NOT s.inherited \
          WHERE n.nspname = {schema} AND c.relname IN ({names})",
        key = crate::functions::literal(&table.key_name),
        schema = crate::functions::literal(&table.schema),
        names = names.join(", "),
    )
}

/// Rows of a shard that were ever inserted, updated or deleted, as the worker has counted them.
pub(super) const CHANGES: &str = "pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid)";

pub(super) fn add(nodes: &mut Vec<(NodeAddress, Vec<usize>)>, node: &NodeAddress, index: usize) {
    match nodes.iter_mut().find(|(known, _)| known == node) {
        Some((_, list)) => list.push(index),
        None => nodes.push((node.clone(), vec![index])),
    }
}
