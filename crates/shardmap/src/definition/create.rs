//! The statements that create a shard, and the one that drops it, with the shard's id left open.

use super::{
    Check, Column, Definition, Grant, Index, Parameter, ShardTemplates, Statistics, comment,
    qualified,
};
use crate::shard_template::Template;

impl Definition {
    /// The statements that create a shard on a node that has what it needs, in their order.
    pub fn create(&self) -> Vec<Template> {
        let mut create = self.table_statements();
        create.extend(self.index_statements());
        create.extend(self.last_statements());
        self.table.with_operators(create)
    }

    /// The same in two parts, between which rows can be stored: the table, and its indexes, which are built faster then.
    pub fn create_around_rows(&self) -> (Vec<Template>, Vec<Template>) {
        let mut then = self.index_statements();
        then.extend(self.last_statements());
        (self.table.with_operators(self.table_statements()), self.table.with_operators(then))
    }

    fn table_statements(&self) -> Vec<Template> {
        let shard = ShardTemplates::new(&self.table);
        let mut create = vec![shard.create_table(&self.columns, &self.checks)];
        // From here on it is the owner's: whoever builds an index of it becomes him, as far as the index's expressions go.
        create.extend((!self.table.is_own).then(|| shard.owner()));
        create.extend(shard.column_settings(&self.columns));
        create.extend(
            self.checks.iter().filter(|check| !check.is_validated).map(|check| shard.add(check)),
        );
        create
    }

    fn index_statements(&self) -> Vec<Template> {
        let shard = ShardTemplates::new(&self.table);
        let usable = self.indexes.iter().filter(|index| index.is_valid);
        let mut create: Vec<Template> = usable.flat_map(|index| shard.index(index)).collect();
        create.extend(shard.replica_identity().filter(|_| !self.has_default_identity()));
        create
    }

    fn last_statements(&self) -> Vec<Template> {
        let shard = ShardTemplates::new(&self.table);
        let mut create: Vec<Template> =
            self.statistics.iter().flat_map(|object| shard.statistics(object)).collect();
        create.extend(self.table.comment.is_some().then(|| shard.table_comment()));
        let commented = self.columns.iter().filter(|column| column.comment.is_some());
        create.extend(commented.map(|column| shard.column_comment(column)));
        let commented = self.checks.iter().filter(|check| check.comment.is_some());
        create.extend(commented.map(|check| shard.check_comment(check)));
        let foreign = self.statistics.iter().filter(|object| !object.is_own);
        create.extend(foreign.map(ShardTemplates::statistics_owner));
        create.extend(self.grants.iter().map(|grant| shard.grant(grant)));
        create
    }

    /// The statement that drops a shard, whether it is there or not.
    pub fn drop(&self) -> Template {
        let shard = ShardTemplates::new(&self.table);
        Template::new("DROP ").text(shard.kind()).text(" IF EXISTS ").then(&shard.shard)
    }

    /// The statements that create an index of a shard, outside of a transaction block if `concurrently`.
    pub fn create_index(&self, index: &Index, concurrently: bool) -> Vec<Template> {
        let mut plain = index.clone();
        if concurrently {
            plain.create += " CONCURRENTLY";
        }
        ShardTemplates::new(&self.table).index(&plain)
    }

    /// The statement that drops an index of a shard, whether it is there or not.
    pub fn drop_index(&self, index: &Index, concurrently: bool) -> Template {
        let how = if concurrently { "CONCURRENTLY " } else { "" };
        Template::new(format!("DROP INDEX {how}IF EXISTS "))
            .then(&ShardTemplates::new(&self.table).index_name(index))
    }

    /// The statement that builds an index of a shard anew.
    pub fn reindex(&self, index: &Index, concurrently: bool) -> Template {
        let how = if concurrently { "CONCURRENTLY " } else { "" };
        Template::new(format!("REINDEX INDEX {how}"))
            .then(&ShardTemplates::new(&self.table).index_name(index))
    }

    /// The statement that builds all indexes of a shard anew.
    pub fn reindex_table(&self, concurrently: bool) -> Template {
        let how = if concurrently { "CONCURRENTLY " } else { "" };
        Template::new(format!("REINDEX TABLE {how}")).then(&ShardTemplates::new(&self.table).shard)
    }

