//! What the planner knows of a table's rows: their number, and what its columns hold.
//!
//! The rows are elsewhere, so a sample of them is fetched by an ordinary SELECT. What is made of it is PostgreSQL's own
//! affair: the functions that ANALYZE calls for each column's type (`std_typanalyze` and the like) see the sample as they
//! would see one of a local table, and what they find is stored where the planner looks (`do_analyze_rel` and
//! `update_attstats`, `src/backend/commands/analyze.c`).

use crate::catalog::privileged;
use crate::sys::error::{PgError, SqlState};
use crate::sys::node;
use crate::sys::version;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

/// What is known of a table before its sample is taken.
#[derive(Clone, Debug)]
pub struct Known {
    /// The table.
    pub table: Oid,
    /// The columns that are looked at; all if there are none.
    pub columns: Vec<String>,
    /// How many rows it has.
    pub rows: f64,
    /// How many pages they take.
    pub pages: f64,
    /// A column of which it is known how many different values it has.
    pub distinct: (i16, f64),
    /// Somebody else's lock on the table is waited for.
    pub waits: bool,
    /// A sample of the rows can be read.
    pub has_sample: bool,
}

/// Beyond so many pages, only some pages are read for the sample.
const MANY_PAGES: f64 = 100_000.0;

/// Whether the current user may collect statistics of a table (`vacuum_is_relation_owner`).
pub fn may_analyze(table: Oid) -> bool {
    // SAFETY: reads variables of the backend.
    let (user, database) = unsafe { (pg_sys::GetUserId(), pg_sys::MyDatabaseId) };
    version::may_maintain(table, user) || version::owns_database(database, user)
}

/// Fetches a sample and stores what it says.
///
/// # Errors
///
/// [`PgError`] if the sample cannot be taken, or the table is locked and that is not to be waited for.
pub fn gather(known: &Known) -> Result<(), PgError> {
    // SAFETY: the relation is locked and open until the end. Everything that is palloced lives in SPI's context until
    // the queries end. After an ERROR the transaction's abort closes the relation, and SPI with it.
    unsafe {
        let lock = pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE;
        if !known.waits && !pg_sys::ConditionalLockRelationOid(known.table, lock) {
            return Err(PgError::new(SqlState::LOCK_NOT_AVAILABLE, "the table is locked"));
        }
        let relation = pg_sys::try_relation_open(known.table, lock);
        if relation.is_null() {
            return Err(PgError::new(SqlState::UNDEFINED_OBJECT, "the table has been dropped"));
        }
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        privileged::Queries::ask(known.table, |queries| sample(queries, relation, known))?;
        pg_sys::PopActiveSnapshot();
        let pages = known.pages.clamp(0.0, f64::from(u32::MAX - 1)) as pg_sys::BlockNumber;
        version::store_size(relation, pages, known.rows);
        pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        pg_sys::CommandCounterIncrement();
        Ok(())
    }
}

/// Reads a sample of the table's rows and stores what it says of the columns.
///
/// # Safety
///
/// The relation is open and locked.
unsafe fn sample(
    queries: &privileged::Queries,
    relation: pg_sys::Relation,
    known: &Known,
) -> Result<(), PgError> {
    // SAFETY: the caller vouches for the relation; rows and columns live until the queries end.
    unsafe {
        let columns = examined(relation, &known.columns);
        if known.rows < 1.0 || columns.is_empty() || !known.has_sample {
            return Ok(());
        }
        let wanted = columns.iter().map(|column| (*column.stats).minrows).max().unwrap_or(0);
        let (sample, rows) = queries.select(&sample_query(relation, &columns, known, wanted))?;
        let rows = rows as c_int;
        if rows == 0 {
            return Ok(());
        }
        for (at, column) in columns.iter().enumerate() {
            let stats = column.stats;
            (*stats).rows = (*sample).vals;
            (*stats).tupDesc = (*sample).tupdesc;
            (*stats).tupattnum = at as c_int + 1;
            // Types of users have functions of users.
            privileged::as_restricted((*(*relation).rd_rel).relowner, || {
                compute(column, rows, known);
            });
            store(known.table, column);
        }
        Ok(())
    }
}

/// A column of which statistics are computed.
struct Column {
    number: i16,
    name: String,
    stats: *mut pg_sys::VacAttrStats,
}

