//! What a shard of a table is made of, read from the catalogs.
//!
//! [`ShardDefinition::read`] asks the catalogs once; [`ShardDefinition::statements`] then fills in the id, so a thousand shards
//! cost one reading. The statements themselves are made in `shardmap/src/definition/`.
//!
//! Sent: columns (inherited ones as the table's own), types, collations, generation expressions, harmless defaults, NOT
//! NULL, CHECK; storage, compression and statistics settings; storage parameters, UNLOGGED, access method; indexes, primary
//! keys, unique and exclusion constraints, CLUSTER ON, replica identity; extended statistics; comments; owner and
//! privileges; the server and options of a foreign table; the schema, where it is absent.
//!
//! Sent when the rows are there: foreign keys.
//!
//! Kept on the coordinator, which acts on them itself: sequences and identity, defaults that need them, triggers, rules, row security, inheritance and partition bounds. Left to the nodes: tablespaces. Not read: security
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
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use pgrx::spi::SpiError;
use thiserror::Error;

use super::shard_catalog::ShardCatalog;
use shardmap::definition::Definition;
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

/// The statements that create a shard, with its id left open.
#[derive(Clone, Debug)]
pub(crate) struct ShardDefinition {
    /// What creates the objects that shards need, where a node lacks them.
    pub(crate) prerequisites: Vec<String>,
    create: Vec<Template>,
}

/// Reads the definition of `relation`, a regular or foreign table, from the catalogs.
///
/// The module's header lists what the caller guarantees.
pub(crate) fn read(relation: Oid) -> Result<Definition, DefinitionError> {
    privileged::read_catalogs(|client| {
        let catalog = ShardCatalog::new(client, relation);
        Ok(Definition {
            table: catalog.table()?,
            prerequisites: catalog.prerequisites()?,
            columns: catalog.columns()?,
            checks: catalog.checks()?,
            foreign_keys: catalog.foreign_keys()?,
            system_triggers: catalog.system_triggers()?,
            indexes: catalog.indexes()?,
            statistics: catalog.statistics()?,
            grants: catalog.grants()?,
        })
    })
}

impl ShardDefinition {
    /// Reads how shards of `relation` are made.
    pub(crate) fn read(relation: Oid) -> Result<Self, DefinitionError> {
        let definition = read(relation)?;
        let create = definition.create();
        Ok(Self { prerequisites: definition.prerequisites, create })
    }

    /// The statements that create shard `shard_id`, in order.
    pub(crate) fn statements(&self, shard_id: i64) -> Result<Vec<String>, DefinitionError> {
        self.create.iter().map(|template| Ok(template.fill(shard_id)?)).collect()
    }
}

/// A definition's failure as PostgreSQL tells it.
pub(crate) fn definition_error(error: &DefinitionError) -> PgError {
    let code = match error {
        DefinitionError::NotATable { .. } => SqlState::WRONG_OBJECT_TYPE,
        DefinitionError::NameTooLong(_) => {
            return PgError::new(SqlState::NAME_TOO_LONG, error.to_string())
                .detail("Shards and their indexes have the name with an underscore and the shard's number.")
                .hint("Rename the table or index to 55 bytes or less before it is distributed.");
        }
        DefinitionError::Catalog(_)
        | DefinitionError::Vanished(_)
        | DefinitionError::Unreadable { .. } => SqlState::INTERNAL_ERROR,
    };
    PgError::new(code, error.to_string())
}
