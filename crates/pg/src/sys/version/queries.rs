//! Query trees, the parser, names and values.

use crate::sys::node;
use pgrx::pg_sys::{self, Oid};
use std::ffi::{c_char, c_int};

/// The rows for which a WHEN clause of MERGE is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MergeMatch {
    /// Rows of the source with one of the target.
    Matched,
    /// Rows of the source without one of the target.
    NotByTarget,
    /// Rows of the target without one of the source; since PostgreSQL 17.
    NotBySource,
}

/// Those of a clause.
///
/// # Safety
///
/// A live action.
pub(crate) unsafe fn merge_match(action: *const pg_sys::MergeAction) -> MergeMatch {
    // SAFETY: the caller vouches for the action.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        {
            if (*action).matched { MergeMatch::Matched } else { MergeMatch::NotByTarget }
        }
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        {
            use pg_sys::MergeMatchKind as Kind;
            match (*action).matchKind {
                Kind::MERGE_WHEN_MATCHED => MergeMatch::Matched,
                Kind::MERGE_WHEN_NOT_MATCHED_BY_SOURCE => MergeMatch::NotBySource,
                _ => MergeMatch::NotByTarget,
            }
        }
    }
}

/// Per written table the condition that tells rows of the target which have a row of the source from those without, in a MERGE
/// that has clauses for both; since PostgreSQL 17.
///
/// # Safety
///
/// A live plan.
pub(crate) unsafe fn join_conditions(write: *const pg_sys::ModifyTable) -> *mut pg_sys::List {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    {
        let _ = write;
        std::ptr::null_mut()
    }
    // SAFETY: the caller vouches for the plan.
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    unsafe {
        (*write).mergeJoinConditions
    }
}

/// The condition of a query's FROM: of MERGE it is ON, which has a place of its own since PostgreSQL 17.
///
/// # Safety
///
/// A live Query and a FROM of it.
pub(crate) unsafe fn conditions_of(
    query: *const pg_sys::Query,
    from: *const pg_sys::FromExpr,
) -> *mut pg_sys::Node {
    // SAFETY: the caller vouches for both.
    unsafe {
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        if (*query).commandType == pg_sys::CmdType::CMD_MERGE
            && std::ptr::eq((*query).jointree, from)
        {
            return (*query).mergeJoinCondition;
        }
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        let _ = query;
        (*from).quals
    }
}

/// Replaces what only newer queries have, as `print::canonical::replace_parts` does for the rest.
///
/// # Safety
///
/// A private, live Query; a part is replaced by one of its kind.
pub(crate) unsafe fn replace_newer_parts(
    query: *mut pg_sys::Query,
    replaced: &dyn Fn(*mut pg_sys::Node) -> *mut pg_sys::Node,
) {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    {
        let _ = (query, replaced);
    }
    // SAFETY: the caller vouches for the query and for what replaces its parts.
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    unsafe {
        if !(*query).mergeJoinCondition.is_null() {
            (*query).mergeJoinCondition = replaced((*query).mergeJoinCondition);
        }
    }
}

/// Visits the numbers of entries of the range table that only newer queries have.
///
/// # Safety
///
/// A private, live Query.
pub(crate) unsafe fn for_newer_numbers(
    query: *mut pg_sys::Query,
    visit: &mut dyn FnMut(&mut c_int),
) {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    {
        let _ = (query, visit);
    }
    // SAFETY: the caller vouches for the query.
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    unsafe {
        visit(&mut (*query).mergeTargetRelation);
    }
}

/// The node as a column of the row as it is when it is read: not of the row before or after a change, which RETURNING can name
/// since PostgreSQL 18 and which may be missing.
///
/// # Safety
///
/// A live node.
pub(crate) unsafe fn current_column(n: *mut pg_sys::Node) -> Option<*mut pg_sys::Var> {
    // SAFETY: the caller vouches for the node, which is cast to the struct of its tag.
    unsafe {
        let var: *mut pg_sys::Var = node::cast(n, pg_sys::NodeTag::T_Var)?;
        #[cfg(feature = "pg18")]
        if (*var).varreturningtype != pg_sys::VarReturningType::VAR_RETURNING_DEFAULT {
            return None;
        }
        Some(var)
    }
}