/// The columns that have statistics, each asked by its type what it needs (`examine_attribute`, `analyze.c`).
unsafe fn examined(relation: pg_sys::Relation, names: &[String]) -> Vec<Column> {
    // SAFETY: the relation is open; what is made is palloced in the current context, where it stays.
    unsafe {
        let descriptor = (*relation).rd_att;
        let mut columns = Vec::new();
        for index in 0..(*descriptor).natts as usize {
            let attribute = version::attribute(descriptor, index);
            let name = node::text_of((*attribute).attname.data.as_ptr());
            if (*attribute).attisdropped
                || version::is_virtual(attribute)
                || version::statistics_target(attribute) == 0
                || !names.is_empty() && !names.contains(&name)
            {
                continue;
            }
            let own = pg_sys::palloc0(size_of::<pg_sys::FormData_pg_attribute>())
                .cast::<pg_sys::FormData_pg_attribute>();
            std::ptr::copy_nonoverlapping(attribute, own, 1);
            let type_tuple = pg_sys::SearchSysCacheCopy(
                pg_sys::SysCacheIdentifier::TYPEOID as c_int,
                Datum::from((*own).atttypid),
                Datum::from(0),
                Datum::from(0),
                Datum::from(0),
            );
            if type_tuple.is_null() {
                continue;
            }
            let of_type = pg_sys::GETSTRUCT(type_tuple).cast::<pg_sys::FormData_pg_type>();
            let stats =
                pg_sys::palloc0(size_of::<pg_sys::VacAttrStats>()).cast::<pg_sys::VacAttrStats>();
            version::describe_column(stats, own);
            (*stats).attrtypid = (*own).atttypid;
            (*stats).attrtypmod = (*own).atttypmod;
            (*stats).attrtype = of_type;
            (*stats).attrcollid = (*own).attcollation;
            (*stats).anl_context = pg_sys::CurrentMemoryContext;
            for slot in 0..(*stats).statypid.len() {
                (*stats).statypid[slot] = (*own).atttypid;
                (*stats).statyplen[slot] = (*of_type).typlen;
                (*stats).statypbyval[slot] = (*of_type).typbyval;
                (*stats).statypalign[slot] = (*of_type).typalign;
            }
            let has_statistics = if (*of_type).typanalyze == Oid::INVALID {
                pg_sys::std_typanalyze(stats)
            } else {
                pg_sys::OidFunctionCall1Coll(
                    (*of_type).typanalyze,
                    Oid::INVALID,
                    Datum::from(stats.expose_provenance()),
                )
                .value()
                    != 0
            };
            if has_statistics && (*stats).compute_stats.is_some() && (*stats).minrows > 0 {
                columns.push(Column { number: (*own).attnum, name, stats });
            }
        }
        columns
    }
}

/// The SELECT that yields about `wanted` rows of the table, each with the same chance.
unsafe fn sample_query(
    relation: pg_sys::Relation,
    columns: &[Column],
    known: &Known,
    wanted: c_int,
) -> String {
    // SAFETY: the relation is open, the columns are live.
    unsafe {
        let list: Vec<String> = columns
            .iter()
            .map(|column| node::text_of(pg_sys::quote_identifier(node::c_text(&column.name))))
            .collect();
        let form = (*relation).rd_rel;
        let name = node::text_of(pg_sys::quote_qualified_identifier(
            pg_sys::get_namespace_name((*form).relnamespace),
            (*form).relname.data.as_ptr(),
        ));
        let select = format!("SELECT {} FROM {name}", list.join(", "));
        // Some more than wanted, since the number of rows may have grown and chance plays its part.
        let share = 1.1 * f64::from(wanted) / known.rows;
        if share >= 1.0 {
            // Of a table only: where somebody has put a view in a shard's place, its functions must not run in our name.
            return format!("{select} TABLESAMPLE system (100)");
        }
        if known.pages <= MANY_PAGES {
            return format!("{select} TABLESAMPLE bernoulli ({:.6})", share * 100.0);
        }
        // As many pages as rows are wanted, as ANALYZE itself reads; of each page's rows a share.
        let pages = (f64::from(wanted) / known.pages).min(1.0);
        let of_page = (pages / share).round().max(1.0) as u64;
        format!(
            "{select} TABLESAMPLE system ({:.6}) \
             WHERE pg_catalog.hashtid(ctid) OPERATOR(pg_catalog.%) {of_page} OPERATOR(pg_catalog.=) 0",
            pages * 100.0
        )
    }
}

