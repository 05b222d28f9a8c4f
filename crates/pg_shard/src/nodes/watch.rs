//! Watching nodes: a visitor ([`pg::server::resolver`]) stays in the database and asks each node every
//! `pg_shard.health_interval` whether it answers.
//!
//! A node that does not is suspected, and after a while down (`shardmap/src/health.rs`). Both stand in `pgs_catalog.node`; that it is
//! down is also in shared memory, where readers find it, so that none of them has to wait for a frozen node to find out.

use super::{all, number, rows};
use crate::functions::literal;
use crate::repair;
use crate::session::alive::ping::Pings;
use crate::session::pool;
use crate::settings;
use pg::catalog::{privileged, table};
use pg::server::down;
use pg::server::rounds::Visit;
use pg::{PgError, SqlState};
use shardmap::NodeAddress;
use shardmap::health::{Course, Health};
use shardmap::metadata::is_plausible;
use std::collections::HashMap;

/// So many looks without a node, and there is nothing to watch.
const PATIENCE: u32 = 10;

#[derive(Default)]
struct Watch {
    pings: Pings,
    courses: HashMap<NodeAddress, Course>,
}

/// The visit of a database.
pub(crate) fn visit(visit: &Visit) {
    let mut watch = Watch::default();
    let mut idle = 0;
    while let Some(interval) = settings::health_interval() {
        match visit.in_transaction(|| watch.look()) {
            Ok(true) => idle = 0,
            // Whoever has sent for us may not have committed yet.
            Ok(false) if idle < PATIENCE => idle += 1,
            Ok(false) => return,
            Err(error) => {
                pg::sys::error::log(error);
                return;
            }
        }
        visit.rest(interval);
    }
}

impl Watch {
    /// Asks all nodes; false if there are none.
    fn look(&mut self) -> Result<bool, PgError> {
        let Some(owner) = table::relation_oid("pgs_catalog", "node").and_then(table::owner) else {
            return Ok(false);
        };
        privileged::set_for_transaction(c"lock_timeout", c"1s");
        let nodes: Vec<NodeAddress> = all().into_iter().filter(is_plausible).collect();
        if nodes.is_empty() {
            return Ok(false);
        }
        self.fill(&nodes)?;
        let answers = pool::logged_in_as(owner, || self.pings.ask(&nodes));
        for (node, answer) in nodes.iter().zip(answers) {
            let course = self.courses.entry(node.clone()).or_insert_with(|| Course::from("up"));
            if let Some(health) = course.note(answer.is_ok()) {
                note(node, health, answer.err().as_ref())?;
            }
        }
        repair::send_if_lost()?;
        Ok(true)
    }

    /// Writes down nodes that are not in the table, and takes up what is said there of the others.
    fn fill(&mut self, nodes: &[NodeAddress]) -> Result<(), PgError> {
        let known = rows();
        let missing: Vec<String> = nodes
            .iter()
            .filter(|node| !known.iter().any(|row| row.address == **node))
            .map(|node| format!("({}, {})", literal(&node.host), node.port))
            .collect();
        if !missing.is_empty() {
            privileged::run(&format!(
                "INSERT INTO pgs_catalog.node (name, port) VALUES {} ON CONFLICT (name, port) DO NOTHING",
                missing.join(", ")
            ))?;
        }
        for row in known {
            let place = number(&row.address);
            self.courses.entry(row.address).or_insert_with(|| {
                let course = Course::from(&row.health);
                down::note(place, course.health() == Health::Down);
                course
            });
        }
        self.courses.retain(|node, _| nodes.contains(node));
        Ok(())
    }
}

/// Says what is thought of a node now.
fn note(node: &NodeAddress, health: Health, error: Option<&PgError>) -> Result<(), PgError> {
    down::note(number(node), health == Health::Down);
    let reason = error.map(|error| error.message().trim().to_owned());
    privileged::run(&format!(
        "UPDATE pgs_catalog.node SET health = '{health}', since = pg_catalog.now(), last_error = coalesce({}, last_error) \
         WHERE name = {} AND port = {}",
        reason.as_deref().map_or_else(|| "NULL".to_owned(), literal),
        literal(&node.host),
        node.port
    ))?;
    if health == Health::Up {
        // What it has missed is repaired at once.
        repair::send_if_stale()?;
    }
    let line = match health {
        Health::Up => format!("node \"{node}\" answers"),
        Health::Suspected => format!("node \"{node}\" does not answer"),
        Health::Down => format!("node \"{node}\" is down"),
    };
    let line = PgError::new(SqlState::SUCCESSFUL_COMPLETION, line);
    pg::sys::error::log(match reason {
        Some(reason) => line.detail(reason),
        None => line,
    });
    Ok(())
}
