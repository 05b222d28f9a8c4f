//! `WHERE CURRENT OF`: an UPDATE or DELETE of the row that a cursor stands on.
//!
//! Where a row lies says nothing on another placement, nor once somebody has changed it. So the row is known by what is in it:
//! the distribution column and the columns of a unique index, or else all columns. The query of a cursor is
//! planned with these columns added ([`expose`]), and a node of ours on top of its plan ([`wrap`]) keeps them from
//! the client and has the row at hand. The UPDATE or DELETE is planned with a comparison of these columns in place of the
//! CURRENT OF ([`Statement::positioned`]); their values are a function's, [`pg_shard_current_of`], which looks at
//! the cursor as `src/backend/executor/execCurrent.c` does and has its errors.

use crate::catalog::table;
use crate::extension::extension;
use crate::path::base;
use crate::read::query::{DistributionKey, Lookup, Statement, write_of, writing_queries};
use crate::sys::boundary::boundary;
use crate::sys::custom::{self, Functions, Table};
use crate::sys::error::{PgError, SqlState};
use crate::sys::node;
use crate::sys::unguarded::copy_datum;
use crate::sys::version;
use pgrx::pg_sys::{self, Datum, NodeTag, Oid};
use std::ffi::{CString, c_int};

/// A write whose CURRENT OF clauses have become comparisons.
#[derive(Clone, Copy, Debug)]
pub struct Positioned {
    /// The statement.
    pub statement: Statement,
    /// The row is known by all that is in it, so whoever has changed it has made it unknown.
    pub by_whole_row: bool,
}

impl Statement {
    /// The statement with comparisons in place of CURRENT OF of distributed tables; none if it has none.
    pub fn positioned(&self, distribution: &Lookup<'_>) -> Option<Positioned> {
        // SAFETY: a live Query of the planner hook; the copy is private. CURRENT OF is all of a WHERE clause, by the
        // grammar.
        unsafe {
            let is_positioned = |query: *mut pg_sys::Query| {
                !(*query).jointree.is_null()
                    && current_of((*(*query).jointree).quals).is_some()
                    && distribution((*target_of(query)).relid).is_some()
            };
            let parse = self.parse;
            let found = if (*parse).hasModifyingCTE {
                writing_queries(parse).into_iter().any(is_positioned)
            } else {
                write_of(parse).is_some() && is_positioned(parse)
            };
            if !found {
                return None;
            }
            let function = function()?;
            let copy = node::copy(parse);
            let mut by_whole_row = false;
            for query in writing_queries(copy) {
                if is_positioned(query)
                    && let Some(clause) = current_of((*(*query).jointree).quals)
                    && let Some(key) = distribution((*target_of(query)).relid)
                {
                    by_whole_row |= compare(query, clause, &key, function);
                }
            }
            Some(Positioned { statement: Statement { parse: copy }, by_whole_row })
        }
    }
}

unsafe fn current_of(quals: *mut pg_sys::Node) -> Option<*mut pg_sys::CurrentOfExpr> {
    // SAFETY: the caller passes null or a live expression.
    unsafe { node::cast(quals, NodeTag::T_CurrentOfExpr) }
}

unsafe fn target_of(query: *mut pg_sys::Query) -> *mut pg_sys::RangeTblEntry {
    // SAFETY: the caller passes a live Query that writes.
    unsafe { node::nth((*query).rtable, (*query).resultRelation as usize - 1) }
}

/// The function that yields a column of a cursor's row; none if the extension's objects are not there.
fn function() -> Option<Oid> {
    // SAFETY: a look-up by name and types.
    let oid = unsafe {
        let name = [node::string_node("pgs_catalog"), node::string_node("current_of")];
        let types = [pg_sys::INTERNALOID; 3];
        pg_sys::LookupFuncName(node::list_of(&name), 3, types.as_ptr(), true)
    };
    (oid != Oid::INVALID).then_some(oid)
}

/// The columns by which a row is known, the distribution column first; true if they are all there are.
fn identity(table: Oid, key: i16) -> (Vec<i16>, bool) {
    let unique = table::row_identities(table).into_iter().next();
    let by_whole_row = unique.is_none();
    let columns = unique.unwrap_or_else(|| {
        base::live_columns(table).into_iter().map(|(column, _, _)| column).collect()
    });
    let mut all = vec![key];
    all.extend(columns.into_iter().filter(|column| *column != key));
    (all, by_whole_row)
}

