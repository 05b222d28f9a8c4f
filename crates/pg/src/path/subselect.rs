//! A sub-query in FROM that PostgreSQL has not pulled up and the workers can compute wholly, shard by shard: as a
//! relation of the query around it, so that it is joined where its rows lie.
//!
//! PostgreSQL has planned the sub-query by itself before it asks for the relation's paths. If the winner there is a path
//! of ours with nothing above it, the relation is that path's query in parentheses. Its range table then belongs to no
//! plan, so its entries, by which rights are checked and tables are locked, are handed to the plan around it.

use crate::extension::extension;
use crate::path::base;
use crate::path::pushed::{self, Pushed};
use crate::path::remote::{Column, Condition, Item, Remote};
use crate::sys::node::{self, Visit};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag};
use planner::cost;
use planner::locus::{Key, Locus};
use std::rc::Rc;

/// A sub-query in FROM.
#[derive(Debug)]
pub(crate) struct Subselect {
    /// The relation's number in the query around it.
    pub(crate) relation: u32,
    /// What is computed.
    pub(crate) pushed: Rc<Pushed>,
    /// What its SELECT yields: first what is grouped by and the aggregates, if it groups.
    pub(crate) list: Vec<*mut pg_sys::Node>,
    /// Which of them each column is; none if a worker cannot compute the column.
    columns: Vec<Option<usize>>,
}

impl Subselect {
    /// The relation's column can be had.
    pub(crate) fn has(&self, column: i16) -> bool {
        let index = usize::try_from(column).ok().and_then(|number| number.checked_sub(1));
        index.is_some_and(|index| matches!(self.columns.get(index), Some(Some(_))))
    }

    /// The names of its columns in SQL, by their numbers: `c1`, `c2`, ...
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |place: &Option<usize>| match place {
            Some(place) => format!("c{}", place + 1),
            None => "unknown".to_owned(),
        };
        self.columns.iter().map(name).collect()
    }
}

/// The relation `rel`, a sub-query that has been planned, as something that the workers compute.
///
/// # Safety
///
/// The planner's live structures, after it has made the relation's own paths.
pub(crate) unsafe fn of(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    relation: u32,
) -> Option<Remote> {
    // SAFETY: the caller vouches for the planner's structures; those of the sub-query live as long.
    unsafe {
        let below = (*rel).subroot;
        if !extension().pushes_down()
            || (*rel).reloptkind != pg_sys::RelOptKind::RELOPT_BASEREL
            || !(*rel).lateral_relids.is_null()
            || below.is_null()
            // What they compute would belong to a plan that is not made.
            || !(*below).init_plans.is_null()
            || (*(*below).parse).hasTargetSRFs
            || !(*(*below).parse).rowMarks.is_null()
        {
            return None;
        }
        let last = pg_sys::fetch_upper_rel(
            below,
            pg_sys::UpperRelationKind::UPPERREL_FINAL,
            std::ptr::null_mut(),
        );
        let pushed = winner(last)?;
        let inner = &*pushed.remote;
        // A key may be NULL where not all GROUPING SETS have it.
        if !pushed.is_plain()
            || pushed.grouping.as_ref().is_some_and(|grouping| grouping.sets.is_some())
            || !inner.complete
            || !std::ptr::eq(inner.root, below)
            || !inner.broadcasts().is_empty()
            || !inner.moves().is_empty()
        {
            return None;
        }
        let groups = pushed.grouping.is_some();
        let mut list: Vec<*mut pg_sys::Node> = match &pushed.outputs {
            Some(outputs) => outputs.iter().map(|output| output.expression).collect(),
            None => Vec::new(),
        };
        if list.iter().any(|expression| has_system_column(*expression)) {
            return None;
        }
        let mut columns = Vec::new();
        let mut keys: Vec<Key<Column>> = Vec::new();
        for entry in node::elements::<pg_sys::TargetEntry>((*below).processed_tlist) {
            if (*entry).resjunk {
                continue;
            }
            let expression = (*entry).expr.cast::<pg_sys::Node>();
            if pg_sys::contain_volatile_functions(expression) {
                return None;
            }
            let number = (*entry).resno;
            let known = inner.locus.keys().iter().find(|key| is_column(expression, key.column));
            keys.extend(known.map(|key| Key { column: (relation, number), ..*key }));
            // `can_compute` knows no window functions; those that are yielded have been looked at.
            let is_window = pushed.windows.is_some()
                && node::tag(expression) == NodeTag::T_WindowFunc
                && pushed.yields(expression);
            let can_compute = is_window || inner.can_compute(expression, groups);
            let place = (!has_system_column(expression) && can_compute).then(|| {
                // Each column has a place of its own: ruleutils gives equal names to no two.
                let is_free = |place: &usize| {
                    !columns.contains(&Some(*place))
                        && pg_sys::equal(list[*place].cast(), expression.cast())
                };
                (0..list.len()).find(is_free).unwrap_or_else(|| {
                    list.push(expression);
                    list.len() - 1
                })
            });
            columns.push(place);
        }
        let subselect = Rc::new(Subselect { relation, pushed: Rc::clone(&pushed), list, columns });
        let work = inner.work + cost::subquery((*rel).tuples, groups, pushed.windows.is_some());
        let (conditions, _, complete) = base::conditions_of(root, rel, relation, inner.user);
        let remote = Remote {
            root,
            items: vec![Item::Subselect(subselect)],
            conditions,
            locus: match inner.locus {
                Locus::Everywhere => Locus::Everywhere,
                Locus::Sharded(_) => Locus::Sharded(keys),
            },
            hash: inner.hash,
            filters: inner.filters.clone(),
            tables: inner.tables.clone(),
            user: inner.user,
            stand_ins: Vec::new(),
            work,
            before: inner.before,
            cost: 0.0,
            complete,
            locks_all: false,
        };
        let filters = remote.conditions.iter().filter_map(|condition| match condition {
            Condition::Clause(clause) => Some(*clause),
            Condition::Exists { .. } => None,
        });
        let can_all = node::elements::<pg_sys::Node>((*(*rel).reltarget).exprs)
            .into_iter()
            .chain(filters)
            .all(|expression| remote.can_compute(expression, false));
        (can_all && complete).then_some(remote)
    }
}

