//! Small tools for PostgreSQL's lists and nodes.
//!
//! All of it is `unsafe` in the same way: a pointer must be a live node or list of this backend, and lists
//! hold pointers unless said otherwise. Only the wall uses these.

use pgrx::pg_sys::{self, NodeTag};
use std::ffi::{CStr, CString, c_char, c_void};

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

struct Walk<'a, 'b> {
    visitor: &'a mut Visitor<'b>,
}

unsafe extern "C-unwind" fn step(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: `walk` passed this pointer and it outlives the walk.
    let walk = unsafe { &mut *context.cast::<Walk<'_, '_>>() };
    match (walk.visitor)(node) {
        Visit::Stop => true,
        Visit::Skip => false,
        // SAFETY: a live node out of a live tree; the walkers know queries and expressions.
        Visit::Into => unsafe {
            if tag(node) == NodeTag::T_Query {
                raw::query_tree_walker(node.cast(), Some(step), context, 0)
            } else {
                raw::expression_tree_walker(node, Some(step), context)
            }
        },
    }
}

mod raw {
    //! The walkers, called without pgrx' guard: a panic of a visitor and an ERROR both unwind or jump to the
    //! guard of whoever called us.
    use pgrx::pg_sys;
    use std::ffi::{c_int, c_void};
    type Walker = Option<unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool>;
    unsafe extern "C-unwind" {
        pub(super) fn query_tree_walker(
            query: *mut pg_sys::Query,
            walker: Walker,
            context: *mut c_void,
            flags: c_int,
        ) -> bool;
        pub(super) fn expression_tree_walker(
            node: *mut pg_sys::Node,
            walker: Walker,
            context: *mut c_void,
        ) -> bool;
    }
}

/// Visits `node` and what is below it, sub-queries included; true if the visitor stopped.
///
/// # Safety
///
/// `node` is null or a live query or expression tree.
pub(crate) unsafe fn walk<T>(node: *mut T, visitor: &mut Visitor<'_>) -> bool {
    let mut walk = Walk { visitor };
    // SAFETY: the caller vouches for the tree; `walk` lives until the walk is over.
    unsafe { step(node.cast(), (&raw mut walk).cast()) }
}

/// A rewriter of trees: `Some` replaces the node, `None` copies it and goes on below.
pub(crate) type Rewriter<'a> = dyn FnMut(*mut pg_sys::Node) -> Option<*mut pg_sys::Node> + 'a;

struct Rewrite<'a, 'b> {
    rewriter: &'a mut Rewriter<'b>,
}

unsafe extern "C-unwind" fn rewrite_step(
    node: *mut pg_sys::Node,
    context: *mut c_void,
) -> *mut pg_sys::Node {
    if node.is_null() {
        return node;
    }
    // SAFETY: `rewrite` passed this pointer and it outlives the walk.
    let rewrite = unsafe { &mut *context.cast::<Rewrite<'_, '_>>() };
    if let Some(replacement) = (rewrite.rewriter)(node) {
        return replacement;
    }
    // SAFETY: PostgreSQL declares mutators without a prototype; this is the signature it calls them with
    // (`src/include/nodes/nodeFuncs.h`). The node is live.
    unsafe {
        let mutator = std::mem::transmute::<
            unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> *mut pg_sys::Node,
            unsafe extern "C-unwind" fn() -> *mut pg_sys::Node,
        >(rewrite_step);
        if tag(node) == NodeTag::T_Query {
            pg_sys::query_tree_mutator(node.cast(), Some(mutator), context, 0).cast()
        } else {
            pg_sys::expression_tree_mutator(node, Some(mutator), context)
        }
    }
}

/// A copy of the tree with nodes replaced.
///
/// # Safety
///
/// `node` is a live query or expression tree.
pub(crate) unsafe fn rewrite<T>(node: *mut T, rewriter: &mut Rewriter<'_>) -> *mut T {
    let mut rewrite = Rewrite { rewriter };
    // SAFETY: the caller vouches for the tree; `rewrite` lives until the walk is over.
    unsafe { rewrite_step(node.cast(), (&raw mut rewrite).cast()).cast() }
}
