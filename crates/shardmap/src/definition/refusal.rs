//! Changes of a definition that shards cannot follow.

/// Why the shards cannot follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The distribution column would go.
    KeyDropped,
    /// The distribution column would have other hashes.
    KeyConverted {
        /// The type before.
        from: String,
        /// The type after.
        to: String,
    },
    /// One of several triggers by which constraints are enforced would be turned on or off.
    SystemTrigger,
    /// Access method, server, or the options of a foreign table.
    Storage,
}
