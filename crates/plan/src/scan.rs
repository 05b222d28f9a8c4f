//! Scans over shards.

use crate::claim::Claim;
use crate::code::{Coded, Coder, Reference};
use crate::row::{Key, SortKey, Source, Spread, code_one_of};
use crate::template::{self, Piece};
use shardmap::Prune;

/// A scan over the shards of one table, or of several that lie beside each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardScan<O> {
    /// The tables, one with the most shards first.
    pub tables: Vec<O>,
    /// The role whose rights count: a view's owner, or (zero) the current user.
    pub user: O,
    /// The SQL for one shard.
    pub template: Vec<Piece<O>>,
    /// What stands before and behind the union of a node's shards; empty if that is all.
    pub around: (String, String),
    /// Types and typmods of its columns.
    pub remote: Vec<(O, i32)>,
    /// How the scan's row is made of them.
    pub sources: Vec<Source<O>>,
    /// What the filters say of the distribution column.
    pub prune: Prune<Key<O>>,
    /// The plan's children yield rows whose columns are the first parameters of the SQL, as arrays; how each child's
    /// rows are spread over the nodes, all of them going everywhere if it is not said.
    pub broadcasts: Vec<Option<Spread<O>>>,
    /// For each of them: a shard in which none of its rows match has nothing to answer.
    pub needed: Vec<bool>,
    /// How many further children of the plan partition their rows on the nodes; where these are is said by parameters that
    /// follow the arrays.
    pub moves: usize,
    /// Its rows are partitioned on the nodes, and do not come here.
    pub split: Option<Split<O>>,
    /// How many of the plan's expressions are parameters of the SQL.
    pub sent: usize,
    /// The nodes' rows come sorted by these columns, and are merged.
    pub merge: Vec<SortKey<O>>,
    /// The same as EXPLAIN shows it.
    pub merge_text: String,
    /// The SQL locks the rows it reads.
    pub locks: bool,
    /// Its rows are going to be changed.
    pub is_target: bool,
    /// The statement locks with SKIP LOCKED, so it changes rows that it holds.
    pub is_claimed: bool,
    /// Its rows are chosen from, and read anew whenever they are asked for again.
    pub is_candidates: bool,
    /// It locks rows that its children have found.
    pub claim: Option<Claim<O>>,
    /// Its rows are compared by `ctid` in a statement that writes: those that the leading placements have.
    pub by_ctid: bool,
    /// They are matches of the first child's rows, and joined with these here.
    pub lookup_join: Option<LookupJoin>,
}

impl<O: Reference> Coded for ShardScan<O> {
    fn code(&mut self, coder: &mut dyn Coder) {
        coder.references(&mut self.tables);
        coder.reference(&mut self.user);
        template::code(&mut self.template, coder);
        coder.texts(&mut self.around);
        coder.list(&mut self.remote, |(type_oid, typmod), coder| {
            coder.reference(type_oid);
            coder.number(typmod);
        });
        coder.list(&mut self.sources, |source, coder| source.code(coder));
        self.prune.code(coder);
        coder.list(&mut self.broadcasts, |spread, coder| {
            coder.option(spread, |by, coder| by.code(coder));
        });
        coder.list(&mut self.needed, |needed, coder| coder.flag(needed));
        coder.count(&mut self.moves);
        coder.option(&mut self.split, |split, coder| split.code(coder));
        coder.count(&mut self.sent);
        coder.list(&mut self.merge, |key, coder| key.code(coder));
        coder.text(&mut self.merge_text);
        coder.flag(&mut self.locks);
        coder.flag(&mut self.is_target);
        coder.flag(&mut self.is_claimed);
        coder.flag(&mut self.is_candidates);
        coder.option(&mut self.claim, |claim, coder| claim.code(coder));
        coder.flag(&mut self.by_ctid);
        coder.option(&mut self.lookup_join, |join, coder| join.code(coder));
    }
}

/// Rows are partitioned on the nodes that have them, and stay there until others fetch them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split<O> {
    /// By what.
    pub by: Spread<O>,
    /// Rows without a value there are kept, in any partition.
    pub keeps_nulls: bool,
    /// The same as EXPLAIN shows it.
    pub text: String,
}

impl<O: Reference> Coded for Split<O> {
    fn code(&mut self, coder: &mut dyn Coder) {
        self.by.code(coder);
        coder.flag(&mut self.keeps_nulls);
        coder.text(&mut self.text);
    }
}

/// How a scan's rows are made of those that are read here and of what the nodes say of them by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookupJoin {
    /// What is done with the answers.
    pub kind: LookupKind,
    /// The columns of the first child that are sent.
    pub keys: Vec<usize>,
    /// Where its columns begin in the scan's row: before them stand the number and what comes from the nodes.
    pub first: usize,
    /// Which of its columns stand there.
    pub columns: Vec<usize>,
}

impl Coded for LookupJoin {
    fn code(&mut self, coder: &mut dyn Coder) {
        code_one_of(&mut self.kind, &LookupKind::ALL, coder);
        coder.places(&mut self.keys);
        coder.count(&mut self.first);
        coder.places(&mut self.columns);
    }
}

/// What a lookup join does with the answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LookupKind {
    /// Rows that have a match.
    #[default]
    Semi,
    /// Rows that have none.
    Anti,
    /// Rows with each match, or with NULLs.
    Left,
}

impl LookupKind {
    const ALL: [Self; 3] = [Self::Semi, Self::Anti, Self::Left];
}
