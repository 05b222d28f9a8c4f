//! Distributed tables in PostgreSQL's own planner: every base relation that is one offers a single path, a
//! scan of its shards with the needed columns and the filters that may run there. PostgreSQL does the rest.
//!
//! This is also the net under everything: whatever query reaches PostgreSQL's planner, a distributed table in
//! it is never read from the empty local table.

use crate::error::boundary;
use crate::facts;
use crate::hooks;
use crate::node::{self, Visit};
use crate::prepare;
use crate::pulled::TARGET_MARK;
use crate::query::Key;
use crate::rows::Source;
use crate::scan;
use crate::shippable;
use crate::template::{Piece, with_portable_output};
use pgrx::pg_sys::{self, NodeTag, Oid};
use shardmap::Prune;

/// A scan over the shards of one table.
#[derive(Clone, Debug)]
pub struct TableScan {
    /// The table.
    pub table: Oid,
    /// The role whose rights count: a view's owner, or (zero) the current user.
    pub user: Oid,
    /// The SQL for one shard.
    pub template: Vec<Piece>,
    /// Types and typmods of its columns.
    pub remote: Vec<(Oid, i32)>,
    /// How the scan's row is made of them.
    pub sources: Vec<Source>,
    /// What the filters say of the distribution column.
    pub prune: Prune<Key>,
    /// How many of the plan's expressions are parameters of the SQL.
    pub sent: usize,
    /// The SQL locks the rows it reads.
    pub locks: bool,
    /// Its rows are going to be changed; see [`crate::pulled`].
    pub is_target: bool,
}

/// Stands for the shard's index in a list of columns; no column's quoted name has a zero byte.
const SHARD_INDEX: &str = "\0";

struct Shared<T>(T);
// SAFETY: the table is constant and holds a function pointer and a static name only.
unsafe impl<T> Sync for Shared<T> {}

static PATH_METHODS: Shared<pg_sys::CustomPathMethods> = Shared(pg_sys::CustomPathMethods {
    CustomName: c"pg_shard".as_ptr(),
    PlanCustomPath: Some(plan_path),
    ReparameterizeCustomPathByChild: None,
});

mod raw {
    use pgrx::pg_sys;
    use std::ffi::c_int;
    unsafe extern "C-unwind" {
        pub(super) fn ChangeVarNodes(
            node: *mut pg_sys::Node,
            from: c_int,
            to: c_int,
            levels_up: c_int,
        );
    }
}

/// `get_relation_info_hook`: the empty local table's size, indexes and their uniqueness say nothing of the shards.
///
/// # Safety
///
/// Called by the planner with its own structures.
pub(crate) unsafe extern "C-unwind" fn relation_info(
    _root: *mut pg_sys::PlannerInfo,
    table: Oid,
    inhparent: bool,
    rel: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        boundary(|| {
            if let Some(rows) = hooks::planner().estimated_rows(table)
                && !inhparent
            {
                (*rel).indexlist = std::ptr::null_mut();
                (*rel).tuples = rows;
                (*rel).pages = (rows / 50.0).ceil().max(1.0) as u32;
                (*rel).allvisfrac = 0.0;
            }
            Ok(())
        });
        if let Some(previous) = hooks::previous_relation_info() {
            previous(_root, table, inhparent, rel);
        }
    }
}

