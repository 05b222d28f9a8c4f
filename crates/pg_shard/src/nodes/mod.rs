//! The nodes of this coordinator: those of `pg_worker_list.conf`, those that hold placements, and those that `add_node` has added.
//!
//! The metadata name a node by name and port, as in pg_shard 1.2; this name never changes. Where a node is reached may be another
//! address, which the table `pgs_catalog.node` holds beside its rack and its state. A node without a row there is up, and is
//! reached under its name.

/// Where a node is reached.
mod address;

/// What nodes hold, and what should move.
pub(crate) mod shares;

/// Whether nodes answer.
mod watch;

pub(crate) use address::{reach, version};
pub(crate) use watch::visit;

use crate::catalog;
use crate::functions;
use pg::catalog::table::{self, Search};
use pg::server::{down, transaction};
use pg::{PgError, SqlState};
use shardmap::NodeAddress;

/// A row of `pgs_catalog.node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its number.
    pub(crate) id: i32,
    /// Under which name the metadata know it.
    pub(crate) address: NodeAddress,
    /// Another address under which it is reached; several hosts are separated by commas.
    pub(crate) host: Option<String>,
    /// The port there.
    pub(crate) host_port: Option<i32>,
    /// It was added by name, and need not stand in the worker list.
    pub(crate) is_added: bool,
    /// It gives its placements away.
    pub(crate) is_draining: bool,
    /// In which rack it stands.
    pub(crate) rack: Option<String>,
    /// What the watcher thinks of it.
    pub(crate) health: String,
}

/// The rows of `pgs_catalog.node`; none in a database without the extension.
pub(crate) fn rows() -> Vec<Node> {
    let mut found = Vec::new();
    let Some(oid) = table::relation_oid("pgs_catalog", "node") else { return found };
    table::scan(oid, None, 1, Search::All, &mut |row| {
        let given = |text: String| (!text.is_empty()).then_some(text);
        found.push(Node {
            id: row.int4(1),
            address: NodeAddress { host: row.text(2).into(), port: row.int4(3) },
            host: given(row.text(4)),
            host_port: Some(row.int4(5)).filter(|port| *port > 0),
            is_added: row.bool(7),
            is_draining: row.bool(8),
            rack: given(row.text(6)),
            health: row.text(9),
        });
    });
    found.sort_by(|one, other| one.address.cmp(&other.address));
    found
}

/// The nodes that get the placements of new shards, as pg_shard 1.2 sorts them: those of the worker list, and those that were added;
/// no node that gives its placements away.
///
/// # Errors
///
/// If the worker list cannot be read; it need not be there where nodes were added.
pub(crate) fn for_new_shards() -> Result<Vec<NodeAddress>, PgError> {
    let rows = rows();
    let is_missing = |error: &PgError| error.sqlstate() == SqlState::UNDEFINED_FILE;
    let mut found = match functions::listed_nodes() {
        Err(error) if is_missing(&error) && rows.iter().any(|row| row.is_added) => Vec::new(),
        listed => listed?,
    };
    found.extend(rows.iter().filter(|row| row.is_added).map(|row| row.address.clone()));
    found.retain(|node| !rows.iter().any(|row| row.is_draining && row.address == *node));
    found.sort();
    found.dedup();
    Ok(found)
}

/// All nodes that are known: of the worker list, of the placements, and of the table.
pub(crate) fn all() -> Vec<NodeAddress> {
    let mut found = functions::listed_nodes().unwrap_or_default();
    found.extend(catalog::nodes_of_placements());
    found.extend(rows().into_iter().map(|row| row.address));
    found.sort();
    found.dedup();
    found
}

/// What stands for a node in shared memory: FNV-1a of its name and port.
pub(crate) fn number(node: &NodeAddress) -> u64 {
    let bytes = node.host.bytes().chain(node.port.to_be_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The nodes of which the watcher says that they are down.
pub(crate) fn down() -> Vec<NodeAddress> {
    if !down::is_any() || !transaction::can_read() {
        return Vec::new();
    }
    catalog::nodes().iter().filter(|node| down::is(number(node))).cloned().collect()
}
