//! A relation of PostgreSQL's planner that the workers can compute, shard by shard, and how it is said in SQL.
//!
//! A base relation is one by its distribution; a join of two of them is one if `planner::locus` says so. What is
//! kept here is structure: pointers to the planner's own clauses, put into SQL only when a path with them has won.
//! Expressions are printed by ruleutils over a range table of our making, so that every relation has an alias that
//! we know; the FROM clause around them is ours, with holes where shards' names go.

use crate::extension::extension;
use crate::path::base;
use crate::path::repartition::Moved;
use crate::path::subselect::Subselect;
use crate::read::query::DistributionKey;
use crate::read::shippable;
use crate::sys::node::{self, Visit};
use crate::sys::plan::Spread;
use pgrx::pg_sys::{self, NodeTag, Oid};
use planner::cost::{Extent, Spent};
use planner::locus::{JoinKind, Locus};
use std::rc::Rc;

/// A column of the query: its relation's number and its own.
pub(crate) type Column = (u32, i16);

/// Something that stands in FROM.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// A relation of the range table.
    Table(u32),
    /// LEFT or FULL JOIN of two lists, each of which is a cross product.
    Join(JoinKind, Vec<Item>, Vec<Item>, Vec<Condition>),
    /// Rows that are read first and sent along.
    Broadcast(Rc<Broadcast>),
    /// A sub-query that has been planned by itself.
    Subselect(Rc<Subselect>),
    /// Rows that have moved from worker to worker.
    Moved(Rc<Moved>),
}

/// Something that stands in WHERE or ON.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    /// A clause of the planner.
    Clause(*mut pg_sys::Node),
    /// `[NOT] EXISTS (SELECT FROM items WHERE conditions)`.
    Exists {
        /// NOT.
        negated: bool,
        /// What is looked through.
        items: Vec<Item>,
        /// What is looked for.
        conditions: Vec<Condition>,
    },
}

/// Rows that are read here, by whatever plan, and sent to all nodes as arrays, one a column.
#[derive(Debug)]
pub(crate) struct Broadcast {
    /// How they are read.
    pub(crate) path: *mut pg_sys::Path,
    /// The relations that they are of.
    pub(crate) relations: Vec<u32>,
    /// Their columns.
    pub(crate) columns: Vec<*mut pg_sys::Var>,
    /// Each node needs the rows only that match in its shards.
    pub(crate) spread: Option<Spread>,
    /// A column in which no two rows agree.
    pub(crate) unique: Option<usize>,
}

impl Broadcast {
    /// How many arrays are sent: rows without columns are counted by one.
    pub(crate) fn arrays(&self) -> usize {
        self.columns.len().max(1)
    }
}

/// What the filters of a relation say of its distribution column.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// The relation.
    pub(crate) relation: u32,
    /// How it is cut.
    pub(crate) key: DistributionKey,
    /// It has more shards than one.
    pub(crate) is_sharded: bool,
    /// All its filters.
    pub(crate) clauses: Vec<*mut pg_sys::Node>,
}

/// What makes a hash of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HashedBy {
    /// The operator family.
    pub(crate) family: Oid,
    /// The collation.
    pub(crate) collation: Oid,
}

/// A relation that the workers can compute.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// The query level that it belongs to.
    pub(crate) root: *mut pg_sys::PlannerInfo,
    /// FROM.
    pub(crate) items: Vec<Item>,
    /// WHERE.
    pub(crate) conditions: Vec<Condition>,
    /// Where its rows lie.
    pub(crate) locus: Locus<Column>,
    /// By what hash they are spread, if they are.
    pub(crate) hash: HashedBy,
    /// What cuts the list of shards.
    pub(crate) filters: Vec<Filter>,
    /// Its distributed tables, one with the most shards first.
    pub(crate) tables: Vec<Oid>,
    /// The role whose rights count: a view's owner, or (zero) the current user.
    pub(crate) user: Oid,
    /// Columns of what a semi-join only looks for, and the columns that equal them: the planner may join by either.
    pub(crate) stand_ins: Vec<(Column, *mut pg_sys::Var)>,
    /// What all workers together spend on it, in the planner's units.
    pub(crate) work: f64,
    /// What is spent before they are asked.
    pub(crate) before: f64,
    /// What the path costs for which it is noted.
    pub(crate) cost: f64,
    /// It is all of the relation: no filter is left to be applied here.
    pub(crate) complete: bool,
    /// It would be, but its rows are locked: it may be joined with rows that are sent along, so that no others are locked.
    pub(crate) locks_all: bool,
}