/// `set_rel_pathlist_hook`.
///
/// # Safety
///
/// Called by the planner with its own structures.
pub(crate) unsafe extern "C-unwind" fn relation_paths(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    rti: pg_sys::Index,
    rte: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: the planner's live structures.
    unsafe {
        if let Some(previous) = hooks::previous_relation_paths() {
            previous(root, rel, rti, rte);
        }
        boundary(|| {
            if (*rte).rtekind != pg_sys::RTEKind::RTE_RELATION
                || (*rte).inh
                    && (*rel).reloptkind == pg_sys::RelOptKind::RELOPT_BASEREL
                    && (*rte).relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE
                || hooks::planner().distribution((*rte).relid).is_none()
                || is_dummy(rel)
            {
                return Ok(());
            }
            (*rel).pathlist = std::ptr::null_mut();
            (*rel).partial_pathlist = std::ptr::null_mut();
            (*rel).consider_parallel = false;
            let custom: *mut pg_sys::CustomPath = node::make(NodeTag::T_CustomPath);
            let path = &mut (*custom).path;
            path.pathtype = NodeTag::T_CustomScan;
            path.parent = rel;
            path.pathtarget = (*rel).reltarget;
            path.param_info = std::ptr::null_mut();
            path.rows = (*rel).rows;
            // A round trip, the worker's scan, and each row over the wire.
            path.startup_cost = 100.0;
            path.total_cost = 100.0 + (*rel).tuples * 0.01 + (*rel).rows * 0.05;
            (*custom).flags = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
            (*custom).methods = &raw const PATH_METHODS.0;
            pg_sys::add_path(rel, custom.cast());
            Ok(())
        });
    }
}

/// The planner has proved that the relation yields nothing.
unsafe fn is_dummy(rel: *mut pg_sys::RelOptInfo) -> bool {
    // SAFETY: a live relation of the planner.
    unsafe {
        if (*rel).pathlist.is_null() {
            return false;
        }
        let path: *mut pg_sys::Path = node::nth((*rel).pathlist, 0);
        node::tag(path) == NodeTag::T_AppendPath
            && (*path.cast::<pg_sys::AppendPath>()).subpaths.is_null()
    }
}

