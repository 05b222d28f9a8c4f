//! Small tools for PostgreSQL's lists and nodes.
//!
//! All of it is `unsafe` in the same way: a pointer must be a live node or list of this backend, and lists
//! hold pointers unless said otherwise. Only the wall uses these.

use super::version::walkers;
use pgrx::pg_sys::{self, NodeTag};
use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// How many elements; 0 for NIL.
///
/// # Safety
///
/// `list` is null or a live list.
pub(crate) unsafe fn length(list: *const pg_sys::List) -> usize {
    // SAFETY: the caller vouches for the list.
    if list.is_null() { 0 } else { unsafe { (*list).length as usize } }
}

/// The element at `index` of a list of pointers.
///
/// # Safety
///
/// `list` is live, of pointers to `T`, and longer than `index`.
pub(crate) unsafe fn nth<T>(list: *const pg_sys::List, index: usize) -> *mut T {
    // SAFETY: the caller vouches for list, type and index.
    unsafe { (*(*list).elements.add(index)).ptr_value.cast() }
}

/// The elements of a list of pointers, copied out.
///
/// # Safety
///
/// `list` is null or a live list of pointers to `T`.
pub(crate) unsafe fn elements<T>(list: *const pg_sys::List) -> Vec<*mut T> {
    // SAFETY: the caller vouches for the list; the indexes are below its length.
    unsafe { (0..length(list)).map(|index| nth(list, index)).collect() }
}

/// Raises PostgreSQL's error if the stack is used up: at the head of whatever of ours calls itself by the depth of a statement.
pub(crate) fn check_depth() {
    // SAFETY: compares an address (`src/backend/tcop/postgres.c`); the ERROR is raised below a guard.
    unsafe {
        if raw::stack_is_too_deep() {
            pg_sys::ffi::pg_guard_ffi_boundary(|| raw::check_stack_depth());
        }
    }
}

/// A list of the pointers given.
pub(crate) fn list_of<T>(items: &[*mut T]) -> *mut pg_sys::List {
    // SAFETY: lappend makes a list out of NIL and keeps any pointer.
    items
        .iter()
        .fold(std::ptr::null_mut(), |list, item| unsafe { pg_sys::lappend(list, item.cast()) })
}

/// The tag of a node.
///
/// # Safety
///
/// `node` is a live node.
pub(crate) unsafe fn tag<T>(node: *const T) -> NodeTag {
    // SAFETY: every node starts with its tag.
    unsafe { (*node.cast::<pg_sys::Node>()).type_ }
}

/// `node` as a `T` if it is not null and has that tag.
///
/// # Safety
///
/// `node` is null or a live node; `wanted` is the tag of `T`.
pub(crate) unsafe fn cast<T, N>(node: *mut N, wanted: NodeTag) -> Option<*mut T> {
    // SAFETY: the caller vouches for the node.
    (!node.is_null() && unsafe { tag(node) } == wanted).then(|| node.cast())
}

/// A zeroed node with its tag.
///
/// # Safety
///
/// `T` is the struct of the tag.
pub(crate) unsafe fn make<T>(tag: NodeTag) -> *mut T {
    // SAFETY: palloc0 returns zeroed memory of the size or does not return.
    unsafe {
        let node = pg_sys::palloc0(size_of::<T>());
        (*node.cast::<pg_sys::Node>()).type_ = tag;
        node.cast()
    }
}

/// A deep copy.
///
/// # Safety
///
/// `node` is null or a live node that copyObject knows.
pub(crate) unsafe fn copy<T>(node: *const T) -> *mut T {
    // SAFETY: the caller vouches for the node.
    unsafe { pg_sys::copyObjectImpl(node.cast()).cast() }
}

/// `text` in PostgreSQL's memory; cut at a zero byte, which SQL texts never have.
pub(crate) fn c_text(text: &str) -> *mut c_char {
    let text = CString::new(text.replace('\0', "")).unwrap_or_default();
    // SAFETY: a zero-terminated text.
    unsafe { pg_sys::pstrdup(text.as_ptr()) }
}

