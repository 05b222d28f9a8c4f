//! Sessions to nodes that all backends of a server share: which there are, who has which, and what each knows.
//!
//! A [`Table`] lies in memory that all processes share; all bytes zero is an empty one. To claim an idle session, and to give
//! it back, takes a few atomic operations. Opening one, and waiting for one where a node's limit is reached, goes through
//! a short critical section. Nothing here waits for a node, a clock or another process.
//!
//! * A session is lent to one process at a time: the state of its [`Slot`] says which, and changes by compare-and-exchange.
//! * Of those that are free the one that was used last is lent first, so that few stay warm.
//! * A node has no more sessions than the limit. Who holds none waits in order; who holds one never waits, so that those
//!   who wait cannot wait for each other, and a part of the limit is kept for them.
//! * Each use of a slot has a number of its own, its generation: what a process remembers of an earlier one is void.

mod digest;
mod queue;
mod slot;
mod statements;
mod table;
#[cfg(test)]
mod tests;
mod waiting;

pub use digest::{Digest, digest};
pub use slot::{Fact, Lease, Seen, Slot, State};
pub use statements::{Found, Statements};
pub use table::{Key, Limits, MEMBERS, Refused, SLOTS, Table};
pub use waiting::{Granted, Ticket};
