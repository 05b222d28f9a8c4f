//! FOR UPDATE with LIMIT over several shards, or with a filter that only this server can compute: no rows are locked but those
//! that are wanted.
//!
//! PostgreSQL locks below LIMIT and above filters, row by row. A scan that locks all rows that match would leave nothing to
//! whoever asks next with SKIP LOCKED, and rows would be locked, and waited for, before a filter has seen them. So the rows that
//! may be meant, the candidates, are read first, in the order that the query asks for and without
//! being locked, by child plans that yield their `ctid`s and `xmin`s alone and apply all filters. The scan then has the nodes lock
//! as many of them as are still
//! wanted, by `ctid` and by the query's filters, until it has enough; those that others hold, or have changed, yield nothing, and
//! the next ones are tried. If there is a LIMIT and the nodes apply all filters, the first child reads a few candidates of each
//! node, the second, which is needed if these are not enough, all of them. Otherwise there is but one, which reads all.
//!
//! A node that has waited for a row locks what the row has become. As PostgreSQL looks at such a row again (EvalPlanQual), so
//! does the scan with the filters of this server; rows that have stayed the same, by `ctid` and `xmin`, are not looked at twice.
//!
//! With SKIP LOCKED a node can skip what others hold by itself ([`FirstFree`]), which costs one round trip however many rows are held.
//!
//! The `ctid`s of a table with one placement a shard only are the same for everybody. On others only what a node can do by itself is
//! done so.

use crate::exec::row_changes;
use crate::exec::scan;
use crate::exec::scan_io::ScanIo;
use crate::extension::extension;
use crate::path::base;
use crate::path::lock_join;
use crate::path::printer::Printer;
use crate::path::pushed::{self, Order, Pushed, Yield};
use crate::path::remote::{Remote, columns_in};
use crate::path::sorted;
use crate::read::tid;
use crate::sys::error::PgError;
use crate::sys::node;
use crate::sys::plan::{Claim, FirstFree, Pieces, SHARD_INDEX, SortKey};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag};
use shardmap::tid::Tid;
use std::rc::Rc;

/// What stands in the SQL of a shard for the `ctid`s, behind all else that could look like it.
pub const CLAIMED: &str = "'{claimed rows}'";

/// How many candidates the first child reads of a node, beside twice the limit.
const MORE: i64 = 100;

/// The same if the limit is not known yet.
const SOME: i64 = 1000;

/// What the path of such a scan knows.
#[derive(Clone, Debug)]
pub(crate) struct Claiming {
    /// See [`Claim`].
    pub(crate) candidates: i64,
    /// ORDER BY.
    pub(crate) order: Vec<Order>,
    /// See [`Claim`].
    pub(crate) by_place: bool,
}

/// Nodes skip what is held. They cannot where this server has filters of its own.
pub(crate) fn skips(remote: &Remote) -> bool {
    remote.locks_all && lock_join::lock_of(remote).is_some_and(|lock| lock.ends_with("SKIP LOCKED"))
}

/// A version of a row: its `ctid` and its `xmin`.
pub type Version = (Tid, u32);

/// The only path of a relation whose rows are locked below LIMIT or above filters of this server; none if the query is another, or
/// has an order that nodes cannot sort by.
///
/// # Safety
///
/// The planner's live structures; `remote` is the relation's.
pub(crate) unsafe fn path(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    relation: u32,
    remote: &Rc<Remote>,
) -> Option<*mut pg_sys::CustomPath> {
    // SAFETY: the caller vouches for the planner's structures; nodes are made with the functions for them.
    unsafe {
        let entry = base::entry_of(root, relation);
        let filters = local_filters(rel, remote);
        let is_limited = is_limited(root, rel);
        if base::lock_clause(entry).is_none()
            || base::is_target(entry)
            || !(is_limited && remote.locks_all || !filters.is_empty())
            || !(*rel).lateral_relids.is_null()
        {
            return None;
        }
        let keys = (*root).query_pathkeys;
        // The places of rows differ between placements.
        let by_place = !extension().hides_places((*entry).relid);
        if !by_place && !(skips(remote) && (keys.is_null() || (*root).limit_tuples == 1.0)) {
            return None;
        }
        let mut unlocked = (**remote).clone();
        (unlocked.complete, unlocked.locks_all) = (filters.is_empty(), false);
        let unlocked = Rc::new(unlocked);
        let below = Pushed { is_candidates: true, ..Pushed::all(Rc::clone(&unlocked)) };
        let order = if keys.is_null() || !is_limited {
            Vec::new()
        } else {
            sorted::order_by(rel, &below, keys)?
        };
        let most = if (*root).limit_tuples > 0.0 {
            ((*root).limit_tuples as i64).saturating_mul(2).saturating_add(MORE)
        } else {
            SOME
        };
        let version = version_of(relation);
        let target = pg_sys::create_empty_pathtarget();
        for column in version {
            pg_sys::add_column_to_pathtarget(target, column.cast(), 0);
        }
        let target = pg_sys::set_pathtarget_cost_width(root, target);
        let mut outputs: Vec<*mut pg_sys::Node> = version.map(|column| column.cast()).to_vec();
        for column in columns_in(remote, &filters) {
            if !outputs.iter().any(|known| pg_sys::equal((*known).cast(), column.cast())) {
                outputs.push(column);
            }
        }
        let outputs: Vec<Yield> =
            outputs.into_iter().map(|expression| Yield { expression, partial: None }).collect();
        let claiming = base::make_path(rel, (*rel).reltarget, (*rel).rows, remote);
        let limits = if filters.is_empty() { vec![Some(most), None] } else { vec![None] };
        for limit in limits.into_iter().filter(|_| by_place) {
            let child = base::make_path(rel, target, (*rel).rows, &unlocked);
            let (outputs, order) = (Some(outputs.clone()), order.clone());
            pushed::attach(child, Pushed { outputs, order, limit, ..below.clone() });
            (*claiming).custom_paths = pg_sys::lappend((*claiming).custom_paths, child.cast());
        }
        let claims = Some(Claiming { candidates: most, order, by_place });
        pushed::attach(claiming, Pushed { claims, ..Pushed::all(Rc::clone(remote)) });
        Some(claiming)
    }
}

