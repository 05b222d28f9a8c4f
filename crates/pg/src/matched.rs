//! Joins of rows that are read here with what the workers find for them: semi, anti and left joins whose left side is
//! small, and whose right side is large, on the workers, and does not lie beside it.
//!
//! The left side, by whatever plan, is read once and kept here. What the join's clauses need of its rows goes to the nodes,
//! with the rows' numbers, as `join.rs` sends rows (`Broadcast`). A node answers with the numbers that have a match,
//! or for a left join with each match and its number. NULLs of rows without a match are put in here, so nothing of the
//! join is left to the nodes but to find: an inner join, or EXISTS.
//!
//! `pg_shard`'s `execute/matched.rs` puts rows and answers together.

use crate::error::{PgError, boundary};
use crate::hooks;
use crate::join::{
    MOST_BROADCAST, MOST_BROADCAST_BYTES, MOST_DISTINCT, equal_column, has_placeholder_in,
    is_asked_after, members, spread_by, travels, unique_column,
};
use crate::node::{self, Visit};
use crate::path::{self, ROUND_TRIP, ShardScan, SortKey, TRANSFER};
use crate::pushed::{self, Order, Pushed, Yield};
use crate::remote::{Broadcast, Column, Condition, FEW_SENT, Item, Printer, Remote, columns_in};
use crate::rows::Source;
use crate::scan;
use crate::subselect;
use crate::template::with_portable_output;
use pgrx::pg_sys::{self, NodeTag, Oid};
use shardmap::locus::{JoinKind, Locus};
use std::rc::Rc;

/// What is done with the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rows that have a match.
    Semi,
    /// Rows that have none.
    Anti,
    /// Rows with each match, or with NULLs.
    Left,
}

impl Kind {
    /// As a number in a plan.
    pub fn code(self) -> i32 {
        match self {
            Self::Semi => 0,
            Self::Anti => 1,
            Self::Left => 2,
        }
    }

    /// The reverse of [`Self::code`]; none if there is no such join.
    pub fn from_code(code: i32) -> Option<Self> {
        match code {
            0 => Some(Self::Semi),
            1 => Some(Self::Anti),
            2 => Some(Self::Left),
            _ => None,
        }
    }
}

/// How a scan's rows are made of those that are read here and of what the nodes say of them by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// What is done with the answers.
    pub kind: Kind,
    /// The columns of the first child that are sent.
    pub keys: Vec<usize>,
    /// Where its columns begin in the scan's row: before them stand the number and what comes from the nodes.
    pub first: usize,
    /// Which of its columns stand there.
    pub columns: Vec<usize>,
}

/// The column by which a row's number is known: no table has one of that number.
const NUMBER: i16 = i16::MAX;

/// `<` of int4 (`pg_operator.dat`).
const INT4_LESS: Oid = Oid::from_u32(97);

/// A pair of columns that only a nested loop can compare costs that.
const PAIR: f64 = 0.005;

/// A path's way to what it joins.
struct Join {
    kind: Kind,
    /// What the nodes are asked: `right` for the left side's rows.
    asked: Rc<Remote>,
    right: Remote,
    /// How the left side is read.
    left: *mut pg_sys::Path,
    /// The columns of the left side that are sent, without the number.
    keys: Vec<*mut pg_sys::Var>,
    number: *mut pg_sys::Var,
    /// Columns of what a semi-join only looks for, and the left ones that equal them.
    equal: Vec<(Column, *mut pg_sys::Var)>,
    /// Clauses that are asked of what the join yields.
    after: Vec<*mut pg_sys::Node>,
    /// A node's answers are to be made distinct.
    distinct: bool,
}

struct Shared<T>(T);
// SAFETY: the table is constant and holds a function pointer and a static name only.
unsafe impl<T> Sync for Shared<T> {}

static PATH_METHODS: Shared<pg_sys::CustomPathMethods> = Shared(pg_sys::CustomPathMethods {
    CustomName: c"pg_shard".as_ptr(),
    PlanCustomPath: Some(plan_path),
    ReparameterizeCustomPathByChild: None,
});

