//! One form for all query trees that mean the same, so that PostgreSQL's `equal` tells whether two of them do.
//!
//! The analyser makes a tree of a text; the rewriter and this crate change trees. Two trees of one meaning then differ in what
//! carries none: the order of the range table and the entries in it that nothing refers to, the names of columns that have
//! been resolved, columns of joins instead of those of their inputs, the numbers that connect ORDER BY with outputs, rights,
//! flags that tell what a tree contains. All that goes; whatever is left counts, also what nobody has thought of here.

use crate::read::partitioned::give_partitions_back;
use crate::sys::node::{self, Visit};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag};
use std::ffi::c_int;
use std::ptr::null_mut;

/// A private copy of the query in that form; its constant expressions computed, if `folded`, since a cast of a constant may
/// be printed as a constant.
///
/// # Safety
///
/// A live Query as the analyser, the rewriter or this crate made it: not planned yet.
pub(crate) unsafe fn canonical(query: *mut pg_sys::Query, folded: bool) -> *mut pg_sys::Query {
    // SAFETY: the caller vouches for the query; the copy is private.
    unsafe {
        let own = node::copy(query);
        version::flatten_groups(own, true);
        settle(own, folded);
        own
    }
}

/// Brings a query and those below it into the form, in place.
unsafe fn settle(query: *mut pg_sys::Query, folded: bool) {
    node::check_depth();
    // SAFETY: the caller passes a private, live Query; each node is cast to the struct of its tag.
    unsafe {
        let entries = node::elements::<pg_sys::RangeTblEntry>((*query).rtable);
        if entries.iter().any(|entry| (**entry).rtekind == pg_sys::RTEKind::RTE_JOIN) {
            replace_parts(query, &|part| version::flatten_joins(query, part));
        }
        replace_parts(query, &|part| without_lengths(part));
        if folded {
            replace_parts(query, &|part| pg_sys::eval_const_expressions(null_mut(), part));
        }
        number_entries(query);
        for below in queries_below(query) {
            settle(below, folded);
        }
        settle_nodes(query);
        settle_sorting(query);
        settle_targets(query);
        settle_flags(query);
    }
}

/// Replaces what of a query has expressions of its own level in it.
///
/// # Safety
///
/// A private, live Query; a part is replaced by one of its kind.
pub(crate) unsafe fn replace_parts(
    query: *mut pg_sys::Query,
    replaced: &dyn Fn(*mut pg_sys::Node) -> *mut pg_sys::Node,
) {
    // SAFETY: the caller vouches for the query and for what replaces its parts.
    unsafe {
        fn put<T>(place: &mut *mut T, replaced: &dyn Fn(*mut pg_sys::Node) -> *mut pg_sys::Node) {
            if !place.is_null() {
                *place = replaced(place.cast()).cast();
            }
        }
        let own = &mut *query;
        put(&mut own.targetList, replaced);
        put(&mut own.returningList, replaced);
        put(&mut own.jointree, replaced);
        put(&mut own.havingQual, replaced);
        put(&mut own.limitOffset, replaced);
        put(&mut own.limitCount, replaced);
        put(&mut own.windowClause, replaced);
        put(&mut own.onConflict, replaced);
        put(&mut own.mergeActionList, replaced);
        version::replace_newer_parts(query, replaced);
        for entry in node::elements::<pg_sys::RangeTblEntry>(own.rtable) {
            put(&mut (*entry).subquery, replaced);
            put(&mut (*entry).functions, replaced);
            put(&mut (*entry).values_lists, replaced);
            put(&mut (*entry).tablefunc, replaced);
            put(&mut (*entry).tablesample, replaced);
        }
    }
}

/// A copy without the casts of parameters to their own type: those that are sent have its length already, and a type of users
/// is named by a cast.
unsafe fn without_lengths(part: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: the caller passes a live tree; each node is cast to the struct of its tag.
    unsafe {
        node::rewrite(part, &mut |n| {
            if node::tag(n) == NodeTag::T_Query {
                return Some(n);
            }
            let below = below_length(n)
                .or_else(|| {
                    let cast = node::cast::<pg_sys::RelabelType, _>(n, NodeTag::T_RelabelType)?;
                    Some((*cast).arg.cast())
                })
                .filter(|below| node::tag(*below) == NodeTag::T_Param)?;
            (pg_sys::exprType(below) == pg_sys::exprType(n)).then_some(below)
        })
    }
}

