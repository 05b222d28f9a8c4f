//! Foreign keys of shards: each refers to the shard of the other table that lies on the same node.
//!
//! A foreign key is made when both tables hold their rows, and goes before anything that it depends on. That holds over all tables
//! that a statement changes, so what they ask for is kept apart from other changes. Like a CHECK constraint, it keeps its
//! name on the shards.

use super::{Definition, ShardTemplates, comment};
use crate::shard_template::Template;

/// A foreign key of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignKey {
    /// The constraint's OID on the coordinator, which it keeps as long as it lives.
    pub id: u32,
    /// The name, quoted.
    pub quoted_name: String,
    /// The OID of the table that it refers to.
    pub referenced: u32,
    /// The schema of that table, quoted.
    pub referenced_schema: String,
    /// The bare name of that table.
    pub referenced_name: String,
    /// From `FOREIGN KEY` to `REFERENCES`, with a space behind it.
    pub head: String,
    /// From the columns of the other table to the end, without what follows.
    pub tail: String,
    /// `DEFERRABLE INITIALLY DEFERRED` and the like, with a space before it.
    pub timing: String,
    /// Whether all rows are known to satisfy it.
    pub is_validated: bool,
    /// The comment as a literal.
    pub comment: Option<String>,
}

/// What a change asks for on account of foreign keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyChange {
    /// What goes first of all.
    pub dropped: Vec<Template>,
    /// What comes last of all.
    pub made: Vec<Template>,
}

impl Definition {
    /// The statements that give a shard its foreign keys when all rows are there; only those whose table `is_meant`.
    pub fn create_foreign_keys(&self, is_meant: &dyn Fn(u32) -> bool) -> Vec<Template> {
        let shard = ShardTemplates::new(&self.table);
        let meant = self.foreign_keys.iter().filter(|key| is_meant(key.referenced));
        let made = meant.flat_map(|key| shard.foreign_key(key));
        made.chain(self.disable_system_triggers()).collect()
    }

    /// The same where the rows come from another shard or placement: what they broke there, while triggers were off, they break here.
    /// Then the foreign key is left NOT VALID.
    pub fn restore_foreign_keys(&self, is_meant: &dyn Fn(u32) -> bool) -> Vec<Template> {
        let shard = ShardTemplates::new(&self.table);
        let meant = self.foreign_keys.iter().filter(|key| is_meant(key.referenced));
        let made = meant.flat_map(|key| {
            let unchecked = ForeignKey { is_validated: false, ..key.clone() };
            let mut made = shard.foreign_key(&unchecked);
            made.extend(key.is_validated.then(|| shard.validate_if_possible(key)));
            made
        });
        made.chain(self.disable_system_triggers()).collect()
    }

    /// The statement that takes a foreign key away from a shard, if it is there.
    pub fn drop_foreign_key(&self, key: &ForeignKey) -> Template {
        Template::new("ALTER TABLE IF EXISTS ONLY ")
            .then(&ShardTemplates::new(&self.table).shard)
            .text(" DROP CONSTRAINT IF EXISTS ")
            .text(&key.quoted_name)
    }
}

/// What has become of the foreign keys of a table.
pub fn change(before: &Definition, after: &Definition) -> KeyChange {
    let (old, new) = (ShardTemplates::new(&before.table), ShardTemplates::new(&after.table));
    let mut change = KeyChange::default();
    for was in &before.foreign_keys {
        let Some(is) = after.foreign_keys.iter().find(|is| is_same(was, is)) else {
            change.dropped.push(old.alter_table(" DROP CONSTRAINT ").text(&was.quoted_name));
            continue;
        };
        if was.quoted_name != is.quoted_name {
            change.made.push(new.alter_table(format!(
                " RENAME CONSTRAINT {} TO {}",
                was.quoted_name, is.quoted_name
            )));
        }
        if was.timing != is.timing {
            let timing = if is.timing.is_empty() { " NOT DEFERRABLE" } else { &is.timing };
            change
                .made
                .push(new.alter_table(" ALTER CONSTRAINT ").text(&is.quoted_name).text(timing));
        }
        if is.is_validated && !was.is_validated {
            change.made.push(new.alter_table(" VALIDATE CONSTRAINT ").text(&is.quoted_name));
        }
        if was.comment != is.comment {
            change.made.push(new.key_comment(is));
        }
    }
    let made = after
        .foreign_keys
        .iter()
        .filter(|is| !before.foreign_keys.iter().any(|was| is_same(was, is)));
    change.made.extend(made.flat_map(|is| new.foreign_key(is)));
    change
}

