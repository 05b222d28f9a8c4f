//! Placements that missed writes: repaired when asked and by themselves, by rows that differ where that is possible.

/// What travels when a placement is repaired.
mod difference;

/// Repairs that nobody asks for.
mod unasked;

/// What is in doubt while a placement is repaired.
mod doubt;

/// Looking whether placements are equal.
mod check;

/// Processes of nodes that were given up.
mod stray;
