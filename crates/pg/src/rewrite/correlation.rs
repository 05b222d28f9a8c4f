//! How a sub-query depends on the query around it, and parts of queries that are made when it becomes a join.

use crate::sys::node::{self, Visit};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::ffi::c_int;

pub(super) mod raw {
    //! Not among pgrx' bindings, so without its guard: the caller puts it around.
    use pgrx::pg_sys;
    use std::ffi::c_int;
    unsafe extern "C-unwind" {
        /// Guarded.
        pub(in crate::rewrite) fn IncrementVarSublevelsUp(
            node: *mut pg_sys::Node,
            delta: c_int,
            least: c_int,
        );
    }
}

pub(crate) unsafe fn has_sublink(query: *mut pg_sys::Query) -> bool {
    // SAFETY: the caller passes a live Query.
    unsafe {
        node::walk(query, &mut |n| match node::tag(n) {
            NodeTag::T_SubLink => Visit::Stop,
            _ => Visit::Into,
        })
    }
}

/// The parts of a condition that must all hold.
pub(crate) unsafe fn conjuncts_of(condition: *mut pg_sys::Node) -> Vec<*mut pg_sys::Node> {
    node::check_depth();
    // SAFETY: null or a live expression.
    unsafe {
        if condition.is_null() {
            return Vec::new();
        }
        match node::cast::<pg_sys::BoolExpr, _>(condition, NodeTag::T_BoolExpr) {
            Some(all) if (*all).boolop == pg_sys::BoolExprType::AND_EXPR => {
                node::elements::<pg_sys::Node>((*all).args)
                    .into_iter()
                    .flat_map(|part| conjuncts_of(part))
                    .collect()
            }
            _ => vec![condition],
        }
    }
}

/// An equality between an expression of the sub-query and one of the query around it.
pub(crate) struct Correlation {
    /// The comparison.
    pub(crate) clause: *mut pg_sys::OpExpr,
    /// Which argument is the sub-query's.
    pub(crate) inner: usize,
}

/// Makes `below` a relation of the query, which nothing refers to yet; its number.
pub(crate) unsafe fn add_relation(query: *mut pg_sys::Query, below: *mut pg_sys::Query) -> c_int {
    // SAFETY: private, live queries; nodes are made with the structs of their tags.
    unsafe {
        let entry: *mut pg_sys::RangeTblEntry = node::make(NodeTag::T_RangeTblEntry);
        (*entry).rtekind = pg_sys::RTEKind::RTE_SUBQUERY;
        (*entry).subquery = below;
        let names: Vec<*mut pg_sys::Node> =
            node::elements::<pg_sys::TargetEntry>((*below).targetList)
                .into_iter()
                .filter(|target| !(**target).resjunk)
                .map(|target| node::string_node(&format!("column{}", (*target).resno)))
                .collect();
        (*entry).eref = pg_sys::makeAlias(c"groups".as_ptr(), node::list_of(&names));
        (*entry).inFromCl = true;
        (*query).rtable = pg_sys::lappend((*query).rtable, entry.cast());
        node::length((*query).rtable) as c_int
    }
}

/// A column of `below` as relation `number`.
pub(crate) unsafe fn column(
    below: *mut pg_sys::Query,
    number: c_int,
    index: usize,
) -> *mut pg_sys::Node {
    // SAFETY: a live query with more entries than `index`.
    unsafe {
        let target: *mut pg_sys::TargetEntry = node::nth((*below).targetList, index);
        let expression = (*target).expr.cast::<pg_sys::Node>();
        pg_sys::makeVar(
            number,
            index as i16 + 1,
            pg_sys::exprType(expression),
            pg_sys::exprTypmod(expression),
            pg_sys::exprCollation(expression),
            0,
        )
        .cast()
    }
}

