//! Reading facts out of a prepared statement: which distributed tables it touches, which equalities hold between
//! their columns and values, and what stands in the way of sending it to a worker as it is.
//!
//! Which equalities may be relied upon is decided here and nowhere else; `shardmap::route` draws the
//! conclusions. A filter restricts what it is applied to: WHERE and inner joins everything, the ON of an outer
//! join only its nullable side, a sub-query's filter on an outer column only the sub-query.

use crate::read::query::{
    Column, DistributedRelation, DistributionKey, Facts, InsertSource, Lookup, Prepared,
    Unshippable, write_of, writing_queries,
};
use crate::read::shippable::is_plain_value;
use crate::read::tid;
use crate::server::shared;
use crate::sys::node::{self, Visit};
use crate::sys::plan::{Command, Key};
use crate::sys::value::Hasher;
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use shardmap::prune::Prune;
use shardmap::route::Equalities;

impl Prepared {
    /// Reads the facts; `distribution` tells which tables are distributed and how.
    pub fn facts(&mut self, command: Command, distribution: &Lookup<'_>) -> Facts {
        let facts = Facts {
            command,
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
            // SAFETY: the copy is live.
            has_returning: unsafe { !(*self.query).returningList.is_null() },
            // SAFETY: as above.
            has_on_conflict: unsafe { !(*self.query).onConflict.is_null() },
            null_key: false,
            made_types: Vec::new(),
            calls_users: false,
        };
        let query = self.query;
        // SAFETY: the copy is a live tree that the analyser or the rewriter made.
        let writes = unsafe { !writing_queries(query).is_empty() };
        let mut reader = Reader {
            prepared: self,
            distribution,
            facts,
            levels: Vec::new(),
            writes,
            init_params: &[],
            nesting: 0,
        };
        // SAFETY: as above.
        unsafe {
            reader.read_query(query);
            let is_cut = |table: &Oid| tid::layout_of(*table).is_some();
            let has_ctids = !reader.facts.ctids.is_empty();
            reader.facts.shows_ctid = has_ctids && tid::is_shown(query, &[]);
            if reader.facts.shows_ctid && reader.facts.ctids.iter().any(is_cut) {
                let returned = tid::returned(query);
                if returned.is_empty() || tid::is_shown(query, &returned) {
                    reader.facts.unshippable.push(Unshippable::ShownTid);
                } else {
                    reader.facts.unshippable.push(Unshippable::ReturnedTid);
                    reader.facts.returned_tids = returned;
                }
            }
            let is_asked = shared::table().is_some();
            if is_asked
                || reader.facts.relations.iter().any(|relation| relation.user != Oid::INVALID)
            {
                reader.read_needs(query);
            }
            for entry in node::elements::<pg_sys::TargetEntry>((*query).targetList) {
                // An anonymous record cannot be read back from another server.
                let type_oid = pg_sys::exprType((*entry).expr.cast());
                let is_record = matches!(type_oid, pg_sys::RECORDOID | pg_sys::RECORDARRAYOID);
                if command == Command::Select && !(*entry).resjunk && is_record {
                    reader.facts.unshippable.push(Unshippable::WholeRow);
                }
            }
            if let [only] = reader.facts.relations[..]
                && only.column.level == query.addr()
                && !matches!(command, Command::Insert | Command::Upsert | Command::Merge)
            {
                let table =
                    reader.key_of(only.column).unwrap_or_else(|| unreachable!("it is distributed"));
                reader.facts.prune =
                    reader.read_prune((*(*query).jointree).quals, only.column, &table);
            }
        }
        reader.facts
    }

    /// A volatile function is computed here, once for all rows.
    pub fn computes_volatile(&self) -> bool {
        // SAFETY: the expressions are live parts of the copy.
        self.expressions
            .iter()
            .any(|expression| unsafe { pg_sys::contain_volatile_functions(*expression) })
    }

