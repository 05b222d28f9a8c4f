//! Assignments in the form in which ruleutils prints them.
//!
//! The rewriter sorts the assignments of a target list by column, and makes one expression of all assignments to parts
//! of one column (`rewriteTargetListIU` and `process_matched_tle` in `src/backend/rewrite/rewriteHandler.c`). Ruleutils
//! expects them as the parser made them: it pairs the columns of `(a, b) = (SELECT ...)` by their positions, and of a
//! column's parts it prints the outermost one (`get_update_query_targetlist_def` and `processIndirection` in
//! `src/backend/utils/adt/ruleutils.c`). So the rewriter's work is undone here: each assignment becomes an entry of its
//! own again, and the columns that are assigned together stand together.

use crate::sys::node;
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};

/// An entry of a target list on its way to its place.
struct Assignment {
    entry: *mut pg_sys::TargetEntry,
    /// Number of the sub-query that yields the value, and the number of the value among its outputs.
    together: Option<(i32, i32)>,
}

/// Puts the assignments of a query that writes, and of its ON CONFLICT and MERGE clauses, as ruleutils prints them.
pub(crate) unsafe fn untangle(query: *mut pg_sys::Query) {
    // SAFETY: the caller passes a private, live copy of a Query that writes.
    unsafe {
        let target: *mut pg_sys::RangeTblEntry =
            node::nth((*query).rtable, (*query).resultRelation as usize - 1);
        let table = (*target).relid;
        match (*query).commandType {
            pg_sys::CmdType::CMD_INSERT => (*query).targetList = split((*query).targetList, true),
            pg_sys::CmdType::CMD_UPDATE => {
                (*query).targetList = assignments((*query).targetList, table);
            }
            _ => {}
        }
        let conflict = (*query).onConflict;
        if !conflict.is_null() && (*conflict).action == pg_sys::OnConflictAction::ONCONFLICT_UPDATE
        {
            (*conflict).onConflictSet = assignments((*conflict).onConflictSet, table);
        }
        for action in node::elements::<pg_sys::MergeAction>((*query).mergeActionList) {
            match (*action).commandType {
                pg_sys::CmdType::CMD_INSERT => {
                    (*action).targetList = split((*action).targetList, true);
                }
                pg_sys::CmdType::CMD_UPDATE => {
                    (*action).targetList = assignments((*action).targetList, table);
                }
                _ => {}
            }
        }
    }
}

/// The assignments of an UPDATE.
unsafe fn assignments(list: *mut pg_sys::List, table: Oid) -> *mut pg_sys::List {
    // SAFETY: the caller passes a target list of a private copy.
    unsafe {
        let list = group(split(list, false));
        let assigns = |entry: &*mut pg_sys::TargetEntry| !(**entry).resjunk;
        if node::elements::<pg_sys::TargetEntry>(list).iter().any(assigns) {
            return list;
        }
        match default_of_generated_column(table) {
            Some(entry) => pg_sys::lcons(entry.cast(), list),
            None => list,
        }
    }
}

/// `column = DEFAULT` for a generated column. The rewriter drops such assignments, of which nothing comes, and where
/// there is no other one nothing would stand behind SET.
unsafe fn default_of_generated_column(table: Oid) -> Option<*mut pg_sys::TargetEntry> {
    // SAFETY: the table is locked by the statement.
    unsafe {
        let relation = pg_sys::relation_open(table, pg_sys::NoLock as i32);
        let descriptor = (*relation).rd_att;
        let generated = (0..(*descriptor).natts as usize)
            .map(|index| *version::attribute(descriptor, index))
            .find(|attribute| !attribute.attisdropped && attribute.attgenerated != 0);
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        generated.map(|attribute| {
            let value: *mut pg_sys::SetToDefault = node::make(NodeTag::T_SetToDefault);
            (*value).typeId = attribute.atttypid;
            (*value).typeMod = attribute.atttypmod;
            (*value).collation = attribute.attcollation;
            (*value).location = -1;
            pg_sys::makeTargetEntry(value.cast(), attribute.attnum, std::ptr::null_mut(), false)
        })
    }
}