/// Offers the join of two relations, of which the workers can compute `right`, as such a path.
///
/// # Safety
///
/// The planner's live structures, as `set_join_pathlist_hook` gets them.
pub(crate) unsafe fn offer(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    (outer, inner): (*mut pg_sys::RelOptInfo, *mut pg_sys::RelOptInfo),
    kind: JoinKind,
    right: &Remote,
    clauses: *mut pg_sys::List,
) {
    // SAFETY: the caller vouches for the planner's structures; nodes are made with the structs of their tags.
    unsafe {
        let Some(join) = join(root, rel, outer, kind, right, clauses) else { return };
        let (left, asked) = ((*join.left).rows.max(1.0), &join.asked);
        let nodes = hooks::planner().node_count(right.tables[0]).max(1) as f64;
        let matches = match join.kind {
            Kind::Semi | Kind::Left => (*rel).rows,
            Kind::Anti => (left - (*rel).rows).max(left * 0.1),
        };
        let custom: *mut pg_sys::CustomPath = node::make(NodeTag::T_CustomPath);
        let path = &mut (*custom).path;
        path.pathtype = NodeTag::T_CustomScan;
        path.parent = rel;
        path.pathtarget = (*rel).reltarget;
        path.rows = (*rel).rows;
        // To look a row up in what has been sent, or in what is there, for each row of either side.
        let has_equality = node::elements::<pg_sys::RestrictInfo>(clauses)
            .into_iter()
            .any(|info| !is_asked_after(info, kind, rel) && (*info).can_join);
        let searched =
            if has_equality { (left + (*inner).rows) * 0.01 } else { left * (*inner).rows * PAIR };
        let (coming, yielding) = (matches * TRANSFER, left * 0.01);
        path.startup_cost = ROUND_TRIP + asked.before + (asked.work + searched) / nodes;
        path.total_cost = path.startup_cost + coming + yielding;
        if join.kind != Kind::Left {
            path.startup_cost += coming;
        }
        let order = (*join.left).pathkeys;
        let by_join = match join.kind {
            Kind::Semi => pg_sys::JoinType::JOIN_SEMI,
            Kind::Anti => pg_sys::JoinType::JOIN_ANTI,
            Kind::Left => pg_sys::JoinType::JOIN_LEFT,
        };
        path.pathkeys = pg_sys::build_join_pathkeys(root, rel, by_join, order);
        for rows in asked.broadcasts() {
            (*custom).custom_paths = pg_sys::lappend((*custom).custom_paths, rows.path.cast());
        }
        (*custom).flags = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
        (*custom).methods = &raw const PATH_METHODS.0;
        // Kept in the planner's memory, and dropped with it; the planner hands custom_private back as it is.
        let kept = pgrx::PgMemoryContexts::CurrentMemoryContext.leak_and_drop_on_delete(join);
        (*custom).custom_private = pg_sys::lappend(std::ptr::null_mut(), kept.cast());
        pg_sys::add_path(rel, custom.cast());
    }
}

