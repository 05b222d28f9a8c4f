//! A correlated sub-query as a relation that is joined: its values by the columns that the correlation compares.

use crate::extension::extension;
use crate::read::infallible::{is_infallible, is_infallible_aggregate};
use crate::read::query::Statement;
use crate::rewrite::correlation::{
    self, Correlation, and, conjuncts_of, has_sublink, refers_above,
};
use crate::sys::node::{self, Visit};
use crate::sys::value::FIRST_USER_OID;
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::ffi::c_int;

mod raw {
    //! Not among pgrx' bindings, so without its guard: the caller puts it around.
    use pgrx::pg_sys;
    use std::ffi::c_int;
    unsafe extern "C-unwind" {
        /// Guarded.
        pub(super) fn IncrementVarSublevelsUp(node: *mut pg_sys::Node, delta: c_int, least: c_int);
    }
}

/// `int8 <= int8`, `src/include/catalog/pg_operator.dat`.
const INT8_LESS_OR_EQUAL: u32 = 414;

/// A sub-query that is going to be joined.
pub(crate) struct Moved<'a> {
    query: *mut pg_sys::Query,
    below: *mut pg_sys::Query,
    correlations: Vec<Correlation>,
    /// Its other conditions.
    kept: *mut pg_sys::Node,
    /// Groups that have been joined.
    grouped: &'a mut Vec<Grouped>,
}

/// Groups that have been joined, to which aggregates of the same rows can be added.
pub(crate) struct Grouped {
    /// The sub-query as it was, without its SELECT list.
    origin: *mut pg_sys::Query,
    below: *mut pg_sys::Query,
    relation: c_int,
}

impl<'a> Moved<'a> {
    /// The sub-query, if it can be computed of all rows and equalities alone tie it to the query around. Its SELECT list is
    /// not looked at.
    ///
    /// # Safety
    ///
    /// A private query and a sub-query of it, one level deeper.
    pub(crate) unsafe fn of(
        query: *mut pg_sys::Query,
        below: *mut pg_sys::Query,
        grouped: &'a mut Vec<Grouped>,
        is_distributed: &dyn Fn(Oid) -> bool,
    ) -> Option<Self> {
        // SAFETY: the caller vouches for both.
        unsafe {
            if !(Statement { parse: below }).tables().into_iter().any(is_distributed)
                || !correlation::is_simple(below)
                || correlation::is_guarded(below)
            {
                return None;
            }
            let (correlations, kept) = correlation::split(below)?;
            let list = std::mem::replace(&mut (*below).targetList, std::ptr::null_mut());
            let safe = is_infallible(below);
            (*below).targetList = list;
            safe.then_some(Self { query, below, correlations, kept, grouped })
        }
    }

