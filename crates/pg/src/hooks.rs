//! Hooks: how PostgreSQL calls us, and how we call whoever was there before.
//!
//! Each hook has one slot for the previous owner, filled once in [`install`]. The outer functions hold nothing
//! with a destructor and call the core or the previous hook directly, so an ERROR from below passes over them
//! with all its fields; our own part runs inside [`boundary`].

use crate::catalog::privileged;
use crate::exec::cursor;
use crate::exec::early;
use crate::exec::execution::{self, Ends, Execution};
use crate::exec::scan::{self, BeginScan};
use crate::exec::scrolling;
use crate::exec::triggers;
use crate::path::base::{self, ShardScan};
use crate::path::join;
use crate::path::modify::{self, ModifyTarget};
use crate::path::plan::{BoundParameters, Plan, PlanWriter};
use crate::path::upper;
use crate::read::query::{DistributionKey, Statement};
use crate::server::transaction;
use crate::server::utility::{self, UtilityCall};
use crate::sys::error::{PgError, boundary};
use crate::sys::version;
use crate::time::{aged, events};
use pgrx::pg_sys::{self, Oid};
use shardmap::instruction::Purpose;
use shardmap::repartition::RepartitionedRows;
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;
use std::time::Duration;

/// What to do with a statement.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// No distributed table in it: PostgreSQL's business.
    NotOurs,
    /// PostgreSQL plans it over our scans; the plan depends on the metadata relation given.
    PlannedByPostgres(Oid),
    /// The same with this statement in place of the client's.
    RewrittenForPostgres(Statement, Oid),
    /// PostgreSQL plans this statement, and our scans take over what it writes; see [`crate::path::modify`]. If the flag is
    /// set, it must find a row to change.
    Pulled(Statement, Oid, bool),
    /// This plan.
    Planned(Plan),
}

