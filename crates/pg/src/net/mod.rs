//! Connections to the nodes: opening, talking, waiting.

/// libpq: opening connections.
pub mod libpq;

/// What is said on an open connection.
pub mod link;

/// A clock that never goes back.
pub mod clock;

/// Waiting for nodes.
pub mod wait;

/// Waits that take long.
pub mod watch;

/// Connections that another process has opened.
pub mod adopted;

/// By which key they are cancelled.
mod cancel_key;
