//! `ctid` over several shards: what the statement sees of a row's place, and how a node is asked for the row.
//!
//! `ctid` on a node says nothing of the shard. The `ctid` of a row of a table with several shards is therefore made of both
//! when the row comes (`shardmap::tid`), and whatever is computed of it is computed here: comparisons, joins, groups, values
//! that the client keeps and brings back. A node is asked for rows by `ctid` in one way only, by equality; its SQL
//! then takes the value apart, and yields nothing in the shards that are not meant. A table with one shard has the `ctid`s of
//! its node.

use crate::extension::extension;
use crate::read::query::writing_queries;
use crate::sys::error::PgError;
use crate::sys::node::{self, Visit};
use crate::sys::plan::SHARD_INDEX;
use pgrx::pg_sys::{self, Datum, NodeTag, Oid};
use shardmap::tid::{Tid, TidLayout};

/// How the tids of a table are made; none if they are those of its nodes.
pub(crate) fn layout_of(table: Oid) -> Option<TidLayout> {
    let shards = extension().shard_count(table);
    (shards > 1).then(|| TidLayout::for_shards(shards))
}

/// The column is `ctid`.
pub(crate) fn is_ctid(var: &pg_sys::Var) -> bool {
    i32::from(var.varattno) == pg_sys::SelfItemPointerAttributeNumber
}

/// Makes the row's `ctid` of the one that its node has, in place.
///
/// # Safety
///
/// `tid` is a live tid that nobody else reads.
pub(crate) unsafe fn encode(tid: Datum, shard: usize, layout: TidLayout) -> Result<Datum, PgError> {
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        let pointer = tid.cast_mut_ptr::<pg_sys::ItemPointerData>();
        let encoded = layout.encode(shard, read(*pointer)).ok_or_else(|| {
            PgError::unsupported(
                "cannot show the ctid of a row of so large a shard",
                "Name rows by a key, or spread the table over fewer or smaller shards.",
            )
        })?;
        *pointer = written(encoded);
    }
    Ok(tid)
}

/// The tid that the row's node has.
pub(crate) fn decode(tid: pg_sys::ItemPointerData, layout: TidLayout) -> pg_sys::ItemPointerData {
    written(layout.decode(read(tid)).1)
}

/// The tid as numbers.
pub(crate) fn read(tid: pg_sys::ItemPointerData) -> Tid {
    let block = u32::from(tid.ip_blkid.bi_hi) << 16 | u32::from(tid.ip_blkid.bi_lo);
    Tid { block, offset: tid.ip_posid }
}

fn written(tid: Tid) -> pg_sys::ItemPointerData {
    pg_sys::ItemPointerData {
        ip_blkid: pg_sys::BlockIdData {
            bi_hi: (tid.block >> 16) as u16,
            bi_lo: (tid.block & 0xffff) as u16,
        },
        ip_posid: tid.offset,
    }
}

/// A `ctid` of the statement may go to the client, into a table, or into a function, or one may come from there; otherwise
/// the statement only compares `ctid`s with each other. The columns of RETURNING at the `returned` places do not count.
///
/// # Safety
///
/// A live Query that the analyser or the rewriter made.
pub(crate) unsafe fn is_shown(query: *mut pg_sys::Query, returned: &[usize]) -> bool {
    // SAFETY: the caller vouches for the tree; each node is cast to the struct of its tag.
    unsafe {
        let mut answers = writing_queries(query);
        answers.push(query);
        answers.into_iter().any(|answer| {
            let is_top = std::ptr::eq(answer, query);
            let shown = node::elements::<pg_sys::TargetEntry>((*answer).returningList)
                .into_iter()
                .enumerate()
                .filter(|(place, _)| !(is_top && returned.contains(place)))
                .map(|(_, entry)| entry);
            node::elements::<pg_sys::TargetEntry>((*answer).targetList)
                .into_iter()
                .chain(shown)
                .any(|entry| !(*entry).resjunk && has_tid((*entry).expr.cast()))
        }) || node::walk(query, &mut |n| if is_gate(n) { Visit::Stop } else { Visit::Into })
    }
}

