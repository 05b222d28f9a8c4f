//! Ids and addresses. A number has a type, so that a shard's id is never taken for a placement's.

use std::fmt;
use std::rc::Rc;

/// A shard's id, `pgs_distribution_metadata.shard.id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub i64);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}", self.0)
    }
}

/// A placement's id, `pgs_distribution_metadata.shard_placement.id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlacementId(pub i64);

impl fmt::Display for PlacementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "placement {}", self.0)
    }
}

/// What `shard_placement.shard_state` says: whether a placement may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacementState {
    /// 1 ("finalized"): has every write, is read.
    Healthy,
    /// Everything else, above all 3 ("inactive"): missed a write, is neither read nor written until repaired.
    Unusable(i32),
}

impl From<i32> for PlacementState {
    fn from(state: i32) -> Self {
        if state == 1 { Self::Healthy } else { Self::Unusable(state) }
    }
}

/// Where a node listens; cheap to clone. Orders as pg_shard 1.2 sorts its worker list: by name bytewise, then by port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeAddress {
    /// Host name, as the metadata spell it.
    pub host: Rc<str>,
    /// TCP port.
    pub port: i32,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
