//! Statistics that stay fresh by themselves: what autovacuum's ANALYZE is to a local table.
//!
//! A visitor (`pg::server::rounds`) comes to a database some time after tables were changed there, and asks the workers what they have counted. Shards
//! that have changed by more than autovacuum's settings let pass are analyzed, if the workers' own autovacuum has not
//! done that; and if what the coordinator knows is older than that, it is brought. A table of which a node is not there is left for
//! the next visit.

use super::at_once::everywhere;
use super::statistics::{CHANGES, add, bring, remember};
use crate::catalog::{self, DistributedTable, quote};
use crate::session::pool;
use pg::catalog::privileged;
use pg::catalog::table;
use pg::server::activity;
use pg::server::rounds::Visit;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::NodeAddress;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

/// A table, and what the coordinator knows of it.
struct Spooled {
    oid: Oid,
    /// How many rows it is believed to have; less than 0 if nobody has counted.
    rows: f64,
    options: Vec<String>,
    /// How many changes had been counted when the statistics were brought.
    changes: Option<f64>,
    /// In whose name the workers are asked: the table's owner, if he can be.
    owner: Option<Oid>,
}

/// What a worker has counted of a placement.
struct Counted {
    node: NodeAddress,
    index: usize,
    rows: f64,
    changes: f64,
    since_analyze: f64,
}

/// How many changes are let pass.
struct Threshold {
    base: f64,
    share: f64,
}

/// The visit of a database: brings what has become old.
pub(crate) fn keep_fresh(visit: &Visit) {
    let mut failures: Vec<(String, PgError)> = Vec::new();
    let mut is_left = false;
    let tables = match visit.in_transaction(tables) {
        Ok(tables) => tables,
        Err(error) => {
            failures.push((String::new(), error));
            Vec::new()
        }
    };
    for kept in tables {
        let mut name = String::new();
        let outcome = visit.in_transaction(|| {
            let Some(found) = catalog::find(kept.oid).filter(|found| !found.map.is_empty()) else {
                return Ok(());
            };
            name.clone_from(&found.name);
            found.check()?;
            let (schema, table) = (quote(&found.schema), quote(&found.name));
            visit.tell(&format!("pg_shard: ANALYZE {schema}.{table}"));
            match kept.owner {
                Some(owner) => privileged::as_restricted(owner, || keep(&kept, &found)),
                None => keep(&kept, &found),
            }
        });
        visit.tell("");
        match outcome {
            Ok(()) => {}
            // Somebody else needed the table more, or has dropped it.
            Err(error)
                if [
                    SqlState::QUERY_CANCELED,
                    SqlState::LOCK_NOT_AVAILABLE,
                    SqlState::UNDEFINED_OBJECT,
                ]
                .contains(&error.sqlstate()) =>
            {
                is_left = true;
            }
            Err(error) => failures.push((name, error)),
        }
    }
    if is_left || !failures.is_empty() {
        activity::note_change();
    }
    tell(&failures);
}

/// Writes to the log what went wrong, unless that is what went wrong at the last visit too.
fn tell(failures: &[(String, PgError)]) {
    let mut hasher = DefaultHasher::new();
    for (table, error) in failures {
        (table, error.message()).hash(&mut hasher);
    }
    let what = if failures.is_empty() { 0 } else { hasher.finish() };
    if activity::is_news(what) {
        for (table, error) in failures {
            pg::sys::error::log(
                PgError::new(
                    error.sqlstate(),
                    format!("could not keep the statistics of table \"{table}\" fresh: {}", error.message()),
                )
                .detail("It will be tried again, and not be told again while the reason stays the same."),
            );
        }
    }
}

/// The distributed tables of the database.
fn tables() -> Result<Vec<Spooled>, PgError> {
    if catalog::metadata().is_none() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    privileged::read_catalogs(|client| {
        let rows = client.select(
            "SELECT c.oid, c.reltuples::float8, c.reloptions, s.changes::float8, \
                    CASE WHEN r.rolcanlogin AND NOT c.relforcerowsecurity THEN r.oid END \
               FROM pgs_distribution_metadata.partition AS p \
               JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) p.relation_id \
               JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) c.relowner \
               LEFT JOIN pgs_catalog.statistics AS s ON s.relation_id OPERATOR(pg_catalog.=) c.oid \
              WHERE c.relkind OPERATOR(pg_catalog.=) 'r'",
            None,
            &[],
        )?;
        for row in rows {
            let Some(oid) = row.get::<Oid>(1)? else { continue };
            found.push(Spooled {
                oid,
                rows: row.get(2)?.unwrap_or(-1.0),
                options: row.get(3)?.unwrap_or_default(),
                changes: row.get(4)?,
                owner: row.get(5)?,
            });
        }
        Ok::<(), pgrx::spi::Error>(())
    })
    .map_err(|error| PgError::internal(error.to_string()))?;
    Ok(found)
}

