//! What the nodes do when objects change that tables need: schemas, types, domains, functions, collations, extensions.
//!
//! An object is compared with itself as it was before a statement, and is known by its id; so are the labels, attributes and
//! constraints of types. The statements give each object as it is called at that point: all have their new names before anything else
//! changes. What a node does not have under the former name has been renamed there by its administrator.

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A schema.
    Schema,
    /// A type of labels.
    Enum,
    /// A domain.
    Domain,
    /// A composite type.
    Composite,
    /// A range type.
    Range,
    /// A collation.
    Collation,
    /// A function.
    Function,
    /// An extension.
    Extension,
}

impl Kind {
    /// As SQL spells it in ALTER and DROP.
    fn word(self) -> &'static str {
        match self {
            Self::Schema => "SCHEMA",
            Self::Enum | Self::Composite | Self::Range => "TYPE",
            Self::Domain => "DOMAIN",
            Self::Collation => "COLLATION",
            Self::Function => "FUNCTION",
            Self::Extension => "EXTENSION",
        }
    }

    /// As SQL spells it in GRANT.
    fn word_of_grant(self) -> &'static str {
        if self == Self::Domain { "TYPE" } else { self.word() }
    }

    /// The condition under which a node has an object of this name.
    fn is_there(self, name: &str) -> String {
        match self {
            Self::Schema => format!("pg_catalog.to_regnamespace({}) IS NOT NULL", literal(name)),
            Self::Enum | Self::Composite | Self::Range | Self::Domain => {
                format!("pg_catalog.to_regtype({}) IS NOT NULL", literal(name))
            }
            Self::Function => {
                format!("pg_catalog.to_regprocedure({}) IS NOT NULL", literal(name))
            }
            Self::Collation | Self::Extension => "true".to_owned(),
        }
    }
}

/// A right to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// The role, quoted, or `PUBLIC`.
    pub grantee: String,
    /// `USAGE`.
    pub privilege: String,
    /// The role may pass it on.
    pub is_grantable: bool,
}

/// A label, an attribute or a constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its id.
    pub id: u32,
    /// Its name, quoted: a label as a literal, the others as identifiers.
    pub name: String,
    /// An attribute's type, or a constraint's definition without NOT VALID.
    pub text: String,
    /// A constraint that holds for stored values.
    pub is_validated: bool,
    /// Where the operators of a constraint are, with commas: SQL has no place to name all of them.
    pub operator_schemas: Option<String>,
    /// The same as long as an attribute has the same type, whatever that is called.
    pub identity: String,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// Its id.
    pub id: u32,
    /// Its own name, quoted.
    pub name: String,
    /// Its schema's id; of a schema 0.
    pub schema: u32,
    /// Its schema's name, quoted.
    pub schema_name: String,
    /// The types of a function's arguments, in parentheses.
    pub arguments: String,
    /// Its owner, quoted.
    pub owner: String,
    /// The rights of others than the owner.
    pub rights: Vec<Right>,
    /// The statement that replaces a function; the version of an extension.
    pub body: String,
    /// The default of a domain.
    pub default: Option<String>,
    /// A domain's values are NOT NULL.
    pub is_not_null: bool,
    /// What a type is made of, in order.
    pub parts: Vec<Part>,
}

impl Object {
    fn named(&self, schema: &str, name: &str) -> String {
        match self.kind {
            Kind::Schema | Kind::Extension => name.to_owned(),
            _ => format!("{schema}.{name}{}", self.arguments),
        }
    }

    /// Its name as it is now.
    fn address(&self) -> String {
        self.named(&self.schema_name, &self.name)
    }

    fn alter(&self, action: &str) -> String {
        format!("ALTER {} {} {action}", self.kind.word(), self.address())
    }
}

/// The statements for a node that has all of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectChange {
    /// New names.
    pub renamed: Vec<String>,
    /// What follows when everything is there that the objects need by now.
    pub changed: Vec<String>,
    /// The last ones: what is gone goes, unless something on the node needs it.
    pub dropped: Vec<String>,
}

