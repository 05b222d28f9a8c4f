//! A relation of PostgreSQL's planner that the workers can compute, shard by shard, and how it is said in SQL.
//!
//! A base relation is one by its distribution; a join of two of them is one if `shardmap::locus` says so. What is
//! kept here is structure: pointers to the planner's own clauses, put into SQL only when a path with them has won.
//! Expressions are printed by ruleutils over a range table of our making, so that every relation has an alias that
//! we know; the FROM clause around them is ours, with holes where shards' names go.

use crate::exec::rows::Source;
use crate::path::base;
use crate::path::base::Spread;
use crate::path::lock_join;
use crate::path::printable::printable;
use crate::path::pushed;
use crate::path::repartition::Moved;
use crate::path::subselect::Subselect;
use crate::path::tid;
use crate::print::foldable::Foldable;
use crate::print::template::Piece;
use crate::print::{prepare, rewritten, verify_scan};
use crate::read::facts;
use crate::read::query::DistributionKey;
use crate::read::shippable;
use crate::sys::node::{self, Visit};
use crate::sys::value::type_name;
use pgrx::pg_sys::{self, NodeTag, Oid};
use shardmap::Prune;
use shardmap::locus::{JoinKind, Locus};
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

/// What a column of the scan's row is to be.
pub(crate) struct Output {
    /// Columns of the remote result that it is made of, as SQL with their types and typmods.
    pub(crate) columns: Vec<(String, Oid, i32)>,
    /// How, numbered from the first of them.
    pub(crate) source: Source,
}

/// Of so many rows in a table, one that is sent along is few.
const FEW_SENT: f64 = 100.0;

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

/// Puts a remote relation into SQL.
pub(crate) struct Printer<'a> {
    remote: &'a Remote,
    context: *mut pg_sys::List,
    /// What the context is made of: each entry with its name.
    named: Vec<(String, *mut pg_sys::RangeTblEntry)>,
    aliases: Vec<(u32, String)>,
    broadcasts: Vec<Rc<Broadcast>>,
    moves: Vec<Rc<Moved>>,
    /// The relations of the EXISTS that is being printed.
    inside: Vec<u32>,
    /// The range table's length: broadcast rows come behind it, then those that move.
    entries: usize,
    /// How many parameters are arrays of broadcast rows, or tell where rows are that move; they come first.
    pub(crate) arrays: usize,
    init_params: Vec<i32>,
    /// What the coordinator computes and sends: the parameters of the SQL.
    pub(crate) expressions: Vec<*mut pg_sys::Node>,
}

