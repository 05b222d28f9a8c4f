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

/// Who is kept away, and when.
mod locks;

/// What is committed before the end.
mod leftovers;

/// Splitting shards.
mod split;

/// SQL about placements.
mod placements;

/// Removing a placement.
mod removal;

/// Shards that a node may still have though it has no placement of them.
mod orphans;

pub(crate) use kind::Kind;
pub(crate) use leftovers::Leftovers;
pub(crate) use locks::{lock_out_briefly, lock_out_tables, when_nobody_is_in_the_way};
pub(crate) use orphans::{Orphan, discard};
pub(crate) use removal::remove;
pub(crate) use rounds::Round;
pub(crate) use split::{isolate, shard_of, split};
pub(crate) use undo::undo;

use crate::activity::{Kind as Phase, Work};
use crate::fault;
use group::{Group, Member};
use locks::{check_transaction, locked_group};
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
    let group = locked_group(kind, shard, &[source, target])?;
    let (source, target) = (source.clone(), target.clone());
    run(Relocation { kind, shard, source, target, lost: None, group })
}

/// Gives the shard, and those beside it, a placement on `target` that takes the place of the one on a node that is lost. What that node
/// still has is dropped when it is back.
///
/// # Errors
///
/// As [`relocate`].
pub(crate) fn replace(
    shard: ShardId,
    source: &NodeAddress,
    lost: &NodeAddress,
    target: &NodeAddress,
) -> Result<(), PgError> {
    let kind = Kind::Replace;
    check_transaction(kind, shard)?;
    let group = locked_group(kind, shard, &[source, target])?;
    check_replaced(&group, source, lost)?;
    let (source, target) = (source.clone(), target.clone());
    run(Relocation { kind, shard, source, target, lost: Some(lost.clone()), group })
}

/// The node has a placement of one of the shards at least, and is not the source of it.
fn check_replaced(group: &Group, source: &NodeAddress, lost: &NodeAddress) -> Result<(), PgError> {
    let is_there = |member: &Member| {
        member.table.placements[member.index].iter().any(|placement| placement.node == *lost)
    };
    if source != lost && group.members.iter().any(is_there) {
        return Ok(());
    }
    Err(PgError::new(
        SqlState::DATA_EXCEPTION,
        format!("could not find placement matching \"{lost}\""),
    )
    .hint("Confirm the placement still exists and try again."))
}

fn run(relocation: Relocation) -> Result<(), PgError> {
    let kind = relocation.kind;
    relocation.group.check_relocation(kind, &relocation.source, &relocation.target)?;
    let mut leftovers = Leftovers::default();
    let phase = Work::begin(Phase::RelocationCreate, 0);
    create::tables(&relocation)?;
    fault::point("relocation_created");
    let phase = phase.followed_by(Phase::RelocationCapture);
    leftovers.are_there();
    capture::begin(&relocation)?;
    fault::point("relocation_captured");
    let phase = phase.followed_by(Phase::RelocationFill);
    create::rows(&relocation)?;
    fault::point("relocation_filled");
    let phase = phase.followed_by(Phase::RelocationIndex);
    create::indexes(&relocation)?;
    fault::point("relocation_indexed");
    let _phase = phase.followed_by(Phase::RelocationCatchUp);
    switch::catch_up_and_switch(&relocation)?;
    fault::point("relocation_switched");
    leftovers.are_gone();
    Ok(())
}
