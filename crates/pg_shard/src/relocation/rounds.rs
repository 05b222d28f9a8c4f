//! Catching up: rows that have changed at the source since they were copied are replaced at the target.
//!
//! A round takes the keys that were noted, and then replaces the rows of these keys by those that the source has now. What changes in
//! between is noted once more, and seen to in the next round. Of a table without a key all rows are compared by their hashes,
//! as a repair does.

use super::capture;
use super::group::Member;
use super::request::Relocation;
use crate::catalog::quote;
use crate::owner;
use crate::repair::{self, Pair};
use crate::transaction::{self, NodeFailure};
use pg::PgError;
use pg::server::utility::copied_columns;
use shardmap::change_capture::has_key;

/// What a round has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// How many keys or rows have differed.
    pub(crate) rows: u64,
}

impl Relocation {
    /// Has the nodes plan to look each key up.
    pub(super) fn look_keys_up(&self) -> Result<(), PgError> {
        let settings = ["SET LOCAL enable_hashjoin = off", "SET LOCAL enable_mergejoin = off"]
            .map(str::to_owned);
        self.on_source(&settings)?;
        self.on_target(&settings)
    }
}

/// Makes ready for rounds.
pub(super) fn prepare(relocation: &Relocation) -> Result<(), PgError> {
    relocation.look_keys_up()?;
    for member in relocation.group.members.iter().filter(|member| member.has_rows()) {
        let Some(key) = capture::key(member) else { continue };
        let keys = member.capture().keys;
        let owner =
            quote(&pg::catalog::table::role_name(pg::catalog::table::owner_of(member.table.oid)?));
        relocation.on_target(&[
            format!("DROP TABLE IF EXISTS {keys}"),
            format!(
                "CREATE TABLE {keys} AS SELECT {} FROM ONLY {} WITH NO DATA",
                key.join(", "),
                member.name()
            ),
            format!("ALTER TABLE {keys} OWNER TO {owner}"),
        ])?;
    }
    Ok(())
}

/// One round over all shards of the group.
pub(super) fn round(relocation: &Relocation) -> Result<Round, PgError> {
    let mut round = Round::default();
    for member in relocation.group.members.iter().filter(|member| member.has_rows()) {
        let nodes = [&relocation.source, &relocation.target];
        let rows =
            owner::acting_on(&member.table, member.index, &nodes, || match capture::key(member) {
                Some(key) => by_keys(relocation, member, &key),
                None => by_difference(relocation, member),
            })?;
        round.rows += rows.ok_or_else(|| {
            relocation.failed(
                &relocation.target,
                NodeFailure::Error(PgError::internal("the extension pg_shard is not there")),
            )
        })?;
    }
    Ok(round)
}

/// Takes the keys that were noted at the source since the last time; tells how many.
pub(super) fn take_keys(
    relocation: &Relocation,
    member: &Member,
    key: &[String],
) -> Result<u64, PgError> {
    let [empty, take] = member.capture().take(key);
    relocation.on_source(&[empty])?;
    let count = transaction::with_session(&relocation.source, &mut |session| {
        session.borrow_mut().run(&take, Some(transaction::level_for_write()), &mut |_| Ok(()))
    });
    count.map(|(_, count)| count).map_err(|failure| relocation.failed(&relocation.source, failure))
}

fn by_keys(relocation: &Relocation, member: &Member, key: &[String]) -> Result<u64, PgError> {
    let (shard, keys) = (member.name(), member.capture().keys);
    let count = take_keys(relocation, member, key)?;
    if count == 0 {
        return Ok(0);
    }
    let pair = pair(relocation, member);
    let of_source = |failure| relocation.failed(&relocation.source, failure);
    let of_target = |failure| relocation.failed(&relocation.target, failure);
    let matches = has_key(key, "pgs_row");
    let copied: Vec<String> =
        copied_columns(member.table.oid).iter().map(|(_, name)| quote(name)).collect();
    let qualified: Vec<String> = copied.iter().map(|name| format!("pgs_row.{name}")).collect();
    let noted = pair.copy_out(&format!("COPY {keys} TO STDOUT")).map_err(of_source)?;
    let rows = pair
        .copy_out(&format!(
            "COPY (SELECT {} FROM {keys} AS pgs_key JOIN ONLY {shard} AS pgs_row ON {matches}) TO STDOUT",
            qualified.join(", ")
        ))
        .map_err(of_source)?;
    relocation.on_target(&[format!("DELETE FROM {keys}")])?;
    repair::copy_in(&relocation.target, &format!("COPY {keys} FROM STDIN"), &noted)
        .map_err(of_target)?;
    relocation.on_target(&[format!(
        "DELETE FROM ONLY {shard} AS pgs_row USING {keys} AS pgs_key WHERE {matches}"
    )])?;
    let store = format!("COPY {shard} ({}) FROM STDIN", copied.join(", "));
    repair::copy_in(&relocation.target, &store, &rows).map_err(of_target)?;
    Ok(count)
}

fn pair<'a>(relocation: &'a Relocation, member: &'a Member) -> Pair<'a> {
    Pair {
        table: &member.table,
        index: member.index,
        source: &relocation.source,
        target: &relocation.target,
        problem: "could not copy shard data",
        isolation: None,
    }
}

fn by_difference(relocation: &Relocation, member: &Member) -> Result<u64, PgError> {
    let pair = pair(relocation, member);
    let rows = pair.source_rows()?;
    match pair.difference(rows)? {
        Some(difference) => {
            repair::apply(&pair, &difference)?;
            Ok((difference.missing.len() + difference.surplus.len()) as u64)
        }
        None => {
            let shard = member.name();
            relocation.on_target(&[format!("TRUNCATE ONLY {shard}")])?;
            repair::fill(member.table.oid, member.shard(), &relocation.source, &relocation.target)?;
            Ok(rows)
        }
    }
}
