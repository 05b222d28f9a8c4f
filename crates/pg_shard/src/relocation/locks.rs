//! Who is kept away from the tables, and when.

use super::group::Group;
use super::kind::Kind;
use super::rounds::Round;
use crate::catalog;
use crate::transaction;
use pg::catalog::privileged;
use pg::catalog::table::{RelationLock, lock_relation};
use pg::net::wait::pause;
use pg::server::attempt::attempt;
use pg::server::lock::{Mode, ShardLock, lock_shard};
use pg::server::settings;
use pg::server::transaction::Isolation;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::catching_up::{CatchingUp, Next};
use shardmap::{NodeAddress, ShardId};
use std::ffi::CString;

/// How long others queue behind us for a table.
const PATIENCE: &std::ffi::CStr = c"250ms";

/// A row that is unique may conflict with another one that has changed since the keys were taken; the next round has both.
const CONFLICTS: [SqlState; 2] = [SqlState::UNIQUE_VIOLATION, SqlState::EXCLUSION_VIOLATION];

/// Runs rounds beside writers, and then the switch, which begins with [`lock_out`], as soon as it has to wait for nobody.
pub(crate) fn when_nobody_is_in_the_way(
    tables: &[Oid],
    round: &dyn Fn() -> Result<Round, PgError>,
    switch: &dyn Fn() -> Result<(), PgError>,
) -> Result<(), PgError> {
    let mut catching_up = CatchingUp::default();
    loop {
        let found = attempt(&CONFLICTS, round)?;
        if catching_up.after_round(found.ok().map(|found| found.rows)) == Next::Round {
            continue;
        }
        if !is_used_for_long(tables)? && attempt(&[SqlState::LOCK_NOT_AVAILABLE], switch)?.is_ok() {
            return Ok(());
        }
        pause(catching_up.after_refusal());
    }
}

/// Keeps everybody away from tables, in the order given.
///
/// # Errors
///
/// 55P03, as PostgreSQL's own, if somebody else does not give way in a moment.
pub(crate) fn lock_out_briefly(tables: &[Oid]) {
    let before = CString::new(settings::lock_timeout().to_string()).unwrap_or_default();
    privileged::set_for_transaction(c"lock_timeout", PATIENCE);
    for oid in tables {
        lock_relation(*oid, RelationLock::AccessExclusive);
    }
    privileged::set_for_transaction(c"lock_timeout", &before);
}

/// Keeps everybody away from tables, in the order given. Whoever uses one for long puts it off, and nobody waits meanwhile.
pub(crate) fn lock_out_tables(tables: &[Oid]) -> Result<(), PgError> {
    let mut catching_up = CatchingUp::default();
    let lock = || {
        lock_out_briefly(tables);
        Ok(())
    };
    while attempt(&[SqlState::LOCK_NOT_AVAILABLE], lock)?.is_err() {
        pause(catching_up.after_refusal());
    }
    Ok(())
}

/// A transaction that uses one of the tables is older than we want others to wait: it will hardly end in a moment.
fn is_used_for_long(tables: &[Oid]) -> Result<bool, PgError> {
    let tables: Vec<String> = tables.iter().map(|oid| oid.to_u32().to_string()).collect();
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

/// Each statement has to see what has been committed since the last one.
pub(super) fn check_transaction(kind: Kind, shard: ShardId) -> Result<(), PgError> {
    if pg::server::transaction::isolation_level() == Isolation::ReadCommitted {
        return Ok(());
    }
    Err(PgError::new(
        SqlState::ACTIVE_SQL_TRANSACTION,
        format!("cannot {} shard {} in a transaction that has one snapshot", kind.verb(), shard.0),
    )
    .hint("Run it under READ COMMITTED."))
}

/// The shards that go together, with definitions and placements that nobody else changes from now on.
pub(super) fn locked_group(
    kind: Kind,
    shard: ShardId,
    nodes: &[&NodeAddress],
) -> Result<Group, PgError> {
    let group = Group::find(kind.verb(), shard, nodes)?;
    for member in group.in_order() {
        lock_relation(member.table.oid, RelationLock::ShareUpdateExclusive);
    }
    for member in group.in_order() {
        lock_shard(ShardLock::Metadata(member.shard()), Mode::Exclusive);
        if transaction::has_written(member.shard()) {
            return Err(PgError::new(
                SqlState::ACTIVE_SQL_TRANSACTION,
                format!(
                    "cannot {} shard {} in the transaction that has written it",
                    kind.verb(),
                    shard.0
                ),
            )
            .hint("Commit first: the other node cannot see what is not committed."));
        }
    }
    // Behind the locks.
    catalog::forget(None);
    let now = Group::find(kind.verb(), shard, nodes)?;
    if now.shards() == group.shards() {
        return Ok(now);
    }
    Err(PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the tables beside shard {} have changed meanwhile", shard.0),
    )
    .hint("Run it again."))
}
