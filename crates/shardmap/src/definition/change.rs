//! The statements that make a shard follow its table, from the table's definition before and after a change.
//!
//! What the change was called does not matter: ALTER TABLE with several subcommands, a column that went with its type, a new
//! owner. Objects are recognised by their ids, so a rename is a rename, and an expression that is merely printed otherwise
//! since then is not a change. PostgreSQL gives an index or constraint that it rebuilds for a column's new type a new id; the
//! shard has rebuilt its own by then, so one of the same name and text counts as the same.

use super::conversion::{self, Conversion, keeps_hashes};
use super::foreign_keys::{self, KeyChange};
use super::refusal::Refusal;
use super::system_triggers;
use super::{
    Check, Column, Definition, Index, ShardTemplates, Statistics, changed_parameters, comment,
    qualified,
};
use crate::shard_template::Template;

/// What a change asks of the shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// What each node needs first, once.
    pub prerequisites: Vec<String>,
    /// The first statements for each shard.
    pub first: Vec<Template>,
    /// New columns, quoted, that are NULL in the rows that are there and whose default has to be computed for each of these.
    pub filled: Vec<String>,
    /// The statements for each shard that follow when the new columns are filled.
    pub then: Vec<Template>,
    /// What comes before and after all of this.
    pub foreign_keys: KeyChange,
}

impl Change {
    /// The shards need nothing.
    pub fn is_empty(&self) -> bool {
        self.prerequisites.is_empty()
            && self.first.is_empty()
            && self.filled.is_empty()
            && self.then.is_empty()
            && self.foreign_keys == KeyChange::default()
    }
}

/// What the shards of a table need when its definition has changed.
///
/// `key` is the number of the distribution column. A statement names each object as it is called at that point: the table has
/// its new name from the second group on.
pub fn change(
    before: &Definition,
    after: &Definition,
    key: i16,
    conversions: &[Conversion],
) -> Result<Change, Refusal> {
    if before == after {
        return Ok(Change::default());
    }
    let diff = Diff {
        before,
        after,
        old: ShardTemplates::new(&before.table),
        new: ShardTemplates::new(&after.table),
    };
    diff.check(key)?;
    let filled: Vec<&Column> =
        diff.added_columns().filter(|column| column.has_computed_default).collect();
    let mut first = diff.dropped_objects();
    first.extend(diff.renamed_table());
    first.extend(diff.renamed_parts());
    first.extend(diff.dropped_columns());
    first.extend(diff.converted_columns(conversions));
    first.extend(diff.new_columns());
    let mut then = diff.changed_columns();
    then.extend(diff.checks());
    then.extend(diff.indexes());
    then.extend(diff.statistics());
    then.extend(diff.table_settings());
    then.extend(diff.owner_and_grants());
    then.extend(diff.comments());
    if filled.is_empty() {
        first.append(&mut then);
    } else {
        let (without, again) = diff.unchecked();
        first.extend(without);
        then.extend(again);
    }
    let filled: Vec<String> = filled.into_iter().map(|column| column.quoted_name.clone()).collect();
    let (first, then) = (after.table.with_operators(first), after.table.with_operators(then));
    let mut foreign_keys = foreign_keys::change(before, after);
    foreign_keys.made.extend(system_triggers::change(before, after)?);
    Ok(Change { prerequisites: diff.new_prerequisites(), first, filled, then, foreign_keys })
}

struct Diff<'a> {
    before: &'a Definition,
    after: &'a Definition,
    old: ShardTemplates<'a>,
    new: ShardTemplates<'a>,
}

