//! Repairs that nobody has asked for: a visitor ([`pg::server::resolver`]) comes to a database with inactive placements and stays
//! until there are none. It repairs each as soon as its node is back, those first whose shards have the fewest healthy placements.
//! Placements of nodes that stay away it makes anew elsewhere ([`super::lost`]).
//!
//! Whoever waits for a lock of the visitor's for `deadlock_timeout` has it cancelled, as autovacuum is; so writers are never kept
//! for long. A repair that was cancelled several times is needed more than that, and then keeps its locks.

use super::attempts::{CANCELS, Repairs};
use super::lost;
use super::placement::{Done, approach, repair};
use crate::catalog;
use crate::relocation::Orphan;
use crate::settings;
use pg::catalog::privileged;
use pg::catalog::role;
use pg::server::resolver;
use pg::server::rounds::Visit;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::{NodeAddress, ShardId};

/// A placement that can be repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stale {
    shard: ShardId,
    owner: Oid,
    name: String,
    source: NodeAddress,
    target: NodeAddress,
}

/// Inactive placements that have a healthy one beside them. Where several are healthy the first is the source.
const STALE: &str = "SELECT p.shard_id, c.relowner, c.relname::text, h.node_name, h.node_port::int4, p.node_name, p.node_port::int4 \
    FROM pgs_distribution_metadata.shard_placement AS p \
    JOIN pgs_distribution_metadata.shard AS s ON s.id OPERATOR(pg_catalog.=) p.shard_id \
    JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) s.relation_id AND c.relkind OPERATOR(pg_catalog.=) 'r' \
    JOIN LATERAL (SELECT o.node_name, o.node_port, pg_catalog.count(*) OVER () AS healthy \
                    FROM pgs_distribution_metadata.shard_placement AS o \
                   WHERE o.shard_id OPERATOR(pg_catalog.=) p.shard_id AND o.shard_state OPERATOR(pg_catalog.=) 1 \
                   ORDER BY o.id LIMIT 1) AS h ON true \
   WHERE p.shard_state OPERATOR(pg_catalog.=) 3 \
   ORDER BY h.healthy, p.shard_id, p.id";

fn stale() -> Result<Vec<Stale>, PgError> {
    if catalog::metadata().is_none() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    privileged::read_catalogs(|client| {
        for row in client.select(STALE, None, &[])? {
            let text =
                |number| Ok::<_, pgrx::spi::Error>(row.get::<String>(number)?.unwrap_or_default());
            let node = |number| {
                Ok::<_, pgrx::spi::Error>(NodeAddress {
                    host: text(number)?.as_str().into(),
                    port: row.get(number + 1)?.unwrap_or(0),
                })
            };
            let (Some(shard), Some(owner)) = (row.get(1)?, row.get(2)?) else { continue };
            found.push(Stale {
                shard: ShardId(shard),
                owner,
                name: text(3)?,
                source: node(4)?,
                target: node(6)?,
            });
        }
        Ok::<(), pgrx::spi::Error>(())
    })
    .map_err(|error| PgError::internal(error.to_string()))?;
    Ok(found)
}

/// Sends for the visitor if there is anything for him to do, in a transaction.
pub(crate) fn send_if_stale() -> Result<(), PgError> {
    if settings::repair_naptime().is_some() && (!stale()?.is_empty() || !Orphan::all()?.is_empty())
    {
        resolver::note_stale();
    }
    Ok(())
}

/// What there is to do.
struct Work {
    stale: Vec<Stale>,
    lost: Vec<NodeAddress>,
    orphans: Vec<Orphan>,
}

impl Work {
    fn find() -> Result<Self, PgError> {
        Ok(Self { stale: stale()?, lost: lost::due()?, orphans: lost::orphans()? })
    }

    fn is_done(&self) -> bool {
        self.stale.is_empty() && self.lost.is_empty() && self.orphans.is_empty()
    }
}