/// A T_String node.
pub(crate) fn string_node(text: &str) -> *mut pg_sys::Node {
    // SAFETY: the text is palloced in the same context as the node.
    unsafe { pg_sys::makeString(c_text(text)).cast() }
}

/// The text of a name that PostgreSQL returned.
///
/// # Safety
///
/// `text` is null or zero-terminated.
pub(crate) unsafe fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller vouches for it.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A visitor of trees: return true to stop.
type Visitor<'a> = dyn FnMut(*mut pg_sys::Node) -> Visit + 'a;

/// What a visitor wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Go into the node.
    Into,
    /// Leave the node out.
    Skip,
    /// Stop: found.
    Stop,
}

/// A visitor's panic on its way past PostgreSQL's frames.
type Panic = Option<Box<dyn Any + Send>>;

struct Walk<'a, 'b> {
    visitor: &'a mut Visitor<'b>,
    panic: Panic,
}

/// Asks the visitor. Its panic ends the walk, and goes on outside of it.
///
/// This is not part of [`step`], whose frame must be plain and small: a tree may be thousands of nodes deep.
#[inline(never)]
fn ask(walk: &mut Walk<'_, '_>, node: *mut pg_sys::Node) -> Visit {
    let Walk { visitor, panic } = walk;
    catch_unwind(AssertUnwindSafe(|| visitor(node))).unwrap_or_else(|caught| {
        *panic = Some(caught);
        Visit::Stop
    })
}

/// A node's turn in a walk: PostgreSQL's walkers call it, and an ERROR passes over it to the guard of [`walk`].
unsafe extern "C-unwind" fn step(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: `walk` passed this pointer, and it outlives the walk.
    match ask(unsafe { &mut *context.cast::<Walk<'_, '_>>() }, node) {
        Visit::Stop => true,
        Visit::Skip => false,
        // SAFETY: a live node out of a live tree; the walkers know queries and expressions. Lists, of which a deep tree has
        // one on every other level, are gone through here as the walker would, to take less of the stack.
        Visit::Into => unsafe {
            match tag(node) {
                NodeTag::T_Query => walkers::query_tree_walker(node.cast(), Some(step), context, 0),
                NodeTag::T_List => {
                    raw::check_stack_depth();
                    let list: *const pg_sys::List = node.cast();
                    (0..length(list)).any(|index| step(nth(list, index), context))
                }
                _ => walkers::expression_tree_walker(node, Some(step), context),
            }
        },
    }
}

mod raw {
    //! Called without pgrx' guard.
    unsafe extern "C-unwind" {
        /// Plain frames: those of `step`, and the guard's of `check_depth`.
        pub(super) fn check_stack_depth();
        /// Raises nothing: compares an address.
        pub(super) fn stack_is_too_deep() -> bool;
    }
}

/// Visits `node` and what is below it, sub-queries included; true if the visitor stopped.
///
/// # Safety
///
/// `node` is null or a live query or expression tree.
pub(crate) unsafe fn walk<T>(node: *mut T, visitor: &mut Visitor<'_>) -> bool {
    if node.is_null() {
        return false;
    }
    let mut walk = Walk { visitor, panic: None };
    let context: *mut c_void = (&raw mut walk).cast();
    // SAFETY: the caller vouches for the tree; `walk` lives until the walk is over. The guard has an ERROR of the walkers,
    // which may run out of the stack, unwind the frames above; those below it are plain.
    let found = unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| step(node.cast(), context)) };
    walk.panic.map_or(found, |panic| resume_unwind(panic))
}

/// A rewriter of trees: `Some` replaces the node, `None` copies it and goes on below.
pub(crate) type Rewriter<'a> = dyn FnMut(*mut pg_sys::Node) -> Option<*mut pg_sys::Node> + 'a;

struct Rewrite<'a, 'b> {
    rewriter: &'a mut Rewriter<'b>,
    panic: Panic,
}

/// Asks the rewriter. After its panic the rest of the tree stays as it is, since nobody will see it.
#[inline(never)]
fn ask_rewriter(
    rewrite: &mut Rewrite<'_, '_>,
    node: *mut pg_sys::Node,
) -> Option<*mut pg_sys::Node> {
    let Rewrite { rewriter, panic } = rewrite;
    if panic.is_some() {
        return Some(node);
    }
    catch_unwind(AssertUnwindSafe(|| rewriter(node))).unwrap_or_else(|caught| {
        *panic = Some(caught);
        Some(node)
    })
}

