//! Distributed tables in PostgreSQL's own planner: every base relation that is one offers a single path, a
//! scan of its shards with the needed columns and the filters that may run there. `join.rs` and `upper.rs` offer
//! paths that do more on the workers; PostgreSQL does the rest, and chooses by cost.
//!
//! This is also the net under everything: whatever query reaches PostgreSQL's planner, a distributed table in
//! it is never read from the empty local table.

use crate::extension::extension;
use crate::path::claim::{self};
use crate::path::modify::{CLAIM_MARK, TARGET_MARK};
use crate::path::pushed::{self, Pushed};
use crate::path::remote::{self, Condition, Filter, HashedBy, Item, Remote};
use crate::path::sorted;
use crate::path::subselect;
use crate::print::foldable::is_foldable;
use crate::read::shippable;
use crate::read::tid;
use crate::sys::boundary::boundary;
use crate::sys::custom::Table;
use crate::sys::error::PgError;
use crate::sys::node;
use crate::sys::previous::previous;
use crate::sys::value::FIRST_USER_OID;
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use planner::cost;
use planner::locus::Locus;
use std::rc::Rc;

static PATH_METHODS: Table<pg_sys::CustomPathMethods> = Table::new(pg_sys::CustomPathMethods {
    CustomName: c"pg_shard".as_ptr(),
    PlanCustomPath: Some(plan_path),
    ReparameterizeCustomPathByChild: None,
});

/// `get_relation_info_hook`: the empty local table's size, indexes and their uniqueness say nothing of the shards.
///
/// # Safety
///
/// Called by the planner with its own structures.
pub(crate) unsafe extern "C-unwind" fn relation_info(
    _root: *mut pg_sys::PlannerInfo,
    table: Oid,
    inhparent: bool,
    rel: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        boundary(|| {
            if let Some(rows) = extension().estimated_rows(table)
                && !inhparent
            {
                (*rel).indexlist = std::ptr::null_mut();
                (*rel).tuples = rows;
                let pages = extension().estimated_pages(table).unwrap_or(rows / 50.0);
                (*rel).pages = pages.ceil().max(1.0) as u32;
                (*rel).allvisfrac = 0.0;
            }
            Ok(())
        });
        if let Some(previous) = previous().and_then(|it| it.relation_info) {
            previous(_root, table, inhparent, rel);
        }
    }
}

/// `set_rel_pathlist_hook`.
///
/// # Safety
///
/// Called by the planner with its own structures.
pub(crate) unsafe extern "C-unwind" fn relation_paths(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    rti: pg_sys::Index,
    rte: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        if let Some(previous) = previous().and_then(|it| it.relation_paths) {
            previous(root, rel, rti, rte);
        }
        boundary(|| {
            if (*rte).rtekind == pg_sys::RTEKind::RTE_SUBQUERY && !is_dummy(rel) {
                return sub_query(root, rel, rti);
            }
            if (*rte).rtekind != pg_sys::RTEKind::RTE_RELATION
                || (*rte).inh
                    && (*rel).reloptkind == pg_sys::RelOptKind::RELOPT_BASEREL
                    && (*rte).relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE
                || extension().distribution((*rte).relid).is_none()
                || is_dummy(rel)
            {
                return Ok(());
            }
            (*rel).pathlist = std::ptr::null_mut();
            (*rel).partial_pathlist = std::ptr::null_mut();
            (*rel).consider_parallel = false;
            let mut remote = base(root, rel, rti, rte)?;
            let custom = make_path(rel, (*rel).reltarget, (*rel).rows, &remote);
            remote.cost = (*custom).path.total_cost;
            let remote = Rc::new(remote);
            if let Some(claiming) = claim::path(root, rel, rti, &remote) {
                pg_sys::add_path(rel, claiming.cast());
                return Ok(());
            }
            remote::note(rel, Rc::clone(&remote));
            let path = &mut (*custom).path;
            // Its target list or filters may hold columns of what LATERAL refers to (`set_plain_rel_pathlist`).
            path.param_info = pg_sys::get_baserel_parampathinfo(root, rel, (*rel).lateral_relids);
            if !path.param_info.is_null() {
                path.rows = (*path.param_info).ppi_rows;
            }
            pushed::attach(custom, Pushed::all(remote));
            let sorted = sorted::beside(root, rel, custom);
            pg_sys::add_path(rel, custom.cast());
            sorted.into_iter().for_each(|path| pg_sys::add_path(rel, path));
            Ok(())
        });
    }
}