/// The extension, as the hooks see it.
pub trait Extension: Sync {
    /// Plans a statement.
    fn plan(
        &self,
        statement: Statement,
        parameters: BoundParameters,
        scroll: bool,
    ) -> Result<Verdict, PgError>;
    /// How a table is distributed, if it is and has shards.
    fn distribution(&self, table: Oid) -> Option<DistributionKey>;
    /// A guess at the number of rows of a distributed table.
    fn estimated_rows(&self, table: Oid) -> Option<f64>;
    /// How many pages a distributed table's shards have; none if it is not distributed.
    fn estimated_pages(&self, table: Oid) -> Option<f64>;
    /// How many shards a distributed table has.
    fn shard_count(&self, table: Oid) -> usize;
    /// Rows of a distributed table are not known by their places.
    fn hides_places(&self, table: Oid) -> bool;
    /// How many nodes hold placements of a distributed table.
    fn node_count(&self, table: Oid) -> usize;
    /// The tables can be joined shard by shard: those with several shards are cut alike, and for each shard there
    /// is a node with healthy placements of all tables.
    fn lie_together(&self, tables: &[Oid]) -> bool;
    /// What the nodes of the tables' placements answer to a question in SQL about themselves; none if one of them cannot
    /// be asked. Answers may be out of date.
    fn ask_nodes(&self, tables: &[Oid], question: &str) -> Option<Vec<String>>;
    /// Workers may do more than scan.
    fn pushes_down(&self) -> bool;
    /// What is printed for the workers is compared with what was meant.
    fn verifies_sql(&self) -> bool;
    /// Rows can move between all nodes that hold shards of the tables.
    fn can_repartition(&self, tables: &[Oid]) -> bool;
    /// On a worker: what a text says that a coordinator has given the current role for that purpose; an error if none has.
    fn open_instruction<'a>(&self, purpose: Purpose, sealed: &'a str) -> Result<&'a str, PgError>;
    /// On a worker: hands over all pieces of a part of rows that other nodes, or this one, have split; with each the number of
    /// its source.
    fn fetch_part(
        &self,
        moved: &RepartitionedRows,
        part: usize,
        each: &mut dyn FnMut(usize, Vec<u8>) -> Result<(), PgError>,
    ) -> Result<(), PgError>;
    /// The private part of a scan over tables' shards.
    fn plan_scan(&self, scan: &ShardScan) -> PlanWriter;
    /// The private part of a write that is taken over from PostgreSQL's plan.
    fn plan_modify(&self, target: &ModifyTarget) -> PlanWriter;
    /// A statement has been executed to its end.
    fn finish(&self, execution: Execution) -> Result<(), PgError>;
    /// Before a utility statement runs; it may do the work itself.
    fn utility(&self, call: &mut UtilityCall) -> Result<utility::Outcome, PgError>;
    /// A utility statement has run, of which [`Extension::utility`] said that it wants to finish it.
    fn finish_utility(&self, call: &mut UtilityCall) -> Result<(), PgError>;
    /// A relation is being dropped.
    fn on_drop(&self, table: Oid) -> Result<(), PgError>;
    /// A column is being dropped, by ALTER TABLE or with what it depends on.
    fn on_drop_column(&self, table: Oid) -> Result<(), PgError>;
    /// After how long a wait for nodes is looked into; none for never.
    fn lock_patience(&self) -> Option<Duration>;
    /// This backend has waited for nodes for that long: an error if it would wait for ever, true if it waits for a lock. `goes_on`
    /// tells whether it still waits.
    fn has_waited_long(&self, goes_on: &dyn Fn() -> bool) -> Result<bool, PgError>;
    /// The transaction is about to commit.
    fn before_commit(&self) -> Result<(), PgError>;
    /// The transaction is about to be prepared.
    fn before_prepare(&self) -> Result<(), PgError>;
    /// The transaction has ended.
    fn after_transaction(&self, committed: bool);
    /// A subtransaction has been rolled back to the level above `level`.
    fn after_subtransaction_abort(&self, level: u32);
    /// A subtransaction has been released into the level above `level`.
    fn before_subtransaction_commit(&self, level: u32) -> Result<(), PgError>;
    /// A relation's definition changed, or (none) any may have.
    fn forget(&self, table: Option<Oid>);
    /// A function's definition changed: its name, say, or its volatility.
    fn forget_plans(&self);
}

static EXTENSION: OnceLock<&'static dyn Extension> = OnceLock::new();

pub(crate) fn planner() -> &'static dyn Extension {
    *EXTENSION
        .get()
        .unwrap_or_else(|| unreachable!("hooks are installed after the extension is set"))
}

#[derive(Clone, Copy)]
struct Previous {
    planner: pg_sys::planner_hook_type,
    relation_paths: pg_sys::set_rel_pathlist_hook_type,
    relation_info: pg_sys::get_relation_info_hook_type,
    join_paths: pg_sys::set_join_pathlist_hook_type,
    upper_paths: pg_sys::create_upper_paths_hook_type,
    utility: pg_sys::ProcessUtility_hook_type,
    access: pg_sys::object_access_hook_type,
}

static PREVIOUS: OnceLock<Previous> = OnceLock::new();

thread_local! {
    /// The next statement to be planned is known to concern no distributed table.
    static PASS_ON: Cell<bool> = const { Cell::new(false) };
}

/// Says so; whoever does calls the planner at once.
pub(crate) fn pass_on_next() {
    PASS_ON.set(true);
}

pub(crate) fn previous_relation_paths() -> pg_sys::set_rel_pathlist_hook_type {
    PREVIOUS.get().and_then(|previous| previous.relation_paths)
}

pub(crate) fn previous_relation_info() -> pg_sys::get_relation_info_hook_type {
    PREVIOUS.get().and_then(|previous| previous.relation_info)
}

pub(crate) fn previous_join_paths() -> pg_sys::set_join_pathlist_hook_type {
    PREVIOUS.get().and_then(|previous| previous.join_paths)
}

pub(crate) fn previous_upper_paths() -> pg_sys::create_upper_paths_hook_type {
    PREVIOUS.get().and_then(|previous| previous.upper_paths)
}

