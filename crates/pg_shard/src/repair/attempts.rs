//! What a visitor has tried in vain, and when it tries again.

use crate::settings;
use pg::PgError;
use shardmap::{NodeAddress, ShardId};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// How long a node that has failed is left alone at the most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// After so many cancelled repairs of a placement the next one keeps its locks.
pub(super) const CANCELS: u32 = 3;

/// A node that has failed.
struct Pause {
    until: Instant,
    length: Duration,
}

/// Nodes that are left alone for a while.
#[derive(Default)]
pub(super) struct Pauses(HashMap<NodeAddress, Pause>);

impl Pauses {
    /// The node has done its part.
    pub(super) fn end(&mut self, node: &NodeAddress) {
        self.0.remove(node);
    }

    /// The node has failed, and is left alone now.
    pub(super) fn hold(&self, node: &NodeAddress) -> bool {
        self.0.get(node).is_some_and(|pause| pause.until > Instant::now())
    }

    /// Leaves a node alone for a while, which doubles with each failure.
    pub(super) fn pause(&mut self, node: &NodeAddress) {
        let first = settings::repair_naptime().unwrap_or_default();
        let length = self.0.get(node).map_or(first, |pause| (pause.length * 2).min(LONGEST_PAUSE));
        self.0.insert(node.clone(), Pause { until: Instant::now() + length, length });
    }
}

/// The attempts of one visit.
#[derive(Default)]
pub(super) struct Repairs {
    /// Of nodes that are asked.
    pub(super) pauses: Pauses,
    /// Of attempts to make the placements of a lost node anew.
    pub(super) lost: Pauses,
    cancels: HashMap<(ShardId, NodeAddress), u32>,
    /// What was said about failures.
    said: HashSet<String>,
}

impl Repairs {
    /// How often a placement's repair was cancelled.
    pub(super) fn cancels(&mut self, shard: ShardId, node: &NodeAddress) -> &mut u32 {
        self.cancels.entry((shard, node.clone())).or_default()
    }

    /// Says it in the server's log, once in a visit.
    pub(super) fn say(&mut self, error: &PgError) {
        if self.said.insert(error.message().to_owned()) {
            pg::sys::error::log(error.clone());
        }
    }
}