/// The places in a statement's RETURNING of the `ctid` of the table that it writes.
///
/// # Safety
///
/// A live Query that the analyser or the rewriter made.
pub(crate) unsafe fn returned(query: *mut pg_sys::Query) -> Vec<usize> {
    // SAFETY: the caller vouches for the tree.
    unsafe {
        let target = (*query).resultRelation;
        let is_ctid_of_target = |entry: *mut pg_sys::TargetEntry| {
            node::cast::<pg_sys::Var, _>((*entry).expr, NodeTag::T_Var).is_some_and(|var| {
                is_ctid(&*var) && (*var).varno == target && (*var).varlevelsup == 0
            })
        };
        let entries = node::elements::<pg_sys::TargetEntry>((*query).returningList);
        (0..entries.len()).filter(|place| is_ctid_of_target(entries[*place])).collect()
    }
}

/// The expression has a `ctid` in it, or yields tids.
unsafe fn has_tid(expression: *mut pg_sys::Node) -> bool {
    // SAFETY: a live expression.
    unsafe {
        yields_tids(expression)
            || node::walk(expression, &mut |n| {
                let var = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var);
                if var.is_some_and(|var| is_ctid(&*var)) { Visit::Stop } else { Visit::Into }
            })
    }
}

unsafe fn yields_tids(expression: *mut pg_sys::Node) -> bool {
    // SAFETY: a live expression.
    is_tid_type(unsafe { pg_sys::exprType(expression) })
}

fn is_tid_type(type_oid: Oid) -> bool {
    matches!(type_oid, pg_sys::TIDOID | pg_sys::TIDARRAYOID)
}

/// The node brings tids into the statement, or makes something else of them.
unsafe fn is_gate(n: *mut pg_sys::Node) -> bool {
    // SAFETY: a live node of a statement; each node is cast to the struct of its tag.
    unsafe {
        match node::tag(n) {
            NodeTag::T_Const => yields_tids(n),
            NodeTag::T_Param => {
                let kind = (*n.cast::<pg_sys::Param>()).paramkind;
                kind != pg_sys::ParamKind::PARAM_SUBLINK && yields_tids(n)
            }
            // A row of a sub-query may have one in it.
            NodeTag::T_Var => (*n.cast::<pg_sys::Var>()).varattno == 0,
            NodeTag::T_FuncExpr => {
                let arguments = (*n.cast::<pg_sys::FuncExpr>()).args;
                yields_tids(n)
                    || node::elements::<pg_sys::Node>(arguments)
                        .into_iter()
                        .any(|argument| yields_tids(argument))
            }
            NodeTag::T_CoerceViaIO => {
                yields_tids(n) || yields_tids((*n.cast::<pg_sys::CoerceViaIO>()).arg.cast())
            }
            NodeTag::T_ArrayCoerceExpr => {
                yields_tids(n) || yields_tids((*n.cast::<pg_sys::ArrayCoerceExpr>()).arg.cast())
            }
            NodeTag::T_Aggref => {
                let aggregate = &*n.cast::<pg_sys::Aggref>();
                let takes_tids = node::elements::<pg_sys::TargetEntry>(aggregate.args)
                    .into_iter()
                    .any(|entry| yields_tids((*entry).expr.cast()));
                takes_tids
                    && !is_tid_type(aggregate.aggtype)
                    && aggregate.aggtype != pg_sys::INT8OID
            }
            NodeTag::T_RowExpr => true,
            _ => false,
        }
    }
}

