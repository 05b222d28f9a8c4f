//! Reading tables and catalogs directly: no SPI, no privileges, always the latest committed state and our own.
//!
//! Metadata are read with the extension's rights and not the user's, on every first use in a session, so this
//! goes straight to the heap through an index.

use crate::sys::error::PgError;
use crate::sys::{node, version};
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::{CString, c_int};

/// The OID of a relation by its exact name; none if there is no such schema or relation.
pub fn relation_oid(schema: &str, name: &str) -> Option<Oid> {
    let (schema, name) = (CString::new(schema).ok()?, CString::new(name).ok()?);
    // SAFETY: syscache look-ups with zero-terminated names.
    let oid = unsafe {
        let namespace = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        if namespace == Oid::INVALID {
            return None;
        }
        pg_sys::get_relname_relid(name.as_ptr(), namespace)
    };
    (oid != Oid::INVALID).then_some(oid)
}

/// A value to look for in an index.
#[derive(Clone, Copy, Debug)]
pub enum Search {
    /// An OID.
    Oid(Oid),
    /// A bigint.
    Int8(i64),
    /// Every row.
    All,
}

/// A row that is being read.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl Row {
    fn datum(&self, column: i16) -> Option<Datum> {
        let mut is_null = false;
        // SAFETY: the tuple is live during the visit; the column is one of the table's.
        let value = unsafe {
            pg_sys::heap_getattr(self.tuple, column.into(), self.descriptor, &mut is_null)
        };
        (!is_null).then_some(value)
    }

    /// A bigint column.
    pub fn int8(&self, column: i16) -> i64 {
        self.datum(column).map_or(0, |datum| datum.value() as i64)
    }

    /// A smallint column.
    pub fn int2(&self, column: i16) -> i16 {
        self.datum(column).map_or(0, |datum| datum.value() as i16)
    }

    /// An integer column.
    pub fn int4(&self, column: i16) -> i32 {
        self.datum(column).map_or(0, |datum| datum.value() as i32)
    }

    /// A boolean column.
    pub fn bool(&self, column: i16) -> bool {
        self.datum(column).is_some_and(|datum| datum.value() as u8 != 0)
    }

    /// An oid column.
    pub fn oid(&self, column: i16) -> Oid {
        self.datum(column).map_or(Oid::INVALID, |datum| Oid::from(datum.value() as u32))
    }

    /// A "char" column.
    pub fn char(&self, column: i16) -> u8 {
        self.datum(column).map_or(0, |datum| datum.value() as u8)
    }

    /// A text column.
    pub fn text(&self, column: i16) -> String {
        self.datum(column).map_or(String::new(), |datum| {
            // SAFETY: the column is a text; the C string is palloced.
            unsafe { node::text_of(pg_sys::text_to_cstring(datum.cast_mut_ptr())) }
        })
    }
}

/// Visits the rows of `table` whose `column` equals `value`, through `index` if it exists, as they are committed now.
pub fn scan(
    table: Oid,
    index: Option<Oid>,
    column: i16,
    value: Search,
    visit: &mut dyn FnMut(&Row),
) {
    scan_by(std::ptr::null_mut(), table, index, column, value, visit);
}

/// Visits all versions of rows of `table`: also what is not committed, or not any more there.
pub(crate) fn scan_versions(table: Oid, visit: &mut dyn FnMut(&Row)) {
    scan_by(&raw mut pg_sys::SnapshotAnyData, table, None, 1, Search::All, visit);
}

fn scan_by(
    snapshot: pg_sys::Snapshot,
    table: Oid,
    index: Option<Oid>,
    column: i16,
    value: Search,
    visit: &mut dyn FnMut(&Row),
) {
    // SAFETY: the table is opened and locked for the scan; the key is a complete ScanKey for the column's type; the
    // tuple is read before the next one is fetched. Without a snapshot the scan takes a fresh one for itself, as scans
    // of catalogs do; that is allowed in parallel operations too, where GetLatestSnapshot is not.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as c_int);
        let mut key: pg_sys::ScanKeyData = std::mem::zeroed();
        let (function, argument) = match value {
            Search::Oid(oid) => (pg_sys::F_OIDEQ, Datum::from(oid)),
            Search::Int8(number) => (pg_sys::F_INT8EQ, Datum::from(number)),
            Search::All => (pg_sys::F_OIDEQ, Datum::from(0)),
        };
        let keys = if matches!(value, Search::All) { 0 } else { 1 };
        pg_sys::ScanKeyInit(
            &raw mut key,
            column,
            pg_sys::BTEqualStrategyNumber as u16,
            Oid::from(function),
            argument,
        );
        let scan = pg_sys::systable_beginscan(
            relation,
            index.unwrap_or(Oid::INVALID),
            index.is_some(),
            snapshot,
            keys,
            &raw mut key,
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            visit(&Row { tuple, descriptor: (*relation).rd_att });
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as c_int);
    }
}

