//! What the metadata say: distributed tables, their shards and placements, cached per session.
//!
//! The truth is in the three tables of `pgs_distribution_metadata`, laid out as in pg_shard 1.2 and open to
//! hand editing. Triggers on them invalidate the relcache entry of `partition` in all sessions at commit, and
//! PostgreSQL delivers that before the next statement locks its tables; [`forget`] then drops what is cached.
//! Cached plans hold no metadata: they look here at each execution.

use crate::mark::{self, Mark};
use crate::script;
use pg::catalog::foreign_keys::links;
use pg::catalog::table::{self, Search};
use pg::catalog::uniqueness;
use pg::hooks::Verdict;
use pg::read::query::DistributionKey;
use pg::server::in_flight;
use pg::server::lock::ShardLock;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::metadata::{Fault, PlacementRow, ShardRow, pass_over, validate_placements};
use shardmap::{NodeAddress, PlacementId, PlacementState, ShardId, ShardMap};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// The schema of the metadata.
pub(crate) const METADATA_SCHEMA: &str = "pgs_distribution_metadata";

/// A copy of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Its id.
    pub(crate) id: PlacementId,
    /// Whether it may be used.
    pub(crate) state: PlacementState,
    /// Where it is.
    pub(crate) node: NodeAddress,
}

/// A distributed table.
#[derive(Clone, Debug)]
pub(crate) struct DistributedTable {
    /// Its OID.
    pub(crate) oid: Oid,
    /// Its schema.
    pub(crate) schema: String,
    /// Its name.
    pub(crate) name: String,
    /// `h` for hash.
    pub(crate) method: u8,
    /// How it is cut.
    pub(crate) key: DistributionKey,
    /// The distribution column's name.
    pub(crate) key_name: String,
    /// It is declared NOT NULL.
    pub(crate) key_is_not_null: bool,
    /// No constraint of the table holds between rows of different keys.
    pub(crate) unique_within_key: bool,
    /// Foreign keys link it with itself or with other tables.
    pub(crate) is_linked: bool,
    /// Its shards.
    pub(crate) map: ShardMap,
    /// The placements of each shard, in the map's order and by id: the first healthy one leads.
    pub(crate) placements: Vec<Vec<Placement>>,
    /// A shard that has none.
    pub(crate) unplaced: Option<usize>,
    /// It is a partitioned table; its partitions are distributed tables beside it.
    pub(crate) is_partitioned: bool,
    /// Why it cannot be used.
    pub(crate) trouble: Option<Trouble>,
}

/// Why a distributed table cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Its metadata make no sense.
    Fault(Fault),
    /// The extension's objects are of this other version.
    Version(String),
    /// It came with a dump, and the metadata do not know it by its OID: see [`crate::mark`].
    Detached,
}

impl DistributedTable {
    /// The shard's name, quoted and qualified.
    pub(crate) fn shard_name(&self, index: usize) -> String {
        let id = self.map.shards()[index].id;
        format!("{}.{}", quote(&self.schema), quote(&format!("{}_{}", self.name, id.0)))
    }

    /// The shard's id.
    pub(crate) fn shard_id(&self, index: usize) -> ShardId {
        self.map.shards()[index].id
    }

    /// Which of the table's shards has that id; none if it is no shard of the table.
    pub(crate) fn index_of(&self, shard: ShardId) -> Option<usize> {
        (0..self.map.len()).find(|index| self.shard_id(*index) == shard)
    }

    /// What whoever locks rows of a shard locks before.
    pub(crate) fn turn(&self) -> ShardLock {
        ShardLock::WriteGate(self.shard_id(0))
    }

    /// The shard of this table that is used beside shard `index` of others: that of the same number, but a table of one
    /// shard is whole beside each of them.
    pub(crate) fn beside(&self, index: usize) -> usize {
        if self.map.len() == 1 { 0 } else { index }
    }