/// The statement writes, and this query of it mentions a `ctid`.
///
/// # Safety
///
/// The planner's live structures.
pub(crate) unsafe fn decides_write(root: *mut pg_sys::PlannerInfo) -> bool {
    // SAFETY: the caller vouches for the root; the roots of the queries around live while this one is planned. The lists
    // are walked as expressions; PostgreSQL's own junk columns are left out.
    unsafe {
        let mut top = root;
        while !(*top).parent_root.is_null() {
            top = (*top).parent_root;
        }
        if (*(*top).parse).commandType == pg_sys::CmdType::CMD_SELECT
            && !(*(*top).parse).hasModifyingCTE
        {
            return false;
        }
        let parse = (*root).parse;
        let mut trees: Vec<*mut pg_sys::Node> = vec![
            (*parse).jointree.cast(),
            (*parse).returningList.cast(),
            (*parse).havingQual,
            (*parse).mergeActionList.cast(),
        ];
        trees.extend(
            node::elements::<pg_sys::TargetEntry>((*parse).targetList)
                .into_iter()
                .filter(|entry| !(**entry).resjunk || (**entry).ressortgroupref > 0)
                .map(|entry| (*entry).expr.cast()),
        );
        trees.into_iter().any(|tree| {
            node::walk(tree, &mut |n| {
                let var = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var);
                if var.is_some_and(|var| is_ctid(&*var)) { Visit::Stop } else { Visit::Into }
            })
        })
    }
}

/// `ctid = value` or `ctid = ANY (values)`.
pub(crate) struct Comparison {
    /// The `ctid`.
    pub(crate) row: *mut pg_sys::Var,
    /// What it is compared with.
    pub(crate) value: *mut pg_sys::Node,
    /// That is an array.
    pub(crate) is_array: bool,
}

/// The clause as a comparison of a `ctid` for which `is_row` holds with something for which `is_value` holds.
///
/// # Safety
///
/// A live clause of the planner.
pub(crate) unsafe fn comparison(
    clause: *mut pg_sys::Node,
    is_row: &dyn Fn(&pg_sys::Var) -> bool,
    is_value: &dyn Fn(*mut pg_sys::Node) -> bool,
) -> Option<Comparison> {
    // SAFETY: the caller vouches for the clause; each node is cast to the struct of its tag.
    unsafe {
        let (operator, arguments, is_array) = if let Some(op) =
            node::cast::<pg_sys::OpExpr, _>(clause, NodeTag::T_OpExpr)
        {
            ((*op).opno, (*op).args, false)
        } else {
            let op =
                node::cast::<pg_sys::ScalarArrayOpExpr, _>(clause, NodeTag::T_ScalarArrayOpExpr)?;
            if !(*op).useOr {
                return None;
            }
            ((*op).opno, (*op).args, true)
        };
        if operator.to_u32() != pg_sys::TIDEqualOperator || node::length(arguments) != 2 {
            return None;
        }
        let sides: [*mut pg_sys::Node; 2] = [node::nth(arguments, 0), node::nth(arguments, 1)];
        let orders = if is_array { 1 } else { 2 };
        (0..orders).find_map(|first| {
            let row = node::cast::<pg_sys::Var, _>(sides[first], NodeTag::T_Var)?;
            let value = sides[1 - first];
            let fits =
                (*row).varlevelsup == 0 && is_ctid(&*row) && is_row(&*row) && is_value(value);
            fits.then_some(Comparison { row, value, is_array })
        })
    }
}

/// A comparison in the SQL of a shard: `row` is the `ctid` there, `value` what it is compared with.
pub(crate) fn comparison_sql(
    layout: Option<TidLayout>,
    row: &str,
    value: &str,
    is_array: bool,
) -> String {
    let index = format!("'{}'::pg_catalog.int8", SHARD_INDEX);
    match (layout, is_array) {
        (None, false) => format!("({row} = {value})"),
        (None, true) => format!("({row} = ANY ({value}))"),
        (Some(layout), false) => {
            format!("({row} = {} AND {} = {index})", layout.tid_sql(value), layout.shard_sql(value))
        }
        (Some(layout), true) => format!(
            "({row} = ANY (ARRAY(SELECT {} FROM pg_catalog.unnest({value}) u(c) WHERE {} = {index})))",
            layout.tid_sql("u.c"),
            layout.shard_sql("u.c")
        ),
    }
}