/// Catalogs whose OIDs the bindings lack; they are fixed (`CATALOG(...)` in `src/include/catalog`).
const PG_INHERITS: Oid = Oid::from_u32(2611);
const PG_REWRITE: Oid = Oid::from_u32(2618);

/// Some row of `table` has `value` in `column`, and `fits`.
fn has_row(
    table: Oid,
    index: Option<Oid>,
    column: u32,
    value: Oid,
    fits: &dyn Fn(&Row) -> bool,
) -> bool {
    let mut found = false;
    scan(table, index, column as i16, Search::Oid(value), &mut |row| found |= fits(row));
    found
}

/// The table inherits from others, or others from it.
pub fn inherits(table: Oid) -> bool {
    let has = |column| has_row(PG_INHERITS, None, column, table, &|_| true);
    // `inhrelid`, `inhparent`.
    has(1) || has(2)
}

/// The table has rules.
pub fn has_rules(table: Oid) -> bool {
    // `ev_class`.
    has_row(PG_REWRITE, None, 3, table, &|_| true)
}

/// The next value of a sequence, whoever may use it.
pub fn next_value(sequence: Oid) -> i64 {
    // SAFETY: PostgreSQL's own `nextval` of an existing sequence; the guard turns an ERROR into a panic.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| raw::nextval_internal(sequence, false)) }
}

/// The value that a sequence gave last, or will give first.
pub fn last_value(sequence: Oid) -> i64 {
    let mut last = 0;
    scan(sequence, None, 1, Search::All, &mut |row| last = row.int8(1));
    last
}

/// What a relation is.
#[derive(Clone, Debug, PartialEq)]
pub struct Relation {
    /// Its schema's OID.
    pub namespace: Oid,
    /// Its owner.
    pub owner: Oid,
    /// Its schema's name.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `pg_class.relkind`.
    pub kind: u8,
    /// `pg_class.relpersistence`.
    pub persistence: u8,
    /// It is a partition of a partitioned table.
    pub is_partition: bool,
    /// It has, or once had, tables that inherit from it.
    pub has_children: bool,
    /// Row security is on.
    pub row_security: bool,
    /// `pg_class.reltuples`, which ANALYZE sets to what the shards have.
    pub rows: f32,
    /// `pg_class.relpages`, which ANALYZE sets to what the shards have.
    pub pages: i32,
}

/// Reads `pg_class`; none if the relation does not exist.
pub fn describe(table: Oid) -> Option<Relation> {
    // SAFETY: a syscache look-up; the tuple is released after its fields are copied.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as c_int,
            Datum::from(table),
        );
        if tuple.is_null() {
            return None;
        }
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let relation = Relation {
            namespace: form.relnamespace,
            owner: form.relowner,
            schema: node::text_of(pg_sys::get_namespace_name(form.relnamespace)),
            name: node::text_of(form.relname.data.as_ptr()),
            kind: form.relkind as u8,
            persistence: form.relpersistence as u8,
            is_partition: form.relispartition,
            has_children: form.relhassubclass,
            row_security: form.relrowsecurity,
            rows: form.reltuples,
            pages: form.relpages,
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(relation)
    }
}

/// The owner of a relation.
///
/// # Errors
///
/// If there is no such relation.
pub fn owner_of(table: Oid) -> Result<Oid, PgError> {
    describe(table)
        .map(|relation| relation.owner)
        .ok_or_else(|| PgError::internal("the table has vanished"))
}

/// A column's number by its exact name; none if the table has no such live column.
pub fn column_number(table: Oid, name: &str) -> Option<i16> {
    let name = CString::new(name).ok()?;
    // SAFETY: a syscache look-up with a zero-terminated name.
    let number = unsafe { pg_sys::get_attnum(table, name.as_ptr()) };
    (number != 0).then_some(number)
}