/// A new type of a column gives its foreign keys new ids, on the shards as well.
fn is_same(was: &ForeignKey, is: &ForeignKey) -> bool {
    was.id == is.id
        || (was.quoted_name == is.quoted_name
            && was.referenced == is.referenced
            && was.head == is.head
            && was.tail == is.tail
            && was.timing == is.timing)
}

impl ShardTemplates<'_> {
    fn foreign_key(&self, key: &ForeignKey) -> Vec<Template> {
        let validation = if key.is_validated { "" } else { " NOT VALID" };
        let add = self
            .alter_table(" ADD CONSTRAINT ")
            .text(&key.quoted_name)
            .text(" ")
            .text(&key.head)
            .text(&key.referenced_schema)
            .text(".")
            .peer(key.referenced, &key.referenced_name)
            .text(&key.tail)
            .text(&key.timing)
            .text(validation);
        let comment = key.comment.is_some().then(|| self.key_comment(key));
        [Some(add), comment].into_iter().flatten().collect()
    }

    fn validate_if_possible(&self, key: &ForeignKey) -> Template {
        let validate = self.alter_table(" VALIDATE CONSTRAINT ").text(&key.quoted_name);
        Template::new("DO $pg_shard_key$ BEGIN ")
            .then(&validate)
            .text("; EXCEPTION WHEN foreign_key_violation THEN RAISE WARNING '%', SQLERRM; END $pg_shard_key$")
    }

    fn key_comment(&self, key: &ForeignKey) -> Template {
        let object =
            Template::new("CONSTRAINT ").text(&key.quoted_name).text(" ON ").then(&self.shard);
        comment(&object, key.comment.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Table;

    fn key() -> ForeignKey {
        ForeignKey {
            id: 5,
            quoted_name: "k".to_owned(),
            referenced: 7,
            referenced_schema: "public".to_owned(),
            referenced_name: "u".to_owned(),
            head: "FOREIGN KEY (a) REFERENCES ".to_owned(),
            tail: "(id) ON DELETE CASCADE".to_owned(),
            timing: String::new(),
            is_validated: true,
            comment: None,
        }
    }

    fn table(keys: Vec<ForeignKey>) -> Definition {
        let table = Table { schema: "public".to_owned(), name: "t".to_owned(), ..Table::default() };
        Definition { table, foreign_keys: keys, ..Definition::default() }
    }

    fn texts(templates: &[Template]) -> Vec<String> {
        templates
            .iter()
            .map(|one| one.fill_beside(1, &|table| i64::from(table)).unwrap_or_default())
            .collect()
    }

    #[test]
    fn a_foreign_key_names_the_shard_that_lies_beside() {
        let change = change(&table(vec![]), &table(vec![key()]));
        assert!(change.dropped.is_empty());
        assert_eq!(
            texts(&change.made),
            [
                "ALTER TABLE ONLY public.t_1 ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES public.u_7(id) ON DELETE CASCADE"
            ]
        );
    }

    #[test]
    fn a_key_that_was_rebuilt_for_a_new_type_is_the_same() {
        let mut rebuilt = key();
        rebuilt.id = 6;
        assert_eq!(change(&table(vec![key()]), &table(vec![rebuilt])), KeyChange::default());
    }

    #[test]
    fn what_can_be_altered_is_altered() {
        let (mut was, mut is) = (key(), key());
        was.is_validated = false;
        is.quoted_name = "n".to_owned();
        is.timing = " DEFERRABLE INITIALLY DEFERRED".to_owned();
        let there = change(&table(vec![was.clone()]), &table(vec![is.clone()]));
        assert_eq!(
            texts(&there.made),
            [
                "ALTER TABLE ONLY public.t_1 RENAME CONSTRAINT k TO n",
                "ALTER TABLE ONLY public.t_1 ALTER CONSTRAINT n DEFERRABLE INITIALLY DEFERRED",
                "ALTER TABLE ONLY public.t_1 VALIDATE CONSTRAINT n",
            ]
        );
        is.is_validated = false;
        let back = change(&table(vec![is]), &table(vec![was]));
        assert_eq!(
            texts(&back.made)[1],
            "ALTER TABLE ONLY public.t_1 ALTER CONSTRAINT k NOT DEFERRABLE"
        );
    }

    #[test]
    fn a_key_that_has_gone_goes_first() {
        let change = change(&table(vec![key()]), &table(vec![]));
        assert_eq!(texts(&change.dropped), ["ALTER TABLE ONLY public.t_1 DROP CONSTRAINT k"]);
        assert!(change.made.is_empty());
    }
}