/// Installs every hook and callback; once per process, from `_PG_init`.
pub fn install(extension: &'static dyn Extension, begin: BeginScan) {
    if EXTENSION.set(extension).is_err() {
        return;
    }
    scan::register(begin);
    cursor::register();
    // SAFETY: `_PG_init` runs alone on the main thread; hooks are plain function pointers, and callbacks stay
    // registered for the life of the process, as our library does.
    unsafe {
        let _ = PREVIOUS.set(Previous {
            planner: pg_sys::planner_hook,
            relation_paths: pg_sys::set_rel_pathlist_hook,
            relation_info: pg_sys::get_relation_info_hook,
            join_paths: pg_sys::set_join_pathlist_hook,
            upper_paths: pg_sys::create_upper_paths_hook,
            utility: pg_sys::ProcessUtility_hook,
            access: pg_sys::object_access_hook,
        });
        pg_sys::planner_hook = Some(plan);
        pg_sys::set_rel_pathlist_hook = Some(base::relation_paths);
        pg_sys::get_relation_info_hook = Some(base::relation_info);
        pg_sys::set_join_pathlist_hook = Some(join::join_paths);
        pg_sys::create_upper_paths_hook = Some(upper::upper_paths);
        pg_sys::ProcessUtility_hook = Some(process_utility);
        pg_sys::object_access_hook = Some(access);
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0));
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::NAMESPACEOID as c_int,
            Some(namespace_changed),
            pg_sys::Datum::from(0),
        );
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::PROCOID as c_int,
            Some(function_changed),
            pg_sys::Datum::from(0),
        );
        execution::install(Ends {
            send: |execution| planner().finish(execution),
            forget: triggers::finish,
        });
        early::install();
        transaction::register();
    }
}

mod raw {
    //! The core's own functions, called without pgrx' guard so that their ERRORs keep every field.
    use pgrx::pg_sys;
    use std::ffi::{c_char, c_int};
    unsafe extern "C-unwind" {
        /// Plain frames: the hook holds nothing to drop.
        pub(super) fn standard_planner(
            parse: *mut pg_sys::Query,
            text: *const c_char,
            options: c_int,
            parameters: pg_sys::ParamListInfo,
        ) -> *mut pg_sys::PlannedStmt;
        /// Plain frames: the hook holds nothing to drop.
        pub(super) fn standard_ProcessUtility(
            statement: *mut pg_sys::PlannedStmt,
            text: *const c_char,
            read_only_tree: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            parameters: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            receiver: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        );
    }
}

unsafe extern "C-unwind" fn plan(
    parse: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: PostgreSQL's own arguments, passed on unchanged; this frame holds plain values only.
    unsafe {
        privileged::lend_rights(parse);
        let scroll = options & pg_sys::CURSOR_OPT_SCROLL as c_int != 0;
        // The parser marks the queries of cursors so.
        let is_cursor = options & pg_sys::CURSOR_OPT_FAST_PLAN as c_int != 0;
        let may_scroll = scrolling::is_asked_for(parse, options);
        let locks = is_cursor && !(*parse).rowMarks.is_null();
        let (parse, exposed) = if is_cursor {
            boundary(|| Ok(cursor::expose(parse)))
        } else {
            (parse, std::ptr::null_mut())
        };
        let verdict = if PASS_ON.take() {
            Verdict::NotOurs
        } else {
            boundary(|| planner().plan(Statement { parse }, BoundParameters(parameters), scroll))
        };
        let (parse, metadata, pulled) = match verdict {
            Verdict::Planned(plan) => {
                if is_cursor {
                    boundary(|| {
                        finish_cursor(plan.0, may_scroll, locks, exposed);
                        Ok(())
                    });
                }
                return plan.0;
            }
            Verdict::NotOurs => (parse, None, None),
            Verdict::PlannedByPostgres(metadata) => (parse, Some(metadata), None),
            Verdict::RewrittenForPostgres(statement, metadata) => {
                (statement.parse, Some(metadata), None)
            }
            Verdict::Pulled(statement, metadata, must_find) => {
                (statement.parse, Some(metadata), Some(must_find))
            }
        };
        let planned = match PREVIOUS.get() {
            Some(Previous { planner: Some(previous), .. }) => {
                previous(parse, text, options, parameters)
            }
            _ => raw::standard_planner(parse, text, options, parameters),
        };
        if let Some(metadata) = metadata {
            boundary(|| {
                Plan(planned).depends_on(metadata);
                if let Some(must_find) = pulled {
                    modify::take_over(planned, must_find)?;
                }
                version::show_windows(planned, scan::methods());
                finish_cursor(planned, may_scroll, locks, exposed);
                Ok(())
            });
        }
        planned
    }
}

