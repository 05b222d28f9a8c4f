//! Whether the statement of a scan says what the planner's expressions mean: it is parsed and analysed once more.
//!
//! The text around the expressions is ours and has no tree that it could be compared with. So each expression that is printed
//! is noted, and must be found in the tree of the whole text, over the same columns of the same relations; sorting must be by
//! the same operators, and the outputs must have the types that the scan expects. A column that stands in that tree and in no
//! noted expression is counted as not compared.

use crate::extension::extension;
use crate::path::claim;
use crate::path::pushed::{Order, Sql};
use crate::print::canonical::{replace_parts, settle_expression};
use crate::print::template::with_portable_output;
use crate::print::verify::{text_of, words};
use crate::sys::error::{PgError, SqlState, debug};
use crate::sys::node::{self, Visit};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::cell::RefCell;
use std::ptr::null_mut;

thread_local! {
    static NOTED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// What has been printed since [`begin`].
pub(crate) struct Noted(());

/// Starts to note what is printed, if it is to be verified.
pub(crate) fn begin() -> Option<Noted> {
    let verifies = extension().verifies_sql();
    NOTED.set(verifies.then(Vec::new));
    verifies.then_some(Noted(()))
}

/// Notes an expression that is printed over the entries given.
///
/// # Safety
///
/// A live expression whose columns are those of the entries.
pub(crate) unsafe fn note(
    expression: *mut pg_sys::Node,
    entries: &[(String, *mut pg_sys::RangeTblEntry)],
) {
    if NOTED.with_borrow(Option::is_none) {
        return;
    }
    // SAFETY: the caller vouches for the expression; what is changed is a copy.
    unsafe {
        let own = pg_sys::eval_const_expressions(null_mut(), node::copy(expression));
        // A constant alone is computed with what stands around it; so is a comparison of a ctid with one of another shard.
        let is_ctid = node::cast::<pg_sys::Var, _>(own, NodeTag::T_Var)
            .is_some_and(|var| crate::read::tid::is_ctid(&*var));
        if node::tag(own) == NodeTag::T_Const || is_ctid {
            return;
        }
        let named = with_named_columns(own, &|var| {
            let (alias, entry) = entries.get((*var).varno as usize - 1)?;
            Some((alias.clone(), *entry))
        });
        for part in conjuncts(named) {
            let text = words(part).join(" ");
            NOTED.with_borrow_mut(|noted| noted.iter_mut().for_each(|it| it.push(text.clone())));
        }
    }
}

/// Compares what has been noted with the statement; the first parameters are `arrays`, then come those of `expressions`.
///
/// # Errors
///
/// Where they differ, or the text is no valid statement here.
pub(crate) fn verify(
    _noted: Noted,
    sql: &Sql,
    order: &[Order],
    arrays: usize,
    expressions: &[*mut pg_sys::Node],
) -> Result<(), PgError> {
    let noted = NOTED.take().unwrap_or_default();
    let text = format!("{}{}{}", sql.around.0, text_of(&sql.template.0), sql.around.1);
    let text = text.replace(claim::CLAIMED, "'{}'");
    // SAFETY: live expressions of the planner; parser and analyser make nodes of their own.
    let (outputs, sorting, said, folded) = unsafe {
        let mut types = vec![Oid::INVALID; arrays];
        types.extend(expressions.iter().map(|sent| pg_sys::exprType(*sent)));
        let query = with_portable_output(|| analyse(&text, &types));
        version::flatten_groups(query, true);
        let outputs: Vec<Option<Oid>> = node::elements::<pg_sys::TargetEntry>((*query).targetList)
            .into_iter()
            .filter(|entry| !(**entry).resjunk)
            .map(|entry| type_of(query, (*entry).expr.cast()))
            .collect();
        let sorting: Vec<(Oid, bool)> =
            node::elements::<pg_sys::SortGroupClause>((*query).sortClause)
                .into_iter()
                .map(|key| ((*key).sortop, (*key).nulls_first))
                .collect();
        let folded = node::copy(query);
        name_columns(query, false, &mut Vec::new());
        name_columns(folded, true, &mut Vec::new());
        (outputs, sorting, words(query.cast()).join(" "), words(folded.cast()).join(" "))
    };
    let wrong = |what: String| {
        Err(PgError::internal("a statement for the workers does not say what was meant")
            .detail(format!("Statement: {text}\n{what}")))
    };
    let expected: Vec<Oid> = sql.columns.iter().map(|(type_oid, _)| *type_oid).collect();
    let agree = outputs.len() == expected.len()
        && outputs
            .iter()
            .zip(&expected)
            .all(|(said, meant)| said.is_none_or(|said| said == *meant));
    // Without columns there is one that nobody reads.
    let agree = agree || expected.is_empty() && outputs.len() == 1;
    if !agree {
        return wrong(format!("Types of outputs meant: {expected:?}\nSaid: {outputs:?}"));
    }
    let expected = sorting_of(order);
    if !sorting.is_empty() && !sorting.ends_with(&expected) {
        return wrong(format!("Sorting meant: {expected:?}\nSaid: {sorting:?}"));
    }
    let mut rest = said.clone();
    for meant in &noted {
        if !said.contains(meant.as_str()) && !folded.contains(meant.as_str()) {
            return wrong(format!("Meant: {meant}\nSaid: {said}"));
        }
        rest = rest.replace(meant.as_str(), "");
    }
    let [all, rest] = [said, rest].map(|text| text.matches(COLUMN).count());
    debug(PgError::new(
        SqlState::SUCCESSFUL_COMPLETION,
        format!("compared {} of {all} columns of a scan", all - rest),
    ));
    Ok(())
}

/// What stands in the place of a column, before its name.
const COLUMN: &str = "column-of";

unsafe fn analyse(text: &str, types: &[Oid]) -> *mut pg_sys::Query {
    let text = node::c_text(text);
    // SAFETY: a zero-terminated text; the types are a palloced array of the length that is told, which the analyser may
    // replace.
    unsafe {
        let statements = pg_sys::raw_parser(text, pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        let mut count = types.len() as i32;
        let mut own: *mut Oid = null_mut();
        if count > 0 {
            own = pg_sys::palloc(size_of_val(types)).cast();
            std::ptr::copy_nonoverlapping(types.as_ptr(), own, types.len());
        }
        pg_sys::parse_analyze_varparams(
            node::nth(statements, 0),
            text,
            &raw mut own,
            &raw mut count,
            null_mut(),
        )
    }
}

/// The type of an output; none if it is NULL, which nobody reads.
unsafe fn type_of(query: *mut pg_sys::Query, output: *mut pg_sys::Node) -> Option<Oid> {
    node::check_depth();
    // SAFETY: the caller passes a live expression of a live Query; each node is cast to the struct of its tag.
    unsafe {
        let inner = pg_sys::strip_implicit_coercions(output);
        if let Some(value) = node::cast::<pg_sys::Const, _>(inner, NodeTag::T_Const)
            && (*value).constisnull
        {
            return None;
        }
        if let Some(var) = node::cast::<pg_sys::Var, _>(inner, NodeTag::T_Var)
            && (*var).varattno > 0
        {
            let entry: *mut pg_sys::RangeTblEntry =
                node::nth((*query).rtable, (*var).varno as usize - 1);
            if (*entry).rtekind == pg_sys::RTEKind::RTE_SUBQUERY {
                let below: *mut pg_sys::TargetEntry =
                    node::nth((*(*entry).subquery).targetList, (*var).varattno as usize - 1);
                type_of((*entry).subquery, (*below).expr.cast())?;
            }
        }
        Some(pg_sys::exprType(output))
    }
}

/// The operators that a statement sorts by; a key that comes again tells nothing, and the analyser drops it.
fn sorting_of(order: &[Order]) -> Vec<(Oid, bool)> {
    let is_new = |place: usize| {
        let again = |before: &Order| {
            // SAFETY: live expressions of the planner.
            unsafe { pg_sys::equal(before.expression.cast(), order[place].expression.cast()) }
        };
        !order[..place].iter().any(again)
    };
    let keys = order.iter().enumerate().filter(|(place, _)| is_new(*place));
    keys.map(|(_, key)| (key.operator, key.nulls_first)).collect()
}

/// Puts names in the place of all columns of a query and those below it, in place.
unsafe fn name_columns(
    query: *mut pg_sys::Query,
    folds: bool,
    above: &mut Vec<*mut pg_sys::Query>,
) {
    node::check_depth();
    // SAFETY: the caller passes a private, live Query and those around it.
    unsafe {
        if folds {
            replace_parts(query, &|part| pg_sys::eval_const_expressions(null_mut(), part));
        }
        let mut below: Vec<*mut pg_sys::Query> = Vec::new();
        node::walk(query, &mut |n| {
            if n != query.cast() && node::tag(n) == NodeTag::T_Query {
                below.push(n.cast());
                return Visit::Skip;
            }
            Visit::Into
        });
        above.push(query);
        for inner in below {
            name_columns(inner, folds, above);
        }
        let levels = above.clone();
        replace_parts(query, &|part| {
            with_named_columns(part, &|var| {
                let level = levels.len().checked_sub(1 + (*var).varlevelsup as usize)?;
                let entry: *mut pg_sys::RangeTblEntry =
                    node::nth((*levels[level]).rtable, (*var).varno as usize - 1);
                Some((node::text_of((*(*entry).eref).aliasname), entry))
            })
        });
        above.pop();
    }
}

/// A name and the entry of the range table that has it.
type Named = (String, *mut pg_sys::RangeTblEntry);

/// A copy with names in the place of columns.
unsafe fn with_named_columns(
    expression: *mut pg_sys::Node,
    entry_of: &dyn Fn(*mut pg_sys::Var) -> Option<Named>,
) -> *mut pg_sys::Node {
    // SAFETY: the caller passes a live tree and what finds the entries of its columns. A name is a node of no other kind.
    unsafe {
        let copy = node::rewrite(expression, &mut |n| {
            if node::tag(n) == NodeTag::T_Query {
                return Some(n);
            }
            let var = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var)?;
            let (alias, entry) = entry_of(var)?;
            let (type_oid, collation) = ((*var).vartype.to_u32(), (*var).varcollid.to_u32());
            let name = name_in(entry, (*var).varattno);
            Some(node::string_node(&format!("{COLUMN}_{alias}.{name}_{type_oid}_{collation}")))
        });
        node::walk(copy, &mut |n| {
            if matches!(node::tag(n), NodeTag::T_Query | NodeTag::T_String) {
                return Visit::Skip;
            }
            settle_expression(n);
            Visit::Into
        });
        copy
    }
}

unsafe fn name_in(entry: *mut pg_sys::RangeTblEntry, column: i16) -> String {
    // SAFETY: the caller passes a live entry that has the column.
    unsafe {
        if column <= 0 {
            return column.to_string();
        }
        if (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION {
            return node::text_of(pg_sys::get_attname((*entry).relid, column, true));
        }
        let name: *mut pg_sys::Node = node::nth((*(*entry).eref).colnames, column as usize - 1);
        node::text_of((*name.cast::<pg_sys::String>()).sval)
    }
}

/// The conditions of an AND.
unsafe fn conjuncts(expression: *mut pg_sys::Node) -> Vec<*mut pg_sys::Node> {
    // SAFETY: the caller passes a live expression.
    unsafe {
        match node::cast::<pg_sys::BoolExpr, _>(expression, NodeTag::T_BoolExpr) {
            Some(both) if (*both).boolop == pg_sys::BoolExprType::AND_EXPR => {
                node::elements((*both).args)
            }
            _ => vec![expression],
        }
    }
}