    /// The test holds for all relations of the query around that the sub-query is tied to.
    pub(crate) unsafe fn belongs_to(&self, test: &mut dyn FnMut(c_int) -> bool) -> bool {
        // SAFETY: as in `exists`.
        unsafe {
            self.correlations.iter().all(|one| {
                let outer: *mut pg_sys::Node = node::nth((*one.clause).args, 1 - one.inner);
                !node::walk(outer, &mut |n| {
                    let var = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var);
                    if var.is_some_and(|var| !test((*var).varno)) {
                        Visit::Stop
                    } else {
                        Visit::Into
                    }
                })
            })
        }
    }

    pub(super) unsafe fn exists(self) -> Option<*mut pg_sys::Node> {
        // SAFETY: the private sub-query of a sub-link.
        unsafe {
            if (*self.below).hasAggs || limit_of(self.below).is_none_or(|limit| limit < 1) {
                return None;
            }
            let Joined { key, .. } = self.join(&[], Way::Groups);
            Some(is_there(key))
        }
    }

    pub(super) unsafe fn aggregates(self) -> Option<*mut pg_sys::Node> {
        // SAFETY: as in `exists`; nodes are made with the structs of their tags.
        unsafe {
            let value = self.value()?;
            if !(*self.below).limitCount.is_null() || !(*self.below).distinctClause.is_null() {
                return None;
            }
            let mut aggregates: Vec<*mut pg_sys::Node> = Vec::new();
            let unknown = node::walk(value, &mut |n| match node::tag(n) {
                NodeTag::T_Aggref => {
                    let aggregate = n.cast::<pg_sys::Aggref>();
                    if (*aggregate).agglevelsup != 0
                        || !is_infallible_aggregate(aggregate)
                        || !is_infallible((*aggregate).args)
                        || !is_infallible((*aggregate).aggfilter)
                        || refers_above(n, 0)
                    {
                        return Visit::Stop;
                    }
                    if !aggregates.iter().any(|known| pg_sys::equal(known.cast(), n.cast())) {
                        aggregates.push(n);
                    }
                    Visit::Skip
                }
                NodeTag::T_GroupingFunc | NodeTag::T_SubLink => Visit::Stop,
                _ => Visit::Into,
            });
            if unknown || aggregates.is_empty() {
                return None;
            }
            let joined = self.join(&aggregates, Way::Groups);
            Some(joined.computed(value, &aggregates))
        }
    }

    pub(super) unsafe fn only_row(self) -> Option<*mut pg_sys::Node> {
        // SAFETY: as in `exists`.
        unsafe {
            if !(*self.below).distinctClause.is_null() || !self.is_unique() {
                return None;
            }
            self.row(Way::Rows)
        }
    }

    pub(super) unsafe fn first_row(self) -> Option<*mut pg_sys::Node> {
        // SAFETY: as in `exists`.
        unsafe {
            if !(*self.below).distinctClause.is_null() || limit_of(self.below) != Some(1) {
                return None;
            }
            let way = self.first_rows(1)?;
            self.row(way)
        }
    }

    /// The first rows for each value, if what they are sorted by can be computed of all rows.
    pub(crate) unsafe fn first_rows(&self, many: i64) -> Option<Way> {
        // SAFETY: as in `exists`.
        unsafe {
            let mut sorted_by = Vec::new();
            for clause in node::elements::<pg_sys::SortGroupClause>((*self.below).sortClause) {
                let target = node::elements::<pg_sys::TargetEntry>((*self.below).targetList)
                    .into_iter()
                    .find(|target| (**target).ressortgroupref == (*clause).tleSortGroupRef)?;
                let expression: *mut pg_sys::Node = (*target).expr.cast();
                if !is_infallible(expression)
                    || refers_above(expression, 0)
                    || has_sublink(expression.cast())
                {
                    return None;
                }
                sorted_by.push(target);
            }
            Some(Way::First(many, sorted_by))
        }
    }

    /// The value that is computed of a row, with columns of the row that is joined.
    unsafe fn row(self, way: Way) -> Option<*mut pg_sys::Node> {
        // SAFETY: as in `exists`.
        unsafe {
            let value = self.value()?;
            let mut columns: Vec<*mut pg_sys::Node> = Vec::new();
            let unknown = node::walk(value, &mut |n| match node::tag(n) {
                NodeTag::T_Var => {
                    let var = n.cast::<pg_sys::Var>();
                    if (*var).varlevelsup > 0 {
                        return Visit::Into;
                    }
                    if (*var).varattno <= 0 {
                        return Visit::Stop;
                    }
                    if !columns.iter().any(|known| pg_sys::equal(known.cast(), n.cast())) {
                        columns.push(n);
                    }
                    Visit::Into
                }
                NodeTag::T_Aggref | NodeTag::T_GroupingFunc | NodeTag::T_SubLink => Visit::Stop,
                _ => Visit::Into,
            });
            if unknown {
                return None;
            }
            let is_column = node::tag(value) == NodeTag::T_Var && !columns.is_empty();
            let value = lifted(value, &columns);
            let Joined { key, columns, .. } = self.join(&columns, way);
            let value = filled_in(value, &|place| node::copy(columns[place]));
            if is_column {
                return Some(value);
            }
            // Of no row there is no value, whatever would be computed of NULLs.
            let when: *mut pg_sys::CaseWhen = node::make(NodeTag::T_CaseWhen);
            (*when).expr = is_there(key).cast();
            (*when).result = value.cast();
            (*when).location = -1;
            let case: *mut pg_sys::CaseExpr = node::make(NodeTag::T_CaseExpr);
            (*case).casetype = pg_sys::exprType(value);
            (*case).casecollid = pg_sys::exprCollation(value);
            (*case).args = node::list_of(&[when]);
            (*case).defresult = pg_sys::makeNullConst(
                (*case).casetype,
                pg_sys::exprTypmod(value),
                (*case).casecollid,
            )
            .cast();
            (*case).location = -1;
            Some(case.cast())
        }
    }

    /// What the sub-query yields, if that is one value.
    unsafe fn value(&self) -> Option<*mut pg_sys::Node> {
        // SAFETY: as in `exists`.
        unsafe {
            let mut seen = node::elements::<pg_sys::TargetEntry>((*self.below).targetList)
                .into_iter()
                .filter(|target| !(**target).resjunk);
            let (first, more) = (seen.next()?, seen.next());
            let value: *mut pg_sys::Node = (*first).expr.cast();
            let fits = more.is_none()
                && !pg_sys::contain_volatile_functions(value)
                && !has_sublink(value.cast());
            fits.then_some(value)
        }
    }

    /// No two rows agree in the columns that are compared, by an index of the only table.
    unsafe fn is_unique(&self) -> bool {
        // SAFETY: as in `exists`.
        unsafe {
            let from = (*(*self.below).jointree).fromlist;
            if node::length(from) != 1 {
                return false;
            }
            let item: *mut pg_sys::Node = node::nth(from, 0);
            let Some(item) = node::cast::<pg_sys::RangeTblRef, _>(item, NodeTag::T_RangeTblRef)
            else {
                return false;
            };
            let number = (*item).rtindex;
            let entry: *mut pg_sys::RangeTblEntry =
                node::nth((*self.below).rtable, number as usize - 1);
            if (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION {
                return false;
            }
            let Some(key) = extension().distribution((*entry).relid) else { return false };
            let is_whole = extension().shard_count((*entry).relid) == 1;
            let compared: Vec<i16> = self
                .correlations
                .iter()
                .filter_map(|correlation| {
                    let side: *mut pg_sys::Node =
                        node::nth((*correlation.clause).args, correlation.inner);
                    let var = node::cast::<pg_sys::Var, _>(
                        crate::read::facts::strip_relabel(side),
                        NodeTag::T_Var,
                    )?;
                    let same = (*var).varlevelsup == 0
                        && (*var).varno == number
                        && pg_sys::op_mergejoinable(
                            (*correlation.clause).opno,
                            pg_sys::exprType(side),
                        );
                    same.then_some((*var).varattno)
                })
                .collect();
            crate::catalog::table::row_identities((*entry).relid).iter().any(|columns| {
                (is_whole || columns.contains(&key.column))
                    && columns.iter().all(|column| compared.contains(column))
            })
        }
    }

    /// Makes the sub-query a relation of the query around, with `values` for columns, and joins it by what tied it.
    unsafe fn join(self, values: &[*mut pg_sys::Node], way: Way) -> Joined {
        // SAFETY: as in `exists`.
        unsafe {
            let origin = matches!(way, Way::Groups).then(|| without_list(self.below));
            if let Some(origin) = origin
                && let Some(known) = self
                    .grouped
                    .iter()
                    .find(|known| pg_sys::equal(known.origin.cast(), origin.cast()))
            {
                return known.with(self.query, self.below, values);
            }
            let (joined, on) = self.relation(values, way);
            join_to_all(self.query, joined.relation, on);
            if let Some(origin) = origin {
                let Joined { relation, .. } = joined;
                self.grouped.push(Grouped { origin, below: self.below, relation });
            }
            joined
        }
    }

    /// The same without the join: what it is to be joined on.
    pub(crate) unsafe fn relation(
        &self,
        values: &[*mut pg_sys::Node],
        way: Way,
    ) -> (Joined, *mut pg_sys::Node) {
        // SAFETY: as in `exists`; nodes are made with the structs of their tags.
        unsafe {
            let Self { query, below, kept, .. } = *self;
            let correlations = &self.correlations;
            (*(*below).jointree).quals = kept;
            let keys: Vec<*mut pg_sys::Node> = correlations
                .iter()
                .map(|one| node::copy(node::nth::<pg_sys::Node>((*one.clause).args, one.inner)))
                .collect();
            // The first key comes first: `is_there` looks at it.
            let all: Vec<*mut pg_sys::Node> = keys.iter().chain(values).copied().collect();
            let mut list = Vec::new();
            for expression in &all {
                list.push(target(&list, *expression));
            }
            // What is grouped by has numbers of its own, beside those of what is sorted by.
            let free = node::elements::<pg_sys::TargetEntry>((*below).targetList)
                .into_iter()
                .map(|entry| (*entry).ressortgroupref)
                .max()
                .unwrap_or(0);
            let mut groups = Vec::new();
            for (number, entry) in (free + 1..).zip(&list[..keys.len()]) {
                (**entry).ressortgroupref = number;
                groups.push(grouped_by(*entry));
            }
            let is_made_first = !matches!(way, Way::Rows);
            let limit = match way {
                Way::Groups => {
                    (*below).groupClause = node::list_of(&groups);
                    (*below).sortClause = std::ptr::null_mut();
                    None
                }
                Way::Rows => {
                    for entry in &list {
                        (**entry).ressortgroupref = 0;
                    }
                    (*below).sortClause = std::ptr::null_mut();
                    None
                }
                Way::First(many, sorted_by) => {
                    let window: *mut pg_sys::WindowClause = node::make(NodeTag::T_WindowClause);
                    (*window).partitionClause = node::list_of(&groups);
                    (*window).orderClause =
                        std::mem::replace(&mut (*below).sortClause, std::ptr::null_mut());
                    (*window).frameOptions = pg_sys::FRAMEOPTION_DEFAULTS as c_int;
                    (*window).winref = 1;
                    (*below).windowClause = node::list_of(&[window]);
                    (*below).hasWindowFuncs = true;
                    let place: *mut pg_sys::WindowFunc = node::make(NodeTag::T_WindowFunc);
                    (*place).winfnoid = Oid::from(pg_sys::F_ROW_NUMBER);
                    (*place).wintype = pg_sys::INT8OID;
                    (*place).winref = 1;
                    (*place).location = -1;
                    list.push(target(&list, place.cast()));
                    let number = list.len();
                    for entry in sorted_by {
                        let own = target(&list, (*entry).expr.cast());
                        (*own).ressortgroupref = (*entry).ressortgroupref;
                        (*own).resjunk = true;
                        list.push(own);
                    }
                    Some((number, many))
                }
            };
            (*below).targetList = node::list_of(&list);
            (*below).distinctClause = std::ptr::null_mut();
            (*below).hasDistinctOn = false;
            (*below).limitCount = std::ptr::null_mut();

            // What is made for values that the query around asks for only.
            let others = conjuncts_of((*(*query).jointree).quals)
                .into_iter()
                .filter(|other| !has_sublink(other.cast()))
                .collect::<Vec<_>>();
            if is_made_first
                && let Some(asked) = correlation::restriction(query, correlations, &others)
            {
                (*(*below).jointree).quals = and((*(*below).jointree).quals, asked);
                (*below).hasSubLinks = true;
            }
            let relation = correlation::add_relation(query, below);
            let column = |index: usize| correlation::column(below, relation, index);
            let mut on = std::ptr::null_mut();
            for (index, correlation) in correlations.iter().enumerate() {
                let clause: *mut pg_sys::OpExpr = node::copy(correlation.clause);
                let outer: *mut pg_sys::Node = node::nth((*clause).args, 1 - correlation.inner);
                lift(outer);
                correlation::replace_argument(clause, correlation.inner, column(index));
                on = and(on, clause.cast());
            }
            if let Some((number, many)) = limit {
                let first = pg_sys::make_opclause(
                    Oid::from(INT8_LESS_OR_EQUAL),
                    pg_sys::BOOLOID,
                    false,
                    column(number - 1).cast(),
                    int8(many).cast(),
                    Oid::INVALID,
                    Oid::INVALID,
                );
                pg_sys::set_opfuncid(first.cast());
                on = and(on, first.cast());
            }
            let columns = (keys.len()..all.len()).map(column).collect();
            (Joined { relation, key: column(0), columns }, on)
        }
    }
}

