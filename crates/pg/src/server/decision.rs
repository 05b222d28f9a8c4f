//! The row by which a transaction shows that it has committed, for whoever asks after a crash.
//!
//! The row holds the transaction's own number and a random one: PostgreSQL assigns the number of a transaction that a crash
//! has lost once more. Nobody can write a row for a transaction of somebody else.

use crate::catalog::table::{self, Search};
use crate::sys::error::{PgError, SqlState};
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::Cell;
use std::ffi::c_int;

/// What the row says, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// This node's identity.
    pub node: u64,
    /// The transaction, with its epoch.
    pub transaction: u64,
    /// The random number.
    pub nonce: i64,
}

thread_local!(static IDENTITY: Cell<(Oid, u64)> = const { Cell::new((Oid::INVALID, 0)) });

/// By which number other nodes know this one; 0 without the extension.
pub fn identity() -> u64 {
    let Some(table) = table::relation_oid("pgs_catalog", "identity") else { return 0 };
    if IDENTITY.get().0 != table {
        let mut identity = 0;
        table::scan(table, None, 1, Search::All, &mut |row| {
            identity = row.int8(1).cast_unsigned();
        });
        IDENTITY.set((table, identity));
    }
    IDENTITY.get().1
}

/// The transaction has a number: it has written something here.
pub fn has_written() -> bool {
    // SAFETY: reads the backend's state.
    unsafe { pg_sys::GetTopTransactionIdIfAny() != pg_sys::TransactionId::from(0) }
}

/// The current transaction's commit is written to disk before it is acknowledged, whatever `synchronous_commit` says.
pub fn make_durable() {
    // SAFETY: sets a flag of the transaction.
    unsafe { pg_sys::ForceSyncCommit() };
}

/// There is a place for the row.
pub fn can_record() -> bool {
    table::relation_oid("pgs_catalog", "decision").is_some()
}

/// Writes the row. From here on the transaction's commit is durable.
pub fn record(coordinator: u64) -> Result<Recorded, PgError> {
    let table = table::relation_oid("pgs_catalog", "decision").ok_or_else(|| {
        PgError::new(SqlState::UNDEFINED_OBJECT, "relation \"pgs_catalog.decision\" does not exist")
            .hint("CREATE EXTENSION pg_shard.")
    })?;
    let mut bytes = [0u8; 8];
    // SAFETY: fills the array (`src/port/pg_strong_random.c`).
    if !unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) } {
        return Err(PgError::internal("could not generate a random number"));
    }
    let nonce = i64::from_ne_bytes(bytes);
    // SAFETY: the table is the extension's own and has these three columns, all of eight bytes and passed by value; it is
    // open and locked while its descriptor is used, and the lock stays to the end of the transaction.
    let transaction = unsafe {
        pg_sys::PreventCommandIfReadOnly(c"COMMIT over several nodes".as_ptr());
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as c_int);
        let transaction = pg_sys::GetTopFullTransactionId().value;
        let mut values =
            [Datum::from(transaction), Datum::from(nonce), Datum::from(coordinator as i64)];
        let mut nulls = [false; 3];
        let tuple =
            pg_sys::heap_form_tuple((*relation).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::simple_heap_insert(relation, tuple);
        pg_sys::heap_freetuple(tuple);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        transaction
    };
    make_durable();
    Ok(Recorded { node: identity(), transaction, nonce })
}

/// What is known of a transaction of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is under way, or prepared.
    UnderWay,
    /// It has ended, and its row is there or not.
    Ended {
        /// The row is visible.
        has_row: bool,
    },
}

/// The transaction has written its row, which need not be committed. One that is under way and has not is another: a crash has lost the one that was asked about,
/// before anything with its number was flushed, and PostgreSQL has given the number once more.
pub fn has_written_row(transaction: u64, nonce: i64) -> bool {
    let mut has_row = false;
    if let Some(table) = table::relation_oid("pgs_catalog", "decision") {
        table::scan_versions(table, &mut |row| {
            has_row |= row.int8(1).cast_unsigned() == transaction && row.int8(2) == nonce;
        });
    }
    has_row
}

/// Looks whether the transaction is under way, and then for its row.
pub fn look(transaction: u64, nonce: i64) -> Known {
    // SAFETY: reads shared memory; the number is that of a transaction that is not further away than PostgreSQL's numbers
    // can be told apart.
    let is_under_way = unsafe {
        let next = pg_sys::ReadNextFullTransactionId().value;
        transaction < next
            && next - transaction < 1 << 31
            && pg_sys::TransactionIdIsInProgress(pg_sys::TransactionId::from(transaction as u32))
    };
    if is_under_way && has_written_row(transaction, nonce) {
        return Known::UnderWay;
    }
    let mut has_row = false;
    if let Some(table) = table::relation_oid("pgs_catalog", "decision") {
        table::scan(table, None, 1, Search::All, &mut |row| {
            has_row |= row.int8(1).cast_unsigned() == transaction && row.int8(2) == nonce;
        });
    }
    Known::Ended { has_row }
}

/// No transaction below this number is under way.
pub fn horizon() -> u64 {
    // SAFETY: reads shared memory under the array's lock. The oldest running number is not further back than numbers can be
    // told apart.
    unsafe {
        let oldest = pg_sys::GetOldestActiveTransactionId().into_inner();
        let next = pg_sys::ReadNextFullTransactionId().value;
        next - u64::from((next as u32).wrapping_sub(oldest))
    }
}
