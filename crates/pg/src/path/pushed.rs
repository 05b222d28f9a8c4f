//! What a path of ours sends to the workers, and the plan that is made of it when the path has won.
//!
//! A node gets one statement. In it the relation is computed shard by shard, united by UNION ALL; what concerns all of
//! a node's rows (partial groups, DISTINCT, ORDER BY with LIMIT) stands around the union.

use crate::exec::scan;
use crate::path::aggregate::PartialAggregate;
use crate::path::base::{self};
use crate::path::claim::{self, Claiming};
use crate::path::lock_join;
use crate::path::printer::{Output, Printer};
use crate::path::remote::{Item, Remote, columns_in};
use crate::path::subselect;
use crate::path::window::{self, Windows};
use crate::print::template::with_portable_output;
use crate::print::verify_scan;
use crate::read::tid;
use crate::sys::custom;
use crate::sys::error::PgError;
use crate::sys::node;
use crate::sys::plan::{Claim, Pieces, PlanWriter, ShardScan, SortKey, Split};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag};
use planner::enclosing::{Enclosing, Grouping as GroupBy, named_list, place_of, select_list};
use planner::ordering::Direction;
use std::rc::Rc;
use std::sync::OnceLock;

/// Writes the private part of the plan.
type Writer = fn(&ShardScan) -> PlanWriter;

static WRITER: OnceLock<Writer> = OnceLock::new();

/// Sets it; once, when the hooks are installed.
pub(crate) fn register(writer: Writer) {
    let _ = WRITER.set(writer);
}

fn writer() -> Writer {
    *WRITER.get().unwrap_or_else(|| unreachable!("it is set before anything is planned"))
}

/// What a path of ours sends.
#[derive(Clone, Debug)]
pub(crate) struct Pushed {
    /// The relation.
    pub(crate) remote: Rc<Remote>,
    /// What the scan yields; none: the columns of the relation that the plan asks for.
    pub(crate) outputs: Option<Vec<Yield>>,
    /// Each group lies in one shard.
    pub(crate) grouping: Option<Grouping>,
    /// Window functions, each partition of which lies in one shard.
    pub(crate) windows: Option<Windows>,
    /// The outputs are groups of a node's rows, as far as they lie there.
    pub(crate) partial: bool,
    /// Which outputs each set of such groups has for keys, if there are GROUPING SETS.
    pub(crate) partial_sets: Option<Vec<Vec<usize>>>,
    /// Or rather of a shard's: there are few groups, and a node's rows need not be brought together for them.
    pub(crate) by_shard: bool,
    /// Each row of a node once.
    pub(crate) distinct: bool,
    /// The first row of a node, by `order`, for each value of these.
    pub(crate) first_of: Vec<*mut pg_sys::Node>,
    /// ORDER BY: with `limit` or `first_of` what comes first on a node, without them streams to be merged.
    pub(crate) order: Vec<Order>,
    /// The rows of a node that can matter.
    pub(crate) limit: Option<i64>,
    /// The rows stay on the nodes, in parts.
    pub(crate) split: Option<Split>,
    /// They are what rows that are to be locked are chosen from; see [`crate::path::claim`].
    pub(crate) is_candidates: bool,
    /// Rows are locked that its children have found.
    pub(crate) claims: Option<Claiming>,
}

/// A column of a scan's row.
#[derive(Clone, Debug)]
pub(crate) struct Yield {
    /// The expression that the plan above knows it by.
    pub(crate) expression: *mut pg_sys::Node,
    /// It is the transition state of this aggregate.
    pub(crate) partial: Option<PartialAggregate>,
}

/// GROUP BY and HAVING, shard by shard.
#[derive(Clone, Debug)]
pub(crate) struct Grouping {
    /// Which outputs are grouped by.
    pub(crate) keys: Vec<usize>,
    /// Which of them each of the GROUPING SETS has, if there are any.
    pub(crate) sets: Option<Vec<Vec<usize>>>,
    /// HAVING.
    pub(crate) having: Vec<*mut pg_sys::Node>,
}