    /// The healthy placements of a shard, leader first.
    pub(crate) fn healthy(&self, index: usize) -> impl Iterator<Item = &Placement> {
        self.placements[index].iter().filter(|placement| placement.state == PlacementState::Healthy)
    }

    /// The shards are read on more than one node.
    pub(crate) fn spreads(&self, shards: &[usize]) -> bool {
        let leader = |index: &usize| self.healthy(*index).next().map(|placement| &placement.node);
        let mut leaders = shards.iter().map(leader);
        leaders.next().is_some_and(|first| leaders.any(|other| other != first))
    }

    /// How many nodes hold placements of it.
    pub(crate) fn node_count(&self) -> usize {
        self.nodes().len()
    }

    /// The nodes that hold placements of it, healthy or not.
    pub(crate) fn nodes(&self) -> Vec<NodeAddress> {
        let mut nodes: Vec<NodeAddress> = Vec::new();
        for placement in self.placements.iter().flatten() {
            if !nodes.contains(&placement.node) {
                nodes.push(placement.node.clone());
            }
        }
        nodes
    }

    /// A row is not known by its shard and its `ctid` there: each placement has its own, and so has each partition.
    pub(crate) fn hides_places(&self) -> bool {
        self.is_partitioned || self.is_replicated()
    }

    /// Some shard has several placements.
    pub(crate) fn is_replicated(&self) -> bool {
        self.placements.iter().any(|placements| placements.len() > 1)
    }

    /// The hash that a row without a key goes by: there is none, but where the column is NOT NULL any shard refuses the
    /// row as PostgreSQL does.
    pub(crate) fn hash_of_null(&self) -> Result<i32, PgError> {
        match self.map.shards().first() {
            Some(first) if self.key_is_not_null => Ok(first.range.first()),
            _ => Err(null_key(self)),
        }
    }

    /// The table came with a dump, and no metadata are known to be its own.
    pub(crate) fn is_detached(&self) -> bool {
        self.trouble == Some(Trouble::Detached)
    }

    /// The table can be used: whoever reads or writes it asks first.
    pub(crate) fn check(&self) -> Result<(), PgError> {
        let Some(trouble) = &self.trouble else { return Ok(()) };
        let state = SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
        Err(match trouble {
            Trouble::Fault(fault) => PgError::new(
                state,
                format!("metadata of distributed table \"{}\" are not valid", self.name),
            )
            .detail(fault.to_string())
            .hint(format!("Correct {}.", fault.row())),
            Trouble::Version(version) => script::wrong_version(version),
            Trouble::Detached => PgError::new(
                state,
                format!("distributed table \"{}\" has no metadata under its OID", self.name),
            )
            .detail("It was restored from a dump, or its metadata have been removed.")
            .hint(
                "Run SELECT pgs_catalog.after_restore() to give restored tables their shards back, or \
                 undistribute_table to make this one a local table.",
            ),
        })
    }

    /// The error of a table without shards.
    pub(crate) fn no_shards(&self) -> PgError {
        PgError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "could not find any shards for query",
        )
        .detail(format!("No shards exist for distributed table \"{}\".", self.name))
        .hint("Run master_create_worker_shards to create shards and try again.")
    }
}

/// A row without a distribution column's value has no shard.
fn null_key(table: &DistributedTable) -> PgError {
    PgError::new(
        SqlState::NULL_VALUE_NOT_ALLOWED,
        "cannot plan INSERT using row with NULL value in partition column",
    )
    .detail(format!(
        "Column \"{}\" of table \"{}\" decides where a row is stored.",
        table.key_name, table.name
    ))
}

/// A name in double quotes.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The OIDs of the metadata tables and their indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// `partition`, whose invalidation stands for all of them.
    pub(crate) partition: Oid,
    partition_index: Option<Oid>,
    shard: Oid,
    shard_index: Option<Oid>,
    placement: Oid,
    placement_index: Option<Oid>,
}

