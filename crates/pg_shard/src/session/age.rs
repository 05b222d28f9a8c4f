//! Snapshots that are older than a placement.
//!
//! A node looks tables up in its catalogs as they are now, and reads their rows by the transaction's snapshot. A placement that was
//! repaired, or created, after the snapshot was taken is there and looks empty, so that a read would miss rows, and a write
//! would find none and pass for a difference between placements. PostgreSQL knows this danger of TRUNCATE and of
//! ALTER TABLE; but a repair changes nothing that the client can see.
//!
//! Only where the metadata have changed since the remote transaction began can that be: then the node is asked whether the snapshot
//! shows the shard's own row in `pg_class`, once for each shard. If it does not, the statement fails with 40001.

use super::pool::SessionRef;
use super::{Failure, Session};
use crate::catalog::{self, DistributedTable};
use crate::functions::literal;
use pg::server::transaction::{self, Isolation};
use pg::{PgError, SqlState};
use shardmap::ShardId;
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
        return Ok(());
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
        let node = session.borrow().node.clone();
        return Err(Failure::Statement(
            PgError::new(
                SqlState(*b"40001"),
                format!("could not serialize access to table \"{}\" due to repair of a shard", table.name),
            )
            .detail(format!(
                "The placement of shard {} on node \"{node}\" is newer than the snapshot by which it is to be read.",
                table.shard_id(*index).0
            ))
            .hint("Run the transaction again."),
        ));
    }
    let age = &mut session.borrow_mut().age;
    age.shown.extend(asked.iter().map(|(table, index)| table.shard_id(*index)));
    Ok(())
}
