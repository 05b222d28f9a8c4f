//! What newer query trees say beside what older ones say: which outer joins may put NULLs in place of a column, and what
//! GROUP BY computes.

#[cfg(not(feature = "pg15"))]
use crate::sys::node::{self, Visit};
use pgrx::pg_sys;
#[cfg(not(feature = "pg15"))]
use pgrx::pg_sys::NodeTag;

/// Has a query and those below it say themselves what GROUP BY computes. Since PostgreSQL 18 the parser keeps it in an entry of
/// the range table, and what stands above grouping refers to that.
///
/// With `all`, also where grouping sets put NULLs in place of it. That tells the reader of a tree and who prints it no less;
/// the planner has to know.
///
/// # Safety
///
/// A private, live Query that the planner has not changed.
pub(crate) unsafe fn flatten_groups(query: *mut pg_sys::Query, all: bool) {
    #[cfg(not(feature = "pg18"))]
    {
        let _ = (query, all);
    }
    // SAFETY: the caller vouches for the query; each node is cast to the struct of its tag.
    #[cfg(feature = "pg18")]
    unsafe {
        let mut levels: Vec<*mut pg_sys::Query> = Vec::new();
        node::walk(query, &mut |n| {
            if let Some(level) = node::cast::<pg_sys::Query, _>(n, NodeTag::T_Query)
                && (*level).hasGroupRTE
                && (all || (*level).groupingSets.is_null())
            {
                levels.push(level);
            }
            Visit::Into
        });
        // Inner ones first: what is computed is copied, and may have queries in it.
        for level in levels.into_iter().rev() {
            let own = |part: *mut pg_sys::Node| -> *mut pg_sys::Node {
                pg_sys::flatten_group_exprs(std::ptr::null_mut(), level, part)
            };
            let (targets, having) = ((*level).targetList.cast(), (*level).havingQual);
            let (targets, having) = (own(targets), own(having));
            (*level).targetList = targets.cast();
            (*level).havingQual = having;
            (*level).hasGroupRTE = false;
            let entries = node::elements::<pg_sys::RangeTblEntry>((*level).rtable);
            let is_group = |entry: &&*mut pg_sys::RangeTblEntry| {
                (***entry).rtekind == pg_sys::RTEKind::RTE_GROUP
            };
            if entries.last().is_some_and(|last| is_group(&last)) {
                (*level).rtable = node::list_of(&entries[..entries.len() - 1]);
            }
            for entry in entries.iter().filter(is_group) {
                (**entry).rtekind = pg_sys::RTEKind::RTE_RESULT;
                (**entry).groupexprs = std::ptr::null_mut();
            }
        }
    }
}

/// Outputs of the query refer to what GROUP BY computes.
///
/// # Safety
///
/// A live Query.
pub(crate) unsafe fn has_group_entry(query: *const pg_sys::Query) -> bool {
    #[cfg(not(feature = "pg18"))]
    {
        let _ = query;
        false
    }
    // SAFETY: the caller vouches for the query.
    #[cfg(feature = "pg18")]
    unsafe {
        (*query).hasGroupRTE
    }
}

/// Takes out of an expression which outer joins may have put NULLs in place of a column, which the tree around it says too, and
/// whether the planner has rows sorted for an aggregate.
///
/// # Safety
///
/// A private, live node.
pub(crate) unsafe fn forget_nulling(n: *mut pg_sys::Node) {
    #[cfg(feature = "pg15")]
    {
        let _ = n;
    }
    // SAFETY: the caller vouches for the node, which is cast to the struct of its tag.
    #[cfg(not(feature = "pg15"))]
    unsafe {
        match node::tag(n) {
            NodeTag::T_Var => (*n.cast::<pg_sys::Var>()).varnullingrels = std::ptr::null_mut(),
            NodeTag::T_Aggref => (*n.cast::<pg_sys::Aggref>()).aggpresorted = false,
            NodeTag::T_PlaceHolderVar => {
                (*n.cast::<pg_sys::PlaceHolderVar>()).phnullingrels = std::ptr::null_mut();
            }
            _ => {}
        }
    }
}

