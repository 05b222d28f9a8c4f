//! Capture: a trigger of a local table notes the keys of the rows that change, in a table beside it.
//!
//! It is committed by itself before the copying begins, so each row that the copy misses is noted.

use crate::catalog::{self, quote};
use crate::functions::literal;
use pg::catalog::privileged;
use pg::catalog::table;
use pg::net::wait::pause;
use pg::print::template::qualified_name;
use pg::server::attempt::attempt;
use pg::server::lock::{Mode, ShardLock, lock_shard, try_lock_shard, unlock_shard};
use pg::server::resolver;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::ShardId;
use shardmap::change_capture::ChangeCapture;
use std::time::Duration;

/// How long writers queue behind a trigger that is being created.
const PATIENCE: &std::ffi::CStr = c"300ms";

/// How long it is left to them then.
const PAUSE: Duration = Duration::from_millis(500);

/// Before the OID, in what a background worker is told.
const TASK: &str = "capture ";

/// The lock of whoever distributes a local table; no shard has such a number.
pub(super) fn under_way(oid: Oid) -> ShardLock {
    ShardLock::Metadata(ShardId(-i64::from(oid.to_u32())))
}

/// What a background worker is told.
pub(super) fn argument(oid: Oid) -> String {
    format!("{TASK}{}", oid.to_u32())
}

/// What notes the changes of a local table.
fn names(schema: &str, oid: u32) -> ChangeCapture {
    ChangeCapture::named(schema, &format!("of_{oid}"))
}

/// The capture of a table.
pub(super) struct Capture {
    /// The quoted names of the columns by which rows are known.
    pub(super) key: Vec<String>,
    names: ChangeCapture,
}

impl Capture {
    fn of(oid: Oid) -> Option<Self> {
        let relation = table::describe(oid)?;
        let columns = table::row_identities(oid).into_iter().next()?;
        let key: Option<Vec<String>> = columns
            .into_iter()
            .map(|column| Some(quote(&table::column_name(oid, column)?)))
            .collect();
        Some(Self { key: key?, names: names(&relation.schema, oid.to_u32()) })
    }

    /// The table of the keys that are seen to in a round.
    pub(super) fn keys(&self) -> &str {
        &self.names.keys
    }

    /// The capture of a table that is locked; none if it has not begun. What somebody else has put in its place is not it.
    pub(super) fn find(oid: Oid) -> Result<Option<Self>, PgError> {
        let Some(found) = Self::of(oid) else { return Ok(None) };
        // By a snapshot that is later than the worker.
        let is_there = privileged::change_as_caller(&format!(
            "SELECT 1 FROM pg_catalog.pg_trigger AS t \
               JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid \
               JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid AND p.proowner OPERATOR(pg_catalog.=) c.relowner \
               JOIN pg_catalog.pg_class AS n ON n.relname OPERATOR(pg_catalog.=) {}::pg_catalog.name \
                AND n.relnamespace OPERATOR(pg_catalog.=) c.relnamespace AND n.relowner OPERATOR(pg_catalog.=) c.relowner \
              WHERE c.oid OPERATOR(pg_catalog.=) {}::pg_catalog.oid \
                AND t.tgname OPERATOR(pg_catalog.=) 'pgs_capture'::pg_catalog.name \
                AND t.tgenabled OPERATOR(pg_catalog.=) 'A'::pg_catalog.\"char\" \
                AND p.proname OPERATOR(pg_catalog.=) {}::pg_catalog.name AND p.prosecdef",
            literal(&format!("pgs_changes_of_{}", oid.to_u32())),
            oid.to_u32(),
            literal(&format!("pgs_capture_of_{}", oid.to_u32())),
        ))?;
        Ok((is_there == 1).then_some(found))
    }

    /// Takes the keys that were noted since the last time; tells how many.
    pub(super) fn take(&self) -> Result<u64, PgError> {
        let [empty, take] = self.names.take(&self.key);
        privileged::run_as_caller(&empty)?;
        privileged::change_as_caller(&take)
    }

