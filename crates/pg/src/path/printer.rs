//! The SQL of a remote relation: FROM, WHERE, outputs, and what stands in for rows that are sent along.

use crate::path::base;
use crate::path::lock_join;
use crate::path::printable::printable;
use crate::path::pushed;
use crate::path::remote::{Broadcast, Condition, Item, Remote, columns_in, stand_in, walk_items};
use crate::path::repartition::Moved;
use crate::path::subselect::Subselect;
use crate::print::foldable::Foldable;
use crate::print::{prepare, rewritten, verify_scan};
use crate::read::prune_facts;
use crate::read::tid;
use crate::sys::node::{self, Visit};
use crate::sys::plan::{Pieces, SHARD_INDEX, Source};
use crate::sys::value::type_name;
use pgrx::pg_sys::{self, NodeTag, Oid};
use planner::cost;
use planner::locus::JoinKind;
use shardmap::Prune;
use std::rc::Rc;

/// What a column of the scan's row is to be.
pub(crate) struct Output {
    /// Columns of the remote result that it is made of, as SQL with their types and typmods.
    pub(crate) columns: Vec<(String, Oid, i32)>,
    /// How, numbered from the first of them.
    pub(crate) source: Source,
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
                    let shard = format!("'{}'::pg_catalog.int4", SHARD_INDEX);
                    let columns = vec![
                        (self.value(expression), pg_sys::TIDOID, -1),
                        (shard, pg_sys::INT4OID, -1),
                    ];
                    return Output { columns, source: Source::Tid(first, layout) };
                }
                if i32::from((*var).varattno) == pg_sys::MaxCommandIdAttributeNumber
                    && base::is_target(entry)
                {
                    let column = format!("'{}'::pg_catalog.cid AS shard", SHARD_INDEX);
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
        if cost::are_few(sent, stored) {
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
    pub(crate) fn prune(&mut self) -> Prune<crate::sys::plan::Key> {
        let mut prune = Prune::All;
        for filter in &self.remote.filters {
            let expressions = std::mem::take(&mut self.expressions);
            // SAFETY: the clauses are live clauses of the planner over that relation.
            let (own, expressions) = unsafe {
                prune_facts::prune_of_clauses(
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
