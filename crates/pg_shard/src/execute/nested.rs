//! Writes by statements that run inside another, in the functions that it calls.
//!
//! The rows that a statement is going to change have been read, and locked, before the changes are sent. A function of the statement
//! may have changed them meanwhile: locks do not keep out their own transaction. PostgreSQL raises 27000 when it comes to such
//! a row, rather than undo what the function has done. Here each such statement watches what is written while it runs, and if that
//! concerns a shard that it writes, asks the shard's leader whether the rows are still where they were.

use crate::catalog::DistributedTable;
use crate::naming::tell_as_table;
use crate::session::pool::{self, Stale};
use crate::session::{Failure, NoSession, Request, Sql};
use crate::transaction;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use protocol::Arguments;
use shardmap::ShardId;
use shardmap::tid::Tid;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::{Rc, Weak};

thread_local! {
    static WATCHES: RefCell<Vec<Weak<Watch>>> = const { RefCell::new(Vec::new()) };
}

/// What others have written since a statement began.
#[derive(Default)]
pub(super) struct Watch {
    written: RefCell<HashSet<ShardId>>,
    /// The statement itself is writing.
    is_own: Cell<bool>,
}

/// Notes that a shard is written.
pub(crate) fn note(shard: ShardId) {
    WATCHES.with_borrow(|watches| {
        for watch in watches.iter().filter_map(Weak::upgrade).filter(|watch| !watch.is_own.get()) {
            watch.written.borrow_mut().insert(shard);
        }
    });
}

impl Watch {
    /// Begins to watch, until it is dropped.
    pub(super) fn begin() -> Rc<Self> {
        let watch = Rc::new(Self::default());
        WATCHES.with_borrow_mut(|watches| {
            watches.retain(|known| known.strong_count() > 0);
            watches.push(Rc::downgrade(&watch));
        });
        watch
    }

    /// Runs what the statement itself writes.
    pub(super) fn own<T>(&self, body: impl FnOnce() -> T) -> T {
        let before = self.is_own.replace(true);
        let value = body();
        self.is_own.set(before);
        value
    }

    /// Somebody else has written the shard.
    pub(super) fn has_seen(&self, shard: ShardId) -> bool {
        self.written.borrow().contains(&shard)
    }
}

/// The rows are still at their places on the shard's leader.
pub(super) fn are_in_place(
    table: &DistributedTable,
    user: Oid,
    index: usize,
    places: &[Tid],
) -> Result<bool, PgError> {
    let Some(leader) = table.healthy(index).next() else { return Ok(true) };
    let list: Vec<String> =
        places.iter().map(|tid| format!("\"({},{})\"", tid.block, tid.offset)).collect();
    let sql = format!(
        "SELECT 1 FROM {} AS t WHERE t.ctid = ANY ('{{{}}}'::pg_catalog.tid[])",
        table.shard_name(index),
        list.join(",")
    );
    let mut arguments = Arguments::start(std::iter::empty());
    arguments.finish(&[]);
    let request = Request::new(Sql::Once(&sql), &[], &arguments);
    let session = pool::acting_as(user, || pool::session(&leader.node, Stale::Matters));
    let session = session.map_err(|error| match error {
        NoSession::Unreachable(error) | NoSession::Refused(error) => error,
    })?;
    let mut found = 0;
    let outcome =
        session.borrow_mut().execute(&request, Some(transaction::level_for_write()), &mut |_| {
            found += 1;
            Ok(())
        });
    match outcome {
        Ok(_) => Ok(found == places.len()),
        Err(Failure::Statement(error)) => {
            Err(tell_as_table(error, &[(table, index)], &leader.node))
        }
        Err(Failure::Lost(error)) => Err(error),
    }
}

/// PostgreSQL's error (`src/backend/executor/nodeModifyTable.c`); `what` was to be done to the row.
pub(super) fn already_modified(what: &str) -> PgError {
    PgError::new(
        SqlState::TRIGGERED_DATA_CHANGE_VIOLATION,
        format!("tuple to be {what} was already modified by an operation triggered by the current command"),
    )
    .hint("Consider using an AFTER trigger instead of a BEFORE trigger to propagate changes to other rows.")
}
