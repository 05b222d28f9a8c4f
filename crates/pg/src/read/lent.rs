//! What may be computed with rights that are lent: in a session that is opened as the owner of a view, on behalf of whoever
//! reads or writes through it.
//!
//! PostgreSQL lends the owner's rights to the view's tables alone; functions run as the caller, even those in the view itself.
//! In a session of the owner everything would run as the owner. So nothing is computed there but by PostgreSQL's own
//! functions on PostgreSQL's own types: besides functions of users, what has to stay out is what calls them without naming
//! them, such as the CHECK of a domain behind a coercion, `json_populate_record`, XMLTABLE, an input function that is called
//! by its name, or a user's cast to json behind `to_json`.
//!
//! Stored values are no matter: columns of users' types are read as they are. Nor are comparisons: support functions of operator
//! classes are a superuser's. An enum's values have no code either; but on a node a schema's owner can put something else in
//! the place of his enum, so only those of the owner and of superusers count.

use crate::read::called::functions_of;
use crate::sys::node;
use crate::sys::value::FIRST_USER_OID;
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::ffi::c_int;

/// What a node needs that is not PostgreSQL's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing.
    Nothing,
    /// Values of a type of users are made.
    Type(Oid),
    /// Functions of users may be called.
    Code,
}

/// What a node of an expression or a query needs by itself, without what is below it.
///
/// # Safety
///
/// `n` is a live node.
pub(crate) unsafe fn needs(n: *mut pg_sys::Node) -> Needs {
    // SAFETY: the caller vouches for the node; each is cast to the struct of its tag.
    unsafe {
        if functions_of(n).into_iter().any(is_user) {
            return Needs::Code;
        }
        match node::tag(n) {
            // Stored values, and what says NULL or true of any value.
            NodeTag::T_Var | NodeTag::T_NullTest | NodeTag::T_CaseTestExpr => Needs::Nothing,
            NodeTag::T_FuncExpr => {
                let call = &*n.cast::<pg_sys::FuncExpr>();
                if calls_by_type(call.funcid) {
                    return Needs::Code;
                }
                of_call(call.args, call.funcresulttype)
            }
            NodeTag::T_Aggref => {
                let call = &*n.cast::<pg_sys::Aggref>();
                let name = node::text_of(pg_sys::get_func_name(call.aggfnoid));
                if ["count", "min", "max"].contains(&name.as_str()) {
                    return of_type(call.aggtype);
                }
                of_call(call.args, call.aggtype)
            }
            NodeTag::T_WindowFunc => {
                let call = &*n.cast::<pg_sys::WindowFunc>();
                of_call(call.args, call.wintype)
            }
            NodeTag::T_XmlExpr => {
                let xml = &*n.cast::<pg_sys::XmlExpr>();
                of_call(xml.named_args, pg_sys::XMLOID).or(of_call(xml.args, pg_sys::XMLOID))
            }
            NodeTag::T_TableFunc => of_types((*n.cast::<pg_sys::TableFunc>()).coltypes),
            NodeTag::T_RangeTblFunction => {
                of_types((*n.cast::<pg_sys::RangeTblFunction>()).funccoltypes)
            }
            tag if has_type(tag) => of_type(pg_sys::exprType(n)),
            _ => Needs::Nothing,
        }
    }
}

impl Needs {
    fn or(self, other: Self) -> Self {
        if self == Self::Nothing { other } else { self }
    }

    /// It can be lent by `owner`.
    pub(crate) fn can_be_lent_by(self, owner: Oid) -> bool {
        match self {
            Self::Nothing => true,
            Self::Type(type_oid) => is_harmless(type_oid, owner),
            Self::Code => false,
        }
    }
}

/// An enum that is the role's or a superuser's.
pub(crate) fn is_harmless(type_oid: Oid, owner: Oid) -> bool {
    // SAFETY: syscache look-ups by value; the tuple is released when its fields are copied.
    unsafe {
        let element = pg_sys::get_element_type(type_oid);
        let type_oid = if element == Oid::INVALID { type_oid } else { element };
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::TYPEOID as c_int,
            pgrx::pg_sys::Datum::from(type_oid),
        );
        if tuple.is_null() {
            return false;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>();
        let (kind, whose) = ((*form).typtype as u8, (*form).typowner);
        pg_sys::ReleaseSysCache(tuple);
        kind == pg_sys::TYPTYPE_ENUM && (whose == owner || pg_sys::superuser_arg(whose))
    }
}

