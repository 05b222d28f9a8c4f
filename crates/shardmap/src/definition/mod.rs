//! What a distributed table is made of, as SQL fragments, and what its shards are told about it.
//!
//! A shard is a table of the same definition, named `<table>_<shardid>`, in the same schema. [`create`] makes a shard;
//! [`change`] makes the shards follow when the table's own definition has changed. The fragments come from the catalogs,
//! printed and quoted by PostgreSQL, so that no rule of its grammar is repeated here. A field is ready SQL unless it is
//! called a name: names are bare, since the shard's id has yet to be added to them.

/// The statements that create a shard.
pub mod create;

/// The statements that make a shard follow its table.
pub mod change;

/// Columns whose type or generation expression changes.
pub mod conversion;

/// Foreign keys of shards.
pub mod foreign_keys;

/// Types, functions and the like that tables need.
pub mod objects;

/// Triggers by which constraints are enforced.
pub mod system_triggers;

/// What shards cannot follow.
pub mod refusal;

/// Roles, their memberships and settings.
pub mod roles;

pub use self::foreign_keys::ForeignKey;
pub use self::system_triggers::SystemTrigger;

use crate::shard_template::Template;

/// A table and all that belongs to it, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition {
    /// The table itself.
    pub table: Table,
    /// For each schema, type, function or extension that the shard needs, a statement that creates it on a node that lacks it.
    pub prerequisites: Vec<String>,
    /// The live columns in their order.
    pub columns: Vec<Column>,
    /// The CHECK constraints by name.
    pub checks: Vec<Check>,
    /// The foreign keys by name.
    pub foreign_keys: Vec<ForeignKey>,
    /// The triggers by which constraints are enforced.
    pub system_triggers: Vec<SystemTrigger>,
    /// The indexes, in the order in which they were made.
    pub indexes: Vec<Index>,
    /// The extended statistics, in the order in which they were made.
    pub statistics: Vec<Statistics>,
    /// Everyone's rights but the owner's.
    pub grants: Vec<Grant>,
}

/// The table itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The schema, quoted.
    pub schema: String,
    /// The bare name.
    pub name: String,
    /// A foreign table.
    pub is_foreign: bool,
    /// An unlogged table.
    pub is_unlogged: bool,
    /// Of a partitioned table what follows PARTITION BY.
    pub partition_key: Option<String>,
    /// What follows the list of columns besides storage parameters: `USING`, or `SERVER` and `OPTIONS`.
    pub storage: String,
    /// The storage parameters, those of the TOAST table with `toast.` before them.
    pub parameters: Vec<Parameter>,
    /// `DEFAULT`, `FULL` or `NOTHING`; an index says itself that it is the identity. None for foreign tables.
    pub replica_identity: Option<String>,
    /// The owner, quoted.
    pub owner: String,
    /// The owner is the role that creates the shards.
    pub is_own: bool,
    /// The comment as a literal.
    pub comment: Option<String>,
    /// The schemas, quoted, of operators that its expressions use: SQL has no place to name those of NULLIF, IS DISTINCT FROM,
    /// CASE x WHEN y, and of rows that are compared, so a node has to find them.
    pub operator_schemas: Vec<String>,
}

impl Table {
    /// The statements with these operators in sight. Whatever has a place for its schema names it.
    fn with_operators(&self, mut statements: Vec<Template>) -> Vec<Template> {
        if !self.operator_schemas.is_empty() && !statements.is_empty() {
            let schemas = self.operator_schemas.join(", ");
            let path = |schemas: &str| {
                Template::new(format!("SET LOCAL search_path = pg_catalog, {schemas}pg_temp"))
            };
            statements.insert(0, path(&format!("{schemas}, ")));
            statements.push(path(""));
        }
        statements
    }
}

/// A storage parameter or an option of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The name, quoted.
    pub name: String,
    /// The value as a literal.
    pub value: String,
}

impl Parameter {
    fn set(parameters: &[Self]) -> String {
        let each: Vec<String> =
            parameters.iter().map(|one| format!("{}={}", one.name, one.value)).collect();
        each.join(", ")
    }
}

/// `SET (...)` and `RESET (...)`, as far as they are needed.
fn changed_parameters(was: &[Parameter], is: &[Parameter]) -> Vec<String> {
    let set: Vec<Parameter> = is.iter().filter(|one| !was.contains(one)).cloned().collect();
    let gone: Vec<&str> = was
        .iter()
        .filter(|one| !is.iter().any(|other| other.name == one.name))
        .map(|one| one.name.as_str())
        .collect();
    let mut actions = Vec::new();
    if !set.is_empty() {
        actions.push(format!("SET ({})", Parameter::set(&set)));
    }
    if !gone.is_empty() {
        actions.push(format!("RESET ({})", gone.join(", ")));
    }
    actions
}

