//! Joins of rows that are read here with what the workers find for them: semi, anti and left joins whose left side is
//! small, and whose right side is large, on the workers, and does not lie beside it.
//!
//! The left side, by whatever plan, is read once and kept here. What the join's clauses need of its rows goes to the nodes,
//! with the rows' numbers, as `join.rs` sends rows (`Broadcast`). A node answers with the numbers that have a match,
//! or for a left join with each match and its number. NULLs of rows without a match are put in here, so nothing of the
//! join is left to the nodes but to find: an inner join, or EXISTS.
//!
//! `pg_shard`'s `execute/lookup_join.rs` puts rows and answers together.

use crate::catalog::table::has_index_on;
use crate::path::base::{self};
use crate::path::join::{
    changes_with_outer_rows, equal_column, has_placeholder_in, is_asked_after, spread_by, travels,
};
use crate::path::printer::{Output, Printer};
use crate::path::pushed::{Sql, make_scan, text_around};
use crate::path::remote::{Broadcast, Column, Condition, Item, Remote, columns_in};
use crate::path::subselect;
use crate::print::template::with_portable_output;
use crate::print::verify_scan;
use crate::sys::boundary::boundary;
use crate::sys::error::PgError;
use crate::sys::node::{self, Visit};
use crate::sys::plan::{LookupJoin, LookupKind, Pieces, ShardScan, SortKey, Source};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use planner::cost;
use planner::enclosing::place_of;
use planner::locus::JoinKind;
use std::rc::Rc;

/// The column by which a row's number is known: no table has one of that number.
const NUMBER: i16 = i16::MAX;

/// `<` of int4 (`pg_operator.dat`).
const INT4_LESS: Oid = Oid::from_u32(97);

/// A path's way to what it joins.
struct Join {
    kind: LookupKind,
    /// What the workers look through.
    right: Remote,
    /// Filters of it that stand outside the SELECTs of its shards, which an index of each can be used through then.
    filters: Vec<*mut pg_sys::Node>,
    /// The left side's rows.
    sent: Rc<Broadcast>,
    /// The columns of the left side that are sent, without the number.
    keys: Vec<*mut pg_sys::Var>,
    /// What a match is.
    on: Vec<*mut pg_sys::Node>,
    /// Columns of what a semi-join only looks for, and the left ones that equal them.
    equal: Vec<(Column, *mut pg_sys::Var)>,
    /// Clauses that are asked of what the join yields.
    after: Vec<*mut pg_sys::Node>,
    /// So many rows may look theirs up one by one.
    few: Option<i64>,
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
        let sent = &join.sent;
        let has_equality = node::elements::<pg_sys::RestrictInfo>(clauses)
            .into_iter()
            .any(|info| !is_asked_after(info, kind, rel) && (*info).can_join);
        let cost = cost::LookupJoin {
            sent: cost::Sent {
                rows: (*sent.path).rows.max(1.0),
                columns: sent.columns.len(),
                spread: sent.spread.is_some(),
            },
            reading: (*sent.path).total_cost,
            right: (*inner).rows,
            right_work: right.work,
            joined: (*rel).rows,
            has_equality,
            few: join.few,
            is_anti: join.kind == LookupKind::Anti,
            streams: join.kind == LookupKind::Left,
            random_page: pg_sys::random_page_cost,
        }
        .cost(right.extent());
        let custom: *mut pg_sys::CustomPath = node::make(NodeTag::T_CustomPath);
        let path = &mut (*custom).path;
        path.pathtype = NodeTag::T_CustomScan;
        path.parent = rel;
        path.pathtarget = (*rel).reltarget;
        path.rows = (*rel).rows;
        (path.startup_cost, path.total_cost) = (cost.startup, cost.total);
        let order = (*sent.path).pathkeys;
        let by_join = match join.kind {
            LookupKind::Semi => pg_sys::JoinType::JOIN_SEMI,
            LookupKind::Anti => pg_sys::JoinType::JOIN_ANTI,
            LookupKind::Left => pg_sys::JoinType::JOIN_LEFT,
        };
        path.pathkeys = pg_sys::build_join_pathkeys(root, rel, by_join, order);
        (*custom).custom_paths = pg_sys::lappend(std::ptr::null_mut(), sent.path.cast());
        (*custom).flags = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
        (*custom).methods = &raw const PATH_METHODS.0;
        // Spooled in the planner's memory, and dropped with it; the planner hands custom_private back as it is.
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
        JoinKind::Semi => LookupKind::Semi,
        JoinKind::Anti => LookupKind::Anti,
        JoinKind::Left => LookupKind::Left,
        JoinKind::Inner | JoinKind::Full => return None,
    };
    // SAFETY: the planner's live structures; inputs of a join have their cheapest path.
    unsafe {
        let left = (*outer).cheapest_total_path;
        if !right.complete
            || !right.broadcasts().is_empty()
            || !right.moves().is_empty()
            || left.is_null()
            || !(*left).param_info.is_null()
            || !(*outer).lateral_relids.is_null()
            || (*left).rows > cost::MOST_BROADCAST
            || changes_with_outer_rows(root, outer)
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
        let init_params = base::init_params(root);
        let can = |clause: &*mut pg_sys::Node| {
            crate::read::shippable::is_shippable(*clause, &covers, &init_params, false, right.user)
        };
        if !on.iter().all(can) || !are_plain(&columns_in(right, &on)) {
            return None;
        }

        let relations = version::relations_of(root, (*outer).relids);
        let spread = infos.iter().find_map(|info| spread_by((**info).clause.cast(), &keys, right));
        let mut columns = keys.clone();
        let first = *relations.first()? as i32;
        columns.push(pg_sys::makeVar(first, NUMBER, pg_sys::INT4OID, -1, Oid::INVALID, 0));
        if (*left).rows * 8.0 * columns.len() as f64 > cost::MOST_BROADCAST_BYTES {
            return None;
        }
        let sent = Rc::new(Broadcast { path: left, relations, columns, spread, unique: None });
        let mut equal = Vec::new();
        if own == LookupKind::Semi {
            // What is only looked for has no columns; but what equals one of the left side can be had from there.
            let is_left = |relation: u32| sent.relations.contains(&relation);
            equal.extend(on.iter().filter_map(|clause| equal_column(*clause, &is_left, right)));
            let above = node::elements::<pg_sys::Node>((*(*rel).reltarget).exprs);
            for column in columns_in(right, &above) {
                let column = &*column.cast::<pg_sys::Var>();
                let (_, left) = equal.iter().find(|(known, _)| is_named(column, *known))?;
                if !yields(*left) {
                    return None;
                }
            }
        }
        let few = few(root, right, &on);
        let mut right = right.clone();
        let mut filters = Vec::new();
        if few.is_some() {
            for condition in std::mem::take(&mut right.conditions) {
                if let Condition::Clause(clause) = condition {
                    filters.push(clause);
                }
            }
        }
        Some(Join { kind: own, right, filters, sent, keys, on, equal, after, few })
    }
}