/// Both compute the same, whatever they say of outer joins and grouping sets that may have put NULLs in place of columns: the
/// planner says so in some copies of an expression and not in others.
///
/// # Safety
///
/// Live expressions.
pub(crate) unsafe fn same_expression(one: *mut pg_sys::Node, other: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller vouches for both; what is changed are copies.
    unsafe {
        if pg_sys::equal(one.cast(), other.cast()) {
            return true;
        }
        #[cfg(feature = "pg15")]
        {
            false
        }
        #[cfg(not(feature = "pg15"))]
        {
            let plain = |n: *mut pg_sys::Node| {
                let copy = node::copy(n);
                node::walk(copy, &mut |n| {
                    forget_nulling(n);
                    Visit::Into
                });
                copy
            };
            pg_sys::equal(plain(one).cast(), plain(other).cast())
        }
    }
}

/// The relations of a set, without the outer joins that may be in it since PostgreSQL 16.
///
/// # Safety
///
/// Live structures of the planner.
pub(crate) unsafe fn relations_of(root: *mut pg_sys::PlannerInfo, set: pg_sys::Relids) -> Vec<u32> {
    let mut found = Vec::new();
    let mut relation = -1;
    loop {
        // SAFETY: the caller vouches for the set of relations, whose numbers are positive.
        relation = unsafe { pg_sys::bms_next_member(set, relation) };
        if relation < 0 {
            return found;
        }
        #[cfg(feature = "pg15")]
        let _ = root;
        #[cfg(not(feature = "pg15"))]
        // SAFETY: the caller vouches for the planner's structures.
        if unsafe { pg_sys::bms_is_member(relation, (*root).outer_join_rels) } {
            continue;
        }
        found.push(relation as u32);
    }
}

/// Has the columns in a query and in those below it say again which outer joins may put NULLs in their place, after its FROM
/// has been changed. Since PostgreSQL 16 the parser tells the planner so.
///
/// # Safety
///
/// A private, live Query that the planner has not changed.
pub(crate) unsafe fn settle_nulling(query: *mut pg_sys::Query) {
    #[cfg(feature = "pg15")]
    {
        let _ = query;
    }
    // SAFETY: the caller vouches for the query.
    #[cfg(not(feature = "pg15"))]
    unsafe {
        node::walk(query, &mut |n| {
            if let Some(level) = node::cast::<pg_sys::Query, _>(n, NodeTag::T_Query) {
                nulling::settle(level);
            }
            Visit::Into
        });
    }
}

#[cfg(not(feature = "pg15"))]
mod nulling {
    //! A clause stands somewhere in the tree of joins. An outer join puts NULLs in place of a column of its nullable side for
    //! whoever stands above the join, or beside it.

    use crate::sys::node::{self, Visit};
    use pgrx::pg_sys::{self, JoinType, NodeTag};
    use std::collections::HashMap;
    use std::ffi::c_int;

    /// The joins of a query.
    #[derive(Default)]
    struct Joins {
        /// For each relation the outer joins on whose nullable side it is.
        nulled_by: HashMap<c_int, Vec<c_int>>,
        /// For each relation or join those that it stands in.
        inside: HashMap<c_int, Vec<c_int>>,
        /// ON clauses, with their joins.
        clauses: Vec<(c_int, *mut pg_sys::Node)>,
    }

    impl Joins {
        /// Notes what is in a part of FROM, below the joins `inside`; the numbers of its relations and joins.
        unsafe fn read(&mut self, n: *mut pg_sys::Node, inside: &[c_int]) -> Vec<c_int> {
            // SAFETY: the caller passes a live part of FROM; each node is cast to the struct of its tag.
            unsafe {
                match node::tag(n) {
                    NodeTag::T_RangeTblRef => {
                        let number = (*n.cast::<pg_sys::RangeTblRef>()).rtindex;
                        self.inside.insert(number, inside.to_vec());
                        vec![number]
                    }
                    NodeTag::T_FromExpr => {
                        let from = n.cast::<pg_sys::FromExpr>();
                        if let Some(around) = inside.last() {
                            self.clauses.push((*around, (*from).quals));
                        }
                        let items = node::elements::<pg_sys::Node>((*from).fromlist);
                        items.into_iter().flat_map(|item| self.read(item, inside)).collect()
                    }
                    NodeTag::T_JoinExpr => self.read_join(n.cast(), inside),
                    _ => Vec::new(),
                }
            }
        }