thread_local! {
    /// See [`nodes`]; with the metadata by which they hold.
    static NODES: RefCell<Option<(u64, Rc<[NodeAddress]>)>> = const { RefCell::new(None) };
    static METADATA: Cell<Option<Metadata>> = const { Cell::new(None) };
    static TABLES: RefCell<HashMap<Oid, Option<Rc<DistributedTable>>>> = RefCell::new(HashMap::new());
    static GENERATION: Cell<u64> = const { Cell::new(0) };
    static EPOCH: Cell<u64> = const { Cell::new(0) };
    static MOMENT: Cell<u64> = const { Cell::new(0) };
}

/// A number that grows whenever something known about a distributed table may have changed, or about functions, whose
/// names and volatility our plans hold.
pub(crate) fn epoch() -> u64 {
    EPOCH.get()
}

/// A number that grows whenever placements may have changed.
pub(crate) fn moment() -> u64 {
    MOMENT.get()
}

/// The version of the extension's objects, if the library does not work with it; the metadata are not remembered then.
fn unfit_version() -> Option<String> {
    METADATA.get().is_none().then(script::other_version).flatten()
}

/// The metadata tables; none in a database without the extension.
pub(crate) fn metadata() -> Option<Metadata> {
    METADATA.get().or_else(|| {
        let find = |name| table::relation_oid(METADATA_SCHEMA, name);
        let metadata = Metadata {
            partition: find("partition")?,
            partition_index: find("partition_relation_id_key"),
            shard: find("shard")?,
            shard_index: find("shard_relation_index"),
            placement: find("shard_placement")?,
            placement_index: find("shard_placement_shard_index"),
        };
        // Whoever has ALTER EXTENSION update the objects need not tell all sessions.
        if script::other_version().is_none() {
            METADATA.set(Some(metadata));
        }
        Some(metadata)
    })
}

/// All distributed tables of the database, by OID.
pub(crate) fn distributed_tables() -> Vec<Oid> {
    let mut tables = Vec::new();
    if let Some(metadata) = metadata() {
        table::scan(metadata.partition, None, 1, Search::All, &mut |row| tables.push(row.oid(1)));
    }
    tables.sort_by_key(|oid| oid.to_u32());
    tables
}

/// The nodes with placements of shards of any table.
pub(crate) fn nodes() -> Rc<[NodeAddress]> {
    if let Some((known, nodes)) = NODES.with_borrow(Clone::clone)
        && known == moment()
    {
        return nodes;
    }
    let mut nodes: Vec<NodeAddress> = Vec::new();
    for table in distributed_tables().into_iter().filter_map(find) {
        for placement in table.placements.iter().flatten() {
            if !nodes.contains(&placement.node) {
                nodes.push(placement.node.clone());
            }
        }
    }
    let nodes: Rc<[NodeAddress]> = nodes.into();
    NODES.set(Some((moment(), Rc::clone(&nodes))));
    nodes
}

/// The nodes that the metadata name, read from the heap as they are now: whoever asks needs no right to read the metadata.
pub(crate) fn nodes_of_placements() -> Vec<NodeAddress> {
    let mut found = Vec::new();
    if let Some(metadata) = metadata() {
        table::scan(metadata.placement, None, 1, Search::All, &mut |row| {
            let node = NodeAddress { host: row.text(4).into(), port: row.int4(5) };
            if !found.contains(&node) {
                found.push(node);
            }
        });
    }
    found
}

/// The table, if it is distributed.
pub(crate) fn find(oid: Oid) -> Option<Rc<DistributedTable>> {
    if let Some(known) = TABLES.with_borrow(|tables| tables.get(&oid).cloned()) {
        return known;
    }
    let metadata = metadata()?;
    if [metadata.partition, metadata.shard, metadata.placement].contains(&oid)
        || oid.to_u32() < 16384
    {
        return None;
    }
    loop {
        let generation = GENERATION.get();
        // Known again behind each change: whoever does not know these tables does not hear of their changes.
        let metadata = self::metadata()?;
        let loaded = load(oid, metadata).map(Rc::new);
        if unfit_version().is_some() {
            return loaded;
        }
        if GENERATION.get() == generation {
            TABLES.with_borrow_mut(|tables| tables.insert(oid, loaded.clone()));
            return loaded;
        }
    }
}