fn is_user(oid: Oid) -> bool {
    oid.to_u32() >= FIRST_USER_OID
}

fn of_type(type_oid: Oid) -> Needs {
    if is_user(type_oid) { Needs::Type(type_oid) } else { Needs::Nothing }
}

/// A function of the server may call others for the types of its arguments: their casts to json, or their output, also where
/// they are fields of a record.
unsafe fn of_call(arguments: *mut pg_sys::List, result: Oid) -> Needs {
    // SAFETY: the caller passes a live list of expressions, or of target entries.
    unsafe {
        let takes_users_type =
            node::elements::<pg_sys::Node>(arguments).into_iter().any(|argument| {
                let entry = node::cast::<pg_sys::TargetEntry, _>(argument, NodeTag::T_TargetEntry);
                has_users_type(entry.map_or(argument, |entry| (*entry).expr.cast()))
            });
        if takes_users_type { Needs::Code } else { of_type(result) }
    }
}

/// A value of a user's type, or a record that may have one in it: the type of a record says nothing of its fields.
unsafe fn has_users_type(argument: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller passes a live expression.
    unsafe {
        match pg_sys::exprType(argument) {
            pg_sys::RECORDOID => {
                match node::cast::<pg_sys::RowExpr, _>(argument, NodeTag::T_RowExpr) {
                    Some(row) => node::elements::<pg_sys::Node>((*row).args)
                        .into_iter()
                        .any(|field| has_users_type(field)),
                    None => true,
                }
            }
            type_oid => is_user(type_oid) || type_oid == pg_sys::RECORDARRAYOID,
        }
    }
}

unsafe fn of_types(types: *mut pg_sys::List) -> Needs {
    // SAFETY: the caller passes a live list of OIDs.
    unsafe {
        (0..node::length(types))
            .map(|index| of_type((*(*types).elements.add(index)).oid_value))
            .fold(Needs::Nothing, Needs::or)
    }
}

/// A function that does what a type says whose OID it is given: input and output functions.
fn calls_by_type(function: Oid) -> bool {
    let is_raw = |type_oid: Oid| {
        matches!(type_oid, pg_sys::CSTRINGOID | pg_sys::INTERNALOID | pg_sys::ANYOID)
    };
    // SAFETY: a syscache look-up by value; the array is palloced, with as many elements as it says.
    unsafe {
        let (mut arguments, mut count) = (std::ptr::null_mut(), 0);
        let result = pg_sys::get_func_signature(function, &raw mut arguments, &raw mut count);
        is_raw(result)
            || (0..count as usize).any(|index| {
                matches!(*arguments.add(index), pg_sys::CSTRINGOID | pg_sys::INTERNALOID)
            })
    }
}

/// Nodes of expressions that have a type of their own to be looked at.
fn has_type(tag: NodeTag) -> bool {
    matches!(
        tag,
        NodeTag::T_Const
            | NodeTag::T_Param
            | NodeTag::T_OpExpr
            | NodeTag::T_DistinctExpr
            | NodeTag::T_NullIfExpr
            | NodeTag::T_ScalarArrayOpExpr
            | NodeTag::T_SubscriptingRef
            | NodeTag::T_FieldSelect
            | NodeTag::T_FieldStore
            | NodeTag::T_RelabelType
            | NodeTag::T_CoerceViaIO
            | NodeTag::T_ArrayCoerceExpr
            | NodeTag::T_ConvertRowtypeExpr
            | NodeTag::T_CollateExpr
            | NodeTag::T_CaseExpr
            | NodeTag::T_ArrayExpr
            | NodeTag::T_RowExpr
            | NodeTag::T_CoalesceExpr
            | NodeTag::T_MinMaxExpr
            | NodeTag::T_SQLValueFunction
            | NodeTag::T_NextValueExpr
            | NodeTag::T_CoerceToDomain
            | NodeTag::T_CoerceToDomainValue
            | NodeTag::T_SetToDefault
    )
}