/// A sort key.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// What is sorted by.
    pub(crate) expression: *mut pg_sys::Node,
    /// DESC.
    pub(crate) descending: bool,
    /// NULLS FIRST.
    pub(crate) nulls_first: bool,
    /// The sort operator.
    pub(crate) operator: pg_sys::Oid,
}

impl Order {
    /// What stands behind the key.
    pub(crate) fn direction(&self) -> &'static str {
        let Self { descending, nulls_first, .. } = *self;
        Direction { descending, nulls_first }.sql()
    }
}

impl Pushed {
    /// All rows of a relation.
    pub(crate) fn all(remote: Rc<Remote>) -> Self {
        Self {
            remote,
            outputs: None,
            grouping: None,
            windows: None,
            partial: false,
            partial_sets: None,
            by_shard: false,
            distinct: false,
            first_of: Vec::new(),
            order: Vec::new(),
            limit: None,
            split: None,
            is_candidates: false,
            claims: None,
        }
    }

    /// It is one of the outputs.
    pub(crate) fn yields(&self, expression: *mut pg_sys::Node) -> bool {
        // SAFETY: live expressions of the planner.
        let is_it =
            |output: &Yield| unsafe { pg_sys::equal(output.expression.cast(), expression.cast()) };
        self.outputs.as_ref().is_some_and(|outputs| outputs.iter().any(is_it))
    }

    /// Nothing concerns all of a node's rows yet.
    pub(crate) fn is_plain(&self) -> bool {
        !self.partial
            && !self.distinct
            && self.first_of.is_empty()
            && self.limit.is_none()
            && self.order.is_empty()
    }

    /// What the nodes' streams are merged by.
    fn merge(&self) -> &[Order] {
        let is_all = self.limit.is_none() && self.first_of.is_empty();
        if is_all || self.is_candidates { &self.order } else { &[] }
    }
}

/// A path's way to what it sends.
pub(crate) fn attach(path: *mut pg_sys::CustomPath, pushed: Pushed) {
    // SAFETY: a live path; what is kept lives in the planner's memory and is dropped with it. The planner hands
    // custom_private back as it is.
    unsafe {
        let kept =
            pgrx::PgMemoryContexts::CurrentMemoryContext.leak_and_drop_on_delete(Rc::new(pushed));
        (*path).custom_private = pg_sys::lappend(std::ptr::null_mut(), kept.cast());
    }
}

/// What a path sends, if it is one of ours.
pub(crate) fn attached(path: *mut pg_sys::Path) -> Option<Rc<Pushed>> {
    // SAFETY: a live path of the planner; only `attach` makes paths with our methods.
    unsafe {
        let custom = node::cast::<pg_sys::CustomPath, _>(path, NodeTag::T_CustomPath)?;
        if !std::ptr::eq((*custom).methods, base::methods()) {
            return None;
        }
        Some(Rc::clone(&*node::nth::<Rc<Pushed>>((*custom).custom_private, 0)))
    }
}