impl<'a> Printer<'a> {
    /// A printer for `remote`, to be used within `template::with_portable_output`.
    pub(crate) fn new(remote: &'a Remote) -> Self {
        // SAFETY: the root lives while the planner plans; the entries copied are shallow copies that only ruleutils
        // reads.
        unsafe {
            let mut relations = Vec::new();
            walk_items(&remote.items, &remote.conditions, &mut |item| match item {
                Item::Table(relation) => relations.push(*relation),
                Item::Subselect(rows) => relations.push(rows.relation),
                Item::Join(..) | Item::Broadcast(_) | Item::Moved(_) => {}
            });
            let subselects = remote.subselects();
            let broadcasts = remote.broadcasts();
            let moves = remote.moves();
            let aliases: Vec<(u32, String)> = match relations[..] {
                [only] => vec![(only, "t".to_owned())],
                _ => relations
                    .iter()
                    .enumerate()
                    .map(|(index, relation)| (*relation, format!("t{}", index + 1)))
                    .collect(),
            };
            let entries = node::elements::<pg_sys::RangeTblEntry>((*(*remote.root).parse).rtable);
            let (mut own, mut names) = (Vec::new(), Vec::new());
            for (index, entry) in entries.into_iter().enumerate() {
                let relation = index as u32 + 1;
                match aliases.iter().find(|(known, _)| *known == relation) {
                    Some((_, alias)) => {
                        if let Some(rows) = subselects.iter().find(|rows| rows.relation == relation)
                        {
                            own.push(entry_with_columns(alias, &rows.names()));
                            names.push(node::c_text(alias));
                            continue;
                        }
                        let copy: *mut pg_sys::RangeTblEntry = node::make(NodeTag::T_RangeTblEntry);
                        std::ptr::copy_nonoverlapping(entry, copy, 1);
                        // Columns print with the table's names, not with those the user gave them.
                        (*copy).alias = std::ptr::null_mut();
                        own.push(copy);
                        names.push(node::c_text(alias));
                    }
                    None => {
                        let filler: *mut pg_sys::RangeTblEntry =
                            node::make(NodeTag::T_RangeTblEntry);
                        (*filler).rtekind = pg_sys::RTEKind::RTE_RESULT;
                        (*filler).eref =
                            pg_sys::makeAlias(c"unused".as_ptr(), std::ptr::null_mut());
                        own.push(filler);
                        names.push(node::c_text("unused"));
                    }
                }
            }
            let length = own.len();
            for (number, rows) in broadcasts.iter().enumerate() {
                let columns: Vec<String> = (1..=rows.arrays()).map(|c| format!("c{c}")).collect();
                let alias = format!("b{}", number + 1);
                own.push(entry_with_columns(&alias, &columns));
                names.push(node::c_text(&alias));
            }
            for (number, rows) in moves.iter().enumerate() {
                let columns: Vec<String> =
                    (1..=rows.columns.len()).map(|c| format!("c{c}")).collect();
                let alias = format!("m{}", number + 1);
                own.push(entry_with_columns(&alias, &columns));
                names.push(node::c_text(&alias));
            }
            let plan: *mut pg_sys::PlannedStmt = node::make(NodeTag::T_PlannedStmt);
            (*plan).rtable = node::list_of(&own);
            let context = pg_sys::deparse_context_for_plan_tree(plan, node::list_of(&names));
            let named = names.iter().map(|name| node::text_of(*name)).zip(own).collect();
            Self {
                remote,
                context,
                named,
                aliases,
                entries: length,
                arrays: broadcasts.iter().map(|rows| rows.arrays()).sum::<usize>() + moves.len(),
                broadcasts,
                moves,
                inside: Vec::new(),
                init_params: base::init_params(remote.root),
                expressions: Vec::new(),
            }
        }
    }

    /// The same for a part of a statement of which so many arrays are sent first.
    pub(crate) fn behind_arrays(remote: &'a Remote, arrays: usize) -> Self {
        Self { arrays, ..Self::new(remote) }
    }

    /// An expression whose type is settled by where it stands.
    pub(crate) fn expression(&mut self, expression: *mut pg_sys::Node) -> String {
        self.print(expression, false)
    }

    /// An expression that yields its own type wherever it stands: an implicit cast at its top is spelled out.
    pub(crate) fn value(&mut self, expression: *mut pg_sys::Node) -> String {
        self.print(expression, true)
    }

    fn print(&mut self, expression: *mut pg_sys::Node, spell_cast: bool) -> String {
        // SAFETY: a live expression over relations of the remote; what is printed is a private copy.
        unsafe {
            let expression = self.in_terms_of_from(expression);
            let (init_params, expressions) = (&self.init_params, &mut self.expressions);
            let own = printable(expression, init_params, self.arrays, expressions);
            rewritten::forget_spelling(own);
            verify_scan::note(own, &self.named);
            node::text_of(pg_sys::deparse_expression(own, self.context, true, spell_cast))
        }
    }

