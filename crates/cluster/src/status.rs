//! What the nodes do and where the shards are.
//!
//! Whether a node is up is read from its processes, so it is known when nothing answers. The shards are in the
//! coordinator's catalog (`pgs_distribution_metadata`) and can only be had from it: [`Shards`] says which it was.

use std::time::Duration;

use serde::Serialize;

use crate::cluster::Cluster;
use crate::error::message_of;
use crate::node_name::NodeName;
use crate::server::NodeState;

/// How long the coordinator may take, to connect and for each statement, before we report it as silent.
const PATIENCE: Duration = Duration::from_secs(5);

/// `shard_placement.shard_state` of a placement that is read and written.
const HEALTHY: i32 = 1;

/// `shard_placement.shard_state` of a placement that missed a write.
const INACTIVE: i32 = 3;

/// A cluster at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Where the cluster is.
    pub dir: std::path::PathBuf,
    /// The nodes, the coordinator first.
    pub nodes: Vec<NodeStatus>,
    /// The shards, if the coordinator told us.
    pub shards: Shards,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// Its name.
    pub node: NodeName,
    /// Its host name in `pg_worker_list.conf`; 127.0.0.1 for the coordinator.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether it is up.
    pub state: NodeState,
    /// The process that all others of the server descend from.
    pub pid: Option<i32>,
    /// The placements on it, if the coordinator told us.
    pub placements: Option<PlacementCounts>,
}

/// Placements by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PlacementCounts {
    /// Read and written.
    pub healthy: i64,
    /// Missed a write; not read until repaired.
    pub inactive: i64,
    /// In any other state.
    pub other: i64,
}

impl PlacementCounts {
    fn add(&mut self, state: i32, count: i64) {
        match state {
            HEALTHY => self.healthy += count,
            INACTIVE => self.inactive += count,
            _ => self.other += count,
        }
    }

    /// All of them.
    pub fn total(&self) -> i64 {
        self.healthy + self.inactive + self.other
    }
}

/// What is known of the shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shards {
    /// The coordinator's catalog.
    Known(ShardCounts),
    /// The coordinator could not be asked, or has no catalog.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// The coordinator's catalog in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShardCounts {
    /// How many shards there are.
    pub shards: i64,
    /// Shards without one healthy placement: their rows cannot be read.
    pub unreadable_shards: i64,
    /// Shards with fewer healthy placements than placements: one failure closer to unreadable.
    pub degraded_shards: i64,
    /// All placements.
    pub placements: PlacementCounts,
    /// Placements on nodes that are none of this cluster's.
    pub elsewhere: PlacementCounts,
    /// The distributed tables, by name.
    pub tables: Vec<TableStatus>,
}

/// One distributed table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableStatus {
    /// Its name, with its schema unless that is on the search path.
    pub table: String,
    /// How many shards it has.
    pub shards: i64,
    /// Their placements.
    pub placements: PlacementCounts,
}

/// Placements of one table on one node in one state.
struct PlacementRow {
    host: String,
    port: i32,
    table: String,
    state: i32,
    count: i64,
}

impl Cluster {
    /// What the nodes do and, if the coordinator answers, where the shards are.
    pub fn status(&self) -> Status {
        read(self)
    }
}

/// Looks at all nodes and asks the coordinator.
fn read(cluster: &Cluster) -> Status {
    let mut nodes: Vec<NodeStatus> =
        cluster.nodes().into_iter().map(|node| read_node(cluster, node)).collect();
    let shards = match nodes[0].state {
        NodeState::Up => match ask_coordinator(cluster) {
            Ok(Some(answer)) => Shards::Known(answer.count(&mut nodes)),
            Ok(None) => unknown(
                "the extension pg_shard is not created in database postgres of the coordinator",
            ),
            Err(error) => {
                unknown(&format!("the coordinator does not answer: {}", message_of(&error)))
            }
        },
        NodeState::Down => unknown("the coordinator is down"),
        NodeState::Paused => unknown("the coordinator is paused"),
    };
    Status { dir: cluster.dir().to_owned(), nodes, shards }
}

fn unknown(reason: &str) -> Shards {
    Shards::Unknown { reason: reason.to_owned() }
}

fn read_node(cluster: &Cluster, node: NodeName) -> NodeStatus {
    let host = match node {
        NodeName::Coordinator => "127.0.0.1",
        NodeName::Worker(_) => cluster.worker_host(),
    };
    NodeStatus {
        node,
        host: host.to_owned(),
        port: cluster.port(node),
        state: cluster.state(node).unwrap_or(NodeState::Down),
        pid: cluster.postmaster_pid(node).ok().flatten(),
        placements: None,
    }
}

/// What the catalog says.
struct Answer {
    shards: Vec<(String, i64)>,
    unreadable_shards: i64,
    degraded_shards: i64,
    placements: Vec<PlacementRow>,
}

