//! Rows that a node locks by itself, skipping those that others hold: FOR UPDATE SKIP LOCKED with LIMIT.
//!
//! If any rows will do, one node after another is asked for those that are still wanted. Otherwise each node locks the first row
//! that is free there, all of them at once; the first of these is kept, and the other nodes release theirs at once. A remote
//! transaction that holds nothing else is rolled back for that, any other rolls back to a savepoint. So for a moment one row of each
//! node is locked that PostgreSQL would not lock. With an order and more than one row wanted, [`super::claim`] goes through
//! candidates instead.
//!
//! Only at READ COMMITTED: a node might meet a row changed since the snapshot where PostgreSQL would not come so far. Replicated tables, whose
//! rows have no place in common, are an exception: there is no other way, and what the client may see is 40001 once more than needed.

use super::assignment::assign;
use super::merge::Merge;
use super::node_read::lost_in_the_middle;
use super::read::Read;
use super::render;
use crate::activity::{Kind, Work};
use crate::session::Session;
use crate::session::ending::run_all;
use crate::session::pool;
use crate::session::pool::SessionRef;
use crate::transaction;
use pg::PgError;
use pg::exec::scan_io::ScanIo;
use pg::path::claim::CLAIMED;
use pg::sys::plan::{FirstFree, Plan};
use std::cell::RefMut;
use std::rc::Rc;

/// Sessions to nodes that are releasing rows, which nobody has waited for yet.
#[derive(Default)]
pub(super) struct Releases(Vec<SessionRef>);

impl Releases {
    /// Waits until the rows are released: a client that has its answer may expect another client to find them free.
    pub(super) fn wait(&mut self) {
        self.0.drain(..).for_each(|session| session.borrow_mut().settle_end());
    }
}

/// Which rows are locked.
pub(super) enum Claimed {
    /// These, as an array in SQL.
    Places(String),
    /// So many of a node that nobody holds, of the first candidates or of all.
    First { limit: u64, of_all: bool },
}

impl Read {
    /// How a node finds the rows, if it does so by itself.
    pub(super) fn first_free(&self) -> Option<&FirstFree> {
        match (&self.claimed, &self.compiled.plan) {
            (Some(Claimed::First { .. }), Plan::ShardScan(plan)) => {
                plan.claim.as_ref()?.first_free.as_ref()
            }
            _ => None,
        }
    }

    /// The statement for a node.
    pub(super) fn claim_sql(&self, claimed: &Claimed, shards: &[usize]) -> Result<String, PgError> {
        let union = |template| -> Result<String, PgError> {
            let parts: Result<Vec<String>, PgError> =
                shards.iter().map(|index| render(template, *index)).collect();
            Ok(parts?.join(" UNION ALL "))
        };
        match (claimed, self.first_free()) {
            (Claimed::First { limit, of_all }, Some(first_free)) => {
                let (opening, closing) = &first_free.around;
                let (candidates, between) = &first_free.candidates[usize::from(*of_all)];
                let candidates = match candidates.is_empty() {
                    true => String::new(),
                    false => union(candidates)?,
                };
                let locking = union(&first_free.locking)?;
                Ok(format!("{opening}{candidates}{between}{locking}{closing}{limit}"))
            }
            (Claimed::Places(places), _) => {
                let parts: Result<Vec<String>, PgError> = shards
                    .iter()
                    .map(|index| Ok(with_claimed(&render(self.template(), *index)?, places)))
                    .collect();
                Ok(parts?.join(" UNION ALL "))
            }
            (Claimed::First { .. }, None) => Err(PgError::internal("no node finds rows by itself")),
        }
    }

    /// A shard's SQL as EXPLAIN has a node explain it: without any rows in their place.
    pub(super) fn render_explained(&self, index: usize) -> Result<String, PgError> {
        let sql = render(self.template(), index)?;
        let claims = matches!(&self.compiled.plan, Plan::ShardScan(plan) if plan.claim.is_some());
        Ok(if claims { with_claimed(&sql, "'{}'") } else { sql })
    }

    /// So many savepoints are set before rows are locked that may have to be released.
    pub(super) fn savepoints(&self, session: &SessionRef) -> u32 {
        let may_release = self.first_free().is_some_and(|it| !it.merge.is_empty());
        u32::from(may_release && session.borrow().depth > 0)
    }