/// What a cast to a length makes longer or shorter.
unsafe fn below_length(n: *mut pg_sys::Node) -> Option<*mut pg_sys::Node> {
    // SAFETY: the caller passes a live expression; each node is cast to the struct of its tag.
    unsafe {
        let below: *mut pg_sys::Node = match node::tag(n) {
            NodeTag::T_FuncExpr if !(*n.cast::<pg_sys::FuncExpr>()).args.is_null() => {
                node::nth((*n.cast::<pg_sys::FuncExpr>()).args, 0)
            }
            NodeTag::T_ArrayCoerceExpr => (*n.cast::<pg_sys::ArrayCoerceExpr>()).arg.cast(),
            _ => return None,
        };
        pg_sys::exprIsLengthCoercion(n, null_mut()).then_some(below)
    }
}

/// What is assigned to a column, without the cast to the column's length that every assignment has.
unsafe fn without_assigned_length(value: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: the caller passes a live expression; each node is cast to the struct of its tag.
    unsafe {
        let is_implicit = match node::tag(value) {
            NodeTag::T_FuncExpr => (*value.cast::<pg_sys::FuncExpr>()).funcformat,
            NodeTag::T_ArrayCoerceExpr => (*value.cast::<pg_sys::ArrayCoerceExpr>()).coerceformat,
            _ => return value,
        } == pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
        below_length(value).filter(|_| is_implicit).unwrap_or(value)
    }
}

/// Numbers the entries of the range table as the clauses come to them, and drops those that nothing refers to.
unsafe fn number_entries(query: *mut pg_sys::Query) {
    let mut order: Vec<c_int> = Vec::new();
    let mut meet = |number: c_int| {
        if number > 0 && !order.contains(&number) {
            order.push(number);
        }
    };
    // SAFETY: the caller passes a private, live Query; its numbers are those of its range table.
    unsafe {
        meet((*query).resultRelation);
        if !(*query).onConflict.is_null() {
            meet((*(*query).onConflict).exclRelIndex);
            // The columns of the rejected row, for the planner, whether they are used or not.
            (*(*query).onConflict).exclRelTlist = null_mut();
        }
        for part in [(*query).jointree.cast::<pg_sys::Node>(), (*query).setOperations] {
            node::walk(part, &mut |n| match node::tag(n) {
                NodeTag::T_RangeTblRef => {
                    meet((*n.cast::<pg_sys::RangeTblRef>()).rtindex);
                    Visit::Into
                }
                NodeTag::T_Query => Visit::Skip,
                _ => Visit::Into,
            });
        }
        for_each_number(query, &mut |number| meet(*number));
        let place = |number: c_int| order.iter().position(|known| *known == number);
        let renumber = |number: &mut c_int| {
            if let Some(place) = place(*number) {
                *number = place as c_int + 1;
            }
        };
        for_each_number(query, &mut |number| renumber(number));
        renumber(&mut (*query).resultRelation);
        version::for_newer_numbers(query, &mut |number| renumber(number));
        if !(*query).onConflict.is_null() {
            renumber(&mut (*(*query).onConflict).exclRelIndex);
        }
        let marks = node::elements::<pg_sys::RowMarkClause>((*query).rowMarks);
        let known = marks.into_iter().filter(|mark| place((**mark).rti as c_int).is_some());
        let known: Vec<_> = known.collect();
        for mark in &known {
            (**mark).rti = place((**mark).rti as c_int).map_or(0, |place| place as u32 + 1);
        }
        (*query).rowMarks = node::list_of(&known);
        let entries = node::elements::<pg_sys::RangeTblEntry>((*query).rtable);
        let kept: Vec<_> = order.iter().map(|number| entries[*number as usize - 1]).collect();
        (*query).rtable = node::list_of(&kept);
    }
}