/// A column's type, typmod and collation.
pub fn column_type(table: Oid, column: i16) -> (Oid, i32, Oid) {
    let (mut type_oid, mut typmod, mut collation) = (Oid::INVALID, 0, Oid::INVALID);
    // SAFETY: a syscache look-up of an existing column.
    unsafe {
        pg_sys::get_atttypetypmodcoll(
            table,
            column,
            &raw mut type_oid,
            &raw mut typmod,
            &raw mut collation,
        );
    }
    (type_oid, typmod, collation)
}

/// The default hash operator family of a type and the type that its operators take; none if it has none.
pub fn hash_family(type_oid: Oid) -> Option<(Oid, Oid)> {
    // SAFETY: catalog look-ups by value.
    unsafe {
        let class = pg_sys::GetDefaultOpClass(type_oid, pg_sys::HASH_AM_OID);
        (class != Oid::INVALID)
            .then(|| (pg_sys::get_opclass_family(class), pg_sys::get_opclass_input_type(class)))
    }
}

/// A column that no row lacks and that can be hashed: the first of the primary key, else the first of the table.
pub fn column_of_every_row(table: Oid) -> Option<String> {
    // SAFETY: the caller holds a lock on the table; an index's form has as many columns as it says.
    unsafe {
        let relation = pg_sys::relation_open(table, pg_sys::NoLock as c_int);
        pg_sys::list_free(pg_sys::RelationGetIndexList(relation));
        let primary = (*relation).rd_pkindex;
        let descriptor = (*relation).rd_att;
        let mut columns: Vec<i16> = Vec::new();
        if primary != Oid::INVALID {
            let index = pg_sys::index_open(primary, pg_sys::AccessShareLock as c_int);
            columns.push(*(*(*index).rd_index).indkey.values.as_ptr());
            pg_sys::index_close(index, pg_sys::AccessShareLock as c_int);
        }
        for number in 0..(*descriptor).natts as usize {
            let attribute = version::attribute(descriptor, number);
            if (*attribute).attnotnull && !(*attribute).attisdropped {
                columns.push((*attribute).attnum);
            }
        }
        pg_sys::relation_close(relation, pg_sys::NoLock as c_int);
        columns
            .into_iter()
            .find(|column| hash_family(column_type(table, *column).0).is_some())
            .map(|column| node::text_of(pg_sys::get_attname(table, column, false)))
    }
}

/// A relation's name without its schema; empty if there is none.
pub fn relation_name(relation: Oid) -> String {
    // SAFETY: a catalog look-up by value, which returns null for what is not there.
    unsafe { node::text_of(pg_sys::get_rel_name(relation)) }
}

/// A type as SQL spells it.
pub fn type_name(type_oid: Oid) -> String {
    // SAFETY: a catalog look-up by value.
    unsafe { node::text_of(pg_sys::format_type_be(type_oid)) }
}

/// A type by its schema and name.
pub fn type_oid(schema: &str, name: &str) -> Option<Oid> {
    let (schema, name) = (CString::new(schema).ok()?, CString::new(name).ok()?);
    // SAFETY: syscache look-ups with zero-terminated names.
    let oid = unsafe {
        let namespace = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        if namespace == Oid::INVALID {
            return None;
        }
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::TYPENAMENSP as c_int,
            pg_sys::Anum_pg_type_oid as pg_sys::AttrNumber,
            Datum::from(name.as_ptr()),
            Datum::from(namespace),
            Datum::from(0),
            Datum::from(0),
        )
    };
    (oid != Oid::INVALID).then_some(oid)
}

/// The types of a table's columns, and of the elements of arrays among them.
pub fn column_types(table: Oid) -> Vec<Oid> {
    // SAFETY: the relation is opened without a new lock: callers hold one, or the table is being reported on.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return Vec::new();
        }
        let descriptor = (*relation).rd_att;
        let types = (0..(*descriptor).natts as usize)
            .map(|index| &*version::attribute(descriptor, index))
            .filter(|attribute| !attribute.attisdropped)
            .flat_map(|attribute| {
                [attribute.atttypid, pg_sys::get_element_type(attribute.atttypid)]
            })
            .filter(|type_oid| *type_oid != Oid::INVALID)
            .collect();
        pg_sys::RelationClose(relation);
        types
    }
}

/// A type as PostgreSQL's messages spell it where `search_path` is `pg_catalog`, as it is on nodes.
pub fn qualified_type_name(type_oid: Oid) -> String {
    // SAFETY: a catalog look-up by value.
    unsafe {
        node::text_of(pg_sys::format_type_extended(
            type_oid,
            -1,
            pg_sys::FORMAT_TYPE_FORCE_QUALIFY as u16,
        ))
    }
}

