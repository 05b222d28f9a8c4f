//! Window functions on the workers, when all rows of a partition lie in one shard.
//!
//! Every window that is used has to be PARTITION BYed by a column that spreads the rows (`planner::locus`); then each
//! shard computes its own, and what follows (DISTINCT, ORDER BY with LIMIT) can be asked for around that. What the
//! planner has noted as run conditions of a window, `rank <= 3` of a query around, is asked for as a filter above the
//! windows: it has taken the filter away where it stood.
//!
//! A shard's query has two levels: what windows work on, as columns `c1`, `c2`, ..., groups included; and above it the
//! windows, as `w1`, `w2`, .... So ruleutils prints no window, of which it knows nothing outside a query.

use crate::path::base;
use crate::path::printer::Printer;
use crate::path::pushed::{self, Pushed, Sql, Yield};
use crate::path::remote::{Column, Remote};
use crate::path::upper_path::{column_of, direction, is_free_of_columns, plain_path};
use crate::sys::node::{self, Visit};
use crate::sys::plan::Pieces;
use crate::sys::value::FIRST_USER_OID;
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use planner::cost;
use planner::enclosing::{Enclosing, place_of};
use planner::ordering::Direction;
use planner::window::{Bound, Exclusion, Frame, Unit, levels};

/// Windows, shard by shard.
#[derive(Clone, Debug)]
pub(crate) struct Windows {
    /// What the groups are, if the windows are over groups.
    grouped: Option<Vec<Yield>>,
    /// The query's WINDOW list.
    clauses: Vec<*mut pg_sys::WindowClause>,
    /// The query's select list, to which the clauses refer.
    targets: *mut pg_sys::List,
    /// Filters above the windows.
    conditions: Vec<*mut pg_sys::OpExpr>,
    /// Outputs that nobody reads: what windows are ordered by stands in the planner's targets to the end.
    unread: Vec<*mut pg_sys::Node>,
}

impl Windows {
    fn of(&self, function: *mut pg_sys::WindowFunc) -> Option<*mut pg_sys::WindowClause> {
        // SAFETY: live nodes of the planner.
        unsafe {
            self.clauses.iter().copied().find(|clause| (**clause).winref == (*function).winref)
        }
    }

    /// The expressions of a PARTITION BY or ORDER BY, with their clauses.
    fn expressions(
        &self,
        list: *mut pg_sys::List,
    ) -> Vec<(*mut pg_sys::SortGroupClause, *mut pg_sys::Node)> {
        // SAFETY: the list is of the query whose targets these are.
        unsafe {
            node::elements::<pg_sys::SortGroupClause>(list)
                .into_iter()
                .map(|clause| (clause, pg_sys::get_sortgroupclause_expr(clause, self.targets)))
                .collect()
        }
    }
}

