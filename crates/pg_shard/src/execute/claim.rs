//! Rows that are locked below LIMIT and above filters: those that are wanted, chosen from candidates that have been read without
//! being locked.
//!
//! See `pg::path::claim` for the plan. A candidate that yields nothing is held by somebody else (SKIP LOCKED) or has been changed since
//! it was read. What it has become may still be meant, so if rows are missing at the end, the candidates are read once more, until
//! there is none that has not been tried.

use super::first_free::{Claimed, Releases};
use super::read::Read;
use super::tables;
use crate::plan::compiled::Compiled;
use pg::PgError;
use pg::exec::explain::Explain;
use pg::exec::scan_io::{Scan, ScanIo};
use pg::path::claim::{Filters, Version};
use pg::server::transaction::{Isolation, isolation_level};
use pg::sys::plan::{Claim, Plan};
use shardmap::tid::{Tid, TidLayout};
use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;

/// More rows than that are not locked by one statement.
const MOST: u64 = 500;

/// The scan.
pub(crate) struct ClaimedRows {
    claim: Claim,
    filters: Filters,
    compiled: Rc<Compiled>,
    read: Read,
    /// How many rows are kept, and which of them are not meant.
    kept: usize,
    passed_over: HashSet<usize>,
    emitted: usize,
    done: bool,
    /// What the nodes have locked and are not to keep.
    releasing: Releases,
}

impl ClaimedRows {
    /// The scan of a plan.
    pub(crate) fn new(claim: Claim, compiled: Rc<Compiled>, io: &mut ScanIo) -> Self {
        Self {
            claim,
            filters: io.take_filters(),
            read: Read::new(Rc::clone(&compiled)),
            compiled,
            kept: 0,
            passed_over: HashSet::new(),
            emitted: 0,
            done: false,
            releasing: Releases::default(),
        }
    }

    /// Locks the rows; they are kept.
    fn run(&mut self, io: &mut ScanIo) -> Result<(), PgError> {
        let mut wanted = io.claimed_rows(&self.claim);
        if self.claim_free(io, wanted)? {
            io.rows().borrow_mut().rewind();
            return Ok(());
        }
        let mut tried: HashSet<Version> = HashSet::new();
        loop {
            let mut missing = false;
            let left = self.claim_some(io, wanted, &mut tried, &mut missing)?;
            let is_all_held = !missing;
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
        if wanted == 1 && self.read.lock_first(io, false, &mut self.releasing)? {
            return Ok(true);
        }
        // Without places the limit was known to be one when the statement was planned.
        if !by_place {
            self.read.lock_first(io, true, &mut self.releasing)?;
        }
        Ok(!by_place)
    }

    /// Goes through the candidates once; tells how many rows are still wanted. Some are `missing` that were candidates.
    fn claim_some(
        &mut self,
        io: &mut ScanIo,
        mut wanted: u64,
        tried: &mut HashSet<Version>,
        missing: &mut bool,
    ) -> Result<u64, PgError> {
        for child in 0..io.children() {
            let mut seen = 0;
            let mut is_over = false;
            while wanted > 0 && !is_over {
                let mut batch: Vec<Version> = Vec::new();
                while (batch.len() as u64) < wanted.min(MOST) {
                    let Some(version) = io.candidate(child) else {
                        is_over = true;
                        break;
                    };
                    seen += 1;
                    if tried.insert(version) {
                        batch.push(version);
                    }
                }
                if !batch.is_empty() {
                    let (found, held) = self.lock(io, &batch, tried)?;
                    wanted = wanted.saturating_sub(held);
                    *missing |= found < batch.len();
                }
            }
            // No node has more than it was asked for.
            if wanted == 0 || seen < self.claim.candidates {
                break;
            }
        }
        Ok(wanted)
    }

    /// Locks rows; tells how many have been found, and how many of these are meant.
    fn lock(
        &mut self,
        io: &mut ScanIo,
        batch: &[Version],
        tried: &mut HashSet<Version>,
    ) -> Result<(usize, u64), PgError> {
        let Plan::ShardScan(plan) = &self.compiled.plan else {
            return Err(PgError::internal("rows are locked without a scan"));
        };
        let shards = tables(&plan.tables)?[0].map.len();
        let layout = TidLayout::for_shards(shards);
        let shard = |tid: &Tid| if shards > 1 { layout.decode(*tid).0 } else { 0 };
        let concerned: BTreeSet<usize> = batch.iter().map(|(tid, _)| shard(tid)).collect();
        let concerned: Vec<usize> = concerned.into_iter().collect();
        let list: Vec<String> =
            batch.iter().map(|(tid, _)| format!("\"({},{})\"", tid.block, tid.offset)).collect();
        let Self { claim, filters, read, kept, passed_over, .. } = self;
        let (mut found, mut held) = (0, 0);
        let mut each = |io: &mut ScanIo| {
            found += 1;
            let version = io.claimed_version(claim);
            // A version that has been tried has passed the filters. Another is not to be tried as one more candidate.
            if !tried.insert(version) || io.passes(filters) {
                held += 1;
            } else {
                passed_over.insert(*kept);
            }
            *kept += 1;
        };
        let places = Claimed::Places(format!("'{{{}}}'", list.join(",")));
        read.lock_rows(io, &concerned, places, &mut each)?;
        Ok((found, held))
    }
}

impl Scan for ClaimedRows {
    /// The candidates are those of the moment when a cursor is opened. Of what can be skipped the first that is free is wanted when
    /// it is fetched.
    fn ask_early(&mut self, io: &mut ScanIo) -> Result<(), PgError> {
        if self.done || self.claim.first_free.is_some() {
            return Ok(());
        }
        io.ask_for_candidates()
    }

    fn next(&mut self, io: &mut ScanIo) -> Result<bool, PgError> {
        if !self.done {
            self.run(io)?;
            self.done = true;
        }
        while io.emit_kept()? {
            self.emitted += 1;
            if !self.passed_over.contains(&(self.emitted - 1)) {
                return Ok(true);
            }
            io.pass_over();
        }
        Ok(false)
    }

    fn rescan(&mut self, io: &mut ScanIo, changed: bool) -> Result<(), PgError> {
        self.emitted = 0;
        if changed && self.done {
            io.rows().borrow_mut().clear();
            io.read_candidates_again();
            self.passed_over.clear();
            (self.kept, self.done) = (0, false);
        } else {
            io.rows().borrow_mut().rewind();
        }
        Ok(())
    }

    fn end(&mut self, io: &mut ScanIo) {
        self.releasing.wait();
        self.read.end(io);
    }

    fn explain(&mut self, io: &mut ScanIo, explain: &mut Explain) -> Result<(), PgError> {
        self.read.explain(io, explain)
    }
}