/// One more path of a sub-query in FROM, if the workers can compute it.
unsafe fn sub_query(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    relation: u32,
) -> Result<(), PgError> {
    // SAFETY: the planner's live structures.
    unsafe {
        if let Some(mut remote) = subselect::of(root, rel, relation) {
            let path = make_path(rel, (*rel).reltarget, (*rel).rows, &remote);
            remote.cost = (*path).path.total_cost;
            let remote = Rc::new(remote);
            remote::note(rel, Rc::clone(&remote));
            pushed::attach(path, Pushed::all(remote));
            let sorted = sorted::beside(root, rel, path);
            pg_sys::add_path(rel, path.cast());
            sorted.into_iter().for_each(|path| pg_sys::add_path(rel, path));
        }
        Ok(())
    }
}

/// The filters of a base relation, which is read with the rights of `user`: those that the workers apply, all of them, and whether these are the same.
pub(crate) unsafe fn conditions_of(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    relation: u32,
    user: Oid,
) -> (Vec<Condition>, Vec<*mut pg_sys::Node>, bool) {
    // SAFETY: the planner's live structures.
    unsafe {
        let init_params = init_params(root);
        let own = |var: &pg_sys::Var| var.varno as u32 == relation;
        let (mut conditions, mut clauses) = (Vec::new(), Vec::new());
        let mut complete = (*root).qual_security_level == 0 && (*rel).lateral_relids.is_null();
        for info in node::elements::<pg_sys::RestrictInfo>((*rel).baserestrictinfo) {
            if (*info).pseudoconstant {
                complete = false;
                continue;
            }
            let clause = (*info).clause.cast::<pg_sys::Node>();
            clauses.push(clause);
            // A filter behind a security barrier must not see rows that the barrier hides, unless it cannot tell.
            let allowed =
                (*info).security_level <= (*rel).baserestrict_min_security || (*info).leakproof;
            let can = |part| shippable::is_shippable(part, &own, &init_params, false, user);
            if allowed && (can(clause) || tid::comparison(clause, &own, &can).is_some()) {
                conditions.push(Condition::Clause(clause));
            } else {
                complete = false;
            }
        }
        (conditions, clauses, complete)
    }
}

/// The table's own relation as the workers can compute it.
unsafe fn base(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    rti: pg_sys::Index,
    rte: *mut pg_sys::RangeTblEntry,
) -> Result<Remote, PgError> {
    // SAFETY: the planner's live structures.
    unsafe {
        let table = (*rte).relid;
        let planner = extension();
        let key = planner.distribution(table).ok_or_else(|| {
            PgError::internal("a table ceased to be distributed while a query was planned")
        })?;
        if !(*rte).tablesample.is_null() {
            check_sample(root, (*rte).tablesample)?;
        }
        let user = version::checked_as((*root).parse, rte);
        let (conditions, clauses, all_shipped) = conditions_of(root, rel, rti, user);
        let locks = lock_clause(rte).is_some();
        let is_sharded = planner.shard_count(table) != 1;
        let locus = if is_sharded { Locus::by((rti, key.column)) } else { Locus::Everywhere };
        let filters = vec![Filter { relation: rti, key, is_sharded, clauses }];
        let work = cost::reading((*rel).tuples, conditions.len());
        Ok(Remote {
            root,
            items: vec![Item::Table(rti)],
            conditions,
            locus,
            hash: HashedBy { family: key.family, collation: key.collation },
            filters,
            tables: vec![table],
            user,
            stand_ins: Vec::new(),
            work,
            before: 0.0,
            cost: 0.0,
            complete: all_shipped && !locks,
            locks_all: all_shipped && locks,
        })
    }
}

