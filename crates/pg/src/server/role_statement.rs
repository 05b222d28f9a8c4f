//! Statements about roles, their memberships, and settings of roles and databases.

use crate::server::utility::UtilityCall;
use crate::sys::node;
use pgrx::pg_sys::{self, NodeTag, Oid};

/// Whom a statement about roles is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleStatement {
    /// The roles that it changes, as far as they are there.
    pub roles: Vec<Oid>,
    /// The role that it creates.
    pub created: Option<String>,
    /// Of GRANT and REVOKE: the roles that are granted, to members among `roles`.
    pub granted: Option<Vec<Oid>>,
    /// The database whose settings it changes.
    pub database: Option<String>,
    /// It changes settings of all roles or of a database.
    pub is_about_all: bool,
}

impl UtilityCall {
    /// What it says about roles; none if it is about something else.
    pub fn about_roles(&self) -> Option<RoleStatement> {
        let n = self.node();
        let mut about = RoleStatement::default();
        // SAFETY: a live utility statement, cast to the struct of its tag.
        unsafe {
            match node::tag(n) {
                NodeTag::T_CreateRoleStmt => {
                    let name = (*n.cast::<pg_sys::CreateRoleStmt>()).role;
                    about.created = Some(node::text_of(name));
                }
                NodeTag::T_AlterRoleStmt => {
                    about.roles = found((*n.cast::<pg_sys::AlterRoleStmt>()).role);
                }
                NodeTag::T_AlterRoleSetStmt => {
                    let alter = n.cast::<pg_sys::AlterRoleSetStmt>();
                    about.is_about_all = (*alter).role.is_null();
                    about.roles = found((*alter).role);
                }
                NodeTag::T_AlterDatabaseSetStmt => {
                    let name = (*n.cast::<pg_sys::AlterDatabaseSetStmt>()).dbname;
                    about.database = Some(node::text_of(name));
                    about.is_about_all = true;
                }
                NodeTag::T_DropRoleStmt => {
                    about.roles = found_all((*n.cast::<pg_sys::DropRoleStmt>()).roles);
                }
                NodeTag::T_GrantRoleStmt => {
                    let grant = n.cast::<pg_sys::GrantRoleStmt>();
                    let granted = node::elements::<pg_sys::AccessPriv>((*grant).granted_roles);
                    let named = granted.into_iter().map(|one| (*one).priv_name);
                    let named = named.filter(|name| !name.is_null());
                    about.granted = Some(
                        named
                            .map(|name| pg_sys::get_role_oid(name, true))
                            .filter(|oid| *oid != Oid::INVALID)
                            .collect(),
                    );
                    about.roles = found_all((*grant).grantee_roles);
                }
                NodeTag::T_RenameStmt => {
                    let rename = n.cast::<pg_sys::RenameStmt>();
                    if (*rename).renameType != pg_sys::ObjectType::OBJECT_ROLE {
                        return None;
                    }
                    let role = pg_sys::get_role_oid((*rename).subname, true);
                    about.roles =
                        Some(role).filter(|oid| *oid != Oid::INVALID).into_iter().collect();
                }
                _ => return None,
            }
        }
        Some(about)
    }
}

/// The role that is named, if it is there.
///
/// # Safety
///
/// A live RoleSpec, or null.
unsafe fn found(role: *mut pg_sys::RoleSpec) -> Vec<Oid> {
    // SAFETY: the caller's.
    unsafe {
        if role.is_null() || (*role).roletype == pg_sys::RoleSpecType::ROLESPEC_PUBLIC {
            return Vec::new();
        }
        let oid = pg_sys::get_rolespec_oid(role, true);
        Some(oid).filter(|oid| *oid != Oid::INVALID).into_iter().collect()
    }
}

/// The same for a list.
///
/// # Safety
///
/// A live list of RoleSpecs.
unsafe fn found_all(roles: *mut pg_sys::List) -> Vec<Oid> {
    // SAFETY: the caller's.
    unsafe {
        node::elements::<pg_sys::RoleSpec>(roles).into_iter().flat_map(|role| found(role)).collect()
    }
}
