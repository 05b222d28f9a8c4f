//! Conditions from which shards can be left out: of a statement, and of a relation that is scanned.

use crate::print::foldable::is_foldable;
use crate::read::facts::Reader;
use crate::read::query::{Column, DistributionKey, Facts, InsertSource, Prepared};
use crate::read::shippable::is_known_before_reading;
use crate::read::tid;
use crate::sys::node;
use crate::sys::plan::{Command, Key};
use pgrx::pg_sys::{self, NodeTag};
use shardmap::prune::Prune;
use shardmap::route::Equalities;

/// What a filter of a base relation in PostgreSQL's planner says of its distribution column.
///
/// # Safety
///
/// `clauses` are live expressions over relation `relation`.
pub(crate) unsafe fn prune_of_clauses(
    clauses: &[*mut pg_sys::Node],
    relation: u32,
    key: &DistributionKey,
    init_params: &[i32],
    expressions: Vec<*mut pg_sys::Node>,
) -> (Prune<Key>, Vec<*mut pg_sys::Node>) {
    let sent = expressions.len();
    let mut prepared = Prepared { query: std::ptr::null_mut(), expressions, sent, folded: false };
    let column = Column { level: 0, relation, number: key.column };
    let facts = Facts {
        command: Command::Select,
        target: None,
        writes: Vec::new(),
        relations: Vec::new(),
        unshippable: Vec::new(),
        equalities: Equalities::default(),
        prune: Prune::All,
        insert_source: InsertSource::OneRow,
        keeps_key: false,
        ctids: Vec::new(),
        shows_ctid: false,
        returned_tids: Vec::new(),
        has_returning: false,
        has_on_conflict: false,
        null_key: false,
        made_types: Vec::new(),
        calls_users: false,
    };
    let none = |_| None;
    let mut reader = Reader {
        prepared: &mut prepared,
        distribution: &none,
        facts,
        levels: vec![std::ptr::null_mut()],
        writes: false,
        init_params,
        nesting: 0,
    };
    let prune = clauses.iter().fold(Prune::All, |prune, clause| {
        // SAFETY: the caller vouches for the clauses.
        prune.and(unsafe { reader.prune_of(*clause, column, key) })
    });
    let prune = clauses.iter().fold(prune, |prune, clause| {
        // SAFETY: as above.
        prune.and(unsafe { reader.prune_of_tid(*clause, relation) })
    });
    (prune, prepared.expressions)
}

impl Reader<'_> {
    /// What a filter says of `column`.
    pub(super) unsafe fn read_prune(
        &mut self,
        quals: *mut pg_sys::Node,
        column: Column,
        table: &DistributionKey,
    ) -> Prune<Key> {
        if quals.is_null() {
            return Prune::All;
        }
        self.levels.push(std::ptr::with_exposed_provenance_mut(column.level));
        // SAFETY: a live filter of the top query.
        let prune = unsafe { self.prune_of(quals, column, table) };
        self.levels.pop();
        prune
    }

    /// What an expression says of `column`: nothing, if it lies deeper than anybody writes. A [`Prune`] is as deep as the
    /// conditions that it was made of, and whoever goes through one does so by recursion.
    pub(super) unsafe fn prune_of(
        &mut self,
        n: *mut pg_sys::Node,
        column: Column,
        table: &DistributionKey,
    ) -> Prune<Key> {
        const DEEPEST: usize = 100;
        if self.nesting == DEEPEST {
            return Prune::All;
        }
        self.nesting += 1;
        // SAFETY: a live expression.
        let prune = unsafe { self.prune_of_node(n, column, table) };
        self.nesting -= 1;
        prune
    }

    /// What a comparison of the relation's `ctid` with a value that is known here says of the shards.
    pub(super) unsafe fn prune_of_tid(
        &mut self,
        clause: *mut pg_sys::Node,
        relation: u32,
    ) -> Prune<Key> {
        let own = |var: &pg_sys::Var| var.varno as u32 == relation;
        let init_params = self.init_params;
        // SAFETY: a live clause of the planner.
        unsafe {
            let can = |value: *mut pg_sys::Node| {
                node::tag(value) == NodeTag::T_Const || is_foldable(value, false, init_params)
            };
            match tid::comparison(clause, &own, &can) {
                Some(found) => Prune::Key(Key::of_tid(
                    self.intern(found.value),
                    found.is_array,
                    pg_sys::TIDOID,
                )),
                None => Prune::All,
            }
        }
    }

    pub(super) unsafe fn prune_of_node(
        &mut self,
        n: *mut pg_sys::Node,
        column: Column,
        table: &DistributionKey,
    ) -> Prune<Key> {
        // SAFETY: a live expression.
        unsafe {
            match node::tag(n) {
                NodeTag::T_List => node::elements::<pg_sys::Node>(n.cast())
                    .into_iter()
                    .fold(Prune::All, |prune, part| prune.and(self.prune_of(part, column, table))),
                // A condition that is never true leaves no shard.
                NodeTag::T_Const => {
                    let constant = n.cast::<pg_sys::Const>();
                    let is_true = !(*constant).constisnull && (*constant).constvalue.value() != 0;
                    if is_true { Prune::All } else { Prune::Or(Vec::new()) }
                }
                NodeTag::T_BoolExpr => {
                    let expr = n.cast::<pg_sys::BoolExpr>();
                    let parts = node::elements::<pg_sys::Node>((*expr).args);
                    match (*expr).boolop {
                        pg_sys::BoolExprType::AND_EXPR => {
                            parts.into_iter().fold(Prune::All, |prune, part| {
                                prune.and(self.prune_of(part, column, table))
                            })
                        }
                        pg_sys::BoolExprType::OR_EXPR => {
                            let sides: Vec<_> = parts
                                .into_iter()
                                .map(|part| self.prune_of(part, column, table))
                                .collect();
                            if sides.iter().any(Prune::is_all) {
                                Prune::All
                            } else {
                                Prune::Or(sides)
                            }
                        }
                        _ => Prune::All,
                    }
                }
                NodeTag::T_OpExpr => {
                    let op = n.cast::<pg_sys::OpExpr>();
                    if node::length((*op).args) != 2 {
                        return Prune::All;
                    }
                    let (left, right): (*mut pg_sys::Node, *mut pg_sys::Node) =
                        (node::nth((*op).args, 0), node::nth((*op).args, 1));
                    let value = if self.column_of(left) == Some(column) {
                        right
                    } else if self.column_of(right) == Some(column)
                        && pg_sys::get_commutator((*op).opno) == (*op).opno
                    {
                        left
                    } else {
                        return Prune::All;
                    };
                    if !is_known_before_reading(value, self.init_params) {
                        return Prune::All;
                    }
                    self.key_for(
                        (*op).opno,
                        (*op).inputcollid,
                        table.family,
                        table.collation,
                        value,
                        false,
                    )
                    .map_or(Prune::All, Prune::Key)
                }
                NodeTag::T_ScalarArrayOpExpr => {
                    let op = n.cast::<pg_sys::ScalarArrayOpExpr>();
                    let (left, right): (*mut pg_sys::Node, *mut pg_sys::Node) =
                        (node::nth((*op).args, 0), node::nth((*op).args, 1));
                    if !(*op).useOr
                        || self.column_of(left) != Some(column)
                        || !is_known_before_reading(right, self.init_params)
                    {
                        return Prune::All;
                    }
                    self.key_for(
                        (*op).opno,
                        (*op).inputcollid,
                        table.family,
                        table.collation,
                        right,
                        true,
                    )
                    .map_or(Prune::All, Prune::Key)
                }
                _ => Prune::All,
            }
        }
    }
}
