//! Writes whose rows are computed here: PostgreSQL plans the whole statement, and a scan of ours takes the place
//! of each of its ModifyTable nodes that would write a distributed table.
//!
//! Before planning, the target's scan is made to lock its rows on the workers and to tell where each lies: its
//! shard (in the place of `cmax`, which says nothing of a distributed table) and, where somebody will ask for it,
//! the whole old row. PostgreSQL adds the `ctid` itself. What the plan below a ModifyTable yields is then the same as for a
//! local table (`src/backend/optimizer/prep/preptlist.c`), and [`crate::exec::row_changes`] takes it
//! apart when the statement runs.
//!
//! A local table that is updated, or whose rows are locked, while distributed ones are read stays PostgreSQL's: the distributed ones go into
//! sub-queries, so that a re-check of a row that somebody else has changed meanwhile uses copies of their rows.

use crate::exec::{scan, triggers};
use crate::extension::extension;
use crate::read::changes::RowsChanged;
use crate::read::query::{Lookup, Statement, write_of, writing_queries};
use crate::sys::error::PgError;
use crate::sys::node::{self, Visit};
use crate::sys::plan::{Command, PlanWriter};
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::ffi::{CStr, c_int};
use std::sync::OnceLock;

/// Writes the private part of the plan.
type Writer = fn(&ModifyTarget) -> PlanWriter;

static WRITER: OnceLock<Writer> = OnceLock::new();

/// Sets it; once, when the hooks are installed.
pub(crate) fn register(writer: Writer) {
    let _ = WRITER.set(writer);
}

fn writer() -> Writer {
    *WRITER.get().unwrap_or_else(|| unreachable!("it is set before anything is planned"))
}

/// Opens the lock clause of a scan whose rows are going to be changed.
pub(crate) const TARGET_MARK: char = '!';

/// Follows it if the statement locks rows with SKIP LOCKED.
pub(crate) const CLAIM_MARK: char = '?';

/// The junk column that tells the shard.
pub(crate) const SHARD: &CStr = c"pg_shard shard";

/// The beginning of the names of junk columns that hold the old row.
pub(crate) const OLD: &str = "pg_shard old ";

/// A write that is taken over from PostgreSQL's plan.
#[derive(Clone, Copy, Debug)]
pub struct ModifyTarget {
    /// The table.
    pub table: Oid,
    /// The role whose rights on it count: a view's owner, or (zero) the current user.
    pub user: Oid,
    /// How it is written.
    pub command: Command,
    /// No other part of the statement writes, so that nobody reads what was there before once this has been read.
    pub is_alone: bool,
    /// Its RETURNING, conditions or actions have sub-queries, which must not see what it changes.
    pub has_subqueries: bool,
    /// It is about one row, which must still be what it was.
    pub must_find: bool,
}

/// Why a write cannot be computed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpullable {
    /// An INSERT with ON CONFLICT into a table that the statement also reads or writes elsewhere.
    Conflict,
    /// A system column that only the worker knows.
    SystemColumn,
    /// WHERE CURRENT OF.
    Cursor,
}

