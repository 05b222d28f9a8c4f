//! What nodes compute to compare placements: a hash of each row, and a bucket that the row belongs to.
//!
//! The bucket comes from the key, where the table has one, since it is cheap to compute: a second look, at some buckets only, hashes
//! the keys of all rows but only the rows of these buckets. It costs one evaluation of the row's hash, so the planner may use
//! parallel workers. A table without a key takes the bucket from the hash of the whole row.

use crate::catalog::{DistributedTable, quote};
use pg::catalog::table::{column_name, column_type, columns, is_not_null, row_identities};
use shardmap::difference::Levels;

/// Types whose hash tells values apart that look different, by OID: bool, bytea, "char", name, int2, int4, text, oid,
/// date, varchar, uuid.
const EXACT: [u32; 11] = [16, 17, 18, 19, 21, 23, 25, 26, 1082, 1043, 2950];

/// Types whose own hash does not: that of numeric passes over sign and scale, and those of eight bytes fold one half onto the other, so that
/// 1 and 4294967296 are the same. Their bytes are hashed.
fn bytes(type_oid: u32) -> Option<&'static str> {
    Some(match type_oid {
        20 => "int8send",
        1083 => "time_send",
        1114 => "timestamp_send",
        1184 => "timestamptz_send",
        1700 => "numeric_send",
        _ => return None,
    })
}

/// So many columns are hashed by functions of their own: each is nested in the one before.
const NESTED: usize = 32;

/// Collations in which only texts of the same bytes are equal: none, default, C, POSIX.
const EXACT_COLLATIONS: [u32; 4] = [0, 100, 950, 951];

/// The rows of a shard as the nodes hash them.
pub(super) struct Hashing {
    shard: String,
    row: String,
    /// The hash of the key; none without a key of suitable types.
    key: Option<String>,
}

impl Hashing {
    pub(super) fn of(table: &DistributedTable, shard: String) -> Self {
        let key = row_identities(table.oid).iter().find_map(|columns| of_key(table, columns));
        Self { shard, row: of_row(table), key }
    }

    /// How the buckets of so many rows are looked at.
    pub(super) fn levels(&self, rows: u64) -> Levels {
        match self.key {
            Some(_) => Levels::cheap_to_refine(rows),
            None => Levels::single(rows),
        }
    }

    /// Asks for lines of a [`shardmap::difference::Digest`] with so many buckets, of all rows or of those within buckets of a
    /// coarser level.
    pub(super) fn digest(&self, buckets: u64, within: Option<(u64, &[u64])>) -> String {
        let mask = buckets - 1;
        let lines = match &self.key {
            Some(key) => format!(
                "SELECT {key} & {mask} AS bucket, concat_ws(' ', {key} & {mask}, count(*), bit_xor({})) AS line \
                 FROM ONLY {} AS pgs_row {} GROUP BY 1",
                self.row,
                self.shard,
                within.map_or_else(String::new, |(of, list)| format!(
                    "WHERE {}",
                    is_in(key, of, list)
                )),
            ),
            // Sums of integers need no memory beside the group's: a sum of bigint is slower by half. Shifted to the left a half
            // loses what is above it, and shifted back it has its sign.
            None => format!(
                "SELECT h & {mask} AS bucket, concat_ws(' ', h & {mask}, count(*), \
                   sum((h >> 32)::int4)::numeric * 4294967296 + sum(((h << 32) >> 32)::int4)) AS line \
                 FROM ({}) AS r GROUP BY 1",
                self.rows()
            ),
        };
        packed(&lines)
    }

    /// Asks for the hash and the place of each row in these buckets.
    pub(super) fn rows_in(&self, buckets: u64, list: &[u64]) -> String {
        packed(&match &self.key {
            Some(key) => format!(
                "SELECT {key} AS bucket, concat_ws(' ', {}, pgs_row.ctid) AS line FROM ONLY {} AS pgs_row WHERE {}",
                self.row,
                self.shard,
                is_in(key, buckets, list)
            ),
            None => format!(
                "SELECT h AS bucket, concat_ws(' ', h, place) AS line FROM ({}) AS r WHERE {}",
                self.rows(),
                is_in("h", buckets, list)
            ),
        })
    }