    /// Ends the capture of the table of this name.
    pub(super) fn end(&self, local: &str) -> Result<(), PgError> {
        let end = self.names.end().join("; ");
        privileged::run(&format!("DROP TRIGGER pgs_capture ON {local}; {end}"))
    }

    fn begin(&self, oid: Oid) -> Result<(), PgError> {
        let owner = quote(&table::role_name(table::owner_of(oid)?));
        privileged::run(&self.names.begin(&qualified_name(oid), &self.key, &owner).join("; "))
    }
}

/// The background worker's part: begins to note what changes, as soon as no writer is in the way, and as long as somebody wants it.
/// False if the worker was told something else.
pub(crate) fn capture(task: &str) -> bool {
    let Some(oid) = captured(task) else { return false };
    let begin = || {
        privileged::set_for_transaction(c"lock_timeout", PATIENCE);
        table::lock_relation(oid, table::RelationLock::ShareRowExclusive);
        let is_local = table::describe(oid).is_some_and(|relation| relation.kind == b'r')
            && catalog::find(oid).is_none();
        match Capture::of(oid).filter(|_| is_local) {
            // What an earlier one has left is locked together with the table, which whoever waits for us may have locked too.
            Some(capture) => {
                attempt(&[SqlState::LOCK_NOT_AVAILABLE], || capture.begin(oid)).map(drop)
            }
            None => Ok(()),
        }
    };
    loop {
        if try_lock_shard(under_way(oid), Mode::Exclusive) {
            unlock_shard(under_way(oid), Mode::Exclusive);
            return true;
        }
        match attempt(&[SqlState::LOCK_NOT_AVAILABLE], begin) {
            Ok(Err(_)) => pause(PAUSE),
            Ok(Ok(())) => return true,
            Err(error) => {
                pg::sys::error::log(error);
                return true;
            }
        }
    }
}

/// The rest of the background worker's part: if whoever wanted the capture has gone meanwhile, a visitor ends it.
pub(crate) fn after_capture(task: &str) {
    let is_unwanted = |oid| try_lock_shard(under_way(oid), Mode::Exclusive);
    if captured(task).is_some_and(is_unwanted) {
        resolver::wake();
    }
}

/// The table that a background worker is to capture.
fn captured(task: &str) -> Option<Oid> {
    task.strip_prefix(TASK)?.parse::<u32>().ok().map(Oid::from)
}

/// A visitor's part: ends captures of local tables that nobody needs any more.
pub(crate) fn undo() -> Result<(), PgError> {
    let found = privileged::read_as_superuser(|client| {
        let sql = "SELECT n.nspname::text, substr(c.relname::text, 16)::bigint, c.relowner FROM pg_class AS c \
                     JOIN pg_namespace AS n ON n.oid = c.relnamespace \
                    WHERE c.relname ~ '^pgs_changes_of_[0-9]{1,10}$' AND c.relkind = 'r'";
        let mut found: Vec<(String, (u32, Oid))> = Vec::new();
        for row in client.select(sql, None, &[])? {
            let oid = row.get::<i64>(2)?.and_then(|oid| u32::try_from(oid).ok());
            found.extend(row.get::<String>(1)?.zip(oid.zip(row.get::<Oid>(3)?)));
        }
        Ok::<_, pgrx::spi::Error>(found)
    });
    for (schema, (oid, owner)) in found.map_err(|error| PgError::internal(error.to_string()))? {
        let drop = || {
            // Whoever has called us may still be about to end its transaction.
            privileged::set_for_transaction(c"lock_timeout", c"2s");
            lock_shard(under_way(Oid::from(oid)), Mode::Exclusive);
            privileged::set_for_transaction(c"lock_timeout", PATIENCE);
            // Whoever has only given a table such a name loses nothing that is another's.
            let statement = names(&schema, oid).end().join("; ");
            privileged::as_restricted(owner, || privileged::run_as_caller(&statement))
        };
        // Somebody wants it, or uses the table: the next visit tries again.
        if let Err(error) = attempt(&[SqlState::LOCK_NOT_AVAILABLE], drop) {
            pg::sys::error::log(error);
        }
    }
    Ok(())
}
