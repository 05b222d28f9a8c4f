//! What the nodes do when roles, memberships and settings of roles and databases change, and what gives a node roles that it lacks.
//!
//! A role is compared with itself as it was before a statement, and is known by its id. On the nodes roles are known by their names. A
//! superuser's CREATE ROLE takes over a role that a node has under the name; anybody else's fails, since such a role may have
//! rights there that nobody has given it here.

use super::objects::{block, literal};

/// A role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// Its id.
    pub id: u32,
    /// Its bare name.
    pub name: String,
    /// It has its attributes from the server's installation: only memberships of it are followed.
    pub is_built_in: bool,
    /// Of the attributes of [`ATTRIBUTES`] those that it has.
    pub attributes: [bool; ATTRIBUTES.len()],
    /// CONNECTION LIMIT, -1 for none.
    pub connection_limit: i32,
    /// VALID UNTIL.
    pub valid_until: Option<String>,
    /// The hash of its password.
    pub password: Option<String>,
}

/// The attributes of a role as SQL spells them, each with what a new role has.
pub const ATTRIBUTES: [(&str, bool); 7] = [
    ("SUPERUSER", false),
    ("INHERIT", true),
    ("CREATEROLE", false),
    ("CREATEDB", false),
    ("LOGIN", false),
    ("REPLICATION", false),
    ("BYPASSRLS", false),
];

/// A role that is a member of another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The role that was granted, by its bare name.
    pub role: String,
    /// Whom it was granted to.
    pub member: String,
    /// Who has granted it, unless that is the first superuser or makes no difference.
    pub grantor: Option<String>,
    /// ADMIN OPTION.
    pub has_admin: bool,
    /// INHERIT and SET, where the server knows them.
    pub options: Option<[bool; 2]>,
}

/// What ALTER ROLE ... SET or ALTER DATABASE ... SET has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// The role; none for all.
    pub role: Option<String>,
    /// The database; none for all.
    pub database: Option<String>,
    /// The setting.
    pub name: String,
    /// Its value as the catalog has it.
    pub value: String,
}

/// Roles and what belongs to them, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// The roles.
    pub roles: Vec<Role>,
    /// Who is a member of which.
    pub memberships: Vec<Membership>,
    /// Settings of roles and databases.
    pub settings: Vec<Setting>,
}

/// The statements for a node after roles have changed; `by_superuser` if a superuser has changed them.
pub fn change(before: &Roles, after: &Roles, by_superuser: bool) -> Vec<String> {
    let mut all = Vec::new();
    let own = |roles: &Roles| -> Vec<Role> {
        roles.roles.iter().filter(|role| !role.is_built_in).cloned().collect()
    };
    let (was, is) = (own(before), own(after));
    for new in &is {
        match was.iter().find(|old| old.id == new.id) {
            None => all.push(created(new, by_superuser)),
            Some(old) => all.extend(altered(old, new, by_superuser)),
        }
    }
    all.extend(changed_memberships(before, after));
    all.extend(changed_settings(before, after));
    let gone = was.iter().filter(|old| !is.iter().any(|new| new.id == old.id));
    all.extend(gone.map(|old| format!("DROP ROLE IF EXISTS {}", quoted(&old.name))));
    if by_superuser && !all.is_empty() {
        let kept = was.iter().filter(|old| is.iter().any(|new| new.id == old.id));
        all.splice(0..0, kept.map(|old| block(&if_lacking(old, &create(old)))));
    }
    all
}

/// The statements that give a node the roles that it lacks, with those of their settings that it takes, and memberships that it lacks among
/// all of them. What a node has stays as it is. Where a session may not create roles, nothing happens.
pub fn missing(all: &Roles) -> Vec<String> {
    let own = all.roles.iter().filter(|role| !role.is_built_in);
    let mut statements: Vec<String> = own
        .map(|role| {
            let settings = all.settings.iter().filter(|one| one.role.as_ref() == Some(&role.name));
            let mut body = create(role);
            for setting in settings {
                // A node may lack what a setting names, a locale for instance.
                body += &format!(
                    "; BEGIN {}; EXCEPTION WHEN OTHERS THEN NULL; END",
                    on_database(setting, &set(setting))
                );
            }
            if_allowed(&if_lacking(role, &body))
        })
        .collect();
    statements.extend(all.memberships.iter().map(|one| if_allowed(&grant(one))));
    statements
}

