//! What `cargo xtask bench` is asked for.

use std::path::PathBuf;

/// What is to be measured, and how.
#[derive(Debug)]
pub(crate) struct Options {
    /// How long a run lasts.
    pub(crate) seconds: u32,
    /// How many runs each side of a case gets.
    pub(crate) rounds: u32,
    /// Only cases with this in their names.
    pub(crate) only: Option<String>,
    /// Whether commits wait for the disk.
    pub(crate) synchronous_commit: bool,
    /// Where the figures go, for programs to read.
    pub(crate) json: Option<PathBuf>,
}
