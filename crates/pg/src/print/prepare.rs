//! Preparing a statement for the workers: a private copy in which everything that the coordinator must compute
//! itself is a parameter.
//!
//! That is: the client's parameters (numbered densely; PL/pgSQL's have gaps), stable functions such as `now()`,
//! and in writes of one row or by key volatile ones such as `random()`, `nextval` or `gen_random_uuid()`, so
//! that all placements get the same values. On the way what ruleutils cannot print for another server is put
//! differently: VALUES lists with defaults, ON CONFLICT ON CONSTRAINT, whole rows.

use crate::print::assigned::{below_implicit_casts, place_of_value, untangle};
use crate::print::foldable::Foldable;
use crate::print::insert_source::values_of;
use crate::print::rewritten::{forget_search_and_cycle, mark_from_items, name_by_place};
use crate::read::implied::has_unnamed_operator;
use crate::read::query::{ColumnName, Prepared, RowInsert, Statement, write_of, writing_queries};
use crate::read::shippable::is_temporary;
use crate::sys::node::{self, Visit};
use crate::sys::plan::Command;
use crate::sys::value::FIRST_USER_OID;
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::collections::HashMap;

impl Statement {
    /// Copies the statement and makes parameters of what the coordinator computes: the client's parameters,
    /// stable functions, and in writes of one row or by key volatile ones too.
    pub fn prepare(&self) -> Prepared {
        // SAFETY: a live Query of the planner hook.
        unsafe {
            let query = node::copy(self.parse);
            version::flatten_groups(query, true);
            for writing in writing_queries(query) {
                untangle(writing);
                complete_values_lists(writing, true);
                complete_source_query(writing);
                mark_from_items(writing);
                name_by_place(writing, (*writing).rtable, 0);
                tidy_conflict_clause(writing);
                simplify_exists(writing);
            }
            forget_search_and_cycle(query);
            fold(query, computes_once(query), 0)
        }
    }

    /// The statement as an INSERT of one row whose columns are `$1`, `$2`, ...; ON CONFLICT and RETURNING stay.
    pub fn prepare_row_insert(&self) -> RowInsert {
        // SAFETY: a live Query of the planner hook, an INSERT.
        unsafe {
            let query = node::copy(self.parse);
            complete_values_lists(query, false);
            tidy_conflict_clause(query);
            let target: *mut pg_sys::RangeTblEntry =
                node::nth((*query).rtable, (*query).resultRelation as usize - 1);
            let mut columns = Vec::new();
            for entry in node::elements::<pg_sys::TargetEntry>((*query).targetList) {
                let placeholder = parameter_for((*entry).expr.cast(), columns.len());
                (*entry).expr = placeholder.cast();
                columns.push(ColumnName {
                    number: (*entry).resno,
                    name: node::text_of(pg_sys::get_attname(
                        (*target).relid,
                        (*entry).resno,
                        false,
                    )),
                });
            }
            for rte in node::elements::<pg_sys::RangeTblEntry>((*query).rtable) {
                if matches!(
                    (*rte).rtekind,
                    pg_sys::RTEKind::RTE_SUBQUERY | pg_sys::RTEKind::RTE_VALUES
                ) {
                    (*rte).rtekind = pg_sys::RTEKind::RTE_RESULT;
                    (*rte).subquery = std::ptr::null_mut();
                }
            }
            (*(*query).jointree).fromlist = std::ptr::null_mut();
            (*query).cteList = std::ptr::null_mut();
            // What these clauses would read or call is not on the shard that the row goes to.
            let mut reads_more = false;
            let clauses =
                [(*query).returningList.cast::<pg_sys::Node>(), (*query).onConflict.cast()];
            for clause in clauses {
                reads_more |= node::walk(clause, &mut |n| match node::tag(n) {
                    NodeTag::T_SubLink => Visit::Stop,
                    _ if has_unnamed_operator(n) => Visit::Stop,
                    NodeTag::T_FuncExpr if is_temporary((*n.cast::<pg_sys::FuncExpr>()).funcid) => {
                        Visit::Stop
                    }
                    // A shard's is another than the table's.
                    NodeTag::T_Var
                        if i32::from((*n.cast::<pg_sys::Var>()).varattno)
                            == pg_sys::TableOidAttributeNumber =>
                    {
                        Visit::Stop
                    }
                    _ => Visit::Into,
                });
            }
            let prepared = fold(query, true, columns.len());
            RowInsert { prepared, columns, reads_more }
        }
    }