impl ObjectChange {
    /// There is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What has changed between the two states. Objects of `before` that are missing from `after` have been dropped.
pub fn change(before: &[Object], after: &[Object]) -> ObjectChange {
    let mut all = ObjectChange::default();
    let mut pairs: Vec<(&Object, &Object)> = before
        .iter()
        .filter_map(|was| Some((was, after.iter().find(|is| is_same(was, is))?)))
        .collect();
    pairs.sort_by_key(|(was, _)| (was.kind, was.id));
    for (was, is) in &pairs {
        all.renamed.extend(renamed(was, is));
    }
    for (was, is) in &pairs {
        all.renamed.extend(renamed_parts(was, is));
    }
    // A function may be what a domain's new constraint calls.
    pairs.sort_by_key(|(was, _)| (was.kind != Kind::Extension, was.kind != Kind::Function, was.id));
    for (was, is) in &pairs {
        all.changed.extend(changed_body(was, is));
        all.changed.extend(changed_parts(was, is));
    }
    for (was, is) in &pairs {
        if was.owner != is.owner {
            all.changed.push(is.alter(&format!("OWNER TO {}", is.owner)));
        }
        all.changed.extend(changed_rights(was, is));
    }
    let mut gone: Vec<&Object> = before
        .iter()
        .filter(|was| !after.iter().any(|is| is_same(was, is)))
        .filter(|was| !matches!(was.kind, Kind::Schema | Kind::Extension))
        .collect();
    gone.sort_by_key(|was| std::cmp::Reverse(was.id));
    all.dropped.extend(gone.into_iter().map(drop_unless_needed));
    all
}

fn is_same(was: &Object, is: &Object) -> bool {
    was.kind == is.kind && was.id == is.id
}

/// Schemas come first, so a schema that was renamed has its new name already.
fn renamed(was: &Object, is: &Object) -> Vec<String> {
    let mut statements = Vec::new();
    // What has moved from one extension's schema to another goes with the extension.
    let schema = if was.schema == is.schema { &is.schema_name } else { &was.schema_name };
    let word = is.kind.word();
    if was.schema != is.schema {
        let old = is.named(schema, &was.name);
        statements.push(if_there(
            is.kind,
            &old,
            &format!("ALTER {word} {old} SET SCHEMA {}", is.schema_name),
        ));
    }
    if was.name != is.name {
        let old = is.named(&is.schema_name, &was.name);
        statements.push(if_there(
            is.kind,
            &old,
            &format!("ALTER {word} {old} RENAME TO {}", is.name),
        ));
    }
    statements
}

fn if_there(kind: Kind, name: &str, statement: &str) -> String {
    block(&format!("IF {} THEN {statement}; END IF;", kind.is_there(name)))
}

fn renamed_parts(was: &Object, is: &Object) -> Vec<String> {
    let word = match is.kind {
        Kind::Enum => "VALUE",
        Kind::Composite => "ATTRIBUTE",
        Kind::Domain => "CONSTRAINT",
        _ => return Vec::new(),
    };
    let cascade = if is.kind == Kind::Composite { " CASCADE" } else { "" };
    kept(was, is)
        .filter(|(old, new)| old.name != new.name)
        .map(|(old, new)| is.alter(&format!("RENAME {word} {} TO {}{cascade}", old.name, new.name)))
        .collect()
}

/// The parts that are in both, as they were and as they are.
fn kept<'a>(was: &'a Object, is: &'a Object) -> impl Iterator<Item = (&'a Part, &'a Part)> {
    was.parts.iter().filter_map(|old| Some((old, is.parts.iter().find(|new| new.id == old.id)?)))
}

