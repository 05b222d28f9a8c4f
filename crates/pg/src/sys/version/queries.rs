//! Query trees, the parser, names and values.

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
    #[cfg_attr(
        any(feature = "pg15", feature = "pg16"),
        expect(dead_code, reason = "MERGE has no such clause there")
    )]
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
