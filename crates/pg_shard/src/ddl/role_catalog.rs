//! What the catalogs say about roles, memberships, and settings of roles and databases.
//!
//! Hashes of passwords are for superusers, and for whoever has just set the password.

use pg::PgError;
use pg::catalog::privileged;
use pg::server::role_statement::RoleStatement;
use pgrx::pg_sys::Oid;
use pgrx::spi::{SpiError, SpiHeapTupleData};
use shardmap::definition::roles::{Membership, Role, Roles, Setting};

/// What is looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// Roles by their ids and names; none for all.
    pub(super) roles: Option<(Vec<Oid>, Vec<String>)>,
    /// Memberships in these roles only, and of members among `roles`.
    pub(super) granted: Option<Vec<Oid>>,
    /// Settings of all roles, in this database or in any.
    pub(super) of_all: Option<Option<String>>,
}

impl Scope {
    /// What a statement may change.
    pub(super) fn of(about: &RoleStatement) -> Self {
        let ids = about.roles.iter().chain(about.granted.iter().flatten()).copied().collect();
        Self {
            roles: Some((ids, about.created.iter().cloned().collect())),
            granted: about.granted.clone(),
            of_all: about.is_about_all.then(|| about.database.clone()),
        }
    }
}

const ROLES: &str = "
SELECT a.oid AS id, a.rolname::text AS name, a.oid < 16384 AS is_built_in, a.rolsuper, a.rolinherit, a.rolcreaterole, a.rolcreatedb,
       a.rolcanlogin, a.rolreplication, a.rolbypassrls, a.rolconnlimit AS connection_limit,
       CASE WHEN pg_catalog.isfinite(a.rolvaliduntil)
            THEN pg_catalog.to_char(a.rolvaliduntil AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'
            ELSE a.rolvaliduntil::text END AS valid_until,
       a.rolpassword AS password
FROM pg_catalog.pg_authid a
WHERE $1 IS NULL OR a.oid = ANY ($1) OR a.rolname = ANY ($2)
ORDER BY a.oid";

/// To JSON and back: not all versions have the options and tell who has granted.
const MEMBERSHIPS: &str = "
SELECT r.rolname::text AS role, u.rolname::text AS member, m.admin_option AS has_admin,
       (x.of_it ->> 'inherit_option')::boolean AS inherits, (x.of_it ->> 'set_option')::boolean AS sets,
       CASE WHEN x.of_it ? 'set_option' AND m.grantor >= 16384 THEN pg_catalog.pg_get_userbyid(m.grantor)::text END AS grantor
FROM pg_catalog.pg_auth_members m
     JOIN pg_catalog.pg_authid r ON r.oid = m.roleid
     JOIN pg_catalog.pg_authid u ON u.oid = m.member
     CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(m)) AS x(of_it)
WHERE (m.roleid >= 16384 OR m.member >= 16384)
      AND CASE WHEN $3 IS NOT NULL THEN m.roleid = ANY ($3)
               ELSE $1 IS NULL OR m.roleid = ANY ($1) OR m.member = ANY ($1) OR r.rolname = ANY ($2) OR u.rolname = ANY ($2) END
ORDER BY m.roleid, m.member";

const SETTINGS: &str = "
SELECT a.rolname::text AS role, d.datname::text AS database, pg_catalog.split_part(c.setting, '=', 1) AS name,
       pg_catalog.substr(c.setting, pg_catalog.strpos(c.setting, '=') + 1) AS value
FROM pg_catalog.pg_db_role_setting s
     CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c(setting)
     LEFT JOIN pg_catalog.pg_authid a ON a.oid = s.setrole
     LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
WHERE CASE WHEN $4 THEN s.setrole = 0 AND ($5 IS NULL OR d.datname = $5)
           ELSE s.setrole >= 16384 AND ($1 IS NULL OR s.setrole = ANY ($1)) END
      AND pg_catalog.split_part(c.setting, '=', 1) NOT IN ('role', 'session_authorization')
ORDER BY 1, 2, 3";

/// The roles, memberships and settings that are looked at, as they are.
pub(super) fn read(scope: &Scope) -> Result<Roles, PgError> {
    let (ids, names) =
        scope.roles.clone().map_or((None, None), |(ids, names)| (Some(ids), Some(names)));
    let database = scope.of_all.clone().flatten();
    let read = || -> Result<Roles, SpiError> {
        privileged::read_as_superuser(|client| {
            let select = |query: &str| {
                client.select(
                    query,
                    None,
                    &[
                        ids.clone().into(),
                        names.clone().into(),
                        scope.granted.clone().into(),
                        scope.of_all.is_some().into(),
                        database.clone().into(),
                    ],
                )
            };
            let mut all = Roles::default();
            for row in select(ROLES)? {
                all.roles.push(role(&row)?);
            }
            for row in select(MEMBERSHIPS)? {
                all.memberships.push(membership(&row)?);
            }
            for row in select(SETTINGS)? {
                all.settings.push(setting(&row)?);
            }
            Ok(all)
        })
    };
    read().map_err(|error| PgError::internal(error.to_string()))
}

fn role(row: &SpiHeapTupleData<'_>) -> Result<Role, SpiError> {
    let flag = |column: &str| Ok::<_, SpiError>(row.get_by_name::<bool, _>(column)? == Some(true));
    Ok(Role {
        id: row.get_by_name::<Oid, _>("id")?.map_or(0, Oid::to_u32),
        name: row.get_by_name("name")?.unwrap_or_default(),
        is_built_in: flag("is_built_in")?,
        attributes: [
            flag("rolsuper")?,
            flag("rolinherit")?,
            flag("rolcreaterole")?,
            flag("rolcreatedb")?,
            flag("rolcanlogin")?,
            flag("rolreplication")?,
            flag("rolbypassrls")?,
        ],
        connection_limit: row.get_by_name("connection_limit")?.unwrap_or(-1),
        valid_until: row.get_by_name("valid_until")?,
        password: row.get_by_name("password")?,
    })
}

fn membership(row: &SpiHeapTupleData<'_>) -> Result<Membership, SpiError> {
    let inherits: Option<bool> = row.get_by_name("inherits")?;
    let sets: Option<bool> = row.get_by_name("sets")?;
    Ok(Membership {
        role: row.get_by_name("role")?.unwrap_or_default(),
        member: row.get_by_name("member")?.unwrap_or_default(),
        grantor: row.get_by_name("grantor")?,
        has_admin: row.get_by_name("has_admin")? == Some(true),
        options: inherits.zip(sets).map(|(inherits, sets)| [inherits, sets]),
    })
}

fn setting(row: &SpiHeapTupleData<'_>) -> Result<Setting, SpiError> {
    Ok(Setting {
        role: row.get_by_name("role")?,
        database: row.get_by_name("database")?,
        name: row.get_by_name("name")?.unwrap_or_default(),
        value: row.get_by_name("value")?.unwrap_or_default(),
    })
}
