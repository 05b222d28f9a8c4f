//! What may run where: expressions and functions that a worker computes with the same outcome as we do.

use crate::print::foldable::Foldable;
use crate::read::called::functions_of;
use crate::read::lent;
use crate::sys::node::{self, Visit};
use crate::sys::value::FIRST_USER_OID;
use pgrx::pg_sys::{self, NodeTag, Oid};

/// An expression that a worker can compute with the same outcome, from columns for which `own` holds, in a session of `user`:
/// the owner of a view, or (zero) the current user.
///
/// # Safety
///
/// `clause` is a live expression of the planner.
pub(crate) unsafe fn is_shippable(
    clause: *mut pg_sys::Node,
    own: &dyn Fn(&pg_sys::Var) -> bool,
    init_params: &[i32],
    aggregates: bool,
    user: Oid,
) -> bool {
    // SAFETY: the caller vouches for the clause.
    unsafe {
        let foldable = Foldable::of(clause, init_params);
        !node::walk(clause, &mut |n| {
            if user != Oid::INVALID && !lent::needs(n).can_be_lent_by(user) {
                return Visit::Stop;
            }
            if foldable.has(n, false) {
                return Visit::Skip;
            }
            match node::tag(n) {
                NodeTag::T_Var => {
                    let var = n.cast::<pg_sys::Var>();
                    let ours = (*var).varlevelsup == 0 && own(&*var);
                    // Of system columns a node has other values, or (`ctid`) only a part; see `crate::read::tid`.
                    if ours && (*var).varattno > 0 { Visit::Into } else { Visit::Stop }
                }
                NodeTag::T_Aggref if !aggregates => Visit::Stop,
                // Its arguments have to be the keys as they are printed there.
                NodeTag::T_GroupingFunc if aggregates => {
                    let arguments =
                        node::elements::<pg_sys::Node>((*n.cast::<pg_sys::GroupingFunc>()).args);
                    let plain = arguments.iter().all(|one| node::tag(*one) == NodeTag::T_Var);
                    if plain { Visit::Into } else { Visit::Stop }
                }
                NodeTag::T_Param
                | NodeTag::T_SubLink
                | NodeTag::T_SubPlan
                | NodeTag::T_AlternativeSubPlan
                | NodeTag::T_GroupingFunc
                | NodeTag::T_WindowFunc
                | NodeTag::T_CurrentOfExpr
                | NodeTag::T_NextValueExpr
                | NodeTag::T_SQLValueFunction
                | NodeTag::T_ConvertRowtypeExpr => Visit::Stop,
                NodeTag::T_RowExpr if is_row_of_relation(n.cast()) => Visit::Stop,
                NodeTag::T_CollateExpr | NodeTag::T_RelabelType if uses_user_collation(n) => {
                    Visit::Stop
                }
                _ => {
                    let shippable = functions_of(n).into_iter().all(|function| {
                        let volatility = pg_sys::func_volatile(function) as u8;
                        function.to_u32() < FIRST_USER_OID
                            && volatility != pg_sys::PROVOLATILE_VOLATILE
                            && !(volatility == pg_sys::PROVOLATILE_STABLE
                                && reads_local_state(function))
                    });
                    if shippable { Visit::Into } else { Visit::Stop }
                }
            }
        })
    }
}

/// A row whose fields have names that `ROW(...)` does not give them (that of a join or a sub-query), or the type of a
/// table or view, which the workers do not have.
pub(crate) unsafe fn is_row_of_relation(row: *mut pg_sys::RowExpr) -> bool {
    // SAFETY: the caller passes a live row; its names are String nodes; syscache look-ups by value.
    unsafe {
        if (*row).row_typeid != pg_sys::RECORDOID {
            let relation = pg_sys::get_typ_typrelid((*row).row_typeid);
            return pg_sys::get_rel_relkind(relation) as u8 != pg_sys::RELKIND_COMPOSITE_TYPE;
        }
        let names = node::elements::<pg_sys::String>((*row).colnames);
        (1..).zip(names).any(|(number, name)| node::text_of((*name).sval) != format!("f{number}"))
    }
}

