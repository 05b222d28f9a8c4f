//! Heavyweight locks of this database, in the lock spaces of pg_shard 1.2.
//!
//! 1.2 locks shards by advisory-class tags whose objsubid is 3 (data) or 4 (metadata); users' own advisory
//! locks have 1 or 2. We add 5: one hash value of a shard's distribution column, so that two writers of
//! different keys of a replicated shard do not wait for each other; 6: the turn of those that want many shards; and 7: the turn
//! of SERIALIZABLE transactions over several nodes.

use pgrx::pg_sys;
use shardmap::ShardId;
use std::ffi::c_int;

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardLock {
    /// The rows of a shard.
    Data(ShardId),
    /// The shard's metadata.
    Metadata(ShardId),
    /// The rows of a shard whose distribution column hashes to this.
    Key(ShardId, i32),
    /// What whoever locks rows of a table's shards shares before, and has alone who must not meet any of them; told by
    /// the table's first shard.
    WriteGate(ShardId),
    /// The turn of the SERIALIZABLE transaction that uses several nodes.
    Several,
}

/// How it is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Rows are inserted, each under the lock of its key: beside everything but [`Mode::Exclusive`].
    InsertByKey,
    /// Rows of one key are changed, under the lock of that key: not beside [`Mode::Share`].
    ChangeByKey,
    /// With other sharers and with inserts by key: rows of any key are added without locks of their keys.
    Share,
    /// Alone.
    Exclusive,
}

/// Takes a lock to the end of the transaction; waits as long as it takes. Afterwards this backend knows what
/// others committed while it waited, as after a lock on a relation.
pub fn lock_shard(lock: ShardLock, mode: Mode) {
    // SAFETY: a complete tag on the stack.
    unsafe {
        pg_sys::LockAcquire(&tag_of(lock), number_of(mode), false, false);
        pg_sys::AcceptInvalidationMessages();
    }
}

/// Takes a lock if that needs no waiting; true if it has been taken.
pub fn try_lock_shard(lock: ShardLock, mode: Mode) -> bool {
    // SAFETY: as in `lock_shard`.
    unsafe {
        let result = pg_sys::LockAcquire(&tag_of(lock), number_of(mode), false, true);
        pg_sys::AcceptInvalidationMessages();
        result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}

/// Gives back a lock that protects nothing yet.
pub fn unlock_shard(lock: ShardLock, mode: Mode) {
    // SAFETY: as in `lock_shard`; the caller has taken it once more than it gives it back.
    unsafe {
        pg_sys::LockRelease(&tag_of(lock), number_of(mode), false);
    }
}

/// The relations that the transaction has locked for reading or writing rows. Those that it has locked against everybody are not among
/// them: it has made them, or changes their definition.
pub fn relations_in_use() -> Vec<pg_sys::Oid> {
    let below_all = |lock: i32| (1 << lock) - 1;
    // SAFETY: the function copies what is in shared memory into `nelements` entries of the current memory context.
    let locks = unsafe {
        let data = &*pg_sys::GetLockStatusData();
        std::slice::from_raw_parts(data.locks, data.nelements as usize)
    };
    // SAFETY: reads the backend's state.
    let (database, process) = unsafe { (pg_sys::MyDatabaseId.to_u32(), pg_sys::MyProcPid) };
    let of_rows = below_all(pg_sys::AccessExclusiveLock as i32);
    let mine = locks.iter().filter(|lock| {
        let tag = &lock.locktag;
        lock.pid == process
            && tag.locktag_type == pg_sys::LockTagType::LOCKTAG_RELATION as u8
            && tag.locktag_field1 == database
    });
    let is_own = |lock: &&pg_sys::LockInstanceData| lock.holdMask > of_rows;
    let (own, others): (Vec<_>, Vec<_>) = mine.partition(is_own);
    let relation = |lock: &&pg_sys::LockInstanceData| lock.locktag.locktag_field2;
    let own: Vec<u32> = own.iter().map(relation).collect();
    let used = others.iter().filter(|lock| lock.holdMask != 0).map(relation);
    used.filter(|oid| !own.contains(oid)).map(pg_sys::Oid::from).collect()
}

/// A complete advisory tag (SET_LOCKTAG_ADVISORY, `src/include/storage/lock.h`).
fn tag_of(lock: ShardLock) -> pg_sys::LOCKTAG {
    let split = |id: ShardId| ((id.0 >> 32) as u32, id.0 as u32);
    let (field2, field3, field4) = match lock {
        ShardLock::Data(id) => (split(id).0, split(id).1, 3),
        ShardLock::Metadata(id) => (split(id).0, split(id).1, 4),
        ShardLock::Key(id, hash) => (split(id).1, hash as u32, 5),
        ShardLock::WriteGate(id) => (split(id).0, split(id).1, 6),
        ShardLock::Several => (0, 0, 7),
    };
    pg_sys::LOCKTAG {
        // SAFETY: reads the backend's state.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: field2,
        locktag_field3: field3,
        locktag_field4: field4,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

/// The table of conflicts is PostgreSQL's own (`LockConflicts`, `src/backend/storage/lmgr/lock.c`).
fn number_of(mode: Mode) -> c_int {
    (match mode {
        Mode::InsertByKey => pg_sys::RowShareLock,
        Mode::ChangeByKey => pg_sys::RowExclusiveLock,
        Mode::Share => pg_sys::ShareLock,
        Mode::Exclusive => pg_sys::ExclusiveLock,
    }) as c_int
}
