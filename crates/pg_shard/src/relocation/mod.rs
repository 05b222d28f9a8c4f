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

/// Removing a placement.
mod removal;

pub(crate) use kind::Kind;
pub(crate) use removal::remove;
pub(crate) use split::{isolate, split};
pub(crate) use undo::undo;

use crate::activity::{Kind as Phase, Work};
use crate::fault;
use leftovers::Leftovers;
use locks::{check_transaction, locked_group};
use pg::PgError;
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
    let relocation = Relocation { kind, shard, source, target, group };
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