impl Statement {
    /// The statement as PostgreSQL is to plan it; the plan's writes are then to be taken over.
    ///
    /// `needs_rows` tells whether a table's rows can only be found again by what is in them.
    pub fn pulled(
        &self,
        distribution: &Lookup<'_>,
        needs_rows: &dyn Fn(Oid) -> bool,
    ) -> Result<Statement, Unpullable> {
        // SAFETY: a live Query of the planner hook; the copy is private.
        unsafe {
            let query = node::copy(self.parse);
            let skips_locked = skips_locked(query, distribution);
            for writing in writing_queries(query) {
                let target = target_of(writing);
                let command = write_of(writing);
                let is_ours = distribution((*target).relid).is_some();
                if is_ours
                    && node::walk((*writing).jointree, &mut |n| match node::tag(n) {
                        NodeTag::T_CurrentOfExpr => Visit::Stop,
                        _ => Visit::Into,
                    })
                {
                    return Err(Unpullable::Cursor);
                }
                match (distribution((*target).relid), command) {
                    (Some(_), Some(Command::Insert | Command::Upsert)) => {
                        if !(*writing).onConflict.is_null()
                            && !stands_once(query, writing, (*target).relid)
                        {
                            return Err(Unpullable::Conflict);
                        }
                        check_returning(writing)?;
                    }
                    (Some(key), _) => {
                        check_returning(writing)?;
                        let needs_row = needs_rows((*target).relid)
                            || fires_triggers(writing, command)
                            || !(*writing).withCheckOptions.is_null()
                            || assigns(writing, key.column);
                        let old = match needs_row {
                            true => OldColumns::All,
                            false => named_columns(writing),
                        };
                        tell_places(writing, &old, skips_locked);
                    }
                    (None, Some(Command::Update | Command::Delete | Command::Merge)) => {
                        copy_rows_of_others(writing, distribution)?;
                    }
                    (None, _) => {}
                }
            }
            Ok(Statement { parse: query })
        }
    }
}

impl Statement {
    /// The statement in which levels that lock rows of local tables see distributed ones through sub-queries, as a
    /// write of a local table does.
    pub fn with_copied_rows(&self, distribution: &Lookup<'_>) -> Result<Statement, Unpullable> {
        // SAFETY: a live Query of the planner hook; the copy is private.
        unsafe {
            let query = node::copy(self.parse);
            let mut locking: Vec<*mut pg_sys::Query> = Vec::new();
            node::walk(query, &mut |n| {
                if node::tag(n) == NodeTag::T_Query
                    && !(*n.cast::<pg_sys::Query>()).rowMarks.is_null()
                {
                    locking.push(n.cast());
                }
                Visit::Into
            });
            for level in locking {
                copy_rows_of_others(level, distribution)?;
            }
            Ok(Statement { parse: query })
        }
    }
}