/// A path that has the workers compute `remote`, with `rows` coming back.
pub(crate) unsafe fn make_path(
    rel: *mut pg_sys::RelOptInfo,
    target: *mut pg_sys::PathTarget,
    rows: f64,
    remote: &Remote,
) -> *mut pg_sys::CustomPath {
    // SAFETY: live structures of the planner; the node is made with the struct of its tag.
    unsafe {
        let custom: *mut pg_sys::CustomPath = node::make(NodeTag::T_CustomPath);
        let path = &mut (*custom).path;
        path.pathtype = NodeTag::T_CustomScan;
        path.parent = rel;
        path.pathtarget = target;
        path.rows = rows.max(1.0);
        let cost = cost::scan(remote.spent(), remote.extent(), path.rows);
        (path.startup_cost, path.total_cost) = (cost.startup, cost.total);
        for rows in remote.broadcasts() {
            (*custom).custom_paths = pg_sys::lappend((*custom).custom_paths, rows.path.cast());
        }
        for rows in remote.moves() {
            (*custom).custom_paths = pg_sys::lappend((*custom).custom_paths, rows.path.cast());
        }
        (*custom).flags = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
        (*custom).methods = methods();
        custom
    }
}

/// The functions of our paths, by which they are known.
pub(crate) fn methods() -> *const pg_sys::CustomPathMethods {
    PATH_METHODS.pointer()
}

/// The workers apply this filter.
pub(crate) unsafe fn is_shipped(remote: &Remote, info: *mut pg_sys::RestrictInfo) -> bool {
    // SAFETY: a live filter of the planner.
    let clause = unsafe { (*info).clause.cast::<pg_sys::Node>() };
    remote.conditions.iter().any(|known| matches!(known, Condition::Clause(own) if *own == clause))
}

/// An entry of the root's range table.
pub(crate) unsafe fn entry_of(
    root: *mut pg_sys::PlannerInfo,
    relation: u32,
) -> *mut pg_sys::RangeTblEntry {
    // SAFETY: the caller passes a live root and a number of its range table.
    unsafe { node::nth((*(*root).parse).rtable, relation as usize - 1) }
}

/// FOR UPDATE or alike, if the relation's rows are to be locked. See `Statement::with_locks_on_workers`.
pub(crate) unsafe fn lock_clause(entry: *mut pg_sys::RangeTblEntry) -> Option<String> {
    // SAFETY: a live entry for a table.
    let mark = unsafe { node::text_of((*entry).enrname) };
    let lock = mark.trim_start_matches([TARGET_MARK, CLAIM_MARK]);
    (!lock.is_empty()).then(|| lock.to_owned())
}

/// The relation's rows are going to be changed; see [`crate::path::modify`].
pub(crate) unsafe fn is_target(entry: *mut pg_sys::RangeTblEntry) -> bool {
    // SAFETY: a live entry for a table.
    unsafe { node::text_of((*entry).enrname) }.starts_with(TARGET_MARK)
}

/// The same in a statement that locks with SKIP LOCKED.
pub(crate) unsafe fn is_claimed(entry: *mut pg_sys::RangeTblEntry) -> bool {
    // SAFETY: a live entry for a table.
    let mark = unsafe { node::text_of((*entry).enrname) };
    mark.strip_prefix(TARGET_MARK).is_some_and(|mark| mark.starts_with(CLAIM_MARK))
}

/// The planner has proved that the relation yields nothing.
unsafe fn is_dummy(rel: *mut pg_sys::RelOptInfo) -> bool {
    // SAFETY: a live relation of the planner.
    unsafe {
        if (*rel).pathlist.is_null() {
            return false;
        }
        let path: *mut pg_sys::Path = node::nth((*rel).pathlist, 0);
        node::tag(path) == NodeTag::T_AppendPath
            && (*path.cast::<pg_sys::AppendPath>()).subpaths.is_null()
    }
}