    /// The same INSERT with two of its rows only, if it is one of many rows that read no table: whatever there is to
    /// say about the statement, two rows tell, and the others are not copied each time it is looked at. Neither ON
    /// CONFLICT nor RETURNING is in it.
    pub fn with_two_rows(&self) -> Option<Statement> {
        /// Fewer may all go to one shard, as they stand.
        const MANY: usize = 16;
        // SAFETY: a live Query of the planner hook, of which only what is changed is copied.
        unsafe {
            let query = self.parse;
            let is_plain = (*query).commandType == pg_sys::CmdType::CMD_INSERT
                && (*query).onConflict.is_null()
                && (*query).returningList.is_null()
                && (*query).cteList.is_null()
                && !(*query).hasSubLinks
                && node::length((*query).rtable) == 2;
            if !is_plain {
                return None;
            }
            let values: *mut pg_sys::RangeTblEntry = node::nth((*query).rtable, 1);
            let target: *mut pg_sys::RangeTblEntry = node::nth((*query).rtable, 0);
            if (*values).rtekind != pg_sys::RTEKind::RTE_VALUES
                || node::length((*values).values_lists) < MANY
            {
                return None;
            }
            let rows = node::elements::<pg_sys::List>((*values).values_lists);
            let short: *mut pg_sys::RangeTblEntry = node::make(NodeTag::T_RangeTblEntry);
            std::ptr::copy_nonoverlapping(values, short, 1);
            (*short).values_lists = node::list_of(&rows[..2]);
            let own: *mut pg_sys::Query = node::make(NodeTag::T_Query);
            std::ptr::copy_nonoverlapping(query, own, 1);
            (*own).rtable = node::list_of(&[target, short]);
            Some(Statement { parse: node::copy(own) })
        }
    }

    /// As [`Self::insert_source`] for a statement that has [`Self::with_two_rows`]. The rows are not copied: the
    /// planner, which may change what it is given, makes its plan of them.
    pub fn values_source(&self) -> Statement {
        // SAFETY: a live Query of the planner hook, an INSERT; what is changed here is copied.
        unsafe {
            let query: *mut pg_sys::Query = node::make(NodeTag::T_Query);
            std::ptr::copy_nonoverlapping(self.parse, query, 1);
            (*query).targetList = node::copy((*query).targetList);
            (*query).jointree = node::copy((*query).jointree);
            make_select(query);
            Statement { parse: query }
        }
    }

    /// The rows that an INSERT brings, as a SELECT of its own: one column for each column of the target list.
    ///
    /// The target's entry stays in the range table, so that the executor checks the right to INSERT.
    pub fn insert_source(&self) -> Statement {
        // SAFETY: a live Query of the planner hook, an INSERT; the copy is private.
        unsafe {
            let query = node::copy(self.parse);
            complete_values_lists(query, false);
            make_select(query);
            Statement { parse: query }
        }
    }
}

/// Makes an INSERT a SELECT of the rows that it brings.
unsafe fn make_select(query: *mut pg_sys::Query) {
    // SAFETY: the caller passes a live copy of a Query whose target list is private.
    unsafe {
        (*query).commandType = pg_sys::CmdType::CMD_SELECT;
        (*query).resultRelation = 0;
        (*query).returningList = std::ptr::null_mut();
        (*query).onConflict = std::ptr::null_mut();
        for (index, entry) in
            node::elements::<pg_sys::TargetEntry>((*query).targetList).into_iter().enumerate()
        {
            (*entry).resno = index as i16 + 1;
            if (*entry).resname.is_null() {
                (*entry).resname = node::c_text(&format!("column{}", index + 1));
            }
        }
    }
}