/// An output that is a column of MERGE's target, such that actions which name the column do not refer to the output.
///
/// Since PostgreSQL 16 they would have to say as the output does which outer join may have put NULL in its place, and the join
/// is made only by the planner. So the output is the column under another type modifier, which changes no value.
///
/// # Safety
///
/// A live column.
pub(crate) unsafe fn hidden_column(var: *mut pg_sys::Node) -> *mut pg_sys::Node {
    #[cfg(feature = "pg15")]
    {
        var
    }
    // SAFETY: the caller vouches for the column.
    #[cfg(not(feature = "pg15"))]
    unsafe {
        let typmod = if pg_sys::exprTypmod(var) == -1 { 0 } else { -1 };
        let (type_oid, collation) = (pg_sys::exprType(var), pg_sys::exprCollation(var));
        let form = pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
        pg_sys::makeRelabelType(var.cast(), type_oid, typmod, collation, form).cast()
    }
}

/// The part of ALTER TABLE is ALTER COLUMN ... SET EXPRESSION; since PostgreSQL 17.
pub(crate) fn sets_expression(kind: pg_sys::AlterTableType::Type) -> bool {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    {
        let _ = kind;
        false
    }
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    {
        kind == pg_sys::AlterTableType::AT_SetExpression
    }
}

/// What `merge_action()` gives in RETURNING; since PostgreSQL 17. PostgreSQL asks the ModifyTable node for it, of which a write
/// that is computed here has none. So a constant takes its place, and the text of the constant changes with the row.
pub(crate) struct ActionName {
    /// Null if nobody asks.
    text: *mut pg_sys::text,
}

impl ActionName {
    /// Takes the place of `merge_action()` in RETURNING.
    ///
    /// # Safety
    ///
    /// A live list of a plan, which is replaced if it asks; the current memory context outlives the execution.
    pub(crate) unsafe fn replace_in(returning: &mut *mut pg_sys::List) -> Self {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        {
            let _ = returning;
            Self { text: std::ptr::null_mut() }
        }
        // SAFETY: the caller vouches for the list; each node is cast to the struct of its tag.
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        unsafe {
            let is_asked = node::walk(*returning, &mut |n| match node::tag(n) {
                pg_sys::NodeTag::T_MergeSupportFunc => node::Visit::Stop,
                _ => node::Visit::Into,
            });
            if !is_asked {
                return Self { text: std::ptr::null_mut() };
            }
            let text = pg_sys::cstring_to_text(c"INSERT".as_ptr());
            *returning = node::rewrite(*returning, &mut |n| {
                let asks: *mut pg_sys::MergeSupportFunc =
                    node::cast(n, pg_sys::NodeTag::T_MergeSupportFunc)?;
                let (type_oid, collation) = ((*asks).msftype, (*asks).msfcollid);
                let value = pg_sys::Datum::from(text.cast::<std::ffi::c_void>());
                let constant = pg_sys::makeConst(type_oid, -1, collation, -1, value, false, false);
                Some(constant.cast())
            });
            Self { text }
        }
    }

    /// Has it be this command's for the next row.
    pub(crate) fn set(&self, command: &[u8; 6]) {
        if !self.text.is_null() {
            // SAFETY: the text was made above with as many bytes behind a header of four.
            unsafe {
                let bytes = self.text.cast::<u8>().add(pg_sys::VARHDRSZ);
                bytes.copy_from_nonoverlapping(command.as_ptr(), command.len());
            }
        }
    }
}

