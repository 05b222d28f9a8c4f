//! A relocation that is under way: what was asked for, and the sessions that it uses.

use super::group::Group;
use super::kind::Kind;
use crate::ddl;
use crate::transaction::NodeFailure;
use pg::{PgError, SqlState};
use shardmap::{NodeAddress, ShardId};

/// A relocation that has been asked for.
pub(super) struct Relocation {
    pub(super) kind: Kind,
    pub(super) shard: ShardId,
    pub(super) source: NodeAddress,
    pub(super) target: NodeAddress,
    /// The node whose placements the new ones replace.
    pub(super) lost: Option<NodeAddress>,
    pub(super) group: Group,
}

impl Relocation {
    /// What a node's failure is to whoever asked for the relocation.
    pub(super) fn failed(&self, node: &NodeAddress, failure: NodeFailure) -> PgError {
        let what = format!("could not {} shard {}", self.kind.verb(), self.shard.0);
        match failure {
            NodeFailure::Unreachable(error) => PgError::new(SqlState::CONNECTION_FAILURE, what)
                .detail(format!("Node \"{node}\" cannot be reached: {}", error.message())),
            NodeFailure::Error(error) => PgError::new(error.sqlstate(), what)
                .detail(format!("Node \"{node}\" said: {}", error.message())),
        }
    }

    /// Runs statements on the target, in the transaction.
    pub(super) fn on_target(&self, statements: &[String]) -> Result<(), PgError> {
        ddl::run_on(&self.target, statements).map_err(|failure| self.failed(&self.target, failure))
    }

    /// Runs statements on the source, in the transaction.
    pub(super) fn on_source(&self, statements: &[String]) -> Result<(), PgError> {
        ddl::run_on(&self.source, statements).map_err(|failure| self.failed(&self.source, failure))
    }
}