    /// Has one node after another lock rows until there are so many; tells how many are missing.
    pub(super) fn lock_any(&mut self, io: &mut ScanIo, mut wanted: u64) -> Result<u64, PgError> {
        let tables = self.tables()?;
        let shards = self.shards(io, &tables[0])?;
        let mut parts = assign(&tables, &shards, &[], &pool::avoided())?;
        // Other backends begin elsewhere.
        let turn =
            pg::server::transaction::backend_pid().unsigned_abs() as usize % parts.len().max(1);
        parts.rotate_left(turn);
        for (_, group) in parts {
            if wanted == 0 {
                break;
            }
            let first = Claimed::First { limit: wanted, of_all: true };
            let locked = self.lock_rows(io, &group, first, &mut |_| {})?;
            wanted = wanted.saturating_sub(locked);
        }
        Ok(wanted)
    }

    /// Locks the very first row that nobody holds, of each node's first candidates or of all, and keeps it; false if there is none.
    /// Sessions whose rows are being released are added to `releasing`.
    pub(super) fn lock_first(
        &mut self,
        io: &mut ScanIo,
        of_all: bool,
        releasing: &mut Releases,
    ) -> Result<bool, PgError> {
        let tables = self.tables()?;
        let shards = self.shards(io, &tables[0])?;
        (self.claimed, self.keeping) = (Some(Claimed::First { limit: 1, of_all }), true);
        self.told = Some(Work::begin(Kind::Read, shards.len()));
        let Some(order) = self.merge_order(io) else {
            return Err(PgError::internal("rows without an order have no first"));
        };
        let reads = self.open(io, &tables, &shards, Vec::new())?;
        let sessions: Vec<SessionRef> = reads.iter().map(|read| read.session.clone()).collect();
        let mut merge = Merge::new(order);
        merge.add(reads);
        self.advance(io, &mut merge)?;
        let winner = merge.first();
        if merge.emit(io) {
            io.keep_emitted();
            self.advance(io, &mut merge)?;
        }
        merge.finish()?;
        self.told = None;
        if !io.is_whole_transaction() {
            release(&sessions, winner.as_ref(), releasing)?;
        }
        Ok(winner.is_some())
    }

    fn advance(&mut self, io: &mut ScanIo, merge: &mut Merge) -> Result<(), PgError> {
        while let Some((failure, read)) = merge.advance(self.told.as_ref())? {
            let replaced = self.replace(io, &read, failure)?;
            merge.add(replaced);
        }
        Ok(())
    }
}

/// Releases what has been locked on all sessions but the one that is to keep it. Sessions that are not waited for are added to
/// `releasing`.
fn release(
    sessions: &[SessionRef],
    keeper: Option<&SessionRef>,
    releasing: &mut Releases,
) -> Result<(), PgError> {
    let (level, _) = transaction::level_for_write();
    let savepoint = level + 1;
    let (mut kept, mut undone) = (Vec::new(), Vec::new());
    for shared in sessions {
        let keeps = keeper.is_some_and(|keeper| Rc::ptr_eq(keeper, shared));
        let mut session = shared.borrow_mut();
        match (session.depth == savepoint, keeps) {
            (true, true) => kept.push(session),
            (true, false) => undone.push(session),
            (false, true) => {}
            (false, false) => {
                session.roll_back_soon();
                releasing.0.push(Rc::clone(shared));
            }
        }
    }
    let released = format!("RELEASE SAVEPOINT pg_shard_{savepoint}");
    let rolled_back = format!("ROLLBACK TO SAVEPOINT pg_shard_{savepoint}");
    settle(&mut undone, &[rolled_back, released.clone()], level)?;
    undone.iter_mut().for_each(|session| session.forget_settings());
    settle(&mut kept, &[released], level)
}

fn settle(
    sessions: &mut [RefMut<'_, Session>],
    commands: &[String],
    level: u32,
) -> Result<(), PgError> {
    let done = run_all(sessions, commands);
    for (session, done) in sessions.iter_mut().zip(done) {
        session.depth = level;
        if !done {
            return Err(lost_in_the_middle(&session.node, None));
        }
    }
    Ok(())
}

/// The SQL with the rows in their place, which is the last that looks like it.
fn with_claimed(sql: &str, claimed: &str) -> String {
    match sql.rsplit_once(CLAIMED) {
        Some((before, behind)) => format!("{before}{claimed}{behind}"),
        None => sql.to_owned(),
    }
}
