//! The moment at which the placement changes: everybody else is kept away from the tables, on this server and at the source.
//!
//! Nobody reads or writes the shard then, and no transaction that is under way has: so no write is missed, and nobody reads on from
//! what is about to be dropped. A snapshot that is older, of a transaction that comes later, is refused by the target
//! ([`crate::session::age`]).

use super::group::Member;
use super::kind::Kind;
use super::locks::{lock_out, when_nobody_is_in_the_way};
use super::placements::{drop_shards, on_node};
use super::request::Relocation;
use super::rounds::{self, prepare, round};
use super::{capture, create, orphans};
use crate::catalog;
use crate::fault;
use crate::functions::{change_metadata, literal};
use crate::repair::fence;
use crate::session::gate;
use pg::net::wait::clock;
use pg::{PgError, SqlState};
use shardmap::NodeAddress;
use std::time::Duration;

/// How long processes of the source that were given up are waited for, at a time.
const PATIENCE: Duration = Duration::from_millis(250);

pub(super) fn catch_up_and_switch(relocation: &Relocation) -> Result<(), PgError> {
    prepare(relocation)?;
    let round = || {
        let found = round(relocation)?;
        fault::point("relocation_round");
        Ok(found)
    };
    when_nobody_is_in_the_way(&relocation.group.tables(), &round, &|| switch(relocation))
}

fn switch(relocation: &Relocation) -> Result<(), PgError> {
    let since = clock();
    let group = &relocation.group;
    lock_out(group);
    // A statement that failed meanwhile may have marked placements.
    catalog::forget(None);
    group.check_healthy(relocation.kind, [&relocation.source])?;
    let names: Vec<String> = group.members.iter().map(Member::name).collect();
    // Of SERIALIZABLE transactions that have used the nodes none is under way while the place changes.
    relocation.on_source(&[gate::ALONE.to_owned()])?;
    relocation.on_target(&[gate::ALONE.to_owned()])?;
    // A copy leaves the source as it is: what is written there later must be written in both places. Others wait meanwhile.
    let source = &relocation.source;
    fence::end_strays(source, PATIENCE, &|failure| relocation.failed(source, failure))?;
    // What is in doubt at the source is waited for here.
    relocation.on_source(&[format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", names.join(", "))])?;
    fault::point("relocation_locked");
    let round = rounds::round(relocation)?;
    create::keys(relocation)?;
    end(relocation, &names)?;
    change_placements(relocation)?;
    pg::sys::error::log(
        PgError::new(
            SqlState::SUCCESSFUL_COMPLETION,
            format!(
                "{} shard {} from node \"{}\" to node \"{}\"",
                relocation.kind.verb(),
                relocation.shard.0,
                relocation.source,
                relocation.target
            ),
        )
        .detail(format!(
            "{} rows were changed last, and others waited for {} ms.",
            round.rows,
            (clock() - since).as_millis()
        )),
    );
    Ok(())
}

/// What only the relocation has needed goes, and so does the source that has moved.
fn end(relocation: &Relocation, names: &[String]) -> Result<(), PgError> {
    let group = &relocation.group;
    let keys = group
        .members
        .iter()
        .filter(|member| member.has_rows())
        .map(|member| format!("DROP TABLE IF EXISTS {}", member.capture().keys));
    relocation.on_target(&keys.collect::<Vec<_>>())?;
    let mut statements = capture::drop_all(group);
    if relocation.kind == Kind::Move {
        statements.extend(drop_shards(names));
    }
    relocation.on_source(&statements)
}

fn change_placements(relocation: &Relocation) -> Result<(), PgError> {
    let NodeAddress { host, port } = &relocation.target;
    let shards = relocation.group.shards();
    let ids: Vec<String> = shards.iter().map(|shard| shard.0.to_string()).collect();
    let ids = ids.join(", ");
    let host = literal(host);
    let taken_from = match (&relocation.lost, relocation.kind) {
        (Some(lost), _) => Some(lost),
        (None, Kind::Move) => Some(&relocation.source),
        (None, _) => None,
    };
    if let Some(lost) = &relocation.lost {
        orphans::note(&relocation.group.members.iter().collect::<Vec<_>>(), lost)?;
    }
    if let Some(node) = taken_from {
        change_metadata(&format!(
            "UPDATE pgs_distribution_metadata.shard_placement SET node_name = {host}, node_port = {port}, shard_state = 1 \
             WHERE shard_id IN ({ids}) AND {}",
            on_node(node)
        ))?;
    }
    // A shard that is linked with the others may have had no placement there.
    change_metadata(&format!(
        "INSERT INTO pgs_distribution_metadata.shard_placement (shard_id, shard_state, node_name, node_port) \
         SELECT s.id, 1, {host}, {port} FROM pgs_distribution_metadata.shard AS s WHERE s.id IN ({ids}) AND NOT EXISTS \
           (SELECT FROM pgs_distribution_metadata.shard_placement AS p WHERE p.shard_id = s.id AND {})",
        on_node(&relocation.target)
    ))
}
