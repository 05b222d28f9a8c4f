//! Joins of two large sides off the distribution column: the rows of one move, from worker to worker, to where those of
//! the other lie that they can match; or both move, to where the shards of some table lie.
//!
//! A side that moves is a relation that the workers can compute, and is computed by a scan of its own, a child of the scan
//! of the join: each node splits its rows by the hash of the join's column and keeps them (`parts.rs`). In the SQL of the
//! join they are the rows of a function, one part beside each shard, and spread by that column as a table's are. So
//! all kinds of joins can be made of them, and whatever can be made above a join: the rules of `planner::locus` hold.
//! A row without a value to hash matches nothing; where the join keeps it all the same, it may lie in any part.

use crate::catalog::table;
use crate::extension::extension;
use crate::path::base::{self};
use crate::path::join::{self, is_asked_after};
use crate::path::pushed::{self, Pushed, Yield};
use crate::path::remote::{HashedBy, Item, Remote};
use crate::read::facts::{is_deterministic, strip_relabel};
use crate::sys::node;
use crate::sys::plan::{SHARD_INDEX, Split, Spread};
use crate::sys::value::{FIRST_USER_OID, Hasher, is_binary_safe, type_name};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use planner::cost;
use planner::locus::{JoinKind, Key, Locus};
use std::rc::Rc;

/// A function has a hundred arguments at most.
const MOST_COLUMNS: usize = 90;

/// Rows that move.
#[derive(Debug)]
pub(crate) struct Moved {
    /// How they are split.
    pub(crate) path: *mut pg_sys::CustomPath,
    /// The relations that they are of.
    pub(crate) relations: Vec<u32>,
    /// Their columns.
    pub(crate) columns: Vec<*mut pg_sys::Var>,
    /// How many rows there may be beside each shard.
    pub(crate) expected: f64,
}

impl Moved {
    /// `pgs_catalog.rows_of(...) AS alias(...)`; its text is that parameter.
    pub(crate) fn sql(&self, parameter: usize, alias: &str) -> String {
        let columns = self.columns.iter().enumerate().map(|(number, var)| {
            // SAFETY: a live column of the planner; the name is copied.
            unsafe {
                let name = node::c_text(&type_name((**var).vartype));
                let name = node::text_of(pg_sys::quote_identifier(name));
                let collation = if (**var).varcollid == pg_sys::get_typcollation((**var).vartype) {
                    ""
                } else {
                    " COLLATE \"C\""
                };
                format!("c{} {name}{collation}", number + 1)
            }
        });
        let columns: Vec<String> = columns.collect();
        let part = SHARD_INDEX;
        format!(
            "pgs_catalog.rows_of(${parameter}, {part}, {:.0}) AS {alias}({})",
            self.expected,
            columns.join(", ")
        )
    }
}

/// One side of a join.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    pub(crate) rel: *mut pg_sys::RelOptInfo,
    pub(crate) remote: &'a Remote,
}

