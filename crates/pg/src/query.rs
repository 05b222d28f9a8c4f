//! Reading analysed queries: what a statement touches, what its filters say of the distribution columns, and
//! what stands in the way of sending it to a worker as it is.
//!
//! Everything is read from a private copy in which [`Statement::prepare`] has already replaced what the
//! coordinator must compute itself by parameters. The result, [`Facts`], holds no pointers.

use crate::node::{self, Visit};
use crate::value::{FIRST_USER_OID, Hasher};
use pgrx::pg_sys::{self, NodeTag, Oid};
use shardmap::prune::Prune;
use shardmap::route::Equalities;
use std::ffi::c_void;

/// What kind of statement it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// SELECT without locks.
    Select,
    /// SELECT ... FOR UPDATE or FOR SHARE.
    SelectForUpdate,
    /// INSERT.
    Insert,
    /// INSERT ... ON CONFLICT DO UPDATE.
    Upsert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// MERGE.
    Merge,
}

impl Command {
    /// It changes rows.
    pub fn is_write(self) -> bool {
        !matches!(self, Self::Select | Self::SelectForUpdate)
    }

    /// Small numbers for plans.
    pub fn code(self) -> i32 {
        match self {
            Self::Select => 0,
            Self::SelectForUpdate => 1,
            Self::Insert => 2,
            Self::Upsert => 3,
            Self::Update => 4,
            Self::Delete => 5,
            Self::Merge => 6,
        }
    }

    /// Back from [`Self::code`].
    pub fn from_code(code: i32) -> Self {
        match code {
            1 => Self::SelectForUpdate,
            2 => Self::Insert,
            3 => Self::Upsert,
            4 => Self::Update,
            5 => Self::Delete,
            6 => Self::Merge,
            _ => Self::Select,
        }
    }
}

/// How a distributed table is cut, as far as reading filters needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DistributionKey {
    /// The distribution column's number.
    pub column: i16,
    /// The hash operator family of its type.
    pub family: Oid,
    /// The type whose hash function places rows (the column's, or its base type).
    pub type_oid: Oid,
    /// The collation to hash under.
    pub collation: Oid,
}

/// A column of a range table entry of some query level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    level: usize,
    relation: u32,
    number: i16,
}

/// A value for a distribution column: an expression of the prepared statement, and the type to hash it as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Index into the prepared expressions.
    pub expression: usize,
    /// The type whose hash function applies.
    pub hash_type: Oid,
    /// The hash operator family.
    pub family: Oid,
    /// The collation to hash under.
    pub collation: Oid,
    /// The value is an array; any of its elements.
    pub is_array: bool,
}

/// A distributed table in a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DistributedRelation {
    /// The table.
    pub table: Oid,
    /// Its distribution column.
    pub column: Column,
}

/// Why a statement cannot go to a worker as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It reads or writes a table that is here only.
    LocalTable(Oid),
    /// A volatile function of columns, or one per row.
    VolatileFunction(Oid),
    /// A user's function: the workers need not have it.
    UserFunction(Oid),
    /// Something that only this server knows (its catalogs, its settings).
    LocalState,
    /// A row of a table as a value inside an expression.
    WholeRow,
    /// Row security applies.
    RowSecurity,
    /// It writes a second table in a WITH clause, or writes below a SELECT.
    NestedWrite,
    /// The statement changes the distribution column.
    KeyChange,
    /// What it writes depends on where rows lie: system columns, LIMIT, DISTINCT ON, window functions.
    PlacementDependent,
}

/// What a statement touches and says.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its kind.
    pub command: Command,
    /// The distributed table it writes, if any.
    pub target: Option<Oid>,
    /// All distributed tables, each as often as it stands there.
    pub relations: Vec<DistributedRelation>,
    /// What stands in the way of routing.
    pub obstacles: Vec<Obstacle>,
    /// Equalities between columns and keys.
    pub equalities: Equalities<Column, Key>,
    /// What the top query's filter says of the only distributed table; `All` if there are several.
    pub prune: Prune<Key>,
    /// The INSERT's rows come from VALUES with several rows, or a sub-query.
    pub insert_source: InsertSource,
    /// It has a RETURNING clause.
    pub has_returning: bool,
    /// It has an ON CONFLICT clause.
    pub has_on_conflict: bool,
    /// The distribution column of an INSERT gets no value, or a literal NULL.
    pub null_key: bool,
}

/// Where an INSERT's rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InsertSource {
    /// Not an INSERT, or one row of expressions.
    OneRow,
    /// VALUES with several rows; the key of each, if each is an expression without columns.
    Values(Vec<Key>),
    /// A query.
    Query,
}

/// A statement that is being planned: PostgreSQL's `Query`, not to be changed.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    pub(crate) parse: *mut pg_sys::Query,
}

/// A private copy of a statement whose coordinator-side expressions are parameters now.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(crate) query: *mut pg_sys::Query,
    /// Expressions to compute at execution: first those sent as parameters, then keys.
    pub(crate) expressions: Vec<*mut pg_sys::Node>,
    /// How many of them are sent.
    pub sent: usize,
    /// Parameters in the query are ours already.
    folded: bool,
}

/// An INSERT of one row whose columns are parameters.
#[derive(Clone, Debug)]
pub struct RowInsert {
    /// The statement; its expressions are numbered after the columns.
    pub prepared: Prepared,
    /// The columns, in the order of their parameters.
    pub columns: Vec<ColumnName>,
}

/// A column that an INSERT names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnName {
    /// Its number in the table.
    pub number: i16,
    /// Its name, not quoted.
    pub name: String,
}

type Lookup<'a> = dyn Fn(Oid) -> Option<DistributionKey> + 'a;

