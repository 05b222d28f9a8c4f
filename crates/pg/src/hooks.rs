//! Hooks: how PostgreSQL calls us, and how we call whoever was there before.
//!
//! What was there before is kept in `sys/previous.rs`. The outer functions hold nothing
//! with a destructor and call the core or the previous hook directly, so an ERROR from below passes over them
//! with all its fields; our own part runs inside [`boundary`].

use crate::catalog::privileged;
use crate::exec::cursor;
use crate::exec::early;
use crate::exec::execution::{self, Ends, Execution};
use crate::exec::scan::{self, BeginScan};
use crate::exec::scrolling;
use crate::exec::triggers;
use crate::extension::{self, Extension, extension};
use crate::path::base::{self};
use crate::path::join;
use crate::path::modify::{self, ModifyTarget};
use crate::path::plan::{self, BoundParameters, Plan};
use crate::path::pushed;
use crate::path::upper;
use crate::read::query::Statement;
use crate::server::transaction;
use crate::server::utility::{self, UtilityCall};
use crate::sys::boundary::boundary;
use crate::sys::error::PgError;
use crate::sys::plan::{PlanWriter, ShardScan};
use crate::sys::previous::{self, Previous};
use crate::sys::version;
use crate::time::{aged, events};
use pgrx::pg_sys::{self, Oid};
use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

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

/// What the extension makes of statements.
pub trait Planner: Extension {
    /// Plans a statement.
    fn plan(
        &self,
        statement: Statement,
        parameters: BoundParameters,
        scroll: bool,
    ) -> Result<Verdict, PgError>;
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
}

static PLANNER: OnceLock<&'static dyn Planner> = OnceLock::new();

fn planner() -> &'static dyn Planner {
    *PLANNER.get().unwrap_or_else(|| unreachable!("hooks are installed after the extension is set"))
}

/// Installs every hook and callback; once per process, from `_PG_init`.
pub fn install(extension: &'static dyn Planner, begin: BeginScan) {
    if !extension::set(extension) || PLANNER.set(extension).is_err() {
        return;
    }
    pushed::register(|scan| planner().plan_scan(scan));
    modify::register(|target| planner().plan_modify(target));
    scan::register(begin);
    cursor::register();
    // SAFETY: `_PG_init` runs alone on the main thread; hooks are plain function pointers, and callbacks stay
    // registered for the life of the process, as our library does.
    unsafe {
        previous::keep(Previous {
            planner: pg_sys::planner_hook,
            relation_paths: pg_sys::set_rel_pathlist_hook,
            relation_info: pg_sys::get_relation_info_hook,
            join_paths: pg_sys::set_join_pathlist_hook,
            upper_paths: pg_sys::create_upper_paths_hook,
            utility: pg_sys::ProcessUtility_hook,
            access: pg_sys::object_access_hook,
        });
        pg_sys::planner_hook = Some(plan_statement);
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

unsafe extern "C-unwind" fn plan_statement(
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
        let verdict = if plan::is_passed_on() {
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
        let planned = match previous::previous() {
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
        match previous::previous() {
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
        if let Some(Previous { access: Some(previous), .. }) = previous::previous() {
            previous(kind, class, object, sub_object, argument);
        }
        let can_be_placed = [
            pg_sys::TypeRelationId,
            pg_sys::ProcedureRelationId,
            pg_sys::CollationRelationId,
            pg_sys::NamespaceRelationId,
        ];
        if kind == pg_sys::ObjectAccessType::OAT_DROP && can_be_placed.contains(&class) {
            boundary(|| extension().on_drop_object(class, object));
        }
        if kind == pg_sys::ObjectAccessType::OAT_DROP && class == pg_sys::RelationRelationId {
            boundary(|| match sub_object {
                0 => extension().on_drop(object),
                _ => extension().on_drop_column(object),
            });
        }
    }
}

unsafe extern "C-unwind" fn relation_changed(_: pg_sys::Datum, table: Oid) {
    // Only forgets: no catalog is read inside an invalidation.
    extension().forget((table != Oid::INVALID).then_some(table));
}

unsafe extern "C-unwind" fn function_changed(_: pg_sys::Datum, _cache: c_int, _hash: u32) {
    extension().forget_plans();
}

unsafe extern "C-unwind" fn namespace_changed(_: pg_sys::Datum, _cache: c_int, _hash: u32) {
    extension().forget(None);
}