fn changed_body(was: &Object, is: &Object) -> Vec<String> {
    match is.kind {
        Kind::Function if was.body != is.body => vec![is.body.clone()],
        Kind::Extension if was.body != is.body => {
            vec![is.alter(&format!("UPDATE TO {}", literal(&is.body)))]
        }
        Kind::Domain => {
            let mut statements = Vec::new();
            if was.default != is.default {
                statements.push(is.alter(&match &is.default {
                    Some(default) => format!("SET DEFAULT {default}"),
                    None => "DROP DEFAULT".to_owned(),
                }));
            }
            if was.is_not_null != is.is_not_null {
                let verb = if is.is_not_null { "SET" } else { "DROP" };
                statements.push(is.alter(&format!("{verb} NOT NULL")));
            }
            statements
        }
        _ => Vec::new(),
    }
}

fn changed_parts(was: &Object, is: &Object) -> Vec<String> {
    let dropped = was.parts.iter().filter(|old| !is.parts.iter().any(|new| new.id == old.id));
    let added = is
        .parts
        .iter()
        .enumerate()
        .filter(|(_, new)| !was.parts.iter().any(|old| old.id == new.id));
    match is.kind {
        Kind::Enum => added
            .map(|(at, new)| {
                let place = match at.checked_sub(1) {
                    Some(before) => format!(" AFTER {}", is.parts[before].name),
                    None => is
                        .parts
                        .get(1)
                        .map_or_else(String::new, |second| format!(" BEFORE {}", second.name)),
                };
                is.alter(&format!("ADD VALUE IF NOT EXISTS {}{place}", new.name))
            })
            .collect(),
        Kind::Domain => {
            let mut statements: Vec<String> = dropped
                .map(|old| is.alter(&format!("DROP CONSTRAINT IF EXISTS {} CASCADE", old.name)))
                .collect();
            for (_, new) in added {
                let ending = if new.is_validated { "" } else { " NOT VALID" };
                let add = is.alter(&format!("ADD CONSTRAINT {} {}{ending}", new.name, new.text));
                let is_there = format!(
                    "SELECT FROM pg_catalog.pg_constraint WHERE contypid = pg_catalog.to_regtype({}) AND pg_catalog.quote_ident(conname) = {}",
                    literal(&is.address()),
                    literal(&new.name)
                );
                let add = block(&format!("IF NOT EXISTS ({is_there}) THEN {add}; END IF;"));
                statements.extend(with_operators(new, add));
            }
            statements.extend(
                kept(was, is)
                    .filter(|(old, new)| !old.is_validated && new.is_validated)
                    .map(|(_, new)| is.alter(&format!("VALIDATE CONSTRAINT {}", new.name))),
            );
            statements
        }
        Kind::Composite => {
            let mut actions: Vec<String> = dropped
                .map(|old| format!("DROP ATTRIBUTE IF EXISTS {} CASCADE", old.name))
                .collect();
            actions.extend(
                kept(was, is).filter(|(old, new)| old.identity != new.identity).map(|(_, new)| {
                    format!("ALTER ATTRIBUTE {} TYPE {} CASCADE", new.name, new.text)
                }),
            );
            actions.extend(
                added.map(|(_, new)| format!("ADD ATTRIBUTE {} {} CASCADE", new.name, new.text)),
            );
            if actions.is_empty() { Vec::new() } else { vec![is.alter(&actions.join(", "))] }
        }
        _ => Vec::new(),
    }
}

/// The statement, where the operators of a constraint are found.
fn with_operators(part: &Part, statement: String) -> Vec<String> {
    let Some(schemas) = &part.operator_schemas else { return vec![statement] };
    vec![
        format!("SET LOCAL search_path = pg_catalog, {schemas}, pg_temp"),
        statement,
        "SET LOCAL search_path = pg_catalog, pg_temp".to_owned(),
    ]
}

