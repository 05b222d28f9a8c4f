//! Nodes that stay away: after `pg_shard.replace_after` the placements of a node that is down are made anew on other nodes, where a
//! healthy placement is left and a node has room. What the node still has of them when it is back is dropped.

use super::attempts::{CANCELS, Repairs};
use crate::catalog;
use crate::nodes::{self, shares};
use crate::relocation::{self, Orphan};
use crate::session::{NoSession, Session};
use crate::settings;
use crate::transaction::NodeFailure;
use pg::catalog::{privileged, table};
use pg::server::resolver;
use pg::server::rounds::Visit;
use pg::{PgError, SqlState};
use shardmap::NodeAddress;

/// The nodes that are down for so long, and hold placements of shards that are left elsewhere. A table of one shard is a reference
/// table, or has nothing left.
fn lost_nodes(seconds: u64) -> String {
    format!(
        "SELECT n.name, n.port FROM pgs_catalog.node AS n \
          WHERE n.health OPERATOR(pg_catalog.=) 'down' \
            AND n.since OPERATOR(pg_catalog.<=) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => {seconds})) \
            AND EXISTS (SELECT FROM pgs_distribution_metadata.shard_placement AS p \
                   JOIN pgs_distribution_metadata.shard AS s ON s.id OPERATOR(pg_catalog.=) p.shard_id \
                  WHERE p.node_name OPERATOR(pg_catalog.=) n.name AND p.node_port OPERATOR(pg_catalog.=) n.port \
                    AND EXISTS (SELECT FROM pgs_distribution_metadata.shard_placement AS o \
                          WHERE o.shard_id OPERATOR(pg_catalog.=) s.id AND o.id OPERATOR(pg_catalog.<>) p.id \
                            AND o.shard_state OPERATOR(pg_catalog.=) 1) \
                    AND EXISTS (SELECT FROM pgs_distribution_metadata.shard AS t \
                          WHERE t.relation_id OPERATOR(pg_catalog.=) s.relation_id AND t.id OPERATOR(pg_catalog.<>) s.id)) \
          ORDER BY n.since"
    )
}

/// The nodes whose placements are to be made anew.
pub(super) fn due() -> Result<Vec<NodeAddress>, PgError> {
    let Some(limit) = settings::replace_after() else { return Ok(Vec::new()) };
    let down = nodes::down();
    if down.is_empty() || catalog::metadata().is_none() {
        return Ok(Vec::new());
    }
    let mut found: Vec<NodeAddress> = Vec::new();
    privileged::read_catalogs(|client| {
        for row in client.select(&lost_nodes(limit.as_secs()), None, &[])? {
            let host = row.get::<String>(1)?.unwrap_or_default();
            found.push(NodeAddress { host: host.as_str().into(), port: row.get(2)?.unwrap_or(0) });
        }
        Ok::<(), pgrx::spi::Error>(())
    })
    .map_err(|error| PgError::internal(error.to_string()))?;
    found.retain(|node| down.contains(node));
    Ok(found)
}

/// Sends for the visitor if placements are to be made anew, or dropped, in a transaction.
pub(crate) fn send_if_lost() -> Result<(), PgError> {
    if settings::repair_naptime().is_some() && !(due()?.is_empty() && orphans()?.is_empty()) {
        resolver::note_stale();
    }
    Ok(())
}

/// Shards to be dropped on nodes that answer.
pub(super) fn orphans() -> Result<Vec<Orphan>, PgError> {
    let down = nodes::down();
    let mut found = Orphan::all()?;
    found.retain(|orphan| !down.contains(&orphan.node));
    Ok(found)
}

/// The watcher may not have looked since this server has started.
fn answers(node: &NodeAddress) -> bool {
    let Some(owner) = table::relation_oid("pgs_catalog", "node").and_then(table::owner) else {
        return false;
    };
    let asked = crate::session::pool::logged_in_as(owner, || Session::open(node));
    matches!(asked, Ok(_) | Err(NoSession::Refused(_)))
}

