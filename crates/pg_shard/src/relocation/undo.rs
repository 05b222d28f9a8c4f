//! Removing what a relocation has left at its source when it failed: its transaction is undone by itself, but capture was committed
//! before. A visitor finds it by its name on the node; there is nothing else to remember.

use crate::session::{Failure, Session};
use pg::server::lock::{Mode, ShardLock, try_lock_shard};
use shardmap::ShardId;
use shardmap::change_capture::ChangeCapture;

/// The schemas and shards of captures on a node.
const LEFT: &str = "SELECT pg_catalog.concat_ws(' ', pg_catalog.substr(c.relname::text, 13), n.nspname) \
      FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
     WHERE c.relname ~ '^pgs_changes_[0-9]{1,18}$' AND c.relkind = 'r'";

/// Ends captures on a node that no relocation needs; in a transaction of a visitor.
///
/// A relocation holds the lock on the metadata of its shards to its end.
pub(crate) fn undo(session: &mut Session) -> Result<(), Failure> {
    let mut found: Vec<(ShardId, String)> = Vec::new();
    session.run(LEFT, None, &mut |row| {
        let text = row.first_text().unwrap_or_default();
        found.extend(
            text.split_once(' ').and_then(|(shard, schema)| {
                Some((ShardId(shard.parse().ok()?), schema.to_owned()))
            }),
        );
        Ok(())
    })?;
    for (shard, schema) in found {
        if !try_lock_shard(ShardLock::Metadata(shard), Mode::Exclusive) {
            continue;
        }
        let mut statements =
            vec!["BEGIN".to_owned(), "SET LOCAL lock_timeout = '300ms'".to_owned()];
        statements.extend(ChangeCapture::named(&schema, &shard.0.to_string()).end());
        statements.push("COMMIT".to_owned());
        match session.execute_all(&statements, None) {
            Ok(()) => {}
            // The next visit tries again.
            Err(Failure::Statement(_)) => session.execute_all(&["ROLLBACK".to_owned()], None)?,
            Err(lost) => return Err(lost),
        }
    }
    Ok(())
}
