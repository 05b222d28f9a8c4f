//! The private part of our plans: what a scan needs to know at execution, as a flat list.

use pg::exec::rows::{Source, StateKind};
use pg::path::base::{ShardScan, SortKey, Split};
use pg::path::claim::{Claim, FirstFree};
use pg::path::lookup_join::{Kind, Matched};
use pg::path::plan::{PlanReader, PlanWriter};
use pg::path::spread::Spread;
use pg::print::template::Piece;
use pg::read::query::{Command, Key};
use pgrx::pg_sys::Oid;
use shardmap::Prune;
use shardmap::tid::TidLayout;

/// A plan of ours.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// A whole statement for one shard group.
    Routed(Routed),
    /// A scan over shards, below a plan of PostgreSQL's.
    ShardScan(Box<ShardScan>),
    /// Rows computed here for the shards of one table.
    InsertedRows(InsertedRows),
    /// A write whose rows are computed by the plan below it.
    ComputedModify(ComputedModify),
}

impl Plan {
    /// Its distributed tables; of a write that is computed here the written one.
    pub(crate) fn tables(&self) -> &[Oid] {
        match self {
            Self::Routed(plan) => &plan.tables,
            Self::ShardScan(plan) => &plan.tables,
            Self::InsertedRows(plan) => std::slice::from_ref(&plan.table),
            Self::ComputedModify(plan) => std::slice::from_ref(&plan.table),
        }
    }
}

impl Plan {
    /// What it sends runs nothing that users have made: of functions only those of the server go into a scan.
    pub(crate) fn is_plain(&self) -> bool {
        match self {
            Self::Routed(plan) => plan.is_plain,
            Self::ShardScan(plan) => plan.split.is_none() && plan.moves == 0,
            Self::InsertedRows(_) | Self::ComputedModify(_) => false,
        }
    }
}

/// A whole statement for one shard group.
#[derive(Clone, Debug)]
pub(crate) struct Routed {
    /// Its kind.
    pub(crate) command: Command,
    /// Its distributed tables, the written ones first.
    pub(crate) tables: Vec<Oid>,
    /// The role whose rights on them count: a view's owner, or (zero) the current user.
    pub(crate) user: Oid,
    /// How the first of them are written; those after them are only read.
    pub(crate) writes: Vec<Command>,
    /// It brings a row, for which there must be a shard.
    pub(crate) brings_row: bool,
    /// It may run once for each of several shards.
    pub(crate) spreads: bool,
    /// It is about one row, which must still be what it was.
    pub(crate) must_find: bool,
    /// It runs nothing that users have made.
    pub(crate) is_plain: bool,
    /// What decides the shard.
    pub(crate) prune: Prune<Key>,
    /// The SQL.
    pub(crate) template: Vec<Piece>,
    /// How many of the expressions are parameters.
    pub(crate) sent: usize,
    /// It returns rows although it writes.
    pub(crate) returning: bool,
    /// Which of their columns are `ctid`s.
    pub(crate) returned_tids: Vec<usize>,
    /// How these are made.
    pub(crate) layout: TidLayout,
}

impl Routed {
    /// It changes rows, at the top or in a WITH clause.
    pub(crate) fn is_write(&self) -> bool {
        !self.writes.is_empty()
    }
}

/// Rows computed here for the shards of one table.
#[derive(Clone, Debug)]
pub(crate) struct InsertedRows {
    /// INSERT or upsert.
    pub(crate) command: Command,
    /// The table.
    pub(crate) table: Oid,
    /// The role whose rights on it count: a view's owner, or (zero) the current user.
    pub(crate) user: Oid,
    /// The columns of a row.
    pub(crate) columns: Vec<String>,
    /// Which of them is the distribution column; none if it is not among them, so that it is NULL.
    pub(crate) key_position: Option<usize>,
    /// The SQL of one row, its columns first among the parameters.
    pub(crate) template: Vec<Piece>,
    /// How many expressions follow as parameters.
    pub(crate) sent: usize,
    /// As statements of many rows, because of ON CONFLICT or RETURNING; otherwise as COPY data.
    pub(crate) by_statement: bool,
    /// It returns rows.
    pub(crate) returning: bool,
    /// It has ON CONFLICT.
    pub(crate) on_conflict: bool,
    /// The rows are computed from distributed tables: all of them before the first is stored.
    pub(crate) buffered: bool,
}