/// `ctid` and `xmin`.
///
/// # Safety
///
/// Called while a query is planned.
pub(crate) unsafe fn version_of(relation: u32) -> [*mut pg_sys::Var; 2] {
    let column = |number: i32, type_oid| {
        // SAFETY: makes a node in the planner's memory.
        unsafe {
            let none = pg_sys::Oid::INVALID;
            pg_sys::makeVar(relation as i32, number as i16, type_oid, -1, none, 0)
        }
    };
    [
        column(pg_sys::SelfItemPointerAttributeNumber, pg_sys::TIDOID),
        column(pg_sys::MinTransactionIdAttributeNumber, pg_sys::XIDOID),
    ]
}

/// The filters of the relation that no node applies.
unsafe fn local_filters(rel: *mut pg_sys::RelOptInfo, remote: &Remote) -> Vec<*mut pg_sys::Node> {
    // SAFETY: the planner's live structures.
    unsafe {
        node::elements::<pg_sys::RestrictInfo>((*rel).baserestrictinfo)
            .into_iter()
            .filter(|info| !(**info).pseudoconstant && !base::is_shipped(remote, *info))
            .map(|info| (*info).clause.cast())
            .collect()
    }
}

/// The query is a SELECT with LIMIT of this relation alone, each row of which is one of its own.
///
/// # Safety
///
/// The planner's live structures.
pub(crate) unsafe fn is_limited(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
) -> bool {
    // SAFETY: the planner's live structures.
    unsafe {
        let parse = &*(*root).parse;
        let is_all = |limit: *mut pg_sys::Node| {
            let constant = node::cast::<pg_sys::Const, _>(limit, NodeTag::T_Const);
            constant.is_some_and(|constant| (*constant).constisnull)
        };
        parse.commandType == pg_sys::CmdType::CMD_SELECT
            && !parse.limitCount.is_null()
            && !is_all(parse.limitCount)
            && parse.limitOption == pg_sys::LimitOption::LIMIT_OPTION_COUNT
            && parse.rowMarks.is_null()
            && (*root).rowMarks.is_null()
            && parse.groupClause.is_null()
            && parse.groupingSets.is_null()
            && parse.distinctClause.is_null()
            && parse.havingQual.is_null()
            && parse.setOperations.is_null()
            && !parse.hasAggs
            && !parse.hasWindowFuncs
            && !parse.hasTargetSRFs
            && (*rel).lateral_relids.is_null()
            && version::relations_of(root, (*root).all_baserels).len() == 1
    }
}

/// The condition by which a shard's SQL finds the rows that are claimed.
///
/// # Safety
///
/// The planner's live structures.
pub(crate) unsafe fn condition(root: *mut pg_sys::PlannerInfo, relation: u32) -> String {
    // SAFETY: the caller vouches for the root.
    let table = unsafe { (*base::entry_of(root, relation)).relid };
    let values = format!("{CLAIMED}::pg_catalog.tid[]");
    tid::comparison_sql(tid::layout_of(table), "t.ctid", &values, true)
}

