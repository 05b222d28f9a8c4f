//! When transactions commit, and statements that read at a given time.
//!
//! The logic is the crate `timeline`; here it meets PostgreSQL. Every server that preloads the library keeps a clock and its
//! recent commits in shared memory ([`shared`]), which transactions report to ([`events`]). Whoever reads at a time gets a snapshot
//! of PostgreSQL's in which what has committed later counts as still in progress ([`aged`]), as far back as a process of ours
//! keeps what such snapshots see ([`horizon`]).

/// Snapshots of a moment that has passed.
pub(crate) mod aged;

/// What transactions report.
pub(crate) mod events;

/// How far back snapshots can be taken.
mod horizon;

/// The clock and the recent commits in shared memory.
pub(crate) mod shared;

use crate::sys::error::{PgError, SqlState};
pub use events::{commit_at, commit_prepared_at, last_commit};
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_sys};
pub use timeline::Time;

static TELLS_COMMITS: GucSetting<bool> = GucSetting::<bool>::new(false);
static IS_KEPT: GucSetting<bool> = GucSetting::<bool>::new(true);
static IS_NOT_KEPT: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Takes what is needed; once, when the library is loaded.
pub fn reserve() {
    GucRegistry::define_bool_guc(
        c"pg_shard.tell_commits",
        c"Tells the client when its transactions have committed.",
        c"Set by coordinators in their sessions to nodes: commit times are reported as a parameter of the session.",
        &TELLS_COMMITS,
        GucContext::Userset,
        GucFlags::NO_SHOW_ALL,
    );
    // SAFETY: a global of the postmaster.
    let is_preloaded = unsafe { pg_sys::process_shared_preload_libraries_in_progress };
    GucRegistry::define_bool_guc(
        c"pg_shard.keeps_time",
        c"This server can take part in reads of one moment over several nodes.",
        c"It does where the library is preloaded.",
        if is_preloaded { &IS_KEPT } else { &IS_NOT_KEPT },
        GucContext::Internal,
        GucFlags::REPORT,
    );
    shared::reserve();
    horizon::register();
}

/// This server keeps the time.
pub fn is_kept() -> bool {
    shared::is_there()
}

/// The client wants to hear of commits.
fn tells_commits() -> bool {
    TELLS_COMMITS.get()
}

/// The clock; none if the library is not preloaded.
pub fn now() -> Option<Time> {
    shared::with(|timeline| timeline.now(shared::own_clock()))
}

/// A time at which statements that begin now can read on all servers: nothing that this server has acknowledged is later. None if
/// the library is not preloaded.
pub fn read_time() -> Option<Time> {
    let now = now()?;
    Some(shared::acknowledged().max(now))
}

/// A node has reported that a transaction has committed at that time, which is about to be acknowledged.
pub fn acknowledge(time: Time) {
    // A clock that far ahead is broken: what reads wait for must not be it.
    if time <= shared::own_clock().plus(Time::FAR) {
        shared::acknowledge(time);
    }
}

/// What a statement that reads at a time fails with if that cannot be had; another time may do.
pub(crate) fn refused(reason: &str) -> PgError {
    PgError::new(SqlState(*b"72000"), "cannot read at the requested time").detail(reason)
}