/// The plan of a path: `rel` is its relation, `clauses` the filters of a base relation.
///
/// # Safety
///
/// The planner's live structures, as it passes them to `PlanCustomPath`.
pub(crate) unsafe fn plan(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    path: *mut pg_sys::CustomPath,
    target_list: *mut pg_sys::List,
    clauses: *mut pg_sys::List,
    plans: *mut pg_sys::List,
) -> Result<*mut pg_sys::Plan, PgError> {
    let pushed = attached(path.cast())
        .ok_or_else(|| PgError::internal("a path of ours without what it sends"))?;
    let remote = &*pushed.remote;
    // SAFETY: the caller vouches for the planner's structures; nodes are made with the structs of their tags.
    unsafe {
        // A base relation's filters that no worker applies.
        let local: Vec<*mut pg_sys::Node> = if remote.complete {
            Vec::new()
        } else {
            node::elements::<pg_sys::RestrictInfo>(clauses)
                .into_iter()
                .filter(|info| !(**info).pseudoconstant && !base::is_shipped(remote, *info))
                .map(|info| (*info).clause.cast())
                .collect()
        };
        let mut yields: Vec<Yield> = match &pushed.outputs {
            Some(outputs) => outputs.clone(),
            None => {
                // The path's target and the relation's differ when a join above was removed; the plan may ask for
                // either.
                let mut wanted = node::elements::<pg_sys::Node>((*(*path).path.pathtarget).exprs);
                wanted.extend(node::elements::<pg_sys::Node>((*(*rel).reltarget).exprs));
                wanted.extend(
                    node::elements::<pg_sys::TargetEntry>(target_list)
                        .into_iter()
                        .map(|entry| (*entry).expr.cast()),
                );
                wanted.extend(&local);
                let mut columns = columns_in(remote, &wanted);
                columns.retain(|column| !lock_join::is_unread(remote, column.cast()));
                columns.extend(lock_join::unread_columns(remote, &wanted));
                columns.into_iter().map(|expression| Yield { expression, partial: None }).collect()
            }
        };
        for rows in remote.subselects() {
            subselect::hand_over_tables(rows.pushed.remote.root);
        }
        // What streams are merged by must be in the row.
        let claiming = pushed.claims.as_ref().filter(|_| claim::skips(remote));
        let sorted_by = claiming.map_or_else(|| pushed.merge(), |it| &it.order);
        let mut merge: Vec<SortKey> = sorted_by
            .iter()
            .map(|key| {
                let expression = key.expression;
                SortKey {
                    column: place_among(&mut yields, expression),
                    operator: key.operator,
                    collation: pg_sys::exprCollation(expression),
                    nulls_first: key.nulls_first,
                }
            })
            .collect();
        let version = match (&pushed.claims, &remote.items[..]) {
            (Some(_), [Item::Table(relation)]) => claim::version_of(*relation)
                .map(|column| place_among(&mut yields, column.cast()))
                .into(),
            _ => (0, 0),
        };
        let noted = verify_scan::begin();
        let mut printer = Printer::new(remote);
        let sql = with_portable_output(|| print(&pushed, &yields, &mut printer));
        if let Some(noted) = noted {
            verify_scan::verify(noted, &sql, &pushed.order, printer.arrays, &printer.expressions)?;
        }
        let merge_text = with_portable_output(|| merge_keys(remote, &pushed));
        let relation = match remote.items[..] {
            [Item::Table(relation)] if pushed.outputs.is_none() && merge.is_empty() => relation,
            _ => 0,
        };
        let first_free = claiming.map(|it| {
            let merge = std::mem::take(&mut merge);
            with_portable_output(|| {
                claim::first_free(it, merge, &mut printer, &mut |printer, condition| {
                    print_shard(&pushed, &yields, condition, printer).template
                })
            })
        });
        let sent = printer.expressions.len();
        let prune = printer.prune();
        let claim = pushed.claims.as_ref().map(|Claiming { candidates, by_place, .. }| {
            let parse = (*root).parse;
            let mut number_of = |expression: *mut pg_sys::Node| {
                (!expression.is_null()).then(|| {
                    printer.expressions.push(expression);
                    printer.expressions.len() - 1
                })
            };
            let (limit, offset) = if claim::is_limited(root, rel) {
                (number_of((*parse).limitCount), number_of((*parse).limitOffset))
            } else {
                (None, None)
            };
            let (candidates, by_place) = (*candidates, *by_place);
            Claim { limit, offset, candidates, first_free, by_place, version }
        });
        let scan_list: Vec<*mut pg_sys::TargetEntry> = (1i16..)
            .zip(&yields)
            .map(|(number, output)| {
                let expression = output.expression.cast();
                pg_sys::makeTargetEntry(expression, number, std::ptr::null_mut(), false)
            })
            .collect();
        let locked = lock_join::locked_table(remote).filter(|_| !pushed.is_candidates);
        let is_target = locked.is_some_and(|table| base::is_target(base::entry_of(root, table)));
        let is_claimed = locked.is_some_and(|table| base::is_claimed(base::entry_of(root, table)));
        let described = ShardScan {
            tables: remote.tables.clone(),
            user: remote.user,
            template: sql.template.0,
            around: sql.around,
            remote: sql.columns,
            sources: sql.sources,
            prune,
            broadcasts: remote.broadcasts().iter().map(|rows| rows.spread).collect(),
            needed: remote.needed_broadcasts(),
            moves: remote.moves().len(),
            split: pushed.split.clone(),
            sent,
            merge,
            merge_text,
            locks: locked.is_some(),
            is_target,
            is_claimed,
            by_ctid: tid::decides_write(root),
            is_candidates: pushed.is_candidates,
            claim,
            lookup_join: None,
        };
        let scan = make_scan(&described, &printer.expressions, &scan_list);
        (*scan).scan.plan.targetlist = target_list;
        (*scan).scan.plan.qual = node::list_of(&local);
        (*scan).scan.scanrelid = relation;
        (*scan).custom_plans = plans;
        Ok(scan.cast())
    }
}

