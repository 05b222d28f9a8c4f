//! What the expressions of a statement need: functions, sub-queries, places of rows.

use crate::read::called::functions_of;
use crate::read::facts::{Reader, is_deterministic, own_family, passes_filters, strip_relabel};
use crate::read::implied::has_unnamed_operator;
use crate::read::lent::{self, Needs};
use crate::read::query::{Column, Unshippable};
use crate::read::shippable::{is_row_of_relation, is_temporary, names_object, reads_local_state};
use crate::read::tid;
use crate::sys::node::{self, Visit};
use crate::sys::value::FIRST_USER_OID;
use pgrx::pg_sys::{self, NodeTag, Oid};

impl Reader<'_> {
    /// What the statement needs of users.
    pub(super) unsafe fn read_needs(&mut self, query: *mut pg_sys::Query) {
        let facts = &mut self.facts;
        // SAFETY: a live Query.
        unsafe {
            node::walk(query, &mut |n| {
                match lent::needs(n) {
                    Needs::Nothing => {}
                    Needs::Type(type_oid) => facts.made_types.push(type_oid),
                    Needs::Code => facts.calls_users = true,
                }
                Visit::Into
            });
        }
    }

    pub(super) unsafe fn read_expression(&mut self, n: *mut pg_sys::Node) {
        // SAFETY: a live node of the statement.
        unsafe {
            if has_unnamed_operator(n) {
                self.facts.unshippable.push(Unshippable::UnnamedOperator);
            }
            match node::tag(n) {
                NodeTag::T_Var => {
                    let var = n.cast::<pg_sys::Var>();
                    if (*var).varattno == 0
                        && let Some(column) = self.column_of(n)
                    {
                        let level =
                            self.levels[self.levels.len() - 1 - (*var).varlevelsup as usize];
                        let rte: *mut pg_sys::RangeTblEntry =
                            node::nth((*level).rtable, column.relation as usize - 1);
                        // A view's row has a type that the workers do not have, a join's one whose columns they would name
                        // otherwise.
                        let is_known_here_only = match (*rte).rtekind {
                            pg_sys::RTEKind::RTE_RELATION | pg_sys::RTEKind::RTE_JOIN => true,
                            // Of columns with the same name all but one are printed with another.
                            pg_sys::RTEKind::RTE_SUBQUERY => {
                                (*var).vartype != pg_sys::RECORDOID || has_twins((*rte).eref)
                            }
                            _ => false,
                        };
                        if is_known_here_only {
                            self.facts.unshippable.push(Unshippable::WholeRow);
                        }
                    }
                    if tid::is_ctid(&*var) {
                        self.note_ctid(var);
                    }
                    // tableoid of a shard is another number than the table's.
                    if (*var).varattno == pg_sys::TableOidAttributeNumber as i16 {
                        self.facts.unshippable.push(Unshippable::LocalState);
                    } else if (*var).varattno < 0 && self.writes {
                        self.facts.unshippable.push(Unshippable::PlacementDependent);
                    }
                }
                // Values that name an object, which has another OID elsewhere, if it is there.
                NodeTag::T_Const | NodeTag::T_Param if names_object(pg_sys::exprType(n)) => {
                    self.facts.unshippable.push(Unshippable::LocalState);
                }
                NodeTag::T_NextValueExpr => self.facts.unshippable.push(Unshippable::LocalState),
                // The workers know a user's collation by name only if a shard uses it.
                NodeTag::T_CollateExpr
                    if (*n.cast::<pg_sys::CollateExpr>()).collOid.to_u32() >= FIRST_USER_OID =>
                {
                    self.facts.unshippable.push(Unshippable::LocalState);
                }
                NodeTag::T_CurrentOfExpr => self.facts.unshippable.push(Unshippable::LocalState),
                NodeTag::T_RowExpr if is_row_of_relation(n.cast()) => {
                    self.facts.unshippable.push(Unshippable::WholeRow);
                }
                _ => {
                    for function in functions_of(n) {
                        self.read_function(function);
                    }
                }
            }
        }
    }

    /// Notes the table of a `ctid`.
    pub(super) unsafe fn note_ctid(&mut self, var: *mut pg_sys::Var) {
        // SAFETY: a live Var of the query that is being read.
        unsafe {
            let Some(level) = self.levels.len().checked_sub(1 + (*var).varlevelsup as usize) else {
                return;
            };
            let level = self.levels[level];
            let Some(index) = ((*var).varno as usize).checked_sub(1) else { return };
            if index < node::length((*level).rtable) {
                let rte: *mut pg_sys::RangeTblEntry = node::nth((*level).rtable, index);
                if (self.distribution)((*rte).relid).is_some() {
                    self.facts.ctids.push((*rte).relid);
                }
            }
        }
    }

    pub(super) fn read_function(&mut self, function: Oid) {
        // SAFETY: syscache look-ups by value.
        unsafe {
            if is_temporary(function) {
                self.facts.unshippable.push(Unshippable::LocalState);
            }
            let volatility = pg_sys::func_volatile(function) as u8;
            if volatility == pg_sys::PROVOLATILE_VOLATILE {
                self.facts.unshippable.push(Unshippable::VolatileFunction(function));
            } else if function.to_u32() >= FIRST_USER_OID {
                self.facts.unshippable.push(Unshippable::UserFunction(function));
            } else if volatility == pg_sys::PROVOLATILE_STABLE && reads_local_state(function) {
                self.facts.unshippable.push(Unshippable::LocalState);
            }
        }
    }

    /// `key IN (SELECT column ...)`: of the inner rows only those with the outer key matter.
    pub(super) unsafe fn read_in_subquery(&mut self, link: *mut pg_sys::SubLink) {
        // SAFETY: a live ANY sub-link; its test compares outer expressions with `Param`s of the inner columns.
        unsafe {
            let Some(test) = node::cast::<pg_sys::OpExpr, _>((*link).testexpr, NodeTag::T_OpExpr)
            else {
                return;
            };
            let Some(inner) = node::cast::<pg_sys::Query, _>((*link).subselect, NodeTag::T_Query)
            else {
                return;
            };
            let left = node::nth((*test).args, 0);
            if !own_family(left).is_some_and(|family| pg_sys::op_in_opfamily((*test).opno, family))
                || !is_deterministic((*test).inputcollid)
                || !passes_filters(inner)
                || (*inner).hasAggs
                || !(*inner).groupClause.is_null()
                || !(*inner).setOperations.is_null()
            {
                return;
            }
            let outer = self.column_of(node::nth((*test).args, 0));
            let right = strip_relabel(node::nth((*test).args, 1));
            let (Some(outer), Some(param)) =
                (outer, node::cast::<pg_sys::Param, _>(right, NodeTag::T_Param))
            else {
                return;
            };
            for entry in node::elements::<pg_sys::TargetEntry>((*inner).targetList) {
                if i32::from((*entry).resno) == (*param).paramid
                    && let Some(var) = node::cast::<pg_sys::Var, _>(
                        strip_relabel((*entry).expr.cast()),
                        NodeTag::T_Var,
                    )
                    && (*var).varlevelsup == 0
                {
                    let below = Column {
                        level: inner.addr(),
                        relation: (*var).varno as u32,
                        number: (*var).varattno,
                    };
                    self.facts.equalities.follows(outer, below);
                }
            }
        }
    }
}

/// Two of the names are the same.
unsafe fn has_twins(names: *mut pg_sys::Alias) -> bool {
    // SAFETY: the caller passes the live names of an entry.
    unsafe {
        let names = node::elements::<pg_sys::String>((*names).colnames);
        let mut names: Vec<String> =
            names.into_iter().map(|it| node::text_of((*it).sval)).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        names.len() < all
    }
}
