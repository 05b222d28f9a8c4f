//! Triggers by which PostgreSQL enforces constraints: those of foreign keys, at either side, and of deferrable unique constraints.
//!
//! `ALTER TABLE ... DISABLE TRIGGER ALL` turns them off, so that rows can be loaded in any order. The shards have their own, under
//! other names, so they follow as long as all of a table are on, or off.

use super::refusal::Refusal;
use super::{Definition, ShardTemplates};
use crate::shard_template::Template;

/// A trigger of a constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemTrigger {
    /// Its OID.
    pub id: u32,
    /// `tgenabled` of `pg_trigger`.
    pub mode: u8,
}

const ON: u8 = b'O';
const OFF: u8 = b'D';

impl Definition {
    /// The statement that turns them off for a shard, if they are off.
    pub fn disable_system_triggers(&self) -> Option<Template> {
        let all = &self.system_triggers;
        let are_off = !all.is_empty() && all.iter().all(|trigger| trigger.mode == OFF);
        are_off.then(|| statement(self, "DISABLE"))
    }
}

fn statement(of: &Definition, verb: &str) -> Template {
    ShardTemplates::new(&of.table).alter_table(format!(" {verb} TRIGGER ALL"))
}

/// What a change of the triggers asks of the shards.
pub(super) fn change(before: &Definition, after: &Definition) -> Result<Option<Template>, Refusal> {
    let was =
        |id| before.system_triggers.iter().find(|was| was.id == id).map_or(ON, |was| was.mode);
    let mut changed = after.system_triggers.iter().filter(|is| was(is.id) != is.mode);
    let Some(first) = changed.next() else { return Ok(None) };
    let mode = first.mode;
    if after.system_triggers.iter().any(|is| is.mode != mode) {
        return Err(Refusal::SystemTrigger);
    }
    match mode {
        ON => Ok(Some(statement(after, "ENABLE"))),
        OFF => Ok(Some(statement(after, "DISABLE"))),
        _ => Err(Refusal::SystemTrigger),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Table;

    fn definition(modes: &str) -> Definition {
        let triggers = modes.bytes().enumerate();
        Definition {
            table: Table { schema: "s".to_owned(), name: "t".to_owned(), ..Table::default() },
            system_triggers: triggers
                .map(|(id, mode)| SystemTrigger { id: id as u32, mode })
                .collect(),
            ..Definition::default()
        }
    }

    fn verb(before: &str, after: &str) -> Result<Option<&'static str>, Refusal> {
        let (before, after) = (definition(before), definition(after));
        let made = change(&before, &after)?;
        Ok(made.map(|made| {
            let enabled = statement(&after, "ENABLE");
            if made == enabled { "ENABLE" } else { "DISABLE" }
        }))
    }

    #[test]
    fn shards_follow_when_all_triggers_are_turned_off_or_on() {
        assert_eq!(verb("OO", "OO"), Ok(None));
        assert_eq!(verb("OO", "DD"), Ok(Some("DISABLE")));
        assert_eq!(verb("DD", "OO"), Ok(Some("ENABLE")));
        // A foreign key that is added later is on, and then turned off or on with the others.
        assert_eq!(verb("DD", "DDO"), Ok(None));
        assert_eq!(verb("DDO", "DDD"), Ok(Some("DISABLE")));
        assert_eq!(verb("DDO", "OOO"), Ok(Some("ENABLE")));
        // Added and turned off in one statement.
        assert_eq!(verb("", "DD"), Ok(Some("DISABLE")));
        assert_eq!(verb("DD", ""), Ok(None));
    }

    #[test]
    fn one_of_several_triggers_is_refused() {
        assert_eq!(verb("OO", "OD"), Err(Refusal::SystemTrigger));
        assert_eq!(verb("DD", "DO"), Err(Refusal::SystemTrigger));
        assert_eq!(verb("OO", "AA"), Err(Refusal::SystemTrigger));
    }

    #[test]
    fn a_shard_that_is_made_later_has_them_off_if_all_are() {
        assert_eq!(definition("").disable_system_triggers(), None);
        assert_eq!(definition("DO").disable_system_triggers(), None);
        assert!(definition("DD").disable_system_triggers().is_some());
    }
}
