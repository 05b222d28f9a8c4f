//! What the rest of this crate asks the extension: which tables are distributed, what their nodes can do, what is to happen at
//! the ends of transactions. What it makes of a statement is asked by the hooks alone (`hooks.rs`).

use crate::read::query::DistributionKey;
use crate::sys::error::PgError;
use pgrx::pg_sys::Oid;
use shardmap::instruction::Purpose;
use shardmap::repartition::RepartitionedRows;
use std::sync::OnceLock;
use std::time::Duration;

/// The extension, as this crate sees it.
pub trait Extension: Sync {
    /// How a table is distributed, if it is and has shards.
    fn distribution(&self, table: Oid) -> Option<DistributionKey>;
    /// A guess at the number of rows of a distributed table.
    fn estimated_rows(&self, table: Oid) -> Option<f64>;
    /// How many pages a distributed table's shards have; none if it is not distributed.
    fn estimated_pages(&self, table: Oid) -> Option<f64>;
    /// How many shards a distributed table has.
    fn shard_count(&self, table: Oid) -> usize;
    /// Rows of a distributed table are not known by their places.
    fn hides_places(&self, table: Oid) -> bool;
    /// How many nodes hold placements of a distributed table.
    fn node_count(&self, table: Oid) -> usize;
    /// The tables can be joined shard by shard: those with several shards are cut alike, and for each shard there
    /// is a node with healthy placements of all tables.
    fn lie_together(&self, tables: &[Oid]) -> bool;
    /// What the nodes of the tables' placements answer to a question in SQL about themselves; none if one of them cannot
    /// be asked. Answers may be out of date.
    fn ask_nodes(&self, tables: &[Oid], question: &str) -> Option<Vec<String>>;
    /// Workers may do more than scan.
    fn pushes_down(&self) -> bool;
    /// What is printed for the workers is compared with what was meant.
    fn verifies_sql(&self) -> bool;
    /// Rows can move between all nodes that hold shards of the tables.
    fn can_repartition(&self, tables: &[Oid]) -> bool;
    /// On a worker: what a text says that a coordinator has given the current role for that purpose; an error if none has.
    fn open_instruction<'a>(&self, purpose: Purpose, sealed: &'a str) -> Result<&'a str, PgError>;
    /// On a worker: hands over all pieces of a part of rows that other nodes, or this one, have split; with each the number of
    /// its source.
    fn fetch_part(
        &self,
        moved: &RepartitionedRows,
        part: usize,
        each: &mut dyn FnMut(usize, Vec<u8>) -> Result<(), PgError>,
    ) -> Result<(), PgError>;
    /// A relation is being dropped.
    fn on_drop(&self, table: Oid) -> Result<(), PgError>;
    /// A column is being dropped, by ALTER TABLE or with what it depends on.
    fn on_drop_column(&self, table: Oid) -> Result<(), PgError>;
    /// A type, function, collation or schema is being dropped: the catalog's OID, and its own.
    fn on_drop_object(&self, class: Oid, object: Oid) -> Result<(), PgError>;
    /// After how long a wait for nodes is looked into; none for never.
    fn lock_patience(&self) -> Option<Duration>;
    /// This backend has waited for nodes for that long: an error if it would wait for ever, true if it waits for a lock. `goes_on`
    /// tells whether it still waits.
    fn has_waited_long(&self, goes_on: &dyn Fn() -> bool) -> Result<bool, PgError>;
    /// The transaction is about to commit.
    fn before_commit(&self) -> Result<(), PgError>;
    /// The transaction is about to be prepared.
    fn before_prepare(&self) -> Result<(), PgError>;
    /// The transaction has ended.
    fn after_transaction(&self, committed: bool);
    /// A subtransaction has been rolled back to the level above `level`.
    fn after_subtransaction_abort(&self, level: u32);
    /// A subtransaction has been released into the level above `level`.
    fn before_subtransaction_commit(&self, level: u32) -> Result<(), PgError>;
    /// A relation's definition changed, or (none) any may have.
    fn forget(&self, table: Option<Oid>);
    /// A function's definition changed: its name, say, or its volatility.
    fn forget_plans(&self);
}

static EXTENSION: OnceLock<&'static dyn Extension> = OnceLock::new();

/// Sets it; false if it is set already.
pub(crate) fn set(extension: &'static dyn Extension) -> bool {
    EXTENSION.set(extension).is_ok()
}

/// The extension.
pub(crate) fn extension() -> &'static dyn Extension {
    *EXTENSION
        .get()
        .unwrap_or_else(|| unreachable!("hooks are installed after the extension is set"))
}
