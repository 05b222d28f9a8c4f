//! Looking a cluster over that somebody else has made: by what its servers say of themselves, over SQL alone.
//!
//! The coordinator is asked for its nodes and its metadata, and each node for its settings, its clock and its age, with the user,
//! password and database of the URL. Each finding comes with what mends it.

use crate::error::ClusterError;
use crate::error::message_of;
use crate::reach::Reach;
use postgres::Client;
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// So many transactions are left before PostgreSQL stops, and something must be done about it.
const OLD: i64 = 1_000_000_000;

/// Clocks may differ by so many seconds: commits wait for the one that is ahead.
const APART: f64 = 1.0;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Warning,
    /// Something does not work.
    Error,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where: `coordinator`, or a node's name and port.
    pub node: String,
    /// What it is.
    pub what: String,
    /// SQL, or an action, that mends it.
    pub mend: String,
}

/// A node, as the coordinator and itself describe it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Examined {
    /// `coordinator`, or its name and port.
    pub node: String,
    /// What the coordinator's watcher thinks of it.
    pub state: String,
    /// PostgreSQL's version; none if it cannot be reached from here.
    pub version: Option<String>,
    /// How large its database is.
    pub bytes: Option<i64>,
    /// How many placements it holds, and how many of these are inactive.
    pub placements: i64,
    /// See `placements`.
    pub inactive: i64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The coordinator first.
    pub nodes: Vec<Examined>,
    /// The worst first.
    pub findings: Vec<Finding>,
}

/// What a server says of itself.
struct Facts {
    version: String,
    major: i32,
    max_prepared: i32,
    max_connections: i32,
    is_preloaded: bool,
    age: i64,
    bytes: i64,
    /// How far its clock is ahead of ours, in seconds.
    ahead: f64,
}

const FACTS: &str = "SELECT current_setting('server_version'), current_setting('server_version_num')::int4 / 10000, \
     current_setting('max_prepared_transactions')::int4, current_setting('max_connections')::int4, \
     current_setting('shared_preload_libraries') ~ '(^|[ ,\"/])pg_shard([ ,\"]|$)', \
     (SELECT max(age(datfrozenxid))::int8 FROM pg_catalog.pg_database), pg_catalog.pg_database_size(current_database()), \
     extract(epoch FROM clock_timestamp())::float8";

/// Looks over the cluster whose coordinator the URL leads to.
///
/// # Errors
///
/// If the coordinator cannot be reached, or is none.
pub fn examine(url: &str) -> Result<Report, ClusterError> {
    let unreachable = |error: postgres::Error| no_coordinator(&error);
    let (reach, mut client) = connect(url)?;
    let mut report = Report::default();
    let own = facts(&mut client).map_err(unreachable)?;
    report.nodes.push(examined("coordinator", "up", Some(&own), (0, 0)));
    report.look_at("coordinator", &own, None);
    if !own.is_preloaded {
        report.add(
            Severity::Error,
            "coordinator",
            "the library is not preloaded",
            "ALTER SYSTEM SET shared_preload_libraries = 'pg_shard'; and restart the server",
        );
    }
    report.ask_coordinator(&mut client, &reach, &own).map_err(unreachable)?;
    report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(report)
}

/// A session to the coordinator that the URL leads to, and how it was reached.
pub(crate) fn connect(url: &str) -> Result<(Reach, Client), ClusterError> {
    let reach = Reach::of(url)?;
    let client = reach.connect().map_err(|error| no_coordinator(&error))?;
    Ok((reach, client))
}

/// What a coordinator that does not answer as it should is reported as.
pub(crate) fn no_coordinator(error: &postgres::Error) -> ClusterError {
    ClusterError::NoCoordinator { reason: message_of(error) }
}

