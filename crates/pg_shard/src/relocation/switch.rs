//! The moment at which the placement changes: everybody else is kept away from the tables, on this server and at the source.
//!
//! Nobody reads or writes the shard then, and no transaction that is under way has: so no write is missed, and nobody reads on from
//! what is about to be dropped. A snapshot that is older, of a transaction that comes later, is refused by the target
//! ([`crate::session::age`]).

use super::group::{Group, Member};
use super::kind::Kind;
use super::request::Relocation;
use super::rounds::{self, prepare, round};
use super::{capture, create};
use crate::catalog;
use crate::ddl::foreign_keys;
use crate::fault;
use crate::functions::{change_metadata, literal};
use crate::session::gate;
use pg::catalog::privileged;
use pg::catalog::table::{RelationLock, lock_relation};
use pg::net::wait::{clock, pause};
use pg::server::attempt::attempt;
use pg::server::lock::{Mode, ShardLock, lock_shard};
use pg::{PgError, SqlState};
use shardmap::NodeAddress;
use std::time::Duration;

/// How long others queue behind us for a table.
const PATIENCE: &std::ffi::CStr = c"250ms";

/// So few changed rows are seen to while everybody waits.
const FEW: u64 = 500;

/// After so many rounds that find more, they are seen to all the same: writers are faster than we are.
const ROUNDS: u32 = 10;

/// Between two attempts; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A row that is unique may conflict with another one that has changed since the keys were taken; the next round has both.
const CONFLICTS: [SqlState; 2] = [SqlState::UNIQUE_VIOLATION, SqlState::EXCLUSION_VIOLATION];

pub(super) fn catch_up_and_switch(relocation: &Relocation) -> Result<(), PgError> {
    prepare(relocation)?;
    let mut gap = FIRST_PAUSE;
    let mut count = 0;
    loop {
        count += 1;
        let found = attempt(&CONFLICTS, || round(relocation))?;
        fault::point("relocation_round");
        let is_near = found.is_ok_and(|found| found.rows <= FEW);
        if !is_near && count % ROUNDS != 0 {
            continue;
        }
        if !is_used_for_long(&relocation.group)? {
            let switched = attempt(&[SqlState::LOCK_NOT_AVAILABLE], || switch(relocation))?;
            if switched.is_ok() {
                return Ok(());
            }
        }
        pause(gap);
        gap = (gap * 2).min(LONGEST_PAUSE);
    }
}

/// A transaction that uses one of the tables is older than we want others to wait: it will hardly end in a moment.
fn is_used_for_long(group: &Group) -> Result<bool, PgError> {
    let tables: Vec<String> = group.tables().iter().map(|oid| oid.to_u32().to_string()).collect();
    let sql = format!(
        "SELECT EXISTS (SELECT FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid \
          WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY ('{{{}}}'::oid[]) \
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
            AND l.pid IS DISTINCT FROM pg_backend_pid() AND l.mode <> 'ShareUpdateExclusiveLock' \
            AND (l.pid IS NULL OR a.xact_start < clock_timestamp() - '250ms'::interval))",
        tables.join(",")
    );
    let found = privileged::read_catalogs(|client| {
        client.select("SELECT pg_stat_clear_snapshot()", Some(1), &[])?;
        client.select(&sql, Some(1), &[])?.first().get_one::<bool>()
    });
    found.map(|found| found == Some(true)).map_err(|error| PgError::internal(error.to_string()))
}

/// Keeps everybody away from the tables.
pub(super) fn lock_out(group: &Group) {
    privileged::set_for_transaction(c"lock_timeout", PATIENCE);
    for oid in group.tables() {
        lock_relation(oid, RelationLock::AccessExclusive);
    }
    for shard in group.shards() {
        lock_shard(ShardLock::Data(shard), Mode::Exclusive);
    }
}

fn switch(relocation: &Relocation) -> Result<(), PgError> {
    let since = clock();
    let group = &relocation.group;
    lock_out(group);
    // A statement that failed meanwhile may have marked placements.
    catalog::forget(None);
    let is_healthy = |member: &Member| {
        catalog::current_placements(member.shard()).iter().any(|placement| {
            placement.node == relocation.source
                && placement.state == shardmap::PlacementState::Healthy
        })
    };
    if let Some(member) = group.members.iter().find(|member| !is_healthy(member)) {
        return Err(PgError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "could not {} shard {}: the source has missed a write",
                relocation.kind.verb(),
                member.shard().0
            ),
        )
        .hint("Try again when it has been repaired, or from another placement."));
    }
    let names: Vec<String> = group.members.iter().map(Member::name).collect();
    // Of SERIALIZABLE transactions that have used the nodes none is under way while the place changes.
    relocation.on_source(&[gate::ALONE.to_owned()])?;
    relocation.on_target(&[gate::ALONE.to_owned()])?;
    // What is in doubt at the source is waited for here.
    relocation.on_source(&[format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", names.join(", "))])?;
    fault::point("relocation_locked");
    let round = rounds::round(relocation)?;
    create::keys(relocation)?;
    end(relocation, &names)?;
    change_placements(relocation)?;
    pg::sys::error::log(
        PgError::new(
            SqlState::SUCCESSFUL_COMPLETION,
            format!(
                "{} shard {} from node \"{}\" to node \"{}\"",
                relocation.kind.verb(),
                relocation.shard.0,
                relocation.source,
                relocation.target
            ),
        )
        .detail(format!(
            "{} rows were changed last, and others waited for {} ms.",
            round.rows,
            (clock() - since).as_millis()
        )),
    );
    Ok(())
}

/// What only the relocation has needed goes, and so does the source that has moved.
fn end(relocation: &Relocation, names: &[String]) -> Result<(), PgError> {
    let group = &relocation.group;
    let keys = group
        .members
        .iter()
        .filter(|member| member.has_rows())
        .map(|member| format!("DROP TABLE IF EXISTS {}", member.companion("keys")));
    relocation.on_target(&keys.collect::<Vec<_>>())?;
    let mut statements = capture::drop_all(group);
    if relocation.kind == Kind::Move {
        statements.extend(drop_shards(names));
    }
    relocation.on_source(&statements)
}

/// The statements that drop shards of a group, whichever of them refer to each other.
pub(super) fn drop_shards(names: &[String]) -> [String; 2] {
    [foreign_keys::drop_referring(names), format!("DROP TABLE IF EXISTS {}", names.join(", "))]
}

fn change_placements(relocation: &Relocation) -> Result<(), PgError> {
    let NodeAddress { host, port } = &relocation.target;
    let ids: Vec<String> =
        relocation.group.shards().iter().map(|shard| shard.0.to_string()).collect();
    let ids = ids.join(", ");
    let host = literal(host);
    change_metadata(&match relocation.kind {
        Kind::Move => format!(
            "UPDATE pgs_distribution_metadata.shard_placement SET node_name = {host}, node_port = {port} \
             WHERE shard_id IN ({ids}) AND {}",
            on_node(&relocation.source)
        ),
        Kind::Copy => format!(
            "INSERT INTO pgs_distribution_metadata.shard_placement (shard_id, shard_state, node_name, node_port) \
             SELECT id, 1, {host}, {port} FROM pgs_distribution_metadata.shard WHERE id IN ({ids})"
        ),
    })
}

/// Selects the placements of a node.
pub(super) fn on_node(node: &NodeAddress) -> String {
    format!("node_name = {} AND node_port = {}", literal(&node.host), node.port)
}
