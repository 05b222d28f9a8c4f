//! When the transactions of a server commit, and what a snapshot of a given time shows.
//!
//! Servers agree on commit times by a hybrid logical clock ([`Time`]). Each keeps a [`Timeline`] of its recent commits, which answers
//! what a reader at time T has to wait for, and what of all that its snapshot shows has to be hidden because it was committed
//! after T. Then a snapshot of T on one server and one of T on another are of the same moment: a transaction with writes on
//! both commits at the same time on both.
//!
//! Nothing here knows PostgreSQL. Who owns the memory, locks it, and tells what happens is the crate `pg`, in `timeline.rs`.
//! The idea is snapshot isolation for partitioned data by loosely synchronised clocks (Clock-SI, Du et al. 2013) with the clock
//! of Kulkarni et al. 2014.

/// The clock.
mod clock;

/// Recent commits.
mod commits;

/// What a coordinator is deciding.
mod decisions;

pub use clock::Time;
pub use commits::{Answer, Commit, Doubt, Flight, Gid, Head, Hidden, Refusal, Span, Timeline};
pub use decisions::Head as DecisionsHead;
pub use decisions::{Chosen, Decision, Decisions};