/// The place of an expression among those that a scan yields, to which it is added if it is missing.
///
/// # Safety
///
/// Live expressions of the planner.
unsafe fn place_among(yields: &mut Vec<Yield>, expression: *mut pg_sys::Node) -> usize {
    // SAFETY: the caller vouches for the expressions.
    let is_it = |known: &Yield| unsafe {
        known.partial.is_none() && pg_sys::equal(known.expression.cast(), expression.cast())
    };
    yields.iter().position(is_it).unwrap_or_else(|| {
        yields.push(Yield { expression, partial: None });
        yields.len() - 1
    })
}

/// The node of a scan, with the expressions that it computes and the row that it yields.
///
/// # Safety
///
/// Live expressions of the planner.
pub(crate) unsafe fn make_scan(
    described: &ShardScan,
    expressions: &[*mut pg_sys::Node],
    row: &[*mut pg_sys::TargetEntry],
) -> *mut pg_sys::CustomScan {
    // SAFETY: the node is made with the struct of its tag; the caller vouches for the expressions.
    unsafe {
        let scan: *mut pg_sys::CustomScan = node::make(NodeTag::T_CustomScan);
        (*scan).flags = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
        if described.claim.is_some() || described.is_candidates {
            (*scan).flags |= custom::READS_NOW;
        }
        (*scan).custom_scan_tlist = node::list_of(row);
        (*scan).custom_exprs = node::list_of(expressions);
        (*scan).custom_private = writer()(described).list();
        (*scan).methods = scan::methods();
        scan
    }
}

/// The SQL of a plan.
pub(crate) struct Sql {
    /// For one shard.
    pub(crate) template: Pieces,
    /// Around the union of a node's shards.
    pub(crate) around: (String, String),
    /// Types and typmods of what comes.
    pub(crate) columns: Vec<(pg_sys::Oid, i32)>,
    /// What the scan's row is made of.
    pub(crate) sources: Vec<crate::sys::plan::Source>,
}

