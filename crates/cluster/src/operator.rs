//! A cluster that somebody else has made, at the hand of its operator: how it is, what it does, repairing and rebalancing it. All of it by
//! SQL that the coordinator answers, with the user, password and database of the URL.

use crate::doctor::{connect, no_coordinator};
use crate::error::{ClusterError, message_of};
use postgres::Client;
use serde::Serialize;

/// What a coordinator says of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// The nodes.
    pub nodes: Vec<OverviewNode>,
    /// The distributed tables that the user may read.
    pub tables: Vec<OverviewTable>,
    /// How many transactions over nodes are prepared somewhere.
    pub in_doubt: i64,
    /// What is being moved, copied or split.
    pub relocations: Vec<Doing>,
}

/// A node, as the coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OverviewNode {
    /// Its name and port.
    pub node: String,
    /// `up`, `draining` or `down`.
    pub state: String,
    /// What the watcher found: `up`, `suspected` or `down`.
    pub health: String,
    /// How many placements it holds.
    pub placements: i64,
    /// How many of these are inactive.
    pub inactive: i64,
}

/// A distributed table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OverviewTable {
    /// Its name with its schema.
    pub table: String,
    /// The column that its rows are distributed by.
    pub distribution_column: String,
    /// How many shards it has.
    pub shards: i64,
    /// How many placements these have.
    pub placements: i64,
    /// Bytes of one placement of each shard; none while a node is away.
    pub bytes: Option<i64>,
}

/// Something that a session of the coordinator has under way on nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Doing {
    /// The session's process.
    pub pid: i32,
    /// The session's user.
    pub user: String,
    /// What it does, and in which phase that is.
    pub what: String,
    /// The nodes that it waits for.
    pub waiting_for: Vec<String>,
    /// Bytes that have come from nodes and were sent to nodes.
    pub bytes: i64,
    /// For how many seconds it has done so.
    pub seconds: i64,
    /// The statement.
    pub statement: String,
}

/// A step of [`plan_rebalance`] or [`plan_repair`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The shard.
    pub shard: i64,
    /// Its table.
    pub table: String,
    /// The node that the rows come from.
    pub source: String,
    /// The node that gets them.
    pub target: String,
    /// How many bytes the placement has; none if nobody has counted.
    pub bytes: Option<i64>,
    /// What carries the step out.
    pub sql: String,
}

const NODES: &str = "SELECT name || ':' || port, state, health, placements::int8, inactive::int8 FROM pgs_catalog.nodes ORDER BY name, port";

const TABLES: &str = "SELECT pg_catalog.format('%I.%I', schema, \"table\"), distribution_column, shards::int8, placements::int8, bytes \
     FROM pgs_catalog.tables ORDER BY schema, \"table\"";

const REBALANCE: &str = "SELECT shard_id, table_name, source_name || ':' || source_port, target_name || ':' || target_port, bytes, \
     pg_catalog.format('SELECT pgs_catalog.move_shard(%s, %L, %s, %L, %s)', shard_id, source_name, source_port, target_name, target_port) \
     FROM pgs_catalog.plan_rebalance($1)";

const REPAIR: &str = "SELECT p.shard_id, s.relation_id::pg_catalog.regclass::text, h.node_name || ':' || h.node_port, \
            p.node_name || ':' || p.node_port, NULL::int8, \
            pg_catalog.format('SELECT master_copy_shard_placement(%s, %L, %s, %L, %s)', p.shard_id, h.node_name, h.node_port, p.node_name, p.node_port) \
       FROM pgs_distribution_metadata.shard_placement p JOIN pgs_distribution_metadata.shard s ON s.id = p.shard_id \
       CROSS JOIN LATERAL (SELECT node_name, node_port FROM pgs_distribution_metadata.shard_placement \
                            WHERE shard_id = p.shard_id AND shard_state = 1 ORDER BY id LIMIT 1) AS h \
      WHERE p.shard_state <> 1 ORDER BY p.shard_id, p.id";

