//! Triggers around the changes of rows.

use super::{Change, Changes, value};
use crate::exec::triggers::{self, Triggers};
use crate::sys::version;

impl Changes {
    /// BEFORE triggers of the statement fire; before its first row.
    pub fn begin_statement(&mut self) {
        self.triggers.iter_mut().for_each(Triggers::begin_statement);
    }

    /// AFTER triggers of the statement are queued; behind its last row.
    pub fn end_statement(&mut self) {
        self.triggers.iter_mut().for_each(Triggers::end_statement);
    }

    /// BEFORE triggers of the row fire. What they have assigned besides is assigned too, and what they suppress is not done.
    pub fn before_row(&mut self, change: Change) -> Change {
        let Some(triggers) = &self.triggers else { return change };
        // SAFETY: the slots are virtual, and filled as far as the change goes.
        unsafe {
            let goes_on = match change {
                Change::Insert => triggers.before_insert(self.new),
                Change::Update(_) => triggers.before_update(self.old, self.new),
                Change::Delete => triggers.before_delete(self.old),
                Change::Nothing => true,
            };
            match change {
                _ if !goes_on => Change::Nothing,
                Change::Update(set) => Change::Update(self.set_with_changed(set)),
                _ => change,
            }
        }
    }

    /// The set with the columns that differ though it does not name them.
    unsafe fn set_with_changed(&mut self, set: usize) -> usize {
        // SAFETY: both slots are filled with values of the table's columns.
        let changed = unsafe {
            let descriptor = (*self.relation).rd_att;
            let differs = |column: &i16| {
                let at = *column as usize - 1;
                let attribute = &*version::attribute(descriptor, at);
                let (old, new) = (value(self.old, at), value(self.new, at));
                !self.sets[set].contains(column)
                    && !attribute.attisdropped
                    && attribute.attgenerated == 0
                    && !triggers::are_alike(old, new, attribute.attbyval, attribute.attlen)
            };
            (1..=self.old_at.len() as i16).filter(differs).collect::<Vec<_>>()
        };
        if changed.is_empty() {
            return set;
        }
        let wider = [&self.sets[set][..], &changed[..]].concat();
        self.sets.iter().position(|known| *known == wider).unwrap_or_else(|| {
            self.sets.push(wider);
            self.sets.len() - 1
        })
    }
}