/// Puts the comparison in the place of the query's CURRENT OF.
unsafe fn compare(
    query: *mut pg_sys::Query,
    clause: *mut pg_sys::CurrentOfExpr,
    key: &DistributionKey,
    function: Oid,
) -> bool {
    // SAFETY: the caller passes a level of a private, live copy of a Query, which writes a distributed table.
    unsafe {
        let target = target_of(query);
        let relid = (*target).relid;
        let (columns, by_whole_row) = identity(relid, key.column);
        let cursor: *mut pg_sys::Node = if (*clause).cursor_name.is_null() {
            let param: *mut pg_sys::Param = node::make(NodeTag::T_Param);
            (*param).paramkind = pg_sys::ParamKind::PARAM_EXTERN;
            (*param).paramid = (*clause).cursor_param;
            (*param).paramtype = pg_sys::REFCURSOROID;
            (*param).paramtypmod = -1;
            (*param).paramcollid = pg_sys::get_typcollation(pg_sys::REFCURSOROID);
            (*param).location = -1;
            param.cast()
        } else {
            let text = Datum::from(pg_sys::cstring_to_text((*clause).cursor_name));
            constant(pg_sys::TEXTOID, -1, text, false)
        };
        let current = |column: i16| -> *mut pg_sys::Node {
            let value: *mut pg_sys::FuncExpr = node::make(NodeTag::T_FuncExpr);
            (*value).funcid = function;
            let (type_oid, _, collation) = table::column_type(relid, column);
            (*value).funcresulttype = type_oid;
            (*value).funccollid = collation;
            (*value).funcformat = pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;
            (*value).location = -1;
            (*value).args = node::list_of(&[
                node::copy(cursor),
                constant(pg_sys::OIDOID, 4, Datum::from(relid), true),
                constant(pg_sys::INT2OID, 2, Datum::from(column), true),
            ]);
            value.cast()
        };
        let number = (*query).resultRelation;
        let own = |number: c_int, column: i16| column_of(relid, number, column);
        let mut conditions = vec![equal(own(number, key.column), current(key.column))];
        if by_whole_row {
            let values: Vec<_> = columns.iter().map(|column| current(*column)).collect();
            let whole = |number: c_int| {
                let row: Vec<_> = columns.iter().map(|column| own(number, *column)).collect();
                let values: Vec<_> = values.iter().map(|value| node::copy(*value)).collect();
                equal(row_text(&row), row_text(&values))
            };
            conditions.push(whole(number));
            let inner = vec![equal(own(1, key.column), current(key.column)), whole(1)];
            conditions.push(equal(
                pg_sys::makeVar(
                    number,
                    pg_sys::SelfItemPointerAttributeNumber as i16,
                    pg_sys::TIDOID,
                    -1,
                    Oid::INVALID,
                    0,
                )
                .cast(),
                first_place(query, target, &columns, inner),
            ));
            (*query).hasSubLinks = true;
        } else {
            for column in columns.iter().filter(|column| **column != key.column) {
                conditions.push(equal(own(number, *column), current(*column)));
            }
        }
        version::add_select(query, target, &columns);
        let all =
            pg_sys::makeBoolExpr(pg_sys::BoolExprType::AND_EXPR, node::list_of(&conditions), -1);
        (*(*query).jointree).quals = if conditions.len() == 1 { conditions[0] } else { all.cast() };
        by_whole_row
    }
}