/// Puts on top of a plan what a cursor needs: to go backward, to be meant by CURRENT OF.
///
/// # Safety
///
/// A finished plan of ours; what `cursor::expose` said of its query, or null.
unsafe fn finish_cursor(
    planned: *mut pg_sys::PlannedStmt,
    may_scroll: bool,
    locks: bool,
    exposed: *mut pg_sys::List,
) {
    // SAFETY: the caller vouches for both.
    unsafe {
        if may_scroll {
            scrolling::keep_rows(planned);
        }
        if locks {
            scrolling::say_that_it_locks(planned);
        }
        if !exposed.is_null() {
            cursor::wrap(planned, exposed);
        }
    }
}

unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: PostgreSQL's own arguments; this frame holds plain values only.
    unsafe {
        let (next, finishes) = boundary(|| {
            let mut call = UtilityCall::new(statement, text, completion);
            planner().utility(&mut call).map(|outcome| match outcome {
                utility::Outcome::Done => (std::ptr::null_mut(), false),
                utility::Outcome::PassOn => (call.statement(), false),
                utility::Outcome::ThenFinish => (call.statement(), true),
            })
        });
        if next.is_null() || boundary(|| aged::import(next)) {
            return;
        }
        let finish = boundary(|| events::before_utility(next, text));
        let read_only_tree = read_only_tree && next == statement;
        match PREVIOUS.get() {
            Some(Previous { utility: Some(previous), .. }) => {
                previous(
                    next,
                    text,
                    read_only_tree,
                    context,
                    parameters,
                    environment,
                    receiver,
                    completion,
                );
            }
            _ => raw::standard_ProcessUtility(
                next,
                text,
                read_only_tree,
                context,
                parameters,
                environment,
                receiver,
                completion,
            ),
        }
        if let Some(finish) = finish {
            events::after_utility(finish);
        }
        if finishes {
            boundary(|| planner().finish_utility(&mut UtilityCall::new(next, text, completion)));
        }
    }
}

unsafe extern "C-unwind" fn access(
    kind: pg_sys::ObjectAccessType::Type,
    class: Oid,
    object: Oid,
    sub_object: c_int,
    argument: *mut c_void,
) {
    // SAFETY: PostgreSQL's own arguments; this frame holds plain values only.
    unsafe {
        if let Some(Previous { access: Some(previous), .. }) = PREVIOUS.get() {
            previous(kind, class, object, sub_object, argument);
        }
        if kind == pg_sys::ObjectAccessType::OAT_DROP && class == pg_sys::RelationRelationId {
            boundary(|| match sub_object {
                0 => planner().on_drop(object),
                _ => planner().on_drop_column(object),
            });
        }
    }
}

unsafe extern "C-unwind" fn relation_changed(_: pg_sys::Datum, table: Oid) {
    // Only forgets: no catalog is read inside an invalidation.
    planner().forget((table != Oid::INVALID).then_some(table));
}

unsafe extern "C-unwind" fn function_changed(_: pg_sys::Datum, _cache: c_int, _hash: u32) {
    planner().forget_plans();
}

unsafe extern "C-unwind" fn namespace_changed(_: pg_sys::Datum, _cache: c_int, _hash: u32) {
    planner().forget(None);
}