fn doing(client: &mut Client, only_relocations: bool) -> Result<Vec<Doing>, postgres::Error> {
    let rows = client.query(
        "SELECT pid, \"user\"::text, kind, coalesce(waiting_for, '{}'), coalesce(bytes_received + bytes_sent, 0), \
                extract(epoch FROM clock_timestamp() - since)::int8, coalesce(statement, '') \
           FROM pgs_catalog.activity WHERE NOT $1 OR kind LIKE 'relocation: %' ORDER BY since, pid",
        &[&only_relocations],
    )?;
    let read = |row: &postgres::Row| Doing {
        pid: row.get(0),
        user: row.get(1),
        what: row.get(2),
        waiting_for: row.get(3),
        bytes: row.get(4),
        seconds: row.get(5),
        statement: row.get(6),
    };
    Ok(rows.iter().map(read).collect())
}

fn steps(rows: &[postgres::Row]) -> Vec<Step> {
    let read = |row: &postgres::Row| Step {
        shard: row.get(0),
        table: row.get(1),
        source: row.get(2),
        target: row.get(3),
        bytes: row.get(4),
        sql: row.get(5),
    };
    rows.iter().map(read).collect()
}

/// How the cluster is.
///
/// # Errors
///
/// If the coordinator cannot be reached, is none, or does not let the user see it.
pub fn overview(url: &str) -> Result<Overview, ClusterError> {
    let (_, mut client) = connect(url)?;
    let mut read = || -> Result<Overview, postgres::Error> {
        let nodes = client.query(NODES, &[])?;
        let tables = client.query(TABLES, &[])?;
        let in_doubt = client.query_one("SELECT count(*) FROM pgs_catalog.in_doubt", &[])?.get(0);
        let relocations = doing(&mut client, true)?;
        Ok(Overview {
            nodes: nodes
                .iter()
                .map(|row| OverviewNode {
                    node: row.get(0),
                    state: row.get(1),
                    health: row.get(2),
                    placements: row.get(3),
                    inactive: row.get(4),
                })
                .collect(),
            tables: tables
                .iter()
                .map(|row| OverviewTable {
                    table: row.get(0),
                    distribution_column: row.get(1),
                    shards: row.get(2),
                    placements: row.get(3),
                    bytes: row.get(4),
                })
                .collect(),
            in_doubt,
            relocations,
        })
    };
    read().map_err(|error| no_coordinator(&error))
}

/// What sessions of the coordinator have under way on nodes, the oldest first.
///
/// # Errors
///
/// If the coordinator cannot be reached, or is none.
pub fn activity(url: &str) -> Result<Vec<Doing>, ClusterError> {
    doing(&mut connect(url)?.1, false).map_err(|error| no_coordinator(&error))
}

/// The moves that even out what the nodes hold, `by` bytes or rows.
///
/// # Errors
///
/// If the coordinator cannot be reached or does not plan it.
pub fn plan_rebalance(url: &str, by: &str) -> Result<Vec<Step>, ClusterError> {
    let rows = connect(url)?.1.query(REBALANCE, &[&by]).map_err(|error| no_coordinator(&error))?;
    Ok(steps(&rows))
}

/// The repairs of all inactive placements of which another placement is healthy.
///
/// # Errors
///
/// If the coordinator cannot be reached or does not show its metadata.
pub fn plan_repair(url: &str) -> Result<Vec<Step>, ClusterError> {
    let rows = connect(url)?.1.query(REPAIR, &[]).map_err(|error| no_coordinator(&error))?;
    Ok(steps(&rows))
}

/// Carries out steps, each in a transaction of its own, and calls `after` with each that is done.
///
/// # Errors
///
/// The first step's that fails; those before it stay done.
pub fn carry_out(
    url: &str,
    steps: &[Step],
    mut after: impl FnMut(&Step),
) -> Result<(), ClusterError> {
    let (_, mut client) = connect(url)?;
    for step in steps {
        client.batch_execute(&step.sql).map_err(|error| ClusterError::Step {
            shard: step.shard,
            table: step.table.clone(),
            reason: message_of(&error),
        })?;
        after(step);
    }
    Ok(())
}