/// `(SELECT ctid FROM table WHERE ... LIMIT 1)`: of rows that are the same in every letter any one will do.
unsafe fn first_place(
    outer: *mut pg_sys::Query,
    target: *mut pg_sys::RangeTblEntry,
    columns: &[i16],
    conditions: Vec<*mut pg_sys::Node>,
) -> *mut pg_sys::Node {
    // SAFETY: the caller passes the entry of a table and conditions over relation 1; nodes are made with the structs
    // of their tags.
    unsafe {
        let entry: *mut pg_sys::RangeTblEntry = node::copy(target);
        (*entry).alias = std::ptr::null_mut();
        (*entry).inFromCl = true;
        (*entry).rellockmode = pg_sys::AccessShareLock as c_int;
        let inner: *mut pg_sys::Query = node::make(NodeTag::T_Query);
        let checked_as = version::checked_as(outer, target);
        version::begin_rights(inner, entry, checked_as);
        let place = pg_sys::SelfItemPointerAttributeNumber as i16;
        version::add_select(inner, entry, &[columns, &[place]].concat());
        let from: *mut pg_sys::RangeTblRef = node::make(NodeTag::T_RangeTblRef);
        (*from).rtindex = 1;
        (*inner).commandType = pg_sys::CmdType::CMD_SELECT;
        (*inner).canSetTag = true;
        (*inner).rtable = node::list_of(&[entry]);
        let filter =
            pg_sys::makeBoolExpr(pg_sys::BoolExprType::AND_EXPR, node::list_of(&conditions), -1);
        (*inner).jointree = pg_sys::makeFromExpr(node::list_of(&[from]), filter.cast());
        let place = pg_sys::makeVar(1, place, pg_sys::TIDOID, -1, Oid::INVALID, 0);
        let output = pg_sys::makeTargetEntry(place.cast(), 1, node::c_text("ctid"), false);
        (*inner).targetList = node::list_of(&[output]);
        (*inner).limitCount = constant(pg_sys::INT8OID, 8, Datum::from(1_i64), true);
        (*inner).limitOption = pg_sys::LimitOption::LIMIT_OPTION_COUNT;
        let link: *mut pg_sys::SubLink = node::make(NodeTag::T_SubLink);
        (*link).subLinkType = pg_sys::SubLinkType::EXPR_SUBLINK;
        (*link).subselect = inner.cast();
        (*link).location = -1;
        link.cast()
    }
}

unsafe fn constant(
    type_oid: Oid,
    length: c_int,
    value: Datum,
    by_value: bool,
) -> *mut pg_sys::Node {
    // SAFETY: the caller passes a value of the type.
    unsafe {
        let collation = pg_sys::get_typcollation(type_oid);
        pg_sys::makeConst(type_oid, -1, collation, length, value, false, by_value).cast()
    }
}

unsafe fn column_of(table: Oid, relation: c_int, column: i16) -> *mut pg_sys::Node {
    let (type_oid, typmod, collation) = table::column_type(table, column);
    // SAFETY: makes a node.
    unsafe { pg_sys::makeVar(relation, column, type_oid, typmod, collation, 0).cast() }
}

/// `left = right` by the equality of their type, which both have.
unsafe fn equal(left: *mut pg_sys::Node, right: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: the caller passes live expressions of one type. What the operator takes is binary-compatible with the
    // type that the type cache has found it for.
    unsafe {
        let type_oid = pg_sys::exprType(left);
        let cached = pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_EQ_OPR as c_int);
        let operator = (*cached).eq_opr;
        let (mut takes, mut other) = (Oid::INVALID, Oid::INVALID);
        pg_sys::op_input_types(operator, &raw mut takes, &raw mut other);
        let collation = pg_sys::exprCollation(left);
        let base = pg_sys::getBaseType(type_oid);
        let is_polymorphic = pg_sys::get_typtype(takes) as u8 == pg_sys::TYPTYPE_PSEUDO;
        let meant = if is_polymorphic { base } else { takes };
        let cast = |value: *mut pg_sys::Node| -> *mut pg_sys::Expr {
            if meant == type_oid {
                return value.cast();
            }
            let format = pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
            pg_sys::makeRelabelType(value.cast(), meant, -1, collation, format).cast()
        };
        let made = pg_sys::make_opclause(
            operator,
            pg_sys::BOOLOID,
            false,
            cast(left),
            cast(right),
            Oid::INVALID,
            collation,
        );
        pg_sys::set_opfuncid(made.cast());
        made.cast()
    }
}

/// `ROW(...)::text`.
unsafe fn row_text(columns: &[*mut pg_sys::Node]) -> *mut pg_sys::Node {
    // SAFETY: the caller passes live expressions; nodes are made with the structs of their tags.
    unsafe {
        let row: *mut pg_sys::RowExpr = node::make(NodeTag::T_RowExpr);
        (*row).args = node::list_of(columns);
        (*row).row_typeid = pg_sys::RECORDOID;
        (*row).row_format = pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;
        let names: Vec<_> =
            (1..=columns.len()).map(|n| node::string_node(&format!("f{n}"))).collect();
        (*row).colnames = node::list_of(&names);
        (*row).location = -1;
        let text: *mut pg_sys::CoerceViaIO = node::make(NodeTag::T_CoerceViaIO);
        (*text).arg = row.cast();
        (*text).resulttype = pg_sys::TEXTOID;
        (*text).resultcollid = pg_sys::DEFAULT_COLLATION_OID;
        (*text).coerceformat = pg_sys::CoercionForm::COERCE_EXPLICIT_CAST;
        (*text).location = -1;
        text.cast()
    }
}

