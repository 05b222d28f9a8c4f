//! Capture: a trigger on each shard at the source notes the keys of the rows that change, in a table beside the shard.
//!
//! It is plain SQL, so the source needs no library, and no `wal_level`. It is committed by itself before the copying begins: each
//! row that a copy misses is noted. A key is one of columns that are never NULL and unique at once, of PostgreSQL's own types: of a
//! table without one all rows are compared ([`super::rounds`]).

use super::group::{Group, Member};
use super::request::Relocation;
use crate::catalog::quote;
use crate::functions::literal;
use crate::session::{Failure, NoSession, Session};
use crate::transaction::NodeFailure;
use pg::catalog::table;
use pg::net::wait::pause;
use pg::{PgError, SqlState};
use std::time::Duration;

/// How long writers queue behind a trigger that is being created.
const PATIENCE: &str = "300ms";

/// How long it is left to them then.
const PAUSE: Duration = Duration::from_millis(500);

/// The quoted names of the columns by which rows are known; none if there is no such key.
pub(super) fn key(member: &Member) -> Option<Vec<String>> {
    let oid = member.table.oid;
    let columns = table::row_identities(oid).into_iter().next()?;
    columns.into_iter().map(|column| Some(quote(&table::column_name(oid, column)?))).collect()
}

/// Begins to note what changes at the source.
pub(super) fn begin(relocation: &Relocation) -> Result<(), PgError> {
    let noting: Vec<(&Member, Vec<String>)> = relocation
        .group
        .members
        .iter()
        .filter(|member| member.has_rows())
        .filter_map(|member| Some((member, key(member)?)))
        .collect();
    if noting.is_empty() {
        return Ok(());
    }
    let mut session = Session::open(&relocation.source).map_err(|reason| {
        let (NoSession::Unreachable(error) | NoSession::Refused(error)) = reason;
        relocation.failed(&relocation.source, NodeFailure::Error(error))
    })?;
    for (member, key) in noting {
        let statements = statements(member, &key)?;
        loop {
            match session.execute_all(&statements, None) {
                Ok(()) => break,
                Err(Failure::Statement(error))
                    if error.sqlstate() == SqlState::LOCK_NOT_AVAILABLE =>
                {
                    session
                        .execute_all(&["ROLLBACK".to_owned()], None)
                        .map_err(crate::transaction::fail)?;
                    pause(PAUSE);
                }
                Err(Failure::Lost(error) | Failure::Statement(error)) => {
                    let failure = NodeFailure::Error(error);
                    return Err(relocation.failed(&relocation.source, failure));
                }
            }
        }
    }
    Ok(())
}

fn statements(member: &Member, key: &[String]) -> Result<Vec<String>, PgError> {
    let (shard, columns) = (member.name(), key.join(", "));
    let (changes, keys) = (member.companion("changes"), member.companion("keys"));
    let capture = member.companion("capture");
    let owner = quote(&table::role_name(table::owner_of(member.table.oid)?));
    let of = |row: &str| {
        let values: Vec<String> = key.iter().map(|column| format!("{row}.{column}")).collect();
        values.join(", ")
    };
    let body = format!(
        "BEGIN IF TG_OP <> 'INSERT' THEN INSERT INTO {changes} VALUES ({}); END IF; \
         IF TG_OP <> 'DELETE' THEN INSERT INTO {changes} VALUES ({}); END IF; RETURN NULL; END",
        of("OLD"),
        of("NEW")
    );
    let mut statements = vec!["BEGIN".to_owned(), format!("SET LOCAL lock_timeout = '{PATIENCE}'")];
    statements.extend(drop(member));
    statements.extend([
        format!(
            "CREATE UNLOGGED TABLE {changes} AS SELECT {columns} FROM ONLY {shard} WITH NO DATA"
        ),
        format!("ALTER TABLE {changes} OWNER TO {owner}"),
        format!("CREATE UNLOGGED TABLE {keys} AS SELECT {columns} FROM ONLY {shard} WITH NO DATA"),
        format!("ALTER TABLE {keys} OWNER TO {owner}"),
        format!(
            "CREATE FUNCTION {capture}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
             SET search_path = pg_catalog, pg_temp AS {}",
            literal(&body)
        ),
        format!("REVOKE ALL ON FUNCTION {capture}() FROM PUBLIC"),
        format!("ALTER FUNCTION {capture}() OWNER TO {owner}"),
        format!(
            "CREATE TRIGGER pgs_capture AFTER INSERT OR UPDATE OR DELETE ON {shard} \
             FOR EACH ROW EXECUTE FUNCTION {capture}()"
        ),
        // Also for writes that do as replication does.
        format!("ALTER TABLE {shard} ENABLE ALWAYS TRIGGER pgs_capture"),
        "COMMIT".to_owned(),
    ]);
    Ok(statements)
}

/// The statements that end the capture of a shard.
pub(super) fn drop(member: &Member) -> Vec<String> {
    drop_named(
        &member.companion("capture"),
        &member.companion("changes"),
        &member.companion("keys"),
    )
}

/// The trigger goes with its function.
pub(super) fn drop_named(capture: &str, changes: &str, keys: &str) -> Vec<String> {
    vec![
        format!("DROP FUNCTION IF EXISTS {capture}() CASCADE"),
        format!("DROP TABLE IF EXISTS {changes}, {keys}"),
    ]
}

/// The statements that end the capture of all.
pub(super) fn drop_all(group: &Group) -> Vec<String> {
    group.members.iter().filter(|member| member.has_rows()).flat_map(drop).collect()
}
