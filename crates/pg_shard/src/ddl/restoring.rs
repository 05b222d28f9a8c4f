//! A dump is being restored: its distributed tables are local ones that wait for shards.
//!
//! What pg_dump writes begins with an empty `search_path`. As long as it is empty, COPY stores rows in a restored table itself,
//! and ALTER TABLE looks at them, for a foreign key. Anything else that would read or write the table is refused as in any session.

use crate::catalog::{self, DistributedTable};
use pg::server::settings::search_path_is_empty;
use pg::server::utility::Outcome;
use pgrx::pg_sys::Oid;
use std::cell::Cell;

thread_local! {
    /// An ALTER TABLE of a dump is running.
    static ALTERS: Cell<bool> = const { Cell::new(false) };
}

/// The table waits for shards, and the session restores a dump.
pub(super) fn is_restored(oid: Oid) -> bool {
    search_path_is_empty() && catalog::find(oid).is_some_and(|table| table.is_detached())
}

/// A statement about tables without shards begins: restored ones, or local ones that may refer to them.
pub(super) fn begin(command: &str) -> Outcome {
    if command != "ALTER TABLE" || !search_path_is_empty() {
        return Outcome::PassOn;
    }
    ALTERS.set(true);
    Outcome::ThenFinish
}

/// It has ended, or the transaction has.
pub(crate) fn end() {
    ALTERS.set(false);
}

/// A query that sees the table is a check of ALTER TABLE.
pub(crate) fn is_local(table: &DistributedTable) -> bool {
    ALTERS.get() && table.is_detached() && search_path_is_empty()
}