/// The query of a cursor with the columns added by which its rows are known, and what [`wrap`] needs to know of them;
/// null if no row of the cursor can be meant by a CURRENT OF of a distributed table.
///
/// As in PostgreSQL these are the rows of tables that the cursor locks, or of the only table that it reads.
///
/// # Safety
///
/// A live Query of the planner hook.
pub(crate) unsafe fn expose(parse: *mut pg_sys::Query) -> (*mut pg_sys::Query, *mut pg_sys::List) {
    let nothing = (parse, std::ptr::null_mut());
    // SAFETY: the caller vouches for the Query; what is changed is a copy.
    unsafe {
        let query = &*parse;
        let is_simple = query.commandType == pg_sys::CmdType::CMD_SELECT
            && query.setOperations.is_null()
            && query.groupClause.is_null()
            && query.groupingSets.is_null()
            && query.havingQual.is_null()
            && query.distinctClause.is_null()
            && !query.hasAggs
            && !query.hasWindowFuncs
            && !query.hasTargetSRFs
            && !query.hasModifyingCTE;
        if !is_simple {
            return nothing;
        }
        let is_ours = |number: c_int| {
            let entry: *mut pg_sys::RangeTblEntry = node::nth(query.rtable, number as usize - 1);
            (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
                && extension().distribution((*entry).relid).is_some()
        };
        let locks = !query.rowMarks.is_null();
        let mut numbers: Vec<c_int> = if locks {
            let marks = node::elements::<pg_sys::RowMarkClause>(query.rowMarks);
            marks.into_iter().map(|mark| (*mark).rti as c_int).collect()
        } else {
            match &node::elements::<pg_sys::Node>((*query.jointree).fromlist)[..] {
                [only] => node::cast::<pg_sys::RangeTblRef, _>(*only, NodeTag::T_RangeTblRef)
                    .map(|reference| (*reference).rtindex)
                    .into_iter()
                    .collect(),
                _ => Vec::new(),
            }
        };
        numbers.retain(|number| is_ours(*number));
        if numbers.is_empty() {
            return nothing;
        }
        let copy: *mut pg_sys::Query = node::copy(parse);
        let mut described = vec![i32::from(locks)];
        let visible = |query: *mut pg_sys::Query| {
            let entries = node::elements::<pg_sys::TargetEntry>((*query).targetList);
            entries.into_iter().filter(|entry| !(**entry).resjunk).collect::<Vec<_>>()
        };
        let shown = visible(copy).len();
        described.push(shown as i32);
        for number in numbers {
            let entry: *mut pg_sys::RangeTblEntry = node::nth((*copy).rtable, number as usize - 1);
            let relid = (*entry).relid;
            let Some(key) = extension().distribution(relid) else { return nothing };
            let (columns, _) = identity(relid, key.column);
            if !may_read(version::checked_as(copy, entry), relid, &columns) {
                return nothing;
            }
            described.extend([relid.to_u32().cast_signed(), columns.len() as i32]);
            for column in columns {
                let var = column_of(relid, number, column);
                let outputs = visible(copy);
                let known = outputs.iter().position(|output| {
                    let output = node::cast::<pg_sys::Var, _>((**output).expr, NodeTag::T_Var);
                    output.is_some_and(|output| {
                        (*output).varno == number
                            && (*output).varattno == column
                            && (*output).varlevelsup == 0
                    })
                });
                let place = known.unwrap_or_else(|| {
                    let position = node::length((*copy).targetList) as i16 + 1;
                    let name = node::c_text(&format!("pg_shard {position}"));
                    let output = pg_sys::makeTargetEntry(var.cast(), position, name, false);
                    (*copy).targetList = pg_sys::lappend((*copy).targetList, output.cast());
                    outputs.len()
                });
                described.extend([i32::from(column), place as i32]);
            }
        }
        let numbers: Vec<_> =
            described.into_iter().map(|number| pg_sys::makeInteger(number)).collect();
        (copy, node::list_of(&numbers))
    }
}

/// The role may read these columns: on the workers it needs that right.
fn may_read(checked_as: Oid, relid: Oid, columns: &[i16]) -> bool {
    // SAFETY: look-ups by value.
    unsafe {
        let user = match checked_as {
            Oid::INVALID => pg_sys::GetUserId(),
            user => user,
        };
        let select = pg_sys::ACL_SELECT as pg_sys::AclMode;
        let allowed = pg_sys::AclResult::ACLCHECK_OK;
        pg_sys::pg_class_aclcheck(relid, user, select) == allowed
            || columns.iter().all(|column| {
                pg_sys::pg_attribute_aclcheck(relid, *column, user, select) == allowed
            })
    }
}

/// Puts our node on top of the plan of a query that [`expose`] has changed.
///
/// # Safety
///
/// The finished plan of that query, and what `expose` said of it.
pub(crate) unsafe fn wrap(planned: *mut pg_sys::PlannedStmt, described: *mut pg_sys::List) {
    // SAFETY: the caller vouches for both; nodes are made with the structs of their tags.
    unsafe {
        let below = (*planned).planTree;
        let scan: *mut pg_sys::CustomScan = node::make(NodeTag::T_CustomScan);
        let plan = &mut (*scan).scan.plan;
        plan.startup_cost = (*below).startup_cost;
        plan.total_cost = (*below).total_cost;
        plan.plan_rows = (*below).plan_rows;
        plan.plan_width = (*below).plan_width;
        let numbers: Vec<i32> = node::elements::<pg_sys::Integer>(described)
            .into_iter()
            .map(|number| (*number).ival)
            .collect();
        let shown = numbers[1] as usize;
        let (mut target_list, mut scan_list) = (Vec::new(), Vec::new());
        // Where the columns that are not junk stand in a row.
        let mut places = Vec::new();
        for entry in node::elements::<pg_sys::TargetEntry>((*below).targetlist) {
            let number = scan_list.len() as i16 + 1;
            let expr = (*entry).expr.cast::<pg_sys::Node>();
            let (type_oid, typmod, collation) =
                (pg_sys::exprType(expr), pg_sys::exprTypmod(expr), pg_sys::exprCollation(expr));
            // What it is made of is below; here only its type counts.
            let place = pg_sys::makeNullConst(type_oid, typmod, collation);
            scan_list.push(pg_sys::makeTargetEntry(place.cast(), number, (*entry).resname, false));
            if (*entry).resjunk {
                continue;
            }
            places.push(number - 1);
            if places.len() > shown {
                continue;
            }
            let var = pg_sys::makeVar(pg_sys::INDEX_VAR, number, type_oid, typmod, collation, 0);
            let output = places.len() as i16;
            let output = pg_sys::makeTargetEntry(var.cast(), output, (*entry).resname, false);
            (*output).resorigtbl = (*entry).resorigtbl;
            (*output).resorigcol = (*entry).resorigcol;
            target_list.push(output);
        }
        let mut private = vec![numbers[0]];
        let mut rest = &numbers[2..];
        while let [table, count, more @ ..] = rest {
            let (columns, more) = more.split_at(*count as usize * 2);
            private.extend([*table, *count]);
            for pair in columns.chunks(2) {
                private.extend([pair[0], i32::from(places[pair[1] as usize])]);
            }
            rest = more;
        }
        let private: Vec<_> =
            private.into_iter().map(|number| pg_sys::makeInteger(number)).collect();
        plan.targetlist = node::list_of(&target_list);
        if pg_sys::ExecSupportsBackwardScan(below) {
            (*scan).flags = pg_sys::CUSTOMPATH_SUPPORT_BACKWARD_SCAN;
        }
        (*scan).custom_scan_tlist = node::list_of(&scan_list);
        (*scan).custom_plans = node::list_of(&[below]);
        (*scan).custom_private = node::list_of(&private);
        (*scan).methods = SCAN_METHODS.pointer();
        (*planned).planTree = scan.cast();
    }
}

const NAME: &std::ffi::CStr = c"pg_shard cursor";

static SCAN_METHODS: Table<pg_sys::CustomScanMethods> = custom::scan_methods(NAME, create_state);

static EXEC_METHODS: Table<pg_sys::CustomExecMethods> =
    custom::exec_methods(NAME, &Functions { begin, exec, rescan, end, explain: None });

mod raw {
    //! Called without pgrx' guard: the frames between are plain.
    use pgrx::pg_sys;
    unsafe extern "C-unwind" {
        /// Plain frames: the node's functions hold nothing to drop.
        pub(super) fn ExecScan(
            node: *mut pg_sys::ScanState,
            access: pg_sys::ExecScanAccessMtd,
            recheck: pg_sys::ExecScanRecheckMtd,
        ) -> *mut pg_sys::TupleTableSlot;
        /// Plain frames: the node's functions hold nothing to drop.
        pub(super) fn ExecReScan(node: *mut pg_sys::PlanState);
        /// Plain frames: the node's functions hold nothing to drop.
        pub(super) fn ExecScanReScan(node: *mut pg_sys::ScanState);
        /// Plain frames: the node's functions hold nothing to drop.
        pub(super) fn ExecEndNode(node: *mut pg_sys::PlanState);
    }
}

unsafe extern "C-unwind" fn create_state(_: *mut pg_sys::CustomScan) -> *mut pg_sys::Node {
    // SAFETY: made with the struct of its tag.
    unsafe {
        boundary(|| {
            let state: *mut pg_sys::CustomScanState = node::make(NodeTag::T_CustomScanState);
            (*state).methods = EXEC_METHODS.pointer();
            Ok(state.cast())
        })
    }
}

unsafe extern "C-unwind" fn begin(
    custom: *mut pg_sys::CustomScanState,
    estate: *mut pg_sys::EState,
    flags: c_int,
) {
    // SAFETY: the executor calls us with the state that `create_state` made, for a plan that `wrap` made.
    unsafe {
        boundary(|| {
            let plan = (*custom).ss.ps.plan.cast::<pg_sys::CustomScan>();
            let below = pg_sys::ExecInitNode(node::nth((*plan).custom_plans, 0), estate, flags);
            (*custom).custom_ps = node::list_of(&[below]);
            Ok(())
        });
    }
}

unsafe fn below(custom: *mut pg_sys::CustomScanState) -> *mut pg_sys::PlanState {
    // SAFETY: the caller passes our own state, which `begin` has filled.
    unsafe { node::nth((*custom).custom_ps, 0) }
}

unsafe extern "C-unwind" fn exec(
    custom: *mut pg_sys::CustomScanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the executor's own scan loop over our two callbacks; this frame holds nothing to drop.
    unsafe { raw::ExecScan(&raw mut (*custom).ss, Some(access), Some(recheck)) }
}

unsafe extern "C-unwind" fn access(node: *mut pg_sys::ScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: our own state; the slot is virtual and as wide as the rows of the plan below, whose values stay until the
    // next row.
    unsafe {
        boundary(|| {
            let slot = (*node).ss_ScanTupleSlot;
            pg_sys::ExecClearTuple(slot);
            let row = pg_sys::ExecProcNode(below(node.cast()));
            if !row.is_null() && (*row).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 == 0 {
                pg_sys::slot_getallattrs(row);
                let natts = (*(*slot).tts_tupleDescriptor).natts as usize;
                std::ptr::copy_nonoverlapping((*row).tts_values, (*slot).tts_values, natts);
                std::ptr::copy_nonoverlapping((*row).tts_isnull, (*slot).tts_isnull, natts);
                pg_sys::ExecStoreVirtualTuple(slot);
            }
            Ok(slot)
        })
    }
}

unsafe extern "C-unwind" fn recheck(
    _: *mut pg_sys::ScanState,
    _: *mut pg_sys::TupleTableSlot,
) -> bool {
    true
}

unsafe extern "C-unwind" fn rescan(custom: *mut pg_sys::CustomScanState) {
    // SAFETY: our own state; this frame holds nothing to drop.
    unsafe {
        raw::ExecReScan(below(custom));
        raw::ExecScanReScan(&raw mut (*custom).ss);
    }
}

unsafe extern "C-unwind" fn end(custom: *mut pg_sys::CustomScanState) {
    // SAFETY: our own state; this frame holds nothing to drop.
    unsafe { raw::ExecEndNode(below(custom)) }
}

/// Registers the node; once, when the library is loaded.
pub(crate) fn register() {
    // SAFETY: the table is static.
    unsafe { pg_sys::RegisterCustomScanMethods(SCAN_METHODS.pointer()) };
}

/// `pgs_catalog.current_of`: a column of the row that a cursor stands on, of the column's own type. Only our own
/// plans call it, with the cursor's name, the table and the column's number.
///
/// # Safety
///
/// Called by PostgreSQL, with the arguments that `Statement::positioned` gives.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shard_current_of(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: PostgreSQL's live call information with three arguments.
    unsafe {
        boundary(|| {
            let argument = |index: usize| &*(*call).args.as_ptr().add(index);
            if argument(0).isnull {
                return Err(PgError::new(SqlState::UNDEFINED_OBJECT, "the cursor's name is null"));
            }
            let cursor = pg_sys::text_to_cstring(argument(0).value.cast_mut_ptr());
            let cursor = node::text_of(cursor);
            let table = Oid::from(argument(1).value.value() as u32);
            let value = current_value(&cursor, table, argument(2).value.value() as i16)?;
            (*call).isnull = value.is_none();
            Ok(value.unwrap_or(Datum::from(0)))
        })
    }
}