/// The statement locks rows of a distributed table with SKIP LOCKED; see `Statement::with_locks_on_workers`.
unsafe fn skips_locked(query: *mut pg_sys::Query, distribution: &Lookup<'_>) -> bool {
    // SAFETY: the caller passes a live Query.
    unsafe {
        node::walk(query, &mut |n| {
            if node::tag(n) == NodeTag::T_Query {
                let entries = (*n.cast::<pg_sys::Query>()).rtable;
                let skips = |rte: *mut pg_sys::RangeTblEntry| {
                    (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION
                        && distribution((*rte).relid).is_some()
                        && node::text_of((*rte).enrname).ends_with("SKIP LOCKED")
                };
                if node::elements::<pg_sys::RangeTblEntry>(entries).into_iter().any(skips) {
                    return Visit::Stop;
                }
            }
            Visit::Into
        })
    }
}

/// The target's range table entry.
unsafe fn target_of(query: *mut pg_sys::Query) -> *mut pg_sys::RangeTblEntry {
    // SAFETY: the caller passes a live Query that writes.
    unsafe { node::nth((*query).rtable, (*query).resultRelation as usize - 1) }
}

/// Triggers need the old rows of this level's target.
unsafe fn fires_triggers(writing: *mut pg_sys::Query, command: Option<Command>) -> bool {
    // SAFETY: the caller passes a live Query that writes.
    let changed = unsafe { RowsChanged::of(writing) };
    command.zip(changed).is_some_and(|(deed, changed)| triggers::fire(deed, &changed))
}

/// The statement names the table nowhere but as the target of `writing`.
unsafe fn stands_once(query: *mut pg_sys::Query, writing: *mut pg_sys::Query, table: Oid) -> bool {
    let mut count = 0;
    // SAFETY: the caller passes a live Query and one of its levels, which has ON CONFLICT.
    unsafe {
        let excluded = (*(*writing).onConflict).exclRelIndex;
        let excluded: *mut pg_sys::RangeTblEntry = if excluded > 0 {
            node::nth((*writing).rtable, excluded as usize - 1)
        } else {
            std::ptr::null_mut()
        };
        node::walk(query, &mut |n| {
            if node::tag(n) == NodeTag::T_Query {
                let entries =
                    node::elements::<pg_sys::RangeTblEntry>((*n.cast::<pg_sys::Query>()).rtable);
                count += entries
                    .into_iter()
                    .filter(|rte| {
                        (**rte).rtekind == pg_sys::RTEKind::RTE_RELATION
                            && (**rte).relid == table
                            && *rte != excluded
                    })
                    .count();
            }
            Visit::Into
        });
    }
    count == 1
}

/// The statement assigns a column of its target.
unsafe fn assigns(query: *mut pg_sys::Query, column: i16) -> bool {
    // SAFETY: the caller passes a live Query.
    unsafe {
        let of_actions = node::elements::<pg_sys::MergeAction>((*query).mergeActionList)
            .into_iter()
            .filter(|action| (**action).commandType == pg_sys::CmdType::CMD_UPDATE)
            .map(|action| (*action).targetList);
        of_actions.chain([(*query).targetList]).any(|list| {
            node::elements::<pg_sys::TargetEntry>(list)
                .into_iter()
                .any(|entry| !(*entry).resjunk && (*entry).resno == column)
        })
    }
}

/// RETURNING names no system column whose new value only the worker knows.
unsafe fn check_returning(query: *mut pg_sys::Query) -> Result<(), Unpullable> {
    // SAFETY: the caller passes a live Query.
    let found = unsafe {
        node::walk((*query).returningList, &mut |n| {
            let var = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var);
            match var {
                Some(var)
                    if (*var).varno == (*query).resultRelation
                        && (*var).varlevelsup == 0
                        && (*var).varattno < 0
                        && i32::from((*var).varattno) != pg_sys::TableOidAttributeNumber =>
                {
                    Visit::Stop
                }
                _ => Visit::Into,
            }
        })
    };
    if found { Err(Unpullable::SystemColumn) } else { Ok(()) }
}

/// The condition that says for each row of the target whether it has one of the source, if that is asked: in a MERGE with
/// WHEN NOT MATCHED BY SOURCE.
unsafe fn source_condition(query: *mut pg_sys::Query) -> *mut pg_sys::Node {
    // SAFETY: the caller passes a live Query.
    unsafe {
        let actions = node::elements::<pg_sys::MergeAction>((*query).mergeActionList);
        let is_by_source =
            |action| version::merge_match(action) == version::MergeMatch::NotBySource;
        match actions.into_iter().any(|action| is_by_source(action)) {
            true => version::conditions_of(query, (*query).jointree),
            false => std::ptr::null_mut(),
        }
    }
}

/// Which columns of the old row the coordinator has to know.
enum OldColumns {
    All,
    Those(Vec<i16>),
}

/// The target's columns that RETURNING, the actions of MERGE and the condition between these name: rights on others are not
/// asked for.
unsafe fn named_columns(query: *mut pg_sys::Query) -> OldColumns {
    let mut columns: Vec<i16> = Vec::new();
    // SAFETY: the caller passes a live Query.
    unsafe {
        // Generated columns are computed of whatever columns they name.
        if !(*query).returningList.is_null() && has_generated((*target_of(query)).relid) {
            return OldColumns::All;
        }
        let condition = source_condition(query);
        let trees: [*mut pg_sys::Node; 3] =
            [(*query).returningList.cast(), (*query).mergeActionList.cast(), condition];
        for tree in trees {
            let names_row = node::walk(tree, &mut |n| {
                if node::tag(n) == NodeTag::T_SubLink {
                    return Visit::Stop;
                }
                if let Some(var) = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var)
                    && (*var).varno == (*query).resultRelation
                {
                    match (*var).varattno {
                        0 => return Visit::Stop,
                        column if column > 0 && !columns.contains(&column) => columns.push(column),
                        _ => {}
                    }
                }
                Visit::Into
            });
            if names_row {
                return OldColumns::All;
            }
        }
    }
    OldColumns::Those(columns)
}

