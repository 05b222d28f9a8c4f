//! Rows that are locked below LIMIT: as many as are wanted, chosen from candidates that have been read without being locked.
//!
//! See `pg::path::claim` for the plan. A candidate that yields nothing is held by somebody else (SKIP LOCKED) or has been changed since
//! it was read. What it has become may still be meant, so if rows are missing at the end, the candidates are read once more, until
//! there is none that has not been tried.

use super::first_free::Claimed;
use super::read::Read;
use super::tables;
use crate::plan::compiled::Compiled;
use crate::plan::data::Plan;
use pg::PgError;
use pg::exec::scan::{Explain, Scan, ScanIo};
use pg::path::claim::Claim;
use pg::server::transaction::{Isolation, isolation_level};
use shardmap::tid::{Tid, TidLayout};
use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;

/// More rows than that are not locked by one statement.
const MOST: u64 = 500;

/// The scan.
pub(crate) struct ClaimedRows {
    claim: Claim,
    compiled: Rc<Compiled>,
    read: Read,
    done: bool,
}

impl ClaimedRows {
    /// The scan of a plan.
    pub(crate) fn new(claim: Claim, compiled: Rc<Compiled>) -> Self {
        let read = Read::new(Rc::clone(&compiled));
        Self { claim, compiled, read, done: false }
    }

    /// Locks the rows; they are kept.
    fn run(&mut self, io: &mut ScanIo) -> Result<(), PgError> {
        let mut wanted = io.claimed_rows(&self.claim);
        if self.claim_free(io, wanted)? {
            io.rows().borrow_mut().rewind();
            return Ok(());
        }
        let mut tried: HashSet<Tid> = HashSet::new();
        loop {
            let before = tried.len() as u64;
            let left = self.claim_some(io, wanted, &mut tried)?;
            let is_all_held = wanted - left == tried.len() as u64 - before;
            wanted = left;
            if wanted == 0 || is_all_held {
                break;
            }
            io.read_candidates_again();
        }
        io.rows().borrow_mut().rewind();
        Ok(())
    }

    /// Has the nodes skip what others hold, where they can: see [`super::first_free`]. False if candidates have to be read.
    fn claim_free(&mut self, io: &mut ScanIo, wanted: u64) -> Result<bool, PgError> {
        let Some(first_free) = &self.claim.first_free else { return Ok(false) };
        let by_place = self.claim.by_place;
        if wanted == 0 || by_place && isolation_level() != Isolation::ReadCommitted {
            return Ok(wanted == 0);
        }
        if first_free.merge.is_empty() {
            return self.read.lock_any(io, wanted).map(|_| true);
        }
        if wanted == 1 && self.read.lock_first(io, false)? {
            return Ok(true);
        }
        // Without places the limit was known to be one when the statement was planned.
        if !by_place {
            self.read.lock_first(io, true)?;
        }
        Ok(!by_place)
    }

    /// Goes through the candidates once; tells how many rows are still wanted.
    fn claim_some(
        &mut self,
        io: &mut ScanIo,
        mut wanted: u64,
        tried: &mut HashSet<Tid>,
    ) -> Result<u64, PgError> {
        for child in 0..2 {
            let mut seen = 0;
            let mut is_over = false;
            while wanted > 0 && !is_over {
                let mut batch = Vec::new();
                while (batch.len() as u64) < wanted.min(MOST) {
                    let Some(tid) = io.candidate(child) else {
                        is_over = true;
                        break;
                    };
                    seen += 1;
                    if tried.insert(tid) {
                        batch.push(tid);
                    }
                }
                if !batch.is_empty() {
                    wanted = wanted.saturating_sub(self.lock(io, &batch)?);
                }
            }
            // No node has more than it was asked for.
            if wanted == 0 || seen < self.claim.candidates {
                break;
            }
        }
        Ok(wanted)
    }

    fn lock(&mut self, io: &mut ScanIo, batch: &[Tid]) -> Result<u64, PgError> {
        let Plan::ShardScan(plan) = &self.compiled.plan else {
            return Err(PgError::internal("rows are locked without a scan"));
        };
        let shards = tables(&plan.tables)?[0].map.len();
        let layout = TidLayout::for_shards(shards);
        let shard = |tid: &Tid| if shards > 1 { layout.decode(*tid).0 } else { 0 };
        let concerned: BTreeSet<usize> = batch.iter().map(shard).collect();
        let concerned: Vec<usize> = concerned.into_iter().collect();
        let list: Vec<String> =
            batch.iter().map(|tid| format!("\"({},{})\"", tid.block, tid.offset)).collect();
        self.read.lock_rows(io, &concerned, Claimed::Places(format!("'{{{}}}'", list.join(","))))
    }
}

impl Scan for ClaimedRows {
    fn next(&mut self, io: &mut ScanIo) -> Result<bool, PgError> {
        if !self.done {
            self.run(io)?;
            self.done = true;
        }
        io.emit_kept()
    }

    fn rescan(&mut self, io: &mut ScanIo, changed: bool) -> Result<(), PgError> {
        if changed && self.done {
            io.rows().borrow_mut().clear();
            io.read_candidates_again();
            self.done = false;
        } else {
            io.rows().borrow_mut().rewind();
        }
        Ok(())
    }

    fn end(&mut self, io: &mut ScanIo) {
        self.read.end(io);
    }

    fn explain(&mut self, io: &mut ScanIo, explain: &mut Explain) -> Result<(), PgError> {
        self.read.explain(io, explain)
    }
}