/// A node's turn in a rewrite, as [`step`].
unsafe extern "C-unwind" fn rewrite_step(
    node: *mut pg_sys::Node,
    context: *mut c_void,
) -> *mut pg_sys::Node {
    if node.is_null() {
        return node;
    }
    // SAFETY: `rewrite` passed this pointer, and it outlives the rewrite.
    let replacement = ask_rewriter(unsafe { &mut *context.cast::<Rewrite<'_, '_>>() }, node);
    if let Some(replacement) = replacement {
        return replacement;
    }
    // SAFETY: the node is live.
    unsafe {
        if tag(node) == NodeTag::T_Query {
            walkers::query_tree_mutator(node.cast(), Some(rewrite_step), context, 0).cast()
        } else {
            walkers::expression_tree_mutator(node, Some(rewrite_step), context)
        }
    }
}

/// A copy of the tree with nodes replaced.
///
/// # Safety
///
/// `node` is a live query or expression tree.
pub(crate) unsafe fn rewrite<T>(node: *mut T, rewriter: &mut Rewriter<'_>) -> *mut T {
    let mut rewrite = Rewrite { rewriter, panic: None };
    let context: *mut c_void = (&raw mut rewrite).cast();
    // SAFETY: as in `walk`.
    let copy = unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| rewrite_step(node.cast(), context)) };
    rewrite.panic.map_or(copy.cast(), |panic| resume_unwind(panic))
}

/// What [`summarize`] is told: of a node by itself, and of all that is at it and below it.
pub(crate) trait Summary {
    /// The bits of a node by itself.
    fn own(&mut self, node: *mut pg_sys::Node) -> u8;
    /// The bits of a node and of all below it.
    fn whole(&mut self, node: *mut pg_sys::Node, bits: u8);
}

struct Summarizing<'a> {
    summary: &'a mut dyn Summary,
    bits: u8,
    panic: Panic,
}

/// Asks the summary, as [`ask`].
#[inline(never)]
fn note(walk: &mut Summarizing<'_>, node: *mut pg_sys::Node, is_left: bool) -> bool {
    let Summarizing { summary, bits, panic } = walk;
    let noted = catch_unwind(AssertUnwindSafe(|| match is_left {
        true => summary.whole(node, *bits),
        false => *bits = summary.own(node),
    }));
    *panic = noted.err();
    panic.is_none()
}

/// A node's turn, as [`step`].
unsafe extern "C-unwind" fn summarizing_step(
    node: *mut pg_sys::Node,
    context: *mut c_void,
) -> bool {
    if node.is_null() {
        return false;
    }
    let walk: *mut Summarizing<'_> = context.cast();
    // SAFETY: `summarize` passed this pointer, and it outlives the walk; the node is live, as in `step`.
    unsafe {
        let before = (*walk).bits;
        if !note(&mut *walk, node, false) {
            return true;
        }
        let is_stopped = if tag(node) == NodeTag::T_Query {
            walkers::query_tree_walker(node.cast(), Some(summarizing_step), context, 0)
        } else {
            walkers::expression_tree_walker(node, Some(summarizing_step), context)
        };
        let is_stopped = is_stopped || !note(&mut *walk, node, true);
        (*walk).bits |= before;
        is_stopped
    }
}

/// Goes through `node` and what is below it once, sub-queries included, and tells of each node which bits it and those below it have.
///
/// # Safety
///
/// `node` is null or a live query or expression tree.
pub(crate) unsafe fn summarize<T>(node: *mut T, summary: &mut dyn Summary) {
    let mut walk = Summarizing { summary, bits: 0, panic: None };
    let context: *mut c_void = (&raw mut walk).cast();
    // SAFETY: as in `walk`.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| summarizing_step(node.cast(), context)) };
    if let Some(panic) = walk.panic {
        resume_unwind(panic);
    }
}