/// Has PostgreSQL compute a column's statistics.
unsafe fn compute(described: &Column, rows: c_int, known: &Known) {
    let Column { number, stats: column, .. } = *described;
    // SAFETY: the column is live and its sample is set; the function is the one that its type named, called as ANALYZE
    // calls it. The guard turns an ERROR in it into a panic, which unwinds our frames.
    unsafe {
        let total = known.rows.max(f64::from(rows));
        if let Some(function) = (*column).compute_stats {
            pg_sys::ffi::pg_guard_ffi_boundary(|| function(column, Some(fetch), rows, total));
        }
        if !(*column).stats_valid {
            return;
        }
        let options = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            raw::get_attribute_options(known.table, c_int::from(number))
        });
        if !options.is_null() && (*options).n_distinct != 0.0 {
            (*column).stadistinct = (*options).n_distinct as f32;
        } else if number == known.distinct.0 && known.distinct.1 >= 1.0 {
            // More than a tenth of the rows are different: their number is taken to grow with that of the rows.
            let distinct = known.distinct.1.min(total);
            (*column).stadistinct =
                (if distinct > 0.1 * total { -distinct / total } else { distinct }) as f32;
        }
        // The order of a sample that was put together says nothing.
        for slot in 0..(*column).stakind.len() {
            if (*column).stakind[slot] == pg_sys::STATISTIC_KIND_CORRELATION as i16 {
                (*column).stakind[slot] = 0;
                (*column).staop[slot] = Oid::INVALID;
                (*column).stacoll[slot] = Oid::INVALID;
                (*column).numnumbers[slot] = 0;
                (*column).numvalues[slot] = 0;
            }
        }
    }
}

/// A value of the sample (`std_fetch_func`, `analyze.c`).
unsafe extern "C-unwind" fn fetch(
    stats: pg_sys::VacAttrStatsP,
    row: c_int,
    is_null: *mut bool,
) -> Datum {
    // SAFETY: PostgreSQL asks for rows of the sample only, which lives until the statistics are stored.
    unsafe {
        let tuple = *(*stats).rows.add(row as usize);
        raw::heap_getattr(tuple, (*stats).tupattnum, (*stats).tupDesc, is_null)
    }
}

mod raw {
    use pgrx::pg_sys::{self, Datum, Oid};
    use std::ffi::c_int;

    /// `AttributeOpts` (`utils/attoptcache.h`).
    #[repr(C)]
    pub(super) struct AttributeOptions {
        length: i32,
        pub(super) n_distinct: f64,
        n_distinct_inherited: f64,
    }

    unsafe extern "C-unwind" {
        /// Guarded.
        pub(super) fn get_attribute_options(table: Oid, column: c_int) -> *mut AttributeOptions;
        /// Plain frames: those of `fetch` hold nothing to drop.
        fn nocachegetattr(
            tuple: pg_sys::HeapTuple,
            number: c_int,
            descriptor: pg_sys::TupleDesc,
        ) -> Datum;
        /// Plain frames: those of `fetch` hold nothing to drop.
        fn getmissingattr(
            descriptor: pg_sys::TupleDesc,
            number: c_int,
            is_null: *mut bool,
        ) -> Datum;
    }

    /// `heap_getattr` (`access/htup_details.h`), which is inline there, for columns of users; ERRORs pass through.
    pub(super) unsafe fn heap_getattr(
        tuple: pg_sys::HeapTuple,
        number: c_int,
        descriptor: pg_sys::TupleDesc,
        is_null: *mut bool,
    ) -> Datum {
        // SAFETY: the caller vouches for a live tuple of this descriptor and a column that it has.
        unsafe {
            let header = (*tuple).t_data;
            let columns = c_int::from((*header).t_infomask2 & pg_sys::HEAP_NATTS_MASK as u16);
            if number > columns {
                return getmissingattr(descriptor, number, is_null);
            }
            let index = number as usize - 1;
            let has_nulls = (*header).t_infomask & pg_sys::HEAP_HASNULL as u16 != 0;
            let bits = (*header).t_bits.as_ptr();
            *is_null = has_nulls && *bits.add(index / 8) & (1 << (index % 8)) == 0;
            if *is_null { Datum::from(0) } else { nocachegetattr(tuple, number, descriptor) }
        }
    }
}