impl Grouped {
    /// With columns for these aggregates of `other`, which is the same but for its SELECT list.
    unsafe fn with(
        &self,
        query: *mut pg_sys::Query,
        other: *mut pg_sys::Query,
        aggregates: &[*mut pg_sys::Node],
    ) -> Joined {
        // SAFETY: private queries with equal range tables.
        unsafe {
            let below = self.below;
            (*below).hasAggs |= !aggregates.is_empty();
            let entry: *mut pg_sys::RangeTblEntry =
                node::nth((*query).rtable, self.relation as usize - 1);
            let pairs = node::elements::<pg_sys::RangeTblEntry>((*below).rtable)
                .into_iter()
                .zip(node::elements::<pg_sys::RangeTblEntry>((*other).rtable));
            for (own, others) in pairs {
                version::add_selected((below, own), (other, others));
            }
            let mut columns = Vec::new();
            for aggregate in aggregates {
                let list: Vec<*mut pg_sys::TargetEntry> = node::elements((*below).targetList);
                let known = list
                    .iter()
                    .position(|own| pg_sys::equal((**own).expr.cast(), (*aggregate).cast()));
                let index = known.unwrap_or_else(|| {
                    let own = target(&list, *aggregate);
                    (*below).targetList = pg_sys::lappend((*below).targetList, own.cast());
                    let name = node::string_node(&format!("column{}", (*own).resno));
                    (*(*entry).eref).colnames =
                        pg_sys::lappend((*(*entry).eref).colnames, name.cast());
                    list.len()
                });
                columns.push(correlation::column(below, self.relation, index));
            }
            Joined {
                relation: self.relation,
                key: correlation::column(below, self.relation, 0),
                columns,
            }
        }
    }
}

