//! Names of nodes: `coordinator`, `worker1`, `worker2` ...

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Which node of a cluster.
///
/// The order is that of the ports: the coordinator first, then the workers by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeName {
    /// The server that clients ask.
    Coordinator,
    /// A server that holds shards. Workers are counted from 1.
    Worker(u16),
}

impl NodeName {
    /// How far the node's port is from the coordinator's.
    pub(crate) fn port_offset(self) -> u16 {
        match self {
            Self::Coordinator => 0,
            Self::Worker(number) => number,
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator => f.pad("coordinator"),
            Self::Worker(number) => f.pad(&format!("worker{number}")),
        }
    }
}

/// A word that is not the name of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not the name of a node; nodes are called coordinator, worker1, worker2 ...")]
pub struct NotANodeName(pub String);

impl FromStr for NodeName {
    type Err = NotANodeName;

    fn from_str(text: &str) -> Result<Self, NotANodeName> {
        if text == "coordinator" {
            return Ok(Self::Coordinator);
        }
        text.strip_prefix("worker")
            .filter(|digits| digits.starts_with(|first: char| ('1'..='9').contains(&first)))
            .and_then(|digits| digits.parse().ok())
            .map(Self::Worker)
            .ok_or_else(|| NotANodeName(text.to_owned()))
    }
}

impl Serialize for NodeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_as_the_node_that_printed_it() {
        for node in [NodeName::Coordinator, NodeName::Worker(1), NodeName::Worker(40)] {
            assert_eq!(node.to_string().parse(), Ok(node));
        }
    }

    #[test]
    fn workers_are_counted_from_one_and_written_one_way() {
        for text in [
            "worker",
            "worker0",
            "worker01",
            "worker+1",
            "worker-1",
            "worker99999",
            "Worker1",
            "master",
            "",
        ] {
            assert_eq!(text.parse::<NodeName>(), Err(NotANodeName(text.to_owned())));
        }
    }
}
