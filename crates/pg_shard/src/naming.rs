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

/// Makes of a line's number in `COPY table, line 7` that in the client's data; without one the line of the context goes.
pub(crate) fn tell_client_line(
    error: PgError,
    table: &str,
    of_client: impl Fn(u64) -> Option<u64>,
) -> PgError {
    let start = format!("COPY {table}, ");
    error.rewrite_context(|line| {
        let Some(rest) = line.strip_prefix(&start) else { return Some(line.to_owned()) };
        // The word before the number depends on the worker's language.
        let first = rest.find(|letter: char| letter.is_ascii_digit())?;
        let length = rest[first..].find(|letter: char| !letter.is_ascii_digit());
        let behind = length.map_or(rest.len(), |length| first + length);
        let number = of_client(rest[first..behind].parse().ok()?)?;
        Some(format!("{start}{}{number}{}", &rest[..first], &rest[behind..]))
    })
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