unsafe fn has_generated(table: Oid) -> bool {
    let mut found = false;
    // SAFETY: the caller's table is locked by the statement.
    unsafe { for_each_column(table, |attribute| found |= (*attribute).attgenerated != 0) };
    found
}

/// Makes the target's scan lock its rows, and the plan yield where each lies and what was in these columns.
unsafe fn tell_places(query: *mut pg_sys::Query, old: &OldColumns, skips_locked: bool) {
    // SAFETY: the caller passes a private, live copy of a Query that writes. Junk columns behind the columns that are
    // assigned are what PostgreSQL's planner itself adds (`preprocess_targetlist`). `enrname` is ours for a
    // relation; see `Statement::with_locks_on_workers`.
    unsafe {
        let target = target_of(query);
        let mark =
            if skips_locked { format!("{TARGET_MARK}{CLAIM_MARK}") } else { TARGET_MARK.into() };
        (*target).enrname = node::c_text(&format!("{mark}FOR UPDATE"));
        let number = (*query).resultRelation;
        let is_merge = (*query).commandType == pg_sys::CmdType::CMD_MERGE;
        let junk = |column: i16, type_oid, typmod, collation, name: &str| {
            let var = pg_sys::makeVar(number, column, type_oid, typmod, collation, 0).cast();
            let var = if is_merge { version::hidden_column(var) } else { var };
            let position = node::length((*query).targetList) as i16 + 1;
            let entry = pg_sys::makeTargetEntry(var.cast(), position, node::c_text(name), true);
            (*query).targetList = pg_sys::lappend((*query).targetList, entry.cast());
        };
        let shard = SHARD.to_string_lossy();
        let place = pg_sys::MaxCommandIdAttributeNumber as i16;
        junk(place, pg_sys::CIDOID, -1, Oid::INVALID, &shard);
        for_each_column((*target).relid, |attribute| {
            if let OldColumns::Those(columns) = old
                && !columns.contains(&(*attribute).attnum)
            {
                return;
            }
            junk(
                (*attribute).attnum,
                (*attribute).atttypid,
                (*attribute).atttypmod,
                (*attribute).attcollation,
                &format!("{OLD}{}", (*attribute).attnum),
            );
        });
    }
}

/// The plan yields the whole old row: each live column of the table has a place above 0.
///
/// # Safety
///
/// A live descriptor, with as many columns as there are places.
pub(crate) unsafe fn knows_row(descriptor: pg_sys::TupleDesc, places: &[usize]) -> bool {
    // SAFETY: the caller vouches for the descriptor.
    (0..places.len()).all(|column| unsafe {
        places[column] > 0 || (*version::attribute(descriptor, column)).attisdropped
    })
}

/// Calls `body` for each live column.
unsafe fn for_each_column(table: Oid, mut body: impl FnMut(*const pg_sys::FormData_pg_attribute)) {
    // SAFETY: the caller's table is locked by the statement.
    unsafe {
        let relation = pg_sys::relation_open(table, pg_sys::NoLock as c_int);
        let descriptor = (*relation).rd_att;
        for index in 0..(*descriptor).natts as usize {
            let attribute = version::attribute(descriptor, index);
            if !(*attribute).attisdropped {
                body(attribute);
            }
        }
        pg_sys::relation_close(relation, pg_sys::NoLock as c_int);
    }
}