/// A block for sessions that may create roles; what they still may not is left out.
fn if_allowed(body: &str) -> String {
    block(&format!(
        "IF (SELECT r.rolsuper OR r.rolcreaterole FROM pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER) THEN {body} END IF; \
         EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN NULL;"
    ))
}

fn if_lacking(role: &Role, body: &str) -> String {
    format!("IF NOT {} THEN {body}; END IF;", is_there(&role.name))
}

fn is_there(role: &str) -> String {
    format!("EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {})", literal(role))
}

fn create(role: &Role) -> String {
    let plain = Role {
        attributes: ATTRIBUTES.map(|(_, default)| default),
        connection_limit: -1,
        ..Role::default()
    };
    format!("CREATE ROLE {}{}", quoted(&role.name), options(&plain, role))
}

/// What distinguishes the role from another one, with spaces before it.
fn options(was: &Role, is: &Role) -> String {
    let mut text = String::new();
    for (at, (word, _)) in ATTRIBUTES.iter().enumerate() {
        if was.attributes[at] != is.attributes[at] {
            text += if is.attributes[at] { " " } else { " NO" };
            text += word;
        }
    }
    if was.connection_limit != is.connection_limit {
        text += &format!(" CONNECTION LIMIT {}", is.connection_limit);
    }
    if was.valid_until != is.valid_until {
        text +=
            &format!(" VALID UNTIL {}", literal(is.valid_until.as_deref().unwrap_or("infinity")));
    }
    if was.password != is.password {
        let hash = is.password.as_deref().map_or_else(|| "NULL".to_owned(), literal);
        text += &format!(" PASSWORD {hash}");
    }
    text
}

fn created(role: &Role, by_superuser: bool) -> String {
    let otherwise = if by_superuser {
        let opposite = Role {
            attributes: role.attributes.map(|has| !has),
            connection_limit: role.connection_limit.wrapping_add(1),
            valid_until: if role.valid_until.is_some() { None } else { Some(String::new()) },
            password: if role.password.is_some() { None } else { Some(String::new()) },
            ..Role::default()
        };
        format!("ALTER ROLE {}{}", quoted(&role.name), options(&opposite, role))
    } else {
        already_exists(&role.name)
    };
    block(&format!("IF {} THEN {otherwise}; ELSE {}; END IF;", is_there(&role.name), create(role)))
}

fn already_exists(role: &str) -> String {
    format!(
        "RAISE EXCEPTION USING MESSAGE = {}, ERRCODE = 'duplicate_object'",
        literal(&format!("role \"{role}\" already exists"))
    )
}

fn altered(old: &Role, new: &Role, by_superuser: bool) -> Vec<String> {
    let mut statements = Vec::new();
    if old.name != new.name {
        let rename = format!("ALTER ROLE {} RENAME TO {}", quoted(&old.name), quoted(&new.name));
        // Where the role is missing, another one must not become it.
        let otherwise = if by_superuser {
            String::new()
        } else {
            format!("ELSIF {} THEN {};", is_there(&new.name), already_exists(&new.name))
        };
        statements
            .push(block(&format!("IF {} THEN {rename}; {otherwise} END IF;", is_there(&old.name))));
    }
    let options = options(old, new);
    if !options.is_empty() {
        let alter = format!("ALTER ROLE {}{options}", quoted(&new.name));
        statements.push(block(&format!("IF {} THEN {alter}; END IF;", is_there(&new.name))));
    }
    statements
}