/// A copy to tell whether two sub-queries are of the same rows.
unsafe fn without_list(below: *mut pg_sys::Query) -> *mut pg_sys::Query {
    // SAFETY: a live query; the copy is private.
    unsafe {
        let copy: *mut pg_sys::Query = node::copy(below);
        (*copy).targetList = std::ptr::null_mut();
        (*copy).sortClause = std::ptr::null_mut();
        (*copy).distinctClause = std::ptr::null_mut();
        (*copy).limitCount = std::ptr::null_mut();
        (*copy).hasDistinctOn = false;
        (*copy).hasAggs = false;
        for entry in node::elements::<pg_sys::RangeTblEntry>((*copy).rtable) {
            version::clear_selected(copy, entry);
        }
        copy
    }
}

/// How rows of the sub-query become one for each value.
pub(crate) enum Way {
    /// They are grouped.
    Groups,
    /// There is one at most.
    Rows,
    /// The first so many, sorted by these.
    First(i64, Vec<*mut pg_sys::TargetEntry>),
}

/// A sub-query that has been made a relation.
pub(crate) struct Joined {
    /// Its number.
    pub(crate) relation: c_int,
    /// The first column that it is joined by.
    key: *mut pg_sys::Node,
    /// What has been asked for.
    pub(crate) columns: Vec<*mut pg_sys::Node>,
}

