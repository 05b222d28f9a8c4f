//! Execution: our scan node, from the plan's private part to rows.

/// Rows that are locked below LIMIT.
mod claim;

/// Rows that a node locks, skipping those that others hold.
mod first_free;

/// What EXPLAIN (VERBOSE) shows of a node.
mod explained;

/// Statements of cursors that lock rows: bound when the cursor is opened, executed when it is fetched from.
mod held;

/// Rows computed here, sent to their shards.
mod insert;

/// Rows that are read here, joined with what the nodes find for them.
mod lookup_join;

/// Sorted streams of several nodes as one.
mod merge;

/// Statements that are executed anew.
mod again;

/// When a scan reads.
mod read_time;

/// Rows that move from worker to worker.
pub(crate) mod repartition;

/// A write on both placements of a shard at once.
mod pair;

/// Changes that triggers may have to see.
pub(crate) mod pending;

/// A write whose rows are computed here.
pub(crate) mod modify;

/// Writes inside a statement that writes.
pub(crate) mod nested;

/// Rows from one or many shards.
mod read;

/// The SQL of row changes.
mod row_sql;

/// Rows on their way to the shards of one table.
pub(crate) mod sink;

/// A write over several shards.
mod spread;

/// A statement that changes one shard.
pub(crate) mod write;

pub(crate) use self::read::common_nodes;
use crate::catalog::{self, DistributedTable};
use crate::plan::compiled;
use pg::exec::scan_io::{Scan, ScanIo};
use pg::sys::plan::{Key, LookupKind, Piece, Plan, PlanReader};
use pg::sys::value::Hasher;
use pg::{PgError, SqlState};
use shardmap::tid::TidLayout;
use shardmap::{KeyValue, NodeAddress, Prune};
use std::rc::Rc;

/// Makes the scan of a plan.
pub(crate) fn begin(
    reader: PlanReader,
    io: &mut ScanIo,
    explain_only: bool,
) -> Result<Box<dyn Scan>, PgError> {
    let compiled = compiled::find(reader);
    if !explain_only {
        pending::send_for(compiled.plan.tables())?;
    }
    if let Plan::ShardScan(plan) = &compiled.plan {
        io.set_moves(plan.moves);
        if !plan.broadcasts.is_empty() {
            if let Some(join) = &plan.lookup_join {
                io.number_first_child(&join.keys, join.kind != LookupKind::Left);
            }
            io.send_children_as_arrays();
        }
    }
    let codecs = compiled.codecs(|| match &compiled.plan {
        Plan::Routed(plan) => io.make_returned_codecs(plan.sent, &plan.returned_tids, plan.layout),
        Plan::ShardScan(plan) => io.make_codecs(&plan.remote, plan.sources.clone(), plan.sent),
        Plan::InsertedRows(plan) => io.make_plain_codecs(plan.sent),
        Plan::ComputedModify(_) => io.make_plain_codecs(0),
    });
    io.set_codecs(codecs);
    Ok(match &compiled.plan {
        Plan::Routed(plan) if plan.is_write() => Box::new(write::RoutedWrite::new(compiled)),
        Plan::ShardScan(plan) if let Some(join) = plan.lookup_join.clone() => {
            Box::new(lookup_join::LookupJoinScan::new(join, compiled))
        }
        Plan::ShardScan(plan) if let Some(claim) = plan.claim.clone() => {
            Box::new(claim::ClaimedRows::new(claim, compiled, io))
        }
        Plan::Routed(_) | Plan::ShardScan(_) => Box::new(read::Read::new(compiled)),
        Plan::InsertedRows(plan) => Box::new(insert::InsertRows::new(plan.clone(), compiled)),
        Plan::ComputedModify(plan) => Box::new(modify::ModifyRows::new(*plan, io)?),
    })
}

/// What decides the shards of a plan now, with the values at hand.
pub(crate) struct Pruned {
    /// The shards.
    pub(crate) shards: Vec<usize>,
    /// One key decides, and it is NULL.
    pub(crate) null_key: bool,
}

