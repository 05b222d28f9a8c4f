//! Errors of workers speak of shards; users know tables.

use crate::catalog::DistributedTable;
use pg::PgError;
use pg::table;
use shardmap::NodeAddress;

/// Rewrites a worker's error: shards, their indexes and constraints get the table's own names, and the node is
/// told in the context.
pub(crate) fn tell_as_table(
    mut error: PgError,
    tables: &[(&DistributedTable, usize)],
    node: &NodeAddress,
) -> PgError {
    for (distributed, index) in tables {
        let suffix = format!("_{}", distributed.shard_id(distributed.beside(*index)).0);
        let mut names = vec![distributed.name.clone()];
        names.extend(table::index_names(distributed.oid).into_iter().map(|(_, name)| name));
        error.rewrite(|text| without_suffix(text, &names, &suffix));
    }
    error.context(format!("while executing on node \"{node}\""))
}

/// Takes `suffix` off where one of `names` with it stands in quotes, is the whole text, or opens a context line.
fn without_suffix(text: &str, names: &[String], suffix: &str) -> String {
    let mut told = text.to_owned();
    for name in names {
        let shard = format!("{name}{suffix}");
        if told == shard {
            return name.clone();
        }
        told = told.replace(&format!("\"{shard}\""), &format!("\"{name}\""));
        told = told.replace(&format!("COPY {shard},"), &format!("COPY {name},"));
    }
    told
}