/// Reads the catalog in one snapshot; `None` if there is none.
fn ask_coordinator(cluster: &Cluster) -> Result<Option<Answer>, postgres::Error> {
    let mut client = postgres::Config::new()
        .host("127.0.0.1")
        .port(cluster.port(NodeName::Coordinator))
        .user("postgres")
        .dbname("postgres")
        .application_name("pgshard status")
        .connect_timeout(PATIENCE)
        .options(&format!("-c statement_timeout={}", PATIENCE.as_millis()))
        .connect(postgres::NoTls)?;
    let mut snapshot = client
        .build_transaction()
        .isolation_level(postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()?;
    let catalog: bool = snapshot
        .query_one(
            "SELECT to_regclass('pgs_distribution_metadata.shard_placement') IS NOT NULL",
            &[],
        )?
        .get(0);
    if !catalog {
        return Ok(None);
    }
    let shards = snapshot.query(
        "SELECT relation_id::pg_catalog.regclass::text, pg_catalog.count(*)
         FROM pgs_distribution_metadata.shard GROUP BY relation_id ORDER BY 1",
        &[],
    )?;
    let health = snapshot.query_one(
        "SELECT pg_catalog.count(*) FILTER (WHERE healthy = 0),
                pg_catalog.count(*) FILTER (WHERE healthy > 0 AND healthy < placements)
         FROM (SELECT pg_catalog.count(*) FILTER (WHERE p.shard_state = $1) AS healthy,
                      pg_catalog.count(p.id) AS placements
               FROM pgs_distribution_metadata.shard AS s
               LEFT JOIN pgs_distribution_metadata.shard_placement AS p ON p.shard_id = s.id
               GROUP BY s.id) AS shards",
        &[&HEALTHY],
    )?;
    let placements = snapshot.query(
        "SELECT p.node_name::text, p.node_port::int4, s.relation_id::pg_catalog.regclass::text,
                p.shard_state::int4, pg_catalog.count(*)
         FROM pgs_distribution_metadata.shard_placement AS p
         JOIN pgs_distribution_metadata.shard AS s ON s.id = p.shard_id
         GROUP BY 1, 2, 3, 4",
        &[],
    )?;
    Ok(Some(Answer {
        shards: shards.iter().map(|row| (row.get(0), row.get(1))).collect(),
        unreadable_shards: health.get(0),
        degraded_shards: health.get(1),
        placements: placements
            .iter()
            .map(|row| PlacementRow {
                host: row.get(0),
                port: row.get(1),
                table: row.get(2),
                state: row.get(3),
                count: row.get(4),
            })
            .collect(),
    }))
}

impl Answer {
    /// Adds up the placements by node, by table and in all.
    fn count(self, nodes: &mut [NodeStatus]) -> ShardCounts {
        let mut counts = ShardCounts {
            shards: self.shards.iter().map(|(_, shards)| shards).sum(),
            unreadable_shards: self.unreadable_shards,
            degraded_shards: self.degraded_shards,
            tables: self
                .shards
                .into_iter()
                .map(|(table, shards)| TableStatus {
                    table,
                    shards,
                    placements: PlacementCounts::default(),
                })
                .collect(),
            ..ShardCounts::default()
        };
        for node in &mut *nodes {
            node.placements = Some(PlacementCounts::default());
        }
        for row in self.placements {
            counts.placements.add(row.state, row.count);
            if let Some(table) = counts.tables.iter_mut().find(|table| table.table == row.table) {
                table.placements.add(row.state, row.count);
            }
            let node = nodes.iter_mut().find(|node| {
                i32::from(node.port) == row.port && is_this_machine(&row.host, &node.host)
            });
            node.and_then(|node| node.placements.as_mut())
                .unwrap_or(&mut counts.elsewhere)
                .add(row.state, row.count);
        }
        counts
    }
}

/// Whether a placement's host is the node's; names of the loopback address are one.
fn is_this_machine(host: &str, node_host: &str) -> bool {
    host == node_host || ["localhost", "127.0.0.1", "::1"].contains(&host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(number: u16) -> NodeStatus {
        NodeStatus {
            node: NodeName::Worker(number),
            host: "localhost".to_owned(),
            port: 6000 + number,
            state: NodeState::Up,
            pid: Some(1),
            placements: None,
        }
    }

    fn placements(host: &str, port: i32, state: i32, count: i64) -> PlacementRow {
        PlacementRow { host: host.to_owned(), port, table: "orders".to_owned(), state, count }
    }

    #[test]
    fn placements_are_counted_by_node_by_table_and_in_all() {
        let mut nodes = [worker(1), worker(2)];
        let answer = Answer {
            shards: vec![("orders".to_owned(), 16)],
            unreadable_shards: 0,
            degraded_shards: 3,
            placements: vec![
                placements("localhost", 6001, 1, 16),
                placements("127.0.0.1", 6002, 1, 13),
                placements("127.0.0.1", 6002, 3, 3),
                placements("elsewhere", 6002, 4, 1),
            ],
        };
        let counts = answer.count(&mut nodes);
        assert_eq!(
            nodes[0].placements,
            Some(PlacementCounts { healthy: 16, inactive: 0, other: 0 })
        );
        assert_eq!(
            nodes[1].placements,
            Some(PlacementCounts { healthy: 13, inactive: 3, other: 0 })
        );
        assert_eq!(counts.elsewhere, PlacementCounts { healthy: 0, inactive: 0, other: 1 });
        assert_eq!(counts.placements, PlacementCounts { healthy: 29, inactive: 3, other: 1 });
        assert_eq!(counts.tables[0].placements, counts.placements);
    }
}