/// The shards that a plan concerns now.
pub(crate) fn prune(
    io: &mut ScanIo,
    prune: &Prune<Key>,
    table: &DistributedTable,
) -> Result<Pruned, PgError> {
    let mut null_key = false;
    let mut failed = None;
    let layout = TidLayout::for_shards(table.map.len());
    let shards = prune.shards(&table.map, &mut |key| match hasher(io, key) {
        _ if key.names_shards() => io.with_row_memory(|io| io.tid_shards(key, layout)),
        Ok(hasher) => {
            let value = io.with_row_memory(|io| io.key_value(key, &hasher));
            null_key = value == KeyValue::Null && matches!(prune, Prune::Key(_));
            value
        }
        Err(error) => {
            failed = Some(error);
            KeyValue::Null
        }
    });
    failed.map_or(Ok(Pruned { shards, null_key }), Err)
}

/// The hash function of a key.
pub(crate) fn hasher(io: &ScanIo, key: &Key) -> Result<Rc<Hasher>, PgError> {
    io.hasher(key).ok_or_else(|| {
        PgError::new(
            pg::SqlState::UNDEFINED_FUNCTION,
            format!(
                "could not identify a hash function for type {}",
                pg::catalog::table::type_name(key.hash_type)
            ),
        )
    })
}

/// The SQL of a template for one shard group.
pub(crate) fn render(template: &[Piece], index: usize) -> Result<String, PgError> {
    let mut sql = String::with_capacity(256);
    for piece in template {
        match piece {
            Piece::Text(text) => sql.push_str(text),
            Piece::Index => sql.push_str(&index.to_string()),
            Piece::Object(oid, name) => {
                let table = catalog::get(*oid)?;
                let shard = table.shard_id(table.beside(index)).0;
                let name = shardmap::shard_template::shard_name(name, shard)
                    .map_err(|error| PgError::internal(error.to_string()))?;
                sql.push_str(&catalog::quote(&name));
            }
            Piece::Table(oid) => {
                let table = catalog::get(*oid)?;
                let index = table.beside(index);
                if index >= table.map.len() {
                    return Err(PgError::internal(format!(
                        "table \"{}\" has fewer shards than the tables it is joined with",
                        table.name
                    )));
                }
                sql.push_str(&table.shard_name(index));
            }
        }
    }
    Ok(sql)
}

/// The tables of a plan, as the metadata are now. PostgreSQL hears of changes when it locks a table, but not if the
/// transaction has the lock already.
pub(crate) fn tables(oids: &[pgrx::pg_sys::Oid]) -> Result<Vec<Rc<DistributedTable>>, PgError> {
    pg::server::transaction::accept_invalidations();
    oids.iter().map(|oid| catalog::get(*oid)).collect()
}

/// The error for a shard of which no placement answers.
fn unreadable(table: &DistributedTable, index: usize) -> PgError {
    let all: Vec<String> = table.placements[index].iter().map(|p| p.node.to_string()).collect();
    PgError::new(pg::SqlState::INTERNAL_ERROR, "could not receive query results")
        .detail(format!(
            "No placement of shard {} of table \"{}\" can be read; it is placed on {}.",
            table.shard_id(index).0,
            table.name,
            all.join(", ")
        ))
        .hint("Start the nodes again, or repair the placements with master_copy_shard_placement.")
}

/// The error for a node that was lost after rows of it had been given out.
fn lost_in_the_middle(node: &NodeAddress, cause: Option<&PgError>) -> PgError {
    let error = PgError::new(
        SqlState::CONNECTION_FAILURE,
        format!("connection to node \"{node}\" was lost in the middle of a read"),
    )
    .hint("Run the statement again; it will use other placements, if there are any.");
    match cause {
        Some(cause) => error.detail(format!("Remote message: {}", cause.message())),
        None => error,
    }
}
