//! Sizes of a table's shards on disk, and the counters of their nodes: PostgreSQL's own functions see the coordinator's empty
//! table only.

use crate::catalog::{self, DistributedTable};
use crate::ddl;
use crate::session::pool;
use pg::sys::error::raise;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use shardmap::NodeAddress;
use std::rc::Rc;

use super::literal;

/// How many figures `table_figures` returns.
const FIGURES: usize = 10;

/// Bytes of one placement of each shard with indexes and TOAST, without indexes, and of all placements; then live rows, dead rows,
/// scans, scans of indexes, and rows inserted, updated, deleted. None if a node is away, or the metadata make no sense.
#[pg_extern]
fn table_figures(table_oid: Oid) -> Option<Vec<i64>> {
    raise(figures(table_oid))
}

fn figures(oid: Oid) -> Result<Option<Vec<i64>>, PgError> {
    let Some(table) = catalog::find(oid) else { return Ok(None) };
    if let Err(error) = table.check() {
        pg::sys::error::warning(error);
        return Ok(None);
    }
    let asked: usize = (0..table.map.len()).map(|index| table.healthy(index).count()).sum();
    // The last figure is the number of placements that were found.
    let mut sums = vec![0_i64; FIGURES + 1];
    let unreachable = ddl::ask_nodes(&table, questions(&table), &mut |text| {
        for (sum, number) in sums.iter_mut().zip(text.split(' ')) {
            *sum += number.parse::<i64>().unwrap_or(0);
        }
    })?;
    let found = sums.pop();
    if unreachable.is_empty() && found != i64::try_from(asked).ok() {
        let text = format!("placements of table \"{}\" are missing on their nodes", table.name);
        pg::sys::error::warning(PgError::new(SqlState::WARNING, text));
        return Ok(None);
    }
    for (node, error) in &unreachable {
        pg::sys::error::warning(pool::connection_failed(node, error));
    }
    let is_whole = (0..table.map.len()).all(|index| table.healthy(index).next().is_some());
    Ok((is_whole && unreachable.is_empty()).then_some(sums))
}

/// A statement for each node, with a shard of it. A shard's first healthy placement is the one whose size and rows count.
fn questions(table: &Rc<DistributedTable>) -> Vec<(NodeAddress, usize, String)> {
    let mut nodes: Vec<(NodeAddress, usize, Vec<String>, Vec<String>)> = Vec::new();
    for index in 0..table.map.len() {
        let name = literal(&format!("{}_{}", table.name, table.shard_id(index).0));
        for (place, placement) in table.healthy(index).enumerate() {
            let at = nodes.iter().position(|(node, ..)| *node == placement.node);
            let at = at.unwrap_or_else(|| {
                nodes.push((placement.node.clone(), index, Vec::new(), Vec::new()));
                nodes.len() - 1
            });
            nodes[at].2.push(name.clone());
            if place == 0 {
                nodes[at].3.push(name.clone());
            }
        }
    }
    let questions = nodes.into_iter();
    questions
        .map(|(node, shard, all, first)| (node, shard, question(table, &all, &first)))
        .collect()
}

/// The figures of one node as one text: of `all` placements there, or of those that were `first`.
fn question(table: &DistributedTable, all: &[String], first: &[String]) -> String {
    let is_first = if first.is_empty() {
        "false".to_owned()
    } else {
        format!("c.relname IN ({})", first.join(", "))
    };
    let of_first =
        |figure: &str| format!("coalesce(sum({figure}) FILTER (WHERE {is_first}), 0)::int8");
    let of_all = |figure: &str| format!("coalesce(sum({figure}), 0)::int8");
    let figures = [
        of_first("pg_total_relation_size(c.oid)"),
        of_first("pg_table_size(c.oid)"),
        of_all("pg_total_relation_size(c.oid)"),
        of_first("s.n_live_tup"),
        of_first("s.n_dead_tup"),
        of_all("s.seq_scan"),
        of_all("s.idx_scan"),
        of_first("s.n_tup_ins"),
        of_first("s.n_tup_upd"),
        of_first("s.n_tup_del"),
        "count(*)".to_owned(),
    ];
    format!(
        "SELECT concat_ws(' ', {}) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
         LEFT JOIN pg_stat_all_tables AS s ON s.relid = c.oid WHERE n.nspname = {} AND c.relname IN ({})",
        figures.join(", "),
        literal(&table.schema),
        all.join(", ")
    )
}
