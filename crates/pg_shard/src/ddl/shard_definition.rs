//! What a shard of a table is made of, as SQL.
//!
//! A shard is a table of the same definition, named `<table>_<shardid>`, in the same schema. [`ShardDefinition::read`] asks
//! the catalogs once; [`ShardDefinition::statements`] then fills in the id, so a thousand shards cost one reading.
//!
//! Sent: columns (inherited ones as the table's own), types, collations, generation expressions, harmless defaults, NOT
//! NULL, CHECK; storage, compression and statistics settings; storage parameters, UNLOGGED, access method; indexes, primary
//! keys, unique and exclusion constraints, CLUSTER ON, replica identity; extended statistics; comments; owner and
//! privileges; the server and options of a foreign table; the schema, where it is absent.
//!
//! Spooled on the coordinator, which acts on them itself: sequences and identity, defaults that need them, foreign keys,
//! triggers, rules, row security, inheritance and partition bounds. Left to the nodes: tablespaces. Not read: security
//! labels, and rights that the owner has taken away from himself.
//!
//! The caller guarantees, while `read` runs:
//! * a lock on the table that keeps its definition as it is (ACCESS SHARE does);
//! * that the current user is the one who will execute the statements: what he owns needs no change of owner;
//! * that the table is not temporary: its schema has another name in every session.
//!
//! `pg::catalog::privileged` sets `search_path = pg_catalog, pg_temp`, so that everything outside `pg_catalog` is printed with its schema,
//! and what makes constants in expressions mean the same on a node, as pg_dump does it.
//!
//! The statements can run in one transaction, and should: only there do they run whole or not at all. They assume that the
//! types, functions, operators, collations, access methods, roles and foreign servers named exist on the node. An
//! expression that names the table's row type, rather than the row as `table.*`, means the table and not the shard: on a
//! node that lacks the table it fails.

use pg::catalog::privileged;
use pgrx::pg_sys::Oid;
use pgrx::spi::SpiError;
use thiserror::Error;

use super::shard_catalog::{Check, Column, Grant, Index, ShardCatalog, Statistics, Table};
use shardmap::shard_template::{NameTooLong, Template};

/// Why a table's definition could not be read, or not be used for a shard.
#[derive(Debug, Error)]
pub(crate) enum DefinitionError {
    /// A query of the catalogs failed. SQLSTATE XX000.
    #[error("could not read the definition of a table: {0}")]
    Catalog(#[from] SpiError),

    /// A name has no room for the shard's id. SQLSTATE XX000.
    #[error(transparent)]
    NameTooLong(#[from] NameTooLong),

    /// Only these two kinds have shards. SQLSTATE 42809.
    #[error("{name} is not a regular or foreign table")]
    NotATable {
        /// The relation's qualified name, quoted as SQL needs it.
        name: String,
    },

    /// There is no such relation, or no longer. SQLSTATE XX000.
    #[error("cache lookup failed for relation {0}")]
    Vanished(Oid),

    /// A broken invariant: the server prints a part of a definition in a form that we do not know. SQLSTATE XX000.
    #[error("unexpected form of \"{part}\" in the definition of a table")]
    Unreadable {
        /// The column of our catalog query that could not be computed.
        part: String,
    },
}

/// The statements that create a shard, and the one that drops it, with the shard's id left open.
#[derive(Clone, Debug)]
pub(crate) struct ShardDefinition {
    create: Vec<Template>,
    drop: Template,
}

impl ShardDefinition {
    /// Reads the definition of `relation`, a regular or foreign table, from the catalogs.
    ///
    /// The module's header lists what the caller guarantees.
    pub(crate) fn read(relation: Oid) -> Result<Self, DefinitionError> {
        privileged::read_catalogs(|client| {
            let catalog = ShardCatalog::new(client, relation);
            let table = catalog.table()?;
            let schemas = catalog.schemas()?;
            let columns = catalog.columns()?;
            let checks = catalog.checks()?;
            let indexes = catalog.indexes()?;
            let statistics = catalog.statistics()?;
            let grants = catalog.grants()?;

            let shard = ShardTemplates::new(&table);
            let mut create: Vec<Template> = schemas.into_iter().map(Template::new).collect();
            create.push(shard.create_table(&columns, &checks));
            // From here on it is the owner's: whoever builds an index of it becomes him, as far as the index's expressions go.
            create.extend(shard.owner());
            create.extend(shard.column_settings(&columns));
            create.extend(shard.unvalidated_checks(&checks));
            create.extend(indexes.iter().flat_map(|index| shard.index(index)));
            create.extend(shard.replica_identity());
            create.extend(statistics.iter().flat_map(|object| shard.statistics(object)));
            create.extend(shard.table_comment());
            create.extend(columns.iter().filter_map(|column| shard.column_comment(column)));
            create.extend(checks.iter().filter_map(|check| shard.check_comment(check)));
            create.extend(statistics.iter().filter_map(ShardTemplates::statistics_owner));
            create.extend(grants.iter().map(|grant| shard.grant(grant)));
            Ok(Self { create, drop: shard.drop_table() })
        })
    }

    /// The statements that create shard `shard_id`, in order.
    pub(crate) fn statements(&self, shard_id: i64) -> Result<Vec<String>, DefinitionError> {
        self.create.iter().map(|template| Ok(template.fill(shard_id)?)).collect()
    }

    /// The statement that drops shard `shard_id`, whether it is there or not.
    ///
    /// A name that is too long is refused here as well: the server would cut it short, and might then drop the table itself.
    pub(crate) fn drop_statement(&self, shard_id: i64) -> Result<String, DefinitionError> {
        Ok(self.drop.fill(shard_id)?)
    }
}

/// The statements about one table's shards, one function a kind.
struct ShardTemplates<'a> {
    table: &'a Table,
    /// The shard's qualified name.
    shard: Template,
}

impl<'a> ShardTemplates<'a> {
    fn new(table: &'a Table) -> Self {
        Self { table, shard: qualified(&table.schema, &table.name) }
    }