impl Remote {
    /// Over how many nodes and shards it is spread.
    pub(crate) fn extent(&self) -> Extent {
        extent_of(self.tables[0])
    }

    /// What is spent on it so far.
    pub(crate) fn spent(&self) -> Spent {
        Spent { work: self.work, before: self.before }
    }

    /// The column can be had from it.
    pub(crate) fn has(&self, var: &pg_sys::Var) -> bool {
        let (relation, column) = (var.varno as u32, var.varattno);
        let is_had = |item: &Item| match item {
            Item::Subselect(rows) => rows.has(column),
            // What is not needed above is not sent.
            Item::Broadcast(rows) => rows
                .columns
                .iter()
                // SAFETY: live nodes of the planner.
                .any(|sent| unsafe {
                    ((**sent).varno as u32, (**sent).varattno) == (relation, column)
                }),
            _ => true,
        };
        var.varlevelsup == 0
            && var.varno > 0
            && (item_of(&self.items, relation).is_some_and(is_had)
                || stand_in(&self.stand_ins, (relation, column), &|it| self.covers(it)).is_some())
    }

    /// It is a column of a table, as the nodes store it.
    pub(crate) fn stores(&self, var: &pg_sys::Var) -> bool {
        var.varlevelsup == 0
            && matches!(item_of(&self.items, var.varno as u32), Some(Item::Table(_)))
    }

    /// It is a column of rows that are sent along.
    pub(crate) fn sends(&self, var: &pg_sys::Var) -> bool {
        self.has(var) && matches!(item_of(&self.items, var.varno as u32), Some(Item::Broadcast(_)))
    }

    /// The relation belongs to it.
    pub(crate) fn covers(&self, relation: u32) -> bool {
        item_of(&self.items, relation).is_some()
    }

    /// The sub-queries in it.
    pub(crate) fn subselects(&self) -> Vec<Rc<Subselect>> {
        self.picked(&|item| match item {
            Item::Subselect(rows) => Some(Rc::clone(rows)),
            _ => None,
        })
    }

    /// The rows that are sent along, in the order of their arrays.
    pub(crate) fn broadcasts(&self) -> Vec<Rc<Broadcast>> {
        self.picked(&|item| match item {
            Item::Broadcast(rows) => Some(Rc::clone(rows)),
            _ => None,
        })
    }

    /// Which of them (in the same order) have a part in each row that comes: a shard in which none of them match has none.
    pub(crate) fn needed_broadcasts(&self) -> Vec<bool> {
        let mut needed = Vec::new();
        find_needed(&self.items, &self.conditions, &mut needed);
        let is_needed = |rows| needed.iter().any(|known| Rc::ptr_eq(known, rows));
        self.broadcasts().iter().map(is_needed).collect()
    }

    /// The rows that move, in the order of their parameters.
    pub(crate) fn moves(&self) -> Vec<Rc<Moved>> {
        self.picked(&|item| match item {
            Item::Moved(rows) => Some(Rc::clone(rows)),
            _ => None,
        })
    }

    fn picked<T>(&self, pick: &dyn Fn(&Item) -> Option<T>) -> Vec<T> {
        let mut found = Vec::new();
        walk_items(&self.items, &self.conditions, &mut |item| found.extend(pick(item)));
        found
    }

    /// The workers can compute the expression.
    pub(crate) fn can_compute(&self, expression: *mut pg_sys::Node, aggregates: bool) -> bool {
        // SAFETY: the caller passes a live expression of the planner; the root lives while it plans.
        unsafe {
            // An anonymous record cannot be read back.
            let type_oid = pg_sys::exprType(expression);
            if matches!(type_oid, pg_sys::RECORDOID | pg_sys::RECORDARRAYOID) {
                return false;
            }
            let init_params = base::init_params(self.root);
            let own = |var: &pg_sys::Var| self.has(var);
            shippable::is_shippable(expression, &own, &init_params, aggregates, self.user)
        }
    }
}

/// Over how many nodes and shards a table is spread.
pub(crate) fn extent_of(table: Oid) -> Extent {
    Extent::new(extension().node_count(table), extension().shard_count(table))
}

