//! Changes that a statement has collected and not yet sent, while triggers run in between.
//!
//! A BEFORE trigger that reads the table sees the rows that the statement has changed before. So a statement that begins
//! inside and concerns the table has them sent first. In a subtransaction that is not possible: it would undo them if it failed.

use pg::PgError;
use pg::server::transaction::nest_level;
use pgrx::pg_sys::Oid;
use std::cell::RefCell;
use std::rc::{Rc, Weak};

/// Something that holds changes of a table back.
pub(crate) trait Pending {
    /// The table.
    fn table(&self) -> Oid;
    /// Its name.
    fn table_name(&self) -> String;
    /// It holds some that may be sent before the statement ends.
    fn is_full(&self) -> bool;
    /// Sends them.
    fn send_now(&mut self) -> Result<(), PgError>;
}

struct Known {
    /// The nesting level of transactions at which it collects.
    level: u32,
    holder: Weak<RefCell<dyn Pending>>,
}

thread_local!(static PENDING: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) });

/// What `holder` holds back is sent when a statement about its table begins, as long as it lives.
pub(crate) fn share<T: Pending + 'static>(holder: T) -> Rc<RefCell<T>> {
    let shared = Rc::new(RefCell::new(holder));
    let known: Rc<RefCell<dyn Pending>> = shared.clone();
    PENDING.with_borrow_mut(|pending| {
        pending.retain(|known| known.holder.strong_count() > 0);
        pending.push(Known { level: nest_level(), holder: Rc::downgrade(&known) });
    });
    shared
}

/// A statement about these tables is about to begin.
pub(super) fn send_for(tables: &[Oid]) -> Result<(), PgError> {
    if PENDING.with_borrow(Vec::is_empty) {
        return Ok(());
    }
    let holders: Vec<_> = PENDING.with_borrow(|pending| {
        let live = pending.iter().filter_map(|known| Some((known.level, known.holder.upgrade()?)));
        live.collect()
    });
    for (level, holder) in holders {
        // One that is sending now calls nothing that begins statements.
        let Ok(mut holder) = holder.try_borrow_mut() else { continue };
        if !tables.contains(&holder.table()) || !holder.is_full() {
            continue;
        }
        if level != nest_level() {
            return Err(in_subtransaction(&holder.table_name()));
        }
        holder.send_now()?;
    }
    Ok(())
}

fn in_subtransaction(name: &str) -> PgError {
    PgError::unsupported(
        format!(
            "cannot use distributed table \"{name}\" in a subtransaction of its own BEFORE trigger"
        ),
        "Change one row with each statement, or use the table outside of a block with EXCEPTION.",
    )
    .detail("The statement has changed other rows, which would be undone with the subtransaction.")
}