pub(crate) unsafe fn replace_argument(
    op: *mut pg_sys::OpExpr,
    place: usize,
    value: *mut pg_sys::Node,
) {
    // SAFETY: a private operator of two arguments.
    unsafe {
        let mut arguments = node::elements::<pg_sys::Node>((*op).args);
        arguments[place] = value;
        (*op).args = node::list_of(&arguments);
    }
}

pub(crate) unsafe fn and(left: *mut pg_sys::Node, right: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: null or live expressions; the node is made with the struct of its tag.
    unsafe {
        if left.is_null() {
            return right;
        }
        let all: *mut pg_sys::BoolExpr = node::make(NodeTag::T_BoolExpr);
        (*all).boolop = pg_sys::BoolExprType::AND_EXPR;
        (*all).args = node::list_of(&[left, right]);
        (*all).location = -1;
        all.cast()
    }
}

/// What correlates the sub-query, if it is one aggregate that is NULL of no rows and equalities are all that
/// correlates it.
pub(super) unsafe fn correlations_of(below: *mut pg_sys::Query) -> Option<Vec<Correlation>> {
    // SAFETY: the live sub-query of a sub-link.
    unsafe {
        let is_one_aggregate = is_simple(below)
            && (*below).hasAggs
            && (*below).distinctClause.is_null()
            && (*below).limitCount.is_null()
            && node::length((*below).targetList) == 1;
        if !is_one_aggregate {
            return None;
        }
        let target: *mut pg_sys::TargetEntry = node::nth((*below).targetList, 0);
        if !is_null_of_no_rows((*target).expr.cast())
            || refers_above((*target).expr.cast(), 0)
            || pg_sys::contain_volatile_functions((*target).expr.cast())
        {
            return None;
        }
        let (correlations, kept) = split(below)?;
        (*(*below).jointree).quals = kept;
        Some(correlations)
    }
}

/// The equalities that correlate the sub-query and its other conditions, if it depends on the query around by nothing else.
/// The SELECT list is not looked at.
pub(crate) unsafe fn split(
    below: *mut pg_sys::Query,
) -> Option<(Vec<Correlation>, *mut pg_sys::Node)> {
    // SAFETY: the live sub-query of a sub-link.
    unsafe {
        let mut correlations = Vec::new();
        let mut kept: Vec<*mut pg_sys::Node> = Vec::new();
        for conjunct in conjuncts_of((*(*below).jointree).quals) {
            if !refers_above(conjunct, 0) {
                kept.push(conjunct);
                continue;
            }
            correlations.push(correlation(conjunct)?);
        }
        if correlations.is_empty() {
            return None;
        }
        // Nothing else may refer to the query around: not what stands in FROM, either.
        let from: Vec<*mut pg_sys::Node> = node::elements((*(*below).jointree).fromlist);
        if from.into_iter().any(|item| refers_above(item, 0)) {
            return None;
        }
        for entry in node::elements::<pg_sys::RangeTblEntry>((*below).rtable) {
            let parts: [*mut pg_sys::Node; 5] = [
                (*entry).subquery.cast(),
                (*entry).functions.cast(),
                (*entry).values_lists.cast(),
                (*entry).securityQuals.cast(),
                (*entry).tablefunc.cast(),
            ];
            let depth = [1, 0, 0, 0, 0];
            let above = |(part, depth): (&*mut pg_sys::Node, c_int)| {
                !part.is_null() && refers_above_from(*part, depth)
            };
            if parts.iter().zip(depth).any(above) || !(*entry).tablesample.is_null() {
                return None;
            }
        }
        let kept = kept.into_iter().fold(std::ptr::null_mut(), |all, part| and(all, part));
        Some((correlations, kept))
    }
}