/// Looks after a table.
fn keep(kept: &Spooled, table: &Rc<DistributedTable>) -> Result<(), PgError> {
    let Some(threshold) = kept.threshold() else { return Ok(()) };
    let counted = ask(table)?;
    // Of each shard the placement that reads take.
    let first: Vec<&Counted> = (0..table.map.len())
        .filter_map(|index| {
            let leader = table.healthy(index).next()?;
            counted.iter().find(|it| it.index == index && it.node == leader.node)
        })
        .collect();
    let sum = |of: fn(&Counted) -> f64| first.iter().map(|it| of(it)).sum::<f64>();
    let allowed = threshold.base + threshold.share * kept.rows.max(0.0);
    let changes = sum(|it| it.changes);
    let is_stale = sum(|it| it.since_analyze) > allowed;
    if is_stale {
        let of_shard = allowed / table.map.len() as f64;
        analyze(table, counted.iter().filter(|it| it.since_analyze > of_shard))?;
    }
    let others = (sum(|it| it.rows) - kept.rows.max(0.0)).abs();
    let since_brought = kept.changes.map(|before| {
        // Counters that went back have been reset.
        if changes >= before { changes - before } else { changes }
    });
    if is_stale || others > allowed || since_brought.is_some_and(|changes| changes > allowed) {
        return bring(table, Vec::new(), false);
    }
    if since_brought.is_none() {
        remember(table.oid, changes)?;
    }
    Ok(())
}

impl Spooled {
    /// None if the table is not to be analyzed.
    fn threshold(&self) -> Option<Threshold> {
        let option = |name: &str| {
            self.options.iter().find_map(|option| {
                let (known, value) = option.split_once('=')?;
                (known == name).then(|| value.to_owned())
            })
        };
        // PostgreSQL has checked the option, and takes any spelling of a boolean.
        let is_off = |value: String| {
            let value = value.to_lowercase();
            value.starts_with(['f', 'n', '0']) || value.starts_with("of")
        };
        if option("autovacuum_enabled").is_some_and(is_off) {
            return None;
        }
        let number = |name: &str, setting: &std::ffi::CStr| {
            let own = option(name).and_then(|value| value.parse::<f64>().ok());
            let own = own.filter(|number| *number >= 0.0);
            own.or_else(|| table::setting(setting).parse().ok()).unwrap_or(f64::MAX)
        };
        Some(Threshold {
            base: number("autovacuum_analyze_threshold", c"autovacuum_analyze_threshold"),
            share: number("autovacuum_analyze_scale_factor", c"autovacuum_analyze_scale_factor"),
        })
    }
}

/// The healthy placements by node.
fn by_node(table: &DistributedTable) -> Vec<(NodeAddress, Vec<usize>)> {
    let mut nodes = Vec::new();
    for index in 0..table.map.len() {
        for placement in table.healthy(index) {
            add(&mut nodes, &placement.node, index);
        }
    }
    nodes
}

/// Asks the workers what they have counted; an error if one is not there.
fn ask(table: &Rc<DistributedTable>) -> Result<Vec<Counted>, PgError> {
    let mut counted = Vec::new();
    for (node, shards) in by_node(table) {
        let statement = (node.clone(), shards[0], query(table, &shards));
        let unreachable = everywhere(table, vec![statement], &mut |text| {
            let mut fields = text.split(' ');
            let name = fields.next().unwrap_or_default();
            let index = shards.iter().find(|index| {
                name.strip_prefix('_') == Some(&table.shard_id(**index).0.to_string())
            });
            let mut number =
                || fields.next().and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
            if let Some(index) = index {
                counted.push(Counted {
                    node: node.clone(),
                    index: *index,
                    rows: number(),
                    changes: number(),
                    since_analyze: number(),
                });
            }
        })?;
        check(unreachable)?;
    }
    Ok(counted)
}

fn check(unreachable: Vec<(NodeAddress, PgError)>) -> Result<(), PgError> {
    unreachable
        .into_iter()
        .next()
        .map_or(Ok(()), |(node, error)| Err(pool::connection_failed(&node, &error)))
}

/// A line for each shard: its number, and what was counted.
fn query(table: &DistributedTable, shards: &[usize]) -> String {
    let literal = crate::functions::literal;
    let names: Vec<String> = shards
        .iter()
        .map(|index| literal(&format!("{}_{}", table.name, table.shard_id(*index).0)))
        .collect();
    format!(
        "SELECT concat_ws(' ', substr(c.relname, length({name}) + 1), greatest(c.reltuples, 0), {CHANGES}, \
                pg_stat_get_mod_since_analyze(c.oid)) \
           FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
          WHERE n.nspname = {schema} AND c.relname IN ({names})",
        name = literal(&table.name),
        schema = literal(&table.schema),
        names = names.join(", "),
    )
}

/// Analyzes placements; those that somebody else has locked are passed over.
fn analyze<'a>(
    table: &Rc<DistributedTable>,
    placements: impl Iterator<Item = &'a Counted>,
) -> Result<(), PgError> {
    let mut nodes = Vec::new();
    for placement in placements {
        add(&mut nodes, &placement.node, placement.index);
    }
    let statements = nodes
        .into_iter()
        .map(|(node, shards)| {
            let names: Vec<String> = shards.iter().map(|index| table.shard_name(*index)).collect();
            (node, shards[0], format!("ANALYZE (SKIP_LOCKED) {}", names.join(", ")))
        })
        .collect();
    check(everywhere(table, statements, &mut |_| {})?)
}