/// The join, if it can be made so.
unsafe fn join(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    outer: *mut pg_sys::RelOptInfo,
    kind: JoinKind,
    right: &Remote,
    clauses: *mut pg_sys::List,
) -> Option<Join> {
    let own = match kind {
        JoinKind::Semi => Kind::Semi,
        JoinKind::Anti => Kind::Anti,
        JoinKind::Left => Kind::Left,
        JoinKind::Inner | JoinKind::Full => return None,
    };
    // SAFETY: the planner's live structures; inputs of a join have their cheapest path.
    unsafe {
        let left = (*outer).cheapest_total_path;
        if !right.complete
            || left.is_null()
            || !(*left).param_info.is_null()
            || !(*outer).lateral_relids.is_null()
            || (*left).rows > MOST_BROADCAST
            // What has to be computed of the right side before NULLs are put in.
            || has_placeholder_in(root, right)
        {
            return None;
        }
        let (mut on, mut after, mut infos) = (Vec::new(), Vec::new(), Vec::new());
        for info in node::elements::<pg_sys::RestrictInfo>(clauses) {
            if (*info).pseudoconstant {
                return None;
            }
            let clause = (*info).clause.cast::<pg_sys::Node>();
            if is_asked_after(info, kind, rel) {
                after.push(clause);
            } else {
                on.push(clause);
                infos.push(info);
            }
        }
        let keys = keys(outer, &on)?;
        let target = node::elements::<pg_sys::Node>((*(*left).pathtarget).exprs);
        let yields = |var: *mut pg_sys::Var| target.iter().any(|known| is_column(*known, &*var));
        if !keys.iter().all(|var| travels(&**var) && yields(*var)) {
            return None;
        }
        let covers = |var: &pg_sys::Var| {
            right.has(var)
                || keys
                    .iter()
                    .any(|key| (**key).varno == var.varno && (**key).varattno == var.varattno)
        };
        let init_params = path::init_params(root);
        let can = |clause: &*mut pg_sys::Node| {
            crate::shippable::is_shippable(*clause, &covers, &init_params, false)
        };
        if !on.iter().all(can) {
            return None;
        }

        let relations = members((*outer).relids);
        let first = *relations.first()?;
        let number = pg_sys::makeVar(first as i32, NUMBER, pg_sys::INT4OID, -1, Oid::INVALID, 0);
        let mut columns = keys.clone();
        columns.push(number);
        let spread = infos.iter().find_map(|info| spread_by((**info).clause.cast(), &keys, right));
        let unique = match relations[..] {
            [relation] if spread.is_none() && (*left).rows < MOST_DISTINCT => infos
                .iter()
                .find_map(|info| unique_column(root, relation, (**info).clause.cast(), &keys)),
            _ => None,
        };
        let table = *right.tables.first()?;
        let nodes = hooks::planner().node_count(table).max(1) as f64;
        let shards = hooks::planner().shard_count(table) as f64;
        let width = 1.0 + columns.len() as f64 * 0.5;
        let sent = (*left).rows * if spread.is_some() { 1.0 } else { nodes };
        if (*left).rows * 8.0 * columns.len() as f64 > MOST_BROADCAST_BYTES {
            return None;
        }
        let rows =
            Item::Broadcast(Rc::new(Broadcast { path: left, relations, columns, spread, unique }));
        let mut asked = Remote {
            root,
            items: vec![rows],
            conditions: Vec::new(),
            locus: Locus::Everywhere,
            filters: right.filters.clone(),
            tables: right.tables.clone(),
            user: right.user,
            stand_ins: right.stand_ins.clone(),
            work: right.work + sent * (shards / nodes) * 0.02,
            before: right.before + (*left).total_cost + (*left).rows * 0.01 + sent * width * 0.02,
            cost: 0.0,
            complete: true,
        };
        let equal: Vec<(Column, *mut pg_sys::Var)> = if own == Kind::Semi {
            on.iter().filter_map(|clause| equal_column(*clause, &asked, right)).collect()
        } else {
            Vec::new()
        };
        if own == Kind::Semi {
            // What is only looked for has no columns; but what equals one of the left side can be had from there.
            let above = node::elements::<pg_sys::Node>((*(*rel).reltarget).exprs);
            for column in columns_in(right, &above) {
                let column = &*column.cast::<pg_sys::Var>();
                let (_, left) = equal.iter().find(|(known, _)| is_named(column, *known))?;
                if !yields(*left) {
                    return None;
                }
            }
        }
        let joining = on.iter().map(|clause| Condition::Clause(*clause));
        let few = is_few(root, (*left).rows, right);
        let mut conditions = right.conditions.clone();
        conditions.extend(joining);
        if own != Kind::Left && few {
            let items = right.items.clone();
            asked.conditions.push(Condition::Exists { negated: false, items, conditions });
        } else {
            asked.items.extend_from_slice(&right.items);
            asked.conditions = conditions;
        }
        let (asked, right) = (Rc::new(asked), right.clone());
        let distinct = own != Kind::Left && !few;
        Some(Join { kind: own, asked, right, left, keys, number, equal, after, distinct })
    }
}

