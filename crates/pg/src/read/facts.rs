//! Reading facts out of a prepared statement: which distributed tables it touches, which equalities hold between
//! their columns and values, and what stands in the way of sending it to a worker as it is.
//!
//! Which equalities may be relied upon is decided here and nowhere else; `shardmap::route` draws the
//! conclusions. A filter restricts what it is applied to: WHERE and inner joins everything, the ON of an outer
//! join only its nullable side, a sub-query's filter on an outer column only the sub-query.

use crate::path::tid;
use crate::print::assigned::is_assignment;
use crate::print::insert_source::values_of;
use crate::print::{foldable::is_foldable, prepare::has_subquery_source};
use crate::read::implied::has_unnamed_operator;
use crate::read::lent::{self, Needs};
use crate::read::query::{
    Column, Command, DistributedRelation, DistributionKey, Facts, InsertSource, Key, Lookup,
    Prepared, Unshippable, Write, write_of, writing_queries,
};
use crate::read::shippable::{
    functions_of, is_known_before_reading, is_plain_value, is_row_of_relation, is_temporary,
    names_object, reads_local_state,
};
use crate::sys::node::{self, Visit};
use crate::sys::value::{FIRST_USER_OID, Hasher};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
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
            if reader.facts.relations.iter().any(|relation| relation.user != Oid::INVALID) {
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

struct Reader<'a> {
    prepared: &'a mut Prepared,
    distribution: &'a Lookup<'a>,
    facts: Facts,
    levels: Vec<*mut pg_sys::Query>,
    /// The statement writes somewhere.
    writes: bool,
    /// Parameters that sub-queries set before anything is read.
    init_params: &'a [i32],
    /// How deep in a condition [`Self::prune_of`] is.
    nesting: usize,
}

/// Which side of an outer join a filter may restrict.
enum Scope {
    /// WHERE, or ON of an inner join.
    Everything,
    /// ON of an outer join: the relations of its nullable side.
    Only(Vec<u32>),
}

