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

/// Which node reads which shards.
mod assignment;

/// EXPLAIN of our scans.
mod explain;

/// What one node delivers.
mod node_read;

/// Rows from one or many shards.
mod read;

/// A reading statement on its way to nodes, and again to others.
mod reading;

/// Which shards a plan concerns now, and the SQL for them.
mod shards;

/// The SQL of row changes.
mod row_sql;

/// Rows on their way to the shards of one table.
pub(crate) mod sink;

/// A write over several shards.
mod spread;

/// A statement that changes one shard.
pub(crate) mod write;

pub(crate) use self::assignment::common_nodes;
use self::shards::{hasher, prune, render, tables};
use crate::plan::compiled;
use pg::PgError;
use pg::exec::scan_io::{Scan, ScanIo};
use pg::sys::plan::{LookupKind, Plan, PlanReader};

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