/// One entry for each part of a column that is assigned.
unsafe fn split(list: *mut pg_sys::List, is_insert: bool) -> *mut pg_sys::List {
    // SAFETY: the caller passes a target list of a private copy; the nodes are cast to the structs of their tags.
    unsafe {
        let entries = node::elements::<pg_sys::TargetEntry>(list);
        if !entries.iter().any(|entry| is_assignment((**entry).expr.cast())) {
            return list;
        }
        let mut split: Vec<*mut pg_sys::TargetEntry> = Vec::new();
        for entry in entries {
            let expr = (*entry).expr.cast::<pg_sys::Node>();
            if !is_assignment(expr) {
                split.push(entry);
                continue;
            }
            let domain = node::cast::<pg_sys::CoerceToDomain, _>(expr, NodeTag::T_CoerceToDomain);
            let whole = domain.map_or(expr, |domain| (*domain).arg.cast());
            let mut parts = Vec::new();
            gather_parts(whole, is_insert, &mut parts);
            for part in parts {
                let own: *mut pg_sys::TargetEntry = pg_sys::flatCopyTargetEntry(entry);
                (*own).expr = match domain {
                    Some(domain) => {
                        let cast: *mut pg_sys::CoerceToDomain =
                            node::make(NodeTag::T_CoerceToDomain);
                        std::ptr::copy_nonoverlapping(domain, cast, 1);
                        (*cast).arg = part.cast();
                        cast.cast()
                    }
                    None => part.cast(),
                };
                split.push(own);
            }
        }
        node::list_of(&split)
    }
}

/// The expression assigns a part of a column: a field or an element, perhaps of a domain.
pub(crate) unsafe fn is_assignment(n: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller passes null or a live expression.
    unsafe {
        if n.is_null() {
            return false;
        }
        match node::tag(n) {
            NodeTag::T_FieldStore => true,
            NodeTag::T_SubscriptingRef => {
                !(*n.cast::<pg_sys::SubscriptingRef>()).refassgnexpr.is_null()
            }
            NodeTag::T_CoerceToDomain => {
                let cast = n.cast::<pg_sys::CoerceToDomain>();
                (*cast).coercionformat == pg_sys::CoercionForm::COERCE_IMPLICIT_CAST
                    && node::tag((*cast).arg) != NodeTag::T_CoerceToDomain
                    && is_assignment((*cast).arg.cast())
            }
            _ => false,
        }
    }
}

/// The assignments of one column, in their order, each to the column itself. Returns what the first one assigns to.
unsafe fn gather_parts(
    n: *mut pg_sys::Node,
    is_insert: bool,
    parts: &mut Vec<*mut pg_sys::Node>,
) -> *mut pg_sys::Node {
    // SAFETY: the caller passes a live expression of a private copy; the nodes are made with the structs of their tags.
    unsafe {
        if let Some(store) = node::cast::<pg_sys::FieldStore, _>(n, NodeTag::T_FieldStore) {
            let base = gather_parts((*store).arg.cast(), is_insert, parts);
            for (index, value) in
                node::elements::<pg_sys::Node>((*store).newvals).into_iter().enumerate()
            {
                let number = (*(*(*store).fieldnums).elements.add(index)).int_value;
                let own: *mut pg_sys::FieldStore = node::make(NodeTag::T_FieldStore);
                (*own).arg = base.cast();
                (*own).newvals = node::list_of(&[value]);
                (*own).fieldnums = pg_sys::lappend_int(std::ptr::null_mut(), number);
                (*own).resulttype = (*store).resulttype;
                parts.push(own.cast());
            }
            return base;
        }
        let subscripted = node::cast::<pg_sys::SubscriptingRef, _>(n, NodeTag::T_SubscriptingRef);
        if let Some(subscripted) = subscripted
            && !(*subscripted).refassgnexpr.is_null()
        {
            let base = gather_parts((*subscripted).refexpr.cast(), is_insert, parts);
            (*subscripted).refexpr = base.cast();
            parts.push(subscripted.cast());
            return base;
        }
        if is_insert {
            // A new row's column has been NULL before; of a kept plan that NULL may be a parameter.
            let (type_oid, typmod) = (pg_sys::exprType(n), pg_sys::exprTypmod(n));
            return pg_sys::makeNullConst(type_oid, typmod, pg_sys::exprCollation(n)).cast();
        }
        n
    }
}

/// Where the value of an assignment stands, below the nodes that tell the part of the column.
pub(crate) unsafe fn place_of_value(entry: *mut pg_sys::TargetEntry) -> *mut *mut pg_sys::Expr {
    // SAFETY: the caller passes an entry of a private copy whose assignments are split.
    unsafe {
        let mut place = &raw mut (*entry).expr;
        while is_assignment((*place).cast()) {
            place = match node::tag(*place) {
                NodeTag::T_FieldStore => {
                    let values = (*(*place).cast::<pg_sys::FieldStore>()).newvals;
                    (&raw mut (*(*values).elements).ptr_value).cast()
                }
                NodeTag::T_SubscriptingRef => {
                    &raw mut (*(*place).cast::<pg_sys::SubscriptingRef>()).refassgnexpr
                }
                _ => &raw mut (*(*place).cast::<pg_sys::CoerceToDomain>()).arg,
            };
        }
        place
    }
}