/// Visits the numbers of the query's entries in its clauses and in queries below it.
unsafe fn for_each_number(query: *mut pg_sys::Query, visit: &mut dyn FnMut(&mut c_int)) {
    let mut todo: Vec<(*mut pg_sys::Query, u32)> = vec![(query, 0)];
    // SAFETY: the caller passes a private, live Query; each node is cast to the struct of its tag.
    unsafe {
        while let Some((here, level)) = todo.pop() {
            node::walk(here, &mut |n| {
                match node::tag(n) {
                    NodeTag::T_Query if n != here.cast() => {
                        todo.push((n.cast(), level + 1));
                        return Visit::Skip;
                    }
                    NodeTag::T_Var => {
                        let var = n.cast::<pg_sys::Var>();
                        if (*var).varlevelsup == level {
                            visit(&mut (*var).varno);
                        }
                    }
                    NodeTag::T_RangeTblRef if level == 0 => {
                        visit(&mut (*n.cast::<pg_sys::RangeTblRef>()).rtindex);
                    }
                    _ => {}
                }
                Visit::Into
            });
        }
    }
}

/// The queries right below one.
unsafe fn queries_below(query: *mut pg_sys::Query) -> Vec<*mut pg_sys::Query> {
    let mut below = Vec::new();
    // SAFETY: the caller passes a live Query.
    unsafe {
        node::walk(query, &mut |n| {
            if n != query.cast() && node::tag(n) == NodeTag::T_Query {
                below.push(n.cast());
                return Visit::Skip;
            }
            Visit::Into
        });
    }
    below
}

/// Takes names, rights and counts out of a query's nodes.
unsafe fn settle_nodes(query: *mut pg_sys::Query) {
    // SAFETY: the caller passes a private, live Query; each node is cast to the struct of its tag.
    unsafe {
        version::drop_all_rights(query);
        let mut whole_rows = Vec::new();
        for_each_whole_row(query, &mut |number| whole_rows.push(number));
        for (number, entry) in (1..).zip(node::elements::<pg_sys::RangeTblEntry>((*query).rtable)) {
            settle_entry(entry, whole_rows.contains(&number));
        }
        for with in node::elements::<pg_sys::CommonTableExpr>((*query).cteList) {
            (*with).aliascolnames = null_mut();
            (*with).ctecolnames = null_mut();
            (*with).cterefcount = 0;
        }
        node::walk(query, &mut |n| {
            match node::tag(n) {
                NodeTag::T_Query if n != query.cast() => return Visit::Skip,
                NodeTag::T_JoinExpr => {
                    let join = n.cast::<pg_sys::JoinExpr>();
                    (*join).isNatural = false;
                    (*join).usingClause = null_mut();
                    (*join).join_using_alias = null_mut();
                    (*join).alias = null_mut();
                    (*join).rtindex = 0;
                }
                _ => settle_expression(n),
            }
            Visit::Into
        });
    }
}

/// Takes out of a node of an expression what the planner has put into it, and what a parameter cannot have for a node.
///
/// # Safety
///
/// A private, live node.
pub(crate) unsafe fn settle_expression(n: *mut pg_sys::Node) {
    // SAFETY: the caller vouches for the node, which is cast to the struct of its tag.
    unsafe {
        if let Some(param) = node::cast::<pg_sys::Param, _>(n, NodeTag::T_Param) {
            // What it is compared with tells by which collation.
            (*param).paramcollid = pg_sys::InvalidOid;
            (*param).paramtypmod = -1;
        }
        if let Some(var) = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var) {
            // That of its column, or of what was sent for it.
            (*var).vartypmod = -1;
        }
        version::forget_nulling(n);
        if let Some(call) = node::cast::<pg_sys::Aggref, _>(n, NodeTag::T_Aggref) {
            (*call).aggtranstype = pg_sys::InvalidOid;
            (*call).aggno = -1;
            (*call).aggtransno = -1;
        }
        if let Some(list) =
            node::cast::<pg_sys::ScalarArrayOpExpr, _>(n, NodeTag::T_ScalarArrayOpExpr)
        {
            // The planner has long lists looked up by a hash.
            (*list).hashfuncid = pg_sys::InvalidOid;
            (*list).negfuncid = pg_sys::InvalidOid;
        }
        if let Some(row) = node::cast::<pg_sys::RowExpr, _>(n, NodeTag::T_RowExpr) {
            let names = node::elements::<pg_sys::String>((*row).colnames);
            if (1..).zip(names).all(|(n, name)| node::text_of((*name).sval) == format!("f{n}")) {
                (*row).colnames = null_mut();
            }
        }
        if let Some(value) = node::cast::<pg_sys::Const, _>(n, NodeTag::T_Const)
            && (*value).consttype == pg_sys::UNKNOWNOID
        {
            // What nobody reads of the query of an INSERT; as the output of a query below it is a text.
            (*value).consttype = pg_sys::TEXTOID;
            (*value).constcollid = pg_sys::DEFAULT_COLLATION_OID;
            (*value).constlen = -1;
            if !(*value).constisnull {
                let text = pg_sys::cstring_to_text((*value).constvalue.cast_mut_ptr());
                (*value).constvalue = pg_sys::Datum::from(text);
            }
        }
        if let Some(link) = node::cast::<pg_sys::SubLink, _>(n, NodeTag::T_SubLink) {
            // As the client wrote it; what it was found to be is in the test.
            (*link).operName = null_mut();
        }
        if let Some(call) = node::cast::<pg_sys::GroupingFunc, _>(n, NodeTag::T_GroupingFunc) {
            (*call).refs = null_mut();
            (*call).cols = null_mut();
        }
    }
}