/// `UPPERREL_WINDOW`.
///
/// # Safety
///
/// The planner's live structures.
pub(crate) unsafe fn windows(
    root: *mut pg_sys::PlannerInfo,
    input: *mut pg_sys::RelOptInfo,
    output: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        let parse = (*root).parse;
        let target = (*root).upper_targets[pg_sys::UpperRelationKind::UPPERREL_WINDOW as usize];
        let is_grouped = !(*parse).groupClause.is_null()
            || !(*parse).groupingSets.is_null()
            || (*parse).hasAggs
            || (*root).hasHavingQual;
        if (*parse).hasTargetSRFs || !(*parse).groupingSets.is_null() || target.is_null() {
            return;
        }
        let Some((path, _, below)) = plain_path(input) else { return };
        if is_grouped != below.grouping.is_some() {
            return;
        }
        let grouped = if is_grouped { below.outputs.clone() } else { None };
        let wanted = node::elements::<pg_sys::Node>((*target).exprs);
        let Some(parts) = parts_of(&wanted, grouped.as_deref()) else { return };
        let clauses = node::elements::<pg_sys::WindowClause>((*parse).windowClause);
        let Some(read) = parts_of(&read_expressions(root), grouped.as_deref()) else { return };
        let unread = parts.iter().copied().filter(|part| !has_equal(&read, *part)).collect();
        let targets = (*root).processed_tlist;
        let mut windows = Windows { grouped, clauses, targets, conditions: Vec::new(), unread };
        let mut used: Vec<*mut pg_sys::WindowClause> = Vec::new();
        let mut functions = Vec::new();
        for part in &parts {
            let Some(function) = node::cast::<pg_sys::WindowFunc, _>(*part, NodeTag::T_WindowFunc)
            else {
                if !below.remote.can_compute(*part, is_grouped) {
                    return;
                }
                continue;
            };
            functions.push(function);
            let Some(clause) = windows.of(function) else { return };
            if !can_call(function, &below.remote, is_grouped) {
                return;
            }
            if !used.contains(&clause) {
                if !can_open(clause, &windows, &below.remote, is_grouped) {
                    return;
                }
                used.push(clause);
            }
        }
        if used.is_empty() {
            return;
        }
        for clause in &used {
            for condition in version::run_conditions(*clause, &functions) {
                let Some(condition) = readable_condition(condition, &below.remote) else { return };
                if !has_equal(&parts, condition.1.cast()) {
                    return;
                }
                windows.conditions.push(condition.0);
            }
        }
        let own = pg_sys::create_empty_pathtarget();
        pg_sys::add_new_columns_to_pathtarget(own, node::list_of(&parts));
        let own = pg_sys::set_pathtarget_cost_width(root, own);
        let rows = (*path).path.rows;
        let passing = cost::passing(rows, !windows.conditions.is_empty());
        let mut worked = (*below.remote).clone();
        worked.work += cost::windows((*input).rows, used.len());
        let path = base::make_path(output, own, passing, &worked);
        let mut pushed = (*below).clone();
        pushed.outputs =
            Some(parts.into_iter().map(|expression| Yield { expression, partial: None }).collect());
        pushed.windows = Some(windows);
        pushed::attach(path, pushed);
        let path = pg_sys::apply_projection_to_path(root, output, path.cast(), target);
        pg_sys::add_path(output, path);
    }
}

/// The expressions of the select list that are shown, sorted by or made distinct.
unsafe fn read_expressions(root: *mut pg_sys::PlannerInfo) -> Vec<*mut pg_sys::Node> {
    // SAFETY: the planner's live structures.
    unsafe {
        let parse = (*root).parse;
        let is_in =
            |reference, list| !pg_sys::get_sortgroupref_clause_noerr(reference, list).is_null();
        node::elements::<pg_sys::TargetEntry>((*root).processed_tlist)
            .into_iter()
            .filter(|entry| {
                let reference = (**entry).ressortgroupref;
                !(**entry).resjunk
                    || reference != 0
                        && (is_in(reference, (*parse).sortClause)
                            || is_in(reference, (*parse).distinctClause))
            })
            .map(|entry| (*entry).expr.cast())
            .collect()
    }
}

unsafe fn has_equal(list: &[*mut pg_sys::Node], n: *mut pg_sys::Node) -> bool {
    // SAFETY: live expressions of the planner.
    unsafe { list.iter().any(|one| pg_sys::equal((*one).cast(), n.cast())) }
}

/// What the workers have to yield so that the expressions can be computed here: window functions, and columns or what
/// groups consist of. None if that cannot be had.
unsafe fn parts_of(
    wanted: &[*mut pg_sys::Node],
    grouped: Option<&[Yield]>,
) -> Option<Vec<*mut pg_sys::Node>> {
    let mut parts: Vec<*mut pg_sys::Node> = Vec::new();
    for expression in wanted {
        // SAFETY: live expressions of the planner.
        let missing = unsafe {
            node::walk(*expression, &mut |n| {
                let is_known = match grouped {
                    Some(known) => {
                        known.iter().any(|one| pg_sys::equal(one.expression.cast(), n.cast()))
                    }
                    None => matches!(node::tag(n), NodeTag::T_Var | NodeTag::T_PlaceHolderVar),
                };
                if is_known || node::tag(n) == NodeTag::T_WindowFunc {
                    if !has_equal(&parts, n) {
                        parts.push(n);
                    }
                    return Visit::Skip;
                }
                match node::tag(n) {
                    NodeTag::T_Var
                    | NodeTag::T_Aggref
                    | NodeTag::T_GroupingFunc
                    | NodeTag::T_PlaceHolderVar => Visit::Stop,
                    _ => Visit::Into,
                }
            })
        };
        if missing {
            return None;
        }
    }
    Some(parts)
}

