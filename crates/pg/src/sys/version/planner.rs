//! The planner's structures, and what the catalogs say about operators.

use crate::sys::node;
use pgrx::pg_sys::{self, Oid};

/// A copy of a part of the query in which columns of joins are those of their inputs.
///
/// # Safety
///
/// A live Query and a part of it.
pub(crate) unsafe fn flatten_joins(
    query: *mut pg_sys::Query,
    part: *mut pg_sys::Node,
) -> *mut pg_sys::Node {
    // SAFETY: the caller vouches for both. Without a planner's state PostgreSQL makes no place holders.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::flatten_join_alias_vars(query, part)
        }
        #[cfg(not(feature = "pg15"))]
        {
            pg_sys::flatten_join_alias_vars(std::ptr::null_mut(), query, part)
        }
    }
}

/// The operator belongs to an order that a btree can have.
///
/// # Safety
///
/// Called in a transaction.
pub(crate) unsafe fn is_in_btree(operator: Oid) -> bool {
    // SAFETY: syscache look-ups by value. The list is only looked at.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        {
            !pg_sys::get_op_btree_interpretation(operator).is_null()
        }
        #[cfg(feature = "pg18")]
        {
            // Other access methods may have orders now.
            let found = pg_sys::get_op_index_interpretation(operator);
            node::elements::<pg_sys::OpIndexInterpretation>(found)
                .into_iter()
                .any(|it| pg_sys::get_opfamily_method((*it).opfamily_id) == pg_sys::BTREE_AM_OID)
        }
    }
}

/// Operator family and strategy of a sort operator of a btree.
///
/// # Safety
///
/// Called in a transaction.
pub(crate) unsafe fn ordering(operator: Oid) -> Option<(Oid, i16)> {
    let (mut family, mut input) = (Oid::INVALID, Oid::INVALID);
    #[cfg(not(feature = "pg18"))]
    let mut way = 0i16;
    #[cfg(feature = "pg18")]
    let mut way: pg_sys::CompareType::Type = pg_sys::CompareType::COMPARE_INVALID;
    // SAFETY: syscache look-ups by value.
    let found = unsafe {
        pg_sys::get_ordering_op_properties(operator, &raw mut family, &raw mut input, &raw mut way)
    };
    found.then_some((family, strategy_of(way)))
}

/// The number that a btree has for it.
#[cfg(not(feature = "pg18"))]
fn strategy_of(strategy: i16) -> i16 {
    strategy
}

/// The number that a btree has for it.
#[cfg(feature = "pg18")]
fn strategy_of(way: pg_sys::CompareType::Type) -> i16 {
    // They are the same (`src/include/access/cmptype.h`).
    way as i16
}

/// The strategy of a path's sort key.
///
/// # Safety
///
/// A live key.
pub(crate) unsafe fn strategy(key: *const pg_sys::PathKey) -> Option<i16> {
    // SAFETY: the caller vouches for the key.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        {
            i16::try_from((*key).pk_strategy).ok()
        }
        #[cfg(feature = "pg18")]
        {
            Some(strategy_of((*key).pk_cmptype))
        }
    }
}

/// The sort key that puts the class in ascending order, NULLs last.
///
/// # Safety
///
/// Live structures of the planner.
pub(crate) unsafe fn ascending_key(
    root: *mut pg_sys::PlannerInfo,
    class: *mut pg_sys::EquivalenceClass,
    family: Oid,
) -> *mut pg_sys::PathKey {
    #[cfg(not(feature = "pg18"))]
    let way = pg_sys::BTLessStrategyNumber as i32;
    #[cfg(feature = "pg18")]
    let way = pg_sys::CompareType::COMPARE_LT;
    // SAFETY: the caller vouches for the structures.
    unsafe { pg_sys::make_canonical_pathkey(root, class, family, way, false) }
}

/// The transition function is that of a sum of intervals whose state is an array of them. Since PostgreSQL 17 the state is
/// internal.
pub(crate) fn is_interval_array(function: u32) -> bool {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    {
        function == pg_sys::F_INTERVAL_ACCUM
    }
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    {
        let _ = function;
        false
    }
}

/// Has aggregates with DISTINCT or ORDER BY sort their arguments themselves. Since PostgreSQL 16 the planner decides before it
/// makes paths that the rows are to come sorted, and marks the aggregates; rows of ours do not.
///
/// # Safety
///
/// Live structures of the planner, at grouping.
pub(crate) unsafe fn sort_in_aggregates(root: *mut pg_sys::PlannerInfo) {
    #[cfg(feature = "pg15")]
    {
        let _ = root;
    }
    // SAFETY: the caller vouches for the planner's structures; the nodes are those of the target lists.
    #[cfg(not(feature = "pg15"))]
    unsafe {
        for info in node::elements::<pg_sys::AggInfo>((*root).agginfos) {
            for aggregate in node::elements::<pg_sys::Aggref>((*info).aggrefs) {
                (*aggregate).aggpresorted = false;
            }
        }
    }
}

/// The comparisons of window functions of this clause below which no further row counts.
///
/// # Safety
///
/// A live clause and live functions of the planner.
pub(crate) unsafe fn run_conditions(
    clause: *mut pg_sys::WindowClause,
    functions: &[*mut pg_sys::WindowFunc],
) -> Vec<*mut pg_sys::Node> {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    {
        let _ = functions;
        // SAFETY: the caller vouches for the clause.
        unsafe { node::elements((*clause).runCondition) }
    }
    // SAFETY: the caller vouches for both. Since PostgreSQL 17 the functions have the parts of which the comparisons are made
    // (`create_one_window_path` of `src/backend/optimizer/plan/planner.c`).
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    unsafe {
        let mut conditions = Vec::new();
        for function in functions.iter().filter(|it| (***it).winref == (*clause).winref) {
            let list = (**function).runCondition;
            for part in node::elements::<pg_sys::WindowFuncRunCondition>(list) {
                let (function, other) = (function.cast::<pg_sys::Expr>(), (*part).arg);
                let (left, right) =
                    if (*part).wfunc_left { (function, other) } else { (other, function) };
                let comparison = pg_sys::make_opclause(
                    (*part).opno,
                    pg_sys::BOOLOID,
                    false,
                    left,
                    right,
                    Oid::INVALID,
                    (*part).inputcollid,
                );
                conditions.push(comparison.cast());
            }
        }
        conditions
    }
}
