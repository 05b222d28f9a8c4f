//! How a transaction over several nodes commits, and what ends it after a crash.
//!
//! One participant, the *anchor*, decides. All others that have written prepare (PREPARE TRANSACTION); then the anchor
//! commits, and that commit is the decision; then the others commit what they have prepared. The anchor's transaction
//! contains a row of its own, its *evidence* ([`Gid`]): whoever finds a prepared transaction after a crash asks the anchor
//! whether the row is there ([`verdict`]). A transaction number alone would not do: PostgreSQL assigns the number of a
//! transaction that was lost in a crash once more, and the next transaction of that number may commit.
//!
//! Nothing here knows PostgreSQL: events come in, commands go out. The tests run every order of events with a crash after
//! every step.

mod gid;
mod protocol;
mod recovery;
#[cfg(test)]
mod world;

pub use gid::{Evidence, Gid};
pub use protocol::{
    Anchor, Cause, Command, Event, Outcome, Part, Participant, Protocol, Stamp, Transaction,
};
pub use recovery::{State, Verdict, verdict};