/// The table, which must be distributed, with metadata that make sense.
pub(crate) fn get(oid: Oid) -> Result<Rc<DistributedTable>, PgError> {
    let table = find(oid).ok_or_else(|| not_distributed(oid))?;
    table.check()?;
    Ok(table)
}

/// The error for a table that is not distributed, as pg_shard 1.2 says it.
pub(crate) fn not_distributed(oid: Oid) -> PgError {
    let name = table::describe(oid).map_or_else(|| "(null)".to_owned(), |relation| relation.name);
    PgError::new(
        SqlState::UNDEFINED_OBJECT,
        format!("no partition column is defined for relation \"{name}\""),
    )
}

fn load(oid: Oid, metadata: Metadata) -> Option<DistributedTable> {
    let mut found = None;
    table::scan(metadata.partition, metadata.partition_index, 1, Search::Oid(oid), &mut |row| {
        found = Some((row.char(2), row.text(3)));
    });
    let relation = table::describe(oid)?;
    let mark = mark::read(oid);
    let is_listed = found.is_some();
    let own = found.filter(|_| mark == Mark::Own);
    let version = unfit_version();
    // Tables of 1.2 have no mark.
    if own.is_none() && mark == Mark::None && (version.is_none() || !is_listed) {
        return None;
    }
    let nothing = DistributionKey {
        column: 0,
        family: Oid::INVALID,
        type_oid: Oid::INVALID,
        collation: Oid::INVALID,
    };
    let mut loaded = DistributedTable {
        oid,
        schema: relation.schema,
        name: relation.name,
        method: b'h',
        key: nothing,
        key_name: String::new(),
        key_is_not_null: false,
        unique_within_key: false,
        is_linked: !links(oid).is_empty(),
        map: ShardMap::default(),
        placements: Vec::new(),
        unplaced: None,
        is_partitioned: relation.kind == b'p',
        trouble: Some(Trouble::Detached),
    };
    if let Some(version) = version {
        loaded.trouble = Some(Trouble::Version(version));
        return Some(loaded);
    }
    let Some((method, key_name)) = own else { return Some(loaded) };
    loaded.method = method;
    let mut fault = load_shards(&mut loaded, metadata);
    match find_key(oid, &key_name) {
        Some(key) => {
            loaded.key_is_not_null = table::is_not_null(oid, key.column);
            loaded.unique_within_key =
                uniqueness::unique_indexes_without(oid, key.column).is_empty();
            loaded.key = key;
        }
        // DROP TYPE ... CASCADE may have taken it along; that makes no local table of this one.
        None => fault = Some(Fault::Key(key_name.clone())),
    }
    loaded.key_name = key_name;
    loaded.trouble = fault.map(Trouble::Fault);
    Some(loaded)
}

fn find_key(oid: Oid, name: &str) -> Option<DistributionKey> {
    let column = table::column_number(oid, name)?;
    let (type_oid, _, collation) = table::column_type(oid, column);
    let (family, hash_type) = table::hash_family(type_oid)?;
    Some(DistributionKey { column, family, type_oid: hash_type, collation })
}

/// Reads a table's shards and placements; tells the first thing that is wrong with them.
fn load_shards(loaded: &mut DistributedTable, metadata: Metadata) -> Option<Fault> {
    let mut shards = Vec::new();
    let search = Search::Oid(loaded.oid);
    table::scan(metadata.shard, metadata.shard_index, 2, search, &mut |row| {
        shards.push(ShardRow {
            id: ShardId(row.int8(1)),
            storage: row.char(3),
            min_value: row.text(4),
            max_value: row.text(5),
        });
    });
    let (map, mut fault) = ShardMap::read(&shards);
    for shard in map.shards() {
        let rows = placement_rows(shard.id, metadata);
        if fault.is_none() {
            fault = validate_placements(&rows).err();
        }
        loaded.placements.push(rows.into_iter().map(Placement::from).collect());
    }
    loaded.unplaced = loaded.placements.iter().position(Vec::is_empty);
    loaded.map = map;
    fault
}

