//! Where the rows of an INSERT come from, in one of three forms.
//!
//! The parser makes an INSERT with expressions only, with one VALUES list, or with one sub-query, and ruleutils prints these
//! three. The rewriter makes others: an INSERT that is the action of a rule has the FROM list of the statement that fires it
//! beside its own VALUES, and a rule's condition as its WHERE. Ruleutils refuses such a tree or leaves its condition out.
//! So we put the rows of every other INSERT into a sub-query, and all that follows meets the three forms only.

use crate::print::assigned::below_implicit_casts;
use crate::read::query::{Statement, writing_queries};
use crate::sys::error::PgError;
use crate::sys::node::{self, Visit};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag};
use std::collections::HashSet;

impl Statement {
    /// The statement with each INSERT in it in one of the three forms.
    pub fn with_plain_inserts(self) -> Result<Statement, PgError> {
        // SAFETY: a live Query of the planner hook; what is changed is a copy.
        unsafe {
            let is_plain = |query: *mut pg_sys::Query| {
                (*query).commandType != pg_sys::CmdType::CMD_INSERT || is_plain(query)
            };
            let query = self.parse;
            let nests = !(*query).cteList.is_null() && (*query).hasModifyingCTE;
            if is_plain(query) && (!nests || writing_queries(query).into_iter().all(is_plain)) {
                return Ok(self);
            }
            let own = node::copy(query);
            for query in writing_queries(own) {
                if !is_plain(query) {
                    take_rows_from_sub_query(query)?;
                }
            }
            Ok(Statement { parse: own })
        }
    }
}

/// The VALUES list from which an INSERT takes its rows, if it does, and its number in the range table.
///
/// # Safety
///
/// `query` is a live INSERT.
pub(crate) unsafe fn values_of(
    query: *mut pg_sys::Query,
) -> Option<(usize, *mut pg_sys::RangeTblEntry)> {
    // SAFETY: the caller vouches for the query; a reference in FROM is an index of the range table.
    unsafe {
        let item: *mut pg_sys::Node = match node::length((*(*query).jointree).fromlist) {
            1 => node::nth((*(*query).jointree).fromlist, 0),
            _ => return None,
        };
        let reference = node::cast::<pg_sys::RangeTblRef, _>(item, NodeTag::T_RangeTblRef)?;
        let number = (*reference).rtindex as usize;
        let rte: *mut pg_sys::RangeTblEntry = node::nth((*query).rtable, number - 1);
        ((*rte).rtekind == pg_sys::RTEKind::RTE_VALUES).then_some((number, rte))
    }
}

/// No FROM, or one VALUES list or sub-query there, and no other in the range table, where ruleutils looks for it.
unsafe fn is_plain(query: *mut pg_sys::Query) -> bool {
    // SAFETY: the caller passes a live INSERT.
    unsafe {
        let is_source = |rte: &*mut pg_sys::RangeTblEntry| {
            matches!((**rte).rtekind, pg_sys::RTEKind::RTE_SUBQUERY | pg_sys::RTEKind::RTE_VALUES)
        };
        let sources = (0..node::length((*query).rtable))
            .filter(|index| is_source(&node::nth((*query).rtable, *index)))
            .count();
        let from = (*(*query).jointree).fromlist;
        let is_one_source = || {
            let item: *mut pg_sys::Node = node::nth(from, 0);
            node::cast::<pg_sys::RangeTblRef, _>(item, NodeTag::T_RangeTblRef).is_some_and(
                |reference| {
                    is_source(&node::nth((*query).rtable, (*reference).rtindex as usize - 1))
                },
            )
        };
        (*(*query).jointree).quals.is_null()
            && match node::length(from) {
                0 => sources == 0,
                1 => sources == 1 && is_one_source(),
                _ => false,
            }
    }
}