/// How PostgreSQL is to call it.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shard_current_of() -> *const pg_sys::Pg_finfo_record {
    static VERSION: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &raw const VERSION
}

/// Looks at the cursor as execCurrentOf does.
fn current_value(cursor: &str, table: Oid, column: i16) -> Result<Option<Datum>, PgError> {
    let state = |message: String| PgError::new(SqlState::INVALID_CURSOR_STATE, message);
    // SAFETY: reads a portal of this backend and its executor's state; the value is copied.
    unsafe {
        let name = CString::new(cursor).unwrap_or_default();
        let portal = pg_sys::GetPortalByName(name.as_ptr());
        if portal.is_null() {
            let message = format!("cursor \"{cursor}\" does not exist");
            return Err(PgError::new(SqlState::UNDEFINED_CURSOR, message));
        }
        let portal = &*portal;
        if portal.strategy != pg_sys::PortalStrategy::PORTAL_ONE_SELECT {
            return Err(state(format!("cursor \"{cursor}\" is not a SELECT query")));
        }
        let query = portal.queryDesc;
        if query.is_null() || (*query).estate.is_null() {
            return Err(state(format!("cursor \"{cursor}\" is held from a previous transaction")));
        }
        let named = node::text_of(pg_sys::get_rel_name(table));
        let unlocked = || {
            state(format!(
                "cursor \"{cursor}\" does not have a FOR UPDATE/SHARE reference to table \"{named}\""
            ))
        };
        let scan = (*query).planstate;
        let custom = node::cast::<pg_sys::CustomScanState, _>(scan, NodeTag::T_CustomScanState)
            .filter(|custom| (**custom).methods == EXEC_METHODS.pointer());
        let Some(custom) = custom else {
            return Err(if (*(*query).plannedstmt).rowMarks.is_null() {
                state(format!(
                    "cursor \"{cursor}\" is not a simply updatable scan of table \"{named}\""
                ))
            } else {
                unlocked()
            });
        };
        let private = (*(*custom).ss.ps.plan.cast::<pg_sys::CustomScan>()).custom_private;
        let numbers: Vec<i32> = node::elements::<pg_sys::Integer>(private)
            .into_iter()
            .map(|number| (*number).ival)
            .collect();
        let mut found = Vec::new();
        let mut rest = &numbers[1..];
        while let [of, count, more @ ..] = rest {
            let (columns, more) = more.split_at(*count as usize * 2);
            if of.cast_unsigned() == table.to_u32() {
                found.push(columns);
            }
            rest = more;
        }
        let columns = match found[..] {
            [columns] => columns,
            [] if numbers[0] == 0 => {
                return Err(state(format!(
                    "cursor \"{cursor}\" is not a simply updatable scan of table \"{named}\""
                )));
            }
            [] => return Err(unlocked()),
            _ => {
                return Err(state(format!(
                    "cursor \"{cursor}\" has multiple FOR UPDATE/SHARE references to table \"{named}\""
                )));
            }
        };
        if portal.atStart || portal.atEnd {
            return Err(state(format!("cursor \"{cursor}\" is not positioned on a row")));
        }
        let place = columns.chunks(2).find(|pair| pair[0] == i32::from(column));
        let place = place.ok_or_else(|| {
            state(format!("table \"{named}\" has changed since cursor \"{cursor}\" was opened"))
        })?[1] as usize;
        let slot = (*custom).ss.ss_ScanTupleSlot;
        if (*slot).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 != 0 || *(*slot).tts_isnull.add(place)
        {
            return Ok(None);
        }
        let attribute = version::attribute((*slot).tts_tupleDescriptor, place);
        let value = *(*slot).tts_values.add(place);
        Ok(Some(copy_datum(value, (*attribute).attbyval, (*attribute).attlen)))
    }
}