/// The workers can compute the function's arguments, and have the function.
unsafe fn can_call(function: *mut pg_sys::WindowFunc, remote: &Remote, aggregates: bool) -> bool {
    // SAFETY: a live node of the planner.
    unsafe {
        let mut needed = node::elements::<pg_sys::Node>((*function).args);
        if !(*function).aggfilter.is_null() {
            needed.push((*function).aggfilter.cast());
        }
        (*function).winfnoid.to_u32() < FIRST_USER_OID
            && pg_sys::func_volatile((*function).winfnoid) as u8 != pg_sys::PROVOLATILE_VOLATILE
            && !matches!((*function).wintype, pg_sys::RECORDOID | pg_sys::RECORDARRAYOID)
            && needed.iter().all(|expression| remote.can_compute(*expression, aggregates))
    }
}

/// Each of the window's partitions lies in one shard, and the workers can tell rows, order and frames.
unsafe fn can_open(
    clause: *mut pg_sys::WindowClause,
    windows: &Windows,
    remote: &Remote,
    aggregates: bool,
) -> bool {
    // SAFETY: a live clause of the query that is planned.
    unsafe {
        let partition = windows.expressions((*clause).partitionClause);
        let columns: Vec<Column> =
            partition.iter().filter_map(|(_, expression)| column_of(*expression)).collect();
        let order = windows.expressions((*clause).orderClause);
        let offsets = [(*clause).startOffset, (*clause).endOffset];
        let offsets: Vec<_> = offsets.into_iter().filter(|offset| !offset.is_null()).collect();
        let is_range = (*clause).frameOptions as u32 & pg_sys::FRAMEOPTION_RANGE != 0;
        remote.locus.keeps_together(&columns)
            && partition.iter().all(|(_, expression)| remote.can_compute(*expression, aggregates))
            && order.iter().all(|(sort, expression)| {
                remote.can_compute(*expression, aggregates)
                    && (direction(*sort, *expression).is_some()
                        || (**sort).sortop.to_u32() < FIRST_USER_OID
                            && (offsets.is_empty() || !is_range))
            })
            && offsets
                .iter()
                .all(|offset| is_free_of_columns(*offset) && remote.can_compute(*offset, false))
    }
}

/// A comparison of a window function with a value that can be sent; with the function.
unsafe fn readable_condition(
    condition: *mut pg_sys::Node,
    remote: &Remote,
) -> Option<(*mut pg_sys::OpExpr, *mut pg_sys::WindowFunc)> {
    // SAFETY: a live condition of the planner.
    unsafe {
        let comparison = node::cast::<pg_sys::OpExpr, _>(condition, NodeTag::T_OpExpr)?;
        let sides = node::elements::<pg_sys::Node>((*comparison).args);
        let function = |n| node::cast::<pg_sys::WindowFunc, _>(n, NodeTag::T_WindowFunc);
        let (found, other) = match sides[..] {
            [left, right] => match (function(left), function(right)) {
                (Some(found), None) => (found, right),
                (None, Some(found)) => (found, left),
                _ => return None,
            },
            _ => return None,
        };
        ((*comparison).opno.to_u32() < FIRST_USER_OID
            && is_free_of_columns(other)
            && remote.can_compute(other, false))
        .then_some((comparison, found))
    }
}

/// The query of a sub-query, which yields `list`.
pub(crate) fn print_list(
    pushed: &Pushed,
    windows: &Windows,
    list: &[*mut pg_sys::Node],
    printer: &mut Printer<'_>,
    template: &mut Pieces,
) {
    let yields: Vec<Yield> =
        list.iter().map(|expression| Yield { expression: *expression, partial: None }).collect();
    let sql = print(pushed, windows, &yields, printer);
    let columns: Vec<String> = sql
        .sources
        .iter()
        .map(|source| match source {
            crate::sys::plan::Source::Remote(place) => format!("w{}", place + 1),
            _ => "NULL".to_owned(),
        })
        .collect();
    let is_as_asked = columns.len() == sql.columns.len()
        && columns.iter().zip(1..).all(|(name, number)| *name == format!("w{number}"));
    if is_as_asked {
        return template.append(sql.template);
    }
    template.text(&format!("SELECT {} FROM (", columns.join(", ")));
    template.append(sql.template);
    template.text(") q");
}