fn facts(client: &mut Client) -> Result<Facts, postgres::Error> {
    let before = now();
    let row = client.query_one(FACTS, &[])?;
    let middle = f64::midpoint(before, now());
    Ok(Facts {
        version: row.get(0),
        major: row.get(1),
        max_prepared: row.get(2),
        max_connections: row.get(3),
        is_preloaded: row.get(4),
        age: row.get(5),
        bytes: row.get(6),
        ahead: row.get::<_, f64>(7) - middle,
    })
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn examined(node: &str, state: &str, facts: Option<&Facts>, placements: (i64, i64)) -> Examined {
    Examined {
        node: node.to_owned(),
        state: state.to_owned(),
        version: facts.map(|facts| facts.version.clone()),
        bytes: facts.map(|facts| facts.bytes),
        placements: placements.0,
        inactive: placements.1,
    }
}

impl Report {
    fn add(
        &mut self,
        severity: Severity,
        node: &str,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        let (what, mend) = (what.into(), mend.into());
        self.findings.push(Finding { severity, node: node.to_owned(), what, mend });
    }

    fn ask_coordinator(
        &mut self,
        client: &mut Client,
        reach: &Reach,
        own: &Facts,
    ) -> Result<(), postgres::Error> {
        let nodes = client.query(
            "SELECT name, port, host, host_port, state, health, last_error, placements, inactive FROM pgs_catalog.nodes ORDER BY 1, 2",
            &[],
        )?;
        for row in nodes {
            let (name, port): (String, i32) = (row.get(0), row.get(1));
            let node = format!("{name}:{port}");
            let placements: (i64, i64) = (row.get(7), row.get(8));
            // One that is suspected may have been slow once.
            if row.get::<_, String>(5) == "down" {
                let error: Option<String> = row.get(6);
                self.add(
                    Severity::Error,
                    &node,
                    format!("the coordinator gets no answer: {}", error.unwrap_or_default()),
                    format!("start the server; or, if it is lost, CALL pgs_catalog.drain_node('{name}', {port});"),
                );
            }
            let facts = self.reach(&node, reach, &row.get::<_, String>(2), row.get(3));
            if let Some(facts) = &facts {
                self.look_at(&node, facts, Some(own));
            }
            self.nodes.push(examined(&node, &row.get::<_, String>(4), facts.as_ref(), placements));
        }
        self.ask_for_stale_placements(client)?;
        self.ask_for_doubt(client)
    }

    /// Asks a node for its facts, as the user of the URL.
    fn reach(&mut self, node: &str, coordinator: &Reach, host: &str, port: i32) -> Option<Facts> {
        let port = u16::try_from(port).unwrap_or(5432);
        match coordinator.connect_to(host, port).and_then(|mut client| facts(&mut client)) {
            Ok(facts) => Some(facts),
            Err(error) => {
                let what = format!("it cannot be reached from here: {}", message_of(&error));
                self.add(
                    Severity::Warning,
                    node,
                    what,
                    "start the server, or run this where it can be reached",
                );
                None
            }
        }
    }

    fn look_at(&mut self, node: &str, facts: &Facts, coordinator: Option<&Facts>) {
        if facts.max_prepared < facts.max_connections {
            let severity =
                if facts.max_prepared == 0 { Severity::Error } else { Severity::Warning };
            let what = format!(
                "max_prepared_transactions is {}, below max_connections",
                facts.max_prepared
            );
            let mend = format!(
                "ALTER SYSTEM SET max_prepared_transactions = {}; and restart the server",
                facts.max_connections
            );
            self.add(severity, node, what, mend);
        }
        if facts.age > OLD {
            let what = format!("its oldest database is {} transactions old", facts.age);
            self.add(
                Severity::Error,
                node,
                what,
                "VACUUM FREEZE; and look for old transactions, slots and prepared transactions",
            );
        }
        let Some(coordinator) = coordinator else { return };
        if facts.major < coordinator.major {
            let what = format!(
                "it runs PostgreSQL {}, the coordinator {}",
                facts.version, coordinator.version
            );
            self.add(
                Severity::Error,
                node,
                what,
                "upgrade the node: workers come before the coordinator",
            );
        }
        if !facts.is_preloaded {
            self.add(
                Severity::Warning,
                node,
                "the library is not preloaded: reads over several nodes are not of one time",
                "ALTER SYSTEM SET shared_preload_libraries = 'pg_shard'; and restart the server",
            );
        }
        let apart = facts.ahead - coordinator.ahead;
        if apart.abs() > APART {
            let what = format!("its clock is {apart:.1} s from the coordinator's");
            self.add(Severity::Warning, node, what, "have both servers' clocks set by NTP");
        }
    }

    fn ask_for_stale_placements(&mut self, client: &mut Client) -> Result<(), postgres::Error> {
        let rows = client.query(
            "SELECT p.node_name || ':' || p.node_port, s.relation_id::regclass::text, p.shard_id, \
                    (SELECT format('SELECT master_copy_shard_placement(%s, %L, %s, %L, %s);', p.shard_id, h.node_name, h.node_port, \
                                   p.node_name, p.node_port) \
                       FROM pgs_distribution_metadata.shard_placement h \
                      WHERE h.shard_id = p.shard_id AND h.shard_state = 1 ORDER BY h.id LIMIT 1) \
               FROM pgs_distribution_metadata.shard_placement p JOIN pgs_distribution_metadata.shard s ON s.id = p.shard_id \
              WHERE p.shard_state <> 1 ORDER BY 1, 2, 3",
            &[],
        )?;
        for row in rows {
            let what = format!(
                "the placement of shard {} of table {} is inactive",
                row.get::<_, i64>(2),
                row.get::<_, String>(1)
            );
            match row.get::<_, Option<String>>(3) {
                Some(mend) => self.add(Severity::Warning, &row.get::<_, String>(0), what, mend),
                None => self.add(
                    Severity::Error,
                    &row.get::<_, String>(0),
                    format!("{what}, and no other is healthy"),
                    "restore the shard, then set shard_state to 1",
                ),
            }
        }
        Ok(())
    }

    fn ask_for_doubt(&mut self, client: &mut Client) -> Result<(), postgres::Error> {
        let rows = client.query(
            "SELECT node_name || ':' || node_port, gid, command FROM pgs_catalog.in_doubt WHERE age > interval '1 minute'",
            &[],
        )?;
        for row in rows {
            let what = format!(
                "transaction {} has been prepared for more than a minute",
                row.get::<_, String>(1)
            );
            self.add(
                Severity::Error,
                &row.get::<_, String>(0),
                what,
                format!("{};", row.get::<_, String>(2)),
            );
        }
        Ok(())
    }
}
