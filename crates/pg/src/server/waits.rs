//! Who waits for whom on this server, as `pg_locks` and `pg_blocking_pids` tell it.

use crate::sys::error::owned_text;
use pgrx::pg_sys::{self, Oid};
use pgrx::{IntoDatum, PgMemoryContexts, direct_function_call};

/// A process that waits for a lock.
#[derive(Clone, Debug)]
pub struct LocalWait {
    /// The process; of a parallel query the one that leads it.
    pub pid: i32,
    /// Its holder may release the lock before its transaction ends.
    pub is_momentary: bool,
    /// Since when.
    pub since: i64,
    /// For which processes; 0 is a prepared transaction.
    pub holders: Vec<i32>,
    /// The table of the lock, if it is one of this database.
    pub table: Option<Oid>,
}

/// All waits for locks of this server.
pub fn waits() -> Vec<LocalWait> {
    let mut memory = PgMemoryContexts::new("pg_shard waits");
    // SAFETY: the list of locks is a copy in the current memory, which is deleted when all has been taken from it.
    unsafe {
        memory.switch_to(|_| {
            let data = &*pg_sys::GetLockStatusData();
            let count = usize::try_from(data.nelements).unwrap_or(0);
            let locks = std::slice::from_raw_parts(data.locks, count);
            locks.iter().filter(|lock| lock.waitLockMode != 0).map(|lock| wait_of(lock)).collect()
        })
    }
}

/// # Safety
///
/// In memory of short life.
unsafe fn wait_of(lock: &pg_sys::LockInstanceData) -> LocalWait {
    use pg_sys::LockTagType as Tag;
    // SAFETY: the function takes one integer and returns an array of them.
    let holders = unsafe {
        direct_function_call::<Vec<i32>>(pg_sys::pg_blocking_pids, &[lock.leaderPid.into_datum()])
    };
    let tag = u32::from(lock.locktag.locktag_type);
    let moment = [
        Tag::LOCKTAG_RELATION_EXTEND,
        Tag::LOCKTAG_PAGE,
        Tag::LOCKTAG_TUPLE,
        Tag::LOCKTAG_SPECULATIVE_TOKEN,
    ];
    let of_table = [
        Tag::LOCKTAG_RELATION,
        Tag::LOCKTAG_RELATION_EXTEND,
        Tag::LOCKTAG_PAGE,
        Tag::LOCKTAG_TUPLE,
    ];
    // SAFETY: a global of the backend.
    let is_here = unsafe { pg_sys::MyDatabaseId }.to_u32() == lock.locktag.locktag_field1;
    LocalWait {
        pid: lock.leaderPid,
        is_momentary: moment.contains(&tag),
        since: lock.waitStart,
        holders: holders.unwrap_or_default(),
        table: (is_here && of_table.contains(&tag)).then(|| Oid::from(lock.locktag.locktag_field2)),
    }
}

/// The statement that a process of this server executes: `for_user` says that the current user is going to read it, who may not see
/// those of others.
pub fn statement_of(pid: i32, for_user: bool) -> Option<String> {
    // SAFETY: returns a text of shared memory, a constant or null, which is copied at once.
    let text = unsafe { owned_text(pg_sys::pgstat_get_backend_current_activity(pid, for_user)) };
    // What PostgreSQL says instead of a statement (`backend_status.c`).
    (!text.is_empty() && !text.starts_with('<')).then_some(text)
}

/// What tells this server from all others.
pub fn system_identifier() -> u64 {
    // SAFETY: reads shared memory.
    unsafe { pg_sys::GetSystemIdentifier() }
}

/// PostgreSQL's `deadlock_timeout`, in milliseconds.
pub fn deadlock_timeout() -> i32 {
    // SAFETY: a global of the backend.
    unsafe { pg_sys::DeadlockTimeout }
}