    /// The expression in terms of what stands in FROM: equal columns for those of a semi-join, and columns of arrays
    /// for those of broadcast rows.
    unsafe fn in_terms_of_from(&self, expression: *mut pg_sys::Node) -> *mut pg_sys::Node {
        if self.broadcasts.is_empty() && self.moves.is_empty() && self.remote.stand_ins.is_empty() {
            return expression;
        }
        // SAFETY: the caller passes a live expression; the copies are private.
        unsafe {
            node::rewrite(expression, &mut |n| {
                let mut var = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var)?;
                let column = ((*var).varno as u32, (*var).varattno);
                if !self.remote.covers(column.0) && !self.inside.contains(&column.0) {
                    let is_visible = |it: u32| self.remote.covers(it) || self.inside.contains(&it);
                    var = stand_in(&self.remote.stand_ins, column, &is_visible).unwrap_or(var);
                }
                let is_it = |known: &*mut pg_sys::Var| {
                    (**known).varno == (*var).varno && (**known).varattno == (*var).varattno
                };
                let sent = self.broadcasts.iter().map(|rows| &rows.columns);
                let found = sent
                    .chain(self.moves.iter().map(|rows| &rows.columns))
                    .enumerate()
                    .find_map(|(n, columns)| Some((n, columns.iter().position(is_it)?)));
                let Some((number, column)) = found else {
                    return (!std::ptr::eq(var.cast(), n)).then(|| node::copy(var).cast());
                };
                let own: *mut pg_sys::Var = node::copy(var);
                (*own).varno = (self.entries + number + 1) as i32;
                (*own).varattno = column as i16 + 1;
                (*own).varnosyn = 0;
                (*own).varattnosyn = 0;
                Some(own.cast())
            })
        }
    }

    /// The clause is an OR that looks at rows that are sent along.
    fn is_alternative_of_arrays(&self, clause: *mut pg_sys::Node) -> bool {
        // SAFETY: a live clause of the planner.
        let is_or = unsafe {
            node::cast::<pg_sys::BoolExpr, _>(clause, NodeTag::T_BoolExpr)
                .is_some_and(|expr| (*expr).boolop == pg_sys::BoolExprType::OR_EXPR)
        };
        is_or && self.is_of_arrays(clause)
    }

    /// `unnest($1::int4[], ...) AS b1(c1, ...)`.
    fn broadcast(&self, rows: &Rc<Broadcast>) -> String {
        let (unnest, alias) = self.unnest(rows);
        // A worker that is not told thinks that each value comes a hundred times.
        match rows.unique {
            Some(column) => {
                format!("(SELECT DISTINCT ON (c{}) * FROM {unnest} {alias}) {alias}", column + 1)
            }
            None => format!("{unnest} {alias}"),
        }
    }

    /// `unnest($1::int4[], ...)` and `b1(c1, ...)`.
    pub(crate) fn unnest(&self, rows: &Rc<Broadcast>) -> (String, String) {
        node::check_depth();
        let mut first = 1;
        for (number, known) in self.broadcasts.iter().enumerate() {
            if !Rc::ptr_eq(known, rows) {
                first += known.arrays();
                continue;
            }
            // By the catalog's names: `character[]` would be an array of single characters.
            // SAFETY: the columns are live nodes of the planner.
            let arrays = (0..rows.arrays()).map(|column| unsafe {
                let element = match rows.columns.get(column) {
                    Some(var) => (**var).vartype,
                    None => pg_sys::INT4OID,
                };
                let name = node::c_text(&type_name(element));
                let name = node::text_of(pg_sys::quote_identifier(name));
                format!("${}::{name}[]", first + column)
            });
            let names = (1..=rows.arrays()).map(|column| format!("c{column}"));
            let (arrays, names) =
                (arrays.collect::<Vec<_>>().join(", "), names.collect::<Vec<_>>().join(", "));
            return (format!("unnest({arrays})"), format!("b{}({names})", number + 1));
        }
        unreachable!("the list was made of the same items")
    }

    /// The function of rows that move.
    fn moved(&self, rows: &Rc<Moved>) -> String {
        let number = self.moves.iter().position(|known| Rc::ptr_eq(known, rows));
        let number = number.unwrap_or_else(|| unreachable!("the list was made of the same items"));
        let first = self.arrays - self.moves.len() + 1;
        rows.sql(first + number, &format!("m{}", number + 1))
    }

    fn alias(&self, relation: u32) -> &str {
        self.aliases
            .iter()
            .find(|(known, _)| *known == relation)
            .map_or("t", |(_, alias)| alias.as_str())
    }

    /// It is a column of rows that are sent along.
    fn is_sent(&self, var: &pg_sys::Var) -> bool {
        self.broadcasts.iter().any(|rows| rows.relations.contains(&(var.varno as u32)))
    }

    /// A clause of a condition, of which a shard has its own form if it compares a `ctid`.
    fn clause(&mut self, clause: *mut pg_sys::Node) -> String {
        let is_row = |var: &pg_sys::Var| {
            self.aliases.iter().any(|(relation, _)| *relation == var.varno as u32)
        };
        // SAFETY: a live clause of the planner; a `ctid` is that of a table.
        unsafe {
            let Some(found) = tid::comparison(clause, &is_row, &|_| true) else {
                return self.expression(clause);
            };
            let entry = base::entry_of(self.remote.root, (*found.row).varno as u32);
            let layout = tid::layout_of((*entry).relid);
            let row = self.expression(found.row.cast());
            let value = self.expression(found.value);
            tid::comparison_sql(layout, &row, &value, found.is_array)
        }
    }

    /// What has to come from a worker for this expression; `first` is the number of its first remote column.
    pub(crate) fn output(&mut self, expression: *mut pg_sys::Node, first: usize) -> Output {
        // SAFETY: a live expression over relations of the remote, whose entries are tables if they are whole rows
        // or system columns.
        unsafe {
            let var = node::cast::<pg_sys::Var, _>(expression, NodeTag::T_Var);
            if let Some(var) = var
                && (*var).varattno <= 0
                && !self.is_sent(&*var)
                && !lock_join::is_unread(self.remote, var)
            {
                let entry = base::entry_of(self.remote.root, (*var).varno as u32);
                if tid::is_ctid(&*var)
                    && let Some(layout) = tid::layout_of((*entry).relid)
                {
                    let shard = format!("'{}'::pg_catalog.int4", base::SHARD_INDEX);
                    let columns = vec![
                        (self.value(expression), pg_sys::TIDOID, -1),
                        (shard, pg_sys::INT4OID, -1),
                    ];
                    return Output { columns, source: Source::Tid(first, layout) };
                }
                if i32::from((*var).varattno) == pg_sys::MaxCommandIdAttributeNumber
                    && base::is_target(entry)
                {
                    let column = format!("'{}'::pg_catalog.cid AS shard", base::SHARD_INDEX);
                    let columns = vec![(column, (*var).vartype, (*var).vartypmod)];
                    return Output { columns, source: Source::Remote(first) };
                }
                let table = (*entry).relid;
                if i32::from((*var).varattno) == pg_sys::TableOidAttributeNumber {
                    return Output { columns: Vec::new(), source: Source::TableOid(table) };
                }
                if (*var).varattno == 0 {
                    let alias = self.alias((*var).varno as u32).to_owned();
                    let columns: Vec<(String, Oid, i32)> = base::live_columns(table)
                        .into_iter()
                        .map(|(column, type_oid, typmod)| {
                            let name = base::column_name(table, column);
                            (format!("{alias}.{name}"), type_oid, typmod)
                        })
                        .collect();
                    let places = (first..first + columns.len()).collect();
                    return Output { columns, source: Source::Row(table, places) };
                }
            }
            if var.is_some_and(|var| lock_join::is_unread(self.remote, var)) {
                return Output { columns: Vec::new(), source: Source::Here };
            }
            let column = (
                self.value(expression),
                pg_sys::exprType(expression),
                pg_sys::exprTypmod(expression),
            );
            Output { columns: vec![column], source: Source::Remote(first) }
        }
    }

    /// `FROM ... WHERE ...`.
    pub(crate) fn put_from_where(&mut self, sql: &mut Pieces) {
        let remote = self.remote;
        sql.text(" FROM ");
        self.list(&remote.items, ", ", sql);
        self.conditions(" WHERE ", &remote.conditions, sql);
    }

    fn list(&mut self, items: &[Item], separator: &str, sql: &mut Pieces) {
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                sql.text(separator);
            }
            self.item(item, sql);
        }
    }

    fn item(&mut self, item: &Item, sql: &mut Pieces) {
        match item {
            Item::Table(relation) => {
                // SAFETY: a table of the root's range table.
                let (table, sample) = unsafe {
                    let entry = base::entry_of(self.remote.root, *relation);
                    ((*entry).relid, (*entry).tablesample)
                };
                sql.table(table);
                sql.text(&format!(" {}", self.alias(*relation)));
                if !sample.is_null() {
                    sql.text(&self.sample(sample));
                }
            }
            Item::Broadcast(rows) => sql.text(&self.broadcast(rows)),
            Item::Moved(rows) => sql.text(&self.moved(rows)),
            Item::Subselect(rows) => {
                sql.text("(");
                self.subselect(rows, sql);
                let names = (1..=rows.list.len()).map(|column| format!("c{column}"));
                let names = names.collect::<Vec<_>>().join(", ");
                sql.text(&format!(") {}", self.alias(rows.relation)));
                if !names.is_empty() {
                    sql.text(&format!("({names})"));
                }
            }
            Item::Join(kind, left, right, on) => {
                sql.text("(");
                self.side(left, sql);
                sql.text(if *kind == JoinKind::Full { " FULL JOIN " } else { " LEFT JOIN " });
                self.side(right, sql);
                if on.is_empty() {
                    sql.text(" ON (true)");
                }
                self.conditions(" ON ", on, sql);
                sql.text(")");
            }
        }
    }

    /// TABLESAMPLE; `base::base` has looked at its arguments.
    fn sample(&mut self, sample: *mut pg_sys::TableSampleClause) -> String {
        // SAFETY: a live clause of the planner.
        let (method, arguments, is_repeatable) = unsafe {
            (
                node::text_of(pg_sys::get_func_name((*sample).tsmhandler)),
                base::sample_arguments(sample),
                !(*sample).repeatable.is_null(),
            )
        };
        let mut arguments: Vec<String> =
            arguments.into_iter().map(|argument| self.known_first(argument)).collect();
        let seed = if is_repeatable { arguments.pop() } else { None };
        let seed = seed.map_or_else(String::new, |seed| format!(" REPEATABLE ({seed})"));
        format!(" TABLESAMPLE {method} ({}){seed}", arguments.join(", "))
    }

    /// An expression without columns, volatile functions in it computed here.
    fn known_first(&mut self, expression: *mut pg_sys::Node) -> String {
        // SAFETY: a live expression of the planner; what is printed is a parameter of ours.
        unsafe {
            let foldable = Foldable::of(expression, &self.init_params);
            let expressions = &mut self.expressions;
            let mut number_of = |n| prepare::number_in(expressions, n);
            match prepare::fold_one(expression, true, &foldable, self.arrays, &mut number_of) {
                Some(parameter) => {
                    verify_scan::note(parameter, &self.named);
                    node::text_of(pg_sys::deparse_expression(parameter, self.context, true, false))
                }
                None => self.expression(expression),
            }
        }
    }

    /// The query of a sub-query, with parameters that follow those known so far.
    fn subselect(&mut self, rows: &Subselect, sql: &mut Pieces) {
        let mut printer = Printer::new(&rows.pushed.remote);
        printer.arrays = self.arrays;
        printer.expressions = std::mem::take(&mut self.expressions);
        pushed::print_list(&rows.pushed, &rows.list, &mut printer, sql);
        self.expressions = printer.expressions;
    }

    fn side(&mut self, items: &[Item], sql: &mut Pieces) {
        if let [only] = items {
            return self.item(only, sql);
        }
        sql.text("(");
        self.list(items, " CROSS JOIN ", sql);
        sql.text(")");
    }

    /// What stands in WHERE or ON, behind `opening`; nothing if there are no conditions.
    pub(crate) fn conditions(&mut self, opening: &str, conditions: &[Condition], sql: &mut Pieces) {
        node::check_depth();
        for (index, condition) in conditions.iter().enumerate() {
            sql.text(if index == 0 { opening } else { " AND " });
            match condition {
                Condition::Clause(clause) => {
                    let text = self.clause(*clause);
                    // A worker knows nothing of arrays' values, takes alternatives for rare ones, and would join the
                    // arrays with each other first, or read its table once for each of their rows. Of CASE it thinks that
                    // half the rows pass.
                    sql.text(&if self.is_alternative_of_arrays(*clause) {
                        format!("CASE WHEN {text} THEN true ELSE false END")
                    } else {
                        format!("({text})")
                    });
                }
                Condition::Exists { negated, items, conditions } => {
                    sql.text(if *negated {
                        "(NOT EXISTS (SELECT FROM "
                    } else {
                        "(EXISTS (SELECT FROM "
                    });
                    let outside = self.inside.len();
                    walk_items(items, &[], &mut |item| match item {
                        Item::Table(relation) => self.inside.push(*relation),
                        Item::Broadcast(rows) => self.inside.extend_from_slice(&rows.relations),
                        Item::Moved(rows) => self.inside.extend_from_slice(&rows.relations),
                        Item::Subselect(rows) => self.inside.push(rows.relation),
                        Item::Join(..) => {}
                    });
                    self.list(items, ", ", sql);
                    self.conditions(" WHERE ", conditions, sql);
                    self.inside.truncate(outside);
                    sql.text("))");
                }
            }
        }
    }

    /// The relation's only table, and the columns of it that are needed outside the SELECTs of its shards, if the rows that
    /// are sent along are better joined with the union of these: a node then looks at them once, and not once a shard.
    pub(crate) fn joined_last(
        &self,
        wanted: &[*mut pg_sys::Node],
    ) -> Option<(u32, Vec<*mut pg_sys::Node>)> {
        let mut table = None;
        for item in &self.remote.items {
            match item {
                Item::Table(relation) if table.is_none() => table = Some(*relation),
                Item::Broadcast(rows) if rows.unique.is_some() => {}
                _ => return None,
            }
        }
        let table = table.filter(|_| self.remote.items.len() > 1)?;
        // Few rows may find theirs by an index of each shard.
        // SAFETY: a base relation of the root; paths of rows that are sent along live as long as the root.
        let (stored, sent) = unsafe {
            let rel = pg_sys::find_base_rel(self.remote.root, table as i32);
            (
                (*rel).tuples,
                self.broadcasts.iter().map(|rows| (*rows.path).rows).fold(0.0, f64::max),
            )
        };
        if sent * FEW_SENT < stored {
            return None;
        }
        if !self.remote.stand_ins.is_empty() {
            return None;
        }
        let mut expressions = wanted.to_vec();
        for condition in &self.remote.conditions {
            match condition {
                Condition::Clause(clause) if self.is_of_arrays(*clause) => {
                    expressions.push(*clause);
                }
                Condition::Clause(_) => {}
                Condition::Exists { .. } => return None,
            }
        }
        let mut columns = Vec::new();
        for column in columns_in(self.remote, &expressions) {
            // SAFETY: `columns_in` yields columns.
            let (relation, number) = unsafe {
                let var = column.cast::<pg_sys::Var>();
                ((*var).varno as u32, (*var).varattno)
            };
            match number {
                _ if relation != table => {}
                1.. => columns.push(column),
                _ => return None,
            }
        }
        Some((table, columns))
    }

    /// The clause has a column of rows that are sent along.
    fn is_of_arrays(&self, clause: *mut pg_sys::Node) -> bool {
        // SAFETY: a live clause of the planner.
        unsafe {
            node::walk(clause, &mut |n| {
                let var = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var);
                let is_sent = |var: *mut pg_sys::Var| {
                    let relation = (*var).varno as u32;
                    self.broadcasts.iter().any(|rows| rows.relations.contains(&relation))
                };
                if var.is_some_and(is_sent) { Visit::Stop } else { Visit::Into }
            })
        }
    }

    /// `FROM ... WHERE ...` of the table by itself.
    pub(crate) fn put_from_table(&mut self, table: u32, sql: &mut Pieces) {
        sql.text(" FROM ");
        self.item(&Item::Table(table), sql);
        let own = self.conditions_where(false);
        self.conditions(" WHERE ", &own, sql);
    }

    /// The table's alias with the names of these columns of it, all else that stands in FROM, and `WHERE ...`.
    pub(crate) fn put_others(&mut self, table: u32, columns: &[String], sql: &mut Pieces) {
        let remote = self.remote;
        sql.text(self.alias(table));
        if !columns.is_empty() {
            sql.text(&format!("({})", columns.join(", ")));
        }
        sql.text(", ");
        let others: Vec<Item> =
            remote.items.iter().filter(|item| !matches!(item, Item::Table(_))).cloned().collect();
        self.list(&others, ", ", sql);
        let joining = self.conditions_where(true);
        self.conditions(" WHERE ", &joining, sql);
    }

    fn conditions_where(&self, of_arrays: bool) -> Vec<Condition> {
        let belongs = |condition: &&Condition| matches!(condition, Condition::Clause(clause) if self.is_of_arrays(*clause) == of_arrays);
        self.remote.conditions.iter().filter(belongs).cloned().collect()
    }

    /// What the filters say of the distribution columns; keys that are not sent yet follow the expressions.
    pub(crate) fn prune(&mut self) -> Prune<crate::read::query::Key> {
        let mut prune = Prune::All;
        for filter in &self.remote.filters {
            let expressions = std::mem::take(&mut self.expressions);
            // SAFETY: the clauses are live clauses of the planner over that relation.
            let (own, expressions) = unsafe {
                facts::prune_of_clauses(
                    &filter.clauses,
                    filter.relation,
                    &filter.key,
                    &self.init_params,
                    expressions,
                )
            };
            self.expressions = expressions;
            prune = prune.and(own);
        }
        prune
    }
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
fn item_of(items: &[Item], relation: u32) -> Option<&Item> {
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

/// A range-table entry that is nothing but names, as ruleutils wants them.
unsafe fn entry_with_columns(alias: &str, columns: &[String]) -> *mut pg_sys::RangeTblEntry {
    let columns: Vec<*mut pg_sys::Node> =
        columns.iter().map(|column| node::string_node(column)).collect();
    // SAFETY: a new node of its tag; the names are copies.
    unsafe {
        let entry: *mut pg_sys::RangeTblEntry = node::make(NodeTag::T_RangeTblEntry);
        (*entry).rtekind = pg_sys::RTEKind::RTE_VALUES;
        (*entry).eref = pg_sys::makeAlias(node::c_text(alias), node::list_of(&columns));
        entry
    }
}

/// Visits all items, those of conditions included, in an order that is always the same.
fn walk_items(items: &[Item], conditions: &[Condition], visit: &mut dyn FnMut(&Item)) {
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

/// SQL with holes, as it grows.
#[derive(Debug, Default)]
pub(crate) struct Pieces(pub(crate) Vec<Piece>);

impl Pieces {
    /// Appends text.
    pub(crate) fn text(&mut self, text: &str) {
        for (number, text) in text.split(base::SHARD_INDEX).enumerate() {
            if number > 0 {
                self.0.push(Piece::Index);
            }
            match self.0.last_mut() {
                Some(Piece::Text(last)) => last.push_str(text),
                _ => self.0.push(Piece::Text(text.to_owned())),
            }
        }
    }

    /// The text, if there is no hole in it.
    pub(crate) fn into_text(self) -> String {
        let text = |piece| match piece {
            Piece::Text(text) => text,
            Piece::Table(_) | Piece::Object(..) | Piece::Index => {
                unreachable!("what stands around the shards names none")
            }
        };
        self.0.into_iter().map(text).collect()
    }

    /// Appends other pieces.
    pub(crate) fn append(&mut self, pieces: Pieces) {
        for piece in pieces.0 {
            match (self.0.last_mut(), piece) {
                (Some(Piece::Text(last)), Piece::Text(text)) => last.push_str(&text),
                (_, piece) => self.0.push(piece),
            }
        }
    }

    /// Appends a hole.
    pub(crate) fn table(&mut self, table: Oid) {
        self.0.push(Piece::Table(table));
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