/// The SQL of a relation with windows. `order` and what else stands around a node's rows is put there by the caller's
/// names, `w1`, `w2`, ....
pub(crate) fn print(
    pushed: &Pushed,
    windows: &Windows,
    yields: &[Yield],
    printer: &mut Printer<'_>,
) -> Sql {
    let mut base: Vec<String> = Vec::new();
    let mut places = Vec::new();
    for key in windows.grouped.iter().flatten() {
        places.push(place_of(&mut base, printer.value(key.expression)));
    }
    let mut shown: Vec<String> = Vec::new();
    let mut shown_types = Vec::new();
    let mut column = |expression: *mut pg_sys::Node, is_read: bool, printer: &mut Printer<'_>| {
        // SAFETY: a live expression that `windows` has looked at.
        unsafe {
            let function = node::cast::<pg_sys::WindowFunc, _>(expression, NodeTag::T_WindowFunc);
            let text = match function {
                _ if !is_read && has_equal(&windows.unread, expression) => "NULL".to_owned(),
                Some(function) => call(function, windows, &mut base, printer),
                None => format!("c{}", place_of(&mut base, printer.value(expression))),
            };
            let place = place_of(&mut shown, text);
            if place > shown_types.len() {
                shown_types.push((pg_sys::exprType(expression), pg_sys::exprTypmod(expression)));
            }
            place
        }
    };
    let asked: Vec<usize> =
        yields.iter().map(|output| column(output.expression, false, printer)).collect();
    let conditions: Vec<String> = windows
        .conditions
        .iter()
        .map(|condition| {
            // SAFETY: a live comparison that `readable_condition` has looked at.
            unsafe {
                let sides = node::elements::<pg_sys::Node>((**condition).args);
                let texts: Vec<String> = sides
                    .into_iter()
                    .map(|side| match node::tag(side) {
                        NodeTag::T_WindowFunc => format!("w{}", column(side, true, printer)),
                        _ => printer.value(side),
                    })
                    .collect();
                format!("({} {} {})", texts[0], operator((**condition).opno), texts[1])
            }
        })
        .collect();
    let first_of: Vec<String> =
        pushed.first_of.iter().map(|key| format!("w{}", column(*key, true, printer))).collect();
    let order: Vec<String> = pushed
        .order
        .iter()
        .map(|key| format!("w{}{}", column(key.expression, true, printer), key.direction()))
        .collect();

    let (opening, closing) = levels(&shown, &base, &conditions);
    let mut template = Pieces::default();
    template.text(&opening);
    printer.put_from_where(&mut template);
    pushed::print_grouping(pushed, &places, printer, &mut template);
    template.text(&closing);
    if pushed.is_plain() {
        let sources =
            asked.iter().map(|place| crate::sys::plan::Source::Remote(place - 1)).collect();
        return Sql { template, around: Default::default(), columns: shown_types, sources };
    }
    let enclosing = Enclosing {
        list: asked.iter().map(|place| format!("w{place}")).collect(),
        distinct: pushed.distinct,
        first_of,
        order,
        limit: pushed.limit,
        ..Enclosing::default()
    };
    Sql {
        template,
        around: enclosing.around(),
        columns: asked.iter().map(|place| shown_types[place - 1]).collect(),
        sources: (0..asked.len()).map(crate::sys::plan::Source::Remote).collect(),
    }
}