/// All are columns of their own: a shard's rows as a whole have a type that others' have not.
unsafe fn are_plain(columns: &[*mut pg_sys::Node]) -> bool {
    // SAFETY: the caller passes columns.
    columns.iter().all(|column| unsafe { (*column.cast::<pg_sys::Var>()).varattno > 0 })
}

/// How many rows may look theirs up in the right side's only table, which has an index for it: more are faster if it is read.
unsafe fn few(
    root: *mut pg_sys::PlannerInfo,
    right: &Remote,
    on: &[*mut pg_sys::Node],
) -> Option<i64> {
    let [Item::Table(relation)] = right.items[..] else { return None };
    for condition in &right.conditions {
        let Condition::Clause(clause) = condition else { return None };
        // SAFETY: `columns_in` yields columns.
        if unsafe { !are_plain(&columns_in(right, &[*clause])) } {
            return None;
        }
    }
    // SAFETY: a base relation of the root, for a table; the clauses are live.
    unsafe {
        let table = (*base::entry_of(root, relation)).relid;
        let has_index = columns_in(right, on).into_iter().any(|column| {
            let column = &*column.cast::<pg_sys::Var>();
            column.varno as u32 == relation && has_index_on(table, column.varattno)
        });
        let stored = (*pg_sys::find_base_rel(root, relation as i32)).tuples;
        has_index.then(|| cost::most_looked_up(stored)).flatten()
    }
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
        let found = columns_in(&join.right, &wanted);
        let (row, lookup_join) = row_of(join, &found)?;

        for rows in join.right.subselects() {
            subselect::hand_over_tables(rows.pushed.remote.root);
        }
        let outputs: &[*mut pg_sys::Node] =
            if join.kind == LookupKind::Left { &found } else { &[] };
        let noted = verify_scan::begin();
        let mut printer = Printer::behind_arrays(&join.right, join.sent.arrays());
        let mut sql = with_portable_output(|| print(join, outputs, &mut printer));
        if let Some(noted) = noted {
            let arrays = join.sent.arrays();
            verify_scan::verify(noted, &sql, &[], arrays, &printer.expressions)?;
        }
        sql.sources.resize(row.len(), Source::Here);
        let sent = printer.expressions.len();
        let prune = printer.prune();
        let by_number =
            SortKey { column: 0, operator: INT4_LESS, collation: Oid::INVALID, nulls_first: false };
        let merge = if join.kind == LookupKind::Left { vec![by_number] } else { Vec::new() };
        let described = ShardScan {
            tables: join.right.tables.clone(),
            user: join.right.user,
            template: sql.template.0,
            around: sql.around,
            remote: sql.columns,
            sources: sql.sources,
            prune,
            broadcasts: vec![join.sent.spread],
            needed: vec![true],
            moves: 0,
            split: None,
            sent,
            merge_text: if merge.is_empty() { "" } else { "position" }.to_owned(),
            merge,
            locks: false,
            is_target: false,
            is_claimed: false,
            by_ctid: false,
            is_candidates: false,
            claim: None,
            lookup_join: Some(lookup_join),
        };
        let scan_list: Vec<*mut pg_sys::TargetEntry> = (1i16..)
            .zip(row)
            .map(|(number, expression)| {
                pg_sys::makeTargetEntry(expression.cast(), number, std::ptr::null_mut(), false)
            })
            .collect();

        let scan = make_scan(&described, &printer.expressions, &scan_list);
        (*scan).scan.plan.targetlist = target_list;
        (*scan).scan.plan.qual = node::list_of(&join.after);
        (*scan).custom_plans = plans;
        Ok(scan.cast())
    }
}

