//! Roles, memberships and settings of roles and databases follow on the nodes.
//!
//! They are read before PostgreSQL runs a statement about them and once more afterwards; `shardmap/src/definition/roles.rs` says what the
//! nodes need. That goes, in the client's transaction and with the client's own rights there, to each node with shards: nobody gains on a
//! node what its PostgreSQL does not let him have. A node that gets its first shards gets the roles that it lacks, if it is a superuser
//! who sees to it: others must neither have roles there nor see hashes of passwords that are not theirs.

use super::nodes::run_on;
use super::role_catalog::{self, Scope};
use super::watched::{ROLES, WatchedRoles};
use crate::catalog;
use crate::session::pool;
use crate::settings;
use crate::transaction::NodeFailure;
use pg::catalog::table;
use pg::server::alter::show_changes;
use pg::server::utility::UtilityCall;
use pg::{PgError, SqlState};
use shardmap::NodeAddress;
use shardmap::definition::roles::{change, missing};

/// Reads the roles that a statement may change; says whether there is anything to be repeated.
pub(super) fn watch(call: &UtilityCall) -> Result<bool, PgError> {
    let statement = call.id();
    ROLES.with_borrow_mut(|watched| watched.retain(|one| one.statement != statement));
    let Some(about) = call.about_roles().filter(|_| settings::propagates_roles()) else {
        return Ok(false);
    };
    if nodes_with_shards().is_empty() {
        return Ok(false);
    }
    let scope = Scope::of(&about);
    let before = role_catalog::read(&scope)?;
    ROLES.with_borrow_mut(|watched| watched.push(WatchedRoles { statement, scope, before }));
    Ok(true)
}

/// Has the nodes repeat what a statement has changed.
pub(super) fn finish(call: &UtilityCall) -> Result<(), PgError> {
    let statement = call.id();
    let watched = ROLES.with_borrow_mut(|watched| {
        let at = watched.iter().position(|one| one.statement == statement)?;
        Some(watched.remove(at))
    });
    let Some(WatchedRoles { scope, before, .. }) = watched else { return Ok(()) };
    show_changes();
    let after = role_catalog::read(&scope)?;
    let statements = change(&before, &after, table::is_superuser());
    if statements.is_empty() {
        return Ok(());
    }
    nodes_with_shards()
        .iter()
        .try_for_each(|node| run_on(node, &statements).map_err(|failure| failed(node, failure)))
}

/// The statements that give a node the roles that it lacks; none if that is not the current user's affair.
pub(crate) fn for_node() -> Result<Vec<String>, PgError> {
    if !table::is_superuser() || !settings::propagates_roles() {
        return Ok(Vec::new());
    }
    Ok(missing(&role_catalog::read(&Scope::default())?))
}

/// Nodes with healthy placements.
fn nodes_with_shards() -> Vec<NodeAddress> {
    let tables = catalog::distributed_tables().into_iter().filter_map(catalog::find);
    let mut nodes: Vec<NodeAddress> = tables
        .filter(|table| table.check().is_ok())
        .flat_map(|table| {
            let placements = (0..table.map.len()).flat_map(|index| table.healthy(index));
            placements.map(|placement| placement.node.clone()).collect::<Vec<_>>()
        })
        .collect();
    nodes.sort();
    nodes.dedup();
    nodes
}

fn failed(node: &NodeAddress, failure: NodeFailure) -> PgError {
    match failure {
        NodeFailure::Unreachable(error) => pool::connection_failed(node, &error).hint(
            "All nodes with shards must take part when roles change. Start the node, mark its placements with shard_state 3, or have a \
             superuser set pg_shard.propagate_roles to off.",
        ),
        NodeFailure::Error(error) => {
            let is_denied = error.sqlstate() == SqlState::INSUFFICIENT_PRIVILEGE;
            let error = error.context(format!("while changing roles on node \"{node}\""));
            if !is_denied {
                return error;
            }
            error.hint(
                "The change needs the same rights on the node. A superuser may set pg_shard.propagate_roles to off and make it there himself.",
            )
        }
    }
}