/// `function(...) FILTER (...) OVER (...)`, over columns of the level below.
unsafe fn call(
    function: *mut pg_sys::WindowFunc,
    windows: &Windows,
    base: &mut Vec<String>,
    printer: &mut Printer<'_>,
) -> String {
    // SAFETY: a live function that `can_call` and `can_open` have looked at; names are palloced.
    unsafe {
        let mut named = |expression, printer: &mut Printer<'_>| {
            format!("c{}", place_of(base, printer.value(expression)))
        };
        let arguments: Vec<String> = node::elements::<pg_sys::Node>((*function).args)
            .into_iter()
            .map(|argument| {
                if is_free_of_columns(argument) {
                    printer.value(argument)
                } else {
                    named(argument, printer)
                }
            })
            .collect();
        let arguments = if (*function).winstar { vec!["*".to_owned()] } else { arguments };
        let filter = (!(*function).aggfilter.is_null())
            .then(|| named((*function).aggfilter.cast(), printer));
        let mut call = planner::window::Call { arguments, filter, ..Default::default() };
        if let Some(clause) = windows.of(function) {
            call.partition = windows
                .expressions((*clause).partitionClause)
                .into_iter()
                .map(|(_, expression)| named(expression, printer))
                .collect();
            call.order = windows
                .expressions((*clause).orderClause)
                .into_iter()
                .map(|(sort, expression)| {
                    let name = named(expression, printer);
                    match direction(sort, expression) {
                        Some(descending) => {
                            let nulls_first = (*sort).nulls_first;
                            format!("{name}{}", Direction { descending, nulls_first }.sql())
                        }
                        None => {
                            let nulls = if (*sort).nulls_first { "FIRST" } else { "LAST" };
                            format!("{name} USING {} NULLS {nulls}", operator((*sort).sortop))
                        }
                    }
                })
                .collect();
            call.frame = frame(clause, printer);
        }
        let schema = pg_sys::get_namespace_name(pg_sys::get_func_namespace((*function).winfnoid));
        let name = pg_sys::get_func_name((*function).winfnoid);
        call.schema = node::text_of(pg_sys::quote_identifier(schema));
        call.name = node::text_of(pg_sys::quote_identifier(name));
        call.sql()
    }
}

/// The frame, if it is not the usual one.
unsafe fn frame(clause: *mut pg_sys::WindowClause, printer: &mut Printer<'_>) -> Option<Frame> {
    // SAFETY: a live clause that `can_open` has looked at.
    unsafe {
        let options = (*clause).frameOptions as u32;
        let has = |option: u32| options & option != 0;
        if !has(pg_sys::FRAMEOPTION_NONDEFAULT) {
            return None;
        }
        let unit = if has(pg_sys::FRAMEOPTION_RANGE) {
            Unit::Range
        } else if has(pg_sys::FRAMEOPTION_ROWS) {
            Unit::Rows
        } else {
            Unit::Groups
        };
        let start = if has(pg_sys::FRAMEOPTION_START_UNBOUNDED_PRECEDING) {
            Bound::Unbounded
        } else if has(pg_sys::FRAMEOPTION_START_CURRENT_ROW) {
            Bound::CurrentRow
        } else if has(pg_sys::FRAMEOPTION_START_OFFSET_PRECEDING) {
            Bound::Preceding(printer.value((*clause).startOffset))
        } else {
            Bound::Following(printer.value((*clause).startOffset))
        };
        let end = if has(pg_sys::FRAMEOPTION_END_UNBOUNDED_FOLLOWING) {
            Bound::Unbounded
        } else if has(pg_sys::FRAMEOPTION_END_CURRENT_ROW) {
            Bound::CurrentRow
        } else if has(pg_sys::FRAMEOPTION_END_OFFSET_PRECEDING) {
            Bound::Preceding(printer.value((*clause).endOffset))
        } else {
            Bound::Following(printer.value((*clause).endOffset))
        };
        let exclusion = if has(pg_sys::FRAMEOPTION_EXCLUDE_CURRENT_ROW) {
            Exclusion::CurrentRow
        } else if has(pg_sys::FRAMEOPTION_EXCLUDE_GROUP) {
            Exclusion::Group
        } else if has(pg_sys::FRAMEOPTION_EXCLUDE_TIES) {
            Exclusion::Ties
        } else {
            Exclusion::None
        };
        Some(Frame { unit, start, end, exclusion })
    }
}

/// `OPERATOR(pg_catalog.<)`, of the server's own.
unsafe fn operator(operator: Oid) -> String {
    // SAFETY: a syscache look-up by value; the name is palloced.
    format!("OPERATOR(pg_catalog.{})", unsafe { node::text_of(pg_sys::get_opname(operator)) })
}