/// Tells RETURNING the row before and after a change, as `ExecProcessReturning` does since PostgreSQL 18; none is NULL.
///
/// # Safety
///
/// A projection of RETURNING, its context, the table that it is of, and slots that are filled.
pub(crate) unsafe fn return_old_and_new(
    projection: *mut pg_sys::ProjectionInfo,
    context: *mut pg_sys::ExprContext,
    relation: *mut pg_sys::ResultRelInfo,
    old: Option<*mut pg_sys::TupleTableSlot>,
    new: Option<*mut pg_sys::TupleTableSlot>,
) {
    #[cfg(not(feature = "pg18"))]
    {
        let _ = (projection, context, relation, old, new);
    }
    // SAFETY: the caller vouches for all of it. The flags are those of `src/include/nodes/execnodes.h`.
    #[cfg(feature = "pg18")]
    unsafe {
        const OLD_IS_NULL: u8 = 1 << 3;
        const NEW_IS_NULL: u8 = 1 << 4;
        let flags = &mut (*projection).pi_state.flags;
        *flags &= !(OLD_IS_NULL | NEW_IS_NULL);
        *flags |= if old.is_none() { OLD_IS_NULL } else { 0 };
        *flags |= if new.is_none() { NEW_IS_NULL } else { 0 };
        let estate = (*context).ecxt_estate;
        let or_nulls = |slot: Option<*mut pg_sys::TupleTableSlot>| {
            slot.unwrap_or_else(|| pg_sys::ExecGetAllNullSlot(estate, relation))
        };
        (*context).ecxt_oldtuple = or_nulls(old);
        (*context).ecxt_newtuple = or_nulls(new);
    }
}

/// The check of the row that is there, before ON CONFLICT DO UPDATE changes it through a view.
#[cfg(feature = "pg15")]
pub(crate) const EXISTING_ROW_OF_VIEW: pg_sys::WCOKind::Type =
    pg_sys::WCOKind::WCO_VIEW_CONFLICT_CHECK;
/// The check of the row that is there, before ON CONFLICT DO UPDATE changes it through a view: no condition is of this kind.
#[cfg(not(feature = "pg15"))]
pub(crate) const EXISTING_ROW_OF_VIEW: pg_sys::WCOKind::Type = pg_sys::WCOKind::Type::MAX;

/// The parts of a name that may have a schema; raises PostgreSQL's own error if it is none.
///
/// # Safety
///
/// A zero-terminated text.
pub(crate) unsafe fn qualified_name(text: *const c_char) -> *mut pg_sys::List {
    // SAFETY: the caller vouches for the text.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::stringToQualifiedNameList(text)
        }
        #[cfg(not(feature = "pg15"))]
        {
            pg_sys::stringToQualifiedNameList(text, std::ptr::null_mut())
        }
    }
}

/// Looks up the type of that name. If it may be missing, an unknown name leaves the invalid OID.
///
/// # Safety
///
/// A zero-terminated text, and places for the answer.
pub(crate) unsafe fn parse_type(
    name: *const c_char,
    type_oid: *mut Oid,
    typmod: *mut c_int,
    missing_ok: bool,
) {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::parseTypeString(name, type_oid, typmod, missing_ok);
        }
        #[cfg(not(feature = "pg15"))]
        {
            let mut context = pg_sys::ErrorSaveContext {
                type_: pg_sys::NodeTag::T_ErrorSaveContext,
                ..Default::default()
            };
            let soft = if missing_ok { (&raw mut context).cast() } else { std::ptr::null_mut() };
            if !pg_sys::parseTypeString(name, type_oid, typmod, soft) {
                *type_oid = Oid::INVALID;
            }
        }
    }
}

/// A range of these bounds; raises PostgreSQL's error if the lower one is above the upper one.
///
/// # Safety
///
/// The entry of a range type in the cache of types, and bounds of its subtype.
pub(crate) unsafe fn make_range(
    known: *mut pg_sys::TypeCacheEntry,
    lower: &mut pg_sys::RangeBound,
    upper: &mut pg_sys::RangeBound,
    is_empty: bool,
) -> *mut pg_sys::RangeType {
    // SAFETY: the caller vouches for the type and the bounds.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::range_serialize(known, lower, upper, is_empty)
        }
        #[cfg(not(feature = "pg15"))]
        {
            pg_sys::range_serialize(known, lower, upper, is_empty, std::ptr::null_mut())
        }
    }
}
