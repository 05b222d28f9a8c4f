//! Executions of statements, and what is done at the end of one.
//!
//! Changes that wait for the rest of their statement (see [`super::row_changes`]) are sent when PostgreSQL has run it to its end,
//! and before it fires AFTER triggers, which see them.

use crate::sys::boundary::boundary;
use crate::sys::error::PgError;
use pgrx::pg_sys;
use std::sync::OnceLock;

mod raw {
    //! Called without pgrx' guard, so that errors keep every field.
    use pgrx::pg_sys;
    unsafe extern "C-unwind" {
        /// Plain frames: the hook holds nothing to drop.
        pub(super) fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);
        /// Plain frames: as above.
        pub(super) fn AfterTriggerEndQuery(estate: *mut pg_sys::EState);
    }
}

/// One execution of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution(usize);

impl Execution {
    pub(crate) fn of(estate: *mut pg_sys::EState) -> Self {
        Self(estate.addr())
    }
}

/// What is done at the end of an execution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// Sends the changes that have waited.
    pub(crate) send: fn(Execution) -> Result<(), PgError>,
    /// Follows when triggers have fired.
    pub(crate) forget: fn(Execution),
}

/// Whoever had the hook of the end of execution before us.
static PREVIOUS_FINISH: OnceLock<pg_sys::ExecutorFinish_hook_type> = OnceLock::new();

static ENDS: OnceLock<Ends> = OnceLock::new();

/// Installs the hook.
///
/// # Safety
///
/// Once per process, from `_PG_init`.
pub(crate) unsafe fn install(ends: Ends) {
    // SAFETY: the caller vouches; hooks are plain function pointers.
    unsafe {
        let _ = ENDS.set(ends);
        let _ = PREVIOUS_FINISH.set(pg_sys::ExecutorFinish_hook);
        pg_sys::ExecutorFinish_hook = Some(finish);
    }
}

unsafe extern "C-unwind" fn finish(query: *mut pg_sys::QueryDesc) {
    let skip = pg_sys::EXEC_FLAG_SKIP_TRIGGERS as i32;
    // SAFETY: PostgreSQL's own argument, passed on; this frame holds plain values only. Told to skip the triggers,
    // standard_ExecutorFinish leaves out AfterTriggerEndQuery and nothing else (`src/backend/executor/execMain.c`).
    unsafe {
        let estate = (*query).estate;
        let execution = Execution::of(estate);
        // Changes wait only if a WITH clause writes.
        let is_divided =
            (*estate).es_top_eflags & skip == 0 && !(*estate).es_auxmodifytables.is_null();
        if is_divided {
            (*estate).es_top_eflags |= skip;
        }
        match PREVIOUS_FINISH.get() {
            Some(Some(previous)) => previous(query),
            _ => raw::standard_ExecutorFinish(query),
        }
        boundary(|| ENDS.get().map_or(Ok(()), |ends| (ends.send)(execution)));
        if is_divided {
            (*estate).es_top_eflags &= !skip;
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = (*estate).es_query_cxt;
            raw::AfterTriggerEndQuery(estate);
            pg_sys::CurrentMemoryContext = before;
        }
        boundary(|| {
            ENDS.get().iter().for_each(|ends| (ends.forget)(execution));
            Ok(())
        });
    }
}