/// Puts FROM, WHERE and the target list's expressions into a sub-query, from which the INSERT then takes its rows.
unsafe fn take_rows_from_sub_query(query: *mut pg_sys::Query) -> Result<(), PgError> {
    // SAFETY: the caller passes a private, live INSERT; the nodes are made with the structs of their tags.
    unsafe {
        let used = entries_of((*query).jointree);
        refuse_other_readers(query)?;
        let rows: *mut pg_sys::Query = node::make(NodeTag::T_Query);
        (*rows).commandType = pg_sys::CmdType::CMD_SELECT;
        (*rows).canSetTag = true;
        (*rows).jointree = (*query).jointree;
        (*rows).hasSubLinks = (*query).hasSubLinks;
        (*rows).hasTargetSRFs = (*query).hasTargetSRFs;
        (*rows).hasRowSecurity = (*query).hasRowSecurity;
        (*rows).cteList = (*query).cteList;
        (*rows).hasRecursive = (*query).hasRecursive;
        (*query).cteList = std::ptr::null_mut();
        (*query).hasRecursive = false;
        (*query).hasTargetSRFs = false;
        // Each entry keeps its number, and stands where it is used: there it is read, and its rights are checked once.
        let (mut above, mut below) = (Vec::new(), Vec::new());
        for (index, rte) in
            node::elements::<pg_sys::RangeTblEntry>((*query).rtable).into_iter().enumerate()
        {
            let is_below = used.contains(&(index + 1));
            // What a rule brings along is marked as not written in FROM, and would not be printed.
            (*rte).inFromCl |= is_below;
            if is_below {
                version::move_rights(rte, query, rows);
            }
            above.push(if is_below { no_entry() } else { rte });
            below.push(if is_below { rte } else { no_entry() });
        }
        (*rows).rtable = node::list_of(&below);
        let number = above.len() as i32 + 1;
        let (mut targets, mut names) = (Vec::new(), Vec::new());
        for entry in node::elements::<pg_sys::TargetEntry>((*query).targetList) {
            let place = below_implicit_casts(&raw mut (*entry).expr);
            let expr = (*place).cast::<pg_sys::Node>();
            let (column, name) = (targets.len() as i16 + 1, format!("column{}", targets.len() + 1));
            targets.push(pg_sys::makeTargetEntry(expr.cast(), column, node::c_text(&name), false));
            names.push(node::string_node(&name));
            let (type_oid, typmod) = (pg_sys::exprType(expr), pg_sys::exprTypmod(expr));
            let collation = pg_sys::exprCollation(expr);
            *place = pg_sys::makeVar(number, column, type_oid, typmod, collation, 0).cast();
        }
        (*rows).targetList = node::list_of(&targets);
        let source: *mut pg_sys::RangeTblEntry = node::make(NodeTag::T_RangeTblEntry);
        (*source).rtekind = pg_sys::RTEKind::RTE_SUBQUERY;
        (*source).subquery = rows;
        (*source).eref = pg_sys::makeAlias(c"*SELECT*".as_ptr(), node::list_of(&names));
        above.push(source);
        (*query).rtable = node::list_of(&above);
        let from: *mut pg_sys::RangeTblRef = node::make(NodeTag::T_RangeTblRef);
        (*from).rtindex = number;
        (*query).jointree = pg_sys::makeFromExpr(node::list_of(&[from]), std::ptr::null_mut());
        Ok(())
    }
}

/// The range table entries that FROM uses, by number.
unsafe fn entries_of(from: *mut pg_sys::FromExpr) -> HashSet<usize> {
    let mut used = HashSet::new();
    // SAFETY: the caller passes a live FROM; the walk enters no sub-query in it.
    unsafe {
        node::walk(from, &mut |n| {
            match node::tag(n) {
                NodeTag::T_RangeTblRef => {
                    used.insert((*n.cast::<pg_sys::RangeTblRef>()).rtindex as usize);
                }
                NodeTag::T_JoinExpr => {
                    used.insert((*n.cast::<pg_sys::JoinExpr>()).rtindex as usize);
                }
                NodeTag::T_Query => return Visit::Skip,
                _ => {}
            }
            Visit::Into
        });
    }
    used
}

/// RETURNING and ON CONFLICT can read the new row and the one that is there, but not the rows that were its source; and what
/// writes in WITH cannot go below.
unsafe fn refuse_other_readers(query: *mut pg_sys::Query) -> Result<(), PgError> {
    // SAFETY: the caller passes a live INSERT.
    unsafe {
        let conflict = (*query).onConflict;
        let excluded = if conflict.is_null() { 0 } else { (*conflict).exclRelIndex };
        let (target, has_names) = ((*query).resultRelation, !(*query).cteList.is_null());
        let reads_more = [(*query).returningList.cast::<pg_sys::Node>(), conflict.cast()]
            .into_iter()
            .any(|clause| {
                node::walk(clause, &mut |n| match node::tag(n) {
                    NodeTag::T_Var => {
                        let var = &*n.cast::<pg_sys::Var>();
                        let is_own = var.varno == target || var.varno == excluded;
                        if var.varlevelsup > 0 || is_own { Visit::Into } else { Visit::Stop }
                    }
                    // Its columns of this level, and the WITH clause's names, are not looked for.
                    NodeTag::T_SubLink if has_names => Visit::Stop,
                    NodeTag::T_Query => Visit::Skip,
                    _ => Visit::Into,
                })
            });
        if !reads_more && !(*query).hasModifyingCTE {
            return Ok(());
        }
        let rte: *mut pg_sys::RangeTblEntry = node::nth((*query).rtable, target as usize - 1);
        let name = node::text_of(pg_sys::get_rel_name((*rte).relid));
        Err(PgError::unsupported(
            format!("cannot insert into distributed table \"{name}\" by this rule"),
            "Use a trigger instead of the rule, or do without RETURNING and WITH.",
        ))
    }
}

/// An entry that nothing refers to.
unsafe fn no_entry() -> *mut pg_sys::RangeTblEntry {
    // SAFETY: made with the struct of its tag.
    unsafe {
        let rte: *mut pg_sys::RangeTblEntry = node::make(NodeTag::T_RangeTblEntry);
        (*rte).rtekind = pg_sys::RTEKind::RTE_RESULT;
        (*rte).eref = pg_sys::makeAlias(c"*RESULT*".as_ptr(), std::ptr::null_mut());
        rte
    }
}
