//! Capture: a trigger of a local table notes the keys of the rows that change, in a table beside it.
//!
//! It is committed by itself before the copying begins, so each row that the copy misses is noted.

use crate::catalog::{self, quote};
use crate::functions::literal;
use pg::catalog::privileged;
use pg::catalog::table;
use pg::net::wait::pause;
use pg::server::attempt::attempt;
use pg::server::lock::{Mode, ShardLock, lock_shard, try_lock_shard, unlock_shard};
use pg::server::resolver;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::ShardId;
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

/// The names of what captures a table, and its key.
pub(super) struct Capture {
    /// The quoted names of the columns by which rows are known.
    pub(super) key: Vec<String>,
    /// The table of the keys that are seen to in a round.
    pub(super) keys: String,
    changes: String,
    function: String,
}

impl Capture {
    fn of(oid: Oid) -> Option<Self> {
        let relation = table::describe(oid)?;
        let columns = table::row_identities(oid).into_iter().next()?;
        let key: Option<Vec<String>> = columns
            .into_iter()
            .map(|column| Some(quote(&table::column_name(oid, column)?)))
            .collect();
        Some(Self::named(&relation.schema, oid.to_u32(), key?))
    }

    fn named(schema: &str, oid: u32, key: Vec<String>) -> Self {
        let name =
            |what: &str| format!("{}.{}", quote(schema), quote(&format!("pgs_{what}_of_{oid}")));
        Self { key, keys: name("keys"), changes: name("changes"), function: name("capture") }
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
        let columns = self.key.join(", ");
        privileged::run_as_caller(&format!("DELETE FROM {}", self.keys))?;
        privileged::change_as_caller(&format!(
            "WITH taken AS (DELETE FROM {} RETURNING {columns}) INSERT INTO {} SELECT DISTINCT {columns} FROM taken",
            self.changes, self.keys
        ))
    }

    /// Ends the capture of the table of this name.
    pub(super) fn end(&self, local: &str) -> Result<(), PgError> {
        privileged::run(&format!("DROP TRIGGER pgs_capture ON {local}; {}", self.drop()))
    }

    /// The trigger goes with its function.
    fn drop(&self) -> String {
        format!(
            "DROP FUNCTION IF EXISTS {}() CASCADE; DROP TABLE IF EXISTS {}, {}",
            self.function, self.changes, self.keys
        )
    }

    /// By a superuser: nothing here may plan a query of the table, which evaluates expressions of its owner.
    fn begin(&self, oid: Oid) -> Result<(), PgError> {
        let relation = pg::print::template::qualified_name(oid);
        let columns = self.key.join(", ");
        let owner = quote(&table::role_name(table::owner_of(oid)?));
        let of = |row: &str| {
            let values: Vec<String> = self.key.iter().map(|it| format!("{row}.{it}")).collect();
            values.join(", ")
        };
        let Self { keys, changes, function, .. } = self;
        let body = format!(
            "BEGIN IF TG_OP <> 'INSERT' THEN INSERT INTO {changes} VALUES ({}); END IF; \
             IF TG_OP <> 'DELETE' THEN INSERT INTO {changes} VALUES ({}); END IF; RETURN NULL; END",
            of("OLD"),
            of("NEW")
        );
        privileged::run(&format!(
            "{}; \
             CREATE UNLOGGED TABLE {changes} AS SELECT {columns} FROM ONLY {relation} WITH NO DATA; \
             ALTER TABLE {changes} OWNER TO {owner}; \
             CREATE UNLOGGED TABLE {keys} AS SELECT {columns} FROM ONLY {relation} WITH NO DATA; \
             ALTER TABLE {keys} OWNER TO {owner}; \
             CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
               SET search_path = pg_catalog, pg_temp AS {}; \
             REVOKE ALL ON FUNCTION {function}() FROM PUBLIC; \
             ALTER FUNCTION {function}() OWNER TO {owner}; \
             CREATE TRIGGER pgs_capture AFTER INSERT OR UPDATE OR DELETE ON {relation} \
               FOR EACH ROW EXECUTE FUNCTION {function}(); \
             ALTER TABLE {relation} ENABLE ALWAYS TRIGGER pgs_capture",
            self.drop(),
            literal(&body)
        ))
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
            let statement = Capture::named(&schema, oid, Vec::new()).drop();
            privileged::as_restricted(owner, || privileged::run_as_caller(&statement))
        };
        // Somebody wants it, or uses the table: the next visit tries again.
        if let Err(error) = attempt(&[SqlState::LOCK_NOT_AVAILABLE], drop) {
            pg::sys::error::log(error);
        }
    }
    Ok(())
}