/// The place below the casts that an assignment to the column's type and length makes. Where such a value becomes the output of
/// a query, the casts stay above it: printed there they would be explicit ones, which cut off what is too long.
///
/// # Safety
///
/// A place in a private, live tree.
pub(crate) unsafe fn below_implicit_casts(
    mut place: *mut *mut pg_sys::Expr,
) -> *mut *mut pg_sys::Expr {
    /// The place below a cast of this kind, if it is implicit.
    macro_rules! below {
        ($node:expr, $kind:ty, $format:ident) => {{
            let cast = $node.cast::<$kind>();
            if (*cast).$format != pg_sys::CoercionForm::COERCE_IMPLICIT_CAST {
                return place;
            }
            &raw mut (*cast).arg
        }};
    }
    // SAFETY: the caller vouches for the tree; each node is cast to the struct of its tag.
    unsafe {
        loop {
            let n = *place;
            place = match node::tag(n) {
                NodeTag::T_FuncExpr => {
                    let call = n.cast::<pg_sys::FuncExpr>();
                    if (*call).funcformat != pg_sys::CoercionForm::COERCE_IMPLICIT_CAST {
                        return place;
                    }
                    (&raw mut (*(*(*call).args).elements).ptr_value).cast()
                }
                NodeTag::T_RelabelType => below!(n, pg_sys::RelabelType, relabelformat),
                NodeTag::T_CoerceViaIO => below!(n, pg_sys::CoerceViaIO, coerceformat),
                NodeTag::T_ArrayCoerceExpr => below!(n, pg_sys::ArrayCoerceExpr, coerceformat),
                NodeTag::T_ConvertRowtypeExpr => {
                    below!(n, pg_sys::ConvertRowtypeExpr, convertformat)
                }
                NodeTag::T_CoerceToDomain => below!(n, pg_sys::CoerceToDomain, coercionformat),
                _ => return place,
            };
        }
    }
}

/// Puts columns that are assigned together beside each other, in the order of their sub-queries and of the outputs of
/// those; assignments to one column stay in their order.
unsafe fn group(list: *mut pg_sys::List) -> *mut pg_sys::List {
    // SAFETY: the caller passes a target list of a private copy whose assignments are split.
    unsafe {
        let mut waiting: Vec<Assignment> = node::elements::<pg_sys::TargetEntry>(list)
            .into_iter()
            .map(|entry| Assignment { entry, together: sub_query_output(entry) })
            .collect();
        if waiting.iter().all(|assignment| assignment.together.is_none()) {
            return list;
        }
        let mut placed: Vec<*mut pg_sys::TargetEntry> = Vec::new();
        while !waiting.is_empty() {
            // Whatever need not wait for an earlier assignment to its column; if nothing, the next group.
            let free = (0..waiting.len()).find(|index| {
                waiting[*index].together.is_none()
                    && !waiting[..*index]
                        .iter()
                        .any(|other| (*other.entry).resno == (*waiting[*index].entry).resno)
            });
            if let Some(index) = free {
                placed.push(waiting.remove(index).entry);
                continue;
            }
            let Some((next, _)) = waiting.iter().filter_map(|it| it.together).min() else { break };
            let is_next = |it: &Assignment| it.together.is_some_and(|(link, _)| link == next);
            let (mut group, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_next);
            group.sort_by_key(|assignment| assignment.together);
            placed.extend(group.iter().map(|assignment| assignment.entry));
            waiting = rest;
        }
        node::list_of(&placed)
    }
}

/// The sub-query and the output of it that an entry assigns, if it is one of several that are assigned together.
unsafe fn sub_query_output(entry: *mut pg_sys::TargetEntry) -> Option<(i32, i32)> {
    // SAFETY: the caller passes an entry of a private copy whose assignments are split.
    unsafe {
        if (*entry).resjunk {
            return None;
        }
        let value = pg_sys::strip_implicit_coercions((*place_of_value(entry)).cast());
        let param = node::cast::<pg_sys::Param, _>(value, NodeTag::T_Param)?;
        ((*param).paramkind == pg_sys::ParamKind::PARAM_MULTIEXPR)
            .then(|| ((*param).paramid >> 16, (*param).paramid & 0xffff))
    }
}
