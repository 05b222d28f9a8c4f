//! Repair: placements that missed writes become equal to healthy ones of their shards, when asked and by themselves.

/// Comparing placements.
mod compare;

/// What nodes compute for that.
mod hashing;

/// Looking whether they are equal.
mod check;

/// Making one equal to another.
mod placement;

/// Processes of nodes that were given up.
pub(crate) mod fence;

/// What was tried in vain.
mod attempts;

/// Repairs that nobody has asked for.
mod visit;

/// Placements of nodes that stay away.
mod lost;

pub(crate) use check::check;
pub(crate) use compare::{CONSULT_LOGS, Pair};
pub(crate) use lost::send_if_lost;
pub(crate) use placement::{Instruction, apply, copy_in, fill, repair, table_of};
pub(crate) use visit::{send_if_stale, visit};