unsafe extern "C-unwind" fn plan_path(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    path: *mut pg_sys::CustomPath,
    target_list: *mut pg_sys::List,
    clauses: *mut pg_sys::List,
    _plans: *mut pg_sys::List,
) -> *mut pg_sys::Plan {
    // SAFETY: the planner's live structures; nodes are made with the structs of their tags.
    unsafe {
        boundary(|| {
            let relation = (*rel).relid;
            let rte: *mut pg_sys::RangeTblEntry = *(*root).simple_rte_array.add(relation as usize);
            let table = (*rte).relid;
            let key = hooks::planner().distribution(table).ok_or_else(|| {
                crate::error::PgError::internal(
                    "a table ceased to be distributed while a query was planned",
                )
            })?;
            let init_params = init_params(root);

            let (mut shipped, mut local) = (Vec::new(), Vec::new());
            for info in node::elements::<pg_sys::RestrictInfo>(clauses) {
                if (*info).pseudoconstant {
                    continue;
                }
                let clause = (*info).clause.cast::<pg_sys::Node>();
                // A filter behind a security barrier must not see rows that the barrier hides, unless it cannot tell.
                let allowed =
                    (*info).security_level <= (*rel).baserestrict_min_security || (*info).leakproof;
                if allowed && shippable::is_shippable(clause, relation, &init_params) {
                    shipped.push(clause);
                } else {
                    local.push(clause);
                }
            }

            // The path's target and the relation's differ when a join above was removed; the plan may ask for either.
            let mut wanted = node::elements::<pg_sys::Node>((*(*path).path.pathtarget).exprs);
            wanted.extend(node::elements::<pg_sys::Node>((*(*rel).reltarget).exprs));
            wanted.extend(
                node::elements::<pg_sys::TargetEntry>(target_list)
                    .into_iter()
                    .map(|entry| (*entry).expr.cast()),
            );
            wanted.extend(&local);
            let columns = needed_columns((*rel).relid, &wanted);
            // See `Statement::with_locks_on_workers`. A locking SELECT may stand in UNION ALL only as a sub-query.
            let mark = node::text_of((*rte).enrname);
            let (is_target, lock) = match mark.strip_prefix(TARGET_MARK) {
                Some(lock) => (true, lock.to_owned()),
                None => (false, mark),
            };
            let mut expressions = Vec::new();
            let conditions = with_portable_output(|| {
                shipped
                    .iter()
                    .map(|clause| deparse(*clause, relation, table, &init_params, &mut expressions))
                    .collect::<Vec<_>>()
            });
            let sent = expressions.len();
            let (mut select, mut remote, mut sources, mut scan_list) =
                (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for var in &columns {
                let number = i32::from((**var).varattno);
                let source = if number == pg_sys::TableOidAttributeNumber {
                    Source::TableOid(table)
                } else if is_target && number == pg_sys::MaxCommandIdAttributeNumber {
                    select.push(SHARD_INDEX.to_owned());
                    remote.push(((**var).vartype, (**var).vartypmod));
                    Source::Remote(select.len() - 1)
                } else if number == 0 {
                    let first = select.len();
                    for (column, type_oid, typmod) in live_columns(table) {
                        select.push(column_name(table, column));
                        remote.push((type_oid, typmod));
                    }
                    Source::Row(table, (first..select.len()).collect())
                } else {
                    select.push(column_name(table, (**var).varattno));
                    remote.push(((**var).vartype, (**var).vartypmod));
                    Source::Remote(select.len() - 1)
                };
                sources.push(source);
                let position = scan_list.len() as i16 + 1;
                scan_list.push(pg_sys::makeTargetEntry(
                    (*var).cast(),
                    position,
                    std::ptr::null_mut(),
                    false,
                ));
            }
            let all: Vec<*mut pg_sys::Node> = shipped.iter().chain(&local).copied().collect();
            let (prune, expressions) = facts::prune_of_clauses(&all, relation, &key, expressions);

            let list = if select.is_empty() { "NULL".to_owned() } else { select.join(", ") };
            let filter = if conditions.is_empty() {
                String::new()
            } else {
                format!(" WHERE {}", conditions.join(" AND "))
            };
            let sample = if (*rte).tablesample.is_null() {
                String::new()
            } else {
                sample_clause((*rte).tablesample)?
            };
            let locks = !lock.is_empty();
            let (opening, closing) = if locks {
                ("SELECT * FROM (", format!(" {lock}) AS locked"))
            } else {
                ("", String::new())
            };
            let mut template = Vec::new();
            match list.split_once(SHARD_INDEX) {
                Some((before, behind)) => {
                    template.push(Piece::Text(format!("{opening}SELECT {before}'")));
                    template.push(Piece::Index);
                    template.push(Piece::Text(format!("'::pg_catalog.cid AS shard{behind} FROM ")));
                }
                None => template.push(Piece::Text(format!("{opening}SELECT {list} FROM "))),
            }
            template.push(Piece::Table(table));
            template.push(Piece::Text(format!(" t{sample}{filter}{closing}")));
            let user = (*rte).checkAsUser;
            let described =
                TableScan { table, user, template, remote, sources, prune, sent, locks, is_target };
            let private = hooks::planner().plan_scan(&described);

            let scan: *mut pg_sys::CustomScan = node::make(NodeTag::T_CustomScan);
            (*scan).scan.plan.targetlist = target_list;
            (*scan).scan.plan.qual = node::list_of(&local);
            (*scan).scan.scanrelid = relation;
            (*scan).flags = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
            (*scan).custom_scan_tlist = node::list_of(&scan_list);
            (*scan).custom_exprs = node::list_of(&expressions);
            (*scan).custom_private = private.list();
            (*scan).methods = scan::methods();
            Ok(scan.cast())
        })
    }
}

/// TABLESAMPLE with constant arguments of the server's own methods, as SQL.
unsafe fn sample_clause(
    sample: *mut pg_sys::TableSampleClause,
) -> Result<String, crate::error::PgError> {
    // SAFETY: a live clause of the planner.
    unsafe {
        let method = node::text_of(pg_sys::get_func_name((*sample).tsmhandler));
        let value = |n: *mut pg_sys::Node| {
            let folded = pg_sys::eval_const_expressions(std::ptr::null_mut(), n);
            (node::tag(folded) == NodeTag::T_Const).then(|| {
                node::text_of(pg_sys::deparse_expression(
                    folded,
                    std::ptr::null_mut(),
                    false,
                    false,
                ))
            })
        };
        let arguments: Option<Vec<String>> =
            node::elements::<pg_sys::Node>((*sample).args).into_iter().map(value).collect();
        let seed = if (*sample).repeatable.is_null() {
            Some(String::new())
        } else {
            value((*sample).repeatable.cast()).map(|seed| format!(" REPEATABLE ({seed})"))
        };
        match (arguments, seed) {
            (Some(arguments), Some(seed)) => {
                Ok(format!(" TABLESAMPLE {method} ({}){seed}", arguments.join(", ")))
            }
            _ => Err(crate::error::PgError::unsupported(
                "TABLESAMPLE of a distributed table needs constant arguments",
                "Write the percentage as a constant.",
            )),
        }
    }
}

/// Parameters that uncorrelated sub-queries of this query level set: known before the scan starts.
unsafe fn init_params(root: *mut pg_sys::PlannerInfo) -> Vec<i32> {
    // SAFETY: the planner's live structures; setParam is a list of integers.
    unsafe {
        node::elements::<pg_sys::SubPlan>((*root).init_plans)
            .into_iter()
            .flat_map(|plan| {
                let list = (*plan).setParam;
                (0..node::length(list)).map(move |index| (*(*list).elements.add(index)).int_value)
            })
            .collect()
    }
}

/// The columns of relation `relation` in `expressions`, each once.
unsafe fn needed_columns(
    relation: u32,
    expressions: &[*mut pg_sys::Node],
) -> Vec<*mut pg_sys::Var> {
    let mut columns: Vec<*mut pg_sys::Var> = Vec::new();
    for expression in expressions {
        // SAFETY: live expressions of the planner.
        unsafe {
            node::walk(*expression, &mut |n| {
                if let Some(var) = node::cast::<pg_sys::Var, _>(n, NodeTag::T_Var)
                    && (*var).varno as u32 == relation
                    && (*var).varlevelsup == 0
                    && !columns.iter().any(|known| (**known).varattno == (*var).varattno)
                {
                    columns.push(node::copy(var));
                }
                Visit::Into
            });
        }
    }
    columns
}

unsafe fn deparse(
    clause: *mut pg_sys::Node,
    relation: u32,
    table: Oid,
    init_params: &[i32],
    expressions: &mut Vec<*mut pg_sys::Node>,
) -> String {
    // SAFETY: a live clause over `relation`; the copy is private. deparse_expression knows relations as number 1.
    unsafe {
        let own = node::rewrite(clause, &mut |n| {
            prepare::fold_one(n, false, init_params, 0, expressions)
        });
        let own = if own == clause { node::copy(own) } else { own };
        raw::ChangeVarNodes(own, relation as i32, 1, 0);
        let context = pg_sys::deparse_context_for(c"t".as_ptr(), table);
        format!("({})", node::text_of(pg_sys::deparse_expression(own, context, true, false)))
    }
}

fn column_name(table: Oid, column: i16) -> String {
    // SAFETY: syscache look-ups by value; system columns have fixed names.
    unsafe {
        let name = if column < 0 {
            (*pg_sys::SystemAttributeDefinition(column)).attname.data.as_ptr()
        } else {
            pg_sys::get_attname(table, column, false).cast_const()
        };
        format!("t.{}", node::text_of(pg_sys::quote_identifier(name)))
    }
}

/// The live columns of a table with their types and typmods.
pub fn live_columns(table: Oid) -> Vec<(i16, Oid, i32)> {
    // SAFETY: the table is locked by whoever plans or runs a statement over it.
    unsafe {
        let relation = pg_sys::relation_open(table, pg_sys::NoLock as i32);
        let descriptor = (*relation).rd_att;
        let columns = (0..(*descriptor).natts as usize)
            .map(|index| (*descriptor).attrs.as_ptr().add(index))
            .filter(|attribute| !(**attribute).attisdropped)
            .map(|attribute| ((*attribute).attnum, (*attribute).atttypid, (*attribute).atttypmod))
            .collect();
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        columns
    }
}