/// The names of a table's indexes, primary key and unique constraints included.
pub fn index_names(table: Oid) -> Vec<(Oid, String)> {
    // SAFETY: the relation is opened without a new lock: callers hold one, or the table is being reported on.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return Vec::new();
        }
        let list = pg_sys::RelationGetIndexList(relation);
        let names = (0..node::length(list))
            .map(|index| {
                let oid = (*(*list).elements.add(index)).oid_value;
                (oid, node::text_of(pg_sys::get_rel_name(oid)))
            })
            .collect();
        pg_sys::RelationClose(relation);
        names
    }
}

/// An index of the whole table begins with the column.
pub fn has_index_on(table: Oid, column: i16) -> bool {
    index_names(table).into_iter().any(|(index, _)| {
        // SAFETY: an index of the table, opened with a lock for the look; an index has a first column.
        unsafe {
            let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as c_int);
            let form = &*(*relation).rd_index;
            let begins = *form.indkey.values.as_ptr() == column && is_total(relation);
            pg_sys::index_close(relation, pg_sys::AccessShareLock as c_int);
            begins
        }
    })
}

/// The index has all rows. `RelationGetIndexPredicate` would say it too, but folds constants in the predicate, and so runs
/// functions of users.
///
/// # Safety
///
/// An open index.
pub(crate) unsafe fn is_total(index: pg_sys::Relation) -> bool {
    // SAFETY: the caller vouches for the index, whose row of `pg_index` the relation has.
    unsafe {
        let predicate = pg_sys::Anum_pg_index_indpred as c_int;
        pg_sys::heap_attisnull((*index).rd_indextuple, predicate, std::ptr::null_mut())
    }
}

/// Resolves a table's name as SQL spells it, by the search path; raises PostgreSQL's own error if it is missing.
pub fn resolve(name: &str, lock: RelationLock) -> Oid {
    let text = node::c_text(name);
    // SAFETY: PostgreSQL's own parsing of a palloced text; errors come as panics through the guard.
    unsafe {
        let names = version::qualified_name(text);
        let variable = pg_sys::makeRangeVarFromNameList(names);
        pg_sys::RangeVarGetRelidExtended(variable, lock.code(), 0, None, std::ptr::null_mut())
    }
}

/// How strongly a relation is locked, to the end of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationLock {
    /// Not.
    None,
    /// As a reader.
    AccessShare,
    /// As a writer.
    RowExclusive,
    /// Against other changes of its definition.
    ShareUpdateExclusive,
    /// As whoever creates a trigger.
    ShareRowExclusive,
    /// Against writers.
    Exclusive,
    /// Against everybody.
    AccessExclusive,
}

impl RelationLock {
    fn code(self) -> c_int {
        (match self {
            Self::None => pg_sys::NoLock,
            Self::AccessShare => pg_sys::AccessShareLock,
            Self::RowExclusive => pg_sys::RowExclusiveLock,
            Self::ShareUpdateExclusive => pg_sys::ShareUpdateExclusiveLock,
            Self::ShareRowExclusive => pg_sys::ShareRowExclusiveLock,
            Self::Exclusive => pg_sys::ExclusiveLock,
            Self::AccessExclusive => pg_sys::AccessExclusiveLock,
        }) as c_int
    }
}

/// Locks a relation to the end of the transaction.
pub fn lock_relation(table: Oid, lock: RelationLock) {
    // SAFETY: the lock manager takes any OID.
    unsafe { pg_sys::LockRelationOid(table, lock.code()) };
}

/// The current user owns the table, or is a superuser or a member of its owner.
pub fn is_owned_by_user(table: Oid) -> bool {
    version::owns_relation(table, current_role())
}