/// The column of a visible relation that equals a column of what a semi-join only looks for, perhaps by way of another
/// semi-join. The way is finite: it leads from what is looked for to what it is looked for by.
pub(crate) fn stand_in(
    stand_ins: &[(Column, *mut pg_sys::Var)],
    column: Column,
    is_visible: &dyn Fn(u32) -> bool,
) -> Option<*mut pg_sys::Var> {
    stand_ins.iter().filter(|(known, _)| *known == column).find_map(|(_, var)| {
        // SAFETY: a live column of the planner.
        let next = unsafe { ((**var).varno as u32, (**var).varattno) };
        if is_visible(next.0) {
            return Some(*var);
        }
        stand_in(stand_ins, next, is_visible)
    })
}

/// The rows that are sent along and that each row of these items under these conditions is made with, or found by.
fn find_needed(items: &[Item], conditions: &[Condition], needed: &mut Vec<Rc<Broadcast>>) {
    node::check_depth();
    for item in items {
        match item {
            Item::Broadcast(rows) => needed.push(Rc::clone(rows)),
            Item::Join(JoinKind::Left, left, ..) => find_needed(left, &[], needed),
            Item::Join(..) | Item::Table(_) | Item::Subselect(_) | Item::Moved(_) => {}
        }
    }
    for condition in conditions {
        if let Condition::Exists { negated: false, items, conditions } = condition {
            find_needed(items, conditions, needed);
        }
    }
}

/// The item that yields a relation's columns.
pub(super) fn item_of(items: &[Item], relation: u32) -> Option<&Item> {
    node::check_depth();
    items.iter().find_map(|item| {
        let is_it = match item {
            Item::Join(_, left, right, _) => {
                return item_of(left, relation).or_else(|| item_of(right, relation));
            }
            Item::Table(own) => *own == relation,
            Item::Broadcast(rows) => rows.relations.contains(&relation),
            Item::Moved(rows) => rows.relations.contains(&relation),
            Item::Subselect(rows) => rows.relation == relation,
        };
        is_it.then_some(item)
    })
}

/// Visits all items, those of conditions included, in an order that is always the same.
pub(super) fn walk_items(items: &[Item], conditions: &[Condition], visit: &mut dyn FnMut(&Item)) {
    node::check_depth();
    for item in items {
        visit(item);
        if let Item::Join(_, left, right, on) = item {
            walk_items(left, &[], visit);
            walk_items(right, on, visit);
        }
    }
    for condition in conditions {
        if let Condition::Exists { items, conditions, .. } = condition {
            walk_items(items, conditions, visit);
        }
    }
}

/// Columns of the remote's relations in `expressions`, each once.
pub(crate) fn columns_in(
    remote: &Remote,
    expressions: &[*mut pg_sys::Node],
) -> Vec<*mut pg_sys::Node> {
    let mut columns: Vec<*mut pg_sys::Var> = Vec::new();
    for expression in expressions {
        // SAFETY: live expressions of the planner.
        unsafe {
            node::walk(*expression, &mut |n| {
                if let Some(var) = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var)
                    && remote.has(&*var)
                    && !columns.iter().any(|known| {
                        (**known).varno == (*var).varno && (**known).varattno == (*var).varattno
                    })
                {
                    columns.push(node::copy(var));
                }
                Visit::Into
            });
        }
    }
    columns.into_iter().map(|var| var.cast()).collect()
}

/// Notes on a relation of the planner that the workers can compute it.
pub(crate) fn note(rel: *mut pg_sys::RelOptInfo, remote: Rc<Remote>) {
    // SAFETY: a live relation of the planner, which is no foreign one, so that nobody else uses the field; the note
    // lives in the planner's memory and is dropped with it.
    unsafe {
        let kept = pgrx::PgMemoryContexts::CurrentMemoryContext.leak_and_drop_on_delete(remote);
        (*rel).fdw_private = kept.cast();
    }
}

/// What is noted on a relation.
pub(crate) fn noted(rel: *mut pg_sys::RelOptInfo) -> Option<Rc<Remote>> {
    // SAFETY: `note` alone writes the field of a relation without a foreign data wrapper.
    unsafe {
        if !(*rel).fdwroutine.is_null() || (*rel).fdw_private.is_null() {
            return None;
        }
        Some(Rc::clone(&*(*rel).fdw_private.cast::<Rc<Remote>>()))
    }
}