fn changed_memberships(before: &Roles, after: &Roles) -> Vec<String> {
    let renamed = |name: &String| {
        let old = before.roles.iter().find(|role| role.name == *name);
        let new = old.and_then(|old| after.roles.iter().find(|role| role.id == old.id));
        new.map_or_else(|| name.clone(), |role| role.name.clone())
    };
    let is_gone = |name: &String| is_dropped(name, before, after);
    let was: Vec<Membership> = before
        .memberships
        .iter()
        .map(|one| Membership {
            role: renamed(&one.role),
            member: renamed(&one.member),
            grantor: one.grantor.as_ref().map(renamed),
            ..one.clone()
        })
        .collect();
    let same = |one: &Membership, other: &Membership| {
        (&one.role, &one.member, &one.grantor) == (&other.role, &other.member, &other.grantor)
    };
    let mut statements = Vec::new();
    for old in &was {
        let both = format!("{} FROM {}{}", quoted(&old.role), quoted(&old.member), granted_by(old));
        match after.memberships.iter().find(|new| same(old, new)) {
            // With a role that is gone its memberships go as well.
            None if !is_gone(&old.role) && !is_gone(&old.member) => {
                statements.push(if_both(old, &format!("REVOKE {both} CASCADE")));
            }
            Some(new) if old.has_admin && !new.has_admin => {
                statements.push(if_both(old, &format!("REVOKE ADMIN OPTION FOR {both} CASCADE")));
            }
            _ => {}
        }
    }
    let added = after.memberships.iter().filter(|new| !was.contains(new));
    statements.extend(added.map(|new| block(&grant(new))));
    statements
}

/// The role has been there and is no more, under whatever name.
fn is_dropped(name: &str, before: &Roles, after: &Roles) -> bool {
    let has = |roles: &Roles, is_it: &dyn Fn(&Role) -> bool| roles.roles.iter().any(is_it);
    let was_there = before.roles.iter().find(|role| role.name == name);
    was_there.is_some_and(|was| !has(after, &|role| role.id == was.id))
        && !has(after, &|role| role.name == name)
}

fn granted_by(membership: &Membership) -> String {
    let by = membership.grantor.as_ref();
    by.map_or_else(String::new, |role| format!(" GRANTED BY {}", quoted(role)))
}

/// A block for nodes that have both roles.
fn if_both(one: &Membership, statement: &str) -> String {
    let (role, member) = (is_there(&one.role), is_there(&one.member));
    block(&format!("IF {role} AND {member} THEN {statement}; END IF;"))
}

/// Grants the membership, unless it is there or a role is missing.
fn grant(one: &Membership) -> String {
    let mut same = format!("(m.admin_option OR NOT {})", one.has_admin);
    let with = match one.options {
        None if one.has_admin => " WITH ADMIN OPTION".to_owned(),
        None => String::new(),
        Some([inherit, set]) => {
            same = format!("{same} AND m.inherit_option = {inherit} AND m.set_option = {set}");
            // What it has of the admin option it keeps: taking that away is another statement.
            let admin = if one.has_admin { "ADMIN TRUE, " } else { "" };
            format!(" WITH {admin}INHERIT {inherit}, SET {set}")
        }
    };
    format!(
        "IF {} AND {} AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members m \
         JOIN pg_catalog.pg_roles r ON r.oid = m.roleid JOIN pg_catalog.pg_roles u ON u.oid = m.member \
         WHERE r.rolname = {} AND u.rolname = {} AND {same}) THEN GRANT {} TO {}{with}{}; END IF;",
        is_there(&one.role),
        is_there(&one.member),
        literal(&one.role),
        literal(&one.member),
        quoted(&one.role),
        quoted(&one.member),
        granted_by(one)
    )
}

fn changed_settings(before: &Roles, after: &Roles) -> Vec<String> {
    let same_place = |one: &Setting, other: &Setting| {
        (&one.role, &one.database, &one.name) == (&other.role, &other.database, &other.name)
    };
    let is_known =
        |one: &&Setting| one.role.as_ref().is_none_or(|name| !is_dropped(name, before, after));
    let gone = before
        .settings
        .iter()
        .filter(|old| !after.settings.iter().any(|new| same_place(old, new)))
        .filter(is_known);
    let reset = |one: &Setting| format!("{} RESET {}", whose(one), setting_name(&one.name));
    let mut statements: Vec<String> =
        gone.map(|old| block(&where_known(old, &reset(old)))).collect();
    let added = after.settings.iter().filter(|new| !before.settings.contains(new));
    statements.extend(added.map(|new| block(&where_known(new, &set(new)))));
    statements
}

/// The statement, where the node has the role and the database.
fn where_known(setting: &Setting, statement: &str) -> String {
    let inner = on_database(setting, statement);
    match &setting.role {
        Some(role) => format!("IF {} THEN {inner}; END IF;", is_there(role)),
        None => format!("{inner};"),
    }
}