impl Joined {
    /// What is computed of the aggregates, for the query around: those that count are 0 of no rows.
    pub(crate) unsafe fn computed(
        &self,
        value: *mut pg_sys::Node,
        aggregates: &[*mut pg_sys::Node],
    ) -> *mut pg_sys::Node {
        // SAFETY: a live expression of live aggregates; the node is made with the struct of its tag.
        unsafe {
            filled_in(lifted(value, aggregates), &|place| {
                let column: *mut pg_sys::Node = node::copy(self.columns[place]);
                if !counts(aggregates[place].cast()) {
                    return column;
                }
                let count: *mut pg_sys::CoalesceExpr = node::make(NodeTag::T_CoalesceExpr);
                (*count).coalescetype = pg_sys::INT8OID;
                (*count).args = node::list_of(&[column, int8(0)]);
                (*count).location = -1;
                count.cast()
            })
        }
    }
}

/// `key IS NOT NULL`: a row has matched, since equalities with NULL do not hold.
unsafe fn is_there(key: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: the node is made with the struct of its tag.
    unsafe {
        let test: *mut pg_sys::NullTest = node::make(NodeTag::T_NullTest);
        (*test).arg = node::copy(key).cast();
        (*test).nulltesttype = pg_sys::NullTestType::IS_NOT_NULL;
        (*test).location = -1;
        test.cast()
    }
}