/// What the best path sends, if it is one of ours, perhaps with a projection above it.
unsafe fn winner(rel: *mut pg_sys::RelOptInfo) -> Option<Rc<Pushed>> {
    // SAFETY: a live relation of the planner, whose cheapest path has been set.
    unsafe {
        let mut path = (*rel).cheapest_total_path;
        if path.is_null() {
            return None;
        }
        if let Some(projection) =
            node::cast::<pg_sys::ProjectionPath, _>(path, NodeTag::T_ProjectionPath)
        {
            path = (*projection).subpath;
        }
        pushed::attached(path)
    }
}

/// The expression is that column, perhaps under another name of its type.
unsafe fn is_column(expression: *mut pg_sys::Node, column: Column) -> bool {
    // SAFETY: a live expression of the planner.
    unsafe {
        let bare = crate::read::facts::strip_relabel(expression);
        node::cast::<pg_sys::Var, _>(bare, NodeTag::T_Var).is_some_and(|var| {
            (*var).varlevelsup == 0 && ((*var).varno as u32, (*var).varattno) == column
        })
    }
}

/// It has a row as a whole, or what is not among a table's columns.
unsafe fn has_system_column(expression: *mut pg_sys::Node) -> bool {
    // SAFETY: a live expression of the planner.
    unsafe {
        node::walk(expression, &mut |n| {
            let var = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var);
            if var.is_some_and(|var| (*var).varattno <= 0) { Visit::Stop } else { Visit::Into }
        })
    }
}

/// Hands the tables of a sub-query, of which no plan of its own is made, to the plan that is being made around it: for
/// rights, locks and invalidation. Numbers of the range table are counted from what is there already, by `set_plan_references`
/// of `src/backend/optimizer/plan/setrefs.c`.
///
/// # Safety
///
/// A live sub-query's root, before the references of the plan around it are set.
pub(crate) unsafe fn hand_over_tables(root: *mut pg_sys::PlannerInfo) {
    node::check_depth();
    // SAFETY: the caller's, for all queries below it; entries are copied.
    unsafe {
        let all = (*root).glob;
        for (index, entry) in
            node::elements::<pg_sys::RangeTblEntry>((*(*root).parse).rtable).into_iter().enumerate()
        {
            match (*entry).rtekind {
                pg_sys::RTEKind::RTE_RELATION => hand_over(all, (*root).parse, entry),
                pg_sys::RTEKind::RTE_SUBQUERY if !(*entry).subquery.is_null() => {
                    if version::is_checked(entry) {
                        hand_over(all, (*root).parse, entry);
                    }
                    let rel = if index + 1 < (*root).simple_rel_array_size as usize {
                        *(*root).simple_rel_array.add(index + 1)
                    } else {
                        std::ptr::null_mut()
                    };
                    if !rel.is_null() && !(*rel).subroot.is_null() {
                        hand_over_tables((*rel).subroot);
                    } else {
                        hand_over_unplanned(all, (*entry).subquery);
                    }
                }
                _ => {}
            }
        }
    }
}

unsafe fn hand_over_unplanned(all: *mut pg_sys::PlannerGlobal, query: *mut pg_sys::Query) {
    // SAFETY: the caller passes a live query.
    unsafe {
        node::walk(query, &mut |n| {
            if let Some(level) = node::cast::<pg_sys::Query, _>(n, NodeTag::T_Query) {
                for entry in node::elements::<pg_sys::RangeTblEntry>((*level).rtable) {
                    if version::is_checked(entry) {
                        hand_over(all, level, entry);
                    }
                }
            }
            Visit::Into
        });
    }
}

unsafe fn hand_over(
    all: *mut pg_sys::PlannerGlobal,
    query: *mut pg_sys::Query,
    entry: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: live structures of the planner; lists of the planner's own kind.
    unsafe {
        let own: *mut pg_sys::RangeTblEntry = node::copy(entry);
        (*own).tablesample = std::ptr::null_mut();
        (*own).securityQuals = std::ptr::null_mut();
        (*own).subquery = std::ptr::null_mut();
        version::plan_rights_of_all(all, query, own);
        (*all).finalrtable = pg_sys::lappend((*all).finalrtable, own.cast());
        (*all).relationOids = pg_sys::lappend_oid((*all).relationOids, (*own).relid);
    }
}