/// Puts the distributed tables that a write of a local table reads into sub-queries.
///
/// PostgreSQL re-checks a row that was changed meanwhile with the rows that it was joined with: those of a table it
/// would fetch again by their ctid, from our empty table; of a sub-query it keeps a copy. The sub-query has a
/// WITH clause that nobody uses, which keeps the planner from pulling it up, and nothing else that it could mind.
unsafe fn copy_rows_of_others(
    query: *mut pg_sys::Query,
    distribution: &Lookup<'_>,
) -> Result<(), Unpullable> {
    let mut levels: Vec<*mut pg_sys::Query> = Vec::new();
    // SAFETY: the caller passes a private, live copy.
    unsafe {
        node::walk(query, &mut |n| {
            if node::tag(n) == NodeTag::T_Query {
                levels.push(n.cast());
            }
            Visit::Into
        });
        for level in levels {
            let is_wrapped = |index: usize, rte: *mut pg_sys::RangeTblEntry| {
                (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION
                    && index as i32 + 1 != (*level).resultRelation
                    && distribution((*rte).relid).is_some()
            };
            let entries = node::elements::<pg_sys::RangeTblEntry>((*level).rtable);
            let uses_system_column = node::walk(level, &mut |n| {
                if n != level.cast() && node::tag(n) == NodeTag::T_Query {
                    return Visit::Skip;
                }
                match node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var) {
                    Some(var) if (*var).varattno < 0 => {
                        let index = (*var).varno as usize - 1;
                        let here = (*var).varlevelsup == 0;
                        if !here || is_wrapped(index, entries[index]) {
                            Visit::Stop
                        } else {
                            Visit::Into
                        }
                    }
                    _ => Visit::Into,
                }
            });
            if uses_system_column {
                return Err(Unpullable::SystemColumn);
            }
            for (index, rte) in entries.into_iter().enumerate() {
                if is_wrapped(index, rte) {
                    wrap(level, rte, index as c_int + 1);
                }
            }
        }
        Ok(())
    }
}

/// Makes a sub-query of a table's range table entry.
unsafe fn wrap(level: *mut pg_sys::Query, rte: *mut pg_sys::RangeTblEntry, index: c_int) {
    // SAFETY: the caller passes an entry of a private, live copy; the nodes are made with the structs of their tags.
    unsafe {
        let inner: *mut pg_sys::RangeTblEntry = node::copy(rte);
        (*inner).inFromCl = true;
        (*inner).lateral = false;
        let conditions = (*inner).securityQuals.cast();
        pg_sys::ffi::pg_guard_ffi_boundary(|| raw::ChangeVarNodes(conditions, index, 1, 0));
        let mut targets = Vec::new();
        let relation = pg_sys::relation_open((*rte).relid, pg_sys::NoLock as c_int);
        let descriptor = (*relation).rd_att;
        for position in 0..(*descriptor).natts as usize {
            let attribute = &*version::attribute(descriptor, position);
            let value: *mut pg_sys::Expr = if attribute.attisdropped {
                pg_sys::makeNullConst(pg_sys::INT4OID, -1, Oid::INVALID).cast()
            } else {
                let (type_oid, typmod) = (attribute.atttypid, attribute.atttypmod);
                pg_sys::makeVar(1, attribute.attnum, type_oid, typmod, attribute.attcollation, 0)
                    .cast()
            };
            let name = node::c_text(&node::text_of(attribute.attname.data.as_ptr()));
            targets.push(pg_sys::makeTargetEntry(value, position as i16 + 1, name, false));
        }
        pg_sys::relation_close(relation, pg_sys::NoLock as c_int);
        let from: *mut pg_sys::RangeTblRef = node::make(NodeTag::T_RangeTblRef);
        (*from).rtindex = 1;
        let query = select(&targets);
        (*query).rtable = node::list_of(&[inner]);
        (*query).jointree = pg_sys::makeFromExpr(node::list_of(&[from]), std::ptr::null_mut());
        let unused: *mut pg_sys::CommonTableExpr = node::make(NodeTag::T_CommonTableExpr);
        (*unused).ctename = node::c_text("unused");
        let one = pg_sys::makeNullConst(pg_sys::INT4OID, -1, Oid::INVALID);
        let one = pg_sys::makeTargetEntry(one.cast(), 1, node::c_text("one"), false);
        (*unused).ctequery = select(&[one]).cast();
        (*query).cteList = node::list_of(&[unused]);

        (*rte).rtekind = pg_sys::RTEKind::RTE_SUBQUERY;
        (*rte).subquery = query;
        (*rte).relid = Oid::INVALID;
        (*rte).relkind = 0;
        (*rte).rellockmode = 0;
        (*rte).inh = false;
        (*rte).tablesample = std::ptr::null_mut();
        (*rte).securityQuals = std::ptr::null_mut();
        version::move_rights(inner, level, query);
        version::drop_rights(rte);
    }
}

