//! Errors of workers speak of shards; users know tables.

use crate::catalog::{self, DistributedTable};
use crate::ddl::partition_tree::tree;
use crate::links;
use pg::catalog::table;
use pg::{PgError, SqlState};
use shardmap::naming::{shards_in_quotes, with_name, without_suffix};
use shardmap::{NodeAddress, ShardId};
use std::cell::Cell;
use std::rc::Rc;

/// Says what to do where a node lacks a type, function, schema or the like that a statement of ours names.
///
/// The coordinator has found all of them when it analysed the statement. An error that was raised inside a function has
/// its own reasons, and keeps its hint.
pub(crate) fn explain_missing_object(error: PgError, node: &NodeAddress) -> PgError {
    let is_missing = matches!(&error.sqlstate().0, b"42704" | b"42883" | b"3F000");
    if !is_missing || error.has_context() {
        return error;
    }
    error.hint(format!(
        "Types, functions, schemas, roles and extensions that a distributed table or a statement on it needs must \
         exist on every node. Create it on node \"{node}\" too."
    ))
}

/// Rewrites a worker's error: shards, their indexes and constraints get the table's own names, and the node is
/// told in the context.
pub(crate) fn tell_as_table(
    mut error: PgError,
    tables: &[(&DistributedTable, usize)],
    node: &NodeAddress,
) -> PgError {
    let mut lacks_shard = false;
    let partitions = partitions_of(tables);
    let partitions = partitions.iter().map(|(table, index)| (&**table, *index));
    for (distributed, index) in tables.iter().copied().chain(partitions) {
        let suffix = format!("_{}", distributed.shard_id(distributed.beside(index)).0);
        let mut names = vec![distributed.name.clone()];
        names.extend(table::index_names(distributed.oid).into_iter().map(|(_, name)| name));
        // PostgreSQL tells a relation that it does not find as it was named.
        names.push(format!("{}.{}", distributed.schema, distributed.name));
        lacks_shard |= error.sqlstate() == SqlState::UNDEFINED_TABLE
            && error.message().contains(&format!("{}{suffix}\"", distributed.name));
        error.rewrite(|text| without_suffix(text, &names, &suffix));
    }
    for (distributed, index) in tables.iter().filter(|(distributed, _)| distributed.is_linked) {
        tell_linked(&mut error, distributed, *index);
    }
    tell_others(&mut error);
    if lacks_shard {
        error = error.hint(format!(
            "Node \"{node}\" lacks a shard of the table. Mark its placement there with shard_state 3 and repair it, \
             or correct pgs_distribution_metadata.shard_placement."
        ));
    }
    let types = renamed_types(&error, tables);
    error.rewrite_message(|text| {
        types.iter().fold(text.to_owned(), |text, (told, shown)| with_name(&text, told, shown))
    });
    explain_missing_object(error, node).context(format!("while executing on node \"{node}\""))
}

/// The same for tables that foreign keys link with one of these: the error may be about rows of theirs.
fn tell_linked(error: &mut PgError, table: &DistributedTable, index: usize) {
    for (other, shards) in links::names_beside(table, index) {
        let mut names = vec![other.name.clone()];
        names.extend(table::index_names(other.oid).into_iter().map(|(_, name)| name));
        names.push(format!("{}.{}", other.schema, other.name));
        error.rewrite(|text| {
            shards.iter().fold(text.to_owned(), |text, shard| {
                let suffix = format!("_{}", shard.0);
                if text.contains(&suffix) { without_suffix(&text, &names, &suffix) } else { text }
            })
        });
    }
}

/// The same for whatever other shards the message names: a DROP says which tables are in the way, for instance.
fn tell_others(error: &mut PgError) {
    for id in shards_in_quotes(error.message()) {
        let other = catalog::table_of_shard(ShardId(id)).and_then(catalog::find);
        let Some(other) = other else { continue };
        let mut names = vec![other.name.clone()];
        names.extend(table::index_names(other.oid).into_iter().map(|(_, name)| name));
        error.rewrite_message(|text| without_suffix(text, &names, &format!("_{id}")));
    }
}

/// The partitions that may have raised an error of a partitioned table.
fn partitions_of(tables: &[(&DistributedTable, usize)]) -> Vec<(Rc<DistributedTable>, usize)> {
    let mut partitions = Vec::new();
    for (table, index) in tables.iter().filter(|(table, _)| table.is_partitioned) {
        let members = tree(table.oid).unwrap_or_default();
        let members = members.into_iter().skip(1).filter_map(catalog::find);
        partitions
            .extend(members.filter(|member| *index < member.map.len()).map(|it| (it, *index)));
    }
    partitions
}

/// Makes of a line's number in `COPY table, line 7` that in the client's data. If the worker names no line, or one that no
/// row of the client's has become (it stores rows later than it reads them), the client's lines are told among which
/// the row is: the first and the last of `all`.
pub(crate) fn tell_client_line(
    error: PgError,
    table: &str,
    of_client: impl Fn(u64) -> Option<u64>,
    all: Option<(u64, u64)>,
) -> PgError {
    let start = format!("COPY {table}, ");
    let told = Cell::new(false);
    let mut error = error.rewrite_context(|line| {
        let Some(rest) = line.strip_prefix(&start) else { return Some(line.to_owned()) };
        // The word before the number depends on the worker's language.
        let first = rest.find(|letter: char| letter.is_ascii_digit())?;
        let length = rest[first..].find(|letter: char| !letter.is_ascii_digit());
        let behind = length.map_or(rest.len(), |length| first + length);
        let number = of_client(rest[first..behind].parse().ok()?)?;
        told.set(true);
        Some(format!("{start}{}{number}{}", &rest[..first], &rest[behind..]))
    });
    match all {
        Some((first, last)) if !told.get() => {
            error = error.context_before(format!("{start}lines {first} to {last}"));
        }
        // Rows of an INSERT. What they violate names the table; a resource that is used up does not.
        None if error.sqlstate().class() == *b"53" => {
            error = error.context_before(format!("while storing rows of table \"{table}\""));
        }
        _ => {}
    }
    error
}

/// The types that a node's message may name with their schemas where this server's would leave them out: the one that
/// the error is about, and those of the tables' columns. With each name the one that this server has for it.
fn renamed_types(error: &PgError, tables: &[(&DistributedTable, usize)]) -> Vec<(String, String)> {
    let meant = error.data_type().and_then(|(schema, name)| table::type_oid(schema, name));
    let of_columns =
        tables.iter().flat_map(|(distributed, _)| table::column_types(distributed.oid));
    let mut names: Vec<(String, String)> = meant
        .into_iter()
        .chain(of_columns)
        .map(|oid| (table::qualified_type_name(oid), table::type_name(oid)))
        .filter(|(told, shown)| told != shown)
        .collect();
    names.sort();
    names.dedup();
    names
}
