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

/// The snapshot of the past that a transaction goes on with.
mod kept;

/// The clock and the recent commits in shared memory.
pub(crate) mod shared;

use crate::sys::error::{PgError, SqlState};
pub use events::{commit_at, commit_prepared_at, last_commit};
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_sys};
use std::ffi::CStr;
pub use timeline::Time;

const TELL_COMMITS: &CStr = c"pg_shard.tell_commits";

static TELLS_COMMITS: GucSetting<bool> = GucSetting::<bool>::new(false);
static IS_KEPT: GucSetting<bool> = GucSetting::<bool>::new(true);
static IS_NOT_KEPT: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Takes what is needed; once, when the library is loaded.
pub fn reserve() {
    GucRegistry::define_bool_guc(
        TELL_COMMITS,
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

/// A time for a read on several servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The time.
    pub at: Time,
    /// What this coordinator has in doubt commits later: nodes need not wait for it.
    pub but: Option<u64>,
    /// Something may be left in doubt by a crash or a failure.
    pub is_unclean: bool,
}

impl Reading {
    /// How a portal, or a snapshot to import, is called that reads so.
    pub fn name(&self) -> String {
        let number = self.at.number();
        match self.but {
            Some(coordinator) => format!("{NAME}{number}_{coordinator}"),
            None => format!("{NAME}{number}"),
        }
    }
}

/// When a transaction has committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// At that time, or not later.
    pub time: Time,
    /// It is the very time.
    pub is_exact: bool,
}

impl When {
    /// As `pgs_catalog.committed_at` tells it.
    pub fn from_text(text: &str) -> Option<Self> {
        let (word, number) = text.split_once(' ')?;
        let time = Time::from_number(number.parse().ok()?)?;
        Some(Self { time, is_exact: word == "at" })
    }

    /// The comment that tells it behind COMMIT PREPARED.
    pub fn comment(self) -> String {
        match self.is_exact {
            true => comment(Some(self.time)),
            false => format!(" /* pgs_by_{} */", self.time.number()),
        }
    }
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = if self.is_exact { "at" } else { "by" };
        write!(f, "{word} {}", self.time.number())
    }
}

/// When a transaction of this server has committed, which is visible. None if the library is not preloaded.
pub fn when_committed(transaction: u64) -> Option<When> {
    let (time, is_exact) = shared::with(|timeline| timeline.committed(transaction as u32))?;
    Some(When { time, is_exact })
}

/// The comment that tells a node a time behind a command that ends a transaction.
pub fn comment(at: Option<Time>) -> String {
    at.map(|at| format!(" /* {NAME}{} */", at.number())).unwrap_or_default()
}

/// What the name of a portal, or of a snapshot to import, begins with if a time follows.
const NAME: &str = "pgs_at_";

/// A time at which statements that begin now can read on all servers: nothing that this server has acknowledged is later. It is
/// that of the clock if `must_be_now`. None if the library is not preloaded.
pub fn read_time(must_be_now: bool, coordinator: u64) -> Option<Reading> {
    let now = now()?;
    let acknowledged = shared::acknowledged();
    let least = if must_be_now { acknowledged.max(now) } else { acknowledged };
    let chosen = shared::with_decisions(|it| it.choose(database(), least, now))?;
    let but = (chosen.is_settled && coordinator != 0).then_some(coordinator);
    Some(Reading { at: chosen.at, but, is_unclean: !chosen.is_clean })
}

/// A transaction that is known to have committed somewhere has done so by now.
pub fn by_now() -> Option<When> {
    Some(When { time: shared::acknowledged().max(now()?), is_exact: false })
}

fn database() -> u32 {
    // SAFETY: a global of the process.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

/// By which this process is known among those that decide.
fn owner() -> u32 {
    // SAFETY: a global of the process.
    unsafe { pg_sys::MyProcPid }.cast_unsigned()
}

fn is_alive(pid: u32) -> bool {
    // SAFETY: looks for a process; raises nothing (`BackendPidGetProc`, `procarray.c`).
    unsafe { !pg_sys::BackendPidGetProc(pid.cast_signed()).is_null() }
}

/// A transaction over several nodes is about to be decided: it must not commit before the time returned, nor before `least`.
pub fn begin_decision(least: Time) -> Option<Time> {
    shared::with_decisions(|it| it.begin(owner(), database(), least)).flatten()
}

/// It has committed at that time.
pub fn decided(time: Time) {
    shared::with_decisions(|it| it.decide(owner(), time));
}

/// All nodes have done what was decided, or else something is left in doubt.
pub fn end_decision(is_done: bool) {
    shared::with_decisions(|it| it.end(owner(), is_done));
}

/// How often something was left in doubt, by now.
pub fn left_in_doubt() -> u64 {
    shared::with_decisions(|it| it.end_of_the_dead(&mut is_alive));
    shared::with_decisions(|it| it.left()).unwrap_or(0)
}

/// Nothing is in doubt of the transactions of this database, unless something was left since [`left_in_doubt`] was that.
pub fn nothing_in_doubt(left: u64) {
    shared::with_decisions(|it| it.settle(database(), left));
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
    PgError::new(SqlState::SNAPSHOT_TOO_OLD, "cannot read at the requested time").detail(reason)
}
