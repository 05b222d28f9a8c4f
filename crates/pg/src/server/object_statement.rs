//! Statements about objects that tables may need: types, functions, schemas and the like.

use crate::server::utility::UtilityCall;
use crate::sys::node;
use pgrx::pg_sys::{self, NodeTag, ObjectType as Kind};

/// Objects that the definitions of tables refer to.
const KINDS: [Kind::Type; 12] = [
    Kind::OBJECT_AGGREGATE,
    Kind::OBJECT_ATTRIBUTE,
    Kind::OBJECT_COLLATION,
    Kind::OBJECT_DOMAIN,
    Kind::OBJECT_DOMCONSTRAINT,
    Kind::OBJECT_EXTENSION,
    Kind::OBJECT_FUNCTION,
    Kind::OBJECT_PROCEDURE,
    Kind::OBJECT_ROUTINE,
    Kind::OBJECT_SCHEMA,
    Kind::OBJECT_TYPE,
    Kind::OBJECT_LANGUAGE,
];

impl UtilityCall {
    /// It may change objects that are there and that tables need, or drop some.
    pub fn changes_objects(&self) -> bool {
        let n = self.node();
        let is_meant = |kind: Kind::Type| KINDS.contains(&kind);
        // SAFETY: a live utility statement, cast to the struct of its tag.
        unsafe {
            match node::tag(n) {
                NodeTag::T_CreateFunctionStmt => (*n.cast::<pg_sys::CreateFunctionStmt>()).replace,
                NodeTag::T_AlterFunctionStmt
                | NodeTag::T_AlterDomainStmt
                | NodeTag::T_AlterEnumStmt
                | NodeTag::T_AlterExtensionStmt
                | NodeTag::T_ReassignOwnedStmt
                | NodeTag::T_DropOwnedStmt => true,
                NodeTag::T_RenameStmt => is_meant((*n.cast::<pg_sys::RenameStmt>()).renameType),
                NodeTag::T_AlterObjectSchemaStmt => {
                    is_meant((*n.cast::<pg_sys::AlterObjectSchemaStmt>()).objectType)
                }
                NodeTag::T_AlterOwnerStmt => {
                    is_meant((*n.cast::<pg_sys::AlterOwnerStmt>()).objectType)
                }
                NodeTag::T_GrantStmt => is_meant((*n.cast::<pg_sys::GrantStmt>()).objtype),
                NodeTag::T_DropStmt => is_meant((*n.cast::<pg_sys::DropStmt>()).removeType),
                NodeTag::T_AlterTableStmt => {
                    (*n.cast::<pg_sys::AlterTableStmt>()).objtype == Kind::OBJECT_TYPE
                }
                _ => false,
            }
        }
    }
}
