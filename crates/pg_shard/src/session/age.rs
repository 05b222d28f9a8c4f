//! Snapshots that are older than a placement.
//!
//! A node looks tables up in its catalogs as they are now, and reads their rows by the transaction's snapshot. A placement that was
//! repaired, or created, after the snapshot was taken is there and looks empty, so that a read would miss rows, and a write
//! would find none and pass for a difference between placements. PostgreSQL knows this danger of TRUNCATE and of
//! ALTER TABLE; but a repair changes nothing that the client can see.
//!
//! Only where the metadata have changed since the remote transaction began can that be: then the node is asked whether the snapshot
//! shows the shard's own row in `pg_class`, once for each shard. A repair that has sent only rows leaves that row as it was: there it
//! is the metadata, read by the coordinator's own snapshot, that say whether the placement was healthy then. If one of them
//! says no, the statement fails with 40001.

use super::chosen_time;
use super::pool::SessionRef;
use super::{Failure, Session};
use crate::catalog::{self, DistributedTable, METADATA_SCHEMA};
use crate::functions::literal;
use pg::catalog::privileged;
use pg::catalog::table;
use pg::server::transaction::{self, Isolation};
use pg::{PgError, SqlState};
use shardmap::{NodeAddress, ShardId};
use std::collections::HashSet;
use std::rc::Rc;

/// What is known of a remote transaction's snapshot.
#[derive(Debug, Default)]
pub(super) struct Age {
    /// The metadata when it was taken, or a little before.
    pub(super) begun: u64,
    /// The metadata by which `shown` holds.
    checked: u64,
    /// Shards that the snapshot shows.
    shown: HashSet<ShardId>,
}

impl Age {
    /// A snapshot that is about to be taken.
    pub(super) fn now() -> Self {
        Self::of(catalog::moment())
    }

    /// One that was taken when the metadata were those.
    pub(super) fn of(begun: u64) -> Self {
        Self { begun, checked: begun, shown: HashSet::new() }
    }
}

impl Session {
    /// What it reads next is read by a snapshot that was taken when the metadata were others.
    fn is_aged(&self) -> bool {
        let has_one_snapshot =
            self.snapshot.is_some() || transaction::isolation_level() != Isolation::ReadCommitted;
        self.depth > 0 && self.age.begun != catalog::moment() && has_one_snapshot
    }
}

/// Fails if the session's snapshot does not show the shards of the tables as they are now.
pub(crate) fn must_show(
    session: &SessionRef,
    tables: &[Rc<DistributedTable>],
    shards: &[usize],
) -> Result<(), Failure> {
    if !session.borrow().is_aged() {
        return must_have_shown(session, tables, shards);
    }
    let asked: Vec<(&DistributedTable, usize)> = {
        let age = &mut session.borrow_mut().age;
        if age.checked != catalog::moment() {
            age.checked = catalog::moment();
            age.shown.clear();
        }
        let all = tables
            .iter()
            .flat_map(|table| shards.iter().map(|shard| (&**table, table.beside(*shard))));
        all.filter(|(table, index)| !age.shown.contains(&table.shard_id(*index))).collect()
    };
    if asked.is_empty() {
        return Ok(());
    }
    let node = session.borrow().node.clone();
    if let Some((table, index)) = repaired_since(&node, &asked)? {
        return Err(too_old(table, index, &node));
    }
    let names: Vec<String> = asked
        .iter()
        .map(|(table, index)| format!("{}::regclass", literal(&table.shard_name(*index))))
        .collect();
    let names = format!("unnest(ARRAY[{}]::oid[])", names.join(", "));
    // The names may still be known to the node as those of tables that were dropped meanwhile. It hears of that when it locks one of
    // them, which this does without any right on them.
    let lock = format!("SELECT count(pg_relation_size(o.oid)) FROM {names} AS o (oid)");
    let sql = format!(
        "SELECT o.n - 1 FROM {names} WITH ORDINALITY AS o (oid, n) \
         WHERE NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = o.oid) LIMIT 1"
    );
    session.borrow_mut().execute_all(&[lock], None)?;
    let mut hidden = None;
    session.borrow_mut().run(&sql, None, &mut |row| {
        hidden = row.first_text().and_then(|text| text.parse::<usize>().ok());
        Ok(())
    })?;
    if let Some((table, index)) = hidden.and_then(|at| asked.get(at)) {
        return Err(too_old(table, *index, &node));
    }
    let age = &mut session.borrow_mut().age;
    age.shown.extend(asked.iter().map(|(table, index)| table.shard_id(*index)));
    Ok(())
}

/// The same where the remote transaction is about to begin, at a time that was chosen before: on a node that had nothing to be read
/// then, say.
fn must_have_shown(
    session: &SessionRef,
    tables: &[Rc<DistributedTable>],
    shards: &[usize],
) -> Result<(), Failure> {
    if session.borrow().depth > 0 || !chosen_time::is_older_than_metadata() {
        return Ok(());
    }
    let all =
        tables.iter().flat_map(|table| shards.iter().map(|shard| (&**table, table.beside(*shard))));
    let node = session.borrow().node.clone();
    match repaired_since(&node, &all.collect::<Vec<_>>())? {
        Some((table, index)) => Err(too_old(table, index, &node)),
        None => Ok(()),
    }
}

/// The first of these shards whose placement on the node is healthy now and was not when this server's own snapshot was taken.
fn repaired_since<'a>(
    node: &NodeAddress,
    asked: &[(&'a DistributedTable, usize)],
) -> Result<Option<(&'a DistributedTable, usize)>, Failure> {
    let ids: Vec<String> =
        asked.iter().map(|(table, index)| table.shard_id(*index).0.to_string()).collect();
    let sql = format!(
        "SELECT shard_id FROM pgs_distribution_metadata.shard_placement \
          WHERE shard_id OPERATOR(pg_catalog.=) ANY ('{{{}}}'::pg_catalog.int8[]) AND shard_state OPERATOR(pg_catalog.=) 1 \
            AND node_name OPERATOR(pg_catalog.=) {} AND node_port OPERATOR(pg_catalog.=) {}",
        ids.join(","),
        literal(&node.host),
        node.port
    );
    let mut healthy = HashSet::new();
    let read = || {
        privileged::read_catalogs(|client| {
            for row in client.select(&*sql, None, &[])? {
                healthy.extend(row.get::<i64>(1)?.map(ShardId));
            }
            Ok::<(), pgrx::spi::Error>(())
        })
    };
    // Whoever reads the table needs no right to read the metadata.
    let owner = table::relation_oid(METADATA_SCHEMA, "shard_placement").and_then(table::owner);
    owner
        .map_or(Ok(()), |owner| privileged::as_restricted(owner, read))
        .map_err(|error| Failure::Statement(PgError::internal(error.to_string())))?;
    Ok(asked.iter().find(|(table, index)| !healthy.contains(&table.shard_id(*index))).copied())
}

fn too_old(table: &DistributedTable, index: usize, node: &NodeAddress) -> Failure {
    Failure::Statement(
        PgError::new(
            SqlState::SERIALIZATION_FAILURE,
            format!(
                "could not serialize access to table \"{}\" due to repair or move of a shard",
                table.name
            ),
        )
        .detail(format!(
            "The placement of shard {} on node \"{node}\" is newer than the snapshot by which it is to be read.",
            table.shard_id(index).0
        ))
        .hint("Run the transaction again."),
    )
}