/// Visits the numbers of the entries of which a whole row is read.
unsafe fn for_each_whole_row(query: *mut pg_sys::Query, visit: &mut dyn FnMut(c_int)) {
    // SAFETY: the caller passes a live Query. References from below are rare, and go unseen.
    unsafe {
        node::walk(query, &mut |n| {
            if n != query.cast() && node::tag(n) == NodeTag::T_Query {
                return Visit::Skip;
            }
            if let Some(var) = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var)
                && (*var).varlevelsup == 0
                && (*var).varattno == 0
            {
                visit((*var).varno);
            }
            Visit::Into
        });
    }
}

/// An entry without names, unless the row that they make is read as a whole.
unsafe fn settle_entry(entry: *mut pg_sys::RangeTblEntry, is_row: bool) {
    // SAFETY: the caller passes a private, live entry.
    unsafe {
        let names_count = is_row && (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION;
        (*entry).alias = if names_count && !(*entry).eref.is_null() {
            pg_sys::makeAlias(c"".as_ptr(), without_numbers((*(*entry).eref).colnames))
        } else {
            null_mut()
        };
        (*entry).eref = null_mut();
        if (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION {
            give_partitions_back(entry);
        }
        (*entry).rellockmode = 0;
        (*entry).relkind = 0;
        if (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION {
            // A view's are left behind by its query.
            (*entry).relid = pg_sys::InvalidOid;
            (*entry).inh = false;
            (*entry).tablesample = null_mut();
        }
        (*entry).inFromCl = false;
    }
}

/// Names without the numbers that ruleutils gives to one that comes twice.
unsafe fn without_numbers(names: *mut pg_sys::List) -> *mut pg_sys::List {
    let digit = |c: char| c.is_ascii_digit();
    // SAFETY: the caller passes a live list of names.
    let names = unsafe { node::elements::<pg_sys::String>(names) };
    let names: Vec<*mut pg_sys::Node> = names
        .into_iter()
        .map(|name| {
            // SAFETY: as above.
            let name = unsafe { node::text_of((*name).sval) };
            let short = name.trim_end_matches(digit).strip_suffix('_');
            node::string_node(short.unwrap_or(&name))
        })
        .collect();
    node::list_of(&names)
}

/// Puts the expressions themselves where a query sorts or groups by numbers of its outputs.
unsafe fn settle_sorting(query: *mut pg_sys::Query) {
    // SAFETY: the caller passes a private, live Query; a list of clauses becomes one of clauses and expressions.
    unsafe {
        let outputs = node::elements::<pg_sys::TargetEntry>((*query).targetList);
        let with_expressions = |list: *mut pg_sys::List| -> *mut pg_sys::List {
            let mut both: Vec<*mut pg_sys::Node> = Vec::new();
            for clause in node::elements::<pg_sys::SortGroupClause>(list) {
                let number = (*clause).tleSortGroupRef;
                let output = outputs.iter().find(|entry| (***entry).ressortgroupref == number);
                (*clause).tleSortGroupRef = 0;
                both.push(clause.cast());
                both.extend(output.map(|entry| (**entry).expr.cast::<pg_sys::Node>()));
            }
            node::list_of(&both)
        };
        let groups: Vec<u32> = node::elements::<pg_sys::SortGroupClause>((*query).groupClause)
            .into_iter()
            .map(|clause| (*clause).tleSortGroupRef)
            .collect();
        for set in node::elements::<pg_sys::GroupingSet>((*query).groupingSets) {
            settle_grouping_set(set, &groups);
        }
        // The same clause may stand in two lists.
        (*query).sortClause = with_expressions(node::copy((*query).sortClause));
        (*query).distinctClause = with_expressions(node::copy((*query).distinctClause));
        (*query).groupClause = with_expressions(node::copy((*query).groupClause));
        for window in node::elements::<pg_sys::WindowClause>((*query).windowClause) {
            (*window).partitionClause = with_expressions(node::copy((*window).partitionClause));
            (*window).orderClause = with_expressions(node::copy((*window).orderClause));
        }
    }
}

/// A grouping set with the places of its keys in GROUP BY.
unsafe fn settle_grouping_set(set: *mut pg_sys::GroupingSet, groups: &[u32]) {
    node::check_depth();
    // SAFETY: the caller passes a private, live node: a simple set has numbers, the others sets.
    unsafe {
        if (*set).kind != pg_sys::GroupingSetKind::GROUPING_SET_SIMPLE {
            for inner in node::elements::<pg_sys::GroupingSet>((*set).content) {
                settle_grouping_set(inner, groups);
            }
            return;
        }
        for index in 0..node::length((*set).content) {
            let number = &mut (*(*(*set).content).elements.add(index)).int_value;
            let place = groups.iter().position(|group| *group as c_int == *number);
            *number = place.map_or(-1, |place| place as c_int);
        }
    }
}

/// Lists of outputs without names; those that write in the order of the table's columns.
unsafe fn settle_targets(query: *mut pg_sys::Query) {
    // SAFETY: the caller passes a private, live Query.
    unsafe {
        let settled = |list: *mut pg_sys::List, writes: bool| -> *mut pg_sys::List {
            let mut entries = node::elements::<pg_sys::TargetEntry>(list);
            entries.retain(|entry| !(**entry).resjunk);
            if writes {
                entries.sort_by_key(|entry| (**entry).resno);
            }
            for (number, entry) in (1..).zip(&entries) {
                if writes {
                    (**entry).expr = without_assigned_length((**entry).expr.cast()).cast();
                } else {
                    (**entry).resno = number;
                }
                (**entry).resname = null_mut();
                (**entry).ressortgroupref = 0;
                (**entry).resorigtbl = pg_sys::InvalidOid;
                (**entry).resorigcol = 0;
            }
            node::list_of(&entries)
        };
        let writes = (*query).commandType != pg_sys::CmdType::CMD_SELECT;
        (*query).targetList = settled((*query).targetList, writes);
        (*query).returningList = settled((*query).returningList, false);
        if !(*query).onConflict.is_null() {
            let conflict = (*query).onConflict;
            (*conflict).onConflictSet = settled((*conflict).onConflictSet, true);
        }
        for action in node::elements::<pg_sys::MergeAction>((*query).mergeActionList) {
            (*action).targetList = settled((*action).targetList, true);
            (*action).updateColnos = null_mut();
        }
    }
}

/// A query without what only tells what is in it, or where it came from.
unsafe fn settle_flags(query: *mut pg_sys::Query) {
    // SAFETY: the caller passes a private, live Query.
    let own = unsafe { &mut *query };
    own.querySource = 0;
    own.canSetTag = false;
    own.hasAggs = false;
    own.hasWindowFuncs = false;
    own.hasTargetSRFs = false;
    own.hasSubLinks = false;
    own.hasRecursive = false;
    own.hasModifyingCTE = false;
    own.hasForUpdate = false;
    own.hasRowSecurity = false;
    own.constraintDeps = null_mut();
    own.stmt_location = 0;
    own.stmt_len = 0;
}