    fn create_table(&self, columns: &[Column], checks: &[Check]) -> Template {
        let columns = columns.iter().map(|column| Template::new(&column.definition));
        let checks =
            checks.iter().filter(|check| check.is_validated).map(|check| self.check(check));
        let elements = join(columns.chain(checks), ", ");
        Template::new(&self.table.create)
            .text(" ")
            .then(&self.shard)
            .text(" (")
            .then(&elements)
            .text(")")
            .text(&self.table.storage)
    }

    fn drop_table(&self) -> Template {
        Template::new("DROP ").text(self.kind()).text(" IF EXISTS ").then(&self.shard)
    }

    /// One `ALTER TABLE` for all settings that a column's definition cannot hold.
    fn column_settings(&self, columns: &[Column]) -> Option<Template> {
        let settings = columns.iter().flat_map(|column| {
            column
                .settings
                .iter()
                .map(|setting| format!("ALTER COLUMN {} {setting}", column.quoted_name))
        });
        let settings: Vec<String> = settings.collect();
        (!settings.is_empty()).then(|| self.alter_table(" ").text(settings.join(", ")))
    }

    /// `CREATE TABLE` takes every CHECK for validated, so those that are not come after it.
    fn unvalidated_checks(&self, checks: &[Check]) -> Vec<Template> {
        let unvalidated = checks.iter().filter(|check| !check.is_validated);
        unvalidated.map(|check| self.alter_table(" ADD ").then(&self.check(check))).collect()
    }

    fn check(&self, check: &Check) -> Template {
        Template::new("CONSTRAINT ")
            .text(&check.quoted_name)
            .text(" ")
            .expression(&check.body, &self.table.name)
    }