/// A SELECT of expressions, of nothing yet.
unsafe fn select(targets: &[*mut pg_sys::TargetEntry]) -> *mut pg_sys::Query {
    // SAFETY: the node is made with the struct of its tag.
    unsafe {
        let query: *mut pg_sys::Query = node::make(NodeTag::T_Query);
        (*query).commandType = pg_sys::CmdType::CMD_SELECT;
        (*query).canSetTag = true;
        (*query).jointree = pg_sys::makeFromExpr(std::ptr::null_mut(), std::ptr::null_mut());
        (*query).targetList = node::list_of(targets);
        query
    }
}

mod raw {
    //! Not among pgrx' bindings, so without its guard: the caller puts it around what may raise an error.
    use pgrx::pg_sys;
    use std::ffi::c_int;
    unsafe extern "C-unwind" {
        /// Guarded.
        pub(super) fn ChangeVarNodes(
            node: *mut pg_sys::Node,
            from: c_int,
            to: c_int,
            levels_up: c_int,
        );
    }
}

/// Puts our scans in the places of the ModifyTable nodes that write distributed tables.
///
/// # Safety
///
/// A finished plan of a statement that [`Statement::pulled`] made.
pub(crate) unsafe fn take_over(
    planned: *mut pg_sys::PlannedStmt,
    must_find: bool,
) -> Result<(), PgError> {
    // SAFETY: the caller vouches for the plan. ModifyTable nodes stand at the top of the plan, or of a sub-plan that is
    // a WITH clause, and nowhere else (`src/backend/optimizer/plan/planner.c`).
    unsafe {
        let is_write = |plan: *mut pg_sys::Plan| {
            node::cast::<pg_sys::ModifyTable, _>(plan, NodeTag::T_ModifyTable)
        };
        let subplans = (*planned).subplans;
        let places: Vec<*mut pg_sys::ListCell> =
            (0..node::length(subplans)).map(|index| (*subplans).elements.add(index)).collect();
        let nested =
            places.iter().filter(|place| is_write((***place).ptr_value.cast()).is_some()).count();
        for place in places {
            if let Some(write) = is_write((*place).ptr_value.cast())
                && let Some(ours) = taken_over(planned, write, false, must_find)
            {
                (*place).ptr_value = ours.cast();
            }
        }
        if let Some(write) = is_write((*planned).planTree)
            && let Some(ours) = taken_over(planned, write, nested == 0, must_find)
        {
            (*planned).planTree = ours;
        }
        Ok(())
    }
}