impl Diff<'_> {
    fn check(&self, key: i16) -> Result<(), Refusal> {
        if self.before.table.storage != self.after.table.storage {
            return Err(Refusal::Storage);
        }
        let Some(was) = self.before.columns.iter().find(|column| column.number == key) else {
            return Ok(());
        };
        let Some(is) = self.now(was) else { return Err(Refusal::KeyDropped) };
        if was.type_name != is.type_name && !keeps_hashes(&was.type_name, &is.type_name) {
            return Err(Refusal::KeyConverted {
                from: was.type_name.clone(),
                to: is.type_name.clone(),
            });
        }
        Ok(())
    }

    /// What a column has become.
    fn now(&self, was: &Column) -> Option<&Column> {
        self.after.columns.iter().find(|column| column.number == was.number)
    }

    /// The columns that are there before and after.
    fn kept_columns(&self) -> impl Iterator<Item = (&Column, &Column)> {
        self.before.columns.iter().filter_map(|was| Some((was, self.now(was)?)))
    }

    fn added_columns(&self) -> impl Iterator<Item = &Column> {
        self.after
            .columns
            .iter()
            .filter(|is| !self.before.columns.iter().any(|was| was.number == is.number))
    }

    /// What an index has become.
    fn index_now(&self, was: &Index) -> Option<&Index> {
        self.after.indexes.iter().find(|is| is_same_index(was, is))
    }

    fn index_before(&self, is: &Index) -> Option<&Index> {
        self.before.indexes.iter().find(|was| is_same_index(was, is))
    }

    fn check_now(&self, was: &Check) -> Option<&Check> {
        self.after.checks.iter().find(|is| is_same_check(was, is))
    }

    fn check_before(&self, is: &Check) -> Option<&Check> {
        self.before.checks.iter().find(|was| is_same_check(was, is))
    }

    fn statistics_before(&self, is: &Statistics) -> Option<&Statistics> {
        self.before.statistics.iter().find(|was| was.id == is.id)
    }

    /// Indexes, constraints and statistics go before the columns that they would go with.
    fn dropped_objects(&self) -> Vec<Template> {
        let mut dropped = Vec::new();
        for was in &self.before.statistics {
            if !self.after.statistics.iter().any(|is| is.id == was.id) {
                dropped.push(Template::new("DROP ").then(&ShardTemplates::statistics_name(was)));
            }
        }
        for was in self.before.indexes.iter().filter(|was| self.index_now(was).is_none()) {
            dropped.push(if was.is_constraint {
                self.old.alter_table(" DROP CONSTRAINT ").name(&was.name)
            } else if !was.is_valid {
                self.before.drop_index(was, false)
            } else {
                Template::new("DROP INDEX ").then(&self.old.index_name(was))
            });
        }
        for was in self.before.checks.iter().filter(|was| self.check_now(was).is_none()) {
            dropped.push(self.old.alter_table(" DROP CONSTRAINT ").text(&was.quoted_name));
        }
        dropped
    }

    fn new_prerequisites(&self) -> Vec<String> {
        let known = &self.before.prerequisites;
        self.after.prerequisites.iter().filter(|one| !known.contains(one)).cloned().collect()
    }

    fn renamed_table(&self) -> Vec<Template> {
        let (was, is) = (&self.before.table, &self.after.table);
        let mut renamed = Vec::new();
        if was.schema != is.schema {
            renamed.push(
                Template::new("ALTER ")
                    .text(self.old.kind())
                    .text(" ")
                    .then(&self.old.shard)
                    .text(" SET SCHEMA ")
                    .text(&is.schema),
            );
        }
        if was.name != is.name {
            renamed.push(
                Template::new("ALTER ")
                    .text(self.old.kind())
                    .text(" ")
                    .then(&qualified(&is.schema, &was.name))
                    .text(" RENAME TO ")
                    .name(&is.name),
            );
        }
        renamed
    }

    fn renamed_parts(&self) -> Vec<Template> {
        let mut renamed = Vec::new();
        for (was, is) in self.kept_columns() {
            if was.quoted_name != is.quoted_name {
                renamed.push(self.new.alter_table(format!(
                    " RENAME COLUMN {} TO {}",
                    was.quoted_name, is.quoted_name
                )));
            }
        }
        for was in &self.before.checks {
            if let Some(is) = self.check_now(was).filter(|is| is.quoted_name != was.quoted_name) {
                renamed.push(self.new.alter_table(format!(
                    " RENAME CONSTRAINT {} TO {}",
                    was.quoted_name, is.quoted_name
                )));
            }
        }
        for was in &self.before.indexes {
            let becomes_constraint = |is: &Index| is.is_constraint && !was.is_constraint;
            match self.index_now(was) {
                Some(is) if becomes_constraint(is) => {
                    renamed.push(self.constraint_of_index(was, is));
                }
                Some(is) if is.name != was.name => {
                    renamed.push(self.new.alter_index(was, "RENAME TO ").name(&is.name));
                }
                _ => {}
            }
        }
        for is in &self.after.statistics {
            let Some(was) = self.statistics_before(is) else { continue };
            if was.schema != is.schema {
                renamed.push(
                    Template::new("ALTER ")
                        .then(&ShardTemplates::statistics_name(was))
                        .text(" SET SCHEMA ")
                        .text(&is.schema),
                );
            }
            if was.name != is.name {
                renamed.push(
                    Template::new("ALTER STATISTICS ")
                        .then(&qualified(&is.schema, &was.name))
                        .text(" RENAME TO ")
                        .name(&is.name),
                );
            }
        }
        renamed
    }

    /// ADD CONSTRAINT ... USING INDEX, which renames the index to the constraint's name.
    fn constraint_of_index(&self, was: &Index, is: &Index) -> Template {
        let kind = is.body.split('(').next().unwrap_or_default().trim_end();
        let timing = is.body.find(" DEFERRABLE").map_or("", |at| &is.body[at..]);
        self.new
            .alter_table(" ADD CONSTRAINT ")
            .name(&is.name)
            .text(format!(" {kind} USING INDEX "))
            .name(&was.name)
            .text(timing)
    }

    /// Generated columns first: they may be computed from others that go.
    fn dropped_columns(&self) -> Vec<Template> {
        let mut gone: Vec<&Column> =
            self.before.columns.iter().filter(|was| self.now(was).is_none()).collect();
        gone.sort_by_key(|column| column.generated.is_none());
        gone.into_iter()
            .map(|column| self.new.alter_table(" DROP COLUMN ").text(&column.quoted_name))
            .collect()
    }

    fn converted_columns(&self, conversions: &[Conversion]) -> Vec<Template> {
        let actions: Vec<String> = self
            .kept_columns()
            .flat_map(|(was, is)| conversion::actions(was, is, conversions))
            .collect();
        // One statement: an expression of USING sees all columns as they were.
        if actions.is_empty() {
            return Vec::new();
        }
        vec![self.new.alter_table(" ").text(actions.join(", "))]
    }

    fn new_columns(&self) -> Vec<Template> {
        let mut statements = Vec::new();
        for column in self.added_columns() {
            let mut added = column.clone();
            if column.has_computed_default {
                // Rows get their values first.
                added.is_not_null = false;
            } else if column.missing.is_some() {
                // What the coordinator has computed once, all shards have.
                added.default.clone_from(&column.missing);
            }
            statements.push(self.new.alter_table(format!(" ADD COLUMN {}", added.definition())));
            if added.default != column.default {
                statements
                    .push(self.new.alter_table(format!(" ALTER COLUMN {}", set_default(column))));
            }
            statements.extend(self.new.column_settings(std::slice::from_ref(column)));
        }
        statements
    }

    fn changed_columns(&self) -> Vec<Template> {
        let mut actions = Vec::new();
        for (was, is) in self.kept_columns() {
            let is_dropped_already = was.type_name != is.type_name && was.default.is_some();
            if was.generated.is_none()
                && (was.default != is.default && !(is_dropped_already && is.default.is_none()))
            {
                actions.push(format!("ALTER COLUMN {}", set_default(is)));
            }
            let mut act_on = |changed: bool, action: String| {
                if changed {
                    actions.push(format!("ALTER COLUMN {} {action}", is.quoted_name));
                }
            };
            let set = |yes: bool| if yes { "SET" } else { "DROP" };
            act_on(was.is_not_null != is.is_not_null, format!("{} NOT NULL", set(is.is_not_null)));
            // A new type brings its own storage.
            act_on(
                was.storage != is.storage
                    && !(was.type_name != is.type_name && is.is_default_storage),
                format!("SET STORAGE {}", is.storage),
            );
            act_on(
                was.compression != is.compression,
                format!("SET COMPRESSION {}", is.compression.as_deref().unwrap_or("default")),
            );
            act_on(was.statistics != is.statistics, format!("SET STATISTICS {}", is.statistics));
            for action in changed_parameters(&was.parameters, &is.parameters) {
                act_on(true, action);
            }
        }
        for column in self.added_columns().filter(|column| column.has_computed_default) {
            if column.is_not_null {
                actions.push(format!("ALTER COLUMN {} SET NOT NULL", column.quoted_name));
            }
        }
        if actions.is_empty() {
            return Vec::new();
        }
        vec![self.new.alter_table(" ").text(actions.join(", "))]
    }

    fn checks(&self) -> Vec<Template> {
        let mut statements = Vec::new();
        for is in &self.after.checks {
            match self.check_before(is) {
                None => statements.push(self.new.add(is)),
                Some(was) if is.is_validated && !was.is_validated => statements
                    .push(self.new.alter_table(" VALIDATE CONSTRAINT ").text(&is.quoted_name)),
                Some(_) => {}
            }
        }
        statements
    }

    /// New columns are filled without the constraints that rows need not satisfy, as PostgreSQL writes a table anew.
    fn unchecked(&self) -> (Vec<Template>, Vec<Template>) {
        let (mut without, mut again) = (Vec::new(), Vec::new());
        for is in self.after.checks.iter().filter(|is| !is.is_validated) {
            if self.check_before(is).is_some() {
                without.push(self.new.alter_table(" DROP CONSTRAINT ").text(&is.quoted_name));
                again.push(self.new.add(is));
                again.extend(is.comment.is_some().then(|| self.new.check_comment(is)));
            }
        }
        (without, again)
    }

    fn indexes(&self) -> Vec<Template> {
        let mut statements = Vec::new();
        let mut clustered = false;
        for is in &self.after.indexes {
            let Some(was) = self.index_before(is) else {
                if is.is_valid {
                    statements.extend(self.new.index(is));
                }
                continue;
            };
            for action in changed_parameters(&was.parameters, &is.parameters) {
                statements.push(self.new.alter_index(is, &action));
            }
            if was.settings != is.settings && !is.settings.is_empty() {
                statements.push(self.new.alter_index(is, &is.settings.join(", ")));
            }
            if is.is_clustered && !was.is_clustered {
                clustered = true;
                statements.push(self.new.alter_table(" CLUSTER ON ").name(&is.name));
            }
            if is.is_replica_identity && !was.is_replica_identity {
                statements.push(self.new.identity_index(is));
            }
        }
        let was_clustered = self.before.indexes.iter().any(|index| index.is_clustered);
        let is_clustered = self.after.indexes.iter().any(|index| index.is_clustered);
        if was_clustered && !is_clustered && !clustered {
            statements.push(self.new.alter_table(" SET WITHOUT CLUSTER"));
        }
        statements
    }

    fn statistics(&self) -> Vec<Template> {
        let mut statements = Vec::new();
        for is in &self.after.statistics {
            match self.statistics_before(is) {
                None => {
                    statements.extend(self.new.statistics(is));
                    statements.extend((!is.is_own).then(|| ShardTemplates::statistics_owner(is)));
                }
                Some(was) => {
                    statements.extend(
                        (was.target != is.target).then(|| ShardTemplates::statistics_target(is)),
                    );
                    statements.extend(
                        (was.owner != is.owner).then(|| ShardTemplates::statistics_owner(is)),
                    );
                }
            }
        }
        statements
    }

    fn table_settings(&self) -> Vec<Template> {
        let (was, is) = (&self.before.table, &self.after.table);
        let mut actions = changed_parameters(&was.parameters, &is.parameters);
        if was.is_unlogged != is.is_unlogged {
            actions.push(format!("SET {}", if is.is_unlogged { "UNLOGGED" } else { "LOGGED" }));
        }
        let mut statements: Vec<Template> =
            actions.into_iter().map(|action| self.new.alter_table(format!(" {action}"))).collect();
        if was.replica_identity != is.replica_identity
            && !self.after.indexes.iter().any(|index| index.is_replica_identity)
        {
            statements.extend(self.new.replica_identity());
        }
        statements
    }

    /// A role's rights are taken away and given anew: the catalogs do not say by which steps they have changed.
    fn owner_and_grants(&self) -> Vec<Template> {
        let mut statements = Vec::new();
        let is_given_away = self.before.table.owner != self.after.table.owner;
        if is_given_away {
            statements.push(self.new.owner());
        }
        let of = |definition: &Definition, grantee: &str| {
            let grants = definition.grants.iter().filter(|grant| grant.grantee == grantee);
            grants.cloned().collect::<Vec<_>>()
        };
        let mut grantees: Vec<&str> = Vec::new();
        for grant in self.before.grants.iter().chain(&self.after.grants) {
            if !grantees.contains(&grant.grantee.as_str()) {
                grantees.push(&grant.grantee);
            }
        }
        for grantee in grantees {
            let (was, is) = (of(self.before, grantee), of(self.after, grantee));
            if was == is && !is_given_away {
                continue;
            }
            if !was.is_empty() && grantee != self.after.table.owner {
                statements.push(self.new.revoke_all(grantee));
            }
            statements.extend(is.iter().map(|grant| self.new.grant(grant)));
        }
        statements
    }

    fn comments(&self) -> Vec<Template> {
        let mut statements = Vec::new();
        if self.before.table.comment != self.after.table.comment {
            statements.push(self.new.table_comment());
        }
        for is in &self.after.columns {
            let was = self.before.columns.iter().find(|was| was.number == is.number);
            if was.and_then(|was| was.comment.as_ref()) != is.comment.as_ref() {
                statements.push(self.new.column_comment(is));
            }
        }
        for is in &self.after.checks {
            let was = self.check_before(is).and_then(|was| was.comment.as_ref());
            if was != is.comment.as_ref() {
                statements.push(self.new.check_comment(is));
            }
        }
        for is in &self.after.indexes {
            let Some(was) = self.index_before(is).filter(|was| was.is_valid) else { continue };
            if was.comment != is.comment {
                statements.push(self.new.index_comment(is));
            }
            if was.constraint_comment != is.constraint_comment && is.is_constraint {
                statements.push(self.new.constraint_comment(is));
            }
        }
        for is in &self.after.statistics {
            let Some(was) = self.statistics_before(is) else { continue };
            if was.comment != is.comment {
                let object = ShardTemplates::statistics_name(is);
                statements.push(comment(&object, is.comment.as_deref()));
            }
        }
        statements
    }
}

