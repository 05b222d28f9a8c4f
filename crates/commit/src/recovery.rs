//! What becomes of a prepared transaction that nobody ends any more.

/// What an anchor's server says about its transaction. It is asked first whether the transaction is under way, then for
/// the row: one that ends in between is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The transaction is under way there, or prepared there.
    UnderWay,
    /// It is not, and its row is there or not.
    Ended {
        /// The row that the transaction has written is visible.
        has_row: bool,
    },
    /// The server cannot be asked.
    Unknown,
}

/// What to do with a prepared transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// COMMIT PREPARED.
    Commit,
    /// ROLLBACK PREPARED.
    RollBack,
    /// Nothing yet.
    Wait,
}

/// Decides about a prepared transaction by what its anchor says. All participants get the same verdict, whenever they ask:
/// once the anchor's transaction has ended it can neither begin again nor end otherwise.
pub fn verdict(anchor: State) -> Verdict {
    match anchor {
        State::Ended { has_row: true } => Verdict::Commit,
        State::Ended { has_row: false } => Verdict::RollBack,
        State::UnderWay | State::Unknown => Verdict::Wait,
    }
}