/// Makes parameters, numbered after `first`, of what the coordinator computes.
unsafe fn fold(query: *mut pg_sys::Query, fold_volatile: bool, first: usize) -> Prepared {
    // SAFETY: the caller passes a private, live copy.
    unsafe {
        for writing in writing_queries(query) {
            name_conflict_columns(writing);
        }
        expand_whole_rows(query);
        let mut computed = Computed::default();
        let query = fold_query(query, fold_volatile, first, &mut computed);
        let expressions = computed.expressions;
        let sent = expressions.len();
        Prepared { query, expressions, sent, folded: true }
    }
}

/// The same for one query; those that write in its WITH clauses have their own rule for volatile functions.
unsafe fn fold_query(
    query: *mut pg_sys::Query,
    fold_volatile: bool,
    first: usize,
    computed: &mut Computed,
) -> *mut pg_sys::Query {
    node::check_depth();
    // SAFETY: the caller passes a private, live copy; the rewriter gets nodes of it.
    unsafe {
        let mut call_in_from: *mut pg_sys::Node = std::ptr::null_mut();
        let foldable = Foldable::of(query, &[]);
        node::rewrite(query, &mut |n| {
            // Only a function may stand in FROM; its arguments come right behind it.
            if let Some(item) =
                node::cast::<pg_sys::RangeTblFunction, _>(n, NodeTag::T_RangeTblFunction)
            {
                call_in_from = (*item).funcexpr;
                return None;
            }
            if n == call_in_from {
                return None;
            }
            if n != query.cast() && node::tag(n) == NodeTag::T_Query {
                let nested = n.cast::<pg_sys::Query>();
                if write_of(nested).is_some() {
                    return Some(fold_query(nested, computes_once(nested), first, computed).cast());
                }
            }
            if is_own_parameter(n) {
                return Some(n);
            }
            fold_one(n, fold_volatile, &foldable, first, &mut |n| computed.number_of(n))
        })
    }
}

/// What the coordinator computes, each expression once; an INSERT of many rows may bring tens of thousands.
#[derive(Default)]
struct Computed {
    expressions: Vec<*mut pg_sys::Node>,
    /// Numbers of the expressions whose outermost node and first parameter are these: only they can be equal.
    alike: HashMap<(u32, i32), Vec<usize>>,
}

impl Computed {
    /// The expression's number, a new one if none is equal.
    unsafe fn number_of(&mut self, n: *mut pg_sys::Node) -> usize {
        let mut first = 0;
        // SAFETY: the caller passes a live expression, as did those who passed the ones kept.
        unsafe {
            node::walk(
                n,
                &mut |part| match node::cast::<pg_sys::Param, _>(part, NodeTag::T_Param) {
                    Some(param) => {
                        first = (*param).paramid;
                        Visit::Stop
                    }
                    None => Visit::Into,
                },
            );
            let alike = self.alike.entry((node::tag(n) as u32, first)).or_default();
            let equal = |index: &&usize| pg_sys::equal(self.expressions[**index].cast(), n.cast());
            if let Some(known) = alike.iter().find(equal)
                && !pg_sys::contain_volatile_functions(n)
            {
                return *known;
            }
            alike.push(self.expressions.len());
        }
        self.expressions.push(n);
        self.expressions.len() - 1
    }
}