    /// The statement that sorts the rows of a shard by the index that CLUSTER goes by.
    pub fn cluster(&self) -> Template {
        Template::new("CLUSTER ").then(&ShardTemplates::new(&self.table).shard)
    }

    fn has_default_identity(&self) -> bool {
        self.table.replica_identity.as_deref() == Some("DEFAULT")
    }
}

impl Column {
    /// Name, type, default or generation expression, nullability.
    pub(super) fn definition(&self) -> String {
        let mut text = format!("{} {}{}", self.quoted_name, self.type_name, self.options);
        if let Some(expression) = &self.generated {
            text += &format!(" GENERATED ALWAYS AS {expression}");
        } else if let Some(expression) = &self.default {
            text += &format!(" DEFAULT {expression}");
        }
        if self.is_not_null {
            text += " NOT NULL";
        }
        text
    }

    /// `SET STORAGE EXTERNAL` and the like: what the definition cannot hold.
    fn settings(&self) -> Vec<String> {
        let mut settings = Vec::new();
        if !self.is_default_storage {
            settings.push(format!("SET STORAGE {}", self.storage));
        }
        settings
            .extend(self.compression.as_ref().map(|method| format!("SET COMPRESSION {method}")));
        if self.statistics >= 0 {
            settings.push(format!("SET STATISTICS {}", self.statistics));
        }
        if !self.parameters.is_empty() {
            settings.push(format!("SET ({})", Parameter::set(&self.parameters)));
        }
        settings
    }
}