/// The scan's row, and what stands where in it.
unsafe fn row_of(
    join: &Join,
    found: &[*mut pg_sys::Node],
) -> Result<(Vec<*mut pg_sys::Node>, LookupJoin), PgError> {
    // SAFETY: live expressions of the planner; a node is made with the function for it.
    unsafe {
        let left = node::elements::<pg_sys::Node>((*(*join.sent.path).pathtarget).exprs);
        let place = |var: *mut pg_sys::Var| {
            let found = left.iter().position(|known| is_column(*known, &*var));
            found.ok_or_else(|| PgError::internal("a join's column is not in its left side"))
        };

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
        if join.kind != LookupKind::Semi {
            row.extend(found);
        }
        let first = row.len();
        row.extend(&left);
        let mut columns: Vec<usize> = (0..left.len()).collect();
        if join.kind == LookupKind::Semi {
            for column in found.iter().copied() {
                let named = |(known, _): &&(Column, _)| is_named(&*column.cast(), *known);
                if let Some((_, equal)) = join.equal.iter().find(named) {
                    row.push(column);
                    columns.push(place(*equal)?);
                }
            }
        }
        let keys = join.keys.iter().map(|key| place(*key)).collect::<Result<_, _>>()?;
        let described = LookupJoin { kind: join.kind, keys, first, columns };
        Ok((row, described))
    }
}

/// What a node is asked; [`planner::lookup_join`] has the text.
fn print(join: &Join, outputs: &[*mut pg_sys::Node], printer: &mut Printer<'_>) -> Sql {
    let mut inner: Vec<String> = Vec::new();
    let mut named: Vec<*mut pg_sys::Var> = Vec::new();
    let clauses = [&join.on[..], &join.filters].concat();
    for column in columns_in(&join.right, &clauses) {
        inner.push(printer.expression(column));
        named.push(column.cast());
    }
    let arrays = join.sent.arrays();
    let mut select = vec![format!("b1.c{arrays}")];
    let (mut columns, mut sources) = (vec![(pg_sys::INT4OID, -1)], vec![Source::Remote(0)]);
    for output in outputs {
        let Output { columns: own, source } = printer.output(*output, select.len());
        sources.push(source);
        for (text, type_oid, typmod) in own {
            select.push(format!("b2.c{}", place_of(&mut inner, text)));
            columns.push((type_oid, typmod));
        }
    }
    if inner.is_empty() {
        inner.push("NULL".to_owned());
    }
    let mut template = Pieces::default();
    template.text(&format!("SELECT {}", inner.join(", ")));
    printer.put_from_where(&mut template);

    // Clauses are printed over `b1` and `b2`, of which the latter is for the printer what the former is.
    let united = Broadcast {
        path: std::ptr::null_mut(),
        relations: Vec::new(),
        columns: named,
        spread: None,
        unique: None,
    };
    let as_conditions = |clauses: &[*mut pg_sys::Node]| {
        clauses.iter().map(|clause| Condition::Clause(*clause)).collect::<Vec<_>>()
    };
    let both = Remote {
        items: vec![Item::Broadcast(Rc::clone(&join.sent)), Item::Broadcast(Rc::new(united))],
        conditions: as_conditions(&join.on),
        stand_ins: Vec::new(),
        filters: Vec::new(),
        ..join.right.clone()
    };
    let mut outside = Printer::behind_arrays(&both, arrays);
    outside.expressions = std::mem::take(&mut printer.expressions);
    let (unnest, alias) = outside.unnest(&join.sent);
    let rows = format!("{unnest} {alias}");
    let mut print = |clauses: &[*mut pg_sys::Node]| {
        let mut text = Pieces::default();
        outside.conditions("", &as_conditions(clauses), &mut text);
        text_around(text)
    };
    let (on, filters) = (print(&join.on), print(&join.filters));
    let around = planner::lookup_join::LookupJoin {
        list: &select,
        inner: inner.len(),
        arrays,
        rows: &rows,
        on: &on,
        filters: &filters,
        few: join.few,
        all: join.kind == LookupKind::Left,
    }
    .around();
    printer.expressions = outside.expressions;
    Sql { template, around, columns, sources }
}