/// An expression that can be computed before any row is read.
pub(crate) unsafe fn is_plain_value(n: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller passes a live expression.
    unsafe { is_known_before_reading(n, &[]) }
}

/// The same in a plan, where sub-queries that are executed once, before, set these parameters.
pub(crate) unsafe fn is_known_before_reading(n: *mut pg_sys::Node, init_params: &[i32]) -> bool {
    // SAFETY: the caller passes a live expression.
    unsafe {
        !node::walk(n, &mut |part| match node::tag(part) {
            NodeTag::T_Var
            | NodeTag::T_Aggref
            | NodeTag::T_WindowFunc
            | NodeTag::T_GroupingFunc
            | NodeTag::T_SubLink
            | NodeTag::T_Query
            | NodeTag::T_SetToDefault
            | NodeTag::T_CaseTestExpr => Visit::Stop,
            NodeTag::T_Param
                if (*part.cast::<pg_sys::Param>()).paramkind != pg_sys::ParamKind::PARAM_EXTERN
                    && !init_params.contains(&(*part.cast::<pg_sys::Param>()).paramid) =>
            {
                Visit::Stop
            }
            _ => Visit::Into,
        }) && !pg_sys::contain_volatile_functions(n)
    }
}

/// A function of this session's temporary schema, which no other session has.
pub(crate) fn is_temporary(function: Oid) -> bool {
    // SAFETY: syscache look-ups by value.
    function.to_u32() >= FIRST_USER_OID
        && unsafe { pg_sys::isAnyTempNamespace(pg_sys::get_func_namespace(function)) }
}

/// The expression's own or input collation is a user's and not that of a column, which the shards have.
unsafe fn uses_user_collation(n: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller passes a live expression; each node is cast to the struct of its tag.
    unsafe {
        let collation = match node::tag(n) {
            NodeTag::T_CollateExpr => (*n.cast::<pg_sys::CollateExpr>()).collOid,
            NodeTag::T_RelabelType => (*n.cast::<pg_sys::RelabelType>()).resultcollid,
            _ => return false,
        };
        collation.to_u32() >= FIRST_USER_OID
    }
}

/// Values of the type name an object of this server.
pub(crate) fn names_object(type_oid: Oid) -> bool {
    [
        pg_sys::REGCLASSOID,
        pg_sys::REGTYPEOID,
        pg_sys::REGPROCOID,
        pg_sys::REGPROCEDUREOID,
        pg_sys::REGOPEROID,
        pg_sys::REGOPERATOROID,
        pg_sys::REGROLEOID,
        pg_sys::REGNAMESPACEOID,
        pg_sys::REGCOLLATIONOID,
    ]
    .contains(&type_oid)
}

/// A stable function of the server whose answer depends on the node it runs on.
///
/// Decided by its name and types: functions of the catalogs and of names, settings, privileges, sizes.
pub(crate) fn reads_local_state(function: Oid) -> bool {
    // SAFETY: syscache look-ups by value; the name is palloced.
    unsafe {
        let name = node::text_of(pg_sys::get_func_name(function));
        let result = pg_sys::get_func_rettype(function);
        names_object(result)
            || [
                "pg_",
                "has_",
                "to_reg",
                "reg",
                "inet_",
                "txid_",
                "to_tsvector",
                "to_tsquery",
                "plainto_tsquery",
                "phraseto_tsquery",
                "websearch_to_tsquery",
                "ts_headline",
                "obj_",
                "col_",
                "shobj_",
                "current_",
                "format_type",
            ]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            // Of queries, tables, schemas and databases.
            || name.contains("_to_xml")
            // By the default configuration of text search.
            || name.contains("_to_tsvector")
            || [
                "row_security_active",
                "currtid2",
                "getpgusername",
                "session_user",
                "get_current_ts_config",
                "ts_match_tt",
                "ts_match_tq",
            ]
            .contains(&name.as_str())
    }
}
