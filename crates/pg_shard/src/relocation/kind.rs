//! What a relocation is for.

/// What becomes of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is dropped.
    Move,
    /// It stays.
    Copy,
    /// It stays, and the new placement takes the place of another one, on a lost node.
    Replace,
    /// Parts of it take its place, on the same node.
    Split,
}

impl Kind {
    /// For messages.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Move => "move",
            Self::Copy | Self::Replace => "copy",
            Self::Split => "split",
        }
    }
}
