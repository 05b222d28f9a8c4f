//! Staging: a distributed table that holds the rows of a local one until its shards become those of that one.
//!
//! Its shards are made as those of the local table, with the names of its own, so that taking the place changes names only.

use super::capture::Capture;
use crate::catalog::{self, quote};
use crate::ddl;
use crate::functions::change_metadata;
use crate::functions::distribute::{
    Layout, check_colocation, create_shards_as, register_by, register_unchecked, renamed,
};
use crate::mark;
use pg::catalog::privileged;
use pg::catalog::table::{self, RelationLock};
use pg::exec::copy::local;
use pg::print::template::qualified_name;
use pg::server::attempt::attempt;
use pg::server::utility::copied_columns;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::change_capture::has_key;

pub(super) struct Staging {
    /// The local table.
    of: Oid,
    /// Its qualified name, and the one in errors.
    local: String,
    told: String,
    oid: Oid,
    /// Its qualified name, and the one in errors.
    name: String,
    short: String,
    /// The columns that are copied.
    columns: Vec<String>,
    /// What the shards are made by.
    definition: Vec<String>,
}

impl Staging {
    /// Makes it, with empty shards.
    pub(super) fn create(of: Oid, column: &str, layout: &Layout) -> Result<Self, PgError> {
        let relation =
            table::describe(of).ok_or_else(|| PgError::internal("the table has vanished"))?;
        let short = format!("pgs_staging_of_{}", of.to_u32());
        let name = format!("{}.{}", quote(&relation.schema), quote(&short));
        let local = qualified_name(of);
        // Expressions of indexes and columns may be evaluated: functions of the table's owner must not run in anybody else's name.
        privileged::run_as_caller(&format!(
            "CREATE TABLE {name} (LIKE {local} INCLUDING GENERATED INCLUDING INDEXES)"
        ))?;
        let owner = table::owner_of(of)?;
        if owner != table::current_role() {
            let owner = quote(&table::role_name(owner));
            privileged::run(&format!("ALTER TABLE {name} OWNER TO {owner}"))?;
        }
        let oid = table::relation_oid(&relation.schema, &short)
            .ok_or_else(|| PgError::internal("the staging table has vanished"))?;
        let columns = copied_columns(of).iter().map(|(_, name)| quote(name)).collect();
        register_unchecked(oid, column, b'h')?;
        catalog::forget(Some(oid));
        let layout = match layout {
            Layout::Beside(other) => {
                // Its shards stay where they are until the end.
                table::lock_relation(other.oid, RelationLock::ShareUpdateExclusive);
                catalog::forget(None);
                let other = catalog::get(other.oid)?;
                check_colocation(&*catalog::get(oid)?, &relation.name, &other)?;
                Layout::Beside(other)
            }
            spread @ Layout::Spread { .. } => spread.clone(),
        };
        let definition = definition(of)?;
        create_shards_as(oid, of, &layout)?;
        catalog::forget(Some(oid));
        Ok(Self { of, local, told: relation.name, oid, name, short, columns, definition })
    }

    /// Copies all rows.
    pub(super) fn fill(&self) -> Result<(), PgError> {
        let Self { local, name, .. } = self;
        let columns = self.columns.join(", ");
        self.run(&format!("INSERT INTO {name} ({columns}) SELECT {columns} FROM ONLY {local}"))
    }

    /// Replaces the rows whose keys were noted; tells how many keys.
    pub(super) fn catch_up(&self, capture: &Capture) -> Result<u64, PgError> {
        let count = capture.take()?;
        if count == 0 {
            return Ok(0);
        }
        let Self { local, name, .. } = self;
        let keys = capture.keys();
        let matches = has_key(&capture.key, "pgs_row");
        let columns = self.columns.join(", ");
        let of_row: Vec<String> = self.columns.iter().map(|it| format!("pgs_row.{it}")).collect();
        self.run(&format!(
            "DELETE FROM {name} AS pgs_row USING {keys} AS pgs_key WHERE {matches}"
        ))?;
        self.run(&format!(
            "INSERT INTO {name} ({columns}) SELECT {} FROM {keys} AS pgs_key JOIN ONLY {local} AS pgs_row ON {matches}",
            of_row.join(", ")
        ))?;
        Ok(count)
    }

    /// The shards become those of the local table, whose rows go; it is locked against everybody.
    pub(super) fn take_place(&self, column: &str) -> Result<(), PgError> {
        catalog::forget(None);
        if definition(self.of)? != self.definition {
            return Err(PgError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the definition of table \"{}\" has changed meanwhile", self.told),
            )
            .detail("Rights of the table, or an object that it needs, are not what they were when its rows were copied.")
            .hint("Run it again."));
        }
        let staging = catalog::get(self.oid)?;
        ddl::on_shards(&staging, &[renamed(&staging.schema, &staging.name, &self.told)])?;
        register_by(self.of, column, b'h')?;
        ddl::placed::note(&[self.of])?;
        change_metadata(&format!(
            "DELETE FROM pgs_distribution_metadata.partition WHERE relation_id = {0}; \
             DELETE FROM pgs_catalog.statistics WHERE relation_id = {0}; \
             UPDATE pgs_distribution_metadata.shard SET relation_id = {1} WHERE relation_id = {0}",
            self.oid.to_u32(),
            self.of.to_u32()
        ))?;
        mark::remove(self.oid)?;
        catalog::forget(None);
        privileged::run(&format!("DROP TABLE {}", self.name))?;
        local::empty(self.of);
        Ok(())
    }

    /// Runs a statement; its errors name the table that the user knows.
    fn run(&self, sql: &str) -> Result<(), PgError> {
        let done = attempt(&[], || privileged::run_as_caller(sql));
        done.and_then(|done| done).map_err(|mut error| {
            error.rewrite(|text| text.replace(&self.short, &self.told));
            error.rewrite_context(|line| {
                (!line.starts_with("SQL statement")).then(|| line.to_owned())
            })
        })
    }
}

/// The statements by which nodes make a shard of a table and what it needs.
fn definition(of: Oid) -> Result<Vec<String>, PgError> {
    let definition = ddl::definition(of)?;
    let mut statements = definition.statements(0).map_err(|error| ddl::definition_error(&error))?;
    statements.extend(definition.prerequisites.iter().cloned());
    Ok(statements)
}