fn on_database(setting: &Setting, statement: &str) -> String {
    setting.database.as_ref().map_or_else(
        || statement.to_owned(),
        |database| {
            format!(
                "IF EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = {}) THEN {statement}; END IF",
                literal(database)
            )
        },
    )
}

/// `ALTER ROLE a IN DATABASE b`.
fn whose(setting: &Setting) -> String {
    match (&setting.role, &setting.database) {
        (Some(role), Some(database)) => {
            format!("ALTER ROLE {} IN DATABASE {}", quoted(role), quoted(database))
        }
        (Some(role), None) => format!("ALTER ROLE {}", quoted(role)),
        (None, Some(database)) => format!("ALTER DATABASE {}", quoted(database)),
        (None, None) => "ALTER ROLE ALL".to_owned(),
    }
}

fn set(setting: &Setting) -> String {
    // An empty list has no other spelling.
    let value = if LISTS.contains(&setting.name.as_str()) && !setting.value.trim().is_empty() {
        let elements: Vec<String> =
            elements(&setting.value).iter().map(|one| literal(one)).collect();
        elements.join(", ")
    } else {
        literal(&setting.value)
    };
    format!("{} SET {} TO {value}", whose(setting), setting_name(&setting.name))
}

/// Settings whose values are lists of quoted names: `GUC_LIST_QUOTE`.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// The elements of such a list.
fn elements(list: &str) -> Vec<String> {
    let mut elements = Vec::new();
    let mut rest = list.trim_start();
    while !rest.is_empty() {
        let mut element = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut chars = quoted.char_indices().peekable();
            let mut end = quoted.len();
            while let Some((at, character)) = chars.next() {
                if character != '"' {
                    element.push(character);
                } else if chars.next_if(|(_, next)| *next == '"').is_some() {
                    element.push('"');
                } else {
                    end = at + 1;
                    break;
                }
            }
            rest = &quoted[end..];
            rest = rest.find(',').map_or("", |comma| &rest[comma + 1..]);
        } else {
            let (own, others) = rest.split_once(',').unwrap_or((rest, ""));
            own.trim_end().clone_into(&mut element);
            rest = others;
        }
        elements.push(element);
        rest = rest.trim_start();
    }
    elements
}

/// `app.tenant`, each part quoted.
fn setting_name(name: &str) -> String {
    name.split('.').map(quoted).collect::<Vec<_>>().join(".")
}

pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(id: u32, name: &str) -> Role {
        Role {
            id,
            name: name.to_owned(),
            attributes: ATTRIBUTES.map(|(_, default)| default),
            connection_limit: -1,
            ..Role::default()
        }
    }

    fn of(roles: &[Role]) -> Roles {
        Roles { roles: roles.to_vec(), ..Roles::default() }
    }

    fn membership(role: &str, member: &str) -> Membership {
        Membership { role: role.to_owned(), member: member.to_owned(), ..Membership::default() }
    }

    #[test]
    fn a_superuser_has_a_role_created_that_he_changes() {
        let all = of(&[role(1, "a")]);
        assert!(change(&all, &all, false).is_empty());
        assert!(change(&all, &all, true).is_empty());
        let mut after = all.clone();
        after.roles[0].attributes[4] = true;
        let there = change(&all, &after, true);
        assert_eq!(there.len(), 2);
        assert!(there[0].contains("CREATE ROLE \"a\"; END IF;"), "{there:?}");
        assert_eq!(change(&all, &after, false).len(), 1);
    }

    #[test]
    fn only_a_superuser_takes_over_a_role_of_the_node() {
        let mut new = role(7, "x\"y");
        new.attributes[4] = true;
        new.password = Some("SCRAM-SHA-256$4096:salt$key".to_owned());
        let statement = |by_superuser| change(&Roles::default(), &of(&[new.clone()]), by_superuser);
        let others = statement(false).remove(0);
        assert!(others.contains("already exists"), "{others}");
        assert!(
            others
                .contains("CREATE ROLE \"x\"\"y\" LOGIN PASSWORD ''SCRAM-SHA-256$4096:salt$key''"),
            "{others}"
        );
        let superusers = statement(true).remove(0);
        let all = "NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS CONNECTION LIMIT -1 \
                   VALID UNTIL ''infinity'' PASSWORD";
        assert!(superusers.contains(all), "{superusers}");
    }

    #[test]
    fn a_role_that_a_node_lacks_does_not_become_another_one_by_its_new_name() {
        let (before, after) = (of(&[role(7, "x")]), of(&[role(7, "y")]));
        let statement = change(&before, &after, false).remove(0);
        assert!(statement.contains("RENAME TO \"y\"; ELSIF"), "{statement}");
        assert!(statement.contains("already exists"), "{statement}");
    }

    #[test]
    fn memberships_follow_names() {
        let mut before = of(&[role(1, "a"), role(2, "b"), role(3, "c")]);
        before.memberships = vec![membership("a", "b"), membership("a", "c")];
        let mut after = of(&[role(1, "a"), role(2, "d"), role(3, "c")]);
        after.memberships = vec![membership("a", "d")];
        before.memberships.push(membership("unread", "c"));
        let statements = change(&before, &after, false);
        assert_eq!(statements.len(), 3, "{statements:?}");
        assert!(statements[2].contains("REVOKE \"unread\" FROM"), "{statements:?}");
        assert!(statements[1].contains("REVOKE \"a\" FROM \"c\" CASCADE"), "{statements:?}");
    }

    #[test]
    fn the_options_of_a_membership_follow() {
        let with = |has_admin, options| {
            let mut all = of(&[role(1, "a"), role(2, "b")]);
            all.memberships = vec![Membership { has_admin, options, ..membership("a", "b") }];
            all
        };
        let lost = change(&with(true, None), &with(false, None), false);
        assert!(lost[0].contains("REVOKE ADMIN OPTION FOR \"a\" FROM \"b\" CASCADE"), "{lost:?}");
        let other =
            change(&with(true, Some([true, true])), &with(true, Some([false, true])), false);
        assert!(other[0].contains("WITH ADMIN TRUE, INHERIT false, SET true"), "{other:?}");
    }

    #[test]
    fn of_built_in_roles_only_memberships_follow() {
        let built_in = Role { is_built_in: true, ..role(10, "pg_monitor") };
        let mut before = of(&[built_in, role(2, "b")]);
        let mut after = before.clone();
        after.roles[0].password = Some("x".to_owned());
        after.memberships = vec![membership("pg_monitor", "b")];
        let statements = change(&before, &after, false);
        assert_eq!(statements.len(), 1);
        assert!(statements[0].contains("GRANT \"pg_monitor\" TO \"b\";"), "{statements:?}");
        before.roles.remove(1);
        assert!(missing(&before).is_empty());
    }

    #[test]
    fn settings_follow_as_they_are() {
        let setting =
            |role: Option<&str>, database: Option<&str>, name: &str, value: &str| Setting {
                role: role.map(str::to_owned),
                database: database.map(str::to_owned),
                name: name.to_owned(),
                value: value.to_owned(),
            };
        let mut before = of(&[role(1, "a")]);
        before.settings = vec![setting(Some("a"), None, "app.tenant", "1")];
        let mut after = of(&[role(1, "a")]);
        after.settings = vec![
            setting(Some("a"), Some("d"), "search_path", "\"$user\", \"a,\"\"b\", c"),
            setting(None, Some("d"), "work_mem", "4MB"),
        ];
        let statements = change(&before, &after, false);
        assert!(
            statements[0].contains("ALTER ROLE \"a\" RESET \"app\".\"tenant\""),
            "{statements:?}"
        );
        let wanted =
            "ALTER ROLE \"a\" IN DATABASE \"d\" SET \"search_path\" TO ''$user'', ''a,\"b'', ''c''";
        assert!(statements[1].contains(wanted), "{statements:?}");
        assert!(
            statements[2].contains("ALTER DATABASE \"d\" SET \"work_mem\" TO ''4MB''"),
            "{statements:?}"
        );
    }

    #[test]
    fn what_a_dropped_role_had_goes_with_it() {
        let mut before = of(&[role(1, "a"), role(2, "b")]);
        before.memberships = vec![membership("a", "b")];
        before.settings = vec![Setting { role: Some("b".to_owned()), ..Setting::default() }];
        let after = of(&[role(1, "a")]);
        assert_eq!(change(&before, &after, false), ["DROP ROLE IF EXISTS \"b\""]);
    }
}
