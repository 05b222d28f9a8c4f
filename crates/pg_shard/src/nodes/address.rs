//! Where a node is reached: under its name, unless the table `pgs_catalog.node` says otherwise.
//!
//! The table is read once in a backend and again whenever the metadata have changed. A connection may have to be opened where nothing can
//! be read, at the end of a transaction: what was known last holds then.

use super::rows;
use crate::catalog;
use pg::server::transaction;
use shardmap::NodeAddress;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A node's name, and where it is reached.
type Known = (NodeAddress, Reach);

thread_local! {
    static KNOWN: RefCell<Rc<[Known]>> = RefCell::new(Rc::from([]));
    /// By which metadata that holds.
    static MOMENT: Cell<Option<u64>> = const { Cell::new(None) };
    static VERSION: Cell<u64> = const { Cell::new(0) };
}

/// Host and port of a server. Several hosts, separated by commas, are servers of which one takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) host: String,
    pub(crate) port: i32,
}

/// Where a node is reached.
pub(crate) fn reach(node: &NodeAddress) -> Reach {
    refresh();
    KNOWN.with_borrow(|known| {
        known
            .iter()
            .find(|(name, _)| name == node)
            .map_or_else(|| own(node), |(_, reach)| reach.clone())
    })
}

/// A number that grows when some node is reached elsewhere than before: sessions that are older lead to where it was.
pub(crate) fn version() -> u64 {
    refresh();
    VERSION.get()
}

fn own(node: &NodeAddress) -> Reach {
    Reach { host: node.host.to_string(), port: node.port }
}

fn refresh() {
    let moment = catalog::moment();
    if MOMENT.get() == Some(moment) || !transaction::can_read() {
        return;
    }
    let known: Vec<Known> = rows()
        .into_iter()
        .filter(|row| row.host.is_some() || row.host_port.is_some())
        .map(|row| {
            let named = own(&row.address);
            let host = row.host.unwrap_or(named.host);
            let port = row.host_port.unwrap_or(named.port);
            (row.address, Reach { host, port })
        })
        .collect();
    // Whoever hears of changes while it reads makes the next call read again.
    MOMENT.set(Some(moment));
    if KNOWN.with_borrow(|before| **before != *known) {
        KNOWN.set(known.into());
        VERSION.set(VERSION.get() + 1);
    }
}