fn changed_rights(was: &Object, is: &Object) -> Vec<String> {
    let on = |right: &Right| {
        format!("{} ON {} {}", right.privilege, is.kind.word_of_grant(), is.address())
    };
    let same = |one: &Right, other: &Right| {
        one.grantee == other.grantee && one.privilege == other.privilege
    };
    let mut statements = Vec::new();
    for old in &was.rights {
        match is.rights.iter().find(|new| same(old, new)) {
            None => {
                let revoke = format!("REVOKE {} FROM {} CASCADE", on(old), old.grantee);
                statements.push(if_role(&old.grantee, revoke));
            }
            Some(new) if old.is_grantable && !new.is_grantable => {
                let (on, grantee) = (on(old), &old.grantee);
                let revoke = format!("REVOKE GRANT OPTION FOR {on} FROM {grantee} CASCADE");
                statements.push(if_role(grantee, revoke));
            }
            Some(_) => {}
        }
    }
    for new in is.rights.iter().filter(|new| !was.rights.contains(new)) {
        let option = if new.is_grantable { " WITH GRANT OPTION" } else { "" };
        // Without the option it is there already, if it has lost that.
        if new.is_grantable || !was.rights.iter().any(|old| same(old, new)) {
            let grant = format!("GRANT {} TO {}{option}", on(new), new.grantee);
            statements.push(if_role(&new.grantee, grant));
        }
    }
    statements
}

/// Who does not exist on a node has no rights there.
fn if_role(grantee: &str, statement: String) -> String {
    if grantee == "PUBLIC" {
        return statement;
    }
    block(&format!(
        "IF pg_catalog.to_regrole({}) IS NOT NULL THEN {statement}; END IF;",
        literal(grantee)
    ))
}

fn drop_unless_needed(was: &Object) -> String {
    block(&format!(
        "DROP {} IF EXISTS {}; EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege OR invalid_schema_name THEN NULL;",
        was.kind.word(),
        was.address()
    ))
}

pub(super) fn block(body: &str) -> String {
    format!("DO {}", literal(&format!("BEGIN {body} END")))
}