unsafe extern "C-unwind" fn plan_path(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    path: *mut pg_sys::CustomPath,
    target_list: *mut pg_sys::List,
    clauses: *mut pg_sys::List,
    plans: *mut pg_sys::List,
) -> *mut pg_sys::Plan {
    // SAFETY: the planner's live structures.
    unsafe { boundary(|| pushed::plan(root, rel, path, target_list, clauses, plans)) }
}

/// The workers can take this TABLESAMPLE: by a method of the server, with arguments that are known before the scan starts.
unsafe fn check_sample(
    root: *mut pg_sys::PlannerInfo,
    sample: *mut pg_sys::TableSampleClause,
) -> Result<(), PgError> {
    // SAFETY: a live clause of the planner; syscache look-ups by value.
    unsafe {
        if (*sample).tsmhandler.to_u32() >= FIRST_USER_OID {
            let method = node::text_of(pg_sys::get_func_name((*sample).tsmhandler));
            return Err(PgError::unsupported(
                format!("cannot take a sample of a distributed table by method \"{method}\""),
                "Use BERNOULLI or SYSTEM, which choose each row or block by itself.",
            ));
        }
        let init_params = init_params(root);
        let is_known = |argument: &*mut pg_sys::Node| {
            is_foldable(*argument, true, &init_params)
                || shippable::is_shippable(*argument, &|_| false, &init_params, false, Oid::INVALID)
        };
        if sample_arguments(sample).iter().all(is_known) {
            return Ok(());
        }
        Err(PgError::unsupported(
            "cannot take a sample of a distributed table that differs from row to row of another",
            "Leave columns of other tables out of the arguments of TABLESAMPLE.",
        ))
    }
}

/// The arguments of TABLESAMPLE, that of REPEATABLE last if it is there.
pub(crate) unsafe fn sample_arguments(
    sample: *mut pg_sys::TableSampleClause,
) -> Vec<*mut pg_sys::Node> {
    // SAFETY: a live clause of the planner.
    unsafe {
        let mut arguments = node::elements::<pg_sys::Node>((*sample).args);
        if !(*sample).repeatable.is_null() {
            arguments.push((*sample).repeatable.cast());
        }
        arguments
    }
}

/// Parameters that uncorrelated sub-queries of this query level set: known before the scan starts.
pub(crate) unsafe fn init_params(root: *mut pg_sys::PlannerInfo) -> Vec<i32> {
    // SAFETY: the planner's live structures; setParam is a list of integers.
    unsafe {
        node::elements::<pg_sys::SubPlan>((*root).init_plans)
            .into_iter()
            .flat_map(|plan| {
                let list = (*plan).setParam;
                (0..node::length(list)).map(move |index| (*(*list).elements.add(index)).int_value)
            })
            .collect()
    }
}

/// The quoted name of a table's column.
pub(crate) fn column_name(table: Oid, column: i16) -> String {
    // SAFETY: syscache look-ups by value; system columns have fixed names.
    unsafe {
        let name = if column < 0 {
            (*pg_sys::SystemAttributeDefinition(column)).attname.data.as_ptr()
        } else {
            pg_sys::get_attname(table, column, false).cast_const()
        };
        node::text_of(pg_sys::quote_identifier(name))
    }
}

/// The live columns of a table with their types and typmods.
pub fn live_columns(table: Oid) -> Vec<(i16, Oid, i32)> {
    // SAFETY: the table is locked by whoever plans or runs a statement over it.
    unsafe {
        let relation = pg_sys::relation_open(table, pg_sys::NoLock as i32);
        let descriptor = (*relation).rd_att;
        let columns = (0..(*descriptor).natts as usize)
            .map(|index| version::attribute(descriptor, index))
            .filter(|attribute| !(**attribute).attisdropped)
            .map(|attribute| ((*attribute).attnum, (*attribute).atttypid, (*attribute).atttypmod))
            .collect();
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        columns
    }
}
