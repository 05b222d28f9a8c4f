//! Heavyweight locks of this database, in the lock spaces of pg_shard 1.2.
//!
//! 1.2 locks shards by advisory-class tags whose objsubid is 3 (data) or 4 (metadata); users' own advisory
//! locks have 1 or 2. We add 5: one hash value of a shard's distribution column, so that two writers of
//! different keys of a replicated shard do not wait for each other.

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
}

/// How it is locked: PostgreSQL's lock modes of these names, of which each excludes another set of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Excludes [`Self::Exclusive`] only.
    RowShare,
    /// Excludes [`Self::Share`] and [`Self::Exclusive`].
    RowExclusive,
    /// Excludes [`Self::RowExclusive`] and [`Self::Exclusive`].
    Share,
    /// Excludes all.
    Exclusive,
}

/// Takes a lock to the end of the transaction; waits as long as it takes. Afterwards this backend knows what
/// others committed while it waited, as after a lock on a relation.
pub fn lock_shard(lock: ShardLock, mode: Mode) {
    let split = |id: ShardId| ((id.0 >> 32) as u32, id.0 as u32);
    let (field2, field3, field4) = match lock {
        ShardLock::Data(id) => (split(id).0, split(id).1, 3),
        ShardLock::Metadata(id) => (split(id).0, split(id).1, 4),
        ShardLock::Key(id, hash) => (split(id).1, hash as u32, 5),
    };
    let mode = match mode {
        Mode::RowShare => pg_sys::RowShareLock,
        Mode::RowExclusive => pg_sys::RowExclusiveLock,
        Mode::Share => pg_sys::ShareLock,
        Mode::Exclusive => pg_sys::ExclusiveLock,
    };
    // SAFETY: a complete advisory tag (SET_LOCKTAG_ADVISORY, `src/include/storage/lock.h`) on the stack.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.to_u32(),
            locktag_field2: field2,
            locktag_field3: field3,
            locktag_field4: field4,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        };
        pg_sys::LockAcquire(&raw const tag, mode as c_int, false, false);
        pg_sys::AcceptInvalidationMessages();
    }
}