/// `inner = outer`, by an equality that can be hashed: so that its groups are those of the inner type.
pub(super) unsafe fn correlation(conjunct: *mut pg_sys::Node) -> Option<Correlation> {
    // SAFETY: a live condition of the sub-query.
    unsafe {
        let clause = node::cast::<pg_sys::OpExpr, _>(conjunct, NodeTag::T_OpExpr)?;
        if node::length((*clause).args) != 2 {
            return None;
        }
        let sides: Vec<*mut pg_sys::Node> = node::elements((*clause).args);
        let is_outer = |side: *mut pg_sys::Node| {
            refers_above(side, 0)
                && !refers_to_level(side, 0)
                && !has_sublink(side.cast())
                && !refers_above(side, 1)
        };
        let is_inner = |side: *mut pg_sys::Node| {
            refers_to_level(side, 0) && !refers_above(side, 0) && !has_sublink(side.cast())
        };
        let inner = if is_inner(sides[0]) && is_outer(sides[1]) {
            0
        } else if is_inner(sides[1]) && is_outer(sides[0]) {
            1
        } else {
            return None;
        };
        let type_oid = pg_sys::exprType(sides[inner]);
        if !pg_sys::op_hashjoinable((*clause).opno, pg_sys::exprType(sides[0]))
            || pg_sys::contain_volatile_functions(conjunct)
            || !crate::read::facts::is_deterministic((*clause).inputcollid)
            || !crate::read::facts::is_deterministic(pg_sys::exprCollation(sides[inner]))
        {
            return None;
        }
        let entry = pg_sys::lookup_type_cache(
            type_oid,
            (pg_sys::TYPECACHE_EQ_OPR
                | pg_sys::TYPECACHE_LT_OPR
                | pg_sys::TYPECACHE_HASH_PROC
                | pg_sys::TYPECACHE_HASH_OPFAMILY) as c_int,
        );
        // What equals one value is one group.
        let groups = (*entry).eq_opr != Oid::INVALID
            && (*entry).lt_opr != Oid::INVALID
            && (*entry).hash_proc != Oid::INVALID
            && pg_sys::get_op_opfamily_strategy((*clause).opno, (*entry).hash_opf) == 1
            && pg_sys::op_strict((*clause).opno);
        groups.then_some(Correlation { clause, inner })
    }
}

/// Groups the sub-query by its sides of the equalities, which become its further columns.
pub(super) unsafe fn group(below: *mut pg_sys::Query, correlations: &[Correlation]) {
    // SAFETY: the private sub-query; nodes are made with the structs of their tags.
    unsafe {
        for (index, correlation) in correlations.iter().enumerate() {
            let expression: *mut pg_sys::Node = node::copy(node::nth::<pg_sys::Node>(
                (*correlation.clause).args,
                correlation.inner,
            ));
            let entry = pg_sys::lookup_type_cache(
                pg_sys::exprType(expression),
                (pg_sys::TYPECACHE_EQ_OPR | pg_sys::TYPECACHE_LT_OPR | pg_sys::TYPECACHE_HASH_PROC)
                    as c_int,
            );
            let number = index as i16 + 2;
            let target = pg_sys::makeTargetEntry(
                expression.cast(),
                number,
                node::c_text(&format!("column{number}")),
                false,
            );
            (*target).ressortgroupref = index as u32 + 1;
            (*below).targetList = pg_sys::lappend((*below).targetList, target.cast());
            let clause: *mut pg_sys::SortGroupClause = node::make(NodeTag::T_SortGroupClause);
            (*clause).tleSortGroupRef = index as u32 + 1;
            (*clause).eqop = (*entry).eq_opr;
            (*clause).sortop = (*entry).lt_opr;
            (*clause).hashable = true;
            (*below).groupClause = pg_sys::lappend((*below).groupClause, clause.cast());
        }
        let first: *mut pg_sys::TargetEntry = node::nth((*below).targetList, 0);
        (*first).ressortgroupref = 0;
        (*below).sortClause = std::ptr::null_mut();
    }
}