fn print(pushed: &Pushed, yields: &[Yield], printer: &mut Printer<'_>) -> Sql {
    if let Some(windows) = &pushed.windows {
        version::yields_windows();
        return window::print(pushed, windows, yields, printer);
    }
    if pushed.grouping.is_none() && pushed.first_of.is_empty() && pushed.partial_sets.is_none() {
        let mut wanted: Vec<*mut pg_sys::Node> =
            pushed.order.iter().map(|key| key.expression).collect();
        for output in yields {
            match &output.partial {
                None => wanted.push(output.expression),
                Some(aggregate) => {
                    wanted.extend(&aggregate.arguments);
                    if !aggregate.filter.is_null() {
                        wanted.push(aggregate.filter);
                    }
                }
            }
        }
        if let Some((table, columns)) = printer.joined_last(&wanted) {
            return print_joined_last(pushed, yields, table, &columns, printer);
        }
    }
    if pushed.is_plain() || pushed.by_shard {
        print_plain(pushed, yields, printer)
    } else {
        print_around(pushed, yields, printer)
    }
}

/// A SELECT list that yields a scan's row.
#[derive(Default)]
struct List {
    select: Vec<String>,
    /// Types and typmods of what comes.
    columns: Vec<(pg_sys::Oid, i32)>,
    /// What the scan's row is made of.
    sources: Vec<crate::sys::plan::Source>,
    /// Where each output begins, counted from one.
    places: Vec<usize>,
    /// The places of all that is no aggregate.
    keys: Vec<String>,
}

fn list_of(yields: &[Yield], printer: &mut Printer<'_>) -> List {
    let mut list = List::default();
    for output in yields {
        let first = list.select.len();
        list.places.push(first + 1);
        let (own, source) = match &output.partial {
            None => {
                let Output { columns, source } = printer.output(output.expression, first);
                list.keys.extend((0..columns.len()).map(|place| (first + place + 1).to_string()));
                (columns, source)
            }
            Some(aggregate) => print_aggregate(aggregate, first, &mut |it| printer.value(it)),
        };
        list.sources.push(source);
        for (text, type_oid, typmod) in own {
            list.select.push(text);
            list.columns.push((type_oid, typmod));
        }
    }
    list
}

/// One query a shard, whose result is the scan's.
fn print_plain(pushed: &Pushed, yields: &[Yield], printer: &mut Printer<'_>) -> Sql {
    let claimed = match (&pushed.claims, &pushed.remote.items[..]) {
        (Some(_), [Item::Table(relation)]) => {
            // SAFETY: the root lives while its plan is made.
            Some(unsafe { claim::condition(pushed.remote.root, *relation) })
        }
        _ => None,
    };
    print_shard(pushed, yields, claimed, printer)
}

/// The same with a further condition.
fn print_shard(
    pushed: &Pushed,
    yields: &[Yield],
    condition: Option<String>,
    printer: &mut Printer<'_>,
) -> Sql {
    let List { select, columns, sources, places, keys } = list_of(yields, printer);
    let mut template = Pieces::default();
    let lock = lock_join::lock_of(&pushed.remote).filter(|_| !pushed.is_candidates);
    // A locking SELECT may stand in UNION ALL only as a sub-query. See `Statement::with_locks_on_workers`.
    if lock.is_some() {
        template.text("SELECT * FROM (");
    }
    template.text("SELECT ");
    template.text(&select_list(&select));
    printer.put_from_where(&mut template);
    if let Some(condition) = condition {
        let opening = if pushed.remote.conditions.is_empty() { "WHERE" } else { "AND" };
        template.text(&format!(" {opening} {condition}"));
    }
    print_grouping(pushed, &places, printer, &mut template);
    if pushed.by_shard {
        template.text(&GroupBy::Keys(keys).sql());
    }
    if let Some(lock) = lock {
        template.text(&format!(" {lock}) AS locked"));
    }
    Sql { template, around: Default::default(), columns, sources }
}

/// The query of a sub-query: `list` begins with the outputs, if there are groups.
pub(crate) fn print_list(
    pushed: &Pushed,
    list: &[*mut pg_sys::Node],
    printer: &mut Printer<'_>,
    template: &mut Pieces,
) {
    if let Some(windows) = &pushed.windows {
        return window::print_list(pushed, windows, list, printer, template);
    }
    let columns: Vec<String> = list.iter().map(|expression| printer.value(*expression)).collect();
    template.text("SELECT ");
    template.text(&columns.join(", "));
    printer.put_from_where(template);
    let places: Vec<usize> = (1..=list.len()).collect();
    print_grouping(pushed, &places, printer, template);
}