/// The statement for the first rows of a node that nobody holds; `locking` prints a shard's part with a further condition.
///
/// The candidates are joined with the part that locks, one by one: for each the executor goes into the one shard that it is of,
/// where it locks the row or finds that it is held, until it has what LIMIT wants.
pub(crate) fn first_free(
    claiming: &Claiming,
    merge: Vec<SortKey>,
    printer: &mut Printer<'_>,
    locking: &mut dyn FnMut(&mut Printer<'_>, Option<String>) -> Pieces,
) -> FirstFree {
    let closing = ") l LIMIT ".to_owned();
    if claiming.order.is_empty() {
        let around = ("SELECT * FROM (".to_owned(), closing);
        let locking = locking(printer, None).0;
        return FirstFree { candidates: Default::default(), locking, around, merge };
    }
    let index = SHARD_INDEX;
    let candidates = [Some(claiming.candidates), None].map(|limit| {
        let limit = limit.map_or_else(String::new, |limit| format!(" LIMIT {limit}"));
        let mut part = Pieces::default();
        // Each shard sorts for itself: PostgreSQL merges no indexes of queries that have filters.
        part.text(&format!("SELECT * FROM (SELECT t.ctid AS c1, '{index}'::pg_catalog.int4 AS c2"));
        let mut order = Vec::new();
        for (place, key) in claiming.order.iter().enumerate() {
            let name = format!("c{}", place + 3);
            part.text(&format!(", {} AS {name}", printer.value(key.expression)));
            order.push(format!("{name}{}", key.direction()));
        }
        printer.put_from_where(&mut part);
        let first = format!(" ORDER BY {}{limit}", order.join(", "));
        part.text(&format!("{first}) b"));
        (part.0, format!(") u{first}) c CROSS JOIN LATERAL ("))
    });
    let is_it = format!("t.ctid = c.c1 AND c.c2 = '{index}'::pg_catalog.int4");
    let locking = locking(printer, Some(is_it)).0;
    let around = ("SELECT l.* FROM (SELECT c1, c2 FROM (".to_owned(), closing);
    FirstFree { candidates, locking, around, merge }
}

impl ScanIo {
    /// How many children find candidates.
    pub fn children(&self) -> usize {
        // SAFETY: the node's state is live.
        unsafe { node::length((*self.node()).custom_ps) }
    }

    /// Has the first child ask for its candidates, if it is a scan of ours.
    pub fn ask_for_candidates(&mut self) -> Result<(), PgError> {
        // SAFETY: the children were initialised by `begin`.
        unsafe {
            let children: Vec<*mut pg_sys::PlanState> = node::elements((*self.node()).custom_ps);
            match children.first().and_then(|child| scan::of_ours(*child)) {
                Some(child) => scan::ask_at_once(child),
                None => Ok(()),
            }
        }
    }

    /// The row that a child yields next; none at its end.
    pub fn candidate(&mut self, child: usize) -> Option<Version> {
        pgrx::check_for_interrupts!();
        // SAFETY: the child was initialised by `begin`; its columns are a tid and an xid, and not NULL.
        unsafe {
            let child: *mut pg_sys::PlanState = node::nth((*self.node()).custom_ps, child);
            let slot = pg_sys::ExecProcNode(child);
            if slot.is_null() || (*slot).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 != 0 {
                return None;
            }
            pg_sys::slot_getallattrs(slot);
            Some(version_in(slot, (0, 1)))
        }
    }

    /// The version of the row in the scan's slot.
    pub fn claimed_version(&self, claim: &Claim) -> Version {
        // SAFETY: the slot is filled; the columns are those that the plan has for this.
        unsafe { version_in(self.slot(), claim.version) }
    }

    /// Takes over the filters that the executor would apply to each row of the scan; see [`Self::passes`].
    pub fn take_filters(&mut self) -> Filters {
        // SAFETY: the node's state is live; without a condition the executor takes all rows.
        unsafe {
            let qual = std::mem::replace(&mut (*self.node()).ss.ps.qual, std::ptr::null_mut());
            Filters(qual)
        }
    }

    /// The row in the scan's slot passes them.
    pub fn passes(&mut self, filters: &Filters) -> bool {
        // SAFETY: the condition was made for this node, whose slot is filled.
        unsafe {
            let context = (*self.node()).ss.ps.ps_ExprContext;
            (*context).ecxt_scantuple = self.slot();
            row_changes::holds(filters.0, context)
        }
    }

    /// Has the children read once more.
    pub fn read_candidates_again(&mut self) {
        // SAFETY: the children were initialised by `begin`.
        unsafe {
            for child in node::elements::<pg_sys::PlanState>((*self.node()).custom_ps) {
                pg_sys::ExecReScan(child);
            }
        }
    }

    /// How many rows the query's LIMIT lets through, those of OFFSET included.
    pub fn claimed_rows(&mut self, claim: &Claim) -> u64 {
        // Both are of type bigint.
        let mut number = |expression: Option<usize>| {
            expression.and_then(|index| self.evaluate(index)).map(|value| value.value() as i64)
        };
        let limit = number(claim.limit).unwrap_or(i64::MAX).max(0);
        let offset = number(claim.offset).unwrap_or(0).max(0);
        limit.saturating_add(offset).unsigned_abs()
    }
}

/// Filters of this server for rows that are locked on nodes.
pub struct Filters(*mut pg_sys::ExprState);

/// # Safety
///
/// A filled slot, and the places of a tid and an xid in it that are not NULL.
unsafe fn version_in(slot: *mut pg_sys::TupleTableSlot, (ctid, xmin): (usize, usize)) -> Version {
    // SAFETY: the caller vouches for the slot.
    unsafe {
        let values = (*slot).tts_values;
        let tid = (*values.add(ctid)).cast_mut_ptr::<pg_sys::ItemPointerData>();
        (tid::read(*tid), (*values.add(xmin)).value() as u32)
    }
}
