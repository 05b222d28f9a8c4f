//! Sorted streams as inputs: paths of a relation whose rows each node sorts and whose streams are merged here, where a merge join,
//! groups, windows or the query's own order above can make use of the order.
//!
//! Such a path is one more beside the plain path, with pathkeys; costs choose. Which orders are worth a path is asked of the
//! planner: that of the query (`query_pathkeys`, which is that of its groups or windows where it has any), and one for each clause by
//! which the relation may still be merge-joined. What a node can be asked to sort by has the same rules as
//! ORDER BY has (`upper.rs`).
//!
//! Two streams from the same nodes cannot flow at once: a node has one session, so the rows of the one that was begun first
//! are kept here before the second begins. That is paid for in the costs of orders for joins.

use crate::extension::extension;
use crate::path::base;
use crate::path::pushed::{self, Order, Pushed};
use crate::path::remote::Item;
use crate::path::upper_path;
use crate::sys::node;
use crate::sys::version;
use pgrx::pg_sys::{self, Oid};
use planner::cost;

/// More orders than these are not offered for a relation.
const MOST_ORDERS: usize = 5;

/// The paths in order that are worth to be offered beside `path`, which is all of `rel` or (with filters that are applied
/// here) what the nodes can make of it. They are to be made before the planner has judged `path`, and may have freed it.
///
/// # Safety
///
/// The planner's live structures.
pub(crate) unsafe fn beside(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    path: *mut pg_sys::CustomPath,
) -> Vec<*mut pg_sys::Path> {
    // SAFETY: the caller vouches for the planner's structures.
    unsafe {
        let Some(below) = pushed::attached(path.cast()) else { return Vec::new() };
        let locks = |item: &Item| match item {
            Item::Table(relation) => base::lock_clause(base::entry_of(root, *relation)).is_some(),
            _ => false,
        };
        if !extension().pushes_down()
            || (*(*root).parse).commandType != pg_sys::CmdType::CMD_SELECT
            || !(*(*root).parse).rowMarks.is_null()
            || !(*root).rowMarks.is_null()
            || !(*path).path.param_info.is_null()
            || !(*rel).lateral_relids.is_null()
            || below.remote.items.iter().any(locks)
        {
            return Vec::new();
        }
        let mut orders: Vec<(*mut pg_sys::List, bool)> = Vec::new();
        if !(*root).query_pathkeys.is_null() {
            orders.push(((*root).query_pathkeys, false));
        }
        for class in joined_by(root, rel) {
            let family = (*(*(*class).ec_opfamilies).elements).oid_value;
            let key = version::ascending_key(root, class, family);
            let keys = pg_sys::lappend(std::ptr::null_mut(), key.cast());
            let is_known = |(known, _): &(*mut pg_sys::List, bool)| {
                pg_sys::compare_pathkeys(*known, keys) == pg_sys::PathKeysComparison::PATHKEYS_EQUAL
            };
            if !orders.iter().any(is_known) {
                orders.push((keys, true));
            }
        }
        orders.truncate(MOST_ORDERS);
        orders
            .into_iter()
            .filter_map(|(keys, spools)| {
                let order = order_by(rel, &below, keys)?;
                let sorted = upper_path::merged(path, &below, order);
                (*sorted).path.pathkeys = keys;
                let (plain, rows) = ((*path).path.total_cost, (*path).path.rows);
                let total = &mut (*sorted).path.total_cost;
                *total = cost::beside_plain(plain, *total, rows, spools);
                Some(sorted.cast())
            })
            .collect()
    }
}

/// The equivalence classes by which the relation may be merge-joined with others.
unsafe fn joined_by(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
) -> Vec<*mut pg_sys::EquivalenceClass> {
    // SAFETY: the caller vouches for the planner's structures.
    unsafe {
        let mut found: Vec<*mut pg_sys::EquivalenceClass> = Vec::new();
        if (*rel).has_eclass_joins {
            let classes = node::elements::<pg_sys::EquivalenceClass>((*root).eq_classes);
            found.extend(
                classes
                    .into_iter()
                    .filter(|class| pg_sys::eclass_useful_for_merging(root, *class, rel)),
            );
        }
        // Clauses of outer joins, whose sides are in no class together.
        for info in node::elements::<pg_sys::RestrictInfo>((*rel).joininfo) {
            if (*info).mergeopfamilies.is_null() {
                continue;
            }
            pg_sys::update_mergeclause_eclasses(root, info);
            for class in [(*info).left_ec, (*info).right_ec] {
                if pg_sys::bms_overlap((*rel).relids, (*class).ec_relids) && !found.contains(&class)
                {
                    found.push(class);
                }
            }
        }
        found.retain(|class| !(**class).ec_has_volatile && !(**class).ec_has_const);
        found
    }
}

/// The keys as a node can sort by them; none if it cannot by one of them.
pub(crate) unsafe fn order_by(
    rel: *mut pg_sys::RelOptInfo,
    below: &Pushed,
    keys: *mut pg_sys::List,
) -> Option<Vec<Order>> {
    // SAFETY: the caller vouches for the planner's structures.
    unsafe {
        node::elements::<pg_sys::PathKey>(keys)
            .into_iter()
            .map(|key| {
                let class = (*key).pk_eclass;
                let member = node::elements::<pg_sys::EquivalenceMember>((*class).ec_members)
                    .into_iter()
                    .find(|member| {
                        let expression = (**member).em_expr.cast();
                        !(**member).em_is_const
                            && !(**member).em_is_child
                            && pg_sys::bms_is_subset((**member).em_relids, (*rel).relids)
                            && !upper_path::is_free_of_columns(expression)
                            && pg_sys::exprCollation(expression) == (*class).ec_collation
                            && upper_path::is_sorted_alike_everywhere(expression)
                            && below.remote.can_compute(expression, false)
                    })?;
                let expression: *mut pg_sys::Node = (*member).em_expr.cast();
                let strategy = version::strategy(key)?;
                let operator = pg_sys::get_opfamily_member(
                    (*key).pk_opfamily,
                    (*member).em_datatype,
                    (*member).em_datatype,
                    strategy,
                );
                // What goes without saying in ORDER BY.
                let usual =
                    pg_sys::GetDefaultOpClass(pg_sys::exprType(expression), pg_sys::BTREE_AM_OID);
                if operator == Oid::INVALID
                    || usual == Oid::INVALID
                    || pg_sys::get_opclass_family(usual) != (*key).pk_opfamily
                {
                    return None;
                }
                Some(Order {
                    expression,
                    descending: strategy == pg_sys::BTGreaterStrategyNumber as i16,
                    nulls_first: (*key).pk_nulls_first,
                    operator,
                })
            })
            .collect()
    }
}