/// Pairs of sides that can be joined where they are once one or both have moved.
///
/// # Safety
///
/// The planner's live structures.
pub(crate) unsafe fn ways(
    root: *mut pg_sys::PlannerInfo,
    joined: *mut pg_sys::RelOptInfo,
    kind: JoinKind,
    (left, right): (Side<'_>, Side<'_>),
    clauses: *mut pg_sys::List,
) -> Vec<(Remote, Remote)> {
    let mut ways = Vec::new();
    // SAFETY: the caller's.
    unsafe {
        if left.remote.user != right.remote.user
            || !left.remote.complete
            || !right.remote.complete
            || !cost::can_repartition((*left.rel).rows, (*right.rel).rows)
        {
            return ways;
        }
        let on: Vec<*mut pg_sys::Node> = node::elements::<pg_sys::RestrictInfo>(clauses)
            .into_iter()
            .filter(|info| !is_asked_after(*info, kind, joined))
            .map(|info| (*info).clause.cast())
            .collect();
        let (Some(of_left), Some(of_right)) = (columns_of(left), columns_of(right)) else {
            return ways;
        };
        let mut tables = left.remote.tables.clone();
        tables.extend_from_slice(&right.remote.tables);
        // Rows that are kept although they match nothing, of either side.
        let keeps_left = matches!(kind, JoinKind::Left | JoinKind::Full | JoinKind::Anti);
        let keeps_right = kind == JoinKind::Full;
        let is_sharded = |side: Side<'_>| matches!(side.remote.locus, Locus::Sharded(_));
        let by_left = on.iter().find_map(|clause| join::spread_by(*clause, &of_right, left.remote));
        let by_right =
            on.iter().find_map(|clause| join::spread_by(*clause, &of_left, right.remote));
        let mut asked = None;
        let mut can_repartition =
            || *asked.get_or_insert_with(|| extension().can_repartition(&tables));
        if let Some(by) = by_left
            && is_sharded(left)
            && is_portable(by)
            && can_repartition()
        {
            let moved = moved(root, right, &of_right, by, keeps_right, left.remote.tables.clone());
            ways.push((left.remote.clone(), moved));
        }
        if let Some(by) = by_right
            && is_sharded(right)
            && is_portable(by)
            && can_repartition()
        {
            let moved = moved(root, left, &of_left, by, keeps_left, right.remote.tables.clone());
            ways.push((moved, right.remote.clone()));
        }
        let anchor = tables.iter().copied().find(|table| extension().shard_count(*table) > 1);
        if let Some(anchor) = anchor
            && let Some((by_left, by_right)) =
                on.iter().find_map(|clause| equality(*clause, &of_left, &of_right))
            && can_repartition()
        {
            let left = moved(root, left, &of_left, by_left, keeps_left, vec![anchor]);
            let right = moved(root, right, &of_right, by_right, keeps_right, vec![anchor]);
            ways.push((left, right));
        }
    }
    ways
}

/// The side as rows that have moved, beside the shards of `tables`.
unsafe fn moved(
    root: *mut pg_sys::PlannerInfo,
    side: Side<'_>,
    columns: &[*mut pg_sys::Var],
    by: Spread,
    keeps_nulls: bool,
    tables: Vec<Oid>,
) -> Remote {
    // SAFETY: the planner's live structures; the caller has looked at the columns.
    unsafe {
        let remote = side.remote;
        let rows = (*side.rel).rows.max(1.0);
        let relations = version::relations_of(remote.root, (*side.rel).relids);
        let mut splitting = remote.clone();
        splitting.work += cost::repartitioning(rows, columns.len());
        // Its rows do not come here.
        let path = base::make_path(side.rel, (*side.rel).reltarget, 1.0, &splitting);
        (*path).path.rows = rows;
        (*path).path.startup_cost = (*path).path.total_cost;
        let key = columns[by.column];
        let column = ((*key).varno as u32, (*key).varattno);
        let split = Split { by, keeps_nulls, text: describe(root, &relations, key) };
        let outputs = columns.iter().map(|var| Yield { expression: var.cast(), partial: None });
        let pushed = Pushed {
            outputs: Some(outputs.collect()),
            split: Some(split),
            ..Pushed::all(Rc::new(remote.clone()))
        };
        pushed::attach(path, pushed);
        let spent = cost::repartitioned(rows, columns.len(), (*path).path.total_cost);
        let shards = extension().shard_count(tables[0]).max(1) as f64;
        let expected = (rows / shards).ceil();
        let columns = columns.to_vec();
        let rows = Rc::new(Moved { path, relations, columns, expected });
        Remote {
            root,
            items: vec![Item::Moved(rows)],
            conditions: Vec::new(),
            locus: Locus::Sharded(vec![Key { column, nullable: keeps_nulls }]),
            hash: HashedBy { family: by.family, collation: by.collation },
            filters: Vec::new(),
            tables,
            user: remote.user,
            stand_ins: Vec::new(),
            work: spent.work,
            before: spent.before,
            cost: 0.0,
            complete: true,
            locks_all: false,
        }
    }
}