/// What stands around the shards, and names none.
pub(crate) fn text_around(pieces: Pieces) -> String {
    pieces.into_text().unwrap_or_else(|| unreachable!("what stands around the shards names none"))
}

/// One query a shard for the columns of its table that are needed, known by their names outside; around their union a join
/// with the rows that are sent along.
fn print_joined_last(
    pushed: &Pushed,
    yields: &[Yield],
    table: u32,
    needed: &[*mut pg_sys::Node],
    printer: &mut Printer<'_>,
) -> Sql {
    let List { select, columns, sources, keys, .. } = list_of(yields, printer);
    let inner: Vec<String> = needed.iter().map(|column| printer.expression(*column)).collect();
    let names: Vec<String> = needed
        .iter()
        .map(|column| {
            // SAFETY: columns of a table of the root's range table, as `joined_last` yields them.
            unsafe {
                let var = column.cast::<pg_sys::Var>();
                let entry = base::entry_of(pushed.remote.root, table);
                base::column_name((*entry).relid, (*var).varattno)
            }
        })
        .collect();
    let mut template = Pieces::default();
    template.text("SELECT ");
    template.text(&select_list(&inner));
    printer.put_from_table(table, &mut template);
    let mut behind = Pieces::default();
    behind.text(") ");
    printer.put_others(table, &names, &mut behind);
    let enclosing = Enclosing {
        list: select,
        distinct: pushed.distinct,
        first_of: Vec::new(),
        grouping: if pushed.partial { GroupBy::Keys(keys) } else { GroupBy::None },
        order: pushed
            .order
            .iter()
            .map(|key| format!("{}{}", printer.value(key.expression), key.direction()))
            .collect(),
        limit: pushed.limit,
    };
    let closing = text_around(behind) + &enclosing.closing();
    Sql { template, around: (enclosing.opening(), closing), columns, sources }
}

/// What to ask for instead of an aggregate, of arguments as `named` prints them.
fn print_aggregate(
    aggregate: &PartialAggregate,
    first: usize,
    named: &mut dyn FnMut(*mut pg_sys::Node) -> String,
) -> (Vec<(String, pg_sys::Oid, i32)>, crate::sys::plan::Source) {
    let arguments: Vec<String> =
        aggregate.arguments.iter().map(|argument| named(*argument)).collect();
    let filter = (!aggregate.filter.is_null()).then(|| named(aggregate.filter));
    aggregate.columns(&arguments, filter.as_deref(), first)
}

/// GROUP BY and HAVING of a shard's query; `places` are the outputs' places in its list.
pub(crate) fn print_grouping(
    pushed: &Pushed,
    places: &[usize],
    printer: &mut Printer<'_>,
    template: &mut Pieces,
) {
    let Some(grouping) = &pushed.grouping else { return };
    let named = |keys: &Vec<usize>| keys.iter().map(|key| places[*key].to_string()).collect();
    let group_by = match &grouping.sets {
        Some(sets) => GroupBy::Sets(sets.iter().map(named).collect()),
        None => GroupBy::Keys(named(&grouping.keys)),
    };
    template.text(&group_by.sql());
    for (index, clause) in grouping.having.iter().enumerate() {
        let text = printer.expression(*clause);
        template.text(&format!("{}({text})", if index == 0 { " HAVING " } else { " AND " }));
    }
}

/// The keys by which streams of rows are merged, for EXPLAIN.
fn merge_keys(remote: &Remote, pushed: &Pushed) -> String {
    let mut shown = Printer::new(remote);
    let key = |key: &Order| {
        // SAFETY: a live expression of the planner.
        let expression = unsafe { version::shown_windows(key.expression) };
        format!("{}{}", shown.expression(expression), key.direction())
    };
    pushed.merge().iter().map(key).collect::<Vec<_>>().join(", ")
}

