//! A command on many nodes, shards or placements, for administrators: `run_command_on_nodes` and its siblings.
//!
//! Each runs on a connection of its own, outside of the client's transaction, as the client's own role there. So what cannot run in a
//! transaction block works, nothing that the command sets stays in the sessions of statements, and no right is gained. Still only
//! superusers may call them, and whom they grant it: the command goes past the coordinator's locks and past the other placements.

use super::given;
use crate::catalog::{self, DistributedTable};
use crate::nodes;
use crate::relocation;
use crate::session::pool;
use crate::session::{Failure, NoSession, Session};
use pg::catalog::table;
use pg::server::settings::search_path;
use pg::sys::error::raise;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use shardmap::NodeAddress;
use std::rc::Rc;

#[pg_extern]
fn run_command_on_nodes(
    command: &str,
) -> TableIterator<
    'static,
    (
        name!(node_name, String),
        name!(node_port, i32),
        name!(success, bool),
        name!(result, Option<String>),
    ),
> {
    let rows = nodes::all().into_iter().map(|node| {
        let (success, result) = outcome(On::open(&node).and_then(|mut on| on.run(command)));
        (node.host.to_string(), node.port, success, result)
    });
    TableIterator::new(rows.collect::<Vec<_>>())
}

#[pg_extern]
fn run_command_on_placements(
    table_name: Option<Oid>,
    command: Option<&str>,
) -> TableIterator<
    'static,
    (
        name!(shard_id, i64),
        name!(node_name, String),
        name!(node_port, i32),
        name!(success, bool),
        name!(result, Option<String>),
    ),
> {
    let rows = given(table_name, "table_name")
        .and_then(|oid| on_placements(oid, given(command, "command")?));
    let rows = raise(rows).into_iter().map(|one| {
        (one.shard, one.node.host.to_string(), one.node.port, one.outcome.0, one.outcome.1)
    });
    TableIterator::new(rows.collect::<Vec<_>>())
}

/// The shard that a value of the distribution column belongs to.
#[pg_extern]
fn shard_of_key(table_name: Oid, key: &str) -> i64 {
    let find = || {
        if !table::may_select_any(table_name) {
            let name = table::describe(table_name).map_or_else(String::new, |it| it.name);
            let message = format!("permission denied for table {name}");
            return Err(PgError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
        }
        relocation::shard_of(table_name, key)
    };
    raise(find()).0
}

/// What a command has done on a placement.
struct OnPlacement {
    shard: i64,
    node: NodeAddress,
    outcome: (bool, Option<String>),
}

/// Runs a command on each healthy placement; `%s` in it is the shard's name.
fn on_placements(oid: Oid, command: &str) -> Result<Vec<OnPlacement>, PgError> {
    let table: Rc<DistributedTable> = catalog::get(oid)?;
    table.check()?;
    let mut opened: Vec<(NodeAddress, Result<On, PgError>)> = Vec::new();
    let mut all = Vec::new();
    for index in 0..table.map.len() {
        for placement in table.healthy(index) {
            let node = &placement.node;
            if !opened.iter().any(|(known, _)| known == node) {
                opened.push((node.clone(), On::open(node)));
            }
            let on = opened.iter_mut().find(|(known, _)| known == node);
            let shard = format!(
                "{}.{}",
                catalog::quote(&table.schema),
                catalog::quote(&format!("{}_{}", table.name, table.shard_id(index).0))
            );
            let done = match on.map(|(_, on)| on) {
                Some(Ok(on)) => on.run(&command.replace("%s", &shard)),
                Some(Err(error)) => Err(error.clone()),
                None => continue,
            };
            let shard = table.shard_id(index).0;
            all.push(OnPlacement { shard, node: node.clone(), outcome: outcome(done) });
        }
    }
    Ok(all)
}

fn outcome(done: Result<Option<String>, PgError>) -> (bool, Option<String>) {
    match done {
        Ok(value) => (true, value),
        Err(error) => (false, Some(format!("ERROR: {}", error.message()))),
    }
}

/// A connection to a node for commands.
struct On {
    session: Session,
    node: NodeAddress,
}

impl On {
    /// Names mean there what they mean here.
    fn open(node: &NodeAddress) -> Result<Self, PgError> {
        let session = Session::open(node).map_err(|reason| match reason {
            NoSession::Unreachable(error) => pool::connection_failed(node, &error),
            NoSession::Refused(error) => error,
        })?;
        let mut on = Self { session, node: node.clone() };
        let path = super::literal(&search_path());
        on.run(&format!("SELECT pg_catalog.set_config('search_path', {path}, false)"))?;
        Ok(on)
    }

    /// The first field of the first row.
    fn run(&mut self, command: &str) -> Result<Option<String>, PgError> {
        let mut first = None;
        let mut is_first = true;
        let done = self.session.run(command, None, &mut |row| {
            if std::mem::take(&mut is_first) {
                first = row.first_text();
            }
            Ok(())
        });
        match done {
            Ok(_) => Ok(first),
            Err(Failure::Statement(error)) => Err(error),
            Err(Failure::Lost(error)) => Err(pool::connection_failed(&self.node, &error)),
        }
    }
}