/// The visit of a database.
pub(crate) fn visit(visit: &Visit) {
    let mut repairs = Repairs::default();
    while let Some(naptime) = settings::repair_naptime() {
        match visit.in_transaction(Work::find) {
            Ok(work) if work.is_done() => return,
            Ok(work) => {
                for placement in &work.stale {
                    repairs.attempt(visit, placement);
                }
                repairs.replace(visit, &work.lost);
                repairs.discard(visit, &work.orphans);
            }
            Err(error) => {
                pg::sys::error::log(error);
                return;
            }
        }
        visit.tell("pg_shard: waiting for nodes with inactive placements");
        visit.rest(naptime);
    }
}

impl Repairs {
    fn attempt(&mut self, visit: &Visit, stale: &Stale) {
        if self.pauses.hold(&stale.target) || self.pauses.hold(&stale.source) {
            return;
        }
        visit.tell(&format!(
            "pg_shard: repairing shard {} of table {} on node {}",
            stale.shard.0, stale.name, stale.target
        ));
        let cancels = *self.cancels(stale.shard, &stale.target);
        // What fails here fails below too, or did no harm.
        let before = visit.in_transaction(|| stale.acting(approach));
        if before.as_ref().is_err_and(|error| error.sqlstate() == SqlState::QUERY_CANCELED) {
            *self.cancels(stale.shard, &stale.target) += 1;
            return;
        }
        visit.yields(cancels < CANCELS);
        let outcome = visit.in_transaction(|| stale.acting(repair));
        visit.yields(true);
        match outcome {
            Ok(done) => {
                *self.cancels(stale.shard, &stale.target) = 0;
                self.pauses.end(&stale.target);
                stale.log(done, before.ok().flatten());
            }
            Err(error) if error.sqlstate() == SqlState::QUERY_CANCELED => {
                *self.cancels(stale.shard, &stale.target) += 1;
            }
            Err(error) => {
                self.pauses.pause(&stale.target);
                self.say(&stale.failed(&error));
            }
        }
    }
}

/// [`repair`] or [`approach`].
type Step<T> = fn(ShardId, &NodeAddress, &NodeAddress) -> Result<T, PgError>;

impl Stale {
    /// Runs a step as the owner, if he may log in on the nodes.
    fn acting<T>(&self, step: Step<T>) -> Result<T, PgError> {
        // A node that is silent must not keep the others waiting.
        privileged::set_for_transaction(c"pg_shard.connect_timeout", c"1s");
        let run = || step(self.shard, &self.source, &self.target);
        if role::can_log_in(self.owner) {
            privileged::as_restricted(self.owner, run)
        } else {
            run()
        }
    }

    fn log(&self, done: Done, before: Option<Done>) {
        let detail = match (before, done) {
            (_, Done::Whole) => "All rows were copied.".to_owned(),
            (
                Some(Done::Rows { sent, removed }),
                Done::Rows { sent: sent_last, removed: removed_last },
            ) => format!(
                "{} rows were sent and {} removed, {} of them while writers waited.",
                sent + sent_last,
                removed + removed_last,
                sent_last + removed_last
            ),
            (_, Done::Rows { sent, removed }) => {
                format!("{sent} rows were sent and {removed} removed.")
            }
        };
        pg::sys::error::log(
            PgError::new(
                SqlState::SUCCESSFUL_COMPLETION,
                format!(
                    "repaired shard {} of table \"{}\" on node \"{}\"",
                    self.shard.0, self.name, self.target
                ),
            )
            .detail(detail),
        );
    }

    fn failed(&self, error: &PgError) -> PgError {
        let said = error.detail_text().map_or_else(String::new, |detail| format!(": {detail}"));
        PgError::new(
            error.sqlstate(),
            format!("could not repair inactive placements on node \"{}\": {}", self.target, error.message()),
        )
        .detail(format!(
            "The first is shard {} of table \"{}\"{said} It will be tried again, and not be told again while the reason stays the same.",
            self.shard.0, self.name
        ))
    }
}
