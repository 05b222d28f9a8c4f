//! SET CONSTRAINTS of the client's transaction: what each node is told when its remote transaction begins.

use shardmap::NodeAddress;
use std::cell::RefCell;
use std::collections::HashMap;

/// The commands of one SET CONSTRAINTS.
#[derive(Clone, Debug)]
pub(crate) enum Commands {
    /// The same for every node.
    All(String),
    /// Names of shards' constraints differ.
    Named(HashMap<NodeAddress, String>),
}

impl Commands {
    /// The node's.
    pub(crate) fn of(&self, node: &NodeAddress) -> Option<&String> {
        match self {
            Self::All(sql) => Some(sql),
            Self::Named(commands) => commands.get(node),
        }
    }
}

thread_local! {
    /// With the level of the (sub)transaction in which it was said.
    static SAID: RefCell<Vec<(u32, Commands)>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what was said.
pub(crate) fn note(level: u32, commands: Commands) {
    SAID.with_borrow_mut(|said| said.push((level, commands)));
}

/// What a node is to be told, in order.
pub(super) fn for_node(node: &NodeAddress) -> Vec<String> {
    SAID.with_borrow(|said| {
        said.iter().filter_map(|(_, commands)| commands.of(node).cloned()).collect()
    })
}

/// A savepoint was released: what was said in it is the outer one's.
pub(crate) fn keep_of(level: u32) {
    SAID.with_borrow_mut(|said| said.iter_mut().for_each(|(of, _)| *of = (*of).min(level - 1)));
}

/// What was said in (sub)transactions of this level, and below, has never been.
pub(crate) fn forget_of(level: u32) {
    SAID.with_borrow_mut(|said| said.retain(|(of, _)| *of < level));
}