/// Few rows may find theirs by an index of each shard, and then stop looking.
unsafe fn is_few(root: *mut pg_sys::PlannerInfo, rows: f64, right: &Remote) -> bool {
    let stored = |item: &Item| match item {
        // SAFETY: a base relation of the root.
        Item::Table(relation) => unsafe { (*pg_sys::find_base_rel(root, *relation as i32)).tuples },
        Item::Join(..) | Item::Broadcast(_) | Item::Subselect(_) => 0.0,
    };
    rows * FEW_SENT < right.items.iter().map(stored).fold(0.0, f64::max)
}

/// The left side's columns in the clauses; none if there is more of it in them than columns.
unsafe fn keys(
    outer: *mut pg_sys::RelOptInfo,
    on: &[*mut pg_sys::Node],
) -> Option<Vec<*mut pg_sys::Var>> {
    let mut keys: Vec<*mut pg_sys::Var> = Vec::new();
    for clause in on {
        // SAFETY: live clauses and a live relation of the planner.
        let has_others = unsafe {
            node::walk(*clause, &mut |n| {
                if node::tag(n) == NodeTag::T_PlaceHolderVar {
                    return Visit::Stop;
                }
                if let Some(var) = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var)
                    && (*var).varlevelsup == 0
                    && pg_sys::bms_is_member((*var).varno, (*outer).relids)
                    && !keys.iter().any(|known| is_column((*known).cast(), &*var))
                {
                    keys.push(var);
                }
                Visit::Into
            })
        };
        if has_others {
            return None;
        }
    }
    Some(keys)
}

/// The expression is that column.
unsafe fn is_column(expression: *mut pg_sys::Node, column: &pg_sys::Var) -> bool {
    // SAFETY: the caller passes a live expression.
    unsafe {
        node::cast::<pg_sys::Var, _>(expression, NodeTag::T_Var).is_some_and(|var| {
            (*var).varno == column.varno
                && (*var).varattno == column.varattno
                && (*var).varlevelsup == column.varlevelsup
        })
    }
}

fn is_named(var: &pg_sys::Var, (relation, column): Column) -> bool {
    var.varno as u32 == relation && var.varattno == column
}

unsafe extern "C-unwind" fn plan_path(
    _root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    path: *mut pg_sys::CustomPath,
    target_list: *mut pg_sys::List,
    _clauses: *mut pg_sys::List,
    plans: *mut pg_sys::List,
) -> *mut pg_sys::Plan {
    // SAFETY: the planner's live structures; only `offer` makes paths with our methods.
    unsafe {
        boundary(|| {
            let join = &*node::nth::<Join>((*path).custom_private, 0);
            plan(join, rel, path, target_list, plans)
        })
    }
}