/// The number of an expression in a short list, appended if none is equal.
pub(crate) unsafe fn number_in(
    expressions: &mut Vec<*mut pg_sys::Node>,
    n: *mut pg_sys::Node,
) -> usize {
    // SAFETY: the caller passes live expressions.
    let known = unsafe {
        (!pg_sys::contain_volatile_functions(n))
            .then(|| expressions.iter().position(|e| pg_sys::equal((*e).cast(), n.cast())))
            .flatten()
    };
    known.unwrap_or_else(|| {
        expressions.push(n);
        expressions.len() - 1
    })
}

/// Each volatile function of the query is to be computed once: it writes one row or by key.
unsafe fn computes_once(query: *mut pg_sys::Query) -> bool {
    // SAFETY: the caller passes a live Query.
    unsafe {
        match write_of(query) {
            Some(Command::Insert | Command::Upsert) => !has_subquery_source(query),
            Some(Command::Update | Command::Delete) => true,
            _ => false,
        }
    }
}

/// What the analyser and the rewriter leave behind for ON CONFLICT and the printed statement has no use for.
unsafe fn tidy_conflict_clause(query: *mut pg_sys::Query) {
    // SAFETY: a private, live copy of a Query.
    unsafe {
        if (*query).onConflict.is_null() {
            return;
        }
        // All columns of the rejected row and the row as a whole, for the planner, whether they are used or not.
        (*(*query).onConflict).exclRelTlist = std::ptr::null_mut();
        // An INSERT through a view has two entries named `excluded`, of which only the table's is meant; ruleutils
        // would give that one another name than the parser knows.
        let meant = (*(*query).onConflict).exclRelIndex as usize;
        let entries = node::elements::<pg_sys::RangeTblEntry>((*query).rtable);
        for (index, rte) in entries.into_iter().enumerate() {
            let is_excluded = (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION
                && (*rte).relkind as u8 == pg_sys::RELKIND_COMPOSITE_TYPE;
            if is_excluded && index + 1 != meant {
                (*rte).alias =
                    pg_sys::makeAlias(c"excluded of the view".as_ptr(), std::ptr::null_mut());
            }
        }
    }
}

/// Takes out of EXISTS what makes no difference there: order, DISTINCT and a LIMIT above zero.
///
/// Only in writes, where LIMIT and DISTINCT ON are refused since they pick other rows on each placement. ORMs put
/// `LIMIT 1` into every EXISTS. PostgreSQL's planner does the same later (`simplify_EXISTS_query`,
/// `src/backend/optimizer/plan/subselect.c`), under the same conditions.
unsafe fn simplify_exists(query: *mut pg_sys::Query) {
    // SAFETY: the caller passes a private, live copy of a Query; each node is cast to the struct of its tag.
    unsafe {
        if !(*query).hasSubLinks {
            return;
        }
        node::walk(query, &mut |n| {
            if let Some(link) = node::cast::<pg_sys::SubLink, _>(n, NodeTag::T_SubLink)
                && (*link).subLinkType == pg_sys::SubLinkType::EXISTS_SUBLINK
                && let Some(inner) =
                    node::cast::<pg_sys::Query, _>((*link).subselect, NodeTag::T_Query)
                && is_plain_select(inner)
                && lets_a_row_through((*inner).limitCount)
            {
                (*inner).limitCount = std::ptr::null_mut();
                (*inner).distinctClause = std::ptr::null_mut();
                (*inner).hasDistinctOn = false;
                (*inner).sortClause = std::ptr::null_mut();
            }
            Visit::Into
        });
    }
}

/// A SELECT that yields a row exactly if its FROM and WHERE, and GROUP BY, do.
unsafe fn is_plain_select(query: *mut pg_sys::Query) -> bool {
    // SAFETY: the caller passes a live Query.
    unsafe {
        (*query).commandType == pg_sys::CmdType::CMD_SELECT
            && (*query).setOperations.is_null()
            && !(*query).hasAggs
            && (*query).groupingSets.is_null()
            && !(*query).hasWindowFuncs
            && !(*query).hasTargetSRFs
            && !(*query).hasModifyingCTE
            && (*query).havingQual.is_null()
            && (*query).limitOffset.is_null()
            && (*query).rowMarks.is_null()
    }
}

/// No LIMIT, or one that is known to be above zero; LIMIT NULL is none.
unsafe fn lets_a_row_through(limit: *mut pg_sys::Node) -> bool {
    if limit.is_null() {
        return true;
    }
    // SAFETY: the caller passes a live LIMIT clause, which is of type bigint; the copy is folded in its place.
    unsafe {
        let value = pg_sys::eval_const_expressions(std::ptr::null_mut(), node::copy(limit));
        node::cast::<pg_sys::Const, _>(value, NodeTag::T_Const)
            .is_some_and(|value| (*value).constisnull || (*value).constvalue.value() as i64 > 0)
    }
}

/// The parameter that takes the node's place, if it is to be computed here; `number_of` keeps what is computed.
pub(crate) unsafe fn fold_one(
    n: *mut pg_sys::Node,
    fold_volatile: bool,
    foldable: &Foldable,
    first: usize,
    number_of: &mut dyn FnMut(*mut pg_sys::Node) -> usize,
) -> Option<*mut pg_sys::Node> {
    // SAFETY: the caller passes a live node of the tree that it rewrites.
    unsafe {
        if !foldable.has(n, fold_volatile) {
            return None;
        }
        Some(parameter_for(n, first + number_of(n)))
    }
}

/// An INSERT takes its rows from a query.
pub(crate) unsafe fn has_subquery_source(query: *mut pg_sys::Query) -> bool {
    // SAFETY: the caller passes a live Query; FROM items of an INSERT are references into its range table.
    unsafe {
        // VALUES (generate_series(1, 3), ...) is a query too.
        (*query).hasTargetSRFs
            || node::elements::<pg_sys::Node>((*(*query).jointree).fromlist).into_iter().any(
                |item| {
                    node::cast::<pg_sys::RangeTblRef, _>(item, NodeTag::T_RangeTblRef).is_none_or(
                        |reference| {
                            let rte: *mut pg_sys::RangeTblEntry =
                                node::nth((*query).rtable, (*reference).rtindex as usize - 1);
                            (*rte).rtekind != pg_sys::RTEKind::RTE_VALUES
                        },
                    )
                },
            )
    }
}

/// Marks, in a place that nothing reads, the parameters that we made.
const OWN_PARAMETER: i32 = -77;

/// A parameter that we made, with the cast that a type of users needs, and with its collation.
unsafe fn is_own_parameter(n: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller passes a live node; each is cast to the struct of its tag.
    unsafe {
        let typed = node::cast::<pg_sys::CollateExpr, _>(n, NodeTag::T_CollateExpr)
            .map_or(n, |collate| (*collate).arg.cast());
        let bare = node::cast::<pg_sys::RelabelType, _>(typed, NodeTag::T_RelabelType)
            .map_or(typed, |cast| (*cast).arg.cast());
        node::cast::<pg_sys::Param, _>(bare, NodeTag::T_Param)
            .is_some_and(|param| (*param).location == OWN_PARAMETER)
    }
}

/// A `$n` that takes the place of `expression`.
///
/// Types of users print with a cast, since the worker knows them only by name.
unsafe fn parameter_for(expression: *mut pg_sys::Node, index: usize) -> *mut pg_sys::Node {
    // SAFETY: a live expression; the nodes are made with the structs of their tags.
    unsafe {
        let param: *mut pg_sys::Param = node::make(NodeTag::T_Param);
        (*param).paramkind = pg_sys::ParamKind::PARAM_EXTERN;
        (*param).paramid = index as i32 + 1;
        (*param).paramtype = pg_sys::exprType(expression);
        (*param).paramtypmod = pg_sys::exprTypmod(expression);
        (*param).paramcollid = pg_sys::exprCollation(expression);
        (*param).location = OWN_PARAMETER;
        let collation = pg_sys::get_typcollation((*param).paramtype);
        let mut typed: *mut pg_sys::Node = param.cast();
        if (*param).paramtype.to_u32() >= FIRST_USER_OID {
            let cast: *mut pg_sys::RelabelType = node::make(NodeTag::T_RelabelType);
            (*cast).arg = param.cast();
            (*cast).resulttype = (*param).paramtype;
            (*cast).resulttypmod = (*param).paramtypmod;
            (*cast).resultcollid = collation;
            (*cast).relabelformat = pg_sys::CoercionForm::COERCE_EXPLICIT_CAST;
            (*cast).location = -1;
            typed = cast.cast();
        }
        // For the node a parameter has the collation of its type.
        if (*param).paramcollid == Oid::INVALID || (*param).paramcollid == collation {
            return typed;
        }
        let collate: *mut pg_sys::CollateExpr = node::make(NodeTag::T_CollateExpr);
        (*collate).arg = typed.cast();
        (*collate).collOid = (*param).paramcollid;
        (*collate).location = -1;
        (*param).paramcollid = collation;
        collate.cast()
    }
}

/// After the rewriter, a column with a default that an INSERT of several VALUES rows does not name is in the
/// target list only; ruleutils prints the VALUES lists, so the default goes there, once per row.
///
/// `is_split` says that assignments to parts of a column are as ruleutils prints them: what they assign goes there.
unsafe fn complete_values_lists(query: *mut pg_sys::Query, is_split: bool) {
    // SAFETY: a private, live copy of a Query.
    unsafe {
        if (*query).commandType != pg_sys::CmdType::CMD_INSERT {
            return;
        }
        let Some((number, values)) = values_of(query) else { return };
        // ruleutils prints the columns in the order of the target list and the VALUES lists as they are, so each
        // list is made anew in that order. An expression over VALUES columns (a cast) is computed per row.
        let rows = node::elements::<pg_sys::List>((*values).values_lists);
        let mut lists: Vec<Vec<*mut pg_sys::Node>> = vec![Vec::new(); rows.len()];
        let (mut types, mut typmods, mut collations) =
            (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        // As the analyser leaves it in an INSERT (`transformInsertStmt`, `src/backend/parser/analyze.c`).
        let collation = Oid::INVALID;
        let mut names: Vec<*mut pg_sys::Node> = Vec::new();
        for entry in node::elements::<pg_sys::TargetEntry>((*query).targetList) {
            let place = if is_split { place_of_value(entry) } else { &raw mut (*entry).expr };
            let expr = (*place).cast::<pg_sys::Node>();
            for (row, list) in rows.iter().zip(&mut lists) {
                list.push(node::rewrite(expr, &mut |n| {
                    let var = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var)?;
                    ((*var).varno as usize == number && (*var).varlevelsup == 0).then(|| {
                        node::copy::<pg_sys::Node>(node::nth(*row, (*var).varattno as usize - 1))
                    })
                }));
            }
            let (type_oid, typmod) = (pg_sys::exprType(expr), pg_sys::exprTypmod(expr));
            types = pg_sys::lappend_oid(types, type_oid);
            typmods = pg_sys::lappend_int(typmods, typmod);
            collations = pg_sys::lappend_oid(collations, collation);
            names.push(node::string_node(&format!("column{}", names.len() + 1)));
            let column = names.len() as i16;
            *place = pg_sys::makeVar(number as i32, column, type_oid, typmod, collation, 0).cast();
        }
        let lists: Vec<*mut pg_sys::List> = lists.iter().map(|list| node::list_of(list)).collect();
        (*values).values_lists = node::list_of(&lists);
        (*values).coltypes = types;
        (*values).coltypmods = typmods;
        (*values).colcollations = collations;
        (*(*values).eref).colnames = node::list_of(&names);
    }
}

/// The same for an INSERT from a query: ruleutils prints the target list's columns, which the rewriter has put in
/// the table's order and completed by defaults, and the query as the user wrote it. So the query becomes the FROM of
/// one that yields exactly those columns.
unsafe fn complete_source_query(query: *mut pg_sys::Query) {
    // SAFETY: a private, live copy of a Query; the nodes are made with the structs of their tags.
    unsafe {
        if (*query).commandType != pg_sys::CmdType::CMD_INSERT {
            return;
        }
        let Some(index) = node::elements::<pg_sys::Node>((*(*query).jointree).fromlist)
            .into_iter()
            .find_map(|item| node::cast::<pg_sys::RangeTblRef, _>(item, NodeTag::T_RangeTblRef))
            .map(|reference| (*reference).rtindex)
        else {
            return;
        };
        let rte: *mut pg_sys::RangeTblEntry = node::nth((*query).rtable, index as usize - 1);
        if (*rte).rtekind != pg_sys::RTEKind::RTE_SUBQUERY {
            return;
        }
        let columns = node::elements::<pg_sys::TargetEntry>((*query).targetList);
        let is_in_place = |(number, entry): (usize, &*mut pg_sys::TargetEntry)| {
            let var = node::cast::<pg_sys::Var, _>(*place_of_value(*entry), NodeTag::T_Var);
            var.is_some_and(|var| {
                (*var).varno == index && i32::from((*var).varattno) == number as i32 + 1
            })
        };
        let outputs = node::elements::<pg_sys::TargetEntry>((*(*rte).subquery).targetList);
        let visible = outputs.iter().filter(|entry| !(***entry).resjunk).count();
        if visible == columns.len() && columns.iter().enumerate().all(is_in_place) {
            return;
        }
        let whole: *mut pg_sys::Query = node::make(NodeTag::T_Query);
        let inner = version::copy_entry(rte, query, whole);
        let below = (*inner).subquery.cast();
        pg_sys::ffi::pg_guard_ffi_boundary(|| raw::IncrementVarSublevelsUp(below, 1, 1));
        (*inner).inFromCl = true;
        let (mut targets, mut names) = (Vec::new(), Vec::new());
        for (number, entry) in columns.into_iter().enumerate() {
            let place = below_implicit_casts(place_of_value(entry));
            let expr = (*place).cast::<pg_sys::Node>();
            let name = format!("column{}", number + 1);
            let own = node::rewrite(expr, &mut |n| {
                let var: *mut pg_sys::Var = node::copy(node::cast(n, NodeTag::T_Var)?);
                (*var).varno = 1;
                (*var).varnosyn = 1;
                Some(var.cast())
            });
            let number = number as i16 + 1;
            targets.push(pg_sys::makeTargetEntry(own.cast(), number, node::c_text(&name), false));
            names.push(node::string_node(&name));
            *place = pg_sys::makeVar(
                index,
                number,
                pg_sys::exprType(expr),
                pg_sys::exprTypmod(expr),
                pg_sys::exprCollation(expr),
                0,
            )
            .cast();
        }
        let from: *mut pg_sys::RangeTblRef = node::make(NodeTag::T_RangeTblRef);
        (*from).rtindex = 1;
        (*whole).commandType = pg_sys::CmdType::CMD_SELECT;
        (*whole).canSetTag = true;
        version::drop_rights(rte);
        (*whole).rtable = node::list_of(&[inner]);
        (*whole).jointree = pg_sys::makeFromExpr(node::list_of(&[from]), std::ptr::null_mut());
        (*whole).hasSubLinks = (*query).hasSubLinks;
        (*whole).targetList = node::list_of(&targets);
        (*rte).subquery = whole;
        (*(*rte).eref).colnames = node::list_of(&names);
    }
}

mod raw {
    //! Without pgrx' guard: the caller puts it around.
    use pgrx::pg_sys;
    use std::ffi::c_int;
    unsafe extern "C-unwind" {
        /// Guarded.
        pub(super) fn IncrementVarSublevelsUp(node: *mut pg_sys::Node, delta: c_int, least: c_int);
    }
}

/// `ON CONFLICT ON CONSTRAINT name` names a constraint of the table, which has another name on a shard: name
/// its columns instead.
unsafe fn name_conflict_columns(query: *mut pg_sys::Query) {
    // SAFETY: a private, live copy of a Query.
    unsafe {
        let conflict = (*query).onConflict;
        if conflict.is_null() || (*conflict).constraint == Oid::INVALID {
            return;
        }
        let index = pg_sys::get_constraint_index((*conflict).constraint);
        let rte: *mut pg_sys::RangeTblEntry =
            node::nth((*query).rtable, (*query).resultRelation as usize - 1);
        let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
        let form = (*relation).rd_index;
        let mut elements: Vec<*mut pg_sys::InferenceElem> = Vec::new();
        for position in 0..(*form).indnkeyatts as usize {
            let column = *(*form).indkey.values.as_ptr().add(position);
            let (mut type_oid, mut typmod, mut collation) = (Oid::INVALID, 0, Oid::INVALID);
            pg_sys::get_atttypetypmodcoll(
                (*rte).relid,
                column,
                &raw mut type_oid,
                &raw mut typmod,
                &raw mut collation,
            );
            let element: *mut pg_sys::InferenceElem = node::make(NodeTag::T_InferenceElem);
            (*element).expr =
                pg_sys::makeVar((*query).resultRelation, column, type_oid, typmod, collation, 0)
                    .cast();
            elements.push(element);
        }
        let is_unique = (*form).indisunique;
        pg_sys::index_close(relation, pg_sys::AccessShareLock as i32);
        if is_unique {
            (*conflict).arbiterElems = node::list_of(&elements);
            (*conflict).constraint = Oid::INVALID;
        }
    }
}

/// A row of a table in a target list prints as `t.*::schema.t`, a type that workers do not have: spell it
/// as ROW(columns), which arrives as text and is read as the table's row type here.
unsafe fn expand_whole_rows(query: *mut pg_sys::Query) {
    // SAFETY: a private, live copy of a Query.
    unsafe {
        let lists = [(*query).targetList, (*query).returningList];
        for entry in lists.into_iter().flat_map(|list| node::elements::<pg_sys::TargetEntry>(list))
        {
            let Some(var) = node::cast::<pg_sys::Var, _>((*entry).expr, NodeTag::T_Var) else {
                continue;
            };
            if (*var).varattno != 0
                || (*var).varlevelsup != 0
                || (*var).varno != (*query).resultRelation
            {
                continue;
            }
            let rte: *mut pg_sys::RangeTblEntry =
                node::nth((*query).rtable, (*var).varno as usize - 1);
            if (*rte).rtekind != pg_sys::RTEKind::RTE_RELATION {
                continue;
            }
            let row: *mut pg_sys::RowExpr = node::make(NodeTag::T_RowExpr);
            let mut columns: Vec<*mut pg_sys::Var> = Vec::new();
            let relation = pg_sys::relation_open((*rte).relid, pg_sys::NoLock as i32);
            let descriptor = (*relation).rd_att;
            for index in 0..(*descriptor).natts as usize {
                let attribute = version::attribute(descriptor, index);
                if !(*attribute).attisdropped {
                    columns.push(pg_sys::makeVar(
                        (*var).varno,
                        (*attribute).attnum,
                        (*attribute).atttypid,
                        (*attribute).atttypmod,
                        (*attribute).attcollation,
                        0,
                    ));
                }
            }
            pg_sys::relation_close(relation, pg_sys::NoLock as i32);
            (*row).args = node::list_of(&columns);
            (*row).row_typeid = pg_sys::RECORDOID;
            (*row).row_format = pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;
            (*row).location = -1;
            (*entry).expr = row.cast();
        }
    }
}