/// What LIMIT says: a constant; many if there is none.
pub(crate) unsafe fn limit_of(below: *mut pg_sys::Query) -> Option<i64> {
    // SAFETY: a live query.
    unsafe {
        if (*below).limitCount.is_null() {
            return Some(i64::MAX);
        }
        if (*below).limitOption != pg_sys::LimitOption::LIMIT_OPTION_COUNT {
            return None;
        }
        let count =
            pg_sys::eval_const_expressions(std::ptr::null_mut(), node::copy((*below).limitCount));
        let count = node::cast::<pg_sys::Const, _>(count, NodeTag::T_Const)?;
        (!(*count).constisnull).then(|| (*count).constvalue.value() as i64)
    }
}

/// It is not NULL but 0 of no rows.
unsafe fn counts(aggregate: *mut pg_sys::Aggref) -> bool {
    // SAFETY: a live aggregate; a syscache look-up by value.
    unsafe {
        let name = node::text_of(pg_sys::get_func_name((*aggregate).aggfnoid));
        (*aggregate).aggfnoid.to_u32() < FIRST_USER_OID && name == "count"
    }
}

/// A copy that belongs to the query around, in which these parts are parameters, numbered from zero.
unsafe fn lifted(value: *mut pg_sys::Node, parts: &[*mut pg_sys::Node]) -> *mut pg_sys::Node {
    // SAFETY: a live expression without sub-links, which has no such parameters of its own; nodes are made with the structs
    // of their tags.
    unsafe {
        let copy = node::rewrite(value, &mut |n| {
            let place = parts.iter().position(|known| pg_sys::equal(known.cast(), n.cast()))?;
            let param: *mut pg_sys::Param = node::make(NodeTag::T_Param);
            (*param).paramkind = pg_sys::ParamKind::PARAM_SUBLINK;
            (*param).paramid = place as c_int;
            (*param).paramtype = pg_sys::exprType(n);
            (*param).paramtypmod = pg_sys::exprTypmod(n);
            (*param).paramcollid = pg_sys::exprCollation(n);
            (*param).location = -1;
            Some(param.cast())
        });
        lift(copy);
        copy
    }
}