/// The plan of a path that has won.
///
/// # Safety
///
/// The planner's live structures, as it passes them to `PlanCustomPath`.
unsafe fn plan(
    join: &Join,
    rel: *mut pg_sys::RelOptInfo,
    path: *mut pg_sys::CustomPath,
    target_list: *mut pg_sys::List,
    plans: *mut pg_sys::List,
) -> Result<*mut pg_sys::Plan, PgError> {
    // SAFETY: the caller vouches for the planner's structures; nodes are made with the structs of their tags.
    unsafe {
        let mut wanted = node::elements::<pg_sys::Node>((*(*path).path.pathtarget).exprs);
        wanted.extend(node::elements::<pg_sys::Node>((*(*rel).reltarget).exprs));
        wanted.extend(
            node::elements::<pg_sys::TargetEntry>(target_list)
                .into_iter()
                .map(|entry| (*entry).expr.cast()),
        );
        wanted.extend(&join.after);
        let left = node::elements::<pg_sys::Node>((*(*join.left).pathtarget).exprs);
        let place = |var: *mut pg_sys::Var| {
            let found = left.iter().position(|known| is_column(*known, &*var));
            found.ok_or_else(|| PgError::internal("a join's column is not in its left side"))
        };
        let found = columns_in(&join.right, &wanted);
        let number = join.number.cast::<pg_sys::Node>();
        let as_yield = |expression| Yield { expression, partial: None };
        let mut yields = vec![as_yield(number)];
        if join.kind == Kind::Left {
            yields.extend(found.iter().copied().map(as_yield));
        }

        // The scan's row: the number, which nobody above asks for; the right side's columns; the left side's, and once more
        // those that stand for right ones.
        let unasked = pg_sys::makeConst(
            pg_sys::INT4OID,
            -1,
            Oid::INVALID,
            4,
            pg_sys::Datum::from(0),
            true,
            true,
        );
        let mut row: Vec<*mut pg_sys::Node> = vec![unasked.cast()];
        if join.kind != Kind::Semi {
            row.extend(&found);
        }
        let first = row.len();
        row.extend(&left);
        let mut columns: Vec<usize> = (0..left.len()).collect();
        if join.kind == Kind::Semi {
            for column in found {
                let named = |(known, _): &&(Column, _)| is_named(&*column.cast(), *known);
                if let Some((_, equal)) = join.equal.iter().find(named) {
                    row.push(column);
                    columns.push(place(*equal)?);
                }
            }
        }
        let keys = join.keys.iter().map(|key| place(*key)).collect::<Result<_, _>>()?;
        let matched = Matched { kind: join.kind, keys, first, columns };

        for rows in join.asked.subselects() {
            subselect::hand_over_tables(rows.pushed.remote.root);
        }
        let mut pushed = Pushed::all(Rc::clone(&join.asked));
        pushed.outputs = Some(yields.clone());
        pushed.distinct = join.distinct;
        if join.kind == Kind::Left {
            pushed.order = vec![Order {
                expression: number,
                descending: false,
                nulls_first: false,
                operator: INT4_LESS,
            }];
        }
        let merge: Vec<SortKey> = pushed
            .order
            .iter()
            .map(|key| SortKey {
                column: 0,
                operator: key.operator,
                collation: Oid::INVALID,
                nulls_first: false,
            })
            .collect();
        let merge_text = if merge.is_empty() { "" } else { "position" }.to_owned();
        let mut printer = Printer::new(&join.asked);
        let mut sql = with_portable_output(|| pushed::print(&pushed, &yields, &mut printer));
        sql.sources.resize(row.len(), Source::Here);
        let sent = printer.expressions.len();
        let prune = printer.prune();
        let described = ShardScan {
            tables: join.asked.tables.clone(),
            user: join.asked.user,
            template: sql.template.0,
            around: sql.around,
            remote: sql.columns,
            sources: sql.sources,
            prune,
            broadcasts: join.asked.broadcasts().iter().map(|rows| rows.spread).collect(),
            sent,
            merge,
            merge_text,
            locks: false,
            is_target: false,
            matched: Some(matched),
        };
        let private = hooks::planner().plan_scan(&described);
        let scan_list: Vec<*mut pg_sys::TargetEntry> = (1i16..)
            .zip(row)
            .map(|(number, expression)| {
                pg_sys::makeTargetEntry(expression.cast(), number, std::ptr::null_mut(), false)
            })
            .collect();

        let scan: *mut pg_sys::CustomScan = node::make(NodeTag::T_CustomScan);
        (*scan).scan.plan.targetlist = target_list;
        (*scan).scan.plan.qual = node::list_of(&join.after);
        (*scan).flags = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
        (*scan).custom_plans = plans;
        (*scan).custom_scan_tlist = node::list_of(&scan_list);
        (*scan).custom_exprs = node::list_of(&printer.expressions);
        (*scan).custom_private = private.list();
        (*scan).methods = scan::methods();
        Ok(scan.cast())
    }
}
