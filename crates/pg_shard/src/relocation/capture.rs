//! Capture: a trigger on each shard at the source notes the keys of the rows that change, in a table beside the shard
//! ([`shardmap::change_capture`]).
//!
//! It is committed by itself before the copying begins: each
//! row that a copy misses is noted. A key is one of columns that are never NULL and unique at once, of PostgreSQL's own types: of a
//! table without one all rows are compared ([`super::rounds`]).

use super::group::{Group, Member};
use super::request::Relocation;
use crate::catalog::quote;
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
    let owner = quote(&table::role_name(table::owner_of(member.table.oid)?));
    let mut statements = vec!["BEGIN".to_owned(), format!("SET LOCAL lock_timeout = '{PATIENCE}'")];
    statements.extend(member.capture().begin(&member.name(), key, &owner));
    statements.push("COMMIT".to_owned());
    Ok(statements)
}

/// The statements that end the capture of all.
pub(super) fn drop_all(group: &Group) -> Vec<String> {
    group
        .members
        .iter()
        .filter(|member| member.has_rows())
        .flat_map(|member| member.capture().end())
        .collect()
}