fn is_same_index(was: &Index, is: &Index) -> bool {
    was.id == is.id
        || (was.name == is.name
            && was.is_constraint == is.is_constraint
            && was.create == is.create
            && was.body == is.body)
}

fn is_same_check(was: &Check, is: &Check) -> bool {
    was.id == is.id || (was.quoted_name == is.quoted_name && was.body == is.body)
}

fn set_default(column: &Column) -> String {
    match &column.default {
        Some(expression) => format!("{} SET DEFAULT {expression}", column.quoted_name),
        None => format!("{} DROP DEFAULT", column.quoted_name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{Grant, Parameter, Table};

    fn column(number: i16, name: &str, type_name: &str) -> Column {
        Column {
            number,
            quoted_name: name.to_owned(),
            type_name: type_name.to_owned(),
            storage: "PLAIN".to_owned(),
            is_default_storage: true,
            statistics: -1,
            ..Column::default()
        }
    }

    fn table() -> Definition {
        Definition {
            table: Table {
                schema: "public".to_owned(),
                name: "t".to_owned(),
                owner: "me".to_owned(),
                is_own: true,
                replica_identity: Some("DEFAULT".to_owned()),
                ..Table::default()
            },
            columns: vec![column(1, "id", "bigint"), column(2, "a", "integer")],
            ..Definition::default()
        }
    }

    fn index(id: u32, name: &str, body: &str) -> Index {
        Index {
            id,
            name: name.to_owned(),
            create: "CREATE INDEX".to_owned(),
            is_valid: true,
            body: body.to_owned(),
            ..Index::default()
        }
    }

    fn check(id: u32, name: &str, body: &str) -> Check {
        let (quoted_name, body) = (name.to_owned(), body.to_owned());
        Check { id, quoted_name, body, is_validated: true, comment: None }
    }

    fn statements(before: &Definition, after: &Definition) -> Vec<String> {
        let change = change(before, after, 1, &[]).expect("the shards can follow");
        assert!(change.filled.is_empty(), "{change:?}");
        change.first.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_unchanged_asks_nothing() {
        let change = change(&table(), &table(), 1, &[]).expect("nothing to follow");
        assert!(change.is_empty());
    }

    #[test]
    fn a_column_is_known_by_its_number() {
        let mut after = table();
        after.columns[1].quoted_name = "b".to_owned();
        after.columns.push(column(3, "a", "text"));
        assert_eq!(
            statements(&table(), &after),
            [
                "ALTER TABLE ONLY public.{t} RENAME COLUMN a TO b",
                "ALTER TABLE ONLY public.{t} ADD COLUMN a text",
            ]
        );
    }

    #[test]
    fn old_rows_get_the_value_that_the_coordinator_has_computed() {
        let mut after = table();
        let mut added = column(3, "at", "timestamp with time zone");
        added.default = Some("now()".to_owned());
        added.missing = Some("'2026-01-01 00:00:00+00'".to_owned());
        added.is_not_null = true;
        after.columns.push(added);
        assert_eq!(
            statements(&table(), &after),
            [
                "ALTER TABLE ONLY public.{t} ADD COLUMN at timestamp with time zone \
                 DEFAULT '2026-01-01 00:00:00+00' NOT NULL",
                "ALTER TABLE ONLY public.{t} ALTER COLUMN at SET DEFAULT now()",
            ]
        );
    }

    #[test]
    fn a_default_of_each_row_is_filled_in_before_what_relies_on_it() {
        let mut before = table();
        before.checks.push(check(9, "late", "CHECK (a > 0) NOT VALID"));
        before.checks[0].is_validated = false;
        let mut after = before.clone();
        let mut added = column(3, "number", "bigint");
        added.has_computed_default = true;
        added.is_not_null = true;
        after.columns.push(added);
        after.indexes.push(index(7, "n", "USING btree (number)"));
        let change = change(&before, &after, 1, &[]).expect("the shards can follow");
        let text = |list: &[Template]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            text(&change.first),
            [
                "ALTER TABLE ONLY public.{t} ADD COLUMN number bigint",
                "ALTER TABLE ONLY public.{t} DROP CONSTRAINT late",
            ]
        );
        assert_eq!(change.filled, ["number"]);
        assert_eq!(
            text(&change.then),
            [
                "ALTER TABLE ONLY public.{t} ALTER COLUMN number SET NOT NULL",
                "CREATE INDEX {n} ON public.{t} USING btree (number)",
                "ALTER TABLE ONLY public.{t} ADD CONSTRAINT late CHECK (a > 0) NOT VALID",
            ]
        );
    }

    #[test]
    fn indexes_go_before_the_columns_that_would_take_them_along() {
        let mut before = table();
        before.indexes.push(index(7, "i", "USING btree (a)"));
        let mut after = table();
        after.columns.pop();
        assert_eq!(
            statements(&before, &after),
            ["DROP INDEX public.{i}", "ALTER TABLE ONLY public.{t} DROP COLUMN a"]
        );
    }

    #[test]
    fn an_expression_that_is_printed_otherwise_is_no_change() {
        let mut before = table();
        before.checks.push(check(9, "k", "CHECK (a > 0)"));
        before.indexes.push(index(7, "i", "USING btree (a)"));
        let mut after = before.clone();
        after.columns[1].quoted_name = "b".to_owned();
        after.checks[0].body = "CHECK (b > 0)".to_owned();
        after.indexes[0].body = "USING btree (b)".to_owned();
        assert_eq!(
            statements(&before, &after),
            ["ALTER TABLE ONLY public.{t} RENAME COLUMN a TO b"]
        );
    }

    #[test]
    fn what_a_new_type_has_rebuilt_is_left_alone() {
        let mut before = table();
        before.indexes.push(index(7, "i", "USING btree (a)"));
        let mut after = before.clone();
        after.columns[1].type_name = "bigint".to_owned();
        after.indexes[0].id = 8;
        assert_eq!(
            statements(&before, &after),
            ["ALTER TABLE ONLY public.{t} ALTER COLUMN a TYPE bigint"]
        );
    }

    #[test]
    fn all_columns_are_converted_by_one_statement() {
        let mut after = table();
        after.columns.push(column(3, "b", "text"));
        let before = after.clone();
        after.columns[1].type_name = "text".to_owned();
        after.columns[2].type_name = "integer".to_owned();
        let conversions = [
            Conversion::Using { column: 2, expression: "b".to_owned() },
            Conversion::Using { column: 3, expression: "a".to_owned() },
        ];
        let change = change(&before, &after, 1, &conversions).expect("the shards can follow");
        assert_eq!(
            change.first[0].to_string(),
            "ALTER TABLE ONLY public.{t} ALTER COLUMN a TYPE text USING b, ALTER COLUMN b TYPE integer USING a"
        );
        assert_eq!(change.first.len(), 1);
    }

    #[test]
    fn a_table_has_its_new_name_from_its_renaming_on() {
        let mut after = table();
        after.table.schema = "s".to_owned();
        after.table.name = "u".to_owned();
        after.prerequisites = vec!["CREATE s".to_owned()];
        let change = change(&table(), &after, 1, &[]).expect("the shards can follow");
        assert_eq!(change.prerequisites, ["CREATE s"]);
        after.columns.push(column(3, "b", "text"));
        assert_eq!(
            statements(&table(), &after),
            [
                "ALTER TABLE public.{t} SET SCHEMA s",
                "ALTER TABLE s.{t} RENAME TO {u}",
                "ALTER TABLE ONLY s.{u} ADD COLUMN b text",
            ]
        );
    }

    #[test]
    fn rights_of_a_role_are_given_anew() {
        let grant = |grantee: &str, privileges: &str| Grant {
            privileges: privileges.to_owned(),
            grantee: grantee.to_owned(),
            is_grantable: false,
        };
        let mut before = table();
        before.grants = vec![grant("r", "INSERT, SELECT"), grant("s", "SELECT")];
        let mut after = table();
        after.grants = vec![grant("r", "SELECT"), grant("s", "SELECT")];
        assert_eq!(
            statements(&before, &after),
            [
                "REVOKE ALL PRIVILEGES ON TABLE public.{t} FROM r",
                "GRANT SELECT ON TABLE public.{t} TO r",
            ]
        );
    }

    #[test]
    fn the_distribution_column_stays_and_keeps_its_hashes() {
        let mut dropped = table();
        dropped.columns.remove(0);
        assert_eq!(change(&table(), &dropped, 1, &[]), Err(Refusal::KeyDropped));
        for (from, to, is_kept) in [
            ("integer", "bigint", true),
            ("smallint", "integer", true),
            ("bigint", "integer", false),
            ("character varying(10)", "text", true),
            ("text", "character varying", true),
            ("character varying(10)", "character varying(20)", true),
            ("character varying(20)", "character varying(10)", false),
            ("text", "character varying(10)", false),
            ("integer", "text", false),
            ("bigint", "numeric", false),
        ] {
            let (mut before, mut after) = (table(), table());
            before.columns[0].type_name = from.to_owned();
            after.columns[0].type_name = to.to_owned();
            assert_eq!(change(&before, &after, 1, &[]).is_ok(), is_kept, "{from} to {to}");
        }
    }

    #[test]
    fn a_parameter_that_is_gone_is_reset() {
        let parameter =
            |name: &str, value: &str| Parameter { name: name.to_owned(), value: value.to_owned() };
        let (mut before, mut after) = (table(), table());
        before.table.parameters = vec![parameter("fillfactor", "'70'"), parameter("x", "'1'")];
        after.table.parameters = vec![parameter("x", "'2'")];
        assert_eq!(
            statements(&before, &after),
            [
                "ALTER TABLE ONLY public.{t} SET (x='2')",
                "ALTER TABLE ONLY public.{t} RESET (fillfactor)",
            ]
        );
    }

    #[test]
    fn an_index_becomes_a_constraint_in_place() {
        let mut before = table();
        before.indexes.push(index(7, "i", "USING btree (id)"));
        before.indexes[0].create = "CREATE UNIQUE INDEX".to_owned();
        let mut after = before.clone();
        after.indexes[0].name = "k".to_owned();
        after.indexes[0].is_constraint = true;
        after.indexes[0].create = String::new();
        after.indexes[0].body = "UNIQUE (id) DEFERRABLE".to_owned();
        assert_eq!(
            statements(&before, &after),
            ["ALTER TABLE ONLY public.{t} ADD CONSTRAINT {k} UNIQUE USING INDEX {i} DEFERRABLE"]
        );
    }
}
