//! SET CONSTRAINTS: which constraints the client means.

use crate::server::utility::UtilityCall;
use crate::sys::node;
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::ffi::CString;

mod raw {
    use pgrx::pg_sys::Oid;
    use std::ffi::c_char;
    unsafe extern "C-unwind" {
        /// Guarded (`src/include/catalog/pg_constraint.h`).
        pub(super) fn get_relation_constraint_oid(
            table: Oid,
            name: *const c_char,
            missing_ok: bool,
        ) -> Oid;
    }
}

/// SET CONSTRAINTS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetConstraints {
    /// The constraints' names, with the schema if it is named; none for all.
    names: Option<Vec<(Option<String>, String)>>,
    /// DEFERRED, not IMMEDIATE.
    pub is_deferred: bool,
}

impl UtilityCall {
    /// The statement, if it is one.
    pub fn set_constraints(&self) -> Option<SetConstraints> {
        // SAFETY: a live utility statement, cast to the struct of its tag; its list is one of RangeVars.
        unsafe {
            let set = node::cast::<pg_sys::ConstraintsSetStmt, _>(
                self.node(),
                NodeTag::T_ConstraintsSetStmt,
            )?;
            let name_of = |name: *mut pg_sys::RangeVar| {
                let schema = (*name).schemaname;
                let schema = (!schema.is_null()).then(|| node::text_of(schema));
                (schema, node::text_of((*name).relname))
            };
            let names = node::elements::<pg_sys::RangeVar>((*set).constraints);
            let names: Vec<_> = names.into_iter().map(name_of).collect();
            let names = (!names.is_empty()).then_some(names);
            Some(SetConstraints { names, is_deferred: (*set).deferred })
        }
    }
}

impl SetConstraints {
    /// All are meant.
    pub fn is_for_all(&self) -> bool {
        self.names.is_none()
    }

    /// The names of a table's constraints that are meant.
    pub fn of_table(&self, table: Oid) -> Vec<String> {
        let names = self.names.iter().flatten();
        names
            .filter(|(schema, name)| is_in(table, schema.as_deref()) && has(table, name))
            .map(|(_, name)| name.clone())
            .collect()
    }
}

/// The table is in that schema, or in one that is searched.
fn is_in(table: Oid, schema: Option<&str>) -> bool {
    // SAFETY: syscache look-ups by value; the list is the caller's own copy.
    unsafe {
        let own = pg_sys::get_rel_namespace(table);
        match schema {
            Some(schema) => node::text_of(pg_sys::get_namespace_name(own)) == schema,
            None => pg_sys::list_member_oid(pg_sys::fetch_search_path(true), own),
        }
    }
}

fn has(table: Oid, name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: a look-up in a catalog.
    let found = unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            raw::get_relation_constraint_oid(table, name.as_ptr(), true)
        })
    };
    found != Oid::INVALID
}