/// Our scan for one ModifyTable; none if its table is local.
unsafe fn taken_over(
    planned: *mut pg_sys::PlannedStmt,
    write: *mut pg_sys::ModifyTable,
    is_alone: bool,
    must_find: bool,
) -> Option<*mut pg_sys::Plan> {
    // SAFETY: the caller vouches for the plan; resultRelations is a list of numbers of the flat range table.
    unsafe {
        let number = (*(*(*write).resultRelations).elements).int_value;
        let target: *mut pg_sys::RangeTblEntry = node::nth((*planned).rtable, number as usize - 1);
        extension().distribution((*target).relid)?;
        let described = ModifyTarget {
            table: (*target).relid,
            user: version::planned_checked_as(planned, target),
            command: match (*write).operation {
                pg_sys::CmdType::CMD_INSERT => Command::Insert,
                pg_sys::CmdType::CMD_UPDATE => Command::Update,
                pg_sys::CmdType::CMD_DELETE => Command::Delete,
                _ => Command::Merge,
            },
            is_alone,
            has_subqueries: [
                (*write).returningLists,
                (*write).mergeActionLists,
                (*write).withCheckOptionLists,
                version::join_conditions(write),
            ]
            .into_iter()
            .any(|list| has_subqueries(list)),
            must_find,
        };
        let private = writer()(&described);

        let scan: *mut pg_sys::CustomScan = node::make(NodeTag::T_CustomScan);
        (*scan).scan.plan = (*write).plan;
        let plan = &mut (*scan).scan.plan;
        plan.type_ = NodeTag::T_CustomScan;
        let child = plan.lefttree;
        plan.lefttree = std::ptr::null_mut();
        let returning: *mut pg_sys::List = if (*write).returningLists.is_null() {
            std::ptr::null_mut()
        } else {
            node::nth((*write).returningLists, 0)
        };
        let (mut target_list, mut scan_list) = (Vec::new(), Vec::new());
        for entry in node::elements::<pg_sys::TargetEntry>(returning) {
            let number = target_list.len() as i16 + 1;
            let expr = (*entry).expr.cast::<pg_sys::Node>();
            let (type_oid, typmod, collation) =
                (pg_sys::exprType(expr), pg_sys::exprTypmod(expr), pg_sys::exprCollation(expr));
            let var = pg_sys::makeVar(pg_sys::INDEX_VAR, number, type_oid, typmod, collation, 0);
            let output = pg_sys::makeTargetEntry(var.cast(), number, (*entry).resname, false);
            (*output).resorigtbl = (*entry).resorigtbl;
            (*output).resorigcol = (*entry).resorigcol;
            target_list.push(output);
            // What it is made of is in the ModifyTable; here only its type counts.
            let place = pg_sys::makeNullConst(type_oid, typmod, collation);
            scan_list.push(pg_sys::makeTargetEntry(place.cast(), number, (*entry).resname, false));
        }
        plan.targetlist = node::list_of(&target_list);
        (*scan).custom_scan_tlist = node::list_of(&scan_list);
        (*scan).custom_plans = node::list_of(&[child]);
        if (*write).operation == pg_sys::CmdType::CMD_MERGE {
            // Sub-queries of a MERGE's actions refer to the rows below as those of an inner plan (`set_plan_refs`), and
            // EXPLAIN looks for that (`set_deparse_plan`). The executor does not: its nodes are made of `custom_plans`.
            (*scan).scan.plan.righttree = child;
        }
        (*scan).custom_relids = pg_sys::bms_make_singleton((*write).nominalRelation as c_int);
        (*write).plan.lefttree = std::ptr::null_mut();
        (*scan).custom_private = pg_sys::lappend(private.list(), write.cast());
        (*scan).methods = scan::methods();
        Some(scan.cast())
    }
}

/// An expression somewhere in it needs a sub-query's result.
unsafe fn has_subqueries(list: *mut pg_sys::List) -> bool {
    // SAFETY: the caller passes a live list of expressions of a plan.
    unsafe {
        node::walk(list, &mut |n| match node::tag(n) {
            NodeTag::T_SubPlan | NodeTag::T_AlternativeSubPlan => Visit::Stop,
            NodeTag::T_Param
                if (*n.cast::<pg_sys::Param>()).paramkind == pg_sys::ParamKind::PARAM_EXEC =>
            {
                Visit::Stop
            }
            _ => Visit::Into,
        })
    }
}