/// `(inner, ...) IN (SELECT outer, ... FROM table WHERE filters)` if the outer sides are columns of one table that the
/// outer query filters by itself.
pub(crate) unsafe fn restriction(
    query: *mut pg_sys::Query,
    correlations: &[Correlation],
    others: &[*mut pg_sys::Node],
) -> Option<*mut pg_sys::Node> {
    // SAFETY: live parts of a private Query; what is built is made of copies.
    unsafe {
        let outer_of = |correlation: &Correlation| -> Option<*mut pg_sys::Var> {
            let side: *mut pg_sys::Node =
                node::nth((*correlation.clause).args, 1 - correlation.inner);
            node::cast::<pg_sys::Var, _>(crate::read::facts::strip_relabel(side), NodeTag::T_Var)
        };
        let relation = (*outer_of(correlations.first()?)?).varno;
        let entry: *mut pg_sys::RangeTblEntry = node::nth((*query).rtable, relation as usize - 1);
        if (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION
            || !(*entry).securityQuals.is_null()
            || !(*entry).tablesample.is_null()
        {
            return None;
        }
        let filters: Vec<*mut pg_sys::Node> = others
            .iter()
            .copied()
            .filter(|other| {
                refers_only_to(*other, relation) && !pg_sys::contain_volatile_functions(*other)
            })
            .collect();
        if filters.is_empty() {
            return None;
        }
        let inside: *mut pg_sys::Query = node::make(NodeTag::T_Query);
        (*inside).commandType = pg_sys::CmdType::CMD_SELECT;
        (*inside).canSetTag = true;
        (*inside).rtable = node::list_of(&[version::copy_entry(entry, query, inside)]);
        let reference: *mut pg_sys::RangeTblRef = node::make(NodeTag::T_RangeTblRef);
        (*reference).rtindex = 1;
        let condition = filters
            .into_iter()
            .fold(std::ptr::null_mut(), |all, filter| and(all, renumbered(filter, relation, 0)));
        (*inside).hasSubLinks = has_sublink(condition.cast());
        (*inside).jointree = pg_sys::makeFromExpr(node::list_of(&[reference]), condition);
        let (mut targets, mut tests) = (Vec::new(), std::ptr::null_mut());
        for (index, correlation) in correlations.iter().enumerate() {
            if (*outer_of(correlation)?).varno != relation {
                return None;
            }
            let side: *mut pg_sys::Node = node::copy(node::nth::<pg_sys::Node>(
                (*correlation.clause).args,
                1 - correlation.inner,
            ));
            pg_sys::ffi::pg_guard_ffi_boundary(|| raw::IncrementVarSublevelsUp(side, -1, 1));
            let side = renumbered(side, relation, 0);
            let number = index as i16 + 1;
            let name = node::c_text(&format!("column{number}"));
            targets.push(pg_sys::makeTargetEntry(side.cast(), number, name, false));
            let param: *mut pg_sys::Param = node::make(NodeTag::T_Param);
            (*param).paramkind = pg_sys::ParamKind::PARAM_SUBLINK;
            (*param).paramid = c_int::from(number);
            (*param).paramtype = pg_sys::exprType(side);
            (*param).paramtypmod = pg_sys::exprTypmod(side);
            (*param).paramcollid = pg_sys::exprCollation(side);
            (*param).location = -1;
            // The sub-query's side stands on the left, as IN wants it.
            let test: *mut pg_sys::OpExpr = node::copy(correlation.clause);
            if correlation.inner == 1 {
                let commuted = pg_sys::get_commutator((*test).opno);
                if commuted == Oid::INVALID {
                    return None;
                }
                (*test).opno = commuted;
                (*test).opfuncid = pg_sys::get_opcode(commuted);
            }
            let inner: *mut pg_sys::Node = node::copy(node::nth::<pg_sys::Node>(
                (*correlation.clause).args,
                correlation.inner,
            ));
            (*test).args = node::list_of(&[inner, param.cast()]);
            tests = and(tests, test.cast());
        }
        (*inside).targetList = node::list_of(&targets);
        let link: *mut pg_sys::SubLink = node::make(NodeTag::T_SubLink);
        (*link).subLinkType = pg_sys::SubLinkType::ANY_SUBLINK;
        (*link).testexpr = tests;
        (*link).subselect = inside.cast();
        (*link).location = -1;
        Some(link.cast())
    }
}

/// A copy in which relation `from` of level `depth` is relation 1.
pub(super) unsafe fn renumbered(
    n: *mut pg_sys::Node,
    from: c_int,
    depth: u32,
) -> *mut pg_sys::Node {
    // SAFETY: a live expression; the copy is private.
    unsafe {
        node::rewrite(n, &mut |part| {
            if let Some(var) = node::cast::<pg_sys::Var, _>(part, NodeTag::T_Var)
                && (*var).varlevelsup == depth
                && (*var).varno == from
            {
                let own: *mut pg_sys::Var = node::copy(var);
                (*own).varno = 1;
                (*own).varnosyn = 1;
                return Some(own.cast());
            }
            if part != n && node::tag(part) == NodeTag::T_Query {
                return Some(renumbered(part, from, depth + 1));
            }
            None
        })
    }
}

/// All columns of the condition's own level are that relation's, and none is of a level above.
pub(super) unsafe fn refers_only_to(condition: *mut pg_sys::Node, relation: c_int) -> bool {
    // SAFETY: a live condition.
    unsafe {
        !refers_above(condition, 0)
            && levels(condition, 0, &mut |var, depth| {
                (*var).varlevelsup != depth || (*var).varno == relation
            })
            && refers_to_level(condition, 0)
    }
}

/// A column of a query `depth` levels or more above that which the node belongs to, itself not counted.
pub(crate) unsafe fn refers_above(n: *mut pg_sys::Node, depth: u32) -> bool {
    // SAFETY: a live expression.
    unsafe { !levels(n, 0, &mut |var, own| (*var).varlevelsup <= own + depth) }
}

/// The same of what lies one level deeper already, if `deeper` is one.
pub(super) unsafe fn refers_above_from(n: *mut pg_sys::Node, deeper: c_int) -> bool {
    // SAFETY: a live expression, or a live Query if it is deeper.
    unsafe {
        if deeper == 0 {
            return refers_above(n, 0);
        }
        !levels_of_query(n.cast(), 1, &mut |var, own| (*var).varlevelsup <= own)
    }
}

/// A column of the query that the node belongs to, or `level` above it.
pub(super) unsafe fn refers_to_level(n: *mut pg_sys::Node, level: u32) -> bool {
    // SAFETY: a live expression.
    unsafe { !levels(n, 0, &mut |var, own| (*var).varlevelsup != own + level) }
}

/// All columns pass the test, which is told how deep in sub-queries each stands. Aggregates of levels above and
/// references to WITH clauses there do not pass.
pub(super) unsafe fn levels(
    n: *mut pg_sys::Node,
    depth: u32,
    test: &mut dyn FnMut(*mut pg_sys::Var, u32) -> bool,
) -> bool {
    // SAFETY: a live expression; each node is cast to the struct of its tag.
    unsafe {
        !node::walk(n, &mut |part| match node::tag(part) {
            NodeTag::T_Var => {
                if test(part.cast(), depth) {
                    Visit::Into
                } else {
                    Visit::Stop
                }
            }
            NodeTag::T_Aggref if (*part.cast::<pg_sys::Aggref>()).agglevelsup > depth => {
                Visit::Stop
            }
            NodeTag::T_PlaceHolderVar => Visit::Stop,
            NodeTag::T_Query => {
                if levels_of_query(part.cast(), depth + 1, test) {
                    Visit::Skip
                } else {
                    Visit::Stop
                }
            }
            _ => Visit::Into,
        })
    }
}

pub(super) unsafe fn levels_of_query(
    query: *mut pg_sys::Query,
    depth: u32,
    test: &mut dyn FnMut(*mut pg_sys::Var, u32) -> bool,
) -> bool {
    node::check_depth();
    // SAFETY: a live Query.
    unsafe {
        let refers_to_with =
            node::elements::<pg_sys::RangeTblEntry>((*query).rtable).into_iter().any(|entry| {
                (*entry).rtekind == pg_sys::RTEKind::RTE_CTE && (*entry).ctelevelsup >= depth
            });
        if refers_to_with {
            return false;
        }
        let mut passes = true;
        node::walk(query, &mut |part| {
            if part == query.cast() {
                return Visit::Into;
            }
            let one = match node::tag(part) {
                NodeTag::T_Var => test(part.cast(), depth),
                NodeTag::T_Aggref => (*part.cast::<pg_sys::Aggref>()).agglevelsup <= depth,
                NodeTag::T_Query => {
                    let below = levels_of_query(part.cast(), depth + 1, test);
                    passes &= below;
                    return if below { Visit::Skip } else { Visit::Stop };
                }
                _ => true,
            };
            passes &= one;
            if one { Visit::Into } else { Visit::Stop }
        });
        passes
    }
}

/// The expression is NULL if its aggregates are, and they are, of no rows.
pub(super) unsafe fn is_null_of_no_rows(expression: *mut pg_sys::Node) -> bool {
    // SAFETY: a live expression; what is folded is a private copy.
    unsafe {
        let counts = node::walk(expression, &mut |n| match node::cast::<pg_sys::Aggref, _>(
            n,
            NodeTag::T_Aggref,
        ) {
            Some(aggregate) => {
                let own = (*aggregate).aggfnoid.to_u32() < crate::sys::value::FIRST_USER_OID;
                let name = node::text_of(pg_sys::get_func_name((*aggregate).aggfnoid));
                let known =
                    ["sum", "avg", "min", "max", "stddev", "variance", "bool_and", "bool_or"];
                if own && known.contains(&name.as_str()) { Visit::Skip } else { Visit::Stop }
            }
            None => Visit::Into,
        });
        if counts || has_sublink(expression.cast()) {
            return false;
        }
        let nothing = node::rewrite(expression, &mut |n| {
            node::cast::<pg_sys::Aggref, _>(n, NodeTag::T_Aggref)?;
            let null = pg_sys::makeNullConst(
                pg_sys::exprType(n),
                pg_sys::exprTypmod(n),
                pg_sys::exprCollation(n),
            );
            Some(null.cast())
        });
        let folded = pg_sys::eval_const_expressions(std::ptr::null_mut(), nothing);
        node::cast::<pg_sys::Const, _>(folded, NodeTag::T_Const)
            .is_some_and(|constant| (*constant).constisnull)
    }
}

/// One SELECT of rows or of aggregates over all of them.
pub(crate) unsafe fn is_simple(below: *mut pg_sys::Query) -> bool {
    // SAFETY: a live query.
    unsafe {
        (*below).commandType == pg_sys::CmdType::CMD_SELECT
            && !(*below).hasWindowFuncs
            && !(*below).hasTargetSRFs
            && !(*below).hasModifyingCTE
            && !(*below).hasForUpdate
            && (*below).groupClause.is_null()
            && (*below).groupingSets.is_null()
            && (*below).havingQual.is_null()
            && (*below).setOperations.is_null()
            && (*below).cteList.is_null()
            && (*below).limitOffset.is_null()
            && !(*below).jointree.is_null()
    }
}

/// Row security or a security barrier guards a table of the query.
pub(super) unsafe fn is_guarded(below: *mut pg_sys::Query) -> bool {
    // SAFETY: a live query.
    unsafe {
        node::walk(below, &mut |n| {
            let Some(query) = node::cast::<pg_sys::Query, _>(n, NodeTag::T_Query) else {
                return Visit::Into;
            };
            let guarded =
                node::elements::<pg_sys::RangeTblEntry>((*query).rtable).into_iter().any(|entry| {
                    !(*entry).securityQuals.is_null()
                        || (*entry).security_barrier
                        || !(*entry).tablesample.is_null()
                });
            if guarded { Visit::Stop } else { Visit::Into }
        })
    }
}