/// Who owns a relation; none if there is no such relation.
pub fn owner(table: Oid) -> Option<Oid> {
    // SAFETY: a syscache look-up by value; the tuple is released after its field is read.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as c_int;
        let tuple = pg_sys::SearchSysCache1(cache, Datum::from(table));
        if tuple.is_null() {
            return None;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}

/// The current user has the right to TRUNCATE the table.
pub fn may_truncate(table: Oid) -> bool {
    version::has_right(table, pg_sys::ACL_TRUNCATE)
}

/// The current user has the right to SELECT some column of the table at least.
pub fn may_select_any(table: Oid) -> bool {
    // SAFETY: catalog look-ups by value.
    unsafe {
        let (user, select) = (pg_sys::GetUserId(), pg_sys::ACL_SELECT as pg_sys::AclMode);
        let allowed = pg_sys::AclResult::ACLCHECK_OK;
        pg_sys::pg_class_aclcheck(table, user, select) == allowed
            || pg_sys::pg_attribute_aclcheck_all(
                table,
                user,
                select,
                pg_sys::AclMaskHow::ACLMASK_ANY,
            ) == allowed
    }
}

/// Locks the table as TRUNCATE does, to the end of the transaction.
pub fn lock_for_truncate(table: Oid) {
    // SAFETY: waits as any lock on a relation does; errors come as panics through the guard.
    unsafe { pg_sys::LockRelationOid(table, pg_sys::AccessExclusiveLock as c_int) }
}

/// Refuses, as PostgreSQL refuses TRUNCATE, a table that queries of this session have open, or whose rows deferred triggers wait for.
pub fn check_not_in_use(table: Oid, what: &std::ffi::CStr) {
    // SAFETY: the caller holds a lock of the table; errors come as panics through the guard, and the transaction's abort closes it.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::NoLock as c_int);
        pg_sys::CheckTableNotInUse(relation, what.as_ptr());
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
    }
}

/// The name of a role.
pub fn role_name(role: Oid) -> String {
    // SAFETY: a syscache look-up, an ERROR if there is no such role; the name is palloced.
    unsafe { node::text_of(pg_sys::GetUserNameFromId(role, false)) }
}

/// The current role.
pub fn current_role() -> Oid {
    crate::sys::unguarded::current_role()
}

/// This process helps another with a part of its plan.
pub fn is_parallel_worker() -> bool {
    // SAFETY: a number of this process, set at its start.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// The current user is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: a syscache look-up.
    unsafe { pg_sys::superuser() }
}

/// The OID of this backend's database.
pub fn database() -> Oid {
    // SAFETY: a variable of the backend.
    unsafe { pg_sys::MyDatabaseId }
}

/// The current database's name.
pub fn current_database() -> String {
    // SAFETY: a syscache look-up; the name is palloced.
    unsafe { node::text_of(pg_sys::get_database_name(pg_sys::MyDatabaseId)) }
}

/// The current database's encoding.
pub fn encoding() -> String {
    // SAFETY: a static table of names.
    unsafe { node::text_of(pg_sys::GetDatabaseEncodingName()) }
}

/// The server's data directory.
pub fn data_directory() -> String {
    // SAFETY: set at the server's start, never changed.
    unsafe { node::text_of(pg_sys::DataDir) }
}

mod raw {
    use pgrx::pg_sys::Oid;
    unsafe extern "C-unwind" {
        /// Guarded.
        /// `src/include/commands/sequence.h`.
        pub(super) fn nextval_internal(sequence: Oid, check_permissions: bool) -> i64;
    }
}

/// The value of a setting.
pub fn setting(name: &std::ffi::CStr) -> String {
    // SAFETY: a name of the server's own; the text is copied at once.
    unsafe { node::text_of(pg_sys::GetConfigOption(name.as_ptr(), true, false)) }
}

/// PostgreSQL's node-tree text of a reference to a column.
pub fn column_node_text(table: Oid, column: i16) -> String {
    let (type_oid, typmod, collation) = column_type(table, column);
    // SAFETY: makes a node and prints it.
    unsafe {
        let var = pg_sys::makeVar(1, column, type_oid, typmod, collation, 0);
        node::text_of(pg_sys::nodeToString(var.cast()))
    }
}

/// The number of the column that a node-tree text refers to; none if it is not a reference to a column.
///
/// The server's own reader trusts its input, and crashes on a text that is cut off: it never sees this one.
pub fn column_of_node_text(text: &str) -> Option<i16> {
    /// What `_outVar` of `src/backend/nodes/outfuncs.c` prints, each name before a number.
    const FIELDS: [&str; 9] = [
        ":varno",
        ":varattno",
        ":vartype",
        ":vartypmod",
        ":varcollid",
        ":varlevelsup",
        ":varnosyn",
        ":varattnosyn",
        ":location",
    ];
    /// What later versions print in between: outer joins that make the column NULL (from 16 on), and OLD or NEW (from 18 on).
    const IN_BETWEEN: [&str; 2] = [":varnullingrels (b)", ":varreturningtype 0"];
    let inner = text.trim().strip_prefix("{VAR ")?.strip_suffix('}')?;
    let plain = IN_BETWEEN.iter().fold(inner.to_owned(), |text, field| text.replacen(field, "", 1));
    let mut words = plain.split_ascii_whitespace();
    let mut values = [0_i64; FIELDS.len()];
    for (field, value) in FIELDS.into_iter().zip(&mut values) {
        let is_there = words.next() == Some(field);
        *value = words.next().filter(|_| is_there)?.parse().ok()?;
    }
    words.next().is_none().then(|| i16::try_from(values[1]).ok())?
}