/// A text as SQL has it, whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: Kind, id: u32, name: &str) -> Object {
        Object {
            kind,
            id,
            name: name.to_owned(),
            schema: if kind == Kind::Schema { 0 } else { 1 },
            schema_name: "s".to_owned(),
            arguments: if kind == Kind::Function { "(integer)" } else { "" }.to_owned(),
            owner: "postgres".to_owned(),
            rights: Vec::new(),
            body: String::new(),
            default: None,
            is_not_null: false,
            parts: Vec::new(),
        }
    }

    fn part(id: u32, name: &str, text: &str) -> Part {
        Part {
            id,
            name: name.to_owned(),
            text: text.to_owned(),
            is_validated: true,
            operator_schemas: None,
            identity: text.to_owned(),
        }
    }

    fn statements(before: &[Object], after: &[Object]) -> Vec<String> {
        let change = change(before, after);
        [change.renamed, change.changed, change.dropped].concat()
    }

    #[test]
    fn what_is_unchanged_asks_nothing() {
        let all = [object(Kind::Schema, 1, "s"), object(Kind::Function, 2, "f")];
        assert!(change(&all, &all).is_empty());
    }

    #[test]
    fn a_schema_has_its_new_name_before_what_is_in_it_is_named() {
        let before = [object(Kind::Function, 2, "f"), object(Kind::Schema, 1, "s")];
        let mut after = before.clone();
        after[1].name = "t".to_owned();
        after[0].schema_name = "t".to_owned();
        after[0].body = "CREATE OR REPLACE FUNCTION t.f".to_owned();
        assert_eq!(
            statements(&before, &after),
            [
                "DO 'BEGIN IF pg_catalog.to_regnamespace(''s'') IS NOT NULL THEN ALTER SCHEMA s RENAME TO t; END IF; END'",
                "CREATE OR REPLACE FUNCTION t.f"
            ]
        );
    }

    #[test]
    fn a_function_that_moves_is_known_by_the_arguments_of_now() {
        let before = [object(Kind::Function, 2, "f")];
        let mut after = before.clone();
        after[0].schema = 7;
        after[0].schema_name = "u".to_owned();
        assert_eq!(
            statements(&before, &after),
            [
                "DO 'BEGIN IF pg_catalog.to_regprocedure(''s.f(integer)'') IS NOT NULL THEN ALTER FUNCTION s.f(integer) SET SCHEMA u; END IF; END'"
            ]
        );
    }

    #[test]
    fn labels_come_where_they_belong() {
        let mut before = [object(Kind::Enum, 3, "e")];
        before[0].parts = vec![part(1, "'a'", ""), part(2, "'b'", "")];
        let mut after = before.clone();
        after[0].parts =
            vec![part(3, "'z'", ""), part(1, "'A'", ""), part(4, "'m'", ""), part(2, "'b'", "")];
        assert_eq!(
            statements(&before, &after),
            [
                "ALTER TYPE s.e RENAME VALUE 'a' TO 'A'",
                "ALTER TYPE s.e ADD VALUE IF NOT EXISTS 'z' BEFORE 'A'",
                "ALTER TYPE s.e ADD VALUE IF NOT EXISTS 'm' AFTER 'A'"
            ]
        );
    }

    #[test]
    fn constraints_of_a_domain_are_validated_where_the_rows_are() {
        let mut before = [object(Kind::Domain, 3, "d")];
        before[0].parts = vec![
            part(1, "old", "CHECK (a)"),
            Part { is_validated: false, ..part(2, "late", "CHECK (b)") },
        ];
        let mut after = before.clone();
        after[0].is_not_null = true;
        after[0].default = Some("7".to_owned());
        after[0].parts = vec![part(2, "late", "CHECK (b)"), part(5, "more", "CHECK (c)")];
        assert_eq!(
            statements(&before, &after),
            [
                "ALTER DOMAIN s.d SET DEFAULT 7",
                "ALTER DOMAIN s.d SET NOT NULL",
                "ALTER DOMAIN s.d DROP CONSTRAINT IF EXISTS old CASCADE",
                "DO 'BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contypid = pg_catalog.to_regtype(''s.d'') AND pg_catalog.quote_ident(conname) = ''more'') \
                 THEN ALTER DOMAIN s.d ADD CONSTRAINT more CHECK (c); END IF; END'",
                "ALTER DOMAIN s.d VALIDATE CONSTRAINT late"
            ]
        );
    }

    #[test]
    fn rights_change_one_by_one() {
        let right = |grantee: &str, is_grantable| Right {
            grantee: grantee.to_owned(),
            privilege: "USAGE".to_owned(),
            is_grantable,
        };
        let mut before = [object(Kind::Domain, 3, "d")];
        before[0].rights = vec![right("PUBLIC", false), right("a", true), right("b", false)];
        let mut after = before.clone();
        after[0].rights = vec![right("a", false), right("b", true), right("c", false)];
        let wanted = [
            "REVOKE USAGE ON TYPE s.d FROM PUBLIC CASCADE",
            "REVOKE GRANT OPTION FOR USAGE ON TYPE s.d FROM a CASCADE",
            "GRANT USAGE ON TYPE s.d TO b WITH GRANT OPTION",
            "GRANT USAGE ON TYPE s.d TO c",
        ];
        for (statement, wanted) in statements(&before, &after).iter().zip(wanted) {
            assert!(statement.contains(wanted), "{statement}");
        }
        assert_eq!(statements(&before, &after).len(), wanted.len());
    }

    #[test]
    fn what_is_gone_goes_last_and_in_the_order_of_need() {
        let before = [
            object(Kind::Domain, 3, "d"),
            object(Kind::Composite, 4, "c"),
            object(Kind::Schema, 1, "s"),
        ];
        let dropped = statements(&before, &[]);
        assert_eq!(dropped.len(), 2);
        assert!(dropped[0].contains("DROP TYPE IF EXISTS s.c;"), "{dropped:?}");
        assert!(dropped[1].contains("DROP DOMAIN IF EXISTS s.d;"), "{dropped:?}");
    }

    #[test]
    fn texts_are_quoted() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\b'"), "E'a\\\\b'''");
    }
}