        unsafe fn read_join(
            &mut self,
            join: *mut pg_sys::JoinExpr,
            inside: &[c_int],
        ) -> Vec<c_int> {
            // SAFETY: the caller passes a live join.
            unsafe {
                let number = (*join).rtindex;
                let below = [inside, &[number]].concat();
                let left = self.read((*join).larg, &below);
                let right = self.read((*join).rarg, &below);
                let (nulls_left, nulls_right) = match (*join).jointype {
                    JoinType::JOIN_LEFT => (false, true),
                    JoinType::JOIN_RIGHT => (true, false),
                    JoinType::JOIN_FULL => (true, true),
                    _ => (false, false),
                };
                for (side, is_nulled) in [(&left, nulls_left), (&right, nulls_right)] {
                    for relation in side.iter().filter(|_| is_nulled) {
                        self.nulled_by.entry(*relation).or_default().push(number);
                    }
                }
                self.clauses.push((number, (*join).quals));
                self.inside.insert(number, inside.to_vec());
                [left, right, vec![number]].concat()
            }
        }

        /// Sets it for the columns of the query's own level in a clause that stands inside these joins.
        unsafe fn mark(&self, clause: *mut pg_sys::Node, inside: &[c_int]) {
            let mut todo = vec![(clause, 0)];
            // SAFETY: the caller passes a private, live clause; each node is cast to the struct of its tag.
            unsafe {
                while let Some((here, level)) = todo.pop() {
                    node::walk(here, &mut |n| {
                        match node::tag(n) {
                            NodeTag::T_Query if n != here => {
                                todo.push((n, level + 1));
                                return Visit::Skip;
                            }
                            NodeTag::T_Var => self.mark_column(n.cast(), level, inside),
                            _ => {}
                        }
                        Visit::Into
                    });
                }
            }
        }

        unsafe fn mark_column(&self, var: *mut pg_sys::Var, level: u32, inside: &[c_int]) {
            // SAFETY: the caller passes a private, live column.
            unsafe {
                let is_known = self.inside.contains_key(&(*var).varno);
                if (*var).varlevelsup != level || !is_known {
                    return;
                }
                let nulled_by = self.nulled_by.get(&(*var).varno);
                (*var).varnullingrels = nulled_by
                    .into_iter()
                    .flatten()
                    .filter(|join| !inside.contains(join))
                    .fold(std::ptr::null_mut(), |set, join| pg_sys::bms_add_member(set, *join));
            }
        }
    }

    /// Sets it for the columns of one query, wherever they stand.
    pub(super) unsafe fn settle(query: *mut pg_sys::Query) {
        // SAFETY: the caller passes a private, live Query.
        unsafe {
            if (*query).jointree.is_null() {
                return;
            }
            let mut joins = Joins::default();
            joins.read((*query).jointree.cast(), &[]);
            for (join, clause) in &joins.clauses {
                let inside = [&joins.inside[join][..], &[*join]].concat();
                if !clause.is_null() {
                    joins.mark(*clause, &inside);
                }
            }
            let entries = node::elements::<pg_sys::RangeTblEntry>((*query).rtable);
            for (number, entry) in (1..).zip(entries) {
                let nowhere = Vec::new();
                let inside = joins.inside.get(&number).unwrap_or(&nowhere);
                let parts: [*mut pg_sys::Node; 6] = [
                    (*entry).subquery.cast(),
                    (*entry).functions.cast(),
                    (*entry).values_lists.cast(),
                    (*entry).tablefunc.cast(),
                    (*entry).tablesample.cast(),
                    (*entry).joinaliasvars.cast(),
                ];
                for part in parts.into_iter().filter(|part| !part.is_null()) {
                    joins.mark_entry(part, inside);
                }
            }
            let above: [*mut pg_sys::Node; 8] = [
                (*query).targetList.cast(),
                (*query).returningList.cast(),
                (*query).havingQual,
                (*(*query).jointree).quals,
                (*query).limitOffset,
                (*query).limitCount,
                (*query).windowClause.cast(),
                (*query).mergeActionList.cast(),
            ];
            for part in above.into_iter().filter(|part| !part.is_null()) {
                joins.mark(part, &[]);
            }
        }
    }

    impl Joins {
        /// The same for what a relation computes: a sub-query is a level further down.
        unsafe fn mark_entry(&self, part: *mut pg_sys::Node, inside: &[c_int]) {
            // SAFETY: the caller passes a private, live part of an entry.
            unsafe {
                if node::tag(part) == NodeTag::T_Query {
                    let list = node::list_of(&[part]);
                    self.mark(list.cast(), inside);
                } else {
                    self.mark(part, inside);
                }
            }
        }
    }
}