    /// Without OFFSET the planner would have the hash computed each time that it is named.
    fn rows(&self) -> String {
        format!(
            "SELECT {} AS h, pgs_row.ctid AS place FROM ONLY {} AS pgs_row OFFSET 0",
            self.row, self.shard
        )
    }
}

fn is_in(hash: &str, buckets: u64, list: &[u64]) -> String {
    let list: Vec<String> = list.iter().map(u64::to_string).collect();
    format!("{hash} & {} = ANY ('{{{}}}'::bigint[])", buckets - 1, list.join(","))
}

/// Many lines travel as one value: each value costs a header.
fn packed(lines: &str) -> String {
    format!("SELECT string_agg(line, E'\\n') FROM ({lines}) AS lines GROUP BY bucket & 63")
}

/// The type's own function, which takes the hash of what comes before as its seed.
fn function(type_oid: u32) -> Option<&'static str> {
    Some(match type_oid {
        19 => "hashnameextended",
        20 => "hashint8extended",
        21 => "hashint2extended",
        23 => "hashint4extended",
        25 | 1043 => "hashtextextended",
        26 => "hashoidextended",
        2950 => "uuid_hash_extended",
        _ => return None,
    })
}

fn is_exact(type_oid: u32, collation: u32) -> bool {
    EXACT.contains(&type_oid) && EXACT_COLLATIONS.contains(&collation)
}

/// The hash of a key, whose columns are never NULL.
fn of_key(table: &DistributedTable, key: &[i16]) -> Option<String> {
    let mut hash = "0".to_owned();
    for column in key {
        let (type_oid, _, collation) = column_type(table.oid, *column);
        let name = format!("pgs_row.{}", quote(&column_name(table.oid, *column)?));
        // Keys that share a hash share a bucket, which does no harm.
        if bytes(type_oid.to_u32()).is_none() && !is_exact(type_oid.to_u32(), collation.to_u32()) {
            return None;
        }
        hash = match function(type_oid.to_u32()) {
            Some(function) => format!("{function}({name}, {hash})"),
            None => format!("hash_record_extended(ROW({name}), {hash})"),
        };
    }
    Some(hash)
}

/// The hash of a row.
///
/// Values are hashed as they are where that is exact, and as text otherwise, which takes twice as long. Columns that are never NULL
/// are hashed by the functions of their types, which spares a record. Should one be NULL nevertheless, because its constraint was
/// never validated, the record has the word.
fn of_row(table: &DistributedTable) -> String {
    let (mut exact, mut others) = (Vec::new(), Vec::new());
    let (mut nested, mut rest) = (Vec::new(), Vec::new());
    for column in columns(table.oid) {
        let (type_oid, _, collation) = column_type(table.oid, column.number);
        let (type_oid, collation) = (type_oid.to_u32(), collation.to_u32());
        let name = format!("pgs_row.{}", quote(&column.name));
        if let Some(bytes) = bytes(type_oid) {
            let bytes = format!("{bytes}({name})");
            exact.push(bytes.clone());
            // The two halves of a bigint need no copy.
            if type_oid == 20 && nested.len() + 1 < NESTED && is_not_null(table.oid, column.number)
            {
                nested.push(("hashint4extended", format!("({name} >> 32)::int4")));
                nested.push(("hashint4extended", format!("(({name} << 32) >> 32)::int4")));
            } else {
                rest.push(bytes);
            }
        } else if is_exact(type_oid, collation) {
            match function(type_oid) {
                Some(function)
                    if nested.len() < NESTED && is_not_null(table.oid, column.number) =>
                {
                    nested.push((function, name.clone()));
                }
                _ => rest.push(name.clone()),
            }
            exact.push(name);
        } else {
            others.push(name);
        }
    }
    let record = |columns: &[String]| {
        let of_others = match others.is_empty() {
            true => "0".to_owned(),
            false => format!("hashtextextended(ROW({})::text, 0)", others.join(", ")),
        };
        match columns.is_empty() {
            true => of_others,
            false => format!("hash_record_extended(ROW({}), {of_others})", columns.join(", ")),
        }
    };
    if nested.is_empty() {
        return record(&exact);
    }
    let quick = nested
        .iter()
        .fold(record(&rest), |seed, (function, name)| format!("{function}({name}, {seed})"));
    format!("coalesce({quick}, {})", record(&exact))
}