    /// An index or the constraint that owns it, and what is said about it.
    fn index(&self, index: &Index) -> Vec<Template> {
        let name = qualified(&self.table.schema, &index.name);
        let head = if index.is_constraint {
            self.alter_table(" ADD CONSTRAINT ").name(&index.name).text(" ")
        } else {
            Template::new(&index.create)
                .text(" ")
                .name(&index.name)
                .text(" ON ")
                .then(&self.shard)
                .text(" ")
        };
        let mut statements = vec![head.expression(&index.body, &self.table.name)];
        if !index.settings.is_empty() {
            statements.push(
                Template::new("ALTER INDEX ").then(&name).text(" ").text(index.settings.join(", ")),
            );
        }
        if index.is_clustered {
            statements.push(self.alter_table(" CLUSTER ON ").name(&index.name));
        }
        if index.is_replica_identity {
            statements.push(self.alter_table(" REPLICA IDENTITY USING INDEX ").name(&index.name));
        }
        statements.extend(
            index.comment.as_ref().map(|text| comment(&Template::new("INDEX ").then(&name), text)),
        );
        statements.extend(index.constraint_comment.as_ref().map(|text| {
            let constraint =
                Template::new("CONSTRAINT ").name(&index.name).text(" ON ").then(&self.shard);
            comment(&constraint, text)
        }));
        statements
    }

    fn replica_identity(&self) -> Option<Template> {
        let identity = self.table.replica_identity.as_ref()?;
        Some(self.alter_table(" REPLICA IDENTITY ").text(identity))
    }

    /// An extended statistics object, and what is said about it.
    fn statistics(&self, object: &Statistics) -> Vec<Template> {
        let name = Template::new("STATISTICS ").then(&qualified(&object.schema, &object.name));
        let create = Template::new("CREATE ")
            .then(&name)
            .expression(&object.body, &self.table.name)
            .text(" FROM ")
            .then(&self.shard);
        let target = object.target.map(|target| {
            Template::new("ALTER ").then(&name).text(format!(" SET STATISTICS {target}"))
        });
        let comment = object.comment.as_ref().map(|text| comment(&name, text));
        [Some(create), target, comment].into_iter().flatten().collect()
    }

    fn table_comment(&self) -> Option<Template> {
        let text = self.table.comment.as_ref()?;
        Some(comment(&Template::new(self.kind()).text(" ").then(&self.shard), text))
    }

    fn column_comment(&self, column: &Column) -> Option<Template> {
        let text = column.comment.as_ref()?;
        let column = Template::new("COLUMN ").then(&self.shard).text(".").text(&column.quoted_name);
        Some(comment(&column, text))
    }

    fn check_comment(&self, check: &Check) -> Option<Template> {
        let text = check.comment.as_ref()?;
        let constraint =
            Template::new("CONSTRAINT ").text(&check.quoted_name).text(" ON ").then(&self.shard);
        Some(comment(&constraint, text))
    }

    fn owner(&self) -> Option<Template> {
        let owner = self.table.owner.as_ref()?;
        Some(
            Template::new("ALTER ")
                .text(self.kind())
                .text(" ")
                .then(&self.shard)
                .text(" OWNER TO ")
                .text(owner),
        )
    }

    fn statistics_owner(object: &Statistics) -> Option<Template> {
        let owner = object.owner.as_ref()?;
        let name = qualified(&object.schema, &object.name);
        Some(Template::new("ALTER STATISTICS ").then(&name).text(" OWNER TO ").text(owner))
    }

    fn grant(&self, grant: &Grant) -> Template {
        Template::new("GRANT ")
            .text(&grant.privileges)
            .text(" ON TABLE ")
            .then(&self.shard)
            .text(" TO ")
            .text(&grant.grantee)
    }

    /// `ONLY`, though a shard has no children: somebody might have given it some.
    fn alter_table(&self, action: &str) -> Template {
        Template::new("ALTER ").text(self.kind()).text(" ONLY ").then(&self.shard).text(action)
    }

    fn kind(&self) -> &'static str {
        if self.table.is_foreign { "FOREIGN TABLE" } else { "TABLE" }
    }
}

fn qualified(schema: &str, name: &str) -> Template {
    Template::new(schema).text(".").name(name)
}

fn comment(object: &Template, quoted_text: &str) -> Template {
    Template::new("COMMENT ON ").then(object).text(" IS ").text(quoted_text)
}

fn join(templates: impl Iterator<Item = Template>, separator: &str) -> Template {
    templates.reduce(|joined, template| joined.text(separator).then(&template)).unwrap_or_default()
}