/// What EXPLAIN says of it.
unsafe fn describe(
    root: *mut pg_sys::PlannerInfo,
    relations: &[u32],
    key: *mut pg_sys::Var,
) -> String {
    // SAFETY: numbers of the root's range table.
    unsafe {
        let name = |relation: u32| {
            let entry = base::entry_of(root, relation);
            node::text_of((*(*entry).eref).aliasname)
        };
        let names: Vec<String> = relations.iter().map(|relation| name(*relation)).collect();
        let entry = base::entry_of(root, (*key).varno as u32);
        let column = node::text_of(pg_sys::get_rte_attribute_name(entry, (*key).varattno));
        let column = match relations {
            [_] => column,
            _ => format!("{}.{column}", name((*key).varno as u32)),
        };
        format!("rows of {} by {column}, worker to worker", names.join(", "))
    }
}

/// The columns that a side's rows need to have, if all of them can travel.
unsafe fn columns_of(side: Side<'_>) -> Option<Vec<*mut pg_sys::Var>> {
    // SAFETY: a live relation of the planner; syscache look-ups by value.
    unsafe {
        if !(*side.rel).lateral_relids.is_null() {
            return None;
        }
        let mut columns = Vec::new();
        for expression in node::elements::<pg_sys::Node>((*(*side.rel).reltarget).exprs) {
            let var = node::cast::<pg_sys::Var, _>(expression, NodeTag::T_Var)?;
            let collation = (*var).varcollid;
            let has_collation = collation == pg_sys::get_typcollation((*var).vartype)
                || collation == pg_sys::C_COLLATION_OID;
            if (*var).varattno <= 0
                || !is_binary_safe((*var).vartype)
                || !has_collation
                || !side.remote.can_compute(expression, false)
            {
                return None;
            }
            columns.push(var);
        }
        (columns.len() <= MOST_COLUMNS).then_some(columns)
    }
}

/// The hash function is known by the same numbers on every node.
fn is_portable(by: Spread) -> bool {
    by.family.to_u32() < FIRST_USER_OID && by.type_oid.to_u32() < FIRST_USER_OID
}

/// How both sides are hashed so that what the clause takes for equal has the same hash.
unsafe fn equality(
    clause: *mut pg_sys::Node,
    left: &[*mut pg_sys::Var],
    right: &[*mut pg_sys::Var],
) -> Option<(Spread, Spread)> {
    // SAFETY: a live clause of the planner; syscache look-ups by value.
    unsafe {
        let op = node::cast::<pg_sys::OpExpr, _>(clause, NodeTag::T_OpExpr)?;
        if node::length((*op).args) != 2 || !is_deterministic((*op).inputcollid) {
            return None;
        }
        let (mut first_type, mut second_type) = (Oid::INVALID, Oid::INVALID);
        pg_sys::op_input_types((*op).opno, &raw mut first_type, &raw mut second_type);
        let (family, _) = table::hash_family(first_type)?;
        if pg_sys::get_op_opfamily_strategy((*op).opno, family) != 1 {
            return None;
        }
        let column = |index| {
            let side: *mut pg_sys::Node = node::nth((*op).args, index);
            node::cast::<pg_sys::Var, _>(strip_relabel(side), NodeTag::T_Var)
        };
        let spread = |columns: &[*mut pg_sys::Var], var: *mut pg_sys::Var, type_oid| {
            let column = columns.iter().position(|known| {
                (**known).varno == (*var).varno && (**known).varattno == (*var).varattno
            })?;
            let collation = (*op).inputcollid;
            Hasher::find(family, type_oid, collation)?;
            let by = Spread { column, family, type_oid, collation };
            is_portable(by).then_some(by)
        };
        let (first, second) = (column(0)?, column(1)?);
        if let (Some(left), Some(right)) =
            (spread(left, first, first_type), spread(right, second, second_type))
        {
            return Some((left, right));
        }
        Some((spread(left, second, second_type)?, spread(right, first, first_type)?))
    }
}