/// A write whose rows are computed by the plan below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ComputedModify {
    /// The table.
    pub(crate) table: Oid,
    /// The role whose rights on it count: a view's owner, or (zero) the current user.
    pub(crate) user: Oid,
    /// How it is written.
    pub(crate) command: Command,
    /// No other part of the statement writes.
    pub(crate) is_alone: bool,
    /// Sub-queries are evaluated while rows are taken, which must not see what the statement changes.
    pub(crate) has_subqueries: bool,
    /// It is about one row, which must still be what it was.
    pub(crate) must_find: bool,
}

/// A plan's serial number, which stands first.
pub(super) fn read_serial(reader: &mut PlanReader) -> u64 {
    let mut half = || u64::from(reader.int().cast_unsigned());
    half() << 32 | half()
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn read_count(reader: &mut PlanReader) -> usize {
    usize::try_from(reader.int()).unwrap_or(0)
}

impl Plan {
    /// As a list, with a serial number of its own.
    pub(crate) fn write(&self) -> PlanWriter {
        let mut w = PlanWriter::new();
        let serial = super::compiled::next_serial();
        w.int((serial >> 32) as i32).int(serial as i32);
        match self {
            Self::Routed(plan) => {
                w.int(0)
                    .int(plan.command.code())
                    .int(i32::from(plan.returning))
                    .int(count(plan.sent));
                w.int(count(plan.tables.len()));
                for table in &plan.tables {
                    w.oid(*table);
                }
                w.oid(plan.user).int(count(plan.writes.len()));
                for command in &plan.writes {
                    w.int(command.code());
                }
                w.int(i32::from(plan.brings_row))
                    .int(i32::from(plan.spreads))
                    .int(i32::from(plan.must_find) | i32::from(plan.is_plain) << 1);
                w.int(count(plan.returned_tids.len()));
                for column in &plan.returned_tids {
                    w.int(count(*column));
                }
                w.int(plan.layout.code() as i32);
                write_prune(&mut w, &plan.prune);
                write_template(&mut w, &plan.template);
            }
            Self::ShardScan(plan) => {
                w.int(1).int(count(plan.tables.len()));
                for table in &plan.tables {
                    w.oid(*table);
                }
                w.oid(plan.user).text(&plan.around.0).text(&plan.around.1);
                w.int(count(plan.sent))
                    .int(i32::from(plan.locks))
                    .int(i32::from(plan.is_target))
                    .int(i32::from(plan.by_ctid))
                    .int(i32::from(plan.is_claimed))
                    .int(i32::from(plan.is_candidates))
                    .int(count(plan.broadcasts.len()));
                for (spread, needed) in plan.broadcasts.iter().zip(&plan.needed) {
                    w.int(i32::from(*needed)).int(i32::from(spread.is_some()));
                    if let Some(by) = spread {
                        write_spread(&mut w, by);
                    }
                }
                w.int(count(plan.moves)).int(i32::from(plan.split.is_some()));
                if let Some(split) = &plan.split {
                    write_spread(&mut w, &split.by);
                    w.int(i32::from(split.keeps_nulls)).text(&split.text);
                }
                w.int(count(plan.merge.len())).text(&plan.merge_text);
                for key in &plan.merge {
                    write_sort_key(&mut w, key);
                }
                write_prune(&mut w, &plan.prune);
                write_template(&mut w, &plan.template);
                w.int(count(plan.remote.len()));
                for (type_oid, typmod) in &plan.remote {
                    w.oid(*type_oid).int(*typmod);
                }
                w.int(count(plan.sources.len()));
                for source in &plan.sources {
                    write_source(&mut w, source);
                }
                write_lookup_join(&mut w, plan.matched.as_ref());
                w.int(i32::from(plan.claim.is_some()));
                if let Some(claim) = &plan.claim {
                    w.int(claim.limit.map_or(-1, count)).int(claim.offset.map_or(-1, count));
                    w.text(&claim.candidates.to_string());
                    w.int(i32::from(claim.by_place)).int(i32::from(claim.first_free.is_some()));
                    if let Some(first_free) = &claim.first_free {
                        write_first_free(&mut w, first_free);
                    }
                    w.int(count(claim.version.0)).int(count(claim.version.1));
                }
            }
            Self::InsertedRows(plan) => {
                w.int(2).int(plan.command.code()).oid(plan.table).oid(plan.user);
                w.int(plan.key_position.map_or(-1, count));
                w.int(count(plan.sent))
                    .int(i32::from(plan.by_statement))
                    .int(i32::from(plan.returning))
                    .int(i32::from(plan.on_conflict));
                w.int(i32::from(plan.buffered)).int(count(plan.columns.len()));
                for column in &plan.columns {
                    w.text(column);
                }
                write_template(&mut w, &plan.template);
            }
            Self::ComputedModify(plan) => {
                w.int(3).int(plan.command.code()).oid(plan.table).oid(plan.user);
                w.int(i32::from(plan.is_alone))
                    .int(i32::from(plan.has_subqueries))
                    .int(i32::from(plan.must_find));
            }
        }
        w
    }

    /// From a list, behind its serial number.
    pub(crate) fn read(reader: &mut PlanReader) -> Self {
        match reader.int() {
            0 => {
                let command = Command::from_code(reader.int());
                let returning = reader.int() != 0;
                let sent = read_count(reader);
                let tables = (0..read_count(reader)).map(|_| reader.oid()).collect();
                let user = reader.oid();
                let writes =
                    (0..read_count(reader)).map(|_| Command::from_code(reader.int())).collect();
                let (brings_row, spreads) = (reader.int() != 0, reader.int() != 0);
                let flags = reader.int();
                let returned_tids = (0..read_count(reader)).map(|_| read_count(reader)).collect();
                let layout = TidLayout::from_code(reader.int().unsigned_abs());
                let prune = read_prune(reader);
                let template = read_template(reader);
                Self::Routed(Routed {
                    command,
                    tables,
                    user,
                    writes,
                    brings_row,
                    spreads,
                    must_find: flags & 1 != 0,
                    is_plain: flags & 2 != 0,
                    prune,
                    template,
                    sent,
                    returning,
                    returned_tids,
                    layout,
                })
            }
            1 => {
                let tables = (0..read_count(reader)).map(|_| reader.oid()).collect();
                let user = reader.oid();
                let around = (reader.text(), reader.text());
                let sent = read_count(reader);
                let locks = reader.int() != 0;
                let is_target = reader.int() != 0;
                let by_ctid = reader.int() != 0;
                let is_claimed = reader.int() != 0;
                let is_candidates = reader.int() != 0;
                let (needed, broadcasts) = (0..read_count(reader))
                    .map(|_| (reader.int() != 0, read_spread(reader)))
                    .unzip();
                let moves = read_count(reader);
                let split = (reader.int() != 0).then(|| Split {
                    by: read_columns_hash(reader),
                    keeps_nulls: reader.int() != 0,
                    text: reader.text(),
                });
                let merged_by = read_count(reader);
                let merge_text = reader.text();
                let merge = (0..merged_by).map(|_| read_sort_key(reader)).collect();
                let prune = read_prune(reader);
                let template = read_template(reader);
                let remote =
                    (0..read_count(reader)).map(|_| (reader.oid(), reader.int())).collect();
                let sources = (0..read_count(reader)).map(|_| read_source(reader)).collect();
                let matched = read_lookup_join(reader);
                let claim = (reader.int() != 0).then(|| Claim {
                    limit: usize::try_from(reader.int()).ok(),
                    offset: usize::try_from(reader.int()).ok(),
                    candidates: reader.text().parse().unwrap_or(i64::MAX),
                    by_place: reader.int() != 0,
                    first_free: (reader.int() != 0).then(|| read_first_free(reader)),
                    version: (read_count(reader), read_count(reader)),
                });
                Self::ShardScan(Box::new(ShardScan {
                    tables,
                    user,
                    template,
                    around,
                    remote,
                    sources,
                    prune,
                    broadcasts,
                    needed,
                    moves,
                    split,
                    sent,
                    merge,
                    merge_text,
                    locks,
                    is_target,
                    is_claimed,
                    by_ctid,
                    is_candidates,
                    claim,
                    matched,
                }))
            }
            2 => {
                let command = Command::from_code(reader.int());
                let (table, user) = (reader.oid(), reader.oid());
                let key_position = usize::try_from(reader.int()).ok();
                let sent = read_count(reader);
                let by_statement = reader.int() != 0;
                let returning = reader.int() != 0;
                let on_conflict = reader.int() != 0;
                let buffered = reader.int() != 0;
                let columns = (0..read_count(reader)).map(|_| reader.text()).collect();
                let template = read_template(reader);
                Self::InsertedRows(InsertedRows {
                    command,
                    table,
                    user,
                    columns,
                    key_position,
                    template,
                    sent,
                    by_statement,
                    returning,
                    on_conflict,
                    buffered,
                })
            }
            _ => Self::ComputedModify(ComputedModify {
                command: Command::from_code(reader.int()),
                table: reader.oid(),
                user: reader.oid(),
                is_alone: reader.int() != 0,
                has_subqueries: reader.int() != 0,
                must_find: reader.int() != 0,
            }),
        }
    }
}

fn write_first_free(w: &mut PlanWriter, it: &FirstFree) {
    for (candidates, between) in &it.candidates {
        write_template(w, candidates);
        w.text(between);
    }
    write_template(w, &it.locking);
    w.text(&it.around.0).text(&it.around.1);
    w.int(count(it.merge.len()));
    for key in &it.merge {
        write_sort_key(w, key);
    }
}

fn read_first_free(reader: &mut PlanReader) -> FirstFree {
    FirstFree {
        candidates: std::array::from_fn(|_| (read_template(reader), reader.text())),
        locking: read_template(reader),
        around: (reader.text(), reader.text()),
        merge: (0..read_count(reader)).map(|_| read_sort_key(reader)).collect(),
    }
}

fn write_sort_key(w: &mut PlanWriter, key: &SortKey) {
    w.int(count(key.column)).oid(key.operator).oid(key.collation);
    w.int(i32::from(key.nulls_first));
}

fn read_sort_key(reader: &mut PlanReader) -> SortKey {
    SortKey {
        column: read_count(reader),
        operator: reader.oid(),
        collation: reader.oid(),
        nulls_first: reader.int() != 0,
    }
}

fn write_lookup_join(w: &mut PlanWriter, matched: Option<&Matched>) {
    w.int(matched.map_or(-1, |it| it.kind.code()));
    let Some(matched) = matched else { return };
    w.int(count(matched.first));
    for columns in [&matched.keys, &matched.columns] {
        w.int(count(columns.len()));
        for column in columns {
            w.int(count(*column));
        }
    }
}

fn read_lookup_join(reader: &mut PlanReader) -> Option<Matched> {
    let kind = Kind::from_code(reader.int())?;
    let first = read_count(reader);
    let mut columns = || (0..read_count(reader)).map(|_| read_count(reader)).collect();
    Some(Matched { kind, first, keys: columns(), columns: columns() })
}

fn read_spread(reader: &mut PlanReader) -> Option<Spread> {
    (reader.int() != 0).then(|| read_columns_hash(reader))
}

fn write_spread(w: &mut PlanWriter, by: &Spread) {
    w.int(count(by.column)).oid(by.family).oid(by.type_oid).oid(by.collation);
}

fn read_columns_hash(reader: &mut PlanReader) -> Spread {
    Spread {
        column: read_count(reader),
        family: reader.oid(),
        type_oid: reader.oid(),
        collation: reader.oid(),
    }
}

fn write_template(w: &mut PlanWriter, template: &[Piece]) {
    w.int(count(template.len()));
    for piece in template {
        match piece {
            Piece::Text(text) => w.int(0).text(text),
            Piece::Table(table) => w.int(1).oid(*table),
            Piece::Index => w.int(2),
            Piece::Object(table, name) => w.int(3).oid(*table).text(name),
        };
    }
}

fn read_template(reader: &mut PlanReader) -> Vec<Piece> {
    (0..read_count(reader))
        .map(|_| match reader.int() {
            0 => Piece::Text(reader.text()),
            1 => Piece::Table(reader.oid()),
            3 => Piece::Object(reader.oid(), reader.text()),
            _ => Piece::Index,
        })
        .collect()
}

fn write_source(w: &mut PlanWriter, source: &Source) {
    match source {
        Source::Remote(column) => {
            w.int(0).int(count(*column));
        }
        Source::TableOid(table) => {
            w.int(1).oid(*table);
        }
        Source::State(kind, first) => {
            w.int(3).int(kind.code()).int(count(*first));
        }
        Source::Input(type_oid, column) => {
            w.int(4).oid(*type_oid).int(count(*column));
        }
        Source::Here => {
            w.int(5);
        }
        Source::Tid(first, layout) => {
            w.int(6).int(count(*first)).int(layout.code() as i32);
        }
        Source::ShardTid(column, layout) => {
            w.int(7).int(count(*column)).int(layout.code() as i32);
        }
        Source::Row(table, columns) => {
            w.int(2).oid(*table).int(count(columns.len()));
            for column in columns {
                w.int(count(*column));
            }
        }
    }
}

fn read_source(reader: &mut PlanReader) -> Source {
    match reader.int() {
        0 => Source::Remote(read_count(reader)),
        1 => Source::TableOid(reader.oid()),
        3 => Source::State(StateKind::from_code(reader.int()), read_count(reader)),
        4 => Source::Input(reader.oid(), read_count(reader)),
        5 => Source::Here,
        6 => Source::Tid(read_count(reader), TidLayout::from_code(reader.int().unsigned_abs())),
        7 => {
            Source::ShardTid(read_count(reader), TidLayout::from_code(reader.int().unsigned_abs()))
        }
        _ => {
            let table = reader.oid();
            Source::Row(table, (0..read_count(reader)).map(|_| read_count(reader)).collect())
        }
    }
}

fn write_prune(w: &mut PlanWriter, prune: &Prune<Key>) {
    let list = |w: &mut PlanWriter, code, parts: &[Prune<Key>]| {
        w.int(code).int(count(parts.len()));
        for part in parts {
            write_prune(w, part);
        }
    };
    match prune {
        Prune::All => {
            w.int(0);
        }
        Prune::Key(key) => {
            w.int(1)
                .int(count(key.expression))
                .oid(key.hash_type)
                .oid(key.family)
                .oid(key.collation);
            w.int(i32::from(key.is_array));
        }
        Prune::And(parts) => list(w, 2, parts),
        Prune::Or(parts) => list(w, 3, parts),
    }
}

fn read_prune(reader: &mut PlanReader) -> Prune<Key> {
    match reader.int() {
        0 => Prune::All,
        1 => {
            let expression = read_count(reader);
            let (hash_type, family, collation) = (reader.oid(), reader.oid(), reader.oid());
            Prune::Key(Key {
                expression,
                hash_type,
                family,
                collation,
                is_array: reader.int() != 0,
            })
        }
        code => {
            let parts = (0..read_count(reader)).map(|_| read_prune(reader)).collect();
            if code == 2 { Prune::And(parts) } else { Prune::Or(parts) }
        }
    }
}
