//! Nodes that act as the owner of a table while somebody else looks after it.
//!
//! Whoever stores rows of a table, or only plans a query of it, runs functions of its owner: in constraints, domains, generated
//! columns and expressions of indexes. PostgreSQL's maintenance becomes the owner for that, under restrictions. A session of the
//! owner's to the node would not do: it does not see what the transaction has just created there, and the owner may have no
//! right to log in. So the session that is there becomes the owner for a subtransaction (`pgs_catalog.act_as_owner`). Tables
//! without anything of users in them need none of this.

use crate::catalog::{DistributedTable, Placement};
use crate::ddl;
use crate::functions::{create_extension, literal};
use crate::session::identity;
use crate::transaction::{self, NodeFailure};
use pg::catalog::privileged;
use pg::catalog::table;
use pg::{PgError, SqlState};
use shardmap::{NodeAddress, PlacementState};

/// What is about to be done with the table's shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Rows are stored on all nodes.
    Store,
    /// Rows are read from healthy placements; nodes that are away are passed over.
    Read,
}

/// The current user's sessions have to act as the owner.
pub(crate) fn is_needed(table: &DistributedTable) -> Result<bool, PgError> {
    Ok(table::owner_of(table.oid)? != table::current_role()
        && privileged::has_code_of_users(table.oid))
}

/// Runs `body` with the nodes' sessions acting as the owner of the table.
///
/// # Errors
///
/// If a node cannot do that, or `body` fails.
pub(crate) fn acting<T>(
    table: &DistributedTable,
    purpose: Purpose,
    body: impl FnOnce() -> Result<T, PgError>,
) -> Result<T, PgError> {
    // A function that is SECURITY DEFINER is under way: rights are lent to the nodes, for each flight.
    if identity::is_fixed() {
        return identity::maintaining_as(table::owner_of(table.oid)?, body);
    }
    let mut begun: Vec<NodeAddress> = Vec::new();
    let mut gone: Vec<NodeAddress> = Vec::new();
    for (index, placements) in table.placements.iter().enumerate() {
        for Placement { node, state, .. } in placements {
            let is_concerned = purpose == Purpose::Store || *state == PlacementState::Healthy;
            if !is_concerned || begun.contains(node) || gone.contains(node) {
                continue;
            }
            match begin(node, &table.shard_name(index)) {
                Ok(true) => begun.push(node.clone()),
                Ok(false) => return Err(lacks_extension(table, node)),
                Err(NodeFailure::Unreachable(_)) if purpose == Purpose::Read => {
                    gone.push(node.clone());
                }
                Err(failure) => return Err(cannot_act(table, node, failure)),
            }
        }
    }
    let value = body()?;
    release(table, &begun.iter().collect::<Vec<_>>())?;
    Ok(value)
}

/// Runs `body` with the sessions to these nodes acting as the owner of the table, whose shard of that number both have.
///
/// Returns none, without having run it, if a node lacks the extension and cannot have it.
pub(crate) fn acting_on<T>(
    table: &DistributedTable,
    index: usize,
    nodes: &[&NodeAddress],
    body: impl FnOnce() -> Result<T, PgError>,
) -> Result<Option<T>, PgError> {
    if table::owner_of(table.oid)? == table::current_role() {
        return body().map(Some);
    }
    for (number, node) in nodes.iter().enumerate() {
        let begun = begin(node, &table.shard_name(index));
        if !begun.map_err(|failure| cannot_act(table, node, failure))? {
            release(table, &nodes[..number])?;
            return Ok(None);
        }
    }
    let value = body()?;
    release(table, nodes)?;
    Ok(Some(value))
}

fn release(table: &DistributedTable, nodes: &[&NodeAddress]) -> Result<(), PgError> {
    let release = ["RELEASE SAVEPOINT pgs_owner".to_owned()];
    nodes.iter().try_for_each(|node| {
        ddl::run_on(node, &release).map_err(|failure| cannot_act(table, node, failure))
    })
}

/// Has a node act as the owner of a shard; false if it lacks the extension and cannot have it.
fn begin(node: &NodeAddress, shard: &str) -> Result<bool, NodeFailure> {
    let mut has_extension = has_extension(node)?;
    if !has_extension {
        create_extension(node)?;
        has_extension = self::has_extension(node)?;
    }
    if has_extension {
        let act = format!("SELECT pgs_catalog.act_as_owner({})", literal(shard));
        ddl::run_on(node, &["SAVEPOINT pgs_owner".to_owned(), act])?;
    }
    Ok(has_extension)
}

fn has_extension(node: &NodeAddress) -> Result<bool, NodeFailure> {
    let mut has = false;
    transaction::with_session(node, &mut |session| {
        let level = Some(transaction::level_for_write());
        session.borrow_mut().run(
            "SELECT 1 FROM pg_catalog.pg_proc WHERE proname = 'act_as_owner' \
             AND pronamespace = pg_catalog.to_regnamespace('pgs_catalog')",
            level,
            &mut |_| {
                has = true;
                Ok(())
            },
        )
    })?;
    Ok(has)
}

fn lacks_extension(table: &DistributedTable, node: &NodeAddress) -> PgError {
    PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("cannot look after table \"{}\" as its owner on node \"{node}\"", table.name),
    )
    .detail("The table has constraints, types, indexes or columns that call functions of users, and the extension pg_shard is not there.")
    .hint(format!("Create the extension on the node, or run the command as the owner of table \"{}\".", table.name))
}

fn cannot_act(table: &DistributedTable, node: &NodeAddress, failure: NodeFailure) -> PgError {
    let (NodeFailure::Error(error) | NodeFailure::Unreachable(error)) = failure;
    PgError::new(
        error.sqlstate(),
        format!("could not act as the owner of table \"{}\" on node \"{node}\"", table.name),
    )
    .detail(format!("The node said: {}", error.message()))
}
