//! When the time was chosen at which the client's transaction reads: by which metadata.

use crate::catalog;
use std::cell::Cell;

thread_local! {
    static METADATA: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The time is chosen now.
pub(super) fn note() {
    METADATA.set(Some(catalog::moment()));
}

/// There is none any more.
pub(super) fn forget() {
    METADATA.set(None);
}

/// There is one, and the metadata were others then.
pub(super) fn is_older_than_metadata() -> bool {
    METADATA.get().is_some_and(|known| known != catalog::moment())
}