fn placement_rows(shard: ShardId, metadata: Metadata) -> Vec<PlacementRow> {
    let mut placements = Vec::new();
    let search = Search::Int8(shard.0);
    table::scan(metadata.placement, metadata.placement_index, 2, search, &mut |row| {
        placements.push(PlacementRow {
            id: PlacementId(row.int8(1)),
            shard,
            state: row.int4(3),
            node: NodeAddress { host: row.text(4).into(), port: row.int4(5) },
        });
    });
    placements.sort_by_key(|placement| placement.id);
    let leftovers = in_flight::leftovers();
    if !leftovers.is_empty() {
        // Not marked yet: see `health::mark_leftovers`.
        let ids: Vec<PlacementId> =
            leftovers.iter().map(|left| PlacementId(left.missed.placement)).collect();
        pass_over(&mut placements, &ids);
    }
    placements
}

impl From<PlacementRow> for Placement {
    fn from(row: PlacementRow) -> Self {
        Self { id: row.id, state: PlacementState::from(row.state), node: row.node }
    }
}

fn load_placements(shard: ShardId, metadata: Metadata) -> Vec<Placement> {
    placement_rows(shard, metadata).into_iter().map(Placement::from).collect()
}

/// The placements of a shard as they are committed now, bypassing the cache.
pub(crate) fn current_placements(shard: ShardId) -> Vec<Placement> {
    metadata().map_or_else(Vec::new, |metadata| load_placements(shard, metadata))
}

/// Some row of the metadata stands under that OID, whosever it is.
pub(crate) fn has_metadata_under(oid: Oid) -> bool {
    let Some(metadata) = metadata() else { return false };
    let mut found = false;
    let search = Search::Oid(oid);
    table::scan(metadata.partition, metadata.partition_index, 1, search, &mut |_| found = true);
    table::scan(metadata.shard, metadata.shard_index, 2, search, &mut |_| found = true);
    found
}

/// The table that a shard belongs to.
pub(crate) fn table_of_shard(shard: ShardId) -> Option<Oid> {
    let metadata = metadata()?;
    let mut found = None;
    let index = table::relation_oid(METADATA_SCHEMA, "shard_pkey");
    table::scan(metadata.shard, index, 1, Search::Int8(shard.0), &mut |row| {
        found = Some(row.oid(2))
    });
    found
}

/// Drops what is cached about a table, or about all.
pub(crate) fn forget(oid: Option<Oid>) {
    GENERATION.set(GENERATION.get() + 1);
    let is_metadata = |oid: Oid| {
        METADATA.get().is_none_or(|m| [m.partition, m.shard, m.placement].contains(&oid))
    };
    match oid {
        Some(oid) if !is_metadata(oid) => {
            // While the table is borrowed for a look-up, nothing can call us: look-ups call no PostgreSQL code.
            let forgotten = TABLES.with_borrow_mut(|tables| tables.remove(&oid));
            if matches!(forgotten, Some(Some(_))) {
                EPOCH.set(EPOCH.get() + 1);
            }
        }
        _ => {
            EPOCH.set(EPOCH.get() + 1);
            MOMENT.set(MOMENT.get() + 1);
            METADATA.set(None);
            TABLES.with_borrow_mut(HashMap::clear);
        }
    }
}

/// Makes plans and templates that were kept be made anew.
pub(crate) fn forget_plans() {
    EPOCH.set(EPOCH.get() + 1);
}

/// PostgreSQL plans it, and plans anew when the metadata change.
pub(crate) fn planned_by_postgres() -> Verdict {
    metadata().map_or(Verdict::NotOurs, |metadata| Verdict::PlannedByPostgres(metadata.partition))
}
