//! Expressions that raise no error, whatever rows they are computed of: they may be computed of more rows than the query
//! asks for.
//!
//! Known are columns, comparisons of the server's own types, functions that the server calls leakproof (those may not tell
//! by an error what they have seen), a few more that have no error in them, and aggregates that add up, compare and collect.
//! Sums are taken to stay in their type's range, which only numbers of a hundred thousand digits, or floats beyond
//! 1e308, leave. What has no column in it counts for nothing: the planner computes it in any case.

use crate::read::called::functions_of;
use crate::sys::node::{self, Visit};
use crate::sys::value::FIRST_USER_OID;
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};

/// Functions of the server with no error in them, beside those that it calls leakproof.
const SAFE: [u32; 31] = [
    pg_sys::F_FLOAT8_INT2,
    pg_sys::F_FLOAT4_INT2,
    pg_sys::F_FLOAT8_FLOAT4,
    pg_sys::F_FLOAT8_INT4,
    pg_sys::F_FLOAT4_INT4,
    pg_sys::F_FLOAT8_INT8,
    pg_sys::F_INT4_INT2,
    pg_sys::F_INT8_INT2,
    pg_sys::F_INT8_INT4,
    pg_sys::F_NUMERIC_INT2,
    pg_sys::F_NUMERIC_INT4,
    pg_sys::F_NUMERIC_INT8,
    pg_sys::F_NUMERIC_ADD,
    pg_sys::F_NUMERIC_SUB,
    pg_sys::F_NUMERIC_MUL,
    pg_sys::F_NUMERIC_UMINUS,
    pg_sys::F_NUMERIC_ABS,
    pg_sys::F_ABS_NUMERIC,
    pg_sys::F_LOWER_TEXT,
    pg_sys::F_UPPER_TEXT,
    pg_sys::F_LTRIM_TEXT,
    pg_sys::F_RTRIM_TEXT,
    pg_sys::F_BTRIM_TEXT,
    pg_sys::F_TEXTLEN,
    pg_sys::F_LENGTH_TEXT,
    pg_sys::F_CHARACTER_LENGTH_TEXT,
    pg_sys::F_CHAR_LENGTH_TEXT,
    pg_sys::F_TEXT_BPCHAR,
    pg_sys::F_TEXT_NAME,
    pg_sys::F_TEXT_CHAR,
    pg_sys::F_TEXT_BOOL,
];

/// LIKE, which refuses only a pattern that ends in a backslash.
const LIKE: [u32; 8] = [
    pg_sys::F_TEXTLIKE,
    pg_sys::F_TEXTNLIKE,
    pg_sys::F_BPCHARLIKE,
    pg_sys::F_BPCHARNLIKE,
    pg_sys::F_TEXTICLIKE,
    pg_sys::F_TEXTICNLIKE,
    pg_sys::F_BPCHARICLIKE,
    pg_sys::F_BPCHARICNLIKE,
];

/// An expression, a list of them or a query, none of whose parts raises an error or is volatile. Nothing is said of the
/// SELECT list of the query itself.
///
/// # Safety
///
/// `tree` is null, or live and analysed.
pub(crate) unsafe fn is_infallible<T>(tree: *mut T) -> bool {
    let tree = tree.cast::<pg_sys::Node>();
    // SAFETY: the caller vouches for the tree; each node is cast to the struct of its tag.
    unsafe {
        if tree.is_null() {
            return true;
        }
        !pg_sys::contain_volatile_functions(tree)
            && !node::walk(tree, &mut |n| {
                if !matches!(node::tag(n), NodeTag::T_Query) && !depends_on_rows(n) {
                    return Visit::Skip;
                }
                let known = match node::tag(n) {
                    NodeTag::T_Query => {
                        let query = n.cast::<pg_sys::Query>();
                        n == tree || (*query).limitCount.is_null() && (*query).limitOffset.is_null()
                    }
                    NodeTag::T_SubLink => matches!(
                        (*n.cast::<pg_sys::SubLink>()).subLinkType,
                        pg_sys::SubLinkType::EXISTS_SUBLINK | pg_sys::SubLinkType::ANY_SUBLINK
                    ),
                    NodeTag::T_List
                    | NodeTag::T_Var
                    | NodeTag::T_RelabelType
                    | NodeTag::T_CollateExpr
                    | NodeTag::T_BoolExpr
                    | NodeTag::T_BooleanTest
                    | NodeTag::T_NullTest
                    | NodeTag::T_CaseExpr
                    | NodeTag::T_CaseWhen
                    | NodeTag::T_CaseTestExpr
                    | NodeTag::T_CoalesceExpr
                    | NodeTag::T_TargetEntry
                    | NodeTag::T_FromExpr
                    | NodeTag::T_JoinExpr
                    | NodeTag::T_RangeTblRef
                    | NodeTag::T_SortGroupClause
                    | NodeTag::T_SetOperationStmt => true,
                    NodeTag::T_Aggref => is_infallible_aggregate(n.cast()),
                    NodeTag::T_OpExpr | NodeTag::T_DistinctExpr | NodeTag::T_NullIfExpr => {
                        // The three are one struct.
                        let op = n.cast::<pg_sys::OpExpr>();
                        calls_known(n, (*op).opno, (*op).args)
                    }
                    NodeTag::T_ScalarArrayOpExpr => {
                        let op = n.cast::<pg_sys::ScalarArrayOpExpr>();
                        calls_known(n, (*op).opno, (*op).args)
                    }
                    NodeTag::T_FuncExpr => {
                        calls_known(n, Oid::INVALID, (*n.cast::<pg_sys::FuncExpr>()).args)
                    }
                    _ => false,
                };
                if known { Visit::Into } else { Visit::Stop }
            })
    }
}