/// A live column, inherited or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Its number in the coordinator's table, which it keeps as long as it lives.
    pub number: i16,
    /// The name, quoted.
    pub quoted_name: String,
    /// Type with modifier, and collation where it is not the type's own.
    pub type_name: String,
    /// `OPTIONS (...)` of a foreign table's column, with a space before it.
    pub options: String,
    /// The default, if it may stand on a node: nothing volatile, no sequence.
    pub default: Option<String>,
    /// The default is computed anew for each row, or names a sequence; or the column is an identity.
    pub has_computed_default: bool,
    /// What rows have that were there before the column, as a literal.
    pub missing: Option<String>,
    /// The expression of a generated column, in parentheses, and behind it `STORED` or `VIRTUAL`.
    pub generated: Option<String>,
    /// NOT NULL.
    pub is_not_null: bool,
    /// `PLAIN`, `EXTERNAL`, `MAIN` or `EXTENDED`.
    pub storage: String,
    /// The storage is that of the type.
    pub is_default_storage: bool,
    /// `pglz` or `lz4`.
    pub compression: Option<String>,
    /// The statistics target, -1 for the server's.
    pub statistics: i32,
    /// Options such as `n_distinct`.
    pub parameters: Vec<Parameter>,
    /// The comment as a literal.
    pub comment: Option<String>,
}

/// A CHECK constraint. It keeps its name, which is the table's own affair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// The constraint's OID on the coordinator, which it keeps as long as it lives.
    pub id: u32,
    /// The name, quoted.
    pub quoted_name: String,
    /// From `CHECK` to the end.
    pub body: String,
    /// Whether all rows are known to satisfy it.
    pub is_validated: bool,
    /// The comment as a literal.
    pub comment: Option<String>,
}

/// An index, or the constraint that owns it; both have the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// The index's OID on the coordinator, which it keeps as long as it lives.
    pub id: u32,
    /// The bare name.
    pub name: String,
    /// It can be used; otherwise CREATE INDEX CONCURRENTLY has failed, and some shards may have it and others not.
    pub is_valid: bool,
    /// A primary key, unique or exclusion constraint owns it.
    pub is_constraint: bool,
    /// `CREATE [UNIQUE] INDEX`; empty for a constraint.
    pub create: String,
    /// What follows the table's name (of an index) or the constraint's.
    pub body: String,
    /// The storage parameters, which `body` has as well.
    pub parameters: Vec<Parameter>,
    /// `ALTER COLUMN 1 SET STATISTICS 100`, for indexed expressions.
    pub settings: Vec<String>,
    /// CLUSTER goes by it.
    pub is_clustered: bool,
    /// It identifies rows for logical replication.
    pub is_replica_identity: bool,
    /// The index's comment as a literal.
    pub comment: Option<String>,
    /// The constraint's comment as a literal.
    pub constraint_comment: Option<String>,
}

/// An extended statistics object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// The object's OID on the coordinator, which it keeps as long as it lives.
    pub id: u32,
    /// The schema, quoted.
    pub schema: String,
    /// The bare name.
    pub name: String,
    /// The kinds in parentheses, `ON`, and the columns and expressions.
    pub body: String,
    /// The statistics target, unless it is the server's.
    pub target: Option<i32>,
    /// The owner, quoted.
    pub owner: String,
    /// The owner is the role that creates the shards.
    pub is_own: bool,
    /// The comment as a literal.
    pub comment: Option<String>,
}

/// Rights on the table or on some of its columns, of one role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// `SELECT, UPDATE (total)`.
    pub privileges: String,
    /// The role, quoted, or `PUBLIC`.
    pub grantee: String,
    /// The role may pass them on.
    pub is_grantable: bool,
}

/// The statements about one table's shards, one function a kind.
pub(crate) struct ShardTemplates<'a> {
    table: &'a Table,
    /// The shard's qualified name.
    shard: Template,
}

impl<'a> ShardTemplates<'a> {
    pub(crate) fn new(table: &'a Table) -> Self {
        Self { table, shard: qualified(&table.schema, &table.name) }
    }

    /// `ONLY`, though a shard has no children: somebody might have given it some. Those of a partitioned one follow it.
    pub(crate) fn alter_table(&self, action: impl Into<String>) -> Template {
        let only = if self.table.partition_key.is_some() { " " } else { " ONLY " };
        Template::new("ALTER ").text(self.kind()).text(only).then(&self.shard).text(action)
    }

    pub(crate) fn kind(&self) -> &'static str {
        if self.table.is_foreign { "FOREIGN TABLE" } else { "TABLE" }
    }
}

pub(crate) fn qualified(schema: &str, name: &str) -> Template {
    Template::new(schema).text(".").name(name)
}

/// `COMMENT ON` an object; without a text the comment goes.
pub(crate) fn comment(object: &Template, quoted_text: Option<&str>) -> Template {
    Template::new("COMMENT ON ").then(object).text(" IS ").text(quoted_text.unwrap_or("NULL"))
}