impl Statement {
    /// The tables that the statement names anywhere, each once.
    pub fn tables(&self) -> Vec<Oid> {
        let mut tables = Vec::new();
        // SAFETY: the Query is live during planning; only range tables are read.
        unsafe {
            node::walk(self.parse, &mut |n| {
                if node::tag(n) == NodeTag::T_Query {
                    for rte in
                        node::elements::<pg_sys::RangeTblEntry>((*n.cast::<pg_sys::Query>()).rtable)
                    {
                        if (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION
                            && !tables.contains(&(*rte).relid)
                        {
                            tables.push((*rte).relid);
                        }
                    }
                }
                Visit::Into
            });
        }
        tables
    }

    /// The tables that the statement writes, at any level.
    pub fn written_tables(&self) -> Vec<Oid> {
        let mut tables = Vec::new();
        // SAFETY: as in `tables`; resultRelation is an index into the range table or zero.
        unsafe {
            node::walk(self.parse, &mut |n| {
                if node::tag(n) == NodeTag::T_Query {
                    let query = n.cast::<pg_sys::Query>();
                    if (*query).resultRelation > 0 {
                        let rte: *mut pg_sys::RangeTblEntry =
                            node::nth((*query).rtable, (*query).resultRelation as usize - 1);
                        if (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION {
                            tables.push((*rte).relid);
                        }
                    }
                }
                Visit::Into
            });
        }
        tables
    }

    /// The tables that a FOR UPDATE or FOR SHARE of some level locks.
    pub fn locked_tables(&self) -> Vec<Oid> {
        let mut tables = Vec::new();
        // SAFETY: as in `tables`; a row mark's index is into its own query's range table.
        unsafe {
            node::walk(self.parse, &mut |n| {
                if node::tag(n) == NodeTag::T_Query {
                    let query = n.cast::<pg_sys::Query>();
                    for mark in node::elements::<pg_sys::RowMarkClause>((*query).rowMarks) {
                        let rte: *mut pg_sys::RangeTblEntry =
                            node::nth((*query).rtable, (*mark).rti as usize - 1);
                        if (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION {
                            tables.push((*rte).relid);
                        }
                    }
                }
                Visit::Into
            });
        }
        tables
    }

    /// The statement without its FOR UPDATE and FOR SHARE on distributed tables: their scans lock the rows on
    /// the workers instead, before filters that run here, so that more rows may be locked than are returned.
    pub fn with_locks_on_workers(&self, is_distributed: &dyn Fn(Oid) -> bool) -> Statement {
        // SAFETY: a live Query of the planner hook; the copy is private. `enrname` names a tuplestore and is read
        // for RTE_NAMEDTUPLESTORE only, so for a relation it is ours; copyObject keeps it.
        unsafe {
            let query = node::copy(self.parse);
            node::walk(query, &mut |n| {
                if node::tag(n) == NodeTag::T_Query {
                    let query = n.cast::<pg_sys::Query>();
                    let mut kept = Vec::new();
                    for mark in node::elements::<pg_sys::RowMarkClause>((*query).rowMarks) {
                        let rte: *mut pg_sys::RangeTblEntry =
                            node::nth((*query).rtable, (*mark).rti as usize - 1);
                        if (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION
                            && is_distributed((*rte).relid)
                        {
                            (*rte).enrname = node::c_text(&lock_clause(mark));
                        } else if (*rte).rtekind != pg_sys::RTEKind::RTE_SUBQUERY {
                            kept.push(mark);
                        }
                    }
                    (*query).rowMarks = node::list_of(&kept);
                }
                Visit::Into
            });
            Statement { parse: query }
        }
    }

    /// The statement's kind.
    pub fn command(&self) -> Command {
        // SAFETY: the Query is live during planning.
        let query = unsafe { &*self.parse };
        match query.commandType {
            pg_sys::CmdType::CMD_INSERT => {
                // SAFETY: onConflict is null or live.
                let upsert = unsafe {
                    !query.onConflict.is_null()
                        && (*query.onConflict).action == pg_sys::OnConflictAction::ONCONFLICT_UPDATE
                };
                if upsert { Command::Upsert } else { Command::Insert }
            }
            pg_sys::CmdType::CMD_UPDATE => Command::Update,
            pg_sys::CmdType::CMD_DELETE => Command::Delete,
            pg_sys::CmdType::CMD_MERGE => Command::Merge,
            _ if self.locked_tables().is_empty() => Command::Select,
            _ => Command::SelectForUpdate,
        }
    }

    /// Copies the statement and makes parameters of what the coordinator computes: the client's parameters,
    /// stable functions, and in writes of one row or by key volatile ones too.
    pub fn prepare(&self) -> Prepared {
        // SAFETY: a live Query of the planner hook.
        unsafe {
            let query = node::copy(self.parse);
            complete_values_lists(query);
            let is_values_insert =
                (*query).commandType == pg_sys::CmdType::CMD_INSERT && !has_subquery_source(query);
            let fold_volatile = is_values_insert
                || matches!(
                    (*query).commandType,
                    pg_sys::CmdType::CMD_UPDATE | pg_sys::CmdType::CMD_DELETE
                );
            fold(query, fold_volatile, 0)
        }
    }

    /// The statement as an INSERT of one row whose columns are `$1`, `$2`, ...; ON CONFLICT and RETURNING stay.
    pub fn prepare_row_insert(&self) -> RowInsert {
        // SAFETY: a live Query of the planner hook, an INSERT.
        unsafe {
            let query = node::copy(self.parse);
            complete_values_lists(query);
            let target: *mut pg_sys::RangeTblEntry =
                node::nth((*query).rtable, (*query).resultRelation as usize - 1);
            let mut columns = Vec::new();
            for entry in node::elements::<pg_sys::TargetEntry>((*query).targetList) {
                let placeholder = parameter_for((*entry).expr.cast(), columns.len());
                (*entry).expr = placeholder.cast();
                columns.push(ColumnName {
                    number: (*entry).resno,
                    name: node::text_of(pg_sys::get_attname(
                        (*target).relid,
                        (*entry).resno,
                        false,
                    )),
                });
            }
            for rte in node::elements::<pg_sys::RangeTblEntry>((*query).rtable) {
                if matches!(
                    (*rte).rtekind,
                    pg_sys::RTEKind::RTE_SUBQUERY | pg_sys::RTEKind::RTE_VALUES
                ) {
                    (*rte).rtekind = pg_sys::RTEKind::RTE_RESULT;
                    (*rte).subquery = std::ptr::null_mut();
                }
            }
            (*(*query).jointree).fromlist = std::ptr::null_mut();
            (*query).cteList = std::ptr::null_mut();
            let prepared = fold(query, true, columns.len());
            RowInsert { prepared, columns }
        }
    }

    /// The rows that an INSERT brings, as a SELECT of its own: one column for each column of the target list.
    ///
    /// The target's entry stays in the range table, so that the executor checks the right to INSERT.
    pub fn insert_source(&self) -> Statement {
        // SAFETY: a live Query of the planner hook, an INSERT; the copy is private.
        unsafe {
            let query = node::copy(self.parse);
            complete_values_lists(query);
            (*query).commandType = pg_sys::CmdType::CMD_SELECT;
            (*query).resultRelation = 0;
            (*query).returningList = std::ptr::null_mut();
            (*query).onConflict = std::ptr::null_mut();
            for (index, entry) in
                node::elements::<pg_sys::TargetEntry>((*query).targetList).into_iter().enumerate()
            {
                (*entry).resno = index as i16 + 1;
                if (*entry).resname.is_null() {
                    (*entry).resname = node::c_text(&format!("column{}", index + 1));
                }
            }
            Statement { parse: query }
        }
    }
}

/// A row mark as SQL.
unsafe fn lock_clause(mark: *mut pg_sys::RowMarkClause) -> String {
    // SAFETY: the caller passes a live row mark.
    let (strength, policy) = unsafe { ((*mark).strength, (*mark).waitPolicy) };
    let strength = match strength {
        pg_sys::LockClauseStrength::LCS_FORKEYSHARE => "FOR KEY SHARE",
        pg_sys::LockClauseStrength::LCS_FORSHARE => "FOR SHARE",
        pg_sys::LockClauseStrength::LCS_FORNOKEYUPDATE => "FOR NO KEY UPDATE",
        _ => "FOR UPDATE",
    };
    let policy = match policy {
        pg_sys::LockWaitPolicy::LockWaitSkip => " SKIP LOCKED",
        pg_sys::LockWaitPolicy::LockWaitError => " NOWAIT",
        _ => "",
    };
    format!("{strength}{policy}")
}

/// Makes parameters, numbered after `first`, of what the coordinator computes.
unsafe fn fold(query: *mut pg_sys::Query, fold_volatile: bool, first: usize) -> Prepared {
    // SAFETY: the caller passes a private, live copy.
    unsafe {
        name_conflict_columns(query);
        expand_whole_rows(query);
        let mut expressions: Vec<*mut pg_sys::Node> = Vec::new();
        let query = node::rewrite(query, &mut |n| {
            if let Some(param) = node::cast::<pg_sys::Param, _>(n, NodeTag::T_Param)
                && (*param).location == OWN_PARAMETER
            {
                return Some(n);
            }
            fold_one(n, fold_volatile, &[], first, &mut expressions)
        });
        let sent = expressions.len();
        Prepared { query, expressions, sent, folded: true }
    }
}

/// The parameter that takes the node's place, if it is to be computed here.
pub(crate) unsafe fn fold_one(
    n: *mut pg_sys::Node,
    fold_volatile: bool,
    init_params: &[i32],
    first: usize,
    expressions: &mut Vec<*mut pg_sys::Node>,
) -> Option<*mut pg_sys::Node> {
    // SAFETY: the caller passes a live node of the tree that it rewrites.
    unsafe {
        if !is_foldable(n, fold_volatile, init_params) {
            return None;
        }
        let known = (!pg_sys::contain_volatile_functions(n))
            .then(|| expressions.iter().position(|e| pg_sys::equal((*e).cast(), n.cast())))
            .flatten();
        let index = known.unwrap_or_else(|| {
            expressions.push(n);
            expressions.len() - 1
        });
        Some(parameter_for(n, first + index))
    }
}

/// An INSERT takes its rows from a sub-query.
unsafe fn has_subquery_source(query: *mut pg_sys::Query) -> bool {
    // SAFETY: the caller passes a live Query; FROM items of an INSERT are references into its range table.
    unsafe {
        node::elements::<pg_sys::Node>((*(*query).jointree).fromlist).into_iter().any(|item| {
            node::cast::<pg_sys::RangeTblRef, _>(item, NodeTag::T_RangeTblRef).is_none_or(
                |reference| {
                    let rte: *mut pg_sys::RangeTblEntry =
                        node::nth((*query).rtable, (*reference).rtindex as usize - 1);
                    (*rte).rtekind != pg_sys::RTEKind::RTE_VALUES
                },
            )
        })
    }
}

/// Marks, in a place that nothing reads, the parameters that we made.
const OWN_PARAMETER: i32 = -77;

/// A `$n` that takes the place of `expression`.
///
/// Types of users print with a cast, since the worker knows them only by name.
unsafe fn parameter_for(expression: *mut pg_sys::Node, index: usize) -> *mut pg_sys::Node {
    // SAFETY: a live expression; the nodes are made with the structs of their tags.
    unsafe {
        let param: *mut pg_sys::Param = node::make(NodeTag::T_Param);
        (*param).paramkind = pg_sys::ParamKind::PARAM_EXTERN;
        (*param).paramid = index as i32 + 1;
        (*param).paramtype = pg_sys::exprType(expression);
        (*param).paramtypmod = pg_sys::exprTypmod(expression);
        (*param).paramcollid = pg_sys::exprCollation(expression);
        (*param).location = OWN_PARAMETER;
        if (*param).paramtype.to_u32() < FIRST_USER_OID {
            return param.cast();
        }
        let cast: *mut pg_sys::RelabelType = node::make(NodeTag::T_RelabelType);
        (*cast).arg = param.cast();
        (*cast).resulttype = (*param).paramtype;
        (*cast).resulttypmod = (*param).paramtypmod;
        (*cast).resultcollid = (*param).paramcollid;
        (*cast).relabelformat = pg_sys::CoercionForm::COERCE_EXPLICIT_CAST;
        (*cast).location = -1;
        cast.cast()
    }
}

/// The expression has no columns and needs this server or this moment: it is to be computed here, once.
pub(crate) unsafe fn is_foldable(
    n: *mut pg_sys::Node,
    fold_volatile: bool,
    init_params: &[i32],
) -> bool {
    // SAFETY: a live node of the tree that is being rewritten.
    unsafe {
        if !is_scalar_expression(node::tag(n)) {
            return false;
        }
        let mut mutable = false;
        let blocked = node::walk(n, &mut |part| match node::tag(part) {
            NodeTag::T_Var
            | NodeTag::T_Aggref
            | NodeTag::T_GroupingFunc
            | NodeTag::T_WindowFunc
            | NodeTag::T_SubLink
            | NodeTag::T_SubPlan
            | NodeTag::T_AlternativeSubPlan
            | NodeTag::T_Query
            | NodeTag::T_SetToDefault
            | NodeTag::T_CurrentOfExpr
            | NodeTag::T_CaseTestExpr
            | NodeTag::T_CoerceToDomainValue
            | NodeTag::T_TargetEntry
            | NodeTag::T_List
            | NodeTag::T_PlaceHolderVar => Visit::Stop,
            NodeTag::T_Param => {
                mutable = true;
                let param = part.cast::<pg_sys::Param>();
                let known = match (*param).paramkind {
                    pg_sys::ParamKind::PARAM_EXTERN => true,
                    pg_sys::ParamKind::PARAM_EXEC => init_params.contains(&(*param).paramid),
                    _ => false,
                };
                if known { Visit::Skip } else { Visit::Stop }
            }
            NodeTag::T_NextValueExpr | NodeTag::T_SQLValueFunction | NodeTag::T_CoerceViaIO => {
                mutable |= node::tag(part) != NodeTag::T_CoerceViaIO;
                Visit::Into
            }
            _ => {
                mutable |= pg_sys::check_functions_in_node(
                    part,
                    Some(is_not_immutable),
                    std::ptr::null_mut(),
                );
                Visit::Into
            }
        });
        !blocked
            && mutable
            && !pg_sys::expression_returns_set(n)
            && (fold_volatile || !pg_sys::contain_volatile_functions(n))
    }
}

/// A node that yields one value and may stand where any expression may.
fn is_scalar_expression(tag: NodeTag) -> bool {
    matches!(
        tag,
        NodeTag::T_Param
            | NodeTag::T_FuncExpr
            | NodeTag::T_OpExpr
            | NodeTag::T_DistinctExpr
            | NodeTag::T_NullIfExpr
            | NodeTag::T_ScalarArrayOpExpr
            | NodeTag::T_BoolExpr
            | NodeTag::T_SubscriptingRef
            | NodeTag::T_FieldSelect
            | NodeTag::T_RelabelType
            | NodeTag::T_CoerceViaIO
            | NodeTag::T_ArrayCoerceExpr
            | NodeTag::T_ConvertRowtypeExpr
            | NodeTag::T_CollateExpr
            | NodeTag::T_CaseExpr
            | NodeTag::T_ArrayExpr
            | NodeTag::T_RowExpr
            | NodeTag::T_CoalesceExpr
            | NodeTag::T_MinMaxExpr
            | NodeTag::T_SQLValueFunction
            | NodeTag::T_NextValueExpr
            | NodeTag::T_NullTest
            | NodeTag::T_BooleanTest
            | NodeTag::T_CoerceToDomain
    )
}

unsafe extern "C-unwind" fn is_not_immutable(function: Oid, _: *mut c_void) -> bool {
    // SAFETY: a syscache look-up by value.
    unsafe { pg_sys::func_volatile(function) as u8 != pg_sys::PROVOLATILE_IMMUTABLE }
}

/// After the rewriter, a column with a default that an INSERT of several VALUES rows does not name is in the
/// target list only; ruleutils prints the VALUES lists, so the default goes there, once per row.
unsafe fn complete_values_lists(query: *mut pg_sys::Query) {
    // SAFETY: a private, live copy of a Query.
    unsafe {
        if (*query).commandType != pg_sys::CmdType::CMD_INSERT {
            return;
        }
        let values = node::elements::<pg_sys::RangeTblEntry>((*query).rtable)
            .into_iter()
            .enumerate()
            .find(|(_, rte)| (**rte).rtekind == pg_sys::RTEKind::RTE_VALUES);
        let Some((index, values)) = values else { return };
        for entry in node::elements::<pg_sys::TargetEntry>((*query).targetList) {
            let expr = (*entry).expr.cast::<pg_sys::Node>();
            let mut has_column = false;
            node::walk(expr, &mut |n| {
                has_column |= node::tag(n) == NodeTag::T_Var;
                Visit::Into
            });
            if node::tag(expr) == NodeTag::T_Var {
                continue;
            }
            // An expression over VALUES columns (a cast) is computed per row: substitute the row's own values.
            for row in node::elements::<pg_sys::List>((*values).values_lists) {
                let own = node::rewrite(expr, &mut |n| {
                    let var = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var)?;
                    ((*var).varno as usize == index + 1 && (*var).varlevelsup == 0).then(|| {
                        node::copy::<pg_sys::Node>(node::nth(row, (*var).varattno as usize - 1))
                    })
                });
                pg_sys::lappend(row, own.cast());
            }
            let (type_oid, typmod, collation) =
                (pg_sys::exprType(expr), pg_sys::exprTypmod(expr), pg_sys::exprCollation(expr));
            (*values).coltypes = pg_sys::lappend_oid((*values).coltypes, type_oid);
            (*values).coltypmods = pg_sys::lappend_int((*values).coltypmods, typmod);
            (*values).colcollations = pg_sys::lappend_oid((*values).colcollations, collation);
            let name = format!("column{}", node::length((*values).coltypes));
            (*(*values).eref).colnames =
                pg_sys::lappend((*(*values).eref).colnames, node::string_node(&name).cast());
            let number = node::length((*values).coltypes) as i16;
            (*entry).expr =
                pg_sys::makeVar(index as i32 + 1, number, type_oid, typmod, collation, 0).cast();
        }
    }
}

/// `ON CONFLICT ON CONSTRAINT name` names a constraint of the table, which has another name on a shard: name
/// its columns instead.
unsafe fn name_conflict_columns(query: *mut pg_sys::Query) {
    // SAFETY: a private, live copy of a Query.
    unsafe {
        let conflict = (*query).onConflict;
        if conflict.is_null() || (*conflict).constraint == Oid::INVALID {
            return;
        }
        let index = pg_sys::get_constraint_index((*conflict).constraint);
        let rte: *mut pg_sys::RangeTblEntry =
            node::nth((*query).rtable, (*query).resultRelation as usize - 1);
        let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
        let form = (*relation).rd_index;
        let mut elements: Vec<*mut pg_sys::InferenceElem> = Vec::new();
        for position in 0..(*form).indnkeyatts as usize {
            let column = *(*form).indkey.values.as_ptr().add(position);
            let (mut type_oid, mut typmod, mut collation) = (Oid::INVALID, 0, Oid::INVALID);
            pg_sys::get_atttypetypmodcoll(
                (*rte).relid,
                column,
                &raw mut type_oid,
                &raw mut typmod,
                &raw mut collation,
            );
            let element: *mut pg_sys::InferenceElem = node::make(NodeTag::T_InferenceElem);
            (*element).expr =
                pg_sys::makeVar((*query).resultRelation, column, type_oid, typmod, collation, 0)
                    .cast();
            elements.push(element);
        }
        let is_unique = (*form).indisunique;
        pg_sys::index_close(relation, pg_sys::AccessShareLock as i32);
        if is_unique {
            (*conflict).arbiterElems = node::list_of(&elements);
            (*conflict).constraint = Oid::INVALID;
        }
    }
}

/// A row of a table in a target list prints as `t.*::schema.t`, a type that workers do not have: spell it
/// as ROW(columns), which arrives as text and is read as the table's row type here.
unsafe fn expand_whole_rows(query: *mut pg_sys::Query) {
    // SAFETY: a private, live copy of a Query.
    unsafe {
        let lists = [(*query).targetList, (*query).returningList];
        for entry in lists.into_iter().flat_map(|list| node::elements::<pg_sys::TargetEntry>(list))
        {
            let Some(var) = node::cast::<pg_sys::Var, _>((*entry).expr, NodeTag::T_Var) else {
                continue;
            };
            if (*var).varattno != 0 || (*var).varlevelsup != 0 {
                continue;
            }
            let rte: *mut pg_sys::RangeTblEntry =
                node::nth((*query).rtable, (*var).varno as usize - 1);
            if (*rte).rtekind != pg_sys::RTEKind::RTE_RELATION {
                continue;
            }
            let row: *mut pg_sys::RowExpr = node::make(NodeTag::T_RowExpr);
            let mut columns: Vec<*mut pg_sys::Var> = Vec::new();
            let relation = pg_sys::relation_open((*rte).relid, pg_sys::NoLock as i32);
            let descriptor = (*relation).rd_att;
            for index in 0..(*descriptor).natts as usize {
                let attribute = (*descriptor).attrs.as_ptr().add(index);
                if !(*attribute).attisdropped {
                    columns.push(pg_sys::makeVar(
                        (*var).varno,
                        (*attribute).attnum,
                        (*attribute).atttypid,
                        (*attribute).atttypmod,
                        (*attribute).attcollation,
                        0,
                    ));
                }
            }
            pg_sys::relation_close(relation, pg_sys::NoLock as i32);
            (*row).args = node::list_of(&columns);
            (*row).row_typeid = pg_sys::RECORDOID;
            (*row).row_format = pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;
            (*row).location = -1;
            (*entry).expr = row.cast();
        }
    }
}

/// What a filter of a base relation in PostgreSQL's planner says of its distribution column.
///
/// # Safety
///
/// `clauses` are live expressions over relation `relation`.
pub(crate) unsafe fn prune_of_clauses(
    clauses: &[*mut pg_sys::Node],
    relation: u32,
    key: &DistributionKey,
    expressions: Vec<*mut pg_sys::Node>,
) -> (Prune<Key>, Vec<*mut pg_sys::Node>) {
    let sent = expressions.len();
    let mut prepared = Prepared { query: std::ptr::null_mut(), expressions, sent, folded: false };
    let column = Column { level: 0, relation, number: key.column };
    let facts = Facts {
        command: Command::Select,
        target: None,
        relations: Vec::new(),
        obstacles: Vec::new(),
        equalities: Equalities::default(),
        prune: Prune::All,
        insert_source: InsertSource::OneRow,
        has_returning: false,
        has_on_conflict: false,
        null_key: false,
    };
    let none = |_| None;
    let mut reader = Reader {
        prepared: &mut prepared,
        distribution: &none,
        facts,
        levels: vec![std::ptr::null_mut()],
    };
    let prune = clauses.iter().fold(Prune::All, |prune, clause| {
        // SAFETY: the caller vouches for the clauses.
        prune.and(unsafe { reader.prune_of(*clause, column, key) })
    });
    (prune, prepared.expressions)
}

/// A filter that a worker can apply with the same outcome.
///
/// # Safety
///
/// `clause` is a live expression over base relation `relation`.
pub(crate) unsafe fn is_shippable(
    clause: *mut pg_sys::Node,
    relation: u32,
    init_params: &[i32],
) -> bool {
    // SAFETY: the caller vouches for the clause.
    unsafe {
        !node::walk(clause, &mut |n| {
            if is_foldable(n, false, init_params) {
                return Visit::Skip;
            }
            match node::tag(n) {
                NodeTag::T_Var => {
                    let var = n.cast::<pg_sys::Var>();
                    let ours = (*var).varno as u32 == relation && (*var).varlevelsup == 0;
                    let plain = (*var).varattno > 0
                        || i32::from((*var).varattno) == pg_sys::SelfItemPointerAttributeNumber;
                    if ours && plain { Visit::Into } else { Visit::Stop }
                }
                NodeTag::T_Param
                | NodeTag::T_SubLink
                | NodeTag::T_SubPlan
                | NodeTag::T_AlternativeSubPlan
                | NodeTag::T_Aggref
                | NodeTag::T_GroupingFunc
                | NodeTag::T_WindowFunc
                | NodeTag::T_PlaceHolderVar
                | NodeTag::T_CurrentOfExpr
                | NodeTag::T_NextValueExpr
                | NodeTag::T_SQLValueFunction
                | NodeTag::T_ConvertRowtypeExpr => Visit::Stop,
                _ => {
                    let mut found: Vec<Oid> = Vec::new();
                    pg_sys::check_functions_in_node(
                        n,
                        Some(note_function),
                        (&raw mut found).cast(),
                    );
                    let shippable = found.into_iter().all(|function| {
                        let volatility = pg_sys::func_volatile(function) as u8;
                        function.to_u32() < FIRST_USER_OID
                            && volatility != pg_sys::PROVOLATILE_VOLATILE
                            && !(volatility == pg_sys::PROVOLATILE_STABLE
                                && reads_local_state(function))
                    });
                    if shippable { Visit::Into } else { Visit::Stop }
                }
            }
        })
    }
}

impl Prepared {
    /// Reads the facts; `distribution` tells which tables are distributed and how.
    pub fn facts(&mut self, command: Command, distribution: &Lookup<'_>) -> Facts {
        let facts = Facts {
            command,
            target: None,
            relations: Vec::new(),
            obstacles: Vec::new(),
            equalities: Equalities::default(),
            prune: Prune::All,
            insert_source: InsertSource::OneRow,
            // SAFETY: the copy is live.
            has_returning: unsafe { !(*self.query).returningList.is_null() },
            // SAFETY: as above.
            has_on_conflict: unsafe { !(*self.query).onConflict.is_null() },
            null_key: false,
        };
        let query = self.query;
        let mut reader = Reader { prepared: self, distribution, facts, levels: Vec::new() };
        // SAFETY: the copy is a live tree that the analyser or the rewriter made.
        unsafe {
            reader.read_query(query);
            reader.read_target(query);
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
            let mut hasher = Hasher::find(key.family, key.hash_type, key.collation)?;
            Some(Some(hasher.hash((*constant).constvalue)))
        }
    }
}

struct Reader<'a> {
    prepared: &'a mut Prepared,
    distribution: &'a Lookup<'a>,
    facts: Facts,
    levels: Vec<*mut pg_sys::Query>,
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
        self.levels.push(query);
        // SAFETY: the caller passes a live Query; everything below hangs on it.
        unsafe {
            let excluded =
                if (*query).onConflict.is_null() { 0 } else { (*(*query).onConflict).exclRelIndex };
            if self.levels.len() > 1 && (*query).commandType != pg_sys::CmdType::CMD_SELECT {
                self.facts.obstacles.push(Obstacle::NestedWrite);
            }
            if self.facts.command.is_write() && !passes_filters(query) {
                self.facts.obstacles.push(Obstacle::PlacementDependent);
            }
            for (index, rte) in
                node::elements::<pg_sys::RangeTblEntry>((*query).rtable).into_iter().enumerate()
            {
                if index as i32 + 1 != excluded {
                    self.read_entry(query, index as u32 + 1, rte);
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
                self.read_expression(n, query);
                Visit::Into
            });
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
                        self.facts
                            .relations
                            .push(DistributedRelation { table: (*rte).relid, column });
                        if !(*rte).securityQuals.is_null() || !(*query).withCheckOptions.is_null() {
                            self.facts.obstacles.push(Obstacle::RowSecurity);
                        }
                    } else if (*rte).relkind as u8 != pg_sys::RELKIND_VIEW {
                        // A view's own entry stays for its permission check; its tables are in the sub-query.
                        self.facts.obstacles.push(Obstacle::LocalTable((*rte).relid));
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
            if inner.is_null()
                || !(*inner).setOperations.is_null()
                || (*inner).commandType != pg_sys::CmdType::CMD_SELECT
            {
                return;
            }
            let passes_filters = used_once && passes_filters(inner);
            let grouped = !(*inner).groupClause.is_null()
                || (*inner).hasAggs
                || !(*inner).groupingSets.is_null();
            for entry in node::elements::<pg_sys::TargetEntry>((*inner).targetList) {
                let Some(var) = node::cast::<pg_sys::Var, _>(
                    strip_relabel((*entry).expr.cast()),
                    NodeTag::T_Var,
                ) else {
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
        // SAFETY: a live join tree.
        unsafe {
            if let Some(from) = node::cast::<pg_sys::FromExpr, _>(item, NodeTag::T_FromExpr) {
                for part in node::elements::<pg_sys::Node>((*from).fromlist) {
                    self.read_from(part, query);
                }
                self.read_conjuncts((*from).quals, query, &Scope::Everything);
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
                    if !is_hash_equality((*op).opno) || !is_deterministic((*op).inputcollid) {
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
                    if let Some(key) = self.read_key(op, column, right) {
                        self.facts.equalities.key(column, key);
                    }
                }
                (None, Some(column)) if restricts(&column) => {
                    let commuted = pg_sys::get_commutator((*op).opno);
                    if commuted == (*op).opno
                        && let Some(key) = self.read_key(op, column, left)
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
            let var = node::cast::<pg_sys::Var, _>(strip_relabel(n), NodeTag::T_Var)?;
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
        value: *mut pg_sys::Node,
    ) -> Option<Key> {
        // SAFETY: live expressions.
        unsafe {
            if !is_plain_value(value) {
                return None;
            }
            let table = self.key_of(column);
            self.key_for(op.cast(), (*op).opno, (*op).inputcollid, table.as_ref(), value, false)
        }
    }

    unsafe fn key_for(
        &mut self,
        _source: *mut pg_sys::Node,
        operator: Oid,
        collation: Oid,
        table: Option<&DistributionKey>,
        value: *mut pg_sys::Node,
        is_array: bool,
    ) -> Option<Key> {
        // SAFETY: syscache look-ups by value.
        unsafe {
            let (mut left_type, mut right_type) = (Oid::INVALID, Oid::INVALID);
            pg_sys::op_input_types(operator, &raw mut left_type, &raw mut right_type);
            let (family, hash_collation) = match table {
                Some(key) => (key.family, key.collation),
                None => {
                    let cache = pg_sys::lookup_type_cache(
                        left_type,
                        pg_sys::TYPECACHE_HASH_OPFAMILY as i32,
                    );
                    ((*cache).hash_opf, collation)
                }
            };
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

    unsafe fn read_expression(&mut self, n: *mut pg_sys::Node, query: *mut pg_sys::Query) {
        // SAFETY: a live node of the statement.
        unsafe {
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
                        if (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION {
                            self.facts.obstacles.push(Obstacle::WholeRow);
                        }
                    }
                    // tableoid of a shard is another number than the table's.
                    if (*var).varattno == pg_sys::TableOidAttributeNumber as i16 {
                        self.facts.obstacles.push(Obstacle::LocalState);
                    } else if (*var).varattno < 0 && self.facts.command.is_write() {
                        self.facts.obstacles.push(Obstacle::PlacementDependent);
                    }
                }
                NodeTag::T_SubLink => {
                    let link = n.cast::<pg_sys::SubLink>();
                    if (*link).subLinkType == pg_sys::SubLinkType::ANY_SUBLINK {
                        self.read_in_subquery(link, query);
                    }
                }
                NodeTag::T_NextValueExpr => self.facts.obstacles.push(Obstacle::LocalState),
                NodeTag::T_CurrentOfExpr => self.facts.obstacles.push(Obstacle::LocalState),
                _ => {
                    let mut found = Vec::new();
                    pg_sys::check_functions_in_node(
                        n,
                        Some(note_function),
                        (&raw mut found).cast(),
                    );
                    for function in found {
                        self.read_function(function);
                    }
                }
            }
        }
    }

    fn read_function(&mut self, function: Oid) {
        // SAFETY: syscache look-ups by value.
        unsafe {
            let volatility = pg_sys::func_volatile(function) as u8;
            if volatility == pg_sys::PROVOLATILE_VOLATILE {
                self.facts.obstacles.push(Obstacle::VolatileFunction(function));
            } else if function.to_u32() >= FIRST_USER_OID {
                self.facts.obstacles.push(Obstacle::UserFunction(function));
            } else if volatility == pg_sys::PROVOLATILE_STABLE && reads_local_state(function) {
                self.facts.obstacles.push(Obstacle::LocalState);
            }
        }
    }

    /// `key IN (SELECT column ...)`: of the inner rows only those with the outer key matter.
    unsafe fn read_in_subquery(&mut self, link: *mut pg_sys::SubLink, _query: *mut pg_sys::Query) {
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
            if !is_hash_equality((*test).opno)
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
    unsafe fn read_target(&mut self, query: *mut pg_sys::Query) {
        // SAFETY: the live top Query.
        unsafe {
            if (*query).resultRelation == 0 {
                return;
            }
            let index = (*query).resultRelation as u32;
            let rte: *mut pg_sys::RangeTblEntry = node::nth((*query).rtable, index as usize - 1);
            let Some(key) = (self.distribution)((*rte).relid) else { return };
            self.facts.target = Some((*rte).relid);
            self.levels.push(query);
            let target = Column { level: query.addr(), relation: index, number: key.column };
            match (*query).commandType {
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
                                    self.facts.obstacles.push(Obstacle::KeyChange);
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
            self.levels.pop();
        }
    }

    unsafe fn read_assignments(&mut self, list: *mut pg_sys::List, key: &DistributionKey) {
        // SAFETY: a live target list.
        if unsafe { target_of(list, key.column) }.is_some() {
            self.facts.obstacles.push(Obstacle::KeyChange);
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
            let values = node::elements::<pg_sys::RangeTblEntry>((*query).rtable)
                .into_iter()
                .find(|rte| (**rte).rtekind == pg_sys::RTEKind::RTE_VALUES);
            if has_subquery_source(query) {
                self.facts.insert_source = InsertSource::Query;
                if let Some(column) = value.and_then(|value| self.column_of(value)) {
                    self.facts.equalities.equal(column, target);
                }
                return;
            }
            let Some(value) = value else {
                self.facts.null_key = true;
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
            if !is_plain_value(value) {
                // A sub-query as the key: computed here, as any INSERT ... SELECT.
                self.facts.insert_source = InsertSource::Query;
                return;
            }
            let key = self.own_key(value, key);
            self.facts.null_key = self.prepared.hash_now(&key) == Some(None);
            self.facts.equalities.key(target, key);
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

    unsafe fn prune_of(
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
                    if !is_plain_value(value) {
                        return Prune::All;
                    }
                    self.key_for(n, (*op).opno, (*op).inputcollid, Some(table), value, false)
                        .map_or(Prune::All, Prune::Key)
                }
                NodeTag::T_ScalarArrayOpExpr => {
                    let op = n.cast::<pg_sys::ScalarArrayOpExpr>();
                    let (left, right): (*mut pg_sys::Node, *mut pg_sys::Node) =
                        (node::nth((*op).args, 0), node::nth((*op).args, 1));
                    if !(*op).useOr
                        || self.column_of(left) != Some(column)
                        || !is_plain_value(right)
                    {
                        return Prune::All;
                    }
                    self.key_for(n, (*op).opno, (*op).inputcollid, Some(table), right, true)
                        .map_or(Prune::All, Prune::Key)
                }
                _ => Prune::All,
            }
        }
    }
}

unsafe extern "C-unwind" fn note_function(function: Oid, found: *mut c_void) -> bool {
    // SAFETY: `read_expression` passes its local vector.
    unsafe { (*found.cast::<Vec<Oid>>()).push(function) };
    false
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
unsafe fn strip_relabel(mut n: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: the caller passes a live expression.
    unsafe {
        while let Some(relabel) = node::cast::<pg_sys::RelabelType, _>(n, NodeTag::T_RelabelType) {
            n = (*relabel).arg.cast();
        }
    }
    n
}

/// An expression that can be computed before any row is read.
unsafe fn is_plain_value(n: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller passes a live expression.
    unsafe {
        !node::walk(n, &mut |part| match node::tag(part) {
            NodeTag::T_Var
            | NodeTag::T_Aggref
            | NodeTag::T_WindowFunc
            | NodeTag::T_GroupingFunc
            | NodeTag::T_SubLink
            | NodeTag::T_Query
            | NodeTag::T_SetToDefault
            | NodeTag::T_CaseTestExpr => Visit::Stop,
            NodeTag::T_Param
                if (*part.cast::<pg_sys::Param>()).paramkind != pg_sys::ParamKind::PARAM_EXTERN =>
            {
                Visit::Stop
            }
            _ => Visit::Into,
        }) && !pg_sys::contain_volatile_functions(n)
    }
}

/// The operator is the equality of some hash operator family.
fn is_hash_equality(operator: Oid) -> bool {
    // SAFETY: syscache look-ups by value.
    unsafe {
        let (mut left, mut right) = (Oid::INVALID, Oid::INVALID);
        pg_sys::op_input_types(operator, &raw mut left, &raw mut right);
        pg_sys::op_hashjoinable(operator, left)
    }
}

/// Equal under the collation means the same bytes.
fn is_deterministic(collation: Oid) -> bool {
    // SAFETY: a syscache look-up by value.
    collation == Oid::INVALID || unsafe { pg_sys::get_collation_isdeterministic(collation) }
}

/// A stable function of the server whose answer depends on the node it runs on.
///
/// Decided by its name and types: functions of the catalogs and of names, settings, privileges, sizes.
fn reads_local_state(function: Oid) -> bool {
    // SAFETY: syscache look-ups by value; the name is palloced.
    unsafe {
        let name = node::text_of(pg_sys::get_func_name(function));
        let result = pg_sys::get_func_rettype(function);
        let is_reg = [
            pg_sys::REGCLASSOID,
            pg_sys::REGTYPEOID,
            pg_sys::REGPROCOID,
            pg_sys::REGPROCEDUREOID,
            pg_sys::REGOPEROID,
            pg_sys::REGOPERATOROID,
            pg_sys::REGROLEOID,
            pg_sys::REGNAMESPACEOID,
            pg_sys::REGCOLLATIONOID,
        ]
        .contains(&result);
        is_reg
            || [
                "pg_",
                "has_",
                "to_reg",
                "reg",
                "inet_",
                "txid_",
                "obj_",
                "col_",
                "shobj_",
                "current_",
                "format_type",
            ]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || ["row_security_active", "currtid2", "query_to_xml", "table_to_xml"]
                .contains(&name.as_str())
    }
}