/// A float4 as a value.
fn float4(number: f32) -> Datum {
    Datum::from(number.to_bits())
}

/// Puts a column's statistics into `pg_statistic` (`update_attstats`, `analyze.c`).
unsafe fn store(table: Oid, column: &Column) {
    // SAFETY: the column is live and computed; the catalog is opened with the lock that writing it needs.
    unsafe {
        let stats = &*column.stats;
        if !stats.stats_valid {
            return;
        }
        const WIDTH: usize = pg_sys::Natts_pg_statistic as usize;
        let mut values = [Datum::from(0); WIDTH];
        let mut nulls = [false; WIDTH];
        let mut replaces = [true; WIDTH];
        let place = |number: u32| number as usize - 1;
        let number = column.number;
        values[place(pg_sys::Anum_pg_statistic_starelid)] = Datum::from(table);
        values[place(pg_sys::Anum_pg_statistic_staattnum)] = Datum::from(number);
        values[place(pg_sys::Anum_pg_statistic_stainherit)] = Datum::from(false);
        values[place(pg_sys::Anum_pg_statistic_stanullfrac)] = float4(stats.stanullfrac);
        values[place(pg_sys::Anum_pg_statistic_stawidth)] = Datum::from(stats.stawidth);
        values[place(pg_sys::Anum_pg_statistic_stadistinct)] = float4(stats.stadistinct);
        for slot in 0..stats.stakind.len() {
            values[place(pg_sys::Anum_pg_statistic_stakind1) + slot] =
                Datum::from(stats.stakind[slot]);
            values[place(pg_sys::Anum_pg_statistic_staop1) + slot] = Datum::from(stats.staop[slot]);
            values[place(pg_sys::Anum_pg_statistic_stacoll1) + slot] =
                Datum::from(stats.stacoll[slot]);
            let numbers = place(pg_sys::Anum_pg_statistic_stanumbers1) + slot;
            nulls[numbers] = stats.numnumbers[slot] == 0;
            if !nulls[numbers] {
                let mut datums: Vec<Datum> = (0..stats.numnumbers[slot] as usize)
                    .map(|at| float4(*stats.stanumbers[slot].add(at)))
                    .collect();
                let array = pg_sys::construct_array(
                    datums.as_mut_ptr(),
                    stats.numnumbers[slot],
                    pg_sys::FLOAT4OID,
                    size_of::<f32>() as c_int,
                    true,
                    pg_sys::TYPALIGN_INT as std::ffi::c_char,
                );
                values[numbers] = Datum::from(array.expose_provenance());
            }
            let listed = place(pg_sys::Anum_pg_statistic_stavalues1) + slot;
            nulls[listed] = stats.numvalues[slot] == 0;
            if !nulls[listed] {
                let array = pg_sys::construct_array(
                    stats.stavalues[slot],
                    stats.numvalues[slot],
                    stats.statypid[slot],
                    c_int::from(stats.statyplen[slot]),
                    stats.statypbyval[slot],
                    stats.statypalign[slot],
                );
                values[listed] = Datum::from(array.expose_provenance());
            }
        }
        let lock = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
        let catalog = pg_sys::table_open(pg_sys::StatisticRelationId, lock);
        let known = pg_sys::SearchSysCache3(
            pg_sys::SysCacheIdentifier::STATRELATTINH as c_int,
            Datum::from(table),
            Datum::from(number),
            Datum::from(false),
        );
        if known.is_null() {
            let tuple =
                pg_sys::heap_form_tuple((*catalog).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::CatalogTupleInsert(catalog, tuple);
        } else {
            let tuple = pg_sys::heap_modify_tuple(
                known,
                (*catalog).rd_att,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                replaces.as_mut_ptr(),
            );
            pg_sys::ReleaseSysCache(known);
            pg_sys::CatalogTupleUpdate(catalog, &raw mut (*tuple).t_self, tuple);
        }
        pg_sys::table_close(catalog, lock);
    }
}