/// The expression with something for each of the parameters of `lifted`.
unsafe fn filled_in(
    value: *mut pg_sys::Node,
    of: &dyn Fn(usize) -> *mut pg_sys::Node,
) -> *mut pg_sys::Node {
    // SAFETY: what `lifted` made.
    unsafe {
        node::rewrite(value, &mut |n| {
            let param = node::cast::<pg_sys::Param, _>(n, NodeTag::T_Param)
                .filter(|param| (**param).paramkind == pg_sys::ParamKind::PARAM_SUBLINK)?;
            Some(of((*param).paramid as usize))
        })
    }
}

fn int8(number: i64) -> *mut pg_sys::Node {
    let value = pg_sys::Datum::from(number);
    // SAFETY: a value that is its datum.
    unsafe { pg_sys::makeConst(pg_sys::INT8OID, -1, Oid::INVALID, 8, value, false, true).cast() }
}

/// What belonged to the sub-query belongs to the query around.
unsafe fn lift(expression: *mut pg_sys::Node) {
    // SAFETY: a private expression; the closure holds nothing to drop.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| raw::IncrementVarSublevelsUp(expression, -1, 1));
    }
}

unsafe fn target(
    list: &[*mut pg_sys::TargetEntry],
    expression: *mut pg_sys::Node,
) -> *mut pg_sys::TargetEntry {
    let number = list.len() + 1;
    let name = node::c_text(&format!("column{number}"));
    // SAFETY: a live expression.
    unsafe { pg_sys::makeTargetEntry(expression.cast(), number as i16, name, false) }
}

unsafe fn grouped_by(entry: *mut pg_sys::TargetEntry) -> *mut pg_sys::SortGroupClause {
    // SAFETY: a live entry, whose type has what `correlation::split` has looked for.
    unsafe {
        let known = pg_sys::lookup_type_cache(
            pg_sys::exprType((*entry).expr.cast()),
            (pg_sys::TYPECACHE_EQ_OPR | pg_sys::TYPECACHE_LT_OPR) as c_int,
        );
        let clause: *mut pg_sys::SortGroupClause = node::make(NodeTag::T_SortGroupClause);
        (*clause).tleSortGroupRef = (*entry).ressortgroupref;
        (*clause).eqop = (*known).eq_opr;
        (*clause).sortop = (*known).lt_opr;
        (*clause).hashable = true;
        clause
    }
}

/// `FROM (all that is there) LEFT JOIN relation ON on`.
pub(crate) unsafe fn join_to_all(
    query: *mut pg_sys::Query,
    relation: c_int,
    on: *mut pg_sys::Node,
) {
    // SAFETY: a private query; nodes are made with the structs of their tags. The join's entry names no columns, since
    // nothing refers to it.
    unsafe {
        let entry: *mut pg_sys::RangeTblEntry = node::make(NodeTag::T_RangeTblEntry);
        (*entry).rtekind = pg_sys::RTEKind::RTE_JOIN;
        (*entry).jointype = pg_sys::JoinType::JOIN_LEFT;
        (*entry).eref =
            pg_sys::makeAlias(c"unnamed_join".as_ptr(), std::ptr::null_mut::<pg_sys::List>());
        (*entry).inFromCl = true;
        (*query).rtable = pg_sys::lappend((*query).rtable, entry.cast());
        let right: *mut pg_sys::RangeTblRef = node::make(NodeTag::T_RangeTblRef);
        (*right).rtindex = relation;
        let tree = (*query).jointree;
        let join: *mut pg_sys::JoinExpr = node::make(NodeTag::T_JoinExpr);
        (*join).jointype = pg_sys::JoinType::JOIN_LEFT;
        (*join).larg = if node::length((*tree).fromlist) == 1 {
            node::nth((*tree).fromlist, 0)
        } else {
            pg_sys::makeFromExpr((*tree).fromlist, std::ptr::null_mut()).cast()
        };
        (*join).rarg = right.cast();
        (*join).quals = on;
        (*join).rtindex = node::length((*query).rtable) as c_int;
        (*tree).fromlist = node::list_of(&[join]);
    }
}