/// The name of a column by its number; none for numbers that the table does not have.
pub fn column_name(table: Oid, column: i16) -> Option<String> {
    // SAFETY: a syscache look-up; a missing column gives null.
    unsafe {
        let name = pg_sys::get_attname(table, column, true);
        (!name.is_null()).then(|| node::text_of(name))
    }
}

/// A live column of a table.
#[derive(Clone, Debug)]
pub struct TableColumn {
    /// Its number.
    pub number: i16,
    /// Its name, not quoted.
    pub name: String,
    /// Its type as SQL spells it on any server.
    pub type_name: String,
    /// Its value is computed from other columns by whoever stores the row.
    pub is_generated: bool,
}

/// A live column of the table is of the type.
pub(crate) fn has_column_of_type(table: Oid, type_oid: Oid) -> bool {
    // SAFETY: the relation is opened without a new lock: callers hold one.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return false;
        }
        let descriptor = (*relation).rd_att;
        let found = (0..(*descriptor).natts as usize)
            .map(|index| &*version::attribute(descriptor, index))
            .any(|attribute| !attribute.attisdropped && attribute.atttypid == type_oid);
        pg_sys::RelationClose(relation);
        found
    }
}

/// A column is declared NOT NULL.
pub fn is_not_null(table: Oid, column: i16) -> bool {
    // SAFETY: as in `columns`; a column's number is its place in the descriptor.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return false;
        }
        let attribute = version::attribute((*relation).rd_att, column as usize - 1);
        let is_not_null = (*attribute).attnotnull;
        pg_sys::RelationClose(relation);
        is_not_null
    }
}

/// The live columns of a table.
pub fn columns(table: Oid) -> Vec<TableColumn> {
    // SAFETY: the relation is opened without a new lock: callers hold one.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return Vec::new();
        }
        let descriptor = (*relation).rd_att;
        let columns = (0..(*descriptor).natts as usize)
            .map(|index| &*version::attribute(descriptor, index))
            .filter(|attribute| !attribute.attisdropped)
            .map(|attribute| TableColumn {
                number: attribute.attnum,
                name: node::text_of(attribute.attname.data.as_ptr()),
                type_name: node::text_of(pg_sys::format_type_extended(
                    attribute.atttypid,
                    attribute.atttypmod,
                    (pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN | pg_sys::FORMAT_TYPE_FORCE_QUALIFY) as u16,
                )),
                is_generated: attribute.attgenerated != 0,
            })
            .collect();
        pg_sys::RelationClose(relation);
        columns
    }
}

/// The columns of each index that no two rows of the table can ever agree in; the primary key comes first.
///
/// Deferrable constraints, partial indexes and those over expressions are no such index, nor are columns that may be
/// NULL, or of types of users, whose operators the search path of a session need not find.
pub fn row_identities(table: Oid) -> Vec<Vec<i16>> {
    let mut found: Vec<(bool, Vec<i16>)> = Vec::new();
    for (index, _) in index_names(table) {
        // SAFETY: an index of the table, opened with a lock for the look; the table itself is locked by the caller.
        unsafe {
            let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as c_int);
            let form = &*(*relation).rd_index;
            let keys =
                std::slice::from_raw_parts(form.indkey.values.as_ptr(), form.indnkeyatts as usize);
            let is_plain = form.indisunique
                && form.indimmediate
                && form.indisvalid
                && is_total(relation)
                && keys.iter().all(|column| *column > 0);
            if is_plain {
                let owner = pg_sys::RelationIdGetRelation(table);
                let fits = keys.iter().all(|column| {
                    let attribute = version::attribute((*owner).rd_att, *column as usize - 1);
                    (*attribute).attnotnull
                        && (*attribute).atttypid.to_u32() < crate::sys::value::FIRST_USER_OID
                });
                pg_sys::RelationClose(owner);
                if fits {
                    found.push((form.indisprimary, keys.to_vec()));
                }
            }
            pg_sys::index_close(relation, pg_sys::AccessShareLock as c_int);
        }
    }
    found.sort_by_key(|(is_primary, _)| !is_primary);
    found.into_iter().map(|(_, columns)| columns).collect()
}
