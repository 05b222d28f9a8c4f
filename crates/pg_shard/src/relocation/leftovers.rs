//! What a relocation has committed before its end.

use pg::server::resolver;

/// Has a visitor look for what was left behind, unless all went well.
#[derive(Default)]
pub(crate) struct Leftovers {
    wakes: bool,
}

impl Leftovers {
    /// From now on there is something that the end of the transaction does not undo.
    pub(crate) fn are_there(&mut self) {
        self.wakes = true;
    }

    /// It goes with the transaction.
    pub(crate) fn are_gone(&mut self) {
        self.wakes = false;
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        if self.wakes {
            resolver::wake();
        }
    }
}