    /// The value of `key`, if it can be known now (a constant), hashed; `None` for NULL inside.
    pub fn hash_now(&self, key: &Key) -> Option<Option<i32>> {
        if key.is_array {
            return None;
        }
        // SAFETY: the expression is live; a Const's datum is of its type, which coerces binarily to the hash type.
        unsafe {
            let folded = pg_sys::eval_const_expressions(
                std::ptr::null_mut(),
                node::copy(self.expressions[key.expression]),
            );
            let constant = node::cast::<pg_sys::Const, _>(folded, NodeTag::T_Const)?;
            if (*constant).constisnull {
                return Some(None);
            }
            let hasher = Hasher::find(key.family, key.hash_type, key.collation)?;
            Some(Some(hasher.hash((*constant).constvalue)))
        }
    }
}

pub(super) struct Reader<'a> {
    pub(super) prepared: &'a mut Prepared,
    pub(super) distribution: &'a Lookup<'a>,
    pub(super) facts: Facts,
    pub(super) levels: Vec<*mut pg_sys::Query>,
    /// The statement writes somewhere.
    pub(super) writes: bool,
    /// Parameters that sub-queries set before anything is read.
    pub(super) init_params: &'a [i32],
    /// How deep in a condition [`Self::prune_of`] is.
    pub(super) nesting: usize,
}

/// Which side of an outer join a filter may restrict.
pub(super) enum Scope {
    /// WHERE, or ON of an inner join.
    Everything,
    /// ON of an outer join: the relations of its nullable side.
    Only(Vec<u32>),
}