/// An aggregate that raises no error for a group of rows, as far as it is concerned itself.
///
/// # Safety
///
/// A live aggregate.
pub(crate) unsafe fn is_infallible_aggregate(aggregate: *mut pg_sys::Aggref) -> bool {
    // SAFETY: the caller vouches for the node; syscache look-ups by value.
    unsafe {
        if (*aggregate).aggkind as u8 != b'n' || (*aggregate).aggfnoid.to_u32() >= FIRST_USER_OID {
            return false;
        }
        let first = || {
            let argument: *mut pg_sys::TargetEntry = node::nth((*aggregate).args, 0);
            pg_sys::exprType((*argument).expr.cast())
        };
        let is_of_server =
            |known: Oid| known.to_u32() < FIRST_USER_OID && !pg_sys::type_is_rowtype(known);
        match node::text_of(pg_sys::get_func_name((*aggregate).aggfnoid)).as_str() {
            "count" | "bool_and" | "bool_or" | "every" | "string_agg" => true,
            "sum" | "avg" => is_number(first()),
            "stddev" | "stddev_pop" | "stddev_samp" | "variance" | "var_pop" | "var_samp" => {
                is_number(first()) && !matches!(first(), pg_sys::FLOAT4OID | pg_sys::FLOAT8OID)
            }
            "bit_and" | "bit_or" | "bit_xor" => {
                matches!(first(), pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID)
            }
            "min" | "max" => {
                let of = first();
                let element = pg_sys::get_element_type(of);
                (is_of_server(of) || pg_sys::type_is_enum(of))
                    && (element == Oid::INVALID || is_of_server(element))
            }
            "array_agg" => {
                is_of_server(first()) && pg_sys::get_element_type(first()) == Oid::INVALID
            }
            _ => false,
        }
    }
}

fn is_number(of: Oid) -> bool {
    matches!(
        of,
        pg_sys::INT2OID
            | pg_sys::INT4OID
            | pg_sys::INT8OID
            | pg_sys::NUMERICOID
            | pg_sys::FLOAT4OID
            | pg_sys::FLOAT8OID
    )
}

/// The node has a column below it, or something that is computed of rows.
unsafe fn depends_on_rows(n: *mut pg_sys::Node) -> bool {
    // SAFETY: a live node.
    unsafe {
        node::walk(n, &mut |part| match node::tag(part) {
            NodeTag::T_Var
            | NodeTag::T_Aggref
            | NodeTag::T_WindowFunc
            | NodeTag::T_GroupingFunc
            | NodeTag::T_SubLink
            | NodeTag::T_CaseTestExpr
            | NodeTag::T_Query => Visit::Stop,
            _ => Visit::Into,
        })
    }
}

/// The functions that the node itself calls are known, as is the operator if there is one.
unsafe fn calls_known(n: *mut pg_sys::Node, operator: Oid, arguments: *mut pg_sys::List) -> bool {
    // SAFETY: a live node with its arguments; syscache look-ups by value.
    unsafe {
        let arguments: Vec<*mut pg_sys::Node> = node::elements(arguments);
        functions_of(n).into_iter().all(|function| {
            if function.to_u32() >= FIRST_USER_OID {
                return false;
            }
            let number = function.to_u32();
            let has_plain_pattern = || {
                arguments.get(1).is_some_and(|pattern| {
                    node::cast::<pg_sys::Const, _>(
                        crate::read::facts::strip_relabel(*pattern),
                        NodeTag::T_Const,
                    )
                    .is_some_and(|pattern| !(*pattern).constisnull && !has_backslash(pattern))
                })
            };
            SAFE.contains(&number)
                || pg_sys::get_func_leakproof(function)
                || operator != Oid::INVALID && compares(operator, &arguments)
                || LIKE.contains(&number) && has_plain_pattern()
        })
    }
}

/// The text has a backslash in it.
unsafe fn has_backslash(text: *mut pg_sys::Const) -> bool {
    // SAFETY: LIKE's pattern is a text, and not NULL.
    unsafe {
        let text = pg_sys::text_to_cstring((*text).constvalue.cast_mut_ptr());
        node::text_of(text).contains('\\')
    }
}

/// The operator belongs to the order or the equality of a type of the server's that is no row.
unsafe fn compares(operator: Oid, arguments: &[*mut pg_sys::Node]) -> bool {
    // SAFETY: live expressions; syscache look-ups by value. The list is of OIDs' owners and only looked at.
    unsafe {
        let is_plain = |argument: &*mut pg_sys::Node| {
            let of = pg_sys::exprType(*argument);
            let element = pg_sys::get_element_type(of);
            let of = if element == Oid::INVALID { of } else { element };
            !pg_sys::type_is_rowtype(of)
                && !matches!(of, pg_sys::RECORDOID | pg_sys::RECORDARRAYOID)
        };
        arguments.iter().all(is_plain)
            && (version::is_in_btree(operator)
                || pg_sys::op_hashjoinable(operator, pg_sys::exprType(arguments[0])))
    }
}