impl Reader<'_> {
    unsafe fn read_query(&mut self, query: *mut pg_sys::Query) {
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

    unsafe fn read_entry(
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
    unsafe fn read_outputs(
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

    unsafe fn read_from(&mut self, item: *mut pg_sys::Node, query: *mut pg_sys::Query) {
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

    unsafe fn read_join_columns(&mut self, index: u32, query: *mut pg_sys::Query) {
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

    unsafe fn read_conjuncts(
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

    unsafe fn read_equality(
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
    unsafe fn column_of(&self, n: *mut pg_sys::Node) -> Option<Column> {
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
    unsafe fn read_key(
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

    unsafe fn key_for(
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
    unsafe fn key_of(&self, column: Column) -> Option<DistributionKey> {
        let relation = self.facts.relations.iter().find(|relation| relation.column == column)?;
        (self.distribution)(relation.table)
    }

    /// The expression's index among those computed at execution.
    unsafe fn intern(&mut self, value: *mut pg_sys::Node) -> usize {
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

    /// What the statement needs of users.
    unsafe fn read_needs(&mut self, query: *mut pg_sys::Query) {
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

    unsafe fn read_expression(&mut self, n: *mut pg_sys::Node) {
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
    unsafe fn note_ctid(&mut self, var: *mut pg_sys::Var) {
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

    fn read_function(&mut self, function: Oid) {
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
    unsafe fn read_in_subquery(&mut self, link: *mut pg_sys::SubLink) {
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

    /// What the statement writes, and the key of the rows an INSERT brings.
    unsafe fn read_target(&mut self, query: *mut pg_sys::Query, command: Command) {
        // SAFETY: the live Query of the current level, which writes.
        unsafe {
            let index = (*query).resultRelation as u32;
            let rte: *mut pg_sys::RangeTblEntry = node::nth((*query).rtable, index as usize - 1);
            let Some(key) = (self.distribution)((*rte).relid) else {
                // A view with INSTEAD OF triggers: as a table, it is here only.
                self.facts.unshippable.push(Unshippable::LocalTable((*rte).relid));
                return;
            };
            let target = Column { level: query.addr(), relation: index, number: key.column };
            let is_nested = self.levels.len() > 1;
            let brings_row =
                matches!(command, Command::Insert | Command::Upsert) && !has_subquery_source(query);
            let table = (*rte).relid;
            self.facts.writes.push(Write { table, command, column: target, is_nested, brings_row });
            self.facts.unshippable.extend(crate::exec::triggers::unshippable(table, command));
            if is_nested {
                self.facts.unshippable.push(Unshippable::NestedWrite);
            } else {
                self.facts.target = Some((*rte).relid);
            }
            match (*query).commandType {
                pg_sys::CmdType::CMD_INSERT if is_nested => {
                    self.read_nested_insert(query, target, &key);
                }
                pg_sys::CmdType::CMD_INSERT => self.read_insert(query, target, &key),
                pg_sys::CmdType::CMD_UPDATE => self.read_assignments((*query).targetList, &key),
                pg_sys::CmdType::CMD_MERGE => {
                    for action in node::elements::<pg_sys::MergeAction>((*query).mergeActionList) {
                        match (*action).commandType {
                            pg_sys::CmdType::CMD_UPDATE => {
                                self.read_assignments((*action).targetList, &key)
                            }
                            pg_sys::CmdType::CMD_INSERT => {
                                // A row that MERGE inserts must land in the shard it is inserted on.
                                let value = target_of((*action).targetList, key.column);
                                let same = value
                                    .and_then(|value| self.column_of(value))
                                    .is_some_and(|column| {
                                        self.facts.equalities.routes(&[target]).is_empty()
                                            || self.facts.equalities.keys_of(column)
                                                == self.facts.equalities.keys_of(target)
                                    });
                                if !same {
                                    self.facts.unshippable.push(Unshippable::KeyChange);
                                }
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
            if !(*query).onConflict.is_null() {
                self.read_assignments((*(*query).onConflict).onConflictSet, &key);
            }
        }
    }

    unsafe fn read_assignments(&mut self, list: *mut pg_sys::List, key: &DistributionKey) {
        // SAFETY: a live target list.
        if unsafe { target_of(list, key.column) }.is_some() {
            self.facts.unshippable.push(Unshippable::KeyChange);
        }
    }

    unsafe fn read_insert(
        &mut self,
        query: *mut pg_sys::Query,
        target: Column,
        key: &DistributionKey,
    ) {
        // SAFETY: the live top Query, an INSERT.
        unsafe {
            let value = target_of((*query).targetList, key.column);
            let values = values_of(query).map(|(_, values)| values);
            if has_subquery_source(query) {
                self.facts.insert_source = InsertSource::Query;
                self.read_source_key(query, value, target);
                self.facts.keeps_key = value.is_some_and(|value| self.is_stored_key(query, value))
                    && !has_outer_join(query);
                return;
            }
            let Some(value) = value else {
                self.facts.null_key = true;
                let null = pg_sys::makeNullConst(key.type_oid, -1, key.collation);
                let key = self.own_key(null.cast(), key);
                self.facts.equalities.key(target, key);
                return;
            };
            if let Some(values) = values {
                let column = node::cast::<pg_sys::Var, _>(value, NodeTag::T_Var)
                    .map(|var| (*var).varattno as usize);
                let mut keys = Vec::new();
                for row in node::elements::<pg_sys::List>((*values).values_lists) {
                    let Some(number) = column else { break };
                    let own: *mut pg_sys::Node = node::nth(row, number - 1);
                    if !is_plain_value(own) {
                        break;
                    }
                    keys.push(self.own_key(own, key));
                }
                let complete = keys.len() == node::length((*values).values_lists);
                self.facts.insert_source =
                    InsertSource::Values(if complete { keys } else { Vec::new() });
                return;
            }
            if !is_plain_value(value) || is_assignment(value) {
                // A sub-query as the key, or parts of it: computed here, as any INSERT ... SELECT.
                self.facts.insert_source = InsertSource::Query;
                return;
            }
            let key = self.own_key(value, key);
            self.facts.null_key = self.prepared.hash_now(&key) == Some(None);
            self.facts.equalities.key(target, key);
        }
    }

    /// The key of the rows that a query brings equals the column it comes from, if no outer join may have made it
    /// NULL on the way.
    unsafe fn read_source_key(
        &mut self,
        query: *mut pg_sys::Query,
        value: Option<*mut pg_sys::Node>,
        target: Column,
    ) {
        // SAFETY: the live Query of the current level, an INSERT with a query as its source.
        unsafe {
            if let Some(column) = value.and_then(|value| self.column_of(value))
                && !has_outer_join(query)
            {
                self.facts.equalities.equal(column, target);
            }
        }
    }

    /// A column of a query is the distribution column of a table in its FROM, or below in that of a sub-query: each row
    /// stands for stored ones.
    unsafe fn is_stored_key(
        &self,
        mut query: *mut pg_sys::Query,
        mut value: *mut pg_sys::Node,
    ) -> bool {
        // SAFETY: a live Query and an expression of it; range table indexes and columns are those of the analyser.
        unsafe {
            loop {
                let Some(var) = node::cast::<pg_sys::Var, _>(strip_relabel(value), NodeTag::T_Var)
                else {
                    return false;
                };
                if (*var).varlevelsup != 0 || (*var).varattno <= 0 {
                    return false;
                }
                let rte: *mut pg_sys::RangeTblEntry =
                    node::nth((*query).rtable, (*var).varno as usize - 1);
                match (*rte).rtekind {
                    pg_sys::RTEKind::RTE_RELATION => {
                        return (self.distribution)((*rte).relid)
                            .is_some_and(|key| key.column == (*var).varattno);
                    }
                    pg_sys::RTEKind::RTE_JOIN => {
                        value = node::nth((*rte).joinaliasvars, (*var).varattno as usize - 1);
                    }
                    pg_sys::RTEKind::RTE_SUBQUERY => {
                        query = (*rte).subquery;
                        let outputs = node::elements::<pg_sys::TargetEntry>((*query).targetList);
                        let Some(output) =
                            outputs.into_iter().find(|it| (**it).resno == (*var).varattno)
                        else {
                            return false;
                        };
                        let is_grouped = !(*query).groupClause.is_null() || (*query).hasAggs;
                        let is_group_column =
                            node::elements::<pg_sys::SortGroupClause>((*query).groupClause)
                                .iter()
                                .any(|it| (**it).tleSortGroupRef == (*output).ressortgroupref);
                        if write_of(query).is_some()
                            || !(*query).setOperations.is_null()
                            || !(*query).groupingSets.is_null()
                            || is_grouped && !is_group_column
                        {
                            return false;
                        }
                        value = (*output).expr.cast();
                    }
                    _ => return false,
                }
            }
        }
    }

    /// The key of the rows of an INSERT in a WITH clause: one value for all of them, or a column of its source.
    unsafe fn read_nested_insert(
        &mut self,
        query: *mut pg_sys::Query,
        target: Column,
        key: &DistributionKey,
    ) {
        // SAFETY: the live Query of the current level, an INSERT.
        unsafe {
            let value = target_of((*query).targetList, key.column);
            if has_subquery_source(query) {
                return self.read_source_key(query, value, target);
            }
            let Some(mut value) = value else { return };
            if let Some((_, values)) = values_of(query) {
                let Some(var) = node::cast::<pg_sys::Var, _>(value, NodeTag::T_Var) else { return };
                let number = (*var).varattno as usize;
                let rows = node::elements::<pg_sys::List>((*values).values_lists);
                let Some(first) = rows.first() else { return };
                value = node::nth(*first, number - 1);
                let is_same = |row: &*mut pg_sys::List| {
                    pg_sys::equal(node::nth::<pg_sys::Node>(*row, number - 1).cast(), value.cast())
                };
                if !rows.iter().all(is_same) {
                    return;
                }
            }
            if is_plain_value(value) && !is_assignment(value) {
                let key = self.own_key(value, key);
                self.facts.equalities.key(target, key);
            }
        }
    }

    /// A key whose value has the column's own type.
    unsafe fn own_key(&mut self, value: *mut pg_sys::Node, key: &DistributionKey) -> Key {
        // SAFETY: a live expression without columns.
        let expression = unsafe { self.intern(value) };
        Key {
            expression,
            hash_type: key.type_oid,
            family: key.family,
            collation: key.collation,
            is_array: false,
        }
    }

    /// What a filter says of `column`.
    unsafe fn read_prune(
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
    unsafe fn prune_of(
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
    unsafe fn prune_of_tid(&mut self, clause: *mut pg_sys::Node, relation: u32) -> Prune<Key> {
        let own = |var: &pg_sys::Var| var.varno as u32 == relation;
        let init_params = self.init_params;
        // SAFETY: a live clause of the planner.
        unsafe {
            let can = |value: *mut pg_sys::Node| {
                node::tag(value) == NodeTag::T_Const || is_foldable(value, false, init_params)
            };
            match tid::comparison(clause, &own, &can) {
                Some(found) => Prune::Key(Key::of_tid(self.intern(found.value), found.is_array)),
                None => Prune::All,
            }
        }
    }

    unsafe fn prune_of_node(
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

/// An outer join somewhere in it, which may put NULL in the place of a column.
unsafe fn has_outer_join(query: *mut pg_sys::Query) -> bool {
    // SAFETY: the caller passes a live Query.
    unsafe {
        node::walk(query, &mut |n| {
            let join = node::cast::<pg_sys::JoinExpr, _>(n, NodeTag::T_JoinExpr);
            match join {
                Some(join) if (*join).jointype != pg_sys::JoinType::JOIN_INNER => Visit::Stop,
                _ => Visit::Into,
            }
        })
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
unsafe fn own_family(n: *mut pg_sys::Node) -> Option<Oid> {
    // SAFETY: the caller passes a live expression.
    unsafe {
        let var = node::cast::<pg_sys::Var, _>(strip_relabel(n), NodeTag::T_Var)?;
        crate::catalog::table::hash_family((*var).vartype).map(|(family, _)| family)
    }
}

/// The expression assigned to a column.
unsafe fn target_of(list: *mut pg_sys::List, column: i16) -> Option<*mut pg_sys::Node> {
    // SAFETY: the caller passes a live target list.
    unsafe {
        node::elements::<pg_sys::TargetEntry>(list)
            .into_iter()
            .find(|entry| !(**entry).resjunk && (**entry).resno == column)
            .map(|entry| (*entry).expr.cast())
    }
}

/// A filter on an output column may run below: nothing between depends on the rows it would remove.
unsafe fn passes_filters(query: *mut pg_sys::Query) -> bool {
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