/// One query a shard whose columns are named `c1`, `c2`, ..., and one around their union.
fn print_around(pushed: &Pushed, yields: &[Yield], printer: &mut Printer<'_>) -> Sql {
    let mut inner: Vec<String> = Vec::new();
    let (mut outer, mut keys, mut places) = (Vec::new(), Vec::new(), Vec::new());
    let (mut columns, mut sources) = (Vec::new(), Vec::new());
    for output in yields {
        // SAFETY: a live expression of the planner.
        let grouping = unsafe {
            node::cast::<pg_sys::GroupingFunc, _>(output.expression, NodeTag::T_GroupingFunc)
        };
        let (asked, source) = match (&output.partial, grouping) {
            (None, Some(grouping)) if pushed.partial_sets.is_some() => {
                places.push(0);
                // SAFETY: a live node of the planner.
                let arguments = unsafe { node::elements::<pg_sys::Node>((*grouping).args) };
                // Keys come first, each as a column of its own.
                let names: Vec<String> = arguments
                    .into_iter()
                    .filter_map(|key| {
                        // SAFETY: live expressions of the planner.
                        let is_it = |known: &Yield| unsafe {
                            version::same_expression(known.expression, key)
                        };
                        yields.iter().position(is_it)
                    })
                    .map(|index| format!("c{}", places[index]))
                    .collect();
                let text = format!("GROUPING({})", names.join(", "));
                let source = crate::sys::plan::Source::Remote(outer.len());
                (vec![(text, pg_sys::INT4OID, -1)], source)
            }
            (None, _) => {
                let Output { columns: own, source } =
                    printer.output(output.expression, outer.len());
                let mut asked = Vec::new();
                let mut first = 0;
                for (text, type_oid, typmod) in own {
                    let place = if pushed.partial_sets.is_some() {
                        inner.push(text);
                        inner.len()
                    } else {
                        place_of(&mut inner, text)
                    };
                    let name = format!("c{place}");
                    first = if first == 0 { place } else { first };
                    keys.push(name.clone());
                    asked.push((name, type_oid, typmod));
                }
                places.push(first);
                (asked, source)
            }
            (Some(aggregate), _) => {
                places.push(0);
                let mut named =
                    |expression| format!("c{}", place_of(&mut inner, printer.value(expression)));
                print_aggregate(aggregate, outer.len(), &mut named)
            }
        };
        sources.push(source);
        for (text, type_oid, typmod) in asked {
            outer.push(text);
            columns.push((type_oid, typmod));
        }
    }
    let first_of: Vec<String> = pushed
        .first_of
        .iter()
        .map(|key| format!("c{}", place_of(&mut inner, printer.value(*key))))
        .collect();
    let order: Vec<String> = pushed
        .order
        .iter()
        .map(|key| {
            let place = place_of(&mut inner, printer.value(key.expression));
            format!("c{place}{}", key.direction())
        })
        .collect();

    let mut template = Pieces::default();
    template.text(&format!("SELECT {}", named_list(&inner, 'c')));
    printer.put_from_where(&mut template);
    print_grouping(pushed, &places, printer, &mut template);
    let named = |set: &Vec<usize>| set.iter().map(|key| format!("c{}", places[*key])).collect();
    let grouping = match &pushed.partial_sets {
        Some(sets) => GroupBy::Sets(sets.iter().map(named).collect()),
        None if pushed.partial => GroupBy::Keys(keys),
        None => GroupBy::None,
    };
    let (distinct, limit) = (pushed.distinct, pushed.limit);
    let enclosing = Enclosing { list: outer, distinct, first_of, grouping, order, limit };
    Sql { template, around: enclosing.around(), columns, sources }
}