impl Reader<'_> {
    pub(super) unsafe fn read_query(&mut self, query: *mut pg_sys::Query) {
        node::check_depth();
        self.levels.push(query);
        // SAFETY: the caller passes a live Query; everything below hangs on it.
        unsafe {
            let excluded =
                if (*query).onConflict.is_null() { 0 } else { (*(*query).onConflict).exclRelIndex };
            // What the client's own SELECT yields depends on one placement only, the leading one.
            let is_answer = self.levels.len() == 1 && write_of(query).is_none();
            if self.writes && !is_answer && !passes_filters(query) {
                self.facts.unshippable.push(Unshippable::PlacementDependent);
            }
            let mut used = relations_below((*query).jointree.cast());
            used.push((*query).resultRelation as u32);
            for (index, rte) in
                node::elements::<pg_sys::RangeTblEntry>((*query).rtable).into_iter().enumerate()
            {
                let index = index as u32 + 1;
                if index as i32 == excluded {
                    continue;
                }
                self.read_entry(query, index, rte);
                // An entry for the permission check alone (the target of an INSERT whose source this is).
                let is_distributed = (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION
                    && (self.distribution)((*rte).relid).is_some();
                if is_distributed && !used.contains(&index) {
                    self.facts.unshippable.push(Unshippable::LocalState);
                }
            }
            self.read_from((*query).jointree.cast(), query);
            node::walk(query, &mut |n| {
                if n == query.cast() {
                    return Visit::Into;
                }
                if node::tag(n) == NodeTag::T_Query {
                    self.read_query(n.cast());
                    return Visit::Skip;
                }
                self.read_expression(n);
                Visit::Into
            });
            if let Some(command) = write_of(query) {
                self.read_target(query, command);
            }
        }
        self.levels.pop();
    }

    pub(super) unsafe fn read_entry(
        &mut self,
        query: *mut pg_sys::Query,
        index: u32,
        rte: *mut pg_sys::RangeTblEntry,
    ) {
        // SAFETY: a live entry of a live Query.
        unsafe {
            match (*rte).rtekind {
                pg_sys::RTEKind::RTE_RELATION => {
                    if let Some(key) = (self.distribution)((*rte).relid) {
                        let column =
                            Column { level: query.addr(), relation: index, number: key.column };
                        self.facts.relations.push(DistributedRelation {
                            table: (*rte).relid,
                            column,
                            user: version::checked_as(query, rte),
                        });
                        if !(*rte).securityQuals.is_null() || !(*query).withCheckOptions.is_null() {
                            self.facts.unshippable.push(if (*query).hasRowSecurity {
                                Unshippable::RowSecurity
                            } else {
                                Unshippable::CheckedView
                            });
                        }
                    } else if !matches!(
                        (*rte).relkind as u8,
                        pg_sys::RELKIND_VIEW | pg_sys::RELKIND_COMPOSITE_TYPE
                    ) {
                        // A view's own entry stays for its permission check; its tables are in the sub-query.
                        self.facts.unshippable.push(Unshippable::LocalTable((*rte).relid));
                    }
                }
                pg_sys::RTEKind::RTE_FUNCTION => {
                    for item in node::elements::<pg_sys::RangeTblFunction>((*rte).functions) {
                        // Its value is this server's, and no parameter can stand in FROM.
                        let call = (*item).funcexpr;
                        let is_scalar =
                            !pg_sys::expression_returns_set(call) && (*item).funccolnames.is_null();
                        if is_scalar && pg_sys::contain_mutable_functions(call) {
                            self.facts.unshippable.push(Unshippable::LocalState);
                        }
                    }
                }
                pg_sys::RTEKind::RTE_SUBQUERY => {
                    self.read_outputs(query, index, (*rte).subquery, true);
                }
                pg_sys::RTEKind::RTE_CTE => {
                    let level = self.levels.len().checked_sub(1 + (*rte).ctelevelsup as usize);
                    let Some(owner) = level.map(|level| self.levels[level]) else { return };
                    let name = node::text_of((*rte).ctename);
                    for cte in node::elements::<pg_sys::CommonTableExpr>((*owner).cteList) {
                        if node::text_of((*cte).ctename) == name
                            && !(*cte).cterecursive
                            && let Some(inner) =
                                node::cast::<pg_sys::Query, _>((*cte).ctequery, NodeTag::T_Query)
                        {
                            self.read_outputs(query, index, inner, (*cte).cterefcount == 1);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// A column of a sub-query equals the column it comes from.
    pub(super) unsafe fn read_outputs(
        &mut self,
        outer: *mut pg_sys::Query,
        index: u32,
        inner: *mut pg_sys::Query,
        used_once: bool,
    ) {
        // SAFETY: live queries.
        unsafe {
            if inner.is_null() || !(*inner).setOperations.is_null() {
                return;
            }
            // What a write returns has the key of what it wrote; a filter above it does not restrict the write.
            let is_write = write_of(inner).is_some();
            let outputs = if is_write { (*inner).returningList } else { (*inner).targetList };
            let passes_filters = used_once && !is_write && passes_filters(inner);
            let grouped = !(*inner).groupClause.is_null()
                || (*inner).hasAggs
                || !(*inner).groupingSets.is_null();
            for entry in node::elements::<pg_sys::TargetEntry>(outputs) {
                let Some(var) = version::current_column(strip_relabel((*entry).expr.cast())) else {
                    continue;
                };
                if (*entry).resjunk || (*var).varlevelsup != 0 {
                    continue;
                }
                let below = Column {
                    level: inner.addr(),
                    relation: (*var).varno as u32,
                    number: (*var).varattno,
                };
                let above = Column { level: outer.addr(), relation: index, number: (*entry).resno };
                self.facts.equalities.follows(below, above);
                let is_group_column = (*entry).ressortgroupref != 0
                    && (*inner).groupingSets.is_null()
                    && node::elements::<pg_sys::SortGroupClause>((*inner).groupClause)
                        .iter()
                        .any(|clause| (**clause).tleSortGroupRef == (*entry).ressortgroupref);
                if passes_filters && (!grouped || is_group_column) {
                    self.facts.equalities.follows(above, below);
                }
            }
        }
    }

    pub(super) unsafe fn read_from(&mut self, item: *mut pg_sys::Node, query: *mut pg_sys::Query) {
        node::check_depth();
        // SAFETY: a live join tree.
        unsafe {
            if let Some(from) = node::cast::<pg_sys::FromExpr, _>(item, NodeTag::T_FromExpr) {
                for part in node::elements::<pg_sys::Node>((*from).fromlist) {
                    self.read_from(part, query);
                }
                // ON of MERGE restricts no row that may be "not matched".
                let scope = if keeps_unmatched(query, version::MergeMatch::NotBySource) {
                    Scope::Only(Vec::new())
                } else if keeps_unmatched(query, version::MergeMatch::NotByTarget) {
                    Scope::Only(vec![(*query).resultRelation as u32])
                } else {
                    Scope::Everything
                };
                self.read_conjuncts(version::conditions_of(query, from), query, &scope);
            } else if let Some(join) = node::cast::<pg_sys::JoinExpr, _>(item, NodeTag::T_JoinExpr)
            {
                self.read_from((*join).larg, query);
                self.read_from((*join).rarg, query);
                let scope = match (*join).jointype {
                    pg_sys::JoinType::JOIN_INNER => Scope::Everything,
                    pg_sys::JoinType::JOIN_LEFT => Scope::Only(relations_below((*join).rarg)),
                    pg_sys::JoinType::JOIN_RIGHT => Scope::Only(relations_below((*join).larg)),
                    _ => Scope::Only(Vec::new()),
                };
                self.read_conjuncts((*join).quals, query, &scope);
                // A column of the join itself equals the column it is made of, where the join adds no NULLs.
                if (*join).rtindex != 0 && (*join).jointype == pg_sys::JoinType::JOIN_INNER {
                    self.read_join_columns((*join).rtindex as u32, query);
                }
            }
        }
    }

    pub(super) unsafe fn read_join_columns(&mut self, index: u32, query: *mut pg_sys::Query) {
        // SAFETY: the join's own range table entry.
        unsafe {
            let rte: *mut pg_sys::RangeTblEntry = node::nth((*query).rtable, index as usize - 1);
            for (position, alias) in
                node::elements::<pg_sys::Node>((*rte).joinaliasvars).into_iter().enumerate()
            {
                if let Some(below) = self.column_of(alias) {
                    let above = Column {
                        level: query.addr(),
                        relation: index,
                        number: position as i16 + 1,
                    };
                    self.facts.equalities.equal(above, below);
                }
            }
        }
    }

    pub(super) unsafe fn read_conjuncts(
        &mut self,
        quals: *mut pg_sys::Node,
        query: *mut pg_sys::Query,
        scope: &Scope,
    ) {
        node::check_depth();
        if quals.is_null() {
            return;
        }
        // SAFETY: a live expression.
        unsafe {
            if let Some(both) = node::cast::<pg_sys::BoolExpr, _>(quals, NodeTag::T_BoolExpr) {
                if (*both).boolop == pg_sys::BoolExprType::AND_EXPR {
                    for part in node::elements::<pg_sys::Node>((*both).args) {
                        self.read_conjuncts(part, query, scope);
                    }
                }
            } else if let Some(list) = node::cast::<pg_sys::List, _>(quals, NodeTag::T_List) {
                for part in node::elements::<pg_sys::Node>(list) {
                    self.read_conjuncts(part, query, scope);
                }
            } else if let Some(op) = node::cast::<pg_sys::OpExpr, _>(quals, NodeTag::T_OpExpr)
                && node::length((*op).args) == 2
            {
                self.read_equality(op, query, scope);
            } else if let Some(link) = node::cast::<pg_sys::SubLink, _>(quals, NodeTag::T_SubLink)
                && (*link).subLinkType == pg_sys::SubLinkType::ANY_SUBLINK
            {
                self.read_in_subquery(link);
            }
        }
    }

    pub(super) unsafe fn read_equality(
        &mut self,
        op: *mut pg_sys::OpExpr,
        query: *mut pg_sys::Query,
        scope: &Scope,
    ) {
        // SAFETY: a live operator with two arguments.
        unsafe {
            let (left, right): (*mut pg_sys::Node, *mut pg_sys::Node) =
                (node::nth((*op).args, 0), node::nth((*op).args, 1));
            let here = query.addr();
            let restricts = |column: &Column| {
                column.level == here
                    && match scope {
                        Scope::Everything => true,
                        Scope::Only(relations) => relations.contains(&column.relation),
                    }
            };
            match (self.column_of(left), self.column_of(right)) {
                (Some(a), Some(b)) => {
                    // Equal must mean equal to both columns' own types: 'a ' and 'a' are equal as bpchar only.
                    let own = |n| {
                        own_family(n)
                            .is_some_and(|family| pg_sys::op_in_opfamily((*op).opno, family))
                    };
                    if !own(left) || !own(right) || !is_deterministic((*op).inputcollid) {
                        return;
                    }
                    if restricts(&b) {
                        self.facts.equalities.follows(a, b);
                    }
                    if restricts(&a) {
                        self.facts.equalities.follows(b, a);
                    }
                }
                (Some(column), None) if restricts(&column) => {
                    if let Some(key) = self.read_key(op, column, left, right) {
                        self.facts.equalities.key(column, key);
                    }
                }
                (None, Some(column)) if restricts(&column) => {
                    let commuted = pg_sys::get_commutator((*op).opno);
                    if commuted == (*op).opno
                        && let Some(key) = self.read_key(op, column, right, left)
                    {
                        self.facts.equalities.key(column, key);
                    }
                }
                _ => {}
            }
        }
    }

    /// The column behind a Var, relabelled or not.
    pub(super) unsafe fn column_of(&self, n: *mut pg_sys::Node) -> Option<Column> {
        // SAFETY: a live expression inside the current level.
        unsafe {
            let var = version::current_column(strip_relabel(n))?;
            let level = self.levels.len().checked_sub(1 + (*var).varlevelsup as usize)?;
            Some(Column {
                level: self.levels[level].addr(),
                relation: (*var).varno as u32,
                number: (*var).varattno,
            })
        }
    }

    /// `column = value` as a key, if the operator hashes and the value has no columns.
    ///
    /// The column need not be a distribution column (it may be equal to one); the family is then the type's own.
    pub(super) unsafe fn read_key(
        &mut self,
        op: *mut pg_sys::OpExpr,
        column: Column,
        column_node: *mut pg_sys::Node,
        value: *mut pg_sys::Node,
    ) -> Option<Key> {
        // SAFETY: live expressions.
        unsafe {
            if !is_plain_value(value) {
                return None;
            }
            let (family, collation) = match self.key_of(column) {
                Some(key) => (key.family, key.collation),
                None => (own_family(column_node)?, (*op).inputcollid),
            };
            self.key_for((*op).opno, (*op).inputcollid, family, collation, value, false)
        }
    }

    pub(super) unsafe fn key_for(
        &mut self,
        operator: Oid,
        collation: Oid,
        family: Oid,
        hash_collation: Oid,
        value: *mut pg_sys::Node,
        is_array: bool,
    ) -> Option<Key> {
        // SAFETY: syscache look-ups by value.
        unsafe {
            let (mut left_type, mut right_type) = (Oid::INVALID, Oid::INVALID);
            pg_sys::op_input_types(operator, &raw mut left_type, &raw mut right_type);
            if family == Oid::INVALID || !pg_sys::op_in_opfamily(operator, family) {
                return None;
            }
            if collation != hash_collation
                && !(is_deterministic(collation) && is_deterministic(hash_collation))
            {
                return None;
            }
            Hasher::find(family, right_type, hash_collation)?;
            let expression = self.intern(value);
            Some(Key {
                expression,
                hash_type: right_type,
                family,
                collation: hash_collation,
                is_array,
            })
        }
    }

    /// How the table behind a column is cut, if the column is its distribution column.
    pub(super) unsafe fn key_of(&self, column: Column) -> Option<DistributionKey> {
        let relation = self.facts.relations.iter().find(|relation| relation.column == column)?;
        (self.distribution)(relation.table)
    }

    /// The expression's index among those computed at execution.
    pub(super) unsafe fn intern(&mut self, value: *mut pg_sys::Node) -> usize {
        // SAFETY: live expressions. A `$n` of the copy stands for the n-th expression.
        unsafe {
            if !self.prepared.folded {
                let known = self
                    .prepared
                    .expressions
                    .iter()
                    .position(|e| pg_sys::equal((*e).cast(), value.cast()));
                return known.unwrap_or_else(|| {
                    self.prepared.expressions.push(value);
                    self.prepared.expressions.len() - 1
                });
            }
            if let Some(param) =
                node::cast::<pg_sys::Param, _>(strip_relabel(value), NodeTag::T_Param)
            {
                return (*param).paramid as usize - 1;
            }
            // Parameters inside an immutable expression go back to what they stand for.
            let expressions = &self.prepared.expressions;
            let own = node::rewrite(value, &mut |n| {
                let param = node::cast::<pg_sys::Param, _>(n, NodeTag::T_Param)?;
                Some(node::copy(expressions[(*param).paramid as usize - 1]))
            });
            self.prepared.expressions.push(own);
            self.prepared.expressions.len() - 1
        }
    }
}

/// A MERGE that does something for these rows without a match.
unsafe fn keeps_unmatched(query: *mut pg_sys::Query, rows: version::MergeMatch) -> bool {
    // SAFETY: the caller passes a live Query.
    unsafe {
        node::elements::<pg_sys::MergeAction>((*query).mergeActionList)
            .into_iter()
            .any(|action| version::merge_match(action) == rows)
    }
}

/// The hash operator family of a column's own type, whatever it is relabelled as.
pub(super) unsafe fn own_family(n: *mut pg_sys::Node) -> Option<Oid> {
    // SAFETY: the caller passes a live expression.
    unsafe {
        let var = node::cast::<pg_sys::Var, _>(strip_relabel(n), NodeTag::T_Var)?;
        crate::catalog::table::hash_family((*var).vartype).map(|(family, _)| family)
    }
}

/// A filter on an output column may run below: nothing between depends on the rows it would remove.
pub(super) unsafe fn passes_filters(query: *mut pg_sys::Query) -> bool {
    // SAFETY: the caller passes a live Query.
    unsafe {
        (*query).limitCount.is_null()
            && (*query).limitOffset.is_null()
            && !(*query).hasWindowFuncs
            && !(*query).hasDistinctOn
            && !(*query).hasTargetSRFs
            && (*query).rowMarks.is_null()
    }
}

/// The relations of a part of the join tree.
unsafe fn relations_below(item: *mut pg_sys::Node) -> Vec<u32> {
    node::check_depth();
    let mut found = Vec::new();
    // SAFETY: the caller passes a live join tree.
    unsafe {
        node::walk(item, &mut |n| {
            match node::tag(n) {
                NodeTag::T_RangeTblRef => {
                    found.push((*n.cast::<pg_sys::RangeTblRef>()).rtindex as u32)
                }
                NodeTag::T_JoinExpr => found.push((*n.cast::<pg_sys::JoinExpr>()).rtindex as u32),
                _ => {}
            }
            Visit::Into
        });
    }
    found
}

/// Without the casts that change nothing but the type's name.
pub(crate) unsafe fn strip_relabel(mut n: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: the caller passes a live expression.
    unsafe {
        while let Some(relabel) = node::cast::<pg_sys::RelabelType, _>(n, NodeTag::T_RelabelType) {
            n = (*relabel).arg.cast();
        }
    }
    n
}

/// Equal under the collation means the same bytes.
pub(crate) fn is_deterministic(collation: Oid) -> bool {
    // SAFETY: a syscache look-up by value.
    collation == Oid::INVALID || unsafe { pg_sys::get_collation_isdeterministic(collation) }
}