impl Repairs {
    /// Makes placements of lost nodes anew.
    pub(super) fn replace(&mut self, visit: &Visit, lost: &[NodeAddress]) {
        let lost: Vec<NodeAddress> =
            lost.iter().filter(|node| !self.lost.hold(node)).cloned().collect();
        if lost.is_empty() {
            return;
        }
        let plan = visit.in_transaction(|| {
            be_brief();
            let gone: Vec<NodeAddress> =
                lost.iter().filter(|node| !answers(node)).cloned().collect();
            shares::replacements(&gone)
        });
        match plan {
            Ok(steps) => {
                // What has no room elsewhere is looked at again after a while.
                for node in lost.iter().filter(|node| !steps.iter().any(|it| it.lost == **node)) {
                    self.lost.pause(node);
                }
                for step in &steps {
                    self.carry_out(visit, step);
                }
            }
            Err(error) => {
                lost.iter().for_each(|node| self.lost.pause(node));
                self.say(&error);
            }
        }
    }

    fn carry_out(&mut self, visit: &Visit, step: &shares::Replacement) {
        if self.pauses.hold(&step.source) || self.pauses.hold(&step.target) {
            return;
        }
        visit.tell(&format!(
            "pg_shard: replacing shard {} of table {} of node {} on node {}",
            step.shard.0, step.table, step.lost, step.target
        ));
        let cancels = *self.cancels(step.shard, &step.target);
        visit.yields(cancels < CANCELS);
        let outcome = visit.in_transaction(|| {
            be_brief();
            if !nodes::down().contains(&step.lost) {
                return Ok(false);
            }
            relocation::replace(step.shard, &step.source, &step.lost, &step.target)?;
            Ok(true)
        });
        visit.yields(true);
        match outcome {
            Ok(false) => {}
            Ok(true) => {
                *self.cancels(step.shard, &step.target) = 0;
                pg::sys::error::log(PgError::new(
                    SqlState::SUCCESSFUL_COMPLETION,
                    format!(
                        "replaced the placements of shard {} of table \"{}\" and those beside it on node \"{}\" by new ones on node \"{}\"",
                        step.shard.0, step.table, step.lost, step.target
                    ),
                ));
            }
            Err(error) if error.sqlstate() == SqlState::QUERY_CANCELED => {
                *self.cancels(step.shard, &step.target) += 1;
            }
            Err(error) => {
                self.lost.pause(&step.lost);
                self.say(&failed(step, &error));
            }
        }
    }

    /// Drops what nodes still have of shards that are elsewhere now.
    pub(super) fn discard(&mut self, visit: &Visit, orphans: &[Orphan]) {
        for orphan in orphans {
            if self.pauses.hold(&orphan.node) {
                continue;
            }
            let outcome = visit.in_transaction(|| {
                be_brief();
                relocation::discard(orphan).map_err(|failure| match failure {
                    NodeFailure::Unreachable(error) | NodeFailure::Error(error) => error,
                })
            });
            match outcome {
                Ok(_) => {}
                Err(error) if error.sqlstate() == SqlState::QUERY_CANCELED => {}
                Err(error) => {
                    self.pauses.pause(&orphan.node);
                    let text = format!(
                        "could not drop {} on node \"{}\", where it is no placement any more: {}",
                        orphan.name(),
                        orphan.node,
                        error.message()
                    );
                    self.say(&PgError::new(error.sqlstate(), text));
                }
            }
        }
    }
}

/// A node that is silent must not keep the others waiting.
fn be_brief() {
    privileged::set_for_transaction(c"pg_shard.connect_timeout", c"1s");
}

fn failed(step: &shares::Replacement, error: &PgError) -> PgError {
    let said = error.detail_text().map_or_else(String::new, |detail| format!(": {detail}"));
    PgError::new(
        error.sqlstate(),
        format!("could not replace placements of node \"{}\": {}", step.lost, error.message()),
    )
    .detail(format!(
        "The first is shard {} of table \"{}\"{said} It will be tried again, and not be told again while the reason stays the same.",
        step.shard.0, step.table
    ))
}
