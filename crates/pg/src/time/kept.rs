//! The snapshot of the past that a transaction block has used last.
//!
//! A coordinator asks a node several times for a statement that writes or locks rows, always at one time. The first answer may wait for a
//! row for longer than the past is kept. So the snapshot stays until the transaction ends or reads at another time.

use pgrx::pg_sys::{self, CommandId, Snapshot};
use std::cell::Cell;
use timeline::Time;

thread_local! {
    /// Registered with the transaction's resource owner.
    static KEPT: Cell<Option<(Time, Snapshot)>> = const { Cell::new(None) };
}

/// The snapshot of that time, registered for the current owner, if it is kept. It shows what the transaction itself has changed before the
/// command of that number.
///
/// # Safety
///
/// The backend is in a transaction.
pub(super) unsafe fn of(at: Time, command: CommandId) -> Option<Snapshot> {
    let (_, kept) = KEPT.get().filter(|(time, _)| *time == at)?;
    // SAFETY: the kept snapshot is registered, so it is there. The copy is ours alone until it is registered, and keeps alive by that.
    unsafe {
        pg_sys::PushCopiedSnapshot(kept);
        let copy = pg_sys::GetActiveSnapshot();
        (*copy).curcid = command;
        let registered = pg_sys::RegisterSnapshot(copy);
        pg_sys::PopActiveSnapshot();
        Some(registered)
    }
}

/// Keeps a snapshot of that time, and gives up the one before; in a transaction block only, where more of the statement may follow.
///
/// # Safety
///
/// The backend is in a transaction, and the snapshot is valid.
pub(super) unsafe fn keep(at: Time, snapshot: Snapshot) {
    give_up();
    // SAFETY: the caller vouches; the owner lives as long as the transaction.
    unsafe {
        if pg_sys::IsTransactionBlock() {
            let owner = pg_sys::TopTransactionResourceOwner;
            KEPT.set(Some((at, pg_sys::RegisterSnapshotOnOwner(snapshot, owner))));
        }
    }
}

/// Gives up what is kept; the transaction is about to commit, or to be prepared.
pub(super) fn give_up() {
    if let Some((_, kept)) = KEPT.take() {
        // SAFETY: it was registered so in this transaction, which has not ended.
        unsafe { pg_sys::UnregisterSnapshotFromOwner(kept, pg_sys::TopTransactionResourceOwner) };
    }
}

/// The transaction has been rolled back, and PostgreSQL gives up its snapshots.
pub(super) fn forget() {
    KEPT.set(None);
}