impl ShardTemplates<'_> {
    fn create_table(&self, columns: &[Column], checks: &[Check]) -> Template {
        let columns = columns.iter().map(|column| Template::new(column.definition()));
        let checks =
            checks.iter().filter(|check| check.is_validated).map(|check| self.check(check));
        let elements = join(columns.chain(checks), ", ");
        let persistence = if self.table.is_unlogged { "UNLOGGED " } else { "" };
        let mut create = Template::new(format!("CREATE {persistence}{} ", self.kind()))
            .then(&self.shard)
            .text(" (")
            .then(&elements)
            .text(")");
        if let Some(key) = &self.table.partition_key {
            create = create.text(" PARTITION BY ").expression(key, &self.table.name);
        }
        // A foreign table has no parameters, and USING stands before WITH.
        create = create.text(&self.table.storage);
        if !self.table.parameters.is_empty() {
            create = create.text(format!(" WITH ({})", Parameter::set(&self.table.parameters)));
        }
        create
    }

    /// One `ALTER TABLE` for all settings that a column's definition cannot hold.
    pub(super) fn column_settings(&self, columns: &[Column]) -> Option<Template> {
        let settings = columns.iter().flat_map(|column| {
            let name = &column.quoted_name;
            column
                .settings()
                .into_iter()
                .map(move |setting| format!("ALTER COLUMN {name} {setting}"))
        });
        let settings: Vec<String> = settings.collect();
        (!settings.is_empty()).then(|| self.alter_table(" ").text(settings.join(", ")))
    }

    fn check(&self, check: &Check) -> Template {
        Template::new("CONSTRAINT ")
            .text(&check.quoted_name)
            .text(" ")
            .expression(&check.body, &self.table.name)
    }

    /// `CREATE TABLE` takes every CHECK for validated, so those that are not come after it.
    pub(super) fn add(&self, check: &Check) -> Template {
        self.alter_table(" ADD ").then(&self.check(check))
    }

    /// An index or the constraint that owns it, and what is said about it.
    pub(super) fn index(&self, index: &Index) -> Vec<Template> {
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
            statements.push(self.alter_index(index, &index.settings.join(", ")));
        }
        if index.is_clustered {
            statements.push(self.alter_table(" CLUSTER ON ").name(&index.name));
        }
        if index.is_replica_identity {
            statements.push(self.identity_index(index));
        }
        statements.extend(index.comment.is_some().then(|| self.index_comment(index)));
        statements
            .extend(index.constraint_comment.is_some().then(|| self.constraint_comment(index)));
        statements
    }

    pub(super) fn index_name(&self, index: &Index) -> Template {
        qualified(&self.table.schema, &index.name)
    }

    pub(super) fn alter_index(&self, index: &Index, action: &str) -> Template {
        Template::new(if index.is_valid { "ALTER INDEX " } else { "ALTER INDEX IF EXISTS " })
            .then(&self.index_name(index))
            .text(" ")
            .text(action)
    }

    pub(super) fn identity_index(&self, index: &Index) -> Template {
        self.alter_table(" REPLICA IDENTITY USING INDEX ").name(&index.name)
    }

    pub(super) fn index_comment(&self, index: &Index) -> Template {
        let object = Template::new("INDEX ").then(&self.index_name(index));
        comment(&object, index.comment.as_deref())
    }

    pub(super) fn constraint_comment(&self, index: &Index) -> Template {
        let constraint =
            Template::new("CONSTRAINT ").name(&index.name).text(" ON ").then(&self.shard);
        comment(&constraint, index.constraint_comment.as_deref())
    }

    pub(super) fn replica_identity(&self) -> Option<Template> {
        let identity = self.table.replica_identity.as_ref()?;
        Some(self.alter_table(" REPLICA IDENTITY ").text(identity))
    }

    /// An extended statistics object, and what is said about it.
    pub(super) fn statistics(&self, object: &Statistics) -> Vec<Template> {
        let create = Template::new("CREATE ")
            .then(&Self::statistics_name(object))
            .expression(&object.body, &self.table.name)
            .text(" FROM ")
            .then(&self.shard);
        let target = object.target.is_some().then(|| Self::statistics_target(object));
        let comment = object.comment.is_some().then(|| Self::statistics_comment(object));
        [Some(create), target, comment].into_iter().flatten().collect()
    }

    pub(super) fn statistics_name(object: &Statistics) -> Template {
        Template::new("STATISTICS ").then(&qualified(&object.schema, &object.name))
    }

    pub(super) fn statistics_target(object: &Statistics) -> Template {
        let target = object.target.unwrap_or(-1);
        Template::new("ALTER ")
            .then(&Self::statistics_name(object))
            .text(format!(" SET STATISTICS {target}"))
    }

    pub(super) fn statistics_comment(object: &Statistics) -> Template {
        comment(&Self::statistics_name(object), object.comment.as_deref())
    }

    pub(super) fn statistics_owner(object: &Statistics) -> Template {
        Template::new("ALTER ")
            .then(&Self::statistics_name(object))
            .text(" OWNER TO ")
            .text(&object.owner)
    }

    pub(super) fn table_comment(&self) -> Template {
        let object = Template::new(self.kind()).text(" ").then(&self.shard);
        comment(&object, self.table.comment.as_deref())
    }

    pub(super) fn column_comment(&self, column: &Column) -> Template {
        let object = Template::new("COLUMN ").then(&self.shard).text(".").text(&column.quoted_name);
        comment(&object, column.comment.as_deref())
    }

    pub(super) fn check_comment(&self, check: &Check) -> Template {
        let object =
            Template::new("CONSTRAINT ").text(&check.quoted_name).text(" ON ").then(&self.shard);
        comment(&object, check.comment.as_deref())
    }

    pub(super) fn owner(&self) -> Template {
        Template::new("ALTER ")
            .text(self.kind())
            .text(" ")
            .then(&self.shard)
            .text(" OWNER TO ")
            .text(&self.table.owner)
    }

    pub(super) fn grant(&self, grant: &Grant) -> Template {
        let option = if grant.is_grantable { " WITH GRANT OPTION" } else { "" };
        Template::new("GRANT ")
            .text(&grant.privileges)
            .text(" ON TABLE ")
            .then(&self.shard)
            .text(" TO ")
            .text(&grant.grantee)
            .text(option)
    }

    pub(super) fn revoke_all(&self, grantee: &str) -> Template {
        Template::new("REVOKE ALL PRIVILEGES ON TABLE ")
            .then(&self.shard)
            .text(" FROM ")
            .text(grantee)
    }
}

fn join(templates: impl Iterator<Item = Template>, separator: &str) -> Template {
    templates.reduce(|joined, template| joined.text(separator).then(&template)).unwrap_or_default()
}
