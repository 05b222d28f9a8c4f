//! What stands above the joins, on the workers: grouping (`group.rs`), windows (`window.rs`), DISTINCT (`distinct.rs`),
//! ORDER BY with LIMIT, and LIMIT (`ordered.rs`). What the nodes leave is done here once more.

use crate::extension::extension;
use crate::path::window;
use crate::path::{
    distinct::distinct,
    group::group,
    ordered::{limit, order},
};
use crate::sys::boundary::boundary;
use crate::sys::previous::previous;
use pgrx::pg_sys;
use std::ffi::c_void;

/// `create_upper_paths_hook`.
///
/// # Safety
///
/// Called by the planner with its own structures.
pub(crate) unsafe extern "C-unwind" fn upper_paths(
    root: *mut pg_sys::PlannerInfo,
    stage: pg_sys::UpperRelationKind::Type,
    input: *mut pg_sys::RelOptInfo,
    output: *mut pg_sys::RelOptInfo,
    extra: *mut c_void,
) {
    // SAFETY: the planner's live structures; `extra` is the struct of the stage.
    unsafe {
        if let Some(previous) = previous().and_then(|it| it.upper_paths) {
            previous(root, stage, input, output, extra);
        }
        boundary(|| {
            if !extension().pushes_down()
                || (*(*root).parse).commandType != pg_sys::CmdType::CMD_SELECT
                || !(*(*root).parse).rowMarks.is_null()
                || !(*root).rowMarks.is_null()
            {
                return Ok(());
            }
            match stage {
                pg_sys::UpperRelationKind::UPPERREL_GROUP_AGG => {
                    group(root, input, output, extra.cast());
                }
                pg_sys::UpperRelationKind::UPPERREL_WINDOW => window::windows(root, input, output),
                pg_sys::UpperRelationKind::UPPERREL_DISTINCT => distinct(root, input, output),
                pg_sys::UpperRelationKind::UPPERREL_ORDERED => order(root, input, output),
                pg_sys::UpperRelationKind::UPPERREL_FINAL => limit(root, input, output),
                _ => {}
            }
            Ok(())
        });
    }
}
