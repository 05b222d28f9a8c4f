//! Plans for moving shards between nodes, which procedures carry out: each step in a transaction of its own.

use super::given;
use super::nodes::{check_right, known, mark_draining};
use crate::nodes::shares::{self, Action, By, Step};
use pg::sys::error::raise;
use pg::{PgError, SqlState};
use pgrx::prelude::*;

/// A step of a plan, as a row.
type Row = (&'static str, i64, String, String, i32, Option<String>, Option<i32>, i64, i64);

/// Without a node: the moves that give each node its share. With one: what takes everything away from it.
#[pg_extern]
#[allow(clippy::type_complexity, reason = "pgrx reads the columns from the type")]
fn plan_moves(
    name: Option<&str>,
    port: Option<i32>,
    to_name: Option<&str>,
    to_port: Option<i32>,
    by: Option<&str>,
) -> TableIterator<
    'static,
    (
        name!(action, &'static str),
        name!(shard_id, i64),
        name!(table_name, String),
        name!(source_name, String),
        name!(source_port, i32),
        name!(target_name, Option<String>),
        name!(target_port, Option<i32>),
        name!(bytes, i64),
        name!(rows, i64),
    ),
> {
    let plan = || {
        check_right()?;
        let by = measure(by)?;
        let Some(name) = name else { return shares::rebalance(by) };
        let node = known(name, given(port, "port")?)?;
        let target = match to_name {
            Some(target) => Some(known(target, given(to_port, "to_port")?)?),
            None => None,
        };
        shares::leave(&node, target.as_ref(), by)
    };
    TableIterator::new(raise(plan()).into_iter().map(row).collect::<Vec<_>>())
}

#[pg_extern]
fn set_node_draining(name: &str, port: i32, is_draining: bool) {
    let set = || {
        check_right()?;
        mark_draining(&known(name, port)?, is_draining)
    };
    raise(set());
}

fn measure(by: Option<&str>) -> Result<By, PgError> {
    match by {
        Some("bytes") => Ok(By::Bytes),
        Some("rows") => Ok(By::Rows),
        Some("shards") => Ok(By::Shards),
        _ => {
            let text = "nodes can be balanced by 'bytes', 'rows' or 'shards'";
            Err(PgError::new(SqlState::INVALID_PARAMETER_VALUE, text))
        }
    }
}

fn row(step: Step) -> Row {
    let action = match step.action {
        Action::Move => "move",
        Action::Copy => "copy",
        Action::Drop => "drop",
    };
    let (target_name, target_port) =
        step.target.map(|node| (node.host.to_string(), node.port)).unzip();
    let (name, port) = (step.source.host.to_string(), step.source.port);
    (action, step.shard.0, step.table, name, port, target_name, target_port, step.bytes, step.rows)
}
