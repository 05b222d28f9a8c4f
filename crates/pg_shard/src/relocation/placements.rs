//! SQL about placements: their rows in the metadata, and their tables on the nodes.

use crate::ddl::foreign_keys;
use crate::functions::literal;
use shardmap::NodeAddress;

/// The statements that drop shards of a group, whichever of them refer to each other.
pub(super) fn drop_shards(names: &[String]) -> [String; 2] {
    [foreign_keys::drop_referring(names), format!("DROP TABLE IF EXISTS {}", names.join(", "))]
}

/// Selects the placements of a node.
pub(super) fn on_node(node: &NodeAddress) -> String {
    format!("node_name = {} AND node_port = {}", literal(&node.host), node.port)
}
