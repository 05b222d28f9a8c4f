//! Relocation: a shard gets a placement on another node while clients read and write it. The placement takes the place of the
//! source's (a move) or comes beside it (a copy). The shards that lie beside it in other tables go along.
//!
//! One transaction over both nodes does all of it, so that whoever dies at whichever moment leaves the shard where it was, or where it
//! is to be. Only capture needs to be seen by writers before: it is committed by itself, and dropped by a visitor ([`undo`]) if the
//! relocation does not come to its end.
//!
//! 1. *Create* the tables on the target.
//! 2. *Capture* ([`capture`]): from now on the source notes the keys of rows that change.
//! 3. *Fill*: the target copies the rows from the source, beside its writers; then it builds indexes and collects statistics.
//! 4. *Catch up* in rounds ([`rounds`]): rows whose keys were noted are replaced by what the source has of them now.
//! 5. *Switch* ([`switch`]): everybody else is kept away from the tables for a moment, and the last round, the metadata and the drop of
//!    the source take effect together. Whoever uses the tables for long puts it off: the lock is asked for with little patience,
//!    and then the next round begins.

/// What it is for.
mod kind;

/// Which shards go together.
mod group;

/// What was asked for.
mod request;

/// Keys of rows that change meanwhile.
mod capture;

/// Making the placements on the target.
mod create;

/// Catching up with writers.
mod rounds;

/// The moment at which the placement changes.
mod switch;

/// Removing what a relocation has left behind.
mod undo;

/// Removing a placement.
mod removal;

pub(crate) use kind::Kind;
pub(crate) use removal::remove;
pub(crate) use undo::undo;

use crate::catalog;
use crate::fault;
use crate::transaction;
use group::Group;
use pg::server::lock::{Mode, ShardLock, lock_shard};
use pg::server::resolver;
use pg::server::transaction::Isolation;
use pg::{PgError, SqlState};
use request::Relocation;
use shardmap::{NodeAddress, ShardId};

/// Gives the shard, and those beside it in other tables, a placement on `target`, in the current transaction, which should end soon then:
/// the tables stay locked until it does.
///
/// # Errors
///
/// If the caller does not own the tables, the placements are not what they have to be for that, or a node fails. Nothing has
/// changed then.
pub(crate) fn relocate(
    kind: Kind,
    shard: ShardId,
    source: &NodeAddress,
    target: &NodeAddress,
) -> Result<(), PgError> {
    check_transaction(kind, shard)?;
    let group = locked_group(kind, shard, source, target)?;
    let (source, target) = (source.clone(), target.clone());
    let relocation = Relocation { kind, shard, source, target, group };
    relocation.group.check_relocation(kind, &relocation.source, &relocation.target)?;
    let mut leftovers = Leftovers { wakes: false };
    create::tables(&relocation)?;
    fault::point("relocation_created");
    leftovers.wakes = true;
    capture::begin(&relocation)?;
    fault::point("relocation_captured");
    create::rows(&relocation)?;
    fault::point("relocation_filled");
    create::indexes(&relocation)?;
    fault::point("relocation_indexed");
    switch::catch_up_and_switch(&relocation)?;
    fault::point("relocation_switched");
    leftovers.wakes = false;
    Ok(())
}

/// Has a visitor look for what was left behind, unless all went well.
struct Leftovers {
    wakes: bool,
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        if self.wakes {
            resolver::wake();
        }
    }
}

/// Each statement has to see what has been committed since the last one.
fn check_transaction(kind: Kind, shard: ShardId) -> Result<(), PgError> {
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
fn locked_group(
    kind: Kind,
    shard: ShardId,
    source: &NodeAddress,
    target: &NodeAddress,
) -> Result<Group, PgError> {
    let group = Group::find(kind.verb(), shard, &[source, target])?;
    for member in group.in_order() {
        pg::catalog::table::lock_relation(
            member.table.oid,
            pg::catalog::table::RelationLock::ShareUpdateExclusive,
        );
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
    let now = Group::find(kind.verb(), shard, &[source, target])?;
    if now.shards() == group.shards() {
        return Ok(now);
    }
    Err(PgError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the tables beside shard {} have changed meanwhile", shard.0),
    )
    .hint("Run it again."))
}
