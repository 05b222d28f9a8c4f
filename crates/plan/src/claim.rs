//! Scans that lock rows which their children have found: FOR UPDATE with LIMIT, or with a filter that only the coordinator can
//! compute.

use crate::code::{Coded, Coder, Reference};
use crate::row::SortKey;
use crate::template::{self, Piece};

/// What such a scan knows of the query's LIMIT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim<O> {
    /// The numbers of the expressions of LIMIT and OFFSET among those of the plan.
    pub limit: Option<usize>,
    /// See above.
    pub offset: Option<usize>,
    /// How many candidates the first child reads of a node, if there is a second.
    pub candidates: i64,
    /// How a node finds the first rows that nobody holds, with SKIP LOCKED.
    pub first_free: Option<FirstFree<O>>,
    /// There are children that find candidates.
    pub by_place: bool,
    /// Where `ctid` and `xmin` stand in the scan's row.
    pub version: (usize, usize),
}

impl<O: Reference> Coded for Claim<O> {
    fn code(&mut self, coder: &mut dyn Coder) {
        coder.option(&mut self.limit, |place, coder| coder.count(place));
        coder.option(&mut self.offset, |place, coder| coder.count(place));
        coder.wide(&mut self.candidates);
        coder.option(&mut self.first_free, |it, coder| it.code(coder));
        coder.flag(&mut self.by_place);
        coder.count(&mut self.version.0);
        coder.count(&mut self.version.1);
    }
}

/// A statement that locks the first rows of a node that nobody holds: one that executes LIMIT above the locks, so that no row
/// is locked before it is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstFree<O> {
    /// With an order: the part of a shard that finds the first candidates, or all of them, and what stands between these parts and
    /// those that lock.
    pub candidates: [(Vec<Piece<O>>, String); 2],
    /// The part of a shard that locks.
    pub locking: Vec<Piece<O>>,
    /// What stands before all parts, and before the limit.
    pub around: (String, String),
    /// The order; none if any rows will do.
    pub merge: Vec<SortKey<O>>,
}

impl<O: Reference> Coded for FirstFree<O> {
    fn code(&mut self, coder: &mut dyn Coder) {
        for (candidates, between) in &mut self.candidates {
            template::code(candidates, coder);
            coder.text(between);
        }
        template::code(&mut self.locking, coder);
        coder.texts(&mut self.around);
        coder.list(&mut self.merge, |key, coder| key.code(coder));
    }
}
